namespace Cmcl

open System
open Plotly.NET
open Plotly.NET.LayoutObjects
open Plotly.NET.TraceObjects

/// The charts of a comparison.
[<RequireQualifiedAccess>]
module CompareCharts =
    let private linear = StyleParam.AxisType.Linear

    /// As in `Theme.stylesOf`, but diamonds are for this toolkit's own methods alone.
    let styles (roles: Roles) (labels: string list) : Map<string, MethodStyle> =
        Theme.stylesOf roles labels
        |> Map.map (fun label style ->
            if Roles.find roles label = Role.Subject then
                { style with Symbol = StyleParam.MarkerSymbol.Diamond }
            elif style.Symbol = StyleParam.MarkerSymbol.Diamond then
                { style with Symbol = StyleParam.MarkerSymbol.TriangleDown }
            else
                style)

    /// What a value is multiplied by where it is drawn.
    let private factor (metric: Metric) = if metric.Unit = MetricUnit.PerCent then 100.0 else 1.0

    let private named (name: string) = Metric.find name |> Check.get

    let private bars (sds: float option list) =
        Error.init (
            Visible = List.exists Option.isSome sds,
            Type = StyleParam.ErrorType.Data,
            Array = List.map (Option.defaultValue 0.0) sds,
            Thickness = 1.2,
            Width = 3.
        )

    /// A marker with a name, at one place.
    let private marker (style: MethodStyle) (method: string) (x: float) (y: float) =
        Chart.Point(
            x = [ x ],
            y = [ y ],
            Name = Theme.plain method,
            MarkerColor = Color.fromString style.Colour,
            MarkerSymbol = style.Symbol,
            UseDefaults = false
        )
        |> Chart.withMarkerStyle (Size = 10)

    let private level (y: float) (style: StyleParam.DrawingStyle) =
        Shape.init (
            ShapeType = StyleParam.ShapeType.Line,
            X0 = 0,
            X1 = 1,
            Xref = "paper",
            Y0 = y,
            Y1 = y,
            Line = Line.init (Color = Color.fromString "#858585", Width = 1.2, Dash = style)
        )

    /// Recall@10 against relative deviation, a point a method with both deviations over seeds, the frontier as a line: what is below
    /// and right of it is beaten in both. Bounds without a deviation are levels, or named at the edge. On a logarithmic axis, taken when the deviations span
    /// more than a factor of thirty, what did not move at all has no point. `width` × `height` is the room in pixels that labels are placed
    /// for; pages have another placement for their narrow form.
    let frontier
        (styles: Map<string, MethodStyle>)
        (width: float, height: float)
        (levels: (string * Spread) list)
        (points: FrontierPoint list)
        : GenericChart =
        let points = points |> List.filter (fun p -> Double.IsFinite p.Deviation.Mean && Double.IsFinite p.Recall.Mean)

        let log = Charts.wide [ for p in points -> p.Deviation.Mean ]
        let points = points |> List.filter (fun p -> not log || p.Deviation.Mean > 0.0)
        let positive = [ for p in points -> p.Deviation.Mean ]
        let sd (s: Spread) = Option.defaultValue 0.0 s.Sd
        let across x = if log then Math.Log10 x else x

        let xs =
            [ for p in points do
                  across p.Deviation.Mean
                  across (p.Deviation.Mean + sd p.Deviation)

                  if not log then
                      p.Deviation.Mean - sd p.Deviation ]

        let ofMethods =
            [ for p in points do
                  100.0 * (p.Recall.Mean - sd p.Recall)
                  100.0 * (p.Recall.Mean + sd p.Recall) ]

        // A level far from all methods would leave them no room; it is named at the edge instead.
        let ys =
            let low, high = Theme.roomy 0.6 0.6 ofMethods

            ofMethods
            @ [ for _, s in levels do
                    if 100.0 * s.Mean > low && 100.0 * s.Mean < high then
                        100.0 * s.Mean ]

        let (left, right), (bottom, top) = Theme.roomy 0.08 0.08 xs, Theme.roomy 0.1 0.14 ys

        let inside, outside = levels |> List.partition (fun (_, s) -> 100.0 * s.Mean > bottom && 100.0 * s.Mean < top)
        let front = points |> List.filter _.OnFrontier
        let reach = if log then 10.0 ** right else right

        let corners =
            [ for p in front -> p.Deviation.Mean, 100.0 * p.Recall.Mean ]
            @ [ for p in Option.toList (List.tryLast front) -> reach, 100.0 * p.Recall.Mean ]

        /// The names, placed for a chart of this size.
        let notes (width: float, height: float) : obj list =
            // The common margins.
            let inner, tall = width - 70.0, height - 70.0
            let place x = (across x - left) / (right - left) * inner
            let down y = (top - y) / (top - bottom) * tall

            let pixels (p: FrontierPoint) = p.Method, place p.Deviation.Mean, down (100.0 * p.Recall.Mean)

            let side i = if i % 2 = 0 then inner else 0.0

            let levelBoxes =
                [ for i, (name, s) in List.indexed inside do
                      let y, w = down (100.0 * s.Mean), 7.0 * float name.Length
                      side i - (if i % 2 = 0 then w else 0.0), y - 17.0, side i + (if i % 2 = 0 then 0.0 else w), y + 2.0
                      0.0, y - 1.0, inner, y + 1.0 ]

            let frontBoxes =
                [ for (x, y), (x', y') in List.pairwise corners do
                      place x, down y - 2.0, place x', down y + 2.0
                      place x' - 2.0, down y', place x' + 2.0, down y ]

            let barBoxes =
                [ for p in points do
                      let (d, r), (sdD, sdR) = (p.Deviation.Mean, 100.0 * p.Recall.Mean), (sd p.Deviation, 100.0 * sd p.Recall)
                      let start = if log && d <= sdD then 0.0 else place (d - sdD)
                      start, down r - 3.0, place (d + sdD), down r + 3.0
                      place d - 3.0, down (r + sdR), place d + 3.0, down (r - sdR) ]

            let labels =
                points
                |> List.sortBy (fun p -> not p.OnFrontier)
                |> List.map pixels
                |> Labels.place inner tall (levelBoxes @ frontBoxes @ barBoxes)

            let labelNotes =
                [ for label in labels do
                      let p = points |> List.find (fun p -> p.Method = label.Text)

                      Theme.note (across p.Deviation.Mean, 100.0 * p.Recall.Mean) label ]

            let levelNotes =
                [ for i, (name, s) in List.indexed inside ->
                      {| text = Theme.plain name
                         name = name
                         xref = "paper"
                         x = (if i % 2 = 0 then 1 else 0)
                         xanchor = (if i % 2 = 0 then "right" else "left")
                         y = 100.0 * s.Mean
                         yanchor = "bottom"
                         showarrow = false |}
                      :> obj
                  for i, (name, s) in List.indexed outside ->
                      let below = 100.0 * s.Mean <= bottom
                      let arrow = if below then "↓" else "↑"
                      let recall = Metric.shown (named "r10") s.Mean

                      {| text = $"{arrow} {Theme.plain name} {recall}"
                         name = name
                         xref = "paper"
                         x = 1
                         xanchor = "right"
                         yref = "paper"
                         y = (if below then 0 else 1)
                         yanchor = (if below then "bottom" else "top")
                         yshift = (if below then 16 * i else -16 * i)
                         showarrow = false |}
                      :> obj ]

            labelNotes @ levelNotes

        let edge =
            Chart.Line(x = List.map fst corners, y = List.map snd corners, Name = "frontier", UseDefaults = false)
            |> GenericChart.mapTrace (fun trace ->
                trace.SetProperty("line", {| color = "#8a8a8a"; width = 1.5; shape = "hv" |})
                trace.SetProperty("hoverinfo", "skip")
                trace)

        let xAxis =
            let title = "relative deviation of old scores (left is more stable)"
            if log then Theme.logAxis title positive else Theme.axis title linear None

        let yAxis = Theme.axis "recall@10 after the last step, %" linear None
        xAxis.SetProperty("range", [ left; right ])
        yAxis.SetProperty("range", [ bottom; top ])

        [ edge
          for p in points do
              marker styles[p.Method] p.Method p.Deviation.Mean (100.0 * p.Recall.Mean)
              |> Chart.withXError (bars [ p.Deviation.Sd ])
              |> Chart.withYError (bars [ Option.map ((*) 100.0) p.Recall.Sd ])
              |> Theme.traced p.Method $"deviation %%{{x:.3~g}}, %%{{y:.2f}} %%<extra>{Theme.plain p.Method}</extra>" ]
        |> Theme.combine
        |> Theme.dress xAxis yAxis
        |> Chart.withShapes
            [ for i, (_, s) in List.indexed inside ->
                  level (100.0 * s.Mean) (if i % 2 = 0 then StyleParam.DrawingStyle.Dash else StyleParam.DrawingStyle.Dot) ]
        |> Theme.annotated (notes (width, height))
        |> Theme.sized (width, height) {| annotations = notes (370.0, 420.0); height = 420 |}
        |> Chart.withLayoutStyle (ShowLegend = false)

    /// One line a method: a value with a bar of ± some length. Names stand left; a narrow page sets them above their points.
    let private dots
        (styles: Map<string, MethodStyle>)
        (title: string)
        (hover: string -> float -> float option -> string)
        (rows: (string * float * float option) list)
        =
        let places = [ for i in 0 .. rows.Length - 1 -> rows.Length - i ]
        let x = Theme.axis title linear None
        let y = Theme.namesAxis [ for label, _, _ in rows -> label ]

        [ for place, (label, value, bar) in List.zip places rows do
              marker styles[label] label value place
              |> Chart.withXError (bars [ bar ])
              |> Theme.traced label $"{hover label value bar}<extra>{Theme.plain label}</extra>" ]
        |> Theme.combine
        |> Theme.dress x y
        |> Chart.withShape (Theme.upright 0.0)
        |> Chart.withLayoutStyle (ShowLegend = false)

    /// A metric of every method that has it, mean and standard deviation over seeds, a line each.
    let metric (styles: Map<string, MethodStyle>) (metric: Metric) (rows: (string * Spread) list) : GenericChart =
        let f = factor metric
        let unit = if metric.Unit = MetricUnit.PerCent then ", points" else ""

        let hover _ _ _ = "%{x:.3~g}"

        [ for label, s in rows -> label, f * s.Mean, s.Sd |> Option.map ((*) f) ]
        |> dots styles (metric.Title.Replace('_', ' ') + unit) hover

    /// The differences of one metric with their 95 % intervals, a line each; the upright line is no difference.
    let differences
        (styles: Map<string, MethodStyle>)
        (against: string)
        (metric: Metric)
        (differences: Difference list)
        : GenericChart =
        let f = factor metric

        let unit =
            match metric.Unit with
            | MetricUnit.PerCent -> ", points"
            | MetricUnit.Seconds -> ", s"
            | MetricUnit.Bytes -> ", bytes"
            | MetricUnit.Nats -> ", nats"
            | MetricUnit.Ratio
            | MetricUnit.Count -> ""

        let side =
            match metric.Better with
            | Better.Higher -> " (right is better)"
            | Better.Lower -> " (left is better)"
            | Better.Neither -> ""

        let hover _ value bar =
            let text = Metric.difference metric (value / f)

            match bar with
            | Some half ->
                $"{text}, from {Metric.difference metric ((value - half) / f)} to {Metric.difference metric ((value + half) / f)}"
            | None -> text

        [ for d in differences -> d.Method, f * d.Over.Mean, d.Interval |> Option.map (fun (low, high) -> f * (high - low) / 2.0) ]
        |> dots styles $"less {Theme.plain against}{unit}{side}" hover

    /// Recall@10 after every step, mean over all tasks, also those to come, so that it ends at the table's figure: by method, of
    /// those that were measured after every step.
    let courses (stream: string) (m: Measured) : (string * (int * Spread) list) list =
        let own label =
            [ for cell, state in m.Comparison.Cells do
                  match state with
                  | CellState.Finished rows when Comparison.isOf stream cell && cell.Order = 0 && cell.Method = label ->
                      match Row.matrix "r10" rows with
                      | Some matrix ->
                          for step in 0 .. matrix.Steps do
                              match Transfer.final (Transfer.upTo step matrix) with
                              | Some figure -> step, figure.Value
                              | None -> ()
                      | None -> ()
                  | _ -> () ]
            |> List.groupBy fst
            |> List.choose (fun (step, values) -> values |> List.map snd |> Transfer.meanSd |> Option.map (fun s -> step, s))
            |> List.sortBy fst

        [ for label in Measured.competing m do
              match own label with
              | [] -> ()
              | points -> label, points ]

    /// One method's course in colour before those of others in grey, and `joint`'s end as a level.
    let course
        (styles: Map<string, MethodStyle>)
        (range: float * float)
        (ceiling: float option)
        (behind: (int * Spread) list list)
        (label: string)
        (points: (int * Spread) list)
        : GenericChart =
        let line colour width (points: (int * Spread) list) =
            Chart.Line(
                x = List.map fst points,
                y = [ for _, s in points -> 100.0 * s.Mean ],
                LineColor = Color.fromString colour,
                LineWidth = width,
                UseDefaults = false
            )

        let x, y = Theme.axis "after step" linear None, Theme.axis "recall@10, %" linear None
        x.SetProperty("dtick", max 1 ((points |> List.map fst |> List.fold max 0) / 6))
        y.SetProperty("range", [ fst range; snd range ])

        [ for other in behind do
              line "#a3a3a3" 1.0 other
              |> GenericChart.mapTrace (fun trace ->
                  trace.SetProperty("hoverinfo", "skip")
                  trace)
          line styles[label].Colour 2.2 points
          |> Chart.withYError (bars [ for _, s in points -> Option.map ((*) 100.0) s.Sd ])
          |> Theme.traced label "step %{x}: %{y:.2f} %<extra></extra>" ]
        |> Theme.combine
        |> Theme.dress x y
        |> Chart.withShapes [ for y in Option.toList ceiling -> level (100.0 * y) StyleParam.DrawingStyle.Dash ]
        |> Chart.withLayoutStyle (ShowLegend = false)

    /// The levels that a frontier is read against: bounds with a recall@10 of what they know in the end.
    let levels (stream: string) (m: Measured) : (string * Spread) list =
        [ for label in Measured.methods m do
              if Measured.isBound label m then
                  match Measured.spread stream label (named "r10") m with
                  | Some s -> label, s
                  | None -> () ]
