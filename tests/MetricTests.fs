module Cmcl.Tests.MetricTests

open System
open Expecto
open Cmcl
open Cmcl.Tests.ResultsTests

/// Rows of a rate from a matrix, row 0 before training.
let rowsOf (rate: string) (values: float list list) : Row list =
    [ for step, own in List.indexed values do
          for task, value in List.indexed own -> row "m" 0 (string step) (string (task + 1)) rate value ]

/// Worked by hand: column j is learned by step j.
let private example = [ [ 0.10; 0.20; 0.30 ]; [ 0.50; 0.25; 0.20 ]; [ 0.60; 0.70; 0.40 ]; [ 0.40; 0.60; 0.90 ] ]

/// By the prefix before the rate's name.
let private byHand =
    [ "", 1.90 / 3.0
      "learned_", 2.10 / 3.0
      "bwt_", -0.10
      "bwt_all_", -0.20 / 3.0
      "forgetting_", 0.15
      "forgetting_clipped_", 0.15
      "fwt_", 0.075
      "zero_shot_shift_", 1.30 / 3.0
      "step_average_", (0.50 + 0.65 + 1.90 / 3.0) / 3.0 ]

let private rates = [ "acc"; "r1"; "r5"; "r10"; "map" ]

let private value (name: string) (rows: Row list) : float option = (Metric.find name |> Check.get).Of rows

let private close (actual: float option) (expected: float) name =
    match actual with
    | Some x -> Expect.isLessThan (abs (x - expected)) 1e-12 $"{name}: {x} for {expected}"
    | None -> failtest $"{name} does not exist"

let private random (steps: int) (seed: int) : float list list =
    let draw = Random seed
    [ for _ in 0..steps -> [ for _ in 1..steps -> draw.NextDouble() ] ]

let private costs =
    [ for step, seconds in [ "1", [ 1.0; 2.0; 3.0 ]; "2", [ 0.5; 4.0; 0.25 ] ] do
          for name, x in List.zip [ "seconds_prepare"; "seconds_train"; "seconds_finish" ] seconds -> row "m" 0 step step name x ]

let tests =
    testList
        "Metric"
        [ testCase "every name once, and each is found" (fun () ->
              let names = Metric.all |> List.map _.Name
              Expect.equal (List.distinct names) names "names"
              Expect.equal (names |> List.map (Metric.find >> Check.get >> _.Name)) names "found"
              Expect.equal (Metric.all |> List.map _.Title |> List.distinct |> List.length) names.Length "titles")

          testCase "a name that is none is answered with the one that was meant" (fun () ->
              match Metric.find "bwt_r11" with
              | Error [ Fault.Unknown("metric", "bwt_r11", _) as fault ] ->
                  Expect.stringContains fault.Message "did you mean 'bwt_r1" "message"
              | other -> failtest $"{other}")

          testCase "the description has every name and convention" (fun () ->
              let text = Metric.describe ()

              for m in Metric.all do
                  Expect.stringContains text m.Name m.Name

              for line in text.Split '\n' do
                  Expect.isLessThanOrEqual line.Length 100 line)

          testList
              "a 3 × 3 matrix by hand"
              [ for rate in rates do
                    for prefix, expected in byHand ->
                        testCase (prefix + rate) (fun () -> close (value (prefix + rate) (rowsOf rate example)) expected "value") ]

          testCase "forgetting and its clipped form part where the last step improved on all before" (fun () ->
              let rows = rowsOf "r10" [ [ 0.0; 0.0 ]; [ 0.5; 0.1 ]; [ 0.7; 0.9 ] ]
              close (value "forgetting_r10" rows) -0.2 "forgetting"
              close (value "forgetting_clipped_r10" rows) 0.0 "clipped"
              close (value "bwt_r10" rows) 0.2 "bwt")

          testCase "final = learned + bwt over all columns" (fun () ->
              for seed in 0..20 do
                  let rows = rowsOf "acc" (random (1 + seed % 6) seed)
                  let part name = (value name rows).Value
                  close (Some(part "learned_acc" + part "bwt_all_acc")) (part "acc") $"seed {seed}")

          testCase "a constant on a column moves final, learned and the step average only" (fun () ->
              for seed in 0..10 do
                  let matrix = random 4 seed
                  let shifted = matrix |> List.map (List.mapi (fun j x -> if j = 1 then x + 0.4 else x))

                  for prefix, _ in byHand do
                      let before, after = value (prefix + "r5") (rowsOf "r5" matrix), value (prefix + "r5") (rowsOf "r5" shifted)

                      match prefix with
                      | ""
                      | "learned_" -> close after (before.Value + 0.1) prefix
                      | "step_average_" -> Expect.isGreaterThan after.Value before.Value prefix
                      | _ -> close after before.Value prefix)

          testCase "the order of rows says nothing" (fun () ->
              let rows = rowsOf "r10" (random 5 3) @ costs
              let shuffled = rows |> List.sortBy (fun r -> r.Value)

              for m in Metric.all do
                  match m.Of rows, m.Of shuffled with
                  | Some a, b -> close b a m.Name
                  | None, b -> Expect.isNone b m.Name)

          testCase "other rates and aggregates do not count" (fun () ->
              let rows = rowsOf "r10" example
              let more = rows @ rowsOf "acc" (random 3 0) @ Results.aggregates rows

              for prefix, _ in byHand do
                  close (value (prefix + "r10") more) (value (prefix + "r10") rows).Value prefix)

          testCase "a hole hides what needs it" (fun () ->
              let holed = rowsOf "r10" example |> List.filter (fun r -> not (r.When = When.After(1, 1)))

              for prefix in [ "learned_"; "bwt_"; "forgetting_"; "step_average_" ] do
                  Expect.isNone (value (prefix + "r10") holed) prefix

              close (value "r10" holed) (1.90 / 3.0) "final")

          testCase "time is the sum of its three parts over steps" (fun () ->
              close (value "seconds" costs) 10.75 "seconds"
              Expect.isNone (value "seconds" (rowsOf "r10" example)) "no training")

          testCase "state is the largest" (fun () ->
              let rows = [ for step, x in [ "1", 10.0; "2", 30.0; "3", 20.0 ] -> row "m" 0 step step "bytes_state" x ]
              close (value "bytes_state" rows) 30.0 "bytes")

          testCase "replayed is a sum, zero for who trains without" (fun () ->
              let replayed = [ for step, x in [ "1", 0.0; "2", 64.0; "3", 128.0 ] -> row "m" 0 step step "replayed" x ]
              close (value "replayed" replayed) 192.0 "sum"
              close (value "replayed" costs) 0.0 "trained"
              Expect.isNone (value "replayed" (rowsOf "r10" example)) "not trained")

          testCase "penalties are means where told" (fun () ->
              let rows = [ for step, x in [ "2", 0.2; "3", 0.4 ] -> row "m" 0 step step "penalty_share" x ]
              close (value "penalty_share" rows) 0.3 "mean"
              Expect.isNone (value "violated" rows) "not told")

          testCase "the gap is of the step's own pair" (fun () ->
              let rows = [ for step, x in [ "1", 2.0; "2", 3.0 ] -> row "m" 0 step step "loss_after" x ]
              close (value "gap" (row "m" 0 "2" "1" "loss_after" 99.0 :: rows)) 2.5 "mean")

          testCase "what is not finite does not exist" (fun () ->
              Expect.isNone (value "gap" [ row "m" 0 "1" "1" "loss_after" nan ]) "gap"
              Expect.isNone (value "r10" [ row "m" 0 "1" "1" "r10" infinity ]) "r10")

          testCase "results.csv has the figures of the registry" (fun () ->
              let rows = twoSteps "dns" 0
              let finals = Results.aggregates rows
              Expect.equal (finals |> List.map _.Metric) [ "r10"; "bwt_r10"; "deviation_rel"; "learned_r10" ] "names"

              for final in finals do
                  Expect.equal (value final.Metric rows) (Some final.Value) final.Metric)

          testCase "as readers see it" (fun () ->
              let shown name x = Metric.shown (Metric.find name |> Check.get) x

              Expect.equal
                  [ shown "r10" 0.40891
                    shown "bwt_r10" -0.01074
                    shown "deviation_rel" 0.1825
                    shown "deviation_rel" 1.25e-7
                    shown "seconds" 12.34
                    shown "bytes_state" 6.29e6
                    shown "bytes_state" 12.0
                    shown "replayed" 1920.0 ]
                  [ "40.89"; "−1.07"; "0.183"; "1.3e−7"; "12.3"; "6.3 MB"; "12 B"; "1920" ]
                  "texts") ]
