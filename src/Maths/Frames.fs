namespace Cmcl

open TorchSharp

/// Which entries of a change to protect, and how strongly (theory.md, sections 7 and 7a).
[<RequireQualifiedAccess>]
type Protection =
    /// Nothing: train in the frames and protect no entry (tells what the basis does from what the mask does).
    | Nothing
    /// Zero where λ_j and μ_i are both inside their thresholds: Theorem 4 with truncation.
    | Block of inputs: Threshold * partners: Threshold
    /// Zero where μ_i λ_j > τ.
    | Product of tau: float
    /// Each update times 1/(1 + μ_i λ_j/τ).
    | Soft of tau: float
    /// The step's change stays inside Σ μ_i λ_j D'_ij² ≤ ε² Σ μ_i λ_j W'_0,ij².
    | Trust of epsilon: float

/// The coordinates of one modality for one step: U from its old inputs, V from its partners' old outputs. In them a
/// weight is W' = Vᵀ W U and the first-order change of all old scores is n² Σ μ_i λ_j D'_ij² for the change D'.
type Frame =
    {
        /// d_m × d_m and λ.
        Inputs: Spectrum
        /// d × d and μ.
        Partners: Spectrum
        /// Protect the modality's own outputs on old inputs whatever the partners' were (k̃ = d): Adam-NSCL's form, and the
        /// members of the cover in the exact variant.
        OneSided: bool
    }

/// What a protection asks of a change in the frame.
[<RequireQualifiedAccess>]
type Shape =
    | Free
    /// Leave the top-left block of so many rows and columns as it is.
    | Block of rows: int64 * columns: int64
    /// Multiply each update by this (d × d_m): zeros and ones for a mask, a number in between for `Soft`.
    | Factor of torch.Tensor
    /// Keep Σ importance ∘ D'² within the budget for the whole change D' since the step's start.
    | Ellipsoid of importance: torch.Tensor * budget: float

[<RequireQualifiedAccess>]
module Shape =
    /// A block as a factor: ones like the weight, and zeros in the top-left block. Example: `Shape.mask 2L 3L heads[pair.A]`.
    let mask (rows: int64) (columns: int64) (like: torch.Tensor) : torch.Tensor =
        Tensors.scoped (fun () ->
            let mask = torch.ones_like like
            mask.narrow(0L, 0L, rows).narrow(1L, 0L, columns).zero_() |> ignore
            mask)

[<RequireQualifiedAccess>]
module Frame =
    /// The frame of a modality from the moments of its old inputs and of its partners' old outputs (theory.md, section 7).
    /// Example: `Frame.ofMoments false ma (Moment.ofRows yb)`.
    let ofMoments (oneSided: bool) (inputs: Moment) (partners: Moment) : Frame =
        { Inputs = Spectrum.decompose inputs.Matrix
          Partners = Spectrum.decompose partners.Matrix
          OneSided = oneSided }

    /// A modality that has no history: the standard basis, nothing protected. Example: `Frame.free torch.CPU 8L 10L`.
    let free (device: torch.Device) (d: int64) (columns: int64) : Frame =
        { Inputs = Spectrum.empty device columns
          Partners = Spectrum.empty device d
          OneSided = false }

    /// W' = Vᵀ W U (d × d_m), in W's type. Example: `Frame.enter frameA heads[pair.A]`.
    let enter (frame: Frame) (w: torch.Tensor) : torch.Tensor =
        Tensors.scoped (fun () ->
            Tensors.product (Tensors.product (frame.Partners.Vectors.t ()) (w.``to`` torch.float64)) frame.Inputs.Vectors
            |> fun rotated -> rotated.``to`` w.dtype)

    /// The weight after the change: W + V (W'_now − W'_start) Uᵀ. Only the change is rotated back, so that what did not
    /// change does not pick up rounding.
    /// Example: `Frame.leave frameA heads[pair.A] (Frame.enter frameA heads[pair.A]) (Frame.enter frameA after[pair.A])`.
    let leave (frame: Frame) (w: torch.Tensor) (start: torch.Tensor) (now: torch.Tensor) : torch.Tensor =
        Tensors.scoped (fun () ->
            let change = (now - start).``to`` torch.float64
            let back = Tensors.product (Tensors.product frame.Partners.Vectors change) (frame.Inputs.Vectors.t ())
            (w .+ back).``to`` w.dtype)

    /// The same coordinates for inputs, another basis for outputs.
    /// Example: `Frame.turned (Spectrum.flat torch.CPU 8L).Vectors frameA`.
    let turned (basis: torch.Tensor) (frame: Frame) : Frame =
        { frame with
            Partners = { frame.Partners with Vectors = basis } }

    /// The output bases V of the frames as they are, and from which direction on they agree: d, never.
    /// Example: `Frame.ownBases (Map [ pair.A, frameA ])`.
    let ownBases (frames: Map<Modality, Frame>) : struct (Map<Modality, torch.Tensor> * int64) =
        let bases = frames |> Map.map (fun _ f -> f.Partners.Vectors)
        struct (bases, bases.Values |> Seq.map (fun v -> v.shape[0]) |> Seq.max)

    /// Output bases that keep the leading directions of each frame, as many as `leads` says, and are otherwise as much alike as can be: one
    /// basis of the space that no leading direction reaches into, which are their last ones, by falling energy of all partners together;
    /// and from which direction on they agree, at most Σ leads. Energies belong to leading directions alone then.
    /// Example: `Frame.sharedBases (Map [ pair.A, 2 ]) (Map [ pair.A, frameA ])`.
    let sharedBases (leads: Map<Modality, int>) (frames: Map<Modality, Frame>) : struct (Map<Modality, torch.Tensor> * int64) =
        let d = (Seq.head frames.Values).Partners.Vectors.shape[0]
        let apart = leads.Values |> Seq.sumBy int64

        if apart >= d then
            ownBases frames
        else
            use scope = torch.NewDisposeScope()
            let leading = frames |> Map.map (fun m f -> Spectrum.leading leads[m] f.Partners)
            let struct (q, _) = torch.linalg.qr (torch.cat ([| for v in leading.Values -> v |], 1L), torch.linalg.QRMode.Complete)
            let within, beyond = q.narrow (1L, 0L, apart), q.narrow (1L, apart, d - apart)

            let energy =
                frames.Values
                |> Seq.map (fun f ->
                    let reached = Tensors.product (beyond.t ()) f.Partners.Vectors
                    let shares = torch.tensor(f.Partners.Shares, dtype = torch.float64).``to`` reached.device
                    Tensors.product (reached * shares) (reached.t ()))
                |> Seq.reduce (.+)

            // What is zero beside all energies has eigenvectors of rounding, which differ from machine to machine.
            let found = Spectrum.decompose energy
            let floor = float d * Tolerance.epsilon Dtype.Float64 * float frames.Count
            let reached = found.Values |> Array.filter (fun v -> v > floor) |> Array.length
            let common = Tensors.product beyond (Spectrum.complete (Spectrum.leading reached found))

            let bases =
                leading
                |> Map.map (fun _ v ->
                    let own = Tensors.product within (Spectrum.complete (Tensors.product (within.t ()) v))
                    scope.MoveToOuter(torch.cat ([| own; common |], 1L)))

            struct (bases, apart)

    /// The mean energies μ_i of the partner side: flat where the modality is protected one-sidedly.
    let private partnerShares (frame: Frame) =
        if frame.OneSided then
            Array.create frame.Partners.Values.Length (1.0 / float (max 1 frame.Partners.Values.Length))
        else
            frame.Partners.Shares

    /// μ_i λ_j (d × d_m, float64), both as shares of their traces: what a unit change of each entry does to old scores
    /// (this project's, theory.md, section 7a). Example: `Frame.importance frameA`.
    let importance (frame: Frame) : torch.Tensor =
        Tensors.scoped (fun () ->
            let column (values: float[]) = torch.tensor(values, dtype = torch.float64).reshape(-1L, 1L)
            (column (partnerShares frame)).mm((column frame.Inputs.Shares).t()).``to`` frame.Inputs.Vectors.device)

    /// How many directions a block protects: (inputs k, partners k̃).
    /// Example: `let cut = Threshold.trace 3e-3 |> Check.get in Frame.ranks cut cut frameA`.
    let ranks (inputs: Threshold) (partners: Threshold) (frame: Frame) : struct (int * int) =
        let k = Spectrum.rank inputs frame.Inputs
        struct (k, (if frame.OneSided then frame.Partners.Values.Length else Spectrum.rank partners frame.Partners))

    /// What a protection asks of the changes of a weight that is `start` in the frame (d × d_m). For a block, Theorem 4 in the
    /// frame: a change D' is allowed when its top-left k̃ × k block is zero.
    /// Example: `Frame.shape (Protection.Soft 3e-5) frameA (Frame.enter frameA heads[pair.A])`.
    let shape (protection: Protection) (frame: Frame) (start: torch.Tensor) : Shape =
        let likeStart (t: torch.Tensor) = t.``to``(start.dtype).``to`` start.device

        match protection with
        | Protection.Nothing -> Shape.Free
        | _ when frame.Inputs.Total = 0.0 -> Shape.Free
        | Protection.Block(inputs, partners) ->
            let struct (k, kPartner) = ranks inputs partners frame
            Shape.Block(int64 kPartner, int64 k)
        | Protection.Product tau -> Shape.Factor(Tensors.scoped (fun () -> likeStart ((importance frame).le(tau.AsScalar()))))
        | Protection.Soft tau ->
            Shape.Factor(Tensors.scoped (fun () -> likeStart (1.0.AsScalar() / (importance frame / tau.AsScalar()).plus 1.0)))
        | Protection.Trust epsilon ->
            use scope = torch.NewDisposeScope()
            let importance = importance frame
            let before = Tensors.toFloat ((importance * (start.``to`` torch.float64).squared()).sum())
            Shape.Ellipsoid(scope.MoveToOuter(likeStart importance), epsilon * epsilon * before)

    /// The smallest ν ≥ 0 for which Σ p_ij D_ij²/(1 + νp_ij)² is within the budget, and what entries with p > 0 are to be multiplied by
    /// after that: 1, or 0 for a budget of 0. None for a change that is inside already. `sums ν` gives that sum, and
    /// Σ p_ij² D_ij²/(1 + νp_ij)³, its slope over −2.
    /// Example: `Frame.multiplier 1.0 (fun nu -> struct (4.0 / (1.0 + nu) ** 2.0, 4.0 / (1.0 + nu) ** 3.0))`.
    let multiplier (budget: float) (sums: float -> struct (float * float)) : struct (float * float) voption =
        // Newton on 1/√(size) as in Moré and Sorensen: increasing and concave in ν, so it never overshoots, and the step from
        // an excess of 1e-7 ends at rounding.
        let rec solve (nu: float) (rounds: int) struct (now: float, slope: float) =
            let next = nu + now / slope * (sqrt (now / budget) - 1.0)

            if now <= budget * (1.0 + 1e-7) || rounds = 0 then
                max nu next
            else
                solve next (rounds - 1) (sums next)

        match sums 0.0 with
        | struct (size, _) when size <= budget -> ValueNone
        | _ when budget <= 0.0 -> ValueSome(struct (0.0, 0.0))
        | whole -> ValueSome(struct (solve 0.0 60 whole, 1.0))

    /// The point of the ellipsoid nearest to the change (Frobenius norm): D_ij/(1 + ν p_ij), with the smallest ν ≥ 0 for which
    /// Σ p_ij D_ij² is within the budget; a new tensor. A budget of 0 clears every entry with p > 0 (this project's, theory.md,
    /// section 7a). Example: `Frame.intoEllipsoid (Frame.importance frameA) 1e-3 (Frame.enter frameA ga)`.
    let intoEllipsoid (importance: torch.Tensor) (budget: float) (change: torch.Tensor) : torch.Tensor =
        Tensors.scoped (fun () ->
            let at (nu: float) = change / (importance * nu.AsScalar()).plus 1.0

            let sums (nu: float) =
                use scope = torch.NewDisposeScope()
                let weighted = importance * (at nu).squared()
                let slope = (importance * weighted / (importance * nu.AsScalar()).plus 1.0).sum()
                // Both at once: each reading waits for the device.
                let both = torch.stack([| weighted.sum (); slope |]).``to``(torch.float64).cpu().data<float>()
                struct (both[0L], both[1L])

            match multiplier budget sums with
            | ValueNone -> change.clone ()
            | ValueSome(struct (nu, 1.0)) -> at nu
            | ValueSome(struct (nu, shrink)) ->
                let near = at nu
                torch.where (importance.gt (0.0.AsScalar()), near * shrink.AsScalar(), near))

/// From one joint space into another that is rotated differently: Q = V_aᵀ V_b (d × d). Where the two have their last directions in
/// common, only the leading c × c part of Q is kept; the rest is the identity.
[<RequireQualifiedAccess>]
module Bridge =
    /// Q between two bases that agree from direction `apart` on; None where they agree altogether. Example:
    /// `Bridge.between 8L frameA.Partners.Vectors (Spectrum.flat torch.CPU 8L).Vectors`.
    let between (apart: int64) (va: torch.Tensor) (vb: torch.Tensor) : torch.Tensor option =
        use scope = torch.NewDisposeScope()

        if apart = 0L || (va.eq vb).all().cpu().item<bool>() then
            None
        else
            let leading (v: torch.Tensor) = v.narrow (1L, 0L, apart)
            Some(scope.MoveToOuter(Tensors.product ((leading va).t()) (leading vb)))

    /// Y Q (n × d) of outputs Y (n × d); its transpose leads back.
    /// Example: `Bridge.cross (frameA.Partners.Vectors.t ()) ya`.
    let cross (q: torch.Tensor) (y: torch.Tensor) : torch.Tensor =
        let c, d = q.shape[0], y.shape[1]

        if c = d then
            Tensors.product y q
        else
            Tensors.scoped (fun () -> torch.cat ([| Tensors.product (y.narrow (1L, 0L, c)) q; y.narrow (1L, c, d - c) |], 1L))

/// Members of a pair graph to protect one-sidedly, so that no old pair has two sides that move freely.
[<RequireQualifiedAccess>]
module Cover =
    /// The cheapest vertex cover of the edges whose two ends both move (theory.md, section 7, the exact variant). Every
    /// subset is tried, the modalities of one step being few; equal costs are settled by name.
    /// Example: `Cover.cheapest (fun _ -> 1) (Pair.members pair) [ pair.A, pair.B ]`.
    let cheapest (cost: Modality -> int) (moving: Modality list) (edges: (Modality * Modality) list) : Set<Modality> =
        let within = edges |> List.filter (fun (a, b) -> List.contains a moving && List.contains b moving)

        let rec subsets list =
            match list with
            | [] -> [ [] ]
            | head :: tail -> let rest = subsets tail in rest @ List.map (fun s -> head :: s) rest

        subsets (List.sort moving)
        |> List.filter (fun s -> within |> List.forall (fun (a, b) -> List.contains a s || List.contains b s))
        |> List.minBy (fun s -> List.sumBy cost s, List.length s, List.map string s)
        |> Set.ofList
