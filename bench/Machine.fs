namespace Cmcl

open System
open System.IO
open System.Runtime.InteropServices
open TorchSharp

/// What figures of time depend on.
[<RequireQualifiedAccess>]
module Machine =
    /// The processor's name, where the system tells it.
    let private processor () : string =
        try
            File.ReadLines "/proc/cpuinfo"
            |> Seq.tryFind _.StartsWith("model name")
            |> Option.map (fun line -> line.Substring(line.IndexOf ':' + 1).Trim())
            |> Option.defaultValue ""
        with
        | :? IOException
        | :? UnauthorizedAccessException ->
            Environment.GetEnvironmentVariable "PROCESSOR_IDENTIFIER" |> Option.ofObj |> Option.defaultValue ""

    /// Terms and values; empty where unknown. Example: `Machine.terms ()`.
    let terms () : (string * string) list =
        [ "processor", processor ()
          "cores", string Environment.ProcessorCount
          "system", RuntimeInformation.OSDescription
          "versions", $"cmcl {Record.cmclVersion}, {RuntimeInformation.FrameworkDescription}, libtorch {torch.__version__}" ]
