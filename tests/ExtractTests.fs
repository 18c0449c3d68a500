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

let private place (folder: string) (name: string) = Path.Combine(folder, name)

/// 48 numbers of an image of 4 × 4 to two.
let private w = [ for i in 0..95 -> float32 (i % 7) - 3f ]

let private b = [ 0.5f; -1f ]

let private imageDescription =
    """{ "format": "cmcl-encoder/1", "name": "made", "kind": "onnx", "file": "model.onnx",
  "image": { "resize": 4, "mean": [0.1, 0.2, 0.3], "std": [0.5, 0.6, 0.7] } }"""

/// Twenty images, their manifest, a linear encoder for them.
let private prepare (folder: string) : unit =
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

let private request (folder: string) : ExtractRequest =
    { Encoder = place folder "encoder.json"
      Manifest = place folder "items.csv"
      Out = place folder "bank.npy"
      Batch = 3
      Half = false
      Device = torch.CPU
      SkipMissing = false
      SkipUnreadable = false
      Restart = false }

let private quietly = Extract.run ignore

/// The faults of a request, as sentences.
let private said (request: ExtractRequest) : string list = [ for fault in faultsOf (quietly request) -> fault.Message ]

let private expectSaid (words: string list) (request: ExtractRequest) : unit =
    let sentences = String.Join("\n", said request)

    for word in words do
        Expect.stringContains sentences word "the sentence"

/// The features by the definition: every image prepared, flattened, x W + b.
let private expected (folder: string) : torch.Tensor =
    let input =
        { plainImage 4 4 with
            Mean = ImageMean.Channels [ 0.1; 0.2; 0.3 ]
            Std = [ 0.5; 0.6; 0.7 ] }

    let rows =
        [| for i in 0..19 ->
               (Images.read input (place folder $"images/{i}.png") |> Check.get |> Images.prepare input).reshape(1L, 48L) |]

    let product = (torch.cat rows).mm(torch.tensor(Array.ofList w).reshape(48L, 2L))
    product .+ torch.tensor (Array.ofList b)

let private folderTest name (body: string -> unit) = test name (fun () -> inFolder body)

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
                          "the same ids")
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
              Expect.isFalse (File.Exists(place folder "bank.labels.npy")) "no labels, no file")
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

/// What models give is pooled, models go before models, inputs that do not matter are zeros.
let private shapes =
    let texts (folder: string) (description: string) =
        clipFiles folder |> ignore
        File.WriteAllText(place folder "encoder.json", description)
        File.WriteAllText(place folder "items.csv", "id,text\na,the cat\nb,the\nc,\"the cat and the hat, the hat\"\n")
        request folder

    /// Token states: of n × t numbers, [n × t × 2] with the number and its square.
    let pooled (pool: string) (more: string) =
        $$"""{ "format": "cmcl-encoder/1", "name": "t", "kind": "onnx", "file": "model.onnx", "input": "ids", "output": "last_hidden_state", {{more}}
               "text": { "tokenizer": "clip", "vocab": "vocab.json", "merges": "merges.txt", "context": 6, "mask": "mask", {{pool}} } }"""

    let numbers (folder: string) =
        let reader = { clipFiles folder with Context = 6 } |> Texts.reader |> Check.get
        [ for text in [ "the cat"; "the"; "the cat and the hat, the hat" ] -> (reader.Read text).Ids |> Array.map float ]

    testList
        "shapes"
        [ folderTest
              "pooled by mean over tokens, and by the first; padding makes no difference; what is cut is counted"
              (fun folder ->
                  for pool, expected in
                      [ "mean", (fun (ids: float[]) -> [ Array.average ids; ids |> Array.averageBy (fun x -> x * x) ])
                        "cls", (fun ids -> [ ids[0]; ids[0] * ids[0] ]) ] do
                      for padding in [ ""; ", \"padding\": \"context\""; ", \"padding\": \"longest\"" ] do
                          let asked = texts folder (pooled $"\"pool\": \"{pool}\"{padding}" "")
                          File.WriteAllBytes(place folder "model.onnx", Models.states -1L)
                          let told = ResizeArray()
                          Extract.run told.Add asked |> Check.get |> ignore
                          let rows = [ for ids in numbers folder -> expected ids ]
                          same $"{pool}{padding}" single (Npy.read asked.Out |> Check.get) (Tensors.ofRows rows)

                          let cut =
                              told
                              |> Seq.sumBy (function
                                  | ExtractProgress.Shortened n -> n
                                  | _ -> 0)

                          Expect.equal cut 1 "one text is longer"
                          File.Delete asked.Out)
          folderTest "and must fail: the mean without the mask is another" (fun folder ->
              let asked = texts folder (pooled "\"pool\": \"mean\", \"padding\": \"context\"" "")
              File.WriteAllBytes(place folder "model.onnx", Models.states -1L)
              quietly asked |> Check.get |> ignore
              let mean = item ((Npy.read asked.Out |> Check.get).select(0L, 1L).select(0L, 0L))
              let ids = (numbers folder)[1]
              let last = ids[ids.Length - 1]
              let padding = Array.replicate (6 - ids.Length) last
              Expect.isGreaterThan (abs (mean - Array.average (Array.append ids padding))) 1e-3 "padding would count")
          folderTest "tokens that are not pooled, and vectors that are, say what the description should" (fun folder ->
              let asked = texts folder (pooled "\"lower\": true" "")
              File.WriteAllBytes(place folder "model.onnx", Models.states -1L)
              expectSaid [ "last_hidden_state"; "one vector for each of 3"; "'pool'"; "mean or cls" ] asked
              File.WriteAllText(asked.Encoder, (pooled "\"pool\": \"mean\"" "").Replace("last_hidden_state", "y"))
              File.WriteAllBytes(place folder "model.onnx", Models.tokens -1L)
              expectSaid [ "to be pooled"; "leave out 'pool'" ] asked
              File.WriteAllText(asked.Encoder, (pooled "\"lower\": true" "\"columns\": 7, ").Replace("last_hidden_state", "y"))
              expectSaid [ "7 columns, as its description says" ] asked)
          folderTest "an output that looks like a pooler is doubted, and taken" (fun folder ->
              let description = (pooled "\"padding\": \"context\"" "").Replace("last_hidden_state", "first")
              let asked = texts folder description
              File.WriteAllBytes(place folder "model.onnx", Models.states -1L)
              let told = ResizeArray()
              Extract.run told.Add asked |> Check.get |> ignore

              match
                  List.ofSeq told
                  |> List.choose (function
                      | ExtractProgress.Doubt sentence -> Some sentence
                      | _ -> None)
              with
              | [ sentence ] ->
                  Expect.stringContains sentence "'first'" "the output"
                  Expect.stringContains sentence "last_hidden_state" "what to take"
              | other -> failtest $"%A{other}")
          folderTest "a model before the model, scaled and shifted" (fun folder ->
              prepare folder

              let twice =
                  [ for i in 0..47 do
                        for j in 0..47 -> if i = j then 2f else 0f ]

              File.WriteAllBytes(place folder "before.onnx", Models.linear [ -1L; 3L; 4L; 4L ] 48 twice (List.replicate 48 0f))
              File.WriteAllBytes(place folder "model.onnx", Models.linear [ -1L; 48L; 1L ] 2 w b)
              let before = "\"before\": { \"file\": \"before.onnx\", \"scale\": 0.5, \"shift\": 0.25 }, \"image\":"
              File.WriteAllText(place folder "encoder.json", imageDescription.Replace("\"image\":", before))
              quietly (request folder) |> Check.get |> ignore
              let shift = torch.tensor(Array.ofList w).reshape(48L, 2L).sum(0L) * number 0.25
              same "features" single (Npy.read (place folder "bank.npy") |> Check.get) (expected folder .+ shift))
          folderTest "an input that does not matter is zeros, of the type that it has" (fun folder ->
              prepare folder
              File.WriteAllBytes(place folder "model.onnx", Models.withTokens 2 w b)
              expectSaid [ "more than one input (x, ids)" ] (request folder)
              let named = imageDescription.Replace("\"image\":", "\"input\": \"x\", \"image\":")
              File.WriteAllText(place folder "encoder.json", named)
              expectSaid [ "the model also takes ids" ] (request folder)

              File.WriteAllText(
                  place folder "encoder.json",
                  imageDescription.Replace("\"image\":", "\"input\": \"x\", \"zeros\": { \"ids\": [2] }, \"image\":")
              )

              quietly (request folder) |> Check.get |> ignore
              same "features" single (Npy.read (place folder "bank.npy") |> Check.get) (expected folder))
          folderTest "a model in float16" (fun folder ->
              prepare folder
              File.WriteAllBytes(place folder "model.onnx", Models.half [ -1L; 3L; 4L; 4L ])
              quietly (request folder) |> Check.get |> ignore
              let bank = Npy.read (place folder "bank.npy") |> Check.get

              let input =
                  { plainImage 4 4 with
                      Mean = ImageMean.Channels [ 0.1; 0.2; 0.3 ]
                      Std = [ 0.5; 0.6; 0.7 ] }

              let image = Images.read input (place folder "images/0.png") |> Check.get |> Images.prepare input
              same "numbers" 1e-3 (bank.select (0L, 0L)) (image.reshape -1L))
          folderTest "windows of a recording: the mean of their features; recordings of other lengths beside" (fun folder ->
              let samples n = [ for i in 0 .. n - 1 -> 0.5 * sin (float i) ]

              for name, n in [ "a", 200; "b", 90; "c", 200 ] do
                  File.WriteAllBytes(place folder $"{name}.wav", wave 1 16 8000 1 (sixteen (samples n)))

              File.WriteAllBytes(place folder "model.onnx", Models.linear [ -1L; 40L ] 2 (List.truncate 80 w) b)

              File.WriteAllText(
                  place folder "encoder.json",
                  """{ "format": "cmcl-encoder/1", "name": "s", "kind": "onnx", "file": "model.onnx",
                       "audio": { "rate": 8000, "windows": { "length": 40, "hop": 20 } } }"""
              )

              File.WriteAllText(place folder "items.csv", "id,path\na,a.wav\nb,b.wav\nc,c.wav\n")
              quietly (request folder) |> Check.get |> ignore
              let weights = torch.tensor(Array.ofList (List.truncate 80 w)).reshape(40L, 2L)

              let features (name: string) =
                  let x = torch.tensor (Recordings.read 1.0 (place folder $"{name}.wav") |> Check.get).Samples
                  let rows = x.unfold (0L, 40L, 20L)
                  (rows.mm weights .+ torch.tensor (Array.ofList b)).mean [| 0L |]

              same
                  "features"
                  single
                  (Npy.read (place folder "bank.npy") |> Check.get)
                  (torch.stack [ features "a"; features "b"; features "c" ])

              // Nine windows of a: three in each third.
              let description = File.ReadAllText(place folder "encoder.json")
              File.WriteAllText(place folder "encoder.json", description.Replace("\"hop\": 20", "\"hop\": 20, \"parts\": 3"))
              File.WriteAllText(place folder "items.csv", "id,path\na,a.wav\n")
              quietly (request folder) |> Check.get |> ignore
              let x = torch.tensor (Recordings.read 1.0 (place folder "a.wav") |> Check.get).Samples
              let windows = (x.unfold (0L, 40L, 20L)).mm weights .+ torch.tensor (Array.ofList b)
              let thirds = torch.cat [| for part in 0L .. 2L -> windows.narrow(0L, 3L * part, 3L).mean [| 0L |] |]
              same "thirds" single (Npy.read (place folder "bank.npy") |> Check.get) (thirds.unsqueeze 0L)
              File.WriteAllText(place folder "encoder.json", description)
              File.WriteAllText(place folder "items.csv", "id,path\na,a.wav\nshort,short.wav\n")
              File.WriteAllBytes(place folder "short.wav", wave 1 16 8000 1 (sixteen (samples 30)))
              expectSaid [ "short.wav"; "30 frames, fewer than the 40"; "'shortest'" ] { request folder with Restart = true })
          test "frames of a recording's own length are pooled, and not those of the silence behind it" (fun () ->
              let output = torch.tensor([| for i in 0..19 -> float32 i |]).reshape(2L, 5L, 2L)
              let rows = Pooling.rows "y" Pool.Mean None [ 1.0; 0.4 ] output
              same "the first whole, two of five of the second" single rows (Tensors.ofRows [ [ 4.0; 5.0 ]; [ 11.0; 12.0 ] ]))
          folderTest "transparency over a background; without one it is dropped" (fun folder ->
              let path = place folder "a.png"
              use bitmap = new SKBitmap(SKImageInfo(2, 1, SKColorType.Rgba8888, SKAlphaType.Unpremul))
              bitmap.SetPixel(0, 0, SKColor(200uy, 100uy, 0uy, 51uy))
              bitmap.SetPixel(1, 0, SKColor(10uy, 20uy, 30uy, 255uy))
              use data = bitmap.Encode(SKEncodedImageFormat.Png, 100)
              File.WriteAllBytes(path, data.ToArray())
              let plain = plainImage 2 2
              let bytes input = List.ofArray (Images.read input path |> Check.get).Bytes
              Expect.equal (bytes plain) [ 200uy; 100uy; 0uy; 10uy; 20uy; 30uy ] "dropped"
              let over = { plain with Background = Some(255uy, 255uy, 0uy) }
              // A fifth of the colour, four fifths of the background.
              Expect.equal (bytes over) [ 244uy; 224uy; 0uy; 10uy; 20uy; 30uy ] "blended")
          folderTest "an SVG is drawn at the size it is wanted in, padded to a square, and reaches nothing outside" (fun folder ->
              let path = place folder "a.svg"

              let drawn (body: string) =
                  File.WriteAllText(path, $"<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"20\" height=\"10\">{body}</svg>")

                  let input =
                      { plainImage 8 8 with
                          Fit = ImageFit.Pad
                          Background = Some(255uy, 255uy, 255uy) }

                  Images.read input path |> Result.map (fun pixels -> pixels, Images.prepare input pixels)

              let drawnPixels, image = drawn "<rect width=\"20\" height=\"10\" fill=\"#ff0000\"/>" |> Check.get
              Expect.equal (drawnPixels.Width, drawnPixels.Height) (8, 4) "drawn at its size"
              let green = image.select (0L, 1L)
              near "white above" tight (item (green.narrow(0L, 0L, 2L).min())) 1.0
              near "red in the middle" tight (item (green.narrow(0L, 2L, 4L).max())) 0.0
              near "white below" tight (item (green.narrow(0L, 6L, 2L).min())) 1.0
              let secret = place folder "secret.png"
              encode SKEncodedImageFormat.Png secret (pixels 4 4 (fun _ _ _ -> 0))
              let _, outside = drawn $"<image href=\"{secret}\" width=\"20\" height=\"10\"/>" |> Check.get
              near "an image of a file is not drawn" tight (item (outside.min ())) 1.0
              Expect.isTrue (drawn (String.replicate 300 "<g>" + String.replicate 300 "</g>")).IsError "too deep"
              Expect.isTrue (drawn "<rect").IsError "broken markup"
              File.WriteAllText(path, "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"0\" height=\"10\"/>")
              Expect.isTrue (Images.read (plainImage 8 8) path).IsError "no size")
          folderTest "a mean image, and one of another size" (fun folder ->
              prepare folder
              let mean = (Tensors.range torch.CPU 0L 48L).reshape(3L, 4L, 4L).``to`` torch.float32
              Npy.write (place folder "mean.npy") (mean.reshape (12L, 4L)) |> Check.get

              let input =
                  { plainImage 4 4 with
                      Mean = ImageMean.Places(place folder "mean.npy") }

              let pixels = Images.read input (place folder "images/0.png") |> Check.get
              same "taken off" single (Images.prepare input pixels .+ mean) (Images.prepare (plainImage 4 4) pixels)
              Npy.write (place folder "mean.npy") (mean.reshape (16L, 3L)) |> Check.get
              File.WriteAllText(place folder "encoder.json", imageDescription.Replace("[0.1, 0.2, 0.3]", "\"mean.npy\""))
              expectSaid [ "the mean image"; "[12 × 4]" ] (request folder))
          folderTest "sums in the manifest, and what a bank was made from beside it" (fun folder ->
              prepare folder

              let sum =
                  Convert.ToHexString(Security.Cryptography.SHA256.HashData(File.ReadAllBytes(place folder "images/0.png")))

              File.WriteAllText(place folder "items.csv", $"id,path,sha256\na,images/0.png,{sum}\nb,images/1.png,\n")
              Expect.equal (quietly (request folder) |> Check.get) [| 2L; 2L |] "right"
              let about = File.ReadAllText(place folder "bank.about.json")

              let modelSum =
                  Convert.ToHexStringLower(Security.Cryptography.SHA256.HashData(File.ReadAllBytes(place folder "model.onnx")))

              for word in [ "made"; "model.onnx"; modelSum; "items.csv"; "\"rows\": 2" ] do
                  Expect.stringContains about word "about"

              Expect.isFalse (about.Contains folder) "no path of this machine"
              File.WriteAllText(place folder "items.csv", $"id,path,sha256\na,images/1.png,{sum}\n")
              expectSaid [ "1.png"; "its SHA-256 is"; "line 2 of the manifest" ] { request folder with Restart = true }
              File.WriteAllText(place folder "items.csv", "id,path,sha256\na,images/1.png,12\n")
              expectSaid [ "line 2"; "64 hexadecimal digits" ] (request folder)) ]

let private catalogue =
    testList
        "catalogue"
        [ testCase "every description can be read, and names the files that are fetched" (fun () ->
              for entry in EncoderCatalogue.all do
                  inFolder (fun folder ->
                      let path = place folder $"{entry.Name}.json"
                      File.WriteAllText(path, EncoderCatalogue.description entry)

                      // Without its files each of them is told.
                      let missing =
                          [ for fault in faultsOf (DescriptionFile.read path) do
                                match fault with
                                | Fault.Missing(file, _) -> string (Path.GetFileName file)
                                | other -> failtest $"{entry.Name}: {other.Message}" ]

                      match entry.Files with
                      | Error how -> Expect.stringContains how missing.Head $"{entry.Name}: how to have them"
                      | Ok(_, parts) ->
                          Expect.equal (List.sort missing) (List.sort [ for p in parts -> p.Name ]) entry.Name

                          for part in parts do
                              Expect.equal part.Sum.Length 64 $"{entry.Name}: {part.Name}"))
          test "a wrong sum is refused" (fun () ->
              let part =
                  { Path = "a"
                    Resource = None
                    Name = "a.onnx"
                    Sum = String('0', 64) }

              let package = Package.Npm("made", "1.0.0")

              let said =
                  try
                      Fetch.checkSum package part [| 1uy |]
                      ""
                  with Fetch.Refused fault ->
                      fault.Message

              for word in [ "a.onnx"; "npm package made 1.0.0"; part.Sum; "nothing was kept" ] do
                  Expect.stringContains said word "the sentence")
          testCase "the command: what there is, a description, what has no package" (fun () ->
              let told = cmcl [ "encoders" ]
              Expect.equal told.Code 0 told.Error

              for word in [ "resnet18"; "minilm"; "whisper"; "Licence"; "bring your own weights" ] do
                  Expect.stringContains told.Out word "the list"

              let shown = cmcl [ "encoders"; "show"; "clip-image" ]
              Expect.stringContains shown.Out "cmcl-encoder/1" "the description"
              Expect.stringContains shown.Error "optimum-cli" "how to have the weights"
              cmcl [ "encoders"; "get"; "clip-image" ] |> expectRefused [ "in no package"; "cmcl encoders show clip-image" ]
              cmcl [ "encoders"; "get"; "minilm2" ] |> expectRefused [ "no encoder 'minilm2'"; "did you mean 'minilm'" ]) ]

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
              Expect.equal ids[4] "item-5" "ids")
          folderTest "unreadable files are named, what was done stays, and they may be left out" (fun folder ->
              prepare folder
              File.WriteAllText(place folder "images/7.png", "no image")
              let asked = request folder
              expectSaid [ "7.png"; "not an image" ] asked
              let told = ResizeArray()
              Expect.equal (Extract.run told.Add { asked with SkipUnreadable = true } |> Check.get) [| 19L; 2L |] "shape"
              Expect.equal told[0] (ExtractProgress.Done(6, 20)) "what the first run did"

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

let tests = testSequenced (testList "Extract" [ banks; shapes; catalogue; scripts; mistakes; command ])
