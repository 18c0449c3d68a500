namespace Cmcl.Encoders

open System
open System.IO
open System.Text
open Cmcl

/// Recordings as files of any kind that can be read.
[<RequireQualifiedAccess>]
module Recordings =
    /// The first bytes of a file as Latin-1.
    let private beginning (path: string) : string =
        use stream = File.OpenRead path
        let head = Array.zeroCreate 12
        Encoding.Latin1.GetString(head, 0, stream.ReadAtLeast(Span head, head.Length, false))

    /// Whether a file begins as recordings do: RIFF WAVE, Ogg, FLAC, MP3.
    let isOne (path: string) : bool =
        let head = beginning path
        let starts (s: string) = head.StartsWith(s, StringComparison.Ordinal)

        starts "RIFF" && head.EndsWith("WAVE", StringComparison.Ordinal)
        || starts "OggS"
        || starts "fLaC"
        || starts "ID3"
        || head.Length > 1 && head[0] = '\u00FF' && head[1] >= '\u00E0'

    /// Reads the first seconds of a recording, whatever it is by its first bytes. Fault: `Unreadable`.
    let read (seconds: float) (path: string) : Result<Recording, Fault list> =
        InputFile.reading "the extraction" path (fun () ->
            let head = beginning path

            // What is too short to say is as good as a WAVE file that breaks off.
            if head.Length < 4 || head.StartsWith("RIFF", StringComparison.Ordinal) then
                Wave.read seconds path
            else
                Compressed.read seconds path)
