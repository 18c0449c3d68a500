namespace Cmcl

open System
open System.Buffers.Binary
open System.Collections.Generic
open System.IO
open System.Text
open Microsoft.Win32.SafeHandles
open TorchSharp

/// The datasets of an HDF5 file, as h5py writes them without being asked for more: groups, and arrays of floats that lie in
/// one piece. After "HDF5 File Format Specification Version 3.0".
///
/// A reader of our own, because a damaged file must not end the process: PureHDF 2.2 follows a soft link that names itself until
/// the stack is used up, which nothing around it can prevent, and of more than 53,000 files with random changes 2 ended so (none hung;
/// docs/import.md has the figures). Here every address and size is checked against the file before memory is asked for, nothing
/// is visited twice, no other file is opened, and all that is read of a file's structure is bounded by the file's length. What is
/// left out is refused by name, with the line of h5py that writes the file anew: compressed and chunked arrays, groups in a
/// fractal heap (libver="latest"), links to other places, big-endian and exotic numbers.
[<RequireQualifiedAccess>]
module Hdf5 =

    /// An array of a file: its path in the file without the first slash, and where its numbers lie.
    type Entry =
        {
            Key: string
            Type: torch.ScalarType
            Shape: int64 list
            /// Of the first number in the file.
            Offset: int64
            Size: int64
        }

    /// What a file says that cannot be: raised within this module only.
    exception private Corrupt of reason: string

    let private corrupt reason = raise (Corrupt reason)

    /// A reason that writing the file anew takes away, as h5py does by default.
    let private otherwise (change: string) (reason: string) =
        corrupt
            $"{reason}. To write it anew: python3 -c \"import h5py; a, b = h5py.File('OLD.h5'), h5py.File('NEW.h5', 'w'); [b.create_dataset(k, data=a[k][...]{change}) for k in a]\""

    /// An open file, and how many bytes of its structure may still be read: a loop in the structure ends there.
    type private Source =
        { Handle: SafeFileHandle
          Length: int64
          mutable Budget: int64 }

    let private bytes (source: Source) (what: string) (offset: int64) (count: int64) : byte[] =
        if offset < 0L || count < 0L || count > source.Length || offset > source.Length - count then
            corrupt $"{what} is said to lie at byte {offset}, {count} bytes long, but the file has only {source.Length}"

        source.Budget <- source.Budget - count - 8L

        if source.Budget < 0L then
            corrupt "its structure leads in circles"

        let buffer = Array.zeroCreate<byte>(int count)

        if RandomAccess.Read(source.Handle, Span buffer, offset) < buffer.Length then
            corrupt $"{what} ends with the file"

        buffer

    /// A part of a buffer that is read from front to back, each time checked.
    type private Cursor =
        {
            Bytes: byte[]
            /// Of the buffer in the file.
            Base: int64
            mutable At: int
        }

    let private cursor (offset: int64) (bytes: byte[]) = { Bytes = bytes; Base = offset; At = 0 }

    let private left (c: Cursor) = c.Bytes.Length - c.At

    let private take (c: Cursor) (count: int) : ReadOnlySpan<byte> =
        if count < 0 || count > left c then
            corrupt "a message of an object is cut short"

        c.At <- c.At + count
        ReadOnlySpan(c.Bytes, c.At - count, count)

    let private skip (count: int) (c: Cursor) =
        let _ = take c count
        ()

    let private byte' (c: Cursor) = int ((take c 1)[0])
    let private int16' (c: Cursor) = int (BinaryPrimitives.ReadUInt16LittleEndian(take c 2))
    let private int32' (c: Cursor) = int64 (BinaryPrimitives.ReadUInt32LittleEndian(take c 4))
    /// An address or a length. All ones, "undefined", become −1 and so lie in no file.
    let private int64' (c: Cursor) = BinaryPrimitives.ReadInt64LittleEndian(take c 8)

    let private expect (signature: string) (what: string) (c: Cursor) =
        if (take c signature.Length).ToArray() <> Encoding.ASCII.GetBytes signature then
            corrupt $"{what} does not begin with '{signature}'"

    // ---- objects -------------------------------------------------------------------------------------------------

    type private Message = { Kind: int; Shared: bool; Body: Cursor }

    let private continuation = 0x10

    /// The messages of a block of an object header of version 1 or 2.
    let private messagesIn (version: int) (ordered: bool) (block: Cursor) : Message list =
        let head =
            if version = 1 then 8
            elif ordered then 6
            else 4

        [ while left block >= head do
              let kind = if version = 1 then int16' block else byte' block
              let size = int16' block
              let flags = byte' block
              skip (head - (if version = 1 then 5 else 4)) block
              let start = block.At

              { Kind = kind
                Shared = flags &&& 2 <> 0
                Body = cursor (block.Base + int64 start) ((take block size).ToArray()) } ]

    /// All messages of the object at an address, those of its continuations after those of its first block.
    let private messages (source: Source) (address: int64) : Message list =
        let start = bytes source "an object" address (min 16L (source.Length - address)) |> cursor address

        let version, ordered, first =
            if start.Bytes.Length > 4 && start.Bytes[0] = byte 'O' then
                expect "OHDR" "an object" start
                let version, flags = byte' start, byte' start

                if version <> 2 then
                    corrupt $"an object is of version {version}; 1 and 2 can be read"

                let before = 6 + (if flags &&& 0x20 <> 0 then 16 else 0) + (if flags &&& 0x10 <> 0 then 4 else 0)
                let width = 1 <<< (flags &&& 3)
                let head = bytes source "an object" address (int64 (before + width)) |> cursor address
                skip before head
                let size = [ 0 .. width - 1 ] |> List.sumBy (fun i -> int64 (byte' head) <<< (8 * i))
                2, flags &&& 4 <> 0, (address + int64 (before + width), size)
            else
                let version = byte' start
                skip 7 start

                if version <> 1 then
                    corrupt $"an object is of version {version}; 1 and 2 can be read"

                let size = int32' start
                1, false, (address + 16L, size)

        let found, seen, waiting = ResizeArray(), HashSet<int64>(), Queue [ first, false ]

        while waiting.Count > 0 do
            let (offset, size), continued = waiting.Dequeue()

            if not (seen.Add offset) then
                corrupt "an object continues in itself"

            let block = bytes source "an object's messages" offset size |> cursor offset

            let block =
                if version = 2 && continued then
                    expect "OCHK" "the continuation of an object" block
                    cursor (offset + 4L) (block.Bytes[4 .. max 3 (block.Bytes.Length - 5)])
                else
                    block

            for message in messagesIn version ordered block do
                if message.Kind = continuation then
                    let offset = int64' message.Body
                    waiting.Enqueue((offset, int64' message.Body), true)
                else
                    found.Add message

        List.ofSeq found

    // ---- groups --------------------------------------------------------------------------------------------------

    let private utf8 = UTF8Encoding(false, true)

    let private name (bytes: ReadOnlySpan<byte>) =
        try
            utf8.GetString bytes
        with :? DecoderFallbackException ->
            corrupt "a name in it is not valid UTF-8"

    let private otherPlace (name: string) = otherwise "" $"'{name}' is a link to another place"

    /// Names and addresses of a group's members that lie in a symbol table (h5py's default).
    let private symbols (source: Source) (body: Cursor) : (string * int64) list =
        let tree = int64' body
        let heap = int64' body
        let head = bytes source "a heap of names" heap 32L |> cursor heap
        expect "HEAP" "a heap of names" head
        skip 4 head
        let size = int64' head
        skip 8 head
        let names = bytes source "a heap of names" (int64' head) size

        let nameAt (offset: int64) =
            if offset < 0L || offset >= size then
                corrupt "a name lies outside its heap"

            match Array.IndexOf(names, 0uy, int offset) with
            | -1 -> corrupt "a name has no end"
            | stop -> name (ReadOnlySpan(names, int offset, stop - int offset))

        let found, seen, waiting = ResizeArray(), HashSet<int64>(), Stack [ tree ]

        let leaf (node: Cursor) address =
            expect "SNOD" "a node of a group" node
            skip 2 node
            let count = int16' node
            let entries = bytes source "a node of a group" (address + 8L) (40L * int64 count) |> cursor (address + 8L)

            for _ in 1..count do
                let name = nameAt (int64' entries)
                let target = int64' entries
                let kind = int32' entries
                skip 20 entries

                if kind = 2L then
                    otherPlace name

                found.Add(name, target)

        while waiting.Count > 0 do
            let address = waiting.Pop()

            if not (seen.Add address) then
                corrupt "a group contains a part of itself"

            let start = bytes source "a node of a group" address 8L |> cursor address

            if start.Bytes[0] = byte 'S' then
                leaf start address
            else
                expect "TREE" "a node of a group" start
                let kind = byte' start
                skip 1 start
                let count = int16' start

                if kind <> 0 then
                    corrupt "a group's tree is not one of names"

                let children = bytes source "a node of a group" (address + 24L) (16L * int64 count) |> cursor address

                for _ in 1..count do
                    skip 8 children
                    let child = int64' children
                    // Nodes again, or leaves: each says itself what it is.
                    waiting.Push child

        List.ofSeq found

    /// A link of a group that keeps its members in its header.
    let private link (body: Cursor) : string * int64 =
        skip 1 body
        let flags = byte' body
        let kind = if flags &&& 8 <> 0 then byte' body else 0

        if flags &&& 4 <> 0 then
            skip 8 body

        if flags &&& 16 <> 0 then
            skip 1 body

        let length = [ 0 .. (1 <<< (flags &&& 3)) - 1 ] |> List.sumBy (fun i -> bigint (byte' body) * (1I <<< (8 * i)))

        if length > bigint (left body) then
            corrupt "a name is longer than the message that holds it"

        let name = name (take body (int length))

        if kind <> 0 then
            otherPlace name

        name, int64' body

    /// The members of a group, or nothing for an object that is none.
    let private members (source: Source) (messages: Message list) : (string * int64) list option =
        let of' kind = messages |> List.filter (fun m -> m.Kind = kind) |> List.map _.Body

        match of' 0x11, of' 0x2, of' 0x6 with
        | table :: _, _, _ -> Some(symbols source table)
        | [], [], [] -> None
        | [], info, links ->
            for body in info do
                skip 1 body

                if byte' body &&& 1 <> 0 then
                    skip 8 body

                if int64' body <> -1L then
                    otherwise "" "its names are in a fractal heap, as libver='latest' writes them"

            Some(List.map link links)

    // ---- arrays --------------------------------------------------------------------------------------------------

    let private shape (body: Cursor) : int64 list =
        let version, rank, _ = byte' body, byte' body, byte' body
        skip (if version = 1 then 5 else 1) body

        if version <> 1 && version <> 2 then
            corrupt $"a shape is of version {version}; 1 and 2 can be read"

        [ for _ in 1..rank -> int64' body ]

    /// IEEE 754's layouts: bytes, then the places and sizes of exponent and mantissa.
    let private floats =
        [ (2L, [ 10; 5; 0; 10 ]), torch.ScalarType.Float16
          (4L, [ 23; 8; 0; 23 ]), torch.ScalarType.Float32
          (8L, [ 52; 11; 0; 52 ]), torch.ScalarType.Float64 ]

    let private wanted = "float16, float32 or float64, little-endian, is needed"

    let private scalarType (key: string) (body: Cursor) : torch.ScalarType =
        let kind, flags = byte' body, byte' body
        skip 2 body
        let size = int32' body

        match kind &&& 15 with
        | 1 when flags &&& 1 <> 0 -> otherwise ".astype('<f4')" $"the numbers of '{key}' are big-endian"
        | 1 ->
            skip 4 body
            let places = [ for _ in 1..4 -> byte' body ]

            match List.tryFind (fst >> (=) (size, places)) floats with
            | Some(_, found) -> found
            | None -> corrupt $"'{key}' holds floats of {size} bytes that are none of IEEE's; {wanted}"
        | 0 -> corrupt $"'{key}' holds integers of {size} bytes; {wanted}"
        | 3 -> corrupt $"'{key}' holds text; {wanted}"
        | 9 -> corrupt $"'{key}' holds objects of varying length; {wanted}"
        | kind -> corrupt $"'{key}' holds values of HDF5's class {kind}; {wanted}"

    /// Where a contiguous or compact array lies, and how many bytes of it.
    let private place (key: string) (body: Cursor) : int64 * int64 =
        let version, kind = byte' body, byte' body

        if version <> 3 && version <> 4 then
            corrupt $"the layout of '{key}' is of version {version}; 3 and 4 can be read"

        match kind with
        | 0 ->
            let size = int64 (int16' body)
            body.Base + int64 body.At, size
        | 1 ->
            let offset = int64' body
            offset, int64' body
        | _ -> otherwise "" $"'{key}' is chunked or compressed"

    let private entry (source: Source) (key: string) (messages: Message list) : Entry =
        let one what kind =
            match messages |> List.filter (fun m -> m.Kind = kind) with
            | [ m ] when m.Shared -> corrupt $"the {what} of '{key}' is shared with other objects, which is not read"
            | [ m ] -> m.Body
            | _ -> corrupt $"'{key}' has no {what}, or several"

        if messages |> List.exists (fun m -> m.Kind = 7) then
            otherwise "" $"the numbers of '{key}' are in other files"

        let shape, dtype, (offset, held) = shape (one "shape" 1), scalarType key (one "type" 3), place key (one "layout" 8)

        let size = shape |> List.fold (fun product n -> product * bigint n) (bigint (dtype.ElementSize()))

        if List.exists (fun n -> n < 0L) shape || size > bigint held then
            corrupt $"""'{key}' should be {String.Join(" × ", shape)} numbers, {size} bytes, but {held} are kept"""
        elif offset < 0L || held < 0L || held > source.Length || offset > source.Length - held then
            if offset = -1L then
                corrupt $"'{key}' was made but never written"
            else
                corrupt $"'{key}' is said to lie at byte {offset}, {held} bytes long, but the file has only {source.Length}"
        else
            { Key = key
              Type = dtype
              Shape = shape
              Offset = offset
              Size = int64 size }

    // ---- files ---------------------------------------------------------------------------------------------------

    let private signature = "\137HDF\r\n\026\n"

    /// The address of the root group.
    let private root (source: Source) : int64 =
        let start = bytes source "its head" 0L (min source.Length 128L)

        if start.Length >= 1 && start[0] = 0x80uy then
            corrupt "it is a pickle, which can run code when it is opened; no pickle is ever read"

        if start.Length < 48 || Encoding.Latin1.GetString(start, 0, 8) <> signature then
            corrupt "it is not an HDF5 file"

        let version = int start[8]
        let sizes = if version < 2 then 13 else 9

        if version > 3 then
            corrupt $"it is of version {version} of the format; 0 to 3 can be read"

        if start[sizes] <> 8uy || start[sizes + 1] <> 8uy then
            corrupt "its addresses are not of 8 bytes"

        let at (offset: int) =
            if offset + 8 > start.Length then
                corrupt "it ends in its head"

            BinaryPrimitives.ReadInt64LittleEndian(ReadOnlySpan(start, offset, 8))

        let base', stop, root =
            match version with
            | 0 -> at 24, at 40, at 64
            | 1 -> at 28, at 44, at 68
            | _ -> at 12, at 28, at 36

        if base' <> 0L then
            corrupt "it begins with a user block, which is not read"

        if stop < 0L || stop > source.Length then
            corrupt $"it says that it is {stop} bytes long, but only {source.Length} are there"

        root

    /// Groups within groups are as deep as a slash in a key makes them.
    let private deepest = 16

    /// Keys in the order of their UTF-8 bytes: what h5py gives, and Python's order of texts.
    let private order (a: Entry) (b: Entry) =
        (Encoding.UTF8.GetBytes a.Key).AsSpan().SequenceCompareTo(ReadOnlySpan(Encoding.UTF8.GetBytes b.Key))

    let private walk (source: Source) : Entry list =
        let found, seen, waiting = ResizeArray(), HashSet<int64>(), Queue [ "", root source, 0 ]

        while waiting.Count > 0 do
            let key, address, depth = waiting.Dequeue()

            if not (seen.Add address) then
                corrupt $"'{key}' is an object that another key names too"

            let messages = messages source address

            match members source messages with
            | Some members when depth < deepest ->
                for name, target in members do
                    waiting.Enqueue((if key = "" then name else $"{key}/{name}"), target, depth + 1)
            | Some _ -> corrupt $"'{key}' is a group in more than {deepest} others"
            | None -> found.Add(entry source key messages)

        List.sortWith order (List.ofSeq found)

    /// Opens a file and hands over its arrays, in the order of their keys, and a function that writes the numbers of one into a
    /// buffer, from a place on. Faults: `Missing`, and `Unreadable` with what is wrong where.
    let using (path: string) (act: Entry list -> (Entry -> byte[] -> int -> unit) -> 'a) : Result<'a, Fault list> =
        InputFile.reading "reading an HDF5 file" path (fun () ->
            try
                use handle = File.OpenHandle path
                let length = RandomAccess.GetLength handle

                let source =
                    { Handle = handle
                      Length = length
                      Budget = 4L * length + 4096L }

                let read (entry: Entry) (into: byte[]) (from: int) =
                    if RandomAccess.Read(handle, Span(into, from, int entry.Size), entry.Offset) < int entry.Size then
                        corrupt $"'{entry.Key}' ends with the file"

                let entries = walk source
                Ok(act entries read)
            with Corrupt reason ->
                Error [ Fault.Unreadable(path, reason) ])

    /// The arrays of a file, in the order of their keys.
    let entries (path: string) : Result<Entry list, Fault list> = using path (fun entries _ -> entries)
