namespace Cmcl

open System.Diagnostics
open TorchSharp

/// A job's stream and method as the user wrote them, from which another process makes them.
type AsWritten =
    {
        /// The stream as the user named it (`Catalogue.find`).
        Source: string
        /// The method as written.
        Method: string
        /// Options given for every method that takes them, as far as they change something for this one.
        Given: (string * string) list
    }

/// One cell of a study as something to run: a method with all its options, a seed, and a stream whose steps stand in one order; with the rows, the
/// device and the threads that decide its figures beside them.
type Job =
    {
        /// With its steps in that order.
        Stream: Cmcl.Stream
        /// 0 for the stream's own order.
        Order: int
        Plan: Plan
        Seed: int
        Protocol: Protocol
        /// None where the stream or the method is known to this process alone.
        AsWritten: AsWritten option
    }

    member j.Cell: Cell =
        { Stream = j.Stream.Name
          Method = j.Plan.Label
          Order = j.Order
          Seed = j.Seed }

    /// Whether its method is the registry's. The code of another is known to nobody, so that what it left is never taken for what it would leave.
    member internal j.IsRegistered: bool = List.contains j.Plan.Method.Name Registry.names

    /// Its method as the user wrote it, where that is known.
    member j.Written: string = j.AsWritten |> Option.map _.Method |> Option.defaultValue j.Plan.Label

/// How often a job's state is written.
type Checkpointing =
    {
        Cadence: Cadence
        /// Checkpoints that are kept of each job.
        Keep: int
    }

[<RequireQualifiedAccess>]
module Checkpointing =
    /// No checkpoints.
    let none: Checkpointing = { Cadence = Cadence.Never; Keep = 1 }

    /// Every half minute: what scripts and workers use.
    let auto: Checkpointing = { Cadence = Cadence.Auto; Keep = 1 }

/// What jobs run on, and where what they leave goes.
type internal JobSettings =
    {
        Checkpointing: Checkpointing
        Store: Job -> Store
        /// Why nothing may be written there any more, if so.
        Gone: unit -> Fault list
        /// Jobs side by side, for the record.
        Jobs: int
        /// Whether this process runs nothing beside a job.
        IsAlone: bool
        /// Whether nothing is missing that a finished job leaves beside its result.
        IsComplete: Job -> bool
        /// Called with a job's heads after each of its steps.
        Save: Job -> Step -> Heads -> unit
    }

[<RequireQualifiedAccess>]
module internal JobSettings =
    /// Without checkpoints; results in a store, but for those of methods that are not the registry's, which stay in memory.
    let on (store: Store) : JobSettings =
        let passing = Store.memory ()

        { Checkpointing = Checkpointing.none
          Store = fun job -> if job.IsRegistered then store else passing
          Gone = fun () -> []
          Jobs = 1
          IsAlone = true
          IsComplete = fun _ -> true
          Save = fun _ _ _ -> () }

[<RequireQualifiedAccess>]
module Job =
    /// Whose result and whose state: everything that decides what the job leaves, in words (`Identity.hash` names its files).
    let identity (job: Job) : string = Identity.of' job.Protocol job.Stream job.Plan job.Seed

    /// Updates of training, all steps together.
    let work (job: Job) : int64 = Train.work job.Stream job.Plan

    /// What is finished of a job. Fault: `Unreadable`; such a job is run again.
    let internal finished (s: JobSettings) (job: Job) : Result<CellRecord option, Fault list> =
        Store.find (s.Store job) (identity job) |> Result.map (Option.filter (fun _ -> s.IsComplete job))

    /// What a run tells, as an event of the job's cell.
    let internal ofRun (job: Job) (event: Event) : CellEvent =
        let progress (step: Step) epoch (sofar: int64) (total: int64) =
            CellEvent.Progress
                { Step = step.Index
                  Steps = job.Stream.Steps.Length
                  Name = step.Name
                  Epoch = epoch
                  Share = float sofar / float (max 1L total) }

        match event with
        | Event.Epoch(step, epoch, loss, sofar, total) ->
            let epoch =
                { Number = epoch
                  Of = job.Plan.Settings.Epochs
                  Loss = loss }

            progress step (Some epoch) sofar total
        | Event.Solved(step, sofar, total) -> progress step None sofar total
        | Event.Remark(step, text) -> CellEvent.Remark(step.Index, step.Name, text)

    let private train
        (s: JobSettings)
        (stop: unit -> bool)
        (tell: CellEvent -> unit)
        (job: Job)
        (folder: CheckpointFolder option)
        : Result<Ending * MonitorMeasurement list, Fault list> =
        use scope = torch.NewDisposeScope()
        let warn (faults: Fault list) = List.iter (CellEvent.Warning >> tell) faults
        let found, unread = folder |> Option.map _.Latest() |> Option.defaultValue (None, [])
        warn unread

        let monitored = ResizeArray(found |> Option.map _.Monitor |> Option.defaultValue [])

        match found with
        | None -> ()
        | Some { State = state } ->
            let steps = state.Heads.Length - 1
            tell (CellEvent.Resumed steps)

            // Whoever took the checkpoint may have saved none of these.
            for step, heads in Seq.zip (List.truncate steps job.Stream.Steps) state.Heads.Tail do
                s.Save job step heads

        let write (state: RunState) =
            match folder with
            | Some folder when (s.Gone()).IsEmpty ->
                folder.Write { State = state; Monitor = List.ofSeq monitored } |> Result.defaultWith warn
            | _ -> ()

        let observer =
            { Tell = ofRun job >> tell
              Save = s.Save job
              Begin =
                match job.Protocol.Monitor with
                | Some n -> Monitor.every n monitored.Add
                | None -> Observer.silent.Begin }

        let cadence = if folder.IsNone then Cadence.Never else s.Checkpointing.Cadence
        let checkpointer = Cadence.checkpointer cadence stop write
        let state = found |> Option.map _.State

        Train.resume job.Stream job.Protocol.Device job.Protocol.Split job.Seed observer checkpointer state job.Plan
        |> Result.map (fun ending -> ending, List.ofSeq monitored)

    /// Runs a job, from its last checkpoint where there is one, unless its result is there or another process has it. One policy for every door: a
    /// checkpoint that cannot be written or read is a warning, and the job goes on; so is a result that cannot be read; an exception ends the
    /// job alone; a result that cannot be written ends the study. `stop` is asked after every update.
    let internal run (s: JobSettings) (stop: unit -> bool) (tell: CellEvent -> unit) (job: Job) : CellEnd * CellRecord option =
        let store, identity = s.Store job, identity job
        let warn (faults: Fault list) = List.iter (CellEvent.Warning >> tell) faults
        let clock = Stopwatch()
        let mutable unwritten: CellRecord option = None

        let record result : CellRecord =
            { Result = result
              Seconds = clock.Elapsed.TotalSeconds
              Memory = PeakMemory.read () }

        let over (record: CellRecord) : Result<CellEnd * CellRecord option, Fault list> =
            let stored =
                { Identity = identity
                  Cell = job.Cell
                  Machine =
                    (match Record.machine s.Jobs with
                     | null -> "{}"
                     | machine -> machine.ToJsonString())
                  Record = record }

            match s.Gone() with
            | [] -> Store.finish store stored
            | faults -> Error faults
            |> Result.map (fun () -> CellEnd.ofRecord false record, Some record)
            |> Result.mapError (fun faults ->
                unwritten <- Some record
                faults)

        let work () : Result<CellEnd * CellRecord option, Fault list> =
            // Another process may just have finished it.
            match finished s job with
            | Ok(Some record) -> Ok(CellEnd.ofRecord true record, Some record)
            | found ->
                Result.mapError warn found |> ignore
                tell CellEvent.Started
                torch.set_num_threads job.Protocol.Threads

                if s.IsAlone then
                    PeakMemory.restart ()

                clock.Start()
                let folder = Store.checkpoints store identity job.Protocol.Device s.Checkpointing.Keep

                match Check.guarded job.Cell.Name (fun () -> train s stop tell job folder) with
                | Ok(Ending.Stopped, _) -> Ok(CellEnd.Stopped, None)
                | Ok(Ending.Finished outcome, monitor) -> over (record (Ok { Outcome = outcome; Monitor = monitor }))
                | Error faults when faults |> List.forall _.IsDiverged -> over (record (Error (Fault.Several faults).Message))
                | Error faults -> Error faults

        match s.Gone() with
        | [] ->
            match Store.holding store identity work with
            | Ok None -> CellEnd.Elsewhere, None
            | Ok(Some(Ok ended)) -> ended
            | Ok(Some(Error faults)) when unwritten.IsSome -> CellEnd.Unwritten faults, unwritten
            | Ok(Some(Error faults)) -> CellEnd.Broken faults, None
            | Error faults -> CellEnd.Unwritten faults, None
        | faults -> CellEnd.Unwritten faults, None
