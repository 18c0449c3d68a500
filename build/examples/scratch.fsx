// Blocks that run in a folder of their page, output/examples/PAGE, in order: python, where NumPy is there; sh under a comment
// <!-- run -->, with cmcl as the command of this tree. A block under <!-- file NAME --> is written there first.
#load "../markdown.fsx"

open System
open System.Diagnostics
open System.IO
open Markdown

/// Exit code and output of a program.
let execute (folder: string) (program: string) (arguments: string list) : int * string =
    let info =
        ProcessStartInfo(
            program,
            arguments,
            WorkingDirectory = folder,
            RedirectStandardOutput = true,
            RedirectStandardError = true
        )

    use p = Process.Start info |> Option.ofObj |> Option.get
    let error = p.StandardError.ReadToEndAsync()
    let output = p.StandardOutput.ReadToEnd()
    p.WaitForExit()
    p.ExitCode, (output.Trim() + "\n" + error.Result.Trim()).Trim()

let folderOf (page: string) : string = full ("output/examples/" + Path.ChangeExtension(page, null).Replace('/', '-'))

/// A Python that has NumPy: the first on the path, or Debian's.
let private python =
    lazy
        ([ "python3"; "/usr/bin/python3" ]
         |> List.tryFind (fun program ->
             try
                 fst (execute root program [ "-c"; "import numpy" ]) = 0
             with _ ->
                 false))

type private Act =
    | Write of name: string
    | Run of program: string * arguments: string list
    | Skip of why: string

let private actOf (block: Block) =
    let text = String.concat "\n" block.Lines

    match block.Language, block.Note.Split ' ' |> List.ofArray with
    | _, [ "file"; name ] -> Some(Write name)
    | "python", _ ->
        match python.Value with
        | Some program -> Some(Run(program, [ "-c"; text ]))
        | None -> Some(Skip "no NumPy here")
    | "sh", [ "run" ] ->
        let cmcl = full "cli/bin/Release/net10.0/Cmcl.Cli.dll"
        Some(Run("bash", [ "-c"; "set -euo pipefail; cmcl() { dotnet '" + cmcl + "' \"$@\"; }\n" + text ]))
    | _ -> None

/// What was done, a line a block, and what failed.
let run (page: string) : string list * string list =
    match blocks page |> List.choose (fun b -> actOf b |> Option.map (fun act -> b, act)) with
    | [] -> [], []
    | acts ->
        let folder = folderOf page

        if Directory.Exists folder then
            Directory.Delete(folder, true)

        Directory.CreateDirectory folder |> ignore

        let step (told, faults, skipped) (block: Block, act) =
            let where = $"{page}({block.Line})"

            match act with
            | Skip why -> $"{where}: not run, {why}" :: told, faults, true
            // What a skipped block would have made is not there.
            | Run("bash", _) when skipped -> $"{where}: not run, a block before it was not" :: told, faults, skipped
            | Write name ->
                let file = Path.Combine(folder, name)
                Directory.CreateDirectory(Path.GetDirectoryName file |> Option.ofObj |> Option.get) |> ignore
                File.WriteAllLines(file, block.Lines)
                told, faults, skipped
            | Run(program, arguments) ->
                let clock = Stopwatch.StartNew()
                let code, output = execute folder program arguments
                let line = $"{where}: {block.Language} ran in {clock.Elapsed.TotalSeconds:F0} s"

                if code = 0 then
                    line :: told, faults, skipped
                else
                    told, $"{where}: exit code {code}\n{output}" :: faults, skipped

        let told, faults, _ = (([], [], false), acts) ||> List.fold step
        List.rev told, List.rev faults
