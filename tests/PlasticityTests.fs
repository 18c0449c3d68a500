/// Theorem 6: a projected step still descends.
module Cmcl.Tests.PlasticityTests

open Cmcl
open Expecto
open Cmcl.Tests.Checks
open Cmcl.Tests.ConditionsTests
open TorchSharp

/// InfoNCE on new rows, its gradients at the old heads and what old data leaves of them.
type private Problem =
    { Old: Old
      Loss: Heads -> float
      Gradients: Heads
      Deltas: Heads }

let private problem (c: Case) : Problem =
    let o = old c
    let xa, xb = normal c "new xa" c.N c.Da, normal c "new xb" c.N c.Db
    let outputs (heads: Heads) = Heads.outputs heads[pair.A] xa, Heads.outputs heads[pair.B] xb

    let contrast =
        { Contrastive.paper with
            Temperature = 2.0 + 30.0 * fraction c "temperature"
            Symmetric = fraction c "symmetric" < 0.5 }

    let g = outputs o.Heads ||> Contrastive.gradients contrast
    let ga, gb = Contrastive.weightGradient g.A xa, Contrastive.weightGradient g.B xb
    let da, db = dual o (ga, gb)

    { Old = o
      Loss = fun heads -> item (outputs heads ||> Contrastive.loss contrast)
      Gradients = Map [ pair.A, ga; pair.B, gb ]
      Deltas = Map [ pair.A, da; pair.B, db ] }

/// Problems that are the same every time: how fast a remainder falls says something only where its second order is not
/// zero by accident.
let private problems (count: int) =
    [ for seed in 1..count ->
          let roll purpose low high =
              low
              + int64 (fraction { Seed = seed; N = 0L; D = 0L; Da = 0L; Db = 0L; Rank = 0L } purpose * float (high - low + 1L))

          problem
              { Seed = seed
                N = roll "n" 3L 14L
                D = roll "d" 3L 9L
                Da = roll "da" 3L 9L
                Db = roll "db" 3L 9L
                Rank = roll "rank" 0L 4L } ]

let private slopeOf (p: Problem) (gradients: Heads) =
    Plasticity.overRates p.Loss gradients p.Deltas (Plasticity.rates p.Old.Heads p.Deltas) p.Old.Heads
    |> List.map (fun d -> d.Rate, d.Remainder)
    |> Plasticity.slope

let tests =
    testList
        "Plasticity"
        [ property "Theorem 6: ⟨G, Δ⟩ = ‖Δ‖² = ‖G‖² − ‖P̃GP‖², not below 0" (fun c ->
              let p = problem c
              let o = p.Old
              let square t = Tensors.norm t ** 2.0
              let inside (partner: torch.Tensor) (g: torch.Tensor) (input: torch.Tensor) = square (partner.mm(g).mm input)
              let ga, gb = p.Gradients[pair.A], p.Gradients[pair.B]

              let kept = inside (projector o.Yb) ga (projector o.Xa) + inside (projector o.Ya) gb (projector o.Xb)

              let scale = square ga + square gb
              let product, size = Plasticity.inner p.Gradients p.Deltas, Plasticity.squared p.Deltas
              vanishes "⟨G, Δ⟩ − ‖Δ‖²" close (abs (product - size)) scale
              vanishes "‖Δ‖² − (‖G‖² − ‖P̃GP‖²)" close (abs (size - (scale - kept))) scale
              Expect.isTrue (size >= 0.0 && product >= -close * scale) "not below 0")

          property "inner and squared by hand; a modality that is missing is zero" (fun c ->
              let a, b, d = normal c "a" c.D c.Da, normal c "b" c.D c.Db, normal c "d" c.D c.Da
              let flat t = values t |> Array.concat
              let dot x y = Array.map2 (*) (flat x) (flat y) |> Array.sum
              near "inner" tight (Plasticity.inner (Map [ pair.A, a; pair.B, b ]) (Map [ pair.A, d ])) (dot a d)
              near "the other way" tight (Plasticity.inner (Map [ pair.A, d ]) (Map [ pair.A, a; pair.B, b ])) (dot a d)
              near "squared" tight (Plasticity.squared (Map [ pair.A, a; pair.B, b ])) (dot a a + dot b b)
              Expect.equal (Plasticity.squared Map.empty) 0.0 "nothing")

          property "a descent is what it says" (fun c ->
              let p = problem c
              let eta = 10.0 ** (-3.0 + 3.0 * fraction c "rate")
              let d = Plasticity.descent p.Loss p.Gradients p.Deltas eta p.Old.Heads
              let stepped = p.Old.Heads |> Map.map (fun m w -> w - p.Deltas[m] * number eta)
              let before = p.Loss p.Old.Heads
              near "change" tight d.Change (p.Loss stepped - before)
              near "first order" tight d.FirstOrder (-eta * Plasticity.inner p.Gradients p.Deltas)
              near "remainder" tight d.Remainder (d.Change - d.FirstOrder)
              near "per rate" tight (d.RemainderPerRate * eta) d.Remainder
              // The paper's formula, from what a run knows afterwards.
              let changes = p.Deltas |> Map.map (fun _ delta -> delta * number -eta)
              let seen = Plasticity.observed eta before (p.Loss stepped) p.Gradients changes
              near "observed" tight seen.Remainder d.Remainder

              near
                  "as the paper plots it"
                  close
                  (seen.RemainderPerRate * eta)
                  (p.Loss stepped - before + eta * Plasticity.inner p.Gradients p.Deltas))

          test "the remainder is of second order" (fun () ->
              for p in problems 200 do
                  if Plasticity.squared p.Deltas > 1e-20 then
                      let slope = slopeOf p p.Gradients
                      Expect.isTrue (abs (slope - 2.0) <= 0.1) $"slope {slope}")

          test "must fail: with a wrong gradient it is not" (fun () ->
              for p in problems 20 do
                  if Plasticity.squared p.Deltas > 1e-6 then
                      let wrong = p.Gradients |> Heads.map (fun g -> g * number 1.1)
                      Expect.isTrue (abs (slopeOf p wrong - 2.0) > 0.5) "slope")

          property "it descends exactly where the criterion says, at any rate" (fun c ->
              let p = problem c

              for exponent in -6 .. 4 do
                  let d = Plasticity.descent p.Loss p.Gradients p.Deltas (10.0 ** float exponent) p.Old.Heads
                  let left, right = Plasticity.criterion p.Deltas d
                  Expect.equal (Plasticity.descends p.Deltas d) (left < right) "as its sides say"
                  // Nearer than this to standing still, rounding decides.
                  if abs d.Change > 1e-12 * (1.0 + abs d.FirstOrder) then
                      Expect.equal (Plasticity.descends p.Deltas d) (d.Change < 0.0) $"η = 1e{exponent}")

          test "a small rate always descends, a huge one somewhere does not" (fun () ->
              let at eta =
                  [ for p in problems 50 do
                        if Plasticity.squared p.Deltas > 1e-6 then
                            Plasticity.descends p.Deltas (Plasticity.descent p.Loss p.Gradients p.Deltas eta p.Old.Heads) ]

              Expect.isFalse (List.contains false (at 1e-4)) "small"
              Expect.isTrue (List.contains false (at 1e4)) "huge")

          test "the slope of powers; too few points have none" (fun () ->
              for power in [ 1.0; 2.0; 3.5 ] do
                  near "power" tight (Plasticity.slope [ for x in [ 1e-4; 1e-3; 1e-1 ] -> x, -3.0 * x ** power ]) power

              near "zeros are left out" tight (Plasticity.slope [ 1e-3, 1e-6; 1e-2, 0.0; 1e-1, 1e-2 ]) 2.0

              for points in [ []; [ 0.1, 0.2 ]; [ 0.1, 0.2; 0.2, 0.0 ]; [ 0.1, 0.2; 0.2, nan ] ] do
                  Expect.isTrue (System.Double.IsNaN(Plasticity.slope points)) "none")

          property "rates are relative to the weights and grow; nothing to move by needs no ratio" (fun c ->
              let p = problem c
              let rates = Plasticity.rates p.Old.Heads p.Deltas
              Expect.isTrue (rates |> List.forall (fun r -> r > 0.0 && System.Double.IsFinite r)) "positive"
              Expect.equal rates (List.sort rates) "growing"

              if Plasticity.squared p.Deltas > 0.0 then
                  let moved = List.last rates * sqrt (Plasticity.squared p.Deltas)
                  near "largest" close moved (1e-3 * sqrt (Plasticity.squared p.Old.Heads))

              let none = Heads.map torch.zeros_like p.Deltas
              Expect.equal (Plasticity.rates p.Old.Heads none) (Plasticity.rates Map.empty Map.empty) "no change")

          property "heads in single precision are widened before the loss sees them" (fun c ->
              let p = problem c
              let single' = Heads.map (fun (w: torch.Tensor) -> w.``to`` torch.float32)
              let d = Plasticity.descent p.Loss (single' p.Gradients) (single' p.Deltas) 1e-3 (single' p.Old.Heads)
              let exact = Plasticity.descent p.Loss p.Gradients p.Deltas 1e-3 p.Old.Heads
              near "first order" single d.FirstOrder exact.FirstOrder
              near "change" single d.Change exact.Change)

          property "leaves its inputs as they are, and nothing behind" (fun c ->
              let p = problem c
              let given = List.collect Heads.tensors [ p.Old.Heads; p.Gradients; p.Deltas ]

              untouched "Plasticity" given (fun () ->
                  let left =
                      leaked (fun () ->
                          let loss heads =
                              use scope = torch.NewDisposeScope()
                              p.Loss heads

                          let rates = Plasticity.rates p.Old.Heads p.Deltas
                          let descents = Plasticity.overRates loss p.Gradients p.Deltas rates p.Old.Heads
                          Plasticity.descent loss p.Gradients p.Deltas 0.1 p.Old.Heads |> ignore
                          Plasticity.observed 0.1 1.0 0.5 p.Gradients p.Deltas |> ignore
                          Plasticity.descends p.Deltas descents.Head |> ignore)

                  Expect.equal left 0L "left behind")) ]
