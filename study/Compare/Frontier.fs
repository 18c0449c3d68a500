namespace Cmcl

open System

/// A method between stability and what it is worth in the end.
type FrontierPoint =
    {
        Method: string
        /// Relative deviation of old scores, lower is better.
        Deviation: Spread
        /// Recall@10, higher is better.
        Recall: Spread
        /// No other method has a mean as good in both and better in one.
        OnFrontier: bool
    }

/// Which methods are not beaten in recall@10 and deviation at once, among those that train step by step.
[<RequireQualifiedAccess>]
module Frontier =
    let private beats (a: Spread * Spread) (b: Spread * Spread) =
        let (da, ra), (db, rb) = a, b
        da.Mean <= db.Mean && ra.Mean >= rb.Mean && (da.Mean < db.Mean || ra.Mean > rb.Mean)

    /// Every method that has both figures on the stream, the most stable first.
    let points (stream: string) (m: Measured) : FrontierPoint list =
        let named name = Metric.find name |> Check.get

        let both =
            [ for label in Measured.competing m do
                  match Measured.spread stream label (named "deviation_rel") m, Measured.spread stream label (named "r10") m with
                  | Some deviation, Some recall -> label, (deviation, recall)
                  | _ -> () ]

        [ for label, own in both ->
              { Method = label
                Deviation = fst own
                Recall = snd own
                OnFrontier = not (both |> List.exists (fun (_, other) -> beats other own)) } ]
        |> List.sortBy (fun p -> p.Deviation.Mean, p.Recall.Mean)

    /// The frontier in words; None for fewer than two methods.
    let sentence (points: FrontierPoint list) : string option =
        let names (points: FrontierPoint list) = String.Join(", ", points |> List.map _.Method)

        match points |> List.partition _.OnFrontier with
        | _ when points.Length < 2 -> None
        | [ only ], _ -> Some $"{only.Method} has both the highest recall@10 and the least deviation, by means."
        | front, [] ->
            Some
                $"On the frontier are all: {names front}. Each has more recall@10 than those that move old scores less, by means."
        | front, rest ->
            Some
                $"On the frontier, from the most stable to the one of highest recall@10: {names front}. For each of the others ({names rest}) there is one that has at least its recall@10 with no more deviation, by means."
