namespace Cmcl

open System
open System.Globalization
open System.IO
open System.Text.RegularExpressions
open CsvHelper
open TorchSharp

/// Tables of text: separated by commas, semicolons, tabs or bars, with decimal points or commas, in UTF-8 or UTF-16; a number or a
/// bracketed vector (`"[0.1, 0.2]"`, as pandas writes lists and arrays) a field.
[<RequireQualifiedAccess>]
module CsvTable =

    /// How a file is written.
    type private Dialect =
        {
            Separator: char
            DecimalComma: bool
            /// Lines before the header: comments, and Excel's `sep=;`.
            Before: int
        }

    let private opened (path: string) (lines: int) : StreamReader =
        let file = new StreamReader(path, Text.UTF8Encoding(false, true), true)

        for _ in 1..lines do
            file.ReadLine() |> ignore

        file

    let private options (dialect: Dialect) =
        CsvReaderOptions(
            Separator = Nullable dialect.Separator,
            HasHeader = false,
            TrackLineNumbers = true,
            TrimWhitespace = Nullable false,
            MalformedData = CsvMalformedDataHandling.Throw
        )

    let private localNumber = Regex(@"^\s*[+-]?\d+,\d+([eE][+-]?\d+)?\s*$", RegexOptions.CultureInvariant)

    let private number (dialect: Dialect) (text: string) : float32 voption =
        let text = if dialect.DecimalComma then text.Replace(',', '.') else text

        match Single.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture) with
        | true, value -> ValueSome value
        | _ -> ValueNone

    let private isVector (text: string) = text.Contains '[' && text.TrimEnd().TrimEnd(')').EndsWith ']'

    /// The numbers between the brackets of a field; an error says what stands there instead.
    let private vector (text: string) : Result<float32[], string> =
        let inner = text.Substring(text.IndexOf '[').Trim('[', ']', '(', ')', ' ', '\n', '\r')
        let parts = inner.Split([| ','; ' '; '\n'; '\r'; '\t' |], StringSplitOptions.RemoveEmptyEntries)

        let values =
            parts |> Array.map (fun part -> part, Single.TryParse(part, NumberStyles.Float, CultureInfo.InvariantCulture))

        match values |> Array.tryFind (fun (_, (fits, _)) -> not fits) with
        | Some("...", _) -> Error "its vector is cut short by '...', as NumPy prints it; write x.tolist() instead"
        | Some(part, _) -> Error $"'{part}' in a vector is not a number"
        | None -> Ok(values |> Array.map (snd >> snd))

    /// Goes over the rows, the header first: `act` has the row's number (−1 for the header), its line, and its fields. Ends at the first
    /// row that `act` has something against.
    let private rows
        (path: string)
        (dialect: Dialect)
        (act: int64 -> int64 -> string[] -> string option)
        : Result<unit, Fault list> =
        let fault reason = Error [ Fault.Unreadable(path, reason) ]

        Table.reading path (fun () ->
            use file = opened path dialect.Before
            use csv = CsvReader.Create(file, options dialect)
            let mutable row, wrong = -1L, None

            try
                while wrong.IsNone && csv.Read() do
                    let fields = Array.init csv.FieldCount csv.GetString
                    // An empty line is no row.
                    if fields.Length > 1 || fields[0] <> "" then
                        let line = int64 csv.LineNumber + int64 dialect.Before

                        wrong <-
                            act row line fields
                            |> Option.map (fun reason ->
                                (if row < 0L then $"line {line}: {reason}" else $"row {row} (line {line}): {reason}"))

                        row <- row + 1L

                match wrong with
                | Some reason -> fault reason
                | None -> Ok()
            with :? CsvFormatException as e ->
                fault $"line {e.LineNumber}: its quotes do not match")

    let private outsideQuotes (line: string) = Regex.Replace(line, "\"[^\"]*\"?", "")

    /// The dialect of a file by its header and its first row.
    let private dialect (path: string) : Result<Dialect, Fault list> =
        Table.reading path (fun () ->
            use file = opened path 0
            let mutable before, separator, header = 0, None, file.ReadLine() |> string

            while header.StartsWith '#'
                  || header.StartsWith("sep=", StringComparison.OrdinalIgnoreCase)
                  || header = "" && file.Peek() >= 0 do
                if header.StartsWith("sep=", StringComparison.OrdinalIgnoreCase) && header.Length > 4 then
                    separator <- Some header[4]

                before <- before + 1
                header <- file.ReadLine() |> string

            let bare = outsideQuotes header
            let count c = bare |> Seq.filter ((=) c) |> Seq.length
            let separator = separator |> Option.defaultWith (fun () -> List.maxBy count [ ','; ';'; '\t'; '|' ])
            let fields = (file.ReadLine() |> string |> outsideQuotes).Split separator

            Ok
                { Separator = separator
                  DecimalComma = separator <> ',' && fields |> Array.exists localNumber.IsMatch
                  Before = before })

    /// Rows by which a column's kind is told.
    let private probed = 100

    let private kindOf (dialect: Dialect) (fields: string list) : Holds =
        let some = fields |> List.filter ((<>) "")
        let numbers = some |> List.filter (fun f -> (number dialect f).IsSome) |> List.length

        match some with
        | first :: _ when isVector first ->
            match vector first with
            | Ok values when values.Length > 0 -> Holds.Vector(torch.ScalarType.Float32, values.LongLength)
            | Ok _ -> Holds.Other "empty lists"
            | Error reason -> Holds.Other reason
        | _ when numbers > 0 && 2 * numbers > some.Length -> Holds.Number torch.ScalarType.Float32
        | _ -> Holds.Word

    let private read
        (path: string)
        (dialect: Dialect)
        (columns: Column list)
        (names: string list)
        act
        : Result<unit, Fault list> =
        let places = [| for name in names -> columns |> List.findIndex (fun c -> c.Name = name) |]

        let width = places |> Array.sumBy (fun i -> Column.width columns[i])

        let block = int (StreamDraft.blockRows (4L * width)) * int width
        let buffer = ResizeArray<float32>()

        let flush (next: int64) =
            if buffer.Count > 0 then
                use scope = torch.NewDisposeScope()
                let rows = int64 buffer.Count / width
                act (next - rows) (torch.tensor(buffer.ToArray()).reshape(rows, width))
                buffer.Clear()

        let mutable last = 0L

        let add (row: int64) (fields: string[]) (i: int) : string option =
            match columns[i].Holds with
            | Holds.Vector(_, width) ->
                match vector fields[i] with
                | Ok values when values.LongLength = width ->
                    buffer.AddRange values
                    None
                | Ok values -> raise (Ragged(row, width, values.LongLength))
                | Error reason -> Some $"column '{columns[i].Name}': {reason}"
            | _ ->
                match number dialect fields[i] with
                | ValueSome value ->
                    buffer.Add value
                    None
                | ValueNone when fields[i] = "" -> Some $"column '{columns[i].Name}' is empty"
                | ValueNone -> Some $"'{fields[i]}' in column '{columns[i].Name}' is not a number"

        rows path dialect (fun row _ fields ->
            if row < 0L then
                None
            else
                let wrong = places |> Seq.tryPick (add row fields)

                if wrong.IsNone && buffer.Count >= block then
                    flush (row + 1L)

                last <- row + 1L
                wrong)
        |> Result.map (fun () -> flush last)

    /// A file's columns. The first line that is no comment names them; its numbers, as float32, are read when they are asked for.
    let table (path: string) : Result<Table, Fault list> =
        dialect path
        |> Result.bind (fun dialect ->
            let mutable names, count = [||], 0L
            let first = ResizeArray<string[]>()

            rows path dialect (fun row _ fields ->
                if row < 0L then
                    names <- fields |> Array.map _.Trim()
                    let twice = names |> Array.countBy id |> Array.tryFind (fun (_, n) -> n > 1)

                    let isNumber (name: string) =
                        not (Seq.forall Char.IsAsciiDigit name)
                        && fst (Double.TryParse(name, NumberStyles.Float, CultureInfo.InvariantCulture))

                    if 2 * (names |> Array.filter isNumber).Length > names.Length then
                        Some "it has numbers where names of columns are expected; put a line such as id,f0,f1,… in front"
                    else
                        twice |> Option.map (fun (name, _) -> $"its header names '{name}' twice")
                elif fields.Length <> names.Length then
                    Some $"it has {fields.Length} fields instead of {names.Length}"
                else
                    count <- row + 1L

                    if first.Count < probed then
                        first.Add fields

                    None)
            |> Result.bind (fun () ->
                if count = 0L then
                    let what = if names.Length = 0 then "it is empty" else "it has a header but no rows"
                    Error [ Fault.Unreadable(path, what) ]
                else
                    let columns =
                        [ for i, name in Array.indexed names ->
                              { Name = name
                                Holds = kindOf dialect [ for fields in first -> fields[i] ]
                                Rows = count } ]

                    let words (name: string) =
                        let place = columns |> List.findIndex (fun c -> c.Name = name)
                        let found = ResizeArray<string>()

                        rows path dialect (fun row _ fields ->
                            if row >= 0L then
                                found.Add(fields[place].Trim())

                            None)
                        |> Result.map (fun () -> found.ToArray())

                    let separator =
                        match dialect.Separator with
                        | ';' -> "semicolons"
                        | '\t' -> "tabs"
                        | '|' -> "bars"
                        | c -> $"'{c}'"

                    Ok
                        { File = path
                          Columns = columns
                          Notes =
                            [ if dialect.Separator <> ',' then
                                  $"""fields are separated by {separator}{if dialect.DecimalComma then ", with decimal commas" else ""}""" ]
                          Words = words
                          Numbers = read path dialect columns }))
