module Cmcl.Tests.EwcTests

open Cmcl
open Expecto
open Cmcl.Tests.Checks
open TorchSharp

let private task (c: Case) (i: int) (rows: int64) : Task =
    Task.ofPair i $"step-{i}" pair (normal c $"xa {i}" rows c.Da) (normal c $"xb {i}" rows c.Db)

let private settings (c: Case) : Settings =
    { Settings.initial with
        Dtype = Dtype.Float64
        Batch = BatchSize.Rows 4
        Scoring = if fraction c "scoring" < 0.5 then Scoring.Raw else Scoring.Cosine
        Symmetric = fraction c "symmetric" < 0.5 }

let private options (c: Case) : Ewc.Options =
    { Ewc.defaults with
        Lambda = 0.1 + 10.0 * fraction c "lambda" }

/// Three steps of one pair and the heads at their ends; the memory after them.
let private after (o: Ewc.Options) (c: Case) : (Task * Heads) list * Memory =
    let steps = [ for i in 1..3 -> task c i (c.N + int64 i), heads c $"w {i}" ]

    steps,
    steps
    |> List.fold (fun memory (t, h) -> (Ewc.ewc.Make o |> Method.trainer).End (context (settings c)) memory h [ t ]) Map.empty

/// What EWC.End takes for the Fisher information of a step.
let private fisherOf (settings: Settings) (t: Task, h: Heads) =
    Ewc.information Ewc.defaults.Fisher settings (Seed.split "fisher 0" (context settings).Seed) h t

/// (1/2) Σ_k Σ F_k (W − W*_k)², as it is written.
let private naive (settings: Settings) (steps: (Task * Heads) list) (weights: Heads) : torch.Tensor =
    [ for step in steps do
          let f = fisherOf settings step

          for KeyValue(m, w) in weights -> (f[m] * (w - (snd step)[m]).squared()).sum() * number 0.5 ]
    |> List.reduce (.+)

let private value (memory: Memory) (weights: Heads) : float =
    weights |> Map.toList |> List.sumBy (fun (m, w) -> Ewc.pull m memory |> Option.get |> Pull.value w |> item)

let private vanilla (options: string) = options.Replace("ewc[lambda=0;", "vanilla[")

let private small =
    lazy
        ({ synthetic.Value with
            Steps = synthetic.Value.Steps |> List.take 4 })

/// Every head after every step, bit for bit, in both types.
let identicalRuns (one: string) (other: string) : unit =
    for dtype in [ Dtype.Float32; Dtype.Float64 ] do
        let heads written =
            let p = plan small.Value written
            runPlan small.Value 3 { p with Settings = { p.Settings with Dtype = dtype } } |> snd

        let first, second = heads one, heads other
        Expect.equal (List.ofSeq first.Keys) (List.ofSeq second.Keys) "steps"

        for KeyValue(step, h) in first do
            for KeyValue(m, w) in h do
                identical $"{one}, {other}: {m} after step {step}" w second.[step].[m]

let tests =
    testList
        "Ewc"
        [ property "two pulls are one: value and gradient" (fun c ->
              let matrix purpose = normal c purpose c.D c.Da
              let some purpose = (matrix purpose).clamp_min(number 0.0)
              let one, two = Pull.at (matrix "w1") (some "f1"), Pull.at (matrix "w2") (some "f2")
              let third = Pull.at (matrix "w3") (some "f3")
              let all = Pull.join (Pull.join one two) third
              let w = (matrix "w").requires_grad_ true

              let sum =
                  List.map (fun (p: Pull) -> (p.Importance * (w - p.Anchor).squared()).sum() * number 0.5) [ one; two; third ]

              let expected = List.reduce (.+) sum
              let gradient = torch.autograd.grad (ResizeArray [ expected ], ResizeArray [ w ]) |> Seq.head
              use _ = torch.no_grad ()
              near "value" tight (item (Pull.value w all)) (item expected)
              let g = matrix "g"
              same "gradient" tight (Pull.add 3.0 w all g) (g .+ gradient * number 3.0))

          property "at its anchor a pull is nothing, and elsewhere not" (fun c ->
              let w = normal c "w" c.D c.Da
              let pull = Pull.at w ((normal c "f" c.D c.Da).abs())
              Expect.equal (item (Pull.value w pull)) 0.0 "value"
              let g = normal c "g" c.D c.Da
              identical "gradient" (Pull.add 7.0 w pull g) g
              Expect.isGreaterThan (item (Pull.value (w.plus (0.1)) pull)) 0.0 "elsewhere")

          property "close to the anchors single precision loses nothing of it" (fun c ->
              let single (t: torch.Tensor) = t.``to`` torch.float32
              let w = normal c "w" c.D c.Da
              let near' purpose = w .+ normal c purpose c.D c.Da * number 1e-3

              let at cast =
                  Pull.join (Pull.at (cast (near' "1")) (cast (w.abs ()))) (Pull.at (cast (near' "2")) (cast (w.squared ())))

              let expected = item (Pull.value (near' "3") (at id))
              let actual = item (Pull.value (single (near' "3")) (at single))
              Expect.isLessThan (abs (actual - expected)) (0.01 * expected) "value")

          property "the separate form is the sum over steps, from what does not grow" (fun c ->
              let s, o = settings c, options c
              let steps, memory = after o c
              let now = heads c "now"
              near "penalty" close (value memory now) (item (naive s steps now))
              Expect.hasLength (Map.toList memory) 6 "three tensors a head"
              let numbers = c.D * (c.Da + c.Db)
              Expect.equal (Memory.bytes memory) (2L * 8L * numbers + 16L) "bytes")

          property "online, with γ = 1, F is the sum of the steps', and pulls to the last heads" (fun c ->
              let s = settings c

              let o =
                  { options c with
                      Accumulate = Accumulate.Online
                      Gamma = 1.0 }

              let steps, memory = after o c
              let separate = after { o with Accumulate = Accumulate.Separate } c |> snd

              for m in Pair.members pair do
                  let pull = (Ewc.pull m memory).Value

                  same
                      $"F of {m}"
                      tight
                      pull.Importance
                      (steps |> List.map (fun step -> (fisherOf s step).[m]) |> List.reduce (.+))

                  same $"and separate, {m}" tight pull.Importance (Ewc.pull m separate).Value.Importance
                  identical "anchor" pull.Anchor (snd steps.[2]).[m]

              Expect.equal (value memory (snd steps[2])) 0.0 "nothing at the last heads"
              Expect.isGreaterThan (value separate (snd steps[2])) 0.0 "which the separate form has not for its only anchor")

          property "and with γ < 1 it forgets" (fun c ->
              let s = settings c

              let o =
                  { options c with
                      Accumulate = Accumulate.Online
                      Gamma = 0.25 }

              let steps, memory = after o c

              for m in Pair.members pair do
                  let f = [ for step in steps -> (fisherOf s step).[m] ]

                  same
                      $"F of {m}"
                      tight
                      (Ewc.pull m memory).Value.Importance
                      (f[2] .+ f[1] * number 0.25 .+ f[0] * number 0.0625))

          property "the Fisher information of a step is the mean over anchors in batches, a last single pair left out" (fun c ->
              let s = { settings c with Shuffle = false }
              let t, w = task c 1 9L, heads c "w"
              let contrast = Settings.contrast s

              let part f first count = f contrast pair w (t.A.narrow (0L, first, count)) (t.B.narrow (0L, first, count)): Heads

              let mean f =
                  let one, two = part f 0L 4L, part f 4L 4L
                  Map.map (fun m (x: torch.Tensor) -> (x .+ two[m]) * number 0.5) one

              let uneven = t |> Task.map (fun _ x -> x.narrow (0L, 0L, 6L))

              let full, rest = part FisherInformation.perAnchor 0L 4L, part FisherInformation.perAnchor 4L 2L

              for m in Pair.members pair do
                  same
                      "per anchor"
                      close
                      (Ewc.information Fisher.PerAnchor s (draw c "fisher") w t).[m]
                      (mean FisherInformation.perAnchor).[m]

                  same
                      "per batch"
                      close
                      (Ewc.information Fisher.PerBatch s (draw c "fisher") w t).[m]
                      (mean FisherInformation.perBatch).[m]

                  same
                      "each anchor counts once"
                      close
                      (Ewc.information Fisher.PerAnchor s (draw c "fisher") w uneven).[m]
                      (full[m] * number (4.0 / 6.0) .+ rest[m] * number (2.0 / 6.0)))

          property "the direction is autograd's of the whole loss, and its loss too" (fun c ->
              let s, o = settings c, options c
              let steps, memory = after o c
              let now, t = heads c "now", task c 4 c.N
              let session = (Ewc.ewc.Make o |> Method.trainer).Begin (context s) memory now [ t ]

              let batch = t |> Task.batch 0 (Tensors.range torch.CPU 0L c.N) 1 (Seed.ofInt 0)

              let leaves = now |> Heads.map (fun w -> w.clone().requires_grad_ true)
              let contrast = Settings.contrast s

              let loss =
                  Contrastive.loss contrast (Heads.outputs leaves[pair.A] t.A) (Heads.outputs leaves[pair.B] t.B)
                  .+ naive s steps leaves * number o.Lambda

              let expected = torch.autograd.grad (ResizeArray [ loss ], ResizeArray [ leaves[pair.A]; leaves[pair.B] ])
              use _ = torch.no_grad ()

              untouched "a pass" (List.ofSeq memory.Values @ Heads.tensors now) (fun () ->
                  let struct (pass, next) = Direction.step session.Direction session.Kept now batch
                  near "loss" close (item pass.Loss) (item loss)
                  same "A" close pass.Gradients[pair.A] expected[0]
                  same "B" close pass.Gradients[pair.B] expected[1]
                  let told = (Ewc.ewc.Make o).Diagnostics next |> Map.ofList
                  near "share" close told["penalty_share"] (o.Lambda * value memory now / item loss)
                  Expect.equal (Memory.bytes next) (Memory.bytes memory) "what is told is no state"

                  for KeyValue(name, tensor) in memory do
                      Expect.isTrue (obj.ReferenceEquals(tensor, next[name])) $"{name} is kept as it is"))

          property "beginning and ending a step change nothing that they are given" (fun c ->
              for accumulate in [ Accumulate.Separate; Accumulate.Online ] do
                  let o = { options c with Accumulate = accumulate }
                  let method, s = Method.trainer (Ewc.ewc.Make o), settings c
                  let _, memory = after o c
                  let now, t = heads c "now", task c 4 c.N

                  untouched "a step" (t.A :: t.B :: List.ofSeq memory.Values @ Heads.tensors now) (fun () ->
                      method.Begin (context s) memory now [ t ] |> ignore
                      let next = method.End (context s) memory now [ t ]

                      for KeyValue(name, kept) in next do
                          let given = Seq.append memory.Values now.Values
                          Expect.isFalse (given |> Seq.exists (fun g -> obj.ReferenceEquals(g, kept))) $"{name} is a new one"))

          test "λ = 0 is fine-tuning, bit for bit, and λ > 0 is not" (fun () ->
              let options = "ewc[lambda=0;epochs=2;batch=32]"
              identicalRuns options (vanilla options)
              let last written = (run small.Value 3 written |> snd)[4]
              let held, free = last "ewc[lambda=10;epochs=2;batch=32]", last (vanilla options)
              let m = modality text
              Expect.isGreaterThan (Tensors.relativeDifference held[m] free[m]) 1e-6 "with a penalty")

          test "the larger λ, the less weights move where old data holds them" (fun () ->
              let moved (lambda: string) =
                  let mutable drift = 0.0

                  let begin' (scene: Scene) =
                      let moving = Training.moving scene.Tasks |> List.filter (fun m -> (Ewc.pull m scene.Memory).IsSome)

                      if not moving.IsEmpty then
                          match Loop.train scene.Context.Settings (Seed.ofInt 3) Watch.silent scene.Session with
                          | Error unfinished -> failtest $"{unfinished}"
                          | Ok trained ->
                              for m in moving do
                                  let pull = (Ewc.pull m scene.Memory).Value
                                  let cost w = item (Pull.value w pull)
                                  drift <- drift + cost trained.Weights[m] - item pull.Rest

                      None

                  Train.run
                      small.Value
                      torch.CPU
                      Split.Test
                      0
                      { Observer.silent with Begin = begin' }
                      (plan small.Value $"ewc[lambda={lambda};epochs=3;batch=32]")
                  |> Check.get
                  |> ignore

                  drift

              let free, some, held = moved "0", moved "10", moved "100000"
              Expect.isLessThan some free "some"
              Expect.isLessThan held (0.05 * free) "nearly held")

          test "what it tells and keeps: a share once there is a penalty, a matrix of each kind for each trained head" (fun () ->
              let stream = small.Value
              let outcome, _ = run stream 0 "ewc[epochs=1;lambda=5]"
              let trained upTo = stream.Steps |> List.take upTo |> List.collect (fun s -> Pair.members s.Pair) |> List.distinct

              let pulled =
                  [ for s in stream.Steps do
                        if Pair.members s.Pair |> List.exists (fun m -> List.contains m (trained (s.Index - 1))) then
                            s.Index ]

              let shares = measurements "penalty_share" outcome
              Expect.equal (shares |> List.map (fun (step, _, _) -> step)) pulled "steps with a penalty"

              for _, _, share in shares do
                  Expect.isTrue (share > 0.0 && share < 1.0) "a share"

              let d = stream.Steps.Head.A.Features.shape[1]

              for step, _, bytes in measurements "bytes_state" outcome do
                  Expect.equal bytes (float (int64 (trained step).Length * (2L * 8L * d * d + 8L))) $"bytes after step {step}")

          test "every form of it trains, each to weights of its own" (fun () ->
              let last options = (run small.Value 0 $"ewc[epochs=1;lambda=50{options}]" |> snd)[4]

              let all =
                  [ ""; ";fisher=per-batch"; ";fisher=sampled"; ";accumulate=online"; ";accumulate=online;gamma=0.5" ]
                  |> List.map last

              for i, one in List.indexed all do
                  for other in List.skip (i + 1) all do
                      let apart = one.Keys |> Seq.map (fun m -> Tensors.relativeDifference one[m] other[m]) |> Seq.max
                      Expect.isGreaterThan apart 1e-9 "apart")

          test "in place it is the pure functions" (fun () ->
              InPlaceTests.wholeRun Dtype.Float64 "epochs=2;batch=32;lambda=20" "ewc"
              InPlaceTests.wholeRun Dtype.Float64 "epochs=1;batch=32;scores=cosine;symmetric=on" "ewc[accumulate=online]"
              InPlaceTests.wholeRun Dtype.Float32 "epochs=1;batch=32;lambda=20" "ewc") ]
