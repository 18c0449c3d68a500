namespace Cmcl

open TorchSharp

/// The sizes of one iteration: two modalities with d × d heads, a batch of B pairs, k protected directions on either side.
type Extent =
    {
        /// d
        Width: int64
        /// B
        Pairs: int64
        /// k
        Rank: int64
        Dtype: Dtype
    }

/// What something has to do at least.
type Work =
    {
        /// Floating-point operations of its matrix products, 2abc for (a × b)(b × c).
        Operations: float
        /// Bytes to be moved if no cache keeps a matrix: each that lasts or that has to be finished before it is used, once in and once out.
        Bytes: float
    }

/// What a machine can do at most, as measured.
type Ceilings =
    {
        /// Floating-point operations a second of one large matrix product.
        Product: float
        /// Bytes a second, read and written, of one copy that no cache holds.
        Copy: float
    }

[<RequireQualifiedAccess>]
module Ceilings =
    let private best (device: torch.Device) (act: unit -> unit) : float =
        act ()
        List.min [ for _ in 1..5 -> Clock.seconds device act ]

    /// Both ceilings with libtorch's threads as they are, the best of five: a product of square matrices of 2048 rows (8192 on another
    /// device than the CPU), and a copy of 256 MiB.
    let measure (device: torch.Device) (dtype: Dtype) : Ceilings =
        use scope = torch.NewDisposeScope()
        let n = if device.``type`` = DeviceType.CPU then 2048L else 8192L
        let square () = torch.rand (n, n, dtype = dtype.Torch, device = device)
        let a, b, c = square (), square (), square ()
        let bytes = 256L * 1024L * 1024L
        let from = torch.ones (bytes / 4L, dtype = torch.float32, device = device)
        let into = torch.zeros_like from
        let product = best device (fun () -> c.addmm_ (a, b, 0.0f, 1.0f) |> ignore)
        let copy = best device (fun () -> into.copy_ from |> ignore)

        { Product = 2.0 * float n ** 3.0 / product
          Copy = 2.0 * float bytes / copy }

[<RequireQualifiedAccess>]
module Floor =
    /// The time below which work cannot be done under these ceilings: the larger of both times. Where caches hold the matrices
    /// something may be faster than its bytes allow.
    /// Example: `Floor.seconds { Product = 1e11; Copy = 2e10 } { Operations = 1e9; Bytes = 4e8 }`.
    let seconds (c: Ceilings) (w: Work) : float = max (w.Operations / c.Product) (w.Bytes / c.Copy)

    /// An iteration of training without protection. Products: 8Bd² + 6B²d, that is 2Bd² for the outputs and 2Bd² for the gradient of
    /// each head, 2B²d for the scores and 4B²d for their gradients. Bytes: for each head 8d² numbers (W, both moments and G, each in
    /// and out) and Bd for the inputs.
    let plain (e: Extent) : Work =
        let d, b = float e.Width, float e.Pairs
        let number = if e.Dtype = Dtype.Float64 then 8.0 else 4.0

        { Operations = 8.0 * b * d * d + 6.0 * b * b * d
          Bytes = 2.0 * number * (8.0 * d * d + b * d) }

    /// Work beside the plain iteration, for each of both heads: operations and numbers.
    let beside (e: Extent) (operations: float) (numbers: float) : Work =
        let plain = plain e
        let number = if e.Dtype = Dtype.Float64 then 8.0 else 4.0

        { Operations = plain.Operations + 2.0 * operations
          Bytes = plain.Bytes + 2.0 * number * numbers }
