namespace Cmcl

open TorchSharp

/// A stream of a study.
type StudyStream =
    {
        /// As the user named it (`Catalogue.find`); None for one that is in this process's memory alone.
        Source: string option
        Stream: Cmcl.Stream
        /// Threads of libtorch in each of its jobs.
        Threads: int
    }

[<RequireQualifiedAccess>]
module StudyStream =
    /// A stream as the user named it, on so many splits of its items, its own the first. Faults: those of `Resplit.apply`, and `Contradiction` for
    /// several splits of what is one already.
    let splits
        (count: int)
        (source: string)
        (threads: Cmcl.Stream -> int)
        (stream: Cmcl.Stream)
        : Result<StudyStream list, Fault list> =
        if count > 1 && fst (Resplit.parse source) <> source then
            Error [ Fault.Contradiction($"'{source}' is one split already", "leave [split=…] out, or ask for one split") ]
        else
            [ for number in 0 .. count - 1 ->
                  Resplit.apply number stream
                  |> Result.map (fun split ->
                      { Source = Some(Resplit.name source number)
                        Stream = split
                        Threads = threads split }) ]
            |> Check.all

/// The methods of a study, and their options.
[<RequireQualifiedAccess>]
type Configurations =
    /// As written, each `NAME` or `NAME[OPTION=VALUE;…]`, with options for every method that takes them and methods that are not the registry's;
    /// resolved for each stream.
    | Written of methods: string list * given: (string * string) list * own: Entry list
    | Planned of Plan list

/// Streams × configurations × orders × seeds: what every command and every script that runs something runs.
type Study =
    {
        Streams: StudyStream list
        Configurations: Configurations
        /// By number; 0 is a stream's own order of steps.
        Orders: int list
        Seeds: int list
        Split: Split
        Device: torch.Device
        /// Read every old step's drift each so many updates; None for after steps only.
        Monitor: int64 option
    }

[<RequireQualifiedAccess>]
module Study =
    /// The plans of a study on one of its streams, not yet checked against it. Faults: those of `Plan.resolve`, and two methods of one name.
    let resolve (study: Study) (stream: Cmcl.Stream) : Result<Plan list, Fault list> =
        match study.Configurations with
        | Configurations.Planned plans -> Ok plans
        | Configurations.Written(methods, given, own) ->
            let find name =
                own
                |> List.tryFind (fun e -> e.Method.Name = name)
                |> Option.map Ok
                |> Option.defaultWith (fun () -> Registry.find name)

            let unlike =
                [ for name, entries in own |> List.groupBy _.Method.Name do
                      if entries |> List.exists (fun e -> not (obj.ReferenceEquals(e.Source, entries.Head.Source))) then
                          Fault.Contradiction($"two methods of this study have the name '{name}'", "give each a Name of its own") ]

            match unlike with
            | [] -> Plan.resolveWith find stream.Preset given methods
            | faults -> Error faults

    let private checkedPlans (study: Study) (stream: Cmcl.Stream) : Result<Plan list, Fault list> =
        resolve study stream
        |> Result.bind (fun plans ->
            match study.Configurations, List.collect (Plan.check stream) plans with
            | Configurations.Planned _, _
            | _, [] -> Ok plans
            | _, faults -> Error faults)

    let private streamFaults (study: Study) : Fault list =
        [ for name, times in study.Streams |> List.countBy _.Stream.Name do
              if times > 1 then
                  Fault.Contradiction($"two streams have the name '{name}'", "compare streams of different names")
          for s in study.Streams do
              let most = Order.count s.Stream.Steps.Length
              let asked = 1 + List.max study.Orders

              if asked > most then
                  Fault.BadValue(
                      "--orders",
                      $"at most {most} for the {s.Stream.Steps.Length} steps of {s.Stream.Name}",
                      string asked
                  ) ]

    /// How another process makes the plans, in their order: the method as written, and of the options given those that change something for it.
    let private asWritten (study: Study) (s: StudyStream) (plans: Plan list) : AsWritten option list =
        match study.Configurations, s.Source with
        | Configurations.Written(methods, given, own), Some source ->
            [ for method, plan in List.zip methods plans do
                  if own |> List.exists (fun e -> e.Method.Name = plan.Method.Name) then
                      None
                  else
                      let changes (name, _) = Settings.measures name || Plan.takes plan name && Plan.matters plan name

                      Some
                          { Source = source
                            Method = method
                            Given = List.filter changes given } ]
        | _ -> [ for _ in plans -> None ]

    let private cellsOf (study: Study) (s: StudyStream) (plans: Plan list) : Job list =
        let ordered = Order.first (1 + List.max study.Orders) s.Stream |> Array.ofList

        let protocol =
            { Split = study.Split
              Device = study.Device
              Threads = s.Threads
              Monitor = study.Monitor }

        [ for order in study.Orders do
              for plan, written in List.zip plans (asWritten study s plans) do
                  for seed in study.Seeds ->
                      { Stream = ordered[order]
                        Order = order
                        Plan = plan
                        Seed = seed
                        Protocol = protocol
                        AsWritten = written } ]

    /// Every cell, in the order of tables: streams, in each its orders, methods and seeds. All that is wrong with any configuration on any stream is
    /// told at once. Cells that are the same under two labels have one identity, and run once.
    let cells (study: Study) : Result<Job list, Fault list> =
        match streamFaults study, study.Streams |> List.map (fun s -> checkedPlans study s.Stream) |> Check.all with
        | [], Ok plans -> Ok(List.collect (fun (s, plans) -> cellsOf study s plans) (List.zip study.Streams plans))
        | faults, Ok _ -> Error faults
        | faults, Error more -> Error(List.distinct (faults @ more))

    /// Cells in the order in which a comparison runs them: one seed and one order of all methods and streams after another, so that what is finished
    /// can be compared whenever it is broken off; within such a round the dearest first, so that the cheap ones fill the gaps at its end.
    let inRounds (study: Study) (cells: Job list) : Job list =
        let place value all = List.findIndex ((=) value) all
        cells |> List.sortBy (fun job -> place job.Seed study.Seeds, place job.Order study.Orders, -(Job.work job))
