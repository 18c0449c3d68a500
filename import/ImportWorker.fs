namespace Cmcl

open System
open System.Collections.Concurrent
open System.IO
open System.Text.Json
open System.Threading

/// An import as the process that is to run it is told of it: one line of JSON.
[<RequireQualifiedAccess>]
type ImportRequest =
    { Format: string
      Source: string
      Out: string
      Options: ImportOptions
      Treatment: Treatment
      Force: bool }

/// What a worker tells of an import, a line each.
[<RequireQualifiedAccess>]
type ImportAnswer =
    | Event of ImportEvent
    /// The stream is written; what is worth telling.
    | Done of notes: string list
    /// Nothing is written; a sentence for each fault.
    | Refused of sentences: string list
    /// Nothing is written: this file asked for more memory than .NET was allowed.
    | NoMemory of file: string

/// The process in which an import runs, so that what a file does to its reader is done to no one else.
[<RequireQualifiedAccess>]
module ImportWorker =
    /// The most characters of a sentence, and of a note.
    [<Literal>]
    let MostOfSentence = 600

    [<Literal>]
    let private MostOfNote = 2000

    /// Faults past this many are not told one by one.
    [<Literal>]
    let private MostFaults = 200

    /// A text for one line, of at most so many characters: what is too long loses some of its middle, since the file stands at the front
    /// of a sentence and the way out at its end.
    let cut (most: int) (text: string) : string =
        let text = Names.visible text

        if text.Length <= most then
            text
        else
            let front = most * 2 / 3
            let back = text.Length - (most - front - 3)
            // No half of a character.
            let front = if Char.IsHighSurrogate text[front - 1] then front - 1 else front
            let back = if Char.IsLowSurrogate text[back] then back + 1 else back
            $"{text.Substring(0, front)} … {text.Substring back}"

    // ---- lines -------------------------------------------------------------------------------------------------------

    let ofRequest (request: ImportRequest) : string = JsonSerializer.Serialize request

    /// A list of texts: what it is, and what it says.
    let ofAnswer (answer: ImportAnswer) : string =
        JsonSerializer.Serialize(
            match answer with
            | ImportAnswer.Event(ImportEvent.Reading file) -> [ "reading"; file ]
            | ImportAnswer.Event(ImportEvent.Rows(file, sofar, all)) -> [ "rows"; string sofar; string all; file ]
            | ImportAnswer.Done notes -> "done" :: List.map (cut MostOfNote) notes
            | ImportAnswer.Refused sentences -> "refused" :: List.map (cut MostOfSentence) sentences
            | ImportAnswer.NoMemory file -> [ "memory"; file ]
        )

    /// None for a line that is none: a library may have its own to say.
    let answer (line: string) : ImportAnswer option =
        match Child.line<string list> line with
        | Some [ "reading"; file ] -> Some(ImportAnswer.Event(ImportEvent.Reading file))
        | Some [ "rows"; sofar; all; file ] ->
            match Int64.TryParse sofar, Int64.TryParse all with
            | (true, sofar), (true, all) -> Some(ImportAnswer.Event(ImportEvent.Rows(file, sofar, all)))
            | _ -> None
        | Some("done" :: notes) -> Some(ImportAnswer.Done(List.map (cut MostOfNote) notes))
        | Some("refused" :: (_ :: _ as sentences)) -> Some(ImportAnswer.Refused(List.map (cut MostOfSentence) sentences))
        | Some [ "memory"; file ] -> Some(ImportAnswer.NoMemory file)
        | _ -> None

    // ---- the import --------------------------------------------------------------------------------------------------

    let private words (faults: Fault list) : ImportAnswer =
        match
            faults
            |> List.tryPick (function
                | Fault.Unreadable(path, InputFile.NoMemory) -> Some path
                | _ -> None)
        with
        | Some path -> ImportAnswer.NoMemory path
        | None ->
            let all = faults |> List.collect (fun fault -> List.ofSeq fault.Sentences)
            let more = if all.Length > MostFaults then [ $"and {all.Length - MostFaults} more like these." ] else []
            ImportAnswer.Refused(List.truncate MostFaults all @ more)

    /// Runs an import; whatever a reader raises is told as a fault of the file that it read.
    let private import (tell: ImportAnswer -> unit) (request: ImportRequest) : ImportAnswer =
        let mutable file = request.Source

        let hear event =
            match event with
            | ImportEvent.Reading now
            | ImportEvent.Rows(now, _, _) -> file <- now

            tell (ImportAnswer.Event event)

        try
            match
                Importer.find request.Format
                |> Result.bind (fun importer ->
                    Importer.run importer request.Options request.Treatment request.Force hear request.Source request.Out)
            with
            | Ok notes -> ImportAnswer.Done notes
            | Error faults -> words faults
        with e ->
            match Check.cause e with
            | :? OutOfMemoryException -> ImportAnswer.NoMemory file
            | CmclException fault -> words [ fault ]
            | cause ->
                words [ Fault.Unreadable(file, $"its reader broke off: {cause.Message.TrimEnd '.'} ({cause.GetType().Name})") ]

    /// Runs the imports that `input` asks for, a line each, and tells of them on `output`. The end of `input` means that nobody waits for an
    /// answer: in the midst of an import what is written of it is removed and `alone` is called at once.
    let serve (input: TextReader) (output: TextWriter) (alone: unit -> unit) : unit =
        use requests = new BlockingCollection<string>()
        let mutable out: string option = None

        let listen () =
            Seq.initInfinite (fun _ -> input.ReadLine() |> Option.ofObj)
            |> Seq.takeWhile _.IsSome
            |> Seq.iter (Option.iter requests.Add)

            // The import may write on while its folder goes.
            for _ in 1..5 do
                try
                    Option.iter (StreamWriter.sweep Environment.ProcessId) out
                with
                | :? IOException
                | :? UnauthorizedAccessException -> Thread.Sleep 10

            if out.IsSome then
                alone ()

            requests.CompleteAdding()

        Thread(listen, IsBackground = true).Start()

        let tell (answer: ImportAnswer) =
            // A library may have left a line of its own unended.
            output.Write $"\n{ofAnswer answer}\n"
            output.Flush()

        for line in requests.GetConsumingEnumerable() do
            match Child.line<ImportRequest> line with
            | None -> tell (ImportAnswer.Refused [ $"a worker cannot read '{line}'." ])
            | Some request ->
                out <- Some request.Out
                let answer = import tell request
                out <- None
                tell answer
