namespace Cmcl

open System
open System.IO
open System.Security.Cryptography
open System.Text
open TorchSharp

/// Streams of features that are in memory already, with the checks that reading a folder makes. Classes, and so accuracy, take a folder
/// (docs/stream-format.md).
[<RequireQualifiedAccess>]
module InMemory =
    /// A bank of features (n × d) of a modality, by the name that messages and results have for it.
    let bank (name: string) (modality: string) (features: torch.Tensor) : Bank =
        { Name = name
          Modality = Modality.named modality
          Features = features }

    /// Rows of n for training, validation and test, drawn by a seed and each in ascending order: two tenths for the test, one for validation, at
    /// least one of each. Fault: `BadValue` for fewer than 4 rows, as learning takes two. Example: `InMemory.split (Seed.ofInt 0) 100L`.
    let split (seed: Seed) (n: int64) : int64[] * int64[] * int64[] =
        if n < 4L then
            Check.fail (Fault.BadValue("rows to be split", "4 or more", string n))

        use order = Seed.permutation n seed
        let rows = order.data<int64>().ToArray()
        let share tenths = max 1 (int (n * tenths / 10L))
        let test, rest = Array.splitAt (share 2L) rows
        let validation, train = Array.splitAt (share 1L) rest
        Array.sort train, Array.sort validation, Array.sort test

    let private make
        (matches: (int64[] * int64[]) option)
        (a: Bank)
        (b: Bank)
        (train: int64[], validation: int64[], test: int64[])
        : Result<Step, Fault list> =
        let name = $"{a.Name}–{b.Name}"

        let finite (bank: Bank) =
            let x = bank.Features
            let what = $"bank '{bank.Name}'"

            if x.dim () <> 2L || x.NumberOfElements = 0L then
                Error [ Fault.Shape(what, "rows × d, at least one of each", Tensors.shapeText x) ]
            elif not (torch.is_floating_point x) then
                Error [ Fault.BadValue(what, "numbers of type float16, float32 or float64", string x.dtype) ]
            else
                match Tensors.nonFiniteRow x with
                | Some row -> Error [ Fault.NonFinite(what, row) ]
                | None -> Ok()

        let within (n: int64) (split: Split, rows: int64[]) =
            match rows, Array.tryFind (fun row -> row < 0L || row >= n) rows with
            | [||], _ -> Error [ Fault.EmptySplit(name, string split) ]
            | _, Some row -> Error [ Fault.RowOutOfRange($"the {split} rows of step '{name}'", row, n) ]
            | rows, None when (Array.distinct rows).Length < rows.Length ->
                Error [ Fault.Contradiction($"the {split} rows of step '{name}' name a row twice", "name every row once") ]
            | _ -> Ok()

        let splits = [ Split.Train, train; Split.Validation, validation; Split.Test, test ]

        [ a; b ]
        |> List.map finite
        |> Check.all
        |> Result.bind (fun _ ->
            match matches with
            | None -> Ok None
            | Some(ofA, ofB) -> StreamFolder.pairs name a b ofA ofB |> Result.map Some)
        |> Result.bind (fun pairs ->
            let count =
                match pairs with
                | None -> a.Features.shape[0]
                | Some pairs -> pairs.A.LongLength

            validated {
                let! pair = StreamFolder.pair name pairs.IsSome a b
                and! _ = splits |> List.map (within count) |> Check.all
                and! _ = StreamFolder.disjoint name splits

                let! _ =
                    match pairs with
                    | Some pairs -> StreamFolder.unleaked name pairs splits
                    | None -> Ok()

                return
                    { Index = 0
                      Name = name
                      A = a
                      B = b
                      Pair = pair
                      Pairs = pairs
                      Train = train
                      Validation = validation
                      Test = test
                      Accuracy = None }
            })

    /// A step of two banks that are matched row by row, called as they are: `pictures–captions`.
    let step (a: Bank) (b: Bank) (splits: int64[] * int64[] * int64[]) : Result<Step, Fault list> = make None a b splits

    /// A step of two banks whose rows may have several matches, such as five captions a picture: pair i is row ofA[i] of bank a with row ofB[i]
    /// of bank b, and the splits number pairs. Faults, beside those of `step`: a row that is not there, a pair twice, an item with pairs in
    /// two splits.
    let pairs (a: Bank) (b: Bank) (ofA: int64[], ofB: int64[]) (splits: int64[] * int64[] * int64[]) : Result<Step, Fault list> =
        make (Some(ofA, ofB)) a b splits

    /// The same shares as of `split`, of items: pair numbers for training, validation and test, all pairs of an item in one. Fault: `BadValue`
    /// for fewer than 4 items.
    let splitPairs (seed: Seed) (ofA: int64[], ofB: int64[]) : int64[] * int64[] * int64[] =
        let items = (Pairs.create ofA ofB).Items
        let train, validation, test = split seed (if items.Length = 0 then 0L else 1L + Array.max items)

        let pairsOf (chosen: int64[]) =
            let chosen = System.Collections.Generic.HashSet chosen
            [| 0L .. items.LongLength - 1L |] |> Array.filter (fun pair -> chosen.Contains items[int pair])

        pairsOf train, pairsOf validation, pairsOf test

    /// Hex SHA-256 over texts and arrays.
    let private hashed (write: (string -> unit) -> (torch.Tensor -> unit) -> unit) : string =
        use hash = SHA256.Create()
        use into = new CryptoStream(Stream.Null, hash, CryptoStreamMode.Write)

        write (fun words -> into.Write(ReadOnlySpan(Encoding.UTF8.GetBytes(words + "\000")))) (fun array ->
            use numbers = array.contiguous ()
            Npy.writeNumbers into numbers)

        into.FlushFinalBlock()

        match hash.Hash with
        | null -> ""
        | bytes -> Convert.ToHexStringLower bytes

    /// Over names, row numbers and features of the steps in their order.
    let private digest (steps: Step list) : string =
        hashed (fun text array ->
            for step in steps do
                for bank in [ step.A; step.B ] do
                    text $"{bank.Name}\000{bank.Modality}\000{bank.Features.dtype}\000{Tensors.shapeText bank.Features}"
                    array bank.Features

                match step.Pairs with
                | None -> ()
                | Some pairs ->
                    for rows in [ pairs.A; pairs.B ] do
                        text (String.Join(",", rows))

                for rows in [ step.Train; step.Validation; step.Test ] do
                    text (String.Join(",", rows)))

    /// A stream of such steps, in their order, without a preset: options have the library's defaults where none are given. Its tensors stay
    /// the caller's. Faults: all of the steps, no step, a step twice, banks of one modality with different d, different banks of one name.
    let stream (name: string) (steps: Result<Step, Fault list> list) : Result<Cmcl.Stream, Fault list> =
        let ofStream (steps: Step list) =
            let banks =
                [ for s in steps do
                      yield! [ s.A; s.B ] ]

            let faults =
                [ if steps.IsEmpty then
                      Fault.BadValue($"the steps of stream '{name}'", "at least one step", "none")
                  for step, count in List.countBy (fun (s: Step) -> s.Name) steps do
                      if count > 1 then
                          Fault.Contradiction($"{count} steps are called '{step}'", "give every step a bank of its own")
                  for bank, same in List.groupBy (fun (b: Bank) -> b.Name) banks do
                      if same |> List.exists (fun b -> not (obj.ReferenceEquals(b.Features, same.Head.Features))) then
                          Fault.Contradiction($"different banks are called '{bank}'", "give each a name of its own")
                  yield! StreamParts.checkDimensions banks ]

            if faults.IsEmpty then
                Ok
                    { Name = name
                      Description = $"{steps.Length} steps of features in memory."
                      Digest = digest steps
                      Banks = Map [ for b in banks -> b.Name, b ]
                      Steps = steps |> List.mapi (fun i s -> { s with Index = i + 1 })
                      Groups = Map.empty
                      Heads = None
                      Preset = { Common = Map.empty; Methods = Map.empty; Run = [] } }
            else
                Error faults

        Check.all steps |> Result.bind ofStream

    /// Any stream, to begin with heads of one's own: one for every modality of its banks, d × d_m, of any d, the same for all. They stay the
    /// caller's, and are a part of its digest. Faults: those of heads on disk (`SavedHeads.read`), `Contradiction` for heads with a bias or of a
    /// lift, for a modality without a head and a head without a bank, `Shape` for a width that features do not have.
    /// As in `InMemory.withHeads { Heads = heads; About = Map.empty } stream`.
    let withHeads (saved: SavedHeads) (stream: Cmcl.Stream) : Result<Cmcl.Stream, Fault list> =
        StreamParts.start (List.ofSeq stream.Banks.Values) saved
        |> Result.map (fun heads ->
            { stream with
                Heads = Some heads
                Digest =
                    hashed (fun text array ->
                        text stream.Digest

                        for KeyValue(m, w) in heads do
                            text $"{m}\000{w.dtype}\000{Tensors.shapeText w}"
                            array w) })
