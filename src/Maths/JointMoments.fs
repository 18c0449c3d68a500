namespace Cmcl

open TorchSharp

/// A weighted sum of moments, and the weight behind it; float64.
type MomentSum =
    {
        /// Σ π.
        Weight: float
        /// Σ π C.
        Sum: torch.Tensor
    }

/// What a closed form has to know of matched rows: of every modality Σ π C_m with C_m = X_mᵀX_m/n, and of every two that were seen
/// together Σ π C_ab with C_ab = X_aᵀX_b/n, uncentred. Sums of parts add up in any order, and a part can be taken off again
/// (theory.md, section 11).
type JointMoments =
    {
        /// d_m × d_m.
        Second: Map<Modality, MomentSum>
        /// d_a × d_b, once for each two, in the order of their names.
        Cross: Map<struct (Modality * Modality), MomentSum>
    }

    /// The modalities that were seen, in the order of their names.
    member m.Modalities: Modality list = List.ofSeq m.Second.Keys

    /// Every tensor in it.
    member m.Tensors: torch.Tensor list =
        [ for s in m.Second.Values do
              s.Sum
          for s in m.Cross.Values do
              s.Sum ]

[<RequireQualifiedAccess>]
module JointMoments =
    /// Of no rows.
    let empty: JointMoments = { Second = Map.empty; Cross = Map.empty }

    /// Two modalities in the order of their names. Example: `JointMoments.both pair.B pair.A`.
    let both (a: Modality) (b: Modality) : struct (Modality * Modality) = if a <= b then struct (a, b) else struct (b, a)

    let private scoped (make: unit -> JointMoments) : JointMoments = Tensors.scopedWith (fun (m: JointMoments) -> m.Tensors) make

    let private combine
        (f: 'k -> MomentSum option -> MomentSum option -> MomentSum option)
        (a: Map<'k, MomentSum>)
        (b: Map<'k, MomentSum>)
        =
        Map
            [ for key in Seq.append a.Keys b.Keys |> Seq.distinct do
                  match f key (Map.tryFind key a) (Map.tryFind key b) with
                  | Some sum -> key, sum
                  | None -> () ]

    let private requireWidths (what: string) (a: JointMoments) (b: JointMoments) : unit =
        for KeyValue(m, s) in b.Second do
            match Map.tryFind m a.Second with
            | Some t when t.Sum.shape[0] <> s.Sum.shape[0] ->
                Check.fail (Fault.Shape($"moments of {m} {what}", $"{t.Sum.shape[0]} columns, as before", string s.Sum.shape[0]))
            | _ -> ()

    let private plus (a: MomentSum option) (b: MomentSum option) : MomentSum option =
        match a, b with
        | Some a, Some b -> Some { Weight = a.Weight + b.Weight; Sum = a.Sum .+ b.Sum }
        | Some one, None
        | None, Some one -> Some { one with Sum = one.Sum.clone () }
        | None, None -> None

    /// The sums of both, commutative and associative to rounding. Fault: `Shape`, as a `CmclException`, where a modality has another width.
    /// Example: `JointMoments.merge joint joint`.
    let merge (a: JointMoments) (b: JointMoments) : JointMoments =
        requireWidths "to merge" a b

        scoped (fun () ->
            { Second = combine (fun _ a b -> plus a b) a.Second b.Second
              Cross = combine (fun _ a b -> plus a b) a.Cross b.Cross })

    /// The sums of all. Example: `JointMoments.mergeAll [ joint; joint ]`.
    let mergeAll (parts: JointMoments list) : JointMoments = List.fold merge empty parts

    /// Weights that count as none after a subtraction, beside what there was: rounding of the sums that they belong to.
    let private nothing = 1e-9

    let private without (what: string) (whole: MomentSum option) (part: MomentSum option) : MomentSum option =
        match whole, part with
        | Some whole, None -> Some { whole with Sum = whole.Sum.clone () }
        | None, None -> None
        | whole, Some part ->
            let there = whole |> Option.map _.Weight |> Option.defaultValue 0.0

            if part.Weight > there * (1.0 + nothing) then
                let number (x: float) = x.ToString("G9", System.Globalization.CultureInfo.InvariantCulture)

                Check.fail (
                    Fault.Contradiction(
                        $"moments of {what} have a weight of {number there}, and {number part.Weight} is to be taken off",
                        "take off what was added before"
                    )
                )
            elif part.Weight >= there * (1.0 - nothing) then
                None
            else
                Some
                    { Weight = there - part.Weight
                      Sum = whole.Value.Sum - part.Sum }

    /// The sums of the whole without those of a part of it, as if it had never been seen, to rounding; what nothing is left of is gone.
    /// Faults, as `CmclException`: `Shape` as of `merge`, `Contradiction` where the part has more than the whole.
    /// Example: `JointMoments.subtract joint (JointMoments.merge joint joint)`.
    let subtract (part: JointMoments) (whole: JointMoments) : JointMoments =
        requireWidths "to take off" whole part

        scoped (fun () ->
            { Second = combine (fun m -> without (string m)) whole.Second part.Second
              Cross = combine (fun (struct (a, b)) -> without $"{a} and {b}") whole.Cross part.Cross })

    /// Every weight, and with it every sum, times a number > 0. Example: `JointMoments.scale 0.5 joint`.
    let scale (factor: float) (m: JointMoments) : JointMoments =
        let times (s: MomentSum) =
            { Weight = factor * s.Weight
              Sum = s.Sum * factor.AsScalar() }

        scoped (fun () ->
            { Second = Map.map (fun _ s -> times s) m.Second
              Cross = Map.map (fun _ s -> times s) m.Cross })

    /// Adds X_aᵀX_b of some rows to a sum.
    let private addCross (sum: torch.Tensor) (xa: torch.Tensor) (xb: torch.Tensor) : unit =
        for first in 0L .. Moment.blockRows .. xa.shape[0] - 1L do
            use scope = torch.NewDisposeScope()
            let rows (x: torch.Tensor) = x.narrow(0L, first, min Moment.blockRows (x.shape[0] - first)).``to`` torch.float64
            sum.addmm_ ((rows xa).t(), rows xb, 1.0f, 1.0f) |> ignore

    /// The moments of rows that come in blocks, each the matched rows (n × d_m) of every modality of the pairs. A row counts once for
    /// each pair, with the pair's weight. A block is freed after it was added. Faults, as `CmclException`: `Shape` for a block of other
    /// widths or lengths, or for no block. Example: `JointMoments.accumulate (Terms.one pair) [ Map [ pair.A, xa.alias (); pair.B, xb.alias () ] ]`.
    let accumulate (terms: (Pair * float) list) (blocks: seq<Map<Modality, torch.Tensor>>) : JointMoments =
        scoped (fun () ->
            let modalities = terms |> List.collect (fst >> Pair.members) |> List.distinct
            let pairs = terms |> List.map (fun (p, _) -> both p.A p.B) |> List.distinct
            let second, cross = System.Collections.Generic.Dictionary(), System.Collections.Generic.Dictionary()
            let mutable count = 0L

            let zeros (rows: int64) (columns: int64) (like: torch.Tensor) =
                torch.zeros (rows, columns, dtype = torch.float64, device = like.device)

            for block in blocks do
                let length = block[modalities.Head].shape[0]
                let widthOf m = if second.ContainsKey m then (second[m]: torch.Tensor).shape[0] else -1L

                for m in modalities do
                    let x = block[m]
                    Tensors.requireMatrix $"rows of {m}" length (widthOf m) x
                    second.TryAdd(m, zeros x.shape[1] x.shape[1] x) |> ignore
                    Moment.addRows second[m] x

                for struct (a, b) in pairs do
                    cross.TryAdd(struct (a, b), zeros block[a].shape[1] block[b].shape[1] block[a]) |> ignore
                    addCross cross[struct (a, b)] block[a] block[b]

                for x in block.Values do
                    x.Dispose()

                count <- count + length

            if count = 0L then
                Check.fail (Fault.Shape("blocks of matched rows", "at least one row", "none"))

            let weighted (weight: float) (sum: torch.Tensor) =
                { Weight = weight * float count
                  Sum = if weight = 1.0 then sum else sum * weight.AsScalar() }

            let total among = terms |> List.filter (fst >> among) |> List.sumBy snd

            { Second =
                Map
                    [ for m in modalities ->
                          m, weighted (total (fun p -> List.contains m (Pair.members p))) (Moment.whole second[m]) ]
              Cross = Map [ for pair in pairs -> pair, weighted (total (fun p -> both p.A p.B = pair)) cross[pair] ] })

    /// X_aᵀX_a, X_aᵀX_b and X_bᵀX_b of matched rows, n × d_a and n × d_b, of weight n; `scale (1/n)` makes them means.
    /// Example: `JointMoments.ofRows pair xa xb`.
    let ofRows (pair: Pair) (xa: torch.Tensor) (xb: torch.Tensor) : JointMoments =
        accumulate [ pair, 1.0 ] [ Map [ pair.A, xa.alias (); pair.B, xb.alias () ] ]

    /// The weight of the heaviest modality: how many rows, or steps, they are of where every weight is 1.
    let weight (m: JointMoments) : float = m.Second.Values |> Seq.map _.Weight |> Seq.fold max 0.0

    // ---- as named tensors, for memories and files -------------------------------------------------------------------

    let private second, private cross, private weightOf = "second/", "cross/", "#"

    /// As named tensors: `second/M` and `cross/A|B`, and the weight of each under its name with `#` behind it.
    let toNamed (m: JointMoments) : Map<string, torch.Tensor> =
        let named name (s: MomentSum) = [ name, s.Sum; name + weightOf, torch.tensor (s.Weight, dtype = torch.float64) ]

        Map
            [ for KeyValue(m, s) in m.Second do
                  yield! named $"{second}{m}" s
              for KeyValue(struct (a, b), s) in m.Cross do
                  yield! named $"{cross}{a}|{b}" s ]

    /// Those among named tensors; other names are passed over.
    let ofNamed (named: Map<string, torch.Tensor>) : JointMoments =
        let sum name =
            { Weight = Tensors.toFloat named[name + weightOf]
              Sum = named[name] }

        let under (prefix: string) =
            [ for name in named.Keys do
                  if name.StartsWith prefix && not (name.EndsWith weightOf) then
                      name.Substring prefix.Length, sum name ]

        { Second = Map [ for name, s in under second -> Modality.named name, s ]
          Cross =
            Map
                [ for name, s in under cross ->
                      let parts = name.Split '|'
                      both (Modality.named parts[0]) (Modality.named parts[1]), s ] }
