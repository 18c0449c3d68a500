namespace Cmcl

open TorchSharp

[<RequireQualifiedAccess>]
module Stability =
    /// Rows of scores held at once.
    let private blockRows = 1024L

    /// The deviation (theory.md, section 3: A_{s;t} − A_{s;s}) of a pair's scores between two sets of heads, in blocks of rows.
    /// Example: `Stability.deviation pair heads after xa xb`.
    let deviation (pair: Pair) (before: Heads) (now: Heads) (xa: torch.Tensor) (xb: torch.Tensor) : Deviation =
        let outputs heads m x = (Heads.outputs (Heads.weight m heads) x).``to`` torch.float64
        use scope = torch.NewDisposeScope()
        let a0, b0 = outputs before pair.A xa, outputs before pair.B xb
        let a1, b1 = outputs now pair.A xa, outputs now pair.B xb
        let n, columns = xa.shape[0], xb.shape[0]

        let add struct (sum, largest, squares, size) first count =
            use scope = torch.NewDisposeScope()
            let block (ya: torch.Tensor) (yb: torch.Tensor) = Tensors.product (ya.narrow (0L, first, count)) (yb.t ())
            let old = block a0 b0
            let change = (block a1 b1 - old).abs()

            struct (sum + Tensors.toFloat (change.sum ()),
                    max largest (Tensors.toFloat (change.max ())),
                    squares + Tensors.toFloat (change.square().sum()),
                    size + Tensors.toFloat (old.square().sum()))

        let rec go first sums =
            if first >= n then
                sums
            else
                let count = min blockRows (n - first)
                go (first + count) (add sums first count)

        let struct (sum, largest, squares, size) = go 0L (struct (0.0, 0.0, 0.0, 0.0))
        let entries = float n * float columns

        { Mean = sum / entries
          Max = largest
          Rms = sqrt (squares / entries)
          Relative = if size = 0.0 then sqrt squares else sqrt (squares / size) }
