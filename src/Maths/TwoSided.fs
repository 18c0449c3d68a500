namespace Cmcl

open TorchSharp

/// The generalised eigenproblem of two symmetric matrices: VᵀBV = I and VᵀAV = diag λ.
type Pencil =
    {
        /// V.
        Vectors: torch.Tensor
        /// λ, those below 0 by rounding being 0.
        Values: torch.Tensor
    }

    /// Every tensor in it.
    member p.Tensors: torch.Tensor list = [ p.Vectors; p.Values ]

/// The equation H₁ D C₁ + κ H₀ D C₀ = R of a head's change D (d × d_m), for every price κ ≥ 0: it is where the gradient of
/// ½ tr(H₁ D C₁ Dᵀ) − ⟨R, D⟩ + ½ κ tr(H₀ D C₀ Dᵀ) is zero (theory.md, section 11).
type TwoSided =
    {
        /// Of H₁ and H₀, and of C₁ and C₀.
        Left: Pencil
        Right: Pencil
        /// R in these: P R Q of P = Vᵀ of the left and Q = V of the right.
        Target: torch.Tensor
        /// The outer product of both eigenvalues.
        Curvature: torch.Tensor
    }

[<RequireQualifiedAccess>]
module TwoSided =
    let private symmetric (t: torch.Tensor) : torch.Tensor = (t .+ t.t ()) * 0.5.AsScalar()

    /// Of A, positive semidefinite, and B, positive definite (n × n, float64 both). Fault: `NonFinite`, as a `CmclException`.
    /// Example: `TwoSided.pencil (pa.t().mm pa) (torch.eye (pa.shape[1], dtype = torch.float64))`.
    let pencil (a: torch.Tensor) (b: torch.Tensor) : Pencil =
        Tensors.scopedWith (fun (p: Pencil) -> p.Tensors) (fun () ->
            Tensors.requireFinite "a moment of new rows" a
            Tensors.requireFinite "a moment of old rows" b
            let n = b.shape[0]
            let lower = torch.linalg.cholesky (symmetric b)
            let identity = torch.eye (n, dtype = b.dtype, device = b.device)
            let inverse = torch.linalg.solve (lower, identity)
            let struct (values, vectors) = torch.linalg.eigh (symmetric (inverse.mm(a).mm(inverse.t ())))

            { Vectors = inverse.t().mm vectors
              Values = values.clamp_min (0.0.AsScalar()) })

    /// The equation of pencils (H₁, H₀) and (C₁, C₀) and of R (d × d_m).
    /// As in `TwoSided.make (TwoSided.pencil h1 h0) (TwoSided.pencil c1 c0) r`.
    let make (left: Pencil) (right: Pencil) (r: torch.Tensor) : TwoSided =
        let made () =
            { Left = left
              Right = right
              Target = left.Vectors.t().mm(r).mm right.Vectors
              Curvature = torch.outer (left.Values, right.Values) }

        Tensors.scopedWith (fun e -> [ e.Target; e.Curvature ]) made

    /// D in the pencils: each entry of the target over α_i β_j + κ; 0 where that is 0 to rounding, so that what neither term sees stays.
    let private entries (kappa: float) (e: TwoSided) : torch.Tensor =
        let curvature = e.Curvature.plus kappa
        let floor = curvature.max () * (float e.Curvature.shape[0] * Tolerance.epsilon Dtype.Float64).AsScalar()
        torch.where (curvature.gt floor, e.Target / curvature, torch.zeros_like curvature)

    /// D at a price κ ≥ 0: for κ = 0 what is best without regard to the old, and towards 0 for κ without end. As in `TwoSided.solve 10.0 equation`.
    let solve (kappa: float) (e: TwoSided) : torch.Tensor =
        Tensors.scoped (fun () -> e.Left.Vectors.mm(entries kappa e).mm(e.Right.Vectors.t ()))

    /// √tr(H₀ D C₀ Dᵀ) of this D: what is paid for, and never more for a larger κ. As in `TwoSided.paid 10.0 equation`.
    let paid (kappa: float) (e: TwoSided) : float =
        use scope = torch.NewDisposeScope()
        Tensors.norm (entries kappa e)
