/// Files with random changes, of every format, imported by workers within limits. `CMCL_FUZZ=2500` tries so many of each, and prints what
/// became of them.
module Cmcl.Tests.ImportFuzzTests

open System
open System.Diagnostics
open System.IO
open System.Threading
open Expecto
open FsCheck
open FsCheck.FSharp
open Cmcl
open Cmcl.Tests.Checks
open Cmcl.Tests.ImportFiles

type private Mutation =
    | Set of place: int * value: byte
    | Word of place: int * value: int64
    | Ones of place: int
    | Copy of from: int * into: int * length: int
    | Cut of place: int
    | Insert of place: int * value: byte

let private mutation: Gen<Mutation> =
    let place = Gen.choose (0, Int32.MaxValue - 1)

    Gen.frequency
        [ 6, Gen.map2 (fun p v -> Set(p, byte v)) place (Gen.choose (0, 255))
          3, Gen.map3 (fun p v shift -> Word(p, (int64 v <<< 31 ||| int64 v) >>> shift)) place place (Gen.choose (0, 62))
          2, Gen.map Ones place
          3, Gen.map3 (fun f t l -> Copy(f, t, l)) place place (Gen.choose (1, 64))
          1, Gen.map Cut place
          1, Gen.map2 (fun p v -> Insert(p, byte v)) place (Gen.choose (0, 255)) ]

/// A file changed; half of the changes fall into its first or last 300 bytes, where most of a format's structure lies.
let private mutate (bytes: byte[]) (change: Mutation) : byte[] =
    let n = bytes.Length

    let at p room =
        match p % 4 with
        | 0 -> (p / 4) % (min 300 (n - room))
        | 1 -> max 0 (n - room - 1 - (p / 4) % (min 300 (n - room)))
        | _ -> p % (n - room)

    if n < 80 then
        bytes
    else
        let copy = Array.copy bytes

        match change with
        | Set(p, v) -> copy[at p 1] <- v
        | Word(p, v) -> BitConverter.GetBytes(v).CopyTo(copy, at p 8)
        | Ones p -> Array.fill copy (at p 8) 8 255uy
        | Copy(f, t, l) -> Array.blit bytes (at f l) copy (at t l) l
        | Cut _
        | Insert _ -> ()

        match change with
        | Cut p -> bytes[.. at p 1]
        | Insert(p, v) -> Array.insertAt (at p 1) v copy
        | _ -> copy

/// How many cases a format is tried with: the same few every time, or as many new ones as CMCL_FUZZ says.
let private wanted =
    match Int32.TryParse(Environment.GetEnvironmentVariable "CMCL_FUZZ") with
    | true, n -> Some n
    | _ -> None

let private cases = Option.defaultValue 40 wanted

/// What a changed file may take.
let private limits: ImportLimits = { Memory = 1L <<< 30; Time = TimeSpan.FromSeconds 5.0 }

/// What became of an import: a stream, or sentences for a person, which are checked here.
let private outcome (format: string) (source: string) (result: Result<string list, Fault list>) : string =
    let names = source :: [ for path in Directory.GetFiles source -> string (Path.GetFileName path) ] @ [ "step '"; "set '" ]

    match result with
    | Ok _ -> "read"
    | Error faults ->
        let told = [ for fault in faults -> fault.Message ]
        Expect.isNonEmpty told "a refusal says why"

        for sentence in told do
            Expect.isTrue (sentence.Length > 10 && sentence.Length <= 600) $"a sentence, not: {sentence}"
            Expect.isFalse (Seq.exists Char.IsControl sentence) $"of one line: {sentence}"

        let said (words: string) = List.exists (fun (sentence: string) -> sentence.Contains words) told
        Expect.isTrue (List.exists said names) $"a sentence that names what is meant, not: {told.Head}"

        // Apache.Arrow reads memory that a changed file leads it to, and no guard but the process is against that.
        Expect.isFalse (format <> "arrow" && said "(exit code") $"no reader ends its process: {told.Head}"

        if said "(exit code" then "a reader that ended its process"
        elif said "was ended" then "over time"
        elif said "more memory than the limit" then "over memory"
        elif said "its reader broke off" then "an exception"
        else "refused"

/// Imports a folder in which one file was changed: to nothing but a stream or faults.
let private fuzz (format: string, change: ImportOptions -> ImportOptions, write: string -> unit) =
    testCase $"{format}: {cases} files with random changes are imported or refused" (fun () ->
        inFolder (fun folder ->
            let source, out = Directory.CreateDirectory(Path.Combine(folder, "in")).FullName, Path.Combine(folder, "out")
            write source
            let files = Directory.GetFiles source |> Array.filter (fun f -> not (f.EndsWith ".txt")) |> Array.sort
            let originals = files |> Array.map File.ReadAllBytes
            let outcomes = ResizeArray<string>()
            let mutable longest = TimeSpan.Zero
            use guard = new ImportGuard(importWorker, limits)

            let request: ImportRequest =
                { Format = format
                  Source = source
                  Out = out
                  Options = change Importer.defaults
                  Treatment = treatment
                  Force = true }

            let holds (which: int, changes: Mutation list) =
                let which = which % files.Length
                File.WriteAllBytes(files[which], List.fold mutate originals[which] changes)
                let watch = Stopwatch.StartNew()
                outcomes.Add(guard.Run(CancellationToken.None, ignore, request) |> outcome format source)
                longest <- max longest watch.Elapsed
                File.WriteAllBytes(files[which], originals[which])
                let left = Directory.GetFileSystemEntries folder |> Array.map Path.GetFileName |> Array.except [ "in"; "out" ]
                Expect.isEmpty left "nothing is left"

            let arbitrary =
                Gen.zip (Gen.choose (0, 1000)) (Gen.choose (1, 4) |> Gen.bind (fun n -> Gen.listOfLength n mutation))
                |> Arb.fromGen

            let config = Config.QuickThrowOnFailure.WithMaxTest(cases).WithQuietOnSuccess true
            let config = if wanted.IsNone then config.WithReplay(Some { Rnd = Rnd(1UL, 1UL); Size = None }) else config
            Check.One(config, Prop.forAll arbitrary holds)

            Expect.isLessThan
                (outcomes |> Seq.filter ((=) "read") |> Seq.length)
                (cases - cases / 20)
                "many changes are noticed"

            if wanted.IsSome then
                let counts = outcomes |> Seq.countBy id |> Seq.sortBy (snd >> (~-)) |> Seq.map (fun (name, n) -> $"{name} {n}")

                printfn
                    "%s: %d cases: %s; at most %.2f s and %d MB"
                    format
                    outcomes.Count
                    (String.Join(", ", counts))
                    longest.TotalSeconds
                    (guard.Peak / 1_000_000L)))

let tests =
    testList
        "import any bytes"
        (List.map fuzz (("cmcl-h5", second, publishOne) :: [ for format, write in writers -> format, id, write ]))
