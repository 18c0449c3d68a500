namespace Cmcl

open System

/// How far a study is. A value: what is told of a study makes the next one.
type Progress =
    {
        /// Cells with what each weighs: its updates.
        Weights: Map<Cell, float>
        Done: int
        /// Diverged, or without a result because something went wrong.
        Failed: int
        /// Of what has ended.
        Weight: float
        /// What runs now, and where its training is.
        Running: Map<Cell, CellProgress option>
        /// Cells that this command has not begun; another may have.
        Waiting: Set<Cell>
        /// Seconds of finished cells by stream and method: how many, and their sum.
        Seconds: Map<string * string, int * float>
    }

    member p.Total: int = p.Weights.Count

[<RequireQualifiedAccess>]
module Progress =
    let private took (cell: Cell) (seconds: float) (p: Progress) : Progress =
        let count, sum = p.Seconds |> Map.tryFind (cell.Stream, cell.Method) |> Option.defaultValue (0, 0.0)

        { p with
            Seconds = p.Seconds |> Map.add (cell.Stream, cell.Method) (count + 1, sum + seconds) }

    /// Nothing has begun of cells that have so many updates each.
    let start (cells: (Cell * int64) seq) : Progress =
        let weights = Map [ for cell, updates in cells -> cell, float (max 1L updates) ]

        { Weights = weights
          Done = 0
          Failed = 0
          Weight = 0.0
          Running = Map.empty
          Waiting = set weights.Keys
          Seconds = Map.empty }

    let private running (cell: Cell) (progress: CellProgress option) (p: Progress) : Progress =
        { p with
            Running = p.Running.Add(cell, progress)
            Waiting = p.Waiting.Remove cell }

    let private ended (cell: Cell) (ended: CellEnd) (p: Progress) : Progress =
        let p =
            { p with
                Running = p.Running.Remove cell
                Waiting = p.Waiting.Remove cell }

        let over (p: Progress) =
            { p with
                Weight = p.Weight + (Map.tryFind cell p.Weights |> Option.defaultValue 1.0) }

        match ended with
        | CellEnd.Elsewhere
        | CellEnd.Stopped -> { p with Waiting = p.Waiting.Add cell }
        | CellEnd.Finished(seconds, _) -> over (took cell seconds { p with Done = p.Done + 1 })
        | CellEnd.Failed _
        | CellEnd.Unwritten _
        | CellEnd.Broken _ -> over { p with Failed = p.Failed + 1 }

    let after (event: StudyEvent) (p: Progress) : Progress =
        match event with
        | StudyEvent.Cell(cell, CellEvent.Started) -> running cell None p
        | StudyEvent.Cell(cell, CellEvent.Progress progress) -> running cell (Some progress) p
        | StudyEvent.Cell(cell, CellEvent.Ended how) -> ended cell how p
        | _ -> p

    let private shareOf (progress: CellProgress option) : float = progress |> Option.map _.Share |> Option.defaultValue 0.0

    /// The share of all updates that are done.
    let share (p: Progress) : float =
        let running =
            p.Running
            |> Seq.sumBy (fun (KeyValue(cell, at)) -> shareOf at * (Map.tryFind cell p.Weights |> Option.defaultValue 1.0))

        (p.Weight + running) / max 1.0 (Seq.sum p.Weights.Values)

    /// Seconds that are left with so many side by side: for each cell that is not finished the mean of its method's finished ones on its
    /// stream, or where there is none the mean of all, less what of it is done. None before the first has ended.
    let left (sideBySide: int) (p: Progress) : float option =
        let mean (some: (int * float) seq) =
            match Seq.sumBy fst some with
            | 0 -> None
            | count -> Some(Seq.sumBy snd some / float count)

        mean p.Seconds.Values
        |> Option.map (fun overall ->
            let expected (c: Cell) =
                p.Seconds |> Map.tryFind (c.Stream, c.Method) |> Option.toList |> mean |> Option.defaultValue overall

            let running = p.Running |> Seq.sumBy (fun (KeyValue(cell, at)) -> (1.0 - shareOf at) * expected cell)
            (running + Seq.sumBy expected p.Waiting) / float (max 1 sideBySide))

    /// A time as people say it. Example: `Progress.duration (System.TimeSpan.FromSeconds 90.0) = "1 min 30 s"`.
    let duration (t: TimeSpan) : string =
        if t.TotalMinutes < 1.0 then $"{int (ceil t.TotalSeconds)} s"
        elif t.TotalHours < 1.0 then $"{int t.TotalMinutes} min {t.Seconds} s"
        else $"{int t.TotalHours} h {t.Minutes} min"

    /// Done, failed, running, waiting; the time that has passed, and what is left.
    let sentence (sideBySide: int) (passed: TimeSpan) (p: Progress) : string =
        let failed = if p.Failed = 0 then "" else $", {p.Failed} failed"

        let left =
            match left sideBySide p with
            | Some seconds when p.Done + p.Failed < p.Total -> $", about {duration (TimeSpan.FromSeconds seconds)} left"
            | _ -> ""

        let open' =
            if p.Running.IsEmpty && p.Waiting.IsEmpty then
                ""
            else
                $", {p.Running.Count} running, {p.Waiting.Count} waiting"

        $"{p.Done} of {p.Total} cells done{failed}{open'}; {duration passed}{left}"

    /// A cell in a line, with its stream where a study has several.
    let name (p: Progress) (c: Cell) : string =
        let several = p.Weights.Keys |> Seq.exists (fun other -> other.Stream <> c.Stream)
        let stream = if several then c.Stream + ": " else ""
        let order = if c.Order = 0 then "" else $", order {c.Order}"
        $"{stream}{c.Method} seed {c.Seed}{order}"

    /// What an event says to people who see no more than how far a study is: what went wrong, what a method remarks, what is resumed.
    let said (p: Progress) (event: StudyEvent) : string option =
        match event with
        | StudyEvent.Cell(_, CellEvent.Ended(CellEnd.Failed(message, _))) -> Some message
        | StudyEvent.Cell(cell, CellEvent.Ended ended) ->
            match CellEnd.faults ended with
            | [] -> None
            | faults ->
                let text = (Fault.Several faults).Message
                Some(if text.StartsWith(cell.Method, StringComparison.Ordinal) then text else $"{name p cell}: {text}")
        | StudyEvent.Cell(cell, CellEvent.Warning fault) -> Some $"{name p cell} goes on: {fault.Message}"
        | StudyEvent.Cell(cell, CellEvent.Resumed steps) -> Some $"{name p cell} resumes after {steps} steps"
        | StudyEvent.Cell(cell, CellEvent.Remark(step, name', text)) -> Some $"{name p cell}, step {step} {name'}: {text}"
        | StudyEvent.Unwritten fault -> Some $"Results cannot be written, so no more cells begin: {fault.Message}"
        | StudyEvent.Stopped cells -> Some $"{cells} cells were not begun or not finished; the same command goes on from here."
        | StudyEvent.Began _
        | StudyEvent.Cell _ -> None

    /// Is it said because something is wrong?
    let isBad (event: StudyEvent) : bool =
        match event with
        | StudyEvent.Cell(_, CellEvent.Ended _)
        | StudyEvent.Cell(_, CellEvent.Warning _)
        | StudyEvent.Unwritten _ -> true
        | _ -> false
