// How many negatives, and how sharp? Batch sizes × temperatures of InfoNCE for fine-tuning and DNS, with as many passes over the rows, so that
// larger batches make fewer updates. Validation rows, since this is choosing; --values are the batch sizes:
//
//     dotnet fsi scripts/batches.fsx
#load "options.fsx"

open Cmcl
open Options

Script.run ("values" :: Script.studies) (fun asked ->
    let asked =
        { asked with
            Split = asked.Split |> Option.orElse (Some Split.Validation) }

    let batches = Script.values [ "32"; "64"; "256" ] asked
    let temperatures = Script.few [ 0.03; 0.07; 0.2 ] asked

    let configs =
        [ Config.any Baseline.vanilla; Config.any Dns.defaults ]
        |> Config.over Learn.temperature temperatures
        |> Config.over (Config.set "batch") batches

    let result = Script.study (Script.stream "emoji" asked) configs asked |> Run.go

    (Script.sheet "Batch size and temperature" "Negatives and sharpness." [ result ] asked,
     result.Methods |> List.groupBy Label.family)
    ||> List.fold (fun sheet (family, labels) ->
        Sheet.chart
            family
            "Recall@10 over all tasks after the last step."
            (Plot.against "batch" "r10" (Report.only labels result))
            sheet)
    |> fun sheet ->
        Script.finish
            [ result ]
            [ Report.settings [ "gap"; "r10"; "bwt_r10"; "deviation_rel" ] result |> Script.titled result ]
            sheet
            asked)
