/// The top of the command: what becomes of an exception that nobody has caught, in whatever thread, and of an output that takes no more.
module Cmcl.Cli.Top

open System
open System.IO
open System.Runtime.InteropServices
open System.Text
open Cmcl

/// The exit code after an exception that nobody expected (EX_SOFTWARE of sysexits.h).
[<Literal>]
let Broken = 70

/// Standard output, of which a failure is a fault. One that was closed at the other end is no failure: .NET lets it go by, as `head` wants it.
type private Output(console: IO.Stream) =
    inherit IO.Stream()

    let guarded (act: unit -> unit) =
        try
            act ()
        with
        | :? IOException
        | :? UnauthorizedAccessException
        | :? ObjectDisposedException as e -> Check.fail (Fault.Unwritable("standard output", e.Message))

    override _.CanRead = false
    override _.CanSeek = false
    override _.CanWrite = true
    override _.Length = raise (NotSupportedException())

    override _.Position
        with get () = raise (NotSupportedException())
        and set _ = raise (NotSupportedException())

    override _.Read(_: byte[], _: int, _: int) : int = raise (NotSupportedException())
    override _.Seek(_, _) = raise (NotSupportedException())
    override _.SetLength _ = raise (NotSupportedException())
    override _.Flush() = guarded console.Flush
    override _.Write(bytes: byte[], offset: int, count: int) : unit = guarded (fun () -> console.Write(bytes, offset, count))

/// Writes what a maintainer needs into a file of the temporary folder, or else of this one: its path.
let private record (e: exn) : string option =
    let lines =
        [ $"cmcl {Record.cmclVersion}, .NET {Environment.Version}, {RuntimeInformation.OSDescription}"
          $"{DateTimeOffset.Now:O}"
          Environment.CommandLine
          ""
          string e ]

    let write (folder: unit -> string) =
        try
            let path = Path.Combine(folder (), $"cmcl-error-{Guid.NewGuid():N}.txt")
            File.WriteAllText(path, String.Join("\n", lines) + "\n")
            Some path
        with _ ->
            None

    List.tryPick write [ Path.GetTempPath; Directory.GetCurrentDirectory ]

/// Tells a person what ended the command: the exit code.
let ended (e: exn) : int =
    try
        match Check.cause e with
        | CmclException fault -> Commands.refuse [ fault ]
        | cause ->
            let line = cause.Message.Split('\n')[0]

            let where =
                match record e with
                | Some path -> $"its trace is in '{path}'"
                | None -> "its trace could be written nowhere"

            eprintfn
                "cmcl: something went wrong that cmcl does not know: %s (%s); %s."
                (Names.visible (line.Trim().TrimEnd '.'))
                (cause.GetType().Name)
                where

            Broken
    with _ ->
        // There is nowhere to tell it.
        Broken

/// From here on no exception of this process gets to the terminal as a trace, and what standard output does not take is a fault.
let own () : unit =
    AppDomain.CurrentDomain.UnhandledException.Add(fun unhandled ->
        match unhandled.ExceptionObject with
        | :? exn as e -> exit (ended e)
        | _ -> exit Broken)

    Console.OutputEncoding <- Encoding.UTF8
    let writer = new StreamWriter(new Output(Console.OpenStandardOutput()), UTF8Encoding false)
    writer.AutoFlush <- true
    Console.SetOut writer
