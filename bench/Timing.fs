namespace Cmcl

/// How long something took, once a round.
type Timing =
    {
        /// Seconds, in the order of the rounds.
        Samples: float[]
    }

    /// A quantile, linear between neighbours.
    member private t.Quantile(q: float) : float =
        let sorted = Array.sort t.Samples
        let place = q * float (sorted.Length - 1)
        let below = int place
        let above = min (below + 1) (sorted.Length - 1)
        sorted[below] + (place - float below) * (sorted[above] - sorted[below])

    member t.Median: float = t.Quantile 0.5
    member t.Minimum: float = Array.min t.Samples

    /// The interquartile range.
    member t.Spread: float = t.Quantile 0.75 - t.Quantile 0.25

[<RequireQualifiedAccess>]
module Timing =
    /// How many times as long as another that was taken in the same rounds: the median of the rounds' ratios, so that what slows a
    /// whole round down is in both.
    /// Example: `Timing.over { Samples = [| 1.0; 2.0; 4.0 |] } { Samples = [| 2.0; 4.0; 8.0 |] }`.
    let over (reference: Timing) (timing: Timing) : float = { Samples = Array.map2 (/) timing.Samples reference.Samples }.Median

/// y = c xᵖ.
type PowerLaw = { Factor: float; Exponent: float }

[<RequireQualifiedAccess>]
module PowerLaw =
    /// Least squares on log y = log c + p log x; None without two different x.
    /// Example: `PowerLaw.fit [ 1.0, 3.0; 2.0, 12.0; 4.0, 48.0 ]`.
    let fit (points: (float * float) list) : PowerLaw option =
        if points |> List.map fst |> List.distinct |> List.length < 2 then
            None
        else
            let logs = [ for x, y in points -> log x, log y ]
            let x, y = List.averageBy fst logs, List.averageBy snd logs
            let exponent = List.sumBy (fun (a, b) -> (a - x) * (b - y)) logs / List.sumBy (fun (a, _) -> (a - x) ** 2.0) logs

            Some { Factor = exp (y - exponent * x); Exponent = exponent }
