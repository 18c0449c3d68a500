// Do old partner outputs have to be those of today? Scores are protected against old partners' outputs, under the weights that they were learned with
// (the paper: nothing to work out again, but stale) or under those at the start of the step. Projected updates, the eigenbasis, soft and trust with both:
//
//     dotnet fsi scripts/partners.fsx
#load "options.fsx"

open Cmcl
open Options

let both (config: Config<'m>) : Config<IAny> list =
    [ config ] |> Config.over Dns.partner [ PartnerOutputs.Current; PartnerOutputs.AtLearning ] |> List.map Config.any

let methods = both (Dns.defaults |> Dns.place Place.Update) @ both Dns.defaults @ both Dns.soft @ both Dns.trust

/// How much larger a metric is with stale outputs than with current ones, of the same seeds.
let ratio (result: StudyResult) : TextTable =
    let frame = Report.frame result

    let mean label =
        frame
        |> Deedle.Frame.filterRowValues (fun r -> r.GetAs<string> "method" = label)
        |> Deedle.Frame.getCol "deviation_rel"
        |> Deedle.Stats.mean

    [ for current in result.Methods do
          if current.Contains "partner=current" then
              let stale = current.Replace("partner=current", "partner=at-learning")

              [ current.Replace(";partner=current", "").Replace("[partner=current]", "")
                (mean stale / mean current).ToString "0.000" ] ]
    |> TextTable.make "deviation under stale outputs over that under current ones" [ "method"; "times" ]

Script.run Script.studies (fun asked ->
    let result = Script.study (Script.stream "emoji" asked) methods asked |> Run.go

    Script.sheet "Partner outputs" "Stale against current outputs of old partners." [ result ] asked
    |> Sheet.chart "Deviation of old scores after every step" "Mean over the tasks learned before." (Plot.deviation result)
    |> Sheet.chart "Recall@10 after the last step" "Over all tasks, in per cent." (Plot.metric "r10" result)
    |> fun sheet ->
        Script.finish [ result ] [ Report.tableOf [ "gap"; "r10"; "bwt_r10"; "deviation_rel" ] result; ratio result ] sheet asked)
