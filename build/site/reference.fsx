// The reference that fsdocs makes of the library, as pages that can be read: a heading a member with its types beside it, and an
// index in the order in which the library is compiled, chapter by chapter.
#load "../markdown.fsx"

open System.IO
open System.Net
open System.Text.RegularExpressions
open System.Xml.Linq
open Markdown

/// A module or a type: its page, what it is, the file that declares it, the summary as HTML, the names of its members.
type Entity =
    { Page: string
      Name: string
      Kind: string
      File: string
      Summary: string
      Members: string list }

/// Files in compile order.
let private compiled =
    [ for project in libraries do
          for m in Regex.Matches(File.ReadAllText(full project), "Compile Include=\"([^\"]+)\"") do
              project.Split('/')[0] + "/" + m.Groups[1].Value ]

let private declarations =
    [ for file in compiled do
          for line in lines file do
              let m =
                  Regex.Match(
                      line,
                      @"^\s*(?:\[<.*?>\]\s*)?(type|and|module|exception)\s+(?:\[<.*?>\]\s*)?(?:rec\s+)?(?:Cmcl\.)?(\w+)"
                  )

              if m.Success then
                  (m.Groups[1].Value = "module", m.Groups[2].Value), file ]
    |> List.rev
    |> Map.ofList

let private fileOf kind (name: string) =
    let outer = name.Split('.', '<')[0]

    [ kind = "module", outer; kind <> "module", outer ]
    |> List.tryPick (fun key -> Map.tryFind key declarations)
    |> Option.defaultValue ""

let private classed name (e: XElement) =
    e.DescendantsAndSelf()
    |> Seq.filter (fun d ->
        match d.Attribute(XName.Get "class") with
        | null -> false
        | a -> Array.contains name (a.Value.Split ' '))
    |> List.ofSeq

let private named (name: string) (e: XElement) = e.Descendants(XName.Get name) |> List.ofSeq

/// What an element holds, as HTML: elements without content keep an end tag.
let private inner (e: XElement) : string =
    let text = e.Nodes() |> Seq.map (fun n -> n.ToString SaveOptions.DisableFormatting) |> System.String.Concat
    Regex.Replace(text, @"<(?!br|img|hr)(\w+)([^<>]*?)\s*/>", "<$1$2></$1>").Trim()

let private flat (e: XElement) = Regex.Replace(inner e, @"\s+", " ")

/// Paragraphs of a description; fsdocs puts paragraphs into a paragraph.
let private description (e: XElement) =
    [ for contents in classed "fsdocs-summary-contents" e @ classed "fsdocs-remarks" e do
          for p in contents.Elements() do
              let html = inner p

              if html <> "" then
                  if html.Contains "<p>" then html else $"<p>{html}</p>" ]
    |> String.concat "\n"

/// `name: type · name: type → type`, of the tip that fsdocs shows over a member.
let private types (tip: XElement option) =
    let typed label (span: XElement) = span.Value.Trim().StartsWith(label: string)
    let code (span: XElement) = named "code" span |> List.tryLast |> Option.map flat |> Option.defaultValue ""
    let spans = tip |> Option.map (named "span") |> Option.defaultValue []

    let parameters =
        [ for span in spans do
              match named "b" span with
              | [ b ] -> $"{WebUtility.HtmlEncode(b.Value.Trim())}: <code>{code span}</code>"
              | _ -> () ]
        |> String.concat " · "

    let result =
        spans
        |> List.tryFind (fun s -> typed "Returns:" s || typed "Field type:" s)
        |> Option.map (fun s -> $"<code>{code s}</code>")

    match parameters, result with
    | "", None -> ""
    | "", Some result -> $"<p class=\"types\">{result}</p>"
    | _ -> $"""<p class="types">{parameters} → {Option.defaultValue "" result}</p>"""

let private memberOf (row: XElement) =
    let usage = classed "fsdocs-member-usage" row |> List.head

    let id =
        named "a" usage
        |> List.tryPick (fun a -> a.Attribute(XName.Get "id") |> Option.ofObj)
        |> Option.map _.Value
        |> Option.defaultValue ""

    let code = named "code" usage |> List.find (fun c -> named "p" c = [] && named "code" c = [])
    let tip = classed "fsdocs-tip" usage |> List.tryHead
    let text = classed "fsdocs-member-xmldoc" row |> List.map description |> String.concat ""

    id,
    $"<div class=\"member\"><h3 id=\"{WebUtility.HtmlEncode id}\"><code>{WebUtility.HtmlEncode code.Value}</code></h3>{types tip}{text}</div>"

/// Modules and types inside of one, as rows.
let private entityRow (row: XElement) =
    let name = classed "fsdocs-entity-name" row |> List.head |> named "a" |> List.last
    let text = classed "fsdocs-entity-xmldoc" row |> List.map description |> String.concat ""
    let href = name.Attribute(XName.Get "href").Value
    $"<tr><td><a href=\"{href}\"><code>{WebUtility.HtmlEncode(name.Value.Trim())}</code></a></td><td>{text}</td></tr>"

/// A page's main part, made anew.
let page (file: string) (content: string) : Entity * string =
    // fsdocs leaves a generic type's name as it is.
    let content = Regex.Replace(content, @"onclick=""[^""]*""", "").Replace("<'", "&lt;'")

    let content =
        Regex.Replace(content, "<a href=\"https://learn.microsoft.com/dotnet/api/(?!system\\.)[^\"]*\">(.*?)</a>", "$1")

    let x =
        try
            XElement.Parse("<x>" + content + "</x>", LoadOptions.PreserveWhitespace)
        with e ->
            failwith $"reference/{file} cannot be read: {e.Message}"

    let title = (named "h2" x |> List.head).Value.Trim()
    let name, kind = title.Substring(0, title.LastIndexOf ' '), title.Substring(title.LastIndexOf ' ' + 1).ToLowerInvariant()
    let summary = classed "fsdocs-xmldoc" x |> List.tryHead |> Option.map description |> Option.defaultValue ""
    let declared = fileOf kind name

    let sections =
        [ for table in named "table" x do
              let rows = named "tr" table |> List.filter (fun r -> classed "fsdocs-member-usage" r <> [])
              let entities = named "tr" table |> List.filter (fun r -> classed "fsdocs-entity-name" r <> [])

              let heading =
                  table.ElementsBeforeSelf(XName.Get "h3")
                  |> Seq.tryLast
                  |> Option.map (fun h -> h.Value.Trim())
                  |> Option.defaultValue "Types and modules"

              if rows <> [] then
                  let members = rows |> List.map memberOf
                  members |> List.map fst, $"<h2>{heading}</h2>" + (members |> List.map snd |> String.concat "\n")
              elif entities <> [] then
                  let rows = entities |> List.map entityRow |> String.concat "\n"
                  [], $"<h2>{heading}</h2><table class=\"index\"><tbody>{rows}</tbody></table>" ]

    let body = sections |> List.map snd |> String.concat "\n"
    let where = $"<p class=\"where\"><a href=\"/@/reference/index.html\">Library</a>, {kind}, in <code>{declared}</code></p>"

    { Page = file
      Name = name
      Kind = kind
      File = declared
      Summary = summary
      Members = List.collect fst sections },
    $"<h1>{WebUtility.HtmlEncode name}</h1>\n{where}\n{summary}\n{body}"

/// What CONTRIBUTING.md says a folder holds.
let private holds folder =
    prose "CONTRIBUTING.md"
    |> List.tryPick (fun (_, line) ->
        let m = Regex.Match(line, @"^\| `" + Regex.Escape folder + @"` \| (.*) \|$")
        if m.Success then Some m.Groups[1].Value else None)
    |> Option.defaultWith (fun () -> failwith $"CONTRIBUTING.md has no row for {folder}")

/// The index's main part.
let index (entities: Entity list) : string =
    let place (file: string) = List.tryFindIndex ((=) file) compiled |> Option.defaultValue System.Int32.MaxValue
    let folderOf (e: Entity) = Path.GetDirectoryName e.File |> Option.ofObj |> Option.defaultValue ""

    let row (name, both: Entity list) =
        let page (e: Entity) = $"/@/reference/{e.Page}"
        let first, more = List.head both, List.tail both

        let name =
            $"<a href=\"{page first}\"><code>{WebUtility.HtmlEncode name}</code></a> <span class=\"kind\">{first.Kind}</span>"

        let others = [ for e in more -> $", <a class=\"kind\" href=\"{page e}\">{e.Kind}</a>" ] |> String.concat ""
        let summary = both |> List.map _.Summary |> List.tryFind ((<>) "") |> Option.defaultValue ""
        $"<tr><td>{name}{others}</td><td>{summary}</td></tr>"

    [ "<h1>The library</h1>"
      "<p>Every module and type of <code>Cmcl</code>, <code>Cmcl.Study</code> and <code>Cmcl.Report</code>, made from the comments in the source, in the order in which they are compiled and can be read. All are in the namespace <code>Cmcl</code>; doc comments give shapes and units.</p>"
      for folder, entities in
          entities
          |> List.filter (fun e -> not (e.Name.Contains '.'))
          |> List.sortBy (fun e -> place e.File)
          |> List.groupBy folderOf do
          let told = Regex.Replace(WebUtility.HtmlEncode(holds folder), "`([^`]+)`", "<code>$1</code>")
          $"<h2>{folder}</h2><p>{told}</p>"
          "<table class=\"index\"><tbody>"
          yield! entities |> List.groupBy _.Name |> List.map row
          "</tbody></table>" ]
    |> String.concat "\n"
