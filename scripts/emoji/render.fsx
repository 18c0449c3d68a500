// Pictures with rsvg-convert: sheets of 64 × 64 cells on white. Speech with espeak-ng: one wav a name and voice.
#load "inventory.fsx"

open System
open System.Buffers.Binary
open System.Diagnostics
open System.IO
open System.IO.Compression
open System.Text
open System.Text.Json
open System.Text.RegularExpressions
open System.Threading.Tasks
open Inventory

/// Pixels along one side of a picture.
let side = 64
let private columns = 40

let private call (program: string) (arguments: string list) =
    let start = ProcessStartInfo(program, arguments, RedirectStandardOutput = true, RedirectStandardError = true)

    use p = Process.Start start
    let output = p.StandardOutput.ReadToEndAsync()
    let errors = p.StandardError.ReadToEnd()
    p.WaitForExit()

    if p.ExitCode <> 0 then
        failwith $"{program} failed with exit code {p.ExitCode}: {errors}{output.Result}"

/// At most one process a core.
let private inParallel (jobs: (unit -> unit)[]) =
    Parallel.ForEach(jobs, ParallelOptions(MaxDegreeOfParallelism = Environment.ProcessorCount), (fun job -> job ()))
    |> ignore

// ---- pictures

/// One cell of a sheet: an icon, turned, mirrored or moved by an SVG transform ("" for none).
type Cell = { Icon: string; Transform: string }

/// Other views of a picture, about the middle of its cell: they make the few base items go further.
let views =
    let middle = $"translate({side / 2} {side / 2})"
    let back = $"translate({-side / 2} {-side / 2})"

    [ for view in
          [ "scale(-1 1)"
            "rotate(9)"
            "scale(-1 1) rotate(9)"
            "translate(3 -2) scale(0.88)"
            "scale(-0.94 1.06) translate(-2 3)" ] -> $"{middle} {view} {back}" ]

let private folder (name: string) = Directory.CreateDirectory(Path.Combine(work, name)).FullName

/// Draws cells of one picture set into `pictures/NAME.png`, forty to a row.
let private drawSheet (package: string) (name: string) (cells: Cell[]) =
    let file (extension: string) = Path.Combine(folder "pictures", name + extension)

    let set =
        let path = Path.Combine(work, "node_modules", "@iconify-json", package, "icons.json")

        JsonDocument.Parse(File.ReadAllBytes path).RootElement

    let size (icon: JsonElement) (name: string) =
        match icon.TryGetProperty name with
        | true, own -> own.GetRawText()
        | _ -> set.GetProperty(name).GetRawText()

    let svg = StringBuilder()
    let rows = (cells.Length + columns - 1) / columns

    svg.Append(
        $"""<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" width="{columns * side}" height="{rows * side}" color="black">"""
    )
    |> ignore

    cells
    |> Array.iteri (fun i cell ->
        let icon = set.GetProperty("icons").GetProperty cell.Icon
        // Identifiers are unique within an icon only.
        let body = Regex.Replace(string (icon.GetProperty "body"), @"\bSVG(?=[0-9A-Za-z]+[""')])", $"C{i}-")

        svg
            .Append($"""<svg x="{i % columns * side}" y="{i / columns * side}" width="{side}" height="{side}">""")
            .Append(if cell.Transform = "" then "<g>" else $"""<g transform="{cell.Transform}">""")
            .Append(
                $"""<svg width="{side}" height="{side}" viewBox="0 0 {size icon "width"} {size icon "height"}">{body}</svg></g></svg>"""
            )
            .Append('\n')
        |> ignore)

    File.WriteAllText(file ".svg", svg.Append("</svg>\n").ToString())
    call "rsvg-convert" [ "--unlimited"; "--background-color"; "white"; "--output"; file ".png"; file ".svg" ]

/// The pixels of an 8-bit RGB or RGBA PNG without interlacing, as rsvg-convert writes them: width, channels, samples.
let private readPng (path: string) : int * int * byte[] =
    let bytes = File.ReadAllBytes path
    let number (at: int) = BinaryPrimitives.ReadInt32BigEndian(ReadOnlySpan(bytes, at, 4))
    let width, height = number 16, number 20
    let channels = if bytes[25] = 6uy then 4 else 3

    if bytes[24] <> 8uy || bytes[25] &&& 2uy = 0uy || bytes[28] <> 0uy then
        failwith $"'{path}' is not a plain 8-bit RGB or RGBA picture."

    use packed = new MemoryStream()
    let mutable at = 8

    while at < bytes.Length do
        if Encoding.ASCII.GetString(bytes, at + 4, 4) = "IDAT" then
            packed.Write(bytes, at + 8, number at)

        at <- at + 12 + number at

    packed.Position <- 0L
    use unpacked = new ZLibStream(packed, CompressionMode.Decompress)
    let stride = width * channels
    let pixels = Array.zeroCreate<byte>(height * stride)
    let line = Array.zeroCreate<byte>(stride + 1)

    for y in 0 .. height - 1 do
        unpacked.ReadExactly(line, 0, line.Length)

        for x in 0 .. stride - 1 do
            let left = if x < channels then 0 else int pixels[y * stride + x - channels]
            let above = if y = 0 then 0 else int pixels[(y - 1) * stride + x]

            let corner = if x < channels || y = 0 then 0 else int pixels[(y - 1) * stride + x - channels]

            let guess =
                match line[0] with
                | 0uy -> 0
                | 1uy -> left
                | 2uy -> above
                | 3uy -> (left + above) / 2
                | _ ->
                    let p = left + above - corner
                    let a, b, c = abs (p - left), abs (p - above), abs (p - corner)

                    if a <= b && a <= c then left
                    elif b <= c then above
                    else corner

            pixels[y * stride + x] <- byte (int line[x + 1] + guess)

    width, channels, pixels

/// The first n pictures of a sheet, n × 3 × 64 × 64, samples in 0 (black) to 1.
let pictures (name: string) (n: int) : float32[] =
    let width, channels, pixels = readPng (Path.Combine(work, "pictures", name + ".png"))

    Array.init (n * 3 * side * side) (fun at ->
        let x, y = at % side, at / side % side
        let channel, i = at / (side * side) % 3, at / (side * side * 3)
        let column, row = i % columns * side + x, i / columns * side + y
        float32 pixels[(row * width + column) * channels + channel] / 255f)

let private sheets () =
    [| for set, package in pictureSets do
           let cells rows transform = rows |> Array.map (fun row -> { Icon = items[row].Icons[set]; Transform = transform })

           fun () -> drawSheet package set (cells [| 0 .. items.Length - 1 |] "")

           if set = "noto" || set = "hc" then
               fun () -> drawSheet package (set + "-views") (views |> Seq.map (cells baseRows) |> Array.concat) |]

// ---- speech

/// Our voices: the language that they speak.
let voices = [ "en-us", "en"; "en-gb", "en"; "de", "de"; "fr", "fr" ]

/// Other speakers of the base items: voice, words a minute, pitch.
let speakers = [ "en-us", 150, 35; "en-us", 200, 65; "en-us+f3", 175, 50; "en-us+m3", 160, 50; "en-us+f2", 190, 60 ]

/// Where a spoken name is: the voice (its own or number k of `speakers`) and the row.
let wav (voice: string) (row: int) = Path.Combine(work, "speech", voice, items[row].Codes + ".wav")

let private speak (voice: string) (arguments: string list) (language: string) (row: int) =
    call "espeak-ng" (arguments @ [ "-w"; wav voice row; "--"; items[row].Names[language] ])

let private utterances () =
    [| for voice, language in voices do
           folder $"speech/{voice}" |> ignore

           for row in 0 .. items.Length - 1 do
               fun () -> speak voice [ "-v"; voice ] language row

       for k, (voice, speed, pitch) in List.indexed speakers do
           folder $"speech/view{k}" |> ignore

           for row in baseRows do
               fun () -> speak $"view{k}" [ "-v"; voice; "-s"; string speed; "-p"; string pitch ] "en" row |]

/// The samples of a 16-bit mono wav in −1 … 1, and their rate.
let samples (path: string) : float32[] * int =
    let bytes = File.ReadAllBytes path
    let rate = BitConverter.ToInt32(bytes, 24)

    let rec data at =
        let size = BitConverter.ToInt32(bytes, at + 4)

        if Encoding.ASCII.GetString(bytes, at, 4) = "data" then
            bytes[at + 8 .. at + 7 + size]
        else
            data (at + 8 + size)

    let pcm = data 12
    Array.init (pcm.Length / 2) (fun i -> float32 (BitConverter.ToInt16(pcm, 2 * i)) / 32768f), rate

// ---- both

/// Renders everything anew.
let render () =
    inParallel (sheets ())
    printfn "  pictures: %d sheets" (Directory.GetFiles(Path.Combine(work, "pictures"), "*.png").Length)
    let spoken = utterances ()
    inParallel spoken
    printfn "  speech: %d names" spoken.Length

/// Stops at a picture that is blank or a name that is not spoken.
let check () =
    for set, _ in pictureSets do
        pictures set items.Length
        |> Array.chunkBySize (3 * side * side)
        |> Array.iteri (fun row picture ->
            let ink = picture |> Array.filter (fun v -> v < 0.97f) |> Array.length

            if ink < picture.Length / 100 then
                failwith $"the {set} picture of {items[row].Codes} is blank ({ink} samples)")

    for voice, _ in voices do
        for row in 0 .. items.Length - 1 do
            let sound, rate = samples (wav voice row)
            let loud = sound |> Array.filter (fun v -> abs v > 0.02f) |> Array.length

            if sound.Length < rate / 5 || loud < rate / 20 then
                failwith $"{voice} does not speak {items[row].Codes}: {sound.Length} samples, {loud} of them loud"
