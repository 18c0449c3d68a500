namespace Cmcl

open TorchSharp

/// One form trained twice from the same data: fast on a device, and by pure functions on the CPU.
type Parity =
    {
        Form: string
        Extent: Extent
        /// ‖W − W_pure‖/‖W_pure‖ after training, the larger of both heads.
        Difference: float
        /// How far training took the weights: ‖W_pure − W_start‖/‖W_start‖, the smaller of both heads.
        Moved: float
        Tolerance: float
    }

    member p.Holds: bool = p.Difference <= p.Tolerance

[<RequireQualifiedAccess>]
module Parity =
    /// What both may differ by: 1e-6 in float32 and 1e-12 in float64 on the CPU; 1e-4 and 1e-9 on another device, which sums in
    /// another order, decompositions included.
    let tolerance (device: torch.Device) (dtype: Dtype) : float =
        match device.``type``, dtype with
        | DeviceType.CPU, Dtype.Float32 -> 1e-6
        | DeviceType.CPU, Dtype.Float64 -> 1e-12
        | _, Dtype.Float32 -> 1e-4
        | _, Dtype.Float64 -> 1e-9

    /// Epochs of training, and batches in each of them.
    let epochs, batches = 8, 5L

    let private train purely (form: Form) (extent: Extent) (w: Workload) : Heads =
        use scope = torch.NewDisposeScope()
        let context = Workload.contextOf extent epochs w
        let session = (form.Method extent |> Method.trainer).Begin context (Workload.memoryOf form w) w.Heads [ w.New ]
        let trained = Workload.train (if purely then Loop.trainPurely else Loop.train) form context session
        let finished = session.Finish { Weights = trained; Kept = session.Kept }
        let heads = finished.Weights |> Heads.map _.cpu()

        for w in heads.Values do
            scope.MoveToOuter w |> ignore

        heads

    /// A form on the device against its pure functions on the CPU: 40 updates.
    let check (device: torch.Device) (extent: Extent) (form: Form) : Parity =
        use scope = torch.NewDisposeScope()
        let workload device = Workload.make device extent.Dtype extent.Width (2L * extent.Width) (batches * extent.Pairs)
        let here = workload torch.CPU
        let fast, slow = train false form extent (workload device), train true form extent here

        let differences (heads: Heads) (references: Heads) =
            [ for m in references.Keys -> Tensors.relativeDifference heads[m] references[m] ]

        { Form = form.Name
          Extent = extent
          Difference = List.max (differences fast slow)
          Moved = List.min (differences slow here.Heads)
          Tolerance = tolerance device extent.Dtype }
