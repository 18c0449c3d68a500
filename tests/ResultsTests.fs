module Cmcl.Tests.ResultsTests

open System
open System.IO
open Expecto
open Cmcl

/// A new folder for the length of a test.
let inFolder (test: string -> unit) : unit =
    let folder = Directory.CreateTempSubdirectory("cmcl-tests-").FullName

    try
        test folder
    finally
        Directory.Delete(folder, true)

let row method seed step task metric value : Row =
    { Stream = "toy"
      Method = method
      Seed = seed
      When = When.parse step task |> Option.get
      Metric = metric
      Value = value }

let private awkward = "dns[a=1,b=\"2\"]\nnext; ünï, <script>"

/// Recall@10 of a method with two steps, worked by hand below.
let twoSteps method seed =
    [ row method seed "0" "1" "r10" 0.1
      row method seed "0" "2" "r10" 0.2
      row method seed "1" "1" "r10" 0.6
      row method seed "1" "2" "r10" 0.3
      row method seed "2" "1" "r10" 0.5
      row method seed "2" "2" "r10" 0.8
      row method seed "2" "1" "deviation_rel" 0.25 ]

let private figure metric rows = Results.aggregates rows |> List.tryFind (fun (r: Row) -> r.Metric = metric) |> Option.map _.Value

let private lineOf result =
    match result with
    | Error [ Fault.Unreadable(_, reason) ] -> reason
    | other -> failtest $"{other}"

let private withText name (text: string) (test: string -> unit) =
    inFolder (fun folder ->
        File.WriteAllText(Path.Combine(folder, name), text)
        test folder)

let private header = "stream,method,seed,step,task,metric,value\n"

let tests =
    testList
        "Results"
        [ testList
              "tables"
              [ testCase "results come back as they were" (fun () ->
                    inFolder (fun folder ->
                        let rows =
                            [ row awkward 0 "0" "1" "r10" (1.0 / 3.0)
                              row "=vanilla" -1 "final" "all" "acc" 1e-300
                              row " spaces " 2 "1" "1" "" Double.Epsilon
                              row "" 3 "1" "1" "loss" -0.0 ]

                        Results.write folder rows |> Check.get
                        Expect.equal (Results.read folder |> Check.get) rows "rows"))
                testCase "losses come back as they were" (fun () ->
                    inFolder (fun folder ->
                        let rows =
                            [ { Method = awkward
                                Seed = 1
                                Step = 2
                                Epoch = 3
                                Loss = Math.PI } ]

                        Results.writeLosses folder rows |> Check.get
                        Expect.equal (Results.readLosses folder |> Check.get) rows "rows"))
                testCase "spectra come back as they were" (fun () ->
                    inFolder (fun folder ->
                        let rows =
                            [ for i, cut in [ 1, Some true; 2, Some false; 3, None ] ->
                                  { Method = "dns"
                                    Seed = 0
                                    Step = 2
                                    Modality = "vision"
                                    Side = "input"
                                    Index = i
                                    Energy = 0.1 / float i
                                    Protected = cut } ]

                        Results.writeSpectra folder rows |> Check.get
                        Expect.equal (Results.readSpectra folder |> Check.get) rows "rows"))
                testCase "the monitor's measurements come back as they were" (fun () ->
                    inFolder (fun folder ->
                        let rows: MonitorRow list =
                            [ { Method = awkward
                                Seed = 1
                                Step = 3
                                Update = 20L
                                Task = 2
                                Rms = 1e-17
                                Relative = 0.1 } ]

                        Results.writeMonitor folder rows |> Check.get
                        Expect.equal (Results.readMonitor folder |> Check.get) rows "rows"))
                testPropertyWithConfig FsCheckConfig.defaultConfig "any finite number comes back" (fun (x: float) ->
                    not (Double.IsFinite x)
                    || (let mutable back = nan

                        inFolder (fun folder ->
                            Results.write folder [ row "m" 0 "0" "1" "loss" x ] |> Check.get
                            back <- (Results.read folder |> Check.get).Head.Value)

                        back = x))
                testCase "lines end in LF, whatever the culture numbers have points" (fun () ->
                    inFolder (fun folder ->
                        let before = Globalization.CultureInfo.CurrentCulture

                        try
                            Globalization.CultureInfo.CurrentCulture <- Globalization.CultureInfo("de-DE")
                            Results.write folder [ row "vanilla" 0 "1" "1" "r10" 0.5 ] |> Check.get
                        finally
                            Globalization.CultureInfo.CurrentCulture <- before

                        Expect.equal
                            (File.ReadAllText(Path.Combine(folder, "results.csv")))
                            (header + "toy,vanilla,0,1,1,r10,0.5\n")
                            "text"))
                testCase "writing leaves nothing beside the file and replaces an old one" (fun () ->
                    inFolder (fun folder ->
                        Results.write folder (twoSteps "vanilla" 0) |> Check.get
                        Results.write folder [] |> Check.get
                        Expect.equal (Results.read folder |> Check.get) [] "rows"

                        Expect.equal (Directory.GetFiles folder |> Array.map Path.GetFileName) [| "results.csv" |] "files"))
                testCase "a place that cannot be" (fun () ->
                    inFolder (fun folder ->
                        File.WriteAllText(Path.Combine(folder, "file"), "")

                        match Results.write (Path.Combine(folder, "file", "below")) [] with
                        | Error [ Fault.Unwritable _ ] -> ()
                        | other -> failtest $"{other}"))
                testCase "a failed write leaves the old file" (fun () ->
                    inFolder (fun folder ->
                        let path = Path.Combine(folder, "a.txt")
                        File.WriteAllText(path, "old")

                        let half (file: TextWriter) =
                            file.Write "half"
                            raise (IOException "disk full")

                        match Files.writeText path half with
                        | Error [ Fault.Unwritable _ ] -> ()
                        | other -> failtest $"{other}"

                        Expect.equal (File.ReadAllText path) "old" "text"
                        Expect.equal (Directory.GetFiles(folder).Length) 1 "files")) ]

          testList
              "faults"
              [ testCase "a missing file" (fun () ->
                    inFolder (fun folder ->
                        match Results.read folder with
                        | Error [ Fault.Missing _ ] -> ()
                        | other -> failtest $"{other}"))
                testCase "a wrong header" (fun () ->
                    withText "results.csv" "a,b\n" (fun folder ->
                        Expect.stringContains (lineOf (Results.read folder)) "line 1: expected the header" "reason"))
                testCase "an empty file" (fun () ->
                    withText "results.csv" "" (fun folder ->
                        Expect.stringContains (lineOf (Results.read folder)) "it is empty" "reason"))
                testCase "a number that is none" (fun () ->
                    withText "results.csv" (header + "t,m,0,1,1,r10,0.5\nt,m,0,1,1,r10,much\n") (fun folder ->
                        Expect.equal (lineOf (Results.read folder)) "line 3: value takes a number, not 'much'" "reason"))
                testCase "a step that is none" (fun () ->
                    for step, task in [ "x", "1"; "2000000000", "1"; "final", "1"; "1", "all" ] do
                        withText "results.csv" (header + $"t,m,0,{step},{task},r10,0.5\n") (fun folder ->
                            Expect.stringContains
                                (lineOf (Results.read folder))
                                $"line 2: step and task take"
                                $"{step} and {task}"))
                testCase "a field too few" (fun () ->
                    withText "results.csv" (header + "t,m,0,1,1,r10\n") (fun folder ->
                        Expect.equal (lineOf (Results.read folder)) "line 2: 6 fields instead of 7" "reason"))
                testCase "a quote that does not end" (fun () ->
                    withText "results.csv" (header + "t,\"m,0,1,1,r10,1\n") (fun folder ->
                        Expect.stringContains (lineOf (Results.read folder)) "line 2" "reason"))
                testCase "many wrong lines are not all told" (fun () ->
                    withText "results.csv" (header + String.replicate 100 "x\n") (fun folder ->
                        match Results.read folder with
                        | Error faults -> Expect.equal faults.Length 10 "faults"
                        | Ok _ -> failtest "read")) ]

          testList
              "aggregates"
              [ testCase "by hand" (fun () ->
                    let rows = twoSteps "dns" 0
                    Expect.floatClose Accuracy.high (figure "r10" rows).Value 0.65 "r10"
                    Expect.floatClose Accuracy.high (figure "bwt_r10" rows).Value -0.1 "bwt_r10"
                    Expect.floatClose Accuracy.high (figure "learned_r10" rows).Value 0.7 "learned_r10"
                    Expect.floatClose Accuracy.high (figure "deviation_rel" rows).Value 0.25 "deviation_rel"
                    Expect.isNone (figure "acc" rows) "acc")
                testCase "places are two numbers of steps, or final and all" (fun () ->
                    for step, task in [ "2000000000", "1"; "1", "all"; "final", "1"; "-1", "1"; "1", "x"; " 1", "1"; "", "" ] do
                        Expect.equal (When.parse step task) None $"{step} and {task}"

                    for place in [ When.After(0, 1); When.After(1_000_000, 3); When.Final ] do
                        Expect.equal (When.texts place ||> When.parse) (Some place) "as written")
                testCase "the deviation is that of the last step, over the tasks before it" (fun () ->
                    let rows =
                        [ row "dns" 0 "2" "1" "deviation_rel" 9.0
                          row "dns" 0 "3" "1" "deviation_rel" 0.1
                          row "dns" 0 "3" "2" "deviation_rel" 0.3 ]

                    Expect.floatClose Accuracy.high (figure "deviation_rel" rows).Value 0.2 "mean")
                testCase "accuracy is over the tasks that have classes" (fun () ->
                    let rows =
                        twoSteps "dns" 0 @ [ for step, x in [ "0", 0.1; "1", 0.9; "2", 0.7 ] -> row "dns" 0 step "1" "acc" x ]

                    Expect.equal (figure "acc" rows) (Some 0.7) "acc"
                    Expect.floatClose Accuracy.high (figure "bwt_acc" rows).Value -0.2 "bwt_acc"
                    Expect.equal (figure "learned_acc" rows) (Some 0.9) "learned_acc")
                testCase "zero-shot and joint have final values only" (fun () ->
                    let at steps =
                        twoSteps "joint" 0
                        |> List.filter (fun r ->
                            r.Step |> Option.exists (fun step -> List.contains step steps) && r.Metric = "r10")

                    for steps, expected in [ [ 0 ], 0.15; [ 0; 2 ], 0.65 ] do
                        match Results.aggregates (at steps) with
                        | [ only ] ->
                            Expect.equal (only.When, only.Metric) (When.Final, "r10") "row"
                            Expect.floatClose Accuracy.high only.Value expected "value"
                        | other -> failtest $"{other}")
                testCase "every method and seed has its own" (fun () ->
                    let rows = twoSteps "dns" 0 @ twoSteps "dns" 1 @ twoSteps "vanilla" 0
                    let finals = Results.aggregates rows |> List.filter (fun r -> r.Metric = "r10")
                    Expect.equal (finals |> List.map (fun r -> r.Method, r.Seed)) [ "dns", 0; "dns", 1; "vanilla", 0 ] "keys")
                testCase "final rows do not count as steps" (fun () ->
                    let rows = twoSteps "dns" 0
                    Expect.equal (Results.aggregates (rows @ Results.aggregates rows)) (Results.aggregates rows) "same") ] ]
