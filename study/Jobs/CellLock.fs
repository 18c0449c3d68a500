namespace Cmcl

open System
open System.IO

/// A cell is run by the process that holds `cells/HASH.lock`. Beside it `cells/HASH.worker` says who that is; both go when the cell is
/// finished.
[<RequireQualifiedAccess>]
module CellLock =
    let private beside (out: string) (hash: string) (kind: string) : string = Path.Combine(out, "cells", $"{hash}.{kind}")

    let private note (out: string) (hash: string) (reason: string) : Result<unit, Fault list> =
        Holder.write (beside out hash "worker") (Holder.self reason)

    /// What the last who took the cell left, if it is not finished.
    let last (out: string) (hash: string) : Holder option = Holder.read (beside out hash "worker")

    /// Is there a process that has the cell?
    let isTaken (out: string) (hash: string) : bool = FileLock.isTaken (beside out hash "lock")

    /// Runs `work` as the only one who has the cell. What was left half written of it is deleted first; the lock and the note, where one can be
    /// written, go when the work has no fault, and else the note keeps its reason. Ok None: another process has the cell.
    /// Fault: `Unwritable`, before the work.
    let holding
        (out: string)
        (hash: string)
        (work: unit -> Result<'a, Fault list>)
        : Result<Result<'a, Fault list> option, Fault list> =
        let path = beside out hash "lock"
        let folder = Path.Combine(out, "cells")

        let begun () =
            // Only one that was left in its midst has left halves: looking for them takes the longer the more cells there are.
            if (last out hash).IsSome then
                Files.writing folder (fun () ->
                    for half in Directory.GetFiles(folder, $".{hash}.*") do
                        File.Delete half)
                |> ignore

            note out hash "" |> ignore

        let finish (result: Result<'a, Fault list>) =
            match result with
            // Who opened the file before it was deleted gets a lock that nobody else asks for; he finds the cell finished.
            | Ok _ ->
                Files.writing path (fun () ->
                    File.Delete(beside out hash "worker")
                    File.Delete path)
            | Error faults -> note out hash (Fault.Several faults).Message
            |> ignore

        Files.writing folder (fun () ->
            Directory.CreateDirectory folder |> ignore
            FileLock.take path)
        |> Result.bind (fun taken ->
            match taken with
            | None -> Ok None
            | Some file ->
                use _ = file
                begun ()
                let result = Check.guarded $"cell {hash}" work
                finish result
                Ok(Some result))

    /// Does the folder's file system keep locks? Else two processes could run one cell.
    let keeps (out: string) : bool =
        let folder = Path.Combine(out, "cells")
        Directory.CreateDirectory folder |> ignore

        // Probes of processes that were killed in the midst of one.
        for probe in Directory.GetFiles(folder, ".lock.*") do
            if not (FileLock.isTaken probe) then
                File.Delete probe

        FileLock.keeps folder
