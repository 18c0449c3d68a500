namespace Cmcl

open System
open System.Security.Cryptography
open System.Text
open System.Text.Json
open System.Text.Json.Nodes

/// Whose results, whose state: everything that decides the figures of a plan with a seed on a stream.
[<RequireQualifiedAccess>]
module Identity =
    let private text (s: string) : JsonNode | null = JsonValue.Create s

    let private node (pairs: (string * (JsonNode | null)) list) : JsonObject =
        let o = JsonObject()

        for name, value in pairs do
            o[name] <- value

        o

    /// As one line of JSON: the data by their digest, the names of the steps in their order, the method with every setting that it uses
    /// and those that say how figures are taken, the seed, the rows that are read, the kind of device, and the version of this
    /// library. A label, a folder, threads and how many cells run side by side are no part of it.
    /// `format` is of what the identity stands in: another one for every change of that.
    let of'
        (format: string)
        (stream: Cmcl.Stream)
        (plan: Plan)
        (seed: int)
        (split: Split)
        (device: TorchSharp.DeviceType)
        : string =
        let measured = [ for option in Settings.measuring -> option.Info.Name, option.Show plan.Settings ]

        let settings = Plan.effective plan @ measured |> List.distinct |> List.sortBy fst

        (node
            [ "format", text format
              "cmcl", text Record.cmclVersion
              "digest", text stream.Digest
              "steps", JsonArray([| for s in stream.Steps -> text s.Name |])
              "method", text plan.Method.Name
              "settings", node [ for name, value in settings -> name, text value ]
              "seed", JsonValue.Create seed
              "split", text (string split)
              "device", text ((string device).ToLowerInvariant()) ])
            .ToJsonString()

    /// The first 20 hexadecimal digits of an identity's SHA-256.
    let hash (identity: string) : string =
        Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes identity)).Substring(0, 20)

    let rec private fields (prefix: string) (json: JsonElement) : (string * string) list =
        if json.ValueKind = JsonValueKind.Object then
            [ for p in json.EnumerateObject() do
                  yield! fields (if prefix = "" then p.Name else $"{prefix}.{p.Name}") p.Value ]
        else
            [ prefix, (if json.ValueKind = JsonValueKind.String then string (json.GetString()) else json.GetRawText()) ]

    /// The fields in which two identities differ: the name, the value of each, "nothing" where it has none.
    let differences (one: string) (other: string) : (string * string * string) list =
        let read (identity: string) =
            use document = JsonDocument.Parse identity
            Map(fields "" document.RootElement)

        let one, other = read one, read other
        let value map name = Map.tryFind name map |> Option.defaultValue "nothing"

        [ for name in Seq.append one.Keys other.Keys |> Seq.distinct do
              if value one name <> value other name then
                  name, value one name, value other name ]
