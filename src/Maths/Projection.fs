namespace Cmcl

open TorchSharp

/// The null-space projections of Theorems 3 and 4, and the cheap form of the latter.
[<RequireQualifiedAccess>]
module Projection =
    /// Theorem 3: M̃ − P_a M̃ P_b for the global update M̃ (d_a × d_b) of a pair, P the projectors onto the spans of old inputs.
    /// Then X_a (·) X_bᵀ = 0 for all old rows (theory.md, section 4).
    /// Example: `Projection.globalUpdate pa pb (Heads.globalParameter pair heads)`.
    let globalUpdate (pa: torch.Tensor) (pb: torch.Tensor) (m: torch.Tensor) : torch.Tensor =
        Tensors.scoped (fun () -> m - Tensors.product (Tensors.product pa m) pb)

    /// Theorem 4 (DNS): Δ = G − P̃ G P for an update G (d × d_m): P projects onto the modality's old inputs (d_m × d_m), P̃ onto
    /// its partners' old outputs (d × d). Then X Δᵀ Y_partnerᵀ = 0 for all old rows. An orthogonal projection of G (theory.md,
    /// section 4). Example: `Projection.localUpdate pyb pa ga`.
    let localUpdate (partner: torch.Tensor) (input: torch.Tensor) (g: torch.Tensor) : torch.Tensor =
        Tensors.scoped (fun () -> g - Tensors.product (Tensors.product partner g) input)

    /// The same from orthonormal bases of the spans, V (d × k̃) and U (d_m × k): G − V (Vᵀ G U) Uᵀ, without d × d projectors.
    /// Example: `Projection.localUpdateFrom (Spectrum.leading 4 frameA.Partners) (Spectrum.leading 4 frameA.Inputs) ga`.
    let localUpdateFrom (v: torch.Tensor) (u: torch.Tensor) (g: torch.Tensor) : torch.Tensor =
        Tensors.scoped (fun () ->
            g - Tensors.product (Tensors.product v (Tensors.product (v.t ()) g |> fun vg -> Tensors.product vg u)) (u.t ()))

    /// Theorem 4 for a gradient G = gᵀX of B rows, whose rank is at most B: gᵀX − (g P̃)ᵀ(X P) (theory.md, section 7).
    /// `g` is ∂L/∂Y (B × d), `projectedInputs` the same rows of X P, which a step computes once; V (d × k̃) spans the partners' outputs.
    /// Example: `Projection.lowRank (Spectrum.leading 4 frameA.Partners) (ya / 10.0.AsScalar()) xa (Tensors.product xa pa)`.
    let lowRank (v: torch.Tensor) (g: torch.Tensor) (inputs: torch.Tensor) (projectedInputs: torch.Tensor) : torch.Tensor =
        Tensors.scoped (fun () ->
            let inside = Tensors.product (Tensors.product g v) (v.t ())
            Tensors.product (g.t ()) inputs - Tensors.product (inside.t ()) projectedInputs)
