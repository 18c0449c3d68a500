module Cmcl.Tests.CilaTests

open Cmcl
open Expecto
open Cmcl.Tests.Checks
open TorchSharp

let private stream =
    lazy
        ({ synthetic.Value with
            Steps = synthetic.Value.Steps |> List.take 4 })

/// λ_t of every step that distils.
let private weights (outcome: Cmcl.Outcome) : (int * float) list =
    measurements "distillation_weight" outcome |> List.map (fun (step, _, v) -> step, v)

/// Step, epoch, L_asym and L_IRD of every update of a run without candidates beside, where L_asym is InfoNCE and the rest of the loss is
/// λ_t L_IRD.
let private losses (plan: Plan) (lambda: Map<int, float>) : (int * int * float * float) list =
    let seen = ResizeArray()

    let begin' (scene: Scene) =
        if scene.Step.Index = 1 then
            None
        else
            Some(fun (u: Update) ->
                use scope = torch.NewDisposeScope()
                let y m x = Heads.outputs (Heads.weight m u.Before) x

                let contrast =
                    Contrastive.loss (Settings.contrast plan.Settings) (y u.Batch.Pair.A u.Batch.A) (y u.Batch.Pair.B u.Batch.B)
                    |> item

                let step = scene.Step.Index
                seen.Add(step, u.Batch.Epoch, contrast, (item u.Pass.Value.Loss - contrast) / lambda[step]))

    Train.run stream.Value torch.CPU Split.Test 0 { Observer.silent with Begin = begin' } plan |> Check.get |> ignore
    List.ofSeq seen

let tests =
    testList
        "Cila"
        [ test "the weight by a hand-worked example" (fun () ->
              // Steps 2 and 3: contrastive losses 2.0 and 3.0, distillation 4.0 and 8.0; ratio 12/5.
              near "κ = 1" tight (Cila.weight 1.0 5.0 12.0) 2.4
              near "κ = 0.5" tight (Cila.weight 0.5 5.0 12.0) 1.2
              near "κ = 0.25: the bound" tight (Cila.weight 0.25 5.0 12.0) 1.0
              near "κ = 0" tight (Cila.weight 0.0 5.0 12.0) 1.0
              near "no contrastive loss" tight (Cila.weight 1.0 0.0 12.0) 1.0)

          property "the weight is 1 at least, and free of the losses' scale" (fun c ->
              let contrast, distillation, ratio =
                  fraction c "contrast", 5.0 * fraction c "distillation", 3.0 * fraction c "ratio"

              let scale = 10.0 ** (8.0 * fraction c "scale" - 4.0)
              let weight = Cila.weight ratio contrast distillation
              Expect.isGreaterThanOrEqual weight 1.0 "the bound"
              near "scale" tight (Cila.weight ratio (scale * contrast) (scale * distillation)) weight)

          test "with ratio 0 it is co2l with lambda 1, bit for bit, over a whole run" (fun () ->
              for options in [ "epochs=2"; "epochs=1;candidates=both;symmetric=on" ] do
                  let outcome, cila = run stream.Value 0 $"cila[ratio=0;{options}]"
                  let expected, co2l = run stream.Value 0 $"co2l[lambda=1;{options}]"
                  Expect.equal outcome.Losses expected.Losses "losses"
                  Expect.equal (weights outcome) [ 2, 1.0; 3, 1.0; 4, 1.0 ] "weights"

                  for KeyValue(step, heads) in co2l do
                      for KeyValue(m, w) in heads do
                          identical $"{m} after step {step}" cila.[step].[m] w)

          test "the weights are those of the definition, from the losses of training" (fun () ->
              for averages in [ "last-epoch"; "all-epochs" ] do
                  let plan = plan stream.Value $"cila[ratio=20;averages={averages};candidates=none;epochs=2]"
                  let outcome, _ = runPlan stream.Value 0 plan
                  let told = Map(weights outcome)
                  Expect.equal (List.ofSeq told.Keys) [ 2; 3; 4 ] "in steps that distil"
                  Expect.equal told[2] 1.0 "nothing before it"
                  let losses = losses plan told

                  let sum (upTo: int) (part: int * int * float * float -> float) =
                      List.sum
                          [ for step in 2..upTo do
                                losses
                                |> List.filter (fun (s, epoch, _, _) -> s = step && (averages = "all-epochs" || epoch = 2))
                                |> List.averageBy part ]

                  for t in [ 3; 4 ] do
                      let contrast, distillation = sum (t - 1) (fun (_, _, c, _) -> c), sum (t - 1) (fun (_, _, _, d) -> d)
                      let expected = max 1.0 (20.0 * distillation / contrast)
                      Expect.isGreaterThan expected 1.0 "not at the bound"
                      near $"{averages}: λ_{t}" 1e-9 told[t] expected)

          test "the epochs that are averaged over matter, and so does the weight" (fun () ->
              let of' options = run stream.Value 0 $"cila[ratio=20;epochs=2;{options}]"
              let last, heads = of' "averages=last-epoch"
              let all, _ = of' "averages=all-epochs"
              Expect.notEqual (weights last) (weights all) "averages"
              let _, bounded = run stream.Value 0 "cila[ratio=0;epochs=2]"
              let m = stream.Value.Steps[2].Pair.A
              Expect.isGreaterThan (Tensors.relativeDifference heads.[3].[m] bounded.[3].[m]) 1e-6 "what is learned in step 3")

          test "at the bound a remark says that it is co2l, from the third step on" (fun () ->
              let remarks ratio =
                  let told = ResizeArray()

                  let tell event =
                      match event with
                      | Event.Remark(step, text) -> told.Add(step.Index, text)
                      | Event.Solved _
                      | Event.Epoch _ -> ()

                  let plan = plan stream.Value $"cila[epochs=1;ratio={ratio}]"
                  Train.run stream.Value torch.CPU Split.Test 0 { Observer.silent with Tell = tell } plan |> Check.get |> ignore
                  List.ofSeq told

              Expect.equal (remarks "0" |> List.map fst) [ 3; 4 ] "steps"
              Expect.all (remarks "0") (fun (_, text) -> text.Contains "as in co2l") "words"
              Expect.isEmpty (remarks "20") "not above it")

          test "step 1 is vanilla, bit for bit; what it keeps more than co2l are two numbers" (fun () ->
              let outcome, cila = run stream.Value 0 "cila[epochs=1]"
              let _, vanilla = run stream.Value 0 "vanilla[epochs=1]"

              for KeyValue(m, w) in vanilla[1] do
                  identical $"{m}" cila.[1].[m] w

              let co2l, _ = run stream.Value 0 "co2l[epochs=1]"
              let bytes outcome = measurements "bytes_state" outcome |> List.map (fun (_, _, v) -> v)
              Expect.equal (List.map2 (-) (bytes outcome) (bytes co2l)) [ 0.0; 16.0; 16.0; 16.0 ] "bytes")

          test "in place as by pure functions" (fun () ->
              InPlaceTests.wholeRun Dtype.Float64 "epochs=2;batch=32" "cila[ratio=20]"
              InPlaceTests.wholeRun Dtype.Float32 "epochs=1;batch=32" "cila") ]
