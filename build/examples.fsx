// Runs what the documentation shows, and looks for what it names:
//   every F# block of README.md and docs/*.md, page by page (theory.md on top of docs/prelude.fsx),
//   every "Example: `…`" in a comment of src (on top of docs/prelude.fsx),
//   every relative link, every function on a *Function* line, every test quoted on one, that every formula can be read.
//
//     dotnet fsi build.fsx -- examples
#load "formulas.fsx"

open System
open System.Diagnostics
open System.IO
open System.Text.RegularExpressions

let root = Path.GetFullPath(Path.Combine(__SOURCE_DIRECTORY__, ".."))
let full path = Path.Combine(root, path)

let pages =
    "README.md" :: "CONTRIBUTING.md" :: [ for f in Directory.GetFiles(full "docs", "*.md") -> "docs/" + Path.GetFileName f ]

let lines path = File.ReadAllLines(full path) |> List.ofArray

/// A page's lines with their numbers, and the language of the block that each is in ("" outside).
let numbered page =
    let language, rows =
        ((None, []), List.indexed (lines page))
        ||> List.fold (fun (block, rows) (i, line) ->
            match block with
            | None when line.StartsWith "```" -> Some(line.Substring 3), rows
            | Some _ when line.StartsWith "```" -> None, rows
            | block -> block, (i + 1, line, Option.defaultValue "" block) :: rows)

    if language.IsSome then
        failwith $"{page}: a block has no end"

    List.rev rows

/// Code in one script, such that errors name the file and line it is from. Paths in blocks are from the root of the tree.
let at (path: string) (number: int) (code: string) =
    let code = Regex.Replace(code, "^#load \"(?!/)", "#load \"" + root + "/")
    [ $"#line {number} \"{full path}\""; code ]

let blocks page =
    [ for number, line, language in numbered page do
          if language = "fsharp" then
              yield! at page number line ]

let sources =
    [ for f in Directory.GetFiles(full "src", "*.fs", SearchOption.AllDirectories) |> Array.sort do
          let path = Path.GetRelativePath(root, f)

          if not (path.Contains "/obj/") then
              path ]

let examples =
    [ for path in sources do
          for i, line in List.indexed (lines path) do
              for m in Regex.Matches(line, "Example: `([^`]+)`") do
                  yield! at path (i + 1) $"({m.Groups[1].Value}) |> ignore" ]

let onPrelude code =
    if List.isEmpty code then
        []
    else
        [ "#load \"" + full "docs/prelude.fsx" + "\""; "open Cmcl"; "open TorchSharp"; "open Prelude" ] @ code

let scripts =
    [ for page in pages do
          page, (if page = "docs/theory.md" then onPrelude (blocks page) else blocks page)
      "comments of src", onPrelude examples ]
    |> List.filter (snd >> List.isEmpty >> not)

/// Exit code, seconds and output of a script in a process of its own.
let execute (name: string, code: string list) =
    let file = full ("output/examples/" + name.Replace('/', '-').Replace(' ', '-') + ".fsx")
    Directory.CreateDirectory(full "output/examples") |> ignore
    File.WriteAllLines(file, code)
    let clock = Stopwatch.StartNew()

    let info =
        ProcessStartInfo(
            "dotnet",
            [ "fsi"; "--quiet"; "--nowarn:3886"; file ],
            WorkingDirectory = root,
            RedirectStandardOutput = true,
            RedirectStandardError = true
        )

    use p = Process.Start info
    let error = p.StandardError.ReadToEndAsync()
    let output = p.StandardOutput.ReadToEnd()
    p.WaitForExit()
    name, p.ExitCode, clock.Elapsed.TotalSeconds, output.Trim(), error.Result.Trim()

/// As GitHub makes them of headings.
let anchors page =
    [ for _, line, language in numbered page do
          if language = "" && line.StartsWith "#" then
              "#" + Regex.Replace(line.TrimStart('#').Trim().ToLowerInvariant(), @"[^\w\- ]", "").Replace(' ', '-') ]

let deadLinks =
    [ for page in pages do
          for number, line, language in numbered page do
              if language = "" then
                  for m in Regex.Matches(line, @"\]\((?!\w+:)([^)#\s]*)(#[^)\s]*)?\)") do
                      let target = Path.GetFullPath(Path.Combine(full page, "..", m.Groups[1].Value))
                      let target = if m.Groups[1].Value = "" then full page else target

                      if not (Path.Exists target) then
                          $"{page}({number}): {m.Groups[1].Value} is not there"
                      elif m.Groups[2].Success && target.EndsWith ".md" then
                          if not (List.contains m.Groups[2].Value (anchors (Path.GetRelativePath(root, target)))) then
                              $"{page}({number}): no heading {m.Groups[2].Value}" ]

/// Paragraphs that begin with *Function*: links to what is declared, links to test modules, names of their tests.
let strangers =
    [ for page in pages do
          let text = [ for _, line, language in numbered page -> if language = "" then line else "" ] |> String.concat "\n"

          for paragraph in Regex.Split(text, @"\n\s*\n") |> Array.filter (fun p -> p.TrimStart().StartsWith "*Function") do
              let mutable file = ""

              for m in Regex.Matches(paragraph, @"\[`([^`]+)`\]\(([^)]+)\)|""([^""]+)""") do
                  if m.Groups[3].Success then
                      let quoted = m.Value.Replace('\n', ' ')

                      if not (file.Contains quoted) then
                          $"{page}: no test {quoted}"
                  else
                      let path = Path.GetFullPath(Path.Combine(full page, "..", m.Groups[2].Value))
                      file <- if File.Exists path then File.ReadAllText path else ""
                      let name = m.Groups[1].Value.Split('.') |> Array.last |> Regex.Escape

                      if
                          not (Regex.IsMatch(file, @"(?m)^\s*(let|member|type|module|\|)(?! private)[^=\n]*\b" + name + @"\b"))
                      then
                          $"{page}: {m.Groups[2].Value} has no {m.Groups[1].Value}" ]

let formulas =
    [ for page in pages do
          let text = File.ReadAllText(full page)
          let outside = Regex.Replace(text, @"```.*?```|`[^`\n]*`", "", RegexOptions.Singleline)

          for m in Regex.Matches(text, @"```math\n(.*?)```", RegexOptions.Singleline) do
              page, m.Groups[1].Value

          for m in Regex.Matches(outside, @"\$([^$\n]+)\$") do
              page, m.Groups[1].Value ]

let unreadable =
    [ for page, tex in formulas do
          try
              Formulas.mathml false tex |> ignore
          with e ->
              $"{page}: {tex.Trim()}: {e.Message}" ]

let runs = scripts |> Array.ofList |> Array.Parallel.map execute

for name, code, seconds, output, error in runs do
    printfn "%s: %s in %.0f s" name (if code = 0 then "ran" else "FAILED") seconds

    for text in [ output; error ] do
        if text <> "" then
            printfn "    %s" (text.Replace("\n", "\n    "))

let faults = deadLinks @ strangers @ unreadable
printfn "%d examples in comments, %d formulas" (examples.Length / 2) formulas.Length
faults |> List.iter (eprintfn "%s")

if not faults.IsEmpty || runs |> Array.exists (fun (_, code, _, _, _) -> code <> 0) then
    exit 1
