namespace Cmcl

open TorchSharp

[<RequireQualifiedAccess>]
type Optimiser =
    | AdamW
    | Sgd

/// The usual way from gradients to updates, as data: clipping, the optimizer, decoupled decay, the rate, and last what protects old
/// scores. Being data it can be run as a chain of pure transforms (`Rule.transform`) or in place in one pass over memory
/// (`InPlace`).
[<RequireQualifiedAccess>]
type Recipe =
    {
        /// Largest global norm of a gradient.
        Clip: float option
        Optimiser: Optimiser
        WeightDecay: float
        /// Last columns, biases, that decay leaves out.
        Exempt: int64
        LearningRate: float
        Schedule: Schedule
        /// Updates that a step will take.
        Updates: int64
        /// What is asked of the changes of each modality; free where there is none.
        Shapes: Map<Modality, Shape>
    }

    /// η for the `i`-th update (0-based).
    member r.Rate(i: int64) : float = r.LearningRate * Schedule.factor r.Schedule r.Updates i

    member r.Shape(m: Modality) : Shape = Map.tryFind m r.Shapes |> Option.defaultValue Shape.Free

/// From gradients to updates.
[<RequireQualifiedAccess>]
type Rule =
    | Recipe of Recipe
    | Chain of Transform

[<RequireQualifiedAccess>]
module Rule =
    let private recipe (start: Heads) (r: Recipe) : Transform =
        let shaped choose =
            r.Shapes |> Map.toList |> List.choose (fun (m, shape) -> choose m shape |> Option.map (fun s -> m, s)) |> Map

        let factors =
            shaped (fun m shape ->
                match shape with
                | Shape.Block(rows, columns) -> Some(Shape.mask rows columns (Heads.weight m start))
                | Shape.Factor f -> Some f
                | _ -> None)

        let ellipsoids =
            shaped (fun _ shape ->
                match shape with
                | Shape.Ellipsoid(importance, budget) -> Some(importance, budget)
                | _ -> None)

        Transform.chain
            [ match r.Clip with
              | Some limit -> Optim.clip limit
              | None -> ()
              match r.Optimiser with
              | Optimiser.AdamW -> Optim.adam
              | Optimiser.Sgd -> Transform.identity
              Optim.decay r.WeightDecay r.Exempt
              Optim.rate r.LearningRate r.Schedule r.Updates
              if not factors.IsEmpty then
                  Transform.factor factors
              if not ellipsoids.IsEmpty then
                  Optim.within start ellipsoids ]

    /// The rule as a pure transform of a session that starts from these weights.
    let transform (start: Heads) (rule: Rule) : Transform =
        match rule with
        | Rule.Recipe r -> recipe start r
        | Rule.Chain t -> t
