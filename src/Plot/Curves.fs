namespace Cmcl

open System.Globalization
open Plotly.NET

/// The charts of what goes on inside the steps: training losses and spectra.
[<RequireQualifiedAccess>]
module Curves =
    let private linear = StyleParam.AxisType.Linear

    /// The training loss of all steps on one axis: between i − 1 and i are the epochs of step i. Mean over seeds.
    let losses (styles: Map<string, MethodStyle>) (losses: LossRow list) : GenericChart =
        let count = losses |> List.map _.Step |> List.fold max 0
        let ends = Theme.axis "end of step" linear (Some [ 1..count ])
        ends.SetProperty("range", [ 0.0; float count + 0.05 ])

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
                  ShowMarkers = (own |> List.forall (fun r -> r.Epoch = 1)),
                  LineWidth = 1.5,
                  UseDefaults = false
              )
              |> Theme.traced method $"step %%{{x:.2f}}: %%{{y:.3f}}<extra>{Theme.plain method}</extra>" ]
        |> Chart.combine
        |> Theme.dress ends (Theme.axis "training loss" linear None)
        |> Chart.withShapes [ for step in 1 .. count - 1 -> Theme.upright (float step) ]

    /// The relative drift of old scores while steps are trained, largest over the old tasks, mean over seeds: between i − 1 and i
    /// are the updates of step i.
    let monitor (styles: Map<string, MethodStyle>) (rows: MonitorRow list) : GenericChart =
        let count = rows |> List.map _.Step |> List.fold max 1
        let ends = Theme.axis "end of step" linear (Some [ 1..count ])
        ends.SetProperty("range", [ 0.95; float count + 0.05 ])

        let course (own: MonitorRow list) =
            [ for step, updates in own |> List.groupBy _.Step |> List.sortBy fst do
                  let length = updates |> List.map _.Update |> List.max

                  for update, found in updates |> List.groupBy _.Update |> List.sortBy fst do
                      let worst = found |> List.groupBy _.Seed |> List.averageBy (snd >> List.map _.Relative >> List.max)
                      float (step - 1) + float update / float length, worst

                  float step, nan ]

        [ for method, own in rows |> List.groupBy _.Method do
              Chart.Line(
                  xy = course own,
                  Name = Theme.plain method,
                  LineColor = Color.fromString styles[method].Colour,
                  LineDash = styles[method].Dash,
                  LineWidth = 1.5,
                  UseDefaults = false
              )
              |> Theme.traced method $"step %%{{x:.2f}}: %%{{y:.3~g}}<extra>{Theme.plain method}</extra>" ]
        |> Chart.combine
        |> Theme.dress ends (Theme.axis "largest relative drift" linear None)
        |> Chart.withShapes [ for step in 2 .. count - 1 -> Theme.upright (float step) ]

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
                LineColor = Color.fromString (if side = "input" then "#0072B2" else "#E69F00"),
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
        |> Chart.combine
        |> Theme.dress directions (Theme.logAxis "share of energy" (own |> List.map _.Energy))
        |> Chart.withShapes
            [ for _, (inside, _) in sides do
                  if not inside.IsEmpty then
                      Theme.upright (float inside.Length + 0.5) ]
