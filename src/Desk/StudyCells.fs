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
              let taking = List.zip study.Configs plans |> List.filter (fun (_, p) -> Plan.takes p.Method name)

              if not taking.IsEmpty && taking |> List.forall (fun (c, _) -> List.exists (fst >> (=) name) c.Options) then
                  Fault.Contradiction(
                      $"'{name}={value}' for all methods changes nothing: each that takes '{name}' sets its own",
                      "leave it out, or let one method keep to it"
                  ) ]

    let plans (study: Study) : Result<Plan list, Fault list> =
        let own = study.Configs |> List.choose _.Own

        let find name =
            match own |> List.tryFind (fun m -> m.Name = name) with
            | Some m -> Ok m
            | None -> Registry.find name

        let unlike =
            [ for name, methods in own |> List.groupBy _.Name do
                  if methods |> List.exists (fun m -> not (obj.ReferenceEquals(m, methods.Head))) then
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
        let known = Registry.methods |> List.exists (fun m -> m.Name = cell.Plan.Method.Name)
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

    /// A cell's outcome, and whether it was finished before; None if it was left.
    let private run (study: Study) (cell: Cell) : Result<(Outcome * bool) option, Fault list> =
        torch.set_num_threads (threads study)
        use scope = torch.NewDisposeScope()

        let train keeper from = Train.resume cell.Stream study.Device study.Split cell.Seed Observer.silent keeper from cell.Plan

        let given =
            function
            | Ending.Over outcome -> Some(outcome, false)
            | Ending.Left -> None

        match checkpoints study cell with
        | None -> train (Cadence.keeper Cadence.Never study.Leave ignore) None |> Result.map given
        | Some kept ->
            // A checkpoint that cannot be read is as none: the cell is run from its beginning.
            let latest =
                match kept.Latest() with
                | Ok(found, _) -> found
                | Error _ -> None

            let keep reached = kept.Write { Reached = reached; Monitor = [] }

            let keeper () = Cadence.keeper Cadence.Auto study.Leave (Reached.Midst >> keep >> ignore)

            let finish ending =
                match ending with
                | Ending.Over outcome -> keep (Reached.End outcome) |> Result.map (fun () -> given ending)
                | Ending.Left -> Ok None

            match latest with
            | Some { Reached = Reached.End outcome } -> Ok(Some(outcome, true))
            | Some { Reached = Reached.Midst state } -> train (keeper ()) (Some state) |> Result.bind finish
            | None -> train (keeper ()) None |> Result.bind finish

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
                          yield! Experiment.rows study.Stream cell.Plan cell.Seed outcome ]

            rows @ Results.aggregates rows

        let first = ended |> List.filter (fun (cell, _) -> cell.Order = 0)

        { Info = info
          Rows = rowsOf 0
          Orders = Map [ for order in study.Orders |> List.except [ 0 ] -> order, rowsOf order ]
          Losses = first |> List.collect (fun (cell, outcome) -> Experiment.lossRows cell.Plan cell.Seed outcome)
          Spectra =
            [ for cell, outcome in first do
                  if cell.Seed = study.Seeds.Head then
                      yield! Experiment.spectrumRows cell.Plan cell.Seed outcome ]
          Monitor = [] }

    let go (study: Study) : Result<StudyResult, Fault list> =
        let claimed =
            match study.Folder with
            | Some folder -> Files.makeFolderOf (Path.Combine(folder, "cells", "cell"))
            | None -> Ok()

        match plans study, claimed with
        | Error faults, Ok()
        | Ok _, Error faults -> Error faults
        | Error a, Error b -> Error(a @ b)
        | Ok plans, Ok() ->
            let streams = Map [ for order in study.Orders -> order, Order.apply order study.Stream ]

            let cells =
                [| for order in study.Orders do
                       for plan in plans do
                           for seed in study.Seeds ->
                               { Plan = plan
                                 Order = order
                                 Seed = seed
                                 Stream = streams[order] } |]

            let ended = Array.create cells.Length (Ok None)
            let gate = obj ()
            let tell = study.Tell()
            let jobs = jobs study cells.Length
            let before = torch.get_num_threads ()

            let work place =
                let cell = cells[place]

                if not (study.Leave()) then
                    let result = run study cell
                    ended[place] <- result

                    let tellThat before fault =
                        lock gate (fun () -> tell (StudyEvent.Ended(cell.Plan.Label, cell.Order, cell.Seed, before, fault)))

                    match result with
                    | Ok(Some(_, before)) -> tellThat before None
                    | Ok None -> ()
                    | Error faults -> tellThat false (List.tryHead faults)

            tell (StudyEvent.Began(cells.Length, jobs))

            try
                Experiment.inTurn jobs cells.Length work
            finally
                torch.set_num_threads before

            let failures =
                [ for cell, result in Seq.zip cells ended do
                      match result with
                      | Error faults -> for fault in faults -> cell.Plan.Label, cell.Seed, fault.Message
                      | Ok _ -> () ]

            let over =
                [ for cell, result in Seq.zip cells ended do
                      match result with
                      | Ok(Some(outcome, _)) -> cell, outcome
                      | Ok None
                      | Error _ -> () ]

            let left =
                ended
                |> Array.filter (function
                    | Ok None -> true
                    | _ -> false)
                |> Array.length

            if left > 0 then
                tell (StudyEvent.Left left)

            Ok(gather study (info study plans jobs left failures) over)

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
