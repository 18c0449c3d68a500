/// What each command does. A result is an exit code: 0, 1 for a run of which a part failed, 2 for a user's mistake.
module Cmcl.Cli.Commands

open System
open System.Globalization
open System.IO
open Argu
open TorchSharp
open Cmcl
open Cmcl.Cli.Arguments

/// Sentences past this many are counted, not told.
[<Literal>]
let private MostTold = 50

/// Says what is wrong, each on a line of standard error.
let refuse (faults: Fault list) : int =
    let sentences = faults |> List.collect (fun fault -> List.ofSeq fault.Sentences)

    for sentence in List.truncate MostTold sentences do
        Terminal.complain $"cmcl: {Names.visible sentence}"

    if sentences.Length > MostTold then
        Terminal.complain $"cmcl: and {sentences.Length - MostTold} more like these."

    2

/// Faults with the options that they speak of as this command writes them: `--place gradient`, `--exact`, `--no-exact`; what was given by `--set`,
/// as `--set margin=0.2`.
let asWritten (arguments: ParseResults<'argument>) (sets: string list) (faults: Fault list) : Fault list =
    let bySet = sets |> List.map (assignment >> fst)
    let own = arguments.Parser.GetArgumentCases() |> List.collect _.CommandLineNames.Value |> Set.ofList

    let write (name: string) (value: string option) =
        match Registry.options |> List.tryFind (fun o -> o.Name = name), value with
        | Some _, Some value when List.contains name bySet -> $"--set {name}={value}"
        | Some _, None when List.contains name bySet -> $"--set {name}"
        | Some o, Some "off" when o.IsSwitch -> $"--no-{name}"
        | Some o, Some "on" when o.IsSwitch -> $"--{name}"
        | Some _, Some value -> $"--{name} {value}"
        | Some _, None -> $"--{name}"
        | None, None when own.Contains $"--{name}" -> $"--{name}"
        | None, Some value -> $"{name}={value}"
        | None, None -> name

    faults |> List.map _.WithOptions(write)

/// The options that were given to a command, one by one and by `--set`.
let given (options: (string * string) list) (sets: string list) : (string * string) list = options @ List.map assignment sets

/// Whole numbers ≥ 0 as users list them: 0,1,2 or 0-9.
let numbers (option: string) (expected: string) (text: string) : Result<int list, Fault list> =
    let bad = Error [ Fault.BadValue(option, expected, text) ]
    let number (s: string) = Int32.TryParse(s.Trim(), NumberStyles.None, CultureInfo.InvariantCulture)

    let part (s: string) =
        match s.Split '-' with
        | [| one |] ->
            match number one with
            | true, n -> Some [ n ]
            | _ -> None
        | [| first; last |] ->
            match number first, number last with
            | (true, a), (true, b) when a <= b && b - a < 10000 -> Some [ a..b ]
            | _ -> None
        | _ -> None

    let parts = text.Split ',' |> Array.map part |> List.ofArray
    let all = parts |> List.collect (Option.defaultValue [])
    if List.contains None parts || List.distinct all <> all then bad else Ok all

let parseSeeds (text: string) : Result<int list, Fault list> =
    numbers "--seeds" "whole numbers ≥ 0, such as 0,1,2 or 0-9, each once" text

let parseSplit (text: string) : Result<Split, Fault list> =
    match text with
    | "test" -> Ok Split.Test
    | "validation" -> Ok Split.Validation
    | _ -> Error [ Fault.NotOneOf("--split", text, [ "test"; "validation" ]) ]

let parseDevice (text: string) : Result<torch.Device, Fault list> =
    let cuda index =
        if torch.cuda.is_available () && index < torch.cuda.device_count () then
            Ok(torch.device $"cuda:{index}")
        else
            let why =
                match Native.cuda () with
                | Ok() -> $"libtorch sees {torch.cuda.device_count ()} CUDA device(s) here"
                | Error reason -> $"this libtorch has no CUDA ({reason})"

            Error
                [ Fault.Contradiction(
                      $"--device {text}: {why}",
                      $"use --device cpu, or on a machine with a GPU build with -p:Torch=cuda or name a libtorch that has CUDA in {Native.FolderVariable}"
                  ) ]

    match text.Split ':' with
    | [| "cpu" |] -> Ok torch.CPU
    | [| "cuda" |] -> cuda 0
    | [| "cuda"; n |] when fst (Int32.TryParse n) && int n >= 0 -> cuda (int n)
    | _ -> Error [ Fault.NotOneOf("--device", text, [ "cpu"; "cuda"; "cuda:N" ]) ]

/// An option that is given twice, an empty folder's name, and threads without sense.
let checkGiven
    (arguments: ParseResults<'argument>)
    (out: string option)
    (threads: int option)
    (jobs: int option)
    (monitor: int option)
    : Result<unit, Fault list> =
    let repeated =
        arguments.GetAllResults()
        |> List.countBy arguments.Parser.GetTag
        |> List.filter (fun (_, times) -> times > 1)
        |> List.map fst

    let faults =
        [ for case in arguments.Parser.GetArgumentCases() do
              if
                  List.contains case.UnionCaseInfo.Tag repeated
                  && not (List.contains case.CommandLineNames.Value.Head [ "--set"; "--bank" ])
              then
                  Fault.Contradiction($"{case.CommandLineNames.Value.Head} is given twice", "give it once")
          match out with
          | Some "" -> Fault.BadValue("--out", "a folder", "")
          | _ -> ()
          match threads with
          | Some n when n < 1 || n > Protocol.MostThreads ->
              Fault.BadValue("--threads", $"a whole number from 1 to {Protocol.MostThreads}", string n)
          | _ -> ()
          match jobs with
          | Some n when n < 1 || n > Protocol.MostThreads ->
              Fault.BadValue("--jobs", $"a whole number from 1 to {Protocol.MostThreads}", string n)
          | _ -> ()
          match monitor with
          | Some n when n < 1 -> Fault.BadValue("--monitor", "a whole number ≥ 1", string n)
          | _ -> () ]

    if faults.IsEmpty then Ok() else Error faults

/// How often `cmcl run` writes checkpoints.
let private checkpointing (arguments: ParseResults<RunArgument>) : Result<Checkpointing, Fault list> =
    validated {
        let! cadence = Cadence.parse "--checkpoint-every" (arguments.GetResult(Checkpoint_Every, "auto"))

        and! () =
            match arguments.GetResult(Log_Format, "text") with
            | "text"
            | "json" -> Ok()
            | other -> Error [ Fault.NotOneOf("--log-format", other, [ "text"; "json" ]) ]

        and! keep =
            match arguments.GetResult(Keep, 2) with
            | n when n >= 1 -> Ok n
            | n -> Error [ Fault.BadValue("--keep", "a whole number ≥ 1", string n) ]

        return { Cadence = cadence; Keep = keep }
    }

/// The request that `cmcl run` was given, the data read and everything checked.
let private request
    (command: string)
    (written: string list)
    (options: (string * string) list)
    (arguments: ParseResults<RunArgument>)
    : Result<Request, Fault list> =
    validated {
        let! seeds = arguments.GetResult(Seeds, "0,1,2") |> parseSeeds
        and! split = arguments.GetResult(Split, "test") |> parseSplit
        and! device = arguments.GetResult(Device, "cpu") |> parseDevice

        and! preset =
            arguments.TryGetResult Preset |> Option.map (Presets.find >> Result.map Some) |> Option.defaultValue (Ok None)

        and! stream = Catalogue.find (arguments.GetResult(Stream, "emoji"))

        and! () =
            checkGiven
                arguments
                (arguments.TryGetResult Out)
                (arguments.TryGetResult Threads)
                (arguments.TryGetResult Jobs)
                (arguments.TryGetResult RunArgument.Monitor)

        return
            seeds,
            split,
            device,
            { stream with
                Preset = Option.defaultValue stream.Preset preset }
    }
    |> Result.bind (fun (seeds, split, device, stream) ->
        let sets = arguments.GetResults RunArgument.Set
        let given = given options sets

        let methods =
            match arguments.TryGetResult RunArgument.Methods with
            | Some text -> Plan.split text
            | None -> stream.Preset.Run

        let named =
            if methods.IsEmpty then
                Error [ Fault.BadValue("--methods", "at least one method (cmcl methods lists them)", "") ]
            else
                Plan.resolve stream.Preset given methods |> Result.mapError (asWritten arguments sets)

        named
        |> Result.bind (fun plans ->
            match plans |> List.collect (Plan.check stream) |> List.distinct with
            | [] ->
                Ok
                    { Stream = stream
                      Source = arguments.GetResult(Stream, "emoji")
                      Plans = plans
                      Seeds = seeds
                      Device = device
                      Split = split
                      SaveWeights = arguments.Contains Save_Weights
                      Monitor = arguments.TryGetResult RunArgument.Monitor |> Option.map int64
                      Jobs = 1
                      Out = arguments.GetResult(Out, Names.within "results" stream.Name)
                      Command = command
                      Arguments = written }
            | faults -> Error faults))

let private setThreads (stream: Cmcl.Stream) (given: int option) : unit = torch.set_num_threads (Protocol.threads stream given)

/// Cells side by side: as many as the threads of each leave cores for.
let jobsFor (device: torch.Device) (threads: int) : int =
    if device.``type`` = DeviceType.CPU then max 1 (Environment.ProcessorCount / threads) else 1

/// What is said of raw scores that nobody asked for, where a method would train with them.
let private unsaid (options: (string * string) list) (arguments: ParseResults<RunArgument>) (r: Request) : string option =
    let inBrackets =
        [ for text in
              arguments.TryGetResult RunArgument.Methods |> Option.map Plan.split |> Option.defaultValue r.Stream.Preset.Run do
              yield! Plan.parse text |> Result.map snd |> Result.defaultValue [] ]

    if r.Plans |> List.exists (fun plan -> Method.trains plan.Method) then
        Advice.unsaid (given options (arguments.GetResults RunArgument.Set) @ inBrackets |> List.map fst) r.Stream
    else
        None

/// With threads set, as given or as they were before, as many jobs as they leave cores for, or as were asked for; refused where memory will not do.
let private fitted (before: int option) (arguments: ParseResults<RunArgument>) (r: Request) : Result<Request, Fault list> =
    setThreads r.Stream (arguments.TryGetResult Threads |> Option.orElse before)
    let cells = r.Plans.Length * r.Seeds.Length
    let jobs = arguments.TryGetResult Jobs |> Option.defaultWith (fun () -> jobsFor r.Device (torch.get_num_threads ()))

    let check () =
        if arguments.Contains No_Memory_Check then
            Ok()
        else
            Estimate.check (Estimate.available ()) r.Stream (min jobs cells) r.Plans

    check () |> Result.map (fun () -> { r with Jobs = jobs })

/// The table of what is finished, and its report.
let private show (quiet: bool) (r: Request) (finished: Finished) : Result<unit, Fault list> =
    let report = if finished.Unwritten.IsEmpty then Report.write r.Out else Error finished.Unwritten

    if not quiet then
        let table = Display.summary r finished
        Terminal.show (CompareDisplay.table "The report has them, and results.csv beside it." table)

        for line in Display.throughput finished do
            Terminal.say line

        for note in table.Notes do
            Terminal.say note

        for path in Result.toList report do
            Terminal.say $"Report: {Terminal.path path}"

    report |> Result.map ignore

/// Runs a request and shows it: what it is, how it goes, what came out.
let private go
    (quiet: bool)
    (leaving: Signals.Leaving)
    (checkpointing: Checkpointing)
    (arguments: ParseResults<RunArgument>)
    (r: Request)
    folder
    : int =
    let json = arguments.GetResult(Log_Format, "text") = "json"
    let quiet = quiet || json
    let work tell = Experiment.run folder checkpointing (fun () -> leaving.Asked) DateTimeOffset.Now tell r

    if json then
        JsonLog.started r

    if not quiet then
        printfn "%s\n" (Display.settings (Terminal.width ()) r)

    let start = Progress.start (Experiment.cells r)
    let result = if json then work (JsonLog.listener start) else Display.progress quiet false r.Jobs start work

    if json then
        JsonLog.finished result

    match result with
    | Error faults -> refuse faults
    | Ok finished when finished.Left > 0 && finished.Unwritten.IsEmpty ->
        let cells = if finished.Left = 1 then "one run is" else $"{finished.Left} runs are"

        eprintfn "cmcl: stopped on request; %s unfinished. Resume with: cmcl resume %s" cells r.Out
        Signals.ResumeMe
    | Ok finished ->
        if finished.Broken > 0 then
            let cells = if finished.Broken = 1 then "one run" else $"{finished.Broken} runs"
            eprintfn "cmcl: %s failed; finished runs are kept. To try again: cmcl resume %s" cells r.Out

        if finished.Rows.IsEmpty then
            if finished.Unwritten.IsEmpty then 1 else refuse finished.Unwritten
        else
            match show quiet r finished with
            | Error faults -> refuse faults
            | Ok() -> if finished.Failures.IsEmpty then 0 else 1

/// Does the work in a folder that nobody else writes to meanwhile.
let alone (out: string) (work: FolderLock -> Result<int, Fault list>) : int =
    match FolderLock.Holding out work with
    | Error faults -> refuse faults
    | Ok code -> code

/// `options` are those that were taken out of the arguments (`OptionArguments.take`), `written` all of them as they were.
let run (command: string) (written: string list) (options: (string * string) list) (arguments: ParseResults<RunArgument>) : int =
    use leaving = new Signals.Leaving true

    match
        validated {
            let! checkpointing = checkpointing arguments
            and! request = request command written options arguments
            return checkpointing, request
        }
        |> Result.bind (fun (checkpointing, r) -> fitted None arguments r |> Result.map (fun r -> checkpointing, r))
    with
    | Error faults -> refuse faults
    | Ok(checkpointing, r) ->
        alone r.Out (fun folder ->
            Experiment.prepare (arguments.Contains Force) r
            |> Result.map (fun () ->
                if not (arguments.Contains Quiet) then
                    unsaid options arguments r |> Option.iter (fun sentence -> Terminal.complain $"cmcl: {sentence}")

                go (arguments.Contains Quiet) leaving checkpointing arguments r folder))

/// What `config.json` of a results folder says of how to resume it.
type private Resumable =
    {
        Command: string
        Arguments: string list
        /// How many cells are left.
        Left: int
        /// Those of libtorch: figures depend on them.
        Threads: int option
    }

let private resumable (folder: string) : Result<Resumable, Fault list> =
    let read (root: Text.Json.JsonElement) =
        let text (json: Text.Json.JsonElement) =
            json.GetString() |> Option.ofObj |> Option.defaultWith (fun () -> invalidOp "it is null")

        { Command = text (root.GetProperty "command")
          Arguments = [ for a in root.GetProperty("arguments").EnumerateArray() -> text a ]
          Left = root.GetProperty("left").GetInt32()
          Threads =
            match root.TryGetProperty "machine" with
            | true, machine -> Some(machine.GetProperty("threads").GetInt32())
            | _ -> None }

    Path.Combine(folder, "config.json") |> InputFile.json "cmcl resume" "the record of a run that can be resumed" read

let resume (arguments: ParseResults<ResumeArgument>) : int =
    use leaving = new Signals.Leaving true
    let folder = arguments.GetResult ResumeArgument.Folder
    let quiet = arguments.Contains ResumeArgument.Quiet

    let finished (command: string) =
        // It may have been killed between its last figure and its report.
        Report.write folder
        |> Result.map (fun report ->
            if not quiet then
                Terminal.say $"'{folder}' is finished; it was: {command}\nReport: {Terminal.path report}"

            0)

    let again (run: Resumable) (locked: FolderLock) =
        let taken = OptionArguments.take Registry.options run.Arguments

        let parsed =
            try
                let parser = ArgumentParser.Create<RunArgument>(programName = "cmcl run")

                if taken.Faults.IsEmpty then
                    Ok(parser.ParseCommandLine(Array.ofList taken.Rest))
                else
                    Error taken.Faults
            with :? ArguParseException ->
                Error [ Fault.Unreadable(Path.Combine(folder, "config.json"), "its arguments are none of cmcl run") ]

        parsed
        |> Result.bind (fun own ->
            validated {
                let! checkpointing = checkpointing own
                and! request = request run.Command run.Arguments taken.Options own
                return checkpointing, { request with Out = folder }
            }
            |> Result.bind (fun (checkpointing, r) -> fitted run.Threads own r |> Result.map (fun r -> checkpointing, r))
            |> Result.bind (fun (checkpointing, r) -> Experiment.resumable r |> Result.map (fun () -> checkpointing, r))
            |> Result.map (fun (checkpointing, r) -> go (quiet || own.Contains Quiet) leaving checkpointing own r locked))

    match resumable folder with
    | Error faults -> refuse faults
    | Ok _ ->
        alone folder (fun locked ->
            // Once more: another process may just have finished it.
            match resumable folder with
            | Error faults -> Error faults
            | Ok { Arguments = [] } ->
                Error [ Fault.Contradiction($"'{folder}' is not of cmcl run", "start again what made it") ]
            | Ok { Command = command; Left = 0 } -> finished command
            | Ok run -> again run locked)

/// The plans that `cmcl verify` runs, as a request: their scores are those of training rows.
let private verifyRequest
    (command: string)
    (options: (string * string) list)
    (arguments: ParseResults<VerifyArgument>)
    : Result<Request, Fault list> =
    let oneSeed (text: string) =
        match parseSeeds text with
        | Ok [ seed ] -> Ok seed
        | _ -> Error [ Fault.BadValue("--seed", "a whole number ≥ 0", text) ]

    let source = arguments.GetResult(VerifyArgument.Stream, "emoji")

    validated {
        let! seed = arguments.GetResult(VerifyArgument.Seed, "0") |> oneSeed
        and! device = arguments.GetResult(VerifyArgument.Device, "cpu") |> parseDevice
        and! stream = Catalogue.find source

        and! () =
            checkGiven
                arguments
                (arguments.TryGetResult VerifyArgument.Out)
                (arguments.TryGetResult VerifyArgument.Threads)
                None
                None

        return seed, device, stream
    }
    |> Result.bind (fun (seed, device, stream) ->
        let sets = arguments.GetResults VerifyArgument.Set
        let given = given options sets

        Verification.plans stream given
        |> Result.mapError (asWritten arguments sets)
        |> Result.map (fun plans ->
            { Stream = stream
              Source = source
              Plans = plans
              Seeds = [ seed ]
              Device = device
              Split = Split.Train
              SaveWeights = false
              Monitor = None
              Jobs = 1
              Out = arguments.GetResult(VerifyArgument.Out, Names.within "results" $"verify-{stream.Name}")
              Command = command
              Arguments = [] }))

let verify (command: string) (options: (string * string) list) (arguments: ParseResults<VerifyArgument>) : int =
    let quiet = arguments.Contains VerifyArgument.Quiet

    let work (r: Request) : int =
        setThreads r.Stream (arguments.TryGetResult VerifyArgument.Threads)

        if not quiet then
            printfn "%s\n" (Display.settings (Terminal.width ()) r)

        match Display.progress quiet false 1 (Progress.start (Experiment.cells r)) (fun tell -> Verification.run tell r) with
        | Error faults ->
            refuse faults |> ignore
            1
        | Ok found ->
            match VerificationFiles.write r.Out found |> Result.bind (fun () -> VerifyPage.write r found) with
            | Error faults -> refuse faults
            | Ok page ->
                if not quiet then
                    Terminal.show (Display.conditions found)

                    for sentence in found.Remarks do
                        Terminal.say sentence

                    Terminal.say $"\n{found.Result} Figures: {Terminal.path page}"
                elif not found.Broken.IsEmpty then
                    eprintfn "cmcl: %s" found.Result

                if found.Broken.IsEmpty then 0 else 1

    match verifyRequest command options arguments with
    | Error faults -> refuse faults
    | Ok r ->
        alone r.Out (fun _ ->
            VerificationFiles.prepare (arguments.Contains VerifyArgument.Force) r.Out |> Result.map (fun () -> work r))

let report (arguments: ParseResults<ReportArgument>) : int =
    match Report.write (arguments.GetResult Results) with
    | Error faults -> refuse faults
    | Ok path ->
        printfn "%s" (Path.GetFullPath path)
        0

let info (arguments: ParseResults<InfoArgument>) : int =
    match Catalogue.find (arguments.GetResult Data) with
    | Error faults -> refuse faults
    | Ok stream ->
        for line in Describe.lines (min 100 (Terminal.width ())) stream do
            printfn "%s" line

        0

let metrics () : int =
    for line in Metric.lines (min 100 (Terminal.width ())) do
        printfn "%s" line

    0

/// A name and what is said of it, as wide as the terminal, but no wider than is read well.
let entry (indent: int) (name: string) (text: string) : unit =
    for line in Layout.titled (min 120 (Terminal.width ())) indent name text do
        printfn "%s" line

let methods (arguments: ParseResults<MethodsArgument>) : int =
    let list (m: Method) = entry 17 m.Name m.Summary

    match arguments.TryGetResult MethodsArgument.Method with
    | None ->
        for e in Registry.entries do
            list e.Method

        Terminal.say "\nOptions of one: cmcl methods NAME. A method with options: --methods \"dns[protect=product;tau=3e-5]\"."
        0
    | Some name ->
        match Registry.find name with
        | Error faults -> refuse faults
        | Ok e ->
            list e.Method

            let values = [ for o in Settings.options -> o.Info.Name, o.Show Settings.initial ] @ e.Values |> Map

            for o in Entry.takes e do
                entry 21 $"  {o.Name}" $"{o.Help} ({o.Takes}; default: {values[o.Name]})"

            for name, value in e.Fixed do
                entry 21 $"  {name}" $"fixed: {value}"

            0
