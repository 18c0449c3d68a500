namespace Cmcl

open System
open System.Collections.Concurrent
open System.Collections.Generic
open System.Diagnostics
open System.Globalization
open System.IO
open System.Text.Json
open System.Threading
open TorchSharp

/// A cell as the process that is to run it is told of it: one line of JSON.
type WorkerJob =
    {
        /// The stream as the user named it.
        Source: string
        /// The method as written.
        Method: string
        /// Options given for every method that takes them, each a name and a value.
        Given: string list list
        Seed: int
        Order: int
        Split: string
        Device: string
        Threads: int
        /// Workers side by side, for the record.
        Jobs: int
        Out: string
        /// What the cell's identity has to come to (`Identity.hash`).
        Hash: string
    }

/// How a cell ended.
[<RequireQualifiedAccess>]
type CellEnd =
    /// Its file is written.
    | Done of seconds: float
    /// It diverged, and its file says so.
    | Failed of message: string
    /// It has no file: something went wrong that need not go wrong again.
    | Broken of message: string
    /// It has no file, since none can be written: neither can another's.
    | Unwritten of message: string
    /// Another process runs it.
    | Elsewhere

[<RequireQualifiedAccess>]
module CellEnd =
    let ofRecord (record: CellRecord) : CellEnd =
        match record.Result with
        | Ok _ -> CellEnd.Done record.Seconds
        | Error message -> CellEnd.Failed message

/// What a worker tells of the cell that it runs.
[<RequireQualifiedAccess>]
type WorkerEvent =
    /// In which step it is, and the share of its updates that are done.
    | Within of step: string * share: float
    /// What went wrong beside it: a checkpoint that cannot be written or read.
    | Remark of text: string
    | Ended of CellEnd

/// What a worker reads and writes: a line each.
[<RequireQualifiedAccess>]
module Line =
    let ofJob (job: WorkerJob) : string = JsonSerializer.Serialize job

    /// None for a line that is none.
    let job (line: string) : WorkerJob option = Child.line line

    /// A list of texts: what it is, and what it says.
    let ofEvent (event: WorkerEvent) : string =
        let number (x: float) = x.ToString("R", CultureInfo.InvariantCulture)

        JsonSerializer.Serialize(
            match event with
            | WorkerEvent.Within(step, share) -> [ "within"; number share; step ]
            | WorkerEvent.Remark text -> [ "remark"; text ]
            | WorkerEvent.Ended(CellEnd.Done seconds) -> [ "done"; number seconds ]
            | WorkerEvent.Ended(CellEnd.Failed message) -> [ "failed"; message ]
            | WorkerEvent.Ended(CellEnd.Broken message) -> [ "broken"; message ]
            | WorkerEvent.Ended(CellEnd.Unwritten message) -> [ "unwritten"; message ]
            | WorkerEvent.Ended CellEnd.Elsewhere -> [ "elsewhere" ]
        )

    /// None for a line that is none: a native library may have its own to say.
    let event (line: string) : WorkerEvent option =
        let number (text: string) = Double.Parse(text, CultureInfo.InvariantCulture)

        match Child.line<string list> line with
        | Some [ "within"; share; step ] -> Some(WorkerEvent.Within(step, number share))
        | Some [ "remark"; text ] -> Some(WorkerEvent.Remark text)
        | Some [ "done"; seconds ] -> Some(WorkerEvent.Ended(CellEnd.Done(number seconds)))
        | Some [ "failed"; message ] -> Some(WorkerEvent.Ended(CellEnd.Failed message))
        | Some [ "broken"; message ] -> Some(WorkerEvent.Ended(CellEnd.Broken message))
        | Some [ "unwritten"; message ] -> Some(WorkerEvent.Ended(CellEnd.Unwritten message))
        | Some [ "elsewhere" ] -> Some(WorkerEvent.Ended CellEnd.Elsewhere)
        | _ -> None

/// A process that runs cells for another and leaves their files.
[<RequireQualifiedAccess>]
module Worker =
    let private split (name: string) : Split =
        [ Split.Train; Split.Validation; Split.Test ] |> List.find (fun s -> string s = name)

    let private sentences (faults: Fault list) = String.Join(" ", [ for f in faults -> f.Message ])

    /// Runs one cell on the stream of its job, unless another process has it or has finished it since. None: it was left, and its state is kept.
    let private runOn
        (leave: unit -> bool)
        (tell: WorkerEvent -> unit)
        (e: WorkerJob)
        (stream: Cmcl.Stream)
        : Result<CellEnd option, Fault list> =
        let stream = Order.apply e.Order stream
        let given = [ for pair in e.Given -> pair[0], pair[1] ]

        Plan.resolve stream.Preset given [ e.Method ]
        |> Result.map List.exactlyOne
        |> Result.bind (fun plan ->
            let job =
                { Stream = stream
                  Order = e.Order
                  Plan = plan
                  Seed = e.Seed }

            let protocol =
                { Split = split e.Split
                  Device = torch.device e.Device
                  Threads = e.Threads
                  Monitor = None }

            let settings =
                { JobSettings.on protocol (Store.Folder e.Out) with
                    Checkpointing = Checkpointing.auto
                    Jobs = e.Jobs }

            let tellOf =
                function
                | JobEvent.Training(Event.Epoch(step, _, _, sofar, total))
                | JobEvent.Training(Event.Solved(step, sofar, total)) ->
                    tell (WorkerEvent.Within(step.Name, float sofar / float (max 1L total)))
                | JobEvent.Warning fault -> tell (WorkerEvent.Remark fault.Message)
                | JobEvent.Training(Event.Remark _)
                | JobEvent.Started
                | JobEvent.Resumed _ -> ()

            if Identity.hash (Job.identity protocol job) <> e.Hash then
                Error
                    [ Fault.Contradiction(
                          $"the stream '{e.Source}' or this program has changed since the comparison began",
                          "start the same command again"
                      ) ]
            else
                match Job.run settings leave tellOf job with
                | JobEnd.Finished(record, _) -> Ok(Some(CellEnd.ofRecord record))
                | JobEnd.Broken faults -> Ok(Some(CellEnd.Broken(sentences faults)))
                | JobEnd.Unwritten(_, faults) -> Ok(Some(CellEnd.Unwritten(sentences faults)))
                | JobEnd.Elsewhere -> Ok(Some CellEnd.Elsewhere)
                | JobEnd.Stopped -> Ok None)

    /// Whatever goes wrong is told, and the next cell is run: a worker has nobody else to tell.
    let private runWith
        (find: string -> Result<Cmcl.Stream, Fault list>)
        (leave: unit -> bool)
        (tell: WorkerEvent -> unit)
        (job: WorkerJob)
        : CellEnd option =
        try
            match find job.Source |> Result.bind (runOn leave tell job) with
            | Ok ended -> ended
            | Error faults -> Some(CellEnd.Broken(sentences faults))
        with e ->
            Some(CellEnd.Broken(Check.reason e))

    /// Runs one cell in this process. None if `leave`, asked after every update, said to stop; its last checkpoint is kept.
    let run (leave: unit -> bool) (tell: WorkerEvent -> unit) (job: WorkerJob) : CellEnd option =
        use scope = torch.NewDisposeScope()
        runWith Catalogue.find leave tell job

    /// Runs what `input` asks for, a line a cell, and tells on `output`. The end of `input` means that nobody waits for an answer:
    /// `alone` is called at once, in the midst of a cell too. False: it left in the midst of a cell, whose state is kept, because `leave` said so.
    let serve (input: TextReader) (output: TextWriter) (leave: unit -> bool) (alone: unit -> unit) : bool =
        use jobs = new BlockingCollection<string>()

        let listen () =
            let lines = Seq.initInfinite (fun _ -> input.ReadLine()) |> Seq.map Option.ofObj |> Seq.takeWhile _.IsSome

            for line in lines do
                Option.iter jobs.Add line

            alone ()
            jobs.CompleteAdding()

        Thread(listen, IsBackground = true).Start()
        use scope = torch.NewDisposeScope()
        let loaded = Dictionary<string, Cmcl.Stream>()

        let streamOf (source: string) =
            match loaded.TryGetValue source with
            | true, stream -> Ok stream
            | _ ->
                Catalogue.find source
                |> Result.map (fun stream ->
                    loaded[source] <- stream
                    stream)

        let tell (event: WorkerEvent) =
            output.WriteLine(Line.ofEvent event)
            output.Flush()

        /// Whether the cell came to an end, which is told.
        let ended (line: string) : bool =
            let ended =
                match Line.job line with
                | None -> Some(CellEnd.Broken $"a worker cannot read '{line}'")
                | Some job -> runWith streamOf leave tell job

            Option.iter (WorkerEvent.Ended >> tell) ended
            ended.IsSome

        jobs.GetConsumingEnumerable() |> Seq.forall ended
