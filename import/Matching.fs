namespace Cmcl

open System
open System.Collections.Generic
open System.Security.Cryptography
open TorchSharp

/// How the rows of two tables match.
type Matching =
    {
        /// Rows of each side that are kept, and where a row of the table goes among them; −1 for one that is left out.
        RowsA: int64
        PlaceA: int64 -> int64
        RowsB: int64
        PlaceB: int64 -> int64
        /// Kept rows that match, where row i does not simply match row i.
        Pairs: struct (int64 * int64)[] option
        /// The id of every item, in the order of their first pairs; none where rows match by place.
        Ids: string[] option
        /// The class of every pair, "" for none; none where nothing says classes.
        Labels: string[] option
        Notes: string list
    }

    /// How many pairs match.
    member m.Count: int64 =
        match m.Pairs with
        | Some pairs -> pairs.LongLength
        | None -> m.RowsA

/// Rows of two modalities that belong together: by their ids, else by their places.
[<RequireQualifiedAccess>]
module Matching =

    /// How often a row may stand in a file, on average, to be one item with several partners. Above it, it is the text of a class.
    let private mostPartners = 25.0

    /// The most pairs that ids may give.
    let private mostPairs = 50_000_000L

    /// The digest of every row, so that equal rows are found without holding them. Rows of zeros equal nothing.
    let private digests (table: FeatureTable) : Result<Guid[], Fault list> =
        let found = Array.zeroCreate<Guid>(int table.Rows)

        FeatureTable.read table (fun first block ->
            use scope = torch.NewDisposeScope()
            let all = block.contiguous ()
            let item = int (all.shape[1] * all.element_size ())

            for i in 0 .. int all.shape[0] - 1 do
                let bytes = all.bytes.Slice(i * item, item)
                let row = int first + i

                found[row] <-
                    if bytes.IndexOfAnyExcept 0uy < 0 then
                        Guid(row, 0s, 0s, Array.zeroCreate 8)
                    else
                        Guid(SHA256.HashData(bytes).AsSpan(0, 16)))
        |> Result.map (fun () -> found)

    /// A row's place among the distinct ones: only the first of equal ones is kept.
    let private firsts (numbers: int64[]) : int64 -> int64 =
        let next = ref 0L

        let places =
            numbers
            |> Array.map (fun n ->
                if n = next.Value then
                    next.Value <- n + 1L
                    n
                else
                    -1L)

        fun row -> places[int row]

    /// The labels of pairs by the labels of their rows, which have to agree.
    let private agree
        (a: FeatureTable)
        (b: FeatureTable)
        (pairs: seq<struct (int64 * int64)>)
        : Result<string[] option, Fault list> =
        let of' (labels: string[] option) (row: int64) =
            match labels with
            | Some labels -> labels[int row]
            | None -> ""

        if a.Labels.IsNone && b.Labels.IsNone then
            Ok None
        else
            let both = [| for struct (i, j) in pairs -> of' a.Labels i, of' b.Labels j |]

            match both |> Array.filter (fun (x, y) -> x <> "" && y <> "" && x <> y) with
            | [||] -> Ok(Some(both |> Array.map (fun (x, y) -> if x = "" then y else x)))
            | differ ->
                let differ = differ |> Seq.map (fun (x, y) -> $"'{x}' and '{y}'") |> StreamDraft.firstFew

                Error
                    [ Fault.Contradiction(
                          $"'{a.File}' and '{b.File}' give rows that match different classes: {differ}",
                          "give them one"
                      ) ]

    // ---- by place ------------------------------------------------------------------------------------------------

    /// The items of one side by equal rows, where most of its rows have equals, and what is told of it.
    let private equals (table: FeatureTable) : Result<int64[] option * string list, Fault list> =
        digests table
        |> Result.map (fun digests ->
            let struct (places, items) = Matches.distinct digests
            let times = Array.zeroCreate<int> places.Length

            for item in items do
                times[int item] <- times[int item] + 1

            let repeated = times |> Array.sumBy (fun n -> if n > 1 then n else 0)

            if 2 * repeated < digests.Length then
                None, []
            else
                let each = float digests.Length / float places.Length
                let each' = each.ToString("0.#", Globalization.CultureInfo.InvariantCulture)

                if each > mostPartners then
                    None,
                    [ $"'{table.File}' has every row {each'} times on average, as texts of classes have: rows are matched one to one, by their places" ]
                else
                    Some items,
                    [ $"'{table.File}' has {places.Length} different rows, {each'} times each on average: equal rows are one item" ])

    let private byPlace (a: FeatureTable) (b: FeatureTable) : Result<Matching, Fault list> =
        if a.Rows <> b.Rows then
            Error
                [ Fault.Shape(
                      $"'{b.File}'",
                      $"{a.Rows} rows, one for each of '{a.File}' (or ids in both, by which they are matched)",
                      $"{b.Rows}"
                  ) ]
        else
            let rows = [| 0L .. a.Rows - 1L |]

            validated {
                let! labels = agree a b (rows |> Seq.map (fun i -> struct (i, i)))
                and! ofA = equals a
                and! ofB = equals b
                return labels, ofA, ofB
            }
            |> Result.map (fun (labels, (ofA, toldA), (ofB, toldB)) ->
                match ofA, ofB with
                | None, None ->
                    { RowsA = a.Rows
                      PlaceA = id
                      RowsB = b.Rows
                      PlaceB = id
                      Pairs = None
                      Ids = None
                      Labels = labels
                      Notes = toldA @ toldB }
                | _ ->
                    let side (numbers: int64[] option) =
                        match numbers with
                        | Some numbers -> numbers, firsts numbers, Array.max numbers + 1L
                        | None -> rows, id, a.Rows

                    let (itemA, placeA, countA), (itemB, placeB, countB) = side ofA, side ofB
                    let kept = Array.zip itemA itemB |> Array.indexed |> Array.distinctBy snd

                    { RowsA = countA
                      PlaceA = placeA
                      RowsB = countB
                      PlaceB = placeB
                      Pairs = Some [| for _, (i, j) in kept -> struct (i, j) |]
                      Ids = None
                      Labels = labels |> Option.map (fun labels -> [| for row, _ in kept -> labels[row] |])
                      Notes = toldA @ toldB })

    // ---- by id ---------------------------------------------------------------------------------------------------

    /// The rows of one side whose ids both have: each row's number among those kept, equal rows of one id being one.
    let private keptOf
        (table: FeatureTable)
        (ids: string[])
        (common: HashSet<string>)
        (repeats: bool)
        : Result<int64[], Fault list> =
        (if repeats then digests table |> Result.map Some else Ok None)
        |> Result.map (fun digests ->
            let seen = Dictionary<struct (string * Guid), int64>()

            ids
            |> Array.mapi (fun row id ->
                if not (common.Contains id) then
                    -1L
                else
                    let digest =
                        match digests with
                        | Some digests -> digests[row]
                        | None -> Guid.Empty

                    match seen.TryGetValue(struct (id, digest)) with
                    | true, n -> n
                    | _ ->
                        let n = int64 seen.Count
                        seen[struct (id, digest)] <- n
                        n))

    let private repeats (ids: string[]) = (HashSet ids).Count < ids.Length

    let private byId
        (drop: bool)
        (a: FeatureTable)
        (idsA: string[])
        (b: FeatureTable)
        (idsB: string[])
        : Result<Matching, Fault list> =
        let inA, inB = HashSet idsA, HashSet idsB
        let common = HashSet inA
        common.IntersectWith inB

        let lonely =
            [ for one, other, ids, others in [ a, b, idsA, inB; b, a, idsB, inA ] do
                  match ids |> Array.filter (others.Contains >> not) |> Array.distinct with
                  | [||] -> ()
                  | ids -> $"'{one.File}' has {ids.Length} ids that '{other.File}' has not: {StreamDraft.firstTen ids}" ]

        if common.Count = 0 then
            Error
                [ Fault.Contradiction(
                      $"'{a.File}' and '{b.File}' have no id in common: the first has '{idsA[0]}', the second '{idsB[0]}'",
                      "give rows that match the same id"
                  ) ]
        elif not lonely.IsEmpty && not drop then
            Error [ for text in lonely -> Fault.Contradiction(text, "add the rows, or leave them out with --drop-unmatched") ]
        else
            let repeatsA, repeatsB = repeats idsA, repeats idsB

            validated {
                let! keptA = keptOf a idsA common repeatsA
                and! keptB = keptOf b idsB common repeatsB
                return keptA, keptB
            }
            |> Result.bind (fun (keptA, keptB) ->
                let rowsBy (ids: string[]) (kept: int64[]) =
                    let by = Dictionary<string, ResizeArray<int64>>()
                    let mutable next = 0L

                    kept
                    |> Array.iteri (fun row n ->
                        if n = next then
                            next <- next + 1L

                            match by.TryGetValue ids[row] with
                            | true, rows -> rows.Add(int64 row)
                            | _ -> by[ids[row]] <- ResizeArray [ int64 row ])

                    by, next

                let (byA, rowsA), (byB, rowsB) = rowsBy idsA keptA, rowsBy idsB keptB
                let order = idsA |> Array.filter common.Contains |> Array.distinct
                let count = order |> Array.sumBy (fun id -> int64 byA[id].Count * int64 byB[id].Count)

                if count > mostPairs then
                    Error
                        [ Fault.Contradiction(
                              $"rows of one id in '{a.File}' and in '{b.File}' make {count} pairs, and {mostPairs} are the most",
                              "give ids to items, not to classes"
                          ) ]
                else
                    let pairs =
                        [| for id in order do
                               for i in byA[id] do
                                   for j in byB[id] -> struct (i, j) |]

                    agree a b pairs
                    |> Result.map (fun labels ->
                        let several = repeatsA || repeatsB
                        let place (kept: int64[]) = if several then firsts kept else fun row -> kept[int row]

                        // Without repeated ids both sides have the order of the first, so that row i matches row i.
                        let inOrder =
                            if several then
                                place keptB
                            else
                                let at = Dictionary<string, int64>()

                                idsA
                                |> Array.iteri (fun row id ->
                                    if keptA[row] >= 0L then
                                        at[id] <- keptA[row])

                                fun row ->
                                    match at.TryGetValue idsB[int row] with
                                    | true, p -> p
                                    | _ -> -1L

                        { RowsA = rowsA
                          PlaceA = place keptA
                          RowsB = rowsB
                          PlaceB = inOrder
                          Pairs =
                            if several then
                                Some [| for struct (i, j) in pairs -> struct (keptA[int i], keptB[int j]) |]
                            else
                                None
                          Ids = Some order
                          Labels = labels
                          Notes =
                            [ for text in lonely do
                                  $"left out: {text}"
                              if several then
                                  $"ids stand more than once: {order.Length} items, {rowsA} rows with {rowsB}, {count} pairs" ] }))

    /// Matches two tables: by ids where both have them, else by place. A repeated id, or by place a repeated row, is one item with several
    /// partners. Faults: ids that only one side has, unless `drop`; no id in common; numbers of rows that differ; classes that differ.
    let make (drop: bool) (a: FeatureTable) (b: FeatureTable) : Result<Matching, Fault list> =
        match a.Ids, b.Ids with
        | Some idsA, Some idsB -> byId drop a idsA b idsB
        | None, None -> byPlace a b
        | one, _ ->
            let has, lacks = if one.IsSome then a, b else b, a

            Error
                [ Fault.Contradiction(
                      $"'{has.File}' has ids and '{lacks.File}' has none (a column 'id')",
                      "give ids to both, or to none if row i matches row i"
                  ) ]
