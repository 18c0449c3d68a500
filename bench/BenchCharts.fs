namespace Cmcl

open Plotly.NET

/// The charts of a benchmark.
[<RequireQualifiedAccess>]
module BenchCharts =
    /// A style for each form: `none` looks as `vanilla` does elsewhere, and `block` as `dns`.
    let styles (forms: string list) : Map<string, MethodStyle> =
        let alias =
            function
            | "none" -> "vanilla"
            | "block" -> "dns"
            | name -> name

        let styles = Theme.styles (List.map alias forms)
        Map [ for form in forms -> form, styles[alias form] ]

    let private law (symbol: string) (law: PowerLaw option) =
        match law with
        | Some law -> $" {symbol}<sup>%.2f{law.Exponent}</sup>"
        | None -> ""

    /// Both axes logarithmic, a line a form, its exponent in the legend.
    let private growth
        (styles: Map<string, MethodStyle>)
        (symbol: string)
        (across: string)
        (up: string)
        (scale: float)
        (series: (string * (float * float) list * PowerLaw option) list)
        : GenericChart =
        let values =
            [ for _, points, _ in series do
                  yield! points |> List.map (fun (_, y) -> scale * y) ]

        let places =
            [ for _, points, _ in series do
                  yield! List.map fst points ]
            |> List.distinct
            |> List.sort

        let axis = Theme.placesAxis across [ for x in places -> x, string x ]
        axis.SetProperty("type", "log")

        [ for form, points, fitted in series ->
              let style = styles[form]

              Chart.Line(
                  xy = [ for x, y in points -> x, scale * y ],
                  Name = form + law symbol fitted,
                  ShowMarkers = true,
                  MarkerSymbol = style.Symbol,
                  LineColor = Color.fromString style.Colour,
                  MarkerColor = Color.fromString style.Colour,
                  LineDash = style.Dash,
                  LineWidth = 2.,
                  UseDefaults = false
              )
              |> Theme.traced form $"{symbol} = %%{{x}}: %%{{y:.3~g}}<extra>{form}</extra>" ]
        |> Theme.combine
        |> Theme.dress axis (Theme.logAxis up values)

    /// Milliseconds of an iteration against d, of contests that differ in nothing else.
    let byWidth (styles: Map<string, MethodStyle>) (found: Iteration list) : GenericChart =
        growth styles "d" "d" "milliseconds an iteration" 1e3 (Scaling.byWidth found)

    /// Seconds of a whole step against its rows N.
    let byRows (styles: Map<string, MethodStyle>) (found: WholeStep list) : GenericChart =
        growth styles "N" "rows of the step" "seconds a step" 1.0 (Scaling.byRows found)

    /// How many times the floor each form of one contest takes, a bar a form from above.
    let timesFloor (styles: Map<string, MethodStyle>) (found: Iteration list) : GenericChart =
        let found = List.rev found
        let across = Theme.axis "times the floor" StyleParam.AxisType.Linear None
        across.SetProperty("rangemode", "tozero")
        let down = Theme.axis "form" StyleParam.AxisType.Category None

        [ for i in found ->
              Chart.Bar(
                  values = [ i.TimesFloor ],
                  Keys = [ i.Form ],
                  Name = i.Form,
                  MarkerColor = Color.fromString styles[i.Form].Colour,
                  UseDefaults = false
              )
              |> Theme.traced i.Form "%{x:.2f} times the floor<extra>%{y}</extra>" ]
        |> Theme.combine
        |> Theme.dress across down
        |> Chart.withShape (Theme.upright 1.0)
        |> Chart.withLayoutStyle (ShowLegend = false)
