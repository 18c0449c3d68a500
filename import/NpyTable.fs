namespace Cmcl

open System
open System.IO
open System.IO.Compression
open System.Text
open TorchSharp

/// Arrays of `.npy` files, and of `.npz` files, which are zip files of those. Read as streams, block by block.
[<RequireQualifiedAccess>]
module NpyTable =

    /// Something to read a `.npy` file's bytes from: what it is called, and its bytes from the first on with their number.
    type private Place =
        { File: string
          Open: (Stream -> int64 -> Result<unit, Fault list>) -> Result<unit, Fault list> }

    /// What the numbers or texts of an array are, by NumPy's name of their type (`'<f4'`): their kind and the bytes of one.
    let private kindOf (descr: string) : (char * int) option =
        let inner = descr.Trim('\'', '"').TrimStart('<', '>', '|', '=')

        match (if inner = "" then (false, 0) else Int32.TryParse(inner.Substring 1)), Seq.tryHead inner with
        | (true, (2 | 4 | 8 as size)), Some 'f' -> Some('f', size)
        | (true, (1 | 2 | 4 | 8 as size)), Some('i' | 'u' | 'b' as kind) -> Some(kind, size)
        | (true, size), Some 'U' when size > 0 -> Some('U', 4 * size)
        | (true, size), Some 'S' when size > 0 -> Some('S', size)
        | _ -> None

    /// The type of a column of that kind, by which it is features or words.
    let private typeOf (kind: char, size: int) : torch.ScalarType =
        match kind, size with
        | 'f', 2 -> torch.ScalarType.Float16
        | 'f', 4 -> torch.ScalarType.Float32
        | 'f', _ -> torch.ScalarType.Float64
        | _ -> torch.ScalarType.Int64

    /// A type that is no column, in words.
    let private other (descr: string) (sizes: int64 list) : string =
        let shape = String.Join(" × ", sizes)

        match kindOf descr, descr.Trim('\'', '"') with
        | Some('i', size), _ -> $"int{8 * size}, {shape}"
        | Some('u', size), _ -> $"uint{8 * size}, {shape}"
        | Some('b', _), _ -> $"bool, {shape}"
        | Some('f', size), _ -> $"float{8 * size}, {shape}"
        | Some _, _ -> $"texts, {shape}"
        | None, inner when descr.StartsWith '[' -> $"records with fields, {inner}"
        | None, inner when inner.Contains 'O' ->
            "Python objects, which only a pickle can hold; x.astype('f4') or x.astype(str) makes numbers or texts of them"
        | None, "|V2" -> "two bytes of no type, as bfloat16 is saved; x.astype('f4') before it is saved"
        | None, inner -> $"type {inner}, {shape}"

    /// The head of an array, and what `act` makes of what follows it, whose length has been checked.
    let private head (place: Place) (act: Stream -> Npy.Head -> unit) : Result<unit, Fault list> =
        let fault reason = Error [ Fault.Unreadable(place.File, reason) ]

        place.Open(fun stream length ->
            use buffered = new BufferedStream(stream, 1 <<< 16)

            match Npy.readHead buffered with
            | Error reason -> fault reason
            | Ok head ->
                let items = head.Sizes |> List.fold (fun product size -> product * bigint size) 1I

                match kindOf head.Descr with
                | Some(_, size) when items * bigint size <> bigint (length - head.Start) ->
                    fault $"its header promises {items * bigint size} bytes of numbers, but {length - head.Start} follow"
                | _ -> Ok(act buffered head))

    let private isBig (head: Npy.Head) = head.Descr.Trim('\'', '"').StartsWith '>'

    /// Turns big-endian numbers round, in place.
    let private inOrder (head: Npy.Head) (size: int) (bytes: Span<byte>) : unit =
        if isBig head then
            for i in 0..size .. bytes.Length - size do
                bytes.Slice(i, size).Reverse()

    let private numbers (place: Place) (column: Column) (act: int64 -> torch.Tensor -> unit) : Result<unit, Fault list> =
        head place (fun stream head ->
            let kind = (kindOf head.Descr).Value
            let size, dtype = snd kind, typeOf kind
            let rows = column.Rows
            let columns = (head.Sizes |> List.fold (*) 1L) / max 1L rows
            let block = if head.InFortran && columns > 1L then rows else StreamDraft.blockRows (columns * int64 size)

            for first in 0L .. block .. rows - 1L do
                use scope = torch.NewDisposeScope()
                let count = min block (rows - first)
                // In Fortran order rows lie scattered over the whole file.
                let shape = if head.InFortran then [| columns; count |] else [| count; columns |]
                let read = torch.empty (shape, dtype = Nullable dtype)

                Npy.overBytes (read.reshape -1L) (fun piece ->
                    stream.ReadExactly piece.bytes
                    inOrder head size piece.bytes)

                act first (if head.InFortran then read.t().contiguous() else read))

    let private words (place: Place) : Result<string[], Fault list> =
        let mutable found = [||]

        head place (fun stream head ->
            let kind, size = (kindOf head.Descr).Value
            let bytes = Array.zeroCreate<byte> size

            let integer () =
                let wide = Array.zeroCreate<byte> 8

                if kind = 'i' && bytes[size - 1] >= 128uy then
                    Array.fill wide 0 8 255uy

                Array.blit bytes 0 wide 0 size
                if kind = 'i' then string (BitConverter.ToInt64 wide) else string (BitConverter.ToUInt64 wide)

            let word () =
                match kind with
                | 'U' -> Encoding.UTF32.GetString(bytes).TrimEnd '\000'
                | 'S' -> UTF8Encoding(false, true).GetString(bytes).TrimEnd '\000'
                | 'f' ->
                    match size with
                    | 2 -> Table.singleWord (float32 (BitConverter.ToHalf bytes))
                    | 4 -> Table.singleWord (BitConverter.ToSingle bytes)
                    | _ -> Table.word (BitConverter.ToDouble bytes)
                | _ -> integer ()

            let one _ =
                stream.ReadExactly bytes

                inOrder
                    head
                    (if kind = 'U' then 4
                     elif kind = 'S' then 1
                     else size)
                    (bytes.AsSpan())

                word ()

            found <- Array.init (int (head.Sizes |> List.fold (*) 1L)) one)
        |> Result.map (fun () -> found)

    /// A table of arrays, each by its name and where it is.
    let private ofPlaces (file: string) (places: (string * Place) list) : Result<Table, Fault list> =
        places
        |> List.map (fun (name, place) ->
            let mutable found = None

            head place (fun _ head ->
                let column = kindOf head.Descr |> Option.map (fun kind -> Column.ofArray name (typeOf kind) head.Sizes)

                found <-
                    match column with
                    | Some { Holds = Holds.Other _ }
                    | None ->
                        Some
                            { Name = name
                              Holds = Holds.Other(other head.Descr head.Sizes)
                              Rows = head.Sizes |> List.tryHead |> Option.defaultValue 0L }
                    | column -> column)
            |> Result.map (fun () -> found.Value))
        |> Check.all
        |> Result.map (fun columns ->
            let place name = places |> List.find (fst >> (=) name) |> snd

            { File = file
              Columns = columns
              Notes = []
              Words = place >> words
              Numbers =
                fun names act ->
                    match names with
                    | [ name ] -> numbers (place name) (columns |> List.find (fun c -> c.Name = name)) act
                    | several -> Error [ Fault.Shape($"'{file}'", "one array of features", string several.Length) ] })

    /// The array of a `.npy` file, called `features`.
    let ofFile (path: string) : Result<Table, Fault list> =
        let act use' =
            Table.reading path (fun () ->
                use stream = File.OpenRead path
                // A pickle begins with its protocol, torch.save's files with a zip's head.
                let start = Array.zeroCreate<byte> 2
                let count = stream.ReadAtLeast(start, 2, false)
                stream.Position <- 0L

                if count > 0 && start[0] = 0x80uy then
                    Error
                        [ Fault.Unreadable(
                              path,
                              "it is a pickle, which can run code when it is opened; save arrays with numpy.save"
                          ) ]
                elif count = 2 && start = "PK"B then
                    Error
                        [ Fault.Unreadable(
                              path,
                              "it is a zip file, as numpy.savez and torch.save write them; call it .npz or .pt, or save the array with numpy.save"
                          ) ]
                else
                    use' (stream :> Stream) stream.Length)

        ofPlaces path [ "features", { File = path; Open = act } ]

    /// The arrays in a `.npz` file by their names, without `.npy`.
    let ofZip (path: string) : Result<Table, Fault list> =
        Table.reading path (fun () ->
            use zip = Table.zip path

            match zip.Entries |> Seq.tryFind (fun e -> not (e.FullName.EndsWith(".npy", StringComparison.Ordinal))) with
            | Some entry ->
                Error [ Fault.Unreadable(path, $"'{entry.FullName}' in it is no .npy array; numpy.savez writes those") ]
            | None ->
                Ok
                    [ for entry in zip.Entries ->
                          let name = entry.FullName

                          let act use' =
                              Table.reading path (fun () ->
                                  use zip = Table.zip path

                                  match zip.GetEntry name with
                                  | null -> Error [ Fault.Unreadable(path, $"'{name}' in it is gone") ]
                                  | entry ->
                                      use stream = entry.Open()
                                      use' stream entry.Length)

                          name.Substring(0, name.Length - 4), { File = $"{path}[{name}]"; Open = act } ])
        |> Result.bind (ofPlaces path)
