namespace Cmcl

open System
open System.Globalization
open System.IO
open Giraffe.ViewEngine

/// The report of a results folder: one HTML file that needs no network.
[<RequireQualifiedAccess>]
module Report =
    /// Everything that a report is made of.
    type private Run =
        {
            Info: RunInfo
            Rows: Row list
            Losses: LossRow list
            Spectra: SpectrumRow list
            /// In the order of the configuration, then of the rows; the rows are sorted by it.
            Methods: string list
            Styles: Map<string, MethodStyle>
        }

    /// A section's content and the figures it draws.
    type private Section = XmlNode list * Figure list

    let private nothing: Section = [], []

    let private heading (text: string) (explanation: string) = [ h2 [] [ str text ]; p [ _class "note" ] [ str explanation ] ]

    let private chip (run: Run) (method: string) = span [ _class "chip"; _style $"background:{run.Styles[method].Colour}" ] []

    let private legend (run: Run) : XmlNode =
        nav
            [ _class "methods"; attr "aria-label" "Methods shown in the figures" ]
            [ div
                  []
                  [ span [] [ str "Methods" ]
                    for method in run.Methods do
                        button
                            [ _type "button"; attr "data-method" method; attr "aria-pressed" "true" ]
                            [ chip run method; str method ] ] ]

    /// `2026-11-22 16:00 UTC` from an ISO time; anything else stays as it is.
    let private day (created: string) : string =
        match DateTimeOffset.TryParse(created, CultureInfo.InvariantCulture) with
        | true, time -> time.UtcDateTime.ToString("yyyy-MM-dd HH:mm 'UTC'", CultureInfo.InvariantCulture)
        | _ -> created

    let private opening (run: Run) : XmlNode =
        let info = run.Info

        let seeds =
            match run.Rows |> List.distinctBy _.Seed |> List.length with
            | 1 -> "one seed, so that there is no standard deviation"
            | n -> $"{n} seeds: mean ± sample standard deviation (n − 1)"

        let split = if info.Split = "" then "evaluation" else info.Split

        header
            [ _class "top" ]
            [ h1 [] [ str (if info.StreamName = "" then "Run" else $"Stream “{info.StreamName}”") ]
              p [ _class "meta" ] [ str $"Continual multimodal contrastive learning · {day info.Created}" ]
              if info.Description <> "" then
                  p [] [ str info.Description ]
              p
                  []
                  [ str
                        $"Each method learns the steps of the stream one after the other and is measured on the {split} rows of every task, \
                             before training and after each step. The figures are over {seeds}. Rates are in per cent. BWT, backward transfer, is \
                             what a task has gained or lost between the step that learned it and the end: below zero is forgetting. Relative \
                             deviation is how far the alignment scores of old training data have moved since they were learned, against their size \
                             (Frobenius norms); zero is perfect stability. Grey rows are references: zero-shot does not train, joint and individual \
                             do not learn continually." ] ]

    let private summary (run: Run) : Section =
        let columns = Summary.columns run.Rows
        let seeds = Summary.seeds run.Rows

        let cell (column: SummaryColumn) method =
            match Map.tryFind method column.Spreads with
            | None -> [ str "–" ]
            | Some spread when column.Best.Contains method -> [ strong [] [ str (column.Show spread) ] ]
            | Some spread -> [ str (column.Show spread) ]

        let arrow (column: SummaryColumn) =
            match column.Better with
            | Better.Higher -> "↑"
            | Better.Lower -> "↓"

        let row method =
            (if Theme.isReference method then "reference" else ""),
            [ [ chip run method; str method ]
              for column in columns do
                  cell column method
              [ str (string seeds[method]) ] ]

        let references, competing = run.Methods |> List.filter seeds.ContainsKey |> List.partition Theme.isReference

        [ yield!
              heading
                  "Summary"
                  "After the last step, means over the tasks. Arrows say which way is better; the best continual method of each column is bold. Learned recall@10 is the recall of each task right after its own step (plasticity); time is preparing, training and finishing, all steps together."
          Page.table
              1
              [ [ str "method" ]
                for column in columns do
                    [ str column.Title; span [ _class "unit" ] [ str $"{column.Unit} {arrow column}" ] ]
                [ str "seeds" ] ]
              (List.map row (competing @ references))
          match Summary.forgotten run.Rows with
          | Some sentence -> p [ _class "finding" ] [ str sentence ]
          | None -> () ],
        []

    /// The method to show first and the one to show beside it.
    let private contrast (methods: string list) : string list =
        let trained = methods |> List.filter (fun m -> not (Theme.isReference m))
        let preferred = [ "vanilla"; "dns" ] |> List.filter (fun m -> List.contains m trained)
        preferred @ trained @ methods |> List.distinct |> List.truncate 2

    let private rates = [ "r10", "recall@10"; "r1", "recall@1"; "acc", "accuracy" ]

    let private matrices (run: Run) : Section =
        let groups =
            [ for metric, name in rates do
                  let measured =
                      run.Rows
                      |> List.filter (fun r -> r.Metric = metric && (Results.index r.Task).IsSome && Double.IsFinite r.Value)

                  if not measured.IsEmpty then
                      let top = measured |> List.map _.Value |> List.max

                      name,
                      [ for method in run.Methods do
                            if measured |> List.exists (fun r -> r.Method = method) then
                                method, Charts.matrix (max top 0.01) metric method measured ] ]
            |> List.mapi (fun g (name, charts) ->
                name, charts |> List.mapi (fun i (method, chart) -> method, { Id = $"matrix-{g}-{i}"; Chart = chart }))

        match groups with
        | [] -> nothing
        | (_, shown) :: _ ->
            let starts = contrast (List.map fst shown)

            [ yield!
                  heading
                      "Every task after every step"
                      "Rows are steps (0 is before training), columns are tasks. The frame marks a task when it is learned: down from there a column fades if the task is forgotten, above it the task is still to come. Both panels have the same colour scale."
              div
                  [ _class "figures" ]
                  [ for i, method in List.indexed starts do
                        let first = shown |> List.find (fun (m, _) -> m = method) |> snd
                        Page.chooser false $"matrix-panel-{i}" "Metric and method" first groups ] ],
            groups |> List.collect (snd >> List.map snd)

    let private stepName (run: Run) (step: int) =
        match run.Info.Steps |> List.tryFind (fun s -> s.Index = step) with
        | Some info when info.Name <> "" -> $"{step} · {info.Name}"
        | _ -> string step

    let private forgetting (run: Run) : Section =
        let recall = run.Rows |> List.filter (fun r -> r.Metric = "r10")

        match recall |> List.choose (fun r -> Results.index r.Task) |> List.distinct |> List.sort with
        | [] -> nothing
        | tasks ->
            let figures =
                tasks
                |> List.map (fun task ->
                    task,
                    { Id = $"task-{task}"
                      Chart = Charts.forgetting run.Styles "r10" task recall })

            [ yield!
                  heading
                      "Forgetting, task by task"
                      "Recall@10 of each task over the steps; the upright line is the step that learns it. Left of the line is what other steps bring to it, right of it what they take away."
              div
                  [ _class "small" ]
                  [ for task, chart in figures ->
                        figure [] [ h3 [] [ str (stepName run task) ]; Page.plot false $"plot-{chart.Id}" chart ] ] ],
            List.map snd figures

    /// Do the values span more than a factor of thirty, so that a logarithmic axis shows more?
    let private spread (values: float list) : bool =
        match values |> List.filter (fun x -> x > 0.0) with
        | [] -> false
        | positive -> List.max positive > 30.0 * List.min positive

    let private stability (run: Run) : Section =
        let valuesOf metric = run.Rows |> List.filter (fun r -> r.Metric = metric) |> List.map _.Value
        let log = spread (valuesOf "deviation_rel")
        let several = not (valuesOf "deviation_rel").IsEmpty

        let figures =
            [ if not (valuesOf "bwt_r10").IsEmpty then
                  "Backward transfer of recall@10 after each step",
                  { Id = "backward"
                    Chart = Charts.backward run.Styles "r10" run.Rows }

              if several then
                  "Relative deviation of old alignment scores after each step",
                  { Id = "deviation"
                    Chart = Charts.deviation run.Styles log run.Rows }

              for metric, name in [ "learned_r10", "learned recall@10"; "r10", "final recall@10" ] do
                  if several && (run.Rows |> List.exists (fun r -> r.Metric = metric && r.Step = "final")) then
                      $"Stability against {name}",
                      { Id = $"tradeoff-{metric}"
                        Chart = Charts.tradeOff run.Styles log metric run.Rows } ]

        if figures.IsEmpty then
            nothing
        else
            [ yield!
                  heading
                      "Stability and plasticity"
                      "Look for lines that stay near zero while later steps go on learning, and for methods in the upper left of the lower figures: old scores kept, new tasks learned. A method can be stable merely because it learns little; learned recall@10 shows that, final recall@10 is what both together come to."
              div
                  [ _class "figures" ]
                  [ for name, chart in figures -> figure [] [ h3 [] [ str name ]; Page.plot false $"plot-{chart.Id}" chart ] ] ],
            List.map snd figures

    let private losses (run: Run) : Section =
        if run.Losses.IsEmpty then
            nothing
        else
            let chart =
                { Id = "losses"
                  Chart = Charts.losses run.Styles run.Losses }

            [ yield!
                  heading
                      "Training loss"
                      "Mean loss of every epoch; the upright lines are the ends of steps. A method that is held back too much ends its steps higher than the others."
              Page.plot false "plot-losses" chart ],
            [ chart ]

    let private spectra (run: Run) : Section =
        let keys = run.Spectra |> List.map (fun r -> r.Method, r.Step, r.Modality) |> List.distinct

        match keys with
        | [] -> nothing
        | _ ->
            let byKey = run.Spectra |> List.groupBy (fun r -> r.Method, r.Step, r.Modality) |> Map.ofList

            let figures =
                keys
                |> List.mapi (fun i (method, step, modality) ->
                    (method, step, modality),
                    { Id = $"spectrum-{i}"
                      Chart = Charts.spectrum method step modality byKey[(method, step, modality)] })

            let groups =
                figures
                |> List.groupBy (fun ((method, _, _), _) -> method)
                |> List.map (fun (method, own) ->
                    method, own |> List.map (fun ((_, step, modality), chart) -> $"{method} · step {step} · {modality}", chart))

            let firstMethod = groups |> List.map fst |> contrast |> List.head
            let own = figures |> List.filter (fun ((method, _, _), _) -> method = firstMethod)
            let lastStep = own |> List.map (fun ((_, step, _), _) -> step) |> List.max
            let shown = own |> List.filter (fun ((_, step, _), _) -> step = lastStep) |> List.truncate 2

            [ yield!
                  heading
                      "What is protected"
                      "Energy of the directions of old data at the start of a step, largest first: of a modality's inputs and of its partners' outputs (first seed). Thick is protected, the upright lines are the cuts. A cut in a steep fall leaks little; a cut on a plateau divides directions that matter alike."
              div
                  [ _class "figures" ]
                  [ for i, (_, first) in List.indexed shown ->
                        Page.chooser true $"spectrum-panel-{i}" "Method, step and modality" first groups ] ],
            List.map snd figures

    let private steps (run: Run) : Section =
        if run.Info.Steps.IsEmpty then
            nothing
        else
            [ yield! heading "The stream" "One step after the other; the rows of a step are matched pairs."
              Page.table
                  3
                  (List.map (fun (x: string) -> [ str x ]) [ "step"; "a"; "b"; "train"; "validation"; "test"; "accuracy" ])
                  [ for step in run.Info.Steps ->
                        "",
                        [ [ str $"{step.Index} · {step.Name}" ]
                          [ str step.A ]
                          [ str step.B ]
                          [ str (string step.Train) ]
                          [ str (string step.Validation) ]
                          [ str (string step.Test) ]
                          [ str (if step.Accuracy then "yes" else "no") ] ] ] ],
            []

    let private settings (run: Run) : Section =
        let methods = run.Info.Methods

        if methods.IsEmpty then
            nothing
        else
            let keys = methods |> List.collect (fun m -> List.map fst m.Settings) |> List.distinct

            let value key (m: MethodInfo) = m.Settings |> List.tryFind (fst >> (=) key) |> Option.map snd

            let shared, own =
                keys |> List.partition (fun key -> methods |> List.map (value key) |> List.distinct |> List.length = 1)

            [ yield!
                  heading
                      "Settings"
                      "First what all methods share, then what differs; a dash means that the method has no such setting."
              Page.terms [ for key in shared -> key, value key methods.Head |> Option.defaultValue "" ]
              if not own.IsEmpty then
                  Page.table
                      (own.Length + 1)
                      (List.map (fun (x: string) -> [ str x ]) ("method" :: own))
                      [ for m in methods ->
                            "", [ str m.Label ] :: [ for key in own -> [ str (value key m |> Option.defaultValue "–") ] ] ] ],
            []

    let private repeat (run: Run) : Section =
        let info = run.Info

        [ yield! heading "How to repeat this run" "The same command on the same data gives the same figures, up to timing."
          if info.Command <> "" then
              pre [] [ code [] [ str info.Command ] ]
          Page.terms
              [ "version", info.Version
                "seeds", String.Join(", ", info.Seeds)
                "numbers", String.Join(" on ", [ info.Dtype; info.Device ] |> List.filter ((<>) ""))
                "data", info.Source
                "digest", info.Digest
                yield! info.Machine ] ],
        []

    let private page (run: Run) : string =
        let parts =
            [ summary; matrices; forgetting; stability; losses; spectra; steps; settings; repeat ]
            |> List.map (fun part -> part run)
            |> List.filter (fun (nodes, _) -> not nodes.IsEmpty)

        let sections = [ for nodes, _ in parts -> section [] nodes ]

        let name = if run.Info.StreamName = "" then "Cmcl report" else $"Cmcl report: {run.Info.StreamName}"

        Page.render name [ opening run; legend run; main [] sections ] (List.collect snd parts)

    /// A table that a run may do without.
    let private optional (table: Result<'row list, Fault list>) : Result<'row list, Fault list> =
        match table with
        | Error [ Fault.Missing _ ] -> Ok []
        | other -> other

    /// The final rows of the file, and those that follow from its rows per step where the file has none.
    let private completed (rows: Row list) : Row list =
        rows @ Results.aggregates rows |> List.distinctBy (fun r -> r.Stream, r.Method, r.Seed, r.Step, r.Task, r.Metric)

    /// The report as HTML text, from the files of a results folder alone: `results.csv`, and as far as they are there
    /// `config.json`, `losses.csv` and `spectra.csv`. The same files give the same text.
    let build (folder: string) : Result<string, Fault list> =
        let info, rows = RunInfo.read folder, Results.read folder
        let losses, spectra = optional (Results.readLosses folder), optional (Results.readSpectra folder)

        match info, rows, losses, spectra with
        | Ok _, Ok [], Ok _, Ok _ -> Error [ Fault.Unreadable(Path.Combine(folder, "results.csv"), "it has no rows") ]
        | Ok info, Ok rows, Ok losses, Ok spectra ->
            let methods =
                [ yield! info.Methods |> List.map _.Label; yield! Charts.methods rows; yield! losses |> List.map _.Method ]
                |> List.distinct

            Ok(
                page
                    { Info = info
                      Rows = completed rows |> List.sortBy (fun r -> List.findIndex ((=) r.Method) methods)
                      Losses = losses
                      Spectra = spectra
                      Methods = methods
                      Styles = Theme.styles methods }
            )
        | _ ->
            let faults =
                function
                | Ok _ -> []
                | Error f -> f

            Error(List.concat [ faults info; faults rows; faults losses; faults spectra ])

    /// Writes the report into its folder as `report.html` and gives its path.
    let write (folder: string) : Result<string, Fault list> =
        let path = Path.Combine(folder, "report.html")

        build folder
        |> Result.bind (fun html -> Results.writeWhole path (fun file -> file.Write html))
        |> Result.map (fun () -> path)
