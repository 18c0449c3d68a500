/// Files of features of every format, and what is expected of an import of them.
module Cmcl.Tests.ImportFiles

open System
open System.Diagnostics
open System.IO
open System.IO.Compression
open System.Text
open System.Threading
open Expecto
open Parquet
open Parquet.Schema
open PureHDF
open TorchSharp
open Cmcl
open Cmcl.Tests.Checks

// ---- folders and files -------------------------------------------------------------------------------------------

let inFolder (act: string -> unit) =
    let folder = Directory.CreateTempSubdirectory "cmcl-import"

    try
        use scope = torch.NewDisposeScope()
        act folder.FullName
    finally
        folder.Delete true

let inFolders name (act: string -> string -> unit) =
    testCase name (fun () ->
        inFolder (fun folder ->
            let source = Directory.CreateDirectory(Path.Combine(folder, "in")).FullName
            act source (Path.Combine(folder, "out"))))

/// Numbers that say by their size where they stand: of a purpose, row by row.
let numbers (purpose: string) (rows: int) (columns: int) : float32[,] =
    let drawn = Seed.normal [ int64 rows; int64 columns ] (Seed.ofInt 0 |> Seed.split purpose)
    let values = drawn.``to``(torch.float32).data<float32>().ToArray()
    Array2D.init rows columns (fun i j -> values[i * columns + j])

let matrix (values: float32[,]) = torch.tensor values

let rowsOf (values: float32[,]) (rows: int seq) =
    array2D [ for i in rows -> [ for j in 0 .. values.GetLength 1 - 1 -> values[i, j] ] ]

let treatment = { Normalise = false; ZeroRows = false }

let run' name change source out =
    Importer.run (Importer.find name |> Check.get) (change Importer.defaults) treatment false ignore source out

let run name source out = run' name id source out

/// How a worker for imports is started.
let importWorker () =
    Diagnostics.ProcessStartInfo("dotnet", [ Path.Combine(AppContext.BaseDirectory, "Cmcl.Cli.dll"); "import-worker" ])

/// What is said where a stream is in the folder already.
let occupied (out: string) : string = $"'{out}' holds a stream already; choose another folder, or replace it with --force."

let loaded (out: string) : Stream = StreamFolder.load out |> Check.get

/// Refused with these words, nothing written.
let refused (words: string list) (out: string) (result: Result<'a, Fault list>) =
    match result with
    | Ok _ -> failtest "imported"
    | Error faults ->
        let told = String.Join("\n", faults |> List.map _.Message)

        for word in words do
            Expect.stringContains told word "what is told"

        let left = Directory.GetFileSystemEntries(Path.GetDirectoryName out |> string) |> Array.map Path.GetFileName
        Expect.sequenceEqual left [| "in" |] "nothing is left"

/// A Python that has these modules, or a test skipped.
let python (modules: string) (program: string) (arguments: string list) =
    let start (path: string) (code: string) arguments =
        try
            let info = ProcessStartInfo(path, RedirectStandardError = true, RedirectStandardOutput = true)

            for argument in [ "-c"; code ] @ arguments do
                info.ArgumentList.Add argument

            match Process.Start info with
            | null -> None
            | child ->
                use child = child
                let error = child.StandardError.ReadToEnd()
                child.WaitForExit()
                Some(child.ExitCode, error)
        with :? ComponentModel.Win32Exception ->
            None

    match
        [ "python3"; "/usr/bin/python3" ]
        |> List.tryFind (fun path -> start path $"import {modules}" [] |> Option.map fst = Some 0)
    with
    | None -> skiptest $"no python3 with {modules} here (Debian: python3-h5py, python3-numpy)"
    | Some path ->
        match start path program arguments with
        | Some(0, _) -> ()
        | other -> failtest $"%A{other}"

// ---- the published layout ----------------------------------------------------------------------------------------

/// Writes by another library's code: one array a key.
let writeH5 (path: string) (arrays: (string * (obj | null)) list) =
    let file = H5File()

    for key, values in arrays do
        file[key] <- nonNull values

    file.Write path

let sets = [ "UCF101", 2; "ESC50", 2; "NYUDv2", 3; "Clotho", 2; "VGGSound-S", 3; "TVL", 3; "LLVIP", 2 ]

let classes = [ "a cat"; "b (dog)"; "über" ]
let key id i = $"{id}__{classes[i % 3]}__{i % 3}"

let sample (set: string) (split: string) (i: int) : float32[,] =
    numbers $"{set} {split} {i}" (List.find (fst >> (=) set) sets |> snd) 6

/// All files of the seven sets: 12 training samples each, whose keys are not in the order of their numbers, and 5 to test.
let publish (folder: string) =
    for set, _ in sets do
        for split, count in [ "train", 12; "test", 5 ] do
            writeH5
                (Path.Combine(folder, $"{set}_{split}_imagebind.h5"))
                [ for i in 0 .. count - 1 -> key $"tensor({i})" i, box (sample set split i) ]

        writeH5
            (Path.Combine(folder, $"{set}_class_imagebind.h5"))
            [ for c in classes @ [ "unused" ] -> c, box (Array.init 6 (fun j -> float32 c.Length + float32 j)) ]

let imagebind (o: ImportOptions) = { o with Backbone = Some "imagebind" }

/// Sample numbers in the order of their keys.
let inKeyOrder (count: int) =
    [ 0 .. count - 1 ] |> List.sortWith (fun a b -> String.CompareOrdinal(key $"tensor({a})" a, key $"tensor({b})" b))

// ---- files by their names ----------------------------------------------------------------------------------------

let save (folder: string) (name: string) (t: torch.Tensor) = Npy.write (Path.Combine(folder, name)) t |> Check.get

/// A step of 10 train, 4 test rows: text (d = 5) and audio (d = 3), three classes.
let text', audio' = lazy numbers "text" 14 5, lazy numbers "audio" 14 3
let part values (rows: int seq) = matrix (rowsOf values rows)
let kinds (rows: int seq) = torch.tensor [| for i in rows -> int64 (i % 3) |]

let writeNpy (folder: string) =
    for split, rows in [ "train", [ 0..9 ]; "test", [ 10..13 ] ] do
        save folder $"01-esc.text.{split}.npy" (part text'.Value rows)
        save folder $"01-esc.audio.{split}.npy" (part audio'.Value rows)
        save folder $"01-esc.labels.{split}.npy" (kinds rows)

    save folder "01-esc.text.classes.npy" (matrix (numbers "classes" 3 5))
    File.WriteAllText(Path.Combine(folder, "01-esc.classes.txt"), "cat\ndog\nbird\n")

/// What a step of these rows becomes, whatever the format.
let expectStep (out: string) =
    let step = (loaded out).Steps.Head
    Expect.equal (string step.Pair) "text–audio" "text is rather the anchor"
    identical "text" step.A.Features (matrix text'.Value)
    identical "audio" step.B.Features (matrix audio'.Value)
    Expect.equal step.Test [| 10L .. 13L |] "test rows"
    Expect.equal (Array.sort (Array.append step.Train step.Validation)) [| 0L .. 9L |] "training rows"
    let accuracy = step.Accuracy.Value
    Expect.equal (accuracy.Items, accuracy.Classes) ("audio:01-esc", [ "cat"; "dog"; "bird" ]) "what is classified"
    Expect.equal accuracy.Labels [| for i in 0L .. 13L -> i % 3L |] "labels"
    identical "prototypes" accuracy.Prototypes (matrix (numbers "classes" 3 5))

/// A `.npy` file with this header and these bytes.
let rawNpy (path: string) (descr: string) (fortran: string) (shape: string) (body: byte[]) =
    let header = $"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}".PadRight 117 + "\n"
    File.WriteAllBytes(path, Array.concat [ [| 0x93uy |]; "NUMPY\x01\x00v\x00"B; Encoding.ASCII.GetBytes header; body ])

let bytesOf (values: float32 seq) = values |> Seq.collect BitConverter.GetBytes |> Array.ofSeq

let zip (path: string) (arrays: (string * torch.Tensor) list) =
    use file = ZipFile.Open(path, ZipArchiveMode.Create)
    let temporary = path + ".array"

    for name, values in arrays do
        Npy.write temporary values |> Check.get
        file.CreateEntryFromFile(temporary, name + ".npy") |> ignore

    File.Delete temporary

let names = [| "cat"; "dog"; "bird" |]

/// Every row as its id, its label, its numbers; audio in the other order than text, labels with text only.
let tables (write: string -> (string * string option * float32[]) list -> unit) =
    let row label (values: float32[,]) i =
        $"id-{i}", (if label then Some names[i % 3] else None), [| for j in 0 .. values.GetLength 1 - 1 -> values[i, j] |]

    for split, rows in [ "train", [ 0..9 ]; "test", [ 10..13 ] ] do
        write $"01-esc.text.{split}" [ for i in rows -> row true text'.Value i ]
        write $"01-esc.audio.{split}" [ for i in List.rev rows -> row false audio'.Value i ]

    let prototypes = numbers "classes" 3 5
    write "01-esc.text.classes" [ for i in 0..2 -> names[i], None, [| for j in 0..4 -> prototypes[i, j] |] ]

let writeCsv (folder: string) (name: string) (rows: (string * string option * float32[]) list) =
    let _, label, first = rows.Head

    let header = [ "id" ] @ (if label.IsSome then [ "label" ] else []) @ List.init first.Length (fun j -> $"f{j}")

    let line (id: string, label: string option, values: float32[]) =
        String.Join(
            ",",
            [ yield id
              yield! Option.toList label
              for v in values do
                  yield v.ToString("R", Globalization.CultureInfo.InvariantCulture) ]
        )

    File.WriteAllLines(Path.Combine(folder, name + ".csv"), String.Join(",", header) :: List.map line rows)

/// By another library's code, in groups of four rows.
let writeParquet (folder: string) (name: string) (rows: (string * string option * float32[]) list) =
    let _, label, _ = rows.Head

    let id, features, kind =
        DataField<string> "id", ListField("vector", DataField<float32> "element"), DataField<string> "label"

    let fields: Schema.Field list =
        [ id
          features
          if label.IsSome then
              kind ]

    let schema = ParquetSchema fields

    use file = File.Create(Path.Combine(folder, name + ".parquet"))
    let writer = ParquetWriter.CreateAsync(schema, file).Result

    for group in List.chunkBySize 4 rows do
        use part = writer.CreateRowGroup()
        let columns = schema.DataFields
        part.WriteAsync(columns[0], [| for id, _, _ in group -> id |]).Wait()

        let values =
            [| for _, _, values in group do
                   yield! values |]

        let begins =
            [| for _, _, values in group do
                   yield! [| for j in 0 .. values.Length - 1 -> if j = 0 then 0 else 1 |] |]

        part
            .WriteAllPartsAsync<float32>(
                columns[1],
                ReadOnlyMemory values,
                Nullable(ReadOnlyMemory(Array.create values.Length columns[1].MaxDefinitionLevel)),
                Nullable(ReadOnlyMemory begins),
                CancellationToken.None
            )
            .Wait()

        if label.IsSome then
            part.WriteAsync(columns[2], [| for _, label, _ in group -> label.Value |]).Wait()

    writer.DisposeAsync().AsTask().Wait()

// ---- Arrow -------------------------------------------------------------------------------------------------------

/// Rows as a batch of Arrow's: ids, labels if any, and lists of floats.
let private batch (rows: (string * string option * float32[]) list) : Apache.Arrow.RecordBatch =
    let texts (values: string seq) = Apache.Arrow.StringArray.Builder().AppendRange(values).Build() :> Apache.Arrow.IArrowArray
    let lists = Apache.Arrow.ListArray.Builder(Apache.Arrow.Types.FloatType.Default)
    let numbers = lists.ValueBuilder :?> Apache.Arrow.FloatArray.Builder

    for _, _, values in rows do
        lists.Append() |> ignore
        numbers.Append(ReadOnlySpan values) |> ignore

    let columns =
        [ "id", texts [ for id, _, _ in rows -> id ]
          "vector", lists.Build() :> Apache.Arrow.IArrowArray
          match rows.Head with
          | _, Some _, _ -> "label", texts [ for _, label, _ in rows -> label.Value ]
          | _ -> () ]

    let fields = [ for name, column in columns -> Apache.Arrow.Field(name, column.Data.DataType, true) ]
    new Apache.Arrow.RecordBatch(Apache.Arrow.Schema(fields, null), List.map snd columns, rows.Length)

/// Text by Arrow C++, the writer below pyarrow and pandas, and the others by Parquet.Net.
let private writeParquetBoth (folder: string) (name: string) rows =
    if name.Contains ".text." then
        use batch = batch rows
        use writer = new ParquetSharp.Arrow.FileWriter(Path.Combine(folder, name + ".parquet"), batch.Schema)
        writer.WriteRecordBatch(batch, 4L)
        writer.Close()
    else
        writeParquet folder name rows

/// Text as a file, the others as a stream, which Hugging Face's data sets are.
let private writeArrow (folder: string) (name: string) rows =
    use batch = batch rows
    use file = File.Create(Path.Combine(folder, name + ".arrow"))

    use writer: Apache.Arrow.Ipc.ArrowStreamWriter =
        if name.Contains ".text." then
            new Apache.Arrow.Ipc.ArrowFileWriter(file, batch.Schema)
        else
            new Apache.Arrow.Ipc.ArrowStreamWriter(file, batch.Schema)

    writer.WriteRecordBatch batch
    writer.WriteEnd()

// ---- HDF5, PyTorch, safetensors ----------------------------------------------------------------------------------

let private writeHdf5 (folder: string) (name: string) (rows: (string * string option * float32[]) list) =
    writeH5
        (Path.Combine(folder, name + ".h5"))
        [ "ids", box [| for id, _, _ in rows -> id |]
          "features", box (array2D [ for _, _, values in rows -> values ])
          match rows.Head with
          | _, Some _, _ -> "labels", box [| for _, label, _ in rows -> label.Value |]
          | _ -> () ]

/// A dictionary of tensors as torch.save writes it: a zip of a pickle and of each tensor's numbers.
let torchSave (path: string) (tensors: (string * torch.Tensor) list) =
    use file = ZipFile.Open(path, ZipArchiveMode.Create)
    use pickle = new MemoryStream()
    let put (bytes: byte seq) = pickle.Write(ReadOnlySpan(Array.ofSeq bytes))
    let text (word: string) = put [ yield 'X'B; yield! BitConverter.GetBytes word.Length; yield! Encoding.ASCII.GetBytes word ]
    let number (n: int64) = put [ yield 'J'B; yield! BitConverter.GetBytes(int n) ]
    let named (m: string) (name: string) = put (Encoding.ASCII.GetBytes $"c{m}\n{name}\n")

    let tuple (put': unit -> unit) =
        put "("B
        put' ()
        put "t"B

    put [ 0x80uy; 2uy; '}'B ]

    for i, (name, tensor) in List.indexed tensors do
        text name
        named "torch._utils" "_rebuild_tensor_v2"

        tuple (fun () ->
            tuple (fun () ->
                text "storage"
                named "torch" (if tensor.dtype = torch.int64 then "LongStorage" else "FloatStorage")
                text (string i)
                text "cpu"
                number tensor.NumberOfElements)

            put "Q"B
            number 0L
            tuple (fun () -> tensor.shape |> Array.iter number)
            tuple (fun () -> tensor.stride () |> Array.iter number)
            put [ 0x89uy ]
            named "collections" "OrderedDict"
            put ")R"B)

        put "Rs"B

    put "."B

    let add (name: string) (bytes: byte[]) =
        use entry = file.CreateEntry("archive/" + name, CompressionLevel.NoCompression).Open()
        entry.Write(bytes, 0, bytes.Length)

    add "data.pkl" (pickle.ToArray())

    for i, (_, tensor) in List.indexed tensors do
        add $"data/{i}" (tensor.bytes.ToArray())

    add "version" "3\n"B

let private saveSafetensors (path: string) (tensors: (string * torch.Tensor) list) =
    Safetensors.write path { Tensors = Map tensors; Metadata = Map.empty } |> Check.get

/// Files of a matrix for each modality, and of labels, matched by place.
let private writeArrays (ending: string) (save: string -> (string * torch.Tensor) list -> unit) (folder: string) =
    for split, rows in [ "train", [ 0..9 ]; "test", [ 10..13 ] ] do
        save
            (Path.Combine(folder, $"01-esc.{split}.{ending}"))
            [ "text", part text'.Value rows; "audio", part audio'.Value rows; "labels", kinds rows ]

    save (Path.Combine(folder, $"01-esc.classes.{ending}")) [ "text", matrix (numbers "classes" 3 5) ]
    File.WriteAllText(Path.Combine(folder, "01-esc.classes.txt"), "cat\ndog\nbird\n")

let writers: (string * (string -> unit)) list =
    [ "npy", writeNpy
      "npz", writeArrays "npz" zip
      "csv", (fun folder -> tables (writeCsv folder))
      "parquet", (fun folder -> tables (writeParquetBoth folder))
      "arrow", (fun folder -> tables (writeArrow folder))
      "hdf5", (fun folder -> tables (writeHdf5 folder))
      "pt", writeArrays "pt" torchSave
      "safetensors", writeArrays "safetensors" saveSafetensors ]

/// An import that has been spoilt by `spoil` and is refused with these words.
let spoilt (format: string) title (spoil: string -> unit) (words: string list) =
    inFolders $"{format}: {title}" (fun source out ->
        List.find (fst >> (=) format) writers |> snd <| source
        spoil source
        run format source out |> refused words out)

let npyFile name folder = Path.Combine(folder, name)

let publishOne (folder: string) =
    for split, count in [ "train", 8; "test", 4 ] do
        writeH5
            (Path.Combine(folder, $"ESC50_{split}_imagebind.h5"))
            [ for i in 0 .. count - 1 -> key $"tensor({i})" i, box (sample "ESC50" split i) ]

    writeH5
        (Path.Combine(folder, "ESC50_class_imagebind.h5"))
        [ for c in classes -> c, box (Array.init 6 (fun j -> float32 c.Length + float32 j)) ]

let second (o: ImportOptions) = { imagebind o with Steps = Some [ 2 ] }
