/// What `cmcl tune` does. A result is an exit code: 0, 1 if a trial has no result or a method no choice, 2 for a user's mistake,
/// 130 when stopped.
module Cmcl.Cli.TuneCommand

open System
open System.Globalization
open System.IO
open Argu
open Cmcl
open Cmcl.Cli.Arguments
open Cmcl.Cli.Commands

/// What there is to try.
type private Search =
    { Study: Study
      Cells: Job list
      Out: string
      Grids: (string * Grid) list
      Trials: Trial list
      Within: float }

let private gridOf (given: Grid option) (method: string) : Result<string * Grid, Fault list> =
    let name = Tuning.name method

    Registry.find name
    |> Result.bind (fun e ->
        let nothing what = Error [ Fault.Contradiction($"{name} {what}", "there is nothing to choose; leave it out") ]

        if not (Method.learns e.Method) then
            nothing "does not train"
        else
            match given |> Option.defaultWith (fun () -> Grid.declared e) with
            | [] -> nothing "has no option that is tuned"
            | grid -> Ok(method, grid))

let private once (methods: string list) : Fault list =
    [ for name, times in methods |> List.countBy Tuning.name do
          if times > 1 then
              Fault.Contradiction($"'{name}' is named twice", "a preset has one choice for a method; name it once") ]

let private search (options: (string * string) list) (arguments: ParseResults<TuneArgument>) : Result<Search, Fault list> =
    let methods = arguments.GetResult TuneArgument.Method |> Plan.split
    let source = arguments.GetResult(TuneArgument.Stream, "emoji")
    let threads = arguments.TryGetResult TuneArgument.Threads
    let most = arguments.GetResult(TuneArgument.Trials, 12)
    let within = arguments.GetResult(TuneArgument.Within, "0.5")

    validated {
        let! seeds = arguments.GetResult(TuneArgument.Seeds, "0") |> parseSeeds
        and! device = arguments.GetResult(TuneArgument.Device, "cpu") |> parseDevice
        and! stream = Catalogue.find source

        and! grids =
            match arguments.TryGetResult TuneArgument.Grid with
            | Some text -> Grid.parse text |> Result.bind (fun g -> methods |> List.map (gridOf (Some g)) |> Check.all)
            | None -> methods |> List.map (gridOf None) |> Check.all

        and! points =
            match Double.TryParse(within, NumberStyles.Float, CultureInfo.InvariantCulture) with
            | true, x when x >= 0.0 && Double.IsFinite x -> Ok x
            | _ -> Error [ Fault.BadValue("--within", "points of recall, a number ≥ 0", within) ]

        and! () =
            match once methods with
            | [] when methods.IsEmpty -> Error [ Fault.BadValue("--method", "at least one method (cmcl methods lists them)", "") ]
            | [] -> Ok()
            | faults -> Error faults

        and! () = if most < 1 then Error [ Fault.BadValue("--trials", "a whole number ≥ 1", string most) ] else Ok()

        and! () =
            checkGiven arguments (arguments.TryGetResult TuneArgument.Out) threads (arguments.TryGetResult TuneArgument.Jobs) None

        return seeds, device, stream, grids, points
    }
    |> Result.bind (fun (seeds, device, stream, grids, points) ->
        let trials = grids |> List.collect (fun (method, grid) -> Tuning.trials most method grid)

        let streams =
            [ { Source = Some source
                Stream = stream
                Threads = Protocol.threads stream threads } ]

        let methods = [ for t in trials -> t.Written ]

        let study =
            { Streams = streams
              Configurations = Configurations.Written(methods, given options (arguments.GetResults TuneArgument.Set), [])
              Orders = [ 0 ]
              Seeds = seeds
              Split = Split.Validation
              Device = device
              Monitor = None }

        Study.cells study
        |> Result.mapError (asWritten arguments (arguments.GetResults TuneArgument.Set))
        |> Result.map (fun cells ->
            { Study = study
              Cells = cells
              Out = arguments.GetResult(TuneArgument.Out, Names.within (Path.Combine("results", "tune")) stream.Name)
              Grids = grids
              Trials = trials
              Within = points }))

/// Each trial with the figures that its cells left.
let private tried (search: Search) (broken: (Cell * string) list) : Tried list =
    let records = StudyFolder.records search.Out search.Cells
    let why = Map.ofList broken

    [ for trial in search.Trials ->
          let own = records |> List.filter (fun (job, _) -> job.Written = trial.Written)

          let result (job: Job, record: CellRecord option) =
              match record with
              | Some({ Result = Ok _ } as record) ->
                  Ok(Map [ for r in Results.aggregates (Lines.ofCell job.Cell record) -> r.Metric, r.Value ])
              | Some { Result = Error message } -> Error message
              | None -> Error(why |> Map.tryFind job.Cell |> Option.defaultValue "not run")

          { Trial = trial
            Role = own |> List.tryHead |> Option.map (fun (job, _) -> job.Plan.Method.Role) |> Option.defaultValue Role.Competitor
            Seeds = [ for job, record in own -> job.Seed, result (job, record) ]
            Seconds =
              Map
                  [ for job, record in own do
                        match record with
                        | Some r -> job.Seed, r.Seconds
                        | None -> () ] } ]

/// A method with the trial that the rule chooses, its figures, and the options at the edge of their grid.
type private Choice =
    { Trial: Trial
      Recall: float
      Deviation: float option
      Edges: string list }

let private choose (search: Search) (all: Tried list) : (string * Choice option) list =
    [ for method, grid in search.Grids ->
          let own = all |> List.filter (fun t -> t.Trial.Method = method)
          let judged = own |> List.map Tuning.judge

          method,
          Tuning.choose search.Within judged
          |> Option.map (fun place ->
              let recall, deviation = judged[place].Value

              { Trial = own[place].Trial
                Recall = recall
                Deviation = deviation
                Edges = Grid.edges grid own[place].Trial.Options }) ]

let private table (search: Search) (all: Tried list) (choices: (string * Choice option) list) : LayoutTable =
    let row (method, choice) =
        let own = all |> List.filter (fun t -> t.Trial.Method = method)
        let failed = own |> List.filter (Tuning.judge >> Option.isNone)

        let cells =
            match choice with
            | None -> [ "none: no trial has figures"; "–"; "–" ]
            | Some c ->
                [ String.Join(" ", [ for name, value in c.Trial.Options -> $"{name}={value}" ])
                  (100.0 * c.Recall).ToString("F2", CultureInfo.InvariantCulture)
                  (match c.Deviation with
                   | Some d -> d.ToString("G3", CultureInfo.InvariantCulture)
                   | None -> "–") ]

        Some([ method ] @ cells @ [ string own.Length; string failed.Length ] |> List.map Layout.plain)

    { Columns =
        [ Layout.words 0 "method"
          Layout.words 0 "chosen"
          Layout.figures 0 "R@10 %"
          Layout.figures 1 "deviation"
          Layout.figures 2 "trials"
          Layout.figures 3 "failed" ]
      Rows = List.map row choices
      Elsewhere = "trials.csv has them." }

let private finish (quiet: bool) (command: string) (search: Search) (broken: (Cell * string) list) : int =
    let all = tried search broken
    let choices = choose search all
    let chosen = choices |> List.choose snd

    let origin: Tuning.Origin =
        { Command = command
          Stream = search.Study.Streams.Head.Stream
          Seeds = search.Study.Seeds
          Within = search.Within
          Tried =
            [ for method, grid in search.Grids ->
                  Tuning.name method,
                  (Grid.trials grid).Length,
                  (search.Trials |> List.filter (fun t -> t.Method = method)).Length ]
          Created = DateTimeOffset.Now }

    let written =
        [ Tuning.write search.Out (Map [ for c in chosen -> c.Trial.Method, (c.Trial.Number, c.Edges) ]) all
          Tuning.writePreset search.Out origin [ for c in chosen -> c.Trial ] ]
        |> Check.all

    match written with
    | Error faults -> refuse faults
    | Ok _ ->
        for cell, message in broken do
            eprintfn
                "cmcl: %s (seed %d) has no result: %s. The same command tries again."
                cell.Method
                cell.Seed
                (message.TrimEnd '.')

        if not quiet then
            Terminal.show (table search all choices)

            for c in chosen do
                if not c.Edges.IsEmpty then
                    let edges = String.Join(" and ", c.Edges)
                    Terminal.say $"{c.Trial.Method}: {edges} at the edge of the grid; better settings may lie beyond (--grid)."

            for method, count, n in origin.Tried do
                if n < count then
                    Terminal.say $"{method}: {n} of {count} trials, drawn from seed 0."

            let seeds = String.Join(", ", search.Study.Seeds)
            let file (name: string) = Terminal.path (Path.Combine(search.Out, name))

            Terminal.say $"""Validation rows, seeds {seeds}. Every trial: {file "trials.csv"} Preset: {file "preset.json"}"""

        if broken.IsEmpty && chosen.Length = choices.Length then 0 else 1

let tune (command: string) (options: (string * string) list) (arguments: ParseResults<TuneArgument>) : int =
    let quiet = arguments.Contains TuneArgument.Quiet

    match
        search options arguments
        |> Result.bind (fun search ->
            StudyFolder.prepare (arguments.Contains TuneArgument.Force) search.Out search.Cells |> Result.map (fun () -> search))
    with
    | Error faults -> refuse faults
    | Ok search ->
        let jobs = SweepCommand.jobs (arguments.TryGetResult TuneArgument.Jobs) search.Study
        let swept = SweepCommand.run quiet jobs search.Out (Study.inRounds search.Study search.Cells)

        if swept.Stopped then
            eprintfn "cmcl: stopped; the same command goes on from here."
            Signals.Stopped
        else
            finish quiet command search swept.Broken
