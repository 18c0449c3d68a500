module Cmcl.Tests.VerifyTests

open System
open System.IO
open Expecto
open Cmcl
open TorchSharp
open Cmcl.Tests.Checks
open Cmcl.Tests.ResultsTests

let private request (plans: Plan list) : Request =
    { Stream = synthetic.Value
      Source = "synthetic"
      Plans = plans
      Seeds = [ 0 ]
      Device = torch.CPU
      Split = Split.Train
      SaveWeights = false
      Monitor = None
      Jobs = 1
      Out = "nowhere"
      Command = "cmcl verify --stream synthetic"
      Arguments = [] }

let private short = [ "epochs", "1" ]

let private verify (plans: Plan list) : Verification = Verification.run ignore (request plans) |> Check.get

let private all dtype = lazy (Verification.plans synthetic.Value ([ "dtype", dtype ] @ short) |> Check.get |> verify)

let private double, single = all "float64", all "float32"

let private named (v: Verification) (name: string) = v.Findings |> List.filter (fun f -> f.Condition.Name = name)

/// The names of what must hold and does not.
let private broken (v: Verification) = v.Broken |> List.map _.Condition.Name |> List.distinct

let private allHold (v: Verification) =
    for f in v.Broken do
        failtest $"{f.Run}, {f.Condition.Where}: {f.Condition.Name}: {f.Condition.Value:E2} against {f.Condition.Bound:E2}"

/// One plan under the test's few epochs, its method changed.
let private spoiled (written: string) (spoil: Method -> Method) : Plan =
    let plan = Plan.resolve synthetic.Value.Preset ([ "dtype", "float64" ] @ short) [ written ] |> Check.get |> List.exactlyOne
    { plan with Method = spoil plan.Method }

let private withoutMask (m: Method) = Method.beginning (Method.trainer Plain.vanilla).Begin m

let private evil = "<script>alert(1)</script>"

let private mine = "Ours, \"quoted\"\nand a line"

let private finding name value exact : Finding =
    { Run = mine
      Condition = Condition.atMost name "step 1, a" 1e-12 1.0 value
      ExactTo = exact }

let private made: Verification =
    { Findings =
        [ finding evil 0.1 None
          finding "nan" nan None
          finding "hoped" 0.5 (Some 1e-12) |> fun f -> { f with Condition = Condition.reported f.Condition } ]
      Points =
        [ { Figure = "leakage"
            Run = "dns"
            Series = evil
            Where = mine
            X = 1.0
            Y = infinity
            Cell = None }
          { Figure = "map"
            Run = "dns"
            Series = "energy"
            Where = evil
            X = 0.0
            Y = 0.0
            Cell = Some 1e-300 } ]
      Remarks = [ evil ] }

let internal rendered (v: Verification) : Rendered =
    let r = request (Verification.plans synthetic.Value [] |> Check.get)

    VerifyPage.render
        { r with
            Command = evil
            Stream = { r.Stream with Name = evil } }
        v

let private page (v: Verification) = Page.html (rendered v)

let private count (part: string) (text: string) = text.Split(part).Length - 1

let tests =
    testList
        "Verify"
        [ test "everything that must hold does on exact null spaces, in float64" (fun () ->
              allHold double.Value
              Expect.equal double.Value.Result "Everything that must hold does." "in words"
              Expect.isTrue (named double.Value "stability: old scores as they were" |> List.forall _.Condition.Must) "a must"
              Expect.hasLength (named double.Value "stability: old scores as they were") 15 "every old step at every later step")

          test "and in float32, within its rounding" (fun () ->
              allHold single.Value
              Expect.hasLength (named single.Value "stability: old scores as they were") 15 "the null space counts as exact")

          test "and on lifted features" (fun () ->
              let lifted = [ "dtype", "float64"; "features", "relu:12:0.5" ] @ short
              let v = Verification.plans synthetic.Value lifted |> Check.get |> verify
              allHold v
              Expect.isNonEmpty (named v "certificate: never below the deviation") "the certificates, too"
              Expect.isNonEmpty (named v "closed form: correlations are those of the rows") "and the closed form's")

          test "must fail: correlations of the rows under another ridge" (fun () ->
              let step = synthetic.Value.Steps.Head
              let struct (xa, xb) = Stream.features Dtype.Float64 torch.CPU Split.Train step
              let one, other = ClosedFormChecks.ofRows 0.1 xa xb, ClosedFormChecks.ofRows 0.2 xa xb
              Expect.isGreaterThan (Array.map2 (fun a b -> abs (a - b)) one other |> Array.max) 1e-3 "they differ")

          test "every condition is there, with its places" (fun () ->
              let places name = (named double.Value name).Length

              for name, expected in
                  [ "projectors: symmetric", 64
                    "projectors: idempotent", 64
                    "moments: merged = of all rows", 96
                    "energy left out: known without the rows", 64
                    "Theorem 3: global update", 8
                    "Theorem 4: local update", 48
                    "constraint set: P̃ D P = 0", 24
                    "constraint set, gradients projected", 8
                    "expansion of the change of scores", 60
                    "Theorem 5: beyond the second order", 30
                    "Theorem 5: bound", 30
                    "Theorem 5: bound of a gradient step", 40
                    "Theorem 6: ⟨G, Δ⟩ = ‖Δ‖²", 24
                    "Theorem 6: o(η) is of order 2", 24
                    "Theorem 6: o(η)/η < ‖Δ‖² for small η", 24
                    "Theorem 6: descends iff o(η)/η < ‖Δ‖²", 24
                    "drift: known without the rows", 90
                    "certificate: never below the deviation", 90
                    "trust: first order within its budget", 8
                    "trust: old steps within the total budget", 15
                    "plasticity: the step's loss falls", 36
                    "closed form: correlations are those of the rows", 6
                    "closed form: shards add up", 6
                    "closed form: steps in any order, sums", 1
                    "closed form: steps in any order, scores", 1
                    "closed form: directions are orthonormal in D + γI", 1
                    "closed form: a step withdrawn was never seen", 1
                    "closed form: scores after it", 1 ] do
                  Expect.equal (places name) expected name)

          test "large steps ascend somewhere, so that the criterion is tried on both sides" (fun () ->
              use trace = Trace.run synthetic.Value torch.CPU 0 ignore (spoiled "dns" id) |> Check.get

              let changes =
                  Stage.each trace (fun s ->
                      match PlasticityChecks.descents s with
                      | Some d -> [ for x in d.Small @ d.Large -> sign x.Change ]
                      | None -> [])
                  |> List.concat

              Expect.containsAll changes [ -1; 1 ] "down and up")

          test "projected gradients under AdamW leak, and are reported" (fun () ->
              for f in named double.Value "constraint set, gradients projected" do
                  Expect.isGreaterThan f.Condition.Value 1e-2 "leakage"
                  Expect.equal (f.Condition.Must, f.Verdict) (false, "no") "reported")

          test "what is approximate says so, with truth and bound" (fun () ->
              let worst = named double.Value "stability of dns" |> List.maxBy _.Condition.Value
              Expect.equal worst.Verdict "approximate" "verdict"
              Expect.isGreaterThan worst.Condition.Bound 1e-6 "a bound"
              Expect.exists double.Value.Remarks (fun text -> text.Contains "second order") "a sentence")

          test "truncation makes it approximate, and a sentence says by how much" (fun () ->
              let cut = spoiled "dns[exact=on;threshold=trace:0.03]" id
              let v = verify [ cut ]
              allHold v
              Expect.exists v.Remarks (fun text -> text.Contains "truncation makes stability approximate here") "a sentence"
              Expect.isEmpty (named v "stability: old scores as they were") "not promised")

          test "under other settings too, also where nothing or everything is protected, and where the loss is steep" (fun () ->
              for written in
                  [ "dns[temperature=0.001;scores=cosine]"
                    "dns[optimizer=sgd;lr=0.1;batch=all]"
                    "dns[place=update;weight-decay=0.5;symmetric=on]"
                    "dns[threshold=rank:0]"
                    "dns[threshold=rank:5;partner-threshold=rank:7]"
                    "dns[sides=input]"
                    "dns[moments=centred]"
                    "dns-trust[budget=0]"
                    "dns[lr=0]" ] do
                  allHold (verify [ spoiled written id ]))

          test "on features of low rank, as float32 rounds them, and of other awkward kinds" (fun () ->
              let case seed = { Seed = seed; N = 0L; D = 0L; Da = 0L; Db = 0L; Rank = 0L }

              for i, (kind, _) in List.indexed (SketchTests.awkward (case 0) 2L 2L) do
                  let side seed = (SketchTests.awkward (case seed) 24L 16L)[i] |> snd |> fun x -> x.``to`` torch.float32

                  let stream =
                      streamOf [ vision, text, side 1, side 2; audio, text, side 3, side 4; vision, text, side 5, side 6 ]

                  for dtype in [ "float64"; "float32" ] do
                      let plans =
                          Plan.resolve
                              stream.Preset
                              [ "dtype", dtype; "epochs", "2"; "batch", "8" ]
                              [ "dns"; "dns[exact=on]"; "dns[place=update]"; "dns-trust[total-budget=0.2]" ]
                          |> Check.get

                      let v = Verification.run ignore { request plans with Stream = stream } |> Check.get
                      Expect.isEmpty [ for f in v.Broken -> f.Run, f.Condition ] $"{kind}, {dtype}")

          test "must fail: a plan without its mask" (fun () ->
              let found = broken (verify [ spoiled "dns[place=update]" withoutMask ])
              let expected = [ "constraint set: P̃ D P = 0"; "Theorem 5: beyond the second order"; "Theorem 5: bound" ]
              Expect.containsAll found expected "what breaks"
              let exact = broken (verify [ spoiled "dns[place=update;exact=on]" withoutMask ])
              Expect.contains exact "stability: old scores as they were" "stability")

          test "must fail: stale outputs of partners" (fun () ->
              let found = broken (verify [ spoiled "dns[partner=at-learning]" id ])

              Expect.containsAll
                  found
                  [ "moments: merged = of all rows"; "energy left out: known without the rows" ]
                  "what breaks")

          test "must fail: a budget that nothing keeps" (fun () ->
              let found = verify [ spoiled "dns-trust[budget=0.001]" withoutMask ]
              Expect.equal (broken found) [ "trust: first order within its budget" ] "what breaks"
              Expect.stringContains found.Result "trust" "in words"
              let total = broken (verify [ spoiled "dns-trust[total-budget=0.02]" withoutMask ])
              Expect.equal total [ "trust: old steps within the total budget" ] "the total as well")

          test "a plan that diverges is a fault" (fun () ->
              let wild = spoiled "dns[lr=1e30;clip=off;optimizer=sgd]" id

              match Verification.run ignore (request [ wild ]) with
              | Error [ Fault.Diverged _ ] -> ()
              | other -> failtest $"%A{other}")

          test "a trace owns its tensors" (fun () ->
              let run () =
                  use trace = Trace.run synthetic.Value torch.CPU 0 ignore (spoiled "dns" id) |> Check.get
                  StabilityChecks.places trace |> ignore
                  Stage.each trace ProjectionChecks.conditions |> ignore
                  Points.map trace |> ignore

              Expect.equal (leaked run) 0L "leaked")

          test "the figures of updates: the plotted one is negative, a gradient step's is far below ‖Δ‖²" (fun () ->
              let series name =
                  double.Value.Points |> List.filter (fun p -> p.Figure = "plasticity" && p.Series = name) |> List.map _.Y

              Expect.isTrue (series "as the paper plots it" |> List.forall (fun y -> y < 0.0)) "as the paper reports"

              for remainder, speed in List.zip (series "of a gradient step") (series "‖Δ‖²") do
                  Expect.isLessThan (abs remainder) (1e-2 * speed) "o(η)/η")

          test "the map: a block keeps nothing where it protects, and every share is between 0 and 1" (fun () ->
              let cells series =
                  double.Value.Points
                  |> List.filter (fun p -> p.Figure = "map" && p.Series = series)
                  |> List.map (fun p -> p.Cell.Value)

              for series in [ "block"; "product"; "soft"; "trust" ] do
                  Expect.hasLength (cells series) (64 * 64) series
                  Expect.isTrue (cells series |> List.forall (fun x -> x >= 0.0 && x <= 1.0)) series

              Expect.equal (cells "block").Head 0.0 "the largest energies"
              Expect.equal (List.last (cells "block")) 1.0 "the null space")

          test "NaN never holds, and is the worst place" (fun () ->
              let lines = Verdict.ofFindings [ finding "a" 0.1 None; finding "a" nan None ]
              Expect.equal (lines |> List.map (fun v -> v.Held, v.Places, Verdict.word v)) [ 1, 2, "broken" ] "one line"
              Expect.isTrue (Double.IsNaN lines.Head.Worst.Condition.Value) "worst")

          test "both tables read back as they were" (fun () ->
              inFolder (fun folder ->
                  VerificationFiles.write folder made |> Check.get
                  // A NaN is not equal to itself.
                  Expect.equal (string (Tables.findings folder |> Check.get)) (string made.Findings) "verify.csv"
                  Expect.equal (Tables.points folder) (Ok made.Points) "curves.csv"
                  VerificationFiles.write folder double.Value |> Check.get
                  Expect.equal (Tables.findings folder) (Ok double.Value.Findings) "of a whole verification"))

          test "the page has every condition and every figure, and nothing from elsewhere" (fun () ->
              let text = page double.Value
              let html = text.Substring(0, text.IndexOf "id=\"figures\"")

              for v in Verdict.ofFindings double.Value.Findings do
                  Expect.isTrue ((Net.WebUtility.HtmlDecode html |> Option.ofObj |> Option.get).Contains v.Name) v.Name

              for figure in [ "deviation"; "energy"; "leakage"; "plotted"; "remainders"; "order" ] do
                  Expect.equal (count $"id=\"plot-{figure}\"" html) 1 figure

              for map in [ "energy"; "block"; "product"; "soft"; "trust" ] do
                  Expect.equal (count $"id=\"plot-map-{map}\"" html) 1 map

              for part in [ "http"; "src="; "@import" ] do
                  Expect.equal (count part html) 0 part)

          test "names are text in it" (fun () ->
              let text = page made
              Expect.equal (count "<script>alert" text) 0 "no script"
              Expect.equal (count "<script" text) (count "</script>" text) "scripts end once")

          test "one step has no old scores, and a page all the same" (fun () ->
              let stream =
                  { synthetic.Value with
                      Steps = List.truncate 1 synthetic.Value.Steps }

              let r =
                  { request (Verification.plans stream short |> Check.get) with
                      Stream = stream }

              let v = Verification.run ignore r |> Check.get
              allHold v
              Expect.exists v.Remarks (fun text -> text.Contains "no old scores") "a sentence"
              Expect.stringContains (VerifyPage.build r v) "plot-remainders" "what there is") ]
