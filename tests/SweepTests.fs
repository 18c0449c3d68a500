module Cmcl.Tests.SweepTests

open System
open System.Collections.Concurrent
open System.Diagnostics
open System.IO
open System.Threading
open Cmcl
open Expecto
open Cmcl.Tests.Checks
open Cmcl.Tests.Processes
open TorchSharp

// ---- cell files --------------------------------------------------------------------------------------------------

/// A description of a device alone: there need not be one.
let private protocol (split: Split) (device: DeviceType) : Protocol =
    { Split = split
      Device = (if device = DeviceType.CPU then torch.CPU else torch.Device "cuda:0")
      Threads = 1
      Monitor = None }

let private identity (stream: Stream) (written: string) (seed: int) (split: Split) (device: DeviceType) =
    let plan = Plan.resolve stream.Preset [] [ written ] |> Check.get |> List.exactlyOne
    Identity.of' (protocol split device) stream plan seed

let private usual () = identity synthetic.Value "vanilla" 0 Split.Test DeviceType.CPU

/// A cell, and what it leaves with numbers that text may lose.
let private cell: Cell =
    { Stream = "synthetic"
      Method = "vanilla"
      Order = 1
      Seed = 0 }

let private numbers = [ 0.1 + 0.2; 1e-300; -0.0; 1.0; nan; infinity; -infinity; Double.Epsilon; Math.PI ]

let private left: CellResult =
    { Outcome =
        { Measurements = [ for i, value in List.indexed numbers -> { Step = i; Task = 1; Metric = $"metric{i}"; Value = value } ]
          Losses = [ for i, value in List.indexed numbers -> 1, i, value ]
          Spectra =
            [ 2,
              { Modality = Modality.named "vision"
                Side = "input"
                Shares = Array.ofList numbers
                Protected = Some 3 } ] }
      Monitor =
        [ { Step = 2
            Update = 7L
            Task = 1
            Drift = { Frobenius = 0.1 + 0.2; Rms = 1e-300; Relative = nan } } ] }

let private nothing: CellResult =
    { Outcome = { Measurements = []; Losses = []; Spectra = [] }
      Monitor = [] }

let private record result : CellRecord = { Result = result; Seconds = 1.25; Memory = 123456789012L }

/// With every number as its bits.
let private bits (result: CellResult) =
    let bits = BitConverter.DoubleToInt64Bits

    [ for r in result.Outcome.Measurements -> r.Step, r.Task, r.Metric, bits r.Value ],
    [ for step, epoch, loss in result.Outcome.Losses -> step, epoch, bits loss ],
    [ for step, s in result.Outcome.Spectra -> step, s.Modality, s.Side, Array.map bits s.Shares, s.Protected ],
    [ for m in result.Monitor -> m.Step, m.Update, m.Task, [ m.Drift.Frobenius; m.Drift.Rms; m.Drift.Relative ] |> List.map bits ]

let private write folder identity result =
    CellFile.write
        folder
        { Identity = identity
          Cell = cell
          Machine = "{\"os\":\"ü\"}"
          Record = record result }
    |> Check.get

let private files =
    testList
        "files"
        [ test "a cell's hash changes with everything that decides its figures" (fun () ->
              let stream = synthetic.Value

              let renamed =
                  { stream with
                      Steps = stream.Steps |> List.map (fun s -> { s with Name = s.Name + "'" }) }

              let all =
                  [ usual ()
                    identity { stream with Digest = "other" } "vanilla" 0 Split.Test DeviceType.CPU
                    identity (Order.apply 1 stream) "vanilla" 0 Split.Test DeviceType.CPU
                    identity (Order.apply 2 stream) "vanilla" 0 Split.Test DeviceType.CPU
                    identity renamed "vanilla" 0 Split.Test DeviceType.CPU
                    identity stream "individual" 0 Split.Test DeviceType.CPU
                    identity stream "vanilla" 1 Split.Test DeviceType.CPU
                    identity stream "vanilla" 0 Split.Validation DeviceType.CPU
                    identity stream "vanilla" 0 Split.Test DeviceType.CUDA
                    for option in Settings.options do
                        let value =
                            match option.Info.Name with
                            | "epochs" -> "7"
                            | "batch" -> "17"
                            | "optimizer" -> "sgd"
                            | "scores" -> "cosine"
                            | "symmetric" -> "on"
                            | "shuffle" -> "off"
                            | "dtype" -> "float64"
                            | "features" -> "relu:5"
                            | "decay" -> "cosine"
                            | _ -> "0.123"

                        identity stream $"vanilla[{option.Info.Name}={value}]" 0 Split.Test DeviceType.CPU ]

              let hashes = List.map Identity.hash all
              Expect.equal (List.distinct hashes) hashes "all differ"
              Expect.all hashes (fun h -> h.Length = 20 && Seq.forall Uri.IsHexDigit h) "hexadecimal digits")

          test "how figures are taken decides a method's that does not train, too" (fun () ->
              let hash given =
                  let plan = Plan.resolve synthetic.Value.Preset given [ "zero-shot" ] |> Check.get |> List.exactlyOne
                  Identity.hash (Identity.of' (protocol Split.Test DeviceType.CPU) synthetic.Value plan 0)

              let some = [ []; [ "scores", "cosine" ]; [ "temperature", "0.5" ]; [ "dtype", "float64" ] ] |> List.map hash
              Expect.equal (List.distinct some) some "all differ")

          test "a label, a description and settings that change nothing are no part of it" (fun () ->
              let stream = synthetic.Value
              let lr = Plan.effective (plan stream "vanilla") |> Map.ofList |> Map.find "lr"

              for other in
                  [ identity stream $"vanilla[lr={lr}]" 0 Split.Test DeviceType.CPU
                    identity { stream with Name = "x"; Description = "y" } "vanilla" 0 Split.Test DeviceType.CPU
                    identity (Order.apply 0 stream) "vanilla" 0 Split.Test DeviceType.CPU ] do
                  Expect.equal other (usual ()) "the same cell"

              let idle (tau: float) =
                  let p = plan stream "dns"
                  let other = p.Entry.Read "tau" (string tau) |> Check.get
                  Identity.of' (protocol Split.Test DeviceType.CPU) stream { p with Entry = other } 0

              Expect.equal (idle 1.0) (idle 2.0) "a setting that belongs to another way to protect")

          testCase "what is written is read, to the bit"
          <| inFolder (fun folder ->
              let unusual = identity { synthetic.Value with Digest = "ü\"\\\n€" } "vanilla" 0 Split.Test DeviceType.CPU

              for identity in [ usual (); unusual ] do
                  write folder identity (Ok left)
                  let read = CellFile.read folder identity |> Option.get
                  Expect.equal (read.Seconds, read.Memory) (1.25, 123456789012L) "seconds and memory"
                  Expect.equal (read.Result |> Result.map bits) (Ok(bits left)) "all of it"
                  write folder identity (Error "it \"diverged\"")

                  Expect.equal
                      (CellFile.read folder identity |> Option.map CellState.ofRecord)
                      (Some(CellState.Failed "it \"diverged\""))
                      "a cell that diverged"

              Expect.equal
                  (Directory.GetFiles(folder, "*", SearchOption.AllDirectories).Length)
                  2
                  "a file for each, nothing beside")

          testCase "half a file, another's file and no file are missing"
          <| inFolder (fun folder ->
              let own = usual ()
              Expect.isNone (CellFile.read folder own) "no file"
              write folder own (Ok left)
              let path = CellFile.path folder own
              let whole = File.ReadAllText path

              for length in 0..13 .. whole.TrimEnd().Length - 1 do
                  File.WriteAllText(path, whole.Substring(0, length))
                  Expect.isNone (CellFile.read folder own) $"{length} characters of {whole.Length}"

              for other in
                  [ whole.Replace("\"seed\":0", "\"seed\":1"); whole.Replace("\"done\"", "\"well\""); "[]"; "null"; "1" ] do
                  File.WriteAllText(path, other)
                  Expect.isNone (CellFile.read folder own) other

              File.WriteAllText(path, whole)
              Expect.isSome (CellFile.read folder own) "the whole file")

          testCase "any other byte anywhere in a cell's file is told, and the cell is missing"
          <| inFolder (fun folder ->
              let own = usual ()
              write folder own (Ok left)
              let path = CellFile.path folder own
              let whole = File.ReadAllBytes path
              let random = Random 5

              for place in 0 .. whole.Length - 1 do
                  let spoilt = Array.copy whole
                  spoilt[place] <- spoilt[place] ^^^ byte (1 + random.Next 255)
                  File.WriteAllBytes(path, spoilt)

                  match CellFile.check folder own with
                  | Error [ Fault.Unreadable(named, _) ] -> Expect.equal named path "which"
                  | other -> failtest $"byte {place}: {other}"

              Expect.isNone (CellFile.read folder own) "missing"
              File.WriteAllBytes(path, whole)
              Expect.isOk (CellFile.check folder own) "as it was") ]

// ---- lines -------------------------------------------------------------------------------------------------------

let private lines =
    testList
        "lines"
        [ testCase "jobs and answers are what they were, in one line each" (fun () ->
              let job: WorkerJob =
                  { Source = "./a \"b\"\n"
                    Method = "dns[tau=1]"
                    Given = [ [ "lr"; "1e-3" ] ]
                    Seed = 3
                    Order = 2
                    Split = "test"
                    Device = "cpu"
                    Threads = 1
                    Jobs = 2
                    Out = "ü"
                    Hash = "0" }

              Expect.equal (Line.job (Line.ofJob job)) (Some job) "job"

              for answer in
                  [ CellEvent.Started
                    CellEvent.Resumed 3
                    CellEvent.Progress
                        { Step = 2
                          Steps = 6
                          Name = "a\nb"
                          Epoch = Some { Number = 1; Of = 3; Loss = infinity }
                          Share = 0.1 + 0.2 }
                    CellEvent.Progress
                        { Step = 2
                          Steps = 6
                          Name = ""
                          Epoch = None
                          Share = 1.0 }
                    CellEvent.Remark(2, "a", "b\nc")
                    CellEvent.Ended(CellEnd.Finished(1e-3, true))
                    CellEvent.Ended(CellEnd.Failed("why\nthen", false))
                    CellEvent.Warning(Fault.Told "a checkpoint")
                    CellEvent.Ended(CellEnd.Unwritten [ Fault.Told "full" ])
                    CellEvent.Ended(CellEnd.Broken [ Fault.Told "" ])
                    CellEvent.Ended CellEnd.Elsewhere
                    CellEvent.Ended CellEnd.Stopped ] do
                  let line = Line.ofEvent answer
                  Expect.isFalse (line.Contains '\n') "one line"
                  Expect.equal (Line.event line) (Some answer) "answer"

              for line in [ ""; "hello"; "{}"; "[]"; "[\"done\"]"; "[1]"; "null" ] do
                  Expect.isNone (Line.event line) line)

          testCase "a worker that cannot do what it is asked says so, and does the next"
          <| inFolder (fun folder ->
              let stream = Synthetic.make Synthetic.defaults (Seed.ofInt 0)
              let written = "zero-shot"
              let own = identity stream written 0 Split.Test DeviceType.CPU

              let job: WorkerJob =
                  { Source = "synthetic"
                    Method = written
                    Given = []
                    Seed = 0
                    Order = 0
                    Split = "test"
                    Device = "cpu"
                    Threads = 1
                    Jobs = 1
                    Out = folder
                    Hash = Identity.hash own }

              let wrong =
                  [ { job with Source = "./nowhere" }
                    { job with Method = "nope" }
                    { job with Hash = "other" }
                    { job with Order = -1 }
                    { job with Device = "tpu" } ]

              let asked = [ for e in wrong -> Line.ofJob e ] @ [ "what?"; Line.ofJob job ]
              use input = new StringReader(String.Join("\n", asked))
              use output = new StringWriter()
              use alone = new ManualResetEventSlim()
              Worker.serve input output (fun () -> false) alone.Set |> ignore

              let ends =
                  output.ToString().Split('\n', StringSplitOptions.RemoveEmptyEntries)
                  |> Array.choose (fun line ->
                      match Line.event line with
                      | Some(CellEvent.Ended ended) -> Some ended
                      | _ -> None)

              Expect.equal ends.Length asked.Length "an answer each"

              for ended in Array.truncate 6 ends do
                  match ended with
                  | CellEnd.Broken faults -> Expect.isGreaterThan (Fault.Several faults).Message.Length 10 "a sentence"
                  | _ -> failtest $"{ended}"

              match Array.last ends with
              | CellEnd.Finished _ -> Expect.isSome (CellFile.read folder own) "its file"
              | ended -> failtest $"{ended}"

              Expect.isTrue alone.IsSet "the end of its input is told") ]

// ---- cells of a sweep --------------------------------------------------------------------------------------------

let private methods = [ "zero-shot"; "vanilla"; "dns[tau=1,protect=soft]" ]

let private study () : Study =
    { Streams =
        [ { Source = Some "synthetic"
            Stream = synthetic.Value
            Threads = 1 } ]
      Configurations = Configurations.Written(methods, [ "lr", "1e-3" ], [])
      Orders = [ 0; 1 ]
      Seeds = [ 0; 4 ]
      Split = Split.Test
      Device = torch.CPU
      Monitor = None }

let private run (methods: string list) (given: (string * string) list) (study: Study) : Study =
    { study with
        Configurations = Configurations.Written(methods, given, []) }

let private cells =
    testList
        "cells"
        [ testCase "all seeds, orders and methods, a round of every method after another"
          <| inFolder (fun folder ->
              let table = Study.cells (study ()) |> Check.get
              let cells = Study.inRounds (study ()) table
              let labels = set [ "zero-shot"; "vanilla"; "dns[tau=1;protect=soft]" ]
              Expect.hasLength cells 12 "methods × seeds × orders"

              for i, round in cells |> List.chunkBySize 3 |> List.indexed do
                  Expect.equal (set [ for c in round -> c.Cell.Method ]) labels "every method"
                  Expect.equal (List.distinct [ for c in round -> c.Order, c.Seed ]).Length 1 $"round {i}"
                  Expect.equal (List.last round).Cell.Method "zero-shot" "the cheapest is the last of a round"

              let comparison = Comparison.ofStudy "cmcl" folder (study ()) table

              Expect.equal
                  comparison.Methods
                  [ "zero-shot", Role.Floor; "vanilla", Role.Baseline; "dns[tau=1;protect=soft]", Role.Subject ]
                  "as asked for"

              Expect.all comparison.Cells (fun (_, state) -> state = CellState.Missing) "nothing is there"

              Expect.equal
                  (comparison.Cells |> List.map (fun (c, _) -> c.Order, c.Seed) |> List.truncate 4)
                  [ 0, 0; 0, 4; 1, 0; 1, 4 ]
                  "sorted")

          testCase "a source decides no figure; everything else of a study does, threads, too" (fun () ->
              let hashes (s: Study) = Study.cells s |> Check.get |> List.map (Job.identity >> Identity.hash) |> set

              let same =
                  { study () with
                      Streams = [ { (study ()).Streams.Head with Source = Some "./other" } ] }

              Expect.equal (hashes same) (hashes (study ())) "the same cells"

              for other in
                  [ study () |> run [ "vanilla"; "dns" ] [ "lr", "2e-3" ]
                    { study () with Split = Split.Validation }
                    { study () with
                        Streams = [ { (study ()).Streams.Head with Threads = 5 } ] }
                    { study () with Seeds = [ 1; 2 ] } ] do
                  Expect.isEmpty (Set.intersect (hashes other) (hashes (study ()))) "other cells")

          testCase "a folder and jobs decide no figure"
          <| inFolder (fun folder ->
              let job = (Study.cells (study ()) |> Check.get).Head
              let hash out jobs = (WorkerJob.ofJob out jobs job.AsWritten.Value job).Hash
              Expect.equal (hash folder 1) (hash "elsewhere" 7) "the same cell")

          testCase "what other processes cannot find they do not take, and nothing begins"
          <| inFolder (fun folder ->
              let mine = { Plain.vanilla with Name = "mine" }

              let own =
                  { study () with
                      Configurations = Configurations.Written([ "mine" ], [], [ Entry.ofMethod mine ]) }

              let hidden =
                  { study () with
                      Streams = [ { (study ()).Streams.Head with Source = None } ] }

              let tell event = failtest $"{event}"
              let never () = ProcessStartInfo "/nowhere/cmcl"

              for one, words in
                  [ own, "worker processes cannot run mine: its method is this script's own"
                    hidden, "worker processes cannot run zero-shot: its stream 'synthetic' or its method" ] do
                  let jobs = Study.cells one |> Check.get |> Array.ofList
                  let faults = StudyFolder.run (Pool.engine never 2) folder (fun () -> false) tell jobs |> faultsOf
                  Expect.stringContains faults.Head.Message words "told"
                  Expect.stringContains faults.Head.Message "run it in this process" "what to do"

              Expect.isFalse (Directory.Exists(CellFile.folder folder)) "nothing written")

          testCase "one cell under two labels is run once, and both have its rows"
          <| inFolder (fun folder ->
              let own =
                  { study () with Seeds = [ 0 ]; Orders = [ 0 ] } |> run [ "vanilla"; "vanilla[lr=0.001]" ] [ "lr", "1e-3" ]

              let cells = Study.cells own |> Check.get
              Expect.equal (cells |> List.map Job.identity |> List.distinct).Length 1 "one identity"
              write folder (Job.identity cells.Head) (Ok left)

              match (Comparison.ofStudy "cmcl" folder own cells).Cells with
              | [ a, CellState.Finished first; b, CellState.Finished second ] ->
                  Expect.equal (a.Method, b.Method) ("vanilla", "vanilla[lr=0.001]") "labels"
                  Expect.all first (fun r -> r.Method = a.Method) "the first's rows"
                  Expect.all second (fun r -> r.Method = b.Method) "the second's rows"
              | other -> failtest $"{other}")

          testCase "an option goes to the methods that take it" (fun () ->
              let given = [ "lr", "1e-3"; "tau", "1e-2"; "scores", "cosine" ]

              let cells =
                  { study () with Seeds = [ 0 ]; Orders = [ 0 ] }
                  |> run [ "zero-shot"; "vanilla"; "dns-soft"; "dns" ] given
                  |> Study.cells
                  |> Check.get

              let names method =
                  cells |> List.find (fun c -> c.Cell.Method = method) |> fun c -> List.map fst c.AsWritten.Value.Given

              Expect.equal (names "zero-shot") [ "scores" ] "zero-shot"
              Expect.equal (names "vanilla") [ "lr"; "scores" ] "vanilla"
              Expect.equal (names "dns-soft") [ "lr"; "tau"; "scores" ] "dns-soft"
              Expect.equal (names "dns") [ "lr"; "scores" ] "dns: a setting that its protection does not have")

          testCase "all faults at once" (fun () ->
              let faults =
                  { study () with
                      Streams = (study ()).Streams @ (study ()).Streams
                      Orders = [ 0..999 ] }
                  |> run [ "nope"; "vanilla[tau=1]" ] [ "lr", "1e-3" ]
                  |> Study.cells
                  |> faultsOf

              let text = String.Join("\n", faults |> List.map _.Message)

              for words in
                  [ "two streams have the name 'synthetic'"
                    "--orders takes at most 720"
                    "no method 'nope'"
                    "'tau' is not an option" ] do
                  Expect.stringContains text words "told")

          testCase "force takes the cells of this sweep and leaves others"
          <| inFolder (fun folder ->
              let cells = Study.cells (study ()) |> Check.get
              let stay = Path.Combine(CellFile.folder folder, "0123.json")
              StudyFolder.prepare false folder cells |> Check.get
              write folder (Job.identity cells.Head) (Ok nothing)
              File.WriteAllText(stay, "another's")
              StudyFolder.prepare false folder cells |> Check.get
              Expect.isTrue (File.Exists(CellFile.path folder (Job.identity cells.Head))) "finished cells stay"
              StudyFolder.prepare true folder cells |> Check.get
              Expect.isFalse (File.Exists(CellFile.path folder (Job.identity cells.Head))) "forced"
              Expect.isTrue (File.Exists stay) "cells of others stay")

          testCase "the results of another command are not written among"
          <| inFolder (fun folder ->
              File.WriteAllText(Path.Combine(folder, "results.csv"), "")
              Expect.isError (StudyFolder.prepare true folder []) "refused"
              Expect.isFalse (Directory.Exists(CellFile.folder folder)) "nothing written") ]

let private progress =
    testCase "what is told of a study adds up, and the time left is that of each method" (fun () ->
        let cell method seed = { cell with Method = method; Seed = seed }
        let ended how cell = Progress.after (StudyEvent.Cell(cell, CellEvent.Ended how))
        let finished seconds = ended (CellEnd.Finished(seconds, true))

        let all =
            [ cell "slow" 0, 10L
              cell "slow" 1, 10L
              cell "quick" 0, 1L
              cell "quick" 1, 1L
              cell "quick" 2, 1L
              cell "bad" 0, 0L
              cell "new" 0, 6L ]

        let start =
            Progress.start all
            |> finished 10.0 (cell "slow" 0)
            |> finished 1.0 (cell "quick" 0)
            |> finished 3.0 (cell "quick" 1)
            |> ended (CellEnd.Failed("diverged", true)) (cell "bad" 0)

        Expect.equal (start.Total, start.Done, start.Failed, start.Waiting.Count) (7, 3, 1, 3) "at the start"
        near "by their updates, of one without any 1" tight (Progress.share start) (13.0 / 30.0)
        // 10 for the slow one, 2 for the quick one, the mean of all, 14/3, for the unknown one.
        near "left" tight (Progress.left 2 start).Value ((10.0 + 2.0 + 14.0 / 3.0) / 2.0)

        let at =
            { Step = 1
              Steps = 6
              Name = "a"
              Epoch = Some { Number = 1; Of = 2; Loss = 1.0 }
              Share = 0.5 }

        let running =
            start
            |> Progress.after (StudyEvent.Cell(cell "slow" 1, CellEvent.Started))
            |> Progress.after (StudyEvent.Cell(cell "slow" 1, CellEvent.Progress at))

        near "half of one is done" tight (Progress.left 1 running).Value (5.0 + 2.0 + 14.0 / 3.0)
        near "its share" tight (Progress.share running) (18.0 / 30.0)
        let ended how = ended how (cell "slow" 1) running
        Expect.equal (ended (CellEnd.Finished(20.0, false))).Done 4 "done"
        Expect.equal (ended (CellEnd.Failed("", false))).Failed 2 "failed"
        Expect.equal (ended (CellEnd.Broken [])).Failed 2 "broken"
        Expect.isEmpty (ended (CellEnd.Finished(20.0, false))).Running "nothing runs"
        Expect.equal (ended CellEnd.Elsewhere).Waiting.Count 3 "another's"
        near "learned" tight (Progress.left 1 (ended (CellEnd.Finished(20.0, false)))).Value (2.0 + 34.0 / 4.0)

        Expect.isNone (Progress.left 1 (Progress.start [ cell "slow" 0, 1L ])) "nothing is known yet")

// ---- processes ---------------------------------------------------------------------------------------------------

/// Eight cells, long enough to be interrupted.
let private argumentsFor (seeds: string) folder =
    [ "compare"
      "--stream"
      "synthetic"
      "--methods"
      "zero-shot,vanilla,dns,joint"
      "--seeds"
      seeds
      "--set"
      "epochs=20"
      "--jobs"
      "2"
      "--threads"
      "1"
      "--out"
      folder ]

let private arguments = argumentsFor "0,1"

/// The comparison without any interruption, run from the beginning.
let private uninterrupted: Lazy<Map<string, string list>> =
    lazy
        (let folder = Directory.CreateTempSubdirectory "cmcl-whole"

         try
             Expect.equal (fst (finish (cmcl (arguments folder.FullName)))) 0 "the whole comparison"
             results folder.FullName
         finally
             folder.Delete true)

let private whole what folder =
    let now = results folder
    Expect.equal (Seq.length now.Keys) 8 $"{what}: every cell"
    Expect.equal now uninterrupted.Value $"{what}: the results of a comparison that was not interrupted"

let private processes =
    testList
        "processes"
        [ testCase "a comparison that is killed goes on where it was, and leaves no worker behind"
          <| onLinux (fun folder ->
              let after = Random.Shared.Next(0, 4)
              let pause = Random.Shared.Next(0, 300)
              let what = $"killed {pause} ms after {after} cells"
              let first = cmcl (arguments folder)

              until "some cells are finished" (fun () ->
                  (cellFiles folder).Length >= after && (children first.Process.Id).Length = 2)

              Thread.Sleep pause
              let workers = children first.Process.Id
              first.Process.Kill()
              finish first |> ignore
              until $"{what}: its workers have ended" (fun () -> not (List.exists alive workers))
              let kept = [ for path in cellFiles folder -> path, File.GetLastWriteTimeUtc path ]
              let code, said = finish (cmcl (arguments folder))
              Expect.equal code 0 said

              for path, written in kept do
                  Expect.equal (File.GetLastWriteTimeUtc path) written $"{what}: a finished cell is not run again"

              whole what folder)

          testCase "a worker that is killed loses its cell alone, and the next start runs it"
          <| onLinux (fun folder ->
              let first = cmcl (arguments folder)
              until "a cell is finished" (fun () -> (cellFiles folder).Length >= 1 && (children first.Process.Id).Length = 2)
              let victim = (children first.Process.Id)[Random.Shared.Next 2]
              Process.GetProcessById(victim).Kill()
              let code, said = finish first
              Expect.equal code 1 said
              Expect.stringContains said "exit code 137" "how the worker ended"
              Expect.stringContains said "tries again" "what to do"
              Expect.isGreaterThanOrEqual (cellFiles folder).Length 7 "all others are there"
              Expect.equal (fst (finish (cmcl (arguments folder)))) 0 "the next start"
              whole "a worker killed" folder)

          testCase "Ctrl-C ends the workers, and says how to go on"
          <| onLinux (fun folder ->
              needsInterrupts ()
              // From the command's own program, not by dotnet.
              let first = start (Path.Combine(AppContext.BaseDirectory, "Cmcl.Cli")) (argumentsFor "0-99" folder)
              until "a cell is finished" (fun () -> (cellFiles folder).Length >= 1 && (children first.Process.Id).Length = 2)
              let workers = children first.Process.Id
              use _ = Process.Start("kill", [ "-INT"; string first.Process.Id ])
              let code, said = finish first
              Expect.equal code 130 said
              Expect.stringContains said "the same command goes on from here" "what to do"
              Expect.isFalse (List.exists alive workers) "no worker is left") ]

let tests = testSequenced (testList "Sweep" [ files; lines; cells; progress; processes ])
