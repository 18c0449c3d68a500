namespace Cmcl

open System.IO
open Giraffe.ViewEngine
open Plotly.NET

/// A part of a sheet.
[<RequireQualifiedAccess>]
type SheetPart =
    | Text of string
    | Table of TextTable
    /// With its heading and a sentence that says what to look for.
    | Chart of heading: string * note: string * chart: GenericChart

/// What a script or a notebook leaves: one page of text, tables and charts that needs no network.
type Sheet =
    {
        Title: string
        Note: string
        /// The command that makes it again.
        Command: string
        Parts: SheetPart list
    }

/// Sheets, as pipes: `Sheet.make "Places" "What …" |> Sheet.chart "Deviation" "Lower is …" chart |> Sheet.save "out/page.html"`.
[<RequireQualifiedAccess>]
module Sheet =
    let make (title: string) (note: string) : Sheet = { Title = title; Note = note; Command = ""; Parts = [] }

    let private add (part: SheetPart) (sheet: Sheet) : Sheet = { sheet with Parts = sheet.Parts @ [ part ] }

    /// The command that makes it again, to stand below everything.
    let command (text: string) (sheet: Sheet) : Sheet = { sheet with Command = text }

    let text (sentence: string) (sheet: Sheet) : Sheet = add (SheetPart.Text sentence) sheet
    let table (table: TextTable) (sheet: Sheet) : Sheet = add (SheetPart.Table table) sheet

    /// A chart with its heading and a sentence that says what to look for; either may be empty.
    let chart (heading: string) (note: string) (chart: GenericChart) (sheet: Sheet) : Sheet =
        add (SheetPart.Chart(heading, note, chart)) sheet

    let private tableNode (t: TextTable) : XmlNode list =
        [ if t.Title <> "" then
              h2 [] [ str t.Title ]
          Page.table
              1
              [ for head in t.Head -> [ str head ] ]
              [ for row in t.Rows -> "", row |> List.mapi (fun i cell -> if i = 0 then TableHtml.label cell else [ str cell ]) ]
          for sentence in t.Notes do
              p [ _class "note" ] [ str sentence ] ]

    /// Where a chart is drawn: with its legend unless it wants none, as high as it says. The keyboard reaches it, by its name.
    let private plotNode (i: int) (name: string) (chart: GenericChart) : Section =
        let layout = GenericChart.getLayout chart
        let legend = layout.TryGetTypedPropertyValue<bool> "showlegend" |> Option.defaultValue true

        let height =
            match layout.TryGetTypedPropertyValue<int> "height" with
            | Some height -> [ _class "tall"; _style $"--tall:{height}px" ]
            | None -> []

        let figure = Drawing.figure $"chart-{i}" (fun () -> chart)

        [ HtmlElements.figure
              (height @ [ attr "role" "group"; attr "aria-label" name; attr "tabindex" "0" ])
              [ Page.plot legend $"plot-{i}" figure ] ],
        [ figure ]

    let private part (sheet: Sheet) (i: int, part: SheetPart) : Section =
        match part with
        | SheetPart.Text sentence -> [ p [] [ str sentence ] ], []
        | SheetPart.Table t -> tableNode t, []
        | SheetPart.Chart(heading, note, chart) ->
            let node, figures = plotNode i (if heading = "" then sheet.Title else heading) chart

            [ if heading <> "" then
                  h2 [] [ str heading ]
              if note <> "" then
                  HtmlElements.p [ _class "note" ] [ str note ]
              yield! node ],
            figures

    let private title (part: SheetPart) =
        match part with
        | SheetPart.Text _ -> "Text"
        | SheetPart.Table t -> if t.Title = "" then "Table" else t.Title
        | SheetPart.Chart(heading, _, _) -> if heading = "" then "Chart" else heading

    let private render (sheet: Sheet) : Rendered =
        Page.ofSections
            sheet.Title
            [ [ header [ _class "top" ] [ h1 [] [ str sheet.Title ]; p [] [ str sheet.Note ] ] ], [] ]
            ""
            [ for i, of' in List.indexed sheet.Parts do
                  Drawing.section (title of') (fun () -> part sheet (i, of'))

              if sheet.Command <> "" then
                  ([ pre [] [ str sheet.Command ] ], []) ]

    /// The whole page as HTML. What cannot be drawn is said in its place.
    let page (sheet: Sheet) : string = Page.html (render sheet)

    /// Writes the page and gives its full path; makes the folder if there is none. What of it could not be drawn is said on standard
    /// error, too. Raises `CmclException` where it cannot be written.
    let save (path: string) (sheet: Sheet) : string = Page.write path (render sheet) |> Check.getAll |> Path.GetFullPath
