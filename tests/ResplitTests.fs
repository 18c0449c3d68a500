module Cmcl.Tests.ResplitTests

open System
open System.IO
open Expecto
open TorchSharp
open Cmcl
open Cmcl.Tests.Checks

let private parts = [ Split.Train; Split.Validation; Split.Test ]
let private resplit number stream = Resplit.apply number stream |> Check.get
let private emoji () : Stream = Catalogue.find "emoji" |> Check.get

/// The part of every row of a step, by its first bank.
let private partOf (step: Step) : Map<int64, Split> =
    Map
        [ for part in parts do
              for row in Stream.rows part step -> row, part ]

let private rowsOf (step: Step) : Set<int64> = partOf step |> Map.keys |> Set.ofSeq

/// Three steps over two kinds of items: a random part of the rows is in the first two, the rest in the last.
let private random (c: Case) : Stream =
    let n = 40L + c.N

    let bank name modality' =
        { Name = name
          Modality = modality modality'
          Features = normal c name n 3L }

    let vision, words, sounds = bank "v" vision, bank "t" text, bank "s" audio
    let rows = (Seed.permutation n (draw c "rows")).data<int64>().ToArray()
    let early, late = Array.splitAt (15 + int c.D) rows

    let step (name: string) a b (rows: int64[]) =
        let test, others = Array.splitAt (3 + int c.Da % 3) rows
        let validation, train = Array.splitAt (2 + int c.Db % 2) others

        InMemory.step a b (Array.sort train, Array.sort validation, Array.sort test)
        |> Result.map (fun step -> { step with Name = name })

    InMemory.stream "random" [ step "one" vision words early; step "two" vision sounds early; step "three" vision words late ]
    |> Check.get

let private checkSame (own: Stream) (other: Stream) =
    for before, after in List.zip own.Steps other.Steps do
        for part in parts do
            Expect.hasLength (Stream.rows part after) (Stream.rows part before).Length $"{after.Name}, {part} rows"

        Expect.equal (rowsOf after) (rowsOf before) "the rows of a step stay"

let tests =
    testList
        "Resplit"
        [ test "0 is the stream's own" (fun () ->
              Expect.isTrue (obj.ReferenceEquals(resplit 0 synthetic.Value, synthetic.Value)) "itself")

          property "parts keep their sizes and steps their rows; an item is in one part of all its steps" (fun c ->
              let own = random c
              let other = resplit (1 + c.Seed % 1000) own
              checkSame own other

              for row in rowsOf own.Steps[0] do
                  let part i = Map.find row (partOf other.Steps[i])
                  Expect.equal (part 0) (part 1) $"row {row}")

          mustFail "a split is the stream's own" (fun c ->
              let own = random c
              Expect.equal (partOf (resplit 1 own).Steps[0]) (partOf own.Steps[0]) "parts")

          property "a split is decided by its number, and has a name and a digest of its own" (fun c ->
              let own = random c
              let one, two, again = resplit 1 own, resplit 2 own, resplit 1 own
              Expect.equal (one.Steps |> List.map partOf) (again.Steps |> List.map partOf) "twice"
              Expect.equal (one.Name, one.Digest) (again.Name, again.Digest) "twice, by name"
              Expect.equal one.Name "random[split=1]" "name"
              Expect.hasLength (List.distinct [ own.Digest; one.Digest; two.Digest ]) 3 "digests"
              Expect.isTrue (obj.ReferenceEquals(own.Steps[0].A.Features, one.Steps[0].A.Features)) "no copy")

          test "every item is about as often held out" (fun () ->
              let c = { Seed = 5; N = 10L; D = 9L; Da = 5L; Db = 5L; Rank = 1L }
              let own = random c
              let splits = 400

              let times =
                  [ for number in 1..splits do
                        yield! (resplit number own).Steps[0].Test ]
                  |> List.countBy id

              let step = own.Steps[0]
              let items = (rowsOf step).Count
              let share = float step.Test.Length / float items
              Expect.hasLength times items "all of them"

              for row, n in times do
                  // Five standard deviations of a binomial.
                  let sd = sqrt (float splits * share * (1.0 - share))
                  Expect.isLessThan (abs (float n - float splits * share)) (5.0 * sd) $"row {row}: {n} of {splits}")

          test "emoji: both sets of items stay apart, and every item is in one part" (fun () ->
              let own = emoji ()
              let other = resplit 3 own
              checkSame own other

              for kind in [ " A"; " B" ] do
                  let own = other.Steps |> List.filter _.Name.EndsWith(kind)
                  Expect.hasLength (own |> List.map partOf |> List.distinct) 1 $"steps{kind}")

          test "pairs that share a row stay together" (fun () ->
              let pictures =
                  { Name = "p"
                    Modality = modality vision
                    Features = Seed.normal [ 20L; 3L ] (Seed.ofInt 1) }

              let captions =
                  { Name = "c"
                    Modality = modality text
                    Features = Seed.normal [ 60L; 3L ] (Seed.ofInt 2) }

              let pairs = [| for i in 0L .. 59L -> i / 3L |], [| 0L .. 59L |]

              let own =
                  InMemory.stream
                      "captioned"
                      [ InMemory.pairs pictures captions pairs (InMemory.splitPairs (Seed.ofInt 1) pairs) ]
                  |> Check.get

              let step = (resplit 1 own).Steps.Head
              let part = partOf step

              for picture in 0L .. 19L do
                  Expect.hasLength (List.distinct [ for k in 0L .. 2L -> part[3L * picture + k] ]) 1 $"picture {picture}"

              Expect.notEqual part (partOf own.Steps.Head) "another split"
              Expect.hasLength step.Test own.Steps.Head.Test.Length "as many")

          property "rows of one group are in one part" (fun c ->
              let own = random c
              let n = own.Banks["v"].Features.shape[0]
              // The stream's own split has to keep groups whole: rows of one part and one kind of item go by threes.
              let kind row = own.Steps |> List.map (fun s -> Map.tryFind row (partOf s))
              let groups = Array.create (int n) -1L

              for g, rows in [ 0L .. n - 1L ] |> List.groupBy kind |> List.collect (snd >> List.chunkBySize 3) |> List.indexed do
                  for row in rows do
                      groups[int row] <- int64 g

              let grouped = { own with Groups = Map [ "v", groups ] }

              for step in (resplit 1 grouped).Steps do
                  let part = partOf step

                  for _, rows in part.Keys |> Seq.groupBy (fun row -> groups[int row]) do
                      Expect.equal (rows |> Seq.map (fun row -> part[row]) |> Seq.distinct |> Seq.length) 1 "a group")

          mustFail "without groups they are not" (fun c ->
              let other = resplit 1 (random c)
              let part = partOf other.Steps[0]

              for _, rows in part.Keys |> Seq.groupBy (fun row -> row / 3L) do
                  Expect.equal (rows |> Seq.map (fun row -> part[row]) |> Seq.distinct |> Seq.length) 1 "by threes")

          test "a group in two parts already is refused by name" (fun () ->
              let own = random { Seed = 1; N = 5L; D = 5L; Da = 5L; Db = 5L; Rank = 1L }
              let n = own.Banks["v"].Features.shape[0]
              let grouped = { own with Groups = Map [ "v", Array.create (int n) 0L ] }

              match Resplit.apply 1 grouped with
              | Error [ Fault.Contradiction(what, _) ] -> Expect.stringContains what "step 'one'" "where"
              | other -> failtest $"%A{other}"

              match Resplit.apply -1 own with
              | Error [ Fault.BadValue(_, _, given) ] -> Expect.equal given "-1" "given"
              | other -> failtest $"%A{other}")

          test "names" (fun () ->
              for name, number in [ "emoji", 0; "emoji", 12; "data/x.json", 3; "a[split=1]", 2 ] do
                  let parsed = Resplit.parse (Resplit.name name number)
                  Expect.equal parsed (if number = 0 then Resplit.parse name else name, number) name

              for name in
                  [ "emoji[split=]"; "emoji[split=-1]"; "emoji[split=01]"; "[split=1]"; "emoji[split=1] "; "emoji[Split=1]" ] do
                  Expect.equal (Resplit.parse name) (name, 0) name)

          test "found by name, and by path" (fun () ->
              let one = Catalogue.find "emoji[split=1]" |> Check.get
              Expect.equal one.Digest (resplit 1 (emoji ())).Digest "the same"
              Expect.equal (Catalogue.find "emoji[split=0]" |> Check.get).Name "emoji" "its own"

              match Catalogue.find "emoij[split=1]" with
              | Error [ fault ] -> Expect.stringContains fault.Message "did you mean 'emoji'" "the sentence"
              | other -> failtest $"%A{other}")

          test "groups of a stream file are read, and checked" (fun () ->
              let folder = Directory.CreateTempSubdirectory "cmcl-groups"

              try
                  for name in [ "v"; "t" ] do
                      Npy.write (Path.Combine(folder.FullName, $"{name}.npy")) (Seed.normal [ 6L; 3L ] (Seed.ofInt 1))
                      |> Check.get

                  let read (groups: string) =
                      let file = Path.Combine(folder.FullName, "stream.json")

                      File.WriteAllText(
                          file,
                          """{ "format": "cmcl-stream/1", "name": "grouped",
                               "banks": { "v": { "modality": "vision", "file": "v.npy" }, "t": { "modality": "text", "file": "t.npy" } },
                               "rows": { "train": [0, 1], "validation": [2, 3], "test": [4, 5] },
                               "steps": [ { "name": "s", "a": "v", "b": "t", "train": "train", "validation": "validation", "test": "test" } ],
                               "groups": """
                          + groups
                          + " }"
                      )

                      StreamFolder.load file

                  let stream = read """{ "t": [0, 0, 1, 1, 2, 2] }""" |> Check.get
                  Expect.equal stream.Groups (Map [ "t", [| 0L; 0L; 1L; 1L; 2L; 2L |] ]) "groups"
                  let step = (resplit 1 stream).Steps.Head
                  Expect.equal (step.Train[0] + 1L, step.Test[0] + 1L) (step.Train[1], step.Test[1]) "pairs of neighbours"

                  for groups, expected in
                      [ """{ "t": [0, 0, 1] }""", "expected 6 numbers, one for each row, got 3"
                        """{ "x": [0] }""", "'x'"
                        """{ "t": 3 }""", "groups of bank 't'" ] do
                      match read groups with
                      | Error(fault :: _) -> Expect.stringContains fault.Message expected groups
                      | other -> failtest $"%A{other}"
              finally
                  folder.Delete true) ]
