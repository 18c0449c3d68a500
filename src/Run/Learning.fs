namespace Cmcl

open System
open System.Diagnostics
open TorchSharp

/// Why a run did not come to its end.
[<RequireQualifiedAccess>]
type internal Stop =
    | Fault of Fault list
    | Left

/// What all steps of a run share.
type internal Learning =
    {
        Run: RunContext
        Limits: Limits
        Plan: Plan
        Seed: int
        /// The heads before any step.
        Initial: Heads
        /// Units of progress in the whole run (`Learning.units`).
        Total: int64
        Observer: Observer
        Checkpointer: Checkpointer
    }

/// What learning some steps left.
type private Learned =
    {
        Heads: Heads
        Memory: Memory
        Losses: (int * int * float) list
        Spectra: SpectrumNote list
        /// Seconds to begin, of training or solving, and to end.
        Seconds: struct (float * float * float)
        /// Pairs that went through it, where it is worth telling how many a second.
        Pairs: float option
        Units: int64
    }

/// Some steps learned as one session: trained or solved, from the state of a run to the next.
[<RequireQualifiedAccess>]
module internal Learning =
    /// Units of progress in learning steps of so many items: updates where they are trained, one solution a session.
    let units (plan: Plan) (lengths: int64 list) : int64 =
        match plan.Method.Learner, plan.Method.Curriculum with
        | Learner.Nothing, _ -> 0L
        | Learner.Solve _, Curriculum.StepByStep -> lengths.Length
        | Learner.Solve _, Curriculum.AllAtOnce -> 1L
        | Learner.Train _, _ -> Loop.updates plan.Settings lengths

    /// Hands heads and memory over to the caller's scope.
    let private keep (heads: Heads) (memory: Memory) (scope: DisposeScope) =
        for t in Seq.append heads.Values memory.Values do
            scope.MoveToOuter t |> ignore

    /// Training that takes less is not told in pairs a second.
    let private tellingSeconds = 10.0

    let private diverged (l: Learning) (at: Step) (epoch: int) =
        Error(Stop.Fault [ Fault.Diverged(l.Plan.Label, l.Seed, at.Name, epoch) ])

    let private train
        (l: Learning)
        (trainer: Trainer)
        (context: Context)
        (at: Step)
        (tasks: Task list)
        (state: RunState)
        (sofar: int64)
        : Result<Learned, Stop> =
        let settings, device, observer = l.Plan.Settings, l.Run.Device, l.Observer
        let memory, heads = state.Memory, List.last state.Heads
        let struct (preparing, session) = Clock.timed device (fun () -> trainer.Begin context memory heads tasks)

        for text in session.Remarks do
            observer.Tell(Event.Remark(at, text))

        let midway = state.Within |> Option.map _.Training
        let spent = state.Within |> Option.map _.Seconds |> Option.defaultValue 0.0
        let clock = Stopwatch.StartNew()

        let losses =
            ResizeArray(
                midway |> Option.map _.Epochs |> Option.defaultValue [] |> List.mapi (fun i loss -> at.Index, i + 1, loss)
            )

        let onEpoch epoch loss count =
            losses.Add(at.Index, epoch, loss)
            observer.Tell(Event.Epoch(at, epoch, loss, sofar + count, l.Total))

        let watch =
            { Epoch = onEpoch
              Update =
                observer.Begin
                    { Step = at
                      Context = context
                      Memory = memory
                      Heads = heads
                      Tasks = tasks
                      Session = session }
              Pause =
                fun count midway ->
                    l.Checkpointer (SavePoint.Update(count % (context.Updates / int64 settings.Epochs) = 0L)) (fun () ->
                        { state with
                            Within =
                                Some
                                    { Training = midway ()
                                      Seconds = spent + clock.Elapsed.TotalSeconds } }) }

        let order = Seed.ofInt l.Seed |> Seed.split "shuffle" |> Seed.split $"step {at.Index}"
        let struct (training, trained) = Clock.timed device (fun () -> Loop.resume settings order watch midway session)

        match trained with
        | Error(Unfinished.Diverged epoch) -> diverged l at epoch
        | Error Unfinished.Paused -> Error Stop.Left
        | Ok trained ->
            let struct (finishing, (heads, memory)) =
                Clock.timed device (fun () ->
                    let finished = session.Finish trained
                    finished.Weights, trainer.End context finished.Kept finished.Weights tasks)

            let seconds = spent + training

            Ok
                { Heads = heads
                  Memory = memory
                  Losses = List.ofSeq losses
                  Spectra = session.Spectra
                  Seconds = struct (preparing, seconds, finishing)
                  Pairs =
                    if seconds >= tellingSeconds then
                        Some(float settings.Epochs * float (tasks |> List.sumBy _.Visits))
                    else
                        None
                  Units = context.Updates }

    let private solve
        (l: Learning)
        (solve: Context -> Memory -> Heads -> Task list -> Result<Solution, Fault list>)
        (context: Context)
        (at: Step)
        (tasks: Task list)
        (state: RunState)
        (sofar: int64)
        : Result<Learned, Stop> =
        let memory, heads = state.Memory, List.last state.Heads

        let found () =
            try
                solve context memory heads tasks
            with CmclException fault ->
                Error [ fault ]

        match Clock.timed l.Run.Device found with
        | struct (_, Error faults) -> Error(Stop.Fault faults)
        | struct (seconds, Ok solution) ->
            for text in solution.Remarks do
                l.Observer.Tell(Event.Remark(at, text))

            l.Observer.Tell(Event.Solved(at, sofar + 1L, l.Total))

            Ok
                { Heads = solution.Heads
                  Memory = solution.Memory
                  Losses = []
                  Spectra = []
                  Seconds = struct (0.0, seconds, 0.0)
                  Pairs = None
                  Units = 1L }

    let private measurements (l: Learning) (at: Step) (learned: Learned) (before: float) (after: float) : Measurement list =
        let measurement metric value =
            { Step = at.Index
              Task = at.Index
              Metric = metric
              Value = value }

        let struct (preparing, learning, finishing) = learned.Seconds

        [ measurement "loss_before" before
          measurement "loss_after" after
          measurement "seconds_prepare" preparing
          measurement "seconds_train" learning
          measurement "seconds_finish" finishing
          match learned.Pairs with
          | Some pairs -> measurement "pairs_per_second" (pairs / learning)
          | None -> ()
          measurement "bytes_state" (float (Memory.bytes learned.Memory))
          for metric, value in l.Plan.Method.Diagnostics learned.Memory do
              measurement metric value ]

    let private next (l: Learning) (steps: Step list) (old: OldStep list) (state: RunState) (sofar: int64) =
        use scope = torch.NewDisposeScope()
        let at = List.last steps
        let tasks = TrainingRows.tasks l.Limits l.Run steps
        let lossOf (heads: Heads) = tasks |> List.map (TrainingRows.loss l.Run heads) |> List.average
        let before = lossOf (List.last state.Heads)

        let context =
            { Settings = l.Plan.Settings
              Device = l.Run.Device
              Seed = Seed.ofInt l.Seed |> Seed.split $"method, step {at.Index}"
              Initial = l.Initial
              Updates =
                if Method.trains l.Plan.Method then
                    Loop.updates l.Plan.Settings (tasks |> List.map _.Visits)
                else
                    0L
              Old = old
              Remaining = l.Run.Stream.Steps |> List.filter (fun s -> s.Index >= at.Index) |> List.length }

        let learned =
            match l.Plan.Method.Learner with
            | Learner.Train trainer -> train l trainer context at tasks state sofar
            | Learner.Solve find -> solve l find context at tasks state sofar
            | Learner.Nothing -> invalidOp "a method that learns nothing was asked to learn"

        match learned with
        | Error stop -> Error stop
        | Ok learned ->
            let after = lossOf learned.Heads

            if Double.IsFinite after then
                let measurements = measurements l at learned before after
                keep learned.Heads learned.Memory scope

                Ok(
                    { Heads = state.Heads @ [ learned.Heads ]
                      Memory = learned.Memory
                      Outcome =
                        Outcome.join
                            state.Outcome
                            { Measurements = measurements
                              Losses = learned.Losses
                              Spectra = learned.Spectra |> List.map (fun s -> at.Index, s) }
                      Within = None },
                    sofar + learned.Units
                )
            elif Method.trains l.Plan.Method then
                diverged l at l.Plan.Settings.Epochs
            else
                Error(
                    Stop.Fault
                        [ Fault.Contradiction(
                              $"{l.Plan.Label} (seed {l.Seed}): the loss under its solution of step '{at.Name}' is not finite",
                              "a closed form returns finite heads, or says by a fault why it cannot"
                          ) ]
                )

    /// The state after the given steps, learned as one session that is named by the last of them, from a state between steps or, where they are
    /// trained, within this one; and the units of progress so far.
    let learn
        (l: Learning)
        (steps: Step list)
        (old: OldStep list)
        (state: RunState)
        (sofar: int64)
        : Result<RunState * int64, Stop> =
        try
            next l steps old state sofar
        with
        | CmclException(Fault.NonFinite _) when Method.trains l.Plan.Method ->
            // Weights so large that their moments overflow end a run before its first epoch.
            diverged l (List.last steps) 0
        | CmclException fault -> Error(Stop.Fault [ fault ])
