namespace Cmcl

open System
open Plotly.NET

/// The charts of a verification, from its points alone. A colour is a run, in all of them; what else is to be told apart has dashes,
/// widths and greys.
[<RequireQualifiedAccess>]
module VerifyCharts =
    let private linear = StyleParam.AxisType.Linear

    /// Below this a number is nothing but rounding; logarithmic axes end here.
    let private shown (y: float) = max 1e-20 (abs y)

    /// The same of an energy, which is a square.
    let private energyShown (x: float) = max 1e-32 x

    /// A logarithmic axis from a power of ten to a power of ten: also values that lie close together have a tick in sight.
    let private wholeDecades (title: string) (values: float list) =
        let axis = Theme.logAxis title values

        match values |> List.filter (fun x -> x > 0.0 && Double.IsFinite x) with
        | [] -> ()
        | positive ->
            axis.SetProperty("range", [ floor (log10 (List.min positive)) - 0.1; ceil (log10 (List.max positive)) + 0.1 ])

        axis

    let private line name colour dash width points =
        Chart.Line(
            xy = points,
            Name = Theme.plain name,
            ShowMarkers = false,
            LineColor = Color.fromString colour,
            LineDash = dash,
            LineWidth = width,
            UseDefaults = false
        )

    /// With the run's symbol at every point, which tells runs of one colour apart.
    let private marked (style: MethodStyle) (chart: GenericChart) =
        chart
        |> GenericChart.mapTrace (fun trace ->
            trace.SetProperty("mode", "lines+markers")
            trace)
        |> Chart.withMarkerStyle (Size = 7, Symbol = style.Symbol, Color = Color.fromString style.Colour)

    let private ofRuns (points: Point list) =
        points |> List.groupBy _.Run |> List.sortBy (fun (run, _) -> points |> List.findIndex (fun p -> p.Run = run))

    /// At every x the largest y.
    let private largest (points: Point list) : (float * float) list =
        [ for x, own in points |> List.groupBy _.X |> List.sortBy fst -> x, own |> List.map (fun p -> shown p.Y) |> List.max ]

    /// The steps that points fall into, the end of the first being at 1.
    let private steps (points: Point list) =
        [ for p in points do
              if p.X > 0.0 && p.X < 1e9 then
                  int (ceil p.X) ]
        |> List.distinct
        |> List.sort

    /// After every step the largest relative deviation of an old step's scores (solid), and the largest bound (dotted).
    let deviation (styles: Map<string, MethodStyle>) (points: Point list) : GenericChart =
        let drawn =
            [ for run, own in ofRuns points do
                  for series, dash, width in
                      [ "measured", StyleParam.DrawingStyle.Solid, 2.0; "bound", StyleParam.DrawingStyle.Dot, 1.5 ] do
                      run, series, dash, width, own |> List.filter (fun p -> p.Series = series) |> largest ]

        [ for run, series, dash, width, course in drawn do
              let name = if series = "bound" then $"{run}, bound" else run

              line name styles[run].Colour dash width course
              |> marked styles[run]
              |> Theme.traced run $"step %%{{x}}: %%{{y:.2e}} {series}<extra>{Theme.plain run}</extra>" ]
        |> Theme.combine
        |> Theme.dress
            (Theme.axis "after step" linear (Some(steps points)))
            (Theme.logAxis
                "relative deviation"
                [ for _, _, _, _, course in drawn do
                      yield! List.map snd course ])

    let private grey = "#858585"

    let private training (points: Point list) =
        let steps = steps points
        let last = List.fold max 1 steps
        let axis = Theme.axis "end of step" linear (Some steps)
        axis.SetProperty("range", [ 0.0; float last + 0.05 ])

        axis,
        [ for step in steps do
              if step < last then
                  Theme.upright (float step) ]

    /// A line with a hole after every step.
    let private course (f: Point -> float) (points: Point list) =
        [ for _, own in points |> List.groupBy _.Where do
              for p in own do
                  p.X, f p

              (List.last own).X, nan ]

    /// The paper's figure over training, a line a run.
    let asPlotted (styles: Map<string, MethodStyle>) (points: Point list) : GenericChart =
        let axis, ends = training points

        [ for run, own in ofRuns points do
              own
              |> List.filter (fun p -> p.Series = "as the paper plots it")
              |> course _.Y
              |> line run styles[run].Colour styles[run].Dash 1.3
              |> Theme.traced run $"step %%{{x:.2f}}: %%{{y:.3~g}}<extra>{Theme.plain run}</extra>" ]
        |> Theme.combine
        |> Theme.dress axis (Theme.axis "o(η)/η as the paper writes it" linear None)
        |> Chart.withShapes ends

    /// The sizes of o(η)/η over one run's training, beside ‖Δ‖², which it has to stay below.
    let remainders (styles: Map<string, MethodStyle>) (run: string) (points: Point list) : GenericChart =
        let own = points |> List.filter (fun p -> p.Run = run)
        let axis, ends = training own

        let series =
            [ "‖Δ‖²", "‖Δ‖², the limit", grey, StyleParam.DrawingStyle.Solid, 3.0
              "of the change made", "of the change made", styles[run].Colour, StyleParam.DrawingStyle.Solid, 1.5
              "of a gradient step", "of a gradient step", styles[run].Colour, StyleParam.DrawingStyle.Dot, 1.5 ]

        let drawn = own |> List.filter (fun p -> List.exists (fun (name, _, _, _, _) -> name = p.Series) series)

        [ for name, title, colour, dash, width in series do
              drawn
              |> List.filter (fun p -> p.Series = name)
              |> course (fun p -> shown p.Y)
              |> line title colour dash width
              |> Theme.traced run $"step %%{{x:.2f}}: %%{{y:.2e}}<extra>{title}</extra>" ]
        |> Theme.combine
        |> Theme.dress axis (Theme.logAxis "|o(η)|/η" (drawn |> List.map (fun p -> shown p.Y)))
        |> Chart.withShapes ends

    /// |o(η)| against η, a line a step, the later the darker, with a straight one of slope 2. What is zero has no point.
    let order (run: string) (points: Point list) : GenericChart =
        let own = points |> List.filter (fun p -> p.Run = run && p.Y > 0.0 && p.X > 0.0 && Double.IsFinite(p.X + p.Y))
        let byStep = own |> List.groupBy _.Series

        let guide =
            match own with
            | [] -> []
            | _ ->
                let middle = own |> List.map (fun p -> p.Y / (p.X * p.X)) |> List.sort |> List.item (own.Length / 2)
                [ for x in [ own |> List.map _.X |> List.min; own |> List.map _.X |> List.max ] -> x, middle * x * x ]

        [ for i, (step, own) in List.indexed byStep do
              let share = float i / float (max 1 (byStep.Length - 1))
              let shade = int (190.0 - 100.0 * share)

              line step $"rgb({shade},{shade},{shade})" StyleParam.DrawingStyle.Solid 1.5 [ for p in own -> p.X, p.Y ]
              |> Theme.traced run $"η %%{{x:.2e}}: %%{{y:.2e}}<extra>{step}</extra>"
          line "slope 2" grey StyleParam.DrawingStyle.Dash 2.5 guide |> Theme.traced run "<extra>slope 2</extra>" ]
        |> Theme.combine
        |> Theme.dress
            (Theme.logAxis "η" (own |> List.map _.X))
            (Theme.logAxis "|o(η)|" ((guide |> List.map snd) @ (own |> List.map _.Y)))

    /// What one step changed of one old step's scores, against the largest share of energy that its cuts left out.
    let energy (styles: Map<string, MethodStyle>) (points: Point list) : GenericChart =
        [ for run, own in ofRuns points do
              Chart.Point(
                  x = [ for p in own -> energyShown p.X ],
                  y = [ for p in own -> shown p.Y ],
                  Name = Theme.plain run,
                  MultiText = [ for p in own -> p.Where ],
                  MarkerColor = Color.fromString styles[run].Colour,
                  MarkerSymbol = styles[run].Symbol,
                  Opacity = 0.75,
                  UseDefaults = false
              )
              |> Theme.traced run $"%%{{text}}: %%{{x:.2e}} left out, moved %%{{y:.2e}}<extra>{Theme.plain run}</extra>" ]
        |> Theme.combine
        |> Theme.dress
            (wholeDecades "share of energy left out" [ for p in points -> energyShown p.X ])
            (wholeDecades "relative change in one step" [ for p in points -> shown p.Y ])

    /// How far each step's whole change is out of the constraint set, the larger of both heads.
    let leakage (styles: Map<string, MethodStyle>) (points: Point list) : GenericChart =
        [ for run, own in ofRuns points do
              largest own
              |> line run styles[run].Colour styles[run].Dash 2.0
              |> marked styles[run]
              |> Theme.traced run $"step %%{{x}}: %%{{y:.2e}}<extra>{Theme.plain run}</extra>" ]
        |> Theme.combine
        |> Theme.dress
            (Theme.axis "step" linear (Some(steps points)))
            (Theme.logAxis "‖P̃DP‖/‖D‖" (points |> List.map (fun p -> shown p.Y)))

    /// One map: partners' outputs (rows) by inputs (columns), both by falling energy. The energies are shown as powers of ten.
    let map (series: string) (points: Point list) : GenericChart =
        let own = points |> List.filter (fun p -> p.Series = series)
        let isEnergy = series = "energy"

        let value (p: Point) =
            match p.Cell with
            | Some x when not isEnergy -> x
            | Some x when x > 0.0 -> log10 x
            | _ -> nan

        let rows = own |> List.groupBy _.Y |> List.sortBy fst |> List.map (snd >> List.sortBy _.X >> List.map value)
        let down = Theme.axis "partners' outputs" linear None
        down.SetProperty("autorange", "reversed")

        Chart.Heatmap(
            zData = rows,
            X = (own |> List.map _.X |> List.distinct |> List.sort),
            Y = (own |> List.map _.Y |> List.distinct |> List.sort),
            ShowScale = isEnergy,
            ColorScale = Theme.shades,
            UseDefaults = false
        )
        |> GenericChart.mapTrace (fun trace ->
            let words = if isEnergy then "10^%{z:.1f}" else "%{z:.2f} kept"
            trace.SetProperty("hovertemplate", $"partner %%{{y}}, input %%{{x}}: {words}<extra></extra>")
            trace.SetProperty("colorbar", {| thickness = 8; outlinewidth = 0 |})

            if not isEnergy then
                trace.SetProperty("zmin", 0)
                trace.SetProperty("zmax", 1)

            trace)
        |> Theme.dress (Theme.axis "inputs" linear None) down
