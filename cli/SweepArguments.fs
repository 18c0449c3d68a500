/// What `cmcl sweep` and `cmcl cell` take.
module Cmcl.Cli.SweepArguments

open Argu

[<RequireQualifiedAccess>]
type SweepPlanArgument =
    | [<MainCommand; ExactlyOnce>] Sweep of FILE_OR_FOLDER: string
    | [<AltCommandLine("-o")>] Out of FOLDER: string
    | Cells

    interface IArgParserTemplate with
        member a.Usage =
            match a with
            | Sweep _ -> "a sweep file, or the folder of a sweep"
            | Out _ -> "the folder that the sweep runs in (default: results/sweep/NAME of the file)"
            | Cells -> "list every cell with its hash"

[<RequireQualifiedAccess>]
type SweepRunArgument =
    | [<MainCommand; ExactlyOnce>] Sweep of FILE_OR_FOLDER: string
    | [<AltCommandLine("-o")>] Out of FOLDER: string
    | Jobs of N: int
    | Threads of N: int
    | Memory of SIZE: string
    | [<AltCommandLine("-q")>] Quiet

    interface IArgParserTemplate with
        member a.Usage =
            let shared (argument: SweepPlanArgument) = (argument :> IArgParserTemplate).Usage

            match a with
            | Sweep v -> shared (SweepPlanArgument.Sweep v)
            | Out v -> shared (SweepPlanArgument.Out v)
            | Jobs _ ->
                "worker processes side by side (default: as many as threads and memory leave room for; 1 on a GPU). Results are the same, times are not"
            | Threads _ -> "threads of libtorch (default: 1 for features of up to 512 columns, else one for each core)"
            | Memory _ ->
                "memory for all workers together, such as 8G or 800M (default: what the machine has): no more workers than their cells leave room for"
            | Quiet -> "print nothing but errors"

[<RequireQualifiedAccess>]
type SweepFolderArgument =
    | [<MainCommand; ExactlyOnce>] Folder of FOLDER: string

    interface IArgParserTemplate with
        member a.Usage =
            match a with
            | Folder _ -> "the folder of a sweep"

[<RequireQualifiedAccess>]
type SweepSubmitArgument =
    | [<MainCommand; ExactlyOnce>] Sweep of FILE_OR_FOLDER: string
    | [<AltCommandLine("-o")>] Out of FOLDER: string
    | Engine of NAME: string
    | Array_Limit of N: int
    | Cells_Per_Task of N: int
    | Partition of NAME: string
    | Gres of LIST: string
    | Time of LIMIT: string
    | Mem of SIZE: string
    | Cpus of N: int
    | Dry_Run

    interface IArgParserTemplate with
        member a.Usage =
            let shared (argument: SweepPlanArgument) = (argument :> IArgParserTemplate).Usage

            match a with
            | Sweep v -> shared (SweepPlanArgument.Sweep v)
            | Out v -> shared (SweepPlanArgument.Out v)
            | Engine _ ->
                "local (default: as cmcl sweep run), slurm (an array job), or parallel (a job list for GNU parallel or xargs)"
            | Array_Limit _ -> "tasks of the array that may run at one time"
            | Cells_Per_Task _ -> "cells that a task runs one after another (default: 1)"
            | Partition _ -> "partition, as sbatch takes it"
            | Gres _ -> "such as gpu:1, as sbatch takes it"
            | Time _ -> "limit of a task, as sbatch takes it"
            | Mem _ -> "memory of a task, as sbatch takes it (default: twice what a cell is expected to hold)"
            | Cpus _ -> "cores of a task, one for each thread of libtorch (default: the threads that its stream is run with)"
            | Dry_Run -> "write the files, submit nothing"

[<RequireQualifiedAccess>]
type SweepArgument =
    | [<CliPrefix(CliPrefix.None)>] Plan of ParseResults<SweepPlanArgument>
    | [<CliPrefix(CliPrefix.None)>] Run of ParseResults<SweepRunArgument>
    | [<CliPrefix(CliPrefix.None)>] Status of ParseResults<SweepFolderArgument>
    | [<CliPrefix(CliPrefix.None)>] Collect of ParseResults<SweepFolderArgument>
    | [<CliPrefix(CliPrefix.None)>] Submit of ParseResults<SweepSubmitArgument>

    interface IArgParserTemplate with
        member a.Usage =
            match a with
            | Plan _ -> "check every configuration and count the cells; nothing runs"
            | Run _ -> "run what is not finished, in worker processes of this machine"
            | Status _ -> "what is finished, running (by whom), failed (why) and missing"
            | Collect _ -> "write results.csv, results.parquet and failures.csv; exit code 1 if a result is missing"
            | Submit _ -> "have a cluster run what is not finished; any other option of sbatch after --"

[<RequireQualifiedAccess>]
type CellArgument =
    | [<MainCommand; ExactlyOnce>] Cell of FOLDER: string * HASH: string

    interface IArgParserTemplate with
        member a.Usage =
            match a with
            | Cell _ -> "the folder of a sweep, and the hash of one of its cells (cmcl sweep plan FOLDER --cells lists them)"
