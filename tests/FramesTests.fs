module Cmcl.Tests.FramesTests

open Cmcl
open Expecto
open Cmcl.Tests.Checks
open TorchSharp

/// A frame over planted old data of one pair: old inputs X (rank-deficient), old partner outputs Y.
type private Setting =
    { X: torch.Tensor
      Y: torch.Tensor
      W: torch.Tensor
      Frame: Frame }

let private setting (oneSided: bool) (c: Case) : Setting =
    let x = planted c "x" (max 1L (min c.Rank (c.Da - 1L))) c.N c.Da
    let y = planted c "y" (max 1L (min c.Rank (c.D - 1L))) c.N c.D

    { X = x
      Y = y
      W = normal c "w" c.D c.Da
      Frame = Frame.ofMoments oneSided (Moment.ofRows x) (Moment.ofRows y) }

let private zero = Threshold.absolute 0.0 |> Check.get

let private factorOf protection (s: Setting) =
    match Frame.shape protection s.Frame (Frame.enter s.Frame s.W) with
    | Shape.Block(rows, columns) -> Shape.mask rows columns s.W
    | Shape.Factor f -> f
    | other -> failtest $"expected a factor, got {other}"

/// A change D' in the frame, in the standard basis: V D' Uᵀ.
let private out (f: Frame) (d: torch.Tensor) = f.Partners.Vectors.mm(d).mm(f.Inputs.Vectors.t ())

let private size (importance: torch.Tensor) (d: torch.Tensor) = item ((importance * d * d).sum())

/// Weights with zeros among them, a change, and a budget that it overruns.
let private ellipsoid (c: Case) =
    let importance = (normal c "importance" c.D c.Da).clamp_min(number 0.0)
    importance[0L, 0L] <- torch.tensor 1.0
    let change = normal c "change" c.D c.Da
    struct (importance, change, size importance change * (0.01 + 0.9 * fraction c "budget"))

/// Frames of both modalities of a pair, and how many output directions each protects.
let private two (c: Case) : Map<Modality, Frame> * Map<Modality, int> =
    let frame purpose columns =
        let rank = max 1L (min c.Rank (c.D - 1L))
        let moment purpose columns = Moment.ofRows (planted c purpose rank c.N columns)
        Frame.ofMoments false (moment (purpose + " inputs") columns) (moment (purpose + " partners") c.D)

    let frames = Map [ pair.A, frame "a" c.Da; pair.B, frame "b" c.Db ]
    frames, frames |> Map.map (fun _ f -> f.Partners.NumericalRank)

/// The block of zeros as a projection, in bases that keep all leading directions but some.
let private maskIn (c: Case) (dropped: int) : unit =
    let frames, leads = two c
    let struct (bases, _) = Frame.sharedBases (leads |> Map.map (fun _ k -> k - dropped)) frames

    for KeyValue(m, f) in frames do
        let turned = Frame.turned bases[m] f
        let d = normal c $"d {m}" c.D f.Inputs.Vectors.shape[0]

        match Frame.shape (Protection.Block(zero, zero)) f (Frame.enter turned d) with
        | Shape.Block(rows, columns) ->
            let masked = Frame.enter turned d * Shape.mask rows columns d
            let projector (s: Spectrum) = Spectrum.projector s.NumericalRank s
            same "D − P̃ D P" 1e-9 (out turned masked) (Projection.localUpdate (projector f.Partners) (projector f.Inputs) d)
        | other -> failtest $"expected a block, got {other}"

let tests =
    testList
        "Frames"
        [ property "entering and leaving is a round trip" (fun c ->
              let s = setting false c
              let w' = Frame.enter s.Frame s.W
              identical "nothing changed" (Frame.leave s.Frame s.W w' w') s.W
              let d = normal c "d" c.D c.Da
              same "a change" tight (Frame.enter s.Frame (Frame.leave s.Frame s.W w' (w' .+ d))) (w' .+ d))

          property "a free frame is the standard basis and protects nothing" (fun c ->
              let f, w = Frame.free torch.CPU c.D c.Da, normal c "w" c.D c.Da
              identical "enter" (Frame.enter f w) w

              for protection in
                  [ Protection.Block(zero, zero); Protection.Product 1e-9; Protection.Soft 1e-9; Protection.Trust 0.0 ] do
                  Expect.equal (Frame.shape protection f w) Shape.Free "free")

          property "the mask is the projection, rotated" (fun c ->
              for oneSided in [ false; true ] do
                  let s = setting oneSided c
                  let d = normal c "d" c.D c.Da
                  let p = Spectrum.projector s.Frame.Inputs.NumericalRank s.Frame.Inputs

                  let partner =
                      if oneSided then
                          torch.eye (c.D, dtype = torch.float64)
                      else
                          Spectrum.projector s.Frame.Partners.NumericalRank s.Frame.Partners

                  let masked = Frame.enter s.Frame d * factorOf (Protection.Block(zero, zero)) s
                  same "D − P̃ D P" close (out s.Frame masked) (Projection.localUpdate partner p d))

          property "shared bases keep what leads, agree from there on, and are whole" (fun c ->
              let frames, leads = two c
              let struct (bases, apart) = Frame.sharedBases leads frames
              Expect.isTrue (apart <= c.D) "apart"

              for KeyValue(m, v) in bases do
                  let lead = int64 leads[m]
                  same "orthonormal" close (v.t().mm v) (torch.eye (c.D, dtype = torch.float64))
                  same "leading" close (v.narrow (1L, 0L, lead)) (Spectrum.leading leads[m] frames[m].Partners)
                  identical "common" (v.narrow (1L, apart, c.D - apart)) (bases[pair.A].narrow(1L, apart, c.D - apart))

              let y, whole = normal c "y" c.N c.D, bases[pair.A].t().mm bases[pair.B]

              match Bridge.between apart bases[pair.A] bases[pair.B] with
              | Some q ->
                  same "across" close (Bridge.cross q y) (y.mm whole)
                  same "and back" close (Bridge.cross (q.t ()) (Bridge.cross q y)) y
              | None -> same "one space" close whole (torch.eye (c.D, dtype = torch.float64)))

          property "the mask is the projection in shared bases, as long as they keep what it protects" (fun c -> maskIn c 0)
          mustFail "a basis that leaves out a protected direction will not do" (fun c -> maskIn c 1)

          property "a masked change leaves old scores alone; one-sided, old outputs" (fun c ->
              let d = normal c "d" c.D c.Da

              let changeOf oneSided =
                  let s = setting oneSided c in struct (s, out s.Frame (d * factorOf (Protection.Block(zero, zero)) s))

              let struct (s, dual) = changeOf false
              let struct (_, own) = changeOf true
              let scale = Tensors.norm s.X * Tensors.norm d * (1.0 + Tensors.norm s.Y)
              vanishes "X Dᵀ Yᵀ" 1e-7 (Tensors.norm (s.X.mm(dual.t ()).mm(s.Y.t ()))) scale
              vanishes "X Dᵀ" 1e-7 (Tensors.norm (s.X.mm (own.t ()))) scale)

          property "old scores' first-order change is the energies' sum over the change" (fun c ->
              let s, d = setting false c, normal c "d" c.D c.Da
              let n = float c.N
              let squared = Tensors.norm (s.X.mm((out s.Frame d).t()).mm(s.Y.t ())) ** 2.0
              let mu, lambda = s.Frame.Partners.Values, s.Frame.Inputs.Values
              let d' = values d

              let sum =
                  Seq.sum (
                      seq {
                          for i in 0 .. mu.Length - 1 do
                              for j in 0 .. lambda.Length - 1 -> mu[i] * lambda[j] * d'[i][j] ** 2.0
                      }
                  )

              near "‖X Dᵀ Yᵀ‖²" close squared (n * n * sum)
              let scale = n * n * s.Frame.Partners.Total * s.Frame.Inputs.Total
              near "importance" close (scale * size (Frame.importance s.Frame) d) squared)

          property "one-sided energies are flat: the change of old outputs" (fun c ->
              let s, d = setting true c, normal c "d" c.D c.Da
              let squared = Tensors.norm (s.X.mm ((out s.Frame d).t())) ** 2.0
              let scale = float c.N * float c.D * s.Frame.Inputs.Total
              near "‖X Dᵀ‖²" close (scale * size (Frame.importance s.Frame) d) squared)

          property "product protects exactly the entries above τ" (fun c ->
              let s = setting false c
              let importance = Frame.importance s.Frame
              let tau = 10.0 ** (-4.0 + 3.0 * fraction c "tau")
              let f, p = values (factorOf (Protection.Product tau) s), values importance

              for i in 0 .. f.Length - 1 do
                  for j in 0 .. f[i].Length - 1 do
                      Expect.equal f[i].[j] (if p[i].[j] > tau then 0.0 else 1.0) "entry")

          property "soft is the minimiser of what it says" (fun c ->
              let s, u = setting false c, normal c "u" c.D c.Da
              let tau = 10.0 ** (-3.0 + 3.0 * fraction c "tau")
              let p = Frame.importance s.Frame
              let objective (d: torch.Tensor) = Tensors.norm (d - u) ** 2.0 + size p d / tau
              let best = u * factorOf (Protection.Soft tau) s

              for i in 1..10 do
                  for length in [ 1e-3; 0.1; 1.0 ] do
                      let other = best .+ normal c $"perturbation {i}" c.D c.Da * number length
                      Expect.isTrue (objective best < objective other) "no better one")

          property "soft goes to the mask as τ goes to zero" (fun c ->
              let s = setting false c
              let block, soft = factorOf (Protection.Block(zero, zero)) s, factorOf (Protection.Soft 1e-16) s
              same "limit" 1e-3 soft block)

          property "trust's budget is ε² of what the weight itself does" (fun c ->
              let s = setting false c
              let start = Frame.enter s.Frame s.W

              match Frame.shape (Protection.Trust 0.3) s.Frame start with
              | Shape.Ellipsoid(p, budget) ->
                  same "importance" 0.0 p (Frame.importance s.Frame)
                  near "budget" tight budget (0.09 * size p start)
              | other -> failtest $"expected an ellipsoid, got {other}")

          property "into the ellipsoid: inside, by one ν, and no nearer point" (fun c ->
              let struct (p, d, budget) = ellipsoid c
              let inside = Frame.intoEllipsoid p budget d
              Expect.isTrue (size p inside <= budget * (1.0 + tight)) "inside"
              near "on the boundary" 1e-6 (size p inside) budget
              let before, after, p' = values d, values inside, values p
              let mutable multipliers = []

              for i in 0 .. p'.Length - 1 do
                  for j in 0 .. p'[i].Length - 1 do
                      if p'[i].[j] = 0.0 then
                          Expect.equal after[i].[j] before[i].[j] "what is free stays"
                      elif p'[i].[j] > 1e-3 && abs before[i].[j] > 1e-3 then
                          multipliers <- (before[i].[j] / after[i].[j] - 1.0) / p'[i].[j] :: multipliers

              for nu in multipliers do
                  Expect.isTrue (nu >= 0.0) "ν ≥ 0"
                  near "one ν" 1e-3 nu (List.max multipliers)

              for i in 1..10 do
                  let other = normal c $"other {i}" c.D c.Da
                  let other = other * number (sqrt (budget / max budget (size p other)))
                  Expect.isTrue (Tensors.norm (d - inside) <= Tensors.norm (d - other) + 1e-6) "nearest")

          property "what is inside stays, and a budget of 0 clears what counts" (fun c ->
              let struct (p, d, _) = ellipsoid c
              identical "inside already" (Frame.intoEllipsoid p (size p d * 1.001) d) d
              identical "budget 0" (Frame.intoEllipsoid p 0.0 d) (d * p.eq (number 0.0)))

          property "a larger budget leaves more" (fun c ->
              let struct (p, d, budget) = ellipsoid c
              let small, large = Frame.intoEllipsoid p (budget * 0.5) d, Frame.intoEllipsoid p budget d
              Expect.isTrue (item (large.abs().sub(small.abs ()).min()) >= -1e-9) "entry by entry")

          property "changes many orders too large, and single precision, end inside too" (fun c ->
              let struct (p, d, budget) = ellipsoid c

              for scale in [ 1e3; 1e8 ] do
                  let inside = Frame.intoEllipsoid p budget (d * number scale)
                  Expect.isTrue (size p inside <= budget * (1.0 + tight)) $"inside from {scale}: {size p inside:R} of {budget:R}"

              let inside = Frame.intoEllipsoid (p.``to`` torch.float32) budget (d.``to`` torch.float32)
              Expect.equal inside.dtype torch.float32 "type"
              let left = size p (inside.``to`` torch.float64)
              Expect.isTrue (left <= budget * (1.0 + 1e-6)) $"inside in single: {left:R} of {budget:R}"
              near "and no smaller than it has to be" 1e-4 left budget)

          property "the cheapest cover is a cover, and none is cheaper" (fun c ->
              let names = [ "a"; "b"; "c"; "d"; "e" ] |> List.map modality
              let roll purpose = fraction c purpose
              let moving = names |> List.filter (fun m -> roll $"moves {m}" < 0.8)

              let edges =
                  [ for a in names do
                        for b in names do
                            if a < b && roll $"edge {a} {b}" < 0.4 then
                                a, b ]

              let cost (m: Modality) = int (10.0 * roll $"cost {m}")
              let within = edges |> List.filter (fun (a, b) -> List.contains a moving && List.contains b moving)
              let covers (s: Set<Modality>) = within |> List.forall (fun (a, b) -> s.Contains a || s.Contains b)
              let price (s: Set<Modality>) = Seq.sumBy cost s
              let cover = Cover.cheapest cost moving edges
              Expect.isTrue (covers cover) "a cover"
              Expect.isTrue (Set.isSubset cover (Set.ofList moving)) "of what moves"

              for bits in 0 .. (1 <<< moving.Length) - 1 do
                  let other =
                      moving |> List.indexed |> List.filter (fun (i, _) -> bits &&& (1 <<< i) <> 0) |> List.map snd |> Set.ofList

                  if covers other then
                      Expect.isTrue (price cover <= price other) "none cheaper")

          test "no old pair that moves needs no cover; ties go by name" (fun () ->
              let a, b = modality "a", modality "b"
              Expect.equal (Cover.cheapest (fun _ -> 1) [ a; b ] []) Set.empty "none"
              Expect.equal (Cover.cheapest (fun _ -> 1) [ a ] [ a, b ]) Set.empty "one end stands still"
              Expect.equal (Cover.cheapest (fun _ -> 1) [ b; a ] [ b, a ]) (Set.singleton a) "tie")

          property "leaves its inputs as they are" (fun c ->
              let s = setting false c
              let start = Frame.enter s.Frame s.W
              let struct (p, d, budget) = ellipsoid c

              untouched "Frame" [ s.W; start; p; d; s.Frame.Inputs.Vectors; s.Frame.Partners.Vectors ] (fun () ->
                  Frame.enter s.Frame s.W |> ignore
                  Frame.leave s.Frame s.W start d |> ignore
                  Frame.importance s.Frame |> ignore
                  Frame.intoEllipsoid p budget d |> ignore
                  Frame.intoEllipsoid p (budget * 1e6) d |> ignore

                  for protection in
                      [ Protection.Block(zero, zero); Protection.Product 1e-3; Protection.Soft 1e-3; Protection.Trust 0.1 ] do
                      Frame.shape protection s.Frame start |> ignore)) ]
