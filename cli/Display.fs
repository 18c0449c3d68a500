/// How a run looks in a terminal, and in a log.
module Cmcl.Cli.Display

open System
open System.Diagnostics
open Cmcl
open Spectre.Console

let private duration (t: TimeSpan) =
    if t.TotalMinutes < 1.0 then $"{int (ceil t.TotalSeconds)} s"
    elif t.TotalHours < 1.0 then $"{int t.TotalMinutes} min {t.Seconds} s"
    else $"{int t.TotalHours} h {t.Minutes} min"

/// What is left, from what is done.
let private left (watch: Stopwatch) (share: float) =
    if share <= 0.0 then "" else duration (watch.Elapsed * ((1.0 - share) / share)) + " left"

let private place (request: Request) (step: Step) = $"step {step.Index}/{request.Stream.Steps.Length} {step.Name}"

/// Plain lines, one for each step: for logs and pipes.
let private lines (request: Request) (work: (Progress -> unit) -> 'a) : 'a =
    let watch = Stopwatch.StartNew()

    work (function
        | Progress.Within(plan, seed, Event.Epoch(step, epoch, loss, _, _), share) when epoch = plan.Settings.Epochs ->
            printfn "%s seed %d, %s: loss %.4f, %s" plan.Label seed (place request step) loss (left watch share)
        | Progress.Within(plan, seed, Event.Remark(step, text), _) ->
            printfn "%s seed %d, %s: %s" plan.Label seed (place request step) text
        | Progress.Ended(_, _, Some fault) -> eprintfn "cmcl: %s" fault.Message
        | _ -> ())

/// A live line with a bar: method, seed, step, epoch, loss, time left.
let private live (request: Request) (work: (Progress -> unit) -> 'a) : 'a =
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
            let bar = context.AddTask("starting", maxValue = 1.0)

            let result =
                work (function
                    | Progress.Began(plan, seed, share) ->
                        bar.Value <- share
                        bar.Description <- Markup.Escape $"{plan.Label} seed {seed}"
                    | Progress.Within(plan, seed, Event.Epoch(step, epoch, loss, _, _), share) ->
                        bar.Value <- share

                        bar.Description <-
                            Markup.Escape
                                $"{plan.Label} seed {seed} · {place request step} · epoch {epoch}/{plan.Settings.Epochs} · loss {loss:F3} · {left watch share}"
                    | Progress.Within(plan, seed, Event.Remark(step, text), _) ->
                        AnsiConsole.MarkupLineInterpolated $"[yellow]{plan.Label} seed {seed}, {place request step}: {text}[/]"
                    | Progress.Ended(_, _, Some fault) -> AnsiConsole.MarkupLineInterpolated $"[red]{fault.Message}[/]"
                    | Progress.Ended(_, _, None) -> ())

            bar.Value <- 1.0
            bar.Description <- "done in " + duration watch.Elapsed
            result)

/// Runs `work` with progress shown: live in a terminal, plain lines elsewhere, nothing when quiet.
let progress (quiet: bool) (request: Request) (work: (Progress -> unit) -> 'a) : 'a =
    if quiet then
        work (function
            | Progress.Ended(_, _, Some fault) -> eprintfn "cmcl: %s" fault.Message
            | _ -> ())
    elif Console.IsOutputRedirected || not AnsiConsole.Profile.Capabilities.Interactive then
        lines request work
    else
        live request work

/// The settings of a run in one block: what all methods share, then what each has of its own.
let settings (request: Request) : string =
    let all = request.Plans |> List.map (fun p -> p.Label, Plan.effective p)
    let trained = all |> List.filter (fun (_, s) -> not s.IsEmpty)

    let shared =
        match trained with
        | [] -> []
        | (_, first) :: rest -> first |> List.filter (fun pair -> rest |> List.forall (fun (_, s) -> List.contains pair s))

    let words pairs = String.Join("  ", pairs |> List.map (fun (name, value) -> $"{name} {value}"))
    let width = all |> List.map (fun (label, _) -> label.Length) |> List.append [ 6 ] |> List.max
    let line (name: string) text = $"  {name.PadRight width}  {text}"
    let seeds = String.Join(", ", request.Seeds)

    String.Join(
        "\n",
        [ $"stream {request.Stream.Name}, {request.Stream.Steps.Length} steps, figures from {request.Split} rows, seeds {seeds}, on {request.Device}"
          line "all" (words shared)
          for label, own in all do
              line label (if own.IsEmpty then "(no training)" else words (List.except shared own)) ]
    )

/// Mean ± sample standard deviation over seeds.
let private meanSd (scale: float) (format: string) (values: float list) =
    let show (x: float) = (scale * x).ToString(format, Globalization.CultureInfo.InvariantCulture)

    match values with
    | [] -> "–"
    | [ one ] -> show one
    | many ->
        let mean = List.average many
        let sd = sqrt ((many |> List.sumBy (fun x -> (x - mean) ** 2.0)) / float (many.Length - 1))
        $"{show mean} ± {show sd}"

/// The figures after the last step, a line a method.
let summary (request: Request) (summary: Summary) : Table =
    let table = Table(Border = TableBorder.Rounded)
    let percent metric = metric, 100.0, "F1"

    let columns =
        [ "Acc", percent "acc"
          "BWT_A", percent "bwt_acc"
          "R@1", percent "r1"
          "R@5", percent "r5"
          "R@10", percent "r10"
          "BWT_R10", percent "bwt_r10"
          "rel. deviation", ("deviation_rel", 1.0, "G3") ]

    table.AddColumn "method" |> ignore

    for name, _ in columns do
        table.AddColumn(TableColumn(name).RightAligned()) |> ignore

    table.AddColumn(TableColumn("seconds").RightAligned()) |> ignore

    for plan in request.Plans do
        let own = summary.Rows |> List.filter (fun r -> r.Method = plan.Label)
        let final metric = own |> List.filter (fun r -> r.Step = "final" && r.Metric = metric) |> List.map _.Value

        let seconds =
            own
            |> List.filter (fun r -> r.Metric.StartsWith "seconds_")
            |> List.groupBy _.Seed
            |> List.map (fun (_, rows) -> List.sumBy _.Value rows)

        table.AddRow(
            [| Markup.Escape plan.Label
               for _, (metric, scale, format) in columns do
                   meanSd scale format (final metric)
               meanSd 1.0 "F1" seconds |]
        )
        |> ignore

    table
