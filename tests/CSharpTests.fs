/// The surface for C#, called as C# calls it, held against the F# library behind it.
module Cmcl.Tests.CSharpTests

open System
open System.Collections.Generic
open System.IO
open System.Text.RegularExpressions
open System.Threading
open System.Threading.Tasks
open Expecto
open Plotly.NET
open TorchSharp
open Cmcl
open Cmcl.Tests.Checks
open Cmcl.Tests.Processes

// ---- a study that is quickly over --------------------------------------------------------------------------------

let private options =
    { Synthetic.defaults with
        Dimension = 16L
        Rank = 4L
        Samples = 80L }

let private synthetic () : Stream =
    CSharp.Streams.Synthetic(dimension = options.Dimension, rank = options.Rank, samples = options.Samples)

let private learn (c: CSharp.Configuration) : CSharp.Configuration = c.Learn(epochs = 1, batch = 16)

let private study () : CSharp.Study =
    CSharp.Study
        .On(synthetic ())
        .Method([ CSharp.Methods.Vanilla(); CSharp.Methods.Dns(exact = true) ])
        .Each(learn)
        .Seeds([ 0; 1 ])
        .Jobs(1)

let private fsharp () : StudyBuilder =
    Synthetic.make options (Seed.ofInt 0)
    |> Run.on
    |> Run.method Baseline.vanilla
    |> Run.method (Dns.defaults |> Dns.exact true)
    |> Run.each (Learn.epochs 1 >> Learn.batch 16)
    |> Run.seeds [ 0; 1 ]
    |> Run.jobs 1
    |> Run.quietly

/// Figures without what a clock says.
let private figures (results: CSharp.StudyResults) =
    [ for f in results.Figures do
          if not (f.Metric.StartsWith "seconds") && f.Metric <> "pairs_per_second" then
              f.Method, f.Seed, f.Order, Option.ofNullable f.Step, Option.ofNullable f.Task, f.Metric, f.Value ]

let private rows (order: int) (rows: Row list) =
    [ for r in rows do
          if not (r.Metric.StartsWith "seconds") && r.Metric <> "pairs_per_second" then
              r.Method, r.Seed, order, r.Step, r.Task, r.Metric, r.Value ]

let private found = lazy ((study ()).Run())

let private studies =
    testList
        "studies"
        [ test "figures are those of the F# pipeline, bit for bit, in every order" (fun () ->
              let ours = (study ()).Orders([ 0; 3 ]).Run()
              let theirs = fsharp () |> Run.orders [ 0; 3 ] |> Run.go
              Expect.isGreaterThan ours.Figures.Count 1000 "figures"
              Expect.equal (figures ours) (rows 0 theirs.Rows @ rows 3 theirs.Orders[3]) "figures"
              Expect.equal ours.Losses.Count theirs.Losses.Length "losses"
              Expect.sequenceEqual ours.Methods [ "vanilla"; "dns[exact=on]" ] "methods")
          test "means, figures by seed and tables are the report's" (fun () ->
              let results = found.Value
              let bySeed = results.BySeed("vanilla", "r10")
              let mean = results.Mean("vanilla", "r10")
              Expect.sequenceEqual bySeed.Keys [ 0; 1 ] "seeds"
              near "mean" tight mean.Mean (Seq.average bySeed.Values)
              near "sd" tight mean.Sd.Value (abs (bySeed[0] - bySeed[1]) / sqrt 2.0)

              let final =
                  results.Figures |> Seq.filter (fun f -> f.Method = "vanilla" && not f.Step.HasValue && f.Metric = "r10")

              Expect.equal (final |> Seq.map _.Value |> List.ofSeq) (List.ofSeq bySeed.Values) "as results.csv has it"
              Expect.equal (results.Table []).Text (Report.table results.Value).Text "the table"
              Expect.equal (results.Table [ "r1" ]).Text (Report.tableOf [ "r1" ] results.Value).Text "of one metric"

              Expect.equal
                  (results.Differences("vanilla", [ "r10" ])).Text
                  (Report.differences "vanilla" [ "r10" ] results.Value).Text
                  "differences")
          test "what a method does not have is told apart from what nothing is called" (fun () ->
              let results = (study ()).Method([ CSharp.Methods.ZeroShot() ]).Seeds([ 0 ]).Run()
              let mutable spread = null
              Expect.isFalse (results.TryMean("zero-shot", "deviation_rel", &spread)) "zero-shot moves nothing"
              Expect.isEmpty (results.BySeed("zero-shot", "deviation_rel")) "by seed"
              Expect.isTrue (results.TryMean("zero-shot", "r10", &spread)) "and has a rate"
              Expect.isFalse (results.Mean("vanilla", "r10").Sd.HasValue) "one seed has no deviation"
              let sentence = (faultOf (fun () -> results.Mean("zero-shot", "deviation_rel"))).Message
              Expect.stringContains sentence "zero-shot has no deviation_rel" "the sentence"
              Expect.stringContains (faultOf (fun () -> results.Mean("dns", "r10"))).Message "dns[exact=on]" "those there are"
              Expect.stringContains (faultOf (fun () -> results.Mean("vanilla", "r11"))).Message "'r1" "a metric"
              Expect.stringContains (faultOf (fun () -> results.BySeed("dsn", "r10"))).Message "dsn" "by seed")
          test "what is saved is read back, and results of one stream join"
          <| inFolder (fun folder ->
              let results = found.Value
              let report = results.Save folder
              Expect.equal report (Path.Combine(folder, "report.html")) "the report"
              let again = CSharp.StudyResults.Read folder
              let key = List.sort
              Expect.equal (key (figures again)) (key (figures results)) "figures"
              Expect.equal (again.Table []).Text (results.Table []).Text "the table"
              let soft = (study ()).Method([ CSharp.Methods.DnsSoft() ]).Run()
              let both = CSharp.StudyResults.Join [ again; soft ]
              Expect.sequenceEqual both.Methods [ "vanilla"; "dns[exact=on]"; "dns-soft" ] "methods of both"

              Expect.stringContains
                  (faultOf (fun () -> CSharp.StudyResults.Read(Path.Combine(folder, "none")))).Message
                  "does not exist"
                  "no folder")
          test "charts are those of the library, as pages that need no network"
          <| inFolder (fun folder ->
              let charts = found.Value.Charts
              let same (ours: GenericChart) (theirs: GenericChart) = Expect.equal (string ours) (string theirs) "a chart"
              let value = found.Value.Value
              same (charts.Deviation()) (Plot.deviation value)
              same (charts.Metric "r10") (Plot.metric "r10" value)
              same (charts.Forgetting("r10", 1)) (Plot.forgetting "r10" 1 value)
              same (charts.Backward "r10") (Plot.backward "r10" value)
              same (charts.Matrix("r10", "vanilla")) (Plot.matrix "r10" "vanilla" value)
              same (charts.TradeOff "r10") (Plot.tradeOff "r10" value)
              same (charts.Frontier()) (Plot.frontier value)
              same (charts.Certificate "vanilla") (Plot.certificate "vanilla" value)
              same (charts.Losses()) (Plot.losses value)
              same (charts.Spectrum("dns[exact=on]", 4, "text")) (Plot.spectrum "dns[exact=on]" 4 "text" value)
              let path = CSharp.ChartPages.SaveHtml(charts.Deviation(), Path.Combine(folder, "deeper/page.html"), "How far")
              let page = File.ReadAllText path
              Expect.stringContains page "<h1>How far" "its heading"
              Expect.isFalse (Regex.IsMatch(page, "<(script|link)[^>]+(src|href)=\"http")) "nothing from elsewhere"

              let page =
                  CSharp
                      .Page("Title", "Note")
                      .Text("A sentence.")
                      .Table(found.Value.Table [ "r10" ])
                      .Chart("Chart", charts.Losses())

              for words in [ "<title>Title"; "Note"; "A sentence."; "R@10"; "Chart" ] do
                  Expect.stringContains (page.ToHtml()) words "the page") ]

// ---- options -----------------------------------------------------------------------------------------------------

let private takes (option: string) : string list = (Registry.options |> List.find (fun o -> o.Name = option)).Words

let private values<'e when 'e: struct and 'e :> Enum and 'e: (new: unit -> 'e)> () : 'e list =
    Enum.GetValues<'e>() |> List.ofArray

/// Options that a label sets.
let private set (c: CSharp.Configuration) : string list = [ for m in Regex.Matches(c.Label, "([a-z-]+)=") -> m.Groups[1].Value ]

let private everythingLearned (c: CSharp.Configuration) =
    c
        .Learn(
            rate = 2e-5,
            epochs = 3,
            batch = 16,
            weightDecay = 0.0,
            temperature = 0.5,
            scores = CSharp.Scoring.Cosine,
            symmetric = true,
            optimiser = CSharp.Optimiser.Sgd,
            schedule = CSharp.Schedule.Constant,
            clip = infinity,
            shuffle = false,
            dtype = CSharp.Dtype.Float64
        )
        .Lift(7)

let private everyDns () =
    CSharp.Methods.Dns(
        CSharp.Place.Update,
        CSharp.Sides.Dual,
        CSharp.Protect.Block,
        true,
        CSharp.Partner.Current,
        CSharp.Moments.Uncentred,
        CSharp.FreeBasis.Own,
        CSharp.Cut.Energy 0.01,
        CSharp.Cut.Rank 3,
        1e-4,
        0.2,
        infinity
    )

let private naming =
    testList
        "options"
        [ test "every value of an enumeration is a word that the registry takes, and every word has a value" (fun () ->
              let check option (configurations: CSharp.Configuration list) =
                  let labels = configurations |> List.map (fun c -> Regex.Match(c.Label, $"{option}=([^];]+)").Groups[1].Value)
                  Expect.containsAll labels (takes option) $"words of {option}"
                  Expect.equal labels.Length (takes option).Length $"values of {option}"

              let plain = CSharp.Methods.Vanilla()
              check "place" [ for v in values<CSharp.Place>() -> CSharp.Methods.Dns(place = v) ]
              check "sides" [ for v in values<CSharp.Sides>() -> CSharp.Methods.Dns(sides = v) ]
              check "protect" [ for v in values<CSharp.Protect>() -> CSharp.Methods.Dns(protect = v) ]
              check "partner" [ for v in values<CSharp.Partner>() -> CSharp.Methods.DnsSoft(partner = v) ]
              check "moments" [ for v in values<CSharp.Moments>() -> CSharp.Methods.DnsSoft(moments = v) ]
              check "free-basis" [ for v in values<CSharp.FreeBasis>() -> CSharp.Methods.Dns(freeBasis = v) ]
              check "unseen" [ for v in values<CSharp.UnseenPairs>() -> CSharp.Methods.Cca(unseen = v) ]
              check "weights" [ for v in values<CSharp.Weights>() -> CSharp.Methods.Cca(weights = v) ]
              check "loss" [ for v in values<CSharp.MomentLoss>() -> CSharp.Methods.MomentReplay(loss = v) ]
              check "rule" [ for v in values<CSharp.MergeRule>() -> CSharp.Methods.Merge(rule = v) ]
              check "rotate" [ for v in values<CSharp.Rotated>() -> CSharp.Methods.Eigen(rotate = v) ]
              check "scores" [ for v in values<CSharp.Scoring>() -> plain.Learn(scores = v) ]
              check "optimizer" [ for v in values<CSharp.Optimiser>() -> plain.Learn(optimiser = v) ]
              check "decay" [ for v in values<CSharp.Schedule>() -> plain.Learn(schedule = v) ]
              check "dtype" [ for v in values<CSharp.Dtype>() -> plain.Learn(dtype = v) ]
              check "exact" [ for v in [ true; false ] -> CSharp.Methods.Dns(exact = v) ]
              check "shuffle" [ for v in [ true; false ] -> plain.Learn(shuffle = v) ])
          test "every option of the null-space methods and of training is a named argument" (fun () ->
              let check (c: CSharp.Configuration) =
                  let e = Registry.find (Label.family c.Label) |> Check.get
                  let takes = [ for o in Entry.takes e -> o.Name ]
                  Expect.equal (List.sort (set c)) (List.sort takes) $"named arguments for {e.Method.Name}"

              check (everythingLearned (CSharp.Methods.Vanilla()))
              check (everythingLearned (everyDns ()))

              check (
                  everythingLearned (
                      CSharp.Methods.DnsSoft(CSharp.Sides.Input, CSharp.Partner.Current, CSharp.Moments.Centred, 1e-4)
                  )
              )

              check (everythingLearned (CSharp.Methods.DnsTrust(CSharp.Sides.Input, CSharp.Partner.Current, 0.1, 0.4)))
              check (everythingLearned (CSharp.Methods.EigenbasisOnly(CSharp.Partner.Current, CSharp.Moments.Centred)))
              check (everythingLearned (CSharp.Methods.Nsp(CSharp.Cut.Trace 1e-3)))
              check (CSharp.Methods.Cca(0.2, 0.5, 8, 0.1, CSharp.UnseenPairs.Composed, CSharp.Weights.Rows).Lift 7)
              check (CSharp.Methods.DnsClosed(0.1, infinity, infinity, 5.0, 2).Lift 7)
              check (everythingLearned (CSharp.Methods.MomentReplay(0.1, CSharp.MomentLoss.Cumulant)))
              check (everythingLearned (CSharp.Methods.Merge("vanilla", CSharp.MergeRule.Dual, 0.5, 0.9, 0.1)))

              check (
                  everythingLearned (
                      CSharp.Methods.Polish("vanilla", 0.2, 0.5, 8, 0.1, CSharp.UnseenPairs.Composed, CSharp.Weights.Rows)
                  )
              )

              check (everythingLearned (CSharp.Methods.Eigen("joint", CSharp.Rotated.Both)))
              check (everythingLearned (CSharp.Methods.Reference(CSharp.Cut.Relative 1e-3))))
          test "labels are those of the F# options" (fun () ->
              let same (ours: CSharp.Configuration) (theirs: Config<'m>) = Expect.equal ours.Label theirs.Label "the label"
              same (CSharp.Methods.Vanilla().Learn(rate = 1e-5)) (Baseline.vanilla |> Learn.rate 1e-5)
              same (CSharp.Methods.Joint().Learn(wholeSteps = true)) (Baseline.joint |> Learn.wholeSteps)
              same (CSharp.Methods.Individual().Learn(clip = infinity)) (Baseline.individual |> Learn.clip None)
              same (CSharp.Methods.DnsTrust(totalBudget = 0.25)) (Dns.trust |> Dns.totalBudget 0.25)
              same (CSharp.Methods.EigenbasisOnly()) Dns.eigenbasisOnly

              same (CSharp.Methods.Cca().Lift 64) (Closed.cca |> Learn.features (Some(Lift.relu 64)))

              same
                  (CSharp.Methods.Named("gem").Lift(3, CSharp.LiftKind.Cos, 0.5))
                  (Baseline.gem |> Learn.features (Some { Lift.cos 3 with Scale = 0.5 }))

              let cut = Threshold.absolute 0.01 |> Check.get

              same
                  (CSharp.Methods.Dns(threshold = CSharp.Cut.Absolute 0.01, partnerThreshold = CSharp.Cut.Absolute 0.01))
                  (Config.named $"dns[threshold={Threshold.show cut};partner-threshold={Threshold.show cut}]"))
          test "what is named reaches the plan, over what is set for all" (fun () ->
              let plans =
                  CSharp.Study
                      .On(synthetic ())
                      .Method(
                          [ everythingLearned (CSharp.Methods.Vanilla())
                            CSharp.Methods.Dns(protect = CSharp.Protect.Soft, tau = 1e-4) ]
                      )
                      .Each(fun c -> c.Learn(epochs = 7, rate = 0.5, batch = 56))
                      .Plans()

              let expected =
                  [ "lr", "2e-05"
                    "epochs", "3"
                    "batch", "16"
                    "weight-decay", "0"
                    "temperature", "0.5"
                    "scores", "cosine"
                    "symmetric", "on"
                    "optimizer", "sgd"
                    "decay", "constant"
                    "clip", "off"
                    "shuffle", "off"
                    "dtype", "float64"
                    "features", "relu:7" ]

              Expect.equal (Map [ for KeyValue(k, v) in plans[0].Settings -> k, v ]) (Map expected) "all of vanilla's"

              for option, value in [ "protect", "soft"; "tau", "0.0001"; "epochs", "7"; "lr", "0.5"; "batch", "56" ] do
                  Expect.equal plans[1].Settings[option] value option)
          test "a product of options leaves out what excludes itself" (fun () ->
              let all =
                  [ for place in Enum.GetValues<CSharp.Place>() do
                        for exact in [ false; true ] -> CSharp.Methods.Dns(place = place, exact = exact) ]

              Expect.equal
                  [ for c in all do
                        if not c.IsPossible then
                            c.Label ]
                  [ "dns[place=gradient;exact=on]" ]
                  "what excludes itself")
          test "a method of one's own runs beside the others" (fun () ->
              let mine = CSharp.Methods.Own { Plain.vanilla with Name = "mine" }
              let results = (study ()).Method([ mine ]).Seeds([ 0 ]).Run()
              Expect.equal (results.Mean("mine", "r10")) (results.Mean("vanilla", "r10")) "it does the same"

              Expect.stringContains
                  (faultOf (fun () ->
                      CSharp.Methods.Own Plain.joint |> ignore
                      CSharp.Methods.Own { Plain.joint with Summary = "" }))
                      .Message
                  "give yours another Name"
                  "a name that is taken") ]

// ---- faults ------------------------------------------------------------------------------------------------------

let private raised (f: unit -> 'a) : CmclException =
    try
        f () |> ignore
        failtest "expected an exception"
    with :? CmclException as e ->
        e

let private mistakes =
    testList
        "mistakes"
        [ test "are one exception with every sentence of the F# library" (fun () ->
              let ours =
                  CSharp.Study
                      .On(synthetic ())
                      .Method(
                          [ CSharp.Methods.Dns(exact = true, sides = CSharp.Sides.Input)
                            CSharp.Methods.Dns(exact = true, place = CSharp.Place.Gradient)
                            CSharp.Methods.Vanilla().With("tau", "1") ]
                      )

              let theirs =
                  Plan.resolve
                      (synthetic ()).Preset
                      []
                      [ "dns[exact=on;sides=input]"; "dns[exact=on;place=gradient]"; "vanilla[tau=1]" ]
                  |> faultsOf
                  |> List.map _.Message

              Expect.isGreaterThan theirs.Length 2 "several"

              for e in [ raised ours.Run; raised ours.Plans; raised ours.TrainHeads ] do
                  Expect.equal (List.ofSeq e.Sentences) theirs "sentences"
                  Expect.equal e.Message (String.Join("\n", theirs)) "the message")
          test "of arguments are told where they are made, as the command line tells them" (fun () ->
              let told (f: unit -> 'a) (sentence: string) =
                  Expect.equal (List.ofSeq (raised f).Sentences) [ sentence ] "the sentence"

              let plain = CSharp.Methods.Vanilla()
              told (fun () -> plain.Learn(epochs = 0)) "epochs takes a whole number ≥ 1, not '0'."
              told (fun () -> plain.Learn(rate = -1.0)) "lr takes a number ≥ 0, not '-1'."
              told (fun () -> plain.Learn(clip = 0.0)) "clip takes a number > 0, or off, not '0'."

              told
                  (fun () -> plain.Learn(batch = 8, wholeSteps = true))
                  "'batch' and 'wholeSteps' are both given; give one of them."

              told
                  (fun () -> CSharp.Methods.Dns(place = enum<CSharp.Place> 7))
                  "place takes gradient, update or eigenbasis, not '7'."

              told (fun () -> CSharp.Methods.Named "dsn") (faultOf (fun () -> Config.named "dsn")).Message

              told
                  (fun () -> CSharp.Methods.Named "dns[palce=update]")
                  (faultOf (fun () -> Config.named "dns[palce=update]")).Message

              told (fun () -> CSharp.Cut.Energy 2.0) (Threshold.energy 2.0 |> faultsOf).Head.Message
              told (fun () -> CSharp.Streams.Load "emojy") (Catalogue.find "emojy" |> faultsOf).Head.Message

              told
                  (fun () -> CSharp.Streams.Synthetic(rank = 65L))
                  "'Rank' of a synthetic stream takes 2 to 64, the dimension, not '65'."

              told
                  (fun () -> (study ()).Seeds [ 1; 1 ])
                  "seeds of a study takes different whole numbers ≥ 0, one or more, not '1, 1'."

              told
                  (fun () -> (study ()).TrainHeads())
                  "a study whose heads are wanted takes one method, one seed and one order, not '2 × 2 × 1'.")
          test "that diverge are told among the failures, and the others go on" (fun () ->
              let results =
                  (study ()).Method([ CSharp.Methods.Vanilla().Learn(rate = 1e30, clip = infinity) ]).Seeds([ 0 ]).Run()

              let failure = Seq.exactlyOne results.Failures
              Expect.equal (failure.Method, failure.Seed) ("vanilla[lr=1e+30;clip=off]", 0) "which"
              Expect.stringContains failure.Reason "diverged" "why"
              Expect.isTrue (results.Figures |> Seq.exists (fun f -> f.Method = "vanilla")) "the others") ]

// ---- progress and cancellation -----------------------------------------------------------------------------------

let private hearing (hear: CSharp.StudyProgress -> unit) =
    { new IProgress<CSharp.StudyProgress> with
        member _.Report p = hear p }

let private leaving =
    testList
        "progress and cancellation"
        [ test "progress tells every method with a seed once" (fun () ->
              let heard = List<CSharp.StudyProgress>()
              (study ()).Run(hearing heard.Add) |> ignore
              Expect.equal [ for p in heard -> p.Over, p.Cells ] [ 1, 4; 2, 4; 3, 4; 4, 4 ] "counted"

              Expect.equal
                  [ for p in heard -> p.Method, p.Seed ]
                  [ "vanilla", 0; "vanilla", 1; "dns[exact=on]", 0; "dns[exact=on]", 1 ]
                  "named"

              Expect.equal heard[1].Share 0.5 "the share"
              Expect.isFalse (heard |> Seq.exists _.FinishedBefore) "all run now")
          test "a study that is cancelled keeps what is over, and goes on to the same figures"
          <| inFolder (fun folder ->
              use cancel = new CancellationTokenSource()

              let stopping =
                  hearing (fun p ->
                      if p.Over = 2 then
                          cancel.Cancel())

              let task = (study ()).Into(folder).RunAsync(stopping, cancel.Token)
              Expect.throwsT<AggregateException> (fun () -> task.Wait()) "cancelled"
              Expect.isTrue task.IsCanceled "as tasks are"
              let heard = List<CSharp.StudyProgress>()
              let results = (study ()).Into(folder).RunAsync(hearing heard.Add).Result
              Expect.equal [ for p in heard -> p.FinishedBefore ] [ true; true; false; false ] "two were over"
              Expect.equal (figures results) (figures found.Value) "figures")
          test "one that is left amid a step goes on from that update"
          <| inFolder (fun folder ->
              let mutable asked = 0

              let amid () =
                  asked <- asked + 1
                  asked > 10

              let mutable left = 0

              let hear =
                  function
                  | StudyEvent.Stopped unfinished -> left <- unfinished
                  | _ -> ()

              let part = fsharp () |> Run.into folder |> Run.until amid |> Run.tell hear |> Run.go
              Expect.equal (left, part.Rows.Length) (4, 0) "nothing was over"
              let kept = Directory.GetFiles(folder, "*", SearchOption.AllDirectories)
              Expect.isNonEmpty kept "something is kept"
              let mutable updates = 0

              let count () =
                  updates <- updates + 1
                  false

              let whole = fsharp () |> Run.into folder |> Run.until count |> Run.go

              let fresh =
                  fsharp ()
                  |> Run.until (fun () ->
                      updates <- updates - 1
                      false)
                  |> Run.go

              Expect.equal updates -10 "ten updates were not made again"
              Expect.equal (rows 0 whole.Rows) (rows 0 fresh.Rows) "figures")
          test "cancelled beforehand it does not begin" (fun () ->
              use cancel = new CancellationTokenSource()
              cancel.Cancel()

              Expect.throwsT<OperationCanceledException>
                  (fun () -> (study ()).Run(cancellation = cancel.Token) |> ignore)
                  "at once"

              let task = (study ()).RunAsync(cancellation = cancel.Token)
              Expect.throwsT<AggregateException> (fun () -> task.Wait()) "the task"
              Expect.isTrue task.IsCanceled "cancelled") ]

// ---- arrays and heads --------------------------------------------------------------------------------------------

let private array (seed: int) (rows: int64) (columns: int64) : float32[,] =
    use scope = torch.NewDisposeScope()
    CSharp.Features.ToArray(Seed.normal [ rows; columns ] (Seed.ofInt seed))

let private arrays =
    testList
        "arrays"
        [ test "make a stream that trains" (fun () ->
              let pictures = CSharp.Streams.Bank("pictures", "vision", array 1 40L 6L)
              let names = CSharp.Streams.Bank("names", "text", array 2 40L 5L)
              let sounds = CSharp.Streams.Bank("sounds", "audio", array 3 40L 6L)

              let steps =
                  [ CSharp.Streams.Step(pictures, names)
                    CSharp.Streams.Step(sounds, names, [ 0L .. 29L ], [ 30L .. 33L ], [ 34L .. 39L ]) ]

              let stream = CSharp.Streams.FromArrays("mine", steps)
              Expect.equal [ for s in stream.Steps -> s.Index, s.Name ] [ 1, "pictures–names"; 2, "sounds–names" ] "steps"
              Expect.equal (CSharp.Features.ToArray stream.Banks["names"].Features) (array 2 40L 5L) "the numbers"
              let captions = CSharp.Streams.Bank("captions", "text", array 5 80L 5L)
              let captioned = CSharp.Streams.Pairs(pictures, captions, [ for i in 0L .. 79L -> i / 2L ], [ 0L .. 79L ])
              Expect.equal (captioned.Train.Length, captioned.Validation.Length, captioned.Test.Length) (56, 8, 16) "drawn pairs"
              Expect.equal captioned.Pairs.Value.Items [| for i in 0L .. 79L -> i / 2L |] "items"
              let first = stream.Steps.Head
              Expect.equal (first.Train.Length, first.Validation.Length, first.Test.Length) (28, 4, 8) "drawn rows"
              Expect.equal (Array.sort (Array.concat [ first.Train; first.Validation; first.Test ])) [| 0L .. 39L |] "each once"
              Expect.equal stream.Steps[1].Test [| 34L .. 39L |] "named rows"

              let results =
                  CSharp.Study.On(stream).Method([ CSharp.Methods.Dns() ]).Each(fun c -> c.Learn(epochs = 1, batch = 8)).Run()

              Expect.isEmpty results.Failures "failures"
              Expect.isGreaterThan (results.Mean("dns", "r10").Mean) 0.0 "a rate"
              Expect.equal (CSharp.Streams.FromArrays("mine", steps)).Digest stream.Digest "the same data"

              let other = CSharp.Streams.Bank("names", "text", array 4 40L 5L)

              let changed =
                  CSharp.Streams.FromArrays("mine", [ CSharp.Streams.Step(pictures, other); CSharp.Streams.Step(sounds, other) ])

              Expect.notEqual changed.Digest stream.Digest "other data")
          test "begin with heads, of weights by modality or of a file" (fun () ->
              let pictures, names =
                  CSharp.Streams.Bank("p", "vision", array 1 40L 6L), CSharp.Streams.Bank("n", "text", array 2 40L 5L)

              let stream = CSharp.Streams.FromArrays("mine", [ CSharp.Streams.Step(pictures, names) ])
              let weights = System.Collections.Generic.Dictionary()
              weights["vision"] <- Seed.normal [ 3L; 6L ] (Seed.ofInt 1)
              weights["text"] <- Seed.normal [ 3L; 5L ] (Seed.ofInt 2)
              let bound = CSharp.Streams.WithHeads(stream, weights)
              Expect.equal (Stream.joint bound) 3L "d"
              Expect.notEqual bound.Digest stream.Digest "other data"

              use heads =
                  CSharp.Study
                      .On(bound)
                      .Method([ CSharp.Methods.Dns() ])
                      .Seeds([ 0 ])
                      .Each(fun c -> c.Learn(epochs = 1, batch = 8))
                      .TrainHeads()

              Expect.equal (heads.Weights["text"].shape) [| 3L; 5L |] "trained from them"
              Expect.equal (Stream.joint (CSharp.Streams.WithHeads(stream, heads))) 3L "and the start of another"
              weights.Remove "text" |> ignore
              Expect.stringContains (raised (fun () -> CSharp.Streams.WithHeads(stream, weights))).Message "'text'" "none")

          test "that cannot be learned from are refused" (fun () ->
              let bank name modality rows columns = CSharp.Streams.Bank(name, modality, array 1 rows columns)
              let a, b = bank "a" "vision" 10L 4L, bank "b" "text" 10L 4L
              let told (f: unit -> 'a) (words: string) = Expect.stringContains (raised f).Message words "the sentence"
              told (fun () -> CSharp.Streams.Step(a, bank "c" "text" 9L 4L)) "as many rows in both, got 10 and 9"
              told (fun () -> CSharp.Streams.Step(a, bank "c" "vision" 10L 4L)) "two different modalities"
              told (fun () -> CSharp.Streams.Step(bank "a" "vision" 3L 4L, bank "b" "text" 3L 4L)) "4 or more, not '3'"
              told (fun () -> CSharp.Streams.Step(a, b, [ 0L .. 5L ], [ 6L ], [ 10L ])) "row 10, but there are only 10 rows"

              told
                  (fun () -> CSharp.Streams.Step(a, b, [ 0L .. 5L ], [ 5L ], [ 7L ]))
                  "row 5 in both its train and its validation rows"

              told (fun () -> CSharp.Streams.Step(a, b, [ 0L; 0L ], [ 5L ], [ 7L ])) "name a row twice"
              told (fun () -> CSharp.Streams.Step(a, b, [ 0L .. 5L ], [], [ 7L ])) "no validation rows"
              told (fun () -> CSharp.Streams.FromArrays("mine", [])) "at least one step"
              let step = CSharp.Streams.Step(a, b)
              told (fun () -> CSharp.Streams.FromArrays("mine", [ step; step ])) "2 steps are called 'a–b'"

              told
                  (fun () -> CSharp.Streams.FromArrays("mine", [ step; CSharp.Streams.Step(bank "c" "vision" 10L 5L, b) ]))
                  "a modality has one head"

              told
                  (fun () -> CSharp.Streams.FromArrays("mine", [ step; CSharp.Streams.Step(bank "a" "audio" 10L 4L, b) ]))
                  "different banks are called 'a'"

              let broken = array 1 10L 4L
              broken[7, 2] <- nanf
              told (fun () -> CSharp.Streams.Step(CSharp.Streams.Bank("a", "vision", broken), b)) "row 7")
          test "go through files"
          <| inFolder (fun folder ->
              let path = Path.Combine(folder, "x.npy")
              CSharp.Features.Write(path, CSharp.Features.Of(array 1 5L 3L))
              Expect.equal (CSharp.Features.ToArray(CSharp.Features.Read path)) (array 1 5L 3L) "the numbers") ]

let private heads =
    testList
        "heads"
        [ test "are those that a run ends with" (fun () ->
              use ours = CSharp.Study.On(synthetic ()).Method([ CSharp.Methods.Dns() ]).Each(learn).Seeds([ 1 ]).TrainHeads()

              let plan =
                  Run.plans (Run.on (synthetic ()) |> Run.method Dns.defaults |> Run.each (Learn.epochs 1 >> Learn.batch 16))
                  |> Check.get
                  |> List.head

              let mutable ends = Map.empty

              let observer =
                  { Observer.silent with
                      Save = fun _ heads -> ends <- heads |> Heads.map (fun w -> w.clone().DetachFromDisposeScope()) }

              Train.run (synthetic ()) torch.CPU Split.Test 1 observer plan |> Check.get |> ignore

              for KeyValue(m, w) in ends do
                  identical m.Name ours.Weights[m.Name] w
                  w.Dispose()

              Expect.equal ours.Weights.Count 4 "modalities"

              Expect.equal
                  (ours.About["method"], ours.About["seed"], ours.About["step"], ours.About["bias"])
                  ("dns", "1", "6", "no")
                  "where from")
          test "apply as the command applies them, and find the nearest"
          <| inFolder (fun folder ->
              use trained = CSharp.Study.On(synthetic ()).Method([ CSharp.Methods.Vanilla() ]).Each(learn).TrainHeads()
              let path = Path.Combine(folder, "heads.safetensors")
              trained.Save path
              use heads = CSharp.Heads.Read path
              Expect.equal heads.About["method"] "vanilla" "where from"
              let x = array 1 7L 16L
              let features = CSharp.Features.Of x

              for scoring, theirs in [ CSharp.Scoring.Raw, Scoring.Raw; CSharp.Scoring.Cosine, Scoring.Cosine ] do
                  let expected =
                      Projected.blocks theirs "x" (Projected.plain heads.Weights["text"]) features |> Array.ofSeq |> torch.cat

                  identical "outputs" (heads.Apply("text", features, scoring)) expected
                  Expect.equal (heads.Apply("text", x, scoring)) (CSharp.Features.ToArray expected) "as an array"

                  let others = CSharp.Features.Of(array 2 20L 16L)
                  let found = CSharp.Nearest.Search(expected, others, 3, scoring) |> Seq.map List.ofSeq |> List.ofSeq
                  let theirs = Nearest.search theirs 3 expected others |> Seq.map List.ofArray |> List.ofSeq
                  Expect.equal found theirs "the nearest"

              Expect.stringContains (raised (fun () -> heads.Apply("smell", features))).Message "no head 'smell'" "a modality"
              Expect.stringContains (raised (fun () -> heads.Apply("text", array 1 2L 15L))).Message "got 15" "columns"

              Expect.stringContains
                  (raised (fun () -> CSharp.Heads.Read(Path.Combine(folder, "none")))).Message
                  "does not exist"
                  "no file")
          test "of what does not train there are none" (fun () ->
              let none = CSharp.Study.On(synthetic ()).Method([ CSharp.Methods.ZeroShot() ])
              Expect.stringContains (raised none.TrainHeads).Message "does not train" "the sentence") ]

// ---- the sample --------------------------------------------------------------------------------------------------

let private sample =
    testList
        "sample"
        [ test "trains, prints its table, writes its plot; and goes on where it was"
          <| inFolder (fun folder ->
              let run () =
                  start "dotnet" [ Path.Combine(AppContext.BaseDirectory, "Cmcl.Sample.dll"); "--small"; "--out"; folder ]
                  |> finish

              let code, said = run ()
              Expect.equal code 0 said

              for line in [ @"^synthetic: "; @"^   6  depth:3–audio:3, 420 pairs"; @"^dns is worst at step \d, " ] do
                  Expect.isTrue (Regex.IsMatch(said, line, RegexOptions.Multiline)) $"{line} in\n{said}"

              let table (said: string) =
                  [ for m in Regex.Matches(said, @"^\S+ +-?\d+\.\d %.*$", RegexOptions.Multiline) -> m.Value ]

              Expect.equal
                  [ for row in table said -> row.Split(' ')[0] ]
                  [ "vanilla"; "dns"; "dns[place=gradient]" ]
                  "rows of the table"

              Expect.isTrue (FileInfo(Path.Combine(folder, "deviation.html")).Length > 1_000_000L) "a page with plotly inside"
              let code, again = run ()
              Expect.equal (code, table again) (0, table said) "the same again")
          test "tells what is wrong in the library's words"
          <| inFolder (fun folder ->
              let file = Path.Combine(folder, "taken")
              File.WriteAllText(file, "")

              let code, said =
                  start "dotnet" [ Path.Combine(AppContext.BaseDirectory, "Cmcl.Sample.dll"); "--small"; "--out"; file ]
                  |> finish

              Expect.equal code 1 said
              Expect.stringContains said "cannot be written" "the sentence") ]

let tests = testList "C#" [ studies; naming; mistakes; leaving; arrays; heads; sample ]
