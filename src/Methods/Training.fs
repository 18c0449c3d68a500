namespace Cmcl

/// Parts that methods share.
[<RequireQualifiedAccess>]
module Training =
    /// Every modality of the tasks, each once.
    let moving (tasks: Task list) : Modality list = tasks |> List.collect _.Modalities |> List.distinct

    /// The weights of some modalities.
    let select (modalities: Modality list) (heads: Heads) : Heads = Map [ for m in modalities -> m, Heads.weight m heads ]

    /// The optimizer that the settings name, between clipping and decay, then the rate, then what the shapes ask of an update.
    let recipe (context: Context) (shapes: Map<Modality, Shape>) : Recipe =
        let s = context.Settings

        { Clip = s.Clip
          Optimiser = s.Optimiser
          WeightDecay = s.WeightDecay
          Exempt = 0L
          LearningRate = s.LearningRate
          Schedule = s.Decay
          Updates = context.Updates
          Shapes = shapes }

    /// Projected gradients scaled as clipping would have scaled the raw ones: clipped before projected, as published.
    let clippedAs (raw: Heads) (settings: Settings) (projected: Heads) : Heads =
        match settings.Clip with
        | None -> projected
        | Some limit ->
            let factor = Optim.clipFactor limit (Optim.globalNorm raw)
            Heads.map (fun g -> g * factor.AsScalar()) projected

    /// InfoNCE of the outputs as they are.
    let plain (settings: Settings) : Direction =
        Direction.Closed
            { Contrast = Settings.contrast settings
              Bridges = Map.empty }

    /// Training with nothing beside the loss, from the given heads.
    let plainSession (context: Context) (memory: Memory) (heads: Heads) (tasks: Task list) : Session =
        { Start = select (moving tasks) heads
          Data = tasks
          Direction = plain context.Settings
          Kept = RunningSum.clear memory
          Rule = Rule.Recipe(recipe context Map.empty)
          Finish =
            fun trained ->
                { trained with
                    Weights = Heads.replace trained.Weights heads }
          Spectra = []
          Remarks = [] }

    /// A method that trains like fine-tuning, to be changed where another differs: a step at a time, nothing kept.
    /// Example: `Training.method "mine" "like fine-tuning" |> Method.beginning Training.plainSession`.
    let method (name: string) (summary: string) : Method =
        Method.training name summary { Begin = plainSession; End = fun _ memory _ _ -> memory }
