namespace Cmcl

open TorchSharp

/// Generated data of one pair: an old step, of which second moments are kept, and a new one.
type Workload =
    {
        Heads: Heads
        Old: Task
        New: Task
        /// The moments of the old step, as `Dns` keeps them.
        Kept: Memory
    }

/// Sessions on generated data, for timing.
[<RequireQualifiedAccess>]
module Workload =
    let private pair = Pair.named "a" "b"

    /// What all forms share: the defaults, but for a rate that never falls to 0 however many updates are made.
    let private settings (dtype: Dtype) (pairs: int64) (epochs: int) : Settings =
        { Settings.initial with
            Batch = BatchSize.Rows(int pairs)
            Epochs = epochs
            Decay = Schedule.Constant
            Dtype = dtype }

    /// Unit rows with energies that fall by e⁻⁶ from the first direction to the last.
    let private rows (device: torch.Device) (dtype: Dtype) (count: int64) (width: int64) (purpose: string) : torch.Tensor =
        Tensors.scoped (fun () ->
            let scales = torch.linspace(0.0, -3.0, width, dtype = torch.float64).exp()
            let x = (Seed.normal [ count; width ] (Seed.ofInt 0 |> Seed.split purpose)).mul_ scales
            x.div_(x.norm (1, true)).``to``(dtype.Torch).``to`` device)

    let private task device dtype count width index : Task =
        let side name = rows device dtype count width $"{name} {index}"

        Task.ofPair index $"step {index}" pair (side "a") (side "b")

    let private context device (heads: Heads) (settings: Settings) (count: int64) : Context =
        { Settings = settings
          Device = device
          Seed = Seed.ofInt 0
          Initial = heads
          Updates = Loop.updates settings [ count ]
          Old = []
          Remaining = 1 }

    /// Both steps with so many matched rows.
    let make (device: torch.Device) (dtype: Dtype) (width: int64) (old: int64) (fresh: int64) : Workload =
        let heads = Heads.identity dtype device width [ for m in Pair.members pair -> m, width ]
        let oldTask = task device dtype old width 1

        { Heads = heads
          Old = oldTask
          New = task device dtype fresh width 2
          Kept =
            (NullSpace.dns.Make NullSpaceOptions.defaults |> Method.trainer).End
                (context device heads (settings dtype 2L 1) old)
                Map.empty
                heads
                [ oldTask ] }

    /// The context of a step over so many epochs.
    let contextOf (extent: Extent) (epochs: int) (w: Workload) : Context =
        context w.New.Device w.Heads (settings extent.Dtype extent.Pairs epochs) w.New.Count

    /// What a form's method kept of the old step.
    let memoryOf (form: Form) (w: Workload) : Memory = if form.Keeps then w.Kept else Map.empty

    /// A form's session on the new step. Its tensors are the caller's.
    let session (form: Form) (extent: Extent) (w: Workload) : Session =
        (form.Method extent |> Method.trainer).Begin (contextOf extent 1 w) (memoryOf form w) w.Heads [ w.New ]

    /// A session trained by one of the loops; raises `Fault.Diverged` where that leaves the finite numbers.
    let train
        (loop: Settings -> Seed -> Watch -> Session -> Result<Trained, Unfinished>)
        (form: Form)
        (context: Context)
        (session: Session)
        =
        match loop context.Settings (Seed.ofInt 0) Watch.silent session with
        | Ok trained -> trained.Weights
        | Error(Unfinished.Diverged epoch) -> Check.fail (Fault.Diverged(form.Name, 0, session.Data.Head.Name, epoch))
        | Error Unfinished.Paused -> invalidOp "nobody asked for a pause"
