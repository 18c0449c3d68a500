// Stability against plasticity for every way to protect: trust at four budgets and three learning rates, trust with a total
// budget, block, product and soft. Tells whether a certificate was broken and whether deviation follows the budget or the rate, and
// draws recall@10 against deviation. Nothing is chosen here: cmcl tune does that, on validation rows.
//
//     dotnet fsi scripts/frontier.fsx [STREAM] [SEEDS]        (default: emoji 0)
#load "load.fsx"

open System
open System.IO
open System.Threading
open Plotly.NET
open Cmcl
open TorchSharp

let name, seeds =
    match fsi.CommandLineArgs |> Array.tail |> List.ofArray with
    | [] -> "emoji", [ 0 ]
    | [ stream ] -> stream, [ 0 ]
    | stream :: seeds :: _ -> stream, [ for s in seeds.Split ',' -> int s ]

let rates, budgets = [ "5e-4"; "1e-3"; "2e-3" ], [ "0.02"; "0.05"; "0.1"; "0.2" ]
let taus = [ "1e-6"; "3e-6"; "1e-5"; "3e-5"; "1e-4"; "3e-4" ]

let families =
    [ for lr in rates -> $"trust, rate {lr}", [ for e in budgets -> $"dns-trust[budget={e};lr={lr}]" ] ]
    @ [ "trust, total", [ for e in [ "0.2"; "0.4"; "0.6"; "0.8" ] -> $"dns-trust[total-budget={e};lr=1e-3]" ]
        "block",
        [ for cut in [ "1e-4"; "3e-4"; "1e-3"; "3e-3"; "1e-2"; "3e-2" ] ->
              $"dns[threshold=trace:{cut};partner-threshold=trace:{cut};lr=1e-3]" ]
        "product", [ for tau in taus -> $"dns[protect=product;tau={tau};lr=1e-3]" ]
        "soft", [ for tau in taus -> $"dns-soft[tau={tau};lr=1e-3]" ] ]

let stream = Catalogue.find name |> Check.get
let plans = Plan.resolve stream.Preset [] (List.collect snd families) |> Check.get

/// One plan with one seed: its rows, and its aggregates.
let run (plan: Plan, seed: int) =
    torch.set_num_threads 1
    let outcome = Train.run stream torch.CPU Split.Test seed Observer.silent plan |> Check.get
    let rows = Experiment.rows stream plan seed outcome
    eprintf "."
    rows @ Results.aggregates rows

/// A run has a thread to itself, as many at a time as there are cores.
let rows =
    let cells =
        [| for plan in plans do
               for seed in seeds -> plan, seed |]

    let results, next = Array.create cells.Length [], ref -1

    let rec work () =
        let i = Interlocked.Increment next

        if i < cells.Length then
            results[i] <- run cells[i]
            work ()

    let workers = [ for _ in 1 .. Environment.ProcessorCount -> Thread(work) ]

    for worker in workers do
        worker.Start()

    for worker in workers do
        worker.Join()

    eprintfn ""
    List.concat results

let mean metric label =
    rows
    |> List.filter (fun r -> r.Method = label && r.Metric = metric && r.Step = "final")
    |> List.map _.Value
    |> Transfer.meanSd
    |> Option.get

/// (measured, bound) of every old step at every later step, all seeds.
let bounds label =
    let own metric =
        rows
        |> List.filter (fun r -> r.Method = label && r.Metric = metric && (Results.index r.Step).IsSome)
        |> List.map (fun r -> (r.Seed, r.Step, r.Task), r.Value)
        |> Map

    let truths, bounds = own "deviation_rel", own "bound_rel"
    [ for KeyValue(place, truth) in truths -> truth, bounds[place] ]

let shown (digits: string) factor (s: Spread) =
    let text (x: float) = (factor * x).ToString digits
    text s.Mean + (s.Sd |> Option.map (fun sd -> " ± " + text sd) |> Option.defaultValue "")

printfn "%s, test rows, seeds %A" stream.Name seeds

printfn "%-62s %15s %9s %9s %7s %9s %13s" "setting" "deviation" "largest" "bound" "ratio" "broken" "R@10 %"

for plan in plans do
    let found = bounds plan.Label

    let ratios =
        [ for truth, bound in found do
              if truth > 1e-6 then
                  bound / truth ]
        |> List.sort

    let broken = found |> List.filter (fun (truth, bound) -> not (truth <= bound)) |> List.length

    printfn
        "%-62s %15s %9.3f %9.3f %7.2f %5d/%3d %13s"
        plan.Label
        (shown "0.000" 1.0 (mean "deviation_rel" plan.Label))
        (found |> List.map fst |> List.max)
        (found |> List.map snd |> List.max)
        ratios[ratios.Length / 2]
        broken
        found.Length
        (shown "0.0" 100.0 (mean "r10" plan.Label))

let deviation label = (mean "deviation_rel" label).Mean
let factor (values: float list) = List.max values / List.min values

printfn "\ntrust: how much deviation changes"

for e in budgets do
    printfn
        "  budget %-5s over a fourfold rate: × %.2f"
        e
        (factor [ for lr in rates -> deviation $"dns-trust[budget={e};lr={lr}]" ])

for lr in rates do
    printfn
        "  rate %-7s over a tenfold budget: × %.2f"
        lr
        (factor [ for e in budgets -> deviation $"dns-trust[budget={e};lr={lr}]" ])

let folder = Path.GetFullPath(Path.Combine(__SOURCE_DIRECTORY__, "..", "output", "frontier", stream.Name))
Results.write folder rows |> Check.get

let colours = Map [ "trust, total", "#CC79A7"; "block", "#D55E00"; "product", "#E69F00"; "soft", "#009E73" ]

let dashes = [ StyleParam.DrawingStyle.Dot; StyleParam.DrawingStyle.Solid; StyleParam.DrawingStyle.Dash ]

let chart =
    let error (spreads: Spread list) factor =
        TraceObjects.Error.init (
            Array = [ for s in spreads -> factor * Option.defaultValue 0.0 s.Sd ],
            Visible = (seeds.Length > 1),
            Thickness = 1.,
            Width = 2.
        )

    [ for i, (family, labels) in List.indexed families do
          let deviations, recalls = labels |> List.map (mean "deviation_rel"), labels |> List.map (mean "r10")
          let colour = colours |> Map.tryFind family |> Option.defaultValue "#0072B2" |> Color.fromString

          Chart.Line(
              x = [ for d in deviations -> d.Mean ],
              y = [ for r in recalls -> 100.0 * r.Mean ],
              MultiText = labels,
              Name = family,
              ShowMarkers = true,
              LineColor = colour,
              MarkerColor = colour,
              LineDash = (if i < dashes.Length then dashes[i] else StyleParam.DrawingStyle.Solid),
              UseDefaults = false
          )
          |> Chart.withXError (error deviations 1.0)
          |> Chart.withYError (error recalls 100.0) ]
    |> Chart.combine
    |> Theme.dress
        (Theme.axis "relative deviation of old scores (further left is more stable)" StyleParam.AxisType.Linear None)
        (Theme.axis "recall@10 after the last step, per cent" StyleParam.AxisType.Linear None)
    |> Chart.withSize (Height = 560)

let note =
    let spread = if seeds.Length = 1 then "one seed" else $"mean ± sd over {seeds.Length} seeds"
    $"Test rows of {stream.Name}, {spread}. A point is a setting, a line a way to protect; further up and to the left is better."

let page = Path.Combine(folder, "frontier.html")
File.WriteAllText(page, Page.single "Stability against plasticity" note chart)
printfn "\nevery figure: %s\nchart: %s" (Path.Combine(folder, "results.csv")) page
