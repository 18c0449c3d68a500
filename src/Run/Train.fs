namespace Cmcl

open TorchSharp

/// One method with one seed over one stream: learn, measure, step after step.
[<RequireQualifiedAccess>]
module Train =
    /// Frees what the next memory no longer holds.
    let private forget (memory: Memory) (next: Memory) : unit =
        for KeyValue(name, t) in memory do
            match Map.tryFind name next with
            | Some kept when obj.ReferenceEquals(kept, t) -> ()
            | _ -> t.Dispose()

    let private only measurements : Outcome = { Measurements = measurements; Losses = []; Spectra = [] }

    /// What a run has to do, in the units that its progress counts: updates of a method that trains, solutions of one that is solved, nothing of
    /// one that learns nothing. As in `Train.work stream plan`.
    let work (stream: Stream) (plan: Plan) : int64 = Learning.units plan (List.map Stream.visits stream.Steps)

    /// A method's heads before any step.
    let private first (stream: Stream) (device: torch.Device) (plan: Plan) : Heads =
        Stream.heads plan.Settings.Dtype device stream |> Lift.heads plan.Settings.Features |> plan.Method.Initial

    /// Refuses a method whose heads before any step have another width than its features have, with a bias where it says that there is one.
    let private fitting (stream: Stream) (plan: Plan) : Result<unit, Fault list> =
        use scope = torch.NewDisposeScope()
        let heads = first stream torch.CPU plan
        let added = Lift.added plan.Settings.Features

        let faults =
            [ for m, raw in Stream.modalities stream do
                  let columns, actual = raw + added, (Heads.weight m heads).shape[1]
                  let bias, expected = if plan.Method.Bias then "a bias", columns + 1L else "no bias", columns

                  if actual <> expected then
                      Fault.Shape(
                          $"{plan.Label}'s head of {m} before any step",
                          $"{expected} columns for {columns} features and {bias} (Method.Bias says which)",
                          string actual
                      ) ]

        if faults.IsEmpty then Ok() else Error faults

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
        Native.linearAlgebra device
        let settings, m = plan.Settings, plan.Method

        let run =
            { Stream = stream
              Device = device
              Split = split
              Settings = settings
              Lifts =
                match settings.Features with
                | None -> Map.empty
                | Some lift ->
                    Map
                        [ for modality, columns in Stream.modalities stream do
                              let d = Lift.drawn { Lift = lift; Seed = seed } modality columns

                              modality,
                              { d with
                                  Normal = d.Normal.``to`` device
                                  Phases = d.Phases.``to`` device } ]
              Bias = m.Bias }

        let initial =
            match from with
            | Some state -> state.Heads.Head
            | None -> first stream device plan

        let last = List.last stream.Steps

        let learning =
            { Run = run
              Limits = limits
              Plan = plan
              Seed = seed
              Initial = initial
              Total = work stream plan
              Observer = observer
              Checkpointer = checkpointer }

        let measured measurements (state: RunState) =
            { state with
                Outcome = Outcome.join state.Outcome (only measurements) }

        let rec stepByStep steps round (state: RunState) sofar =
            match steps with
            | [] -> Ok state.Outcome
            | step :: rest ->
                match Learning.learn learning [ step ] (Round.kept round) state sofar with
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
            match m.Learner, m.Curriculum with
            | Learner.Nothing, _ ->
                Ok(
                    Outcome.join
                        state.Outcome
                        (only (state.Outcome.Measurements |> List.map (fun r -> { r with Step = last.Index })))
                )
            | _, Curriculum.StepByStep ->
                let over, left = List.splitAt (state.Heads.Length - 1) stream.Steps
                stepByStep left round state (Learning.units plan (List.map Stream.visits over))
            | _, Curriculum.AllAtOnce ->
                Learning.learn learning stream.Steps [] state 0L
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
        fitting stream plan
        |> Result.bind (fun () -> go limits stream device split seed observer Checkpointer.none None plan)
        |> Result.map toItsEnd

    /// Runs a plan on a stream with one seed. In training a loss or a weight that is not finite ends it with `Fault.Diverged`; what a method that
    /// is solved returns as a fault ends it, too. Nothing is
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
        fitting stream plan |> Result.bind (fun () -> go Limits.usual stream device split seed observer checkpointer from plan)
