namespace Cmcl

open TorchSharp

/// Squared gradients of InfoNCE, the diagonal of its Fisher information. A batch's loss is no sum of losses of samples of their own, so
/// the sample is the anchor i given its batch: ℓ_i = −log P_ii, P = softmax over rows of S = Y_a Y_bᵀ/τ, or the mean of this and of the
/// same over columns (`Symmetric`), so that the loss is the mean of the ℓ_i. All in closed form; nothing is approximated.
[<RequireQualifiedAccess>]
module FisherInformation =
    /// One side of a batch: inputs X (n × d_m), the outputs that scores are made of (n × d), the lengths that they were divided by.
    type private Side =
        { Inputs: torch.Tensor
          Outputs: torch.Tensor
          Lengths: torch.Tensor option }

    let private side (scoring: Scoring) (w: torch.Tensor) (x: torch.Tensor) : Side =
        let y = Heads.outputs w x

        { Inputs = x.alias ()
          Outputs = Alignment.prepare scoring y
          Lengths =
            match scoring with
            | Scoring.Raw -> None
            | Scoring.Cosine -> Some(Alignment.lengths y) }

    /// Σ_i (u_i v_iᵀ) ∘ (p_i q_iᵀ), two products of rank one for each row, as one product: (U∘P)ᵀ (V∘Q).
    let private paired (u: torch.Tensor) (v: torch.Tensor) (p: torch.Tensor) (q: torch.Tensor) : torch.Tensor =
        (u * p).t().mm(v * q)

    /// Σ_i G_i∘G_i over anchors with unit outputs, where the derivative of each row's length makes G_i one of any rank: its row k is
    /// Σ_j Y_kij x_jᵀ, Y_kij = (β_ij/‖y_j‖)(o_ik − u_jk⟨u_j, o_i⟩) + δ_ij p_ik. Some k at a time, in about 2²⁰ numbers or n × n.
    let private throughLengths
        (own: Side)
        (other: Side)
        (lengths: torch.Tensor)
        (along: torch.Tensor option)
        (across: torch.Tensor)
        : torch.Tensor =
        let x = own.Inputs
        let n, d, columns = x.shape[0], own.Outputs.shape[1], x.shape[1]
        let scaled = across / lengths.t ()
        let turned = scaled * other.Outputs.mm (own.Outputs.t ())
        let size = max 1L ((1L <<< 20) / (n * max n columns))

        let rows first =
            Tensors.scoped (fun () ->
                let count = min size (d - first)
                let some (t: torch.Tensor) = t.narrow(1L, first, count).t()
                let y = (some other.Outputs).unsqueeze(2L) * scaled - (some own.Outputs).unsqueeze(1L) * turned

                match along with
                | Some p -> y.diagonal(0L, 1L, 2L).plus_(some p) |> ignore
                | None -> ()

                y.reshape(count * n, n).mm(x).squared().view(count, n, columns).sum 1L)

        torch.cat ([| for first in 0L .. size .. d - 1L -> rows first |], 0L)

    /// Σ_i G_i∘G_i (d × d_m) for one side's weight. Anchor i's derivative with respect to the scores, this side's rows down, is
    /// e_i α_iᵀ + β_i e_iᵀ; α_i is a row of `along` (this side holds the anchor), β_i of `across` (the other side holds it). With raw scores
    /// G_i = p_i x_iᵀ + o_i r_iᵀ, p_i = Oᵀα_i, r_i = Xᵀβ_i, O being the other side's outputs: at most three products for all anchors.
    let private sumOfSquares (own: Side) (other: Side) (along: torch.Tensor option) (across: torch.Tensor option) : torch.Tensor =
        let u, x, o = own.Outputs, own.Inputs, other.Outputs

        let p =
            along
            |> Option.map (fun along ->
                let g = along.mm o

                match own.Lengths with
                | None -> g
                | Some lengths -> (g - u * (g * u).sum(1L, true)) / lengths)

        match p, across, own.Lengths with
        | Some p, None, _ -> paired p x p x
        | _, Some across, Some lengths -> throughLengths own other lengths p across
        | _, Some across, None ->
            let r = across.mm x
            let squares = paired o r o r

            match p with
            | None -> squares
            // A sum of squares, but for rounding.
            | Some p -> (squares .+ paired p x p x .+ paired p x o r * 2.0.AsScalar()).clamp_min(0.0.AsScalar())
        | None, None, _ -> torch.zeros (u.shape[1], x.shape[1], dtype = x.dtype, device = x.device)

    /// One target for each row of probabilities, n × 1, drawn by the inverse of its distribution function.
    let private drawn (seed: Seed) (p: torch.Tensor) : torch.Tensor =
        let n = p.shape[0]
        use g = Seed.generator seed
        let u = torch.rand([| n; 1L |], dtype = torch.float64, generator = g).``to`` p.device
        (p.``to`` torch.float64).cumsum(1L).le(u).sum(1L, true).clamp_max((p.shape[1] - 1L).AsScalar())

    let private ofTargets
        (targets: string -> torch.Tensor -> torch.Tensor)
        (c: Contrast)
        (pair: Pair)
        (heads: Heads)
        (xa: torch.Tensor)
        (xb: torch.Tensor)
        : Heads =
        Tensors.scopedWith (fun (h: Heads) -> h.Values) (fun () ->
            let a = side c.Scoring (Heads.weight pair.A heads) xa
            let b = side c.Scoring (Heads.weight pair.B heads) xb
            Tensors.requireMatrix "partner outputs" a.Outputs.shape[0] a.Outputs.shape[1] b.Outputs
            let n = a.Outputs.shape[0]
            let s = a.Outputs.mm (b.Outputs.t ()) / c.Temperature.AsScalar()

            /// ∂/∂(Y_a Y_bᵀ) of −log P_ij, j being i's target, anchors down.
            let errors (way: string) (scores: torch.Tensor) : torch.Tensor =
                let p = scores.softmax 1L
                let one = torch.ones (n, 1L, dtype = p.dtype, device = p.device)
                let share = if c.Symmetric then 0.5 else 1.0
                p.scatter_add (1L, targets way p, -one) * (share / c.Temperature).AsScalar()

            let rows = errors "rows" s
            let columns = if c.Symmetric then Some(errors "columns" (s.t ())) else None

            Map
                [ pair.A, sumOfSquares a b (Some rows) columns / (float n).AsScalar()
                  pair.B, sumOfSquares b a columns (Some rows) / (float n).AsScalar() ])

    /// mean_i (∂ℓ_i/∂W)∘(∂ℓ_i/∂W) for both heads of a pair (d × d_m each), every anchor with its true partner: the empirical Fisher
    /// information. Raw and one way, with E = P − I: F_a = (1/(nτ²)) (E Y_b)∘²ᵀ X_a∘², F_b = (1/(nτ²)) Y_a∘²ᵀ (E X_b)∘². For cosine scores a
    /// side whose rows are candidates costs n² d d_m. As in `FisherInformation.perAnchor Contrastive.paper pair heads xa xb`.
    let perAnchor (c: Contrast) (pair: Pair) (heads: Heads) (xa: torch.Tensor) (xb: torch.Tensor) : Heads =
        let own _ (p: torch.Tensor) = (Tensors.range p.device 0L p.shape[0]).unsqueeze 1L
        ofTargets own c pair heads xa xb

    /// The same with a partner j ~ P_i drawn for each anchor in place of its own: a draw of the Fisher information, of which the mean over
    /// seeds is mean_i Σ_j P_ij (∂ log P_ij/∂W)∘². Symmetric: each way draws for itself.
    let sampled (seed: Seed) (c: Contrast) (pair: Pair) (heads: Heads) (xa: torch.Tensor) (xb: torch.Tensor) : Heads =
        ofTargets (fun way p -> drawn (Seed.split way seed) p) c pair heads xa xb

    /// (∂L/∂W)∘(∂L/∂W) of the batch's mean loss L, as Avalanche has it: less than `perAnchor`, and close to zero near an optimum.
    let perBatch (c: Contrast) (pair: Pair) (heads: Heads) (xa: torch.Tensor) (xb: torch.Tensor) : Heads =
        Tensors.scopedWith (fun (h: Heads) -> h.Values) (fun () ->
            let wa, wb = Heads.weight pair.A heads, Heads.weight pair.B heads
            let g = Contrastive.gradients c (Heads.outputs wa xa) (Heads.outputs wb xb)

            Map
                [ pair.A, (Contrastive.weightGradient g.A xa).squared()
                  pair.B, (Contrastive.weightGradient g.B xb).squared() ])
