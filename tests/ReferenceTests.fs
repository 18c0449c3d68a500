module Cmcl.Tests.ReferenceTests

open Cmcl
open Expecto
open Cmcl.Tests.Checks
open TorchSharp

/// What the published code does, written again from its description (docs/methods.md, "What the published code does that its
/// theory does not say", 1 to 5) with autograd, explicit projectors and an optimizer by hand. Full batches, τ = 1.
let private naive (stream: Stream) (d: int64) (lr: float) (epochs: int) (wd: float) (limit: float) (floor: float) =
    let zeros like = torch.zeros_like like
    let mutable weights, biases = Map.empty, Map.empty

    for m, columns in Stream.modalities stream do
        weights <- Map.add m (torch.eye (d, columns, dtype = torch.float64)) weights
        biases <- Map.add m (torch.zeros ([| d |], dtype = torch.float64)) biases

    let mutable moments: Map<Modality, torch.Tensor> = Map.empty
    let mutable seen = 0.0

    for step in stream.Steps do
        let xa, xb = step.A.Features, step.B.Features
        let a, b = step.Pair.A, step.Pair.B
        let n = float xa.shape[0]

        let projector m =
            match Map.tryFind m moments with
            | None -> torch.zeros (d, d, dtype = torch.float64)
            | Some c ->
                let struct (u, s, _) = torch.linalg.svd c
                let kept = u.mm (torch.diag (s.gt(number floor).``to`` torch.float64))
                kept.mm (kept.t ())

        let pa, pb = projector a, projector b
        let mutable p = [| weights.[a]; biases.[a]; weights.[b]; biases.[b] |]
        let mutable m1, m2 = Array.map zeros p, Array.map zeros p

        for i in 1..epochs do
            let leaves = p |> Array.map (fun t -> t.clone().requires_grad_ true)
            let ya, yb = xa.mm (leaves.[0].t()) .+ leaves.[1], xb.mm (leaves.[2].t()) .+ leaves.[3]
            let target = Tensors.range torch.CPU 0L xa.shape[0]
            let loss = torch.nn.functional.cross_entropy (ya.mm (yb.t ()), target)
            let raw = torch.autograd.grad (ResizeArray [ loss ], ResizeArray leaves) |> Array.ofSeq
            let norm = raw |> Array.sumBy (fun g -> item (g.squared().sum())) |> sqrt
            let g = raw |> Array.map (fun g -> g * number (min 1.0 (limit / (norm + 1e-6))))
            g.[0] <- g.[0] - g.[0].mm pa
            g.[2] <- g.[2] - g.[2].mm pb
            m1 <- Array.map2 (fun (m: torch.Tensor) g -> m * number 0.9 .+ g * number 0.1) m1 g
            m2 <- Array.map2 (fun (v: torch.Tensor) (g: torch.Tensor) -> v * number 0.999 .+ g * g * number 0.001) m2 g
            let rate = lr * float (epochs - i + 1) / float epochs

            p <-
                Array.init 4 (fun j ->
                    let mean = m1.[j] / number (1.0 - 0.9 ** float i)
                    let square = m2.[j] / number (1.0 - 0.999 ** float i)
                    let decayed = if j % 2 = 0 then p.[j] * number (1.0 - rate * wd) else p.[j]
                    decayed - mean / (square.sqrt().plus 1e-8) * number rate)

        weights <- weights.Add(a, p.[0]).Add(b, p.[2])
        biases <- biases.Add(a, p.[1]).Add(b, p.[3])

        for m, x: torch.Tensor in [ a, xa; b, xb ] do
            let fresh = x.t().mm x / number (seen + n)

            moments <-
                Map.add
                    m
                    (match Map.tryFind m moments with
                     | Some old -> old * number (seen / (seen + n)) .+ fresh
                     | None -> fresh)
                    moments

        seen <- seen + n

    weights, biases

let private d = 7L

let private stream () : Stream =
    let rows purpose n =
        let draw purpose rows columns = Seed.normal [ rows; columns ] (Seed.ofInt 11 |> Seed.split purpose)
        let x = (draw purpose n 3L).mm(draw (purpose + " basis") 3L d) .+ draw (purpose + " noise") n d * number 0.05
        x / x.norm (1, true)

    streamOf
        [ vision, text, rows "1a" 24L, rows "1b" 24L
          audio, text, rows "2a" 17L, rows "2b" 17L
          vision, text, rows "3a" 20L, rows "3b" 20L
          audio, vision, rows "4a" 15L, rows "4b" 15L ]

let private settings = "batch=all;shuffle=off;epochs=4;lr=1e-3;weight-decay=0.1;clip=0.3;temperature=1;scores=raw"

let private after (written: string) = (run (stream ()) 0 written |> snd)[4]

let tests =
    testList
        "Reference"
        [ test "it is the published code, written again: every weight and bias" (fun () ->
              let ours = after $"reference[{settings};threshold=absolute:0.02]"
              let weights, biases = naive (stream ()) d 1e-3 4 0.1 0.3 0.02

              for m in ours.Keys do
                  same $"weights of {m}" close (ours.[m].narrow(1L, 0L, d)) weights.[m]
                  same $"bias of {m}" close (ours.[m].narrow(1L, d, 1L)) (biases.[m].unsqueeze 1L))

          test "each of its peculiarities shows" (fun () ->
              let ours = after $"reference[{settings};threshold=absolute:0.02]"

              let differs (what: string) (weights: Map<Modality, torch.Tensor>) =
                  let m = modality vision
                  let difference = Tensors.relativeDifference (ours.[m].narrow(1L, 0L, d)) weights.[m]
                  Expect.isGreaterThan difference 1e-6 what

              naive (stream ()) d 1e-3 4 0.1 0.3 0.5 |> fst |> differs "the threshold"
              naive (stream ()) d 1e-3 4 0.0 0.3 0.02 |> fst |> differs "the decay"
              naive (stream ()) d 1e-3 4 0.1 1e9 0.02 |> fst |> differs "the clipping"
              after $"dns[place=gradient;sides=dual;{settings};threshold=absolute:0.02]" |> differs "the biases")

          test "without history it is plain training with a bias" (fun () ->
              let first = (run (stream ()) 0 $"reference[{settings}]" |> snd)[1]
              let weights, biases = naive { stream () with Steps = (stream ()).Steps |> List.take 1 } d 1e-3 4 0.1 0.3 0.01
              same "weights" close (first.[modality text].narrow(1L, 0L, d)) weights.[modality text]
              same "bias" close (first.[modality vision].narrow(1L, d, 1L)) (biases.[modality vision].unsqueeze 1L)) ]
