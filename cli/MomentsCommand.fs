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

let private parseFile (text: string) : Result<string * string, Fault list> =
    match text.Split('=', 2) with
    | [| modality; file |] when modality <> "" && file <> "" -> Ok(modality, file)
    | _ -> Error [ Fault.BadValue("a file of cmcl moments pair", "MODALITY=FILE.npy, such as vision=pictures.npy", text) ]

let private describe (m: JointMoments) : string list =
    [ for KeyValue(modality, s) in m.Second -> $"{modality}: {s.Sum.shape[0]} columns, weight {s.Weight:G9}" ]
    @ [ for KeyValue(struct (a, b), s) in m.Cross -> $"{a} with {b}: weight {s.Weight:G9}" ]

let private features (lift: SeededLift option) : string list = if lift.IsNone then [] else [ $"of features {Lift.describe lift}" ]

/// Writes joint moments, and says what is in them.
let private writeJoint
    (quiet: bool)
    (force: bool)
    (out: string)
    (make: unit -> Result<SavedMoments, Fault list>)
    : Result<unit, Fault list> =
    use scope = torch.NewDisposeScope()

    Files.free force out
    |> Result.bind (fun () ->
        try
            make ()
        with CmclException fault ->
            Error [ fault ])
    |> Result.bind (fun m ->
        Files.makeFolderOf out
        |> Result.bind (fun () -> JointMomentFile.write out m)
        |> Result.map (fun () ->
            if not quiet then
                for line in describe m.Moments @ features m.Lift @ [ Terminal.path out ] do
                    Terminal.say line))

let private pair (arguments: ParseResults<PairArgument>) : int =
    let out, threads = arguments.GetResult PairArgument.Out, arguments.TryGetResult PairArgument.Threads
    let first, second = arguments.GetResult PairArgument.Files

    validated {
        let! () = checkGiven arguments (Some out) threads None None
        and! a, fileA = parseFile first
        and! b, fileB = parseFile second

        let! both =
            validated {
                let! a = Modality.create a
                and! b = Modality.create b
                return! Pair.create a b
            }

        and! lift = Settings.features.Codec.Read "features" (arguments.GetResult(PairArgument.Features, Lift.show None))

        return both, fileA, fileB, lift
    }
    |> Result.bind (fun (pair, fileA, fileB, lift) ->
        let lift =
            lift
            |> Option.map (fun l ->
                { Lift = l
                  Seed = arguments.GetResult(PairArgument.Seed, 0) })

        torch.set_num_threads (Option.defaultValue (min Protocol.MostThreads Environment.ProcessorCount) threads)

        writeJoint (arguments.Contains PairArgument.Quiet) (arguments.Contains PairArgument.Force) out (fun () ->
            Shards.joint lift pair fileA fileB |> Result.map (fun m -> { Moments = m; Lift = lift })))
    |> code

let private merge (arguments: ParseResults<MergeArgument>) : int =
    let out, names = arguments.GetResult MergeArgument.Out, arguments.GetResult MergeArgument.Moments
    let quiet, force = arguments.Contains MergeArgument.Quiet, arguments.Contains MergeArgument.Force

    checkGiven arguments (Some out) None None None
    |> Result.bind (fun () ->
        if JointMomentFile.is names.Head then
            Shards.once names
            |> Result.bind (fun () ->
                writeJoint quiet force out (fun () ->
                    JointMomentFile.readAll names
                    |> Result.map (fun (all, lift) -> { Moments = JointMoments.mergeAll all; Lift = lift })))
        else
            toFile quiet force MomentFile.read names out)
    |> code

let private subtract (arguments: ParseResults<SubtractArgument>) : int =
    let out, names = arguments.GetResult SubtractArgument.Out, arguments.GetResult SubtractArgument.Moments

    checkGiven arguments (Some out) None None None
    |> Result.bind (fun () ->
        match names with
        | whole :: (_ :: _ as parts) ->
            Shards.once parts
            |> Result.bind (fun () ->
                writeJoint
                    (arguments.Contains SubtractArgument.Quiet)
                    (arguments.Contains SubtractArgument.Force)
                    out
                    (fun () ->
                        JointMomentFile.readAll (whole :: parts)
                        |> Result.bind (fun (all, lift) ->
                            match List.fold (fun left part -> JointMoments.subtract part left) all.Head all.Tail with
                            | left when left.Second.IsEmpty ->
                                Error [ Fault.Contradiction($"nothing is left of '{whole}'", "take off less than all of it") ]
                            | left -> Ok { Moments = left; Lift = lift })))
        | _ ->
            Error
                [ Fault.BadValue("cmcl moments subtract", "a file, and one or more to be taken off it", $"{names.Length} file") ])
    |> code

let moments (arguments: ParseResults<MomentsArgument>) : int =
    match arguments.GetSubCommand() with
    | MomentsArgument.Accumulate arguments -> accumulate arguments
    | MomentsArgument.Pair arguments -> pair arguments
    | MomentsArgument.Merge arguments -> merge arguments
    | MomentsArgument.Subtract arguments -> subtract arguments

/// The method that `cmcl solve` applies, with options as they were given.
let private closedForm (given: (string * string) list) : Result<ClosedForm.Options, Fault list> =
    (Ok(Spec.entry ClosedForm.cca), given)
    ||> List.fold (fun entry (name, value) -> entry |> Result.bind (fun e -> e.Read name value))
    |> Result.map (Entry.own<ClosedForm.Options> >> Option.get)

let solve (given: (string * string) list) (arguments: ParseResults<SolveArgument>) : int =
    use scope = torch.NewDisposeScope()
    let out, names = arguments.GetResult(SolveArgument.Out, "heads.safetensors"), arguments.GetResult SolveArgument.Moments

    validated {
        let! () = checkGiven arguments (Some out) None None None
        and! () = Shards.once names
        and! o = closedForm given
        and! parts, lift = JointMomentFile.readAll names

        return o, parts, lift
    }
    |> Result.bind (fun (o, parts, lift) ->
        let weighted = parts |> List.map (ClosedForm.weighted o.Weights) |> JointMoments.mergeAll
        let ofLift = lift |> Option.map (fun (l: SeededLift) -> l.Lift)
        let widest = (weighted.Second.Values |> Seq.map _.Sum.shape[0] |> Seq.max) - Lift.added ofLift
        let d = arguments.TryGetResult SolveArgument.Dimension |> Option.map int64 |> Option.defaultValue widest

        if d < 1L then
            Error [ Fault.BadValue("--dimension", "a whole number ≥ 1", string d) ]
        else
            ClosedForm.fit o.Cca ofLift d weighted
            |> Result.bind (fun (heads, directions) ->
                let saved =
                    { Heads = heads
                      About =
                        Map(
                            [ "format", "cmcl-heads/1"
                              "cmcl", Record.cmclVersion
                              "method", "cca"
                              "scores", "cosine"
                              "bias", "no" ]
                            @ Lift.texts lift
                        ) }

                SavedHeads.files out saved
                |> List.map (Files.free (arguments.Contains SolveArgument.Force))
                |> Check.all
                |> Result.bind (fun _ -> SavedHeads.write out saved)
                |> Result.map (fun () ->
                    if not (arguments.Contains SolveArgument.Quiet) then
                        for line in describe weighted @ features lift do
                            Terminal.say line

                        Terminal.say $"{directions} directions of positive correlation, heads of {d} rows"
                        Terminal.say (Terminal.path out))))
    |> code
