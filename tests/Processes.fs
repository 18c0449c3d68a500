/// The command as a process of its own.
module Cmcl.Tests.Processes

open System
open System.Collections.Concurrent
open System.Diagnostics
open System.IO

/// A process, its output caught.
type Command = { Process: Process; Said: ConcurrentQueue<string> }

let start (program: string) (arguments: string list) : Command =
    let info =
        ProcessStartInfo(program, arguments, RedirectStandardOutput = true, RedirectStandardError = true, UseShellExecute = false)

    let p = Process.Start info |> nonNull
    let said = ConcurrentQueue()

    let hear (e: DataReceivedEventArgs) =
        match e.Data with
        | null -> ()
        | line -> said.Enqueue line

    p.OutputDataReceived.Add hear
    p.ErrorDataReceived.Add hear
    p.BeginOutputReadLine()
    p.BeginErrorReadLine()
    { Process = p; Said = said }

let private dll = Path.Combine(AppContext.BaseDirectory, "Cmcl.Cli.dll")

let cmcl (arguments: string list) : Command = start "dotnet" (dll :: arguments)

/// Exit code and everything said.
let finish (c: Command) : int * string =
    c.Process.WaitForExit()
    let said = String.Join("\n", c.Said)
    let code = c.Process.ExitCode
    c.Process.Dispose()
    code, said

/// Sends a signal by its name, such as `KILL`.
let signal (name: string) (c: Command) : unit =
    use p = Process.Start("kill", [ "-" + name; string c.Process.Id ])
    p.WaitForExit()
