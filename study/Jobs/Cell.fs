namespace Cmcl

open System
open System.Diagnostics
open System.IO

/// A cell of a study: a method with a seed on a stream whose steps stand in one order.
type Cell =
    {
        Stream: string
        /// The method's label, such as `dns` or `vanilla[lr=1e-3]`.
        Method: string
        /// 0 for the stream's own order of steps.
        Order: int
        Seed: int
    }

    /// As messages name it: `dns (seed 0)`, `dns (seed 0, order 2)`.
    member c.Name: string =
        let order = if c.Order = 0 then "" else $", order {c.Order}"
        $"{c.Method} (seed {c.Seed}{order})"

/// What a finished run of a cell leaves.
type CellResult = { Outcome: Outcome; Monitor: MonitorMeasurement list }

/// A finished cell.
type CellRecord =
    {
        /// What it leaves; or why it diverged.
        Result: Result<CellResult, string>
        Seconds: float
        /// The most memory that its process held, in bytes.
        Memory: int64
    }

/// What is known of a cell; what a finished one gives, as far as it is asked for.
[<RequireQualifiedAccess>]
type CellState<'result> =
    | Missing
    | Running of Holder
    /// It was begun, and has no result that can be read: why.
    | Interrupted of reason: string
    | Finished of 'result
    /// It diverged, and would again.
    | Failed of message: string

[<RequireQualifiedAccess>]
module CellState =
    let map (f: 'a -> 'b) (state: CellState<'a>) : CellState<'b> =
        match state with
        | CellState.Missing -> CellState.Missing
        | CellState.Running holder -> CellState.Running holder
        | CellState.Interrupted reason -> CellState.Interrupted reason
        | CellState.Finished result -> CellState.Finished(f result)
        | CellState.Failed message -> CellState.Failed message

    let ofRecord (record: CellRecord) : CellState<CellRecord> =
        match record.Result with
        | Ok _ -> CellState.Finished record
        | Error message -> CellState.Failed message

    /// In a word or two, as tables have it.
    let word (state: CellState<'result>) : string =
        match state with
        | CellState.Missing -> "missing"
        | CellState.Running _ -> "running"
        | CellState.Interrupted _ -> "broken off"
        | CellState.Finished _ -> "finished"
        | CellState.Failed _ -> "failed"

    /// Why a cell has no result, if it has none.
    let reason (state: CellState<'result>) : string option =
        match state with
        | CellState.Finished _ -> None
        | CellState.Failed message -> Some message
        | CellState.Running holder -> Some $"running: {holder.Text}"
        | CellState.Interrupted reason -> Some $"broken off: {reason}"
        | CellState.Missing -> Some "not run"

/// The most memory that this process has held.
[<RequireQualifiedAccess>]
module internal PeakMemory =
    /// In bytes; on Linux since `restart`.
    let read () : int64 =
        let status = "/proc/self/status"

        let told = if File.Exists status then File.ReadLines status |> Seq.tryFind _.StartsWith("VmHWM:") else None

        match told with
        | Some line -> 1024L * int64 (line.Replace("VmHWM:", "").Replace("kB", "").Trim())
        | None -> Process.GetCurrentProcess().PeakWorkingSet64

    /// Lets the peak start at what is held now, where the system can.
    let restart () : unit =
        try
            if OperatingSystem.IsLinux() then
                File.WriteAllText("/proc/self/clear_refs", "5")
        with
        | :? IOException
        | :? UnauthorizedAccessException -> ()
