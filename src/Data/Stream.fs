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

/// Matches of two banks that do not match row by row, such as five captions a picture: pair i is row A[i] of bank a with row B[i] of
/// bank b.
type Pairs =
    {
        A: int64[]
        B: int64[]
        /// The item of each pair, numbered from 0 in the order of the first pairs: pairs that share a row, directly or through others, are of
        /// one item.
        Items: int64[]
    }

[<RequireQualifiedAccess>]
module Pairs =
    /// Pairs of rows, as many of the one bank as of the other, with their items.
    let create (a: int64[]) (b: int64[]) : Pairs =
        let sets = Sets()

        for _ in a do
            sets.Add() |> ignore

        for rows in [ a; Array.truncate a.Length b ] do
            let first = System.Collections.Generic.Dictionary<int64, int>()

            for i in 0 .. rows.Length - 1 do
                match first.TryGetValue rows[i] with
                | true, earlier -> sets.Join earlier i
                | _ -> first[rows[i]] <- i

        let items = Array.zeroCreate a.Length
        let mutable count = 0L

        for i in 0 .. a.Length - 1 do
            let first = sets.First i

            if first = i then
                items[i] <- count
                count <- count + 1L
            else
                items[i] <- items[first]

        { A = a; B = b; Items = items }

/// One step of a stream: two banks, matched row by row or pair by pair, and which rows are for what.
type Step =
    {
        /// 1 for the first.
        Index: int
        Name: string
        /// The anchor's bank and its partner's.
        A: Bank
        B: Bank
        Pair: Pair
        /// None where row i of the one bank matches row i of the other. Otherwise the three splits number pairs, not rows.
        Pairs: Pairs option
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
        /// The group of every row of a bank, where the stream says so: items of one group are variants of each other, and held out together.
        Groups: Map<string, int64[]>
        /// W_m (d × d_m, as stored) of every modality before any step, of any d; None for identities with the d of the widest modality.
        Heads: Heads option
        Preset: Preset
    }

[<RequireQualifiedAccess>]
module Stream =
    /// The rows of a split; of a step with pairs, their numbers.
    let rows (split: Split) (step: Step) : int64[] =
        match split with
        | Split.Train -> step.Train
        | Split.Validation -> step.Validation
        | Split.Test -> step.Test

    /// Rows of banks a and b that are matched, by the numbers that splits have.
    let matched (step: Step) (numbers: int64[]) : struct (int64[] * int64[]) =
        match step.Pairs with
        | None -> struct (numbers, numbers)
        | Some pairs -> struct (numbers |> Array.map (fun i -> pairs.A[int i]), numbers |> Array.map (fun i -> pairs.B[int i]))

    /// Rows of banks a and b in one split, matched in their order.
    let bankRows (split: Split) (step: Step) : struct (int64[] * int64[]) = matched step (rows split step)

    /// The pairs of each item among some of a step's pairs: places in `numbers`, items in the order of their first pairs. None where every row
    /// is an item of its own.
    let items (numbers: int64[]) (step: Step) : int64[][] option =
        step.Pairs
        |> Option.map (fun pairs ->
            numbers
            |> Array.mapi (fun place number -> struct (pairs.Items[int number], int64 place))
            |> Array.groupBy (fun struct (item, _) -> item)
            |> Array.map (fun (_, places) -> places |> Array.map (fun struct (_, place) -> place)))

    /// How many items an epoch over a step's training rows visits: its rows, or with pairs, its items.
    let visits (step: Step) : int64 =
        match step.Pairs with
        | None -> step.Train.LongLength
        | Some pairs -> step.Train |> Array.distinctBy (fun i -> pairs.Items[int i]) |> _.LongLength

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
        let struct (a, b) = bankRows split step
        struct (gather dtype device step.A a, gather dtype device step.B b)

    /// Every modality of the stream with the dimension d_m of its features, in the order of first appearance.
    let modalities (stream: Stream) : (Modality * int64) list =
        [ for step in stream.Steps do
              step.A.Modality, step.A.Features.shape[1]
              step.B.Modality, step.B.Features.shape[1] ]
        |> List.distinct

    /// d of the joint space: the rows of the heads that the stream begins with, or without them the widest modality's d_m.
    /// As in `Stream.joint stream`.
    let joint (stream: Stream) : int64 =
        match stream.Heads with
        | Some heads -> (Seq.head heads.Values).shape[0]
        | None -> modalities stream |> List.map snd |> List.max

    /// Copies of the heads that the stream begins with, in the wanted type on the wanted device; identities (d × d_m) without them.
    /// As in `Stream.heads Dtype.Float32 torch.CPU stream`.
    let heads (dtype: Dtype) (device: torch.Device) (stream: Stream) : Heads =
        let copy (w: torch.Tensor) = Tensors.scoped (fun () -> w.``to``(dtype.Torch).``to``(device).clone())

        match stream.Heads with
        | Some heads -> Map [ for m, _ in modalities stream -> m, copy (Heads.weight m heads) ]
        | None -> Heads.identity dtype device (joint stream) (modalities stream)
