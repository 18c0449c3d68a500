// Features of all items, by cmcl extract: one bank for each source and form, resumable.
#load "sources.fsx"

open System
open System.Diagnostics
open System.IO
open System.Threading.Tasks
open Packages
open Sources

let private banks = Path.Combine(work, "banks")
let private manifests = Path.Combine(work, "manifests")
let private cmclDll = Path.Combine(root, "cli", "bin", "Release", "net10.0", "Cmcl.Cli.dll")

/// The command; what it prints on standard output.
let cmcl (arguments: string list) : string = ran work "dotnet" (cmclDll :: arguments)

/// The path of a description for each modality. ResNet18 sees whole pictures here: clip art and stamps are of all shapes, on nothing.
let private encoders: Lazy<Map<string, string>> =
    lazy
        (let get (name: string) = (cmcl [ "encoders"; "get"; name ]).Trim()
         let vision = Path.Combine(string (Path.GetDirectoryName(get "resnet18")), "whole.json")
         File.Copy(Path.Combine(__SOURCE_DIRECTORY__, "resnet18.json"), vision, true)
         Map [ "vision", vision; "line", vision; "text", get "minilm"; "speech", get "speech-embedding" ])

/// What a bank of a source is called.
let bankName (source: string) (bank: string) = $"{source}-{bank.Replace(':', '-')}"

let bankFile (source: string) (bank: string) = Path.Combine(banks, bankName source bank + ".npy")

/// A table as CSV, every field quoted.
let csv (header: string) (rows: string list list) : string =
    let field (text: string) = "\"" + text.Replace("\"", "\"\"") + "\""
    let lines = header :: [ for row in rows -> String.Join(",", List.map field row) ]
    String.Join("\n", lines) + "\n"

/// Extracts one bank unless it is there for this very manifest.
let private extract (source: string) (bank: string) (items: Item list) : unit =
    let modality = (bank.Split ':')[0]
    let kind = if modality = "text" then "text" else "path"
    let manifest = Path.Combine(manifests, bankName source bank + ".csv")
    let content = csv $"id,{kind}" [ for i in items -> [ i.Id; i.Forms[bank] ] ]
    let out = bankFile source bank
    let same = File.Exists out && File.Exists manifest && File.ReadAllText manifest = content

    if not same then
        Directory.CreateDirectory manifests |> ignore
        Directory.CreateDirectory banks |> ignore
        File.WriteAllText(manifest, content)
        let watch = Stopwatch.StartNew()

        cmcl
            [ "extract"
              encoders.Value[modality]
              manifest
              "-o"
              out
              "--force"
              "--quiet"
              "--skip-unreadable"
              "--threads"
              "1" ]
        |> ignore

        printfn "  %s: %d items, %.0f s" (bankName source bank) items.Length watch.Elapsed.TotalSeconds

/// The items of a source whose every form was read, and their banks.
let extractAll (source: string) (own: string list) (items: Item list) : Item list =
    let each = ParallelOptions(MaxDegreeOfParallelism = Environment.ProcessorCount)
    Parallel.ForEach(own, each, (fun bank -> extract source bank items)) |> ignore

    let read = [ for bank in own -> set (File.ReadAllLines(Path.ChangeExtension(bankFile source bank, "ids.txt"))) ]
    let whole = items |> List.filter (fun i -> read |> List.forall (fun ids -> ids.Contains i.Id))
    printfn "  %s: %d items, %d of them whole" source items.Length whole.Length
    whole
