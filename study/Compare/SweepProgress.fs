namespace Cmcl

open System

/// How far a sweep is. A value: what is told of a sweep makes the next one.
type SweepProgress =
    {
        Total: int
        Done: int
        /// Diverged, or without a file because something went wrong.
        Failed: int
        /// What runs now: in which step, and the share of its updates that are done.
        Running: Map<Cell, string * float>
        /// Cells that this command has not begun; another may have.
        Waiting: Set<Cell>
        /// Seconds of finished cells by stream and method: how many, and their sum.
        Seconds: Map<string * string, int * float>
    }

[<RequireQualifiedAccess>]
module SweepProgress =
    let private took (cell: Cell) (seconds: float) (s: SweepProgress) : SweepProgress =
        let count, sum = s.Seconds |> Map.tryFind (cell.Stream, cell.Method) |> Option.defaultValue (0, 0.0)

        { s with
            Seconds = s.Seconds |> Map.add (cell.Stream, cell.Method) (count + 1, sum + seconds) }

    /// Where a sweep stands when it begins: what its folder has already.
    let start (states: (Cell * CellRecord option) list) : SweepProgress =
        let add (s: SweepProgress) (cell: Cell, record: CellRecord option) =
            match record with
            | None -> { s with Waiting = s.Waiting.Add cell }
            | Some({ Result = Ok _ } as r) -> took cell r.Seconds { s with Done = s.Done + 1 }
            | Some { Result = Error _ } -> { s with Failed = s.Failed + 1 }

        states
        |> List.fold
            add
            { Total = states.Length
              Done = 0
              Failed = 0
              Running = Map.empty
              Waiting = Set.empty
              Seconds = Map.empty }

    let after (event: SweepEvent) (s: SweepProgress) : SweepProgress =
        match event with
        | SweepEvent.Began cell ->
            { s with
                Running = s.Running.Add(cell, ("", 0.0))
                Waiting = s.Waiting.Remove cell }
        | SweepEvent.Within(cell, step, share) -> { s with Running = s.Running.Add(cell, (step, share)) }
        | SweepEvent.Remark _
        | SweepEvent.Stopped _ -> s
        | SweepEvent.Ended(cell, ended) ->
            let s =
                { s with
                    Running = s.Running.Remove cell
                    Waiting = s.Waiting.Remove cell }

            match ended with
            | CellEnd.Elsewhere -> { s with Waiting = s.Waiting.Add cell }
            | CellEnd.Done seconds -> took cell seconds { s with Done = s.Done + 1 }
            | CellEnd.Failed _
            | CellEnd.Unwritten _
            | CellEnd.Broken _ -> { s with Failed = s.Failed + 1 }

    /// Seconds that are left with so many workers: for each cell that is not finished the mean of its method's finished ones on its
    /// stream, or where there is none the mean of all, less what of it is done. None before the first has ended.
    let left (jobs: int) (s: SweepProgress) : float option =
        let mean (some: (int * float) seq) =
            match Seq.sumBy fst some with
            | 0 -> None
            | count -> Some(Seq.sumBy snd some / float count)

        mean s.Seconds.Values
        |> Option.map (fun overall ->
            let expected (c: Cell) =
                s.Seconds |> Map.tryFind (c.Stream, c.Method) |> Option.toList |> mean |> Option.defaultValue overall

            let running = s.Running |> Seq.sumBy (fun (KeyValue(cell, (_, share))) -> (1.0 - share) * expected cell)
            (running + Seq.sumBy expected s.Waiting) / float (max 1 jobs))
