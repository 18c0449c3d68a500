namespace Cmcl

open TorchSharp

/// The projectors, the moments behind them, Theorems 3 and 4, and what a plan promises of a step's whole change.
[<RequireQualifiedAccess>]
module ProjectionChecks =
    /// All old inputs of a modality, and all outputs of its partners in the same steps under the heads now; without their means where
    /// the plan takes those off.
    let private history (s: Stage) (m: Modality) =
        let steps = s.Old |> List.filter (fun old -> List.contains m (Pair.members old.Step.Pair))

        let outputs (old: TracedStep) =
            let p = Pair.partner m old.Step.Pair
            Heads.outputs (Heads.weight p s.Traced.Before) (old.Rows p)

        let all (parts: TracedStep -> torch.Tensor) =
            let rows = torch.cat ([| for old in steps -> parts old |], 0L)

            match s.Options.Centring with
            | Centring.Uncentred -> rows
            | Centring.Centred -> rows - rows.mean ([| 0L |], true)

        all (fun old -> old.Rows m), all outputs

    let private projectors (s: Stage) : Condition list =
        [ for KeyValue(m, cut) in s.Cuts do
              for side, p in [ "P", cut.Input; "P̃", cut.Partner ] do
                  let where = $"{s.Where}, {side} of {m}"
                  Condition.zero "projectors: symmetric" where 1e-10 (Conditions.asymmetry p)
                  Condition.zero "projectors: idempotent" where 1e-10 (Conditions.idempotence p) ]

    /// U Λ Uᵀ, what the method decomposed.
    let private matrixOf (spectrum: Spectrum) : torch.Tensor =
        let values = torch.tensor(spectrum.Values, dtype = torch.float64).``to`` spectrum.Vectors.device
        Tensors.product (spectrum.Vectors * values) (spectrum.Vectors.t ())

    /// The frames' moments, merged step by step, against those of all old rows at once; and what the cuts leave out of them.
    let private moments (s: Stage) : Condition list =
        [ for KeyValue(m, frame) in s.Traced.Frames do
              if frame.Inputs.Total > 0.0 then
                  use scope = torch.NewDisposeScope()
                  let x, y = history s m

                  let sides =
                      [ "inputs", frame.Inputs, x
                        if s.Options.Sides = Sides.Dual then
                            "partners' outputs", frame.Partners, y ]

                  for side, spectrum, rows in sides do
                      let where = $"{s.Where}, {side} of {m}"
                      let difference = Tensors.relativeDifference (matrixOf spectrum) (Moment.ofRows rows).Matrix
                      Condition.zero "moments: merged = of all rows" where 1e-12 difference

                  match Map.tryFind m s.Cuts with
                  | None -> ()
                  | Some cut ->
                      let left name (p: torch.Tensor) rows known =
                          Condition.equal
                              "energy left out: known without the rows"
                              $"{s.Where}, {name} of {m}"
                              Slack.Algebra
                              known
                              (Bounds.discarded p rows)

                      left "inputs" cut.Input x cut.LeftOut

                      if s.Options.Sides = Sides.Dual then
                          left "partners' outputs" cut.Partner y cut.PartnerLeftOut ]

    let private over (size: float) (factors: torch.Tensor list) : float =
        (size, factors) ||> List.fold (fun size t -> let n = Tensors.norm t in if n = 0.0 then 0.0 else size / n)

    /// Theorem 3 of the step's global update M_t − M_{t−1} and the old steps of the same pair.
    let private theorem3 (s: Stage) : Condition list =
        let a, b = s.Pair.A, s.Pair.B

        match Map.tryFind a s.Cuts, Map.tryFind b s.Cuts with
        | Some cutA, Some cutB ->
            use scope = torch.NewDisposeScope()
            let parameter heads = Heads.globalParameter s.Pair heads
            let update = parameter s.Traced.After - parameter s.Traced.Before
            let left = (Projection.globalUpdate cutA.Input cutB.Input update).t()

            [ for old in s.Old do
                  if Set.ofList (Pair.members old.Step.Pair) = Set.ofList [ a; b ] then
                      use scope = torch.NewDisposeScope()
                      let xa, xb = old.Few a, old.Few b
                      let bound = over (Bounds.truncation cutB.Input cutA.Input left xa xb) [ xa; update; xb ]

                      Conditions.globalResidual cutA.Input cutB.Input update xa xb
                      |> Condition.atMost "Theorem 3: global update" $"{s.Where}, old step {old.Step.Index}" 1e-12 bound ]
        | _ -> []

    /// Theorem 4 of a real batch's gradient, for every old step and head.
    let private theorem4 (s: Stage) : Condition list =
        [ for old in s.Old do
              for m in Pair.members old.Step.Pair do
                  match Map.tryFind m s.Cuts with
                  | None -> ()
                  | Some cut ->
                      use scope = torch.NewDisposeScope()
                      let struct (x, y) = s.OldRows m old
                      let g = s.Gradients[m]
                      let bound = over (Bounds.truncation cut.Partner cut.Input s.Deltas[m] x y) [ x; g; y ]

                      Conditions.localResidual cut.Partner cut.Input g x y
                      |> Condition.atMost "Theorem 4: local update" $"{s.Where}, old step {old.Step.Index}, {m}" 1e-12 bound ]

    /// ‖P̃ D P‖/‖D‖ of each head's whole change over the step.
    let leakage (s: Stage) : (Modality * float) list =
        [ for KeyValue(m, cut) in s.Cuts do
              use scope = torch.NewDisposeScope()
              m, Conditions.leakage cut.Partner cut.Input (s.Change m) ]

    /// Where a plan keeps a change in its constraint set by construction, it has to be there.
    let private constraintSet (s: Stage) : Condition list =
        [ for m, value in leakage s do
              let condition name = Condition.zero name $"{s.Where}, {m}" (Slack.ofChange s m) value

              match s.Options.Place with
              | Place.Update
              | Place.Eigenbasis -> condition "constraint set: P̃ D P = 0"
              | Place.Gradient -> condition "constraint set, gradients projected" |> Condition.reported ]

    /// Under trust with a budget for each step, √(Σ μ_i λ_j D'_ij²) of each head's change over that of its weight, from the old rows themselves.
    let private trust (s: Stage) : Condition list =
        match NullSpaceOptions.protection s.Options with
        | Protection.Trust epsilon when s.Options.TotalBudget.IsNone ->
            [ for KeyValue(m, frame) in s.Traced.Frames do
                  if frame.Inputs.Total > 0.0 then
                      use scope = torch.NewDisposeScope()
                      let x, y = history s m
                      let inputs, partners = Moment.ofRows x, Moment.ofRows y

                      let size (d: torch.Tensor) =
                          let weighted = Tensors.product (Tensors.product partners.Matrix d) inputs.Matrix
                          sqrt (max 0.0 (Tensors.toFloat ((weighted * d).sum())))

                      let before = size (Heads.weight m s.Traced.Before)
                      let change = s.Change m
                      // Directions that count as empty may hold this much: λ ≤ d ε λ_max.
                      let largest = frame.Inputs.Values[0] * frame.Partners.Values[0]
                      let empty = Tolerance.epsilon Dtype.Float64 * float inputs.Matrix.shape[0] * largest |> sqrt
                      let tolerance = 1e-6 * epsilon + Slack.ofScores s 1.0 + empty * Tensors.norm change / before
                      let value = size change / before
                      Condition.atMost "trust: first order within its budget" $"{s.Where}, {m}" tolerance epsilon value ]
        | _ -> []

    /// All of them at one step.
    let conditions (s: Stage) : Condition list = projectors s @ moments s @ theorem3 s @ theorem4 s @ constraintSet s @ trust s
