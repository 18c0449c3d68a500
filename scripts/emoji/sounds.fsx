// What is heard in spoken names: log-mel outlines, and a bag of codewords.
#load "axes.fsx"

open Cmcl
open TorchSharp
open Inventory
open Render
open Axes

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
        let mel = power.mm(torch.tensor (melFilters rate)).plus(1e-6).log()
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
            let sums = torch.zeros_like(centres).index_add_(0L, nearest, all, 1.0.AsScalar())
            // A codeword that no patch is nearest to stays where it is.
            let empty =
                torch
                    .zeros(256L, dtype = all.dtype)
                    .index_add_(0L, nearest, torch.ones (all.shape[0], dtype = all.dtype), 1.0.AsScalar())
                    .eq(0.0.AsScalar())

            unit (torch.where (empty.unsqueeze 1L, centres, sums)))

    List.fold round (all.index_select (0L, start)) [ 1..15 ]

/// How much of each codeword a sound has: soft counts over its patches, rooted.
let private bag (centres: torch.Tensor) (f: torch.Tensor) =
    Tensors.scoped (fun () -> (patches f).mm(centres.t ()).mul(12.0.AsScalar()).softmax(1L).mean([| 0L |]).sqrt())

let private hear (centres: torch.Tensor) (sounds: torch.Tensor[]) =
    groups
        [ 1.0, torch.stack [| for f in sounds -> outline f |]
          1.3, torch.stack [| for f in sounds -> bag centres f |] ]

/// The four voices.
let encodeSpeech () =
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
