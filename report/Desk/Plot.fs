namespace Cmcl

open System
open System.Globalization
open Plotly.NET

/// Every chart of the report, and charts of sweeps, as functions from results to Plotly.NET charts. Means over seeds with the sample standard
/// deviation as error bar; rates in per cent. As in `result |> Plot.deviation |> Chart.show`.
[<RequireQualifiedAccess>]
module Plot =
    let private linear = StyleParam.AxisType.Linear
    let private styles (r: StudyResult) = Theme.stylesOf r.Info.Roles r.Methods

    /// The rows of the methods that go on from step to step.
    let private kept (r: StudyResult) : Row list =
        r.Rows |> List.filter (fun row -> not (Roles.startsAgain r.Info.Roles row.Method))

    /// Are different positive values further apart than a factor of five, as those of a sweep over orders of size are?
    let private geometric (values: float list) : bool =
        let finite = values |> List.filter Double.IsFinite |> List.distinct
        finite.Length > 1 && finite |> List.forall (fun x -> x > 0.0) && List.max finite > 5.0 * List.min finite

    /// A chart in which methods are named, so that it needs no legend, and how high it is to be in pixels.
    let private named (height: int) (chart: GenericChart) : GenericChart =
        chart |> Chart.withLayoutStyle (ShowLegend = false) |> Chart.withSize (Height = height)

    let private valuesOf metric (rows: Row list) = rows |> List.filter (fun r -> r.Metric = metric) |> List.map _.Value

    /// A label that the result has, or a fault with those that it has.
    let private known (label: string) (r: StudyResult) : string =
        if List.contains label r.Methods then
            label
        else
            Check.fail (Fault.Unknown("method of these results", label, r.Methods))

    /// A rate of every task (columns) after every step (rows) of one method.
    let matrix (metric: string) (label: string) (r: StudyResult) : GenericChart =
        let measured =
            r.Rows |> List.filter (fun row -> row.Metric = metric && row.When <> When.Final && Double.IsFinite row.Value)

        Charts.matrix (measured |> List.map _.Value |> List.fold max 0.01) metric (known label r) measured

    /// A rate of one task over the steps, a line a method; the upright line is the step that trains it.
    let forgetting (metric: string) (task: int) (r: StudyResult) : GenericChart =
        Charts.forgetting (styles r) metric task (kept r)

    /// Backward transfer of a rate as it stood after every step.
    let backward (metric: string) (r: StudyResult) : GenericChart = Charts.backward (styles r) metric (kept r)

    /// Relative deviation of old alignment scores after every step, mean over the tasks learned before.
    let deviation (r: StudyResult) : GenericChart =
        let rows = kept r
        Charts.deviation (styles r) (Charts.wide (valuesOf "deviation_rel" rows)) rows

    /// For one method the largest deviation of old scores after every step: measured, known without the rows, and the bound on it.
    let certificate (label: string) (r: StudyResult) : GenericChart =
        let label = known label r
        let own = kept r |> List.filter (fun row -> row.Method = label)
        Charts.certificate (styles r) (Charts.wide (valuesOf "bound_rel" own @ valuesOf "deviation_rel" own)) label own

    /// Deviation of old scores against a final rate such as `r10` or `learned_r10`, a point a method.
    let tradeOff (metric: string) (r: StudyResult) : GenericChart =
        let rows = kept r
        let last = rows |> List.filter (fun row -> row.When = When.Final)
        Charts.tradeOff (styles r) (Charts.wide (valuesOf "deviation_rel" last)) metric rows |> named 460

    /// Mean training loss of every epoch.
    let losses (r: StudyResult) : GenericChart = Curves.losses (styles r) r.Losses

    /// Drift of old scores within the steps, of a run with a monitor.
    let monitor (r: StudyResult) : GenericChart = Curves.monitor (styles r) r.Monitor

    /// Energies of the old directions of a modality that a method protected in a step.
    let spectrum (label: string) (step: int) (modality: string) (r: StudyResult) : GenericChart =
        Curves.spectrum (known label r) step modality r.Spectra

    /// A metric of the registry (`cmcl metrics`), a line a method.
    let metric (name: string) (r: StudyResult) : GenericChart =
        let m, measured = Metric.find name |> Check.get, StudyResult.measured r

        [ for label in r.Methods do
              match Measured.spread r.Stream label m measured with
              | Some spread -> label, spread
              | None -> () ]
        |> fun rows -> CompareCharts.metric (styles r) m rows |> named (Theme.namesHeight (List.map fst rows))

    // ---- sweeps --------------------------------------------------------------------------------------------------

    /// As short as a tick or a mark wants it: `0.003`, `3e-6`.
    let private brief (x: float) : string =
        x
            .ToString("G6", CultureInfo.InvariantCulture)
            .Replace("E+0", "e")
            .Replace("E+", "e")
            .Replace("E-0", "e-")
            .Replace("E", "e")

    /// An axis by its title, logarithmic where that is said.
    let private axis (title: string, log: bool) (values: float list) =
        if log then Theme.logAxis title values else Theme.axis title linear None

    /// The same with a tick at each of a few chosen places, such as the numbers of steps or the values of a sweep.
    let private placed (title: string, log: bool) (values: float list) =
        let places = values |> List.filter Double.IsFinite |> List.distinct |> List.sort
        let whole = places |> List.forall (fun x -> x = round x)

        if places.IsEmpty || places.Length > (if whole && not log then 16 else 9) then
            axis (title, log) values
        else
            let axis = Theme.axis title (if log then StyleParam.AxisType.Log else linear) None
            axis.SetProperty("tickmode", "array")
            axis.SetProperty("tickvals", places)
            axis.SetProperty("ticktext", List.map brief places)
            axis

    /// Lines through points with error bars in both directions, each with a text for the pointer: name, [(x, y, text)]; `mark` gives what of
    /// the text is written at its point.
    let private drawn
        (mark: string -> string)
        across
        (x: string * bool)
        (y: string * bool)
        (series: (string * (Spread * Spread * string) list) list)
        : GenericChart =
        let styles = Theme.styles (List.map fst series)
        let all part = series |> List.collect (snd >> List.map (part >> (fun (s: Spread) -> s.Mean)))

        let levels, lines =
            series |> List.partition (fun (_, points) -> points |> List.forall (fun (x, _, _) -> Double.IsNaN x.Mean))

        let xs = all (fun (x, _, _) -> x) |> List.filter Double.IsFinite

        // A series without a place on the axis is a level across all of it.
        let level =
            [ for name, points in levels do
                  for _, value, text in points do
                      name, [ for at in (if xs.IsEmpty then [ 0.0; 1.0 ] else [ List.min xs; List.max xs ]) -> at, value, text ] ]

        let line name (dash: StyleParam.DrawingStyle) markers (points: (Spread * Spread * string) list) =
            let style = styles[name]
            let xs, ys = points |> List.map (fun (x, _, _) -> x), points |> List.map (fun (_, y, _) -> y)

            let marks = points |> List.map (fun (_, _, text) -> Theme.plain (mark text))
            let marked = markers && points.Length > 1 && List.exists ((<>) "") marks

            Chart.Line(
                x = (xs |> List.map _.Mean),
                y = (ys |> List.map _.Mean),
                MultiText = marks,
                Name = Theme.plain name,
                ShowMarkers = markers,
                MarkerSymbol = style.Symbol,
                LineColor = Color.fromString style.Colour,
                MarkerColor = Color.fromString style.Colour,
                LineDash = dash,
                LineWidth = 2.,
                UseDefaults = false
            )
            |> Chart.withXError (Charts.error xs)
            |> Chart.withYError (Charts.error ys)
            |> Theme.traced name $"%%{{customdata}}<br>%%{{x:.3~g}}, %%{{y:.3~g}}<extra>{Theme.plain name}</extra>"
            |> GenericChart.mapTrace (fun trace ->
                trace.SetProperty("customdata", points |> List.map (fun (_, _, text) -> Theme.plain text))

                if marked then
                    trace.SetProperty("mode", "lines+markers+text")
                    trace.SetProperty("textposition", "top center")
                    trace.SetProperty("textfont", {| size = 10 |})
                    trace.SetProperty("cliponaxis", false)

                trace)

        let point at = { Mean = at; Sd = None; Count = 1 }

        [ for name, points in lines -> line name styles[name].Dash true points
          for name, points in level ->
              line name StyleParam.DrawingStyle.Dash false [ for at, value, text in points -> point at, value, text ] ]
        |> Theme.combine
        |> Theme.dress (across x xs) (axis y (all (fun (_, y, _) -> y)))

    /// Lines of one's own in the library's look: titles of the axes, whether each is logarithmic, and name, [(x, y)] of every line.
    /// Example: `Plot.lines ("η", true) ("o(η)", true) [ "dns", [ 1e-3, 1e-6; 1e-2, 1e-4 ] ]`.
    let lines (x: string * bool) (y: string * bool) (series: (string * (float * float) list) list) : GenericChart =
        let point value = { Mean = value; Sd = None; Count = 1 }
        drawn (fun _ -> "") placed x y [ for name, points in series -> name, [ for x, y in points -> point x, point y, name ] ]

    /// The same with a mean and a deviation at every place.
    /// Example: `Plot.spreads ("d", false) ("seconds", false) [ "dns", [ 64.0, { Mean = 1.0; Sd = Some 0.1; Count = 3 } ] ]`.
    let spreads (x: string * bool) (y: string * bool) (series: (string * (float * Spread) list) list) : GenericChart =
        let point value = { Mean = value; Sd = None; Count = 1 }
        drawn (fun _ -> "") placed x y [ for name, points in series -> name, [ for x, y in points -> point x, y, name ] ]

    /// The number in a setting: 0.003 of `trace:0.003`.
    let private number (setting: string) : float option =
        match Double.TryParse(Array.last (setting.Split ':'), NumberStyles.Float, CultureInfo.InvariantCulture) with
        | true, x -> Some x
        | _ -> None

    /// `trace` of `trace:0.003`: numbers of different kinds are no one axis.
    let private kind (setting: string) : string option =
        match setting.Split ':' with
        | [| kind; _ |] -> Some kind
        | _ -> None

    /// The methods of a result in groups that differ in an option and in what follows it, with the option's number in each; a method without
    /// the option is a group of its own, and so is each kind of threshold. Where that leaves no two together, all that has the option is.
    let private groups (option: string) (r: StudyResult) : (string * (float * string) list) list =
        let setting name (m: MethodInfo) = m.Setting name

        [ for family, own in r.Info.Methods |> List.groupBy _.Method do
              let names = own |> List.collect (fun m -> List.map fst m.Settings) |> List.distinct

              let follows name =
                  own
                  |> List.groupBy (setting option)
                  |> List.forall (fun (_, same) -> same |> List.distinctBy (setting name) |> List.length = 1)

              let apart =
                  names
                  |> List.filter (fun name ->
                      name <> option && (own |> List.distinctBy (setting name) |> List.length) > 1 && not (follows name))

              let kinds = own |> List.choose (setting option >> Option.bind kind) |> List.distinct

              let key apart (m: MethodInfo) =
                  match setting option m with
                  | None -> m.Label
                  | Some value ->
                      let texts =
                          [ match kind value with
                            | Some kind when kinds.Length > 1 -> $"{option}={kind}"
                            | _ -> ()
                            for name in apart do
                                match setting name m with
                                | Some v -> $"{name}={v}"
                                | None -> () ]

                      if texts.IsEmpty then family else family + "[" + String.Join(";", texts) + "]"

              // Settings that were never the same twice leave no line to draw: they are then one line, in the order of the option.
              let parted = own |> List.groupBy (key apart)
              let several (_, members) = List.length (members |> List.choose (setting option)) > 1
              let groups = if List.exists several parted then parted else own |> List.groupBy (key [])

              for name, members in groups do
                  name,
                  [ for m in members -> setting option m |> Option.bind number |> Option.defaultValue nan, m.Label ]
                  |> List.sortBy fst ]

    let private unitOf (m: Metric) = if m.Unit = MetricUnit.PerCent then ", %" else ""

    let private scaled (m: Metric) (s: Spread) : Spread =
        let factor = if m.Unit = MetricUnit.PerCent then 100.0 else 1.0

        { s with
            Mean = factor * s.Mean
            Sd = Option.map ((*) factor) s.Sd }

    /// A metric against an option that was varied, a line for each combination of what else was; methods without the option are levels.
    /// As in `Plot.against "tau" "r10"`.
    let against (option: string) (metric: string) (r: StudyResult) : GenericChart =
        let m, measured = Metric.find metric |> Check.get, StudyResult.measured r

        let series =
            [ for name, members in groups option r do
                  name,
                  [ for x, label in members do
                        match Measured.spread r.Stream label m measured with
                        | Some spread -> { Mean = x; Sd = None; Count = 1 }, scaled m spread, label
                        | None -> () ] ]
            |> List.filter (snd >> List.isEmpty >> not)

        let xs =
            [ for _, points in series do
                  for x, _, _ in points do
                      x.Mean ]

        let ys =
            [ for _, points in series do
                  for _, y, _ in points do
                      y.Mean ]

        let logY = m.Unit <> MetricUnit.PerCent && Charts.wide ys
        drawn (fun _ -> "") placed (option, geometric xs) ($"{m.Title}{unitOf m}", logY) series

    /// What a method of a series has set otherwise than another of it, as short as a point's mark: `0.003` of `trace:0.003`.
    let private swept (labels: string list) (r: StudyResult) : Map<string, string> =
        let own = r.Info.Methods |> List.filter (fun m -> List.contains m.Label labels)
        let names = own |> List.collect (fun m -> List.map fst m.Settings) |> List.distinct
        let varied = names |> List.filter (fun name -> own |> List.distinctBy _.Setting(name) |> List.length > 1)

        let short (setting: string) =
            match number setting with
            | Some x -> brief x
            | None -> setting

        Map [ for m in own -> m.Label, varied |> List.choose m.Setting |> List.map short |> List.distinct |> String.concat " · " ]

    /// One metric of the registry against another, a line through the methods of each series in their order: name, labels. What is set
    /// otherwise in each stands at its point. Both means with their deviations over seeds; rates in per cent. As in `Plot.curves "deviation_rel" "r10" [ "soft", labels ]`.
    let curves (xMetric: string) (yMetric: string) (series: (string * string list) list) (r: StudyResult) : GenericChart =
        let measured = StudyResult.measured r
        let mx, my = Metric.find xMetric |> Check.get, Metric.find yMetric |> Check.get

        let marks =
            [ for _, labels in series do
                  yield! Map.toList (swept labels r) ]
            |> Map.ofList

        let mark label = Map.tryFind label marks |> Option.defaultValue ""

        let series =
            [ for name, labels in series do
                  name,
                  [ for label in labels do
                        let label = known label r
                        let found m = Measured.spread r.Stream label m measured

                        match found mx, found my with
                        | Some x, Some y -> scaled mx x, scaled my y, label
                        | _ -> () ] ]
            |> List.filter (snd >> List.isEmpty >> not)

        let log (m: Metric) (part: Spread * Spread * string -> Spread) =
            m.Unit <> MetricUnit.PerCent && Charts.wide (series |> List.collect (snd >> List.map (part >> _.Mean)))

        let title (m: Metric) =
            match m.Name with
            | "deviation_rel" -> "relative deviation of old scores (left is more stable)"
            | "r10" -> "recall@10 after the last step, %"
            | _ -> m.Title.Replace('_', ' ') + unitOf m

        drawn mark axis (title mx, log mx (fun (x, _, _) -> x)) (title my, log my (fun (_, y, _) -> y)) series

    /// Stability against plasticity along an option that was varied: deviation of old scores (left is more stable) and recall@10 (up is better),
    /// the points of a line in the order of the option.
    let path (option: string) (r: StudyResult) : GenericChart =
        curves "deviation_rel" "r10" [ for name, members in groups option r -> name, List.map snd members ] r

    /// A mean with its deviation for each name, a line each from above: the title of the axis, whether it is logarithmic, the names. On a
    /// logarithmic axis what is not positive has no point. Example: `Plot.dots ("largest deviation", true) [ "dns", { Mean = 1e-3; Sd = None; Count = 1 } ]`.
    let dots (title: string, log: bool) (rows: (string * Spread) list) : GenericChart =
        let style = Theme.styles [ "dns" ] |> Map.find "dns"
        let places = [ for i in 0 .. rows.Length - 1 -> rows.Length - i ]

        [ for place, (name, value) in List.zip places rows do
              if not log || value.Mean > 0.0 then
                  Chart.Point(
                      x = [ value.Mean ],
                      y = [ float place ],
                      Name = Theme.plain name,
                      MarkerColor = Color.fromString style.Colour,
                      MarkerSymbol = style.Symbol,
                      UseDefaults = false
                  )
                  |> Chart.withMarkerStyle (Size = 10)
                  |> Chart.withXError (Charts.error [ value ])
                  |> Theme.traced name $"%%{{x:.3~g}}<extra>{Theme.plain name}</extra>" ]
        |> Theme.combine
        |> Theme.dress (axis (title, log) [ for _, value in rows -> value.Mean ]) (Theme.namesAxis (List.map fst rows))
        |> named (Theme.namesHeight (List.map fst rows))

    /// Writes a chart as a picture of its own size (`Chart.withSize`) by the ending of the name, `.svg`, `.png` or `.pdf`, and gives its full
    /// path; makes the folder if there is none. It is what the buttons of a page save, and drawn by a browser without a window: Chromium,
    /// Chrome or Edge, which has to be installed; `CMCL_BROWSER` names another place. Raises `CmclException` for another ending, where there
    /// is no browser, and where the place cannot be written to. As in `Plot.deviation found |> Plot.save "deviation.svg"`.
    let save (path: string) (chart: GenericChart) : string = Picture.save path chart |> Check.getAll

    /// Recall@10 against deviation of every method, the frontier as a line, bounds as levels.
    let frontier (r: StudyResult) : GenericChart =
        let measured = StudyResult.measured r

        CompareCharts.frontier
            (CompareCharts.styles r.Info.Roles r.Methods)
            (760.0, 460.0)
            (CompareCharts.levels r.Stream measured)
            (Frontier.points r.Stream measured)
        |> named 460
