/// What `cmcl sweep` and `cmcl cell` do. A result is an exit code: 0, 1 if a cell has no result, 2 for a user's mistake, 130 when
/// stopped.
module Cmcl.Cli.SweepFolderCommand

open System
open System.Globalization
open System.IO
open Argu
open TorchSharp
open Cmcl
open Cmcl.Cli.SweepArguments
open Cmcl.Cli.Commands

/// A sweep with the folder that it runs in.
type private Target =
    {
        Folder: string
        File: SweepFile
        Jobs: Job list
        /// As the folder lists them.
        Cells: SweepCell list
    }

/// From a sweep file, or from the folder of a sweep; every configuration checked.
let private target (source: string) (out: string option) (threads: int option) : Result<Target, Fault list> =
    let load (path: string) (folder: string) =
        // Another machine may have more cores; a sweep that was begun goes on with its threads.
        let begun = if SweepFolder.is folder then SweepFolder.cells folder |> Result.defaultValue [] else []

        let threadsOf (stream: Cmcl.Stream) =
            let before = begun |> List.tryFind (fun c -> c.Cell.Stream = stream.Name) |> Option.map _.Job.Threads
            Protocol.threads stream (Option.orElse before threads)

        SweepFile.read path
        |> Result.bind (fun file ->
            SweepFile.jobs threadsOf file
            |> Result.map (fun jobs ->
                { Folder = folder
                  File = file
                  Jobs = jobs
                  Cells = List.choose (SweepCell.ofJob folder) jobs }))

    match SweepFolder.is source, out with
    | true, Some _ -> Error [ Fault.Contradiction($"'{source}' is the folder of a sweep already", "leave --out out") ]
    | true, None -> load (SweepFolder.sweepFile source) source
    | false, _ when Directory.Exists source -> SweepFolder.cells source |> Result.bind (fun _ -> load source source)
    | false, _ ->
        let name = string (Path.GetFileNameWithoutExtension source)
        load source (Option.defaultValue (Names.within (Path.Combine("results", "sweep")) name) out)

let private bytes (size: int64) : string = (float size / 1e9).ToString("F1", CultureInfo.InvariantCulture) + " GB"

/// `8G`, `800M`, `64000K`, or bytes.
let parseSize (text: string) : Result<int64, Fault list> =
    let units = [ "K", 1L <<< 10; "M", 1L <<< 20; "G", 1L <<< 30; "T", 1L <<< 40 ]
    let plain = text.Trim().ToUpperInvariant().TrimEnd('B').TrimEnd('I')

    let digits, unit =
        match units |> List.tryFind (fun (name, _) -> plain.EndsWith name) with
        | Some(_, unit) -> plain.Substring(0, plain.Length - 1), unit
        | None -> plain, 1L

    match Double.TryParse(digits, NumberStyles.AllowDecimalPoint, CultureInfo.InvariantCulture) with
    | true, n when n > 0.0 && n * float unit < 1e18 -> Ok(int64 (n * float unit))
    | _ -> Error [ Fault.BadValue("--memory", "a size such as 8G or 800M", text) ]

let private isFinished (_, state: CellState<CellRecord>) =
    match state with
    | CellState.Finished _ -> true
    | _ -> false

/// Neither finished nor bound to fail again.
let private isOpen (_, state: CellState<CellRecord>) =
    match state with
    | CellState.Finished _
    | CellState.Failed _ -> false
    | _ -> true

// ---- plan ---------------------------------------------------------------------------------------------------------

let private plan (arguments: ParseResults<SweepPlanArgument>) : int =
    match target (arguments.GetResult SweepPlanArgument.Sweep) (arguments.TryGetResult SweepPlanArgument.Out) None with
    | Error faults -> refuse faults
    | Ok t ->
        let states = SweepFolder.states t.Cells
        let finished = states |> List.filter isFinished |> List.length

        if arguments.Contains SweepPlanArgument.Cells then
            for c, state in states do
                let state = CellState.reason state |> Option.defaultValue "finished"
                printfn "%s %s: %s seed %d order %d (%s)" c.Job.Hash c.Cell.Stream c.Cell.Method c.Cell.Seed c.Cell.Order state
        else
            let row ((stream, method), all: (SweepCell * CellState<CellRecord>) list) =
                let finished = all |> List.filter isFinished |> List.length
                Some(List.map Layout.plain [ stream; method; string all.Length; string finished ])

            Terminal.show
                { Columns =
                    [ Layout.words 0 "stream"; Layout.words 0 "method"; Layout.figures 0 "cells"; Layout.figures 0 "finished" ]
                  Rows = states |> List.groupBy (fun (c, _) -> c.Cell.Stream, c.Cell.Method) |> List.map row
                  Elsewhere = "A wider terminal shows them." }

        let most = t.Cells |> List.map (SweepFolder.memory states) |> List.max
        Terminal.say $"{t.Cells.Length} cells, {finished} of them finished; a cell holds about {bytes most} at most."
        0

// ---- run ----------------------------------------------------------------------------------------------------------

/// Makes the folder that of the sweep.
let private adopt (t: Target) : Result<unit, Fault list> =
    let isRun = not (SweepFolder.is t.Folder) && File.Exists(Path.Combine(t.Folder, "config.json"))

    (if isRun then
         Error [ Fault.Contradiction($"'{t.Folder}' holds results of another command", "choose another folder with --out") ]
     else
         StudyFolder.prepare false t.Folder t.Jobs)
    |> Result.bind (fun () -> SweepFolder.adopt t.Folder t.File t.Cells)

/// Workers side by side: no more than cores, by the threads of each, and memory leave room for.
let private jobs (given: int option) (memory: int64 option) (t: Target) states : Result<int, Fault list> =
    let waiting = states |> List.filter isOpen |> List.map fst
    let most = waiting |> List.map (SweepFolder.memory states) |> List.fold max 1L
    let threads = t.Cells |> List.map _.Job.Threads |> List.max
    let byCores = given |> Option.defaultWith (fun () -> jobsFor (torch.Device t.File.Device) threads)

    match memory with
    | Some size when size < most ->
        Error [ Fault.Contradiction($"a cell holds about {bytes most}, and --memory allows {bytes size}", "allow more") ]
    | Some size -> Ok(min byCores (int (min 1000L (size / most))))
    | None when given.IsSome -> Ok byCores
    | None -> Ok(min byCores (max 1 (int (min 1000L (GC.GetGCMemoryInfo().TotalAvailableMemoryBytes / most)))))

/// Says which cells have no result and why, each on a line of standard error, and how many there are.
let private tellMissing (states: (SweepCell * CellState<CellRecord>) list) : int =
    let missing =
        [ for c, state in states do
              match CellState.reason state with
              | Some reason -> $"{c.Job.Hash} {c.Cell.Stream}: {c.Cell.Method} seed {c.Cell.Seed} order {c.Cell.Order}: {reason}"
              | None -> () ]

    for line in missing do
        eprintfn "cmcl: %s" line

    missing.Length

let private runTarget (quiet: bool) (given: int option) (memory: int64 option) (t: Target) : int =
    let ready =
        parseDevice t.File.Device
        |> Result.bind (fun _ -> adopt t)
        |> Result.bind (fun () -> jobs given memory t (SweepFolder.states t.Cells))

    match ready with
    | Error faults -> refuse faults
    | Ok jobs ->
        let swept = SweepCommand.run quiet jobs t.Folder t.Jobs

        if swept.Stopped then
            eprintfn "cmcl: stopped; cmcl sweep run %s goes on from here." t.Folder
            Signals.Stopped
        else
            let missing = tellMissing (SweepFolder.states t.Cells)

            if not quiet then
                Terminal.say
                    $"{t.Cells.Length - missing} of {t.Cells.Length} cells finished. Tables: cmcl sweep collect {t.Folder}"

            if missing = 0 then 0 else 1

let private run (arguments: ParseResults<SweepRunArgument>) : int =
    let given = arguments.TryGetResult SweepRunArgument.Jobs
    let threads = arguments.TryGetResult SweepRunArgument.Threads
    let out = arguments.TryGetResult SweepRunArgument.Out

    let ready =
        validated {
            let! () = checkGiven arguments out threads given None

            and! memory =
                match arguments.TryGetResult SweepRunArgument.Memory with
                | Some text -> parseSize text |> Result.map Some
                | None -> Ok None

            and! t = target (arguments.GetResult SweepRunArgument.Sweep) out threads
            return memory, t
        }

    match ready with
    | Error faults -> refuse faults
    | Ok(memory, t) -> runTarget (arguments.Contains SweepRunArgument.Quiet) given memory t

// ---- status, collect -------------------------------------------------------------------------------------------------

let private folderStates (arguments: ParseResults<SweepFolderArgument>) =
    let folder = arguments.GetResult SweepFolderArgument.Folder
    SweepFolder.cells folder |> Result.map (fun cells -> folder, SweepFolder.states cells)

let private status (arguments: ParseResults<SweepFolderArgument>) : int =
    match folderStates arguments with
    | Error faults -> refuse faults
    | Ok(folder, states) ->
        let queued = if Slurm.isUsed folder then Slurm.queued folder else Ok Map.empty
        let inQueue = queued |> Result.defaultValue Map.empty
        let isQueued (c: SweepCell) = Map.containsKey c.Job.Hash inQueue

        let kind (c, state) =
            match state with
            | CellState.Interrupted _
            | CellState.Missing when isQueued c -> "queued"
            | state -> CellState.word state

        let counts = states |> List.countBy kind |> Map.ofList

        for c, state in states do
            match state, CellState.reason state with
            | CellState.Missing, _
            | _, None -> ()
            | _, Some reason ->
                let order = if c.Cell.Order = 0 then "" else $" order {c.Cell.Order}"
                let state = Map.tryFind c.Job.Hash inQueue |> Option.map (fun s -> $" [{s}]") |> Option.defaultValue ""
                printfn "%s %s: %s seed %d%s: %s%s" c.Job.Hash c.Cell.Stream c.Cell.Method c.Cell.Seed order reason state

        let part name = counts |> Map.tryFind name |> Option.defaultValue 0

        printfn
            "%d cells: %d finished, %d running, %d failed, %d broken off, %d queued, %d missing"
            states.Length
            (part "finished")
            (part "running")
            (part "failed")
            (part "broken off")
            (part "queued")
            (part "missing")

        match queued with
        | Error faults ->
            for fault in faults do
                printfn "What Slurm has queued is not known: %s" fault.Message
        | Ok _ -> ()

        0

let private collect (arguments: ParseResults<SweepFolderArgument>) : int =
    match
        folderStates arguments
        |> Result.bind (fun (folder, states) -> SweepTables.write folder states |> Result.map (fun () -> folder, states))
    with
    | Error faults -> refuse faults
    | Ok(folder, states) ->
        let missing = tellMissing states

        let table = Terminal.path (Path.Combine(folder, "results.csv"))
        Terminal.say $"{states.Length - missing} of {states.Length} cells: {table}"

        if missing = 0 then 0 else 1

// ---- submit ----------------------------------------------------------------------------------------------------------

let private toSlurm (arguments: ParseResults<SweepSubmitArgument>) (beyond: string list) (t: Target) : Result<unit, Fault list> =
    let dry = arguments.Contains SweepSubmitArgument.Dry_Run

    // Where a controller cannot be asked nothing may be submitted: it could be there already.
    let queued =
        match Slurm.queued t.Folder with
        | Error _ when dry -> Ok Map.empty
        | result -> result

    queued
    |> Result.bind (fun queued ->
        let states = SweepFolder.states t.Cells
        let memory = SweepFolder.memory states
        let line name value = value |> Option.map (fun v -> $"--{name}={v}") |> Option.toList
        let made = ref false

        let wishes (jobs: Job list) =
            let hashes = set [ for job in jobs -> Identity.hash (Job.identity job) ]
            let most = t.Cells |> List.filter (fun c -> hashes.Contains c.Job.Hash) |> List.map memory |> List.max
            let cpus = arguments.GetResult(SweepSubmitArgument.Cpus, jobs |> List.map _.Protocol.Threads |> List.max)
            let mem = arguments.GetResult(SweepSubmitArgument.Mem, $"{2L * most >>> 20}M")

            { ArrayLimit = arguments.TryGetResult SweepSubmitArgument.Array_Limit
              CellsPerTask = arguments.GetResult(SweepSubmitArgument.Cells_Per_Task, 1)
              Options =
                line "partition" (arguments.TryGetResult SweepSubmitArgument.Partition)
                @ line "gres" (arguments.TryGetResult SweepSubmitArgument.Gres)
                @ line "time" (arguments.TryGetResult SweepSubmitArgument.Time)
                @ [ $"--cpus-per-task={cpus}"; $"--mem={mem}" ]
                @ beyond
              Program = SweepCommand.program () }

        let say submission =
            made.Value <- true

            match submission with
            | SlurmSubmission.Written(cells, array, collect) ->
                printfn "%d cells. Not submitted: %s, and after it %s" cells array collect
            | SlurmSubmission.Submitted(cells, job, after) ->
                printfn "%d cells submitted as job %s; job %s collects after it." cells job after

        StudyFolder.run (Slurm.engine queued dry wishes say) t.Folder (fun () -> false) ignore (Array.ofList t.Jobs)
        |> Result.map (fun _ ->
            if not made.Value then
                printfn "Nothing to submit: every cell is finished, failed, running or queued."))

let private jobList (t: Target) : Result<unit, Fault list> =
    let path = Path.GetFullPath(Path.Combine(t.Folder, "jobs.txt"))
    let cells = SweepFolder.states t.Cells |> List.filter isOpen |> List.map fst

    if not (Names.isClean path) then
        Error [ Fault.BadValue("the sweep's folder", "a path without line breaks, since a job is a line", path) ]
    else
        Files.writeText path (fun w ->
            for c in cells do
                w.WriteLine(Slurm.command (SweepCommand.program ()) [ "cell"; Path.GetFullPath t.Folder; c.Job.Hash ]))
    |> Result.map (fun () ->
        printfn "%d cells, one a line: %s" cells.Length path
        let file = Slurm.quoted path
        printfn "parallel --jobs N < %s, or xargs -d '\\n' -P N -I{} sh -c {} < %s" file file)

let private submit (beyond: string list) (arguments: ParseResults<SweepSubmitArgument>) : int =
    let out = arguments.TryGetResult SweepSubmitArgument.Out
    let cpus = arguments.TryGetResult SweepSubmitArgument.Cpus

    let positive name value =
        match value with
        | Some n when n < 1 -> Error [ Fault.BadValue(name, "a whole number ≥ 1", string n) ]
        | _ -> Ok()

    let engine = arguments.GetResult(SweepSubmitArgument.Engine, "local")

    let ofSlurm =
        [ if arguments.Contains SweepSubmitArgument.Array_Limit then
              "--array-limit"
          if arguments.Contains SweepSubmitArgument.Cells_Per_Task then
              "--cells-per-task"
          if arguments.Contains SweepSubmitArgument.Partition then
              "--partition"
          if arguments.Contains SweepSubmitArgument.Gres then
              "--gres"
          if arguments.Contains SweepSubmitArgument.Time then
              "--time"
          if arguments.Contains SweepSubmitArgument.Mem then
              "--mem"
          if arguments.Contains SweepSubmitArgument.Dry_Run then
              "--dry-run"
          yield! beyond ]

    let ready =
        validated {
            let! () = checkGiven arguments out cpus None None

            and! () =
                match ofSlurm with
                | some :: _ when engine <> "slurm" ->
                    Error [ Fault.Contradiction($"{some} is for --engine slurm", "leave it out, or name the engine") ]
                | _ -> Ok()

            and! () = positive "--array-limit" (arguments.TryGetResult SweepSubmitArgument.Array_Limit)
            and! () = positive "--cells-per-task" (arguments.TryGetResult SweepSubmitArgument.Cells_Per_Task)
            and! t = target (arguments.GetResult SweepSubmitArgument.Sweep) out cpus
            return t
        }

    let adopted act = ready |> Result.bind (fun t -> adopt t |> Result.bind (fun () -> act t))

    let outcome =
        match engine, ready with
        | "local", Ok t -> Ok(runTarget false None None t)
        | "slurm", _ -> adopted (toSlurm arguments beyond) |> Result.map (fun () -> 0)
        | "parallel", _ -> adopted jobList |> Result.map (fun () -> 0)
        | "local", Error faults -> Error faults
        | other, _ -> Error [ Fault.Unknown("engine", other, [ "local"; "slurm"; "parallel" ]) ]

    match outcome with
    | Ok code -> code
    | Error faults -> refuse faults

/// `beyond` is what stood after `--`.
let sweep (beyond: string list) (arguments: ParseResults<SweepArgument>) : int =
    match arguments.GetSubCommand() with
    | SweepArgument.Submit own -> submit beyond own
    | _ when not beyond.IsEmpty ->
        refuse [ Fault.Contradiction("only cmcl sweep submit takes options after '--'", "leave them out") ]
    | SweepArgument.Plan own -> plan own
    | SweepArgument.Run own -> run own
    | SweepArgument.Status own -> status own
    | SweepArgument.Collect own -> collect own

// ---- one cell ----------------------------------------------------------------------------------------------------------

/// Runs one cell of a folder in this process. If another process runs it, this one waits for it, and runs it if that one dies.
let cell (arguments: ParseResults<CellArgument>) : int =
    let folder, hash = arguments.GetResult CellArgument.Cell

    match SweepFolder.cells folder |> Result.map (List.tryFind (fun c -> c.Job.Hash = hash)) with
    | Error faults -> refuse faults
    | Ok None ->
        refuse
            [ Fault.Contradiction($"the sweep in '{folder}' has no cell '{hash}'", $"cmcl sweep plan {folder} --cells lists them") ]
    | Ok(Some c) ->
        use scope = torch.NewDisposeScope()
        use leaving = new Signals.Leaving true
        let ended = ref CellEnd.Stopped

        let tell event =
            match event with
            | StudyEvent.Cell(_, CellEvent.Ended how) -> ended.Value <- how
            | StudyEvent.Cell(_, CellEvent.Warning fault) -> eprintfn "cmcl: %s" fault.Message
            | _ -> ()

        if CellLock.isTaken c.Job.Out hash then
            eprintfn "cmcl: another process has the cell; waiting."

        let ran =
            Worker.job Catalogue.find c.Job
            |> Result.bind (fun job -> StudyFolder.run (InProcess.engine 1) c.Job.Out (fun () -> leaving.Asked) tell [| job |])

        match ran, ended.Value with
        | Ok _, CellEnd.Finished _ -> 0
        | Ok _, CellEnd.Stopped -> Signals.ResumeMe
        | result, how ->
            for fault in CellEnd.faults how @ (Result.map (fun _ -> []) result |> Result.defaultWith id) do
                eprintfn "cmcl: %s" fault.Message

            1
