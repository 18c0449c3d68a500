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

    let private join (a: Outcome) (b: Outcome) : Outcome =
        { Measurements = a.Measurements @ b.Measurements
          Losses = a.Losses @ b.Losses
          Spectra = a.Spectra @ b.Spectra }

    let private only measurements : Outcome = { Measurements = measurements; Losses = []; Spectra = [] }

    /// Why a run did not come to its end.
    [<RequireQualifiedAccess>]
    type private Stop =
        | Fault of Fault list
        | Left

    /// Training that takes less is not told in pairs a second.
    let private tellingSeconds = 10.0

    /// A run from its beginning or from its midst on, within limits of memory.
    let private go
        (limits: Limits)
        (stream: Stream)
        (device: torch.Device)
        (split: Split)
        (seed: int)
        (observer: Observer)
        (checkpointer: Checkpointer)
        (from: RunState option)
        (plan: Plan)
        : Result<Ending, Fault list> =
        use whole = torch.NewDisposeScope()
        let settings, m = plan.Settings, plan.Method

        let run =
            { Stream = stream
              Device = device
              Split = split
              Settings = settings
              Bias = Method.hasBias m }

        let modalities = Stream.modalities stream
        let d = modalities |> List.map snd |> List.max

        let initial =
            match from with
            | Some state -> state.Heads.Head
            | None -> m.Initial(Heads.identity settings.Dtype device d modalities)

        let last = List.last stream.Steps
        let lengths = stream.Steps |> List.map Stream.visits
        let total = Loop.updates settings lengths

        let diverged (at: Step) epoch = Error(Stop.Fault [ Fault.Diverged(plan.Label, seed, at.Name, epoch) ])

        /// Trains on the given steps as one session, named by the last of them, from a state between steps or within this one.
        let train (steps: Step list) (old: OldStep list) (state: RunState) (sofar: int64) =
            use scope = torch.NewDisposeScope()
            let at = List.last steps
            let memory, heads = state.Memory, List.last state.Heads
            let tasks = Measurements.tasks limits run steps
            let lossOf (heads: Heads) = tasks |> List.map (Measurements.trainingLoss run heads) |> List.average
            let before = lossOf heads
            let updates = Loop.updates settings (tasks |> List.map _.Visits)

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

            let midway = state.Within |> Option.map _.Training
            let spent = state.Within |> Option.map _.Seconds |> Option.defaultValue 0.0
            let clock = Stopwatch.StartNew()

            let losses =
                ResizeArray(
                    midway |> Option.map _.Epochs |> Option.defaultValue [] |> List.mapi (fun i loss -> at.Index, i + 1, loss)
                )

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
                          Session = session }
                  Pause =
                    fun count midway ->
                        checkpointer (SavePoint.Update(count % (updates / int64 settings.Epochs) = 0L)) (fun () ->
                            { state with
                                Within =
                                    Some
                                        { Training = midway ()
                                          Seconds = spent + clock.Elapsed.TotalSeconds } }) }

            let order = Seed.ofInt seed |> Seed.split "shuffle" |> Seed.split $"step {at.Index}"
            let struct (training, trained) = Clock.timed device (fun () -> Loop.resume settings order watch midway session)

            match trained with
            | Error(Unfinished.Diverged epoch) -> diverged at epoch
            | Error Unfinished.Paused -> Error Stop.Left
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

                let measurements =
                    [ reading "loss_before" before
                      reading "loss_after" after
                      reading "seconds_prepare" preparing
                      reading "seconds_train" (spent + training)
                      reading "seconds_finish" finishing
                      if spent + training >= tellingSeconds then
                          reading
                              "pairs_per_second"
                              (float settings.Epochs * float (tasks |> List.sumBy (fun (t: Task) -> t.Visits))
                               / (spent + training))
                      reading "bytes_state" (float (Memory.bytes memory))
                      for metric, value in m.Diagnostics memory do
                          reading metric value ]

                if not (Double.IsFinite after) then
                    diverged at settings.Epochs
                else
                    keep heads memory scope

                    Ok(
                        { Heads = state.Heads @ [ heads ]
                          Memory = memory
                          Outcome =
                            join
                                state.Outcome
                                { Measurements = measurements
                                  Losses = List.ofSeq losses
                                  Spectra = session.Spectra |> List.map (fun s -> at.Index, s) }
                          Within = None },
                        sofar + updates
                    )

        /// The same; weights so large that their moments overflow end a run before its first epoch.
        let session steps old state sofar =
            try
                train steps old state sofar
            with CmclException(Fault.NonFinite _) ->
                diverged (List.last steps) 0

        let measured measurements (state: RunState) =
            { state with
                Outcome = join state.Outcome (only measurements) }

        let rec stepByStep steps round (state: RunState) sofar =
            match steps with
            | [] -> Ok state.Outcome
            | step :: rest ->
                match session [ step ] (Round.kept round) state sofar with
                | Error stop -> Error stop
                | Ok(next, sofar) ->
                    forget state.Memory next.Memory
                    let heads = List.last next.Heads
                    observer.Save step heads

                    let struct (measurements, nextRound) = Measurements.after run round heads step
                    Round.forget round nextRound
                    let next = measured measurements next

                    if checkpointer SavePoint.Step (fun () -> next) && not rest.IsEmpty then
                        Error Stop.Left
                    else
                        stepByStep rest nextRound next sofar

        let state, round =
            match from with
            | None ->
                let struct (measurements, round) = Measurements.evaluate run (Round.start limits run initial) initial 0

                { Heads = [ initial ]
                  Memory = Map.empty
                  Outcome = only measurements
                  Within = None },
                round
            | Some state ->
                let over = List.zip state.Heads.Tail (List.truncate (state.Heads.Length - 1) stream.Steps)
                let start = { Round.start limits run initial with Heads = initial }

                state,
                (start, over)
                ||> List.fold (fun round (heads, step) ->
                    let next = Measurements.retrace run round heads step
                    Round.forget round next
                    next)

        let ended =
            match m.Curriculum with
            | Curriculum.Never ->
                Ok(join state.Outcome (only (state.Outcome.Measurements |> List.map (fun r -> { r with Step = last.Index }))))
            | Curriculum.StepByStep ->
                let over, left = List.splitAt (state.Heads.Length - 1) stream.Steps
                stepByStep left round state (Loop.updates settings (List.map Stream.visits over))
            | Curriculum.AllAtOnce ->
                session stream.Steps [] state 0L
                |> Result.map (fun (next, _) ->
                    let heads = List.last next.Heads
                    observer.Save last heads
                    let struct (measurements, _) = Measurements.evaluate run round heads last.Index
                    (measured measurements next).Outcome)

        Native.trim ()

        match ended with
        | Ok outcome -> Ok(Ending.Finished outcome)
        | Error Stop.Left -> Ok Ending.Stopped
        | Error(Stop.Fault faults) -> Error faults

    let private toItsEnd (ending: Ending) : Outcome =
        match ending with
        | Ending.Finished outcome -> outcome
        | Ending.Stopped -> invalidOp "a run was left that nobody asked to leave"

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
        go limits stream device split seed observer Checkpointer.none None plan |> Result.map toItsEnd

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

    /// `run` under the eyes of a checkpointer, from its beginning or from a state that one was given: on the same machine with as many threads the
    /// figures are those of an uninterrupted run bit for bit, times aside. A state of another stream or plan raises `CmclException`, or gives what it
    /// gives: who reads one back has to know whose it is (`Identity`).
    let resume
        (stream: Stream)
        (device: torch.Device)
        (split: Split)
        (seed: int)
        (observer: Observer)
        (checkpointer: Checkpointer)
        (from: RunState option)
        (plan: Plan)
        : Result<Ending, Fault list> =
        go Limits.usual stream device split seed observer checkpointer from plan
