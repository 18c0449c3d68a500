namespace Cmcl

open System.IO

/// The report of a results folder: one HTML file that needs no network.
[<RequireQualifiedAccess>]
module Report =
    let private parts: (string * (ReportedRun -> Section)) list =
        [ "Summary", ReportText.summary
          "Every task after every step", ReportFigures.matrices
          "Forgetting, task by task", ReportFigures.forgetting
          "Stability and plasticity", ReportFigures.stability
          "Stability without the old data", ReportFigures.certificates
          "Training loss", ReportFigures.losses
          "What is protected", ReportFigures.spectra
          "The stream", ReportText.steps
          "Settings", ReportText.settings
          "How to repeat this run", ReportText.repeat ]

    let private whole (run: ReportedRun) : Rendered =
        let name = if run.Info.StreamName = "" then "Cmcl report" else $"Cmcl report: {run.Info.StreamName}"

        Page.ofSections
            name
            [ Drawing.node name (fun () -> ReportText.opening run)
              Drawing.node "Methods" (fun () -> ReportText.legend run.Styles run.Methods) ]
            ""
            [ for title, part in parts -> Drawing.section title (fun () -> part run) ]

    let internal render (result: StudyResult) : Rendered =
        let methods = result.Methods

        whole
            { Info = result.Info
              Rows = result.Rows |> List.sortBy (fun r -> List.findIndex ((=) r.Method) methods)
              Losses = result.Losses
              Spectra = result.Spectra
              Monitor = result.Monitor
              Stream = result.Stream
              Measured = StudyResult.measured result
              Methods = methods
              Styles = Theme.stylesOf result.Info.Roles methods }

    /// The report of a result as HTML text: one page that needs no network. The same result gives the same text. What cannot be drawn
    /// is said in its place.
    let page (result: StudyResult) : string = Page.html (render result)

    /// The report as HTML text, from the files of a results folder alone (`StudyResult.read`). The same files give the same text.
    let build (folder: string) : Result<string, Fault list> = StudyResult.read folder |> Result.map page

    /// Writes the report into its folder as `report.html` and gives its path. What of it could not be drawn is said on standard error, too.
    let write (folder: string) : Result<string, Fault list> =
        StudyResult.read folder |> Result.bind (render >> Page.write (Path.Combine(folder, "report.html")))
