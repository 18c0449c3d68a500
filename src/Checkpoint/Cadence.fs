namespace Cmcl

open System
open System.Diagnostics
open System.Globalization

/// How often a run is kept.
[<RequireQualifiedAccess>]
type Cadence =
    | Never
    /// After a step or within it, when half a minute has passed since the last time.
    | Auto
    /// After every step, and within it as follows.
    | Steps
    | Updates of int64
    | Epochs of int64
    | Seconds of float

/// When checkpoints are written.
[<RequireQualifiedAccess>]
module Cadence =
    let private expected = "auto, off, step, or how many updates (200), epochs (1ep) or seconds (30s) apart"

    /// What a loss of power may cost under `Auto`.
    let private autoSeconds = 30.0

    /// From `auto`, `off`, `step`, `200`, `1ep`, `30s`.
    let parse (name: string) (text: string) : Result<Cadence, Fault list> =
        let bad = Error [ Fault.BadValue(name, expected, text) ]
        let number (suffix: string) = text.Substring(0, text.Length - suffix.Length)

        let whole (suffix: string) (cadence: int64 -> Cadence) =
            match Int64.TryParse(number suffix, NumberStyles.None, CultureInfo.InvariantCulture) with
            | true, n when n > 0L -> Ok(cadence n)
            | _ -> bad

        match text with
        | "auto" -> Ok Cadence.Auto
        | "off" -> Ok Cadence.Never
        | "step" -> Ok Cadence.Steps
        | _ when text.EndsWith "ep" -> whole "ep" Cadence.Epochs
        | _ when text.EndsWith 's' ->
            match Double.TryParse(number "s", NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture) with
            | true, n when n > 0.0 && Double.IsFinite n -> Ok(Cadence.Seconds n)
            | _ -> bad
        | _ -> whole "" Cadence.Updates

    /// A checkpointer that hands the state to `write` as often as the cadence says, and once more before it leaves, when `leave` says so.
    let checkpointer (cadence: Cadence) (leave: unit -> bool) (write: RunState -> unit) : Checkpointer =
        let clock = Stopwatch.StartNew()
        let mutable updates = 0L
        let mutable epochs = 0L

        let due (at: SavePoint) : bool =
            match cadence, at with
            | Cadence.Never, _ -> false
            | Cadence.Auto, _ -> clock.Elapsed.TotalSeconds >= autoSeconds
            | _, SavePoint.Step -> true
            | Cadence.Steps, _ -> false
            | Cadence.Updates n, _ -> updates % n = 0L
            | Cadence.Epochs n, SavePoint.Update epochOver -> epochOver && epochs % n = 0L
            | Cadence.Seconds s, _ -> clock.Elapsed.TotalSeconds >= s

        fun at state ->
            match at with
            | SavePoint.Update epochOver ->
                updates <- updates + 1L
                epochs <- epochs + (if epochOver then 1L else 0L)
            | SavePoint.Step -> ()

            let leaving = leave ()

            if due at || (leaving && cadence <> Cadence.Never) then
                write (state ())
                clock.Restart()

            leaving
