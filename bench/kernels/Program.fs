/// Benchmarks of the parts that training is made of: `dotnet fsi build.fsx -- kernels`. Whole iterations are timed by `cmcl bench`.
module Cmcl.Bench.Program

open BenchmarkDotNet.Configs
open BenchmarkDotNet.Jobs
open BenchmarkDotNet.Running
open BenchmarkDotNet.Toolchains.InProcess.Emit

[<EntryPoint>]
let main argv =
    Cmcl.Native.init ()

    // In this process, because libtorch is loaded into it. `--smoke` runs everything once, to see that it runs.
    let smoke = Array.contains "--smoke" argv

    let job =
        (if smoke then Job.Dry else Job.Default.WithWarmupCount(3).WithIterationCount 9).WithToolchain
            InProcessEmitToolchain.Instance

    let config = DefaultConfig.Instance.AddJob(job).WithArtifactsPath("output/kernels")

    let given = argv |> Array.filter ((<>) "--smoke")
    let filter = if Array.contains "--filter" given then given else Array.append given [| "--filter"; "*" |]
    let summaries = BenchmarkSwitcher.FromAssembly(System.Reflection.Assembly.GetExecutingAssembly()).Run(filter, config)
    if summaries |> Seq.forall (fun s -> not s.HasCriticalValidationErrors) then 0 else 1
