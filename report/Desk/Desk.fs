namespace Cmcl

open System
open System.IO
open Deedle

/// What a script or a notebook begins and ends with: streams by name, results as tables, frames and files. These raise `CmclException`
/// with every fault, where the functions below them give a `Result`.
[<AutoOpen>]
module Desk =
    [<RequireQualifiedAccess>]
    module Stream =
        /// A stream by the name of a shipped one or by the path of a folder or a file. Its tensors belong to the caller.
        /// Example: `Stream.load "synthetic"`.
        let load (name: string) : Cmcl.Stream =
            Native.init ()
            Catalogue.find name |> Check.getAll

    [<RequireQualifiedAccess>]
    module Report =
        /// What a results folder holds.
        let read (folder: string) : StudyResult = StudyResult.read folder |> Check.getAll

        /// Results of one stream together (`StudyResult.join`).
        let join (results: StudyResult list) : StudyResult = StudyResult.join results |> Check.getAll

        /// The part of a result that is about these methods. Fault: `Unknown` for one that it does not have.
        let only (labels: string list) (result: StudyResult) : StudyResult =
            for label in labels do
                if not (List.contains label result.Methods) then
                    Check.fail (Fault.Unknown("method of these results", label, result.Methods))

            let chosen label = List.contains label labels
            let rows = List.filter (fun (r: Row) -> chosen r.Method)

            { Info =
                { result.Info with
                    Methods = result.Info.Methods |> List.filter (fun m -> chosen m.Label)
                    Failures = result.Info.Failures |> List.filter (fun (label, _, _) -> chosen label) }
              Rows = rows result.Rows
              Orders = result.Orders |> Map.map (fun _ own -> rows own)
              Losses = result.Losses |> List.filter (fun r -> chosen r.Method)
              Spectra = result.Spectra |> List.filter (fun r -> chosen r.Method)
              Monitor = result.Monitor |> List.filter (fun r -> chosen r.Method) }

        /// A table of metrics, with what tells the methods apart in the columns before them.
        let private tabulate (heads: string list) cells (metrics: string list) (result: StudyResult) : TextTable =
            let t =
                CompareTable.make (metrics |> List.map (Metric.find >> Check.get)) result.Stream (StudyResult.measured result)
                |> CompareTable.withoutEmpty

            let head (m: Metric) = [ m.Title; Metric.unit m; Metric.arrow m ] |> List.filter ((<>) "") |> String.concat " "

            let cell (m: Metric) (c: TableCell) =
                match c.Spread with
                | None -> "–"
                | Some s ->
                    let mean, sd = Metric.spread m s
                    mean + (sd |> Option.map (fun sd -> $" ± {sd}") |> Option.defaultValue "") + CompareTable.mark t c

            { Title = t.Stream
              Head = heads @ List.map head t.Metrics
              Rows = [ for row in t.Rows -> cells t row @ List.map2 cell t.Metrics row.Cells ]
              Notes = t.Notes |> List.filter (fun note -> not (note.StartsWith "Bold")) }

        /// A table of these metrics of the registry (`cmcl metrics`): methods by metrics, mean ± sd over seeds.
        let tableOf (metrics: string list) (result: StudyResult) : TextTable =
            tabulate [ "method" ] (fun t row -> [ CompareTable.name t row ]) metrics result

        /// Accuracy, recall@10, their backward transfer, deviation of old scores: methods by metrics, mean ± sd over seeds.
        let table (result: StudyResult) : TextTable = tableOf (Metric.brief |> List.map _.Name) result

        /// A metric over orders of the steps: its mean, how it varies with the seed, and how with the order.
        let orderTable (metrics: string list) (result: StudyResult) : TextTable =
            let spreads = SpreadParts.all (metrics |> List.map (Metric.find >> Check.get)) (StudyResult.measured result)

            let shown (m: Metric) (x: float option) = x |> Option.map (Metric.shown m) |> Option.defaultValue "–"

            TextTable.make
                $"{result.Stream}, {result.Orders.Count + 1} orders of its steps"
                [ "method"; "metric"; "mean"; "sd over seeds"; "sd over orders" ]
                [ for s in spreads ->
                      [ s.Method
                        $"{s.Metric.Title} {Metric.unit s.Metric}".Trim()
                        Metric.shown s.Metric s.Mean
                        shown s.Metric s.SdSeeds
                        shown s.Metric s.SdOrders ] ]
            |> TextTable.note SpreadParts.covers

        /// Mean differences to one method over the seeds that both have, with 95 % intervals.
        let differences (against: string) (metrics: string list) (result: StudyResult) : TextTable =
            let measured = StudyResult.measured result
            let against = Differences.against (Some against) measured |> Check.get |> Option.get

            TextTable.make
                $"{result.Stream}: differences to {against}"
                [ "method"; "metric"; "difference"; "95 % interval"; "seeds" ]
                [ for d in Differences.all (metrics |> List.map (Metric.find >> Check.get)) against measured ->
                      let show = Metric.difference d.Metric

                      [ d.Method
                        d.Metric.Title
                        show d.Over.Mean
                        (match d.Interval with
                         | Some(low, high) -> $"[{show low}, {show high}]"
                         | None -> "–")
                        string d.Over.Count ] ]

        /// The settings in which the methods of each group differ among themselves, in the order of the registry of options.
        let private varied (groups: MethodInfo list list) : string list =
            let varies name (own: MethodInfo list) = own |> List.choose _.Setting(name) |> List.distinct |> List.length > 1
            let own = groups |> List.concat |> List.collect (_.Settings >> List.map fst)
            Registry.optionNames @ own |> List.distinct |> List.filter (fun name -> List.exists (varies name) groups)

        /// `tableOf` with a column for each option in which methods of one name differ in place of their labels; `–` for what a method does not
        /// take.
        let settings (metrics: string list) (result: StudyResult) : TextTable =
            let options = result.Info.Methods |> List.groupBy _.Method |> List.map snd |> varied
            let known = Map [ for m in result.Info.Methods -> m.Label, Map m.Settings ]
            let families = result.Methods |> List.map Label.family |> List.distinct
            let family = if families.Length > 1 || options.IsEmpty then [ "method" ] else []

            let cells _ (row: TableRow) =
                let own = Map.tryFind row.Method known |> Option.defaultValue Map.empty

                [ for _ in family -> Label.family row.Method ]
                @ [ for name in options -> Map.tryFind name own |> Option.defaultValue "–" ]

            tabulate (family @ options) cells metrics result

        /// Of a figure that is there for every old task after every step, such as `deviation_rel` or `bound_rel`, the largest of a method's run: mean ± sd
        /// over seeds; None where the method has no such figure.
        let largest (metric: string) (label: string) (result: StudyResult) : Spread option =
            result.Rows
            |> List.filter (fun r -> r.Method = label && r.Metric = metric && r.When <> When.Final)
            |> List.groupBy _.Seed
            |> List.map (fun (_, own) -> own |> List.map _.Value |> List.max)
            |> Transfer.meanSd

        let private column (name: string) (values: 'v list) (frame: Frame<int, string>) =
            frame.AddColumn(name, Series.ofValues values)
            frame

        /// A Deedle frame with a row for each method, order and seed: what each was (`stream`, `method`, `family`, `order`, `seed`, and every option in which
        /// methods differ, as text) and every metric of the registry as a number, rates as fractions; what does not exist is missing.
        let frame (result: StudyResult) : Frame<int, string> =
            let measured = StudyResult.measured result

            let cells =
                (StudyResult.comparison result).Cells
                |> List.map fst
                |> List.sortBy (fun c -> List.findIndex ((=) c.Method) result.Methods, c.Order, c.Seed)

            let settings = Map [ for m in result.Info.Methods -> m.Label, Map m.Settings ]

            let option name (c: Cell) =
                settings |> Map.tryFind c.Method |> Option.bind (Map.tryFind name) |> Option.defaultValue ""

            let figures = [ for c in cells -> Measured.figures c measured ]
            let present = Metric.all |> List.filter (fun m -> figures |> List.exists (Map.containsKey m.Name))
            let empty = Frame.ofRowKeys [ 0 .. cells.Length - 1 ]

            let described =
                empty
                |> column "stream" (cells |> List.map _.Stream)
                |> column "method" (cells |> List.map _.Method)
                |> column "family" (cells |> List.map (fun c -> Label.family c.Method))
                |> column "order" (cells |> List.map _.Order)
                |> column "seed" (cells |> List.map _.Seed)

            let withOptions =
                (described, varied [ result.Info.Methods ])
                ||> List.fold (fun frame name -> column name (cells |> List.map (option name)) frame)

            (withOptions, present)
            ||> List.fold (fun frame m ->
                column m.Name (figures |> List.map (fun f -> Map.tryFind m.Name f |> Option.defaultValue nan)) frame)

        /// A Deedle frame of every figure: `stream`, `method`, `order`, `seed`, `step`, `task`, `metric`, `value`, tidy as `results.csv` is.
        let longFrame (result: StudyResult) : Frame<int, string> =
            let rows =
                [ for KeyValue(order, rows) in Map.add 0 result.Rows result.Orders do
                      for r in rows -> order, r ]

            Frame.ofRowKeys [ 0 .. rows.Length - 1 ]
            |> column "stream" [ for _, r in rows -> r.Stream ]
            |> column "method" [ for _, r in rows -> r.Method ]
            |> column "order" (List.map fst rows)
            |> column "seed" [ for _, r in rows -> r.Seed ]
            |> column "step" [ for _, r in rows -> fst (When.texts r.When) ]
            |> column "task" [ for _, r in rows -> snd (When.texts r.When) ]
            |> column "metric" [ for _, r in rows -> r.Metric ]
            |> column "value" [ for _, r in rows -> r.Value ]

        /// A frame as a table of texts, numbers in their shortest form that reads back the same, what is missing empty: for `TextTable.save`.
        let ofFrame (title: string) (frame: Frame<int, string>) : TextTable =
            let text (value: obj) =
                match value with
                | :? float as x -> if Double.IsNaN x then "" else TextTable.number x
                | value -> string value

            let cells (name: string) =
                let column = frame.GetColumn<obj> name

                [ for key in frame.RowKeys ->
                      column.TryGet key |> OptionalValue.asOption |> Option.map text |> Option.defaultValue "" ]

            let names = List.ofSeq frame.ColumnKeys
            TextTable.make title names (names |> List.map cells |> List.transpose)

        /// Writes a results folder, as `cmcl run` leaves it: tidy CSV, `config.json` and `report.html`, whose full path it gives. Other orders of
        /// the steps go into folders of their own, `order-1` and so on. Files of these names are replaced.
        let save (folder: string) (result: StudyResult) : string =
            let write (folder: string) (part: StudyResult) =
                StudyResult.writeTables folder part |> Check.getAll

                Files.writeText (Path.Combine(folder, "config.json")) (fun file -> file.Write(RunInfo.toJson part.Info))
                |> Check.getAll

                Report.write folder |> Check.getAll |> Path.GetFullPath

            for KeyValue(order, rows) in result.Orders do
                write
                    (Path.Combine(folder, $"order-{order}"))
                    { result with
                        Rows = rows
                        Orders = Map.empty
                        Losses = []
                        Spectra = [] }
                |> ignore

            write folder result
