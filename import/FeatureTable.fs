namespace Cmcl

open System
open System.Text.RegularExpressions
open TorchSharp

/// The features of one modality in a file, and what their rows are called.
type FeatureTable =
    {
        /// The file, for what is told of it.
        File: string
        Type: torch.ScalarType
        Rows: int64
        Columns: int64
        /// The columns that features are read from, side by side.
        Chosen: string list
        /// Whether each of those is one feature, and so known by its name.
        Named: bool
        /// The id of every row; none where rows are matched by their order.
        Ids: string[] option
        /// The class of every row, "" for none; none where the file says no classes.
        Labels: string[] option
        /// The file that says them.
        LabelFile: string
        /// How columns were understood.
        Notes: string list
        Numbers: string list -> (int64 -> torch.Tensor -> unit) -> Result<unit, Fault list>
    }

/// What the columns of a table mean: by their names and by what they hold, never by their position.
[<RequireQualifiedAccess>]
module FeatureTable =

    let private idNames =
        [ "id"
          "ids"
          "key"
          "keys"
          "path"
          "paths"
          "file"
          "files"
          "filename"
          "file_name"
          "filenames"
          "image_path"
          "image_id"
          "video_id"
          "audio_id"
          "clip_id"
          "item_id"
          "sample_id"
          "uid"
          "uuid"
          "url" ]

    let private labelNames = [ "label"; "labels"; "class"; "classes"; "target"; "targets" ]

    let private vectorNames = [ "embedding"; "embeddings"; "features"; "feature"; "vector"; "vectors"; "emb"; "embeds"; "x" ]

    /// Names that any matrix has, and NumPy's for one that was given none.
    let private plainNames = vectorNames @ [ "arr_0" ]

    /// The last part of a column's name, which is the same however it is written.
    let private simple (name: string) =
        Regex.Replace(name, @"^.*[/.]", "").Trim().ToLowerInvariant().Replace('-', '_').Replace(' ', '_')

    /// The number of a row, as pandas writes it unless it is told not to.
    let private isIndex (column: Column) = Regex.IsMatch(column.Name.Trim(), @"^(|Unnamed: ?\d+|__index_level_\d+__)$")

    /// The column that has the first of these names which any has.
    let private called (names: string list) (columns: Column list) : Column option =
        names |> List.tryPick (fun name -> columns |> List.tryFind (fun c -> simple c.Name = name))

    /// Whether a name ends as those of ids do: `caption_id`, `file_name`, `ytid`. Names of classes are none.
    let private isLikeId (name: string) =
        Regex.IsMatch(
            simple name,
            @"^((?!class|label|categor|target|model).*_)?(ids?|keys?|paths?|files?|file_?names?|names?|uids?|uuids?|urls?)$|^(yt|img|image|video|audio|clip|item|sample|doc)(ids?)?$|^(vid|fname|stem|basename|index)$"
        )

    let private canName (c: Column) = c.Holds.IsWord || c.Holds.IsNumber

    /// The words of a column, checked as names.
    let private names (table: Table) (column: Column) : Result<string[], Fault list> =
        table.Words column.Name
        |> Result.bind (fun words ->
            match Array.tryFindIndex (Names.isClean >> not) words with
            | Some row ->
                Error
                    [ Fault.Unreadable(
                          table.File,
                          $"row {row} of column '{column.Name}' has a line break or another control character, and is an id or a class"
                      ) ]
            | None -> Ok words)

    /// Ids and classes of a table's rows, with how they were found.
    let private namesOf (table: Table) : Result<Column list * string[] option * string[] option * string list, Fault list> =
        let able = table.Columns |> List.filter canName
        let labels = able |> called labelNames
        let index = able |> List.filter (fun c -> isIndex c && (c.Holds.IsWord || c.Name.Trim() = ""))

        let other = able |> List.except (Option.toList labels @ index)

        /// A column that no name says for certain to hold ids, where each of its words stands once.
        let like () =
            match other |> List.tryFind (fun c -> c.Holds.IsWord && isLikeId c.Name) with
            | None -> Ok None
            | Some column ->
                names table column
                |> Result.map (fun words ->
                    let once = (Array.distinct words).Length = words.Length && not (Array.contains "" words)
                    if once then Some column else None)

        (match called idNames other with
         | Some column -> Ok(Some column)
         | None -> like ())
        |> Result.map (Option.orElseWith (fun () -> List.tryHead index))
        |> Result.bind (fun ids ->
            validated {
                let! ids' =
                    match ids with
                    | None -> Ok None
                    | Some column ->
                        names table column
                        |> Result.bind (fun words ->
                            match Array.tryFindIndex ((=) "") words with
                            | Some row ->
                                Error [ Fault.Unreadable(table.File, $"row {row} has no id (column '{column.Name}')") ]
                            | None -> Ok(Some words))

                and! labels' =
                    match labels with
                    | None -> Ok None
                    | Some column -> names table column |> Result.map Some

                return
                    Option.toList ids @ Option.toList labels,
                    ids',
                    labels',
                    [ yield! table.Notes
                      for column in table.Columns |> List.except able do
                          if List.contains (simple column.Name) (idNames @ labelNames) then
                              $"left out: {Column.words column}"
                      for column in Option.toList ids do
                          if isIndex column then
                              "rows are matched by the nameless column, which pandas writes first"
                          elif column.Name <> "id" then
                              $"ids are column '{column.Name}'"
                      for column in Option.toList labels do
                          $"classes are column '{column.Name}'" ]
            })

    /// The ids of a table's rows, whatever else it has.
    let idsOf (table: Table) : Result<string[] option, Fault list> = namesOf table |> Result.map (fun (_, ids, _, _) -> ids)

    let private make (table: Table) (ids: string[] option) labels notes (chosen: Column list) : Result<FeatureTable, Fault list> =
        let rows = chosen.Head.Rows

        let faults =
            [ if rows = 0L then
                  Fault.Unreadable(table.File, "it holds no rows")
              if rows > int64 Array.MaxLength then
                  Fault.Unreadable(table.File, $"it is said to hold {rows} rows, and {Array.MaxLength} are the most")
              for what, words in [ "ids", ids; "classes", labels ] do
                  match words with
                  | Some words when words.LongLength <> rows ->
                      Fault.Shape($"the {what} of '{table.File}'", $"{rows}, one a row", $"{words.Length}")
                  | _ -> () ]

        if faults.IsEmpty then
            Ok
                { File = table.File
                  Type = Table.common chosen
                  Rows = rows
                  Columns = List.sumBy Column.width chosen
                  Chosen = chosen |> List.map _.Name
                  Named = chosen |> List.forall _.Holds.IsNumber
                  Ids = ids
                  Labels = labels
                  LabelFile = table.File
                  Notes = notes
                  Numbers = table.Numbers }
        else
            Error faults

    let private list (columns: Column list) : string =
        columns |> List.map _.Name |> List.map (fun n -> $"'{n}'") |> StreamDraft.firstFew

    /// Columns of one number each that are features: those that are numbered alike (`f0`, `f1`, …) where any are, else all.
    let private numbered (columns: Column list) : Column list =
        let stem (c: Column) =
            match Regex.Match(c.Name.Trim(), @"^(.*?)\d+$") with
            | m when m.Success -> Some m.Groups[1].Value
            | _ -> None

        match columns |> List.countBy stem |> List.filter (fun (s, n) -> s.IsSome && n > 1) with
        | [] -> columns
        | stems -> columns |> List.filter (fun c -> List.exists (fst >> (=) (stem c)) stems)

    /// The features in a table, of a modality where one is known: a column of vectors by its name or because it is the only one, else columns of
    /// one number each.
    let select (modality: string option) (table: Table) : Result<FeatureTable, Fault list> =
        namesOf table
        |> Result.bind (fun (taken, ids, labels, notes) ->
            let rest = table.Columns |> List.except taken |> List.filter (isIndex >> not)

            let vectors, scalars = List.filter _.Holds.IsVector rest, List.filter _.Holds.IsNumber rest

            let own =
                [ for m in Option.toList modality do
                      m

                      for name in vectorNames do
                          $"{m}_{name}" ]

            let chosen =
                match vectors, called (own @ plainNames) vectors with
                | _, Some column -> Ok [ column ]
                | [ column ], None -> Ok [ column ]
                | [], None when not scalars.IsEmpty -> Ok(numbered scalars)
                | [], None ->
                    let found = table.Columns |> List.map Column.words |> StreamDraft.firstFew
                    Error $"it has no features, which are a matrix or columns of float16, float32 or float64; it has {found}"
                | several, None ->
                    Error $"it has several columns of vectors, {list several}; call one of them 'features', or leave one"

            let unreadable = if ids.IsNone then table.Columns |> List.filter (canName >> not) |> called idNames else None

            match chosen, unreadable with
            | Error reason, _ -> Error [ Fault.Unreadable(table.File, reason) ]
            | _, Some column when not column.Holds.IsVector ->
                Error
                    [ Fault.Contradiction(
                          $"'{table.File}' has ids that cannot be read: {Column.words column}",
                          "write them as texts or integers (NumPy: ids.astype(str)), or leave them out if row i matches row i"
                      ) ]
            | Ok chosen, _ ->
                let left = rest |> List.except chosen

                make
                    table
                    ids
                    labels
                    [ yield! notes
                      if not left.IsEmpty then
                          $"left out: {list left}"
                      match chosen with
                      | first :: _ :: _ when not left.IsEmpty || first.Name.Trim() <> "f0" ->
                          $"features are columns '{first.Name}' to '{(List.last chosen).Name}', {chosen.Length} of them"
                      | _ -> () ]
                    chosen)

    /// The ids that each modality has for itself, `image_ids` and `text_ids`, if every one has: their columns and words, and how they are meant.
    /// None where no two of them have an id in common: then rows are matched by their places.
    let private ownIds (table: Table) (modalities: string list) : Result<(string * string[]) list * string list, Fault list> =
        let able = table.Columns |> List.filter canName
        let own m = able |> called [ for name in [ "ids"; "id"; "keys"; "paths"; "files"; "filenames" ] -> $"{simple m}_{name}" ]
        let columns = modalities |> List.choose own

        if columns.Length < 2 || columns.Length < modalities.Length || (called [ "id"; "ids" ] able).IsSome then
            Ok([], [])
        else
            columns
            |> List.map (fun c -> names table c |> Result.map (fun words -> c.Name, words))
            |> Check.all
            |> Result.map (fun own ->
                let first = snd own.Head |> System.Collections.Generic.HashSet
                let meet = own.Tail |> List.forall (fun (_, words) -> words |> Array.exists first.Contains)
                let listed = list columns

                if meet then
                    own, [ $"ids are columns {listed}" ]
                else
                    [], [ $"columns {listed} have no id in common: rows are matched by their places" ])

    /// The features of several modalities in one file, each a matrix by the name of the modality; their rows have the file's ids and classes.
    let several (table: Table) : Result<(string * FeatureTable) list, Fault list> =
        let modality (c: Column) =
            Regex.Replace(
                Regex.Replace(c.Name, @"^.*[/.]", ""),
                @"_(features?|embeddings?|embeds|emb|vectors?)$",
                "",
                RegexOptions.IgnoreCase
            )

        namesOf table
        |> Result.bind (fun (taken, ids, labels, notes) ->
            let matrices, others = table.Columns |> List.except taken |> List.partition _.Holds.IsVector

            let isModality c = (Modality.create (modality c)).IsOk && not (List.contains (simple c.Name) plainNames)

            match matrices |> List.filter (isModality >> not) with
            | [] when List.length matrices > (matrices |> List.distinctBy modality).Length ->
                Error
                    [ Fault.Contradiction(
                          $"'{table.File}' has several matrices of one name: {list matrices}",
                          "name each as its modality, with its part if it has one, such as train/image"
                      ) ]
            | [] when matrices.IsEmpty ->
                let found = others |> List.map Column.words |> StreamDraft.firstFew
                Error [ Fault.Unreadable(table.File, $"it has no matrix of features for each modality; it has {found}") ]
            | [] ->
                let unused = others |> List.filter (fun c -> not (isIndex c || c.Holds.IsOther))

                ownIds table (matrices |> List.map modality)
                |> Result.bind (fun (own, told) ->
                    let unused = unused |> List.filter (fun c -> not (List.contains c.Name (own |> List.map fst)))

                    let left =
                        [ if not unused.IsEmpty then
                              $"left out: {list unused}" ]

                    matrices
                    |> List.mapi (fun i c ->
                        let ids, notes = if own.IsEmpty then ids, notes else Some(snd own[i]), table.Notes
                        make table ids labels (notes @ told @ left) [ c ] |> Result.map (fun t -> modality c, t))
                    |> Check.all)
            | wrong ->
                Error
                    [ for c in wrong ->
                          Fault.BadValue(
                              $"an array's name in '{table.File}'",
                              $"a modality such as text or audio ({Modality.rule}), or ids or labels",
                              c.Name
                          ) ])

    /// How many matrices of features a table has.
    let matrices (table: Table) : int = table.Columns |> List.filter _.Holds.IsVector |> List.length

    /// Whether a name is one that any matrix has: `features`, `embedding`, `arr_0`.
    let isPlain (name: string) : bool = List.contains (simple name) plainNames

    /// Whether a matrix of a table is called as any matrix is, so that the table has one modality, which the file's name says.
    let hasPlainName (table: Table) : bool = table.Columns |> List.exists (fun c -> c.Holds.IsVector && isPlain c.Name)

    // ---- tables of one modality ----------------------------------------------------------------------------------

    /// What a row is called beside its number.
    let rowName (table: FeatureTable) (row: int64) : string =
        match table.Ids with
        | Some ids when row < ids.LongLength -> ids[int row]
        | _ -> ""

    /// The table's rows, block by block: the first of them, and rows × d, freed after the call.
    let read (table: FeatureTable) (act: int64 -> torch.Tensor -> unit) : Result<unit, Fault list> =
        try
            table.Numbers table.Chosen act
        with Ragged(row, expected, actual) ->
            let name = rowName table row
            let which = if name = "" then $"row {row}" else $"row {row} ('{name}')"

            if expected < 0L then
                Error [ Fault.Unreadable(table.File, $"{which} holds no numbers") ]
            else
                Error [ Fault.Shape($"'{table.File}', {which}", $"d = {expected}, as the rows before have", $"d = {actual}") ]

    /// The table with its features in the order of another's of the same modality, by their names where they have names. Faults: names that one has
    /// and the other has not; another d.
    let like (first: FeatureTable) (table: FeatureTable) : Result<FeatureTable, Fault list> =
        let missing = List.except table.Chosen first.Chosen
        let more = List.except first.Chosen table.Chosen

        if first.Named && table.Named && (not missing.IsEmpty || not more.IsEmpty) then
            Error
                [ for names, whose, other in [ missing, first.File, table.File; more, table.File, first.File ] do
                      if not names.IsEmpty then
                          let names = names |> List.map (fun n -> $"'{n}'") |> StreamDraft.firstFew

                          Fault.Contradiction(
                              $"'{whose}' has features that '{other}' has not: {names}",
                              "features are matched by name, so give both the same columns"
                          ) ]
        elif table.Columns <> first.Columns then
            Error
                [ Fault.Shape(
                      $"'{table.File}'",
                      $"d = {first.Columns}, as '{first.File}' has (a modality has one head)",
                      $"d = {table.Columns}"
                  ) ]
        elif table.Type <> first.Type then
            Error
                [ Fault.BadValue(
                      $"'{table.File}'",
                      $"numbers of type {StreamDraft.typeName first.Type}, as '{first.File}' has",
                      StreamDraft.typeName table.Type
                  ) ]
        elif first.Named && table.Named then
            Ok { table with Chosen = first.Chosen }
        else
            Ok table

    /// Parts of one table, one behind the other.
    let concat (tables: FeatureTable list) : Result<FeatureTable, Fault list> =
        let first = tables.Head

        tables
        |> List.map (like first)
        |> Check.all
        |> Result.bind (fun tables ->
            let joined (pick: FeatureTable -> string[] option) what =
                match tables |> List.choose pick with
                | [] -> Ok None
                | all when all.Length = tables.Length -> Ok(Some(Array.concat all))
                | _ ->
                    Error
                        [ Fault.Contradiction(
                              $"of '{first.File}' and what goes on with it, only some have {what}",
                              "give them to all or to none"
                          ) ]

            let starts = tables |> List.scan (fun sum t -> sum + t.Rows) 0L

            let numbers chosen act =
                List.zip tables (List.take tables.Length starts)
                |> List.fold
                    (fun result (table, start) ->
                        result
                        |> Result.bind (fun () ->
                            read (if table.Named then { table with Chosen = chosen } else table) (fun row block ->
                                act (start + row) block)))
                    (Ok())

            validated {
                let! ids = joined _.Ids "ids"
                and! labels = joined _.Labels "classes"

                return
                    { first with
                        File = if tables.Length = 1 then first.File else $"{first.File} … {(List.last tables).File}"
                        Rows = List.last starts
                        Ids = ids
                        Labels = labels
                        Notes = tables |> List.collect _.Notes |> List.distinct
                        Numbers = numbers }
            })
