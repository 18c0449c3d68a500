namespace Cmcl

open System
open System.IO
open System.Net

/// A small table of texts: what it prints in F# Interactive is the table, a notebook shows it as one.
[<StructuredFormatDisplay("{Text}")>]
type TextTable =
    {
        Title: string
        Head: string list
        /// As many texts in each as the head has.
        Rows: string list list
        /// Sentences below it.
        Notes: string list
    }

    /// For a terminal: the first column stands left, the others stand right.
    member t.Text: string =
        let rows = t.Head :: t.Rows
        let widths = rows |> List.transpose |> List.map (List.map String.length >> List.max)

        let line (cells: string list) =
            let pad i (w: int) (text: string) = if i = 0 then text.PadRight w else text.PadLeft w
            String.Join("  ", List.mapi2 pad widths cells).TrimEnd()

        let width = List.sum widths + 2 * (widths.Length - 1)

        [ if t.Title <> "" then
              t.Title
          line t.Head
          String('─', max 0 width)
          yield! List.map line t.Rows
          yield! t.Notes |> List.collect (Layout.wrap (max 60 width)) ]
        |> String.concat "\n"

    override t.ToString() = t.Text

    member t.ToMarkdown() : string =
        let escaped (text: string) = text.Replace("|", "\\|")
        let line (cells: string list) = "| " + String.Join(" | ", List.map escaped cells) + " |"
        let rule = "| --- |" + String.replicate (max 0 (t.Head.Length - 1)) " ---: |"
        [ line t.Head; rule; yield! List.map line t.Rows ] |> String.concat "\n"

    /// For notebooks: one element without a script.
    member t.ToHtml() : string =
        let text (s: string) = WebUtility.HtmlEncode s

        let cell (tag: string) i (s: string) =
            let side = if i = 0 then "left" else "right"
            $"<{tag} style=\"text-align:{side};padding:2px 10px;white-space:nowrap\">{text s}</{tag}>"

        let row tag cells = "<tr>" + String.Concat(List.mapi (cell tag) cells) + "</tr>"
        let caption = if t.Title = "" then "" else $"<caption style=\"text-align:left\">{text t.Title}</caption>"
        let notes = t.Notes |> List.map (fun n -> $"<p style=\"max-width:60em\"><small>{text n}</small></p>") |> String.concat ""

        let head, body = row "th" t.Head, String.Concat(List.map (row "td") t.Rows)

        $"<div style=\"overflow-x:auto\"><table style=\"border-collapse:collapse\">{caption}<thead>{head}</thead><tbody>{body}</tbody></table>{notes}</div>"

/// Making tables and writing them.
[<RequireQualifiedAccess>]
module TextTable =
    /// A table of rows of anything, from what stands in each column. Raises `Fault.Shape` for a row of another length than the head.
    /// Example: `TextTable.make "squares" [ "n"; "n²" ] [ for n in 1..3 -> [ string n; string (n * n) ] ]`.
    let make (title: string) (head: string list) (rows: string list list) : TextTable =
        for row in rows do
            if row.Length <> head.Length then
                Check.fail (Fault.Shape("a row of a table", $"{head.Length} texts, as many as its head", string row.Length))

        { Title = title; Head = head; Rows = rows; Notes = [] }

    /// The same with a column more, a text a row. Raises `Fault.Shape` for another number of texts than rows.
    let column (head: string) (cells: string list) (t: TextTable) : TextTable =
        if cells.Length <> t.Rows.Length then
            Check.fail (Fault.Shape($"the column '{head}' of a table", $"{t.Rows.Length} texts, one a row", string cells.Length))

        { t with
            Head = t.Head @ [ head ]
            Rows = List.map2 (fun row cell -> row @ [ cell ]) t.Rows cells }

    /// The same with sentences below it.
    let note (sentence: string) (t: TextTable) : TextTable = { t with Notes = t.Notes @ [ sentence ] }

    /// Writes it as CSV (RFC 4180), the head first; makes the folder if there is none. Fault: `Unwritable`.
    let save (path: string) (t: TextTable) : Result<unit, Fault list> = Files.writeText path (Csv.write t.Head id t.Rows)

    /// A number as the library's tables have it in CSV: the shortest text that reads back the same.
    /// Example: `TextTable.number 0.1 = "0.1"`.
    let number (x: float) : string = Csv.number x
