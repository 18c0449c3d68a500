namespace Cmcl

open TorchSharp

/// Scores of many rows against many, a block of rows at a time.
[<RequireQualifiedAccess>]
module Blocks =
    /// Bytes of scores held at once, whatever their type: 64 MiB. What is made of them, such as differences and comparisons, takes up
    /// to about three times as much beside them, for the time of one operation.
    let budget: int64 = 64L <<< 20

    /// Blocks (first row, count) of n rows whose scores against `columns` others, `size` bytes each, take at most `budget` bytes; never
    /// less than a row. Example: `Blocks.spans Blocks.budget 4L 10000L 10000L`.
    let spans (budget: int64) (size: int64) (columns: int64) (n: int64) : (int64 * int64) list =
        let rows = max 1L (budget / (size * max 1L columns))
        [ for first in 0L .. rows .. n - 1L -> first, min rows (n - first) ]

    /// Rows first … first + count − 1 of the scores Y_a Y_bᵀ.
    let scores (ya: torch.Tensor) (yb: torch.Tensor) (first: int64, count: int64) : torch.Tensor =
        Tensors.scoped (fun () -> Tensors.product (ya.narrow (0L, first, count)) (yb.t ()))
