namespace Cmcl

open System
open System.Globalization
open System.IO
open System.Security.Cryptography
open System.Text
open System.Text.Encodings.Web
open System.Text.Json
open System.Text.Json.Nodes

/// What the file of a finished cell holds.
type CellRecord =
    {
        /// Its rows, as they stand in `results.csv`; or why it diverged.
        Result: Result<Row list, string>
        Seconds: float
        /// The most memory that its process held, in bytes.
        Memory: int64
    }

/// A finished cell is a file, `OUT/cells/HASH.json`, named by all that decides its figures: a comparison takes what is there and
/// runs the rest.
[<RequireQualifiedAccess>]
module CellFile =
    /// Another number for every change of what a cell file holds or of what decides a cell.
    [<Literal>]
    let private Format = "cmcl-cell/2"

    let private text (s: string) : JsonNode | null = JsonValue.Create s

    let private node (pairs: (string * (JsonNode | null)) list) : JsonObject =
        let o = JsonObject()

        for name, value in pairs do
            o[name] <- value

        o

    /// `Identity.of'` of a cell.
    let identity (stream: Cmcl.Stream) (plan: Plan) (seed: int) (split: Split) (device: TorchSharp.DeviceType) : string =
        Identity.of' Format stream plan seed split device

    let hash (identity: string) : string = Identity.hash identity

    /// The folder of the cells of a comparison.
    let folder (out: string) : string = Path.Combine(out, "cells")

    /// The file of a cell.
    let path (out: string) (identity: string) : string = Path.Combine(folder out, hash identity + ".json")

    let private real (x: float) : JsonNode | null =
        if Double.IsFinite x then JsonValue.Create x else text (x.ToString CultureInfo.InvariantCulture)

    let private readReal (n: JsonNode) : float =
        match n.GetValueKind() with
        | JsonValueKind.String -> Double.Parse(n.GetValue<string>(), CultureInfo.InvariantCulture)
        | _ -> n.GetValue<float>()

    /// What follows the content of a file: its SHA-256, as the last of its fields.
    let private ending (body: string) : string =
        let sha = Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes body))
        $",\n  \"sha256\": \"{sha}\"\n}}\n"

    /// Is the text what was written, to the last byte?
    let private isWhole (content: string) : bool =
        let length = content.Length - (ending "").Length
        length >= 2 && content = "{\n" + content.Substring(2, length - 2) + ending (content.Substring(2, length - 2))

    let private compact = JsonSerializerOptions(Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping)

    /// Writes a cell's file, whole or not at all; `machine` is what is to be known of where it ran. Fault: `Unwritable`.
    let write
        (out: string)
        (identity: string)
        (cell: Cell)
        (machine: JsonNode | null)
        (record: CellRecord)
        : Result<unit, Fault list> =
        let line (n: JsonNode | null) =
            match n with
            | null -> "null"
            | n -> n.ToJsonString compact

        let rowLine (r: Row) =
            let step, task = When.texts r.When
            line (node [ "step", text step; "task", text task; "metric", text r.Metric; "value", real r.Value ])

        let rows (rows: Row list) = "[\n" + String.Join(",\n", [ for r in rows -> "    " + rowLine r ]) + "\n  ]"

        let parts =
            [ "cell", line (JsonNode.Parse identity)
              "stream", line (text cell.Stream)
              "label", line (text cell.Method)
              "order", string cell.Order
              "machine", line machine
              "seconds", line (real record.Seconds)
              "memory", string record.Memory
              match record.Result with
              | Ok all ->
                  "state", line (text "done")
                  "rows", rows all
              | Error message ->
                  "state", line (text "failed")
                  "message", line (text message) ]

        let body = String.Join(",\n", [ for name, value in parts -> $"  \"{name}\": {value}" ])
        Files.writeText (path out identity) (fun w -> w.Write("{\n" + body + ending body))

    let private child (name: string) (n: JsonNode) : JsonNode = n[name] |> Option.ofObj |> Option.get

    let private parse (identity: string) (cell: Cell) (content: string) : CellRecord option =
        let all = JsonNode.Parse content |> Option.ofObj |> Option.get
        let string' name n = (child name n).GetValue<string>()

        let row (n: JsonNode) =
            { Stream = cell.Stream
              Method = cell.Method
              Seed = cell.Seed
              When = When.parse (string' "step" n) (string' "task" n) |> Option.get
              Metric = string' "metric" n
              Value = readReal (child "value" n) }

        let result =
            match string' "state" all with
            | "done" -> Some(Ok [ for n in (child "rows" all).AsArray() -> row (Option.get (Option.ofObj n)) ])
            | "failed" -> Some(Error(string' "message" all))
            | _ -> None

        if (child "cell" all).ToJsonString() <> identity then
            None
        else
            result
            |> Option.map (fun result ->
                { Result = result
                  Seconds = readReal (child "seconds" all)
                  Memory = (child "memory" all).GetValue<int64>() })

    /// What the file of a cell holds; None if there is no file. Faults: `Unreadable` for a file that was changed or broken off or is of something
    /// else, or that cannot be read.
    let check (out: string) (identity: string) (cell: Cell) : Result<CellRecord option, Fault list> =
        let path = path out identity
        let damaged = Error [ Fault.Unreadable(path, "its checksum does not hold, so it was changed or broken off") ]

        match InputFile.text "the cell" path with
        | Error [ Fault.Missing _ ] -> Ok None
        | Error faults -> Error faults
        | Ok content when not (isWhole content) -> damaged
        | Ok content ->
            try
                match parse identity cell content with
                | Some record -> Ok(Some record)
                | None -> Error [ Fault.Unreadable(path, "it is of another cell") ]
            with
            | :? JsonException
            | :? InvalidOperationException
            | :? FormatException
            | :? OverflowException
            | :? ArgumentException -> damaged

    /// `check`, where a file that does not hold is as none: such a cell is run (again).
    let read (out: string) (identity: string) (cell: Cell) : CellRecord option =
        check out identity cell |> Result.defaultValue None

    /// The state that a record stands for.
    let state (record: CellRecord option) : CellState =
        match record with
        | None -> CellState.Missing
        | Some { Result = Ok rows } -> CellState.Done rows
        | Some { Result = Error message } -> CellState.Failed message
