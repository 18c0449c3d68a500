namespace Cmcl

open System
open System.Buffers.Binary
open System.IO
open System.Runtime.InteropServices
open System.Text.Json
open TorchSharp

/// What a `.safetensors` file holds: tensors by name, and texts about them.
type NamedTensors =
    { Tensors: Map<string, torch.Tensor>
      Metadata: Map<string, string> }

/// Safetensors files: named tensors with nothing in them that could run.
///
/// Format: the length of the header (8 bytes, little-endian), the header (a JSON object: for each name `dtype`, `shape` and
/// `data_offsets`, from and up to which byte behind the header its numbers lie; texts under `__metadata__`; spaces at its end),
/// then the numbers in C order, little-endian, without holes.
[<RequireQualifiedAccess>]
module Safetensors =
    /// Types by name, the widest first and otherwise in the order in which the format's own writer lays them down. Enumeration
    /// values, since `torch.float32` and its like would load the native library when this module is touched.
    let private types =
        [ "I64", torch.ScalarType.Int64
          "F64", torch.ScalarType.Float64
          "F32", torch.ScalarType.Float32
          "I32", torch.ScalarType.Int32
          "BF16", torch.ScalarType.BFloat16
          "F16", torch.ScalarType.Float16
          "I16", torch.ScalarType.Int16
          "I8", torch.ScalarType.Int8
          "U8", torch.ScalarType.Byte
          "BOOL", torch.ScalarType.Bool ]

    let private typeNames = String.Join(", ", List.map fst types)

    [<Literal>]
    let private AboutKey = "__metadata__"

    /// The limit of the format's own reader.
    let private longestHeader = 100_000_000L

    /// More than any tensor has, so that a header cannot ask for a billion.
    let private mostDimensions = 32

    type private Entry =
        { Name: string
          Type: torch.ScalarType
          Shape: int64[]
          First: int64
          Past: int64 }

    // ---- reading -------------------------------------------------------------------------------------------------

    /// More than any model has, so that a header cannot keep the reader busy for hours.
    let private mostNames = 100_000

    /// Why a header is refused, as an exception within this file.
    exception private Refused of string

    let private refuse reason = raise (Refused reason)

    /// The entries of an object, each name once.
    let private entries (what: string) (json: JsonElement) : (string * JsonElement) list =
        if json.ValueKind <> JsonValueKind.Object then
            refuse $"{what} is not a JSON object"

        if json.GetPropertyCount() > mostNames then
            refuse $"{what} has {json.GetPropertyCount()} names; {mostNames} are the most"

        let all = [ for e in json.EnumerateObject() -> e.Name, e.Value ]

        match all |> List.countBy fst |> List.tryFind (fun (_, times) -> times > 1) with
        | Some(name, _) -> refuse $"{what} names '{name}' twice"
        | None -> all

    let private whole (what: string) (json: JsonElement) : int64 =
        match json.ValueKind = JsonValueKind.Number, json with
        | true, json ->
            match json.TryGetInt64() with
            | true, n when n >= 0L -> n
            | _ -> refuse $"{what} has {json.GetRawText()} where a whole number from 0 is needed"
        | _ -> refuse $"{what} has {json.ValueKind} where a whole number is needed"

    let private wholes (what: string) (json: JsonElement) : int64[] =
        if json.ValueKind <> JsonValueKind.Array then
            refuse $"{what} is not a list"

        [| for item in json.EnumerateArray() -> whole what item |]

    /// Bytes of a tensor, unless they are beyond what 64 bits can count, whatever other sizes are zero.
    let private sizeOf (name: string) (dtype: torch.ScalarType) (shape: int64[]) : int64 =
        let total = Array.fold (fun product size -> product * bigint (max 1L size)) (bigint (dtype.ElementSize())) shape

        if total > bigint Int64.MaxValue then
            refuse $"the shape of '{name}' asks for more memory than there can be"
        elif Array.contains 0L shape then
            0L
        else
            int64 total

    let private entry (name: string) (json: JsonElement) : Entry =
        let fields = Map(entries $"what the header says of '{name}'" json)

        let field key =
            match Map.tryFind key fields with
            | Some value -> value
            | None -> refuse $"the header gives '{name}' no '{key}'"

        for key in fields.Keys do
            if not (List.contains key [ "dtype"; "shape"; "data_offsets" ]) then
                refuse $"the header gives '{name}' an unknown key '{key}'"

        let given = field "dtype"
        let dtype = if given.ValueKind = JsonValueKind.String then string (given.GetString()) else given.GetRawText()
        let shape = wholes $"the shape of '{name}'" (field "shape")

        if shape.Length > mostDimensions then
            refuse $"'{name}' has {shape.Length} dimensions; {mostDimensions} are the most"

        match List.tryFind (fst >> (=) dtype) types, wholes $"data_offsets of '{name}'" (field "data_offsets") with
        | None, _ -> refuse $"'{name}' is of type '{dtype}'; {typeNames} can be read"
        | Some(_, found), [| first; past |] when first <= past ->
            let size = sizeOf name found shape

            if past - first <> size then
                refuse $"the shape of '{name}' asks for {size} bytes, but its data_offsets span {past - first}"

            { Name = name
              Type = found
              Shape = shape
              First = first
              Past = past }
        | Some _, _ -> refuse $"data_offsets of '{name}' are not two numbers in order"

    /// Every byte behind the header belongs to exactly one tensor.
    let private requireGapless (entries: Entry list) (held: int64) : unit =
        let ends =
            (0L, List.sortBy (fun e -> e.First, e.Past) entries)
            ||> List.fold (fun at e ->
                if e.First <> at then
                    let what = if e.First < at then "overlaps another tensor" else "leaves a hole before it"
                    refuse $"'{e.Name}' {what}: it begins at byte {e.First}, expected {at}"

                e.Past)

        if ends <> held then
            refuse $"its header promises {ends} bytes of numbers, but {held} follow"

    let private parse (header: byte[]) (held: int64) : Map<string, string> * Entry list =
        if header.Length = 0 || header[0] <> byte '{' then
            refuse "its header does not begin with '{', as a safetensors file's does"

        try
            use document = JsonDocument.Parse(ReadOnlyMemory header)
            let about, tensors = entries "the header" document.RootElement |> List.partition (fst >> (=) AboutKey)

            let about =
                [ for _, texts in about do
                      for name, value in entries AboutKey texts do
                          if value.ValueKind <> JsonValueKind.String then
                              refuse $"{AboutKey} has '{name}', which is not a text"

                          name, string (value.GetString()) ]

            let tensors = [ for name, json in tensors -> entry name json ]
            requireGapless tensors held
            Map about, tensors
        with
        | :? JsonException
        | :? InvalidOperationException as e -> refuse $"its header is not valid JSON ({e.Message.TrimEnd '.'})"

    let private take (stream: Stream) (count: int) : byte[] =
        let bytes = Array.zeroCreate<byte> count

        if stream.ReadAtLeast(bytes, count, false) < count then
            refuse "it ends in the middle of its header"

        bytes

    /// The texts and the entries of a header, and where the numbers begin.
    let private head (stream: Stream) : Map<string, string> * Entry list * int64 =
        let length = BinaryPrimitives.ReadUInt64LittleEndian(ReadOnlySpan(take stream 8))

        if length > uint64 longestHeader then
            refuse $"its header would take {length} bytes; {longestHeader} are the most, so it is no safetensors file"

        if int64 length > stream.Length - 8L then
            refuse $"its header promises {length} bytes, but only {stream.Length - 8L} follow"

        let start = 8L + int64 length
        let about, entries = parse (take stream (int length)) (stream.Length - start)
        about, entries, start

    let private opened (path: string) (act: Stream -> 'a) : Result<'a, Fault list> =
        InputFile.reading "reading tensors" path (fun () ->
            try
                use stream = File.OpenRead path
                Ok(act stream)
            with Refused reason ->
                Error [ Fault.Unreadable(path, reason) ])

    /// Names, types and sizes of a file's tensors, and at which byte of the file their numbers begin. Faults: those of `read`.
    let heads (path: string) : Result<(string * torch.ScalarType * int64[] * int64) list, Fault list> =
        opened path (fun stream ->
            let _, entries, start = head stream
            [ for e in entries -> e.Name, e.Type, e.Shape, start + e.First ])

    let private readAll (stream: Stream) : NamedTensors =
        let about, entries, start = head stream
        use scope = torch.NewDisposeScope()

        let tensors =
            [ for e in entries ->
                  let flat = torch.empty (Array.fold (*) 1L e.Shape, dtype = Nullable e.Type)
                  stream.Position <- start + e.First
                  Npy.overBytes flat (fun piece -> stream.ReadExactly piece.bytes)
                  e.Name, scope.MoveToOuter(flat.reshape e.Shape) ]

        { Tensors = Map tensors; Metadata = about }

    /// Reads every tensor of a file onto the CPU, of the types that the file has. Faults: `Missing`; `Unreadable` for anything
    /// that is not a whole file of the format. Lengths are checked against the file's before any memory is asked for.
    let read (path: string) : Result<NamedTensors, Fault list> = opened path readAll

    // ---- writing -------------------------------------------------------------------------------------------------

    /// The header as the format's own writer lays it down: wide types first, names in order, spaces to a multiple of 8 bytes.
    let private header (laid: (string * string * torch.Tensor) list) (metadata: Map<string, string>) : byte[] =
        use memory = new MemoryStream()

        do
            use json =
                new Utf8JsonWriter(
                    memory,
                    JsonWriterOptions(Encoder = Text.Encodings.Web.JavaScriptEncoder.UnsafeRelaxedJsonEscaping)
                )

            json.WriteStartObject()

            if not metadata.IsEmpty then
                json.WriteStartObject AboutKey

                for KeyValue(name, value) in metadata do
                    json.WriteString(name, value)

                json.WriteEndObject()

            let mutable at = 0L

            for name, dtype, t in laid do
                json.WriteStartObject name
                json.WriteString("dtype", dtype)
                json.WriteStartArray "shape"

                for size in t.shape do
                    json.WriteNumberValue size

                json.WriteEndArray()
                json.WriteStartArray "data_offsets"
                json.WriteNumberValue at
                at <- at + Tensors.bytes t
                json.WriteNumberValue at
                json.WriteEndArray()
                json.WriteEndObject()

            json.WriteEndObject()

        while memory.Length % 8L <> 0L do
            memory.WriteByte(byte ' ')

        memory.ToArray()

    /// Tensors and texts about them as the bytes of a file: the same give the same, those that the format's own writer gives. Raises
    /// `CmclException` for a tensor of another type, or named `__metadata__`.
    let toStream (content: NamedTensors) : Stream -> unit =
        let place (dtype: torch.ScalarType) = types |> List.tryFindIndex (snd >> (=) dtype)

        for KeyValue(name, t) in content.Tensors do
            if name = AboutKey then
                Check.fail (Fault.BadValue("a tensor's name", $"any text but {AboutKey}", name))

            if (place t.dtype).IsNone then
                Check.fail (Fault.BadValue($"the type of tensor '{name}'", typeNames, string t.dtype))

        let laid =
            Map.toList content.Tensors
            |> List.sortWith (fun (a, s) (b, t) ->
                match compare (place s.dtype) (place t.dtype) with
                | 0 -> String.CompareOrdinal(a, b)
                | order -> order)
            |> List.map (fun (name, t) -> name, types |> List.find (snd >> (=) t.dtype) |> fst, t)

        fun stream ->
            let header = header laid content.Metadata
            let length = Array.zeroCreate<byte> 8
            BinaryPrimitives.WriteInt64LittleEndian(Span length, header.LongLength)
            stream.Write(ReadOnlySpan length)
            stream.Write(ReadOnlySpan header)

            for _, _, t in laid do
                Npy.writeNumbers stream t

    /// Writes `toStream` into a file, which appears whole or not at all; an I/O failure is a fault.
    let write (path: string) (content: NamedTensors) : Result<unit, Fault list> =
        let write = toStream content
        Files.writeWhole path write
