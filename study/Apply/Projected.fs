namespace Cmcl

open TorchSharp

/// New features through a trained head, any number of rows, block by block.
[<RequireQualifiedAccess>]
module Projected =
    /// Whether the heads have a bias in their last column: what is known of them says so (`SavedHeads.About`).
    let hasBias (saved: SavedHeads) : bool = Map.tryFind "bias" saved.About = Some "yes"

    /// The head of a modality for features of so many columns, as many as it has, less the bias that it is said to have. Faults:
    /// `Unknown`, `Shape`.
    let head (saved: SavedHeads) (modality: Modality) (columns: int64) : Result<torch.Tensor, Fault list> =
        match Map.tryFind modality saved.Heads with
        | None -> Error [ Fault.Unknown("head", modality.Name, [ for m in saved.Heads.Keys -> m.Name ]) ]
        | Some w ->
            let held = w.shape[1]

            let expected, fits =
                match Map.tryFind "bias" saved.About with
                | Some "yes" -> $"d = {held - 1L} (its head has {held} columns, the last a bias)", held = columns + 1L
                | None when held = columns + 1L ->
                    $"d = {held}, as nothing says that the last column of its head is a bias (--bias of cmcl apply, or bias = yes among what is known of it)",
                    false
                | _ -> $"d = {held}", held = columns

            if fits then
                Ok w
            else
                Error [ Fault.Shape($"features of modality '{modality}'", expected, string columns) ]

    /// Y = X Wᵀ, with a bias X Wᵀ + 1 bᵀ, at unit length when `Cosine`, of the features' rows block by block, in the head's type. Blocks
    /// belong to the caller. Raises `Fault.NonFinite` with the row where an output is not finite. As in
    /// `Projected.blocks Scoring.Raw "X" false w xa`.
    let blocks (scoring: Scoring) (what: string) (bias: bool) (w: torch.Tensor) (features: torch.Tensor) : seq<torch.Tensor> =
        let project (first: int64, count: int64) =
            Tensors.scoped (fun () ->
                let x = features.narrow(0L, first, count).``to``(w.device).``to`` w.dtype
                let y = (if bias then Heads.withBias x else x) |> Heads.outputs w |> Alignment.prepare scoring

                match Tensors.nonFiniteRow y with
                | Some row -> Check.fail (Fault.NonFinite(what, first + row))
                | None -> y)

        Tensors.rowBlocks features |> Seq.map project

    /// A file of features as it lies, mapped where it can be: a matrix of floats. Faults: those of `Npy.map`, `Shape`, `BadValue`.
    let features (path: string) : Result<torch.Tensor, Fault list> =
        Npy.map path
        |> Result.bind (fun x ->
            if x.dim () <> 2L then
                Error [ Fault.Shape($"'{path}'", "a matrix, one row an item", Tensors.shapeText x) ]
            elif not (torch.is_floating_point x) then
                Error [ Fault.BadValue($"'{path}'", "numbers of type float16, float32 or float64", string x.dtype) ]
            else
                Ok x)

    /// Projects a file of features into another: n × d of the head's type (float32 for heads of float16 and bfloat16). Neither is held in memory.
    let file
        (scoring: Scoring)
        (saved: SavedHeads)
        (modality: Modality)
        (from: string)
        (into: string)
        : Result<int64[], Fault list> =
        use scope = torch.NewDisposeScope()

        features from
        |> Result.bind (fun x ->
            head saved modality x.shape[1]
            |> Result.bind (fun w ->
                let w = if w.element_size () = 2L then w.``to`` torch.float32 else w

                Files.makeFolderOf into
                |> Result.bind (fun () ->
                    blocks scoring $"'{from}'" (hasBias saved) w x |> Npy.writeRows into w.dtype x.shape[0] w.shape[0])
                |> Result.map (fun () -> [| x.shape[0]; w.shape[0] |])))
