namespace Cmcl

#nowarn "9" "51" // A tensor's address, for the system.

open System
open System.Runtime.CompilerServices
open System.Runtime.InteropServices
open System.Threading
open Microsoft.FSharp.NativeInterop
open TorchSharp

/// Where a tensor over a file lies in memory.
type private FilePages(first: nativeint, bytes: int64) =
    let mutable read = 0L
    member _.First = first
    member _.Bytes = bytes

    /// Counts bytes as read; whether there are more than the allowance since the last time that it said so.
    member _.Exceeds (allowance: int64) (more: int64) : bool =
        if Interlocked.Add(&read, more) > allowance then
            Interlocked.Exchange(&read, 0L) > allowance
        else
            false

/// Tensors over mapped files (`Npy.map`). The system counts every page of a file that was read as this process's memory until it is
/// short of memory; here pages that have been read are given back, so that a pass over a file of any length holds little. They are
/// the file's and come again when they are touched. Where that cannot be done (anywhere but on Linux) nothing happens.
[<RequireQualifiedAccess>]
module Mapped =
    [<DllImport("libc", EntryPoint = "madvise")>]
    extern int private madvise(nativeint address, unativeint length, int advice)

    /// MADV_DONTNEED
    [<Literal>]
    let private DontNeed = 4

    /// Bytes of one file that may stay after they were read: 64 MiB.
    let allowance: int64 = 64L <<< 20

    /// Bytes that touching one row brings at most beside the row: the system maps the pages around it, too.
    let private around = 64L <<< 10

    let private known = ConditionalWeakTable<torch.Tensor, FilePages>()

    /// Takes note that a contiguous tensor with numbers lies over a file that is mapped for reading.
    let internal note (t: torch.Tensor) : torch.Tensor =
        use one = t.view(-1L).narrow(0L, 0L, 1L)
        let bytes = one.bytes
        let address = &&bytes.GetPinnableReference()
        known.Add(t, FilePages(NativePtr.toNativeInt address, t.NumberOfElements * int64 (t.element_size ())))
        t

    let private giveBack (pages: FilePages) : unit =
        if OperatingSystem.IsLinux() then
            // The first page begins with the file's header.
            let start = pages.First &&& ~~~(nativeint (Environment.SystemPageSize - 1))
            madvise (start, unativeint (int64 (pages.First - start) + pages.Bytes), DontNeed) |> ignore

    /// Gives back what was read of a tensor over a file; of any other tensor nothing. What was changed in place is then as in the file.
    let release (t: torch.Tensor) : unit =
        match known.TryGetValue t with
        | true, pages when not t.IsInvalid -> giveBack pages
        | _ -> ()

    /// The same once more than the allowance was read: `rows` more rows, one after another or (`scattered`) here and there.
    let read (scattered: bool) (rows: int64) (t: torch.Tensor) : unit =
        match known.TryGetValue t with
        | true, pages when not t.IsInvalid ->
            let row = pages.Bytes / max 1L t.shape[0]
            let touched = if scattered then rows * (row + around) else rows * row

            if pages.Exceeds allowance (min touched pages.Bytes) then
                giveBack pages
        | _ -> ()
