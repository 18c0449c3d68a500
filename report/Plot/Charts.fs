namespace Cmcl

open System
open System.Globalization
open Plotly.NET
open Plotly.NET.LayoutObjects
open Plotly.NET.TraceObjects

/// The charts of a run as values, from its result tables. Every line or point is a mean over seeds with its sample standard
/// deviation as error bar; rates are shown in per cent. A method without the figure in question is left out.
/// `styles` (`Theme.styles` of the run's methods) keeps a method's colour the same in all of them.
/// As in `Charts.forgetting (Theme.styles (Row.methods rows)) "r10" 1 rows |> Chart.show`.
[<RequireQualifiedAccess>]
module Charts =
    let private linear = StyleParam.AxisType.Linear

    let private scale title (log: bool) (values: float list) =
        if log then
            Theme.logAxis title values
        else
            let axis = Theme.axis title linear None
            axis.SetProperty("rangemode", "tozero")
            axis

    /// How a rate's axis names it.
    let private rate (metric: string) : string =
        match metric with
        | "acc" -> "accuracy"
        | name when name.StartsWith('r') && Seq.forall Char.IsAsciiDigit name[1..] -> $"recall@{name[1..]}"
        | "learned_r10" -> "learned recall@10"
        | name -> name

    /// Mean and deviation over seeds of what a function finds in the rows of each method and seed.
    let private overSeeds (find: Row list -> ('key * float) list) (rows: Row list) : (string * ('key * Spread) list) list =
        rows
        |> List.groupBy _.Method
        |> List.map (fun (method, own) ->
            let found = own |> List.groupBy _.Seed |> List.collect (snd >> find)

            method,
            found
            |> List.groupBy fst
            |> List.choose (fun (key, values) ->
                values |> List.map snd |> Transfer.meanSd |> Option.map (fun spread -> key, spread)))
        |> List.filter (fun (_, points) -> not points.IsEmpty)

    let private scaled (factor: float) (spread: Spread) =
        { spread with
            Mean = factor * spread.Mean
            Sd = Option.map ((*) factor) spread.Sd }

    /// Do the values span more than a factor of thirty, so that a logarithmic axis shows more?
    let internal wide (values: float list) : bool =
        match values |> List.filter (fun x -> x > 0.0 && Double.IsFinite x) with
        | [] -> false
        | positive -> List.max positive > 30.0 * List.min positive

    /// Standard deviations as the bars of a trace.
    let internal error (spreads: Spread list) =
        Error.init (
            Visible = (spreads |> List.exists _.Sd.IsSome),
            Type = StyleParam.ErrorType.Data,
            Array = (spreads |> List.map (fun s -> Option.defaultValue 0.0 s.Sd)),
            Thickness = 1.,
            Width = 3.
        )

    /// Has the mean a place on the axis?
    let private shown (log: bool) (spread: Spread) : bool = Double.IsFinite spread.Mean && (not log || spread.Mean > 0.0)

    /// Points at whole steps with a hole where a step in between was not measured, so that no line is drawn across.
    let private withHoles (points: (int * Spread) list) : (int * Spread) list =
        let hole = { Mean = nan; Sd = None; Count = 0 }

        [ for (here, spread), next in List.zip points (List.map Some points @ [ None ] |> List.skip 1) do
              here, spread

              match next with
              | Some(next, _) when next > here + 1 -> here + 1, hole
              | _ -> () ]

    /// A line of one method through points at whole steps.
    let private line (style: MethodStyle) (method: string) (unit: string) (points: (int * Spread) list) =
        let points = withHoles points
        let spreads = points |> List.map snd

        Chart.Line(
            x = (points |> List.map fst),
            y = (spreads |> List.map _.Mean),
            Name = Theme.plain method,
            ShowMarkers = true,
            MarkerSymbol = style.Symbol,
            LineColor = Color.fromString style.Colour,
            MarkerColor = Color.fromString style.Colour,
            LineDash = style.Dash,
            LineWidth = 2.,
            UseDefaults = false
        )
        |> Chart.withYError (error spreads)
        |> Theme.traced method $"step %%{{x}}: %%{{y:.3~g}}{unit}<extra>{Theme.plain method}</extra>"

    let private lines (unit: string) (styles: Map<string, MethodStyle>) (series: (string * (int * Spread) list) list) =
        series |> List.map (fun (method, points) -> line styles[method] method unit (List.sortBy fst points)) |> Theme.combine

    let private steps (series: (string * (int * Spread) list) list) =
        series |> List.collect (snd >> List.map fst) |> List.distinct |> List.sort

    /// Recall, accuracy or another rate of every task (columns) after every step (rows, 0 is before training) for one method,
    /// in per cent, mean over seeds. A frame marks each task at the step that trains it: to its right are tasks still to come,
    /// below it what became of them. `top` (a fraction) ends the colour scale; with it, and with the rows of all methods (rows and
    /// columns are those of the whole run), the charts of several methods can be compared.
    let matrix (top: float) (metric: string) (method: string) (rows: Row list) : GenericChart =
        let place (r: Row) = Option.map2 (fun step task -> step, task) r.Step r.Task

        let rows = rows |> List.filter (fun r -> r.Metric = metric)
        let measured = List.choose place rows
        let steps = measured |> List.map fst |> List.distinct |> List.sort
        let tasks = measured |> List.map snd |> List.distinct |> List.sort

        let cells =
            rows
            |> List.filter (fun r -> r.Method = method)
            |> overSeeds (List.choose (fun r -> place r |> Option.map (fun key -> key, r.Value)))
            |> List.collect snd
            |> Map.ofList

        let value step task =
            match Map.tryFind (step, task) cells with
            | Some spread -> 100.0 * spread.Mean
            | None -> nan

        // What was not measured leaves no gap, so a place is no number of a step or a task.
        let columns, lines = List.indexed tasks, List.indexed steps

        let frame (column: int) (line: int) =
            Shape.init (
                ShapeType = StyleParam.ShapeType.Rectangle,
                X0 = float column - 0.5,
                X1 = float column + 0.5,
                Y0 = float line - 0.5,
                Y1 = float line + 0.5,
                Line = Line.init (Color = Color.fromString "#D55E00", Width = 2.)
            )

        let across = Theme.placesAxis "task" (Theme.sparse [ for column, task in columns -> float column, string task ])
        let down = Theme.placesAxis "after step" (Theme.sparse [ for line, step in lines -> float line, string step ])
        down.SetProperty("autorange", "reversed")

        Chart.Heatmap(
            zData = [ for step in steps -> [ for task in tasks -> value step task ] ],
            X = List.map fst columns,
            Y = List.map fst lines,
            XGap = 1,
            YGap = 1,
            ShowScale = false,
            ColorScale = Theme.shades,
            UseDefaults = false
        )
        |> Theme.traced method "%{customdata}: %{z:.1f} %<extra></extra>"
        |> GenericChart.mapTrace (fun trace ->
            trace.SetProperty("customdata", [ for step in steps -> [ for task in tasks -> $"after step {step}, task {task}" ] ])

            // In more columns than these no number can be read on a phone.
            if tasks.Length <= 16 then
                trace.SetProperty("texttemplate", "%{z:.0f}")

            trace.SetProperty("zmin", 0)
            trace.SetProperty("zmax", 100.0 * top)
            trace)
        |> Theme.dress across down
        |> Chart.withShapes
            [ for column, task in columns do
                  for line, step in lines do
                      if step = task then
                          frame column line ]

    /// A rate of one task over the steps, a line per method; the upright line is the step that trains the task.
    let forgetting (styles: Map<string, MethodStyle>) (metric: string) (task: int) (rows: Row list) : GenericChart =
        let series =
            rows
            |> List.filter (fun r -> r.Metric = metric && r.Task = Some task)
            |> overSeeds (List.choose (fun r -> r.Step |> Option.map (fun step -> step, 100.0 * r.Value)))

        lines " %" styles series
        |> Theme.dress (Theme.axis "after step" linear None) (Theme.axis $"{rate metric}, %%" linear None)
        |> Chart.withShape (Theme.upright (float task))

    /// Backward transfer of a rate as it stood after every step, in points of per cent: below zero is forgetting.
    let backward (styles: Map<string, MethodStyle>) (metric: string) (rows: Row list) : GenericChart =
        let course (own: Row list) =
            match Results.matrix own.Head.Method own.Head.Seed metric own with
            | None -> []
            | Some whole ->
                [ for step in 2 .. whole.Steps do
                      match Transfer.bwt (Transfer.upTo step whole) with
                      | Some figure -> step, 100.0 * figure.Value
                      | None -> () ]

        let series = overSeeds course rows

        lines " points" styles series
        |> Theme.dress (Theme.axis "after step" linear (Some(steps series))) (Theme.axis "points since learned" linear None)

    /// After every step, the relative deviation of old alignment scores, mean over the tasks learned before. On a logarithmic
    /// axis what did not move at all has no point.
    let deviation (styles: Map<string, MethodStyle>) (log: bool) (rows: Row list) : GenericChart =
        let course (own: Row list) =
            own
            |> List.choose (fun r -> r.Step |> Option.map (fun step -> step, r.Value))
            |> List.groupBy fst
            |> List.map (fun (step, values) -> step, values |> List.averageBy snd)

        let series =
            rows
            |> List.filter (fun r -> r.Metric = "deviation_rel")
            |> overSeeds course
            |> List.map (fun (method, points) -> method, points |> List.filter (snd >> shown log))

        lines "" styles series
        |> Theme.dress
            (Theme.axis "after step" linear (Some(steps series)))
            (scale "relative deviation" log (series |> List.collect snd |> List.map (fun (_, spread) -> spread.Mean)))

    /// For one method after every step, the largest over the tasks learned before of three relative deviations: measured on their
    /// training rows, known without these rows, and the bound from the certificate. The second lies on the first, the third above them.
    let certificate (styles: Map<string, MethodStyle>) (log: bool) (method: string) (rows: Row list) : GenericChart =
        let course (own: Row list) =
            own
            |> List.choose (fun r -> r.Step |> Option.map (fun step -> step, r.Value))
            |> List.groupBy fst
            |> List.map (fun (step, values) -> step, values |> List.map snd |> List.max)

        let style symbol dash = { styles[method] with Symbol = symbol; Dash = dash }

        let styles =
            Map
                [ "measured", style StyleParam.MarkerSymbol.Circle StyleParam.DrawingStyle.Solid
                  "without the rows", style StyleParam.MarkerSymbol.Cross StyleParam.DrawingStyle.Dot
                  "bound", style StyleParam.MarkerSymbol.TriangleDown StyleParam.DrawingStyle.Dash ]

        let series =
            [ for metric, name in [ "deviation_rel", "measured"; "monitor_rel", "without the rows"; "bound_rel", "bound" ] do
                  for _, points in rows |> List.filter (fun r -> r.Metric = metric && r.Method = method) |> overSeeds course do
                      name, points |> List.filter (snd >> shown log) ]

        [ for name, points in series -> line styles[name] name "" (List.sortBy fst points) ]
        |> Theme.combine
        |> Theme.dress
            (Theme.axis "after step" linear (Some(steps series)))
            (scale "largest relative deviation" log (series |> List.collect snd |> List.map (fun (_, spread) -> spread.Mean)))

    /// Stability against plasticity: relative deviation of old scores after the last step (further left is more stable)
    /// against `learned_r10`, `r10` or another final rate (further up is better), a point per method.
    let tradeOff (styles: Map<string, MethodStyle>) (log: bool) (metric: string) (rows: Row list) : GenericChart =
        let final name =
            rows
            |> List.filter (fun r -> r.Metric = name && r.When = When.Final)
            |> overSeeds (List.map (fun r -> (), r.Value))
            |> List.map (fun (method, found) -> method, snd found.Head)
            |> Map.ofList

        let rates, deviations = final metric, final "deviation_rel"

        let points: (string * Spread * Spread) list =
            [ for KeyValue(method, x) in deviations do
                  match Map.tryFind method rates with
                  | Some rate when shown log x && shown false rate -> method, x, scaled 100.0 rate
                  | _ -> () ]
            |> List.sortByDescending (fun (_, _, y) -> y.Mean)

        let across (x: float) = if log then Math.Log10 x else x
        let sd (s: Spread) = Option.defaultValue 0.0 s.Sd

        let left, right =
            Theme.roomy
                0.08
                0.08
                [ for _, x, _ in points do
                      across x.Mean
                      across (x.Mean + sd x)

                      if not log then
                          x.Mean - sd x ]

        let bottom, top =
            Theme.roomy
                0.1
                0.14
                [ for _, _, y in points do
                      y.Mean - sd y
                      y.Mean + sd y ]

        /// The names, placed for a chart of this size.
        let notes (width: float, height: float) : obj list =
            let inner, tall = width - 70.0, height - 70.0
            let place x = (across x - left) / (right - left) * inner
            let down y = (top - y) / (top - bottom) * tall

            let bars =
                [ for _, x, y in points -> place x.Mean - 3.0, down (y.Mean + sd y), place x.Mean + 3.0, down (y.Mean - sd y) ]

            [ for method, x, y in points -> method, place x.Mean, down y.Mean ]
            |> Labels.place inner tall bars
            |> List.map2 (fun (_, x: Spread, y: Spread) label -> Theme.note (across x.Mean, y.Mean) label) points

        let xAxis = scale "relative deviation of old scores" log [ for _, x, _ in points -> x.Mean ]

        let yAxis = Theme.axis $"{rate metric}, %%" linear None
        xAxis.SetProperty("range", [ left; right ])
        yAxis.SetProperty("range", [ bottom; top ])

        [ for method, x, y in points ->
              Chart.Point(
                  x = [ x.Mean ],
                  y = [ y.Mean ],
                  Name = Theme.plain method,
                  MarkerColor = Color.fromString styles[method].Colour,
                  MarkerSymbol = styles[method].Symbol,
                  UseDefaults = false
              )
              |> Chart.withMarkerStyle (Size = 10)
              |> Chart.withXError (error [ x ])
              |> Chart.withYError (error [ y ])
              |> Theme.traced method $"deviation %%{{x:.3~g}}, %%{{y:.1f}} %%<extra>{Theme.plain method}</extra>" ]
        |> Theme.combine
        |> Theme.dress xAxis yAxis
        |> Theme.annotated (notes (620.0, 420.0))
        |> Theme.sized (620.0, 420.0) {| annotations = notes (360.0, 380.0); height = 380 |}
        |> Chart.withLayoutStyle (ShowLegend = false)
