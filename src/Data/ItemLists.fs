namespace Cmcl

open System
open System.IO

/// Where lists of what the rows of a bank were made from lie: CSV files with a line for each row (id, path or text).
[<RequireQualifiedAccess>]
module ItemLists =
    /// The folder of them within a stream's.
    [<Literal>]
    let Folder = "items"

    /// A bank's name as that of a file: `-` stands for all but letters, digits, `-`, `_` and `.`. Example: `ItemLists.stem "vision:noto" = "vision-noto"`.
    let stem (bank: string) : string = bank |> String.map (fun c -> if Char.IsLetterOrDigit c || "-_.".Contains c then c else '-')

    /// The name of a bank's list in the folder. Example: `ItemLists.file "vision:noto" = "vision-noto.csv"`.
    let file (bank: string) : string = stem bank + ".csv"

    /// The list that belongs to an array's file, beside it. As in `ItemLists.beside "features/vision.npy"`.
    let beside (array: string) : string = string (Path.ChangeExtension(Path.GetFullPath array, "items.csv"))
