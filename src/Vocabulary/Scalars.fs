namespace Cmcl

open System
open System.Runtime.CompilerServices
open TorchSharp

/// The last scalars that a thread made. TorchSharp hands a scalar's address to libtorch and holds the scalar no longer: a collection that
/// another thread sets off in that moment lets its finalizer free it under libtorch's hands, which then computes with whatever
/// lies there. A scalar that is still held somewhere is safe.
[<AbstractClass; Sealed>]
type internal LastScalars private () =
    [<ThreadStatic; DefaultValue>]
    static val mutable private ring: Scalar[] | null

    [<ThreadStatic; DefaultValue>]
    static val mutable private next: int

    static member Hold(scalar: Scalar) : Scalar =
        let ring =
            match LastScalars.ring with
            | null ->
                let made = Array.zeroCreate<Scalar> 256
                LastScalars.ring <- made
                made
            | made -> made

        ring[LastScalars.next] <- scalar
        LastScalars.next <- (LastScalars.next + 1) % ring.Length
        scalar

/// Numbers as libtorch takes them beside a tensor: in the place of TorchSharp's `ToScalar`, which is not safe where several threads run
/// (`LastScalars`). No other place of the tree makes a scalar (tests/ScalarTests.fs reads the assemblies), so none is inlined.
[<Extension; AbstractClass; Sealed>]
type Numbers private () =
    /// The number as a scalar that lives as long as the call that it is for.
    [<Extension; MethodImpl(MethodImplOptions.NoInlining)>]
    static member AsScalar(x: float) : Scalar = LastScalars.Hold(x.ToScalar())

    [<Extension; MethodImpl(MethodImplOptions.NoInlining)>]
    static member AsScalar(x: float32) : Scalar = LastScalars.Hold(x.ToScalar())

    [<Extension; MethodImpl(MethodImplOptions.NoInlining)>]
    static member AsScalar(x: int64) : Scalar = LastScalars.Hold(x.ToScalar())

    [<Extension; MethodImpl(MethodImplOptions.NoInlining)>]
    static member AsScalar(x: int) : Scalar = LastScalars.Hold(x.ToScalar())

/// What TorchSharp's tensors do with a scalar of its own making, with one that is held: `a + b` of TorchSharp is
/// `add(b, alpha = 1)`, and its 1 may be freed in the call. So are `add`, `add_`, `square` and `arange` with fewer arguments than libtorch's.
/// `-`, `*` and `/` between tensors make no scalar.
[<AutoOpen>]
module SafeArithmetic =
    let private one = lazy 1L.AsScalar()

    /// a + b, element by element, in place of TorchSharp's `+`. Example: `(pa .+ pa).shape`.
    let (.+) (a: torch.Tensor) (b: torch.Tensor) : torch.Tensor = a.add (b, one.Value)

    type TorchSharp.torch.Tensor with

        /// The tensor with a number added to each element. Example: `pa.plus 1.0`.
        member t.plus(number: float) : torch.Tensor = t.add (number.AsScalar(), one.Value)

        member t.plus(number: int64) : torch.Tensor = t.add (number.AsScalar(), one.Value)

        /// Adds a number to each element in place.
        member t.plus_(number: float) : torch.Tensor = t.add_ (number.AsScalar(), one.Value)

        /// Adds a tensor in place, element by element.
        member t.plus_(other: torch.Tensor) : torch.Tensor = t.add_ (other, one.Value)

        /// The square of each element, in place of TorchSharp's `square`. Example: `pa.squared().sum()`.
        member t.squared() : torch.Tensor = t * t
