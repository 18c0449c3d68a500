// How many rows does it take? Training rows of every step cut to shares of themselves (--values), drawn once; the rest is as it was. Every method gets as many
// settings, and the one with the best recall on validation rows with the first seed is taken: the closed form by its prior and its ridge, the others by rate
// and epochs:
//
//     dotnet fsi scripts/rows.fsx
#load "options.fsx"

open System
open Cmcl
open Options

/// The stream with a share of each step's training rows.
let cut (share: float) (stream: Stream) : Stream =
    let some (step: Step) =
        use order = Seed.permutation step.Train.LongLength (Seed.ofInt 0 |> Seed.split $"rows of {step.Name}")
        let kept = max 4 (int (Math.Round(share * float step.Train.Length)))
        let places = order.data<int64>().ToArray() |> Array.truncate kept |> Array.sort

        { step with
            Train = places |> Array.map (fun place -> step.Train[int place]) }

    { stream with
        Name = $"{stream.Name}, {100.0 * share:G3} %% of training rows"
        Digest = $"{stream.Digest}/{share}"
        Steps = List.map some stream.Steps }

/// Methods by what is tried of each.
let candidates (asked: Asked) : (string * Config<AnyOptions> list) list =
    let over option values = Config.over (Config.set option) (Script.few values asked)

    let trained (config: Config<'takes>) =
        [ Config.any config ] |> over "lr" [ "5e-4"; "1e-3"; "2e-3" ] |> over "epochs" [ "20"; "80" ]

    [ "zero-shot", [ Config.any Baseline.zeroShot ]
      "vanilla", trained Baseline.vanilla
      "dns", trained Dns.defaults
      "cca", [ Config.any Closed.cca ] |> over "prior" [ "0"; "1"; "10" ] |> over "ridge" [ "0.1"; "0.3" ]
      "joint", trained Baseline.joint ]

Script.run ("values" :: Script.studies) (fun asked ->
    let shares =
        Script.values [ "0.02"; "0.05"; "0.15"; "0.5"; "1" ] asked
        |> List.map (fun text ->
            match Double.TryParse(text, Globalization.CultureInfo.InvariantCulture) with
            | true, x when x > 0.0 && x <= 1.0 -> x
            | _ -> Check.fail (Fault.BadValue("--values", "shares above 0 and up to 1, such as 0.05,0.5", text)))

    let whole = Script.stream "emoji" asked

    let ofShare (share: float) =
        let stream = cut share whole
        let smallest = stream.Steps |> List.map Stream.visits |> List.min |> int
        let batch = string (min 64 smallest)

        let study configs = Script.study stream configs asked |> Run.each (Config.set "batch" batch)

        let r10 = Metric.find "r10" |> Check.get

        let values (label: string) (r: StudyResult) =
            Measured.replicates r.Stream 0 label r10 (StudyResult.measured r) |> List.map (fun (_, x) -> 100.0 * x)

        let tried = study (List.collect snd (candidates asked)) |> Run.seeds [ 0 ] |> Run.onValidation |> Run.go

        let winners =
            [ for family, configs in candidates asked ->
                  family,
                  configs |> List.maxBy (fun config -> values config.Label tried |> List.tryHead |> Option.defaultValue nan) ]

        let result = study (List.map snd winners) |> Run.go

        result,
        [ for family, config in winners do
              match values config.Label result |> Transfer.meanSd with
              | Some spread -> family, config.Label, share, spread
              | None -> () ]

    let found = List.map ofShare shares
    let all = List.collect snd found

    let series =
        [ for family, points in all |> List.groupBy (fun (family, _, _, _) -> family) ->
              family, [ for _, _, share, spread in points -> 100.0 * share, spread ] ]

    let table =
        [ for _, label, share, spread in all ->
              let sd = spread.Sd |> Option.map (fun sd -> $"{sd:F2}") |> Option.defaultValue ""
              [ $"{100.0 * share:G3}"; label; $"{spread.Mean:F2}"; sd ] ]
        |> TextTable.make "Recall@10 by training rows" [ "rows %"; "method"; "R@10 %"; "sd" ]

    Script.sheet "Few rows" "How recall grows with the training rows of each step." (List.map fst found) asked
    |> Sheet.chart
        "Recall@10 after the last step"
        "Settings are chosen on validation rows, for every share and method apart. Error bars are over seeds."
        (Plot.spreads ("training rows of each step, %", true) ("recall@10, %", false) series)
    |> fun sheet -> Script.finish (List.map fst found) [ table ] sheet asked)
