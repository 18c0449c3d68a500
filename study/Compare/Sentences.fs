namespace Cmcl

/// What results say, as sentences of a report.
[<RequireQualifiedAccess>]
module Sentences =
    let private metric (name: string) : Metric = Metric.find name |> Check.get

    /// mean ± sd of a fraction, in per cent.
    let private percent (spread: Spread) : string =
        match Metric.spread (metric "r10") spread with
        | mean, Some sd -> $"{mean} ± {sd}"
        | mean, None -> mean

    /// What was forgotten without and with DNS; None unless both were run on two steps or more.
    let forgotten (stream: string) (m: Measured) : string option =
        let fate label (transfer: Spread) =
            let verb = if transfer.Mean < 0.0 then "lost" else "gained"
            let points = percent { transfer with Mean = abs transfer.Mean }

            let moved =
                Measured.spread stream label (metric "deviation_rel") m
                |> Option.map (fun d -> $", and their alignment scores moved by {percent d} per cent of their size")
                |> Option.defaultValue ""

            $"the tasks learned before the last step {verb} {points} points of recall@10 from when they were learned to the end{moved}"

        let transfers =
            [ for label in Measured.methods m do
                  match Measured.spread stream label (metric "bwt_r10") m with
                  | Some spread -> label, spread
                  | None -> () ]

        let pick role =
            transfers
            |> List.map fst
            |> Roles.first (Measured.roles m) role
            |> Option.map (fun label -> label, fate label (List.find (fst >> (=) label) transfers |> snd))

        Option.map2
            (fun (vanilla, its) (dns, own) ->
                $"Without protection ({vanilla}), {its}. With dual-sided null-space projection ({dns}), {own}.")
            (pick Role.Baseline)
            (pick Role.Subject)

    /// Which methods keep scores and which keep performance; None where none of the registry's does.
    /// Example: `(Sentences.promises [ "vanilla"; "dns"; "cca" ]).IsSome`.
    let promises (labels: string list) : string option =
        let promising promise =
            [ for label in labels do
                  match Plan.resolve { Common = Map.empty; Methods = Map.empty; Run = [] } [] [ label ] with
                  | Ok [ plan ] when plan.Method.Promise = promise -> label
                  | _ -> () ]

        let sentence (labels: string list) (says: string) : string option =
            if labels.IsEmpty then None else Some(String.concat ", " labels + says)

        let scores =
            sentence (promising Promise.Scores) ": old scores stand, so an index that is in use stays valid; read the deviation."

        let performance =
            sentence
                (promising Promise.Performance)
                ": old pairs are found as well as before, and scores may move; read recall and BWT."

        match List.choose id [ scores; performance ] with
        | [] -> None
        | both -> Some("What is promised: " + System.String.Join(" ", both))

    /// How far the bounds from certificates are above what was measured; None where no old scores have moved.
    let certified (rows: Row list) : string option =
        let of' metric =
            Map
                [ for r in rows do
                      if r.Metric = metric && r.When <> When.Final then
                          (r.Method, r.Seed, r.When), r.Value ]

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
            let median = ratios[ratios.Length / 2].ToString("0.00", System.Globalization.CultureInfo.InvariantCulture)

            Some
                $"In {pairs.Length} places where old scores moved, the bound was {verdict}; its median is {median} times what was measured."
