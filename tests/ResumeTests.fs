module Cmcl.Tests.ResumeTests

open System
open System.IO
open System.Threading
open Expecto
open Cmcl
open Cmcl.Tests.Processes

let private inFolder (act: string -> unit) =
    let folder = Directory.CreateTempSubdirectory "cmcl-resume"

    try
        if not (OperatingSystem.IsLinux()) then
            skiptest "signals are sent by kill"

        act folder.FullName
    finally
        folder.Delete true

let private arguments (stream: string) (method: string) (out: string) : string list =
    [ "run"; "--stream"; stream; "--methods"; method; "--seeds"; "0"; "--threads"; "1"; "--jobs"; "1" ]
    @ [ "--set"; "epochs=3"; "--monitor"; "5"; "--save-weights"; "--checkpoint-every"; "4"; "--out"; out ]

/// All that a run leaves but times: tables, and the bytes of every weight.
let private left (folder: string) : Map<string, string list> =
    Map
        [ for name in [ "results.csv"; "losses.csv"; "spectra.csv"; "monitor.csv" ] do
              name,
              [ for line in File.ReadLines(Path.Combine(folder, name)) do
                    if not (line.Contains ",seconds_") then
                        line ]
          for file in Directory.GetFiles(Path.Combine(folder, "weights"), "*.npy", SearchOption.AllDirectories) do
              Path.GetRelativePath(folder, file),
              [ Convert.ToHexString(Security.Cryptography.SHA256.HashData(File.ReadAllBytes file)) ] ]

let private checkpoints (folder: string) : Set<string> =
    let within = CellFile.folder folder

    if Directory.Exists within then
        try
            set
                [ for cell in Directory.GetDirectories within do
                      yield! Directory.GetFiles(cell, "*.json") ]
        with :? DirectoryNotFoundException ->
            Set.empty
    else
        Set.empty

/// Starts the run, waits until it has written a checkpoint, a little longer, and sends the signal; false if it was over before.
let private interrupt (name: string) (random: Random) (folder: string) (command: string list) : bool * int * string =
    let before = checkpoints folder
    let c = cmcl command
    let fresh () = not (Set.isEmpty (checkpoints folder - before))

    SpinWait.SpinUntil(
        (fun () ->
            Thread.Sleep 2
            c.Process.HasExited || fresh ()),
        TimeSpan.FromSeconds 120.0
    )
    |> ignore

    Thread.Sleep(random.Next 150)
    let hit = not c.Process.HasExited

    if hit then
        signal name c

    let code, said = finish c
    hit, code, said

/// A run killed again and again at random moments, then let go to its end: how often it was hit.
let private killed (random: Random) (kills: int) (stream: string) (method: string) (folder: string) : int =
    let out, whole = Path.Combine(folder, "out"), Path.Combine(folder, "whole")
    let code, said = finish (cmcl (arguments stream method whole))
    Expect.equal code 0 said
    let mutable hits = 0
    let mutable going = true

    while going && hits < kills do
        let command =
            if File.Exists(Path.Combine(out, "config.json")) then
                [ "resume"; out ]
            else
                arguments stream method out @ [ "--force" ]

        let hit, code, said = interrupt "KILL" random out command

        if hit then
            hits <- hits + 1
        else
            Expect.equal code 0 said
            going <- false

    let code, said = finish (cmcl [ "resume"; out ])
    Expect.equal code 0 said
    Expect.isFalse (said.Contains "cannot be read") said
    Expect.equal (left out) (left whole) $"{method} on {stream} after {hits} kills"
    Expect.isEmpty (Directory.GetDirectories(CellFile.folder out)) "checkpoints go when all is done"
    Expect.isTrue (File.Exists(Path.Combine(out, "report.html"))) "the report"
    hits

/// How often each run of the long harness is killed: `CMCL_KILLS=6` kills every method on both streams six times.
let private long = Environment.GetEnvironmentVariable "CMCL_KILLS" |> Option.ofObj |> Option.map int

let tests =
    testList
        "resume"
        [ for stream, method in [ "synthetic", "dns"; "synthetic", "derpp" ] do
              testCase $"{method}, killed at random moments, comes to the same" (fun () ->
                  inFolder (fun folder -> killed Random.Shared 2 stream method folder |> ignore))

          for name in [ "TERM"; "INT"; "USR1" ] do
              testCase $"SIG{name}: the state is kept, and the exit code asks to be resumed" (fun () ->
                  inFolder (fun folder ->
                      if name = "INT" then
                          needsInterrupts ()

                      let out = Path.Combine(folder, "out")
                      let command = arguments "synthetic" "vanilla,dns,gem" out
                      let hit, code, said = interrupt name Random.Shared out command

                      if hit then
                          Expect.equal code 75 said
                          Expect.stringContains said "cmcl resume" "what to do"
                          let code, said = finish (cmcl [ "resume"; out ])
                          Expect.equal code 0 said

                      Expect.isTrue (File.Exists(Path.Combine(out, "report.html"))) "done"))

          testCase "told to a machine: a line of JSON an event, and nothing else" (fun () ->
              inFolder (fun folder ->
                  let out = Path.Combine(folder, "out")
                  let code, said = finish (cmcl (arguments "synthetic" "zero-shot,vanilla" out @ [ "--log-format"; "json" ]))
                  Expect.equal code 0 said
                  let lines = said.Split '\n' |> Array.map (fun line -> Text.Json.JsonDocument.Parse(line).RootElement)
                  let events = [ for line in lines -> line.GetProperty("event").GetString() ]
                  Expect.equal (List.head events, List.last events) ("started", "finished") said
                  Expect.equal (events |> List.filter ((=) "epoch") |> List.length) 18 "three epochs of six steps"
                  Expect.equal (events |> List.filter ((=) "ended") |> List.length) 2 "two methods"
                  Expect.equal ((Array.last lines).GetProperty("left").GetInt32()) 0 "nothing left"))

          testCase "what cannot be resumed says why" (fun () ->
              inFolder (fun folder ->
                  let refused (words: string) (arguments: string list) =
                      let code, said = finish (cmcl arguments)
                      Expect.equal code 2 said
                      Expect.stringContains said words said

                  refused "does not exist" [ "resume"; folder ]
                  File.WriteAllText(Path.Combine(folder, "config.json"), "{")
                  refused "not valid JSON" [ "resume"; folder ]
                  File.WriteAllText(Path.Combine(folder, "config.json"), "{\"command\":\"x\"}")
                  refused "not the record of a run" [ "resume"; folder ]

                  refused
                      "--checkpoint-every takes auto, off, step"
                      [ "run"; "--checkpoint-every"; "now"; "--out"; Path.Combine(folder, "x") ]))

          match long with
          | None -> ()
          | Some kills ->
              testCase "every method on both streams, killed at random moments" (fun () ->
                  inFolder (fun folder ->
                      let mutable hits = 0
                      let mutable runs = 0

                      for stream in [ "synthetic"; "emoji" ] do
                          for m in Registry.entries |> List.map _.Method do
                              if Method.trains m then
                                  let own = Path.Combine(folder, $"{stream}-{m.Name}")
                                  hits <- hits + killed Random.Shared kills stream m.Name own
                                  runs <- runs + 1
                                  Directory.Delete(own, true)
                                  printfn "%s %s: %d kills so far, 0 differences" stream m.Name hits

                      printfn "%d runs, %d kills, 0 differences, 0 unreadable checkpoints" runs hits)) ]
