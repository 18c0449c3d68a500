module Cmcl.Tests.DeterminismTests

open Cmcl
open Expecto
open Cmcl.Tests.Checks
open TorchSharp

let private written (m: Method) = if Method.trains m then $"{m.Name}[epochs=1]" else m.Name

/// All that does not depend on the clock.
let private figures (outcome: Cmcl.Outcome) =
    outcome.Measurements |> List.filter (fun r -> not (r.Metric.StartsWith "seconds_")), outcome.Losses

let private small =
    lazy
        ({ synthetic.Value with
            Steps = synthetic.Value.Steps |> List.take 3 })

let tests =
    testList
        "Determinism"
        [ test "the same seed gives the same figures and the same bits, another seed others" (fun () ->
              for method in Registry.entries |> List.map _.Method do
                  for dtype in [ Dtype.Float64; Dtype.Float32 ] do
                      let p = plan small.Value (written method)
                      let p = { p with Settings = { p.Settings with Dtype = dtype } }
                      let first, heads = runPlan small.Value 1 p
                      let again, heads' = runPlan small.Value 1 p
                      Expect.equal (figures again) (figures first) $"{method.Name}: figures"

                      for KeyValue(step, h) in heads do
                          for m in h.Keys do
                              Expect.equal h.[m].dtype dtype.Torch $"{method.Name}: type"
                              identical $"{method.Name}: {m} after step {step}" heads'.[step].[m] h.[m]

                      if Method.trains method && dtype = Dtype.Float64 then
                          let other, _ = runPlan small.Value 2 p
                          Expect.notEqual (figures other) (figures first) $"{method.Name}: another seed")

          test "without shuffling nothing is drawn" (fun () ->
              let p = plan small.Value "vanilla[epochs=1;shuffle=off]"
              Expect.equal (runPlan small.Value 1 p |> fst |> figures) (runPlan small.Value 2 p |> fst |> figures) "seeds")

          test "seeds are split by purpose, and numbers come from the seed alone" (fun () ->
              let seed = Seed.ofInt 3
              let values = [ for purpose in [ "a"; "b"; "ab" ] -> (Seed.split purpose seed).Value ]
              Expect.equal (List.distinct values) values "purposes"
              Expect.notEqual (seed |> Seed.split "a" |> Seed.split "b").Value (seed |> Seed.split "ab").Value "nesting"
              Expect.notEqual (Seed.split "a" (Seed.ofInt 4)).Value values[0] "seeds"
              torch.random.manual_seed 1L |> ignore
              let first = Seed.normal [ 5L ] seed
              torch.random.manual_seed 2L |> ignore
              identical "not from the global generator" (Seed.normal [ 5L ] seed) first
              Expect.equal ((Seed.permutation 50L seed).data<int64>().ToArray() |> Array.sort) [| 0L .. 49L |] "a permutation")

          test "methods at one seed see the same rows in the same order" (fun () ->
              let first text = (runPlan small.Value 1 (plan small.Value text) |> fst).Losses |> List.head
              let _, _, vanilla = first "vanilla"
              let _, _, dns = first "dns"
              near "first epoch, free for both" tight dns vanilla) ]
