// Are second moments to be taken about the mean? The paper's are not: they protect the mean direction, which carries most of the energy of features
// that share one. Centred ones leave it free. Both under a block at three thresholds and under soft protection:
//
//     dotnet fsi scripts/centring.fsx
#load "options.fsx"

open Cmcl
open Options

let families (asked: Asked) : (string * Config<AnyOptions> list) list =
    [ for centring in [ Centring.Uncentred; Centring.Centred ] do
          let name = (string centring).ToLowerInvariant()
          let cuts = [ for cut in Script.few [ 1e-3; 3e-3; 1e-2; 3e-2 ] asked -> Threshold.trace cut |> Check.get ]
          let taus = Script.few [ 1e-6; 3e-6; 1e-5; 3e-5 ] asked

          $"block, {name}", [ Dns.defaults |> Dns.moments centring ] |> Config.over Dns.block cuts |> List.map Config.any
          $"soft, {name}", [ Dns.soft |> Dns.moments centring ] |> Config.over Dns.tau taus |> List.map Config.any ]

Script.run Script.studies (fun asked ->
    let families = families asked
    let result = Script.study (Script.stream "emoji" asked) (List.collect snd families) asked |> Run.go
    let series = [ for name, configs in families -> name, List.map Config.label configs ]

    Script.sheet "Centred moments" "What the mean direction is worth." [ result ] asked
    |> Sheet.chart
        "Plasticity against stability"
        "A point a threshold or a τ; further up and to the left is better."
        (Plot.curves "deviation_rel" "r10" series result)
    |> fun sheet -> Script.finish [ result ] [ Report.settings [ "gap"; "r10"; "bwt_r10"; "deviation_rel" ] result ] sheet asked)
