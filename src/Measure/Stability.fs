namespace Cmcl

open TorchSharp

/// A pair's scores at an earlier time, to compare later ones with (float64).
[<RequireQualifiedAccess>]
type EarlierScores =
    /// All n_a × n_b of them.
    | Whole of torch.Tensor
    /// Outputs Y_a, Y_b that they are products of.
    | Outputs of a: torch.Tensor * b: torch.Tensor

[<RequireQualifiedAccess>]
module Stability =
    let private earlierBlock (earlier: EarlierScores) (first: int64, count: int64) : torch.Tensor =
        match earlier with
        | EarlierScores.Whole scores -> scores.narrow (0L, first, count)
        | EarlierScores.Outputs(a, b) -> Blocks.scores a b (first, count)

    /// Σ|x|, max|x|, Σx² of now − then and Σx² of then; `now` is used up.
    let private sums (old: torch.Tensor) (now: torch.Tensor) : float[] =
        let squares (t: torch.Tensor) = t.reshape(-1L).dot(t.reshape -1L)
        let change = now.sub_(old).abs()
        Tensors.toFloats [ change.sum (); change.amax ([| 0L; 1L |]); squares change; squares old ] |> Array.ofList

    /// How far the scores of outputs Y_a (n_a × d) and Y_b (n_b × d) are from earlier ones, both held in blocks of `budget` bytes together.
    let sinceWithin (budget: int64) (earlier: EarlierScores) (ya: torch.Tensor) (yb: torch.Tensor) : Deviation =
        use scope = torch.NewDisposeScope()
        let a, b = ya.``to`` torch.float64, yb.``to`` torch.float64

        let blocks =
            [ for block in Blocks.spans budget 16L b.shape[0] a.shape[0] do
                  use scope = torch.NewDisposeScope()
                  sums (earlierBlock earlier block) (Blocks.scores a b block) ]

        let total i = List.sumBy (fun (s: float[]) -> s[i]) blocks
        let entries, squares, size = float a.shape[0] * float b.shape[0], total 2, total 3

        { Mean = total 0 / entries
          Max = blocks |> List.fold (fun largest s -> max largest s[1]) 0.0
          Rms = sqrt (squares / entries)
          Relative = if size = 0.0 then sqrt squares else sqrt (squares / size) }

    /// The same within `Blocks.budget`.
    let since (earlier: EarlierScores) (ya: torch.Tensor) (yb: torch.Tensor) : Deviation = sinceWithin Blocks.budget earlier ya yb

    /// `deviation` with another budget of bytes than `Blocks.budget`.
    let deviationWithin
        (budget: int64)
        (pair: Pair)
        (before: Heads)
        (now: Heads)
        (xa: torch.Tensor)
        (xb: torch.Tensor)
        : Deviation =
        use scope = torch.NewDisposeScope()
        let outputs heads m x = (Heads.outputs (Heads.weight m heads) x).``to`` torch.float64
        let earlier = EarlierScores.Outputs(outputs before pair.A xa, outputs before pair.B xb)
        sinceWithin budget earlier (outputs now pair.A xa) (outputs now pair.B xb)

    /// The deviation (theory.md, section 3: A_{s;t} − A_{s;s}) of a pair's scores between two sets of heads, in blocks of rows.
    /// Example: `Stability.deviation pair heads after xa xb`.
    let deviation (pair: Pair) (before: Heads) (now: Heads) (xa: torch.Tensor) (xb: torch.Tensor) : Deviation =
        deviationWithin Blocks.budget pair before now xa xb
