// What does it cost that the features of an encoder point into a narrow cone, and does centring them help? Every bank's rows get a common direction of the
// bank's own, so large that the mean carries four fifths of their squared length; then the mean of the bank's training rows is taken off again:
//
//     dotnet fsi scripts/cones.fsx
#load "options.fsx"

open Cmcl
open Options
open TorchSharp

/// The stream with every bank changed, and without accuracy, whose prototypes are of no bank.
let changed (name: string) (change: Bank -> torch.Tensor) (stream: Stream) : Stream =
    let banks = stream.Banks |> Map.map (fun _ bank -> { bank with Features = change bank })

    { stream with
        Name = name
        Digest = $"{stream.Digest}/{name}"
        Banks = banks
        Steps =
            [ for s in stream.Steps ->
                  { s with
                      A = banks[s.A.Name]
                      B = banks[s.B.Name]
                      Accuracy = None } ] }

/// Rows of unit length with twice a direction of the bank's own, at unit length again: the mean's share is 2²/(1 + 2²) and a little more.
let inCone (bank: Bank) : torch.Tensor =
    let direction = Seed.normal [ 1L; bank.Features.shape[1] ] (Seed.ofInt 0 |> Seed.split $"cone of {bank.Name}")
    let twice = Alignment.normalise direction * 2.0.AsScalar()
    Alignment.normalise (Alignment.normalise (bank.Features.``to`` torch.float64) .+ twice) |> _.``to``(torch.float32)

/// A bank less the mean of the rows of it that any step trains on.
let centred (stream: Stream) (bank: Bank) : torch.Tensor =
    let rows =
        [| for s in stream.Steps do
               let struct (a, b) = Stream.bankRows Split.Train s

               if s.A.Name = bank.Name then
                   yield! a

               if s.B.Name = bank.Name then
                   yield! b |]
        |> Array.distinct

    bank.Features - bank.Features.index_select(0L, torch.tensor rows).mean([| 0L |], keepdim = true)

Script.run Script.studies (fun asked ->
    let stream = Script.stream "emoji" asked
    let plain = changed stream.Name (fun bank -> bank.Features) stream
    let cone = changed $"{stream.Name}, in cones" inCone stream
    let again = changed $"{stream.Name}, in cones, centred" (centred cone) cone

    let methods =
        [ Config.any Baseline.zeroShot
          Config.any Baseline.vanilla
          Config.any Dns.defaults
          Config.any Dns.soft
          Config.any Closed.cca
          Config.any Baseline.joint ]

    let results = [ for stream in [ plain; cone; again ] -> Script.study stream methods asked |> Run.go ]

    let tables = results |> List.map (Report.settings [ "r10"; "bwt_r10"; "deviation_rel" ])

    let sheet = Script.sheet "Narrow cones" "What a common direction of all rows costs, and centring." results asked
    Script.finish results tables sheet asked)
