/// Methods that are solved from moments, in runs; and `cmcl moments pair`, `merge`, `subtract` and `cmcl solve`.
module Cmcl.Tests.ClosedFormTests

open System
open System.IO
open Cmcl
open Expecto
open Cmcl.Tests.Checks
open Cmcl.Tests.CliTests
open TorchSharp

/// The synthetic stream with its steps in another order.
let private ordered (order: int) : Stream = Order.apply order synthetic.Value

let private final (written: string) (s: Stream) : Heads * float =
    let outcome, heads = run s 0 written
    let last = (List.last s.Steps).Index

    let figures =
        [ for step, _, value in measurements "r10" outcome do
              if step = last then
                  value ]

    heads[last], List.average figures

/// W_aᵀ W_b of every two modalities.
let private products (h: Heads) =
    [ for a in h.Keys do
          for b in h.Keys do
              if a < b then
                  h[a].t().mm h[b] ]

let private apart (a: Heads) (b: Heads) : float = List.map2 Tensors.relativeDifference (products a) (products b) |> List.max

let private runs =
    testList
        "runs"
        [ test "steps in any order give the same scores and the same recall" (fun () ->
              for options in [ "cca"; "cca[weights=rows;exponent=0.5]"; "cca[unseen=composed;ridge=0.3;rank=12]" ] do
                  let heads, recall = final options (ordered 0)

                  for order in 1..3 do
                      let other, r = final options (ordered order)
                      Expect.isLessThan (apart other heads) close $"{options}, order {order}"
                      near $"{options}, order {order}: recall" tight r recall)

          test "and must fail: those of dns depend on it" (fun () ->
              let heads, _ = final "dns[epochs=1]" (ordered 0)
              let other, _ = final "dns[epochs=1]" (ordered 1)
              Expect.isGreaterThan (apart other heads) 1e-3 "dns")

          test "heads after a step are those of a stream that ends there" (fun () ->
              let _, heads = run synthetic.Value 0 "cca"

              for count in [ 1; 3 ] do
                  let _, shorter =
                      run
                          { synthetic.Value with
                              Steps = List.take count synthetic.Value.Steps }
                          0
                          "cca"

                  let common = heads[count] |> Map.filter (fun m _ -> shorter[count].ContainsKey m)
                  Expect.isLessThan (apart common shorter[count]) close $"{count} steps")

          test "a modality that no step has seen keeps its head" (fun () ->
              let rows name n d = Seed.normal [ n; d ] (Seed.ofInt 4 |> Seed.split name)

              let s =
                  streamOf
                      [ vision, text, rows "1a" 30L 5L, rows "1b" 30L 4L; vision, depth, rows "2a" 30L 5L, rows "2b" 30L 5L ]

              let _, heads = run s 0 "cca"
              identical "depth before its step" heads.[1].[modality depth] (torch.eye (5L, 5L, dtype = torch.float64))

              Expect.isGreaterThan
                  (Tensors.relativeDifference heads.[2].[modality depth] heads.[1].[modality depth])
                  1e-2
                  "and after it")

          test "rows that are read in blocks give the heads of rows in memory" (fun () ->
              let p = plan synthetic.Value "cca"
              let saved = ResizeArray<Heads>()

              for held in [ 0L; 1L <<< 30 ] do
                  let keep (_: Step) (h: Heads) = saved.Add(Heads.map (fun w -> w.clone().DetachFromDisposeScope()) h)

                  Train.runWithin
                      { Limits.usual with Held = held }
                      synthetic.Value
                      torch.CPU
                      Split.Test
                      0
                      { Observer.silent with Save = keep }
                      p
                  |> Check.get
                  |> ignore

              let count = synthetic.Value.Steps.Length
              Expect.isLessThan (apart saved[count - 1] saved[2 * count - 1]) close "the last heads")

          test "it takes no option of training, and says what is wrong with its own" (fun () ->
              let refusal text =
                  Plan.resolve synthetic.Value.Preset [] [ text ] |> faultsOf |> List.map _.Message |> String.concat " | "

              Expect.stringContains (refusal "cca[lr=1e-3]") "'lr' is not an option of cca" "lr"
              Expect.stringContains (refusal "cca[ridge=-1]") "a number ≥ 0" "ridge"
              Expect.stringContains (refusal "cca[rank=0]") "a whole number ≥ 1, or all" "rank"

              let broken text =
                  Train.run synthetic.Value torch.CPU Split.Test 0 Observer.silent (plan synthetic.Value text) |> faultsOf

              Expect.stringContains (broken "cca[rank=999]").Head.Message "at most the" "a rank above the heads' rows") ]

// ---- the commands ----------------------------------------------------------------------------------------------------

let private commands =
    testList
        "commands"
        [ test "shards accumulated apart, merged and subtracted, are solved into the heads of a run" (fun () ->
              inFolder (fun folder ->
                  use scope = torch.NewDisposeScope()
                  let at name = Path.Combine(folder, name)
                  let s = synthetic.Value
                  let succeed arguments = Expect.equal (cmcl arguments).Code 0 (String.Join(" ", (arguments: string list)))

                  let write name (x: torch.Tensor) =
                      Npy.write (at name) (x.contiguous ()) |> Check.get
                      at name

                  // Each step in two shards.
                  for step in s.Steps do
                      let take (b: Bank) first count =
                          let numbers = torch.tensor (Array.sub step.Train first count)
                          b.Features.index_select (0L, numbers)

                      let half = step.Train.Length / 2

                      for part, first, count in [ "0", 0, half; "1", half, step.Train.Length - half ] do
                          let name = $"{step.Index}-{part}"
                          let a = write $"{name}-a.npy" (take step.A first count)
                          let b = write $"{name}-b.npy" (take step.B first count)
                          let out = at $"{name}.safetensors"
                          succeed [ "moments"; "pair"; $"{step.A.Modality}={a}"; $"{step.B.Modality}={b}"; "-o"; out ]

                      let parts = [ at $"{step.Index}-0.safetensors"; at $"{step.Index}-1.safetensors" ]
                      succeed ([ "moments"; "merge" ] @ parts @ [ "-o"; at $"{step.Index}.safetensors" ])

                  let files = [ for step in s.Steps -> at $"{step.Index}.safetensors" ]
                  succeed ([ "solve" ] @ files @ [ "-o"; at "heads.safetensors"; "--ridge"; "0.2"; "--exponent"; "0.5" ])
                  let solved = (SavedHeads.read (at "heads.safetensors") |> Check.get).Heads
                  let expected, _ = final "cca[ridge=0.2;exponent=0.5]" s
                  Expect.isLessThan (apart solved expected) 1e-9 "heads"

                  // Everything by rows in one file, the last step taken off again.
                  succeed ([ "moments"; "merge" ] @ files @ [ "-o"; at "all.safetensors" ])
                  succeed [ "moments"; "subtract"; at "all.safetensors"; List.last files; "-o"; at "left.safetensors" ]
                  succeed [ "solve"; at "left.safetensors"; "--weights"; "rows"; "-o"; at "left"; "-q" ]
                  let left = (SavedHeads.read (at "left") |> Check.get).Heads

                  let fewer = { s with Steps = List.take (s.Steps.Length - 1) s.Steps }

                  let expected, _ = final "cca[weights=rows]" fewer

                  Expect.isLessThan
                      (apart left (expected |> Map.filter (fun m _ -> left.ContainsKey m)))
                      1e-7
                      "without the last step"))

          test "what is wrong is told in a sentence" (fun () ->
              inFolder (fun folder ->
                  use scope = torch.NewDisposeScope()
                  let at name = Path.Combine(folder, name)

                  let write name n d =
                      Npy.write (at name) (Seed.normal [ n; d ] (Seed.ofInt 1)) |> Check.get
                      at name

                  let a, b, short = write "a.npy" 9L 3L, write "b.npy" 9L 4L, write "short.npy" 8L 4L

                  let refused (arguments: string list) (words: string) =
                      let told = cmcl arguments
                      Expect.equal told.Code 2 (String.Join(" ", arguments))
                      Expect.stringContains told.Error words (String.Join(" ", arguments))

                  let pair first second out = [ "moments"; "pair"; first; second; "-o"; at out ]
                  refused (pair $"vision={a}" $"text={short}" "m.safetensors") "9 rows, matched with those of"
                  refused (pair $"vision={a}" $"vision={b}" "m.safetensors") "has only one head"
                  refused (pair a $"text={b}" "m.safetensors") "MODALITY=FILE.npy"
                  refused (pair $"vision={a}" "text=none.npy" "m.safetensors") "none.npy"
                  Expect.equal (cmcl (pair $"vision={a}" $"text={b}" "m.safetensors")).Code 0 "pair"
                  Expect.equal (cmcl [ "moments"; "accumulate"; a; "-o"; at "second.safetensors" ]).Code 0 "accumulate"
                  refused [ "solve"; at "second.safetensors"; "-o"; at "h.safetensors" ] "cmcl moments pair makes one"
                  refused [ "solve"; at "m.safetensors"; at "m.safetensors"; "-o"; at "h.safetensors" ] "given twice"
                  refused [ "solve"; at "m.safetensors"; "--prior"; "1"; "-o"; at "h.safetensors" ] "their widths differ"
                  refused [ "solve"; at "m.safetensors"; "--rank"; "9"; "-o"; at "h.safetensors" ] "at most the 4 rows"
                  refused [ "solve"; at "m.safetensors"; "--dimension"; "0"; "-o"; at "h.safetensors" ] "a whole number ≥ 1"
                  refused [ "moments"; "subtract"; at "m.safetensors"; "-o"; at "l.safetensors" ] "one or more to be taken off"

                  refused
                      [ "moments"; "subtract"; at "m.safetensors"; at "m.safetensors"; "-o"; at "l.safetensors" ]
                      "nothing is left of"

                  // A file that was tampered with.
                  let content = Safetensors.read (at "m.safetensors") |> Check.get

                  for name, change, words in
                      [ "second/vision", (fun (t: torch.Tensor) -> t * number nan), "second/vision"
                        "second/vision", (fun t -> t.narrow (0L, 0L, 2L)), "does not fit"
                        "cross/text|vision", (fun t -> t.t().contiguous()), "does not fit"
                        "second/text#", (fun t -> t * number -1.0), "no number above 0" ] do
                      let changed =
                          { content with
                              Tensors = content.Tensors |> Map.add name (change content.Tensors[name]) }

                      Safetensors.write (at "bad.safetensors") changed |> Check.get
                      refused [ "solve"; at "bad.safetensors"; "-o"; at "h.safetensors" ] words)) ]

let tests = testList "ClosedForm" [ runs; commands ]
