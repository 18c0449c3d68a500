namespace Cmcl

open System
open System.IO
open System.Security.Cryptography
open System.Text
open System.Text.RegularExpressions

/// Files that appear whole or not at all.
[<RequireQualifiedAccess>]
module Files =
    /// What `act` gives; what the file system refuses is `Unwritable`.
    let writing (path: string) (act: unit -> 'a) : Result<'a, Fault list> =
        try
            Ok(act ())
        with
        | :? IOException
        | :? UnauthorizedAccessException as e -> Error [ Fault.Unwritable(path, e.Message) ]

    /// What `act` gives; what the file system refuses is `Unreadable`.
    let reading (path: string) (act: unit -> 'a) : Result<'a, Fault list> =
        try
            Ok(act ())
        with
        | :? IOException
        | :? UnauthorizedAccessException as e -> Error [ Fault.Unreadable(path, e.Message) ]

    /// Deletes a folder with all that is in it, if it is there. Fault: `Unwritable`.
    let deleteFolder (path: string) : Result<unit, Fault list> =
        writing path (fun () ->
            if Directory.Exists path then
                Directory.Delete(path, true))

    let private folderOf (full: string) : string = Path.GetDirectoryName full |> Option.ofObj |> Option.defaultValue "."

    /// Makes the folder of a file if there is none. Fault: `Unwritable`.
    let makeFolderOf (path: string) : Result<unit, Fault list> =
        writing path (fun () -> Directory.CreateDirectory(folderOf (Path.GetFullPath path)) |> ignore)

    /// Writes into a temporary file beside a path, which then takes the name that `name` gives it.
    let private beside (path: string) (write: FileStream -> unit) (name: unit -> string) : Result<unit, Fault list> =
        let full = Path.GetFullPath path
        let beside = Path.Combine(folderOf full, $".{Path.GetFileName full}.{Guid.NewGuid():N}")

        writing path (fun () ->
            // The file would take its place.
            if File.Exists full && not (InputFile.isRegular full) then
                raise (IOException "it is no file, but a pipe, a device or a socket")

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

    /// `writeWhole` for text: UTF-8, lines ending in a line feed. Makes the folder if there is none.
    /// As in `Files.writeText "results/note.txt" (fun file -> file.Write "one seed only")`.
    let writeText (path: string) (write: TextWriter -> unit) : Result<unit, Fault list> =
        makeFolderOf path
        |> Result.bind (fun () ->
            writeWhole path (fun stream ->
                use text = new StreamWriter(stream, UTF8Encoding false, NewLine = "\n")
                write text))

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

    let private halfName = Regex @"^\.(.+\.)?[0-9a-f]{32}$"

    /// Deletes the temporary files in a folder that processes left when they were killed in the midst of writing. Only for who alone writes there.
    let deleteHalves (folder: string) : Result<unit, Fault list> =
        writing folder (fun () ->
            if Directory.Exists folder then
                for path in Directory.EnumerateFiles(folder, ".*") do
                    if halfName.IsMatch(string (Path.GetFileName path)) then
                        File.Delete path)

    /// Whether a file of the user's may be written here: nothing is there yet, or it may be replaced.
    let free (force: bool) (path: string) : Result<unit, Fault list> =
        if Directory.Exists path then
            Error [ Fault.Unwritable(path, "it is a folder") ]
        elif File.Exists path && not force then
            Error
                [ Fault.Contradiction($"'{path}' exists already", "choose another name with --out, or replace it with --force") ]
        else
            Ok()
