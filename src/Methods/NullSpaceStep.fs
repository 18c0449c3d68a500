namespace Cmcl

open TorchSharp

/// How a step trains in a null space: frames of old data, and sessions that project the gradient, the update, or train in the eigenbasis.
[<RequireQualifiedAccess>]
module NullSpaceStep =
    /// A modality's frame for this step: its history, or the standard basis where it has none.
    let private frame
        (o: NullSpaceOptions)
        (context: Context)
        (memory: Memory)
        (heads: Heads)
        (oneSided: bool)
        (m: Modality)
        : Frame =
        let w = Heads.weight m heads

        match History.inputs m memory, o.Sides with
        | None, _ -> Frame.free context.Device w.shape[0] w.shape[1]
        | Some inputs, Sides.Input ->
            { Inputs = Spectrum.decompose inputs.Matrix
              Partners = Spectrum.flat context.Device w.shape[0]
              OneSided = true }
        | Some inputs, Sides.Dual ->
            match History.partnerOutputs o.Partner m heads memory with
            | Some partners -> Frame.ofMoments oneSided inputs partners
            | None -> Frame.free context.Device w.shape[0] w.shape[1]

    /// The frames of all modalities that move. In the exact variant a vertex cover of the old pairs among them is
    /// one-sided, so that the second-order term of Theorem 5 has a side that is zero.
    let frames
        (o: NullSpaceOptions)
        (context: Context)
        (memory: Memory)
        (heads: Heads)
        (moving: Modality list)
        : Map<Modality, Frame> =
        let plain = Map [ for m in moving -> m, frame o context memory heads false m ]

        if not o.Exact || o.Sides = Sides.Input then
            plain
        else
            let cost m = Spectrum.rank o.Threshold plain[m].Inputs
            let cover = Cover.cheapest cost moving (History.edges memory)
            plain |> Map.map (fun m f -> { f with OneSided = Set.contains m cover })

    let private ranks (o: NullSpaceOptions) (f: Frame) =
        match NullSpaceOptions.protection o with
        | Protection.Block(inputs, partners) when f.Inputs.Total > 0.0 -> Some(Frame.ranks inputs partners f)
        | _ -> None

    let private spectra (o: NullSpaceOptions) (frames: Map<Modality, Frame>) : SpectrumNote list =
        [ for KeyValue(m, f) in frames do
              if f.Inputs.Total > 0.0 then
                  let cut = ranks o f

                  let note side (s: Spectrum) k =
                      { Modality = m
                        Side = side
                        Shares = s.Shares
                        Protected = k }

                  note "input" f.Inputs (cut |> Option.map (fun struct (k, _) -> k))
                  note "partner" f.Partners (cut |> Option.map (fun struct (_, k) -> k)) ]

    let private remarks (o: NullSpaceOptions) (frames: Map<Modality, Frame>) : string list =
        [ for KeyValue(m, f) in frames do
              match ranks o f with
              | Some struct (k, kPartner) when k = f.Inputs.Values.Length && kPartner = f.Partners.Values.Length ->
                  $"no free direction left for {m}: its head cannot move; raise threshold or partner-threshold"
              | _ -> () ]

    /// Bases of the protected spans, V (d × k̃) and U (d_m × k), for the forms that project in the standard basis.
    let private bases (o: NullSpaceOptions) (f: Frame) (like: torch.Tensor) : struct (torch.Tensor * torch.Tensor) option =
        ranks o f
        |> Option.map (fun struct (k, kPartner) ->
            let cast (t: torch.Tensor) = t.``to`` like.dtype
            struct (cast (Spectrum.leading kPartner f.Partners), cast (Spectrum.leading k f.Inputs)))

    /// G − P̃ G P for the gradient, from its low rank (theory.md, section 7); clipped before it is projected, as published.
    let private gradientSession
        (o: NullSpaceOptions)
        (context: Context)
        (memory: Memory)
        (heads: Heads)
        (tasks: Task list)
        (frames: Map<Modality, Frame>)
        : Session =
        let settings = context.Settings

        let plain =
            { Contrast = Settings.contrast settings
              Bridges = Map.empty }

        let projected =
            [ for position, task in List.indexed tasks do
                  for m in task.Modalities do
                      match bases o frames[m] (Heads.weight m heads) with
                      | Some struct (v, u) ->
                          let within x = Tensors.scoped (fun () -> Tensors.product (Tensors.product x u) (u.t ()))
                          let all = task.Held m |> Option.map within

                          (position, m),
                          struct (v,
                                  fun (batch: Batch) (x: torch.Tensor) ->
                                      match all with
                                      | Some rows -> rows.index_select (0L, batch.Numbers)
                                      | None -> within x)
                      | None -> () ]
            |> Map

        let pass (weights: Heads) (batch: Batch) : Pass =
            let outputs = Map [ for m in batch.Modalities -> m, Heads.outputs (Heads.weight m weights) batch.Rows[m] ]
            let struct (loss, ofOutputs) = Direction.outputGradients plain batch.Terms outputs
            let raw = ofOutputs |> Map.map (fun m g -> Contrastive.weightGradient g batch.Rows[m])

            let project m (g: torch.Tensor) =
                match Map.tryFind (batch.Task, m) projected with
                | Some struct (v, inputs) -> Projection.lowRank v g batch.Rows[m] (inputs batch batch.Rows[m])
                | None -> raw[m]

            { Loss = loss
              Gradients = ofOutputs |> Map.map project |> Training.clippedAs raw settings }

        { Training.plainSession context memory heads tasks with
            Direction = Direction.Of pass
            Rule = Rule.Recipe { Training.recipe context Map.empty with Clip = None } }

    /// u − P̃ u P for what the optimizer made of the gradient, decay included.
    let private updateSession
        (o: NullSpaceOptions)
        (context: Context)
        (memory: Memory)
        (heads: Heads)
        (tasks: Task list)
        (frames: Map<Modality, Frame>)
        : Session =
        let spans =
            frames
            |> Map.toList
            |> List.choose (fun (m, f) -> bases o f (Heads.weight m heads) |> Option.map (fun b -> m, b))
            |> Map

        let project =
            Transform.stateless (fun m u _ ->
                match Map.tryFind m spans with
                | Some struct (v, basis) -> Projection.localUpdateFrom v basis u
                | None -> u)

        let plain = Training.plainSession context memory heads tasks

        { plain with
            Rule = Rule.Chain(Transform.chain [ Rule.transform plain.Start plain.Rule; project ]) }

    /// What a total budget allows this step to move each old step's scores by; empty without one.
    let private allowances (o: NullSpaceOptions) (context: Context) (heads: Heads) : (OldStep * float) list =
        match o.Protect, o.TotalBudget with
        | Protect.Trust, Some total -> Budget.allowances total context.Remaining heads context.Old
        | _ -> []

    /// How many leading output directions of a modality have an entry that is protected; the others may be turned at will.
    let private leading (o: NullSpaceOptions) (f: Frame) : int =
        match NullSpaceOptions.protection o with
        | _ when f.Inputs.Total = 0.0 -> 0
        | Protection.Block(inputs, partners) ->
            let struct (_, k) = Frame.ranks inputs partners f
            if f.OneSided then 0 else k
        | Protection.Product tau when not f.OneSided ->
            f.Partners.Shares |> Array.filter (fun share -> share * f.Inputs.Shares[0] > tau) |> Array.length
        | _ -> f.Partners.Values.Length

    /// Everything in the frames: rotated weights and inputs, protection as a mask, a shrinkage or an ellipsoid. Joint spaces are
    /// rotated differently, so scores need Q = V_aᵀ V_b: S = (X'_a W'_aᵀ) Q (X'_b W'_bᵀ)ᵀ/τ.
    let private eigenbasisSession
        (o: NullSpaceOptions)
        (context: Context)
        (memory: Memory)
        (heads: Heads)
        (tasks: Task list)
        (frames: Map<Modality, Frame>)
        : Session =
        let settings = context.Settings

        let struct (bases, apart) =
            match o.FreeBasis with
            | FreeBasis.Own -> Frame.ownBases frames
            | FreeBasis.Shared -> Frame.sharedBases (frames |> Map.map (fun _ f -> leading o f)) frames

        let own, frames = frames, frames |> Map.map (fun m f -> Frame.turned bases[m] f)
        let start = frames |> Map.map (fun m f -> Frame.enter f (Heads.weight m heads))
        let turns = start |> Map.map (fun m w -> frames[m].Inputs.Vectors.``to`` w.dtype)
        let rotate (m: Modality) (x: torch.Tensor) = Tensors.product x turns[m]
        let allowances = allowances o context heads

        let protection m =
            match NullSpaceOptions.protection o, o.TotalBudget with
            | Protection.Trust _, Some _ ->
                Budget.epsilon (Training.moving tasks) allowances m
                |> Option.map Protection.Trust
                |> Option.defaultValue Protection.Nothing
            | given, _ -> given

        let shapes = own |> Map.map (fun m f -> Frame.shape (protection m) f start[m])

        let bridge (pair: Pair) =
            Bridge.between apart bases[pair.A] bases[pair.B] |> Option.map (fun q -> pair, q.``to`` settings.Dtype.Torch)

        let ellipsoids =
            shapes
            |> Map.toList
            |> List.choose (function
                | m, Shape.Ellipsoid(p, b) -> Some(m, (p, b))
                | _ -> None)
            |> Map

        let leave (weights: Heads) =
            let back = frames |> Map.map (fun m f -> Frame.leave f (Heads.weight m heads) start[m] weights[m])
            Heads.replace back heads

        { Start = start
          Data = tasks |> List.map (Task.map rotate)
          Direction =
            Direction.Closed
                { Contrast = Settings.contrast settings
                  Bridges = tasks |> List.collect _.Terms |> List.choose (fst >> bridge) |> Map }
          Kept = memory
          Rule = Rule.Recipe(Training.recipe context shapes)
          Finish =
            fun trained ->
                { trained with
                    Weights =
                        if allowances.IsEmpty then
                            leave trained.Weights
                        else
                            Tensors.scopedWith (fun (h: Heads) -> [ for m in frames.Keys -> h[m] ]) (fun () ->
                                Budget.keep allowances ellipsoids leave heads start trained.Weights |> leave) }
          Spectra = []
          Remarks = [] }

    let begin' (o: NullSpaceOptions) (context: Context) (memory: Memory) (heads: Heads) (tasks: Task list) : Session =
        let frames = frames o context memory heads (Training.moving tasks)

        let session =
            match o.Place with
            | Place.Gradient -> gradientSession o context memory heads tasks frames
            | Place.Update -> updateSession o context memory heads tasks frames
            | Place.Eigenbasis -> eigenbasisSession o context memory heads tasks frames

        { session with
            Spectra = spectra o frames
            Remarks = remarks o frames }
