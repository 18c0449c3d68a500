namespace Cmcl

/// What a run tells while it goes on.
[<RequireQualifiedAccess>]
type Event =
    /// An epoch is over: how many updates of all that this method and seed will take.
    | Epoch of step: Step * epoch: int * loss: float * updates: int64 * total: int64
    /// A step is solved: how many solutions of all that this method and seed will take.
    | Solved of step: Step * solved: int64 * total: int64
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
        /// The heads after each step that was learned.
        Save: Step -> Heads -> unit
        /// Called when the training of a step begins; what it gives back, if anything, hears of every update.
        Begin: Scene -> (Update -> unit) option
    }

[<RequireQualifiedAccess>]
module Observer =
    let silent: Observer =
        { Tell = ignore
          Save = fun _ _ -> ()
          Begin = fun _ -> None }
