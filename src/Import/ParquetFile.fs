namespace Cmcl

open System
open System.Buffers.Binary
open System.IO
open System.IO.Compression
open System.Text
open Microsoft.Win32.SafeHandles

/// Parquet files, as far as features need them: columns of texts and integers, and one list of floats a row. After the format's
/// description (apache/parquet-format 2.10).
///
/// A reader of our own, because Parquet.Net 6.1 does not come back from some damaged files: of 3,000 with random changes it hung
/// on 5, in the description at the file's end; of 12,000 whose description was checked for its form beforehand, on 2. Here every
/// size is checked against the file before memory is asked for, and work is bounded by the file's length. Read: pages of both
/// versions, plain and dictionary encoding, no compression, Snappy, gzip and Zstandard; what is left out is refused by name.
[<RequireQualifiedAccess>]
module internal ParquetFile =

    /// What a file says that cannot be. It leaves this module as the words of `Corrupt` only through `guarded`.
    exception private Corrupt of reason: string

    let private corrupt reason = raise (Corrupt reason)

    // ---- Thrift's compact protocol -------------------------------------------------------------------------------

    type private Thrift =
        | Number of int64
        | Text of byte[]
        | Many of Thrift[]
        | Fields of Map<int, Thrift>

    type private Cursor = { Bytes: byte[]; mutable At: int }

    let private left (c: Cursor) = c.Bytes.Length - c.At

    let private next (c: Cursor) : int =
        if left c < 1 then
            corrupt "its structure is cut short"

        c.At <- c.At + 1
        int c.Bytes[c.At - 1]

    let private varint (c: Cursor) : uint64 =
        let mutable value, shift, more = 0UL, 0, true

        while more do
            let b = next c

            if shift > 63 then
                corrupt "a number in its structure is too long"

            value <- value ||| (uint64 (b &&& 0x7f) <<< shift)
            shift <- shift + 7
            more <- b &&& 0x80 <> 0

        value

    let private zigzag (c: Cursor) : int64 =
        let n = varint c
        int64 (n >>> 1) ^^^ -(int64 (n &&& 1UL))

    /// A number of things that each take a byte at least.
    let private size (c: Cursor) (n: uint64) : int =
        if n > uint64 (left c) then
            corrupt "its structure promises more than the file holds"

        int n

    let private deepest = 24

    let rec private value (depth: int) (kind: int) (c: Cursor) : Thrift =
        if depth > deepest then
            corrupt "its structure is too deep"

        match kind with
        | 1
        | 2 -> Number(if kind = 1 then 1L else 0L)
        | 3 -> Number(int64 (sbyte (next c)))
        | 4
        | 5
        | 6 -> Number(zigzag c)
        | 7 ->
            c.At <- c.At + size c 8UL
            Number 0L
        | 8 ->
            let length = size c (varint c)
            c.At <- c.At + length
            Text c.Bytes[c.At - length .. c.At - 1]
        | 9
        | 10 ->
            let head = next c
            let length = size c (if head >>> 4 = 15 then varint c else uint64 (head >>> 4))
            // Truth values in a list take a byte each, unlike those in a struct.
            let item =
                match head &&& 15 with
                | 1
                | 2 -> 3
                | other -> other

            Many(Array.init length (fun _ -> value (depth + 1) item c))
        | 11 ->
            let length = size c (varint c)
            let kinds = if length > 0 then next c else 0
            Many(Array.init (2 * length) (fun i -> value (depth + 1) (if i % 2 = 0 then kinds >>> 4 else kinds &&& 15) c))
        | 12 -> fields (depth + 1) c
        | other -> corrupt $"its structure has a value of kind {other}, which there is not"

    and private fields (depth: int) (c: Cursor) : Thrift =
        let mutable found, last, head = Map.empty, 0, next c

        while head <> 0 do
            last <- if head >>> 4 = 0 then int (zigzag c) else last + (head >>> 4)
            found <- Map.add last (value depth (head &&& 15) c) found
            head <- next c

        Fields found

    let private field (key: int) (thrift: Thrift) : Thrift option =
        match thrift with
        | Fields fields -> Map.tryFind key fields
        | _ -> None

    let private numberOr (fallback: int64) key thrift =
        match field key thrift with
        | Some(Number n) -> n
        | _ -> fallback

    let private number (what: string) key thrift =
        match field key thrift with
        | Some(Number n) -> n
        | _ -> corrupt $"it does not say {what}"

    let private items key thrift =
        match field key thrift with
        | Some(Many items) -> items
        | _ -> [||]

    let private textOf (bytes: byte[]) =
        try
            UTF8Encoding(false, true).GetString bytes
        with :? DecoderFallbackException ->
            corrupt "a text in it is not valid UTF-8"

    // ---- structure -----------------------------------------------------------------------------------------------

    /// A column that has values: its path, its physical type, how deep its levels go.
    type Column =
        { Place: int
          Path: string list
          Type: int
          Definition: int
          Repetition: int }

    let int32, int64', float32', float64', text = 1, 2, 4, 5, 6

    type private Chunk = { Codec: int; Values: int64; First: int64; Stop: int64 }

    type File =
        private
            {
                Path: string
                Handle: SafeFileHandle
                Length: int64
                Columns: Column list
                Groups: (int64 * Chunk[])[]
                /// Values that may still be decoded: no file holds more than eight in a byte.
                mutable Budget: int64
            }

    let columns (file: File) = file.Columns
    let rows (file: File) = file.Groups |> Array.sumBy fst

    let private bytes (handle: SafeFileHandle) (length: int64) (what: string) (offset: int64) (count: int64) : byte[] =
        if offset < 0L || count < 0L || count > length || offset > length - count then
            corrupt $"{what} is said to lie at byte {offset}, {count} bytes long, but the file has only {length}"

        let buffer = Array.zeroCreate<byte>(int count)

        if RandomAccess.Read(handle, Span buffer, offset) < buffer.Length then
            corrupt $"{what} ends with the file"

        buffer

    /// The leaves of the schema, which lists its tree depth first.
    let private leaves (elements: Thrift[]) : Column list =
        let mutable at = 0
        let found = ResizeArray<Column>()

        let rec walk (depth: int) (path: string list) (definition: int) (repetition: int) =
            if at >= elements.Length || depth > deepest then
                corrupt "its schema is not whole"

            let element = elements[at]
            at <- at + 1

            let name =
                match field 4 element with
                | Some(Text name) -> textOf name
                | _ -> corrupt "a column has no name"

            let root = depth = 0
            let kind = if root then 0L else numberOr 0L 3 element
            let path = if root then [] else path @ [ name ]
            let definition = definition + (if kind = 1L || kind = 2L then 1 else 0)
            let repetition = repetition + (if kind = 2L then 1 else 0)
            let children = numberOr 0L 5 element

            if children > 0L then
                if children > int64 elements.Length then
                    corrupt "its schema is not whole"

                for _ in 1L .. children do
                    walk (depth + 1) path definition repetition
            elif not root then
                found.Add
                    { Place = found.Count
                      Path = path
                      Type = int (numberOr -1L 1 element)
                      Definition = definition
                      Repetition = repetition }

        walk 0 [] 0 0
        List.ofSeq found

    let private chunk (length: int64) (thrift: Thrift) : Chunk =
        if (field 1 thrift).IsSome then
            corrupt "a column of it is in another file"

        match field 3 thrift with
        | None -> corrupt "a column of it is encrypted, or is not described"
        | Some meta ->
            let data, dictionary = number "where a column is" 9 meta, numberOr 0L 11 meta
            let first = if dictionary > 0L then min data dictionary else data
            let held = number "how long a column is" 7 meta

            if first < 4L || held < 0L || held > length || first > length - held then
                corrupt $"a column is said to lie at byte {first}, {held} bytes long, but the file has only {length}"

            { Codec = int (numberOr 0L 4 meta)
              Values = number "how many values a column has" 5 meta
              First = first
              Stop = first + held }

    let private open' (path: string) (handle: SafeFileHandle) : File =
        let length = RandomAccess.GetLength handle

        if length < 12L || bytes handle length "its head" 0L 4L <> "PAR1"B then
            corrupt "it is not a Parquet file"

        let tail = bytes handle length "its end" (length - 8L) 8L

        if tail[4..] <> "PAR1"B then
            corrupt "it does not end as a Parquet file does; it may be cut short"

        let size = int64 (BinaryPrimitives.ReadUInt32LittleEndian(ReadOnlySpan tail))

        let meta =
            fields
                0
                { Bytes = bytes handle length "its description" (length - 8L - size) size
                  At = 0 }

        let columns = leaves (items 2 meta)

        let groups =
            items 4 meta
            |> Array.map (fun group ->
                let chunks = items 1 group |> Array.map (chunk length)
                let rows = number "how many rows a group has" 3 group

                if chunks.Length <> columns.Length || rows < 0L then
                    corrupt "a group of rows has not the columns of the schema"

                rows, chunks)

        if groups |> Array.exists (fun (rows, _) -> rows > length) || Array.sumBy fst groups > length then
            corrupt $"it promises more rows than its {length} bytes can hold"

        { Path = path
          Handle = handle
          Length = length
          Columns = columns
          Groups = groups
          Budget = 8L * length + 4096L }

    // ---- pages ---------------------------------------------------------------------------------------------------

    /// The most that a codec makes of a byte, and how it is undone into a buffer of the size expected.
    let private codecs: Map<int, int64 * (byte[] -> byte[] -> int)> =
        Map
            [ 1,
              (64L,
               fun packed into ->
                   // The bytes say their size too, and so much is asked for whatever there is room for.
                   if Snappier.Snappy.GetUncompressedLength(ReadOnlySpan packed) <> into.Length then
                       corrupt "a page does not unpack to the size that it says"

                   Snappier.Snappy.Decompress(ReadOnlySpan packed, Span into))
              2,
              (1032L,
               fun packed into ->
                   use stream = new GZipStream(new MemoryStream(packed), CompressionMode.Decompress)
                   stream.ReadAtLeast(into, into.Length, false))
              6,
              (4096L,
               fun packed into ->
                   use zstd = new ZstdSharp.Decompressor()
                   zstd.Unwrap(ReadOnlySpan packed, Span into)) ]

    let private unpack (codec: int) (packed: byte[]) (expected: int64) : byte[] =
        if codec = 0 then
            if packed.LongLength <> expected then
                corrupt "a page is not as long as it says"

            packed
        else
            match Map.tryFind codec codecs with
            | None -> corrupt $"it is compressed by codec {codec}; none, snappy, gzip and zstd can be read"
            | Some(most, undo) ->
                if expected < 0L || expected > most * packed.LongLength + 65536L || expected > (1L <<< 30) then
                    corrupt $"a page is said to unpack from {packed.Length} to {expected} bytes, which cannot be"

                let into = Array.zeroCreate<byte>(int expected)

                if into.Length > 0 && undo packed into <> into.Length then
                    corrupt "a page does not unpack to the size that it says"

                into

    /// Runs of equal numbers and packed numbers of some bits each (the format's RLE/bit-packing hybrid).
    let private hybrid (bits: int) (count: int) (bytes: byte[]) (start: int) (stop: int) : int[] =
        let found = Array.zeroCreate<int> count

        if bits > 31 then
            corrupt $"numbers of {bits} bits are not read"

        if bits > 0 then
            let c =
                { Bytes = (if stop = bytes.Length then bytes else bytes[.. stop - 1])
                  At = start }

            let mutable n = 0

            while n < count do
                let head = varint c
                let length = head >>> 1

                if length = 0UL then
                    corrupt "a run of numbers is empty"

                if head &&& 1UL = 0UL then
                    let mutable value = 0

                    for i in 0 .. (bits + 7) / 8 - 1 do
                        value <- value ||| (next c <<< (8 * i))

                    let run = int (min length (uint64 (count - n)))
                    Array.fill found n run value
                    n <- n + run
                else
                    let run = int (min (length * 8UL) (uint64 (count - n)))
                    let mutable held, have = 0UL, 0

                    for i in n .. n + run - 1 do
                        while have < bits do
                            held <- held ||| (uint64 (next c) <<< have)
                            have <- have + 8

                        found[i] <- int (held &&& ((1UL <<< bits) - 1UL))
                        held <- held >>> bits
                        have <- have - bits

                    n <- n + run
                    // What is left of the last group of eight.
                    let rest = if length > uint64 (left c) then left c else int length * bits - (run * bits + 7) / 8
                    c.At <- c.At + max 0 (min rest (left c))

        found

    /// The values that are there: numbers one after another, or texts.
    type private Plain =
        | Fixed of byte[]
        | Texts of byte[][]

    type private Page = { Definition: int[]; Repetition: int[]; Plain: Plain }

    let private width (column: Column) =
        if column.Type = int32 || column.Type = float32' then 4
        elif column.Type = int64' || column.Type = float64' then 8
        else 0

    /// Plain values: fixed sizes one after another, texts each after its length.
    let private plain (column: Column) (count: int) (bytes: byte[]) (start: int) : Plain =
        match width column with
        | 0 ->
            let c = { Bytes = bytes; At = start }

            Texts(
                Array.init count (fun _ ->
                    if left c < 4 then
                        corrupt "a text is cut short"

                    let length = size c (uint64 (BinaryPrimitives.ReadUInt32LittleEndian(ReadOnlySpan(bytes, c.At, 4))))
                    c.At <- c.At + 4

                    if length > left c then
                        corrupt "a text is cut short"

                    c.At <- c.At + length
                    bytes[c.At - length .. c.At - 1])
            )
        | width ->
            if count > (bytes.Length - start) / width then
                corrupt "a page has fewer values than it says"

            Fixed bytes[start .. start + count * width - 1]

    let private bitsFor (most: int) = if most = 0 then 0 else 32 - Numerics.BitOperations.LeadingZeroCount(uint32 most)

    /// The words of a dictionary by their numbers.
    let private look (width: int) (words: Plain) (places: int[]) : Plain =
        let count =
            match words with
            | Fixed bytes -> bytes.Length / width
            | Texts texts -> texts.Length

        if places |> Array.exists (fun i -> i >= count) then
            corrupt "a value points outside its dictionary"

        match words with
        | Texts texts -> Texts(places |> Array.map (fun i -> texts[i]))
        | Fixed bytes ->
            let found = Array.zeroCreate<byte>(places.Length * width)
            places |> Array.iteri (fun at i -> Array.blit bytes (i * width) found (at * width) width)
            Fixed found

    let private decode
        (column: Column)
        (dictionary: Plain option)
        (encoding: int64)
        (count: int)
        (bytes: byte[])
        (start: int)
        : Plain =
        match encoding, dictionary with
        | 0L, _ -> plain column count bytes start
        | (2L | 8L), Some _ when count = 0 -> plain column 0 bytes start
        | (2L | 8L), Some _ when start >= bytes.Length -> corrupt "a page has fewer values than it says"
        | (2L | 8L), Some words -> hybrid (int bytes[start]) count bytes (start + 1) bytes.Length |> look (width column) words
        | (2L | 8L), None -> corrupt "a page needs a dictionary that is not there"
        | other, _ ->
            corrupt $"a column is in encoding {other}; plain and dictionary can be read (pyarrow: column_encoding='PLAIN')"

    let private levels (most: int) (count: int) (bytes: byte[]) (start: int) (stop: int) : int[] =
        let found = hybrid (bitsFor most) count bytes start stop

        if Array.exists (fun level -> level > most) found then
            corrupt "a level is deeper than its column"

        found

    /// The pages of a column's part in one group of rows, one at a time.
    let private pages (file: File) (column: Column) (chunk: Chunk) (act: Page -> unit) : unit =
        let mutable at, seen, dictionary = chunk.First, 0L, None

        let claimed (n: int64) =
            file.Budget <- file.Budget - n

            if n < 0L || n > chunk.Values - seen || n > (1L <<< 26) || file.Budget < 0L then
                corrupt "a page promises more values than its column has, or than the file can hold"

            int n

        while seen < chunk.Values do
            let window =
                { Bytes = bytes file.Handle file.Length "a page" at (min 65536L (chunk.Stop - at))
                  At = 0 }

            let head = fields 0 window
            let packed, unpacked = number "how long a page is" 3 head, number "how long a page is" 2 head
            let body = at + int64 window.At

            if packed < 0L || packed > chunk.Stop - body then
                corrupt "a page is longer than its column"

            let data = bytes file.Handle file.Length "a page" body packed
            at <- body + packed

            match numberOr -1L 1 head, field 5 head, field 7 head, field 8 head with
            | 2L, _, Some about, _ ->
                let unpacked = unpack chunk.Codec data unpacked
                let count = number "how large a dictionary is" 1 about

                if count < 0L || count > unpacked.LongLength then
                    corrupt "a dictionary promises more values than it holds"

                dictionary <- Some(plain column (int count) unpacked 0)
            | 0L, Some about, _, _ ->
                let count = claimed (number "how many values a page has" 1 about)
                let bytes = unpack chunk.Codec data unpacked
                let mutable start = 0

                let prefixed most =
                    if most = 0 then
                        Array.zeroCreate count
                    else
                        if bytes.Length - start < 4 then
                            corrupt "a page is cut short"

                        let length = int64 (BinaryPrimitives.ReadUInt32LittleEndian(ReadOnlySpan(bytes, start, 4)))

                        if length > int64 (bytes.Length - start - 4) then
                            corrupt "a page is cut short"

                        let from = start + 4
                        start <- from + int length
                        levels most count bytes from start

                let repetition = prefixed column.Repetition
                let definition = prefixed column.Definition
                let there = definition |> Array.sumBy (fun level -> if level = column.Definition then 1 else 0)

                act
                    { Definition = definition
                      Repetition = repetition
                      Plain = decode column dictionary (numberOr -1L 2 about) there bytes start }

                seen <- seen + int64 count
            | 3L, _, _, Some about ->
                let count = claimed (number "how many values a page has" 1 about)
                let definitions, repetitions = numberOr 0L 5 about, numberOr 0L 6 about

                if definitions < 0L || repetitions < 0L || definitions > packed || repetitions > packed - definitions then
                    corrupt "the levels of a page are longer than the page"

                let before = int (definitions + repetitions)
                let codec = if numberOr 1L 7 about = 0L then 0 else chunk.Codec
                let values = unpack codec data[before..] (unpacked - int64 before)
                let repetition = levels column.Repetition count data 0 (int repetitions)
                let definition = levels column.Definition count data (int repetitions) before
                let there = definition |> Array.sumBy (fun level -> if level = column.Definition then 1 else 0)

                act
                    { Definition = definition
                      Repetition = repetition
                      Plain = decode column dictionary (numberOr -1L 4 about) there values 0 }

                seen <- seen + int64 count
            | 1L, _, _, _ -> ()
            | kind, _, _, _ -> corrupt $"a page is of kind {kind}, or does not say what is in it"

            if at >= chunk.Stop && seen < chunk.Values then
                corrupt "a column has fewer values than it says"

    // ---- what is asked for ---------------------------------------------------------------------------------------

    /// A column of texts or integers, one a row, as texts; `None` where there is no value.
    let texts (file: File) (column: Column) : string option[] =
        let found = ResizeArray<string option>()

        let word (plain: Plain) (at: int) =
            match plain with
            | Texts texts -> textOf texts[at]
            | Fixed bytes when column.Type = int32 -> string (BitConverter.ToInt32(bytes, 4 * at))
            | Fixed bytes -> string (BitConverter.ToInt64(bytes, 8 * at))

        for rows, chunks in file.Groups do
            let before = found.Count

            pages file column chunks[column.Place] (fun page ->
                let mutable at = 0

                for level in page.Definition do
                    if level = column.Definition then
                        found.Add(Some(word page.Plain at))
                        at <- at + 1
                    else
                        found.Add None)

            if int64 (found.Count - before) <> rows then
                corrupt $"column '{column.Path.Head}' has {found.Count - before} values in a group of {rows} rows"

        found.ToArray()

    /// A column with a list of floats in each row: for each value `act` gets whether it begins a row, and the buffer and the place
    /// where it lies. A row without values, and a value that is missing, are refused with their row.
    let lists (file: File) (column: Column) (act: bool -> byte[] -> int -> unit) : unit =
        let mutable row = -1L
        let width = width column

        for _, chunks in file.Groups do
            pages file column chunks[column.Place] (fun page ->
                let bytes =
                    match page.Plain with
                    | Fixed bytes -> bytes
                    | Texts _ -> corrupt "its lists are not of numbers"

                for i in 0 .. page.Definition.Length - 1 do
                    if page.Repetition[i] = 0 then
                        row <- row + 1L

                    if page.Definition[i] <> column.Definition then
                        corrupt $"row {row} has no list, an empty one, or one with a value missing"

                    if row < 0L then
                        corrupt "its first value is in the middle of a row"

                    act (page.Repetition[i] = 0) bytes (i * width))

        if row + 1L <> rows file then
            corrupt $"its lists are of {row + 1L} rows, but it has {rows file}"

    /// Opens a file for `act`. Whatever is wrong with it is `Unreadable`.
    let using (path: string) (act: File -> Result<'a, Fault list>) : Result<'a, Fault list> =
        let fault reason = Error [ Fault.Unreadable(path, reason) ]

        InputFile.reading "the import" path (fun () ->
            try
                use handle = IO.File.OpenHandle path
                act (open' path handle)
            with
            | Corrupt reason -> fault reason
            | :? ZstdSharp.ZstdException as e -> fault e.Message
            // Snappier's words for bytes that are not what it wrote.
            | :? InvalidOperationException
            | :? ArgumentException as e -> fault $"a page cannot be unpacked: {e.Message}")
