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

    /// Reads an image (PNG, JPEG, WebP, GIF's first picture, BMP). Transparency is dropped, not blended, and a camera's note of how
    /// it was held is not followed, as Pillow's `convert("RGB")` does. Fault: `Unreadable`.
    let read (path: string) : Result<Pixels, Fault list> =
        let fault reason = Error [ Fault.Unreadable(path, reason) ]

        InputFile.reading "the extraction" path (fun () ->
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
                        let all = bitmap.GetPixelSpan()
                        let bytes = Array.zeroCreate (info.Width * info.Height * 3)

                        for i in 0 .. info.Width * info.Height - 1 do
                            bytes[3 * i] <- all[4 * i]
                            bytes[3 * i + 1] <- all[4 * i + 1]
                            bytes[3 * i + 2] <- all[4 * i + 2]

                        Ok { Height = info.Height; Width = info.Width; Bytes = bytes }
                    | SKCodecResult.IncompleteInput -> fault "the image breaks off"
                    | other -> fault $"the image is damaged ({other})")

    /// Height and width after resizing: the shorter side to `resize`, the other in proportion and rounded down.
    let resized (input: ImageInput) (height: int) (width: int) : int64 * int64 =
        let along (side: int) (other: int) = int64 input.Resize * int64 side / int64 other

        if input.Squash then int64 input.Resize, int64 input.Resize
        elif height <= width then int64 input.Resize, max 1L (along width height)
        else max 1L (along height width), int64 input.Resize

    /// Where the middle of `crop` pixels begins within a side: half of what is left over, a half rounded to even.
    let middle (crop: int) (side: int64) : int64 = int64 (Math.Round(float (side - int64 crop) / 2.0, MidpointRounding.ToEven))

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

            let crop = int64 input.Crop
            let cut = small.narrow(2L, middle input.Crop height, crop).narrow(3L, middle input.Crop width, crop)
            let channels (values: float list) = torch.tensor([| for x in values -> float32 x |]).reshape(1L, 3L, 1L, 1L)
            let ordered = if input.Bgr then cut.flip 1L else cut
            let scaled = ((ordered / full) - channels input.Mean) / channels input.Std
            let laid = if input.ChannelsLast then scaled.permute (0L, 2L, 3L, 1L) else scaled
            laid.squeeze(0L).contiguous())
