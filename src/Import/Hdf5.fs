namespace Cmcl

open System
open System.Collections.Generic
open System.IO
open System.Reflection
open System.Runtime.CompilerServices
open System.Runtime.InteropServices
open System.Text
open PureHDF
open PureHDF.VOL.Native
open TorchSharp

/// A file that is read by a library which follows its structure as deep as it goes, and a damaged structure has no end. A stack
/// that is used up ends the process; this makes an exception of it in time.
type private Watched(file: FileStream) =
    inherit Stream()
    override _.CanRead = true
    override _.CanSeek = true
    override _.CanWrite = false
    override _.Length = file.Length

    override _.Position
        with get () = file.Position
        and set place = file.Position <- place

    override _.Flush() = ()
    override _.Seek(offset, origin) = file.Seek(offset, origin)
    override _.SetLength _ = raise (NotSupportedException())
    override _.Write(_: byte[], _: int, _: int) : unit = raise (NotSupportedException())
    override s.Read(buffer: byte[], offset: int, count: int) = s.Read(Span(buffer, offset, count))

    override _.Read(into: Span<byte>) =
        RuntimeHelpers.EnsureSufficientExecutionStack()
        file.Read into

/// The arrays of floats of an HDF5 file, read by PureHDF: in one piece, chunked, compressed with gzip, in old and new groups.
///
/// Of 6,000 files with random changes PureHDF 2.2 read some and raised ordinary exceptions on the others: none hung, none ended
/// the process; docs/import.md has the figures. What it does not refuse by itself is refused here: sizes that the file cannot
/// hold, before memory is asked for; groups that lead in circles; and numbers that lie in other files, whose names a file could
/// choose (external links, external storage, virtual arrays).
[<RequireQualifiedAccess>]
module Hdf5 =

    /// An array of a file: its path in the file without the first slash.
    type Entry =
        { Key: string
          Type: torch.ScalarType
          Shape: int64 list }

        /// In bytes.
        member e.Size: int64 = List.fold (*) (int64 (e.Type.ElementSize())) e.Shape

    exception private Refused of reason: string

    let private refuse reason = raise (Refused reason)

    /// Nothing that deflate has made gets larger than this many times its size.
    let private deflate = 1032L

    /// Groups within groups are as deep as a slash in a key makes them.
    let private deepest = 16

    // ---- other files ---------------------------------------------------------------------------------------------

    /// What PureHDF knows of an object and does not tell. The lookup fails loudly should a later version call it otherwise.
    let private hidden (name: string) (of': obj) : obj | null =
        match of'.GetType().GetProperty(name, BindingFlags.Instance ||| BindingFlags.Public ||| BindingFlags.NonPublic) with
        | null -> refuse $"PureHDF does not tell the {name} of an object"
        | property -> property.GetValue of'

    let private elsewhere (file: obj) (o: IH5Object) : bool =
        let home = hidden "Context" o |> Option.ofObj |> Option.bind (hidden "File" >> Option.ofObj)

        let external (d: IH5Dataset) =
            d.Layout.Class = H5DataLayoutClass.VirtualStorage || not (isNull (hidden "InternalExternalFileList" d))

        match o with
        | :? IH5UnresolvedLink -> false
        | :? IH5Dataset as d when external d -> true
        | _ -> home |> Option.forall (fun home -> not (obj.ReferenceEquals(home, file)))

    // ---- entries -------------------------------------------------------------------------------------------------

    let private typeOf (key: string) (d: IH5Dataset) : torch.ScalarType =
        match d.Type.Class, d.Type.Size with
        | H5DataTypeClass.FloatingPoint, 2 -> torch.ScalarType.Float16
        | H5DataTypeClass.FloatingPoint, 4 -> torch.ScalarType.Float32
        | H5DataTypeClass.FloatingPoint, 8 -> torch.ScalarType.Float64
        | kind, size ->
            let is =
                match kind with
                | H5DataTypeClass.FixedPoint -> $"integers of {size} bytes"
                | H5DataTypeClass.FloatingPoint -> $"floats of {size} bytes"
                | other -> $"of the class {other}"

            refuse $"'{key}': numbers of type float16, float32 or float64 are needed, these are {is}"

    let private entry (length: int64) (key: string) (d: IH5Dataset) : Entry =
        let dtype = typeOf key d
        let most = if d.Layout.Class = H5DataLayoutClass.Chunked then length * deflate else length

        let check (what: string) (sizes: uint64[]) =
            let mutable bytes = int64 (dtype.ElementSize())

            for size in sizes do
                if size > 0UL && uint64 bytes > uint64 most / size then
                    refuse
                        $"""'{key}' is said to have {what} {String.Join(" × ", sizes)}, more than the file's {length} bytes can hold"""

                bytes <- bytes * int64 size

        let shape = d.Space.Dimensions
        check "the shape" shape

        if d.Layout.Class = H5DataLayoutClass.Chunked then
            check "chunks of" d.Layout.Chunks

        { Key = key
          Type = dtype
          Shape = [ for size in shape -> int64 size ] }

    /// Keys in the order of their UTF-8 bytes: what h5py gives, and Python's order of texts.
    let private order (a: Entry, _) (b: Entry, _) =
        (Encoding.UTF8.GetBytes a.Key).AsSpan().SequenceCompareTo(ReadOnlySpan(Encoding.UTF8.GetBytes b.Key))

    let private walk (file: NativeFile) (length: int64) : (Entry * IH5Dataset) list =
        let found, waiting = ResizeArray(), Queue<string * IH5Group * int>()
        waiting.Enqueue("", file, 0)

        while waiting.Count > 0 do
            let above, group, depth = waiting.Dequeue()

            for o in group.Children() do
                let key = if above = "" then o.Name else $"{above}/{o.Name}"

                // An object takes more than so many bytes.
                if int64 (found.Count + waiting.Count) > length / 16L then
                    refuse "its groups lead in circles"

                if elsewhere file o then
                    refuse $"'{key}' lies in another file, which is not opened; write all arrays into one file"

                match o with
                | :? IH5Dataset as d -> found.Add(entry length key d, d)
                | :? IH5Group when depth = deepest -> refuse $"'{key}' is a group in more than {deepest} others"
                | :? IH5Group as inner -> waiting.Enqueue(key, inner, depth + 1)
                | :? IH5UnresolvedLink -> refuse $"'{key}' is a link to nothing"
                | _ -> ()

        List.sortWith order (List.ofSeq found)

    /// The length that a file says it has, which PureHDF does not look at: a download that broke off ends here. Files with other
    /// things before the first byte, or with short addresses, are left to the library.
    let private promised (start: byte[]) : int64 option =
        let at =
            match int start[8] with
            | 0 when start[13] = 8uy -> Some 40
            | 1 when start[13] = 8uy -> Some 44
            | 2
            | 3 when start[9] = 8uy -> Some 28
            | _ -> None

        if start[0] = 137uy && start.AsSpan(1, 7).SequenceEqual(ReadOnlySpan "HDF\r\n\026\n"B) then
            at |> Option.map (fun at -> BitConverter.ToInt64(start, at))
        else
            None

    // ---- numbers -------------------------------------------------------------------------------------------------

    let private copy<'a when 'a: unmanaged and 'a: struct and 'a :> ValueType and 'a: (new: unit -> 'a)>
        (d: IH5Dataset)
        (entry: Entry)
        (into: byte[])
        (from: int)
        =
        let numbers = MemoryMarshal.AsBytes(ReadOnlySpan(d.Read<'a[]>()))

        if int64 numbers.Length <> entry.Size then
            refuse $"'{entry.Key}' has {numbers.Length} bytes instead of {entry.Size}"

        numbers.CopyTo(Span(into, from, into.Length - from))

    let private read (d: IH5Dataset) (entry: Entry) (into: byte[]) (from: int) =
        try
            match entry.Type with
            | torch.ScalarType.Float16 -> copy<Half> d entry into from
            | torch.ScalarType.Float32 -> copy<float32> d entry into from
            | _ -> copy<float> d entry into from
        with
        | Refused _ -> reraise ()
        | e when e.Message.StartsWith "Byte order" ->
            refuse $"'{entry.Key}' is big-endian; write it little-endian, as array.astype('<f4')"
        | e when e.Message.StartsWith "Could not find filter" ->
            refuse
                $"'{entry.Key}' is compressed in a way that is not read; h5repack -f NONE OLD.h5 NEW.h5 writes the file without compression"
        | e -> refuse $"'{entry.Key}' cannot be read: {e.Message.TrimEnd '.'}"

    /// Opens a file and hands over its arrays, in the order of their keys, and a function that writes the numbers of one into a
    /// buffer, from a place on. Faults: `Missing`, and `Unreadable` with what is wrong where.
    let using (path: string) (act: Entry list -> (Entry -> byte[] -> int -> unit) -> 'a) : Result<'a, Fault list> =
        let fault (reason: string) = Error [ Fault.Unreadable(path, reason) ]

        if not (File.Exists path) then
            Error [ Fault.Missing(path, "reading an HDF5 file") ]
        else
            try
                use stream = File.OpenRead path
                let start = Array.zeroCreate<byte> 52
                stream.ReadAtLeast(start, start.Length, false) |> ignore

                match promised start with
                | _ when start[0] = 0x80uy -> fault "it is a pickle, which can run code when it is opened; no pickle is ever read"
                | Some length when length > stream.Length ->
                    fault $"it says that it is {length} bytes long, but only {stream.Length} are there: it was cut short"
                | _ ->
                    stream.Position <- 0L

                    // Whatever damage makes the library raise is a fault of the file; what `act` raises is not.
                    let attempt (what: string) (work: unit -> 'b) : 'b =
                        try
                            work ()
                        with
                        | Refused _ -> reraise ()
                        | e -> refuse $"{what} ({e.Message.TrimEnd '.'})"

                    use file = attempt "it is no HDF5 file, or damaged" (fun () -> H5File.Open(new Watched(stream), true))

                    let arrays =
                        attempt "its structure is damaged, or of a kind that is not read" (fun () -> walk file stream.Length)

                    let byKey = Dictionary()

                    for entry, d in arrays do
                        if not (byKey.TryAdd(entry.Key, d)) then
                            refuse $"it has the key '{entry.Key}' twice"

                    Ok(act (List.map fst arrays) (fun entry into from -> read byKey[entry.Key] entry into from))
            with
            | Refused reason -> fault reason
            | :? IOException as e -> fault (e.Message.TrimEnd '.')
            | :? UnauthorizedAccessException as e -> fault (e.Message.TrimEnd '.')

    /// The arrays of a file in the order of their keys, no numbers read.
    let entries (path: string) : Result<Entry list, Fault list> = using path (fun entries _ -> entries)
