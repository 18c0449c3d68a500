module Cmcl.Tests.ImportPublishedTests

open System
open System.IO
open Expecto
open TorchSharp
open Cmcl
open Cmcl.Tests.Checks
open Cmcl.Tests.ImportFiles

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
              Importer.run importer (only Importer.defaults) { treatment with ZeroRows = true } false ignore source out
              |> Check.get

          Expect.exists notes (fun note -> note.Contains "kept rows of zeros") "told"
          Expect.stringContains (loaded out).Description "kept rows of zeros" "said in the stream"
          File.Copy(Path.Combine(source, "LLVIP_test_imagebind.h5"), Path.Combine(source, "LLVIP_train_imagebind.h5"), true)

          Importer.run importer (only Importer.defaults) { treatment with Normalise = true } true ignore source out
          |> Check.get
          |> ignore

          let features = (loaded out).Banks["vision:LLVIP"].Features
          same "lengths" single (features.norm (1, false)) (torch.ones (8L, dtype = Nullable torch.float32)))

      testCase "HDF5 that is no HDF5, or cut short" (fun () ->
          inFolder (fun folder ->
              let path = Path.Combine(folder, "x.h5")
              writeH5 path [ for i in 0..4 -> key (string i) i, box (sample "LLVIP" "train" i) ]
              let good = File.ReadAllBytes path
              Expect.equal (Hdf5Table.contents path |> Check.get).Length 5 "whole"

              let told (bytes: byte[]) (word: string) =
                  File.WriteAllBytes(path, bytes)

                  match Hdf5Table.contents path with
                  | Error [ Fault.Unreadable(_, reason) ] -> Expect.stringContains reason word "reason"
                  | other -> failtest $"%A{other}"

              told [||] "it is empty"
              told (Array.replicate 4096 1uy) "not a valid HDF 5 file"
              told good[.. good.Length - 2] "only"
              told good[..200] "too small"
              Expect.isError (Hdf5Table.contents (path + "x")) "missing"))

      testCase "nine thousand samples, each of an array of its own" (fun () ->
          inFolder (fun folder ->
              let path = Path.Combine(folder, "x.h5")
              let values i = [| for j in 0..3 -> float32 (4 * i + j) |]
              writeH5 path [ for i in 0..8999 -> $"{i:D5}", box (values i) ]
              let table = Hdf5Table.read path |> Check.get
              Expect.equal (table.Words "id" |> Check.get) [| for i in 0..8999 -> $"{i:D5}" |] "ids"
              let read = ResizeArray()
              table.Numbers [ "features" ] (fun _ block -> read.Add(block.MoveToOuterDisposeScope())) |> Check.get
              identical "features" (torch.cat (read.ToArray())) (matrix (array2D [ for i in 0..8999 -> values i ])))) ]

let tests = testList "import published" published
