namespace Cmcl

open System.IO
open Giraffe.ViewEngine

/// The report of a results folder: one HTML file that needs no network.
[<RequireQualifiedAccess>]
module Report =
    let private page (run: ReportedRun) : string =
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

    /// A table that a run may do without.
    let private optional (table: Result<'row list, Fault list>) : Result<'row list, Fault list> =
        match table with
        | Error [ Fault.Missing _ ] -> Ok []
        | other -> other

    /// The final rows of the file, and those that follow from its rows per step where the file has none.
    let private completed (rows: Row list) : Row list =
        rows @ Results.aggregates rows |> List.distinctBy (fun r -> r.Stream, r.Method, r.Seed, r.Step, r.Task, r.Metric)

    /// The report as HTML text, from the files of a results folder alone: `results.csv`, and as far as they are there
    /// `config.json`, `losses.csv`, `spectra.csv` and `monitor.csv`. The same files give the same text.
    let build (folder: string) : Result<string, Fault list> =
        let info, rows = RunInfo.read folder, Results.read folder
        let losses, spectra = optional (Results.readLosses folder), optional (Results.readSpectra folder)
        let monitor = optional (Results.readMonitor folder)

        match info, rows, losses, spectra, monitor with
        | Ok _, Ok [], Ok _, Ok _, Ok _ -> Error [ Fault.Unreadable(Path.Combine(folder, "results.csv"), "it has no rows") ]
        | Ok info, Ok rows, Ok losses, Ok spectra, Ok monitor ->
            let methods =
                [ yield! info.Methods |> List.map _.Label; yield! Charts.methods rows; yield! losses |> List.map _.Method ]
                |> List.distinct

            Ok(
                page
                    { Info = info
                      Rows = completed rows |> List.sortBy (fun r -> List.findIndex ((=) r.Method) methods)
                      Losses = losses
                      Spectra = spectra
                      Monitor = monitor
                      Methods = methods
                      Styles = Theme.styles methods }
            )
        | _ ->
            let faults =
                function
                | Ok _ -> []
                | Error f -> f

            Error(List.concat [ faults info; faults rows; faults losses; faults spectra; faults monitor ])

    /// Writes the report into its folder as `report.html` and gives its path.
    let write (folder: string) : Result<string, Fault list> =
        let path = Path.Combine(folder, "report.html")

        build folder
        |> Result.bind (fun html -> Results.writeWhole path (fun file -> file.Write html))
        |> Result.map (fun () -> path)
