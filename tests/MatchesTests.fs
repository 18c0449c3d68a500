module Cmcl.Tests.MatchesTests

open System
open System.IO
open Cmcl
open Expecto
open Cmcl.Tests.Checks
open TorchSharp

// ---- the naive reference -----------------------------------------------------------------------------------------------

let rec private orders (items: 'a list) : 'a list list =
    match items with
    | [] -> [ [] ]
    | _ ->
        [ for i in 0 .. items.Length - 1 do
              for rest in orders (List.removeAt i items) -> items[i] :: rest ]

/// Recall at each k and average precision of one query, mean over every order of candidates in which no score rises; matches that are no
/// numbers are nowhere.
let private ofQuery (ks: int list) (scores: float[]) (matches: Set<int>) : float list =
    let found = scores |> Array.indexed |> Array.filter (snd >> Double.IsNaN >> not) |> List.ofArray
    let levels = found |> List.groupBy snd |> List.sortByDescending fst |> List.map (snd >> List.map fst >> orders)

    let rec joined =
        function
        | [] -> [ [] ]
        | level :: rest ->
            [ for tail in joined rest do
                  for head in level -> head @ tail ]

    let figures (order: int list) =
        let places = order |> List.indexed |> List.filter (fun (_, c) -> matches.Contains c) |> List.map fst
        let hit k = if places |> List.exists (fun place -> place < k) then 1.0 else 0.0
        let precision = places |> List.mapi (fun i place -> float (i + 1) / float (place + 1)) |> List.sum
        List.map hit ks @ [ precision / float matches.Count ]

    joined levels |> List.map figures |> List.transpose |> List.map List.average

let private naive (ks: int list) (scores: float[][]) (matches: Matches) : float list =
    [ for i in 0 .. scores.Length - 1 ->
          let own = Seq.zip matches.A matches.B |> Seq.filter (fun (a, _) -> a = int64 i) |> Seq.map (snd >> int) |> set
          ofQuery ks scores[i] own ]
    |> List.transpose
    |> List.map List.average

let private names = [ "r1"; "r5"; "r10"; "map" ]

let private agrees (tolerance: float) (matches: Matches) (a: torch.Tensor) (b: torch.Tensor) (got: (string * float) list) =
    let got = Map got
    let scores = values (a.mm (b.t ()))
    let ab = naive [ 1; 5; 10 ] scores matches
    let ba = naive [ 1; 5; 10 ] (Array.transpose scores) matches.Turned

    for name, ab, ba in List.zip3 names ab ba do
        near $"{name}_ab" tolerance got[$"{name}_ab"] ab
        near $"{name}_ba" tolerance got[$"{name}_ba"] ba
        near name tolerance got[name] (0.5 * (ab + ba))

/// Every row has a match, and some have more.
let private drawn (c: Case) (n: int) (m: int) : Matches =
    let chosen =
        [ for i in 0 .. n - 1 do
              for j in 0 .. m - 1 do
                  if i % m = j || j % n = i || fraction c $"match {i} {j}" < 0.3 then
                      int64 i, int64 j ]

    { A = chosen |> List.map fst |> Array.ofList
      B = chosen |> List.map snd |> Array.ofList }

/// Rows with few values, so that scores tie; at most five of them, whose orders can be told one by one.
let private coarse c purpose (n: int) = (normal c purpose (int64 n) 2L).round()

let private between (c: Case) purpose first last = first + int (fraction c purpose * float (last - first + 1))

let private one (n: int64) : Matches = { A = [| 0L .. n - 1L |]; B = [| 0L .. n - 1L |] }

let private raw symmetric =
    { Temperature = 0.3
      Scoring = Scoring.Raw
      Symmetric = symmetric }

// ---- streams with pairs ------------------------------------------------------------------------------------------------

/// Pictures, each with as many captions, that lie where the pictures are.
let private captioned (pictures: int64) (each: int64) (noise: float) : Stream =
    let latent = Seed.normal [ pictures; 24L ] (Seed.ofInt 3)
    let ofB = [| 0L .. pictures * each - 1L |]
    let ofA = ofB |> Array.map (fun i -> i / each)
    let around = Seed.normal [ pictures * each; 24L ] (Seed.ofInt 4)
    let captions = latent.index_select(0L, torch.tensor ofA).add(around, noise.AsScalar())
    let unit (t: torch.Tensor) = t / t.norm (1, true)
    let a, b = InMemory.bank "pictures" "vision" (unit latent), InMemory.bank "captions" "text" (unit captions)

    InMemory.stream "captioned" [ InMemory.pairs a b (ofA, ofB) (InMemory.splitPairs (Seed.ofInt 1) (ofA, ofB)) ]
    |> Check.get

let private planOf (stream: Stream) (settings: (string * string) list) method =
    Plan.resolve stream.Preset settings [ method ] |> Check.get |> List.exactlyOne

let private short = [ "epochs", "3"; "batch", "4"; "lr", "1e-3"; "temperature", "0.1" ]

let private task items count : Task =
    { Task.ofPair 1 "task" pair (torch.zeros (count, 1L)) (torch.zeros (count, 1L)) with
        Items = items }

let private visits shuffle seed t = (Task.visit shuffle (Seed.ofInt seed) t).data<int64>().ToArray()

let private refused (words: string list) (result: Result<Step, Fault list>) =
    match result with
    | Ok _ -> failtest "taken"
    | Error faults ->
        let said = String.Join("; ", faults |> List.map _.Message)

        for word in words do
            Expect.stringContains said word "the sentence"

let tests =
    testList
        "Matches"
        [ property "several matches: recall and precision are means over all orders of the tied" (fun c ->
              let n, m = between c "n" 1 5, between c "m" 1 5
              let a, b = coarse c "a" n, coarse c "b" m
              let matches = drawn c n m
              agrees close matches a b (Retrieval.figuresOf matches a b)

              for budget in [ 1L; 64L ] do
                  agrees close matches a b (Retrieval.figuresOfWithin budget matches a b))

          property "one match: the same two ways" (fun c ->
              let n = between c "n" 2 5

              for make in [ coarse c; (fun purpose n -> normal c purpose (int64 n) 2L) ] do
                  let a, b = make "a" n, make "b" n
                  let figures = Retrieval.figures (raw true) a b
                  agrees close (one (int64 n)) a b figures

                  for name, value in Retrieval.figuresOf (one (int64 n)) a b do
                      near name close (Map.find name (Map figures)) value)

          property "a match that is no number is not found" (fun c ->
              let n, m = between c "n" 2 4, between c "m" 2 4
              let a, b = coarse c "a" n, coarse c "b" m
              use row = b[0L]
              row.fill_ (number nan) |> ignore
              let matches = drawn c n m
              let got = Map(Retrieval.figuresOf matches a b)
              let scores = values (a.mm (b.t ()))

              for name, wanted in List.zip names (naive [ 1; 5; 10 ] scores matches) do
                  near name close got[$"{name}_ab"] wanted)

          test "all scores NaN: nothing is found" (fun () ->
              let y = torch.full ([| 4L; 3L |], number nan)

              for _, value in Retrieval.figuresOf (one 4L) y y do
                  Expect.equal value 0.0 "figure"

              for name, value in Retrieval.figures (raw true) y y do
                  if name <> "loss" then
                      Expect.equal value 0.0 name)

          test "the example of docs/results.md" (fun () ->
              let queries = torch.ones (1L, 1L, dtype = torch.float64)
              let keys = torch.tensor([| 3.0; 2.0; 1.0; 1.0; 0.0 |]).unsqueeze 1L
              let both = Map(Retrieval.figuresOf { A = [| 0L; 0L |]; B = [| 0L; 2L |] } queries keys)
              near "r1" tight both["r1_ab"] 1.0
              near "map" tight both["map_ab"] (19.0 / 24.0)
              let alone = Map(Retrieval.figuresOf { A = [| 0L |]; B = [| 2L |] } queries keys)
              near "map of y" tight alone["map_ab"] (7.0 / 24.0)
              near "y at 3" tight (Matches.chance 1.0 1.0 1.0) 0.5)

          mustFail "ties by position, the match first" (fun c ->
              let n = between c "n" 2 5
              let a, b = coarse c "a" n, coarse c "b" n
              let scores = values (a.mm (b.t ()))

              let optimistic =
                  Array.average
                      [| for i in 0 .. n - 1 -> 1.0 / float (1 + (scores[i] |> Array.filter (fun s -> s > scores[i][i])).Length) |]

              near "map" close (Map.find "map_ab" (Map(Retrieval.figuresOf (one (int64 n)) a b))) optimistic)

          mustFail "one match of several is all that counts" (fun c ->
              let n = between c "n" 2 5
              let a, b = coarse c "a" n, coarse c "b" n
              let own = Map(Retrieval.figures (raw true) a b)
              near "r1" close (Map.find "r1_ab" (Map(Retrieval.figuresOf (drawn c n n) a b))) own["r1_ab"])

          property "items are the connected components" (fun c ->
              let p = between c "p" 1 12
              let a = [| for i in 0 .. p - 1 -> int64 (between c $"a {i}" 0 6) |]
              let b = [| for i in 0 .. p - 1 -> int64 (between c $"b {i}" 0 6) |]
              let mutable labels = Array.init p id
              let mutable going = true

              while going do
                  let next =
                      Array.init p (fun i ->
                          Seq.min (
                              seq {
                                  for j in 0 .. p - 1 do
                                      if a[i] = a[j] || b[i] = b[j] then
                                          labels[j]
                              }
                          ))

                  going <- next <> labels
                  labels <- next

              let numbers = labels |> Array.distinct |> Array.indexed |> Array.map (fun (i, label) -> label, int64 i) |> Map
              Expect.equal (Pairs.create a b).Items (labels |> Array.map (fun l -> numbers[l])) "items")

          property "an epoch visits each item once; draws differ between epochs, not between equal seeds" (fun c ->
              let sizes = [| for i in 0..9 -> between c $"size {i}" 2 5 |]
              let starts = Array.scan (+) 0 sizes
              let items = Array.init 10 (fun i -> [| int64 starts[i] .. int64 (starts[i + 1] - 1) |])
              let t = task (Some items) (int64 (Array.last starts))

              for shuffle in [ false; true ] do
                  let seen = visits shuffle c.Seed t
                  let itemOf (row: int64) = items |> Array.findIndex (Array.contains row)
                  let visited = Array.map itemOf seen
                  Expect.equal (Array.sort visited) [| 0..9 |] "once each"

                  if not shuffle then
                      Expect.equal visited [| 0..9 |] "in their order"

                  Expect.equal (visits shuffle c.Seed t) seen "the same seed"
                  Expect.isTrue (Seq.exists (fun k -> visits shuffle (c.Seed + k) t <> seen) [ 1..5 ]) "another seed")

          test "a task without items is shuffled as ever" (fun () ->
              let t = task None 9L
              Expect.equal (visits true 4 t) ((Seed.permutation 9L (Seed.ofInt 4)).data<int64>().ToArray()) "permutation"
              Expect.equal (visits false 4 t) [| 0L .. 8L |] "stored order")

          test "five captions a picture, found perfectly: r1 and map are 1 both ways, from training to its figures" (fun () ->
              use scope = torch.NewDisposeScope()
              let stream = captioned 20L 5L 0.01
              let seen = ResizeArray<int64[]>()
              let watch (_: Scene) = Some(fun (u: Update) -> seen.Add(u.Batch.Numbers.cpu().data<int64>().ToArray()))
              let plan = planOf stream short "vanilla"
              let observer = { Observer.silent with Begin = watch }
              let outcome = Train.run stream torch.CPU Split.Test 0 observer plan |> Check.get

              for metric in [ "r1_ab"; "r1_ba"; "r1"; "map_ab"; "map_ba"; "map" ] do
                  for step in [ 0; 1 ] do
                      let value = outcome.Measurements |> List.find (fun r -> r.Metric = metric && r.Step = step)
                      Expect.equal value.Value 1.0 $"{metric} after {step}"

              // 14 items in batches of 4: 4, 4, 4, 2.
              Expect.equal [ for rows in seen -> rows.Length ] (List.replicate 3 [ 4; 4; 4; 2 ] |> List.concat) "batches"
              let step = stream.Steps.Head
              let items = Stream.items step.Train step |> Option.get

              for epoch in Seq.chunkBySize 4 seen do
                  let visited = epoch |> Array.concat |> Array.map (fun row -> items |> Array.findIndex (Array.contains row))
                  Expect.equal (Array.sort visited) [| 0..13 |] "every item once")

          test "rows that are streamed give the same figures as rows that are held" (fun () ->
              use scope = torch.NewDisposeScope()
              let stream = captioned 20L 3L 0.5
              let plan = planOf stream short "vanilla"
              let held = Train.run stream torch.CPU Split.Test 0 Observer.silent plan |> Check.get

              let streamed =
                  Train.runWithin { Rows = 0L; Held = 0L } stream torch.CPU Split.Test 0 Observer.silent plan |> Check.get

              for name in [ "r1"; "map"; "loss"; "loss_before"; "loss_after" ] do
                  for (_, _, a), (_, _, b) in List.zip (measurements name held) (measurements name streamed) do
                      near name single a b)

          for method in [ "vanilla"; "dns"; "ewc"; "gem"; "derpp"; "co2l" ] do
              test $"{method}: interrupted and resumed with pairs as if never" (fun () ->
                  use scope = torch.NewDisposeScope()
                  let one = captioned 16L 3L 0.3
                  let second = { one.Steps.Head with Name = "again"; Index = 2 }
                  let stream = { one with Steps = one.Steps @ [ second ] }
                  let plan = planOf stream short method
                  let folder = Directory.CreateTempSubdirectory "cmcl-pairs"

                  try
                      let outcome, pieces = CheckpointTests.inPieces folder.FullName stream 0 5 plan
                      Expect.isGreaterThan pieces 1 "interrupted"

                      Expect.equal
                          (CheckpointTests.figures outcome)
                          (CheckpointTests.whole stream 0 plan |> CheckpointTests.figures)
                          "bit for bit"
                  finally
                      folder.Delete true)

          test "pairs that are none are refused" (fun () ->
              let a = InMemory.bank "a" "vision" (Seed.normal [ 4L; 3L ] (Seed.ofInt 1))
              let b = InMemory.bank "b" "text" (Seed.normal [ 8L; 3L ] (Seed.ofInt 2))
              let ofA, ofB = [| 0L; 0L; 1L; 1L; 2L; 2L; 3L; 3L |], [| 0L .. 7L |]
              let splits = [| 0L; 1L; 2L; 3L |], [| 4L; 5L |], [| 6L; 7L |]
              Expect.isOk (InMemory.pairs a b (ofA, ofB) splits) "these are"
              refused [ "8 and 7" ] (InMemory.pairs a b (ofA, ofB[..6]) splits)
              refused [ "row 9"; "bank 'b'" ] (InMemory.pairs a b (ofA, Array.updateAt 2 9L ofB) splits)

              refused
                  [ "row 0 of bank 'a'"; "row 0 of bank 'b'"; "twice" ]
                  (InMemory.pairs a b (ofA, Array.updateAt 1 0L ofB) splits)

              refused
                  [ "pair 2 (rows 1 and 2)"; "pair 3 (rows 1 and 3)"; "train"; "test"; "same item" ]
                  (InMemory.pairs a b (ofA, ofB) ([| 0L; 1L; 2L |], [| 4L; 5L |], [| 3L; 6L; 7L |]))

              // Through a caption that two pictures share, too.
              refused
                  [ "same item" ]
                  (InMemory.pairs
                      a
                      b
                      (ofA, [| 0L; 1L; 2L; 3L; 3L; 5L; 6L; 7L |])
                      ([| 0L; 1L; 2L; 3L |], [| 4L; 5L |], [| 6L; 7L |]))

              refused [ "row 8" ] (InMemory.pairs a b (ofA, ofB) ([| 0L; 1L; 8L |], [| 4L; 5L |], [| 6L; 7L |])))

          test "accuracy has the label of the row that a pair is of" (fun () ->
              use scope = torch.NewDisposeScope()
              let stream = captioned 20L 5L 0.1
              let step = stream.Steps.Head
              let struct (ofA, ofB) = Stream.bankRows Split.Test step
              Expect.equal ofA (ofB |> Array.map (fun i -> i / 5L)) "pictures of captions"
              let labels = [| for i in 0L .. 19L -> i % 2L |]

              let accuracy =
                  { Items = "pictures"
                    Modality = modality "vision"
                    // Every picture is its own class but for the first, which has none.
                    Prototypes = step.A.Features
                    Labels = [| for i in 0L .. 19L -> (if i = 0L then -1L else i) |]
                    Classes = [ for l in 0..19 -> $"{l} {labels[l]}" ] }

              let stream =
                  { stream with
                      Steps = [ { step with Accuracy = Some accuracy } ] }

              let outcome = Train.run stream torch.CPU Split.Test 0 Observer.silent (planOf stream [] "zero-shot") |> Check.get
              Expect.equal (measurements "acc" outcome |> List.map (fun (_, _, x) -> x) |> List.distinct) [ 1.0 ] "accuracy")

          test "the example of docs/stream-format.md is read, written again the same, and described" (fun () ->
              let text = File.ReadAllText(Path.Combine(__SOURCE_DIRECTORY__, "..", "docs", "stream-format.md"))
              let from = text.IndexOf("```json", text.IndexOf "## Several matches") + 7
              let example = text.Substring(from, text.IndexOf("```", from) - from)
              let folder = Directory.CreateTempSubdirectory "cmcl-pairs"
              use scope = torch.NewDisposeScope()

              try
                  let path name = Path.Combine(folder.FullName, name)
                  File.WriteAllText(path "stream.json", example)
                  Npy.write (path "pictures.npy") (Seed.normal [ 8L; 6L ] (Seed.ofInt 1)) |> Check.get
                  Npy.write (path "captions.npy") (Seed.normal [ 16L; 6L ] (Seed.ofInt 2)) |> Check.get
                  let stream = StreamFolder.load folder.FullName |> Check.get
                  let step = stream.Steps.Head
                  Expect.equal (Stream.visits step) 5L "items"
                  Expect.equal step.Pairs.Value.Items [| for i in 0L .. 15L -> i / 2L |] "items of pairs"

                  Expect.stringContains
                      (Describe.text stream)
                      "16 pairs of 8 rows of pictures and 16 rows of captions"
                      "cmcl info"

                  let outcome =
                      Train.run stream torch.CPU Split.Test 0 Observer.silent (planOf stream short "vanilla") |> Check.get

                  Expect.isNonEmpty (measurements "map" outcome) "map"

                  match Plan.check stream (planOf stream [ "batch", "6" ] "vanilla") with
                  | [ Fault.BatchTooLarge(_, 6, 5) ] -> ()
                  | other -> failtest $"%A{other}"

                  let description = StreamFile.read (path "stream.json") |> Check.get
                  File.WriteAllText(path "again.json", StreamFile.json description)
                  Expect.equal (StreamFile.read (path "again.json") |> Check.get) description "written and read"
                  let spoilt = example.Replace("\"to\": 10", "\"to\": 11").Replace("\"from\": 10", "\"from\": 11")
                  File.WriteAllText(path "stream.json", spoilt)

                  match StreamFolder.load folder.FullName with
                  | Error [ fault ] -> Expect.stringContains fault.Message "pair 10 (rows 5 and 10)" "the leak"
                  | other -> failtest $"%A{other}"
              finally
                  folder.Delete true) ]
