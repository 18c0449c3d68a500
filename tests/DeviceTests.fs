module Cmcl.Tests.DeviceTests

open System
open System.Diagnostics
open System.IO
open System.Runtime.InteropServices
open Expecto
open TorchSharp
open Cmcl
open Cmcl.Tests.Checks

[<DllImport("torch_cpu", EntryPoint = "_ZN5torch4lazy22InitTorchScriptBackendEv")>]
extern void private initLazy()

/// A device that is not the CPU and that every libtorch has: its lazy tensors. What they record is computed on the CPU when it is read, but
/// an operation on a lazy tensor and a CPU one is refused, as CUDA refuses it. (Operations that have no lazy form, decompositions
/// among them, take both; of these nothing is proven.)
let private elsewhere =
    lazy
        (initLazy ()
         torch.Device(enum<DeviceType> 17, 0))

let private stream () =
    let whole =
        Synthetic.make
            { Synthetic.defaults with
                Dimension = 10L
                Rank = 3L
                Samples = 24L
                Classes = 3 }
            (Seed.ofInt 0)

    { whole with Steps = List.truncate 2 whole.Steps }

let private settings = [ "epochs", "1"; "batch", "8"; "dtype", "float64" ]

let private plan (spec: string) : Plan = Plan.resolve (stream ()).Preset settings [ spec ] |> Check.get |> List.exactlyOne

let private isTime (metric: string) = metric.StartsWith "seconds"

let private figures (device: torch.Device) (observer: Observer) (plan: Plan) : Measurement list =
    (Train.run (stream ()) device Split.Test 0 observer plan |> Check.get).Measurements
    |> List.ofSeq
    |> List.filter (fun r -> not (isTime r.Metric))

/// The same figures on both devices.
let private same (expected: Measurement list) (actual: Measurement list) =
    Expect.equal
        (actual |> List.map (fun r -> r.Step, r.Task, r.Metric))
        (expected |> List.map (fun r -> r.Step, r.Task, r.Metric))
        "what is measured"

    for e, a in List.zip expected actual do
        Expect.isLessThan
            (abs (a.Value - e.Value))
            (1e-8 * (1e-3 + abs e.Value))
            $"{e.Metric} of task {e.Task} after step {e.Step}"

let private runs =
    [ "vanilla"
      "vanilla[optimizer=sgd;scores=cosine;symmetric=on]"
      "reference"
      "nsp"
      "ewc[lambda=10]"
      "ewc[fisher=sampled;accumulate=online;scores=cosine;symmetric=on]"
      "moment-replay"
      "moment-replay[loss=cumulant;scores=cosine;symmetric=on]"
      "co2l[buffer=6]"
      "co2l[candidates=both;scores=cosine;symmetric=on]"
      "cila"
      "c-flat[host=ewc]"
      "merge[host=ewc;rule=ema]"
      "merge[rule=regmean]"
      "polish[host=dns]"
      "eigen[rotate=both]"
      "gem"
      "gem[place=update;scores=cosine;symmetric=on]"
      "der[alpha=10;buffer=20]"
      "derpp[distill=scores;scores=cosine;buffer=20]"
      "dns"
      "dns[place=gradient]"
      "dns[place=update]"
      "dns-soft"
      "dns-trust[total-budget=0.2]" ]
    |> List.map (fun spec ->
        test $"{spec} gives elsewhere what it gives on the CPU" (fun () ->
            let plan = plan spec
            same (figures torch.CPU Observer.silent plan) (figures elsewhere.Value Observer.silent plan)))

/// What `cmcl bench --parity` does, with the one form that no method has.
let private published =
    test "the published form ends elsewhere where it ends on the CPU" (fun () ->
        let found =
            Parity.check
                elsewhere.Value
                { Width = 8L; Pairs = 6L; Rank = 2L; Dtype = Dtype.Float64 }
                (Form.find "published" |> Check.get)

        Expect.isLessThan found.Difference (1e-6 * found.Moved) "difference of the weights, beside how far they moved")

/// A program in a process of its own, with `CMCL_LIBTORCH` as given: its exit code, standard output, standard error.
let private started (libtorch: string) (file: string) (arguments: string list) =
    let info = ProcessStartInfo(file, arguments, RedirectStandardOutput = true, RedirectStandardError = true)
    info.Environment[Native.FolderVariable] <- libtorch
    use p = nonNull (Process.Start info)
    let out, error = p.StandardOutput.ReadToEndAsync(), p.StandardError.ReadToEndAsync()
    p.WaitForExit()
    p.ExitCode, out.Result, error.Result

let private script = Path.Combine(root, "bench", "gpu.sh")

/// What is told where there is no libtorch, or none with CUDA.
let private without =
    let inEmpty (body: string -> unit) =
        let folder = Directory.CreateTempSubdirectory "cmcl-none"

        try
            body folder.FullName
        finally
            folder.Delete true

    let told (words: string list) (code: int, out: string, error: string) =
        Expect.equal code 2 $"exit code; {error}"
        Expect.equal out "" "standard output"

        for word in words do
            Expect.stringContains error word "standard error"

    [ testCase "the command names the folder without libtorch" (fun () ->
          inEmpty (fun folder ->
              started folder "dotnet" [ Path.Combine(AppContext.BaseDirectory, "Cmcl.Cli.dll"); "info"; "synthetic" ]
              |> told [ "cmcl: libtorch cannot be loaded"; $"CMCL_LIBTORCH names '{folder}'" ]))
      testCase "gpu.sh names the folder without libtorch" (fun () ->
          inEmpty (fun folder ->
              started folder "bash" [ script ] |> told [ "CMCL_LIBTORCH"; folder; "libtorch_cuda.so" ]

              started folder "bash" [ script; "--device"; "cpu" ] |> told [ "CMCL_LIBTORCH"; folder; "libtorch_cpu.so" ]))
      testCase "gpu.sh refuses what it does not take" (fun () ->
          started "" "bash" [ script; "--device"; "tpu" ] |> told [ "cuda, cuda:N or cpu"; "tpu" ]
          started "" "bash" [ script; "--frob" ] |> told [ "--frob"; "--help" ])
      testCase "gpu.sh: one table of what the command found, and a code that says whether it holds" (fun () ->
          let extent dtype = { Width = 256L; Pairs = 64L; Rank = 64L; Dtype = dtype }

          let parity form dtype difference : Parity =
              { Form = form
                Extent = extent dtype
                Difference = difference
                Moved = 0.25
                Tolerance = 1e-6 }

          let timed form seconds : Iteration =
              { Form = form
                Extent = extent Dtype.Float32
                Threads = 1
                Device = "cpu"
                Timing = { Samples = [| seconds |] }
                OverNone = Some 1.25
                Work = { Operations = 1.0; Bytes = 1.0 }
                Ceilings = { Product = 1.0; Copy = 1.0 } }

          /// The script beside a command that leaves given tables: its exit code and the table's lines, cut into cells.
          let table (difference: float) (commandsCode: int) =
              let folder = (Directory.CreateTempSubdirectory "cmcl-gpu").FullName

              try
                  File.Copy(script, Path.Combine(folder, "gpu.sh"))

                  BenchFiles.writeParity
                      folder
                      [ parity "none" Dtype.Float32 1.5e-8
                        parity "none" Dtype.Float64 2.5e-15
                        parity "block" Dtype.Float32 difference
                        parity "block" Dtype.Float64 3.5e-15
                        parity "untimed" Dtype.Float32 4.5e-8 ]
                  |> Check.get

                  BenchFiles.writeIterations folder [ timed "none" 0.002; timed "block" 0.0025 ] |> Check.get

                  File.WriteAllText(
                      Path.Combine(folder, "cmcl"),
                      $"""#!/usr/bin/env bash
here=$(dirname "$0"); out=; before=
for given in "$@"; do if [ "$before" = --out ]; then out=$given; fi; before=$given; done
case "$1 ${{2:-}}" in
    "bench --parity") mkdir -p "$out"; cp "$here/parity.csv" "$out"; exit {commandsCode} ;;
    "bench --quick") mkdir -p "$out"; cp "$here/bench.csv" "$out" ;;
    *) echo a version ;;
esac
"""
                  )

                  File.SetUnixFileMode(Path.Combine(folder, "cmcl"), UnixFileMode.UserRead ||| UnixFileMode.UserExecute)

                  for name in [ "Cmcl.dll"; "libtorch_cpu.so" ] do
                      File.WriteAllText(Path.Combine(folder, name), "")

                  let out = Path.Combine(folder, "out")
                  let code, _, error = started folder "bash" [ Path.Combine(folder, "gpu.sh"); "--device"; "cpu"; "--out"; out ]
                  Expect.stringContains error "The table" "where it is"

                  code,
                  [ for line in File.ReadAllLines(Path.Combine(out, "gpu.md")) do
                        if line.StartsWith "| " then
                            [ for cell in line.Trim('|').Split '|' -> cell.Trim() ] ]
              finally
                  Directory.Delete(folder, true)

          let head = [ "form"; "rank"; "float32 differs by"; "float64 differs by"; "CPU ms"; "over none" ]

          let lines block =
              [ head
                [ "none"; "64"; "1.5e-08"; "2.5e-15"; "2.00"; "1.25" ]
                [ "block"; "64"; block; "3.5e-15"; "2.50"; "1.25" ]
                [ "untimed"; "–"; "4.5e-08"; ""; "–"; "–" ] ]

          Expect.equal (table 5e-7 0) (0, lines "5.0e-07") "all hold"
          Expect.equal (table 5e-6 1) (1, lines "5.0e-06 ✗") "one does not"
          Expect.equal (table 5e-6 0) (1, lines "5.0e-06 ✗") "whatever the command says"
          Expect.equal (fst (table 5e-7 1)) 1 "and whatever the table says")
      testCase "gpu.sh tells what it takes" (fun () ->
          let code, out, error = started "" "bash" [ script; "--help" ]
          Expect.equal (code, error) (0, "") "exit code, standard error"

          for word in [ "--device"; "--out"; "CMCL_LIBTORCH"; "LD_LIBRARY_PATH" ] do
              Expect.stringContains out word "help") ]

let tests =
    if not (OperatingSystem.IsLinux()) then
        testList "Device" []
    else
        testList
            "Device"
            [ test "the stand-in refuses what CUDA refuses" (fun () ->
                  let there = (torch.eye (3L)).``to`` elsewhere.Value
                  Expect.throws (fun () -> there.mm (torch.eye 3L) |> ignore) "a product with a CPU tensor"
                  Expect.throws (fun () -> there.index_select (0L, torch.tensor [| 0L |]) |> ignore) "rows by a CPU tensor")
              testList "runs" runs
              published
              testList "without libtorch" without
              test "a monitor reads elsewhere what it reads on the CPU" (fun () ->
                  let read device =
                      let seen = ResizeArray()
                      figures device { Observer.silent with Begin = Monitor.every 1L seen.Add } (plan "dns") |> ignore
                      seen |> Seq.map (fun r -> r.Drift.Relative) |> List.ofSeq

                  let expected, actual = read torch.CPU, read elsewhere.Value
                  Expect.isNonEmpty expected "readings"

                  for e, a in List.zip expected actual do
                      Expect.isLessThan (abs (a - e)) (1e-8 * (1e-3 + e)) "a drift")
              test "the theory is checked elsewhere as on the CPU" (fun () ->
                  let found device =
                      Verification.run
                          ignore
                          { Stream = stream ()
                            Source = "synthetic"
                            Plans = [ plan "dns[exact=on]" ]
                            Seeds = [ 0 ]
                            Device = device
                            Split = Split.Train
                            SaveWeights = false
                            Monitor = None
                            Jobs = 1
                            Out = ""
                            Command = ""
                            Arguments = [] }
                      |> Check.get

                  let here, there = found torch.CPU, found elsewhere.Value
                  Expect.equal there.Findings.Length here.Findings.Length "findings"
                  Expect.isEmpty there.Broken "conditions broken") ]
