namespace Cmcl

/// How far an old step's scores have moved in the midst of a later step.
type MonitorMeasurement =
    {
        /// The step in training.
        Step: int
        /// Updates of that step so far.
        Update: int64
        /// The old step.
        Task: int
        Drift: Drift
    }

/// Stability watched while it is lost: the replay-free drift of every old step during training.
[<RequireQualifiedAccess>]
module Monitor =
    /// An observer's `Begin` that reads every old step's drift after every n-th update, under the heads that the step would leave if
    /// it ended there. Example: `{ Observer.silent with Begin = Monitor.every 10L (printfn "%A") }`.
    let every (n: int64) (read: MonitorMeasurement -> unit) (scene: Scene) : (Update -> unit) option =
        if scene.Context.Old.IsEmpty then
            None
        else
            Some(fun update ->
                if update.Count % n = 0L then
                    let finished = scene.Session.Finish { Weights = update.After; Kept = update.Kept }

                    for old in scene.Context.Old do
                        read
                            { Step = scene.Step.Index
                              Update = update.Count
                              Task = old.Index
                              Drift = OldStep.drift finished.Weights old })
