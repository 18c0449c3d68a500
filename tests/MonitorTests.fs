module Cmcl.Tests.MonitorTests

open Cmcl
open Expecto
open Cmcl.Tests.Checks
open TorchSharp

/// A run with its monitor's measurements.
let private watched (n: int64) (written: string) =
    let read = ResizeArray()

    let observer = { Observer.silent with Begin = Monitor.every n read.Add }

    let plan = plan synthetic.Value written
    let outcome = Train.run synthetic.Value torch.CPU Split.Test 0 observer plan |> Check.get
    List.ofSeq read, outcome

let tests =
    testList
        "Monitor"
        [ test "reads every old step every n updates, and its last is what is measured after the step" (fun () ->
              // 420 rows in batches of 64 make 7 updates an epoch.
              for written in [ "vanilla"; "dns"; "dns-trust[total-budget=0.05]" ] do
                  let read, outcome = watched 7L $"{written.TrimEnd ']'}{(if written.Contains '[' then ';' else '[')}epochs=2]"

                  Expect.equal
                      [ for r in read do
                            if r.Step = 3 then
                                r.Update, r.Task ]
                      [ 7L, 1; 7L, 2; 14L, 1; 14L, 2 ]
                      "step 3"

                  for t, i, measured in measurements "deviation_rel" outcome do
                      let last = read |> List.find (fun r -> r.Step = t && r.Task = i && r.Update = 14L)
                      near $"{written}, step {i} after step {t}" 1e-10 last.Drift.Relative measured)

          test "watching changes nothing and leaves nothing" (fun () ->
              let figures (outcome: Cmcl.Outcome) =
                  outcome.Measurements |> List.filter (fun r -> not (r.Metric.StartsWith "seconds_"))

              let _, outcome = watched 3L "dns[epochs=1]"
              let alone, _ = run synthetic.Value 0 "dns[epochs=1]"
              Expect.equal (figures outcome) (figures alone) "the same run"

              let left n = leaked (fun () -> watched n "dns[epochs=1]" |> ignore)
              Expect.equal (left 1L) (left 1000L) "as many tensors as without a reading")

          test "an update tells its rate and its weights" (fun () ->
              let seen = ResizeArray()

              let observer =
                  { Observer.silent with
                      Begin =
                          fun scene ->
                              Some(fun u ->
                                  let change = Tensors.norm (u.After[scene.Step.Pair.A] - u.Before[scene.Step.Pair.A])
                                  let gradient = Tensors.norm u.Pass.Value.Gradients[scene.Step.Pair.A]
                                  seen.Add(scene.Step.Index, u.Count, u.Rate, change / gradient)) }

              let plan = plan synthetic.Value "vanilla[optimizer=sgd;clip=off;weight-decay=0;epochs=1;lr=0.1]"
              Train.run synthetic.Value torch.CPU Split.Test 0 observer plan |> Check.get |> ignore
              Expect.hasLength seen 42 "seven updates in six steps"

              for _, count, rate, ratio in seen do
                  near "linear" close rate (0.1 * (1.0 - float (count - 1L) / 7.0))
                  near "the step is the rate times the gradient" close ratio rate) ]
