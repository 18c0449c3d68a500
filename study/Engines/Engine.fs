namespace Cmcl

open System
open System.Collections.Concurrent
open System.Collections.Generic
open System.Runtime.ExceptionServices
open System.Threading

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

/// What an engine asks and tells while it runs jobs, each known by its place.
type internal EngineCalls =
    {
        /// Asked before each job: is none to begin any more?
        Leave: unit -> bool
        /// Asked while a job runs: is it to stop?
        Stop: unit -> bool
        Tell: int -> CellEvent -> unit
        /// How a job ended, which tells it. `Elsewhere`: it is tried again when whoever has it is done.
        Ended: int -> CellEnd * CellRecord option -> unit
    }

/// A way to run jobs: in this process, in worker processes, on Slurm. `Engine.run` does what is the same for all.
type Engine =
    internal
        {
            Name: string
            /// Why it cannot run a job.
            Accepts: JobSettings -> Job -> Fault list
            /// Runs jobs, each at its place; fault: it cannot at all.
            Run: JobSettings -> EngineCalls -> (int * Job) list -> Result<unit, Fault list>
        }

[<RequireQualifiedAccess>]
module internal Engine =
    /// Why other processes cannot run a job: they have to find its stream and its method, and a folder for what it leaves.
    let acceptsWritten (name: string) (settings: JobSettings) (job: Job) : Fault list =
        let only what advice =
            [ Fault.Contradiction($"{name} cannot run {job.Plan.Label}: {what}", $"run it in this process, or {advice}") ]

        match job.AsWritten, settings.Store job with
        | None, _ when not job.IsRegistered -> only "its method is this script's own" "add the method to the registry"
        | None, _ ->
            only
                $"its stream '{job.Stream.Name}' or its method is in this process's memory alone"
                "name a stream that Catalogue.find finds and a method of the registry"
        | Some _, Store.Memory _ -> only "its result is to stay in this process's memory" "name a folder"
        | Some _, Store.Folder _ when job.Protocol.Monitor.IsSome -> only "it has a monitor" "do without"
        | Some _, Store.Folder _ -> []

    /// How often it is looked what has become of cells that other processes run.
    let private look = TimeSpan.FromSeconds 0.5

    /// Runs every job. What is finished is taken from its store first. One that diverges or breaks off by whatever exception has ended; the others go
    /// on. Of several with one identity the others run after the first, and find its result. Jobs that other processes run are waited for, and run
    /// here if those die. `stop` is asked before each job and while it runs. `ended` is called with the place of a job that has ended and what became
    /// of it, by one thread at a time and before that is told; it returns why results cannot be written, if so: no more jobs begin then.
    /// Faults: why the engine cannot run one of the jobs, before any has begun; or any at all.
    let run
        (engine: Engine)
        (settings: JobSettings)
        (stop: unit -> bool)
        (tell: StudyEvent -> unit)
        (ended: int -> CellEnd -> CellRecord option -> Fault list)
        (jobs: Job[])
        : Result<unit, Fault list> =
        let gate = obj ()
        let unwritten = ref false
        let cells = jobs |> Array.map _.Cell
        let elsewhere = ConcurrentQueue<int>()
        let within place event = lock gate (fun () -> tell (StudyEvent.Cell(cells[place], event)))

        let isResult how =
            match how with
            | CellEnd.Finished _
            | CellEnd.Failed _ -> true
            | _ -> false

        let inStore place = Job.finished settings jobs[place] |> Result.defaultValue None

        let over (place: int) (how: CellEnd, record: CellRecord option) : unit =
            match how with
            | CellEnd.Elsewhere -> elsewhere.Enqueue place
            | CellEnd.Stopped -> within place (CellEvent.Ended CellEnd.Stopped)
            | _ ->
                lock gate (fun () ->
                    // A worker process leaves it in the store alone.
                    let record = if isResult how then Option.orElseWith (fun () -> inStore place) record else record
                    let faults = ended place how record
                    let news = if unwritten.Value then [] else faults
                    unwritten.Value <- unwritten.Value || not faults.IsEmpty
                    tell (StudyEvent.Cell(cells[place], CellEvent.Ended how))
                    List.iter (StudyEvent.Unwritten >> tell) news)

        let leave () = unwritten.Value || stop ()

        let calls = { Leave = leave; Stop = stop; Tell = within; Ended = over }

        /// Is it finished, which is told then?
        let isOver (place: int) : bool =
            match inStore place with
            | Some record ->
                over place (CellEnd.ofRecord true record, Some record)
                true
            | None -> false

        let identities = jobs |> Array.map Job.identity
        let isFree place = not (Store.isTaken (settings.Store jobs[place]) identities[place])

        /// Waits until no other process has one of these: those that it has not finished.
        let rec await (places: int list) : int list =
            let left = places |> List.filter (isOver >> not)

            if left.IsEmpty || leave () || List.exists isFree left then
                left
            else
                Thread.Sleep look
                await left

        /// Runs these, and after them those among them that other processes had.
        let rec work (places: int list) : Result<unit, Fault list> =
            if places.IsEmpty then
                Ok()
            else
                engine.Run settings calls [ for place in places -> place, jobs[place] ]
                |> Result.bind (fun () ->
                    let theirs = List.ofSeq elsewhere
                    elsewhere.Clear()
                    work (if theirs.IsEmpty || leave () then [] else await theirs))

        match jobs |> Seq.collect (engine.Accepts settings) |> Seq.distinct |> List.ofSeq with
        | [] ->
            let seen = HashSet<string>()

            // Two jobs of one identity would write to one folder of checkpoints.
            let firsts, seconds =
                [ 0 .. jobs.Length - 1 ]
                |> List.filter (isOver >> not)
                |> List.partition (fun place -> seen.Add identities[place])

            work firsts |> Result.bind (fun () -> work seconds)
        | faults -> Error faults
