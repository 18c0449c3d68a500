namespace Cmcl

open TorchSharp

/// Which way matrices are kept while training.
[<RequireQualifiedAccess>]
type Dtype =
    | Float32
    | Float64

    member d.Torch =
        match d with
        | Float32 -> torch.float32
        | Float64 -> torch.float64

    override d.ToString() =
        match d with
        | Float32 -> "float32"
        | Float64 -> "float64"

/// Tolerances by name, so that a bound is chosen once and not per test.
[<RequireQualifiedAccess>]
module Tolerance =
    /// Relative rounding of one number: 2⁻²³ or 2⁻⁵².
    let epsilon (dtype: Dtype) : float =
        match dtype with
        | Dtype.Float32 -> 1.1920928955078125e-7
        | Dtype.Float64 -> 2.220446049250313e-16

    /// Agreement of two computations of one quantity: 1e-5 in float32, 1e-12 in float64.
    let agreement (dtype: Dtype) : float =
        match dtype with
        | Dtype.Float32 -> 1e-5
        | Dtype.Float64 -> 1e-12

/// Scopes, shapes and conversions. Every function here returns a new tensor and leaves its arguments as they are.
[<RequireQualifiedAccess>]
module Tensors =
    /// Runs `make` in a scope of its own and keeps only its result; all temporaries are freed.
    /// Example: `Tensors.scoped (fun () -> (pa + pa).mm pa)`.
    let scoped (make: unit -> torch.Tensor) : torch.Tensor =
        use scope = torch.NewDisposeScope()
        scope.MoveToOuter(make ())

    /// Runs `make` in a scope of its own and keeps the tensors that `kept` finds in its result.
    let scopedWith (kept: 'a -> seq<torch.Tensor>) (make: unit -> 'a) : 'a =
        use scope = torch.NewDisposeScope()
        let result = make ()

        for t in kept result do
            scope.MoveToOuter t |> ignore

        result

    /// The shape in words: `[3 × 4]`.
    let shapeText (t: torch.Tensor) : string = "[" + System.String.Join(" × ", t.shape) + "]"

    /// Raises `Fault.Shape` unless the tensor is a matrix with these sizes; −1 stands for any size.
    let requireMatrix (what: string) (rows: int64) (columns: int64) (t: torch.Tensor) : unit =
        let fits expected actual = expected = -1L || expected = actual

        if t.dim () <> 2L || not (fits rows t.shape[0] && fits columns t.shape[1]) then
            let word size = if size = -1L then "any" else string size

            Check.fail (Fault.Shape(what, $"[{word rows} × {word columns}]", shapeText t))

    /// A matrix product with its shapes checked first (a mismatch in `matmul` would end the process).
    let product (a: torch.Tensor) (b: torch.Tensor) : torch.Tensor =
        requireMatrix "left factor of a product" -1L -1L a
        requireMatrix "right factor of a product" a.shape[1] -1L b
        a.mm b

    /// A new tensor from managed rows, float64 on the CPU. Example: `Tensors.ofRows [ [ 1.0; 2.0 ]; [ 3.0; 4.0 ] ]`.
    let ofRows (rows: float list list) : torch.Tensor = torch.tensor (array2D rows)

    /// The whole numbers from `first` up to but without `past`, int64. Example: `Tensors.range torch.CPU 0L 3L`.
    let range (device: torch.Device) (first: int64) (past: int64) : torch.Tensor =
        torch.arange (first.AsScalar(), past.AsScalar(), 1L.AsScalar(), dtype = torch.int64, device = device)

    /// One number out of a tensor with one element.
    let toFloat (t: torch.Tensor) : float =
        use scope = torch.NewDisposeScope()
        t.``to``(torch.float64).cpu().item<float>()

    /// Numbers out of tensors with one element each, on one device, fetched at once.
    let toFloats (ts: torch.Tensor list) : float list =
        use scope = torch.NewDisposeScope()
        torch.stack([ for t in ts -> t.``to``(torch.float64).reshape [||] ]).cpu().data<float>().ToArray() |> List.ofArray

    /// Frobenius norm.
    let norm (t: torch.Tensor) : float =
        use scope = torch.NewDisposeScope()
        toFloat (t.``to``(torch.float64).norm())

    /// ‖a − b‖ / ‖b‖ in the Frobenius norm; the plain ‖a − b‖ where b is zero.
    let relativeDifference (a: torch.Tensor) (b: torch.Tensor) : float =
        use scope = torch.NewDisposeScope()
        let size = norm b
        let difference = norm (a - b)
        if size = 0.0 then difference else difference / size

    /// True when every value is finite.
    let isFinite (t: torch.Tensor) : bool =
        use scope = torch.NewDisposeScope()
        t.isfinite().all().cpu().item<bool>()

    /// The rows of a matrix in blocks of at most 2²⁰ numbers, or of one row: the first row of each block and how many it has.
    /// A pass block by block needs little memory beside the matrix. Example: `Tensors.rowBlocks pa`.
    let rowBlocks (matrix: torch.Tensor) : (int64 * int64) list =
        let count, columns = matrix.shape[0], matrix.shape[1]
        let rows = max 1L ((1L <<< 20) / max 1L columns)
        [ for first in 0L .. rows .. count - 1L -> first, min rows (count - first) ]

    /// The first row of a matrix with a NaN or an infinity, sought block by block. Example: `Tensors.nonFiniteRow pa`.
    let nonFiniteRow (matrix: torch.Tensor) : int64 option =
        let within (first, count) =
            use scope = torch.NewDisposeScope()
            let block = matrix.narrow (0L, first, count)
            // Both are NaN where any number is; unlike `isfinite` they take no memory.
            let struct (least, most) = block.aminmax ()
            Mapped.read false count matrix

            if isFinite least && isFinite most then
                None
            else
                Some(first + block.isfinite().all(1L).to_type(torch.int32).argmin().cpu().item<int64>())

        if matrix.NumberOfElements = 0L then None else rowBlocks matrix |> List.tryPick within

    /// Raises `Fault.NonFinite`, with the first such row, if a matrix has a NaN or an infinity.
    let requireFinite (what: string) (matrix: torch.Tensor) : unit =
        nonFiniteRow matrix |> Option.iter (fun row -> Check.fail (Fault.NonFinite(what, row)))

    /// Bytes that the tensor's elements take.
    let bytes (t: torch.Tensor) : int64 = t.NumberOfElements * int64 (t.element_size ())
