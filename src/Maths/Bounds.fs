namespace Cmcl

open TorchSharp

/// How far a step can move old scores: Theorem 5, and what a cut spectrum adds. Everything is computed in float64, whatever comes
/// in.
[<RequireQualifiedAccess>]
module Bounds =
    let private wide = Conditions.wide

    /// X Dᵀ in float64.
    let private moved (d: torch.Tensor) (x: torch.Tensor) : torch.Tensor = Heads.outputs (wide d) (wide x)

    /// The largest singular value; NaN where a value is not finite.
    let private spectral (t: torch.Tensor) : float =
        use scope = torch.NewDisposeScope()

        if t.NumberOfElements = 0L then 0.0
        elif not (Tensors.isFinite t) then nan
        else Tensors.toFloat (torch.linalg.svdvals(t).max())

    /// A_after − A_before (n × n, float64): what Theorem 5 bounds, for old inputs X_a (n × d_a), X_b (n × d_b).
    /// Example: `Bounds.change pair heads after xa xb`.
    let change (pair: Pair) (before: Heads) (after: Heads) (xa: torch.Tensor) (xb: torch.Tensor) : torch.Tensor =
        Tensors.scoped (fun () ->
            let scores heads = Alignment.between pair (Heads.map wide heads) (wide xa) (wide xb)
            scores after - scores before)

    /// X_a D_aᵀ D_b X_bᵀ (n × n, float64): all that Theorem 5 leaves of the change of old scores, for the whole changes D_a (d ×
    /// d_a), D_b (d × d_b) of a step and old inputs X_a (n × d_a), X_b (n × d_b).
    /// Example: `Bounds.secondOrder xa da db xb`.
    let secondOrder (xa: torch.Tensor) (da: torch.Tensor) (db: torch.Tensor) (xb: torch.Tensor) : torch.Tensor =
        Tensors.scoped (fun () -> Tensors.product (moved da xa) ((moved db xb).t()))

    /// ‖A_after − A_before − what explains it‖/‖A_before‖; the plain norm where all old scores are 0.
    let private unexplained
        (explanation: torch.Tensor -> torch.Tensor -> torch.Tensor)
        (pair: Pair)
        (before: Heads)
        (after: Heads)
        (xa: torch.Tensor)
        (xb: torch.Tensor)
        : float =
        use scope = torch.NewDisposeScope()
        let difference m = wide (Heads.weight m after) - wide (Heads.weight m before)
        let rest = change pair before after xa xb - explanation (difference pair.A) (difference pair.B)
        let old = Tensors.norm (Alignment.between pair (Heads.map wide before) (wide xa) (wide xb))
        if old = 0.0 then Tensors.norm rest else Tensors.norm rest / old

    /// Theorem 5's identity: A_after − A_before = X_a D_aᵀ D_b X_bᵀ where both whole changes are in their constraint sets P̃ D P
    /// = 0. The distance of the two sides over ‖A_before‖, for old inputs X_a (n × d_a), X_b (n × d_b).
    /// Example: `Bounds.identityResidual pair heads after xa xb`.
    let identityResidual (pair: Pair) (before: Heads) (after: Heads) (xa: torch.Tensor) (xb: torch.Tensor) : float =
        unexplained (fun da db -> secondOrder xa da db xb) pair before after xa xb

    /// The algebra under Theorem 5, true of any change: A_after − A_before = X_a D_aᵀ Y_bᵀ + Y_a D_b X_bᵀ + X_a D_aᵀ D_b X_bᵀ
    /// with Y the outputs before. The distance of the two sides over ‖A_before‖, for X_a (n × d_a), X_b (n × d_b).
    /// Example: `Bounds.expansionResidual pair heads after xa xb`.
    let expansionResidual (pair: Pair) (before: Heads) (after: Heads) (xa: torch.Tensor) (xb: torch.Tensor) : float =
        let terms da db =
            let ya, yb = moved (Heads.weight pair.A before) xa, moved (Heads.weight pair.B before) xb
            Conditions.firstOrder da xa yb .+ (Conditions.firstOrder db xb ya).t() .+ secondOrder xa da db xb

        unexplained terms pair before after xa xb

    /// Theorem 5's bound of ‖A_after − A_before‖ for a whole step: ‖X_a D_aᵀ‖ ‖D_b X_bᵀ‖, both changes in their constraint sets;
    /// D_a (d × d_a), D_b (d × d_b), X_a (n × d_a), X_b (n × d_b).
    /// Example: `Bounds.wholeStep xa da db xb`.
    let wholeStep (xa: torch.Tensor) (da: torch.Tensor) (db: torch.Tensor) (xb: torch.Tensor) : float =
        use scope = torch.NewDisposeScope()
        Tensors.norm (moved da xa) * Tensors.norm (moved db xb)

    /// Theorem 5's bound for one gradient step W − ηΔ: η² ‖X_a Δ_aᵀ‖ ‖Δ_b X_bᵀ‖ for projected gradients Δ_a (d × d_a), Δ_b (d ×
    /// d_b) and old inputs X_a (n × d_a), X_b (n × d_b).
    /// Example: `Bounds.gradientStep 0.1 xa deltas[pair.A] deltas[pair.B] xb`.
    let gradientStep (eta: float) (xa: torch.Tensor) (deltaA: torch.Tensor) (deltaB: torch.Tensor) (xb: torch.Tensor) : float =
        eta * eta * wholeStep xa deltaA deltaB xb

    /// ‖A B C‖ is at most one factor's Frobenius norm times the two others' spectral norms; the smallest of the three.
    let private smallest (factors: torch.Tensor list) : float =
        let norms = [ for f in factors -> Tensors.norm f, spectral f ]

        [ for i in 0 .. norms.Length - 1 ->
              norms |> List.mapi (fun j (frobenius, spectral) -> if i = j then frobenius else spectral) |> List.reduce (*) ]
        |> List.min

    /// A bound of ‖X Dᵀ Yᵀ‖ for D (d × d_m) with P̃ D P = 0 where the spans are cut: of ‖R Dᵀ Yᵀ‖ + ‖X P Dᵀ Sᵀ‖ with what the
    /// projectors P (d_m × d_m) and P̃ (d × d) leave out, R = X (I − P) of the old inputs X (n × d_m) and S = Y (I − P̃) of the
    /// partner's old outputs Y (n × d) (this project's, theory.md section 4, truncation).
    /// Example: `Bounds.truncation pyb pa da xa yb`.
    let truncation (partner: torch.Tensor) (input: torch.Tensor) (d: torch.Tensor) (x: torch.Tensor) (y: torch.Tensor) : float =
        use scope = torch.NewDisposeScope()
        let x, y, d = wide x, wide y, wide d
        let kept = Tensors.product x (wide input)
        let r, s = x - kept, y - Tensors.product y (wide partner)
        smallest [ r; d; y ] + smallest [ kept; d; s ]

    /// The share of energy that a projector P (d_m × d_m) leaves out of rows X (n × d_m): ‖X (I − P)‖²/‖X‖², 0 for no energy
    /// (this project's, theory.md section 4, truncation).
    /// Example: `Bounds.discarded pa xa`.
    let discarded (input: torch.Tensor) (x: torch.Tensor) : float =
        use scope = torch.NewDisposeScope()
        let x = wide x
        let all = Tensors.norm x
        if all = 0.0 then 0.0 else (Tensors.norm (x - Tensors.product x (wide input)) / all) ** 2.0
