namespace Cmcl

open System
open System.Reflection
open System.Security.Cryptography
open System.Text
open System.Text.Json
open System.Text.Json.Nodes
open TorchSharp

/// What a run's figures depend on beside its data, its method and its seed.
type Protocol =
    {
        /// The rows that figures are taken of.
        Split: Split
        Device: torch.Device
        /// Threads of libtorch: sums of floats depend on their order.
        Threads: int
        /// Read every old step's drift each so many updates; None for after steps only.
        Monitor: int64 option
    }

[<RequireQualifiedAccess>]
module Protocol =
    /// More threads than this no machine has a use for; libtorch can hang when it is asked for very many.
    [<Literal>]
    let MostThreads = 256

    /// Threads as given, or by the size of a stream's matrices: up to 512 columns one thread is done before several have agreed on their parts,
    /// beyond that one a core. The same for every way to run something.
    /// Example: `Protocol.threads (Check.get (Catalogue.find "synthetic")) None = 1`.
    let threads (stream: Cmcl.Stream) (given: int option) : int =
        let widest = Stream.joint stream :: (Stream.modalities stream |> List.map snd) |> List.max
        let fitting = if widest <= 512L then 1 else min MostThreads Environment.ProcessorCount
        Option.defaultValue fitting given

/// Whose results, whose state: everything that decides what a plan with a seed on a stream leaves. The same for checkpoints and results, and for
/// every way to run something.
[<RequireQualifiedAccess>]
module Identity =
    /// The hash of the sources that this library was built from (build/SourceHash.targets).
    let code: string =
        typeof<Request>.Assembly.GetCustomAttributes<AssemblyMetadataAttribute>()
        |> Seq.tryFind (fun a -> a.Key = "Sources")
        |> Option.bind (fun a -> Option.ofObj a.Value)
        |> Option.map (fun hash -> hash.Substring(0, 20))
        |> Option.defaultValue "unknown"

    let private text (s: string) : JsonNode | null = JsonValue.Create s

    let private node (pairs: (string * (JsonNode | null)) list) : JsonObject =
        let o = JsonObject()

        for name, value in pairs do
            o[name] <- value

        o

    /// As one line of JSON: the data by their digest, the names of the steps in their order, the method with every setting that it uses and those
    /// that say how figures are taken, the seed, the rows that are read, the kind of device, the threads, the monitor if there is one, and
    /// the hash of this library's sources. A label, a folder and how many cells run side by side are no part of it.
    let of' (protocol: Protocol) (stream: Cmcl.Stream) (plan: Plan) (seed: int) : string =
        let measured = [ for option in Settings.measuring -> option.Info.Name, option.Show plan.Settings ]

        // Features as they came are not written, so that what ran before there was anything else is the same run.
        let raw = Settings.features.Name, Lift.show None

        let settings = Plan.effective plan @ measured |> List.distinct |> List.except [ raw ] |> List.sortBy fst

        (node
            [ "digest", text stream.Digest
              "steps", JsonArray([| for s in stream.Steps -> text s.Name |])
              "method", text plan.Method.Name
              "settings", node [ for name, value in settings -> name, text value ]
              "seed", JsonValue.Create seed
              "split", text (string protocol.Split)
              "device", text ((string protocol.Device.``type``).ToLowerInvariant())
              "threads", JsonValue.Create protocol.Threads
              match protocol.Monitor with
              | Some n -> "monitor", JsonValue.Create n
              | None -> ()
              "code", text code ])
            .ToJsonString()

    /// The first 20 hexadecimal digits of an identity's SHA-256.
    let hash (identity: string) : string =
        Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes identity)).Substring(0, 20)

    /// What an identity says by name, the settings one by one: `settings.lr`. Raises what reading JSON raises.
    let fields (identity: string) : (string * string) list =
        let rec fields (prefix: string) (json: JsonElement) : (string * string) list =
            if json.ValueKind = JsonValueKind.Object then
                [ for p in json.EnumerateObject() do
                      yield! fields (if prefix = "" then p.Name else $"{prefix}.{p.Name}") p.Value ]
            else
                [ prefix, (if json.ValueKind = JsonValueKind.String then string (json.GetString()) else json.GetRawText()) ]

        use document = JsonDocument.Parse identity
        fields "" document.RootElement

    /// The fields in which two identities differ: the name, the value of each, "nothing" where it has none.
    let differences (one: string) (other: string) : (string * string * string) list =
        let one, other = Map(fields one), Map(fields other)
        let value map name = Map.tryFind name map |> Option.defaultValue "nothing"

        [ for name in Seq.append one.Keys other.Keys |> Seq.distinct do
              if value one name <> value other name then
                  name, value one name, value other name ]

    /// What says by what a run was made, not what was run: an earlier version's format and number, the threads, the code.
    let private making = [ "format"; "cmcl"; "threads"; "code" ]

    let private without (names: string list) (identity: string) : JsonObject =
        match JsonNode.Parse identity with
        | :? JsonObject as o ->
            for name in names do
                o.Remove name |> ignore

            o
        | _ -> raise (JsonException "an identity is a JSON object")

    /// An identity without what says by what the run was made: the same text for the same run of other threads, another version or other code. Raises
    /// `JsonException` for what is no identity.
    let run (identity: string) : string = (without making identity).ToJsonString()

    /// The same run, with so many threads, as if this code had made it. Raises `JsonException` for what is no identity.
    let taken (threads: int) (monitor: int64 option) (identity: string) : string =
        let o = without ("monitor" :: making) identity
        o["threads"] <- JsonValue.Create threads
        monitor |> Option.iter (fun n -> o["monitor"] <- JsonValue.Create n)
        o["code"] <- text code
        o.ToJsonString()
