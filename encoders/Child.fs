namespace Cmcl.Encoders

open System
open System.ComponentModel
open System.Diagnostics
open System.IO
open System.Threading

/// How a program ended that was run beside.
[<RequireQualifiedAccess>]
type internal ChildEnd =
    | NotInstalled
    /// It was ended, since it took longer than it may.
    | TooLong
    /// Its exit code, what it wrote on standard output, and on standard error.
    | Ended of code: int * output: byte[] * errors: string

/// Programs of others: run in a process of their own, without standard input, for so long and no longer.
[<RequireQualifiedAccess>]
module internal Child =
    /// Runs a program in a folder with these arguments and additions to its environment.
    let run
        (patience: TimeSpan)
        (folder: string)
        (environment: (string * string) list)
        (program: string)
        (arguments: string list)
        : ChildEnd =
        let info = ProcessStartInfo(program, arguments)
        info.WorkingDirectory <- folder
        info.RedirectStandardInput <- true
        info.RedirectStandardOutput <- true
        info.RedirectStandardError <- true

        for name, value in environment do
            info.Environment[name] <- value

        let started =
            try
                Process.Start info |> Option.ofObj
            with :? Win32Exception ->
                None

        match started with
        | None -> ChildEnd.NotInstalled
        | Some started ->
            use ran = started
            use clock = new CancellationTokenSource(patience)
            use _ = clock.Token.Register(fun () -> ran.Kill true)
            ran.StandardInput.Close()
            let errors = ran.StandardError.ReadToEndAsync()
            use output = new MemoryStream()
            ran.StandardOutput.BaseStream.CopyTo output
            ran.WaitForExit()

            if clock.IsCancellationRequested then
                ChildEnd.TooLong
            else
                ChildEnd.Ended(ran.ExitCode, output.ToArray(), errors.Result)
