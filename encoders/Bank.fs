namespace Cmcl.Encoders

open System
open System.IO
open System.Text
open System.Text.Json
open System.Text.Json.Nodes
open TorchSharp
open Cmcl

/// A bank that is being written: `OUT.npy.part/` with its rows so far, the ids of them and what they are made with. Rows come before
/// their ids, so that after a sudden end as many rows are good as there are whole ids.
type PartialBank =
    private
        {
            Out: string
            Folder: string
            Rows: FileStream
            Done: FileStream
            Key: string
            Type: torch.ScalarType
            mutable Columns: int64
            /// Digest of the source and id, for each row.
            Ids: ResizeArray<string * string>
        }

    /// The rows on disk: a digest of what each was made from, and its id.
    member b.Written: (string * string) list = List.ofSeq b.Ids

    member b.Dimension: int64 = b.Columns

    interface IDisposable with
        member b.Dispose() =
            b.Rows.Dispose()
            b.Done.Dispose()

[<RequireQualifiedAccess>]
module Bank =
    /// The folder of what is not finished.
    let partFolder (out: string) : string = Path.GetFullPath out + ".part"

    let private about (folder: string) = Path.Combine(folder, "about.json")

    let private guarded (path: string) (act: unit -> 'a) : Result<'a, Fault list> =
        try
            Ok(act ())
        with
        | :? IOException
        | :? UnauthorizedAccessException as e -> Error [ Fault.Unwritable(path, e.Message) ]

    /// The key and the columns of an unfinished bank; None where there is none.
    let private found (folder: string) : (string * int64) option =
        try
            match JsonNode.Parse(File.ReadAllText(about folder)) with
            | null -> None
            | json -> Some(string json["key"], int64 (string json["columns"]))
        with
        | :? IOException
        | :? UnauthorizedAccessException
        | :? JsonException
        | :? FormatException
        | :? OverflowException
        | :? ArgumentException
        | :? InvalidOperationException -> None

    /// Deletes what an unfinished bank consists of, and its folder if nothing else is in it.
    let private clear (folder: string) : unit =
        for name in [ "rows.npy"; "done.tsv"; "about.json" ] do
            File.Delete(Path.Combine(folder, name))

        if Seq.isEmpty (Directory.EnumerateFileSystemEntries folder) then
            Directory.Delete folder

    /// The whole lines of the list of ids, and the bytes that they take.
    let private wholeLines (bytes: byte[]) : (string * string) list * int64 =
        let upTo = Array.LastIndexOf(bytes, byte '\n') + 1

        let lines = Encoding.UTF8.GetString(bytes, 0, upTo).Split('\n', StringSplitOptions.RemoveEmptyEntries)

        [ for line in lines do
              match line.Split('\t', 2) with
              | [| digest; id |] -> digest, id
              | _ -> () ],
        int64 upTo

    let private rowBytes (b: PartialBank) : int64 = b.Columns * int64 (b.Type.ElementSize())

    let private preambleBytes (b: PartialBank) : int64 = (Npy.preamble b.Type [| 0L; max 1L b.Columns |]).LongLength

    /// Drops what a sudden end left half-done: rows without ids, ids without rows.
    let private trim (b: PartialBank) : PartialBank =
        let bytes = Array.zeroCreate (int b.Done.Length)
        b.Done.ReadExactly(Span bytes)
        let lines, _ = wholeLines bytes
        let held = if b.Columns = 0L then 0L else max 0L (b.Rows.Length - preambleBytes b) / rowBytes b
        let kept = List.truncate (int (min held (int64 lines.Length))) lines
        b.Ids.AddRange kept
        let length = kept |> List.sumBy (fun (digest, id) -> Encoding.UTF8.GetByteCount $"{digest}\t{id}\n")
        b.Done.SetLength(int64 length)
        b.Done.Position <- int64 length

        if b.Columns > 0L then
            b.Rows.SetLength(preambleBytes b + rowBytes b * int64 kept.Length)

        b.Rows.Position <- b.Rows.Length
        b

    /// Begins a bank, or goes on with one of the same key. Faults: `Unwritable`, also while another process writes it; `Contradiction`
    /// for one of another key, unless it may be begun anew.
    let openOrResume (restart: bool) (key: string) (dtype: torch.ScalarType) (out: string) : Result<PartialBank, Fault list> =
        let folder = partFolder out

        guarded out (fun () ->
            if restart && Directory.Exists folder then
                clear folder

            let before = found folder

            match before with
            | Some(other, _) when other <> key ->
                Check.fail (
                    Fault.Contradiction(
                        $"'{folder}' was begun with another encoder, other preprocessing or another type",
                        "go on with those, or begin anew with --restart"
                    )
                )
            | _ -> ()

            Directory.CreateDirectory folder |> ignore

            let file name =
                new FileStream(Path.Combine(folder, name), FileMode.OpenOrCreate, FileAccess.ReadWrite, FileShare.None)

            trim
                { Out = out
                  Folder = folder
                  Rows = file "rows.npy"
                  Done = file "done.tsv"
                  Key = key
                  Type = dtype
                  Columns = before |> Option.map snd |> Option.defaultValue 0L
                  Ids = ResizeArray() })

    let private begin' (b: PartialBank) (columns: int64) : unit =
        b.Columns <- columns
        b.Rows.SetLength 0L
        b.Rows.Write(ReadOnlySpan(Npy.preamble b.Type [| 0L; columns |]))
        b.Rows.Flush()
        let node = JsonObject()
        node["key"] <- JsonValue.Create b.Key
        node["columns"] <- JsonValue.Create(string columns)
        File.WriteAllText(about b.Folder, node.ToJsonString())

    /// Puts rows on disk, then their ids. Faults: `Shape` for rows of another width than those before; `Unwritable`.
    let append (b: PartialBank) (names: (string * string) list) (rows: torch.Tensor) : Result<unit, Fault list> =
        guarded b.Out (fun () ->
            if b.Columns = 0L then
                begin' b rows.shape[1]

            Tensors.requireMatrix "the encoder's features" (int64 names.Length) b.Columns rows
            Npy.writeNumbers b.Rows rows
            b.Rows.Flush()

            for digest, id in names do
                b.Done.Write(ReadOnlySpan(Encoding.UTF8.GetBytes $"{digest}\t{id}\n"))

            b.Done.Flush()
            b.Ids.AddRange names)

    let private beside (out: string) (ending: string) : string = string (Path.ChangeExtension(Path.GetFullPath out, ending))

    /// Classes of the rows as numbers in the order in which they come, −1 for none, where any row has one.
    let private writeLabels (out: string) (labels: string list) : Result<unit, Fault list> =
        let classes = labels |> List.filter ((<>) "") |> List.distinct

        if classes.IsEmpty then
            Ok()
        else
            use scope = torch.NewDisposeScope()
            let places = dict (List.mapi (fun i name -> name, int64 i) classes)
            let numbers = torch.tensor [| for label in labels -> if label = "" then -1L else places[label] |]

            Npy.write (beside out "labels.npy") numbers
            |> Result.bind (fun () ->
                Files.writeText (beside out "classes.txt") (fun w ->
                    for name in classes do
                        w.WriteLine name))

    /// Makes a finished bank of it: `OUT.npy`, `OUT.ids.txt`, `OUT.items.csv`, and with labels `OUT.labels.npy` and `OUT.classes.txt`.
    /// What a row was made from and what its label is, its id says.
    let finish (b: PartialBank) (itemOf: string -> BankItem) (labelOf: string -> string) : Result<int64[], Fault list> =
        let ids = [ for _, id in b.Ids -> id ]
        let shape = [| int64 ids.Length; b.Columns |]

        Files.writeText (Ids.beside b.Out) (fun w ->
            for id in ids do
                w.WriteLine id)
        |> Result.bind (fun () -> BankItems.write (ItemLists.beside b.Out) (List.map itemOf ids))
        |> Result.bind (fun () -> writeLabels b.Out (List.map labelOf ids))
        |> Result.bind (fun () ->
            guarded b.Out (fun () ->
                b.Rows.Position <- 0L
                b.Rows.Write(ReadOnlySpan(Npy.preamble b.Type shape))
                (b :> IDisposable).Dispose()
                File.Move(Path.Combine(b.Folder, "rows.npy"), b.Out, true)
                clear b.Folder
                shape))
