namespace Cmcl

open System.Diagnostics
open TorchSharp

/// Times of work that a device may still be doing when the call is back.
[<RequireQualifiedAccess>]
module Clock =
    /// Waits until the device has done what it was given; a CPU has.
    let settle (device: torch.Device) : unit =
        if device.``type`` = DeviceType.CUDA then
            torch.cuda.synchronize device

    /// Seconds that something takes, from a device at rest to a device at rest, and what it gives.
    let timed (device: torch.Device) (act: unit -> 'a) : struct (float * 'a) =
        settle device
        let watch = Stopwatch.StartNew()
        let result = act ()
        settle device
        struct (watch.Elapsed.TotalSeconds, result)

    /// Seconds that something takes.
    let seconds (device: torch.Device) (act: unit -> unit) : float =
        let struct (seconds, ()) = timed device act
        seconds
