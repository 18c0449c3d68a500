namespace Cmcl

open System.IO
open System.Text.Json

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
      Settings: (string * string) list }

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
        | Some items -> [ for x in items.EnumerateArray() -> item x ]
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
                { Label = textOf "label" m
                  Method = textOf "method" m
                  Settings = pairsOf "settings" m })
          Failures = json |> listOf "failures" (fun f -> textOf "method" f, textOf "seed" f, textOf "message" f) }

    /// Reads `config.json` of a results folder; without one everything is empty. Fault: `Unreadable`.
    let read (folder: string) : Result<RunInfo, Fault list> =
        let path = Path.Combine(folder, "config.json")

        try
            use document = JsonDocument.Parse(if File.Exists path then File.ReadAllText path else "{}")

            Ok(run document.RootElement)
        with
        | :? JsonException
        | :? System.FormatException
        | :? System.InvalidOperationException
        | :? IOException as e -> Error [ Fault.Unreadable(path, e.Message) ]
