/// How a sweep looks in a terminal, and in a log.
module Cmcl.Cli.SweepDisplay

open System
open System.Collections.Generic
open System.Diagnostics
open Spectre.Console
open Cmcl

/// Cells that run are shown one a line, up to so many.
[<Literal>]
let private MostLines = 12

/// How often a log gets a line.
let private pause = TimeSpan.FromSeconds 30.0

let private name (c: Cell) =
    let order = if c.Order = 0 then "" else $", order {c.Order}"
    $"{c.Stream}: {c.Method} seed {c.Seed}{order}"

/// Done, failed, running, left; time passed and left.
let private sentence (jobs: int) (watch: Stopwatch) (h: SweepProgress) : string =
    let failed = if h.Failed = 0 then "" else $", {h.Failed} failed"

    let left =
        match SweepProgress.left jobs h with
        | Some seconds when h.Done + h.Failed < h.Total -> $", about {Display.duration (TimeSpan.FromSeconds seconds)} left"
        | _ -> ""

    $"{h.Done} of {h.Total} cells done{failed}, {h.Running.Count} running, {h.Waiting.Count} waiting; {Display.duration watch.Elapsed}{left}"

let private failure (cell: Cell) (ended: CellEnd) : string option =
    match ended with
    | CellEnd.Done _
    | CellEnd.Elsewhere -> None
    | CellEnd.Failed message -> Some message
    | CellEnd.Broken message
    | CellEnd.Unwritten message -> Some $"{name cell}: {message}"

/// What an event says to those who were told nothing else.
let private said (event: SweepEvent) : string option =
    match event with
    | SweepEvent.Ended(cell, ended) -> failure cell ended
    | SweepEvent.Remark(cell, text) -> Some $"{name cell} goes on: {text}"
    | SweepEvent.Stopped cells ->
        Some $"Results cannot be written, so {cells} cells were not begun; the same command goes on from here."
    | SweepEvent.Began _
    | SweepEvent.Within _ -> None

/// A line every so often, with what runs now, and one for each failure.
let private lines (jobs: int) (start: SweepProgress) (work: (SweepEvent -> unit) -> 'a) : 'a =
    let watch = Stopwatch.StartNew()
    let mutable progress = start
    let mutable last = TimeSpan.Zero

    let running () = [ for KeyValue(cell, (_, share)) in progress.Running -> sprintf "%s %.0f %%" (name cell) (100.0 * share) ]

    let result =
        work (fun event ->
            progress <- SweepProgress.after event progress

            said event |> Option.iter (printfn "%s")

            if watch.Elapsed - last > pause then
                last <- watch.Elapsed
                let now = String.Join("; ", running ())
                printfn "%s (%s)" (sentence jobs watch progress) now)

    printfn "%s" (sentence jobs watch progress)
    result

/// A live bar for all, and one for each cell that runs.
let private live (jobs: int) (start: SweepProgress) (work: (SweepEvent -> unit) -> 'a) : 'a =
    let watch = Stopwatch.StartNew()

    let columns: ProgressColumn[] =
        [| SpinnerColumn()
           ProgressBarColumn(Width = Nullable 24)
           PercentageColumn()
           TaskDescriptionColumn(Alignment = Justify.Left) |]

    AnsiConsole
        .Progress()
        .Columns(columns)
        .Start(fun context ->
            let mutable progress = start
            let all = context.AddTask("starting", maxValue = 1.0)
            let free = Stack [ for _ in 1 .. min jobs MostLines -> context.AddTask("–", maxValue = 1.0) ]
            let taken = Dictionary<Cell, ProgressTask>()

            let show (cell: Cell) (description: string) (share: float) =
                match taken.TryGetValue cell with
                | true, bar ->
                    bar.Description <- Markup.Escape description
                    // A bar at its end is finished for good, and another cell will need it.
                    bar.Value <- min 0.999 share
                | _ -> ()

            let result =
                work (fun event ->
                    progress <- SweepProgress.after event progress

                    match event with
                    | SweepEvent.Began cell ->
                        if free.Count > 0 then
                            taken[cell] <- free.Pop()

                        show cell (name cell) 0.0
                    | SweepEvent.Within(cell, step, share) -> show cell $"{name cell} · {step}" share
                    | SweepEvent.Remark _
                    | SweepEvent.Stopped _ -> ()
                    | SweepEvent.Ended(cell, ended) ->
                        show cell "–" 0.0

                        match taken.TryGetValue cell with
                        | true, bar ->
                            taken.Remove cell |> ignore
                            free.Push bar
                        | _ -> ()

                    match said event with
                    | Some message -> AnsiConsole.MarkupLineInterpolated $"[red]{message}[/]"
                    | None -> ()

                    let ended = float (progress.Done + progress.Failed)
                    let shares = progress.Running |> Seq.sumBy (fun (KeyValue(_, (_, share))) -> share)
                    all.Value <- (ended + shares) / float (max 1 progress.Total)
                    all.Description <- Markup.Escape(sentence jobs watch progress))

            for bar in Seq.append free taken.Values do
                bar.StopTask()

            all.Description <- Markup.Escape(sentence jobs watch progress)
            result)

/// Runs `work` with progress shown: live in a terminal, plain lines elsewhere, nothing when quiet.
let progress (quiet: bool) (jobs: int) (start: SweepProgress) (work: (SweepEvent -> unit) -> 'a) : 'a =
    if quiet then
        // Failures are told when all is over.
        work (fun event ->
            match event with
            | SweepEvent.Remark _
            | SweepEvent.Stopped _ -> said event |> Option.iter (eprintfn "cmcl: %s")
            | _ -> ())
    elif Console.IsOutputRedirected || not AnsiConsole.Profile.Capabilities.Interactive then
        lines jobs start work
    else
        live jobs start work
