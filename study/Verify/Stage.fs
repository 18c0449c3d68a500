namespace Cmcl

open TorchSharp

/// One traced step with what its checks share: the projectors, a real batch's gradients, all old rows. Its tensors belong to the scope
/// that it was made in.
type Stage =
    {
        Plan: Plan
        Options: NullSpaceOptions
        Traced: TracedStep
        /// The steps before it, oldest first.
        Old: TracedStep list
        Cuts: Map<Modality, Cut>
        /// The largest |S_ij|/τ of the step's first batch in stored order: how steep its softmax can be.
        Steepness: float
        /// The loss of the step's first batch in stored order, and its gradients G at the step's start.
        Loss: Heads -> float
        Gradients: Heads
        /// Δ = G − P̃ G P.
        Deltas: Heads
    }

    member s.Pair: Pair = s.Traced.Step.Pair

    /// D of one modality over the whole step.
    member s.Change(m: Modality) : torch.Tensor = Heads.weight m s.Traced.After - Heads.weight m s.Traced.Before

    /// A few rows for the old inputs X of a modality in an old step, and for its partner's outputs Y at the start of this one.
    member s.OldRows (m: Modality) (old: TracedStep) : struct (torch.Tensor * torch.Tensor) =
        let p = Pair.partner m old.Step.Pair
        struct (old.Few m, Heads.outputs (Heads.weight p s.Traced.Before) (old.Few p))

    /// The most rows or columns of a weight that moves.
    member s.Dimension: int64 = [ for w in s.Gradients.Values -> max w.shape[0] w.shape[1] ] |> List.max

    member s.Where: string = $"step {s.Traced.Step.Index}"

[<RequireQualifiedAccess>]
module Stage =
    let private batch (settings: Settings) (step: TracedStep) =
        let size = Loop.batchRows settings.Batch step.A.shape[0]
        step.A.narrow (0L, 0L, size), step.B.narrow (0L, 0L, size)

    /// Every step of a trace as the checks want it, each in a scope of its own that ends with `f`.
    let each (trace: Trace) (f: Stage -> 'a) : 'a list =
        let settings = trace.Plan.Settings

        let one (old: TracedStep list) (step: TracedStep) =
            use scope = torch.NewDisposeScope()
            let pair = step.Step.Pair
            let xa, xb = batch settings step
            let pass heads = Trace.pass settings pair xa xb heads

            let loss heads =
                use scope = torch.NewDisposeScope()
                Tensors.toFloat (pass heads).Loss

            let cuts = Cut.ofFrames trace.Options step.Frames
            let gradients = (pass step.Before).Gradients

            let contrast = Settings.contrast settings
            let outputs m x = Heads.outputs (Heads.weight m step.Before) x
            let scores = Alignment.scores contrast.Scoring (outputs pair.A xa) (outputs pair.B xb)

            f
                { Plan = trace.Plan
                  Options = trace.Options
                  Traced = step
                  Old = old
                  Cuts = cuts
                  Steepness = Tensors.toFloat (scores.abs().max()) / contrast.Temperature
                  Loss = loss
                  Gradients = gradients
                  Deltas = Cut.project cuts gradients }

        [ for i, step in List.indexed trace.Steps -> one (List.truncate i trace.Steps) step ]

/// What the type of a run's weights may add to a number that is zero in the theory.
[<RequireQualifiedAccess>]
module internal Slack =
    /// Two computations in float64 of one quantity.
    [<Literal>]
    let Algebra = 1e-10

    /// Roundings of a weight's entries in a step: one where only the change is rotated back, one for every update elsewhere.
    let private roundings (s: Stage) =
        match s.Options.Place with
        | Place.Eigenbasis -> 1.0
        | Place.Gradient
        | Place.Update -> float s.Traced.Updates

    /// The size of what rounding puts into a head's change over the step, beside that change: 16 ε √u ‖W‖/‖D‖ + 16 ε √u.
    let ofChange (s: Stage) (m: Modality) : float =
        use scope = torch.NewDisposeScope()
        let change = Tensors.norm (s.Change m)
        let ratio = if change > 0.0 then Tensors.norm (Heads.weight m s.Traced.Before) / change else 0.0
        16.0 * Tolerance.epsilon s.Plan.Settings.Dtype * sqrt (roundings s) * (1.0 + ratio)

    /// The same in scores, relative to their size: 16 ε √u (‖X_a‖ ‖Y_b‖ + ‖Y_a‖ ‖X_b‖)/‖A‖.
    let ofScores (s: Stage) (scale: float) : float = 16.0 * Tolerance.epsilon s.Plan.Settings.Dtype * sqrt (roundings s) * scale
