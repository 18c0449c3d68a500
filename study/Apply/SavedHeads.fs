namespace Cmcl

open System
open System.Globalization
open System.IO
open TorchSharp

/// Trained heads on disk, and what is known of where they come from.
type SavedHeads =
    {
        Heads: Heads
        /// Texts such as `method`, `seed`, `step`, `stream`, `digest`, `scores` and `cmcl`; `bias` is `yes` where every weight
        /// carries one in its last column and `no` where none does; `features` names the lift of the features that it is for, drawn
        /// by `seed` (`Lift.show`), where there is one. Nothing of this is known of a folder of arrays.
        About: Map<string, string>
    }

[<RequireQualifiedAccess>]
module SavedHeads =
    let private wide (path: string) : bool = path.EndsWith(".safetensors", StringComparison.OrdinalIgnoreCase)

    /// Weights as heads: matrices of floats with finite numbers, named by modalities, with one joint dimension.
    let private check (path: string) (about: Map<string, string>) (tensors: (string * torch.Tensor) list) =
        let head (name: string, w: torch.Tensor) =
            match Modality.create name with
            | Error _ -> Error [ Fault.Unreadable(path, $"'{name}' is not a modality's name ({Modality.rule})") ]
            | Ok _ when w.dim () <> 2L || w.NumberOfElements = 0L ->
                Error [ Fault.Shape($"head '{name}' in '{path}'", "a matrix, d × d_m", Tensors.shapeText w) ]
            | Ok _ when not (torch.is_floating_point w) ->
                Error
                    [ Fault.BadValue($"head '{name}' in '{path}'", "numbers of type float16, float32 or float64", string w.dtype) ]
            | Ok modality ->
                match Tensors.nonFiniteRow w with
                | Some row -> Error [ Fault.NonFinite($"head '{name}' in '{path}'", row) ]
                | None -> Ok(modality, w)

        tensors
        |> List.map head
        |> Check.all
        |> Result.bind (fun heads ->
            match heads |> List.distinctBy (fun (_, w) -> w.shape[0]) with
            | [] -> Error [ Fault.Unreadable(path, "there is no head in it") ]
            | [ _ ] -> Ok { Heads = Map heads; About = about }
            | (first, v) :: (other, w) :: _ ->
                Error
                    [ Fault.Shape(
                          $"head '{other}' in '{path}'",
                          $"{v.shape[0]} rows, as '{first}' has (the joint dimension)",
                          string w.shape[0]
                      ) ])

    let private ofFolder (folder: string) : Result<(string * torch.Tensor) list, Fault list> =
        try
            Directory.GetFiles(folder, "*.npy")
            |> Array.sort
            |> List.ofArray
            |> List.map (fun file -> Npy.read file |> Result.map (fun w -> string (Path.GetFileNameWithoutExtension file), w))
            |> Check.all
        with
        | :? IOException
        | :? UnauthorizedAccessException as e -> Error [ Fault.Unreadable(folder, e.Message) ]

    /// Heads from a `.safetensors` file, or from a folder with one `.npy` file for each modality.
    /// Faults: `Missing`, `Unreadable`, `Shape`, `BadValue` and `NonFinite`, with the file and the head.
    let read (path: string) : Result<SavedHeads, Fault list> =
        if Directory.Exists path then
            ofFolder path |> Result.bind (check path Map.empty)
        elif not (File.Exists path) then
            Error [ Fault.Missing(path, "reading heads") ]
        else
            match (string (Path.GetExtension path)).ToLowerInvariant() with
            | ".pt"
            | ".pth"
            | ".pkl"
            | ".bin" ->
                Error
                    [ Fault.Unreadable(
                          path,
                          "a file of this kind holds pickled Python objects, which can run code when they are read; save the weights as .safetensors, or each as .npy"
                      ) ]
            | _ -> Safetensors.read path |> Result.bind (fun all -> Map.toList all.Tensors |> check path all.Metadata)

    // ---- from a run ----------------------------------------------------------------------------------------------

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

    /// The steps after which a results folder has a method's heads with a seed, in their order. Example: `SavedHeads.steps "results/none" "dns" 0 = []`.
    let steps (results: string) (label: string) (seed: int) : int list =
        numbered "step-" (ResultsFolder.weightsFound results label seed)

    /// The heads that `cmcl run --save-weights` left in a results folder after a step, the last one unless another is named.
    /// Faults: `Missing` for a run without weights, `Unknown` for a method, a seed or a step that it does not have, with those that
    /// it has; and the faults of `read`.
    let ofRun (results: string) (label: string) (seed: int) (step: int option) : Result<SavedHeads, Fault list> =
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
                    [ Fault.Missing(within, $"exporting the heads of '{label}'")
                      Fault.Contradiction("heads are kept only on request", "run again with --save-weights") ]
            | _ when steps.IsEmpty ->
                Error
                    [ Fault.Unknown($"seed with weights of '{label}'", string seed, numbered "seed-" within |> List.map string) ]
            | None ->
                let given = step |> Option.map string |> Option.defaultValue ""
                Error [ Fault.Unknown($"step with weights of '{label}', seed {seed},", given, List.map string steps) ]
            | Some n ->
                read (Path.Combine(seeds, $"step-{n:D2}"))
                |> Result.map (fun saved -> { saved with About = about info label seed n }))

    // ---- writing -------------------------------------------------------------------------------------------------

    /// The files that `write` would make.
    let files (path: string) (saved: SavedHeads) : string list =
        if wide path then [ path ] else [ for m in saved.Heads.Keys -> Path.Combine(path, m.Name + ".npy") ]

    /// Writes heads: one `.safetensors` file (tensors named by modality, `About` as its metadata) if the path ends so, else a folder
    /// with one `.npy` file for each modality. Fault: `Unwritable`.
    let write (path: string) (saved: SavedHeads) : Result<unit, Fault list> =
        files path saved
        |> List.head
        |> Files.makeFolderOf
        |> Result.bind (fun () ->
            if wide path then
                Safetensors.write
                    path
                    { Tensors = Map [ for KeyValue(m, w) in saved.Heads -> m.Name, w ]
                      Metadata = saved.About }
            else
                [ for KeyValue(m, w) in saved.Heads ->
                      use cpu = w.cpu ()
                      Npy.write (Path.Combine(path, m.Name + ".npy")) cpu ]
                |> Check.all
                |> Result.map ignore)
