namespace Cmcl

open System
open System.IO
open System.Text
open System.Text.Json

/// A stream file, the first half of a stream folder: the JSON, every key checked as it is read, no other file opened.
[<RequireQualifiedAccess>]
module StreamFile =

    /// Row numbers as a stream file gives them.
    [<RequireQualifiedAccess>]
    type Rows =
        | Listed of int64[]
        /// From a row (inclusive) to a row (exclusive).
        | Range of from: int64 * upTo: int64
        /// A vector of integers in a file, its path relative to the folder.
        | File of string

    /// An array in a file and the modality that it is of.
    type Source = { Modality: Modality; File: string }

    type Classes =
        {
            Names: string list
            /// One class a bank row, −1 for none.
            Labels: Rows
        }

    type Prototypes = { Classes: string; Vectors: Source }

    type Accuracy = { Items: string; Prototypes: string }

    /// Where the heads before any step are.
    [<RequireQualifiedAccess>]
    type Heads =
        /// One `.safetensors` file, its path relative to the folder.
        | One of string
        /// An array for each modality.
        | Each of Map<Modality, string>

    type Step =
        {
            Name: string
            A: string
            B: string
            Train: string
            Validation: string
            Test: string
            /// Rows of `a` and rows of `b` that match, where the banks do not match row by row.
            Pairs: (Rows * Rows) option
            Accuracy: Accuracy option
        }

    /// A stream file as written: names and paths, nothing followed yet.
    type Description =
        { Name: string
          Description: string
          Banks: Map<string, Source>
          Rows: Map<string, Rows>
          Classes: Map<string, Classes>
          Prototypes: Map<string, Prototypes>
          Groups: Map<string, Rows>
          Heads: Heads option
          Steps: Step list
          Preset: Preset }

    /// The one format that is read; `format` in the file.
    [<Literal>]
    let Format = "cmcl-stream/1"

    /// The keys of every kind of object, needed ones first, then those that may be left out. The schema lists the same.
    let keys: Map<string, string list * string list> =
        Map
            [ "stream",
              ([ "format"; "name"; "banks"; "rows"; "steps" ],
               [ "description"; "classes"; "prototypes"; "groups"; "heads"; "preset" ])
              "bank", ([ "modality"; "file" ], [])
              "range", ([ "from"; "to" ], [])
              "file", ([ "file" ], [])
              "classes", ([ "names"; "labels" ], [])
              "prototypes", ([ "modality"; "classes"; "file" ], [])
              "step", ([ "name"; "a"; "b"; "train"; "validation"; "test" ], [ "pairs"; "accuracy" ])
              "pairs", ([ "a"; "b" ], [])
              "accuracy", ([ "items"; "prototypes" ], [])
              "preset", ([], [ "common"; "methods"; "run" ]) ]

    /// A value and the words for where it stands.
    type private Node = { Where: string; Json: JsonElement }

    type private Read<'a> = Node -> Result<'a, Fault list>

    let private bad (node: Node) (expected: string) : Result<'a, Fault list> =
        let text = node.Json.GetRawText()

        let given = if text.Length > 40 then text.Substring(0, 40) + "…" else text

        Error [ Fault.BadValue(node.Where, expected, given) ]

    let private prose (node: Node) =
        match node.Json.ValueKind with
        | JsonValueKind.String when node.Json.GetString() <> "" -> Ok(string (node.Json.GetString()))
        | _ -> bad node "a text that is not empty"

    /// A name or a path, which is printed, written into tables and looked for.
    let private text (node: Node) =
        prose node
        |> Result.bind (fun text ->
            if Names.isClean text then
                Ok text
            else
                bad node "a text without line breaks and other control characters")

    let private integer (node: Node) =
        match node.Json.ValueKind, node.Json with
        | JsonValueKind.Number, json ->
            match json.TryGetInt64() with
            | true, value -> Ok value
            | _ -> bad node "an integer"
        | _ -> bad node "an integer"

    let private modality (node: Node) =
        text node
        |> Result.bind (fun name ->
            Modality.create name |> Result.mapError (fun _ -> [ Fault.BadValue(node.Where, Modality.rule, name) ]))

    let private list (item: Read<'a>) (node: Node) =
        if node.Json.ValueKind = JsonValueKind.Array then
            node.Json.EnumerateArray()
            |> Seq.mapi (fun i json -> item { Where = $"{node.Where}, item {i + 1}"; Json = json })
            |> List.ofSeq
            |> Check.all
        else
            bad node "a list"

    let private integers (node: Node) = list integer node |> Result.map Array.ofList

    /// An object whose keys are names of the user's choice.
    let private named (kind: string) (item: Read<'a>) (node: Node) =
        if node.Json.ValueKind = JsonValueKind.Object then
            node.Json.EnumerateObject()
            |> Seq.map (fun entry ->
                let node = { Where = $"{kind} '{entry.Name}'"; Json = entry.Value }

                if entry.Name <> "" && Names.isClean entry.Name then
                    item node |> Result.map (fun value -> entry.Name, value)
                else
                    Error
                        [ Fault.BadValue(
                              $"the name of a {kind}",
                              "a text that is not empty, without control characters",
                              entry.Name
                          ) ])
            |> List.ofSeq
            |> Check.all
            |> Result.map Map.ofList
        else
            bad node "an object"

    /// An object of one of the kinds in `keys`: every key known, none missing, then the fields.
    let private fields (kind: string) (read: Node -> Result<'a, Fault list>) (node: Node) : Result<'a, Fault list> =
        if node.Json.ValueKind <> JsonValueKind.Object then
            bad node "an object"
        else
            let needed, others = keys[kind]

            let present = [ for entry in node.Json.EnumerateObject() -> entry.Name ]

            let faults =
                [ for key in List.except (needed @ others) present do
                      Fault.UnknownKey(node.Where, key, List.sort (needed @ others))
                  for key in List.except present needed do
                      Fault.MissingKey(node.Where, key) ]

            match faults, read node with
            | [], result -> result
            | faults, Error more -> Error(faults @ more)
            | faults, Ok _ -> Error faults

    /// A field if it is there. One that is missing is told by `fields`, so here it is an error without words.
    let private field (key: string) (read: Read<'a>) (node: Node) : Result<'a, Fault list> =
        match node.Json.TryGetProperty key with
        | true, json -> read { Where = $"'{key}' of {node.Where}"; Json = json }
        | _ -> Error []

    let private fieldOr (fallback: 'a) (key: string) (read: Read<'a>) (node: Node) : Result<'a, Fault list> =
        match node.Json.TryGetProperty key with
        | true, _ -> field key read node
        | _ -> Ok fallback

    let private has (key: string) (node: Node) = node.Json.ValueKind = JsonValueKind.Object && fst (node.Json.TryGetProperty key)

    let private rowSource (node: Node) =
        if node.Json.ValueKind = JsonValueKind.Array then
            integers node |> Result.map Rows.Listed
        elif has "file" node then
            node |> fields "file" (field "file" text) |> Result.map Rows.File
        elif node.Json.ValueKind = JsonValueKind.Object then
            node
            |> fields "range" (fun node ->
                validated {
                    let! first = field "from" integer node
                    and! upTo = field "to" integer node
                    return Rows.Range(first, upTo)
                })
        else
            bad node "a list of rows, {\"from\": …, \"to\": …} or {\"file\": …}"

    let private labelSource (node: Node) =
        if node.Json.ValueKind = JsonValueKind.Array then
            integers node |> Result.map Rows.Listed
        else
            node |> fields "file" (field "file" text) |> Result.map Rows.File

    let private arraySource (node: Node) =
        validated {
            let! modality = field "modality" modality node
            and! file = field "file" text node
            return ({ Modality = modality; File = file }: Source)
        }

    let private classSource =
        fields "classes" (fun node ->
            validated {
                let! names = field "names" (list text) node
                and! labels = field "labels" labelSource node
                return { Names = names; Labels = labels }
            })

    let private prototypeSource =
        fields "prototypes" (fun node ->
            validated {
                let! classes = field "classes" text node
                and! vectors = arraySource node
                return { Classes = classes; Vectors = vectors }
            })

    /// A file of all heads, or a file for each modality.
    let private headSource (node: Node) =
        if node.Json.ValueKind = JsonValueKind.String then
            text node |> Result.map (Heads.One >> Some)
        elif node.Json.ValueKind = JsonValueKind.Object then
            node
            |> named "head" text
            |> Result.bind (fun files ->
                if files.IsEmpty then
                    bad node "a file for every modality"
                else
                    [ for KeyValue(name, file) in files ->
                          Modality.create name
                          |> Result.mapError (fun _ ->
                              [ Fault.BadValue($"the name of a head in {node.Where}", Modality.rule, name) ])
                          |> Result.map (fun m -> m, file) ]
                    |> Check.all)
            |> Result.map (Map >> Heads.Each >> Some)
        else
            bad node "a .safetensors file, or {\"MODALITY\": \"FILE.npy\", …}"

    let private accuracySource =
        fields "accuracy" (fun node ->
            validated {
                let! items = field "items" text node
                and! prototypes = field "prototypes" text node

                return Some { Items = items; Prototypes = prototypes }
            })

    let private pairSource =
        fields "pairs" (fun node ->
            validated {
                let! a = field "a" rowSource node
                and! b = field "b" rowSource node
                return Some(a, b)
            })

    let private stepSource (node: Node) =
        let title =
            match has "name" node, lazy (node.Json.GetProperty "name") with
            | true, name when name.Value.ValueKind = JsonValueKind.String -> $"step '{name.Value.GetString()}'"
            | _ -> node.Where

        { node with Where = title }
        |> fields "step" (fun node ->
            validated {
                let! name = field "name" text node
                and! a = field "a" text node
                and! b = field "b" text node
                and! train = field "train" text node
                and! validation = field "validation" text node
                and! test = field "test" text node
                and! pairs = fieldOr None "pairs" pairSource node
                and! accuracy = fieldOr None "accuracy" accuracySource node

                return
                    { Name = name
                      A = a
                      B = b
                      Train = train
                      Validation = validation
                      Test = test
                      Pairs = pairs
                      Accuracy = accuracy }
            })

    /// An option's value: text, or a number as it is written.
    let private setting (node: Node) =
        match node.Json.ValueKind with
        | JsonValueKind.Number -> Ok(node.Json.GetRawText())
        | _ -> text node

    let private preset =
        fields "preset" (fun node ->
            let settings = named "setting" setting

            validated {
                let! common = fieldOr Map.empty "common" settings node
                and! methods = fieldOr Map.empty "methods" (named "settings of method" settings) node
                and! run = fieldOr [] "run" (list text) node

                return { Common = common; Methods = methods; Run = run }
            })

    let private noPreset = { Common = Map.empty; Methods = Map.empty; Run = [] }

    let private format (node: Node) =
        text node |> Result.bind (fun given -> if given = Format then Ok() else bad node $"'{Format}'")

    let private stream =
        fields "stream" (fun node ->
            validated {
                let! _ = field "format" format node
                and! name = field "name" text node
                and! description = fieldOr "" "description" prose node
                and! banks = field "banks" (named "bank" (fields "bank" arraySource)) node
                and! rows = field "rows" (named "row set" rowSource) node
                and! classes = fieldOr Map.empty "classes" (named "class set" classSource) node

                and! prototypes = fieldOr Map.empty "prototypes" (named "prototype set" prototypeSource) node

                and! groups = fieldOr Map.empty "groups" (named "groups of bank" labelSource) node
                and! heads = fieldOr None "heads" headSource node
                and! steps = field "steps" (list stepSource) node
                and! preset = fieldOr noPreset "preset" preset node

                return
                    { Name = name
                      Description = description
                      Banks = banks
                      Rows = rows
                      Classes = classes
                      Prototypes = prototypes
                      Groups = groups
                      Heads = heads
                      Steps = steps
                      Preset = preset }
            })

    /// Reads a stream file. Every unknown, missing, repeated or mistyped key is a fault that says where it stands.
    let read (path: string) : Result<Description, Fault list> =
        InputFile.readingText "the stream" path (fun () ->
            try
                let options = JsonDocumentOptions(AllowDuplicateProperties = false)
                use file = File.OpenRead path
                use document = JsonDocument.Parse(file, options)

                stream
                    { Where = $"'{Path.GetFileName path}'"
                      Json = document.RootElement }
            with :? InvalidOperationException ->
                Error [ Fault.Unreadable(path, "it holds text that is not valid Unicode") ])

    // ---- writing -----------------------------------------------------------------------------------------

    let private writeRows (json: Utf8JsonWriter) (rows: Rows) =
        match rows with
        | Rows.Listed rows ->
            json.WriteStartArray()
            rows |> Array.iter json.WriteNumberValue
            json.WriteEndArray()
        | Rows.Range(first, upTo) ->
            json.WriteStartObject()
            json.WriteNumber("from", first)
            json.WriteNumber("to", upTo)
            json.WriteEndObject()
        | Rows.File file ->
            json.WriteStartObject()
            json.WriteString("file", file)
            json.WriteEndObject()

    /// A stream file of a description; `read` gives the same description.
    let json (stream: Description) : string =
        use memory = new MemoryStream()

        (use json = new Utf8JsonWriter(memory, JsonWriterOptions(Indented = true))

         let group (name: string) (write: unit -> unit) =
             json.WriteStartObject name
             write ()
             json.WriteEndObject()

         let settings (name: string) (values: Map<string, string>) =
             group name (fun () ->
                 for KeyValue(key, value) in values do
                     json.WriteString(key, value))

         json.WriteStartObject()
         json.WriteString("format", Format)
         json.WriteString("name", stream.Name)

         if stream.Description <> "" then
             json.WriteString("description", stream.Description)

         group "banks" (fun () ->
             for KeyValue(name, bank) in stream.Banks do
                 group name (fun () ->
                     json.WriteString("modality", bank.Modality.Name)
                     json.WriteString("file", bank.File)))

         group "rows" (fun () ->
             for KeyValue(name, rows) in stream.Rows do
                 json.WritePropertyName name
                 writeRows json rows)

         group "classes" (fun () ->
             for KeyValue(name, classes) in stream.Classes do
                 group name (fun () ->
                     json.WriteStartArray "names"
                     classes.Names |> List.iter json.WriteStringValue
                     json.WriteEndArray()
                     json.WritePropertyName "labels"
                     writeRows json classes.Labels))

         group "prototypes" (fun () ->
             for KeyValue(name, prototypes) in stream.Prototypes do
                 group name (fun () ->
                     json.WriteString("modality", prototypes.Vectors.Modality.Name)
                     json.WriteString("classes", prototypes.Classes)
                     json.WriteString("file", prototypes.Vectors.File)))

         if not stream.Groups.IsEmpty then
             group "groups" (fun () ->
                 for KeyValue(bank, groups) in stream.Groups do
                     json.WritePropertyName bank
                     writeRows json groups)

         match stream.Heads with
         | None -> ()
         | Some(Heads.One file) -> json.WriteString("heads", file)
         | Some(Heads.Each files) ->
             group "heads" (fun () ->
                 for KeyValue(modality, file) in files do
                     json.WriteString(modality.Name, file))

         json.WriteStartArray "steps"

         for step in stream.Steps do
             json.WriteStartObject()

             for key, value in
                 [ "name", step.Name
                   "a", step.A
                   "b", step.B
                   "train", step.Train
                   "validation", step.Validation
                   "test", step.Test ] do
                 json.WriteString(key, value)

             match step.Pairs with
             | Some(a, b) ->
                 group "pairs" (fun () ->
                     for side, rows in [ "a", a; "b", b ] do
                         json.WritePropertyName side
                         writeRows json rows)
             | None -> ()

             match step.Accuracy with
             | Some accuracy ->
                 group "accuracy" (fun () ->
                     json.WriteString("items", accuracy.Items)
                     json.WriteString("prototypes", accuracy.Prototypes))
             | None -> ()

             json.WriteEndObject()

         json.WriteEndArray()

         group "preset" (fun () ->
             settings "common" stream.Preset.Common

             group "methods" (fun () ->
                 for KeyValue(name, values) in stream.Preset.Methods do
                     settings name values)

             json.WriteStartArray "run"
             stream.Preset.Run |> List.iter json.WriteStringValue
             json.WriteEndArray())

         json.WriteEndObject())

        Encoding.UTF8.GetString(memory.GetBuffer(), 0, int memory.Length) + "\n"
