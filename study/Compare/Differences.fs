namespace Cmcl

open MathNet.Numerics.Distributions

/// A method less another on one metric, over the seeds that both have, or over splits where there are several.
type Difference =
    {
        Stream: string
        Method: string
        Against: string
        Metric: Metric
        /// Mean of the paired differences, their sample standard deviation, and how many: one for each seed, or for each split, as the mean over
        /// its seeds.
        Over: Spread
        /// The 95 % t-interval of the mean; None for a single difference.
        Interval: (float * float) option
        /// Of the t-test that the mean is zero, two-sided; None for a single difference.
        P: float option
        /// The same after Holm's correction for all methods of its stream that are held against the same one on its metric.
        Holm: float option
    }

/// Differences between methods that were run with the same seeds and splits, in the stream's own order of steps.
[<RequireQualifiedAccess>]
module Differences =
    /// What the intervals cover, and what they do not, for so many splits.
    let covers (splits: int) : string =
        let units =
            if splits > 1 then
                $"Differences are taken seed by seed within every split, and those of a split count as one, their mean: seeds of one split share its \
                 items. A split decides which items are held out. So an interval tells what the mean difference would be over more splits of these \
                 items; as splits share items, intervals are somewhat too narrow. It does not cover other data, other encoders or other orders of \
                 steps."
            else
                "Differences are taken seed by seed; a seed decides the order of rows within the steps and whatever a method draws, nothing else. So an \
                 interval tells what the mean difference would be over more seeds, on this stream with its features, its split and its order of steps. It \
                 does not cover other data or other encoders."

        units
        + " Every interval is at 95 % by itself (Student's t, taking the differences for normal). For many methods at once read Holm's p, which is corrected for how many \
           methods are compared on a metric, though not for how many metrics."

    /// The half-width in standard errors of a 95 % interval of the mean of n values: the 0.975 quantile of Student's t with
    /// n − 1 degrees of freedom. As in `Differences.quantile 10`, which is 2.262.
    let quantile (n: int) : float = StudentT.InvCDF(0.0, 1.0, float (n - 1), 0.975)

    /// mean ± t sd/√n; None for fewer than two values.
    let interval (s: Spread) : (float * float) option =
        s.Sd
        |> Option.map (fun sd ->
            let half = quantile s.Count * sd / sqrt (float s.Count)
            s.Mean - half, s.Mean + half)

    /// The two-sided p of the t-test that a mean is zero; None for fewer than two values. Values that are all the same are certain.
    let p (s: Spread) : float option =
        s.Sd
        |> Option.map (fun sd ->
            if s.Mean = 0.0 then 1.0
            elif sd = 0.0 then 0.0
            else 2.0 * StudentT.CDF(0.0, 1.0, float (s.Count - 1), -abs s.Mean * sqrt (float s.Count) / sd))

    /// Holm's correction (1979): with p₍₁₎ ≤ … ≤ p₍ₘ₎ the i-th becomes max_{j ≤ i} min(1, (m − j + 1) p₍ⱼ₎), in the given order.
    /// As in `Differences.holm [ 0.01; 0.04; 0.03 ]`, which is 0.03, 0.06, 0.06.
    let holm (ps: float list) : float list =
        let sorted = ps |> List.indexed |> List.sortBy snd

        let corrected =
            sorted |> List.mapi (fun i (_, p) -> min 1.0 (float (ps.Length - i) * p)) |> List.scan max 0.0 |> List.tail

        List.zip (List.map fst sorted) corrected |> List.sortBy fst |> List.map snd

    /// What the others are held against: the method named; without a name the first of this toolkit's own, `dns` if it is there, or the first
    /// that trains step by step, or the first. Fault: `Unknown`.
    let against (wanted: string option) (m: Measured) : Result<string option, Fault list> =
        let methods = Measured.methods m

        match wanted with
        | Some name when List.contains name methods -> Ok(Some name)
        | Some name -> Error [ Fault.Unknown("method in this comparison", name, methods) ]
        | None ->
            Ok(
                Roles.first (Measured.roles m) Role.Subject methods
                |> Option.orElse (Measured.competing m @ methods |> List.tryHead)
            )

    /// Paired differences: of seeds, or of splits where there are several.
    let private paired
        (bySplit: bool)
        (stream: string)
        (label: string)
        (against: string)
        (metric: Metric)
        (m: Measured)
        : float list =
        let other = Measured.replicates stream 0 against metric m |> Map.ofList

        let differences =
            [ for replicate, value in Measured.replicates stream 0 label metric m do
                  match Map.tryFind replicate other with
                  | Some other -> replicate.Split, value - other
                  | None -> () ]

        if bySplit then
            [ for _, own in List.groupBy fst differences -> List.averageBy snd own ]
        else
            List.map snd differences

    /// Those of one stream and one metric.
    let private ofMetric (bySplit: bool) (stream: string) (against: string) (metric: Metric) (m: Measured) : Difference list =
        let found =
            [ for label in Measured.methods m |> List.except [ against ] do
                  match paired bySplit stream label against metric m |> Transfer.meanSd with
                  | Some over -> label, over, p over
                  | None -> () ]

        let tested = [ for label, _, p in found |> List.filter (fun (_, _, p) -> p.IsSome) -> label, p.Value ]
        let corrected = List.zip (List.map fst tested) (tested |> List.map snd |> holm) |> Map.ofList

        [ for label, over, p in found ->
              { Stream = stream
                Method = label
                Against = against
                Metric = metric
                Over = over
                Interval = interval over
                P = p
                Holm = Map.tryFind label corrected } ]

    /// Every method but `against` itself, less it, on every metric that both have for some seed.
    let all (metrics: Metric list) (against: string) (m: Measured) : Difference list =
        [ for stream in m.Comparison.Streams do
              let bySplit = (Comparison.splits stream m.Comparison).Length > 1
              let own = metrics |> List.collect (fun metric -> ofMetric bySplit stream against metric m)

              for label in Measured.methods m do
                  yield! own |> List.filter (fun d -> d.Method = label) ]

    /// Which methods differ on a metric at 5 % after Holm's correction, as a sentence; None where nothing was tested.
    let sentence (metric: Metric) (differences: Difference list) : string option =
        match differences |> List.filter (fun d -> d.Metric.Name = metric.Name && d.Holm.IsSome) with
        | [] -> None
        | tested ->
            let above, below = tested |> List.filter (fun d -> d.Holm.Value < 0.05) |> List.partition (fun d -> d.Over.Mean > 0.0)

            let names (differences: Difference list) = differences |> List.map _.Method |> String.concat ", "
            let against = tested.Head.Against
            let title = metric.Title.Replace('_', ' ')

            let parts =
                [ if not above.IsEmpty then
                      $"above {against}: {names above}"
                  if not below.IsEmpty then
                      $"below {against}: {names below}" ]

            let found = if parts.IsEmpty then $"no method differs from {against}" else String.concat "; " parts

            Some $"{title} at 5 %% after Holm's correction for {tested.Length} comparisons: {found}."
