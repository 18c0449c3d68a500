namespace Cmcl

open TorchSharp

/// Kept pairs of old steps under the heads of now.
[<RequireQualifiedAccess>]
module Replay =
    /// A loss of a group's pairs, taken as one batch, from their outputs, and its gradients with respect to those heads that `moves` says:
    /// ∂L/∂W = (∂L/∂Y)ᵀX. A head that does not move has no gradient, and a group none at all where neither does.
    let pass
        (moves: Modality -> bool)
        (heads: Heads)
        (loss: torch.Tensor -> torch.Tensor -> ContrastGradients)
        (group: Group)
        : Pass =
        Tensors.scopedWith (fun p -> Seq.append [ p.Loss ] p.Gradients.Values) (fun () ->
            let side m part =
                let w = Heads.weight m heads
                let x = group.Parts[part]
                struct (x, Tensors.product x (w.t ()))

            let struct (xa, ya) = side group.Pair.A "a"
            let struct (xb, yb) = side group.Pair.B "b"
            let g = loss ya yb

            { Loss = g.Loss
              Gradients =
                Map
                    [ if moves group.Pair.A then
                          group.Pair.A, Contrastive.weightGradient g.A xa
                      if moves group.Pair.B then
                          group.Pair.B, Contrastive.weightGradient g.B xb ] })

    /// The sum of a pass and another times a factor: of losses, and of gradients, where either may lack a head.
    let add (factor: float) (other: Pass) (own: Pass) : Pass =
        let sum (gradients: Heads) m (g: torch.Tensor) =
            let g = g * factor.AsScalar()
            Map.add m (Map.tryFind m gradients |> Option.map (fun own -> own .+ g) |> Option.defaultValue g) gradients

        { Loss = own.Loss .+ other.Loss * factor.AsScalar()
          Gradients = Map.fold sum own.Gradients other.Gradients }
