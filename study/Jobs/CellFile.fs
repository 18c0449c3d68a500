namespace Cmcl

open System
open System.IO
open System.Text.Json
open System.Text.Json.Nodes

/// A finished cell with all that its file says.
type StoredCell =
    {
        Identity: string
        Cell: Cell
        /// Where it ran, as JSON (`Record.machine`).
        Machine: string
        Record: CellRecord
    }

/// A finished cell is a file, `OUT/cells/HASH.json`, named by all that decides what it holds: whoever asks for the same finds it.
[<RequireQualifiedAccess>]
module CellFile =
    /// Another number for every change of what a cell file holds. What decides a cell is in its identity.
    [<Literal>]
    let private Format = "cmcl-cell/3"

    /// The folder of the cells of a results folder.
    let folder (out: string) : string = Path.Combine(out, "cells")

    /// The file of a cell.
    let path (out: string) (identity: string) : string = Path.Combine(folder out, Identity.hash identity + ".json")

    let private write' (cell: StoredCell) (json: Utf8JsonWriter) : unit =
        json.WritePropertyName "identity"
        json.WriteRawValue cell.Identity
        json.WriteString("stream", cell.Cell.Stream)
        json.WriteString("label", cell.Cell.Method)
        json.WriteNumber("order", cell.Cell.Order)
        json.WritePropertyName "machine"
        json.WriteRawValue cell.Machine
        json.WriteNumber("seconds", cell.Record.Seconds)
        json.WriteNumber("memory", cell.Record.Memory)

        match cell.Record.Result with
        | Ok result ->
            json.WriteString("state", "done")
            OutcomeText.write json result.Outcome result.Monitor
        | Error message ->
            json.WriteString("state", "failed")
            json.WriteString("message", message)

    /// Writes a cell's file, whole or not at all. Fault: `Unwritable`.
    let write (out: string) (cell: StoredCell) : Result<unit, Fault list> =
        let path = path out cell.Identity
        let whole = ChecksummedJson.bytes Format (write' cell)

        Files.makeFolderOf path |> Result.bind (fun () -> Files.writeWhole path (fun file -> file.Write(ReadOnlySpan whole)))

    let private parse (body: JsonElement) : StoredCell =
        let text (name: string) (json: JsonElement) = string ((json.GetProperty name).GetString())
        let identity = body.GetProperty "identity"

        { Identity = identity.GetRawText()
          Cell =
            { Stream = text "stream" body
              Method = text "label" body
              Order = (body.GetProperty "order").GetInt32()
              Seed = (identity.GetProperty "seed").GetInt32() }
          Machine = (body.GetProperty "machine").GetRawText()
          Record =
            { Result =
                match text "state" body with
                | "done" ->
                    let outcome, monitor = OutcomeText.read body
                    Ok { Outcome = outcome; Monitor = monitor }
                | "failed" -> Error(text "message" body)
                | other -> raise (InvalidDataException $"its state is '{other}'")
              Seconds = (body.GetProperty "seconds").GetDouble()
              Memory = (body.GetProperty "memory").GetInt64() } }

    /// What a cell's file holds. Faults: `Missing`; `Unreadable` for a file that was changed or broken off or is of something else, or that cannot be
    /// read.
    let load (path: string) : Result<StoredCell, Fault list> =
        InputFile.reading "the cell" path (fun () ->
            try
                use document = ChecksummedJson.read Format path
                Ok(parse (document.RootElement.GetProperty "body"))
            with
            | :? JsonException -> Error [ Fault.Unreadable(path, "it was changed or broken off") ]
            | :? InvalidDataException
            | :? InvalidOperationException
            | :? Collections.Generic.KeyNotFoundException
            | :? FormatException
            | :? ArgumentException as e -> Error [ Fault.Unreadable(path, e.Message) ])

    /// What the file of a cell holds; None if there is no file. Faults as of `load`, also for one of another cell.
    let check (out: string) (identity: string) : Result<CellRecord option, Fault list> =
        let path = path out identity

        match load path with
        | Error [ Fault.Missing _ ] -> Ok None
        | Error faults -> Error faults
        | Ok cell when cell.Identity = identity -> Ok(Some cell.Record)
        | Ok _ -> Error [ Fault.Unreadable(path, "it is of another cell") ]

    /// `check`, where a file that does not hold is as none: such a cell is run (again).
    let read (out: string) (identity: string) : CellRecord option = check out identity |> Result.defaultValue None
