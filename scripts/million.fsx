// A stream of two steps with a million pairs each (1024 columns of float16: 2 GB a bank, three banks, the text bank in both steps), made
// block by block, to measure what a run takes at that size (docs/scale.md):
//
//     dotnet fsi scripts/million.fsx output/million --rows 1000000
//     /usr/bin/time -v cmcl run --stream output/million --methods vanilla --seeds 0 --out output/million-vanilla --force
//     /usr/bin/time -v cmcl run --stream output/million --methods dns --seeds 0 --out output/million-dns --force
//     cmcl moments accumulate output/million/features/*.npy -o output/million.safetensors --force
//
// Without --rows there are 2,000 training pairs, and the same commands take seconds. The features are latents that the modalities
// share, each with noise and a basis of its own, in rows of unit length.
#load "load.fsx"

open System
open System.IO
open Cmcl
open TorchSharp

let folder, pairs =
    match List.ofArray fsi.CommandLineArgs |> List.tail with
    | [] -> "output/million", 2_000L
    | [ folder; "--rows"; pairs ] -> folder, int64 pairs
    | _ -> failwith "expected nothing, or FOLDER --rows N"

let columns = 1024L

/// Latents that the modalities share, and rows made at once.
let shared, block = 64L, 20_000L

let validation, test = min 2_000L pairs, min 10_000L pairs
let rows = pairs + validation + test
let modalities = [ "text"; "audio"; "video" ]

Directory.CreateDirectory(Path.Combine(folder, "features")) |> ignore

for modality in modalities do
    use scope = torch.NewDisposeScope()
    let seed = Seed.ofInt 0
    let single (t: torch.Tensor) = t.``to`` torch.float32
    let basis = Seed.normal [ shared; columns ] (seed |> Seed.split modality) |> single

    let blocks =
        seq {
            for first in 0L .. block .. rows - 1L do
                let draw purpose width =
                    use g = Seed.generator (seed |> Seed.split purpose |> Seed.split $"block {first}")
                    torch.randn ([| min block (rows - first); width |], dtype = Nullable torch.float32, generator = g)

                Tensors.scoped (fun () ->
                    let x = (draw "latents" shared).mm basis .+ 4.0.AsScalar() * draw modality columns
                    x / x.norm (1, true))
        }

    Npy.writeRows (Path.Combine(folder, "features", modality + ".npy")) torch.ScalarType.Float16 rows columns blocks
    |> Check.get

let bank modality = $"\"{modality}\": {{ \"modality\": \"{modality}\", \"file\": \"features/{modality}.npy\" }}"
let range name first upTo = $"\"{name}\": {{ \"from\": {first}, \"to\": {upTo} }}"

let step a b =
    $"{{ \"name\": \"{a}–{b}\", \"a\": \"{a}\", \"b\": \"{b}\", \"train\": \"train\", \"validation\": \"validation\", \"test\": \"test\" }}"

let listed (items: string list) = String.Join(",\n    ", items)

let description =
    $"""{{
  "format": "cmcl-stream/1",
  "name": "million",
  "description": "Two steps of {pairs} generated pairs.",
  "banks": {{
    {listed [ for m in modalities -> bank m ]}
  }},
  "rows": {{
    {listed
         [ range "train" 0L pairs
           range "validation" pairs (pairs + validation)
           range "test" (pairs + validation) rows ]}
  }},
  "steps": [
    {listed [ step "audio" "text"; step "video" "text" ]}
  ],
  "preset": {{
    "common": {{ "lr": "1e-4", "epochs": "1", "batch": "1024", "temperature": "0.07", "scores": "cosine" }},
    "run": ["vanilla", "dns"]
  }}
}}
"""

File.WriteAllText(Path.Combine(folder, "stream.json"), description)
printfn "%s: %d rows x %d, %d modalities" (Path.GetFullPath folder) rows columns modalities.Length
