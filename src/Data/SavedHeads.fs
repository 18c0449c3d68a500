namespace Cmcl

open System
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
    /// Whether it is one file of all heads.
    let internal wide (path: string) : bool = path.EndsWith(".safetensors", StringComparison.OrdinalIgnoreCase)

    /// Weights as heads: matrices of floats with finite numbers, named by modalities, with one joint dimension. Each comes with the file that
    /// it is in. Faults: `Unreadable`, `Shape`, `BadValue`, `NonFinite`.
    let internal check (path: string) (weights: (string * string * torch.Tensor) list) : Result<Heads, Fault list> =
        let head (file: string, name: string, w: torch.Tensor) =
            match Modality.create name with
            | Error _ -> Error [ Fault.Unreadable(file, $"'{name}' is not a modality's name ({Modality.rule})") ]
            | Ok _ when w.dim () <> 2L || w.NumberOfElements = 0L ->
                Error [ Fault.Shape($"head '{name}' in '{file}'", "a matrix, d × d_m", Tensors.shapeText w) ]
            | Ok _ when not (torch.is_floating_point w) ->
                Error
                    [ Fault.BadValue($"head '{name}' in '{file}'", "numbers of type float16, float32 or float64", string w.dtype) ]
            | Ok modality ->
                match Tensors.nonFiniteRow w with
                | Some row -> Error [ Fault.NonFinite($"head '{name}' in '{file}'", row) ]
                | None -> Ok(modality, w)

        weights
        |> List.map head
        |> Check.all
        |> Result.bind (fun heads ->
            match List.zip weights heads |> List.distinctBy (fun (_, (_, w)) -> w.shape[0]) with
            | [] -> Error [ Fault.Unreadable(path, "there is no head in it") ]
            | [ _ ] -> Ok(Map heads)
            | (_, (first, v)) :: ((file, _, _), (other, w)) :: _ ->
                Error
                    [ Fault.Shape(
                          $"head '{other}' in '{file}'",
                          $"{v.shape[0]} rows, as '{first}' has (the joint dimension)",
                          string w.shape[0]
                      ) ])

    /// Refuses a file of a kind that runs what it holds. Fault: `Unreadable`.
    let internal unpickled (path: string) : Result<unit, Fault list> =
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
        | _ -> Ok()

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
        let saved about weights =
            check path [ for name, w in weights -> path, name, w ] |> Result.map (fun heads -> { Heads = heads; About = about })

        if Directory.Exists path then
            ofFolder path |> Result.bind (saved Map.empty)
        elif not (File.Exists path) then
            Error [ Fault.Missing(path, "reading heads") ]
        else
            unpickled path
            |> Result.bind (fun () -> Safetensors.read path)
            |> Result.bind (fun all -> Map.toList all.Tensors |> saved all.Metadata)

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
