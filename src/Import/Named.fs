namespace Cmcl

open System
open System.IO

/// Files whose names say what they hold: `STEP.MODALITY.PART.npy`, `.parquet` and `.csv`, and `STEP.PART.npz` with an array for
/// each modality. Parts are `train`, `validation`, `test` and `classes`, the last a feature for every class.
///
/// Steps come in the order of their names. Of a step's two modalities the anchor is the one that `order` names first; those that
/// it does not name follow by the alphabet.
[<RequireQualifiedAccess>]
module Named =

    /// The vectors of class numbers beside `.npy` features go by this name in the place of a modality.
    [<Literal>]
    let Labels = "labels"

    let parts = [ "train"; "validation"; "test"; "classes" ]

    /// What a file, or an array in one, says by its name, and how it is read.
    type Piece =
        {
            Step: string
            Name: string
            Part: string
            Table: unit -> Result<FeatureTable, Fault list>
            /// Its integers, where it is a file of labels.
            Vector: unit -> Result<int64[], Fault list>
            File: string
        }

    /// The step, the modality and the part in a file's name without its ending.
    let split (name: string) : (string * string * string) option =
        match name.Split '.' |> List.ofArray |> List.rev with
        | part :: modality :: (_ :: _ as step) when
            List.contains part parts && (modality = Labels || (Modality.create modality).IsOk)
            ->
            Some(String.Join('.', List.rev step), modality, part)
        | _ -> None

    /// The step and the part of a name that says no modality.
    let splitPart (name: string) : (string * string) option =
        match name.Split '.' |> List.ofArray |> List.rev with
        | part :: (_ :: _ as step) when List.contains part parts -> Some(String.Join('.', List.rev step), part)
        | _ -> None

    /// Where rows of one split go, and which they are.
    type private Matched =
        {
            Rows: int64
            PlaceA: int64 -> int64
            PlaceB: int64 -> int64
            /// By place; none where nothing says classes.
            Labels: string[] option
            Notes: string list
        }

    /// The options of these importers.
    type Options =
        {
            Share: float
            Seed: Seed
            /// Modalities, those that are rather anchors first.
            Order: string list
            /// Rows without a partner are left out; else they are faults.
            DropUnmatched: bool
        }

    let private byPlace (table: FeatureTable) (place: int64 -> int64) (rows: int64) : string[] option =
        table.Labels
        |> Option.map (fun labels ->
            let placed = Array.create (int rows) ""

            for i in 0 .. labels.Length - 1 do
                let p = place (int64 i)

                if p >= 0L then
                    placed[int p] <- labels[i]

            placed)

    /// The labels that two files agree on.
    let private agree
        (a: FeatureTable)
        (b: FeatureTable)
        (one: string[] option)
        (other: string[] option)
        : Result<string[] option, Fault list> =
        match one, other with
        | Some x, Some y ->
            let differ =
                [ for i in 0 .. x.Length - 1 do
                      if x[i] <> "" && y[i] <> "" && x[i] <> y[i] then
                          $"'{x[i]}' and '{y[i]}'" ]

            if differ.IsEmpty then
                Ok(Some(Array.map2 (fun x y -> if x = "" then y else x) x y))
            else
                Error
                    [ Fault.Contradiction(
                          $"'{a.File}' and '{b.File}' give rows of one id different labels: {Draft.firstTen differ}",
                          "give them one"
                      ) ]
        | one, other -> Ok(Option.orElse other one)

    let private byOrder (a: FeatureTable) (b: FeatureTable) : Result<Matched, Fault list> =
        if a.Rows = b.Rows then
            Ok
                { Rows = a.Rows
                  PlaceA = id
                  PlaceB = id
                  Labels = None
                  Notes = [] }
        else
            Error [ Fault.Shape($"'{b.File}'", $"{a.Rows} rows, one for each of '{a.File}'", $"{b.Rows}") ]

    let private byId
        (drop: bool)
        (a: FeatureTable)
        (idsA: string[])
        (b: FeatureTable)
        (idsB: string[])
        : Result<Matched, Fault list> =
        let inB = idsB |> Seq.mapi (fun i id -> id, int64 i) |> dict
        let inA = Collections.Generic.HashSet idsA
        let common = idsA |> Array.filter inB.ContainsKey
        let onlyA, onlyB = idsA |> Array.filter (inB.ContainsKey >> not), idsB |> Array.filter (inA.Contains >> not)
        let placeOf = common |> Seq.mapi (fun i id -> id, int64 i) |> dict

        let place (ids: string[]) (row: int64) =
            match placeOf.TryGetValue ids[int row] with
            | true, p -> p
            | _ -> -1L

        let lonely =
            [ for one, other, ids in [ a, b, onlyA; b, a, onlyB ] do
                  if ids.Length > 0 then
                      $"'{one.File}' has {ids.Length} ids that '{other.File}' has not: {Draft.firstTen ids}" ]

        if common.Length = 0 then
            Error [ Fault.Contradiction($"'{a.File}' and '{b.File}' have no id in common", "give matched rows the same id") ]
        elif not lonely.IsEmpty && not drop then
            Error [ for text in lonely -> Fault.Contradiction(text, "add the rows, or leave them out with --drop-unmatched") ]
        else
            let rows = common.LongLength

            agree a b (byPlace a (place idsA) rows) (byPlace b (place idsB) rows)
            |> Result.map (fun labels ->
                { Rows = rows
                  PlaceA = place idsA
                  PlaceB = place idsB
                  Labels = labels
                  Notes = [ for text in lonely -> $"left out: {text}" ] })

    let private matched (options: Options) (a: FeatureTable) (b: FeatureTable) : Result<Matched, Fault list> =
        match FeatureTable.repeated a @ FeatureTable.repeated b, a.Ids, b.Ids with
        | (_ :: _ as faults), _, _ -> Error faults
        | [], Some idsA, Some idsB -> byId options.DropUnmatched a idsA b idsB
        | _ -> byOrder a b

    // ---- one step ------------------------------------------------------------------------------------------------

    let private rank (order: string list) (modality: string) =
        (order |> List.tryFindIndex ((=) modality) |> Option.defaultValue Int32.MaxValue), modality

    /// The step's anchor and its partner.
    let private pair (order: string list) (step: string) (pieces: Piece list) : Result<string * string, Fault list> =
        let names = pieces |> List.filter (fun p -> p.Part <> "classes" && p.Name <> Labels) |> List.map _.Name |> List.distinct

        match List.sortBy (rank order) names with
        | [ a; b ] -> Ok(a, b)
        | names ->
            let found = if names.IsEmpty then "none" else String.Join(", ", names)
            Error [ Fault.Shape($"step '{step}'", "files of two modalities", found) ]

    let private find (pieces: Piece list) name part = pieces |> List.tryFind (fun p -> p.Name = name && p.Part = part)

    /// The files of one split that is asked for, matched; nothing where there is no file of it.
    let private splitOf (options: Options) (step: string) (pieces: Piece list) (a: string, b: string) (part: string) =
        match find pieces a part, find pieces b part with
        | None, None when part = "validation" -> Ok None
        | Some x, Some y ->
            validated {
                let! x = x.Table()
                and! y = y.Table()
                return x, y
            }
            |> Result.bind (fun (x, y) -> matched options x y |> Result.map (fun m -> Some(x, y, m)))
        | x, y ->
            Error
                [ for name, piece in [ a, x; b, y ] do
                      if piece.IsNone then
                          Fault.Missing($"{step}.{name}.{part}", $"step '{step}'") ]

    /// The names of classes: the ids of their table, or the lines of a file beside it, or their numbers.
    let private classNames (path: string) (table: FeatureTable) : Result<string list, Fault list> =
        match table.Ids with
        | Some ids -> Ok(List.ofArray ids)
        | None when Path.Exists path ->
            InputFile.text "the names of classes" path
            |> Result.map (fun text -> text.Split '\n' |> Array.map _.Trim() |> Array.filter ((<>) "") |> List.ofArray)
        | None -> Ok [ for i in 0L .. table.Rows - 1L -> string i ]

    /// A class file: its table, the names of its classes, the modality of its features.
    let private classesOf
        (step: string)
        (folder: string)
        (pieces: Piece list)
        : Result<(FeatureTable * string list * string) option, Fault list> =
        match pieces |> List.filter (fun p -> p.Part = "classes") with
        | [] -> Ok None
        | [ piece ] when piece.Name <> Labels ->
            let names = Path.Combine(folder, $"{step}.classes.txt")

            piece.Table()
            |> Result.bind (fun table -> classNames names table |> Result.map (fun given -> table, given))
            |> Result.bind (fun (table, given) ->
                match FeatureTable.repeated table, int64 given.Length = table.Rows with
                | [], true when (List.distinct given).Length = given.Length -> Ok(Some(table, given, piece.Name))
                | [], true ->
                    Error [ Fault.Contradiction($"'{names}' names a class twice", "give every class a name of its own") ]
                | [], false ->
                    Error
                        [ Fault.Shape($"'{names}'", $"{table.Rows} names, one for each row of '{table.File}'", $"{given.Length}") ]
                | faults, _ -> Error faults)
        | several ->
            Error
                [ Fault.Contradiction(
                      $"""step '{step}' has {several.Length} files of classes: {String.Join(", ", several |> List.map _.File)}""",
                      "keep the one whose head classes go through"
                  ) ]

    /// The class of every row of a split as the number of its name, −1 for none; from the files' own labels, or from a file of labels.
    let private labelsOf
        (step: string)
        (pieces: Piece list)
        (classes: string list)
        (part: string)
        (a: FeatureTable)
        (b: FeatureTable)
        (m: Matched)
        : Result<int64[], Fault list> =
        match m.Labels, find pieces Labels part with
        | Some labels, _ ->
            let number = classes |> List.mapi (fun i c -> c, int64 i) |> dict

            match labels |> Array.filter (fun l -> l <> "" && not (number.ContainsKey l)) |> Array.distinct with
            | [||] -> Ok(labels |> Array.map (fun l -> if l = "" then -1L else number[l]))
            | unknown ->
                Error
                    [ Fault.Contradiction(
                          $"'{a.File}' and '{b.File}' have rows of classes that the class file of step '{step}' has no feature of: {Draft.firstTen unknown}",
                          "add them there, or leave these labels empty"
                      ) ]
        | None, Some piece ->
            piece.Vector()
            |> Result.bind (fun labels ->
                if labels.LongLength <> m.Rows then
                    Error
                        [ Fault.Shape($"'{piece.File}'", $"{m.Rows} labels, one for each row of '{a.File}'", $"{labels.Length}") ]
                else
                    match labels |> Array.tryFindIndex (fun l -> l < -1L || l >= int64 classes.Length) with
                    | Some row ->
                        Error
                            [ Fault.BadValue(
                                  $"row {row} of '{piece.File}'",
                                  $"-1 (no class) to {classes.Length - 1}",
                                  string labels[row]
                              ) ]
                    | None -> Ok labels)
        | None, None when part = "train" -> Ok(Array.create (int m.Rows) -1L)
        | None, None ->
            Error [ Fault.Missing($"{step}.{Labels}.{part}", $"the accuracy of step '{step}', whose classes are there,") ]

    let private uniform (tables: FeatureTable list) : Fault list =
        let first = tables.Head

        [ for t in tables.Tail do
              if t.Columns <> first.Columns then
                  Fault.Shape($"'{t.File}'", $"d = {first.Columns}, as '{first.File}' has", $"d = {t.Columns}")

              if t.Type <> first.Type then
                  Fault.BadValue(
                      $"'{t.File}'",
                      $"numbers of type {Draft.typeName first.Type}, as '{first.File}' has",
                      Draft.typeName t.Type
                  ) ]

    let private feed (table: FeatureTable) (targets: (string * (int64 -> int64)) list) : Feed =
        { File = table.File
          Row = FeatureTable.rowName table
          Read = fun act -> table.Read(fun first block -> act first [ for _ in targets -> block ])
          Targets = [ for matrix, place in targets -> { Matrix = matrix; Place = place } ] }

    /// What a step adds to a draft.
    let private stepDraft
        (options: Options)
        (folder: string)
        (index: int)
        (step: string)
        (pieces: Piece list)
        : Result<Draft, Fault list> =
        let prefix = $"{index + 1:``00``}-{Names.folder step}"

        validated {
            let! classes = classesOf step folder pieces

            and! splits =
                pair options.Order step pieces
                |> Result.bind (fun (a, b) ->
                    [ "train"; "validation"; "test" ]
                    |> List.map (fun part -> splitOf options step pieces (a, b) part |> Result.map (fun found -> part, found))
                    |> Check.all
                    |> Result.map (fun found ->
                        a,
                        b,
                        [ for part, found in found do
                              match found with
                              | Some f -> part, f
                              | None -> () ]))

            return classes, splits
        }
        |> Result.bind (fun (classes, (a, b, splits)) ->
            match uniform [ for _, (x, _, _) in splits -> x ] @ uniform [ for _, (_, y, _) in splits -> y ] with
            | [] -> Ok(classes, a, b, splits)
            | faults -> Error faults)
        |> Result.bind (fun (classes, a, b, splits) ->
            let labels =
                match classes with
                | None -> Ok None
                | Some(table, names, modality) ->
                    splits
                    |> List.map (fun (part, (x, y, m)) -> labelsOf step pieces names part x y m)
                    |> Check.all
                    |> Result.map (fun labels -> Some(table, names, modality, Array.concat labels))

            labels |> Result.map (fun labels -> a, b, splits, labels))
        |> Result.map (fun (a, b, splits, labels) ->
            let starts = splits |> List.scan (fun total (_, (_, _, m)) -> total + m.Rows) 0L
            let total = List.last starts
            let file modality = $"features/{prefix}-{modality}.npy"
            let tableOf = [ for _, (x, y, _) in splits -> x, y ]

            let offset first (place: int64 -> int64) row =
                match place row with
                | -1L -> -1L
                | p -> first + p

            let range part =
                splits
                |> List.zip (List.take splits.Length starts)
                |> List.pick (fun (first, (name, (_, _, m))) -> if name = part then Some(first, first + m.Rows) else None)

            let drawn = not (List.exists (fst >> (=) "validation") splits)
            let _, trained = range "train"
            let learned, held = Draft.hold options.Share (Seed.split step options.Seed) trained
            let listed part = $"rows/{prefix}-{part}.npy"
            let kept part = StreamFile.Rows.Range(range part)
            let classSet, labelFile, prototypeFile = $"{step}:classes", $"labels/{prefix}.npy", $"prototypes/{prefix}.npy"

            let bank (modality: string) (table: FeatureTable) : (string * StreamFile.Source) * Matrix =
                ($"{modality}:{step}", { Modality = Modality.named modality; File = file modality }),
                { File = file modality
                  Type = table.Type
                  Rows = total
                  Columns = table.Columns }

            let banks = [ bank a (fst tableOf.Head); bank b (snd tableOf.Head) ]
            let sizes = splits |> List.map (fun (part, (_, _, m)) -> $"{m.Rows} {part}")

            { Stream =
                { Name = ""
                  Description = ""
                  Banks = Map.ofList (List.map fst banks)
                  Rows =
                    Map
                        [ $"{step}:train", (if drawn then StreamFile.Rows.File(listed "train") else kept "train")
                          $"{step}:validation", (if drawn then StreamFile.Rows.File(listed "validation") else kept "validation")
                          $"{step}:test", kept "test" ]
                  Classes =
                    Map
                        [ for _, names, _, _ in Option.toList labels ->
                              classSet, ({ Names = names; Labels = StreamFile.Rows.File labelFile }: StreamFile.Classes) ]
                  Prototypes =
                    Map
                        [ for _, _, modality, _ in Option.toList labels ->
                              $"{modality}:{step}",
                              ({ Classes = classSet
                                 Vectors = { Modality = Modality.named modality; File = prototypeFile } }
                              : StreamFile.Prototypes) ]
                  Steps =
                    [ { Name = step
                        A = $"{a}:{step}"
                        B = $"{b}:{step}"
                        Train = $"{step}:train"
                        Validation = $"{step}:validation"
                        Test = $"{step}:test"
                        Accuracy =
                          labels
                          |> Option.map (fun (_, _, modality, _) ->
                              { Items = (if b = modality then $"{a}:{step}" else $"{b}:{step}")
                                Prototypes = $"{modality}:{step}" }) } ]
                  Preset = { Common = Map.empty; Methods = Map.empty; Run = [] } }
              Matrices =
                [ yield! List.map snd banks
                  for table, names, _, _ in Option.toList labels do
                      { File = prototypeFile
                        Type = table.Type
                        Rows = int64 names.Length
                        Columns = table.Columns } ]
              Vectors =
                [ if drawn then
                      listed "train", learned
                      listed "validation", held
                  for _, _, _, labels in Option.toList labels do
                      labelFile, labels ]
              Feeds =
                [ for first, (_, (x, y, m)) in List.zip (List.take splits.Length starts) splits do
                      feed x [ file a, offset first m.PlaceA ]
                      feed y [ file b, offset first m.PlaceB ]
                  for table, _, _, _ in Option.toList labels do
                      feed table [ prototypeFile, id ] ]
              Notes =
                [ let drawn = if drawn then $", {held.Length} of the train rows for validation" else ""
                  $"""{step}: {a}–{b}, {String.Join(", ", sizes)} rows{drawn}"""

                  for _, (_, _, m) in splits do
                      yield! m.Notes ] })

    // ---- all steps -----------------------------------------------------------------------------------------------

    /// A stream of these pieces. The training suggested is the paper's, with a rate and a temperature for features of any scale
    /// left to whoever runs it.
    let draft (options: Options) (name: string) (folder: string) (pieces: Piece list) : Result<Draft, Fault list> =
        pieces
        |> List.groupBy _.Step
        |> List.sortWith (fun (a, _) (b, _) -> String.CompareOrdinal(a, b))
        |> List.mapi (fun i (step, pieces) ->
            match pieces |> List.countBy (fun p -> p.Name, p.Part) |> List.filter (fun (_, n) -> n > 1) with
            | [] -> stepDraft options folder i step pieces
            | twice ->
                Error
                    [ for (name, part), _ in twice ->
                          Fault.Contradiction($"step '{step}' has several files of {name}, {part}", "keep one of them") ])
        |> Check.all
        |> Result.map (fun steps ->
            let union pick = steps |> List.collect (fun s -> Map.toList (pick s.Stream)) |> Map.ofList

            { Stream =
                { Name = name
                  Description = ""
                  Banks = union _.Banks
                  Rows = union _.Rows
                  Classes = union _.Classes
                  Prototypes = union _.Prototypes
                  Steps = steps |> List.collect _.Stream.Steps
                  Preset =
                    { Common = Map.empty
                      Methods = Map.empty
                      Run = [ "zero-shot"; "vanilla"; "dns" ] } }
              Matrices = steps |> List.collect _.Matrices
              Vectors = steps |> List.collect _.Vectors
              Feeds = steps |> List.collect _.Feeds
              Notes = steps |> List.collect _.Notes })
