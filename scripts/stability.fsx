// What each place and each way of protecting leaves of old alignment scores, where the null space is exact: the synthetic
// stream in float64. Prints the table of the largest relative deviation and draws it over the steps.
//
//     dotnet fsi scripts/stability.fsx
#load "load.fsx"

open System.IO
open Plotly.NET
open Cmcl
open TorchSharp

torch.set_num_threads 1
let stream = Catalogue.find "synthetic" |> Check.get

let recipes =
    [ "vanilla"
      "reference"
      "dns[place=gradient]"
      "dns[place=update;partner=at-learning]"
      "dns[place=update]"
      "dns[place=update;exact=on]"
      "dns"
      "dns[exact=on]"
      "dns[sides=input]"
      "dns-trust[budget=0.01]" ]

let plans = Plan.resolve stream.Preset [ ("dtype", "float64") ] recipes |> Check.get

let deviations (plan: Plan) =
    let outcome = Train.run stream torch.CPU Split.Test 0 Observer.silent plan |> Check.get
    let lossAfter = outcome.Readings |> List.filter (fun r -> r.Metric = "loss_after") |> List.averageBy _.Value

    let largest =
        outcome.Readings
        |> List.filter (fun r -> r.Metric = "deviation_rel")
        |> List.groupBy _.Step
        |> List.map (fun (step, rows) -> step, rows |> List.map _.Value |> List.max)

    largest, lossAfter

let results = [ for plan in plans -> plan.Label, deviations plan ]

printfn "%-40s %22s %22s" "recipe" "largest rel. deviation" "mean loss after a step"

for label, (largest, loss) in results do
    printfn "%-40s %22s %22.4f" label ((largest |> List.map snd |> List.max).ToString "0.0e-0") loss

let chart =
    Chart.combine
        [ for label, (largest, _) in results ->
              Chart.Line(
                  x = List.map fst largest,
                  y = List.map (snd >> max 1e-17) largest,
                  Name = label,
                  ShowMarkers = true,
                  UseDefaults = false
              ) ]
    |> Theme.dress
        (Theme.axis "after step" StyleParam.AxisType.Linear (Some [ 2 .. stream.Steps.Length ]))
        (Theme.logAxis "largest relative deviation of old scores" [ 1e-17; 1.0 ])

let file = Path.GetFullPath(Path.Combine(__SOURCE_DIRECTORY__, "..", "output", "stability.html"))
Directory.CreateDirectory(Path.GetDirectoryName file |> string) |> ignore

File.WriteAllText(
    file,
    Page.single
        "Stability where the null space is exact"
        "The synthetic stream in float64: what each recipe leaves of old scores."
        chart
)

printfn "chart: %s" file
