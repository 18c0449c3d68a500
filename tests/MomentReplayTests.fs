/// Losses of old rows from their moments, and the method that trains with them.
module Cmcl.Tests.MomentReplayTests

open Cmcl
open Expecto
open Cmcl.Tests.Checks
open TorchSharp

let private losses = [ MomentLoss.Spectral; MomentLoss.Cumulant ]
let private tau (c: Case) = 0.5 + fraction c "tau"
let private rows (c: Case) (name: string) = normal c $"{name} a" (c.N + 3L) c.Da, normal c $"{name} b" (c.N + 3L) c.Db

/// The loss of rows as it is written, from all their scores over τ.
let private written
    (loss: MomentLoss)
    (tau: float)
    (wa: torch.Tensor)
    (wb: torch.Tensor)
    (xa: torch.Tensor, xb: torch.Tensor)
    : torch.Tensor =
    let s = (Heads.outputs wa xa).mm((Heads.outputs wb xb).t()) / number tau
    let matched = s.diagonal().mean()

    match loss with
    | MomentLoss.Spectral -> s.squared().mean() - matched * number 2.0
    | MomentLoss.Cumulant -> s.mean () - matched .+ s.var(1L, unbiased = false).mean() * number 0.5

let private moments loss (xa, xb) = PairMoments.ofRows loss pair xa xb

let private mathematics =
    testList
        "losses"
        [ property "moments give the losses of rows" (fun c ->
              let h, x = heads c "w", rows c "x"

              for loss in losses do
                  let g = PairMoments.gradients loss (tau c) h[pair.A] h[pair.B] (moments loss x)
                  near $"{loss}" tight (item g.Loss) (item (written loss (tau c) h[pair.A] h[pair.B] x)))

          property "gradients are autograd's of the rows" (fun c ->
              let x = rows c "x"

              for loss in losses do
                  let leaves = heads c "w" |> Heads.map (fun w -> w.requires_grad_ true)
                  let value = written loss (tau c) leaves[pair.A] leaves[pair.B] x
                  let expected = torch.autograd.grad (ResizeArray [ value ], ResizeArray [ leaves[pair.A]; leaves[pair.B] ])
                  use _ = torch.no_grad ()
                  let h, p = heads c "w", moments loss x

                  untouched "gradients" (Heads.tensors h @ p.Tensors) (fun () ->
                      let g = PairMoments.gradients loss (tau c) h[pair.A] h[pair.B] p
                      same $"{loss}: A" close g.A expected[0]
                      same $"{loss}: B" close g.B expected[1]))

          property "of one head the partner's part is known beforehand" (fun c ->
              for loss in losses do
                  let h, p, q = heads c "w", moments loss (rows c "x"), moments loss (rows c "y")
                  let wa, wb = h[pair.A], h[pair.B]
                  let of' p = PairMoments.gradients loss (tau c) wa wb p
                  let ofA = PairMoments.ofHead loss (tau c) [ 2.0, wb, true, p; 0.5, wb, true, q ]
                  let struct (value, gradient) = HeadLoss.gradient wa ofA
                  near $"{loss}: value" close (item value) (2.0 * item (of' p).Loss + 0.5 * item (of' q).Loss)
                  same $"{loss}: A" close gradient ((of' p).A * number 2.0 .+ (of' q).A * number 0.5)
                  let struct (_, gradient) = HeadLoss.gradient wb (PairMoments.ofHead loss (tau c) [ 1.0, wa, false, p ])
                  same $"{loss}: B" close gradient (of' p).B)

          property "and must fail: merged moments give the loss of no two steps" (fun c ->
              let h, (xa, xb), (ya, yb) = heads c "w", rows c "x", rows c "y"

              let of' x =
                  item (PairMoments.gradients MomentLoss.Spectral 1.0 h[pair.A] h[pair.B] (moments MomentLoss.Spectral x)).Loss

              let merged = of' (torch.cat ([| xa; ya |], 0L), torch.cat ([| xb; yb |], 0L))
              let apart = 0.5 * (of' (xa, xb) + of' (ya, yb))
              Expect.isGreaterThan (abs (merged - apart)) 1e-8 "negatives of both steps") ]

// ---- the method -----------------------------------------------------------------------------------------------------

let private settings (c: Case) : Settings =
    { Settings.initial with
        Dtype = Dtype.Float64
        Temperature = tau c }

let private other = modality audio

/// Steps of three pairs, the second read from b to a; all widths d_a but text's.
let private oldSteps (c: Case) : (Pair * (torch.Tensor * torch.Tensor)) list =
    let width m = if m = text then c.Db else c.Da

    [ for i, (a, b) in List.indexed [ vision, text; text, vision; vision, audio; audio, text ] ->
          let n = c.N + int64 i
          Pair.named a b, (normal c $"{i} a" n (width a), normal c $"{i} b" n (width b)) ]

let private after (o: MomentReplay.Options) (c: Case) : Memory =
    let trainer = MomentReplay.momentReplay.Make o |> Method.trainer

    (Map.empty, List.indexed (oldSteps c))
    ||> List.fold (fun memory (i, (p, (xa, xb))) ->
        trainer.End (context (settings c)) memory Map.empty [ Task.ofPair (i + 1) "old" p xa xb ])

let private small =
    lazy
        ({ synthetic.Value with
            Steps = synthetic.Value.Steps |> List.take 4 })

let private method' =
    testList
        "method"
        [ property "it adds λ n_p/n of every old step's loss, whichever of its heads move" (fun c ->
              for loss in losses do
                  let o: MomentReplay.Options = { Lambda = 0.1 + fraction c "lambda"; Loss = loss }
                  let s, memory = settings c, after o c
                  let xa, xb = rows c "new"
                  let now = heads c "now" |> Map.add other (normal c "other" c.D c.Da)
                  let t = Task.ofPair 5 "new" pair xa xb
                  let session = (MomentReplay.momentReplay.Make o |> Method.trainer).Begin (context s) memory now [ t ]
                  let leaves = now |> Heads.map (fun w -> w.clone().requires_grad_ true)

                  let replayed =
                      [ for p, (ya, yb) in oldSteps c ->
                            written loss s.Temperature leaves[p.A] leaves[p.B] (ya, yb)
                            * number (o.Lambda * float ya.shape[0] / float xa.shape[0]) ]
                      |> List.reduce (.+)

                  let outputs =
                      Contrastive.loss (Settings.contrast s) (Heads.outputs leaves[pair.A] xa) (Heads.outputs leaves[pair.B] xb)

                  let value = outputs .+ replayed
                  let expected = torch.autograd.grad (ResizeArray [ value ], ResizeArray [ leaves[pair.A]; leaves[pair.B] ])
                  use _ = torch.no_grad ()
                  let batch = t |> Task.batch 0 (Tensors.range torch.CPU 0L xa.shape[0]) 1 (Seed.ofInt 0)

                  untouched "a pass" (List.ofSeq memory.Values @ Heads.tensors now) (fun () ->
                      let pass = Direction.pass session.Direction session.Kept now batch
                      same $"{loss}: A" close pass.Gradients[pair.A] expected[0]
                      same $"{loss}: B" close pass.Gradients[pair.B] expected[1]
                      near $"{loss}: value" close (item pass.Loss) (item value)))

          property "what is kept of a step is what its rows give, and three matrices" (fun c ->
              let o = { MomentReplay.defaults with Loss = MomentLoss.Cumulant }
              let memory = after o c

              for (p, (xa, xb)), (pair, kept) in List.zip (oldSteps c) (MomentReplay.kept memory) do
                  Expect.equal pair p "pair"
                  Expect.equal kept.Count xa.shape[0] "rows"
                  let expected = PairMoments.ofRows o.Loss p xa xb
                  List.iter2 (same $"{p}" tight) kept.Tensors expected.Tensors

              Expect.equal memory.Count (4 * 4) "three matrices and a number a step")

          test "λ = 0 is fine-tuning, bit for bit, and λ > 0 is not" (fun () ->
              let last written = (run small.Value 3 written |> snd)[4]
              let free = last "vanilla[epochs=2;batch=32]"

              for loss in [ "spectral"; "cumulant" ] do
                  let same, held =
                      last $"moment-replay[loss={loss};lambda=0;epochs=2;batch=32]",
                      last $"moment-replay[loss={loss};lambda=1;epochs=2;batch=32]"

                  for KeyValue(m, w) in free do
                      identical $"{loss}: {m}" same[m] w

                  let m = modality text
                  Expect.isGreaterThan (Tensors.relativeDifference held[m] free[m]) 1e-6 $"{loss}: with old steps")

          test "it is trained in place as by pure transforms" (fun () ->
              InPlaceTests.wholeRun Dtype.Float64 "epochs=1;batch=32;scores=cosine;symmetric=on" "moment-replay[loss=cumulant]"
              InPlaceTests.wholeRun Dtype.Float32 "epochs=1;batch=32" "moment-replay") ]

let tests = testList "Moment replay" [ mathematics; method' ]
