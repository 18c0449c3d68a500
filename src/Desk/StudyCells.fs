namespace Cmcl

open System
open System.IO
open TorchSharp

/// Running the cells of a study and putting together what they leave.
[<RequireQualifiedAccess>]
module internal StudyCells =
    type private Cell = { Plan: Plan; Order: int; Seed: int; Stream: Cmcl.Stream }

    /// What is set for every method, and by each that takes it again: it would change nothing.
    let private idle (study: Study) (plans: Plan list) : Fault list =
        [ for name, value in study.Given do
              let taking = List.zip study.Configs plans |> List.filter (fun (_, p) -> Plan.takes p name)

              if not taking.IsEmpty && taking |> List.forall (fun (c, _) -> List.exists (fst >> (=) name) c.Options) then
                  Fault.Contradiction(
                      $"'{name}={value}' for all methods changes nothing: each that takes '{name}' sets its own",
                      "leave it out, or let one method keep to it"
                  ) ]

    let plans (study: Study) : Result<Plan list, Fault list> =
        let own = study.Configs |> List.choose _.Own

        let find name =
            match own |> List.tryFind (fun e -> e.Method.Name = name) with
            | Some e -> Ok e
            | None -> Registry.find name

        let unlike =
            [ for name, methods in own |> List.groupBy _.Method.Name do
                  if methods |> List.exists (fun e -> not (obj.ReferenceEquals(e.Source, methods.Head.Source))) then
                      Fault.Contradiction($"two methods of this study have the name '{name}'", "give each a Name of its own") ]

        match unlike with
        | _ :: _ -> Error unlike
        | [] when study.Configs.IsEmpty -> Error [ Fault.BadValue("methods of a study", "one or more (Run.method)", "none") ]
        | [] ->
            Plan.resolveWith find study.Stream.Preset study.Given (study.Configs |> List.map _.Label)
            |> Result.bind (fun plans ->
                match idle study plans @ List.collect (Plan.check study.Stream) plans with
                | [] -> Ok plans
                | faults -> Error faults)

    let private threads (study: Study) : int =
        let widest = Stream.modalities study.Stream |> List.map snd |> List.max

        study.Threads |> Option.defaultValue (if widest <= 512L then 1 else Environment.ProcessorCount)

    let private jobs (study: Study) (cells: int) : int =
        study.Jobs
        |> Option.defaultValue (if study.Device.``type`` = DeviceType.CPU then Environment.ProcessorCount / threads study else 1)
        |> max 1
        |> min cells

    let private checkpoints (study: Study) (cell: Cell) : CheckpointFolder option =
        let known = List.contains cell.Plan.Method.Name Registry.names
        let own = study.Configs |> List.exists (fun c -> c.Own.IsSome && c.Name = cell.Plan.Method.Name)

        match study.Folder with
        | Some folder when known && not own ->
            Some(
                CheckpointFolder.Of(
                    Path.Combine(folder, "cells"),
                    cell.Stream,
                    cell.Plan,
                    cell.Seed,
                    study.Split,
                    study.Device,
                    1
                )
            )
        | _ -> None

    /// A cell that is over: whether it was finished before, and why its folder does not have it, if so.
    type private Over = { Outcome: Outcome; Before: bool; Unwritten: Fault list }

    let private name (cell: Cell) : string =
        let order = if cell.Order = 0 then "" else $", order {cell.Order}"
        $"{cell.Plan.Label} (seed {cell.Seed}{order})"

    /// What a cell came to; None if it was left. A checkpoint that cannot be read or written is told to `unkept`.
    let private run
        (study: Study)
        (leave: unit -> bool)
        (unkept: Fault list -> unit)
        (cell: Cell)
        : Result<Over option, Fault list> =
        torch.set_num_threads (threads study)
        use scope = torch.NewDisposeScope()

        let over write ending =
            match ending with
            | Ending.Left -> None
            | Ending.Over outcome ->
                Some
                    { Outcome = outcome
                      Before = false
                      Unwritten =
                        match write outcome with
                        | Ok() -> []
                        | Error faults -> faults }

        let train keeper from = Train.resume cell.Stream study.Device study.Split cell.Seed Observer.silent keeper from cell.Plan

        match checkpoints study cell with
        | None -> train (Cadence.keeper Cadence.Never leave ignore) None |> Result.map (over (fun _ -> Ok()))
        | Some kept ->
            let keep reached = kept.Write { Reached = reached; Monitor = [] }

            let go state =
                let keeper = Cadence.keeper Cadence.Auto leave (Reached.Midst >> keep >> Result.defaultWith unkept)
                train keeper state |> Result.map (over (Reached.End >> keep))

            kept.Latest()
            |> Result.bind (fun (found, unread) ->
                unkept unread

                match found with
                | Some { Reached = Reached.End outcome } -> Ok(Some { Outcome = outcome; Before = true; Unwritten = [] })
                | Some { Reached = Reached.Midst state } -> go (Some state)
                | None -> go None)

    let private info
        (study: Study)
        (plans: Plan list)
        (jobs: int)
        (left: int)
        (failures: (string * int * string) list)
        : RunInfo =
        Record.write
            DateTimeOffset.Now
            left
            failures
            { Stream = study.Stream
              Source = study.Stream.Name
              Plans = plans
              Seeds = study.Seeds
              Device = study.Device
              Split = study.Split
              SaveWeights = false
              Monitor = None
              Jobs = jobs
              Out = study.Folder |> Option.defaultValue ""
              Command = study.Command
              Arguments = [] }
        |> RunInfo.parse

    let private gather (study: Study) (info: RunInfo) (ended: (Cell * Outcome) list) : StudyResult =
        let rowsOf order =
            let rows =
                [ for cell, outcome in ended do
                      if cell.Order = order then
                          yield! Lines.rows study.Stream cell.Plan cell.Seed outcome ]

            rows @ Results.aggregates rows

        let first = ended |> List.filter (fun (cell, _) -> cell.Order = 0)

        { Info = info
          Rows = rowsOf 0
          Orders = Map [ for order in study.Orders |> List.except [ 0 ] -> order, rowsOf order ]
          Losses = first |> List.collect (fun (cell, outcome) -> Lines.lossRows cell.Plan cell.Seed outcome)
          Spectra =
            [ for cell, outcome in first do
                  if cell.Seed = study.Seeds.Head then
                      yield! Lines.spectrumRows cell.Plan cell.Seed outcome ]
          Monitor = [] }

    let private runAll (study: Study) (plans: Plan list) (folder: FolderLock option) : StudyResult =
        let streams = Map [ for order in study.Orders -> order, Order.apply order study.Stream ]

        let cells =
            [| for order in study.Orders do
                   for plan in plans do
                       for seed in study.Seeds ->
                           { Plan = plan
                             Order = order
                             Seed = seed
                             Stream = streams[order] } |]

        let ended: Result<Over option, Fault list>[] = Array.create cells.Length (Ok None)
        let unwritten = ref []
        let outside = Callbacks(study.Tell(), study.Leave)
        let leave () = not unwritten.Value.IsEmpty || outside.Leave()
        let jobs = jobs study cells.Length
        let before = torch.get_num_threads ()

        let refuse (faults: Fault list) =
            if unwritten.Value.IsEmpty then
                unwritten.Value <- faults

                for fault in faults do
                    outside.Tell(StudyEvent.Unwritten fault)

        let work place =
            let cell = cells[place]
            let label, order, seed = cell.Plan.Label, cell.Order, cell.Seed

            let unkept faults =
                for fault in faults do
                    outside.Tell(StudyEvent.Unkept(label, order, seed, fault))

            if not (leave ()) then
                let result = Check.guarded (name cell) (fun () -> run study leave unkept cell)
                ended[place] <- result
                let tellThat before fault = outside.Tell(StudyEvent.Ended(label, order, seed, before, fault))

                match result with
                | Ok(Some over) ->
                    tellThat over.Before None

                    if not over.Unwritten.IsEmpty then
                        refuse over.Unwritten
                | Ok None -> ()
                | Error faults -> tellThat false (List.tryHead faults)

        outside.Tell(StudyEvent.Began(cells.Length, jobs))

        try
            Experiment.inTurn jobs cells.Length work
        finally
            torch.set_num_threads before

        match folder with
        | Some folder when not folder.IsOurs -> refuse [ folder.Gone ]
        | _ -> ()

        let left =
            [ for cell, result in Seq.zip cells ended do
                  if result = Ok None then
                      cell ]

        let failures =
            [ for cell, result in Seq.zip cells ended do
                  match result with
                  | Error faults -> for fault in faults -> cell.Plan.Label, cell.Seed, fault.Message
                  | Ok _ -> ()
              match unwritten.Value with
              | fault :: _ -> for cell in left -> cell.Plan.Label, cell.Seed, $"not run to its end, since {fault.Message}"
              | [] -> () ]

        let over =
            [ for cell, result in Seq.zip cells ended do
                  match result with
                  | Ok(Some over) -> cell, over.Outcome
                  | Ok None
                  | Error _ -> () ]

        if not left.IsEmpty && unwritten.Value.IsEmpty then
            outside.Tell(StudyEvent.Left left.Length)

        outside.Rethrow()
        gather study (info study plans jobs left.Length failures) over

    let go (study: Study) : Result<StudyResult, Fault list> =
        match study.Folder with
        | None -> plans study |> Result.map (fun plans -> runAll study plans None)
        | Some folder ->
            // Both are told of at once: what is wrong with the study, and with its folder.
            match plans study, Files.makeFolderOf (Path.Combine(folder, "cells", "cell")) with
            | Error a, Error b -> Error(a @ b)
            | Error faults, Ok()
            | Ok _, Error faults -> Error faults
            | Ok plans, Ok() -> FolderLock.Taking folder (fun locked -> runAll study plans (Some locked))

    /// The heads after the last step of a study's one cell.
    let heads (study: Study) : Result<SavedHeads, Fault list> =
        plans study
        |> Result.bind (fun plans ->
            match plans, study.Orders, study.Seeds with
            | [ plan ], [ order ], [ seed ] when plan.Method.Curriculum <> Curriculum.Never ->
                let saved: (int * Heads) option ref = ref None
                let forget () = saved.Value |> Option.iter (snd >> Heads.tensors >> List.iter _.Dispose())

                let save (step: Step) (heads: Heads) =
                    forget ()
                    saved.Value <- Some(step.Index, heads |> Heads.map (fun w -> w.clone().DetachFromDisposeScope()))

                let about step = SavedHeads.about (info study plans 1 0 []) plan.Label seed step
                let observer = { Observer.silent with Save = save }
                let before = torch.get_num_threads ()
                torch.set_num_threads (threads study)

                try
                    match
                        Train.run (Order.apply order study.Stream) study.Device study.Split seed observer plan, saved.Value
                    with
                    | Ok _, Some(step, heads) -> Ok { Heads = heads; About = about step }
                    | Ok _, None -> invalidOp "a method that trains left no heads"
                    | Error faults, _ ->
                        forget ()
                        Error faults
                finally
                    torch.set_num_threads before
            | [ plan ], [ _ ], [ _ ] ->
                Error [ Fault.Contradiction($"{plan.Label} does not train, so it has no heads", "take a method that trains") ]
            | plans, orders, seeds ->
                let given = $"{plans.Length} × {seeds.Length} × {orders.Length}"
                Error [ Fault.BadValue("a study whose heads are wanted", "one method, one seed and one order", given) ])
