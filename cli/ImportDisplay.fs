/// How an import looks in a terminal; a log has its notes only.
module Cmcl.Cli.ImportDisplay

open System
open System.Diagnostics
open System.IO
open Spectre.Console
open Cmcl

/// Where an import is: the file that is read, rows of it that are written, and of how many, and since when it is read.
type private Place = { File: string; Sofar: int64; All: int64; Since: TimeSpan }

let private after (now: TimeSpan) (event: ImportEvent) (place: Place) : Place =
    match event with
    | ImportEvent.Rows(file, sofar, all) when file = place.File -> { place with Sofar = sofar; All = all }
    | ImportEvent.Rows(file, sofar, all) -> { File = file; Sofar = sofar; All = all; Since = now }
    | ImportEvent.Reading file -> { File = file; Sofar = 0L; All = 0L; Since = now }

/// `text.npy: 12,000 of 60,000 rows, 250,000 a second`.
let private sentence (now: TimeSpan) (place: Place) : string =
    let name = Path.GetFileName place.File
    let seconds = (now - place.Since).TotalSeconds

    if place.All <= 0L then
        $"{name}"
    else
        let number (n: int64) = n.ToString("N0", Globalization.CultureInfo.InvariantCulture)
        let rate = if seconds < 0.2 then "" else $", {number (int64 (float place.Sofar / seconds))} a second"
        $"{name}: {number place.Sofar} of {number place.All} rows{rate}"

/// Runs `work` with its progress on one line of a terminal, which is gone in the end.
let progress (quiet: bool) (work: (ImportEvent -> unit) -> 'a) : 'a =
    if quiet || Console.IsOutputRedirected || not AnsiConsole.Profile.Capabilities.Interactive then
        work ignore
    else
        let columns: ProgressColumn[] =
            [| SpinnerColumn()
               ProgressBarColumn(Width = Nullable 24)
               PercentageColumn()
               TaskDescriptionColumn(Alignment = Justify.Left) |]

        let watch = Stopwatch.StartNew()

        AnsiConsole
            .Progress()
            .AutoClear(true)
            .Columns(columns)
            .Start(fun context ->
                let bar = context.AddTask("starting", maxValue = 1.0)
                let mutable place = { File = ""; Sofar = 0L; All = 0L; Since = TimeSpan.Zero }

                work (fun event ->
                    place <- after watch.Elapsed event place
                    // A bar at its end is finished for good, and the next file will need it.
                    bar.Value <- min 0.999 (float place.Sofar / float (max 1L place.All))
                    bar.Description <- Markup.Escape(sentence watch.Elapsed place)))
