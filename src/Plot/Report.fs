namespace Cmcl

open System.IO
open Giraffe.ViewEngine

/// The report of a results folder: one HTML file that needs no network.
[<RequireQualifiedAccess>]
module Report =
    let private whole (run: ReportedRun) : string =
        let parts =
            [ ReportText.summary
              ReportFigures.matrices
              ReportFigures.forgetting
              ReportFigures.stability
              ReportFigures.certificates
              ReportFigures.losses
              ReportFigures.spectra
              ReportText.steps
              ReportText.settings
              ReportText.repeat ]
            |> List.map (fun part -> part run)
            |> List.filter (fun (nodes, _) -> not nodes.IsEmpty)

        let sections = [ for nodes, _ in parts -> section [] nodes ]

        let name = if run.Info.StreamName = "" then "Cmcl report" else $"Cmcl report: {run.Info.StreamName}"

        Page.render
            name
            [ ReportText.opening run; ReportText.legend run.Styles run.Methods; main [] sections ]
            (List.collect snd parts)

    /// The report of a result as HTML text: one page that needs no network. The same result gives the same text.
    let page (result: StudyResult) : string =
        let methods = result.Methods

        whole
            { Info = result.Info
              Rows = result.Rows |> List.sortBy (fun r -> List.findIndex ((=) r.Method) methods)
              Losses = result.Losses
              Spectra = result.Spectra
              Monitor = result.Monitor
              Methods = methods
              Styles = Theme.stylesOf result.Info.Roles methods }

    /// The report as HTML text, from the files of a results folder alone (`StudyResult.read`). The same files give the same text.
    let build (folder: string) : Result<string, Fault list> = StudyResult.read folder |> Result.map page

    /// Writes the report into its folder as `report.html` and gives its path.
    let write (folder: string) : Result<string, Fault list> =
        let path = Path.Combine(folder, "report.html")

        build folder
        |> Result.bind (fun html -> Results.writeWhole path (fun file -> file.Write html))
        |> Result.map (fun () -> path)
