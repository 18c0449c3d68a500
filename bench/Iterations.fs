namespace Cmcl

open TorchSharp

/// How long one iteration of one form takes at one size, beside what it has to do.
type Iteration =
    {
        Form: string
        /// The rank is that of the forms that it was timed beside, also where its own cost does not depend on it.
        Extent: Extent
        Threads: int
        Device: string
        /// Seconds an update.
        Timing: Timing
        /// Times as long as `none` in the same rounds.
        OverNone: float option
        Work: Work
        Ceilings: Ceilings
    }

    member i.Floor: float = Floor.seconds i.Ceilings i.Work

    /// The median against the floor.
    member i.TimesFloor: float = i.Timing.Median / i.Floor

/// Times whole iterations of several forms in rounds, so that what the machine does beside falls on all of them alike.
[<RequireQualifiedAccess>]
module Iterations =
    /// Seconds that a form is to be at work within one round.
    [<Literal>]
    let private Visit = 0.06

    /// A round has at most so many updates of a form.
    [<Literal>]
    let private MostUpdates = 20

    /// Updates of a session for so many seconds, in which compilers and caches settle; seconds an update, of the last of them.
    let private settle (device: torch.Device) (warmUp: float) (advance: int -> float) : float =
        let rec go spent count =
            let seconds = Clock.seconds device (fun () -> advance count |> ignore)

            if spent + seconds >= warmUp then
                seconds / float count
            else
                go (spent + seconds) (min 64 (2 * count))

        go 0.0 1

    /// Seconds an update of every contender, a sample a round. Rounds take turns in who is first; each contender has run for as
    /// long as five of them (or as many as are asked for) before. `limit` is for the seconds of all rounds together: slow contenders have fewer, but five at least.
    let rounds (device: torch.Device) (rounds: int) (limit: float) (contenders: (int -> float) list) : Timing list =
        let contenders =
            [| for advance in contenders do
                   let seconds = settle device (Visit * float (min 5 rounds)) advance
                   let count = int (Visit / seconds) |> max 1 |> min MostUpdates
                   struct (advance, count, seconds * float count) |]

        let whole = contenders |> Array.sumBy (fun struct (_, _, seconds) -> seconds)
        let rounds = int (limit / whole) |> max (min 5 rounds) |> min rounds
        let samples = contenders |> Array.map (fun _ -> Array.zeroCreate rounds)

        for round in 0 .. rounds - 1 do
            for turn in 0 .. contenders.Length - 1 do
                let place = (round + turn) % contenders.Length
                let struct (advance, count, _) = contenders[place]
                samples[place][round] <- Clock.seconds device (fun () -> advance count |> ignore) / float count

        [ for own in samples -> { Samples = own } ]

    /// Forms with their sessions at one size, timed against each other under libtorch's threads as they are.
    let contest
        (device: torch.Device)
        (count: int)
        (limit: float)
        (ceilings: Ceilings)
        (entries: (Form * Extent * Settings * Session) list)
        : Iteration list =
        use scope = torch.NewDisposeScope()

        let timings =
            [ for form, _, settings, session in entries -> Loop.advance form.Purely settings (Seed.ofInt 0) scope session ]
            |> rounds device count limit

        let none =
            List.zip entries timings |> List.tryPick (fun ((form, _, _, _), t) -> if form.Name = "none" then Some t else None)

        [ for (form, extent, _, _), timing in List.zip entries timings ->
              { Form = form.Name
                Extent = extent
                Threads = torch.get_num_threads ()
                Device = string device
                Timing = timing
                OverNone = none |> Option.map (fun reference -> Timing.over reference timing)
                Work = form.Work extent
                Ceilings = ceilings } ]
