namespace Cmcl

open System
open System.Collections.Concurrent
open System.IO
open System.Runtime.ExceptionServices
open System.Threading.Tasks
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
    /// A checkpoint could not be written, or one that is there could not be read; the run goes on.
    | Unkept of plan: Plan * seed: int * fault: Fault
    /// It goes on from a checkpoint after so many steps.
    | Resumed of plan: Plan * seed: int * steps: int

/// What an experiment left in its folder.
type Finished =
    {
        Rows: Row list
        Failures: (string * int * string) list
        /// Cells, a method with a seed each, that were left before their end.
        Left: int
    }

/// How an experiment is kept from being lost.
type Safekeeping =
    {
        Cadence: Cadence
        /// Checkpoints that are kept of each cell.
        Keep: int
        /// Asked again and again: whether to leave everything as it is now.
        Leave: unit -> bool
        /// Whether to go on from the checkpoints that are there.
        Resume: bool
    }

[<RequireQualifiedAccess>]
module Safekeeping =
    let none: Safekeeping =
        { Cadence = Cadence.Never
          Keep = 1
          Leave = fun () -> false
          Resume = false }

/// Plans × seeds over a stream, with the results in a folder.
[<RequireQualifiedAccess>]
module Experiment =
    /// Files and folders that a run writes.
    let private ours =
        [ "results.csv"; "losses.csv"; "spectra.csv"; "monitor.csv"; "config.json"; "report.html" ], [ "weights"; "checkpoints" ]

    /// A label as a folder's name.
    let private folderName (label: string) =
        String.map (fun c -> if Char.IsAsciiLetterOrDigit c || c = '-' || c = '.' then c else '_') label

    /// Makes sure that results can go to the folder: it is there or can be made, can be written to, and holds none of these files and
    /// folders unless they may be replaced. Nothing of the user's own in it is touched.
    let claim (files: string list, folders: string list) (force: bool) (folder: string) : Result<unit, Fault list> =
        let within name = Path.Combine(folder, name)

        try
            let taken = files |> List.exists (within >> File.Exists) || folders |> List.exists (within >> Directory.Exists)

            if taken && not force then
                Error [ Fault.Occupied folder ]
            else
                Directory.CreateDirectory folder |> ignore
                let probe = within $".{Guid.NewGuid():N}"
                File.WriteAllText(probe, "")
                File.Delete probe

                for name in files do
                    File.Delete(within name)

                for name in folders do
                    if Directory.Exists(within name) then
                        Directory.Delete(within name, true)

                Ok()
        with
        | :? IOException
        | :? UnauthorizedAccessException as e -> Error [ Fault.Unwritable(folder, e.Message) ]

    /// `claim` for what a run writes.
    let prepare (force: bool) (folder: string) : Result<unit, Fault list> = claim ours force folder

    /// The folder of a results folder that `--save-weights` fills for a method and a seed; in it `step-01` and so on.
    let weightsFolder (results: string) (label: string) (seed: int) : string =
        Path.Combine(results, "weights", folderName label, $"seed-{seed}")

    let private saveWeights (request: Request) (plan: Plan) (seed: int) (step: Step) (heads: Heads) : unit =
        let folder = Path.Combine(weightsFolder request.Out plan.Label seed, $"step-{step.Index:D2}")

        Directory.CreateDirectory folder |> ignore

        for KeyValue(m, w) in heads do
            use cpu = w.cpu ()
            Npy.write (Path.Combine(folder, m.Name + ".npy")) cpu |> Check.get

    /// A run's figures as rows of `results.csv`, without the aggregates (`Results.aggregates` makes those).
    let rows (stream: Cmcl.Stream) (plan: Plan) (seed: int) (outcome: Outcome) : Row list =
        [ for r in outcome.Readings ->
              { Stream = stream.Name
                Method = plan.Label
                Seed = seed
                Step = string r.Step
                Task = string r.Task
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

    let private monitorRow (plan: Plan) (seed: int) (r: MonitorReading) : MonitorRow =
        { Method = plan.Label
          Seed = seed
          Step = r.Step
          Update = r.Update
          Task = r.Task
          Rms = r.Drift.Rms
          Relative = r.Drift.Relative }

    /// What the cells so far have left.
    type private Tables =
        { Figures: Row list
          Losses: LossRow list
          Spectra: SpectrumRow list
          Monitor: MonitorRow list
          Failures: (string * int * string) list }

    let private add
        (request: Request)
        (plan: Plan)
        (seed: int)
        (monitored: MonitorReading seq)
        (result: Result<Outcome, Fault list>)
        (tables: Tables)
        : Tables =
        match result with
        | Ok outcome ->
            { tables with
                Monitor = tables.Monitor @ [ for r in monitored -> monitorRow plan seed r ]
                Figures = tables.Figures @ rows request.Stream plan seed outcome
                Losses = tables.Losses @ lossRows plan seed outcome
                Spectra = tables.Spectra @ (if seed = request.Seeds.Head then spectrumRows plan seed outcome else []) }
        | Error faults ->
            { tables with
                Failures = tables.Failures @ [ for f in faults -> plan.Label, seed, f.Message ] }

    let private checkpoints (out: string) : string = Path.Combine(out, "checkpoints")

    /// Deletes the checkpoints of a results folder, where all is done.
    let forget (out: string) : unit =
        if Directory.Exists(checkpoints out) then
            Directory.Delete(checkpoints out, true)

    let private writeRecord (created: DateTimeOffset) (left: int) (request: Request) (tables: Tables) : Result<unit, Fault list> =
        Results.writeWhole (Path.Combine(request.Out, "config.json")) (fun w ->
            w.Write(Record.write created left tables.Failures request))

    let private write (created: DateTimeOffset) (left: int) (request: Request) (tables: Tables) : Result<unit, Fault list> =
        [ Results.write request.Out (tables.Figures @ Results.aggregates tables.Figures)
          Results.writeLosses request.Out tables.Losses
          Results.writeSpectra request.Out tables.Spectra
          if request.Monitor.IsSome then
              Results.writeMonitor request.Out tables.Monitor
          writeRecord created left request tables ]
        |> Check.all
        |> Result.map ignore

    /// Updates that a plan takes with one seed.
    let private cost (request: Request) (plan: Plan) : int64 =
        match plan.Method.Curriculum with
        | Curriculum.Never -> 0L
        | _ -> Loop.updates plan.Settings [ for s in request.Stream.Steps -> int64 s.Train.Length ]

    /// Does the work at every place in order, so many at a time; with one, on this thread.
    let internal inTurn (jobs: int) (count: int) (work: int -> unit) : unit =
        if jobs <= 1 then
            Seq.iter work (seq { 0 .. count - 1 })
        else
            let places = Partitioner.Create(seq { 0 .. count - 1 }, EnumerablePartitionerOptions.NoBuffering)

            try
                Parallel.ForEach(places, ParallelOptions(MaxDegreeOfParallelism = jobs), work) |> ignore
            with :? AggregateException as e ->
                ExceptionDispatchInfo.Capture(e.Flatten().InnerExceptions[0]).Throw()

    /// Runs every plan with every seed, `Jobs` of these cells side by side, and writes `results.csv`, `losses.csv`, `spectra.csv`,
    /// `config.json` and with a monitor `monitor.csv` after each, so that what is finished can be read. A cell that diverges is recorded and
    /// the others go on. What a cell gives does not depend on those beside it. `tell` is called by one at a time. With checkpoints, under
    /// `checkpoints` in the folder until all is done, a cell that is over is not run again, and one that was left goes on from there.
    let runSafely
        (safekeeping: Safekeeping)
        (created: DateTimeOffset)
        (tell: Progress -> unit)
        (request: Request)
        : Result<Finished, Fault list> =
        let cells =
            [| for plan in request.Plans do
                   for seed in request.Seeds -> plan, seed |]

        let total = request.Plans |> List.sumBy (cost request) |> (*) (int64 request.Seeds.Length) |> max 1L
        let updates = Array.zeroCreate<int64> cells.Length
        let ended = Array.create cells.Length None
        let unwritten = ref []
        let gate = obj ()
        let share () = float (Array.sum updates) / float total

        let empty =
            { Figures = []
              Losses = []
              Spectra = []
              Monitor = []
              Failures = [] }

        let tables () =
            Seq.zip cells ended
            |> Seq.fold
                (fun tables ((plan, seed), ended) ->
                    match ended with
                    | Some(monitored, result) -> add request plan seed monitored result tables
                    | None -> tables)
                empty

        let observer (place: int) (monitored: ResizeArray<MonitorReading>) : Observer =
            let plan, seed = cells[place]

            let within event =
                lock gate (fun () ->
                    match event with
                    | Event.Epoch(_, _, _, sofar, _) -> updates[place] <- sofar
                    | Event.Remark _ -> ()

                    tell (Progress.Within(plan, seed, event, share ())))

            let save step heads =
                if request.SaveWeights then
                    saveWeights request plan seed step heads

            { Tell = within
              Save = save
              Begin =
                match request.Monitor with
                | Some n -> Monitor.every n monitored.Add
                | None -> Observer.silent.Begin }

        let left () = ended |> Array.filter Option.isNone |> Array.length

        let cell (place: int) =
            let plan, seed = cells[place]
            use scope = torch.NewDisposeScope()

            let kept =
                CheckpointFolder.Of(
                    checkpoints request.Out,
                    request.Stream,
                    plan,
                    seed,
                    request.Split,
                    request.Device,
                    safekeeping.Keep
                )

            let unkept faults =
                for fault in faults do
                    lock gate (fun () -> tell (Progress.Unkept(plan, seed, fault)))

            let from =
                if safekeeping.Resume then
                    match kept.Latest() with
                    | Ok(found, unread) ->
                        unkept unread
                        Ok found
                    | Error faults -> Error faults
                else
                    Ok None

            let monitored =
                match from with
                | Ok(Some checkpoint) -> ResizeArray checkpoint.Monitor
                | _ -> ResizeArray()

            let keep reached =
                match kept.Write { Reached = reached; Monitor = List.ofSeq monitored } with
                | Ok() -> ()
                | Error faults -> unkept faults

            let trained () =
                let keeper = Cadence.keeper safekeeping.Cadence safekeeping.Leave (Reached.Midst >> keep)

                let resume from =
                    Train.resume request.Stream request.Device request.Split seed (observer place monitored) keeper from plan

                match from with
                | Error faults -> Error faults
                | Ok None -> resume None
                | Ok(Some { Reached = Reached.End outcome }) -> Ok(Ending.Over outcome)
                | Ok(Some { Reached = Reached.Midst state }) ->
                    lock gate (fun () -> tell (Progress.Resumed(plan, seed, state.Heads.Length - 1)))
                    resume (Some state)

            let over (result: Result<Cmcl.Outcome, Fault list>) =
                let fault =
                    match result with
                    | Ok _ -> None
                    | Error faults -> List.tryHead faults

                lock gate (fun () ->
                    updates[place] <- cost request plan
                    ended[place] <- Some(monitored, result)
                    tell (Progress.Ended(plan, seed, fault))

                    match write created (left ()) request (tables ()) with
                    | Ok() -> ()
                    | Error faults -> unwritten.Value <- faults)

            if unwritten.Value.IsEmpty && not (safekeeping.Leave()) then
                lock gate (fun () -> tell (Progress.Began(plan, seed, share ())))

                match trained () with
                | Ok Ending.Left -> ()
                | Ok(Ending.Over outcome) ->
                    if safekeeping.Cadence <> Cadence.Never then
                        keep (Reached.End outcome)

                    over (Ok outcome)
                | Error faults -> over (Error faults)

        match writeRecord created cells.Length request empty with
        | Ok() -> inTurn request.Jobs cells.Length cell
        | Error faults -> unwritten.Value <- faults

        if left () = 0 then
            forget request.Out

        match unwritten.Value with
        | [] ->
            let tables = tables ()

            Ok
                { Rows = tables.Figures @ Results.aggregates tables.Figures
                  Failures = tables.Failures
                  Left = left () }
        | faults -> Error faults
