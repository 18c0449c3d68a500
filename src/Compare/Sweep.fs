namespace Cmcl

open System
open System.Diagnostics
open System.IO
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
        Plan: Plan
        Identity: string
        Errand: Errand
        /// Updates of training, all steps together.
        Updates: int64
    }

/// What a sweep tells while it goes on.
[<RequireQualifiedAccess>]
type SweepEvent =
    | Began of Cell
    /// In which step it is, and the share of its updates that are done.
    | Within of Cell * step: string * share: float
    | Ended of Cell * CellEnd

[<RequireQualifiedAccess>]
module Sweep =
    let private updates (stream: Cmcl.Stream) (plan: Plan) : int64 =
        match plan.Method.Curriculum with
        | Curriculum.Never -> 0L
        | _ -> Loop.updates plan.Settings [ for s in stream.Steps -> int64 s.Train.Length ]

    /// The options given that change something for this plan: those that a worker can give it alone.
    let private givenFor (given: (string * string) list) (plan: Plan) : string list list =
        let own = Field.names plan.Method.Fields

        [ for name, value in given do
              if Field.measures name || List.contains name own && Field.matters plan.Settings name then
                  [ name; value ] ]

    let private cell (sweep: Sweep) (s: SweepStream) (written: string, plan: Plan) (order: int) (seed: int) : SweepCell =
        let identity = CellFile.identity (Order.apply order s.Stream) plan seed sweep.Split sweep.Device.``type``

        { Cell =
            { Stream = s.Stream.Name
              Method = plan.Label
              Order = order
              Seed = seed }
          Plan = plan
          Identity = identity
          Errand =
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
              Hash = CellFile.hash identity }
          Updates = updates s.Stream plan }

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
            Ok
                [ for seed in sweep.Seeds do
                      for order in 0 .. sweep.Orders - 1 do
                          yield!
                              [ for s, plans in List.zip sweep.Streams all do
                                    for plan in List.zip sweep.Methods plans -> cell sweep s plan order seed ]
                              |> List.sortBy (fun c -> -c.Updates) ]
        | faults, Ok _ -> Error faults
        | faults, Error more -> Error(List.distinct (faults @ more))

    /// What is known of every cell.
    let states (sweep: Sweep) (cells: SweepCell list) : (SweepCell * CellRecord option) list =
        [ for c in cells -> c, CellFile.read sweep.Out c.Identity c.Cell ]

    /// Takes the folder for a sweep until it is disposed: nothing else may run one there meanwhile. What was left half written is
    /// deleted, and with `force` every cell of this sweep. Faults: a folder with results of another command, one in use, or one that
    /// cannot be written to.
    let claim (force: bool) (sweep: Sweep) (cells: SweepCell list) : Result<IDisposable, Fault list> =
        let folder = CellFile.folder sweep.Out
        let has name = File.Exists(Path.Combine(sweep.Out, name))

        try
            if not (Directory.Exists folder) && List.exists has [ "results.csv"; "config.json"; "verify.csv"; "bench.csv" ] then
                Error
                    [ Fault.Contradiction($"'{sweep.Out}' holds results of another command", "choose another folder with --out") ]
            else
                Directory.CreateDirectory folder |> ignore

                let taken =
                    try
                        // The system lets go of it when this process ends, however it ends.
                        Some(
                            new FileStream(Path.Combine(folder, ".lock"), FileMode.OpenOrCreate, FileAccess.Write, FileShare.None)
                        )
                    with :? IOException ->
                        None

                match taken with
                | None ->
                    Error
                        [ Fault.Contradiction(
                              $"another command is at work in '{sweep.Out}', or it cannot be written to",
                              "wait until it has ended, or choose another folder with --out"
                          ) ]
                | Some lock ->
                    for half in Directory.GetFiles(folder, ".*.json.*") do
                        File.Delete half

                    if force then
                        for c in cells do
                            File.Delete(CellFile.path sweep.Out c.Identity)

                    Ok(lock :> IDisposable)
        with
        | :? IOException
        | :? UnauthorizedAccessException as e -> Error [ Fault.Unwritable(sweep.Out, e.Message) ]

    /// Runs every cell that has no file, in as many worker processes as the sweep's jobs; `start` says how one is started. Cells that
    /// ended without a file are given back with the reason. As `Pool.run` else.
    let run
        (start: unit -> ProcessStartInfo)
        (cancel: CancellationToken)
        (tell: SweepEvent -> unit)
        (sweep: Sweep)
        (cells: SweepCell list)
        : (Cell * string) list =
        let missing =
            states sweep (List.distinctBy _.Identity cells) |> List.filter (snd >> Option.isNone) |> List.map fst |> Array.ofList

        let broken = ResizeArray()

        let tellOne event =
            match event with
            | PoolEvent.Began place -> tell (SweepEvent.Began missing[place].Cell)
            | PoolEvent.Told(place, Answer.Within(step, share)) -> tell (SweepEvent.Within(missing[place].Cell, step, share))
            | PoolEvent.Told(place, Answer.Ended ended) ->
                match ended with
                | CellEnd.Broken message -> broken.Add(missing[place].Cell, message)
                | _ -> ()

                tell (SweepEvent.Ended(missing[place].Cell, ended))

        Pool.run start sweep.Jobs cancel tellOne [ for c in missing -> c.Errand ]
        List.ofSeq broken

    /// What there is now, as a comparison.
    let comparison (command: string) (sweep: Sweep) (cells: SweepCell list) : Comparison =
        // Labels as plans have them, in the order in which the methods were asked for.
        let methods =
            [ for written in sweep.Methods do
                  let c = cells |> List.find (fun c -> c.Errand.Method = written)
                  c.Plan.Label, c.Plan.Method.Curriculum = Curriculum.StepByStep ]

        let place (c: Cell) =
            List.findIndex (fun s -> s.Stream.Name = c.Stream) sweep.Streams,
            List.findIndex (fst >> (=) c.Method) methods,
            c.Order,
            c.Seed

        { Methods = methods
          Streams = [ for s in sweep.Streams -> s.Stream.Name ]
          Seeds = sweep.Seeds
          Orders = sweep.Orders
          Cells = states sweep cells |> List.map (fun (c, record) -> c.Cell, CellFile.state record) |> List.sortBy (fst >> place)
          Command = command }
