namespace Cmcl

/// An epoch of training, from 1, of so many.
type EpochProgress =
    {
        Number: int
        Of: int
        /// Mean over its batches.
        Loss: float
    }

/// How far a cell is.
type CellProgress =
    {
        /// Its step, from 1, of so many, and the step's name.
        Step: int
        Steps: int
        Name: string
        /// The last epoch; None where the step was solved.
        Epoch: EpochProgress option
        /// The share of the cell's work that is done.
        Share: float
    }

/// How an attempt at a cell ended.
[<RequireQualifiedAccess>]
type CellEnd =
    /// Its result is in the store, after so many seconds; whether it was there before.
    | Finished of seconds: float * before: bool
    /// It diverged, and would again, as the store says now; whether it said so before.
    | Failed of message: string * before: bool
    /// It has no result: something went wrong that need not go wrong again.
    | Broken of Fault list
    /// The store takes no results: neither would it another's.
    | Unwritten of Fault list
    /// Another process runs it.
    | Elsewhere
    /// It was asked to stop; where it stands is in its last checkpoint, if it has any.
    | Stopped

[<RequireQualifiedAccess>]
module CellEnd =
    let ofRecord (before: bool) (record: CellRecord) : CellEnd =
        match record.Result with
        | Ok _ -> CellEnd.Finished(record.Seconds, before)
        | Error message -> CellEnd.Failed(message, before)

    /// What went wrong, if anything did.
    let faults (ended: CellEnd) : Fault list =
        match ended with
        | CellEnd.Failed(message, _) -> [ Fault.Told message ]
        | CellEnd.Broken faults
        | CellEnd.Unwritten faults -> faults
        | CellEnd.Finished _
        | CellEnd.Elsewhere
        | CellEnd.Stopped -> []

/// What is told of a cell, by the process that runs it.
[<RequireQualifiedAccess>]
type CellEvent =
    /// It is not finished, and a process has it now.
    | Started
    /// It resumes from a checkpoint taken after this many steps.
    | Resumed of steps: int
    | Progress of CellProgress
    /// What a method says of a step: its number, its name, the text.
    | Remark of step: int * name: string * text: string
    /// A checkpoint could not be written or read, or a result not be read; the cell goes on.
    | Warning of Fault
    | Ended of how: CellEnd

/// What a study tells while it runs, in this process or in others.
[<RequireQualifiedAccess>]
type StudyEvent =
    | Began of cells: int * sideBySide: int
    | Cell of cell: Cell * event: CellEvent
    /// Results cannot be written, so no more cells begin; what has finished is in the result.
    | Unwritten of fault: Fault
    /// The study was stopped with this many cells unfinished. The last event, if it comes.
    | Stopped of unfinished: int
