// To copy: one option over some values, a table and two charts. Change what is swept, the methods and what is drawn; docs/methods.md lists
// every option, cmcl metrics every figure:
//
//     dotnet fsi scripts/template.fsx
#load "options.fsx"

open Cmcl
open Options

Script.run ("values" :: Script.studies) (fun asked ->
    let taus = Script.values [ "1e-6"; "1e-5"; "1e-4" ] asked

    let result =
        Script.study (Script.stream "emoji" asked) ([ Dns.soft ] |> Config.over (Config.set "tau") taus) asked
        |> Run.method Baseline.vanilla
        |> Run.go

    Script.sheet "Template" "What τ does." [ result ] asked
    |> Sheet.chart "Stability against recall" "Further up and to the left is better." (Plot.path "tau" result)
    |> Sheet.chart "Recall@10" "Over all tasks after the last step." (Plot.against "tau" "r10" result)
    |> fun sheet -> Script.finish [ result ] [ Report.tableOf [ "r10"; "bwt_r10"; "deviation_rel" ] result ] sheet asked)
