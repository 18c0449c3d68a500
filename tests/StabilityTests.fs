module Cmcl.Tests.StabilityTests

open Cmcl
open Expecto
open Cmcl.Tests.Checks
open TorchSharp

let tests =
    testList
        "Stability"
        [ property "the deviation by hand" (fun c ->
              let before, now = heads c "before", heads c "now"
              let xa, xb = normal c "xa" c.N c.Da, normal c "xb" c.N c.Db
              let scores h = values (Alignment.between pair h xa xb) |> Array.concat
              let old = scores before
              let change = Array.map2 (-) (scores now) old
              let squares = Array.sumBy (fun x -> x * x)
              let d = Stability.deviation pair before now xa xb
              near "mean" tight d.Mean (change |> Array.averageBy abs)
              near "max" tight d.Max (change |> Array.map abs |> Array.max)
              near "rms" tight d.Rms (sqrt (squares change / float change.Length))
              near "relative" tight d.Relative (sqrt (squares change / squares old)))

          property "none without a change, and none if both heads turn alike" (fun c ->
              let h = heads c "h"
              let xa, xb = normal c "xa" c.N c.Da, normal c "xb" c.N c.Db
              Expect.equal (Stability.deviation pair h h xa xb).Max 0.0 "no change"
              let struct (q, _) = torch.linalg.qr (normal c "turn" c.D c.D)
              let turned = Heads.map (fun w -> q.mm w) h
              Expect.isLessThan (Stability.deviation pair h turned xa xb).Relative close "turned"
              let half = Heads.replace (Map [ pair.A, turned[pair.A] ]) h
              Expect.isGreaterThan (Stability.deviation pair h half xa xb).Max 0.0 "one of them turned")

          property "scores that were all zero have no relative size: the plain norm stands" (fun c ->
              let none: Heads = heads c "h" |> Heads.map torch.zeros_like
              let now = heads c "now"
              let xa, xb = normal c "xa" c.N c.Da, normal c "xb" c.N c.Db

              near
                  "norm"
                  tight
                  (Stability.deviation pair none now xa xb).Relative
                  (Tensors.norm (Alignment.between pair now xa xb)))

          test "more rows than a block holds, and features in single precision" (fun () ->
              let draw purpose rows columns = Seed.normal [ rows; columns ] (Seed.ofInt 3 |> Seed.split purpose)
              let xa, xb = draw "xa" 2500L 4L, draw "xb" 2500L 4L
              let h = Map [ pair.A, draw "wa" 4L 4L; pair.B, draw "wb" 4L 4L ]
              let now = Map [ pair.A, draw "wa'" 4L 4L; pair.B, draw "wb'" 4L 4L ]
              let old, change = Alignment.between pair h xa xb, Alignment.between pair now xa xb - Alignment.between pair h xa xb
              let d = Stability.deviation pair h now xa xb
              near "relative" tight d.Relative (Tensors.norm change / Tensors.norm old)
              near "mean" tight d.Mean (item (change.abs().mean()))
              near "max" tight d.Max (item (change.abs().max()))
              let f32 (t: torch.Tensor) = t.``to`` torch.float32
              let rounded = Stability.deviation pair (Heads.map f32 h) (Heads.map f32 now) (f32 xa) (f32 xb)
              near "in single" single rounded.Relative d.Relative)

          property "in blocks of any size as in one piece, from outputs as from scores" (fun c ->
              let before, now = heads c "before", heads c "now"
              let xa, xb = normal c "xa" c.N c.Da, normal c "xb" c.N c.Db
              let whole = Stability.deviation pair before now xa xb
              let outputs (h: Heads) = Heads.outputs h[pair.A] xa, Heads.outputs h[pair.B] xb
              let ya, yb = outputs now

              let earlier = [ EarlierScores.Outputs(outputs before); EarlierScores.Whole(Alignment.between pair before xa xb) ]

              for budget in [ 1L; 16L * c.N; 16L * c.N * (1L + c.N / 2L); Blocks.budget ] do
                  for d in
                      Stability.deviationWithin budget pair before now xa xb
                      :: [ for e in earlier -> Stability.sinceWithin budget e ya yb ] do
                      near "mean" tight d.Mean whole.Mean
                      near "max" tight d.Max whole.Max
                      near "rms" tight d.Rms whole.Rms
                      near "relative" tight d.Relative whole.Relative)

          test "no block outlives the next" (fun () ->
              let x = torch.ones (8L * 1024L, 2L, dtype = torch.float64)
              let h: Heads = Map [ pair.A, torch.eye (2L, dtype = torch.float64); pair.B, torch.eye (2L, dtype = torch.float64) ]
              // As many live tensors as there ever were, so that the peak tells what the call adds.
              let ballast = [ for _ in torch.Tensor.TotalCount .. torch.Tensor.PeakCount -> x.alias () ]
              let peak = torch.Tensor.PeakCount
              Stability.deviation pair h h x x |> ignore
              Expect.isLessThan (torch.Tensor.PeakCount - peak) 50L $"tensors beside {ballast.Length}")

          property "leaves its inputs as they are, and no tensor" (fun c ->
              let h, now = heads c "h", heads c "now"
              let xa, xb = normal c "xa" c.N c.Da, normal c "xb" c.N c.Db

              let old = Alignment.between pair h xa xb

              let all () =
                  Stability.deviation pair h now xa xb |> ignore
                  Stability.sinceWithin 1L (EarlierScores.Whole old) xa xa |> ignore

              untouched "Stability" (xa :: xb :: old :: Heads.tensors h @ Heads.tensors now) all
              Expect.equal (leaked all) 0L "leaked") ]
