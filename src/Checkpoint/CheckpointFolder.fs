namespace Cmcl

open System
open System.Collections.Generic
open System.Globalization
open System.IO
open System.Runtime.CompilerServices
open System.Security.Cryptography
open System.Text.Json
open TorchSharp

/// Where a tensor of a checkpoint lies: the file and its name there, and whether it lives on the CPU wherever the run is.
type private Location = { Part: string; Name: string; OnCpu: bool }

/// The checkpoints of one run, in a folder of their own (docs/checkpoints.md): `NUMBER.json`, each whole, and the parts with tensors that they
/// name, `SHA256.safetensors`. What has not changed since the last one is not written again. A file has its name only when all of it is
/// on the disk.
type CheckpointFolder private (folder: string, identity: string, device: torch.Device, keep: int) =
    static let format = "cmcl-checkpoint/2"
    static let extension = ".safetensors"

    let written = ConditionalWeakTable<torch.Tensor, Location>()
    let mutable parts: Map<int64, Set<string>> = Map.empty

    let path (name: string) = Path.Combine(folder, name)
    let file (number: int64) = path (number.ToString("D8", CultureInfo.InvariantCulture) + ".json")

    let numberOf (file: string) : int64 option =
        match Int64.TryParse(string (Path.GetFileNameWithoutExtension file), NumberStyles.None, CultureInfo.InvariantCulture) with
        | true, number -> Some number
        | _ -> None

    /// The newest first.
    let numbers () : int64 list =
        if Directory.Exists folder then
            Directory.GetFiles(folder, "*.json") |> List.ofArray |> List.choose numberOf |> List.sortDescending
        else
            []

    // ---- writing -------------------------------------------------------------------------------------------------

    /// The tensors in one part, each once; where each lies.
    let writePart (tensors: torch.Tensor list) : Result<(torch.Tensor * Location) list, Fault list> =
        let seen = HashSet<torch.Tensor>(HashIdentity.Reference)
        let tensors = List.filter seen.Add tensors

        if tensors.IsEmpty then
            Ok []
        else
            let named = tensors |> List.mapi (fun i t -> string i, t)

            Files.writeByContent folder extension (Safetensors.toStream { Tensors = Map named; Metadata = Map.empty })
            |> Result.map (fun part ->
                [ for name, t in named ->
                      t,
                      { Part = part
                        Name = name
                        OnCpu = t.device_type = DeviceType.CPU } ])

    let body (checkpoint: Checkpoint) (places: (string * Location) list) (json: Utf8JsonWriter) : unit =
        json.WritePropertyName "identity"
        json.WriteRawValue identity
        CheckpointText.write json checkpoint
        json.WriteStartObject "tensors"

        for name, place in places do
            json.WriteStartArray name
            json.WriteStringValue place.Part
            json.WriteStringValue place.Name
            json.WriteStringValue(if place.OnCpu then "cpu" else "device")
            json.WriteEndArray()

        json.WriteEndObject()

    let forgetOld () : unit =
        let kept, old = numbers () |> List.indexed |> List.partition (fun (i, _) -> i < keep)

        for _, number in old do
            File.Delete(file number)
            parts <- Map.remove number parts

        Files.deleteHalves folder |> ignore

        // A part of a checkpoint that this process has not written and could not read stays.
        if kept |> List.forall (fun (_, number) -> parts.ContainsKey number) then
            let named = Set.unionMany parts.Values

            for part in Directory.EnumerateFiles(folder, "*" + extension) do
                if not (named.Contains(string (Path.GetFileName part))) then
                    File.Delete part

    // ---- reading -------------------------------------------------------------------------------------------------

    let places (body: JsonElement) : Map<string, Location> =
        Map
            [ for p in (body.GetProperty "tensors").EnumerateObject() ->
                  p.Name,
                  { Part = string (p.Value[0].GetString())
                    Name = string (p.Value[1].GetString())
                    OnCpu = p.Value[2].GetString() = "cpu" } ]

    let readPart (part: string) : Map<string, torch.Tensor> =
        if string (Path.GetFileName part) <> part || not (part.EndsWith extension) then
            refuse $"it names the file '{part}'"

        if not (File.Exists(path part)) then
            refuse $"its part {part} is not there"

        use stream = File.OpenRead(path part)

        if Convert.ToHexStringLower(SHA256.HashData stream) + extension <> part then
            refuse $"the checksum of its part {part} does not hold"

        stream.Dispose()

        match Safetensors.read (path part) with
        | Ok content -> content.Tensors
        | Error faults -> refuse $"its part {part}: {faults.Head.Message}"

    /// A checkpoint of this identity, its tensors in the caller's scope.
    let load (number: int64) : Checkpoint =
        use document = ChecksummedJson.read format (file number)
        let body = document.RootElement.GetProperty "body"

        if (body.GetProperty "identity").GetRawText() <> identity then
            refuse "it is of another run"

        let places = places body
        use scope = torch.NewDisposeScope()
        let read = Dictionary<string, Map<string, torch.Tensor>>()
        let made = Dictionary<struct (string * string), torch.Tensor>()

        let tensor (name: string) : torch.Tensor =
            match Map.tryFind name places with
            | None -> refuse $"it has no tensor '{name}'"
            | Some place ->
                let key = struct (place.Part, place.Name)

                if not (made.ContainsKey key) then
                    if not (read.ContainsKey place.Part) then
                        read[place.Part] <- readPart place.Part

                    match Map.tryFind place.Name read[place.Part] with
                    | None -> refuse $"its part {place.Part} has no tensor '{place.Name}'"
                    | Some t ->
                        let t = if place.OnCpu then t else t.``to`` device
                        made[key] <- scope.MoveToOuter t
                        written.AddOrUpdate(t, place)

                made[key]

        let checkpoint = CheckpointText.read tensor body
        parts <- Map.add number (set [ for p in places.Values -> p.Part ]) parts
        checkpoint

    let tryLoad (number: int64) : Result<Checkpoint, Fault list> =
        let unreadable (reason: string) = Error [ Fault.Unreadable(file number, reason) ]

        try
            Ok(load number)
        with
        | :? JsonException -> unreadable "it is not valid JSON, so it was cut short or changed"
        | :? InvalidDataException
        | :? InvalidOperationException
        | :? KeyNotFoundException
        | :? FormatException
        | :? ArgumentException
        | :? IndexOutOfRangeException
        | :? IOException
        | :? UnauthorizedAccessException as e -> unreadable e.Message

    let write (checkpoint: Checkpoint) : Result<unit, Fault list> =
        use scope = torch.NewDisposeScope()
        let still, moving = CheckpointText.still checkpoint, CheckpointText.moving checkpoint

        let named = Set.unionMany parts.Values

        let fresh =
            [ for _, t in still do
                  match written.TryGetValue t with
                  | true, place when named.Contains place.Part -> ()
                  | _ -> t ]

        Files.makeFolderOf (path "part")
        |> Result.bind (fun () -> writePart fresh)
        |> Result.bind (fun placed ->
            for t, place in placed do
                written.AddOrUpdate(t, place)

            writePart (List.map snd moving))
        |> Result.bind (fun placed ->
            let moved = Dictionary(HashIdentity.Reference)

            for t, place in placed do
                moved[t] <- place

            let places =
                [ for name, t in still -> name, snd (written.TryGetValue t)
                  for name, t in moving -> name, moved[t] ]

            let number = (numbers () |> List.tryHead |> Option.defaultValue 0L) + 1L
            let whole = ChecksummedJson.bytes format (body checkpoint places)

            Files.writeDurably (file number) (fun stream -> stream.Write(ReadOnlySpan whole))
            |> Result.map (fun () ->
                parts <- Map.add number (set [ for _, place in places -> place.Part ]) parts
                forgetOld ()))

    /// Writes a checkpoint; the older ones beyond those to keep go when it is there, and what killed processes left half written. Its tensors
    /// may change afterwards. Fault: `Unwritable`; the checkpoints before are then as they were.
    member _.Write(checkpoint: Checkpoint) : Result<unit, Fault list> =
        Files.writing folder (fun () -> write checkpoint) |> Result.bind id

    /// The last checkpoint that can be read, its tensors in the caller's scope, and why those after it could not be; none where there is none
    /// that can be read: that costs time, and no result.
    member _.Latest() : Checkpoint option * Fault list =
        let rec first (numbers: int64 list) faults =
            match numbers with
            | [] -> None, faults
            | number :: rest ->
                match tryLoad number with
                | Ok checkpoint -> Some checkpoint, faults
                | Error more -> first rest (faults @ more)

        match Files.reading folder numbers with
        | Ok numbers -> first numbers []
        | Error faults -> None, faults

    /// The checkpoints of the run that an identity (`Identity.of'`) is of, in a folder of its own below the given one. So many are kept.
    static member Of(folder: string, identity: string, device: torch.Device, keep: int) : CheckpointFolder =
        CheckpointFolder(Path.Combine(folder, Identity.hash identity), identity, device, max 1 keep)

    /// Deletes the checkpoints in the folder of a run, and it if nothing else is in it; files of other names stay. Fault: `Unwritable`.
    static member Forget(folder: string) : Result<unit, Fault list> =
        Files.writing folder (fun () ->
            if Directory.Exists folder then
                for file in Directory.GetFiles folder do
                    if Ours.isOfCheckpoints (string (Path.GetFileName file)) then
                        File.Delete file

                if Seq.isEmpty (Directory.EnumerateFileSystemEntries folder) then
                    Directory.Delete folder)
