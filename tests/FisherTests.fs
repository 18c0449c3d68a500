module Cmcl.Tests.FisherTests

open Cmcl
open Expecto
open Cmcl.Tests.Checks
open TorchSharp

/// A random InfoNCE: τ from 0.2 to 5, one-way or symmetric, raw or cosine.
let private contrast (c: Case) : Contrast =
    { Temperature = 0.2 * 25.0 ** fraction c "temperature"
      Scoring = if fraction c "scoring" < 0.5 then Scoring.Raw else Scoring.Cosine
      Symmetric = fraction c "symmetric" < 0.5 }

let private every: Contrast list =
    [ for scoring in [ Scoring.Raw; Scoring.Cosine ] do
          for symmetric in [ false; true ] ->
              { Temperature = 0.5
                Scoring = scoring
                Symmetric = symmetric } ]

/// Scores of rows under weights, of unit rows where the scoring is cosine, differentiable.
let private scores (k: Contrast) (wa: torch.Tensor) (wb: torch.Tensor) (xa: torch.Tensor) (xb: torch.Tensor) =
    let outputs (w: torch.Tensor) (x: torch.Tensor) =
        let y = x.mm (w.t ())
        if k.Scoring = Scoring.Cosine then y / y.norm (1, true) else y

    (outputs wa xa).mm((outputs wb xb).t()) / number k.Temperature

/// Squared gradients of −log p(target | anchor), or of the mean of both ways', one backward pass after another; weighted and summed.
let private squared (k: Contrast) (heads: Heads) xa xb (terms: (float * (torch.Tensor -> torch.Tensor)) list) : Heads =
    let wa, wb = heads[pair.A].clone().requires_grad_ true, heads[pair.B].clone().requires_grad_ true

    let gradients =
        [ for share, term in terms do
              let g = torch.autograd.grad (ResizeArray [ term (scores k wa wb xa xb) ], ResizeArray [ wa; wb ]) |> List.ofSeq
              share, g ]

    let sum i = gradients |> List.map (fun (share, g) -> g[i].squared() * number share) |> List.reduce (.+)
    Map [ pair.A, sum 0; pair.B, sum 1 ]

let private logRow (i: int64) (j: int64) (s: torch.Tensor) = (s.log_softmax 1L)[i, j]
let private logColumn (i: int64) (j: int64) (s: torch.Tensor) = (s.log_softmax 0L)[j, i]

let private bruteForce (k: Contrast) (heads: Heads) (xa: torch.Tensor) (xb: torch.Tensor) : Heads =
    let n = xa.shape[0]

    let term i s = if k.Symmetric then (logRow i i s .+ logColumn i i s) * number 0.5 else logRow i i s

    squared k heads xa xb [ for i in 0L .. n - 1L -> 1.0 / float n, term i ]

let private agree (what: string) tolerance (actual: Heads) (expected: Heads) =
    for KeyValue(m, f) in expected do
        same $"{what}, {m}" tolerance actual[m] f

let private least (h: Heads) = h.Values |> Seq.map (fun f -> item (f.min ())) |> Seq.min

let tests =
    testList
        "Fisher"
        [ for k in every do
              property $"of every anchor it is brute force: {k.Scoring}, symmetric {k.Symmetric}" (fun c ->
                  let w, xa, xb = heads c "w", normal c "xa" c.N c.Da, normal c "xb" c.N c.Db
                  agree "F" close (FisherInformation.perAnchor k pair w xa xb) (bruteForce k w xa xb))

          mustFail "it is not that of other scores" (fun c ->
              let w, xa, xb = heads c "w", normal c "xa" c.N c.Da, normal c "xb" c.N c.Db
              let cosine, raw = every[2], every[0]
              agree "F" 1e-3 (FisherInformation.perAnchor raw pair w xa xb) (bruteForce cosine w xa xb))

          test "in parts, where it is large" (fun () ->
              let random purpose rows = Seed.normal [ rows; 128L ] (Seed.ofInt 2 |> Seed.split purpose)
              let w: Heads = Map [ pair.A, random "wa" 130L; pair.B, random "wb" 130L ]

              for k in List.filter (fun k -> k.Scoring = Scoring.Cosine) every do
                  let xa, xb = random "xa" 70L, random "xb" 70L
                  agree "F" close (FisherInformation.perAnchor k pair w xa xb) (bruteForce k w xa xb))

          property "of a batch it is the square of its gradient, and no more than the mean over anchors" (fun c ->
              let k, w, xa, xb = contrast c, heads c "w", normal c "xa" c.N c.Da, normal c "xb" c.N c.Db

              let loss (s: torch.Tensor) =
                  let rows, columns = (s.log_softmax 1L).diagonal().mean(), (s.log_softmax 0L).diagonal().mean()
                  if k.Symmetric then (rows .+ columns) * number 0.5 else rows

              let batch = FisherInformation.perBatch k pair w xa xb
              agree "F" close batch (squared k w xa xb [ 1.0, loss ])
              let anchors = FisherInformation.perAnchor k pair w xa xb
              Expect.isGreaterThanOrEqual (least (Map.map (fun m f -> anchors[m] - f) batch)) -close "Jensen")

          property "none is negative" (fun c ->
              let k, w, xa, xb = contrast c, heads c "w", normal c "xa" c.N c.Da, normal c "xb" c.N c.Db
              let single (h: Heads) = Heads.map (fun t -> t.``to`` torch.float32) h
              let singleRows (x: torch.Tensor) = x.``to`` torch.float32

              for f in
                  [ FisherInformation.perAnchor k pair w xa xb
                    FisherInformation.perBatch k pair w xa xb
                    FisherInformation.sampled (draw c "targets") k pair w xa xb
                    FisherInformation.perAnchor k pair (single w) (singleRows xa) (singleRows xb) ] do
                  Expect.isGreaterThanOrEqual (least f) 0.0 "F")

          property "single precision agrees" (fun c ->
              let k, w, xa, xb = contrast c, heads c "w", normal c "xa" c.N c.Da, normal c "xb" c.N c.Db
              let single (t: torch.Tensor) = t.``to`` torch.float32
              let f = FisherInformation.perAnchor k pair (Heads.map single w) (single xa) (single xb)
              Expect.equal f[pair.A].dtype torch.float32 "type"
              agree "F" 1e-3 f (FisherInformation.perAnchor k pair w xa xb))

          for k in every do
              test $"sampled partners come to the expectation under the model: {k.Scoring}, symmetric {k.Symmetric}" (fun () ->
                  let random purpose rows columns = Seed.normal [ rows; columns ] (Seed.ofInt 4 |> Seed.split purpose)
                  let n = 4L
                  let w: Heads = Map [ pair.A, random "wa" 3L 2L; pair.B, random "wb" 3L 4L ]
                  let xa, xb = random "xa" n 2L, random "xb" n 4L
                  let s = scores k w[pair.A] w[pair.B] xa xb

                  let expected =
                      squared
                          k
                          w
                          xa
                          xb
                          [ for i in 0L .. n - 1L do
                                for j in 0L .. n - 1L do
                                    let row = exp (item (logRow i j s))

                                    if k.Symmetric then
                                        for l in 0L .. n - 1L do
                                            row * exp (item (logColumn i l s)) / float n,
                                            fun s -> (logRow i j s .+ logColumn i l s) * number 0.5
                                    else
                                        row / float n, logRow i j ]

                  let sums = Heads.map torch.zeros_like w
                  let draws = 3000

                  for i in 1..draws do
                      use scope = torch.NewDisposeScope()

                      for KeyValue(m, f) in FisherInformation.sampled (Seed.ofInt i) k pair w xa xb do
                          sums[m].plus_ f |> ignore

                  let mean = sums |> Heads.map (fun t -> t / number (float draws))
                  let apart (f: Heads) = f.Keys |> Seq.map (fun m -> Tensors.relativeDifference f[m] expected[m]) |> Seq.max
                  Expect.isLessThan (apart mean) 0.07 "the mean of many"

                  Expect.isGreaterThan
                      (apart (FisherInformation.perAnchor k pair w xa xb))
                      0.14
                      "true partners are another thing")

          property "what is drawn comes from the seed" (fun c ->
              let k, w, xa, xb = contrast c, heads c "w", normal c "xa" c.N c.Da, normal c "xb" c.N c.Db
              let drawn seed = FisherInformation.sampled seed k pair w xa xb
              let first, again = drawn (draw c "targets"), drawn (draw c "targets")

              for m in first.Keys do
                  identical "again" again[m] first[m])

          property "nothing given is changed, nothing else is left" (fun c ->
              let k, w, xa, xb = contrast c, heads c "w", normal c "xa" c.N c.Da, normal c "xb" c.N c.Db

              for name, f in
                  [ "per anchor", FisherInformation.perAnchor k
                    "per batch", FisherInformation.perBatch k
                    "sampled", FisherInformation.sampled (draw c "targets") k ] do
                  untouched name (xa :: xb :: Heads.tensors w) (fun () ->
                      Expect.equal (leaked (fun () -> f pair w xa xb |> ignore)) 2L $"{name}: two matrices")) ]
