namespace Cmcl

open System
open System.IO
open System.Text.Json

/// A folder that a sweep runs in: `sweep.json`, the sweep; `cells.jsonl`, a line for each of its cells, so that a cell is found by
/// its hash without any data; and the cells' files.
[<RequireQualifiedAccess>]
module SweepFolder =
    let sweepFile (folder: string) : string = Path.Combine(folder, "sweep.json")
    let private cellsFile (folder: string) : string = Path.Combine(folder, "cells.jsonl")

    /// Is this the folder of a sweep?
    let is (folder: string) : bool = File.Exists(sweepFile folder) && File.Exists(cellsFile folder)

    /// JSON of which no value is missing or null.
    let private whole = JsonSerializerOptions(RespectRequiredConstructorParameters = true, RespectNullableAnnotations = true)

    /// The cells of a folder, which may have been moved since. Faults: `Missing`, `Unreadable`.
    let cells (folder: string) : Result<SweepCell list, Fault list> =
        let path = cellsFile folder
        let out = Path.GetFullPath folder

        let cell (line: string) =
            match JsonSerializer.Deserialize<SweepCell>(line, whole) with
            | null -> raise (JsonException "a line is empty")
            | c when c.Job.Hash <> Identity.hash c.Identity || c.Job.Given |> List.exists (fun pair -> pair.Length <> 2) ->
                raise (JsonException $"its hash is not '{Identity.hash c.Identity}', or its options are no pairs")
            | c ->
                // Read for what it says by name, so that it is known to be readable.
                Identity.fields c.Identity |> ignore
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
        [ for name, value in Identity.fields cell.Identity do
              if name.StartsWith "settings." then
                  name.Substring 9, value ]

    /// A cell that another sweep does not have, in words: how the cell of the same label differs, if there is one.
    let private stranger (others: SweepCell list) (c: SweepCell) : string =
        let name = $"{c.Cell.Stream}: {c.Cell.Method}, order {c.Cell.Order}, seed {c.Cell.Seed}"

        match others |> List.tryFind (fun o -> o.Cell = c.Cell) with
        | None -> name
        | Some other ->
            let differing =
                [ for name, there, now in Identity.differences c.Identity other.Identity -> $"{name} {there} there, {now} now" ]

            let list = String.Join("; ", differing)
            $"{name} ({list})"

    /// Is it a cell of these that other code or an earlier version has planned?
    let private isOfOtherCode (now: SweepCell list) (c: SweepCell) : bool =
        let code = Map.ofList (Identity.fields c.Identity) |> Map.tryFind "code"
        code <> Some Identity.code && now |> List.exists (fun n -> Identity.run n.Identity = Identity.run c.Identity)

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
            | gone when gone |> List.forall (isOfOtherCode now) ->
                Error [ Adoption.fault folder gone.Length "another folder (--out) begins anew" ]
            | gone ->
                let some = String.Join("; ", gone |> List.truncate 3 |> List.map (stranger now))

                Error
                    [ Fault.Contradiction(
                          $"'{folder}' is of another sweep: {gone.Length} of its {before.Length} cells are not in this one, such as {some}",
                          "choose another folder with --out, or keep those cells in the sweep"
                      ) ])

    /// Where every cell stands.
    let states (cells: SweepCell list) : (SweepCell * CellState<CellRecord>) list =
        [ for c in cells -> c, Store.state (Store.Folder c.Job.Out) c.Identity ]

    /// The most memory that a cell will hold, in bytes: what finished cells of its stream were measured to hold, and a tenth more; where
    /// there is none, what the size of its stream tells.
    let memory (states: (SweepCell * CellState<CellRecord>) list) : SweepCell -> int64 =
        let measured =
            states
            |> List.choose (fun (c, state) ->
                match state with
                | CellState.Finished r -> Some(c.Cell.Stream, r.Memory)
                | _ -> None)
            |> List.groupBy fst
            |> List.map (fun (stream, all) -> stream, all |> List.map snd |> List.max |> fun most -> most + most / 10L)
            |> Map.ofList

        fun c -> measured |> Map.tryFind c.Cell.Stream |> Option.defaultValue c.Memory

    /// Gives every cell that the folder lists the identity that this code gives it, with as many threads as given, else as before; see
    /// `Adoption.adopt`. Faults: those of `cells`, `Unwritable`.
    let takeOver (folder: string) (threads: int option) : Result<unit, Fault list> =
        cells folder
        |> Result.bind (fun all ->
            let lines =
                [ for c in all do
                      let threads = Option.defaultValue c.Job.Threads threads
                      let identity = Identity.taken threads None c.Identity

                      { c with
                          Identity = identity
                          Job =
                              { c.Job with
                                  Threads = threads
                                  Hash = Identity.hash identity } } ]

            Files.writeText (cellsFile folder) (fun w ->
                for c in lines do
                    w.WriteLine(JsonSerializer.Serialize c)))
