namespace Cmcl

open System
open Giraffe.ViewEngine

/// What a report shows in figures. Each section is left out where the run has nothing for it.
[<RequireQualifiedAccess>]
module internal ReportFigures =
    /// The method to show first and the one to show beside it.
    let private contrast (run: ReportedRun) (methods: string list) : string list =
        let roles = run.Info.Roles
        let trained = methods |> List.filter (fun m -> not (Roles.isBound roles m))
        let preferred = [ Role.Baseline; Role.Subject ] |> List.choose (fun role -> Roles.first roles role trained)
        preferred @ trained @ methods |> List.distinct |> List.truncate 2

    let private rates = [ "r10", "recall@10"; "r1", "recall@1"; "acc", "accuracy" ]

    let matrices (run: ReportedRun) : Section =
        let groups =
            [ for metric, name in rates do
                  let measured =
                      run.Rows |> List.filter (fun r -> r.Metric = metric && r.When <> When.Final && Double.IsFinite r.Value)

                  if not measured.IsEmpty then
                      let top = measured |> List.map _.Value |> List.max

                      name,
                      [ for method in run.Methods do
                            if measured |> List.exists (fun r -> r.Method = method) then
                                method, (fun () -> Charts.matrix (max top 0.01) metric method measured) ] ]
            |> List.mapi (fun g (name, charts) ->
                name, charts |> List.mapi (fun i (method, chart) -> method, Drawing.figure $"matrix-{g}-{i}" chart))

        match groups with
        | [] -> ReportText.nothing
        | (_, shown) :: _ ->
            let starts = contrast run (List.map fst shown)

            let labelled =
                [ for name, figures in groups -> name, [ for method, figure in figures -> $"{name} · {method}", figure ] ]

            [ yield!
                  ReportText.heading
                      "Every task after every step"
                      "Rows are steps (0 is before training), columns are tasks. The frame marks a task when it is learned: down from there a column fades if the task is forgotten, above it the task is still to come. Panels of one metric share their colour scale."
              div
                  [ _class "figures" ]
                  [ for i, method in List.indexed starts do
                        let first = shown |> List.find (fun (m, _) -> m = method) |> snd
                        Page.chooser false $"matrix-panel-{i}" "Metric and method" first labelled ] ],
            groups |> List.collect (snd >> List.map snd)

    let private stepName (run: ReportedRun) (step: int) =
        match run.Info.Steps |> List.tryFind (fun s -> s.Index = step) with
        | Some info when info.Name <> "" -> $"{step} · {info.Name}"
        | _ -> string step

    /// The rows of the methods that go on from step to step.
    let private kept (run: ReportedRun) : Row list =
        run.Rows |> List.filter (fun r -> not (Roles.startsAgain run.Info.Roles r.Method))

    let forgetting (run: ReportedRun) : Section =
        let recall = kept run |> List.filter (fun r -> r.Metric = "r10")

        match recall |> List.choose _.Task |> List.distinct |> List.sort with
        | [] -> ReportText.nothing
        | tasks ->
            let figures =
                tasks
                |> List.map (fun task ->
                    task, Drawing.figure $"task-{task}" (fun () -> Charts.forgetting run.Styles "r10" task recall))

            [ yield!
                  ReportText.heading
                      "Forgetting, task by task"
                      "Recall@10 of each task over the steps; the upright line is the step that learns it. Left of the line is what other steps bring to it, right of it what they take away."
              div
                  [ _class "small" ]
                  [ for task, chart in figures ->
                        figure [] [ h3 [] [ str (stepName run task) ]; Page.plot false $"plot-{chart.Id}" chart ] ] ],
            List.map snd figures

    let stability (run: ReportedRun) : Section =
        let rows = kept run
        let valuesOf metric = rows |> List.filter (fun r -> r.Metric = metric) |> List.map _.Value
        let log = Charts.wide (valuesOf "deviation_rel")
        let several = not (valuesOf "deviation_rel").IsEmpty

        let figures =
            [ if not (valuesOf "bwt_r10").IsEmpty then
                  "Backward transfer of recall@10 after each step",
                  Drawing.figure "backward" (fun () -> Charts.backward run.Styles "r10" rows)

              if several then
                  "Relative deviation of old alignment scores after each step",
                  Drawing.figure "deviation" (fun () -> Charts.deviation run.Styles log rows)

              for metric, name in [ "learned_r10", "learned recall@10"; "r10", "final recall@10" ] do
                  if several && (rows |> List.exists (fun r -> r.Metric = metric && r.When = When.Final)) then
                      $"Stability against {name}",
                      Drawing.figure $"tradeoff-{metric}" (fun () -> Charts.tradeOff run.Styles log metric rows) ]

        if figures.IsEmpty then
            ReportText.nothing
        else
            [ yield!
                  ReportText.heading
                      "Stability and plasticity"
                      "Look for lines that stay near zero while later steps go on learning, and for methods in the upper left of the lower figures: old scores kept, new tasks learned. Methods that start again at every step are left out. A method can be stable merely because it learns little; learned recall@10 shows that, final recall@10 is what both together come to."
              div
                  [ _class "figures" ]
                  [ for name, chart in figures -> figure [] [ h3 [] [ str name ]; Page.plot false $"plot-{chart.Id}" chart ] ] ],
            List.map snd figures

    let certificates (run: ReportedRun) : Section =
        let rows = kept run |> List.filter (fun r -> r.When <> When.Final)
        let bounds = rows |> List.filter (fun r -> r.Metric = "bound_rel")

        if bounds.IsEmpty then
            ReportText.nothing
        else
            let figures =
                [ for i, method in List.indexed (Row.methods bounds) do
                      let own = rows |> List.filter (fun r -> r.Method = method)

                      let values =
                          own |> List.filter (fun r -> r.Metric = "bound_rel" || r.Metric = "deviation_rel") |> List.map _.Value

                      method,
                      Drawing.figure $"certificate-{i}" (fun () -> Charts.certificate run.Styles (Charts.wide values) method own) ]

            let groups = [ "largest over the tasks learned before", figures ]

            let watched =
                if run.Monitor.IsEmpty then
                    []
                else
                    [ Drawing.figure "monitor" (fun () -> Curves.monitor run.Styles run.Monitor) ]

            [ yield!
                  ReportText.heading
                      "Stability without the old data"
                      "Of an old task its second moments and the scores at its end are kept, and no row. They tell how far all its scores have moved, which lies on what is measured on the rows, and give a bound: the drift before the step plus the certificate of the step, the first and second order of its change."
              div
                  [ _class "figures" ]
                  [ for i, method in figures |> List.map fst |> contrast run |> List.indexed do
                        let first = figures |> List.find (fun (m, _) -> m = method) |> snd
                        Page.chooser true $"certificate-panel-{i}" "Method" first groups ]
              match Sentences.certified rows with
              | Some sentence -> p [ _class "finding" ] [ str sentence ]
              | None -> ()
              for chart in watched do
                  h3 [] [ str "Drift of old scores during training, largest over the old tasks" ]
                  Page.plot false $"plot-{chart.Id}" chart ],
            List.map snd figures @ watched

    let losses (run: ReportedRun) : Section =
        if run.Losses.IsEmpty then
            ReportText.nothing
        else
            let chart = Drawing.figure "losses" (fun () -> Curves.losses run.Styles run.Losses)

            [ yield!
                  ReportText.heading
                      "Training loss"
                      "Mean loss of every epoch; the upright lines are the ends of steps. Joint training happens once and stands in the last one. A method that is held back too much ends its steps higher than the others."
              Page.plot false "plot-losses" chart ],
            [ chart ]

    let spectra (run: ReportedRun) : Section =
        let keys = run.Spectra |> List.map (fun r -> r.Method, r.Step, r.Modality) |> List.distinct

        match keys with
        | [] -> ReportText.nothing
        | _ ->
            let byKey = run.Spectra |> List.groupBy (fun r -> r.Method, r.Step, r.Modality) |> Map.ofList

            let figures =
                keys
                |> List.mapi (fun i (method, step, modality) ->
                    (method, step, modality),
                    Drawing.figure $"spectrum-{i}" (fun () ->
                        Curves.spectrum method step modality byKey[(method, step, modality)]))

            let groups =
                figures
                |> List.groupBy (fun ((method, _, _), _) -> method)
                |> List.map (fun (method, own) ->
                    method, own |> List.map (fun ((_, step, modality), chart) -> $"{method} · step {step} · {modality}", chart))

            let firstMethod = groups |> List.map fst |> contrast run |> List.head
            let own = figures |> List.filter (fun ((method, _, _), _) -> method = firstMethod)
            let lastStep = own |> List.map (fun ((_, step, _), _) -> step) |> List.max
            let shown = own |> List.filter (fun ((_, step, _), _) -> step = lastStep) |> List.truncate 2

            [ yield!
                  ReportText.heading
                      "What is protected"
                      "Energy of the directions of old data at the start of a step, largest first: of a modality's inputs and of its partners' outputs (first seed). Thick is protected, the upright lines are the cuts. A cut in a steep fall leaks little; a cut on a plateau divides directions that matter alike."
              div
                  [ _class "figures" ]
                  [ for i, (_, first) in List.indexed shown ->
                        Page.chooser true $"spectrum-panel-{i}" "Method, step and modality" first groups ] ],
            List.map snd figures
