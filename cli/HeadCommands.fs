/// What the commands that use trained heads do. A result is an exit code: 0, or 2 for a user's mistake.
module Cmcl.Cli.HeadCommands

open System
open System.IO
open Argu
open TorchSharp
open Cmcl
open Cmcl.Encoders
open Cmcl.Cli.HeadArguments
open Cmcl.Cli.Commands

/// The exit code of what was done, and a sentence about it.
let private tell (quiet: bool) (sentence: 'a -> string) (result: Result<'a, Fault list>) : int =
    match result with
    | Error faults -> refuse faults
    | Ok value ->
        if not quiet then
            printfn "%s" (sentence value)

        0

let private free (force: bool) (paths: string list) : Result<unit, Fault list> =
    paths |> List.map (Files.free force) |> Check.all |> Result.map ignore

let private once (arguments: ParseResults<'a>) (out: string option) : Result<unit, Fault list> =
    checkGiven arguments out None None None

let export (arguments: ParseResults<ExportArgument>) : int =
    use scope = torch.NewDisposeScope()
    let out = arguments.GetResult(ExportArgument.Out, "heads.safetensors")

    validated {
        let! () = once arguments (Some out)

        and! saved =
            RunHeads.read
                (arguments.GetResult ExportArgument.Results)
                (arguments.GetResult ExportArgument.Method)
                (arguments.GetResult(ExportArgument.Seed, 0))
                (arguments.TryGetResult ExportArgument.Step)

        return saved
    }
    |> Result.bind (fun saved ->
        free (arguments.Contains ExportArgument.Force) (SavedHeads.files out saved)
        |> Result.bind (fun () -> SavedHeads.write out saved)
        |> Result.map (fun () -> saved))
    |> tell (arguments.Contains ExportArgument.Quiet) (fun saved ->
        let about = String.Join(", ", [ for KeyValue(name, value) in saved.About -> $"{name} {value}" ])

        String.Join(
            "\n",
            [ for KeyValue(m, w) in saved.Heads -> $"{m}: {Tensors.shapeText w}, {string(w.dtype).ToLowerInvariant()}" ]
            @ [ about; Path.GetFullPath out ]
        ))

/// Heads of which the user says that they have a bias.
let private withBias (path: string) (saved: SavedHeads) : Result<SavedHeads, Fault list> =
    match Map.tryFind "bias" saved.About with
    | Some "no" -> Error [ Fault.Contradiction($"--bias, and '{path}' says that its heads have none", "leave out --bias") ]
    | _ -> Ok { saved with About = Map.add "bias" "yes" saved.About }

/// What the rows of a file are called and made from, where that stands beside it: as it will stand beside another.
let private beside
    (features: string)
    (rows: int64)
    (out: string)
    : Result<(string * (unit -> Result<unit, Fault list>)) list, Fault list> =
    let ids, list = Ids.beside features, ItemLists.beside features

    validated {
        let! ids = if File.Exists ids then Ids.read ids rows |> Result.map Some else Ok None

        and! items =
            if File.Exists list then
                BankItems.ofFile "naming the rows of the outputs" $"'{features}'" rows list |> Result.map Some
            else
                Ok None

        return
            [ for ids in Option.toList ids do
                  Ids.beside out,
                  (fun () ->
                      Files.writeText (Ids.beside out) (fun file -> Array.iter (fun (id: string) -> file.WriteLine id) ids))
              for items in Option.toList items do
                  ItemLists.beside out, (fun () -> BankItems.write (ItemLists.beside out) items) ]
    }

let apply (arguments: ParseResults<ApplyArgument>) : int =
    use scope = torch.NewDisposeScope()
    let heads, features = arguments.GetResult ApplyArgument.Files
    let out = arguments.GetResult ApplyArgument.Out
    let scoring = if arguments.Contains ApplyArgument.Normalise then Scoring.Cosine else Scoring.Raw

    validated {
        let! () = once arguments (Some out)
        and! modality = Modality.create (arguments.GetResult ApplyArgument.Modality)
        and! saved = SavedHeads.read heads
        let! saved = if arguments.Contains ApplyArgument.Bias then withBias heads saved else Ok saved
        and! x = Projected.features features
        let! along = beside features x.shape[0] out
        let! () = free (arguments.Contains ApplyArgument.Force) (out :: List.map fst along)
        return modality, saved, along
    }
    |> Result.bind (fun (modality, saved, along) ->
        Projected.file scoring saved modality features out
        |> Result.bind (fun shape -> along |> List.map (fun (_, write) -> write ()) |> Check.all |> Result.map (fun _ -> shape)))
    |> tell (arguments.Contains ApplyArgument.Quiet) (fun shape -> $"{Path.GetFullPath out}: [{shape[0]} × {shape[1]}]")

/// How rows of a file are called.
let private names (ids: bool) (path: string) (x: torch.Tensor) : Result<int64 -> string, Fault list> =
    let file = Ids.beside path

    if ids && not (File.Exists file) then
        Error
            [ Fault.Contradiction(
                  $"--ids, and there is no '{file}'",
                  $"write it, an id a line for each row of '{path}', or leave out --ids for numbers"
              ) ]
    elif ids then
        Ids.read (Ids.beside path) x.shape[0] |> Result.map (fun all row -> all[int row])
    else
        Ok string

let retrieve (arguments: ParseResults<RetrieveArgument>) : int =
    use scope = torch.NewDisposeScope()
    let fileA, fileB = arguments.GetResult RetrieveArgument.Files
    let out = arguments.TryGetResult RetrieveArgument.Out
    let ids = arguments.Contains RetrieveArgument.Ids
    let scoring = if arguments.Contains RetrieveArgument.Cosine then Scoring.Cosine else Scoring.Raw
    let k = arguments.GetResult(RetrieveArgument.K, 10)

    let side path = Projected.features path |> Result.bind (fun x -> names ids path x |> Result.map (fun name -> x, name))

    validated {
        let! () = once arguments out
        and! () = free (arguments.Contains RetrieveArgument.Force) (Option.toList out)
        and! a = side fileA
        and! b = side fileB
        return a, b
    }
    |> Result.bind (fun ((a, nameA), (b, nameB)) ->
        if a.shape[1] <> b.shape[1] then
            Error [ Fault.Shape($"'{fileB}'", $"{a.shape[1]} columns, as '{fileA}' has", string b.shape[1]) ]
        elif k < 1 || int64 k > b.shape[0] then
            Error [ Fault.BadValue("-k", $"a whole number from 1 to {b.shape[0]}, the rows of '{fileB}'", string k) ]
        else
            let write = Nearest.search scoring k a b |> Nearest.write nameA nameB

            match out with
            | Some path -> Files.writeText path write
            | None -> Ok(write Console.Out))
    |> tell true (fun () -> "")
