/// How the tests end: one line with the counts, also where two processes share them.
module Cmcl.Tests.Summary

open System
open System.Diagnostics
open System.Text.RegularExpressions
open System.Threading.Tasks
open Expecto.Impl

type Counts = { Passed: int; Failed: int; Skipped: int }

let ofRun (s: TestRunSummary) : Counts =
    { Passed = s.passed.Length
      Failed = s.failed.Length + s.errored.Length
      Skipped = s.ignored.Length }

let private text (c: Counts) : string =
    let skipped = if c.Skipped = 0 then "" else $", {c.Skipped} skipped"
    $"{c.Passed} passed, {c.Failed} failed{skipped}"

let private parse (line: string) : Counts option =
    let m = Regex.Match(line.Trim(), @"^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$")
    let number (group: Group) = if group.Success then int group.Value else 0

    if m.Success then
        Some
            { Passed = number m.Groups[1]
              Failed = number m.Groups[2]
              Skipped = number m.Groups[3] }
    else
        None

/// The last line of standard output, after everything that Expecto printed: Expecto leaves an escape sequence behind and pads what goes
/// through `Console.Out`.
let write (c: Counts) : unit =
    Console.Out.Flush()
    use out = Console.OpenStandardOutput()
    out.Write(Text.Encoding.UTF8.GetBytes $"\n{text c}\n")

/// The argument that names a part of the tests.
[<Literal>]
let Part = "--part"

/// The arguments with which a program runs one part of its tests: `dotnet` is given the tests' file before them, the program itself is not.
let argumentsOf (program: string) (tests: string) (part: string) : string list =
    let before = if IO.Path.GetFileNameWithoutExtension program = "dotnet" then [ tests ] else []
    before @ [ Part; part ]

/// Runs one part in a process of its own, passing on what it says but for its counts. A process that dies without them is a failure.
let private inProcess (part: string) : Task<Counts> =
    task {
        let program = Environment.ProcessPath |> Option.ofObj |> Option.get
        let tests = Environment.GetCommandLineArgs()[0]
        let info = ProcessStartInfo(program, argumentsOf program tests part, RedirectStandardOutput = true)
        use p = Process.Start info |> Option.ofObj |> Option.get
        let mutable counts = None
        let mutable line = p.StandardOutput.ReadLine() |> Option.ofObj

        while line.IsSome do
            match parse line.Value with
            | Some found -> counts <- Some found
            | None -> Console.Out.WriteLine line.Value

            line <- p.StandardOutput.ReadLine() |> Option.ofObj

        p.WaitForExit()

        return
            match counts with
            | Some c when c.Failed > 0 || p.ExitCode = 0 -> c
            | _ ->
                eprintfn "the process of the %s tests ended with exit code %d" part p.ExitCode
                let c = counts |> Option.defaultValue { Passed = 0; Failed = 0; Skipped = 0 }
                { c with Failed = c.Failed + 1 }
    }

/// Runs the parts side by side, each in a process of its own, and ends with the sum of their counts.
let sideBySide (parts: string list) : int =
    let all = parts |> List.map (fun part -> Task.Run<Counts>(fun () -> inProcess part)) |> Task.WhenAll
    let sum (count: Counts -> int) = all.Result |> Array.sumBy count

    let counts =
        { Passed = sum _.Passed
          Failed = sum _.Failed
          Skipped = sum _.Skipped }

    write counts
    if counts.Failed = 0 then 0 else 1
