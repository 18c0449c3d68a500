// What does stability cost under each way to protect? Trust at four budgets and three rates, trust with a budget for the whole stream,
// block (the paper's), product and soft, as curves of plasticity against stability; whether a certificate was ever below the truth, and
// whether deviation follows the budget or the rate (docs/frontier.md). Nothing is chosen here: cmcl tune does that, on validation rows.
//
//     dotnet fsi scripts/protect.fsx
#load "options.fsx"

open Cmcl
open Options

let budgets = [ 0.02; 0.05; 0.1; 0.2 ]
let taus = [ 1e-6; 3e-6; 1e-5; 3e-5; 1e-4; 3e-4 ]
let cuts = [ for cut in [ 1e-4; 3e-4; 1e-3; 3e-3; 1e-2; 3e-2 ] -> Threshold.trace cut |> Check.get ]
let general configs = List.map Config.any configs

/// Ways to protect, each with its settings from the most stable on.
let families (asked: Asked) : (string * Config<AnyOptions> list) list =
    let few values = Script.few values asked
    let trust = [ Dns.trust |> Learn.rate 1e-3 ]
    let dns = [ Dns.defaults |> Learn.rate 1e-3 ]

    [ for rate in few [ 5e-4; 1e-3; 2e-3 ] do
          $"trust, rate {rate}", [ Dns.trust |> Learn.rate rate ] |> Config.over Dns.budget (few budgets) |> general
      "trust, total", trust |> Config.over Dns.totalBudget (few [ 0.2; 0.4; 0.6; 0.8 ]) |> general
      "block", dns |> Config.over Dns.block (few cuts) |> general
      "product", dns |> Config.over Dns.protect (few taus |> List.map Protection.Product) |> general
      "soft", [ Dns.soft |> Learn.rate 1e-3 ] |> Config.over Dns.tau (few taus) |> general ]

/// (measured, bound) of every old task after every later step, all seeds.
let certified (result: StudyResult) label : (float * float) list =
    let own metric =
        Map
            [ for r in result.Rows do
                  if r.Method = label && r.Metric = metric && r.When <> When.Final then
                      (r.Seed, r.Step, r.Task), r.Value ]

    let bounds = own "bound_rel"
    [ for KeyValue(place, truth) in own "deviation_rel" -> truth, bounds[place] ]

/// The option that is swept of a label: `budget=0.02`.
let swept (label: string) : string = (Array.last (label.Split ';')).TrimEnd(']').Replace("partner-", "")

let table (series: (string * string list) list) (result: StudyResult) : TextTable =
    let found = [ for label in result.Methods -> certified result label ]
    let column head text = TextTable.column head (List.map text found)
    let most part pairs = pairs |> List.map part |> List.max |> Verification.number

    let median (pairs: (float * float) list) =
        match
            List.sort
                [ for truth, bound in pairs do
                      if truth > 1e-6 then
                          bound / truth ]
        with
        | [] -> "–"
        | ratios -> ratios[ratios.Length / 2].ToString "0.00"

    let plain = Report.tableOf [ "deviation_rel"; "r10" ] result

    let ways =
        [ for name, labels in series do
              for label in labels -> name, swept label ]

    { plain with
        Head = "way" :: "setting" :: plain.Head.Tail
        Rows = List.map2 (fun (way, setting) (row: string list) -> way :: setting :: row.Tail) ways plain.Rows }
    |> column "largest" (most fst)
    |> column "largest bound" (most snd)
    |> column "bound/truth" median
    |> column "broken" (fun pairs ->
        $"{pairs |> List.filter (fun (truth, bound) -> not (truth <= bound)) |> List.length}/{pairs.Length}")
    |> TextTable.note
        "Largest: over old tasks, steps and seeds. Bound/truth: median. Broken: places where a certificate was below what was measured."

/// How many times deviation changes over budgets at one rate, and over rates at one budget.
let follows (result: StudyResult) (asked: Asked) : TextTable =
    let frame = Report.frame result |> Deedle.Frame.filterRowValues (fun r -> r.GetAs<string> "method" |> _.Contains("[lr="))

    let rows =
        [ for r in frame.Rows.Values ->
              r.GetAs<string> "family", r.GetAs<string> "lr", r.GetAs<string> "budget", r.GetAs<float> "deviation_rel" ]

    let spans key other =
        [ for at, own in
              rows |> List.filter (fun (family, _, budget, _) -> family = "dns-trust" && budget <> "") |> List.groupBy key do
              let means = own |> List.groupBy other |> List.map (fun (_, same) -> same |> List.averageBy (fun (_, _, _, x) -> x))
              [ at; string means.Length; (List.max means / List.min means).ToString "0.00" ] ]

    let rate (_, lr, _, _) = $"rate {lr}, over budgets"
    let budget (_, _, budget, _) = $"budget {budget}, over rates"

    TextTable.make
        "trust: how many times deviation changes"
        [ "at"; "settings"; "largest/smallest" ]
        (spans budget rate @ spans rate budget)

Script.run Script.studies (fun asked ->
    let families = families asked
    let result = Script.study (Script.stream "emoji" asked) (List.collect snd families) asked |> Run.go
    let series = [ for name, configs in families -> name, List.map Config.label configs ]

    Script.sheet "Ways to protect" "What stability costs." [ result ] asked
    |> Sheet.chart
        "Plasticity against stability"
        "A point a setting, a line a way to protect; further up and to the left is better."
        (Plot.curves "deviation_rel" "r10" series result)
    |> fun sheet -> Script.finish [ result ] [ table series result; follows result asked ] sheet asked)
