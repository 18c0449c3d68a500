/// Folders of features as people have them, written by the Python programs in tests/cases; skipped where no Python with NumPy and pandas is
/// found. Each says in a `case.json` what an import of it has to give.
module Cmcl.Tests.CaseTests

open System
open System.IO
open System.Text.Json
open Expecto
open TorchSharp
open Cmcl
open Cmcl.Tests.Checks
open Cmcl.Tests.ImportFiles

/// The cases, written once.
let private made =
    lazy
        (let folder = Directory.CreateTempSubdirectory("cmcl-cases").FullName
         let program = Path.Combine(__SOURCE_DIRECTORY__, "cases", "make.py")

         let run =
             $"import sys, runpy; sys.path.insert(0, {JsonSerializer.Serialize(Path.GetDirectoryName program)}); runpy.run_path({JsonSerializer.Serialize program}, run_name='__main__')"

         python "numpy, pandas" run [ folder ]
         folder)

let private texts (case: JsonElement) (key: string) : string list =
    match case.TryGetProperty key with
    | true, list -> [ for text in list.EnumerateArray() -> string (text.GetString()) ]
    | _ -> []

let private whole (case: JsonElement) (key: string) : int64[] option =
    match case.TryGetProperty key with
    | true, list -> Some [| for n in list.EnumerateArray() -> n.GetInt64() |]
    | _ -> None

/// What a stream has of a modality, in the order of the rows of its steps' banks.
let private bank (stream: Stream) (modality: string) : torch.Tensor =
    let step = stream.Steps.Head
    if step.A.Modality.Name = modality then step.A.Features else step.B.Features

let private check (folder: string) (case: JsonElement) : unit =
    use scope = torch.NewDisposeScope()
    let out = folder + ".out"
    let result = run (string (case.GetProperty("format").GetString())) folder out

    match result, case.GetProperty("read").GetBoolean() with
    | Error faults, true -> failtest $"refused: {faults.Head.Message}"
    | Ok _, false -> failtest "imported"
    | Error faults, false ->
        let told = String.Join("\n", faults |> List.map _.Message)

        for word in texts case "words" do
            Expect.stringContains told word "what is told"

        Expect.all faults (fun f -> f.Message.Length < 600) "a few lines"
        Expect.isFalse (Directory.Exists out) "nothing is written"
    | Ok notes, true ->
        let stream = loaded out
        let told = String.Join("\n", notes)

        for word in texts case "notes" do
            Expect.stringContains told word "what is told"

        for expected in case.GetProperty("banks").EnumerateObject() do
            let rows = Npy.read (string (expected.Value.GetString())) |> Check.get
            let found = bank stream expected.Name

            match case.TryGetProperty "near" with
            | true, near when near.EnumerateObject() |> Seq.exists (fun p -> p.Name = expected.Name) ->
                Expect.isLessThan
                    (entry ((found - rows).abs().max().reshape(1L, 1L)) 0 0)
                    (near.GetProperty(expected.Name).GetDouble() * 10.0)
                    expected.Name
            | _ -> identical expected.Name found rows

        match case.TryGetProperty "pairs" with
        | true, wanted ->
            let pairs = stream.Steps.Head.Pairs.Value
            let wanted = [ for pair in wanted.EnumerateArray() -> pair[0].GetInt64(), pair[1].GetInt64() ]
            Expect.equal (Array.zip pairs.A pairs.B |> List.ofArray) wanted "pairs"
        | _ -> ()

        // What an import suggests can be run.
        let plans = Plan.resolve stream.Preset [] stream.Preset.Run |> Check.get
        Expect.isEmpty (plans |> List.collect (Plan.check stream)) "its preset"

        match texts case "steps" with
        | [] -> ()
        | steps -> Expect.equal [ for s in stream.Steps -> s.Name ] steps "steps in their order"

        match texts case "classes" with
        | [] -> ()
        | classes ->
            let accuracy = stream.Steps.Head.Accuracy.Value
            Expect.equal accuracy.Classes classes "classes"
            Expect.equal accuracy.Labels (whole case "labels").Value "labels"

let private cases =
    testCase "every case is read right, or refused with the reason" (fun () ->
        let folder = made.Value

        try
            let files = Directory.GetFiles(folder, "*.case.json") |> Array.sort
            Expect.isGreaterThan files.Length 50 "cases"

            let wrong =
                [ for file in files do
                      use document = JsonDocument.Parse(File.ReadAllText file)
                      let case = document.RootElement
                      let name = Path.GetFileName(file.Replace(".case.json", "")) |> string

                      try
                          check (file.Replace(".case.json", "")) case
                      with e ->
                          $"{name}: {e.Message}" ]

            Expect.isEmpty wrong (String.Join("\n", wrong))
        finally
            Directory.Delete(folder, true))

let tests = testList "import cases" [ cases ]
