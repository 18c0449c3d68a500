namespace Cmcl

open System
open System.IO

/// What `cmcl import` takes beside the folder; each importer says which of it means something to it.
type ImportOptions =
    {
        Backbone: string option
        /// The share of training rows held back for validation, where no file says which.
        Validation: float
        Seed: int
        /// Steps by number.
        Steps: int list option
        /// Modalities, those that are rather anchors first.
        Order: string list
        DropUnmatched: bool
        Name: string option
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
        /// A draft from the heads and ids of a folder's files.
        Read: ImportOptions -> string -> Result<Draft, Fault list>
    }

/// Every importer. A new format is a file that makes a `Draft`, and an entry here.
[<RequireQualifiedAccess>]
module Importer =

    let defaults: ImportOptions =
        { Backbone = None
          Validation = 0.1
          Seed = 0
          Steps = None
          Order = Published.order
          DropUnmatched = false
          Name = None }

    let private published: Importer =
        { Name = "cmcl-h5"
          Reads = "the published code's HDF5 feature files of one backbone; gives the paper's eleven steps"
          Example = "cmcl import cmcl-h5 features_storage --backbone imagebind --out paper"
          Options = [ "backbone"; "steps" ]
          Read =
            fun options folder ->
                match options.Backbone with
                | Some backbone when List.contains backbone Published.backbones ->
                    Published.draft backbone options.Validation options.Seed options.Steps folder
                | Some other -> Error [ Fault.Unknown("backbone", other, Published.backbones) ]
                | None ->
                    let known = String.Join(", ", Published.backbones)
                    Error [ Fault.MissingKey("cmcl import cmcl-h5", $"--backbone ({known})") ] }

    /// Endings of files that are pickles, and so are refused where their names say that they are meant.
    let private pickles = [ ".pt"; ".pth"; ".pkl"; ".pickle"; ".bin" ]

    let private refusedPickles (folder: string) : Fault list =
        [ for path in Directory.EnumerateFiles folder do
              let name, ending = Draft.nameOf path

              if List.contains ending pickles && ((Named.split name).IsSome || (Named.splitPart name).IsSome) then
                  Fault.Unreadable(
                      path,
                      "it is a pickle, which can run code when it is opened; no pickle is ever read: write it with numpy.save"
                  ) ]

    let private files (folder: string) (ending: string) =
        Directory.EnumerateFiles(folder, $"*{ending}") |> Seq.sortWith (fun a b -> String.CompareOrdinal(a, b)) |> List.ofSeq

    /// Importers of files that say by their names what they hold.
    let private named
        (name: string)
        (reads: string)
        (options: string list)
        (pieces: string -> Result<Named.Piece list, Fault list>)
        (form: string)
        : Importer =
        { Name = name
          Reads = reads
          Example = $"cmcl import {name} features --out mine"
          Options = "order" :: "name" :: options
          Read =
            fun options folder ->
                if not (Directory.Exists folder) then
                    Error [ Fault.Missing(folder, "the import") ]
                else
                    match refusedPickles folder, pieces folder with
                    | [], Ok [] -> Error [ Fault.Unreadable(folder, $"it holds no file called {form}") ]
                    | [], Ok pieces ->
                        let stream =
                            options.Name
                            |> Option.defaultValue (Path.GetFileName(Path.GetFullPath(folder).TrimEnd('/')) |> string)

                        Named.draft
                            { Share = options.Validation
                              Seed = Seed.ofInt options.Seed
                              Order = options.Order
                              DropUnmatched = options.DropUnmatched }
                            (if stream = "" then name else stream)
                            folder
                            pieces
                        |> Result.map (fun draft ->
                            let description =
                                $"Imported from {name} files. Where they name no validation rows, those are a share of {options.Validation} of the training rows, drawn with seed {options.Seed}."

                            { draft with
                                Stream = { draft.Stream with Description = description } })
                    | faults, Ok _ -> Error faults
                    | faults, Error others -> Error(faults @ others) }

    /// One piece a file.
    let private single
        (ending: string)
        (table: string -> Result<FeatureTable, Fault list>)
        (vector: string -> Result<int64[], Fault list>)
        (folder: string)
        =
        Ok
            [ for path in files folder ending do
                  match Named.split (fst (Draft.nameOf path)) with
                  | Some(step, name, part) ->
                      { Step = step
                        Name = name
                        Part = part
                        Table = fun () -> table path
                        Vector = fun () -> vector path
                        File = path }
                      : Named.Piece
                  | None -> () ]

    /// One piece an array of a `.npz` file.
    let private zipped (folder: string) =
        [ for path in files folder ".npz" do
              match Named.splitPart (fst (Draft.nameOf path)) with
              | Some(step, part) ->
                  NpyTable.ofZip path
                  |> Result.bind (fun arrays ->
                      arrays
                      |> List.map (fun (name, place) ->
                          if name = Named.Labels || (Modality.create name).IsOk then
                              Ok
                                  { Step = step
                                    Name = name
                                    Part = part
                                    Table = fun () -> NpyTable.matrix place
                                    Vector = fun () -> NpyTable.vector place
                                    File = place.File }
                              : Result<Named.Piece, _>
                          else
                              Error
                                  [ Fault.BadValue(
                                        $"an array's name in '{path}'",
                                        $"a modality ({Modality.rule}) or labels",
                                        name
                                    ) ])
                      |> Check.all)
              | None -> () ]
        |> Check.all
        |> Result.map List.concat

    let private noLabels (path: string) : Result<int64[], Fault list> =
        Error [ Fault.Unreadable(path, "labels stand in a column of the features' files here") ]

    let all: Importer list =
        [ published
          named
              "npy"
              "NumPy arrays of matched rows, called STEP.MODALITY.PART.npy (parts: train, test, validation, classes)"
              []
              (single ".npy" (NpyTable.ofFile >> NpyTable.matrix) (NpyTable.ofFile >> NpyTable.vector))
              "STEP.MODALITY.PART.npy, such as 01-clotho.text.train.npy"
          named
              "npz"
              "NumPy archives called STEP.PART.npz with an array of matched rows for each modality"
              []
              zipped
              "STEP.PART.npz, such as 01-clotho.train.npz"
          named
              "parquet"
              "tables called STEP.MODALITY.PART.parquet with the columns id, label (if any), and a list of floats; matched by id"
              [ "drop-unmatched" ]
              (single ".parquet" ParquetTable.table noLabels)
              "STEP.MODALITY.PART.parquet, such as 01-clotho.text.train.parquet"
          named
              "csv"
              "tables called STEP.MODALITY.PART.csv with the columns id, label (if any), and the features; matched by id"
              [ "drop-unmatched" ]
              (single ".csv" CsvTable.table noLabels)
              "STEP.MODALITY.PART.csv, such as 01-clotho.text.train.csv" ]

    /// An importer by its name, or the names that there are. Example: `Importer.find "npy"`.
    let find (name: string) : Result<Importer, Fault list> =
        match all |> List.tryFind (fun i -> i.Name = name) with
        | Some importer -> Ok importer
        | None -> Error [ Fault.Unknown("import format", name, all |> List.map _.Name) ]

    /// Reads a folder and writes a stream folder. Gives what is worth telling. Faults: everything that is wrong with the options, the
    /// files and their rows; then nothing is written.
    let run
        (importer: Importer)
        (options: ImportOptions)
        (treatment: Treatment)
        (force: bool)
        (source: string)
        (out: string)
        : Result<string list, Fault list> =
        try
            if File.Exists source then
                Error [ Fault.Unreadable(source, "it is a file, and a folder of files is imported") ]
            else
                StreamWriter.prepare force source out
                |> Result.bind (fun () -> importer.Read options source)
                |> Result.bind (StreamWriter.write treatment out)
        with
        | :? IOException
        | :? UnauthorizedAccessException as e -> Error [ Fault.Unreadable(source, e.Message) ]
