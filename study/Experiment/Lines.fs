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
    /// A run's figures as rows of `results.csv`, without the aggregates (`Results.aggregates` makes those).
    let rows (stream: Cmcl.Stream) (plan: Plan) (seed: int) (outcome: Outcome) : Row list =
        [ for r in outcome.Measurements ->
              { Stream = stream.Name
                Method = plan.Label
                Seed = seed
                When = When.After(r.Step, r.Task)
                Metric = r.Metric
                Value = r.Value } ]

    let internal lossRows (plan: Plan) (seed: int) (outcome: Outcome) : LossRow list =
        [ for step, epoch, loss in outcome.Losses ->
              { Method = plan.Label
                Seed = seed
                Step = step
                Epoch = epoch
                Loss = loss } ]

    let internal spectrumRows (plan: Plan) (seed: int) (outcome: Outcome) : SpectrumRow list =
        [ for step, s in outcome.Spectra do
              for i, share in Array.indexed s.Shares ->
                  { Method = plan.Label
                    Seed = seed
                    Step = step
                    Modality = s.Modality.Name
                    Side = s.Side
                    Index = i + 1
                    Energy = share
                    Protected = s.Protected |> Option.map (fun k -> i < k) } ]

    let private monitorRow (plan: Plan) (seed: int) (r: MonitorMeasurement) : MonitorRow =
        { Method = plan.Label
          Seed = seed
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

    let internal ofOutcome
        (request: Request)
        (plan: Plan)
        (seed: int)
        (monitored: MonitorMeasurement seq)
        (outcome: Outcome)
        : Lines =
        let figures = rows request.Stream plan seed outcome

        { none with
            Figures = figures
            Finals = Results.aggregates figures
            Losses = lossRows plan seed outcome
            Spectra = if seed = request.Seeds.Head then spectrumRows plan seed outcome else []
            Monitor = [ for r in monitored -> monitorRow plan seed r ] }

    /// Whether a job with these faults would fail again: it diverged.
    let internal failsAgain (faults: Fault list) : bool = faults |> List.forall _.IsDiverged

    let internal failed (plan: Plan) (seed: int) (faults: Fault list) : Lines =
        { none with
            Failures = [ for f in faults -> plan.Label, seed, f.Message ]
            Again = not (failsAgain faults) }

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
