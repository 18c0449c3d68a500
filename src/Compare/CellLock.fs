namespace Cmcl

open System
open System.IO
open System.Text.Json
open System.Threading

/// Who runs a cell, or ran it last and left no result.
type Holder =
    {
        Host: string
        Pid: int
        Since: DateTimeOffset
        /// The Slurm job and its task, where there is one.
        Job: string
        /// Why it ended without a result, where it could still say so.
        Reason: string
    }

/// A cell is run by the process that holds `cells/HASH.lock`. The system lets go of it when that process ends, whatever ends it, so that
/// no lock outlives its worker. Beside it `cells/HASH.worker` says who that is; both go when the cell is finished.
[<RequireQualifiedAccess>]
module CellLock =
    let private beside (out: string) (hash: string) (kind: string) : string = Path.Combine(out, "cells", $"{hash}.{kind}")

    /// That another process holds a lock: what Linux, macOS and Windows say.
    let private isHeld (e: IOException) : bool = List.contains e.HResult [ 11; 35; 0x80070020 ]

    let private opened (mode: FileMode) (access: FileAccess) (share: FileShare) (path: string) : FileStream option =
        try
            Some(new FileStream(path, mode, access, share))
        with :? IOException as e when isHeld e ->
            None

    /// Who looks whether a lock is held stands in the way for a moment.
    let private tries, pause = 5, TimeSpan.FromMilliseconds 10.0

    let private note (out: string) (hash: string) (reason: string) : unit =
        let array = Environment.GetEnvironmentVariable "SLURM_ARRAY_JOB_ID"
        let task = Environment.GetEnvironmentVariable "SLURM_ARRAY_TASK_ID"

        let holder =
            { Host = Environment.MachineName
              Pid = Environment.ProcessId
              Since = DateTimeOffset.Now
              Job = if String.IsNullOrEmpty array then "" else $"{array}_{task}"
              Reason = reason }

        Files.writeWhole (beside out hash "worker") (fun file -> JsonSerializer.Serialize(file, holder)) |> Check.get

    /// What the last who took the cell left, if it is not finished.
    let last (out: string) (hash: string) : Holder option =
        try
            File.ReadAllText(beside out hash "worker") |> JsonSerializer.Deserialize<Holder> |> Option.ofObj
        with
        | :? IOException
        | :? UnauthorizedAccessException
        | :? JsonException -> None

    /// Is there a process that has the cell?
    let isTaken (out: string) (hash: string) : bool =
        let path = beside out hash "lock"

        try
            match opened FileMode.Open FileAccess.Read FileShare.Read path with
            | Some file ->
                file.Dispose()
                false
            | None -> true
        with
        | :? FileNotFoundException
        | :? DirectoryNotFoundException -> false

    /// Runs `work` as the only one who has the cell. What was left half written of it is deleted first; the lock and the note go when
    /// the work says that the cell is finished, and else the note keeps its reason. None: another process has the cell.
    let holding (out: string) (hash: string) (work: unit -> Result<'a, string>) : Result<'a, string> option =
        let path = beside out hash "lock"
        let folder = Path.Combine(out, "cells")
        Directory.CreateDirectory folder |> ignore

        let take (i: int) =
            if i > 0 then
                Thread.Sleep pause

            opened FileMode.OpenOrCreate FileAccess.Write FileShare.None path

        match Seq.init tries take |> Seq.tryPick id with
        | None -> None
        | Some file ->
            use _ = file
            note out hash ""

            for half in Directory.GetFiles(folder, $".{hash}.json.*") do
                File.Delete half

            let result =
                try
                    work ()
                with e ->
                    Error e.Message

            match result with
            // Who opened the file before it was deleted gets a lock that nobody else asks for; he finds the cell finished.
            | Ok _ ->
                File.Delete(beside out hash "worker")
                File.Delete path
            | Error reason -> note out hash reason

            Some result

    /// Does the folder's file system keep locks? Some shared ones are mounted without: then two could run one cell.
    let keeps (out: string) : bool =
        let folder = Path.Combine(out, "cells")
        Directory.CreateDirectory folder |> ignore
        let path = Path.Combine(folder, $".lock.{Guid.NewGuid():N}")

        try
            use _ = new FileStream(path, FileMode.CreateNew, FileAccess.Write, FileShare.None)

            match opened FileMode.Open FileAccess.Write FileShare.None path with
            | Some second ->
                second.Dispose()
                false
            | None -> true
        finally
            File.Delete path
