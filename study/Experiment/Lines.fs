namespace Cmcl

open System
open System.IO

/// What a cell that is over, a method with a seed, has in the tables of a results folder.
type internal Lines =
    {
        Figures: Row list
        Finals: Row list
        Losses: LossRow list
        Spectra: SpectrumRow list
        Monitor: MonitorRow list
        Failures: (string * int * string) list
        /// Whether running it again may help.
        Again: bool
    }

/// Outcomes as lines of tables, and the tables of a results folder.
[<RequireQualifiedAccess>]
module Lines =
    /// A cell's figures as rows of `results.csv`, without the aggregates (`Results.aggregates` makes those).
    let rows (cell: Cell) (outcome: Outcome) : Row list =
        [ for r in outcome.Measurements ->
              { Stream = cell.Stream
                Method = cell.Method
                Seed = cell.Seed
                When = When.After(r.Step, r.Task)
                Metric = r.Metric
                Value = r.Value } ]

    /// The same of a finished cell; none of one that diverged.
    let ofCell (cell: Cell) (record: CellRecord) : Row list =
        match record.Result with
        | Ok result -> rows cell result.Outcome
        | Error _ -> []

    let internal lossRows (cell: Cell) (outcome: Outcome) : LossRow list =
        [ for step, epoch, loss in outcome.Losses ->
              { Method = cell.Method
                Seed = cell.Seed
                Step = step
                Epoch = epoch
                Loss = loss } ]

    let internal spectrumRows (cell: Cell) (outcome: Outcome) : SpectrumRow list =
        [ for step, s in outcome.Spectra do
              for i, share in Array.indexed s.Shares ->
                  { Method = cell.Method
                    Seed = cell.Seed
                    Step = step
                    Modality = s.Modality.Name
                    Side = s.Side
                    Index = i + 1
                    Energy = share
                    Protected = s.Protected |> Option.map (fun k -> i < k) } ]

    let private monitorRow (cell: Cell) (r: MonitorMeasurement) : MonitorRow =
        { Method = cell.Method
          Seed = cell.Seed
          Step = r.Step
          Update = r.Update
          Task = r.Task
          Rms = r.Drift.Rms
          Relative = r.Drift.Relative }

    let private none: Lines =
        { Figures = []
          Finals = []
          Losses = []
          Spectra = []
          Monitor = []
          Failures = []
          Again = false }

    /// What a finished cell has in the tables of a request.
    let internal ofRecord (request: Request) (cell: Cell) (record: CellRecord) : Lines =
        match record.Result with
        | Ok { Outcome = outcome; Monitor = monitored } ->
            let figures = rows cell outcome

            { none with
                Figures = figures
                Finals = Results.aggregates figures
                Losses = lossRows cell outcome
                Spectra = if cell.Seed = request.Seeds.Head then spectrumRows cell outcome else []
                Monitor = [ for r in monitored -> monitorRow cell r ] }
        | Error message -> { none with Failures = [ cell.Method, cell.Seed, message ] }

    /// What a cell has that broke off: running it again may help.
    let internal broken (cell: Cell) (faults: Fault list) : Lines =
        { none with
            Failures = [ for f in faults -> cell.Method, cell.Seed, f.Message ]
            Again = true }

    let internal writeRecord
        (created: DateTimeOffset)
        (left: int)
        (request: Request)
        (over: Lines list)
        : Result<unit, Fault list> =
        Files.writeText (Path.Combine(request.Out, "config.json")) (fun w ->
            w.Write(Record.write created left (over |> List.collect _.Failures) request))

    /// The record last: it says how much is left.
    let internal write (created: DateTimeOffset) (left: int) (request: Request) (over: Lines list) : Result<unit, Fault list> =
        let all (part: Lines -> 'row list) = Seq.collect part over

        [ Results.write request.Out (Seq.append (all _.Figures) (all _.Finals))
          Results.writeLosses request.Out (all _.Losses)
          Results.writeSpectra request.Out (all _.Spectra)
          if request.Monitor.IsSome then
              Results.writeMonitor request.Out (all _.Monitor) ]
        |> Check.all
        |> Result.bind (fun _ -> writeRecord created left request over)
