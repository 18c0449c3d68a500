namespace Cmcl

open System
open System.Globalization
open System.IO
open System.IO.Compression
open System.Text.RegularExpressions
open TorchSharp

/// What a column holds for every row of a table.
[<RequireQualifiedAccess>]
type Holds =
    /// One number, of this type once it is read.
    | Number of torch.ScalarType
    /// A vector of so many numbers.
    | Vector of torch.ScalarType * width: int64
    /// A text or an integer, which may be an id or a class.
    | Word
    /// What can be neither features nor names, in words: `int8, n × 3`.
    | Other of what: string

/// A column of a table, or an array of a file, with one entry a row.
type Column = { Name: string; Holds: Holds; Rows: int64 }

/// What a file holds, by its heads: columns by name, and how they are read. A table, an archive of arrays and a tree of data sets are all
/// seen like this, so that one place decides what is meant by them.
type Table =
    {
        /// The file, for what is told of it.
        File: string
        Columns: Column list
        /// How the file was understood, where there was a choice.
        Notes: string list
        /// The words of a column, a row each, "" where there is none. Whole numbers are digits, whether they are stored as integers
        /// or as floats.
        Words: string -> Result<string[], Fault list>
        /// The rows of some columns of numbers side by side, in the order of the names: the first row of a block, and its rows × d. A block is
        /// freed after the call.
        Numbers: string list -> (int64 -> torch.Tensor -> unit) -> Result<unit, Fault list>
    }

/// A row whose vector is not as long as the first: raised within a reader of numbers, told by `FeatureTable.read`.
exception internal Ragged of row: int64 * expected: int64 * actual: int64

[<RequireQualifiedAccess>]
module Column =
    let private floats = [ torch.ScalarType.Float16; torch.ScalarType.Float32; torch.ScalarType.Float64 ]

    let private integers =
        [ torch.ScalarType.Bool
          torch.ScalarType.Byte
          torch.ScalarType.Int8
          torch.ScalarType.Int16
          torch.ScalarType.Int32
          torch.ScalarType.Int64 ]

    /// A column that is an array of these sizes. Sizes of 1 behind the first but one are no matter: n × 1 × d is n × d, and n × 1 of
    /// integers n words. bfloat16 is read as float32, which holds its numbers exactly.
    let ofArray (name: string) (dtype: torch.ScalarType) (shape: int64 list) : Column =
        let sizes = String.Join(" × ", shape)
        let other = Holds.Other $"{StreamDraft.typeName dtype}, {sizes}"
        let dtype = if dtype = torch.ScalarType.BFloat16 then torch.ScalarType.Float32 else dtype

        match shape with
        | [] -> { Name = name; Holds = other; Rows = 0L }
        | rows :: rest ->
            let holds =
                match rest |> List.filter ((<>) 1L) with
                | [] when List.contains dtype integers -> Holds.Word
                | [] when rest.IsEmpty && List.contains dtype floats -> Holds.Number dtype
                | [] when List.contains dtype floats -> Holds.Vector(dtype, 1L)
                | [ width ] when width > 0L && List.contains dtype floats -> Holds.Vector(dtype, width)
                | _ -> other

            { Name = name; Holds = holds; Rows = rows }

    /// How many numbers a row has.
    let width (column: Column) : int64 =
        match column.Holds with
        | Holds.Vector(_, width) -> width
        | _ -> 1L

    /// What a column holds, as it is told.
    let words (column: Column) : string =
        match column.Holds with
        | Holds.Number dtype -> $"'{column.Name}' ({StreamDraft.typeName dtype})"
        | Holds.Vector(dtype, width) -> $"'{column.Name}' ({StreamDraft.typeName dtype}, {column.Rows} × {width})"
        | Holds.Word -> $"'{column.Name}' (texts or integers)"
        | Holds.Other what -> $"'{column.Name}' ({what})"

[<RequireQualifiedAccess>]
module Table =
    /// What `act` makes of an input file, of whatever library: an exception of its own is a sentence.
    let reading (path: string) (act: unit -> Result<'a, Fault list>) : Result<'a, Fault list> =
        InputFile.reading "the import" path (fun () ->
            try
                act ()
            with
            | Ragged _ -> reraise ()
            | e ->
                match Check.cause e with
                | CmclException fault -> Error [ fault ]
                | :? OutOfMemoryException -> Error [ Fault.Unreadable(path, InputFile.NoMemory) ]
                // What our readers and the system say is a sentence already.
                | (:? InvalidDataException | :? IOException) as own -> Error [ Fault.Unreadable(path, own.Message) ]
                | cause ->
                    // Arrow C++'s come with the mangled name of their type, and with a stack behind the first line.
                    let line = Regex.Replace((cause.Message.Split('\n')[0]).Trim(), @"^N\d\S+ \(message: '(.*)'\)$", "$1")
                    let line = if line.Length > 200 then line.Substring(0, 200) + "…" else line
                    Error [ Fault.Unreadable(path, $"its reader says: {line}") ])

    /// A zip archive. .NET says of one that is cut short that an argument is invalid.
    let zip (path: string) : ZipArchive =
        try
            ZipFile.OpenRead path
        with :? IOException ->
            raise (InvalidDataException "it is a zip archive that is cut short or damaged")

    let private wordOf (x: float) (shown: unit -> string) : string =
        if Double.IsNaN x then ""
        elif x = floor x && abs x < 9e15 then string (int64 x)
        else shown ()

    /// A number as a word: whole numbers as digits, "" for NaN, which stands for none in tables of floats.
    let word (x: float) : string = wordOf x (fun () -> x.ToString(CultureInfo.InvariantCulture))

    /// The same of fewer bits, to as many digits as those have: 0.1f is 0.1.
    let singleWord (x: float32) : string = wordOf (float x) (fun () -> x.ToString(CultureInfo.InvariantCulture))

    /// The type of some columns of numbers side by side: theirs, or float64 where they differ.
    let common (columns: Column list) : torch.ScalarType =
        match
            columns
            |> List.choose (fun c ->
                match c.Holds with
                | Holds.Number dtype
                | Holds.Vector(dtype, _) -> Some dtype
                | _ -> None)
            |> List.distinct
        with
        | [ one ] -> one
        | _ -> torch.ScalarType.Float64
