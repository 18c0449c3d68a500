namespace Cmcl

open System
open System.IO
open System.Runtime.InteropServices
open System.Text
open Apache.Arrow
open Apache.Arrow.Compression
open ParquetSharp.Arrow
open Apache.Arrow.Ipc
open Apache.Arrow.Types
open TorchSharp

/// Tables of Arrow: Parquet by Arrow C++ (ParquetSharp), the library below pyarrow and pandas, and Arrow's own files and streams,
/// Feather among them, by Apache.Arrow.
[<RequireQualifiedAccess>]
module ArrowTable =

    /// A file whose batches of rows can be gone through, of some columns by their places and of about so many rows.
    type private Source =
        {
            Schema: Schema
            /// None where only a pass tells.
            Rows: int64 option
            Batches: int list -> int64 -> seq<RecordBatch>
        }

    // ---- files ---------------------------------------------------------------------------------------------------

    let private batches (reader: IArrowArrayStream) : seq<RecordBatch> =
        Seq.unfold
            (fun () ->
                match reader.ReadNextRecordBatchAsync().AsTask().Result with
                | null -> None
                | batch -> Some(batch, ()))
            ()

    /// The columns of a Parquet file that one column of its schema is made of.
    let rec private leaves (field: SchemaField) : int list =
        if field.Children.Count = 0 then
            [ field.ColumnIndex ]
        else
            [ for child in field.Children do
                  yield! leaves child ]

    let private parquet (path: string) : Source =
        let opened (rows: int64) =
            use reading = ParquetSharp.ReaderProperties.GetDefaultReaderProperties()
            reading.EnableBufferedStream()
            use arrow = ArrowReaderProperties.GetDefault()
            arrow.PreBuffer <- false
            arrow.UseThreads <- true
            arrow.BatchSize <- rows
            new FileReader(path, reading, arrow)

        use file = opened 1L
        let leaves = [| for field in file.SchemaManifest.SchemaFields -> leaves field |]

        let read (places: int list) (rows: int64) =
            seq {
                use file = opened rows

                use reader =
                    file.GetRecordBatchReader(
                        null,
                        [| for place in places do
                               yield! leaves[place] |]
                    )

                yield! batches reader
            }

        { Schema = file.Schema
          Rows = Some file.ParquetReader.FileMetaData.NumRows
          Batches = read }

    let private ipc (path: string) : Source =
        let opened () : ArrowStreamReader =
            let stream = File.OpenRead path
            let start = Array.zeroCreate<byte> 6
            let count = stream.ReadAtLeast(start, 6, false)
            stream.Position <- 0L

            if count = 6 && start = "ARROW1"B then
                new ArrowFileReader(stream, CompressionCodecFactory())
            elif count >= 4 && start[..3] = "FEA1"B then
                Check.fail (Fault.Unreadable(path, "it is Feather of version 1; pyarrow.feather.write_feather writes version 2"))
            else
                new ArrowStreamReader(stream, CompressionCodecFactory())

        use file = opened ()

        let read (places: int list) (_: int64) =
            seq {
                use file = opened ()

                let next =
                    match file with
                    | :? ArrowFileReader as whole ->
                        let count = whole.RecordBatchCountAsync().AsTask().Result
                        let mutable at = -1

                        fun () ->
                            at <- at + 1
                            if at < count then whole.ReadRecordBatchAsync(at).AsTask().Result else null
                    | stream -> stream.ReadNextRecordBatch

                yield!
                    Seq.unfold
                        (fun () ->
                            match next () with
                            | null -> None
                            | batch ->
                                let fields = [ for place in places -> batch.Schema.GetFieldByIndex place ]
                                let columns = [ for place in places -> batch.Column place ]
                                Some(new RecordBatch(Schema(fields, null), columns, batch.Length), ()))
                        ()
            }

        { Schema = file.Schema; Rows = None; Batches = read }

    // ---- columns -------------------------------------------------------------------------------------------------

    let private floatOf (t: IArrowType) : torch.ScalarType option =
        match t.TypeId with
        | ArrowTypeId.HalfFloat -> Some torch.ScalarType.Float16
        | ArrowTypeId.Float -> Some torch.ScalarType.Float32
        | ArrowTypeId.Double -> Some torch.ScalarType.Float64
        | _ -> None

    /// The numbers in a list, however deep it is nested.
    let rec private inside (t: IArrowType) : IArrowType =
        match t with
        | :? NestedType as n when n.Fields.Count = 1 && (n :? ListType || n :? LargeListType || n :? FixedSizeListType) ->
            inside n.Fields[0].DataType
        | other -> other

    let rec private isWord (t: IArrowType) : bool =
        match t with
        | :? DictionaryType as d -> isWord d.ValueType
        | :? StringType
        | :? LargeStringType
        | :? StringViewType
        | :? BinaryType
        | :? BooleanType
        | :? IntegerType -> true
        | _ -> false

    /// Of some rows of an array (rows first … first + count − 1), where the numbers below them lie: the array that holds them, the
    /// first of them, and how many each row has. `width` is what the rows before had. A list of one list is that list.
    let rec private numbers (row: int64) (data: ArrayData) (first: int) (count: int) : struct (ArrayData * int * int) =
        if data.GetNullCount() > 0 then
            let bits = data.Buffers[0].Span.ToArray()
            let isNull i = bits.Length > 0 && (int bits[(data.Offset + i) / 8] >>> ((data.Offset + i) % 8)) &&& 1 = 0

            match Seq.tryFind isNull (seq { first .. first + count - 1 }) with
            | Some i -> raise (Ragged(row + int64 (i - first), -1L, 0L))
            | None -> ()

        let below (starts: int -> int64) (child: ArrayData) =
            let at i = starts (data.Offset + first + i)
            let width = at 1 - at 0

            for i in 1 .. count - 1 do
                if at (i + 1) - at i <> width then
                    raise (Ragged(row + int64 i, width, at (i + 1) - at i))

            let struct (leaf, start, inner) = numbers row child (int (at 0)) (int width * count)

            if width > 1L && inner > 1 then
                raise (InvalidDataException $"a row holds {width} lists of {inner} numbers, and one vector is needed")

            struct (leaf, start, int width * inner)

        match data.DataType with
        | :? ListType ->
            let starts = data.Buffers[1]
            below (fun i -> int64 (MemoryMarshal.Cast<byte, int>(starts.Span)[i])) data.Children[0]
        | :? LargeListType ->
            let starts = data.Buffers[1]
            below (fun i -> MemoryMarshal.Cast<byte, int64>(starts.Span)[i]) data.Children[0]
        | :? FixedSizeListType as t -> below (fun i -> int64 i * int64 t.ListSize) data.Children[0]
        | _ -> struct (data, data.Offset + first, 1)

    /// Some rows of a column as a tensor, rows × width.
    let private tensor (row: int64) (column: IArrowArray) (first: int) (count: int) : torch.Tensor =
        let struct (leaf, start, width) = numbers row column.Data first count
        let dtype = (floatOf leaf.DataType).Value
        let item = int64 (dtype.ElementSize())
        let held = leaf.Buffers[1].Span
        let from, length = int64 start * item, int64 count * int64 width * item

        if from < 0L || length < 0L || from + length > int64 held.Length then
            raise (InvalidDataException "its lists reach beyond their numbers")

        let block = torch.empty ([| int64 count; int64 width |], dtype = Nullable dtype)
        held.Slice(int from, int length).CopyTo block.bytes
        block

    let private columnOf (source: Source) (rows: int64) (place: int) : Cmcl.Column =
        let field = source.Schema.GetFieldByIndex place
        let numbered = floatOf (inside field.DataType)

        let holds =
            match field.DataType, numbered with
            | t, Some dtype when obj.ReferenceEquals(t, inside t) -> Holds.Number dtype
            | _, Some dtype when rows > 0L ->
                let first = source.Batches [ place ] 1L |> Seq.find (fun b -> b.Length > 0)
                use scope = torch.NewDisposeScope()

                match Check.guarded "" (fun () -> Ok (tensor 0L (first.Column 0) 0 1).shape[1]) with
                | Ok width when width > 0L -> Holds.Vector(dtype, width)
                | Ok _ -> Holds.Other "empty lists"
                | Error _ -> Holds.Other "its first row holds no vector"
            | t, _ when isWord t -> Holds.Word
            | t, _ -> Holds.Other((inside t).Name + (if obj.ReferenceEquals(t, inside t) then "" else "s, in lists"))

        { Name = field.Name; Holds = holds; Rows = rows }

    // ---- words ---------------------------------------------------------------------------------------------------

    let private each (array: PrimitiveArray<'T>) (word: 'T -> string) =
        [| for i in 0 .. array.Length - 1 ->
               let value = array.GetValue i
               if value.HasValue then word value.Value else "" |]

    let rec private words (array: IArrowArray) : string[] =
        let texts length (get: int -> string | null) =
            Array.init length (fun i -> get i |> Option.ofObj |> Option.defaultValue "")

        match array with
        | :? StringArray as a -> texts a.Length a.GetString
        | :? LargeStringArray as a -> texts a.Length a.GetString
        | :? StringViewArray as a -> texts a.Length a.GetString
        | :? BinaryArray as a ->
            texts a.Length (fun i -> if a.IsNull i then null else UTF8Encoding(false, true).GetString(a.GetBytes i))
        | :? BooleanArray as a ->
            Array.init a.Length (fun i ->
                a.GetValue i |> Option.ofNullable |> Option.map (string >> _.ToLowerInvariant()) |> Option.defaultValue "")
        | :? Int8Array as a -> each a string
        | :? Int16Array as a -> each a string
        | :? Int32Array as a -> each a string
        | :? Int64Array as a -> each a string
        | :? UInt8Array as a -> each a string
        | :? UInt16Array as a -> each a string
        | :? UInt32Array as a -> each a string
        | :? UInt64Array as a -> each a string
        | :? HalfFloatArray as a -> each a (float32 >> Table.singleWord)
        | :? FloatArray as a -> each a Table.singleWord
        | :? DoubleArray as a -> each a Table.word
        | :? DictionaryArray as a ->
            let names = words a.Dictionary
            words a.Indices |> Array.map (fun i -> if i = "" then "" else names[int i])
        | other -> raise (InvalidDataException $"a column of {other.Data.DataType.Name} has no words")

    // ---- the table -----------------------------------------------------------------------------------------------

    let private read (opened: string -> Source) (path: string) : Result<Cmcl.Table, Fault list> =
        Table.reading path (fun () ->
            let source = opened path
            let fields = source.Schema.FieldsList |> List.ofSeq

            let rows =
                source.Rows
                |> Option.defaultWith (fun () ->
                    source.Batches [] 0L |> Seq.sumBy (fun batch -> use batch = batch in int64 batch.Length))

            let columns = List.init fields.Length (columnOf source rows)
            let place name = columns |> List.findIndex (fun c -> c.Name = name)

            let wordsOf name =
                let mutable found = [||]

                Table.reading path (fun () ->
                    found <-
                        [| for batch in source.Batches [ place name ] 65536L do
                               use batch = batch
                               yield! words (batch.Column 0) |]

                    Ok())
                |> Result.map (fun () -> found)

            let numbersOf (names: string list) act =
                let wanted = [ for name in names -> columns[place name] ]
                let dtype = Table.common wanted

                let width = List.sumBy Column.width wanted
                let size = StreamDraft.blockRows (width * int64 (dtype.ElementSize()))

                Table.reading path (fun () ->
                    // Columns of the file come in its order, whatever order they are asked for in.
                    let inFile = names |> List.map place |> List.sort
                    let at = [ for name in names -> List.findIndex ((=) (place name)) inFile ]
                    let mutable row = 0L

                    for batch in source.Batches inFile size do
                        use batch = batch

                        for first in 0 .. int size .. batch.Length - 1 do
                            use scope = torch.NewDisposeScope()
                            let count = min (int size) (batch.Length - first)
                            let parts = [| for i in at -> (tensor row (batch.Column i) first count).``to`` dtype |]
                            let block = if parts.Length = 1 then parts[0] else torch.cat (parts, 1L)

                            if block.shape[1] <> width then
                                raise (Ragged(row, width, block.shape[1]))

                            act row block
                            row <- row + int64 count

                    Ok())

            Ok
                { File = path
                  Columns = columns
                  Notes = []
                  Words = wordsOf
                  Numbers = numbersOf })

    /// A Parquet file's columns. Faults: what Arrow C++ says of it.
    let ofParquet (path: string) : Result<Cmcl.Table, Fault list> = read parquet path

    /// The columns of a file or a stream of Arrow's (Feather of version 2).
    let ofArrow (path: string) : Result<Cmcl.Table, Fault list> = read ipc path
