namespace Cmcl.Encoders

open System
open System.Collections.Generic
open System.IO
open Concentus
open NLayer
open NVorbis
open NVorbis.Contracts
open Cmcl

/// Compressed recordings: Ogg Vorbis (NVorbis), Opus (Concentus), MP3 (NLayer), and by `ffmpeg`, where it is installed, FLAC, AAC and the rest.
[<RequireQualifiedAccess>]
module Compressed =
    exception private Refused of string

    let private refuse reason = raise (Refused reason)

    /// The mean of all channels of frames that lie one after another.
    let private mono (channels: int) (frames: ReadOnlySpan<float32>) : float32[] =
        let samples = Array.zeroCreate (frames.Length / channels)

        for i in 0 .. samples.Length - 1 do
            let mutable sum = 0f

            for channel in 0 .. channels - 1 do
                sum <- sum + frames[i * channels + channel]

            samples[i] <- sum / float32 channels

        samples

    /// The first seconds of what a reader gives piece by piece.
    let private take (seconds: float) (rate: int) (channels: int) (read: float32[] -> int -> int -> int) : Recording =
        if channels < 1 || rate < 100 then
            refuse $"it has {channels} channels at {rate} samples a second, which cannot be read"

        let wanted = int (min (float (Array.MaxLength / 8)) (ceil (seconds * float rate) * float channels))
        let mutable frames: float32[] = Array.zeroCreate (min wanted (rate * channels))
        let mutable count = 0
        let mutable more = true

        while more && count < wanted do
            if count = frames.Length then
                Array.Resize(&frames, min wanted (2 * frames.Length))

            let got = read frames count (frames.Length - count)
            count <- count + max 0 got
            more <- got > 0

        { Rate = rate
          Samples = mono channels (ReadOnlySpan(frames, 0, count - count % channels)) }

    let private vorbis (seconds: float) (path: string) : Recording =
        use reader = new VorbisReader(path)
        reader.ClipSamples <- false
        take seconds reader.SampleRate reader.Channels (fun frames from count -> reader.ReadSamples(frames, from, count))

    let private mp3 (seconds: float) (path: string) : Recording =
        use reader = new MpegFile(path)
        take seconds reader.SampleRate reader.Channels (fun frames from count -> reader.ReadSamples(frames, from, count))

    // ---- Opus (RFC 7845): a header, comments, and packets at 48,000 samples a second ------------------------------------

    let private opusRate = 48000

    /// The longest packet: 120 ms.
    let private longest = opusRate * 120 / 1000

    let private bytesOf (packet: IPacket) : byte[] =
        let bytes = Array.init (packet.BitsRemaining / 8) (fun _ -> byte (packet.ReadBits 8))
        packet.Done()
        bytes

    let private opus (seconds: float) (path: string) : Recording =
        use stream = File.OpenRead path
        use container = new Ogg.ContainerReader(stream, false)
        let mutable packets: IPacketProvider option = None

        container.NewStreamCallback <-
            NewStreamHandler(fun provider ->
                if packets.IsNone then
                    packets <- Some provider

                true)

        let provider =
            match container.TryInit(), packets with
            | true, Some provider -> provider
            | _ -> refuse "it has no stream of Opus packets"

        let next () = provider.GetNextPacket() |> Option.ofObj |> Option.map bytesOf

        match next (), next () with
        | Some head, Some _ when head.Length >= 19 && head[18] = 0uy && head[9] >= 1uy && head[9] <= 2uy ->
            let channels = int head[9]
            let skip = int head[10] ||| (int head[11] <<< 8)
            use decoder = OpusCodecFactory.CreateDecoder(opusRate, channels)
            let wanted = ceil (seconds * float opusRate) + float skip
            let frames = List<float32>()
            let piece: float32[] = Array.zeroCreate (longest * channels)
            let mutable more = true

            while more && float frames.Count < wanted * float channels do
                match next () with
                | Some packet when packet.Length > 0 ->
                    let count = decoder.Decode(ReadOnlySpan packet, Span piece, longest, false)
                    frames.AddRange(ArraySegment(piece, 0, count * channels))
                | Some _ -> ()
                | None -> more <- false

            let all = mono channels (ReadOnlySpan(frames.ToArray()))

            { Rate = opusRate
              Samples = Array.skip (min skip all.Length) all |> Array.truncate (int (min 1e9 (ceil (seconds * float opusRate)))) }
        | Some head, _ when head.Length >= 19 -> refuse "it has more than two channels of Opus, which cannot be read"
        | _ -> refuse "its Opus header is damaged"

    // ---- ffmpeg ------------------------------------------------------------------------------------------------------

    /// How long it may take for one recording.
    let private patience = TimeSpan.FromMinutes 2.0

    let private ffmpegRate = 48000

    let private ffmpeg (seconds: float) (path: string) : Recording =
        // A path, and not an address of some protocol; a file, and nothing that a file refers to.
        let source =
            [ "-nostdin"
              "-v"
              "error"
              "-protocol_whitelist"
              "file,pipe"
              "-t"
              string (decimal seconds)
              "-i"
              "file:" + Path.GetFullPath path ]

        let form = [ "-map"; "0:a:0"; "-ac"; "1"; "-ar"; string ffmpegRate; "-f"; "f32le"; "-" ]

        match Child.run patience (Path.GetTempPath()) [] "ffmpeg" (source @ form) with
        | ChildEnd.NotInstalled ->
            refuse "it is not WAV, Ogg Vorbis, Opus or MP3; install ffmpeg, which decodes others, or convert it beforehand"
        | ChildEnd.TooLong -> refuse $"ffmpeg was still decoding it after {patience.TotalMinutes} minutes"
        | ChildEnd.Ended(0, output, _) ->
            let samples = Array.zeroCreate (output.Length / 4)
            Buffer.BlockCopy(output, 0, samples, 0, samples.Length * 4)
            { Rate = ffmpegRate; Samples = samples }
        | ChildEnd.Ended(_, _, errors) ->
            let said = errors.Trim().Split '\n'
            refuse $"ffmpeg cannot decode it ({said[0].TrimEnd '.'})"

    // ---- which -------------------------------------------------------------------------------------------------------

    /// What decodes a file, by its first bytes.
    let private decoder (head: byte[]) : float -> string -> Recording =
        let has (at: int) (text: string) =
            head.Length >= at + text.Length && Text.Encoding.Latin1.GetString(head, at, text.Length) = text

        // Page header, 27 bytes and one segment's length, then the first packet.
        if has 0 "OggS" && has 28 "OpusHead" then opus
        elif has 0 "OggS" && has 29 "vorbis" then vorbis
        elif has 0 "ID3" || head.Length >= 2 && head[0] = 0xFFuy && head[1] &&& 0xE6uy = 0xE2uy then mp3
        else ffmpeg

    /// Reads the first seconds of a recording. Fault: `Unreadable`.
    let read (seconds: float) (path: string) : Result<Recording, Fault list> =
        let fault reason = Error [ Fault.Unreadable(path, reason) ]

        InputFile.reading "the extraction" path (fun () ->
            try
                let head =
                    use stream = File.OpenRead path
                    let bytes = Array.zeroCreate 64
                    Array.truncate (stream.ReadAtLeast(Span bytes, bytes.Length, false)) bytes

                match decoder head seconds path with
                | recording when recording.Samples.Length = 0 -> fault "it has no samples"
                | recording when recording.Samples |> Array.exists (Single.IsFinite >> not) ->
                    fault "one of its samples is not a finite number"
                | recording -> Ok recording
            with
            | Refused reason -> fault reason
            | :? IOException
            | :? UnauthorizedAccessException -> reraise ()
            // What a decoder finds wrong in a file it says by many kinds of exceptions.
            | e when not (e :? OutOfMemoryException) -> fault $"it is damaged ({Reason.ofException e})")
