namespace Cmcl

open System

/// How the rate falls over a step, as a factor of `--lr`.
[<RequireQualifiedAccess>]
type Schedule =
    | Constant
    /// To 0 over the step, without warm-up (the paper's code).
    | Linear
    /// Half a cosine to 0.
    | Cosine

[<RequireQualifiedAccess>]
module Schedule =
    /// The factor for update `i` (0-based) of `total`: linear (total − i)/total, cosine ½(1 + cos(π i/total)).
    let factor (schedule: Schedule) (total: int64) (i: int64) : float =
        let past = float i / float (max 1L total)

        match schedule with
        | Schedule.Constant -> 1.0
        | Schedule.Linear -> max 0.0 (1.0 - past)
        | Schedule.Cosine -> 0.5 * (1.0 + cos (Math.PI * min 1.0 past))
