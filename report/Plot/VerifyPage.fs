namespace Cmcl

open System
open System.IO
open Giraffe.ViewEngine

/// The page of a verification: one HTML file that needs no network.
[<RequireQualifiedAccess>]
module VerifyPage =
    let private opening (r: Request) (v: Verification) : XmlNode =
        let seed, dtype = r.Seeds.Head, r.Plans.Head.Settings.Dtype

        header
            [ _class "top" ]
            [ h1 [] [ str $"The theory on “{r.Stream.Name}”" ]
              p [ _class "meta" ] [ str $"cmcl {Record.cmclVersion} · {dtype}, seed {seed} · {r.Command}" ]
              p
                  []
                  [ str
                        "Runs of DNS were held, step by step, against what its theory says of them. Numbers are of training rows, which the theory speaks \
                         of, and are computed in float64 whatever the runs were made in. A condition that must hold follows from a theorem and \
                         from how the run was made; the others are reported, since the theory promises nothing there." ]
              p [ _class (if v.Broken.IsEmpty then "finding" else "failure") ] [ str v.Result ]
              ul [ _class "meta" ] [ for sentence in v.Remarks -> li [] [ str sentence ] ] ]

    let private conditions (v: Verification) : XmlNode list =
        let mark (verdict: Verdict) =
            match Verdict.word verdict with
            | "holds" -> [ str $"{verdict.Held}/{verdict.Places} ✓" ]
            | "broken" -> [ strong [] [ str $"{verdict.Held}/{verdict.Places} ✗" ] ]
            | "approximate" -> [ str "approximate" ]
            | word -> [ str $"{verdict.Held}/{verdict.Places} {word}" ]

        [ yield!
              ReportText.heading
                  "Every condition"
                  "One line a condition, at its worst place: the value, the bound that the theory gives it, and what rounding may add. Grey lines are reported, not promised."
          Page.table
              3
              (List.map (fun (title: string) -> [ str title ]) [ "condition"; "holds"; "worst at"; "value"; "bound"; "tolerance" ])
              [ for verdict in Verdict.ofFindings v.Findings ->
                    let c = verdict.Worst.Condition

                    (if verdict.Must then "" else "reference"),
                    [ [ str verdict.Name ]
                      mark verdict
                      [ str $"{verdict.Worst.Run}, {c.Where}" ]
                      [ str (Verification.number c.Value) ]
                      [ str (Verification.number c.Bound) ]
                      [ str (Verification.number c.Tolerance) ] ] ] ]

    /// A section of charts under titles; left out where there is nothing to draw.
    let private figures title note (charts: (string * XmlNode * Figure list) list) : Section =
        if charts.IsEmpty then
            ReportText.nothing
        else
            [ yield! ReportText.heading title note
              div [ _class "figures" ] [ for name, node, _ in charts -> HtmlElements.figure [] [ h3 [] [ str name ]; node ] ] ],
            charts |> List.collect (fun (_, _, figures) -> figures)

    let private plain title id chart =
        let figure = Drawing.figure id chart
        title, Page.plot false $"plot-{id}" figure, [ figure ]

    /// One chart for each run, to choose from.
    let private perRun title id (make: string -> Point list -> Plotly.NET.GenericChart) (points: Point list) =
        let runs = points |> List.map _.Run |> List.distinct

        let choices = [ for i, run in List.indexed runs -> run, Drawing.figure $"{id}-{i}" (fun () -> make run points) ]

        title, Page.chooser true $"plot-{id}" "Run" (snd choices.Head) [ "run", choices ], List.map snd choices

    let private sections (v: Verification) (styles: Map<string, MethodStyle>) : Section list =
        let points figure = v.Points |> List.filter (fun p -> p.Figure = figure)
        let deviation, energy, leakage = points "deviation", points "energy", points "leakage"
        let plasticity, order, map = points "plasticity", points "order", points "map"

        [ Drawing.section "Stability" (fun () ->
              figures
                  "Stability"
                  "Look for solid lines below dotted ones of their colour: what was measured never passes the bound that is known without old rows: drift before the step plus its certificate. At 1e−16 scores are what they were, to rounding."
                  [ if not deviation.IsEmpty then
                        plain "Largest deviation of old scores (solid) and its bound (dotted)" "deviation" (fun () ->
                            VerifyCharts.deviation styles deviation)
                    if not energy.IsEmpty then
                        plain "Energy left out by the cuts against what a step moved" "energy" (fun () ->
                            VerifyCharts.energy styles energy)
                    if not leakage.IsEmpty then
                        plain "Leakage of each step's change out of its constraint set" "leakage" (fun () ->
                            VerifyCharts.leakage styles leakage) ])
          Drawing.section "Plasticity" (fun () ->
              figures
                  "Plasticity"
                  "A gradient step descends while o(η)/η stays below ‖Δ‖². The paper's formula takes the loss after the optimizer's step but the first order of a gradient step. Under AdamW it is negative, that step being much longer, which says nothing of o(η); of the change that was made and of a gradient step it is in the second figure."
                  [ if not plasticity.IsEmpty then
                        plain "As the paper plots it" "plotted" (fun () -> VerifyCharts.asPlotted styles plasticity)

                        perRun
                            "Sizes of o(η)/η, and what a gradient step has to stay below"
                            "remainders"
                            (VerifyCharts.remainders styles)
                            plasticity
                    if not order.IsEmpty then
                        perRun "o(η) of steps of many lengths, from each step's start" "order" VerifyCharts.order order ])
          Drawing.section "What each way of protecting keeps" (fun () ->
              match map with
              | [] -> ReportText.nothing
              | first :: _ ->
                  let charts =
                      [ for series, title in
                            [ "energy", "μᵢ λⱼ, powers of ten"
                              "block", "block keeps"
                              "product", "product keeps"
                              "soft", "soft keeps"
                              "trust", "trust keeps" ] do
                            let figure = Drawing.figure $"map-{series}" (fun () -> VerifyCharts.map series map)

                            title, Page.plot false $"plot-{figure.Id}" figure, figure ]

                  [ yield!
                        ReportText.heading
                            "What each way of protecting keeps"
                            $"At {first.Where}: across are the directions of old inputs, down those of its partners' old outputs, both by falling energy. The first map is what a change of an entry does to old scores; the others are the share of an update that is kept, from none (as pale as the page) to all (the strongest colour), and should be pale where the first is strong. Trust acts on a change as long as the weight, spread evenly."
                    div
                        [ _class "small" ]
                        [ for title, node, _ in charts -> HtmlElements.figure [] [ h3 [] [ str title ]; node ] ] ],
                  charts |> List.map (fun (_, _, figure) -> figure)) ]

    let internal render (r: Request) (v: Verification) : Rendered =
        let runs = r.Plans |> List.map _.Label
        // Findings and points may be of runs that are no plan of the request.
        let styles = Theme.styles (runs @ [ for p in v.Points -> p.Run ])

        Page.ofSections
            $"Cmcl verification: {r.Stream.Name}"
            [ Drawing.node "The theory" (fun () -> opening r v)
              Drawing.node "Methods" (fun () -> ReportText.legend styles runs) ]
            ""
            (Drawing.section "Every condition" (fun () -> conditions v, []) :: sections v styles)

    /// The page as HTML text. What cannot be drawn is said in its place.
    let build (r: Request) (v: Verification) : string = Page.html (render r v)

    /// Writes the page as `verify.html` into the request's folder and gives its path. What of it could not be drawn is said on standard
    /// error, too.
    let write (r: Request) (v: Verification) : Result<string, Fault list> =
        Page.write (Path.Combine(r.Out, "verify.html")) (render r v)
