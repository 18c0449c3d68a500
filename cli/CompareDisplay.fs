/// How a comparison looks in a terminal.
module Cmcl.Cli.CompareDisplay

open System
open Spectre.Console
open Cmcl

/// A table that fits 120 columns: means, and their standard deviations below them; bounds after a rule.
let table (t: CompareTable) : Table =
    let table = Table(Border = TableBorder.Simple, Expand = false, Title = TableTitle(Markup.Escape t.Stream))
    table.AddColumn(TableColumn("method").PadLeft(0).PadRight(0)) |> ignore

    for metric in t.Metrics do
        let unit = $"{Metric.unit metric} {Metric.arrow metric}".Trim()

        table.AddColumn(TableColumn(Markup.Escape $"{metric.Title}\n{unit}").RightAligned().NoWrap().PadLeft(1).PadRight(0))
        |> ignore

    let cell (metric: Metric) (c: TableCell) =
        match c.Spread with
        | None -> "–"
        | Some s ->
            let mean, sd = Metric.spread metric s
            let mean = if c.Best then $"[bold]{mean}[/]" else mean
            let below = sd |> Option.map (fun sd -> $"\n[dim]±{sd}[/]") |> Option.defaultValue ""
            mean + Markup.Escape(CompareTable.mark t c) + below

    let add (r: TableRow) =
        let name = String.Join("\n", Labels.lines (CompareTable.name t r)) |> Markup.Escape
        let name = if r.Bound then $"[dim]{name}[/]" else name
        table.AddRow(Array.ofList (name :: List.map2 cell t.Metrics r.Cells)) |> ignore

    let competing, bounds = t.Rows |> List.partition (fun r -> not r.Bound)
    List.iter add competing

    if not competing.IsEmpty && not bounds.IsEmpty then
        table.AddEmptyRow() |> ignore

    List.iter add bounds
    table

/// What a reader of the table has to know, a line each.
let notes (t: CompareTable) : string =
    String.Join("\n", t.Notes |> List.collect (Describe.wrap 116) |> List.map (fun line -> "  " + line))

/// The frontier of a stream in words, if there is one.
let frontier (stream: string) (c: Comparison) : string option =
    Measured.ofComparison c |> Frontier.points stream |> Frontier.sentence
