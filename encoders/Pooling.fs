namespace Cmcl.Encoders

open TorchSharp
open Cmcl

/// One vector an item of what a model gives.
[<RequireQualifiedAccess>]
module Pooling =
    let private refuse (what: string) (n: int64) (pool: Pool) (output: torch.Tensor) : 'a =
        let expected =
            match pool with
            | Pool.Done ->
                $"one vector for each of {n} rows; if these are tokens or frames, 'pool' of the description makes one of them (mean or cls)"
            | Pool.First
            | Pool.Mean -> $"[{n} × tokens or frames × columns], to be pooled; where the model pools, leave out 'pool'"

        Check.fail (Fault.Shape(what, expected, Tensors.shapeText output))

    /// n × d of one vector an item: sides of 1 behind the first are dropped.
    let private vectors (what: string) (n: int64) (output: torch.Tensor) : torch.Tensor =
        match List.ofArray output.shape with
        | first :: rest when first = n ->
            match rest |> List.filter ((<>) 1L) with
            | [] -> output.reshape (n, 1L)
            | [ d ] -> output.reshape (n, d)
            | _ -> refuse what n Pool.Done output
        | _ -> refuse what n Pool.Done output

    /// The weights (n × t) of a mean over a mask's tokens or over the first share of frames; at least one of them.
    let private weights (mask: torch.Tensor option) (shares: float list) (t: int64) : torch.Tensor =
        match mask with
        | Some mask -> mask.``to`` torch.float32
        | None ->
            let row (share: float) =
                let own = max 1 (min (int t) (int (ceil (share * float t - 1e-6))))
                torch.tensor [| for i in 0 .. int t - 1 -> if i < own then 1f else 0f |]

            torch.stack [ for share in shares -> row share ]

    /// Vectors (n × d, float32) of a model's output: as it is; of each item's first token or frame; or the mean of its tokens (1 in the mask, n ×
    /// t) or of the share of its frames, from the first, that is its own. Fault, as an exception: `Shape`, with what the description should say.
    let rows (what: string) (pool: Pool) (mask: torch.Tensor option) (shares: float list) (output: torch.Tensor) : torch.Tensor =
        let n = int64 shares.Length

        match pool with
        | Pool.Done -> vectors what n output
        | _ when output.dim () <> 3L || output.shape[0] <> n -> refuse what n pool output
        | Pool.First -> output.select(1L, 0L).contiguous()
        | Pool.Mean ->
            let t = output.shape[1]

            match mask with
            | Some mask when mask.shape[1] <> t -> refuse what n pool output
            | _ ->
                let w = (weights mask shares t).unsqueeze 2L
                (output * w).sum(1L) / w.sum 1L
