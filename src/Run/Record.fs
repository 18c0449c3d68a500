namespace Cmcl

open System
open System.Globalization
open System.Reflection
open System.Runtime.InteropServices
open System.Text.Json
open System.Text.Json.Nodes
open TorchSharp

/// What a run was asked to do: everything that decides its results.
type Request =
    {
        Stream: Stream
        /// The stream as the user named it.
        Source: string
        Plans: Plan list
        Seeds: int list
        Device: torch.Device
        /// The rows that figures are taken of.
        Split: Split
        SaveWeights: bool
        /// Read every old step's drift each so many updates; None for after steps only.
        Monitor: int64 option
        /// Cells, a plan with a seed each, that run side by side.
        Jobs: int
        /// The folder for results.
        Out: string
        /// The command line, to repeat it.
        Command: string
        /// Its arguments after the command's name, to resume it.
        Arguments: string list
    }

/// The record beside the results, `config.json`: settings, seeds, data and versions.
[<RequireQualifiedAccess>]
module Record =
    let private version (t: Type) =
        match t.Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>() with
        | null -> "unknown"
        | a -> a.InformationalVersion.Split('+')[0]

    /// The version of this library.
    let cmclVersion: string = version typeof<Request>

    /// The revision of the source that it was built from, where that was known.
    let private revision: string =
        match typeof<Request>.Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>() with
        | null -> "unknown"
        | a ->
            match a.InformationalVersion.Split '+' with
            | [| _; revision |] -> revision
            | _ -> "unknown"

    let private record (pairs: (string * (JsonNode | null)) list) : JsonObject =
        let o = JsonObject()

        for name, value in pairs do
            o[name] <- value

        o

    let private node pairs : JsonNode | null = record pairs

    let private text (s: string) : JsonNode | null = JsonValue.Create s
    let private whole (n: int) : JsonNode | null = JsonValue.Create n
    let private list (items: (JsonNode | null) list) : JsonNode | null = JsonArray(Array.ofList items)

    /// The machine of a run with so many jobs side by side, as `config.json` has it. Example: `Record.machine 1`.
    let machine (jobs: int) : JsonNode | null =
        node
            [ "os", text RuntimeInformation.OSDescription
              "cores", whole Environment.ProcessorCount
              "threads", whole (torch.get_num_threads ())
              "jobs", whole jobs
              "dotnet", text RuntimeInformation.FrameworkDescription
              "torchsharp", text (version typeof<torch>)
              "libtorch", text torch.__version__ ]

    let private step (s: Step) =
        node
            [ "index", whole s.Index
              "name", text s.Name
              "a", text s.A.Name
              "b", text s.B.Name
              "train", whole s.Train.Length
              "validation", whole s.Validation.Length
              "test", whole s.Test.Length
              "accuracy", (JsonValue.Create s.Accuracy.IsSome: JsonNode | null) ]

    let private stream (r: Request) =
        node
            [ "name", text r.Stream.Name
              "source", text r.Source
              "digest", text r.Stream.Digest
              "description", text r.Stream.Description
              "steps", list (List.map step r.Stream.Steps) ]

    let private plan (p: Plan) =
        node
            [ "label", text p.Label
              "method", text p.Method.Name
              "role", text (Role.name p.Method.Role)
              "settings", node [ for name, value in Plan.effective p -> name, text value ] ]

    /// The text of `config.json`. `left` says how many cells, a method with a seed each, are still to be run; `failures` are cells that ended
    /// early: label, seed, why.
    let write (created: DateTimeOffset) (left: int) (failures: (string * int * string) list) (r: Request) : string =
        let all =
            record
                [ "cmcl", text cmclVersion
                  "revision", text revision
                  "command", text r.Command
                  "arguments", list (List.map text r.Arguments)
                  "left", whole left
                  "created", text (created.ToString("yyyy-MM-ddTHH:mm:sszzz", CultureInfo.InvariantCulture))
                  "machine", machine r.Jobs
                  "stream", stream r
                  "split", text (string r.Split)
                  "device", text (string r.Device)
                  "seeds", list (List.map whole r.Seeds)
                  "methods", list (List.map plan r.Plans)
                  "failures",
                  list
                      [ for label, seed, why in failures -> node [ "method", text label; "seed", whole seed; "message", text why ] ] ]

        let options =
            JsonSerializerOptions(WriteIndented = true, Encoder = Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping)

        all.ToJsonString options + "\n"
