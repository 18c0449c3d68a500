module Cmcl.Tests.SweepFileTests

open System
open System.IO
open System.Text.Json
open Cmcl
open Expecto
open FsCheck
open FsCheck.FSharp
open Cmcl.Tests.Checks
open Cmcl.Tests.Processes

let private cells (file: SweepFile) = SweepFile.cells (fun _ -> 1) "out" file

let private sweep: SweepFile =
    SweepFile.ofBlocks
        [ SweepFile.block [ "synthetic" ] [ "vanilla"; "dns" ]
          |> SweepFile.set [ "epochs", "1" ]
          |> SweepFile.grid [ "lr", [ "1e-4"; "1e-3" ] ]
          |> SweepFile.seeds [ 0; 3 ]
          |> SweepFile.orders 2 ]

let private wrap (blocks: string) = $"{{\"format\": \"cmcl-sweep/1\", \"blocks\": [{blocks}]}}"
let private parse json = SweepFile.parse "sweep.json" json
let private words (faults: Fault list) = String.Join("\n", [ for f in faults -> f.Message ])

/// What is told of a file, whether its form or its cells are wrong.
let private told (json: string) : string = parse json |> Result.bind cells |> faultsOf |> words

let private good = "\"streams\": [\"synthetic\"], \"methods\": [\"vanilla\"]"

/// What stands in a file, and what has to be told of it.
let private wrong =
    [ "{", "sweep.json"
      "[]", "takes an object"
      "{}", "the sweep has no 'format'"
      wrap "", "blocks: it takes a list of at least one"
      (wrap $"{{{good}}}").Replace("sweep/1", "sweep/2"), "format: it takes \"cmcl-sweep/1\""
      wrap "{}", "blocks[0] has no 'streams'"
      wrap $"{{{good}}}, {{{good}, \"sedes\": [0]}}", "blocks[1] has an unknown key 'sedes'; did you mean 'seeds'?"
      wrap $"{{{good}, \"orders\": 1, \"orders\": 2}}", "'orders' stands there twice"
      wrap $"{{{good}, \"orders\": 0}}", "blocks[0].orders: it takes a whole number ≥ 1, not '0'"
      wrap $"{{{good}, \"seeds\": [0, -1]}}", "blocks[0].seeds[1]: it takes a whole number ≥ 0"
      wrap $"{{{good}, \"seeds\": [1, 1]}}", "blocks[0].seeds: it takes each item once"
      wrap $"{{{good}, \"split\": \"train\"}}", "blocks[0].split: it takes \"test\" or \"validation\""
      wrap $"{{{good}, \"grid\": {{\"lr\": 1}}}}", "blocks[0].grid.lr: it takes a list"
      wrap $"{{{good}, \"grid\": {{\"lr\": [null]}}}}", "blocks[0].grid.lr[0]: it takes a number, a text, true or false"
      wrap $"{{{good}, \"grid\": {{\"lr\": [1, 1]}}}}", "each item once"
      wrap $"{{{good}, \"grid\": {{\"lr\": [-1]}}}}", "blocks[0].grid.lr: lr takes"
      wrap $"{{{good}, \"grid\": {{\"lt\": [1]}}}}", "blocks[0].grid.lt: there is no option 'lt'"
      wrap $"{{{good}, \"grid\": {{\"lr=lr\": [1]}}}}", "'lr' stands there twice"
      wrap $"{{{good}, \"set\": {{\"epochs\": \"x\"}}}}", "blocks[0].set.epochs: epochs takes"
      wrap $"{{{good}, \"set\": {{\"tau\": 1}}}}", "changes nothing"
      wrap $"{{{good}, \"grid\": {{\"tau\": [1]}}}}", "blocks[0].grid: 'tau' is not an option of vanilla"
      wrap $"{{{good}, \"orders\": 1000}}", "at most 720"
      wrap "{\"streams\": [\"synthetic\"], \"methods\": [\"vanila\"]}", "blocks[0].methods[0]: there is no method 'vanila'"
      wrap "{\"streams\": [\"emojy\"], \"methods\": [\"vanilla\"]}", "blocks[0].streams[0]: there is no stream 'emojy'"
      wrap $"{{{good}}}, {{{good}, \"set\": {{\"epochs\": 2}}}}", "2 different cells 'synthetic: vanilla' with seed 0"
      (wrap $"{{{good}}}").Replace("\"blocks\"", "\"device\": \"tpu\", \"blocks\""), "device: it takes cpu, cuda or cuda:N" ]

/// Random sweeps, as their form allows, of any names.
let private anyFile: Gen<SweepFile> =
    gen {
        let some (g: Gen<'a>) = Gen.choose (1, 3) |> Gen.bind (fun n -> Gen.listOfLength n g) |> Gen.map List.distinct

        let name = Gen.elements [ "emoji"; "synthetic"; "/a b/stream.json"; "ü\"\\"; "x" ]
        let pair = Gen.zip (Gen.elements [ "lr"; "tau"; "epochs" ]) (Gen.elements [ "1"; "1e-3"; "on"; "trace:1" ])

        let block =
            gen {
                let! streams = some name
                let! methods = some name
                let! set = Gen.listOf pair |> Gen.map (List.distinctBy fst)
                let! axes = Gen.listOf (Gen.zip (Gen.elements [ "lr"; "a=b"; "tau" ]) (some (Gen.elements [ "1"; "x:1e-3" ])))
                let! seeds = some (Gen.choose (0, 9))
                let! orders = Gen.choose (1, 5)
                let! splits = Gen.choose (1, 3)
                let! split = Gen.elements [ Split.Test; Split.Validation ]

                return
                    SweepFile.block streams methods
                    |> SweepFile.set set
                    |> SweepFile.grid (List.distinctBy fst axes)
                    |> SweepFile.seeds seeds
                    |> SweepFile.orders orders
                    |> SweepFile.splits splits
                    |> SweepFile.split split
            }

        let! blocks = some block
        let! device = Gen.elements [ "cpu"; "cuda:1" ]

        return { SweepFile.ofBlocks blocks with Device = device }
    }

let private asWritten (file: SweepFile) : SweepFile =
    let folder = Directory.CreateTempSubdirectory "cmcl-sweep-file"

    try
        let path = Path.Combine(folder.FullName, "s.json")
        SweepFile.write path file |> Check.get
        parse (File.ReadAllText path) |> Check.get
    finally
        folder.Delete true

let tests =
    testList
        "SweepFile"
        [ test "a block is its product: streams × methods × grid × seeds × orders" (fun () ->
              let cells = cells sweep |> Check.get
              Expect.hasLength cells 16 "2 methods × 2 rates × 2 seeds × 2 orders"

              Expect.equal
                  (set [ for c in cells -> c.Cell.Method ])
                  (set [ "vanilla[lr=1e-4]"; "vanilla[lr=1e-3]"; "dns[lr=1e-4]"; "dns[lr=1e-3]" ])
                  "methods"

              Expect.equal (List.distinct [ for c in cells -> c.Job.Hash ]).Length 16 "all differ"

              for c in cells do
                  let options = Map.ofList (SweepFolder.options c)
                  Expect.equal options["epochs"] "1" "what is set"
                  Expect.stringContains c.Cell.Method $"""lr={if options["lr"] = "0.0001" then "1e-4" else "1e-3"}""" "the rate")

          test "a cell that stands in two blocks is one cell" (fun () ->
              let again = SweepFile.block [ "synthetic" ] [ "dns[lr=0.001]" ] |> SweepFile.set [ "epochs", "1" ]
              let both = cells { sweep with Blocks = sweep.Blocks @ [ again ] } |> Check.get
              Expect.equal both (cells sweep |> Check.get) "nothing more")

          test "axes that move together" (fun () ->
              let file =
                  SweepFile.ofBlocks
                      [ SweepFile.block [ "synthetic" ] [ "dns" ]
                        |> SweepFile.grid [ "threshold=partner-threshold", [ "trace:1e-3"; "trace:1e-2" ] ] ]

              let cells = cells file |> Check.get
              Expect.hasLength cells 2 "two"

              for c in cells do
                  let options = Map.ofList (SweepFolder.options c)
                  Expect.equal options["threshold"] options["partner-threshold"] "the same")

          test "what is wrong is told with its place" (fun () ->
              for json, expected in wrong do
                  Expect.stringContains (told json) expected json)

          test "all faults at once, of every block" (fun () ->
              let text =
                  told (
                      wrap
                          "{\"streams\": [\"nowhere\", \"synthetic\"], \"methods\": [\"nope\"], \"grid\": {\"lr\": [\"x\"]}}, {\"streams\": [\"synthetic\"], \"methods\": [\"dns[tau=1]\"]}"
                  )

              for place in [ "blocks[0].streams[0]"; "blocks[0].grid.lr"; "blocks[1].methods[0]" ] do
                  Expect.stringContains text place "told")

          test "numbers are taken as they are written" (fun () ->
              let file =
                  wrap $"{{{good}, \"set\": {{\"lr\": 1e-4, \"symmetric\": true, \"shuffle\": false}}}}" |> parse |> Check.get

              Expect.equal file.Blocks.Head.Set [ "lr", "1e-4"; "symmetric", "on"; "shuffle", "off" ] "texts")

          testPropertyWithConfig
              config
              "what is written is read"
              (Prop.forAll (Arb.fromGen anyFile) (fun file -> asWritten file = file))

          testCase "the paths of a file are meant from its folder, names stay"
          <| inFolder (fun folder ->
              let nested = Directory.CreateDirectory(Path.Combine(folder, "nested")).FullName
              Directory.CreateDirectory(Path.Combine(folder, "mine")) |> ignore
              let path = Path.Combine(nested, "s.json")

              SweepFile.write path (SweepFile.ofBlocks [ SweepFile.block [ "emoji"; "../mine"; "nope" ] [ "dns" ] ]) |> Check.get

              Expect.equal
                  (SweepFile.read path |> Check.get).Blocks.Head.Streams
                  [ "emoji"; Path.Combine(folder, "mine"); "nope" ]
                  "full paths"

              Expect.isError (SweepFile.read (Path.Combine(folder, "none.json"))) "no file")

          test "any bytes are read or refused, in words" (fun () ->
              let valid =
                  wrap
                      $"{{{good}, \"grid\": {{\"lr\": [1e-4]}}, \"set\": {{\"epochs\": 1}}, \"seeds\": [0, 1], \"split\": \"test\"}}"

              let random = Random 7
              let letters = "{}[]\",:0-e.ax \\"

              for _ in 1..5000 do
                  let text = valid.ToCharArray()

                  for _ in 0 .. random.Next 4 do
                      text[random.Next text.Length] <- letters[random.Next letters.Length]

                  let text = String(text).Substring(0, random.Next(valid.Length + 1))

                  match parse text with
                  | Ok _ -> ()
                  | Error faults -> Expect.all faults (fun f -> f.Message.Length > 10) "words") ]
