namespace Cmcl

open System
open System.IO
open System.Text.Json
open System.Threading

/// Who has a lock, or had it last.
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

    /// In words.
    member h.Text: string =
        let job = if String.IsNullOrEmpty h.Job then "" else $", Slurm job {h.Job}"
        $"process {h.Pid} on {h.Host}{job}, since {h.Since:``yyyy-MM-dd HH:mm:ss``}"

[<RequireQualifiedAccess>]
module Holder =
    /// This process, now.
    let self (reason: string) : Holder =
        let array = Environment.GetEnvironmentVariable "SLURM_ARRAY_JOB_ID"
        let task = Environment.GetEnvironmentVariable "SLURM_ARRAY_TASK_ID"

        { Host = Environment.MachineName
          Pid = Environment.ProcessId
          Since = DateTimeOffset.Now
          Job = if String.IsNullOrEmpty array then "" else $"{array}_{task}"
          Reason = reason }

    let write (path: string) (holder: Holder) : Result<unit, Fault list> =
        Files.writeWhole path (fun file -> JsonSerializer.Serialize(file, holder))

    /// None where there is no note that can be read.
    let read (path: string) : Holder option =
        try
            File.ReadAllText path |> JsonSerializer.Deserialize<Holder> |> Option.ofObj
        with
        | :? IOException
        | :? UnauthorizedAccessException
        | :? JsonException -> None

/// A file that one process has at a time. The system lets go of it when that process ends, whatever ends it, so that no lock outlives its
/// process.
[<RequireQualifiedAccess>]
module FileLock =
    /// That another process holds a lock: what Linux, macOS and Windows say.
    let private isHeld (e: IOException) : bool = List.contains e.HResult [ 11; 35; 0x80070020 ]

    let private opened (mode: FileMode) (access: FileAccess) (share: FileShare) (path: string) : FileStream option =
        try
            Some(new FileStream(path, mode, access, share))
        with :? IOException as e when isHeld e ->
            None

    /// Who looks whether a lock is held stands in the way for a moment.
    let private tries, pause = 5, TimeSpan.FromMilliseconds 10.0

    /// The file, locked until it is disposed; made if there is none. None: another has it.
    let take (path: string) : FileStream option =
        let once (i: int) =
            if i > 0 then
                Thread.Sleep pause

            opened FileMode.OpenOrCreate FileAccess.Write FileShare.None path

        Seq.init tries once |> Seq.tryPick id

    /// Is there a process that has it?
    let isTaken (path: string) : bool =
        try
            match opened FileMode.Open FileAccess.Read FileShare.Read path with
            | Some file ->
                file.Dispose()
                false
            | None -> true
        with
        | :? FileNotFoundException
        | :? DirectoryNotFoundException -> false

    /// Does a folder's file system keep locks? Some shared ones are mounted without.
    let keeps (folder: string) : bool =
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

/// A folder with results while this process writes to it: nobody else does.
type FolderLock private (folder: string, file: FileStream) =
    static let inFolder (folder: string) (kind: string) = Path.Combine(folder, $".cmcl.{kind}")

    let path, note = inFolder folder "lock", inFolder folder "holder"

    /// The file at the place of the lock's is the one that was locked, and not one that came after it was deleted.
    let isOurs () =
        try
            File.Exists path && File.GetLastWriteTimeUtc path = File.GetLastWriteTimeUtc file.SafeFileHandle
        with
        | :? IOException
        | :? UnauthorizedAccessException -> false

    member _.Folder: string = folder

    /// False once the folder was removed, or made anew by another.
    member _.IsOurs: bool = isOurs ()

    /// It was removed, and another process has made it anew: nothing may be written to it.
    member _.IsAnothers: bool = File.Exists path && not (isOurs ())

    /// What is to be said where it is not ours any more.
    member _.Gone: Fault =
        Fault.Unwritable(folder, "it was removed or replaced while results were written to it, so that some are missing")

    member private _.Release() : unit =
        if isOurs () then
            Files.writing folder (fun () ->
                File.Delete note
                File.Delete path)
            |> ignore

        file.Dispose()

    /// Makes the folder if there is none and locks it. Temporary files that killed processes left in it are deleted.
    static member private Take(folder: string) : Result<FolderLock, Fault list> =
        let path, note = inFolder folder "lock", inFolder folder "holder"

        let rec attempt (tries: int) =
            match FileLock.take path with
            | None ->
                let holder = Holder.read note |> Option.map _.Text |> Option.defaultValue "another process"
                Error [ Fault.Held(folder, holder) ]
            | Some file ->
                // A time of its own, which tells this file from any other that has its place later.
                file.WriteByte 0uy
                file.Flush()
                let lock = FolderLock(folder, file)

                // Whoever had it before may have deleted the file between our opening and our locking it.
                if lock.IsOurs then
                    Ok lock
                else
                    file.Dispose()

                    if tries > 0 then attempt (tries - 1) else Error [ Fault.Held(folder, "another process") ]

        Files.makeFolderOf path
        |> Result.bind (fun () -> Files.writing folder (fun () -> attempt 5))
        |> Result.bind id
        |> Result.bind (fun lock ->
            match Holder.write note (Holder.self "") |> Result.bind (fun () -> Files.deleteHalves folder) with
            | Ok() -> Ok lock
            | Error faults ->
                lock.Release()
                Error faults)

    /// Does the work as the only one who writes to the folder, which is made if there is none. Faults: `Held`, `Unwritable`.
    static member Taking (folder: string) (work: FolderLock -> 'a) : Result<'a, Fault list> =
        FolderLock.Take folder
        |> Result.map (fun lock ->
            try
                work lock
            finally
                lock.Release())

    /// `Taking` for work with faults of its own; it is `Unwritable`, too, where the folder was removed, or replaced by another, while it was done.
    static member Holding (folder: string) (work: FolderLock -> Result<'a, Fault list>) : Result<'a, Fault list> =
        FolderLock.Taking folder (fun lock ->
            match work lock with
            | result when lock.IsOurs -> result
            | Ok _ -> Error [ lock.Gone ]
            | Error faults -> Error(List.distinct (lock.Gone :: faults)))
        |> Result.bind id
