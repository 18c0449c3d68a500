namespace Cmcl.Encoders

open System
open System.IO
open System.Security.Cryptography
open System.Text.Json
open System.Text.Json.Nodes
open Cmcl

/// What a bank was made from, in a file beside it.
[<RequireQualifiedAccess>]
module About =
    /// `BANK.about.json` of `BANK.npy`.
    let beside (out: string) : string = string (Path.ChangeExtension(Path.GetFullPath out, "about.json"))

    /// A file by its name, without folders of this machine, and its SHA-256.
    let private file (path: string) : JsonNode =
        use stream = File.OpenRead path
        let node = JsonObject()
        node["file"] <- JsonValue.Create(string (Path.GetFileName path))
        node["sha256"] <- JsonValue.Create(Convert.ToHexStringLower(SHA256.HashData stream))
        node

    /// Writes the encoder's name and files with their sums, the manifest's, and how many of its items became rows. Fault: `Unwritable`.
    let write (out: string) (manifest: string) (d: Description) (shape: int64[]) (items: int) : Result<unit, Fault list> =
        let node = JsonObject()
        node["format"] <- JsonValue.Create "cmcl-bank/1"
        node["cmcl"] <- JsonValue.Create Record.cmclVersion
        node["encoder"] <- JsonValue.Create d.Name
        node["files"] <- JsonArray(List.toArray [ for path in d.Files -> file path ])
        node["manifest"] <- file manifest
        node["items"] <- JsonValue.Create items
        node["rows"] <- JsonValue.Create shape[0]
        node["columns"] <- JsonValue.Create shape[1]
        let text = node.ToJsonString(JsonSerializerOptions(WriteIndented = true))
        Files.writeText (beside out) (fun w -> w.WriteLine text)
