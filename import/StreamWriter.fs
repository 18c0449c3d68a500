namespace Cmcl

open System
open System.Collections.Generic
open System.IO
open Microsoft.Win32.SafeHandles
open TorchSharp

/// What happens to rows on their way into a stream folder.
type Treatment =
    {
        /// Every row scaled to length 1; else as stored.
        Normalise: bool
        /// Rows of zeros are let through; else they are faults.
        ZeroRows: bool
    }

/// From a draft to a stream folder: block by block, so that memory stays bounded whatever the size, and whole or not at all.
[<RequireQualifiedAccess>]
module StreamWriter =

    // ---- matrices ------------------------------------------------------------------------------------------------

    /// A matrix file, made with its full length, whose rows are written in any order.
    type private Open =
        {
            Matrix: Matrix
            Handle: SafeFileHandle
            Gauge: RowGauge
            /// Of the first number.
            Offset: int64
            RowBytes: int64
        }

    let private create (folder: string) (matrix: Matrix) : Open =
        let path = Path.Combine(folder, matrix.File)
        Directory.CreateDirectory(Path.GetDirectoryName path |> string) |> ignore
        let head = Npy.preamble matrix.Type [| matrix.Rows; matrix.Columns |]
        let rowBytes = matrix.Columns * int64 (matrix.Type.ElementSize())
        let handle = File.OpenHandle(path, FileMode.CreateNew, FileAccess.Write)
        RandomAccess.Write(handle, ReadOnlySpan head, 0L)
        RandomAccess.SetLength(handle, int64 head.Length + matrix.Rows * rowBytes)

        { Matrix = matrix
          Handle = handle
          Gauge = RowGauge matrix.Columns
          Offset = int64 head.Length
          RowBytes = rowBytes }

    /// Writes a block's rows to their places, neighbours together.
    let private put (file: Open) (place: int64 -> int64) (first: int64) (block: torch.Tensor) : unit =
        let places = Array.init (int block.shape[0]) (fun i -> place (first + int64 i))
        let mutable start = 0

        while start < places.Length do
            let mutable stop = start + 1

            while stop < places.Length && places[stop] = places[stop - 1] + 1L && places[start] >= 0L do
                stop <- stop + 1

            if places[start] >= 0L then
                use rows = block.narrow(0L, int64 start, int64 (stop - start)).contiguous()
                let bytes: ReadOnlySpan<byte> = Span.op_Implicit rows.bytes
                RandomAccess.Write(file.Handle, bytes, file.Offset + places[start] * file.RowBytes)

            start <- stop

    let private rowName (feed: Feed) (row: int64) =
        match feed.Row row with
        | "" -> string row
        | name -> $"{row} ('{name}')"

    /// One block of one target, checked, scaled if wanted, written.
    let private pass
        (treatment: Treatment)
        (feed: Feed)
        (zeros: ResizeArray<int64>)
        (file: Open)
        place
        first
        (block: torch.Tensor)
        =
        use scope = torch.NewDisposeScope()

        match Tensors.nonFiniteRow block with
        | Some row ->
            let name = feed.Row(first + row)
            let where = if name = "" then $"'{feed.File}'" else $"'{feed.File}' ('{name}')"
            Check.fail (Fault.NonFinite(where, first + row))
        | None ->
            let empty = block.ne(0.0.AsScalar()).any(1).logical_not()

            for row in empty.nonzero().reshape(-1L).data<int64>().ToArray() do
                if place (first + row) >= 0L then
                    zeros.Add(first + row)

            let scaled =
                if treatment.Normalise then
                    let wide = block.``to`` torch.float64
                    (wide / wide.norm(1, true).clamp_min(Double.Epsilon.AsScalar())).``to`` block.dtype
                else
                    block

            put file place first scaled
            file.Gauge.Add scaled

    let private zeroFault (feed: Feed) (rows: int64 seq) =
        Fault.Contradiction(
            $"'{feed.File}' has rows of zeros, which have no direction: {StreamDraft.firstTen (Seq.map (rowName feed) rows)}",
            "write them again, or keep them with --allow-zero-rows (cosine scores give them 0)"
        )

    /// Reads one feed into its matrices. Faults: those of reading, NaNs, rows of zeros; with those let through, what to tell.
    let private fill
        (tell: ImportEvent -> unit)
        (treatment: Treatment)
        (files: Map<string, Open>)
        (feed: Feed)
        : Result<string list, Fault list> =
        tell (ImportEvent.Reading feed.File)
        let zeros = feed.Targets |> List.map (fun _ -> ResizeArray<int64>())

        try
            feed.Read(fun first blocks ->
                for (target, zeros), block in List.zip (List.zip feed.Targets zeros) blocks do
                    pass treatment feed zeros files[target.Matrix] target.Place first block

                for block in List.truncate 1 blocks do
                    tell (ImportEvent.Rows(feed.File, first + block.shape[0], feed.Rows)))
            |> Result.bind (fun () ->
                match zeros |> Seq.concat |> Seq.distinct |> Seq.sort |> List.ofSeq with
                | [] -> Ok []
                | rows when treatment.ZeroRows && not treatment.Normalise ->
                    Ok [ $"kept rows of zeros of '{feed.File}': {StreamDraft.firstTen (List.map (rowName feed) rows)}" ]
                | rows -> Error [ zeroFault feed rows ])
        with CmclException fault ->
            Error [ fault ]

    // ---- the folder ----------------------------------------------------------------------------------------------

    /// What is told of a draft's banks, and of cosine scores, which its preset has for their sake.
    let private judged (draft: StreamDraft) (figures: Map<string, RowFigures>) : string list =
        let banks = [ for KeyValue(name, bank) in draft.Stream.Banks -> name, figures[bank.File] ]
        let preset = draft.Stream.Preset.Common
        let isForRows = Map.tryFind "scores" preset = Some "cosine"
        Judgement.lines banks @ (if isForRows then [ Judgement.reason banks preset ] else [])

    /// What a folder is filled with, before it takes its name.
    let private build tell (treatment: Treatment) (draft: StreamDraft) (folder: string) : Result<string list, Fault list> =
        let files = Dictionary<string, Open>()

        try
            for matrix in draft.Matrices do
                files[matrix.File] <- create folder matrix

            let byName = files |> Seq.map (fun (KeyValue(k, v)) -> k, v) |> Map.ofSeq

            draft.Feeds
            |> List.map (fill tell treatment byName)
            |> Check.all
            |> Result.map (fun notes -> List.concat notes, byName |> Map.map (fun _ file -> file.Gauge.Figures file.Matrix.Rows))
        finally
            for file in files.Values do
                file.Handle.Dispose()
        |> Result.bind (fun (notes, figures) ->
            use scope = torch.NewDisposeScope()

            draft.Vectors
            |> List.map (fun (file, numbers) ->
                Directory.CreateDirectory(Path.GetDirectoryName(Path.Combine(folder, file)) |> string) |> ignore
                Npy.write (Path.Combine(folder, file)) (torch.tensor numbers))
            |> Check.all
            |> Result.map (fun _ ->
                for KeyValue(bank, text) in Option.defaultValue Map.empty draft.Lists do
                    Directory.CreateDirectory(Path.Combine(folder, ItemLists.Folder)) |> ignore
                    File.WriteAllText(Path.Combine(folder, ItemLists.Folder, ItemLists.file bank), text)

                notes, figures))
        |> Result.map (fun (notes, figures) ->
            let scale = if treatment.Normalise then "Rows scaled to length 1." else "Rows as stored."
            let description = String.Join(" ", draft.Stream.Description :: scale :: [ for note in notes -> $"{note}." ]).Trim()

            File.WriteAllText(
                Path.Combine(folder, StreamFolder.DefaultFile),
                StreamFile.json { draft.Stream with Description = description }
            )

            notes @ judged draft figures)

    /// The same folder or one within the other.
    let private within (folder: string) (other: string) =
        let full (path: string) = Path.GetFullPath(path).TrimEnd('/', '\\') + "/"
        (full folder).StartsWith(full other, StringComparison.Ordinal)

    /// Whether a stream may be written there: nothing is there, or a stream that may be replaced, and the source is not in it.
    let prepare (force: bool) (source: string) (out: string) : Result<unit, Fault list> =
        let full = Path.GetFullPath out

        if within source full then
            Error [ Fault.Contradiction($"'{out}' would take the place of what is imported", "choose another folder") ]
        elif File.Exists full then
            Error [ Fault.Unwritable(out, "it is a file") ]
        elif not (Directory.Exists full) || Seq.isEmpty (Directory.EnumerateFileSystemEntries full) then
            Ok()
        elif not (File.Exists(Path.Combine(full, StreamFolder.DefaultFile))) then
            Error [ Fault.Unwritable(out, "it holds other things than a stream; choose another folder") ]
        elif force then
            StreamFile.read (Path.Combine(full, StreamFolder.DefaultFile)) |> Result.map ignore
        else
            Error [ Fault.Contradiction($"'{out}' holds a stream already", "choose another folder, or replace it with --force") ]

    /// Full paths of the files that make the stream of a folder, with its lists of items if wanted, the stream file last.
    let private filesOf (lists: bool) (folder: string) : Result<string list, Fault list> =
        StreamFile.read (Path.Combine(folder, StreamFolder.DefaultFile))
        |> Result.map (fun source ->
            let listed =
                [ if lists then
                      for bank in Map.keys source.Banks do
                          Path.Combine(ItemLists.Folder, ItemLists.file bank) ]

            [ for file in StreamFolder.files source @ listed @ [ StreamFolder.DefaultFile ] do
                  let path = Path.GetFullPath(Path.Combine(folder, file))

                  if within path folder && File.Exists path then
                      path ]
            |> List.distinct)

    /// Puts a stream in the place of another, whose other files stay. Fault: one of those would be overwritten.
    let private replace (lists: bool) (fresh: string) (full: string) : Result<unit, Fault list> =
        validated {
            let! before = filesOf lists full
            and! now = filesOf lists fresh
            return before, [ for path in now -> path, Path.Combine(full, Path.GetRelativePath(fresh, path)) ]
        }
        |> Result.bind (fun (before, moves) ->
            match moves |> List.map snd |> List.filter Path.Exists |> List.except before with
            | [] ->
                List.iter File.Delete before

                for path, into in moves do
                    Directory.CreateDirectory(Path.GetDirectoryName into |> string) |> ignore
                    File.Move(path, into)

                Directory.Delete(fresh, true)
                Ok()
            | others ->
                Error
                    [ for path in others ->
                          Fault.Contradiction(
                              $"'{path}' is in the way and no part of the stream there",
                              "choose another folder, or move the file away"
                          ) ])

    /// The folder that a path is in, and how every name begins under which this process, or one of that number, writes a stream of that path
    /// before it is whole.
    let private beside (processId: int) (out: string) : string * string =
        let full = Path.GetFullPath(out).TrimEnd('/', '\\')
        let above = Path.GetDirectoryName full |> Option.ofObj |> Option.defaultValue "/"
        above, $".{Path.GetFileName full}.{processId}-"

    /// Removes what a process that was ended has left of a stream half-written.
    let sweep (processId: int) (out: string) : unit =
        let above, name = beside processId out

        if Directory.Exists above then
            for folder in Directory.GetDirectories above do
                if (Path.GetFileName folder |> string).StartsWith(name, StringComparison.Ordinal) then
                    Directory.Delete(folder, true)

    /// Writes the folder of a draft: under another name beside it first, loaded there with every check that a run makes, then
    /// moved to its place; the files of a stream that was there are gone, and others stay. Gives the notes of the draft and those of its rows. Faults: those of
    /// the rows and files read, of the stream, `Unwritable`.
    let write
        (tell: ImportEvent -> unit)
        (treatment: Treatment)
        (out: string)
        (draft: StreamDraft)
        : Result<string list, Fault list> =
        let full = Path.GetFullPath(out).TrimEnd('/', '\\')
        let above, name = beside Environment.ProcessId out
        let beside = Path.Combine(above, $"{name}{Guid.NewGuid():N}")
        let fault (e: exn) = Error [ Fault.Unwritable(out, e.Message) ]

        try
            try
                Directory.CreateDirectory beside |> ignore

                build tell treatment draft beside
                |> Result.bind (fun notes ->
                    use scope = torch.NewDisposeScope()
                    StreamFolder.load beside |> Result.map (fun _ -> draft.Notes @ notes))
                |> Result.bind (fun notes ->
                    if Directory.Exists full && not (Seq.isEmpty (Directory.EnumerateFileSystemEntries full)) then
                        replace draft.Lists.IsSome beside full
                    else
                        if Directory.Exists full then
                            Directory.Delete full

                        Directory.Move(beside, full)
                        Ok()
                    |> Result.map (fun () -> notes))
            with
            | :? IOException as e -> fault e
            | :? UnauthorizedAccessException as e -> fault e
        finally
            if Directory.Exists beside then
                Directory.Delete(beside, true)
