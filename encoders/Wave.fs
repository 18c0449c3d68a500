namespace Cmcl.Encoders

open System
open System.Buffers.Binary
open System.IO
open Cmcl

/// A recording: samples a second, and the samples of all channels' mean (float32, from −1 to 1).
type Recording = { Rate: int; Samples: float32[] }

/// RIFF WAVE files: PCM of 8, 16, 24 and 32 bits, floats of 32 and 64.
[<RequireQualifiedAccess>]
module Wave =
    /// What `fmt ` says.
    [<Struct>]
    type private Layout = { Float: bool; Channels: int; Rate: int; Bits: int }

    exception private Refused of string

    let private refuse reason = raise (Refused reason)

    let private layout (chunk: byte[]) : Layout =
        if chunk.Length < 16 then
            refuse "its 'fmt ' chunk is too short"

        let u16 (at: int) = int (BinaryPrimitives.ReadUInt16LittleEndian(ReadOnlySpan(chunk, at, 2)))
        // What is extensible has the format that it extends at the begin of a GUID.
        let tag = if u16 0 = 0xFFFE && chunk.Length >= 26 then u16 24 else u16 0
        let channels, bits = u16 2, u16 14
        let rate = BinaryPrimitives.ReadUInt32LittleEndian(ReadOnlySpan(chunk, 4, 4))

        match tag, bits with
        | 1, (8 | 16 | 24 | 32)
        | 3, (32 | 64) when channels > 0 && rate >= 100u && rate <= 768000u ->
            { Float = tag = 3
              Channels = channels
              Rate = int rate
              Bits = bits }
        | (1 | 3), _ -> refuse $"it has {channels} channels of {bits} bits at {rate} samples a second, which cannot be read"
        | _ -> refuse $"its samples are coded (format {tag}); PCM and floats can be read"

    let private sample (l: Layout) (bytes: ReadOnlySpan<byte>) : float32 =
        match l.Float, l.Bits with
        | true, 32 -> BinaryPrimitives.ReadSingleLittleEndian bytes
        | true, _ -> float32 (BinaryPrimitives.ReadDoubleLittleEndian bytes)
        | _, 8 -> (float32 bytes[0] - 128f) / 128f
        | _, 16 -> float32 (BinaryPrimitives.ReadInt16LittleEndian bytes) / 32768f
        | _, 24 ->
            let value = (int bytes[0] <<< 8) ||| (int bytes[1] <<< 16) ||| (int bytes[2] <<< 24)
            float32 (value >>> 8) / 8388608f
        | _ -> float32 (float (BinaryPrimitives.ReadInt32LittleEndian bytes) / 2147483648.0)

    /// The mean of all channels of the first frames.
    let private mono (l: Layout) (data: byte[]) : float32[] =
        let width = l.Bits / 8
        let samples = Array.zeroCreate (data.Length / (width * l.Channels))

        for frame in 0 .. samples.Length - 1 do
            let mutable sum = 0f

            for channel in 0 .. l.Channels - 1 do
                sum <- sum + sample l (ReadOnlySpan(data, (frame * l.Channels + channel) * width, width))

            samples[frame] <- sum / float32 l.Channels

        samples

    let private take (stream: IO.Stream) (count: int) : byte[] =
        let bytes = Array.zeroCreate count

        if stream.ReadAtLeast(Span bytes, count, false) < count then
            refuse "it breaks off"

        bytes

    let private tag (bytes: byte[]) (at: int) = Text.Encoding.Latin1.GetString(bytes, at, 4)

    let private chunks (seconds: float) (stream: IO.Stream) : int * float32[] =
        let start = take stream 12

        if tag start 0 <> "RIFF" || tag start 8 <> "WAVE" then
            refuse "it is not a RIFF WAVE file"

        let mutable found = None
        let mutable samples = None

        while samples.IsNone do
            if stream.Length - stream.Position < 8L then
                refuse "it has no samples (no 'data' chunk)"

            let head = take stream 8
            let size = int64 (BinaryPrimitives.ReadUInt32LittleEndian(ReadOnlySpan(head, 4, 4)))
            let left = stream.Length - stream.Position

            if size > left then
                refuse $"its '{tag head 0}' chunk promises {size} bytes, but only {left} follow"

            match tag head 0, found with
            | "fmt ", _ -> found <- Some(layout (take stream (int (min size 64L))))
            | "data", None -> refuse "its samples come before their format"
            | "data", Some l ->
                // No more than is asked for, and whole frames of it.
                let frame = int64 (l.Channels * l.Bits / 8)
                let wanted = int64 (ceil (seconds * float l.Rate)) * frame
                let bytes = min wanted size / frame * frame

                if bytes > int64 Array.MaxLength then
                    refuse "it has more samples than can be read at once"

                samples <- Some(l.Rate, mono l (take stream (int bytes)))
            | _ -> ()

            // Chunks begin at even places.
            if samples.IsNone then
                let past = stream.Position - (if tag head 0 = "fmt " then min size 64L else 0L) + size
                stream.Position <- min stream.Length (past + size % 2L)

        samples.Value

    /// Reads the first seconds of a recording. Fault: `Unreadable`.
    let read (seconds: float) (path: string) : Result<Recording, Fault list> =
        let fault reason = Error [ Fault.Unreadable(path, reason) ]

        InputFile.reading "the extraction" path (fun () ->
            try
                use stream = File.OpenRead path
                let rate, samples = chunks seconds stream

                match samples |> Array.tryFindIndex (Single.IsFinite >> not) with
                | Some at -> fault $"sample {at} is not a finite number"
                | None when samples.Length = 0 -> fault "it has no samples"
                | None -> Ok { Rate = rate; Samples = samples }
            with Refused reason ->
                fault reason)
