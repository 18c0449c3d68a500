namespace Cmcl

open System
open TorchSharp

/// Features in Parquet: a column `id` of texts or integers, a column with a list of float32 or float64 in each row, and, if wanted,
/// a column `label`.
[<RequireQualifiedAccess>]
module ParquetTable =

    type private Columns =
        { Id: ParquetFile.Column
          Label: ParquetFile.Column option
          Features: ParquetFile.Column }

    let private columns (path: string) (file: ParquetFile.File) : Result<Columns, Fault list> =
        let all = ParquetFile.columns file
        let names = String.Join(", ", all |> List.map (fun c -> c.Path.Head) |> List.distinct)
        let fault reason = Error [ Fault.Unreadable(path, $"{reason}; its columns are {names}") ]
        let floats = [ ParquetFile.float32'; ParquetFile.float64' ]
        let words = [ ParquetFile.text; ParquetFile.int32; ParquetFile.int64' ]
        let single name = all |> List.tryFind (fun c -> c.Path = [ name ])

        match single "id", single "label", all |> List.filter (fun c -> c.Repetition = 1 && List.contains c.Type floats) with
        | None, _, _ -> fault "it has no column 'id'"
        | Some id, _, _ when id.Repetition > 0 || not (List.contains id.Type words) ->
            fault "its column 'id' is neither of texts nor of integers"
        | _, Some label, _ when label.Repetition > 0 || not (List.contains label.Type words) ->
            fault "its column 'label' is neither of texts nor of integers"
        | _, _, [] -> fault "it has no column with a list of float32 or float64 in each row"
        | Some id, label, [ features ] -> Ok { Id = id; Label = label; Features = features }
        | _ -> fault "it has several columns with lists of floats; leave one"

    let private typeOf (features: ParquetFile.Column) =
        if features.Type = ParquetFile.float32' then torch.ScalarType.Float32 else torch.ScalarType.Float64

    /// The first row that is not as long as the first: its number and its length; or how long they all are.
    let private lengths (file: ParquetFile.File) (features: ParquetFile.Column) : Result<int64, int64 * int64 * int64> =
        let mutable first, row, length, odd = 0L, -1L, 0L, None

        let ended () =
            if row = 0L then
                first <- length
            elif row > 0L && length <> first && odd.IsNone then
                odd <- Some(row, length, first)

        ParquetFile.lists file features (fun begins _ _ ->
            if begins then
                ended ()
                row <- row + 1L
                length <- 0L

            length <- length + 1L)

        ended ()

        match odd with
        | None -> Ok first
        | Some found -> Error found

    let private read (path: string) (width: int64) (act: int64 -> torch.Tensor -> unit) : Result<unit, Fault list> =
        ParquetFile.using path (fun file ->
            match columns path file with
            | Error faults -> Error faults
            | Ok found ->
                let dtype = typeOf found.Features
                let item = dtype.ElementSize()
                let rows = Draft.blockRows (width * int64 item)
                let buffer = Array.zeroCreate<byte>(int (min rows (ParquetFile.rows file) * width) * item)
                let mutable held, first = 0, 0L

                let flush () =
                    if held > 0 then
                        use block = torch.empty ([| int64 (held / item) / width; width |], dtype = Nullable dtype)
                        buffer.AsSpan(0, held).CopyTo block.bytes
                        act first block
                        first <- first + block.shape[0]
                        held <- 0

                ParquetFile.lists file found.Features (fun begins value at ->
                    if begins && held = buffer.Length then
                        flush ()

                    Buffer.BlockCopy(value, at, buffer, held, item)
                    held <- held + item)

                flush ()
                Ok())

    /// A file's ids, labels and size; its numbers when they are asked for.
    let table (path: string) : Result<FeatureTable, Fault list> =
        ParquetFile.using path (fun file ->
            columns path file
            |> Result.bind (fun found ->
                let ids = ParquetFile.texts file found.Id
                let labels = found.Label |> Option.map (ParquetFile.texts file)

                match Array.tryFindIndex Option.isNone ids with
                | Some row -> Error [ Fault.Unreadable(path, $"row {row} has no id") ]
                | None when ids.Length = 0 -> Error [ Fault.Unreadable(path, "it holds no rows") ]
                | None ->
                    match lengths file found.Features with
                    | Error(row, length, first) ->
                        Error
                            [ Fault.Shape(
                                  $"'{path}', row {row} ('{ids[int row].Value}')",
                                  $"d = {first}, as the rows before have",
                                  $"d = {length}"
                              ) ]
                    | Ok width ->
                        Ok
                            { File = path
                              Type = typeOf found.Features
                              Rows = ids.LongLength
                              Columns = width
                              Ids = Some(Array.choose id ids)
                              Labels = labels |> Option.map (Array.map (Option.defaultValue ""))
                              Read = read path width }))
