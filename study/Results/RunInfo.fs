namespace Cmcl

open System.IO
open System.Text.Encodings.Web
open System.Text.Json
open System.Text.Json.Nodes

/// One step of the stream as `config.json` tells it.
type StepInfo =
    { Index: int
      Name: string
      A: string
      B: string
      Train: int
      Validation: int
      Test: int
      Accuracy: bool }

/// One method with its whole block of settings.
type MethodInfo =
    { Label: string
      Method: string
      Role: Role
      Settings: (string * string) list }

    /// A setting by its name, if the method takes it.
    member m.Setting(name: string) : string option = m.Settings |> List.tryFind (fst >> (=) name) |> Option.map snd

/// What `config.json` of a results folder says about the run; what it leaves out is empty.
type RunInfo =
    {
        Version: string
        Command: string
        /// ISO 8601.
        Created: string
        Machine: (string * string) list
        StreamName: string
        Source: string
        Digest: string
        Description: string
        Steps: StepInfo list
        Split: string
        Dtype: string
        Device: string
        Seeds: string list
        Methods: MethodInfo list
        /// What ended early: the method, the seed, why.
        Failures: (string * string * string) list
    }

    member info.Roles: Roles = Map [ for m in info.Methods -> m.Label, m.Role ]

[<RequireQualifiedAccess>]
module RunInfo =
    let private child (name: string) (json: JsonElement) : JsonElement option =
        if json.ValueKind <> JsonValueKind.Object then
            None
        else
            match json.TryGetProperty name with
            | true, value when value.ValueKind <> JsonValueKind.Null -> Some value
            | _ -> None

    let private text (json: JsonElement) : string = json.ToString()

    let private textOf name json = child name json |> Option.map text |> Option.defaultValue ""

    let private countOf name json = child name json |> Option.map _.GetInt32() |> Option.defaultValue 0

    let private listOf name (item: JsonElement -> 'a) json : 'a list =
        match child name json with
        | Some items ->
            [ for x in items.EnumerateArray() -> if x.ValueKind = JsonValueKind.Null then invalidOp "an item is null" else item x ]
        | None -> []

    let private pairsOf name json : (string * string) list =
        match child name json with
        | Some block -> [ for x in block.EnumerateObject() -> x.Name, text x.Value ]
        | None -> []

    let private step (json: JsonElement) : StepInfo =
        { Index = countOf "index" json
          Name = textOf "name" json
          A = textOf "a" json
          B = textOf "b" json
          Train = countOf "train" json
          Validation = countOf "validation" json
          Test = countOf "test" json
          Accuracy = child "accuracy" json |> Option.exists _.GetBoolean() }

    let private run (json: JsonElement) : RunInfo =
        if json.ValueKind <> JsonValueKind.Object then
            invalidOp "a record is an object"

        let stream = child "stream" json |> Option.defaultValue (JsonElement())

        { Version = textOf "cmcl" json
          Command = textOf "command" json
          Created = textOf "created" json
          Machine = pairsOf "machine" json
          StreamName = textOf "name" stream
          Source = textOf "source" stream
          Digest = textOf "digest" stream
          Description = textOf "description" stream
          Steps = listOf "steps" step stream
          Split = textOf "split" json
          Dtype = textOf "dtype" json
          Device = textOf "device" json
          Seeds = listOf "seeds" text json
          Methods =
            json
            |> listOf "methods" (fun m ->
                let label = textOf "label" m

                { Label = label
                  Method = textOf "method" m
                  Role = Role.parse (textOf "role" m) |> Option.defaultWith (fun () -> Roles.find Map.empty label)
                  Settings = pairsOf "settings" m })
          Failures = json |> listOf "failures" (fun f -> textOf "method" f, textOf "seed" f, textOf "message" f) }

    /// From the text of a `config.json`; what it lacks is empty. Example: `(RunInfo.parse "{}").Seeds = []`.
    let parse (text: string) : RunInfo =
        use document = JsonDocument.Parse text
        run document.RootElement

    /// The text that `parse` reads the same from. Example: `RunInfo.parse "{}" |> RunInfo.toJson`.
    let toJson (info: RunInfo) : string =
        let text (s: string) : JsonNode | null = JsonValue.Create s

        let node (pairs: (string * (JsonNode | null)) list) : JsonNode | null =
            let o = JsonObject()

            for name, value in pairs do
                o[name] <- value

            o

        let texts (pairs: (string * string) list) = node [ for name, value in pairs -> name, text value ]
        let list (item: 'a -> JsonNode | null) (items: 'a list) : JsonNode | null = JsonArray(Array.ofList (List.map item items))
        let whole (n: int) : JsonNode | null = JsonValue.Create n

        let step (s: StepInfo) =
            node
                [ "index", whole s.Index
                  "name", text s.Name
                  "a", text s.A
                  "b", text s.B
                  "train", whole s.Train
                  "validation", whole s.Validation
                  "test", whole s.Test
                  "accuracy", (JsonValue.Create s.Accuracy: JsonNode | null) ]

        let stream =
            node
                [ "name", text info.StreamName
                  "source", text info.Source
                  "digest", text info.Digest
                  "description", text info.Description
                  "steps", list step info.Steps ]

        let options = JsonSerializerOptions(WriteIndented = true, Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping)

        match
            node
                [ "cmcl", text info.Version
                  "command", text info.Command
                  "created", text info.Created
                  "machine", texts info.Machine
                  "stream", stream
                  "split", text info.Split
                  "dtype", text info.Dtype
                  "device", text info.Device
                  "seeds", list text info.Seeds
                  "methods",
                  info.Methods
                  |> list (fun m ->
                      node
                          [ "label", text m.Label
                            "method", text m.Method
                            "role", text (Role.name m.Role)
                            "settings", texts m.Settings ])
                  "failures",
                  info.Failures |> list (fun (label, seed, why) -> texts [ "method", label; "seed", seed; "message", why ]) ]
        with
        | null -> "{}"
        | whole -> whole.ToJsonString options + "\n"

    /// Reads `config.json` of a results folder; without one everything is empty. Fault: `Unreadable`.
    let read (folder: string) : Result<RunInfo, Fault list> =
        match Path.Combine(folder, "config.json") |> InputFile.json "the report" "the record of a run" run with
        | Error [ Fault.Missing _ ] -> Ok(parse "{}")
        | other -> other
