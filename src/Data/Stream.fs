namespace Cmcl

open TorchSharp

/// Which of a step's rows: to learn from, to choose settings on, to report on.
[<RequireQualifiedAccess>]
type Split =
    | Train
    | Validation
    | Test

    override s.ToString() =
        match s with
        | Train -> "train"
        | Validation -> "validation"
        | Test -> "test"

/// Frozen features of one domain: n rows (items) × d columns, in the scale that its encoder gave.
type Bank =
    {
        Name: string
        Modality: Modality
        /// n × d, float16, float32 or float64, as stored.
        Features: torch.Tensor
    }

/// How accuracy is taken: items of one bank against one prototype per class, each through its own head.
type Accuracy =
    {
        /// The bank whose items are classified: one of the step's two.
        Items: string
        /// The modality whose head the prototypes go through.
        Modality: Modality
        /// Classes × d, as stored.
        Prototypes: torch.Tensor
        /// The class of every row of the bank; −1 for a row without one.
        Labels: int64[]
        Classes: string list
    }

/// One step of a stream: two banks, matched row by row, and which rows are for what.
type Step =
    {
        /// 1 for the first.
        Index: int
        Name: string
        /// The anchor's bank and its partner's.
        A: Bank
        B: Bank
        Pair: Pair
        Train: int64[]
        Validation: int64[]
        Test: int64[]
        Accuracy: Accuracy option
    }

/// What a stream suggests for a run on it: options by name, as text (see `cmcl run --help`), those of one method over the
/// common ones, and the methods that `cmcl run` takes when none are named.
type Preset =
    { Common: Map<string, string>
      Methods: Map<string, Map<string, string>>
      Run: string list }

/// A sequence of steps over banks of frozen features. Its tensors belong to whoever loaded it.
type Stream =
    {
        Name: string
        Description: string
        /// Hex SHA-256 over the description and every feature file: the same data has the same digest.
        Digest: string
        Banks: Map<string, Bank>
        Steps: Step list
        Preset: Preset
    }

[<RequireQualifiedAccess>]
module Stream =
    /// The rows of a split.
    let rows (split: Split) (step: Step) : int64[] =
        match split with
        | Split.Train -> step.Train
        | Split.Validation -> step.Validation
        | Split.Test -> step.Test

    /// Some rows of a bank by their numbers (int64 on the CPU), as a new n × d tensor of the wanted type on the wanted device.
    let take (dtype: Dtype) (device: torch.Device) (bank: Bank) (rows: torch.Tensor) : torch.Tensor =
        Tensors.scoped (fun () ->
            let stored = bank.Features.index_select (0L, rows)
            Mapped.read true rows.shape[0] bank.Features
            stored.``to``(dtype.Torch).``to`` device)

    /// The same of row numbers in an array.
    let gather (dtype: Dtype) (device: torch.Device) (bank: Bank) (rows: int64[]) : torch.Tensor =
        Tensors.scoped (fun () -> take dtype device bank (torch.tensor rows))

    /// The step's matched features (X_a, X_b) of one split, each n × d.
    let features (dtype: Dtype) (device: torch.Device) (split: Split) (step: Step) : struct (torch.Tensor * torch.Tensor) =
        let rows = rows split step
        struct (gather dtype device step.A rows, gather dtype device step.B rows)

    /// Every modality of the stream with the dimension d_m of its features, in the order of first appearance.
    let modalities (stream: Stream) : (Modality * int64) list =
        [ for step in stream.Steps do
              step.A.Modality, step.A.Features.shape[1]
              step.B.Modality, step.B.Features.shape[1] ]
        |> List.distinct
