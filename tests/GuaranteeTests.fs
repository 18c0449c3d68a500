/// The promises of theory.md, kept or broken by whole runs on the synthetic stream, whose null spaces are exact.
module Cmcl.Tests.GuaranteeTests

open Cmcl
open Expecto
open Cmcl.Tests.Checks
open TorchSharp

/// Whole runs in float64, each once.
let private runs = System.Collections.Generic.Dictionary<string, Cmcl.Outcome * Map<int, Heads>>()

let private outcome (written: string) =
    match runs.TryGetValue written with
    | true, found -> found
    | _ ->
        let found = run synthetic.Value 0 written
        runs[written] <- found
        found

/// The relative deviation of every old step's scores at every later step.
let private deviations written = measurements "deviation_rel" (fst (outcome written))
let private largest written = deviations written |> List.map (fun (_, _, v) -> v) |> List.max

/// Stability, stated once: every old step's scores at every later step are what they were, to this relative deviation.
let private stable (bound: float) (written: string) : unit =
    let all = deviations written
    Expect.hasLength all 15 "every old step at every later step"

    for t, i, value in all do
        Expect.isTrue (value <= bound) $"{written}: step {i} after step {t} is off by {value:E2}"

let private unstable bound written =
    Expect.throwsT<AssertException> (fun () -> stable bound written) $"{written} should not be stable"

/// Second moments of all old data of a modality and of its partners' outputs under given heads, from the rows themselves.
let private moments (steps: Step list) (m: Modality) (heads: Heads) =
    let rows (bank: Bank) = bank.Features.narrow (0L, 0L, 420L)

    let sides =
        [ for s in steps do
              if s.Pair.A = m then
                  rows s.A, s.Pair.B, rows s.B
              elif s.Pair.B = m then
                  rows s.B, s.Pair.A, rows s.A ]

    let cat (parts: torch.Tensor list) = let x = torch.cat (Array.ofList parts, 0L) in x.t().mm x
    cat [ for own, _, _ in sides -> own ], cat [ for _, p, partner in sides -> partner.mm (heads.[p].t()) ]

let tests =
    testList
        "Guarantees"
        [ test "the exact variant keeps every old score to rounding" (fun () -> stable 1e-12 "dns[exact=on]")

          test "in a free basis that modalities share too" (fun () -> stable 1e-12 "dns[exact=on;free-basis=shared]")

          test "and so it does where the update is projected" (fun () -> stable 1e-12 "dns[exact=on;place=update]")

          test "on rows that were not trained on too, being of the same span" (fun () ->
              for _, _, value in measurements "deviation_test_rel" (fst (outcome "dns[exact=on]")) do
                  Expect.isLessThan value 1e-12 "test rows")

          test "in single precision to its own rounding" (fun () ->
              let p = plan synthetic.Value "dns[exact=on]"

              let single =
                  { p with
                      Settings = { p.Settings with Dtype = Dtype.Float32 } }

              runs["exact in single"] <- runPlan synthetic.Value 0 single
              stable 1e-5 "exact in single")

          test "one-sided protection keeps them as well" (fun () -> stable 1e-12 "dns[sides=input]")

          test "must fail: plain training is not stable" (fun () ->
              unstable 1e-12 "vanilla"
              Expect.isGreaterThan (largest "vanilla") 1e-2 "and by far")

          test "must fail: frames without a mask are not" (fun () -> unstable 1e-3 "eigenbasis-only")

          test "must fail: the gradient projected, then AdamW, is not" (fun () ->
              unstable 1e-12 "dns[place=gradient]"
              Expect.isGreaterThan (largest "dns[place=gradient]") 1e-3 "and by far")

          test "must fail: with one of the two sides' masks dropped it is not" (fun () ->
              let exact = plan synthetic.Value "dns[exact=on;place=update]"

              // Updates of one modality as plain training makes them, of the others projected.
              let without (dropped: Modality) (projected: Transform) (plain: Transform) : Transform =
                  { Init =
                      fun w ->
                          { TransformState.empty with
                              Parts = [ projected.Init w; plain.Init w ] }
                    Update =
                      fun state updates w ->
                          let struct (kept, first) = projected.Update state.Parts[0] updates w
                          let struct (free, second) = plain.Update state.Parts[1] updates w
                          let mixed = kept |> Map.map (fun m u -> if m = dropped then free[m] else u)
                          struct (mixed, { state with Parts = [ first; second ] }) }

              for dropped in [ vision; text ] do
                  let begin' context memory heads tasks =
                      let projected = (Method.trainer exact.Method).Begin context memory heads tasks
                      let plain = (Method.trainer Plain.vanilla).Begin context memory heads tasks

                      { projected with
                          Rule =
                              without
                                  (modality dropped)
                                  (Rule.transform projected.Start projected.Rule)
                                  (Rule.transform plain.Start plain.Rule)
                              |> Rule.Chain }

                  let broken = { exact with Method = Method.beginning begin' exact.Method }
                  runs[$"without {dropped}"] <- runPlan synthetic.Value 0 broken
                  unstable 1e-12 $"without {dropped}"
                  Expect.isGreaterThan (largest $"without {dropped}") 1e-3 "and by far")

          test "what the dual form without the exact variant leaves is of second order" (fun () ->
              let worst = largest "dns"
              Expect.isLessThan worst (0.1 * largest "dns[place=gradient]") "far below the projected gradient"
              Expect.isGreaterThan worst 1e-9 "and there, where both modalities have joint history"
              let both = deviations "dns" |> List.filter (fun (_, _, v) -> v > 1e-12) |> List.map (fun (t, i, _) -> t, i)
              // Steps 4 and 6 move both modalities of steps 1 and 5; 3 and 2 have one modality each in a later step.
              Expect.isFalse (List.contains (2, 1) both) "one modality moved in step 2: exact")

          test "stale partner outputs leak, current ones do not" (fun () ->
              let current, stale = largest "dns[place=update]", largest "dns[place=update;partner=at-learning]"
              Expect.isGreaterThan stale (2.0 * current) $"stale {stale:E2} against {current:E2}"

              let firstOrder written =
                  deviations written |> List.filter (fun (t, i, _) -> (t, i) = (3, 1)) |> List.map (fun (_, _, v) -> v)

              Expect.isLessThan (List.max (firstOrder "dns[place=update]")) 1e-12 "current: exact after one move"
              Expect.isGreaterThan (List.max (firstOrder "dns[place=update;partner=at-learning]")) 1e-6 "stale: not")

          test "trust keeps each step's first-order change of each modality within its budget" (fun () ->
              let stream = synthetic.Value

              for budget, binds in [ 0.01, true; 10.0, false ] do
                  let _, heads = outcome $"dns-trust[budget={budget}]"
                  let mutable tightest = 0.0

                  for step in List.tail stream.Steps do
                      let before, after = heads.[step.Index - 1], heads.[step.Index]
                      let old = stream.Steps |> List.take (step.Index - 1)

                      for m in Pair.members step.Pair do
                          if old |> List.exists (fun s -> List.contains m (Pair.members s.Pair)) then
                              let inputs, partners = moments old m before
                              let size (d: torch.Tensor) = sqrt (item (inputs.mm(d.t ()).mm(partners.mm d).trace()))
                              let change = size (after.[m] - before.[m]) / size before.[m]
                              tightest <- max tightest (change / budget)
                              Expect.isLessThanOrEqual change (budget * (1.0 + 1e-6)) $"step {step.Index}, {m}"

                  Expect.equal (tightest > 0.99) binds $"a budget of {budget} binds or does not")

          test "under trust a tenfold rate deviates by no more than the budgets of its steps" (fun () ->
              let budget = 0.01
              // A pair's two modalities, in at most five later steps.
              Expect.isLessThan (largest $"dns-trust[budget={budget};lr=1e-2]") (2.0 * 5.0 * budget) "with a budget"
              Expect.isGreaterThan (largest "vanilla[lr=1e-2]") 0.3 "without one")

          test "soft protection deviates less with a smaller τ" (fun () ->
              let at tau = largest $"dns-soft[tau={tau}]"
              Expect.isLessThan (at "1e-6") (0.5 * at "1e-3") "towards the mask"
              Expect.isLessThan (at "1e-3") (largest "vanilla") "and always less than nothing does")

          test "the stable method learns too" (fun () ->
              let gain written = measurements "loss_before" (fst (outcome written)) |> List.sumBy (fun (_, _, v) -> v)
              let after written = measurements "loss_after" (fst (outcome written)) |> List.sumBy (fun (_, _, v) -> v)
              let learned written = gain written - after written
              Expect.isGreaterThan (learned "dns[exact=on]") (0.3 * learned "vanilla") "at least a good part") ]
