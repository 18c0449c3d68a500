namespace Cmcl

open TorchSharp

/// How a session's weights are brought forward, one batch at a time.
type internal Stepper =
    {
        /// The weights as they are now; they belong to the stepper and change with the next update.
        Weights: unit -> Heads
        /// What the direction keeps now; what it was before lives until the next update.
        Kept: unit -> Memory
        /// Where the descent stands; its tensors are the stepper's.
        Descent: unit -> DescentState
        /// One update; returns the batch's loss, a 0-d tensor of the caller's scope.
        Update: Batch -> torch.Tensor
    }

/// Steppers, made in a scope that owns what they keep.
[<RequireQualifiedAccess>]
module internal Stepper =
    let private free (old: torch.Tensor list) (kept: torch.Tensor list) =
        for t in old do
            if not (List.exists (fun k -> obj.ReferenceEquals(k, t)) kept) then
                t.Dispose()

    /// What a running direction keeps, from update to update. Its first tensors belong to whoever gave them, those after to `owner`.
    type private Keeping(session: Session, owner: DisposeScope) =
        let mutable now = session.Kept
        let mutable before: torch.Tensor list = []

        let within (memory: Memory) (t: torch.Tensor) = memory.Values |> Seq.exists (fun k -> obj.ReferenceEquals(k, t))

        member _.Now = now

        member _.Pass (weights: Heads) (batch: Batch) : Pass =
            free before []
            let struct (pass, next) = Direction.step session.Direction now weights batch

            if obj.ReferenceEquals(next, now) then
                before <- []
            else
                for t in next.Values do
                    if not (within now t) then
                        owner.Attach t |> ignore

                before <-
                    [ for t in now.Values do
                          if not (within next t) && not (within session.Kept t) then
                              t ]

                now <- next

            pass

    /// The pure functions of the session, one after another: each update makes new weights and a new state, and frees the old.
    let pure' (session: Session) (from: DescentState option) (owner: DisposeScope) : Stepper =
        let transform = Rule.transform session.Start session.Rule
        let own (t: torch.Tensor) = t.clone ()
        let start = from |> Option.map _.Weights |> Option.defaultValue session.Start
        let mutable weights = Heads.map own start

        let mutable state =
            match from with
            | Some descent -> TransformState.map own descent.State
            | None -> transform.Init weights

        let keeping = Keeping(session, owner)

        let update (batch: Batch) =
            use scope = torch.NewDisposeScope()
            let pass = keeping.Pass weights batch
            let struct (changes, next) = transform.Update state pass.Gradients weights
            let after = Heads.replace (changes |> Map.map (fun m change -> Heads.weight m weights .+ change)) weights

            for t in Heads.tensors after @ TransformState.tensors next do
                if
                    not (List.exists (fun k -> obj.ReferenceEquals(k, t)) (Heads.tensors weights @ TransformState.tensors state))
                then
                    owner.Attach t |> ignore

            free (Heads.tensors weights @ TransformState.tensors state) (Heads.tensors after @ TransformState.tensors next)
            weights <- after
            state <- next
            scope.MoveToOuter pass.Loss

        { Weights = fun () -> weights
          Kept = fun () -> keeping.Now
          Descent = fun () -> { Weights = weights; State = state }
          Update = update }

    /// A block that stays as it is for the whole step: what it adds to outputs is worked out once, and its gradient never.
    type private FixedBlock =
        {
            Rows: int64
            Columns: int64
            Block: torch.Tensor
            /// X[:, :k] W[:k̃, :k]ᵀ of all rows of each task, n × k̃, where they are held.
            Outputs: torch.Tensor option list
        }

    /// Whether leaving a block out saves more than it costs, on the CPU: a sixteenth of the matrix, and well over what its part in the
    /// gradient's norm takes to find from B × B products.
    let pays (batch: int64) (w: torch.Tensor) (rows: int64) (columns: int64) : bool =
        w.device_type = DeviceType.CPU
        && 16L * rows * columns >= w.NumberOfElements
        && rows * columns >= 4L * batch * (rows + columns)

    /// ‖gᵀX‖² as Σ (g gᵀ) ∘ (X Xᵀ), without the product.
    let private squaredOfProduct (g: torch.Tensor) (x: torch.Tensor) : float =
        use scope = torch.NewDisposeScope()
        Tensors.toFloat ((g.mm (g.t ())).mul_(x.mm (x.t ())).sum())

    /// A recipe in place: weights, moments and gradients in buffers that are written over. `fused` as in `InPlace`.
    let inPlace
        (session: Session)
        (recipe: Recipe)
        (fused: bool)
        (batch: int64)
        (from: DescentState option)
        (owner: DisposeScope)
        : Stepper =
        let keeping = Keeping(session, owner)
        let descent = InPlace(recipe, session.Start, fused, from)

        let still =
            Map
                [ for KeyValue(m, w) in session.Start do
                      match recipe.Shape m with
                      | Shape.Block(rows, columns) when pays batch w rows columns ->
                          let block = w.narrow(0L, 0L, rows).narrow(1L, 0L, columns)

                          m,
                          { Rows = rows
                            Columns = columns
                            Block = block
                            Outputs =
                              [ for t in session.Data ->
                                    match Map.tryFind m t.Rows with
                                    | Some(RowSource.Held x) -> Some(Tensors.product (x.narrow (1L, 0L, columns)) (block.t ()))
                                    | _ -> None ] }
                      | _ -> () ]

        /// Y = X Wᵀ.
        let outputs (batch: Batch) (m: Modality) (x: torch.Tensor) (w: torch.Tensor) : torch.Tensor =
            match Map.tryFind m still with
            | None -> x.mm (w.t ())
            | Some s ->
                let upper = w.narrow(0L, 0L, s.Rows).narrow(1L, s.Columns, w.shape[1] - s.Columns)
                let y = torch.empty (x.shape[0], w.shape[0], dtype = x.dtype, device = x.device)
                let above = y.narrow (1L, 0L, s.Rows)

                match s.Outputs[batch.Task] with
                | Some all -> above.copy_ (all.index_select (0L, batch.Numbers)) |> ignore
                | None -> above.addmm_ (x.narrow (1L, 0L, s.Columns), s.Block.t (), 0.0f, 1.0f) |> ignore

                above.addmm_ (x.narrow (1L, s.Columns, w.shape[1] - s.Columns), upper.t (), 1.0f, 1.0f) |> ignore
                let below = w.shape[0] - s.Rows
                y.narrow(1L, s.Rows, below).addmm_(x, w.narrow(0L, s.Rows, below).t(), 0.0f, 1.0f) |> ignore
                y

        /// ∂L/∂W = gᵀX into the modality's buffer, and the square of what was left out.
        let weightGradient (m: Modality) (g: torch.Tensor) (x: torch.Tensor) : torch.Tensor * float =
            let buffer = descent.Gradient m

            match Map.tryFind m still with
            | None -> buffer.addmm_ (g.t (), x, 0.0f, 1.0f), 0.0
            | Some s ->
                let beside, below = x.shape[1] - s.Columns, g.shape[1] - s.Rows
                let above = g.narrow (1L, 0L, s.Rows)

                buffer
                    .narrow(0L, 0L, s.Rows)
                    .narrow(1L, s.Columns, beside)
                    .addmm_(above.t (), x.narrow (1L, s.Columns, beside), 0.0f, 1.0f)
                |> ignore

                buffer.narrow(0L, s.Rows, below).addmm_(g.narrow(1L, s.Rows, below).t(), x, 0.0f, 1.0f) |> ignore
                buffer, (if recipe.Clip.IsSome then squaredOfProduct above (x.narrow (1L, 0L, s.Columns)) else 0.0)

        let closed (c: Closed) (batch: Batch) : torch.Tensor =
            let weights = descent.Weights
            let made = Map [ for m in batch.Modalities -> m, outputs batch m batch.Rows[m] (Heads.weight m weights) ]
            let struct (loss, ofOutputs) = Direction.outputGradients c batch.Terms made
            let ofWeights = ofOutputs |> Map.map (fun m g -> weightGradient m g batch.Rows[m])
            descent.Apply(Map.map (fun _ -> fst) ofWeights, Seq.sumBy snd ofWeights.Values)
            loss

        let update (batch: Batch) =
            use scope = torch.NewDisposeScope()

            match session.Direction with
            | Direction.Closed c -> closed c batch
            | Direction.Of _
            | Direction.Running _ ->
                let pass = keeping.Pass descent.Weights batch
                descent.Apply(pass.Gradients, 0.0)
                pass.Loss
            |> scope.MoveToOuter

        { Weights = fun () -> descent.Weights
          Kept = fun () -> keeping.Now
          Descent = fun () -> descent.Descent
          Update = update }
