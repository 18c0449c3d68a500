namespace Cmcl.Encoders

open System
open System.IO
open Cmcl

/// What a row of a bank was made from: a file (a picture, a recording), a text, or a file with a text beside it.
type BankItem =
    {
        Id: string
        /// The full path of the file.
        Path: string option
        Text: string option
    }

/// The items of banks, in a folder beside a stream: for each bank a CSV of the form that `cmcl extract` takes, one line a row of the bank, in
/// the bank's order.
[<RequireQualifiedAccess>]
module BankItems =
    /// The folder within a stream's that `cmcl gallery` looks in.
    [<Literal>]
    let Folder = "items"

    /// The name of a bank's file: `-` stands for all but letters, digits, `-`, `_` and `.`. Example: `BankItems.file "vision:noto" = "vision-noto.csv"`.
    let file (bank: string) : string =
        let name = bank |> String.map (fun c -> if Char.IsLetterOrDigit c || "-_.".Contains c then c else '-')
        name + ".csv"

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

    /// The items of a bank with so many rows; None where the folder has no file of it. Faults: `Unreadable` with the line, `Shape` for more
    /// or fewer lines than rows.
    let read (folder: string) (bank: string) (rows: int64) : Result<BankItem[] option, Fault list> =
        let path = Path.Combine(folder, file bank)

        if not (File.Exists path) then
            Ok None
        else
            Manifest.fields "the gallery" path
            |> Result.bind (fun lines ->
                match List.tryPick (unfit path) lines with
                | Some fault -> Error [ fault ]
                | None ->
                    let folder = string (Path.GetDirectoryName(Path.GetFullPath path))
                    Ok [| for _, fields in lines -> item folder fields |])
            |> Result.bind (fun items ->
                if items.LongLength = rows then
                    Ok(Some items)
                else
                    Error
                        [ Fault.Shape(
                              $"the items in '{path}'",
                              $"{rows} lines, one for each row of bank '{bank}'",
                              string items.LongLength
                          ) ])
