// What fsdocs gets to read, in output/docs: the pages, with links to files of the tree as /@/tree/FILE, which finish.fsx resolves;
// pictures and tables.
#load "pages.fsx"

open System.IO
open System.Text.RegularExpressions
open Markdown

let stage = full "output/docs"

/// Where a page of the tree stands in the site, without extension.
let placeOf (page: string) : string =
    match page with
    | "README.md" -> "about"
    | _ when Path.GetExtension page = ".md" && page.StartsWith "docs/" -> page.Substring(5, page.Length - 8)
    | _ when Path.GetExtension page = ".md" && not (page.Contains '/') ->
        Path.GetFileNameWithoutExtension(page).ToLowerInvariant()
    | _ -> "source/" + Regex.Replace(page, @"[/.]", "-")

let private texts = set [ ".fs"; ".fsx"; ".py"; ".sh"; ".json"; ".md" ]

let targetOf (page: string) (link: string) : string =
    let folder: string = Path.GetDirectoryName(full page) |> Option.ofObj |> Option.defaultValue root
    Path.GetRelativePath(root, Path.GetFullPath(Path.Combine(folder, link))).Replace('\\', '/')

let private toTree (page: string) (line: string) : string =
    link.Replace(
        line,
        fun (m: Match) ->
            if m.Groups[1].Value = "" then
                m.Value
            else
                $"](/@/tree/{targetOf page m.Groups[1].Value}{m.Groups[2].Value})"
    )

let private staged page =
    [ for part in read page do
          match part with
          | Prose(_, line) when Regex.IsMatch(line, "^<!-- .* -->$") -> ()
          | Prose(_, line) -> toTree page line
          | Fenced block ->
              "```" + block.Language
              yield! block.Lines
              "```" ]

let private write (place: string) (text: string list) =
    let file = Path.Combine(stage, place + ".md")
    Directory.CreateDirectory(Path.GetDirectoryName file |> Option.ofObj |> Option.get) |> ignore
    File.WriteAllLines(file, text)

let private copy (file: string) =
    let target = Path.Combine(stage, Path.GetRelativePath(full "docs", full file))
    Directory.CreateDirectory(Path.GetDirectoryName target |> Option.ofObj |> Option.get) |> ignore
    File.Copy(full file, target)

/// Files that pages link to and that become pages (finish.fsx): all of text but the library's own, which its reference stands for.
let sources: string list =
    [ for page in Pages.all do
          for _, line in prose page do
              for m in link.Matches line do
                  targetOf page m.Groups[1].Value ]
    |> List.distinct
    |> List.filter (fun file ->
        File.Exists(full file)
        && texts.Contains(Path.GetExtension file)
        && not (isLibrary file)
        && not (List.contains file Pages.all))

let run () : unit =
    if Directory.Exists stage then
        Directory.Delete(stage, true)

    for page in Pages.all do
        write (placeOf page) (staged page)

    for folder in [ "docs/images"; "docs/results" ] do
        for file in Directory.GetFiles(full folder, "*", SearchOption.AllDirectories) do
            if Path.GetExtension file <> ".md" then
                copy (Path.GetRelativePath(root, file))

    for file in Directory.GetFiles(full "docs", "*.json") do
        copy (Path.GetRelativePath(root, file))

    File.Copy(full "build/site/template.html", Path.Combine(stage, "_template.html"))
