namespace Cmcl

#nowarn "9" "51" // Pointers into tensors: this file alone has them.

open System
open System.Numerics
open System.Threading.Tasks
open FSharp.NativeInterop
open TorchSharp

/// What AdamW or SGD does to every entry in one update, all that is the same for all entries worked out.
type internal Stroke =
    {
        /// What clipping multiplies gradients by.
        Clip: float
        /// The rate η, and decay for the columns that it is meant for.
        Rate: float
        Decay: float
        /// Bias corrections of Adam's two moments; SGD has none.
        Corrections: struct (float * float) voption
    }

/// The entries that a stroke is for: all of a d × d_m matrix but a block at its top left, and columns at its end without decay.
[<Struct>]
type internal Area =
    { Rows: int64
      Columns: int64
      BlockRows: int64
      BlockColumns: int64
      Exempt: int64 }

/// Contiguous matrices of one shape on the CPU, each dealt with in one pass over memory.
type internal IKernels =
    /// One update in place: the weight `w` and Adam's moments `m` and `v` (idle for SGD), from the gradient `g`; `factor` multiplies
    /// the step where it is given.
    abstract Update:
        s: Stroke *
        area: Area *
        w: torch.Tensor *
        g: torch.Tensor *
        m: torch.Tensor *
        v: torch.Tensor *
        factor: torch.Tensor option ->
            unit

    /// Σ g², each row in its own type and the rows' sums in float64.
    abstract Squares: area: Area * g: torch.Tensor -> float

    /// For changes D = W − W_start and importance p: Σ p D'² and Σ p² D'²/(1 + νp) with D' = D/(1 + νp).
    abstract Ellipsoid:
        area: Area * importance: torch.Tensor * w: torch.Tensor * start: torch.Tensor * nu: float -> struct (float * float)

    /// W ← W_start + (W − W_start)/(1 + νp), times `shrink` where p is above 0.
    abstract Shrink:
        area: Area * importance: torch.Tensor * w: torch.Tensor * start: torch.Tensor * nu: float * shrink: float -> unit

/// The kernels for one type of number, a row at a time, rows shared among as many threads as libtorch has. What a row gives depends
/// on that row alone, so the number of threads changes nothing.
type internal Kernels<'T
    when 'T: unmanaged and 'T: (new: unit -> 'T) and 'T: struct and 'T :> ValueType and 'T :> IFloatingPointIeee754<'T>>() =

    /// Fewer entries than this are left to one thread.
    let worthThreads = 131072L
    let width = Vector<'T>.Count
    let number (x: float) : 'T = 'T.CreateTruncating x

    let first (t: torch.Tensor) : nativeptr<'T> =
        let bytes = t.bytes
        let address = &&bytes.GetPinnableReference()
        NativePtr.ofNativeInt (NativePtr.toNativeInt address)

    let overRows (area: Area) (act: int64 -> unit) : unit =
        let threads =
            if area.Rows * area.Columns < worthThreads then
                1L
            else
                min area.Rows (int64 (torch.get_num_threads ()))

        let share (thread: int64) =
            for row in thread * area.Rows / threads .. (thread + 1L) * area.Rows / threads - 1L do
                act row

        if threads = 1L then share 0L else Parallel.For(0L, threads, share) |> ignore

    let sumRows (area: Area) (f: int64 -> float) : float =
        let sums = Array.zeroCreate<float>(int area.Rows)
        overRows area (fun row -> sums[int row] <- f row)
        Array.sum sums

    let sum (lanes: Vector<'T>) : float = Double.CreateTruncating(Vector.Sum lanes)

    /// Room for the last entries of a row, which do not fill a vector: the rest of it is zeros.
    let fill (room: nativeptr<'T>) (from: nativeptr<'T>) (count: int) : unit =
        Vector.Store(Vector<'T>.Zero, room)

        for i in 0 .. count - 1 do
            NativePtr.set room i (NativePtr.get from i)

    let empty (to': nativeptr<'T>) (room: nativeptr<'T>) (count: int) : unit =
        for i in 0 .. count - 1 do
            NativePtr.set to' i (NativePtr.get room i)

    /// w ← w − ηf(m̂/(√v̂ + ε) + decay · w) for n entries, m and v brought up to date first; without Adam's corrections
    /// w ← w − ηf(g + decay · w). f is 1 without factors.
    let update
        (s: Stroke)
        (decay: float)
        (w: nativeptr<'T>)
        (g: nativeptr<'T>)
        (m: nativeptr<'T>)
        (v: nativeptr<'T>)
        (f: nativeptr<'T>)
        (n: int)
        : unit =
        let adam = s.Corrections.IsSome
        let struct (c1, c2) = s.Corrections |> ValueOption.defaultValue (struct (1.0, 1.0))
        let beta1, beta2 = number 0.9, number 0.999
        let fresh1, fresh2 = number (1.0 - 0.9), number (1.0 - 0.999)
        // m/c1 / (√v/√c2 + ε) = m / (√v · c1/√c2 + c1 · ε), with one division.
        let scale, epsilon = number (c1 / sqrt c2), Vector<'T>(number (c1 * 1e-8))
        let clip, rate, decay = number s.Clip, number -s.Rate, number decay
        let factored = NativePtr.toNativeInt f <> 0n

        let inline stroke (w: nativeptr<'T>) (g: nativeptr<'T>) (m: nativeptr<'T>) (v: nativeptr<'T>) (f: nativeptr<'T>) =
            let gradient = Vector.Multiply(Vector.Load g, clip)
            let weight = Vector.Load w

            let direction =
                if adam then
                    let first = Vector.Add(Vector.Multiply(Vector.Load m, beta1), Vector.Multiply(gradient, fresh1))
                    let squares = Vector.Multiply(gradient, gradient)
                    let second = Vector.Add(Vector.Multiply(Vector.Load v, beta2), Vector.Multiply(squares, fresh2))
                    Vector.Store(first, m)
                    Vector.Store(second, v)
                    Vector.Divide(first, Vector.Add(Vector.Multiply(Vector.SquareRoot second, scale), epsilon))
                else
                    gradient

            let step = Vector.Multiply(Vector.Add(direction, Vector.Multiply(weight, decay)), rate)
            Vector.Store(Vector.Add(weight, (if factored then Vector.Multiply(step, Vector.Load f) else step)), w)

        let inline move (p: nativeptr<'T>) i = NativePtr.add p i
        let mutable i = 0

        while i <= n - width do
            stroke (move w i) (move g i) (move m i) (move v i) (if factored then move f i else f)
            i <- i + width

        if i < n then
            let room = NativePtr.stackalloc<'T>(5 * width)
            let rest = n - i
            let w, m, v = move w i, move m i, move v i
            let w', g', m', v', f' = room, move room width, move room (2 * width), move room (3 * width), move room (4 * width)
            fill w' w rest
            fill g' (move g i) rest
            fill m' m rest
            fill v' v rest

            if factored then
                fill f' (move f i) rest

            stroke w' g' m' v' f'
            empty w w' rest
            empty m m' rest
            empty v v' rest

    /// Σ p D'² and Σ p² D'²/(1 + νp) over n entries.
    let ellipsoid (nu: 'T) (p: nativeptr<'T>) (w: nativeptr<'T>) (start: nativeptr<'T>) (n: int) : struct (float * float) =
        let one = Vector<'T>.One
        let mutable sizes = Vector<'T>.Zero
        let mutable slopes = Vector<'T>.Zero
        let room = NativePtr.stackalloc<'T>(3 * width)
        let mutable i = 0

        while i < n do
            let mutable p, w, start = NativePtr.add p i, NativePtr.add w i, NativePtr.add start i

            if i > n - width then
                fill room p (n - i)
                fill (NativePtr.add room width) w (n - i)
                fill (NativePtr.add room (2 * width)) start (n - i)
                p <- room
                w <- NativePtr.add room width
                start <- NativePtr.add room (2 * width)

            let importance = Vector.Load p
            let bent = Vector.Add(Vector.Multiply(importance, nu), one)
            let change = Vector.Divide(Vector.Subtract(Vector.Load w, Vector.Load start), bent)
            let weighted = Vector.Multiply(importance, Vector.Multiply(change, change))
            sizes <- Vector.Add(sizes, weighted)
            slopes <- Vector.Add(slopes, Vector.Divide(Vector.Multiply(importance, weighted), bent))
            i <- i + width

        struct (sum sizes, sum slopes)

    let squares (g: nativeptr<'T>) (n: int) : float =
        let mutable lanes = Vector<'T>.Zero
        let room = NativePtr.stackalloc<'T> width
        let mutable i = 0

        while i < n do
            let mutable g = NativePtr.add g i

            if i > n - width then
                fill room g (n - i)
                g <- room

            let x = Vector.Load g
            lanes <- Vector.Add(lanes, Vector.Multiply(x, x))
            i <- i + width

        sum lanes

    /// W_start + (W − W_start)/(1 + νp), times `shrink` where p is not 0, over n entries.
    let pull (nu: 'T) (shrink: 'T) (p: nativeptr<'T>) (w: nativeptr<'T>) (start: nativeptr<'T>) (n: int) : unit =
        let one = Vector<'T>.One
        let room = NativePtr.stackalloc<'T>(3 * width)
        let mutable i = 0

        while i < n do
            let mutable p, to', start = NativePtr.add p i, NativePtr.add w i, NativePtr.add start i

            if i > n - width then
                fill room p (n - i)
                fill (NativePtr.add room width) to' (n - i)
                fill (NativePtr.add room (2 * width)) start (n - i)
                p <- room
                to' <- NativePtr.add room width
                start <- NativePtr.add room (2 * width)

            let importance, from = Vector.Load p, Vector.Load start
            let bent = Vector.Add(Vector.Multiply(importance, nu), one)
            let change = Vector.Divide(Vector.Subtract(Vector.Load to', from), bent)

            let near =
                Vector.ConditionalSelect(Vector.Equals(importance, Vector<'T>.Zero), change, Vector.Multiply(change, shrink))

            Vector.Store(Vector.Add(from, near), to')

            if i > n - width then
                empty (NativePtr.add w i) to' (n - i)

            i <- i + width

    interface IKernels with
        member _.Update(s, area, w, g, m, v, factor) =
            let columns = area.Columns
            let w, g, m, v = first w, first g, first m, first v

            let f: nativeptr<'T> =
                match factor with
                | Some f -> first f
                | None -> NativePtr.ofNativeInt 0n

            let part decay from until row =
                if until > from then
                    let offset = int (row * columns + from)
                    let inline move (p: nativeptr<'T>) = NativePtr.add p offset
                    let f = if NativePtr.toNativeInt f = 0n then f else move f
                    update s decay (move w) (move g) (move m) (move v) f (int (until - from))

            overRows area (fun row ->
                let from = if row < area.BlockRows then area.BlockColumns else 0L
                let decayed = columns - area.Exempt
                part s.Decay from decayed row
                part 0.0 (max from decayed) columns row)

        member _.Squares(area, g) =
            let g, n = first g, int area.Columns
            sumRows area (fun row -> squares (NativePtr.add g (int row * n)) n)

        member _.Ellipsoid(area, importance, w, start, nu) =
            let p, w, start, n = first importance, first w, first start, int area.Columns
            let nu = number nu
            let slopes = Array.zeroCreate<float>(int area.Rows)

            let size =
                sumRows area (fun row ->
                    let inline move (p: nativeptr<'T>) = NativePtr.add p (int row * n)
                    let struct (size, slope) = ellipsoid nu (move p) (move w) (move start) n
                    slopes[int row] <- slope
                    size)

            struct (size, Array.sum slopes)

        member _.Shrink(area, importance, w, start, nu, shrink) =
            let p, w, start, n = first importance, first w, first start, int area.Columns
            let nu, shrink = number nu, number shrink

            overRows area (fun row ->
                let inline move (p: nativeptr<'T>) = NativePtr.add p (int row * n)
                pull nu shrink (move p) (move w) (move start) n)

[<RequireQualifiedAccess>]
module internal Kernels =
    /// The kernels for matrices like this one, where there are some: on the CPU, float32 or float64, below 2 GiB, which is what a
    /// span reaches.
    let forTensor (t: torch.Tensor) : IKernels voption =
        if t.device_type <> DeviceType.CPU || Tensors.bytes t > 2147483647L then ValueNone
        elif t.dtype = torch.float32 then ValueSome(Kernels<float32>())
        elif t.dtype = torch.float64 then ValueSome(Kernels<float>())
        else ValueNone
