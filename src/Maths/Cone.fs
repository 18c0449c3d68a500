namespace Cmcl

open System
open TorchSharp

/// How narrow a cone the rows of some features point into, all scaled to unit length.
type Cone =
    {
        /// How many rows were looked at; rows of zeros, which point nowhere, are not counted.
        Rows: int64
        /// ‖μ‖² of their mean μ, from 0 to 1: the mean cosine of two rows drawn with replacement.
        MeanShare: float
        /// exp(−Σ p ln p) of the eigenvalues of their second moment (uncentred) as shares p: from 1, all on one line, to d.
        EffectiveRank: float
    }

[<RequireQualifiedAccess>]
module Cone =
    /// exp(−Σ p ln p) of the shares that values have in their sum; values of 0 and below count as none, and none have a rank of 0.
    /// Example: `Cone.effectiveRank [ 2.0; 2.0; 0.0 ]`.
    let effectiveRank (values: float seq) : float =
        let positive = values |> Seq.filter (fun v -> v > 0.0) |> Array.ofSeq
        let total = Array.sum positive

        if positive.Length = 0 then
            0.0
        else
            positive |> Array.sumBy (fun v -> -(v / total) * Math.Log(v / total)) |> Math.Exp

    /// Of all rows of X (n × d) or, where they are more, of so many drawn by the seed; in float64, block by block. Faults:
    /// `Shape`, and `NonFinite` for a NaN or an infinity, as a `CmclException`.
    /// Example: `Cone.ofSome 20000L (Seed.ofInt 0) xa`.
    let ofSome (most: int64) (seed: Seed) (x: torch.Tensor) : Cone =
        Tensors.requireMatrix "rows of a cone" -1L -1L x
        use scope = torch.NewDisposeScope()
        let n, d = x.shape[0], x.shape[1]
        let block = max 1L (min 2048L ((1L <<< 20) / max 1L d))
        let sum = torch.zeros (d, d, dtype = Nullable torch.float64, device = x.device)
        let mean = torch.zeros (d, dtype = Nullable torch.float64, device = x.device)
        let total = min n most

        let drawn =
            if n > most then
                let numbers = (Seed.permutation n seed).data<int64>().ToArray() |> Array.take (int most) |> Array.sort
                Some((torch.tensor numbers).``to`` x.device)
            else
                None

        let mutable rows = 0L

        for first in 0L .. block .. total - 1L do
            use inner = torch.NewDisposeScope()
            let count = min block (total - first)

            let some =
                match drawn with
                | Some numbers -> x.index_select (0L, numbers.narrow (0L, first, count))
                | None -> x.narrow (0L, first, count)

            let wide = some.``to`` torch.float64
            Mapped.read drawn.IsSome count x
            let norms = wide.norm (1, keepdim = true)
            let unit = wide / norms.clamp_min (Double.Epsilon.AsScalar())
            Moment.addRows sum unit
            mean.plus_ (unit.sum 0L) |> ignore
            rows <- rows + norms.gt(0.0.AsScalar()).sum().cpu().item<int64>()

        let second = Moment.whole sum
        Tensors.requireFinite "the second moment of a cone's rows" second
        let size = float (max 1L rows)
        let values = torch.linalg.eigvalsh(second).cpu().data<float>().ToArray()
        // What is above 0 by rounding alone is no direction.
        let floor = float d * Tolerance.epsilon Dtype.Float64 * (if values.Length = 0 then 0.0 else Array.max values)

        { Rows = rows
          MeanShare = (Tensors.norm mean / size) ** 2.0
          EffectiveRank = effectiveRank (values |> Array.filter (fun v -> v > floor)) }

    /// The same of all rows. Example: `(Cone.ofRows xa).MeanShare`.
    let ofRows (x: torch.Tensor) : Cone = ofSome Int64.MaxValue (Seed.ofInt 0) x
