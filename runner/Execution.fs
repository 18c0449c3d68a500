/// Runs the cells of a notebook in order, in a process of their own, and writes the notebook after each of them.
module Cmcl.Runner.Execution

open System
open System.Collections.Concurrent
open System.Diagnostics
open System.Text
open System.Text.Json.Nodes
open Cmcl

/// How a cell ended.
[<RequireQualifiedAccess>]
type CellEnd =
    | Fine
    | Failed of message: string
    /// The process that ran it is gone, with this exit code.
    | Died of exitCode: int
    | TooLong of TimeSpan
    /// Somebody asked to stop.
    | Stopped

    /// In words, where it did not go well.
    member this.Message: string =
        match this with
        | Fine -> ""
        | Failed message -> message
        | Died code when code > 128 && code < 160 && not (OperatingSystem.IsWindows()) ->
            $"the cell ended its process (signal {code - 128}, exit code {code})"
        | Died code -> $"the cell ended its process (exit code {code})"
        | TooLong limit -> $"the cell took longer than {limit.TotalSeconds} s"
        | Stopped -> "stopped on request"

/// What became of a cell: its number from 1, of how many, how long it took.
type CellReport = { Number: int; Of: int; End: CellEnd; Seconds: float }

/// The process of the cells, with what it says.
type private Kernel(info: ProcessStartInfo) =
    let said = new BlockingCollection<string>()
    let p = Process.Start info |> Option.ofObj |> Option.get

    do
        p.OutputDataReceived.Add(fun e ->
            match e.Data with
            | null -> ()
            | line -> said.Add line)

        p.BeginOutputReadLine()

    /// The next line, if one comes within a tenth of a second.
    member _.Hear() : string option =
        let mutable line = ""
        if said.TryTake(&line, 100) then Some line else None

    member _.Ask(line: string) : unit =
        try
            p.StandardInput.Write(line + "\n")
            p.StandardInput.Flush()
        with :? IO.IOException ->
            ()

    member _.Gone: int option = if p.HasExited then Some p.ExitCode else None

    interface IDisposable with
        member _.Dispose() =
            if not p.HasExited then
                try
                    p.Kill true
                with :? InvalidOperationException ->
                    ()

            p.Dispose()

/// Hears what the process says until it is done, gone, late or to be stopped: outputs in order, and which it was.
let private hear (kernel: Kernel) (limit: TimeSpan option) (asked: unit -> bool) : JsonObject list * CellEnd =
    let clock = Stopwatch.StartNew()

    let rec listen (outputs: JsonObject list) (gone: int option) =
        let overdue = limit |> Option.filter (fun limit -> clock.Elapsed > limit)

        match kernel.Hear(), overdue, gone with
        | Some line, _, _ ->
            let noise, answer = Wire.readAnswer line

            if noise <> "" then
                eprintfn "%s" noise

            match answer with
            | Some(Wire.Output o) -> listen (o :: outputs) gone
            | Some(Wire.Done None) -> outputs, CellEnd.Fine
            | Some(Wire.Done(Some why)) -> outputs, CellEnd.Failed why
            | None -> listen outputs gone
        | None, _, Some code -> outputs, CellEnd.Died code
        | None, _, None when asked () -> outputs, CellEnd.Stopped
        | None, Some limit, None -> outputs, CellEnd.TooLong limit
        | None, None, None -> listen outputs kernel.Gone

    let outputs, ending = listen [] None
    List.rev outputs, ending

/// Outputs as they are stored, with why a cell ended if it could not say so itself.
let private stored (outputs: JsonObject list) (ending: CellEnd) : JsonArray =
    let complaint name = [ Nbformat.error name ending.Message [ ending.Message ] ]

    outputs
    @ match ending with
      | CellEnd.Fine
      | CellEnd.Failed _ -> []
      | CellEnd.Died _ -> complaint "ProcessEnded"
      | CellEnd.TooLong _ -> complaint "Timeout"
      | CellEnd.Stopped -> complaint "Stopped"
    |> Nbformat.joined

/// Runs every code cell up to the first that does not end well, writing the notebook to `file` after each. `start` says how to start a
/// process that calls `Session.serve`, `limit` how long one cell may take, `asked` whether to stop, `tell` hears of every cell.
/// What the last cell that ran came to; nothing, where there are no cells.
let run
    (start: ProcessStartInfo)
    (limit: TimeSpan option)
    (asked: unit -> bool)
    (tell: CellReport -> unit)
    (file: string)
    (notebook: JsonObject)
    : Result<CellReport option, Fault list> =
    start.RedirectStandardInput <- true
    start.RedirectStandardOutput <- true
    start.StandardInputEncoding <- UTF8Encoding false
    start.StandardOutputEncoding <- UTF8Encoding false
    start.UseShellExecute <- false
    let cells = Nbformat.codeCells notebook
    Nbformat.strip notebook
    use kernel = new Kernel(start)
    // Before the first cell it says that the session stands; no cell's time is spent on that.
    let ready = hear kernel None asked

    let rec go last cells =
        match cells with
        | [] -> Ok last
        | (number, cell: JsonObject) :: rest ->
            let clock = Stopwatch.StartNew()

            let outputs, ending =
                match ready with
                | _, CellEnd.Fine ->
                    kernel.Ask(Wire.request { Number = number; Source = Nbformat.source cell })
                    hear kernel limit asked
                | notReady -> notReady

            cell["execution_count"] <- JsonValue.Create number
            cell["outputs"] <- stored outputs ending

            let report =
                { Number = number
                  Of = number + rest.Length
                  End = ending
                  Seconds = clock.Elapsed.TotalSeconds }

            Nbformat.write file notebook
            |> Result.bind (fun () ->
                tell report

                match ending with
                | CellEnd.Fine -> go (Some report) rest
                | _ -> Ok(Some report))

    cells |> List.indexed |> List.map (fun (i, c) -> i + 1, c) |> go None
