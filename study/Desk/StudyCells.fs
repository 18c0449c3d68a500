namespace Cmcl

open System
open System.IO
open TorchSharp

/// Running the cells of a study and putting together what they leave.
[<RequireQualifiedAccess>]
module internal StudyCells =
    /// What is set for every method, and by each that takes it again: it would change nothing.
    let private idle (study: StudyBuilder) (plans: Plan list) : Fault list =
        [ for name, value in study.Given do
              let taking = List.zip study.Configs plans |> List.filter (fun (_, p) -> Plan.takes p name)

              if not taking.IsEmpty && taking |> List.forall (fun (c, _) -> List.exists (fst >> (=) name) c.Options) then
                  Fault.Contradiction(
                      $"'{name}={value}' for all methods changes nothing: each that takes '{name}' sets its own",
                      "leave it out, or let one method keep to it"
                  ) ]

    let private threads (study: StudyBuilder) : int = Protocol.threads study.Stream study.Threads

    /// As every other way to run something has it, with these configurations.
    let private asStudy (study: StudyBuilder) (configurations: Configurations) : Study =
        { Streams =
            [ { Source = None
                Stream = study.Stream
                Threads = threads study } ]
          Configurations = configurations
          Orders = study.Orders
          Seeds = study.Seeds
          Split = study.Split
          Device = study.Device
          Monitor = None }

    let plans (study: StudyBuilder) : Result<Plan list, Fault list> =
        if study.Configs.IsEmpty then
            Error [ Fault.BadValue("methods of a study", "one or more (Run.method)", "none") ]
        else
            Configurations.Written(study.Configs |> List.map _.Label, study.Given, study.Configs |> List.choose _.Own)
            |> asStudy study
            |> fun whole -> Study.resolve whole study.Stream
            |> Result.bind (fun plans ->
                match idle study plans @ List.collect (Plan.check study.Stream) plans with
                | [] -> Ok plans
                | faults -> Error faults)

    let private jobs (study: StudyBuilder) (cells: int) : int =
        study.Jobs
        |> Option.defaultValue (if study.Device.``type`` = DeviceType.CPU then Environment.ProcessorCount / threads study else 1)
        |> max 1
        |> min cells

    /// What the study's jobs run on. What a method leaves that is not the registry's stays in memory, since its code may be another one next time.
    let private settings (study: StudyBuilder) (folder: FolderLock option) : JobSettings =
        let isOwn (name: string) = study.Configs |> List.exists (fun c -> c.Own.IsSome && c.Name = name)
        let passing = Store.memory ()
        let kept = study.Folder |> Option.map Store.Folder |> Option.defaultValue passing

        { JobSettings.on kept with
            Checkpointing = Checkpointing.auto
            Store = fun job -> if job.IsRegistered && not (isOwn job.Plan.Method.Name) then kept else passing
            Gone =
                fun () ->
                    match folder with
                    | Some folder when folder.IsAnothers -> [ folder.Gone ]
                    | _ -> [] }

    let private info
        (study: StudyBuilder)
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

    let private gather (study: StudyBuilder) (info: RunInfo) (ended: (Cell * Outcome) list) : StudyResult =
        let rowsOf order =
            let rows =
                [ for cell, outcome in ended do
                      if cell.Order = order then
                          yield! Lines.rows cell outcome ]

            rows @ Results.aggregates rows

        let first = ended |> List.filter (fun (cell, _) -> cell.Order = 0)

        { Info = info
          Rows = rowsOf 0
          Orders = Map [ for order in study.Orders |> List.except [ 0 ] -> order, rowsOf order ]
          Losses = first |> List.collect (fun (cell, outcome) -> Lines.lossRows cell outcome)
          Spectra =
            [ for cell, outcome in first do
                  if cell.Seed = study.Seeds.Head then
                      yield! Lines.spectrumRows cell outcome ]
          Monitor = [] }

    let private runAll (study: StudyBuilder) (plans: Plan list) (folder: FolderLock option) : StudyResult =
        let all = Configurations.Planned plans |> asStudy study |> Study.cells |> Check.getAll |> Array.ofList
        let results: (CellEnd * CellRecord option) option[] = Array.create all.Length None
        let unwritten = ref []
        let outside = Callbacks(study.Tell [ for job in all -> job.Cell, Job.work job ], study.Stop)
        let sideBySide = jobs study all.Length
        let before = torch.get_num_threads ()

        let refuse (faults: Fault list) : Fault list =
            if unwritten.Value.IsEmpty then
                unwritten.Value <- faults
                faults
            else
                []

        let ended place how record : Fault list =
            results[place] <- Some(how, record)

            match how with
            | CellEnd.Unwritten faults -> refuse faults
            | _ -> []

        outside.Tell(StudyEvent.Began(all.Length, sideBySide))

        try
            Engine.run (InProcess.engine sideBySide) (settings study folder) outside.Stop outside.Tell ended all |> Check.getAll
        finally
            torch.set_num_threads before

        match folder with
        | Some folder when not folder.IsOurs -> refuse [ folder.Gone ] |> List.iter (StudyEvent.Unwritten >> outside.Tell)
        | _ -> ()

        let ended = Seq.zip all results |> List.ofSeq

        let left =
            [ for job, result in ended do
                  match result with
                  | None
                  | Some(CellEnd.Unwritten _, None) -> job.Cell
                  | Some _ -> () ]

        let failures =
            [ for job, result in ended do
                  match result with
                  | Some((CellEnd.Failed _ | CellEnd.Broken _) as how, _) ->
                      for fault in CellEnd.faults how do
                          job.Plan.Label, job.Seed, fault.Message
                  | _ -> ()
              match unwritten.Value with
              | fault :: _ ->
                  for cell in left do
                      cell.Method, cell.Seed, $"not run to its end, since {fault.Message}"
              | [] -> () ]

        let over =
            [ for job, result in ended do
                  match result with
                  | Some(_, Some { Result = Ok found }) -> job.Cell, found.Outcome
                  | _ -> () ]

        if not left.IsEmpty && unwritten.Value.IsEmpty then
            outside.Tell(StudyEvent.Stopped left.Length)

        outside.Rethrow()
        gather study (info study plans sideBySide left.Length failures) over

    let go (study: StudyBuilder) : Result<StudyResult, Fault list> =
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
    let heads (study: StudyBuilder) : Result<SavedHeads, Fault list> =
        plans study
        |> Result.bind (fun plans ->
            match plans, study.Orders, study.Seeds with
            | [ plan ], [ order ], [ seed ] when Method.learns plan.Method ->
                let saved: (int * Heads) option ref = ref None
                let forget () = saved.Value |> Option.iter (snd >> Heads.tensors >> List.iter _.Dispose())

                let save (step: Step) (heads: Heads) =
                    forget ()
                    saved.Value <- Some(step.Index, heads |> Heads.map (fun w -> w.clone().DetachFromDisposeScope()))

                let about step = RunHeads.about (info study plans 1 0 []) plan.Label seed step
                let observer = { Observer.silent with Save = save }
                let before = torch.get_num_threads ()
                torch.set_num_threads (threads study)

                try
                    let trained =
                        Check.guarded $"{plan.Label} (seed {seed})" (fun () ->
                            Train.run (Order.apply order study.Stream) study.Device study.Split seed observer plan)

                    match trained, saved.Value with
                    | Ok _, Some(step, heads) -> Ok { Heads = heads; About = about step }
                    | Ok _, None -> invalidOp "a method that learns left no heads"
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
