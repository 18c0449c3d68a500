module Cmcl.Tests.ReportTests

open System
open System.IO
open Expecto
open Cmcl
open Cmcl.Tests.ResultsTests

let private evil = "<script>alert(1)</script>"

let private config =
    """{"cmcl":"1.2.3","command":"cmcl run toy --seeds 0,1","created":"2026-01-02T03:04:05Z",
        "machine":{"os":"Linux","cores":2},
        "stream":{"name":"toy & co","source":"data/toy","digest":"abc123","description":"Made up.",
          "steps":[{"index":1,"name":"one","a":"v:x","b":"t:y","train":3,"validation":2,"test":1,"accuracy":true},
                   {"index":2,"name":"</script><b>two","a":"v:x","b":"t:z","train":3,"validation":2,"test":1,"accuracy":false}]},
        "split":"test","dtype":"float32","device":"cpu","seeds":[0,1],
        "failures":[{"method":"dns","seed":7,"message":"dns diverged."}],
        "methods":[{"label":"vanilla","method":"vanilla","settings":{"lr":"1e-3","epochs":"2"}},
                   {"label":"dns","method":"dns","settings":{"lr":"1e-3","epochs":"2","threshold":"trace:3e-3"}}]}"""

let private training method seed =
    [ for step in [ "1"; "2" ] do
          row method seed step step "seconds_train" 1.5
          row method seed step step "bytes_state" 2000.0
      row method seed "2" "1" "monitor_rel" 0.25
      row method seed "2" "1" "bound_rel" 0.375 ]

let private lower (r: Row) = if r.When = When.After(2, 1) && r.Metric = "r10" then { r with Value = 0.2 } else r

let private losses =
    [ for epoch in 1..2 ->
          { Method = "dns"
            Seed = 0
            Step = 1
            Epoch = epoch
            Loss = 1.0 / float epoch } ]

let private spectra =
    [ for side in [ "input"; "partner" ] do
          for i in 1..4 ->
              { Method = "dns"
                Seed = 0
                Step = 2
                Modality = "vision"
                Side = side
                Index = i
                Energy = 0.5 / float i
                Protected = Some(i <= 2) } ]

let private filled (folder: string) =
    let rows =
        [ for seed in 0..1 do
              yield! twoSteps "vanilla" seed |> List.map lower
              yield! training "vanilla" seed
              yield! twoSteps "dns" seed
              yield! training "dns" seed
              yield! twoSteps evil seed
              row "zero-shot" seed "0" "1" "r10" 0.9
              row "zero-shot" seed "0" "2" "r10" 0.9 ]

    Results.write folder (rows @ Results.aggregates rows) |> Check.get
    Results.writeLosses folder losses |> Check.get
    Results.writeSpectra folder spectra |> Check.get
    File.WriteAllText(Path.Combine(folder, "config.json"), config)

let private plotly =
    lazy
        (use reader =
            new StreamReader(
                typeof<Plotly.NET.GenericChart>.Assembly.GetManifestResourceStream "Plotly.NET.plotly-2.28.0.min.js"
                |> Option.ofObj
                |> Option.get
            )

         reader.ReadToEnd())

/// The report without plotly.js itself, which names addresses that this page never asks for.
let private page (folder: string) : string = (Report.build folder |> Check.get).Replace(plotly.Value, "")

let private count (part: string) (text: string) = text.Split(part).Length - 1

let private decoded (html: string) : string = Net.WebUtility.HtmlDecode html |> Option.ofObj |> Option.defaultValue ""

/// Without printing the page when it has not.
let private has (page: string) (part: string) =
    Expect.isTrue ((decoded page).Contains(part, StringComparison.Ordinal)) $"the page has {part}"

let private full =
    lazy
        (let mutable text = "" in

         inFolder (fun folder ->
             filled folder
             text <- page folder)

         text)

let private ofRows (rows: Row list) =
    let mutable text = ""

    inFolder (fun folder ->
        Results.write folder rows |> Check.get
        text <- page folder)

    text

let tests =
    testList
        "Report"
        [ testCase "has the certificate of every method that was followed" (fun () ->
              for part in [ "Stability without the old data"; "\"certificate-0\""; "\"certificate-1\""; "0.375" ] do
                  has full.Value part

              Expect.isFalse (full.Value.Contains "\"certificate-2\"") "not of the others"
              Expect.isFalse (full.Value.Contains "\"monitor\"") "nothing was watched")

          testCase "says which methods keep scores and which keep performance" (fun () ->
              let promises = Sentences.promises [ "vanilla"; "dns"; "dns[place=gradient]"; "cca[ridge=0.3]"; "mine" ]

              Expect.equal
                  promises
                  (Some
                      "What is promised: dns: old scores stand, so an index that is in use stays valid; read the deviation. cca[ridge=0.3]: old pairs are found as well as before, and scores may move; read recall and BWT.")
                  "scores and performance"

              Expect.equal (Sentences.promises [ "vanilla"; "gem" ]) None "no promise")

          testCase "says how the certificate stands to what was measured" (fun () ->
              let rows bound =
                  [ for task, truth in [ "1", 0.25; "2", 0.5 ] do
                        row "dns" 0 "3" task "deviation_rel" truth
                        row "dns" 0 "3" task "bound_rel" bound ]

              Expect.equal (Sentences.certified []) None "nothing"

              Expect.equal
                  (Sentences.certified (rows 0.5))
                  (Some
                      "In 2 places where old scores moved, the bound was never below the truth; its median is 2.00 times what was measured.")
                  "kept"

              Expect.equal
                  (Sentences.certified (rows 0.3))
                  (Some
                      "In 2 places where old scores moved, the bound was below the truth in 1; its median is 1.20 times what was measured.")
                  "broken")

          testCase "has everything that was measured and set" (fun () ->
              for part in
                  [ "Stream “toy & co”"
                    "2026-01-02 03:04 UTC"
                    "Made up."
                    "2 seeds"
                    "cmcl run toy --seeds 0,1"
                    "abc123"
                    "1.2.3"
                    "trace:3e-3"
                    "2.0 kB"
                    "<strong>3.0</strong><span class=\"sd\"> ± 0.0</span>"
                    "Not finished: dns, seed 7. dns diverged."
                    "id=\"plot-losses\""
                    "id=\"matrix-panel-1\""
                    "id=\"spectrum-panel-0\""
                    "id=\"plot-task-2\""
                    "id=\"plot-deviation\""
                    "id=\"plot-tradeoff-learned_r10\"" ] do
                  has full.Value part)
          testCase "says what was forgotten without and with DNS" (fun () ->
              has full.Value "Without protection (vanilla), the tasks learned before the last step lost 40.00 ± 0.00 points"
              has full.Value "projection (dns), the tasks learned before the last step lost 10.00 ± 0.00 points"
              has full.Value "moved by 25.00 ± 0.00 per cent")
          testCase "bold is the best continual method, not a reference" (fun () ->
              has full.Value "<strong>−10.00</strong>"
              has full.Value "<td>90.0")
          testCase "loads nothing" (fun () ->
              for part in [ "http"; "src="; "@import"; "url(" ] do
                  Expect.equal (count part full.Value) 0 part)
          testCase "names are text, in the page and in its data" (fun () ->
              Expect.equal (count "<script>alert" full.Value) 0 "no script"
              Expect.equal (count "</script><b>two" full.Value) 0 "no end of a script"
              Expect.equal (count "<script" full.Value) (count "</script>" full.Value) "scripts end once"
              Expect.equal (count "<script" full.Value) 3 "data, plotly.js, the page's own")
          testCase "plotly.js is in it once" (fun () ->
              inFolder (fun folder ->
                  filled folder
                  Expect.equal (count plotly.Value (Report.build folder |> Check.get)) 1 "copies"))
          testCase "is the same twice, and written as built" (fun () ->
              inFolder (fun folder ->
                  filled folder
                  let path = Report.write folder |> Check.get
                  Expect.equal path (Path.Combine(folder, "report.html")) "path"
                  Expect.isTrue (File.ReadAllText path = (Report.build folder |> Check.get)) "bytes"))

          testList
              "with little"
              [ testCase "zero-shot alone" (fun () ->
                    let text = ofRows [ row "zero-shot" 0 "0" "1" "r10" 0.4 ]
                    has text "40.0"
                    has text "one seed"
                    Expect.isFalse (text.Contains "plot-deviation") "no deviation")
                testCase "one step, one seed" (fun () ->
                    let text = ofRows [ row "dns" 0 "0" "1" "r10" 0.1; row "dns" 0 "1" "1" "r10" 0.6 ]
                    has text "60.0"
                    Expect.isFalse (text.Contains "class=\"finding\"") "nothing was forgotten")
                testCase "only accuracy" (fun () ->
                    let text = ofRows [ row "dns" 0 "0" "1" "acc" 0.1; row "dns" 0 "1" "1" "acc" 0.6 ]
                    has text "matrix-panel-0")
                testCase "a value that is not finite" (fun () ->
                    let text = ofRows (twoSteps "dns" 0 @ [ row "dns" 0 "2" "1" "loss" nan; row "dns" 0 "1" "1" "acc" nan ])
                    has text "65.0")
                testCase "a deviation of zero" (fun () ->
                    let still =
                        twoSteps "dns" 0 |> List.map (fun r -> if r.Metric = "deviation_rel" then { r with Value = 0.0 } else r)

                    has (ofRows still) "<td>0</td>") ]

          testList
              "faults"
              [ testCase "no results" (fun () ->
                    inFolder (fun folder ->
                        match Report.build folder with
                        | Error [ Fault.Missing _ ] -> ()
                        | other -> failtest $"{other}"))
                testCase "no rows" (fun () ->
                    inFolder (fun folder ->
                        Results.write folder [] |> Check.get

                        match Report.build folder with
                        | Error [ Fault.Unreadable _ ] -> ()
                        | other -> failtest $"{other}"))
                testCase "every broken file is named" (fun () ->
                    inFolder (fun folder ->
                        filled folder
                        File.WriteAllText(Path.Combine(folder, "config.json"), "{")
                        File.WriteAllText(Path.Combine(folder, "losses.csv"), "nonsense")

                        match Report.build folder with
                        | Error [ Fault.Unreadable(a, _); Fault.Unreadable(b, _) ] ->
                            Expect.equal ([ FileInfo(a).Name; FileInfo(b).Name ]) [ "config.json"; "losses.csv" ] "files"
                        | other -> failtest $"{other}")) ] ]
