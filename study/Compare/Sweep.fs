namespace Cmcl

open System
open System.Collections.Generic
open System.Diagnostics
open System.IO
open System.Text.Json.Serialization
open System.Threading
open TorchSharp

/// A stream of a sweep.
type SweepStream =
    {
        /// As the user named it.
        Source: string
        Stream: Cmcl.Stream
        /// Threads of libtorch in a worker that runs it.
        Threads: int
    }

/// Methods × seeds × orders × streams: what a comparison or a search for settings runs, a cell each, in worker processes.
type Sweep =
    {
        Streams: SweepStream list
        /// As written, each `NAME` or `NAME[OPTION=VALUE;…]`.
        Methods: string list
        /// Options for every method that takes them.
        Given: (string * string) list
        Seeds: int list
        /// How many orders of the steps: 0 .. n − 1.
        Orders: int
        Split: Split
        Device: torch.Device
        /// Workers side by side.
        Jobs: int
        Out: string
    }

/// A cell of a sweep with what decides its figures and what a worker has to know. Cells that are the same under two labels have one
/// identity, and run once.
type SweepCell =
    {
        Cell: Cell
        /// What its method's figures are to be read as (`Role.name`).
        Role: string
        Identity: string
        /// `cells.jsonl` calls it so.
        [<JsonPropertyName "Errand">]
        Job: WorkerJob
        /// Updates of training, all steps together.
        Updates: int64
        /// The most memory that its process will hold, in bytes, as far as its stream's size tells.
        Memory: int64
    }

[<RequireQualifiedAccess>]
module Sweep =
    /// What a process holds without data; and how often a stream's features stand in memory as float32: as stored, and what of
    /// them is gathered, projected and compared at one time.
    let private own, often = 350L <<< 20, 3L

    let private memory (stream: Cmcl.Stream) : int64 =
        let banks = stream.Steps |> List.collect (fun s -> [ s.A; s.B ]) |> List.distinctBy _.Name
        own + often * 4L * (banks |> List.sumBy _.Features.numel())

    /// The options given that change something for this plan: those that a worker can give it alone.
    let private givenFor (given: (string * string) list) (plan: Plan) : string list list =
        [ for name, value in given do
              if Settings.measures name || Plan.takes plan name && Plan.matters plan name then
                  [ name; value ] ]

    let private cell
        (sweep: Sweep)
        (s: SweepStream)
        (order: int, ordered: Cmcl.Stream)
        (written: string, plan: Plan)
        (seed: int)
        : SweepCell =
        let job =
            { Stream = ordered
              Order = order
              Plan = plan
              Seed = seed }

        let protocol =
            { Split = sweep.Split
              Device = sweep.Device
              Threads = s.Threads
              Monitor = None }

        let identity = Job.identity protocol job

        { Cell = job.Cell
          Role = Role.name plan.Method.Role
          Identity = identity
          Job =
            { Source = s.Source
              Method = written
              Given = givenFor sweep.Given plan
              Seed = seed
              Order = order
              Split = string sweep.Split
              Device = string sweep.Device
              Threads = s.Threads
              Jobs = sweep.Jobs
              Out = Path.GetFullPath sweep.Out
              Hash = Identity.hash identity }
          Updates = Train.work s.Stream plan
          Memory = memory s.Stream }

    let private plans (sweep: Sweep) (s: SweepStream) : Result<Plan list, Fault list> =
        Plan.resolve s.Stream.Preset sweep.Given sweep.Methods
        |> Result.bind (fun plans ->
            match plans |> List.collect (Plan.check s.Stream) with
            | [] -> Ok plans
            | faults -> Error faults)

    let private streamFaults (sweep: Sweep) : Fault list =
        [ for name, times in sweep.Streams |> List.countBy _.Stream.Name do
              if times > 1 then
                  Fault.Contradiction($"two streams have the name '{name}'", "compare streams of different names")
          for s in sweep.Streams do
              let orders = Order.count s.Stream.Steps.Length

              if sweep.Orders > orders then
                  Fault.BadValue(
                      "--orders",
                      $"at most {orders} for the {s.Stream.Steps.Length} steps of {s.Stream.Name}",
                      string sweep.Orders
                  ) ]

    /// Every cell, in the order in which they run: one seed and one order of all methods and streams after another, so that what is
    /// finished can be compared whenever a sweep is broken off; within such a round the dearest first, so that the cheap ones fill the
    /// gaps at its end. All that is wrong with any plan on any stream is told at once.
    let cells (sweep: Sweep) : Result<SweepCell list, Fault list> =
        match streamFaults sweep, sweep.Streams |> List.map (plans sweep) |> Check.all with
        | [], Ok all ->
            let streams =
                [ for s, plans in List.zip sweep.Streams all ->
                      s, List.zip sweep.Methods plans, Array.ofList (Order.first sweep.Orders s.Stream) ]

            Ok
                [ for seed in sweep.Seeds do
                      for order in 0 .. sweep.Orders - 1 do
                          yield!
                              [ for s, plans, ordered in streams do
                                    for plan in plans -> cell sweep s (order, ordered[order]) plan seed ]
                              |> List.sortBy (fun c -> -c.Updates) ]
        | faults, Ok _ -> Error faults
        | faults, Error more -> Error(List.distinct (faults @ more))

    /// What is known of every cell.
    let states (cells: SweepCell list) : (SweepCell * CellRecord option) list =
        [ for c in cells -> c, CellFile.read c.Job.Out c.Identity ]

    /// The measurements of a finished cell, as rows of `results.csv` without aggregates.
    let rows (c: SweepCell) (record: CellRecord) : Row list =
        match record.Result with
        | Ok result -> Lines.rows c.Cell result.Outcome
        | Error _ -> []

    /// The files of cells that cannot be read or were changed, so that these cells are run again.
    let damaged (cells: SweepCell list) : Fault list =
        [ for c in List.distinctBy _.Identity cells do
              match CellFile.check c.Job.Out c.Identity with
              | Ok _ -> ()
              | Error faults -> yield! faults ]

    /// Makes sure that a sweep can go to the folder, and with `force` deletes what it has of these cells. Faults: a folder with results
    /// of another command, one that cannot be written to, or where no lock keeps two processes from one cell; with `force` one where
    /// another process runs any of them.
    let prepare (force: bool) (out: string) (cells: SweepCell list) : Result<unit, Fault list> =
        let has name = File.Exists(Path.Combine(out, name))

        try
            if
                not (Directory.Exists(CellFile.folder out))
                && List.exists has [ "results.csv"; "config.json"; "verify.csv"; "bench.csv" ]
            then
                Error [ Fault.Contradiction($"'{out}' holds results of another command", "choose another folder with --out") ]
            elif not (CellLock.keeps out) then
                Error
                    [ Fault.Contradiction(
                          $"the file system of '{out}' keeps no locks, so that two workers could run one cell",
                          "choose a folder on another with --out"
                      ) ]
            elif force then
                Store.forget (Store.Folder out) [ for c in cells -> c.Identity ]
            else
                Ok()
        with
        | :? IOException
        | :? UnauthorizedAccessException as e -> Error [ Fault.Unwritable(out, e.Message) ]

    /// How often it is looked what has become of cells that other processes run.
    let private look = TimeSpan.FromSeconds 1.0

    /// Waits for cells that other processes run: until all are finished, or until one is free again, for its process has died. Those
    /// that are not finished then.
    let private await
        (cancel: CancellationToken)
        (ended: SweepCell -> CellEnd -> unit)
        (elsewhere: SweepCell list)
        : SweepCell list =
        let isFree (c: SweepCell) = not (CellLock.isTaken c.Job.Out c.Job.Hash)
        let mutable left = elsewhere
        let mutable free = false

        while not (free || left.IsEmpty || cancel.IsCancellationRequested) do
            left <-
                [ for c, record in states left do
                      match record with
                      | Some record -> ended c (CellEnd.ofRecord true record)
                      | None -> c ]

            free <- List.exists isFree left

            if not (free || left.IsEmpty) then
                cancel.WaitHandle.WaitOne look |> ignore

        left

    /// Runs every cell that has no file, in so many worker processes; `start` says how one is started. Cells that other
    /// processes run are waited for, and run here if those die. Cells that ended without a file are given back with the reason. When a
    /// result cannot be written, no more are begun.
    /// As `Pool.run` else.
    let run
        (start: unit -> ProcessStartInfo)
        (jobs: int)
        (cancel: CancellationToken)
        (tell: StudyEvent -> unit)
        (cells: SweepCell list)
        : (Cell * string) list =
        let broken = ResizeArray()
        let begun = HashSet()
        let mutable unwritten: Fault list = []
        let all = List.distinctBy _.Identity cells

        let mutable left = states all |> List.filter (snd >> Option.isNone) |> List.map fst

        while not (left.IsEmpty || not unwritten.IsEmpty || cancel.IsCancellationRequested) do
            let now = Array.ofList left
            let elsewhere = ResizeArray()

            let tellOne place event =
                let c = now[place]

                match event with
                | CellEvent.Started -> begun.Add c.Identity |> ignore
                | CellEvent.Ended ended ->
                    match ended with
                    | CellEnd.Broken faults -> broken.Add(c.Cell, (Fault.Several faults).Message)
                    | CellEnd.Unwritten faults ->
                        unwritten <- faults
                        broken.Add(c.Cell, (Fault.Several faults).Message)
                    | CellEnd.Elsewhere -> elsewhere.Add c
                    | _ -> ()
                | _ -> ()

                tell (StudyEvent.Cell(c.Cell, event))

            Pool.run start jobs cancel tellOne [ for c in now -> c.Job ]

            if not unwritten.IsEmpty then
                List.iter (StudyEvent.Unwritten >> tell) unwritten
                tell (StudyEvent.Stopped(left |> List.filter (fun c -> not (begun.Contains c.Identity)) |> List.length))
            else
                left <- await cancel (fun c ended -> tell (StudyEvent.Cell(c.Cell, CellEvent.Ended ended))) (List.ofSeq elsewhere)

        List.ofSeq broken

    /// What there is now, as a comparison.
    let comparison (command: string) (sweep: Sweep) (cells: SweepCell list) : Comparison =
        // Labels as plans have them, in the order in which the methods were asked for.
        let methods =
            [ for written in sweep.Methods do
                  let c = cells |> List.find (fun c -> c.Job.Method = written)
                  c.Cell.Method, Role.parse c.Role |> Option.defaultWith (fun () -> Roles.find Map.empty c.Cell.Method) ]

        let place (c: Cell) =
            List.findIndex (fun s -> s.Stream.Name = c.Stream) sweep.Streams,
            List.findIndex (fst >> (=) c.Method) methods,
            c.Order,
            c.Seed

        let state (c: SweepCell) (record: CellRecord option) =
            record |> Option.map CellState.ofRecord |> Option.defaultValue CellState.Missing |> CellState.map (rows c)

        { Methods = methods
          Streams = [ for s in sweep.Streams -> s.Stream.Name ]
          Seeds = sweep.Seeds
          Orders = sweep.Orders
          Cells = states cells |> List.map (fun (c, record) -> c.Cell, state c record) |> List.sortBy (fst >> place)
          Command = command }
