namespace Cmcl

/// Which rows of two matrices match, where a row may have several matches: row A[i] of the one with row B[i] of the other, no pair twice.
type Matches =
    { A: int64[]
      B: int64[] }

    member internal m.Turned: Matches = { A = m.B; B = m.A }

/// Recall and mean average precision where a query has several matches, from counts alone (docs/results.md).
[<RequireQualifiedAccess>]
module Matches =
    /// The places at which each value stands first, and for every place which of these values it has.
    /// Example: `Matches.distinct [| 7L; 7L; 3L |]` has the places 0, 2 and the values 0, 0, 1.
    let distinct (values: 'v[]) : struct (int64[] * int64[]) =
        let seen = System.Collections.Generic.Dictionary<'v, int64>()
        let places = ResizeArray<int64>()

        let which =
            values
            |> Array.mapi (fun place value ->
                match seen.TryGetValue value with
                | true, known -> known
                | _ ->
                    let fresh = int64 places.Count
                    seen[value] <- fresh
                    places.Add(int64 place)
                    fresh)

        struct (places.ToArray(), which)

    /// A match's score and how many candidates are above it and equal to it, itself included.
    [<Struct>]
    type internal Counted = { Score: float; Greater: float; Equal: float }

    /// 1 + 1/2 + … + 1/n for n = 0 … last.
    let internal harmonic (last: int64) : float[] =
        let sums = Array.zeroCreate (int last + 1)

        for j in 1 .. int last do
            sums[j] <- sums[j - 1] + 1.0 / float j

        sums

    /// The chance that one of m matches is among the first r of m + t in random order: 1 − C(t, r)/C(t + m, r).
    let internal chance (m: float) (t: float) (r: float) : float =
        if r <= 0.0 then
            0.0
        elif r > t then
            1.0
        else
            let mutable none = 1.0

            for i in 0 .. int r - 1 do
                none <- none * (t - float i) / (t + m - float i)

            1.0 - none

    /// Of one query: for each k the chance that a match is among the k highest, then the average precision, expected over random orders of
    /// the tied. A match whose score is NaN equals nothing, and is not found.
    let internal query (harmonic: float[]) (ks: int list) (matches: Counted[]) : float[] =
        let levels =
            matches
            |> Array.filter (fun c -> c.Equal > 0.0)
            |> Array.groupBy _.Score
            |> Array.sortByDescending fst
            |> Array.map snd

        let found k =
            match Array.tryHead levels with
            | None -> 0.0
            | Some best ->
                let m = float best.Length
                chance m (best[0].Equal - m) (float k - best[0].Greater)

        let mutable above = 0.0
        let mutable precision = 0.0

        for level in levels do
            // Of the `all` that tie, m are matches: the j-th of them is one with chance m/all, at rank above + j, and then
            // (j − 1)(m − 1)/(all − 1) of those before it are matches, too.
            let m, all, greater = float level.Length, level[0].Equal, level[0].Greater

            precision <-
                precision
                + (if all = 1.0 then
                       (above + 1.0) / (greater + 1.0)
                   else
                       let share = (m - 1.0) / (all - 1.0)
                       let ranks = harmonic[int (greater + all)] - harmonic[int greater]
                       m / all * ((above + 1.0 - share * (greater + 1.0)) * ranks + share * all))

            above <- above + m

        [| for k in ks do
               found k
           precision / float matches.Length |]
