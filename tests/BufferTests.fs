module Cmcl.Tests.BufferTests

open Cmcl
open Expecto
open Cmcl.Tests.Checks
open TorchSharp

let private other = Pair.named audio text

/// Items with their number in every part: `a` has it, `b` its double, `za` its half.
let private numbered (step: int) (of': Pair) (first: int64) (count: int64) : Group =
    let numbers = ((Tensors.range torch.CPU first (first + count)).``to`` torch.float64).unsqueeze 1L
    Buffer.group step of' numbers (numbers * number 2.0) [ "za", numbers * number 0.5 ]

let private numbers (g: Group) : int list = [ for x in g.Parts["a"].data<float>().ToArray() -> int x ]
let private all (buffer: Buffer) : int list = buffer.Groups |> List.collect numbers

let private parts (buffer: Buffer) : torch.Tensor list =
    [ for g in buffer.Groups do
          yield! g.Parts.Values ]

let private reservoirOf (buffer: Buffer) : Reservoir = Reservoir.ofMemory (Buffer.toMemory buffer Map.empty)

/// The items of a reservoir alone, by way of a memory.
let private itemsOf (reservoir: Reservoir) : Buffer =
    Buffer.ofMemory (Reservoir.toMemory (reservoirOf Buffer.empty) reservoir Map.empty)

/// What `Reservoir.offer` does, every item gone through and every group made anew.
let private naive (capacity: int) (seed: Seed) (batch: Group) (buffer: Buffer) : Buffer =
    let random = System.Random(int (seed.Value &&& 0x7FFFFFFFUL))
    let incoming = buffer.Groups.Length
    let items = ResizeArray()

    for place, g in List.indexed buffer.Groups do
        for row in 0L .. g.Count - 1L do
            items.Add struct (place, row)

    for row in 0L .. batch.Count - 1L do
        let number = buffer.Seen + row + 1L

        if items.Count < capacity then
            items.Add struct (incoming, row)
        else
            let slot = random.NextInt64 number

            if slot < int64 capacity then
                items[int slot] <- struct (incoming, row)

    let chosen place =
        [| for struct (group, row) in items do
               if group = place then
                   row |]

    let groups () =
        let left =
            [ for place, g in List.indexed buffer.Groups do
                  match chosen place with
                  | [||] -> ()
                  | few when few.LongLength = g.Count -> g
                  | few -> Buffer.rows (torch.tensor few) g ]

        match chosen incoming with
        | [||] -> left
        | few ->
            let added = Buffer.rows (torch.tensor few) batch
            let own, others = left |> List.partition (fun g -> g.Step = batch.Step && g.Pair = batch.Pair)

            let join (g: Group) =
                { g with
                    Parts = g.Parts |> Map.map (fun name t -> torch.cat ([| t; added.Parts[name] |], 0L)) }

            (own |> List.tryHead |> Option.map join |> Option.defaultValue added) :: others
            |> List.sortBy (fun g -> g.Step, g.Pair)

    { Seen = buffer.Seen + batch.Count
      Groups = Tensors.scopedWith (Seq.collect (fun (g: Group) -> g.Parts.Values)) groups }

/// The same by a reservoir.
let private offer (capacity: int) (seed: Seed) (batch: Group) (buffer: Buffer) : Buffer =
    Tensors.scopedWith (fun (b: Buffer) -> b.Groups |> Seq.collect (fun g -> g.Parts.Values)) (fun () ->
        reservoirOf buffer |> Reservoir.offer capacity seed batch |> itemsOf)

/// Items 0, 1, … in batches of these sizes, the i-th of step i/2.
let private batches (sizes: int64 list) : Group list =
    let firsts = List.scan (+) 0L sizes |> List.truncate sizes.Length
    [ for i, (first, size) in List.indexed (List.zip firsts sizes) -> numbered (i / 2) pair first size ]

let private offered (capacity: int) (seed: Seed) (between: Buffer -> Buffer) (batches: Group list) : Buffer =
    (Buffer.empty, List.indexed batches)
    ||> List.fold (fun buffer (i, batch) -> offer capacity (Seed.split $"batch {i}" seed) batch (between buffer))

let private sizes (c: Case) : int64 list = [ for i in 1..5 -> 1L + int64 (9.0 * fraction c $"size {i}") ]
let private capacity (c: Case) = 2 + int (20.0 * fraction c "capacity")
let private stored (c: Case) : Buffer = batches (sizes c) |> offered (capacity c) (draw c "offers") id

/// Σ (o − e)²/e over places that are equally likely, each draw taking `taken` different ones of them: as χ² with one degree less.
let private chiSquare (counts: int[]) (draws: int) (taken: float) : float =
    let places = float counts.Length
    let share = taken / places
    let expected = float draws * share
    let spread = expected * (1.0 - share) * places / (places - 1.0)
    counts |> Array.sumBy (fun o -> (float o - expected) ** 2.0 / spread)

/// χ² of how often each of 40 items is among 10 that are kept.
let private inclusion (between: Buffer -> Buffer) : float =
    let draws = 1500
    let counts = Array.zeroCreate 40

    for i in 1..draws do
        use scope = torch.NewDisposeScope()

        for item in batches [ 7L; 7L; 3L; 11L; 5L; 7L ] |> offered 10 (Seed.ofInt i) between |> all do
            counts[item] <- counts[item] + 1

    chiSquare counts draws 10.0

let tests =
    testList
        "Buffer"
        [ test "a reservoir keeps every item that was ever offered with the same probability" (fun () ->
              // 39 degrees of freedom: above 73 once in a thousand.
              Expect.isLessThan (inclusion id) 73.0 "uniform"

              // A reservoir that forgets how many were offered prefers the late.
              let forgetful (buffer: Buffer) = { buffer with Seen = min 10L buffer.Seen }
              Expect.isGreaterThan (inclusion forgetful) 730.0 "told apart")

          property "a reservoir never exceeds its capacity, and its items are whole and each there once" (fun c ->
              let buffer = stored c
              let total = List.sum (sizes c)
              Expect.equal buffer.Seen total "offered"
              Expect.equal buffer.Count (min total (int64 (capacity c))) "kept"
              Expect.equal (List.distinct (all buffer)).Length (all buffer).Length "each once"

              Expect.equal
                  (buffer.Groups |> List.map _.Step)
                  (buffer.Groups |> List.map _.Step |> List.distinct |> List.sort)
                  "steps"

              for g in buffer.Groups do
                  identical "partners" g.Parts["b"] (g.Parts["a"] * number 2.0)
                  identical "what is kept beside" g.Parts["za"] (g.Parts["a"] * number 0.5)

                  for batch in batches (sizes c) |> List.filter (fun b -> b.Step <> g.Step) do
                      Expect.isEmpty (List.filter (fun i -> List.contains i (numbers batch)) (numbers g)) "of its step")

          property "the same bits as when every item is gone through, offer after offer, and the same draws" (fun c ->
              let capacity = capacity c
              let mutable slow, fast = Buffer.empty, reservoirOf Buffer.empty
              let mutable memory: Memory = Map.empty

              for i in 0..39 do
                  let seed = draw c $"offer {i}"
                  // Steps come back, and two pairs take turns in one.
                  let batch =
                      numbered
                          (i / 10)
                          (if i % 7 = 0 then other else pair)
                          (int64 (10 * i))
                          (1L + int64 (9.0 * fraction c $"size {i}"))

                  let earlier, before = fast, parts (itemsOf fast) |> List.map (fun t -> t.clone ())
                  slow <- naive capacity seed batch slow
                  fast <- Reservoir.offer capacity seed batch fast
                  memory <- Reservoir.toMemory earlier fast memory
                  List.iter2 (identical "what was there before") (parts (itemsOf earlier)) before

                  for now in [ itemsOf fast; Buffer.ofMemory memory; itemsOf (Reservoir.ofMemory memory) ] do
                      Expect.equal now.Seen slow.Seen "offered"
                      Expect.equal [ for g in now.Groups -> g.Step, g.Pair ] [ for g in slow.Groups -> g.Step, g.Pair ] "groups"
                      List.iter2 (identical "items") (parts now) (parts slow)

                  for count in [ 1L; 3L; 100L ] do
                      let one, two = Reservoir.draw seed count fast |> Option.get, Buffer.draw seed count slow |> Option.get
                      Expect.equal (one.Step, one.Pair) (two.Step, two.Pair) "drawn from"
                      List.iter2 (identical "drawn") (List.ofSeq one.Parts.Values) (List.ofSeq two.Parts.Values)

                  // From its midst on, as a run that is taken up again.
                  if i = 20 then
                      fast <- Reservoir.ofMemory memory)

          property "two ways on from one reservoir do not see each other" (fun c ->
              let start =
                  batches [ 5L; 5L; 5L ]
                  |> List.fold (fun r b -> Reservoir.offer 100 (draw c "room") b r) (reservoirOf Buffer.empty)

              let on first = Reservoir.offer 100 (draw c "on") (numbered 1 pair first 2L) start
              let one, two = on 1000L, on 2000L
              let last (r: Reservoir) = all (itemsOf r) |> List.rev |> List.truncate 2
              Expect.equal (last one, last two) ([ 1001; 1000 ], [ 2001; 2000 ]) "each its own"
              Expect.equal (all (itemsOf start)) [ 0..14 ] "and the start neither")

          property "what enters a full reservoir is written behind what is there, mostly without a copy" (fun c ->
              let capacity, batches = 50, [ for i in 0..99 -> numbered 1 pair (int64 (10 * i)) 10L ]

              let copies =
                  ((reservoirOf Buffer.empty, Map.empty, 0), List.indexed batches)
                  ||> List.fold (fun (before, memory: Memory, copies) (i, batch) ->
                      let after = Reservoir.offer capacity (draw c $"{i}") batch before
                      let next = Reservoir.toMemory before after memory
                      let part (memory: Memory) = memory["buffer/0001/vision/text/a"]

                      let stayed = i > 0 && obj.ReferenceEquals(part next, part memory)
                      after, next, (if stayed then copies else copies + 1))
                  |> fun (_, _, copies) -> copies

              // About 250 items enter, 50 of room at a time.
              Expect.isLessThan copies 20 "copies")

          property "while there is room every item enters, in its order" (fun c ->
              let buffer = batches (sizes c) |> offered 1000 (draw c "offers") id
              Expect.equal (all buffer) [ 0 .. int (List.sum (sizes c)) - 1 ] "all")

          test "pairs of modalities of one step are groups of their own" (fun () ->
              let offer of' first = offer 100 (Seed.ofInt 0) (numbered 1 of' first 4L)
              let buffer = Buffer.empty |> offer pair 0L |> offer other 4L |> offer pair 8L |> offer other 12L
              Expect.equal (buffer.Groups |> List.map (fun g -> g.Pair)) (List.sort [ pair; other ]) "both"

              for g in buffer.Groups do
                  let first = if g.Pair = pair then 0 else 4
                  Expect.equal (numbers g) ([ first .. first + 3 ] @ [ first + 8 .. first + 11 ]) "each its own")

          property "the same seed gives the same buffer" (fun c ->
              let one, two = stored c, stored c
              Expect.equal (all one) (all two) "items"
              List.iter2 (identical "parts") (parts one) (parts two))

          test "another seed gives another" (fun () ->
              let kept seed = batches [ 50L; 50L ] |> offered 10 (Seed.ofInt seed) id |> all
              Expect.notEqual (kept 1) (kept 2) "items")

          property "through a method's memory it comes back as it was, and what else is there stays" (fun c ->
              let buffer = stored c
              let beside = torch.ones 1L

              let before =
                  Buffer.toMemory (batches [ 9L; 9L; 9L; 9L; 9L; 9L ] |> offered 54 (draw c "x") id) (Map [ "else", beside ])

              let memory = Buffer.toMemory buffer before
              Expect.isTrue (obj.ReferenceEquals(memory["else"], beside)) "else"
              let again = Buffer.ofMemory memory
              Expect.equal again.Seen buffer.Seen "offered"

              Expect.equal
                  (again.Groups |> List.map (fun g -> g.Step, g.Pair))
                  (buffer.Groups |> List.map (fun g -> g.Step, g.Pair))
                  "groups"

              for one, two in List.zip (parts buffer) (parts again) do
                  Expect.isTrue (obj.ReferenceEquals(one, two)) "the same tensors"

              Expect.equal (Buffer.ofMemory Map.empty) Buffer.empty "none")

          property "what stays as it is stays the same tensor" (fun c ->
              let buffer = stored c
              let next = offer (capacity c) (draw c "next") (numbered 9 pair 1000L 2L) buffer

              for g in next.Groups do
                  for before in buffer.Groups do
                      if numbers g = numbers before then
                          for KeyValue(name, t) in g.Parts do
                              Expect.isTrue (obj.ReferenceEquals(t, before.Parts[name])) name)

          property "so many of each step that ended, drawn from all of it" (fun c ->
              let perStep = 1L + int64 (12.0 * fraction c "per step")
              let steps = batches (sizes c)
              let kept = (Buffer.empty, steps) ||> List.fold (fun b g -> Buffer.keep perStep (draw c $"{g.Step}") g b)
              Expect.equal (kept.Groups |> List.map _.Count) (sizes c |> List.map (min perStep)) "counts"
              Expect.equal kept.Seen (List.sum (sizes c)) "seen"

              for g, step in List.zip kept.Groups steps do
                  Expect.equal (List.distinct (numbers g)).Length (int g.Count) "each once"
                  Expect.isTrue (numbers g |> List.forall (fun i -> List.contains i (numbers step))) "of its step")

          test "what is kept outlives what it was drawn from" (fun () ->
              for perStep in [ 3L; 100L ] do
                  let step = numbered 1 pair 0L 8L
                  let kept = Buffer.keep perStep (Seed.ofInt 0) step Buffer.empty

                  for t in step.Parts.Values do
                      t.Dispose()

                  Expect.equal (List.distinct (all kept)).Length (int (min perStep 8L)) "there")

          property "an equal share for each step, and never more than the capacity" (fun c ->
              let capacity = int64 (capacity c)
              let steps = batches (sizes c)

              let fold buffer (i, g: Group) =
                  let next = Buffer.share capacity (draw c $"{i}") { g with Step = i } buffer
                  Expect.isLessThanOrEqual next.Count capacity "capacity"
                  let part = max 1L (capacity / int64 (i + 1))
                  let expected = sizes c |> List.truncate (min (i + 1) (int capacity)) |> List.map (min part)
                  Expect.equal (next.Groups |> List.map _.Count) expected $"after {i}"
                  next

              let buffer = List.fold fold Buffer.empty (List.indexed steps)
              Expect.equal buffer.Seen (List.sum (sizes c)) "seen"
              Expect.equal (List.distinct (all buffer)).Length (all buffer).Length "each once")

          test "a replay batch is a step as likely as it has items, and its items are equally likely" (fun () ->
              let draws = 3000

              let buffer =
                  (Buffer.empty, batches [ 6L; 3L; 12L ])
                  ||> List.fold (fun b g -> Buffer.keep 100L (Seed.ofInt 0) { g with Step = int b.Seen } b)
              // By item, in three groups of 6, 3 and 12, of which two are drawn each time: what a group of n has, n/21 · 2/n.
              let counts = Array.zeroCreate 21

              for i in 1..draws do
                  use scope = torch.NewDisposeScope()
                  let drawn = Buffer.draw (Seed.ofInt i) 2L buffer |> Option.get
                  Expect.equal (List.distinct (numbers drawn)).Length 2 "two different ones"

                  for item in numbers drawn do
                      counts[item] <- counts[item] + 1

              let expected = float draws * 2.0 / 21.0
              // Draws of one group go together, which widens the spread at most twofold; 20 degrees of freedom.
              let statistic = counts |> Array.sumBy (fun o -> (float o - expected) ** 2.0 / expected)
              Expect.isLessThan statistic (2.0 * 45.0) "uniform over items")

          property "a replay batch has as many items as are asked for, or a whole step" (fun c ->
              let buffer = stored c

              match Buffer.draw (draw c "draw") c.N buffer with
              | None -> Expect.equal buffer.Count 0L "empty"
              | Some g ->
                  let whole = buffer.Groups |> List.find (fun b -> b.Step = g.Step)
                  Expect.equal g.Count (min c.N whole.Count) "items"
                  Expect.isTrue (numbers g |> List.forall (fun i -> List.contains i (numbers whole))) "of the step"
                  identical "partners" g.Parts["b"] (g.Parts["a"] * number 2.0)

              Expect.isNone (Buffer.draw (draw c "draw") c.N Buffer.empty) "none from an empty one")

          property "nothing that is given is changed or freed" (fun c ->
              let buffer = stored c
              let batch = numbered 7 pair 500L 6L
              let given = parts buffer @ List.ofSeq batch.Parts.Values
              let seed = draw c "again"

              untouched "a buffer" given (fun () ->
                  offer (capacity c) seed batch buffer |> ignore
                  Buffer.keep c.N seed batch buffer |> ignore
                  Buffer.keep 100L seed batch buffer |> ignore
                  Buffer.share (int64 (capacity c)) seed batch buffer |> ignore
                  Buffer.draw seed c.N buffer |> ignore
                  Buffer.draw seed 1000L buffer |> ignore
                  Buffer.toMemory buffer Map.empty |> Buffer.ofMemory |> ignore))

          test "an offer leaves no tensors but new parts of the buffer" (fun () ->
              let buffer = batches [ 8L; 8L; 8L; 8L; 8L; 8L ] |> offered 20 (Seed.ofInt 4) id
              let given = parts buffer

              for seed in 1..20 do
                  let batch = numbered 3 pair 100L 8L
                  let mutable fresh = 0L

                  let left =
                      leaked (fun () ->
                          let next = offer 20 (Seed.ofInt seed) batch buffer
                          let old t = given |> List.exists (fun g -> obj.ReferenceEquals(g, t))
                          fresh <- parts next |> List.filter (old >> not) |> List.length |> int64)

                  Expect.equal left fresh "new parts alone") ]
