namespace Cmcl

open System
open System.IO
open System.Security.Cryptography
open System.Text
open System.Text.Encodings.Web
open System.Text.Json

/// A JSON file that says whether it is whole: its format, the SHA-256 of its body, and the body, an object.
[<RequireQualifiedAccess>]
module ChecksummedJson =
    let private sha (content: ReadOnlySpan<byte>) : string = Convert.ToHexStringLower(SHA256.HashData content)

    let private object (write: Utf8JsonWriter -> unit) : byte[] =
        use memory = new MemoryStream()

        do
            use json = new Utf8JsonWriter(memory, JsonWriterOptions(Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping))
            json.WriteStartObject()
            write json
            json.WriteEndObject()

        memory.ToArray()

    /// The bytes of a file of a format; `write` writes the members of its body.
    let bytes (format: string) (write: Utf8JsonWriter -> unit) : byte[] =
        let body = object write

        object (fun json ->
            json.WriteString("format", format)
            json.WriteString("sha256", sha (ReadOnlySpan body))
            json.WritePropertyName "body"
            json.WriteRawValue(ReadOnlySpan body))

    let private refuse (reason: string) = raise (InvalidDataException reason)

    let private text (name: string) (json: JsonElement) : string =
        if json.ValueKind <> JsonValueKind.Object then
            refuse "it is not a JSON object"

        match json.TryGetProperty name with
        | true, value when value.ValueKind = JsonValueKind.String -> string (value.GetString())
        | _ -> refuse $"it has no '{name}'"

    /// The document of a file of that format whose checksum holds; its member `body` is what was written. Raises `InvalidDataException` where it
    /// does not hold, `JsonException` and what reading a file raises.
    let read (format: string) (path: string) : JsonDocument =
        let document = JsonDocument.Parse(File.ReadAllText path)
        let found = text "format" document.RootElement

        if found <> format then
            refuse $"it is of the format '{found}'; this version reads '{format}'"

        match document.RootElement.TryGetProperty "body" with
        | true, body when sha (ReadOnlySpan(Encoding.UTF8.GetBytes(body.GetRawText()))) = text "sha256" document.RootElement ->
            document
        | _ -> refuse "its checksum does not hold, so it was changed or broken off"
