namespace Cmcl

open System
open System.IO
open System.Text.Json
open Giraffe.ViewEngine
open Plotly.NET

/// A chart with the name that it has inside its page: its JSON, or why it could not be drawn.
type Figure = { Id: string; Json: Result<string, string> }

/// A part of a page: its content, and its figures. What could not be made is among these, too.
type internal Section = XmlNode list * Figure list

/// A page before it is text.
type internal Rendered =
    { Name: string
      Content: XmlNode list
      Figures: Figure list }

/// Drawing that costs nobody his results: whatever goes wrong in a chart or a part of a page is said in its place.
[<RequireQualifiedAccess>]
module internal Drawing =
    /// The value, or what was raised, in a line.
    let attempt (make: unit -> 'a) : Result<'a, string> =
        try
            Ok(make ())
        with e ->
            Error(String.Join(" ", e.Message.Split([| '\r'; '\n' |], StringSplitOptions.RemoveEmptyEntries)))

    /// A chart by its name inside the page.
    let figure (id: string) (chart: unit -> GenericChart) : Figure =
        { Id = id
          Json = attempt (fun () -> GenericChart.toFigureJson (chart ())) }

    let private failure (sentence: string) = p [ _class "failure" ] [ str sentence ]

    let sentence (why: string) = $"This chart could not be drawn: {why}"

    /// What stands where the chart would.
    let instead (why: string) : XmlNode = failure (sentence why)

    /// A part of a page by its title.
    let section (title: string) (part: unit -> Section) : Section =
        match attempt part with
        | Ok section -> section
        | Error why ->
            [ h2 [] [ str title ]; failure $"This part could not be made: {why}" ], [ { Id = title; Json = Error why } ]

    /// A node in front of all parts, such as the heading.
    let node (title: string) (make: unit -> XmlNode) : Section = section title (fun () -> [ make () ], [])

/// The building blocks of a page that needs nothing but itself: styles, scripts and plotly.js are inside it.
[<RequireQualifiedAccess>]
module Page =
    let private embedded (owner: System.Type) (name: string) : string =
        match owner.Assembly.GetManifestResourceStream name with
        | null -> invalidOp $"the resource {name} is missing from {owner.Assembly.GetName().Name}"
        | stream ->
            use reader = new StreamReader(stream)
            reader.ReadToEnd()

    /// JSON that cannot end the script block it stands in.
    let internal inert (json: string) : string =
        json.Replace("<", "\\u003c").Replace("\u2028", "\\u2028").Replace("\u2029", "\\u2029")

    /// A style sheet or script of this project.
    let internal resource (name: string) : string = embedded typeof<Figure> $"Cmcl.{name}"

    let private plotlySource = lazy (embedded typeof<GenericChart> "Plotly.NET.plotly-2.28.0.min.js")

    /// The source of plotly.js, as Plotly.NET has it inside.
    let internal plotly () : string = plotlySource.Value

    /// Every figure as JSON, by id.
    let private data (figures: Figure list) : string =
        let text (s: string) = JsonSerializer.Serialize s

        [ for f in figures do
              match f.Json with
              | Ok json -> $"{text f.Id}:{json}"
              | Error why -> $"{text f.Id}:{{\"failure\":{text (Drawing.sentence why)}}}" ]
        |> String.concat ",\n"
        |> fun entries -> $"{{{entries}}}"

    let private place (legend: bool) (place: string) (first: Figure) : XmlNode =
        div
            [ _id place
              _class "plot"
              attr "data-figure" first.Id
              if legend then
                  attr "data-legend" "own" ]
            []

    /// Where a figure is drawn; with `legend` it has its own, otherwise the page's row of methods is its legend.
    let plot (legend: bool) (id: string) (first: Figure) : XmlNode =
        match first.Json with
        | Ok _ -> place legend id first
        | Error why -> Drawing.instead why

    /// A figure to choose from groups of named ones, starting with the given one.
    let chooser (legend: bool) (id: string) (what: string) (first: Figure) (groups: (string * (string * Figure) list) list) =
        figure
            []
            [ select
                  [ attr "data-plot" id; attr "aria-label" what; attr "autocomplete" "off" ]
                  [ for name, choices in groups do
                        optgroup
                            [ attr "label" name ]
                            [ for label, choice in choices do
                                  option
                                      [ _value choice.Id
                                        if choice.Id = first.Id then
                                            _selected ]
                                      [ str label ] ] ]
              place legend id first ]

    /// A table that scrolls by itself when it is too wide. The first column names its row; the first `texts` columns are
    /// words and stand left, the others are numbers and stand right. Every row comes with its class, or with "".
    let table (texts: int) (heads: XmlNode list list) (rows: (string * XmlNode list list) list) : XmlNode =
        let side column = if column < texts then [ _class "text" ] else []

        div
            [ _class "scroll" ]
            [ HtmlElements.table
                  []
                  [ thead [] [ tr [] [ for i, head in List.indexed heads -> th (attr "scope" "col" :: side i) head ] ]
                    tbody
                        []
                        [ for kind, cells in rows ->
                              tr
                                  [ if kind <> "" then
                                        _class kind ]
                                  [ for i, cell in List.indexed cells do
                                        if i = 0 then th [ attr "scope" "row" ] cell else td (side i) cell ] ] ] ]

    /// Terms and their values; those without a value are left out. Short ones stand in columns.
    let terms (short: bool) (pairs: (string * string) list) : XmlNode =
        dl
            [ if short then
                  _class "short" ]
            [ for term, value in pairs do
                  if value <> "" then
                      div [] [ dt [] [ str term ]; dd [] [ str value ] ] ]

    let internal script (text: string) : XmlNode = HtmlElements.script [] [ rawText text ]

    /// JSON for a page's scripts.
    let internal embed (id: string) (json: string) : XmlNode =
        HtmlElements.script [ _id id; _type "application/json" ] [ rawText (inert json) ]

    /// A whole page of content with its styles and, behind it, its scripts.
    let internal document (name: string) (styles: string) (content: XmlNode list) (scripts: XmlNode list) : string =
        html
            [ _lang "en" ]
            [ head
                  []
                  [ meta [ _charset "utf-8" ]
                    meta [ _name "viewport"; _content "width=device-width, initial-scale=1" ]
                    title [] [ str name ]
                    style [] [ rawText styles ] ]
              body [] (content @ scripts) ]
        |> RenderView.AsString.htmlDocument

    /// The whole page. The same content gives the same bytes.
    let render (name: string) (content: XmlNode list) (figures: Figure list) : string =
        document
            name
            (resource "report.css")
            content
            [ noscript [] [ str "The figures of this page are drawn by a script inside it, which is switched off here." ]
              embed "figures" (data figures)
              script (plotly ())
              script (resource "picture.js" + resource "report.js") ]

    /// A page of what stands above and of parts, those without content left out.
    let internal ofSections (name: string) (top: Section list) (mainClass: string) (parts: Section list) : Rendered =
        let all = top @ parts

        let content =
            [ yield! List.collect fst top
              main
                  [ if mainClass <> "" then
                        _class mainClass ]
                  [ for nodes, _ in parts do
                        if not nodes.IsEmpty then
                            section [] nodes ] ]

        { Name = name
          Content = content
          Figures = List.collect snd all }

    let internal html (page: Rendered) : string = render page.Name page.Content page.Figures

    /// A sentence for everything that a page says it could not draw.
    let internal undrawn (page: Rendered) : string list =
        [ for f in page.Figures do
              match f.Json with
              | Error why -> $"'{f.Id}' could not be drawn: {why}"
              | Ok _ -> () ]

    /// Writes a page, and says on standard error what of it could not be drawn. Fault: `Unwritable`.
    let internal write (path: string) (page: Rendered) : Result<string, Fault list> =
        Files.writeText path (fun file -> file.Write(html page))
        |> Result.map (fun () ->
            for sentence in undrawn page do
                eprintfn "cmcl: %s: %s" (Path.GetFileName path) sentence

            path)
