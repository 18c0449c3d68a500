namespace Cmcl

open TorchSharp

/// A stability budget for a whole stream: no old step's scores move by more than a share E of their size, whatever the optimizer,
/// the rate and the number of steps (theory.md, section 8).
[<RequireQualifiedAccess>]
module Budget =
    /// What the coming step may move each old step's scores by, a share of their size: √((E² − δ²)/(steps that remain)) for the
    /// drift δ so far, as if all steps' changes stood at right angles, and never more than E − δ, which is what keeps the promise.
    /// Example: `Budget.allowances 0.2 4 heads [ old ]`.
    let allowances (total: float) (remaining: int) (heads: Heads) (old: OldStep list) : (OldStep * float) list =
        [ for s in old do
              let drift = (OldStep.drift heads s).Relative
              let spread = sqrt (max 0.0 (total * total - drift * drift) / float (max 1 remaining))
              s, min spread (max 0.0 (total - drift)) ]

    /// ε for the trust region of one modality: the least that its old steps allow, half of that where the partner moves too; None
    /// without an old step.
    let epsilon (moving: Modality list) (allowances: (OldStep * float) list) (m: Modality) : float option =
        [ for s, allowed in allowances do
              if List.contains m (Pair.members s.Pair) then
                  if List.contains (Pair.partner m s.Pair) moving then allowed / 2.0 else allowed ]
        |> function
            | [] -> None
            | all -> Some(List.min all)

    /// The largest θ ≤ 1 for which the change times θ stays within: θ F + θ² S ≤ allowed, F and S the first and the second
    /// order of its certificate; what the kept rows may miss counts in F, since it shrinks at least as fast as θ.
    let share (allowed: float) (c: Certificate) : float =
        if c.Bound <= allowed then
            1.0
        elif allowed <= 0.0 then
            0.0
        else
            let first = c.First + c.Beyond
            2.0 * allowed / (first + sqrt (first * first + 4.0 * c.Second * allowed))

    /// What of a step's change in the frames keeps every old step within its allowance: while the first order is too large the trust
    /// regions of its modalities are tightened, and what is left over, of second order, is met by scaling the whole change.
    /// `finish` makes heads of weights in the frames; `ellipsoids` are importance and budget as in `Optim.within`.
    let keep
        (allowances: (OldStep * float) list)
        (ellipsoids: Map<Modality, torch.Tensor * float>)
        (finish: Heads -> Heads)
        (before: Heads)
        (start: Heads)
        (trained: Heads)
        : Heads =
        // Room for the rounding of weights in float32.
        let allowances = [ for s, allowed in allowances -> s, allowed * s.Size * (1.0 - 1e-4) ]

        let certificates weights =
            use scope = torch.NewDisposeScope()
            let after = finish weights
            [ for s, allowed in allowances -> s, allowed, OldStep.certificate before after s ]

        /// By how much the first order exceeds what the second leaves of an allowance, at least half of it.
        let excess (allowed: float) (c: Certificate) =
            if c.First = 0.0 then 0.0 else c.First / max (allowed - c.Second) (allowed / 2.0)

        let tighten (factors: Map<Modality, float>) (weights: Heads) : Heads =
            weights
            |> Map.map (fun m w ->
                match Map.tryFind m ellipsoids, Map.tryFind m factors with
                | Some(importance, _), Some factor when factor > 1.0 ->
                    Tensors.scoped (fun () ->
                        let change = w - start[m]
                        let size = Tensors.toFloat ((importance * change.squared ()).sum())
                        start[m] .+ Frame.intoEllipsoid importance (size / (factor * factor)) change)
                | _ -> w)

        let rec within rounds weights =
            let found = certificates weights

            let factors =
                Map
                    [ for m in start.Keys ->
                          m,
                          found
                          |> List.filter (fun (s, _, _) -> List.contains m (Pair.members s.Pair))
                          |> List.fold (fun worst (_, allowed, c) -> max worst (excess allowed c)) 0.0 ]

            if rounds = 0 || factors |> Map.forall (fun _ factor -> factor <= 1.0) then
                struct (weights, found)
            else
                within (rounds - 1) (tighten (Map.map (fun _ factor -> 1.02 * factor) factors) weights)

        Tensors.scopedWith _.Values (fun () ->
            let struct (weights, found) = within 12 trained
            let theta = found |> List.fold (fun least (_, allowed, c) -> min least (share allowed c)) 1.0
            weights |> Map.map (fun m w -> start[m] .+ (w - start[m]) * theta.AsScalar()))
