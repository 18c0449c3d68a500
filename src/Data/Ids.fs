namespace Cmcl

open System.IO
open System.Text

/// What the rows of an array are called: a text file beside it (`bank.ids.txt` beside `bank.npy`), one id a line.
[<RequireQualifiedAccess>]
module Ids =
    /// The file of ids that belongs to an array's file. As in `Ids.beside "features/vision.npy"`.
    let beside (array: string) : string = string (Path.ChangeExtension(Path.GetFullPath array, "ids.txt"))

    /// Reads the ids of that many rows. Faults: `Missing`; `Unreadable`; `Shape` for another number of lines.
    let read (path: string) (rows: int64) : Result<string[], Fault list> =
        InputFile.readingText "naming rows by their ids" path (fun () ->
            // Strict, so that bytes that are no text are told rather than replaced.
            let lines = File.ReadAllLines(path, UTF8Encoding(false, true))
            // Empty lines at the end are an editor's.
            let ids = lines |> Array.rev |> Array.skipWhile ((=) "") |> Array.rev

            if ids.LongLength = rows then
                Ok ids
            else
                Error [ Fault.Shape($"ids in '{path}'", $"{rows}, one a line for each row of the array", string ids.LongLength) ])
