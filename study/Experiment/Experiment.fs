namespace Cmcl

open System
open System.Collections.Concurrent
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
    /// It is over; the fault, if it diverged or broke off.
    | Ended of plan: Plan * seed: int * fault: Fault option
    /// A checkpoint could not be written, read or deleted; the run goes on.
    | Unkept of plan: Plan * seed: int * fault: Fault
    /// It goes on from a checkpoint after so many steps.
    | Resumed of plan: Plan * seed: int * steps: int

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
    /// `config.json` and with a monitor `monitor.csv` now and then and at the end, so that what is finished can be read. A cell that diverges or
    /// breaks off by whatever exception is recorded, and the others go on. What a cell gives does not depend on those beside it. `tell` is called by one
    /// at a time; what it or `Leave` raises is raised when all that is over is written. With checkpoints, under
    /// `checkpoints` in the folder until all is done, a cell that is over is not run again, and one that was left goes on from there. When tables
    /// cannot be written, nothing more is begun. Faults: the folder cannot be written to at the beginning.
    let runSafely
        (folder: FolderLock)
        (safekeeping: Safekeeping)
        (created: DateTimeOffset)
        (tell: Progress -> unit)
        (request: Request)
        : Result<Finished, Fault list> =
        let cells =
            [| for plan in request.Plans do
                   for seed in request.Seeds -> plan, seed |]

        let ledger = Ledger(folder, created, request, cells)
        let gate = obj ()
        let outside = Callbacks(tell, safekeeping.Leave)
        let leave () = not ledger.Unwritten.IsEmpty || outside.Leave()

        let observer (place: int) (monitored: ResizeArray<MonitorReading>) : Observer =
            let plan, seed = cells[place]

            let within event =
                lock gate (fun () ->
                    match event with
                    | Event.Epoch(_, _, _, sofar, _) -> ledger.Reach(place, sofar)
                    | Event.Remark _ -> ()

                    outside.Tell(Progress.Within(plan, seed, event, ledger.Share)))

            { Tell = within
              Save =
                if request.SaveWeights then
                    ResultsFolder.saveWeights request.Out plan.Label seed
                else
                    Observer.silent.Save
              Begin =
                match request.Monitor with
                | Some n -> Monitor.every n monitored.Add
                | None -> Observer.silent.Begin }

        /// None if it was left.
        let run (place: int) : Result<Lines option, Fault list> =
            let plan, seed = cells[place]
            use scope = torch.NewDisposeScope()

            let kept =
                CheckpointFolder.Of(
                    ResultsFolder.checkpoints request.Out,
                    request.Stream,
                    plan,
                    seed,
                    request.Split,
                    request.Device,
                    safekeeping.Keep
                )

            let unkept faults =
                for fault in faults do
                    lock gate (fun () -> outside.Tell(Progress.Unkept(plan, seed, fault)))

            let go (from: Checkpoint option) =
                let monitored =
                    ResizeArray(
                        match from with
                        | Some checkpoint -> checkpoint.Monitor
                        | None -> []
                    )

                let keep reached =
                    if not folder.IsAnothers then
                        kept.Write { Reached = reached; Monitor = List.ofSeq monitored } |> Result.defaultWith unkept

                let train state =
                    let keeper = Cadence.keeper safekeeping.Cadence leave (Reached.Midst >> keep)

                    Train.resume request.Stream request.Device request.Split seed (observer place monitored) keeper state plan
                    |> Result.map (fun ending ->
                        match ending with
                        | Ending.Left -> None
                        | Ending.Over outcome ->
                            if safekeeping.Cadence <> Cadence.Never then
                                keep (Reached.End outcome)

                            Some(Lines.ofOutcome request plan seed monitored outcome))

                match from with
                | Some { Reached = Reached.End outcome } -> Ok(Some(Lines.ofOutcome request plan seed monitored outcome))
                | Some { Reached = Reached.Midst state } ->
                    lock gate (fun () -> outside.Tell(Progress.Resumed(plan, seed, state.Heads.Length - 1)))
                    train (Some state)
                | None -> train None

            if safekeeping.Resume then
                kept.Latest()
                |> Result.bind (fun (found, unread) ->
                    unkept unread
                    go found)
            else
                go None

        let cell (place: int) =
            let plan, seed = cells[place]

            let finish lines fault =
                lock gate (fun () ->
                    ledger.Finish(place, lines)
                    outside.Tell(Progress.Ended(plan, seed, fault)))

            if not (leave ()) then
                lock gate (fun () -> outside.Tell(Progress.Began(plan, seed, ledger.Share)))

                match Check.guarded $"{plan.Label} (seed {seed})" (fun () -> run place) with
                | Ok None -> ()
                | Ok(Some lines) -> finish lines None
                | Error faults -> finish (Lines.failed plan seed faults) (List.tryHead faults)

        let begun = if request.SaveWeights then ResultsFolder.makeWeights request.Out else Ok()

        begun
        |> Result.bind (fun () -> Lines.writeRecord created cells.Length request [])
        |> Result.map (fun () ->
            inTurn request.Jobs cells.Length cell
            ledger.Write()
            let finished = ledger.Finished

            if finished.Left + finished.Broken = 0 && finished.Unwritten.IsEmpty then
                match ResultsFolder.forget request.Out with
                | Ok() -> ()
                | Error faults ->
                    let plan, seed = Array.last cells

                    for fault in faults do
                        outside.Tell(Progress.Unkept(plan, seed, fault))

            outside.Rethrow()
            finished)
