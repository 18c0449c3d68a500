module Cmcl.Tests.CliTests

open System
open System.IO
open System.Text.Json.Nodes
open Expecto
open Spectre.Console
open TorchSharp
open Cmcl
open Cmcl.Cli

/// What a command left: its exit code, standard output, standard error.
type Told = { Code: int; Out: string; Error: string }

/// The command in this process, with both its outputs caught.
let cmcl (arguments: string list) : Told =
    let out, error, console = Console.Out, Console.Error, AnsiConsole.Console
    use newOut = new StringWriter()
    use newError = new StringWriter()

    try
        Console.SetOut newOut
        Console.SetError newError
        AnsiConsole.Console <- AnsiConsole.Create(AnsiConsoleSettings(Out = AnsiConsoleOutput newOut))
        let code = Program.main (Array.ofList arguments)

        { Code = code
          Out = newOut.ToString()
          Error = newError.ToString() }
    finally
        Console.SetOut out
        Console.SetError error
        AnsiConsole.Console <- console
        torch.set_num_threads 1

let inFolder (act: string -> unit) =
    let folder = Directory.CreateTempSubdirectory "cmcl-cli"

    try
        act folder.FullName
    finally
        folder.Delete true

/// Refused as a user's mistake: exit code 2, one line a fault on standard error with these words, no stack trace, nothing on
/// standard output.
let expectRefused (words: string list) (told: Told) =
    Expect.equal told.Code 2 $"exit code; standard error: {told.Error}"
    Expect.equal told.Out "" "standard output"

    for word in words do
        Expect.stringContains told.Error word "the sentence"

    Expect.isFalse (told.Error.Contains "   at ") "no stack trace"

    for line in told.Error.TrimEnd().Split '\n' do
        Expect.stringStarts line "cmcl: " "every line is a sentence of the command"

/// A command that is refused and leaves no results folder.
let private refused (title: string) (arguments: string list) (words: string list) =
    testCase title (fun () ->
        inFolder (fun folder ->
            let out = Path.Combine(folder, "out")
            expectRefused words (cmcl (arguments @ [ "--out"; out ]))
            Expect.isEmpty (Directory.GetFileSystemEntries folder) "nothing was written"))

let private onSynthetic arguments = [ "run"; "--stream"; "synthetic" ] @ arguments

// ---- streams -----------------------------------------------------------------------------------------------------

let private good =
    """{ "format": "cmcl-stream/1", "name": "small",
  "banks": { "vision:a": { "modality": "vision", "file": "vision.npy" }, "text:a": { "modality": "text", "file": "text.npy" } },
  "rows": { "train": { "from": 0, "to": 12 }, "validation": { "from": 12, "to": 16 }, "test": { "from": 16, "to": 20 } },
  "classes": { "kind": { "names": ["x", "y"], "labels": [0,1,0,1,0,1,0,1,0,1,0,1,0,1,0,1,0,1,0,1] } },
  "prototypes": { "text:kind": { "modality": "text", "classes": "kind", "file": "prototypes.npy" } },
  "steps": [ { "name": "only", "a": "vision:a", "b": "text:a", "train": "train", "validation": "validation", "test": "test",
               "accuracy": { "items": "vision:a", "prototypes": "text:kind" } } ] }"""

let private save (folder: string) (name: string) (t: torch.Tensor) = Npy.write (Path.Combine(folder, name)) t |> Check.get

/// A stream folder with its description changed by `change` and its files by `spoil`.
let makeStream (change: string -> string) (spoil: string -> unit) (folder: string) =
    use scope = torch.NewDisposeScope()

    for name, rows in [ "vision", 20L; "text", 20L; "prototypes", 2L ] do
        save folder (name + ".npy") (Seed.normal [ rows; 6L ] (Seed.ofInt 0 |> Seed.split name))

    File.WriteAllText(Path.Combine(folder, StreamFolder.DefaultFile), change good)
    spoil folder

let private withValue (row: int64) (value: float) (folder: string) =
    use scope = torch.NewDisposeScope()
    let t = Seed.normal [ 20L; 6L ] (Seed.ofInt 0)
    t.[[| torch.TensorIndex.Single row; torch.TensorIndex.Single 2L |]] <- torch.tensor value
    save folder "vision.npy" t

/// `run` refuses a spoilt stream, and `info` says the same.
let private badStream title (change: string -> string) (spoil: string -> unit) (arguments: string list) (words: string list) =
    testCase title (fun () ->
        inFolder (fun folder ->
            let data = Directory.CreateDirectory(Path.Combine(folder, "data")).FullName
            let out = Path.Combine(folder, "out")
            makeStream change spoil data
            expectRefused words (cmcl ([ "run"; "--stream"; data; "-m"; "vanilla"; "--out"; out ] @ arguments))
            Expect.isFalse (Directory.Exists out) "no results folder"

            if arguments.IsEmpty then
                expectRefused words (cmcl [ "info"; data ])))

let private replaced (from: string) (into: string) (text: string) = text.Replace(from, into)

let private asIs (_: string) = ()

let private streams =
    testList
        "bad streams"
        [ refused "no such name" [ "run"; "--stream"; "nothing" ] [ "no stream 'nothing'"; "synthetic" ]
          refused "no such path" [ "run"; "--stream"; "./nowhere/here" ] [ "nowhere"; "does not exist" ]
          badStream "a missing file" id (fun f -> File.Delete(Path.Combine(f, "text.npy"))) [] [ "text.npy"; "does not exist" ]
          badStream
              "a wrong shape"
              id
              (fun f ->
                  use t = torch.zeros (19L, 6L)
                  save f "text.npy" t)
              []
              [ "19"; "20"; "only" ]
          badStream "a NaN" id (withValue 7L nan) [] [ "vision:a"; "NaN or infinite"; "row 7" ]
          badStream "an infinity" id (withValue 3L infinity) [] [ "vision:a"; "NaN or infinite"; "row 3" ]
          badStream "an unknown bank" (replaced "\"b\": \"text:a\"" "\"b\": \"text:b\"") asIs [] [ "text:b"; "text:a"; "bank" ]
          badStream "an empty split" (replaced "{ \"from\": 16, \"to\": 20 }" "[]") asIs [] [ "no test rows"; "only" ]
          badStream "a row out of range" (replaced "\"to\": 20" "\"to\": 21") asIs [] [ "row 20"; "20 rows" ]
          badStream
              "classes without prototypes"
              (fun text ->
                  let first, last = text.IndexOf "  \"prototypes\"", text.IndexOf "  \"steps\""
                  text.Remove(first, last - first))
              asIs
              []
              [ "prototypes"; "text:kind" ]
          badStream "no JSON" (fun _ -> "{") asIs [] [ "stream.json"; "cannot be read" ]
          badStream "a batch that no step fills" id asIs [ "--batch"; "13" ] [ "13"; "12 training rows"; "set batch to 12" ]
          testCase "a good one" (fun () ->
              inFolder (fun folder ->
                  makeStream id asIs folder
                  let told = cmcl [ "info"; folder ]
                  Expect.equal told.Code 0 told.Error
                  Expect.stringContains told.Out "vision:a" "its banks")) ]

// ---- options -----------------------------------------------------------------------------------------------------

let private seeds =
    [ for given in [ ""; "a"; "-1"; "3-1"; "0,0"; "1.5"; "99999999999"; "0," ] ->
          refused $"seeds '{given}'" (onSynthetic [ "--seeds"; given ]) [ "--seeds takes whole numbers"; $"'{given}'" ] ]

let private contradictions =
    [ [ "-m"; "dns"; "--exact"; "--place"; "gradient" ], [ "--exact"; "--place gradient"; "--place eigenbasis" ]
      [ "-m"; "dns"; "--exact"; "--partner"; "at-learning" ], [ "--exact"; "--partner current" ]
      [ "-m"; "dns"; "--exact"; "--moments"; "centred" ], [ "--exact"; "--moments uncentred" ]
      [ "-m"; "dns"; "--exact"; "--sides"; "input" ], [ "--sides input is exact already" ]
      [ "-m"; "dns"; "--exact"; "--protect"; "soft" ], [ "--exact"; "--protect block" ]
      [ "-m"; "dns"; "--protect"; "soft"; "--place"; "update" ], [ "--protect soft needs the eigenbasis"; "--place update" ]
      [ "-m"; "vanilla"; "--tau"; "1" ], [ "--tau 1 changes nothing for vanilla" ]
      [ "-m"; "dns"; "--tau"; "1" ], [ "--tau 1 changes nothing for dns" ]
      [ "-m"; "dns[tau=1]" ], [ "'tau' changes nothing in dns[tau=1]"; "set protect=product, or protect=soft" ]
      [ "-m"; "ewc[gamma=0.9]" ], [ "'gamma' changes nothing"; "set accumulate=online." ]
      [ "-m"; "ewc"; "--set"; "gamma=0.9" ], [ "--set gamma=0.9 changes nothing for ewc"; "set --accumulate online." ]
      [ "-m"; "ewc"; "--gamma"; "0.9" ], [ "--gamma 0.9 changes nothing for ewc"; "set --accumulate online." ]
      [ "-m"; "gem"; "--margin"; "x" ], [ "cmcl: --margin takes a number ≥ 0, not 'x'" ]
      [ "-m"; "vanilla"; "--set"; "margin=0.2" ], [ "--set margin=0.2 changes nothing"; "a method that takes it: gem" ]
      [ "-m"; "gem"; "--set"; "margin=x" ], [ "cmcl: --set margin takes a number ≥ 0, not 'x'" ]
      [ "-m"; "gem[margin=x]" ], [ "cmcl: margin takes a number ≥ 0, not 'x'" ]
      [ "-m"; "dns[exact=on]"; "--place"; "gradient" ], [ "exact=on cannot hold with --place gradient" ]
      [ "-m"; "dns"; "--place"; "gradiant" ], [ "--place takes gradient, update or eigenbasis"; "did you mean 'gradient'?" ]
      [ "-m"; "dns"; "--threshold"; "trase:1e-3" ], [ "the kind of --threshold takes absolute"; "did you mean 'trace'?" ]
      [ "-m"; "dns[exct=on]" ], [ "'exct' is not an option of dns; did you mean 'exact'?" ]
      [ "--split"; "tets" ], [ "did you mean 'test'?" ]
      [ "--device"; "cud" ], [ "did you mean 'cuda'?" ]
      [ "-m"; "vanilla[tau=1]" ], [ "'tau' is not an option of vanilla" ]
      [ "-m"; "zero-shot"; "--lr"; "1" ], [ "--lr 1 changes nothing" ]
      [ "-m"; "vanilla,vanilla" ], [ "'vanilla' is named twice" ]
      [ "--lr"; "1"; "--lr"; "2" ], [ "--lr is given twice" ] ]
    |> List.map (fun (arguments, words) -> refused (String.Join(' ', arguments)) (onSynthetic arguments) words)

let private values =
    [ [ "--threshold"; "trace:2" ], [ "threshold"; "trace:2" ]
      [ "--threshold"; "rank:-1" ], [ "threshold"; "rank:-1" ]
      [ "--partner-threshold"; "absolute:-1" ], [ "threshold"; "absolute:-1" ]
      [ "--threshold"; "much" ], [ "threshold"; "KIND:VALUE"; "much" ]
      [ "--split"; "train" ], [ "--split takes test or validation"; "train" ]
      [ "--device"; "tpu" ], [ "--device takes cpu, cuda or cuda:N"; "tpu" ]
      [ "--device"; "cuda:-1" ], [ "--device takes"; "cuda:-1" ]
      [ "--device"; "cuda:99" ], [ "--device cuda:99"; "--device cpu" ]
      [ "--threads"; "0" ], [ "--threads takes a whole number"; "0" ]
      [ "--threads"; "100000" ], [ "--threads takes a whole number"; "100000" ]
      [ "--threads"; "x" ], [ "--threads"; "x" ]
      [ "--jobs"; "0" ], [ "--jobs takes a whole number"; "0" ]
      [ "--monitor"; "0" ], [ "--monitor takes a whole number"; "0" ]
      [ "--total-budget"; "-1"; "--methods"; "dns-trust" ], [ "--total-budget takes a number > 0, or off"; "-1" ]
      [ "--batch"; "1" ], [ "--batch takes"; "'1'" ]
      [ "--batch"; "421" ], [ "421"; "420 training rows" ]
      [ "--epochs"; "0" ], [ "--epochs takes"; "'0'" ]
      [ "--lr"; "NaN" ], [ "--lr takes"; "NaN" ]
      [ "--temperature"; "0" ], [ "--temperature takes"; "'0'" ]
      [ "--scores"; "dot" ], [ "--scores takes raw or cosine"; "dot" ]
      [ "--methods"; "nope" ], [ "no method 'nope'"; "vanilla" ]
      [ "--methods"; "vanila" ], [ "no method 'vanila'"; "did you mean 'vanilla'" ]
      [ "--methods"; "dns[lr" ], [ "--methods takes"; "dns[lr" ]
      [ "--methods"; "," ], [ "--methods takes at least one method" ]
      [ "--lrr"; "1" ], [ "no option '--lrr'"; "did you mean '--lr'" ]
      [ "--seeds" ], [ "--seeds" ]
      [ "extra" ], [ "does not take 'extra'" ] ]
    |> List.map (fun (arguments, words) -> refused (String.Join(' ', arguments)) (onSynthetic arguments) words)

let private commands =
    let case (arguments: string list) words =
        testCase $"""cmcl {String.Join(' ', arguments)}""" (fun () -> expectRefused words (cmcl arguments))

    [ case
          [ "frobnicate" ]
          [ "no command 'frobnicate'"; "run, resume, compare, tune, sweep, cell, verify, bench, report, info, methods" ]
      case [ "rum" ] [ "no command 'rum'"; "did you mean 'run'" ]
      case [ "--frob" ] [ "no option '--frob'" ]
      case [ "--force" ] [ "--force is an option of cmcl run and of cmcl compare"; "after 'run'" ]
      case [ "--seeds"; "1" ] [ "--seeds is an option of cmcl run and of cmcl compare and of cmcl tune; write it after 'run'" ]
      case [ "report" ] [ "missing argument" ]
      case [ "info" ] [ "missing argument" ]
      case [ "methods"; "nope" ] [ "no method 'nope'" ]
      case [ "methods"; "dns"; "more" ] [ "does not take 'more'" ]
      case [ "report"; "./nowhere" ] [ "nowhere"; "does not exist" ]
      case (onSynthetic [ "--out"; "" ]) [ "--out takes a folder" ] ]

let private gpu =
    testCase "cuda where there is none" (fun () ->
        if not (torch.cuda.is_available ()) then
            inFolder (fun folder ->
                let out = Path.Combine(folder, "out")
                cmcl (onSynthetic [ "--device"; "cuda"; "--out"; out ]) |> expectRefused [ "--device cuda"; "--device cpu" ]
                Expect.isFalse (Directory.Exists out) "no results folder"))

let private folders =
    testList
        "folders"
        [ testCase "an output folder below a file" (fun () ->
              inFolder (fun folder ->
                  let file = Path.Combine(folder, "file")
                  File.WriteAllText(file, "mine")

                  cmcl (onSynthetic [ "-m"; "zero-shot"; "--out"; Path.Combine(file, "out") ])
                  |> expectRefused [ "cannot be written" ]

                  cmcl (onSynthetic [ "-m"; "zero-shot"; "--out"; file ]) |> expectRefused [ "cannot be written" ]
                  Expect.equal (File.ReadAllText file) "mine" "the file is as it was"))
          testCase "results are replaced only by --force" (fun () ->
              inFolder (fun folder ->
                  let run more = cmcl (onSynthetic ([ "-m"; "zero-shot"; "--seeds"; "0"; "-q"; "--out"; folder ] @ more))
                  let results = Path.Combine(folder, "results.csv")
                  File.WriteAllText(Path.Combine(folder, "notes.txt"), "mine")
                  Expect.equal (run []).Code 0 "a folder without results is taken"
                  let before = File.ReadAllText results
                  File.WriteAllText(results, before + "\n")
                  run [] |> expectRefused [ "already holds results"; "--force" ]
                  Expect.equal (File.ReadAllText results) (before + "\n") "untouched"
                  Expect.equal (run [ "--force" ]).Code 0 "forced"
                  Expect.equal (File.ReadAllText results) before "replaced"
                  Expect.equal (File.ReadAllText(Path.Combine(folder, "notes.txt"))) "mine" "other files stay"))
          testCase "a report of a folder without results" (fun () ->
              inFolder (fun folder ->
                  cmcl [ "report"; folder ] |> expectRefused [ "results.csv"; "does not exist" ]
                  Expect.isEmpty (Directory.GetFileSystemEntries folder) "nothing was written"))
          testCase "a report of broken results" (fun () ->
              inFolder (fun folder ->
                  File.WriteAllText(Path.Combine(folder, "results.csv"), "a,b\n1,2\n")
                  cmcl [ "report"; folder ] |> expectRefused [ "results.csv"; "line 1"; "header" ]
                  Expect.isFalse (File.Exists(Path.Combine(folder, "report.html"))) "no report")) ]

// ---- help --------------------------------------------------------------------------------------------------------

let private help =
    testList
        "help"
        [ for command in
              [ []
                [ "run" ]
                [ "compare" ]
                [ "tune" ]
                [ "verify" ]
                [ "bench" ]
                [ "report" ]
                [ "info" ]
                [ "methods" ] ] do
              testCase $"""cmcl {String.Join(' ', command)} --help""" (fun () ->
                  let told = cmcl (command @ [ "--help" ])
                  Expect.equal (told.Code, told.Error) (0, "") "help is no fault"
                  Expect.stringContains told.Out "USAGE" "usage")
          testCase "cmcl alone tells its commands" (fun () ->
              let told = cmcl []
              Expect.equal told.Code 0 "exit code"

              for name in [ "run"; "compare"; "tune"; "verify"; "bench"; "report"; "info"; "methods"; "metrics"; "--version" ] do
                  Expect.stringContains told.Out name "the command"

              Expect.isFalse (told.Out.Contains "    worker") "workers are nobody's business")
          testCase "run --help has every hyperparameter and every other option" (fun () ->
              let text = (cmcl [ "run"; "--help" ]).Out

              let options =
                  [ for o in Registry.options do
                        o.Name

                        if o.IsSwitch then
                            $"no-{o.Name}" ]
                  @ [ "stream"
                      "methods"
                      "seeds"
                      "out"
                      "split"
                      "device"
                      "threads"
                      "save-weights"
                      "set"
                      "monitor"
                      "force"
                      "quiet" ]

              for name in options do
                  Expect.stringContains text $"--{name}" "an option")
          testCase "bench --help has every option and every form" (fun () ->
              let text = (cmcl [ "bench"; "--help" ]).Out

              for name in
                  [ "quick"
                    "parity"
                    "forms"
                    "sizes"
                    "batches"
                    "ranks"
                    "threads"
                    "dtype"
                    "device"
                    "rounds"
                    "steps"
                    "out"
                    "force"
                    "quiet" ] do
                  Expect.stringContains text $"--{name}" "an option"

              for name in Form.names do
                  Expect.stringContains text name "a form")
          testCase "methods lists each, and one with its options" (fun () ->
              let all = (cmcl [ "methods" ]).Out

              for e in Registry.entries do
                  Expect.stringContains all e.Method.Name "a method"
                  let one = (cmcl [ "methods"; e.Method.Name ]).Out

                  for o in Entry.takes e do
                      Expect.stringContains one o.Name "an option")
          testCase "the version" (fun () ->
              let told = cmcl [ "--version" ]
              Expect.equal (told.Code, told.Out.Trim()) (0, $"cmcl {Record.cmclVersion}") "version") ]

// ---- runs --------------------------------------------------------------------------------------------------------

let private short out more =
    cmcl (
        onSynthetic [ "-m"; "vanilla,dns[exact=on],dns[place=gradient]"; "--seeds"; "0,3"; "--epochs"; "1"; "--out"; out ]
        @ more
    )

let private read (folder: string) (name: string) = File.ReadAllText(Path.Combine(folder, name))

/// Figures that a second run repeats: all but times.
let private figures folder = (read folder "results.csv").Split '\n' |> Array.filter (fun line -> not (line.Contains ",seconds_"))

let private weights (folder: string) =
    Directory.GetFiles(Path.Combine(folder, "weights"), "*.npy", SearchOption.AllDirectories)
    |> Array.sort
    |> Array.map (fun file -> Path.GetRelativePath(folder, file).Replace('\\', '/'), File.ReadAllBytes file)

let private text (node: JsonNode) (path: string list) : string =
    let child (node: JsonNode) (name: string) = node[name] |> Option.ofObj |> Option.get
    string (List.fold child node path)

/// What such a run leaves, for those who only read it.
let private left: Lazy<string> =
    lazy
        (let folder = (Directory.CreateTempSubdirectory "cmcl-cli").FullName
         Expect.equal (short folder [ "--quiet" ]).Code 0 "the run"
         folder)

let private runs =
    testList
        "runs"
        [ testCase "a run leaves everything, twice the same" (fun () ->
              inFolder (fun folder ->
                  let first, second = Path.Combine(folder, "first"), Path.Combine(folder, "second")
                  let told = short first [ "--save-weights" ]
                  Expect.equal (told.Code, told.Error) (0, "") "the first run"
                  Expect.stringContains told.Out "dns[exact=on]" "the table has the methods"
                  Expect.equal (short second [ "--save-weights"; "--quiet" ]) { Code = 0; Out = ""; Error = "" } "--quiet"

                  for name in [ "results.csv"; "losses.csv"; "spectra.csv"; "config.json"; "report.html" ] do
                      Expect.isGreaterThan (FileInfo(Path.Combine(first, name)).Length) 100L name

                  Expect.equal (figures first) (figures second) "results.csv, times aside"
                  Expect.equal (read first "losses.csv") (read second "losses.csv") "losses.csv"
                  Expect.equal (read first "spectra.csv") (read second "spectra.csv") "spectra.csv"
                  Expect.equal (weights first) (weights second) "weights, byte for byte"
                  let names = weights first |> Array.map fst |> Array.filter (fun name -> name.EndsWith ".npy")

                  for label in [ "vanilla"; "dns[exact=on]"; "dns[place=gradient]" ] do
                      Expect.contains names $"weights/{Names.folder label}/seed-3/step-06/audio.npy" "a head"

                  Expect.equal names.Length (3 * 2 * 6 * 4) "methods × seeds × steps × modalities"))
          testCase "a monitor writes its table, and its measurements are in the report" (fun () ->
              inFolder (fun folder ->
                  Expect.equal (short folder [ "--quiet"; "--monitor"; "3" ]).Code 0 "the run"
                  let rows = Results.readMonitor folder |> Check.get
                  // Three plans, two seeds; 2 measurements of the 7 updates of steps 2 to 6, which have 1 to 5 old tasks.
                  Expect.hasLength rows (3 * 2 * 2 * 15) "rows"
                  Expect.stringContains (read folder "report.html") "\"monitor\":" "the figure"
                  Expect.equal (cmcl [ "report"; folder ]).Code 0 "the report again"))
          testCase "config.json has what decides a run" (fun () ->
              let config = JsonNode.Parse(read left.Value "config.json") |> Option.ofObj |> Option.get
              Expect.equal (text config [ "cmcl" ]) Record.cmclVersion "version"
              Expect.stringStarts (text config [ "command" ]) "cmcl run --stream synthetic -m \"vanilla,dns[" "command"
              Expect.stringContains (text config [ "machine"; "libtorch" ]) "." "libtorch"
              Expect.equal (text config [ "stream"; "name" ]) "synthetic" "stream"
              Expect.equal (text config [ "stream"; "digest" ]).Length 64 "digest"

              Expect.equal
                  ((text config [ "seeds" ]).Split([| ' '; '\n'; '['; ']' |], StringSplitOptions.RemoveEmptyEntries))
                  [| "0,"; "3" |]
                  "seeds"

              Expect.equal (text config [ "split" ], text config [ "device" ]) ("test", "cpu") "split and device"

              let methods = config["methods"] |> Option.ofObj |> Option.get
              let exact = methods.AsArray() |> Seq.choose Option.ofObj |> Seq.item 1
              Expect.equal (text exact [ "label" ]) "dns[exact=on]" "label"
              Expect.equal (text exact [ "settings"; "exact" ], text exact [ "settings"; "epochs" ]) ("on", "1") "settings")
          testCase "report makes the same report again" (fun () ->
              let folder = left.Value
              let before = read folder "report.html"
              File.Delete(Path.Combine(folder, "report.html"))
              let told = cmcl [ "report"; folder ]
              Expect.equal (told.Code, told.Error) (0, "") "report"
              Expect.equal (told.Out.Trim()) (Path.Combine(folder, "report.html")) "it tells where"
              Expect.equal (read folder "report.html") before "the same")
          testCase "a method that diverges is told, the others go on" (fun () ->
              inFolder (fun folder ->
                  let told =
                      cmcl (
                          onSynthetic
                              [ "-m"
                                "vanilla[lr=1e30;clip=off;optimizer=sgd],vanilla"
                                "--epochs"
                                "1"
                                "--seeds"
                                "0"
                                "-q"
                                "--out"
                                folder ]
                      )

                  Expect.equal told.Code 1 "exit code"
                  Expect.stringContains told.Error "diverged" "the sentence"
                  Expect.stringContains (read folder "results.csv") ",vanilla,0,final,all," "the other's figures"
                  Expect.stringContains (read folder "config.json") "diverged" "the record"))
          testCase "all diverge" (fun () ->
              inFolder (fun folder ->
                  let told =
                      cmcl (
                          onSynthetic
                              [ "-m"
                                "vanilla[lr=1e30;clip=off;optimizer=sgd]"
                                "--epochs"
                                "1"
                                "--seeds"
                                "0"
                                "-q"
                                "--out"
                                folder ]
                      )

                  Expect.equal told.Code 1 "exit code"
                  Expect.equal (told.Error.TrimEnd().Split('\n').Length) 1 "one sentence")) ]

// ---- verify ------------------------------------------------------------------------------------------------------

let private verification arguments = [ "verify"; "--stream"; "synthetic"; "--epochs"; "1" ] @ arguments

let private verify =
    testList
        "verify"
        [ testCase "a table, two tables as files and a page; twice only by --force" (fun () ->
              inFolder (fun folder ->
                  let out = Path.Combine(folder, "out")
                  let told = cmcl (verification [ "--out"; out ])
                  Expect.equal (told.Code, told.Error) (0, "") "all that must hold does"

                  for words in
                      [ "Theorem 4"; "constraint set"; "approximate"; "Everything that must hold does."; "verify.html" ] do
                      Expect.stringContains told.Out words "the table and its sentences"

                  for name in [ "verify.csv"; "curves.csv"; "verify.html" ] do
                      Expect.isGreaterThan (FileInfo(Path.Combine(out, name)).Length) 1000L name

                  let before = read out "verify.csv"
                  cmcl (verification [ "--out"; out ]) |> expectRefused [ "already holds results"; "--force" ]

                  Expect.equal
                      (cmcl (verification [ "--out"; out; "--force"; "--quiet" ]))
                      { Code = 0; Out = ""; Error = "" }
                      "--quiet"

                  Expect.equal (read out "verify.csv") before "the same again"))
          testCase "a run that diverges" (fun () ->
              inFolder (fun folder ->
                  let wild =
                      [ "--lr"; "1e30"; "--clip"; "off"; "--optimizer"; "sgd"; "-q"; "--out"; Path.Combine(folder, "out") ]

                  let told = cmcl (verification wild)
                  Expect.equal told.Code 1 "exit code"
                  Expect.stringContains told.Error "diverged" "the sentence"))
          for arguments, words in
              [ [ "--stream"; "nothing" ], [ "no stream 'nothing'" ]
                [ "--stream"; "synthetic"; "--seed"; "0,1" ], [ "--seed takes a whole number"; "'0,1'" ]
                [ "--stream"; "synthetic"; "--seed"; "-1" ], [ "--seed takes a whole number" ]
                [ "--stream"; "synthetic"; "--dtype"; "float16" ], [ "--dtype takes float32 or float64" ]
                [ "--stream"; "synthetic"; "--threshold"; "much" ], [ "threshold"; "KIND:VALUE" ]
                [ "--stream"; "synthetic"; "--batch"; "421" ], [ "421"; "420 training rows" ]
                [ "--stream"; "synthetic"; "--threads"; "0" ], [ "--threads takes a whole number" ]
                [ "--stream"; "synthetic"; "--device"; "tpu" ], [ "--device takes" ]
                [ "--stream"; "synthetic"; "--lr"; "1"; "--lr"; "2" ], [ "--lr is given twice" ]
                [ "--stream"; "synthetic"; "--epoch"; "1" ],
                [ "no option '--epoch'"; "did you mean '--epochs'"; "cmcl verify --help" ]
                [ "--stream"; "synthetic"; "--methods"; "dns" ], [ "no option '--methods'" ]
                [ "more" ], [ "cmcl verify does not take 'more'" ] ] do
              refused (String.Join(' ', arguments)) ("verify" :: arguments) words ]

// ---- bench -------------------------------------------------------------------------------------------------------

let private tiny out more =
    cmcl (
        [ "bench"; "--sizes"; "8,16"; "--batches"; "4"; "--ranks"; "1/4,0.5"; "--threads"; "1"; "--rounds"; "1" ]
        @ [ "--forms"; "none,published,block"; "--dtype"; "float32"; "--steps"; "20,40"; "--out"; out ]
        @ more
    )

let private bench =
    testList
        "bench"
        [ testCase "tables on standard output, ratios, two tables as files and a page; twice only by --force" (fun () ->
              inFolder (fun folder ->
                  let out = Path.Combine(folder, "out")
                  let told = tiny out []
                  Expect.equal told.Code 0 told.Error
                  Expect.stringContains told.Error "float32, d = 16, B = 4, rank 4, 1 thread" "progress"

                  for words in
                      [ "times floor"
                        "\ndns_over_none: "
                        "\npublished_over_dns: "
                        "at rank 8: dns_over_none"
                        "\ndns_step_over_none: "
                        "exponent of d, batch 4"
                        "exponent of a step's rows"
                        "bench.html" ] do
                      Expect.stringContains told.Out words "tables and sentences"

                  for name in [ "bench.csv"; "steps.csv"; "bench.html" ] do
                      Expect.isGreaterThan (FileInfo(Path.Combine(out, name)).Length) 300L name

                  // d = 8 and 16, ranks d/4 and d/2, three forms each.
                  Expect.hasLength (Tables.iterations out |> Check.get) 12 "bench.csv"
                  Expect.hasLength (Tables.steps out |> Check.get) 4 "steps.csv"
                  tiny out [] |> expectRefused [ "already holds results"; "--force" ]
                  Expect.equal (tiny out [ "--force"; "--quiet" ]) { Code = 0; Out = ""; Error = "" } "--quiet"))
          testCase "parity times nothing and writes nothing" (fun () ->
              inFolder (fun folder ->
                  let arguments = [ "bench"; "--parity"; "--sizes"; "16"; "--batches"; "8"; "--threads"; "1" ]
                  let told = cmcl arguments
                  Expect.equal told.Code 0 told.Error

                  for name in Form.names |> List.filter (fun name -> not (name.EndsWith "-pure")) do
                      Expect.stringContains told.Out name "a form"

                  Expect.stringContains told.Out "tolerance" "what is allowed"
                  Expect.stringContains told.Out "1.0e-12" "how much"
                  Expect.equal (cmcl (arguments @ [ "-q" ])) { Code = 0; Out = ""; Error = "" } "--quiet"
                  Expect.isEmpty (Directory.GetFileSystemEntries folder) "nothing was written"))
          for arguments, words in
              [ [ "--sizes"; "0" ], [ "--sizes takes whole numbers from 2"; "'0'" ]
                [ "--sizes"; "256,256" ], [ "--sizes takes"; "each once"; "'256,256'" ]
                [ "--sizes"; "100000" ], [ "--sizes takes"; "'100000'" ]
                [ "--batches"; "1" ], [ "--batches takes whole numbers from 2"; "'1'" ]
                [ "--ranks"; "2" ], [ "--ranks takes shares of d"; "'2'" ]
                [ "--ranks"; "1/0" ], [ "--ranks takes shares of d"; "'1/0'" ]
                [ "--threads"; "0" ], [ "--threads takes whole numbers from 1 to 256"; "'0'" ]
                [ "--threads"; "1,x" ], [ "--threads takes"; "'1,x'" ]
                [ "--dtype"; "float16" ], [ "--dtype takes float32 or float64"; "float16" ]
                [ "--device"; "tpu" ], [ "--device takes cpu, cuda or cuda:N" ]
                [ "--rounds"; "0" ], [ "--rounds takes a whole number ≥ 1"; "'0'" ]
                [ "--steps"; "none" ], [ "--steps takes off, or whole numbers"; "'none'" ]
                [ "--forms"; "none,blok" ], [ "no form 'blok'"; "did you mean 'block'" ]
                [ "--forms"; "" ], [ "no form ''" ]
                [ "--quick"; "--sizes"; "256"; "--forms"; "none" ],
                [ "--quick does not go with --forms and --sizes"; "leave out" ]
                [ "--quick"; "--parity" ], [ "--quick does not go with --parity" ]
                [ "--parity"; "--rounds"; "3" ], [ "--parity does not go with --rounds" ]
                [ "--quick"; "--quick" ], [ "--quick is given twice" ]
                [ "--size"; "256" ], [ "no option '--size'"; "did you mean '--sizes'"; "cmcl bench --help" ]
                [ "more" ], [ "cmcl bench does not take 'more'" ] ] do
              refused (String.Join(' ', arguments)) ("bench" :: arguments) words ]

// ---- compare and tune --------------------------------------------------------------------------------------------

let private cellFiles (folder: string) =
    [ for path in Directory.GetFiles(Path.Combine(folder, "cells"), "*.json") |> Array.sort -> path, File.GetLastWriteTimeUtc path ]

let private diverging = "vanilla[lr=1e30;clip=off;optimizer=sgd]"

let private compared out more =
    cmcl (
        [ "compare"
          "--stream"
          "synthetic"
          "-m"
          $"zero-shot,vanilla,{diverging}"
          "--seeds"
          "0,3"
          "--set"
          "epochs=1" ]
        @ [ "--orders"; "2"; "--jobs"; "2"; "--out"; out ]
        @ more
    )

let private tuned out more =
    cmcl (
        [ "tune"
          "--method"
          "vanilla"
          "--stream"
          "synthetic"
          "--grid"
          "lr=1e-3,1e30;clip=off"
          "--jobs"
          "1"
          "--out"
          out ]
        @ [ "--set"; "epochs=1"; "--set"; "optimizer=sgd" ]
        @ more
    )

let private sweeps =
    testList
        "compare and tune"
        [ testCase "a cell that diverges is recorded, the others go on; what is finished is not run again" (fun () ->
              inFolder (fun folder ->
                  let told = compared folder []
                  Expect.equal told.Code 1 told.Error
                  Expect.stringContains told.Out "12 cells, 12 of them to be run, by 2 workers" "what there is"
                  Expect.stringContains told.Out "8 of 12 cells done, 4 failed" "how it went"
                  Expect.equal (told.Error.TrimEnd().Split('\n').Length) 4 "a sentence for each cell that diverged"
                  let first = cellFiles folder
                  Expect.hasLength first 12 "a file each"
                  let again = compared folder []
                  Expect.equal (again.Code, again.Error) (told.Code, told.Error) "the same end"
                  Expect.equal (cellFiles folder) first "nothing is run again"
                  let more = compared folder [ "--quiet" ]
                  Expect.equal (more.Code, more.Out) (1, "") "--quiet"
                  Expect.equal (compared folder [ "--force"; "-q" ]).Code 1 "forced"

                  for (path, before), (_, after) in List.zip first (cellFiles folder) do
                      Expect.isGreaterThan after before $"{path} is run again"))
          testCase "a cell has the figures that cmcl run gives" (fun () ->
              inFolder (fun folder ->
                  let out, other = Path.Combine(folder, "compare"), Path.Combine(folder, "run")
                  compared out [ "-q" ] |> ignore
                  let arguments = onSynthetic [ "-m"; "vanilla"; "--epochs"; "1"; "--seeds"; "3"; "-q"; "--out"; other ]
                  Expect.equal (cmcl arguments).Code 0 "the run"
                  let stream = Catalogue.find "synthetic" |> Check.get
                  let plan = Plan.resolve stream.Preset [ "epochs", "1" ] [ "vanilla" ] |> Check.get |> List.exactlyOne

                  let job =
                      { Stream = stream
                        Order = 0
                        Plan = plan
                        Seed = 3
                        Protocol =
                          { Split = Split.Test
                            Device = torch.CPU
                            Threads = 1
                            Monitor = None }
                        AsWritten = None }

                  let figures (rows: Row list) =
                      [ for r in rows do
                            if not (r.Metric.StartsWith "seconds_") then
                                r ]

                  match CellFile.read out (Job.identity job) with
                  | Some { Result = Ok left } ->
                      let rows = Lines.rows job.Cell left.Outcome
                      Expect.equal (figures (rows @ Results.aggregates rows)) (figures (Results.read other |> Check.get)) "rows"
                  | _ -> failtest "the cell is there"))
          testCase "a trial that diverges is recorded and not chosen" (fun () ->
              inFolder (fun folder ->
                  let told = tuned folder []
                  Expect.equal (told.Code, told.Error) (0, "") "tune"
                  Expect.stringContains told.Out "lr at the edge of the grid" "the edge"
                  let lines = (read folder "trials.csv").TrimEnd().Split '\n'
                  Expect.hasLength lines 3 "a line a trial"
                  Expect.stringStarts lines[1] "vanilla,1,1e-3,off,0,0." "the first"
                  Expect.stringEnds lines[1] ",done,,1,lr" "it is chosen"
                  Expect.stringContains lines[2] "diverged" "why"
                  Expect.stringEnds lines[2] ",0," "not chosen"
                  Expect.stringContains (read folder "preset.json") "\"lr\": \"1e-3\"" "the preset"
                  let first = cellFiles folder
                  Expect.equal (tuned folder [ "-q" ]) { Code = 0; Out = ""; Error = "" } "--quiet"
                  Expect.equal (cellFiles folder) first "nothing is run again"))
          testCase "where every trial fails there is no choice" (fun () ->
              inFolder (fun folder ->
                  let told = tuned folder [ "--grid"; "lr=1e30;clip=off" ]
                  expectRefused [ "--grid is given twice" ] told
                  let arguments = [ "tune"; "-m"; diverging.Replace(";optimizer", ",optimizer"); "--stream"; "synthetic" ]
                  let told = cmcl (arguments @ [ "--grid"; "weight-decay=0,0.1"; "--out"; folder ])
                  Expect.equal told.Code 1 "exit code"
                  Expect.stringContains told.Out "no trial has figures" "the sentence"))
          for arguments, words in
              [ [ "compare"; "--stream"; "nothing,synthetic"; "--seeds"; "x"; "--orders"; "0" ],
                [ "no stream 'nothing'"; "--seeds takes"; "--orders takes a whole number ≥ 1" ]
                [ "compare"; "--stream"; "" ], [ "--stream takes at least one stream" ]
                [ "compare"; "--stream"; "synthetic"; "--methods"; "nope,vanilla[tau=1]" ],
                [ "no method 'nope'"; "'tau' is not an option" ]
                [ "compare"; "--stream"; "synthetic"; "--methods"; "," ], [ "--methods takes at least one method" ]
                [ "compare"; "--stream"; "synthetic"; "--set"; "batch=421" ], [ "421"; "420 training rows" ]
                [ "compare"; "--stream"; "synthetic"; "--set"; "lr" ], [ "--set lr takes" ]
                [ "compare"; "--stream"; "synthetic"; "--orders"; "721" ], [ "at most 720"; "6 steps" ]
                [ "compare"; "--stream"; "synthetic"; "--against"; "dnns" ], [ "no method in this comparison 'dnns'" ]
                [ "compare"; "--split"; "train" ], [ "--split takes test or validation" ]
                [ "compare"; "--jobs"; "0" ], [ "--jobs takes a whole number" ]
                [ "compare"; "--threads"; "0" ], [ "--threads takes a whole number" ]
                [ "compare"; "--device"; "tpu" ], [ "--device takes cpu" ]
                [ "compare"; "--method"; "dns" ], [ "no option '--method'"; "did you mean '--methods'"; "cmcl compare --help" ]
                [ "tune" ], [ "--method" ]
                [ "tune"; "--method"; "vanilla"; "--split"; "test" ], [ "no option '--split'"; "cmcl tune --help" ]
                [ "tune"; "--method"; "zero-shot" ], [ "zero-shot does not train" ]
                [ "tune"; "--method"; "vanila" ], [ "did you mean 'vanilla'" ]
                [ "tune"; "--method"; "dns,dns[sides=input]" ], [ "'dns' is named twice" ]
                [ "tune"; "--method"; "," ], [ "--method takes at least one method" ]
                [ "tune"; "--method"; "vanilla"; "--grid"; "lr" ], [ "--grid takes OPTION=VALUE" ]
                [ "tune"; "--method"; "vanilla"; "--stream"; "synthetic"; "--grid"; "tau=1,2" ],
                [ "'tau' is not an option of vanilla" ]
                [ "tune"; "--method"; "vanilla"; "--trials"; "0" ], [ "--trials takes a whole number ≥ 1" ]
                [ "tune"; "--method"; "vanilla"; "--within"; "-1" ], [ "--within takes points" ] ] do
              refused (String.Join(' ', arguments)) arguments words ]

let tests =
    testSequenced (
        testList
            "command line"
            [ streams
              testList "seeds" seeds
              testList "contradictions" contradictions
              testList "values" values
              testList "commands" commands
              gpu
              folders
              help
              runs
              verify
              bench
              sweeps ]
    )
