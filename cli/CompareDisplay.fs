/// How a comparison looks in a terminal.
module Cmcl.Cli.CompareDisplay

open Cmcl

/// What goes first where there is no room for all: what it cost, then what few ask for; of equals the last.
let private rank (metric: Metric) : int =
    match metric.Unit, metric.Name with
    | (MetricUnit.Count | MetricUnit.Bytes), _ -> 5
    | MetricUnit.Seconds, _ -> 4
    | _, "r10" -> 0
    | _, ("deviation_rel" | "bwt_r10") -> 1
    | _, ("acc" | "bwt_acc") -> 2
    | _ -> 3

/// Means, and their standard deviations below them; bounds after a rule.
let table (elsewhere: string) (t: CompareTable) : LayoutTable =
    let cell (metric: Metric) (c: TableCell) : LayoutCell =
        match c.Spread with
        | None -> Layout.plain "–"
        | Some s ->
            let mean, sd = Metric.spread metric s

            [ (if c.Best then Emphasis.Strong else Emphasis.Plain), mean + CompareTable.mark t c
              match sd with
              | Some sd -> Emphasis.Faint, $"±{sd}"
              | None -> () ]

    let row (r: TableRow) =
        let emphasis = if r.Bound then Emphasis.Faint else Emphasis.Plain
        Some([ emphasis, CompareTable.name t r ] :: List.map2 cell t.Metrics r.Cells)

    let competing, bounds = t.Rows |> List.partition (fun r -> not r.Bound)

    { Columns =
        Layout.words 0 "method"
        :: [ for metric in t.Metrics ->
                 Layout.figures (rank metric) ($"{metric.Title} {Metric.unit metric + Metric.arrow metric}".Trim()) ]
      Rows =
        [ yield! List.map row competing
          if not competing.IsEmpty && not bounds.IsEmpty then
              None
          yield! List.map row bounds ]
      Elsewhere = elsewhere }

/// The frontier of a stream in words, if there is one.
let frontier (stream: string) (c: Comparison) : string option =
    Measured.ofComparison c |> Frontier.points stream |> Frontier.sentence
