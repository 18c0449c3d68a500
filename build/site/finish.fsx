// What fsdocs leaves to do in output/site: formulas as MathML, so that they are drawn offline; headings under the names that GitHub
// gives them; links to files of the tree; the menu; the search.
#load "../formulas.fsx"
#load "stage.fsx"
#load "reference.fsx"

open System.IO
open System.Net
open System.Text.Json
open System.Text.RegularExpressions
open Markdown
open Reference

let site = full "output/site"
let private replace pattern (by: Match -> string) (html: string) = Regex.Replace(html, pattern, by, RegexOptions.Singleline)
let private formula onItsOwn (m: Match) = Formulas.mathml onItsOwn (WebUtility.HtmlDecode m.Groups[1].Value)
let private plain (html: string) = WebUtility.HtmlDecode(Regex.Replace(html, "<[^>]*>", "")).Trim()

let private content = Regex("(?<=<main id=\"content\" tabindex=\"-1\">).*(?=</main>)", RegexOptions.Singleline)

/// Formulas, code without tips and tables around it, tables that scroll on their own.
let private tidied (html: string) =
    html
    |> replace @"<span class=""math"">\\\((.*?)\\\)</span>" (formula false)
    |> replace @"<table class=""pre""><tr><td class=""snippet"">(<pre.*?</pre>)</td></tr></table>" (fun m -> m.Groups[1].Value)
    |> replace @"<pre class=""fssnip""><code lang=""math"">(.*?)</code></pre>" (formula true)
    |> replace @"<pre class=""fssnip[^""]*"">" (fun _ -> "<pre tabindex=\"0\">")
    |> replace @" data-fsdocs-tip(-unique)?=""\d+""| title=""[^""]*""" (fun _ -> "")
    |> replace @"<table.*?</table>" (fun m -> $"<div class=\"scroll\">{m.Value}</div>")

/// Headings with GitHub's names, and the list of them: level, name, text.
let private headed (html: string) =
    let used = System.Collections.Generic.Dictionary<string, int>()

    let unique (name: string) =
        let times =
            match used.TryGetValue name with
            | true, n -> n
            | _ -> 0

        used[name] <- times + 1
        if times = 0 then name else $"{name}-{times}"

    let listed = ResizeArray<int * string * string>()

    let html =
        html
        |> replace @"<h([1-4])(?: id=""([^""]*)"")?>(.*?)</h\1>" (fun m ->
            let text = m.Groups[3].Value |> replace @"^<a name=[^>]*>(.*)</a>$" (fun a -> a.Groups[1].Value)
            let name = unique (if m.Groups[2].Value <> "" then m.Groups[2].Value else slug (plain text))
            listed.Add(int m.Groups[1].Value, name, (if m.Groups[2].Value <> "" then name else plain text))
            let anchor = $"<a class=\"anchor\" href=\"#{name}\" aria-label=\"Link to this heading\">#</a>"
            $"<h{m.Groups[1].Value} id=\"{name}\">{text}{anchor}</h{m.Groups[1].Value}>")

    html, List.ofSeq listed

let private headings (list: (int * string * string) list) =
    let rows = list |> List.filter (fun (level, _, _) -> level = 2 || level = 3)

    if rows.Length < 2 then
        ""
    else
        [ "<nav class=\"headings\" aria-label=\"On this page\"><p>On this page</p><ul>"
          for level, name, text in rows do
              $"<li class=\"level-{level}\"><a href=\"#{name}\">{WebUtility.HtmlEncode text}</a></li>"
          "</ul></nav>" ]
        |> String.concat "\n"

/// Where a link to a file of the tree leads in the site, if anywhere. A link into the library leads to the reference.
let private resolve (entities: Entity list) (target: string) (text: string) : string option =
    let parts = (plain text).Split '.' |> List.ofArray |> List.rev
    let byName name = entities |> List.filter (fun e -> e.Name = name) |> List.sortByDescending (fun e -> e.Kind = "module")

    let meant =
        match parts with
        | last :: owner :: _ when not (byName owner).IsEmpty ->
            byName owner
            |> List.tryFind (fun e -> List.contains last e.Members)
            |> Option.map (fun e -> $"{e.Page}#{last}")
            |> Option.orElse (byName owner |> List.tryHead |> Option.map _.Page)
        | [ name ] -> byName name |> List.tryHead |> Option.map _.Page
        | _ -> None

    if isLibrary target then
        meant
        |> Option.orElse (entities |> List.tryFind (fun e -> e.File = target) |> Option.map _.Page)
        |> Option.map (fun page -> "reference/" + page)
    else
        let page = Stage.placeOf target + ".html"
        let copied = if target.StartsWith "docs/" then target.Substring 5 else target

        [ page; copied ] |> List.tryFind (fun place -> File.Exists(Path.Combine(site, place)))

let private linked entities (html: string) =
    html
    |> replace @"<a href=""/@/tree/([^""#]*)(#[^""]*)?"">(.*?)</a>" (fun m ->
        match resolve entities m.Groups[1].Value m.Groups[3].Value with
        | Some place when m.Groups[2].Success -> $"<a href=\"/@/{place}{m.Groups[2].Value}\">{m.Groups[3].Value}</a>"
        | Some place -> $"<a href=\"/@/{place}\">{m.Groups[3].Value}</a>"
        | None -> m.Groups[3].Value)
    // A picture leads to itself, to be seen in full size.
    |> replace @"<img [^>]*src=""/@/tree/docs/([^""]*)""[^>]*>" (fun m ->
        let file = $"/@/{m.Groups[1].Value}"
        $"<a href=\"{file}\">" + m.Value.Replace("/@/tree/docs/" + m.Groups[1].Value, file) + "</a>")
    // What is private to the library has no page.
    |> replace @"<a href=""/@/(reference/[^""#]*)[^""]*"">(.*?)</a>" (fun m ->
        if File.Exists(Path.Combine(site, m.Groups[1].Value)) || m.Groups[1].Value = "reference/cmcl.html" then
            m.Value
        else
            m.Groups[2].Value)

/// Titles of pages, for the menu.
let private titleOf page =
    prose page
    |> List.tryPick (fun (_, line) -> if line.StartsWith "# " then Some(line.Substring 2) else None)
    |> Option.defaultValue page

let private menu (current: string) =
    [ for chapter, pages in Pages.menu do
          $"<p>{chapter}</p><ul>"

          for page, name in pages do
              let place = if page.EndsWith ".html" then page else Stage.placeOf page + ".html"
              let here = if place = current then " aria-current=\"page\"" else ""
              let name = if name = "" then titleOf page else name
              $"<li><a href=\"/@/{place}\"{here}>{WebUtility.HtmlEncode name}</a></li>"

          "</ul>" ]
    |> String.concat "\n"

/// For the search: an entry a heading, [address, title, text].
let private searchable (place: string) (html: string) : string list list =
    let sections = Regex.Split(html, @"(?=<h[1-4] id="")")
    let title = Regex.Match(html, @"<h1[^>]*>(.*?)<a class=""anchor""", RegexOptions.Singleline).Groups[1].Value |> plain

    [ for section in sections do
          let m =
              Regex.Match(section, @"^<h([1-4]) id=""([^""]*)"">(.*?)<a class=""anchor"".*?</h\1>(.*)$", RegexOptions.Singleline)

          if m.Success then
              let heading = plain m.Groups[3].Value
              let text = Regex.Replace(plain (m.Groups[4].Value.Replace("<", " <")), @"\s+", " ")
              let text = Regex.Replace(text, @" ([,.;:)])", "$1")

              [ $"{place}#{m.Groups[2].Value}"
                (if heading = title || heading.StartsWith(title + ".") then heading else $"{title}: {heading}")
                (if text.Length > 1500 then text.Substring(0, 1500) else text) ] ]

/// A file of the tree as a page, its comments set apart. fsdocs takes long over large blocks, so it has no part in this.
let private source (file: string) : string * string * string =
    let comment =
        if Path.GetExtension file |> Set.contains <| set [ ".fs"; ".fsx" ] then
            @"(?m)^\s*//[^\n]*"
        else
            @"(?m)^\s*#[^\n]*"

    let code =
        WebUtility.HtmlEncode(File.ReadAllText(full file)) |> replace comment (fun m -> $"<span class=\"c\">{m.Value}</span>")

    let html =
        File.ReadAllText(full "build/site/template.html").Replace("{{fsdocs-page-title}}", file).Replace("{{root}}", "/@/")

    Path.Combine(site, Stage.placeOf file + ".html"), html, $"<h1>{file}</h1><pre><code>{code}</code></pre>"

let run () : unit =
    let reference file = file = Path.Combine(site, "reference", "index.html")
    let placeOf (file: string) = Path.GetRelativePath(site, file).Replace('\\', '/')
    File.Delete(Path.Combine(site, "reference", "cmcl.html"))

    for pattern in [ "*.md"; "llms*.txt"; "index.json" ] do
        for file in Directory.GetFiles(site, pattern, SearchOption.AllDirectories) do
            File.Delete file

    let files = Directory.GetFiles(site, "*.html", SearchOption.AllDirectories) |> Array.sort |> List.ofArray
    let pages = files |> List.filter (reference >> not) |> List.map (fun file -> file, File.ReadAllText file)

    let made =
        [ for file, html in pages do
              let main = (content.Match html).Value

              if (placeOf file).StartsWith "reference/" then
                  let entity, main = page (Path.GetFileName file) main
                  file, html, main, Some entity
              else
                  file, html, main, None ]

    let entities = made |> List.choose (fun (_, _, _, entity) -> entity)
    let indexFile = Path.Combine(site, "reference", "index.html")
    Directory.CreateDirectory(Path.Combine(site, "source")) |> ignore

    let sources =
        [ for file in Stage.sources do
              let file, html, main = source file
              File.WriteAllText(file, "")
              file, html, main, None ]

    let all = (indexFile, File.ReadAllText indexFile, index entities, None) :: made @ sources

    let entries =
        [ for file, html, main, entity in all do
              let place = placeOf file
              let main, list = main |> tidied |> linked entities |> headed
              let current = if entity.IsSome then "reference/index.html" else place
              let up = String.replicate (place.Split('/').Length - 1) "../"

              let whole =
                  content
                      .Replace(html, (fun _ -> main), 1)
                      .Replace("<!--menu-->", menu current)
                      .Replace("<!--headings-->", (if place = "index.html" then "" else headings list))
                      .Replace("/@/reference/cmcl.html", "/@/reference/index.html")

              File.WriteAllText(file, whole.Replace("/@/", up))

              if not (place.StartsWith "source/") then
                  yield! searchable place main ]

    File.WriteAllText(Path.Combine(site, "search.js"), "window.siteIndex = " + JsonSerializer.Serialize entries + ";")

    for file in [ "site.css"; "site.js" ] do
        File.Copy(full ("build/site/" + file), Path.Combine(site, file), true)
