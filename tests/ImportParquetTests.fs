/// Parquet as Arrow C++ writes it, the writer below pyarrow, pandas and Hugging Face's data sets: every codec, encoding and type of column.
module Cmcl.Tests.ImportParquetTests

open System
open System.IO
open Apache.Arrow
open Apache.Arrow.Types
open Expecto
open ParquetSharp
open TorchSharp
open Cmcl
open Cmcl.Tests.Checks
open Cmcl.Tests.ImportFiles

let private leaf (values: float32[]) (kind: string) : IArrowArray =
    match kind with
    | "f16" -> HalfFloatArray.Builder().AppendRange(values |> Seq.map Half.op_Explicit).Build() :> IArrowArray
    | "f64" -> DoubleArray.Builder().AppendRange(values |> Seq.map float).Build() :> IArrowArray
    | _ -> FloatArray.Builder().AppendRange(values).Build() :> IArrowArray

let private int32s (values: int seq) =
    let b = ArrowBuffer.Builder<int>()
    values |> Seq.iter (fun v -> b.Append v |> ignore)
    b.Build()

/// Rows of an array as lists of d: variable, large, fixed, or each the one list of another.
let private lists (kind: string) (d: int) (values: IArrowArray) : IArrowArray =
    let n = values.Length / d
    let item (a: IArrowArray) = Field("item", a.Data.DataType, true)

    match kind with
    | "fixed" ->
        let t = FixedSizeListType(item values, d)
        new FixedSizeListArray(new ArrayData(t, n, 0, 0, [| ArrowBuffer.Empty |], [| values.Data |])) :> IArrowArray
    | "large" ->
        let starts = ArrowBuffer.Builder<int64>()

        for i in 0..n do
            starts.Append(int64 i * int64 d) |> ignore

        let t = LargeListType(item values)
        new LargeListArray(new ArrayData(t, n, 0, 0, [| ArrowBuffer.Empty; starts.Build() |], [| values.Data |])) :> IArrowArray
    | _ -> new ListArray(ListType(item values), n, int32s [ for i in 0..n -> i * d ], values, ArrowBuffer.Empty, 0) :> IArrowArray

let private texts (values: string seq) : IArrowArray = StringArray.Builder().AppendRange(values).Build() :> IArrowArray

/// A dictionary of the distinct words, and the place of each.
let private dictionary (values: string[]) : IArrowArray =
    let words = Array.distinct values
    let places = Int32Array.Builder().AppendRange(values |> Seq.map (fun v -> Array.IndexOf(words, v))).Build()
    new DictionaryArray(DictionaryType(Int32Type.Default, StringType.Default, false), places, texts words) :> IArrowArray

/// Writes ids, features and labels if any as the words of `kind` say.
let private write (path: string) (kind: string) (ids: string[]) (x: float32[,]) (labels: string[] option) : unit =
    let words = kind.Split '+' |> Set.ofArray
    let has word = words.Contains word
    let n, d = x.GetLength 0, x.GetLength 1

    let flat =
        [| for i in 0 .. n - 1 do
               for j in 0 .. d - 1 -> x[i, j] |]

    let number =
        if has "f16" then "f16"
        elif has "f64" then "f64"
        else "f32"

    let columns =
        [ "id",
          (if has "intid" then Int64Array.Builder().AppendRange(ids |> Seq.map int64).Build() :> IArrowArray
           elif has "dictid" then dictionary ids
           else texts ids)

          match labels with
          | Some labels when has "dictlabel" -> "label", dictionary labels
          | Some labels when has "i8label" ->
              "label", Int8Array.Builder().AppendRange(labels |> Seq.map sbyte).Build() :> IArrowArray
          | Some labels when has "f8label" ->
              "label", DoubleArray.Builder().AppendRange(labels |> Seq.map float).Build() :> IArrowArray
          | Some labels -> "label", texts labels
          | None -> ()

          if has "wide" then
              for j in 0 .. d - 1 do
                  $"f{j}", leaf [| for i in 0 .. n - 1 -> x[i, j] |] number
          elif has "nested" then
              "embedding", lists "" 1 (lists "" d (leaf flat number))
          else
              "embedding",
              lists
                  (if has "fixed" then "fixed"
                   elif has "large" then "large"
                   else "")
                  d
                  (leaf flat number)

          if has "index" then
              "__index_level_0__", Int64Array.Builder().AppendRange(Seq.init n (fun i -> int64 (n - i))).Build() :> IArrowArray
          if has "bbox" then
              "bbox", lists "" 4 (leaf (Array.init (4 * n) float32) "f32") ]

    let schema = Schema([ for name, column in columns -> Field(name, column.Data.DataType, true) ], null)
    use batch = new RecordBatch(schema, List.map snd columns, n)
    use builder = new WriterPropertiesBuilder()

    let codec =
        [ "zstd", Compression.Zstd
          "gzip", Compression.Gzip
          "brotli", Compression.Brotli
          "lz4", Compression.Lz4
          "plain", Compression.Uncompressed ]
        |> List.tryPick (fun (word, codec) -> if has word then Some codec else None)

    builder.Compression(Option.defaultValue Compression.Snappy codec) |> ignore

    if has "bss" then
        builder.DisableDictionary("embedding.list.element").Encoding("embedding.list.element", Encoding.ByteStreamSplit)
        |> ignore

    if has "dba" then
        builder.DisableDictionary("id").Encoding("id", Encoding.DeltaByteArray) |> ignore

    if has "dbp" then
        builder.DisableDictionary("id").Encoding("id", Encoding.DeltaBinaryPacked) |> ignore

    if has "nodict" then
        builder.DisableDictionary() |> ignore

    if has "pages" then
        builder.DataPagesize 4096L |> ignore

    use properties = builder.Build()
    use file = new ParquetSharp.Arrow.FileWriter(path, schema, properties)
    if has "groups" then file.WriteRecordBatch(batch, 7L) else file.WriteRecordBatch batch
    file.Close()

let private expectRead (kind: string) (n: int) (d: int) (labels: string[] option) (values: float32[,]) (folder: string) =
    let path = Path.Combine(folder, "x.parquet")
    let ids = [| for i in 0 .. n - 1 -> if kind.Contains "intid" then string (1000 + i) else $"row-{i}" |]
    write path kind ids values labels
    let table = ArrowTable.ofParquet path |> Result.bind (FeatureTable.select None) |> Check.get
    Expect.equal table.Ids (Some ids) "ids"
    Expect.equal table.Labels labels "labels"
    let read = ResizeArray<torch.Tensor>()

    FeatureTable.read table (fun first block ->
        Expect.equal first (read |> Seq.sumBy (fun b -> b.shape[0])) "blocks follow each other"
        read.Add(block.MoveToOuterDisposeScope()))
    |> Check.get

    let dtype =
        if kind.Contains "f16" then torch.float16
        elif kind.Contains "f64" then torch.float64
        else torch.float32

    identical "features" (torch.cat (read.ToArray())) ((matrix values).``to`` dtype)

let tests =
    testList
        "import parquet"
        [ for kind in
              [ "snappy"
                "zstd"
                "gzip"
                "plain"
                "brotli"
                "lz4"
                "f64"
                "f16"
                "fixed"
                "fixed+f16"
                "large"
                "wide"
                "wide+f64"
                "nested"
                "dictid"
                "groups"
                "groups+zstd+fixed"
                "pages"
                "bss"
                "dba"
                "nodict"
                "index"
                "bbox"
                "intid"
                "intid+dbp" ] do
              testCase kind (fun () -> inFolder (expectRead kind 60 4 None (numbers kind 60 4)))

          for kind, labels in
              [ "words", [| "a"; "b"; "c"; "d"; "e" |]
                "dictlabel", [| "a"; "b"; "c"; "d"; "e" |]
                "i8label", [| "0"; "1"; "2"; "3"; "4" |]
                "f8label", [| "0"; "1"; "2"; "3"; "4" |] ] do
              testCase $"labels: {kind}" (fun () ->
                  inFolder (expectRead kind 60 4 (Some [| for i in 0..59 -> labels[i % 5] |]) (numbers kind 60 4)))

          // Sizes at which runs of equal levels and of few values end on a boundary; 1,045 is Clotho's test set.
          for n in [ 8; 504; 512; 1024; 1045; 2048; 4096 ] do
              testCase $"{n} rows of few values" (fun () ->
                  let values = Array2D.init n 4 (fun i j -> float32 (i % 50 + 1) / float32 (j + 1))
                  inFolder (expectRead "snappy" n 4 None values)
                  inFolder (expectRead "wide" n 4 None values))

          testCase "768 columns of one feature each" (fun () -> inFolder (expectRead "wide" 40 768 None (numbers "wide" 40 768)))
          testCase "more rows than a block" (fun () -> inFolder (expectRead "zstd" 3000 700 None (numbers "long" 3000 700))) ]
