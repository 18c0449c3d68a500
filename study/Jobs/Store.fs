namespace Cmcl

open System.Collections.Concurrent
open System.IO
open TorchSharp

/// What is known of cells by their identities, the same for every way to run something.
[<RequireQualifiedAccess>]
type Store =
    /// `OUT/cells`: `HASH.json`, a finished cell; `HASH`, the checkpoints of one under way; `HASH.lock` and `HASH.worker`, who runs it.
    | Folder of out: string
    /// This process's memory, by identity: finished cells alone.
    | Memory of ConcurrentDictionary<string, CellRecord>

[<RequireQualifiedAccess>]
module Store =
    let memory () : Store = Store.Memory(ConcurrentDictionary())

    /// The folder of a cell's checkpoints.
    let checkpointFolder (out: string) (identity: string) : string = Path.Combine(CellFile.folder out, Identity.hash identity)

    let checkpoints (store: Store) (identity: string) (device: torch.Device) (keep: int) : CheckpointFolder option =
        match store with
        | Store.Folder out -> Some(CheckpointFolder.Of(CellFile.folder out, identity, device, keep))
        | Store.Memory _ -> None

    /// A finished cell; None if it is not finished. Fault: `Unreadable`, for a file that does not hold: such a cell is run again.
    let find (store: Store) (identity: string) : Result<CellRecord option, Fault list> =
        match store with
        | Store.Folder out -> CellFile.check out identity
        | Store.Memory cells ->
            match cells.TryGetValue identity with
            | true, record -> Ok(Some record)
            | _ -> Ok None

    /// A cell has finished; its checkpoints are deleted. Fault: `Unwritable`.
    let finish (store: Store) (cell: StoredCell) : Result<unit, Fault list> =
        match store with
        | Store.Folder out ->
            CellFile.write out cell |> Result.bind (fun () -> CheckpointFolder.Forget(checkpointFolder out cell.Identity))
        | Store.Memory cells ->
            cells[cell.Identity] <- cell.Record
            Ok()

    /// Does the work as the only one who has the cell; `CellLock.holding`.
    let holding (store: Store) (identity: string) (work: unit -> Result<'a, Fault list>) =
        match store with
        | Store.Folder out -> CellLock.holding out (Identity.hash identity) work
        | Store.Memory _ -> Ok(Some(work ()))

    /// Does a process have the cell?
    let isTaken (store: Store) (identity: string) : bool =
        match store with
        | Store.Folder out -> CellLock.isTaken out (Identity.hash identity)
        | Store.Memory _ -> false

    /// Where a cell stands.
    let state (store: Store) (identity: string) : CellState<CellRecord> =
        match store, find store identity with
        | _, Ok(Some record) -> CellState.ofRecord record
        | Store.Memory _, _ -> CellState.Missing
        | Store.Folder out, unfinished ->
            let hash = Identity.hash identity

            match CellLock.last out hash, unfinished with
            | Some holder, _ when CellLock.isTaken out hash -> CellState.Running holder
            | _, Error faults -> CellState.Interrupted (Fault.Several faults).Message
            | Some holder, Ok _ ->
                CellState.Interrupted(if holder.Reason = "" then holder.Text else $"{holder.Text}: {holder.Reason}")
            | None, Ok _ when Directory.Exists(checkpointFolder out identity) -> CellState.Interrupted "it was asked to stop"
            | None, Ok _ -> CellState.Missing

    /// Deletes what there is of cells, so that they are run again. Faults: `Held` where another process runs one of them, `Unwritable`.
    let forget (store: Store) (identities: string list) : Result<unit, Fault list> =
        match store with
        | Store.Memory cells ->
            for identity in identities do
                cells.TryRemove identity |> ignore

            Ok()
        | Store.Folder out ->
            match identities |> List.tryFind (isTaken store) with
            | Some identity ->
                let holder = CellLock.last out (Identity.hash identity)
                Error [ Fault.Held(out, holder |> Option.map _.Text |> Option.defaultValue "another process") ]
            | None ->
                [ for identity in identities do
                      Files.writing out (fun () ->
                          if Directory.Exists(CellFile.folder out) then
                              File.Delete(CellFile.path out identity))

                      CheckpointFolder.Forget(checkpointFolder out identity) ]
                |> Check.all
                |> Result.map ignore
