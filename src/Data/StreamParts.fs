namespace Cmcl

open System
open System.Collections.Generic
open System.IO
open System.Security.Cryptography
open System.Text
open System.Text.Json.Nodes
open TorchSharp

/// The parts that the steps of a stream refer to by name: banks, row sets, labels, prototypes, read from their files.
[<RequireQualifiedAccess>]
module internal StreamParts =

    // ---- files ---------------------------------------------------------------------------------------------------

    /// The full path of a file that must lie in the folder. `owner` is what needs it, in words.
    let private locate (folder: string) (owner: string) (file: string) : Result<string, Fault list> =
        let refused = Error [ Fault.BadValue($"the file of {owner}", "a path inside the stream's folder", file) ]

        if file.Contains '\000' || Path.IsPathRooted file then
            refused
        else
            let full = Path.GetFullPath(Path.Combine(folder, file))

            if Path.GetRelativePath(folder, full).Split('/', '\\')[0] = ".." then
                refused
            else
                InputFile.check owner full |> Result.map (fun () -> full)

    let private readArray (folder: string) (owner: string) (file: string) : Result<torch.Tensor, Fault list> =
        locate folder owner file
        |> Result.bind Npy.map
        |> Result.mapError (
            List.map (function
                | Fault.Unreadable(path, reason) -> Fault.Unreadable(path, $"{reason} ({owner})")
                | fault -> fault)
        )

    let private floats = [ torch.ScalarType.Float16; torch.ScalarType.Float32; torch.ScalarType.Float64 ]

    let private integers = [ torch.ScalarType.Int32; torch.ScalarType.Int64 ]

    let private typeName (t: torch.Tensor) = (string t.dtype).ToLowerInvariant()

    /// A matrix of finite numbers with at least one row and one column.
    let private readMatrix (folder: string) (owner: string) (file: string) : Result<torch.Tensor, Fault list> =
        readArray folder owner file
        |> Result.bind (fun t ->
            if not (List.contains t.dtype floats) then
                Error [ Fault.BadValue(owner, "numbers of type float16, float32 or float64", typeName t) ]
            elif t.dim () <> 2L || t.NumberOfElements = 0L then
                Error [ Fault.Shape($"{owner} ('{file}')", "rows × d, at least one of each", Tensors.shapeText t) ]
            else
                match Tensors.nonFiniteRow t with
                | Some row -> Error [ Fault.NonFinite(owner, row) ]
                | None -> Ok t)

    let private readIntegers (folder: string) (owner: string) (file: string) : Result<int64[], Fault list> =
        readArray folder owner file
        |> Result.bind (fun t ->
            if not (List.contains t.dtype integers) then
                Error [ Fault.BadValue(owner, "numbers of type int32 or int64", typeName t) ]
            elif t.dim () <> 1L then
                Error [ Fault.Shape($"{owner} ('{file}')", "a vector", Tensors.shapeText t) ]
            else
                Ok(t.``to``(torch.int64).data<int64>().ToArray()))

    /// What the stream file says of the data: all but its preset, which says how to train.
    let private ofData (streamFile: string) : byte[] =
        match JsonNode.Parse(File.ReadAllText streamFile) with
        | :? JsonObject as all ->
            all.Remove "preset" |> ignore
            Encoding.UTF8.GetBytes(all.ToJsonString())
        | _ -> File.ReadAllBytes streamFile

    /// Hex SHA-256 over what the stream file says of the data and every file that it names, these in the order of their names, each after
    /// its name and length.
    let digest (folder: string) (streamFile: string) (files: string list) : string =
        use hash = IncrementalHash.CreateHash HashAlgorithmName.SHA256

        let append (name: string) (path: string) =
            use stream = File.OpenRead path
            hash.AppendData(Encoding.UTF8.GetBytes $"{name}\000{stream.Length}\000")
            let buffer = Array.zeroCreate<byte>(1 <<< 16)
            let mutable count = stream.Read buffer

            while count > 0 do
                hash.AppendData(buffer, 0, count)
                count <- stream.Read buffer

        hash.AppendData(ofData streamFile)
        let paths = files |> List.map (fun f -> Path.GetFullPath(Path.Combine(folder, f)))

        let named = [ for path in List.distinct paths -> Path.GetRelativePath(folder, path).Replace('\\', '/'), path ]

        for name, path in List.sortWith (fun a b -> String.CompareOrdinal(fst a, fst b)) named do
            append name path

        Convert.ToHexStringLower(hash.GetHashAndReset())

    // ---- parts ---------------------------------------------------------------------------------------------------

    /// Each part, read or at fault.
    type Parts =
        {
            Banks: Map<string, Result<Bank, Fault list>>
            /// `Listed` or `Range`; files have been read.
            Rows: Map<string, Result<StreamFile.Rows, Fault list>>
            Labels: Map<string, Result<int64[], Fault list>>
            Prototypes: Map<string, Result<torch.Tensor, Fault list>>
            /// By bank; as many as its rows are is checked in `checkGroups`.
            Groups: Map<string, Result<int64[], Fault list>>
            /// Those before any step, where the stream names them.
            Heads: Result<Heads option, Fault list>
            /// Of every step, in order; as `Rows`, but that rows may repeat.
            Pairs: Result<(StreamFile.Rows * StreamFile.Rows) option, Fault list> list
        }

    let find (kind: string) (name: string) (parts: Map<string, Result<'a, Fault list>>) : Result<'a, Fault list> =
        match Map.tryFind name parts with
        | Some(Ok part) -> Ok part
        | Some(Error _) -> Error []
        | None -> Error [ Fault.Unknown(kind, name, List.ofSeq (Map.keys parts)) ]

    let faultsOf (parts: Map<string, Result<'a, Fault list>>) : Fault list =
        [ for part in Map.values parts do
              match part with
              | Error faults -> yield! faults
              | Ok _ -> () ]

    let private readBank (folder: string) (name: string) (source: StreamFile.Source) : Result<Bank, Fault list> =
        readMatrix folder $"bank '{name}'" source.File
        |> Result.map (fun features ->
            { Name = name
              Modality = source.Modality
              Features = features })

    let private listed (folder: string) (owner: string) (source: StreamFile.Rows) : Result<StreamFile.Rows, Fault list> =
        match source with
        | StreamFile.Rows.File file -> readIntegers folder owner file |> Result.map StreamFile.Rows.Listed
        | other -> Ok other

    let private readRows (folder: string) (name: string) (source: StreamFile.Rows) : Result<StreamFile.Rows, Fault list> =
        let owner = $"row set '{name}'"

        listed folder owner source
        |> Result.bind (function
            | StreamFile.Rows.Range(first, upTo) when first < 0L || upTo < first ->
                Error [ Fault.BadValue(owner, "a range with 0 ≤ from ≤ to", $"from {first} to {upTo}") ]
            | StreamFile.Rows.Listed rows as set ->
                let seen = HashSet<int64>()

                match rows |> Array.tryFind (seen.Add >> not) with
                | Some row -> Error [ Fault.Contradiction($"{owner} names row {row} twice", "name every row once") ]
                | None -> Ok set
            | set -> Ok set)

    let private readLabels (folder: string) (name: string) (source: StreamFile.Classes) : Result<int64[], Fault list> =
        let count = int64 source.Names.Length

        let wrong label = label < -1L || label >= count

        listed folder $"class set '{name}'" source.Labels
        |> Result.bind (function
            | StreamFile.Rows.Listed labels ->
                match Array.tryFindIndex wrong labels with
                | Some row ->
                    Error
                        [ Fault.BadValue(
                              $"the label of row {row} of class set '{name}'",
                              $"-1 (no class) to {count - 1L}",
                              string labels[row]
                          ) ]
                | None -> Ok labels
            | _ -> Error [])

    let private readPrototypes
        (folder: string)
        (classes: Map<string, StreamFile.Classes>)
        (name: string)
        (source: StreamFile.Prototypes)
        : Result<torch.Tensor, Fault list> =
        let owner = $"prototype set '{name}'"

        validated {
            let! vectors = readMatrix folder owner source.Vectors.File

            and! classes = classes |> Map.map (fun _ c -> Ok c) |> find $"class set for {owner} named" source.Classes

            return vectors, classes.Names.Length
        }
        |> Result.bind (fun (vectors, count) ->
            if vectors.shape[0] = int64 count then
                Ok vectors
            else
                Error [ Fault.Shape(owner, $"{count} rows, one for each class of '{source.Classes}'", $"{vectors.shape[0]}") ])

    let private readGroups (folder: string) (bank: string) (source: StreamFile.Rows) : Result<int64[], Fault list> =
        listed folder $"the groups of bank '{bank}'" source
        |> Result.bind (function
            | StreamFile.Rows.Listed groups -> Ok groups
            | _ -> Error [])

    /// Refuses heads for other inputs than a stream's features: with a bias, or of a lift.
    let private ofFeatures (what: string) (saved: SavedHeads) : Result<Heads, Fault list> =
        Lift.ofTexts what saved.About
        |> Result.bind (fun lift ->
            match lift, Map.tryFind "bias" saved.About with
            | Some l, _ ->
                Error
                    [ Fault.Contradiction(
                          $"{what} are for features={Lift.show (Some l.Lift)}, and a stream begins with heads for features as they came",
                          "take heads of a run with features=raw; the stream's own get a lift where a run has one"
                      ) ]
            | None, Some "yes" ->
                Error
                    [ Fault.Contradiction(
                          $"{what} have a bias in their last column, and a stream begins with heads without one",
                          "take heads of a method without a bias, or leave that column out"
                      ) ]
            | None, _ -> Ok saved.Heads)

    let private readHeads (folder: string) (source: StreamFile.Heads) : Result<Heads, Fault list> =
        match source with
        | StreamFile.Heads.One file ->
            SavedHeads.unpickled file
            |> Result.bind (fun () ->
                if SavedHeads.wide file then
                    locate folder "'heads'" file
                else
                    let expected = "a .safetensors file, or an object with a .npy file for every modality"
                    Error [ Fault.BadValue("'heads'", expected, file) ])
            |> Result.bind SavedHeads.read
            |> Result.bind (ofFeatures $"the heads in '{file}'")
        | StreamFile.Heads.Each files ->
            [ for KeyValue(m, file) in files ->
                  SavedHeads.unpickled file
                  |> Result.bind (fun () -> readArray folder $"head '{m}'" file)
                  |> Result.map (fun w -> file, m.Name, w) ]
            |> Check.all
            |> Result.bind (SavedHeads.check "'heads'")

    let private readPairs
        (folder: string)
        (step: StreamFile.Step)
        : Result<(StreamFile.Rows * StreamFile.Rows) option, Fault list> =
        match step.Pairs with
        | None -> Ok None
        | Some(a, b) ->
            validated {
                let! a = listed folder $"'a' of the pairs of step '{step.Name}'" a
                and! b = listed folder $"'b' of the pairs of step '{step.Name}'" b
                return Some(a, b)
            }

    let read (folder: string) (source: StreamFile.Description) : Parts =
        { Banks = source.Banks |> Map.map (readBank folder)
          Rows = source.Rows |> Map.map (readRows folder)
          Labels = source.Classes |> Map.map (readLabels folder)
          Prototypes = source.Prototypes |> Map.map (readPrototypes folder source.Classes)
          Groups = source.Groups |> Map.map (readGroups folder)
          Heads =
            match source.Heads with
            | None -> Ok None
            | Some heads -> readHeads folder heads |> Result.map Some
          Pairs = source.Steps |> List.map (readPairs folder) }

    // ---- what the parts owe each other ---------------------------------------------------------------------------

    /// A group for every row of a bank that there is.
    let checkGroups (parts: Parts) : Fault list =
        [ for KeyValue(bank, groups) in parts.Groups do
              match Map.tryFind bank parts.Banks, groups with
              | None, _ -> Fault.Unknown("bank with groups", bank, List.ofSeq parts.Banks.Keys)
              | Some(Ok b), Ok groups when groups.LongLength <> b.Features.shape[0] ->
                  Fault.Shape(
                      $"the groups of bank '{bank}'",
                      $"{b.Features.shape[0]} numbers, one for each row",
                      string groups.LongLength
                  )
              | _ -> () ]

    let private size (bank: Bank) = bank.Features.shape[1]

    /// One head a modality: all its banks have its dimension.
    let checkDimensions (banks: Bank list) : Fault list =
        [ for _, ofModality in banks |> List.groupBy _.Modality do
              let first = ofModality.Head

              for bank in ofModality.Tail do
                  if size bank <> size first then
                      Fault.Contradiction(
                          $"bank '{bank.Name}' has d = {size bank}, but bank '{first.Name}' of the same modality has d = {size first}",
                          "a modality has one head, so give it one d"
                      ) ]

    /// Whether heads are those of the modalities of some banks, one for each, with a column for each feature. Of a bank that could not be
    /// read there is no d_m.
    let private fitting (banks: (string * Modality * int64 option) list) (heads: Heads) : Fault list =
        [ for modality, ofModality in banks |> List.groupBy (fun (_, m, _) -> m) do
              let named = ofModality |> List.tryPick (fun (bank, _, d) -> d |> Option.map (fun d -> bank, d))

              match Map.tryFind modality heads, named with
              | None, _ ->
                  let bank, _, _ = ofModality.Head

                  Fault.Contradiction(
                      $"there is no head for modality '{modality}', which bank '{bank}' is of, and others have one",
                      "give every modality a head, or none"
                  )
              | Some w, Some(bank, d) when w.shape[1] <> d ->
                  Fault.Shape(
                      $"the head of '{modality}' that the stream begins with",
                      $"{d} columns, as bank '{bank}' has, and none for a bias",
                      string w.shape[1]
                  )
              | _ -> ()

          for modality in heads.Keys do
              if banks |> List.forall (fun (_, m, _) -> m <> modality) then
                  Fault.Contradiction(
                      $"there is a head for modality '{modality}', which no bank is of",
                      "leave it out, or name the modality as its banks do"
                  ) ]

    /// Heads that a stream of these banks can begin with. Faults: `Contradiction` for those with a bias or of a lift, for a modality without a
    /// head and a head without a bank; `Shape`.
    let start (banks: Bank list) (saved: SavedHeads) : Result<Heads, Fault list> =
        ofFeatures "these heads" saved
        |> Result.bind (fun heads -> SavedHeads.check "memory" [ for KeyValue(m, w) in heads -> "memory", m.Name, w ])
        |> Result.bind (fun heads ->
            match fitting [ for b in banks -> b.Name, b.Modality, Some(size b) ] heads with
            | [] -> Ok heads
            | faults -> Error faults)

    /// The same of prototypes and of the heads that the stream begins with, too. No labels without prototypes.
    let checkHeads (source: StreamFile.Description) (parts: Parts) : Fault list =
        let banks = Map.values parts.Banks |> Seq.choose Result.toOption |> List.ofSeq
        let ofModality = banks |> List.groupBy _.Modality |> Map.ofList

        [ yield! checkDimensions banks

          match parts.Heads with
          | Ok(Some heads) ->
              let known =
                  [ for KeyValue(name, bank) in source.Banks ->
                        name, bank.Modality, parts.Banks[name] |> Result.toOption |> Option.map size ]

              yield! fitting known heads
          | Ok None
          | Error _ -> ()

          for KeyValue(name, vectors) in parts.Prototypes do
              let modality = source.Prototypes[name].Vectors.Modality

              match vectors, Map.tryFind modality ofModality with
              | Ok vectors, Some banks when banks |> List.forall (fun bank -> size bank <> vectors.shape[1]) ->
                  Fault.Shape(
                      $"prototype set '{name}'",
                      $"d = {size banks.Head}, as the banks of modality '{modality}' have",
                      $"{vectors.shape[1]}"
                  )
              | _ when source.Banks |> Map.forall (fun _ bank -> bank.Modality <> modality) ->
                  Fault.Contradiction(
                      $"prototype set '{name}' is of modality '{modality}', which no bank has",
                      "name the modality of one of the banks"
                  )
              | _ -> ()

          for name in Map.keys source.Classes do
              if source.Prototypes |> Map.forall (fun _ p -> p.Classes <> name) then
                  Fault.Contradiction(
                      $"class set '{name}' has labels but no prototypes",
                      "add a prototype set for it, or leave it out"
                  ) ]
