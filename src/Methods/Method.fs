namespace Cmcl

open TorchSharp

/// A spectrum that a method used in a step, for reports.
type SpectrumNote =
    {
        Modality: Modality
        /// `input` or `partner`.
        Side: string
        /// Shares of the trace, largest first.
        Shares: float[]
        /// How many of them are inside the cut, where there is a cut.
        Protected: int option
    }

/// What a step needs beside its data.
type Context =
    {
        Settings: Settings
        Device: torch.Device
        /// For what a method draws when it begins or ends this step.
        Seed: Seed
        /// The heads before any step.
        Initial: Heads
        /// Updates that this step will take: none where it is solved.
        Updates: int64
        /// What is kept of the steps before this one, under every method.
        Old: OldStep list
        /// Steps that are still to be trained, this one among them.
        Remaining: int
    }

/// What training leaves: weights, and what its direction kept.
type Trained = { Weights: Heads; Kept: Memory }

/// One step of training as a method wants it: values and functions for the loop that runs it.
type Session =
    {
        /// The parameters that are trained, in the method's coordinates; the loop owns copies.
        Start: Heads
        Data: Task list
        Direction: Direction
        /// What a running direction starts with; `Finish` gets what it has become.
        Kept: Memory
        Rule: Rule
        /// All heads after the step and the memory that `End` gets, from the trained parameters and what the direction kept.
        Finish: Trained -> Trained
        Spectra: SpectrumNote list
        /// Sentences for the user about this step.
        Remarks: string list
    }

/// How a method trains a step. Neither function changes a tensor that it is given.
type Trainer =
    {
        Begin: Context -> Memory -> Heads -> Task list -> Session
        /// The memory after a step, from what `Finish` left of it and the heads after it.
        End: Context -> Memory -> Heads -> Task list -> Memory
    }

/// What solving a step leaves. A tensor that stays as it is has to be the same one; heads and memory share none.
type Solution =
    {
        /// All heads after the step.
        Heads: Heads
        Memory: Memory
        /// Sentences for the user about this step.
        Remarks: string list
    }

/// What a method does with the data of a step.
[<RequireQualifiedAccess>]
type Learner =
    /// The heads stay as they are before any step.
    | Nothing
    /// A closed form: heads and memory after the step from those before it. There is no rate, no epoch and no batch, so it takes no option
    /// of training, and its progress is counted in steps. It changes no tensor that it is given.
    | Solve of (Context -> Memory -> Heads -> Task list -> Result<Solution, Fault list>)
    /// Updates along gradients.
    | Train of Trainer

/// Which steps a method learns from at once.
[<RequireQualifiedAccess>]
type Curriculum =
    | StepByStep
    /// The data of all steps together, once.
    | AllAtOnce

/// A method is a value: what it does with a step, whatever options it was made of (`Spec`).
type Method =
    {
        Name: string
        Summary: string
        Curriculum: Curriculum
        /// What its figures are to be read as.
        Role: Role
        /// What it promises of what was learned before.
        Promise: Promise
        /// Whether its heads have a bias in a last column of their own: the rows that they are applied to then have a constant 1 there.
        Bias: bool
        /// Its heads before any step, from identity heads; with a bias, one column wider.
        Initial: Heads -> Heads
        Learner: Learner
        /// Figures about a step from the memory at its end, by name.
        Diagnostics: Memory -> (string * float) list
    }

[<RequireQualifiedAccess>]
module Method =
    let private make (name: string) (summary: string) (learner: Learner) : Method =
        { Name = name
          Summary = summary
          Curriculum = Curriculum.StepByStep
          Role = Role.Competitor
          Promise = Promise.Nothing
          Bias = false
          Initial = id
          Learner = learner
          Diagnostics = fun _ -> [] }

    /// A method that learns nothing: its heads are those before any step. Example: `Method.nothing "as-is" "the encoders as they came"`.
    let nothing (name: string) (summary: string) : Method = make name summary Learner.Nothing

    /// A closed form, solved for a step at a time. A fault ends its run.
    /// Example: `Method.solving "stay" "keeps its heads" (fun _ memory heads _ -> Ok { Heads = heads; Memory = memory; Remarks = [] })`.
    let solving
        (name: string)
        (summary: string)
        (solve: Context -> Memory -> Heads -> Task list -> Result<Solution, Fault list>)
        : Method =
        make name summary (Learner.Solve solve)

    /// A method that trains, a step at a time (`Training.method` is fine-tuning, to be changed where another differs).
    let training (name: string) (summary: string) (trainer: Trainer) : Method = make name summary (Learner.Train trainer)

    /// Whether it trains, and so takes the options of training. Example: `Method.trains Plain.vanilla`.
    let trains (m: Method) : bool =
        match m.Learner with
        | Learner.Train _ -> true
        | Learner.Nothing
        | Learner.Solve _ -> false

    /// Whether its heads ever change: by training or by solving. Example: `not (Method.learns Plain.zeroShot)`.
    let learns (m: Method) : bool =
        match m.Learner with
        | Learner.Nothing -> false
        | Learner.Solve _
        | Learner.Train _ -> true

    /// How it trains. Fault: `Contradiction`, as a `CmclException`, for a method that does not.
    /// Example: `(Method.trainer Plain.vanilla).Begin`.
    let trainer (m: Method) : Trainer =
        match m.Learner with
        | Learner.Train trainer -> trainer
        | Learner.Nothing
        | Learner.Solve _ -> Check.fail (Fault.Contradiction($"{m.Name} does not train", "take a method that trains"))

    /// The same method with a change of how it trains. Fault as of `trainer`.
    /// Example: `Plain.vanilla |> Method.mapTrainer (fun t -> { t with End = fun _ memory _ _ -> memory })`.
    let mapTrainer (change: Trainer -> Trainer) (m: Method) : Method = { m with Learner = Learner.Train(change (trainer m)) }

    /// The same method with another way to begin a step. Fault as of `trainer`.
    /// Example: `Plain.vanilla |> Method.beginning Training.plainSession`.
    let beginning (begin': Context -> Memory -> Heads -> Task list -> Session) (m: Method) : Method =
        mapTrainer (fun trainer -> { trainer with Begin = begin' }) m

    /// The same method with another memory after a step. Fault as of `trainer`.
    /// Example: `Plain.vanilla |> Method.ending (fun _ memory _ _ -> memory)`.
    let ending (end': Context -> Memory -> Heads -> Task list -> Memory) (m: Method) : Method =
        mapTrainer (fun trainer -> { trainer with End = end' }) m
