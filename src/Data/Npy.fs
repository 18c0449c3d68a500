namespace Cmcl

open System
open System.Buffers.Binary
open System.IO
open System.Runtime.InteropServices
open System.Text
open System.Text.RegularExpressions
open TorchSharp

/// NumPy's `.npy` files: vectors and matrices of float16, float32, float64, int32 and int64.
///
/// Format: magic `\x93NUMPY`, two version bytes, the header's length (2 bytes in version 1, else 4), the header (a
/// Python dictionary with 'descr', 'fortran_order' and 'shape'), then the numbers.
[<RequireQualifiedAccess>]
module Npy =

    /// What a file's header says, and where its numbers begin.
    type internal Header =
        {
            Type: torch.ScalarType
            Fortran: bool
            Shape: int64[]
            /// Bytes before the first number.
            Offset: int64
            /// Bytes of numbers that the shape asks for.
            Size: int64
        }

    /// The same of an array of any type and rank, its type as it is written there: `'<f4'`.
    type internal Head =
        { Descr: string
          InFortran: bool
          Sizes: int64 list
          Start: int64 }

    /// NumPy's names. Enumeration values, since `torch.float32` and its like would load the native library when this module is touched.
    let internal types =
        [ "<f2", torch.ScalarType.Float16
          "<f4", torch.ScalarType.Float32
          "<f8", torch.ScalarType.Float64
          "<i4", torch.ScalarType.Int32
          "<i8", torch.ScalarType.Int64 ]

    let internal typeNames = "float16, float32, float64, int32 or int64"

    /// NumPy's own limit for a header that it reads without asking.
    let private longestHeader = 10000

    let private magic = [| 0x93uy; yield! "NUMPY"B |]

    // ---- reading -------------------------------------------------------------------------------------------------

    let private entry =
        @"(?:['""]descr['""]\s*:\s*(?<descr>'[^']*'|""[^""]*""|\[.*\])"
        + @"|['""]fortran_order['""]\s*:\s*(?<fortran>True|False)"
        + @"|['""]shape['""]\s*:\s*\((?<shape>[\d\s,]*)\))"

    let private dictionary =
        Regex(
            $@"\A\s*\{{\s*{entry}\s*,\s*{entry}\s*,\s*{entry}\s*,?\s*\}}\s*\z",
            RegexOptions.Singleline ||| RegexOptions.CultureInvariant
        )

    let private typeOf (descr: string) : Result<torch.ScalarType, string> =
        let inner = descr.Trim('\'', '"')

        match types |> List.tryFind (fun (name, _) -> name = inner) with
        | Some(_, found) -> Ok found
        | None when descr.StartsWith '[' -> Error $"it holds records with fields; write a plain array of {typeNames}"
        | None when inner.Contains 'O' -> Error $"it holds Python objects; write an array of {typeNames}"
        | None when inner.StartsWith '>' ->
            Error $"its numbers are big-endian ('{inner}'); write them little-endian, with .astype('<{inner.Substring 1}')"
        | None -> Error $"its numbers are of type '{inner}'; {typeNames}, little-endian, can be read"

    let private shapeOf (text: string) : Result<int64 list, string> =
        let parts = text.Split(',', StringSplitOptions.TrimEntries ||| StringSplitOptions.RemoveEmptyEntries)

        let sizes =
            parts
            |> Array.choose (fun part ->
                match Int64.TryParse part with
                | true, size -> Some size
                | _ -> None)

        if sizes.Length < parts.Length then
            Error $"its shape ({text}) cannot be understood"
        else
            Ok(List.ofArray sizes)

    /// The number of bytes that a shape asks for, unless it is beyond what 64 bits can count.
    let private sizeOf (item: int) (shape: int64[]) : Result<int64, string> =
        let total = Array.fold (fun product size -> product * bigint (max 1L size)) (bigint item) shape

        if total > bigint Int64.MaxValue then Error "its shape asks for more memory than there can be"
        elif Array.contains 0L shape then Ok 0L
        else Ok(int64 total)

    let private parse (text: string) (offset: int64) : Result<Head, string> =
        let found = dictionary.Match text

        let once (name: string) =
            match List.ofSeq found.Groups[name].Captures with
            | [ one ] -> Some one.Value
            | _ -> None

        match once "descr", once "fortran", once "shape" with
        | Some descr, Some fortran, Some shape ->
            shapeOf shape
            |> Result.map (fun sizes ->
                { Descr = descr
                  InFortran = fortran = "True"
                  Sizes = sizes
                  Start = offset })
        | _ -> Error "its header is not the dictionary of 'descr', 'fortran_order' and 'shape' that it should be"

    let private take (stream: Stream) (count: int) : Result<byte[], string> =
        let bytes = Array.zeroCreate<byte> count

        if stream.ReadAtLeast(bytes, count, false) = count then
            Ok bytes
        else
            Error "it ends in the middle of its header"

    /// The head of an array of any type.
    let internal readHead (stream: Stream) : Result<Head, string> =
        take stream 8
        |> Result.bind (fun start ->
            let version = int start[6]

            if start.AsSpan(0, 6).SequenceEqual(ReadOnlySpan magic) |> not then
                Error "it is not a .npy file"
            elif version < 1 || version > 3 || start[7] <> 0uy then
                Error $"it is of version {version}.{start[7]} of the format; 1.0, 2.0 and 3.0 can be read"
            else
                let width = if version = 1 then 2 else 4

                take stream width
                |> Result.bind (fun bytes ->
                    let length =
                        if version = 1 then
                            int64 (BinaryPrimitives.ReadUInt16LittleEndian(ReadOnlySpan bytes))
                        else
                            int64 (BinaryPrimitives.ReadUInt32LittleEndian(ReadOnlySpan bytes))

                    if length > int64 longestHeader then
                        Error $"its header takes {length} bytes; {longestHeader} are the most"
                    else
                        take stream (int length)
                        |> Result.bind (fun header ->
                            let encoding = if version = 3 then Encoding.UTF8 else Encoding.Latin1
                            parse (encoding.GetString header) (8L + int64 width + length))))

    let internal readHeader (stream: Stream) : Result<Header, string> =
        readHead stream
        |> Result.bind (fun head ->
            typeOf head.Descr
            |> Result.bind (fun dtype ->
                if head.Sizes.Length < 1 || head.Sizes.Length > 2 then
                    Error $"it has {head.Sizes.Length} dimensions; a vector or a matrix is needed"
                else
                    let shape = Array.ofList head.Sizes

                    sizeOf (dtype.ElementSize()) shape
                    |> Result.map (fun size ->
                        { Type = dtype
                          Fortran = head.InFortran
                          Shape = shape
                          Offset = head.Start
                          Size = size })))

    /// Numbers that pass between a file and a tensor at once: few enough for the spans of very long tensors.
    let private chunk = 1L <<< 24

    /// Calls `act` on the bytes of a contiguous tensor, piece by piece, in order and without copying them.
    let internal overBytes (flat: torch.Tensor) (act: torch.Tensor -> unit) : unit =
        for start in 0L .. chunk .. flat.NumberOfElements - 1L do
            use piece = flat.narrow (0L, start, min chunk (flat.NumberOfElements - start))
            act piece

    let internal readBody (stream: Stream) (header: Header) : torch.Tensor =
        Tensors.scoped (fun () ->
            let count = header.Shape |> Array.fold (*) 1L
            let flat = torch.empty (count, dtype = Nullable header.Type)
            overBytes flat (fun piece -> stream.ReadExactly piece.bytes)

            if header.Fortran && header.Shape.Length = 2 then
                flat.reshape(Array.rev header.Shape).t().contiguous()
            else
                flat.reshape header.Shape)

    /// The numbers of a whole file as a tensor over its pages, where the file lets itself be mapped as it lies: with numbers,
    /// in C order, the first of them at a multiple of their size (a mapping of numbers begins with the file).
    let private mapBody (path: string) (header: Header) : torch.Tensor option =
        let item = int64 (header.Type.ElementSize())

        if header.Size = 0L || header.Offset % item <> 0L || header.Fortran && header.Shape.Length = 2 then
            None
        else
            try
                Tensors.scoped (fun () ->
                    let before, count = header.Offset / item, header.Size / item
                    let file = torch.from_file (path, Nullable false, Nullable(before + count), Nullable header.Type)
                    file.narrow(0L, before, count).view header.Shape |> Mapped.note)
                |> Some
            with :? ExternalException ->
                None

    /// Checks a file and hands it to `body`, its header read.
    let private opened (body: Stream -> Header -> torch.Tensor) (path: string) : Result<torch.Tensor, Fault list> =
        let fault reason = Error [ Fault.Unreadable(path, reason) ]

        InputFile.reading "reading an array" path (fun () ->
            use stream = File.OpenRead path

            match readHeader stream with
            | Error reason -> fault reason
            | Ok header ->
                let held = stream.Length - header.Offset

                if held < header.Size then
                    fault $"its header promises {header.Size} bytes of numbers, but only {held} follow"
                elif held > header.Size then
                    fault $"its header promises {header.Size} bytes of numbers, but {held} follow"
                else
                    Ok(body stream header))

    /// Reads a vector or a matrix into a new tensor on the CPU, of the type that the file has. Both orders are read right.
    /// Faults: `Missing`; `Unreadable` for anything that is not a whole, little-endian array of a type named above. The
    /// sizes are checked against the file's length before any memory is asked for.
    let read (path: string) : Result<torch.Tensor, Fault list> = opened readBody path

    /// The tensor of `read`, and its faults, without a copy where the file allows it: the numbers are pages of the file,
    /// which the system fetches when they are touched and drops when it needs the memory. A change of the tensor in place
    /// stays with the tensor, unless its pages are given back (`Mapped.release`); the file is never written. Freeing the tensor and its views ends the mapping.
    ///
    /// Copied all the same: a matrix in Fortran order, an array without numbers, a file whose header is no multiple of a
    /// number's size (NumPy's are), a file that the system does not map.
    ///
    /// While the tensor lives, the file may be deleted, or replaced by another under its name as `write` does. To cut it
    /// short in place ends the process (SIGBUS) once a number that is gone is touched; to write into it may change the tensor.
    let map (path: string) : Result<torch.Tensor, Fault list> =
        opened (fun stream header -> mapBody path header |> Option.defaultWith (fun () -> readBody stream header)) path

    // ---- writing -------------------------------------------------------------------------------------------------

    let private descrOf (what: string) (dtype: torch.ScalarType) : string =
        match types |> List.tryFind (fun (_, known) -> known = dtype) with
        | Some(descr, _) -> descr
        | None -> Check.fail (Fault.BadValue(what, typeNames, string dtype))

    /// The first bytes of a file, up to the first number: version 1.0, as NumPy writes it, spare room included. Their number does
    /// not depend on how many rows there are, so that it may be written before that is known, and again in its place.
    /// Raises `CmclException` for a type that is not written.
    let preamble (dtype: torch.ScalarType) (shape: int64[]) : byte[] =
        let descr = descrOf "the type of an array" dtype
        let sizes = if shape.Length = 1 then $"({shape[0]},)" else $"({shape[0]}, {shape[1]})"

        let room = String(' ', 21 - (string shape[0]).Length)

        let header = $"{{'descr': '{descr}', 'fortran_order': False, 'shape': {sizes}, }}{room}"

        let length = magic.Length + 4 + header.Length + 1
        let padded = header + String(' ', 64 - length % 64) + "\n"

        [| yield! magic
           1uy
           0uy
           byte padded.Length
           byte (padded.Length >>> 8)
           yield! Encoding.ASCII.GetBytes padded |]

    /// Writes the numbers of a tensor in C order: all of a file's behind its `preamble`, or some rows of them.
    let writeNumbers (stream: Stream) (tensor: torch.Tensor) : unit =
        use scope = torch.NewDisposeScope()

        overBytes (tensor.detach().cpu().contiguous().reshape -1L) (fun piece ->
            stream.Write(Span.op_Implicit piece.bytes: ReadOnlySpan<byte>))

    /// Writes a vector or a matrix in C order, little-endian. The same numbers give the same bytes; the file appears whole
    /// or not at all. Raises `CmclException` for a tensor of another type or rank; an I/O failure is a fault.
    let write (path: string) (tensor: torch.Tensor) : Result<unit, Fault list> =
        if tensor.dim () < 1L || tensor.dim () > 2L then
            Check.fail (Fault.Shape($"an array for '{path}'", "a vector or a matrix", Tensors.shapeText tensor))

        descrOf $"an array for '{path}'" tensor.dtype |> ignore

        Files.writeWhole path (fun stream ->
            stream.Write(ReadOnlySpan(preamble tensor.dtype tensor.shape))
            writeNumbers stream tensor)

    /// Writes a matrix that is never held whole: blocks of its rows, each freed once it is on disk. The file appears whole or not at
    /// all. Raises what making a block raises, and `CmclException` for rows that are not as announced; an I/O failure is a fault.
    let writeRows
        (path: string)
        (dtype: torch.ScalarType)
        (rows: int64)
        (columns: int64)
        (blocks: seq<torch.Tensor>)
        : Result<unit, Fault list> =
        Files.writeWhole path (fun stream ->
            stream.Write(ReadOnlySpan(preamble dtype [| rows; columns |]))
            let mutable written = 0L

            for block in blocks do
                use block = block
                Tensors.requireMatrix $"a block of rows for '{path}'" -1L columns block
                written <- written + block.shape[0]
                use typed = block.``to`` dtype
                writeNumbers stream typed

            if written <> rows then
                Check.fail (Fault.Shape($"rows for '{path}'", string rows, string written)))
