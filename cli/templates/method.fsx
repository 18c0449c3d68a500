// A method of your own with an option, against two that are there.
//
//     dotnet fsi method.fsx
//
// docs/add-a-method.md says what a method is made of.
#load "../../scripts/load.fsx"

open Cmcl
open TorchSharp

/// Pulls the weights back to where the step began: adds strength · (W − W_start) to the gradient.
let pull (strength: float) : Method =
    let begin' context memory heads tasks =
        let plain = Training.plainSession context memory heads tasks
        let back (weights: Heads) m (g: torch.Tensor) = g .+ (weights[m] - plain.Start[m]) * strength.AsScalar()

        let pulled weights batch =
            let pass = Direction.pass plain.Direction plain.Kept weights batch

            { pass with
                Gradients = Map.map (back weights) pass.Gradients }

        { plain with Direction = Direction.Of pulled }

    Training.method "pull" "fine-tuning pulled back to where the step began" |> Method.beginning begin'

type PullOptions = { Strength: float }

let strength: Opt<PullOptions, float> =
    Opt.make "strength" "how hard it pulls back" Codec.notNegative _.Strength (fun v _ -> { Strength = v })

let pulling = Spec.make { Strength = 0.1 } [ Opt.any strength ] (fun o -> pull o.Strength)

// A method of your own has the stream's common learning rate, and not the one that was tuned for vanilla.
let found =
    Run.on (Stream.load "emoji")
    |> Run.method (Baseline.vanilla |> Learn.rate 1e-3)
    |> Run.methods ([ Config.ofSpec pulling ] |> Config.over (Config.setTo strength) [ 0.01; 0.1; 1.0 ])
    |> Run.method Dns.defaults
    |> Run.seeds [ 0..2 ]
    |> Run.go

printfn $"""{Report.tableOf [ "r10"; "bwt_r10"; "deviation_rel" ] found}"""
