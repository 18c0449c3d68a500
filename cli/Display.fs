/// How a run looks in a terminal, and in a log.
module Cmcl.Cli.Display

open System
open System.Diagnostics
open Spectre.Console
open Cmcl

let duration (t: TimeSpan) =
    if t.TotalMinutes < 1.0 then $"{int (ceil t.TotalSeconds)} s"
    elif t.TotalHours < 1.0 then $"{int t.TotalMinutes} min {t.Seconds} s"
    else $"{int t.TotalHours} h {t.Minutes} min"

/// What is left, from what is done.
let left (watch: Stopwatch) (share: float) =
    if share <= 0.0 then "" else duration (watch.Elapsed * ((1.0 - share) / share)) + " left"

let private place (request: Request) (step: Step) = $"step {step.Index}/{request.Stream.Steps.Length} {step.Name}"

/// Plain lines, one for each step: for logs and pipes.
let private lines (request: Request) (work: (StudyEvent -> unit) -> 'a) : 'a =
    let watch = Stopwatch.StartNew()

    work (function
        | StudyEvent.Progress(job, Event.Epoch(step, epoch, loss, _, _), share) when epoch = job.Plan.Settings.Epochs ->
            printfn "%s seed %d, %s: loss %.4f, %s" job.Plan.Label job.Seed (place request step) loss (left watch share)
        | StudyEvent.Progress(job, Event.Solved(step, _, _), share) ->
            printfn "%s seed %d, %s: solved, %s" job.Plan.Label job.Seed (place request step) (left watch share)
        | StudyEvent.Progress(job, Event.Remark(step, text), _) ->
            printfn "%s seed %d, %s: %s" job.Plan.Label job.Seed (place request step) text
        | StudyEvent.Resumed(job, steps) -> printfn "%s seed %d resumes after %d steps" job.Plan.Label job.Seed steps
        | StudyEvent.Warning(_, fault)
        | StudyEvent.Ended(_, _, Some fault) -> eprintfn "cmcl: %s" fault.Message
        | _ -> ())

/// A live line with a bar: method, seed, step, epoch, loss, time left.
let private live (request: Request) (work: (StudyEvent -> unit) -> 'a) : 'a =
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
                    | StudyEvent.Started(job, share) ->
                        bar.Value <- share
                        bar.Description <- Markup.Escape $"{job.Plan.Label} seed {job.Seed}"
                    | StudyEvent.Progress(job, Event.Epoch(step, epoch, loss, _, _), share) ->
                        bar.Value <- share

                        bar.Description <-
                            Markup.Escape
                                $"{job.Plan.Label} seed {job.Seed} · {place request step} · epoch {epoch}/{job.Plan.Settings.Epochs} · loss {loss:F3} · {left watch share}"
                    | StudyEvent.Progress(job, Event.Solved(step, _, _), share) ->
                        bar.Value <- share

                        bar.Description <-
                            Markup.Escape
                                $"{job.Plan.Label} seed {job.Seed} · {place request step} · solved · {left watch share}"
                    | StudyEvent.Progress(job, Event.Remark(step, text), _) ->
                        AnsiConsole.MarkupLineInterpolated
                            $"[yellow]{job.Plan.Label} seed {job.Seed}, {place request step}: {text}[/]"
                    | StudyEvent.Resumed(job, steps) ->
                        AnsiConsole.MarkupLineInterpolated $"{job.Plan.Label} seed {job.Seed} resumes after {steps} steps"
                    | StudyEvent.Warning(_, fault)
                    | StudyEvent.Ended(_, _, Some fault) -> AnsiConsole.MarkupLineInterpolated $"[red]{fault.Message}[/]"
                    | StudyEvent.Ended(_, _, None)
                    | StudyEvent.Began _
                    | StudyEvent.Unwritten _
                    | StudyEvent.Stopped _ -> ())

            bar.Value <- 1.0
            bar.Description <- "done in " + duration watch.Elapsed
            result)

/// Runs `work` with progress shown: live in a terminal, plain lines elsewhere, nothing when quiet.
let progress (quiet: bool) (request: Request) (work: (StudyEvent -> unit) -> 'a) : 'a =
    if quiet then
        work (function
            | StudyEvent.Warning(_, fault)
            | StudyEvent.Ended(_, _, Some fault) -> eprintfn "cmcl: %s" fault.Message
            | _ -> ())
    elif Console.IsOutputRedirected || not AnsiConsole.Profile.Capabilities.Interactive then
        lines request work
    else
        live request work

/// The settings of a run in one block, for a terminal of so many columns: what all methods share, then what each has of its own.
let settings (width: int) (request: Request) : string =
    let all = request.Plans |> List.map (fun p -> p.Label, Plan.effective p)
    let trained = all |> List.filter (fun (_, s) -> not s.IsEmpty)

    let shared =
        match trained with
        | [] -> []
        | (_, first) :: rest -> first |> List.filter (fun pair -> rest |> List.forall (fun (_, s) -> List.contains pair s))

    let words pairs = String.Join(" ", pairs |> List.map (fun (name, value) -> $"{name}={value}"))
    let longest = all |> List.map (fun (label, _) -> label.Length) |> List.append [ 6 ] |> List.max

    let line (name: string) text =
        Layout.titled (min width 100 - 2) (min 24 (longest + 2)) name text |> List.map (fun line -> "  " + line)

    let seeds = String.Join(", ", request.Seeds)

    String.Join(
        "\n",
        [ yield!
              Layout.wrap
                  width
                  $"stream {request.Stream.Name}, {request.Stream.Steps.Length} steps, figures from {request.Split} rows, seeds {seeds}, on {request.Device}"
          yield! line "all" (words shared)
          for label, own in all do
              yield!
                  match List.except shared own with
                  | [] when own.IsEmpty -> line label "(no training)"
                  | [] -> line label "(as above)"
                  | rest -> line label (words rest) ]
    )

/// The figures after the last step, a line a method.
let summary (request: Request) (finished: Finished) : CompareTable =
    let roles = [ for p in request.Plans -> p.Label, p.Method.Role ]
    let rows = Map [ 0, finished.Rows ]

    Comparison.ofRows request.Stream.Name roles request.Seeds request.Command rows
    |> Measured.ofComparison
    |> CompareTable.make
        ([ "acc"; "bwt_acc"; "r10"; "bwt_r10"; "deviation_rel" ] |> List.map (Metric.find >> Check.get))
        request.Stream.Name
    |> CompareTable.withoutEmpty

/// How fast methods trained that took long enough to tell: a line each, the mean over steps and seeds.
let throughput (finished: Finished) : string list =
    [ for label, rows in finished.Rows |> List.filter (fun r -> r.Metric = "pairs_per_second") |> List.groupBy _.Method ->
          $"{label}: {rows |> List.averageBy _.Value:F0} pairs a second in training" ]

/// What was verified, a line a condition: its worst place, how many places there are, and how many hold.
let conditions (found: Verification) : LayoutTable =
    let mark (v: Verdict) =
        match Verdict.word v with
        | "holds" -> Emphasis.Good, $"{v.Held}/{v.Places} ✓"
        | "broken" -> Emphasis.Bad, $"{v.Held}/{v.Places} ✗"
        | "approximate" -> Emphasis.Plain, "approximate –"
        | word -> Emphasis.Plain, $"{v.Held}/{v.Places} {word} –"

    { Columns =
        [ Layout.words 0 "condition"
          Layout.words 2 "worst at"
          Layout.figures 0 "value"
          Layout.figures 0 "bound"
          Layout.figures 1 "tolerance"
          Layout.figures 0 "holds" ]
      Rows =
        [ for v in Verdict.ofFindings found.Findings do
              let c = v.Worst.Condition
              let numbers = [ c.Value; c.Bound; c.Tolerance ] |> List.map (Verification.number >> Layout.plain)

              Some([ Layout.plain v.Name; Layout.plain $"{v.Worst.Run}, {c.Where}" ] @ numbers @ [ [ mark v ] ]) ]
      Elsewhere = "verify.csv has them, and the page of figures." }
