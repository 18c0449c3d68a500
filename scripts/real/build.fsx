// Builds the stream `real` from pinned packages, resumable: everything into output/real/stream, and without the stamps, whose licences differ from
// picture to picture, into data/real. The same bytes every time on one machine.
//
//     dotnet build cli -c Release && dotnet fsi scripts/real/build.fsx [--without stamps]
#load "write.fsx"

open System
open System.Diagnostics
open System.IO
open Cmcl
open Packages
open Sources
open Features
open Write

let watch = Stopwatch.StartNew()
let arguments = fsi.CommandLineArgs |> List.ofArray |> List.tail

let left =
    match arguments with
    | [] -> []
    | [ "--without"; source ] when sources |> List.exists (fun (name, _, _) -> name = source) -> [ source ]
    | _ -> failwith "the only argument is --without and one of stamps, prompts, emoji, clipart."

let chosen = sources |> List.filter (fun (name, _, _) -> not (List.contains name left))
printfn "packages"
let bytes = fetch [ for name, _, _ in chosen -> name ]
printfn "  %.0f MB fetched, %.0f s" (float bytes / 1e6) watch.Elapsed.TotalSeconds
printfn "features"
let found = [ for name, own, items in chosen -> name, own, extractAll name own (items ()) ]

/// Heads fitted to base rows by joint training, into the stream's folder.
let heads (folder: string) (suffix: string) =
    let run = Path.Combine(work, $"base{suffix}-" + string (Path.GetFileName folder))

    cmcl
        [ "run"
          "--stream"
          Path.Combine(folder, $"base{suffix}.json")
          "--methods"
          "joint"
          "--seeds"
          "0"
          "--force"
          "--save-weights"
          "--out"
          run ]
    |> ignore

    let exported = Path.Combine(run, "heads.safetensors")
    cmcl [ "export"; run; "--method"; "joint"; "-o"; exported; "--force" ] |> ignore
    use scope = TorchSharp.torch.NewDisposeScope()
    let target = Path.Combine(folder, $"heads{suffix}")
    Directory.CreateDirectory target |> ignore

    for KeyValue(modality, w) in (SavedHeads.read exported |> Check.get).Heads do
        Npy.write (Path.Combine(target, $"{modality}.npy")) (w.``to`` TorchSharp.torch.float16) |> Check.get

let streams (folder: string) (named: string) (withFiles: bool) found =
    printfn "%s" (Path.GetRelativePath(root, folder))
    write folder named withFiles found false

    for suffix in [ ""; "-family" ] do
        heads folder suffix

    write folder named withFiles found true

streams (Path.Combine(work, "stream")) "real-full" true found
streams (Path.Combine(root, "data", "real")) "real" false (found |> List.filter (fun (name, _, _) -> name <> "stamps"))
printfn "done in %.0f min" watch.Elapsed.TotalMinutes
