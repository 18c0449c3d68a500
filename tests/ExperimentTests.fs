module Cmcl.Tests.ExperimentTests

open System
open System.IO
open Cmcl
open Expecto
open Cmcl.Tests.Checks
open TorchSharp

/// A folder of the test's own.
let private inFolder (body: string -> unit) () =
    use scope = torch.NewDisposeScope()
    let folder = Path.Combine(Path.GetTempPath(), $"cmcl-{Guid.NewGuid():N}")

    try
        body folder
    finally
        if Directory.Exists folder then
            Directory.Delete(folder, true)

let private request folder methods : Request =
    let rows purpose = Seed.normal [ 12L; 5L ] (Seed.ofInt 1 |> Seed.split purpose) |> Alignment.normalise
    let stream = streamOf [ vision, text, rows "1a", rows "1b"; audio, text, rows "2a", rows "2b" ]

    { Stream = stream
      Source = "made"
      Plans = Plan.resolve stream.Preset [] methods |> Check.get
      Seeds = [ 3; 4 ]
      Device = torch.CPU
      Split = Split.Test
      SaveWeights = true
      Monitor = None
      Jobs = 1
      Out = folder
      Command = "cmcl run"
      Arguments = [] }

let private methods = [ "zero-shot"; "vanilla[epochs=1;batch=4]"; "dns[epochs=1;batch=4]" ]
let private run request = experiment ignore request |> Check.get
let private touch folder name = File.WriteAllText(Path.Combine(folder, name), name)
let private has folder name = File.Exists(Path.Combine(folder, name))

/// The lines of `results.csv` that do not tell the time.
let private lines folder =
    File.ReadAllLines(Path.Combine(folder, "results.csv")) |> Array.filter (fun line -> not (line.Contains "seconds_"))

let tests =
    testList
        "Experiment"
        [ testCase "a folder with results is refused unless forced, and the user's files stay"
          <| inFolder (fun folder ->
              Expect.isOk (ResultsFolder.prepare false folder) "a new folder"
              touch folder "notes.txt"
              Expect.isOk (ResultsFolder.prepare false folder) "a folder with other things in it"

              for name in [ "results.csv"; "losses.csv"; "spectra.csv"; "monitor.csv"; "config.json"; "report.html" ] do
                  // Begun, and nothing in it yet.
                  File.WriteAllText(Path.Combine(folder, name), "")
                  Expect.equal (ResultsFolder.prepare false folder) (Error [ Fault.Occupied folder ]) name
                  Expect.isTrue (has folder name) "refused, and nothing gone"
                  Expect.isOk (ResultsFolder.prepare true folder) "forced"
                  Expect.isFalse (has folder name) "cleared"

              Directory.CreateDirectory(Path.Combine(folder, "weights", "vanilla")) |> ignore
              Expect.equal (ResultsFolder.prepare false folder) (Error [ Fault.Occupied folder ]) "weights"
              Expect.isOk (ResultsFolder.prepare true folder) "forced"
              Expect.isFalse (Directory.Exists(Path.Combine(folder, "weights"))) "weights gone"

              Expect.equal
                  (Directory.GetFileSystemEntries folder)
                  [| Path.Combine(folder, "notes.txt") |]
                  "the user's file is left alone")

          testCase "a folder that cannot be is a fault"
          <| inFolder (fun folder ->
              File.WriteAllText(folder, "a file")

              match ResultsFolder.prepare false (Path.Combine(folder, "inside")) with
              | Error [ Fault.Unwritable _ ] -> File.Delete folder
              | other -> failtest $"{other}")

          testCase "weights lie under method, seed and step, as they were after it"
          <| inFolder (fun folder ->
              let r = request folder [ "vanilla[epochs=1;batch=4]" ]
              ResultsFolder.prepare false folder |> Check.get
              run r |> ignore
              let _, heads = runPlan r.Stream 4 r.Plans.Head

              for step in [ 1; 2 ] do
                  let weights = Path.Combine(ResultsFolder.weightsOf folder r.Plans.Head.Label 4, $"step-0{step}")
                  let names = Directory.GetFiles weights |> Array.map Path.GetFileName |> Array.sort
                  Expect.equal names [| "audio.npy"; "text.npy"; "vision.npy" |] "every head"

                  for KeyValue(m, w) in heads[step] do
                      let read = Npy.read (Path.Combine(weights, $"{m}.npy")) |> Check.get
                      identical $"{m} after step {step}" read w

              Expect.isTrue (Directory.Exists(ResultsFolder.weightsOf folder r.Plans.Head.Label 3)) "every seed")

          testCase "two runs leave the same results, but for the clock"
          <| inFolder (fun folder ->
              let one, two = Path.Combine(folder, "one"), Path.Combine(folder, "two")
              run (request one methods) |> ignore
              run (request two methods) |> ignore
              Expect.equal (lines one) (lines two) "results.csv"
              Expect.isGreaterThan (lines one).Length 100 "many figures"

              for name in [ "losses.csv"; "spectra.csv"; "config.json" ] do
                  Expect.equal (File.ReadAllText(Path.Combine(one, name))) (File.ReadAllText(Path.Combine(two, name))) name)

          testCase "a cell that diverges is recorded and the others go on"
          <| inFolder (fun folder ->
              let r = request folder [ "vanilla[lr=1e300;epochs=2;batch=4]"; "dns[epochs=1;batch=4]" ]
              let summary = run r

              Expect.equal
                  (summary.Failures |> List.map (fun (label, seed, _) -> label, seed))
                  [ for s in [ 3; 4 ] -> r.Plans.Head.Label, s ]
                  "failures"

              Expect.equal (summary.Rows |> List.map _.Method |> List.distinct) [ "dns[epochs=1;batch=4]" ] "rows"

              Expect.stringContains
                  (File.ReadAllText(Path.Combine(folder, "config.json")))
                  "diverged in step step-1"
                  "and said so")

          testCase "the record tells what was asked for"
          <| inFolder (fun folder ->
              let r = request folder methods
              let json = Text.Json.Nodes.JsonNode.Parse(Record.write DateTimeOffset.UnixEpoch 0 [ "dns", 3, "why" ] r) |> nonNull
              let at (path: string) = path.Split '/' |> Array.fold (fun (n: Text.Json.Nodes.JsonNode) key -> nonNull n[key]) json
              let said path = (at path).ToString()
              Expect.equal (said "command") "cmcl run" "command"
              Expect.equal (said "created") "1970-01-01T00:00:00+00:00" "created"
              Expect.equal (said "split") "test" "split"
              Expect.equal ((at "seeds").ToJsonString()) "[3,4]" "seeds"
              Expect.equal (said "stream/name") "made" "stream"
              Expect.equal ((at "stream/steps").AsArray().Count) 2 "steps"
              let last = nonNull ((at "methods").AsArray()[2])
              Expect.equal ((nonNull last["label"]).ToString()) "dns[epochs=1;batch=4]" "label"
              let settings = (nonNull last["settings"]).AsObject()

              Expect.equal
                  [ for pair in settings -> pair.Key, (nonNull pair.Value).ToString() ]
                  (Plan.effective r.Plans[2])
                  "settings"

              let failure = nonNull ((at "failures").AsArray()[0])
              Expect.equal (failure.ToJsonString()) """{"method":"dns","seed":3,"message":"why"}""" "failure")

          testCase "cells side by side leave what they leave one after another, each told in its own order"
          <| inFolder (fun folder ->
              let of' jobs =
                  { request (Path.Combine(folder, $"jobs-{jobs}")) methods with
                      Jobs = jobs
                      Seeds = [ 0..4 ] }

              let told = ResizeArray()

              let tell progress =
                  match progress with
                  | StudyEvent.Cell(cell, CellEvent.Progress p) ->
                      told.Add((cell.Method, cell.Seed), (p.Step, p.Epoch |> Option.map _.Number), p.Share)
                  | _ -> ()

              for jobs in [ 1; 3 ] do
                  Expect.isOk (ResultsFolder.prepare false (of' jobs).Out) "prepared"

              run (of' 1) |> ignore
              experiment tell (of' 3) |> Check.get |> ignore
              Expect.equal (lines (of' 3).Out) (lines (of' 1).Out) "the same lines in the same order"

              for cell, events in told |> Seq.groupBy (fun (cell, _, _) -> cell) do
                  let places = events |> Seq.map (fun (_, place, _) -> place) |> List.ofSeq
                  Expect.equal places (List.sort places) $"{cell}"

                  let shares = events |> Seq.map (fun (_, _, share) -> share)
                  Expect.isTrue (Seq.pairwise shares |> Seq.forall (fun (a, b) -> a <= b)) "the share never falls")

          testCase "progress begins at 0 and ends at 1"
          <| inFolder (fun folder ->
              let r = request folder methods
              let shares = ResizeArray()
              let reached = ref (Progress.start (Experiment.cells r))

              let tell event =
                  reached.Value <- Progress.after event reached.Value
                  shares.Add(Progress.share reached.Value)

                  match event with
                  | StudyEvent.Cell(_, CellEvent.Ended how) -> Expect.isEmpty (CellEnd.faults how) "no fault"
                  | StudyEvent.Cell _ -> ()
                  | other -> failtest $"{other}"

              experiment tell r |> Check.get |> ignore
              Expect.equal (reached.Value.Done, reached.Value.Waiting.Count, reached.Value.Running.Count) (6, 0, 0) "cells"
              Expect.equal (Seq.head shares) 0.0 "begins"
              near "ends" tight (Seq.last shares) 1.0
              Expect.isTrue (Seq.pairwise shares |> Seq.forall (fun (a, b) -> a <= b)) "never falls") ]
