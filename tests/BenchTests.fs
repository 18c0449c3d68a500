module Cmcl.Tests.BenchTests

open System
open System.IO
open Cmcl
open Expecto
open TorchSharp
open Cmcl.Tests.Checks
open Cmcl.Tests.ResultsTests

let private extent width pairs rank dtype : Extent = { Width = width; Pairs = pairs; Rank = rank; Dtype = dtype }

let private timing (samples: float list) : Timing = { Samples = Array.ofList samples }
let private form name = Form.find name |> Check.get
let private a, b = modality "a", modality "b"
let private here = extent 12L 6L 4L Dtype.Float64

/// Data for sessions at `here`, and the bases of what a session has to leave alone: leading directions of old inputs and of the
/// partner's old outputs, made without what sessions are made of.
let private workload () = Workload.make torch.CPU here.Dtype here.Width 40L 30L

let private leading (rows: torch.Tensor) =
    let struct (_, vectors) = torch.linalg.eigh (rows.t().mm rows)
    vectors.narrow (1L, here.Width - here.Rank, here.Rank)

let private bases (w: Workload) (m: Modality) = leading (w.Old.All m), leading (w.Old.All(Pair.partner m w.Old.Pair))

let private batch (w: Workload) : Batch = w.New |> Task.batch 0 (Tensors.range torch.CPU 0L 6L) 1 (Seed.ofInt 0)

/// The session of a form, trained for two epochs by one of the loops.
let private trained loop (name: string) (w: Workload) : Session * Heads =
    let f = form name
    let context = Workload.contextOf here 2 w
    let session = Workload.session f here w
    session, Workload.train loop f context session

let private change (w: Workload) (session: Session, weights: Heads) (m: Modality) =
    let finished = session.Finish { Weights = weights; Kept = session.Kept }

    finished.Weights[m] - w.Heads[m]

let private floors =
    testList
        "floors"
        [ test "hand counts of the plain iteration" (fun () ->
              // d = 2, B = 3: outputs and gradients 2·3·2·2 each and head, scores 2·3·3·2, their gradients twice that.
              let w = Floor.plain (extent 2L 3L 1L Dtype.Float32)
              Expect.equal w.Operations (float (4 * 24 + 36 + 2 * 36)) "operations"
              // A head: weight, two moments and gradient in and out, 4 entries each, and 3 × 2 inputs.
              Expect.equal w.Bytes (float (2 * (4 * 2 * 4 + 6) * 4)) "bytes"
              Expect.equal (Floor.plain (extent 2L 3L 1L Dtype.Float64)).Bytes (2.0 * w.Bytes) "twice as wide")

          test "hand counts of what each form adds" (fun () ->
              let e = extent 8L 2L 2L Dtype.Float32
              let plain = Floor.plain e

              // For each head: operations, and numbers of four bytes.
              for name, operations, numbers in
                  [ "none", 0, 0
                    "published", 2 * 2 * 8 * 8 * 8, 6 * 64
                    "gradient", 2 * (2 * 2 * 8 * 2) + 2 * 2 * 8 * 8, 16 + 16
                    "update", 2 * (2 * 8 * 8 * 2) + 2 * (2 * 8 * 2 * 2), 128 + 32
                    "nothing", 2 * 2 * 64, 32
                    "soft", 2 * 2 * 64, 32 + 64
                    "product", 2 * 2 * 64, 32 + 64
                    "trust", 2 * 2 * 64, 32 + 128
                    // A bridge of 4 × 4, a block of 2 × 2 out of outputs and gradient, its part in the norm; its 2 × 2 outputs in.
                    "block", 2 * 2 * 16 - 2 * (2 * 2 * 4) + 2 * 4 * 4, 8 - 8 * 4 + 4
                    // No bridge, a block of 8 × 2.
                    "one-sided", -2 * (2 * 2 * 16) + 2 * 4 * 10, -8 * 16 + 16 ] do
                  let w = (form name).Work e
                  Expect.equal (w.Operations - plain.Operations) (2.0 * float operations) $"{name}: operations"
                  Expect.equal (w.Bytes - plain.Bytes) (2.0 * 4.0 * float numbers) $"{name}: bytes"

              Expect.equal ((form "block-pure").Work e) ((form "block").Work e) "the same work, done slower")

          test "the larger time is the floor" (fun () ->
              let c = { Product = 10.0; Copy = 2.0 }
              Expect.equal (Floor.seconds c { Operations = 40.0; Bytes = 2.0 }) 4.0 "products"
              Expect.equal (Floor.seconds c { Operations = 40.0; Bytes = 12.0 }) 6.0 "memory") ]

let private statistics =
    testList
        "timings"
        [ test "median, minimum and interquartile range" (fun () ->
              let t = timing [ 9.0; 1.0; 5.0; 3.0; 100.0 ]
              Expect.equal (t.Median, t.Minimum, t.Spread) (5.0, 1.0, 6.0) "of five"
              let t = timing [ 4.0; 1.0; 2.0; 3.0 ]
              Expect.equal (t.Median, t.Minimum, t.Spread) (2.5, 1.0, 1.5) "of four"
              let t = timing [ 7.0 ]
              Expect.equal (t.Median, t.Minimum, t.Spread) (7.0, 7.0, 0.0) "of one")

          test "a ratio is the median of the rounds', whatever slows a round down" (fun () ->
              let none = timing [ 1.0; 10.0; 2.0 ]
              Expect.equal (Timing.over none (timing [ 1.5; 15.0; 3.0 ])) 1.5 "all rounds alike"
              Expect.equal (Timing.over none (timing [ 1.5; 90.0; 3.0 ])) 1.5 "one disturbed")

          property "a fit recovers the law that points are made of" (fun c ->
              let exponent, factor = 4.0 * fraction c "exponent" - 1.0, 0.1 + fraction c "factor"
              let points = [ for x in [ 256.0; 768.0; 1024.0; 2048.0 ] -> x, factor * x ** exponent ]

              match PowerLaw.fit points with
              | Some law ->
                  near "exponent" 1e-10 law.Exponent exponent
                  near "factor" 1e-8 law.Factor factor
              | None -> failtest "a law")

          test "no law of one place" (fun () ->
              Expect.isNone (PowerLaw.fit []) "none"
              Expect.isNone (PowerLaw.fit [ 2.0, 1.0; 2.0, 3.0 ]) "one x") ]

let private sessions =
    testList
        "forms"
        [ test "published: the gradient is G − P̃ G P of the plain one" (fun () ->
              let w = workload ()
              let session = Workload.session (form "published") here w
              let batch = batch w
              let plain = Workload.session (form "none") here w
              let raw = Direction.pass plain.Direction plain.Kept session.Start batch
              let projected = Direction.pass session.Direction session.Kept session.Start batch
              near "loss" tight (item projected.Loss) (item raw.Loss)

              for m in [ a; b ] do
                  let u, v = bases w m
                  let p, partner = u.mm (u.t ()), v.mm (v.t ())
                  same $"{m}" close projected.Gradients[m] (raw.Gradients[m] - partner.mm(raw.Gradients[m]).mm p)
                  Expect.isGreaterThan (Tensors.relativeDifference projected.Gradients[m] raw.Gradients[m]) 1e-3 "not the same"

              match session.Rule with
              | Rule.Recipe r -> Expect.isTrue r.Shapes.IsEmpty "nothing else is asked of updates"
              | Rule.Chain _ -> failtest "in place")

          test "gradient: the same gradient, through its low rank" (fun () ->
              let w = workload ()

              let gradients name =
                  let session = Workload.session (form name) here w
                  (Direction.pass session.Direction session.Kept session.Start (batch w)).Gradients

              for m in [ a; b ] do
                  same $"{m}" close (Heads.weight m (gradients "gradient")) (Heads.weight m (gradients "published")))

          test "update and block: the change is out of the protected span" (fun () ->
              let w = workload ()

              for name in [ "update"; "block"; "block-pure" ] do
                  let change = change w (trained Loop.train name w)

                  for m in [ a; b ] do
                      let u, v = bases w m
                      vanishes $"{name}, {m}" close (Tensors.norm (v.t().mm(change m).mm u)) (Tensors.norm (change m))
                      Expect.isGreaterThan (Tensors.norm (change m)) 1e-3 "and there is one")

          test "block: k × k entries stay to the bit" (fun () ->
              let w = workload ()
              let session, weights = trained Loop.train "block" w

              for m in [ a; b ] do
                  let block (t: torch.Tensor) = t.narrow(0L, 0L, here.Rank).narrow(1L, 0L, here.Rank)
                  identical $"{m}" (block weights[m]) (block session.Start[m])
                  Expect.isGreaterThan (Tensors.relativeDifference weights[m] session.Start[m]) 1e-4 "the rest moves")

          test "one-sided: outputs of old inputs within the cut stay" (fun () ->
              let w = workload ()
              let change = change w (trained Loop.train "one-sided" w)

              for m in [ a; b ] do
                  let u, _ = bases w m
                  vanishes $"{m}" close (Tensors.norm ((change m).mm u)) (Tensors.norm (change m)))

          test "product, soft, trust and nothing are asked for entry by entry" (fun () ->
              let w = workload ()

              let shape name =
                  match (Workload.session (form name) here w).Rule with
                  | Rule.Recipe r -> r.Shape a
                  | Rule.Chain _ -> failtest "in place"

              match shape "product" with
              | Shape.Factor f ->
                  let share = item (f.mean ())
                  Expect.isTrue (share > 0.2 && share < 0.8) $"about half of the entries are free: {share}"
              | other -> failtest $"%A{other}"

              match shape "soft" with
              | Shape.Factor f -> Expect.isTrue (item (f.min ()) > 0.0 && item (f.max ()) < 1.0) "damped"
              | other -> failtest $"%A{other}"

              Expect.equal (shape "nothing") Shape.Free "nothing"

              match shape "trust", trained Loop.train "trust" w with
              | Shape.Ellipsoid(importance, budget), (session, weights) ->
                  let size = item ((importance * (weights[a] - session.Start[a]).squared()).sum())
                  near "the budget binds" 1e-6 (size / budget) 1.0
              | other -> failtest $"%A{other}")

          test "every form trains to the weights of its pure functions, and forms differ" (fun () ->
              let parities = [ for f in Form.all -> Parity.check torch.CPU here f ]

              for p in parities do
                  Expect.isTrue p.Holds $"{p.Form}: {p.Difference:E2}"
                  Expect.isGreaterThan p.Moved 1e-3 p.Form

              let weights = [ for f in Form.all -> let w = workload () in change w (trained Loop.train f.Name w) a ]

              let alike =
                  [ for i, x in List.indexed weights do
                        for j, y in List.indexed weights do
                            if i < j && Tensors.relativeDifference x y < 1e-9 then
                                Form.names[i], Form.names[j] ]

              Expect.equal alike [ "none", "none-pure"; "published", "gradient"; "block", "block-pure" ] "alike")

          test "must fail: weights that are not those of the pure functions" (fun () ->
              let p = Parity.check torch.CPU here (form "none")
              Expect.isFalse { p with Difference = 1e-11 }.Holds "too far"
              Expect.isFalse { p with Difference = nan }.Holds "no number")

          test "a form that nothing has" (fun () ->
              match Form.find "blok" with
              | Error [ fault ] -> Expect.stringContains fault.Message "did you mean 'block'" "the sentence"
              | other -> failtest $"%A{other}") ]

let private advancing =
    testList
        "sessions by hand"
        [ test "losses are those of training, epoch after epoch" (fun () ->
              let w = workload ()

              for name, purely, loop in
                  [ "block", false, Loop.train; "block", true, Loop.trainPurely; "update", false, Loop.train ] do
                  let f = form name
                  let context = Workload.contextOf here 3 w
                  let session = Workload.session f here w
                  let losses = ResizeArray()

                  let watch =
                      { Watch.silent with
                          Epoch = fun _ loss _ -> losses.Add loss }

                  loop context.Settings (Seed.ofInt 0) watch session |> Result.isOk |> Expect.isTrue <| name
                  use scope = torch.NewDisposeScope()
                  let advance = Loop.advance purely context.Settings (Seed.ofInt 0) scope session

                  for i, loss in Seq.indexed losses do
                      near $"{name}, epoch {i + 1}" tight (advance 5) loss)

          test "what it keeps is the scope's, and does not grow" (fun () ->
              let w = workload ()

              for purely in [ false; true ] do
                  let f = form "soft"
                  let session = Workload.session f here w
                  let settings = (Workload.contextOf here 1 w).Settings

                  let run () =
                      use scope = torch.NewDisposeScope()
                      let advance = Loop.advance purely settings (Seed.ofInt 0) scope session
                      advance 5 |> ignore
                      Expect.equal (leaked (fun () -> advance 50 |> ignore)) 0L "ten epochs more"

                  Expect.equal (leaked run) 0L "afterwards") ]

let private request () : BenchRequest =
    { Forms = [ "none"; "published"; "block"; "soft" ] |> List.map form
      Widths = [ 8L; 16L ]
      Batches = [ 4L ]
      Shares = [ 0.25; 0.2; 0.5 ]
      ThreadCounts = [ 1 ]
      Dtypes = [ Dtype.Float64 ]
      Device = torch.CPU
      Rounds = 2
      Limit = 0.01
      StepRows = [ 20L; 40L ]
      StepRounds = 2 }

/// One benchmark for all tests: what it took is nobody's business here.
let private found =
    lazy
        (let events = ResizeArray()
         torch.set_num_threads 2
         let b = Benchmark.run events.Add (request ())
         let threads = torch.get_num_threads ()
         torch.set_num_threads 1
         b, List.ofSeq events, threads)

let private count (part: string) (text: string) = text.Split(part).Length - 1

let private whole =
    testList
        "a benchmark"
        [ test "every form at every size, ranks that are the same once" (fun () ->
              let b, events, threads = found.Value
              Expect.equal threads 2 "threads as before"

              // 8/4 and 8/5 are both 2. At other ranks than the first only what depends on it, and what it is compared with.
              for width, ranks in [ 8L, [ 2L; 4L ]; 16L, [ 4L; 3L; 8L ] ] do
                  for rank in ranks do
                      let forms =
                          if rank = ranks.Head then
                              [ "none"; "published"; "block"; "soft" ]
                          else
                              [ "none"; "published"; "block" ]

                      let own = b.Iterations |> List.filter (fun i -> i.Extent = extent width 4L rank Dtype.Float64)
                      Expect.equal (own |> List.map _.Form) forms $"d {width}, k {rank}"

              Expect.hasLength b.Iterations ((4 + 3) + (4 + 3 + 3)) "and no others"

              Expect.equal
                  (b.Steps |> List.map (fun s -> s.Form, s.Rows))
                  [ for n in [ 20L; 40L ] do
                        for f in [ "none"; "block"; "soft" ] -> f, n ]
                  "steps"

              let shares =
                  [ for e in events do
                        match e with
                        | BenchEvent.Began(_, share) -> share
                        | _ -> () ]

              Expect.equal shares (List.sort shares) "progress goes on"
              Expect.isTrue (List.last shares < 1.0) "until it is over")

          test "a row has its samples, its work and ratios of the same rounds" (fun () ->
              let b, _, _ = found.Value

              for i in b.Iterations do
                  Expect.hasLength i.Timing.Samples 2 "rounds"
                  Expect.isTrue (i.Timing.Samples |> Array.forall (fun s -> s > 0.0)) "seconds"
                  Expect.equal i.Work ((form i.Form).Work i.Extent) "work"
                  Expect.isTrue (Double.IsFinite i.Floor && i.Floor > 0.0) "ceilings"
                  near "times floor" tight (i.TimesFloor * i.Floor) i.Timing.Median

                  if i.Form = "none" then
                      Expect.equal i.OverNone (Some 1.0) "itself"

              for s in b.Steps do
                  Expect.equal s.Epochs 5 "epochs"
                  // One moment (d² numbers of eight bytes and a count) for each modality; none has nothing.
                  Expect.equal s.Kept (if s.Form = "none" then 0.0 else 16.0 * 16.0 * 8.0 + 8.0) "kept"

              for r in Scaling.ratios b.Iterations do
                  let own name = b.Iterations |> List.find (fun i -> i.Extent = r.Extent && i.Form = name)
                  Expect.equal r.DnsOverNone (own "block").OverNone "dns over none"

                  Expect.equal
                      r.PublishedOverDns
                      (Some(Timing.over (own "block").Timing (own "published").Timing))
                      "published over dns")

          test "growth is fitted for each form by itself" (fun () ->
              let row name (width: int64) seconds =
                  { (let b, _, _ = found.Value in b.Iterations.Head) with
                      Form = name
                      Extent = extent width 4L 2L Dtype.Float64
                      Timing = timing [ seconds ] }

              let rows =
                  [ for d in [ 16L; 8L; 32L ] do
                        row "none" d (float d ** 2.0)
                        row "published" d (3.0 * float d ** 3.0) ]

              match Scaling.byWidth rows with
              | [ "none", points, Some square; "published", _, Some cube ] ->
                  Expect.equal points [ 8.0, 64.0; 16.0, 256.0; 32.0, 1024.0 ] "points in order"
                  near "square" tight square.Exponent 2.0
                  near "cube" tight cube.Exponent 3.0
              | other -> failtest $"%A{other}")

          test "both tables read back as they were" (fun () ->
              inFolder (fun folder ->
                  let b, _, _ = found.Value

                  let odd =
                      { b.Iterations.Head with
                          OverNone = None
                          Device = "cuda:0, \"the\" other" }

                  BenchFiles.write folder { b with Iterations = odd :: b.Iterations } |> Check.get
                  Expect.equal (Tables.iterations folder) (Ok(odd :: b.Iterations)) "bench.csv"
                  Expect.equal (Tables.steps folder) (Ok b.Steps) "steps.csv"
                  let file = Path.Combine(folder, "bench.csv")
                  File.WriteAllText(file, (File.ReadAllText file).Replace("float64", "float16"))

                  match Tables.iterations folder with
                  | Error(fault :: _) -> Expect.stringContains fault.Message "dtype takes float32 or float64" "the sentence"
                  | other -> failtest $"%A{other}"))

          test "the page has every figure and every form, and nothing from elsewhere" (fun () ->
              let b, _, _ = found.Value
              let text = BenchPage.build "cmcl bench <script>" (request ()) b
              let html = text.Substring(0, text.IndexOf "id=\"figures\"")
              let words = Net.WebUtility.HtmlDecode html |> Option.ofObj |> Option.get

              for figure in [ "width"; "floor"; "rows" ] do
                  Expect.equal (count $"id=\"plot-{figure}\"" html) 1 figure

              for f in (request ()).Forms do
                  Expect.isTrue (words.Contains f.Summary) f.Name

              for part in [ "http"; "src="; "@import"; "<script>" ] do
                  Expect.equal (count part html) 0 part)

          test "a page of one size and no steps" (fun () ->
              let b, _, _ = found.Value
              let only = b.Iterations |> List.filter (fun i -> i.Extent.Width = 8L)

              let text =
                  BenchPage.build
                      "cmcl bench"
                      { request () with Widths = [ 8L ]; StepRows = [] }
                      { Iterations = only; Steps = [] }

              Expect.equal (count "id=\"plot-width\"" text, count "id=\"plot-rows\"" text) (0, 0) "no curves"
              Expect.equal (count "id=\"plot-floor\"" text) 1 "what there is") ]

let tests = testList "Bench" [ floors; statistics; sessions; advancing; whole ]
