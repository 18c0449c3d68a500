namespace Cmcl.Encoders

open System
open System.IO
open System.Text.Json
open System.Text.RegularExpressions
open Cmcl

/// An encoder's description as a file: JSON, every key checked, unknown ones refused.
[<RequireQualifiedAccess>]
module DescriptionFile =
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

    /// A colour: `white`, `black` or #rrggbb.
    let private colour where (json: JsonElement) : byte * byte * byte =
        match text where json with
        | "white" -> 255uy, 255uy, 255uy
        | "black" -> 0uy, 0uy, 0uy
        | given when Regex.IsMatch(given, "^#[0-9a-fA-F]{6}$") ->
            let bytes = Convert.FromHexString(given.Substring 1)
            bytes[0], bytes[1], bytes[2]
        | _ -> bad where "white, black or a colour as #rrggbb" json

    let private pool: string -> JsonElement -> Pool = oneOf [ "none", Pool.Done; "cls", Pool.First; "mean", Pool.Mean ]

    let private image (path: string -> string) (where: string) (json: JsonElement) : Input =
        let n = node where json
        let resize = needed (whole 1 many) "resize" n
        let plain = ImageInput.Plain resize

        let mean where (json: JsonElement) =
            if json.ValueKind = JsonValueKind.String then
                ImageMean.Places(path (text where json))
            else
                ImageMean.Channels(three -1e6 where json)

        let fits = [ "shorter", ImageFit.Shorter; "squash", ImageFit.Squash; "pad", ImageFit.Pad ]

        let read =
            { Resize = resize
              Crop = either plain.Crop (whole 1 many) "crop" n
              Fit = either plain.Fit (oneOf fits) "fit" n
              Bicubic = either plain.Bicubic (oneOf [ "bicubic", true; "bilinear", false ]) "interpolation" n
              Mean = either plain.Mean mean "mean" n
              Std = either plain.Std (three 1e-6) "std" n
              Bgr = either plain.Bgr (oneOf [ "rgb", false; "bgr", true ]) "channels" n
              ChannelsLast = either plain.ChannelsLast (oneOf [ "channels-first", false; "channels-last", true ]) "layout" n
              Background = either plain.Background (fun where json -> Some(colour where json)) "background" n
              Pool = either plain.Pool pool "pool" n }

        if read.Crop > resize then
            Check.fail (Fault.BadValue($"'crop' of {where}", $"at most {resize}, what 'resize' leaves", string read.Crop))

        if read.Fit = ImageFit.Pad && read.Background.IsNone then
            Check.fail (Fault.MissingKey($"{where}, which is padded", "background"))

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
                  Longest = either None (oneOf [ "longest", Some true; "context", Some false ]) "padding" n
                  Pad = either None (fun where json -> Some(whole 0 Int32.MaxValue where json)) "pad" n
                  Mask = either None (fun where json -> Some(text where json)) "mask" n
                  Types = either None (fun where json -> Some(text where json)) "types" n
                  Narrow = either false (oneOf [ "int64", false; "int32", true ]) "integers" n
                  Pool = either Pool.Done pool "pool" n })

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
              Range = either None (fun where json -> Some(number 0.0 1e6 where json)) "range" n
              Frames = either None (fun where json -> Some(whole 1 many where json)) "frames" n
              Mean = either 0.0 (number -1e6 1e6) "mean" n
              Std = either 1.0 (number 1e-6 1e6) "std" n
              FramesFirst = either false (oneOf [ "mels-frames", false; "frames-mels", true ]) "layout" n
              Channel = either false truth "channel" n }

        if read.FMin >= read.FMax then
            Check.fail (Fault.BadValue($"'fmin' of {where}", $"less than fmax, {read.FMax}", string read.FMin))

        finished n read

    let private windows (where: string) (json: JsonElement) : Windows =
        let n = node where json
        let length = needed (whole 1 Int32.MaxValue) "length" n

        finished
            n
            { Length = length
              Hop = either length (whole 1 Int32.MaxValue) "hop" n
              Parts = either 1 (whole 1 64) "parts" n }

    /// Longer than any recording that is encoded whole.
    let private hour = 3600.0

    let private sound (where: string) (json: JsonElement) : Input =
        let n = node where json
        let rate = needed (whole 100 768000) "rate" n
        let perhaps read = either None (fun where json -> Some(read where json))

        let read =
            { Rate = rate
              Seconds = perhaps (number 0.001 hour) "seconds" n
              Least = either 0.0 (number 0.0 hour) "shortest" n
              Most = either hour (number 0.001 hour) "longest" n
              Repeat = either false (oneOf [ "silence", false; "repeat", true ]) "fill" n
              Trim = perhaps (number 0.0 1.0) "trim" n
              Peak = perhaps (number 1e-6 1e6) "peak" n
              Gain = either 1.0 (number 1e-6 1e6) "gain" n
              Around = either 0.0 (number 0.0 60.0) "around" n
              Mel = perhaps (mel rate) "mel" n
              Windows = perhaps windows "windows" n
              Pool = either Pool.Done pool "pool" n }

        finished n (Input.Audio read)

    let private before (path: string -> string) (where: string) (json: JsonElement) : Before =
        let n = node where json
        let name key = either None (fun where json -> Some(text where json)) key n

        finished
            n
            { File = needed text "file" n |> path
              InputName = name "input"
              OutputName = name "output"
              Scale = either 1.0 (number -1e6 1e6) "scale" n
              Shift = either 0.0 (number -1e6 1e6) "shift" n }

    /// Inputs of zeros: the sides of each for an item.
    let private zeros (where: string) (json: JsonElement) : Map<string, int list> =
        let n = node where json

        let sides where (json: JsonElement) =
            if json.ValueKind = JsonValueKind.Array then
                [ for item in json.EnumerateArray() -> whole 1 many where item ]
            else
                bad where "a list of sides, without that of the items" json

        let all = Map [ for entry in json.EnumerateObject() -> entry.Name, needed sides entry.Name n ]
        finished n all

    let private description (file: string) (json: JsonElement) : Description =
        let path (given: string) = Path.GetFullPath(Path.Combine(string (Path.GetDirectoryName file), given))
        let n = node $"'{file}'" json

        needed text "format" n
        |> fun format ->
            if format <> Format then
                Check.fail (Fault.BadValue($"'format' of '{file}'", Format, format))

        let inputs =
            [ either None (fun where json -> Some(image path where json)) "image" n
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
                  Zeros = either Map.empty zeros "zeros" n
                  Columns = either None (fun where json -> Some(whole 1 Int32.MaxValue where json)) "columns" n
                  Before = either None (fun where json -> Some(before path where json)) "before" n
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
