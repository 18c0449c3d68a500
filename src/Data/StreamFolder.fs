namespace Cmcl

open System.Collections.Generic
open System.IO
open TorchSharp

/// Reading a stream from a folder of `.npy` files and a stream file (docs/stream-format.md), with every check that can be
/// made before anything is trained.
///
/// All faults are gathered. What a step needs and what is itself at fault (a bank with a NaN, say) is told once, by its
/// owner: to the step it is an `Error []`, an error without words.
[<RequireQualifiedAccess>]
module StreamFolder =

    /// The stream file that a folder is read by.
    [<Literal>]
    let DefaultFile = "stream.json"

    let private checkNames (file: string) (source: StreamFile.Description) : Fault list =
        let repeated = source.Steps |> List.countBy _.Name |> List.filter (fun (_, count) -> count > 1)

        [ if List.isEmpty source.Steps then
              Fault.BadValue($"'steps' of '{file}'", "at least one step", "[]")
          for name, count in repeated do
              Fault.Contradiction($"{count} steps are called '{name}'", "give every step a name of its own") ]

    // ---- steps ---------------------------------------------------------------------------------------------------

    /// The rows of one split, unless there are none or one is outside the bank (its words and rows; `None` where no bank could be read; no
    /// words and the number of pairs where splits number pairs).
    /// Ranges are checked before they are written out, so that a slip of the pen does not ask for all memory.
    let private splitRows
        (step: StreamFile.Step)
        (split: Split)
        (setName: string)
        (numbered: (string * int64) option)
        (set: StreamFile.Rows)
        : Result<int64[], Fault list> =
        let within (whose: string, count: int64) (outside: int64 -> int64 option) (rows: unit -> int64[]) =
            match outside count with
            | Some row ->
                let where =
                    if whose = "" then
                        $"row set '{setName}' ({split} pairs of step '{step.Name}')"
                    else
                        $"row set '{setName}' ({split} rows of step '{step.Name}', {whose})"

                Error [ Fault.RowOutOfRange(where, row, count) ]
            | None -> Ok(rows ())

        match set, numbered with
        | StreamFile.Rows.Range(first, upTo), _ when first = upTo -> Error [ Fault.EmptySplit(step.Name, string split) ]
        | StreamFile.Rows.Listed [||], _ -> Error [ Fault.EmptySplit(step.Name, string split) ]
        | StreamFile.Rows.Range(first, upTo), Some numbered ->
            within numbered (fun count -> if upTo > count then Some(max first count) else None) (fun () ->
                [| first .. upTo - 1L |])
        | StreamFile.Rows.Listed rows, Some numbered ->
            within numbered (fun count -> rows |> Array.tryFind (fun row -> row < 0L || row >= count)) (fun () -> rows)
        | _ -> Error []

    /// Rows of the two banks that match, as pairs: as many of the one as of the other, each there, no pair twice.
    let internal pairs (step: string) (a: Bank) (b: Bank) (ofA: int64[]) (ofB: int64[]) : Result<Pairs, Fault list> =
        let outside (bank: Bank) (rows: int64[]) =
            let count = bank.Features.shape[0]

            [ match rows |> Array.tryFind (fun row -> row < 0L || row >= count) with
              | Some row -> Fault.RowOutOfRange($"the pairs of step '{step}' (bank '{bank.Name}')", row, count)
              | None -> () ]

        let faults =
            [ if ofA.Length <> ofB.Length then
                  Fault.Shape(
                      $"the pairs of step '{step}'",
                      "as many rows of a as of b, one of each a pair",
                      $"{ofA.Length} and {ofB.Length}"
                  )
              yield! outside a ofA
              yield! outside b ofB ]

        let seen = HashSet<struct (int64 * int64)>()

        match faults with
        | [] ->
            match Array.zip ofA ofB |> Array.tryFind (fun (a, b) -> not (seen.Add(struct (a, b)))) with
            | Some(rowA, rowB) ->
                Error
                    [ Fault.Contradiction(
                          $"step '{step}' pairs row {rowA} of bank '{a.Name}' with row {rowB} of bank '{b.Name}' twice",
                          "name every pair once"
                      ) ]
            | None -> Ok(Pairs.create ofA ofB)
        | faults -> Error faults

    /// Whether every item has its pairs in one split: others would be tested on what they were trained on.
    let internal unleaked (step: string) (pairs: Pairs) (splits: (Split * int64[]) list) : Result<unit, Fault list> =
        let first = Dictionary<int64, struct (Split * int64)>()

        let leaks =
            [ for split, numbers in splits do
                  for number in numbers do
                      let item = pairs.Items[int number]

                      match first.TryGetValue item with
                      | true, struct (other, there) when other <> split -> struct (other, there, split, number)
                      | true, _ -> ()
                      | _ -> first[item] <- struct (split, number) ]

        match leaks with
        | [] -> Ok()
        | struct (one, there, other, here) :: _ ->
            let items = leaks |> List.distinctBy (fun struct (_, there, _, _) -> there) |> List.length
            let more = if items = 1 then "" else $" (and {items - 1} more items)"
            let rows pair = $"pair {pair} (rows {pairs.A[int pair]} and {pairs.B[int pair]})"

            Error
                [ Fault.Contradiction(
                      $"step '{step}' has {rows there} among its {one} pairs and {rows here}, which is of the same item, among its {other} pairs{more}",
                      "pairs that share a row of a or of b, directly or through others, belong to one split"
                  ) ]

    let internal disjoint (step: string) (splits: (Split * int64[]) list) : Result<unit, Fault list> =
        let faults =
            [ for i, (one, rows) in List.indexed splits do
                  for other, others in List.skip (i + 1) splits do
                      let shared = HashSet rows
                      shared.IntersectWith others

                      if shared.Count > 0 then
                          let count = if shared.Count = 1 then "" else $", and {shared.Count - 1} more"

                          Fault.Contradiction(
                              $"step '{step}' has row {Seq.min shared}{count} in both its {one} and its {other} rows",
                              "a row belongs to one of them"
                          ) ]

        if List.isEmpty faults then Ok() else Error faults

    /// The modalities of two banks; without pairs, they have as many rows.
    let internal pair (step: string) (paired: bool) (a: Bank) (b: Bank) : Result<Pair, Fault list> =
        validated {
            let! pair =
                Pair.create a.Modality b.Modality
                |> Result.mapError (fun _ ->
                    [ Fault.Contradiction(
                          $"step '{step}' pairs bank '{a.Name}' with bank '{b.Name}', both of modality '{a.Modality}'",
                          "a step takes two different modalities"
                      ) ])

            and! _ =
                if paired || a.Features.shape[0] = b.Features.shape[0] then
                    Ok()
                else
                    Error
                        [ Fault.Shape(
                              $"step '{step}' matches banks '{a.Name}' and '{b.Name}' row by row",
                              "as many rows in both",
                              $"{a.Features.shape[0]} and {b.Features.shape[0]}"
                          ) ]

            return pair
        }

    let private accuracy
        (source: StreamFile.Description)
        (parts: StreamParts.Parts)
        (step: StreamFile.Step)
        (wanted: StreamFile.Accuracy)
        (measured: (Split * int64[]) list)
        (bankRows: string -> int64[] -> int64[])
        : Result<Accuracy option, Fault list> =
        let where = $"the accuracy of step '{step.Name}'"

        let labelled (classes: string) (bank: Bank) (labels: int64[]) =
            let rows = bank.Features.shape[0]

            if int64 labels.Length <> rows then
                Error
                    [ Fault.Shape(
                          $"class set '{classes}' for {where}",
                          $"{rows} labels, one for each row of bank '{bank.Name}'",
                          $"{labels.Length}"
                      ) ]
            else
                measured
                |> List.filter (fun (split, rows) -> bankRows wanted.Items rows |> Array.forall (fun row -> labels[int row] < 0L))
                |> List.map (fun (split, _) ->
                    Fault.Contradiction(
                        $"none of the {split} rows of step '{step.Name}' has a class of class set '{classes}'",
                        "give some a label, or leave the step's accuracy out"
                    ))
                |> function
                    | [] -> Ok()
                    | faults -> Error faults

        validated {
            let! items =
                if wanted.Items = step.A || wanted.Items = step.B then
                    StreamParts.find "bank" wanted.Items parts.Banks
                else
                    Error [ Fault.BadValue($"'items' of {where}", $"'{step.A}' or '{step.B}', the step's banks", wanted.Items) ]

            and! vectors = StreamParts.find $"prototype set for {where} named" wanted.Prototypes parts.Prototypes

            return items, vectors
        }
        |> Result.bind (fun (items, vectors) ->
            let prototypes = source.Prototypes[wanted.Prototypes]

            validated {
                let! labels = StreamParts.find "classes" prototypes.Classes parts.Labels
                let! _ = labelled prototypes.Classes items labels

                return
                    Some
                        { Items = items.Name
                          Modality = prototypes.Vectors.Modality
                          Prototypes = vectors
                          Labels = labels
                          Classes = source.Classes[prototypes.Classes].Names }
            })

    let private step
        (source: StreamFile.Description)
        (parts: StreamParts.Parts)
        (index: int)
        (step: StreamFile.Step)
        : Result<Step, Fault list> =
        let bank name = StreamParts.find $"bank for step '{step.Name}' named" name parts.Banks

        let a, b = bank step.A, bank step.B

        /// A range of the pairs is checked before it is written out.
        let written (bank: Bank) (rows: StreamFile.Rows) =
            match rows with
            | StreamFile.Rows.Range(first, upTo) when first < 0L || upTo < first ->
                Error
                    [ Fault.BadValue($"the pairs of step '{step.Name}'", "a range with 0 ≤ from ≤ to", $"from {first} to {upTo}") ]
            | StreamFile.Rows.Range(first, upTo) when upTo > bank.Features.shape[0] ->
                let rows = bank.Features.shape[0]
                Error [ Fault.RowOutOfRange($"the pairs of step '{step.Name}' (bank '{bank.Name}')", max first rows, rows) ]
            | StreamFile.Rows.Range(first, upTo) -> Ok [| first .. upTo - 1L |]
            | StreamFile.Rows.Listed rows -> Ok rows
            | StreamFile.Rows.File _ -> Error []

        let matches =
            match parts.Pairs[index] with
            | Error faults -> Error faults
            | Ok None -> Ok None
            | Ok(Some(ofA, ofB)) ->
                validated {
                    let! a = a |> Result.mapError (fun _ -> [])
                    and! b = b |> Result.mapError (fun _ -> [])
                    return a, b
                }
                |> Result.bind (fun (a, b) ->
                    validated {
                        let! ofA = written a ofA
                        and! ofB = written b ofB
                        return ofA, ofB
                    }
                    |> Result.bind (fun (ofA, ofB) -> pairs step.Name a b ofA ofB))
                |> Result.map Some

        let numbered =
            match matches with
            | Ok(Some pairs) -> Some("", pairs.A.LongLength)
            | Ok None ->
                Result.toOption a
                |> Option.orElse (Result.toOption b)
                |> Option.map (fun bank -> $"bank '{bank.Name}'", bank.Features.shape[0])
            | Error _ -> None

        let set split name =
            StreamParts.find $"row set for step '{step.Name}' named" name parts.Rows
            |> Result.bind (splitRows step split name numbered)

        validated {
            let! banks =
                validated {
                    let! a = a
                    and! b = b
                    let! pair = pair step.Name step.Pairs.IsSome a b
                    return a, b, pair
                }

            and! matches = matches

            and! rows =
                validated {
                    let! train = set Split.Train step.Train
                    and! validation = set Split.Validation step.Validation
                    and! test = set Split.Test step.Test

                    let! _ = disjoint step.Name [ Split.Train, train; Split.Validation, validation; Split.Test, test ]

                    return train, validation, test
                }

            let (a, b, pair), (train, validation, test) = banks, rows

            let! _ =
                match matches with
                | Some pairs -> unleaked step.Name pairs [ Split.Train, train; Split.Validation, validation; Split.Test, test ]
                | None -> Ok()

            let bankRows (bank: string) (numbers: int64[]) =
                match matches with
                | None -> numbers
                | Some pairs -> numbers |> Array.map (fun i -> (if bank = step.A then pairs.A else pairs.B)[int i])

            let! accuracy =
                match step.Accuracy with
                | Some wanted -> accuracy source parts step wanted [ Split.Validation, validation; Split.Test, test ] bankRows
                | None -> Ok None

            return
                { Index = index + 1
                  Name = step.Name
                  A = a
                  B = b
                  Pair = pair
                  Pairs = matches
                  Train = train
                  Validation = validation
                  Test = test
                  Accuracy = accuracy }
        }

    // ---- the whole -----------------------------------------------------------------------------------------------

    /// Every file that a stream file names.
    let internal files (source: StreamFile.Description) : string list =
        let ofRows =
            function
            | StreamFile.Rows.File file -> [ file ]
            | _ -> []

        [ for bank in Map.values source.Banks do
              bank.File
          for rows in Map.values source.Rows do
              yield! ofRows rows
          for step in source.Steps do
              match step.Pairs with
              | Some(a, b) -> yield! ofRows a @ ofRows b
              | None -> ()
          for classes in Map.values source.Classes do
              yield! ofRows classes.Labels
          for prototypes in Map.values source.Prototypes do
              prototypes.Vectors.File
          for groups in Map.values source.Groups do
              yield! ofRows groups
          match source.Heads with
          | None -> ()
          | Some(StreamFile.Heads.One file) -> file
          | Some(StreamFile.Heads.Each files) -> yield! files.Values ]

    let private build (file: string) (source: StreamFile.Description) : Result<Cmcl.Stream, Fault list> =
        let folder =
            match Path.GetDirectoryName file with
            | null -> "."
            | folder -> folder

        let parts = StreamParts.read folder source
        let steps = source.Steps |> List.mapi (step source parts)

        let faults =
            [ yield! checkNames $"{Path.GetFileName file}" source
              yield! StreamParts.faultsOf parts.Banks
              yield! StreamParts.faultsOf parts.Rows
              yield! StreamParts.faultsOf parts.Labels
              yield! StreamParts.faultsOf parts.Prototypes
              yield! StreamParts.faultsOf parts.Groups
              yield! StreamParts.checkGroups parts
              match parts.Heads with
              | Error faults -> yield! faults
              | Ok _ -> ()
              yield! StreamParts.checkHeads source parts
              for step in steps do
                  match step with
                  | Error faults -> yield! faults
                  | Ok _ -> () ]

        if List.isEmpty faults then
            Ok
                { Name = source.Name
                  Description = source.Description
                  Digest = StreamParts.digest folder file (files source)
                  Banks = parts.Banks |> Map.map (fun _ bank -> Check.get bank)
                  Steps = steps |> List.map Check.get
                  Groups = parts.Groups |> Map.map (fun _ groups -> Check.get groups)
                  Heads = Check.get parts.Heads
                  Preset = source.Preset }
        else
            Error(List.distinct faults)

    /// The tensors of a stream, each once.
    let private tensors (result: Result<Cmcl.Stream, Fault list>) : torch.Tensor seq =
        match result with
        | Error _ -> Seq.empty
        | Ok stream ->
            [ for bank in Map.values stream.Banks do
                  bank.Features
              for step in stream.Steps do
                  match step.Accuracy with
                  | Some accuracy -> accuracy.Prototypes
                  | None -> ()
              match stream.Heads with
              | Some heads -> yield! Heads.tensors heads
              | None -> () ]
            |> Seq.distinctBy _.Handle

    /// Loads a stream from a stream file, or from a folder by its `stream.json`, onto the CPU. The tensors belong to the
    /// caller (or to the caller's scope). The faults are all that could be found: files, shapes, values, names, rows.
    /// Example: `StreamFolder.load "data/emoji"`.
    let load (path: string) : Result<Cmcl.Stream, Fault list> =
        let file = Path.GetFullPath(if Directory.Exists path then Path.Combine(path, DefaultFile) else path)

        StreamFile.read file |> Result.bind (fun source -> Tensors.scopedWith tensors (fun () -> build file source))
