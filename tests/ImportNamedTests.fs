module Cmcl.Tests.ImportNamedTests

open System
open System.IO
open Expecto
open FsCheck
open TorchSharp
open Cmcl
open Cmcl.Tests.Checks
open Cmcl.Tests.ImportFiles

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

      inFolders "big-endian numbers are read right" (fun source out ->
          writeNpy source
          let values = rowsOf text'.Value [ 0..9 ]
          let turned = bytesOf (Seq.cast<float32> values) |> Array.chunkBySize 4 |> Array.collect Array.rev
          rawNpy (npyFile "01-esc.text.train.npy" source) "'>f4'" "False" "(10, 5)" turned
          run "npy" source out |> Check.get |> ignore
          expectStep out)
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
          (fun f -> File.WriteAllBytes(npyFile "02-x.text.train.npy" f, "PK.."B))
          [ "02-x.text.train.npy"; "zip file"; "numpy.save" ]
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
          [ "row 2"; "01-esc.labels.test.npy"; "'3'"; "cat, dog, bird" ]
      spoilt
          "npy"
          "no labels for classes"
          (fun f -> File.Delete(npyFile "01-esc.labels.test.npy" f))
          [ "01-esc.audio.test.npy"; "a class for each row" ]
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
          (fun f -> zip (npyFile "02-x.train.npz" f) [ "../../a b", matrix (numbers "x" 2 3) ])
          [ "02-x.train.npz"; "../../a b"; "ids or labels" ]
      spoilt
          "npz"
          "one file for a step, with features of no modality's name"
          (fun f -> zip (npyFile "02-x.train.npz" f) [ "features", matrix (numbers "x" 2 3) ])
          [ "features of two modalities"; "got 02-x ("; "02-x.train.npz" ]
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
          "ids in one modality alone"
          (fun f ->
              let p = npyFile "01-esc.text.train.csv" f in File.WriteAllText(p, File.ReadAllText(p).Replace("id,", "note,")))
          [ "01-esc.text.train.csv"; "has none (a column 'id')"; "give ids to both" ]
      spoilt
          "csv"
          "a line that is too short"
          (fun f -> File.AppendAllText(npyFile "01-esc.text.train.csv" f, "id-99,cat,1\n"))
          [ "row 10"; "3 fields instead of 7" ]
      inFolders "csv: an id twice is an item with two matches" (fun source out ->
          tables (writeCsv source)
          File.AppendAllText(npyFile "01-esc.text.train.csv" source, "id-3,cat,1,2,3,4,5\n")
          let notes = run "csv" source out |> Check.get
          Expect.exists notes (fun n -> n.Contains "ids stand more than once") "told"
          let step = (loaded out).Steps.Head
          let pairs = step.Pairs.Value
          Expect.equal (step.A.Features.shape[0], step.B.Features.shape[0], pairs.A.Length) (15L, 14L, 15) "rows and pairs"
          // Audio stands in the other order.
          let audio3 = [ 0..13 ] |> List.find (fun i -> entry step.B.Features i 0 = float audio'.Value[3, 0]) |> int64

          let own =
              [ for i in 0..14 do
                    if pairs.B[i] = audio3 then
                        entry step.A.Features (int pairs.A[i]) 0 ]

          Expect.equal own [ float text'.Value[3, 0]; 1.0 ] "both rows of id-3")

      spoilt
          "csv"
          "a class without a feature"
          (fun f -> let p = npyFile "01-esc.text.test.csv" f in File.WriteAllText(p, File.ReadAllText(p).Replace("bird", "cow")))
          [ "01-esc.text.test.csv"; "row 1"; "'cow'" ]
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
          [ "01-esc.text.train.parquet"; "its reader says"; "magic bytes not found" ]

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

      inFolders "items of several steps are in one split, where ids say which are the same" (fun source out ->
          /// Steps of the items 0 to 59 and 30 to 89; the first feature is the item's number.
          let write (id: string -> int -> string) =
              for step, items in [ "1-a", [ 0..59 ]; "2-b", List.rev [ 30..89 ] ] do
                  for m in (if step = "1-a" then [ "vision"; "text" ] else [ "audio"; "text" ]) do
                      File.WriteAllLines(
                          Path.Combine(source, $"{step}.{m}.csv"),
                          "id,f0,f1" :: [ for i in items -> $"{id step i},{i},1.5" ]
                      )

          let imported () =
              Importer.run (Importer.find "csv" |> Check.get) Importer.defaults treatment true ignore source out |> Check.get

          /// Items that one step learns from and that are held out in another.
          let leaks () =
              let steps = (loaded out).Steps
              let items (step: Step) (rows: int64[]) = set [ for row in rows -> int (entry step.A.Features (int row) 0) ]
              let learned = steps |> List.map (fun step -> items step step.Train) |> Set.unionMany
              let held = steps |> List.map (fun step -> items step (Array.append step.Test step.Validation)) |> Set.unionMany
              Set.intersect learned held

          write (fun _ i -> $"item-{i}")
          Expect.exists (imported ()) (fun note -> note.StartsWith "30 of 90 items are in several steps") "told"
          Expect.isEmpty (leaks ()) "one split"
          let tested = (loaded out).Steps |> List.sumBy _.Test.Length
          Expect.isTrue (tested >= 18 && tested <= 36) "a fifth of 90 items, those of both steps twice"
          // Ids of their own in each step: then nothing says which items are the same.
          write (fun step i -> $"{step}-{i}")
          Expect.isFalse (imported () |> List.exists _.Contains("several steps")) "not told"
          Expect.isNonEmpty (leaks ()) "two splits")

      inFolders "without ids, rows of several steps are taken for different items, and that is said" (fun source out ->
          for step in [ "1-a"; "2-b" ] do
              for m in [ "text"; "audio" ] do
                  save source $"{step}.{m}.npy" (matrix (numbers (step + m) 20 3))

          Expect.exists (run "npy" source out |> Check.get) (fun note -> note.StartsWith "1-a, 2-b have no ids") "told")

      inFolders "names of files never lead out of the folder" (fun source out ->
          for m in [ "text"; "audio" ] do
              for s in [ "train"; "test" ] do
                  save source $"...{m}.{s}.npy" (matrix (numbers m 4 3))
                  save source $"<b>&$( ~.{m}.{s}.npy" (matrix (numbers m 4 3))

          run "npy" source out |> Check.get |> ignore

          let stray (path: string) =
              Path.GetFileName path |> string |> Seq.exists (fun c -> not (Char.IsAsciiLetterOrDigit c || "-_.~".Contains c))

          Expect.isEmpty (Directory.GetFiles(out, "*", SearchOption.AllDirectories) |> Array.filter stray) "plain names"
          Expect.equal (Directory.GetFileSystemEntries(Path.GetDirectoryName out |> string)).Length 2 "nothing beside")

      inFolders "a stream is replaced only when asked, other things never" (fun source out ->
          writeNpy source
          run "npy" source out |> Check.get |> ignore
          Expect.equal [ for fault in faultsOf (run "npy" source out) -> fault.Message ] [ occupied out ] "occupied"

          Importer.run (Importer.find "npy" |> Check.get) Importer.defaults treatment true ignore source out
          |> Check.get
          |> ignore

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
              File.WriteAllText(path, StreamFile.json emoji)
              Expect.equal (StreamFile.read path) (Ok emoji) "same"))

      testProperty "validation rows: a share, and both parts keep at least a row" (fun (seed: int) (PositiveInt n) ->
          let n = int64 (n + 1)
          let train, held = StreamDraft.hold 0.1 (Seed.ofInt seed) n
          Expect.equal (Array.sort (Array.append train held)) [| 0L .. n - 1L |] "all rows"
          Expect.isTrue (train.Length > 0 && held.Length > 0) "none empty"
          Expect.equal (StreamDraft.hold 0.1 (Seed.ofInt seed) n) (train, held) "the same again")

      testCase "an import of many rows holds little memory" (fun () ->
          inFolder (fun folder ->
              let source = Directory.CreateDirectory(Path.Combine(folder, "in")).FullName

              for m in [ "text"; "audio" ] do
                  zeros (Path.Combine(source, $"1.{m}.train.npy")) 120_000L 512L
                  zeros (Path.Combine(source, $"1.{m}.test.npy")) 10L 512L

              let importer = Importer.find "npy" |> Check.get

              let run () =
                  Importer.run
                      importer
                      Importer.defaults
                      { treatment with ZeroRows = true }
                      false
                      ignore
                      source
                      (Path.Combine(folder, "out"))
                  |> Check.get
                  |> ignore

              let most = taken run
              Expect.isLessThan most (100L <<< 20) "of 240 MB that were written")) ]

let tests = testList "import by names" [ testList "files" named; testList "writer" writer ]
