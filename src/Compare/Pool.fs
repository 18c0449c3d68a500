namespace Cmcl

open System
open System.Collections.Concurrent
open System.ComponentModel
open System.Diagnostics
open System.IO
open System.Text
open System.Threading

/// What a pool tells of its cells, by their places.
[<RequireQualifiedAccess>]
type PoolEvent =
    | Began of place: int
    | Told of place: int * answer: Answer

/// Worker processes: one that dies takes its own cell with it and nothing else.
[<RequireQualifiedAccess>]
module Pool =
    /// The last lines of standard error that are told when a worker dies.
    [<Literal>]
    let private TailLines = 3

    /// A worker, and what it said last on standard error.
    type private Hand = { Process: Process; Tail: ConcurrentQueue<string> }

    let private hire (start: unit -> ProcessStartInfo) : Hand =
        let info = start ()
        let utf8 = UTF8Encoding false
        info.RedirectStandardInput <- true
        info.RedirectStandardOutput <- true
        info.RedirectStandardError <- true
        info.StandardInputEncoding <- utf8
        info.StandardOutputEncoding <- utf8
        info.StandardErrorEncoding <- utf8
        info.UseShellExecute <- false
        let p = Process.Start info |> Option.ofObj |> Option.get
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
    let private dismiss (hand: Hand) : unit =
        if not hand.Process.HasExited then
            hand.Process.Kill()

        hand.Process.WaitForExit()
        hand.Process.Dispose()

    /// How a worker ended that should not have.
    let private death (hand: Hand) : CellEnd =
        hand.Process.WaitForExit()
        let said = String.Join(" | ", hand.Tail)
        let words = if said = "" then "" else $" and said: {said}"
        CellEnd.Broken $"its worker ended with exit code {hand.Process.ExitCode}{words}"

    /// Has a worker run a cell. False if it can run no other.
    let private work (hand: Hand) (errand: Errand) (tell: Answer -> unit) : bool =
        let isEnd =
            function
            | Answer.Ended _ -> true
            | Answer.Within _ -> false

        try
            hand.Process.StandardInput.WriteLine(Line.ofErrand errand)
            hand.Process.StandardInput.Flush()
        with :? IOException ->
            ()

        let answers =
            Seq.initInfinite (fun _ -> hand.Process.StandardOutput.ReadLine() |> Option.ofObj)
            |> Seq.takeWhile _.IsSome
            |> Seq.choose (Option.bind Line.answer)

        match
            answers
            |> Seq.tryFind (fun answer ->
                if not (isEnd answer) then
                    tell answer

                isEnd answer)
        with
        | Some ended ->
            tell ended
            true
        | None ->
            tell (Answer.Ended(death hand))
            false

    /// Runs every errand, in their order, by as many workers side by side; `start` says how one is started. A worker that dies is
    /// replaced, its cell ends as `CellEnd.Broken`. `tell` is called by one at a time. When `cancel` says so the workers are ended at
    /// once, and no more is told.
    let run
        (start: unit -> ProcessStartInfo)
        (jobs: int)
        (cancel: CancellationToken)
        (tell: PoolEvent -> unit)
        (errands: Errand list)
        : unit =
        let waiting = ConcurrentQueue(List.indexed errands)
        let gate = obj ()

        let tellOne event =
            lock gate (fun () ->
                if not cancel.IsCancellationRequested then
                    tell event)

        let take () =
            match cancel.IsCancellationRequested, waiting.TryDequeue() with
            | false, (true, next) -> Some next
            | _ -> None

        let desk () =
            let mutable hand: Hand option = None
            let mutable next = take ()

            let finished (h: Hand) (place, errand) =
                use _ = cancel.Register(fun () -> h.Process.Kill())
                work h errand (fun answer -> tellOne (PoolEvent.Told(place, answer)))

            let give work (h: Hand) =
                hand <- Some h

                if not (finished h work) then
                    dismiss h
                    hand <- None

            try
                while next.IsSome do
                    let place, errand = next.Value
                    tellOne (PoolEvent.Began place)

                    try
                        hand |> Option.defaultWith (fun () -> hire start) |> give (place, errand)
                    with :? Win32Exception as e ->
                        tellOne (PoolEvent.Told(place, Answer.Ended(CellEnd.Broken $"no worker can be started: {e.Message}")))

                    next <- take ()
            finally
                Option.iter dismiss hand

        let threads = [ for _ in 1 .. min jobs errands.Length -> Thread(desk) ]

        for t in threads do
            t.Start()

        for t in threads do
            t.Join()
