namespace Cmcl

open System.Collections.Generic
open TorchSharp

/// What measuring needs: the stream, where, in which type, on which rows, and the InfoNCE.
type internal RunContext =
    {
        Stream: Stream
        Device: torch.Device
        Split: Split
        Settings: Settings
        /// What stands beside each modality's features, where anything does.
        Lifts: Map<Modality, LiftDirections>
        /// Whether heads have a bias, so that every row has a constant 1 behind its features.
        Bias: bool
    }

    /// A modality's features as its head takes them.
    member run.Inputs (m: Modality) (x: torch.Tensor) : torch.Tensor =
        let lifted =
            match Map.tryFind m run.Lifts with
            | Some directions -> Lift.rows directions x
            | None -> x

        if run.Bias then Heads.withBias lifted else lifted

/// How much memory a run may take for rows.
type Limits =
    {
        /// Bytes of training rows that are held at once: of a step, or where steps are trained together, of them all. More are read
        /// from the stream batch by batch.
        Rows: int64
        /// Bytes that are held from one measurement to the next.
        Held: int64
    }

[<RequireQualifiedAccess>]
module Limits =
    /// 1 GiB of rows, and 256 MiB held for measuring.
    let usual: Limits = { Rows = 1L <<< 30; Held = 256L <<< 20 }

/// Some rows of a bank, in order. Steps that take the same ones share what is made of them.
type internal Rows = { Bank: string; Modality: Modality; Numbers: int64[] }

/// What is held of a step that is over: the scores at its end (float64) of its training rows and of its measured rows, and how it
/// stands without rows.
type internal OldScores =
    { TrainedThen: torch.Tensor
      MeasuredThen: torch.Tensor
      State: OldStepState }

/// A step that is over.
type internal OldTask =
    {
        Step: Step
        AtEnd: Heads
        Kept: OldStep
        /// None where the budget has no room for it.
        Held: OldScores option
        /// What the kept rows may miss of its drift.
        Beyond: float
        /// (metric, value) of the last round; none yet in that of its own end.
        Deviations: (string * float) list option
    }

/// A round of measuring, and what it leaves to the next so that only what moved is made again. Its tensors belong to the run.
type internal Round =
    {
        Heads: Heads
        /// The modalities whose head moved since the round before.
        Moved: Set<Modality>
        /// Steps that the budget has room for.
        Holds: Set<int>
        /// Steps whose training rows are too many to hold.
        Streams: Set<int>
        /// Outputs under these heads: of what these steps measure, and where they are over, of what they trained on.
        Outputs: Map<Rows, torch.Tensor>
        /// (metric, value) of every step.
        Figures: Map<int, (string * float) list>
        Old: OldTask list
    }

[<RequireQualifiedAccess>]
module internal Round =
    let rows (split: Split) (step: Step) : Rows * Rows =
        let struct (a, b) = Stream.bankRows split step

        let of' (bank: Bank) numbers =
            { Bank = bank.Name
              Modality = bank.Modality
              Numbers = numbers }

        of' step.A a, of' step.B b

    /// The bank that the rows are of.
    let bank (run: RunContext) (rows: Rows) : Bank =
        run.Stream.Steps |> Seq.collect (fun s -> [ s.A; s.B ]) |> Seq.find (fun bank -> bank.Name = rows.Bank)

    let kept (round: Round) : OldStep list = round.Old |> List.map _.Kept

    /// Whether any of the heads moved in this round.
    let moved (round: Round) (ms: Modality list) : bool = List.exists round.Moved.Contains ms

    let tensors (round: Round) : torch.Tensor list =
        [ yield! round.Outputs.Values
          for p in round.Old do
              yield! OldStep.tensors p.Kept

              match p.Held with
              | Some h -> yield! h.TrainedThen :: h.MeasuredThen :: OldStep.held h.State
              | None -> () ]

    /// Frees what the next round no longer holds.
    let forget (round: Round) (next: Round) : unit =
        let held = HashSet(tensors next, HashIdentity.Reference)

        for t in tensors round do
            if not (held.Contains t) then
                t.Dispose()

    /// Bytes that are held of a step at most: outputs, scores and standing.
    let private bytes (run: RunContext) (heads: Heads) (step: Step) : int64 =
        let a, b = Heads.weight step.Pair.A heads, Heads.weight step.Pair.B heads
        let d = a.shape[0]
        let trained, measured = step.Train.LongLength, (Stream.rows run.Split step).LongLength
        let ra, rb = min trained a.shape[1], min trained b.shape[1]

        2L * (trained + measured) * d * a.element_size ()
        + 8L * (trained * trained + measured * measured + (ra + rb) * d + ra * rb)

    /// Bytes of a step's training rows in the type that is trained in.
    let rowBytes (run: RunContext) (step: Step) : int64 =
        let dtype = if run.Settings.Dtype = Dtype.Float64 then 8L else 4L
        let added = Lift.added run.Settings.Features
        step.Train.LongLength * (step.A.Features.shape[1] + step.B.Features.shape[1] + 2L * added) * dtype

    /// Training rows that the deviations of a step which streams are taken of at most.
    [<Literal>]
    let Sampled = 8192

    /// The training rows that deviations are taken of: all, or of a step that streams so many, evenly spaced.
    let compared (round: Round) (step: Step) : Step =
        let n = step.Train.Length

        if round.Streams.Contains step.Index && n > Sampled then
            { step with
                Train = Array.init Sampled (fun i -> step.Train[int (int64 i * int64 n / int64 Sampled)]) }
        else
            step

    /// Before the first round: the steps, in order, that the limits have room for.
    let start (limits: Limits) (run: RunContext) (heads: Heads) : Round =
        let streams = run.Stream.Steps |> List.filter (fun s -> rowBytes run s > limits.Rows) |> List.map _.Index |> set

        let add struct (holds, sofar) (step: Step) =
            let sum = sofar + bytes run heads step

            if sum <= limits.Held && not (streams.Contains step.Index) then
                struct (Set.add step.Index holds, sum)
            else
                struct (holds, sofar)

        let struct (holds, _) = List.fold add (struct (Set.empty, 0L)) run.Stream.Steps

        { Heads = Map.empty
          Moved = Set.empty
          Holds = holds
          Streams = streams
          Outputs = Map.empty
          Figures = Map.empty
          Old = [] }
