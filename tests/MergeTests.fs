module Cmcl.Tests.MergeTests

open Cmcl
open Expecto
open Cmcl.Tests.Checks
open TorchSharp

/// Heads after each step.
let private after (written: string) : Map<int, Heads> = run short.Value 0 written |> snd

let private sameHeads (what: string) (tolerance: float) (actual: Map<int, Heads>) (expected: Map<int, Heads>) =
    for KeyValue(step, heads) in expected do
        for KeyValue(m, w) in heads do
            if tolerance = 0.0 then
                identical $"{what}: {m} after step {step}" actual.[step].[m] w
            else
                same $"{what}: {m} after step {step}" tolerance actual.[step].[m] w

let private identity (m: torch.Tensor) : torch.Tensor = torch.eye (m.shape[0], m.shape[1], dtype = torch.float64)

/// The average over updates, written again: of every step, from where it started.
let private averages (beta: float) (written: string) : Map<int, Heads> =
    let mutable found = Map.empty

    let begin' (scene: Scene) : (Update -> unit) option =
        let own (h: Heads) = Heads.map (fun w -> w.clone().DetachFromDisposeScope()) h
        found <- Map.add scene.Step.Index (own scene.Session.Start) found

        Some(fun update ->
            let next m (a: torch.Tensor) = a * number beta .+ update.After[m] * number (1.0 - beta)
            found <- Map.add scene.Step.Index (own (Map.map next found[scene.Step.Index])) found)

    Train.run short.Value torch.CPU Split.Test 0 { Observer.silent with Begin = begin' } (plan short.Value written)
    |> Check.get
    |> ignore

    found

let tests =
    testList
        "Merge"
        [ test "with all of a step kept, or no average, it is its host bit for bit" (fun () ->
              for host in [ "vanilla"; "individual"; "dns"; "dns-soft"; "ewc"; "derpp"; "reference" ] do
                  let expected = after $"{host}[epochs=1]"

                  if host <> "individual" then
                      sameHeads $"wise, {host}" 0.0 (after $"merge[host={host};share=1;epochs=1]") expected
                      sameHeads $"ema, {host}" 0.0 (after $"merge[host={host};rule=ema;ema-decay=0;epochs=1]") expected)

          test "wise: halfway between before and after, and with nothing kept the heads before any step" (fun () ->
              let first = (after "vanilla[epochs=1]")[1]

              for KeyValue(m, w) in (after "merge[epochs=1;share=0.5]")[1] do
                  same $"{m}" tight w ((identity w .+ first[m]) * number 0.5)

              for KeyValue(m, w) in (after "merge[epochs=1;share=0]")[3] do
                  identical $"{m}" w (identity w))

          test "ema: the average over updates, written again" (fun () ->
              let written = "merge[rule=ema;ema-decay=0.8;epochs=2]"
              let expected = averages 0.8 written
              let found = after written

              for KeyValue(step, heads) in expected do
                  for KeyValue(m, w) in heads do
                      same $"{m} after step {step}" tight found.[step].[m] w

              let last = after "vanilla[epochs=2]"
              let m = (Seq.head expected[1]).Key
              Expect.isGreaterThan (Tensors.relativeDifference found.[1].[m] last.[1].[m]) 1e-5 "and no host's last weights")

          test "tasks: changes of training that starts anew add up, whatever the host starts from" (fun () ->
              let alone = after "individual[epochs=1]"
              let found = after "merge[rule=tasks;share=0.6;epochs=1]"
              sameHeads "host" 0.0 (after "merge[host=individual;rule=tasks;share=0.6;epochs=1]") found

              let mutable expected = Heads.map identity found[1]

              for step in 1..3 do
                  expected <- expected |> Map.map (fun m w -> w .+ (alone.[step].[m] - identity w) * number 0.6)

                  for KeyValue(m, w) in expected do
                      same $"{m} after step {step}" tight found.[step].[m] w)

          test "dual and regmean: the system of all entries, from heads that the host left" (fun () ->
              use scope = torch.NewDisposeScope()
              let rows name n d = Seed.normal [ n; d ] (Seed.ofInt 4 |> Seed.split name)

              let steps = [ vision, text, rows "1a" 30L 5L, rows "1b" 30L 4L; audio, text, rows "2a" 24L 3L, rows "2b" 24L 4L ]

              let s = streamOf steps
              let common = "epochs=2;batch=8;lr=1e-2"
              // The first step is its host's, bit for bit, so the second starts where the host's starts.
              let plain = run s 0 $"vanilla[{common}]" |> snd
              let shared = modality text

              let moment (x: torch.Tensor) =
                  let c = x.t().mm(x) / number (float x.shape[0])
                  c .+ torch.eye (c.shape[0], dtype = torch.float64) * number (0.2 * item (c.trace ()) / float c.shape[0])

              let inputs, partners =
                  [ for _, _, _, b in steps -> moment b ],
                  [ for i, (a, _, x, _) in List.indexed steps -> moment (Heads.outputs plain.[i + 1].[modality a] x) ]

              let check rule (h: torch.Tensor list) tolerance =
                  let merged = run s 0 $"merge[rule={rule};ridge=0.2;{common}]" |> snd
                  same $"{rule}: one step" tolerance merged.[1].[shared] plain.[1].[shared]

                  let kron =
                      List.map2 (fun (p: torch.Tensor) (c: torch.Tensor) -> torch.kron (p, c)) h inputs |> List.reduce (.+)

                  let right = [ for i in 0..1 -> h[i].mm(plain.[i + 1].[shared]).mm inputs[i] ] |> List.reduce (.+)

                  let expected = torch.linalg.solve(kron, right.reshape (-1L, 1L)).reshape(right.shape)
                  same $"{rule}: two steps" 1e-8 merged.[2].[shared] expected
                  Expect.isGreaterThan (Tensors.relativeDifference merged.[2].[shared] plain.[2].[shared]) 1e-3 "another head"

              check "dual" partners 1e-15
              check "regmean" [ for _ in 1..2 -> torch.eye (partners[0].shape[0], dtype = torch.float64) ] 1e-10)

          test "what dual keeps grows by the step, what regmean keeps does not" (fun () ->
              let bytes written =
                  [ for step, _, v in run short.Value 0 written |> fst |> measurements "bytes_state" -> step, v ] |> Map

              let s = short.Value
              let d = s.Steps.Head.A.Features.shape[1]
              let square = float (8L * d * d)
              let sides count = s.Steps |> List.take count |> List.collect (fun x -> Pair.members x.Pair)
              let dual, one = bytes "merge[rule=dual;epochs=1]", bytes "merge[rule=regmean;epochs=1]"

              for step in 1..3 do
                  let all = sides step
                  let own = float (List.distinct all).Length
                  Expect.equal dual[step] (square * (2.0 * float all.Length + own)) $"dual after step {step}"
                  Expect.equal one[step] (square * 2.0 * own) $"regmean after step {step}"

              Expect.equal (bytes "merge[epochs=1]").[3] 0.0 "wise keeps nothing")

          test "what the host keeps out of its null space stays out" (fun () ->
              let drift written =
                  run short.Value 0 written |> fst |> measurements "deviation_rel" |> List.map (fun (_, _, v) -> v) |> List.max

              let cuts = "epochs=2;sides=input;threshold=relative:1e-9"
              Expect.isLessThan (drift $"merge[host=dns;{cuts}]") 1e-6 "wise"
              Expect.isLessThan (drift $"merge[host=dns;rule=ema;{cuts}]") 1e-6 "ema"
              Expect.isGreaterThan (drift "merge[epochs=2]") 1e-4 "without a host that protects")

          test "hosts and options that do not fit are refused by a sentence" (fun () ->
              Expect.stringContains
                  (refusedAs short.Value "merge[host=joint]")
                  "it has one step, and nothing to merge it with"
                  "joint"

              Expect.stringContains
                  (refusedAs short.Value "merge[host=c-flat]")
                  "there is no host of merge 'c-flat'"
                  "another wrapper"

              Expect.stringContains (refusedAs short.Value "merge[rule=ema;share=0.5]") "'share' changes nothing" "share"
              Expect.stringContains (refusedAs short.Value "merge[rule=soup]") "wise" "rule"
              Expect.stringContains (refusedAs short.Value "merge[rule=ema;ema-decay=1]") "a number ≥ 0 and < 1" "no average")

          test "in place it is the pure functions" (fun () ->
              for options in [ "host=vanilla"; "rule=ema"; "host=derpp;rule=ema"; "host=dns;rule=tasks"; "host=ewc;rule=dual" ] do
                  InPlaceTests.wholeRun Dtype.Float64 "epochs=1;batch=64" $"merge[{options}]") ]
