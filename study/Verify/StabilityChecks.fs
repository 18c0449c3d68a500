namespace Cmcl

open TorchSharp

/// What one step did to one old step's scores; norms are Frobenius, over all n × n training scores, in float64.
type OldPlace =
    {
        After: int
        Task: int
        /// Whether one of its heads moved.
        Moves: bool
        /// ‖A_then‖ at the old step's end, ‖A_before‖ at this step's start.
        Size: float
        Before: float
        /// ‖A_after − A_before‖.
        Change: float
        /// ‖A_after − A_then‖/‖A_then‖ from the rows, and known without them.
        Deviation: float
        Drift: float
        /// What was known of it before this step, and the certificate of this step, both over ‖A_then‖; and what the kept rows may miss
        /// of the former.
        DriftBefore: float
        Certificate: float
        Beyond: float
        /// ‖A_after − A_before − X_a D_aᵀ D_b X_bᵀ‖/‖A_before‖, and with the first-order terms taken off too.
        Identity: float
        Expansion: float
        /// ‖X_a D_aᵀ‖ ‖D_b X_bᵀ‖, and what truncation may add to it for both heads; of one gradient step also what it did.
        SecondOrder: float
        Truncation: float
        GradientChange: float
        GradientBound: float
        /// The largest share of energy that a moving head's cut leaves out of the old step's inputs or outputs; none without a cut.
        Discarded: float option
        /// (‖X_a‖ ‖Y_b‖ + ‖Y_a‖ ‖X_b‖)/‖A_before‖: what a rounding of the heads comes to in scores.
        Scale: float
        /// What rounding of weights may add to the change of scores, over ‖A_before‖, and to what a total budget keeps; and what
        /// rounding in float64 may add to a bound and to what it is held against.
        Slack: float
        Rounding: float
        Arithmetic: float
    }

    /// The bound on `Deviation` that is known without the rows: the drift before the step plus the step's certificate.
    member p.Bound: float = p.DriftBefore + p.Beyond + p.Certificate + p.Arithmetic

[<RequireQualifiedAccess>]
module StabilityChecks =
    let private over (size: float) (x: float) = if size = 0.0 then x else x / size

    /// What truncation may add for a change of each head, and the largest share of energy behind it.
    let private truncation (s: Stage) (changes: Heads) (old: TracedStep) : float =
        [ for m in Pair.members old.Step.Pair do
              match Map.tryFind m s.Cuts, Map.tryFind m changes with
              | Some cut, Some d ->
                  use scope = torch.NewDisposeScope()
                  let struct (x, y) = s.OldRows m old
                  Bounds.truncation cut.Partner cut.Input d x y
              | _ -> () ]
        |> List.sum

    let private discarded (s: Stage) (old: TracedStep) : float option =
        [ for m in Pair.members old.Step.Pair do
              match Map.tryFind m s.Cuts with
              | None -> ()
              | Some cut ->
                  use scope = torch.NewDisposeScope()
                  let struct (x, y) = s.OldRows m old
                  max (Bounds.discarded cut.Input x) (Bounds.discarded cut.Partner y) ]
        |> function
            | [] -> None
            | shares -> Some(List.max shares)

    let private place (s: Stage) (kept: OldStep) (old: TracedStep) : OldPlace =
        use scope = torch.NewDisposeScope()
        let pair, xa, xb = old.Step.Pair, old.FewA, old.FewB
        let before, after = s.Traced.Before, s.Traced.After
        let moving = Pair.members pair |> List.filter s.Traced.Frames.ContainsKey
        let struct (earlier, now, certificate) = OldStep.across before after kept
        let ya, yb = Heads.outputs before[pair.A] xa, Heads.outputs before[pair.B] xb
        let size = Tensors.norm (Alignment.between pair before xa xb)
        let scale = Tensors.norm xa * Tensors.norm yb + Tensors.norm ya * Tensors.norm xb |> over size

        // One gradient step −ηΔ from the step's start, of the heads that move now.
        let eta = s.Plan.Settings.LearningRate
        let deltas = s.Deltas |> Map.filter (fun m _ -> List.contains m moving)
        let stepped = deltas |> Map.map (fun m d -> before[m] - d * eta.AsScalar())
        let delta m = Map.tryFind m deltas |> Option.defaultWith (fun () -> torch.zeros_like before[m])

        { After = s.Traced.Step.Index
          Task = old.Step.Index
          Moves = not moving.IsEmpty
          Size = kept.Size
          Before = size
          Change = Tensors.norm (Bounds.change pair before after xa xb)
          Deviation = (Stability.deviation pair old.After after old.A old.B).Relative
          Drift = now.Relative
          DriftBefore = earlier.Relative
          Certificate = OldStep.relative kept certificate.Bound
          Beyond = OldStep.relative kept certificate.Beyond
          Identity = Bounds.identityResidual pair before after xa xb
          Expansion = Bounds.expansionResidual pair before after xa xb
          SecondOrder = Bounds.wholeStep xa (s.Change pair.A) (s.Change pair.B) xb
          Truncation = truncation s (Map [ for m in moving -> m, s.Change m ]) old
          GradientChange = Tensors.norm (Bounds.change pair before (Heads.replace stepped before) xa xb)
          GradientBound = Bounds.gradientStep eta xa (delta pair.A) (delta pair.B) xb + eta * truncation s deltas old
          Discarded = discarded s old
          Scale = scale
          Slack = Slack.ofScores s scale
          Rounding = OldStep.rounding s.Plan.Settings.Dtype kept
          Arithmetic = [ old.After; before; after ] |> List.sumBy (fun heads -> OldStep.arithmetic heads kept) }

    /// Of one old step, the places up to this one.
    let private upTo (p: OldPlace) (places: OldPlace list) : OldPlace list =
        places |> List.filter (fun q -> q.Task = p.Task && q.After <= p.After)

    /// Every old step at every later step of a trace.
    let places (trace: Trace) : OldPlace list =
        use scope = torch.NewDisposeScope()

        let kept = Map [ for t in trace.Steps -> t.Step.Index, OldStep.ofRows t.Step.Index t.Step.Pair t.After t.A t.B ]

        let alone = Stage.each trace (fun s -> [ for old in s.Old -> place s kept[old.Step.Index] old ]) |> List.concat

        [ for p in alone ->
              { p with
                  Beyond = (upTo p alone |> List.sumBy _.Beyond) - p.Beyond } ]

    let private where (p: OldPlace) = $"step {p.After}, old step {p.Task}"

    /// Theorem 5: promised where a plan keeps whole changes in their constraint sets, reported elsewhere.
    let private theorem5 (place: Place) (p: OldPlace) : Condition list =
        let relative = over p.Before
        let kept = place <> Place.Gradient
        let name what = if kept then $"Theorem 5: {what}" else $"Theorem 5: {what}, gradients projected"
        let promised condition = if kept then condition else Condition.reported condition

        [ Condition.atMost (name "beyond the second order") (where p) p.Slack (relative p.Truncation) p.Identity |> promised
          Condition.atMost (name "bound") (where p) p.Slack (relative (p.SecondOrder + p.Truncation)) (relative p.Change)
          |> promised
          Condition.atMost
              "Theorem 5: bound of a gradient step"
              (where p)
              (1e-14 * p.Scale)
              (relative p.GradientBound)
              (relative p.GradientChange) ]

    /// What is known without the rows.
    let private replayFree (settings: Settings) (p: OldPlace) : Condition list =
        let tolerance = if settings.Dtype = Dtype.Float64 then 1e-8 else 1e-3

        [ Condition.equal "drift: known without the rows" (where p) tolerance p.Deviation p.Drift
          Condition.atMost "certificate: never below the deviation" (where p) 0.0 p.Bound p.Deviation ]

    /// Whether what the cuts left out moved no score beyond rounding, so that the exact variant promises every old score.
    let exactNullSpace (settings: Settings) (places: OldPlace list) : bool =
        places |> List.forall (fun p -> p.Truncation <= Tolerance.agreement settings.Dtype * p.Before)

    /// Those of a plan at all its places.
    let conditions (trace: Trace) (places: OldPlace list) : Condition list =
        let o = trace.Options

        [ for p in places do
              if p.Moves then
                  Condition.zero "expansion of the change of scores" (where p) (1e-14 * p.Scale + 1e-12) p.Expansion

                  if o.Protect = Protect.Block then
                      yield! theorem5 o.Place p

              yield! replayFree trace.Plan.Settings p

              match o.Protect, o.TotalBudget with
              | Protect.Trust, Some total ->
                  Condition.atMost
                      "trust: old steps within the total budget"
                      (where p)
                      (p.Rounding + p.Beyond + p.Arithmetic)
                      total
                      p.Bound
              | _ -> () ]

    /// The Definition of stability, A_{s;t} = A_{s;s}: a must for the exact variant on an exact null space, to what its cuts left out
    /// below rounding; elsewhere reported with its bound.
    let stability (trace: Trace) (places: OldPlace list) : Finding list =
        let settings = trace.Plan.Settings
        let rounding = Tolerance.agreement settings.Dtype
        let promised = trace.Options.Exact && exactNullSpace settings places

        [ for p in places ->
              if promised then
                  let since f = upTo p places |> List.sumBy f |> over p.Size
                  let bound = since (fun q -> q.SecondOrder + q.Truncation)
                  let tolerance = max rounding (since (fun q -> q.Slack * q.Before))

                  { Run = trace.Plan.Label
                    Condition = Condition.atMost "stability: old scores as they were" (where p) tolerance bound p.Deviation
                    ExactTo = None }
              else
                  { Run = trace.Plan.Label
                    Condition =
                      Condition.atMost $"stability of {trace.Plan.Label}" (where p) rounding p.Bound p.Deviation
                      |> Condition.reported
                    ExactTo = Some rounding } ]
