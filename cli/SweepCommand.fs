/// What `cmcl compare` and `cmcl tune` share: workers, Ctrl-C, cells.
module Cmcl.Cli.SweepCommand

open System
open System.Diagnostics
open System.IO
open System.Reflection
open System.Runtime.InteropServices
open System.Text
open System.Threading
open TorchSharp
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
let jobs (given: int option) (device: torch.Device) (streams: SweepStream list) : int =
    given |> Option.defaultWith (fun () -> Commands.jobsFor device (streams |> List.map _.Threads |> List.max))

/// Runs what is missing of a sweep, its progress shown, until it is done or stopped by Ctrl-C.
let run (quiet: bool) (jobs: int) (cells: SweepCell list) : Swept =
    use cancel = new CancellationTokenSource()

    let stop (context: PosixSignalContext) =
        context.Cancel <- true
        cancel.Cancel()

    use _ = PosixSignalRegistration.Create(PosixSignal.SIGINT, stop)
    use _ = PosixSignalRegistration.Create(PosixSignal.SIGTERM, stop)

    for fault in Sweep.damaged cells do
        eprintfn "cmcl: %s The cell is run again." fault.Message

    match Adoption.others cells.Head.Job.Out [ for c in cells -> c.Identity ] with
    | 0 -> ()
    | count -> eprintfn "cmcl: %s" (Adoption.fault cells.Head.Job.Out count "they are run again now").Message

    let all = cells |> List.distinctBy (fun (c: SweepCell) -> c.Identity)

    let start =
        (Progress.start [ for c in all -> c.Cell, c.Updates ], Sweep.states all)
        ||> List.fold (fun progress (c, record) ->
            match record with
            | Some record -> Progress.after (StudyEvent.Cell(c.Cell, CellEvent.Ended(CellEnd.ofRecord true record))) progress
            | None -> progress)

    let waiting = start.Waiting.Count
    let jobs = max 1 (min jobs waiting)

    if not quiet then
        let threads = cells |> List.map _.Job.Threads |> List.max
        let workers = if jobs = 1 then "one worker" else $"{jobs} workers"
        let each = if threads = 1 then "one thread" else $"{threads} threads"
        printfn "%d cells, %d of them to be run, by %s of %s" start.Total waiting workers each

    let broken =
        if waiting = 0 then
            []
        else
            Display.progress quiet true jobs start (fun tell -> Sweep.run (fun () -> again "worker") jobs cancel.Token tell cells)

    { Broken = broken
      Stopped = cancel.IsCancellationRequested }
