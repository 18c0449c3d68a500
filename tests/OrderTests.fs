module Cmcl.Tests.OrderTests

open Cmcl
open Expecto
open Cmcl.Tests.Checks

let private names (stream: Stream) = stream.Steps |> List.map _.Name

let tests =
    testList
        "Order"
        [ test "0 is the stream's own" (fun () ->
              Expect.equal (names (Order.apply 0 synthetic.Value)) (names synthetic.Value) "names"
              Expect.equal (Order.permutation 5 0) [ 0..4 ] "places")

          test "every order is a permutation, and different orders differ while there are enough" (fun () ->
              for n in 2..6 do
                  let some = [ for order in 0 .. min 23 (Order.count n - 1) -> Order.permutation n order ]

                  for p in some do
                      Expect.equal (List.sort p) [ 0 .. n - 1 ] "a permutation"

                  Expect.equal (List.distinct some) some $"{n} steps"
                  Expect.isFalse (List.contains [ 0 .. n - 1 ] some.Tail) "only the first is the stream's own")

          test "the orders are those that they always were, and the first so many take a draw each" (fun () ->
              // As they were drawn when every one drew all before it.
              let slow n order =
                  let drawn (number: int) (attempt: int) =
                      let seed = Seed.ofInt number |> Seed.split "order of steps" |> Seed.split $"attempt {attempt}"
                      (Seed.permutation (int64 n) seed).data<int64>().ToArray() |> Array.map int |> List.ofArray

                  let next taken number =
                      Seq.initInfinite (drawn number) |> Seq.find (fun p -> not (List.contains p taken)) |> fun p -> p :: taken

                  Seq.fold next [ [ 0 .. n - 1 ] ] (seq { 1..order }) |> List.head

              for n in 1..5 do
                  let expected = [ for order in 0 .. min 23 (Order.count n - 1) -> slow n order ]
                  Expect.equal (Order.permutations n |> Seq.truncate 24 |> List.ofSeq) expected $"{n} steps"
                  Expect.equal [ for order in 0 .. expected.Length - 1 -> Order.permutation n order ] expected "one by one"

              let ordered = Order.first 7 synthetic.Value

              Expect.equal
                  (ordered |> List.map names)
                  [ for order in 0..6 -> names (Order.apply order synthetic.Value) ]
                  "streams"

              let few =
                  { synthetic.Value with
                      Steps = List.truncate 2 synthetic.Value.Steps }

              Expect.hasLength (Order.first 7 few) 2 "no more than there are")

          test "an order is decided by its number alone" (fun () ->
              Expect.equal (Order.permutation 6 5) (Order.permutation 6 5) "twice"
              let places = Order.permutation 6 2
              let applied = names (Order.apply 2 synthetic.Value)
              Expect.equal applied [ for place in places -> (names synthetic.Value)[place] ] "the same places on any stream")

          test "steps are numbered anew and stay what they are" (fun () ->
              let stream = synthetic.Value
              let other = Order.apply 3 stream
              Expect.equal [ for s in other.Steps -> s.Index ] [ 1..6 ] "numbers"

              for s in other.Steps do
                  let own = stream.Steps |> List.find (fun o -> o.Name = s.Name)
                  Expect.isTrue (obj.ReferenceEquals(own.A.Features, s.A.Features)) "no copy"
                  Expect.equal (s.Pair, s.Train, s.Test) (own.Pair, own.Train, own.Test) "its own rows"

              Expect.equal other.Digest stream.Digest "the data are the same")

          test "an order that the steps do not have is refused" (fun () ->
              Expect.equal (Order.count 3, Order.count 1, Order.count 13) (6, 1, System.Int32.MaxValue) "how many there are"

              for n, order in [ 3, 6; 1, 1; 4, -1 ] do
                  match faultOf (fun () -> Order.permutation n order) with
                  | Fault.BadValue(_, _, given) -> Expect.equal given (string order) "what came"
                  | fault -> failtest fault.Message)

          test "each step is measured by the same figures before training, wherever it stands" (fun () ->
              let before (stream: Stream) =
                  let outcome, _ = run stream 0 "zero-shot"

                  [ for step, task, value in measurements "r10" outcome do
                        if step = 0 then
                            (stream.Steps |> List.find (fun s -> s.Index = task)).Name, value ]
                  |> Map.ofList

              Expect.equal (before (Order.apply 1 synthetic.Value)) (before synthetic.Value) "by name") ]
