module Cmcl.Tests.RetrievalTests

open System
open Cmcl
open Expecto
open Cmcl.Tests.Checks
open TorchSharp

/// Recall from a sorted list: the match may stand anywhere among the scores equal to its own, so its hit is the share of
/// those places that are among the first k.
let private sorted (k: int) (scores: float[][]) (own: int -> int) : float =
    Array.average
        [| for i in 0 .. scores.Length - 1 ->
               let order = scores[i] |> Array.sortDescending

               let places =
                   [ for place in 0 .. order.Length - 1 do
                         if order[place] = scores[i][own i] then
                             place ]

               places |> List.averageBy (fun place -> if place < k then 1.0 else 0.0) |]

/// Outputs with few values, so that many scores tie.
let private coarse (c: Case) purpose n = (normal c purpose n c.D).round()

let private contrasts =
    [ for scoring in [ Scoring.Raw; Scoring.Cosine ] do
          for symmetric in [ false; true ] ->
              { Temperature = 0.3
                Scoring = scoring
                Symmetric = symmetric } ]

let tests =
    testList
        "Retrieval"
        [ property "recall is that of a sorted list, ties shared" (fun c ->
              for make in [ coarse c; (fun purpose n -> normal c purpose n c.D) ] do
                  let q, k = make "q" c.N, make "k" c.N
                  let scores = values (q.mm (k.t ()))
                  let ks = [ 1; 2; 5; 10; 100 ]

                  for wanted, got in List.zip ks (Retrieval.recall ks q k) do
                      near $"recall@{wanted}" tight got (sorted wanted scores id))

          property "recall grows with k and is 1 from n on" (fun c ->
              let recall = Retrieval.recall [ 1 .. int c.N + 2 ] (coarse c "q" c.N) (coarse c "k" c.N)
              Expect.isTrue (recall |> List.pairwise |> List.forall (fun (a, b) -> a <= b + 1e-15)) "monotone"
              near "at n" tight recall[int c.N - 1] 1.0)

          property "k/n where all rows are alike" (fun c ->
              let y = torch.ones (c.N, c.D, dtype = torch.float64)

              for k in 1 .. int c.N do
                  near $"k = {k}" tight (Retrieval.recall [ k ] y y).Head (float k / float c.N))

          property "accuracy is that of a sorted list, rows without a class left out" (fun c ->
              let items, prototypes = coarse c "items" c.N, coarse c "classes" 4L
              let labels = [| for i in 0 .. int c.N - 1 -> int64 (int (5.0 * fraction c $"label {i}")) - 1L |]

              let known =
                  [| for i in 0 .. labels.Length - 1 do
                         if labels[i] >= 0L then
                             i |]

              if known.Length > 0 then
                  let scores = values (items.mm (prototypes.t ()))
                  let expected = sorted 1 [| for i in known -> scores[i] |] (fun row -> int labels[known[row]])
                  near "accuracy" tight (Retrieval.accuracy items prototypes labels) expected)

          test "accuracy of nothing is no number" (fun () ->
              let y = torch.ones (2L, 3L)
              Expect.isTrue (Double.IsNaN(Retrieval.accuracy y y [| -1L; -1L |])) "NaN")

          test "scores that are no numbers find nothing" (fun () ->
              let y = torch.full ([| 4L; 3L |], number nan)
              Expect.equal (Retrieval.recall [ 1; 10 ] y y) [ 0.0; 0.0 ] "recall"
              Expect.equal (Retrieval.accuracy y y [| 0L; 1L; 2L; 3L |]) 0.0 "accuracy")

          property "the loss is Contrastive's" (fun c ->
              let ya, yb = normal c "ya" c.N c.D, normal c "yb" c.N c.D

              for k in contrasts do
                  near "loss" tight (Retrieval.loss k ya yb) (item (Contrastive.loss k ya yb)))

          property "blocks cover all rows, in order, within the budget or a row at a time" (fun c ->
              for budget in [ 0L; 1L; 40L; 100L * c.Rank; Blocks.budget ] do
                  let spans = Blocks.spans budget 8L c.Da c.N

                  Expect.equal
                      [ for first, count in spans do
                            yield! [ first .. first + count - 1L ] ]
                      [ 0L .. c.N - 1L ]
                      "rows"

                  Expect.isTrue (spans |> List.forall (fun (_, count) -> count = 1L || count * c.Da * 8L <= budget)) "budget")

          property "in blocks of any size, ties across their borders too: as in one piece" (fun c ->
              // Whole numbers: scores are exact, so that ties are ties wherever a block ends.
              let ya, yb, prototypes = coarse c "ya" c.N, coarse c "yb" c.N, coarse c "classes" 4L
              let labels = [| for i in 0 .. int c.N - 1 -> int64 (i % 5) - 1L |]
              let raw = contrasts |> List.filter (fun k -> k.Scoring = Scoring.Raw)

              for budget in [ 1L; 8L * c.N; 8L * c.N * (1L + c.N / 2L) ] do
                  let ks = [ 1; 3; 10 ]

                  for k, inBlocks, whole in List.zip3 ks (Retrieval.recallWithin budget ks ya yb) (Retrieval.recall ks ya yb) do
                      near $"recall@{k}" tight inBlocks whole

                  let accuracy = Retrieval.accuracyWithin budget ya prototypes labels
                  let whole = Retrieval.accuracy ya prototypes labels
                  near "accuracy" tight accuracy whole

                  for k in raw do
                      near "loss" tight (Retrieval.lossWithin budget c.N k ya yb) (Retrieval.loss k ya yb)

                      for (metric, inBlocks), (_, whole) in
                          List.zip (Retrieval.figuresWithin budget k ya yb) (Retrieval.figures k ya yb) do
                          near metric tight inBlocks whole)

          property "both directions by hand, ties shared" (fun c ->
              let ya, yb = coarse c "ya" c.N, coarse c "yb" c.N
              let scores = values (ya.mm (yb.t ()))
              let figures = Map(Retrieval.figures contrasts.Head ya yb)

              for k in [ 1; 5; 10 ] do
                  near $"r{k}_ab" tight figures[$"r{k}_ab"] (sorted k scores id)
                  near $"r{k}_ba" tight figures[$"r{k}_ba"] (sorted k (Array.transpose scores) id))

          property "the loss in batches is the mean of theirs" (fun c ->
              let ya, yb = normal c "ya" c.N c.D, normal c "yb" c.N c.D

              for k in contrasts do
                  for size in 1L .. c.N do
                      let batch (y: torch.Tensor) i = y.narrow (0L, i * size, size)
                      let losses = [ for i in 0L .. c.N / size - 1L -> Retrieval.loss k (batch ya i) (batch yb i) ]
                      near $"batches of {size}" tight (Retrieval.lossInBatches size k ya yb) (List.average losses))

          test "no rows, no figures" (fun () ->
              let none = torch.ones (0L, 3L)
              Expect.all (Retrieval.figures contrasts.Head none none) (snd >> Double.IsNaN) "NaN"
              Expect.isTrue (Double.IsNaN(Retrieval.loss contrasts.Head none none)) "NaN")

          test "more rows than the budget holds: recall and loss as in one piece" (fun () ->
              let n = 4200L
              let make purpose = (Seed.normal [ n; 3L ] (Seed.ofInt 1 |> Seed.split purpose)).``to`` torch.float32
              let q, k = make "q", make "k"
              let contrast = { Contrastive.paper with Symmetric = true }
              near "loss" single (Retrieval.loss contrast q k) (item (Contrastive.loss contrast q k))
              let scores = q.mm (k.t ())
              let rank = scores.gt(scores.diagonal().unsqueeze 1L).sum 1L
              let expected k = item (rank.lt(number (float k)).to_type(torch.float64).mean())
              let recall = Retrieval.recall [ 1; 50 ] q k
              near "recall@1" 1e-3 recall[0] (expected 1)
              near "recall@50" 1e-3 recall[1] (expected 50))

          property "the figures are recall both ways and its mean" (fun c ->
              let ya, yb = normal c "ya" c.N c.D, normal c "yb" c.N c.D
              let k = contrasts[2]
              let figures = Map(Retrieval.figures k ya yb)
              let a, b = Alignment.normalise ya, Alignment.normalise yb
              near "ab" tight figures["r5_ab"] (Retrieval.recall [ 5 ] a b).Head
              near "ba" tight figures["r5_ba"] (Retrieval.recall [ 5 ] b a).Head
              near "mean" tight figures["r5"] (0.5 * (figures["r5_ab"] + figures["r5_ba"]))
              near "loss" tight figures["loss"] (Retrieval.loss k ya yb))

          property "leaves its inputs as they are, and no tensor" (fun c ->
              let ya, yb = normal c "ya" c.N c.D, normal c "yb" c.N c.D

              let all () =
                  for k in contrasts do
                      Retrieval.figures k ya yb |> ignore
                      Retrieval.figuresWithin 1L k ya yb |> ignore

                  Retrieval.accuracy ya yb [| 0L .. c.N - 1L |] |> ignore

              untouched "Retrieval" [ ya; yb ] all
              Expect.equal (leaked all) 0L "leaked") ]
