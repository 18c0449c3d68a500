namespace Cmcl

open System
open System.Globalization
open System.IO

/// Trained heads of a run whose weights were saved, with what its results say of them.
[<RequireQualifiedAccess>]
module RunHeads =
    /// Whether a method's heads carry a bias.
    let private biased (name: string) : string option =
        match Registry.find name with
        | Error _ -> None
        | Ok entry -> Some(if entry.Method.Bias then "yes" else "no")

    /// What `config.json` says of the run, as texts.
    let internal about (info: RunInfo) (label: string) (seed: int) (step: int) : Map<string, string> =
        let method = info.Methods |> List.tryFind (fun m -> m.Label = label)
        let setting name = method |> Option.bind _.Setting(name)

        [ "format", Some "cmcl-heads/1"
          "cmcl", Some info.Version
          "method", Some label
          "seed", Some(string seed)
          "step", Some(string step)
          "stream", Some info.StreamName
          "digest", Some info.Digest
          "scores", setting "scores"
          "bias", method |> Option.bind (fun m -> biased m.Method)
          "features", setting Settings.features.Name |> Option.filter ((<>) (Lift.show None)) ]
        |> List.choose (fun (name, value) -> value |> Option.filter ((<>) "") |> Option.map (fun v -> name, v))
        |> Map

    /// The numbers behind a prefix in the names of a folder's folders.
    let private numbered (prefix: string) (folder: string) : int list =
        if not (Directory.Exists folder) then
            []
        else
            [ for path in Directory.GetDirectories folder do
                  let name = string (Path.GetFileName path)

                  if name.StartsWith(prefix, StringComparison.Ordinal) then
                      match Int32.TryParse(name.Substring prefix.Length, NumberStyles.None, CultureInfo.InvariantCulture) with
                      | true, n -> n
                      | _ -> () ]
            |> List.sort

    /// The steps after which a results folder has a method's heads with a seed, in their order. Example: `RunHeads.steps "results/none" "dns" 0 = []`.
    let steps (results: string) (label: string) (seed: int) : int list =
        numbered "step-" (ResultsFolder.weightsFound results label seed)

    /// The heads that `cmcl run --save-weights` left in a results folder after a step, the last one unless another is named.
    /// Faults: `Missing` for a run without weights, `Unknown` for a method, a seed or a step that it does not have, with those that
    /// it has; and the faults of `SavedHeads.read`.
    let read (results: string) (label: string) (seed: int) (step: int option) : Result<SavedHeads, Fault list> =
        let seeds = ResultsFolder.weightsFound results label seed
        let within = Path.GetDirectoryName seeds |> Option.ofObj |> Option.defaultValue results
        let steps = steps results label seed

        let chosen =
            match step with
            | Some n -> List.tryFind ((=) n) steps
            | None -> List.tryLast steps

        RunInfo.read results
        |> Result.bind (fun info ->
            let labels = [ for m in info.Methods -> m.Label ]

            match chosen with
            | _ when not (Directory.Exists results) -> Error [ Fault.Missing(results, "exporting heads") ]
            | _ when not (labels.IsEmpty || List.contains label labels) ->
                Error [ Fault.Unknown("method in these results", label, labels) ]
            | _ when not (Directory.Exists within) ->
                Error
                    [ Fault.Contradiction(
                          $"'{results}' has no heads of {label}; heads are kept only on request, and only of methods that learn",
                          "run again with --save-weights"
                      ) ]
            | _ when steps.IsEmpty ->
                Error
                    [ Fault.Unknown($"seed with weights of '{label}'", string seed, numbered "seed-" within |> List.map string) ]
            | None ->
                let given = step |> Option.map string |> Option.defaultValue ""
                Error [ Fault.Unknown($"step with weights of '{label}', seed {seed},", given, List.map string steps) ]
            | Some n ->
                SavedHeads.read (Path.Combine(seeds, $"step-{n:D2}"))
                |> Result.map (fun saved -> { saved with About = about info label seed n }))
