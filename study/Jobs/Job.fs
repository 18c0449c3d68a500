namespace Cmcl

open TorchSharp

/// One cell of a study as something to run: a method with all its options, a seed, and a stream whose steps stand in one order.
type Job =
    {
        /// With its steps in that order.
        Stream: Cmcl.Stream
        /// 0 for the stream's own order.
        Order: int
        Plan: Plan
        Seed: int
    }

    /// As messages name it: `dns (seed 0)`, `dns (seed 0, order 2)`.
    member j.Name: string =
        let order = if j.Order = 0 then "" else $", order {j.Order}"
        $"{j.Plan.Label} (seed {j.Seed}{order})"

/// What a job reports while it runs.
[<RequireQualifiedAccess>]
type JobEvent =
    /// It resumes from a checkpoint taken after this many steps.
    | Resumed of steps: int
    | Training of Event
    /// A checkpoint could not be written or read; the job goes on.
    | Warning of Fault

/// What a finished job leaves.
type JobResult =
    {
        Outcome: Outcome
        Monitor: MonitorMeasurement list
        /// It was there already and was only read: from an earlier run, or of a job with the same identity.
        Before: bool
        /// Why its result is not in its checkpoint folder, if it should be there.
        Unwritten: Fault list
    }

[<RequireQualifiedAccess>]
type JobEnd =
    | Finished of JobResult
    /// It was asked to stop; where it stands is in its last checkpoint, if it has any.
    | Stopped

/// How often a job's state is written, and what of it is read again.
type Checkpointing =
    {
        Cadence: Cadence
        /// Checkpoints that are kept of each job.
        Keep: int
        /// Whether to resume from the checkpoints that are there.
        Resume: bool
    }

[<RequireQualifiedAccess>]
module Checkpointing =
    /// No checkpoints.
    let none: Checkpointing = { Cadence = Cadence.Never; Keep = 1; Resume = false }

    /// Every half minute, resuming from the last: what scripts and workers use.
    let auto: Checkpointing = { Cadence = Cadence.Auto; Keep = 1; Resume = true }

/// What a job runs on, and where its state goes.
type internal JobSettings =
    {
        Device: torch.Device
        Split: Split
        Checkpointing: Checkpointing
        /// The folder that a job's checkpoints go to, in a folder of their own; None for no checkpoints.
        Folder: Job -> string option
        /// Whether that folder is still this process's to write to.
        Owned: unit -> bool
        /// Whether a finished job's result is a checkpoint, too, so that it need not run again.
        KeepsResult: bool
        /// How often the drift of old scores is read while training.
        Monitor: int64 option
        /// Called with a job's heads after each of its steps.
        Save: Job -> Step -> Heads -> unit
    }

[<RequireQualifiedAccess>]
module internal JobSettings =
    /// Without checkpoints, on a device, measured on a split.
    let on (device: torch.Device) (split: Split) : JobSettings =
        { Device = device
          Split = split
          Checkpointing = Checkpointing.none
          Folder = fun _ -> None
          Owned = fun () -> true
          KeepsResult = false
          Monitor = None
          Save = fun _ _ _ -> () }

[<RequireQualifiedAccess>]
module internal Job =
    /// Where its checkpoints are, if it has any.
    let checkpoints (s: JobSettings) (job: Job) : CheckpointFolder option =
        s.Folder job
        |> Option.map (fun folder ->
            CheckpointFolder.Of(folder, job.Stream, job.Plan, job.Seed, s.Split, s.Device, s.Checkpointing.Keep))

    /// Runs a job, from its last checkpoint where there is one. One policy for every door: a checkpoint that cannot be written or read is a
    /// warning, and the job goes on; one of another job is refused. `stop` is asked after every update. Faults: the job diverged, or its
    /// checkpoints are another job's.
    let run (s: JobSettings) (stop: unit -> bool) (tell: JobEvent -> unit) (job: Job) : Result<JobEnd, Fault list> =
        let folder = checkpoints s job
        let warn (faults: Fault list) = List.iter (JobEvent.Warning >> tell) faults

        let train (state: RunState option) (earlier: MonitorMeasurement list) =
            let monitored = ResizeArray earlier

            let write reached =
                match folder with
                | Some folder when s.Owned() -> folder.Write { Reached = reached; Monitor = List.ofSeq monitored }
                | _ -> Ok()

            let observer =
                { Tell = JobEvent.Training >> tell
                  Save = s.Save job
                  Begin =
                    match s.Monitor with
                    | Some n -> Monitor.every n monitored.Add
                    | None -> Observer.silent.Begin }

            let cadence = if folder.IsNone then Cadence.Never else s.Checkpointing.Cadence
            let checkpointer = Cadence.checkpointer cadence stop (Reached.Midst >> write >> Result.defaultWith warn)

            Train.resume job.Stream s.Device s.Split job.Seed observer checkpointer state job.Plan
            |> Result.map (fun ending ->
                match ending with
                | Ending.Stopped -> JobEnd.Stopped
                | Ending.Finished outcome ->
                    JobEnd.Finished
                        { Outcome = outcome
                          Monitor = List.ofSeq monitored
                          Before = false
                          Unwritten =
                            if s.KeepsResult && cadence <> Cadence.Never then
                                match write (Reached.End outcome) with
                                | Ok() -> []
                                | Error faults -> faults
                            else
                                [] })

        let latest () =
            match folder with
            | Some folder when s.Checkpointing.Resume -> folder.Latest()
            | _ -> Ok(None, [])

        latest ()
        |> Result.bind (fun (found, unread) ->
            warn unread

            match found with
            | Some { Reached = Reached.End outcome; Monitor = monitor } when s.KeepsResult ->
                Ok(
                    JobEnd.Finished
                        { Outcome = outcome
                          Monitor = monitor
                          Before = true
                          Unwritten = [] }
                )
            | Some { Reached = Reached.Midst state; Monitor = monitor } ->
                tell (JobEvent.Resumed(state.Heads.Length - 1))
                train (Some state) monitor
            | _ -> train None [])
