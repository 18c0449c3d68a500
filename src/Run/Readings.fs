namespace Cmcl

open System
open TorchSharp

/// One figure that a run measured: after which step (0 is before training), of which step's data, what.
type Reading = { Step: int; Task: int; Metric: string; Value: float }

/// What measuring needs: the stream, where, in which type, on which rows, and the InfoNCE.
type internal Bench =
    { Stream: Stream
      Device: torch.Device
      Split: Split
      Settings: Settings }

/// What a run measures after every step.
[<RequireQualifiedAccess>]
module internal Readings =
    /// A step's training rows, in the type and where it is trained.
    let task (bench: Bench) (step: Step) : Task =
        let struct (a, b) = Stream.features bench.Settings.Dtype bench.Device Split.Train step

        { Index = step.Index
          Name = step.Name
          Pair = step.Pair
          A = a
          B = b }

    let private outputs (heads: Heads) (m: Modality) (x: torch.Tensor) = Heads.outputs (Heads.weight m heads) x

    /// Retrieval, accuracy and loss of every step's data under these heads, steps to come included.
    let evaluate (bench: Bench) (heads: Heads) (after: int) : Reading list =
        [ for step in bench.Stream.Steps do
              use scope = torch.NewDisposeScope()
              let contrast = Settings.contrast bench.Settings
              let struct (xa, xb) = Stream.features bench.Settings.Dtype bench.Device bench.Split step
              let ya, yb = outputs heads step.Pair.A xa, outputs heads step.Pair.B xb

              let accuracy =
                  match step.Accuracy with
                  | None -> []
                  | Some a ->
                      let items = if a.Items = step.A.Name then ya else yb
                      let prototypes = a.Prototypes.``to``(bench.Settings.Dtype.Torch).``to`` bench.Device
                      let prepare = Alignment.prepare contrast.Scoring
                      let labels = Stream.rows bench.Split step |> Array.map (fun row -> a.Labels[int row])
                      [ "acc", Retrieval.accuracy (prepare items) (prepare (outputs heads a.Modality prototypes)) labels ]

              for metric, value in accuracy @ Retrieval.figures contrast ya yb do
                  if Double.IsFinite value then
                      { Step = after
                        Task = step.Index
                        Metric = metric
                        Value = value } ]

    /// How far the scores of every earlier step moved since its own end: of its training rows, and of the measured rows.
    let deviations (bench: Bench) (atEnd: Map<int, Heads>) (heads: Heads) (after: int) : Reading list =
        [ for step in bench.Stream.Steps do
              match Map.tryFind step.Index atEnd with
              | Some before when step.Index < after ->
                  use scope = torch.NewDisposeScope()

                  let measure split =
                      let struct (xa, xb) = Stream.features bench.Settings.Dtype bench.Device split step
                      Stability.deviation step.Pair before heads xa xb

                  let trained, held = measure Split.Train, measure bench.Split

                  for metric, value in
                      [ "deviation_mean", trained.Mean
                        "deviation_rms", trained.Rms
                        "deviation_max", trained.Max
                        "deviation_rel", trained.Relative
                        "deviation_test_rel", held.Relative ] do
                      { Step = after
                        Task = step.Index
                        Metric = metric
                        Value = value }
              | _ -> () ]

    /// What is kept of a step, for `certified` at later ones.
    let remember (bench: Bench) (heads: Heads) (step: Step) : OldStep =
        use scope = torch.NewDisposeScope()
        let struct (xa, xb) = Stream.features Dtype.Float64 bench.Device Split.Train step
        let kept = OldStep.ofRows step.Index step.Pair heads xa xb

        for t in OldStep.tensors kept do
            scope.MoveToOuter t |> ignore

        kept

    /// Of every earlier step, without its rows: how far all its training scores have moved since its end, and the bounds that
    /// its certificate gives on the last step's part in that and on the whole.
    let certified (bench: Bench) (before: Heads) (heads: Heads) (old: OldStep list) (after: int) : Reading list =
        [ for s in old do
              let struct (earlier, now, certificate) = OldStep.across before heads s
              let step = OldStep.relative s certificate.Bound + OldStep.rounding bench.Settings.Dtype s

              for metric, value in
                  [ "monitor_rms", now.Rms
                    "monitor_rel", now.Relative
                    "bound_step_rel", step
                    "bound_rel", earlier.Relative + step ] do
                  { Step = after
                    Task = s.Index
                    Metric = metric
                    Value = value } ]

    /// InfoNCE on a step's training rows, in batches of the training size in the stored order, so that before and after
    /// are the same rows against the same candidates.
    let trainingLoss (bench: Bench) (heads: Heads) (task: Task) : float =
        use scope = torch.NewDisposeScope()
        let ya, yb = outputs heads task.Pair.A task.A, outputs heads task.Pair.B task.B
        let size = Loop.batchRows bench.Settings.Batch task.Count

        let losses =
            [ for b in 0L .. task.Count / size - 1L ->
                  Retrieval.loss
                      (Settings.contrast bench.Settings)
                      (ya.narrow (0L, b * size, size))
                      (yb.narrow (0L, b * size, size)) ]

        List.average losses
