namespace Cmcl

open System
open System.Collections.Generic

/// How steps are made of files.
type StepOptions =
    {
        /// The share of training rows that is held back for validation, where no file says which, and of all rows for the test.
        Share: float
        TestShare: float
        Seed: Seed
        /// Modalities, those that are rather anchors first.
        Order: string list
        /// Rows without a partner are left out; else they are faults.
        DropUnmatched: bool
        /// Bytes that the stream may take.
        Room: int64
    }

/// Items by their ids that are held out in every step that has them.
type HeldOut = { Test: HashSet<string>; Validation: HashSet<string> }

/// A step of tables that are matched, as a part of a draft.
[<RequireQualifiedAccess>]
module StepDraft =

    /// The class of a row as a number: by its name, or where labels are numbers as these; −1 for none. None for an unknown one.
    let private numbering (classes: string list) : string -> int64 option =
        let byName = classes |> List.mapi (fun i c -> c, int64 i) |> dict

        fun label ->
            match label, byName.TryGetValue label, Int64.TryParse label with
            | ("" | "-1"), _, _ -> Some -1L
            | _, (true, n), _ -> Some n
            | _, _, (true, n) when n >= 0L && n < int64 classes.Length -> Some n
            | _ -> None

    /// What is wrong with the classes of a part's rows, of those that there are.
    let private unknown
        (classes: string list)
        (part: string option)
        (x: FeatureTable, y: FeatureTable, m: Matching)
        : Fault list =
        let number = numbering classes
        let from = if x.Labels.IsSome then x else y

        match m.Labels with
        | None when part = Some "train" -> []
        | None ->
            [ Fault.Missing(
                  $"a class for each row of '{x.File}' or '{y.File}' (a column 'label', or STEP.labels.PART.npy)",
                  "the accuracy of a step that has classes"
              ) ]
        | Some labels ->
            match labels |> Array.indexed |> Array.filter (fun (_, l) -> (number l).IsNone) with
            | [||] -> []
            | wrong ->
                let names = wrong |> Seq.map snd |> Seq.distinct |> Seq.map (fun l -> $"'{l}'") |> StreamDraft.firstFew
                let row = fst wrong[0]

                [ Fault.Contradiction(
                      $"'{from.LabelFile}' gives rows classes that have no feature, the first of them row {row}: {names}",
                      $"there are {StreamDraft.firstFew classes}; add the others, or leave these labels empty"
                  ) ]

    let private feed (table: FeatureTable) (targets: (string * (int64 -> int64)) list) : Feed =
        { File = table.File
          Rows = table.Rows
          Row = FeatureTable.rowName table
          Read = fun act -> FeatureTable.read table (fun first block -> act first [ for _ in targets -> block ])
          Targets = [ for matrix, place in targets -> { Matrix = matrix; Place = place } ] }

    /// Row sets of pairs by split: the parts as files have them, validation and test drawn item by item where no file says them, or as they
    /// are held out in all steps, `ids` being the ids of items.
    let private splitsOf
        (options: StepOptions)
        (held: (HeldOut * string[]) option)
        (step: string)
        (counts: (string option * int64) list)
        (items: int64[])
        =
        let starts = counts |> List.scan (fun sum (_, n) -> sum + n) 0L

        let range part =
            List.zip counts (List.take counts.Length starts)
            |> List.tryPick (fun ((p, n), s) -> if p = part then Some [| s .. s + n - 1L |] else None)

        /// A share of some pairs, whole items at a time, and the others.
        let draw purpose share (pairs: int64[]) =
            let own = pairs |> Array.map (fun p -> items[int p]) |> Array.distinct
            let _, held = StreamDraft.hold share (Seed.split purpose options.Seed) own.LongLength
            let drawn = held |> Array.map (fun i -> own[int i]) |> Collections.Generic.HashSet
            let held, rest = pairs |> Array.partition (fun p -> drawn.Contains items[int p])
            rest, held

        /// The pairs of items of these ids, and the others.
        let apart (ids: string[]) (those: HashSet<string>) (pairs: int64[]) =
            let held, rest = pairs |> Array.partition (fun p -> those.Contains ids[int items[int p]])
            rest, held

        let rest, test =
            match range (Some "test"), range None with
            | None, Some all when held.IsSome ->
                let held, ids = held.Value
                apart ids held.Test all
            | Some test, _ -> (range (Some "train")).Value, test
            | None, Some all -> draw $"{step}:test" options.TestShare all
            | None, None -> [||], [||]

        match range (Some "validation"), held with
        | Some validation, _ -> rest, validation, test
        | None, Some(held, ids) ->
            let train, validation = apart ids held.Validation rest
            train, validation, test
        | None, None ->
            let train, validation = draw step options.Share rest
            train, validation, test

    /// Matched tables of every part of a step, one part behind the other: the rows of each side, and the pairs.
    type private Whole =
        {
            /// The first row of either side of each part.
            Starts: (int64 * int64) list
            RowsA: int64
            RowsB: int64
            Count: int64
            Pairs: struct (int64 * int64)[] option
            Labels: string[] option
        }

    let private whole (parts: Matching list) : Whole =
        let starts = parts |> List.scan (fun (a, b) m -> a + m.RowsA, b + m.RowsB) (0L, 0L)

        let pairs =
            [| for m, (a, b) in List.zip parts (List.take parts.Length starts) do
                   match m.Pairs with
                   | Some pairs ->
                       for struct (i, j) in pairs do
                           struct (a + i, b + j)
                   | None ->
                       for i in 0L .. m.RowsA - 1L do
                           struct (a + i, b + i) |]

        { Starts = List.take parts.Length starts
          RowsA = fst (List.last starts)
          RowsB = snd (List.last starts)
          Count = parts |> List.sumBy _.Count
          Pairs = if parts |> List.exists (fun m -> m.Pairs.IsSome) then Some pairs else None
          Labels =
            if parts |> List.exists (fun m -> m.Labels.IsSome) then
                Some(
                    Array.concat
                        [ for m in parts ->
                              match m.Labels with
                              | Some labels -> labels
                              | None -> Array.create (int m.Count) "" ]
                )
            else
                None }

    /// The label of every row of one side, the first that one of its pairs has.
    let private ofRows (side: struct (int64 * int64) -> int64) (rows: int64) (whole: Whole) (labels: string[]) : string[] =
        match whole.Pairs with
        | None -> labels
        | Some pairs ->
            let found = Array.create (int rows) ""

            pairs
            |> Array.iteri (fun i pair ->
                let row = int (side pair)

                if found[row] = "" then
                    found[row] <- labels[i])

            found

    /// The part of a draft that a step is: its banks, rows, classes, and what fills them. `parts` are the tables of both modalities by the part that
    /// their files say, none for all rows, which are then split by what is held out in all steps, if anything is. Faults: classes without a feature, rows too few to be split.
    let make
        (options: StepOptions)
        (held: HeldOut option)
        (index: int)
        (step: string)
        (a: string, b: string)
        (classes: (FeatureTable * string list * string) option)
        (parts: (string option * (FeatureTable * FeatureTable * Matching)) list)
        : Result<StreamDraft, Fault list> =
        let prefix = $"{index + 1:``00``}-{Names.folder step}"
        let matchings = [ for _, (_, _, m) in parts -> m ]
        let whole = whole matchings

        let pairs =
            whole.Pairs
            |> Option.map (fun pairs -> pairs |> Array.map (fun struct (i, _) -> i), pairs |> Array.map (fun struct (_, j) -> j))

        let items =
            pairs
            |> Option.map (fun (a, b) -> (Pairs.create a b).Items)
            |> Option.defaultWith (fun () -> [| 0L .. whole.Count - 1L |])

        let counts = [ for part, (_, _, m) in parts -> part, m.Count ]

        let held =
            match held, parts with
            | Some held, [ None, (_, _, { Ids = Some ids }) ] -> Some(held, ids)
            | _ -> None

        let train, validation, test = splitsOf options held step counts items
        let items' = if classes |> Option.exists (fun (_, _, modality) -> modality = b) then a else b

        let labels =
            match whole.Labels with
            | None -> None
            | Some labels ->
                let rows =
                    if items' = a then
                        ofRows (fun struct (i, _) -> i) whole.RowsA whole labels
                    else
                        ofRows (fun struct (_, j) -> j) whole.RowsB whole labels

                let names =
                    match classes with
                    | Some(_, names, _) -> names
                    | None ->
                        rows
                        |> Array.filter (fun l -> l <> "" && l <> "-1")
                        |> Array.distinct
                        |> List.ofArray
                        |> List.sortWith StreamDraft.natural

                Some(names, rows |> Array.map (numbering names >> Option.defaultValue -1L))

        let faults =
            [ match classes with
              | Some(_, names, _) ->
                  for part, tables in parts do
                      yield! unknown names part tables
              | None -> ()

              if train.Length < 2 || validation.Length = 0 || test.Length = 0 then
                  Fault.Shape(
                      $"step '{step}'",
                      "at least two rows to learn from, one for validation and one for the test",
                      $"{train.Length}, {validation.Length} and {test.Length}"
                  ) ]

        (if faults.IsEmpty then Ok labels else Error faults)
        |> Result.map (fun labels ->
            let file modality = $"features/{prefix}-{modality}.npy"
            let listed what = $"rows/{prefix}-{what}.npy"
            let labelFile, prototypeFile = $"labels/{prefix}.npy", $"prototypes/{prefix}.npy"

            let behind (start: int64) (place: int64 -> int64) row =
                match place row with
                | -1L -> -1L
                | p -> start + p

            let matrix modality (table: FeatureTable) rows =
                { File = file modality
                  Type = table.Type
                  Rows = rows
                  Columns = table.Columns }

            let tables = [ for _, (x, y, _) in parts -> x, y ]
            let first, second = tables.Head

            let sets =
                [ for what, numbers in [ "train", train; "validation", validation; "test", test ] ->
                      what, StreamDraft.rowSet (listed what) numbers ]

            let classSet = $"{step}:classes"

            { Stream =
                { Name = ""
                  Description = ""
                  Banks =
                    Map
                        [ for m in [ a; b ] -> $"{m}:{step}", ({ Modality = Modality.named m; File = file m }: StreamFile.Source) ]
                  Rows = Map [ for what, (set, _) in sets -> $"{step}:{what}", set ]
                  Classes =
                    Map
                        [ for _ in Option.toList classes do
                              for names, _ in Option.toList labels ->
                                  classSet, ({ Names = names; Labels = StreamFile.Rows.File labelFile }: StreamFile.Classes) ]
                  Prototypes =
                    Map
                        [ for _, _, modality in Option.toList classes ->
                              $"{modality}:{step}",
                              ({ Classes = classSet
                                 Vectors = { Modality = Modality.named modality; File = prototypeFile } }
                              : StreamFile.Prototypes) ]
                  Steps =
                    [ { Name = step
                        A = $"{a}:{step}"
                        B = $"{b}:{step}"
                        Pairs = pairs |> Option.map (fun _ -> StreamFile.Rows.File(listed a), StreamFile.Rows.File(listed b))
                        Train = $"{step}:train"
                        Validation = $"{step}:validation"
                        Test = $"{step}:test"
                        Accuracy =
                          classes
                          |> Option.map (fun (_, _, modality) ->
                              { Items = $"{items'}:{step}"
                                Prototypes = $"{modality}:{step}" }) } ]
                  Groups = Map.empty
                  Heads = None
                  Preset = train |> Seq.distinctBy (fun pair -> items[int pair]) |> Seq.length |> int64 |> Advice.preset }
              Matrices =
                [ matrix a first whole.RowsA
                  matrix b second whole.RowsB
                  for table, names, _ in Option.toList classes do
                      { File = prototypeFile
                        Type = table.Type
                        Rows = int64 names.Length
                        Columns = table.Columns } ]
              Vectors =
                [ for _, (_, vectors) in sets do
                      yield! vectors
                  for ofA, ofB in Option.toList pairs do
                      listed a, ofA
                      listed b, ofB
                  for _ in Option.toList classes do
                      for _, numbers in Option.toList labels do
                          labelFile, numbers ]
              Feeds =
                [ for (x, y), m, (startA, startB) in List.zip3 tables matchings whole.Starts do
                      feed x [ file a, behind startA m.PlaceA ]
                      feed y [ file b, behind startB m.PlaceB ]
                  for table, _, _ in Option.toList classes do
                      feed table [ prototypeFile, id ] ]
              Lists = None
              Notes =
                [ let drawn what part = if List.exists (fst >> (=) (Some part)) counts then what else $"{what} (drawn)"
                  let unit = if whole.Pairs.IsSome then "pairs" else "rows"
                  $"""{step}: {a}–{b}, {train.Length} train, {validation.Length} {drawn "validation" "validation"}, {test.Length} {drawn "test" "test"} {unit}"""

                  match classes, labels with
                  | None, Some(names, _) ->
                      $"{names.Length} classes ({StreamDraft.firstFew names}); without a feature for each (a file of the part 'classes') there is no accuracy"
                  | Some _, Some(names, _) -> $"{names.Length} classes ({StreamDraft.firstFew names})"
                  | _ -> ()

                  yield!
                      [ for _, (x, y, m) in parts do
                            yield! x.Notes
                            yield! y.Notes
                            yield! m.Notes ]
                      |> List.distinct ] })

    /// The draft of a stream from those of its steps; its preset is that of the step with the smallest batches.
    let join (name: string) (steps: StreamDraft list) : StreamDraft =
        let union pick = steps |> List.collect (fun s -> Map.toList (pick s.Stream)) |> Map.ofList

        { Stream =
            { Name = name
              Description = ""
              Banks = union _.Banks
              Rows = union _.Rows
              Classes = union _.Classes
              Prototypes = union _.Prototypes
              Steps = steps |> List.collect _.Stream.Steps
              Groups = Map.empty
              Heads = None
              Preset = (steps |> List.minBy (fun s -> int s.Stream.Preset.Common["batch"])).Stream.Preset }
          Matrices = steps |> List.collect _.Matrices
          Vectors = steps |> List.collect _.Vectors
          Feeds = steps |> List.collect _.Feeds
          Lists = None
          Notes = steps |> List.collect _.Notes |> List.distinct }
