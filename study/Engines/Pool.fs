namespace Cmcl

open System
open System.Collections.Concurrent
open System.ComponentModel
open System.Diagnostics
open System.IO
open System.Threading

/// The engine that runs jobs in worker processes: one that dies takes its own cell with it and nothing else.
[<RequireQualifiedAccess>]
module Pool =
    /// Lines of standard error that are shown when a worker dies: the last ones.
    [<Literal>]
    let private TailLines = 3

    /// The exit code of a worker that stopped before its cell was finished and can resume it: EX_TEMPFAIL of sysexits.h.
    [<Literal>]
    let Again = 75

    /// How often one cell is resumed at most.
    [<Literal>]
    let private MostAgain = 20

    /// A worker, and what it said last on standard error.
    type private Worker = { Process: Process; Tail: ConcurrentQueue<string> }

    let private launch (start: unit -> ProcessStartInfo) : Worker =
        let p = Child.start (start ())
        let tail = ConcurrentQueue()

        p.ErrorDataReceived.Add(fun e ->
            match e.Data with
            | null
            | "" -> ()
            | line ->
                tail.Enqueue line

                if tail.Count > TailLines then
                    tail.TryDequeue() |> ignore)

        p.BeginErrorReadLine()
        { Process = p; Tail = tail }

    /// Ends a worker and waits until it is no more.
    let private stop (worker: Worker) : unit =
        if not worker.Process.HasExited then
            worker.Process.Kill()

        worker.Process.WaitForExit()
        worker.Process.Dispose()

    let private broken (reason: string) : CellEnd = CellEnd.Broken [ Fault.Told reason ]

    /// How a worker ended that should not have.
    let private death (worker: Worker) : CellEnd =
        worker.Process.WaitForExit()
        let said = String.Join(" | ", worker.Tail)
        let words = if said = "" then "" else $" and said: {said}"
        broken $"its worker ended with exit code {worker.Process.ExitCode}{words}"

    /// Has a worker run a cell. None if it died before it told how the cell ended.
    let private work (worker: Worker) (job: WorkerJob) (tell: CellEvent -> unit) : CellEnd option =
        try
            worker.Process.StandardInput.WriteLine(Line.ofJob job)
            worker.Process.StandardInput.Flush()
        with :? IOException ->
            ()

        let events =
            Seq.initInfinite (fun _ -> worker.Process.StandardOutput.ReadLine() |> Option.ofObj)
            |> Seq.takeWhile _.IsSome
            |> Seq.choose (Option.bind Line.event)

        events
        |> Seq.tryPick (fun event ->
            match event with
            | CellEvent.Ended ended -> Some ended
            // It was told when the worker was asked.
            | CellEvent.Started -> None
            | within ->
                tell within
                None)

    /// Runs every job, in their order, by as many workers side by side; `start` says how one is started. A worker that dies is
    /// replaced; its cell is run again if the worker asks for it by its exit code, `Again`, else it ends as `CellEnd.Broken`. After a
    /// result that could not be written no more are begun. `tell` is called with a job's place, by one at a time. When `cancel` says so the workers
    /// are ended at once, and no more is told.
    let run
        (start: unit -> ProcessStartInfo)
        (workers: int)
        (cancel: CancellationToken)
        (tell: int -> CellEvent -> unit)
        (jobs: WorkerJob list)
        : unit =
        let waiting = ConcurrentQueue(List.indexed jobs)
        let gate = obj ()

        let tellOne place event =
            lock gate (fun () ->
                if not cancel.IsCancellationRequested then
                    tell place event)

        let take () =
            match cancel.IsCancellationRequested, waiting.TryDequeue() with
            | false, (true, next) -> Some next
            | _ -> None

        let serve () =
            let mutable worker: Worker option = None
            let mutable next = take ()

            let told (w: Worker) (place, job) =
                use _ = cancel.Register(fun () -> w.Process.Kill())
                work w job (tellOne place)

            /// How the cell ended; None if it is to be run again.
            let attempt cell =
                let w = worker |> Option.defaultWith (fun () -> launch start)
                worker <- Some w

                match told w cell with
                | Some ended -> Some ended
                | None ->
                    let ended = death w
                    let again = w.Process.ExitCode = Again
                    stop w
                    worker <- None
                    if again then None else Some ended

            let finished cell =
                Seq.init MostAgain (fun _ -> cell)
                |> Seq.tryPick attempt
                |> Option.defaultValue (broken $"its worker was resumed {MostAgain} times without finishing it")

            try
                while next.IsSome do
                    let place, _ = next.Value
                    tellOne place CellEvent.Started

                    let ended =
                        try
                            finished next.Value
                        with :? Win32Exception as e ->
                            broken $"no worker can be started: {e.Message}"

                    match ended with
                    | CellEnd.Unwritten _ -> waiting.Clear()
                    | _ -> ()

                    tellOne place (CellEvent.Ended ended)
                    next <- take ()
            finally
                Option.iter stop worker

        let threads = [ for _ in 1 .. min workers jobs.Length -> Thread(serve) ]

        for t in threads do
            t.Start()

        for t in threads do
            t.Join()

    /// With so many workers side by side; `start` says how one is started. When they are asked to stop they are ended at once, and what they were at
    /// goes on from its last checkpoint the next time.
    let engine (start: unit -> ProcessStartInfo) (workers: int) : Engine =
        { Name = "worker processes"
          Accepts = Engine.acceptsWritten "worker processes"
          Run =
            fun settings calls jobs ->
                let places = [| for place, _ in jobs -> place |]

                let asked =
                    [ for _, job in jobs do
                          match job.AsWritten, settings.Store job with
                          | Some written, Store.Folder out -> WorkerJob.ofJob out workers written job
                          | _ -> () ]

                let tell at event =
                    match event with
                    | CellEvent.Ended how ->
                        // It was told to have begun.
                        if how = CellEnd.Elsewhere then
                            calls.Tell places[at] event

                        calls.Ended places[at] (how, None)
                    | within -> calls.Tell places[at] within

                let cancel = new CancellationTokenSource()
                let over = new ManualResetEventSlim(false)

                let watch () =
                    while not (over.Wait 50) do
                        if calls.Stop() then
                            cancel.Cancel()
                            over.Set()

                let watcher = Thread(watch, IsBackground = true)
                watcher.Start()

                try
                    if not (calls.Leave()) then
                        run start workers cancel.Token tell asked
                finally
                    over.Set()
                    watcher.Join()
                    cancel.Dispose()
                    over.Dispose()

                Ok() }
