namespace Cmcl

open TorchSharp

/// The transforms that optimizers are chained of.
[<RequireQualifiedAccess>]
module Optim =
    /// ‖updates‖ over all modalities, one number as in `clip_grad_norm_`.
    let globalNorm (updates: Heads) : float = updates.Values |> Seq.sumBy (fun u -> let n = Tensors.norm u in n * n) |> sqrt

    /// What to multiply updates of this norm by, so that it is at most `limit`: min(1, limit/(norm + 1e-6)).
    let clipFactor (limit: float) (norm: float) : float = min 1.0 (limit / (norm + 1e-6))

    /// Scales all updates together so that their global norm is at most `limit`.
    let clip (limit: float) : Transform =
        { Init = fun _ -> TransformState.empty
          Update =
            fun state updates _ ->
                let factor = clipFactor limit (globalNorm updates)
                let clipped = if factor = 1.0 then updates else Heads.map (fun u -> u * factor.AsScalar()) updates
                struct (clipped, { state with Step = state.Step + 1L }) }

    /// Adam's direction m̂/(√v̂ + ε) with bias correction per modality (β₁ 0.9, β₂ 0.999, ε 1e-8).
    let adam: Transform =
        let beta1, beta2, epsilon = 0.9, 0.999, 1e-8
        let zeros (parameters: Heads) = Heads.map torch.zeros_like parameters

        let average (beta: float) (old: torch.Tensor) (value: torch.Tensor) =
            old * beta.AsScalar() .+ value * (1.0 - beta).AsScalar()

        { Init =
            fun parameters ->
                { TransformState.empty with
                    Slots = Map [ "m", zeros parameters; "v", zeros parameters ] }
          Update =
            fun state updates _ ->
                let count m = 1L + (Map.tryFind m state.Counts |> Option.defaultValue 0L)
                let first = updates |> Map.map (fun m g -> average beta1 (Heads.weight m state.Slots["m"]) g)
                let second = updates |> Map.map (fun m g -> average beta2 (Heads.weight m state.Slots["v"]) (g * g))

                let direction m (average: torch.Tensor) =
                    let n = float (count m)
                    let scale = sqrt (1.0 - beta2 ** n)
                    let root = (Heads.weight m second).sqrt().div_(scale.AsScalar()).plus_ epsilon
                    (average / root).div_((1.0 - beta1 ** n).AsScalar())

                struct (Map.map direction first,
                        { state with
                            Step = state.Step + 1L
                            Counts = updates |> Map.fold (fun counts m _ -> Map.add m (count m) counts) state.Counts
                            Slots = Map [ "m", Heads.replace first state.Slots["m"]; "v", Heads.replace second state.Slots["v"] ] }) }

    /// Adds rate · W to the update (decoupled weight decay, as in AdamW); the last `exempt` columns, biases, are left out.
    let decay (rate: float) (exempt: int64) : Transform =
        if rate = 0.0 then
            Transform.identity
        else
            Transform.stateless (fun _ u w ->
                if exempt = 0L then
                    u .+ w * rate.AsScalar()
                else
                    let columns = w.shape[1] - exempt

                    torch.cat (
                        [| u.narrow (1L, 0L, columns) .+ w.narrow (1L, 0L, columns) * rate.AsScalar()
                           u.narrow (1L, columns, exempt) |],
                        1L
                    ))

    /// From a direction to a step downhill: times −lr · schedule(i) for the i-th of `total` updates.
    let rate (lr: float) (schedule: Schedule) (total: int64) : Transform =
        { Init = fun _ -> TransformState.empty
          Update =
            fun state updates _ ->
                let step = -lr * Schedule.factor schedule total state.Step
                struct (Heads.map (fun u -> u * step.AsScalar()) updates, { state with Step = state.Step + 1L }) }

    /// Keeps each modality's whole change since `start` within its ellipsoid (theory.md, section 7a, trust): the update is
    /// cut so that the parameters that it leads to are inside. Modalities without one are free.
    let within (start: Heads) (ellipsoids: Map<Modality, torch.Tensor * float>) : Transform =
        Transform.stateless (fun m u w ->
            match Map.tryFind m ellipsoids with
            | None -> u
            | Some(importance, budget) ->
                let sofar = w - Heads.weight m start
                Frame.intoEllipsoid importance budget (sofar .+ u) - sofar)
