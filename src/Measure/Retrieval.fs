namespace Cmcl

open TorchSharp

/// Recall, accuracy and loss of matched rows, never with more of the n × n scores at a time than a budget of bytes holds.
[<RequireQualifiedAccess>]
module Retrieval =
    /// Sums over the rows of a block, a vector of some numbers (float64), from its scores (rows × candidates) and the scores of the
    /// rows' matches (rows × 1).
    type private Sums = torch.Tensor -> torch.Tensor -> torch.Tensor

    /// For every row how many scores are above its match's and how many are equal, itself included (float64).
    let private ranks (scores: torch.Tensor) (matched: torch.Tensor) : struct (torch.Tensor * torch.Tensor) =
        // Compared in place, in the type of the scores, which is quicker than to a tensor of truths.
        let count (holds: torch.Tensor) = holds.sum (1L, ``type`` = torch.float64)
        struct (count (scores.clone().gt_ matched), count (scores.clone().eq_ matched))

    let private foundAt (ks: int list) (greater: torch.Tensor) (equal: torch.Tensor) : torch.Tensor =
        use zero = 0.0.AsScalar()
        use one = 1.0.AsScalar()
        let ks = torch.tensor([| for k in ks -> float k |]).unsqueeze(1L).``to`` greater.device
        (((ks - greater) / equal).clamp(zero, one) * equal.gt zero).sum 1L

    /// For each k, how many matches are among the k highest: the sum of clamp((k − greater)/equal, 0, 1) with `greater` scores above
    /// the match's and `equal` the same, itself included (docs/results.md: expected rank among ties). A match whose score is NaN equals
    /// nothing, itself neither, and is not found.
    let private found (ks: int list) : Sums =
        fun scores matched ->
            Tensors.scoped (fun () ->
                let struct (greater, equal) = ranks scores matched
                foundAt ks greater equal)

    /// The same, and behind them the sum of 1/rank, expected over random orders of the tied: (H(greater + equal) − H(greater))/equal with the
    /// harmonic numbers H, 1/(greater + 1) where nothing ties.
    let private foundAndRanked (ks: int list) : Sums =
        fun scores matched ->
            Tensors.scoped (fun () ->
                let struct (greater, equal) = ranks scores matched
                use zero = 0.0.AsScalar()
                use one = 1.0.AsScalar()
                let harmonic = torch.tensor(Matches.harmonic scores.shape[1]).``to`` scores.device
                let at (n: torch.Tensor) = harmonic.index_select (0L, n.``to`` torch.int64)
                let first = (greater.plus 1.0).reciprocal()
                let tied = (at (greater .+ equal) - at greater) / equal.clamp_min one
                let each = torch.where (equal.le one, first, tied) * equal.gt zero
                torch.cat [| foundAt ks greater equal; each.sum().unsqueeze 0L |])

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

    let private ks = [ 1; 5; 10 ]

    /// Recalls and mean average precision, given one way and the other: hits for each k, then the precision.
    let private named (ab: int -> float) (ba: int -> float) : (string * float) list =
        [ for i, name in List.indexed ([ for k in ks -> $"r{k}" ] @ [ "map" ]) do
              name, 0.5 * (ab i + ba i)
              $"{name}_ab", ab i
              $"{name}_ba", ba i ]

    /// Of rows of `queries` with any number of matches among those of `keys`: sums over the queries, for each k of the chance that one of a
    /// query's matches is found, then of the average precision.
    let private anyOf (budget: int64) (matches: Matches) (queries: torch.Tensor) (keys: torch.Tensor) : float[] =
        let sums = Array.zeroCreate (ks.Length + 1)
        let candidates, size = keys.shape[0], queries.element_size ()
        let harmonic = Matches.harmonic candidates
        let order = Array.init matches.A.Length id |> Array.sortBy (fun i -> matches.A[i])
        let mutable next = 0

        for first, count in Blocks.spans budget size candidates queries.shape[0] do
            use scope = torch.NewDisposeScope()
            let scores = Blocks.scores queries keys (first, count)
            let start = next

            while next < order.Length && matches.A[order[next]] < first + count do
                next <- next + 1

            let here = order[start .. next - 1]

            let counted =
                [| for from, some in Blocks.spans budget size candidates here.LongLength do
                       use scope = torch.NewDisposeScope()
                       let here = Array.sub here (int from) (int some)
                       let on (numbers: int64[]) = torch.tensor(numbers).``to`` scores.device
                       let rows = scores.index_select (0L, on [| for i in here -> matches.A[i] - first |])
                       let matched = rows.gather (1L, (on [| for i in here -> matches.B[i] |]).unsqueeze 1L)
                       let struct (greater, equal) = ranks rows matched
                       let numbers (t: torch.Tensor) = t.``to``(torch.float64).cpu().contiguous().data<float>().ToArray()
                       let score, greater, equal = numbers (matched.squeeze 1L), numbers greater, numbers equal

                       for i in 0 .. here.Length - 1 do
                           struct (matches.A[here[i]],
                                   ({ Score = score[i]; Greater = greater[i]; Equal = equal[i] }: Matches.Counted)) |]

            for _, ofQuery in counted |> Array.groupBy (fun struct (query, _) -> query) do
                let found = ofQuery |> Array.map (fun struct (_, c) -> c) |> Matches.query harmonic ks

                for i in 0 .. sums.Length - 1 do
                    sums[i] <- sums[i] + found[i]

        sums

    /// `figuresOf` with another budget of bytes than `Blocks.budget`.
    let figuresOfWithin (budget: int64) (matches: Matches) (a: torch.Tensor) (b: torch.Tensor) : (string * float) list =
        Tensors.requireMatrix "rows of a" -1L -1L a
        Tensors.requireMatrix "rows of b" -1L a.shape[1] b
        use scope = torch.NewDisposeScope()
        let ab, ba = anyOf budget matches a b, anyOf budget matches.Turned b a
        named (fun i -> ab[i] / float a.shape[0]) (fun i -> ba[i] / float b.shape[0])

    /// r1, r5, r10 and map in both directions and their mean, of rows (n_a × d and n_b × d, as scores want them) that each have one match or
    /// several: (metric, value). A query is found where any of its matches is; one without matches is not.
    let figuresOf (matches: Matches) (a: torch.Tensor) (b: torch.Tensor) : (string * float) list =
        figuresOfWithin Blocks.budget matches a b

    /// `figures` with another budget of bytes than `Blocks.budget`.
    let figuresWithin (budget: int64) (c: Contrast) (ya: torch.Tensor) (yb: torch.Tensor) : (string * float) list =
        use scope = torch.NewDisposeScope()
        let a, b = Alignment.prepare c.Scoring ya, Alignment.prepare c.Scoring yb
        requireMatched a b
        let all = both (foundAndRanked ks) (surprise c.Temperature)
        let mean = bothWays budget all (if c.Symmetric then all else foundAndRanked ks) a b |> means a.shape[0]
        // One way: hits for each k, reciprocal ranks and the loss; then the other way.
        let lossAt, other = ks.Length + 1, ks.Length + 2

        [ yield! named mean (fun i -> mean (other + i))
          "loss", (if c.Symmetric then 0.5 * (mean lossAt + mean (other + lossAt)) else mean lossAt) ]

    /// r1, r5, r10 and map (mean average precision; of one match, the mean of 1/rank) in both directions and their mean, and the loss, of one step's rows: (metric, value).
    let figures (c: Contrast) (ya: torch.Tensor) (yb: torch.Tensor) : (string * float) list = figuresWithin Blocks.budget c ya yb
