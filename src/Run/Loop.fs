namespace Cmcl

open System
open TorchSharp

/// One update as it was made, for those who look on: its tensors belong to the loop and are gone afterwards.
type Update =
    {
        /// 1 for the first of the session.
        Count: int64
        /// The learning rate that it was made with.
        Rate: float
        Batch: Batch
        Pass: Pass
        /// The trained weights before and after it, in the method's coordinates.
        Before: Heads
        After: Heads
    }

/// Who hears of training while it goes on.
type Watch =
    {
        /// Epoch, mean loss of its batches, updates so far.
        Epoch: int -> float -> int64 -> unit
        Update: (Update -> unit) option
    }

/// The loop over batches: the one place where weights change. It owns the weights and the optimizer's state and frees each
/// as the next takes its place; every function that it calls is pure.
[<RequireQualifiedAccess>]
module Loop =
    /// Rows in a full batch of n rows: at most all of them.
    let batchRows (size: BatchSize) (n: int64) : int64 =
        match size with
        | BatchSize.All -> n
        | BatchSize.Rows b -> min (int64 b) n

    /// How many batches n rows make: full ones, and a smaller last one unless it is a single pair, which has no negatives.
    let batches (size: BatchSize) (n: int64) : int64 =
        match size with
        | BatchSize.All -> 1L
        | BatchSize.Rows b -> n / int64 b + (if n % int64 b >= 2L then 1L else 0L)

    /// The updates that some tasks of these row counts take.
    let updates (settings: Settings) (counts: int64 list) : int64 =
        int64 settings.Epochs * List.sumBy (batches settings.Batch) counts

    let private ordered (settings: Settings) (seed: Seed) (counts: int64 list) : (int * torch.Tensor) list =
        let ofTask i n =
            let order = if settings.Shuffle then Seed.permutation n (Seed.split $"task {i}" seed) else torch.arange n

            let size = batchRows settings.Batch n

            [ for b in 0L .. batches settings.Batch n - 1L -> i, order.narrow (0L, b * size, min size (n - b * size)) ]

        let all = counts |> List.mapi ofTask |> List.concat |> Array.ofList

        if settings.Shuffle && counts.Length > 1 then
            let order = (Seed.permutation (int64 all.Length) (Seed.split "order" seed)).data<int64>().ToArray()
            [ for i in order -> all[int i] ]
        else
            List.ofArray all

    /// One epoch's batches as (task, rows): shuffled within tasks, and the batches of several tasks among each other.
    let private epochRows (settings: Settings) (seed: Seed) (counts: int64 list) : (int * torch.Tensor) list =
        Tensors.scopedWith (Seq.map snd) (fun () -> ordered settings seed counts)

    let private free (old: torch.Tensor list) (kept: torch.Tensor list) =
        for t in old do
            if not (List.exists (fun k -> obj.ReferenceEquals(k, t)) kept) then
                t.Dispose()

    /// One update: (loss, new weights, new state). Everything else that it made is freed; `see` is shown it first.
    let private update
        (see: Batch -> Pass -> Heads -> Heads -> unit)
        (session: Session)
        (weights: Heads)
        (state: TransformState)
        (task: int)
        (rows: torch.Tensor)
        =
        use scope = torch.NewDisposeScope()
        let data = session.Data[task]
        let rows = rows.``to`` data.A.device

        let batch =
            { Task = task
              Pair = data.Pair
              Rows = rows
              A = data.A.index_select (0L, rows)
              B = data.B.index_select (0L, rows) }

        let pass = session.Pass weights batch
        let struct (changes, next) = session.Transform.Update state pass.Gradients weights
        let moved = changes |> Map.map (fun m change -> Heads.weight m weights + change)
        let after = Heads.replace moved weights

        see batch pass weights after

        for t in Heads.tensors moved @ TransformState.tensors next do
            scope.MoveToOuter t |> ignore

        struct (Tensors.toFloat pass.Loss, after, next)

    /// Trains a session and returns its weights, moved to the caller's scope. A loss or a weight that is not finite ends it with
    /// `Error epoch`.
    let train (settings: Settings) (seed: Seed) (watch: Watch) (session: Session) : Result<Heads, int> =
        use scope = torch.NewDisposeScope()
        let counts = session.Data |> List.map _.Count
        let total = updates settings counts

        let see count batch pass before after =
            watch.Update
            |> Option.iter (fun see ->
                see
                    { Count = count
                      Rate = settings.LearningRate * Schedule.factor settings.Decay total (count - 1L)
                      Batch = batch
                      Pass = pass
                      Before = before
                      After = after })

        let rec overBatches (weights: Heads) state sofar losses batches =
            match batches with
            | [] -> Ok struct (weights, state, losses)
            | (task, rows) :: rest ->
                let struct (loss, next, nextState) = update (see (sofar + 1L)) session weights state task rows

                free
                    (Heads.tensors weights @ TransformState.tensors state)
                    (Heads.tensors next @ TransformState.tensors nextState)

                if Double.IsFinite loss then
                    overBatches next nextState (sofar + 1L) (loss :: losses) rest
                else
                    Error()

        let rec overEpochs (weights: Heads) state epoch sofar =
            if epoch > settings.Epochs then
                Ok weights
            else
                let rows = epochRows settings (Seed.split $"epoch {epoch}" seed) counts

                match overBatches weights state sofar [] rows with
                | Error() -> Error epoch
                | Ok struct (weights, state, losses) ->
                    for t in rows |> List.map snd do
                        t.Dispose()

                    let sofar = sofar + int64 losses.Length
                    watch.Epoch epoch (List.average losses) sofar
                    overEpochs weights state (epoch + 1) sofar

        let start = Heads.map (fun (w: torch.Tensor) -> w.clone ()) session.Start

        match overEpochs start (session.Transform.Init start) 1 0L with
        // The last update has no loss after it that would tell.
        | Ok trained when not (trained.Values |> Seq.forall Tensors.isFinite) -> Error settings.Epochs
        | Ok trained ->
            for t in Heads.tensors trained do
                scope.MoveToOuter t |> ignore

            Ok trained
        | Error epoch -> Error epoch
