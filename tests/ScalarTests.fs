/// No scalar of TorchSharp's own making reaches libtorch: what the built assemblies call is read, not what anybody says of them.
module Cmcl.Tests.ScalarTests

open System
open System.IO
open System.Runtime.InteropServices
open System.Threading
open Cmcl
open Expecto
open TorchSharp

let private scripts = Path.Combine(__SOURCE_DIRECTORY__, "..", "scripts")
let private beside name = Path.Combine(AppContext.BaseDirectory, name)

let private torchSharp = lazy Calls.ofAssembly (beside "TorchSharp.dll")

/// What makes a scalar: conversions, also those that `a * 2.0` hides, and its constructor.
let private makes (m: Calls.Method) =
    m.StartsWith "TorchSharp.Scalar::op_Implicit(" || m.StartsWith "TorchSharp.Scalar::.ctor(" || m.Contains "::ToScalar("

let private makers = lazy (torchSharp.Value |> Seq.collect (fun c -> [ c.From; c.To ]) |> Seq.filter makes |> Set.ofSeq)

/// What TorchSharp itself makes a scalar in, or calls what does, with what leads there.
let private hidden = lazy Calls.reaching makers.Value torchSharp.Value

/// Calls that stay, each with its reason.
let private allowed: (Calls.Method * Calls.Method * string) list =
    let number argument =
        $"Cmcl.Numbers::AsScalar({argument})",
        $"TorchSharp.ScalarExtensionMethods::ToScalar({argument})",
        "the one place that makes scalars, and holds them"

    [ number "Double"
      number "Single"
      number "Int64"
      number "Int32"
      "Cmcl.Encoders.Script::called",
      "TorchSharp.torch/jit/ScriptModule::call(Object[])",
      "makes a scalar of an argument that is a number; encoders are given tensors" ]

let private isAllowed (c: Calls.Call) = allowed |> List.exists (fun (from, target, _) -> c.From.StartsWith from && c.To = target)

/// Calls in an assembly that let a scalar be freed while libtorch reads it.
let private unsafeCalls (file: string) : string list =
    [ for c in Calls.ofAssembly file do
          if (makes c.To || hidden.Value.ContainsKey c.To) && not (isAllowed c) then
              let inside =
                  match hidden.Value.TryFind c.To with
                  | Some next -> $", which makes one through {next}"
                  | None -> ""

              $"{defaultArg c.Where (FileInfo(file).Name)}: {c.From} calls {c.To}{inside}" ]
    |> List.distinct

let private none (file: string) =
    match unsafeCalls file with
    | [] -> ()
    | found ->
        failtest (
            "in place of these use `.+`, `plus`, `squared`, `Tensors.range`, `AsScalar` (src/Vocabulary/Scalars.fs):\n"
            + String.Join("\n", found)
        )

/// F# sources as an assembly in `folder`, by the compiler of the SDK that runs the tests, with the libraries that a script has.
let private compiled (folder: string) (sources: string list) : string =
    let runtime = RuntimeEnvironment.GetRuntimeDirectory()
    let sdk = Processes.start "dotnet" [ "--version" ] |> Processes.finish |> snd
    let compiler = Path.Combine(runtime, "..", "..", "..", "sdk", sdk.Trim(), "FSharp")
    let output = Path.Combine(folder, "read.dll")
    let starts (names: string list) (file: string) = names |> List.exists (FileInfo(file).Name.StartsWith)

    let platform =
        Directory.GetFiles(runtime, "*.dll") |> Array.filter (starts [ "System."; "Microsoft."; "mscorlib"; "netstandard" ])

    let exitCode, said =
        Processes.start
            "dotnet"
            [ Path.Combine(compiler, "fsc.dll")
              "-a"
              "--nologo"
              "--targetprofile:netcore"
              "--noframework"
              for file in platform do
                  "-r:" + file
              for file in [ "FSharp.Core.dll"; "Cmcl.dll"; "TorchSharp.dll" ] do
                  "-r:" + beside file
              "-r:" + Path.Combine(compiler, "FSharp.Compiler.Interactive.Settings.dll")
              "-o:" + output
              yield! sources ]
        |> Processes.finish

    if exitCode <> 0 then
        failtest $"the compiler refused: {said}"

    output

/// Each of these lets a scalar be freed while it is read.
let private wrong =
    [ "a + b"
      "a + 1.0.AsScalar()"
      "1.0 + a"
      "a * 2.0"
      "2.0 * a"
      "a.add b"
      "a.add_ b"
      "a.square ()"
      "[ a; b ] |> List.reduce (+)"
      "a.add (b, 1)"
      "a - 1.0"
      "torch.arange (3)"
      "a.mul (Scalar.op_Implicit 2.0)"
      "a.mul (2.0.ToScalar())" ]

/// And each of these does not.
let private right =
    [ "a .+ b"
      "a - b"
      "a * b / b"
      "a * 2.0.AsScalar()"
      "a.plus 1.0"
      "a.squared ()"
      "[ a; b ] |> List.reduce (.+)"
      "Tensors.range a.device 0L 3L" ]

let private source (name: string) (expressions: string list) =
    [ $"module {name}"
      "open Cmcl"
      "open TorchSharp"
      for i, e in List.indexed expressions do
          $"let f{i} (a: torch.Tensor) (b: torch.Tensor) : torch.Tensor = {e}" ]

/// What is found in both, compiled together: the compiler's start takes longest.
let private found: Lazy<string list> =
    lazy
        (let folder = (Directory.CreateTempSubdirectory "cmcl-scalars").FullName

         let files =
             [ for name, expressions in [ "Wrong", wrong; "Right", right ] do
                   let file = Path.Combine(folder, name + ".fs")
                   File.WriteAllLines(file, source name expressions)
                   file ]

         unsafeCalls (compiled folder files))

/// Runs `act` while another thread collects all the time: what is held by nobody goes at once.
let private underCollection (act: unit -> 'a) : 'a =
    use stop = new CancellationTokenSource()

    let collector =
        Thread(
            (fun () ->
                while not stop.IsCancellationRequested do
                    GC.Collect(0, GCCollectionMode.Forced, true)
                    GC.WaitForPendingFinalizers()),
            IsBackground = true
        )

    collector.Start()

    try
        act ()
    finally
        stop.Cancel()
        collector.Join()

/// Everything that a run of two methods tells, but for times.
let private figures (jobs: int) (methods: string) : string list =
    let found =
        Checks.synthetic.Value
        |> Run.on
        |> Run.named methods
        |> Run.each (Learn.epochs 1)
        |> Run.seeds [ 0; 1 ]
        |> Run.jobs jobs
        |> Run.threads 1
        |> Run.quietly
        |> Run.go

    [ for r in found.Rows do
          if not (r.Metric.StartsWith "seconds") then
              $"{r.Method} {r.Seed} {r.Step} {r.Task} {r.Metric} {r.Value:R}" ]

/// The tensors that this thread made outside every scope.
let private unowned () = DisposeScopeManager.Statistics.TensorStatistics.CreatedOutsideScopeCount

let private ofEveryKind = [ "vanilla,gem"; "dns,derpp"; "ewc,co2l"; "dns-trust,c-flat"; "reference,nsp" ]

let tests =
    testList
        "scalars"
        [ for name in
              [ "Cmcl.dll"
                "Cmcl.Study.dll"
                "Cmcl.Report.dll"
                "Cmcl.Bench.dll"
                "Cmcl.Cli.dll"
                "Cmcl.Encoders.dll"
                "Cmcl.Import.dll"
                "Cmcl.CSharp.dll"
                "Cmcl.Runner.dll"
                "Tests.dll" ] do
              testCase $"none is left to TorchSharp in {name}" (fun () -> none (beside name))

          for methods in ofEveryKind do
              testCase $"{methods}: constant collection changes no figure" (fun () ->
                  let expected = figures 1 methods
                  Expect.equal (underCollection (fun () -> figures 2 methods)) expected "two jobs side by side")

          testCase "every tensor of a run has an owner" (fun () ->
              for written in ofEveryKind |> List.collect (fun names -> List.ofArray (names.Split ',')) do
                  let plan = Checks.plan Checks.synthetic.Value $"{written}[epochs=1]"
                  let before = unowned ()
                  Train.run Checks.synthetic.Value torch.CPU Split.Test 0 Observer.silent plan |> Check.get |> ignore
                  Expect.equal (unowned ()) before $"tensors of {written} outside every scope"

              // That this counts is seen on one that has none.
              let before = unowned ()
              use _ = torch.zeros 1L
              Expect.equal (unowned ()) (before + 1L) "a tensor outside every scope")

          testCase
              "none is left to TorchSharp in scripts"
              (Processes.inFolder (fun folder -> Directory.GetFiles(scripts, "*.fsx") |> List.ofArray |> compiled folder |> none))

          testCase "a call that makes one is found" (fun () ->
              for i, e in List.indexed wrong do
                  Expect.exists
                      found.Value
                      (fun line -> line.Contains $"Wrong::f{i}(" || line.Contains $"Wrong/f{i}@")
                      $"'{e}' is told")

          testCase "a call that makes none is not" (fun () ->
              let told = found.Value |> List.filter (fun line -> line.Contains "Right::" || line.Contains "Right/")
              Expect.isEmpty told "safe forms") ]
