module Cmcl.Tests.MomentsTests

open Cmcl
open Expecto
open Cmcl.Tests.Checks
open TorchSharp

let private sameMoment what (a: Moment) (b: Moment) =
    Expect.equal a.Count b.Count $"{what}: count"
    same what tight a.Matrix b.Matrix

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
                  let m = Moment.ofRows stored
                  Expect.equal m.Matrix.dtype torch.float64 "type"
                  let wide = stored.``to`` torch.float64
                  same "value" tight m.Matrix (wide.t().mm wide / number 3000.0))

          property "leaves its inputs as they are" (fun c ->
              let x, w = normal c "x" c.N c.Da, normal c "w" c.D c.Da
              let a, b = Moment.ofRows x, Moment.ofRows (normal c "y" c.N c.Da)

              untouched "Moment" [ x; w; a.Matrix; b.Matrix ] (fun () ->
                  Moment.ofRows x |> ignore
                  Moment.merge a b |> ignore
                  Moment.mergeAll [ a; b ] |> ignore
                  Moment.through w a))

          test "none merged is none; different spaces are a fault" (fun () ->
              Expect.isNone (Moment.mergeAll []) "none"
              let m (n: int64) = Moment.ofRows (torch.ones (2L, n, dtype = torch.float64))

              match faultOf (fun () -> Moment.merge (m 3L) (m 4L)) with
              | Fault.Shape _ -> ()
              | other -> failtest other.Message) ]
