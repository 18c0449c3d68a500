namespace Cmcl

open System
open System.Collections.Generic
open System.IO
open System.IO.MemoryMappedFiles
open System.Reflection
open PureHDF
open PureHDF.Filters
open PureHDF.Selections
open PureHDF.VOL.Native
open TorchSharp

/// LZF, h5py's filter 32000, which PureHDF leaves to others. Format: a byte below 32 is followed by as many bytes and one more to be
/// copied; of any other the upper three bits are a length (7: the next byte is added), and the lower five and a byte behind say how far back.
type private Lzf() =
    [<ThreadStatic; DefaultValue>]
    static val mutable private shuffled: int

    /// Of the data set that this thread reads: the bytes of an item, where those are shuffled before they are packed, else 1.
    static member Shuffled
        with set (size: int) = Lzf.shuffled <- size

    /// Whether it unpacks to exactly the bytes that are wanted.
    static member private Unpack(packed: byte[], into: byte[]) : bool =
        let mutable at, out = 0, 0

        try
            while at < packed.Length do
                let control = int packed[at]
                let length = if control < 32 then control + 1 else (control >>> 5) + 2

                if control < 32 then
                    Buffer.BlockCopy(packed, at + 1, into, out, length)
                    at <- at + 1 + length
                    out <- out + length
                else
                    let long = length = 9
                    let length = if long then length + int packed[at + 1] else length
                    at <- if long then at + 3 else at + 2
                    let from = out - ((control &&& 31) <<< 8) - 1 - int packed[at - 1]

                    for i in 0 .. length - 1 do
                        into[out + i] <- into[from + i]

                    out <- out + length

            out = into.Length
        with
        | :? IndexOutOfRangeException
        | :? ArgumentException -> false

    interface IH5Filter with
        member _.FilterId = 32000us
        member _.Name = "lzf"
        member _.GetParameters(_, _, _) = raise (NotSupportedException "LZF is only read")

        member _.Filter info =
            let packed, into = info.Buffer.ToArray(), Array.zeroCreate<byte> info.ChunkSize

            if not (Lzf.Unpack(packed, into)) then
                if packed.Length <> into.Length then
                    raise (InvalidDataException "a chunk that LZF packed is damaged")

                // What did not get smaller is kept as it was, which the chunk's filter mask says. PureHDF 2.2 reads the mask one bit off, and so leaves
                // out the filter before this one too: the bytes are put in order here.
                let items = packed.Length / Lzf.shuffled
                packed.CopyTo(into, 0)

                for place in 0 .. Lzf.shuffled - 1 do
                    for item in 0 .. items - 1 do
                        into[item * Lzf.shuffled + place] <- packed[place * items + item]

            System.Memory<byte>(into)

/// HDF5 files, read by PureHDF: every data set is a column, by its path without the first slash.
[<RequireQualifiedAccess>]
module Hdf5Table =
    /// What PureHDF knows of a thing and does not tell; the first item of an array.
    let rec private inner (names: string list) (thing: obj | null) : obj | null =
        match names, thing with
        | _, (:? Array as all) when not names.IsEmpty -> if all.Length = 0 then null else inner names (all.GetValue 0)
        | name :: rest, NonNull thing ->
            match thing.GetType().GetProperty(name, BindingFlags.Instance ||| BindingFlags.Public ||| BindingFlags.NonPublic) with
            | null -> null
            | property -> inner rest (property.GetValue thing)
        | _ -> thing

    let private anew =
        "to write it anew: python3 -c \"import h5py, hdf5plugin; a, b = h5py.File('OLD.h5'), h5py.File('NEW.h5', 'w'); [b.create_dataset(k, data=a[k][...]) for k in a]\""

    /// A data set's filters by number and name, each with the numbers that it takes.
    let private filters (data: NativeDataset) : (int * string * uint32[]) list =
        match inner [ "InternalFilterPipeline"; "FilterDescriptions" ] data with
        | :? Array as all ->
            [ for f in all ->
                  Convert.ToInt32(inner [ "Identifier" ] f),
                  string (inner [ "Name" ] f),
                  nonNull (inner [ "ClientData" ] f) :?> uint32[] ]
        | _ -> []

    let private known =
        Map
            [ 4, "szip"
              5, "nbit"
              307, "bzip2"
              32001, "blosc"
              32004, "lz4"
              32008, "bitshuffle"
              32015, "zstd"
              32026, "blosc2" ]

    /// Why a data set is not read, if that is so.
    let private refusal (data: NativeDataset) : string option =
        match filters data |> List.tryFind (fun (id, _, _) -> not (List.contains id [ 1; 2; 3; 6; 32000 ])) with
        | Some(id, name, _) ->
            Some $"packed by HDF5's filter {id} ({Map.tryFind id known |> Option.defaultValue name}), which is not read; {anew}"
        | None when
            not (isNull (inner [ "InternalExternalFileList" ] data)) || data.Layout.Class = H5DataLayoutClass.VirtualStorage
            ->
            Some $"in other files, which are not opened; {anew}"
        | None -> None

    /// What PureHDF knows of a data set's items, those of an enumeration by the numbers that stand for them.
    let private ofItems (names: string list) (data: NativeDataset) : string =
        let below = if data.Type.Class = H5DataTypeClass.Enumerated then [ "Properties"; "BaseType" ] else []
        string (inner ("InternalDataType" :: below @ names) data)

    let private isSigned = ofItems [ "BitField"; "IsSigned" ] >> (=) "True"

    /// The type of an item as it lies in the file, whatever its sign and order of bytes.
    let private scalarType (data: NativeDataset) : torch.ScalarType option =
        match data.Type.Class, data.Type.Size, ofItems [ "Properties"; "ExponentSize" ] data with
        | H5DataTypeClass.FloatingPoint, 2, "5" -> Some torch.ScalarType.Float16
        | H5DataTypeClass.FloatingPoint, 2, "8" -> Some torch.ScalarType.BFloat16
        | H5DataTypeClass.FloatingPoint, 4, "8" -> Some torch.ScalarType.Float32
        | H5DataTypeClass.FloatingPoint, 8, "11" -> Some torch.ScalarType.Float64
        | (H5DataTypeClass.FixedPoint | H5DataTypeClass.Enumerated), 1, _ ->
            Some(if isSigned data then torch.ScalarType.Int8 else torch.ScalarType.Byte)
        | (H5DataTypeClass.FixedPoint | H5DataTypeClass.Enumerated), 2, _ -> Some torch.ScalarType.Int16
        | (H5DataTypeClass.FixedPoint | H5DataTypeClass.Enumerated), 4, _ -> Some torch.ScalarType.Int32
        | (H5DataTypeClass.FixedPoint | H5DataTypeClass.Enumerated), 8, _ -> Some torch.ScalarType.Int64
        | _ -> None

    /// Rows of a data set, each chunk unpacked once; whole numbers as int64.
    let private rows (data: NativeDataset) (first: int64) (count: int64) : torch.Tensor =
        let dims, size = data.Space.Dimensions, data.Type.Size
        let from i n = if i = 0 then uint64 n else 0UL
        let read = torch.empty ([| count; yield! Array.map int64 dims[1..] |], dtype = Option.toNullable (scalarType data))
        let bytes = read.bytes

        Lzf.Shuffled <-
            match filters data with
            | (2, _, parameters) :: (32000, _, _) :: _ -> int parameters[0]
            | _ -> 1

        if not bytes.IsEmpty then
            let starts, blocks = Array.mapi (fun i _ -> from i first) dims, [| uint64 count; yield! dims[1..] |]
            let access = H5DatasetAccess(ChunkCache = SimpleReadingChunkCache(Int32.MaxValue, UInt64.MaxValue))
            data.Read<byte>(access, bytes, HyperslabSelection(dims.Length, starts, blocks))

        if ofItems [ "BitField"; "ByteOrder" ] data = "BigEndian" then
            for at in 0..size .. bytes.Length - size do
                bytes.Slice(at, size).Reverse()

        if read.is_floating_point () then read
        elif size = 8 || isSigned data then read.``to`` torch.ScalarType.Int64
        else read.``to``(torch.ScalarType.Int64).bitwise_and(torch.tensor ((1L <<< 8 * size) - 1L))

    let private openFile (path: string) : NativeFile =
        H5Filter.Register(Lzf())
        // Mapped, since for every name PureHDF reads all names of its group again.
        use mapped = MemoryMappedFile.CreateFromFile(path, FileMode.Open, null, 0L, MemoryMappedFileAccess.Read)

        let file =
            try
                H5File.Open(mapped.CreateViewStream(0L, (FileInfo path).Length, MemoryMappedFileAccess.Read))
            with :? EndOfStreamException ->
                raise (InvalidDataException "it is cut short, and too small for what its head says")

        let stop, length = nonNull (inner [ "Context"; "Superblock"; "EndOfFileAddress" ] file) :?> uint64, (FileInfo path).Length

        if stop > uint64 length then
            file.Dispose()
            raise (InvalidDataException $"it should be {stop} bytes long, but only {length} are there")

        file

    /// What lies at every path, in the order of the paths: a data set, or why it is none.
    let private walk (file: NativeFile) : (string list * Result<NativeDataset, string>) list =
        let seen = HashSet<string>()

        let rec visit (above: string list) (group: NativeGroup) =
            [ if not (seen.Add(string (inner [ "Reference"; "Value" ] group))) then
                  above, Error "a group that another path leads to"
              else
                  for child in group.Children() do
                      let path = above @ [ child.Name ]

                      match child with
                      | :? IH5UnresolvedLink -> path, Error "a link to another file or to nothing, which is not followed"
                      | child when not (obj.ReferenceEquals(inner [ "Context" ] child, inner [ "Context" ] file)) ->
                          // PureHDF tells its name there, which another may have here.
                          above @ [ $"{child.Name} of another file" ], Error "a link to another file, which is not followed"
                      | :? NativeDataset as data -> path, Ok data
                      | :? NativeGroup as group -> yield! visit path group
                      | _ -> () ]

        visit [] file |> List.sortWith (fun (a, _) (b, _) -> String.CompareOrdinal(String.Join("/", a), String.Join("/", b)))

    /// Opens a file and hands over the data set of a name.
    let private opened (path: string) (name: string) (act: NativeDataset -> 'a) : 'a =
        use file = openFile path
        act (file.Dataset name :?> NativeDataset)

    let private content (path: string) (name: string) (data: NativeDataset) : Content =
        let shape = [ for n in data.Space.Dimensions -> int64 n ]
        let sizes = String.Join(" × ", shape)
        let flat = not shape.IsEmpty && List.forall ((=) 1L) shape.Tail
        let later read = Content.Words(shape.Head, fun () -> if shape.Head = 0L then [||] else opened path name read)

        let isText =
            data.Type.Class = H5DataTypeClass.String
            || data.Type.Class = H5DataTypeClass.VariableLength && ofItems [ "BitField"; "Type" ] data = "String"

        match refusal data, scalarType data with
        | Some reason, _ -> Content.Other reason
        | None, _ when data.Space.Type = H5DataspaceType.Null -> Content.Other "nothing"
        | None, Some torch.ScalarType.Int64 when flat && not (isSigned data) ->
            later (fun data -> (use t = rows data 0L shape.Head in t.data<int64>().ToArray()) |> Array.map (uint64 >> string))
        | None, Some found ->
            let height = if data.Layout.Class = H5DataLayoutClass.Chunked then int64 data.Layout.Chunks[0] else 1L
            let found = if data.Type.Class = H5DataTypeClass.FloatingPoint then found else torch.ScalarType.Int64

            Content.Numbers
                { Name = name
                  Type = found
                  Shape = shape
                  Height = height }
        | None, None when isText && flat ->
            later (fun data ->
                data.Read<string[]>() |> Array.map (fun text -> if obj.ReferenceEquals(text, null) then "" else text))
        | None, None when isText -> Content.Other $"texts, {sizes}"
        | None, None -> Content.Other $"{(string data.Type.Class).ToLowerInvariant()} values, {sizes}, which are not read"

    /// What a file holds, in the order of the paths. Of links to other files nothing is read.
    let contents (path: string) : Result<(string list * Content) list, Fault list> =
        Table.reading path (fun () ->
            use file = openFile path

            Ok
                [ for names, found in walk file ->
                      match found with
                      | Ok data -> names, content path (String.Join("/", names)) data
                      | Error reason -> names, Content.Other reason ])

    /// Opens a file for the rows of its arrays.
    let reader (path: string) : RowReader =
        let file = openFile path
        // A look-up by name goes through all names of a group, and so does a walk: one for all.
        let all =
            dict
                [ for names, found in walk file do
                      match found with
                      | Ok data -> String.Join("/", names), data
                      | Error _ -> () ]

        { new RowReader with
            member _.Rows(array, first, count) = rows all[array.Name] first count
          interface IDisposable with
              member _.Dispose() = file.Dispose() }

    /// The table of a file: a column for every data set, or `id` and `features` where every data set is the features of one sample. Faults:
    /// `Missing`, `Unreadable`; what is packed, stored elsewhere or built as PureHDF does not read it is a column that says so.
    let read (path: string) : Result<Table, Fault list> =
        contents path |> Result.map (fun contents -> Arrays.table path "/" contents (fun () -> reader path))
