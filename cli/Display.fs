/// How a run looks in a terminal, and in a log.
module Cmcl.Cli.Display

open System
open System.Collections.Generic
open System.Diagnostics
open Spectre.Console
open Cmcl

let duration = Progress.duration

/// What is left, from what is done.
let left (watch: Stopwatch) (share: float) =
    if share <= 0.0 then "" else duration (watch.Elapsed * ((1.0 - share) / share)) + " left"

/// Cells that run are shown one a line, up to so many.
[<Literal>]
let private MostLines = 12

/// How often a log gets a line.
let private pause = TimeSpan.FromSeconds 30.0

let private isEnd (event: StudyEvent) : bool =
    match event with
    | StudyEvent.Cell(_, CellEvent.Ended _) -> true
    | _ -> false

/// Where a cell is, in a line.
let private place (p: Progress) (cell: Cell) : string =
    match Map.tryFind cell p.Running with
    | Some(Some at) ->
        let doing =
            match at.Epoch with
            | Some e -> $"epoch {e.Number}/{e.Of} · loss {e.Loss:F3}"
            | None -> "solved"

        $"{Progress.name p cell} · step {at.Step}/{at.Steps} {at.Name} · {doing}"
    | _ -> Progress.name p cell

/// A line every so often, with what runs now, and one for whatever is said.
let private lines
    (said: Progress -> StudyEvent -> unit)
    (sideBySide: int)
    (start: Progress)
    (work: (StudyEvent -> unit) -> 'a)
    : 'a =
    let watch = Stopwatch.StartNew()
    let mutable progress = start
    let mutable last = TimeSpan.Zero

    let result =
        work (fun event ->
            progress <- Progress.after event progress
            said progress event

            if watch.Elapsed - last > pause then
                last <- watch.Elapsed
                let now = String.Join("; ", progress.Running.Keys |> Seq.map (place progress))
                printfn "%s (%s)" (Progress.sentence sideBySide watch.Elapsed progress) now)

    printfn "%s" (Progress.sentence sideBySide watch.Elapsed progress)
    result

/// A live bar for all, and one for each cell that runs.
let private live (isNew: StudyEvent -> bool) (sideBySide: int) (start: Progress) (work: (StudyEvent -> unit) -> 'a) : 'a =
    let watch = Stopwatch.StartNew()

    let columns: ProgressColumn[] =
        [| SpinnerColumn()
           ProgressBarColumn(Width = Nullable 16)
           PercentageColumn()
           TaskDescriptionColumn(Alignment = Justify.Left) |]

    let progress = ref start

    let result =
        AnsiConsole
            .Progress()
            .AutoClear(true)
            .Columns(columns)
            .Start(fun context ->
                let all = context.AddTask("starting", maxValue = 1.0)
                let free = Stack [ for _ in 1 .. min sideBySide MostLines -> context.AddTask("–", maxValue = 1.0) ]
                let taken = Dictionary<Cell, ProgressTask>()

                let show (cell: Cell) (description: string) (share: float) =
                    match taken.TryGetValue cell with
                    | true, bar ->
                        bar.Description <- Markup.Escape description
                        // A bar at its end is finished for good, and another cell will need it.
                        bar.Value <- min 0.999 share
                    | _ -> ()

                work (fun event ->
                    progress.Value <- Progress.after event progress.Value

                    match event with
                    | StudyEvent.Cell(cell, CellEvent.Started) ->
                        if free.Count > 0 && not (taken.ContainsKey cell) then
                            taken[cell] <- free.Pop()

                        show cell (place progress.Value cell) 0.0
                    | StudyEvent.Cell(cell, CellEvent.Progress at) -> show cell (place progress.Value cell) at.Share
                    | StudyEvent.Cell(cell, CellEvent.Ended _) ->
                        show cell "–" 0.0

                        match taken.TryGetValue cell with
                        | true, bar ->
                            taken.Remove cell |> ignore
                            free.Push bar
                        | _ -> ()
                    | _ -> ()

                    match Progress.said progress.Value event with
                    | Some _ when not (isNew event) -> ()
                    | Some message when Progress.isBad event -> AnsiConsole.MarkupLineInterpolated $"[red]{message}[/]"
                    | Some message -> AnsiConsole.MarkupLineInterpolated $"[yellow]{message}[/]"
                    | None -> ()

                    all.Value <- min 0.999 (Progress.share progress.Value)
                    all.Description <- Markup.Escape(Progress.sentence sideBySide watch.Elapsed progress.Value)))

    printfn "%s" (Progress.sentence sideBySide watch.Elapsed progress.Value)
    result

/// Whether an event is no remark that another seed of the same method has made at the same step, word for word.
let private isNew () : StudyEvent -> bool =
    let told = HashSet<string * string * int * int * string>()

    function
    | StudyEvent.Cell(cell, CellEvent.Remark(step, _, text)) -> told.Add(cell.Stream, cell.Method, cell.Order, step, text)
    | _ -> true

/// Runs `work` with progress shown: live in a terminal, plain lines elsewhere, nothing when quiet. What goes wrong is told on standard error, but for
/// failures of cells where these are told when all is over (`failuresLater`).
let progress (quiet: bool) (failuresLater: bool) (sideBySide: int) (start: Progress) (work: (StudyEvent -> unit) -> 'a) : 'a =
    let isNew = isNew ()

    let say (loud: bool) (p: Progress) (event: StudyEvent) =
        match Progress.said p event with
        | Some _ when not (isNew event) -> ()
        | Some text when Progress.isBad event && not (failuresLater && isEnd event) -> eprintfn "cmcl: %s" text
        | Some text when loud -> printfn "%s" text
        | _ -> ()

    if quiet then
        work (say false start)
    elif Console.IsOutputRedirected || not AnsiConsole.Profile.Capabilities.Interactive then
        lines (say true) sideBySide start work
    else
        live isNew sideBySide start work

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
    |> CompareTable.make Metric.brief request.Stream.Name
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
