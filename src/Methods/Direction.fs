namespace Cmcl

open TorchSharp

/// A loss and the direction that a method gives the optimizer for it.
[<Struct>]
type Pass = { Loss: torch.Tensor; Gradients: Heads }

/// InfoNCE of every pair under bridges between joint spaces, S = (X_a W_aᵀ) Q (X_b W_bᵀ)ᵀ/τ, as data, so that a loop may compute it in place.
type Closed =
    {
        Contrast: Contrast
        /// Q by pair (`Bridge`); a pair without one has one joint space.
        Bridges: Map<Pair, torch.Tensor>
    }

/// Where a batch's loss and gradients come from.
[<RequireQualifiedAccess>]
type Direction =
    | Closed of Closed
    /// A pure function of weights and batch.
    | Of of (Heads -> Batch -> Pass)
    /// A pure function of what is kept, too, which tells what to keep next: what it keeps as it is must be the same tensor.
    | Running of (Memory -> Heads -> Batch -> struct (Pass * Memory))

[<RequireQualifiedAccess>]
module Direction =
    /// The loss of a pair, ∂L/∂Y_a = ∂L/∂Z Qᵀ and ∂L/∂Y_b, from its outputs, Z = Y_a Q (theory.md, sections 2 and 7).
    let private pairGradients (c: Closed) (pair: Pair) (ya: torch.Tensor) (yb: torch.Tensor) : ContrastGradients =
        match Map.tryFind pair c.Bridges with
        | None -> Contrastive.gradients c.Contrast ya yb
        | Some q ->
            let g = Contrastive.gradients c.Contrast (Bridge.cross q ya) yb

            { g with A = Bridge.cross (q.t ()) g.A }

    /// The weighted sum of the pairs' losses, and ∂L/∂Y of every modality in them, from the outputs of each (n × d).
    /// Example: `Direction.outputGradients { Contrast = Contrastive.paper; Bridges = Map.empty } (Terms.one pair) (Map [ pair.A, ya; pair.B, yb ])`.
    let outputGradients
        (c: Closed)
        (terms: Terms)
        (outputs: Map<Modality, torch.Tensor>)
        : struct (torch.Tensor * Map<Modality, torch.Tensor>) =
        let weighted (weight: float) (t: torch.Tensor) = if weight = 1.0 then t else t * weight.AsScalar()

        let add m (g: torch.Tensor) gradients =
            match Map.tryFind m gradients with
            | Some(sum: torch.Tensor) -> Map.add m (sum .+ g) gradients
            | None -> Map.add m g gradients

        let term (pair: Pair, weight: float) =
            let g = pairGradients c pair outputs[pair.A] outputs[pair.B]
            struct (weighted weight g.Loss, weighted weight g.A, weighted weight g.B)

        let folder struct (loss: torch.Tensor, gradients) (pair: Pair, weight: float) =
            let struct (own, a, b) = term (pair, weight)
            struct (loss .+ own, gradients |> add pair.A a |> add pair.B b)

        match terms with
        | [] -> Check.fail (Fault.BadValue("the terms of a batch", "one pair or more", "none"))
        | (pair, weight) :: rest ->
            let struct (loss, a, b) = term (pair, weight)
            List.fold folder (struct (loss, Map [ pair.A, a; pair.B, b ])) rest

    let private closed (c: Closed) (weights: Heads) (batch: Batch) : Pass =
        let outputs = Map [ for m in batch.Modalities -> m, Heads.outputs (Heads.weight m weights) batch.Rows[m] ]
        let struct (loss, gradients) = outputGradients c batch.Terms outputs

        { Loss = loss
          Gradients = gradients |> Map.map (fun m g -> Contrastive.weightGradient g batch.Rows[m]) }

    /// Loss and gradients of a batch under these weights, and what is kept after it: pure, whatever the direction is made of.
    let step (direction: Direction) (kept: Memory) (weights: Heads) (batch: Batch) : struct (Pass * Memory) =
        match direction with
        | Direction.Closed c -> struct (closed c weights batch, kept)
        | Direction.Of f -> struct (f weights batch, kept)
        | Direction.Running f -> f kept weights batch

    /// Loss and gradients alone.
    let pass (direction: Direction) (kept: Memory) (weights: Heads) (batch: Batch) : Pass =
        let struct (pass, _) = step direction kept weights batch
        pass
