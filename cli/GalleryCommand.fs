/// What `cmcl gallery` does. A result is an exit code: 0, 1 where a picture or a recording could not be read, 2 for a user's mistake.
module Cmcl.Cli.GalleryCommand

open System
open System.Collections.Generic
open System.IO
open Argu
open TorchSharp
open Cmcl
open Cmcl.Encoders
open Cmcl.Cli.GalleryArguments
open Cmcl.Cli.Commands

/// The run of a results folder. Faults: a folder that is not there or holds no run.
let private run (results: string) : Result<RunInfo, Fault list> =
    let record = Path.Combine(results, "config.json")

    if not (Directory.Exists results) then
        Error [ Fault.Missing(results, "the gallery") ]
    elif not (File.Exists record) then
        Error [ Fault.Missing(record, "the gallery of a run") ]
    else
        RunInfo.read results
        |> Result.bind (fun info ->
            if info.Methods.IsEmpty || info.Seeds.IsEmpty || info.Steps.IsEmpty then
                Error [ Fault.Unreadable(record, "it is not the record of a run of cmcl run") ]
            else
                Ok info)

let private seedOf (info: RunInfo) (given: int option) : Result<int, Fault list> =
    let seeds = info.Seeds |> List.filter (fun seed -> fst (Int32.TryParse(seed: string))) |> List.map int

    match given with
    | None when not seeds.IsEmpty -> Ok seeds.Head
    | Some seed when List.contains seed seeds -> Ok seed
    | _ ->
        let asked = given |> Option.map string |> Option.defaultValue ""
        Error [ Fault.Unknown("seed in these results", asked, info.Seeds) ]

/// Labels of methods, those that were given or all, with the steps after which there are heads of each.
let private methodsOf
    (results: string)
    (info: RunInfo)
    (seed: int)
    (given: string option)
    : Result<(string * int list) list, Fault list> =
    let known = [ for m in info.Methods -> m.Label ]
    let asked = given |> Option.map Plan.split

    match asked |> Option.defaultValue known |> List.filter (fun label -> not (List.contains label known)) with
    | _ when asked = Some [] -> Error [ Fault.BadValue("--methods", "at least one method of the results", "") ]
    | _ :: _ as unknown -> Error [ for label in unknown -> Fault.Unknown("method in these results", label, known) ]
    | [] ->
        let found = [ for label in Option.defaultValue known asked |> List.distinct -> label, RunHeads.steps results label seed ]

        match found |> List.filter (snd >> List.isEmpty) with
        | without when without.Length = found.Length || asked.IsSome && not without.IsEmpty ->
            let labels = String.Join(", ", without |> List.map fst)

            Error
                [ Fault.Contradiction(
                      $"'{results}' has no heads of {labels} with seed {seed}; heads are kept only on request, and only of methods that learn",
                      "run again with --save-weights"
                  ) ]
        | _ -> Ok found

/// The step that is looked at, and the methods that have heads after it.
let private stepOf (named: bool) (given: int option) (methods: (string * int list) list) =
    let steps = methods |> List.collect snd |> List.distinct |> List.sort
    let step = Option.defaultValue (List.last steps) given
    let with', without = methods |> List.partition (snd >> List.contains step)

    if with'.IsEmpty || named && not without.IsEmpty then
        let known = if with'.IsEmpty then steps else without |> List.map (snd >> set) |> Set.intersectMany |> Set.toList
        let whose = if with'.IsEmpty then "" else $" of '{fst without.Head}'"
        Error [ Fault.Unknown($"step with heads{whose}", string step, List.map string known) ]
    else
        Ok(step, List.map fst with', List.map fst without)

/// Numbers of steps up to the one that is looked at.
let private tasksOf (step: int) (given: string option) : Result<int list, Fault list> =
    match given with
    | None -> Ok [ 1..step ]
    | Some text ->
        numbers "--tasks" $"numbers of steps from 1 to {step}, such as 1,2 or 1-4, each once" text
        |> Result.bind (fun tasks ->
            match tasks |> List.tryFind (fun t -> t < 1 || t > step) with
            | Some t ->
                Error [ Fault.BadValue("--tasks", $"numbers of steps from 1 to {step}, the step that is looked at", string t) ]
            | None -> Ok(List.sort tasks))

let rec private folderOf (place: StreamPlace) : string option =
    match place with
    | StreamPlace.Synthetic -> None
    | StreamPlace.File path -> Option.ofObj (Path.GetDirectoryName path)
    | StreamPlace.Resplit(place, _) -> folderOf place

/// The run's stream, as it was, and the folder that it is in.
let private streamOf (info: RunInfo) (given: string option) : Result<Cmcl.Stream * string option, Fault list> =
    let source = Option.defaultValue info.Source given

    let found =
        Catalogue.locate source |> Result.bind (fun place -> Catalogue.load place |> Result.map (fun stream -> place, stream))

    match found with
    | Error faults when given.IsNone ->
        Error(faults @ [ Fault.Contradiction($"the run was on '{source}'", "name where that is now with --stream") ])
    | Error faults -> Error faults
    | Ok(_, stream) when stream.Digest <> info.Digest ->
        Error
            [ Fault.Contradiction(
                  $"'{source}' is not what the run was on: its digest is {stream.Digest}, and that of the run {info.Digest}",
                  "name the stream as it was then with --stream, or run again"
              ) ]
    | Ok(place, stream) -> Ok(stream, folderOf place)

/// What the rows of the banks of some tasks are, where there is a list of them.
let private itemsOf
    (folder: string option)
    (named: bool)
    (tasks: GalleryTask list)
    : Result<Map<string, BankItem[]>, Fault list> =
    let banks = tasks |> List.collect (fun t -> [ t.Query; t.Partner ]) |> List.distinctBy _.Name

    match folder with
    | None -> Ok Map.empty
    | Some folder when named && not (Directory.Exists folder) -> Error [ Fault.Missing(folder, "--items") ]
    | Some folder ->
        [ for bank in banks ->
              BankItems.read folder bank.Name bank.Features.shape[0] |> Result.map (Option.map (fun items -> bank.Name, items)) ]
        |> Check.all
        |> Result.bind (fun found ->
            match List.choose id found with
            | [] when named ->
                let files = String.Join(", ", banks |> List.map (fun bank -> BankItems.file bank.Name))

                Error
                    [ Fault.Contradiction($"'{folder}' has no list of the items of any bank here", $"put there one of {files}") ]
            | items -> Ok(Map items))

/// Lists in a folder that belong to no bank of the stream: misspelt, as a rule.
let private strays (folder: string) (stream: Cmcl.Stream) : string list =
    if Directory.Exists folder then
        let known = stream.Banks |> Map.keys |> Seq.map BankItems.file |> Set.ofSeq

        [ for path in Directory.GetFiles(folder, "*.csv") do
              let name = string (Path.GetFileName path)

              if not (known.Contains name) then
                  name ]
        |> List.sort
    else
        []

/// An id without the folders before it.
let private short (id: string) : string = (id.TrimEnd '/').Split('/') |> Array.last

let private shown (items: Map<string, BankItem[]>) (bank: Bank) (row: int64) : ShownItem =
    match Map.tryFind bank.Name items |> Option.map (fun all -> all[int row]) with
    | None ->
        { Name = $"row {row}"
          Caption = $"row {row}"
          Form = ItemForm.Number }
    | Some item ->
        let name = item.Text |> Option.orElse (if item.Id = "" then None else Some item.Id) |> Option.defaultValue $"row {row}"

        { Name = name
          Caption = Option.defaultValue (short name) item.Text
          Form =
            match item.Path with
            | Some path -> GalleryMedia.form path
            | None when item.Text.IsSome -> ItemForm.Text
            | None -> ItemForm.Number }

/// Each row once, however often it is shown, and those that could not be read.
type private Items(items: Map<string, BankItem[]>) =
    let known = Dictionary<struct (string * int64), ShownItem>()

    member _.Find (bank: Bank) (row: int64) : ShownItem =
        match known.TryGetValue(struct (bank.Name, row)) with
        | true, item -> item
        | _ ->
            let item = shown items bank row
            known[struct (bank.Name, row)] <- item
            item

    member _.Unread: string list =
        [ for item in known.Values do
              match item.Form with
              | ItemForm.Unreadable reason -> reason
              | _ -> () ]

/// Sentences of files that could not be read past this many are counted.
[<Literal>]
let private MostTold = 5

let private tell (quiet: bool) (path: string) (c: GalleryContent) (unread: string list) : int =
    for sentence in List.truncate MostTold unread do
        Terminal.complain $"cmcl: {Names.visible sentence}"

    if not unread.IsEmpty then
        let files = if unread.Length = 1 then "one file" else $"{unread.Length} files"
        Terminal.complain $"cmcl: {files} could not be read; the page says so in their places."

    if not quiet then
        let queries = c.Tasks |> List.sumBy _.Queries.Length
        let size = (float (FileInfo path).Length / 1e6).ToString("0.0", Globalization.CultureInfo.InvariantCulture)

        Terminal.say
            $"{queries} rows of {c.Tasks.Length} tasks, {c.Request.Methods.Length} methods, {size} MB: {Terminal.path path}"

    if unread.IsEmpty then 0 else 1

let gallery (arguments: ParseResults<GalleryArgument>) : int =
    use scope = torch.NewDisposeScope()
    let results = arguments.GetResult GalleryArgument.Results
    let out = arguments.TryGetResult GalleryArgument.Out
    let named = arguments.Contains GalleryArgument.Methods
    let folder = arguments.TryGetResult GalleryArgument.Items
    let count = arguments.GetResult(GalleryArgument.Count, 6)

    validated {
        let! () = checkGiven arguments out None None None
        and! () = out |> Option.map (Files.free (arguments.Contains GalleryArgument.Force)) |> Option.defaultValue (Ok())

        and! () =
            if count >= 1 && count <= 1000 then
                Ok()
            else
                Error [ Fault.BadValue("--count", "a whole number from 1 to 1000", string count) ]

        and! info = run results
        return info
    }
    |> Result.bind (fun info ->
        seedOf info (arguments.TryGetResult GalleryArgument.Seed)
        |> Result.bind (fun seed ->
            methodsOf results info seed (arguments.TryGetResult GalleryArgument.Methods)
            |> Result.bind (stepOf named (arguments.TryGetResult GalleryArgument.Step))
            |> Result.map (fun (step, methods, without) -> info, seed, step, methods, without)))
    |> Result.bind (fun (info, seed, step, methods, without) ->
        validated {
            let! tasks = tasksOf step (arguments.TryGetResult GalleryArgument.Tasks)
            and! split = parseSplit info.Split
            and! stream, home = streamOf info (arguments.TryGetResult GalleryArgument.Stream)
            return tasks, split, stream, home
        }
        |> Result.bind (fun (tasks, split, stream, home) ->
            let request =
                { Results = results
                  Stream = stream
                  Split = split
                  Seed = seed
                  Step = step
                  Methods = methods
                  Tasks = tasks
                  Count = count
                  Reverse = arguments.Contains GalleryArgument.Reverse }

            let inStream = home |> Option.map (fun home -> Path.Combine(home, BankItems.Folder))

            Gallery.make request
            |> Result.bind (fun tasks ->
                itemsOf (Option.orElse inStream folder) folder.IsSome tasks
                |> Result.bind (fun items ->
                    let listed = Option.orElse inStream folder

                    match listed |> Option.map (fun folder -> folder, strays folder stream) with
                    | Some(folder, (_ :: _ as names)) ->
                        let files = String.Join(", ", names)
                        let like = stream.Banks |> Map.keys |> Seq.map BankItems.file |> String.concat ", "

                        Terminal.complain
                            $"cmcl: '{folder}' has lists that belong to no bank: {files}; the stream's are {like}."
                    | _ -> ()

                    let items = Items items

                    let content =
                        { Info = info
                          Request = request
                          Tasks = tasks
                          Item = items.Find
                          Remarks =
                            [ for label in without ->
                                  $"{label} has no heads after step {step} with seed {seed}, and is left out." ] }

                    let path = Option.defaultValue (Path.Combine(results, "gallery.html")) out

                    Files.makeFolderOf path
                    |> Result.bind (fun () -> GalleryPage.write path content)
                    |> Result.map (fun path -> tell (arguments.Contains GalleryArgument.Quiet) path content items.Unread)))))
    |> function
        | Ok code -> code
        | Error faults -> refuse faults
