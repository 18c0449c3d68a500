module Cmcl.Tests.OldStepTests

open Cmcl
open Expecto
open Cmcl.Tests.Checks
open Cmcl.Tests.SketchTests
open TorchSharp

/// Two sets of heads and a step's rows of any rank, with what is kept of the step.
let private kept (c: Case) =
    let xa, xb = planted c "xa" c.Rank c.N c.Da, planted c "xb" c.Rank c.N c.Db
    let learned = heads c "learned"
    learned, xa, xb, OldStep.ofRows 1 pair learned xa xb

let tests =
    testList
        "OldStep"
        [ property "the rows that are kept have the moment of those that are gone" (fun c ->
              let x = planted c "x" c.Rank c.N c.Da
              let m = Moment.ofRows x
              let rows = Spectrum.rows c.N (Spectrum.decompose m.Matrix)
              Expect.equal rows.shape[0] (min (min c.Rank c.N) c.Da) "as many as the rank"
              same "moment" close (rows.t().mm rows) (x.t().mm x))

          property "the drift is the measured deviation, in float64" (fun c ->
              let learned, xa, xb, old = kept c
              let now = heads c "now"
              let free, measured = OldStep.drift now old, Stability.deviation pair learned now xa xb
              near "relative" 1e-8 free.Relative measured.Relative
              near "rms" 1e-8 free.Rms measured.Rms
              let change = Alignment.between pair now xa xb - Alignment.between pair learned xa xb
              near "norm" 1e-8 free.Frobenius (Tensors.norm change)
              near "trace" 1e-8 (free.Frobenius ** 2.0) (item ((change.mm (change.t ())).trace())))

          property "and in float32, biases included" (fun c ->
              let single (h: Heads) : Heads = Heads.map (fun w -> w.``to`` torch.float32) h
              let rows purpose columns = (normal c purpose c.N columns).``to`` torch.float32
              let xa, xb = Heads.withBias (rows "xa" c.Da), rows "xb" c.Db

              let biased purpose : Heads =
                  single (Map [ pair.A, normal c (purpose + " a") c.D (c.Da + 1L); pair.B, normal c (purpose + " b") c.D c.Db ])

              let learned, now = biased "learned", biased "now"
              let free = OldStep.drift now (OldStep.ofRows 1 pair learned xa xb)
              near "relative" 1e-3 free.Relative (Stability.deviation pair learned now xa xb).Relative)

          property "none without a change" (fun c ->
              let learned, _, _, old = kept c
              Expect.equal (OldStep.drift learned old).Frobenius 0.0 "drift"
              Expect.equal (OldStep.certificate learned learned old).Bound 0.0 "certificate")

          property "what crosses a change: drift before, drift after, certificate" (fun c ->
              let _, xa, xb, old = kept c
              let before, after = heads c "before", heads c "after"
              let struct (earlier, now, certificate) = OldStep.across before after old
              near "before" close earlier.Relative (OldStep.drift before old).Relative
              near "after" close now.Relative (OldStep.drift after old).Relative

              let part wa wb = Tensors.norm (Alignment.between pair (Map [ pair.A, wa; pair.B, wb ]) xa xb)

              let da, db = after.[pair.A] - before.[pair.A], after.[pair.B] - before.[pair.B]
              near "a" close certificate.FirstA (part da before[pair.B])
              near "b" close certificate.FirstB (part before[pair.A] db)
              near "second" close certificate.Second (part da db))

          property "following changes one after the other is standing under the last of them" (fun c ->
              let learned, xa, xb, _ = kept c
              let first = OldStep.atEnd 1 pair c.N learned (Sketch.ofRows xa) (Sketch.ofRows xb)
              Expect.equal first.Drift.Frobenius (OldStep.under learned first.Old).Drift.Frobenius "no drift at the end"

              let step (standing: OldStepState, before: Heads) (i, moving) =
                  let after = before |> Map.map (fun m w -> if List.contains m moving then (heads c $"change {i}").[m] else w)
                  let changes = OldStep.changes before after
                  Expect.equal (List.ofSeq changes.Keys) moving "what moved"
                  let old = standing.Old
                  let da, db = OldStep.shift changes pair.A old.A, OldStep.shift changes pair.B old.B
                  let struct (now, certificate) = OldStep.follow da db standing
                  let struct (earlier, drift, across) = OldStep.across before after old
                  near "before" close standing.Drift.Relative earlier.Relative
                  near "after" close now.Drift.Relative drift.Relative
                  near "norm" close now.Drift.Frobenius (OldStep.drift after old).Frobenius
                  Expect.equal (OldStep.certificate before after old) across "the certificate alone"
                  near "beyond" (1e-10 * max 1.0 across.Bound) certificate.Beyond across.Beyond
                  near "first order of a" close certificate.FirstA across.FirstA
                  near "first order of b" close certificate.FirstB across.FirstB
                  near "second order" close certificate.Second across.Second

                  if moving.Length < 2 then
                      Expect.equal certificate.Second 0.0 "no second order of one head"

                  now, after

              [ 1, [ pair.A ]; 2, []; 3, [ pair.B ]; 4, [ pair.B; pair.A ]; 5, [ pair.A ] ]
              |> List.fold step (first, learned)
              |> ignore)

          testPropertyWithConfig { config with maxTest = 1000 } "the certificate is never below the truth" (fun (c: Case) ->
              use scope = torch.NewDisposeScope()
              let _, xa, xb, old = kept c
              let before = heads c "before"
              let size = 10.0 ** (8.0 * fraction c "size" - 6.0)
              let after = before |> Map.map (fun m w -> w .+ normal c $"change {m}" w.shape[0] w.shape[1] * number size)
              let truth = Stability.deviation pair before after xa xb
              let bound = (OldStep.certificate before after old).Bound
              let measured = truth.Rms * float c.N
              Expect.isLessThanOrEqual measured (bound * (1.0 + 1e-9) + 1e-9) "bound")

          property "nor for features of low rank, where only what is beyond the rank moves scores" (fun c ->
              let n, d = 14L, 9L
              let before = Map [ pair.A, normal c "wa" d d; pair.B, normal c "wb" d d ]
              let sides = List.zip (awkward c n d) (awkward { c with Seed = c.Seed + 1 } n d)

              for (kind, xa), (_, xb) in sides do
                  /// A change that spares what the rows reach most.
                  let sparing m (x: torch.Tensor) =
                      let struct (_, vectors) = torch.linalg.eigh (x.t().mm x)
                      let free = vectors.narrow (1L, 0L, 7L)
                      (normal c $"change {m}" d 7L).mm(free.t ())

                  let after = Map [ pair.A, before[pair.A] .+ sparing "a" xa; pair.B, before[pair.B] .+ sparing "b" xb ]
                  let truth = Tensors.norm (Bounds.change pair before after xa xb)
                  let da, db = after[pair.A] - before[pair.A], after[pair.B] - before[pair.B]
                  let part wa wb = Tensors.norm (Alignment.between pair (Map [ pair.A, wa; pair.B, wb ]) xa xb)
                  let parts = part da before[pair.B] + part before[pair.A] db + part da db

                  for how, sketch in [ "rows", Sketch.ofRows; "moment", Moment.ofRows >> Sketch.ofMoment ] do
                      let old = (OldStep.atEnd 1 pair n before (sketch xa) (sketch xb)).Old
                      let certificate = OldStep.certificate before after old
                      let rounding = [ before; after ] |> List.sumBy (fun h -> OldStep.arithmetic h old * max old.Size 1e-300)
                      Expect.isLessThanOrEqual truth (certificate.Bound + rounding) $"{kind}, by {how}"

                      if how = "rows" then
                          // The parts may cancel in the truth, so that is no measure of it.
                          let sum = parts * (1.0 + 1e-9) + 1e-9 * Tensors.norm xa * Tensors.norm xb
                          Expect.isLessThanOrEqual certificate.Bound sum $"{kind}: tight")

          mustFail "the certificate of a moment's rows without what is beyond them" (fun c ->
              let x = planted c "low" 1L 14L 9L .+ normal c "tiny" 14L 9L * number 1e-10
              let before = Map [ pair.A, normal c "wa" 9L 9L; pair.B, normal c "wb" 9L 9L ]
              let struct (_, vectors) = torch.linalg.eigh (x.t().mm x)
              let after = Map.add pair.A (before[pair.A] .+ (normal c "d" 9L 1L).mm(vectors.narrow(1L, 0L, 1L).t())) before
              let sketch = Sketch.ofMoment (Moment.ofRows x)
              let old = (OldStep.atEnd 1 pair 14L before sketch sketch).Old
              let certificate = OldStep.certificate before after old
              let truth = Tensors.norm (Bounds.change pair before after x x)

              Expect.isLessThanOrEqual
                  truth
                  (certificate.Bound - certificate.Beyond + OldStep.arithmetic after old * old.Size)
                  "bound")

          property "must not: one part left out is no bound" (fun c ->
              // With one head moving, the truth is that head's part: without it nothing is left.
              let before = heads c "before"
              let _, xa, xb, _ = kept c
              let after = Map.add pair.A (heads c "after").[pair.A] before
              let old = OldStep.ofRows 1 pair before xa xb
              let certificate = OldStep.certificate before after old
              near "one head: bound and truth" 1e-8 certificate.Bound (OldStep.drift after old).Frobenius

              if c.Rank > 0L then
                  Expect.isGreaterThan (OldStep.drift after old).Frobenius (certificate.FirstB + certificate.Second) "broken")

          test "whole runs: the monitor is the measured figure and no bound is broken" (fun () ->
              let sizes written dtype =
                  let p = plan synthetic.Value written
                  let outcome, _ = runPlan synthetic.Value 0 { p with Settings = { p.Settings with Dtype = dtype } }
                  fun metric -> measurements metric outcome

              for written in [ "vanilla"; "dns"; "dns[exact=on]"; "reference"; "individual" ] do
                  for dtype, tolerance in [ Dtype.Float64, 1e-8; Dtype.Float32, 1e-3 ] do
                      let figures = sizes written dtype
                      let truth = figures "deviation_rel"
                      Expect.hasLength truth 15 "every old step at every later step"

                      for (t, i, v), (_, _, free), (_, _, bound) in List.zip3 truth (figures "monitor_rel") (figures "bound_rel") do
                          near $"{written} {dtype}, step {i} after {t}" tolerance free v
                          Expect.isLessThanOrEqual v bound $"{written} {dtype}, step {i} after {t}: bound")

          test "what is kept are two times rank × d numbers and rank × rank, a step" (fun () ->
              let outcome, _ = run synthetic.Value 0 "vanilla[epochs=1]"
              let bytes = 8.0 * (2.0 * 20.0 * 64.0 + 20.0 * 20.0)

              for t, _, kept in measurements "bytes_monitor" outcome do
                  Expect.equal kept (float t * bytes) $"after step {t}")

          property "leaves its inputs as they are, and frees the rest" (fun c ->
              let learned, xa, xb, old = kept c
              let now = heads c "now"
              let given = xa :: xb :: OldStep.tensors old @ Heads.tensors learned @ Heads.tensors now

              untouched "OldStep" given (fun () ->
                  OldStep.drift now old |> ignore
                  OldStep.certificate learned now old |> ignore
                  OldStep.across learned now old |> ignore)

              Expect.equal (leaked (fun () -> OldStep.across learned now old |> ignore)) 0L "leaked"
              Expect.equal (leaked (fun () -> OldStep.certificate learned now old |> ignore)) 0L "leaked"
              let changes = OldStep.changes learned now
              let da, db = OldStep.shift changes pair.A old.A, OldStep.shift changes pair.B old.B
              let standing = OldStep.under learned old

              untouched "OldStep.follow" (given @ OldStep.held standing @ [ for s in Option.toList da -> s.Rows ]) (fun () ->
                  Expect.equal (leaked (fun () -> OldStep.follow da db standing |> ignore)) 3L "the next standing"
                  Expect.equal (leaked (fun () -> OldStep.follow None None standing |> ignore)) 0L "the same")

              Expect.equal (leaked (fun () -> OldStep.ofRows 1 pair learned xa xb |> ignore)) 3L "what is kept") ]
