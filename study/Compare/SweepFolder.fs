namespace Cmcl

open System
open System.IO
open System.Text.Json

/// Where a cell of a sweep folder stands.
[<RequireQualifiedAccess>]
type CellStanding =
    | Finished of CellRecord
    /// It diverged, and would again.
    | Failed of message: string
    | Running of Holder
    /// It was begun, and its process ended without a result.
    | BrokenOff of Holder
    /// Its file cannot be read, or was changed: it is run again.
    | Damaged of reason: string
    | Missing

/// A folder that a sweep runs in: `sweep.json`, the sweep; `cells.jsonl`, a line for each of its cells, so that a cell is found by
/// its hash without any data; and the cells' files.
[<RequireQualifiedAccess>]
module SweepFolder =
    let sweepFile (folder: string) : string = Path.Combine(folder, "sweep.json")
    let private cellsFile (folder: string) : string = Path.Combine(folder, "cells.jsonl")

    /// Is this the folder of a sweep?
    let is (folder: string) : bool = File.Exists(sweepFile folder) && File.Exists(cellsFile folder)

    /// What an identity says by name, the settings one by one.
    let facts (identity: string) : (string * string) list =
        use document = JsonDocument.Parse identity

        let rec facts (prefix: string) (json: JsonElement) =
            match json.ValueKind with
            | JsonValueKind.Object ->
                [ for p in json.EnumerateObject() do
                      yield! facts $"{prefix}.{p.Name}" p.Value ]
            | JsonValueKind.String -> [ prefix.TrimStart '.', string (json.GetString()) ]
            | _ -> [ prefix.TrimStart '.', json.GetRawText() ]

        facts "" document.RootElement

    /// JSON of which no value is missing or null.
    let private whole = JsonSerializerOptions(RespectRequiredConstructorParameters = true, RespectNullableAnnotations = true)

    /// The cells of a folder, which may have been moved since. Faults: `Missing`, `Unreadable`.
    let cells (folder: string) : Result<SweepCell list, Fault list> =
        let path = cellsFile folder
        let out = Path.GetFullPath folder

        let cell (line: string) =
            match JsonSerializer.Deserialize<SweepCell>(line, whole) with
            | null -> raise (JsonException "a line is empty")
            | c when c.Job.Hash <> CellFile.hash c.Identity || c.Job.Given |> List.exists (fun pair -> pair.Length <> 2) ->
                raise (JsonException $"its hash is not '{CellFile.hash c.Identity}', or its options are no pairs")
            | c ->
                // Read for what it says by name, so that it is known to be readable.
                facts c.Identity |> ignore
                { c with Job = { c.Job with Out = out } }

        if not (Path.Exists path) then
            Error [ Fault.Contradiction($"'{folder}' is no folder of a sweep", "cmcl sweep run FILE --out FOLDER makes one") ]
        else
            InputFile.readingText "the sweep" path (fun () ->
                try
                    Ok [ for line in File.ReadAllLines path -> cell line ]
                with
                | :? JsonException
                | :? ArgumentException
                | :? NotSupportedException as e ->
                    let reason = e.Message.Split('\n')[0]
                    Error [ Fault.Unreadable(path, $"a line of it is no cell of a sweep ({reason.TrimEnd '.'})") ])

    /// The options that a cell uses.
    let options (cell: SweepCell) : (string * string) list =
        [ for name, value in facts cell.Identity do
              if name.StartsWith "settings." then
                  name.Substring 9, value ]

    /// A cell that another sweep does not have, in words: how the cell of the same label differs, if there is one.
    let private stranger (others: SweepCell list) (c: SweepCell) : string =
        let name = $"{c.Cell.Stream}: {c.Cell.Method}, order {c.Cell.Order}, seed {c.Cell.Seed}"

        match others |> List.tryFind (fun o -> o.Cell = c.Cell) with
        | None -> name
        | Some other ->
            let own, new' = Map.ofList (facts c.Identity), Map.ofList (facts other.Identity)
            let value (m: Map<string, string>) key = m |> Map.tryFind key |> Option.defaultValue "nothing"

            let differing =
                [ for key in List.distinct (List.ofSeq own.Keys @ List.ofSeq new'.Keys) do
                      if value own key <> value new' key then
                          $"{key} {value own key} there, {value new' key} now" ]

            let list = String.Join("; ", differing)
            $"{name} ({list})"

    /// Makes a folder that of a sweep. A folder of another sweep is extended if all its cells are in this one too, and refused else.
    let adopt (folder: string) (file: SweepFile) (now: SweepCell list) : Result<unit, Fault list> =
        let before = if is folder then cells folder else Ok []

        before
        |> Result.bind (fun before ->
            let hashes = set [ for c in now -> c.Job.Hash ]

            match before |> List.filter (fun c -> not (hashes.Contains c.Job.Hash)) with
            | [] when before.Length = now.Length -> Ok()
            | [] ->
                SweepFile.write (sweepFile folder) file
                |> Result.bind (fun () ->
                    Files.writeText (cellsFile folder) (fun w ->
                        for c in now do
                            w.WriteLine(JsonSerializer.Serialize c)))
            | gone ->
                let some = String.Join("; ", gone |> List.truncate 3 |> List.map (stranger now))

                Error
                    [ Fault.Contradiction(
                          $"'{folder}' is of another sweep: {gone.Length} of its {before.Length} cells are not in this one, such as {some}",
                          "choose another folder with --out, or keep those cells in the sweep"
                      ) ])

    /// Where every cell stands.
    let standings (cells: SweepCell list) : (SweepCell * CellStanding) list =
        [ for c in cells ->
              c,
              match CellFile.check c.Job.Out c.Identity c.Cell with
              | Ok(Some({ Result = Ok _ } as r)) -> CellStanding.Finished r
              | Ok(Some { Result = Error message }) -> CellStanding.Failed message
              | unfinished ->
                  match CellLock.last c.Job.Out c.Job.Hash, unfinished with
                  | Some holder, _ when CellLock.isTaken c.Job.Out c.Job.Hash -> CellStanding.Running holder
                  | _, Error faults -> CellStanding.Damaged (Fault.Several faults).Message
                  | Some holder, Ok _ -> CellStanding.BrokenOff holder
                  | None, Ok _ -> CellStanding.Missing ]

    /// The most memory that a cell will hold, in bytes: what finished cells of its stream were measured to hold, and a tenth more; where
    /// there is none, what the size of its stream tells.
    let memory (standings: (SweepCell * CellStanding) list) : SweepCell -> int64 =
        let measured =
            standings
            |> List.choose (fun (c, standing) ->
                match standing with
                | CellStanding.Finished r -> Some(c.Cell.Stream, r.Memory)
                | _ -> None)
            |> List.groupBy fst
            |> List.map (fun (stream, all) -> stream, all |> List.map snd |> List.max |> fun most -> most + most / 10L)
            |> Map.ofList

        fun c -> measured |> Map.tryFind c.Cell.Stream |> Option.defaultValue c.Memory

    /// Why a cell has no result, if it has none.
    let reason (standing: CellStanding) : string option =
        match standing with
        | CellStanding.Finished _ -> None
        | CellStanding.Failed message -> Some message
        | CellStanding.Running holder -> Some $"running: {holder.Text}"
        | CellStanding.BrokenOff holder when holder.Reason = "" -> Some $"broken off: {holder.Text}"
        | CellStanding.BrokenOff holder -> Some $"broken off: {holder.Text}: {holder.Reason}"
        | CellStanding.Damaged reason -> Some $"to be run again: {reason}"
        | CellStanding.Missing -> Some "not run"
