/// What `cmcl bench` does. A result is an exit code: 0, 1 for forms that are too far apart, 2 for a user's mistake.
module Cmcl.Cli.BenchCommand

open System
open System.Globalization
open System.IO
open Argu
open TorchSharp
open Cmcl
open Cmcl.Cli.Arguments
open Cmcl.Cli.Commands

/// A list of different values, each read by `parse`.
let private list (name: string) (takes: string) (parse: string -> 'a option) (text: string) : Result<'a list, Fault list> =
    let parts = text.Split ',' |> Array.map (fun part -> parse (part.Trim())) |> List.ofArray
    let values = List.choose id parts

    if List.contains None parts || List.distinct values <> values then
        Error [ Fault.BadValue(name, $"{takes}, separated by commas, each once", text) ]
    else
        Ok values

let private within (least: int64) (most: int64) (text: string) : int64 option =
    match Int64.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture) with
    | true, n when n >= least && n <= most -> Some n
    | _ -> None

/// Larger matrices and more rows than these fit no machine that this is for.
let private mostWidth, mostRows = 16384L, 1_000_000L

/// `1/4` or `0.25`.
let private share (text: string) : float option =
    let number (s: string) =
        match Double.TryParse(s, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture) with
        | true, x -> Some x
        | _ -> None

    match text.Split '/' with
    | [| one |] -> number one
    | [| above; below |] -> Option.map2 (/) (number above) (number below)
    | _ -> None
    |> Option.filter (fun x -> x > 0.0 && x <= 1.0)

let private dtype (text: string) : Dtype option =
    match text with
    | "float32" -> Some Dtype.Float32
    | "float64" -> Some Dtype.Float64
    | _ -> None

/// What `--quick`, `--parity` and neither of them mean for what is not said.
type private Defaults =
    { Forms: string
      Sizes: string
      Batches: string
      Threads: string
      Dtypes: string
      Ranks: string
      Steps: string }

let private defaults (quick: bool) (parity: bool) : Defaults =
    let cores = min Protocol.MostThreads Environment.ProcessorCount
    let all = String.Join(',', Form.names)
    let threads = if cores = 1 then "1" else $"1,{cores}"

    if parity then
        { Forms = all
          Sizes = "256"
          Batches = "64"
          Threads = string cores
          Dtypes = "float32,float64"
          Ranks = "1/4"
          Steps = "off" }
    elif quick then
        { Forms = "none,published,block,block-own,soft"
          Sizes = "1024"
          Batches = "64"
          Threads = threads
          Dtypes = "float32"
          Ranks = "1/4,1/16,1/2"
          Steps = "off" }
    else
        { Forms = all
          Sizes = "256,768,1024,2048"
          Batches = "64,256,1024"
          Threads = threads
          Dtypes = "float32,float64"
          Ranks = "1/4,1/16,1/2"
          Steps = "1000,2000,5000,10000" }

/// Options that would say again what a mode has decided.
let private checkMode (mode: string) (on: bool) (given: (string * bool) list) : Result<unit, Fault list> =
    match given |> List.filter snd |> List.map fst with
    | names when on && not names.IsEmpty ->
        let words = String.Join(" and ", names)
        Error [ Fault.Contradiction($"{mode} does not go with {words}", $"leave out {words}, or {mode}") ]
    | _ -> Ok()

let private request (arguments: ParseResults<BenchArgument>) : Result<BenchRequest, Fault list> =
    let quick, parity = arguments.Contains BenchArgument.Quick, arguments.Contains BenchArgument.Parity
    let otherwise = defaults quick parity
    let forms, sizes = arguments.TryGetResult BenchArgument.Forms, arguments.TryGetResult BenchArgument.Sizes
    let batches, ranks = arguments.TryGetResult BenchArgument.Batches, arguments.TryGetResult BenchArgument.Ranks
    let steps, rounds = arguments.TryGetResult BenchArgument.Steps, arguments.TryGetResult BenchArgument.Rounds
    let out = arguments.TryGetResult BenchArgument.Out

    validated {
        let! () = checkGiven arguments out None None None

        and! () =
            checkMode
                "--quick"
                quick
                [ "--parity", parity
                  "--forms", forms.IsSome
                  "--sizes", sizes.IsSome
                  "--batches", batches.IsSome
                  "--ranks", ranks.IsSome ]

        and! () = checkMode "--parity" parity [ "--rounds", rounds.IsSome; "--steps", steps.IsSome ]

        and! forms =
            (defaultArg forms otherwise.Forms).Split ','
            |> Array.map (fun name -> Form.find (name.Trim()))
            |> List.ofArray
            |> Check.all

        and! sizes =
            defaultArg sizes otherwise.Sizes |> list "--sizes" $"whole numbers from 2 to {mostWidth}" (within 2L mostWidth)

        and! batches =
            defaultArg batches otherwise.Batches |> list "--batches" $"whole numbers from 2 to {mostRows}" (within 2L mostRows)

        and! ranks = defaultArg ranks otherwise.Ranks |> list "--ranks" "shares of d, such as 1/4 or 0.25" share

        and! threads =
            arguments.GetResult(BenchArgument.Threads, otherwise.Threads)
            |> list "--threads" $"whole numbers from 1 to {Protocol.MostThreads}" (within 1L (int64 Protocol.MostThreads))

        and! dtypes = arguments.GetResult(BenchArgument.Dtype, otherwise.Dtypes) |> list "--dtype" "float32 or float64" dtype
        and! device = arguments.GetResult(BenchArgument.Device, "cpu") |> parseDevice

        and! steps =
            match defaultArg steps otherwise.Steps with
            | "off" -> Ok []
            | text -> list "--steps" $"off, or whole numbers from 2 to {mostRows}" (within 2L mostRows) text

        and! rounds =
            match defaultArg rounds (if quick then 15 else 9) with
            | n when n >= 1 -> Ok n
            | n -> Error [ Fault.BadValue("--rounds", "a whole number ≥ 1", string n) ]

        return
            { Forms = List.distinctBy _.Name forms
              Widths = sizes
              Batches = batches
              Shares = ranks
              ThreadCounts = List.map int threads
              Dtypes = dtypes
              Device = device
              Rounds = rounds
              Limit = if quick then 3.0 else 40.0
              StepRows = steps
              StepRounds = min 3 rounds }
    }

/// Tables on standard output as contests end, what is under way on standard error.
let private show (event: BenchEvent) : unit =
    match event with
    | BenchEvent.Began(what, share) -> eprintfn "%3.0f %% %s" (100.0 * share) what
    | BenchEvent.Iterated found ->
        Terminal.say (BenchDisplay.heading found)
        Terminal.show (BenchDisplay.iterations found)
    | BenchEvent.Stepped found ->
        let e = found.Head.Extent
        Terminal.say $"Whole steps, {e.Dtype}, d = {e.Width}, batch {e.Pairs}, rank {e.Rank}"
        Terminal.show (BenchDisplay.steps found)

let private parity (quiet: bool) (out: string option) (r: BenchRequest) : int =
    torch.set_num_threads r.ThreadCounts.Head

    let found =
        [ for dtype in r.Dtypes do
              for width in r.Widths do
                  for pairs in r.Batches do
                      for share in r.Shares do
                          for form in r.Forms |> List.filter (fun f -> not f.Purely) do
                              if not quiet then
                                  eprintfn "%s, %O, d = %d, batch %d" form.Name dtype width pairs

                              Parity.check
                                  r.Device
                                  { Width = width
                                    Pairs = pairs
                                    Rank = Benchmark.rank share width
                                    Dtype = dtype }
                                  form ]

    let apart = found |> List.filter (fun p -> not p.Holds)

    if not quiet then
        Terminal.show (BenchDisplay.parity found)

    match out |> Option.map (fun folder -> BenchFiles.writeParity folder found) with
    | Some(Error faults) -> refuse faults
    | Some(Ok())
    | None when apart.IsEmpty ->
        if not quiet then
            Terminal.say $"All forms on {r.Device} are within tolerance of their pure functions on the CPU."

        0
    | Some(Ok())
    | None ->
        let names = String.Join(", ", apart |> List.map _.Form |> List.distinct)
        eprintfn "cmcl: on %O the weights are too far from those of the pure functions: %s" r.Device names
        1

let private time (command: string) (quiet: bool) (out: string option) (r: BenchRequest) : int =
    let b = Benchmark.run (if quiet then ignore else show) r

    if not quiet then
        for line in BenchDisplay.growth r b @ [ "" ] @ BenchDisplay.ratios r b.Iterations @ BenchDisplay.stepRatios b.Steps do
            Terminal.say line

    match out with
    | None -> 0
    | Some folder ->
        match BenchFiles.write folder b |> Result.bind (fun () -> BenchPage.write folder command r b) with
        | Error faults -> refuse faults
        | Ok page ->
            if not quiet then
                Terminal.say $"Tables and figures: {Terminal.path page}"

            0

let bench (command: string) (arguments: ParseResults<BenchArgument>) : int =
    let quiet = arguments.Contains BenchArgument.Quiet

    let out =
        match arguments.TryGetResult BenchArgument.Out with
        | None when arguments.Contains BenchArgument.Quick || arguments.Contains BenchArgument.Parity -> None
        | given -> Some(Option.defaultValue (Path.Combine("results", "bench")) given)

    let work r = if arguments.Contains BenchArgument.Parity then parity quiet out r else time command quiet out r

    match request arguments, out with
    | Error faults, _ -> refuse faults
    | Ok r, None -> work r
    | Ok r, Some folder ->
        alone folder (fun _ ->
            BenchFiles.prepare (arguments.Contains BenchArgument.Force) folder |> Result.map (fun () -> work r))
