module Cmcl.Cli.Program

open System
open Argu
open Cmcl
open Cmcl.Cli.Arguments

/// Every option of every command, for a hint when one is misspelt.
let private options =
    [ for case in ArgumentParser.Create<RunArgument>().GetArgumentCases() do
          yield! case.CommandLineNames.Value ]

let private commands = [ "run"; "report"; "info"; "methods" ]

/// Argu's first line as a sentence, with the nearest option that there is.
let private explain (argv: string[]) (message: string) : string =
    let first = (Array.head (message.Split '\n')).Replace("ERROR: ", "").Trim()

    match first.Split '\'' with
    | [| _; given; _ |] when first.StartsWith "unrecognized" ->
        if List.contains argv[0] commands && not (given.StartsWith '-') then
            $"cmcl {argv[0]} does not take '{given}' where it stands."
        elif List.contains given options then
            $"{given} is an option of cmcl run; write it after 'run'."
        elif given.StartsWith '-' then
            (Fault.Unknown("option", given, options)).Message
        else
            (Fault.Unknown("command", given, commands)).Message
    | _ -> first

[<EntryPoint>]
let main argv =
    Native.init ()
    Console.OutputEncoding <- Text.Encoding.UTF8

    let parser =
        ArgumentParser.Create<Command>(programName = "cmcl", helpTextMessage = "Continual multimodal contrastive learning.")

    try
        let results = parser.ParseCommandLine(argv, raiseOnUsage = true)
        let quoted = argv |> Array.map (fun a -> if a |> Seq.exists (fun c -> " ;[]".Contains c) then $"\"{a}\"" else a)
        let command = "cmcl " + String.Join(" ", quoted)

        match results.TryGetSubCommand() with
        | Some(Run arguments) -> Commands.run command arguments
        | Some(Report arguments) -> Commands.report arguments
        | Some(Info arguments) -> Commands.info arguments
        | Some(Methods arguments) -> Commands.methods arguments
        | _ when results.Contains Version ->
            printfn "cmcl %s" Record.cmclVersion
            0
        | _ ->
            printfn "%s" (parser.PrintUsage())
            0
    with
    | :? ArguParseException as e when e.ErrorCode = ErrorCode.HelpText ->
        printfn "%s" e.Message
        0
    | :? ArguParseException as e ->
        eprintfn "cmcl: %s (cmcl --help, cmcl run --help)" (explain argv e.Message)
        2
    | CmclException fault -> Commands.refuse [ fault ]
