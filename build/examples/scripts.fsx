// F# blocks, page by page (theory.md on top of docs/prelude.fsx), and every "Example: `…`" in a comment of the libraries, on top of it too.
#load "scratch.fsx"

open System
open System.Diagnostics
open System.IO
open System.Text.RegularExpressions
open Markdown

/// Code in one script, such that errors name the file and line it is from. Paths in blocks are from the root of the tree.
let private at (path: string) (number: int) (code: string list) =
    $"#line {number} \"{full path}\""
    :: [ for line in code -> Regex.Replace(line, "^#load \"(?!/)", "#load \"" + root + "/") ]

let private sources =
    [ for project in libraries do
          let folder = project.Split('/')[0]

          for f in Directory.GetFiles(full folder, "*.fs", SearchOption.AllDirectories) |> Array.sort do
              let path = Path.GetRelativePath(root, f)

              if not (path.Contains "/obj/") then
                  path ]

/// Examples in comments: file, line, code.
let examples: (string * int * string) list =
    [ for path in sources do
          for i, line in List.indexed (lines path) do
              for m in Regex.Matches(line, "Example: `([^`]+)`") do
                  path, i + 1, m.Groups[1].Value ]

let private onPrelude code =
    [ "#load \"" + full "docs/prelude.fsx" + "\""; "open Cmcl"; "open TorchSharp"; "open Prelude" ] @ code

let private scripts pages =
    [ for page in pages do
          match blocks page |> List.filter (fun b -> b.Language = "fsharp") with
          | [] -> ()
          | blocks ->
              let code = blocks |> List.collect (fun b -> at page b.Line b.Lines)

              page,
              if page = "docs/theory.md" then onPrelude code
              elif List.contains page packages then [ "#load \"" + full "scripts/load.fsx" + "\"" ] @ code
              else code
      "comments of the libraries",
      onPrelude (examples |> List.collect (fun (path, number, code) -> at path number [ $"({code}) |> ignore" ])) ]

/// A start of F# Interactive takes longer than most pages, so several scripts share one, each a module of its own.
let run (pages: string list) : string list * string list =
    let folder = full "output/examples"
    Directory.CreateDirectory folder |> ignore
    let groups = scripts pages |> List.indexed |> List.groupBy (fun (i, _) -> i % min 2 Environment.ProcessorCount)

    let one (group, scripts: (int * (string * string list)) list) =
        let files =
            [ for _, (name, code) in scripts do
                  let file = Path.Combine(folder, "Example_" + Regex.Replace(name, @"\W", "_") + ".fsx")
                  File.WriteAllLines(file, code)
                  file ]

        let all = Path.Combine(folder, $"group-{group}.fsx")
        let quoted = files |> List.map (fun file -> $"\"{file}\"") |> String.concat " "
        File.WriteAllText(all, $"#load {quoted}\n")
        let names = scripts |> List.map (fun (_, (name, _)) -> name) |> String.concat ", "
        let clock = Stopwatch.StartNew()

        match Scratch.execute root "dotnet" [ "fsi"; "--quiet"; "--nowarn:3886"; all ] with
        | 0, output -> [ $"{names}: ran in {clock.Elapsed.TotalSeconds:F0} s"; output ], []
        | code, output -> [], [ $"{names}: exit code {code}\n{output}" ]

    let results = groups |> Array.ofList |> Array.Parallel.map one
    results |> Seq.collect fst |> List.ofSeq, results |> Seq.collect snd |> List.ofSeq
