namespace Cmcl

open System
open System.IO
open CsvHelper

/// What a row of a bank was made from: a file (a picture, a recording), a text, or a file with a text beside it.
type BankItem =
    {
        Id: string
        /// The full path of the file.
        Path: string option
        Text: string option
    }

/// The items of banks, in a folder beside a stream: for each bank a CSV of the form that `cmcl extract` takes, one line a row of the bank, in
/// the bank's order.
[<RequireQualifiedAccess>]
module BankItems =
    /// The folder within a stream's that `cmcl gallery` looks in.
    [<Literal>]
    let Folder = "items"

    let private known = [ "id"; "path"; "text"; "label"; "sha256" ]

    /// The name of a bank's file: `-` stands for all but letters, digits, `-`, `_` and `.`. Example: `BankItems.file "vision:noto" = "vision-noto.csv"`.
    let file (bank: string) : string =
        let name = bank |> String.map (fun c -> if Char.IsLetterOrDigit c || "-_.".Contains c then c else '-')
        name + ".csv"

    let private options =
        CsvReaderOptions(
            Separator = Nullable ',',
            HasHeader = false,
            TrackLineNumbers = true,
            TrimWhitespace = Nullable false,
            MalformedData = CsvMalformedDataHandling.Throw
        )

    /// What is wrong with a header.
    let private unfit (header: string[]) : string option =
        let has name = Array.contains name header

        match header |> Array.tryFind (fun name -> not (List.contains name known)) with
        | Some name -> Some $"""the header has '{name}'; the columns are {String.Join(", ", known)}"""
        | None when (Array.distinct header).Length < header.Length -> Some "the header has a name twice"
        | None when not (has "id" && (has "path" || has "text")) -> Some "the header has to name id, and path or text"
        | None -> None

    let private item (folder: string) (header: string[]) (fields: string[]) : BankItem =
        let field name =
            match Array.tryFindIndex ((=) name) header with
            | Some i when fields[i] <> "" -> Some fields[i]
            | _ -> None

        { Id = Option.defaultValue "" (field "id")
          Path = field "path" |> Option.map (fun path -> Path.GetFullPath(Path.Combine(folder, path)))
          Text = field "text" }

    let private lines (path: string) : Result<BankItem[], Fault list> =
        let folder = string (Path.GetDirectoryName(Path.GetFullPath path))
        let wrong (line: int64) reason = Error [ Fault.Unreadable(path, $"line {line}: {reason}") ]
        use stream = File.OpenRead path
        use csv = CsvReader.Create(stream, options)
        let record () = Array.init csv.FieldCount csv.GetString
        // A byte order mark belongs to no name.
        let header = if csv.Read() then record () |> Array.map (fun name -> name.Trim('\uFEFF', ' ')) else [||]
        let found = ResizeArray()
        let mutable fault = unfit header |> Option.map (wrong 1L)

        while fault.IsNone && csv.Read() do
            let fields = record ()

            if fields.Length <> header.Length then
                fault <- Some(wrong csv.LineNumber $"{fields.Length} fields instead of {header.Length}")
            elif fields |> Array.exists (fun field -> field.Contains '\000') then
                fault <- Some(wrong csv.LineNumber "there is a NUL in it")
            else
                found.Add(item folder header fields)

        fault |> Option.defaultWith (fun () -> Ok(found.ToArray()))

    /// The items of a bank with so many rows; None where the folder has no file of it. Faults: `Unreadable` with the line, `Shape` for more
    /// or fewer lines than rows.
    let read (folder: string) (bank: string) (rows: int64) : Result<BankItem[] option, Fault list> =
        let path = Path.Combine(folder, file bank)

        if not (File.Exists path) then
            Ok None
        else
            InputFile.readingText "the gallery" path (fun () ->
                try
                    lines path
                with :? CsvFormatException as e ->
                    Error [ Fault.Unreadable(path, $"line {e.LineNumber}: its quotes do not match") ])
            |> Result.bind (fun items ->
                if items.LongLength = rows then
                    Ok(Some items)
                else
                    Error
                        [ Fault.Shape(
                              $"the items in '{path}'",
                              $"{rows} lines, one for each row of bank '{bank}'",
                              string items.LongLength
                          ) ])
