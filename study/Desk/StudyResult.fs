namespace Cmcl

open System.IO

/// What a study found, or what a results folder holds: everything that tables, charts and reports are made of. A value; `Run.go` and
/// `Report.read` make one.
[<StructuredFormatDisplay("{Text}")>]
type StudyResult =
    {
        /// Settings, seeds, data, versions: what `config.json` says.
        Info: RunInfo
        /// Every figure, and the aggregates over them, of the stream's own order of steps.
        Rows: Row list
        /// The same of other orders of the steps, by the number of the order.
        Orders: Map<int, Row list>
        Losses: LossRow list
        /// Of the first seed.
        Spectra: SpectrumRow list
        Monitor: MonitorRow list
    }

    /// Labels in the order of the configuration, then of the rows.
    member r.Methods: string list =
        [ yield! r.Info.Methods |> List.map _.Label
          yield! r.Rows |> List.map _.Method
          yield! r.Losses |> List.map _.Method
          yield! r.Spectra |> List.map _.Method
          yield! r.Monitor |> List.map _.Method ]
        |> List.distinct

    member r.Seeds: int list = r.Rows |> List.map _.Seed |> List.distinct |> List.sort

    member r.Stream: string = r.Rows |> List.tryHead |> Option.map _.Stream |> Option.defaultValue r.Info.StreamName

    /// In a line: what was run, and what of it ended early.
    member r.Text: string =
        let count (word: string) n = if n = 1 then $"1 {word}" else $"{n} {word}s"
        let orders = if r.Orders.IsEmpty then "" else $", {r.Orders.Count + 1} orders of its steps"

        let size =
            [ count "method" r.Methods.Length; count "seed" r.Seeds.Length; count "figure" r.Rows.Length ] |> String.concat ", "

        let failed =
            match r.Info.Failures with
            | [] -> ""
            | (label, seed, why) :: _ as all -> $"; {all.Length} ended early, the first {label} (seed {seed}): {why}"

        $"{r.Stream}{orders}: {size}{failed}"

    override r.ToString() = r.Text

[<RequireQualifiedAccess>]
module StudyResult =
    /// A table that a run may do without.
    let private optional (table: Result<'row list, Fault list>) : Result<'row list, Fault list> =
        match table with
        | Error [ Fault.Missing _ ] -> Ok []
        | other -> other

    /// The final rows of the file, and those that follow from its rows per step where the file has none.
    let private completed (rows: Row list) : Row list =
        rows @ Results.aggregates rows |> List.distinctBy (fun r -> r.Stream, r.Method, r.Seed, r.Step, r.Task, r.Metric)

    /// What a results folder holds: `results.csv`, and as far as they are there `config.json`, `losses.csv`, `spectra.csv` and `monitor.csv`.
    /// Faults: `Missing`, `Unreadable`.
    let read (folder: string) : Result<StudyResult, Fault list> =
        validated {
            let! info = RunInfo.read folder
            and! rows = Results.read folder
            and! losses = optional (Results.readLosses folder)
            and! spectra = optional (Results.readSpectra folder)
            and! monitor = optional (Results.readMonitor folder)

            return
                { Info = info
                  Rows = completed rows
                  Orders = Map.empty
                  Losses = losses
                  Spectra = spectra
                  Monitor = monitor }
        }
        |> Result.bind (fun result ->
            if result.Rows.IsEmpty then
                Error [ Fault.Unreadable(Path.Combine(folder, "results.csv"), "it has no rows") ]
            else
                Ok result)

    /// Writes it as the files of a results folder, `config.json` aside (`Report.save` does that, too). Fault: `Unwritable`.
    let writeTables (folder: string) (result: StudyResult) : Result<unit, Fault list> =
        [ Results.write folder result.Rows
          Results.writeLosses folder result.Losses
          Results.writeSpectra folder result.Spectra
          if not result.Monitor.IsEmpty then
              Results.writeMonitor folder result.Monitor ]
        |> Check.all
        |> Result.map ignore

    /// The cells of a result, a method with a seed in an order each, as comparisons take them.
    let comparison (result: StudyResult) : Comparison =
        let orders = Map.add 0 result.Rows result.Orders

        let cells =
            [ for KeyValue(order, rows) in orders do
                  for (label, seed), own in rows |> List.groupBy (fun r -> r.Method, r.Seed) do
                      { Stream = result.Stream
                        Method = label
                        Order = order
                        Seed = seed },
                      CellState.Finished own ]

        { Methods = [ for label in result.Methods -> label, Roles.find result.Info.Roles label ]
          Streams = [ result.Stream ]
          Seeds = result.Seeds
          Orders = orders.Count
          Cells = cells
          Command = result.Info.Command }

    /// Every metric of the registry of every cell.
    let measured (result: StudyResult) : Measured = Measured.ofComparison (comparison result)

    /// What results of one stream found together, such as two studies of different methods. Rows that stand in both are taken once.
    /// Fault: `Contradiction` for results of different streams.
    let join (results: StudyResult list) : Result<StudyResult, Fault list> =
        match results with
        | [] -> Error [ Fault.BadValue("results to join", "one or more", "none") ]
        | first :: rest ->
            match rest |> List.tryFind (fun r -> r.Stream <> first.Stream) with
            | Some other ->
                Error
                    [ Fault.Contradiction(
                          $"results of '{first.Stream}' and of '{other.Stream}' cannot stand in one table",
                          "join results of one stream"
                      ) ]
            | None ->
                let all (part: StudyResult -> 'row list) = results |> List.collect part |> List.distinct

                let orders =
                    results
                    |> List.collect (fun r -> Map.toList r.Orders)
                    |> List.groupBy fst
                    |> List.map (fun (order, parts) -> order, parts |> List.collect snd |> List.distinct)

                Ok
                    { Info =
                        { first.Info with
                            Methods = all _.Info.Methods
                            Seeds = all _.Info.Seeds
                            Failures = all _.Info.Failures }
                      Rows = all _.Rows
                      Orders = Map orders
                      Losses = all _.Losses
                      Spectra = all _.Spectra
                      Monitor = all _.Monitor }
