namespace Cmcl

open System
open TorchSharp

/// An array of numbers in a file, by its head.
type NumberArray =
    {
        Name: string
        Type: torch.ScalarType
        Shape: int64 list
        /// Rows that are read together at best: those that are unpacked together.
        Height: int64
    }

/// What a file of arrays holds under one name.
[<RequireQualifiedAccess>]
type Content =
    | Numbers of NumberArray
    /// Vectors of one length and type, each of which is a row.
    | Stack of NumberArray list
    /// Texts, a row each, and how they are read. What goes wrong then may be raised.
    | Words of rows: int64 * (unit -> string[])
    /// What is no column, in words.
    | Other of what: string

/// An open file of arrays. What goes wrong in reading may be raised.
type RowReader =
    inherit IDisposable
    /// Rows of an array from the first one on: their number × the array's other sizes, of the array's type, on the CPU, in C order.
    abstract Rows: array: NumberArray * first: int64 * count: int64 -> torch.Tensor

/// Tables of the files that hold arrays by name: HDF5, PyTorch's, safetensors.
[<RequireQualifiedAccess>]
module Arrays =
    /// Numbers as ids and labels: whole ones as digits, NaN as none.
    let words (numbers: torch.Tensor) : string[] =
        use scope = torch.NewDisposeScope()

        if numbers.is_floating_point () then
            let word = if numbers.dtype = torch.ScalarType.Float64 then Table.word else float32 >> Table.singleWord
            numbers.``to``(torch.ScalarType.Float64).reshape(-1L).data<float>().ToArray() |> Array.map word
        else
            numbers.``to``(torch.ScalarType.Int64).reshape(-1L).data<int64>().ToArray() |> Array.map string

    let private column (name: string) (content: Content) : Column =
        match content with
        | Content.Numbers a -> Column.ofArray name a.Type a.Shape
        | Content.Stack vectors ->
            Column.ofArray name vectors.Head.Type [ int64 vectors.Length; List.fold (*) 1L vectors.Head.Shape ]
        | Content.Words(rows, _) -> { Name = name; Holds = Holds.Word; Rows = rows }
        | Content.Other what -> { Name = name; Holds = Holds.Other what; Rows = 0L }

    /// Names of arrays that are columns of ids or labels rather than a row of their own.
    let private columnNames =
        set
            [ for name in [ "id"; "key"; "name"; "label"; "class"; "target" ] do
                  yield! [ name; name + "s"; name + "es" ] ]

    /// Vectors of one length under the ids of what they belong to, as many people keep features, are a column of ids and one of
    /// features. They are that where all that is there are several vectors of floats under one group, none called as a column of ids is.
    let private vectorsById (contents: (string list * Content) list) : (string list * Content) list =
        let vector (path: string list, content: Content) =
            match content with
            | Content.Numbers a ->
                match (Column.ofArray "" a.Type a.Shape).Holds, a.Shape with
                | Holds.Number _, _ -> Some(path, a)
                | Holds.Vector _, 1L :: _ -> Some(path, a)
                | _ -> None
            | _ -> None

        let size (a: NumberArray) = a.Type, List.fold (*) 1L a.Shape
        let group (path: string list) = List.truncate (path.Length - 1) path
        let others, meant = contents |> List.partition (fun (_, c) -> (column "" c).Holds.IsOther)

        match List.choose vector meant with
        | (path, first) :: _ :: _ as vectors when
            vectors.Length = meant.Length
            && vectors
               |> List.forall (fun (p, a) ->
                   size a = size first && group p = group path && not (columnNames.Contains((List.last p).ToLowerInvariant())))
            ->
            let ids = vectors |> List.map (fst >> List.last) |> Array.ofList

            (group path @ [ "id" ], Content.Words(ids.LongLength, fun () -> ids))
            :: (group path @ [ "features" ], Content.Stack(List.map snd vectors))
            :: others
        | _ -> contents

    /// Rows of a column from the first one on, rows × d.
    let private rows (reader: RowReader) (first: int64) (count: int64) (content: Content) : torch.Tensor =
        let read =
            match content with
            | Content.Numbers a -> reader.Rows(a, first, count)
            | Content.Stack vectors ->
                let vectors = vectors |> List.skip (int first) |> List.truncate (int count)
                torch.cat ([| for a in vectors -> reader.Rows(a, 0L, a.Shape.Head).reshape(1L, -1L) |])
            | _ -> invalidOp "not numbers"

        let flat = read.reshape (count, -1L)
        if flat.dtype = torch.ScalarType.BFloat16 then flat.``to`` torch.ScalarType.Float32 else flat

    let private numbers path (found: string -> Content) (open': unit -> RowReader) (names: string list) act =
        Table.reading path (fun () ->
            let columns = names |> List.map (fun name -> column name (found name), found name)

            match columns |> List.tryFind (fun (c, _) -> not (c.Holds.IsNumber || c.Holds.IsVector)), columns with
            | Some({ Holds = Holds.Other what } as c, _), _ ->
                Error [ Fault.Unreadable(path, $"'{c.Name}' holds no features: {what}") ]
            | Some(c, _), _ -> Error [ Fault.Unreadable(path, $"'{c.Name}' holds words, and features are needed") ]
            | None, [] -> Error [ Fault.Unreadable(path, "no column of features is named") ]
            | None, (first, _) :: _ when columns |> List.exists (fun (c, _) -> c.Rows <> first.Rows) ->
                Error
                    [ for c, _ in columns ->
                          Fault.Shape($"'{path}', '{c.Name}'", $"{first.Rows} rows, as '{first.Name}' has", string c.Rows) ]
            | None, (first, _) :: _ ->
                let rowBytes, heights =
                    [ for c, content in columns ->
                          match c.Holds, content with
                          | Holds.Vector(dtype, width), Content.Numbers a -> width * int64 (dtype.ElementSize()), a.Height
                          | Holds.Vector(dtype, width), _ -> width * int64 (dtype.ElementSize()), 1L
                          | _, Content.Numbers a -> 8L, a.Height
                          | _ -> 8L, 1L ]
                    |> List.unzip

                let height = List.max heights |> max 1L
                let block = height * max 1L (StreamDraft.blockRows (List.sum rowBytes) / height)
                use reader = open' ()

                for start in 0L .. block .. first.Rows - 1L do
                    use _ = torch.NewDisposeScope()
                    let parts = [| for _, content in columns -> rows reader start (min block (first.Rows - start)) content |]
                    act start (if parts.Length = 1 then parts[0] else torch.cat (parts, 1L))

                Ok())

    /// The table of a file with these contents, each under the path that leads to it. `open'` opens the file for what is read of it later.
    let table (path: string) (separator: string) (contents: (string list * Content) list) (open': unit -> RowReader) : Table =
        let contents = [ for parts, content in vectorsById contents -> String.Join(separator, parts), content ]
        let byName = Map contents

        let found (name: string) =
            Map.tryFind name byName
            |> Option.defaultWith (fun () -> Check.fail (Fault.Unknown("column", name, List.map fst contents)))

        { File = path
          Columns = [ for name, content in contents -> column name content ]
          Notes = []
          Words =
            fun name ->
                Table.reading path (fun () ->
                    match found name with
                    | Content.Words(_, read) -> Ok(read ())
                    | Content.Numbers a when
                        (column name (found name)).Holds.IsOther |> not && List.fold (*) 1L a.Shape = a.Shape.Head
                        ->
                        use reader = open' ()
                        use _ = torch.NewDisposeScope()
                        Ok(words (reader.Rows(a, 0L, a.Shape.Head)))
                    | _ -> Error [ Fault.Unreadable(path, $"'{name}' holds no words: one text or number a row is needed") ])
          Numbers = numbers path found open' }
