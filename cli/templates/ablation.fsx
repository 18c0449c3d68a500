// One option over some values, against a baseline: a table, differences and a page with charts.
//
//     dotnet fsi ablation.fsx
//
// What has finished stays in the folder: change a value, run it again, and only what is new is trained.
#load "../../scripts/load.fsx"

open Cmcl

// Settings. `cmcl methods NAME` lists a method's options, `cmcl metrics` what can be measured.

let stream = Stream.load "emoji" // or "emoji-dense", "real", "synthetic", or the folder that cmcl import has made
let seeds = [ 0..2 ]
let taus = [ 3e-6; 1e-5; 3e-5; 1e-4 ]
let metrics = [ "r10"; "bwt_r10"; "deviation_rel" ]
let folder = "results/ablation"

// The study: methods × seeds.

let found =
    Run.on stream
    |> Run.method Baseline.vanilla
    |> Run.methods ([ Dns.soft ] |> Config.over Dns.tau taus)
    |> Run.seeds seeds
    |> Run.into folder
    |> Run.go

// What came out.

let table = Report.tableOf metrics found
let differences = Report.differences "vanilla" metrics found
printfn $"{table}\n\n{differences}\n"

Sheet.make "What τ does" "Soft projection at some values of τ, against plain fine-tuning."
|> Sheet.table table
|> Sheet.table differences
|> Sheet.chart "Stability against recall" "Up and to the left is better." (Plot.path "tau" found)
|> Sheet.chart "Recall@10" "Mean over all tasks after the last step." (Plot.against "tau" "r10" found)
|> Sheet.save $"{folder}/page.html"
|> printfn "%s"
