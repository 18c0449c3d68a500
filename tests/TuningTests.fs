module Cmcl.Tests.TuningTests

open System
open System.IO
open System.Text.Json.Nodes
open Cmcl
open Expecto
open Cmcl.Tests.Checks

let private trial number : Trial =
    { Method = "vanilla"
      Number = number
      Options = [ "lr", $"{number}" ] }

let private rule =
    testList
        "rule"
        [ testCase "within half a point of the best, the least deviation" (fun () ->
              let some = [ Some(0.50, Some 0.4); Some(0.497, Some 0.1); Some(0.495, Some 0.2); Some(0.494, Some 0.0); None ]
              Expect.equal (Tuning.choose 0.5 some) (Some 1) "half a point"
              Expect.equal (Tuning.choose 0.0 some) (Some 0) "nothing but the best"
              Expect.equal (Tuning.choose 0.6 some) (Some 3) "a little more"

              Expect.equal
                  (Tuning.choose 0.5 [ Some(0.50, Some 0.4); Some(0.495, Some 0.1) ])
                  (Some 1)
                  "half a point is within half a point")

          testCase "without a deviation the best recall" (fun () ->
              Expect.equal (Tuning.choose 0.5 [ Some(0.497, None); Some(0.5, None); Some(0.499, None) ]) (Some 1) "none has one"
              Expect.equal (Tuning.choose 0.5 [ Some(0.497, Some 0.0); Some(0.5, None) ]) (Some 1) "one has none")

          testCase "the first of equals, and none of failures" (fun () ->
              Expect.equal (Tuning.choose 0.5 [ None; Some(0.5, Some 0.1); Some(0.5, Some 0.1) ]) (Some 1) "the first"
              Expect.equal (Tuning.choose 0.5 [ None; None ]) None "none"
              Expect.equal (Tuning.choose 0.5 []) None "no trial")

          property "the chosen one is near the best, and none that is moved less" (fun c ->
              let some =
                  [ for i in 0 .. int c.N ->
                        if fraction c $"fails {i}" < 0.2 then
                            None
                        else
                            Some(0.5 + 0.02 * fraction c $"recall {i}", Some(fraction c $"deviation {i}")) ]

              let within = fraction c "within"

              match Tuning.choose within some, List.choose id some with
              | None, [] -> ()
              | None, _ -> failtest "there is one to choose"
              | Some place, measured ->
                  let recall, deviation = some[place].Value
                  let top = measured |> List.map fst |> List.max
                  Expect.isGreaterThanOrEqual (recall + 1e-9) (top - within / 100.0) "near the best"

                  for r, d in measured do
                      if r >= top - within / 100.0 then
                          Expect.isLessThanOrEqual deviation.Value d.Value "none moves less")

          testCase "a trial is judged over all its seeds, or not at all" (fun () ->
              let tried seeds : Tried =
                  { Trial = trial 1
                    Role = Role.Competitor
                    Seeds = seeds
                    Seconds = Map.empty }

              let figures r d = Ok(Map [ "r10", r; "deviation_rel", d; "learned_r10", 0.9 ])
              let recall, deviation = Tuning.judge (tried [ 0, figures 0.4 0.1; 1, figures 0.6 0.3 ]) |> Option.get
              near "recall" tight recall 0.5
              near "deviation" tight deviation.Value 0.2
              Expect.isNone (Tuning.judge (tried [ 0, figures 0.4 0.1; 1, Error "diverged" ])) "a seed failed"
              Expect.isNone (Tuning.judge (tried [ 0, Ok Map.empty ])) "no recall"
              Expect.equal (Tuning.judge (tried [ 0, Ok(Map [ "r10", 0.5 ]) ])) (Some(0.5, None)) "no deviation"

              let alone = { tried [ 0, figures 0.4 0.1 ] with Role = Role.Restart }

              Expect.equal (Tuning.judge alone) (Some(0.9, None)) "by what it learned") ]

let private grids =
    testList
        "grids"
        [ test "every declared grid has twelve trials that its method takes" (fun () ->
              for e in Registry.entries |> List.filter (fun e -> Method.trains e.Method) do
                  let name, grid = e.Method.Name, Grid.declared e
                  let trials = Tuning.trials 12 name grid
                  Expect.hasLength trials 12 name
                  Expect.hasLength (trials |> List.map _.Written |> List.distinct) 12 $"{name}: all differ"

                  for a in grid do
                      for option in a.Options do
                          Expect.contains Registry.optionNames option $"{name}: an option that there is"

                  Plan.resolve synthetic.Value.Preset [] [ for t in trials -> t.Written ] |> Check.get |> ignore)

          testCase "a grid as users write it" (fun () ->
              let grid = Grid.parse "lr=1e-4, 5e-4; threshold = partner-threshold=trace:1e-3,trace:1e-2" |> Check.get

              Expect.equal
                  (Grid.trials grid)
                  [ for lr in [ "1e-4"; "5e-4" ] do
                        for cut in [ "trace:1e-3"; "trace:1e-2" ] -> [ "lr", lr; "threshold", cut; "partner-threshold", cut ] ]
                  "every combination, the last axis first"

              for bad in [ ""; "lr"; "lr="; "=1"; "lr=1,1"; "lr=1;lr=2"; "lr=1;;tau=2"; "lr=1,,2"; "a=a=1" ] do
                  match faultsOf (Grid.parse bad) with
                  | [ Fault.BadValue("--grid", _, given) ] -> Expect.equal given bad "what came"
                  | faults -> failtest $"{faults}")

          testCase "of a larger grid so many are drawn, the same every time and each once" (fun () ->
              let seed = Seed.ofInt 0
              Expect.equal (Grid.draw 12 seed 12) [ 0..11 ] "all of them"
              let some = Grid.draw 12 seed 100
              Expect.equal (Grid.draw 12 seed 100) some "the same"
              Expect.equal (some |> List.distinct |> List.sort) some "each once, in order"
              Expect.hasLength some 12 "so many"
              Expect.notEqual (Grid.draw 12 (Seed.ofInt 1) 100) some "another seed, others")

          testCase "the edge of a grid" (fun () ->
              let grid =
                  Grid.parse
                      "lr=1e-3,2e-4,5e-4;threshold=partner-threshold=trace:1e-3,trace:1e-2,trace:1e-4;scores=raw,cosine;tau=1"
                  |> Check.get

              let edges lr cut =
                  Grid.edges grid [ "lr", lr; "threshold", cut; "partner-threshold", cut; "scores", "raw"; "tau", "1" ]

              Expect.equal (edges "5e-4" "trace:1e-3") [] "inside"
              Expect.equal (edges "2e-4" "trace:1e-3") [ "lr" ] "the least"
              Expect.equal (edges "1e-3" "trace:1e-2") [ "lr"; "threshold"; "partner-threshold" ] "the largest"
              Expect.equal (edges "0.0002" "trace:1e-3") [ "lr" ] "however it is written")

          testCase "a trial adds its options to those in the user's brackets" (fun () ->
              Expect.equal (trial 3).Written "vanilla[lr=3]" "without brackets"
              Expect.equal { trial 3 with Method = "dns[sides=input]" }.Written "dns[sides=input;lr=3]" "with brackets") ]

let private files =
    testList
        "files"
        [ test "every trial is a line, the chosen one marked; the preset can be read as a stream's" (fun () ->
              let folder = Directory.CreateTempSubdirectory "cmcl-tuning"

              try
                  let tried i result : Tried =
                      { Trial = { trial i with Method = "dns[sides=input]" }
                        Role = Role.Subject
                        Seeds = [ 0, result; 1, result ]
                        Seconds = Map [ 0, 1.5 ] }

                  let all = [ tried 2 (Ok(Map [ "r10", 0.5 ])); tried 1 (Error "it, \"diverged\"") ]
                  Tuning.write folder.FullName (Map [ "dns[sides=input]", (2, [ "lr" ]) ]) all |> Check.get

                  Expect.equal
                      (File.ReadAllLines(Path.Combine(folder.FullName, "trials.csv")))
                      [| "method,trial,lr,seed,r10,bwt_r10,acc,bwt_acc,deviation_rel,learned_r10,seconds,state,message,chosen,edge"
                         "dns[sides=input],1,1,0,,,,,,,1.5,failed,\"it, \"\"diverged\"\"\",0,"
                         "dns[sides=input],1,1,1,,,,,,,,failed,\"it, \"\"diverged\"\"\",0,"
                         "dns[sides=input],2,2,0,0.5,,,,,,1.5,done,,1,lr"
                         "dns[sides=input],2,2,1,0.5,,,,,,,done,,1,lr" |]
                      "trials.csv"

                  let stream =
                      { synthetic.Value with
                          Preset =
                              { synthetic.Value.Preset with
                                  Methods = Map [ "dns", Map [ "lr", "9"; "free-basis", "own" ]; "joint", Map [ "lr", "8" ] ] } }

                  let origin: Tuning.Origin =
                      { Command = "cmcl tune"
                        Stream = stream
                        Seeds = [ 0; 1 ]
                        Within = 0.5
                        Tried = [ "dns", 12, 2 ]
                        Created = DateTimeOffset.UnixEpoch }

                  Tuning.writePreset folder.FullName origin [ all.Head.Trial ] |> Check.get

                  let json =
                      JsonNode.Parse(File.ReadAllText(Path.Combine(folder.FullName, "preset.json")))
                      |> Option.ofObj
                      |> Option.get

                  let text (name: string) = json[name] |> Option.ofObj |> Option.map (fun n -> n.ToJsonString()) |> Option.get

                  Expect.equal
                      (text "preset")
                      """{"methods":{"dns":{"free-basis":"own","lr":"2","sides":"input"}}}"""
                      "the fragment"

                  Expect.equal (text "digest") $"\"{stream.Digest}\"" "digest"
                  Expect.equal (text "seeds") "[0,1]" "seeds"

                  for name in [ "command"; "rule"; "created"; "split"; "trials"; "cmcl" ] do
                      Expect.isGreaterThan (text name).Length 3 name
              finally
                  folder.Delete true) ]

let tests = testList "Tuning" [ rule; grids; files ]
