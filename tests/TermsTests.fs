/// Steps of several pairs over any set of modalities.
module Cmcl.Tests.TermsTests

open Cmcl
open Expecto
open Cmcl.Tests.Checks
open TorchSharp

let private v, t, a = modality vision, modality text, modality audio
let private withText = Pair.named vision text
let private ofSound = Pair.named audio text

let private widths (c: Case) = [ v, c.Da; t, c.Db; a, c.Da + 1L ]

let private heads (c: Case) : Heads = Map [ for m, columns in widths c -> m, normal c $"w {m}" c.D columns ]

/// Three modalities, two terms of different weights that share text.
let private task (c: Case) : Task =
    { Index = 1
      Name = "step"
      Rows = Map [ for m, columns in widths c -> m, RowSource.Held(normal c $"x {m}" c.N columns) ]
      Terms = [ withText, 1.0; ofSound, 0.25 + fraction c "weight" ]
      Items = None }

let private everyRow (t: Task) : Batch = t |> Task.batch 0 (Tensors.range torch.CPU 0L t.Count) 1 (Seed.ofInt 0)

let private contrast (c: Case) : Contrast =
    { Temperature = 0.5 + fraction c "temperature"
      Scoring = if fraction c "scoring" < 0.5 then Scoring.Raw else Scoring.Cosine
      Symmetric = fraction c "symmetric" < 0.5 }

let private settings (c: Case) : Settings =
    { Settings.initial with
        LearningRate = 1e-2
        // Where nothing is free a projected gradient is rounding, which Adam would blow up.
        Optimiser = Optimiser.Sgd
        Dtype = Dtype.Float64
        Epochs = 3
        Batch = BatchSize.Rows 4
        Temperature = (contrast c).Temperature
        Scoring = (contrast c).Scoring
        Symmetric = (contrast c).Symmetric }

let private context (c: Case) (heads: Heads) : Context =
    { Settings = settings c
      Device = torch.CPU
      Seed = Seed.ofInt 1
      Initial = heads
      Updates = Loop.updates (settings c) [ c.N ]
      Old = []
      Remaining = 1 }

/// Σ weight · InfoNCE as it is written, a pair crossing a bridge where it has one.
let private written (c: Case) (bridges: Map<Pair, torch.Tensor>) (weights: Heads) (t: Task) : torch.Tensor =
    [ for pair, weight in t.Terms do
          let ya, yb = Heads.outputs weights[pair.A] (t.All pair.A), Heads.outputs weights[pair.B] (t.All pair.B)

          let crossed =
              match Map.tryFind pair bridges with
              | Some q -> ya.mm q
              | None -> ya

          Contrastive.loss (contrast c) crossed yb * number weight ]
    |> List.reduce (fun x y -> x .+ y)

/// Loss and gradients of a closed direction are autograd's.
let private agrees (c: Case) (bridges: Map<Pair, torch.Tensor>) : unit =
    let task, heads = task c, heads c
    let batch = everyRow task

    let direction = Direction.Closed { Contrast = contrast c; Bridges = bridges }

    let leaves = heads |> Heads.map (fun w -> w.clone().requires_grad_ true)
    let loss = written c bridges leaves task
    let expected = torch.autograd.grad (ResizeArray [ loss ], ResizeArray leaves.Values)
    use _ = torch.no_grad ()

    untouched "a pass" (Heads.tensors heads @ List.ofSeq batch.Rows.Values) (fun () ->
        let pass = Direction.pass direction Map.empty heads batch
        near "loss" close (item pass.Loss) (item loss)
        Expect.equal (List.ofSeq pass.Gradients.Keys) (List.ofSeq leaves.Keys) "every modality"

        for m, g in Seq.zip leaves.Keys expected do
            same $"gradient of {m}" close pass.Gradients[m] g)

let private refuses (what: string) (act: unit -> unit) : unit =
    match faultOf act with
    | Fault.Contradiction _ as f -> Expect.stringContains f.Message "one pair of weight 1 was expected" what
    | other -> failtest $"{what}: {other}"

let tests =
    testList
        "Terms"
        [ property "loss and gradients of two pairs over three modalities are autograd's" (fun c -> agrees c Map.empty)

          property "under bridges, too" (fun c ->
              agrees c (Map [ withText, normal c "q" c.D c.D; ofSound, normal c "p" c.D c.D ]))

          mustFail "a weight that is left out is noticed" (fun c ->
              let t, h = task c, heads c

              let even =
                  { t with
                      Terms = t.Terms |> List.map (fun (pair, _) -> pair, 1.0) }

              near "loss" close (item (written c Map.empty h t)) (item (written c Map.empty h even)))

          property "one pair of weight one is the pair's own arithmetic, bit for bit" (fun c ->
              let task, w = Task.ofPair 1 "one" withText (normal c "a" c.N c.Da) (normal c "b" c.N c.Db), heads c

              let pass =
                  Direction.pass (Direction.Closed { Contrast = contrast c; Bridges = Map.empty }) Map.empty w (everyRow task)

              let g = Contrastive.gradients (contrast c) (Heads.outputs w[v] task.A) (Heads.outputs w[t] task.B)
              identical "loss" pass.Loss g.Loss
              identical "a" pass.Gradients[v] (Contrastive.weightGradient g.A task.A)
              identical "b" pass.Gradients[t] (Contrastive.weightGradient g.B task.B))

          property "training in place is what pure functions do" (fun c ->
              let heads = heads c
              let context = context c heads

              let o = NullSpaceOptions.defaults

              let old =
                  { task c with
                      Rows = (task { c with Seed = c.Seed + 1 }).Rows }

              let memory = History.add o.Partner o.Centring heads [ old ] Map.empty

              for method in [ Plain.vanilla; NullSpace.dns.Make o; NullSpace.dns.Make { o with Place = Place.Gradient } ] do
                  let session = (Method.trainer method).Begin context memory heads [ task c ]

                  let trained loop =
                      match loop context.Settings (Seed.ofInt 2) Watch.silent session with
                      | Ok trained -> (session.Finish trained).Weights
                      | Error unfinished -> failtest $"{unfinished}"

                  let fast, pure' = trained Loop.train, trained Loop.trainPurely

                  for m in fast.Keys do
                      same $"{method.Name}: {m}" close fast[m] pure'[m])

          property "the null space of two old pairs keeps the scores of both" (fun c ->
              let rank = 1L + c.Rank % 2L

              let old =
                  { task c with
                      Rows = Map [ for m, columns in widths c -> m, RowSource.Held(planted c $"old {m}" rank 14L columns) ] }

              let before = heads c
              let everything = Threshold.trace 1e-12 |> Check.get

              let o =
                  { NullSpaceOptions.defaults with
                      Exact = true
                      Threshold = everything
                      PartnerThreshold = everything }

              let memory = History.add o.Partner o.Centring before [ old ] Map.empty

              Expect.equal (set (History.edges memory)) (set [ v, t; t, v; a, t; t, a ]) "what was trained with what"

              let session = (Method.trainer (NullSpace.dns.Make o)).Begin (context c before) memory before [ task c ]

              match Loop.train (settings c) (Seed.ofInt 2) Watch.silent session with
              | Error unfinished -> failtest $"{unfinished}"
              | Ok trained ->
                  let after = (session.Finish trained).Weights

                  for pair in [ withText; ofSound ] do
                      let scores h = Alignment.between pair h (old.All pair.A) (old.All pair.B)
                      same $"{pair}" 1e-6 (scores after) (scores before))

          property "rows that are read give what rows that are held give" (fun c ->
              let held = task c

              let read =
                  { held with
                      Rows =
                          held.Rows
                          |> Map.map (fun m _ ->
                              RowSource.Read(held.Count, torch.CPU, (fun numbers -> (held.All m).index_select(0L, numbers)))) }

              Expect.equal (read.Count, read.Visits, read.IsHeld) (held.Count, held.Visits, false) "sizes"
              let numbers = Tensors.range torch.CPU 0L (c.N / 2L + 1L)
              let rowsOf t = (t |> Task.map (fun _ x -> x * number 2.0) |> Task.batch 0 numbers 1 (Seed.ofInt 0)).Rows

              let ofRead, ofHeld = rowsOf read, rowsOf held

              for m in held.Modalities do
                  identical $"{m}" ofRead[m] ofHeld[m]
                  same $"moment of {m}" tight (Task.moment m read).Matrix (Task.moment m held).Matrix)

          test "the loss of a step on its training rows is the weighted sum" (fun () ->
              let c = { Seed = 3; N = 12L; D = 5L; Da = 4L; Db = 6L; Rank = 2L }

              let run =
                  { Stream = synthetic.Value
                    Device = torch.CPU
                    Split = Split.Test
                    Settings = settings c
                    Lifts = Map.empty
                    Bias = false }

              let task, heads = task c, heads c
              let lossOf terms = TrainingRows.loss run heads { task with Terms = terms }
              let expected = task.Terms |> List.sumBy (fun (pair, weight) -> weight * lossOf (Terms.one pair))
              near "sum" tight (lossOf task.Terms) expected)

          test "what knows only one pair says so" (fun () ->
              let c = { Seed = 4; N = 9L; D = 5L; Da = 4L; Db = 6L; Rank = 2L }

              let task, heads = task c, heads c
              let context = context c heads
              refuses "a task" (fun () -> task.Pair |> ignore)
              refuses "its first side" (fun () -> task.A |> ignore)
              refuses "a batch" (fun () -> (everyRow task).B |> ignore)
              refuses "a weight" (fun () -> Terms.pair [ withText, 0.5 ] |> ignore)

              for m in [ Gem.gem.Make Gem.defaults; Ewc.ewc.Make Ewc.defaults; Co2l.co2l.Make Co2l.defaults ] do
                  refuses m.Name (fun () -> (Method.trainer m).End context Map.empty heads [ task ] |> ignore)

              let der = (Method.trainer (Der.der.Make Der.defaults)).Begin context Map.empty heads [ task ]
              refuses "der" (fun () -> Direction.pass der.Direction der.Kept heads (everyRow task) |> ignore)

              match
                  faultOf (fun () ->
                      Direction.outputGradients { Contrast = contrast c; Bridges = Map.empty } [] Map.empty |> ignore)
              with
              | Fault.BadValue _ -> ()
              | other -> failtest $"no terms: {other}") ]
