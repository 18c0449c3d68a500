namespace Cmcl

open System
open System.Collections.Concurrent
open System.ComponentModel
open System.Diagnostics
open System.Globalization
open System.IO
open System.Threading

/// What an import may take before it is ended.
[<RequireQualifiedAccess>]
type ImportLimits =
    {
        /// Bytes of memory that its worker holds and no file backs.
        Memory: int64
        Time: TimeSpan
    }

[<RequireQualifiedAccess>]
module ImportLimits =
    /// 4 GiB, or what the machine has less a quarter if that is less; a minute, and a second for each MB of the source's files.
    let defaults (source: string) : ImportLimits =
        let length (path: string) =
            match File.ResolveLinkTarget(path, true) with
            | null -> FileInfo(path).Length
            | target -> FileInfo(target.FullName).Length

        let bytes =
            try
                if Directory.Exists source then
                    Directory.EnumerateFiles(source, "*", EnumerationOptions(RecurseSubdirectories = true, MaxRecursionDepth = 2))
                    |> Seq.sumBy length
                else
                    length source
            with
            | :? IOException
            | :? UnauthorizedAccessException
            | :? ArgumentException -> 0L

        { Memory = min (4L <<< 30) (GC.GetGCMemoryInfo().TotalAvailableMemoryBytes / 4L * 3L)
          Time = TimeSpan.FromSeconds(60.0 + float (bytes / 1_000_000L)) }

/// A worker, the lines that it says, and the last of its complaints.
[<RequireQualifiedAccess>]
type internal ImportProcess =
    {
        Process: Process
        Lines: BlockingCollection<string>
        Tail: ConcurrentQueue<string>
        Complaints: Thread
        /// Where its last request writes.
        mutable Out: string option
    }

/// What came of waiting for a worker.
[<RequireQualifiedAccess>]
type internal Heard =
    | Answer of ImportAnswer
    | TooLong
    | TooLarge
    | Stopped
    | Ended

[<RequireQualifiedAccess>]
module internal ImportProcess =
    /// How often limits are looked at, in milliseconds.
    [<Literal>]
    let Pause = 50

    /// Hears lines until there are no more, or nobody takes them.
    let private hearing (from: StreamReader) (hear: string -> unit) (last: unit -> unit) : Thread =
        let listen () =
            try
                Seq.initInfinite (fun _ -> from.ReadLine() |> Option.ofObj)
                |> Seq.takeWhile _.IsSome
                |> Seq.iter (Option.iter hear)
            with
            | :? IOException
            | :? ObjectDisposedException
            | :? InvalidOperationException -> ()

            last ()

        let thread = Thread(listen, IsBackground = true)
        thread.Start()
        thread

    /// Starts a worker in which .NET refuses memory before the worker itself has to be ended.
    let launch (start: unit -> ProcessStartInfo) (limits: ImportLimits) : ImportProcess =
        let info = start ()
        info.Environment["DOTNET_GCHeapHardLimit"] <- (limits.Memory / 4L * 3L).ToString("X", CultureInfo.InvariantCulture)
        let p = Child.start info
        let lines, tail = new BlockingCollection<string>(1000), ConcurrentQueue<string>()

        let keep (line: string) =
            // A trace goes on for pages.
            let isTrace = [ "at "; "---"; "Repeat" ] |> List.exists (fun start -> line.TrimStart().StartsWith start)

            if line.Trim() <> "" && not isTrace then
                tail.Enqueue line

                if tail.Count > 3 then
                    tail.TryDequeue() |> ignore

        hearing p.StandardOutput lines.Add lines.CompleteAdding |> ignore

        { ImportProcess.Process = p
          Lines = lines
          Tail = tail
          Complaints = hearing p.StandardError keep ignore
          Out = None }

    /// Gives a worker an import to run. One that is gone does not hear it, which shows when an answer is waited for.
    let ask (child: ImportProcess) (request: ImportRequest) : unit =
        // What it complained of in its last import is no matter; what a new one says before it is asked is.
        if child.Out.IsSome then
            child.Tail.Clear()

        child.Out <- Some request.Out

        try
            child.Process.StandardInput.WriteLine(ImportWorker.ofRequest request)
            child.Process.StandardInput.Flush()
        with :? IOException ->
            ()

    /// Ends a worker with all that it started, and removes what it leaves of the stream of its last request.
    let stop (child: ImportProcess) : unit =
        let id = child.Process.Id

        try
            child.Process.Kill true
        with
        | :? InvalidOperationException
        | :? Win32Exception
        | :? AggregateException -> ()

        child.Process.WaitForExit 10_000 |> ignore
        child.Lines.CompleteAdding()
        child.Process.Dispose()

        try
            child.Out |> Option.iter (StreamWriter.sweep id)
        with
        | :? IOException
        | :? UnauthorizedAccessException -> ()

    /// Bytes that a process holds and no file backs; where the system does not say, its working set.
    let memory (p: Process) : int64 =
        try
            if OperatingSystem.IsLinux() then
                File.ReadLines $"/proc/{p.Id}/status"
                |> Seq.filter (fun line -> line.StartsWith "RssAnon:" || line.StartsWith "RssShmem:")
                |> Seq.sumBy (fun line -> 1024L * int64 (line.Split(':').[1].Replace("kB", "").Trim()))
            else
                p.Refresh()
                p.WorkingSet64
        with
        | :? IOException
        | :? UnauthorizedAccessException
        | :? InvalidOperationException -> 0L

    /// Waits for a worker's next answer, as long as it keeps within its limits; `held` is told what memory it was seen to hold.
    let rec hear
        (child: ImportProcess)
        (limits: ImportLimits)
        (cancel: CancellationToken)
        (clock: Stopwatch)
        (held: int64 -> unit)
        : Heard =
        let memory, over = memory child.Process, child.Process.HasExited
        held memory

        if cancel.IsCancellationRequested then
            Heard.Stopped
        elif clock.Elapsed > limits.Time then
            Heard.TooLong
        elif memory > limits.Memory then
            Heard.TooLarge
        else
            let mutable line = ""

            // What it said last may come after its end was seen.
            if child.Lines.TryTake(&line, (if over then 10 * Pause else Pause)) then
                match ImportWorker.answer line with
                | Some answer -> Heard.Answer answer
                | None -> hear child limits cancel clock held
            elif over then
                Heard.Ended
            else
                // It may live on without an output.
                if child.Lines.IsCompleted then
                    child.Process.WaitForExit Pause |> ignore

                hear child limits cancel clock held

    /// The exit code of a worker that ended by itself, and its last complaints.
    let death (child: ImportProcess) : int * string =
        child.Complaints.Join(100 * Pause) |> ignore
        child.Process.ExitCode, String.Join(" | ", child.Tail)
