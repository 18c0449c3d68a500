/// How narrow a cone features point into: closed forms, NumPy, and what leaves it alone.
module Cmcl.Tests.ConeTests

open System
open Expecto
open Cmcl
open Cmcl.Tests.Checks
open TorchSharp

let private values (c: Cone) = c.MeanShare, c.EffectiveRank

let tests =
    testList
        "Cone"
        [ property "orthogonal rows have a share of 1/k, a rank of k, and lengths are nothing to them" (fun c ->
              let k = 1L + int64 c.Seed % c.D
              let struct (q, _) = torch.linalg.qr (normal c "basis" c.D c.D)
              let lengths = (normal c "lengths" k 1L).abs().plus 0.1
              let found = Cone.ofRows (q.narrow (0L, 0L, k) * lengths)
              Expect.equal found.Rows k "rows"
              near "share" 1e-12 found.MeanShare (1.0 / float k)
              near "rank" 1e-9 found.EffectiveRank (float k))

          property "equal rows, of any length, have a share of 1 and a rank of 1" (fun c ->
              let row = normal c "row" 1L c.D
              let found = Cone.ofRows ((normal c "lengths" c.N 1L).abs().plus(0.1) * row)
              near "share" 1e-12 found.MeanShare 1.0
              near "rank" 1e-6 found.EffectiveRank 1.0)

          property "the share is the mean cosine of two rows, and neither changes under rotations" (fun c ->
              let x = normal c "x" (c.N + 2L) c.D .+ normal c "shift" 1L c.D
              let u = Alignment.normalise x
              let found = Cone.ofRows x
              near "cosines" 1e-12 found.MeanShare (item ((u.mm (u.t ())).mean()))
              let struct (q, _) = torch.linalg.qr (normal c "turn" c.D c.D)
              let turned = Cone.ofRows (x.mm q)
              near "share, turned" 1e-10 turned.MeanShare found.MeanShare
              near "rank, turned" 1e-8 turned.EffectiveRank found.EffectiveRank
              Expect.isLessThanOrEqual found.EffectiveRank (float (min (c.N + 2L) c.D) + 1e-9) "at most what there is"
              Expect.isGreaterThanOrEqual found.EffectiveRank (1.0 - 1e-9) "at least one")

          test "as NumPy has it" (fun () ->
              // x = np.array([[3, 4, 0], [1, 0, 0], [0, 2, 2.]]); u = x / np.linalg.norm(x, axis=1, keepdims=True)
              // m = u.mean(0); m @ m; p = np.linalg.eigvalsh(u.T @ u); p /= p.sum(); np.exp(-(p * np.log(p)).sum())
              let x = torch.tensor (array2D [ [ 3.0; 4.0; 0.0 ]; [ 1.0; 0.0; 0.0 ]; [ 0.0; 2.0; 2.0 ] ])
              let found = Cone.ofRows x
              near "share" 1e-12 found.MeanShare 0.5923745388776085
              near "rank" 1e-12 found.EffectiveRank 2.3039390455736664

              for dtype in [ torch.ScalarType.Float32; torch.ScalarType.Float16 ] do
                  near $"{dtype}" 1e-6 (Cone.ofRows (x.``to`` dtype)).MeanShare 0.5923745388776085)

          test "rows of zeros point nowhere" (fun () ->
              let x = torch.tensor (array2D [ [ 0.0; 0.0 ]; [ 2.0; 0.0 ]; [ 0.0; 0.0 ] ])
              Expect.equal (Cone.ofRows x) { Rows = 1L; MeanShare = 1.0; EffectiveRank = 1.0 } "one row"
              Expect.equal (values (Cone.ofRows (torch.zeros (3L, 2L)))) (0.0, 0.0) "none"
              Expect.equal (Cone.effectiveRank []) 0.0 "no values")

          test "blocks are nothing to it, and a sample is the seed's, near the whole" (fun () ->
              use scope = torch.NewDisposeScope()
              let x = Seed.normal [ 9000L; 5L ] (Seed.ofInt 4) .+ Seed.normal [ 1L; 5L ] (Seed.ofInt 5)
              let whole = Cone.ofRows x
              let u = Alignment.normalise x
              near "share" 1e-12 whole.MeanShare (Tensors.norm (u.mean [| 0L |]) ** 2.0)
              let some seed = Cone.ofSome 4000L (Seed.ofInt seed) x
              Expect.equal (some 1).Rows 4000L "so many"
              Expect.equal (some 1) (some 1) "again"
              Expect.notEqual (some 1) (some 2) "another seed"
              Expect.isLessThan (abs ((some 1).MeanShare - whole.MeanShare)) 0.05 "share, nearly"
              Expect.isLessThan (abs ((some 1).EffectiveRank - whole.EffectiveRank)) 0.1 "rank, nearly"
              Expect.equal (Cone.ofSome 9000L (Seed.ofInt 1) x) whole "all that there are")

          test "a NaN, a vector" (fun () ->
              match
                  faultOf (fun () -> Cone.ofRows (torch.full (3L, 2L, number nan))),
                  faultOf (fun () -> Cone.ofRows (torch.ones 3L))
              with
              | Fault.NonFinite _, Fault.Shape _ -> ()
              | other -> failtest $"%A{other}")

          test "a stream's description tells of narrow cones, and of no others" (fun () ->
              let rows shift = Seed.normal [ 40L; 6L ] (Seed.ofInt 6) .+ torch.full (1L, 6L, number shift, dtype = torch.float64)
              let told shift = Describe.text (streamOf [ vision, text, rows shift, rows 0.0 ])
              Expect.stringContains (told 4.0) "Narrow cone" "the cone"
              Expect.isFalse ((told 0.0).Contains "Narrow cone") "none"

              for line in (told 4.0).Split '\n' do
                  Expect.isLessThanOrEqual line.Length 100 line) ]
