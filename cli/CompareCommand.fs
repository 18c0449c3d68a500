/// What `cmcl compare` does. A result is an exit code: 0, 1 if a cell failed, 2 for a user's mistake, 130 when stopped.
module Cmcl.Cli.CompareCommand

open System
open System.IO
open Argu
open Cmcl
open Cmcl.Cli.Arguments
open Cmcl.Cli.Commands

/// Every method that learns, and the encoders as they came.
let private all () =
    [ for e in Registry.entries do
          if Method.learns e.Method || e.Method.Role = Role.Floor then
              e.Method.Name ]

let private study
    (options: (string * string) list)
    (arguments: ParseResults<CompareArgument>)
    : Result<Study * Job list, Fault list> =
    let sources = arguments.GetResult(CompareArgument.Stream, "emoji") |> Plan.split
    let threads = arguments.TryGetResult CompareArgument.Threads
    let orders = arguments.GetResult(CompareArgument.Orders, 1)
    let splits = arguments.GetResult(CompareArgument.Splits, 1)

    let load (source: string) : Result<StudyStream list, Fault list> =
        Catalogue.find source |> Result.bind (StudyStream.splits splits source (fun stream -> Protocol.threads stream threads))

    let methods =
        match arguments.TryGetResult CompareArgument.Methods with
        | Some text -> Plan.split text
        | None -> all ()

    validated {
        let! seeds = arguments.GetResult(CompareArgument.Seeds, "0-9") |> parseSeeds
        and! split = arguments.GetResult(CompareArgument.Split, "test") |> parseSplit
        and! device = arguments.GetResult(CompareArgument.Device, "cpu") |> parseDevice

        and! streams =
            match sources with
            | [] -> Error [ Fault.BadValue("--stream", "at least one stream", "") ]
            | sources -> sources |> List.map load |> Check.all |> Result.map List.concat

        and! () =
            match methods with
            | [] -> Error [ Fault.BadValue("--methods", "at least one method (cmcl methods lists them)", "") ]
            | _ -> Ok()

        and! () =
            if orders < 1 then
                Error [ Fault.BadValue("--orders", "a whole number ≥ 1", string orders) ]
            else
                Ok()

        and! () =
            if splits < 1 then
                Error [ Fault.BadValue("--splits", "a whole number ≥ 1", string splits) ]
            else
                Ok()

        and! () =
            checkGiven
                arguments
                (arguments.TryGetResult CompareArgument.Out)
                threads
                (arguments.TryGetResult CompareArgument.Jobs)
                None

        return
            { Streams = streams
              Configurations = Configurations.Written(methods, given options (arguments.GetResults CompareArgument.Set), [])
              Orders = [ 0 .. orders - 1 ]
              Seeds = seeds
              Split = split
              Device = device
              Monitor = None }
    }
    |> Result.bind (fun study ->
        Study.cells study
        |> Result.mapError (asWritten arguments (arguments.GetResults CompareArgument.Set))
        |> Result.map (fun cells -> study, cells))

/// The label of the method that others are tested against.
let private against (arguments: ParseResults<CompareArgument>) (cells: Job list) : Result<string option, Fault list> =
    let labels = cells |> List.map _.Plan.Label |> List.distinct

    match arguments.TryGetResult CompareArgument.Against with
    | Some name when not (List.contains name labels) -> Error [ Fault.Unknown("method in this comparison", name, labels) ]
    | given -> Ok given

/// Says what failed, also in an earlier start, each on a line of standard error.
let private tellFailures (broken: (Cell * string) list) (c: Comparison) : int =
    let recorded (_, state) =
        match state with
        | CellState.Failed message -> Some message
        | _ -> None

    let without (cell: Cell, message: string) =
        let why = message.TrimEnd '.'
        $"{cell.Stream}: {cell.Method} (seed {cell.Seed}, order {cell.Order}) has no result: {why}. The same command tries again."

    let failures = List.choose recorded c.Cells @ List.map without broken

    for message in List.distinct failures do
        Terminal.complain $"cmcl: {message}"

    failures.Length

/// The tables of all streams, what a reader of each has to know, and their frontiers in words.
let private show (metrics: string list) (c: Comparison) : unit =
    for table in CompareFiles.tables metrics c |> Check.get do
        Terminal.say table.Stream
        Terminal.show (CompareDisplay.table "The page has them, and table.csv beside it." table)

        for note in table.Notes do
            Terminal.say note

        CompareDisplay.frontier table.Stream c |> Option.iter (fun sentence -> Terminal.say $"\n{sentence}\n")

let compare (command: string) (options: (string * string) list) (arguments: ParseResults<CompareArgument>) : int =
    let quiet = arguments.Contains CompareArgument.Quiet

    let metrics = arguments.TryGetResult CompareArgument.Metrics |> Option.map Plan.split |> Option.defaultValue []

    let out = arguments.GetResult(CompareArgument.Out, Path.Combine("results", "compare"))

    let prepared =
        CompareFiles.columns metrics
        |> Result.bind (fun _ -> study options arguments)
        |> Result.bind (fun (study, cells) ->
            against arguments cells
            |> Result.bind (fun against ->
                StudyFolder.prepare (arguments.Contains CompareArgument.Force) out cells
                |> Result.map (fun () -> study, cells, against)))

    match prepared with
    | Error faults -> refuse faults
    | Ok(study, cells, against) ->
        let jobs = SweepCommand.jobs (arguments.TryGetResult CompareArgument.Jobs) study
        let swept = SweepCommand.run quiet jobs out (Study.inRounds study cells)
        let comparison = Comparison.ofStudy command out study cells

        if swept.Stopped then
            eprintfn "cmcl: stopped; the same command goes on from here."
            Signals.Stopped
        else
            match CompareFiles.write out metrics against comparison with
            | Error faults -> refuse faults
            | Ok page ->
                let failed = tellFailures swept.Broken comparison

                if not quiet then
                    show metrics comparison
                    Terminal.say $"Comparison: {Terminal.path page}"

                if failed = 0 then 0 else 1
