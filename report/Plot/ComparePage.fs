namespace Cmcl

open System
open Giraffe.ViewEngine

/// The page of a comparison: one HTML file that needs no network.
[<RequireQualifiedAccess>]
module ComparePage =
    /// The page's text has no section of its own for it.
    let private note (text: string) = p [ _class "note" ] [ str text ]

    /// Room for a line a name.
    let private tall (names: string list) (content: XmlNode) : XmlNode =
        div [ _class "tall"; _style $"--tall:{Theme.namesHeight names}px" ] [ content ]

    let private drawFrontier (styles: Map<string, MethodStyle>) (stream: string) (m: Measured) (id: string) =
        match Frontier.points stream m with
        | points when points.Length < 2 -> None
        | points ->
            let figure =
                Drawing.figure id (fun () -> CompareCharts.frontier styles (1140.0, 520.0) (CompareCharts.levels stream m) points)

            Some(points, div [ _class "tall"; _style "--tall:520px" ] [ Page.plot false $"plot-{id}" figure ], [ figure ])

    let private frontier styles (m: Measured) stream id : Section =
        match drawFrontier styles stream m id with
        | None -> ReportText.nothing
        | Some(points, node, figures) ->
            let still = points |> List.filter (fun p -> p.Deviation.Mean <= 0.0) |> List.map _.Method

            [ yield!
                  ReportText.heading
                      "Stability and what it is worth"
                      "Recall@10 after the last step against how far the scores of old training rows have moved. Up and to the left is better; bars are ± one standard deviation, diamonds the dual-sided null-space projection and its variants. A method below and to the right of the grey line is beaten in both by one on it. Levels are bounds."
              node
              match Frontier.sentence points with
              | Some sentence -> p [ _class "finding" ] [ str sentence ]
              | None -> ()
              match Sentences.promises (Measured.methods m) with
              | Some sentence -> note sentence
              | None -> ()
              if not still.IsEmpty && still.Length < points.Length then
                  let names = String.Join(", ", still)
                  note $"Without any deviation: {names}; a logarithmic axis has no place for it." ],
            figures

    let private transfer styles (m: Measured) stream id : Section =
        let charts =
            [ for name, words in [ "bwt_r10", "Backward transfer of recall@10"; "bwt_acc", "Backward transfer of accuracy" ] do
                  let metric = Metric.find name |> Check.get

                  let rows =
                      [ for label in Measured.competing m do
                            match Measured.spread stream label metric m with
                            | Some s -> label, s
                            | None -> () ]

                  if not rows.IsEmpty then
                      let id = $"{id}-{name}"
                      let figure = Drawing.figure id (fun () -> CompareCharts.metric styles metric rows)
                      words, tall (List.map fst rows) (Page.plot false $"plot-{id}" figure), figure ]

        if charts.IsEmpty then
            ReportText.nothing
        else
            [ yield!
                  ReportText.heading
                      "What was forgotten"
                      "What tasks have gained or lost between the step that learned them and the end: left of the upright line is forgetting. Bars are ± one standard deviation. A method can forget little because it learned little: read it beside the final figures."
              div [ _class "figures" ] [ for words, node, _ in charts -> figure [] [ h3 [] [ str words ]; node ] ] ],
            charts |> List.map (fun (_, _, figure) -> figure)

    let private courses styles against (m: Measured) stream id : Section =
        match CompareCharts.courses stream m with
        | courses when courses |> List.forall (fun (_, points) -> points.Length < 3) -> ReportText.nothing
        | courses ->
            let levels = CompareCharts.levels stream m

            let ceiling =
                levels
                |> List.map fst
                |> Roles.first (Measured.roles m) Role.Ceiling
                |> Option.bind (fun name -> List.tryFind (fst >> (=) name) levels)
                |> Option.map (fun (_, s) -> s.Mean)

            let values =
                (courses |> List.collect snd |> List.map (fun (_, s) -> 100.0 * s.Mean))
                @ [ for y in Option.toList ceiling -> 100.0 * y ]
                |> List.filter System.Double.IsFinite

            let room = 0.08 * (List.max values - List.min values) + 0.5
            let range = List.min values - room, List.max values + room

            let drawn = List.map fst courses
            let baseline = Roles.first (Measured.roles m) Role.Baseline drawn |> Option.toList
            let grey = baseline @ [ against ] |> List.distinct |> List.filter (fun name -> List.contains name drawn)

            let figures =
                [ for i, (label, points) in List.indexed courses ->
                      let behind =
                          [ for name, other in courses do
                                if name <> label && List.contains name grey then
                                    other ]

                      label, Drawing.figure $"{id}-{i}" (fun () -> CompareCharts.course styles range ceiling behind label points) ]

            let greyNames = String.Join(" and ", grey)
            let greyWords = if grey.IsEmpty then "" else $" Grey are {greyNames}."
            let levelWords = if ceiling.IsSome then " The level is joint training." else ""

            [ yield!
                  ReportText.heading
                      "Recall@10 over the steps"
                      $"Per cent, mean over all tasks after each step, those to come among them: always the same tasks, from zero-shot (step 0) to the figure in the table.{greyWords}{levelWords}"
              div
                  [ _class "small" ]
                  [ for label, chart in figures -> figure [] [ h3 [] [ str label ]; Page.plot false $"plot-{chart.Id}" chart ] ] ],
            List.map snd figures

    let private differences styles (metrics: Metric list) against (m: Measured) stream id : Section =
        let extra = [ "gap"; "learned_r10" ] |> List.map (Metric.find >> Check.get)
        let asked = metrics @ extra |> List.distinctBy _.Name
        let all = Differences.all asked against m |> List.filter (fun d -> d.Stream = stream)

        let choices =
            [ for metric in asked do
                  match all |> List.filter (fun d -> d.Metric.Name = metric.Name) with
                  | [] -> ()
                  | own ->
                      let id = $"{id}-{metric.Name}"

                      metric,
                      [ for d: Difference in own -> d.Method ],
                      Drawing.figure id (fun () -> CompareCharts.differences styles against metric own) ]

        match choices with
        | [] -> ReportText.nothing
        | _ ->
            let first =
                choices
                |> List.tryFind (fun (metric, _, _) -> metric.Name = "r10")
                |> Option.defaultValue choices.Head
                |> fun (_, _, figure) -> figure

            let splits = (Comparison.splits stream m.Comparison).Length
            let unit = if splits > 1 then "split" else "seed"
            let counts = all |> List.map _.Over.Count |> List.distinct |> List.sort |> List.map string
            let countWords = String.Join(" or ", counts)
            let words = if counts = [ "1" ] then $" With one {unit} there are no intervals." else ""

            [ yield!
                  ReportText.heading
                      $"Differences to {against}"
                      $"Each method less {against}, mean over {countWords} paired {unit}s with its 95 %% interval.{words}"
              tall
                  (choices |> List.map (fun (_, names, _) -> names) |> List.maxBy List.length)
                  (Page.chooser
                      false
                      $"plot-{id}"
                      "Metric"
                      first
                      [ "metric", [ for metric, _, figure in choices -> metric.Title.Replace('_', ' '), figure ] ])
              match Metric.find "r10" |> Result.map (fun metric -> Differences.sentence metric all) with
              | Ok(Some sentence) -> p [ _class "finding" ] [ str sentence ]
              | _ -> ()
              note (Differences.covers splits) ],
            choices |> List.map (fun (_, _, figure) -> figure)

    let private spread (metrics: Metric list) (m: Measured) stream : Section =
        let splits = (Comparison.splits stream m.Comparison).Length
        let orders = m.Comparison.Orders

        if orders < 2 && splits < 2 then
            ReportText.nothing
        else
            let all = SpreadParts.all metrics m |> List.filter (fun s -> s.Stream = stream)
            let shown = metrics |> List.filter (fun metric -> all |> List.exists (fun s -> s.Metric.Name = metric.Name))

            let cell (s: SpreadParts) =
                let part sd =
                    sd |> Option.map (fun sd -> Metric.spread s.Metric { Mean = s.Mean; Sd = Some sd; Count = s.Cells } |> snd)

                let words sd = part sd |> Option.flatten |> Option.defaultValue "–"

                let parts =
                    [ s.SdSeeds
                      if orders > 1 then
                          s.SdOrders
                      if splits > 1 then
                          s.SdSplits ]

                [ str (Metric.shown s.Metric s.Mean)
                  span [ _class "unit" ] [ str (String.Join(" | ", List.map words parts)) ] ]

            let several =
                [ if splits > 1 then
                      $"{splits} splits of the items"
                  if orders > 1 then
                      $"{orders} orders of the steps" ]

            let below =
                [ "that over seeds within one order of one split"
                  if orders > 1 then
                      "that over orders within one split"
                  if splits > 1 then
                      "that over splits" ]

            [ yield!
                  ReportText.heading
                      (String.Join(", ", several))
                      $"""The mean over all; below it standard deviations: {String.Join(", ", below)}. {SpreadParts.covers}"""
              Page.table
                  1
                  ([ str "method" ] :: [ for metric in shown -> TableHtml.title metric ])
                  [ for name in Measured.methods m ->
                        (if Measured.isBound name m then "reference" else ""),
                        TableHtml.label name
                        :: [ for metric in shown ->
                                 all
                                 |> List.tryFind (fun s -> s.Method = name && s.Metric.Name = metric.Name)
                                 |> Option.map cell
                                 |> Option.defaultValue [ str "–" ] ] ] ],
            []

    let private opening (m: Measured) : XmlNode =
        let c = m.Comparison
        let names = String.Join(", ", c.Streams)
        let count n one many = if n = 1 then $"one {one}" else $"{n} {many}"

        let splits =
            match c.Streams |> List.map (fun stream -> (Comparison.splits stream c).Length) |> List.max with
            | 1 -> ""
            | n -> $", {n} splits of the items"

        header
            [ _class "top" ]
            [ h1 [] [ str $"Methods compared on {names}" ]
              p
                  [ _class "meta" ]
                  [ str
                        $"""cmcl {Record.cmclVersion} · {count c.Methods.Length "method" "methods"}, {count c.Seeds.Length "seed" "seeds"}, {count c.Orders "order" "orders"} of the steps{splits}""" ]
              p
                  []
                  [ str
                        "Each method learns the steps of a stream one after the other. Rates are means over tasks after the last step, in per cent. BWT, backward transfer, is what tasks have gained or lost since they were learned. Deviation is how far alignment scores of old training rows have moved since, against their size. Hold the pointer over a heading for its formula." ]
              match Measured.missing m with
              | 0 -> ()
              | n ->
                  p [ _class "failure" ] [ str $"{n} of {c.Cells.Length} cells are not finished; the figures are of the others." ] ]

    let private failures (m: Measured) : Section =
        match Measured.failures m with
        | [] -> ReportText.nothing
        | failed ->
            [ yield! ReportText.heading "What failed" "These cells ended early, and would again; means are over the others."
              for cell, message in failed do
                  p [ _class "failure" ] [ str $"{cell.Stream}, {cell.Method}, seed {cell.Seed}, order {cell.Order}: {message}" ] ],
            []

    let private repeat (m: Measured) : Section =
        let used = Metric.all

        [ yield!
              ReportText.heading
                  "How to repeat this"
                  "The same command on the same data gives the same figures, up to timing. What is finished is not run again."
          if m.Comparison.Command <> "" then
              pre [] [ code [] [ str m.Comparison.Command ] ]
          details
              []
              [ summary [] [ str "What every metric is" ]
                Page.terms false [ for metric in used -> metric.Name, metric.Convention ] ] ],
        []

    let internal render (metrics: Metric list) (trim: bool) (against: string option) (m: Measured) : Rendered =
        let labels = Measured.methods m
        let styles = CompareCharts.styles (Measured.roles m) labels

        let ofStream i stream =
            let several = m.Comparison.Streams.Length > 1
            let heading = if several then $"Stream “{stream}”" else "The table"

            let made =
                lazy
                    (let made = CompareTable.make metrics stream m
                     if trim then CompareTable.withoutEmpty made else made)

            let part title (make: unit -> Section) = Drawing.section (if several then $"{title}: {stream}" else title) make

            [ Drawing.section heading (fun () -> h2 [] [ str heading ] :: TableHtml.table styles made.Value, [])
              part "Stability and what it is worth" (fun () -> frontier styles m stream $"frontier-{i}")
              part "What was forgotten" (fun () -> transfer styles m stream $"transfer-{i}")
              part "Recall@10 over the steps" (fun () -> courses styles (Option.defaultValue "" against) m stream $"course-{i}")
              match against with
              | Some against ->
                  part $"Differences to {against}" (fun () ->
                      differences styles made.Value.Metrics against m stream $"difference-{i}")
              | None -> ()
              part "Where the spread comes from" (fun () -> spread made.Value.Metrics m stream) ]

        let names = String.Join(", ", m.Comparison.Streams)

        Page.ofSections
            $"Cmcl comparison: {names}"
            [ Drawing.node "Methods compared" (fun () -> opening m)
              Drawing.node "Methods" (fun () -> ReportText.legend styles labels) ]
            "compared"
            [ yield! m.Comparison.Streams |> List.mapi ofStream |> List.concat
              Drawing.section "What failed" (fun () -> failures m)
              Drawing.section "How to repeat this" (fun () -> repeat m) ]

    /// The page as HTML text, with these columns in its tables and differences to this method. What cannot be drawn is said in its place.
    let build (metrics: Metric list) (trim: bool) (against: string option) (m: Measured) : string =
        Page.html (render metrics trim against m)
