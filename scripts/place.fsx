// Where to project? The gradient before the optimizer (the paper), the optimizer's update, or nowhere, since training happens in the
// eigenbasis of old data; with both sides protected or the inputs only; with the second order left in or not (exact). What each leaves of
// old scores where the null space is exact (synthetic, float64), and what it keeps and learns where it is not (emoji):
//
//     dotnet fsi scripts/place.fsx
#load "options.fsx"

open Cmcl
open Options

let places =
    [ Dns.defaults ]
    |> Config.over Dns.place [ Place.Gradient; Place.Update; Place.Eigenbasis ]
    |> Config.over Dns.sides [ Sides.Dual; Sides.Input ]
    |> Config.over Dns.exact [ false; true ]
    |> List.filter Config.isPossible

/// With plain fine-tuning and the published code beside them.
let measured (stream: Stream) (asked: Asked) : StudyResult =
    let exact = if stream.Name = "synthetic" then [ ("dtype", "float64") ] else []

    { asked with
        Set = exact @ asked.Set |> List.distinctBy fst }
    |> Script.study stream places
    |> Run.method Baseline.vanilla
    |> Run.method Dns.published
    |> Run.go

let largest (result: StudyResult) label =
    Report.largest "deviation_rel" label result |> Option.defaultValue { Mean = nan; Sd = None; Count = 0 }

let table (result: StudyResult) : TextTable =
    let worst = [ for label in result.Methods -> (largest result label).Mean.ToString "0.0e-0" ]

    Report.settings [ "gap"; "r10"; "bwt_r10"; "deviation_rel" ] result
    |> TextTable.column "largest deviation" worst
    |> TextTable.note
        "Largest deviation: over old tasks and steps, mean over seeds. Loss_new: InfoNCE on a step's own rows right after it. Settings without a row exclude each other."

/// `update, dual, exact` of a label.
let short (label: string) : string =
    label
        .Replace("dns[place=", "")
        .Replace("sides=", "")
        .Replace(";exact=off", "")
        .Replace("exact=on", "exact")
        .TrimEnd(']')
        .Replace(";", ", ")

/// A line a place and side, from the plain to the exact form where there are both.
let lines (result: StudyResult) : (string * string list) list =
    [ for name, own in result.Methods |> List.groupBy (short >> _.Replace(", exact", "")) -> name, own ]

Script.run Script.studies (fun asked ->
    let names =
        match asked.Stream with
        | Some name -> [ name ]
        | None when asked.Small -> [ "synthetic" ]
        | None -> [ "synthetic"; "emoji" ]

    let results = [ for name in names -> measured (Stream.load name) asked ]
    let sheet = Script.sheet "Place of projection" "What each place leaves of old scores." results asked

    let page =
        (sheet, results)
        ||> List.fold (fun sheet result ->
            let dots = [ for label in result.Methods -> short label, largest result label ]

            sheet
            |> Sheet.chart
                $"{result.Stream}: largest deviation of old scores"
                "Relative, over old tasks and steps; left is more stable. 1e-16 is rounding in float64."
                (Plot.dots ("largest relative deviation", true) dots)
            |> Sheet.chart
                $"{result.Stream}: stability against recall"
                "A point a setting; of lines with two points the left one is exact."
                (Plot.curves "deviation_rel" "r10" (lines result) result))

    Script.finish results (List.map table results) page asked)
