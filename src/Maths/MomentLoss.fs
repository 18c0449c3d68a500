namespace Cmcl

open TorchSharp

/// Losses of matched rows under linear heads that moments determine, so that they can be had when the rows are gone.
[<RequireQualifiedAccess>]
type MomentLoss =
    /// The spectral contrastive loss: −2 mean_i S_ii + mean_ij S_ij². Moments give it exactly.
    | Spectral
    /// InfoNCE, one way, as if the scores of an anchor were Gaussian and its negatives endless: mean_i (−S_ii + mean_j S_ij + ½ var_j S_ij).
    | Cumulant

/// What such a loss has to know of the matched rows of a pair (a, b).
type PairMoments =
    {
        /// How many rows there were.
        Count: int64
        /// C_a, d_a × d_a.
        A: torch.Tensor
        /// C_b, or for `Cumulant` the covariance Σ_b = C_b − μ_b μ_bᵀ; d_b × d_b.
        B: torch.Tensor
        /// C_ab, or for `Cumulant` Σ_ab = C_ab − μ_a μ_bᵀ; d_a × d_b.
        Cross: torch.Tensor
    }

    /// Every tensor in it.
    member p.Tensors: torch.Tensor list = [ p.A; p.B; p.Cross ]

/// Such losses of one head W while its partners stay: a sum of −⟨W, T⟩ + ½ tr(W C Wᵀ H) over pairs.
type HeadLoss =
    {
        /// T summed over the pairs, d × d_m.
        Linear: torch.Tensor
        /// H of the partner's outputs (d × d) and C of the head's inputs (d_m × d_m), of each pair.
        Quadratic: struct (torch.Tensor * torch.Tensor) list
    }

    /// Every tensor in it.
    member l.Tensors: torch.Tensor list =
        l.Linear
        :: [ for struct (h, c) in l.Quadratic do
                 h
                 c ]

/// With S = X_a M X_bᵀ/τ both losses are s (−⟨M, K⟩/τ + tr(M B Mᵀ A)/(2τ²)) of A, B and K = Cross: s is 2 for `Spectral` and 1 for `Cumulant`
/// (theory.md, section 11).
[<RequireQualifiedAccess>]
module PairMoments =
    let private scoped (make: unit -> PairMoments) : PairMoments = Tensors.scopedWith (fun (p: PairMoments) -> p.Tensors) make

    /// Of a pair, from sums over its rows of weight 1 and, for `Cumulant`, from the means of both sides (float64).
    /// Example: `PairMoments.ofSums MomentLoss.Spectral pair (JointMoments.ofRows pair xa xb) (fun _ -> Mean.ofRows xa)`.
    let ofSums (loss: MomentLoss) (pair: Pair) (sums: JointMoments) (mean: Modality -> Mean) : PairMoments =
        scoped (fun () ->
            let each (s: MomentSum) = s.Sum * (1.0 / s.Weight).AsScalar()
            let cross = each sums.Cross[JointMoments.both pair.A pair.B]
            let cross = if pair.A <= pair.B then cross else cross.t().contiguous()
            let a, b = each sums.Second[pair.A], each sums.Second[pair.B]
            let count = int64 sums.Second[pair.A].Weight

            match loss with
            | MomentLoss.Spectral -> { Count = count; A = a; B = b; Cross = cross }
            | MomentLoss.Cumulant ->
                let ofA, ofB = (mean pair.A).Vector, (mean pair.B).Vector

                { Count = count
                  A = a
                  B = b - torch.outer (ofB, ofB)
                  Cross = cross - torch.outer (ofA, ofB) })

    /// Of matched rows X_a (n × d_a), X_b (n × d_b). Example: `PairMoments.ofRows MomentLoss.Cumulant pair xa xb`.
    let ofRows (loss: MomentLoss) (pair: Pair) (xa: torch.Tensor) (xb: torch.Tensor) : PairMoments =
        let rows = Map [ pair.A, xa; pair.B, xb ]
        scoped (fun () -> ofSums loss pair (JointMoments.ofRows pair xa xb) (fun m -> Mean.ofRows rows[m]))

    /// The same in another type. Example: `PairMoments.ofRows MomentLoss.Spectral pair xa xb |> PairMoments.cast torch.float32`.
    let cast (dtype: torch.ScalarType) (p: PairMoments) : PairMoments =
        { p with
            A = p.A.``to`` dtype
            B = p.B.``to`` dtype
            Cross = p.Cross.``to`` dtype }

    let private size (loss: MomentLoss) : float =
        match loss with
        | MomentLoss.Spectral -> 2.0
        | MomentLoss.Cumulant -> 1.0

    /// tr(M B Mᵀ A)/τ²: the mean square of the scores over τ, for `Cumulant` their mean variance over candidates. The Gaussian of `Cumulant` is
    /// trustworthy where it is of order 1, and loose where it is large.
    /// Example: `PairMoments.spread 1.0 heads[pair.A] heads[pair.B] (PairMoments.ofRows MomentLoss.Cumulant pair xa xb)`.
    let spread (tau: float) (wa: torch.Tensor) (wb: torch.Tensor) (p: PairMoments) : float =
        use scope = torch.NewDisposeScope()
        let outputs (w: torch.Tensor) (c: torch.Tensor) = w.mm(c).mm(w.t ())
        Tensors.toFloat ((outputs wa p.A * outputs wb p.B).sum()) / (tau * tau)

    /// The loss at temperature τ under W_a (d × d_a) and W_b (d × d_b), a 0-d tensor, and its gradients with respect to both, in closed form:
    /// ∂L/∂W_a = s(−W_b Kᵀ/τ + W_b B W_bᵀ W_a A/τ²), and likewise for b.
    /// Example: `(PairMoments.gradients MomentLoss.Spectral 1.0 heads[pair.A] heads[pair.B] (PairMoments.ofRows MomentLoss.Spectral pair xa xb)).Loss`.
    let gradients (loss: MomentLoss) (tau: float) (wa: torch.Tensor) (wb: torch.Tensor) (p: PairMoments) : ContrastGradients =
        Tensors.scopedWith (fun g -> [ g.Loss; g.A; g.B ]) (fun () ->
            let linear, square = (size loss / tau).AsScalar(), (size loss / (tau * tau)).AsScalar()
            let pa, pb = wa.mm p.A, wb.mm p.B
            let matched = wb.mm (p.Cross.t ())
            let quadratic = pb.mm(wb.t ()).mm pa

            { Loss = (wa * quadratic).sum() * square * 0.5.AsScalar() - (wa * matched).sum() * linear
              A = quadratic * square - matched * linear
              B = pa.mm(wa.t ()).mm pb * square - wa.mm p.Cross * linear })

    /// The sum of a head's losses of weighted pairs (weight, partner's head, moments) that begin with it (`true`) or end with it, while the partners stay:
    /// for training, where two products an update are left of each pair.
    /// Example: `PairMoments.ofHead MomentLoss.Spectral 1.0 [ 1.0, heads[pair.B], true, PairMoments.ofRows MomentLoss.Spectral pair xa xb ]`.
    let ofHead (loss: MomentLoss) (tau: float) (pairs: (float * torch.Tensor * bool * PairMoments) list) : HeadLoss =
        Tensors.scopedWith (fun (l: HeadLoss) -> l.Tensors) (fun () ->
            let linear (weight: float, partner: torch.Tensor, first: bool, p: PairMoments) =
                partner.mm (if first then p.Cross.t () else p.Cross) * (weight * size loss / tau).AsScalar()

            let quadratic (weight: float, partner: torch.Tensor, first: bool, p: PairMoments) =
                let own, other = if first then p.A, p.B else p.B, p.A
                let outputs = partner.mm(other).mm(partner.t ())
                struct (outputs * (weight * size loss / (tau * tau)).AsScalar(), own.alias ())

            { Linear = pairs |> List.map linear |> List.reduce (.+)
              Quadratic = List.map quadratic pairs })

[<RequireQualifiedAccess>]
module HeadLoss =
    /// The loss of a head W (d × d_m), a 0-d tensor, and its gradient Σ H W C − T.
    let gradient (w: torch.Tensor) (l: HeadLoss) : struct (torch.Tensor * torch.Tensor) =
        Tensors.scopedWith (fun struct (loss, g) -> [ loss; g ]) (fun () ->
            let quadratic = [ for struct (h, c) in l.Quadratic -> h.mm(w).mm c ] |> List.reduce (.+)
            struct ((w * (quadratic * 0.5.AsScalar() - l.Linear)).sum(), quadratic - l.Linear))
