namespace Cmcl

open System
open System.Globalization
open System.IO
open CsvHelper
open TorchSharp

/// Features in comma-separated files: a header with `id`, `label` if wanted, and one name for every feature.
[<RequireQualifiedAccess>]
module CsvTable =

    let private options =
        CsvReaderOptions(
            Separator = Nullable ',',
            HasHeader = false,
            TrackLineNumbers = true,
            TrimWhitespace = Nullable false,
            MalformedData = CsvMalformedDataHandling.Throw
        )

    /// Where the columns are: the id, the label, the features.
    type private Columns = { Id: int; Label: int option; Features: int[] }

    let private columns (names: string[]) : Result<Columns, string> =
        let find name = names |> Array.tryFindIndex (fun n -> n = name)

        let features =
            [| for i in 0 .. names.Length - 1 do
                   if names[i] <> "id" && names[i] <> "label" then
                       i |]

        let repeated = names |> Array.countBy id |> Array.tryFind (fun (_, n) -> n > 1)

        match find "id", repeated with
        | _, Some(name, _) -> Error $"its header names '{name}' twice"
        | None, _ -> Error "its header has no 'id'; id,label,f0,f1,… is expected, the label may be left out"
        | Some _, _ when features.Length = 0 ->
            Error "its header names no features; id,label,f0,f1,… is expected, the label may be left out"
        | Some i, _ -> Ok { Id = i; Label = find "label"; Features = features }

    /// Passes over the rows of a file, `act` on each: its number from 0, its fields by place.
    let private rows
        (path: string)
        (act: Columns -> int64 -> (int -> string) -> Result<unit, string>)
        : Result<Columns * int64, Fault list> =
        let fault reason = Error [ Fault.Unreadable(path, reason) ]

        let read () =
            use file = new StreamReader(path, Text.UTF8Encoding(false, true))
            use csv = CsvReader.Create(file, options)

            if not (csv.Read()) then
                fault "it is empty"
            else
                match columns (Array.init csv.FieldCount csv.GetString) with
                | Error reason -> fault reason
                | Ok columns ->
                    let width = csv.FieldCount
                    let mutable row, wrong = 0L, None

                    while wrong.IsNone && csv.Read() do
                        if csv.FieldCount <> width then
                            wrong <- Some $"row {row} (line {csv.LineNumber}) has {csv.FieldCount} fields instead of {width}"
                        else
                            match act columns row csv.GetString with
                            | Ok() -> row <- row + 1L
                            | Error reason -> wrong <- Some $"row {row} (line {csv.LineNumber}): {reason}"

                    match wrong with
                    | Some reason -> fault reason
                    | None when row = 0L -> fault "it has a header but no rows"
                    | None -> Ok(columns, row)

        InputFile.reading "the import" path (fun () ->
            try
                read ()
            with :? CsvFormatException as e ->
                fault $"line {e.LineNumber}: its quotes do not match")

    let private number (text: string) : bool * float32 = Single.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture)

    let private read (path: string) (count: int) (act: int64 -> torch.Tensor -> unit) : Result<unit, Fault list> =
        let size = int (Draft.blockRows (4L * int64 count))
        let buffer = ResizeArray<float32>()

        let flush (next: int64) =
            if buffer.Count > 0 then
                use scope = torch.NewDisposeScope()
                let rows = int64 (buffer.Count / count)
                act (next - rows) (torch.tensor(buffer.ToArray()).reshape(rows, int64 count))
                buffer.Clear()

        rows path (fun columns row field ->
            let mutable wrong = None

            for i in columns.Features do
                match number (field i) with
                | true, value -> buffer.Add value
                | _ ->
                    if wrong.IsNone then
                        wrong <- Some $"'{field i}' is not a number"

            if wrong.IsNone && buffer.Count >= size * count then
                flush (row + 1L)

            match wrong with
            | None -> Ok()
            | Some reason -> Error reason)
        |> Result.map (fun (_, rows) -> flush rows)

    /// A file's ids, labels and size; its numbers, as float32, when they are asked for.
    let table (path: string) : Result<FeatureTable, Fault list> =
        let ids, labels = ResizeArray(), ResizeArray()

        rows path (fun columns _ field ->
            let own = field columns.Id :: [ for i in Option.toList columns.Label -> field i ]
            ids.Add own.Head
            labels.AddRange own.Tail

            if own.Head = "" then Error "it has no id"
            elif List.forall Names.isClean own then Ok()
            else Error "its id or its label has a line break or another control character")
        |> Result.map (fun (columns, count) ->
            { File = path
              Type = torch.ScalarType.Float32
              Rows = count
              Columns = int64 columns.Features.Length
              Ids = Some(ids.ToArray())
              Labels = if columns.Label.IsSome then Some(labels.ToArray()) else None
              Read = read path columns.Features.Length })
