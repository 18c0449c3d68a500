module Cmcl.Tests.Co2lTests

open Cmcl
open Expecto
open Cmcl.Tests.Checks
open TorchSharp

let private group step (pair: Pair) (c: Case) purpose rows (columns: Modality -> int64) : Group =
    let side name (m: Modality) =
        let x = normal c $"{purpose} {name}" rows (columns m)
        if m.Name = text then Heads.withBias x else x

    Buffer.group step pair (side "a" pair.A) (side "b" pair.B) []

let private columns (c: Case) (m: Modality) : int64 =
    if m.Name = vision then c.Da
    elif m.Name = text then c.Db
    else c.Da + 1L

/// Heads of all four modalities; text's carries a bias.
let private allHeads (c: Case) purpose : Heads =
    Map
        [ for name in [ vision; text; audio; depth ] do
              let m = modality name
              m, normal c $"{purpose} {name}" c.D (columns c m + (if name = text then 1L else 0L)) ]

/// Pairs that share two heads with vision–text, in either order, one, and none.
let private replayedPairs: (string * Pair) list =
    [ "both", Pair.named vision text
      "both, the other way round", Pair.named text vision
      "the partner's", Pair.named audio text
      "the partner's first", Pair.named text audio
      "the anchor's", Pair.named vision audio
      "none", Pair.named audio depth ]

/// Every kind of candidates, scored as the case has it.
let private variants (c: Case) : (Settings * Co2l.Options) list =
    [ for candidates in [ Candidates.Matching; Candidates.Both; Candidates.Nobody ] do
          { Settings.initial with
              Temperature = 1.5
              Scoring = if fraction c "scoring" < 0.5 then Scoring.Raw else Scoring.Cosine
              Symmetric = fraction c "symmetric" < 0.5 },
          { Co2l.defaults with
              Lambda = 0.7
              Candidates = candidates
              KappaPast = 0.1 } ]

/// The whole loss written again with torch's softmax and cross entropy, from the definition.
let private reference
    (s: Settings, o: Co2l.Options)
    (before: Heads)
    (now: Heads)
    (batch: Group)
    (replayed: Group)
    : torch.Tensor =
    let outputs (heads: Heads) m (x: torch.Tensor) = x.mm (heads[m].t())

    let unit (y: torch.Tensor) = torch.nn.functional.normalize (y, 2.0, 1L)
    let prepare = if s.Scoring = Scoring.Cosine then unit else id
    let side heads (g: Group) (m: Modality) = outputs heads m g.Parts[if m = g.Pair.A then "a" else "b"]

    let oneWay (anchor: Modality) (partner: Modality) =
        let beside =
            match o.Candidates with
            | Candidates.Nobody -> []
            | Candidates.Matching when replayed.Pair.A = partner || replayed.Pair.B = partner -> [ partner ]
            | _ -> [ replayed.Pair.A; replayed.Pair.B ]

        let all = side now batch partner :: (beside |> List.map (side now replayed))
        let anchors = prepare (side now batch anchor)
        let scores = anchors.mm ((prepare (torch.cat (Array.ofList all, 0L))).t()) / number s.Temperature
        torch.nn.functional.cross_entropy (scores, Tensors.range torch.CPU 0L anchors.shape[0])

    let forth = oneWay batch.Pair.A batch.Pair.B
    let contrast = if s.Symmetric then (forth .+ oneWay batch.Pair.B batch.Pair.A) / number 2.0 else forth

    let relations heads kappa (g: Group) = (unit (side heads g g.Pair.A)).mm((unit (side heads g g.Pair.B)).t()) / number kappa

    /// Summed over anchors, half for each direction.
    let sum (g: Group) =
        let past, present = (relations before o.KappaPast g).detach(), relations now o.Kappa g
        let oneWay (dim: int64) = -(past.softmax dim * present.softmax(dim).log()).sum()
        (oneWay 0L .+ oneWay 1L) / number 2.0

    contrast .+ (sum batch .+ sum replayed) * number (o.Lambda / float (batch.Count + replayed.Count))

/// A run's step as its method begins it, with the memory and the heads of the steps before it.
let private sceneOf (stream: Stream) (at: int) (plan: Plan) (see: Scene -> unit) : unit =
    let begin' (scene: Scene) =
        if scene.Step.Index = at then
            see scene

        None

    Train.run stream torch.CPU Split.Test 0 { Observer.silent with Begin = begin' } plan |> Check.get |> ignore

let private firstSteps =
    lazy
        ({ synthetic.Value with
            Steps = synthetic.Value.Steps |> List.take 3 })

let private sameHeads what (actual: Map<int, Heads>) (expected: Map<int, Heads>) : unit =
    Expect.equal (List.ofSeq actual.Keys) (List.ofSeq expected.Keys) $"{what}: steps"

    for KeyValue(step, heads) in expected do
        for KeyValue(m, w) in heads do
            identical $"{what}: {m} after step {step}" actual.[step].[m] w

let tests =
    testList
        "Co2l"
        [ property "loss and gradients are autograd's, whatever heads are shared, however scored" (fun c ->
              let before, now = allHeads c "before", allHeads c "now"
              let batch = group 2 pair c "batch" c.N (columns c)

              for shared, old in replayedPairs do
                  let replayed = group 1 old c "replayed" (1L + c.Rank) (columns c)

                  for s, o in variants c do
                      let moving = Training.select (Pair.members pair) before

                      let ours =
                          Co2l.pass o s moving (Heads.replace (Training.select (Pair.members pair) now) before) batch replayed

                      let leaves = Training.select (Pair.members pair) now |> Heads.map (fun w -> w.clone().requires_grad_ true)
                      let loss = reference (s, o) before (Heads.replace leaves before) batch replayed
                      let expected = torch.autograd.grad (ResizeArray [ loss ], ResizeArray leaves.Values) |> Seq.zip leaves.Keys
                      near "loss" close (item ours.Pass.Loss) (item loss)
                      near "parts" close (item ours.Contrast + 0.7 * item ours.Distillation) (item loss)
                      Expect.equal (set ours.Pass.Gradients.Keys) (set leaves.Keys) "of the heads that move"

                      for m, g in expected do
                          let what = $"{m}, shared: {shared}, {s.Scoring}, symmetric {s.Symmetric}, {o.Candidates}"
                          same what 1e-9 ours.Pass.Gradients[m] g)

          test "candidates are of the partner's modality where the replayed pair has it" (fun () ->
              let of' kind a b = Co2l.candidateSides kind (modality text) (Pair.named a b) |> List.map _.Name
              Expect.equal (of' Candidates.Matching vision text) [ text ] "its b side"
              Expect.equal (of' Candidates.Matching text audio) [ text ] "its a side"
              Expect.equal (of' Candidates.Matching vision audio) [ vision; audio ] "neither: both"
              Expect.equal (of' Candidates.Both text audio) [ text; audio ] "both"
              Expect.equal (of' Candidates.Nobody vision text) [] "none")

          property
              "at the heads of before, distillation at one temperature adds no gradient; at the published two it does"
              (fun c ->
                  let heads = allHeads c "heads"
                  let batch = group 2 pair c "batch" c.N (columns c)
                  let replayed = group 1 (Pair.named audio text) c "replayed" 5L (columns c)
                  let moving = Training.select (Pair.members pair) heads

                  let s = { Settings.initial with Temperature = 2.0 }

                  let with' kappa past =
                      let o =
                          { Co2l.defaults with
                              Candidates = Candidates.Nobody
                              Kappa = kappa
                              KappaPast = past }

                      Co2l.pass o s moving heads batch replayed

                  let plain, published = with' 0.2 0.2, with' 0.2 0.01

                  let expected =
                      let y m = Heads.outputs heads[m] batch.Parts[if m = pair.A then "a" else "b"]
                      Contrastive.gradients (Settings.contrast s) (y pair.A) (y pair.B)

                  let gradient (g: torch.Tensor) m part = Contrastive.weightGradient g batch.Parts[part]
                  same "a" close plain.Pass.Gradients[pair.A] (gradient expected.A pair.A "a")
                  same "b" close plain.Pass.Gradients[pair.B] (gradient expected.B pair.B "b")

                  Expect.isGreaterThan
                      (Tensors.norm (published.Pass.Gradients[pair.B] - plain.Pass.Gradients[pair.B]))
                      1e-8
                      "the published temperatures differ")

          test "step 1 is vanilla, bit for bit; so are all steps with nothing distilled and no candidates" (fun () ->
              let vanilla = run firstSteps.Value 0 "vanilla[epochs=1]" |> snd
              let co2l = run firstSteps.Value 0 "co2l[epochs=1]" |> snd
              sameHeads "step 1" (Map [ 1, co2l[1] ]) (Map [ 1, vanilla[1] ])
              sameHeads "neither" (run firstSteps.Value 0 "co2l[epochs=1;lambda=0;candidates=none]" |> snd) vanilla

              // Must not: either of the two changes what is learned.
              for written in [ "co2l[epochs=1]"; "co2l[epochs=1;lambda=0]"; "co2l[epochs=1;candidates=none]" ] do
                  let other = run firstSteps.Value 0 written |> snd
                  let m = firstSteps.Value.Steps[1].Pair.A
                  Expect.isGreaterThan (Tensors.relativeDifference other.[2].[m] vanilla.[2].[m]) 1e-6 written)

          test "in place as by pure functions, in every variant" (fun () ->
              for written in [ "co2l"; "co2l[candidates=both]"; "co2l[candidates=none;lambda=3]" ] do
                  InPlaceTests.wholeRun Dtype.Float64 "epochs=1;batch=32" written

              InPlaceTests.wholeRun Dtype.Float64 "epochs=1;batch=32;scores=cosine;symmetric=on" "co2l"
              InPlaceTests.wholeRun Dtype.Float32 "epochs=1;batch=32" "co2l")

          test "kept: an equal part of the buffer for each step, and the step's heads as they were" (fun () ->
              let stream = synthetic.Value
              let plan = plan stream "co2l[epochs=1;buffer=90]"

              sceneOf stream 5 plan (fun scene ->
                  let buffer = Buffer.ofMemory scene.Memory
                  Expect.equal (buffer.Groups |> List.map (fun g -> g.Step, g.Count)) [ for step in 1..4 -> step, 22L ] "shares"
                  let moving = Training.moving scene.Tasks

                  let previous (memory: Memory) =
                      [ for name in memory.Keys do
                            if name.StartsWith "previous/" then
                                name.Substring 9 ]

                  Expect.equal (set (previous scene.Session.Kept)) (set [ for m in moving -> m.Name ]) "heads that move"

                  for m in moving do
                      let kept = scene.Session.Kept[$"previous/{m}"]
                      identical $"{m}" kept scene.Heads[m]
                      Expect.isFalse (obj.ReferenceEquals(kept, scene.Heads[m])) "a copy"

                  // Rows of each group are rows of its step, each once.
                  for g in buffer.Groups do
                      let task =
                          stream.Steps[g.Step - 1]
                          |> TrainingRows.task
                              { Stream = stream
                                Device = torch.CPU
                                Split = Split.Test
                                Settings = plan.Settings
                                Lifts = Map.empty
                                Bias = false }

                      let found = (torch.cdist (g.Parts["a"], task.A)).argmin(1L).data<int64>().ToArray()
                      Expect.equal (Array.distinct found).Length 22 "distinct rows"
                      identical "its own" (task.B.index_select (0L, torch.tensor found)) g.Parts["b"])

              let outcome, _ = runPlan stream 0 plan
              let d = stream.Steps.Head.A.Features.shape[1]
              let pairs step = if step = 1 then 90 else 90 / step * step

              for step, _, bytes in measurements "bytes_state" outcome do
                  let copies = if step = 1 then 0L else 2L * d * d
                  Expect.equal bytes (float (8L * (int64 (pairs step) * 2L * d + copies) + 8L)) $"after step {step}")

          test "it tells what was replayed and the share of distillation" (fun () ->
              let stream = firstSteps.Value
              let outcome, _ = run stream 0 "co2l[epochs=2;batch=16;buffer=60]"
              let replayed = measurements "replayed" outcome
              Expect.equal (replayed |> List.map (fun (step, _, _) -> step)) [ 2; 3 ] "nothing in step 1"

              for step, _, pairs in replayed do
                  let rows = int64 stream.Steps[step - 1].Train.Length
                  let last = rows % 16L
                  Expect.equal pairs (float (2L * (if last = 1L then rows - 1L else rows))) $"as many as trained on, step {step}"

              let shares = measurements "distillation_share" outcome
              Expect.equal (shares |> List.map (fun (step, _, _) -> step)) [ 2; 3 ] "where there is something to distil"

              for _, _, share in shares do
                  Expect.isTrue (share > 0.0 && share < 1.0) $"a share: {share}"

              let none, _ = run stream 0 "co2l[epochs=1;lambda=0]"
              Expect.all (measurements "distillation_share" none) (fun (_, _, share) -> share = 0.0) "weighted by nothing")

          test "nothing that is given is changed" (fun () ->
              sceneOf firstSteps.Value 3 (plan firstSteps.Value "co2l[epochs=1]") (fun scene ->
                  use scope = torch.NewDisposeScope()
                  let s = scene.Session
                  let task = scene.Tasks.Head

                  let given =
                      Heads.tensors scene.Heads
                      @ List.ofSeq scene.Memory.Values
                      @ List.ofSeq s.Kept.Values
                      @ Heads.tensors s.Start
                      @ [ task.A; task.B ]

                  let co2l = Co2l.co2l.Make Co2l.defaults |> Method.trainer
                  untouched "Begin" given (fun () -> co2l.Begin scene.Context scene.Memory scene.Heads scene.Tasks)
                  let settings = scene.Context.Settings

                  untouched "training and End" given (fun () ->
                      match Loop.train settings (Seed.ofInt 1) Watch.silent s with
                      | Ok trained -> co2l.End scene.Context trained.Kept (s.Finish trained).Weights scene.Tasks
                      | Error unfinished -> failtest $"{unfinished}")))

          test "hundreds of updates leave no tensors behind, in place and purely" (fun () ->
              let stream = firstSteps.Value

              sceneOf stream 2 (plan stream "co2l[epochs=1;batch=8;buffer=6]") (fun scene ->
                  use scope = torch.NewDisposeScope()

                  let settings =
                      { scene.Context.Settings with
                          Batch = BatchSize.Rows 8
                          Epochs = 8 }

                  for name, train in [ "in place", Loop.train; "purely", Loop.trainPurely ] do
                      let counts = ResizeArray()

                      let see _ _ updates =
                          counts.Add(updates, DisposeScopeManager.Statistics.TensorStatistics.ThreadTotalLiveCount)

                      Expect.isOk
                          (train settings (Seed.ofInt 0) { Watch.silent with Epoch = see } scene.Session |> Result.map ignore)
                          name

                      Expect.isGreaterThan (fst (Seq.last counts)) 200L "updates"
                      Expect.hasLength (counts |> Seq.map snd |> Seq.distinct) 1 $"{name}: as many tensors after every epoch"))

          test "old relations move less than with vanilla" (fun () ->
              let drift written =
                  run synthetic.Value 0 written |> fst |> measurements "deviation_rel" |> List.averageBy (fun (_, _, v) -> v)

              Expect.isLessThan (drift "co2l[lambda=3;kappa-past=0.2]") (drift "vanilla") "mean deviation of old scores") ]
