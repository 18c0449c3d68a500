/// What a scheduler or a person at the keyboard asks of a running command.
module Cmcl.Cli.Signals

open System
open System.Runtime.InteropServices

/// The exit code of a run that was left and waits to be resumed (EX_TEMPFAIL of sysexits.h).
[<Literal>]
let ResumeMe = 75

/// The exit code of a command that Ctrl-C ended, as shells have it.
[<Literal>]
let Stopped = 130

/// Listens for SIGTERM, SIGINT and, where there is one, SIGUSR1, until it is disposed. A second SIGINT ends the process where it is. A process
/// that does not belong to itself (`own` is false) lets SIGINT go by: a terminal sends it to every process, and it is the parent's to say
/// what it means.
type Leaving(own: bool) =
    let mutable asked = false

    let ask (context: PosixSignalContext) =
        context.Cancel <- true

        let interrupt = context.Signal = PosixSignal.SIGINT

        if asked && interrupt && own then
            exit Stopped

        if own || not interrupt then
            asked <- true

    /// .NET has no name for SIGUSR1; the system's own number of it stands for it.
    let userSignal =
        if OperatingSystem.IsLinux() then [ enum<PosixSignal> 10 ]
        elif OperatingSystem.IsMacOS() then [ enum<PosixSignal> 30 ]
        else []

    let registrations =
        [ for signal in [ PosixSignal.SIGTERM; PosixSignal.SIGINT ] @ userSignal -> PosixSignalRegistration.Create(signal, ask) ]

    /// Whether somebody asked to leave.
    member _.Asked: bool = asked

    interface IDisposable with
        member _.Dispose() =
            for registration in registrations do
                registration.Dispose()
