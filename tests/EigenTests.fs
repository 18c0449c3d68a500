module Cmcl.Tests.EigenTests

open Cmcl
open Expecto
open Cmcl.Tests.Checks
open TorchSharp

let private hosts = [ "vanilla"; "joint"; "individual" ]

let private after (dtype: Dtype) (written: string) : Heads =
    let p = plan short.Value written

    let _, heads = runPlan short.Value 0 { p with Settings = { p.Settings with Dtype = dtype } }

    (heads |> Map.toList |> List.last |> snd) |> Heads.map _.``to``(torch.float64)

let private apart (a: Heads) (b: Heads) : float = [ for KeyValue(m, w) in b -> Tensors.relativeDifference a[m] w ] |> List.max

let tests =
    testList
        "Eigen"
        [ test "gradient descent does not know the basis" (fun () ->
              let options = "optimizer=sgd;lr=0.1;epochs=2"

              for host in hosts do
                  for rotate in [ "inputs"; "both" ] do
                      for dtype, bound in [ Dtype.Float64, tight; Dtype.Float32, 1e-6 ] do
                          let plain = after dtype $"{host}[{options}]"
                          let turned = after dtype $"eigen[host={host};rotate={rotate};{options}]"
                          Expect.isLessThan (apart turned plain) bound $"{host}, {rotate}, {dtype}"

                  let start = after Dtype.Float64 $"{host}[optimizer=sgd;lr=0;epochs=1]"
                  Expect.isGreaterThan (apart (after Dtype.Float64 $"{host}[{options}]") start) 1e-4 $"{host} moves")

          test "and must fail: AdamW does" (fun () ->
              for host in hosts do
                  for rotate in [ "inputs"; "both" ] do
                      let plain = after Dtype.Float64 $"{host}[epochs=1]"
                      let turned = after Dtype.Float64 $"eigen[host={host};rotate={rotate};epochs=1]"
                      Expect.isGreaterThan (apart turned plain) 1e-4 $"{host}, {rotate}")

          test "the basis is that of all data so far, this step's among them" (fun () ->
              let begin' (scene: Scene) =
                  use scope = torch.NewDisposeScope()

                  if scene.Step.Index = 1 then
                      for m in scene.Session.Start.Keys do
                          let c = (Task.moment m scene.Session.Data.Head).Matrix
                          same $"{m}" close c (torch.diag (c.diag ()))

                  None

              for rotate in [ "inputs"; "both" ] do
                  Train.run
                      short.Value
                      torch.CPU
                      Split.Test
                      0
                      { Observer.silent with Begin = begin' }
                      (plan short.Value $"eigen[rotate={rotate};epochs=1]")
                  |> Check.get
                  |> ignore)

          test "other hosts are refused by a sentence" (fun () ->
              for host in [ "dns"; "ewc"; "der"; "reference" ] do
                  Expect.stringContains (refusedAs short.Value $"eigen[host={host}]") "in the coordinates of weights" host
                  Expect.stringContains (refusedAs short.Value $"eigen[host={host}]") "individual, joint, vanilla" host)

          test "in place it is the pure functions" (fun () ->
              for options in [ "host=vanilla"; "host=joint"; "host=individual;rotate=both" ] do
                  InPlaceTests.wholeRun Dtype.Float64 "epochs=1;batch=64" $"eigen[{options}]") ]
