namespace Cmcl

open System
open System.ComponentModel
open System.Diagnostics
open System.IO
open System.Security.Cryptography
open System.Text

/// What a cluster is asked for.
type SlurmWishes =
    {
        /// Tasks that may run at one time.
        ArrayLimit: int option
        CellsPerTask: int
        /// Options of sbatch, each as it stands on a `#SBATCH` line.
        Options: string list
        /// How this program is started.
        Program: string list
    }

/// What has been made of cells that Slurm is to run.
[<RequireQualifiedAccess>]
type SlurmSubmission =
    /// The script of the array, and that which collects; not submitted.
    | Written of cells: int * array: string * collect: string
    /// The numbers of both jobs.
    | Submitted of cells: int * job: string * after: string

/// The engine that has Slurm run jobs: cells of a sweep's folder as array jobs. Everything is in the folder's `slurm`: for the n-th submission `00n.sbatch`, `00n.tasks` (a line of
/// hashes for each task), `00n-collect.sbatch`, and what tasks say in `logs`.
[<RequireQualifiedAccess>]
module Slurm =
    let private slurm (folder: string) : string = Path.Combine(Path.GetFullPath folder, "slurm")

    /// Has the folder ever been submitted?
    let isUsed (folder: string) : bool = Directory.Exists(slurm folder)

    /// What a program of Slurm answers, or why it does not.
    let private ask (program: string) (arguments: string list) : Result<string, Fault list> =
        let refused why = Error [ Fault.Contradiction($"{program} cannot be asked: {why}", "try again where Slurm is at hand") ]

        try
            let info = ProcessStartInfo(program, arguments, RedirectStandardOutput = true, RedirectStandardError = true)
            use p = Process.Start info |> Option.ofObj |> Option.get
            let error = p.StandardError.ReadToEndAsync()
            let answer = p.StandardOutput.ReadToEnd()
            p.WaitForExit()
            if p.ExitCode = 0 then Ok answer else refused (error.Result.Trim())
        with :? Win32Exception as e ->
            refused e.Message

    /// Jobs are known by their names: of the folder, and the number of the submission.
    let private jobName (folder: string) (number: string) : string =
        let full = Path.TrimEndingDirectorySeparator(Path.GetFullPath folder)
        let hash = Convert.ToHexStringLower(SHA256.HashData(Encoding.UTF8.GetBytes full)).Substring(0, 8)
        $"cmcl-{hash}-{number}"

    /// The cells of each task of a submission.
    let private tasks (folder: string) (number: string) : string[][] =
        File.ReadAllLines(Path.Combine(slurm folder, $"{number}.tasks")) |> Array.map _.Split(' ')

    /// The numbers of all submissions; files of other names are not ours.
    let private submissions (folder: string) : string list =
        if isUsed folder then
            [ for path in Directory.GetFiles(slurm folder, "*.tasks") do
                  let name = string (Path.GetFileNameWithoutExtension path)

                  if name.Length = 3 && Seq.forall Char.IsAsciiDigit name then
                      name ]
        else
            []

    /// Cells that wait in Slurm's queue or run, with what squeue says of their tasks, such as `PENDING`. Fault: there is no squeue, or it
    /// has nobody to ask.
    let queued (folder: string) : Result<Map<string, string>, Fault list> =
        ask "squeue" [ "--me"; "--noheader"; "--array"; "--format=%j %K %T" ]
        |> Result.map (fun answer ->
            let known = Map [ for number in submissions folder -> jobName folder number, tasks folder number ]

            Map
                [ for line in answer.Split('\n', StringSplitOptions.RemoveEmptyEntries) do
                      match line.Trim().Split ' ' with
                      | [| name; task; state |] ->
                          match Map.tryFind name known, Int32.TryParse task with
                          | Some lines, (true, i) when i < lines.Length ->
                              for hash in lines[i] do
                                  hash, state
                          | _ -> ()
                      | _ -> () ])

    /// A word for the shell.
    let quoted (text: string) : string = "'" + text.Replace("'", "'\\''") + "'"

    /// A value of an option on a `#SBATCH` line, where it needs quotes to stay in one piece.
    let private piece (value: string) : string =
        if value |> Seq.exists (fun c -> Char.IsWhiteSpace c || c = '#' || c = '\'') then
            "\"" + value + "\""
        else
            value

    /// A path in which `%` has no meaning.
    let private pattern (path: string) : string = path.Replace("%", "%%")

    /// The lines of a script that sbatch reads. A value that is quoted already stays as it is.
    let private head (options: string list) : string =
        let line (option: string) =
            match option.IndexOf '=' with
            | at when at > 0 && option.StartsWith '-' && not (option.Contains '"') ->
                option.Substring(0, at + 1) + piece (option.Substring(at + 1))
            | _ -> option

        String.Join("\n", [ for o in options -> $"#SBATCH {line o}" ])

    /// What cannot stand in a script or on a line of a list of jobs, however it is quoted: a line break ends a `#SBATCH` line, and sbatch
    /// gives `"` and `\\` a meaning that differs between its versions.
    let private unfit (folder: string) (wishes: SlurmWishes) : Fault list =
        let isClean (text: string) = Names.isClean text

        [ for what, path in [ "the sweep's folder", Path.GetFullPath folder; "this folder", Directory.GetCurrentDirectory() ] do
              if not (isClean path) || path.IndexOfAny [| '"'; '\\' |] >= 0 then
                  Fault.BadValue(what, "a path without line breaks, control characters, \" and \\ where Slurm is to use it", path)
          for option in wishes.Options do
              if not (isClean option) then
                  Fault.BadValue("an option of sbatch", "one line without control characters", option) ]

    /// The command line that runs a cell.
    let command (program: string list) (arguments: string list) : string = String.Join(" ", List.map quoted (program @ arguments))

    let private arrayScript (folder: string) (number: string) (count: int) (wishes: SlurmWishes) : string =
        let limit = wishes.ArrayLimit |> Option.map (fun n -> $"%%{n}") |> Option.defaultValue ""
        let log = Path.Combine(slurm folder, "logs", number)

        let options =
            wishes.Options
            @ [ $"--job-name={jobName folder number}"
                $"--array=0-{count - 1}{limit}"
                $"--chdir={Directory.GetCurrentDirectory()}"
                $"--output={pattern log}-%%a.log"
                "--open-mode=append"
                "--requeue"
                "--signal=B:USR1@60" ]

        $"""#!/bin/bash
# Written by cmcl sweep submit. Each task of this array runs the cells of one line of {number}.tasks, one after another.
{head options}

folder={quoted (Path.GetFullPath folder)}
cmcl() {{ exec {command wishes.Program []} "$@"; }}

# What the scheduler says is passed on to the cell. USR1 comes a minute before the time is over.
process= signal= stopped=
pass() {{ [ -z "$process" ] || kill "-$signal" "$process" 2>/dev/null; }}
trap 'signal=USR1; pass' USR1
trap 'signal=TERM; stopped=1; pass' TERM

worst=0
for hash in $(sed -n "$((SLURM_ARRAY_TASK_ID + 1))p" "$folder/slurm/{number}.tasks"); do
    [ -e "$folder/cells/$hash.json" ] && continue
    echo "$(date '+%%F %%T') $(hostname) cell $hash, restart ${{SLURM_RESTART_COUNT:-0}}"
    cmcl cell "$folder" "$hash" &
    process=$!
    # What came before there was a process to pass it on to.
    [ -z "$signal" ] || pass

    # A signal ends the waiting, not the cell.
    while wait "$process"; code=$?; [ "$code" -gt 128 ] && kill -0 "$process" 2>/dev/null; do :; done
    process=

    # {Pool.Again}: the cell asks to be resumed. More than 128: a signal killed it, for want of memory perhaps; that is tried three
    # times. After TERM it is Slurm that decides whether the task is queued again.
    if [ -z "$stopped" ] && {{ [ "$code" -eq {Pool.Again} ] || {{ [ "$code" -gt 128 ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt 3 ]; }}; }}; then
        echo "exit code $code: queued again"
        scontrol requeue "${{SLURM_ARRAY_JOB_ID}}_$SLURM_ARRAY_TASK_ID" && sleep 60
    fi

    [ "$code" -eq 0 ] || worst=$code
    [ -z "$stopped" ] || break
done
exit $worst
"""

    let private collectScript (folder: string) (number: string) (wishes: SlurmWishes) : string =
        let log = Path.Combine(slurm folder, "logs", $"{number}-collect.log")

        let own =
            wishes.Options
            |> List.filter (fun o -> o.StartsWith "--partition=" || o.StartsWith "--account=" || o.StartsWith "--qos=")

        let options =
            own
            @ [ $"--job-name={jobName folder number}-collect"
                $"--chdir={Directory.GetCurrentDirectory()}"
                $"--output={pattern log}"
                "--open-mode=append" ]

        $"""#!/bin/bash
# Written by cmcl sweep submit. Runs when every task of {number}.sbatch has ended, however it ended; fails if a result is missing.
{head options}

exec {command wishes.Program [ "sweep"; "collect"; Path.GetFullPath folder ]}
"""

    /// How many tasks an array may have here, if Slurm says so.
    let private mostTasks () : int option =
        match ask "scontrol" [ "show"; "config" ] with
        | Error _ -> None
        | Ok answer ->
            answer.Split '\n'
            |> Array.tryFind _.StartsWith("MaxArraySize")
            |> Option.bind (fun line ->
                match Int32.TryParse(line.Substring(line.IndexOf '=' + 1)) with
                | true, n -> Some n
                | _ -> None)

    /// Writes the scripts of a submission of these cells, and gives back that of the array and that which collects. Fault: `Unwritable`,
    /// or an array larger than this Slurm takes.
    let write (folder: string) (wishes: SlurmWishes) (hashes: string list) : Result<string * string, Fault list> =
        let tasks = List.chunkBySize wishes.CellsPerTask hashes
        let number = (1 + (0 :: List.map int (submissions folder) |> List.max)).ToString "000"
        let path name = Path.Combine(slurm folder, name)
        let file (name: string) (text: string) = Files.writeText (path name) (fun w -> w.Write text)

        match unfit folder wishes, mostTasks () with
        | _ :: _ as faults, _ -> Error faults
        | [], Some most when tasks.Length > most ->
            let fitting = (hashes.Length + most - 1) / most

            Error
                [ Fault.Contradiction(
                      $"an array of {tasks.Length} tasks is larger than the {most} that this Slurm takes",
                      $"use --cells-per-task {fitting} or more"
                  ) ]
        | _ ->
            [ Files.makeFolderOf (Path.Combine(slurm folder, "logs", "x"))
              file $"{number}.tasks" (String.Join("", [ for t in tasks -> String.Join(" ", t) + "\n" ]))
              file $"{number}.sbatch" (arrayScript folder number tasks.Length wishes)
              file $"{number}-collect.sbatch" (collectScript folder number wishes) ]
            |> Check.all
            |> Result.map (fun _ -> path $"{number}.sbatch", path $"{number}-collect.sbatch")

    let private sbatch (arguments: string list) : Result<string, Fault list> =
        ask "sbatch" ("--parsable" :: arguments) |> Result.map (fun answer -> (answer.Trim().Split ';')[0])

    /// Submits the array and, to run after it, what collects.
    let private submit (cells: int) (array: string, collect: string) : Result<SlurmSubmission, Fault list> =
        sbatch [ array ]
        |> Result.bind (fun job ->
            sbatch [ $"--dependency=afterany:{job}"; collect ]
            |> Result.map (fun after -> SlurmSubmission.Submitted(cells, job, after)))

    /// Submits the jobs that no process runs and that do not wait in Slurm's queue (`queued`), and returns: unlike under other engines none has ended
    /// then, and the folder says later what became of them. `wishes` says what is asked for so many of them, `made` hears what was submitted; when
    /// `dry`, the scripts are only written.
    let engine
        (queued: Map<string, string>)
        (dry: bool)
        (wishes: Job list -> SlurmWishes)
        (made: SlurmSubmission -> unit)
        : Engine =
        { Name = "Slurm"
          Accepts = Engine.acceptsWritten "Slurm"
          Run =
            fun settings _ jobs ->
                let open' =
                    [ for _, job in jobs do
                          let identity = Job.identity job

                          match settings.Store job with
                          | Store.Folder folder as store ->
                              if not (Store.isTaken store identity || queued.ContainsKey(Identity.hash identity)) then
                                  folder, job, Identity.hash identity
                          | Store.Memory _ -> () ]

                match open' with
                | [] -> Ok()
                | (folder, _, _) :: _ ->
                    write folder (wishes [ for _, job, _ in open' -> job ]) [ for _, _, hash in open' -> hash ]
                    |> Result.bind (fun (array, collect) ->
                        if dry then
                            Ok(SlurmSubmission.Written(open'.Length, array, collect))
                        else
                            submit open'.Length (array, collect))
                    |> Result.map made }
