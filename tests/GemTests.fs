module Cmcl.Tests.GemTests

open Cmcl
open Expecto
open Cmcl.Tests.Checks
open TorchSharp

// ---- the small quadratic programme -------------------------------------------------------------------------------

/// Solves A x = b by elimination, knowing nothing of what is tested.
let private eliminate (a: float[,]) (b: float[]) : float[] =
    let n = b.Length
    let a, b = Array2D.copy a, Array.copy b

    for i in 0 .. n - 1 do
        let pivot = [ i .. n - 1 ] |> List.maxBy (fun r -> abs a[r, i])

        for j in 0 .. n - 1 do
            let kept = a[i, j]
            a[i, j] <- a[pivot, j]
            a[pivot, j] <- kept

        let kept = b[i]
        b[i] <- b[pivot]
        b[pivot] <- kept

        for r in i + 1 .. n - 1 do
            let factor = a[r, i] / a[i, i]

            for j in i .. n - 1 do
                a[r, j] <- a[r, j] - factor * a[i, j]

            b[r] <- b[r] - factor * b[i]

    let x = Array.zeroCreate n

    for i in n - 1 .. -1 .. 0 do
        x[i] <- (b[i] - Seq.sum (seq { for j in i + 1 .. n - 1 -> a[i, j] * x[j] })) / a[i, i]

    x

let private value (h: float[,]) (c: float[]) (v: float[]) : float =
    Seq.sum (
        seq {
            for i in 0 .. c.Length - 1 do
                c[i] * v[i]

                for j in 0 .. c.Length - 1 do
                    0.5 * v[i] * h[i, j] * v[j]
        }
    )

/// The best of all active sets: every choice of places that are held at the bound, the others at the minimum that this leaves.
let private bruteForce (h: float[,]) (c: float[]) (lower: float) : float[] =
    let n = c.Length

    [ for chosen in 0 .. (1 <<< n) - 1 do
          let free =
              [| for i in 0 .. n - 1 do
                     if chosen >>> i &&& 1 = 1 then
                         i |]

          let held = Array.except free [| 0 .. n - 1 |]
          let right = free |> Array.map (fun i -> -c[i] - Seq.sum (seq { for j in held -> h[i, j] * lower }))
          let x = eliminate (Array2D.init free.Length free.Length (fun i j -> h[free[i], free[j]])) right
          let v = Array.create n lower
          Array.iteri (fun k i -> v[i] <- x[k]) free

          if v |> Array.forall (fun vi -> vi >= lower) then
              v ]
    |> List.minBy (value h c)

/// K + εI of t vectors in p dimensions, the vectors dependent where p < t, and a linear part.
let private programme (case: Case) (ridge: float) : float[,] * float[] =
    let t = int (min case.N 6L)
    let rows = normal case "rows" (int64 t) case.D
    let gram = values (rows.mm (rows.t ()))
    let c = values (rows.mm (normal case "g" case.D 1L)) |> Array.map Array.head
    Array2D.init t t (fun i j -> gram[i][j] + (if i = j then ridge else 0.0)), c

let private scale (h: float[,]) (c: float[]) (v: float[]) : float =
    Seq.max (Seq.map abs c) + (Seq.max (Seq.map abs (Seq.cast<float> h)) * Seq.max (Seq.append [ 0.0 ] (Seq.map abs v)))

// ---- gradients ---------------------------------------------------------------------------------------------------

let private dot (a: Heads) (b: Heads) : float =
    Seq.sum (
        seq {
            for KeyValue(m, x) in a do
                match Map.tryFind m b with
                | Some y -> item ((x * y).sum())
                | None -> ()
        }
    )

let private times (s: float) (g: Heads) : Heads = Heads.map (fun t -> t * number s) g

let private agree (what: string) (tolerance: float) (one: Heads) (other: Heads) : unit =
    Expect.equal (List.ofSeq one.Keys) (List.ofSeq other.Keys) $"{what}: heads"

    for KeyValue(m, t) in one do
        same $"{what}, {m}" tolerance t other[m]

/// Old gradients, now and then of one head only, and one that violates the first of them.
let private gradients (c: Case) : Heads list * Heads =
    let old =
        [ for k in 1 .. int (1L + c.N % 4L) ->
              heads c $"old {k}" |> Map.filter (fun m _ -> m = pair.A || fraction c $"whole {k}" < 0.7) ]

    let g = heads c "g"
    let first = dot old.Head g / dot old.Head old.Head
    let against = (if first > 0.0 then -2.0 * first else 0.0) - 0.1

    old,
    g
    |> Map.map (fun m t -> Map.tryFind m old.Head |> Option.map (fun o -> t .+ o * number against) |> Option.defaultValue t)

// ---- sessions ----------------------------------------------------------------------------------------------------

let private settings (c: Case) : Settings =
    { Settings.initial with
        Dtype = Dtype.Float64
        Temperature = 0.5 + fraction c "temperature"
        Scoring = if fraction c "scoring" < 0.5 then Scoring.Raw else Scoring.Cosine
        Symmetric = fraction c "symmetric" < 0.5 }

let private options (c: Case) : Gem.Options =
    { Place = Place.Gradient
      Margin = if fraction c "margin" < 0.5 then 0.0 else fraction c "how much"
      PerStep = 5 }

let private all = [ vision; text; audio; depth ] |> List.map modality

let private everyHead (c: Case) : Heads = Map [ for m in all -> m, normal c $"w {m}" c.D c.Da ]

let private task (c: Case) (i: int) (p: Pair) : Task =
    Task.ofPair i $"step-{i}" p (normal c $"xa {i}" c.N c.Da) (normal c $"xb {i}" c.N c.Da)

let private batch (c: Case) (t: Task) : Batch = Task.batch 0 (Tensors.range torch.CPU 0L t.Count) 1 (draw c "batch") t

/// The memory after steps of these pairs, then a step of vision and text.
let private steps (c: Case) (s: Settings) (o: Gem.Options) (pairs: Pair list) : Memory * Session =
    let gem = Method.trainer (Gem.gem.Make o)

    let memory =
        (Map.empty, List.indexed pairs)
        ||> List.fold (fun memory (i, p) -> gem.End (context s) memory (everyHead c) [ task c (i + 1) p ])

    memory, gem.Begin (context s) memory (everyHead c) [ task c 9 pair ]

/// ∂L/∂W by autograd of a pair's rows for some heads, zero for those that are not the pair's.
let private slopes (s: Settings) (wanted: Modality list) (heads: Heads) (p: Pair) (a: torch.Tensor) (b: torch.Tensor) : Heads =
    let leaves = heads |> Heads.map (fun w -> w.detach().clone().requires_grad_ true)
    let loss = Contrastive.loss (Settings.contrast s) (a.mm (leaves[p.A].t())) (b.mm (leaves[p.B].t()))
    // So that every head is in it.
    let all = Heads.tensors leaves |> List.fold (fun sum w -> sum .+ w.sum () * number 0.0) loss
    Seq.zip wanted (torch.autograd.grad (ResizeArray [ all ], ResizeArray [ for m in wanted -> leaves[m] ])) |> Map

let private autograd (s: Settings) (heads: Heads) = slopes s (Pair.members pair) heads

let private pairs = [ pair; Pair.named audio text; Pair.named text vision; Pair.named audio depth; Pair.named vision depth ]

let private stream (second: string * string) : Stream =
    let rows purpose = Seed.normal [ 24L; 6L ] (Seed.ofInt 5 |> Seed.split purpose) |> Alignment.normalise

    streamOf [ vision, text, rows "1a", rows "1b"; fst second, snd second, rows "2a", rows "2b" ]

/// ⟨u, g_k⟩ of every update of a run from its second step on, beside their lengths; g_k by autograd at the weights before it.
let private rises (written: string) : float list =
    let found = ResizeArray()

    let begin' (scene: Scene) =
        let s = scene.Context.Settings
        let groups = (Buffer.ofMemory scene.Memory).Groups

        let watch (u: Update) =
            use scope = torch.NewDisposeScope()
            let change = u.After |> Map.map (fun m w -> w - u.Before[m])
            let now = Heads.replace u.Before scene.Heads

            for g in groups do
                let shared = Pair.members g.Pair |> List.filter change.ContainsKey

                if not shared.IsEmpty then
                    let old = slopes s shared now g.Pair g.Parts["a"] g.Parts["b"]
                    found.Add(dot change old / sqrt (dot change change * dot old old))

        if scene.Step.Index >= 2 then Some watch else None

    let p = plan synthetic.Value written
    let own = Entry.own<Gem.Options> p.Entry |> Option.defaultValue Gem.defaults
    // What vanilla's memory lacks GEM's has, so that both are measured against the same kept pairs.
    let keeping = p.Method |> Method.ending (Gem.gem.Make own |> Method.trainer).End

    let first =
        { synthetic.Value with
            Steps = List.take 3 synthetic.Value.Steps }

    Train.run first torch.CPU Split.Test 0 { Observer.silent with Begin = begin' } { p with Method = keeping }
    |> Check.get
    |> ignore

    List.ofSeq found

let tests =
    testList
        "Gem"
        [ property "the small quadratic programme: the best of all active sets, and no slope left" (fun case ->
              for lower in [ 0.0; fraction case "lower" ] do
                  let h, c = programme case 1e-3
                  let v = Nonnegative.minimise h c lower
                  let best = bruteForce h c lower
                  Expect.isTrue (v |> Array.forall (fun vi -> vi >= lower)) "in bounds"
                  Array.iteri2 (fun i a b -> near $"place {i}" 1e-8 a b) v best
                  vanishes "slopes" 1e-10 (Nonnegative.residual h c lower v) (scale h c v))

          property "its minimum is found where the vectors depend on each other, too" (fun case ->
              let h, c = programme { case with N = 6L; D = 2L } 1e-9
              let v = Nonnegative.minimise h c 0.0
              vanishes "slopes" 1e-8 (Nonnegative.residual h c 0.0 v) (scale h c v))

          mustFail "the minimum without bounds, cut at zero, is another" (fun case ->
              let h, c = programme case 1e-3
              let v = eliminate h (Array.map (~-) c) |> Array.map (max 0.0)
              vanishes "slopes" 1e-8 (Nonnegative.residual h c 0.0 v) (scale h c v))

          test "numbers that are not finite end it" (fun () ->
              for bad in [ nan; infinity; -infinity ] do
                  Nonnegative.minimise (array2D [ [ 1.0; bad ]; [ bad; 1.0 ] ]) [| -1.0; -1.0 |] 0.0 |> ignore
                  Nonnegative.minimise (array2D [ [ 1.0; 0.0 ]; [ 0.0; 1.0 ] ]) [| bad; -1.0 |] 0.0 |> ignore

              Expect.equal (Nonnegative.residual (array2D [ [ 1.0 ] ]) [| 0.0 |] 0.5 [| 0.0 |]) infinity "out of bounds")

          property "no old gradient is gone against, and nothing closer to the gradient does so" (fun c ->
              let old, g = gradients c
              let projected = Gem.project 1e-12 0.0 old g |> Option.get
              let size = sqrt (dot g g)

              for k in old do
                  vanishes "against" 1e-8 (max 0.0 -(dot projected k)) (size * sqrt (dot k k))

              // For any other such direction h, moving towards it leads away from g.
              let change = projected |> Map.map (fun m t -> t - g[m])
              let other = Gem.project 1e-12 0.0 old (heads c "another") |> Option.defaultValue (heads c "another")
              let towards = other |> Map.map (fun m t -> t - projected[m])
              vanishes "closer" 1e-8 (max 0.0 -(dot change towards)) (dot g g + dot other other))

          mustFail "without the projection an old gradient is gone against" (fun c ->
              let old, g = gradients c

              for k in old do
                  Expect.isGreaterThanOrEqual (dot g k) 0.0 "against")

          property "a gradient that goes against none is not touched" (fun c ->
              let old, g = gradients c
              let along = old |> List.filter (fun k -> dot g k >= 0.0)
              Expect.isNone (Gem.project 1e-3 0.5 along g) "left as it is"
              Expect.isNone (Gem.project 1e-3 0.5 [] g) "nothing old"
              Expect.isNone (Gem.project 1e-3 0.5 [ Map [ modality audio, normal c "audio" c.D c.Da ] ] g) "no head in common")

          property "one violation: what is left of it is the share, and a margin is a lower bound" (fun c ->
              let old, g = gradients c
              let k = old.Head
              let along, square = dot g k, dot k k
              let left = dot (Gem.project 1e-3 0.0 [ k ] g |> Option.get) k
              near "left" close left (along * 1e-3 / 1.001)

              for margin in [ 0.1; 10.0 ] do
                  let v = max margin (-along / (1.001 * square))

                  let expected =
                      g
                      |> Map.map (fun m t -> Map.tryFind m k |> Option.map (fun x -> t .+ x * number v) |> Option.defaultValue t)

                  agree $"margin {margin}" close (Gem.project 1e-3 margin [ k ] g |> Option.get) expected)

          property "scales of losses do not matter" (fun c ->
              let old, g = gradients c
              let margin = fraction c "margin"
              let s = 10.0 ** (6.0 * fraction c "scale" - 3.0)
              let project margin old g = Gem.project 1e-3 margin old g |> Option.get
              let plain = project margin old g
              agree "of all" 1e-9 (times (1.0 / s) (project margin (List.map (times s) old) (times s g))) plain
              agree "of the gradient and the margin" 1e-9 (times (1.0 / s) (project (margin * s) old (times s g))) plain
              // Of old gradients each its own, where no margin is in the way.
              let each = old |> List.mapi (fun i k -> times (s ** float i) k)
              agree "of old ones" 1e-8 (project 0.0 each g) (project 0.0 old g))

          property "a projection changes nothing that it is given, and leaves its result alone" (fun c ->
              let old, g = gradients c

              untouched "project" (Heads.tensors g @ List.collect Heads.tensors old) (fun () ->
                  let mutable made = 0L
                  let left = leaked (fun () -> made <- int64 (Gem.project 1e-3 0.5 old g |> Option.get).Count)
                  Expect.equal left made "tensors"
                  Expect.equal (leaked (fun () -> Gem.project 1e-3 0.5 [] g |> ignore)) 0L "none"))

          property "the direction, against autograd and the best of all active sets" (fun c ->
              let s, o = settings c, options c
              let memory, session = steps c s o pairs
              let b = batch c (task c 9 pair)
              let w = session.Start
              let struct (pass, kept) = Direction.step session.Direction session.Kept w b
              let g = autograd s (everyHead c) pair b.A b.B

              let old =
                  [ for group in (Buffer.ofMemory memory).Groups do
                        if group.Pair <> Pair.named audio depth then
                            autograd s (everyHead c) group.Pair group.Parts["a"] group.Parts["b"] ]

              let along = old |> List.map (dot g) |> Array.ofList

              let expected =
                  if along |> Array.forall (fun x -> x >= 0.0) then
                      g
                  else
                      let h = Array2D.init old.Length old.Length (fun i j -> dot old[i] old[j] * (if i = j then 1.001 else 1.0))

                      (g, List.zip old (List.ofArray (bruteForce h along o.Margin)))
                      ||> List.fold (fun sum (k, v) -> sum |> Map.map (fun m t -> t .+ k[m] * number v))

              // A pair that is all but learnt leaves 1 − p, rounding at the size of one: a short ‖g_k‖ is right to ε/‖g_k‖ at best.
              let shortest = old |> List.map (fun k -> sqrt (dot k k)) |> List.min
              agree "gradients" (max 1e-8 (1e-12 / shortest)) pass.Gradients expected

              near
                  "the batch's loss"
                  close
                  (item pass.Loss)
                  (item (Contrastive.loss (Settings.contrast s) (b.A.mm (w[pair.A].t())) (b.B.mm (w[pair.B].t()))))

              Expect.equal
                  (RunningSum.sum "replayed" kept)
                  (Some(4.0 * float (min c.N 5L)))
                  "pairs of four steps; one shares no head"

              let violated = if along |> Array.exists (fun x -> x < 0.0) then 1.0 else 0.0

              Expect.equal
                  ((Gem.gem.Make o).Diagnostics kept)
                  [ "replayed", 4.0 * float (min c.N 5L); "violated", violated ]
                  "told")

          property "of each step as many pairs as are asked for, and nothing given is changed" (fun c ->
              let s = settings c
              let t = task c 1 pair

              untouched "a step" (t.A :: t.B :: Heads.tensors (everyHead c)) (fun () ->
                  let memory, session = steps c s (options c) pairs

                  untouched "the next" (List.ofSeq memory.Values) (fun () ->
                      Direction.step session.Direction session.Kept session.Start (batch c t))

                  let groups = (Buffer.ofMemory memory).Groups
                  Expect.equal (groups |> List.map (fun g -> g.Step, g.Pair)) (pairs |> List.mapi (fun i p -> i + 1, p)) "steps"

                  for g in groups do
                      Expect.equal g.Count (min c.N 5L) "pairs"))

          test "steps that share no modality leave each other alone: fine-tuning, bit for bit" (fun () ->
              let s = stream (audio, depth)
              let common = "epochs=3;batch=8;lr=1e-2"

              for place in [ "gradient"; "update" ] do
                  let outcome, heads = run s 3 $"gem[{common};place={place}]"
                  let _, plain = run s 3 $"vanilla[{common}]"

                  for KeyValue(step, h) in plain do
                      for KeyValue(m, w) in h do
                          identical $"{place}: {m} after step {step}" heads.[step].[m] w

                  Expect.all (measurements "replayed" outcome) (fun (_, _, n) -> n = 0.0) "nothing is replayed"
                  Expect.all (measurements "violated" outcome) (fun (_, _, n) -> n = 0.0) "or violated")

          test "steps that share one do not" (fun () ->
              let common = "epochs=3;batch=8;lr=1e-2;scores=cosine;temperature=0.1"

              for place in [ "gradient"; "update" ] do
                  let s = stream (audio, text)
                  let outcome, heads = run s 3 $"gem[{common};place={place}]"
                  let _, plain = run s 3 $"vanilla[{common}]"
                  let m = modality text
                  Expect.isGreaterThan (Tensors.relativeDifference heads.[2].[m] plain.[2].[m]) 1e-6 place
                  Expect.equal (measurements "replayed" outcome) [ 1, 1, 0.0; 2, 2, 9.0 * 24.0 ] "of nine updates"

                  if place = "gradient" then
                      let share = measurements "violated" outcome |> List.map (fun (_, _, v) -> v)
                      Expect.isTrue (share[0] = 0.0 && share[1] > 0.0 && share[1] <= 1.0) "in some updates"
                  else
                      Expect.isEmpty (measurements "violated" outcome) "of the update it is not known")

          test "the update raises no old loss, to first order" (fun () ->
              let common = "epochs=1;batch=64;lr=1e-2"

              for options in [ ""; ";margin=0"; ";optimizer=sgd"; ";scores=cosine;temperature=0.1;symmetric=on" ] do
                  for rise in rises $"gem[place=update;{common}{options}]" do
                      Expect.isLessThan rise 2e-6 options

              // Of fine-tuning it does, and of the gradient's projection, which the optimizer bends.
              let hard = common + ";scores=cosine;temperature=0.1;symmetric=on"
              Expect.isGreaterThan (List.max (rises $"vanilla[{hard}]")) 0.02 "vanilla"
              Expect.isGreaterThan (List.max (rises $"gem[{hard};margin=0]")) 0.01 "place=gradient")

          test "by plain descent without decay the gradient's place does too, but for the share" (fun () ->
              for rise in rises "gem[epochs=1;batch=64;lr=1e-2;optimizer=sgd;weight-decay=0;margin=0]" do
                  Expect.isLessThan rise 1e-3 "first order"

              Expect.isGreaterThan
                  (List.max (rises "vanilla[epochs=1;batch=64;lr=1e-2;optimizer=sgd;weight-decay=0]"))
                  0.01
                  "vanilla")

          test "in the eigenbasis there is none" (fun () ->
              match Plan.resolve synthetic.Value.Preset [] [ "gem[place=eigenbasis]" ] with
              | Error [ Fault.Contradiction(what, _) ] -> Expect.stringContains what "eigenbasis" "says so"
              | other -> failtest $"{other}")

          test "what it keeps is so many pairs of every step" (fun () ->
              let outcome, _ = run synthetic.Value 0 "gem[epochs=1;per-step=20]"
              let d = synthetic.Value.Steps.Head.A.Features.shape[1]

              for step, _, bytes in measurements "bytes_state" outcome do
                  Expect.equal bytes (float (int64 step * 2L * 20L * 8L * d + 8L)) $"after step {step}")

          test "in place it is the pure functions" (fun () ->
              InPlaceTests.wholeRun Dtype.Float64 "epochs=1;batch=64;lr=1e-2;per-step=40" "gem"
              InPlaceTests.wholeRun Dtype.Float64 "epochs=1;batch=64;scores=cosine;symmetric=on;per-step=40" "gem"
              InPlaceTests.wholeRun Dtype.Float64 "epochs=1;batch=64;per-step=40" "gem[place=update]")

          test "hundreds of updates leave nothing behind" (fun () ->
              let c = { Seed = 1; N = 12L; D = 5L; Da = 5L; Db = 5L; Rank = 2L }

              for place in [ Place.Gradient; Place.Update ] do
                  let s = { settings c with Batch = BatchSize.Rows 4; Epochs = 100 }

                  let _, session = steps c s { options c with Place = place } pairs
                  let counts = ResizeArray()
                  let live () = DisposeScopeManager.Statistics.TensorStatistics.ThreadTotalLiveCount

                  let watch =
                      { Watch.silent with
                          Epoch = (fun _ _ updates -> counts.Add(updates, live ())) }

                  let before = live ()
                  let trained = Loop.train s (Seed.ofInt 0) watch session
                  Expect.equal (fst (Seq.last counts)) 300L "updates"
                  Expect.hasLength (counts |> Seq.skip 1 |> Seq.map snd |> Seq.distinct) 1 $"{place}: as many after every epoch"

                  match trained with
                  | Error unfinished -> failtest $"{unfinished}"
                  | Ok trained ->
                      let fresh = trained.Kept |> Map.filter (fun name _ -> name.StartsWith "tally/")
                      Expect.equal (live () - before) (int64 (trained.Weights.Count + fresh.Count)) $"{place}: weights and sums") ]
