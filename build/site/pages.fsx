// Where each page stands in the site's menu: chapter by chapter, a page and what the menu calls it ("" for its own title).
// A page of docs/ that is named nowhere comes last, under "More".
#load "../markdown.fsx"

open System.IO
open Markdown

let chapters: (string * (string * string) list) list =
    [ "Start", [ "docs/index.md", "Home"; "README.md", "What it is"; "docs/tutorial.md", "Tutorial" ]
      "How to",
      [ "docs/import.md", "Bring your own features"
        "docs/add-a-stream.md", "Add a stream"
        "docs/encoders.md", "From files to features"
        "docs/add-a-method.md", "Add a method"
        "docs/add-a-metric.md", "Add a metric"
        "docs/from-the-paper.md", "From the paper's code"
        "docs/csharp.md", ""
        "docs/notebooks.md", ""
        "docs/cuda.md", "Run on CUDA"
        "docs/sweeps.md", "Sweeps"
        "docs/cells.md", "Compare and tune"
        "docs/gallery.md", "Look at what is retrieved"
        "docs/checkpoints.md", "Checkpoints, resuming"
        "docs/scale.md", "" ]
      "Theory", [ ("docs/theory.md", "") ]
      "Results",
      [ "docs/results/README.md", "The paper's comparison"
        "docs/frontier.md", ""
        "docs/benchmarks.md", ""
        "docs/ablations.md", "" ]
      "Reference",
      [ "reference/index.html", "Library"
        "docs/methods.md", "Methods, options"
        "docs/results.md", "Results, metrics"
        "docs/stream-format.md", "Stream folders" ]
      "Project", [ "docs/architecture.md", ""; "CONTRIBUTING.md", "Working on Cmcl"; "CHANGELOG.md", "Changes" ] ]

let private known = chapters |> List.collect snd |> List.map fst |> Set.ofList

/// Pages that are there.
let all: string list =
    [ "README.md"
      "CONTRIBUTING.md"
      "CHANGELOG.md"
      for f in Directory.GetFiles(full "docs", "*.md") |> Array.sort do
          "docs/" + Path.GetFileName f
      "docs/results/README.md" ]

let menu: (string * (string * string) list) list =
    let there = Set.ofList ("reference/index.html" :: all)
    let more = all |> List.filter (known.Contains >> not) |> List.map (fun page -> page, "")
    let rows = chapters @ [ ("More", more) ]

    rows
    |> List.map (fun (chapter, pages) -> chapter, pages |> List.filter (fst >> there.Contains))
    |> List.filter (snd >> List.isEmpty >> not)
