module Cmcl.Tests.SlurmTests

open System
open System.Diagnostics
open System.IO
open Cmcl
open Expecto
open Cmcl.Tests.Processes

let private scripts = Path.Combine(__SOURCE_DIRECTORY__, "slurm")

/// Runs a program to its end: exit code and what it said.
let private ran (environment: (string * string) list) (program: string) (arguments: string list) : int * string =
    let info = ProcessStartInfo(program, arguments, RedirectStandardOutput = true, RedirectStandardError = true)

    for name, value in environment do
        info.Environment[name] <- value

    use p = Process.Start info |> Option.ofObj |> Option.get
    let error = p.StandardError.ReadToEndAsync()
    let said = p.StandardOutput.ReadToEnd()
    p.WaitForExit()
    p.ExitCode, said + error.Result

// ---- scripts, without any Slurm -----------------------------------------------------------------------------------------

let private wishes: SlurmWishes =
    { ArrayLimit = Some 3
      CellsPerTask = 2
      Options = [ "--partition=main"; "--mem=100M" ]
      Program = [ "true" ] }

/// The text of an executable.
let private executable (path: string) (text: string) : string =
    File.WriteAllText(path, "#!/bin/bash\n" + text + "\n")
    File.SetUnixFileMode(path, UnixFileMode.UserRead ||| UnixFileMode.UserWrite ||| UnixFileMode.UserExecute)
    path

/// Runs the first task of a batch script as Slurm would, with a `scontrol` that writes down what it is asked and does nothing:
/// exit code, what was said, what scontrol was asked.
let private task (folder: string) (restarts: int) (program: string) : int * string * string =
    let asked = Path.Combine(folder, "asked")
    File.WriteAllText(asked, "")
    let bin = Directory.CreateDirectory(Path.Combine(folder, "bin")).FullName
    executable (Path.Combine(bin, "scontrol")) $"echo \"$@\" >> '{asked}'; exit 1" |> ignore
    let program = executable (Path.Combine(folder, "program")) program
    let own = { wishes with Program = [ program ] }
    let array, _ = Slurm.write folder own [ "aa"; "bb"; "cc" ] |> Check.get

    let path = Environment.GetEnvironmentVariable "PATH"

    let environment =
        [ "PATH", $"{bin}:{path}"
          "SLURM_ARRAY_JOB_ID", "7"
          "SLURM_ARRAY_TASK_ID", "0"
          "SLURM_RESTART_COUNT", string restarts
          "SLURM_CPUS_PER_TASK", "2" ]

    let code, said = ran environment "bash" [ array ]
    code, said, File.ReadAllText(asked).Trim()

let private onPosix (body: string -> unit) =
    inFolder (fun folder ->
        if OperatingSystem.IsWindows() then
            skiptest "batch scripts are for bash"

        body folder)

let private batch =
    testList
        "scripts"
        [ testCase "a submission: a line of cells for each task, and what was asked for on its own lines"
          <| onPosix (fun folder ->
              let odd = Path.Combine(folder, "it's 100% odd")
              let array, collect = Slurm.write odd wishes [ "aa"; "bb"; "cc" ] |> Check.get
              let next, _ = Slurm.write odd wishes [ "dd" ] |> Check.get
              Expect.equal (Path.GetFileName array, Path.GetFileName next) ("001.sbatch", "002.sbatch") "one after another"
              Expect.equal (File.ReadAllLines(array.Replace(".sbatch", ".tasks"))) [| "aa bb"; "cc" |] "tasks"
              let text = File.ReadAllText array

              for line in
                  [ "--partition=main"; "--mem=100M"; "--array=0-1%3"; "--requeue"; "--open-mode=append"; "--signal=B:USR1@60" ] do
                  Expect.stringContains text $"\n#SBATCH {line}\n" line

              Expect.stringContains text "100%% odd/slurm/logs/001-%a.log" "the log"
              Expect.stringContains (File.ReadAllText collect) "'sweep' 'collect'" "what collects"

              for script in [ array; collect; next ] do
                  Expect.equal (ran [] "bash" [ "-n"; script ]) (0, "") "bash reads it")

          testCase "a task runs its cells one after another, those that are finished not again"
          <| onPosix (fun folder ->
              Directory.CreateDirectory(Path.Combine(folder, "cells")) |> ignore
              let code, said, asked = task folder 0 "echo \"ran $@\"; touch \"$2/cells/$3.json\"; [ $3 = bb ]"
              Expect.equal (code, asked) (1, "") "the worst of both, nothing asked"
              Expect.stringContains said $"ran cell {folder} aa" "the first"
              Expect.stringContains said $"ran cell {folder} bb" "the second, although the first failed"
              let code, said, _ = task folder 0 "echo ran"
              Expect.equal (code, said) (0, "") "nothing is left to run")

          testCase "a cell that asks for it, or that a signal killed, is queued again; not for ever, and not after TERM"
          <| onPosix (fun folder ->
              let asked restarts program = let _, _, asked = task folder restarts program in asked
              Expect.equal (asked 9 "exit 75" |> fun a -> a.Split('\n')[0]) "requeue 7_0" "it asks"
              Expect.equal (asked 0 "kill -KILL $$" |> fun a -> a.Split('\n')[0]) "requeue 7_0" "killed"
              Expect.equal (asked 3 "kill -KILL $$") "" "killed too often"
              Expect.equal (asked 0 "exit 1") "" "it failed"
              Expect.equal (asked 0 "trap 'exit 75' TERM; kill -TERM $PPID; while :; do sleep 0.01; done") "" "TERM is passed on"

              Expect.stringContains
                  (asked 0 "trap 'exit 75' USR1; kill -USR1 $PPID; while :; do sleep 0.01; done")
                  "requeue 7_0"
                  "USR1 is passed on")

          testCase "the array job of a sweep, written and not submitted"
          <| onPosix (fun folder ->
              let path, out = Path.Combine(folder, "s.json"), Path.Combine(folder, "out")
              SweepFile.write path (SweepFile.ofBlocks [ SweepFile.block [ "synthetic" ] [ "vanilla" ] ]) |> Check.get

              let code, said =
                  [ "sweep"
                    "submit"
                    path
                    "--out"
                    out
                    "--engine"
                    "slurm"
                    "--dry-run"
                    "--time"
                    "5"
                    "--"
                    "--account=x" ]
                  |> cmcl
                  |> finish

              Expect.equal code 0 said
              let text = File.ReadAllText(Path.Combine(out, "slurm", "001.sbatch"))

              for line in [ "--account=x"; "--time=5"; "--cpus-per-task=1"; "--mem=" ] do
                  Expect.stringContains text $"#SBATCH {line}" line

              Expect.stringContains text (Path.Combine(AppContext.BaseDirectory, "Cmcl.Cli.dll")) "the exact program")

          testCase "options that would do nothing are refused, and memory that holds no cell"
          <| onPosix (fun folder ->
              let path, out = Path.Combine(folder, "s.json"), Path.Combine(folder, "out")
              SweepFile.write path (SweepFile.ofBlocks [ SweepFile.block [ "synthetic" ] [ "vanilla" ] ]) |> Check.get

              for arguments, words in
                  [ [ "submit"; path; "--out"; out; "--partition"; "x" ], "--partition is for --engine slurm"
                    [ "run"; path; "--out"; out; "--memory"; "1M" ], "--memory allows 0.0 GB" ] do
                  let code, said = finish (cmcl ("sweep" :: arguments))
                  Expect.equal code 2 said
                  Expect.stringContains said words "told") ]

// ---- a real Slurm ----------------------------------------------------------------------------------------------------------

/// A Slurm of one node with two cores; skipped, with the reason, where it cannot be had.
let private onSlurm (body: string -> unit) =
    inFolder (fun folder ->
        if not (OperatingSystem.IsLinux()) then
            skiptest "Slurm is tested on Linux"

        let missing =
            [ for program in [ "sbatch"; "slurmctld"; "slurmd"; "munged" ] do
                  if fst (ran [] "bash" [ "-c"; $"PATH=$PATH:/usr/sbin command -v {program}" ]) <> 0 then
                      program ]

        if not missing.IsEmpty then
            let names = String.Join(", ", missing)
            skiptest $"no {names} here (Debian: slurmctld, slurmd, slurm-client, munge)"

        let run = Path.Combine(folder, "s")
        let code, said = ran [] (Path.Combine(scripts, "start.sh")) [ run ]

        if code <> 0 then
            let last = said.Trim().Split('\n') |> Array.last
            skiptest $"Slurm does not start here: {last}"

        try
            body folder
        finally
            ran [] (Path.Combine(scripts, "stop.sh")) [ run ] |> ignore)

let private real =
    testCase "a real Slurm runs an array, each cell once, and collects; what is queued or finished is not submitted again"
    <| onSlurm (fun folder ->
        let out = Path.Combine(folder, "out")

        let sweep (seeds: int list) =
            let path = Path.Combine(folder, "s.json")

            SweepFile.ofBlocks
                [ SweepFile.block [ "synthetic" ] [ "vanilla"; "zero-shot" ]
                  |> SweepFile.set [ "epochs", "1" ]
                  |> SweepFile.seeds seeds ]
            |> SweepFile.write path
            |> Check.get

            path

        /// The command where Slurm's configuration is known.
        let cmcl (arguments: string list) =
            let conf = [ "SLURM_CONF", Path.Combine(folder, "s", "slurm.conf") ]
            ran conf "dotnet" (Path.Combine(AppContext.BaseDirectory, "Cmcl.Cli.dll") :: arguments)

        let submit path =
            cmcl [ "sweep"; "submit"; path; "--out"; out; "--engine"; "slurm"; "--array-limit"; "2"; "--cells-per-task"; "2" ]

        let code, said = submit (sweep [ 0; 1 ])
        Expect.equal code 0 said
        Expect.stringContains said "4 cells submitted as job " "submitted"
        let code, said = submit (sweep [ 0; 1 ])
        Expect.equal code 0 said
        Expect.stringContains said "Nothing to submit" "everything is there"
        // One more cell of each method, while the others may be at work.
        let code, said = submit (sweep [ 0; 1; 2 ])
        Expect.equal code 0 said
        Expect.stringContains said "2 cells submitted" "the new ones"
        let log = Path.Combine(out, "slurm", "logs", "002-collect.log")
        let collected () = File.Exists log && File.ReadAllText(log).Contains "cells: "
        until "the second submission is collected" collected
        until "all cells are finished" (fun () -> (cellFiles out).Length = 6)
        let code, said = cmcl [ "sweep"; "collect"; out ]
        Expect.equal code 0 said
        let code, said = cmcl [ "sweep"; "status"; out ]
        Expect.stringContains said "6 cells: 6 finished, 0 running" "status"

        let begun =
            [ for path in Directory.GetFiles(Path.Combine(out, "slurm", "logs")) do
                  for line in File.ReadAllLines path do
                      if line.Contains " cell " then
                          line.Split(" cell ")[1] ]

        Expect.hasLength (List.distinct begun) 6 "every cell"
        Expect.hasLength begun 6 "each once"

        let shard (i: int) =
            let rows = Seed.normal [ 40L + int64 i; 5L ] (Seed.ofInt i)
            let path = Path.Combine(folder, $"shard-{i}.npy")
            Npy.write path rows |> Check.get
            path, rows

        let shards = List.map shard [ 0; 1; 2 ]
        let merged = Path.Combine(folder, "all.safetensors")
        let dll = Path.Combine(AppContext.BaseDirectory, "Cmcl.Cli.dll")

        let environment = [ "SLURM_CONF", Path.Combine(folder, "s", "slurm.conf"); "CMCL", $"dotnet '{dll}'" ]

        let code, said =
            ran
                environment
                (Path.Combine(__SOURCE_DIRECTORY__, "..", "scripts", "slurm-moments.sh"))
                (merged :: List.map fst shards)

        Expect.equal code 0 said
        until "moments are merged" (fun () -> File.Exists merged)
        let whole = Moment.ofRows (TorchSharp.torch.cat (shards |> List.map snd |> Array.ofList))
        let found = MomentFile.read merged |> Check.get
        Expect.equal found.Count whole.Count "rows"
        Expect.isLessThan (Tensors.norm (found.Matrix - whole.Matrix)) 1e-12 "the moment of all rows"

        // Each shard beside itself, as a pair.
        let merged = Path.Combine(folder, "pairs.safetensors")

        let code, said =
            ran
                (("PAIR_OPTIONS", "--features relu:3 --seed 4") :: environment)
                (Path.Combine(__SOURCE_DIRECTORY__, "..", "scripts", "slurm-moments.sh"))
                (merged :: [ for path, _ in shards -> $"vision={path},text={path}" ])

        Expect.equal code 0 said
        until "moments of pairs are merged" (fun () -> File.Exists merged)
        let found = JointMomentFile.read merged |> Check.get
        let lift = { Lift = Lift.relu 3; Seed = 4 }
        Expect.equal found.Lift (Some lift) "their lift"
        let all = TorchSharp.torch.cat (shards |> List.map snd |> Array.ofList)
        let lifted name = Lift.rows (Lift.drawn lift (Modality.named name) 5L) all
        let expected = (lifted "text").t().mm(lifted "vision")
        let cross = found.Moments.Cross[JointMoments.both (Modality.named "text") (Modality.named "vision")].Sum
        Expect.isLessThan (Tensors.norm (cross - expected)) 1e-9 "the cross moment of all rows")

let tests = testSequenced (testList "Slurm" [ batch; real ])
