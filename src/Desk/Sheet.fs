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
          Page.table 1 [ for head in t.Head -> [ str head ] ] [ for row in t.Rows -> "", [ for cell in row -> [ str cell ] ] ]
          for sentence in t.Notes do
              p [ _class "note" ] [ str sentence ] ]

    /// Where a chart is drawn: with its legend unless it wants none, as high as it says. The keyboard reaches it, by its name.
    let private plotNode (i: int) (name: string) (figure: Cmcl.Figure) : XmlNode =
        let layout = GenericChart.getLayout figure.Chart
        let legend = layout.TryGetTypedPropertyValue<bool> "showlegend" |> Option.defaultValue true

        let height =
            match layout.TryGetTypedPropertyValue<int> "height" with
            | Some height -> [ _class "tall"; _style $"--tall:{height}px;--tall-narrow:{height}px" ]
            | None -> []

        HtmlElements.figure
            (height @ [ attr "role" "group"; attr "aria-label" name; attr "tabindex" "0" ])
            [ Page.plot legend $"plot-{i}" figure ]

    /// The whole page as HTML.
    let page (sheet: Sheet) : string =
        let parts = List.indexed sheet.Parts

        let figures =
            [ for i, part in parts do
                  match part with
                  | SheetPart.Chart(_, _, chart) -> i, { Id = $"chart-{i}"; Chart = chart }
                  | _ -> () ]

        let node (i, part) =
            match part with
            | SheetPart.Text sentence -> [ p [] [ str sentence ] ]
            | SheetPart.Table t -> tableNode t
            | SheetPart.Chart(heading, note, _) ->
                let figure = figures |> List.find (fst >> (=) i) |> snd

                [ if heading <> "" then
                      h2 [] [ str heading ]
                  if note <> "" then
                      p [ _class "note" ] [ str note ]
                  plotNode i (if heading = "" then sheet.Title else heading) figure ]

        Page.render
            sheet.Title
            [ header [ _class "top" ] [ h1 [] [ str sheet.Title ]; p [] [ str sheet.Note ] ]
              main [] [ for part in parts -> section [] (node part) ]
              if sheet.Command <> "" then
                  footer [ _class "top" ] [ pre [] [ str sheet.Command ] ] ]
            (List.map snd figures)

    /// Writes the page and gives its full path; makes the folder if there is none. Raises `CmclException` where it cannot.
    let save (path: string) (sheet: Sheet) : string =
        Results.writeWhole path (fun file -> file.Write(page sheet)) |> Check.getAll
        Path.GetFullPath path
