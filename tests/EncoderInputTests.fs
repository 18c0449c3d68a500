module Cmcl.Tests.EncoderInputTests

open System
open System.IO
open System.Text
open System.Text.Json
open System.Text.RegularExpressions
open Expecto
open FsCheck
open FsCheck.FSharp
open SkiaSharp
open TorchSharp
open Cmcl
open Cmcl.Encoders
open Cmcl.Tests.Checks
open Cmcl.Tests.CliTests

/// Pixels by a function of row, column and channel.
let pixels (height: int) (width: int) (value: int -> int -> int -> int) : Pixels =
    { Height = height
      Width = width
      Bytes =
        [| for y in 0 .. height - 1 do
               for x in 0 .. width - 1 do
                   for c in 0..2 -> byte (value y x c) |] }

/// Writes pixels as an image file.
let encode (kind: SKEncodedImageFormat) (path: string) (image: Pixels) : unit =
    use bitmap = new SKBitmap(image.Width, image.Height, SKColorType.Rgba8888, SKAlphaType.Unpremul)

    for y in 0 .. image.Height - 1 do
        for x in 0 .. image.Width - 1 do
            let at = 3 * (y * image.Width + x)
            bitmap.SetPixel(x, y, SKColor(image.Bytes[at], image.Bytes[at + 1], image.Bytes[at + 2]))

    use data = bitmap.Encode(kind, 100)
    File.WriteAllBytes(path, data.ToArray())

let private noise (seed: int) (height: int) (width: int) : Pixels =
    let random = Random seed
    pixels height width (fun _ _ _ -> random.Next 256)

let plainImage (resize: int) (crop: int) : ImageInput = { ImageInput.Plain resize with Crop = crop }

// ---- images ------------------------------------------------------------------------------------------------------

/// A line of numbers at another length as Pillow makes it: a weighted mean within the filter's reach, which grows with the factor.
let private shrunk (bicubic: bool) (length: int) (line: float[]) : float[] =
    let filter (x: float) =
        let x = abs x

        if not bicubic then max 0.0 (1.0 - x)
        elif x < 1.0 then (1.5 * x - 2.5) * x * x + 1.0
        elif x < 2.0 then ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
        else 0.0

    let factor = float line.Length / float length
    let scale = max 1.0 factor
    let reach = scale * (if bicubic then 2.0 else 1.0)

    [| for i in 0 .. length - 1 do
           let centre = (float i + 0.5) * factor
           let first, past = max 0 (int (centre - reach + 0.5)), min line.Length (int (centre + reach + 0.5))
           let weights = [| for j in first .. past - 1 -> filter ((float j - centre + 0.5) / scale) |]
           Array.sum [| for j in first .. past - 1 -> weights[j - first] * line[j] |] / Array.sum weights |]

let private images =
    testList
        "images"
        [ test "a PNG is read as it was written, and JPEG and WebP nearly" (fun () ->
              inFolder (fun folder ->
                  let path = Path.Combine(folder, "image")
                  let image = pixels 9 14 (fun y x c -> 20 * y + 3 * x + 10 * c)

                  for kind, allowed in
                      [ SKEncodedImageFormat.Png, 0; SKEncodedImageFormat.Jpeg, 12; SKEncodedImageFormat.Webp, 12 ] do
                      encode kind path image
                      let back = Images.read (plainImage 8 8) path |> Check.get
                      Expect.equal (back.Height, back.Width) (9, 14) "sizes"

                      let worst =
                          Array.map2 (fun (a: byte) (b: byte) -> abs (int a - int b)) back.Bytes image.Bytes |> Array.max

                      Expect.isLessThanOrEqual worst allowed $"{kind}"))
          test "no image, half an image, no file" (fun () ->
              inFolder (fun folder ->
                  let path = Path.Combine(folder, "image.png")

                  let refused () =
                      match Images.read (plainImage 8 8) path with
                      | Error [ Fault.Unreadable(named, _) ] -> Expect.equal named path "path"
                      | other -> failtest $"%A{other}"

                  Expect.equal (Images.read (plainImage 8 8) path) (Error [ Fault.Missing(path, "the extraction") ]) "none"
                  File.WriteAllText(path, "no image")
                  refused ()
                  encode SKEncodedImageFormat.Png path (noise 1 40 40)
                  let whole = File.ReadAllBytes path
                  File.WriteAllBytes(path, Array.take (whole.Length / 2) whole)
                  refused ()))
          test "damaged images are read or refused, nothing else" (fun () ->
              inFolder (fun folder ->
                  let path = Path.Combine(folder, "image")
                  let random = Random 5

                  for kind in [ SKEncodedImageFormat.Png; SKEncodedImageFormat.Jpeg; SKEncodedImageFormat.Webp ] do
                      encode kind path (noise 2 12 12)
                      let whole = File.ReadAllBytes path

                      for _ in 1..150 do
                          let bytes = Array.copy whole

                          for _ in 0 .. random.Next 4 do
                              bytes[random.Next(min 60 bytes.Length)] <- byte (random.Next 256)

                          File.WriteAllBytes(path, bytes)

                          match Images.read (plainImage 8 8) path with
                          | Ok image -> Expect.equal image.Bytes.Length (image.Height * image.Width * 3) "bytes"
                          | Error [ Fault.Unreadable _ ] -> ()
                          | other -> failtest $"%A{other}"))
          test "the middle, scaled, channels in either order and place" (fun () ->
              let image = pixels 4 4 (fun y x c -> 10 * y + x + 100 * c)

              let mean = [ 0.1; 0.2; 0.3 ]

              let input =
                  { plainImage 4 2 with
                      Mean = ImageMean.Channels mean
                      Std = [ 0.5; 1.0; 2.0 ] }

              let expected (c: int) (y: int) (x: int) =
                  (float (10 * (y + 1) + (x + 1) + 100 * c) / 255.0 - mean[c]) / input.Std[c]

              let at (t: torch.Tensor) (place: int64 list) =
                  item (
                      t
                          .reshape(-1L)
                          .narrow(0L, List.fold2 (fun sum i side -> sum * side + i) 0L place (List.ofArray t.shape), 1L)
                  )

              let first, last = Images.prepare input image, Images.prepare { input with ChannelsLast = true } image
              Expect.equal (first.shape, last.shape) ([| 3L; 2L; 2L |], [| 2L; 2L; 3L |]) "shapes"

              for c in 0..2 do
                  for y in 0..1 do
                      for x in 0..1 do
                          near "channels first" single (at first [ c; y; x ]) (expected c y x)
                          near "channels last" single (at last [ y; x; c ]) (expected c y x)

              let plain = Images.prepare (plainImage 4 4) image
              identical "blue first" (Images.prepare { plainImage 4 4 with Bgr = true } image) (plain.flip(0L).contiguous()))
          testPropertyWithConfig
              { FsCheckConfig.defaultConfig with maxTest = 25 }
              "resized it is within one step of 255 of a weighted mean, rows and columns apart"
              (fun (a: uint8) (b: uint8) (bicubic: bool) (seed: int) ->
                  use scope = torch.NewDisposeScope()
                  let height, width = 3 + int a % 40, 3 + int b % 40
                  let side = 8
                  let image = noise seed height width

                  let input =
                      { plainImage side side with
                          Fit = ImageFit.Squash
                          Bicubic = bicubic }

                  let result = (Images.prepare input image) * number 255.0

                  for c in 0..2 do
                      let plane =
                          [| for y in 0 .. height - 1 ->
                                 [| for x in 0 .. width - 1 -> float image.Bytes[3 * (y * width + x) + c] |] |]

                      let rows = plane |> Array.map (shrunk bicubic side)
                      let columns = rows |> Array.transpose |> Array.map (shrunk bicubic side) |> Array.transpose
                      let reference = columns |> Array.map (Array.map (fun x -> min 255.0 (max 0.0 (round x))))
                      let worst = (result[int64 c].``to`` torch.float64 - torch.tensor (array2D reference)).abs().max()
                      Expect.isLessThan (item worst) 1.01 $"channel {c}")
          test "the shorter side, whichever it is" (fun () ->
              let sizes height width = Images.resized (plainImage 224 224) height width
              Expect.equal (sizes 480 640) (224L, 298L) "landscape"
              Expect.equal (sizes 640 480) (298L, 224L) "portrait"
              Expect.equal (sizes 100 1) (22400L, 224L) "a line"
              Expect.equal (Images.resized { plainImage 224 224 with Fit = ImageFit.Squash } 480 640) (224L, 224L) "squashed"

              Expect.equal
                  [ for side in [ 224L; 225L; 226L; 227L; 229L ] -> Images.middle 224 side ]
                  [ 0L; 0L; 1L; 2L; 2L ]
                  "halves to even") ]

// ---- texts -------------------------------------------------------------------------------------------------------

/// Bytes as the letters that byte-level BPE writes them with: printable ones as themselves, the others from 256 on.
let private letters: Map<byte, char> =
    let own = [ yield! [ 33..126 ]; yield! [ 161..172 ]; yield! [ 174..255 ] ]

    Map
        [ for b in own -> byte b, char b
          for i, b in List.indexed (List.except own [ 0..255 ]) -> byte b, char (256 + i) ]

let private merges =
    [ "t h"
      "th e</w>"
      "a n"
      "an d</w>"
      "Ã ©</w>"
      "Ã ©"
      "c a"
      "ca t</w>"
      "1 2</w>"
      "' s</w>"
      "! !</w>"
      "! !" ]

let private vocabulary: string list =
    let alphabet = [ for KeyValue(_, c) in letters -> string c ]

    alphabet
    @ [ for c in alphabet -> c + "</w>" ]
    @ [ for m in merges -> m.Replace(" ", "") ]
    @ [ "<|startoftext|>"; "<|endoftext|>" ]

let clipFiles (folder: string) : TextInput =
    let place name = Path.Combine(folder, name)
    File.WriteAllText(place "vocab.json", JsonSerializer.Serialize(dict [ for i, token in List.indexed vocabulary -> token, i ]))
    File.WriteAllLines(place "merges.txt", "#version: 0.2" :: merges)

    { Tokenizer = TokenizerKind.Clip
      Vocab = place "vocab.json"
      Merges = place "merges.txt"
      Lower = true
      Context = 12
      Longest = None
      Pad = None
      Mask = None
      Types = None
      Narrow = false
      Pool = Pool.Done }

/// CLIP's tokens by the definition of byte-pair encoding: again and again the pair that stands first in the merges.
let private clipReference (context: int) (text: string) : int64[] =
    let words =
        Regex.Matches(
            Regex.Replace(text, @"\s+", " ").Trim().ToLowerInvariant(),
            @"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
        )

    let rank = dict (List.mapi (fun i (m: string) -> m, i) merges)

    let rec join (parts: string list) =
        let pairs = parts |> List.pairwise |> List.indexed |> List.filter (fun (_, (a, b)) -> rank.ContainsKey $"{a} {b}")

        if pairs.IsEmpty then
            parts
        else
            let at, (a, b) = pairs |> List.minBy (fun (_, (a, b)) -> rank[$"{a} {b}"])
            join (List.truncate at parts @ [ a + b ] @ List.skip (at + 2) parts)

    let pieces (word: string) =
        let symbols = [ for b in Encoding.UTF8.GetBytes word -> string letters[b] ]
        join (List.truncate (symbols.Length - 1) symbols @ [ List.last symbols + "</w>" ])

    let number token = List.findIndex ((=) token) vocabulary |> int64

    let ids =
        [ for w in words do
              yield! pieces w.Value ]
        |> List.truncate (context - 2)
        |> List.map number

    let all = number "<|startoftext|>" :: ids @ [ number "<|endoftext|>" ]
    Array.ofList (all @ List.replicate (context - all.Length) (number "<|endoftext|>"))

/// Numbers and mask of one text, filled up.
let padded (reader: TextReader) (length: int) (text: string) : int64[] * int64[] =
    let ids, mask = Texts.together reader.Pad length [ reader.Read text ]
    ids.data<int64>().ToArray(), mask.data<int64>().ToArray()

let private texts =
    testList
        "texts"
        [ testCase "CLIP's tokens are those of byte-pair encoding by its definition" (fun () ->
              inFolder (fun folder ->
                  let tokens = clipFiles folder |> Texts.reader |> Check.get

                  let check (text: string) =
                      let made = tokens.Read text
                      let ids, mask = padded tokens 12 text
                      Expect.equal ids (clipReference 12 text) $"'{text}'"
                      Expect.equal (Array.sum mask) (int64 made.Ids.Length) "the mask"
                      Expect.isFalse (made.Cut && made.Ids.Length < 12) "what is cut is full"

                  List.iter check [ ""; "the cat and the hat"; "  The\n CAT "; "café!!"; "12's"; "é"; "日本"; String('x', 40) ]

                  let text =
                      Gen.elements
                          [ "the"; "th"; "cat"; "and"; "an"; "é"; "x"; "1"; "12"; "'s"; "'"; "!"; "!!"; " "; " "; "日"; "T" ]
                      |> Gen.listOf
                      |> Gen.map (fun parts -> String.Join("", List.truncate 8 parts))

                  Check.One(Config.QuickThrowOnFailure.WithMaxTest 300, Prop.forAll (Arb.fromGen text) check)))
          testCase "a number of one's own to fill up with" (fun () ->
              inFolder (fun folder ->
                  let ids, mask = padded ({ clipFiles folder with Pad = Some 0 } |> Texts.reader |> Check.get) 12 "the"
                  Expect.equal ids[3..] (Array.zeroCreate 9) "padding"
                  Expect.equal mask [| 1L; 1L; 1L; yield! Array.zeroCreate 9 |] "mask"))
          testCase "WordPiece: begun, cut into pieces, ended, padded" (fun () ->
              inFolder (fun folder ->
                  let vocab = Path.Combine(folder, "vocab.txt")

                  File.WriteAllLines(
                      vocab,
                      [ "[PAD]"; "[UNK]"; "[CLS]"; "[SEP]"; "[MASK]"; "un"; "##aff"; "##able"; "the"; "##s"; "!"; "cafe" ]
                  )

                  let input =
                      { clipFiles folder with
                          Tokenizer = TokenizerKind.WordPiece
                          Vocab = vocab
                          Merges = ""
                          Context = 8 }

                  let tokens = Texts.reader input |> Check.get
                  let ids text = List.ofArray (fst (padded tokens 8 text))
                  Expect.equal (ids "The unaffable!") [ 2L; 8L; 5L; 6L; 7L; 10L; 3L; 0L ] "pieces"
                  Expect.equal (ids "thes zebra") [ 2L; 8L; 9L; 1L; 3L; 0L; 0L; 0L ] "unknown"
                  Expect.equal (ids "Café") [ 2L; 11L; 3L; 0L; 0L; 0L; 0L; 0L ] "accents"
                  Expect.equal (ids "the the the the the the the the") [ 2L; 8L; 8L; 8L; 8L; 8L; 8L; 3L ] "cut"
                  Expect.isTrue (tokens.Read "the the the the the the the the").Cut "told"
                  Expect.isFalse (tokens.Read "the the the the the the").Cut "just fits"
                  Expect.equal (snd (padded tokens 8 "the")) [| 1L; 1L; 1L; 0L; 0L; 0L; 0L; 0L |] "mask"))
          testCase "files that are no vocabulary" (fun () ->
              inFolder (fun folder ->
                  let input = clipFiles folder

                  for content, words in
                      [ "{", "does not make a tokenizer"; "[]", "does not make"; """{"a": 0}""", "no '<|startoftext|>'" ] do
                      File.WriteAllText(input.Vocab, content)

                      match Texts.reader input with
                      | Error [ Fault.Unreadable(path, reason) ] ->
                          Expect.equal path input.Vocab "path"
                          Expect.stringContains reason words "the reason"
                      | other -> failtest $"%A{other}")) ]

let tests = testList "Encoder inputs" [ images; texts ]
