namespace Cmcl

open Plotly.NET
open Plotly.NET.LayoutObjects
open Plotly.NET.TraceObjects

/// The charts of a run as values, from its result tables. Every line or point is a mean over seeds with its sample standard
/// deviation as error bar; rates are shown in per cent. A method without the figure in question is left out.
/// `styles` (`Theme.styles` of the run's methods) keeps a method's colour the same in all of them.
/// Example: `Charts.forgetting (Theme.styles (Charts.methods rows)) "r10" 1 rows |> Chart.show`.
[<RequireQualifiedAccess>]
module Charts =
    let private linear, logarithmic = StyleParam.AxisType.Linear, StyleParam.AxisType.Log

    /// The methods of a run in the order of their rows.
    let methods (rows: Row list) : string list = rows |> List.map _.Method |> List.distinct

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

    let private error (spreads: Spread list) =
        Error.init (
            Visible = (spreads |> List.exists _.Sd.IsSome),
            Type = StyleParam.ErrorType.Data,
            Array = (spreads |> List.map (fun s -> Option.defaultValue 0.0 s.Sd)),
            Thickness = 1.,
            Width = 3.
        )

    /// Marks a method's trace, so that a page can hide it, and words its hover text.
    let private traced (method: string) (hover: string) (chart: GenericChart) =
        chart
        |> GenericChart.mapTrace (fun trace ->
            trace.SetProperty("meta", method)
            trace.SetProperty("hovertemplate", hover)
            trace)

    /// Points at whole steps with a hole where a step in between was not measured, so that no line is drawn across.
    let private withHoles (points: (int * Spread) list) : (int * Spread) list =
        let hole = { Mean = nan; Sd = None; Count = 0 }

        [ for (here, spread), next in List.zip points (List.tail points @ [ List.last points ]) do
              here, spread

              if fst next > here + 1 then
                  here + 1, hole ]

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
        |> traced method $"step %%{{x}}: %%{{y:.3~g}}{unit}<extra>{Theme.plain method}</extra>"

    let private lines (unit: string) (styles: Map<string, MethodStyle>) (series: (string * (int * Spread) list) list) =
        series |> List.map (fun (method, points) -> line styles[method] method unit (List.sortBy fst points)) |> Chart.combine

    let private steps (series: (string * (int * Spread) list) list) =
        series |> List.collect (snd >> List.map fst) |> List.distinct |> List.sort

    /// Recall, accuracy or another rate of every task (columns) after every step (rows, 0 is before training) for one method,
    /// in per cent, mean over seeds. A frame marks each task at the step that trains it: to its right are tasks still to come,
    /// below it what became of them. `top` (a fraction) ends the colour scale; with it, and with the rows of all methods (rows and
    /// columns are those of the whole run), the charts of several methods can be compared.
    let matrix (top: float) (metric: string) (method: string) (rows: Row list) : GenericChart =
        let place (r: Row) = Option.map2 (fun step task -> step, task) (Results.index r.Step) (Results.index r.Task)

        let rows = rows |> List.filter (fun r -> r.Metric = metric)
        let places = List.choose place rows
        let steps = [ 0 .. places |> List.map fst |> List.fold max 0 ]
        let tasks = places |> List.map snd |> List.distinct |> List.sort

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

        let frame task =
            Shape.init (
                ShapeType = StyleParam.ShapeType.Rectangle,
                X0 = float task - 0.5,
                X1 = float task + 0.5,
                Y0 = float task - 0.5,
                Y1 = float task + 0.5,
                Line = Line.init (Color = Color.fromString "#D55E00", Width = 2.)
            )

        Chart.Heatmap(
            zData = [ for step in steps -> [ for task in tasks -> value step task ] ],
            X = tasks,
            Y = steps,
            XGap = 1,
            YGap = 1,
            ShowScale = false,
            ColorScale =
                StyleParam.Colorscale.Custom
                    [ 0.0, Color.fromString "#eef3f8"; 0.5, Color.fromString "#6aa5cf"; 1.0, Color.fromString "#0b3c6f" ],
            UseDefaults = false
        )
        |> traced method "after step %{y}, task %{x}: %{z:.1f} %<extra></extra>"
        |> GenericChart.mapTrace (fun trace ->
            trace.SetProperty("texttemplate", "%{z:.0f}")
            trace.SetProperty("zmin", 0)
            trace.SetProperty("zmax", 100.0 * top)
            trace)
        |> Theme.dress
            (Theme.axis "task" linear (Some tasks))
            (Theme.axis "after step" linear (Some steps)
             |> fun axis ->
                 axis.SetProperty("autorange", "reversed")
                 axis)
        |> Chart.withShapes [ for task in tasks |> List.filter (fun t -> List.contains t steps) -> frame task ]

    /// A rate of one task over the steps, a line per method; the upright line is the step that trains the task.
    let forgetting (styles: Map<string, MethodStyle>) (metric: string) (task: int) (rows: Row list) : GenericChart =
        let series =
            rows
            |> List.filter (fun r -> r.Metric = metric && r.Task = string task)
            |> overSeeds (List.choose (fun r -> Results.index r.Step |> Option.map (fun step -> step, 100.0 * r.Value)))

        lines " %" styles series
        |> Theme.dress (Theme.axis "after step" linear None) (Theme.axis "per cent" linear None)
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
            |> List.choose (fun r -> Results.index r.Step |> Option.map (fun step -> step, r.Value))
            |> List.groupBy fst
            |> List.map (fun (step, values) -> step, values |> List.averageBy snd)

        let series =
            rows
            |> List.filter (fun r -> r.Metric = "deviation_rel")
            |> overSeeds course
            |> List.map (fun (method, points) -> method, points |> List.filter (fun (_, spread) -> not log || spread.Mean > 0.0))

        lines "" styles series
        |> Theme.dress
            (Theme.axis "after step" linear (Some(steps series)))
            (Theme.axis "relative deviation" (if log then logarithmic else linear) None)

    /// Stability against plasticity: relative deviation of old scores after the last step (further left is more stable)
    /// against `learned_r10`, `r10` or another final rate (further up is better), a point per method.
    let tradeOff (styles: Map<string, MethodStyle>) (log: bool) (metric: string) (rows: Row list) : GenericChart =
        let final name =
            rows
            |> List.filter (fun r -> r.Metric = name && r.Step = "final")
            |> overSeeds (List.map (fun r -> (), r.Value))
            |> List.map (fun (method, found) -> method, snd found.Head)
            |> Map.ofList

        let rates, deviations = final metric, final "deviation_rel"
        let scale (x: float) = if log then System.Math.Log10 x else x

        let drawn =
            [ for KeyValue(_, x) in deviations do
                  if not log || x.Mean > 0.0 then
                      scale x.Mean ]

        // Labels point inwards, where there is room.
        let side (x: float) =
            if 2.0 * scale x > List.min drawn + List.max drawn then
                StyleParam.TextPosition.MiddleLeft
            else
                StyleParam.TextPosition.MiddleRight

        [ for KeyValue(method, x) in deviations do
              match Map.tryFind method rates with
              | Some rate when not log || x.Mean > 0.0 ->
                  let y = scaled 100.0 rate

                  Chart.Scatter(
                      x = [ x.Mean ],
                      y = [ y.Mean ],
                      mode = StyleParam.Mode.Markers_Text,
                      Name = Theme.plain method,
                      Text = $"  {Theme.plain method}  ",
                      TextPosition = side x.Mean,
                      MarkerColor = Color.fromString styles[method].Colour,
                      MarkerSymbol = styles[method].Symbol,
                      UseDefaults = false
                  )
                  |> Chart.withMarkerStyle (Size = 10)
                  |> Chart.withXError (error [ x ])
                  |> Chart.withYError (error [ y ])
                  |> traced method $"deviation %%{{x:.3~g}}, %%{{y:.1f}} %%<extra>{Theme.plain method}</extra>"
              | _ -> () ]
        |> Chart.combine
        |> Theme.dress
            (Theme.axis "relative deviation of old scores" (if log then logarithmic else linear) None)
            (Theme.axis "per cent" linear None)

    /// The training loss of all steps on one axis: between i − 1 and i are the epochs of step i. Mean over seeds.
    let losses (styles: Map<string, MethodStyle>) (losses: LossRow list) : GenericChart =
        let count = losses |> List.map _.Step |> List.fold max 0

        let course (own: LossRow list) =
            [ for step, epochs in own |> List.groupBy _.Step |> List.sortBy fst do
                  let length = epochs |> List.map _.Epoch |> List.max

                  for epoch, seeds in epochs |> List.groupBy _.Epoch |> List.sortBy fst do
                      float (step - 1) + float epoch / float length, seeds |> List.averageBy _.Loss

                  float step, nan ]

        [ for method, own in losses |> List.groupBy _.Method do
              Chart.Line(
                  xy = course own,
                  Name = Theme.plain method,
                  LineColor = Color.fromString styles[method].Colour,
                  LineDash = styles[method].Dash,
                  LineWidth = 1.5,
                  UseDefaults = false
              )
              |> traced method $"step %%{{x:.2f}}: %%{{y:.3f}}<extra>{Theme.plain method}</extra>" ]
        |> Chart.combine
        |> Theme.dress (Theme.axis "end of step" linear (Some [ 0..count ])) (Theme.axis "training loss" linear None)
        |> Chart.withShapes [ for step in 1 .. count - 1 -> Theme.upright (float step) ]

    /// Energy (share of the trace, logarithmic) of the old directions of one modality, largest first, on its input side and on
    /// the side of its partners' outputs. Thick is protected; the upright line is the cut.
    let spectrum (method: string) (step: int) (modality: string) (spectra: SpectrumRow list) : GenericChart =
        let rounded (x: float) = float (x.ToString("G4", System.Globalization.CultureInfo.InvariantCulture))

        let sides =
            spectra
            |> List.filter (fun r -> r.Method = method && r.Step = step && r.Modality = modality && r.Energy > 1e-16)
            |> List.groupBy _.Side
            |> List.sortBy fst
            |> List.map (fun (side, own) -> side, own |> List.sortBy _.Index)

        let curve side colour width (own: SpectrumRow list) name =
            Chart.Line(
                x = (own |> List.map _.Index),
                y = (own |> List.map (fun r -> rounded r.Energy)),
                Name = name,
                LineColor = Color.fromString colour,
                LineWidth = width,
                UseDefaults = false
            )
            |> GenericChart.mapTrace (fun trace ->
                trace.SetProperty("hovertemplate", $"%%{{x}}: %%{{y:.2e}}<extra>{side}</extra>")
                trace)

        let energy = Theme.axis "share of energy" logarithmic None
        energy.SetProperty("tickformat", ".0e")

        let cut (own: SpectrumRow list) = own |> List.filter (fun r -> r.Protected = Some true) |> List.length

        let colour side = if side = "input" then "#0072B2" else "#E69F00"

        [ for side, own in sides do
              let side = Theme.plain side
              let inside = own |> List.filter (fun r -> r.Protected = Some true)

              if not inside.IsEmpty then
                  curve side (colour side) 5. inside $"{side}: {inside.Length} protected"

              let outside = own |> List.filter (fun r -> r.Protected <> Some true)

              if not outside.IsEmpty then
                  let what =
                      if own |> List.forall _.Protected.IsNone then
                          $"{side}: no cut"
                      else
                          $"{side}: {outside.Length} free"

                  curve side (colour side) 1.5 outside what ]
        |> Chart.combine
        |> Theme.dress (Theme.axis "direction" linear None) energy
        |> Chart.withShapes
            [ for _, own in sides do
                  if cut own > 0 then
                      Theme.upright (float (cut own) + 0.5) ]
