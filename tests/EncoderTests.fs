/// Encoders as they are exported, and those with ready descriptions.
module Cmcl.Tests.EncoderTests

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
open Cmcl.Tests.ExtractTests

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

let tests = testSequenced (testList "Encoders" [ shapes; catalogue ])
