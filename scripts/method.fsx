// A method of one's own, compared with two that are there: fine-tuning in which each step pulls the weights back to where
// the step began. Writes results and a report like `cmcl run`.
//
//     dotnet fsi scripts/method.fsx
#load "load.fsx"

open System
open System.IO
open Cmcl
open TorchSharp

torch.set_num_threads 1

/// Adds strength · (W − W_start) to the gradient: what ½ · strength · ‖W − W_start‖² would add.
let pull (strength: float) : Method =
    let begin' context memory heads tasks =
        let plain = Training.plainSession context memory heads tasks
        let back (weights: Heads) m (g: torch.Tensor) = g + (weights[m] - plain.Start[m]) * strength.AsScalar()

        let pulled weights batch =
            let pass = Direction.pass plain.Direction plain.Kept weights batch

            { pass with
                Gradients = Map.map (back weights) pass.Gradients }

        { plain with Direction = Direction.Of pulled }

    { Plain.vanilla with
        Name = "pull"
        Summary = "fine-tuning pulled back to where the step began"
        Begin = begin' }

let stream = Catalogue.find "synthetic" |> Check.get
let known = Plan.resolve stream.Preset [] [ "vanilla"; "dns[exact=on]" ] |> Check.get

let own =
    { Label = "pull"
      Method = pull 0.1
      Settings = known.Head.Settings }

let request =
    { Stream = stream
      Source = "synthetic"
      Plans = known @ [ own ]
      Seeds = [ 0; 1; 2 ]
      Device = torch.CPU
      Split = Split.Test
      SaveWeights = false
      Monitor = None
      Jobs = 1
      Out = Path.Combine(__SOURCE_DIRECTORY__, "..", "output", "method")
      Command = "dotnet fsi scripts/method.fsx"
      Arguments = [] }

Experiment.prepare true request.Out |> Check.get
let finished = Experiment.run DateTimeOffset.Now ignore request |> Check.get

printfn "%-16s %12s %12s" "method" "deviation" "R@10 %"

for plan in request.Plans do
    let mean metric =
        finished.Rows
        |> List.filter (fun r -> r.Method = plan.Label && r.Step = "final" && r.Metric = metric)
        |> List.averageBy _.Value

    let deviation = (mean "deviation_rel").ToString "0.0e-0"
    printfn "%-16s %12s %12.1f" plan.Label deviation (100.0 * mean "r10")

printfn "report: %s" (Report.write request.Out |> Check.get |> Path.GetFullPath)
