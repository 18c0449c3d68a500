// Runs what the documentation shows, and looks for what it names:
//   F# blocks, page by page, and every "Example: `…`" in a comment of the libraries           (examples/scripts.fsx)
//   python, and sh under <!-- run -->, in a folder of the page                      (examples/scratch.fsx)
//   C# blocks, a page a program                                                     (examples/csharp.fsx)
//   commands: those of cmcl by its own parser                                       (examples/commands.fsx)
//   links, functions and tests that are named, formulas, languages of blocks        (examples/text.fsx)
//
//     dotnet fsi build.fsx -- examples
#load "examples/text.fsx" "examples/commands.fsx" "examples/scripts.fsx" "examples/csharp.fsx"

open System.IO
open Markdown

let pages =
    [ "README.md"; "CONTRIBUTING.md"; "docs/results/README.md" ]
    @ packages
    @ [ for f in Directory.GetFiles(full "docs", "*.md") |> Array.sort -> "docs/" + Path.GetFileName f ]

let tell (told: string list, faults: string list) =
    for text in told do
        if text <> "" then
            printfn "%s" (text.Replace("\n", "\n    "))

    faults |> List.iter (eprintfn "%s")
    faults.Length

// What takes no time first: a slip is told before anything runs.
let written = tell ([], pages |> List.collect (fun page -> Text.faults page @ Commands.faults page))
let formulas = pages |> List.sumBy (Text.formulas >> List.length)
let commands = pages |> List.collect blocks |> List.sumBy (Commands.commandsOf >> List.length)

printfn
    "%d pages, %d blocks, %d commands in them, %d formulas"
    pages.Length
    (pages |> List.sumBy (blocks >> List.length))
    commands
    formulas

if written > 0 then
    exit 1

let runs =
    [| fun () -> Scripts.run pages
       fun () -> pages |> List.map Scratch.run |> List.unzip |> fun (told, faults) -> List.concat told, List.concat faults
       fun () -> pages |> List.map Csharp.run |> List.unzip |> fun (told, faults) -> List.concat told, List.concat faults |]
    |> Array.Parallel.map (fun run -> run ())

printfn "%d examples in comments" Scripts.examples.Length
exit (if runs |> Array.sumBy tell = 0 then 0 else 1)
