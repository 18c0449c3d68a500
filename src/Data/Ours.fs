namespace Cmcl

open System
open System.IO
open System.Text.RegularExpressions

/// What Cmcl has written into a folder of the user's: the only files that `--force` may delete.
[<RequireQualifiedAccess>]
module Ours =
    /// How the tables begin, by their names.
    let private tables =
        Map
            [ "results.csv", "stream,method,seed,step,task,metric,value"
              "losses.csv", "method,seed,step,epoch,loss"
              "spectra.csv", "method,seed,step,modality,"
              "monitor.csv", "method,seed,step,update,"
              "verify.csv", "run,condition,where,value,"
              "curves.csv", "figure,run,series,where,"
              "bench.csv", "form,d,batch,rank,"
              "steps.csv", "form,d,batch,rank,"
              "parity.csv", "form,dtype,d,batch,rank," ]

    /// Was a file of such a name written by Cmcl? One with nothing in it is nobody's loss.
    let private isOurs (path: string) : bool =
        FileInfo(path).Length = 0L
        || (match Map.tryFind (string (Path.GetFileName path)) tables, Path.GetExtension path with
            | Some start, _ ->
                match File.ReadLines path |> Seq.tryHead with
                | Some line -> line.TrimStart('\uFEFF').StartsWith(start, StringComparison.Ordinal)
                | None -> true
            | None, ".json" -> (File.ReadAllText path).Contains "\"cmcl\":"
            | None, ".html" -> (File.ReadAllText path).Contains "id=\"figures\""
            | _ -> false)

    /// Files below `weights` and `checkpoints`, by their paths from there.
    let private below =
        Map
            [ "weights", Regex @"^[^/\\]+[/\\](label\.txt|seed-\d+[/\\]step-\d+[/\\][A-Za-z0-9_-]+\.npy)$"
              "checkpoints", Regex @"^[0-9a-f]+[/\\](\d+\.json|[0-9a-f]{64}\.safetensors)$" ]

    /// Half-written files have the name of the whole one, a dot before it and 32 digits behind.
    let private half = Regex @"(^|[/\\])\.[^/\\]*\.[0-9a-f]{32}$"

    /// Is a file of such a name in a folder of checkpoints a checkpoint, a part of one, or half of either?
    let isOfCheckpoints (name: string) : bool = below["checkpoints"].IsMatch $"0/{name}" || half.IsMatch name

    /// Deletes the folders within one that hold nothing, and it itself if that is all.
    let rec private prune (folder: string) : unit =
        for inner in Directory.GetDirectories folder do
            if isNull (FileInfo(inner).LinkTarget) then
                prune inner

        if Seq.isEmpty (Directory.EnumerateFileSystemEntries folder) then
            Directory.Delete folder

    let private clearFolder (name: string) (path: string) : unit =
        let ours = below[name]

        for file in Directory.EnumerateFiles(path, "*", SearchOption.AllDirectories) |> List.ofSeq do
            let inner = Path.GetRelativePath(path, file)

            if ours.IsMatch inner || half.IsMatch inner then
                File.Delete file

        prune path

    /// Deletes files of these names and what Cmcl wrote below `weights` and `checkpoints`, as far as they are asked for; whatever else there
    /// is stays. Faults, before anything is deleted: a file of such a name that Cmcl has not written; `Unwritable`.
    let clear (files: string list, folders: string list) (folder: string) : Result<unit, Fault list> =
        let there = files |> List.map (fun name -> Path.Combine(folder, name)) |> List.filter File.Exists

        try
            match there |> List.filter (isOurs >> not) with
            | [] ->
                List.iter File.Delete there

                for name in folders do
                    let path = Path.Combine(folder, name)

                    if Directory.Exists path then
                        clearFolder name path

                Ok()
            | others ->
                Error
                    [ for path in others ->
                          Fault.Contradiction(
                              $"'{path}' was not written by cmcl, and --force replaces only what was",
                              "choose another folder with --out, or move the file away"
                          ) ]
        with
        | :? IOException
        | :? UnauthorizedAccessException as e -> Error [ Fault.Unwritable(folder, e.Message) ]
