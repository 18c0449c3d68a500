/// What `cmcl notebook` does. A result is an exit code: 0, 1 where a cell did not end well, 2 for a user's mistake, 130 after Ctrl-C.
module Cmcl.Cli.NotebookCommand

open System
open System.Diagnostics
open System.IO
open Argu
open Cmcl
open Cmcl.Runner
open Cmcl.Runner.Execution
open Cmcl.Cli.NotebookArguments
open Cmcl.Cli.Commands

/// This program once more, to run the cells: what they break, it breaks alone. It stands in the notebook's folder, from where
/// relative paths of cells count.
let private cells (folder: string) (small: bool) : ProcessStartInfo =
    let all = SweepCommand.program () @ [ "notebook"; "cells" ]
    let info = ProcessStartInfo(all.Head, all.Tail, WorkingDirectory = folder)

    if small then
        info.Environment["CMCL_SMALL"] <- "1"

    info

let private limit (seconds: float option) : Result<TimeSpan option, Fault list> =
    match seconds with
    | None -> Ok None
    | Some s when s > 0.0 && s <= TimeSpan.MaxValue.TotalSeconds / 2.0 -> Ok(Some(TimeSpan.FromSeconds s))
    | Some s -> Error [ Fault.BadValue("--timeout", "a number of seconds above 0", string s) ]

let private tell (r: CellReport) : unit =
    let word = if r.End = CellEnd.Fine then "ok" else "failed"
    printfn "cell %d of %d: %s, %.2f s" r.Number r.Of word r.Seconds

let private run (arguments: ParseResults<RunNotebookArgument>) : int =
    let file = arguments.GetResult RunNotebookArgument.File
    let out = arguments.GetResult(RunNotebookArgument.Out, file)
    let quiet = arguments.Contains RunNotebookArgument.Quiet
    use leaving = new Signals.Leaving true

    let result =
        validated {
            let! () = checkGiven arguments None None None None
            and! limit = limit (arguments.TryGetResult RunNotebookArgument.Timeout)
            and! notebook = Nbformat.read file |> Result.bind (fun n -> Nbformat.inFSharp file n |> Result.map (fun () -> n))
            return limit, notebook
        }
        |> Result.bind (fun (limit, notebook) ->
            let folder = Path.GetDirectoryName(Path.GetFullPath file) |> Option.ofObj |> Option.defaultValue "."
            let start = cells folder (arguments.Contains RunNotebookArgument.Small)
            Execution.run start limit (fun () -> leaving.Asked) (if quiet then ignore else tell) (Path.GetFullPath out) notebook)

    match result with
    | Error faults -> refuse faults
    | Ok(Some last) when last.End = CellEnd.Stopped ->
        eprintfn "cmcl: stopped on request in cell %d of %d; %s has what ran before" last.Number last.Of out
        Signals.Stopped
    | Ok(Some last) when last.End <> CellEnd.Fine ->
        eprintfn "cmcl: %s, cell %d of %d: %s" (Path.GetFileName file) last.Number last.Of last.End.Message
        1
    | Ok _ ->
        if not quiet then
            printfn "%s" (Path.GetFullPath out)

        0

let private strip (arguments: ParseResults<StripNotebookArgument>) : int =
    let file = arguments.GetResult StripNotebookArgument.File
    let out = arguments.GetResult(StripNotebookArgument.Out, file)

    Nbformat.read file
    |> Result.bind (fun notebook ->
        Nbformat.strip notebook
        Nbformat.write out notebook)
    |> function
        | Error faults -> refuse faults
        | Ok() -> 0

let notebook (arguments: ParseResults<NotebookArgument>) : int =
    match arguments.GetSubCommand() with
    | NotebookArgument.Run arguments -> run arguments
    | NotebookArgument.Strip arguments -> strip arguments
    | NotebookArgument.Cells -> Session.serve ()
