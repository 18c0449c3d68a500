namespace Cmcl

open System
open System.Collections.Generic
open System.IO

/// What a folder has of a study's cells.
[<RequireQualifiedAccess>]
module StudyFolder =
    /// What is finished of every cell; none of a file that does not hold.
    let records (out: string) (cells: Job list) : (Job * CellRecord option) list =
        [ for job in cells -> job, CellFile.read out (Job.identity job) ]

    /// The files of cells that cannot be read or were changed, so that these cells are run again.
    let damaged (out: string) (cells: Job list) : Fault list =
        [ for identity in cells |> List.map Job.identity |> List.distinct do
              match CellFile.check out identity with
              | Ok _ -> ()
              | Error faults -> yield! faults ]

    /// Makes sure that a comparison or a sweep can go to the folder, and with `force` deletes what it has of these cells. Faults: a folder with results
    /// of another command, one that cannot be written to, or where no lock keeps two processes from one cell; with `force` one where
    /// another process runs any of them.
    let prepare (force: bool) (out: string) (cells: Job list) : Result<unit, Fault list> =
        let has name = File.Exists(Path.Combine(out, name))

        try
            if
                not (Directory.Exists(CellFile.folder out))
                && List.exists has [ "results.csv"; "config.json"; "verify.csv"; "bench.csv" ]
            then
                Error [ Fault.Contradiction($"'{out}' holds results of another command", "choose another folder with --out") ]
            elif not (CellLock.keeps out) then
                Error
                    [ Fault.Contradiction(
                          $"the file system of '{out}' keeps no locks, so that two workers could run one cell",
                          "choose a folder on another with --out"
                      ) ]
            elif force then
                Store.forget (Store.Folder out) (List.map Job.identity cells)
            else
                Ok()
        with
        | :? IOException
        | :? UnauthorizedAccessException as e -> Error [ Fault.Unwritable(out, e.Message) ]

    /// Runs every cell whose result the folder does not have yet, as `Engine.run`, with checkpoints every half minute. Cells that ended without a
    /// result are given back with the reason.
    let run
        (engine: Engine)
        (out: string)
        (stop: unit -> bool)
        (tell: StudyEvent -> unit)
        (jobs: Job[])
        : Result<(Cell * string) list, Fault list> =
        let broken = ResizeArray()
        let begun = HashSet<Cell>()
        let mutable unwritten = false

        let note event =
            match event with
            | StudyEvent.Cell(cell, CellEvent.Started) -> begun.Add cell |> ignore
            | _ -> ()

            tell event

        let ended place (how: CellEnd) _ : Fault list =
            match how with
            | CellEnd.Broken faults
            | CellEnd.Unwritten faults -> broken.Add(jobs[place].Cell, (Fault.Several faults).Message)
            | _ -> ()

            match how with
            | CellEnd.Unwritten faults ->
                unwritten <- true
                faults
            | _ -> []

        let settings =
            { JobSettings.on (Store.Folder out) with
                Checkpointing = Checkpointing.auto }

        Engine.run engine settings stop note ended jobs
        |> Result.map (fun () ->
            if unwritten then
                tell (StudyEvent.Stopped(jobs.Length - begun.Count))

            List.ofSeq broken)
