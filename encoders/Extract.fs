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
    /// An item is left out, and why.
    | Skipped of Fault
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

    let private readerOf (d: Description) : Result<Item -> Result<Ready, Fault list>, Fault list> =
        match d.Input with
        | Input.Image _ -> Ok(fun item -> Images.read item.Source |> Result.map Ready.Pixels)
        | Input.Audio sound ->
            Sound.check sound
            |> Result.map (fun () item -> Wave.read (sound.Seconds + 1.0) item.Source |> Result.map Ready.Recording)
        | Input.Text text -> Texts.tokenizer text |> Result.map (fun tokens item -> Ok(Ready.Tokens(tokens item.Source)))

    /// One item as tensors; those belong to the caller's scope.
    let private prepare (d: Description) (ready: Ready) : Result<torch.Tensor * torch.Tensor option, Fault list> =
        match ready, d.Input with
        | Ready.Pixels pixels, Input.Image image -> Ok(Images.prepare image pixels, None)
        | Ready.Recording recording, Input.Audio sound -> Sound.prepare sound recording |> Result.map (fun x -> x, None)
        | Ready.Tokens tokens, _ -> Ok(torch.tensor tokens.Ids, Some(torch.tensor tokens.Mask))
        | _ -> invalidOp "an item of another kind than the encoder's"

    let private together (parts: (torch.Tensor * torch.Tensor option) list) : EncoderInput =
        { Main = torch.stack [ for main, _ in parts -> main ]
          Mask =
            match List.choose snd parts with
            | [] -> None
            | masks -> Some(torch.stack masks) }

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
        (read: Item -> Result<Ready, Fault list>)
        (tell: ExtractProgress -> unit)
        (items: Item list)
        : Result<Item list * torch.Tensor option, Fault list> =
        use scope = torch.NewDisposeScope()
        let ready = items |> Array.ofList |> Array.Parallel.map read |> List.ofArray |> List.map (Result.bind (prepare d))

        let faults =
            ready
            |> List.collect (function
                | Error faults -> faults
                | Ok _ -> [])

        let kept =
            [ for item, result in List.zip items ready do
                  match result with
                  | Ok tensors -> item, tensors
                  | Error _ -> () ]

        if not (faults.IsEmpty || request.SkipUnreadable) then
            Error faults
        else
            for fault in faults do
                tell (ExtractProgress.Skipped fault)

            if kept.IsEmpty then
                Ok([], None)
            else
                let kept, tensors = List.unzip kept
                let features = encoder.Run(together tensors)
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
        (read: Item -> Result<Ready, Fault list>)
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
                encode request d encoder read tell items
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

    /// Runs an encoder over a manifest and writes the bank; rows go to disk batch by batch, and the same request again goes on where
    /// the last one stopped. What comes out is the shape of the bank. Faults: every mistake in the description, the manifest, the files
    /// and the model, told with the file and the line.
    let run (tell: ExtractProgress -> unit) (request: ExtractRequest) : Result<int64[], Fault list> =
        try
            Description.read request.Encoder
            |> Result.bind (fun d ->
                itemsOf request d tell
                |> Result.bind (fun items ->
                    readerOf d
                    |> Result.bind (fun read ->
                        Encoder.load d (torch.get_num_threads ()) request.Device
                        |> Result.bind (fun encoder ->
                            use _ = encoder
                            let dtype = if request.Half then torch.ScalarType.Float16 else torch.ScalarType.Float32

                            Files.makeFolderOf request.Out
                            |> Result.bind (fun () -> Bank.openOrResume request.Restart (key request d) dtype request.Out)
                            |> Result.bind (fun bank ->
                                use bank = bank
                                let labels = dict [ for item in items -> item.Id, item.Label ]

                                left request bank.Written items
                                |> Result.bind (batches request d encoder read tell bank items.Length)
                                |> Result.bind (fun () ->
                                    if bank.Written.IsEmpty then
                                        Error [ Fault.Unreadable(request.Manifest, "none of its items could be read") ]
                                    else
                                        Bank.finish bank (fun id -> labels[id])))))))
        with
        | CmclException fault -> Error [ fault ]
        | :? IOException
        | :? UnauthorizedAccessException as e -> Error [ Fault.Unreadable(request.Manifest, e.Message) ]
