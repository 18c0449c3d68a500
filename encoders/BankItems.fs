namespace Cmcl.Encoders

open System
open System.IO
open CsvHelper
open Cmcl

/// What a row of a bank was made from: a file (a picture, a recording), a text, or a file with a text beside it.
type BankItem =
    {
        Id: string
        /// The full path of the file.
        Path: string option
        Text: string option
    }

/// The items of banks, a CSV of the form that `cmcl extract` takes, one line a row of the bank, in the bank's order: beside a bank that
/// `cmcl extract` wrote (`ItemLists.beside`), or in a folder beside a stream.
[<RequireQualifiedAccess>]
module BankItems =
    /// The folder within a stream's that `cmcl gallery` looks in.
    let Folder = ItemLists.Folder

    /// The name of a bank's file in that folder. Example: `BankItems.file "vision:noto" = "vision-noto.csv"`.
    let file (bank: string) : string = ItemLists.file bank

    let private item (folder: string) (fields: Map<string, string>) : BankItem =
        let field name = Map.tryFind name fields |> Option.filter ((<>) "")

        { Id = Option.defaultValue "" (field "id")
          Path = field "path" |> Option.map (fun path -> Path.GetFullPath(Path.Combine(folder, path)))
          Text = field "text" }

    /// A line that says nothing of its row, or has a path that is none.
    let private unfit (path: string) (line: int64, fields: Map<string, string>) : Fault option =
        if not (fields.ContainsKey "id" && (fields.ContainsKey "path" || fields.ContainsKey "text")) then
            Some(Manifest.wrong path 1L "the header has to name id, and path or text")
        elif fields.Values |> Seq.exists _.Contains('\000') then
            Some(Manifest.wrong path line "there is a NUL in it")
        else
            None

    /// The items of a list with so many lines. Faults: `Unreadable` with the line, `Shape` for more or fewer lines than rows.
    let ofFile (neededBy: string) (whose: string) (rows: int64) (path: string) : Result<BankItem[], Fault list> =
        Manifest.fields neededBy path
        |> Result.bind (fun lines ->
            match List.tryPick (unfit path) lines with
            | Some fault -> Error [ fault ]
            | None ->
                let folder = string (Path.GetDirectoryName(Path.GetFullPath path))
                let items = [| for _, fields in lines -> item folder fields |]

                if items.LongLength = rows then
                    Ok items
                else
                    Error
                        [ Fault.Shape(
                              $"the items in '{path}'",
                              $"{rows} lines, one for each row of {whose}",
                              string items.LongLength
                          ) ])

    /// The items of a bank with so many rows, from a folder beside a stream; None where the folder has no file of it. Faults: those of `ofFile`.
    let read (folder: string) (bank: string) (rows: int64) : Result<BankItem[] option, Fault list> =
        let path = Path.Combine(folder, file bank)

        if File.Exists path then
            ofFile "the gallery" $"bank '{bank}'" rows path |> Result.map Some
        else
            Ok None

    /// A list as text that `ofFile` and `cmcl extract` read from a file in that folder, to which paths are relative.
    let text (folder: string) (items: BankItem seq) : string =
        let relative (path: string) =
            Path.GetRelativePath(Path.GetFullPath folder, path).Replace(Path.DirectorySeparatorChar, '/')

        let paths = items |> Seq.exists _.Path.IsSome
        let texts = not paths || items |> Seq.exists _.Text.IsSome

        let record (id: string) (path: string) (text: string) =
            [| id
               if paths then
                   path
               if texts then
                   text |]

        use writer = new StringWriter()
        use csv = CsvWriter.Create(writer, CsvWriterOptions(NewLine = "\n"), leaveOpen = true)
        csv.WriteRecord(record "id" "path" "text")

        for item in items do
            let path = item.Path |> Option.map relative |> Option.defaultValue ""
            csv.WriteRecord(record item.Id path (Option.defaultValue "" item.Text))

        csv.Flush()
        string writer

    /// Writes a list; paths become relative to its folder. Fault: `Unwritable`.
    let write (path: string) (items: BankItem seq) : Result<unit, Fault list> =
        let folder = string (Path.GetDirectoryName(Path.GetFullPath path))
        Files.writeText path (fun w -> w.Write(text folder items))
