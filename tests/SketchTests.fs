/// A few rows in the place of many: sizes, and what is beyond their precision.
module Cmcl.Tests.SketchTests

open Cmcl
open Expecto
open Cmcl.Tests.Checks
open TorchSharp

let private single (x: torch.Tensor) : torch.Tensor = x.``to``(torch.float32).``to`` torch.float64

/// Features of low rank and of other awkward kinds, n × d, by name.
let awkward (c: Case) (n: int64) (d: int64) : (string * torch.Tensor) list =
    let low = planted c "low" 2L n d
    let noisy = low .+ normal c "noise" n d * number 0.1
    let half = d / 2L

    let columns (f: int64 -> torch.Tensor) = torch.cat ([| for j in 0L .. d - 1L -> f j |], 1L)
    let column j = noisy.narrow (1L, j, 1L)

    [ "of full rank", noisy
      "of low rank", low
      "of low rank, rounded to float32", single low
      "of low rank, rounded to float16", low.``to``(torch.float16).``to`` torch.float64
      "all but of low rank", low .+ normal c "tiny" n d * number 1e-9
      "with columns twice", columns (fun j -> if j < half then column j else column (j - half))
      "with constant columns", columns (fun j -> if j % 2L = 0L then torch.full_like (column j, number 1.5) else column j)
      "with columns of zeros", columns (fun j -> if j % 2L = 0L then torch.zeros_like (column j) else column j)
      "zero", torch.zeros_like noisy
      "of wild scales", columns (fun j -> column j * number (10.0 ** (12.0 * fraction c $"scale {j}" - 9.0))) ]

/// Few rows, about as many as columns, and tall: in one block and in blocks of blocks.
let private extents (c: Case) = [ 3L, c.Da; c.N, c.Da; 9L * c.Da + 1L, c.Da; 100L, 1L + c.D % 3L ]

/// How far two sizes are apart, and what the sketch says of that.
let private apart (s: Sketch) (x: torch.Tensor) (m: torch.Tensor) : float * float =
    let all = Tensors.norm (x.mm m)
    // The sizes themselves have some rounding.
    abs (all - Tensors.norm (s.Rows.mm m)), s.Beyond * Tensors.norm m + 1e-15 * all

/// Directions that the rows reach least: where rounding shows most.
let private least (x: torch.Tensor) : torch.Tensor =
    let struct (_, vectors) = torch.linalg.eigh (x.t().mm x)
    vectors.narrow (1L, 0L, 1L)

let tests =
    testList
        "Sketch"
        [ property "sizes of few rows are those of all, to what is beyond them" (fun c ->
              for n, d in extents c do
                  for kind, x in awkward c n d do
                      let s = Sketch.ofRows x
                      Expect.isLessThanOrEqual s.Rows.shape[0] (min n d) $"{kind}: few"
                      Expect.isLessThanOrEqual s.Beyond (1e-12 * Tensors.norm x) $"{kind}: hardly anything is beyond"

                      for m in [ normal c "m" d 3L; least x ] do
                          let difference, allowed = apart s x m
                          Expect.isLessThanOrEqual difference (allowed + 1e-300) $"{kind}, {n} × {d}")

          test "a singular matrix that LAPACK's decomposition is further off than its usual bound" (fun () ->
              let c =
                  { Seed = 282738
                    N = 3L
                    D = 7L
                    Da = 4L
                    Db = 5L
                    Rank = 0L }

              let _, x = awkward c 3L 4L |> List.find (fun (kind, _) -> kind = "with columns of zeros")
              let s = Sketch.ofRows x
              let difference, allowed = apart s x (least x)
              Expect.isLessThanOrEqual difference allowed "within what the sketch says")

          property "as many rows as the rank, where it is less" (fun c ->
              for n in [ c.N; 9L * c.Da + 1L ] do
                  let s = Sketch.ofRows (planted c "x" c.Rank n c.Da)
                  Expect.equal s.Rows.shape[0] (min (min c.Rank n) c.Da) "rank")

          property "of a moment, too, to more" (fun c ->
              for n, d in extents c do
                  for kind, x in awkward c n d do
                      let s = Sketch.ofMoment (Moment.ofRows x)
                      Expect.isLessThanOrEqual s.Beyond (1e-5 * Tensors.norm x) $"{kind}: little is beyond"

                      for m in [ normal c "m" d 3L; least x ] do
                          let difference, allowed = apart s x m
                          Expect.isLessThanOrEqual difference (allowed + 1e-300) $"{kind}, {n} × {d}")

          mustFail "a moment's rows without what is beyond them" (fun c ->
              let x = planted c "low" 1L c.N (c.Da + 1L) .+ normal c "tiny" c.N (c.Da + 1L) * number 1e-10
              let difference, _ = apart (Sketch.ofMoment (Moment.ofRows x)) x (least x)
              Expect.isLessThanOrEqual difference (1e-13 * Tensors.norm x) "sizes")

          property "the same whether rows are float32 or widened, and where there are none" (fun c ->
              let x = (normal c "x" c.N c.Da).``to`` torch.float32
              let narrow, wide = Sketch.ofRows x, Sketch.ofRows (x.``to`` torch.float64)
              identical "rows" narrow.Rows wide.Rows
              let none = Sketch.ofRows (torch.zeros (0L, c.Da, dtype = torch.float64))
              Expect.equal (none.Rows.shape[0], none.Beyond) (0L, 0.0) "none")

          property "leaves its inputs as they are, and frees the rest" (fun c ->
              let x = planted c "x" 1L (20L * c.Da) c.Da
              untouched "Sketch" [ x ] (fun () -> Sketch.ofRows x)
              Expect.equal (leaked (fun () -> Sketch.ofRows x |> ignore)) 1L "rows"
              Expect.equal (leaked (fun () -> Sketch.ofMoment (Moment.ofRows x) |> ignore)) 2L "moment and rows") ]
