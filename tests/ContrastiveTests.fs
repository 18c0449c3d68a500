module Cmcl.Tests.ContrastiveTests

open System
open Cmcl
open Expecto
open Cmcl.Tests.Checks
open TorchSharp

/// A random InfoNCE: τ from 0.05 to 5, one-way or symmetric, raw or cosine.
let private contrast (c: Case) : Contrast =
    { Temperature = 0.05 * 100.0 ** fraction c "temperature"
      Scoring = if fraction c "scoring" < 0.5 then Scoring.Raw else Scoring.Cosine
      Symmetric = fraction c "symmetric" < 0.5 }

/// −log softmax of the match, row by row, in plain numbers.
let private scalarLoss (contrast: Contrast) (a: float[][]) (b: float[][]) : float =
    let dot = Array.fold2 (fun sum x y -> sum + x * y) 0.0

    let unit (row: float[]) =
        match contrast.Scoring with
        | Scoring.Raw -> row
        | Scoring.Cosine -> let length = sqrt (dot row row) in row |> Array.map (fun x -> x / length)

    let oneWay (queries: float[][]) (keys: float[][]) =
        Array.average
            [| for i in 0 .. queries.Length - 1 ->
                   let s = keys |> Array.map (fun key -> dot (unit queries[i]) (unit key) / contrast.Temperature)
                   let top = Array.max s
                   log (s |> Array.sumBy (fun x -> exp (x - top))) + top - s[i] |]

    if contrast.Symmetric then 0.5 * (oneWay a b + oneWay b a) else oneWay a b

let private autograd (loss: torch.Tensor) (wrt: torch.Tensor list) : torch.Tensor list =
    torch.autograd.grad (ResizeArray [ loss ], ResizeArray wrt) |> List.ofSeq

let tests =
    testList
        "Contrastive"
        [ property "the loss is the hand-written one" (fun c ->
              let k, ya, yb = contrast c, normal c "ya" c.N c.D, normal c "yb" c.N c.D
              let expected = scalarLoss k (values ya) (values yb)
              near "loss" tight (item (Contrastive.loss k ya yb)) expected
              near "loss beside the gradients" tight (item (Contrastive.gradients k ya yb).Loss) expected)

          property "gradients of outputs are autograd's" (fun c ->
              let k, ya, yb = contrast c, normal c "ya" c.N c.D, normal c "yb" c.N c.D
              let g = Contrastive.gradients k ya yb
              let a, b = ya.clone().requires_grad_(true), yb.clone().requires_grad_(true)

              match autograd (Contrastive.loss k a b) [ a; b ] with
              | [ ga; gb ] ->
                  same "A" close g.A ga
                  same "B" close g.B gb
              | _ -> failtest "two gradients expected")

          property "gradients of weights are autograd's, biases too" (fun c ->
              let k, xa, xb = contrast c, normal c "xa" c.N c.Da, normal c "xb" c.N c.Db
              let wa = (normal c "wa" c.D (c.Da + 1L)).requires_grad_ true
              let wb = (normal c "wb" c.D c.Db).requires_grad_ true
              let xa = Heads.withBias xa
              let loss = Contrastive.loss k (Heads.outputs wa xa) (Heads.outputs wb xb)
              let expected = autograd loss [ wa; wb ]
              use _ = torch.no_grad ()
              let g = Contrastive.gradients k (Heads.outputs wa xa) (Heads.outputs wb xb)
              same "W_a" close (Contrastive.weightGradient g.A xa) expected[0]
              same "W_b" close (Contrastive.weightGradient g.B xb) expected[1])

          property "one way, a bias on the b side gets no gradient" (fun c ->
              let k =
                  { contrast c with
                      Symmetric = false
                      Scoring = Scoring.Raw
                      Temperature = 5.0 }

              let g = Contrastive.gradients k (normal c "ya" c.N c.D) (normal c "yb" c.N c.D)
              vanishes "bias gradient" tight (Tensors.norm (g.B.sum 0L)) (Tensors.norm g.B + 1.0)
              Expect.isGreaterThan (Tensors.norm (g.A.sum 0L)) 1e-8 "the a side does")

          property "the order of matched rows does not matter" (fun c ->
              let k, ya, yb = contrast c, normal c "ya" c.N c.D, normal c "yb" c.N c.D
              let order = Seed.permutation c.N (draw c "order")
              let at (y: torch.Tensor) = y.index_select (0L, order)
              let g, permuted = Contrastive.gradients k ya yb, Contrastive.gradients k (at ya) (at yb)
              near "loss" tight (item permuted.Loss) (item g.Loss)
              same "A" tight permuted.A (at g.A)
              same "B" tight permuted.B (at g.B))

          property "log n when all scores are equal" (fun c ->
              let y = torch.ones (c.N, c.D, dtype = torch.float64)
              near "loss" tight (item (Contrastive.loss (contrast c) y y)) (Math.Log(float c.N)))

          property "both ways is one way and the other's mean" (fun c ->
              let k, ya, yb = contrast c, normal c "ya" c.N c.D, normal c "yb" c.N c.D
              let loss symmetric a b = item (Contrastive.loss { k with Symmetric = symmetric } a b)
              near "loss" tight (loss true ya yb) (0.5 * (loss false ya yb + loss false yb ya)))

          test "large scores do not overflow" (fun () ->
              let y = Tensors.ofRows [ [ 1e4; 0.0 ]; [ 0.0; 1e4 ] ]
              let g = Contrastive.gradients Contrastive.paper y (y.neg ())
              near "loss" tight (item g.Loss) 1e8
              Expect.isTrue (Tensors.isFinite g.A && Tensors.isFinite g.B) "gradients are finite")

          property "leaves its inputs as they are" (fun c ->
              let k, ya, yb = contrast c, normal c "ya" c.N c.D, normal c "yb" c.N c.D

              untouched "Contrastive" [ ya; yb ] (fun () ->
                  let g = Contrastive.gradients k ya yb
                  Contrastive.loss k ya yb |> ignore
                  untouched "weightGradient" [ g.A; ya ] (fun () -> Contrastive.weightGradient g.A ya)))

          test "rows that do not match are a fault" (fun () ->
              match faultOf (fun () -> Contrastive.gradients Contrastive.paper (torch.ones (2L, 3L)) (torch.ones (4L, 3L))) with
              | Fault.Shape _ -> ()
              | other -> failtest other.Message) ]
