namespace Cmcl

open System
open System.Globalization

/// One column of the summary table.
type SummaryColumn =
    {
        Title: string
        Unit: string
        Better: Better
        /// As a reader sees it: mean ± sd.
        Show: Spread -> string
        /// By method.
        Spreads: Map<string, Spread>
        /// The methods whose value is the best one shown; references do not compete, and alone there is no contest.
        Best: Set<string>
    }

/// The figures of the summary table and the sentence under it, from the rows of a run.
[<RequireQualifiedAccess>]
module Summary =
    let private text (format: string) (x: float) = x.ToString(format, CultureInfo.InvariantCulture).Replace("-", "−")

    /// The mean and, in the same form, its deviation.
    let private plusMinus (form: float -> string) (factor: float) (spread: Spread) : string =
        let number x = text (form spread.Mean) (factor * x)

        match spread.Sd with
        | Some sd -> $"{number spread.Mean} ± {number sd}"
        | None -> number spread.Mean

    let private oneDecimal (_: float) = "0.0"

    /// A fraction in per cent with one decimal.
    let percent: Spread -> string = plusMinus oneDecimal 100.0

    /// A plain number with two to four digits that count, below a thousandth as a power of ten.
    let plain: Spread -> string =
        plusMinus
            (fun mean ->
                match abs mean with
                | 0.0 -> "0"
                | x when x >= 0.0095 -> "0.000"
                | x when x >= 0.00095 -> "0.0000"
                | _ -> "0.0e+0")
            1.0

    let private seconds: Spread -> string = plusMinus oneDecimal 1.0

    /// The mean alone, with a unit: state does not depend on the seed.
    let private bytes (spread: Spread) : string =
        let rec fit (x: float) units =
            match units with
            | [ unit ] -> x, unit
            | unit :: _ when x < 1000.0 -> x, unit
            | _ :: larger -> fit (x / 1000.0) larger
            | [] -> x, ""

        let size, unit = fit spread.Mean [ "B"; "kB"; "MB"; "GB" ]
        text (if unit = "B" then "0" else "0.0") size + " " + unit

    /// One figure per seed and method, gathered over the seeds.
    let private gather (figure: Row list -> float option) (rows: Row list) : Map<string, Spread> =
        rows
        |> List.groupBy _.Method
        |> List.choose (fun (method, own) ->
            own
            |> List.groupBy _.Seed
            |> List.choose (snd >> figure)
            |> Transfer.meanSd
            |> Option.map (fun spread -> method, spread))
        |> Map.ofList

    let private some (rows: Row list) (figure: Row list -> float) = if rows.IsEmpty then None else Some(figure rows)

    /// A figure at the end of the stream. Of a method that starts again at every step, only what it learned counts.
    let private final (roles: Roles) (metric: string) (rows: Row list) : float option =
        let counts (r: Row) = metric.StartsWith("learned_", StringComparison.Ordinal) || not (Roles.startsAgain roles r.Method)

        rows |> List.tryFind (fun r -> r.Metric = metric && r.Step = "final" && counts r) |> Option.map _.Value

    let private time (rows: Row list) : float option =
        some (rows |> List.filter (fun r -> r.Metric.StartsWith("seconds_", StringComparison.Ordinal))) (List.sumBy _.Value)

    let private state (rows: Row list) : float option =
        some (rows |> List.filter (fun r -> r.Metric = "bytes_state")) (fun own -> (List.maxBy _.Value own).Value)

    let private best (roles: Roles) (better: Better) (show: Spread -> string) (spreads: Map<string, Spread>) : Set<string> =
        let competing = spreads |> Map.filter (fun method _ -> not (Roles.isBound roles method))

        if competing.Count < 2 then
            Set.empty
        else
            let meanOnly spread = show { spread with Sd = None }

            let winner =
                competing
                |> Map.toList
                |> List.map (fun (_, spread) -> spread.Mean)
                |> Better.best better
                |> Option.map (fun mean -> meanOnly { Mean = mean; Sd = None; Count = 1 })

            competing |> Map.filter (fun _ spread -> Some(meanOnly spread) = winner) |> Map.toList |> List.map fst |> Set.ofList

    /// The columns that have any value, in the order of the table.
    let columns (roles: Roles) (rows: Row list) : SummaryColumn list =
        let column title unit better show figure =
            let spreads = gather figure rows

            { Title = title
              Unit = unit
              Better = better
              Show = show
              Spreads = spreads
              Best = best roles better show spreads }

        let rate title metric = column title "%" Better.Higher percent (final roles metric)

        [ rate "accuracy" "acc"
          rate "BWT of accuracy" "bwt_acc"
          rate "recall@1" "r1"
          rate "recall@5" "r5"
          rate "recall@10" "r10"
          rate "BWT of recall@10" "bwt_r10"
          column "relative deviation" "" Better.Lower plain (final roles "deviation_rel")
          rate "learned recall@10" "learned_r10"
          column "time" "s" Better.Lower seconds time
          column "state kept" "" Better.Lower bytes state ]
        |> List.filter (fun c -> not c.Spreads.IsEmpty)

    /// How many seeds each method has.
    let seeds (rows: Row list) : Map<string, int> =
        rows
        |> List.groupBy _.Method
        |> List.map (fun (method, own) -> method, own |> List.distinctBy _.Seed |> List.length)
        |> Map.ofList

    /// What was forgotten without and with DNS, in words; None unless both were run on two steps or more.
    let forgotten (roles: Roles) (rows: Row list) : string option =
        let transfer = gather (final roles "bwt_r10") rows
        let deviation = gather (final roles "deviation_rel") rows

        let pick role = Row.methods rows |> List.filter transfer.ContainsKey |> Roles.first roles role

        let fate method =
            let spread = transfer[method]
            let verb = if spread.Mean < 0.0 then "lost" else "gained"
            let points = percent { spread with Mean = abs spread.Mean }

            let moved =
                match Map.tryFind method deviation with
                | Some d -> $", and their alignment scores moved by {percent d} per cent of their size"
                | None -> ""

            $"the tasks learned before the last step {verb} {points} points of recall@10 from when they were learned to the end{moved}"

        Option.map2
            (fun vanilla dns ->
                $"Without protection ({vanilla}), {fate vanilla}. With dual-sided null-space projection ({dns}), {fate dns}.")
            (pick Role.Baseline)
            (pick Role.Subject)

    /// How far the bounds from certificates are above what was measured, in words; None where no old scores have moved.
    let certified (rows: Row list) : string option =
        let of' metric =
            Map
                [ for r in rows do
                      if r.Metric = metric && (Results.index r.Step).IsSome then
                          (r.Method, r.Seed, r.Step, r.Task), r.Value ]

        let truths, bounds = of' "deviation_rel", of' "bound_rel"

        let pairs =
            [ for KeyValue(place, truth) in truths do
                  match Map.tryFind place bounds with
                  | Some bound when truth > 0.0 -> truth, bound
                  | _ -> () ]

        if pairs.IsEmpty then
            None
        else
            let ratios = pairs |> List.map (fun (truth, bound) -> bound / truth) |> List.sort
            let below = pairs |> List.filter (fun (truth, bound) -> not (truth <= bound)) |> List.length
            let verdict = if below = 0 then "never below the truth" else $"below the truth in {below}"
            let median = text "0.00" ratios[ratios.Length / 2]

            Some
                $"In {pairs.Length} places where old scores moved, the bound was {verdict}; its median is {median} times what was measured."
