namespace Cmcl

open TorchSharp

/// Recall, accuracy and loss of matched rows, never with more of the n × n scores at a time than a budget of bytes holds.
[<RequireQualifiedAccess>]
module Retrieval =
    /// What is said of each row of a block: of its scores (rows × candidates) and its match's (rows × 1), vectors of a number a row.
    type private Say = torch.Tensor -> torch.Tensor -> torch.Tensor list

    /// How many scores are above the match's, and how many are the same, itself included. A match whose score is NaN equals
    /// nothing, itself neither.
    let private ranks: Say = fun scores matched -> [ scores.gt(matched).sum 1L; scores.eq(matched).sum 1L ]

    /// log Σ_j exp S_ij − S_ii, S = scores/τ.
    let private surprise (temperature: float) : Say =
        fun scores matched ->
            use temperature = temperature.ToScalar()
            [ (scores / temperature).logsumexp 1L - (matched / temperature).squeeze 1L ]

    let private both (f: Say) (g: Say) : Say = fun scores matched -> f scores matched @ g scores matched

    /// rows × numbers said, float64.
    let private table (say: Say) (scores: torch.Tensor) (matched: torch.Tensor) : torch.Tensor =
        torch.stack ([ for numbers in say scores matched -> numbers.``to`` torch.float64 ], 1L)

    let private lines (table: torch.Tensor) : float[][] =
        table.cpu().contiguous().data<float>().ToArray() |> Array.chunkBySize (int table.shape[1])

    /// What is said of each row of `queries`, whose match is the same row of `keys` and whose candidates are all of them.
    let private oneWay (budget: int64) (say: Say) (queries: torch.Tensor) (keys: torch.Tensor) : float[][] =
        [| for first, count in Blocks.spans budget (queries.element_size ()) keys.shape[0] queries.shape[0] do
               use scope = torch.NewDisposeScope()
               let scores = Blocks.scores queries keys (first, count)
               yield! lines (table say scores (scores.diagonal(first).unsqueeze 1L)) |]

    /// The same of the rows of `a` and of those of `b`, from one product where the budget holds all scores.
    let private bothWays (budget: int64) (sayA: Say) (sayB: Say) (a: torch.Tensor) (b: torch.Tensor) =
        let n = a.shape[0]

        match Blocks.spans budget (a.element_size ()) n n with
        | [ whole ] ->
            use scope = torch.NewDisposeScope()
            let scores = Blocks.scores a b whole
            let matched = scores.diagonal().unsqueeze 1L
            let ofA, ofB = table sayA scores matched, table sayB (scores.t ()) matched
            let width = int ofA.shape[1]
            let found = lines (torch.cat ([| ofA; ofB |], 1L))
            struct (Array.map (Array.take width) found, Array.map (Array.skip width) found)
        | _ -> struct (oneWay budget sayA a b, oneWay budget sayB b a)

    /// The mean over rows; NaN of none.
    let private mean (number: float[] -> float) (lines: float[][]) : float = Array.sumBy number lines / float lines.Length

    /// The chance of being among the k largest, ties broken evenly: clamp((k − greater)/equal, 0, 1) of what `ranks` says
    /// (docs/results.md: expected rank among ties). What equals not even itself is not found.
    let private hit (k: int) (line: float[]) : float =
        let greater, equal = line[0], line[1]
        if equal = 0.0 then 0.0 else (float k - greater) / equal |> max 0.0 |> min 1.0

    let private requireMatched (queries: torch.Tensor) (keys: torch.Tensor) =
        Tensors.requireMatrix "queries" -1L -1L queries
        Tensors.requireMatrix "keys" queries.shape[0] queries.shape[1] keys

    /// `recall` with another budget of bytes than `Blocks.budget`.
    let recallWithin (budget: int64) (ks: int list) (queries: torch.Tensor) (keys: torch.Tensor) : float list =
        requireMatched queries keys
        let found = oneWay budget ranks queries keys
        [ for k in ks -> mean (hit k) found ]

    /// Recall@k for each k, as fractions: row i of `queries` looks for row i of `keys` (n × d each, as scores want them).
    let recall (ks: int list) (queries: torch.Tensor) (keys: torch.Tensor) : float list =
        recallWithin Blocks.budget ks queries keys

    /// `accuracy` with another budget of bytes than `Blocks.budget`.
    let accuracyWithin (budget: int64) (items: torch.Tensor) (prototypes: torch.Tensor) (labels: int64[]) : float =
        use scope = torch.NewDisposeScope()
        let known = labels |> Array.indexed |> Array.filter (fun (_, label) -> label >= 0L)
        let rows = items.index_select (0L, torch.tensor(Array.map (fst >> int64) known).``to`` items.device)
        let label = torch.tensor(Array.map snd known).``to``(items.device).unsqueeze 1L

        mean
            (hit 1)
            [| for first, count in Blocks.spans budget (items.element_size ()) prototypes.shape[0] known.LongLength do
                   use scope = torch.NewDisposeScope()
                   let scores = Blocks.scores rows prototypes (first, count)
                   yield! lines (table ranks scores (scores.gather (1L, label.narrow (0L, first, count)))) |]

    /// The share of rows whose class has the largest score (ties shared); rows of class −1 are left out, NaN if all are.
    let accuracy (items: torch.Tensor) (prototypes: torch.Tensor) (labels: int64[]) : float =
        accuracyWithin Blocks.budget items prototypes labels

    /// `loss` with another budget of bytes than `Blocks.budget`.
    let lossWithin (budget: int64) (c: Contrast) (ya: torch.Tensor) (yb: torch.Tensor) : float =
        use scope = torch.NewDisposeScope()
        let a, b = Alignment.prepare c.Scoring ya, Alignment.prepare c.Scoring yb
        requireMatched a b
        let say = surprise c.Temperature

        if c.Symmetric then
            let struct (ofA, ofB) = bothWays budget say say a b
            0.5 * (mean Array.last ofA + mean Array.last ofB)
        else
            mean Array.last (oneWay budget say a b)

    /// InfoNCE with all rows in one batch: mean_i [ log Σ_j exp S_ij − S_ii ], S = Y_a Y_bᵀ/τ; symmetric, the mean of this and the same of Sᵀ.
    let loss (c: Contrast) (ya: torch.Tensor) (yb: torch.Tensor) : float = lossWithin Blocks.budget c ya yb

    /// `figures` with another budget of bytes than `Blocks.budget`.
    let figuresWithin (budget: int64) (c: Contrast) (ya: torch.Tensor) (yb: torch.Tensor) : (string * float) list =
        use scope = torch.NewDisposeScope()
        let a, b = Alignment.prepare c.Scoring ya, Alignment.prepare c.Scoring yb
        requireMatched a b
        let all = both ranks (surprise c.Temperature)
        let struct (ofA, ofB) = bothWays budget all (if c.Symmetric then all else ranks) a b

        [ for k in [ 1; 5; 10 ] do
              let forward, backward = mean (hit k) ofA, mean (hit k) ofB
              $"r{k}", 0.5 * (forward + backward)
              $"r{k}_ab", forward
              $"r{k}_ba", backward
          let forward = mean Array.last ofA
          "loss", (if c.Symmetric then 0.5 * (forward + mean Array.last ofB) else forward) ]

    /// r1, r5, r10 in both directions and their mean, and the loss, of one step's rows: (metric, value).
    let figures (c: Contrast) (ya: torch.Tensor) (yb: torch.Tensor) : (string * float) list = figuresWithin Blocks.budget c ya yb
