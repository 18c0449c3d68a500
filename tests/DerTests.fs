module Cmcl.Tests.DerTests

open Cmcl
open Expecto
open Cmcl.Tests.Checks
open TorchSharp

let private variants: (Distill * Reduction) list =
    [ for distill in [ Distill.Outputs; Distill.Scores ] do
          for reduction in [ Reduction.Mean; Reduction.Sum ] -> distill, reduction ]

let private options (c: Case) (distill, reduction) : Der.Options =
    { Der.defaults with
        Alpha = 0.1 + fraction c "alpha"
        Beta = 0.1 + fraction c "beta"
        Distill = distill
        Reduction = reduction }

let private settings (c: Case) : Settings =
    { Settings.initial with
        Dtype = Dtype.Float64
        Temperature = 0.5 + fraction c "temperature"
        Scoring = if fraction c "scoring" < 0.5 then Scoring.Raw else Scoring.Cosine
        Symmetric = fraction c "symmetric" < 0.5 }

let private everyHead (c: Case) : Heads =
    Map [ for m in [ vision; text; audio; depth ] -> modality m, normal c $"w {m}" c.D c.Da ]

let private task (c: Case) : Task = Task.ofPair 2 "step-2" pair (normal c "xa" c.N c.Da) (normal c "xb" c.N c.Da)

let private batch (c: Case) : Batch = task c |> Task.batch 0 (Tensors.range torch.CPU 0L c.N) 1 (draw c "batch")

/// At most as many pairs of an earlier step as a batch has, so that a draw is all of them.
let private group (c: Case) (p: Pair) : Group =
    let rows = min c.N (2L + c.Rank)
    let outputs purpose = normal c purpose rows c.D
    Buffer.group 1 p (normal c "old a" rows c.Da) (normal c "old b" rows c.Da) [ "za", outputs "za"; "zb", outputs "zb" ]

/// Both heads of the step, one on either side, its pair the other way round, none.
let private pairs =
    [ pair; Pair.named vision audio; Pair.named audio vision; Pair.named text vision; Pair.named audio depth ]

let private begun (make: Der.Options -> Method) (c: Case) (s: Settings) (o: Der.Options) (memory: Memory) : Session =
    (Method.trainer (make o)).Begin (context s) memory (everyHead c) [ task c ]

let private stepped
    (make: Der.Options -> Method)
    (c: Case)
    (s: Settings)
    (o: Der.Options)
    (memory: Memory)
    : Session * Pass * Memory =
    let session = begun make c s o memory
    let struct (pass, kept) = Direction.step session.Direction session.Kept session.Start (batch c)
    session, pass, kept

let private holding (groups: Group list) : Memory =
    Buffer.toMemory { Seen = groups |> List.sumBy _.Count; Groups = groups } Map.empty

/// Unit rows where scores are cosines.
let private prepared (s: Settings) (y: torch.Tensor) : torch.Tensor =
    match s.Scoring with
    | Scoring.Raw -> y
    | Scoring.Cosine -> y / y.norm (1, true)

/// D by autograd's operations, entry by entry as it is written.
let private distance
    (o: Der.Options)
    (s: Settings)
    (ya: torch.Tensor)
    (yb: torch.Tensor)
    (oldA: torch.Tensor)
    (oldB: torch.Tensor)
    : torch.Tensor =
    let change =
        match o.Distill with
        | Distill.Outputs -> torch.cat ([| ya; yb |], 1L) - torch.cat ([| oldA; oldB |], 1L)
        | Distill.Scores ->
            let scores a b = (prepared s a).mm((prepared s b).t()) / number s.Temperature
            scores ya yb - scores oldA oldB

    match o.Reduction with
    | Reduction.Mean -> change.squared().mean()
    | Reduction.Sum -> change.squared().sum(1L).mean()

/// Loss and gradients of the moving heads by autograd: InfoNCE, α D and β InfoNCE of the replayed group.
let private autograd (c: Case) (s: Settings) (o: Der.Options) (g: Group) : float * Heads =
    let moving = everyHead c |> Map.filter (fun m _ -> List.contains m (Pair.members pair))
    let leaves = moving |> Heads.map (fun w -> w.detach().clone().requires_grad_ true)
    let all = Heads.replace leaves (everyHead c)
    let outputs (p: Pair) (a: torch.Tensor) (b: torch.Tensor) = a.mm (all[p.A].t()), b.mm (all[p.B].t())
    let b = batch c
    let old = outputs g.Pair g.Parts["a"] g.Parts["b"]
    let contrast = Settings.contrast s

    let loss =
        (outputs pair b.A b.B ||> Contrastive.loss contrast)
        .+ distance o s (fst old) (snd old) g.Parts["za"] g.Parts["zb"] * number o.Alpha
        .+ (old ||> Contrastive.loss contrast) * number o.Beta

    let found = torch.autograd.grad (ResizeArray [ loss ], ResizeArray leaves.Values)
    item loss, Map(Seq.zip leaves.Keys found)

let private agree (what: string) (tolerance: float) (one: Heads) (other: Heads) : unit =
    Expect.equal (List.ofSeq one.Keys) (List.ofSeq other.Keys) $"{what}: heads"

    for KeyValue(m, t) in one do
        same $"{what}, {m}" tolerance t other[m]

let private der (o: Der.Options) : Method = Der.der.Make { o with Beta = 0.0 }

let private methods: ((Der.Options -> Method) * bool) list = [ der, false; Der.derpp.Make, true ]

let tests =
    testList
        "Der"
        [ property "the distance and its gradients, against autograd" (fun c ->
              for variant in variants do
                  let s, o = settings c, options c variant
                  let y purpose = normal c purpose c.N c.D
                  let ya, yb, oldA, oldB = y "ya", y "yb", y "old a", y "old b"
                  let leafA, leafB = ya.clone().requires_grad_ true, yb.clone().requires_grad_ true
                  let expected = distance o s leafA leafB oldA oldB
                  let found = torch.autograd.grad (ResizeArray [ expected ], ResizeArray [ leafA; leafB ])

                  untouched $"{variant}" [ ya; yb; oldA; oldB ] (fun () ->
                      let d = Der.distance o s (oldA, oldB) ya yb
                      near $"{variant}" close (item d.Loss) (item expected)
                      same $"{variant}: a" close d.A found[0]
                      same $"{variant}: b" close d.B found[1])

                  Expect.equal (leaked (fun () -> Der.distance o s (oldA, oldB) ya yb |> ignore)) 3L "its three tensors")

          property "no distance and no pull at the outputs of the time; away from them both" (fun c ->
              for variant in variants do
                  let s, o = settings c, options c variant
                  let ya, yb = normal c "ya" c.N c.D, normal c "yb" c.N c.D
                  let d = Der.distance o s (ya, yb) ya yb
                  Expect.equal (item d.Loss, Tensors.norm d.A, Tensors.norm d.B) (0.0, 0.0, 0.0) "nothing"
                  Expect.isGreaterThan (item (Der.distance o s (yb, ya) ya (yb * number 2.0)).Loss) 0.0 "something")

          property "outputs are compared as they are, also where scores are cosines" (fun c ->
              let o = options c (Distill.Outputs, Reduction.Mean)
              let s = { settings c with Scoring = Scoring.Cosine }

              let ya, yb = normal c "ya" c.N c.D, normal c "yb" c.N c.D
              Expect.isGreaterThan (item (Der.distance o s (ya, yb) (ya * number 2.0) yb).Loss) 0.0 "twice as long"
              let scores = { o with Distill = Distill.Scores }
              vanishes "of unit rows" tight (item (Der.distance scores s (ya, yb) (ya * number 2.0) yb).Loss) 1.0)

          property "loss and gradients, against autograd: both heads shared, one, none" (fun c ->
              for i, variant in List.indexed variants do
                  let p = pairs[(c.Seed + i) % pairs.Length]

                  for m, again in methods do
                      let s, o = settings c, options c variant
                      let g = group c p
                      let session, pass, kept = stepped m c s o (holding [ g ])
                      let loss, gradients = autograd c s (if again then o else { o with Beta = 0.0 }) g
                      let what = $"{(m o).Name}, {variant}, {p}"
                      near what close (item pass.Loss) loss
                      agree what close pass.Gradients gradients
                      Expect.equal (List.ofSeq pass.Gradients.Keys) (List.ofSeq session.Start.Keys) "the step's heads alone"
                      let times = if again then 2.0 else 1.0
                      Expect.equal (RunningSum.sum "replayed" kept) (Some(times * float g.Count)) "replayed")

          mustFail "without the replayed pairs' part the gradients are others" (fun c ->
              let s, o = settings c, options c (Distill.Outputs, Reduction.Sum)
              let _, pass, _ = stepped der c s o (holding [ group c pair ])
              agree "gradients" close pass.Gradients (snd (autograd c s { o with Alpha = 0.0; Beta = 0.0 } (group c pair))))

          property "a batch is offered with its outputs of before the update, and after its pass" (fun c ->
              let s = settings c

              let o =
                  { options c (Distill.Outputs, Reduction.Mean) with
                      Buffer = 100 }

              let session, pass, kept = stepped Der.derpp.Make c s o Map.empty
              let b = batch c
              let g = (Buffer.ofMemory kept).Groups |> List.exactlyOne
              Expect.equal (g.Step, g.Pair) (2, pair) "its step"
              identical "a" g.Parts["a"] b.A
              identical "b" g.Parts["b"] b.B
              same "outputs of a" tight g.Parts["za"] (b.A.mm (session.Start[pair.A].t()))
              same "outputs of b" tight g.Parts["zb"] (b.B.mm (session.Start[pair.B].t()))
              let plain = Direction.pass (Training.plain s) Map.empty session.Start b
              Expect.equal (item pass.Loss) (item plain.Loss) "nothing to replay yet"
              agree "gradients" tight pass.Gradients plain.Gradients)

          property "at insertion there is nothing to pull" (fun c ->
              for variant in variants do
                  let o = { options c variant with Buffer = 100 }
                  let session, first, kept = stepped der c (settings c) o Map.empty
                  let struct (second, _) = Direction.step session.Direction kept session.Start (batch c)
                  near "loss" tight (item second.Loss) (item first.Loss)
                  agree "gradients" close second.Gradients first.Gradients)

          property "nothing given is changed, and a step leaves its results alone" (fun c ->
              let o =
                  { options c (Distill.Scores, Reduction.Mean) with
                      Buffer = 4 }

              let memory = holding [ group c (Pair.named vision audio) ]
              let session = begun Der.derpp.Make c (settings c) o memory
              let b = batch c

              untouched "a step" (b.A :: b.B :: List.ofSeq memory.Values @ Heads.tensors session.Start) (fun () ->
                  let mutable fresh = 0L

                  let left =
                      leaked (fun () ->
                          let struct (pass, kept) = Direction.step session.Direction session.Kept session.Start b
                          let given t = memory.Values |> Seq.exists (fun k -> obj.ReferenceEquals(k, t))

                          fresh <-
                              1L + int64 pass.Gradients.Count + int64 (kept.Values |> Seq.filter (given >> not) |> Seq.length))

                  Expect.equal left fresh "tensors"))

          test "both draws are their own" (fun () ->
              let c = { Seed = 3; N = 6L; D = 4L; Da = 4L; Db = 4L; Rank = 2L }
              let rows = 60L
              let zeros = torch.zeros (rows, c.D, dtype = torch.float64)
              let g = Buffer.group 1 pair (normal c "a" rows c.Da) (normal c "b" rows c.Da) [ "za", zeros; "zb", zeros ]
              let o = options c (Distill.Outputs, Reduction.Sum)

              let part alpha beta =
                  let _, pass, _ = stepped Der.derpp.Make c (settings c) { o with Alpha = alpha; Beta = beta } (holding [ g ])
                  pass

              let plain, held, again, both = part 0.0 0.0, part 1.0 0.0, part 0.0 1.0, part 1.0 1.0

              near
                  "terms add up"
                  close
                  (item both.Loss - item plain.Loss)
                  (item held.Loss + item again.Loss - 2.0 * item plain.Loss)

              // The pairs that give the held part are found among all choices by their loss; trained again on these it would be another.
              let drawn purpose =
                  (Buffer.draw (Seed.split purpose (batch c).Seed) c.N (Buffer.ofMemory (holding [ g ])) |> Option.get).Parts["a"]

              Expect.isGreaterThan (Tensors.relativeDifference (drawn "held") (drawn "trained again")) 0.1 "other pairs")

          test "α = 0, and β = 0, is fine-tuning bit for bit, and keeps its buffer" (fun () ->
              let options = "epochs=2;batch=32"

              for written in [ $"der[alpha=0;{options}]"; $"derpp[alpha=0;beta=0;{options}]" ] do
                  EwcTests.identicalRuns written $"vanilla[{options}]"
                  let outcome, _ = run synthetic.Value 0 written
                  Expect.all (measurements "bytes_state" outcome) (fun (_, _, bytes) -> bytes > 1000.0) "a buffer"
                  Expect.all (measurements "replayed" outcome) (fun (_, _, n) -> n = 0.0) "of which nothing is replayed"
                  Expect.isEmpty (measurements "penalty_share" outcome) "and nothing held"

              EwcTests.identicalRuns $"derpp[beta=0;{options}]" $"der[{options}]")

          test "with them it is another, in every form" (fun () ->
              let last written = (run synthetic.Value 0 written |> snd)[6]
              let options = "epochs=1;batch=64;alpha=1"

              let all =
                  [ "vanilla[epochs=1;batch=64]"
                    $"der[{options}]"
                    $"der[{options};reduction=sum]"
                    $"der[{options};distill=scores]"
                    $"der[{options};distill=scores;reduction=sum]"
                    $"derpp[{options}]" ]
                  |> List.map last

              for i, one in List.indexed all do
                  for other in List.skip (i + 1) all do
                      let apart = one.Keys |> Seq.map (fun m -> Tensors.relativeDifference one[m] other[m]) |> Seq.max
                      Expect.isGreaterThan apart 1e-9 "apart")

          test "the stronger the pull, the nearer old outputs stay to what they were" (fun () ->
              let stream =
                  { synthetic.Value with
                      Steps = List.take 3 synthetic.Value.Steps }

              let drift (alpha: string) =
                  let p = plan stream $"der[alpha={alpha};reduction=sum;epochs=3;batch=32;lr=1e-3]"
                  let own = Entry.own<Der.Options> p.Entry |> Option.get
                  let mutable moved = 0.0

                  let begin' (scene: Scene) =
                      if scene.Step.Index = 3 then
                          match Loop.train p.Settings (Seed.ofInt 2) Watch.silent scene.Session with
                          | Error unfinished -> failtest $"{unfinished}"
                          | Ok trained ->
                              let heads = Heads.replace trained.Weights scene.Heads

                              for g in (Buffer.ofMemory scene.Memory).Groups do
                                  let now m part = g.Parts[part].mm(heads[m].t())

                                  let d =
                                      distance own p.Settings (now g.Pair.A "a") (now g.Pair.B "b") g.Parts["za"] g.Parts["zb"]

                                  moved <- moved + item d

                      None

                  Train.run stream torch.CPU Split.Test 0 { Observer.silent with Begin = begin' } p |> Check.get |> ignore
                  moved

              let free, some, held = drift "0", drift "10", drift "1000"
              Expect.isLessThan some free "some"
              Expect.isLessThan held (0.5 * free) "held")

          test "what it tells and keeps" (fun () ->
              let buffer = 50L
              let outcome, _ = run synthetic.Value 0 $"derpp[epochs=1;batch=32;buffer={buffer}]"
              let d = synthetic.Value.Steps.Head.A.Features.shape[1]
              let shares = measurements "penalty_share" outcome
              Expect.hasLength shares 6 "in every step, as pairs of the step itself are replayed"
              Expect.all shares (fun (_, _, share) -> share > 0.0 && share < 1.0) "a share"

              for step, _, pairs in measurements "replayed" outcome do
                  let rows = synthetic.Value.Steps[step - 1].Train.Length
                  Expect.isTrue (pairs > 0.0 && pairs <= 2.0 * float rows) "at most the batch, twice"

              for _, _, bytes in measurements "bytes_state" outcome do
                  Expect.equal bytes (float (4L * buffer * 8L * d + 8L)) "features and outputs")

          test "in place it is the pure functions" (fun () ->
              InPlaceTests.wholeRun Dtype.Float64 "epochs=1;batch=64;alpha=1" "der"
              InPlaceTests.wholeRun Dtype.Float64 "epochs=1;batch=64;alpha=1;scores=cosine;symmetric=on" "derpp[distill=scores]"
              InPlaceTests.wholeRun Dtype.Float32 "epochs=1;batch=64;alpha=1" "derpp")

          test "hundreds of updates leave nothing behind" (fun () ->
              let c = { Seed = 1; N = 12L; D = 5L; Da = 5L; Db = 5L; Rank = 2L }

              let s = { settings c with Batch = BatchSize.Rows 4; Epochs = 100 }

              let o =
                  { options c (Distill.Outputs, Reduction.Mean) with
                      Buffer = 7 }

              let session = begun Der.derpp.Make c s o (holding [ group c (Pair.named vision audio) ])
              let counts = ResizeArray()
              let live () = DisposeScopeManager.Statistics.TensorStatistics.ThreadTotalLiveCount

              let watch =
                  { Watch.silent with
                      Epoch = (fun _ _ updates -> counts.Add(updates, live ())) }

              let before = live ()

              match Loop.train s (Seed.ofInt 0) watch session with
              | Error unfinished -> failtest $"{unfinished}"
              | Ok trained ->
                  Expect.equal (fst (Seq.last counts)) 300L "updates"
                  // A batch that the reservoir lets pass leaves its parts as they are, and none to be freed with the next update.
                  let most, least = counts |> Seq.map snd |> Seq.max, counts |> Seq.map snd |> Seq.min
                  Expect.isLessThan (most - least) 20L "about as many after every epoch"
                  let given = session.Kept.Values

                  let fresh =
                      trained.Kept.Values |> Seq.filter (fun t -> given |> Seq.forall (fun g -> not (obj.ReferenceEquals(g, t))))

                  Expect.equal (live () - before) (int64 (trained.Weights.Count + Seq.length fresh)) "weights and what is kept") ]
