module Cmcl.Tests.ProjectionTests

open Cmcl
open Expecto
open Cmcl.Tests.Checks
open TorchSharp

/// Old data of a pair, planted below full rank, and its heads.
type private Old =
    { Xa: torch.Tensor
      Xb: torch.Tensor
      Wa: torch.Tensor
      Wb: torch.Tensor }

    member o.Ya = Heads.outputs o.Wa o.Xa
    member o.Yb = Heads.outputs o.Wb o.Xb

let private old (c: Case) : Old =
    { Xa = planted c "xa" (min c.Rank (c.Da - 1L)) c.N c.Da
      Xb = planted c "xb" (min c.Rank (c.Db - 1L)) c.N c.Db
      Wa = normal c "wa" c.D c.Da
      Wb = normal c "wb" c.D c.Db }

let private span (x: torch.Tensor) =
    let s = Spectrum.decompose (Moment.ofRows x).Matrix
    Spectrum.leading s.NumericalRank s

let private projector (x: torch.Tensor) = let u = span x in u.mm (u.t ())

/// The size of the terms that should cancel.
let private scale (o: Old) (g: torch.Tensor) = 1.0 + Tensors.norm o.Xa * Tensors.norm g * (Tensors.norm o.Yb + Tensors.norm o.Xb)

/// Old scores' first-order change under changes of both weights.
let private firstOrder (o: Old) (da: torch.Tensor) (db: torch.Tensor) =
    o.Xa.mm(da.t ()).mm(o.Yb.t ()) .+ o.Ya.mm(db).mm(o.Xb.t ())

let private dual (o: Old) (ga: torch.Tensor) (gb: torch.Tensor) =
    Projection.localUpdate (projector o.Yb) (projector o.Xa) ga, Projection.localUpdate (projector o.Ya) (projector o.Xb) gb

let tests =
    testList
        "Projection"
        [ property "Theorem 3: a projected global update leaves old scores alone" (fun c ->
              let o, m = old c, normal c "m" c.Da c.Db
              let m' = Projection.globalUpdate (projector o.Xa) (projector o.Xb) m
              vanishes "X_a M X_bᵀ" close (Tensors.norm (o.Xa.mm(m').mm(o.Xb.t ()))) (scale o m))

          property "Theorem 4: projected local updates leave old scores alone to first order" (fun c ->
              let o, ga, gb = old c, normal c "ga" c.D c.Da, normal c "gb" c.D c.Db
              let da, db = dual o ga gb
              vanishes "first order" close (Tensors.norm (firstOrder o da db)) (scale o ga + scale o gb))

          mustFail "without the projection they change" (fun c ->
              let o, ga, gb = old c, normal c "ga" c.D c.Da, normal c "gb" c.D c.Db
              vanishes "first order" close (Tensors.norm (firstOrder o ga gb)) (scale o ga + scale o gb))

          mustFail "with one of the two sides projected they change" (fun c ->
              let o, ga, gb = old c, normal c "ga" c.D c.Da, normal c "gb" c.D c.Db
              let da, _ = dual o ga gb
              vanishes "first order" close (Tensors.norm (firstOrder o da gb)) (scale o ga + scale o gb))

          property "Theorem 5: what is left of the change is of second order, exactly" (fun c ->
              let o, ga, gb = old c, normal c "ga" c.D c.Da, normal c "gb" c.D c.Db
              let da, db = dual o ga gb
              let pair = Pair.named vision text
              let scores wa wb = Alignment.between pair (Map [ pair.A, wa; pair.B, wb ]) o.Xa o.Xb
              let change = scores (o.Wa .+ da) (o.Wb .+ db) - scores o.Wa o.Wb
              let left, right = o.Xa.mm (da.t ()), db.mm (o.Xb.t ())
              vanishes "the rest" close (Tensors.norm (change - left.mm right)) (scale o ga * scale o gb)
              Expect.isTrue (Tensors.norm change <= Tensors.norm left * Tensors.norm right + 1e-8) "the bound")

          property "Theorem 6: an orthogonal projection, idempotent" (fun c ->
              let o, g = old c, normal c "g" c.D c.Da
              let p, q = projector o.Yb, projector o.Xa
              let d = Projection.localUpdate p q g
              let square t = let n = Tensors.norm t in n * n
              near "⟨G, Δ⟩ = ‖Δ‖²" close (item ((g * d).sum())) (square d)
              near "‖Δ‖² = ‖G‖² − ‖P̃GP‖²" close (square d) (square g - square (p.mm(g).mm q))
              same "idempotent" close (Projection.localUpdate p q d) d)

          property "Theorem 6: the loss falls along the projected gradient as it says" (fun c ->
              let o = old c
              let xa, xb = normal c "new xa" c.N c.Da, normal c "new xb" c.N c.Db

              let contrast =
                  { Contrastive.paper with
                      Temperature = 2.0 + 30.0 * fraction c "temperature" }

              let loss wa wb = item (Contrastive.loss contrast (Heads.outputs wa xa) (Heads.outputs wb xb))
              let g = Contrastive.gradients contrast (Heads.outputs o.Wa xa) (Heads.outputs o.Wb xb)
              let ga, gb = Contrastive.weightGradient g.A xa, Contrastive.weightGradient g.B xb
              let da, db = dual o ga gb
              let eta = 1e-6

              let change =
                  (loss (o.Wa - da * number eta) (o.Wb - db * number eta)
                   - loss (o.Wa .+ da * number eta) (o.Wb .+ db * number eta))
                  / (2.0 * eta)

              near "−(‖Δ_a‖² + ‖Δ_b‖²)" 1e-6 change (-(Tensors.norm da ** 2.0) - Tensors.norm db ** 2.0))

          property "bases of the spans do what the projectors do" (fun c ->
              let o, g = old c, normal c "g" c.D c.Da

              same
                  "localUpdateFrom"
                  close
                  (Projection.localUpdateFrom (span o.Yb) (span o.Xa) g)
                  (Projection.localUpdate (projector o.Yb) (projector o.Xa) g))

          property "the low-rank form does what the full one does" (fun c ->
              let o, x, g = old c, normal c "x" 5L c.Da, normal c "g" 5L c.D
              let full = Projection.localUpdate (projector o.Yb) (projector o.Xa) (g.t().mm x)
              same "lowRank" close (Projection.lowRank (span o.Yb) g x (x.mm (projector o.Xa))) full)

          property "no history constrains nothing, a full one leaves nothing" (fun c ->
              let g = normal c "g" c.D c.Da
              let none, eye = torch.zeros (c.D, 0L, dtype = torch.float64), torch.eye (c.Da, dtype = torch.float64)
              same "free" 0.0 (Projection.localUpdateFrom none eye g) g
              let all = Projection.localUpdate (torch.eye (c.D, dtype = torch.float64)) eye g
              Expect.equal (Tensors.norm all) 0.0 "nothing left")

          property "leaves its inputs as they are" (fun c ->
              let o, g = old c, normal c "g" c.D c.Da
              let p, q, v, u = projector o.Yb, projector o.Xa, span o.Yb, span o.Xa
              let rows, back = normal c "rows" 4L c.D, normal c "inputs" 4L c.Da

              untouched "Projection" [ g; p; q; v; u; rows; back ] (fun () ->
                  Projection.globalUpdate p p (normal c "m" c.D c.D) |> ignore
                  Projection.localUpdate p q g |> ignore
                  Projection.localUpdateFrom v u g |> ignore
                  Projection.lowRank v rows back back)) ]
