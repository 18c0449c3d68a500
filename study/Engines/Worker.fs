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

[<RequireQualifiedAccess>]
module WorkerJob =
    /// A job as another process can make it, with results in a folder and so many workers side by side.
    let internal ofJob (out: string) (jobs: int) (written: AsWritten) (job: Job) : WorkerJob =
        { Source = written.Source
          Method = written.Method
          Given = [ for name, value in written.Given -> [ name; value ] ]
          Seed = job.Seed
          Order = job.Order
          Split = string job.Protocol.Split
          Device = string job.Protocol.Device
          Threads = job.Protocol.Threads
          Jobs = jobs
          Out = Path.GetFullPath out
          Hash = Identity.hash (Job.identity job) }

/// What a worker reads and writes: a line each.
[<RequireQualifiedAccess>]
module Line =
    let ofJob (job: WorkerJob) : string = JsonSerializer.Serialize job

    /// None for a line that is none.
    let job (line: string) : WorkerJob option = Child.line line

    let private number (x: float) = x.ToString("R", CultureInfo.InvariantCulture)
    let private sentences (faults: Fault list) = String.Join(" ", [ for f in faults -> f.Message ])

    /// A list of texts: what it is, and what it says. A fault becomes the sentence that tells it.
    let ofEvent (event: CellEvent) : string =
        JsonSerializer.Serialize(
            match event with
            | CellEvent.Started -> [ "started" ]
            | CellEvent.Resumed steps -> [ "resumed"; string steps ]
            | CellEvent.Progress p ->
                [ "progress"; string p.Step; string p.Steps; p.Name; number p.Share ]
                @ [ for e in Option.toList p.Epoch do
                        yield! [ string e.Number; string e.Of; number e.Loss ] ]
            | CellEvent.Remark(step, name, text) -> [ "remark"; string step; name; text ]
            | CellEvent.Warning fault -> [ "warning"; fault.Message ]
            | CellEvent.Ended ended ->
                match ended with
                | CellEnd.Finished(seconds, before) -> [ "finished"; number seconds; string before ]
                | CellEnd.Failed(message, before) -> [ "failed"; message; string before ]
                | CellEnd.Broken faults -> [ "broken"; sentences faults ]
                | CellEnd.Unwritten faults -> [ "unwritten"; sentences faults ]
                | CellEnd.Elsewhere -> [ "elsewhere" ]
                | CellEnd.Stopped -> [ "stopped" ]
        )

    /// None for a line that is none: a native library may have its own to say.
    let event (line: string) : CellEvent option =
        let real (text: string) = Double.Parse(text, CultureInfo.InvariantCulture)
        let told text = [ Fault.Told text ]

        match Child.line<string list> line with
        | Some [ "started" ] -> Some CellEvent.Started
        | Some [ "resumed"; steps ] -> Some(CellEvent.Resumed(int steps))
        | Some("progress" :: step :: steps :: name :: share :: ([] | [ _; _; _ ] as epoch)) ->
            Some(
                CellEvent.Progress
                    { Step = int step
                      Steps = int steps
                      Name = name
                      Epoch =
                        match epoch with
                        | [ number; all; loss ] -> Some { Number = int number; Of = int all; Loss = real loss }
                        | _ -> None
                      Share = real share }
            )
        | Some [ "remark"; step; name; text ] -> Some(CellEvent.Remark(int step, name, text))
        | Some [ "warning"; text ] -> Some(CellEvent.Warning(Fault.Told text))
        | Some [ "finished"; seconds; before ] -> Some(CellEvent.Ended(CellEnd.Finished(real seconds, Boolean.Parse before)))
        | Some [ "failed"; message; before ] -> Some(CellEvent.Ended(CellEnd.Failed(message, Boolean.Parse before)))
        | Some [ "broken"; text ] -> Some(CellEvent.Ended(CellEnd.Broken(told text)))
        | Some [ "unwritten"; text ] -> Some(CellEvent.Ended(CellEnd.Unwritten(told text)))
        | Some [ "elsewhere" ] -> Some(CellEvent.Ended CellEnd.Elsewhere)
        | Some [ "stopped" ] -> Some(CellEvent.Ended CellEnd.Stopped)
        | _ -> None

/// A process that runs cells for another and leaves their files.
[<RequireQualifiedAccess>]
module Worker =
    let private split (name: string) : Split =
        [ Split.Train; Split.Validation; Split.Test ] |> List.find (fun s -> string s = name)

    /// The job that is meant, on its stream. Fault: `Contradiction` where it is another one by now.
    let private jobOn (e: WorkerJob) (stream: Cmcl.Stream) : Result<Job, Fault list> =
        let stream = Order.apply e.Order stream
        let given = [ for pair in e.Given -> pair[0], pair[1] ]

        Plan.resolve stream.Preset given [ e.Method ]
        |> Result.bind (fun plans ->
            let job =
                { Stream = stream
                  Order = e.Order
                  Plan = List.exactlyOne plans
                  Seed = e.Seed
                  Protocol =
                    { Split = split e.Split
                      Device = torch.device e.Device
                      Threads = e.Threads
                      Monitor = None }
                  AsWritten = Some { Source = e.Source; Method = e.Method; Given = given } }

            if Identity.hash (Job.identity job) = e.Hash then
                Ok job
            else
                Error
                    [ Fault.Contradiction(
                          $"the stream '{e.Source}' or this program has changed since the comparison began",
                          "start the same command again"
                      ) ])

    /// The job that is meant, with its data. Faults: why there is none, also an exception.
    let job (find: string -> Result<Cmcl.Stream, Fault list>) (e: WorkerJob) : Result<Job, Fault list> =
        try
            find e.Source |> Result.bind (jobOn e)
        with e ->
            Error [ Fault.Told(Check.reason e) ]

    /// Runs one job, unless another process has it or has finished it since. Whatever goes wrong is told, and the next one is run: a worker has nobody
    /// else to tell.
    let private run (leave: unit -> bool) (tell: CellEvent -> unit) (e: WorkerJob) (job: Job) : CellEnd =
        let settings =
            { JobSettings.on (Store.Folder e.Out) with
                Checkpointing = Checkpointing.auto
                Jobs = e.Jobs }

        try
            fst (Job.run settings leave tell job)
        with e ->
            CellEnd.Broken [ Fault.Told(Check.reason e) ]

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

        let tell (event: CellEvent) =
            output.WriteLine(Line.ofEvent event)
            output.Flush()

        /// Whether the cell came to an end. How is told, but that it was left: this process's exit code tells that.
        let ended (line: string) : bool =
            let ended =
                match Line.job line with
                | None -> CellEnd.Broken [ Fault.Told $"a worker cannot read '{line}'" ]
                | Some asked ->
                    match job streamOf asked with
                    | Ok job -> run leave tell asked job
                    | Error faults -> CellEnd.Broken faults

            if ended <> CellEnd.Stopped then
                tell (CellEvent.Ended ended)

            ended <> CellEnd.Stopped

        jobs.GetConsumingEnumerable() |> Seq.forall ended
