namespace Cmcl

open TorchSharp

/// Recall, accuracy and loss of matched rows, never with more than a block of the n × n scores at a time.
[<RequireQualifiedAccess>]
module Retrieval =
    /// Scores held at once: 16 Mi numbers.
    let private blockSize = 1L <<< 24

    /// Folds over blocks of rows of `queries` (n × d): `f state first block` where block is the scores of rows
    /// first … against all of `keys` (m × d).
    let private overBlocks
        (f: 'state -> int64 -> torch.Tensor -> 'state)
        (state: 'state)
        (queries: torch.Tensor)
        (keys: torch.Tensor)
        : 'state =
        let n = queries.shape[0]
        let rows = max 1L (blockSize / max 1L keys.shape[0])

        let block state first count =
            use scope = torch.NewDisposeScope()
            f state first (Tensors.product (queries.narrow (0L, first, count)) (keys.t ()))

        let rec go state first =
            if first >= n then
                state
            else
                let count = min rows (n - first)
                go (block state first count) (first + count)

        go state 0L

    /// The chance of being among the k largest, ties broken evenly: clamp((k − greater)/equal, 0, 1), where `equal` counts
    /// the match itself (docs/results.md: expected rank among ties). A match whose score is NaN equals nothing, itself
    /// neither, and is not found.
    let private hits (k: int) (greater: torch.Tensor) (equal: torch.Tensor) =
        ((k.ToScalar() - greater) / equal).clamp(0.0.ToScalar(), 1.0.ToScalar()) * equal.gt (0.0.ToScalar())

    /// Recall@k for each k, as fractions: row i of `queries` looks for row i of `keys` (n × d each, as scores want them).
    let recall (ks: int list) (queries: torch.Tensor) (keys: torch.Tensor) : float list =
        Tensors.requireMatrix "keys" queries.shape[0] queries.shape[1] keys

        let add (sums: float list) first (scores: torch.Tensor) =
            let matched = scores.diagonal(first).unsqueeze 1L
            let greater = scores.gt(matched).sum(1L).``to`` torch.float64
            let equal = scores.eq(matched).sum(1L).``to`` torch.float64
            List.map2 (fun sum k -> sum + Tensors.toFloat ((hits k greater equal).sum())) sums ks

        overBlocks add (ks |> List.map (fun _ -> 0.0)) queries keys |> List.map (fun sum -> sum / float queries.shape[0])

    /// The share of rows whose class has the largest score (ties shared); rows of class −1 are left out, NaN if all are.
    let accuracy (items: torch.Tensor) (prototypes: torch.Tensor) (labels: int64[]) : float =
        use scope = torch.NewDisposeScope()
        let known = labels |> Array.indexed |> Array.filter (fun (_, label) -> label >= 0L)

        if known.Length = 0 then
            nan
        else
            let rows = items.index_select (0L, torch.tensor(Array.map (fst >> int64) known).``to`` items.device)
            let label = torch.tensor(Array.map snd known).``to``(items.device).unsqueeze 1L

            let scores = Tensors.product rows (prototypes.t ())
            let own = scores.gather (1L, label)
            let greater = scores.gt(own).sum(1L).``to`` torch.float64
            let equal = scores.eq(own).sum(1L).``to`` torch.float64
            Tensors.toFloat ((hits 1 greater equal).mean())

    /// mean_i [ log Σ_j exp S_ij − S_ii ] with all rows as candidates, S = queries·keysᵀ/τ.
    let private oneWayLoss (temperature: float) (queries: torch.Tensor) (keys: torch.Tensor) : float =
        let add sum first (scores: torch.Tensor) =
            let s = scores / temperature.ToScalar()
            sum + Tensors.toFloat ((s.logsumexp 1L - s.diagonal first).``to``(torch.float64).sum())

        overBlocks add 0.0 queries keys / float queries.shape[0]

    /// InfoNCE with all rows in one batch, without the n × n scores in memory.
    let loss (c: Contrast) (ya: torch.Tensor) (yb: torch.Tensor) : float =
        use scope = torch.NewDisposeScope()
        let a, b = Alignment.prepare c.Scoring ya, Alignment.prepare c.Scoring yb
        let forward = oneWayLoss c.Temperature a b
        if c.Symmetric then 0.5 * (forward + oneWayLoss c.Temperature b a) else forward

    /// r1, r5, r10 in both directions and their mean, and the loss, of one step's rows: (metric, value).
    let figures (c: Contrast) (ya: torch.Tensor) (yb: torch.Tensor) : (string * float) list =
        use scope = torch.NewDisposeScope()
        let ks = [ 1; 5; 10 ]
        let a, b = Alignment.prepare c.Scoring ya, Alignment.prepare c.Scoring yb
        let ab, ba = recall ks a b, recall ks b a

        [ for k, forward, backward in List.zip3 ks ab ba do
              $"r{k}", 0.5 * (forward + backward)
              $"r{k}_ab", forward
              $"r{k}_ba", backward
          "loss", loss c ya yb ]
