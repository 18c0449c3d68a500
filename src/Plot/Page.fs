namespace Cmcl

open System.IO
open Giraffe.ViewEngine
open Plotly.NET

/// A chart with the name that it has inside its page.
type Figure = { Id: string; Chart: GenericChart }

/// The building blocks of a page that needs nothing but itself: styles, scripts and plotly.js are inside it.
[<RequireQualifiedAccess>]
module Page =
    let internal resource (owner: System.Type) (name: string) : string =
        match owner.Assembly.GetManifestResourceStream name with
        | null -> invalidOp $"the resource {name} is missing from {owner.Assembly.GetName().Name}"
        | stream ->
            use reader = new StreamReader(stream)
            reader.ReadToEnd()

    /// JSON that cannot end the script block it stands in.
    let internal inert (json: string) : string =
        json.Replace("<", "\\u003c").Replace("\u2028", "\\u2028").Replace("\u2029", "\\u2029")

    /// The source of plotly.js, as Plotly.NET has it inside.
    let internal plotly () : string = resource typeof<GenericChart> "Plotly.NET.plotly-2.28.0.min.js"

    /// Every figure as JSON, by id.
    let private data (figures: Figure list) : string =
        figures
        |> List.map (fun f -> $"\"{f.Id}\":{GenericChart.toFigureJson f.Chart}")
        |> String.concat ",\n"
        |> fun entries -> inert $"{{{entries}}}"

    /// Where a figure is drawn; with `legend` it has its own, otherwise the page's row of methods is its legend.
    let plot (legend: bool) (place: string) (first: Figure) : XmlNode =
        div
            [ _id place
              _class "plot"
              attr "data-figure" first.Id
              if legend then
                  attr "data-legend" "own" ]
            []

    /// A figure to choose from groups of named ones, starting with the given one.
    let chooser (legend: bool) (place: string) (what: string) (first: Figure) (groups: (string * (string * Figure) list) list) =
        figure
            []
            [ select
                  [ attr "data-plot" place; attr "aria-label" what; attr "autocomplete" "off" ]
                  [ for name, choices in groups do
                        optgroup
                            [ attr "label" name ]
                            [ for label, choice in choices do
                                  option
                                      [ _value choice.Id
                                        if choice.Id = first.Id then
                                            _selected ]
                                      [ str label ] ] ]
              plot legend place first ]

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

    /// The whole page. The same content gives the same bytes.
    let render (name: string) (content: XmlNode list) (figures: Figure list) : string =
        let script kind text = HtmlElements.script kind [ rawText text ]

        html
            [ _lang "en" ]
            [ head
                  []
                  [ meta [ _charset "utf-8" ]
                    meta [ _name "viewport"; _content "width=device-width, initial-scale=1" ]
                    title [] [ str name ]
                    style [] [ rawText (resource typeof<Figure> "Cmcl.report.css") ] ]
              body
                  []
                  [ yield! content
                    noscript [] [ str "The figures of this page are drawn by a script inside it, which is switched off here." ]
                    HtmlElements.script [ _id "figures"; _type "application/json" ] [ rawText (data figures) ]
                    script [] (plotly ())
                    script [] (resource typeof<Figure> "Cmcl.report.js") ] ]
        |> RenderView.AsString.htmlDocument
