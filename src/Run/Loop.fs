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
        /// Its loss and gradients, computed when they are asked for.
        Pass: Lazy<Pass>
        /// The trained weights before and after it, in the method's coordinates.
        Before: Heads
        After: Heads
        /// What the direction keeps after it.
        Kept: Memory
    }

/// Training in mid-step: all that is needed to continue as if it had not been interrupted.
type Midway =
    {
        /// Updates so far.
        Updates: int64
        /// Mean losses of the epochs that are over.
        Epochs: float list
        /// The sum of the losses of this epoch's batches so far.
        Sum: float
        Descent: DescentState
        /// What the direction keeps.
        Kept: Memory
    }

/// Who hears of training while it goes on.
type Watch =
    {
        /// Epoch, mean loss of its batches, updates so far.
        Epoch: int -> float -> int64 -> unit
        Update: (Update -> unit) option
        /// Asked after every update, with how many they are so far and a way to see where training stands, in tensors that the next
        /// update writes over; true ends it there.
        Pause: int64 -> (unit -> Midway) -> bool
    }

[<RequireQualifiedAccess>]
module Watch =
    /// Nobody looks on.
    let silent: Watch =
        { Epoch = fun _ _ _ -> ()
          Update = None
          Pause = fun _ _ -> false }

/// Why training ended before its last update, or without weights to use.
[<RequireQualifiedAccess>]
type Unfinished =
    | Diverged of epoch: int
    | Paused

/// The loop over batches: the one place where weights change. It owns the weights and the optimizer's state.
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

    let private ordered (settings: Settings) (seed: Seed) (device: torch.Device) (tasks: Task list) : (int * torch.Tensor) list =
        let ofTask i (task: Task) =
            let n = task.Visits
            let order = (Task.visit settings.Shuffle (Seed.split $"task {i}" seed) task).``to`` device

            let size = batchRows settings.Batch n

            [ for b in 0L .. batches settings.Batch n - 1L -> i, order.narrow (0L, b * size, min size (n - b * size)) ]

        let all = tasks |> List.mapi ofTask |> List.concat |> Array.ofList

        if settings.Shuffle && tasks.Length > 1 then
            let order = (Seed.permutation (int64 all.Length) (Seed.split "order" seed)).data<int64>().ToArray()
            [ for i in order -> all[int i] ]
        else
            List.ofArray all

    /// One epoch's batches as (task, rows), one pair of each item: shuffled within tasks, and the batches of several tasks among each other.
    let private epochRows (settings: Settings) (seed: Seed) (data: Task list) : (int * torch.Tensor) list =
        Tensors.scopedWith (Seq.map snd) (fun () -> ordered settings seed data.Head.Device data)

    /// A batch of a session, gathered.
    let private gather (session: Session) (task: int) (rows: torch.Tensor) (epoch: int) (seed: Seed) : Batch =
        Task.batch task rows epoch seed session.Data[task]

    /// Epochs of updates. A loss that is not finite is noticed at once on the CPU and at the end of its epoch elsewhere, where to look at
    /// every loss would be to wait for every update.
    let private trainWith
        (stepper: Session -> DescentState option -> DisposeScope -> Stepper)
        (settings: Settings)
        (seed: Seed)
        (watch: Watch)
        (from: Midway option)
        (session: Session)
        : Result<Trained, Unfinished> =
        use scope = torch.NewDisposeScope()

        let session =
            match from with
            | Some midway -> { session with Kept = midway.Kept }
            | None -> session

        let counts = session.Data |> List.map _.Visits
        let total = updates settings counts
        let stepper = stepper session (Option.map _.Descent from) scope
        let mutable count = from |> Option.map _.Updates |> Option.defaultValue 0L
        let mutable means = from |> Option.map _.Epochs |> Option.defaultValue []

        let watched (see: Update -> unit) (batch: Batch) =
            let before = Heads.map (fun (w: torch.Tensor) -> w.clone ()) (stepper.Weights())
            let kept = stepper.Kept()
            let loss = stepper.Update batch

            see
                { Count = count
                  Rate = settings.LearningRate * Schedule.factor settings.Decay total (count - 1L)
                  Batch = batch
                  Pass = lazy (Direction.pass session.Direction kept before batch)
                  Before = before
                  After = stepper.Weights()
                  Kept = stepper.Kept() }

            loss

        let update (epoch: int) (task, rows) : torch.Tensor =
            use scope = torch.NewDisposeScope()
            count <- count + 1L
            let batch = gather session task rows epoch (Seed.split $"update {count}" seed)

            let loss =
                match watch.Update with
                | None -> stepper.Update batch
                | Some see -> watched see batch

            scope.MoveToOuter loss

        let device = session.Data.Head.Device
        let looks = device.``type`` = DeviceType.CPU
        // An epoch's losses: as they are looked at, and where they are not, on their device.
        let mutable sum = from |> Option.map _.Sum |> Option.defaultValue 0.0
        let unseen = torch.tensor (sum, dtype = torch.float64, device = device)
        let whole () = if looks then sum else Tensors.toFloat unseen

        let midway () =
            { Updates = count
              Epochs = means
              Sum = whole ()
              Descent = stepper.Descent()
              Kept = stepper.Kept() }

        let add (loss: torch.Tensor) =
            use loss = loss
            if looks then sum <- sum + Tensors.toFloat loss else unseen.plus_ loss |> ignore

        /// The batches of an epoch that are left, until one has a loss that is not finite, or a pause is asked for.
        let rec over (number: int) batches : Unfinished option =
            match batches with
            | [] -> None
            | next :: rest ->
                add (update number next)

                if not (Double.IsFinite sum) then Some(Unfinished.Diverged number)
                elif watch.Pause count midway then Some Unfinished.Paused
                else over number rest

        let epoch (number: int) : Unfinished option =
            use scope = torch.NewDisposeScope()
            let batches = epochRows settings (Seed.split $"epoch {number}" seed) session.Data
            let size = List.length batches

            match over number (List.skip (int (count - int64 size * int64 (number - 1))) batches) with
            | Some unfinished -> Some unfinished
            | None ->
                let mean = whole () / float size

                if Double.IsFinite mean then
                    means <- means @ [ mean ]
                    sum <- 0.0
                    unseen.zero_ () |> ignore
                    watch.Epoch number mean count
                    None
                else
                    Some(Unfinished.Diverged number)

        let rec overEpochs number =
            if number > settings.Epochs then
                None
            else
                match epoch number with
                | Some unfinished -> Some unfinished
                | None -> overEpochs (number + 1)

        match overEpochs (means.Length + 1) with
        | Some unfinished -> Error unfinished
        // The last update has no loss after it that would tell.
        | None when not (stepper.Weights().Values |> Seq.forall Tensors.isFinite) -> Error(Unfinished.Diverged settings.Epochs)
        | None ->
            let trained = stepper.Weights()

            for t in Heads.tensors trained do
                scope.MoveToOuter t |> ignore

            let kept = stepper.Kept()

            for t in kept.Values do
                if session.Kept.Values |> Seq.forall (fun given -> not (obj.ReferenceEquals(given, t))) then
                    scope.MoveToOuter t |> ignore

            Ok { Weights = trained; Kept = kept }

    let private fast (settings: Settings) (session: Session) (from: DescentState option) (owner: DisposeScope) : Stepper =
        match session.Rule with
        | Rule.Recipe recipe ->
            let rows = session.Data |> List.map (fun t -> batchRows settings.Batch t.Visits) |> List.max
            Stepper.inPlace session recipe true rows from owner
        | Rule.Chain _ -> Stepper.pure' session from owner

    /// `train` from its midst on: the same session as then, whose weights, losses and kept tensors are those of an uninterrupted training, bit for
    /// bit. A midway of another session raises `CmclException`.
    let resume
        (settings: Settings)
        (seed: Seed)
        (watch: Watch)
        (from: Midway option)
        (session: Session)
        : Result<Trained, Unfinished> =
        trainWith (fast settings) settings seed watch from session

    /// Trains a session and returns its weights and what was kept, moved to the caller's scope. A loss or a weight that is not finite ends it. A
    /// recipe is followed in place; a chain of transforms as the pure functions that it is made of.
    let train (settings: Settings) (seed: Seed) (watch: Watch) (session: Session) : Result<Trained, Unfinished> =
        resume settings seed watch None session

    /// The same by pure functions alone, every update in new tensors: slower, and the measure of what `train` does in place.
    let trainPurely (settings: Settings) (seed: Seed) (watch: Watch) (session: Session) : Result<Trained, Unfinished> =
        trainWith Stepper.pure' settings seed watch None session

    /// A session brought forward by hand, for those who measure: each call makes the next so many updates, epoch after epoch as `train`
    /// (`purely`: as `trainPurely`) makes them, and returns the mean of their losses. `owner` is the caller's scope, to which weights and
    /// state belong.
    let advance (purely: bool) (settings: Settings) (seed: Seed) (owner: DisposeScope) (session: Session) : int -> float =
        let stepper = (if purely then Stepper.pure' else fast settings) session None owner
        let mutable epoch = 0
        let mutable updates = 0L
        let mutable waiting = []

        let update () : torch.Tensor =
            if waiting.IsEmpty then
                epoch <- epoch + 1
                waiting <- epochRows settings (Seed.split $"epoch {epoch}" seed) session.Data
                owner.Attach [ for _, rows in waiting -> rows :> IDisposable ] |> ignore

            use scope = torch.NewDisposeScope()
            let task, rows = waiting.Head
            waiting <- waiting.Tail
            updates <- updates + 1L
            let loss = stepper.Update(gather session task rows epoch (Seed.split $"update {updates}" seed))
            rows.Dispose()
            scope.MoveToOuter loss

        fun count ->
            use scope = torch.NewDisposeScope()
            Tensors.toFloat ((torch.stack [| for _ in 1..count -> update () |]).mean())
