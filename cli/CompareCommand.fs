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

let private sweep
    (options: (string * string) list)
    (arguments: ParseResults<CompareArgument>)
    : Result<Sweep * SweepCell list, Fault list> =
    let sources = arguments.GetResult(CompareArgument.Stream, "emoji") |> Plan.split
    let threads = arguments.TryGetResult CompareArgument.Threads
    let orders = arguments.GetResult(CompareArgument.Orders, 1)

    let load (source: string) =
        Catalogue.find source
        |> Result.map (fun stream ->
            { Source = source
              Stream = stream
              Threads = Protocol.threads stream threads })

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
            | sources -> sources |> List.map load |> Check.all

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
            checkGiven
                arguments
                (arguments.TryGetResult CompareArgument.Out)
                threads
                (arguments.TryGetResult CompareArgument.Jobs)
                None

        return
            { Streams = streams
              Methods = methods
              Given = given options (arguments.GetResults CompareArgument.Set)
              Seeds = seeds
              Orders = orders
              Split = split
              Device = device
              Jobs = SweepCommand.jobs (arguments.TryGetResult CompareArgument.Jobs) device streams
              Out = arguments.GetResult(CompareArgument.Out, Path.Combine("results", "compare")) }
    }
    |> Result.bind (fun sweep ->
        Sweep.cells sweep
        |> Result.mapError (asWritten arguments (arguments.GetResults CompareArgument.Set))
        |> Result.map (fun cells -> sweep, cells))

/// The label of the method that others are tested against.
let private against (arguments: ParseResults<CompareArgument>) (cells: SweepCell list) : Result<string option, Fault list> =
    let labels = cells |> List.map _.Cell.Method |> List.distinct

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

    let prepared =
        CompareFiles.columns metrics
        |> Result.bind (fun _ -> sweep options arguments)
        |> Result.bind (fun (sweep, cells) ->
            against arguments cells
            |> Result.bind (fun against ->
                Sweep.prepare (arguments.Contains CompareArgument.Force) sweep.Out cells
                |> Result.map (fun () -> sweep, cells, against)))

    match prepared with
    | Error faults -> refuse faults
    | Ok(sweep, cells, against) ->
        let swept = SweepCommand.run quiet sweep.Jobs cells
        let comparison = Sweep.comparison command sweep cells

        if swept.Stopped then
            eprintfn "cmcl: stopped; the same command goes on from here."
            Signals.Stopped
        else
            match CompareFiles.write sweep.Out metrics against comparison with
            | Error faults -> refuse faults
            | Ok page ->
                let failed = tellFailures swept.Broken comparison

                if not quiet then
                    show metrics comparison
                    Terminal.say $"Comparison: {Terminal.path page}"

                if failed = 0 then 0 else 1
