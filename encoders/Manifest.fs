namespace Cmcl.Encoders

open System
open System.Collections.Generic
open System.IO
open System.Security.Cryptography
open System.Text.Json
open System.Text.RegularExpressions
open CsvHelper
open Cmcl

/// One item to be encoded.
type Item =
    {
        /// Where it stands in the manifest, from 1.
        Line: int64
        Id: string
        /// The full path of a file, or the text itself.
        Source: string
        /// Empty for none.
        Label: string
        /// The SHA-256 that the file has to have, in lower case; empty for any.
        Sum: string
    }

/// The list of what is to be encoded: CSV with a header, or JSON objects one a line; `id`, `path` or `text`, and if wanted `label` and `sha256`.
[<RequireQualifiedAccess>]
module Manifest =
    /// Faults past this many are counted, not told one by one.
    let private mostFaults = 20

    let private known = [ "id"; "path"; "text"; "label"; "sha256" ]

    let private strict =
        CsvReaderOptions(
            Separator = Nullable ',',
            HasHeader = false,
            TrackLineNumbers = true,
            TrimWhitespace = Nullable false,
            MalformedData = CsvMalformedDataHandling.Throw
        )

    /// A line as its fields by name, or what is wrong with it.
    type private Read = (int64 * Result<Map<string, string>, string>) list

    let private ofCsv (file: string) : Read =
        use stream = File.OpenRead file
        use csv = CsvReader.Create(stream, strict)
        let record () = Array.init csv.FieldCount csv.GetString

        if not (csv.Read()) then
            [ 1L, Error "there is no header" ]
        else
            // A byte order mark belongs to no name.
            let header = record () |> Array.map (fun name -> name.Trim('\uFEFF', ' '))

            match header |> Array.tryFind (fun name -> not (List.contains name known)) with
            | Some name ->
                let names = String.Join(", ", known)
                [ 1L, Error $"the header has '{name}'; the columns are {names}" ]
            | None when (Array.distinct header).Length < header.Length -> [ 1L, Error "the header has a name twice" ]
            | None ->
                [ while csv.Read() do
                      csv.LineNumber,
                      if csv.FieldCount <> header.Length then
                          Error $"{csv.FieldCount} fields instead of {header.Length}"
                      else
                          Ok(Map(Array.zip header (record ()))) ]

    let private ofJson (file: string) : Read =
        let line (text: string) =
            try
                use document = JsonDocument.Parse text
                let json = document.RootElement

                if json.ValueKind <> JsonValueKind.Object then
                    Error "it is not a JSON object"
                else
                    let fields = [ for e in json.EnumerateObject() -> e.Name, e.Value ]

                    match fields |> List.tryFind (fun (name, _) -> not (List.contains name known)), fields with
                    | Some(name, _), _ -> Error $"""an unknown key '{name}'; known are {String.Join(", ", known)}"""
                    | None, fields when (List.distinctBy fst fields).Length < fields.Length -> Error "a key twice"
                    | None, fields ->
                        match fields |> List.tryFind (fun (_, value) -> value.ValueKind <> JsonValueKind.String) with
                        | Some(name, _) -> Error $"'{name}' is not a text"
                        | None -> Ok(Map [ for name, value in fields -> name, string (value.GetString()) ])
            with
            | :? JsonException
            | :? InvalidOperationException -> Error "it is not valid JSON"

        [ for i, text in Seq.indexed (File.ReadLines file) do
              if text.Trim() <> "" then
                  int64 (i + 1), line text ]

    let internal wrong (file: string) (line: int64) (reason: string) : Fault = Fault.Unreadable(file, $"line {line}: {reason}")

    /// What reading makes of a file, where its quotes match.
    let private quoted (file: string) (read: unit -> Result<'a, Fault list>) : Result<'a, Fault list> =
        try
            read ()
        with :? CsvFormatException as e ->
            Error [ wrong file e.LineNumber "its quotes do not match" ]

    let private item (wanted: string) (folder: string) (line: int64) (fields: Map<string, string>) : Result<Item, string> =
        let field name = Map.tryFind name fields |> Option.defaultValue ""

        match field "id", field wanted with
        | "", _ -> Error "there is no id"
        | id, _ when id.IndexOfAny [| '\n'; '\r' |] >= 0 -> Error "its id has more than one line"
        | id, _ when not (Names.isClean id && Names.isClean (field "label")) ->
            Error "its id or its label has a control character"
        | id, source when wanted = "path" && source.Contains '\000' -> Error $"the path of '{id}' has a NUL"
        | id, "" -> Error $"'{id}' has no {wanted}, which this encoder takes"
        | id, _ when field "sha256" <> "" && not (Regex.IsMatch(field "sha256", "^[0-9a-fA-F]{64}$")) ->
            Error $"the sha256 of '{id}' is not 64 hexadecimal digits"
        | id, source ->
            Ok
                { Line = line
                  Id = id
                  Source = if wanted = "path" then Path.GetFullPath(Path.Combine(folder, source)) else source
                  Label = field "label"
                  Sum = (field "sha256").ToLowerInvariant() }

    /// Reads the items that an encoder of this kind takes: paths (relative to the manifest) of images and recordings, or texts.
    /// Faults: `Missing`; `Unreadable` with the line, the first twenty of them and how many more there are.
    let read (input: Input) (file: string) : Result<Item list, Fault list> =
        let wanted =
            match input with
            | Input.Text _ -> "text"
            | _ -> "path"

        let folder = string (Path.GetDirectoryName(Path.GetFullPath file))

        let read () =
            let read = if (string (Path.GetExtension file)).ToLowerInvariant() = ".csv" then ofCsv file else ofJson file

            let items = [ for line, fields in read -> line, fields |> Result.bind (item wanted folder line) ]

            let seen = Dictionary<string, int64>()

            let faults =
                [ for line, result in items do
                      match result with
                      | Error reason -> wrong file line reason
                      | Ok item ->
                          if not (seen.TryAdd(item.Id, line)) then
                              wrong file line $"'{item.Id}' is the id of line {seen[item.Id]} already" ]

            match faults with
            | [] when items.IsEmpty -> Error [ Fault.Unreadable(file, "it names nothing to encode") ]
            | [] ->
                Ok
                    [ for _, result in items do
                          match result with
                          | Ok item -> item
                          | Error _ -> () ]
            | faults when faults.Length > mostFaults ->
                Error(
                    List.truncate mostFaults faults
                    @ [ Fault.Unreadable(file, $"{faults.Length - mostFaults} more lines are wrong") ]
                )
            | faults -> Error faults

        InputFile.readingText "encoding what it names" file (fun () -> quoted file read)

    /// The lines of a manifest in CSV by number, as fields by name, none of them checked. Faults: `Missing`; `Unreadable` with the first line that is
    /// no such line, as `wrong` says it.
    let internal fields (neededBy: string) (file: string) : Result<(int64 * Map<string, string>) list, Fault list> =
        InputFile.readingText neededBy file (fun () ->
            quoted file (fun () ->
                let rec all sofar left =
                    match left with
                    | [] -> Ok(List.rev sofar)
                    | (line, Ok fields) :: rest -> all ((line, fields) :: sofar) rest
                    | (line, Error reason) :: _ -> Error [ wrong file line reason ]

                all [] (ofCsv file)))

    /// Items whose file is not there, as faults with the line. What is there and is no file is told when it is read.
    let missing (file: string) (items: Item list) : (Item * Fault) list =
        [ for item in items do
              if not (Path.Exists item.Source) then
                  item, Fault.Missing(item.Source, $"line {item.Line} of '{file}'") ]

    /// Refuses an item whose file has another SHA-256 than the manifest says. Fault: `Unreadable`.
    let checkSum (item: Item) : Result<unit, Fault list> =
        if item.Sum = "" then
            Ok()
        else
            InputFile.reading "the extraction" item.Source (fun () ->
                use stream = File.OpenRead item.Source
                let sum = Convert.ToHexStringLower(SHA256.HashData stream)

                if sum = item.Sum then
                    Ok()
                else
                    Error
                        [ Fault.Unreadable(
                              item.Source,
                              $"its SHA-256 is {sum}, and line {item.Line} of the manifest says {item.Sum}"
                          ) ])
