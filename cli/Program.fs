module Cmcl.Cli.Program

open System
open Argu
open Cmcl
open Cmcl.Cli.HeadArguments
open Cmcl.Cli.GalleryArguments
open Cmcl.Cli.MomentsArguments
open Cmcl.Cli.EncodersArguments
open Cmcl.Cli.ExtractArguments
open Cmcl.Cli.StreamArguments
open Cmcl.Cli.SweepArguments
open Cmcl.Cli.StoreArguments
open Cmcl.Cli.NotebookArguments
open Cmcl.Cli.Arguments

/// Every option of the commands that have any, for a hint when one is misspelt.
let private options () =
    let names (cases: ArgumentCaseInfo list) = cases |> List.collect _.CommandLineNames.Value
    let taken = OptionArguments.names Registry.options

    [ "run", names (ArgumentParser.Create<RunArgument>().GetArgumentCases()) @ taken
      "resume", names (ArgumentParser.Create<ResumeArgument>().GetArgumentCases())
      "compare", names (ArgumentParser.Create<CompareArgument>().GetArgumentCases()) @ taken
      "tune", names (ArgumentParser.Create<TuneArgument>().GetArgumentCases()) @ taken
      "sweep", names (ArgumentParser.Create<SweepArgument>().GetArgumentCases())
      "cell", names (ArgumentParser.Create<CellArgument>().GetArgumentCases())
      "store",
      names (ArgumentParser.Create<StoreListArgument>().GetArgumentCases())
      @ names (ArgumentParser.Create<StoreAdoptArgument>().GetArgumentCases())
      |> List.distinct
      "verify", names (ArgumentParser.Create<VerifyArgument>().GetArgumentCases()) @ taken
      "bench", names (ArgumentParser.Create<BenchArgument>().GetArgumentCases())
      "export", names (ArgumentParser.Create<ExportArgument>().GetArgumentCases())
      "apply", names (ArgumentParser.Create<ApplyArgument>().GetArgumentCases())
      "retrieve", names (ArgumentParser.Create<RetrieveArgument>().GetArgumentCases())
      "gallery", names (ArgumentParser.Create<GalleryArgument>().GetArgumentCases())
      "extract", names (ArgumentParser.Create<ExtractArgument>().GetArgumentCases())
      "stream", names (ArgumentParser.Create<StreamArgument>().GetArgumentCases())
      "encoders", names (ArgumentParser.Create<EncodersGetArgument>().GetArgumentCases())
      "moments",
      names (ArgumentParser.Create<AccumulateArgument>().GetArgumentCases())
      @ names (ArgumentParser.Create<PairArgument>().GetArgumentCases())
      @ names (ArgumentParser.Create<MergeArgument>().GetArgumentCases())
      @ names (ArgumentParser.Create<SubtractArgument>().GetArgumentCases())
      |> List.distinct
      "solve",
      names (ArgumentParser.Create<SolveArgument>().GetArgumentCases())
      @ OptionArguments.names (OptionArguments.table (OptionArguments.entries [| "solve" |]))
      "notebook",
      names (ArgumentParser.Create<RunNotebookArgument>().GetArgumentCases())
      @ names (ArgumentParser.Create<StripNotebookArgument>().GetArgumentCases())
      |> List.distinct
      "import", names (ArgumentParser.Create<ImportArgument>().GetArgumentCases())
      "new", names (ArgumentParser.Create<NewArgument>().GetArgumentCases()) ]

// Argu compiles an expression for each case of each type, which takes a while: once a process.
let private knownOptions = lazy options ()

let private commands =
    [ "run"; "resume"; "compare"; "tune"; "sweep"; "cell"; "verify"; "bench"; "report"; "info"; "methods" ]
    @ [ "export"
        "apply"
        "retrieve"
        "gallery"
        "extract"
        "encoders"
        "moments"
        "solve"
        "import"
        "stream"
        "notebook"
        "new"
        "store" ]

/// Argu's first line as a sentence, with the nearest option that there is.
let private explain (argv: string[]) (message: string) : string =
    let options = knownOptions.Value
    let first = (Array.head (message.Split '\n')).Replace("ERROR: ", "").Trim()

    match first.Split '\'' with
    | [| _; given; _ |] when first.StartsWith "unrecognized" ->
        let own = options |> List.filter (fst >> (=) argv[0]) |> List.collect snd
        let owners = options |> List.filter (snd >> List.contains given) |> List.map fst

        if List.contains argv[0] commands && not (given.StartsWith '-') then
            $"cmcl {argv[0]} does not take '{given}' where it stands."
        elif own.IsEmpty && not owners.IsEmpty then
            let commands = String.Join(" and of ", owners |> List.map (fun name -> $"cmcl {name}"))
            $"{given} is an option of {commands}; write it after '{owners.Head}'."
        elif given.StartsWith '-' then
            (Fault.Unknown("option", given, (if own.IsEmpty then List.collect snd options |> List.distinct else own))).Message
        else
            (Fault.Unknown("command", given, commands)).Message
    | _ -> first

let private about =
    [ "Continual multimodal contrastive learning."
      "Exit codes: 0 done; 1 a part failed, the rest is there; 2 a mistake in the request, or a place that cannot be read or written; 70 an internal error of cmcl; 75 stopped on request, can be resumed; 130 stopped by Ctrl-C." ]
    |> List.collect (Layout.wrap 80)
    |> String.concat "\n"

/// Arguments that are no text: with a NUL, or with halves of characters.
let private garbled (argv: string[]) : Fault list =
    [ for argument in argv do
          if argument.Contains '\000' || not (Names.isClean (String.filter (Char.IsControl >> not) argument)) then
              Fault.BadValue("the command line", "text without NUL, of whole characters", Names.visible argument) ]

let private parser = lazy ArgumentParser.Create<Command>(programName = "cmcl", helpTextMessage = about)

let private dispatch (argv: string[]) : int =
    // What stands after "--" is not ours to read.
    let argv, beyond =
        match Array.tryFindIndex ((=) "--") argv with
        | Some i -> argv[.. i - 1], List.ofArray argv[i + 1 ..]
        | None -> argv, []

    let stray =
        match beyond with
        | _ :: _ when not (Array.contains "sweep" argv) ->
            [ Fault.Contradiction(
                  "what stands after '--' goes to Slurm, with cmcl sweep submit",
                  "leave out '--' and what follows it"
              ) ]
        | _ -> []

    let entries = OptionArguments.entries argv
    let taken: OptionArguments.Taken = OptionArguments.take (OptionArguments.table entries) (List.ofArray argv)

    try
        let results = parser.Value.ParseCommandLine(Array.ofList taken.Rest, raiseOnUsage = true)
        let quoted = argv |> Array.map (fun a -> if a |> Seq.exists (fun c -> " ;[]".Contains c) then $"\"{a}\"" else a)
        let command = "cmcl " + String.Join(" ", quoted)

        let chosen = results.TryGetSubCommand()

        let libtorch =
            match chosen with
            // Its worker loads one.
            | Some(Import _) -> Ok()
            | _ -> Native.libtorch ()

        match chosen, libtorch with
        | Some _, _ when not stray.IsEmpty -> Commands.refuse stray
        | Some(Report arguments), _ -> Commands.report arguments
        | Some(Methods arguments), _ -> Commands.methods arguments
        | Some(Notebook arguments), _ -> NotebookCommand.notebook arguments
        | Some(New arguments), _ -> NewCommand.create arguments
        | Some _, Error reason -> Commands.refuse [ Fault.NoLibtorch reason ]
        | Some _, _ when not taken.Faults.IsEmpty -> Commands.refuse taken.Faults
        | Some(Run arguments), _ -> Commands.run command (List.tail (List.ofArray argv)) taken.Options arguments
        | Some(Resume arguments), _ -> Commands.resume arguments
        | Some(Compare arguments), _ -> CompareCommand.compare command taken.Options arguments
        | Some(Tune arguments), _ -> TuneCommand.tune command taken.Options arguments
        | Some Metrics, _ -> Commands.metrics ()
        | Some Worker, _ -> SweepCommand.work ()
        | Some(Sweep arguments), _ -> SweepFolderCommand.sweep beyond arguments
        | Some(Cell arguments), _ -> SweepFolderCommand.cell arguments
        | Some(Store arguments), _ -> StoreCommand.store arguments
        | Some(Verify arguments), _ -> Commands.verify command taken.Options arguments
        | Some(Bench arguments), _ -> BenchCommand.bench command arguments
        | Some(Import arguments), _ -> ImportCommand.run arguments
        | Some(MakeStream arguments), _ -> StreamCommand.stream arguments
        | Some(Info arguments), _ -> Commands.info arguments
        | Some(Export arguments), _ -> HeadCommands.export arguments
        | Some(Apply arguments), _ -> HeadCommands.apply arguments
        | Some(Retrieve arguments), _ -> HeadCommands.retrieve arguments
        | Some(Gallery arguments), _ -> GalleryCommand.gallery arguments
        | Some(Extract arguments), _ -> ExtractCommand.extract arguments
        | Some(Encoders arguments), _ -> EncodersCommand.encoders arguments
        | Some(Moments arguments), _ -> MomentsCommand.moments arguments
        | Some(Solve arguments), _ -> MomentsCommand.solve taken.Options arguments
        | _ when results.Contains Version ->
            printfn "cmcl %s" Record.cmclVersion
            0
        | _ ->
            printfn "%s" (parser.Value.PrintUsage())
            0
    with
    | :? ArguParseException as e when e.ErrorCode = ErrorCode.HelpText ->
        printfn "%s" e.Message

        for line in OptionArguments.help (min 80 (Terminal.width ())) entries do
            printfn "%s" line

        0
    | :? ArguParseException as e ->
        let command = knownOptions.Value |> List.map fst |> List.tryFind (fun name -> argv.Length > 0 && argv[0] = name)
        let help = $"""cmcl {Option.defaultValue "run" command} --help"""
        eprintfn "cmcl: %s (cmcl --help, %s)" (explain argv e.Message) help
        2

/// The command as a function of its arguments; what it raises is told here.
let main (argv: string[]) : int =
    try
        Native.init ()

        match garbled argv with
        // It takes no arguments, and to read those of all commands takes a while.
        | [] when argv = [| ImportCommand.Worker |] -> ImportCommand.work ()
        | [] -> dispatch argv
        | faults -> Commands.refuse faults
    with e ->
        Top.ended e

[<EntryPoint>]
let entry argv =
    Top.own ()
    main argv
