namespace Cmcl

open System
open System.IO
open System.Security.Cryptography

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

    /// Writes into a temporary file beside a path, which then takes the name that `name` gives it.
    let private beside (path: string) (write: FileStream -> unit) (name: unit -> string) : Result<unit, Fault list> =
        let full = Path.GetFullPath path
        let beside = Path.Combine(folderOf full, $".{Path.GetFileName full}.{Guid.NewGuid():N}")

        unwritable path (fun () ->
            try
                do
                    use file = File.Create beside
                    write file

                File.Move(beside, Path.Combine(folderOf full, name ()), overwrite = true)
            finally
                if File.Exists beside then
                    File.Delete beside)

    /// Writes a file so that readers see the old one or the whole new one, never a part: into a temporary file beside it, which
    /// then takes its name. Fault: `Unwritable`; what `write` raises otherwise goes on up.
    let writeWhole (path: string) (write: Stream -> unit) : Result<unit, Fault list> =
        beside path (fun file -> write file) (fun () -> string (Path.GetFileName path))

    /// `writeWhole`, on the disk before it has its name: a loss of power leaves the old one or the new one, too.
    let writeDurably (path: string) (write: Stream -> unit) : Result<unit, Fault list> =
        beside
            path
            (fun file ->
                write file
                file.Flush true)
            (fun () -> string (Path.GetFileName path))

    /// `writeDurably` under a name that is the hexadecimal SHA-256 of the content with an extension; returns that name.
    let writeByContent (folder: string) (extension: string) (write: Stream -> unit) : Result<string, Fault list> =
        use hash = SHA256.Create()
        let name () = Convert.ToHexStringLower(hash.Hash |> Option.ofObj |> Option.defaultValue [||]) + extension

        beside
            (Path.Combine(folder, "part" + extension))
            (fun file ->
                use hashed = new CryptoStream(file, hash, CryptoStreamMode.Write, leaveOpen = true)
                write hashed
                hashed.FlushFinalBlock()
                file.Flush true)
            name
        |> Result.map name

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
