namespace Cmcl

open TorchSharp

/// How far all scores of an old step have moved, known without its rows.
[<Struct>]
type Drift =
    {
        /// ‖A_now − A_then‖_F over all n × n scores.
        Frobenius: float
        /// Root mean square of A_now − A_then.
        Rms: float
        /// ‖A_now − A_then‖_F / ‖A_then‖_F.
        Relative: float
    }

/// What is kept of a step when its data are gone (theory.md, section 8): for each side rows that have the second moment of the
/// step's own (`Spectrum.rows`; no samples), and their scores at its end. Everything a Frobenius norm says of all n × n scores follows.
type OldStep =
    {
        /// 1 for the first step.
        Index: int
        Pair: Pair
        /// n, the matched rows there were.
        Count: int64
        /// r_a × columns of W_a and r_b × columns of W_b, float64; a bias column is among them.
        A: torch.Tensor
        B: torch.Tensor
        /// r_a × r_b: the scores of those rows at the step's end.
        Scores: torch.Tensor
    }

    /// ‖A_then‖_F over all n × n scores.
    member s.Size: float = Tensors.norm s.Scores

/// An upper bound on how far one step of training moved an old step's scores, from what is kept of it: ‖A_after − A_before‖_F is at
/// most the sum of its parts (Theorem 5 with what truncation lets through; theory.md, section 8).
[<Struct>]
type Certificate =
    {
        /// ‖X_a D_aᵀ Y_bᵀ‖_F: the first order of a's change, zero for an exact null space.
        FirstA: float
        /// ‖Y_a D_b X_bᵀ‖_F, that of b's.
        FirstB: float
        /// ‖X_a D_aᵀ D_b X_bᵀ‖_F: the second order, only where both heads moved.
        Second: float
    }

    member c.First: float = c.FirstA + c.FirstB
    member c.Bound: float = c.First + c.Second

/// Stability known without the old data.
[<RequireQualifiedAccess>]
module OldStep =
    let private outputs (m: Modality) (heads: Heads) (rows: torch.Tensor) =
        Tensors.product rows ((Heads.weight m heads).``to``(torch.float64).t())

    /// What to keep of a step of matched rows X_a (n × d_a), X_b (n × d_b), with the heads at its end (theory.md, section 8).
    /// Example: `OldStep.ofRows 1 pair heads xa xb`.
    let ofRows (index: int) (pair: Pair) (heads: Heads) (xa: torch.Tensor) (xb: torch.Tensor) : OldStep =
        let kept (m: Modality) (x: torch.Tensor) =
            Tensors.scoped (fun () ->
                let moment = Moment.ofRows (Heads.inputs (Heads.weight m heads) x)
                Spectrum.rows moment.Count (Spectrum.decompose moment.Matrix))

        let a, b = kept pair.A xa, kept pair.B xb

        { Index = index
          Pair = pair
          Count = xa.shape[0]
          A = a
          B = b
          Scores = Tensors.scoped (fun () -> Tensors.product (outputs pair.A heads a) ((outputs pair.B heads b).t())) }

    /// Its tensors, for scopes and byte counts. Example: `OldStep.tensors old |> List.sumBy Tensors.bytes`.
    let tensors (s: OldStep) : torch.Tensor list = [ s.A; s.B; s.Scores ]

    /// A Frobenius size relative to ‖A_then‖, where the step had scores at all.
    /// Example: `OldStep.relative old (OldStep.certificate heads after old).Bound`.
    let relative (s: OldStep) (size: float) : float =
        let whole = s.Size
        if whole = 0.0 then size else size / whole

    /// From the difference of the kept scores.
    let private driftOf (s: OldStep) (difference: torch.Tensor) : Drift =
        let moved = Tensors.norm difference

        { Frobenius = moved
          Rms = moved / float (max 1L s.Count)
          Relative = relative s moved }

    /// ‖A_now − A_then‖ over all scores of the step under the given heads, exactly: n² tr(C_a M C_b Mᵀ) with
    /// M = W_aᵀ W_b now − then, without one of its rows (this project's, theory.md, section 8).
    /// Example: `(OldStep.drift after old).Relative`.
    let drift (heads: Heads) (s: OldStep) : Drift =
        use scope = torch.NewDisposeScope()
        driftOf s (Tensors.product (outputs s.Pair.A heads s.A) ((outputs s.Pair.B heads s.B).t()) - s.Scores)

    /// What a change of the heads did to the step's scores: the drift before it, the drift after it, and the certificate of the change,
    /// A_after − A_before = X_a D_aᵀ Y_bᵀ + Y_a D_b X_bᵀ + X_a D_aᵀ D_b X_bᵀ with the changes D and the outputs Y before it.
    /// Example: `let struct (earlier, now, certificate) = OldStep.across heads after old in now.Frobenius <= certificate.Bound`.
    let across (before: Heads) (after: Heads) (s: OldStep) : struct (Drift * Drift * Certificate) =
        use scope = torch.NewDisposeScope()

        let change m = (Heads.weight m after).``to`` torch.float64 - (Heads.weight m before).``to`` torch.float64

        let ya, yb = outputs s.Pair.A before s.A, outputs s.Pair.B before s.B
        let da, db = Tensors.product s.A ((change s.Pair.A).t()), Tensors.product s.B ((change s.Pair.B).t())
        let scores (x: torch.Tensor) (y: torch.Tensor) = Tensors.product x (y.t ())
        let firstA, firstB, second = scores da yb, scores ya db, scores da db
        let earlier = scores ya yb - s.Scores

        struct (driftOf s earlier,
                driftOf s (earlier + firstA + firstB + second),
                { FirstA = Tensors.norm firstA
                  FirstB = Tensors.norm firstB
                  Second = Tensors.norm second })

    /// The certificate of a change of the heads (Theorem 5 with truncation; theory.md, section 8).
    /// Example: `(OldStep.certificate heads after old).Bound`.
    let certificate (before: Heads) (after: Heads) (s: OldStep) : Certificate =
        let struct (_, _, certificate) = across before after s
        certificate

    /// What rounding may add to a relative change of scores whose outputs are kept in this type: √d_a ε.
    /// Example: `OldStep.rounding Dtype.Float32 old`.
    let rounding (dtype: Dtype) (s: OldStep) : float = sqrt (float s.A.shape[1]) * Tolerance.epsilon dtype
