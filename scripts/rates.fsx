// Which learning rate, and for how long? Rates × epochs for fine-tuning, DNS and soft protection. Validation rows, since this is choosing; --split test
// shows what a choice would have given, and must not make one:
//
//     dotnet fsi scripts/rates.fsx
#load "options.fsx"

open Cmcl
open Options

let methods: Config<AnyOptions> list = [ Config.any Baseline.vanilla; Config.any Dns.defaults; Config.any Dns.soft ]

/// The best setting of each method by recall@10.
let best (result: StudyResult) : TextTable =
    let r10, measured = Metric.find "r10" |> Check.get, StudyResult.measured result
    let mean label = Measured.spread result.Stream label r10 measured |> Option.map _.Mean |> Option.defaultValue nan

    [ for _, labels in result.Methods |> List.groupBy Label.family do
          let label = List.maxBy mean labels
          [ label; Metric.shown r10 (mean label) ] ]
    |> TextTable.make $"Best by recall@10 on {result.Info.Split} rows" [ "setting"; "R@10 %" ]

Script.run ("values" :: Script.studies) (fun asked ->
    let asked =
        { asked with
            Split = asked.Split |> Option.orElse (Some Split.Validation) }

    let rates = Script.values [ "2e-4"; "5e-4"; "1e-3"; "2e-3" ] asked

    let configs =
        methods
        |> Config.over (Config.set "epochs") (Script.few [ "5"; "10"; "20" ] asked)
        |> Config.over (Config.set "lr") rates

    let result = Script.study (Script.stream "emoji" asked) configs asked |> Run.go

    (Script.sheet "Learning rate and epochs" "How fast and how long to learn." [ result ] asked,
     result.Methods |> List.groupBy Label.family)
    ||> List.fold (fun sheet (family, labels) ->
        Sheet.chart
            family
            "Recall@10 over all tasks after the last step."
            (Plot.against "lr" "r10" (Report.only labels result))
            sheet)
    |> Sheet.chart "Stability against recall along the rate" "Further up and to the left is better." (Plot.path "lr" result)
    |> fun sheet ->
        Script.finish
            [ result ]
            [ Report.settings [ "gap"; "r10"; "bwt_r10"; "deviation_rel" ] result |> Script.titled result; best result ]
            sheet
            asked)
