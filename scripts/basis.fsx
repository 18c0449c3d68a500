// What does the basis do, and what the mask? Fine-tuning in the weights' own coordinates (vanilla), in the eigenbasis of old data without a mask, with
// the mask (dns), the same protection by projecting updates in the weights' own coordinates, and soft protection; each with the stream's settings, which
// were chosen on validation rows, and all at one rate with --set lr=1e-3:
//
//     dotnet fsi scripts/basis.fsx
//     dotnet fsi scripts/basis.fsx --stream emoji-dense --out output/scripts/basis-dense
#load "options.fsx"

open Cmcl
open Options

let methods =
    [ Config.any Baseline.vanilla
      Config.any Dns.eigenbasisOnly
      Config.any Dns.defaults
      Config.any (Dns.defaults |> Dns.place Place.Update)
      Config.any Dns.soft ]

Script.run Script.studies (fun asked ->
    let result = Script.study (Script.stream "emoji" asked) methods asked |> Run.go

    Script.sheet "Basis against mask" "What the eigenbasis does without a mask." [ result ] asked
    |> Sheet.chart
        "Stability against recall"
        "Recall@10 over all tasks after the last step; further up and to the left is better."
        (Plot.tradeOff "r10" result)
    |> Sheet.chart "Backward transfer of recall@10 after every step" "Below zero is forgetting." (Plot.backward "r10" result)
    |> Sheet.chart "Deviation of old scores after every step" "Mean over the tasks learned before." (Plot.deviation result)
    |> fun sheet ->
        Script.finish
            [ result ]
            [ Report.tableOf [ "gap"; "r10"; "bwt_r10"; "acc"; "bwt_acc"; "deviation_rel" ] result
              Report.differences "vanilla" [ "r10"; "bwt_r10"; "deviation_rel" ] result ]
            sheet
            asked)
