/// Training in place against the pure functions that say what it is.
module Cmcl.Tests.InPlaceTests

open Cmcl
open Expecto
open Cmcl.Tests.Checks
open TorchSharp

let private a, b = modality "a", modality "b"

/// Equal to this, relative to the weights: what the project promises of its loop.
let private promised (dtype: Dtype) =
    match dtype with
    | Dtype.Float32 -> 1e-6
    | Dtype.Float64 -> 1e-12

let private agree (what: string) (dtype: Dtype) (fast: Heads) (oracle: Heads) : unit =
    Expect.equal (List.ofSeq fast.Keys) (List.ofSeq oracle.Keys) $"{what}: modalities"

    for KeyValue(m, w) in oracle do
        let difference = Tensors.relativeDifference fast[m] w
        Expect.isTrue (difference <= promised dtype) $"{what}, {m}: {difference:E2}"

/// Rows of several vectors' width and a rest, as kernels meet them.
let private columns (c: Case) = c.Da + int64 (60.0 * fraction c "columns")

let private starts (dtype: Dtype) (c: Case) : Heads =
    Map [ a, normal c "wa" c.D (columns c); b, normal c "wb" c.D c.Db ] |> Heads.map (fun w -> w.``to`` dtype.Torch)

let private recipe (c: Case) (shapes: Map<Modality, Shape>) : Recipe =
    let either purpose x y = if fraction c purpose < 0.5 then x else y

    { Recipe.Clip = either "clip" None (Some 0.5)
      Optimiser = either "optimiser" Optimiser.AdamW Optimiser.Sgd
      WeightDecay = either "decay" 0.0 0.1
      Exempt = either "exempt" 0L 1L
      LearningRate = 0.03
      Schedule = Schedule.Linear
      Updates = 12L
      Shapes = shapes }

/// One of each kind for the two modalities, the second left free at times.
let private shapes (dtype: Dtype) (c: Case) (start: Heads) : (string * Map<Modality, Shape>) list =
    let uniform purpose (like: torch.Tensor) = (normal c purpose like.shape[0] like.shape[1]).sigmoid().``to`` dtype.Torch

    let part purpose size = int64 (fraction c purpose * float (size + 1L))
    let of' make = Map [ a, make "a" start[a]; b, make "b" start[b] ]

    [ "free", Map.empty
      "block", of' (fun m w -> Shape.Block(part $"rows {m}" w.shape[0], part $"columns {m}" w.shape[1]))
      "factor", Map [ a, Shape.Factor(uniform "factor" start[a]) ]
      "ellipsoid", of' (fun m w -> Shape.Ellipsoid(uniform $"importance {m}" w, 0.05 * fraction c $"budget {m}"))
      "clears", Map [ a, Shape.Ellipsoid((uniform "importance" start[a]).gt(number 0.5).``to`` dtype.Torch, 0.0) ] ]

/// Gradients of the i-th update; now and then only of one modality.
let private gradients (c: Case) (i: int) (start: Heads) : Heads =
    start
    |> Map.filter (fun m _ -> m = a || i % 3 <> 0)
    |> Map.map (fun m w -> (normal c $"g {i} {m}" w.shape[0] w.shape[1]).``to`` w.dtype)

let private purely (r: Recipe) (c: Case) (start: Heads) : Heads =
    let transform = Rule.transform start (Rule.Recipe r)

    let folder (weights: Heads, state) i =
        let struct (updates, state) = transform.Update state (gradients c i start) weights
        Heads.replace (updates |> Map.map (fun m u -> weights[m] .+ u)) weights, state

    List.fold folder (start, transform.Init start) [ 1..12 ] |> fst

let private inPlace (fused: bool) (r: Recipe) (c: Case) (start: Heads) : Heads =
    let descent = InPlace(r, start, fused, None)

    for i in 1..12 do
        descent.Apply(gradients c i start, 0.0)

    descent.Weights

/// Every step of a run, trained in place and purely from the same start.
let wholeRun (dtype: Dtype) (options: string) (written: string) : unit =
    let set config (option: string) =
        let parts = option.Split '='
        Config.set parts[0] parts[1] config

    let plan = plan synthetic.Value (options.Split ';' |> Array.fold set (Config.named written)).Label
    let settings = { plan.Settings with Dtype = dtype }

    let mutable steps = 0

    let begin' (scene: Scene) =
        let train loop : Heads =
            match loop settings (Seed.ofInt 3) Watch.silent scene.Session with
            | Ok(trained: Trained) -> trained.Weights
            | Error epoch -> failtest $"{written} diverged in epoch {epoch}"

        use scope = torch.NewDisposeScope()
        agree $"{written}, {dtype}, step {scene.Step.Index}" dtype (train Loop.train) (train Loop.trainPurely)
        steps <- steps + 1
        None

    Train.run synthetic.Value torch.CPU Split.Test 0 { Observer.silent with Begin = begin' } { plan with Settings = settings }
    |> Check.get
    |> ignore

    Expect.equal steps (if plan.Method.Curriculum = Curriculum.AllAtOnce then 1 else 6) "steps"

let private session (d: int64) (rows: int64) : Settings * Session =
    let settings =
        { Settings.initial with
            Dtype = Dtype.Float64
            Batch = BatchSize.Rows 8
            Epochs = int (8000L / rows) }

    let random purpose = Seed.normal [ rows; d ] (Seed.ofInt 1 |> Seed.split purpose)

    let task = Task.ofPair 1 "step" pair (random "a") (random "b")

    let heads = Heads.identity Dtype.Float64 torch.CPU d [ pair.A, d; pair.B, d ]

    let context =
        { Settings = settings
          Device = torch.CPU
          Seed = Seed.ofInt 0
          Initial = heads
          Updates = Loop.updates settings [ rows ]
          Old = []
          Remaining = 1 }

    settings, Training.plainSession context Map.empty heads [ task ]

let tests =
    testList
        "In place"
        [ for dtype in [ Dtype.Float32; Dtype.Float64 ] do
              for name, fused in [ "in one pass", true; "by tensors", false ] do
                  property $"{name}, {dtype}: the chain of pure transforms" (fun c ->
                      let start = starts dtype c

                      for shape, shapes in shapes dtype c start do
                          let r = recipe c shapes

                          untouched shape (Heads.tensors start) (fun () ->
                              agree $"{shape} {r.Optimiser}" dtype (inPlace fused r c start) (purely r c start)))

          property "a gradient of another type or layout is read right, one of another shape refused" (fun c ->
              let start = starts Dtype.Float32 c
              let r = recipe c Map.empty
              let g = normal c "g" c.D (columns c)

              let once (g: torch.Tensor) =
                  let descent = InPlace(r, start, true, None)
                  descent.Apply(Map [ a, g ], 0.0)
                  descent.Weights[a]

              let plain = once (g.``to`` torch.float32)
              identical "float64" (once g) plain
              identical "by columns" (once ((g.``to`` torch.float32).t().contiguous().t())) plain
              Expect.isTrue ((faultOf (fun () -> once (g.narrow (0L, 0L, c.D - 1L)))).Message.Contains "gradient of a") "shape")

          mustFail "a recipe without its decay is told apart" (fun c ->
              let start = starts Dtype.Float64 c
              let r = recipe c Map.empty
              agree "decay" Dtype.Float64 (inPlace true { r with WeightDecay = 0.0 } c start) (purely r c start))

          property "what is left out of a gradient counts for clipping" (fun c ->
              let start = starts Dtype.Float64 c
              let block = Shape.Block(c.D, columns c - 1L)

              let r =
                  { recipe c (Map [ a, block ]) with
                      Clip = Some 0.5
                      Exempt = 0L }

              let whole = normal c "g" c.D (columns c)
              let inside = whole.narrow (1L, 0L, columns c - 1L)
              let outside = whole.clone ()
              outside.narrow(1L, 0L, columns c - 1L).zero_() |> ignore

              let once (g: torch.Tensor) rest =
                  let descent = InPlace(r, start, true, None)
                  descent.Apply(Map [ a, g ], rest)
                  descent.Weights

              agree "left out" Dtype.Float64 (once outside (Tensors.norm inside ** 2.0)) (once whole 0.0)
              let transform = Rule.transform start (Rule.Recipe r)
              let struct (updates, _) = transform.Update (transform.Init start) (Map [ a, whole ]) start
              agree "the chain" Dtype.Float64 (once whole 0.0) (Map.add a (start[a] .+ updates[a]) start))

          test "whole steps of every method that follows a recipe, float64" (fun () ->
              for written in
                  [ "vanilla"
                    "joint"
                    "dns"
                    "dns[place=gradient]"
                    "dns[place=update]"
                    "dns[exact=on]"
                    "dns[sides=input]"
                    "dns[free-basis=shared]"
                    "dns[protect=product]"
                    "dns-soft"
                    "dns-trust"
                    "eigenbasis-only" ] do
                  wholeRun Dtype.Float64 "epochs=2;batch=32" written

              // One way, the gradient of b's bias is rounding, which AdamW makes as large as any.
              wholeRun Dtype.Float64 "epochs=2;batch=32;symmetric=on" "reference")

          test "and in single precision" (fun () ->
              for written in [ "vanilla"; "dns"; "dns[free-basis=shared]"; "dns-soft"; "dns-trust" ] do
                  wholeRun Dtype.Float32 "epochs=2;batch=32" written)

          test "with cosine scores, both ways, by gradient descent, without clipping" (fun () ->
              for options in
                  [ "epochs=2;batch=32;scores=cosine;symmetric=on"
                    "epochs=2;batch=32;optimizer=sgd;lr=1e-2"
                    "epochs=2;batch=all;clip=off;decay=cosine" ] do
                  wholeRun Dtype.Float64 options "dns")

          test "with large blocks left out of the products" (fun () ->
              let w = torch.empty (64L, 64L)
              Expect.isTrue (Stepper.pays 4L w 40L 40L) "as in the later steps"
              Expect.isFalse (Stepper.pays 4L w 20L 20L) "not in the earlier ones"

              for dtype in [ Dtype.Float32; Dtype.Float64 ] do
                  for written in [ "dns"; "dns[sides=input]"; "dns[free-basis=shared]" ] do
                      wholeRun dtype "epochs=1;batch=4;clip=1e-2" written)

          test "a thousand updates take no more memory than fifty" (fun () ->
              let settings, session = session 256L 800L
              let live () = DisposeScopeManager.Statistics.TensorStatistics.ThreadTotalLiveCount
              let train watch = Loop.train settings (Seed.ofInt 0) watch session |> Result.map ignore
              let counts = ResizeArray()

              let most =
                  taken (fun () ->
                      Expect.isOk
                          (train
                              { Watch.silent with
                                  Epoch = fun _ _ updates -> counts.Add(updates, live ()) })
                          "trained")

              Expect.equal (Seq.last counts |> fst) 1000L "updates"
              Expect.hasLength (counts |> Seq.map snd |> Seq.distinct) 1 "as many tensors after every epoch"
              let bound = 96L <<< 20
              Expect.isLessThan most bound "memory"

              // One weight kept from each update shows.
              let kept =
                  taken (fun () ->
                      let kept = ResizeArray<torch.Tensor>()

                      train
                          { Watch.silent with
                              Update = Some(fun u -> kept.Add(u.After[pair.A].clone().DetachFromDisposeScope())) }
                      |> ignore

                      for w in kept do
                          w.Dispose())

              Expect.isGreaterThan kept bound "a leak is seen")

          test "what DNS keeps is a matrix of d² numbers for each modality and partner" (fun () ->
              let stream = synthetic.Value
              let state = measurements "bytes_state" (fst (run stream 0 "dns"))
              Expect.hasLength state stream.Steps.Length "after every step"

              for step, _, bytes in state do
                  let sides =
                      stream.Steps
                      |> List.filter (fun s -> s.Index <= step)
                      |> List.collect (fun s -> [ s.Pair.A, s.Pair.B; s.Pair.B, s.Pair.A ])
                      |> List.distinct

                  let d = stream.Steps.Head.A.Features.shape[1]
                  Expect.equal bytes (float (int64 sides.Length * (8L * d * d + 8L))) $"after step {step}") ]
