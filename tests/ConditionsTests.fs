/// The Definition of stability and Theorems 3 and 4 as numbers.
module Cmcl.Tests.ConditionsTests

open Cmcl
open Expecto
open Cmcl.Tests.Checks
open TorchSharp

let pair = Pair.named vision text

/// Old data of a pair, planted below full rank, and its heads.
type Old =
    { Xa: torch.Tensor
      Xb: torch.Tensor
      Heads: Heads }

    member o.Wa = o.Heads[pair.A]
    member o.Wb = o.Heads[pair.B]
    member o.Ya = Heads.outputs o.Wa o.Xa
    member o.Yb = Heads.outputs o.Wb o.Xb

let old (c: Case) : Old =
    { Xa = planted c "xa" (min c.Rank (c.Da - 1L)) c.N c.Da
      Xb = planted c "xb" (min c.Rank (c.Db - 1L)) c.N c.Db
      Heads = Map [ pair.A, normal c "wa" c.D c.Da; pair.B, normal c "wb" c.D c.Db ] }

/// Changes of both heads that nothing constrains.
let free (c: Case) : torch.Tensor * torch.Tensor = normal c "free a" c.D c.Da, normal c "free b" c.D c.Db

/// Onto the span of the rows; in single precision what is rounding is cut.
let projector (x: torch.Tensor) : torch.Tensor =
    let s = Spectrum.decompose (Moment.ofRows x).Matrix

    let rank =
        if x.dtype = torch.float32 then
            Spectrum.rank (Threshold.relative 1e-10 |> Check.get) s
        else
            s.NumericalRank

    (Spectrum.projector rank s).``to`` x.dtype

/// Both projected as Theorem 4 says.
let dual (o: Old) (ga: torch.Tensor, gb: torch.Tensor) : torch.Tensor * torch.Tensor =
    Projection.localUpdate (projector o.Yb) (projector o.Xa) ga, Projection.localUpdate (projector o.Ya) (projector o.Xb) gb

let private float32 (t: torch.Tensor) = t.``to`` torch.float32

let private inSingle (o: Old) =
    { Xa = float32 o.Xa
      Xb = float32 o.Xb
      Heads = Heads.map float32 o.Heads }

/// What is checked, in double and in single precision: the old data, two changes, the tolerance.
let private bothPrecisions (c: Case) (check: Old -> torch.Tensor * torch.Tensor -> float -> unit) =
    let o, (ga, gb) = old c, free c
    check o (ga, gb) close
    check (inSingle o) (float32 ga, float32 gb) 1e-4

let private below (what: string) (tolerance: float) (value: float) =
    Expect.isTrue (value <= tolerance) $"{what}: {value:E2} is above {tolerance:E2}"

/// X Dᵀ Yᵀ, entry by entry.
let private byHand (d: torch.Tensor) (x: torch.Tensor) (y: torch.Tensor) : float[][] =
    let d, x, y = values d, values x, values y

    [| for x in x ->
           [| for y in y ->
                  Seq.sum (
                      seq {
                          for i in 0 .. y.Length - 1 do
                              for j in 0 .. x.Length - 1 -> x[j] * d[i].[j] * y[i]
                      }
                  ) |] |]

let tests =
    testList
        "Conditions"
        [ test "a condition holds to its tolerance; a NaN never does" (fun () ->
              let holds (c: Condition) = c.Holds
              Expect.isTrue (holds (Condition.atMost "n" "w" 0.1 1.0 1.1)) "at most"
              Expect.isFalse (holds (Condition.atMost "n" "w" 0.1 1.0 1.2)) "above"
              Expect.isTrue (holds (Condition.zero "n" "w" 1e-9 -1e-9)) "zero"
              Expect.isFalse (holds (Condition.zero "n" "w" 1e-9 -1e-8)) "of either sign"
              Expect.isTrue (holds (Condition.equal "n" "w" 1e-9 3.0 (3.0 - 1e-10))) "equal"
              Expect.isFalse (holds (Condition.equal "n" "w" 1e-9 3.0 2.9)) "not equal"

              for value, inside in [ 1.95, true; 2.05, true; 1.85, false; 2.15, false ] do
                  Expect.equal (holds (Condition.between "n" "w" 1.9 2.1 value)) inside $"between {value}"

              for c in
                  [ Condition.atMost "n" "w" 1.0 nan 0.0
                    Condition.atMost "n" "w" 1.0 1.0 nan
                    Condition.zero "n" "w" infinity nan
                    Condition.between "n" "w" 0.0 1.0 nan ] do
                  Expect.isFalse c.Holds "NaN")

          test "broken are those that must hold and do not" (fun () ->
              let good, bad = Condition.zero "good" "w" 0.0 0.0, Condition.zero "bad" "w" 0.0 1.0
              Expect.equal (Condition.broken [ good; bad; Condition.reported bad ]) [ bad ] "broken"
              Expect.isFalse (Condition.reported bad).Holds "reported, it still does not hold")

          property "projectors are symmetric and idempotent, wherever the spectrum is cut" (fun c ->
              let x = planted c "x" c.Rank c.N c.Da
              let s = Spectrum.decompose (Moment.ofRows x).Matrix

              for k in 0 .. int c.Da do
                  let p = Spectrum.projector k s
                  below "asymmetry" tight (Conditions.asymmetry p)
                  below "idempotence" tight (Conditions.idempotence p)
                  below "asymmetry in single" single (Conditions.asymmetry (float32 p))
                  below "idempotence in single" single (Conditions.idempotence (float32 p)))

          mustFail "any matrix is symmetric" (fun c -> below "asymmetry" 1e-3 (Conditions.asymmetry (normal c "p" c.D c.D)))

          mustFail "any symmetric matrix is idempotent" (fun c ->
              let p = normal c "p" c.D c.D
              below "idempotence" 1e-3 (Conditions.idempotence (p .+ p.t ())))

          property "stability by hand is what blocks of rows give" (fun c ->
              let o, (da, db) = old c, free c
              let after: Heads = Map [ pair.A, o.Wa .+ da; pair.B, o.Wb .+ db ]
              let scores heads = Alignment.between pair heads o.Xa o.Xb

              let d, blocks =
                  Conditions.stability (scores o.Heads) (scores after), Stability.deviation pair o.Heads after o.Xa o.Xb

              near "mean" tight d.Mean blocks.Mean
              near "max" tight d.Max blocks.Max
              near "rms" tight d.Rms blocks.Rms
              near "relative" tight d.Relative blocks.Relative
              Expect.equal (Conditions.stability (scores after) (scores after)).Max 0.0 "nothing changed")

          property "Theorem 3: a projected global update leaves old scores alone" (fun c ->
              bothPrecisions c (fun o _ tolerance ->
                  let m = (normal c "m" c.Da c.Db).``to`` o.Xa.dtype
                  below "residual" tolerance (Conditions.globalResidual (projector o.Xa) (projector o.Xb) m o.Xa o.Xb)))

          mustFail "Theorem 3 without one of the projectors" (fun c ->
              let o, m, none = old c, normal c "m" c.Da c.Db, torch.zeros (c.Db, c.Db, dtype = torch.float64)
              below "residual" 1e-3 (Conditions.globalResidual (projector o.Xa) none m o.Xa o.Xb))

          property "Theorem 4: projected local updates leave old scores alone to first order" (fun c ->
              bothPrecisions c (fun o (ga, gb) tolerance ->
                  below "a" tolerance (Conditions.localResidual (projector o.Yb) (projector o.Xa) ga o.Xa o.Yb)
                  below "b" tolerance (Conditions.localResidual (projector o.Ya) (projector o.Xb) gb o.Xb o.Ya)
                  // Relative to what was projected, which may be all that there was.
                  let da, _ = dual o (ga, gb)
                  let left = Conditions.firstOrderResidual da o.Xa o.Yb * Tensors.norm da / Tensors.norm ga
                  below "the update itself" tolerance left
                  below "its leakage" tolerance (Conditions.leakage (projector o.Yb) (projector o.Xa) da * Tensors.norm da)))

          mustFail "Theorem 4 of an update that is not projected" (fun c ->
              let o, (ga, _) = old c, free c
              below "residual" 1e-3 (Conditions.firstOrderResidual ga o.Xa o.Yb))

          mustFail "Theorem 4 with a projection on one side only" (fun c ->
              let o, (ga, _) = old c, free c
              let none = torch.zeros (c.D, c.D, dtype = torch.float64)
              below "residual" 1e-3 (Conditions.localResidual none (projector o.Xa) ga o.Xa o.Yb))

          mustFail "Theorem 4 with stale outputs, after the partner moved" (fun c ->
              let o, (ga, gb) = old c, free c
              let moved = Heads.outputs (o.Wb .+ gb) o.Xb
              below "residual" 1e-3 (Conditions.localResidual (projector o.Yb) (projector o.Xa) ga o.Xa moved))

          mustFail "the one-sided condition of a two-sided projection" (fun c ->
              let o = old c
              let da, _ = dual o (free c)
              below "residual" 1e-3 (Conditions.oneSidedResidual da o.Xa))

          property "the one-sided condition of a one-sided projection" (fun c ->
              bothPrecisions c (fun o (ga, _) tolerance ->
                  let d = Projection.localUpdate (torch.eye (c.D, dtype = ga.dtype)) (projector o.Xa) ga
                  below "residual" tolerance (Conditions.oneSidedResidual d o.Xa * Tensors.norm d / Tensors.norm ga)))

          property "the first-order change by hand, and its relative size without n × n numbers" (fun c ->
              let o, (ga, gb) = old c, free c

              for d, x, y in [ ga, o.Xa, o.Yb; gb, o.Xb, o.Ya ] do
                  let change = Conditions.firstOrder d x y
                  let expected = byHand d x y

                  for i, row in Array.indexed (values change) do
                      for j, value in Array.indexed row do
                          near $"entry {i}, {j}" close value expected[i].[j]

                  let scale = Tensors.norm x * Tensors.norm d * Tensors.norm y

                  near
                      "residual"
                      tight
                      (Conditions.firstOrderResidual d x y * scale / max 1.0 scale)
                      (Tensors.norm change / max 1.0 scale))

          property "leakage is 0 outside the span, 1 inside, between for the rest" (fun c ->
              let o, (ga, gb) = old c, free c
              let p, q = projector o.Yb, projector o.Xa
              let inside = p.mm(ga).mm q
              let leakage = Conditions.leakage p q ga
              Expect.isTrue (leakage >= 0.0 && leakage <= 1.0 + tight) $"{leakage}"
              near "Pythagoras" close (leakage * leakage) ((Tensors.norm inside / Tensors.norm ga) ** 2.0)

              if Tensors.norm inside > 1e-3 then
                  near "inside" close (Conditions.leakage p q inside) 1.0

              let da, db = dual o (ga, gb)
              below "outside" close (Conditions.leakage p q da * Tensors.norm da)
              below "of the other head" close (Conditions.leakage (projector o.Ya) (projector o.Xb) db * Tensors.norm db))

          property "the first-order change without the rows is the measured one" (fun c ->
              let o, (ga, gb) = old c, free c

              for d, x, y in [ ga, o.Xa, o.Yb; gb, o.Xb, o.Ya ] do
                  let frame = Frame.ofMoments false (Moment.ofRows x) (Moment.ofRows y)
                  let squared = Conditions.firstOrderSquared frame.Inputs frame.Partners c.N (Frame.enter frame d)
                  let measured = Tensors.norm (Conditions.firstOrder d x y) ** 2.0
                  let scale = (Tensors.norm x * Tensors.norm d * Tensors.norm y) ** 2.0
                  vanishes "difference" close (abs (squared - measured)) scale)

          property "over several old pairs it is at least what each of them changes" (fun c ->
              let o, (d, _) = old c, free c
              let x, y = planted c "other x" c.Rank (c.N + 3L) c.Da, planted c "other y" c.Rank (c.N + 3L) c.D
              let merged first second = Moment.merge (Moment.ofRows first) (Moment.ofRows second)
              let inputs, partners = merged o.Xa x, merged o.Yb y
              let frame = Frame.ofMoments false inputs partners
              let bound = Conditions.firstOrderSquared frame.Inputs frame.Partners inputs.Count (Frame.enter frame d)
              let change x y = Tensors.norm (Conditions.firstOrder d x y) ** 2.0
              let sum = change o.Xa o.Yb + change x y
              Expect.isTrue (sum <= bound * (1.0 + close) + close) $"{sum} above {bound}")

          property "a larger threshold never protects more, a larger rank never less" (fun c ->
              let s = Spectrum.decompose (Moment.ofRows (planted c "x" c.Rank c.N c.Da)).Matrix
              let one, two = fraction c "one", fraction c "two"
              let low, high = min one two, max one two
              let projectorAt threshold = Spectrum.projector (Spectrum.rank threshold s) s

              let pairs =
                  [ for rule in [ Threshold.relative; Threshold.trace; Threshold.energy ] do
                        rule low, rule high
                    Threshold.absolute (low * s.Total), Threshold.absolute (high * s.Total)
                    Threshold.rank (int (10.0 * high)), Threshold.rank (int (10.0 * low)) ]

              for more, less in pairs do
                  let more, less = Check.get more, Check.get less
                  Expect.isLessThanOrEqual (Spectrum.rank less s) (Spectrum.rank more s) $"{Threshold.show less}"
                  let large, small = projectorAt more, projectorAt less
                  same "one span in the other" tight (large.mm small) small)

          test "nothing to compare is no change; nothing to be relative to is 0" (fun () ->
              let zeros (rows: int64) (columns: int64) = torch.zeros (rows, columns, dtype = torch.float64)
              let eye = torch.eye (3L, dtype = torch.float64)
              let d = Conditions.stability (zeros 0L 0L) (zeros 0L 0L)
              Expect.equal d { Mean = 0.0; Max = 0.0; Rms = 0.0; Relative = 0.0 } "stability"

              for x in [ zeros 0L 3L; zeros 4L 3L ] do
                  Expect.equal (Conditions.globalResidual eye eye eye x x) 0.0 "global"
                  Expect.equal (Conditions.firstOrderResidual eye x x) 0.0 "first order"
                  Expect.equal (Conditions.firstOrderResidual (zeros 3L 3L) eye eye) 0.0 "no change"
                  Expect.equal (Conditions.localResidual eye eye eye x x) 0.0 "local"
                  Expect.equal (Conditions.oneSidedResidual eye x) 0.0 "one-sided"
                  Expect.sequenceEqual (Conditions.firstOrder eye x x).shape [ x.shape[0]; x.shape[0] ] "shape"

              Expect.equal (Conditions.asymmetry (zeros 3L 3L)) 0.0 "asymmetry"
              Expect.equal (Conditions.idempotence (zeros 3L 3L)) 0.0 "idempotence"
              Expect.equal (Conditions.leakage eye eye (zeros 3L 3L)) 0.0 "leakage"
              let none = Spectrum.empty torch.CPU 3L
              Expect.equal (Conditions.firstOrderSquared none none 5L eye) 0.0 "squared")

          test "a bias is a column of the change" (fun () ->
              let x, y = Heads.withBias (Tensors.ofRows [ [ 2.0 ]; [ 3.0 ] ]), Tensors.ofRows [ [ 1.0 ]; [ 10.0 ] ]
              let d = Tensors.ofRows [ [ 1.0; 0.5 ] ]
              same "first order" tight (Conditions.firstOrder d x y) (Tensors.ofRows [ [ 2.5; 25.0 ]; [ 3.5; 35.0 ] ])
              near "one-sided" tight (Conditions.oneSidedResidual d x) (sqrt (18.5 / 15.0 / 1.25)))

          test "what is not finite does not hold" (fun () ->
              let bad, eye = Tensors.ofRows [ [ nan; 0.0 ]; [ 0.0; 1.0 ] ], torch.eye (2L, dtype = torch.float64)

              for value in
                  [ Conditions.asymmetry bad
                    Conditions.idempotence bad
                    Conditions.globalResidual eye eye eye bad eye
                    Conditions.firstOrderResidual bad eye eye
                    Conditions.localResidual eye eye eye eye bad
                    Conditions.oneSidedResidual eye bad
                    Conditions.leakage eye eye bad
                    (Conditions.stability eye bad).Relative ] do
                  Expect.isFalse (Condition.zero "n" "w" 1.0 value).Holds $"{value}")

          test "sizes that do not fit are a fault" (fun () ->
              let m (rows: int64) (columns: int64) = torch.ones (rows, columns, dtype = torch.float64)

              for call in
                  [ fun () -> Conditions.asymmetry (m 2L 3L)
                    fun () -> Conditions.idempotence (m 2L 3L)
                    fun () -> (Conditions.stability (m 2L 2L) (m 2L 3L)).Max
                    fun () -> Conditions.globalResidual (m 2L 2L) (m 2L 2L) (m 3L 2L) (m 5L 3L) (m 5L 2L)
                    fun () -> Conditions.firstOrderResidual (m 2L 3L) (m 5L 4L) (m 5L 2L)
                    fun () -> Conditions.oneSidedResidual (m 2L 3L) (m 5L 4L)
                    fun () -> Conditions.leakage (m 2L 2L) (m 2L 2L) (m 2L 3L)
                    fun () ->
                        let flat = Spectrum.flat torch.CPU 2L
                        Conditions.firstOrderSquared flat flat 1L (m 2L 3L) ] do
                  match faultOf call with
                  | Fault.Shape _ -> ()
                  | other -> failtest other.Message)

          property "leaves its inputs as they are, and nothing behind" (fun c ->
              let o, (ga, _) = old c, free c
              let pa, pyb, pb, yb = projector o.Xa, projector o.Yb, projector o.Xb, o.Yb
              let m, scores = normal c "m" c.Da c.Db, Alignment.between pair o.Heads o.Xa o.Xb
              let frame = Frame.ofMoments false (Moment.ofRows o.Xa) (Moment.ofRows yb)
              let given = [ o.Xa; o.Xb; ga; pa; pb; pyb; yb; m; scores; frame.Inputs.Vectors; frame.Partners.Vectors ]

              untouched "Conditions" given (fun () ->
                  Conditions.firstOrder ga o.Xa yb |> ignore

                  let left =
                      leaked (fun () ->
                          Conditions.asymmetry pa |> ignore
                          Conditions.idempotence pa |> ignore
                          Conditions.stability scores scores |> ignore
                          Conditions.globalResidual pa pb m o.Xa o.Xb |> ignore
                          Conditions.firstOrderResidual ga o.Xa yb |> ignore
                          Conditions.localResidual pyb pa ga o.Xa yb |> ignore
                          Conditions.oneSidedResidual ga o.Xa |> ignore
                          Conditions.leakage pyb pa ga |> ignore
                          Conditions.firstOrderSquared frame.Inputs frame.Partners c.N ga |> ignore
                          (Conditions.firstOrder ga o.Xa yb).Dispose())

                  Expect.equal left 0L "left behind")) ]
