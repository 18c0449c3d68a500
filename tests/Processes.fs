/// The command as processes of their own, and what becomes of them.
module Cmcl.Tests.Processes

open System
open System.Collections.Concurrent
open System.Diagnostics
open System.IO
open System.Threading
open Cmcl
open Expecto
open TorchSharp

/// A test in a folder of its own.
let inFolder (body: string -> unit) () =
    use scope = torch.NewDisposeScope()
    let folder = Directory.CreateTempSubdirectory "cmcl-sweep"

    try
        body folder.FullName
    finally
        folder.Delete true

/// The command as a process of its own, its output caught.
type Command = { Process: Process; Said: ConcurrentQueue<string> }

let start (program: string) (arguments: string list) : Command =
    let info =
        ProcessStartInfo(program, arguments, RedirectStandardOutput = true, RedirectStandardError = true, UseShellExecute = false)

    let p = Process.Start info |> Option.ofObj |> Option.get
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
let cmcl arguments = start "dotnet" (dll :: arguments)

/// Exit code and everything said.
let finish (c: Command) : int * string =
    c.Process.WaitForExit()
    let said = String.Join("\n", c.Said)
    let code = c.Process.ExitCode
    c.Process.Dispose()
    code, said

let until (what: string) (condition: unit -> bool) : unit =
    if
        not (
            SpinWait.SpinUntil(
                (fun () ->
                    Thread.Sleep 5
                    condition ()),
                TimeSpan.FromSeconds 60.0
            )
        )
    then
        failtest $"waited in vain until {what}"

/// A process's state and parent, if it is still there.
let private status (pid: int) : (char * int) option =
    try
        let text = File.ReadAllText $"/proc/{pid}/stat"
        let fields = text.Substring(text.LastIndexOf ')' + 2).Split ' '
        Some(fields[0][0], int fields[1])
    with
    | :? IOException
    | :? UnauthorizedAccessException -> None

let alive (pid: int) = status pid |> Option.exists (fun (state, _) -> state <> 'Z')

let children (pid: int) : int list =
    [ for folder in Directory.GetDirectories "/proc" do
          match Int32.TryParse(Path.GetFileName folder) with
          | true, child when status child |> Option.exists (fun (_, parent) -> parent = pid) -> child
          | _ -> () ]

/// SIGKILL, if the process is still there.
let kill (pid: int) : unit =
    try
        Process.GetProcessById(pid).Kill()
    with :? ArgumentException ->
        ()

let cellFiles (folder: string) =
    if Directory.Exists(CellFile.folder folder) then
        Directory.GetFiles(CellFile.folder folder, "*.json") |> Array.sort
    else
        [||]

/// What the cells of a folder hold, by file: its state and figures, times aside, and its curves.
let results (folder: string) : Map<string, string list> =
    let lines (path: string) =
        use document = Text.Json.JsonDocument.Parse(File.ReadAllText path)
        let body = document.RootElement.GetProperty "body"

        [ for p in body.EnumerateObject() do
              if p.Name = "readings" then
                  for r in p.Value.EnumerateArray() do
                      if not ((r[2].GetString() |> nonNull).StartsWith "seconds_") then
                          r.GetRawText()
              elif List.contains p.Name [ "identity"; "state"; "losses"; "spectra"; "monitor" ] then
                  p.Value.GetRawText() ]

    Map [ for path in cellFiles folder -> string (Path.GetFileName path), lines path ]

let onLinux (body: string -> unit) =
    inFolder (fun folder ->
        if not (OperatingSystem.IsLinux()) then
            skiptest "processes are looked for in /proc"

        body folder)

/// Sends a signal by its name, such as `KILL`.
let signal (name: string) (c: Command) : unit =
    use p = Process.Start("kill", [ "-" + name; string c.Process.Id ])
    p.WaitForExit()

/// Skips the test where this process, and so every one that it starts, ignores SIGINT: a background job of a shell without job control.
let needsInterrupts () : unit =
    let line = File.ReadLines "/proc/self/status" |> Seq.find _.StartsWith("SigIgn:")

    if Convert.ToUInt64(line.Replace("SigIgn:", "").Trim(), 16) &&& 2UL <> 0UL then
        skiptest "SIGINT is ignored here, as in a shell's background jobs"

/// A folder on a disk of its own of so many KiB, where that can be had; given a way to mount it anew with other options.
let onSmallDisk (kib: int) (act: string -> (string -> unit) -> unit) : unit =
    ()
    |> inFolder (fun folder ->
        let mount (arguments: string list) =
            use p = Process.Start(ProcessStartInfo("mount", arguments, RedirectStandardError = true)) |> nonNull

            p.WaitForExit()
            p.ExitCode

        let code =
            try
                mount [ "-t"; "tmpfs"; "-o"; $"size={kib}k"; "tmpfs"; folder ]
            with :? ComponentModel.Win32Exception ->
                1

        if code <> 0 then
            skiptest "a small disk cannot be mounted here (that takes root)"

        try
            act folder (fun options -> Expect.equal (mount [ "-o"; "remount," + options; folder ]) 0 "remounted")
        finally
            use p = Process.Start("umount", folder)
            p.WaitForExit())

/// Fills a disk to its last block with a file, which is given back open.
let filled (path: string) : FileStream =
    let full = File.Create path

    try
        while true do
            full.Write(Array.zeroCreate<byte> 4096, 0, 4096)
            full.Flush true
    with :? IOException ->
        ()

    full
