/// What `cmcl new` does: a script to begin with. A result is an exit code: 0, or 2 for a user's mistake.
module Cmcl.Cli.NewCommand

open System
open System.IO
open Argu
open Cmcl
open Cmcl.Cli.Arguments
open Cmcl.Cli.Commands

let private template (file: string) : string =
    let name = $"Cmcl.Cli.{file}"

    match typeof<NewArgument>.Assembly.GetManifestResourceStream name with
    | null -> invalidOp $"the resource {name} is missing"
    | resource ->
        use reader = new StreamReader(resource)
        reader.ReadToEnd()

/// What a script in a folder loads: that of the clone around it, or else the one beside this command.
let private library (folder: string) : string =
    Catalogue.upwards folder
    |> List.tryFind (fun parent -> File.Exists(Path.Combine(parent, "src", "Cmcl.fsproj")))
    |> Option.map (fun clone -> Path.GetRelativePath(folder, Path.Combine(clone, "scripts", "load.fsx")))
    |> Option.defaultValue (Path.Combine(AppContext.BaseDirectory, "load.fsx"))

let create (arguments: ParseResults<NewArgument>) : int =
    let like = $"{arguments.GetResult(NewArgument.Kind, ScriptKind.Ablation)}.fsx".ToLowerInvariant()
    let file = arguments.GetResult NewArgument.File
    let file = if Path.HasExtension file then file else file + ".fsx"
    let name = string (Path.GetFileNameWithoutExtension file)
    let folder = string (Path.GetDirectoryName(Path.GetFullPath file))

    let text =
        (template like)
            .Replace("#load \"../../scripts/load.fsx\"", $"#load @\"{library folder}\"")
            .Replace(like, Path.GetFileName file)
            .Replace("results/ablation", $"results/{name}")

    let free =
        if Path.GetExtension file <> ".fsx" then
            Error [ Fault.BadValue("FILE", "the name of a script, such as mine.fsx", file) ]
        elif File.Exists file && not (arguments.Contains NewArgument.Force) then
            Error [ Fault.Contradiction($"'{file}' exists already", "choose another name, or replace it with --force") ]
        else
            Ok()

    free
    |> Result.bind (fun () -> Files.writeText file (fun w -> w.Write text))
    |> function
        | Error faults -> refuse faults
        | Ok() ->
            printfn "%s. Run it with: dotnet fsi %s" file file
            0
