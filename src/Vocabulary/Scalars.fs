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
/// (`LastScalars`).
[<Extension; AbstractClass; Sealed>]
type Numbers private () =
    /// The number as a scalar that lives as long as the call that it is for.
    [<Extension>]
    static member AsScalar(x: float) : Scalar = LastScalars.Hold(x.ToScalar())

    [<Extension>]
    static member AsScalar(x: float32) : Scalar = LastScalars.Hold(x.ToScalar())

    [<Extension>]
    static member AsScalar(x: int64) : Scalar = LastScalars.Hold(x.ToScalar())

    [<Extension>]
    static member AsScalar(x: int) : Scalar = LastScalars.Hold(x.ToScalar())
