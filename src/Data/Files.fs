namespace Cmcl

open System
open System.IO

/// Files that appear whole or not at all.
[<RequireQualifiedAccess>]
module Files =
    let private unwritable (path: string) (act: unit -> unit) : Result<unit, Fault list> =
        try
            act ()
            Ok()
        with
        | :? IOException
        | :? UnauthorizedAccessException as e -> Error [ Fault.Unwritable(path, e.Message) ]

    let private folderOf (full: string) : string = Path.GetDirectoryName full |> Option.ofObj |> Option.defaultValue "."

    /// Writes a file so that readers see the old one or the whole new one, never a part: into a temporary file beside it, which
    /// then takes its name. Fault: `Unwritable`; what `write` raises otherwise goes on up.
    let writeWhole (path: string) (write: Stream -> unit) : Result<unit, Fault list> =
        let full = Path.GetFullPath path
        let beside = Path.Combine(folderOf full, $".{Path.GetFileName full}.{Guid.NewGuid():N}")

        unwritable path (fun () ->
            try
                do
                    use file = File.Create beside
                    write file

                File.Move(beside, full, overwrite = true)
            finally
                if File.Exists beside then
                    File.Delete beside)

    /// Makes the folder of a file if there is none. Fault: `Unwritable`.
    let makeFolderOf (path: string) : Result<unit, Fault list> =
        unwritable path (fun () -> Directory.CreateDirectory(folderOf (Path.GetFullPath path)) |> ignore)

    /// Whether a file of the user's may be written here: nothing is there yet, or it may be replaced.
    let free (force: bool) (path: string) : Result<unit, Fault list> =
        if Directory.Exists path then
            Error [ Fault.Unwritable(path, "it is a folder") ]
        elif File.Exists path && not force then
            Error
                [ Fault.Contradiction($"'{path}' exists already", "choose another name with --out, or replace it with --force") ]
        else
            Ok()
