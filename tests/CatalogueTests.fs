module Cmcl.Tests.CatalogueTests

open System
open System.IO
open Expecto
open TorchSharp
open Cmcl
open Cmcl.Tests.Checks

let private message (name: string) =
    match Catalogue.locate name with
    | Error [ fault ] -> fault.Message
    | other -> failtest $"%A{other}"

let private finding =
    testList
        "finding"
        [ testCase "the synthetic stream" (fun () ->
              use scope = torch.NewDisposeScope()
              Expect.equal (Check.get (Catalogue.find "synthetic")).Steps.Length 6 "steps")
          testCase "a folder and a file by path" (fun () ->
              let folder = Directory.CreateTempSubdirectory "cmcl-catalogue"

              try
                  let file = Path.Combine(folder.FullName, "stream.json")
                  File.WriteAllText(file, "{}")
                  Expect.equal (Catalogue.locate folder.FullName) (Ok(StreamPlace.File file)) "folder"
                  Expect.equal (Catalogue.locate file) (Ok(StreamPlace.File file)) "file"
              finally
                  folder.Delete true)
          testCase "an unknown name" (fun () ->
              for word in [ "'synthetik'"; "did you mean 'synthetic'"; "emoji-dense" ] do
                  Expect.stringContains (message "synthetik") word "the sentence")
          testCase "a path that leads nowhere" (fun () ->
              Expect.stringContains (message "no/such/stream.json") "'no/such/stream.json' does not exist" "the sentence") ]

let private described =
    testList
        "described"
        [ testCase "banks" (fun () ->
              use scope = torch.NewDisposeScope()
              let stream = Check.get (Catalogue.find "synthetic")

              for bank in Describe.banks stream do
                  Expect.equal (bank.Rows, bank.Dimension, bank.Rank) (600L, 64L, 20L) bank.Name
                  Expect.equal bank.Type "float64" "type"
                  Expect.floatClose Accuracy.high bank.NormMean 1.0 "norm"
                  Expect.isLessThan bank.NormDeviation 1e-9 "deviation of the norms")
          testCase "rank survives storage in a smaller type" (fun () ->
              use scope = torch.NewDisposeScope()
              let features = (Check.get (Catalogue.find "synthetic")).Banks["text:1"].Features

              for dtype in [ torch.float16; torch.float32; torch.float64 ] do
                  Expect.equal (Describe.rank (features.``to`` dtype)) 20L (string dtype)

              let full = Seed.normal [ 100L; 30L ] (Seed.ofInt 1)

              for dtype in [ torch.float16; torch.float32; torch.float64 ] do
                  Expect.equal (Describe.rank (full.``to`` dtype)) 30L (string dtype))
          testCase "many rows are as few: rank and norms go block by block" (fun () ->
              use scope = torch.NewDisposeScope()
              let draw name shape = Seed.normal shape (Seed.ofInt 1 |> Seed.split name)
              let features = (draw "latent" [ 20000L; 20L ]).mm(draw "basis" [ 20L; 120L ])
              Expect.isGreaterThan (Tensors.rowBlocks features).Length 1 "blocks"
              let norms = features.norm 1

              let bank =
                  Describe.bank
                      { Name = "x"
                        Modality = Modality.named "text"
                        Features = features }

              Expect.equal bank.Rank 20L "rank"
              Expect.floatClose Accuracy.high bank.NormMean (Tensors.toFloat (norms.mean ())) "norm"
              Expect.floatClose Accuracy.high bank.NormDeviation (Tensors.toFloat (norms.std (unbiased = false))) "deviation")
          test "a bank that would take 128 MiB in float64 is described in less than half of it" (fun () ->
              let bank =
                  { Name = "x"
                    Modality = Modality.named "text"
                    Features = torch.ones(1L, dtype = Nullable torch.float16).expand(65536L, 256L) }

              Expect.isLessThan (taken (fun () -> Describe.bank bank |> ignore)) (64L <<< 20) "bytes")
          testCase "text of at most 100 columns that holds the essentials" (fun () ->
              use scope = torch.NewDisposeScope()
              let stream = Check.get (Catalogue.find "synthetic")
              let text = Describe.text stream

              for line in text.Split '\n' do
                  Expect.isLessThanOrEqual line.Length 100 line

              for word in [ "vision:1–text:1"; "420"; "depth:3"; stream.Digest; "lr=1e-3"; "dns[exact=on]" ] do
                  Expect.stringContains text word "text") ]

let tests = testList "Catalogue" [ finding; described ]
