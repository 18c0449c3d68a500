namespace Cmcl

open System
open System.Collections.Generic
open System.IO

/// A bank as `cmcl stream` is told of it: its name, and its `.npy` file. What stands before a colon in the name is its modality.
type BankFile = { Name: string; Modality: Modality; Path: string }

/// How a stream is made of banks.
type BankStreamOptions =
    {
        Name: string
        /// Banks of each step by name, the anchor first.
        Steps: (string * string) list
        /// Shares of all items.
        Test: float
        Validation: float
        Seed: Seed
        /// Every step learns from a share of the training items of its own; else each from all of them.
        Disjoint: bool
        /// The family of an item by its id; a family is in one split.
        Families: Map<string, string> option
    }

/// A stream of banks as it will be written, and for each bank the row of every item, in the order of the items.
type BankStreamPlan = { Draft: StreamDraft; Rows: Map<string, int64[]> }

/// Streams made of banks whose rows are items: matched by the ids beside the files, else by place.
[<RequireQualifiedAccess>]
module BankStream =

    // ---- what was asked for --------------------------------------------------------------------------------------

    /// Banks from `NAME=FILE.npy`. Faults: what is no such text; a name twice, or two names of one file name.
    let files (given: string list) : Result<BankFile list, Fault list> =
        let one (text: string) =
            match text.IndexOf '=' with
            | at when at > 0 && at < text.Length - 1 ->
                let name = text.Substring(0, at)
                let parts = name.Split(':', 2)

                parts
                |> List.ofArray
                |> List.map Modality.create
                |> Check.all
                |> Result.mapError (fun _ ->
                    [ Fault.BadValue("the name of a bank", $"a modality, or MODALITY:NAME, each of {Modality.rule}", name) ])
                |> Result.map (fun modalities ->
                    { Name = name
                      Modality = modalities.Head
                      Path = text.Substring(at + 1) })
            | _ -> Error [ Fault.BadValue("--bank", "NAME=FILE.npy, such as vision=photos.npy or vision:clip=photos.npy", text) ]

        given
        |> List.map one
        |> Check.all
        |> Result.bind (fun banks ->
            match
                banks |> List.groupBy (fun bank -> ItemLists.stem bank.Name) |> List.filter (fun (_, same) -> same.Length > 1)
            with
            | [] -> Ok banks
            | (_, one :: other :: _) :: _ when one.Name <> other.Name ->
                Error
                    [ Fault.Contradiction(
                          $"banks '{one.Name}' and '{other.Name}' would have files of the same name",
                          "rename one"
                      ) ]
            | (_, same) :: _ ->
                Error [ Fault.Contradiction($"bank '{same.Head.Name}' is given twice", "give each its own name") ])

    /// The banks of a step from `A-B`; names may have hyphens, too.
    let private step (names: string list) (text: string) : Result<string * string, Fault list> =
        let cuts =
            [ for i, c in Seq.indexed text do
                  if c = '-' then
                      text.Substring(0, i), text.Substring(i + 1) ]

        match cuts |> List.filter (fun (a, b) -> List.contains a names && List.contains b names) with
        | [ found ] -> Ok found
        | _ :: _ -> Error [ Fault.Contradiction($"step '{text}' can be read in two ways", "give its banks names without '-'") ]
        | [] ->
            match cuts with
            | [] -> Error [ Fault.BadValue("--steps", "pairs of banks, A-B, separated by commas", text) ]
            | cuts ->
                // The cut that knows one of its sides, else the first.
                let a, b =
                    cuts
                    |> List.tryFind (fun (a, b) -> List.contains a names || List.contains b names)
                    |> Option.defaultValue cuts.Head

                Error [ for name in List.except names [ a; b ] -> Fault.Unknown($"bank for step '{text}' named", name, names) ]

    /// Steps from `A-B,C-B,…`. Faults: a bank that there is not, a step of one modality, a bank in no step.
    let steps (banks: BankFile list) (text: string) : Result<(string * string) list, Fault list> =
        let names = banks |> List.map _.Name
        let modality name = (banks |> List.find (fun bank -> bank.Name = name)).Modality

        text.Split(',', StringSplitOptions.TrimEntries)
        |> List.ofArray
        |> List.map (step names)
        |> Check.all
        |> Result.bind (fun steps ->
            let faults =
                [ for a, b in steps do
                      if modality a = modality b then
                          Fault.Contradiction(
                              $"step '{a}-{b}' pairs two banks of modality '{modality a}'",
                              "a step takes two different modalities"
                          )
                  for name in
                      names
                      |> List.except
                          [ for a, b in steps do
                                yield! [ a; b ] ] do
                      Fault.Contradiction($"bank '{name}' is in no step of --steps", "add a step with it, or leave it out") ]

            if faults.IsEmpty then Ok steps else Error faults)

    // ---- reading -------------------------------------------------------------------------------------------------

    /// Ids that name a row each.
    let private checkIds (path: string) (ids: string[]) : Result<string[], Fault list> =
        let seen = Dictionary<string, int>()

        let faults =
            [ for i, id in Array.indexed ids do
                  if id = "" then
                      Fault.Unreadable(path, $"line {i + 1} has no id")
                  elif not (seen.TryAdd(id, i + 1)) then
                      Fault.Contradiction(
                          $"'{path}' has the id '{id}' twice, in lines {seen[id]} and {i + 1}",
                          "give every row an id of its own"
                      ) ]

        if faults.IsEmpty then Ok ids else Error(List.truncate 5 faults)

    /// The head of a bank's file, and the ids beside it where there are any.
    let read (bank: BankFile) : Result<FeatureTable, Fault list> =
        NpyTable.ofFile bank.Path
        |> Result.bind (FeatureTable.select None)
        |> Result.bind (fun table ->
            match Ids.beside bank.Path with
            | ids when File.Exists ids ->
                Ids.read ids table.Rows |> Result.bind (checkIds ids) |> Result.map (fun ids -> { table with Ids = Some ids })
            | _ -> Ok table)

    // ---- items ---------------------------------------------------------------------------------------------------

    /// Items by their ids or, matched by place, without; for each bank the row of every item; what is told of it.
    type private Matched =
        { Ids: string[] option
          Rows: int64[] list
          Notes: string list }

    let private byIds (banks: (BankFile * FeatureTable) list) (ids: string[] list) : Result<Matched, Fault list> =
        let places = [ for own in ids -> Dictionary(own |> Seq.mapi (fun i id -> KeyValuePair(id, int64 i))) ]
        let shared = ids.Head |> Array.filter (fun id -> places |> List.forall _.ContainsKey(id))

        if shared.Length = 0 then
            let examples = [ for (bank, _), own in List.zip banks ids -> $"{bank.Name} has '{own[0]}'" ]

            Error
                [ Fault.Contradiction(
                      $"""no id is in all banks: {StreamDraft.firstFew examples}""",
                      "give the same item the same id in every manifest"
                  ) ]
        else
            let left = [ for (bank, table) in banks -> bank.Name, table.Rows - shared.LongLength ] |> List.filter (snd >> (<>) 0L)
            let counts = String.Join(", ", [ for name, count in left -> $"{count} of {name}" ])

            Ok
                { Ids = Some shared
                  Rows = [ for own in places -> shared |> Array.map (fun id -> own[id]) ]
                  Notes =
                    [ $"{shared.Length} items, matched by id"
                      if not left.IsEmpty then
                          $"left out, since not every bank has them: {counts}" ] }

    let private byPlace (banks: (BankFile * FeatureTable) list) : Result<Matched, Fault list> =
        let first, table = banks.Head

        match banks |> List.filter (fun (_, other) -> other.Rows <> table.Rows) with
        | [] ->
            Ok
                { Ids = None
                  Rows = [ for _ in banks -> [| 0L .. table.Rows - 1L |] ]
                  Notes = [ $"{table.Rows} items, matched by place: no bank has ids beside it" ] }
        | others ->
            Error
                [ for bank, other in others ->
                      Fault.Shape(
                          $"rows of bank '{bank.Name}', which has no ids to be matched by",
                          $"{table.Rows}, as '{first.Name}' has",
                          string other.Rows
                      ) ]

    let private matched (banks: (BankFile * FeatureTable) list) : Result<Matched, Fault list> =
        match banks |> List.partition (fun (_, table) -> table.Ids.IsSome) with
        | _, [] -> byIds banks (banks |> List.choose (fun (_, table) -> table.Ids))
        | [], _ -> byPlace banks
        | (named, _) :: _, (other, _) :: _ ->
            Error
                [ Fault.Contradiction(
                      $"bank '{named.Name}' has ids beside it ('{Path.GetFileName(Ids.beside named.Path)}'), and '{other.Name}' has none",
                      $"put '{Path.GetFileName(Ids.beside other.Path)}' beside '{other.Path}', one id a line, or remove all of them to match rows by place"
                  ) ]

    /// The family of every item. Faults: items without ids, items without a family.
    let private familiesOf (families: Map<string, string> option) (ids: string[] option) : Result<string[] option, Fault list> =
        match families, ids with
        | None, _ -> Ok None
        | Some _, None ->
            Error
                [ Fault.Contradiction(
                      "--families names items by their ids, and no bank has ids",
                      "put FILE.ids.txt beside FILE.npy"
                  ) ]
        | Some families, Some ids ->
            match ids |> Array.filter (fun id -> not (families.ContainsKey id)) with
            | [||] -> Ok(Some(ids |> Array.map (fun id -> families[id])))
            | without ->
                Error
                    [ Fault.Contradiction(
                          $"items without a family in --families: {StreamDraft.firstFew without}",
                          "add a line for each"
                      ) ]

    /// The families of items from a table with the columns id and family.
    let families (path: string) : Result<Map<string, string>, Fault list> =
        CsvTable.table path
        |> Result.bind (fun table ->
            match [ "id"; "family" ] |> List.filter (fun name -> table.Columns |> List.forall (fun c -> c.Name <> name)) with
            | [] ->
                validated {
                    let! ids = table.Words "id"
                    and! families = table.Words "family"
                    return ids, families
                }
                |> Result.bind (fun (ids, families) -> checkIds path ids |> Result.map (fun ids -> Map(Array.zip ids families)))
            | missing ->
                Error
                    [ Fault.Unreadable(
                          path,
                          $"""it has no column '{String.Join("' and '", missing)}'; the columns are id,family"""
                      ) ])

    // ---- the draft -----------------------------------------------------------------------------------------------

    let private feed (file: string) (table: FeatureTable) (rows: int64[]) : Feed =
        let places = Array.create (int table.Rows) -1L
        rows |> Array.iteri (fun item row -> places[int row] <- int64 item)

        { File = table.File
          Rows = table.Rows
          Row = FeatureTable.rowName table
          Read = fun act -> FeatureTable.read table (fun first block -> act first [ block ])
          Targets = [ { Matrix = file; Place = fun row -> places[int row] } ] }

    let private count (n: int) (one: string) = if n = 1 then $"1 {one}" else $"{n} {one}s"

    /// What a stream of these banks will be: items that all of them have, in the order of the first; one split over items for all steps.
    /// Faults: ids beside some banks only, no item that all have, rows that do not match, too few items, a step twice.
    let plan (options: BankStreamOptions) (banks: (BankFile * FeatureTable) list) : Result<BankStreamPlan, Fault list> =
        let twice = options.Steps |> List.countBy id |> List.filter (fun (_, n) -> n > 1)

        if not (options.Disjoint || twice.IsEmpty) then
            Error
                [ for (a, b), _ in twice ->
                      Fault.Contradiction(
                          $"--steps has '{a}-{b}' twice",
                          "name it once, or give each its own items with --disjoint"
                      ) ]
        else
            matched banks
            |> Result.bind (fun matched ->
                let items = matched.Rows.Head.LongLength

                familiesOf options.Families matched.Ids
                |> Result.bind (fun families ->
                    ItemSplit.draw options.Test options.Validation options.Seed families items
                    |> Result.bind (fun split ->
                        if options.Disjoint then
                            ItemSplit.deal options.Steps.Length options.Seed split |> Result.map (fun own -> split, Some own)
                        else
                            Ok(split, None))
                    |> Result.map (fun (split, own) -> matched, families, split, own)))
            |> Result.map (fun (matched, families, split, own) ->
                let file (bank: string) = $"features/{ItemLists.stem bank}.npy"

                let familyFile = "rows/families.npy"

                let sets =
                    [ match own with
                      | None -> "train", split.Train
                      | Some own ->
                          for i, items in List.indexed own do
                              $"train-{i + 1}", items
                      "validation", split.Validation
                      "test", split.Test ]
                    |> List.map (fun (name, items) -> name, StreamDraft.rowSet $"rows/{name}.npy" items)

                let stepName i (a, b) =
                    match options.Steps |> List.truncate i |> List.filter ((=) (a, b)) |> List.length with
                    | 0 -> $"{a}-{b}"
                    | n -> $"{a}-{b} ({n + 1})"

                let fewest = own |> Option.map (List.map _.Length >> List.min) |> Option.defaultValue split.Train.Length
                let kept = if options.Families.IsSome then "; families are whole" else ""
                let whose = if own.IsSome then "; each step has its own training items" else ""

                { Rows = Map [ for (bank, _), rows in List.zip banks matched.Rows -> bank.Name, rows ]
                  Draft =
                    { Stream =
                        { Name = options.Name
                          Description =
                            $"Made by cmcl stream of {matched.Notes.Head}; one split over items for all steps{kept}{whose}."
                          Banks =
                            Map
                                [ for bank, _ in banks ->
                                      bank.Name, ({ Modality = bank.Modality; File = file bank.Name }: StreamFile.Source) ]
                          Rows = Map [ for name, (set, _) in sets -> name, set ]
                          Classes = Map.empty
                          Prototypes = Map.empty
                          Steps =
                            [ for i, (a, b) in List.indexed options.Steps ->
                                  { Name = stepName i (a, b)
                                    A = a
                                    B = b
                                    Pairs = None
                                    Train = if own.IsSome then $"train-{i + 1}" else "train"
                                    Validation = "validation"
                                    Test = "test"
                                    Accuracy = None } ]
                          Groups =
                            match families with
                            | None -> Map.empty
                            | Some _ -> Map [ for bank, _ in banks -> bank.Name, StreamFile.Rows.File familyFile ]
                          Heads = None
                          Preset = Advice.preset (int64 fewest) }
                      Matrices =
                        [ for (bank, table), rows in List.zip banks matched.Rows ->
                              { File = file bank.Name
                                Type = table.Type
                                Rows = rows.LongLength
                                Columns = table.Columns } ]
                      Vectors =
                        [ for _, (_, vectors) in sets do
                              yield! vectors
                          match families with
                          | None -> ()
                          | Some names ->
                              let number = names |> Array.distinct |> Array.mapi (fun i name -> name, int64 i) |> Map
                              familyFile, [| for name in names -> number[name] |] ]
                      Feeds = [ for (bank, table), rows in List.zip banks matched.Rows -> feed (file bank.Name) table rows ]
                      Lists = Some Map.empty
                      Notes =
                        [ yield! matched.Notes
                          let train =
                              match own with
                              | None -> $"{split.Train.Length} train"
                              | Some own -> String.Join(" + ", own |> List.map _.Length) + " train"

                          let steps = count options.Steps.Length "step"
                          $"{steps}: {train}, {split.Validation.Length} validation, {split.Test.Length} test items{kept}{whose}" ] } })
