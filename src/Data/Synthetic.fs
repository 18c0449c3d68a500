namespace Cmcl

open System
open System.Security.Cryptography
open System.Text
open TorchSharp

/// What a synthetic stream is made of. Example: `{ Synthetic.defaults with Rank = 10L }`.
type SyntheticOptions =
    {
        /// d, the same for every modality.
        Dimension: int64
        /// Rank r of every bank, 2 or more (unit rows of one dimension are signs): its rows lie in a subspace of r dimensions.
        Rank: int64
        /// Rows of every bank: 7 in 10 to train on, 1 for validation, 2 for the test.
        Samples: int64
        /// Classes that the latents gather around.
        Classes: int
        /// Size of what the two sides of a pair do not share, against what they do.
        Noise: float
    }

/// A stream with planted subspaces, so that the null space of old features is exact and theory can be checked to rounding.
///
/// Six steps over vision, text, audio and depth. Every step has two banks of its own, X_a = Z_a B_aᵀ and X_b = Z_b B_bᵀ:
/// B_m is a random orthonormal d × r basis, Z_a and Z_b are the pair's shared latents, each with noise of its own, their
/// rows of unit length. So every row has unit norm and every bank has rank r, in training and test rows alike. A modality
/// has three banks with different subspaces; with d = 64 and r = 20 at most 60 of its 64 dimensions are ever taken.
/// Steps 4 and 6 come back to pairs that steps 1 and 5 had, so there both modalities have joint history.
[<RequireQualifiedAccess>]
module Synthetic =

    /// d = 64, r = 20, 600 rows, 12 classes: the stream of the project's measurements.
    let defaults: SyntheticOptions =
        { Dimension = 64L
          Rank = 20L
          Samples = 600L
          Classes = 12
          Noise = 0.5 }

    /// The pairs of the six steps, anchor first. Each modality comes three times.
    let private pairs =
        [ "vision", "text"; "audio", "text"; "vision", "depth"; "vision", "text"; "audio", "depth"; "depth", "audio" ]

    let private check (options: SyntheticOptions) =
        let wrong name expected given = Check.fail (Fault.BadValue($"'{name}' of a synthetic stream", expected, given))

        if options.Dimension < 2L then
            wrong "Dimension" "2 or more" (string options.Dimension)

        if options.Rank < 2L || options.Rank > options.Dimension then
            wrong "Rank" $"2 to {options.Dimension}, the dimension" (string options.Rank)

        if options.Samples < 10L then
            wrong "Samples" "10 or more" (string options.Samples)

        if options.Classes < 1 then
            wrong "Classes" "1 or more" (string options.Classes)

        if not (options.Noise >= 0.0 && Double.IsFinite options.Noise) then
            wrong "Noise" "0 or more" (string options.Noise)

    let private unitRows (t: torch.Tensor) : torch.Tensor = t / t.norm (1, keepdim = true)

    /// A random orthonormal basis, d × r.
    let private basis (options: SyntheticOptions) (seed: Seed) : torch.Tensor =
        Tensors.scoped (fun () ->
            let struct (q, _) = torch.linalg.qr (Seed.normal [ options.Dimension; options.Rank ] seed)

            q.contiguous ())

    /// A step's latents (n × r) for both sides, the class of every row, and the classes' own latents.
    let private latents (options: SyntheticOptions) (seed: Seed) =
        let centres = Seed.normal [ int64 options.Classes; options.Rank ] (Seed.split "classes" seed) |> unitRows

        let labels = Array.init (int options.Samples) (fun row -> int64 (row % options.Classes))

        let shared =
            centres.index_select (0L, torch.tensor labels)
            .+ unitRows (Seed.normal [ options.Samples; options.Rank ] (Seed.split "items" seed))

        let side name =
            let noise = Seed.normal [ options.Samples; options.Rank ] (Seed.split name seed)
            unitRows (shared .+ unitRows noise * options.Noise.AsScalar())

        side "a", side "b", labels, centres

    let private bank (modality: string) (number: int) (features: torch.Tensor) : Bank =
        { Name = $"{modality}:{number}"
          Modality = Modality.named modality
          Features = features }

    /// Rows are independent of one another, so the splits are simply the first, the next and the last of them.
    let private splits (options: SyntheticOptions) =
        let validation, test = options.Samples / 10L, options.Samples / 5L
        let train = options.Samples - validation - test

        [| 0L .. train - 1L |], [| train .. train + validation - 1L |], [| train + validation .. options.Samples - 1L |]

    let private step (options: SyntheticOptions) (seed: Seed) (index: int) (a: string, b: string) : Step =
        let seed = Seed.split $"step {index}" seed

        let number modality = pairs |> List.take index |> List.filter (fun (a, b) -> a = modality || b = modality) |> List.length

        let za, zb, labels, centres = latents options seed

        let basisA, basisB = basis options (Seed.split "basis a" seed), basis options (Seed.split "basis b" seed)

        let inSpace (z: torch.Tensor) (basis: torch.Tensor) = Tensors.product z (basis.mT.contiguous ())

        let bankA, bankB = bank a (number a) (inSpace za basisA), bank b (number b) (inSpace zb basisB)

        let train, validation, test = splits options

        { Index = index
          Name = $"{bankA.Name}–{bankB.Name}"
          A = bankA
          B = bankB
          Pair = Pair.named a b
          Pairs = None
          Train = train
          Validation = validation
          Test = test
          Accuracy =
            if b = "text" then
                Some
                    { Items = bankA.Name
                      Modality = bankB.Modality
                      Prototypes = inSpace centres basisB
                      Labels = labels
                      Classes = [ for c in 1 .. options.Classes -> $"class {c}" ] }
            else
                None }

    let private preset: Preset =
        { Common =
            Map
                [ "lr", "1e-3"
                  "epochs", "5"
                  "batch", "64"
                  "temperature", "1"
                  "scores", "raw"
                  "threshold", "relative:1e-10"
                  "partner-threshold", "relative:1e-10" ]
          Methods = Map.empty
          Run = [ "zero-shot"; "vanilla"; "dns[exact=on]"; "dns[place=gradient]"; "joint" ] }

    /// Hex SHA-256 over the options, the seed and the numbers.
    let private digest (options: SyntheticOptions) (seed: Seed) (features: torch.Tensor seq) : string =
        use hash = IncrementalHash.CreateHash HashAlgorithmName.SHA256

        let settings =
            FormattableString.Invariant
                $"{options.Dimension} {options.Rank} {options.Samples} {options.Classes} {options.Noise:R} {seed.Value}"

        hash.AppendData(Encoding.UTF8.GetBytes settings)

        for t in features do
            hash.AppendData(Span.op_Implicit t.bytes: ReadOnlySpan<byte>)

        Convert.ToHexStringLower(hash.GetHashAndReset())

    let private tensors (stream: Stream) : torch.Tensor seq =
        [ for step in stream.Steps do
              step.A.Features
              step.B.Features

              match step.Accuracy with
              | Some accuracy -> accuracy.Prototypes
              | None -> () ]

    /// Makes the stream, float64 on the CPU: the same options and seed give the same bytes. Its tensors belong to the caller.
    /// Raises `CmclException` for options outside their range.
    let make (options: SyntheticOptions) (seed: Seed) : Stream =
        check options

        Tensors.scopedWith tensors (fun () ->
            let steps = pairs |> List.mapi (fun i pair -> step options seed (i + 1) pair)

            let stream =
                { Name = "synthetic"
                  Description =
                    $"Six steps over four modalities, planted subspaces of rank {options.Rank} in {options.Dimension} dimensions: the null space of old features is exact."
                  Digest = ""
                  Banks =
                    Map
                        [ for step in steps do
                              step.A.Name, step.A
                              step.B.Name, step.B ]
                  Steps = steps
                  Groups = Map.empty
                  Heads = None
                  Preset = preset }

            { stream with
                Digest = digest options seed (tensors stream) })
