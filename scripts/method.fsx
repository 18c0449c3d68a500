// How good is a method of one's own? Fine-tuning in which each step pulls the weights back to where the step began, at the strengths of
// --values, against two that are there; docs/methods.md says what a method is made of:
//
//     dotnet fsi scripts/method.fsx
#load "options.fsx"

open Cmcl
open Options
open TorchSharp

/// Adds strength · (W − W_start) to the gradient: what ½ · strength · ‖W − W_start‖² would add.
let pull (strength: float) : Method =
    let begin' context memory heads tasks =
        let plain = Training.plainSession context memory heads tasks
        let back (weights: Heads) m (g: torch.Tensor) = g .+ (weights[m] - plain.Start[m]) * strength.AsScalar()

        let pulled weights batch =
            let pass = Direction.pass plain.Direction plain.Kept weights batch

            { pass with
                Gradients = Map.map (back weights) pass.Gradients }

        { plain with Direction = Direction.Of pulled }

    Training.method $"pull-{strength}" "fine-tuning pulled back to where the step began" |> Method.beginning begin'

Script.run ("values" :: Script.studies) (fun asked ->
    let strength (text: string) =
        match System.Double.TryParse(text, System.Globalization.CultureInfo.InvariantCulture) with
        | true, x when x >= 0.0 -> x
        | _ -> Check.fail (Fault.BadValue("--values", "strengths, numbers ≥ 0", text))

    let own = Script.values [ "0.01"; "0.1"; "1" ] asked |> List.map (strength >> pull >> Config.ofMethod)
    // A method of one's own has the stream's common rate, which is not the one that was chosen for vanilla.
    let vanilla = [ Config.any Baseline.vanilla; Config.any (Baseline.vanilla |> Learn.rate 1e-3) ]
    let methods = vanilla @ own @ [ Config.any Dns.defaults ]
    let result = Script.study (Script.stream "emoji" asked) methods asked |> Run.go

    Script.sheet "A method of one's own" "Pulling weights back to where the step began." [ result ] asked
    |> Sheet.chart
        "Stability against recall"
        "Recall@10 over all tasks after the last step; further up and to the left is better."
        (Plot.tradeOff "r10" result)
    |> Sheet.chart "Deviation of old scores after every step" "Mean over the tasks learned before." (Plot.deviation result)
    |> fun sheet -> Script.finish [ result ] [ Report.tableOf [ "gap"; "r10"; "bwt_r10"; "deviation_rel" ] result ] sheet asked)
