// Stream files as the scripts that build the shipped streams write them.
open System
open System.IO
open System.Text.Encodings.Web
open System.Text.Json
open System.Text.Json.Nodes
open System.Text.RegularExpressions

let object' (pairs: (string * JsonNode) list) : JsonNode =
    let o = JsonObject()

    for name, value in pairs do
        o[name] <- value

    o

let text (s: string) : JsonNode = JsonValue.Create s
let texts (ts: string seq) : JsonNode = JsonArray([| for t in ts -> text t |])
let numbers (ns: int seq) : JsonNode = JsonArray([| for n in ns -> JsonValue.Create n :> JsonNode |])

/// The modality of a bank such as `text:en`.
let modality (bank: string) : string = (bank.Split ':')[0]

/// Settings picked on validation rows, kept in `preset-NAME.json` so that data and settings change apart.
let preset (folder: string) (name: string) : JsonNode =
    JsonNode.Parse(File.ReadAllText(Path.Combine(folder, $"preset-{name}.json"))) |> Option.ofObj |> Option.get

/// Indented, lists of numbers on one line each.
let written (node: JsonNode) : string =
    let options = JsonSerializerOptions(WriteIndented = true, Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping)
    let indented = node.ToJsonString(options).ReplaceLineEndings "\n"

    Regex.Replace(
        indented,
        @"\[\s+(-?\d[\d,\s-]*)\]",
        fun m -> "[" + Regex.Replace(m.Groups[1].Value, @"\s+", "").Replace(",", ", ") + "]"
    )
    + "\n"

/// A line of a table for items.tsv.
let line (cells: string list) : string = String.Join("\t", cells) + "\n"
