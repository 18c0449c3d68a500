namespace Cmcl.Encoders

open System
open System.IO
open System.Text.Json
open Cmcl

/// How an image becomes what an encoder takes: resized, the middle cut out, (x/255 − mean)/std for each channel.
type ImageInput =
    {
        /// Pixels of the shorter side after resizing, or of both sides when squashed.
        Resize: int
        /// Pixels of both sides of the middle that is kept.
        Crop: int
        /// Both sides to `Resize`, whatever that does to proportions.
        Squash: bool
        Bicubic: bool
        Mean: float list
        Std: float list
        /// Blue first.
        Bgr: bool
        /// Channels after height and width instead of before.
        ChannelsLast: bool
    }

[<RequireQualifiedAccess>]
type TokenizerKind =
    /// CLIP's byte-level BPE: vocabulary (JSON) and merges, lower case.
    | Clip
    /// BERT's WordPiece: a vocabulary with one token a line.
    | WordPiece

/// How a text becomes what an encoder takes: token numbers, begun, ended, cut and padded to one length.
type TextInput =
    {
        Tokenizer: TokenizerKind
        Vocab: string
        Merges: string
        Lower: bool
        /// Tokens of every text, those at its begin and end included.
        Context: int
        /// The number that fills up; None: what the tokenizer's kind is padded with.
        Pad: int option
        /// The model's input that tells tokens (1) from padding (0).
        Mask: string option
        /// The model's input of zeros for which sentence a token is of.
        Types: string option
        /// int32 instead of int64.
        Narrow: bool
    }

/// A log-mel spectrogram, or none: the samples themselves.
type MelInput =
    {
        Fft: int
        Window: int
        Hop: int
        Mels: int
        FMin: float
        FMax: float
        /// Slaney's scale of mels instead of HTK's.
        Slaney: bool
        /// Triangles of equal area instead of equal height.
        EqualArea: bool
        /// Frames centred on their samples, with the signal mirrored at both ends.
        Centre: bool
        /// `ln`, `log10` or `db`.
        Log: string
        /// The least power that a logarithm is taken of.
        Floor: float
        Mean: float
        Std: float
        /// Frames before mels.
        FramesFirst: bool
        /// A channel of one before both.
        Channel: bool
    }

type SoundInput =
    {
        /// Samples a second that the encoder wants.
        Rate: int
        /// Every recording is cut or filled with silence to this.
        Seconds: float
        Mel: MelInput option
    }

[<RequireQualifiedAccess>]
type Input =
    | Image of ImageInput
    | Text of TextInput
    | Audio of SoundInput

[<RequireQualifiedAccess>]
type ModelKind =
    | Onnx
    | TorchScript

/// An encoder as a small JSON file describes it (docs/encoders.md); paths are full.
type Description =
    {
        Name: string
        Kind: ModelKind
        File: string
        /// The model's input for what is encoded; of an ONNX model, None for its only one.
        InputName: string option
        /// The output that is the feature: of an ONNX model a name, of a TorchScript module a place in its tuple; None for the only or
        /// first one.
        OutputName: string option
        Input: Input
    }

    /// The files that decide what comes out, for telling one encoder from another.
    member d.Files: string list =
        match d.Input with
        | Input.Text t when t.Merges <> "" -> [ d.File; t.Vocab; t.Merges ]
        | Input.Text t -> [ d.File; t.Vocab ]
        | _ -> [ d.File ]

[<RequireQualifiedAccess>]
module Description =
    [<Literal>]
    let Format = "cmcl-encoder/1"

    /// An object of the file, the words for where it stands, and the keys that were asked for.
    type private Node =
        { Where: string
          Json: JsonElement
          Asked: Collections.Generic.List<string> }

    let private bad (where: string) (expected: string) (json: JsonElement) : 'a =
        let text = json.GetRawText()
        Check.fail (Fault.BadValue(where, expected, (if text.Length > 40 then text.Substring(0, 40) + "…" else text)))

    let private node (where: string) (json: JsonElement) : Node =
        if json.ValueKind <> JsonValueKind.Object then
            bad where "an object" json

        { Where = where
          Json = json
          Asked = Collections.Generic.List() }

    let private find (key: string) (n: Node) : (string * JsonElement) option =
        n.Asked.Add key

        match n.Json.TryGetProperty key with
        | true, value -> Some($"'{key}' of {n.Where}", value)
        | _ -> None

    /// What a key has, read by `read`; what it is without.
    let private either (without: 'a) (read: string -> JsonElement -> 'a) (key: string) (n: Node) : 'a =
        match find key n with
        | Some(where, json) -> read where json
        | None -> without

    let private needed (read: string -> JsonElement -> 'a) (key: string) (n: Node) : 'a =
        match find key n with
        | Some(where, json) -> read where json
        | None -> Check.fail (Fault.MissingKey(n.Where, key))

    /// Refuses keys that nothing asked for.
    let private finished (n: Node) (value: 'a) : 'a =
        for entry in n.Json.EnumerateObject() do
            if not (n.Asked.Contains entry.Name) then
                Check.fail (Fault.UnknownKey(n.Where, entry.Name, List.ofSeq n.Asked |> List.distinct))

        value

    let private text where (json: JsonElement) : string =
        match json.ValueKind with
        | JsonValueKind.String when json.GetString() <> "" -> string (json.GetString())
        | _ -> bad where "a text that is not empty" json

    let private truth where (json: JsonElement) : bool =
        match json.ValueKind with
        | JsonValueKind.True -> true
        | JsonValueKind.False -> false
        | _ -> bad where "true or false" json

    let private whole (least: int) (most: int) where (json: JsonElement) : int =
        match json.ValueKind = JsonValueKind.Number, json with
        | true, json ->
            match json.TryGetInt32() with
            | true, n when n >= least && n <= most -> n
            | _ -> bad where $"a whole number from {least} to {most}" json
        | _ -> bad where $"a whole number from {least} to {most}" json

    let private number (least: float) (most: float) where (json: JsonElement) : float =
        let fits = json.ValueKind = JsonValueKind.Number && json.GetDouble() >= least && json.GetDouble() <= most
        if fits then json.GetDouble() else bad where $"a number from {least} to {most}" json

    let private oneOf (words: (string * 'a) list) where (json: JsonElement) : 'a =
        let given = text where json

        match List.tryFind (fst >> (=) given) words with
        | Some(_, value) -> value
        | None -> Check.fail (Fault.Unknown($"value of {where}", given, List.map fst words))

    let private three (least: float) where (json: JsonElement) : float list =
        if json.ValueKind = JsonValueKind.Array && json.GetArrayLength() = 3 then
            [ for item in json.EnumerateArray() -> number least 1e6 where item ]
        else
            bad where "three numbers, one for each channel" json

    /// More pixels a side, samples a second, tokens, and so on, than any encoder takes.
    let private many = 65536

    let private image (where: string) (json: JsonElement) : Input =
        let n = node where json
        let resize = needed (whole 1 many) "resize" n

        let read =
            { Resize = resize
              Crop = either resize (whole 1 many) "crop" n
              Squash = either false (oneOf [ "shorter", false; "squash", true ]) "fit" n
              Bicubic = either true (oneOf [ "bicubic", true; "bilinear", false ]) "interpolation" n
              Mean = either [ 0.0; 0.0; 0.0 ] (three -1e6) "mean" n
              Std = either [ 1.0; 1.0; 1.0 ] (three 1e-6) "std" n
              Bgr = either false (oneOf [ "rgb", false; "bgr", true ]) "channels" n
              ChannelsLast = either false (oneOf [ "channels-first", false; "channels-last", true ]) "layout" n }

        if read.Crop > resize then
            Check.fail (Fault.BadValue($"'crop' of {where}", $"at most {resize}, what 'resize' leaves", string read.Crop))

        finished n (Input.Image read)

    let private texts (path: string -> string) (where: string) (json: JsonElement) : Input =
        let n = node where json

        let kind = needed (oneOf [ "clip", TokenizerKind.Clip; "wordpiece", TokenizerKind.WordPiece ]) "tokenizer" n

        finished
            n
            (Input.Text
                { Tokenizer = kind
                  Vocab = needed text "vocab" n |> path
                  Merges = (if kind = TokenizerKind.Clip then needed text "merges" n |> path else "")
                  Lower = either true truth "lower" n
                  Context = needed (whole 3 many) "context" n
                  Pad = either None (fun where json -> Some(whole 0 Int32.MaxValue where json)) "pad" n
                  Mask = either None (fun where json -> Some(text where json)) "mask" n
                  Types = either None (fun where json -> Some(text where json)) "types" n
                  Narrow = either false (oneOf [ "int64", false; "int32", true ]) "integers" n })

    let private mel (rate: int) (where: string) (json: JsonElement) : MelInput =
        let n = node where json
        let fft = needed (whole 2 many) "fft" n
        let half = float rate / 2.0

        let read =
            { Fft = fft
              Window = either fft (whole 1 fft) "window" n
              Hop = needed (whole 1 many) "hop" n
              Mels = needed (whole 1 4096) "mels" n
              FMin = either 0.0 (number 0.0 half) "fmin" n
              FMax = either half (number 0.0 half) "fmax" n
              Slaney = either false (oneOf [ "htk", false; "slaney", true ]) "scale" n
              EqualArea = either false (oneOf [ "none", false; "slaney", true ]) "norm" n
              Centre = either true truth "center" n
              Log = either "ln" (oneOf [ for word in [ "ln"; "log10"; "db" ] -> word, word ]) "log" n
              Floor = either 1e-10 (number 1e-30 1.0) "floor" n
              Mean = either 0.0 (number -1e6 1e6) "mean" n
              Std = either 1.0 (number 1e-6 1e6) "std" n
              FramesFirst = either false (oneOf [ "mels-frames", false; "frames-mels", true ]) "layout" n
              Channel = either false truth "channel" n }

        if read.FMin >= read.FMax then
            Check.fail (Fault.BadValue($"'fmin' of {where}", $"less than fmax, {read.FMax}", string read.FMin))

        finished n read

    let private sound (where: string) (json: JsonElement) : Input =
        let n = node where json
        let rate = needed (whole 100 768000) "rate" n

        finished
            n
            (Input.Audio
                { Rate = rate
                  Seconds = needed (number 0.001 3600.0) "seconds" n
                  Mel = either None (fun where json -> Some(mel rate where json)) "mel" n })

    let private description (file: string) (json: JsonElement) : Description =
        let path (given: string) = Path.GetFullPath(Path.Combine(string (Path.GetDirectoryName file), given))
        let n = node $"'{file}'" json

        needed text "format" n
        |> fun format ->
            if format <> Format then
                Check.fail (Fault.BadValue($"'format' of '{file}'", Format, format))

        let inputs =
            [ either None (fun where json -> Some(image where json)) "image" n
              either None (fun where json -> Some(texts path where json)) "text" n
              either None (fun where json -> Some(sound where json)) "audio" n ]
            |> List.choose id

        match inputs with
        | [ input ] ->
            finished
                n
                { Name = needed text "name" n
                  Kind = needed (oneOf [ "onnx", ModelKind.Onnx; "torchscript", ModelKind.TorchScript ]) "kind" n
                  File = needed text "file" n |> path
                  InputName = either None (fun where json -> Some(text where json)) "input" n
                  OutputName = either None (fun where json -> Some(text where json)) "output" n
                  Input = input }
        | _ ->
            let given = if inputs.IsEmpty then "none of them" else $"{inputs.Length} of them"
            Check.fail (Fault.BadValue($"'{file}'", "one of 'image', 'text' and 'audio'", given))

    /// Reads a description. Faults: `Missing`, for it and for each file that it names; `Unreadable` for what is no JSON; `BadValue`,
    /// `Unknown`, `MissingKey` and `UnknownKey` with the key.
    let read (file: string) : Result<Description, Fault list> =
        let full = Path.GetFullPath file

        InputFile.readingText "describing the encoder" file (fun () ->
            try
                use document = JsonDocument.Parse(File.ReadAllText full)
                let read = description full document.RootElement
                read.Files |> List.map (InputFile.check $"the encoder '{file}'") |> Check.all |> Result.map (fun _ -> read)
            with
            | CmclException fault -> Error [ fault ]
            | :? FormatException
            | :? InvalidOperationException
            | :? ArgumentException as e -> Error [ Fault.Unreadable(file, e.Message) ])
