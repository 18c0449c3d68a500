namespace Cmcl

open System
open TorchSharp

/// What stands for the cross moment of two modalities that no row has together.
[<RequireQualifiedAccess>]
type Unseen =
    /// 0: nothing is known.
    | Zero
    /// C_ab (C_b + γI)⁻¹ C_bc, the mean over those b that were seen with both: a is mapped linearly to b, and b is known beside c.
    | Composed

/// What multiset canonical correlation analysis is to do, beside the moments.
type CcaOptions =
    {
        /// γ, in shares of the mean diagonal of each modality's moment.
        Ridge: float
        /// q of W_m = Λ^q V_mᵀ.
        Exponent: float
        /// How many directions are kept at most; None for as many as the heads have rows.
        Rank: int option
        /// ν: white rows, paired as heads before any step pair them, that count as seen, in shares of the mean diagonal of each modality's moment.
        Prior: float
        Unseen: Unseen
    }

/// Canonical correlations of several modalities: K v = λ (D + γI) v for the largest λ, float64.
type Correlations =
    {
        /// λ, largest first and all above 0. Of two modalities these are their canonical correlations.
        Values: float[]
        /// V_m, d_m × as many: Σ_m V_mᵀ (D_m + γI) V_m = I.
        Directions: Map<Modality, torch.Tensor>
    }

/// Multiset canonical correlation analysis from moments alone (Kettenring 1971; Nielsen 2002): heads of all modalities in one solve, and
/// no step, row or order is in it (theory.md, section 11).
[<RequireQualifiedAccess>]
module Cca =
    let defaults: CcaOptions =
        { Ridge = 0.1
          Exponent = 1.0
          Rank = None
          Prior = 0.0
          Unseen = Unseen.Zero }

    /// The mean number on a moment's diagonal.
    let private size (s: MomentSum) : float = Tensors.toFloat (s.Sum.trace ()) / float s.Sum.shape[0]

    /// K_ab of two modalities as they were seen: of (b, a) the transposed of (a, b).
    let private seen (a: Modality) (b: Modality) (m: JointMoments) : MomentSum option =
        Map.tryFind (JointMoments.both a b) m.Cross |> Option.map (fun s -> if a <= b then s else { s with Sum = s.Sum.t () })

    /// (D_m + (γ + ν) s_m I)^(−½) as a factor B_m with B_mᵀ (D_m + …) B_m = I: eigenvectors over roots.
    let private whitening (o: CcaOptions) (m: Modality) (s: MomentSum) : Result<torch.Tensor, Fault list> =
        let d = s.Sum.shape[0]
        Tensors.requireFinite $"the moment of {m}" s.Sum
        let struct (values, vectors) = torch.linalg.eigh ((s.Sum .+ s.Sum.t ()) * 0.5.AsScalar())
        let added = (o.Ridge + o.Prior) * size s
        let values = values.clamp_min (0.0.AsScalar())
        let largest = Tensors.toFloat (values.max ())
        let floor = float d * Tolerance.epsilon Dtype.Float64 * largest

        if largest <= 0.0 then
            Error [ Fault.Contradiction($"every feature of {m} is 0, so nothing can be aligned with it", "leave its steps out") ]
        elif added <= floor && Tensors.toFloat (values.min ()) <= floor then
            let rank = values.gt(floor.AsScalar()).sum().cpu().item<int64>()

            Error
                [ Fault.Contradiction(
                      $"the moment of {m} has rank {rank} of {d} columns and the ridge is {o.Ridge}, so it has no inverse",
                      "give a ridge above 0 (1e-3 is a usual one), or more rows"
                  ) ]
        else
            Ok(vectors * values.plus(added).rsqrt())

    /// Whether a weight is a rectangular identity: columns as they came.
    let private asItCame (w: torch.Tensor) : bool =
        use scope = torch.NewDisposeScope()
        w.Equals(torch.eye (w.shape[0], w.shape[1], dtype = w.dtype, device = w.device))

    /// The modalities whose features are not of the one width that a prior needs where heads take columns as they came.
    let private priorFaults (o: CcaOptions) (initial: Heads) (m: JointMoments) : Fault list =
        let widths = [ for KeyValue(modality, s) in m.Second -> modality, s.Sum.shape[0] ]

        if
            o.Prior > 0.0
            && (widths |> List.distinctBy snd).Length > 1
            && widths |> List.forall (fun (modality, _) -> asItCame (Heads.weight modality initial))
        then
            let written = String.Join(", ", [ for modality, width in widths -> $"{modality} has {width}" ])

            [ Fault.Contradiction(
                  $"a prior takes features of all modalities for comparable, column by column, and their widths differ: {written}",
                  "leave the prior at 0, take encoders of one width, or give the stream heads to begin with that align them"
              ) ]
        else
            []

    /// W/‖W‖ (the largest singular value), float64: what a prior pairs rows by.
    let private pairing (w: torch.Tensor) : torch.Tensor =
        Tensors.scoped (fun () ->
            let w = w.``to`` torch.float64
            let largest = Tensors.toFloat (torch.linalg.svdvals(w).max())
            if largest > 0.0 then w * (1.0 / largest).AsScalar() else w.clone ())

    /// K_ab after prior and composition; None where it is 0.
    let private cross (o: CcaOptions) (pairings: Heads) (m: JointMoments) (a: Modality) (b: Modality) : torch.Tensor option =
        let inverse (bridge: Modality) =
            let s = m.Second[bridge]
            let ridge = torch.eye (s.Sum.shape[0], dtype = torch.float64, device = s.Sum.device) * (o.Ridge * size s).AsScalar()
            (s.Sum .+ ridge) * (1.0 / s.Weight).AsScalar()

        /// Of weight one, by way of a modality that was seen with both.
        let composed () =
            let bridges =
                [ for bridge in m.Modalities do
                      match seen a bridge m, seen bridge b m with
                      | Some first, Some second ->
                          let mean (s: MomentSum) = s.Sum * (1.0 / s.Weight).AsScalar()
                          min first.Weight second.Weight, (mean first).mm(torch.linalg.solve (inverse bridge, mean second))
                      | _ -> () ]

            match bridges with
            | [] -> None
            | _ ->
                let share = 1.0 / float bridges.Length
                Some(bridges |> List.map (fun (weight, c) -> c * (share * weight).AsScalar()) |> List.reduce (.+))

        let known =
            match seen a b m with
            | Some s -> Some s.Sum
            | None when o.Unseen = Unseen.Composed -> composed ()
            | None -> None

        if o.Prior > 0.0 then
            let paired = pairings[a].t().mm pairings[b]
            let prior = paired * (o.Prior * sqrt (size m.Second[a] * size m.Second[b])).AsScalar()
            Some(known |> Option.map (fun k -> k .+ prior) |> Option.defaultValue prior)
        else
            known

    /// The largest λ of K v = λ (D + γI) v, at most so many and those above 0 alone, from the symmetric problem B K B of Σ d_m columns, whole
    /// and in float64: 16 (Σ d_m)² bytes beside the moments. K has Σ π C_ab off its diagonal and 0 on it, D has Σ π C_m on its diagonal.
    /// A prior pairs rows as the heads before any step do.
    /// Faults: `Contradiction` for a modality without features, for a singular moment with a ridge of 0, for a prior where widths differ
    /// and heads are identities. `NonFinite`, as a `CmclException`. Example: `Cca.correlationsFrom heads Cca.defaults 4 joint |> Check.getAll`.
    let correlationsFrom (initial: Heads) (o: CcaOptions) (most: int) (m: JointMoments) : Result<Correlations, Fault list> =
        let kept (found: Result<Correlations, Fault list>) : seq<torch.Tensor> =
            match found with
            | Ok c -> c.Directions.Values
            | Error _ -> []

        let solve (white: Map<Modality, torch.Tensor>) : Correlations =
            let modalities = m.Modalities

            let pairings =
                if o.Prior > 0.0 then
                    Map [ for a in modalities -> a, pairing ((Heads.weight a initial).``to`` white[a].device) ]
                else
                    Map.empty

            let block a b =
                match (if a = b then None else cross o pairings m a b) with
                | Some k -> white[a].t().mm(k).mm white[b]
                | None -> torch.zeros (white[a].shape[1], white[b].shape[1], dtype = torch.float64, device = white[a].device)

            let all = torch.cat ([| for a in modalities -> torch.cat ([| for b in modalities -> block a b |], 1L) |], 0L)
            Tensors.requireFinite "the whitened cross moments" all
            let struct (values, vectors) = torch.linalg.eigh ((all .+ all.t ()) * 0.5.AsScalar())
            let values = values.flip(0L).cpu().data<float>().ToArray()
            // What is above 0 by rounding alone is no correlation.
            let floor = float values.Length * Tolerance.epsilon Dtype.Float64 * abs values[0]
            let count = values |> Array.truncate most |> Array.takeWhile (fun v -> v > floor) |> Array.length
            let leading = vectors.flip(1L).narrow(1L, 0L, int64 count)

            let directions, _ =
                (0L, modalities)
                ||> List.mapFold (fun first a ->
                    let d = white[a].shape[0]
                    (a, white[a].mm(leading.narrow (0L, first, d))), first + d)

            { Values = Array.truncate count values
              Directions = Map directions }

        Tensors.scopedWith kept (fun () ->
            match priorFaults o initial m with
            | [] when m.Second.IsEmpty -> Error [ Fault.Contradiction("there are no moments to solve", "add those of a step") ]
            | [] ->
                [ for KeyValue(a, s) in m.Second -> whitening o a s |> Result.map (fun b -> a, b) ]
                |> Check.all
                |> Result.map (Map >> solve)
            | faults -> Error faults)

    /// Identities for all modalities of some moments.
    let private identities (m: JointMoments) : Heads =
        let widths = [ for KeyValue(a, s) in m.Second -> a, s.Sum.shape[0] ]
        let d = if widths.IsEmpty then 0L else widths |> List.map snd |> List.max
        Heads.identity Dtype.Float64 torch.CPU d widths

    /// The same from identities. Example: `Cca.correlations Cca.defaults 4 joint |> Check.getAll`.
    let correlations (o: CcaOptions) (most: int) (m: JointMoments) : Result<Correlations, Fault list> =
        Tensors.scopedWith
            (function
            | Ok(c: Correlations) -> c.Directions.Values
            | Error _ -> Seq.empty)
            (fun () -> correlationsFrom (identities m) o most m)

    /// W_m = s Λ^q V_mᵀ (d × d_m, float64; rows beyond the directions are 0). The one s > 0 leaves cosines alone, and gives outputs the
    /// energy that features have: Σ_m tr W_m D_m W_mᵀ = Σ_m tr D_m.
    /// Example: `Cca.correlations Cca.defaults 4 joint |> Check.getAll |> Cca.heads 1.0 4L joint`.
    let heads (exponent: float) (d: int64) (m: JointMoments) (c: Correlations) : Heads =
        Tensors.scopedWith (fun (h: Heads) -> h.Values) (fun () ->
            let weights = c.Values |> Array.map (fun v -> Math.Pow(v, exponent))

            let unscaled (v: torch.Tensor) =
                let own = v * torch.tensor(weights, dtype = torch.float64).``to`` v.device
                let rest = torch.zeros (d - own.shape[1], own.shape[0], dtype = torch.float64, device = own.device)
                torch.cat ([| own.t (); rest |], 0L)

            let heads = c.Directions |> Map.map (fun _ v -> unscaled v)
            let energy (w: torch.Tensor) (s: MomentSum) = Tensors.toFloat ((w.mm s.Sum * w).sum())
            let outputs = Seq.sum [ for KeyValue(a, w) in heads -> energy w m.Second[a] ]
            let features = Seq.sum [ for s in m.Second.Values -> Tensors.toFloat (s.Sum.trace ()) ]
            let factor = if outputs > 0.0 then sqrt (features / outputs) else 1.0
            heads |> Heads.map (fun w -> w * factor.AsScalar()))

    /// Q W_m for all m, with the orthogonal Q (d × d) that brings outputs nearest to those of other heads V_m on the same rows: of all Q,
    /// Σ_m tr (Q W_m − V_m) D_m (Q W_m − V_m)ᵀ is least for Q = V Uᵀ with U Σ Vᵀ = Σ_m W_m D_m V_mᵀ (orthogonal Procrustes). Scores between
    /// these modalities stay as they are; those with a head that was not solved depend on Q, which an eigensolver leaves open.
    /// Example: `Cca.towards heads joint heads`.
    let towards (others: Heads) (m: JointMoments) (heads: Heads) : Heads =
        Tensors.scopedWith (fun (h: Heads) -> h.Values) (fun () ->
            let toward (a: Modality) (w: torch.Tensor) =
                w.mm(m.Second[a].Sum).mm((Heads.weight a others).``to``(torch.float64).t())

            let all = [ for KeyValue(a, w) in heads -> toward a w ] |> List.reduce (.+)
            let struct (u, _, vt) = torch.linalg.svd (all, true)
            let q = vt.t().mm(u.t ())
            heads |> Heads.map (fun w -> q.mm w))

    let private kept (solved: Result<Heads * int, Fault list>) : seq<torch.Tensor> =
        match solved with
        | Ok(h, _) -> h.Values
        | Error _ -> Seq.empty

    /// Heads of all modalities that were seen, d × d_m, and how many directions they have. Faults: those of `correlationsFrom`, and `BadValue` for
    /// a rank above d. Example: `Cca.solveFrom heads Cca.defaults 8L joint |> Check.getAll |> fst`.
    let solveFrom (initial: Heads) (o: CcaOptions) (d: int64) (m: JointMoments) : Result<Heads * int, Fault list> =
        match o.Rank with
        | Some rank when int64 rank > d ->
            Error [ Fault.BadValue("rank", $"at most the {d} rows that the heads have", string rank) ]
        | rank ->
            let most = rank |> Option.defaultValue (int d)

            Tensors.scopedWith kept (fun () ->
                correlationsFrom initial o most m |> Result.map (fun c -> heads o.Exponent d m c, c.Values.Length))

    /// The same from identities. Example: `Cca.solve Cca.defaults 4L joint |> Check.getAll |> fst`.
    let solve (o: CcaOptions) (d: int64) (m: JointMoments) : Result<Heads * int, Fault list> =
        Tensors.scopedWith kept (fun () -> solveFrom (identities m) o d m)
