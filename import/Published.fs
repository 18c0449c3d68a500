namespace Cmcl

open System
open System.IO
open TorchSharp

/// The feature files of the paper's published code (arXiv 2503.14963): HDF5, one dataset a sample.
///
/// `{dataset}_{split}_{backbone}.h5` has a key `{id}__{class}__{class index}` for every sample, with its features, one row a
/// modality, in the order of `order`; `{dataset}_class_{backbone}.h5` a key for every class, with its text feature. Samples
/// count in the order of their keys.
[<RequireQualifiedAccess>]
module Published =

    /// The order of modalities within a sample. It is also the order in which they are anchors: it is the anchor that comes
    /// first in each of the paper's eleven pairs.
    let order = [ "vision"; "text"; "audio"; "thermal"; "depth"; "imu"; "video"; "tactile"; "point" ]

    let backbones = [ "imagebind"; "unibind"; "languagebind" ]

    /// Each data set's modalities, in the order of its rows, and other names of it.
    let private dataSets =
        [ "UCF101", [ "text"; "video" ], [ "ucf" ]
          "ESC50", [ "text"; "audio" ], [ "esc" ]
          "NYUDv2", [ "vision"; "text"; "depth" ], [ "nyud"; "nyuv2"; "nyudepthv2" ]
          "Clotho", [ "text"; "audio" ], []
          "VGGSound-S", [ "text"; "audio"; "video" ], [ "vggsound"; "vggs" ]
          "TVL", [ "vision"; "text"; "tactile" ], []
          "LLVIP", [ "vision"; "thermal" ], [] ]

    /// The paper's eleven steps: data set, anchor, partner, and the modality of the items that are classified, if any.
    let private steps =
        [ "UCF101", "text", "video", Some "video"
          "ESC50", "text", "audio", Some "audio"
          "NYUDv2", "vision", "depth", None
          "Clotho", "text", "audio", None
          "VGGSound-S", "text", "audio", Some "audio"
          "VGGSound-S", "text", "video", Some "video"
          "VGGSound-S", "audio", "video", None
          "TVL", "vision", "tactile", None
          "TVL", "text", "tactile", None
          "TVL", "vision", "text", None
          "LLVIP", "vision", "thermal", None ]

    let stepCount = steps.Length

    // ---- keys ----------------------------------------------------------------------------------------------------

    /// A sample's key.
    type Key = { Id: string; Class: string }

    /// `{id}__{class}__{class index}`: the last two parts are class and index, and so an id may have `__` in it; `tensor(17)` is 17.
    let parse (key: string) : Key option =
        let parts = key.Split "__"
        let n = parts.Length

        if n < 3 || parts[n - 1] = "" || not (Seq.forall Char.IsAsciiDigit parts[n - 1]) then
            None
        else
            let id = String.Join("__", parts[.. n - 3])
            let wrapped = id.StartsWith "tensor(" && id.EndsWith ')'

            Some
                { Id = if wrapped then id.Substring(7, id.Length - 8) else id
                  Class = parts[n - 2] }

    // ---- files ---------------------------------------------------------------------------------------------------

    let private simple (name: string) = name |> String.filter Char.IsAsciiLetterOrDigit |> _.ToLowerInvariant()

    /// Data set and part (train, test, class) of every file of a backbone, in the folder or in its `features_storage`.
    let private locate (folder: string) (backbone: string) : ((string * string) * string) list =
        let known =
            [ for name, _, others in dataSets do
                  for other in simple name :: others do
                      other, name ]
            |> Map.ofList

        [ for place in [ folder; Path.Combine(folder, "features_storage") ] do
              if Directory.Exists place then
                  for path in Directory.EnumerateFiles place |> Seq.sortWith (fun a b -> String.CompareOrdinal(a, b)) do
                      let name, ending = StreamDraft.nameOf path

                      match name.Split '_' |> List.ofArray |> List.rev with
                      | model :: part :: rest when
                          simple model = backbone
                          && List.contains (simple part) [ "train"; "test"; "class" ]
                          && List.contains ending [ ".h5"; ".hdf5" ]
                          ->
                          match Map.tryFind (simple (String.Join("", rest |> List.rev))) known with
                          | Some dataSet -> (dataSet, simple part), path
                          | None -> ()
                      | _ -> () ]

    // ---- samples -------------------------------------------------------------------------------------------------

    /// What the keys of a file say: its samples' classes and d. Only heads have been read.
    type private Samples =
        { Path: string
          Entries: NumberArray[]
          Keys: Key[]
          Type: torch.ScalarType
          Columns: int64 }

    let private repeated (path: string) (entries: NumberArray[]) (keys: Key[]) : Fault list =
        [ for _, same in Array.zip entries keys |> Array.groupBy snd do
              if same.Length > 1 then
                  let names = same |> Array.map (fun (e, _) -> $"'{e.Name}'")
                  Fault.Unreadable(path, $"""keys of one sample twice: {StreamDraft.firstTen names}""") ]
        |> List.truncate 10

    /// The arrays of floats that a file's keys name; every other thing in it is a fault.
    let private entries (path: string) : Result<NumberArray[], Fault list> =
        let wanted = "float16, float32 or float64 is needed"

        Hdf5Table.contents path
        |> Result.bind (fun contents ->
            [ for names, content in contents do
                  let fault reason = Error [ Fault.Unreadable(path, $"""'{String.Join("/", names)}' {reason}""") ]

                  match content with
                  | Content.Numbers a when a.Type = torch.ScalarType.Int64 -> fault $"holds integers; {wanted}"
                  | Content.Numbers a -> Ok a
                  | Content.Other what -> fault $"holds no features: {what}"
                  | _ -> fault $"holds words; {wanted}" ]
            |> Check.all
            |> Result.map Array.ofList
            |> Result.mapError (List.truncate 10))

    /// Values of one type and the shape that the first has, as many rows as wanted.
    let private uniform (path: string) (rows: int64) (row: string) (entries: NumberArray[]) : Fault list =
        let first = entries[0]

        let flat (e: NumberArray) =
            match e.Shape with
            | [ d ] when rows = 1L -> Some d
            | [ n; d ] when n = rows -> Some d
            | _ -> None

        let columns = flat first

        [ for i, e in Array.indexed entries do
              let is = String.Join(" × ", e.Shape)

              if flat e = None || flat e = Some 0L then
                  Fault.Shape($"'{path}', row {i} (key '{e.Name}')", row, is)
              elif columns.IsSome && flat e <> columns then
                  Fault.Shape($"'{path}', row {i} (key '{e.Name}')", $"d = {columns.Value}, as the rows before have", is)
              elif e.Type <> first.Type then
                  Fault.BadValue(
                      $"'{path}', row {i} (key '{e.Name}')",
                      $"numbers of type {StreamDraft.typeName first.Type}, as the rows before have",
                      StreamDraft.typeName e.Type
                  ) ]
        |> List.truncate 10

    let private readSamples (modalities: string list) (path: string) : Result<Samples, Fault list> =
        entries path
        |> Result.bind (fun entries ->
            let parsed = entries |> Array.map (fun e -> e, parse e.Name)
            let words = String.Join(", ", modalities)
            let row = $"{modalities.Length} × d ({words})"

            let faults =
                if entries.Length < 1 then
                    [ Fault.Unreadable(path, "it holds no samples") ]
                else
                    [ for e, key in Array.filter (snd >> Option.isNone) parsed |> Array.truncate 10 do
                          Fault.BadValue($"a key of '{path}'", "{id}__{class}__{class index}", e.Name)
                      if Array.forall (snd >> Option.isSome) parsed then
                          yield! repeated path entries (Array.map (snd >> Option.get) parsed)
                      yield! uniform path (int64 modalities.Length) row entries ]

            if faults.IsEmpty then
                Ok
                    { Path = path
                      Entries = entries
                      Keys = Array.map (snd >> Option.get) parsed
                      Type = entries[0].Type
                      Columns = List.last entries[0].Shape }
            else
                Error faults)

    /// Class texts of a file by name.
    let private readClasses (path: string) : Result<NumberArray[], Fault list> =
        entries path
        |> Result.bind (fun entries ->
            match entries with
            | [||] -> Error [ Fault.Unreadable(path, "it holds no classes") ]
            | entries ->
                match uniform path 1L "d numbers" entries with
                | [] -> Ok entries
                | faults -> Error faults)

    /// Reads chosen entries of a file in blocks, each entry rows × d, giving the rows wanted, one array each.
    let private readBlocks (path: string) (entries: NumberArray[]) (rows: int) (wanted: int list) act : Result<unit, Fault list> =
        Table.reading path (fun () ->
            use reader = Hdf5Table.reader path
            let columns = List.last entries[0].Shape

            let block =
                StreamDraft.blockRows (int64 rows * columns * int64 (entries[0].Type.ElementSize()))
                |> min entries.LongLength
                |> int

            for start in 0..block .. entries.Length - 1 do
                use scope = torch.NewDisposeScope()

                let read =
                    entries |> Array.skip start |> Array.truncate block |> Array.map (fun e -> reader.Rows(e, 0L, e.Shape.Head))

                let all = torch.stack(read).reshape(read.LongLength, int64 rows, columns)
                act (int64 start) [ for j in wanted -> all.select (1L, int64 j) ]

            Ok())

    // ---- the draft -----------------------------------------------------------------------------------------------

    /// One data set, its files' heads read: its matrices, row sets, classes, and what fills them.
    type private Part =
        { Banks: (string * StreamFile.Source) list
          Rows: (string * StreamFile.Rows) list
          Classes: (string * StreamFile.Classes) list
          Prototypes: (string * StreamFile.Prototypes) list
          Matrices: Matrix list
          Vectors: (string * int64[]) list
          Feeds: Feed list
          Notes: string list }

    let private same (name: string) (train: Samples) (test: Samples) : Fault list =
        [ if train.Columns <> test.Columns then
              Fault.Shape($"'{test.Path}'", $"d = {train.Columns}, as '{train.Path}' has", $"d = {test.Columns}")
          if train.Type <> test.Type then
              Fault.BadValue(
                  $"'{test.Path}'",
                  $"numbers of type {StreamDraft.typeName train.Type}, as '{train.Path}' has",
                  StreamDraft.typeName test.Type
              ) ]

    let private classText tell (dataSet: string) (path: string) (samples: Samples list) : Result<Part -> Part, Fault list> =
        tell (ImportEvent.Reading path)

        readClasses path
        |> Result.bind (fun entries ->
            let texts = entries |> Array.map (fun e -> e.Name, e) |> Map.ofArray

            let classes =
                samples
                |> List.collect (fun s -> [ for k in s.Keys -> k.Class ])
                |> List.distinct
                |> List.sortWith (fun a b -> String.CompareOrdinal(a, b))

            let missing =
                [ for s in samples do
                      for i, key in Array.indexed s.Keys do
                          if not (texts.ContainsKey key.Class) then
                              key.Class, s, i ]
                |> List.distinctBy (fun (c, _, _) -> c)

            if missing.IsEmpty then
                let name, labels, file =
                    $"{dataSet}:classes", $"labels/{Names.folder dataSet}.npy", $"prototypes/{Names.folder dataSet}-text.npy"

                let number = classes |> List.mapi (fun i c -> c, int64 i) |> Map.ofList
                let used = classes |> List.map (fun c -> texts[c]) |> Array.ofList
                let idle = entries.Length - used.Length

                Ok(fun part ->
                    { part with
                        Classes = [ name, { Names = classes; Labels = StreamFile.Rows.File labels } ]
                        Prototypes =
                            [ $"text:{dataSet}",
                              { Classes = name
                                Vectors = { Modality = Modality.named "text"; File = file } } ]
                        Vectors =
                            (labels,
                             [| for s in samples do
                                    for key in s.Keys -> number[key.Class] |])
                            :: part.Vectors
                        Matrices =
                            { File = file
                              Type = used[0].Type
                              Rows = int64 used.Length
                              Columns = List.last used[0].Shape }
                            :: part.Matrices
                        Feeds =
                            { File = path
                              Rows = used.LongLength
                              Row = fun i -> used[int i].Name
                              Read = readBlocks path used 1 [ 0 ]
                              Targets = [ { Matrix = file; Place = id } ] }
                            :: part.Feeds
                        Notes =
                            if idle > 0 then
                                part.Notes @ [ $"{idle} classes of '{path}' have no sample and are left out" ]
                            else
                                part.Notes })
            else
                Error
                    [ for c, s, i in List.truncate 10 missing do
                          Fault.Unreadable(
                              path,
                              $"it has no text feature of class '{c}' (row {i} of '{s.Path}', key '{s.Entries[i].Name}')"
                          )
                      if missing.Length > 10 then
                          Fault.Unreadable(path, $"{missing.Length - 10} more classes have no text feature") ])

    let private dataSet
        (tell: ImportEvent -> unit)
        (share: float)
        (seed: Seed)
        (used: string list)
        (classPath: string option)
        name
        modalities
        (trainPath: string)
        (testPath: string)
        =
        let read path =
            tell (ImportEvent.Reading path)
            readSamples modalities path

        validated {
            let! train = read trainPath
            and! test = read testPath
            return train, test
        }
        |> Result.bind (fun (train, test) ->
            match same name train test with
            | [] -> Ok(train, test)
            | faults -> Error faults)
        |> Result.bind (fun (train, test) ->
            let n, m = train.Entries.LongLength, test.Entries.LongLength
            let wanted = modalities |> List.indexed |> List.filter (fun (_, modality) -> List.contains modality used)
            let file modality = $"features/{Names.folder name}-{modality}.npy"
            let rows split = $"rows/{Names.folder name}-{split}.npy"
            let learned, held = StreamDraft.hold share (Seed.split name seed) n

            let feed (s: Samples) (first: int64) : Feed =
                { File = s.Path
                  Rows = s.Entries.LongLength
                  Row = fun i -> s.Entries[int i].Name
                  Read = readBlocks s.Path s.Entries modalities.Length (List.map fst wanted)
                  Targets = [ for _, modality in wanted -> { Matrix = file modality; Place = (+) first } ] }

            let part =
                { Banks =
                    [ for _, modality in wanted ->
                          $"{modality}:{name}", { Modality = Modality.named modality; File = file modality } ]
                  Rows =
                    [ $"{name}:train", StreamFile.Rows.File(rows "train")
                      $"{name}:validation", StreamFile.Rows.File(rows "validation")
                      $"{name}:test", StreamFile.Rows.Range(n, n + m) ]
                  Classes = []
                  Prototypes = []
                  Matrices =
                    [ for _, modality in wanted ->
                          { File = file modality
                            Type = train.Type
                            Rows = n + m
                            Columns = train.Columns } ]
                  Vectors = [ rows "train", learned; rows "validation", held ]
                  Feeds = [ feed train 0L; feed test n ]
                  Notes = [ $"{name}: {learned.Length} train, {held.Length} validation, {m} test rows, d = {train.Columns}" ] }

            match classPath with
            | Some path -> classText tell name path [ train; test ] |> Result.map (fun add -> add part)
            | None -> Ok part)

    /// What is not there: by data set, the parts.
    let private missingParts (found: Map<string * string, string>) (needed: (string * string list) list) =
        [ for name, parts in needed do
              match parts |> List.filter (fun part -> not (found.ContainsKey(name, part))) with
              | [] -> ()
              | absent -> name, absent ]

    /// The steps by number, of those the numbers that are wanted; all when none are named.
    let private choose (numbers: int list option) =
        let all = steps |> List.mapi (fun i s -> i + 1, s)

        match numbers with
        | None -> all
        | Some numbers -> all |> List.filter (fun (i, _) -> List.contains i numbers)

    let private partsOf (chosen: (int * (string * string * string * string option)) list) =
        chosen
        |> List.groupBy (fun (_, (name, _, _, _)) -> name)
        |> List.map (fun (name, steps) ->
            let classified = steps |> List.exists (fun (_, (_, _, _, items)) -> items.IsSome)

            name,
            [ "train"
              "test"
              if classified then
                  "class" ])

    /// The paper's stream from a folder of feature files: the steps by number (all when `None`), a share of each data set's
    /// training rows held back for validation, drawn by the seed. Test rows are the test files', whole. Faults: data sets that are
    /// not there, with the steps that can be run without them; files, keys, rows.
    let draft
        (tell: ImportEvent -> unit)
        (backbone: string)
        (share: float)
        (seed: int)
        (numbers: int list option)
        (folder: string)
        : Result<StreamDraft, Fault list> =
        let found = locate folder backbone
        let twice = found |> List.countBy fst |> List.filter (fun (_, n) -> n > 1)
        let files = Map.ofList found
        let chosen = choose numbers
        let missing = missingParts files (partsOf chosen)
        let without = missing |> List.map fst
        let runnable = choose None |> List.filter (fun step -> (missingParts files (partsOf [ step ])).IsEmpty) |> List.map fst

        if not (Directory.Exists folder) then
            Error [ Fault.Missing(folder, "the import") ]
        elif not twice.IsEmpty then
            Error
                [ for (name, part), _ in twice do
                      let paths = found |> List.filter (fst >> (=) (name, part)) |> List.map snd
                      Fault.Contradiction($"""{name} has several {part} files: {String.Join(", ", paths)}""", "keep one of them") ]
        elif not missing.IsEmpty then
            let rest =
                if runnable.IsEmpty then
                    "no step can be run with what is there"
                else
                    $"""steps {String.Join(",", runnable)} can be run with what is there: --steps {String.Join(",", runnable)}"""

            Error
                [ for name, absent in missing do
                      let names = String.Join(", ", absent |> List.map (fun part -> $"{name}_{part}_{backbone}.h5"))
                      let needing = chosen |> List.filter (fun (_, (n, _, _, _)) -> n = name) |> List.map fst
                      Fault.Missing(Path.Combine(folder, names), $"""data set {name} (steps {String.Join(",", needing)})""")
                  Fault.Contradiction($"""{String.Join(", ", without)}: not complete""", rest) ]
        else
            chosen
            |> List.groupBy (fun (_, (name, _, _, _)) -> name)
            |> List.map (fun (name, steps) ->
                let _, modalities, _ = dataSets |> List.find (fun (n, _, _) -> n = name)
                let used = steps |> List.collect (fun (_, (_, a, b, _)) -> [ a; b ])
                let classified = steps |> List.exists (fun (_, (_, _, _, items)) -> items.IsSome)
                let classPath = if classified then Some files[name, "class"] else None
                dataSet tell share (Seed.ofInt seed) used classPath name modalities files[name, "train"] files[name, "test"])
            |> Check.all
            |> Result.map (fun parts ->
                let preset = Presets.find $"paper-{backbone}" |> Check.get

                { Stream =
                    { Name = $"paper-{backbone}"
                      Description =
                        $"The paper's steps on {backbone} features. Validation rows: a share of {share} of the training rows, drawn with seed {seed}; test rows as in the files."
                      Banks = parts |> List.collect _.Banks |> Map.ofList
                      Rows = parts |> List.collect _.Rows |> Map.ofList
                      Classes = parts |> List.collect _.Classes |> Map.ofList
                      Prototypes = parts |> List.collect _.Prototypes |> Map.ofList
                      Steps =
                        [ for _, (name, a, b, items) in chosen ->
                              { Name = $"{name} {a}–{b}"
                                A = $"{a}:{name}"
                                B = $"{b}:{name}"
                                Pairs = None
                                Train = $"{name}:train"
                                Validation = $"{name}:validation"
                                Test = $"{name}:test"
                                Accuracy = items |> Option.map (fun m -> { Items = $"{m}:{name}"; Prototypes = $"text:{name}" }) } ]
                      Groups = Map.empty
                      Heads = None
                      Preset = preset }
                  Matrices = parts |> List.collect _.Matrices
                  Vectors = parts |> List.collect _.Vectors
                  Feeds = parts |> List.collect _.Feeds
                  Lists = None
                  Notes = parts |> List.collect _.Notes })
