namespace Cmcl

open System
open System.IO
open System.IO.Compression
open System.Runtime.InteropServices
open TorchSharp

/// A stream whose first bytes have been read already.
type private Prefixed(first: byte[], rest: Stream) =
    inherit Stream()
    let mutable at = 0
    override _.CanRead = true
    override _.CanSeek = false
    override _.CanWrite = false
    override _.Length = raise (NotSupportedException())

    override _.Position
        with get () = raise (NotSupportedException())
        and set _ = raise (NotSupportedException())

    override _.Flush() = ()
    override _.Seek(_, _) = raise (NotSupportedException())
    override _.SetLength _ = raise (NotSupportedException())
    override _.Write(_: byte[], _: int, _: int) : unit = raise (NotSupportedException())
    override s.Read(buffer: byte[], offset: int, count: int) = s.Read(Span(buffer, offset, count))

    override _.Read(into: Span<byte>) =
        if at < first.Length then
            let count = min into.Length (first.Length - at)
            first.AsSpan(at, count).CopyTo into
            at <- at + count
            count
        else
            rest.Read into

/// Arrays of `.npy` files, and of `.npz` files, which are zip files of those. Read as streams, block by block.
[<RequireQualifiedAccess>]
module NpyTable =

    /// Something to read a `.npy` file's bytes from: what it is called, and its bytes from the first on with their number.
    type Place =
        { File: string
          Open: (Stream -> int64 -> Result<unit, Fault list>) -> Result<unit, Fault list> }

    let private neededBy = "the import"

    /// A file by its path.
    let ofFile (path: string) : Place =
        { File = path
          Open =
            fun act ->
                InputFile.reading neededBy path (fun () ->
                    use stream = File.OpenRead path
                    act stream stream.Length) }

    /// Nothing that deflate has made gets larger than this many times its size.
    let private deflate = 1032L

    /// Features do not pack well. What packs better than this is taken up to a gigabyte, so that a small file cannot fill a disk.
    let private tightest, mostUnpacked = 20L, 1L <<< 30

    /// The arrays in a `.npz` file by their names, without `.npy`. Their names are never paths.
    let ofZip (path: string) : Result<(string * Place) list, Fault list> =
        InputFile.reading neededBy path (fun () ->
            use zip = ZipFile.OpenRead path
            let length = FileInfo(path).Length

            zip.Entries
            |> Seq.map (fun entry ->
                let file = $"{path}[{entry.FullName}]"
                let fault reason = Error [ Fault.Unreadable(file, reason) ]

                if not (entry.FullName.EndsWith(".npy", StringComparison.Ordinal)) then
                    fault "it is no .npy array; numpy.savez writes those"
                elif entry.CompressedLength > length || entry.Length / deflate > entry.CompressedLength + 1L then
                    fault $"it is said to unpack from {entry.CompressedLength} to {entry.Length} bytes, which cannot be"
                elif entry.Length > mostUnpacked && entry.Length / tightest > entry.CompressedLength then
                    fault
                        $"it unpacks from {entry.CompressedLength} to {entry.Length} bytes; what is packed more than {tightest} to one may unpack to {mostUnpacked} (numpy.savez does not pack)"
                else
                    let name, held = entry.FullName, entry.Length

                    Ok(
                        name.Substring(0, name.Length - 4),
                        { File = file
                          Open =
                            fun act ->
                                InputFile.reading neededBy path (fun () ->
                                    use zip = ZipFile.OpenRead path

                                    match zip.GetEntry name with
                                    | null -> fault "it is gone"
                                    | entry ->
                                        use stream = entry.Open()
                                        act stream held) }
                    ))
            |> List.ofSeq
            |> Check.all)

    /// The head of an array, checked against the bytes that there are, then what `act` makes of it.
    let private opened (place: Place) (act: Stream -> Npy.Header -> unit) : Result<unit, Fault list> =
        let fault reason = Error [ Fault.Unreadable(place.File, reason) ]

        place.Open(fun stream length ->
            // A pickle begins with its protocol, torch.save's files with a zip's head.
            let start = Array.zeroCreate<byte> 2
            let count = stream.ReadAtLeast(start, 2, false)

            if count > 0 && start[0] = 0x80uy then
                fault "it is a pickle, which can run code when it is opened; save arrays with numpy.save"
            elif count = 2 && start = "PK"B then
                fault "it is a zip file, as torch.save and numpy.savez write them; save single arrays with numpy.save"
            else
                use whole = new Prefixed(start[.. count - 1], stream)

                match Npy.readHeader whole with
                | Error reason -> fault reason
                | Ok header ->
                    let held = length - header.Offset

                    if held <> header.Size then
                        fault $"its header promises {header.Size} bytes of numbers, but {held} follow"
                    else
                        Ok(act whole header))

    let private floats = [ torch.ScalarType.Float16; torch.ScalarType.Float32; torch.ScalarType.Float64 ]

    let private blocks (stream: Stream) (header: Npy.Header) (act: int64 -> torch.Tensor -> unit) : unit =
        let rows, columns = header.Shape[0], header.Shape[1]
        let size = Draft.blockRows (columns * int64 (header.Type.ElementSize()))

        if header.Fortran then
            // Its rows lie scattered over the whole file.
            use all = Npy.readBody stream header

            for first in 0L .. size .. rows - 1L do
                use block = all.narrow (0L, first, min size (rows - first))
                act first block
        else
            for first in 0L .. size .. rows - 1L do
                use block = torch.empty ([| min size (rows - first); columns |], dtype = Nullable header.Type)
                stream.ReadExactly block.bytes
                act first block

    /// A matrix of floats.
    let matrix (place: Place) : Result<FeatureTable, Fault list> =
        let mutable found = None

        opened place (fun _ header -> found <- Some header)
        |> Result.bind (fun () ->
            let header = found.Value

            if not (List.contains header.Type floats) then
                Error
                    [ Fault.BadValue(
                          $"'{place.File}'",
                          "numbers of type float16, float32 or float64",
                          Draft.typeName header.Type
                      ) ]
            elif header.Shape.Length <> 2 || Array.contains 0L header.Shape then
                Error [ Fault.Shape($"'{place.File}'", "rows × d, at least one of each", String.Join(" × ", header.Shape)) ]
            else
                Ok
                    { File = place.File
                      Type = header.Type
                      Rows = header.Shape[0]
                      Columns = header.Shape[1]
                      Ids = None
                      Labels = None
                      Read = fun act -> opened place (fun stream header -> blocks stream header act) })

    /// A vector of integers.
    let vector (place: Place) : Result<int64[], Fault list> =
        let mutable found = [||]
        let mutable wrong = []

        opened place (fun stream header ->
            match header.Type with
            | torch.ScalarType.Int32
            | torch.ScalarType.Int64 when header.Shape.Length = 1 ->
                use numbers = Npy.readBody stream header
                use wide = numbers.``to`` torch.int64
                found <- wide.data<int64>().ToArray()
            | torch.ScalarType.Int32
            | torch.ScalarType.Int64 -> wrong <- [ Fault.Shape($"'{place.File}'", "a vector", String.Join(" × ", header.Shape)) ]
            | other -> wrong <- [ Fault.BadValue($"'{place.File}'", "numbers of type int32 or int64", Draft.typeName other) ])
        |> Result.bind (fun () -> if wrong.IsEmpty then Ok found else Error wrong)
