namespace Cmcl

open System
open System.Collections.Concurrent
open System.Collections.Generic
open System.Runtime.ExceptionServices
open System.Threading.Tasks
open TorchSharp

/// What a study reports while it runs.
[<RequireQualifiedAccess>]
type StudyEvent =
    | Began of jobs: int * sideBySide: int
    /// A job begins; the share of all work (`Train.work`) that is done.
    | Started of job: Job * share: float
    /// It resumes from a checkpoint taken after this many steps.
    | Resumed of job: Job * steps: int
    /// An event while it learns, and the share of all work that is done.
    | Progress of job: Job * event: Event * share: float
    /// A checkpoint could not be written, read or deleted; the job goes on.
    | Warning of job: Job * fault: Fault
    /// A job ended: whether its result was there already and was only read, and why it failed, if it did.
    | Ended of job: Job * before: bool * fault: Fault option
    /// Results cannot be written, so no more jobs begin; what has finished is in the result.
    | Unwritten of fault: Fault
    /// The study was stopped with this many jobs unfinished. The last event, if it comes.
    | Stopped of unfinished: int

/// Functions that a caller passed in: `tell` is called by one thread at a time, `stop` by every thread that trains. What one of them raises is no
/// fault of the job that happens to run: from then on nothing is told and every job is to stop, and at the end `Rethrow` raises it.
type internal Callbacks(tell: StudyEvent -> unit, stop: unit -> bool) =
    let gate = obj ()
    let mutable raised: ExceptionDispatchInfo option = None

    let call (otherwise: 'a) (act: unit -> 'a) : 'a =
        if raised.IsSome then
            otherwise
        else
            try
                act ()
            with e ->
                raised <- Some(ExceptionDispatchInfo.Capture e)
                otherwise

    member _.Tell(event: StudyEvent) : unit = lock gate (fun () -> call () (fun () -> tell event))
    member _.Stop() : bool = call true stop
    member _.Rethrow() : unit = raised |> Option.iter _.Throw()

/// The engine that runs a study's jobs in this process.
[<RequireQualifiedAccess>]
module internal InProcess =
    /// Does the work at every place in order, so many at a time; with one, on this thread.
    let private inTurn (sideBySide: int) (count: int) (work: int -> unit) : unit =
        if sideBySide <= 1 then
            Seq.iter work (seq { 0 .. count - 1 })
        else
            let places = Partitioner.Create(seq { 0 .. count - 1 }, EnumerablePartitionerOptions.NoBuffering)

            try
                Parallel.ForEach(places, ParallelOptions(MaxDegreeOfParallelism = sideBySide), work) |> ignore
            with :? AggregateException as e ->
                ExceptionDispatchInfo.Capture(e.Flatten().InnerExceptions[0]).Throw()

    /// Runs every job, so many side by side. One that diverges or breaks off by whatever exception has ended; the others go on. What a job gives
    /// does not depend on those beside it; of several with one identity the others run after the first, and find its result if that is kept. `stop` is
    /// asked before each job and after each update, `refuse` before each job: whether no more may begin. `ended` is called with the place of a
    /// job that has ended and what became of it, by one thread at a time and before that is told; it returns why results cannot be written, if so.
    let run
        (settings: JobSettings)
        (sideBySide: int)
        (threads: int option)
        (refuse: unit -> bool)
        (stop: unit -> bool)
        (tell: StudyEvent -> unit)
        (ended: int -> Result<JobResult, Fault list> -> Fault list)
        (jobs: Job[])
        : unit =
        let gate = obj ()
        let all = jobs |> Array.map (fun job -> Train.work job.Stream job.Plan)
        let total = float (max 1L (Array.sum all))
        let done' = Array.zeroCreate<int64> jobs.Length
        let sum = ref 0L
        let share () = float sum.Value / total

        let reach place count =
            sum.Value <- sum.Value + count - done'[place]
            done'[place] <- count

        let within place event =
            lock gate (fun () ->
                let job = jobs[place]

                match event with
                | JobEvent.Resumed steps -> tell (StudyEvent.Resumed(job, steps))
                | JobEvent.Warning fault -> tell (StudyEvent.Warning(job, fault))
                | JobEvent.Training training ->
                    match training with
                    | Event.Epoch(_, _, _, sofar, _)
                    | Event.Solved(_, sofar, _) -> reach place sofar
                    | Event.Remark _ -> ()

                    tell (StudyEvent.Progress(job, training, share ())))

        let work place =
            let job = jobs[place]

            let go () =
                Option.iter torch.set_num_threads threads
                use scope = torch.NewDisposeScope()
                Job.run settings stop (within place) job

            if not (refuse () || stop ()) then
                lock gate (fun () -> tell (StudyEvent.Started(job, share ())))
                let result = Check.guarded job.Name go

                lock gate (fun () ->
                    let over (result: Result<JobResult, Fault list>) before fault =
                        reach place all[place]
                        let unwritten = ended place result
                        tell (StudyEvent.Ended(job, before, fault))
                        List.iter (StudyEvent.Unwritten >> tell) unwritten

                    match result with
                    | Ok JobEnd.Stopped -> ()
                    | Ok(JobEnd.Finished r) -> over (Ok r) r.Before None
                    | Error faults -> over (Error faults) false (List.tryHead faults))

        let identity (job: Job) = Identity.of' "" job.Stream job.Plan job.Seed settings.Split settings.Device.``type``
        let seen = HashSet<string>()

        // Two jobs of one identity would write to one folder of checkpoints.
        let firsts, others = Array.init jobs.Length id |> Array.partition (fun place -> seen.Add(identity jobs[place]))

        for places in [ firsts; others ] do
            inTurn sideBySide places.Length (fun i -> work places[i])
