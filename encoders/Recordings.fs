namespace Cmcl.Encoders

open System
open System.IO
open Cmcl

/// Recordings as files of any kind that can be read.
[<RequireQualifiedAccess>]
module Recordings =
    /// Reads the first seconds of a recording, whatever it is by its first bytes. Fault: `Unreadable`.
    let read (seconds: float) (path: string) : Result<Recording, Fault list> =
        InputFile.reading "the extraction" path (fun () ->
            let head = Array.zeroCreate 4

            let count =
                use stream = File.OpenRead path
                stream.ReadAtLeast(Span head, head.Length, false)

            if count < head.Length || Text.Encoding.Latin1.GetString head = "RIFF" then
                Wave.read seconds path
            else
                Compressed.read seconds path)
