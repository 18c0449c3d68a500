namespace Cmcl

/// What one method with one seed leaves: figures, curves, spectra.
type Outcome =
    {
        Measurements: Measurement list
        /// Step, epoch, mean loss.
        Losses: (int * int * float) list
        /// Step and spectrum.
        Spectra: (int * SpectrumNote) list
    }

[<RequireQualifiedAccess>]
module internal Outcome =
    /// What was measured first, then what came after it.
    let join (a: Outcome) (b: Outcome) : Outcome =
        { Measurements = a.Measurements @ b.Measurements
          Losses = a.Losses @ b.Losses
          Spectra = a.Spectra @ b.Spectra }

/// A step that is not over.
type Within =
    {
        Training: Midway
        /// Seconds that its training took so far.
        Seconds: float
    }

/// A run in its midst. With stream, plan and seed it is all that the rest of the run depends on: what is drawn is drawn from the seed and
/// from where the run stands, and what is measured of old steps follows from the heads at their ends.
type RunState =
    {
        /// The heads before any step, then after each that is over.
        Heads: Heads list
        /// What the method keeps since the last of them.
        Memory: Memory
        /// Of the steps that are over.
        Outcome: Outcome
        Within: Within option
    }

/// Where a run can be kept and left.
[<RequireQualifiedAccess>]
type SavePoint =
    | Update of epochOver: bool
    /// A step is trained and measured.
    | Step

/// Asked at every rest, and given a way to see where the run stands, in tensors that belong to the run and change as it goes on; true
/// leaves it there.
type Checkpointer = SavePoint -> (unit -> RunState) -> bool

[<RequireQualifiedAccess>]
module Checkpointer =
    /// Keeps nothing.
    let none: Checkpointer = fun _ _ -> false

/// How a run ended.
[<RequireQualifiedAccess>]
type Ending =
    | Finished of Outcome
    /// Its checkpointer asked for it.
    | Stopped
