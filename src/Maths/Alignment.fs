namespace Cmcl

open TorchSharp

/// How scores are made of outputs: inner products as they are, or of unit vectors.
[<RequireQualifiedAccess>]
type Scoring =
    | Raw
    | Cosine

/// Alignment scores of a pair: A = Y_a Y_bᵀ, the quantity that stability is about (theory.md, section 1).
[<RequireQualifiedAccess>]
module Alignment =
    /// The length of each row, n × 1, at least 1e-12. Example: `Alignment.lengths ya`.
    let lengths (y: torch.Tensor) : torch.Tensor =
        use least = 1e-12.AsScalar()
        Tensors.scoped (fun () -> y.norm(1, true).clamp_min least)

    /// Rows of unit length (n × d). A row of zeros stays a row of zeros. Example: `Alignment.normalise ya`.
    let normalise (y: torch.Tensor) : torch.Tensor = Tensors.scoped (fun () -> y / lengths y)

    /// The outputs (n × d) that scores are taken of: Y itself, or its rows at unit length.
    /// Example: `Alignment.prepare Scoring.Cosine ya`.
    let prepare (scoring: Scoring) (y: torch.Tensor) : torch.Tensor =
        match scoring with
        | Scoring.Raw -> y.alias ()
        | Scoring.Cosine -> normalise y

    /// Scores (n_a × n_b) of outputs Y_a (n_a × d) and Y_b (n_b × d): Y_a Y_bᵀ, of unit rows when `Cosine`.
    /// Example: `Alignment.scores Scoring.Raw ya yb`.
    let scores (scoring: Scoring) (ya: torch.Tensor) (yb: torch.Tensor) : torch.Tensor =
        Tensors.scoped (fun () -> Tensors.product (prepare scoring ya) ((prepare scoring yb).t()))

    /// A = X_a W_aᵀ W_b X_bᵀ (n_a × n_b) under the given heads: inner products, whatever the loss scores by (the paper's
    /// alignment scores). Example: `Alignment.between pair heads xa xb`.
    let between (pair: Pair) (heads: Heads) (xa: torch.Tensor) (xb: torch.Tensor) : torch.Tensor =
        Tensors.scoped (fun () ->
            scores Scoring.Raw (Heads.outputs (Heads.weight pair.A heads) xa) (Heads.outputs (Heads.weight pair.B heads) xb))
