module Cmcl.Tests.TrainTests

open System
open Cmcl
open Expecto
open Cmcl.Tests.Checks
open TorchSharp

let private d = 6L

/// Rows in a plane of their own.
let private rows (purpose: string) n =
    let draw purpose rows columns = Seed.normal [ rows; columns ] (Seed.ofInt 9 |> Seed.split purpose)
    (draw purpose n 2L).mm(draw (purpose + " plane") 2L d) |> Alignment.normalise

/// Three steps; depth comes only in the last, vision not in the second.
let private stream () : Stream =
    streamOf
        [ vision, text, rows "1a" 20L, rows "1b" 20L
          audio, text, rows "2a" 16L, rows "2b" 16L
          vision, depth, rows "3a" 12L, rows "3b" 12L ]

let private common = "epochs=3;batch=8;lr=1e-2;weight-decay=0.5"
let private everyMethod = Registry.names

let private trained =
    [ for e in Registry.entries do
          if Method.trains e.Method then
              e.Method.Name ]

let private written name = if List.contains name trained then $"{name}[epochs=2;batch=8;lr=1e-2]" else name

/// A stream of one of the steps alone.
let private alone index (s: Stream) = { s with Steps = [ s.Steps[index - 1] ] }

let tests =
    testList
        "Train"
        [ test "a modality outside the pair does not move, by decay neither" (fun () ->
              // polish begins every step at new heads of all modalities.
              for name in trained |> List.except [ "joint"; "individual"; "polish" ] do
                  let _, heads = run (stream ()) 0 $"{name}[{common}]"
                  identical $"{name}: vision in step 2" heads.[2].[modality vision] heads.[1].[modality vision]
                  identical $"{name}: depth before its step" heads.[1].[modality depth] heads.[2].[modality depth]
                  identical $"{name}: audio in step 3" heads.[3].[modality audio] heads.[2].[modality audio]
                  let moved = Tensors.relativeDifference heads.[2].[modality text] heads.[1].[modality text]
                  Expect.isGreaterThan moved 1e-6 $"{name}: text in step 2")

          test "individual starts again at every step" (fun () ->
              let options = $"[{common};shuffle=off]"
              let _, heads = run (stream ()) 0 ("individual" + options)

              for index in 1..3 do
                  let step = (stream ()).Steps[index - 1]
                  let _, only = run (alone index (stream ())) 0 ("vanilla" + options)

                  for m in Pair.members step.Pair do
                      identical $"step {index}, {m}" heads.[index].[m] only.[index].[m]

              identical "others are back at the start" heads.[3].[modality text] (torch.eye (d, dtype = torch.float64)))

          test "joint is one session over everything" (fun () ->
              let _, one = run (alone 1 (stream ())) 0 $"joint[{common}]"
              let _, same' = run (alone 1 (stream ())) 0 $"vanilla[{common}]"
              identical "one step: vanilla" one.[1].[modality text] same'.[1].[modality text]
              let plain = "[epochs=1;batch=all;shuffle=off;optimizer=sgd;decay=constant;lr=0.1]"
              let outcome, all = run (stream ()) 0 ("joint" + plain)
              let _, inTurn = run (stream ()) 0 ("vanilla" + plain)
              Expect.equal (List.ofSeq all.Keys) [ 3 ] "trained once"

              for m in all.[3].Keys do
                  same $"one pass of plain descent: {m}" tight all.[3].[m] inTurn.[3].[m]

              Expect.equal
                  (measurements "loss" outcome |> List.map (fun (t, _, _) -> t) |> List.distinct)
                  [ 0; 3 ]
                  "measured before and after"

              Expect.isEmpty (measurements "deviation_rel" outcome) "no earlier steps")

          test "zero-shot trains nothing" (fun () ->
              let outcome, heads = run (stream ()) 0 "zero-shot"
              Expect.isEmpty heads "no heads"
              Expect.isEmpty outcome.Losses "no losses"

              let at step =
                  outcome.Measurements |> List.filter (fun r -> r.Step = step) |> List.map (fun r -> { r with Step = 0 })

              Expect.equal (at 3) (at 0) "the same figures at both ends"
              Expect.equal (outcome.Measurements |> List.map _.Step |> List.distinct) [ 0; 3 ] "and only there")

          test "the figures are there for every step and task" (fun () ->
              let outcome, _ = run (stream ()) 0 $"dns[{common}]"

              let places metric = measurements metric outcome |> List.map (fun (t, i, _) -> t, i) |> set

              let grid =
                  set
                      [ for t in 0..3 do
                            for i in 1..3 -> t, i ]

              for metric in [ "r1"; "r5"; "r10"; "r1_ab"; "r10_ba"; "loss" ] do
                  Expect.equal (places metric) grid metric

              for metric in
                  [ "deviation_mean"
                    "deviation_rms"
                    "deviation_max"
                    "deviation_rel"
                    "deviation_test_rel"
                    "monitor_rms"
                    "monitor_rel"
                    "bound_step_rel"
                    "bound_rel" ] do
                  Expect.equal (places metric) (set [ 2, 1; 3, 1; 3, 2 ]) metric

              for metric in [ "loss_before"; "loss_after"; "seconds_train"; "bytes_state"; "bytes_monitor" ] do
                  Expect.equal (places metric) (set [ 1, 1; 2, 2; 3, 3 ]) metric

              Expect.isEmpty (measurements "acc" outcome) "no classes, no accuracy"
              Expect.equal outcome.Losses.Length 9 "a loss an epoch"
              let labelled, _ = run synthetic.Value 0 "zero-shot"

              Expect.equal
                  (measurements "acc" labelled |> List.map (fun (_, i, _) -> i) |> set)
                  (set [ 1; 2; 4 ])
                  "accuracy where b is text")

          test "the figures are those of the heads that were saved" (fun () ->
              let s = stream ()
              let outcome, heads = run s 0 $"vanilla[{common};scores=cosine;temperature=0.2]"

              let contrast =
                  { Temperature = 0.2
                    Scoring = Scoring.Cosine
                    Symmetric = false }

              for t, i, value in measurements "loss" outcome do
                  if t > 0 then
                      let step = s.Steps[i - 1]
                      let y m (x: torch.Tensor) = Heads.outputs heads.[t].[m] x

                      let expected =
                          item (Contrastive.loss contrast (y step.Pair.A step.A.Features) (y step.Pair.B step.B.Features))

                      near $"loss of {i} after {t}" tight value expected

              for t, i, value in measurements "deviation_rel" outcome do
                  let step = s.Steps[i - 1]
                  let scores h = Alignment.between step.Pair h step.A.Features step.B.Features

                  near
                      $"deviation of {i} after {t}"
                      tight
                      value
                      (Tensors.relativeDifference (scores heads.[t]) (scores heads.[i])))

          test "the figures do not depend on what is held between steps" (fun () ->
              // The last step trains on what the first did, so that they share what is held of its rows.
              let s = stream ()
              let again = { s.Steps[0] with Index = 4 }
              let s = { s with Steps = s.Steps @ [ again ] }

              for text in [ "vanilla"; "individual"; "dns"; "joint" ] do
                  let p = plan s $"{text}[{common}]"

                  let figures budget =
                      let outcome =
                          Train.runWithin { Limits.usual with Held = budget } s torch.CPU Split.Test 0 Observer.silent p
                          |> Check.get

                      outcome.Measurements |> List.filter (fun r -> not (r.Metric.StartsWith "seconds_"))

                  let held = figures (1L <<< 30)

                  for budget in [ 0L; 20_000L; 40_000L ] do
                      for r, whole in List.zip (figures budget) held do
                          Expect.equal (r.Step, r.Task, r.Metric) (whole.Step, whole.Task, whole.Metric) text
                          near $"{text}: {r.Metric} of {r.Task} after {r.Step}" 1e-9 r.Value whole.Value)

          test "training lowers the loss of its step" (fun () ->
              for text in [ "vanilla"; "dns"; "dns[place=gradient]"; "dns[place=update]"; "reference"; "dns-soft"; "dns-trust" ] do
                  let outcome, _ = run synthetic.Value 0 text
                  let value metric = measurements metric outcome |> List.map (fun (_, _, v) -> v)

                  for before, after in List.zip (value "loss_before") (value "loss_after") do
                      Expect.isLessThan after before text)

          test "what diverges is a fault that says where" (fun () ->
              for text, epoch in
                  [ "vanilla[lr=1e300;epochs=3;batch=8]", 1; "vanilla[lr=1e200;epochs=2;batch=all;optimizer=sgd;clip=off]", 2 ] do
                  let s = stream ()

                  match Train.run s torch.CPU Split.Test 5 Observer.silent (plan s text) with
                  | Error [ Fault.Diverged(label, 5, "step-1", e) ] ->
                      Expect.equal label text "label"
                      Expect.equal e epoch "epoch"
                  | other -> failtest $"{text}: {other}")

          test "the last update is looked at too" (fun () ->
              let s = stream ()

              match
                  Train.run
                      s
                      torch.CPU
                      Split.Test
                      5
                      Observer.silent
                      (plan s "vanilla[lr=1e300;epochs=1;batch=all;weight-decay=1e300]")
              with
              | Error [ Fault.Diverged(_, 5, "step-1", 1) ] -> ()
              | other -> failtest $"{other}")

          test "weights too large for their moments are a fault as well, whatever the method" (fun () ->
              for name in trained do
                  let s = stream ()

                  match Train.run s torch.CPU Split.Test 5 Observer.silent (plan s $"{name}[lr=1e200;epochs=1;batch=all]") with
                  | Error(Fault.Diverged _ :: _) -> ()
                  | other -> failtest $"{name}: {other}")

          test "no tensor is left, whatever the method" (fun () ->
              let s = stream ()

              for name in everyMethod do
                  let p = plan s (written name)

                  for budget in [ 0L; 20_000L; 1L <<< 30 ] do
                      let left =
                          leaked (fun () ->
                              Train.runWithin { Limits.usual with Held = budget } s torch.CPU Split.Test 0 Observer.silent p
                              |> Check.get
                              |> ignore)

                      Expect.equal left 0L name

              let diverging = plan s "dns[lr=1e300;epochs=3;batch=8]"
              let left = leaked (fun () -> Train.run s torch.CPU Split.Test 0 Observer.silent diverging |> ignore)
              Expect.equal left 0L "a run that diverges")

          test "no tensor is left between epochs" (fun () ->
              let s = stream ()

              for name in trained do
                  let counts = ResizeArray()

                  let tell event =
                      match event with
                      | Event.Epoch(step, _, _, _, _) ->
                          counts.Add(step.Index, DisposeScopeManager.Statistics.TensorStatistics.ThreadTotalLiveCount)
                      | Event.Solved _
                      | Event.Remark _ -> ()

                  Train.run
                      s
                      torch.CPU
                      Split.Test
                      0
                      { Observer.silent with Tell = tell }
                      (plan s $"{name}[epochs=5;batch=4;lr=1e-2]")
                  |> Check.get
                  |> ignore

                  // What the last update of a reservoir replaced waits for the next one: sometimes parts, sometimes which rows count. A tensor
                  // an update would be far more.
                  let waiting = if List.contains name [ "der"; "derpp" ] then 8L else 0L

                  for step, ofStep in Seq.groupBy fst counts do
                      let counts = ofStep |> Seq.map snd |> Seq.skip 1
                      Expect.isLessThanOrEqual (Seq.max counts - Seq.min counts) waiting $"{name}, step {step}")

          test "progress counts up to the total" (fun () ->
              let s = stream ()

              for name in [ "vanilla"; "joint"; "dns" ] do
                  let counts = ResizeArray()

                  let tell event =
                      match event with
                      | Event.Epoch(_, _, _, updates, total) -> counts.Add(updates, total)
                      | Event.Solved _
                      | Event.Remark _ -> ()

                  Train.run s torch.CPU Split.Test 0 { Observer.silent with Tell = tell } (plan s $"{name}[{common}]")
                  |> Check.get
                  |> ignore

                  Expect.isTrue (Seq.pairwise counts |> Seq.forall (fun ((a, _), (b, _)) -> a < b)) "grows"
                  let last, total = Seq.last counts
                  Expect.equal last total name
                  Expect.isGreaterThan total 0L "something to do")

          test "the stream's features are as they were" (fun () ->
              let s = stream ()
              let given = [ for bank in s.Banks.Values -> bank.Features ]

              for name in everyMethod do
                  untouched name given (fun () -> run s 0 (written name))) ]
