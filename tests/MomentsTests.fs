module Cmcl.Tests.MomentsTests

open Cmcl
open Expecto
open Cmcl.Tests.Checks
open TorchSharp

let private sameMoment what (a: Moment) (b: Moment) =
    Expect.equal a.Count b.Count $"{what}: count"
    same what tight a.Matrix b.Matrix

/// Rows with a mean that is large beside their spread.
let private offCentre c purpose n = normal c purpose n c.Da .+ normal c "mean" 1L c.Da * number 10.0

/// (X − 1μᵀ)ᵀ(X − 1μᵀ)/n from the rows.
let private covariance (x: torch.Tensor) =
    let left = x - x.mean ([| 0L |], true)
    left.t().mm left / number (float x.shape[0])

let tests =
    testList
        "Moments"
        [ property "the moment is the mean outer product of the rows" (fun c ->
              let x = normal c "x" c.N c.Da
              let rows = values x
              let m = Moment.ofRows x

              for i in 0 .. int c.Da - 1 do
                  for j in 0 .. int c.Da - 1 do
                      near "entry" tight (entry m.Matrix i j) (rows |> Array.averageBy (fun r -> r[i] * r[j])))

          test "wide rows, of which half the product is computed, in several chunks" (fun () ->
              let x = Seed.normal [ 5000L; 600L ] (Seed.ofInt 3)
              let m = (Moment.ofRows x).Matrix
              same "moment" tight m (x.t().mm(x) / number 5000.0)
              identical "symmetric" (m.t().contiguous()) m)

          property "merging is concatenating, in any order" (fun c ->
              let x, y, z = normal c "x" c.N c.Da, normal c "y" (c.N + 3L) c.Da, normal c "z" 1L c.Da
              let mx, my, mz = Moment.ofRows x, Moment.ofRows y, Moment.ofRows z
              let all = Moment.ofRows (torch.cat ([| x; y; z |], 0L))
              sameMoment "left" (Moment.merge (Moment.merge mx my) mz) all
              sameMoment "right" (Moment.merge mx (Moment.merge my mz)) all
              sameMoment "other way round" (Moment.merge mz (Moment.merge my mx)) all
              sameMoment "mergeAll" (Moment.mergeAll [ my; mz; mx ] |> Option.get) all)

          property "through a weight is the moment of its outputs" (fun c ->
              let x, w = normal c "x" c.N c.Da, normal c "w" c.D c.Da
              sameMoment "through" (Moment.through w (Moment.ofRows x)) (Moment.ofRows (Heads.outputs w x)))

          property "half and single precision are accumulated in double" (fun c ->
              for dtype in [ torch.float16; torch.float32 ] do
                  let stored = (normal c "x" 3000L c.Da).``to`` dtype
                  let m, mean = Moment.ofRows stored, Mean.ofRows stored
                  Expect.equal m.Matrix.dtype torch.float64 "type"
                  let wide = stored.``to`` torch.float64
                  same "value" tight m.Matrix (wide.t().mm wide / number 3000.0)
                  Expect.equal mean.Vector.dtype torch.float64 "type of the mean"
                  same "mean" tight mean.Vector (wide.mean [| 0L |]))

          property "merged, then centred: the covariance of all rows" (fun c ->
              let parts = [ offCentre c "x" c.N; offCentre c "y" (c.N + 3L); normal c "z" 1L c.Da ]
              let means = parts |> List.map Mean.ofRows
              let all = torch.cat (Array.ofList parts, 0L)
              let merged = parts |> List.map Moment.ofRows |> Moment.mergeAll |> Option.get
              let mean = means |> Mean.mergeAll |> Option.get
              same "mean" tight mean.Vector (all.mean [| 0L |])
              same "other way round" tight (means |> List.rev |> Mean.mergeAll |> Option.get).Vector mean.Vector
              let centred = Moment.centred mean merged
              Expect.equal centred.Count all.shape[0] "count"
              // Both are exact to the rounding of the moment, not of the smaller covariance.
              vanishes "covariance" tight (Tensors.norm (centred.Matrix - covariance all)) (Tensors.norm merged.Matrix))

          property "through a head, then centred: the covariance of the outputs" (fun c ->
              let x, w = offCentre c "x" c.N, normal c "w" c.D c.Da
              let outputs = Moment.through w (Moment.ofRows x)
              let centred = Moment.centred (Mean.through w (Mean.ofRows x)) outputs
              let difference = Tensors.norm (centred.Matrix - covariance (Heads.outputs w x))
              vanishes "covariance" tight difference (Tensors.norm outputs.Matrix))

          property "centred by its mean a single row is nothing, and rows of mean zero stay as they are" (fun c ->
              let x = offCentre c "x" c.N
              let m = Moment.ofRows (x.narrow (0L, 0L, 1L))
              let left = Moment.centred (Mean.ofRows (x.narrow (0L, 0L, 1L))) m
              vanishes "one row" tight (Tensors.norm left.Matrix) (Tensors.norm m.Matrix)
              let free = x - x.mean ([| 0L |], true)
              same "mean zero" tight (Moment.centred (Mean.ofRows free) (Moment.ofRows free)).Matrix (Moment.ofRows free).Matrix)

          property "leaves its inputs as they are" (fun c ->
              let x, w = normal c "x" c.N c.Da, normal c "w" c.D c.Da
              let a, b = Moment.ofRows x, Moment.ofRows (normal c "y" c.N c.Da)
              let mean = Mean.ofRows x

              untouched "Moment" [ x; w; a.Matrix; b.Matrix; mean.Vector ] (fun () ->
                  Mean.merge mean mean |> ignore
                  Mean.mergeAll [ mean; mean ] |> ignore
                  Mean.through w mean |> ignore
                  Moment.centred mean a |> ignore
                  Moment.ofRows x |> ignore
                  Moment.merge a b |> ignore
                  Moment.mergeAll [ a; b ] |> ignore
                  Moment.through w a))

          test "none merged is none; different spaces are a fault" (fun () ->
              Expect.isNone (Moment.mergeAll []) "none"
              let m (n: int64) = Moment.ofRows (torch.ones (2L, n, dtype = torch.float64))

              match faultOf (fun () -> Moment.merge (m 3L) (m 4L)) with
              | Fault.Shape _ -> ()
              | other -> failtest other.Message

              Expect.isNone (Mean.mergeAll []) "no mean"

              for rows, columns in [ 3L, 3L; 2L, 4L; 2L, 1L ] do
                  let mean = Mean.ofRows (torch.ones (rows, columns, dtype = torch.float64))

                  match faultOf (fun () -> Moment.centred mean (m 3L)) with
                  | Fault.Shape(_, expected, given) -> Expect.notEqual given expected "in words"
                  | other -> failtest other.Message) ]
