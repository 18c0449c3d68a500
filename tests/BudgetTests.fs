module Cmcl.Tests.BudgetTests

open Cmcl
open Expecto
open Cmcl.Tests.Checks
open TorchSharp

/// The largest of a metric over every old step at every later step.
let private largest metric outcome = measurements metric outcome |> List.map (fun (_, _, v) -> v) |> List.max

let private oldStep (c: Case) (learned: Heads) = OldStep.ofRows 1 pair learned (normal c "xa" c.N c.Da) (normal c "xb" c.N c.Db)

let tests =
    testList
        "Budget"
        [ property "what is left of the total is spread over the steps that remain" (fun c ->
              let learned, now = heads c "learned", heads c "now"
              let old = oldStep c learned
              let spent = (OldStep.drift now old).Relative
              let total = spent + 0.6
              let allowed steps = Budget.allowances total steps now [ old ] |> List.map snd |> List.exactlyOne
              near "never more than what is left" close (allowed 1) 0.6
              Expect.isLessThanOrEqual (spent + allowed 2) (total * (1.0 + 1e-12)) "whatever the directions"

              // Where the drift so far is small enough for the limit above not to count.
              if spent < 2.0 then
                  near "ten steps at right angles use it up" close (spent * spent + 10.0 * allowed 10 ** 2.0) (total * total)

              Expect.equal (Budget.allowances (0.5 * spent) 3 now [ old ] |> List.map snd) [ 0.0 ] "spent: nothing is left")

          property "two moving heads share an allowance, and the least of a head's old steps counts" (fun c ->
              let learned = heads c "learned"
              let old = oldStep c learned
              let allowances = [ old, 0.2; old, 0.3 ]
              let v, t = modality vision, modality text
              Expect.equal (Budget.epsilon [ v; t ] allowances v) (Some 0.1) "both move"
              Expect.equal (Budget.epsilon [ v; modality audio ] allowances v) (Some 0.2) "one moves"
              Expect.equal (Budget.epsilon [ v; t ] allowances (modality audio)) None "no old step")

          property "the share of a change is the largest that is allowed" (fun c ->
              let certificate =
                  { FirstA = fraction c "a"
                    FirstB = fraction c "b"
                    Second = fraction c "second" * float (c.Rank % 2L)
                    Beyond = 0.1 * fraction c "beyond" }

              let allowed = 2.5 * fraction c "allowed"
              let theta = Budget.share allowed certificate
              let used = theta * (certificate.First + certificate.Beyond) + theta * theta * certificate.Second

              if certificate.Bound <= allowed then
                  Expect.equal theta 1.0 "all of it"
              else
                  near "exhausted" close used allowed

              Expect.equal (Budget.share 0.0 { certificate with FirstA = 1.0 }) 0.0 "nothing is allowed"

              let second = { FirstA = 0.0; FirstB = 0.0; Second = 1.0; Beyond = 0.0 }

              Expect.equal (Budget.share 0.0 second) 0.0 "nor of second order")

          test "no old step ever moves by more than the total, whatever the rate, the epochs and the optimizer" (fun () ->
              for total in [ 1e-9; 0.02; 0.1 ] do
                  for options in [ ""; ";lr=1e-2"; ";lr=1e-2;epochs=2;optimizer=sgd;clip=off"; ";sides=input;lr=1e-2" ] do
                      let p = plan synthetic.Value $"dns-trust[total-budget={total}{options}]"

                      for dtype in [ Dtype.Float64; Dtype.Float32 ] do
                          let p = { p with Settings = { p.Settings with Dtype = dtype } }

                          let outcome, _ = runPlan synthetic.Value 0 p
                          let rounding = 10.0 * Tolerance.epsilon dtype

                          Expect.isLessThanOrEqual (largest "deviation_rel" outcome) (total + rounding) $"{p.Label} {dtype}"

                          // A bound also has what the kept rows may miss.
                          Expect.isLessThanOrEqual
                              (largest "bound_rel" outcome)
                              (total + max rounding 1e-12)
                              $"{p.Label} {dtype}: bound")

          test "the total is made use of, and the steps learn" (fun () ->
              let outcome, _ = run synthetic.Value 0 "dns-trust[total-budget=0.1;lr=1e-2]"
              Expect.isGreaterThan (largest "bound_rel" outcome) 0.05 "half of it at least"
              let sum metric = measurements metric outcome |> List.sumBy (fun (_, _, v) -> v)
              Expect.isLessThan (sum "loss_after") (sum "loss_before" - 1.0) "the steps learn")

          test "must not: a budget for each step alone does not keep a total" (fun () ->
              let outcome, _ = run synthetic.Value 0 "dns-trust[budget=0.1;lr=1e-2]"
              Expect.isGreaterThan (largest "deviation_rel" outcome) 0.1 "over the same number") ]
