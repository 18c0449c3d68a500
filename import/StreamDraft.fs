namespace Cmcl

open TorchSharp

/// What an import tells while it works.
[<RequireQualifiedAccess>]
type ImportEvent =
    /// This file is read now: its head, or its rows.
    | Reading of file: string
    /// So many rows of a file are written, of those that it has.
    | Rows of file: string * sofar: int64 * all: int64

/// One matrix of a stream folder that is still to be filled: its path in the folder, the numbers' type, rows × columns.
type Matrix =
    { File: string
      Type: torch.ScalarType
      Rows: int64
      Columns: int64 }

/// Which rows of a matrix the rows of an array become, one after another; −1 for a row that is left out.
type Target = { Matrix: string; Place: int64 -> int64 }

/// Rows that come from one file, read once from front to back.
type Feed =
    {
        /// The file, for what is told of it.
        File: string
        Rows: int64
        /// What a row is called beside its number: a key, an id; or nothing.
        Row: int64 -> string
        /// Gives every block: its first row, and its rows of each array, block × d each. The blocks are freed after the call.
        Read: (int64 -> torch.Tensor list -> unit) -> Result<unit, Fault list>
        /// Where each of the arrays goes.
        Targets: Target list
    }

/// A stream folder that an importer proposes: its description, what its files are filled with, and what is worth telling.
/// Only heads of files and ids have been read; `StreamWriter` does the rest.
type StreamDraft =
    {
        Stream: StreamFile.Description
        Matrices: Matrix list
        /// Vectors of integers by their paths in the folder.
        Vectors: (string * int64[]) list
        Feeds: Feed list
        /// Lists of what the rows of banks were made from, as text by bank, in place of those that are there; none where nothing is known
        /// of them, and those stay.
        Lists: Map<string, string> option
        Notes: string list
    }

[<RequireQualifiedAccess>]
module StreamDraft =
    /// A type as NumPy calls it.
    let typeName (dtype: torch.ScalarType) : string = (string dtype).ToLowerInvariant()

    /// Bytes of a block of rows, about: what an import holds in memory at once.
    let blockBytes = 4L <<< 20

    /// Rows of so many bytes that make a block.
    let blockRows (rowBytes: int64) : int64 = max 1L (blockBytes / max 1L rowBytes)

    /// A file's name without its last ending, and that ending in small letters.
    let nameOf (path: string) : string * string =
        let name = System.IO.Path.GetFileName path |> string
        let ending = System.IO.Path.GetExtension name |> string
        name.Substring(0, name.Length - ending.Length), ending.ToLowerInvariant()

    let private first (count: int) (names: string seq) : string =
        let names = List.ofSeq names
        let shown = System.String.Join(", ", List.truncate count names)
        if names.Length > count then $"{shown} and {names.Length - count} more" else shown

    /// The first ten of many, and how many more there are.
    let firstTen (names: string seq) : string = first 10 names

    /// The first five of many, and how many more there are: of columns, of which there may be hundreds.
    let firstFew (names: string seq) : string = first 5 names

    let private pieces = System.Text.RegularExpressions.Regex @"\d+|\D+"

    /// Names in the order of people: digits in them count as the numbers that they are, so that 2 comes before 11.
    let natural (a: string) (b: string) : int =
        let key (name: string) =
            [ for piece in pieces.Matches name ->
                  if System.Char.IsAsciiDigit piece.Value[0] then
                      0, bigint.Parse piece.Value, ""
                  else
                      1, 0I, piece.Value ]

        match compare (key a) (key b) with
        | 0 -> System.String.CompareOrdinal(a, b)
        | order -> order

    /// A set of row numbers, as a range where it is one; else as a file of that path, and what that holds.
    let rowSet (file: string) (numbers: int64[]) : StreamFile.Rows * (string * int64[]) list =
        if numbers.Length > 0 && numbers[numbers.Length - 1] - numbers[0] = numbers.LongLength - 1L then
            StreamFile.Rows.Range(numbers[0], numbers[0] + numbers.LongLength), []
        else
            StreamFile.Rows.File file, [ file, numbers ]

    /// A share of n rows for validation, drawn by a seed and in ascending order, and the others; at least one of each, where
    /// there are two.
    let hold (share: float) (seed: Seed) (n: int64) : int64[] * int64[] =
        let count = int64 (System.Math.Round(share * float n)) |> max 1L |> min (n - 1L) |> max 0L
        use order = Seed.permutation n seed
        let validation, train = order.data<int64>().ToArray() |> Array.splitAt (int count)
        Array.sort train, Array.sort validation
