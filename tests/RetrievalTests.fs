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

          test "more rows than fit a block: recall, loss, accuracy as in one piece" (fun () ->
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

          property "leaves its inputs as they are" (fun c ->
              let ya, yb = normal c "ya" c.N c.D, normal c "yb" c.N c.D

              untouched "Retrieval" [ ya; yb ] (fun () ->
                  for k in contrasts do
                      Retrieval.figures k ya yb |> ignore

                  Retrieval.accuracy ya yb [| 0L .. c.N - 1L |])) ]
