// What the documentation names is there: files, headings, functions, tests; every formula can be read; every block says its language.
#load "../formulas.fsx"
#load "../markdown.fsx"

open System.IO
open System.Text.RegularExpressions
open Markdown

let private languages = set [ "fsharp"; "csharp"; "sh"; "console"; "python"; "json"; "xml"; "csv"; "text"; "math" ]

let private languageless page =
    [ for block in blocks page do
          if not (languages.Contains block.Language) then
              let names = String.concat ", " languages
              $"{page}({block.Line - 1}): a block of '{block.Language}'; the documentation has blocks of {names}" ]

let private unparsed page =
    [ for block in blocks page do
          if block.Language = "json" then
              try
                  use _ = System.Text.Json.JsonDocument.Parse(String.concat "\n" block.Lines)
                  ()
              with e ->
                  $"{page}({block.Line}): {e.Message}" ]

/// As GitHub makes them of headings.
let private anchors page =
    [ for _, line in prose page do
          if line.StartsWith "#" then
              "#" + slug (line.TrimStart '#') ]

let private deadLinks page =
    [ for number, line in prose page do
          for m in link.Matches line do
              let target =
                  if m.Groups[1].Value = "" then
                      full page
                  else
                      Path.GetFullPath(Path.Combine(full page, "..", m.Groups[1].Value))

              if not (Path.Exists target) then
                  $"{page}({number}): {m.Groups[1].Value} is not there"
              elif m.Groups[2].Success && target.EndsWith ".md" then
                  if not (List.contains m.Groups[2].Value (anchors (Path.GetRelativePath(root, target)))) then
                      $"{page}({number}): no heading {m.Groups[2].Value}" ]

/// Paragraphs that begin with *Function*: links to what is declared, links to test modules, names of their tests.
let private strangers page =
    let text = prose page |> List.map snd |> String.concat "\n"

    [ for paragraph in Regex.Split(text, @"\n\s*\n") |> Array.filter (fun p -> p.TrimStart().StartsWith "*Function") do
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

                  if not (Regex.IsMatch(file, @"(?m)^\s*(let|member|type|module|\|)(?! private)[^=\n]*\b" + name + @"\b")) then
                      $"{page}: {m.Groups[2].Value} has no {m.Groups[1].Value}" ]

let formulas (page: string) : string list =
    let inLines = prose page |> List.map (fun (_, line) -> Regex.Replace(line, "`[^`]*`", "")) |> String.concat "\n"

    [ for block in blocks page do
          if block.Language = "math" then
              String.concat "\n" block.Lines
      for m in Regex.Matches(inLines, @"\$([^$\n]+)\$") do
          m.Groups[1].Value ]

let private unreadable page =
    [ for tex in formulas page do
          try
              Formulas.mathml false tex |> ignore
          with e ->
              $"{page}: {tex.Trim()}: {e.Message}" ]

let faults (page: string) : string list =
    [ languageless; unparsed; deadLinks; strangers; unreadable ] |> List.collect (fun check -> check page)
