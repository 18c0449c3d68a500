namespace Cmcl

open TorchSharp

/// How a session's weights are brought forward, one batch at a time.
type internal Stepper =
    {
        /// The weights as they are now; they belong to the stepper and change with the next update.
        Weights: unit -> Heads
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

    /// The pure functions of the session, one after another: each update makes new weights and a new state, and frees the old.
    let pure' (session: Session) (owner: DisposeScope) : Stepper =
        let transform = Rule.transform session.Start session.Rule
        let mutable weights = Heads.map (fun (w: torch.Tensor) -> w.clone ()) session.Start
        let mutable state = transform.Init weights

        let update (batch: Batch) =
            use scope = torch.NewDisposeScope()
            let pass = Direction.pass session.Direction weights batch
            let struct (changes, next) = transform.Update state pass.Gradients weights
            let after = Heads.replace (changes |> Map.map (fun m change -> Heads.weight m weights + change)) weights

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
          Update = update }

    /// A recipe in place: weights, moments and gradients in buffers that are written over.
    let inPlace (session: Session) (recipe: Recipe) (fused: bool) : Stepper =
        let descent = InPlace(recipe, session.Start, fused)

        /// ∂L/∂W into the modality's buffer.
        let weightGradient (m: Modality) (outputs: torch.Tensor) (inputs: torch.Tensor) =
            m, descent.Gradient(m).addmm_(outputs.t (), inputs, 0.0f, 1.0f)

        let closed (c: Closed) (batch: Batch) : Pass =
            let weights = descent.Weights
            let wa, wb = Heads.weight batch.Pair.A weights, Heads.weight batch.Pair.B weights
            let xa, xb = Heads.inputs wa batch.A, Heads.inputs wb batch.B
            let ya, yb = xa.mm (wa.t ()), xb.mm (wb.t ())

            let g, a =
                match Map.tryFind batch.Pair c.Bridges with
                | None ->
                    let g = Contrastive.gradients c.Contrast ya yb
                    g, g.A
                | Some q ->
                    let g = Contrastive.gradients c.Contrast (ya.mm q) yb
                    g, g.A.mm (q.t ())

            { Loss = g.Loss
              Gradients = Map [ weightGradient batch.Pair.A a xa; weightGradient batch.Pair.B g.B xb ] }

        let update (batch: Batch) =
            use scope = torch.NewDisposeScope()

            let pass =
                match session.Direction with
                | Direction.Closed c -> closed c batch
                | Direction.Of f -> f descent.Weights batch

            descent.Apply pass.Gradients
            scope.MoveToOuter pass.Loss

        { Weights = fun () -> descent.Weights
          Update = update }
