module Cmcl.Tests.AlignmentTests

open Cmcl
open Expecto
open Cmcl.Tests.Checks
open TorchSharp

let tests =
    testList
        "Alignment"
        [ property "cosine scores by hand" (fun c ->
              let ya, yb = normal c "ya" c.N c.D, normal c "yb" (c.N + 1L) c.D
              let s, a, b = values (Alignment.scores Scoring.Cosine ya yb), values ya, values yb
              let dot = Array.fold2 (fun sum x y -> sum + x * y) 0.0

              for i in 0 .. a.Length - 1 do
                  for j in 0 .. b.Length - 1 do
                      near "score" tight (s[i][j]) (dot a[i] b[j] / sqrt (dot a[i] a[i] * dot b[j] b[j])))

          property "cosine scores know no scale, raw ones do" (fun c ->
              let ya, yb = normal c "ya" c.N c.D, normal c "yb" c.N c.D
              let scaled = ya * number 3.0
              same "cosine" tight (Alignment.scores Scoring.Cosine scaled yb) (Alignment.scores Scoring.Cosine ya yb)
              same "raw" tight (Alignment.scores Scoring.Raw scaled yb) (Alignment.scores Scoring.Raw ya yb * number 3.0))

          property "rows get unit length, a row of zeros stays" (fun c ->
              let y = torch.cat ([| normal c "y" c.N c.D; torch.zeros (1L, c.D, dtype = torch.float64) |], 0L)
              let unit = Alignment.normalise y
              same "lengths" tight (unit.narrow(0L, 0L, c.N).norm 1) (torch.ones (c.N, dtype = torch.float64))
              Expect.equal (Tensors.norm (unit.narrow (0L, c.N, 1L))) 0.0 "zero row")

          property "leaves its inputs as they are" (fun c ->
              let ya, yb = normal c "ya" c.N c.D, normal c "yb" c.N c.D

              untouched "Alignment" [ ya; yb ] (fun () ->
                  for scoring in [ Scoring.Raw; Scoring.Cosine ] do
                      Alignment.scores scoring ya yb |> ignore
                      (Alignment.prepare scoring ya).Dispose()

                  Alignment.lengths ya |> ignore
                  Alignment.normalise ya))

          test "outputs of different spaces are a fault" (fun () ->
              match faultOf (fun () -> Alignment.scores Scoring.Raw (torch.ones (2L, 3L)) (torch.ones (2L, 4L))) with
              | Fault.Shape _ -> ()
              | other -> failtest other.Message) ]
