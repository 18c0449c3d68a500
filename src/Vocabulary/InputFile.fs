namespace Cmcl

open System
open System.Collections.Generic
open System.Formats.Tar
open System.IO
open System.Runtime.InteropServices
open System.Text
open System.Text.Json

/// The one door for files that others have written: what is no file is told before it is opened, and what goes wrong while one is read
/// becomes a fault.
[<RequireQualifiedAccess>]
module InputFile =
    /// The most bytes of a text or a JSON file, which is held whole.
    let mostText = 256L <<< 20

    /// What is said of a file for which memory does not suffice.
    [<Literal>]
    let NoMemory = "there is not enough memory for it"

    /// Where links lead in the end; a path that is no link is its own end.
    let private target (path: string) : FileInfo =
        match File.ResolveLinkTarget(path, true) with
        | null -> FileInfo path
        | file -> FileInfo file.FullName

    /// Whether what is there is a file, and no pipe, device or socket, without opening those. They have no length; what has none is looked at
    /// as an archive would, .NET's only way to tell.
    let isRegular (path: string) : bool =
        let file = target path

        file.Exists
        && (file.Length > 0L
            || (use archive = new MemoryStream()

                try
                    do
                        use writer = new TarWriter(archive, leaveOpen = true)
                        writer.WriteEntry(file.FullName, "file")

                    archive.Position <- 0L
                    use reader = new TarReader(archive)

                    match reader.GetNextEntry() with
                    | null -> false
                    | entry -> entry.EntryType = TarEntryType.RegularFile
                with :? IOException ->
                    // A socket.
                    false))

    /// Whether a path leads to a file with something in it. A pipe would be waited for, and a device would never end. Faults: `Missing`,
    /// `Unreadable`.
    let check (neededBy: string) (path: string) : Result<unit, Fault list> =
        let unreadable reason = Error [ Fault.Unreadable(path, reason) ]

        try
            if path = "" || path.Contains '\000' then
                Error [ Fault.BadValue("the path of a file", "a text without NUL", path) ]
            elif Directory.Exists path then
                unreadable "it is a folder"
            elif not (Path.Exists path) then
                // The last part of it may be a link that leads nowhere, or to itself.
                match FileInfo(path).LinkTarget with
                | null -> Error [ Fault.Missing(path, neededBy) ]
                | goal -> unreadable $"it is a link to '{goal}', where there is nothing"
            else if not (isRegular path) then
                unreadable "it is no file, but a pipe, a device or a socket"
            elif (target path).Length = 0L then
                unreadable "it is empty"
            else
                Ok()
        with
        | :? IOException
        | :? UnauthorizedAccessException
        | :? ArgumentException
        | :? NotSupportedException as e -> unreadable e.Message

    /// What `act` makes of a file, once that is checked. What the system refuses, text that is not UTF-8, JSON that is none and memory that
    /// there is not are `Unreadable`.
    let reading (neededBy: string) (path: string) (act: unit -> Result<'a, Fault list>) : Result<'a, Fault list> =
        let unreadable (reason: string) = Error [ Fault.Unreadable(path, reason) ]

        check neededBy path
        |> Result.bind (fun () ->
            try
                act ()
            with
            | :? FileNotFoundException
            | :? DirectoryNotFoundException -> Error [ Fault.Missing(path, neededBy) ]
            | :? DecoderFallbackException -> unreadable "it is not UTF-8 text"
            | :? JsonException as e -> unreadable $"it is not valid JSON: {e.Message}"
            | :? OutOfMemoryException
            | :? ExternalException -> unreadable NoMemory
            | :? IOException
            | :? InvalidDataException
            | :? UnauthorizedAccessException
            | :? NotSupportedException as e -> unreadable e.Message)

    /// `reading`, of a file of at most `mostText` bytes.
    let readingText (neededBy: string) (path: string) (act: unit -> Result<'a, Fault list>) : Result<'a, Fault list> =
        reading neededBy path (fun () ->
            let length = (target path).Length

            if length > mostText then
                Error [ Fault.Unreadable(path, $"it has {length} bytes; {mostText} are the most of such a file") ]
            else
                act ())

    /// The text of a file.
    let text (neededBy: string) (path: string) : Result<string, Fault list> =
        readingText neededBy path (fun () -> Ok(File.ReadAllText path))

    /// What `read` makes of a file's JSON; of JSON of another shape it may raise what `JsonElement` raises. `kind` says what the file should
    /// be, such as `the record of a run`.
    let json (neededBy: string) (kind: string) (read: JsonElement -> 'a) (path: string) : Result<'a, Fault list> =
        readingText neededBy path (fun () ->
            use document = JsonDocument.Parse(File.ReadAllText path)

            try
                Ok(read document.RootElement)
            with
            | :? KeyNotFoundException
            | :? InvalidOperationException
            | :? FormatException
            | :? OverflowException
            | :? ArgumentException -> Error [ Fault.Unreadable(path, $"it is not {kind}") ])
