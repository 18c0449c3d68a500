module Cmcl.Tests.ExtractTests

open System
open System.IO
open Expecto
open SkiaSharp
open TorchSharp
open Cmcl
open Cmcl.Encoders
open Cmcl.Tests.Checks
open Cmcl.Tests.CliTests
open Cmcl.Tests.EncoderInputTests
open Cmcl.Tests.SoundInputTests

let place (folder: string) (name: string) = Path.Combine(folder, name)

/// 48 numbers of an image of 4 × 4 to two.
let w = [ for i in 0..95 -> float32 (i % 7) - 3f ]

let b = [ 0.5f; -1f ]

let imageDescription =
    """{ "format": "cmcl-encoder/1", "name": "made", "kind": "onnx", "file": "model.onnx",
  "image": { "resize": 4, "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7] } }"""

/// Twenty images, their manifest, a linear encoder for them.
let prepare (folder: string) : unit =
    File.WriteAllBytes(place folder "model.onnx", Models.linear [ -1L; 3L; 4L; 4L ] 2 w b)
    File.WriteAllText(place folder "encoder.json", imageDescription)
    Directory.CreateDirectory(place folder "images") |> ignore
    let random = Random 7

    for i in 0..19 do
        encode SKEncodedImageFormat.Png (place folder $"images/{i}.png") (pixels 4 (4 + i % 3) (fun _ _ _ -> random.Next 256))

    File.WriteAllLines(
        place folder "items.csv",
        "id,path,label" :: [ for i in 0..19 -> $"""item-{i},images/{i}.png,{[ "cat"; "dog"; "" ][i % 3]}""" ]
    )

let request (folder: string) : ExtractRequest =
    { Encoder = place folder "encoder.json"
      Manifest = place folder "items.csv"
      Out = place folder "bank.npy"
      Batch = 3
      Half = false
      Device = torch.CPU
      SkipMissing = false
      SkipUnreadable = false
      Restart = false }

let quietly = Extract.run ignore

/// The faults of a request, as sentences.
let private said (request: ExtractRequest) : string list = [ for fault in faultsOf (quietly request) -> fault.Message ]

let expectSaid (words: string list) (request: ExtractRequest) : unit =
    let sentences = String.Join("\n", said request)

    for word in words do
        Expect.stringContains sentences word "the sentence"

/// The features by the definition: every image prepared, flattened, x W + b.
let expected (folder: string) : torch.Tensor =
    let input =
        { plainImage 4 4 with
            Mean = ImageMean.Channels [ 0.1; 0.2; 0.3 ]
            Std = [ 0.5; 0.6; 0.7 ] }

    let rows =
        [| for i in 0..19 ->
               (Images.read input (place folder $"images/{i}.png") |> Check.get |> Images.prepare input).reshape(1L, 48L) |]

    let product = (torch.cat rows).mm(torch.tensor(Array.ofList w).reshape(48L, 2L))
    product .+ torch.tensor (Array.ofList b)

let folderTest name (body: string -> unit) = test name (fun () -> inFolder body)

let private banks =
    testList
        "banks"
        [ folderTest "images through an ONNX model: rows in the manifest's order, ids, labels" (fun folder ->
              prepare folder
              Expect.equal (quietly (request folder) |> Check.get) [| 20L; 2L |] "shape"
              let bank = Npy.read (place folder "bank.npy") |> Check.get
              same "features" single bank (expected folder)

              Expect.equal
                  (Ids.read (Ids.beside (place folder "bank.npy")) 20L |> Check.get)
                  [| for i in 0..19 -> $"item-{i}" |]
                  "ids"

              let items = BankItems.ofFile "a test" "the bank" 20L (ItemLists.beside (place folder "bank.npy")) |> Check.get

              for i, item in Array.indexed items do
                  Expect.equal
                      (item.Id, item.Path)
                      ($"item-{i}", Some(place folder $"images/{i}.png"))
                      "what a row was made from"

              let labels = Npy.read (place folder "bank.labels.npy") |> Check.get
              Expect.equal (labels.data<int64>().ToArray()) [| for i in 0..19 -> [ 0L; 1L; -1L ][i % 3] |] "labels"
              Expect.equal (File.ReadAllLines(place folder "bank.classes.txt")) [| "cat"; "dog" |] "classes"
              Expect.isFalse (Directory.Exists(Bank.partFolder (place folder "bank.npy"))) "nothing unfinished is left")
          folderTest "stopped after any batch, and with a batch half on disk, it goes on to the same bytes" (fun folder ->
              prepare folder
              let whole = request folder
              quietly whole |> Check.get |> ignore
              let bytes = File.ReadAllBytes whole.Out

              for stop in [ 3; 9; 18 ] do
                  for torn in [ false; true ] do
                      let again = { whole with Out = place folder $"again-{stop}-{torn}.npy" }

                      let stopAt =
                          function
                          | ExtractProgress.Done(items, _) when items = stop -> raise (OperationCanceledException())
                          | _ -> ()

                      Expect.throwsT<OperationCanceledException> (fun () -> Extract.run stopAt again |> ignore) "stopped"
                      Expect.isFalse (File.Exists again.Out) "no bank yet"

                      if torn then
                          // Rows without ids, and the begin of an id: what a sudden end may leave.
                          let part = Bank.partFolder again.Out
                          use rows = new FileStream(place part "rows.npy", FileMode.Append)
                          rows.Write(ReadOnlySpan [| 1uy; 2uy; 3uy; 4uy; 5uy; 6uy; 7uy; 8uy; 9uy |])
                          File.AppendAllText(place part "done.tsv", "0123456789abcdef\titem-9")

                      let told = ResizeArray()
                      Extract.run told.Add again |> Check.get |> ignore
                      Expect.equal told[0] (ExtractProgress.Done(stop, 20)) "what was done already"
                      Expect.equal (File.ReadAllBytes again.Out) bytes "the same bytes"

                      Expect.equal
                          (File.ReadAllText(Ids.beside again.Out))
                          (File.ReadAllText(Ids.beside whole.Out))
                          "the same ids"

                      Expect.equal
                          (File.ReadAllText(ItemLists.beside again.Out))
                          (File.ReadAllText(ItemLists.beside whole.Out))
                          "the same items")
          folderTest "what was begun with something else is not gone on with, unless it is begun anew" (fun folder ->
              prepare folder
              let asked = request folder

              let stopAt =
                  function
                  | ExtractProgress.Done(6, _) -> raise (OperationCanceledException())
                  | _ -> ()

              Expect.throwsT<OperationCanceledException> (fun () -> Extract.run stopAt asked |> ignore) "stopped"
              expectSaid [ "begun with another encoder"; "--restart" ] { asked with Half = true }
              let manifest = File.ReadAllText asked.Manifest
              File.WriteAllText(asked.Manifest, manifest.Replace("item-1,images/1.png", "item-1,images/2.png"))
              expectSaid [ "'item-1'"; "another source"; "--restart" ] asked
              File.WriteAllText(asked.Manifest, manifest)
              File.WriteAllText(asked.Encoder, imageDescription.Replace("0.1", "0.15"))
              expectSaid [ "begun with another encoder" ] asked
              Expect.equal (quietly { asked with Restart = true } |> Check.get) [| 20L; 2L |] "anew")
          folderTest "two at once are refused" (fun folder ->
              prepare folder
              use other = Bank.openOrResume false "key" torch.ScalarType.Float32 (request folder).Out |> Check.get
              Expect.isEmpty other.Written "nothing yet"
              expectSaid [ "cannot be written" ] (request folder))
          folderTest "float16, and numbers beyond it" (fun folder ->
              prepare folder
              let half = { request folder with Half = true }
              quietly half |> Check.get |> ignore
              let bank = Npy.read half.Out |> Check.get
              Expect.equal bank.dtype torch.float16 "type"
              same "features" 1e-3 bank (expected folder)
              File.WriteAllBytes(place folder "model.onnx", Models.linear [ -1L; 3L; 4L; 4L ] 2 w [ 1e6f; 0f ])
              expectSaid [ "'item-0' (line 2"; "beyond float16"; "--dtype float32" ] { half with Restart = true })
          folderTest "a model of a fixed number of items at once, the last ones filled up" (fun folder ->
              prepare folder

              for together in [ 1L; 2L; 4L ] do
                  File.WriteAllBytes(place folder "model.onnx", Models.linear [ together; 3L; 4L; 4L ] 2 w b)
                  quietly (request folder) |> Check.get |> ignore
                  same "features" single (Npy.read (place folder "bank.npy") |> Check.get) (expected folder))
          folderTest "texts, from JSON lines, with their mask" (fun folder ->
              clipFiles folder |> ignore
              File.WriteAllBytes(place folder "model.onnx", Models.tokens 6L)

              File.WriteAllText(
                  place folder "encoder.json",
                  """{ "format": "cmcl-encoder/1", "name": "t", "kind": "onnx", "file": "model.onnx", "input": "ids", "output": "y",
                       "text": { "tokenizer": "clip", "vocab": "vocab.json", "merges": "merges.txt", "context": 6, "mask": "mask" } }"""
              )

              File.WriteAllText(
                  place folder "items.jsonl",
                  "{\"id\": \"a\", \"text\": \"the cat\"}\n\n{\"id\": \"b\", \"text\": \"\\\"é\"}\n"
              )

              let asked =
                  { request folder with
                      Manifest = place folder "items.jsonl" }

              quietly asked |> Check.get |> ignore
              let tokens = { clipFiles folder with Context = 6 } |> Texts.reader |> Check.get

              let rows =
                  [ for text in [ "the cat"; "\"é" ] -> [ for id, kept in padded tokens 6 text ||> Seq.zip -> float (id * kept) ] ]

              same "token numbers" tight (Npy.read asked.Out |> Check.get) (Tensors.ofRows rows)
              Expect.isFalse (File.Exists(place folder "bank.labels.npy")) "no labels, no file"
              let items = BankItems.ofFile "a test" "the bank" 2L (ItemLists.beside asked.Out) |> Check.get
              Expect.equal [ for item in items -> item.Path, item.Text ] [ None, Some "the cat"; None, Some "\"é" ] "texts")
          folderTest "recordings" (fun folder ->
              let samples = [ for i in 0..199 -> 0.5 * sin (float i) ]
              File.WriteAllBytes(place folder "a.wav", wave 1 16 8000 1 (sixteen samples))
              let frames = 1L + 100L / 5L

              File.WriteAllBytes(
                  place folder "model.onnx",
                  Models.linear [ -1L; 4L; frames ] 1 (List.replicate (4 * int frames) 1f) [ 0f ]
              )

              File.WriteAllText(
                  place folder "encoder.json",
                  """{ "format": "cmcl-encoder/1", "name": "s", "kind": "onnx", "file": "model.onnx", "audio": { "rate": 4000, "seconds": 0.025,
                       "mel": { "fft": 16, "hop": 5, "mels": 4 } } }"""
              )

              File.WriteAllText(place folder "items.csv", "id,path\na,a.wav\n")
              quietly (request folder) |> Check.get |> ignore

              let sound =
                  { plainSound with
                      Rate = 4000
                      Seconds = Some 0.025
                      Mel =
                          Some
                              { plainMel with
                                  Window = 16
                                  FMin = 0.0
                                  FMax = 2000.0
                                  Floor = 1e-10 } }

              let spectrogram = Wave.read 1.0 (place folder "a.wav") |> Check.get |> Sound.prepare None sound |> Check.get |> fst
              Expect.equal spectrogram.shape [| 1L; 4L; frames |] "frames"
              near "their sum" 1e-4 (item (Npy.read (place folder "bank.npy") |> Check.get)) (item (spectrogram.sum ()))) ]

let private scripts =
    let described (folder: string) more =
        prepare folder

        File.WriteAllText(
            place folder "encoder.json",
            imageDescription.Replace(
                "\"kind\": \"onnx\", \"file\": \"model.onnx\"",
                "\"kind\": \"torchscript\", \"file\": \"model.pt\"" + more
            )
        )

    testList
        "TorchScript"
        [ folderTest "a module that returns a tensor, and one that returns two" (fun folder ->
              described folder ""

              Models.script
                  (place folder "model.pt")
                  "x: Tensor"
                  "Tensor"
                  [ "y = torch.flatten(x, 1)"; "return torch.mul(y, 2.)" ]

              quietly (request folder) |> Check.get |> ignore
              let twice = Npy.read (place folder "bank.npy") |> Check.get
              Expect.equal twice.shape [| 20L; 48L |] "shape"
              described folder ", \"output\": \"1\""
              File.Delete(place folder "model.pt")

              Models.script
                  (place folder "model.pt")
                  "x: Tensor"
                  "Tuple[Tensor, Tensor]"
                  [ "y = torch.flatten(x, 1)"; "return (y, torch.mul(y, 2.))" ]

              quietly (request folder) |> Check.get |> ignore
              identical "the second" (Npy.read (place folder "bank.npy") |> Check.get) twice
              described folder ", \"output\": \"2\""
              expectSaid [ "no output of"; "'2'"; "Known: 0, 1" ] (request folder))
          folderTest "pickles are refused with the reason, before libtorch sees them" (fun folder ->
              described folder ""
              Models.pickled (place folder "model.pt")
              expectSaid [ "model.pt"; "pickled"; "torch.jit.save" ] (request folder)
              File.WriteAllBytes(place folder "model.pt", [| 0x80uy; 2uy; byte '.' |])
              expectSaid [ "model.pt"; "not a TorchScript archive"; "pickled" ] (request folder))
          folderTest "a program that fails" (fun folder ->
              described folder ""
              Models.script (place folder "model.pt") "x: Tensor" "Tensor" [ "return torch.mm(x, x)" ]
              expectSaid [ "model.pt"; "the module failed" ] (request folder)) ]

let private mistakes =
    let images name (change: string -> unit) (words: string list) =
        folderTest name (fun folder ->
            prepare folder
            change folder
            expectSaid words (request folder))

    let described name (from: string) (into: string) words =
        images name (fun folder -> File.WriteAllText(place folder "encoder.json", imageDescription.Replace(from, into))) words

    let listed name (content: string) words =
        images name (fun folder -> File.WriteAllText(place folder "items.csv", content)) words

    let modelled name (model: unit -> byte[]) words =
        images name (fun folder -> File.WriteAllBytes(place folder "model.onnx", model ())) words

    testList
        "mistakes"
        [ images "no description" (fun f -> File.Delete(place f "encoder.json")) [ "encoder.json"; "does not exist" ]
          images "no model" (fun f -> File.Delete(place f "model.onnx")) [ "model.onnx"; "does not exist" ]
          described "broken JSON" "{ \"format\"" "{ format" [ "encoder.json"; "cannot be read" ]
          described "another format" "encoder/1" "encoder/2" [ "'format'"; "cmcl-encoder/1" ]
          described "an unknown key" "\"mean\"" "\"means\"" [ "unknown key 'means'"; "did you mean 'mean'" ]
          described "a missing key" "\"resize\": 4, " "" [ "no 'resize'" ]
          described "two numbers for three channels" "[0.1, 0.2, 0.3]" "[0.1, 0.2]" [ "'mean'"; "three numbers" ]
          described "a crop beyond what is left" "\"resize\": 4" "\"resize\": 4, \"crop\": 5" [ "'crop'"; "at most 4" ]
          described "no kind of input" "\"image\"" "\"name2\"" [ "one of 'image', 'text' and 'audio'" ]
          described "another kind of model" "\"onnx\"" "\"onyx\"" [ "'onyx'"; "did you mean 'onnx'" ]
          described
              "an input that the model lacks"
              "\"image\":"
              "\"input\": \"z\", \"image\":"
              [ "no input of"; "'z'"; "Known: x" ]
          described
              "an output that the model lacks"
              "\"image\":"
              "\"output\": \"z\", \"image\":"
              [ "no output of"; "'z'"; "Known: y" ]
          described
              "another size than the model's"
              "\"resize\": 4"
              "\"resize\": 8"
              [ "input 'x'"; "[any × 3 × 4 × 4], as the model says"; "[3 × 3 × 8 × 8] by the description" ]
          modelled "no model inside" (fun () -> [| 1uy; 2uy; 3uy |]) [ "model.onnx"; "cannot be read" ]
          modelled "a model of texts" (fun () -> Models.tokens 6L) [ "more than one input (ids, mask)" ]
          modelled
              "a model that gives NaN"
              (fun () -> Models.linear [ -1L; 3L; 4L; 4L ] 2 w [ nanf; 0f ])
              [ "'item-0' (line 2"; "NaN" ]
          images "no manifest" (fun f -> File.Delete(place f "items.csv")) [ "items.csv"; "does not exist" ]
          listed "an empty manifest" "" [ "it is empty" ]
          listed "nothing named" "id,path\n" [ "nothing to encode" ]
          listed "an unknown column" "id,file\na,b\n" [ "the header has 'file'"; "id, path, text, label, sha256" ]
          listed "no path" "id,text\na,b\n" [ "line 2"; "'a' has no path" ]
          listed "an id twice" "id,path\na,images/1.png\nb,images/2.png\na,images/3.png\n" [ "line 4"; "the id of line 2" ]
          listed "no id" "id,path\n,images/1.png\n" [ "line 2"; "no id" ]
          listed "fields missing" "id,path,label\na,images/1.png\n" [ "line 2"; "2 fields instead of 3" ]
          listed "quotes" "id,path\n\"a,images/1.png\n" [ "quotes" ]
          listed "many wrong lines" ("id,path\n" + String.replicate 50 ",x\n") [ "line 2:"; "line 21:"; "30 more lines" ]
          folderTest "missing files are all told first, or left out" (fun folder ->
              prepare folder

              for i in [ 4; 11; 19 ] do
                  File.Delete(place folder $"images/{i}.png")

              let asked = request folder
              let sentences = said asked
              Expect.hasLength sentences 3 "all of them"
              Expect.stringContains sentences[0] "line 6 of" "the line"
              Expect.stringContains sentences[2] "19.png" "the file"
              Expect.isFalse (Directory.Exists(Bank.partFolder asked.Out)) "nothing begun"
              let told = ResizeArray()
              Expect.equal (Extract.run told.Add { asked with SkipMissing = true } |> Check.get) [| 17L; 2L |] "shape"

              Expect.equal (told |> Seq.filter _.IsSkipped |> Seq.length) 3 "told"
              let ids = Ids.read (Ids.beside asked.Out) 17L |> Check.get
              Expect.equal ids[4] "item-5" "ids"
              let items = BankItems.ofFile "a test" "the bank" 17L (ItemLists.beside asked.Out) |> Check.get
              Expect.equal [| for item in items -> item.Id |] ids "items as ids")
          folderTest "unreadable files are named, what was done stays, and they may be left out" (fun folder ->
              prepare folder
              File.WriteAllText(place folder "images/7.png", "no image")
              let asked = request folder
              expectSaid [ "7.png"; "not an image" ] asked
              let told = ResizeArray()
              Expect.equal (Extract.run told.Add { asked with SkipUnreadable = true } |> Check.get) [| 19L; 2L |] "shape"
              Expect.equal told[0] (ExtractProgress.Done(6, 20)) "what the first run did"
              let items = BankItems.ofFile "a test" "the bank" 19L (ItemLists.beside asked.Out) |> Check.get

              Expect.equal
                  (items[7].Id, items[7].Path)
                  ("item-8", Some(place folder "images/8.png"))
                  "items after the one left out"

              for i in 0..19 do
                  File.WriteAllText(place folder $"images/{i}.png", "no image")

              expectSaid [ "none of its items could be read" ] { asked with SkipUnreadable = true }) ]

let private command =
    testList
        "command"
        [ folderTest "extract, quietly and not; not twice without --force" (fun folder ->
              prepare folder
              let asked = request folder
              let extract more = cmcl ([ "extract"; asked.Encoder; asked.Manifest; "-o"; asked.Out; "--threads"; "1" ] @ more)
              let told = extract []
              Expect.equal told.Code 0 told.Error
              Expect.stringContains told.Out "[20 × 2]" "the shape"
              Expect.stringContains told.Error "20/20 items" "progress"
              extract [] |> expectRefused [ "bank.npy"; "exists already"; "--force" ]
              Expect.equal (extract [ "--force"; "-q" ]) { Code = 0; Out = ""; Error = "" } "quietly"
              extract [ "--force"; "--dtype"; "int8" ] |> expectRefused [ "--dtype takes float32 or float16" ]
              extract [ "--force"; "--batch"; "0" ] |> expectRefused [ "--batch takes" ]
              extract [ "--forse" ] |> expectRefused [ "no option '--forse'"; "did you mean '--force'" ])
          folderTest "missing images: refused" (fun folder ->
              prepare folder
              File.Delete(place folder "images/3.png")
              let asked = request folder

              cmcl [ "extract"; asked.Encoder; asked.Manifest; "-o"; asked.Out ] |> expectRefused [ "3.png"; "line 5 of" ]) ]

let tests = testSequenced (testList "Extract" [ banks; scripts; mistakes; command ])
