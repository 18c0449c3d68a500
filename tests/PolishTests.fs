module Cmcl.Tests.PolishTests

open System.Collections.Generic
open Cmcl
open Expecto
open Cmcl.Tests.Checks
open TorchSharp

let private after (written: string) : Map<int, Heads> = run short.Value 0 written |> snd

let private starts (written: string) : Map<int, Heads> =
    let mutable found = Map.empty

    let begin' (scene: Scene) =
        let own = Heads.map (fun (w: torch.Tensor) -> w.clone().DetachFromDisposeScope())
        found <- Map.add scene.Step.Index (own scene.Session.Start) found
        None

    Train.run short.Value torch.CPU Split.Test 0 { Observer.silent with Begin = begin' } (plan short.Value written)
    |> Check.get
    |> ignore

    found

let private nearest (what: string) (actual: Map<int, Heads>) (expected: Map<int, Heads>) : unit =
    for KeyValue(step, heads) in actual do
        for KeyValue(m, w) in heads do
            same $"{what}: {m} at step {step}" close w expected.[step].[m]

let tests =
    testList
        "Polish"
        [ test "every step begins at the closed form's heads" (fun () ->
              for options in [ "ridge=0.1"; "ridge=0.3;exponent=0.5;weights=rows" ] do
                  nearest options (starts $"polish[{options};epochs=1]") (after $"cca[{options}]"))

          test "and must fail: vanilla does not" (fun () ->
              let solved, plain = after "cca", starts "vanilla[epochs=1]"
              let m = (Seq.head plain[2]).Key
              Expect.isGreaterThan (Tensors.relativeDifference plain.[2].[m] solved.[2].[m]) 1e-2 "the second step")

          test "where nothing is learned it is the closed form, whatever the host" (fun () ->
              let solved = after "cca"

              for host in [ "vanilla"; "ewc"; "dns-trust" ] do
                  nearest host (after $"polish[host={host};epochs=1;lr=0]") solved

              let last = short.Value.Steps.Length
              nearest "joint" (after "polish[host=joint;epochs=1;lr=0]" |> Map.filter (fun step _ -> step = last)) solved)

          test "outputs at the start have the energy of features, as those of the heads before any step have" (fun () ->
              let first = (starts "polish[epochs=1]")[1]
              let step = short.Value.Steps.Head
              let rows (b: Bank) = b.Features.index_select(0L, torch.tensor step.Train).``to`` torch.float64
              let energy (x: torch.Tensor) = item (x.squared().sum())
              let a, b = rows step.A, rows step.B
              let outputs = energy (Heads.outputs first[step.Pair.A] a) + energy (Heads.outputs first[step.Pair.B] b)
              near "energy" 1e-8 (outputs / (energy a + energy b)) 1.0)

          test "the host never sees the moments" (fun () ->
              let seen = HashSet<string>()

              let spy =
                  Plain.vanilla
                  |> Method.mapTrainer (fun t ->
                      { Begin =
                          fun context memory heads tasks ->
                              seen.UnionWith memory.Keys
                              t.Begin context memory heads tasks
                        End =
                          fun context memory heads tasks ->
                              seen.UnionWith memory.Keys
                              t.End context memory heads tasks |> Map.add "mine" (torch.zeros 1L) })

              let p = plan short.Value "polish[epochs=1]"
              let outcome, _ = runPlan short.Value 0 { p with Method = Polish.around Polish.defaults spy }
              Expect.equal (List.ofSeq seen) [ "mine" ] "what the host keeps"
              let bytes = measurements "bytes_state" outcome |> List.map (fun (_, _, v) -> v)
              let solved = run short.Value 0 "cca" |> fst |> measurements "bytes_state" |> List.map (fun (_, _, v) -> v)
              Expect.equal bytes (solved |> List.map (fun b -> b + 4.0)) "and what is kept beside it")

          test "what does not fit is told" (fun () ->
              Expect.stringContains
                  (refusedAs short.Value "polish[host=individual]")
                  "it starts again at every step"
                  "individual"

              Expect.stringContains (refusedAs short.Value "polish[rank=0]") "a whole number ≥ 1, or all" "rank"

              let broken =
                  Train.run short.Value torch.CPU Split.Test 0 Observer.silent (plan short.Value "polish[rank=999;epochs=1]")
                  |> faultsOf

              Expect.stringContains broken.Head.Message "at most the" "a rank above the heads' rows")

          test "in place it is the pure functions" (fun () ->
              InPlaceTests.wholeRun Dtype.Float64 "epochs=1;batch=64" "polish"
              InPlaceTests.wholeRun Dtype.Float64 "epochs=1;batch=64" "polish[host=dns]"
              InPlaceTests.wholeRun Dtype.Float64 "epochs=1;batch=64" "polish[host=joint]") ]
