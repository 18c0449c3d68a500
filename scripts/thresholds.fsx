// How much of old data is to be protected? The threshold of the spectra as a share of the trace, as discarded energy and as a rank, and the budget
// of trust, which needs none: stability against plasticity along each, and how many directions a threshold protects:
//
//     dotnet fsi scripts/thresholds.fsx
#load "options.fsx"

open Cmcl
open Options

let kinds: (string * (float -> Result<Threshold, Fault list>) * float list) list =
    [ "trace", Threshold.trace, [ 3e-4; 1e-3; 3e-3; 1e-2; 3e-2; 1e-1 ]
      "energy", Threshold.energy, [ 0.02; 0.05; 0.1; 0.2; 0.3; 0.5 ]
      "rank", (int >> Threshold.rank), [ 64.0; 32.0; 16.0; 8.0; 4.0; 2.0 ] ]

let families (asked: Asked) : (string * Config<AnyOptions> list) list =
    [ for name, threshold, values in kinds do
          let cuts = Script.few values asked |> List.map (threshold >> Check.get)
          name, [ Dns.defaults ] |> Config.over Dns.block cuts |> List.map Config.any
      "budget (trust)",
      [ Dns.trust ] |> Config.over Dns.budget (Script.few [ 0.02; 0.05; 0.1; 0.2; 0.4 ] asked) |> List.map Config.any ]

/// Directions of the inputs that a method protects in the last step, summed over modalities, of how many.
let ranks (result: StudyResult) label =
    let own = result.Spectra |> List.filter (fun s -> s.Method = label && s.Side = "input")
    let last = own |> List.map _.Step |> List.fold max 0
    let inside = own |> List.filter (fun s -> s.Step = last && s.Protected = Some true)

    if own |> List.exists _.Protected.IsSome then
        $"{inside.Length}/{own |> List.filter (fun s -> s.Step = last) |> List.length}"
    else
        "–"

Script.run Script.studies (fun asked ->
    let families = families asked
    let result = Script.study (Script.stream "emoji" asked) (List.collect snd families) asked |> Run.go
    let series = [ for name, configs in families -> name, List.map Config.label configs ]

    let table =
        Report.settings [ "gap"; "r10"; "bwt_r10"; "deviation_rel" ] result
        |> TextTable.column "protected" [ for label in result.Methods -> ranks result label ]
        |> TextTable.note "Protected: input directions of both modalities in the last step, first seed."

    Script.sheet "Thresholds and budgets" "How much to protect." [ result ] asked
    |> Sheet.chart
        "Plasticity against stability"
        "A point a setting, from the one that protects most; further up and to the left is better."
        (Plot.curves "deviation_rel" "r10" series result)
    |> fun sheet -> Script.finish [ result ] [ table ] sheet asked)
