namespace Cmcl

open System
open System.Collections.Concurrent
open System.Collections.Generic
open System.Runtime.ExceptionServices
open System.Threading
open System.Threading.Tasks

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
    let private inTurn (sideBySide: int) (work: int -> unit) (places: int[]) : unit =
        if sideBySide <= 1 then
            Seq.iter work places
        else
            let places = Partitioner.Create(places, EnumerablePartitionerOptions.NoBuffering)

            try
                Parallel.ForEach(places, ParallelOptions(MaxDegreeOfParallelism = sideBySide), work) |> ignore
            with :? AggregateException as e ->
                ExceptionDispatchInfo.Capture(e.Flatten().InnerExceptions[0]).Throw()

    /// How often it is looked what has become of cells that other processes run.
    let private look = TimeSpan.FromSeconds 0.5

    /// Runs every job, so many side by side. What is finished is taken from its store first. One that diverges or breaks off by whatever exception has
    /// ended; the others go on. What a job gives does not depend on those beside it; of several with one identity the others run after the
    /// first, and find its result. Jobs that other processes run are waited for, and run here if those die. `stop` is
    /// asked before each job and after each update. `ended` is called with the place of a job that has ended and what became of it, by one thread at
    /// a time and before that is told; it returns why results cannot be written, if so: no more jobs begin then.
    let run
        (settings: JobSettings)
        (sideBySide: int)
        (stop: unit -> bool)
        (tell: StudyEvent -> unit)
        (ended: int -> CellEnd -> CellRecord option -> Fault list)
        (jobs: Job[])
        : unit =
        let settings =
            { settings with
                Jobs = sideBySide
                IsAlone = sideBySide <= 1 }

        let gate = obj ()
        let unwritten = ref false
        let cells = jobs |> Array.map _.Cell

        let within place event = lock gate (fun () -> tell (StudyEvent.Cell(cells[place], event)))

        let over (place: int) (how: CellEnd, record: CellRecord option) : unit =
            lock gate (fun () ->
                let faults = ended place how record
                let news = if unwritten.Value then [] else faults
                unwritten.Value <- unwritten.Value || not faults.IsEmpty
                tell (StudyEvent.Cell(cells[place], CellEvent.Ended how))
                List.iter (StudyEvent.Unwritten >> tell) news)

        let leave () = unwritten.Value || stop ()
        let elsewhere = ConcurrentQueue<int>()

        let work place =
            if not (leave ()) then
                match Job.run settings stop (within place) jobs[place] with
                | CellEnd.Stopped, _ -> within place (CellEvent.Ended CellEnd.Stopped)
                | CellEnd.Elsewhere, _ -> elsewhere.Enqueue place
                | result -> over place result

        /// Is it finished, which is told then?
        let isOver (place: int) : bool =
            match Job.finished settings jobs[place] with
            | Ok(Some record) ->
                over place (CellEnd.ofRecord true record, Some record)
                true
            | Ok None
            | Error _ -> false

        let identities = jobs |> Array.map (Job.identity settings.Protocol)
        let isFree place = not (Store.isTaken (settings.Store jobs[place]) identities[place])

        /// Waits until no other process has one of these: those that it has not finished.
        let rec await (places: int[]) : int[] =
            let left = places |> Array.filter (isOver >> not)

            if left.Length = 0 || leave () || Array.exists isFree left then
                left
            else
                Thread.Sleep look
                await left

        let rec others () =
            let places = elsewhere.ToArray()
            elsewhere.Clear()

            if places.Length > 0 && not (leave ()) then
                await places |> inTurn sideBySide work
                others ()

        let seen = HashSet<string>()
        let left = [| 0 .. jobs.Length - 1 |] |> Array.filter (isOver >> not)

        // Two jobs of one identity would write to one folder of checkpoints.
        let firsts, second = left |> Array.partition (fun place -> seen.Add identities[place])
        inTurn sideBySide work firsts
        inTurn sideBySide work second
        others ()
