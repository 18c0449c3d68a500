module Cmcl.Tests.CompareTests

open System
open System.IO
open System.Text.Json
open Expecto
open Cmcl
open Cmcl.Tests.ResultsTests

let private evil = "a_b & c<script>alert(1)</script>%#$^~\\{|}"
let private long = "dns[threshold=trace:3e-3;exact=on]"

/// The figures of one cell: final recall@10, and its deviation.
type private Given = { Recall: float; Deviation: float option }

let private rowsFor (given: Given) : Row list =
    [ for step, one, two in [ "0", 0.1, 0.2; "1", 0.6, 0.3; "2", given.Recall, given.Recall ] do
          row "m" 0 step "1" "r10" one
          row "m" 0 step "2" "r10" two
      match given.Deviation with
      | Some x ->
          row "m" 0 "2" "1" "deviation_rel" x
          row "m" 0 "2" "2" "seconds_train" 2.0
          row "m" 0 "2" "2" "bytes_state" 100.0
      | None -> () ]

let private cell order method seed : Cell =
    { Stream = "toy"
      Method = method
      Order = order
      Seed = seed }

let private stable recall deviation = { Recall = recall; Deviation = Some deviation }

/// Methods, each with what its seeds have in each order: None where it failed.
let private comparison (methods: (string * Given option list list) list) : Comparison =
    { Methods = [ for label, _ in methods -> label, Roles.find Map.empty label ]
      Streams = [ "toy" ]
      Seeds = [ 0 .. (methods |> List.collect snd |> List.map List.length |> List.max) - 1 ]
      Orders = methods |> List.map (fun (_, orders) -> orders.Length) |> List.max
      Cells =
        [ for label, orders in methods do
              for order, seeds in List.indexed orders do
                  for seed, given in List.indexed seeds ->
                      cell order label seed,
                      match given with
                      | Some given -> CellState.Finished(rowsFor given)
                      | None -> CellState.Failed "it \"diverged\", sadly" ]
      Command = "cmcl compare --stream toy" }

let private one (methods: (string * Given option list) list) = comparison [ for label, seeds in methods -> label, [ seeds ] ]

let private metric name = Metric.find name |> Check.get
let private columns = List.map metric

let private table names c = CompareTable.make (columns names) "toy" (Measured.ofComparison c)

let private best name c =
    [ for r in (table [ name ] c).Rows do
          if r.Cells.Head.Best then
              r.Method ]

let private values recalls = [ for x in recalls -> Some(stable x 0.1) ]

let private full =
    one
        [ "vanilla", [ Some(stable 0.30 0.5); Some(stable 0.32 0.5); Some(stable 0.31 0.5) ]
          "dns", [ Some(stable 0.40 0.1); Some(stable 0.41 0.1); Some(stable 0.44 0.1) ]
          long, [ Some(stable 0.42 0.2); None; Some(stable 0.43 0.2) ]
          evil, [ Some(stable 0.2 0.3); Some(stable 0.21 0.3); Some(stable 0.22 0.3) ]
          "joint", [ for x in [ 0.5; 0.5; 0.5 ] -> Some { Recall = x; Deviation = None } ] ]

let private decoded (html: string) : string = Net.WebUtility.HtmlDecode html |> Option.ofObj |> Option.defaultValue ""

let private page (c: Comparison) = ComparePage.build Metric.paper true (Some "dns") (Measured.ofComparison c)

/// Without the page's scripts.
let private words (html: string) = html.Split("<script id=\"figures\"")[0]

let private has (text: string) (part: string) = Expect.isTrue (text.Contains(part, StringComparison.Ordinal)) $"has {part}"

let private differencesOf name c = Differences.all (columns [ name ]) "dns" (Measured.ofComparison c)

let private near (expected: float) (actual: float) name =
    Expect.isLessThan (abs (actual - expected)) 1e-9 $"{name}: {actual} for {expected}"

let private written (c: Comparison) (test: string -> unit) =
    inFolder (fun folder ->
        CompareFiles.write folder [] None c |> Check.get |> ignore
        test folder)

let private differences =
    testList
        "Differences"
        [ testCase "Student's t as the tables have it" (fun () ->
              for n, expected in [ 2, 12.706; 3, 4.303; 5, 2.776; 10, 2.262; 31, 2.042; 121, 1.980 ] do
                  Expect.isLessThan (abs (Differences.quantile n - expected)) 6e-4 $"n = {n}")

          testCase "an interval by hand" (fun () ->
              let c = one [ "dns", values [ 0.10; 0.20; 0.30 ]; "other", values [ 0.13; 0.24; 0.35 ] ]

              match differencesOf "r10" c with
              | [ d ] ->
                  near 0.04 d.Over.Mean "mean"
                  near 0.01 d.Over.Sd.Value "sd"
                  let low, high = d.Interval.Value
                  let half = 4.302652729696142 * 0.01 / sqrt 3.0
                  near (0.04 - half) low "low"
                  near (0.04 + half) high "high"
              | other -> failtest $"{other}")

          testCase "only seeds that both have" (fun () ->
              let c =
                  one
                      [ "dns", [ Some(stable 0.1 0.1); None; Some(stable 0.2 0.1) ]
                        "other", [ None; Some(stable 0.9 0.1); Some(stable 0.5 0.1) ] ]

              match differencesOf "r10" c with
              | [ d ] ->
                  near 0.3 d.Over.Mean "mean"
                  Expect.equal (d.Over.Count, d.Interval) (1, None) "one seed has no interval"
              | other -> failtest $"{other}")

          testCase "another order is not mixed in" (fun () ->
              let c =
                  comparison
                      [ "dns", [ values [ 0.1; 0.1 ]; values [ 0.9; 0.9 ] ]
                        "other", [ values [ 0.2; 0.2 ]; values [ 0.3; 0.3 ] ] ]

              near 0.1 (differencesOf "r10" c).Head.Over.Mean "mean")

          testCase "pairing takes out what seeds share" (fun () ->
              let draw = Random 1
              let shared = [ for _ in 1..8 -> draw.NextDouble() ]
              let c = one [ "dns", values shared; "other", values [ for x in shared -> x + 0.01 ] ]
              let d = (differencesOf "r10" c).Head
              Expect.isLessThan d.Over.Sd.Value 1e-12 "sd of the differences")

          testCase "what the others are held against" (fun () ->
              let against wanted labels =
                  Differences.against wanted (Measured.ofComparison (one [ for l in labels -> l, values [ 0.1 ] ]))

              Expect.equal (against None [ "vanilla"; "dns" ]) (Ok(Some "dns")) "dns"
              Expect.equal (against None [ "zero-shot"; "ewc"; "vanilla" ]) (Ok(Some "ewc")) "the first that trains step by step"
              Expect.equal (against (Some "vanilla") [ "vanilla"; "dns" ]) (Ok(Some "vanilla")) "named"

              match against (Some "vanila") [ "vanilla"; "dns" ] with
              | Error [ fault ] -> Expect.stringContains fault.Message "did you mean 'vanilla'" "message"
              | other -> failtest $"{other}") ]

let private orders =
    testList
        "orders"
        [ testCase "by hand" (fun () ->
              let c = comparison [ "m", [ values [ 0.1; 0.3 ]; values [ 0.4; 0.5; 0.6 ] ] ]

              match SpreadParts.all (columns [ "r10" ]) (Measured.ofComparison { c with Seeds = [ 0; 1; 2 ] }) with
              | [ o ] ->
                  near 0.35 o.Mean "mean of 0.2 and 0.5"
                  near (sqrt (0.04 / 3.0)) o.SdSeeds.Value "(0.02 + 0.02) over 1 + 2"
                  near (0.3 / sqrt 2.0) o.SdOrders.Value "of 0.2 and 0.5"
                  Expect.equal (o.Orders, o.Cells) (2, 5) "counts"
              | other -> failtest $"{other}")

          testCase "one seed an order has no deviation over seeds" (fun () ->
              let c = comparison [ "m", [ values [ 0.1 ]; values [ 0.3 ] ] ]
              let o = (SpreadParts.all (columns [ "r10" ]) (Measured.ofComparison c)).Head
              Expect.isNone o.SdSeeds "seeds"
              near (0.2 / sqrt 2.0) o.SdOrders.Value "orders")

          testCase "a shift of whole orders leaves the deviation over seeds" (fun () ->
              let spread by =
                  let c = comparison [ "m", [ values [ 0.1; 0.2 ]; values [ 0.3 + by; 0.5 + by ] ] ]
                  (SpreadParts.all (columns [ "r10" ]) (Measured.ofComparison c)).Head

              near (spread 0.0).SdSeeds.Value (spread 0.3).SdSeeds.Value "seeds"
              Expect.isGreaterThan (spread 0.3).SdOrders.Value (spread 0.0).SdOrders.Value "orders") ]

/// Splits, each with what its seeds have.
let private split (methods: (string * Given option list list) list) : Comparison =
    let c = comparison methods

    let moved (cell: Cell) =
        { cell with
            Stream = Resplit.name "toy" cell.Order
            Order = 0 }

    { c with
        Orders = 1
        Cells = [ for cell, state in c.Cells -> moved cell, state ] }

let private splits =
    testList
        "splits"
        [ testCase "the parts of a spread by hand" (fun () ->
              let c = split [ "m", [ values [ 0.1; 0.3 ]; values [ 0.4; 0.6 ] ] ]

              match SpreadParts.all (columns [ "r10" ]) (Measured.ofComparison c) with
              | [ s ] ->
                  near 0.35 s.Mean "mean"
                  near (sqrt (0.02 / 1.0)) s.SdSeeds.Value "seeds: (0.02 + 0.02) over 1 + 1"
                  near (0.3 / sqrt 2.0) s.SdSplits.Value "splits: of 0.2 and 0.5"
                  near (sqrt (0.13 / 3.0)) s.Sd.Value "all"
                  Expect.equal (s.Splits, s.Orders, s.Cells, s.SdOrders) (2, 2, 4, None) "counts"
              | other -> failtest $"{other}")

          testCase "splits crossed with orders" (fun () ->
              let c = comparison [ "m", [ values [ 0.1; 0.3 ]; values [ 0.4; 0.6 ] ] ]

              let shifted =
                  [ for cell, state in c.Cells do
                        match state with
                        | CellState.Finished _ ->
                            let recall = 0.1 + 0.3 * float cell.Order + 0.2 * float cell.Seed
                            { cell with Stream = "toy[split=1]" }, CellState.Finished(rowsFor (stable (recall + 0.2) 0.1))
                        | other -> cell, other ]

              match SpreadParts.all (columns [ "r10" ]) (Measured.ofComparison { c with Cells = c.Cells @ shifted }) with
              | [ s ] ->
                  near 0.45 s.Mean "mean"
                  near (sqrt 0.02) s.SdSeeds.Value "seeds"
                  near (0.3 / sqrt 2.0) s.SdOrders.Value "orders, within either split"
                  near (0.2 / sqrt 2.0) s.SdSplits.Value "splits"
                  Expect.equal (s.Splits, s.Orders, s.Cells) (2, 4, 8) "counts"
              | other -> failtest $"{other}")

          testCase "one table for all splits, whose seeds are no more splits" (fun () ->
              let c =
                  split
                      [ "dns", [ values [ 0.1; 0.2 ]; values [ 0.3; 0.4 ] ]
                        "vanilla", [ values [ 0.1; 0.1 ]; [ Some(stable 0.2 0.1); None ] ] ]

              let t = table [ "r10" ] c
              near 0.25 t.Rows[0].Cells[0].Spread.Value.Mean "mean over all"
              Expect.equal t.Rows[0].Cells[0].Spread.Value.Count 4 "cells"
              Expect.equal (t.Asked, CompareTable.mark t t.Rows[1].Cells[0]) (4, " (3/4)") "one failed"
              Expect.exists t.Notes _.Contains("over 2 splits of the items") "told"
              Expect.equal (differencesOf "r10" c).Head.Over.Count 2 "a difference for each split")

          testCase "paired differences by split, of the seeds that both have" (fun () ->
              let c =
                  split
                      [ "dns", [ values [ 0.10; 0.20 ]; values [ 0.30; 0.40 ]; values [ 0.2; 0.2 ] ]
                        "other", [ values [ 0.11; 0.23 ]; [ Some(stable 0.35 0.1); None ]; values [ 0.26; 0.28 ] ] ]

              let d = (differencesOf "r10" c).Head
              // By split 0.02, 0.05, 0.07.
              near (0.14 / 3.0) d.Over.Mean "mean"
              near 0.025166114784235836 d.Over.Sd.Value "sd"
              // R: t.test(c(.02, .05, .07)).
              Expect.isLessThan (abs (d.P.Value - 0.0849)) 5e-4 $"p, {d.P}")

          testCase "the page has it" (fun () ->
              let c =
                  split
                      [ "dns", [ values [ 0.1; 0.2 ]; values [ 0.3; 0.4 ] ]
                        "vanilla", [ values [ 0.1; 0.1 ]; values [ 0.2; 0.2 ] ] ]

              let html = page c |> words |> decoded
              has html "2 splits of the items"
              has html "paired splits"
              has html "that over splits"

              written c (fun folder ->
                  let files = Directory.GetFiles folder |> Array.map Path.GetFileName
                  Expect.contains files "spread.csv" "the parts"
                  Expect.contains files "table-toy.md" "one table")) ]

let private significance =
    testList
        "significance"
        [ testCase "p of the t-test as the tables have it" (fun () ->
              for n, t in [ 2, 12.706; 3, 4.303; 5, 2.776; 10, 2.262; 31, 2.042 ] do
                  let p = Differences.p { Mean = t / sqrt (float n); Sd = Some 1.0; Count = n }
                  Expect.isLessThan (abs (p.Value - 0.05)) 1e-4 $"n = {n}"

              Expect.equal (Differences.p { Mean = 0.1; Sd = None; Count = 1 }) None "one"
              Expect.equal (Differences.p { Mean = 0.0; Sd = Some 0.0; Count = 3 }) (Some 1.0) "no difference"
              Expect.equal (Differences.p { Mean = 0.1; Sd = Some 0.0; Count = 3 }) (Some 0.0) "always the same difference")

          testCase "an interval leaves out zero exactly where p is below 5 %" (fun () ->
              let draw = Random 3

              for _ in 1..200 do
                  let s = [ for _ in 1..4 -> 0.5 + draw.NextDouble() - 0.7 ] |> Transfer.meanSd |> Option.get
                  let low, high = (Differences.interval s).Value
                  Expect.equal (low > 0.0 || high < 0.0) ((Differences.p s).Value < 0.05) $"{s}")

          testCase "Holm's correction as R has it" (fun () ->
              let same (ps: float list) (expected: float list) =
                  for a, b in List.zip (Differences.holm ps) expected do
                      near b a $"{ps}"

              same [ 0.01; 0.04; 0.03 ] [ 0.03; 0.06; 0.06 ]
              same [ 0.5; 0.001; 0.02; 0.6 ] [ 1.0; 0.004; 0.06; 1.0 ]
              same [] []
              same [ 0.2 ] [ 0.2 ])

          testCase "intervals of 95 % cover in 93 to 97 % of 1,000 repetitions" (fun () ->
              use _ = TorchSharp.torch.NewDisposeScope()
              let draws = (Seed.normal [ 1000L; 5L ] (Seed.ofInt 1)).data<float>().ToArray()

              let covers =
                  [ for k in 0..999 do
                        let s = [ for i in 0..4 -> 0.3 + 2.0 * draws[5 * k + i] ] |> Transfer.meanSd |> Option.get
                        let low, high = (Differences.interval s).Value
                        if low <= 0.3 && 0.3 <= high then 1.0 else 0.0 ]
                  |> List.average

              Expect.isTrue (covers >= 0.93 && covers <= 0.97) $"covered in {100.0 * covers} %%")

          testCase "seeds that share their split are not as many splits" (fun () ->
              // Splits differ, seeds hardly: an interval over all cells would nearly always miss.
              use _ = TorchSharp.torch.NewDisposeScope()
              let draws = (Seed.normal [ 300L; 4L ] (Seed.ofInt 2)).data<float>().ToArray()

              let covered (collect: float list list -> float list) =
                  [ for k in 0..299 do
                        let ofSplits = [ for i in 0..3 -> [ for seed in 1..5 -> draws[4 * k + i] + 1e-3 * float seed ] ]
                        let low, high = (ofSplits |> collect |> Transfer.meanSd |> Option.get |> Differences.interval).Value
                        if low <= 0.0 && 0.0 <= high then 1.0 else 0.0 ]
                  |> List.average

              Expect.isGreaterThan (covered (List.map List.average)) 0.92 "by split"
              Expect.isLessThan (covered List.concat) 0.75 "by cell it must fail") ]

let private tables =
    testList
        "CompareTable"
        [ testCase "best is highest or lowest, as the metric has it" (fun () ->
              let c = one [ "a", [ Some(stable 0.4 0.5) ]; "b", [ Some(stable 0.3 0.2) ] ]
              Expect.equal (best "r10" c) [ "a" ] "higher"
              Expect.equal (best "deviation_rel" c) [ "b" ] "lower"
              Expect.equal (best "replayed" c) [] "neither")

          testCase "ties to the places shown are all best" (fun () ->
              Expect.equal
                  (best "r10" (one [ "a", values [ 0.41231 ]; "b", values [ 0.41229 ]; "c", values [ 0.4120 ] ]))
                  [ "a"; "b" ]
                  "ties")

          testCase "bounds do not compete, and alone there is no contest" (fun () ->
              Expect.equal
                  (best "r10" (one [ "a", values [ 0.1 ]; "b", values [ 0.2 ]; "joint", values [ 0.9 ] ]))
                  [ "b" ]
                  "bound"

              Expect.equal (best "r10" (one [ "a", values [ 0.1 ]; "joint", values [ 0.9 ] ])) [] "alone")

          testCase "a method that does not train step by step is a bound whatever its name" (fun () ->
              let c = one [ "a", values [ 0.1 ]; "b", values [ 0.2 ]; "new", values [ 0.9 ] ]

              let c =
                  { c with
                      Methods = [ "a", Role.Competitor; "b", Role.Competitor; "new", Role.Floor ] }

              Expect.equal (best "r10" c) [ "b" ] "best"

              Expect.equal
                  ((table [ "r10" ] c).Rows |> List.map (fun r -> r.Method, r.Bound))
                  [ "a", false; "b", false; "new", true ]
                  "rows")

          testCase "a mean over fewer seeds is marked and does not compete" (fun () ->
              let t = table [ "r10" ] full
              let r = t.Rows |> List.find (fun r -> r.Method = long)
              Expect.equal (CompareTable.mark t r.Cells.Head) " (2/3)" "mark"
              Expect.equal (best "r10" full) [ "dns" ] "best"
              has (CompareText.markdown t) "42.50 ± 0.71 (2/3)")

          testCase "what failed with every seed has dashes and says so" (fun () ->
              let c = one [ "a", [ None; None ]; "b", values [ 0.1; 0.2 ] ]
              has (table [ "r10" ] c |> CompareText.markdown) "| a (0/2) | – |"
              has (CompareText.latex (table [ "r10" ] c)) "a (0/2) & -- \\\\")

          testCase "missing cells count as not finished" (fun () ->
              let c = one [ "a", values [ 0.1; 0.2 ] ]

              let c =
                  { c with
                      Cells = c.Cells |> List.map (fun (k, s) -> k, (if k.Seed = 1 then CellState.Missing else s)) }

              let t = table [ "r10" ] c
              Expect.isTrue t.Rows.Head.Cells.Head.Partial "partial"
              Expect.equal (Measured.missing (Measured.ofComparison c)) 1 "missing"
              has (words (page c)) "1 of 2 cells are not finished")

          testCase "individual shows what it learned" (fun () ->
              let t = table [ "r10"; "bwt_r10" ] (one [ "a", values [ 0.1 ]; "individual", values [ 0.2 ] ])
              let r = List.last t.Rows
              near 0.4 r.Cells.Head.Spread.Value.Mean "0.6 and 0.2 when learned"
              Expect.equal (CompareTable.mark t r.Cells.Head) "†" "mark"
              Expect.isNone r.Cells[1].Spread "no transfer")

          testCase "columns that nobody has can be left out" (fun () ->
              let t = CompareTable.withoutEmpty (table [ "acc"; "r10" ] full)
              Expect.equal (t.Metrics |> List.map _.Name) [ "r10" ] "columns"
              Expect.isTrue (t.Rows |> List.forall (fun r -> r.Cells.Length = 1)) "cells") ]

/// Fields and unescaped specials of a line of LaTeX.
let private latexSpecials (line: string) =
    let line = line.Replace(@"\textbackslash{}", "").Replace(@"\textasciitilde{}", "").Replace(@"\textasciicircum{}", "")
    Text.RegularExpressions.Regex.Matches(line, @"(?<!\\)[&#_%~^]") |> Seq.map _.Value |> List.ofSeq

let private texts =
    testList
        "CompareText"
        [ testCase "LaTeX has its specials escaped" (fun () ->
              let text = CompareText.latex (table [ "r10"; "bwt_r10" ] full)

              has
                  text
                  @"a\_b \& c\textless{}script\textgreater{}alert(1)\textless{}/script\textgreater{}\%\#\$\textasciicircum{}\textasciitilde{}\textbackslash{}\{\textbar{}\}"

              has text @"dns{[}threshold=trace:3e-3;exact=on{]}"
              has text @"BWT\textsubscript{R10} $\uparrow$"
              has text @"$\mathbf{41.67} \pm 2.08$"

              for line in text.Split '\n' do
                  if not (line.StartsWith '%' || line.StartsWith '\\' || line = "") then
                      Expect.equal (latexSpecials line) [ "&"; "&" ] line)

          testCase "Markdown cells stay in their cells" (fun () ->
              let text = CompareText.markdown (table [ "r10"; "bwt_r10" ] full)
              has text @"dns\[threshold=trace:3e-3;exact=on\]"
              has text @"a\_b & c\<script\>"

              for line in text.Split '\n' do
                  if line.StartsWith '|' then
                      Expect.equal (Text.RegularExpressions.Regex.Matches(line, @"(?<!\\)\|").Count) 4 line)

          testCase "CSV reads back in full" (fun () ->
              inFolder (fun folder ->
                  let path = Path.Combine(folder, "t.csv")
                  let t = table [ "r10"; "deviation_rel" ] full
                  Files.writeText path (CompareText.csv t) |> Check.get

                  let back =
                      Csv.read path [ "stream"; "method"; "metric"; "mean"; "sd"; "n"; "best" ] (fun f ->
                          (f[1], f[2]), (Csv.real "mean" f[3], f[4], Csv.whole "n" f[5], f[6] = "1"))
                      |> Check.get
                      |> Map

                  for r in t.Rows do
                      for metric, c in List.zip t.Metrics r.Cells do
                          match c.Spread, Map.tryFind (r.Method, metric.Name) back with
                          | Some s, Some(mean, sd, n, best) ->
                              Expect.equal (mean, n, best) (s.Mean, s.Count, c.Best) r.Method
                              Expect.equal (if sd = "" then None else Some(float sd)) s.Sd "sd"
                          | None, None -> ()
                          | other -> failtest $"{r.Method}: {other}")) ]

let private frontiers =
    testList
        "Frontier"
        [ testCase "against brute force" (fun () ->
              for seed in 0..40 do
                  let draw = Random seed
                  // Few places, so that there are ties.
                  let points = [ for i in 1..9 -> $"m{i}", float (draw.Next 5) / 5.0, float (draw.Next 5) / 5.0 ]
                  let c = one [ for name, d, r in points -> name, [ Some(stable r d) ] ]

                  let expected =
                      [ for name, d, r in points do
                            let beaten = points |> List.exists (fun (_, d', r') -> (d' < d && r' >= r) || (d' <= d && r' > r))

                            if not beaten then
                                name ]

                  let found = Frontier.points "toy" (Measured.ofComparison c) |> List.filter _.OnFrontier |> List.map _.Method
                  Expect.equal (List.sort found) (List.sort expected) $"seed {seed}")

          testCase "bounds and methods without a deviation are not on it" (fun () ->
              let points = Frontier.points "toy" (Measured.ofComparison full)
              Expect.equal (points |> List.map _.Method) [ "dns"; long; evil; "vanilla" ] "points"
              has (Frontier.sentence points).Value $"{long}. For each of the others"
              Expect.isNone (Frontier.sentence points[..0]) "one method has no frontier")

          testCase "labels do not cover each other while there is room" (fun () ->
              let points = [ for i in 0..7 -> $"method-{i}", 300.0 + 3.0 * float i, 200.0 + 2.0 * float (i % 3) ]
              let placed = Labels.place 1000.0 400.0 [] points

              let boxes =
                  [ for label, (_, x, y) in List.zip placed points ->
                        let w, h = 3.35 * 8.0, 7.5
                        x + label.Dx - w, y + label.Dy - h, x + label.Dx + w, y + label.Dy + h ]

              for i in 0..7 do
                  for j in i + 1 .. 7 do
                      let (l, t, r, b), (l', t', r', b') = boxes[i], boxes[j]
                      Expect.isFalse (l < r' - 1.0 && l' < r - 1.0 && t < b' - 1.0 && t' < b - 1.0) $"{i} and {j}")

          testCase "long labels break between settings and lose nothing" (fun () ->
              Expect.equal (Labels.lines "dns") [ "dns" ] "short"

              for label in [ long; "dns-trust[budget=0.1;total-budget=0.2;lr=1e-3;place=gradient]" ] do
                  let lines = Labels.lines label
                  Expect.isGreaterThan lines.Length 1 label
                  Expect.equal (String.Join("", lines)) label label) ]

let private terminals =
    testList
        "terminal"
        [ testCase "the paper's columns fit 120 characters, long labels too" (fun () ->
              let rate = rowsFor (stable 0.41 0.1234)
              let also = rate |> List.collect (fun r -> [ for name in [ "acc"; "r1"; "r5" ] -> { r with Metric = name } ])
              let label = "dns-trust[budget=0.1;total-budget=0.2;lr=1e-3]"

              let c =
                  { one [ "vanilla", values [ 0.1; 0.2 ]; label, values [ 0.1; 0.2 ] ] with
                      Cells =
                          [ for m in [ "vanilla"; label ] do
                                for seed in [ 0; 1 ] -> cell 0 m seed, CellState.Finished(rate @ also) ] }

              let t = CompareFiles.tables [] c |> Check.get |> List.head

              let text =
                  String.Join(
                      "\n",
                      Layout.table (fun _ text -> text) 120 (Cmcl.Cli.CompareDisplay.table "table.csv has them." t)
                  )

              for width in [ 60; 80; 100 ] do
                  let lines = Layout.table (fun _ text -> text) width (Cmcl.Cli.CompareDisplay.table "table.csv has them." t)
                  let said = String.Join(" ", lines |> List.map _.Trim())

                  for line in lines do
                      Expect.isLessThanOrEqual line.Length width line

                  Expect.stringContains said "Left out at" "told"

                  for metric in t.Metrics do
                      Expect.stringContains said metric.Title $"{metric.Title} at {width}, in a column or among those left out"

                  Expect.stringContains (String.Join("", said.Split ' ')) "0.123" "a figure in one piece"

                  for part in [ "dns-trust["; "budget=0.1;"; "total-budget=0.2;"; "lr=1e-3]" ] do
                      Expect.stringContains said part "the parts of a label"

              Expect.equal t.Metrics.Length 10 "columns"

              for part in [ "BWT_R10"; "0.123"; "±0.00"; "dns-trust["; "budget=0.1;"; "Replayed" ] do
                  has text part

              for line in text.Split '\n' do
                  Expect.isLessThanOrEqual line.Length 120 line) ]

let private pages =
    testList
        "page and files"
        [ testCase "has tables, figures and what an interval covers" (fun () ->
              let html = page full
              let text = decoded (words html)

              for part in
                  [ "Differences to dns"
                    "though not for how many metrics"
                    "Stability and what it is worth"
                    "What was forgotten"
                    "Recall@10 over the steps"
                    "What failed"
                    "it \"diverged\", sadly"
                    "cmcl compare --stream toy" ] do
                  has text part

              for id in [ "frontier-0"; "transfer-0-bwt_r10"; "course-0-0"; "difference-0-r10" ] do
                  has html $"\"{id}\":")

          testCase "names cannot break out of it" (fun () ->
              let html = page full
              Expect.isFalse (html.Contains "<script>alert") "script"
              has (words html) "a_b &amp; c&lt;script&gt;")

          testCase "figures are JSON" (fun () ->
              let after = (page full).Split("<script id=\"figures\" type=\"application/json\">")[1]
              let json = after.Split("</script>")[0]
              use document = JsonDocument.Parse json
              let names = [ for p in document.RootElement.EnumerateObject() -> p.Name ]
              Expect.contains names "difference-0-deviation_rel" "names")

          testCase "one method, one seed, nothing finished: still a page" (fun () ->
              for c in
                  [ one [ "vanilla", values [ 0.1 ] ]
                    one [ "vanilla", [ None ] ]
                    one [ "zero-shot", [ Some { Recall = 0.1; Deviation = None } ] ] ] do
                  written c (fun folder ->
                      let html = File.ReadAllText(Path.Combine(folder, "compare.html"))
                      has html "The table"))

          testCase "files are those that the comparison has" (fun () ->
              written full (fun folder ->
                  let names () = Directory.GetFiles folder |> Array.map Path.GetFileName |> Array.sort |> List.ofArray

                  let always =
                      [ "compare.html"
                        "differences.csv"
                        "figures.csv"
                        "matrix.csv"
                        "table-toy.csv"
                        "table-toy.md"
                        "table-toy.tex" ]

                  Expect.equal (names ()) (List.sort ("failures.csv" :: always)) "with failures"
                  CompareFiles.write folder [] None (one [ "dns", values [ 0.1 ] ]) |> Check.get |> ignore
                  Expect.equal (names ()) always "without"

                  CompareFiles.write folder [] None (comparison [ "dns", [ values [ 0.1 ]; values [ 0.2 ] ] ])
                  |> Check.get
                  |> ignore

                  Expect.equal (names ()) (List.sort ("spread.csv" :: always)) "orders"))

          testCase "matrix.csv gives the same metrics as figures.csv" (fun () ->
              written full (fun folder ->
                  let rows =
                      Csv.read
                          (Path.Combine(folder, "matrix.csv"))
                          [ "stream"; "order"; "method"; "seed"; "step"; "task"; "metric"; "value" ]
                          (fun f -> (f[2], f[3]), row f[2] (int f[3]) f[4] f[5] f[6] (Csv.real "value" f[7]))
                      |> Check.get
                      |> List.groupBy fst
                      |> List.map (fun (key, own) -> key, List.map snd own)
                      |> Map

                  let figures =
                      Csv.read
                          (Path.Combine(folder, "figures.csv"))
                          [ "stream"; "order"; "method"; "seed"; "metric"; "value" ]
                          (fun f -> (f[2], f[3]), f[4], Csv.real "value" f[5])
                      |> Check.get

                  Expect.isGreaterThan figures.Length 50 "figures"

                  for key, name, value in figures do
                      let again = (metric name).Of(rows[key])
                      Expect.equal again (Some value) name))

          testCase "names that nothing has are all told" (fun () ->
              inFolder (fun folder ->
                  match CompareFiles.write folder [ "r10"; "r11"; "akk" ] (Some "nobody") full with
                  | Error faults -> Expect.equal faults.Length 3 "faults"
                  | Ok _ -> failtest "written"

                  Expect.isEmpty (Directory.GetFiles folder) "nothing written"))

          testCase "columns asked for are those shown, also empty ones" (fun () ->
              let t = CompareFiles.tables [ "forgetting_r10"; "acc" ] full |> Check.get |> List.head
              Expect.equal (t.Metrics |> List.map _.Name) [ "forgetting_r10"; "acc" ] "columns") ]

let tests = testList "Compare" [ differences; orders; splits; significance; tables; texts; frontiers; terminals; pages ]
