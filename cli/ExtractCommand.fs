/// What `cmcl extract` does. A result is an exit code: 0, or 2 for a user's mistake.
module Cmcl.Cli.ExtractCommand

open System
open System.Diagnostics
open System.IO
open Argu
open Spectre.Console
open TorchSharp
open Cmcl
open Cmcl.Encoders
open Cmcl.Cli.ExtractArguments
open Cmcl.Cli.Commands

let private request (arguments: ParseResults<ExtractArgument>) : Result<ExtractRequest, Fault list> =
    let encoder, manifest = arguments.GetResult ExtractArgument.Files
    let out = arguments.GetResult ExtractArgument.Out
    let batch = arguments.GetResult(ExtractArgument.Batch, 32)

    validated {
        let! () = checkGiven arguments (Some out) (arguments.TryGetResult ExtractArgument.Threads) None None
        and! () = Files.free (arguments.Contains ExtractArgument.Force) out
        and! device = arguments.GetResult(ExtractArgument.Device, "cpu") |> parseDevice

        and! half =
            match arguments.GetResult(ExtractArgument.Dtype, "float32") with
            | "float32" -> Ok false
            | "float16" -> Ok true
            | other -> Error [ Fault.NotOneOf("--dtype", other, [ "float32"; "float16" ]) ]

        and! () =
            if batch >= 1 && batch <= 65536 then
                Ok()
            else
                Error [ Fault.BadValue("--batch", "a whole number from 1 to 65536", string batch) ]

        return
            { Encoder = encoder
              Manifest = manifest
              Out = out
              Batch = batch
              Half = half
              Device = device
              SkipMissing = arguments.Contains ExtractArgument.Skip_Missing
              SkipUnreadable = arguments.Contains ExtractArgument.Skip_Unreadable
              Restart = arguments.Contains ExtractArgument.Restart }
    }

/// Items done and the time left, from what this run has done: a line now and then, over and over in its place in a terminal.
let private progress (quiet: bool) : ExtractProgress -> unit =
    let watch = Stopwatch.StartNew()
    let live = AnsiConsole.Profile.Capabilities.Interactive && not Console.IsErrorRedirected
    let mutable before = None
    let mutable told = TimeSpan.Zero

    let mutable shortened = 0

    function
    | ExtractProgress.Doubt sentence -> eprintfn "cmcl: %s." sentence
    | ExtractProgress.Shortened texts -> shortened <- shortened + texts
    | ExtractProgress.Skipped fault -> eprintfn "cmcl: left out: %s" fault.Message
    | ExtractProgress.Done _ when quiet -> ()
    | ExtractProgress.Done(items, all) ->
        let start = Option.defaultValue items before
        let resumed = before.IsNone && items > 0
        before <- Some start
        let due = live || watch.Elapsed - told > TimeSpan.FromSeconds 10.0 || items = all || resumed

        if due then
            told <- watch.Elapsed
            let share = float (items - start) / float (max 1 (all - start))
            let note = if resumed then "on disk already" else Display.left watch share
            let line = $"{items}/{all} items  {note}"
            if live then eprintf "\r%s   %s" line (if items = all then "\n" else "") else eprintfn "%s" line

        if items = all && shortened > 0 then
            eprintfn
                "%s"
                (if shortened = 1 then
                     "one text was longer than the encoder's context and was cut"
                 else
                     $"{shortened} texts were longer than the encoder's context and were cut")

let extract (arguments: ParseResults<ExtractArgument>) : int =
    let quiet = arguments.Contains ExtractArgument.Quiet

    match request arguments with
    | Error faults -> refuse faults
    | Ok request ->
        let cores = min Protocol.MostThreads Environment.ProcessorCount
        torch.set_num_threads (arguments.GetResult(ExtractArgument.Threads, cores))

        match Extract.run (progress quiet) request with
        | Error faults -> refuse faults
        | Ok shape ->
            if not quiet then
                printfn "%s: [%d × %d]" (Path.GetFullPath request.Out) shape[0] shape[1]

            0
