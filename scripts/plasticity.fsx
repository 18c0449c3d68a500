// Does a projected step still learn? Theorem 6 says so while o(η)/η stays below ‖Δ‖², and o(η) is of second order. Over one run of DNS and one of the
// paper's form (the gradient projected, then AdamW), in float64: the figure as the paper plots it, both sides of the condition, and
// the order of o(η) at every step's start:
//
//     dotnet fsi scripts/plasticity.fsx
#load "options.fsx"

open Cmcl
open Options
open TorchSharp

let methods = [ "dns"; "dns[place=gradient]" ]

/// The points of one plan's run, and for each step the slope of log |o(η)| against log η.
let traced (stream: Stream) (seed: int) (plan: Plan) : Point list * (string * float) list =
    eprintfn "%s on %s" plan.Label stream.Name
    use trace = Trace.run stream torch.CPU seed ignore plan |> Check.getAll

    let steps =
        Stage.each trace (fun stage ->
            let descents = PlasticityChecks.descents stage
            let slope = descents |> Option.map (fun d -> Plasticity.slope [ for x in d.Small -> x.Rate, x.Remainder ])
            Points.ofStep plan.Label stage descents, (stage.Where, Option.defaultValue nan slope))

    List.collect fst steps, List.map snd steps

let table (found: (string * Point list * (string * float) list) list) : TextTable =
    let median (values: float list) = if values.IsEmpty then nan else (List.sort values)[values.Length / 2]

    [ for run, points, slopes in found do
          for where, slope in slopes do
              let of' series =
                  [ for p in points do
                        if p.Figure = "plasticity" && p.Where = where && p.Series = series then
                            p.Y ]

              let speed, made, gradient = of' "‖Δ‖²", of' "of the change made", of' "of a gradient step"
              let above = List.zip gradient speed |> List.filter (fun (o, limit) -> o >= limit) |> List.length

              [ run
                where
                Verification.number (median speed)
                Verification.number (median (of' "as the paper plots it"))
                Verification.number (median made)
                Verification.number (median gradient)
                $"{above}/{speed.Length}"
                slope.ToString "0.00" ] ]
    |> TextTable.make
        "o(η)/η, medians over a step's updates"
        [ "run"
          "at"
          "‖Δ‖²"
          "as plotted"
          "of the change made"
          "of a gradient step"
          "not below"
          "order of o(η)" ]
    |> TextTable.note "Not below: updates at which o(η)/η of a gradient step −ηΔ was not below ‖Δ‖², of those looked at."

Script.run [ "stream"; "seeds"; "set"; "out"; "small" ] (fun asked ->
    torch.set_num_threads 1
    let stream = Script.stream "emoji" asked

    let given =
        [ ("dtype", "float64") ] @ (if asked.Small then [ ("epochs", "1") ] else []) @ asked.Set
        |> List.rev
        |> List.distinctBy fst

    let plans = Plan.resolve stream.Preset given methods |> Check.getAll
    let seed = asked.Seeds.Head
    let found = [ for plan in plans -> let points, slopes = traced stream seed plan in plan.Label, points, slopes ]

    let points =
        [ for _, points, _ in found do
              yield! points ]

    let of' figure = points |> List.filter (fun p -> p.Figure = figure)

    [ for p in points -> [ p.Figure; p.Run; p.Series; p.Where; TextTable.number p.X; TextTable.number p.Y ] ]
    |> TextTable.make "" [ "figure"; "run"; "series"; "where"; "x"; "y" ]
    |> TextTable.save (System.IO.Path.Combine(asked.Out, "results.csv"))
    |> Check.getAll

    let sheet =
        Sheet.make "Plasticity" $"Whether projected steps learn (Theorem 6). {stream.Name}, seed {seed}, float64."
        |> Sheet.command asked.Command
        |> Sheet.chart
            "o(η)/η as the paper plots it"
            "Upright lines end steps."
            (VerifyCharts.asPlotted (Theme.styles methods) (of' "plasticity"))

    (sheet, methods)
    ||> List.fold (fun sheet run ->
        sheet
        |> Sheet.chart
            $"{run}: |o(η)|/η against ‖Δ‖²"
            "Theorem 6 asks that it be below."
            (VerifyCharts.remainders (Theme.styles methods) run (of' "plasticity"))
        |> Sheet.chart
            $"{run}: the order of o(η)"
            "From the start of every step; later steps are darker."
            (VerifyCharts.order run (of' "order")))
    |> fun sheet -> Script.leave [ table found ] sheet asked)
