namespace Cmcl

open TorchSharp

/// A loss and the direction that a method gives the optimizer for it.
[<Struct>]
type Pass = { Loss: torch.Tensor; Gradients: Heads }

/// InfoNCE under bridges between joint spaces, S = (X_a W_aᵀ) Q (X_b W_bᵀ)ᵀ/τ, as data, so that a loop may compute it in place.
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
    /// The loss of a batch, ∂L/∂Y_a = ∂L/∂Z Qᵀ and ∂L/∂Y_b, from its outputs, Z = Y_a Q (theory.md, sections 2 and 7).
    let outputGradients
        (c: Closed)
        (pair: Pair)
        (ya: torch.Tensor)
        (yb: torch.Tensor)
        : struct (torch.Tensor * torch.Tensor * torch.Tensor) =
        match Map.tryFind pair c.Bridges with
        | None ->
            let g = Contrastive.gradients c.Contrast ya yb
            struct (g.Loss, g.A, g.B)
        | Some q ->
            let g = Contrastive.gradients c.Contrast (Bridge.cross q ya) yb
            struct (g.Loss, Bridge.cross (q.t ()) g.A, g.B)

    let private closed (c: Closed) (weights: Heads) (batch: Batch) : Pass =
        let wa, wb = Heads.weight batch.Pair.A weights, Heads.weight batch.Pair.B weights

        let struct (loss, a, b) = outputGradients c batch.Pair (Heads.outputs wa batch.A) (Heads.outputs wb batch.B)

        { Loss = loss
          Gradients =
            Map [ batch.Pair.A, Contrastive.weightGradient a batch.A; batch.Pair.B, Contrastive.weightGradient b batch.B ] }

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
