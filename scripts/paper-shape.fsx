// Feature files in the published code's HDF5 layout, of the paper's shape: seven data sets, seven modalities, d = 1024. Features
// are generated: items of a class lie near each other in a space that the modalities share, each seen through a rotation of its
// own and with noise, so that training has something to learn. Rows are in the proportion of the data sets' own.
//
//     dotnet fsi scripts/paper-shape.fsx [FOLDER] [--rows N] [--dim D]
//
// N: training rows of the largest data set (60). Then: cmcl import cmcl-h5 FOLDER --backbone imagebind --out paper, and
// cmcl run --stream paper --preset paper-imagebind. Without FOLDER the files are made, imported, described and thrown away.
#load "load.fsx"


#r "nuget: PureHDF, 2.2.0"

open System
open System.IO
open Cmcl
open PureHDF
open TorchSharp

let arguments = fsi.CommandLineArgs |> Array.skip 1 |> List.ofArray

let option name (fallback: int) =
    arguments
    |> List.pairwise
    |> List.tryPick (fun (key, value) -> if key = name then Some(int value) else None)
    |> Option.defaultValue fallback

let rows, d = option "--rows" 60, int64 (option "--dim" 1024)
let given = arguments |> List.tryHead |> Option.filter (fun a -> not (a.StartsWith "--"))
let folder = given |> Option.defaultWith (fun () -> Directory.CreateTempSubdirectory("paper-shape").FullName)
Directory.CreateDirectory folder |> ignore

/// Modalities in the order of the files, training and test rows of the data set, classes.
let dataSets =
    [ "UCF101", [ "text"; "video" ], 9_537, 3_783, 101
      "ESC50", [ "text"; "audio" ], 1_600, 400, 50
      "NYUDv2", [ "vision"; "text"; "depth" ], 795, 654, 27
      "Clotho", [ "text"; "audio" ], 3_839, 1_045, 1
      "VGGSound-S", [ "text"; "audio"; "video" ], 10_000, 2_000, 309
      "TVL", [ "vision"; "text"; "tactile" ], 9_000, 1_000, 1
      "LLVIP", [ "vision"; "thermal" ], 12_025, 3_463, 1 ]

let largest = dataSets |> List.map (fun (_, _, train, _, _) -> train) |> List.max
let seed = Seed.ofInt 0
let shared = 64L

/// The shared space as a modality sees it, d × shared, columns of length 1 about.
let views =
    dataSets
    |> List.collect (fun (_, modalities, _, _, _) -> modalities)
    |> List.distinct
    |> List.map (fun m -> m, (Seed.normal [ d; shared ] (Seed.split $"view {m}" seed)) / sqrt(float d).ToScalar())
    |> Map.ofList

let unit (x: torch.Tensor) = x / x.norm (-1, true)

/// What a modality shows of points of the shared space, with noise, on the unit sphere.
let seen (noise: float) (purpose: string) (modality: string) (points: torch.Tensor) =
    let clean = unit (points.matmul (views[modality].t()))
    let grain = Seed.normal [ points.shape[0]; d ] (Seed.split $"{purpose} {modality}" seed) / sqrt(float d).ToScalar()
    (unit (clean + noise.ToScalar() * grain)).``to`` torch.float32

for name, modalities, train, test, classes in dataSets do
    use scope = torch.NewDisposeScope()
    let count n = max 8 (int (Math.Round(float n * float rows / float largest)))
    let classes = min classes (count train)
    let centres = Seed.normal [ int64 classes; shared ] (Seed.split $"{name} classes" seed)

    for split, n in [ "train", count train; "test", count test ] do
        let kinds = [| for i in 0 .. n - 1 -> i % classes |]
        let own = Seed.normal [ int64 n; shared ] (Seed.split $"{name} {split}" seed)
        let points = centres.index_select (0L, torch.tensor (Array.map int64 kinds)) + own
        let values = torch.stack ([ for m in modalities -> seen 0.5 $"{name} {split}" m points ], 1L)
        let file = H5File()

        for i in 0 .. n - 1 do
            let numbers = values[int64 i].data<float32>().ToArray()

            file[$"tensor({i})__class {kinds[i]}__{kinds[i]}"] <-
                Array2D.init modalities.Length (int d) (fun j k -> numbers[j * int d + k])

        file.Write(Path.Combine(folder, $"{name}_{split}_imagebind.h5"))

    let file = H5File()
    let texts = seen 0.2 $"{name} prompts" "text" centres

    for c in 0 .. classes - 1 do
        file[$"class {c}"] <- texts[int64 c].data<float32>().ToArray()

    file.Write(Path.Combine(folder, $"{name}_class_imagebind.h5"))
    printfn "%-10s %5d train, %5d test, %3d classes: %s" name (count train) (count test) classes (String.Join(", ", modalities))

if given.IsNone then
    let out = folder + "-stream"
    let options = { Importer.defaults with Backbone = Some "imagebind" }

    try
        Importer.run (Importer.find "cmcl-h5" |> Check.get) options { Normalise = false; ZeroRows = false } false folder out
        |> Check.get
        |> List.iter (printfn "%s")

        let stream = StreamFolder.load out |> Check.get
        printfn "%d steps, %d heads" stream.Steps.Length (Stream.modalities stream).Length
    finally
        for made in [ folder; out ] do
            if Directory.Exists made then
                Directory.Delete(made, true)
