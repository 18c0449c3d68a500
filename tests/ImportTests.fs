module Cmcl.Tests.ImportTests

open System
open System.Diagnostics
open System.IO
open System.IO.Compression
open System.Text
open System.Threading
open Expecto
open FsCheck
open FsCheck.FSharp
open Parquet
open Parquet.Schema
open PureHDF
open TorchSharp
open Cmcl
open Cmcl.Tests.Checks

// ---- folders and files -------------------------------------------------------------------------------------------

let private inFolder (act: string -> unit) =
    let folder = Directory.CreateTempSubdirectory "cmcl-import"

    try
        use scope = torch.NewDisposeScope()
        act folder.FullName
    finally
        folder.Delete true

let private inFolders name (act: string -> string -> unit) =
    testCase name (fun () ->
        inFolder (fun folder ->
            let source = Directory.CreateDirectory(Path.Combine(folder, "in")).FullName
            act source (Path.Combine(folder, "out"))))

/// Numbers that say by their size where they stand: of a purpose, row by row.
let private numbers (purpose: string) (rows: int) (columns: int) : float32[,] =
    let drawn = Seed.normal [ int64 rows; int64 columns ] (Seed.ofInt 0 |> Seed.split purpose)
    let values = drawn.``to``(torch.float32).data<float32>().ToArray()
    Array2D.init rows columns (fun i j -> values[i * columns + j])

let private matrix (values: float32[,]) = torch.tensor values

let private rowsOf (values: float32[,]) (rows: int seq) =
    array2D [ for i in rows -> [ for j in 0 .. values.GetLength 1 - 1 -> values[i, j] ] ]

let private treatment = { Normalise = false; ZeroRows = false }

let private run' name change source out =
    Importer.run (Importer.find name |> Check.get) (change Importer.defaults) treatment false source out

let private run name source out = run' name id source out

let private loaded (out: string) : Stream = StreamFolder.load out |> Check.get

/// Refused with these words, nothing written.
let private refused (words: string list) (out: string) (result: Result<'a, Fault list>) =
    match result with
    | Ok _ -> failtest "imported"
    | Error faults ->
        let told = String.Join("\n", faults |> List.map _.Message)

        for word in words do
            Expect.stringContains told word "what is told"

        let left = Directory.GetFileSystemEntries(Path.GetDirectoryName out |> string) |> Array.map Path.GetFileName
        Expect.sequenceEqual left [| "in" |] "nothing is left"

// ---- the published layout ----------------------------------------------------------------------------------------

/// Writes by another library's code: one array a key.
let private writeH5 (path: string) (arrays: (string * objnull) list) =
    let file = H5File()

    for key, values in arrays do
        file[key] <- nonNull values

    file.Write path

let private sets = [ "UCF101", 2; "ESC50", 2; "NYUDv2", 3; "Clotho", 2; "VGGSound-S", 3; "TVL", 3; "LLVIP", 2 ]

let private classes = [ "a cat"; "b (dog)"; "über" ]
let private key id i = $"{id}__{classes[i % 3]}__{i % 3}"

let private sample (set: string) (split: string) (i: int) : float32[,] =
    numbers $"{set} {split} {i}" (List.find (fst >> (=) set) sets |> snd) 6

/// All files of the seven sets: 12 training samples each, whose keys are not in the order of their numbers, and 5 to test.
let private publish (folder: string) =
    for set, _ in sets do
        for split, count in [ "train", 12; "test", 5 ] do
            writeH5
                (Path.Combine(folder, $"{set}_{split}_imagebind.h5"))
                [ for i in 0 .. count - 1 -> key $"tensor({i})" i, box (sample set split i) ]

        writeH5
            (Path.Combine(folder, $"{set}_class_imagebind.h5"))
            [ for c in classes @ [ "unused" ] -> c, box (Array.init 6 (fun j -> float32 c.Length + float32 j)) ]

let private imagebind (o: ImportOptions) = { o with Backbone = Some "imagebind" }

/// Sample numbers in the order of their keys.
let private inKeyOrder (count: int) =
    [ 0 .. count - 1 ] |> List.sortWith (fun a b -> String.CompareOrdinal(key $"tensor({a})" a, key $"tensor({b})" b))

let private published =
    [ inFolders "the paper's eleven steps, with every feature where it belongs" (fun source out ->
          publish source
          run' "cmcl-h5" imagebind source out |> Check.get |> ignore
          let stream = loaded out

          Expect.equal
              [ for s in stream.Steps -> $"{s.Pair}" ]
              [ "text–video"
                "text–audio"
                "vision–depth"
                "text–audio"
                "text–audio"
                "text–video"
                "audio–video"
                "vision–tactile"
                "text–tactile"
                "vision–text"
                "vision–thermal" ]
              "pairs"

          Expect.equal
              [ for s in stream.Steps -> s.Name.Split(' ')[0] ]
              [ "UCF101"
                "ESC50"
                "NYUDv2"
                "Clotho"
                "VGGSound-S"
                "VGGSound-S"
                "VGGSound-S"
                "TVL"
                "TVL"
                "TVL"
                "LLVIP" ]
              "data sets"

          Expect.equal
              [ for s in stream.Steps do
                    if s.Accuracy.IsSome then
                        s.Index, s.Accuracy.Value.Items.Split(':')[0] ]
              [ 1, "video"; 2, "audio"; 5, "audio"; 6, "video" ]
              "accuracy"

          Expect.equal stream.Preset (Presets.find "paper-imagebind" |> Check.get) "preset"

          let depth = stream.Banks["depth:NYUDv2"].Features

          let expected =
              [ for split, n in [ "train", 12; "test", 5 ] do
                    for i in inKeyOrder n -> [ for j in 0..5 -> (sample "NYUDv2" split i)[2, j] ] ]

          identical "the third of three modalities, in the order of keys" depth (matrix (array2D expected))

          let step = stream.Steps[0]
          Expect.equal step.Test [| 12L .. 16L |] "test rows are the test file's"

          Expect.equal
              (Array.sort (Array.append step.Train step.Validation))
              [| 0L .. 11L |]
              "train and validation make the training file"

          Expect.equal step.Validation.Length 1 "a tenth, and one at least"
          let accuracy = step.Accuracy.Value
          Expect.equal accuracy.Classes classes "classes of the rows, in the order of their names; the unused one is left out"

          Expect.equal
              accuracy.Labels
              [| for n in [ 12; 5 ] do
                     for i in inKeyOrder n -> int64 (i % 3) |]
              "labels"

          Expect.stringContains stream.Description "0.1" "the description says the share")

      testCase "keys: ids wrapped, and with underscores of their own" (fun () ->
          Expect.equal (Published.parse "tensor(17)__playing flute__4") (Some { Id = "17"; Class = "playing flute" }) "wrapped"
          Expect.equal (Published.parse "v__1__x__dog__0") (Some { Id = "v__1__x"; Class = "dog" }) "underscores"

          for bad in [ ""; "a"; "a__b"; "a__b__c"; "a__b__" ] do
              Expect.isNone (Published.parse bad) bad)

      inFolders "a data set that is missing is named, with what can still be run, and the rest can be chosen" (fun source out ->
          publish source
          File.Delete(Path.Combine(source, "TVL_test_imagebind.h5"))
          File.Delete(Path.Combine(source, "UCF101_class_imagebind.h5"))

          run' "cmcl-h5" imagebind source out
          |> refused [ "TVL_test_imagebind.h5"; "steps 8,9,10"; "UCF101_class_imagebind.h5"; "--steps 2,3,4,5,6,7,11" ] out

          run' "cmcl-h5" (fun o -> { imagebind o with Steps = Some [ 3; 11 ] }) source out |> Check.get |> ignore
          Expect.equal [ for s in (loaded out).Steps -> s.Name ] [ "NYUDv2 vision–depth"; "LLVIP vision–thermal" ] "chosen steps")

      inFolders "what is wrong in a file is named with file, key and row" (fun source out ->
          let good i = key $"tensor({i})" i, box (sample "LLVIP" "train" i)
          let only = fun o -> { imagebind o with Steps = Some [ 11 ] }
          let write arrays = writeH5 (Path.Combine(source, "LLVIP_train_imagebind.h5")) arrays
          writeH5 (Path.Combine(source, "LLVIP_test_imagebind.h5")) [ good 0; good 1 ]
          let told words = run' "cmcl-h5" only source out |> refused ("LLVIP_train_imagebind.h5" :: words) out

          let at (x: float32) =
              let m = numbers "nan" 2 6 in
              m[1, 2] <- x
              box m

          write [ good 0; good 1; key "x" 2, box (numbers "wide" 2 7) ]
          told [ "row 2"; "x__über__2"; "d = 6"; "2 × 7" ]
          write [ good 0; good 1; key "x" 2, box (numbers "tall" 3 6) ]
          told [ "row 2"; "2 × d (vision, thermal)"; "3 × 6" ]
          write [ good 0; good 1; key "x" 2, box (Array2D.create 2 6 1.0) ]
          told [ "row 2"; "float32"; "float64" ]
          write [ good 0; good 1; key "x" 2, box (Array2D.create 2 6 1) ]
          told [ "x__über__2"; "integers" ]
          write [ good 0; good 1; key "x" 2, at nanf ]
          told [ "row 2"; "x__über__2"; "NaN" ]
          write [ good 0; good 1; key "x" 2, box (Array2D.zeroCreate<float32> 2 6) ]
          told [ "rows of zeros"; "2 ('x__über__2')"; "--allow-zero-rows" ]
          write [ good 0; good 1; key "1" 1, box (sample "LLVIP" "train" 1) ]
          told [ "one sample twice"; "'1__b (dog)__1'"; "'tensor(1)__b (dog)__1'" ]
          write [ good 0; good 1; "no parts", box (numbers "wide" 2 6) ]
          told [ "{id}__{class}__{class index}"; "no parts" ])

      inFolders "a class in the test file that has no text feature" (fun source out ->
          publish source
          writeH5 (Path.Combine(source, "ESC50_test_imagebind.h5")) [ "0__rooster__9", box (sample "ESC50" "test" 0) ]

          run' "cmcl-h5" imagebind source out
          |> refused [ "ESC50_class_imagebind.h5"; "'rooster'"; "row 0"; "0__rooster__9"; "ESC50_test_imagebind.h5" ] out)

      inFolders "rows of zeros are kept when asked for, rows are scaled when asked for" (fun source out ->
          for split in [ "train"; "test" ] do
              writeH5
                  (Path.Combine(source, $"LLVIP_{split}_imagebind.h5"))
                  [ for i in 0..3 ->
                        key (string i) i,
                        box (if i = 2 && split = "train" then Array2D.zeroCreate<float32> 2 6 else sample "LLVIP" split i) ]

          let only = fun o -> { imagebind o with Steps = Some [ 11 ] }
          let importer = Importer.find "cmcl-h5" |> Check.get

          let notes =
              Importer.run importer (only Importer.defaults) { treatment with ZeroRows = true } false source out |> Check.get

          Expect.exists notes (fun note -> note.Contains "kept rows of zeros") "told"
          Expect.stringContains (loaded out).Description "kept rows of zeros" "said in the stream"
          File.Copy(Path.Combine(source, "LLVIP_test_imagebind.h5"), Path.Combine(source, "LLVIP_train_imagebind.h5"), true)

          Importer.run importer (only Importer.defaults) { treatment with Normalise = true } true source out
          |> Check.get
          |> ignore

          let features = (loaded out).Banks["vision:LLVIP"].Features
          same "lengths" single (features.norm (1, false)) (torch.ones (8L, dtype = Nullable torch.float32)))

      testCase "HDF5 that is no HDF5, or cut short" (fun () ->
          inFolder (fun folder ->
              let path = Path.Combine(folder, "x.h5")
              writeH5 path [ for i in 0..4 -> key (string i) i, box (sample "LLVIP" "train" i) ]
              let good = File.ReadAllBytes path
              Expect.equal (Hdf5.entries path |> Check.get).Length 5 "whole"

              let told (bytes: byte[]) (word: string) =
                  File.WriteAllBytes(path, bytes)

                  match Hdf5.entries path with
                  | Error [ Fault.Unreadable(_, reason) ] -> Expect.stringContains reason word "reason"
                  | other -> failtest $"%A{other}"

              told [||] "not an HDF5 file"
              told (Array.append [| 0x80uy; 2uy |] good) "pickle"
              told good[.. good.Length - 2] "only"
              told good[..200] "only"
              Expect.isError (Hdf5.entries (path + "x")) "missing")) ]

// ---- files by their names ----------------------------------------------------------------------------------------

let private save (folder: string) (name: string) (t: torch.Tensor) = Npy.write (Path.Combine(folder, name)) t |> Check.get

/// A step of 10 train, 4 test rows: text (d = 5) and audio (d = 3), three classes.
let private text', audio' = lazy numbers "text" 14 5, lazy numbers "audio" 14 3
let private part values (rows: int seq) = matrix (rowsOf values rows)
let private kinds (rows: int seq) = torch.tensor [| for i in rows -> int64 (i % 3) |]

let private writeNpy (folder: string) =
    for split, rows in [ "train", [ 0..9 ]; "test", [ 10..13 ] ] do
        save folder $"01-esc.text.{split}.npy" (part text'.Value rows)
        save folder $"01-esc.audio.{split}.npy" (part audio'.Value rows)
        save folder $"01-esc.labels.{split}.npy" (kinds rows)

    save folder "01-esc.text.classes.npy" (matrix (numbers "classes" 3 5))
    File.WriteAllText(Path.Combine(folder, "01-esc.classes.txt"), "cat\ndog\nbird\n")

/// What a step of these rows becomes, whatever the format.
let private expectStep (out: string) =
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
let private rawNpy (path: string) (descr: string) (fortran: string) (shape: string) (body: byte[]) =
    let header = $"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}".PadRight 117 + "\n"
    File.WriteAllBytes(path, Array.concat [ [| 0x93uy |]; "NUMPY\x01\x00v\x00"B; Encoding.ASCII.GetBytes header; body ])

let private bytesOf (values: float32 seq) = values |> Seq.collect BitConverter.GetBytes |> Array.ofSeq

let private zip (path: string) (arrays: (string * torch.Tensor) list) =
    use file = ZipFile.Open(path, ZipArchiveMode.Create)
    let temporary = path + ".array"

    for name, values in arrays do
        Npy.write temporary values |> Check.get
        file.CreateEntryFromFile(temporary, name + ".npy") |> ignore

    File.Delete temporary

let private writeNpz (folder: string) =
    for split, rows in [ "train", [ 0..9 ]; "test", [ 10..13 ] ] do
        zip
            (Path.Combine(folder, $"01-esc.{split}.npz"))
            [ "text", part text'.Value rows; "audio", part audio'.Value rows; "labels", kinds rows ]

    zip (Path.Combine(folder, "01-esc.classes.npz")) [ "text", matrix (numbers "classes" 3 5) ]
    File.WriteAllText(Path.Combine(folder, "01-esc.classes.txt"), "cat\ndog\nbird\n")

let private names = [| "cat"; "dog"; "bird" |]

/// Every row as its id, its label, its numbers; audio in the other order than text, labels with text only.
let private tables (write: string -> (string * string option * float32[]) list -> unit) =
    let row label (values: float32[,]) i =
        $"id-{i}", (if label then Some names[i % 3] else None), [| for j in 0 .. values.GetLength 1 - 1 -> values[i, j] |]

    for split, rows in [ "train", [ 0..9 ]; "test", [ 10..13 ] ] do
        write $"01-esc.text.{split}" [ for i in rows -> row true text'.Value i ]
        write $"01-esc.audio.{split}" [ for i in List.rev rows -> row false audio'.Value i ]

    let prototypes = numbers "classes" 3 5
    write "01-esc.text.classes" [ for i in 0..2 -> names[i], None, [| for j in 0..4 -> prototypes[i, j] |] ]

let private writeCsv (folder: string) (name: string) (rows: (string * string option * float32[]) list) =
    let _, label, first = rows.Head
    let header = [ "id" ] @ (if label.IsSome then [ "label" ] else []) @ List.init first.Length (fun j -> $"f{j}")

    let line (id: string, label: string option, values: float32[]) : string =
        String.Join(
            ",",
            [ yield id
              yield! Option.toList label
              for v in values do
                  yield v.ToString("R", Globalization.CultureInfo.InvariantCulture) ]
        )

    File.WriteAllLines(Path.Combine(folder, name + ".csv"), String.Join(",", header) :: List.map line rows)

/// By another library's code, in groups of four rows.
let private writeParquet (folder: string) (name: string) (rows: (string * string option * float32[]) list) =
    let _, label, _ = rows.Head

    let id, features, kind =
        DataField<string> "id", ListField("vector", DataField<float32> "element"), DataField<string> "label"

    let schema =
        ParquetSchema(
            [| id :> Parquet.Schema.Field
               features
               if label.IsSome then
                   kind |]
        )

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

let private writers: (string * (string -> unit)) list =
    [ "npy", writeNpy
      "npz", writeNpz
      "csv", (fun folder -> tables (writeCsv folder))
      "parquet", (fun folder -> tables (writeParquet folder)) ]

/// An import that has been spoilt by `spoil` and is refused with these words.
let private spoilt (format: string) title (spoil: string -> unit) (words: string list) =
    inFolders $"{format}: {title}" (fun source out ->
        List.find (fst >> (=) format) writers |> snd <| source
        spoil source
        run format source out |> refused words out)

let private npyFile name folder = Path.Combine(folder, name)

let private named =
    [ for format, write in writers do
          inFolders $"{format} files become a step, with its classes" (fun source out ->
              write source
              run format source out |> Check.get |> ignore
              expectStep out)

      inFolders "validation rows of one's own; a stream of several steps in the order of names" (fun source out ->
          writeNpy source
          save source "00-first.vision.train.npy" (matrix (numbers "v" 4 7))
          save source "00-first.text.train.npy" (matrix (numbers "t" 4 5))
          save source "00-first.vision.validation.npy" (matrix (numbers "w" 2 7))
          save source "00-first.text.validation.npy" (matrix (numbers "u" 2 5))
          save source "00-first.vision.test.npy" (matrix (numbers "x" 3 7))
          save source "00-first.text.test.npy" (matrix (numbers "y" 3 5))
          run' "npy" (fun o -> { o with Order = [ "text" ]; Name = Some "mine" }) source out |> Check.get |> ignore
          let stream = loaded out

          Expect.equal
              (stream.Name, [ for s in stream.Steps -> s.Name, string s.Pair ])
              ("mine", [ "00-first", "text–vision"; "01-esc", "text–audio" ])
              "steps"

          let first = stream.Steps.Head
          Expect.equal (first.Train, first.Validation, first.Test) ([| 0L .. 3L |], [| 4L; 5L |], [| 6L .. 8L |]) "splits")

      inFolders "a matrix in Fortran order is read right" (fun source out ->
          writeNpy source
          let values = rowsOf text'.Value [ 0..9 ]

          rawNpy
              (npyFile "01-esc.text.train.npy" source)
              "'<f4'"
              "True"
              "(10, 5)"
              (bytesOf
                  [ for j in 0..4 do
                        for i in 0..9 -> values[i, j] ])

          run "npy" source out |> Check.get |> ignore
          expectStep out)

      spoilt
          "npy"
          "big-endian numbers"
          (fun f -> rawNpy (npyFile "01-esc.text.train.npy" f) "'>f4'" "False" "(10, 5)" (Array.zeroCreate 200))
          [ "01-esc.text.train.npy"; "big-endian" ]
      spoilt
          "npy"
          "objects"
          (fun f -> rawNpy (npyFile "01-esc.text.train.npy" f) "'|O'" "False" "(10, 5)" (Array.zeroCreate 200))
          [ "Python objects" ]
      spoilt
          "npy"
          "integers for features"
          (fun f -> save f "01-esc.text.train.npy" (torch.ones (10L, 5L, dtype = Nullable torch.int64)))
          [ "01-esc.text.train.npy"; "float16, float32 or float64"; "int64" ]
      spoilt
          "npy"
          "a header that promises more than there is"
          (fun f -> rawNpy (npyFile "01-esc.text.train.npy" f) "'<f4'" "False" "(1000000000, 1000000)" [| 0uy |])
          [ "promises 4000000000000000 bytes"; "1 follow" ]
      spoilt
          "npy"
          "a pickle under another name"
          (fun f -> File.WriteAllBytes(npyFile "01-esc.text.train.npy" f, [| 0x80uy; 4uy; 1uy |]))
          [ "pickle" ]
      spoilt
          "npy"
          "a file of torch.save"
          (fun f -> File.WriteAllBytes(npyFile "02-x.text.train.pt" f, "PK.."B))
          [ "02-x.text.train.pt"; "pickle"; "numpy.save" ]
      spoilt
          "npy"
          "rows that do not match"
          (fun f -> save f "01-esc.audio.test.npy" (matrix (numbers "x" 3 3)))
          [ "01-esc.audio.test.npy"; "4 rows"; "got 3" ]
      spoilt
          "npy"
          "two dimensions of one modality"
          (fun f -> save f "01-esc.audio.test.npy" (matrix (numbers "x" 4 2)))
          [ "01-esc.audio.test.npy"; "d = 3"; "d = 2" ]
      spoilt
          "npy"
          "no test rows"
          (fun f -> File.Delete(npyFile "01-esc.audio.test.npy" f))
          [ "01-esc.audio.test"; "does not exist" ]
      spoilt
          "npy"
          "three modalities in a step"
          (fun f -> save f "01-esc.video.train.npy" (matrix (numbers "x" 10 3)))
          [ "two modalities"; "text, audio, video" ]
      spoilt
          "npy"
          "a label without a class"
          (fun f -> save f "01-esc.labels.test.npy" (torch.tensor [| 0L; 1L; 3L; 0L |]))
          [ "row 2"; "01-esc.labels.test.npy"; "'3'" ]
      spoilt "npy" "no labels for classes" (fun f -> File.Delete(npyFile "01-esc.labels.test.npy" f)) [ "01-esc.labels.test" ]
      spoilt
          "npy"
          "a row of zeros"
          (fun f -> save f "01-esc.text.train.npy" (matrix (array2D [ for i in 0..9 -> List.replicate 5 (float32 (i % 4)) ])))
          [ "rows of zeros"; "0, 4, 8" ]
      spoilt
          "npy"
          "a NaN"
          (fun f ->
              save
                  f
                  "01-esc.text.train.npy"
                  (matrix (array2D [ for i in 0..9 -> List.replicate 5 (if i = 7 then nanf else 1f) ])))
          [ "01-esc.text.train.npy"; "row 7" ]
      spoilt
          "npy"
          "one modality with two sizes in two steps"
          (fun f ->
              for m, d in [ "text", 4; "audio", 3 ] do
                  for s in [ "train"; "test" ] do
                      save f $"02-x.{m}.{s}.npy" (matrix (numbers "x" 4 d)))
          [ "d = 4"; "d = 5"; "one head" ]
      spoilt
          "npz"
          "an array that is no modality"
          (fun f -> zip (npyFile "02-x.train.npz" f) [ "../../x", matrix (numbers "x" 2 3) ])
          [ "02-x.train.npz"; "../../x" ]
      spoilt
          "npz"
          "a file cut short"
          (fun f -> let p = npyFile "01-esc.train.npz" f in File.WriteAllBytes(p, (File.ReadAllBytes p)[..300]))
          [ "01-esc.train.npz" ]
      spoilt
          "csv"
          "a field that is no number"
          (fun f ->
              let p = npyFile "01-esc.text.train.csv" f in
              File.WriteAllText(p, File.ReadAllText(p).Replace("id-2,bird,", "id-2,bird,x")))
          [ "01-esc.text.train.csv"; "row 2"; "line 4"; "is not a number" ]
      spoilt
          "csv"
          "no ids"
          (fun f -> let p = npyFile "01-esc.text.train.csv" f in File.WriteAllText(p, File.ReadAllText(p).Replace("id,", "key,")))
          [ "no 'id'" ]
      spoilt
          "csv"
          "a line that is too short"
          (fun f -> File.AppendAllText(npyFile "01-esc.text.train.csv" f, "id-99,cat,1\n"))
          [ "row 10"; "3 fields instead of 7" ]
      spoilt
          "csv"
          "an id twice"
          (fun f -> File.AppendAllText(npyFile "01-esc.text.train.csv" f, "id-3,cat,1,2,3,4,5\n"))
          [ "ids twice: id-3" ]
      spoilt
          "csv"
          "a class without a feature"
          (fun f -> let p = npyFile "01-esc.text.test.csv" f in File.WriteAllText(p, File.ReadAllText(p).Replace("bird", "cow")))
          [ "01-esc.text.test.csv"; "cow" ]
      spoilt
          "parquet"
          "rows of different lengths"
          (fun f ->
              writeParquet
                  f
                  "01-esc.audio.test"
                  [ for i in 10..13 -> $"id-{i}", None, Array.create (if i = 12 then 2 else 3) 1f ])
          [ "01-esc.audio.test.parquet"; "row 2"; "id-12"; "d = 2" ]
      spoilt
          "parquet"
          "a file cut short"
          (fun f -> let p = npyFile "01-esc.text.train.parquet" f in File.WriteAllBytes(p, (File.ReadAllBytes p)[..300]))
          [ "01-esc.text.train.parquet"; "cut short" ]

      for format, write in [ "csv", writeCsv; "parquet", writeParquet ] do
          inFolders
              $"{format}: ids that one modality has and the other has not are listed, and left out only when asked"
              (fun source out ->
                  tables (write source)
                  write source "01-esc.audio.train" [ for i in 2..25 -> $"id-{i}", None, Array.create 3 (float32 (i + 1)) ]

                  run format source out
                  |> refused
                      [ "01-esc.audio.train"
                        "has 16 ids"
                        "id-10, id-11"
                        "and 6 more"
                        "has 2 ids"
                        "id-0, id-1"
                        "--drop-unmatched" ]
                      out

                  let notes = run' format (fun o -> { o with DropUnmatched = true }) source out |> Check.get
                  Expect.exists notes (fun n -> n.StartsWith "left out" && n.Contains "16 ids") "told"
                  let step = (loaded out).Steps.Head
                  identical "text rows" step.A.Features (part text'.Value [ 2..13 ])
                  Expect.equal [ for i in 0..7 -> entry step.B.Features i 0 ] [ for i in 2..9 -> float (i + 1) ] "audio rows")

      inFolders "names of files never lead out of the folder" (fun source out ->
          for m in [ "text"; "audio" ] do
              for s in [ "train"; "test" ] do
                  save source $"...{m}.{s}.npy" (matrix (numbers m 4 3))
                  save source $"<b>&$( ~.{m}.{s}.npy" (matrix (numbers m 4 3))

          run "npy" source out |> Check.get |> ignore

          let stray (path: string) =
              Path.GetFileName path |> string |> Seq.exists (fun c -> not (Char.IsAsciiLetterOrDigit c || "-_.".Contains c))

          Expect.isEmpty (Directory.GetFiles(out, "*", SearchOption.AllDirectories) |> Array.filter stray) "plain names"
          Expect.equal (Directory.GetFileSystemEntries(Path.GetDirectoryName out |> string)).Length 2 "nothing beside")

      inFolders "a stream is replaced only when asked, other things never" (fun source out ->
          writeNpy source
          run "npy" source out |> Check.get |> ignore
          Expect.equal (run "npy" source out) (Error [ Fault.Occupied out ]) "occupied"
          Importer.run (Importer.find "npy" |> Check.get) Importer.defaults treatment true source out |> Check.get |> ignore
          let inside = Path.Combine(source, "..")
          Expect.isError (StreamWriter.prepare true source inside) "the source itself"
          Expect.isError (StreamWriter.prepare true out source) "a folder of other things"
          Expect.equal (Directory.GetFiles source).Length 8 "all is there still") ]

// ---- the writer --------------------------------------------------------------------------------------------------

let private writer =
    [ testCase "a stream file written from a description reads as that description" (fun () ->
          inFolder (fun folder ->
              let emoji =
                  StreamFile.read (Path.Combine(__SOURCE_DIRECTORY__, "..", "data", "emoji", "stream.json")) |> Check.get

              let path = Path.Combine(folder, "stream.json")
              File.WriteAllText(path, StreamWriter.json emoji)
              Expect.equal (StreamFile.read path) (Ok emoji) "same"))

      testProperty "validation rows: a share, and both parts keep at least a row" (fun (seed: int) (PositiveInt n) ->
          let n = int64 (n + 1)
          let train, held = Draft.hold 0.1 (Seed.ofInt seed) n
          Expect.equal (Array.sort (Array.append train held)) [| 0L .. n - 1L |] "all rows"
          Expect.isTrue (train.Length > 0 && held.Length > 0) "none empty"
          Expect.equal (Draft.hold 0.1 (Seed.ofInt seed) n) (train, held) "the same again")

      testCase "an import of many rows holds little memory" (fun () ->
          inFolder (fun folder ->
              let source = Directory.CreateDirectory(Path.Combine(folder, "in")).FullName

              for m in [ "text"; "audio" ] do
                  zeros (Path.Combine(source, $"1.{m}.train.npy")) 60_000L 512L
                  zeros (Path.Combine(source, $"1.{m}.test.npy")) 10L 512L

              let importer = Importer.find "npy" |> Check.get

              let run () =
                  Importer.run
                      importer
                      Importer.defaults
                      { treatment with ZeroRows = true }
                      false
                      source
                      (Path.Combine(folder, "out"))
                  |> Check.get
                  |> ignore

              let most = taken run
              Expect.isLessThan most (60L <<< 20) "of 120 MB that were written")) ]

// ---- any bytes ---------------------------------------------------------------------------------------------------

type private Mutation =
    | Set of place: int * value: byte
    | Word of place: int * value: int64
    | Ones of place: int
    | Copy of from: int * into: int * length: int
    | Cut of place: int
    | Insert of place: int * value: byte

let private mutation: Gen<Mutation> =
    let place = Gen.choose (0, Int32.MaxValue - 1)

    Gen.frequency
        [ 6, Gen.map2 (fun p v -> Set(p, byte v)) place (Gen.choose (0, 255))
          3, Gen.map3 (fun p v shift -> Word(p, (int64 v <<< 31 ||| int64 v) >>> shift)) place place (Gen.choose (0, 62))
          2, Gen.map Ones place
          3, Gen.map3 (fun f t l -> Copy(f, t, l)) place place (Gen.choose (1, 64))
          1, Gen.map Cut place
          1, Gen.map2 (fun p v -> Insert(p, byte v)) place (Gen.choose (0, 255)) ]

/// A file changed; half of the changes fall into its first or last 300 bytes, where most of a format's structure lies.
let private mutate (bytes: byte[]) (change: Mutation) : byte[] =
    let n = bytes.Length

    let at p room =
        match p % 4 with
        | 0 -> (p / 4) % (min 300 (n - room))
        | 1 -> max 0 (n - room - 1 - (p / 4) % (min 300 (n - room)))
        | _ -> p % (n - room)

    if n < 80 then
        bytes
    else
        let copy = Array.copy bytes

        match change with
        | Set(p, v) -> copy[at p 1] <- v
        | Word(p, v) -> BitConverter.GetBytes(v).CopyTo(copy, at p 8)
        | Ones p -> Array.fill copy (at p 8) 8 255uy
        | Copy(f, t, l) -> Array.blit bytes (at f l) copy (at t l) l
        | Cut _
        | Insert _ -> ()

        match change with
        | Cut p -> bytes[.. at p 1]
        | Insert(p, v) -> Array.insertAt (at p 1) v copy
        | _ -> copy

/// How many cases a format is tried with: few in the tests, as many as CMCL_FUZZ says otherwise.
let private cases =
    match Int32.TryParse(Environment.GetEnvironmentVariable "CMCL_FUZZ") with
    | true, n -> n
    | _ -> 40

/// Imports a folder in which one file was changed: in a thread of its own, within ten seconds, with memory of a bounded size, and
/// to nothing but a stream or faults.
let private fuzz (format: string) (change: ImportOptions -> ImportOptions) (write: string -> unit) =
    testCase $"{format}: {cases} files with random changes are imported or refused" (fun () ->
        inFolder (fun folder ->
            let source, out = Directory.CreateDirectory(Path.Combine(folder, "in")).FullName, Path.Combine(folder, "out")
            write source
            let files = Directory.GetFiles source |> Array.filter (fun f -> not (f.EndsWith ".txt")) |> Array.sort
            let originals = files |> Array.map File.ReadAllBytes
            let mutable refused, most, longest = 0, 0L, 0.0

            let holds (which: int, changes: Mutation list) =
                let which = which % files.Length
                File.WriteAllBytes(files[which], List.fold mutate originals[which] changes)
                let mutable thrown: exn option = None
                let watch = Stopwatch.StartNew()

                let work () =
                    try
                        use scope = torch.NewDisposeScope()
                        let before = GC.GetAllocatedBytesForCurrentThread()

                        match
                            Importer.run
                                (Importer.find format |> Check.get)
                                (change Importer.defaults)
                                treatment
                                true
                                source
                                out
                        with
                        | Ok _ -> ()
                        | Error faults ->
                            refused <- refused + 1

                            for fault in faults do
                                if fault.Message.Length < 10 then
                                    failwith "no words"

                        most <- max most (GC.GetAllocatedBytesForCurrentThread() - before)
                    with e ->
                        thrown <- Some e

                let thread = Thread(work, 16 <<< 20, IsBackground = true)
                thread.Start()
                let ended = thread.Join 10_000
                longest <- max longest watch.Elapsed.TotalSeconds
                File.Copy(files[which], Path.Combine(Path.GetTempPath(), $"cmcl-last-{format}"), true)
                File.WriteAllBytes(files[which], originals[which])
                Expect.isTrue ended "within ten seconds"
                thrown |> Option.iter (fun e -> failtest $"{e}")
                Expect.isLessThan most (64L <<< 20) "bytes of managed memory"

            let arbitrary =
                Gen.zip (Gen.choose (0, 1000)) (Gen.choose (1, 4) |> Gen.bind (fun n -> Gen.listOfLength n mutation))
                |> Arb.fromGen

            Check.One(Config.QuickThrowOnFailure.WithMaxTest(cases).WithQuietOnSuccess true, Prop.forAll arbitrary holds)
            Expect.isGreaterThan refused (cases / 20) "most changes are noticed"

            if cases > 1000 then
                printfn
                    "%s: %d cases, %d refused, the longest %.2f s, the most %d KiB allocated"
                    format
                    cases
                    refused
                    longest
                    (most >>> 10)))

let private publishOne (folder: string) =
    for split, count in [ "train", 8; "test", 4 ] do
        writeH5
            (Path.Combine(folder, $"ESC50_{split}_imagebind.h5"))
            [ for i in 0 .. count - 1 -> key $"tensor({i})" i, box (sample "ESC50" split i) ]

    writeH5
        (Path.Combine(folder, "ESC50_class_imagebind.h5"))
        [ for c in classes -> c, box (Array.init 6 (fun j -> float32 c.Length + float32 j)) ]

let private second (o: ImportOptions) = { imagebind o with Steps = Some [ 2 ] }

// ---- other programs ----------------------------------------------------------------------------------------------

/// A Python that has these modules, or a test skipped.
let private python (modules: string) (program: string) (arguments: string list) =
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

/// The numbers that the program below writes: of a row, a modality, a column.
let private made (offset: int) (i: int) (m: int) (j: int) = float32 (offset + 100 * i + 10 * m + j) / 8f

let private writeByH5py =
    """
import h5py, numpy as np, sys
folder, libver = sys.argv[1], sys.argv[2]
for split, n, offset in [("train", 300, 0), ("test", 20, 7)]:
    with h5py.File(f"{folder}/ESC50_{split}_imagebind.h5", "w", libver=None if libver == "default" else libver) as f:
        for i in range(n):
            v = (offset + 100 * i + 10 * np.arange(2)[:, None] + np.arange(6)[None, :] + 0.0) / 8
            f.create_dataset(f"tensor({i})__class {i % 3}__{i % 3}", data=v.astype("f4"))
with h5py.File(f"{folder}/ESC50_class_imagebind.h5", "w") as f:
    for c in range(3): f.create_dataset(f"class {c}", data=np.arange(6, dtype="f4") + c)
"""

let private others =
    [ inFolders "files written by h5py are imported to equal arrays" (fun source out ->
          python "h5py, numpy" writeByH5py [ source; "default" ]
          run' "cmcl-h5" second source out |> Check.get |> ignore
          let stream = loaded out
          let order n = [ 0 .. n - 1 ] |> List.sortWith (fun a b -> String.CompareOrdinal($"tensor({a})__", $"tensor({b})__"))

          let expected =
              array2D
                  [ for n, offset in [ 300, 0; 20, 7 ] do
                        for i in order n -> [ for j in 0..5 -> made offset i 1 j ] ]

          identical "audio" stream.Banks["audio:ESC50"].Features (matrix expected)

          identical
              "prototypes"
              stream.Steps.Head.Accuracy.Value.Prototypes
              (matrix (array2D [ for c in 0..2 -> [ for j in 0..5 -> float32 (c + j) ] ])))

      inFolders "what h5py writes in other ways is refused with the reason" (fun source out ->
          let chunked =
              "import h5py, numpy as np, sys\nwith h5py.File(sys.argv[1] + '/ESC50_train_imagebind.h5', 'w') as f: f.create_dataset('0__a__0', data=np.ones((2, 6), 'f4'), compression='gzip')"

          python "h5py, numpy" (writeByH5py + chunked) [ source; "default" ]
          run' "cmcl-h5" second source out |> refused [ "ESC50_train_imagebind.h5"; "chunked" ] out
          python "h5py, numpy" writeByH5py [ source; "latest" ]
          run' "cmcl-h5" second source out |> refused [ "ESC50_train_imagebind.h5"; "libver" ] out)

      inFolders "files written by NumPy are imported to equal arrays" (fun source out ->
          let program =
              "import numpy as np, sys\nfor s, n in [('train', 30), ('test', 5)]:\n  for m, d, t in [('text', 4, '<f2'), ('audio', 3, '<f8')]:\n    a = (np.arange(n * d).reshape(n, d) + 1).astype(t)\n    np.save(f'{sys.argv[1]}/1.{m}.{s}.npy', np.asfortranarray(a) if m == 'audio' else a)\n  np.savez_compressed(f'{sys.argv[1]}/1.{s}.npz', text=(np.arange(n * 4).reshape(n, 4) + 1).astype('<f2'), audio=(np.arange(n * 3).reshape(n, 3) + 1).astype('<f8'))"

          python "numpy" program [ source ]

          let expected rows columns =
              array2D
                  [ for n in rows do
                        for i in 0 .. n - 1 -> [ for j in 0 .. columns - 1 -> float (i * columns + j + 1) ] ]

          for format in [ "npy"; "npz" ] do
              let out = out + format
              run format source out |> Check.get |> ignore
              let step = (loaded out).Steps.Head

              Expect.equal
                  (step.A.Features.dtype, step.B.Features.dtype)
                  (torch.ScalarType.Float16, torch.ScalarType.Float64)
                  "types as stored"

              same "text" tight step.A.Features (torch.tensor (expected [ 30; 5 ] 4))
              same "audio" tight step.B.Features (torch.tensor (expected [ 30; 5 ] 3))) ]

let tests =
    testList
        "import"
        [ testList "published" published
          testList "named" named
          testList "writer" writer
          testList "other programs" others
          testList
              "any bytes"
              [ fuzz "cmcl-h5" second publishOne
                for format, write in writers do
                    fuzz format id write ] ]
