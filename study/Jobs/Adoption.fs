namespace Cmcl

open System
open System.Globalization
open System.IO
open System.Security.Cryptography
open System.Text
open System.Text.Json
open System.Text.Json.Nodes
open System.Text.RegularExpressions

/// A cell in a folder, whoever left it, in whatever format.
type FoundCell =
    {
        /// Its file, or the folder of its checkpoints.
        Path: string
        /// As it was written.
        Identity: string
        /// Names that are not known are empty.
        Cell: Cell
        Machine: string
        /// How many threads it ran with, where that is known.
        Threads: int option
        State: CellState<CellRecord>
        /// This version's format, this code.
        IsPresent: bool
        /// The checkpoint, where it is not finished: its members, as JSON.
        Checkpoint: string option
    }

/// Cells that earlier versions or other code left: what there is, and how it is taken over.
[<RequireQualifiedAccess>]
module Adoption =
    /// What is raised by a file that is not what it should be.
    let private isFileFault (e: exn) : bool =
        match e with
        | :? JsonException
        | :? IOException
        | :? UnauthorizedAccessException
        | :? InvalidDataException
        | :? InvalidOperationException
        | :? Collections.Generic.KeyNotFoundException
        | :? FormatException
        | :? OverflowException
        | :? ArgumentException -> true
        | _ -> false

    let private number (name: string) (json: JsonElement) : int option =
        match json.ValueKind = JsonValueKind.Object && fst (json.TryGetProperty name) with
        | true when (json.GetProperty name).ValueKind = JsonValueKind.Number -> Some((json.GetProperty name).GetInt32())
        | _ -> None

    let private text (name: string) (json: JsonElement) : string = string ((json.GetProperty name).GetString())

    let private real (json: JsonElement) : float =
        if json.ValueKind = JsonValueKind.String then
            Double.Parse(string (json.GetString()), CultureInfo.InvariantCulture)
        else
            json.GetDouble()

    let private isPresent (identity: JsonElement) : bool =
        match identity.TryGetProperty "code" with
        | true, code -> code.GetString() = Identity.code
        | _ -> false

    // ---- finished cells ------------------------------------------------------------------------------------------

    /// Formats 1 and 2: rows as `results.csv` has them, and with 2 a checksum of the text before it.
    let private older (content: string) (path: string) (root: JsonElement) : FoundCell =
        match root.TryGetProperty "sha256" with
        | true, sha ->
            let ending = $",\n  \"sha256\": \"{sha.GetString()}\"\n}}\n"
            let body = content.Substring(2, max 0 (content.Length - 2 - ending.Length))

            if Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes body)) <> string (sha.GetString()) then
                raise (InvalidDataException "its checksum does not hold, so it was changed or broken off")
        | _ -> ()

        let identity, machine = root.GetProperty "cell", root.GetProperty "machine"

        let measurement (row: JsonElement) : Measurement =
            { Step = Int32.Parse(text "step" row, CultureInfo.InvariantCulture)
              Task = Int32.Parse(text "task" row, CultureInfo.InvariantCulture)
              Metric = text "metric" row
              Value = real (row.GetProperty "value") }

        let outcome rows : Outcome = { Measurements = rows; Losses = []; Spectra = [] }

        let record =
            { Result =
                if text "state" root = "done" then
                    let rows = [ for row in (root.GetProperty "rows").EnumerateArray() -> measurement row ]
                    Ok { Outcome = outcome rows; Monitor = [] }
                else
                    Error(text "message" root)
              Seconds = real (root.GetProperty "seconds")
              Memory = (root.GetProperty "memory").GetInt64() }

        { Path = path
          Identity = identity.GetRawText()
          Cell =
            { Stream = text "stream" root
              Method = text "label" root
              Order = (root.GetProperty "order").GetInt32()
              Seed = (identity.GetProperty "seed").GetInt32() }
          Machine = machine.GetRawText()
          Threads = number "threads" machine
          State = CellState.ofRecord record
          IsPresent = false
          Checkpoint = None }

    let private ofFile (path: string) : FoundCell =
        let content = File.ReadAllText path
        use document = JsonDocument.Parse content
        let root = document.RootElement

        if root.ValueKind = JsonValueKind.Object && fst (root.TryGetProperty "cell") then
            older content path root
        else
            let stored = CellFile.load path |> Check.get
            use identity = JsonDocument.Parse stored.Identity

            { Path = path
              Identity = stored.Identity
              Cell = stored.Cell
              Machine = stored.Machine
              Threads = number "threads" identity.RootElement
              State = CellState.ofRecord stored.Record
              IsPresent = isPresent identity.RootElement
              Checkpoint = None }

    // ---- checkpoints ---------------------------------------------------------------------------------------------

    let private formats = [ "cmcl-checkpoint/2"; "cmcl-checkpoint/1" ]

    let private isNumber (path: string) : bool =
        fst (Int64.TryParse(string (Path.GetFileNameWithoutExtension path), NumberStyles.None, CultureInfo.InvariantCulture))

    /// The body of the newest checkpoint of a folder that can be read; of format 1 also that of a finished run.
    let private ofFolder (info: RunInfo) (folder: string) : FoundCell =
        let attempt (path: string) (format: string) =
            try
                Some(path, ChecksummedJson.read format path)
            with e when isFileFault e ->
                None

        let files = Directory.GetFiles(folder, "*.json") |> Array.filter isNumber |> Array.sortDescending

        match files |> Seq.collect (fun path -> Seq.map (attempt path) formats) |> Seq.tryPick id with
        | None -> raise (InvalidDataException "it has no checkpoint that can be read")
        | Some(_, document) ->
            use document = document
            let body = document.RootElement.GetProperty "body"
            let identity = body.GetProperty "identity"

            let finished =
                match body.TryGetProperty "reached" with
                | true, reached when reached.GetString() = "end" ->
                    let outcome, monitor = OutcomeText.read body

                    Some
                        { Result = Ok { Outcome = outcome; Monitor = monitor }
                          Seconds = outcome.Measurements |> List.filter _.Metric.StartsWith("seconds_") |> List.sumBy _.Value
                          Memory = 0L }
                | _ -> None

            let method = text "method" identity

            { Path = folder
              Identity = identity.GetRawText()
              Cell =
                { Stream = info.StreamName
                  // The only label that it can have, where there is one.
                  Method =
                    match info.Methods |> List.filter (fun m -> m.Method = method) with
                    | [ one ] -> one.Label
                    | _ -> method
                  Order = 0
                  Seed = (identity.GetProperty "seed").GetInt32() }
              Machine = "{}"
              Threads = number "threads" identity
              State =
                finished |> Option.map CellState.ofRecord |> Option.defaultValue (CellState.Interrupted "it has a checkpoint")
              IsPresent = isPresent identity
              Checkpoint = if finished.IsNone then Some(body.GetRawText()) else None }

    // ---- what there is -------------------------------------------------------------------------------------------

    let private isHash (path: string) : bool = Regex.IsMatch(string (Path.GetFileNameWithoutExtension path), "^[0-9a-f]{20}$")

    /// Every cell of a results folder, of this version and earlier ones, finished or with a checkpoint; and what cannot be read, with its reason. Fault:
    /// `Unreadable`.
    let find (out: string) : Result<FoundCell list * (string * string) list, Fault list> =
        Files.reading out (fun () ->
            let info = RunInfo.read out |> Result.defaultValue (RunInfo.parse "{}")

            let all (folder: string) (list: string -> string[]) =
                if Directory.Exists folder then
                    list folder |> Array.filter isHash |> Array.sort |> List.ofArray
                else
                    []

            let read (f: string -> FoundCell) (path: string) =
                try
                    Choice1Of2(f path)
                with
                | CmclException fault -> Choice2Of2(path, fault.Message)
                | e when isFileFault e -> Choice2Of2(path, e.Message)

            let cells, checkpoints = CellFile.folder out, Path.Combine(out, "checkpoints")

            [ for path in all cells (fun folder -> Directory.GetFiles(folder, "*.json")) -> read ofFile path
              for folder in [ cells; checkpoints ] do
                  for path in all folder Directory.GetDirectories -> read (ofFolder info) path ]
            |> List.partition _.IsChoice1Of2
            |> fun (found, damaged) ->
                List.choose
                    (function
                    | Choice1Of2 c -> Some c
                    | Choice2Of2 _ -> None)
                    found,
                List.choose
                    (function
                    | Choice2Of2 d -> Some d
                    | Choice1Of2 _ -> None)
                    damaged)

    /// The run of an identity, whatever it was made by.
    let private run (identity: string) : string = Identity.taken 0 None identity

    /// How many of the runs of these identities other code or an earlier version has finished or begun, where the present one has not.
    let others (out: string) (wanted: string list) : int =
        if not (Directory.Exists out) then
            0
        else
            let store = Store.Folder out

            match
                [ for w in wanted do
                      if (CellFile.read out w).IsNone then
                          run w ]
                |> set
            with
            | open' when open'.IsEmpty -> 0
            | open' ->
                match find out with
                | Error _ -> 0
                | Ok(found, _) ->
                    [ for c in found do
                          if not c.IsPresent && open'.Contains(run c.Identity) then
                              run c.Identity ]
                    |> List.distinct
                    |> List.length

    /// What is said of `others`, and what to do: take them over, or what is given.
    let fault (out: string) (count: int) (otherwise: string) : Fault =
        let cells = if count = 1 then "one cell" else $"{count} cells"

        Fault.Contradiction(
            $"'{out}' holds {cells} of this that an earlier version or other code of cmcl made",
            $"cmcl store adopt {out} takes them over; {otherwise}"
        )

    // ---- taking over ---------------------------------------------------------------------------------------------

    /// The monitor of an older run, which its command alone tells.
    let private monitor (info: RunInfo) (c: FoundCell) : int64 option =
        use identity = JsonDocument.Parse c.Identity

        match number "monitor" identity.RootElement, identity.RootElement.TryGetProperty "code" with
        | Some n, _ -> Some(int64 n)
        | None, (true, _) -> None
        | None, _ ->
            let m = Regex.Match(info.Command, @"--monitor[ =](\d+)")
            if m.Success && c.Machine = "{}" then Some(int64 m.Groups[1].Value) else None

    /// A checkpoint of another identity as the first of this one.
    let private move (out: string) (c: FoundCell) (identity: string) (body: string) : Result<unit, Fault list> =
        let folder = Store.checkpointFolder out identity

        let members (json: Utf8JsonWriter) =
            use document = JsonDocument.Parse body
            json.WritePropertyName "identity"
            json.WriteRawValue identity

            for p in document.RootElement.EnumerateObject() do
                if p.Name <> "identity" && p.Name <> "reached" then
                    p.WriteTo json

        Files.makeFolderOf (Path.Combine(folder, "part"))
        |> Result.bind (fun () ->
            Files.writing folder (fun () ->
                for part in Directory.GetFiles(c.Path, "*.safetensors") do
                    File.Copy(part, Path.Combine(folder, string (Path.GetFileName part)), true)))
        |> Result.bind (fun () ->
            let whole = ChecksummedJson.bytes formats.Head members
            Files.writeDurably (Path.Combine(folder, "00000001.json")) (fun file -> file.Write(ReadOnlySpan whole)))

    let private forget (c: FoundCell) : Result<unit, Fault list> =
        if File.Exists c.Path then
            Files.writing c.Path (fun () -> File.Delete c.Path)
        else
            CheckpointFolder.Forget c.Path

    /// Takes over the cells of a folder that other code or earlier versions left, and, where a number of threads is given, those that ran with
    /// others: each gets the identity that this code gives to the same run. How many were, and of those that were not the path and the reason.
    /// Fault: `Unreadable`.
    let adopt (out: string) (threads: int option) : Result<int * (string * string) list, Fault list> =
        let info = RunInfo.read out |> Result.defaultValue (RunInfo.parse "{}")

        let recorded =
            info.Machine
            |> List.tryFind (fst >> (=) "threads")
            |> Option.bind (fun (_, n) ->
                match Int32.TryParse n with
                | true, n -> Some n
                | _ -> None)

        let one (c: FoundCell) : Result<unit, string> =
            match Option.orElse (Option.orElse recorded c.Threads) threads with
            | None -> Error "with how many threads it ran is not known; say it by --threads"
            | Some n ->
                let identity = Identity.taken n (monitor info c) c.Identity
                let store = Store.Folder out

                let written =
                    match c.State, c.Checkpoint with
                    | _ when Store.isTaken store c.Identity || Store.isTaken store identity -> Error "a process runs it"
                    | _ when (CellFile.read out identity).IsSome -> Error "this code has finished the same"
                    | _, Some _ when Directory.Exists(Store.checkpointFolder out identity) -> Error "this code has begun the same"
                    | _, Some body -> Ok(move out c identity body)
                    | state, None ->
                        let record =
                            match state with
                            | CellState.Finished record -> record
                            | other ->
                                { Result = Error(CellState.reason other |> Option.defaultValue "")
                                  Seconds = 0.0
                                  Memory = 0L }

                        CellFile.write
                            out
                            { Identity = identity
                              Cell = c.Cell
                              Machine = c.Machine
                              Record = record }
                        |> Ok

                written
                |> Result.bind (
                    Result.bind (fun () -> forget c) >> Result.mapError (fun faults -> (Fault.Several faults).Message)
                )

        find out
        |> Result.map (fun (found, damaged) ->
            let candidates = found |> List.filter (fun c -> not c.IsPresent || (threads.IsSome && c.Threads <> threads))
            let taken = candidates |> List.map (fun c -> c.Path, one c)

            // Where earlier versions kept checkpoints.
            let old = Path.Combine(out, "checkpoints")

            if Directory.Exists old && Seq.isEmpty (Directory.EnumerateFileSystemEntries old) then
                Directory.Delete old

            let refused =
                [ for path, result in taken do
                      match result with
                      | Error why -> path, why
                      | Ok() -> () ]

            taken.Length - refused.Length, refused @ damaged)
