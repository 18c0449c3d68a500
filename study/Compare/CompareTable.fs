namespace Cmcl

open System

/// One figure of a table.
type TableCell =
    {
        /// Over seeds, and splits where there are several; None where the figure does not exist.
        Spread: Spread option
        /// The best shown among methods that train step by step.
        Best: bool
        /// The mean is over fewer cells than were asked for.
        Partial: bool
        /// What was learned stands for what was left, of a method that starts again at every step.
        Learned: bool
    }

/// One method of a table.
type TableRow =
    {
        Method: string
        /// One that the others are read against, not a competitor.
        Bound: bool
        /// Cells that are finished.
        Done: int
        /// As many as the table has metrics.
        Cells: TableCell list
    }

/// A table of one stream, in the layout of the paper: methods by metrics, mean ± sd over seeds, and over splits where there are several.
type CompareTable =
    {
        Stream: string
        Metrics: Metric list
        /// Those that compete first, each group in the order asked for.
        Rows: TableRow list
        /// How many cells of each method were asked for: seeds, in every split.
        Asked: int
        /// What a reader has to know, a sentence each.
        Notes: string list
    }

[<RequireQualifiedAccess>]
module CompareTable =
    /// The metric that stands for another in the row of a method that starts again at every step: each task by the heads that
    /// learned it.
    let private standIn (role: Role) (metric: Metric) : Metric option =
        if role = Role.Restart && not (metric.Name.Contains '_') then
            Metric.all |> List.tryFind (fun m -> m.Name = "learned_" + metric.Name)
        else
            None

    /// Which of some spreads are the best, to the places shown. A mean over fewer seeds than another's does not compete, and alone there
    /// is no contest.
    let private best (metric: Metric) (spreads: (string * Spread) list) : Set<string> =
        let most = spreads |> List.map (fun (_, s) -> s.Count) |> List.fold max 0
        let competing = spreads |> List.filter (fun (_, s) -> s.Count = most)

        match competing |> List.map (fun (_, s) -> s.Mean) |> Better.best metric.Better with
        | Some winner when competing.Length > 1 ->
            competing
            |> List.filter (fun (_, s) -> Metric.shown metric s.Mean = Metric.shown metric winner)
            |> List.map fst
            |> Set.ofList
        | _ -> Set.empty

    let private notes (stream: string) (m: Measured) (rows: TableRow list) : string list =
        let c = m.Comparison
        let cells = rows |> List.collect _.Cells
        let splits = (Comparison.splits stream c).Length
        let asked = Measured.asked stream m
        let unit = if splits > 1 then "cells" else "seeds"

        [ if splits > 1 then
              let seeds = if c.Seeds.Length = 1 then "one seed each" else $"{c.Seeds.Length} seeds each"
              $"Mean ± sample standard deviation (n − 1) over {splits} splits of the items into training, validation and test rows, {seeds}. Rates are in per cent."
          elif c.Seeds.Length > 1 then
              $"Mean ± sample standard deviation (n − 1) over {c.Seeds.Length} seeds, which differ in the order of rows and in what methods draw. Rates are in per cent."
          else
              "One seed, so that there is no standard deviation. Rates are in per cent."

          "Bold is the best of the methods that train step by step, equals to the places shown with it; the others are bounds to read them against."

          if c.Orders > 1 then
              "Steps in the stream's own order; other orders have a table of their own."

          if cells |> List.exists _.Partial || rows |> List.exists (fun r -> r.Done = 0) then
              $"(n/{asked}): a mean over n of {asked} {unit}, since others failed or are not finished. It is no candidate for the best where another method has more."

          if cells |> List.exists _.Learned then
              "†: it starts again at every step, so each task is measured right after its own step." ]

    /// The table of a stream with these columns.
    let make (metrics: Metric list) (stream: string) (m: Measured) : CompareTable =
        let bounds, competing = Measured.methods m |> List.partition (fun label -> Measured.isBound label m)
        let asked = Measured.asked stream m

        let winners =
            [ for metric in metrics ->
                  competing
                  |> List.choose (fun label -> Measured.spread stream label metric m |> Option.map (fun s -> label, s))
                  |> best metric ]

        let row bound label =
            { Method = label
              Bound = bound
              Done = Measured.finished stream 0 label m
              Cells =
                [ for metric, winners in List.zip metrics winners ->
                      let other = standIn (Roles.find (Measured.roles m) label) metric
                      let spread = Measured.spread stream label (Option.defaultValue metric other) m

                      { Spread = spread
                        Best = winners.Contains label
                        Partial = spread |> Option.exists (fun s -> s.Count < asked)
                        Learned = other.IsSome && spread.IsSome } ] }

        let rows = List.map (row false) competing @ List.map (row true) bounds

        { Stream = stream
          Metrics = metrics
          Rows = rows
          Asked = asked
          Notes = notes stream m rows }

    /// The table without the columns that no method has a figure for.
    let withoutEmpty (t: CompareTable) : CompareTable =
        let kept =
            [ for i in 0 .. t.Metrics.Length - 1 do
                  if t.Rows |> List.exists (fun r -> r.Cells[i].Spread.IsSome) then
                      i ]

        { t with
            Metrics = [ for i in kept -> t.Metrics[i] ]
            Rows = [ for r in t.Rows -> { r with Cells = [ for i in kept -> r.Cells[i] ] } ] }

    /// A row's label, with `(0/3)` behind it where nothing is finished.
    let name (t: CompareTable) (r: TableRow) : string = if r.Done = 0 then $"{r.Method} (0/{t.Asked})" else r.Method

    /// What stands behind a figure: `†`, `(2/3)`, both or nothing.
    let mark (t: CompareTable) (cell: TableCell) : string =
        match cell.Spread with
        | None -> ""
        | Some s -> (if cell.Learned then "†" else "") + (if cell.Partial then $" ({s.Count}/{t.Asked})" else "")
