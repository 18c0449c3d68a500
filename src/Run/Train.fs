namespace Cmcl

open System
open System.Diagnostics
open TorchSharp

/// What a run tells while it goes on.
[<RequireQualifiedAccess>]
type Event =
    /// An epoch is over: how many updates of all that this method and seed will take.
    | Epoch of step: Step * epoch: int * loss: float * updates: int64 * total: int64
    /// A sentence about a step.
    | Remark of step: Step * text: string

/// A step about to be trained, as a method prepared it. Its tensors belong to the run.
type Scene =
    {
        Step: Step
        Context: Context
        /// What the method kept so far, and the heads so far.
        Memory: Memory
        Heads: Heads
        Tasks: Task list
        Session: Session
    }

/// Who looks on while a run goes on. Nothing that it does changes the run.
type Observer =
    {
        Tell: Event -> unit
        /// The heads after each step that trained.
        Save: Step -> Heads -> unit
        /// Called when a step begins; what it gives back, if anything, hears of every update.
        Begin: Scene -> (Update -> unit) option
    }

[<RequireQualifiedAccess>]
module Observer =
    let silent: Observer =
        { Tell = ignore
          Save = fun _ _ -> ()
          Begin = fun _ -> None }

/// What one method with one seed leaves: figures, curves, spectra.
type Outcome =
    {
        Readings: Reading list
        /// Step, epoch, mean loss.
        Losses: (int * int * float) list
        /// Step and spectrum.
        Spectra: (int * SpectrumNote) list
    }

/// One method with one seed over one stream: train, measure, step after step.
[<RequireQualifiedAccess>]
module Train =
    /// Hands heads and memory over to the caller's scope.
    let private keep (heads: Heads) (memory: Memory) (scope: DisposeScope) =
        for t in Seq.append heads.Values memory.Values do
            scope.MoveToOuter t |> ignore

    /// Frees what the next memory no longer holds.
    let private forget (memory: Memory) (next: Memory) : unit =
        for KeyValue(name, t) in memory do
            match Map.tryFind name next with
            | Some kept when obj.ReferenceEquals(kept, t) -> ()
            | _ -> t.Dispose()

    /// Training that takes less is not told in pairs a second.
    let private tellingSeconds = 10.0

    /// `run`, with other limits of memory than `Limits.usual`; the figures are the same to rounding, but for deviations of steps whose rows
    /// are not held, which are of some of their rows (`Round.Sampled`).
    let runWithin
        (limits: Limits)
        (stream: Stream)
        (device: torch.Device)
        (split: Split)
        (seed: int)
        (observer: Observer)
        (plan: Plan)
        : Result<Outcome, Fault list> =
        use whole = torch.NewDisposeScope()
        let settings, m = plan.Settings, plan.Method

        let bench =
            { Stream = stream
              Device = device
              Split = split
              Settings = settings }

        let modalities = Stream.modalities stream
        let d = modalities |> List.map snd |> List.max
        let initial = m.Initial(Heads.identity settings.Dtype device d modalities)
        let last = List.last stream.Steps
        let lengths = stream.Steps |> List.map (fun s -> int64 s.Train.Length)
        let total = Loop.updates settings lengths

        let diverged (at: Step) epoch = Error [ Fault.Diverged(plan.Label, seed, at.Name, epoch) ]

        /// Trains on the given steps as one session, named by the last of them.
        let train (steps: Step list) (memory: Memory) (old: OldStep list) (heads: Heads) (sofar: int64) =
            use scope = torch.NewDisposeScope()
            let at = List.last steps
            let tasks = Readings.tasks limits bench steps
            let lossOf (heads: Heads) = tasks |> List.map (Readings.trainingLoss bench heads) |> List.average
            let before = lossOf heads
            let updates = Loop.updates settings (tasks |> List.map _.Count)

            let context =
                { Settings = settings
                  Device = device
                  Seed = Seed.ofInt seed |> Seed.split $"method, step {at.Index}"
                  Initial = initial
                  Updates = updates
                  Old = old
                  Remaining = stream.Steps |> List.filter (fun s -> s.Index >= at.Index) |> List.length }

            let struct (preparing, session) = Clock.timed device (fun () -> m.Begin context memory heads tasks)

            for text in session.Remarks do
                observer.Tell(Event.Remark(at, text))

            let losses = ResizeArray()

            let onEpoch epoch loss count =
                losses.Add(at.Index, epoch, loss)
                observer.Tell(Event.Epoch(at, epoch, loss, sofar + count, total))

            let watch =
                { Epoch = onEpoch
                  Update =
                    observer.Begin
                        { Step = at
                          Context = context
                          Memory = memory
                          Heads = heads
                          Tasks = tasks
                          Session = session } }

            let order = Seed.ofInt seed |> Seed.split "shuffle" |> Seed.split $"step {at.Index}"
            let struct (training, trained) = Clock.timed device (fun () -> Loop.train settings order watch session)

            match trained with
            | Error epoch -> diverged at epoch
            | Ok trained ->
                let struct (finishing, (heads, memory)) =
                    Clock.timed device (fun () ->
                        let heads = session.Finish trained.Weights
                        heads, m.End context trained.Kept heads tasks)

                let after = lossOf heads

                let reading metric value =
                    { Step = at.Index
                      Task = at.Index
                      Metric = metric
                      Value = value }

                let readings =
                    [ reading "loss_before" before
                      reading "loss_after" after
                      reading "seconds_prepare" preparing
                      reading "seconds_train" training
                      reading "seconds_finish" finishing
                      if training >= tellingSeconds then
                          reading
                              "pairs_per_second"
                              (float settings.Epochs * float (tasks |> List.sumBy (fun (t: Task) -> t.Count)) / training)
                      reading "bytes_state" (float (Memory.bytes memory))
                      for metric, value in m.Tells memory do
                          reading metric value ]

                if not (Double.IsFinite after) then
                    diverged at settings.Epochs
                else
                    keep heads memory scope

                    Ok(
                        heads,
                        memory,
                        { Readings = readings
                          Losses = List.ofSeq losses
                          Spectra = session.Spectra |> List.map (fun s -> at.Index, s) },
                        sofar + updates
                    )

        /// The same; weights so large that their moments overflow end a run before its first epoch.
        let session steps memory old heads sofar =
            try
                train steps memory old heads sofar
            with CmclException(Fault.NonFinite _) ->
                diverged (List.last steps) 0

        let join (a: Outcome) (b: Outcome) : Outcome =
            { Readings = a.Readings @ b.Readings
              Losses = a.Losses @ b.Losses
              Spectra = a.Spectra @ b.Spectra }

        let only readings = { Readings = readings; Losses = []; Spectra = [] }

        let struct (readings, round) = Readings.evaluate bench (Round.start limits bench initial) initial 0
        let start = only readings

        let rec stepByStep steps before memory round sofar outcome =
            match steps with
            | [] -> Ok outcome
            | step :: rest ->
                match session [ step ] memory (Round.kept round) before sofar with
                | Error faults -> Error faults
                | Ok(heads, next, outcomeOfStep, sofar) ->
                    forget memory next
                    observer.Save step heads

                    let struct (measured, nextRound) = Readings.after bench round heads step
                    Round.forget round nextRound

                    let outcome = join (join outcome outcomeOfStep) (only measured)
                    stepByStep rest heads next nextRound sofar outcome

        match m.Curriculum with
        | Curriculum.Never -> Ok(join start (only (start.Readings |> List.map (fun r -> { r with Step = last.Index }))))
        | Curriculum.StepByStep -> stepByStep stream.Steps initial Map.empty round 0L start
        | Curriculum.AllAtOnce ->
            session stream.Steps Map.empty [] initial 0L
            |> Result.map (fun (heads, _, outcome, _) ->
                observer.Save last heads
                let struct (readings, _) = Readings.evaluate bench round heads last.Index
                join (join start outcome) (only readings))

    /// The same with another limit for what is held for measuring alone.
    let runHolding (budget: int64) = runWithin { Limits.usual with Held = budget }

    /// Runs a plan on a stream with one seed. A loss or a weight that is not finite ends it with `Fault.Diverged`. Nothing is
    /// drawn but the order of rows. As in `Train.run stream torch.CPU Split.Test 0 Observer.silent plan`.
    let run
        (stream: Stream)
        (device: torch.Device)
        (split: Split)
        (seed: int)
        (observer: Observer)
        (plan: Plan)
        : Result<Outcome, Fault list> =
        runWithin Limits.usual stream device split seed observer plan
