namespace Cmcl

open System
open System.Globalization
open Giraffe.ViewEngine

/// Everything that a report is made of.
type internal ReportedRun =
    {
        Info: RunInfo
        Rows: Row list
        Losses: LossRow list
        Spectra: SpectrumRow list
        Monitor: MonitorRow list
        Stream: string
        Measured: Measured
        /// In the order of the configuration, then of the rows; the rows are sorted by it.
        Methods: string list
        Styles: Map<string, MethodStyle>
    }

/// What a report says in words and tables.
[<RequireQualifiedAccess>]
module internal ReportText =
    /// A section that is not there.
    let nothing: Section = [], []

    /// A title, and what to look for.
    let heading (text: string) (explanation: string) = [ h2 [] [ str text ]; p [ _class "note" ] [ str explanation ] ]

    /// The row of methods that shows and hides their lines in all figures of a page.
    let legend (styles: Map<string, MethodStyle>) (methods: string list) : XmlNode =
        nav
            [ _class "methods"; attr "aria-label" "Methods shown in the figures" ]
            [ div
                  []
                  [ span [] [ str "Methods" ]
                    for method in methods do
                        button
                            [ _type "button"; attr "data-method" method; attr "aria-pressed" "true" ]
                            [ TableHtml.chip styles method; str method ] ] ]

    /// `2026-11-22 16:00 UTC` from an ISO time; anything else stays as it is.
    let private day (created: string) : string =
        match DateTimeOffset.TryParse(created, CultureInfo.InvariantCulture) with
        | true, time -> time.UtcDateTime.ToString("yyyy-MM-dd HH:mm 'UTC'", CultureInfo.InvariantCulture)
        | _ -> created

    let opening (run: ReportedRun) : XmlNode =
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
                             (Frobenius norms); zero is perfect stability. Grey rows are references: zero-shot does not train, joint learns all \
                             steps at once, individual starts again at every step, so that of it only the learned figures count." ] ]

    let summary (run: ReportedRun) : Section =
        let columns =
            [ "acc"; "bwt_acc"; "r1"; "r5"; "r10"; "bwt_r10"; "deviation_rel"; "learned_r10"; "seconds"; "bytes_state" ]
            |> List.map (Metric.find >> Check.get)

        let table = CompareTable.make columns run.Stream run.Measured |> CompareTable.withoutEmpty

        [ yield!
              heading
                  "Summary"
                  "After the last step, means over the tasks. Arrows say which way is better. Learned recall@10 is the recall of each task right after its own step (plasticity); seconds are preparing, training and finishing, all steps together. Hold the pointer over a heading for its formula."
          yield! TableHtml.table run.Styles table
          match Sentences.forgotten run.Stream run.Measured with
          | Some sentence -> p [ _class "finding" ] [ str sentence ]
          | None -> ()
          match Sentences.promises (Measured.methods run.Measured) with
          | Some sentence -> p [ _class "note" ] [ str sentence ]
          | None -> ()
          for method, seed, why in run.Info.Failures do
              p [ _class "failure" ] [ str $"Not finished: {method}, seed {seed}. {why}" ] ],
        []

    let steps (run: ReportedRun) : Section =
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

    let settings (run: ReportedRun) : Section =
        let methods = run.Info.Methods

        if methods.IsEmpty then
            nothing
        else
            let trained = methods |> List.filter (fun m -> not m.Settings.IsEmpty)
            let keys = methods |> List.collect (fun m -> List.map fst m.Settings) |> List.distinct

            let value key (m: MethodInfo) = m.Setting key

            let shared, own =
                keys |> List.partition (fun key -> trained |> List.map (value key) |> List.distinct |> List.length = 1)

            [ yield!
                  heading
                      "Settings"
                      "First what all methods that train share, then what differs; a dash means that the method has no such setting."
              Page.terms true [ for key in shared -> key, value key trained.Head |> Option.defaultValue "" ]
              if not own.IsEmpty then
                  Page.table
                      (own.Length + 1)
                      (List.map (fun (x: string) -> [ str x ]) ("method" :: own))
                      [ for m in trained ->
                            "", TableHtml.label m.Label :: [ for key in own -> [ str (value key m |> Option.defaultValue "–") ] ] ] ],
            []

    let repeat (run: ReportedRun) : Section =
        let info = run.Info

        [ yield! heading "How to repeat this run" "The same command on the same data gives the same figures, up to timing."
          if info.Command <> "" then
              pre [] [ code [] [ str info.Command ] ]
          Page.terms
              false
              [ "version", info.Version
                "seeds", String.Join(", ", info.Seeds)
                "numbers", String.Join(" on ", [ info.Dtype; info.Device ] |> List.filter ((<>) ""))
                "data", info.Source
                "digest", info.Digest
                yield! info.Machine ] ],
        []
