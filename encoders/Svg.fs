namespace Cmcl.Encoders

open System
open System.IO
open System.Text
open System.Xml
open SkiaSharp
open Svg
open Svg.Skia
open Cmcl

/// SVG pictures, drawn by Svg.Skia. They are data from strangers: nothing outside the file is followed, no script runs, and depth, size and
/// entities are bounded before anything is drawn.
[<RequireQualifiedAccess>]
module Svg =
    let private mostBytes = 32L <<< 20

    /// Elements within elements; drawing goes as deep.
    let private deepest = 200

    let private closed =
        lazy
            (SvgDocument.ResolveExternalXmlEntites <- ExternalType.None
             SvgDocument.ResolveExternalImages <- ExternalType.None
             SvgDocument.ResolveExternalElements <- ExternalType.None)

    /// Whether a file's beginning is that of an SVG picture: markup with an `svg` element soon.
    let isOne (path: string) : bool =
        use stream = File.OpenRead path
        let head = Array.zeroCreate 4096
        let text = Encoding.Latin1.GetString(head, 0, stream.ReadAtLeast(Span head, head.Length, false))

        text.TrimStart('\u00EF', '\u00BB', '\u00BF', ' ', '\n', '\r', '\t').StartsWith '<'
        && text.Contains("<svg", StringComparison.Ordinal)

    /// Reads the markup once: whether it is whole, how deep it goes, what its entities swell to.
    let private inspect (path: string) : string option =
        let settings =
            XmlReaderSettings(
                DtdProcessing = DtdProcessing.Parse,
                XmlResolver = null,
                MaxCharactersFromEntities = 10_000_000L,
                MaxCharactersInDocument = mostBytes * 2L
            )

        try
            use reader = XmlReader.Create(path, settings)
            let mutable deep = 0

            while reader.Read() do
                deep <- max deep reader.Depth

            if deep > deepest then Some $"its elements are nested {deep} deep; {deepest} is the most" else None
        with :? XmlException as e ->
            Some $"its markup is broken ({Reason.ofException e})"

    let private drawn (background: SKColor) (toSize: int -> int -> int * int) (path: string) : Result<SKBitmap, string> =
        use svg = new SKSvg()
        svg.Settings.EnableJavaScript <- false
        svg.Settings.EnableExternalJavaScript <- false
        svg.Settings.EnableBrokenImagePlaceholders <- false
        use stream = new MemoryStream(File.ReadAllBytes path)

        match svg.Load stream with
        | null -> Error "it is not an SVG picture that can be drawn"
        | picture ->
            let bounds = picture.CullRect

            if not (Single.IsFinite bounds.Width && bounds.Width > 0f && Single.IsFinite bounds.Height && bounds.Height > 0f) then
                Error "its picture has no size"
            else
                let scaled (side: float32) = max 1 (int (min 1e6f (ceil side)))
                let height, width = toSize (scaled bounds.Height) (scaled bounds.Width)
                let bitmap = new SKBitmap(SKImageInfo(width, height, SKColorType.Rgba8888, SKAlphaType.Premul))
                use canvas = new SKCanvas(bitmap)
                canvas.Clear background
                canvas.Scale(float32 width / bounds.Width, float32 height / bounds.Height)
                canvas.Translate(-bounds.Left, -bounds.Top)
                canvas.DrawPicture picture
                canvas.Flush()
                Ok bitmap

    /// Draws a picture over a background at the size that `toSize` makes of its height and width. Fault: `Unreadable`.
    let draw (background: SKColor) (toSize: int -> int -> int * int) (path: string) : Result<SKBitmap, Fault list> =
        let fault reason = Error [ Fault.Unreadable(path, reason) ]
        closed.Force()

        if FileInfo(path).Length > mostBytes then
            fault $"it is an SVG picture of more than {mostBytes >>> 20} MiB"
        else
            match inspect path with
            | Some reason -> fault reason
            | None ->
                try
                    match drawn background toSize path with
                    | Ok bitmap -> Ok bitmap
                    | Error reason -> fault reason
                with
                | CmclException fault -> Error [ fault ]
                // What a picture may be wrong in is the library's to say, and it says it by many kinds of exceptions.
                | e when not (e :? OutOfMemoryException) -> fault $"it cannot be drawn ({Reason.ofException e})"
