/// Pictures and recordings as they go into a page: small, as data URIs.
module Cmcl.Cli.GalleryMedia

open System
open System.Buffers.Binary
open System.Text
open System.IO
open SkiaSharp
open TorchSharp
open Cmcl
open Cmcl.Encoders

/// Pixels of a thumbnail's sides.
[<Literal>]
let private Side = 112

/// Of 100, as WebP counts.
[<Literal>]
let private Quality = 80

/// So much of a recording, and no more samples a second than this.
let private seconds, rate = 4.0, 11025

let private thumbnail: ImageInput =
    { ImageInput.Plain Side with
        Fit = ImageFit.Pad
        Bicubic = false
        ChannelsLast = true
        Background = Some(255uy, 255uy, 255uy) }

let private uri (kind: string) (bytes: byte[]) : string = $"data:{kind};base64,{Convert.ToBase64String bytes}"

/// A picture over white in a square, as WebP. Fault: `Unreadable`.
let picture (path: string) : Result<string, Fault list> =
    Images.read thumbnail path
    |> Result.map (fun pixels ->
        use scope = torch.NewDisposeScope()
        use full = 255.0.AsScalar()
        let shares = Images.prepare thumbnail pixels
        let colours = (shares * full).round().``to``(torch.uint8).data<byte>().ToArray()
        let whole = Array.init (Side * Side * 4) (fun i -> if i % 4 = 3 then 255uy else colours[i / 4 * 3 + i % 4])
        use image = SKImage.FromPixelCopy(SKImageInfo(Side, Side, SKColorType.Rgba8888, SKAlphaType.Opaque), whole)
        use encoded = image.Encode(SKEncodedImageFormat.Webp, Quality)
        uri "image/webp" (encoded.ToArray()))

/// A sample from −1 to 1 in the eight bits of G.711's µ-law: a sign, three bits of exponent and four of mantissa, inverted.
let private muLaw (sample: float32) : byte =
    let whole = int (round (32767f * Math.Clamp(sample, -1f, 1f)))
    let magnitude = min 32635 (abs whole) + 132
    let exponent = Numerics.BitOperations.Log2(uint32 magnitude) - 7
    let sign = if whole < 0 then 0x80 else 0
    ~~~(byte (sign ||| (exponent <<< 4) ||| ((magnitude >>> (exponent + 3)) &&& 15)))

/// Samples from −1 to 1 as a RIFF WAVE file of µ-law: what browsers play at half the bytes of 16 bits a sample.
let wave (rate: int) (samples: float32[]) : byte[] =
    let bytes = Array.zeroCreate (46 + samples.Length + samples.Length % 2)
    let text (at: int) (s: string) = Encoding.ASCII.GetBytes(s, 0, s.Length, bytes, at) |> ignore
    let whole (at: int) (n: int) = BinaryPrimitives.WriteInt32LittleEndian(Span(bytes, at, 4), n)
    let half (at: int) (n: int) = BinaryPrimitives.WriteInt16LittleEndian(Span(bytes, at, 2), int16 n)
    text 0 "RIFF"
    whole 4 (bytes.Length - 8)
    text 8 "WAVEfmt "
    whole 16 18
    half 20 7
    half 22 1
    whole 24 rate
    whole 28 rate
    half 32 1
    half 34 8
    text 38 "data"
    whole 42 samples.Length

    for i in 0 .. samples.Length - 1 do
        bytes[46 + i] <- muLaw samples[i]

    bytes

/// The first seconds of a recording as a WAVE file. Faults: `Unreadable`; `Contradiction` for samples a second that cannot be changed.
let recording (path: string) : Result<string, Fault list> =
    Recordings.read seconds path
    |> Result.bind (fun r ->
        use scope = torch.NewDisposeScope()
        let into = min r.Rate rate

        Sound.resample r.Rate into (torch.tensor r.Samples)
        |> Result.map (fun samples -> uri "audio/wav" (wave into (samples.data<float32>().ToArray()))))

/// A file in its form; what is wrong with one that cannot be read is its form.
let form (path: string) : ItemForm =
    let read () =
        InputFile.reading "the gallery" path (fun () ->
            if Recordings.isOne path then
                recording path |> Result.map ItemForm.Recording
            else
                picture path |> Result.map ItemForm.Picture)

    match Check.guarded path read with
    | Ok form -> form
    | Error faults -> ItemForm.Unreadable(String.Join(" ", [ for fault in faults -> fault.Message ]))
