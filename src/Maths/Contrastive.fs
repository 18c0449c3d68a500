namespace Cmcl

open TorchSharp

/// Which InfoNCE: temperature τ, how scores are made, one way (a → b, the paper's code) or the mean of both (CLIP).
type Contrast = { Temperature: float; Scoring: Scoring; Symmetric: bool }

/// A loss with its gradients: a 0-d tensor, and ∂L/∂Y_a, ∂L/∂Y_b of the outputs' shapes.
[<Struct>]
type ContrastGradients = { Loss: torch.Tensor; A: torch.Tensor; B: torch.Tensor }

/// InfoNCE with gradients in closed form (theory.md, section 2), so that training needs no autograd.
[<RequireQualifiedAccess>]
module Contrastive =
    /// The paper's: one way, τ = 1, inner products. Example: `{ Contrastive.paper with Symmetric = true }`.
    let paper: Contrast =
        { Temperature = 1.0
          Scoring = Scoring.Raw
          Symmetric = false }

    let private logits (c: Contrast) (ya: torch.Tensor) (yb: torch.Tensor) =
        Tensors.requireMatrix "partner outputs" ya.shape[0] ya.shape[1] yb
        (Alignment.scores c.Scoring ya yb).div_(c.Temperature.AsScalar())

    /// mean_i [ −S_ii + log Σ_j exp S_ij ], S = Y_a Y_bᵀ/τ, over n matched rows (n × d each); a 0-d tensor.
    /// Symmetric: the mean of this over rows and over columns. Made of differentiable operations, so autograd may check it.
    /// Example: `Contrastive.loss Contrastive.paper ya yb`.
    let loss (c: Contrast) (ya: torch.Tensor) (yb: torch.Tensor) : torch.Tensor =
        Tensors.scoped (fun () ->
            let s = logits c ya yb
            let matched = s.diagonal().mean()
            let rows = s.logsumexp(1L).mean() - matched
            if c.Symmetric then (rows .+ s.logsumexp(0L).mean() - matched) * 0.5.AsScalar() else rows)

    /// Through the normalisation of rows: ∂L/∂Y from ∂L/∂Ŷ, Ŷ = Y/‖Y‖: (g − Ŷ⟨Ŷ, g⟩)/‖Y‖.
    let internal throughNorm (scoring: Scoring) (y: torch.Tensor) (unit: torch.Tensor) (g: torch.Tensor) =
        match scoring with
        | Scoring.Raw -> g
        | Scoring.Cosine -> (g - unit * (g * unit).sum(1L, true)) / Alignment.lengths y

    /// The loss and its gradients with respect to the outputs, closed form. With p = softmax over rows of S and
    /// g = (p − I)/(nτ): ∂L/∂Y_a = g Y_b, ∂L/∂Y_b = gᵀ Y_a; symmetric averages g with the same over columns.
    /// Example: `(Contrastive.gradients Contrastive.paper ya yb).A`.
    let gradients (c: Contrast) (ya: torch.Tensor) (yb: torch.Tensor) : ContrastGradients =
        Tensors.scopedWith (fun g -> [ g.Loss; g.A; g.B ]) (fun () ->
            let ua, ub = Alignment.prepare c.Scoring ya, Alignment.prepare c.Scoring yb
            Tensors.requireMatrix "partner outputs" ya.shape[0] ya.shape[1] yb
            let n = float ya.shape[0]
            let logRows = (ua.mm (ub.t ())).div_(c.Temperature.AsScalar())
            let columns = if c.Symmetric then Some(logRows.log_softmax 0L) else None
            let rows = logRows.log_softmax 1L

            let loss, g =
                match columns with
                | None -> -rows.diagonal().mean(), rows.exp ()
                | Some columns ->
                    (rows.diagonal().mean() .+ columns.diagonal().mean()) * (-0.5).AsScalar(),
                    (rows.exp () .+ columns.exp ()).mul_(0.5.AsScalar())

            g.diagonal().sub_(1.0.AsScalar()) |> ignore
            g.div_ ((n * c.Temperature).AsScalar()) |> ignore

            { Loss = loss
              A = throughNorm c.Scoring ya ua (g.mm ub)
              B = throughNorm c.Scoring yb ub (g.t().mm ua) })

    /// G = (∂L/∂Y)ᵀ X (d × d_m): the gradient with respect to a weight whose outputs are Y = X Wᵀ (theory.md, section 2).
    /// Example: `Contrastive.weightGradient (Contrastive.gradients Contrastive.paper ya yb).A xa`.
    let weightGradient (outputGradient: torch.Tensor) (x: torch.Tensor) : torch.Tensor =
        Tensors.scoped (fun () -> Tensors.product (outputGradient.t ()) x)
