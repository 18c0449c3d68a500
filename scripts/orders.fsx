// Does the order of the steps matter, and more than the seed? Methods on several orders of the stream's steps; --values are their numbers, 0, the
// stream's own, being always among them:
//
//     dotnet fsi scripts/orders.fsx
#load "options.fsx"

open Cmcl
open Options

/// A metric of a method in each order: mean and deviation over seeds, in per cent.
let byOrder (metric: string) (result: StudyResult) =
    let m, measured = Metric.find metric |> Check.get, StudyResult.measured result

    [ for label in result.Methods do
          label,
          [ for order in 0 :: List.ofSeq result.Orders.Keys do
                match
                    Measured.replicates result.Stream order label m measured
                    |> List.map (fun (_, x) -> 100.0 * x)
                    |> Transfer.meanSd
                with
                | Some spread -> float order, spread
                | None -> () ] ]

Script.run ("values" :: Script.studies) (fun asked ->
    let number (text: string) =
        match System.Int32.TryParse text with
        | true, n -> n
        | _ -> Check.fail (Fault.BadValue("--values", "numbers of orders, such as 0,1,2", text))

    let orders = 0 :: (Script.values [ for order in 0..3 -> string order ] asked |> List.map number) |> List.distinct
    let methods = [ Config.any Baseline.vanilla; Config.any Dns.defaults; Config.any Dns.soft ]
    let result = Script.study (Script.stream "emoji" asked) methods asked |> Run.orders orders |> Run.go

    let chart metric title =
        Plot.spreads ("order of the steps (0: the stream's own)", false) (title, false) (byOrder metric result)

    Script.sheet "Orders of the steps" $"Each method in {orders.Length} orders." [ result ] asked
    |> Sheet.chart "Recall@10 after the last step" "Error bars are over seeds." (chart "r10" "recall@10, %")
    |> Sheet.chart "Backward transfer" "Below zero is forgetting." (chart "bwt_r10" "BWT of recall@10, points")
    |> fun sheet -> Script.finish [ result ] [ Report.orderTable [ "r10"; "bwt_r10"; "deviation_rel" ] result ] sheet asked)
