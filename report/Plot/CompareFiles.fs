namespace Cmcl

open System
open System.IO

/// What a comparison leaves in its folder.
[<RequireQualifiedAccess>]
module CompareFiles =
    let private optional = Option.map Csv.number >> Option.defaultValue ""

    let private cellFields (cell: Cell) = [ cell.Stream; string cell.Order; cell.Method; string cell.Seed ]

    let private matrix (c: Comparison) =
        let measurements =
            seq {
                for cell, state in c.Cells do
                    match state with
                    | CellState.Finished rows ->
                        for r in rows do
                            cellFields cell @ [ fst (When.texts r.When); snd (When.texts r.When); r.Metric; Csv.number r.Value ]
                    | _ -> ()
            }

        Csv.write [ "stream"; "order"; "method"; "seed"; "step"; "task"; "metric"; "value" ] id measurements

    let private figures (m: Measured) =
        let lines =
            seq {
                for cell, _ in m.Comparison.Cells do
                    let own = Measured.figures cell m

                    for metric in Metric.all do
                        match Map.tryFind metric.Name own with
                        | Some value -> cellFields cell @ [ metric.Name; Csv.number value ]
                        | None -> ()
            }

        Csv.write [ "stream"; "order"; "method"; "seed"; "metric"; "value" ] id lines

    let private differences (all: Difference list) =
        let fields (d: Difference) =
            [ d.Stream
              d.Method
              d.Against
              d.Metric.Name
              string d.Over.Count
              Csv.number d.Over.Mean
              optional d.Over.Sd
              optional (Option.map fst d.Interval)
              optional (Option.map snd d.Interval)
              optional d.P
              optional d.Holm ]

        Csv.write [ "stream"; "method"; "against"; "metric"; "n"; "mean"; "sd"; "low"; "high"; "p"; "p_holm" ] fields all

    let private spread (all: SpreadParts list) =
        let fields (s: SpreadParts) =
            [ s.Stream
              s.Method
              s.Metric.Name
              string s.Splits
              string s.Orders
              string s.Cells
              Csv.number s.Mean
              optional s.Sd
              optional s.SdSeeds
              optional s.SdOrders
              optional s.SdSplits ]

        let parts = [ "sd"; "sd_seeds"; "sd_orders"; "sd_splits" ]
        Csv.write ([ "stream"; "method"; "metric"; "splits"; "orders"; "cells"; "mean" ] @ parts) fields all

    let private failures (failed: (Cell * string) list) =
        Csv.write [ "stream"; "order"; "method"; "seed"; "message" ] (fun (cell, message) -> cellFields cell @ [ message ]) failed

    /// A file that only some comparisons have: an older one goes when this has none.
    let private only (has: bool) (path: string) (write: TextWriter -> unit) =
        if has then
            Files.writeText path write
        else
            try
                File.Delete path
                Ok()
            with
            | :? IOException
            | :? UnauthorizedAccessException as e -> Error [ Fault.Unwritable(path, e.Message) ]

    /// Columns from names; none are the paper's.
    let columns (metrics: string list) : Result<Metric list, Fault list> =
        match metrics with
        | [] -> Ok Metric.paper
        | names -> names |> List.distinct |> List.map Metric.find |> Check.all

    /// The tables of all streams with these columns; with none, the paper's without those that no method has.
    let tables (metrics: string list) (c: Comparison) : Result<CompareTable list, Fault list> =
        columns metrics
        |> Result.map (fun columns ->
            let m = Measured.ofComparison c

            [ for stream in c.Streams ->
                  let table = CompareTable.make columns stream m
                  if metrics.IsEmpty then CompareTable.withoutEmpty table else table ])

    /// Writes the tables, the figures and the page into a folder, and gives the page's path. `metrics` are the tables' columns by name
    /// (none: the paper's), `against` the method that the others are held against (see `Differences.against`). Faults: names that
    /// nothing has, `Unwritable`.
    let write (out: string) (metrics: string list) (against: string option) (c: Comparison) : Result<string, Fault list> =
        let m = Measured.ofComparison c

        match columns metrics, Differences.against against m, tables metrics c with
        | Ok columns, Ok against, Ok tables ->
            let path name = Path.Combine(out, name)
            let page = path "compare.html"
            let failed = Measured.failures m

            let compared =
                match against with
                | Some against -> Differences.all Metric.all against m
                | None -> []

            [ Files.writeText (path "matrix.csv") (matrix c)
              Files.writeText (path "figures.csv") (figures m)
              Files.writeText (path "differences.csv") (differences compared)
              only (Comparison.isSpread c) (path "spread.csv") (spread (SpreadParts.all Metric.all m))
              only (not failed.IsEmpty) (path "failures.csv") (failures failed)
              for t in tables do
                  let name = $"table-{Names.folder t.Stream}"
                  Files.writeText (path $"{name}.md") (fun file -> file.Write(CompareText.markdown t))
                  Files.writeText (path $"{name}.tex") (fun file -> file.Write(CompareText.latex t))
                  Files.writeText (path $"{name}.csv") (CompareText.csv t)
              Page.write page (ComparePage.render columns metrics.IsEmpty against m) |> Result.map ignore ]
            |> Check.all
            |> Result.map (fun _ -> page)
        | a, b, _ ->
            let faults =
                function
                | Ok _ -> []
                | Error f -> f

            Error(faults a @ faults b)
