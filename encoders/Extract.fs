namespace Cmcl.Encoders

open System
open System.IO
open System.Security.Cryptography
open TorchSharp
open Cmcl

/// What `cmcl extract` was asked for.
type ExtractRequest =
    {
        /// The encoder's description file.
        Encoder: string
        Manifest: string
        /// The `.npy` file.
        Out: string
        /// Items that go through the encoder at once.
        Batch: int
        /// float16 instead of float32.
        Half: bool
        Device: torch.Device
        /// Goes on without items whose file is not there.
        SkipMissing: bool
        /// Goes on without items whose file cannot be read.
        SkipUnreadable: bool
        /// Forgets what an earlier run has done.
        Restart: bool
    }

/// What an extraction tells while it goes on.
[<RequireQualifiedAccess>]
type ExtractProgress =
    /// What is doubtful about the encoder's description.
    | Doubt of string
    /// An item is left out, and why.
    | Skipped of Fault
    /// So many texts of a batch were longer than the encoder takes and were cut.
    | Shortened of texts: int
    /// Items that are dealt with, of all; the first time, what an earlier run did.
    | Done of items: int * all: int

[<RequireQualifiedAccess>]
module Extract =
    let private hash (text: string) : string =
        Convert.ToHexStringLower(SHA256.HashData(Text.Encoding.UTF8.GetBytes text).AsSpan(0, 8))

    /// What decides the numbers of a row beside its source: the description, the files that it names, the type.
    let private key (request: ExtractRequest) (d: Description) : string =
        let digest (path: string) =
            use stream = File.OpenRead path
            Convert.ToHexStringLower(SHA256.HashData stream)

        hash (String.Join('\n', [ for path in request.Encoder :: d.Files -> digest path ] @ [ string request.Half ]))

    /// An item ready for torch: what is slow, and no tensor, is done side by side.
    [<RequireQualifiedAccess>]
    type private Ready =
        | Pixels of Pixels
        | Recording of Recording
        | Tokens of Tokens

    /// What reads items, and the number that texts are padded with.
    type private Reader = { Read: Item -> Result<Ready, Fault list>; Pad: int }

    let private readerOf (d: Description) : Result<Reader, Fault list> =
        let reader pad read =
            { Read = fun item -> Manifest.checkSum item |> Result.bind (fun () -> read item)
              Pad = pad }

        match d.Input with
        | Input.Image image -> Ok(reader 0 (fun item -> Images.read image item.Source |> Result.map Ready.Pixels))
        | Input.Audio sound ->
            Sound.check d sound
            |> Result.map (fun () ->
                reader 0 (fun item -> Recordings.read (Sound.seconds sound) item.Source |> Result.map Ready.Recording))
        | Input.Text text ->
            Texts.reader text
            |> Result.map (fun texts ->
                { Read = (fun item -> Ok(Ready.Tokens(texts.Read item.Source)))
                  Pad = texts.Pad })

    /// An item ready for the encoder: its rows, several for windows of a recording, and which share of each is its own; a text waits for its
    /// batch.
    [<RequireQualifiedAccess>]
    type private Prepared =
        | Rows of torch.Tensor * share: float
        | Text of Tokens

    /// One item as tensors; those belong to the caller's scope.
    let private prepare (d: Description) (encoder: Encoder) (item: Item) (ready: Ready) : Result<Prepared, Fault list> =
        match ready, d.Input with
        | Ready.Pixels pixels, Input.Image image ->
            let x = (Images.prepare image pixels).unsqueeze 0L

            let x =
                match encoder.Before with
                | Some before -> before x
                | None -> x

            Ok(Prepared.Rows(x, 1.0))
        | Ready.Recording recording, Input.Audio sound ->
            Sound.prepare encoder.Before sound recording
            |> Result.map Prepared.Rows
            |> Result.mapError (List.map (fun fault -> Fault.At($"'{item.Source}'", fault)))
        | Ready.Tokens tokens, _ -> Ok(Prepared.Text tokens)
        | _ -> invalidOp "an item of another kind than the encoder's"

    let private textsTogether (text: TextInput) (encoder: Encoder) (pad: int) (tokens: Tokens list) : EncoderInput =
        let longest = text.Longest |> Option.defaultValue (text.Mask.IsSome && encoder.AnyLength)
        let length = if longest then tokens |> List.map _.Ids.Length |> List.max else text.Context
        let ids, mask = Texts.together pad length tokens

        { Main = ids
          Mask = Some mask
          Shares = [ for _ in tokens -> 1.0 ] }

    /// The means over equal parts of windows (k × d), side by side. A part of fewer windows than parts has the nearest.
    let private byParts (parts: int) (windows: torch.Tensor) : torch.Tensor =
        let k = int windows.shape[0]

        let mean part =
            let first = min (k - 1) (k * part / parts)
            let last = max (first + 1) (k * (part + 1) / parts)
            windows.narrow(0L, int64 first, int64 (last - first)).mean [| 0L |]

        torch.cat [| for part in 0 .. parts - 1 -> mean part |]

    /// Features of items with rows of their own: all rows at once where they have the same sides, else item by item; windows by their means over
    /// parts.
    let private ofRows (parts: int option) (encoder: Encoder) (items: (torch.Tensor * float) list) : torch.Tensor =
        let run (items: (torch.Tensor * float) list) =
            let counts = [ for rows, _ in items -> rows.shape[0] ]

            let features =
                encoder.Run
                    { Main = torch.cat [| for rows, _ in items -> rows |]
                      Mask = None
                      Shares =
                        [ for rows, share in items do
                              for _ in 1L .. rows.shape[0] -> share ] }

            match parts with
            | None -> features
            | Some parts -> torch.stack [ for windows in features.split (Array.ofList counts, 0L) -> byParts parts windows ]

        match items |> List.distinctBy (fun (rows, _) -> List.ofArray (Array.tail rows.shape)) with
        | [ _ ] -> run items
        | _ -> torch.cat [| for item in items -> run [ item ] |]

    /// Refuses features of another width than the description promises.
    let private wide (d: Description) (features: torch.Tensor) : torch.Tensor =
        match d.Columns with
        | Some columns when features.shape[1] <> int64 columns ->
            Check.fail (
                Fault.Shape(
                    $"the features of '{d.Name}'",
                    $"{columns} columns, as its description says",
                    string features.shape[1]
                )
            )
        | _ -> features

    let private features (d: Description) (encoder: Encoder) (pad: int) (prepared: Prepared list) : torch.Tensor =
        match d.Input with
        | Input.Text text ->
            prepared
            |> List.choose (function
                | Prepared.Text tokens -> Some tokens
                | Prepared.Rows _ -> None)
            |> textsTogether text encoder pad
            |> encoder.Run
        | input ->
            let parts =
                match input with
                | Input.Audio { Windows = Some windows } -> Some windows.Parts
                | _ -> None

            prepared
            |> List.choose (function
                | Prepared.Rows(rows, share) -> Some(rows, share)
                | Prepared.Text _ -> None)
            |> ofRows parts encoder

    let private requireFinite (request: ExtractRequest) (items: Item list) (features: torch.Tensor) (typed: torch.Tensor) =
        let place (row: int64) =
            let item = items[int row]
            $"the encoder's output for '{item.Id}' (line {item.Line} of '{request.Manifest}')"

        match Tensors.nonFiniteRow features, Tensors.nonFiniteRow typed with
        | Some row, _ -> Check.fail (Fault.NonFinite(place row, row))
        | None, Some row -> Check.fail (Fault.Contradiction($"{place row} has numbers beyond float16", "use --dtype float32"))
        | None, None -> ()

    /// Features of one batch of items, and those of them that could be read.
    let private encode
        (request: ExtractRequest)
        (d: Description)
        (encoder: Encoder)
        (reader: Reader)
        (tell: ExtractProgress -> unit)
        (items: Item list)
        : Result<Item list * torch.Tensor option, Fault list> =
        use scope = torch.NewDisposeScope()
        let read = items |> Array.ofList |> Array.Parallel.map reader.Read |> List.ofArray
        let ready = List.zip items read |> List.map (fun (item, read) -> Result.bind (prepare d encoder item) read)

        let faults =
            ready
            |> List.collect (function
                | Error faults -> faults
                | Ok _ -> [])

        let kept =
            [ for item, result in List.zip items ready do
                  match result with
                  | Ok prepared -> item, prepared
                  | Error _ -> () ]

        if not (faults.IsEmpty || request.SkipUnreadable) then
            Error faults
        else
            for fault in faults do
                tell (ExtractProgress.Skipped fault)

            if kept.IsEmpty then
                Ok([], None)
            else
                let kept, prepared = List.unzip kept

                let cut =
                    prepared
                    |> List.filter (function
                        | Prepared.Text tokens -> tokens.Cut
                        | Prepared.Rows _ -> false)

                if not cut.IsEmpty then
                    tell (ExtractProgress.Shortened cut.Length)

                let features = features d encoder reader.Pad prepared |> wide d
                let typed = if request.Half then features.``to`` torch.float16 else features
                requireFinite request kept features typed
                Ok(kept, Some(scope.MoveToOuter typed))

    /// The items behind the last one that is on disk. Fault: `Contradiction` where what is on disk is no beginning of the manifest.
    let private left
        (request: ExtractRequest)
        (written: (string * string) list)
        (items: Item list)
        : Result<Item list, Fault list> =
        let rec after (written: (string * string) list) (items: Item list) =
            match written, items with
            | [], rest -> Ok rest
            | (_, id) :: _, [] -> Error id
            | (digest, id) :: others, item :: rest when id = item.Id ->
                if digest = hash item.Source then after others rest else Error id
            // Left out the time before.
            | _, _ :: rest -> after written rest

        after written items
        |> Result.mapError (fun id ->
            [ Fault.Contradiction(
                  $"'{Bank.partFolder request.Out}' has a row '{id}' that '{request.Manifest}' does not have there, or from another source",
                  "go on with the manifest it was begun with, or begin anew with --restart"
              ) ])

    let private batches
        (request: ExtractRequest)
        (d: Description)
        (encoder: Encoder)
        (reader: Reader)
        (tell: ExtractProgress -> unit)
        (bank: PartialBank)
        (all: int)
        (items: Item list)
        : Result<unit, Fault list> =
        let mutable result = Ok()
        let mutable dealt = all - items.Length
        tell (ExtractProgress.Done(dealt, all))

        use batch = (Seq.chunkBySize request.Batch items).GetEnumerator()

        while result.IsOk && batch.MoveNext() do
            let items = List.ofArray batch.Current
            use scope = torch.NewDisposeScope()

            result <-
                encode request d encoder reader tell items
                |> Result.bind (fun (kept, features) ->
                    match features with
                    | Some features -> Bank.append bank [ for item in kept -> hash item.Source, item.Id ] features
                    | None -> Ok())

            dealt <- dealt + items.Length

            if result.IsOk then
                tell (ExtractProgress.Done(dealt, all))

        result

    /// The items to be encoded. Those whose file is not there are all told at once, before anything else is done.
    let private itemsOf
        (request: ExtractRequest)
        (d: Description)
        (tell: ExtractProgress -> unit)
        : Result<Item list, Fault list> =
        Manifest.read d.Input request.Manifest
        |> Result.bind (fun items ->
            let missing =
                match d.Input with
                | Input.Text _ -> []
                | _ -> Manifest.missing request.Manifest items

            match missing with
            | [] -> Ok items
            | missing when request.SkipMissing && missing.Length < items.Length ->
                for _, fault in missing do
                    tell (ExtractProgress.Skipped fault)

                let gone = set [ for item, _ in missing -> item.Id ]
                Ok(items |> List.filter (fun item -> not (gone.Contains item.Id)))
            | missing -> Error(List.map snd missing))

    let private bankItem (input: Input) (item: Item) : BankItem =
        match input with
        | Input.Text _ -> { Id = item.Id; Path = None; Text = Some item.Source }
        | _ -> { Id = item.Id; Path = Some item.Source; Text = None }

    /// Runs an encoder over a manifest and writes the bank; rows go to disk batch by batch, and the same request again goes on where
    /// the last one stopped. What comes out is the shape of the bank. Faults: every mistake in the description, the manifest, the files
    /// and the model, told with the file and the line.
    let run (tell: ExtractProgress -> unit) (request: ExtractRequest) : Result<int64[], Fault list> =
        try
            Fetch.resolve request.Encoder
            |> Result.bind (fun path ->
                let request = { request with Encoder = path }
                DescriptionFile.read path |> Result.map (fun d -> request, d))
            |> Result.bind (fun (request, d) ->
                itemsOf request d tell
                |> Result.bind (fun items ->
                    readerOf d
                    |> Result.bind (fun reader ->
                        Encoder.load d (torch.get_num_threads ()) request.Device
                        |> Result.bind (fun encoder ->
                            use _ = encoder

                            for warning in encoder.Warnings do
                                tell (ExtractProgress.Doubt warning)

                            let dtype = if request.Half then torch.ScalarType.Float16 else torch.ScalarType.Float32

                            Files.makeFolderOf request.Out
                            |> Result.bind (fun () -> Bank.openOrResume request.Restart (key request d) dtype request.Out)
                            |> Result.bind (fun bank ->
                                use bank = bank
                                let byId = dict [ for item in items -> item.Id, item ]

                                left request bank.Written items
                                |> Result.bind (batches request d encoder reader tell bank items.Length)
                                |> Result.bind (fun () ->
                                    if bank.Written.IsEmpty then
                                        Error [ Fault.Unreadable(request.Manifest, "none of its items could be read") ]
                                    else
                                        Bank.finish bank (fun id -> bankItem d.Input byId[id]) (fun id -> byId[id].Label)
                                        |> Result.bind (fun shape ->
                                            About.write request.Out request.Manifest d shape items.Length
                                            |> Result.map (fun () -> shape))))))))
        with
        | CmclException fault -> Error [ fault ]
        | :? IOException
        | :? UnauthorizedAccessException as e -> Error [ Fault.Unreadable(request.Manifest, e.Message) ]
