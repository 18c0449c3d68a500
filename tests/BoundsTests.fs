/// Theorem 5 and truncation: what is left of old scores' change, and bounds that are never below it.
module Cmcl.Tests.BoundsTests

open Cmcl
open Expecto
open Cmcl.Tests.Checks
open Cmcl.Tests.ConditionsTests
open TorchSharp

/// A property of a thousand cases.
let private always name (body: Case -> unit) =
    testPropertyWithConfig { config with maxTest = 1000 } name (fun (case: Case) ->
        use scope = torch.NewDisposeScope()
        body case)

let private moved (o: Old) (da: torch.Tensor, db: torch.Tensor) : Heads = Map [ pair.A, o.Wa .+ da; pair.B, o.Wb .+ db ]

/// What rounding is relative to, where scores are made of heads and rows.
let private scale (o: Old) (da: torch.Tensor) (db: torch.Tensor) =
    let size w d = Tensors.norm w + Tensors.norm d
    Tensors.norm o.Xa * size o.Wa da * size o.Wb db * Tensors.norm o.Xb

let private atMost (what: string) (rounding: float) (bound: float) (truth: float) =
    Expect.isTrue (truth <= bound * (1.0 + tight) + rounding) $"{what}: {truth:R} is above {bound:R}"

let private below (what: string) (tolerance: float) (value: float) =
    Expect.isTrue (value <= tolerance) $"{what}: {value:E2} is above {tolerance:E2}"

/// Rows whose energies fall off, of full rank, so that every cut leaves something out.
let private decaying (c: Case) (purpose: string) (columns: int64) =
    let rate = 0.05 + 0.9 * fraction c (purpose + " decay")
    let energies = torch.tensor [| for i in 0 .. int columns - 1 -> rate ** float i |]
    (normal c purpose c.N columns * energies).mm(normal c (purpose + " basis") columns columns)

/// A cut anywhere from nothing to everything.
let private cut (c: Case) (purpose: string) (x: torch.Tensor) =
    let s = Spectrum.decompose (Moment.ofRows x).Matrix
    let k = int (fraction c (purpose + " cut") * float (s.NumericalRank + 1))
    struct (k, s, Spectrum.projector k s)

/// Old rows, outputs and a change in the constraint set of cut projectors P̃, P.
let private cutCase (c: Case) =
    let x, y = decaying c "x" c.Da, decaying c "y" c.D
    let struct (_, _, input), struct (_, _, partner) = cut c "input" x, cut c "partner" y
    struct (x, y, input, partner, Projection.localUpdate partner input (normal c "d" c.D c.Da))

/// A whole run of a method on the synthetic stream in float64: for every step and every older one the pair, the heads before
/// and after it, and the older one's training rows.
let private steps (written: string) =
    let _, heads = run synthetic.Value 0 written

    [ for step in List.tail synthetic.Value.Steps do
          for earlier in synthetic.Value.Steps |> List.take (step.Index - 1) do
              let struct (xa, xb) = Stream.features Dtype.Float64 torch.CPU Split.Train earlier
              (step.Index, earlier.Index), earlier.Pair, heads[step.Index - 1], heads[step.Index], xa, xb ]

let tests =
    testList
        "Bounds"
        [ property "the expansion is algebra: true of any change" (fun c ->
              let o, d = old c, free c
              let rest = Bounds.expansionResidual pair o.Heads (moved o d) o.Xa o.Xb
              let size = Tensors.norm (Alignment.between pair o.Heads o.Xa o.Xb)
              vanishes "rest" tight (if size = 0.0 then rest else rest * size) (scale o (fst d) (snd d)))

          property "Theorem 5: in the constraint sets the change is of second order alone" (fun c ->
              let o = old c
              let da, db = dual o (free c)
              let after = moved o (da, db)
              let rest = Bounds.identityResidual pair o.Heads after o.Xa o.Xb
              let size = Tensors.norm (Alignment.between pair o.Heads o.Xa o.Xb)
              vanishes "rest" close (if size = 0.0 then rest else rest * size) (scale o da db)

              let change, second = Bounds.change pair o.Heads after o.Xa o.Xb, Bounds.secondOrder o.Xa da db o.Xb
              vanishes "change − second order" close (Tensors.norm (change - second)) (scale o da db)
              let scores heads = Alignment.between pair heads o.Xa o.Xb
              same "change" tight change (scores after - scores o.Heads))

          mustFail "Theorem 5's identity of a change that nothing constrains" (fun c ->
              let o = old c
              below "rest" 1e-3 (Bounds.identityResidual pair o.Heads (moved o (free c)) o.Xa o.Xb))

          mustFail "Theorem 5's identity with one of the two changes constrained" (fun c ->
              let o = old c
              let (da, _), (_, gb) = dual o (free c), free c
              below "rest" 1e-3 (Bounds.identityResidual pair o.Heads (moved o (da, gb)) o.Xa o.Xb))

          test "Theorem 5 over whole steps of AdamW in the eigenbasis" (fun () ->
              let mutable both = []

              for steps, pair, before, after, xa, xb in steps "dns" do
                  below $"{steps}" close (Bounds.identityResidual pair before after xa xb)
                  below $"{steps}: algebra" close (Bounds.expansionResidual pair before after xa xb)
                  let difference m = after[m] - before[m]
                  let da, db = difference pair.A, difference pair.B
                  let change = Tensors.norm (Bounds.change pair before after xa xb)
                  let old = Tensors.norm (Alignment.between pair before xa xb)
                  atMost $"{steps}" (tight * old) (Bounds.wholeStep xa da db xb) change
                  below $"{steps}: first order, a" close (Conditions.firstOrderResidual da xa (Heads.outputs before[pair.B] xb))
                  below $"{steps}: first order, b" close (Conditions.firstOrderResidual db xb (Heads.outputs before[pair.A] xa))

                  if change > 1e-9 * old then
                      both <- steps :: both

              // Steps 4 and 6 come back to the pairs of steps 1 and 5.
              Expect.containsAll both [ 4, 1; 6, 5 ] "something is left, and it is of second order")

          test "must fail: Theorem 5 over steps whose gradient was projected, then given to AdamW" (fun () ->
              let worst =
                  steps "dns[place=gradient]"
                  |> List.map (fun (_, pair, before, after, xa, xb) -> Bounds.identityResidual pair before after xa xb)
                  |> List.max

              Expect.isGreaterThan worst 1e-3 "by far")

          always "Theorem 5: the bound of a whole step is never below the truth" (fun c ->
              let o = old c
              let da, db = dual o (free c)
              let truth = Tensors.norm (Bounds.change pair o.Heads (moved o (da, db)) o.Xa o.Xb)
              atMost "whole step" (close * scale o da db) (Bounds.wholeStep o.Xa da db o.Xb) truth
              atMost "second order" 0.0 (Bounds.wholeStep o.Xa da db o.Xb) (Tensors.norm (Bounds.secondOrder o.Xa da db o.Xb)))

          always "Theorem 5: nor is that of a gradient step" (fun c ->
              let o = old c
              let xa, xb = normal c "new xa" c.N c.Da, normal c "new xb" c.N c.Db

              let contrast =
                  { Contrastive.paper with
                      Temperature = 1.0 + 30.0 * fraction c "temperature" }

              let g = Contrastive.gradients contrast (Heads.outputs o.Wa xa) (Heads.outputs o.Wb xb)
              let deltaA, deltaB = dual o (Contrastive.weightGradient g.A xa, Contrastive.weightGradient g.B xb)
              let eta = 10.0 ** (-3.0 + 4.0 * fraction c "rate")
              let da, db = deltaA * number -eta, deltaB * number -eta
              let truth = Tensors.norm (Bounds.change pair o.Heads (moved o (da, db)) o.Xa o.Xb)
              let bound = Bounds.gradientStep eta o.Xa deltaA deltaB o.Xb
              atMost "gradient step" (close * scale o da db) bound truth
              near "as of a whole step" tight bound (Bounds.wholeStep o.Xa da db o.Xb))

          always "truncation: the bound of what a cut spectrum leaks is never below the truth" (fun c ->
              let struct (x, y, input, partner, d) = cutCase c
              let bound = Bounds.truncation partner input d x y
              let rounding = tight * Tensors.norm x * Tensors.norm (normal c "d" c.D c.Da) * Tensors.norm y
              atMost "truncation" rounding bound (Tensors.norm (Conditions.firstOrder d x y))
              // As theory.md states it, coarser.
              let rest (rows: torch.Tensor) (p: torch.Tensor) = Tensors.norm (rows - rows.mm p)
              let coarse = (rest x input * Tensors.norm y + Tensors.norm x * rest y partner) * Tensors.norm d
              atMost "the coarse bound" rounding coarse bound)

          mustFail "truncation's bound of a change outside the constraint set" (fun c ->
              let struct (x, y, input, partner, _) = cutCase c
              let d = normal c "d" c.D c.Da
              atMost "truncation" close (Bounds.truncation partner input d x y) (Tensors.norm (Conditions.firstOrder d x y)))

          property "where nothing is cut nothing leaks" (fun c ->
              let o = old c
              let da, _ = dual o (free c)
              let scale = Tensors.norm o.Xa * (1.0 + Tensors.norm da) * Tensors.norm o.Yb
              // The projectors leave out what is zero to rounding of energies, a square root larger as a size.
              vanishes "truncation" 1e-6 (Bounds.truncation (projector o.Yb) (projector o.Xa) da o.Xa o.Yb) scale)

          test "truncation by hand: no projector leaves one Frobenius and two spectral norms" (fun () ->
              let none, eye = torch.zeros (2L, 2L, dtype = torch.float64), torch.eye (2L, dtype = torch.float64)
              let d = Tensors.ofRows [ [ 3.0; 0.0 ]; [ 0.0; 4.0 ] ]
              near "the change's Frobenius norm" tight (Bounds.truncation none none d eye eye) 5.0
              near "the rows' Frobenius norm" tight (Bounds.truncation none none eye eye d) 5.0)

          property "discarded energy is the tail of the spectrum" (fun c ->
              let x = decaying c "x" c.Da
              let struct (k, s, p) = cut c "input" x
              near "share" close (Bounds.discarded p x) (Array.sum s.Values[k..] / s.Total)
              near "everything" tight (Bounds.discarded (p * number 0.0) x) 1.0)

          property "single precision and double may be mixed" (fun c ->
              let struct (x, y, input, partner, d) = cutCase c
              let single' (t: torch.Tensor) = t.``to`` torch.float32
              let mixed = Bounds.truncation partner (single' input) (single' d) x (single' y)
              let scale = Tensors.norm x * Tensors.norm d * Tensors.norm y
              vanishes "truncation" 1e-4 (abs (mixed - Bounds.truncation partner input d x y)) scale
              let o = old c
              let rest = Bounds.expansionResidual pair (Heads.map single' o.Heads) (moved o (free c)) o.Xa o.Xb
              Expect.isTrue (rest < 1e-3) "the difference of heads too")

          test "no rows, or scores that were all zero" (fun () ->
              let zeros (rows: int64) (columns: int64) = torch.zeros (rows, columns, dtype = torch.float64)
              let eye = torch.eye (3L, dtype = torch.float64)
              let before: Heads = Map [ pair.A, zeros 3L 3L; pair.B, zeros 3L 3L ]
              let after: Heads = Map [ pair.A, eye; pair.B, eye ]

              for x in [ zeros 0L 3L; zeros 4L 3L ] do
                  Expect.equal (Bounds.identityResidual pair before after x x) 0.0 "identity"
                  Expect.equal (Bounds.expansionResidual pair before after x x) 0.0 "expansion"
                  Expect.equal (Bounds.wholeStep x eye eye x) 0.0 "whole step"
                  Expect.equal (Bounds.truncation eye eye eye x x) 0.0 "truncation"
                  Expect.equal (Bounds.discarded eye x) 0.0 "discarded"

              near "plain norm" tight (Bounds.identityResidual pair before (Map [ pair.A, eye; pair.B, eye ]) eye eye) 0.0
              let half: Heads = Map [ pair.A, eye; pair.B, zeros 3L 3L ]
              let other: Heads = Map [ pair.A, eye; pair.B, eye ]
              near "first order from zero scores" tight (Bounds.identityResidual pair half other eye eye) (sqrt 3.0))

          test "what is not finite gives no bound" (fun () ->
              let bad, eye = Tensors.ofRows [ [ nan; 0.0 ]; [ 0.0; 1.0 ] ], torch.eye (2L, dtype = torch.float64)
              let heads: Heads = Map [ pair.A, bad; pair.B, eye ]

              for value in
                  [ Bounds.truncation eye eye bad eye eye
                    Bounds.wholeStep bad eye eye eye
                    Bounds.discarded eye bad
                    Bounds.identityResidual pair heads heads eye eye ] do
                  Expect.isTrue (System.Double.IsNaN value) $"{value}")

          property "leaves its inputs as they are, and nothing behind" (fun c ->
              let o, (da, db) = old c, free c
              let after = moved o (da, db)
              let struct (x, y, input, partner, d) = cutCase c
              let given = [ o.Xa; o.Xb; da; db; x; y; input; partner; d ] @ Heads.tensors o.Heads @ Heads.tensors after

              untouched "Bounds" given (fun () ->
                  let left =
                      leaked (fun () ->
                          Bounds.identityResidual pair o.Heads after o.Xa o.Xb |> ignore
                          Bounds.expansionResidual pair o.Heads after o.Xa o.Xb |> ignore
                          Bounds.gradientStep 0.1 o.Xa da db o.Xb |> ignore
                          Bounds.truncation partner input d x y |> ignore
                          Bounds.discarded input x |> ignore
                          (Bounds.secondOrder o.Xa da db o.Xb).Dispose()
                          (Bounds.change pair o.Heads after o.Xa o.Xb).Dispose())

                  Expect.equal left 0L "left behind")) ]
