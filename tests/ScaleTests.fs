module Cmcl.Tests.ScaleTests

open System
open System.IO
open Expecto
open TorchSharp
open Cmcl
open Cmcl.Tests.Checks

/// No room for rows: every step streams.
let private streaming = { Limits.usual with Rows = 0L }

let private runWithin (limits: Limits) (stream: Stream) (plan: Plan) : Outcome * Map<int, Heads> =
    let mutable saved = Map.empty

    let save (step: Step) (heads: Heads) =
        saved <- Map.add step.Index (Heads.map (fun w -> w.clone().DetachFromDisposeScope()) heads) saved

    let outcome = Train.runWithin limits stream torch.CPU Split.Test 3 { Observer.silent with Save = save } plan |> Check.get

    outcome, saved

let private untimed (outcome: Outcome) = outcome.Measurements |> List.filter (fun r -> not (r.Metric.StartsWith "seconds_"))

/// A run that streams against the one in memory. Deviations that are zero in exact arithmetic are rounding in both.
let private sameRun (tolerance: float) (stream: Stream) (text: string) =
    let p = plan stream text
    // What a moment misses counts the more, the further heads move: polish exchanges them all at every step.
    let slack = if p.Method.Name = "polish" then 3e-4 else 1e-4
    let held, heads = runWithin Limits.usual stream p
    let streamed, others = runWithin streaming stream p

    for KeyValue(step, own) in heads do
        for KeyValue(m, w) in own do
            same $"{text}: {m} after step {step}" tolerance others[step].[m] w

    for r, whole in List.zip (untimed streamed) (untimed held) do
        Expect.equal (r.Step, r.Task, r.Metric) (whole.Step, whole.Task, whole.Metric) text
        let what = $"{text}: {r.Metric} of {r.Task} after {r.Step}"

        if r.Metric.StartsWith "bound_" then
            // A moment is all that is kept of rows that stream, and misses more than rows do (theory.md, section 8).
            Expect.isGreaterThanOrEqual r.Value (whole.Value - tolerance * max 1.0 whole.Value) what
            Expect.isLessThanOrEqual r.Value (whole.Value + slack * max 1.0 whole.Value) what
        else
            near what tolerance r.Value whole.Value

let private equality =
    testList
        "a run that streams is the run in memory"
        [ test "every method, to rounding" (fun () ->
              let stream = firstSteps 4 synthetic.Value

              for m in Registry.entries |> List.map _.Method do
                  if Method.trains m then
                      sameRun 1e-7 stream $"{m.Name}[epochs=1;lr=1e-3]")

          test "every protection and place of dns, to rounding" (fun () ->
              let stream = firstSteps 4 synthetic.Value

              for options in
                  [ "protect=product"
                    "protect=soft"
                    "protect=trust"
                    "protect=trust;total-budget=0.2"
                    "exact=on"
                    "place=gradient"
                    "place=update"
                    "partner=at-learning"
                    "moments=centred"
                    "moments=centred;partner=at-learning"
                    "free-basis=own"
                    "batch=all" ] do
                  sameRun 1e-7 stream $"dns[epochs=1;lr=1e-3;{options}]")

          test "where nothing is worked out for all rows, bit for bit" (fun () ->
              let stream = firstSteps 3 synthetic.Value

              for text in [ "vanilla"; "individual"; "joint"; "ewc"; "der"; "gem"; "co2l" ] do
                  let p = plan stream $"{text}[epochs=1;lr=1e-3]"
                  let _, heads = runWithin Limits.usual stream p
                  let _, others = runWithin streaming stream p

                  for KeyValue(step, own) in heads do
                      for KeyValue(m, w) in own do
                          identical $"{text}: {m} after step {step}" others[step].[m] w)

          test "emoji: from mapped files" (fun () ->
              let stream = Catalogue.find "emoji" |> Check.get |> firstSteps 3

              for text in [ "vanilla[epochs=1]"; "dns-soft[epochs=1]"; "dns-trust[epochs=1]"; "dns[epochs=1;protect=product]" ] do
                  sameRun 1e-7 stream text)

          test "no tensor is left" (fun () ->
              let stream = firstSteps 3 synthetic.Value

              for text in [ "vanilla"; "dns"; "dns-soft"; "ewc"; "gem"; "reference" ] do
                  let p = plan stream $"{text}[epochs=1]"

                  let left =
                      leaked (fun () ->
                          Train.runWithin streaming stream torch.CPU Split.Test 0 Observer.silent p |> Check.get |> ignore)

                  Expect.equal left 0L text) ]

let private context (stream: Stream) : RunContext =
    { Stream = stream
      Device = torch.CPU
      Split = Split.Test
      Settings = (plan stream "vanilla").Settings
      Lifts = Map.empty
      Bias = false }

let private tasks =
    testList
        "tasks"
        [ test "rows by number, in any order, and after a function of each" (fun () ->
              let stream = synthetic.Value
              let b, step = context stream, stream.Steps[1]
              let held, streamed = TrainingRows.task b step, TrainingRows.streamed b step
              let rows = torch.tensor [| 5L; 0L; 419L; 5L |]
              Expect.equal streamed.Count held.Count "count"
              let turned = Task.map (fun _ x -> x * number 2.0)

              for m in Pair.members step.Pair do
                  identical $"{m}" (streamed.Take(m, rows)) (held.Take(m, rows))
                  identical $"{m}, turned" ((turned streamed).Take(m, rows)) ((turned held).Take(m, rows))
                  same $"moment of {m}" tight (Task.moment m streamed).Matrix (Task.moment m held).Matrix

              Expect.equal (leaked (fun () -> (streamed.Take(step.Pair.A, rows)).Dispose())) 0L "tensors")

          test "to ask a step that streams for all rows is a fault that says what to do" (fun () ->
              let stream = synthetic.Value
              let task = TrainingRows.streamed (context stream) stream.Steps.Head

              match faultOf (fun () -> task.All task.Pair.A) with
              | Fault.Contradiction _ as f -> Expect.stringContains f.Message "Task.Take" "what to do"
              | other -> failtest $"{other}")

          test "steps are held up to the limit, and together only if they fit together" (fun () ->
              let b = context synthetic.Value
              let steps = List.take 2 b.Stream.Steps
              let one = Round.rowBytes b steps.Head
              let held rows steps = TrainingRows.tasks { Limits.usual with Rows = rows } b steps |> List.map _.IsHeld
              Expect.equal one (8L * 420L * 128L) "bytes of a step"
              Expect.equal (held one [ steps.Head ]) [ true ] "fits"
              Expect.equal (held (one - 1L) [ steps.Head ]) [ false ] "does not"
              Expect.equal (held (2L * one) steps) [ true; true ] "both fit"
              Expect.equal (held (2L * one - 1L) steps) [ false; false ] "not both")

          test "deviations of a step that streams are of evenly spaced rows" (fun () ->
              let stream = synthetic.Value
              let step = stream.Steps.Head
              let many = 3 * Round.Sampled + 5
              let long = { step with Train = Array.init many int64 }
              let heads = Heads.identity Dtype.Float64 torch.CPU 8L (Stream.modalities stream)
              let round limits = Round.start limits (context { stream with Steps = [ long ] }) heads
              let few = (Round.compared (round streaming) long).Train
              Expect.equal few.Length Round.Sampled "so many"
              Expect.equal (few[0], few[1], Array.distinct few |> Array.length) (0L, 3L, Round.Sampled) "spaced"
              Expect.isGreaterThan (Array.last few) (int64 (many - 5)) "to the end"
              let all = { Limits.usual with Rows = Int64.MaxValue; Held = 0L }

              Expect.equal
                  (Round.compared { round streaming with Streams = Set.empty } long).Train.Length
                  many
                  "all of one that is held"

              Expect.isEmpty (round all).Streams "held") ]

// ---- memory ------------------------------------------------------------------------------------------------------

/// A stream folder of two steps over three banks of so many float16 rows; the last 300 are for measuring.
let private write (folder: string) (rows: int64) (columns: int64) : unit =
    Directory.CreateDirectory folder |> ignore

    let draw purpose width = Seed.normal [ min 5000L rows; width ] (Seed.ofInt 0 |> Seed.split purpose)

    for name in [ "a"; "b"; "c" ] do
        use scope = torch.NewDisposeScope()
        // The same rows again and again: how many there are is what matters, and to draw them takes longest.
        let block = torch.cat ([| draw "shared" 8L; draw name (columns - 8L) |], 1L)
        let blocks = seq { for first in 0L .. 5000L .. rows - 1L -> block.narrow (0L, 0L, min 5000L (rows - first)) }

        Npy.writeRows (Path.Combine(folder, name + ".npy")) torch.ScalarType.Float16 rows columns blocks |> Check.get

    let bank name = $"\"{name}\": {{ \"modality\": \"{name}\", \"file\": \"{name}.npy\" }}"
    let range name first upTo = $"\"{name}\": {{ \"from\": {first}, \"to\": {upTo} }}"

    let step a b =
        $"{{ \"name\": \"{a}{b}\", \"a\": \"{a}\", \"b\": \"{b}\", \"train\": \"train\", \"validation\": \"validation\", \"test\": \"test\" }}"

    File.WriteAllText(
        Path.Combine(folder, "stream.json"),
        $"""{{ "format": "cmcl-stream/1", "name": "scale", "banks": {{ {bank "a"}, {bank "b"}, {bank "c"} }},
        "rows": {{ {range "train" 0L (rows - 300L)}, {range "validation" (rows - 300L) (rows - 200L)}, {range "test" (rows - 200L) rows} }},
        "steps": [ {step "a" "b"}, {step "c" "b"} ] }}"""
    )

let private memory =
    test "what a run that streams takes does not grow with its rows" (fun () ->
        let folder = Directory.CreateTempSubdirectory "cmcl-scale"
        let few, many, columns = 5_000L, 100_000L, 256L

        try
            let at (rows: int64) = Path.Combine(folder.FullName, $"{rows}")

            for rows in [ few; many ] do
                write (at rows) rows columns

            let run rows text =
                taken (fun () ->
                    let stream = StreamFolder.load (at rows) |> Check.get
                    let p = plan stream text

                    let p =
                        { p with
                            Settings = { p.Settings with Dtype = Dtype.Float32 } }

                    Train.runWithin streaming stream torch.CPU Split.Test 0 Observer.silent p |> Check.get |> ignore)

            let held limits =
                taken (fun () ->
                    let stream = StreamFolder.load (at many) |> Check.get
                    let tasks = TrainingRows.tasks limits (context stream) [ stream.Steps.Head ]
                    Expect.equal tasks.Head.Count (many - 300L) "rows")

            // What is held at once, and what the collector leaves lying, does not depend on the rows; other tests run beside this one.
            for text in [ "vanilla[epochs=1;batch=512]"; "dns[epochs=1;batch=512]" ] do
                run few text |> ignore
                let small, large = run few text, run many text
                let rows = 2L * columns * 4L * (many - few)
                Expect.isLessThan (large - small) (rows / 2L) $"{text}: {small} and {large} bytes"

            Expect.isGreaterThan (held Limits.usual - held streaming) (columns * 8L * many) "held in memory they do take theirs"
        finally
            folder.Delete true)

let tests = testSequenced (testList "Scale" [ equality; tasks; memory ])
