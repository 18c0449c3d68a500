namespace Cmcl

open System
open System.Globalization
open Plotly.NET
open Plotly.NET.LayoutObjects

/// How one method is drawn in every chart.
type MethodStyle =
    {
        /// Such as `#0072B2`.
        Colour: string
        Symbol: StyleParam.MarkerSymbol
        Dash: StyleParam.DrawingStyle
    }

/// What all charts share: one style per method, one layout. The colours are those of Okabe and Ito, which stay apart for
/// colour-blind readers, and a violet and an olive; symbols and dashes tell apart what is left.
[<RequireQualifiedAccess>]
module Theme =
    let private blue, vermilion = "#0072B2", "#D55E00"
    let private others = [ "#009E73"; "#CC79A7"; "#E69F00"; "#56B4E9"; "#8A63D2"; "#7C8A1E" ]

    let private greys = [ "#6e6e6e"; "#a3a3a3"; "#858585" ]

    let private symbols =
        [ StyleParam.MarkerSymbol.Circle
          StyleParam.MarkerSymbol.Square
          StyleParam.MarkerSymbol.Diamond
          StyleParam.MarkerSymbol.TriangleUp ]

    let private dashes =
        [ StyleParam.DrawingStyle.Solid
          StyleParam.DrawingStyle.Dash
          StyleParam.DrawingStyle.Dot
          StyleParam.DrawingStyle.DashDot ]

    /// A style for each of a run's methods, given in the run's order. The baseline and the first of this toolkit's own always look the same;
    /// references are grey.
    let stylesOf (roles: Roles) (labels: string list) : Map<string, MethodStyle> =
        let style colour round =
            { Colour = colour
              Symbol = symbols[round % symbols.Length]
              Dash = dashes[round % dashes.Length] }

        let references, rest = labels |> List.distinct |> List.partition (Roles.isBound roles)

        let pinned =
            [ for role, colour in [ Role.Subject, blue; Role.Baseline, vermilion ] do
                  match Roles.first roles role rest with
                  | Some label -> label, style colour 0
                  | None -> () ]

        let free = rest |> List.except (List.map fst pinned)

        Map.ofList
            [ yield! pinned

              for i, label in List.indexed free do
                  label, style others[i % others.Length] (i / others.Length)

              for i, label in List.indexed references do
                  label, style greys[i % greys.Length] (i + 1) ]

    /// `stylesOf` of methods whose roles only their names tell.
    let styles (labels: string list) : Map<string, MethodStyle> = stylesOf Map.empty labels

    /// Readable on white and on near-black.
    let private ink, grid = "#6b7280", "rgba(128,128,128,0.25)"

    let private colour = Color.fromString

    /// From nothing to all on a light page; pages show it the other way round in the dark.
    let shades = StyleParam.Colorscale.Custom [ 0.0, colour "#eef3f8"; 0.5, colour "#6aa5cf"; 1.0, colour "#0b3c6f" ]

    /// A name out of a file as Plotly shows it literally: its little HTML switched off.
    let plain (name: string) : string = name.Replace("&", "&amp;").Replace("<", "&lt;")

    /// At most sixteen of some ticks, evenly.
    let sparse (ticks: 'a list) : 'a list =
        let every = (ticks.Length + 15) / 16
        ticks |> List.indexed |> List.filter (fun (i, _) -> i % every = 0) |> List.map snd

    /// An axis of the common look. `ticks` are where it may have a tick, for axes that count steps or tasks.
    let axis (title: string) (kind: StyleParam.AxisType) (ticks: int list option) : LinearAxis =
        let axis =
            LinearAxis.init (
                Title = Title.init (Text = title, Standoff = 8),
                AxisType = kind,
                GridColor = colour grid,
                LineColor = colour grid,
                ZeroLine = false
            )

        axis.SetProperty("automargin", true)

        match ticks with
        | Some values ->
            axis.SetProperty("tickmode", "array")
            axis.SetProperty("tickvals", sparse values)
        | None -> ()

        axis

    /// An axis of places with a name each.
    let placesAxis (title: string) (places: (float * string) list) : LinearAxis =
        let axis = axis title StyleParam.AxisType.Linear None
        axis.SetProperty("tickmode", "array")
        axis.SetProperty("tickvals", List.map fst places)
        axis.SetProperty("ticktext", List.map snd places)
        axis

    /// An upright axis with a name a line, the first on top, at 1 to as many as there are.
    let namesAxis (names: string list) : LinearAxis =
        let words name = String.Join("<br>", Labels.lines name |> List.map plain)
        let axis = placesAxis "" [ for i, name in List.indexed names -> float (names.Length - i), words name ]
        axis.SetProperty("range", [ 0.4; float names.Length + 0.6 ])
        // Of no meaning to Plotly: pages set these above their lines where they are narrow.
        axis.SetProperty("names", names)
        axis

    /// How many pixels a chart with such an axis is high.
    let namesHeight (names: string list) : int =
        let most = names |> List.map (Labels.lines >> List.length) |> List.fold max 1
        90 + names.Length * max 34 (10 + 15 * most)

    /// A span with room at both ends in shares of its length, never empty.
    let roomy (below: float) (above: float) (values: float list) : float * float =
        let low, high =
            match List.filter Double.IsFinite values with
            | [] -> 0.0, 1.0
            | finite -> List.min finite, List.max finite

        let length = if high > low then high - low else max 1e-3 (abs high)
        low - below * length, high + above * length

    /// A label as a note beside its point, with a thin line to it where it stands apart.
    let note (x: float, y: float) (label: PlacedLabel) : obj =
        {| name = label.Text
           text = String.Join("<br>", label.Lines |> List.map plain)
           x = x
           y = y
           ax = label.Dx
           ay = label.Dy
           align = "left"
           showarrow = true
           arrowhead = 0
           arrowwidth = 0.8
           standoff = 5
           arrowcolor = (if label.Gap > 12.0 then "rgba(128,128,128,0.7)" else "rgba(0,0,0,0)") |}

    /// `0.02`, `5·10⁻⁷`: as short as a tick wants it.
    let private tick (digit: int) (exponent: int) : string =
        let power = string exponent |> String.map (fun c -> if c = '-' then '−' else c)

        if exponent >= -3 && exponent <= 2 then
            (float digit * 10.0 ** float exponent).ToString("G3", CultureInfo.InvariantCulture)
        elif digit = 1 then
            $"10<sup>{power}</sup>"
        else
            $"{digit}·10<sup>{power}</sup>"

    /// A logarithmic axis with ticks for the values it is to show: powers of ten, and over less than two decades 1, 2 and 5.
    let logAxis (title: string) (values: float list) : LinearAxis =
        let axis = axis title StyleParam.AxisType.Log None

        match values |> List.filter (fun x -> x > 0.0 && Double.IsFinite x) with
        | [] -> ()
        | positive ->
            let least, most = Math.Log10(List.min positive), Math.Log10(List.max positive)
            let low, high = int (floor least), int (ceil most)
            let digits = if most - least < 2.0 then [ 1; 2; 5 ] else [ 1 ]

            let ticks =
                [ for exponent in low .. 1 + (high - low) / 7 .. high do
                      for digit in digits -> digit, exponent ]

            axis.SetProperty("tickmode", "array")
            axis.SetProperty("tickvals", [ for digit, exponent in ticks -> float digit * 10.0 ** float exponent ])
            axis.SetProperty("ticktext", [ for digit, exponent in ticks -> tick digit exponent ])

        axis

    /// Several charts in one; of none an empty one.
    let combine (charts: GenericChart list) : GenericChart =
        match charts with
        | [] -> GenericChart.ofTraceObjects false []
        | charts -> Chart.combine charts

    /// The common layout around a chart's traces, with its two axes.
    let dress (x: LinearAxis) (y: LinearAxis) (chart: GenericChart) : GenericChart =
        chart
        |> Chart.withXAxis x
        |> Chart.withYAxis y
        |> Chart.withLayout (
            Layout.init (
                Font = Font.init (Family = StyleParam.FontFamily.Custom "system-ui, sans-serif", Size = 12., Color = colour ink),
                PaperBGColor = colour "rgba(0,0,0,0)",
                PlotBGColor = colour "rgba(0,0,0,0)",
                Margin = Margin.init (Left = 48, Right = 12, Top = 12, Bottom = 40),
                HoverMode = StyleParam.HoverMode.Closest
            )
        )
        |> Chart.withLegend (
            Legend.init (
                Orientation = StyleParam.Orientation.Horizontal,
                YAnchor = StyleParam.YAnchorPosition.Bottom,
                Y = 1.02,
                X = 0.
            )
        )

    /// With notes at places of the chart.
    let annotated (notes: obj list) (chart: GenericChart) : GenericChart =
        chart
        |> GenericChart.mapLayout (fun layout ->
            layout.SetProperty("annotations", notes)
            layout)

    /// The size in pixels that a chart is laid out for, and what of its layout a page changes where it is narrow.
    let sized (width: float, height: float) (narrow: 'layout) (chart: GenericChart) : GenericChart =
        chart
        |> GenericChart.mapLayout (fun layout ->
            layout.SetProperty("meta", {| width = width; height = height; narrow = narrow |})

            layout)

    /// A vertical line at x over the whole height.
    let upright (x: float) : Shape =
        Shape.init (
            ShapeType = StyleParam.ShapeType.Line,
            X0 = x,
            X1 = x,
            Y0 = 0,
            Y1 = 1,
            Yref = "paper",
            Line = Line.init (Color = colour ink, Width = 1., Dash = StyleParam.DrawingStyle.Dot)
        )

    /// Marks a method's trace, so that a page can hide it, and words its hover text.
    let traced (method: string) (hover: string) (chart: GenericChart) =
        chart
        |> GenericChart.mapTrace (fun trace ->
            trace.SetProperty("meta", method)
            trace.SetProperty("hovertemplate", hover)
            trace)
