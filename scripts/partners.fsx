// Do old partner outputs have to be those of today? Scores are protected against old partners' outputs, under the weights that they were learned with
// (the paper: nothing to work out again, but stale) or under those at the start of the step. Projected updates, the eigenbasis, soft and trust with both:
//
//     dotnet fsi scripts/partners.fsx
#load "options.fsx"

open Cmcl
open Options

let both (config: Config<'m>) : Config<AnyOptions> list =
    [ config ] |> Config.over Dns.partner [ PartnerOutputs.Current; PartnerOutputs.AtLearning ] |> List.map Config.any

let methods = both (Dns.defaults |> Dns.place Place.Update) @ both Dns.defaults @ both Dns.soft @ both Dns.trust

/// Each method with its label under current and under stale outputs.
let pairs (result: StudyResult) : (string * string list) list =
    [ for current in result.Methods do
          if current.Contains "partner=current" then
              current.Replace(";partner=current", "").Replace("[partner=current]", ""),
              [ current; current.Replace("partner=current", "partner=at-learning") ] ]

/// How many times as large deviation is with stale outputs.
let ratios (result: StudyResult) : TextTable =
    let deviation, measured = Metric.find "deviation_rel" |> Check.get, StudyResult.measured result

    let mean label = Measured.spread result.Stream label deviation measured |> Option.map _.Mean |> Option.defaultValue nan

    [ for name, labels in pairs result -> [ name; (mean labels[1] / mean labels[0]).ToString "0.000" ] ]
    |> TextTable.make "deviation under stale outputs over that under current ones" [ "method"; "times" ]

Script.run Script.studies (fun asked ->
    let result = Script.study (Script.stream "emoji" asked) methods asked |> Run.go

    Script.sheet "Partner outputs" "Stale against current outputs of old partners." [ result ] asked
    |> Sheet.chart
        "Stability against recall"
        "From current (left) to stale outputs, a line a method."
        (Plot.curves "deviation_rel" "r10" (pairs result) result)
    |> Sheet.chart "Deviation of old scores after every step" "Mean over the tasks learned before." (Plot.deviation result)
    |> fun sheet ->
        Script.finish
            [ result ]
            [ Report.tableOf [ "gap"; "r10"; "bwt_r10"; "deviation_rel" ] result; ratios result ]
            sheet
            asked)
