/// `cmcl moments`: second moments of features in many files. A result is an exit code: 0, or 2 for a user's mistake.
module Cmcl.Cli.MomentsCommand

open System
open System.Diagnostics
open System.IO
open Argu
open TorchSharp
open Cmcl
open Cmcl.Cli.MomentsArguments
open Cmcl.Cli.Commands

/// Merges what `read` makes of each file and writes it; tells each file as it is done, then all rows and how fast they went by.
let private toFile
    (quiet: bool)
    (force: bool)
    (read: string -> Result<Moment, Fault list>)
    (names: string list)
    (out: string)
    : Result<unit, Fault list> =
    use scope = torch.NewDisposeScope()
    let watch = Stopwatch.StartNew()

    let tell (text: string) =
        if not quiet then
            Terminal.say text

    let told name =
        read name
        |> Result.map (fun m ->
            tell $"{name}: {m.Count} rows × {m.Matrix.shape[0]}"
            m)

    Files.free force out
    |> Result.bind (fun () -> Shards.merged told names)
    |> Result.bind (fun m ->
        let speed = float m.Count / max 1e-9 watch.Elapsed.TotalSeconds

        Files.makeFolderOf out
        |> Result.bind (fun () -> MomentFile.write out m)
        |> Result.map (fun () ->
            tell
                $"{names.Length} files, {m.Count} rows × {m.Matrix.shape[0]}, {speed:F0} rows/s, trace {Tensors.toFloat (m.Matrix.trace ()):G6}"

            tell (Terminal.path out)))

let private code (result: Result<unit, Fault list>) : int =
    match result with
    | Ok() -> 0
    | Error faults -> refuse faults

let private accumulate (arguments: ParseResults<AccumulateArgument>) : int =
    let out, threads = arguments.GetResult AccumulateArgument.Out, arguments.TryGetResult AccumulateArgument.Threads

    checkGiven arguments (Some out) threads None None
    |> Result.bind (fun () ->
        torch.set_num_threads (Option.defaultValue (min Protocol.MostThreads Environment.ProcessorCount) threads)

        toFile
            (arguments.Contains AccumulateArgument.Quiet)
            (arguments.Contains AccumulateArgument.Force)
            Shards.moment
            (arguments.GetResult AccumulateArgument.Shards)
            out)
    |> code

let private merge (arguments: ParseResults<MergeArgument>) : int =
    let out = arguments.GetResult MergeArgument.Out

    checkGiven arguments (Some out) None None None
    |> Result.bind (fun () ->
        toFile
            (arguments.Contains MergeArgument.Quiet)
            (arguments.Contains MergeArgument.Force)
            MomentFile.read
            (arguments.GetResult MergeArgument.Moments)
            out)
    |> code

let moments (arguments: ParseResults<MomentsArgument>) : int =
    match arguments.GetSubCommand() with
    | MomentsArgument.Accumulate arguments -> accumulate arguments
    | MomentsArgument.Merge arguments -> merge arguments
