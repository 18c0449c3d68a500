namespace Cmcl

open System
open TorchSharp

/// The head of one modality, as features in a file or in memory are put through it.
type AppliedHead =
    {
        /// W, d × the columns of what it is applied to.
        Weight: torch.Tensor
        /// What is put beside the features before.
        Lift: LiftDirections option
        /// Whether the last column is a bias, so that a constant 1 is put behind them.
        Bias: bool
    }

/// New features through a trained head, any number of rows, block by block.
[<RequireQualifiedAccess>]
module Projected =
    /// A head that takes features as they are, without a bias. Example: `Projected.plain heads[pair.A]`.
    let plain (w: torch.Tensor) : AppliedHead = { Weight = w; Lift = None; Bias = false }

    /// The head of a modality for features of so many columns: as many as it has, less those of its lift and the bias that it is said to
    /// have. Faults: `Unknown`, `Shape`; `BadValue` and `Contradiction` for a lift that cannot be drawn again.
    let head (saved: SavedHeads) (modality: Modality) (columns: int64) : Result<AppliedHead, Fault list> =
        match Map.tryFind modality saved.Heads, Lift.ofTexts "the file of heads" saved.About with
        | None, _ -> Error [ Fault.Unknown("head", modality.Name, [ for m in saved.Heads.Keys -> m.Name ]) ]
        | _, Error faults -> Error faults
        | Some w, Ok lift ->
            let added = lift |> Option.map _.Lift |> Lift.added
            let bias = Map.tryFind "bias" saved.About
            let own = if bias = Some "yes" then 1L else 0L
            let wanted = w.shape[1] - added - own

            let beside =
                [ match lift with
                  | Some l -> $"{added} of features={Lift.show (Some l.Lift)}"
                  | None -> ()
                  if own = 1L then
                      "the last a bias" ]

            let expected =
                match beside with
                | [] when bias.IsNone && wanted = columns + 1L ->
                    $"d = {wanted}, as nothing says that the last column of its head is a bias (--bias of cmcl apply, or bias = yes among what is known of it)"
                | [] -> $"d = {wanted}"
                | beside -> $"d = {wanted} (its head has {w.shape[1]} columns, " + String.Join(", ", beside) + ")"

            if wanted = columns then
                Ok
                    { Weight = w
                      Lift = lift |> Option.map (fun l -> Lift.drawn l modality columns)
                      Bias = own = 1L }
            else
                Error [ Fault.Shape($"features of modality '{modality}'", expected, string columns) ]

    /// Y = φ(X) Wᵀ, with a bias φ(X) Wᵀ + 1 bᵀ, at unit length when `Cosine`, of the features' rows block by block, in the head's type. Blocks
    /// belong to the caller. Raises `Fault.NonFinite` with the row where an output is not finite. As in
    /// `Projected.blocks Scoring.Raw "X" (Projected.plain w) xa`.
    let blocks (scoring: Scoring) (what: string) (head: AppliedHead) (features: torch.Tensor) : seq<torch.Tensor> =
        let w = head.Weight

        let project (first: int64, count: int64) =
            Tensors.scoped (fun () ->
                let x = features.narrow(0L, first, count).``to``(w.device).``to`` w.dtype

                let lifted =
                    match head.Lift with
                    | Some directions -> Lift.rows directions x
                    | None -> x

                let y = (if head.Bias then Heads.withBias lifted else lifted) |> Heads.outputs w |> Alignment.prepare scoring

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
            |> Result.bind (fun head ->
                let w = if head.Weight.element_size () = 2L then head.Weight.``to`` torch.float32 else head.Weight

                Files.makeFolderOf into
                |> Result.bind (fun () ->
                    blocks scoring $"'{from}'" { head with Weight = w } x |> Npy.writeRows into w.dtype x.shape[0] w.shape[0])
                |> Result.map (fun () -> [| x.shape[0]; w.shape[0] |])))
