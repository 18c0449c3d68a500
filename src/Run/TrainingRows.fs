namespace Cmcl

open TorchSharp

/// The training rows of a run's steps, in the type and where it trains.
[<RequireQualifiedAccess>]
module internal TrainingRows =
    /// A step's training rows, all of them held.
    let task (run: RunContext) (step: Step) : Task =
        let struct (ofA, ofB) = Stream.bankRows Split.Train step

        let read m bank rows = Tensors.scoped (fun () -> Stream.gather run.Settings.Dtype run.Device bank rows |> run.Inputs m)

        let a, b = read step.Pair.A step.A ofA, read step.Pair.B step.B ofB

        { Task.ofPair step.Index step.Name step.Pair a b with
            Items = Stream.items step.Train step }

    /// Bytes of batches after which freed memory is given back: 64 MiB.
    let private betweenTrims = 64L <<< 20

    /// The same rows, read when they are asked for. Their numbers alone are held.
    let streamed (run: RunContext) (step: Step) : Task =
        let struct (ofA, ofB) = Stream.bankRows Split.Train step
        let ofA, ofB = torch.tensor ofA, torch.tensor ofB
        let numbers m = if m = step.Pair.A then ofA else ofB
        let bank m = if m = step.Pair.A then step.A else step.B
        let mutable sinceTrim = 0L

        let read m (rows: torch.Tensor) =
            let taken =
                Tensors.scoped (fun () ->
                    Stream.take run.Settings.Dtype run.Device (bank m) ((numbers m).index_select(0L, rows.cpu ()))
                    |> run.Inputs m)

            sinceTrim <- sinceTrim + Tensors.bytes taken

            if sinceTrim > betweenTrims then
                sinceTrim <- 0L
                Native.trim ()

            taken

        { Index = step.Index
          Name = step.Name
          Rows = Map [ for m in Pair.members step.Pair -> m, RowSource.Read(step.Train.LongLength, run.Device, read m) ]
          Terms = Terms.one step.Pair
          Items = Stream.items step.Train step }

    /// The training rows of steps that are trained together, held if they are not too many.
    let tasks (limits: Limits) (run: RunContext) (steps: Step list) : Task list =
        if List.sumBy (Round.rowBytes run) steps <= limits.Rows then
            List.map (task run) steps
        else
            List.map (streamed run) steps

    /// Rows whose outputs are made at once where rows are read.
    let private atOnce = 8192L

    /// InfoNCE on a step's training rows (of several pairs of an item the first), in batches of the training size in the stored order, so that before and after
    /// are the same rows against the same candidates.
    let loss (run: RunContext) (heads: Heads) (task: Task) : float =
        let size = Loop.batchRows run.Settings.Batch task.Visits

        let lossOf (rows: Modality -> torch.Tensor) =
            use scope = torch.NewDisposeScope()
            let made = Map [ for m in task.Modalities -> m, Heads.outputs (Heads.weight m heads) (rows m) ]

            task.Terms
            |> List.sumBy (fun (pair, weight) ->
                weight * Retrieval.lossInBatches size (Settings.contrast run.Settings) made[pair.A] made[pair.B])

        use scope = torch.NewDisposeScope()
        let firsts = Task.firsts task

        match task.IsHeld, firsts with
        | true, None -> lossOf task.All
        | _ ->
            let full = task.Visits / size * size
            let some = max 1L (atOnce / size) * size

            let sum =
                [ for first in 0L .. some .. full - 1L do
                      use scope = torch.NewDisposeScope()
                      let count = min some (full - first)

                      let numbers =
                          match firsts with
                          | Some firsts -> firsts.narrow (0L, first, count)
                          | None -> Tensors.range task.Device first (first + count)

                      float count * lossOf (fun m -> task.Take(m, numbers)) ]
                |> List.sum

            sum / float full
