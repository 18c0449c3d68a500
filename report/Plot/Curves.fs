namespace Cmcl

open System
open System.Globalization
open Plotly.NET

/// The charts of what goes on inside the steps: training losses and spectra.
[<RequireQualifiedAccess>]
module Curves =
    let private linear = StyleParam.AxisType.Linear

    /// Lines of methods over all steps on one axis: between i − 1 and i is the course of step i, given as places in it and values.
    let private overSteps
        (title: string)
        (styles: Map<string, MethodStyle>)
        (courses: (string * (int * (float * float) list) list) list)
        =
        let steps = courses |> List.collect (snd >> List.map fst) |> List.distinct |> List.sort
        let first, last = List.fold min Int32.MaxValue steps, List.fold max Int32.MinValue steps
        let ends = Theme.axis "end of step" linear (Some steps)

        if not steps.IsEmpty then
            ends.SetProperty("range", [ float first - 1.0; float last + 0.05 ])

        let course own =
            [ for step, points in List.sortBy fst own do
                  for place, value in List.sortBy fst points do
                      float (step - 1) + place, value

                  float step, nan ]

        [ for method, own in courses do
              Chart.Line(
                  xy = course own,
                  Name = Theme.plain method,
                  LineColor = Color.fromString styles[method].Colour,
                  LineDash = styles[method].Dash,
                  ShowMarkers = (own |> List.forall (fun (_, points) -> points.Length = 1)),
                  LineWidth = 1.5,
                  UseDefaults = false
              )
              |> Theme.traced method $"step %%{{x:.2f}}: %%{{y:.3~g}}<extra>{Theme.plain method}</extra>" ]
        |> Theme.combine
        |> Theme.dress ends (Theme.axis title linear None)
        |> Chart.withShapes
            [ for step in steps do
                  if step < last then
                      Theme.upright (float step) ]

    /// By method and step: places within the step, the last at 1, and what `value` makes of the rows of all seeds there.
    let private courses
        (method: 'row -> string)
        (step: 'row -> int)
        (place: 'row -> float)
        (value: 'row list -> float)
        (rows: 'row list)
        =
        [ for method, own in rows |> List.groupBy method do
              method,
              [ for step, part in own |> List.groupBy step do
                    let length = part |> List.map place |> List.max |> max 1.0
                    step, [ for at, seeds in part |> List.groupBy place -> at / length, value seeds ] ] ]

    /// The training loss of all steps, mean over seeds.
    let losses (styles: Map<string, MethodStyle>) (losses: LossRow list) : GenericChart =
        losses |> courses _.Method _.Step (fun r -> float r.Epoch) (List.averageBy _.Loss) |> overSteps "training loss" styles

    /// The relative drift of old scores while steps are trained, largest over the old tasks, mean over seeds.
    let monitor (styles: Map<string, MethodStyle>) (rows: MonitorRow list) : GenericChart =
        let worst (seeds: MonitorRow list) =
            seeds |> List.groupBy _.Seed |> List.averageBy (snd >> List.map _.Relative >> List.max)

        rows |> courses _.Method _.Step (fun r -> float r.Update) worst |> overSteps "largest relative drift" styles

    /// Energy (share of the trace, logarithmic) of the old directions of one modality, largest first, on its input side and on
    /// the side of its partners' outputs. Thick is protected; the upright line is the cut.
    let spectrum (method: string) (step: int) (modality: string) (spectra: SpectrumRow list) : GenericChart =
        let own =
            spectra |> List.filter (fun r -> r.Method = method && r.Step = step && r.Modality = modality) |> List.sortBy _.Index

        let isProtected (r: SpectrumRow) = r.Protected = Some true

        // Four digits are enough to draw; what has no energy has no place on a logarithmic axis.
        let height (r: SpectrumRow) =
            if r.Energy > 0.0 then float (r.Energy.ToString("G4", CultureInfo.InvariantCulture)) else nan

        let curve (side: string) width name (part: SpectrumRow list) =
            Chart.Line(
                x = (part |> List.map _.Index),
                y = (part |> List.map height),
                Name = name,
                LineColor = Color.fromString (if side = "input" then "#8B5E3C" else "#1A9BA8"),
                LineWidth = width,
                UseDefaults = false
            )
            |> GenericChart.mapTrace (fun trace ->
                trace.SetProperty("hovertemplate", $"%%{{x}}: %%{{y:.2e}}<extra>{Theme.plain side}</extra>")
                trace)

        let sides = own |> List.groupBy _.Side |> List.map (fun (side, part) -> side, List.partition isProtected part)
        let directions = Theme.axis "direction" linear None
        directions.SetProperty("range", [ 0.5; 0.5 + float (own |> List.map _.Index |> List.fold max 1) ])

        [ for side, (inside, outside) in sides do
              let name = Theme.plain side

              if not inside.IsEmpty then
                  curve side 5. $"{name}: {inside.Length} protected" inside

              if outside |> List.exists _.Protected.IsSome then
                  curve side 1.5 $"{name}: {outside.Length} free" outside
              elif not outside.IsEmpty then
                  curve side 1.5 $"{name}: no cut" outside ]
        |> Theme.combine
        |> Theme.dress directions (Theme.logAxis "share of energy" (own |> List.map _.Energy))
        |> Chart.withShapes
            [ for _, (inside, _) in sides do
                  if not inside.IsEmpty then
                      Theme.upright (float inside.Length + 0.5) ]
