namespace Cmcl

open System
open System.IO
open TorchSharp

/// What an experiment tells while it goes on.
[<RequireQualifiedAccess>]
type Progress =
    /// A method with a seed begins; the share of all updates that are done.
    | Began of plan: Plan * seed: int * share: float
    /// An event within it, and the share of all updates that are done.
    | Within of plan: Plan * seed: int * event: Event * share: float
    /// It is over; the fault, if it diverged.
    | Ended of plan: Plan * seed: int * fault: Fault option

/// What an experiment left in its folder.
type Summary = { Rows: Row list; Failures: (string * int * string) list }

/// Plans × seeds over a stream, with the results in a folder.
[<RequireQualifiedAccess>]
module Experiment =
    let private ours = [ "results.csv"; "losses.csv"; "spectra.csv"; "config.json"; "report.html" ]

    /// A label as a folder's name.
    let private folderName (label: string) =
        String.map (fun c -> if Char.IsAsciiLetterOrDigit c || c = '-' || c = '.' then c else '_') label

    /// Makes sure that results can go to the folder: it is there or can be made, can be written to, and holds no results unless
    /// they may be replaced. Nothing of the user's own in it is touched.
    let prepare (force: bool) (folder: string) : Result<unit, Fault list> =
        try
            let taken =
                ours |> List.exists (fun name -> File.Exists(Path.Combine(folder, name)))
                || Directory.Exists(Path.Combine(folder, "weights"))

            if taken && not force then
                Error [ Fault.Occupied folder ]
            else
                Directory.CreateDirectory folder |> ignore
                let probe = Path.Combine(folder, $".{Guid.NewGuid():N}")
                File.WriteAllText(probe, "")
                File.Delete probe

                for name in ours do
                    File.Delete(Path.Combine(folder, name))

                let weights = Path.Combine(folder, "weights")

                if Directory.Exists weights then
                    Directory.Delete(weights, true)

                Ok()
        with
        | :? IOException
        | :? UnauthorizedAccessException as e -> Error [ Fault.Unwritable(folder, e.Message) ]

    let private saveWeights (request: Request) (plan: Plan) (seed: int) (step: Step) (heads: Heads) : unit =
        let folder = Path.Combine(request.Out, "weights", folderName plan.Label, $"seed-{seed}", $"step-{step.Index:D2}")

        Directory.CreateDirectory folder |> ignore

        for KeyValue(m, w) in heads do
            use cpu = w.cpu ()
            Npy.write (Path.Combine(folder, m.Name + ".npy")) cpu |> Check.get

    let private rowsOf (request: Request) (plan: Plan) (seed: int) (outcome: Outcome) : Row list =
        [ for r in outcome.Readings ->
              { Stream = request.Stream.Name
                Method = plan.Label
                Seed = seed
                Step = string r.Step
                Task = string r.Task
                Metric = r.Metric
                Value = r.Value } ]

    let private lossRows (plan: Plan) (seed: int) (outcome: Outcome) : LossRow list =
        [ for step, epoch, loss in outcome.Losses ->
              { Method = plan.Label
                Seed = seed
                Step = step
                Epoch = epoch
                Loss = loss } ]

    let private spectrumRows (plan: Plan) (seed: int) (outcome: Outcome) : SpectrumRow list =
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

    /// Runs every plan with every seed and writes `results.csv`, `losses.csv`, `spectra.csv` and `config.json` after each, so that
    /// what is finished can be read. A cell that diverges is recorded and the others go on.
    let run (created: DateTimeOffset) (tell: Progress -> unit) (request: Request) : Result<Summary, Fault list> =
        let cost (p: Plan) =
            match p.Method.Curriculum with
            | Curriculum.Never -> 0L
            | _ -> Loop.updates p.Settings [ for s in request.Stream.Steps -> int64 s.Train.Length ]

        let total = request.Plans |> List.sumBy cost |> (*) (int64 request.Seeds.Length) |> max 1L
        let share updates = float updates / float total

        let write rows losses spectra failures =
            let writers =
                [ Results.write request.Out (rows @ Results.aggregates rows)
                  Results.writeLosses request.Out losses
                  Results.writeSpectra request.Out spectra
                  Results.writeWhole (Path.Combine(request.Out, "config.json")) (fun w ->
                      w.Write(Record.write created failures request)) ]

            Check.all writers |> Result.map ignore

        let cells =
            [ for plan in request.Plans do
                  for seed in request.Seeds -> plan, seed ]

        let rec go cells finished rows losses spectra failures =
            match cells with
            | [] ->
                Ok
                    { Rows = rows @ Results.aggregates rows
                      Failures = failures }
            | (plan, seed) :: rest ->
                tell (Progress.Began(plan, seed, share finished))

                let sofar = ref 0L

                let within event =
                    match event with
                    | Event.Epoch(_, _, _, updates, _) -> sofar.Value <- updates
                    | Event.Remark _ -> ()

                    tell (Progress.Within(plan, seed, event, share (finished + sofar.Value)))

                let save step heads =
                    if request.SaveWeights then
                        saveWeights request plan seed step heads

                let result = Train.run request.Stream request.Device request.Split seed within save plan
                let finished = finished + cost plan

                let rows, losses, spectra, failures, fault =
                    match result with
                    | Ok outcome ->
                        let spectra = if seed = request.Seeds.Head then spectra @ spectrumRows plan seed outcome else spectra
                        rows @ rowsOf request plan seed outcome, losses @ lossRows plan seed outcome, spectra, failures, None
                    | Error faults ->
                        rows, losses, spectra, failures @ [ for f in faults -> plan.Label, seed, f.Message ], List.tryHead faults

                tell (Progress.Ended(plan, seed, fault))
                write rows losses spectra failures |> Result.bind (fun () -> go rest finished rows losses spectra failures)

        go cells 0L [] [] [] []
