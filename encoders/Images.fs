namespace Cmcl.Encoders

open System
open System.IO
open SkiaSharp
open TorchSharp
open Cmcl

/// Pixels of an image: height × width × 3, red first, a byte each.
type Pixels = { Height: int; Width: int; Bytes: byte[] }

/// Images as encoders take them.
[<RequireQualifiedAccess>]
module Images =
    /// What Pillow takes without a warning, so that a file of some kilobytes cannot ask for gigabytes.
    let private mostPixels = 178_956_970L

    /// Height and width after resizing: the shorter side to `resize` (the longer one if padded), the other in proportion and rounded down.
    let resized (input: ImageInput) (height: int) (width: int) : int64 * int64 =
        let along (side: int) (other: int) = int64 input.Resize * int64 side / int64 other

        match input.Fit with
        | ImageFit.Squash -> int64 input.Resize, int64 input.Resize
        | ImageFit.Shorter when height <= width -> int64 input.Resize, max 1L (along width height)
        | ImageFit.Shorter -> max 1L (along height width), int64 input.Resize
        | ImageFit.Pad when height >= width -> int64 input.Resize, max 1L (along width height)
        | ImageFit.Pad -> max 1L (along height width), int64 input.Resize

    /// A pixel's colours over a background, rounded to the nearest.
    let private over (back: byte) (colour: byte) (alpha: byte) : byte =
        let a = int alpha
        byte ((int colour * a + int back * (255 - a) + 127) / 255)

    /// The colours of a bitmap with four bytes a pixel.
    let private colours (input: ImageInput) (info: SKImageInfo) (all: ReadOnlySpan<byte>) : byte[] =
        let bytes = Array.zeroCreate (info.Width * info.Height * 3)

        for i in 0 .. info.Width * info.Height - 1 do
            let r, g, b, a = all[4 * i], all[4 * i + 1], all[4 * i + 2], all[4 * i + 3]

            match input.Background with
            | Some(red, green, blue) when a < 255uy ->
                bytes[3 * i] <- over red r a
                bytes[3 * i + 1] <- over green g a
                bytes[3 * i + 2] <- over blue b a
            | _ ->
                bytes[3 * i] <- r
                bytes[3 * i + 1] <- g
                bytes[3 * i + 2] <- b

        bytes

    let private ofSvg (input: ImageInput) (path: string) : Result<Pixels, Fault list> =
        let r, g, b = Option.defaultValue (255uy, 255uy, 255uy) input.Background

        let toSize (height: int) (width: int) =
            let h, w =
                resized
                    { input with
                        Fit = (if input.Fit = ImageFit.Squash then ImageFit.Shorter else input.Fit) }
                    height
                    width

            if h * w > mostPixels then
                Check.fail (Fault.Unreadable(path, $"it would be drawn with {w} × {h} pixels; {mostPixels} are the most"))

            int h, int w

        Svg.draw (SKColor(r, g, b)) toSize path
        |> Result.map (fun bitmap ->
            use bitmap = bitmap

            { Height = bitmap.Height
              Width = bitmap.Width
              Bytes = colours input bitmap.Info (Span.op_Implicit (bitmap.GetPixelSpan())) })

    let private decoded (input: ImageInput) (path: string) : Result<Pixels, Fault list> =
        let fault reason = Error [ Fault.Unreadable(path, reason) ]
        use stream = File.OpenRead path
        use codec = SKCodec.Create stream

        if isNull (box codec) then
            fault "it is not an image of a kind that can be decoded"
        else
            let info = codec.Info

            if int64 info.Width * int64 info.Height > mostPixels then
                fault $"it has {info.Width} × {info.Height} pixels; {mostPixels} are the most"
            else
                use bitmap = new SKBitmap(SKImageInfo(info.Width, info.Height, SKColorType.Rgba8888, SKAlphaType.Unpremul))

                match codec.GetPixels(bitmap.Info, bitmap.GetPixels()) with
                | SKCodecResult.Success ->
                    Ok
                        { Height = info.Height
                          Width = info.Width
                          Bytes = colours input bitmap.Info (Span.op_Implicit (bitmap.GetPixelSpan())) }
                | SKCodecResult.IncompleteInput -> fault "the image breaks off"
                | other -> fault $"the image is damaged ({other})"

    /// Reads an image: PNG, JPEG, WebP, GIF's first picture, BMP; an SVG is drawn at the size that it is wanted in, over the background, or white
    /// where there is none. Without a background transparency is dropped, not blended, and a camera's note of how it was held is not
    /// followed, as Pillow's `convert("RGB")` does. Fault: `Unreadable`.
    let read (input: ImageInput) (path: string) : Result<Pixels, Fault list> =
        InputFile.reading "the extraction" path (fun () -> if Svg.isOne path then ofSvg input path else decoded input path)

    /// Where the middle of `crop` pixels begins within a side: half of what is left over, a half rounded to even.
    let middle (crop: int) (side: int64) : int64 = int64 (Math.Round(float (side - int64 crop) / 2.0, MidpointRounding.ToEven))

    /// A picture (1 × 3 × h × w) in the middle of a square of `resize`, the rest the background.
    let private pad (input: ImageInput) (small: torch.Tensor) : torch.Tensor =
        let side = int64 input.Resize
        let r, g, b = Option.defaultValue (255uy, 255uy, 255uy) input.Background
        let square = torch.tensor([| float32 r; float32 g; float32 b |]).reshape(1L, 3L, 1L, 1L).repeat(1L, 1L, side, side)
        let top, left = (side - small.shape[2]) / 2L, (side - small.shape[3]) / 2L
        square.narrow(2L, top, small.shape[2]).narrow(3L, left, small.shape[3]).copy_ small |> ignore
        square

    /// The mean image of a description. Fault, as an exception: `Shape` for one of another size.
    let private meanImage (input: ImageInput) (path: string) : torch.Tensor =
        let mean = Npy.read path |> Check.get
        let side = int64 input.Crop

        if mean.shape <> [| 3L * side; side |] then
            let expected = $"[{3L * side} × {side}], the three channels one below another"
            Check.fail (Fault.Shape($"the mean image '{path}'", expected, Tensors.shapeText mean))

        mean.``to``(torch.float32).reshape(1L, 3L, side, side)

    /// One image (3 × crop × crop, or crop × crop × 3; float32): resized with antialiasing to whole numbers from 0 to 255, as Pillow
    /// does, the middle cut out, then (x/255 − mean)/std for each channel.
    let prepare (input: ImageInput) (pixels: Pixels) : torch.Tensor =
        Tensors.scoped (fun () ->
            let size = int64 pixels.Height, int64 pixels.Width
            let whole = torch.tensor(pixels.Bytes).reshape(fst size, snd size, 3L).permute(2L, 0L, 1L).unsqueeze 0L
            let height, width = resized input pixels.Height pixels.Width
            use least = 0.0.AsScalar()
            use most = 255.0.AsScalar()
            use full = 255.0.AsScalar()

            let small =
                if (height, width) = size then
                    whole.``to`` torch.float32
                else
                    let mode = if input.Bicubic then torch.InterpolationMode.Bicubic else torch.InterpolationMode.Bilinear

                    torch.nn.functional
                        .interpolate(
                            whole.``to`` torch.float32,
                            [| height; width |],
                            mode = mode,
                            align_corners = Nullable false,
                            antialias = true
                        )
                        .round()
                        .clamp(least, most)

            let padded = if input.Fit = ImageFit.Pad then pad input small else small
            let height, width = padded.shape[2], padded.shape[3]
            let crop = int64 input.Crop
            let cut = padded.narrow(2L, middle input.Crop height, crop).narrow(3L, middle input.Crop width, crop)
            let channels (values: float list) = torch.tensor([| for x in values -> float32 x |]).reshape(1L, 3L, 1L, 1L)
            let ordered = if input.Bgr then cut.flip 1L else cut

            let mean =
                match input.Mean with
                | ImageMean.Channels values -> channels values
                | ImageMean.Places path -> meanImage input path

            let scaled = ((ordered / full) - mean) / channels input.Std
            let laid = if input.ChannelsLast then scaled.permute (0L, 2L, 3L, 1L) else scaled
            laid.squeeze(0L).contiguous())
