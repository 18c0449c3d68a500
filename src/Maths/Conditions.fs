namespace Cmcl

open TorchSharp

/// How far alignment scores moved: A_now − A_then over all n × n scores of a step's rows.
type Deviation =
    {
        /// Mean absolute difference.
        Mean: float
        Max: float
        /// Root mean square.
        Rms: float
        /// ‖A_now − A_then‖_F / ‖A_then‖_F.
        Relative: float
    }

/// The statements of the theory up to Theorem 4 as numbers: zero, to rounding, where they hold. Everything is computed in
/// float64, whatever comes in. A relative number is 0 where a factor that it is relative to is 0.
[<RequireQualifiedAccess>]
module Conditions =
    let internal wide (t: torch.Tensor) : torch.Tensor = t.``to`` torch.float64

    /// Dividing by one factor after the other: their product may be too small or too large for a number.
    let private relative (size: float) (factors: float list) : float =
        if List.contains 0.0 factors then 0.0 else List.fold (/) size factors

    /// ‖L Rᵀ‖ from the triangular factors of L and R: nothing of n × n is made.
    let private productNorm (left: torch.Tensor) (right: torch.Tensor) : float =
        use scope = torch.NewDisposeScope()

        let triangle (t: torch.Tensor) =
            let struct (_, r) = torch.linalg.qr (t, torch.linalg.QRMode.R)
            r

        Tensors.norm (Tensors.product (triangle left) ((triangle right).t()))

    /// ‖P − Pᵀ‖/‖P‖ of a square matrix P: 0 for a projector (the paper's projectors, Theorem 3; theory.md section 4).
    /// Example: `Conditions.asymmetry pa`.
    let asymmetry (p: torch.Tensor) : float =
        Tensors.requireMatrix "projector" p.shape[0] p.shape[0] p
        use scope = torch.NewDisposeScope()
        let p = wide p
        relative (Tensors.norm (p - p.t ())) [ Tensors.norm p ]

    /// ‖P² − P‖/‖P‖ of a square matrix P: 0 for a projector (the paper's projectors, Theorem 3; theory.md section 4).
    /// Example: `Conditions.idempotence pa`.
    let idempotence (p: torch.Tensor) : float =
        use scope = torch.NewDisposeScope()
        let p = wide p
        relative (Tensors.norm (Tensors.product p p - p)) [ Tensors.norm p ]

    /// The Definition of stability (arXiv 2503.14963): A_{s;t} = A_{s;s}. How far scores (n × n) are from what they were; no
    /// deviation for no rows. `Stability.deviation` does the same from heads, in blocks.
    /// Example: `Conditions.stability (Alignment.between pair heads xa xb) (Alignment.between pair after xa xb)`.
    let stability (before: torch.Tensor) (now: torch.Tensor) : Deviation =
        Tensors.requireMatrix "scores now" before.shape[0] before.shape[1] now
        use scope = torch.NewDisposeScope()
        let change = (wide now - wide before).abs()

        if change.NumberOfElements = 0L then
            { Mean = 0.0; Max = 0.0; Rms = 0.0; Relative = 0.0 }
        else
            let size, old = Tensors.norm change, Tensors.norm before

            { Mean = Tensors.toFloat (change.mean ())
              Max = Tensors.toFloat (change.max ())
              Rms = size / sqrt (float change.NumberOfElements)
              Relative = if old = 0.0 then size else size / old }

    /// Theorem 3: X_a (M̃ − P_a M̃ P_b) X_bᵀ = 0. Its norm over ‖X_a‖ ‖M̃‖ ‖X_b‖, for a global update M̃ (d_a × d_b), projectors
    /// onto the spans of the old inputs (d_a × d_a, d_b × d_b) and these inputs (n × d_a, n × d_b).
    /// Example: `Conditions.globalResidual pa pb (Heads.globalParameter pair heads) xa xb`.
    let globalResidual (pa: torch.Tensor) (pb: torch.Tensor) (m: torch.Tensor) (xa: torch.Tensor) (xb: torch.Tensor) : float =
        use scope = torch.NewDisposeScope()
        let update = Projection.globalUpdate (wide pa) (wide pb) (wide m)
        let size = productNorm (Tensors.product (wide xa) update) (wide xb)
        relative size [ Tensors.norm xa; Tensors.norm m; Tensors.norm xb ]

    /// What Theorem 4 is about: X Dᵀ Yᵀ (n × n, float64), the first-order change of old scores by a change D (d × d_m) of one
    /// head, for its old inputs X (n × d_m) and its partner's old outputs Y (n × d).
    /// Example: `Conditions.firstOrder da xa yb`.
    let firstOrder (d: torch.Tensor) (x: torch.Tensor) (y: torch.Tensor) : torch.Tensor =
        Tensors.scoped (fun () -> Tensors.product (Heads.outputs (wide d) (wide x)) ((wide y).t()))

    let private firstOrderAgainst (scale: torch.Tensor) (d: torch.Tensor) (x: torch.Tensor) (y: torch.Tensor) : float =
        use scope = torch.NewDisposeScope()
        let x = wide x
        let size = productNorm (Tensors.product x ((wide d).t())) (wide y)
        relative size [ Tensors.norm x; Tensors.norm scale; Tensors.norm y ]

    /// Theorem 4 of any change D (d × d_m): ‖X Dᵀ Yᵀ‖/(‖X‖ ‖D‖ ‖Y‖), X (n × d_m) the old inputs, Y (n × d) the partner's old
    /// outputs.
    /// Example: `Conditions.firstOrderResidual da xa yb`.
    let firstOrderResidual (d: torch.Tensor) (x: torch.Tensor) (y: torch.Tensor) : float = firstOrderAgainst d d x y

    /// Theorem 4: X Δᵀ Yᵀ = 0 for Δ = G − P̃ G P. Its norm over ‖X‖ ‖G‖ ‖Y‖, for an update G (d × d_m), P̃ (d × d) onto the span
    /// of the partner's old outputs Y (n × d), P (d_m × d_m) onto that of the old inputs X (n × d_m).
    /// Example: `Conditions.localResidual pyb pa ga xa yb`.
    let localResidual
        (partner: torch.Tensor)
        (input: torch.Tensor)
        (g: torch.Tensor)
        (x: torch.Tensor)
        (y: torch.Tensor)
        : float =
        use scope = torch.NewDisposeScope()
        firstOrderAgainst g (Projection.localUpdate (wide partner) (wide input) (wide g)) x y

    /// The one-sided condition X Dᵀ = 0, which is stronger than Theorem 4's and which its Δ does not meet: ‖X Dᵀ‖/(‖X‖ ‖D‖) for D
    /// (d × d_m) and old inputs X (n × d_m) (this project's, theory.md section 7: the exact variant).
    /// Example: `Conditions.oneSidedResidual da xa`.
    let oneSidedResidual (d: torch.Tensor) (x: torch.Tensor) : float =
        use scope = torch.NewDisposeScope()
        let x = wide x
        relative (Tensors.norm (Tensors.product x ((wide d).t()))) [ Tensors.norm x; Tensors.norm d ]

    /// How far a change D (d × d_m) is out of Theorem 4's constraint set P̃ D P = 0: ‖P̃ D P‖/‖D‖, from 0 to 1, for P̃ (d × d)
    /// and P (d_m × d_m).
    /// Example: `Conditions.leakage pyb pa da`.
    let leakage (partner: torch.Tensor) (input: torch.Tensor) (d: torch.Tensor) : float =
        use scope = torch.NewDisposeScope()
        let inside = Tensors.product (Tensors.product (wide partner) (wide d)) (wide input)
        relative (Tensors.norm inside) [ Tensors.norm d ]

    /// ‖X Dᵀ Yᵀ‖² without the rows: n² Σ_ij μ_i λ_j D'_ij² for a change in the frame D' (d × d_m), the energies λ of n old inputs
    /// and μ of their n partners' outputs (this project's, theory.md section 7a). Over several old pairs it also counts their
    /// cross terms.
    /// Example: `Conditions.firstOrderSquared frameA.Inputs frameA.Partners ma.Count (Frame.enter frameA da)`.
    let firstOrderSquared (inputs: Spectrum) (partners: Spectrum) (count: int64) (changeInFrame: torch.Tensor) : float =
        Tensors.requireMatrix "change in the frame" partners.Values.LongLength inputs.Values.LongLength changeInFrame
        use scope = torch.NewDisposeScope()

        let energies (values: float[]) = torch.tensor(values, dtype = torch.float64).reshape(-1L, 1L).``to`` changeInFrame.device

        let weighted = (wide changeInFrame).squared() * (energies inputs.Values).t() * energies partners.Values
        float count * float count * Tensors.toFloat (weighted.sum ())
