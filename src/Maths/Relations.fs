namespace Cmcl

open TorchSharp

/// Outputs that are candidates beside the partners of a batch (m × d each): for the rows of Y_a beside Y_b, for those of Y_b beside Y_a.
/// One way (a → b) the rows of Y_b are no anchors, and `ForB` does not enter.
type Beside = { ForA: torch.Tensor list; ForB: torch.Tensor list }

/// InfoNCE among more candidates: loss and gradients of the matched rows, and ∂L/∂Y of every candidate beside them, in the order given.
type BesideGradients =
    { Matched: ContrastGradients
      ForA: torch.Tensor list
      ForB: torch.Tensor list }

/// How the two sides of n matched rows are related: softmax over each row of Ŷ_a Ŷ_bᵀ/κ, and over each column (n × n both), Ŷ being rows
/// of unit length. In Co2L a sample is related to all others but itself; here the two sides are different modalities, so that the pair i, i
/// is a relation like the others and none is left out.
type Relations = { Rows: torch.Tensor; Columns: torch.Tensor }

/// Losses of contrastive continual learning (Cha, Lee and Shin 2021, Co2L) between two modalities, with gradients in closed form.
[<RequireQualifiedAccess>]
module Relations =
    let private sum (ts: torch.Tensor list) : torch.Tensor = List.reduce (.+) ts

    /// One way, of outputs as scores want them: the loss and its gradients with respect to anchors and to each block of candidates. With p the
    /// softmax over rows of U Cᵀ/τ and g = (p − [I 0])/(nτ): ∂L/∂U = g C, ∂L/∂C = gᵀ U.
    let private oneWay (tau: float) (anchors: torch.Tensor) (candidates: torch.Tensor list) =
        let n = anchors.shape[0]
        let all = torch.cat (Array.ofList candidates, 0L)
        let log = (anchors.mm (all.t ())).div_(tau.AsScalar()).log_softmax 1L
        let g = log.exp ()
        g.diagonal().sub_(1.0.AsScalar()) |> ignore
        g.div_ ((float n * tau).AsScalar()) |> ignore
        let ofAll = g.t().mm anchors
        let firsts = candidates |> List.scan (fun first c -> first + c.shape[0]) 0L

        struct (-log.diagonal().mean(),
                g.mm all,
                [ for first, c in Seq.zip firsts candidates -> ofAll.narrow (0L, first, c.shape[0]) ])

    /// The asymmetric contrastive loss of Co2L with partners for positives: mean_i −log (exp S_ii / (Σ_j exp S_ij + Σ_k exp S'_ik)), S = Y_a Y_bᵀ/τ
    /// over the n matched rows (n × d each), S' the scores against the candidates beside. Only matched rows are anchors. Symmetric: the
    /// mean of this and of the same from b to a. Without candidates beside it is `Contrastive.gradients`, bit for bit.
    /// As in `Relations.contrast Contrastive.paper ya yb { ForA = [ replayed ]; ForB = [] }`.
    let contrast (c: Contrast) (ya: torch.Tensor) (yb: torch.Tensor) (beside: Beside) : BesideGradients =
        let tensors (g: BesideGradients) : seq<torch.Tensor> = [ g.Matched.Loss; g.Matched.A; g.Matched.B ] @ g.ForA @ g.ForB

        Tensors.scopedWith tensors (fun () ->
            let d = ya.shape[1]
            Tensors.requireMatrix "partner outputs" ya.shape[0] d yb

            for t in beside.ForA @ beside.ForB do
                Tensors.requireMatrix "outputs of candidates" -1L d t

            let unused = List.map torch.zeros_like

            if beside.ForA.IsEmpty && (beside.ForB.IsEmpty || not c.Symmetric) then
                { Matched = Contrastive.gradients c ya yb
                  ForA = []
                  ForB = unused beside.ForB }
            else
                let prepare = Alignment.prepare c.Scoring
                let back y (g: torch.Tensor) = Contrastive.throughNorm c.Scoring y (prepare y) g
                let ua, ub = prepare ya, prepare yb
                let struct (loss, a, ofB) = oneWay c.Temperature ua (ub :: List.map prepare beside.ForA)

                if c.Symmetric then
                    let struct (loss', b, ofA) = oneWay c.Temperature ub (ua :: List.map prepare beside.ForB)
                    let half (t: torch.Tensor) = t * 0.5.AsScalar()

                    { Matched =
                        { Loss = half (loss .+ loss')
                          A = back ya (half (a .+ ofA.Head))
                          B = back yb (half (b .+ ofB.Head)) }
                      ForA = List.map2 back beside.ForA (List.map half ofB.Tail)
                      ForB = List.map2 back beside.ForB (List.map half ofA.Tail) }
                else
                    { Matched = { Loss = loss; A = back ya a; B = back yb ofB.Head }
                      ForA = List.map2 back beside.ForA ofB.Tail
                      ForB = unused beside.ForB })

    /// Log-softmax over rows and over columns of Ŷ_a Ŷ_bᵀ/κ.
    let private logs (kappa: float) (ya: torch.Tensor) (yb: torch.Tensor) =
        Tensors.requireMatrix "partner outputs" ya.shape[0] ya.shape[1] yb
        let s = (Alignment.scores Scoring.Cosine ya yb).div_(kappa.AsScalar())
        struct (s.log_softmax 1L, s.log_softmax 0L)

    /// The relations of matched rows (n × d each) at temperature κ. As in `Relations.between 0.01 ya yb`.
    let between (kappa: float) (ya: torch.Tensor) (yb: torch.Tensor) : Relations =
        Tensors.scopedWith (fun r -> [ r.Rows; r.Columns ]) (fun () ->
            let struct (rows, columns) = logs kappa ya yb

            { Rows = rows.exp (); Columns = columns.exp () })

    /// Instance-wise relation distillation (Co2L's L_IRD): ½ mean_i (−Σ_j q_ij log p_ij), over rows, + the same over columns, q being the
    /// relations given and p those of these outputs at temperature κ. Its gradient goes through p alone: with
    /// g = (p − q, rows + columns)/(2nκ), ∂L/∂Ŷ_a = g Ŷ_b, ∂L/∂Ŷ_b = gᵀ Ŷ_a, and from there through the lengths. It is the entropy of q, its least
    /// value, where p = q. As in `Relations.distil 0.2 (Relations.between 0.01 before after) ya yb`.
    let distil (kappa: float) (past: Relations) (ya: torch.Tensor) (yb: torch.Tensor) : ContrastGradients =
        Tensors.scopedWith (fun g -> [ g.Loss; g.A; g.B ]) (fun () ->
            let n = ya.shape[0]
            Tensors.requireMatrix "relations over rows" n n past.Rows
            Tensors.requireMatrix "relations over columns" n n past.Columns
            let struct (rows, columns) = logs kappa ya yb
            let entropies = (past.Rows * rows).sum() .+ (past.Columns * columns).sum()

            let g = sum [ rows.exp (); columns.exp (); -past.Rows; -past.Columns ] / (2.0 * float n * kappa).AsScalar()

            let ua, ub = Alignment.normalise ya, Alignment.normalise yb

            { Loss = entropies / (-2.0 * float n).AsScalar()
              A = Contrastive.throughNorm Scoring.Cosine ya ua (g.mm ub)
              B = Contrastive.throughNorm Scoring.Cosine yb ub (g.t().mm ua) })
