// Frozen encoders: from pictures, texts and sounds to 256 numbers each, without a network. What they have to fit (principal
// axes, n-grams and their weights, codewords) they fit on base items alone.
#load "../load.fsx"
#load "render.fsx"

open System
open System.Collections.Generic
open Cmcl
open TorchSharp
open Inventory
open Render

let dimension = 256L

/// Rows at unit length.
let private unit (x: torch.Tensor) = Alignment.normalise x

/// Where base rows vary most, and how to project onto it: x ↦ unit((x − mean) V).
type Axes = { Mean: torch.Tensor; Vectors: torch.Tensor }

/// Principal axes of the given rows, at most `dimension` of them, each divided by the square root of its standard deviation: the
/// order of importance stays, less steep. From the Gram matrix of the rows, there being far more n-grams than base texts.
let private axes (centred: bool) (rows: torch.Tensor) : Axes =
    let x = rows.``to`` torch.float64
    let mean = if centred then x.mean ([| 0L |], true) else torch.zeros (1L, x.shape[1], dtype = torch.float64)
    let centredRows = x - mean
    let struct (values, left) = torch.linalg.eigh (centredRows.mm (centredRows.t ()))
    let k = min dimension (min x.shape[0] x.shape[1])
    let values = values.flip(0L).narrow(0L, 0L, k)
    let left = left.flip(1L).narrow(1L, 0L, k)
    // The axes are Xᵀ U/σ with σ² the eigenvalues; over σ^½ once more.
    { Mean = mean
      Vectors = centredRows.t().mm(left) / values.clamp_min(1e-12.ToScalar()).pow(0.75.ToScalar()) }

let private project (a: Axes) (rows: torch.Tensor) : torch.Tensor =
    let y = unit ((rows.``to`` torch.float64 - a.Mean).mm a.Vectors)

    if y.shape[1] = dimension then
        y
    else
        torch.cat ([| y; torch.zeros (y.shape[0], dimension - y.shape[1], dtype = torch.float64) |], 1L)

/// Feature groups side by side, each at unit length times its weight.
let private groups (parts: (float * torch.Tensor) list) =
    torch.cat ([| for weight, x in parts -> unit (x.reshape (x.shape[0], -1L)) * weight.ToScalar() |], 1L)

// ---- pictures

let private pool (x: torch.Tensor) (cells: int64) = torch.nn.functional.adaptive_avg_pool2d (x, [| cells; cells |])

/// Orientation histograms: gradient energy in 9 unsigned directions, over a grid of cells, each cell's root taken.
let private orientations (grey: torch.Tensor) (cells: int64) =
    let dx = grey.narrow (3L, 2L, 62L) - grey.narrow (3L, 0L, 62L)
    let dy = grey.narrow (2L, 2L, 62L) - grey.narrow (2L, 0L, 62L)
    let dx, dy = dx.narrow (2L, 1L, 62L), dy.narrow (3L, 1L, 62L)
    let strength = (dx.square () + dy.square ()).sqrt()
    let angle = torch.atan2(dy, dx).remainder(Math.PI.ToScalar())

    let energy bin =
        let centre = (float bin + 0.5) * Math.PI / 9.0
        let away = (angle - centre.ToScalar()).abs()
        let away = torch.minimum (away, away.neg().add(Math.PI.ToScalar()))
        let share = (away * (-9.0 / Math.PI).ToScalar()).add(1.0.ToScalar()).clamp_min(0.0.ToScalar())
        pool (strength * share) cells

    torch.cat([| for bin in 0..8 -> energy bin |], 1L).sqrt()

/// What is seen in pictures (n × 3 × 64 × 64): layout of colour, contours, colours, silhouette, hues.
let private see (x: torch.Tensor) =
    let grey = x.mean ([| 1L |], true)
    let ink = (x.amin ([| 1L |], true) * (-1.0).ToScalar()).add(1.0.ToScalar())
    let highest, lowest = x.amax ([| 1L |], true), x.amin ([| 1L |], true)
    let saturation = highest - lowest
    let present = ink.gt(0.08.ToScalar()).``to`` torch.float64

    let colours =
        // 4 × 4 × 4 bins of what is not background.
        let bin = (x * 3.999.ToScalar()).floor().``to`` torch.int64
        let index = bin.select (1L, 0L) * 16L.ToScalar() + bin.select (1L, 1L) * 4L.ToScalar() + bin.select (1L, 2L)
        let flat = index.reshape (x.shape[0], -1L)
        torch.zeros(x.shape[0], 64L, dtype = torch.float64).scatter_add_(1L, flat, present.reshape (x.shape[0], -1L)).sqrt()

    let hues =
        let r, g, b = x.narrow (1L, 0L, 1L), x.narrow (1L, 1L, 1L), x.narrow (1L, 2L, 1L)
        let hue = torch.atan2((g - b) * (sqrt 3.0).ToScalar(), r * 2.0.ToScalar() - g - b).add(Math.PI.ToScalar())
        let bin = (hue * (11.999 / (2.0 * Math.PI)).ToScalar()).floor().``to``(torch.int64).reshape(x.shape[0], -1L)
        torch.zeros(x.shape[0], 12L, dtype = torch.float64).scatter_add_(1L, bin, saturation.reshape (x.shape[0], -1L)).sqrt()

    struct (grey, ink, pool (x.neg().add(1.0.ToScalar())) 8L, colours, hues)

let private look (name: string) (n: int) : torch.Tensor =
    use scope = torch.NewDisposeScope()
    let x = torch.tensor(pictures name n).reshape([| int64 n; 3L; 64L; 64L |]).``to`` torch.float64
    let struct (grey, ink, layout, colours, hues) = see x

    scope.MoveToOuter(
        groups
            [ 1.0, layout
              1.2, orientations grey 8L
              1.0, orientations grey 4L
              0.7, colours
              0.7, pool ink 16L
              0.5, hues ]
    )

let private rowsOf (x: torch.Tensor) (rows: int[]) = x.index_select (0L, torch.tensor (Array.map int64 rows))

/// A picture set for all items, and base items in other views where there are any.
let private viewsOf (name: string) = look (name + "-views") (views.Length * baseRows.Length)

// ---- texts

/// Character n-grams of 1 to 5 within words, the ends of a word marked.
let private grams (text: string) =
    [ for word in
          text
              .ToLowerInvariant()
              .Split(
                  [| ' '; '-'; ','; ':'; '’'; '\''; '“'; '”'; '('; ')'; '!'; '?'; '.' |],
                  StringSplitOptions.RemoveEmptyEntries
              ) do
          let marked = $" {word} "

          for n in 1..5 do
              for at in 0 .. marked.Length - n do
                  let gram = marked.Substring(at, n)

                  if gram <> " " then
                      gram ]

/// How often each n-gram comes in an emoji's name (counted twice) and keywords.
let private counts (language: string) (keywords: string list) (e: Emoji) =
    let name = grams e.Names[language]
    List.countBy id (name @ name @ List.collect grams keywords)

/// n-grams that at least two base texts have, with their inverse document frequency.
let private vocabulary =
    let documents =
        [ for language in languages do
              for row in baseRows -> counts language items[row].Keywords[language] items[row] |> List.map fst ]

    let present =
        documents
        |> Seq.collect id
        |> Seq.countBy id
        |> Seq.filter (fun (_, n) -> n >= 2)
        |> Seq.sortWith (fun (a, _) (b, _) -> String.CompareOrdinal(a, b))
        |> Array.ofSeq

    let weight n = 1.0 + log (float (documents.Length + 1) / float (n + 1))
    Dictionary(present |> Seq.mapi (fun i (gram, n) -> KeyValuePair(gram, struct (i, weight n))))

/// TF-IDF with logarithmic counts, a row a text.
let private tfIdf (texts: (string * int) list list) =
    let values = Array.zeroCreate<float>(texts.Length * vocabulary.Count)

    for row, text in List.indexed texts do
        for gram, n in text do
            match vocabulary.TryGetValue gram with
            | true, struct (column, weight) -> values[row * vocabulary.Count + column] <- (1.0 + log (float n)) * weight
            | _ -> ()

    unit (torch.tensor(values).reshape [| int64 texts.Length; int64 vocabulary.Count |])

let private read (language: string) (rows: int[]) =
    tfIdf [ for row in rows -> counts language items[row].Keywords[language] items[row] ]

/// The base items' English texts with some keywords left out: other views of them.
let private reread (view: int) =
    tfIdf
        [ for row in baseRows ->
              let keep i = (i + view) % 3 <> 0
              let keywords = items[row].Keywords["en"] |> List.indexed |> List.filter (fst >> keep) |> List.map snd
              counts "en" (if view % 2 = 0 then keywords else []) items[row] ]

// ---- sounds

let private bands = 40

/// Triangular filters on the mel scale, 257 bins to 40 bands, for the sounds' one rate.
let private melFilters (rate: int) =
    let mel f = 2595.0 * log10 (1.0 + f / 700.0)
    let hertz m = 700.0 * (10.0 ** (m / 2595.0) - 1.0)
    let top = mel (float rate / 2.0)
    let edges = [| for i in 0 .. bands + 1 -> hertz (top * float i / float (bands + 1)) |]

    Array2D.init 257 bands (fun bin band ->
        let f = float bin * float rate / 512.0
        let up = (f - edges[band]) / (edges[band + 1] - edges[band])
        let down = (edges[band + 2] - f) / (edges[band + 2] - edges[band + 1])
        max 0.0 (min up down))

/// Log-mel frames (t × 40) of the part that is spoken, 10 ms apart, the mean of each band taken off.
let private frames (path: string) =
    Tensors.scoped (fun () ->
        let sound, rate = samples path
        let first = Array.findIndex (fun v -> abs v > 0.01f) sound
        let last = Array.findIndexBack (fun v -> abs v > 0.01f) sound
        let spoken = torch.tensor(sound[first..last]).``to`` torch.float64
        let padded = torch.cat ([| spoken; torch.zeros (512L, dtype = torch.float64) |], 0L)
        let windows = padded.unfold (0L, 512L, int64 (rate / 100)) * torch.hann_window (512L, dtype = torch.float64)
        let power = torch.fft.rfft(windows).abs().square()
        let mel = power.mm(torch.tensor (melFilters rate)).add(1e-6.ToScalar()).log()
        mel - mel.mean ([| 0L |], true))

/// The sound in ten equal parts of time: mean and deviation of each band.
let private outline (f: torch.Tensor) =
    Tensors.scoped (fun () ->
        let parts = 10L
        let t = f.shape[0]

        let part p =
            let first = p * t / parts
            f.narrow(0L, first, max 1L ((p + 1L) * t / parts - first)).mean [| 0L |]

        torch.cat (
            [| for p in 0L .. parts - 1L do
                   yield part p
               yield f.std (0L, false) |],
            0L
        ))

/// Patches of 9 frames, every second one, at unit length.
let private patches (f: torch.Tensor) =
    Tensors.scoped (fun () ->
        let padded =
            if f.shape[0] >= 9L then
                f
            else
                torch.cat ([| f; torch.zeros (9L - f.shape[0], f.shape[1], dtype = f.dtype) |], 0L)

        let p = padded.unfold (0L, 9L, 2L)
        unit (p.reshape (p.shape[0], -1L)))

/// 256 codewords by k-means on base patches, started on seeded ones.
let private codewords (all: torch.Tensor) =
    let start = (Seed.permutation all.shape[0] (Seed.ofInt 1 |> Seed.split "codewords")).narrow(0L, 0L, 256L)

    let round (centres: torch.Tensor) _ =
        Tensors.scoped (fun () ->
            let nearest = all.mm(centres.t ()).argmax 1L
            let sums = torch.zeros_like(centres).index_add_(0L, nearest, all, 1.0.ToScalar())
            // A codeword that no patch is nearest to stays where it is.
            let empty =
                torch
                    .zeros(256L, dtype = all.dtype)
                    .index_add_(0L, nearest, torch.ones (all.shape[0], dtype = all.dtype), 1.0.ToScalar())
                    .eq(0.0.ToScalar())

            unit (torch.where (empty.unsqueeze 1L, centres, sums)))

    List.fold round (all.index_select (0L, start)) [ 1..15 ]

/// How much of each codeword a sound has: soft counts over its patches, rooted.
let private bag (centres: torch.Tensor) (f: torch.Tensor) =
    Tensors.scoped (fun () -> (patches f).mm(centres.t ()).mul(12.0.ToScalar()).softmax(1L).mean([| 0L |]).sqrt())

let private hear (centres: torch.Tensor) (sounds: torch.Tensor[]) =
    groups
        [ 1.0, torch.stack [| for f in sounds -> outline f |]
          1.3, torch.stack [| for f in sounds -> bag centres f |] ]

// ---- all of them

/// Features of one domain: all items, and base items in other views (none for domains that the binding does not see).
type Encoded =
    { Name: string
      Modality: string
      Items: torch.Tensor
      Views: torch.Tensor list }

let private ofViews (x: torch.Tensor) =
    let n = int64 baseRows.Length
    [ for v in 0L .. x.shape[0] / n - 1L -> x.narrow (0L, v * n, n) ]

let private encodePictures () =
    let seen = [ for set in [ "noto"; "twemoji"; "fluent" ] -> set, look set items.Length ]
    let notoViews = viewsOf "noto"

    let vision =
        axes
            true
            (torch.cat (
                [| yield notoViews
                   for _, x in seen do
                       yield rowsOf x baseRows |],
                0L
            ))

    let line, lineViews = look "hc" items.Length, viewsOf "hc"
    let lineAxes = axes true (torch.cat ([| lineViews; rowsOf line baseRows |], 0L))

    [ for set, x in seen do
          { Name = $"vision:{set}"
            Modality = "vision"
            Items = project vision x
            Views = if set = "noto" then ofViews (project vision notoViews) else [] }
      { Name = "line:hc"
        Modality = "line"
        Items = project lineAxes line
        Views = ofViews (project lineAxes lineViews) } ]

/// A text without a known n-gram reads like the average base text of its language.
let private orAverage (texts: torch.Tensor) =
    let unknown = texts.norm(1, true).eq(0.0.ToScalar())
    torch.where (unknown, unit ((rowsOf texts baseRows).mean([| 0L |], true)), texts)

let private encodeTexts () =
    let fitted = axes false (torch.cat ([| for language in languages -> read language baseRows |], 0L))
    let everyone = [| 0 .. items.Length - 1 |]

    [ for language in languages ->
          { Name = $"text:{language}"
            Modality = "text"
            Items = project fitted (orAverage (read language everyone))
            Views = if language = "en" then [ for view in 0..4 -> project fitted (reread view) ] else [] } ]

let private encodeSpeech () =
    let sounds = [ for voice, _ in voices -> voice, [| for row in 0 .. items.Length - 1 -> frames (wav voice row) |] ]
    let others = [ for k in 0 .. speakers.Length - 1 -> [| for row in baseRows -> frames (wav $"view{k}" row) |] ]
    let ofBase (f: torch.Tensor[]) = [| for row in baseRows -> f[row] |]

    let centres =
        codewords (
            torch.cat (
                [| for _, f in sounds do
                       yield! Array.map patches (ofBase f) |],
                0L
            )
        )

    let heard = [ for voice, f in sounds -> voice, hear centres f ]
    let heardOthers = [ for f in others -> hear centres f ]

    let fitted =
        axes
            true
            (torch.cat (
                [| for _, x in heard do
                       yield rowsOf x baseRows
                   yield! heardOthers |],
                0L
            ))

    [ for voice, x in heard ->
          { Name = $"speech:{voice}"
            Modality = "speech"
            Items = project fitted x
            Views = if voice = "en-us" then List.map (project fitted) heardOthers else [] } ]

/// Every domain's features (items × 256, unit rows).
let encode () : Encoded list =
    let told name encode =
        let watch = Diagnostics.Stopwatch.StartNew()
        let result = encode ()
        printfn "  %s: %.0f s" name watch.Elapsed.TotalSeconds
        result

    told "pictures" encodePictures @ told "texts" encodeTexts @ told "speech" encodeSpeech
