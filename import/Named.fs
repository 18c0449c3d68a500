namespace Cmcl

open System
open System.Collections.Generic
open System.IO
open System.Text.RegularExpressions
open TorchSharp

/// A kind of file that holds features.
type Format =
    {
        Name: string
        Endings: string list
        /// Whether a file of it holds, as a rule, several modalities by their names.
        Several: bool
        Read: string -> Result<Table, Fault list>
    }

/// Files whose names say what they hold: `STEP.MODALITY.PART.npy` and the like, or `STEP.PART.npz` with a matrix for each modality.
/// Without a part a file has all rows of its step, of which some are drawn for the test; without a step there is only one.
[<RequireQualifiedAccess>]
module Named =

    /// What a file, or a matrix in one, holds.
    type Piece =
        {
            /// "" where the name says none.
            Step: string
            /// None: all rows.
            Part: string option
            Holds: Content
        }

    and Content =
        | Features of modality: string * FeatureTable
        /// Words for the rows of the step's tables, in their order: `labels` or `ids`.
        | Words of what: string * file: string * words: string[]

    let private partNames =
        [ "train", [ "train"; "training" ]
          "validation", [ "validation"; "valid"; "val"; "dev" ]
          "test", [ "test"; "testing" ]
          "classes", [ "classes" ] ]

    let private partNamesPattern = String.Join('|', partNames |> List.collect snd)

    /// A part with the number of its shard, and with the hash that hubs write behind it.
    let private partWord = $@"(?<name>{partNamesPattern})([-_.]\d+)*([-_]of[-_]\d+)?([-_][0-9a-f]{{16}})?"

    let private partPattern = Regex($"^{partWord}$", RegexOptions.IgnoreCase)

    /// The part that a word of a name says: `train`, `val`, `train-00000-of-00004`.
    let private partOf (word: string) : string option =
        match partPattern.Match word with
        | m when m.Success ->
            let given = m.Groups["name"].Value.ToLowerInvariant()
            partNames |> List.find (fun (_, names) -> List.contains given names) |> fst |> Some
        | _ -> None

    let private within =
        [ Regex($"^(?<rest>.+?)[-_](?<part>{partWord})$", RegexOptions.IgnoreCase)
          Regex($"^(?<part>{partNamesPattern})[-_](?<rest>.+)$", RegexOptions.IgnoreCase) ]

    /// The part that a word has at one of its ends, and the rest of it: `image_train`, `test-text`.
    let private partIn (word: string) : string option * string =
        match within |> List.map _.Match(word) |> List.tryFind _.Success with
        | Some found -> partOf found.Groups["part"].Value, found.Groups["rest"].Value
        | None -> None, word

    /// The words of a file's name before its part, and the part.
    let private split (name: string) : string list * string option =
        match name.Split '.' |> List.ofArray |> List.rev with
        | number :: part :: rest when Seq.forall Char.IsAsciiDigit number && (partOf part).IsSome -> List.rev rest, partOf part
        | part :: rest when (partOf part).IsSome -> List.rev rest, partOf part
        | last :: rest ->
            match partIn last, List.rev rest with
            | (Some part, left), rest -> rest @ [ left ], Some part
            // The part may stand first, too: `train.text.npy`.
            | _, first :: rest when (partOf first).IsSome -> rest @ [ last ], partOf first
            | _, rest -> rest @ [ last ], None
        | [] -> [], None

    // ---- arrays in groups ----------------------------------------------------------------------------------------

    /// What the name of an array says: the part, the group that it lies in ("" for none), and what is left: `train/image`, `image/train/features`,
    /// `text_test`.
    let private address (column: Column) : string option * string * string =
        let words = column.Name.Split('/', '.') |> List.ofArray
        let isPart word = (partOf word).IsSome && (column.Holds.IsVector || word <> List.last words)

        match words |> List.tryFind isPart, words |> List.filter (isPart >> not) |> List.rev with
        | Some part, [] -> partOf part, "", "features"
        | Some part, last :: groups -> partOf part, Option.defaultValue "" (List.tryHead groups), last
        | None, last :: groups ->
            let part, left = partIn last
            part, Option.defaultValue "" (List.tryHead groups), left
        | None, [] -> None, "", column.Name

    /// Some columns of a table, by other names.
    let private part (table: Table) (columns: (string * Column) list) : Table =
        let names = columns |> List.countBy fst |> Map.ofList
        let named = [ for name, c in columns -> (if names[name] = 1 then name else c.Name), c ]
        let place = Map [ for name, c in named -> name, c.Name ]

        { table with
            Columns = [ for name, c in named -> { c with Name = name } ]
            Words = fun name -> table.Words place[name]
            Numbers = fun names act -> table.Numbers (names |> List.map (fun name -> place[name])) act }

    /// The tables that a file of arrays is by the names of these, each with the part and the modality that they say, if any: those for training apart
    /// from those for the test, and where several groups have features, group by group.
    let private tablesIn (format: Format) (table: Table) : (string option * string option * Table) list =
        let found = [ for c in table.Columns -> address c, c ]
        let vectors = found |> List.filter (fun (_, c) -> c.Holds.IsVector)
        let has wanted = vectors |> List.exists (fun ((part, _, _), _) -> part = wanted)
        // Beside arrays for the test, those that say no part are for training.
        let isSplit = has (Some "train") || has (Some "test") && has None
        let unsaid = if has (Some "train") then None else Some "train"

        let groups =
            vectors
            |> List.choose (fun ((_, group, name), _) -> if group <> "" && FeatureTable.isPlain name then Some group else None)
            |> List.distinct

        if not format.Several || not isSplit && groups.Length < 2 then
            [ None, None, table ]
        else
            found
            |> List.filter (fun ((part, _, _), _) -> not isSplit || part.IsSome || unsaid.IsSome)
            |> List.groupBy (fun ((part, group, _), _) ->
                (if isSplit then Option.orElse unsaid part else None),
                (if groups.Length > 1 && List.contains group groups then Some group else None))
            |> List.map (fun ((p, group), columns) -> p, group, part table [ for (_, _, name), c in columns -> name, c ])
            |> List.filter (fun (_, _, t) -> FeatureTable.matrices t > 0)

    /// Words that stand in the place of a modality.
    let private wordFiles = [ "labels"; "ids" ]

    let private joined (words: string list) = String.Join('.', words)

    let private words (what: string) (path: string) (table: Table) : Result<Content, Fault list> =
        match table.Columns with
        | [ column ] when column.Holds.IsWord || column.Holds.IsNumber ->
            table.Words column.Name |> Result.map (fun words -> Words(what, path, words))
        | [ column ] ->
            Error [ Fault.Unreadable(path, $"{what} are texts or numbers, one a row, and it has {Column.words column}") ]
        | _ -> Error [ Fault.Unreadable(path, $"a file of {what} has one column of them") ]

    let private pieces (format: Format) (path: string) : Result<Piece list, Fault list> =
        let before, part = split (fst (StreamDraft.nameOf path))
        let modality, step = List.tryLast before, joined (List.truncate (before.Length - 1) before)

        let one (ofNames, group, table) =
            let holds step result =
                result
                |> Result.map (
                    List.map (fun content ->
                        { Step = step
                          Part = Option.orElse ofNames part
                          Holds = content })
                )

            let ofModality m step =
                if (Modality.create m).IsOk then
                    FeatureTable.select (Some m) table |> Result.map (fun t -> [ Features(m, t) ]) |> holds step
                else
                    Error [ Fault.BadValue($"the modality in the name of '{path}'", Modality.rule, m) ]

            match group, modality with
            | Some group, _ -> ofModality group (joined before)
            | None, Some what when List.contains what wordFiles ->
                words what path table |> Result.map List.singleton |> holds step
            | None, Some m when
                List.contains m Published.order
                || FeatureTable.hasPlainName table
                || FeatureTable.matrices table < 2 && not format.Several
                ->
                ofModality m step
            | _ -> FeatureTable.several table |> Result.map (List.map Features) |> holds (joined before)

        format.Read path |> Result.bind (tablesIn format >> List.map one >> Check.all) |> Result.map List.concat

    /// Every piece of the files of a format in a folder. Where some are for training, validation or the test, those that say no part are no features.
    let read (tell: ImportEvent -> unit) (format: Format) (folder: string) : Result<Piece list, Fault list> =
        let files =
            Directory.EnumerateFiles folder
            // What begins with a point is the system's: `.DS_Store`, `._text.npy`.
            |> Seq.filter (fun path ->
                not (FileInfo(path).Name.StartsWith '.') && List.contains (snd (StreamDraft.nameOf path)) format.Endings)
            |> Seq.sortWith StreamDraft.natural
            |> List.ofSeq

        let order (piece: Piece) = partNames |> List.tryFindIndex (fun (name, _) -> Some name = piece.Part)
        let part path = snd (split (fst (StreamDraft.nameOf path)))
        let isSplit path = part path |> Option.exists ((<>) "classes")
        let chosen = if List.exists isSplit files then List.filter (part >> Option.isSome) files else files
        // Training rows first: theirs is the order of features that have names.
        chosen
        |> List.map (fun path ->
            tell (ImportEvent.Reading path)
            pieces format path)
        |> Check.all
        |> Result.map (List.concat >> List.sortBy order)

    // ---- one step ------------------------------------------------------------------------------------------------

    let private rank (order: string list) (modality: string) =
        (order |> List.tryFindIndex ((=) modality) |> Option.defaultValue Int32.MaxValue), modality

    /// The parts of a table that lie in several files, one behind the other.
    let private tableOf (pieces: Piece list) (modality: string) : Result<FeatureTable option, Fault list> =
        let tables =
            pieces
            |> List.choose (fun p ->
                match p.Holds with
                | Features(m, t) when m = modality -> Some t
                | _ -> None)

        if tables.IsEmpty then Ok None else FeatureTable.concat tables |> Result.map Some

    /// A table with the words that lie in files beside it.
    let private withWords (pieces: Piece list) (table: FeatureTable) : Result<FeatureTable, Fault list> =
        let word what =
            match
                pieces
                |> List.choose (fun p ->
                    match p.Holds with
                    | Words(w, file, words) when w = what -> Some(file, words)
                    | _ -> None)
            with
            | [] -> Ok None
            | several ->
                let file, words = fst several.Head, several |> List.map snd |> Array.concat

                if words.LongLength = table.Rows then
                    Ok(Some(file, words))
                else
                    Error
                        [ Fault.Shape($"'{file}'", $"{table.Rows} {what}, one for each row of '{table.File}'", $"{words.Length}") ]

        validated {
            let! labels = word "labels"
            and! ids = word "ids"

            return
                { table with
                    Labels = table.Labels |> Option.orElse (Option.map snd labels)
                    LabelFile =
                        if table.Labels.IsSome then
                            table.LabelFile
                        else
                            labels |> Option.map fst |> Option.defaultValue table.File
                    Ids = table.Ids |> Option.orElse (Option.map snd ids) }
        }

    /// Every modality's tables with their features in one order: that of the modality's first table in the stream.
    let private aligned (pieces: Piece list) : Result<Piece list, Fault list> =
        let first =
            pieces
            |> List.choose (fun p ->
                match p.Holds with
                | Features(m, t) -> Some(m, t)
                | Words _ -> None)
            |> List.distinctBy fst
            |> Map.ofList

        pieces
        |> List.map (fun piece ->
            match piece.Holds with
            | Features(m, t) -> FeatureTable.like first[m] t |> Result.map (fun t -> { piece with Holds = Features(m, t) })
            | Words _ -> Ok piece)
        |> Check.all

    /// The names of classes: the ids of their table, or the lines of a file beside it, or their numbers.
    let private classNames (path: string) (table: FeatureTable) : Result<string list, Fault list> =
        match Option.orElse table.Labels table.Ids with
        | Some names -> Ok(List.ofArray names)
        | None when Path.Exists path ->
            InputFile.text "the names of classes" path
            |> Result.map (fun text -> text.Split '\n' |> Array.map _.Trim() |> Array.filter ((<>) "") |> List.ofArray)
        | None -> Ok [ for i in 0L .. table.Rows - 1L -> string i ]

    let private twice (names: string list) = names |> List.countBy id |> List.filter (fun (_, n) -> n > 1) |> List.map fst

    /// A step's file of classes: its table, the names of its classes, the modality of its features.
    let private classesOf (step: string) (folder: string) (pieces: Piece list) =
        let given =
            pieces
            |> List.choose (fun p ->
                match p.Part, p.Holds with
                | Some "classes", Features(m, t) -> Some(m, t)
                | _ -> None)

        match given with
        | [] -> Ok None
        | [ modality, table ] ->
            let path = Path.Combine(folder, (if step = "" then "classes.txt" else $"{step}.classes.txt"))

            classNames path table
            |> Result.bind (fun names ->
                if int64 names.Length <> table.Rows then
                    Error
                        [ Fault.Shape($"'{path}'", $"{table.Rows} names, one for each row of '{table.File}'", $"{names.Length}") ]
                elif not (twice names).IsEmpty then
                    Error
                        [ Fault.Contradiction(
                              $"the classes of '{table.File}' are named twice: {StreamDraft.firstTen (twice names)}",
                              "give every class a name of its own"
                          ) ]
                else
                    Ok(Some(table, names, modality)))
        | several ->
            Error
                [ Fault.Contradiction(
                      $"""step '{step}' has {several.Length} files of classes: {String.Join(", ", several |> List.map (fun (_, t) -> t.File))}""",
                      "keep the one whose head classes go through"
                  ) ]

    /// A step's tables, part by part, matched.
    let private matched (options: StepOptions) (step: string) (pieces: Piece list) (a: string, b: string) =
        let parts =
            if pieces |> List.exists _.Part.IsNone then
                [ None ]
            else
                [ Some "train"; Some "validation"; Some "test" ]

        let ofPart part =
            let own = pieces |> List.filter (fun p -> p.Part = part)

            validated {
                let! x = tableOf own a
                and! y = tableOf own b
                return x, y
            }
            |> Result.bind (fun tables ->
                match tables with
                | Some x, Some y ->
                    // Rows that do not match are the first thing to tell.
                    if x.Rows <> y.Rows && x.Ids.IsNone && y.Ids.IsNone then
                        Ok(x, y)
                    else
                        validated {
                            let! x = withWords own x
                            and! y = withWords own y
                            return x, y
                        }
                    |> Result.bind (fun (x, y) -> Matching.make options.DropUnmatched x y |> Result.map (fun m -> Some(x, y, m)))
                | None, None when part = Some "validation" -> Ok None
                | x, y ->
                    let part = Option.defaultValue "" part

                    let name m =
                        joined
                            [ for word in [ step; m; part ] do
                                  if word <> "" then
                                      word ]

                    Error
                        [ for m, table in [ a, x; b, y ] do
                              if table.IsNone then
                                  Fault.Missing(name m, (if step = "" then "the stream" else $"step '{step}'")) ])
            |> Result.map (fun found -> part, found)

        parts
        |> List.map ofPart
        |> Check.all
        |> Result.map (List.choose (fun (part, found) -> found |> Option.map (fun f -> part, f)))

    /// A step whose tables are matched.
    type private MatchedStep =
        { Name: string
          Modalities: string * string
          Classes: (FeatureTable * string list * string) option
          Parts: (string option * (FeatureTable * FeatureTable * Matching)) list }

    /// The tables of a step, matched.
    let private stepOf
        (options: StepOptions)
        (folder: string)
        (given: string)
        (pieces: Piece list)
        : Result<MatchedStep, Fault list> =
        let modalities =
            pieces
            |> List.choose (fun p ->
                match p.Part, p.Holds with
                | Some "classes", _
                | _, Words _ -> None
                | _, Features(m, _) -> Some m)
            |> List.distinct
            |> List.sortBy (rank options.Order)

        match modalities with
        | [ a; b ] ->
            let step = if given = "" then $"{a}–{b}" else given

            validated {
                let! classes = classesOf given folder pieces
                and! parts = matched options given pieces (a, b)
                return classes, parts
            }
            |> Result.map (fun (classes, parts) ->
                { Name = step
                  Modalities = a, b
                  Classes = classes
                  Parts = parts })
        | names ->
            let files =
                pieces
                |> List.choose (fun p ->
                    match p.Holds with
                    | Features(_, table) -> Some $"'{table.File}'"
                    | Words _ -> None)
                |> List.distinct

            let found = if names.IsEmpty then "none" else $"{StreamDraft.firstFew names} (in {StreamDraft.firstFew files})"
            let step = if given = "" then "the files without a step's name" else $"step '{given}'"

            Error
                [ Fault.Contradiction(
                      $"{step}: expected features of two modalities, got {found}",
                      "call files STEP.MODALITY.PART, such as 1-clotho.text.train.npy, or arrays of one file by their modalities"
                  ) ]

    // ---- all steps -----------------------------------------------------------------------------------------------

    /// The pieces, if there is room for their features: a small file can be said to hold more than a disk.
    let private fits (room: int64) (pieces: Piece list) : Result<Piece list, Fault list> =
        let needed =
            pieces
            |> List.sumBy (fun piece ->
                match piece.Holds with
                | Features(_, t) -> float t.Rows * float t.Columns * float (t.Type.ElementSize())
                | Words _ -> 0.0)

        if needed <= float room then
            Ok pieces
        else
            let size (bytes: float) = (bytes / 1e9).ToString("N1", Globalization.CultureInfo.InvariantCulture) + " GB"

            Error
                [ Fault.Contradiction(
                      $"the features take {size needed}, and {size (float room)} are free where the stream is to be",
                      "make room, or choose another place with --out"
                  ) ]

    /// One split over the items of all steps that no file splits, where an item, known by its id, is in several; and what is told of it.
    let private heldOut (options: StepOptions) (steps: MatchedStep list) : Result<HeldOut option * string list, Fault list> =
        let drawn =
            [ for step in steps do
                  match step.Parts with
                  | [ None, (_, _, matching) ] -> step.Name, matching.Ids
                  | _ -> () ]

        let times = drawn |> Seq.choose snd |> Seq.concat |> Seq.countBy id |> Array.ofSeq
        let several = times |> Array.filter (fun (_, n) -> n > 1) |> Array.length

        let unnamed =
            match drawn |> List.filter (snd >> Option.isNone) |> List.map fst with
            | _ :: _ :: _ as names ->
                [ $"{StreamDraft.firstFew names} have no ids: their rows are taken for different items, and the test of one may have what another learns from" ]
            | _ -> []

        if several = 0 then
            Ok(None, unnamed)
        else
            // The share for validation is of what the test leaves.
            let validation = options.Share * (1.0 - options.TestShare)

            ItemSplit.draw options.TestShare validation options.Seed None times.LongLength
            |> Result.map (fun split ->
                let ids (items: int64[]) = HashSet [ for i in items -> fst times[int i] ]

                Some { Test = ids split.Test; Validation = ids split.Validation },
                $"{several} of {times.Length} items are in several steps by their ids: one split over items for all of them"
                :: unnamed)

    /// Faults past this many are counted.
    [<Literal>]
    let private MostFaults = 5

    /// A stream of these pieces, its steps in the natural order of their names. `folder` is where the names of classes may lie.
    let draft (options: StepOptions) (name: string) (folder: string) (pieces: Piece list) : Result<StreamDraft, Fault list> =
        aligned pieces
        |> Result.bind (fits options.Room)
        |> Result.bind (fun pieces ->
            pieces
            |> List.groupBy _.Step
            |> List.sortWith (fun (a, _) (b, _) -> StreamDraft.natural a b)
            |> List.map (fun (step, pieces) -> stepOf options folder step pieces)
            |> Check.all
            |> Result.bind (fun steps ->
                heldOut options steps
                |> Result.bind (fun (held, told) ->
                    steps
                    |> List.mapi (fun i step ->
                        StepDraft.make options held i step.Name step.Modalities step.Classes step.Parts)
                    |> Check.all
                    |> Result.map (fun drafts -> drafts, told)))
            |> Result.mapError (fun faults ->
                if faults.Length <= MostFaults then
                    faults
                else
                    let more = faults.Length - MostFaults
                    List.truncate MostFaults faults @ [ Fault.Unreadable(folder, $"{more} more faults like these") ]))
        |> Result.map (fun (drafts, told) ->
            let draft = StepDraft.join name drafts
            { draft with Notes = draft.Notes @ told })
