namespace Cmcl

open System
open System.Collections.Generic
open System.IO
open System.IO.Compression
open System.Text
open TorchSharp

/// A tensor within a storage of a file: sizes, steps and the first number are counted in numbers.
type private View =
    { Storage: string
      Type: torch.ScalarType
      Offset: int64
      Shape: int64 list
      Strides: int64 list }

[<RequireQualifiedAccess; ReferenceEquality>]
type private Value =
    | Nothing
    | Mark
    | Truth of bool
    | Whole of bigint
    | Real of float
    | Text of string
    | Bytes of byte[]
    | List of ResizeArray<Value>
    | Dict of ResizeArray<Value * Value>
    | Global of string
    | Storage of key: string * torch.ScalarType
    | Tensor of View
    /// NumPy's: what it is filled with after it is made; of a type, its name first.
    | Array of ResizeArray<Value>

    member v.AsText =
        match v with
        | Text t -> Some t
        | _ -> None

    member v.AsDigits =
        match v with
        | Whole n -> Some(string n)
        | Truth x -> Some(if x then "1" else "0")
        | _ -> None

/// Pickles of values: a reader that builds what stands in `Value`, and calls nothing.
[<RequireQualifiedAccess>]
module private Pickle =
    let private refuse reason = raise (InvalidDataException reason)

    /// Types by names: `name:Type` and so on.
    let types (pairs: string) : Map<string, torch.ScalarType> =
        Map
            [ for pair in pairs.Split ' ' ->
                  pair[.. pair.IndexOf ':' - 1], Enum.Parse<torch.ScalarType> pair[pair.IndexOf ':' + 1 ..] ]

    let private storages =
        types
            "Float:Float32 Half:Float16 Double:Float64 BFloat16:BFloat16 Long:Int64 Int:Int32 Short:Int16 Char:Int8 Byte:Byte Bool:Bool"

    let private storage (name: string) : torch.ScalarType option =
        if name.StartsWith "torch." && name.EndsWith "Storage" then
            Map.tryFind name[6 .. name.Length - 8] storages
        else
            None

    let private known =
        "collections.OrderedDict builtins.set builtins.list builtins.bytearray _codecs.encode torch.Size torch.device torch._utils._rebuild_tensor_v2
        torch._utils._rebuild_tensor torch._utils._rebuild_parameter numpy.ndarray numpy.dtype numpy.core.multiarray._reconstruct
        numpy.core.multiarray.scalar numpy.core.numeric._frombuffer torch.float16 torch.float32 torch.float64 torch.bfloat16 torch.int8 torch.int16 torch.int32 torch.int64
        torch.uint8 torch.bool"
            .Split([| ' '; '\n' |], StringSplitOptions.RemoveEmptyEntries)
        |> set

    let private global' (name: string) : Value =
        // As Python 3 and NumPy 1 call them.
        let name = name.Replace("numpy._core.", "numpy.core.").Replace("__builtin__.", "builtins.")

        if not (known.Contains name || (storage name).IsSome) then
            refuse
                $"it holds '{name}', which is not built, as a pickle's names can run code. To write it anew: torch.save of a dict of tensors and lists, or safetensors.torch.save_file"

        Value.Global name

    let private items (value: Value) : Value list =
        match value with
        | Value.List all -> List.ofSeq all
        | _ -> refuse "its pickle has another value where a list is needed"

    let private wholes (value: Value) : int64 list =
        [ for item in items value ->
              match item with
              | Value.Whole n -> int64 n
              | _ -> refuse "its pickle has another value where a whole number is needed" ]

    /// What a function of the few that are known gives.
    let private call (name: string) (arguments: Value list) : Value =
        match name, arguments with
        | ("torch._utils._rebuild_tensor_v2" | "torch._utils._rebuild_tensor"),
          Value.Storage(key, dtype) :: Value.Whole offset :: shape :: strides :: _ ->
            let view =
                { Storage = key
                  Type = dtype
                  Offset = int64 offset
                  Shape = wholes shape
                  Strides = wholes strides }

            if view.Shape.Length <> view.Strides.Length || List.min (view.Offset :: view.Shape @ view.Strides) < 0L then
                refuse "the sizes of a tensor in it cannot be"

            Value.Tensor view
        | "torch._utils._rebuild_parameter", (Value.Tensor _ as tensor) :: _ -> tensor
        | "collections.OrderedDict", [] -> Value.Dict(ResizeArray())
        | "collections.OrderedDict", [ pairs ] ->
            Value.Dict(ResizeArray [ for pair in items pairs -> (items pair)[0], (items pair)[1] ])
        | ("builtins.set" | "builtins.list" | "torch.Size"), [ Value.List all ] -> Value.List all
        | ("_codecs.encode" | "builtins.bytearray"), Value.Text text :: _ -> Value.Bytes(Encoding.Latin1.GetBytes text)
        | "builtins.bytearray", [ Value.Bytes bytes ] -> Value.Bytes bytes
        | "numpy.core.multiarray._reconstruct", _ -> Value.Array(ResizeArray())
        | "numpy.core.numeric._frombuffer", [ bytes; dtype; shape; order ] ->
            Value.Array(ResizeArray [ Value.Nothing; shape; dtype; Value.Truth(order.AsText = Some "F"); bytes ])
        | "numpy.dtype", name :: _ -> Value.Array(ResizeArray [ name ])
        | ("torch.device" | "numpy.core.multiarray.scalar"), _ -> Value.Nothing
        | _ -> refuse $"it holds '{name}' with other arguments than expected"

    /// Fills what was made before; what a state dict remembers of its module is no matter.
    let private build (made: Value) (state: Value) : unit =
        match made, state with
        | Value.Array filled, Value.List state -> filled.AddRange state
        | Value.Dict _, Value.Dict _ -> ()
        | _ -> refuse "its pickle fills an object that is not built"

    let private run (bytes: byte[]) : Value =
        let stack, memo = Stack<Value>(), Dictionary<int, Value>()
        use stream = new MemoryStream(bytes)

        let take (count: int64) : byte[] =
            if count < 0L || count > stream.Length - stream.Position then
                refuse "its pickle is cut short"

            let found = Array.zeroCreate<byte>(int count)
            stream.ReadExactly found
            found

        let number (size: int) = bigint (ReadOnlySpan(take (int64 size)), true)
        let size (width: int) = number width |> min (bigint Int64.MaxValue) |> int64
        let text (count: int64) = Value.Text(Encoding.UTF8.GetString(take count))

        let line () =
            let stop = Array.IndexOf(bytes, 10uy, int stream.Position)
            let text = Encoding.UTF8.GetString(take (int64 stop - stream.Position))
            take 1L |> ignore
            text

        let push = stack.Push

        let rec popped (goesOn: int -> bool) (found: Value list) =
            if goesOn found.Length then popped goesOn (stack.Pop() :: found) else ResizeArray found

        let marked () =
            let found = popped (fun _ -> not (stack.Peek().IsMark)) []
            stack.Pop() |> ignore
            found

        let pushed count = push (Value.List(popped ((>) count) []))

        let add (all: Value seq) =
            match stack.Peek() with
            | Value.List list -> list.AddRange all
            | Value.Dict dict -> dict.AddRange [ for pair in Seq.chunkBySize 2 all -> pair[0], pair[1] ]
            | _ -> refuse "its pickle adds to what is no list and no dict"

        let mutable ended = false

        while not ended do
            match char (size 1) with
            | '\x80' -> take 1L |> ignore
            | '\x95' -> take 8L |> ignore
            | '.' -> ended <- true
            | '(' -> push Value.Mark
            | '0' -> stack.Pop() |> ignore
            | '1' -> marked () |> ignore
            | '2' -> push (stack.Peek())
            | 'N' -> push Value.Nothing
            | '\x88' -> push (Value.Truth true)
            | '\x89' -> push (Value.Truth false)
            | 'J' -> push (Value.Whole(bigint (BitConverter.ToInt32(take 4L, 0))))
            | 'K' -> push (Value.Whole(number 1))
            | 'M' -> push (Value.Whole(number 2))
            | '\x8a' -> push (Value.Whole(bigint (take (size 1))))
            | '\x8b' -> push (Value.Whole(bigint (take (size 4))))
            | 'G' -> push (Value.Real(BitConverter.ToDouble(Array.rev (take 8L), 0)))
            | 'U'
            | '\x8c' -> push (text (size 1))
            | 'T'
            | 'X' -> push (text (size 4))
            | '\x8d' -> push (text (size 8))
            | 'C' -> push (Value.Bytes(take (size 1)))
            | 'B' -> push (Value.Bytes(take (size 4)))
            | '\x8e'
            | '\x96' -> push (Value.Bytes(take (size 8)))
            | ']'
            | ')'
            | '\x8f' -> push (Value.List(ResizeArray()))
            | 'l'
            | 't'
            | '\x91' -> push (Value.List(marked ()))
            | '\x85' -> pushed 1
            | '\x86' -> pushed 2
            | '\x87' -> pushed 3
            | 'a' -> add [ stack.Pop() ]
            | 'e'
            | 'u'
            | '\x90' -> add (marked ())
            | '}' -> push (Value.Dict(ResizeArray()))
            | 'd' ->
                let all = marked ()
                push (Value.Dict(ResizeArray()))
                add all
            | 's' -> add (popped ((>) 2) [])
            | 'c' ->
                let space = line ()
                push (global' $"{space}.{line ()}")
            | '\x93' ->
                match stack.Pop(), stack.Pop() with
                | Value.Text name, Value.Text space -> push (global' $"{space}.{name}")
                | _ -> refuse "its pickle asks for a name that is no text"
            | 'R'
            | '\x81' ->
                let arguments = items (stack.Pop())

                match stack.Pop() with
                | Value.Global name -> push (call name arguments)
                | _ -> refuse "its pickle calls what is no name"
            | 'b' ->
                let state = stack.Pop()
                build (stack.Peek()) state
            | 'Q' ->
                match items (stack.Pop()) with
                | Value.Text "storage" :: Value.Global name :: Value.Text key :: _ when (storage name).IsSome ->
                    push (Value.Storage(key, (storage name).Value))
                | _ -> refuse "its pickle refers to something else than a tensor's storage"
            | 'q' -> memo[int (size 1)] <- stack.Peek()
            | 'r' -> memo[int (size 4)] <- stack.Peek()
            | '\x94' -> memo[memo.Count] <- stack.Peek()
            | 'h' -> push memo[int (size 1)]
            | 'j' -> push memo[int (size 4)]
            | code -> refuse $"its pickle has the instruction {int code} at byte {stream.Position - 1L}, which is not read"

        stack.Pop()

    /// The value of a pickle of protocol 2 to 5. Raises `InvalidDataException` with what is wrong.
    let read (bytes: byte[]) : Value =
        try
            run bytes
        with
        | :? KeyNotFoundException
        | :? InvalidOperationException -> refuse "its pickle is damaged: it takes what was never put there"

/// Files of `torch.save`: tensors and lists in dicts, without running anything that such a file could ask for.
[<RequireQualifiedAccess>]
module TorchFile =
    /// Where the numbers of an array are: in a storage of the file, or in its pickle.
    [<RequireQualifiedAccess>]
    type private Source =
        | File of View
        | Held of (unit -> torch.Tensor)

    /// From the first number of a row to behind its last.
    let private extent (view: View) =
        1L + (List.zip view.Shape.Tail view.Strides.Tail |> List.sumBy (fun (n, stride) -> (n - 1L) * stride))

    let private numPyTypes = Pickle.types "f2:Float16 f4:Float32 f8:Float64 i1:Int8 i2:Int16 i4:Int32 i8:Int64 u1:Byte b1:Bool"

    /// The type and sizes of a NumPy array, and its numbers.
    let private (|NumPy|_|) (value: Value) =
        match value with
        | Value.Array state when state.Count = 5 ->
            match state[1], state[2], state[3], state[4] with
            | Value.List sizes, Value.Array dtype, Value.Truth fortran, Value.Bytes bytes when
                dtype.Count > 2 && dtype[2].AsText <> Some ">"
                ->
                let shape = [| for n in sizes -> n.AsDigits |> Option.get |> int64 |]

                dtype[0].AsText
                |> Option.bind numPyTypes.TryFind
                |> Option.map (fun dtype ->
                    dtype,
                    List.ofArray shape,
                    fun () ->
                        let flat = torch.empty ((if fortran then Array.rev shape else shape), dtype = Nullable dtype)
                        bytes.AsSpan().CopyTo flat.bytes

                        if fortran then
                            flat.permute(Array.init shape.Length (fun i -> int64 (shape.Length - 1 - i))).contiguous()
                        else
                            flat)
            | _ -> None
        | _ -> None

    let private text (v: Value) = v.AsText
    let private digits (v: Value) = v.AsDigits

    let private real v =
        match v with
        | Value.Real x -> Some x
        | Value.Whole n -> Some(float n)
        | _ -> None

    let private pairs v =
        match v with
        | Value.Dict pairs -> Some(List.ofSeq pairs)
        | _ -> None

    let private row v =
        match v with
        | Value.Tensor t when t.Shape.Length = 1 || t.Shape.Length = 2 && t.Shape.Head = 1L -> Some t
        | _ -> None

    /// What each of some values is, where all are something.
    let private (|Each|_|) (pick: Value -> 'a option) (values: ResizeArray<Value>) : 'a list option =
        let found = values |> Seq.choose pick |> List.ofSeq
        if values.Count > 0 && found.Length = values.Count then Some found else None

    /// The contents of a value, each under its path; `note` is told where the numbers of an array are.
    let rec private contents (note: string -> Source -> unit) (path: string list) (value: Value) : (string list * Content) list =
        let name = String.Join(".", path)
        let one content = [ path, content ]
        let words (all: string list) = one (Content.Words(all.Length, fun () -> Array.ofList all))

        let numbers name dtype shape height source =
            note name source

            { Name = name
              Type = dtype
              Shape = shape
              Height = height }

        let tensor name (view: View) =
            let together = view.Shape.IsEmpty || view.Strides.Head >= extent view
            numbers name view.Type view.Shape (if together then 1L else view.Shape.Head) (Source.File view)

        let child (key: Value) value =
            if path.Length > 16 then
                raise (InvalidDataException "its dicts are nested too deeply, or hold themselves")

            match Option.orElse key.AsDigits key.AsText with
            | Some key -> contents note (path @ [ key ]) value
            | None -> [ path @ [ "?" ], Content.Other "under a key that is neither a text nor a whole number" ]

        match value with
        | Value.Tensor view -> one (Content.Numbers(tensor name view))
        | NumPy(dtype, shape, make) -> one (Content.Numbers(numbers name dtype shape 1L (Source.Held make)))
        | Value.Dict pairs -> List.ofSeq pairs |> List.collect (fun (key, value) -> child key value)
        | Value.List(Each text all)
        | Value.List(Each digits all) -> words all
        | Value.List(Each real all) ->
            let held = Source.Held(fun () -> torch.tensor (Array.ofList all))
            one (Content.Numbers(numbers name torch.ScalarType.Float64 [ int64 all.Length ] 1L held))
        | Value.List(Each row views) when views |> List.distinctBy (fun v -> v.Type, List.last v.Shape) |> List.length = 1 ->
            one (Content.Stack(views |> List.mapi (fun i view -> tensor $"{name}.{i}" view)))
        // Records, a row each: their values by keys.
        | Value.List(Each pairs records) when
            records |> List.distinctBy (List.map (fun (key, _) -> key.AsText)) |> List.length = 1
            ->
            List.transpose records
            |> List.collect (fun cells -> child (fst cells.Head) (Value.List(ResizeArray(List.map snd cells))))
        | Value.List all -> one (Content.Other $"a list of {all.Count} values that are no column")
        | _ -> one (Content.Other "a single value")

    let private wayOut = "torch.save(torch.load('OLD.pt', weights_only=True), 'NEW.pt') by PyTorch 1.6 or later writes it anew"

    let private archive (path: string) : ZipArchive =
        use stream = File.OpenRead path
        let first = Array.zeroCreate<byte> 2

        match stream.Read(first, 0, 2), first with
        | 2, [| 0x50uy; 0x4Buy |] -> Table.zip path
        | 2, [| 0x80uy; _ |] -> raise (InvalidDataException $"it is a bare pickle, or of PyTorch's format before 1.6; {wayOut}")
        | _ -> raise (InvalidDataException $"it is no file of torch.save, which writes zip files; {wayOut}")

    let private whole (entry: ZipArchiveEntry) : byte[] =
        use stream = entry.Open()
        use memory = new MemoryStream()
        stream.CopyTo memory
        memory.ToArray()

    /// Streams of the storages as far as they are read, opened anew for what lies before.
    let private reader (path: string) (root: string) (sources: Dictionary<string, Source>) : RowReader =
        let zip = archive path
        let cursors = Dictionary<string, Stream * int64>()

        let read (key: string) (from: int64) (into: torch.Tensor) =
            let fresh () = (nonNull (zip.GetEntry $"{root}data/{key}")).Open(), 0L

            let stream, position =
                match cursors.TryGetValue key with
                | true, (stream, _) when stream.CanSeek ->
                    stream.Position <- from
                    stream, from
                | true, (stream, position) when position <= from -> stream, position
                | true, (stream, _) ->
                    stream.Dispose()
                    fresh ()
                | _ -> fresh ()

            let skipped = Array.zeroCreate<byte>(int (min 65536L (from - position)))
            let mutable left = from - position

            while left > 0L do
                let count = int (min left (int64 skipped.Length))
                stream.ReadExactly(skipped, 0, count)
                left <- left - int64 count

            Npy.overBytes into (fun piece -> stream.ReadExactly piece.bytes)
            cursors[key] <- (stream, from + Tensors.bytes into)

        { new RowReader with
            member _.Rows(array, first, count) =
                match sources[array.Name] with
                | Source.Held make -> make().narrow(0L, first, count)
                | Source.File view ->
                    let shape = Array.ofList (count :: view.Shape.Tail)

                    if Array.contains 0L shape then
                        torch.empty (shape, dtype = Nullable view.Type)
                    else
                        let flat = torch.empty ((count - 1L) * view.Strides.Head + extent view, dtype = Nullable view.Type)
                        read view.Storage ((view.Offset + first * view.Strides.Head) * flat.ElementSize) flat
                        flat.as_strided(shape, Array.ofList view.Strides, 0L).contiguous()
          interface IDisposable with
              member _.Dispose() =
                  for stream, _ in cursors.Values do
                      stream.Dispose()

                  zip.Dispose() }

    /// The table of a file: a column for every tensor and list under its key, `outer.inner` in dicts within dicts; `features` for a tensor or a
    /// list by itself; `id` and `features` for a dict of vectors by ids. Faults: `Missing`; `Unreadable` for any other file, and for one that
    /// asks for anything to be built or called that is no tensor, list, dict, text or number, by its name.
    let read (path: string) : Result<Table, Fault list> =
        Table.reading path (fun () ->
            use zip = archive path

            match zip.Entries |> Seq.tryFind (fun e -> e.FullName = "data.pkl" || e.FullName.EndsWith "/data.pkl") with
            | None ->
                Error [ Fault.Unreadable(path, $"it is a zip file without a data.pkl, and so none of torch.save; {wayOut}") ]
            | Some pickle ->
                let root = pickle.FullName.Substring(0, pickle.FullName.Length - 8)
                let lengths = dict [ for e in zip.Entries -> e.FullName, e.Length ]
                let sources = Dictionary<string, Source>()

                match zip.GetEntry $"{root}byteorder" with
                | null -> ()
                | order when Encoding.ASCII.GetString(whole order).Trim() <> "little" ->
                    raise (InvalidDataException $"its numbers are big-endian; {wayOut} on a little-endian machine")
                | _ -> ()

                let note name source =
                    match source with
                    | Source.File view when not (List.contains 0L view.Shape) ->
                        let last =
                            if view.Shape.IsEmpty then
                                view.Offset + 1L
                            else
                                view.Offset + (view.Shape.Head - 1L) * view.Strides.Head + extent view

                        match lengths.TryGetValue $"{root}data/{view.Storage}" with
                        | true, length when last <= length / int64 (view.Type.ElementSize()) -> ()
                        | true, _ -> raise (InvalidDataException $"the tensor '{name}' reaches beyond its storage")
                        | _ -> raise (InvalidDataException $"the storage of the tensor '{name}' is missing")
                    | _ -> ()

                    sources[name] <- source

                let found =
                    match Pickle.read (whole pickle) with
                    | Value.Dict pairs when pairs.Count = 1 && (snd pairs[0]).IsDict -> contents note [] (snd pairs[0])
                    | (Value.Dict _ | Value.List(Each pairs _)) as all -> contents note [] all
                    | other -> contents note [ "features" ] other

                Ok(Arrays.table path "." found (fun () -> reader path root sources)))
