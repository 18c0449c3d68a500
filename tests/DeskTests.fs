module Cmcl.Tests.DeskTests

open System
open System.Collections.Concurrent
open System.IO
open Cmcl
open Deedle
open Expecto
open Plotly.NET
open Cmcl.Tests.Checks
open Cmcl.Tests.Processes
open TorchSharp

/// Three small steps, so that a study of a few methods takes a second.
let private stream =
    lazy
        (let rows purpose =
            // It outlives every scope.
            (Seed.normal [ 24L; 6L ] (Seed.ofInt 5 |> Seed.split purpose) |> Alignment.normalise).DetachFromDisposeScope()

         streamOf [ vision, text, rows "1a", rows "1b"; audio, text, rows "2a", rows "2b"; vision, audio, rows "3a", rows "3b" ])

let private study () = Run.on stream.Value |> Run.each (Learn.epochs 2 >> Learn.batch 6) |> Run.quietly

let private sweep () =
    study ()
    |> Run.method Baseline.zeroShot
    |> Run.method Baseline.vanilla
    |> Run.methods ([ Dns.soft ] |> Config.over Dns.tau [ 1e-4; 1e-2 ])
    |> Run.seeds [ 0; 1 ]

let private found = lazy (sweep () |> Run.orders [ 0; 1 ] |> Run.go)

let private isTime (r: Row) = r.Metric.StartsWith "seconds" || r.Metric = "pairs_per_second"

/// Rows without times, in an order of their own.
let private figures (r: StudyResult) = r.Rows |> List.filter (isTime >> not) |> List.sort

/// The study, and which of its cells were read and which trained.
let private watched (study: StudyBuilder) : StudyResult * int * int =
    let events = ConcurrentQueue()
    let result = study |> Run.tell events.Enqueue |> Run.go

    let ended before =
        events
        |> Seq.filter (function
            | StudyEvent.Cell(_, CellEvent.Ended(CellEnd.Finished(_, b) | CellEnd.Failed(_, b))) -> b = before
            | _ -> false)
        |> Seq.length

    result, ended true, ended false

let tests =
    testList
        "Desk"
        [ test "a study has the figures of single runs, however many run side by side" (fun () ->
              let alone =
                  [ for order in [ 0 ] do
                        for label in found.Value.Methods do
                            for seed in [ 0; 1 ] do
                                let plan =
                                    Plan.resolve stream.Value.Preset [ "epochs", "2"; "batch", "6" ] [ "vanilla"; label ]
                                    |> Result.defaultWith (fun _ ->
                                        Plan.resolve stream.Value.Preset [ "epochs", "2"; "batch", "6" ] [ label ] |> Check.get)
                                    |> List.last

                                yield!
                                    Train.run (Order.apply order stream.Value) torch.CPU Split.Test seed Observer.silent plan
                                    |> Check.get
                                    |> Lines.rows
                                        { Stream = stream.Value.Name
                                          Method = plan.Label
                                          Order = 0
                                          Seed = seed } ]

              let own = (alone @ Results.aggregates alone) |> List.filter (isTime >> not) |> List.sort
              Expect.equal (figures found.Value) own "figures"
              Expect.equal (figures (sweep () |> Run.jobs 1 |> Run.go)) own "one at a time")

          test "the spread over orders is of all that were run, whatever their numbers" (fun () ->
              let some = study () |> Run.method Baseline.vanilla |> Run.orders [ 0; 2; 5 ] |> Run.go
              let spread = SpreadParts.all [ Metric.find "r10" |> Check.get ] (StudyResult.measured some) |> List.exactlyOne
              Expect.equal (spread.Orders, spread.Cells) (3, 3) "orders and cells")

          test "two labels of one configuration share what is kept, one after the other"
          <| inFolder (fun folder ->
              let both =
                  study ()
                  |> Run.method Dns.defaults
                  |> Run.method (Dns.defaults |> Dns.sides Sides.Dual)
                  |> Run.seeds [ 0; 1 ]
                  |> Run.jobs 2
                  |> Run.into folder

              let result, before, trained = watched both
              Expect.equal (before, trained) (2, 2) "the second label is read"

              let of' label =
                  [ for r in result.Rows do
                        if r.Method = label then
                            r.Seed, r.Step, r.Task, r.Metric, r.Value ]

              Expect.isNonEmpty (of' "dns") "rows"
              Expect.equal (of' "dns[sides=dual]") (of' "dns") "the same results")

          test "the winner of a study has the best recall on validation rows, and runs on test rows"
          <| inFolder (fun folder ->
              let taus = [ Dns.soft ] |> Config.over Dns.tau [ 1e-6; 1e-4; 1e-2; 1.0 ]
              let searched = study () |> Run.method Baseline.vanilla |> Run.methods taus |> Run.seeds [ 0; 1 ]
              let validated = searched |> Run.onValidation |> Run.go

              let recall label =
                  (Measured.spread validated.Stream label (Metric.find "r10" |> Check.get) (StudyResult.measured validated))
                      .Value.Mean

              let winner = searched |> Run.into folder |> Run.winner
              Expect.equal (recall winner.Label) (validated.Methods |> List.map recall |> List.max) "no other is better there"
              Expect.equal (searched |> Run.orders [ 0; 1 ] |> Run.winner).Label winner.Label "whatever orders it has"
              let tested = searched |> Run.into folder |> Run.best |> Run.go
              Expect.equal tested.Methods [ winner.Label ] "it alone"
              Expect.equal tested.Info.Split (string Split.Test) "on test rows"

              let direct = study () |> Run.method winner |> Run.seeds [ 0; 1 ] |> Run.go
              Expect.equal (figures tested) (figures direct) "with the study's settings")

          test "what is set for all is left to the winner as far as it takes it, and a study that fails has no winner" (fun () ->
              let both = study () |> Run.method Baseline.vanilla |> Run.method Dns.soft |> Run.each (Dns.tau 1e-3)
              let chosen = (both |> Run.best |> Run.go).Methods |> List.exactlyOne
              Expect.contains [ "vanilla"; "dns-soft" ] chosen "one of the two"
              let alone = study () |> Run.method Baseline.vanilla |> Run.each (Dns.tau 1e-3)
              Expect.throws (fun () -> alone |> Run.best |> ignore) "which changes nothing"
              let failing = study () |> Run.method (Baseline.vanilla |> Learn.rate 1e300)
              Expect.stringContains (faultOf (fun () -> Run.winner failing)).Message "diverged" "why there is none")

          test "orders are kept apart, and the stream's own is the one of its own" (fun () ->
              Expect.equal (found.Value.Orders.Keys |> List.ofSeq) [ 1 ] "orders"
              Expect.equal (figures (sweep () |> Run.go)) (figures found.Value) "the own order"
              Expect.notEqual (found.Value.Orders[1] |> List.filter (isTime >> not) |> List.sort) (figures found.Value) "another")

          test "what is finished in a folder is read, also by a larger study, and damaged cells are run again"
          <| inFolder (fun folder ->
              let first, read, trained = sweep () |> Run.into folder |> watched
              Expect.equal (read, trained) (0, 8) "at first"
              let again, read, trained = sweep () |> Run.into folder |> watched
              Expect.equal (read, trained) (8, 0) "again"
              Expect.equal again.Rows first.Rows "the same rows, times too"
              Expect.equal (again.Losses, again.Spectra) (first.Losses, first.Spectra) "and curves"

              let _, read, trained = sweep () |> Run.method (Dns.soft |> Dns.tau 1e-3) |> Run.into folder |> watched

              Expect.equal (read, trained) (8, 2) "a larger one"

              for file in Directory.GetFiles(Path.Combine(folder, "cells"), "*.json", SearchOption.AllDirectories) do
                  File.WriteAllText(file, "{")

              let mended, read, trained = sweep () |> Run.into folder |> watched
              Expect.equal (read, trained) (0, 8) "damaged"
              Expect.equal (figures mended) (figures first) "the same figures")

          test "a method of one's own runs, and never from what an earlier version of it left"
          <| inFolder (fun folder ->
              let mine = Config.ofMethod { Plain.vanilla with Name = "mine" }
              let own () = study () |> Run.method mine |> Run.method Baseline.vanilla |> Run.into folder
              let result, _, _ = own () |> watched

              let value label =
                  result.Rows |> List.find (fun r -> r.Method = label && r.When = When.Final && r.Metric = "r10") |> _.Value

              Expect.equal (value "mine") (value "vanilla") "it is vanilla"
              let _, read, trained = own () |> watched
              Expect.equal (read, trained) (1, 1) "vanilla is read, mine is run")

          test "a method that diverges is told, and the others go on" (fun () ->
              let result = study () |> Run.method (Baseline.vanilla |> Learn.rate 1e300) |> Run.method Baseline.vanilla |> Run.go
              Expect.equal (result.Rows |> List.map _.Method |> List.distinct) [ "vanilla" ] "what is left"
              Expect.stringContains (string result) "1 ended early" "told"
              Expect.stringContains (string result) "diverged" "why")

          test "a method that breaks off is told by name, and the others go on"
          <| inFolder (fun folder ->
              let raising name act =
                  { Plain.vanilla with Name = name }
                  |> Method.beginning (fun c m h t ->
                      act ()
                      (Method.trainer Plain.vanilla).Begin c m h t)
                  |> Config.ofMethod

              for place in [ id; Run.into folder ] do
                  let result =
                      study ()
                      |> Run.method (raising "mine" (fun () -> failwith "my mistake"))
                      |> Run.method Baseline.vanilla
                      |> Run.method (raising "shapes" (fun () -> torch.ones([| 2L; 2L |]).mm(torch.ones [| 3L; 3L |]) |> ignore))
                      |> Run.seeds [ 0; 1 ]
                      |> place
                      |> Run.go

                  Expect.equal (result.Rows |> List.map _.Method |> List.distinct) [ "vanilla" ] "what is left"

                  Expect.equal
                      [ for label, seed, _ in result.Info.Failures -> label, seed ]
                      [ "mine", "0"; "mine", "1"; "shapes", "0"; "shapes", "1" ]
                      "each"

                  for label, seed, why in result.Info.Failures do
                      Expect.stringStarts why $"{label} (seed {seed}) broke off: " "by name"
                      Expect.isFalse (why.Contains '\n') "one line"

                  Expect.stringContains (string result) "my mistake" "told")

          test "a result that cannot be kept ends the study, and is given all the same" (fun () ->
              onSmallDisk 400 (fun folder _ ->
                  let told = ResizeArray()
                  let filler = ref None

                  let tell event =
                      match event with
                      | StudyEvent.Cell({ Seed = 0 }, CellEvent.Ended(CellEnd.Finished _)) ->
                          filler.Value <- Some(filled (Path.Combine(folder, "filler")))
                      | StudyEvent.Unwritten fault -> told.Add fault.Message
                      | _ -> ()

                  let result =
                      study ()
                      |> Run.method Baseline.vanilla
                      |> Run.seeds [ 0..5 ]
                      |> Run.jobs 1
                      |> Run.into (Path.Combine(folder, "study"))
                      |> Run.tell tell
                      |> Run.go

                  Expect.equal (List.length result.Seeds) 2 "the one that was kept, and the one that could not be"
                  Expect.equal told.Count 1 "told once"
                  Expect.equal result.Info.Failures.Length 4 "what was not run"
                  Expect.stringContains (string result) "cannot be written" "why"
                  Option.iter (fun (file: FileStream) -> file.Dispose()) filler.Value))

          test "a study's folder has one writer"
          <| inFolder (fun folder ->
              let one () = study () |> Run.method Baseline.vanilla |> Run.into folder

              let tell event =
                  match event with
                  | StudyEvent.Began _ ->
                      match faultOf (fun () -> Run.go (one ())) with
                      | Fault.Held _ -> ()
                      | other -> failtest other.Message
                  | _ -> ()

              one () |> Run.tell tell |> Run.go |> ignore)

          test "what cannot be run is refused before anything runs, all faults at once" (fun () ->
              let message build = (faultOf (fun () -> study () |> build |> Run.go)).Message
              Expect.stringContains (message id) "Run.method" "no method"
              Expect.stringContains (message (Run.method Baseline.vanilla >> Run.method Baseline.vanilla)) "named twice" "twice"
              let wrong = Dns.defaults |> Dns.exact true |> Dns.place Place.Gradient
              let two = message (Run.method wrong >> Run.method (Config.any Dns.defaults |> Dns.tau 1.0))
              Expect.stringContains two "exact=on" "the first"
              Expect.stringContains two "'tau'" "and the second"
              Expect.stringContains (message (Run.method Baseline.vanilla >> Run.each (Learn.batch 4000))) "4000" "batch"

              for seeds in [ []; [ 1; 1 ]; [ -1 ] ] do
                  Expect.stringContains
                      (faultOf (fun () -> study () |> Run.seeds seeds)).Message
                      "seeds of a study"
                      (string seeds)

              Expect.stringContains
                  (faultOf (fun () -> study () |> Run.orders [ 6 ])).Message
                  "from 0 to 5"
                  "orders of three steps"

              Expect.stringContains
                  (faultOf (fun () -> study () |> Run.orders [ 1; 2 ])).Message
                  "the stream's own"
                  "orders without the own"

              Expect.stringContains (faultOf (fun () -> study () |> Run.jobs 0)).Message "≥ 1" "jobs")

          test "a study that is saved is read back, and its report is that of a folder"
          <| inFolder (fun folder ->
              let report = Report.save folder found.Value
              let back = Report.read folder
              Expect.equal back { found.Value with Orders = Map.empty } "everything but other orders"
              Expect.equal (Report.read (Path.Combine(folder, "order-1"))).Rows found.Value.Orders[1] "those"
              Expect.equal (File.ReadAllText report) (Report.page back) "report")

          test "results of one stream are joined, those of two are not" (fun () ->
              let one = study () |> Run.method Baseline.vanilla |> Run.go
              let two = study () |> Run.method Dns.defaults |> Run.go
              let both = Report.join [ one; two; one ]
              Expect.equal both.Methods [ "vanilla"; "dns" ] "methods"
              Expect.equal both.Rows (one.Rows @ two.Rows) "rows once"

              let foreign =
                  { two with
                      Rows = two.Rows |> List.map (fun r -> { r with Stream = "other" }) }

              Expect.stringContains (faultOf (fun () -> Report.join [ one; foreign ])).Message "'other'" "refused")

          test "the frame has a row a method, order and seed, options that differ, and metrics as they are" (fun () ->
              let frame = Report.frame found.Value
              Expect.equal frame.RowCount 16 "rows"
              let column name = frame.GetColumn<string>(name).Values |> Seq.distinct |> List.ofSeq
              Expect.equal (column "tau") [ ""; "0.0001"; "0.01" ] "the option"
              Expect.equal (column "family") [ "zero-shot"; "vanilla"; "dns-soft" ] "families"

              let r10 = frame.GetColumn<float>("r10").Values |> Array.ofSeq

              let direct =
                  found.Value.Rows
                  |> List.find (fun r -> r.Method = "vanilla" && r.Seed = 1 && r.When = When.Final && r.Metric = "r10")

              let place =
                  Seq.zip3
                      (frame.GetColumn<string>("method").Values)
                      (frame.GetColumn<int>("order").Values)
                      (frame.GetColumn<int>("seed").Values)
                  |> Seq.findIndex ((=) ("vanilla", 0, 1))

              Expect.equal r10[place] direct.Value "a figure"
              Expect.equal (frame.GetColumn<float>("deviation_rel").ValueCount) 12 "none for zero-shot: it is missing"
              Expect.equal (Report.longFrame found.Value).RowCount (2 * found.Value.Rows.Length) "tidy")

          test "a table says mean ± sd, as text, Markdown and HTML" (fun () ->
              let t = Report.tableOf [ "r10"; "deviation_rel" ] found.Value
              Expect.equal t.Head [ "method"; "R@10 % ↑"; "Deviation ↓" ] "head"

              Expect.equal
                  (t.Rows |> List.map List.head)
                  [ "vanilla"; "dns-soft[tau=0.0001]"; "dns-soft[tau=0.01]"; "zero-shot" ]
                  "rows"

              Expect.stringContains t.Text " ± " "spread"
              let narrow = TextTable.make "t" [ "a"; "b<c" ] [ [ "x|y"; "1" ] ] |> TextTable.note "n&m"
              Expect.equal narrow.Text "t\na    b<c\n────────\nx|y    1\nn&m" "text"
              Expect.stringContains (narrow.ToMarkdown()) "| x\\|y | 1 |" "Markdown"
              Expect.stringContains (narrow.ToHtml()) "b&lt;c" "HTML"
              Expect.isFalse ((narrow.ToHtml()).Contains "b<c") "nothing gets out of its cell"

              match faultOf (fun () -> TextTable.make "t" [ "a" ] [ [ "1"; "2" ] ]) with
              | Fault.Shape _ -> ()
              | other -> failtest other.Message)

          test "charts of a sweep join what an option was varied in, and what lacks it is a level" (fun () ->
              let names (chart: GenericChart) =
                  [ for trace in GenericChart.getTraces chart ->
                        string (trace.TryGetTypedPropertyValue<string> "name" |> Option.get),
                        (trace.TryGetTypedPropertyValue<seq<float>> "x" |> Option.get) |> Seq.length ]

              let lines = names (Plot.against "tau" "r10" found.Value)
              Expect.equal (set lines) (set [ "dns-soft", 2; "vanilla", 2; "zero-shot", 2 ]) "against"
              Expect.equal (set (names (Plot.path "tau" found.Value))) (set [ "dns-soft", 2; "vanilla", 1 ]) "path")

          test "parts of a study: some methods, what is largest in a run, options as columns, a frame as a table" (fun () ->
              let r = found.Value
              let soft = Report.only [ "dns-soft[tau=0.01]" ] r
              Expect.equal soft.Methods [ "dns-soft[tau=0.01]" ] "one method"
              Expect.equal soft.Orders.Count r.Orders.Count "all orders"
              Expect.stringContains (faultOf (fun () -> Report.only [ "vanila" ] r)).Message "vanilla" "nearest"

              let ofSeed seed =
                  [ for row in r.Rows do
                        if
                            row.Method = "vanilla" && row.Seed = seed && row.Metric = "deviation_rel" && row.When <> When.Final
                        then
                            row.Value ]
                  |> List.max

              Expect.equal (Report.largest "deviation_rel" "vanilla" r) (Transfer.meanSd [ ofSeed 0; ofSeed 1 ]) "largest"
              Expect.isNone (Report.largest "deviation_rel" "zero-shot" r) "it has none"

              let table = Report.settings [ "r10" ] r
              Expect.equal table.Head [ "method"; "tau"; "R@10 % ↑" ] "what varies within a method"

              Expect.equal
                  (table.Rows |> List.map (List.take 2))
                  [ [ "vanilla"; "–" ]; [ "dns-soft"; "0.0001" ]; [ "dns-soft"; "0.01" ]; [ "zero-shot"; "–" ] ]
                  "options in columns"

              let wider = table |> TextTable.column "n" [ "1"; "2"; "3"; "4" ]
              Expect.equal (wider.Rows |> List.map List.last) [ "1"; "2"; "3"; "4" ] "a column"
              Expect.stringContains (faultOf (fun () -> TextTable.column "n" [ "1" ] table)).Message "4 texts" "too few"

              let cells = Report.frame r |> Report.ofFrame "cells"
              let deviation = List.findIndex ((=) "deviation_rel") cells.Head
              Expect.equal (cells.Rows |> List.filter (fun row -> row[deviation] = "") |> List.length) 4 "missing is empty"
              Expect.equal cells.Rows.Length 16 "a row a run")

          test "what is set for all and by each again is refused" (fun () ->
              let fault = faultOf (fun () -> study () |> Run.method (Dns.soft |> Learn.epochs 1) |> Run.go)
              Expect.stringContains fault.Message "'epochs=2'" "which"

              let one = study () |> Run.method (Dns.soft |> Learn.epochs 1) |> Run.method Baseline.vanilla
              Expect.isOk (Run.plans one) "one method keeps to it")

          test "curves go through the methods of a series, and dots name each" (fun () ->
              let r = found.Value
              let labels = [ "dns-soft[tau=0.01]"; "dns-soft[tau=0.0001]" ]
              let chart = Plot.curves "deviation_rel" "r10" [ "soft", labels ] r

              let drawn (axis: string) (chart: GenericChart) =
                  [ for trace in GenericChart.getTraces chart do
                        yield! trace.TryGetTypedPropertyValue<seq<float>> axis |> Option.get ]

              let mean metric label =
                  (Measured.spread r.Stream label (Metric.find metric |> Check.get) (StudyResult.measured r)).Value.Mean

              Expect.equal (drawn "x" chart) [ for label in labels -> mean "deviation_rel" label ] "in their order"
              Expect.equal (drawn "y" chart) [ for label in labels -> 100.0 * mean "r10" label ] "per cent"
              let spread value = { Mean = value; Sd = None; Count = 1 }
              let dots = Plot.dots ("x", true) [ "a", spread 1e-3; "b", spread 0.0; "c", spread 1.0 ]
              Expect.equal (drawn "x" dots, drawn "y" dots) ([ 1e-3; 1.0 ], [ 3.0; 1.0 ]) "none for what is not positive")

          test "every chart can be made of a study, and asks for methods that there are" (fun () ->
              let r = found.Value

              for chart in
                  [ Plot.matrix "r10" "vanilla" r
                    Plot.forgetting "r10" 1 r
                    Plot.backward "r10" r
                    Plot.deviation r
                    Plot.certificate "dns-soft[tau=0.01]" r
                    Plot.tradeOff "learned_r10" r
                    Plot.losses r
                    Plot.spectrum "dns-soft[tau=0.01]" 3 vision r
                    Plot.metric "r10" r
                    Plot.frontier r ] do
                  Expect.isNonEmpty (GenericChart.getTraces chart) (GenericChart.toFigureJson chart)

              Expect.stringContains (faultOf (fun () -> Plot.certificate "vanila" r)).Message "vanilla" "nearest")

          test "a sheet is one page that needs no network"
          <| inFolder (fun folder ->
              let path =
                  Sheet.make "A <title>" "note"
                  |> Sheet.table (Report.table found.Value)
                  |> Sheet.text "words"
                  |> Sheet.chart "Deviation" "lower is better" (Plot.deviation found.Value)
                  |> Sheet.command "dotnet fsi x.fsx"
                  |> Sheet.save (Path.Combine(folder, "deep", "page.html"))

              let html = File.ReadAllText path
              let page = html.Split("<script id=\"figures\"")[0]

              for part in [ "A &lt;title&gt;"; "words"; "lower is better"; "dotnet fsi x.fsx"; "vanilla" ] do
                  Expect.stringContains page part part

              for part in [ "http"; "src="; "@import" ] do
                  Expect.isFalse (page.Contains part) part)

          test "a chart is shown in a line" (fun () ->
              let shown = Show.chart (Plot.deviation found.Value)
              Expect.stringStarts shown "a chart of vanilla, dns-soft[tau=" shown
              Expect.isFalse (shown.Contains '\n') shown
              let many = Chart.combine [ for i in 1..9 -> Chart.Point([ 1, i ], Name = $"t{i}") ]
              Expect.stringContains (Show.chart many) "t6 and 3 more" "many traces")

          test "tensors and what is made of them are shown in a few lines" (fun () ->
              let text = Show.tensor (Tensors.ofRows [ [ 1.0; 2.5 ]; [ -3.0; 1e-9 ] ])
              Expect.equal text "float64 [2 × 2]: -3 … 2.5, mean 0.125, norm 4.0311\n   1      2.5\n  -3  1.00e-9" "a matrix"
              Expect.equal (Show.tensor (torch.tensor 2.5)) "float64 a number: 2.5" "a number"
              let large = Show.tensor (torch.zeros (100L, 100L))
              Expect.equal (large.Split '\n').Length 8 "corners of a large one"
              Expect.stringContains (Show.tensor (torch.tensor [| 1.0; nan |])) "1 of 2 not finite" "NaN"
              Expect.stringContains (Show.stream stream.Value) "3 steps over 3 modalities" "a stream"
              let first = stream.Value.Steps.Head
              Expect.stringContains (Show.bank first.A) "float64 [24 × 6]" "a bank"
              Expect.stringContains (Show.step first) $"{first.A.Name} with {first.B.Name}, " "a step"
              let m = Moment.ofRows (torch.eye (4L, dtype = torch.float64))
              Expect.stringContains (Show.moment m) "4 rows in 4 dimensions: trace 1, rank 4" "a moment") ]
