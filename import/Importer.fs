namespace Cmcl

open System
open System.IO

/// What `cmcl import` takes beside the folder; each importer says which of it means something to it.
type ImportOptions =
    {
        Backbone: string option
        /// The share of training rows held back for validation, where no file says which.
        Validation: float
        /// The share of all rows for the test, where no file says which.
        Test: float
        Seed: int
        /// Steps by number.
        Steps: int list option
        /// Modalities, those that are rather anchors first.
        Order: string list
        DropUnmatched: bool
        Name: string option
        /// Bytes that the stream may take; `Importer.run` sees how many are free.
        Room: int64
    }

/// A format that streams can be made of.
type Importer =
    {
        Name: string
        /// What it reads, in a sentence.
        Reads: string
        Example: string
        /// The options, of those that only some importers take, that mean something to it.
        Options: string list
        /// A draft from the heads and ids of a folder's files; it tells which of them it reads.
        Read: (ImportEvent -> unit) -> ImportOptions -> string -> Result<StreamDraft, Fault list>
    }

/// Every importer. A new format is a reader that makes a `Table`, and an entry here.
[<RequireQualifiedAccess>]
module Importer =

    let defaults: ImportOptions =
        { Backbone = None
          Validation = 0.1
          Test = 0.2
          Seed = 0
          Steps = None
          Order = Published.order
          DropUnmatched = false
          Name = None
          Room = Int64.MaxValue }

    let private published: Importer =
        { Name = "cmcl-h5"
          Reads = "the published code's HDF5 feature files of one backbone; gives the paper's eleven steps"
          Example = "cmcl import cmcl-h5 features_storage --backbone imagebind --out paper"
          Options = [ "backbone"; "steps" ]
          Read =
            fun tell options folder ->
                match options.Backbone with
                | Some backbone when List.contains backbone Published.backbones ->
                    Published.draft tell backbone options.Validation options.Seed options.Steps folder
                | Some other -> Error [ Fault.Unknown("backbone", other, Published.backbones) ]
                | None ->
                    let known = String.Join(", ", Published.backbones)
                    Error [ Fault.MissingKey("cmcl import cmcl-h5", $"--backbone ({known})") ] }

    let private steps (options: ImportOptions) : StepOptions =
        { Share = options.Validation
          TestShare = options.Test
          Seed = Seed.ofInt options.Seed
          Order = options.Order
          DropUnmatched = options.DropUnmatched
          Room = options.Room }

    /// The stream's description, which says how rows were drawn.
    let private described (format: string) (options: ImportOptions) (draft: StreamDraft) : StreamDraft =
        let description =
            $"Imported from {format} files. Where they name no validation rows, those are a share of {options.Validation} of the training rows; where they name no parts, the test has a share of {options.Test} of all rows. Drawn with seed {options.Seed}."

        { draft with
            Stream = { draft.Stream with Description = description } }

    /// An importer of the pieces that `read` finds in a folder; where there are none, `expected` is said.
    let private ofPieces
        (name: string)
        (reads: string)
        (expected: string)
        (read: (ImportEvent -> unit) -> string -> Result<Named.Piece list, Fault list>)
        : Importer =
        { Name = name
          Reads = reads
          Example = $"cmcl import {name} features --out mine"
          Options = [ "order"; "name"; "drop-unmatched"; "test" ]
          Read =
            fun tell options folder ->
                read tell folder
                |> Result.bind (fun pieces ->
                    match pieces with
                    | [] ->
                        let names =
                            Directory.EnumerateFileSystemEntries folder |> Seq.map (Path.GetFileName >> string) |> Seq.sort

                        let there = if Seq.isEmpty names then "it is empty" else $"it holds {StreamDraft.firstFew names}"
                        Error [ Fault.Unreadable(folder, $"{expected}; {there}") ]
                    | pieces -> Named.draft (steps options) (Option.defaultValue name options.Name) folder pieces)
                |> Result.map (described name options) }

    /// An importer of files that say by their names what they hold.
    let private named (format: Format) (reads: string) : Importer =
        let like = if format.Several then "1-clotho.train" else "1-clotho.text.train"
        let form = if format.Several then "STEP.PART" else "STEP.MODALITY.PART"
        let ending = format.Endings.Head

        (fun tell -> Named.read tell format)
        |> ofPieces
            format.Name
            reads
            $"no file in it ends in {Fault.Choice format.Endings}, and {form}{ending} is expected, such as {like}{ending}"

    let private format name endings several read : Format =
        { Name = name
          Endings = endings
          Several = several
          Read = read }

    let all: Importer list =
        [ published
          named (format "npy" [ ".npy" ] false NpyTable.ofFile) "NumPy arrays, matched by their places or by STEP.ids.PART.npy"
          named
              (format "npz" [ ".npz" ] true NpyTable.ofZip)
              "NumPy archives with an array for each modality, and ids and labels beside them"
          named
              (format "csv" [ ".csv"; ".tsv" ] false CsvTable.table)
              "tables of text with the columns id, label (if any), and the features; matched by id"
          named
              (format "parquet" [ ".parquet"; ".pq" ] false ArrowTable.ofParquet)
              "Parquet tables with the columns id, label (if any), and a list or a column for each feature"
          named
              (format "hdf5" [ ".h5"; ".hdf5"; ".hdf" ] true Hdf5Table.read)
              "HDF5 files with data sets of features, ids and labels, in groups or not"
          named
              (format "pt" [ ".pt"; ".pth" ] true TorchFile.read)
              "PyTorch files of tensors, lists and dictionaries of them; nothing in them is run"
          named
              (format "safetensors" [ ".safetensors" ] true SafetensorsTable.read)
              "safetensors files with a matrix for each modality, or one of features"
          ofPieces
              "clip-retrieval"
              "what clip-retrieval leaves: img_emb/img_emb_0.npy, text_emb/…, metadata/metadata_0.parquet, shard by shard"
              "it has no img_emb and text_emb with .npy files"
              ClipRetrieval.read
          named
              (format "arrow" [ ".arrow"; ".feather"; ".ipc" ] false ArrowTable.ofArrow)
              "Arrow and Feather files, with the columns of Parquet" ]

    let private aliases = Map [ "h5", "hdf5"; "pth", "pt"; "torch", "pt"; "feather", "arrow"; "tsv", "csv" ]

    /// An importer by its name, such as npy, or the names that there are.
    let find (name: string) : Result<Importer, Fault list> =
        let wanted = aliases |> Map.tryFind name |> Option.defaultValue name

        match all |> List.tryFind (fun i -> i.Name = wanted) with
        | Some importer -> Ok importer
        | None -> Error [ Fault.Unknown("import format", name, all |> List.map _.Name) ]

    /// Bytes that are free where a path is to be.
    let rec private free (path: string) : int64 =
        match Path.GetDirectoryName path with
        | above when not (isNull above) && not (Directory.Exists path) -> free (nonNull above)
        | _ -> DriveInfo(path).AvailableFreeSpace

    /// Reads a folder and writes a stream folder, telling how far it is, called as that is unless the options say a name. Gives what is worth telling. Faults:
    /// everything that is wrong with the options, the files and their rows; then nothing is written.
    let run
        (importer: Importer)
        (options: ImportOptions)
        (treatment: Treatment)
        (force: bool)
        (tell: ImportEvent -> unit)
        (source: string)
        (out: string)
        : Result<string list, Fault list> =
        try
            let called = Path.GetFileName(Path.TrimEndingDirectorySeparator(Path.GetFullPath out)) |> string

            let options =
                { options with
                    Name = Option.orElse (Some called) options.Name
                    Room = min options.Room (free (Path.GetFullPath out)) }

            if File.Exists source then
                Error [ Fault.Unreadable(source, "it is a file, and a folder of files is imported") ]
            elif not (Directory.Exists source) then
                Error [ Fault.Missing(source, "the import") ]
            else
                StreamWriter.prepare force source out
                |> Result.bind (fun () -> importer.Read tell options source)
                |> Result.bind (StreamWriter.write tell treatment out)
        with
        | :? IOException
        | :? UnauthorizedAccessException as e -> Error [ Fault.Unreadable(source, e.Message) ]
