namespace Cmcl

open System
open System.Globalization

/// Which way a figure is better.
[<RequireQualifiedAccess>]
type Better =
    | Higher
    | Lower
    /// It describes, and nobody wins by it.
    | Neither

[<RequireQualifiedAccess>]
module Better =
    /// The best of some values; None if there are none, or no best.
    /// Example: `Better.best Better.Lower [ 2.0; 1.0 ] = Some 1.0`.
    let best (better: Better) (values: float list) : float option =
        match better, values with
        | _, []
        | Better.Neither, _ -> None
        | Better.Higher, _ -> Some(List.max values)
        | Better.Lower, _ -> Some(List.min values)

/// What a metric is counted in.
[<RequireQualifiedAccess>]
type MetricUnit =
    /// Kept as a fraction, shown in per cent.
    | PerCent
    | Ratio
    | Nats
    | Seconds
    | Bytes
    | Count

/// A figure of one run that has a name.
type Metric =
    {
        /// As files and options write it, such as `bwt_r10`.
        Name: string
        /// As a column's heading: `BWT_R10`, what follows the `_` being an index.
        Title: string
        Better: Better
        Unit: MetricUnit
        /// The formula, and whose convention it is.
        Convention: string
        /// The figure from the rows per step of one method, seed and order; None where it does not exist.
        Of: Row list -> float option
    }

/// Every metric by name. R[i, j] is a rate of task j after step i, T the last step, s(j) the step that trains task j; the rate of a
/// recall is first averaged over both directions, tasks weigh the same.
[<RequireQualifiedAccess>]
module Metric =
    let private ties = " A match that ties with others counts by its expected rank."

    let private rates =
        ("acc", "Acc", "A", "")
        :: ([ for k in [ 1; 5; 10 ] -> $"r{k}", $"R@{k}", $"R{k}", ties ] @ [ "map", "mAP", "mAP", ties ])

    /// What can be said of a result matrix: before the rate's name in the metric's, the heading, and so on.
    let private transfers =
        [ "bwt_",
          "BWT",
          Better.Higher,
          Transfer.bwt,
          "backward transfer, mean over {j : s(j) < T} of R[T, j] − R[s(j), j], as GEM's paper defines it: negative is forgetting; the last task, whose term is zero, is not counted."
          "bwt_all_",
          "BWTall",
          Better.Higher,
          Transfer.bwtAllColumns,
          "backward transfer with the last task's zero counted, mean over all j of R[T, j] − R[s(j), j], as GEM's code has it; final = learned + this."
          "learned_",
          "Learned",
          Better.Higher,
          Transfer.learned,
          "plasticity, mean over j of R[s(j), j]: how well each task was known when just learned; this toolkit's name."
          "forgetting_",
          "Forg",
          Better.Lower,
          Transfer.forgetting,
          "forgetting, mean over {j : s(j) < T} of max over s(j) ≤ i < T of R[i, j], less R[T, j] (Chaudhry et al.): negative where the last step improved on all before."
          "forgetting_clipped_",
          "ForgClip",
          Better.Lower,
          Transfer.forgettingClipped,
          "forgetting with the last row among those that the maximum is taken over, i ≤ T, so never negative (Mammoth, PyCIL)."
          "fwt_",
          "FWT",
          Better.Higher,
          Transfer.fwt,
          "forward transfer, mean over {j : 1 < s(j) ≤ T} of R[s(j)−1, j] − R[0, j]: GEM's formula; row 0 is the pretrained model, not a random one."
          "zero_shot_shift_",
          "Shift",
          Better.Higher,
          Transfer.zeroShotShift,
          "mean over j of R[T, j] − R[0, j]: what all the training changed against zero-shot; this toolkit's name."
          "step_average_",
          "StepAvg",
          Better.Higher,
          Transfer.stepAverage,
          "mean over steps i ≥ 1 of the mean over {j : s(j) ≤ i} of R[i, j] (PyCIL's average accuracy)." ]

    let private ofRates =
        [ for rate, title, index, ties in rates do
              let metric name title better convention aggregate =
                  { Name = name
                    Title = title
                    Better = better
                    Unit = MetricUnit.PerCent
                    Convention = convention + ties
                    Of = fun rows -> Row.matrix rate rows |> Option.bind aggregate |> Option.map (fun (a: Average) -> a.Value) }

              metric
                  rate
                  title
                  Better.Higher
                  "mean over j of R[T, j], after the last step: GEM's ACC, the paper's Acc and R@k."
                  Transfer.final

              for prefix, heading, better, aggregate, convention in transfers do
                  metric (prefix + rate) $"{heading}_{index}" better convention aggregate ]

    /// The rows of one name that belong to a step.
    let private measurements (name: string) (rows: Row list) =
        rows |> List.filter (fun r -> r.Metric = name && r.When <> When.Final)

    let private some (figure: Row list -> float) (rows: Row list) = if rows.IsEmpty then None else Some(figure rows)

    /// After the last step, the mean over the tasks learned before it.
    let private afterLast (name: string) (rows: Row list) : float option =
        measurements name rows
        |> some (fun own ->
            let last = own |> List.choose _.Step |> List.max
            own |> List.filter (fun r -> r.Step = Some last) |> List.averageBy _.Value)

    let private meanOverSteps (name: string) = measurements name >> some (List.averageBy _.Value)

    let private time (rows: Row list) =
        [ "seconds_prepare"; "seconds_train"; "seconds_finish" ]
        |> List.collect (fun name -> measurements name rows)
        |> some (List.sumBy _.Value)

    let private trained (rows: Row list) = not (measurements "loss_after" rows).IsEmpty || (time rows).IsSome

    let private replayed (rows: Row list) =
        match measurements "replayed" rows with
        | [] when trained rows -> Some 0.0
        | own -> some (List.sumBy _.Value) own

    let private ofSteps =
        let deviation name title convention =
            name,
            title,
            Better.Lower,
            MetricUnit.Ratio,
            convention + ", mean over the tasks learned before the last step, after it.",
            afterLast name

        [ deviation
              "deviation_rel"
              "Deviation"
              "how far the alignment scores of a task's training rows have moved since the task's end, ‖A_now − A_then‖/‖A_then‖ in the Frobenius norm"
          deviation "deviation_test_rel" "Deviation_test" "the same on measured rows (test or validation)"
          deviation "monitor_rel" "Monitor" "the deviation as it is known without the old rows"
          deviation "bound_rel" "Bound" "the certificate: an upper bound on the deviation, known without the old rows"
          "seconds",
          "Seconds",
          Better.Lower,
          MetricUnit.Seconds,
          "wall clock of preparing, training and finishing, sum over steps, without measuring; of a machine on which other cells may run.",
          time
          "bytes_state",
          "State",
          Better.Lower,
          MetricUnit.Bytes,
          "bytes that a method keeps between steps, heads not counted, largest over steps.",
          (fun rows -> measurements "bytes_state" rows |> some (fun own -> own |> List.map _.Value |> List.max))
          "replayed",
          "Replayed",
          Better.Neither,
          MetricUnit.Count,
          "old pairs that a method trained on again, each as often as it was, sum over steps; 0 for one that trains and keeps no pairs.",
          replayed
          "penalty_share",
          "Penalty",
          Better.Neither,
          MetricUnit.PerCent,
          "share of a method's own penalty in its loss, mean over the steps that tell it.",
          meanOverSteps "penalty_share"
          "distillation_share",
          "Distilled",
          Better.Neither,
          MetricUnit.PerCent,
          "share of distillation in a method's loss, mean over the steps that tell it.",
          meanOverSteps "distillation_share"
          "violated",
          "Violated",
          Better.Neither,
          MetricUnit.PerCent,
          "share of updates in which a method's constraint was violated before it acted, mean over the steps that tell it.",
          meanOverSteps "violated"
          "gap",
          "Loss_new",
          Better.Lower,
          MetricUnit.Nats,
          "InfoNCE on a step's own training rows right after it, mean over steps; less that of vanilla with the same seed it is the plasticity gap.",
          (fun rows -> measurements "loss_after" rows |> List.filter (fun r -> r.Step = r.Task) |> some (List.averageBy _.Value)) ]
        |> List.map (fun (name, title, better, unit, convention, figure) ->
            { Name = name
              Title = title
              Better = better
              Unit = unit
              Convention = convention
              Of = figure >> Option.filter Double.IsFinite })

    /// The whole registry, in the order in which it is told.
    let all: Metric list = ofRates @ ofSteps

    /// A metric by its name. Fault: `Unknown`, with the name that was likely meant.
    let find (name: string) : Result<Metric, Fault list> =
        match all |> List.tryFind (fun m -> m.Name = name) with
        | Some m -> Ok m
        | None -> Error [ Fault.Unknown("metric", name, all |> List.map _.Name) ]

    /// What a narrow table has: accuracy, recall@10, what was forgotten of both, deviation.
    let brief: Metric list = [ "acc"; "bwt_acc"; "r10"; "bwt_r10"; "deviation_rel" ] |> List.map (find >> Check.get)

    /// The columns of the paper's table, then what it cost.
    let paper: Metric list =
        [ "acc"; "bwt_acc"; "r1"; "r5"; "r10"; "bwt_r10"; "deviation_rel"; "seconds"; "bytes_state"; "replayed" ]
        |> List.map (find >> Check.get)

    /// With a typographic minus; what rounds to zero has none.
    let private text (format: string) (x: float) =
        let digits = x.ToString(format, CultureInfo.InvariantCulture)
        let isZero = digits |> Seq.forall (fun c -> c = '-' || c = '0' || c = '.')
        (if isZero then digits.TrimStart '-' else digits).Replace("-", "−")

    /// What stands behind a heading: `%`, `s` or nothing.
    let unit (m: Metric) : string =
        match m.Unit with
        | MetricUnit.PerCent -> "%"
        | MetricUnit.Seconds -> "s"
        | MetricUnit.Ratio
        | MetricUnit.Nats
        | MetricUnit.Bytes
        | MetricUnit.Count -> ""

    /// `↑` or `↓`, or nothing.
    let arrow (m: Metric) : string =
        match m.Better with
        | Better.Higher -> "↑"
        | Better.Lower -> "↓"
        | Better.Neither -> ""

    let private ratio (size: float) =
        match abs size with
        | 0.0 -> "0"
        | x when x >= 0.0095 -> "0.000"
        | x when x >= 0.00095 -> "0.0000"
        | _ -> "0.0e+0"

    let private bytes (like: float) (x: float) =
        let size, unit =
            [ 1e9, "GB"; 1e6, "MB"; 1e3, "kB" ]
            |> List.tryFind (fun (size, _) -> abs like >= size)
            |> Option.defaultValue (1.0, "B")

        text (if unit = "B" then "0" else "0.0") (x / size) + " " + unit

    /// A value of the metric as a reader sees it, to as many places as one of the given size has.
    let private shownLike (size: float) (m: Metric) (x: float) : string =
        match m.Unit with
        | MetricUnit.PerCent -> text "0.00" (100.0 * x)
        | MetricUnit.Ratio -> text (ratio size) x
        | MetricUnit.Nats -> text "0.000" x
        | MetricUnit.Seconds -> text "0.0" x
        | MetricUnit.Bytes -> bytes size x
        | MetricUnit.Count -> text "0" x

    /// A value of the metric as a reader sees it, rates in per cent.
    /// Example: `Metric.shown Metric.paper.Head 0.5252 = "52.52"`.
    let shown (m: Metric) (x: float) : string = shownLike x m x

    /// A mean and, where there is one, its standard deviation; bytes and counts without, unless they differ from seed to seed.
    let spread (m: Metric) (s: Spread) : string * string option =
        let sd =
            match m.Unit, s.Sd with
            | (MetricUnit.Bytes | MetricUnit.Count), Some 0.0 -> None
            | _, sd -> sd

        // A ratio's deviation may be too small for the places of its mean.
        let like =
            match m.Unit, s.Sd with
            | MetricUnit.Ratio, Some sd when sd < 0.0005 -> min s.Mean sd
            | _ -> s.Mean

        shown m s.Mean, sd |> Option.map (shownLike like m)

    /// A difference between two values, with its sign; differences of per cent are points.
    let difference (m: Metric) (x: float) : string =
        let words = shown m x
        if x > 0.0 then "+" + words else words

    /// The whole registry as lines for a terminal of so many columns: names, headings, which way is better, formula and convention. What is said
    /// of several rates stands there once.
    let lines (width: int) : string list =
        let once (m: Metric) = m.Convention.Replace(ties, "")

        let entry (convention: string, like: Metric list) =
            let joined (part: Metric -> string) = String.Join(", ", like |> List.map part |> List.distinct)
            let facts = [ joined _.Title; unit like.Head; arrow like.Head ] |> List.filter ((<>) "") |> String.concat " "

            [ yield! Layout.wrap (width - 2) (joined _.Name) |> List.map (fun line -> "  " + line)
              yield! Layout.wrap (width - 6) $"{facts}: {convention}" |> List.map (fun line -> "      " + line) ]

        [ yield!
              Layout.wrap
                  width
                  ("R[i, j] is a rate of task j after step i, T the last step, s(j) the step that trains task j; tasks weigh the same. Recall is the mean of both directions."
                   + ties)
          ""
          for group in all |> List.groupBy once do
              yield! entry group ]

    /// The same as one text, for a terminal of 100 columns.
    let describe () : string = String.Join("\n", lines 100)
