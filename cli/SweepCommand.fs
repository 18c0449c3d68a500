/// What `cmcl compare` and `cmcl tune` share: workers, Ctrl-C, cells.
module Cmcl.Cli.SweepCommand

open System
open System.Diagnostics
open System.IO
open System.Reflection
open System.Runtime.InteropServices
open System.Text
open System.Threading
open Cmcl

/// `cmcl worker`: runs cells for the process that started it and ends with it.
let work () : int =
    use leaving = new Signals.Leaving false
    use input = new StreamReader(Console.OpenStandardInput(), UTF8Encoding false)
    use output = new StreamWriter(Console.OpenStandardOutput(), UTF8Encoding false)
    // Standard output is for answers.
    Console.SetOut Console.Error

    if Worker.serve input output (fun () -> leaving.Asked) (fun () -> Process.GetCurrentProcess().Kill()) then
        0
    else
        Signals.ResumeMe

/// How this program is started once more: as it was itself, or from beside another program that runs it as a library.
let program () : string list =
    let own = Assembly.GetExecutingAssembly()
    let isDotnet (path: string) = Path.GetFileNameWithoutExtension path = "dotnet"

    match Environment.ProcessPath |> Option.ofObj with
    | Some path when obj.ReferenceEquals(own, Assembly.GetEntryAssembly()) && not (isDotnet path) -> [ path ]
    | path -> [ path |> Option.filter isDotnet |> Option.defaultValue "dotnet"; own.Location ]

/// This program once more, with another command.
let again (command: string) : ProcessStartInfo =
    let all = program () @ [ command ]
    ProcessStartInfo(all.Head, all.Tail)

/// A sweep that went on to its end, or as far as it came before it was stopped.
type Swept =
    {
        /// Cells that ended without a file, and why.
        Broken: (Cell * string) list
        Stopped: bool
    }

/// Workers side by side, as given or as many as the threads of each leave cores for.
let jobs (given: int option) (study: Study) : int =
    given |> Option.defaultWith (fun () -> Commands.jobsFor study.Device (study.Streams |> List.map _.Threads |> List.max))

/// Runs what is missing of these cells in worker processes, one of each identity, its progress shown, until it is done or stopped by Ctrl-C.
let run (quiet: bool) (jobs: int) (out: string) (cells: Job list) : Swept =
    use cancel = new CancellationTokenSource()

    let stop (context: PosixSignalContext) =
        context.Cancel <- true
        cancel.Cancel()

    use _ = PosixSignalRegistration.Create(PosixSignal.SIGINT, stop)
    use _ = PosixSignalRegistration.Create(PosixSignal.SIGTERM, stop)

    for fault in StudyFolder.damaged out cells do
        eprintfn "cmcl: %s The cell is run again." fault.Message

    match Adoption.others out (List.map Job.identity cells) with
    | 0 -> ()
    | count -> eprintfn "cmcl: %s" (Adoption.fault out count "they are run again now").Message

    let all = StudyFolder.records out (List.distinctBy Job.identity cells)

    let start =
        (Progress.start [ for job, _ in all -> job.Cell, Job.work job ], all)
        ||> List.fold (fun progress (job, record) ->
            match record with
            | Some record -> Progress.after (StudyEvent.Cell(job.Cell, CellEvent.Ended(CellEnd.ofRecord true record))) progress
            | None -> progress)

    let waiting =
        [| for job, record in all do
               if record.IsNone then
                   job |]

    let jobs = max 1 (min jobs waiting.Length)

    if not quiet then
        let threads = cells |> List.map _.Protocol.Threads |> List.max
        let workers = if jobs = 1 then "one worker" else $"{jobs} workers"
        let each = if threads = 1 then "one thread" else $"{threads} threads"
        printfn "%d cells, %d of them to be run, by %s of %s" start.Total waiting.Length workers each

    let broken =
        if waiting.Length = 0 then
            []
        else
            Display.progress quiet true jobs start (fun tell ->
                let engine = Pool.engine (fun () -> again "worker") jobs
                StudyFolder.run engine out (fun () -> cancel.IsCancellationRequested) tell waiting |> Check.getAll)

    { Broken = broken
      Stopped = cancel.IsCancellationRequested }
