namespace Cmcl

open System
open System.Globalization
open System.IO
open CsvHelper

/// Comma-separated tables (RFC 4180): invariant culture, LF, floats in their shortest form that reads back the same.
[<RequireQualifiedAccess>]
module Csv =
    let private invariant = CultureInfo.InvariantCulture

    /// A float as it stands in a table. Example: `Csv.number 0.1 = "0.1"`.
    let number (x: float) = x.ToString("R", invariant)

    /// How many of a text's first characters are `'`, if what follows would be a formula to a spreadsheet and is no number.
    let private quotesOfFormula (text: string) : int option =
        let bare = text.TrimStart '\''
        let isNumber () = fst (Double.TryParse(bare, NumberStyles.Float, invariant))

        if bare <> "" && "=+-@\t\r\n＝＋－＠".Contains bare[0] && not (bare.Length = text.Length && isNumber ()) then
            Some(text.Length - bare.Length)
        else
            None

    /// A field as it stands in a table: what a spreadsheet would take for a formula has a `'` before it, which makes it text there.
    let private harmless (field: string) : string = if (quotesOfFormula field).IsSome then "'" + field else field

    /// The field that `harmless` was given.
    let private plain (field: string) : string =
        match quotesOfFormula field with
        | Some n when n > 0 -> field.Substring 1
        | _ -> field

    /// Writes a header and rows, each as its fields; text that a spreadsheet would take for a formula gets a `'` before it,
    /// which `read` takes away. Example: `Csv.write [ "x" ] (fun x -> [ Csv.number x ]) [ 0.5; 1.0 ] stdout`.
    let write (header: string list) (fields: 'row -> string list) (rows: 'row seq) (writer: TextWriter) : unit =
        use csv = CsvWriter.Create(writer, CsvWriterOptions(NewLine = "\n"), leaveOpen = true)

        for record in Seq.append [ header ] (Seq.map fields rows) do
            csv.WriteRecord [| for field in record -> harmless field |]

    /// How a line's field is read: its text to a value, or (a `FormatException`) what it should have been.
    let field (name: string) (expected: string) (parse: string -> bool * 'a) (text: string) : 'a =
        match parse text with
        | true, value -> value
        | _ -> raise (FormatException $"{name} takes {expected}, not '{text}'")

    /// `field` for a whole number. Example: `Csv.whole "seed" "3" = 3`.
    let whole name = field name "a whole number" (fun text -> Int32.TryParse(text, NumberStyles.AllowLeadingSign, invariant))

    /// `field` for a number. Example: `Csv.real "value" "0.5" = 0.5`.
    let real name = field name "a number" (fun text -> Double.TryParse(text, NumberStyles.Float, invariant))

    /// Faults past this many are not told one by one.
    [<Literal>]
    let private MostFaults = 10

    let private strict =
        CsvReaderOptions(
            Separator = Nullable ',',
            HasHeader = false,
            TrackLineNumbers = true,
            PoolStrings = true,
            TrimWhitespace = Nullable false,
            MalformedData = CsvMalformedDataHandling.Throw
        )

    /// Reads a table with that header. Faults: `Missing`, or `Unreadable` with the line, of which the first ten are told.
    let read (path: string) (header: string list) (parse: string[] -> 'row) : Result<'row list, Fault list> =
        let rows, faults = ResizeArray(), ResizeArray()
        let wrong (line: int64) reason = faults.Add(Fault.Unreadable(path, $"line {line}: {reason}"))

        let file () =
            use file = File.OpenRead path
            use csv = CsvReader.Create(file, strict)
            let record () = Array.init csv.FieldCount (csv.GetString >> plain)

            if not (csv.Read()) || List.ofArray (record ()) <> header then
                let wanted = String.Join(",", header)
                wrong 1L $"expected the header {wanted}"
            else
                while faults.Count < MostFaults && csv.Read() do
                    if csv.FieldCount <> header.Length then
                        wrong csv.LineNumber $"{csv.FieldCount} fields instead of {header.Length}"
                    else
                        try
                            rows.Add(parse (record ()))
                        with :? FormatException as e ->
                            wrong csv.LineNumber e.Message

        InputFile.reading "reading the results" path (fun () ->
            try
                file ()
            with :? CsvFormatException as e ->
                wrong e.LineNumber "its quotes do not match"

            if faults.Count = 0 then Ok(List.ofSeq rows) else Error(List.ofSeq faults))
