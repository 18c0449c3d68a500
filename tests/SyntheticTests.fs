module Cmcl.Tests.SyntheticTests

open System
open System.IO
open Expecto
open FsCheck
open FsCheck.FSharp
open TorchSharp
open Cmcl

type Generators =
    static member Options() : Arbitrary<SyntheticOptions> =
        gen {
            let! dimension = Gen.choose (4, 24)
            let! rank = Gen.choose (2, dimension)
            let! samples = Gen.choose (10, 80)
            let! classes = Gen.choose (1, 8)
            let! noise = Gen.choose (0, 20)

            return
                { Dimension = int64 dimension
                  Rank = int64 rank
                  Samples = int64 samples
                  Classes = classes
                  Noise = float noise / 10.0 }
        }
        |> Arb.fromGen

let private config =
    { FsCheckConfig.defaultConfig with
        arbitrary = [ typeof<Generators> ]
        maxTest = 30 }

let private make (seed: int) = Synthetic.make Synthetic.defaults (Seed.ofInt seed)

/// Singular values above rounding.
let private rank (t: torch.Tensor) : int64 =
    use scope = torch.NewDisposeScope()
    let values = torch.linalg.svdvals t
    let floor = 1e-12 * Tensors.toFloat (values.max ())
    int64 (Tensors.toFloat (values.gt(torch.tensor floor).sum()))

let private matrices (split: Split) (step: Step) = Stream.features Dtype.Float64 torch.CPU split step

let private bytes (t: torch.Tensor) : byte[] = t.bytes.ToArray()

/// The one-way InfoNCE at temperature 1 and its closed-form gradients, theory.md section 2.
let private infoNce (xa: torch.Tensor) (xb: torch.Tensor) (wa: torch.Tensor) (wb: torch.Tensor) =
    let ya, yb = xa.mm wa.mT, xb.mm wb.mT
    let scores = ya.mm yb.mT
    let loss = (scores.logsumexp (1L) - scores.diagonal ()).mean() |> Tensors.toFloat
    let n = xa.shape[0]
    let g = (scores.softmax 1L - torch.eye (n, dtype = Nullable torch.float64)) * (1.0 / float n).AsScalar()
    loss, (g.mm yb).mT.mm xa, (g.mT.mm ya).mT.mm xb

let private learnable (step: Step) () =
    use scope = torch.NewDisposeScope()
    let struct (xa, xb) = matrices Split.Train step
    let struct (ta, tb) = matrices Split.Test step
    let start = torch.eye (xa.shape[1], dtype = Nullable torch.float64)

    let wa, wb =
        List.fold
            (fun (wa: torch.Tensor, wb: torch.Tensor) _ ->
                let _, ga, gb = infoNce xa xb wa wb
                wa - ga * 2.0.AsScalar(), wb - gb * 2.0.AsScalar())
            (start, start)
            [ 1..20 ]

    let loss x y wa wb =
        let value, _, _ = infoNce x y wa wb
        value

    Expect.isLessThan (loss xa xb wa wb) (loss xa xb start start - 0.1) "training loss"
    Expect.isLessThan (loss ta tb wa wb) (loss ta tb start start - 0.1) "test loss"

/// Writes a stream as a folder and reads it back.
let private throughFolder (stream: Stream) (check: Stream -> unit) =
    let folder = Directory.CreateTempSubdirectory "cmcl-synthetic"
    use scope = torch.NewDisposeScope()

    try
        let banks =
            [ for bank in Map.values stream.Banks do
                  let file = bank.Name.Replace(':', '-') + ".npy"
                  Check.get (Npy.write (Path.Combine(folder.FullName, file)) bank.Features)
                  $"\"{bank.Name}\": {{ \"modality\": \"{bank.Modality}\", \"file\": \"{file}\" }}" ]

        let range (rows: int64[]) = $"{{ \"from\": {Array.head rows}, \"to\": {Array.last rows + 1L} }}"

        let steps =
            [ for step in stream.Steps do
                  $"{{ \"name\": \"{step.Name}\", \"a\": \"{step.A.Name}\", \"b\": \"{step.B.Name}\", \"train\": \"train\", \"validation\": \"validation\", \"test\": \"test\" }}" ]

        let first = stream.Steps.Head

        File.WriteAllText(
            Path.Combine(folder.FullName, StreamFolder.DefaultFile),
            $"""{{ "format": "cmcl-stream/1", "name": "synthetic", "banks": {{ {String.Join(", ", banks)} }},
                   "rows": {{ "train": {range first.Train}, "validation": {range first.Validation}, "test": {range first.Test} }},
                   "steps": [ {String.Join(", ", steps)} ] }}"""
        )

        check (Check.get (StreamFolder.load folder.FullName))
    finally
        folder.Delete true

let tests =
    testList
        "Synthetic"
        [ testPropertyWithConfig config "rank as planted, unit rows" (fun (options: SyntheticOptions) ->
              use scope = torch.NewDisposeScope()
              let stream = Synthetic.make options (Seed.ofInt 1)

              for bank in Map.values stream.Banks do
                  Expect.equal (rank bank.Features) (min options.Rank options.Samples) bank.Name
                  let norms = bank.Features.norm 1
                  Expect.isLessThan (Tensors.toFloat ((norms.plus -1.0).abs().max())) 1e-12 "norm")
          testCase "rank 20 in training, validation and test rows alike" (fun () ->
              use scope = torch.NewDisposeScope()

              for step in (make 0).Steps do
                  for split in [ Split.Train; Split.Validation; Split.Test ] do
                      let struct (a, b) = matrices split step
                      Expect.equal (rank a) 20L $"{step.Name} {split} a"
                      Expect.equal (rank b) 20L $"{step.Name} {split} b")
          testCase "training and test rows lie in one subspace, another step's in another" (fun () ->
              use scope = torch.NewDisposeScope()
              let stream = make 0
              let both (a: Bank) (b: Bank) = rank (torch.cat [| a.Features; b.Features |])
              Expect.equal (both stream.Banks["vision:1"] stream.Banks["vision:1"]) 20L "the same bank"
              Expect.equal (both stream.Banks["vision:1"] stream.Banks["vision:2"]) 40L "two banks")
          testCase "old subspaces of a modality never fill the space" (fun () ->
              use scope = torch.NewDisposeScope()
              let stream = make 0

              for modality, d in Stream.modalities stream do
                  let banks = Map.values stream.Banks |> Seq.filter (fun b -> b.Modality = modality)
                  Expect.hasLength banks 3 "banks"
                  Expect.isLessThan (rank (torch.cat [| for b in banks -> b.Features |])) d (string modality))
          testCase "some pairs come back, so that both modalities have joint history" (fun () ->
              use scope = torch.NewDisposeScope()
              let members (step: Step) = step.Pair |> Pair.members |> List.map string |> List.sort
              let seen = (make 0).Steps |> List.countBy members
              Expect.equal (seen |> List.filter (fun (_, n) -> n > 1) |> List.length) 2 "pairs seen twice"
              Expect.equal seen.Length 4 "different pairs")
          testCase "prototypes lie in the text bank's subspace, one a class" (fun () ->
              use scope = torch.NewDisposeScope()
              let step = (make 0).Steps.Head
              let accuracy = Option.get step.Accuracy
              Expect.equal accuracy.Prototypes.shape [| 12L; 64L |] "shape"
              Expect.equal (rank (torch.cat [| step.B.Features; accuracy.Prototypes |])) 20L "subspace"
              Expect.equal accuracy.Labels.Length 600 "labels")
          testCase "the same seed gives the same bytes, another does not" (fun () ->
              use scope = torch.NewDisposeScope()
              let one, same, other = make 3, make 3, make 4

              for name in Map.keys one.Banks do
                  Expect.equal (bytes one.Banks[name].Features) (bytes same.Banks[name].Features) name

              Expect.equal one.Digest same.Digest "digest"
              Expect.notEqual one.Digest other.Digest "digest of another seed")
          testCase "it outlives the scope that it was made in" (fun () ->
              use scope = torch.NewDisposeScope()
              let stream = make 0
              Expect.all (Map.values stream.Banks) (fun b -> not b.Features.IsInvalid) "alive"
              Expect.isTrue (Tensors.isFinite (Option.get stream.Steps.Head.Accuracy).Prototypes) "alive")
          testList
              "a few gradient steps lower the loss"
              [ for index in 0..5 do
                    testCase $"step {index + 1}" (fun () ->
                        use scope = torch.NewDisposeScope()
                        learnable (make 0).Steps[index] ()) ]
          testCase "written to a folder it loads as the same stream" (fun () ->
              use scope = torch.NewDisposeScope()
              let stream = make 0

              throughFolder stream (fun back ->
                  for name in Map.keys stream.Banks do
                      Expect.equal (bytes back.Banks[name].Features) (bytes stream.Banks[name].Features) name

                  for one, other in List.zip stream.Steps back.Steps do
                      Expect.equal other.Pair one.Pair "pair"
                      Expect.equal other.Train one.Train "training rows"
                      Expect.equal other.Test one.Test "test rows"))
          testCase "options outside their range" (fun () ->
              for wrong in
                  [ { Synthetic.defaults with Rank = 65L }
                    { Synthetic.defaults with Rank = 1L }
                    { Synthetic.defaults with Samples = 9L }
                    { Synthetic.defaults with Classes = 0 }
                    { Synthetic.defaults with Noise = nan } ] do
                  Expect.throwsT<CmclException> (fun () -> Synthetic.make wrong (Seed.ofInt 0) |> ignore) $"%A{wrong}") ]
