/// Pages of anything at all: what cannot be drawn costs nothing else.
module Cmcl.Tests.PageTests

open System
open System.IO
open Expecto
open FsCheck.FSharp
open Plotly.NET
open Cmcl
open Cmcl.Tests.Checks
open Cmcl.Tests.ResultsTests

/// What is drawn at the edge: nothing, signs, the ends of the numbers.
let private values =
    Gen.frequency
        [ 3, Gen.elements [ 0.0; 1.0; 0.5 ]
          3, Gen.choose (1, 999) |> Gen.map (fun n -> float n / 1000.0)
          1, Gen.elements [ nan; infinity; -infinity; -1.0; 1e-300; Double.Epsilon; Double.MaxValue ] ]

let private labels =
    [ "vanilla"
      "dns"
      "dns[lr=0]"
      "dns[threshold=trace:0.003]"
      "joint"
      "individual"
      "zero-shot"
      "a<b>&amp;[x=1" ]

let private measured =
    [ "r10"; "r1"; "acc"; "deviation_rel"; "bound_rel"; "monitor_rel"; "seconds_train"; "bytes_state"; "gap" ]

/// Of one method, seed and step some figures of some tasks, and after the last step what a run makes of them.
let private rows (label: string) (seed: int) : FsCheck.Gen<Row list> =
    gen {
        let! steps = Gen.choose (0, 3)
        let! skipped = Gen.elements [ []; [ 1 ]; [ 0; 2 ] ]
        let! constant = Gen.oneof [ Gen.map Some values; Gen.constant None; Gen.constant None ]

        let! found =
            [ for step in 0..steps do
                  for task in 1..3 do
                      for metric in measured do
                          if not (List.contains step skipped) then
                              gen {
                                  let! here = Gen.choose (0, 3)
                                  let! value = values
                                  let value = Option.defaultValue value constant
                                  return if here = 0 then [] else [ row label seed (string step) (string task) metric value ]
                              } ]
            |> Gen.sequenceToList

        return List.concat found
    }

let private results: FsCheck.Gen<StudyResult> =
    gen {
        let! methods = Gen.subListOf labels
        let! seeds = Gen.choose (1, 3)

        let! found =
            [ for label in methods do
                  for seed in 1..seeds -> rows label seed ]
            |> Gen.sequenceToList

        let rows = List.concat found
        let! loss, energy, drift = Gen.map3 (fun a b c -> a, b, c) values values values

        let! epochs, updates, directions =
            Gen.map3 (fun a b c -> a, b, c) (Gen.choose (0, 2)) (Gen.choose (0, 2)) (Gen.choose (0, 3))

        return
            { Info = RunInfo.parse "{}"
              Rows = rows @ Results.aggregates rows
              Orders = if seeds = 2 then Map [ 1, rows ] else Map.empty
              Losses =
                [ for label in methods do
                      for epoch in 0 .. epochs - 1 ->
                          { Method = label
                            Seed = 1
                            Step = 1
                            Epoch = epoch
                            Loss = loss } ]
              Spectra =
                [ for label in List.truncate 2 methods do
                      for i in 1..directions ->
                          { Method = label
                            Seed = 1
                            Step = 2
                            Modality = "vision"
                            Side = "input"
                            Index = i
                            Energy = energy
                            Protected = (if i = 1 then None else Some(i = 2)) } ]
              Monitor =
                [ for label in methods do
                      for update in 0 .. updates - 1 ->
                          { Method = label
                            Seed = 1
                            Step = 2
                            Update = int64 update
                            Task = 1
                            Rms = drift
                            Relative = drift } ] }
    }

let private wholly (page: Rendered) = Expect.equal (Page.undrawn page) [] "everything is drawn"

let private charts (r: StudyResult) : (string * (unit -> GenericChart)) list =
    [ "forgetting", (fun () -> Plot.forgetting "r10" 1 r)
      "backward", (fun () -> Plot.backward "r10" r)
      "deviation", (fun () -> Plot.deviation r)
      "tradeOff", (fun () -> Plot.tradeOff "r10" r)
      "losses", (fun () -> Plot.losses r)
      "monitor", (fun () -> Plot.monitor r)
      "metric", (fun () -> Plot.metric "r10" r)
      "frontier", (fun () -> Plot.frontier r)
      "against", (fun () -> Plot.against "lr" "r10" r)
      "path", (fun () -> Plot.path "lr" r)
      for label in List.truncate 1 r.Methods do
          "matrix", (fun () -> Plot.matrix "r10" label r)
          "certificate", (fun () -> Plot.certificate label r)
          "spectrum", (fun () -> Plot.spectrum label 2 "vision" r) ]

let private property name (check: 'a -> unit) (cases: FsCheck.Gen<'a>) =
    testPropertyWithConfig config name (FsCheck.FSharp.Prop.forAll (Arb.fromGen cases) check)

let private anything =
    testList
        "of anything"
        [ results
          |> property "reports, comparisons and charts of any small results are drawn whole" (fun r ->
              wholly (Report.render r)

              for name, chart in charts r do
                  GenericChart.toFigureJson (chart ()) |> ignore<string>

              let c = StudyResult.comparison r
              wholly (ComparePage.render Metric.paper true (List.tryHead r.Methods) (Measured.ofComparison c)))

          gen {
              let! figures = Gen.subListOf [ "deviation"; "plasticity"; "order"; "energy"; "leakage"; "map" ]
              let! count = Gen.choose (0, 4)

              return!
                  [ for figure in figures do
                        for series in [ "measured"; "bound"; "‖Δ‖²"; "energy"; "block" ] do
                            for _ in 1..count do
                                gen {
                                    let! x, y, cell = Gen.map3 (fun a b c -> a, b, c) values values values
                                    let! run = Gen.elements [ "dns"; "dns[exact=on]"; "another" ]

                                    return
                                        ({ Figure = figure
                                           Run = run
                                           Series = series
                                           Where = "step 1"
                                           X = x
                                           Y = y
                                           Cell = Some cell }
                                        : Point)
                                } ]
                  |> Gen.sequenceToList
          }
          |> property "verifications of any points are drawn whole" (fun points ->
              wholly (VerifyTests.rendered { Findings = []; Points = points; Remarks = [] })) ]

/// Something that cannot be written.
type Unwritable() =
    member _.Value: int = failwith "out of order"

let private broken () : GenericChart =
    Chart.Point(x = [ 1 ], y = [ 1 ])
    |> GenericChart.mapLayout (fun layout ->
        layout.SetProperty("meta", Unwritable())
        layout)

let private told (act: unit -> 'a) : 'a * string =
    use words = new StringWriter()
    let before = Console.Error
    Console.SetError words

    try
        let value = act ()
        value, words.ToString()
    finally
        Console.SetError before

let private failing =
    testList
        "that fails"
        [ testCase "a chart costs neither the page nor the others, and is told in its place and on standard error" (fun () ->
              inFolder (fun folder ->
                  let path, said =
                      told (fun () ->
                          Sheet.make "t" "n"
                          |> Sheet.chart "one" "" (broken ())
                          |> Sheet.chart "two" "" (Plot.lines ("x", false) ("y", false) [ "a", [ 1.0, 2.0 ] ])
                          |> Sheet.save (Path.Combine(folder, "page.html")))

                  let html = File.ReadAllText path
                  Expect.stringContains html "This chart could not be drawn: Error getting value from" "in its place"
                  Expect.stringContains html "id=\"plot-1\"" "the other"

                  Expect.stringContains
                      said
                      "page.html: 'chart-0' could not be drawn: Error getting value from"
                      "on standard error"))

          testCase "a part costs neither the page nor the other parts" (fun () ->
              let page =
                  Page.ofSections
                      "t"
                      []
                      ""
                      [ Drawing.section "Bad" (fun () -> failwith "no\nway")
                        Drawing.section "Good" (fun () -> [ Giraffe.ViewEngine.HtmlElements.str "here" ], []) ]

              Expect.equal (Page.undrawn page) [ "'Bad' could not be drawn: no way" ] "told"
              Expect.stringContains (Page.html page) "This part could not be made: no way" "in its place"
              Expect.stringContains (Page.html page) "<section>here</section>" "the other")

          testCase "one of several charts to choose from says so where it would stand" (fun () ->
              let figure = Drawing.figure "bad \"id\"" (fun () -> failwith "</script>")

              let page =
                  Page.ofSections "t" [] "" [ [ Page.chooser true "p" "what" figure [ "g", [ "n", figure ] ] ], [ figure ] ]

              Expect.stringContains (Page.html page) "id=\"p\"" "there is a place for the others"

              Expect.equal
                  ((Page.html page).Split("</script>").Length)
                  ((Page.html page).Split("<script").Length)
                  "nothing gets out of the data"

              Expect.hasLength (Page.undrawn page) 1 "told") ]

let private still =
    testCase "a method whose old scores do not move is left out of a logarithmic chart, and the report is whole" (fun () ->
        let of' label (deviation: float) =
            twoSteps label 0 |> List.map (fun r -> if r.Metric = "deviation_rel" then { r with Value = deviation } else r)

        let rows = [ "dns[lr=0]", 0.0; "dns", 1e-15; "vanilla", 0.1 ] |> List.collect (fun (label, x) -> of' label x)
        let rows = rows @ Results.aggregates rows
        let chart = Charts.deviation (Theme.styles (Row.methods rows)) true rows

        let names =
            GenericChart.getTraces chart |> List.choose _.TryGetTypedPropertyValue<seq<float>>("y") |> List.map List.ofSeq

        Expect.equal names [ []; [ 1e-15 ]; [ 0.1 ] ] "its points"

        wholly (
            Report.render
                { Info = RunInfo.parse "{}"
                  Rows = rows
                  Orders = Map.empty
                  Losses = []
                  Spectra = []
                  Monitor = [] }
        ))

/// With an environment's value for the length of a test.
let private withBrowser (path: string) (act: unit -> unit) =
    let before = Environment.GetEnvironmentVariable Picture.Variable
    Environment.SetEnvironmentVariable(Picture.Variable, path)

    try
        act ()
    finally
        Environment.SetEnvironmentVariable(Picture.Variable, before)

let private chart () = Plot.lines ("x", false) ("größe", false) [ "a<b", [ 1.0, 2.0; 2.0, 3.0 ] ] |> Chart.withSize (300, 200)

let private refused (path: string) : string =
    try
        Plot.save path (chart ()) |> ignore<string>
        failtest "it was saved"
    with CmclException fault ->
        fault.Message

/// A program that stands for a browser.
let private script (folder: string) (text: string) : string =
    let path = Path.Combine(folder, "browser")
    File.WriteAllText(path, "#!/bin/sh\n" + text)

    if not (OperatingSystem.IsWindows()) then
        File.SetUnixFileMode(path, UnixFileMode.UserRead ||| UnixFileMode.UserExecute)

    path

let private pictures =
    testList
        "pictures"
        [ testCase "other endings are refused before anything is looked for" (fun () ->
              Expect.stringContains (refused "x.gif") "an ending .svg, .png or .pdf, not 'x.gif'" "gif"
              Expect.stringContains (refused "x") ".svg" "none")

          testCase "a browser that is not there, fails or gives no picture is told, and leaves no file" (fun () ->
              inFolder (fun folder ->
                  let file = Path.Combine(folder, "x.svg")

                  withBrowser (Path.Combine(folder, "none")) (fun () ->
                      Expect.stringContains (refused file) "does not exist; CMCL_BROWSER" "not there")

                  for text, sentence in
                      [ "echo out of order >&2; exit 3\n", "exit code 3, out of order"; "echo hello\n", "gave no picture" ] do
                      withBrowser (script folder text) (fun () -> Expect.stringContains (refused file) sentence sentence)

                  Expect.isFalse (File.Exists file) "no file"))

          testCase "SVG, PNG and PDF of the chart's size" (fun () ->
              inFolder (fun folder ->
                  let saved name =
                      try
                          Plot.save (Path.Combine(folder, "deep", name)) (chart ()) |> File.ReadAllBytes
                      with CmclException(Fault.Contradiction(_, instead)) ->
                          skiptest $"no browser here; {instead}"

                  let svg = Text.Encoding.UTF8.GetString(saved "a.SVG")
                  Expect.stringContains svg "width=\"300\" height=\"200\"" "size"
                  Expect.stringContains svg "größe" "title"
                  let first name count = saved name |> Array.truncate count |> Text.Encoding.Latin1.GetString
                  Expect.equal (first "a.png" 4) "\u0089PNG" "PNG"
                  Expect.equal (first "a.pdf" 5) "%PDF-" "PDF")) ]

let private sweeps =
    let study (labels: (string * (string * string) list * float) list) : StudyResult =
        let rows =
            [ for label, _, x in labels do
                  row label 0 "1" "1" "r10" (0.2 + x)
                  row label 0 "2" "1" "r10" (0.3 + x)
                  row label 0 "2" "1" "deviation_rel" x ]

        { Info =
            { RunInfo.parse "{}" with
                Methods =
                    [ for label, settings, _ in labels ->
                          { Label = label
                            Method = Label.family label
                            Role = Roles.find Map.empty label
                            Settings = settings } ] }
          Rows = rows @ Results.aggregates rows
          Orders = Map.empty
          Losses = []
          Spectra = []
          Monitor = [] }

    let cuts pairs =
        study
            [ for i, (a, b) in List.indexed pairs ->
                  $"dns[threshold=trace:{a};partner-threshold=trace:{b}]",
                  [ "lr", "0.1"; "threshold", $"trace:{a}"; "partner-threshold", $"trace:{b}" ],
                  0.1 * float (i + 1) ]

    let texts (chart: GenericChart) =
        [ for trace in GenericChart.getTraces chart ->
              trace.TryGetTypedPropertyValue<string> "mode" |> Option.defaultValue "",
              trace.TryGetTypedPropertyValue<seq<string>> "text" |> Option.map List.ofSeq |> Option.defaultValue [] ]

    testList
        "sweeps"
        [ testCase "swept values stand at their points, each once" (fun () ->
              Expect.equal
                  (texts (Plot.path "threshold" (cuts [ "0.001", "0.001"; "0.003", "0.003"; "0.01", "0.01" ])))
                  [ "lines+markers+text", [ "0.001"; "0.003"; "0.01" ] ]
                  "both cuts alike")

          testCase "a path over a mask's two thresholds is a line" (fun () ->
              let pairs = [ "0.001", "0.01"; "0.003", "0.01"; "0.01", "0.003"; "0.03", "0.001" ]

              for option in [ "threshold"; "partner-threshold" ] do
                  let drawn = texts (Plot.path option (cuts pairs))
                  Expect.exists drawn (fun (mode, points) -> mode = "lines+markers+text" && points.Length > 1) option) ]

let private words =
    testList
        "words"
        [ testCase "a chart prints in a line" (fun () ->
              Expect.equal
                  (Show.chart (chart ()))
                  "a chart of a<b; Chart.show opens it in a browser, Plot.save writes it"
                  "its lines by name"

              Expect.stringStarts (Show.chart (Theme.combine [])) "a chart; " "none")

          testCase "the verdict of a verification stands beside its condition, in sight on a phone" (fun () ->
              let html = Page.html (VerifyTests.rendered { Findings = []; Points = []; Remarks = [] })
              let place (head: string) = html.IndexOf($">{head}</th>", StringComparison.Ordinal)
              let places = [ place "condition"; place "holds"; place "worst at"; place "value" ]
              Expect.isFalse (List.contains -1 places) "all are there"
              Expect.equal places (List.sort places) "in this order") ]

let tests = testList "Pages" [ anything; failing; still; pictures; sweeps; words ]
