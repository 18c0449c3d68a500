namespace Cmcl

open TorchSharp

/// Recall, accuracy and loss of matched rows, never with more of the n × n scores at a time than a budget of bytes holds.
[<RequireQualifiedAccess>]
module Retrieval =
    /// Sums over the rows of a block, a vector of some numbers (float64), from its scores (rows × candidates) and the scores of the
    /// rows' matches (rows × 1).
    type private Sums = torch.Tensor -> torch.Tensor -> torch.Tensor

    /// For each k, how many matches are among the k highest: the sum of clamp((k − greater)/equal, 0, 1) with `greater` scores above
    /// the match's and `equal` the same, itself included (docs/results.md: expected rank among ties). A match whose score is NaN equals
    /// nothing, itself neither, and is not found.
    let private found (ks: int list) : Sums =
        fun scores matched ->
            Tensors.scoped (fun () ->
                use zero = 0.0.AsScalar()
                use one = 1.0.AsScalar()
                // Compared in place, in the type of the scores, which is quicker than to a tensor of truths.
                let count (holds: torch.Tensor) = holds.sum (1L, ``type`` = torch.float64)
                let greater, equal = count (scores.clone().gt_ matched), count (scores.clone().eq_ matched)
                let ks = torch.tensor([| for k in ks -> float k |]).unsqueeze(1L).``to`` scores.device
                (((ks - greater) / equal).clamp(zero, one) * equal.gt zero).sum 1L)

    /// log Σ_j exp S_ij − S_ii, S = scores/τ.
    let private surprise (temperature: float) : Sums =
        fun scores matched ->
            Tensors.scoped (fun () ->
                use temperature = temperature.AsScalar()
                let each = (scores / temperature).logsumexp(1L, true) - matched / temperature
                each.``to``(torch.float64).sum 0L)

    let private both (f: Sums) (g: Sums) : Sums =
        fun scores matched -> Tensors.scoped (fun () -> torch.cat [| f scores matched; g scores matched |])

    let private diagonal (first: int64) (scores: torch.Tensor) : torch.Tensor = scores.diagonal(first).clone().unsqueeze 1L

    /// Means over all rows from sums of blocks; NaN for no rows.
    let private means (n: int64) (blocks: torch.Tensor list) : int -> float =
        if n = 0L then
            fun _ -> nan
        else
            use scope = torch.NewDisposeScope()
            let sums = torch.stack(blocks).sum(0L).cpu().data<float>().ToArray()
            fun i -> sums[i] / float n

    /// Of the rows of `queries`, whose matches are the same rows of `keys` and whose candidates are all of them.
    let private oneWay (budget: int64) (sums: Sums) (queries: torch.Tensor) (keys: torch.Tensor) : torch.Tensor list =
        [ for first, count in Blocks.spans budget (queries.element_size ()) keys.shape[0] queries.shape[0] ->
              Tensors.scoped (fun () ->
                  let scores = Blocks.scores queries keys (first, count)
                  sums scores (diagonal first scores)) ]

    /// The same of the rows of `a` and then those of `b`, from one product where the budget holds all scores.
    let private bothWays (budget: int64) (ofA: Sums) (ofB: Sums) (a: torch.Tensor) (b: torch.Tensor) : torch.Tensor list =
        let n = a.shape[0]

        match Blocks.spans budget (a.element_size ()) n n with
        | [ whole ] ->
            [ Tensors.scoped (fun () ->
                  let scores = Blocks.scores a b whole
                  both ofA (fun _ matched -> ofB (scores.t ()) matched) scores (diagonal 0L scores)) ]
        | _ -> List.map2 (fun x y -> torch.cat [| x; y |]) (oneWay budget ofA a b) (oneWay budget ofB b a)

    let private requireMatched (queries: torch.Tensor) (keys: torch.Tensor) =
        Tensors.requireMatrix "queries" -1L -1L queries
        Tensors.requireMatrix "keys" queries.shape[0] queries.shape[1] keys

    /// `recall` with another budget of bytes than `Blocks.budget`.
    let recallWithin (budget: int64) (ks: int list) (queries: torch.Tensor) (keys: torch.Tensor) : float list =
        requireMatched queries keys
        use scope = torch.NewDisposeScope()
        let mean = oneWay budget (found ks) queries keys |> means queries.shape[0]
        List.mapi (fun i _ -> mean i) ks

    /// Recall@k for each k, as fractions: row i of `queries` looks for row i of `keys` (n × d each, as scores want them).
    let recall (ks: int list) (queries: torch.Tensor) (keys: torch.Tensor) : float list =
        recallWithin Blocks.budget ks queries keys

    /// `accuracy` with another budget of bytes than `Blocks.budget`.
    let accuracyWithin (budget: int64) (items: torch.Tensor) (prototypes: torch.Tensor) (labels: int64[]) : float =
        use scope = torch.NewDisposeScope()
        let known = labels |> Array.indexed |> Array.filter (fun (_, label) -> label >= 0L)
        let rows = items.index_select (0L, torch.tensor(Array.map (fst >> int64) known).``to`` items.device)
        let label = torch.tensor(Array.map snd known).``to``(items.device).unsqueeze 1L

        [ for first, count in Blocks.spans budget (items.element_size ()) prototypes.shape[0] known.LongLength ->
              Tensors.scoped (fun () ->
                  let scores = Blocks.scores rows prototypes (first, count)
                  found [ 1 ] scores (scores.gather (1L, label.narrow (0L, first, count)))) ]
        |> means known.LongLength
        <| 0

    /// The share of rows whose class has the largest score (ties shared); rows of class −1 are left out, NaN if all are.
    let accuracy (items: torch.Tensor) (prototypes: torch.Tensor) (labels: int64[]) : float =
        accuracyWithin Blocks.budget items prototypes labels

    /// `lossInBatches` with another budget of bytes than `Blocks.budget`.
    let lossWithin (budget: int64) (size: int64) (c: Contrast) (ya: torch.Tensor) (yb: torch.Tensor) : float =
        use scope = torch.NewDisposeScope()
        let a, b = Alignment.prepare c.Scoring ya, Alignment.prepare c.Scoring yb
        requireMatched a b
        let batches = a.shape[0] / max 1L size
        let sum = surprise c.Temperature

        let sums (batch: int64) =
            let a, b = a.narrow (0L, batch * size, size), b.narrow (0L, batch * size, size)
            if c.Symmetric then bothWays budget sum sum a b else oneWay budget sum a b

        let mean = [ 0L .. batches - 1L ] |> List.collect sums |> means (batches * size)
        if c.Symmetric then 0.5 * (mean 0 + mean 1) else mean 0

    /// The mean of `loss` over full batches of `size` rows in order; what does not fill the last is left out.
    let lossInBatches (size: int64) (c: Contrast) (ya: torch.Tensor) (yb: torch.Tensor) : float =
        lossWithin Blocks.budget size c ya yb

    /// InfoNCE with all rows in one batch: mean_i [ log Σ_j exp S_ij − S_ii ], S = Y_a Y_bᵀ/τ; symmetric, the mean of this and the same of Sᵀ.
    let loss (c: Contrast) (ya: torch.Tensor) (yb: torch.Tensor) : float = lossInBatches ya.shape[0] c ya yb

    /// `figures` with another budget of bytes than `Blocks.budget`.
    let figuresWithin (budget: int64) (c: Contrast) (ya: torch.Tensor) (yb: torch.Tensor) : (string * float) list =
        use scope = torch.NewDisposeScope()
        let a, b = Alignment.prepare c.Scoring ya, Alignment.prepare c.Scoring yb
        requireMatched a b
        let ks = [ 1; 5; 10 ]
        let all = both (found ks) (surprise c.Temperature)
        let mean = bothWays budget all (if c.Symmetric then all else found ks) a b |> means a.shape[0]
        // One way: hits for each k and the loss; then the other way.
        let lossAt, other = ks.Length, ks.Length + 1

        [ for i, k in List.indexed ks do
              $"r{k}", 0.5 * (mean i + mean (other + i))
              $"r{k}_ab", mean i
              $"r{k}_ba", mean (other + i)
          "loss", (if c.Symmetric then 0.5 * (mean lossAt + mean (other + lossAt)) else mean lossAt) ]

    /// r1, r5, r10 in both directions and their mean, and the loss, of one step's rows: (metric, value).
    let figures (c: Contrast) (ya: torch.Tensor) (yb: torch.Tensor) : (string * float) list = figuresWithin Blocks.budget c ya yb
