namespace Cmcl

open System
open System.IO
open System.Text.Encodings.Web
open System.Text.Json
open System.Text.Json.Nodes
open TorchSharp

/// A product: streams × methods × values of options × seeds × orders.
type SweepBlock =
    {
        /// Names, or paths of stream folders or files.
        Streams: string list
        /// As written, each `NAME` or `NAME[OPTION=VALUE;…]`.
        Methods: string list
        /// Options for every method of the block that takes them.
        Set: (string * string) list
        /// Options that every method of the block takes, with the values that each gets one after another.
        Grid: Grid
        Seeds: int list
        /// In how many orders of its steps a stream is run: 0 .. n − 1.
        Orders: int
        /// On how many splits of its items a stream is run: 0 .. n − 1 (`Resplit`).
        Splits: int
        /// The rows that figures are taken of.
        Split: Split
    }

/// A sweep as a file says it, `cmcl-sweep/1`: docs/sweeps.md has every key.
type SweepFile =
    {
        /// `cpu`, `cuda` or `cuda:N`, looked for where a cell runs.
        Device: string
        Blocks: SweepBlock list
    }

/// Sweeps as values: what scripts make, what files hold, and the cells that follow.
[<RequireQualifiedAccess>]
module SweepFile =
    /// The one format that is read; `format` in the file.
    [<Literal>]
    let Format = "cmcl-sweep/1"

    // ---- making ------------------------------------------------------------------------------------------------------

    /// Methods on streams with seed 0, in the streams' own order, measured on test rows.
    /// Example: `SweepFile.block [ "emoji" ] [ "vanilla"; "dns" ] |> SweepFile.seeds [ 0..9 ] |> SweepFile.grid [ "lr", [ "1e-4"; "1e-3" ] ]`.
    let block (streams: string list) (methods: string list) : SweepBlock =
        { Streams = streams
          Methods = methods
          Set = []
          Grid = []
          Seeds = [ 0 ]
          Orders = 1
          Splits = 1
          Split = Split.Test }

    let seeds (seeds: int list) (block: SweepBlock) : SweepBlock = { block with Seeds = seeds }
    let orders (count: int) (block: SweepBlock) : SweepBlock = { block with Orders = count }
    let splits (count: int) (block: SweepBlock) : SweepBlock = { block with Splits = count }
    let split (split: Split) (block: SweepBlock) : SweepBlock = { block with Split = split }
    let set (options: (string * string) list) (block: SweepBlock) : SweepBlock = { block with Set = options }

    /// Every combination of these values; a name `a=b` moves two options together.
    let grid (axes: (string * string list) list) (block: SweepBlock) : SweepBlock =
        { block with
            Grid =
                [ for name, values in axes ->
                      { Options = List.ofArray (name.Split('=', StringSplitOptions.TrimEntries))
                        Values = values } ] }

    /// A sweep of these blocks on the CPU.
    let ofBlocks (blocks: SweepBlock list) : SweepFile = { Device = "cpu"; Blocks = blocks }

    // ---- reading -----------------------------------------------------------------------------------------------------

    /// A value and its place in the file, such as `blocks[1].grid.lr`.
    type private Node = { Where: string; Json: JsonElement }

    let private bad (node: Node) (expected: string) : Result<'a, Fault list> =
        let text = node.Json.GetRawText()
        let given = if text.Length > 40 then text.Substring(0, 40) + "…" else text
        Error [ Fault.At(node.Where, Fault.BadValue("it", expected, given)) ]

    let private text (node: Node) =
        match node.Json.ValueKind with
        | JsonValueKind.String when node.Json.GetString() <> "" -> Ok(string (node.Json.GetString()))
        | _ -> bad node "a text that is not empty"

    let private whole (least: int) (node: Node) =
        match node.Json.ValueKind, node.Json with
        | JsonValueKind.Number, json ->
            match json.TryGetInt32() with
            | true, n when n >= least -> Ok n
            | _ -> bad node $"a whole number ≥ {least}"
        | _ -> bad node $"a whole number ≥ {least}"

    /// The value of an option, as it would stand on a command line.
    let private value (node: Node) =
        match node.Json.ValueKind with
        | JsonValueKind.String -> text node
        | JsonValueKind.Number -> Ok(node.Json.GetRawText())
        | JsonValueKind.True -> Ok "on"
        | JsonValueKind.False -> Ok "off"
        | _ -> bad node "a number, a text, true or false"

    /// At least one item, each once.
    let private list (item: Node -> Result<'a, Fault list>) (node: Node) : Result<'a list, Fault list> =
        if node.Json.ValueKind <> JsonValueKind.Array || node.Json.GetArrayLength() = 0 then
            bad node "a list of at least one"
        else
            [ for i, json in Seq.indexed (node.Json.EnumerateArray()) -> item { Where = $"{node.Where}[{i}]"; Json = json } ]
            |> Check.all
            |> Result.bind (fun items -> if List.distinct items = items then Ok items else bad node "each item once")

    /// The entries of an object whose keys are names of options.
    let private named (item: Node -> Result<'a, Fault list>) (node: Node) : Result<(string * 'a) list, Fault list> =
        if node.Json.ValueKind <> JsonValueKind.Object then
            bad node "an object"
        else
            let names = [ for entry in node.Json.EnumerateObject() -> entry.Name ]

            if List.distinct names <> names then
                bad node "each name once"
            else
                [ for entry in node.Json.EnumerateObject() ->
                      item { Where = $"{node.Where}.{entry.Name}"; Json = entry.Value }
                      |> Result.map (fun value -> entry.Name, value) ]
                |> Check.all

    /// An object with these keys, needed ones first.
    let private fields (needed: string list, others: string list) (read: Node -> Result<'a, Fault list>) (node: Node) =
        if node.Json.ValueKind <> JsonValueKind.Object then
            bad node "an object"
        else
            let present = [ for entry in node.Json.EnumerateObject() -> entry.Name ]
            let where = if node.Where = "" then "the sweep" else node.Where

            let faults =
                [ for key in List.except (needed @ others) present do
                      Fault.UnknownKey(where, key, needed @ others)
                  for key, times in List.countBy id present do
                      if times > 1 then
                          Fault.At(where, Fault.Contradiction($"'{key}' stands there twice", "give it once"))
                  for key in List.except present needed do
                      Fault.MissingKey(where, key) ]

            match faults, read node with
            | [], result -> result
            | faults, Ok _ -> Error faults
            | faults, Error more -> Error(faults @ more)

    /// A field; the fallback if it is not there. A needed one is told by `fields`, so that it has no words here.
    let private field (key: string) (fallback: 'a option) (read: Node -> Result<'a, Fault list>) (node: Node) =
        match node.Json.TryGetProperty key, fallback with
        | (true, json), _ ->
            read
                { Where = (if node.Where = "" then key else $"{node.Where}.{key}")
                  Json = json }
        | _, Some fallback -> Ok fallback
        | _, None -> Error []

    let private readSplit (node: Node) =
        match node.Json.ValueKind, node.Json with
        | JsonValueKind.String, json when json.GetString() = "test" -> Ok Split.Test
        | JsonValueKind.String, json when json.GetString() = "validation" -> Ok Split.Validation
        | _ -> bad node "\"test\" or \"validation\""

    let private blockKeys = [ "streams"; "methods" ], [ "set"; "grid"; "seeds"; "orders"; "splits"; "split" ]

    let private readBlock: Node -> Result<SweepBlock, Fault list> =
        fields blockKeys (fun node ->
            validated {
                let! streams = field "streams" None (list text) node
                and! methods = field "methods" None (list text) node
                and! set' = field "set" (Some []) (named value) node
                and! axes = field "grid" (Some []) (named (list value)) node
                and! seeds' = field "seeds" (Some [ 0 ]) (list (whole 0)) node
                and! orders' = field "orders" (Some 1) (whole 1) node
                and! splits' = field "splits" (Some 1) (whole 1) node
                and! split' = field "split" (Some Split.Test) readSplit node

                return
                    block streams methods
                    |> set set'
                    |> grid axes
                    |> seeds seeds'
                    |> orders orders'
                    |> splits splits'
                    |> split split'
            })

    let private readFormat (node: Node) =
        text node |> Result.bind (fun given -> if given = Format then Ok() else bad node $"\"{Format}\"")

    let private readAll: Node -> Result<SweepFile, Fault list> =
        fields ([ "format"; "blocks" ], [ "device" ]) (fun node ->
            validated {
                let! () = field "format" None readFormat node
                and! device = field "device" (Some "cpu") text node
                and! blocks = field "blocks" None (list readBlock) node
                return { Device = device; Blocks = blocks }
            })

    /// Reads a sweep from JSON. Faults name the place, such as `blocks[1].grid.lr`.
    let parse (name: string) (json: string) : Result<SweepFile, Fault list> =
        try
            use document = JsonDocument.Parse json
            readAll { Where = ""; Json = document.RootElement }
        with
        | :? JsonException as e -> Error [ Fault.Unreadable(name, $"it is no JSON: {e.Message}") ]
        | :? InvalidOperationException -> Error [ Fault.Unreadable(name, "it holds text that is not valid Unicode") ]

    /// A stream's path in a file is meant from the file's folder; names that are no path stay.
    let private rooted (folder: string) (source: string) : string =
        let path = Path.GetFullPath(Path.Combine(folder, source))
        let isPath = source.IndexOfAny [| '/'; '\\' |] >= 0 || source.EndsWith ".json" || Path.Exists path
        if isPath && not (List.contains source Catalogue.names) then path else source

    /// Reads a sweep file; paths of streams are full paths then. Faults: `Missing`, `Unreadable`, and those of `parse`.
    let read (path: string) : Result<SweepFile, Fault list> =
        let folder = Path.GetDirectoryName(Path.GetFullPath path) |> Option.ofObj |> Option.defaultValue "."

        InputFile.text "the sweep" path
        |> Result.bind (parse path)
        |> Result.map (fun file ->
            { file with
                Blocks = [ for b in file.Blocks -> { b with Streams = b.Streams |> List.map (rooted folder) } ] })

    // ---- writing -----------------------------------------------------------------------------------------------------

    /// Writes a sweep file, whole or not at all. Values of options are texts, as on a command line. Fault: `Unwritable`.
    let write (path: string) (file: SweepFile) : Result<unit, Fault list> =
        let text (s: string) : JsonNode | null = JsonValue.Create s
        let texts (all: string list) : JsonNode | null = JsonArray([| for s in all -> text s |])
        let whole (n: int) : JsonNode | null = JsonValue.Create n

        let node (pairs: (string * (JsonNode | null)) list) : JsonNode | null =
            let o = JsonObject()

            for name, value in pairs do
                o[name] <- value

            o

        let block (b: SweepBlock) =
            node
                [ "streams", texts b.Streams
                  "methods", texts b.Methods
                  if not b.Set.IsEmpty then
                      "set", node [ for name, value in b.Set -> name, text value ]
                  if not b.Grid.IsEmpty then
                      "grid", node [ for axis in b.Grid -> String.Join("=", axis.Options), texts axis.Values ]
                  "seeds", JsonArray([| for s in b.Seeds -> whole s |])
                  "orders", whole b.Orders
                  if b.Splits > 1 then
                      "splits", whole b.Splits
                  "split", text (string b.Split) ]

        let all =
            node
                [ "format", text Format
                  "device", text file.Device
                  "blocks", JsonArray([| for b in file.Blocks -> block b |]) ]

        let style = JsonSerializerOptions(WriteIndented = true, Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping)

        Files.writeText path (fun w ->
            match all with
            | null -> ()
            | all -> w.Write(all.ToJsonString style + "\n"))

    // ---- cells -------------------------------------------------------------------------------------------------------

    let private at (place: string) (faults: Fault list) = [ for f in faults -> Fault.At(place, f) ]

    /// Every method with every combination of the grid, as written.
    let private written (b: SweepBlock) : string list =
        [ for options in Grid.trials b.Grid do
              for method in b.Methods do
                  if options.IsEmpty then method else { Method = method; Number = 1; Options = options }.Written ]

    /// Options that there are not, and values that they do not take.
    let private optionFaults (where: string) (b: SweepBlock) : Fault list =
        let one (place: string) (name: string) (value: string) =
            if not (List.contains name Registry.optionNames) then
                at place [ Fault.Unknown("option", name, Registry.optionNames) ]
            else
                match Registry.check name value with
                | Ok _ -> []
                | Error faults -> at place faults

        let moved = b.Grid |> List.collect _.Options

        List.distinct
            [ for name, value in b.Set do
                  yield! one $"{where}.set.{name}" name value
              for axis in b.Grid do
                  for name in axis.Options do
                      for value in axis.Values do
                          yield! one $"""{where}.grid.{String.Join("=", axis.Options)}""" name value
              for name, times in List.countBy id moved do
                  if times > 1 then
                      Fault.At($"{where}.grid", Fault.Contradiction($"'{name}' stands there twice", "give each option one list")) ]

    let private jobsOf
        (find: string -> Result<Cmcl.Stream, Fault list>)
        (threads: Cmcl.Stream -> int)
        (device: torch.Device)
        (where: string)
        (b: SweepBlock)
        : Result<Job list, Fault list> =
        let streams =
            [ for i, source in List.indexed b.Streams ->
                  find source
                  |> Result.bind (StudyStream.splits b.Splits source threads)
                  |> Result.mapError (at $"{where}.streams[{i}]") ]
            |> Check.all
            |> Result.map List.concat

        match optionFaults where b, streams with
        | [], Ok streams ->
            let product methods given : Study =
                { Streams = streams
                  Configurations = Configurations.Written(methods, given, [])
                  Orders = [ 0 .. b.Orders - 1 ]
                  Seeds = b.Seeds
                  Split = b.Split
                  Device = device
                  Monitor = None }

            // Methods alone first, so that what is wrong with one is told of its own place.
            [ for i, method in List.indexed b.Methods ->
                  Study.cells { product [ method ] [] with Seeds = [ 0 ] } |> Result.mapError (at $"{where}.methods[{i}]") ]
            |> Check.all
            |> Result.bind (fun _ ->
                let study = product (written b) b.Set

                Study.cells study
                |> Result.map (Study.inRounds study)
                |> Result.mapError (at (if b.Grid.IsEmpty then where else $"{where}.grid")))
        | faults, Ok _ -> Error faults
        | faults, Error more -> Error(faults @ more)

    /// Cells that differ and that no table could tell apart by stream, method, order and seed.
    let private ambiguous (jobs: Job list) : Fault list =
        [ for label, all in jobs |> List.groupBy _.Cell do
              if all.Length > 1 then
                  Fault.Contradiction(
                      $"the sweep has {all.Length} different cells '{label.Stream}: {label.Method}' with seed {label.Seed}",
                      "let the method's name tell them apart: give the option in which they differ in brackets or in 'grid'; different streams need different names, different splits a sweep each"
                  ) ]
        |> List.truncate 3

    /// Every cell once, in the order of the blocks, and in each as a comparison runs them. Streams are loaded once and belong to the
    /// caller. All that is wrong with any block is told at once.
    let jobs (threads: Cmcl.Stream -> int) (file: SweepFile) : Result<Job list, Fault list> =
        let loaded = Collections.Generic.Dictionary<string, Result<Cmcl.Stream, Fault list>>()

        let find source =
            match loaded.TryGetValue source with
            | true, result -> result
            | _ ->
                loaded[source] <- Catalogue.find source
                loaded[source]

        let device =
            match file.Device.Split ':' with
            | [| "cpu" |] -> Ok torch.CPU
            // A description alone: `torch.device` would look for a GPU, and where a sweep is planned there may be none.
            | [| "cuda" |] -> Ok(torch.Device "cuda:0")
            // The index of a device is a signed byte.
            | [| "cuda"; n |] when fst (SByte.TryParse(n, Globalization.NumberStyles.None, null)) -> Ok(torch.Device file.Device)
            | _ -> Error [ Fault.At("device", Fault.BadValue("it", "cpu, cuda or cuda:N", file.Device)) ]

        device
        |> Result.bind (fun device ->
            [ for i, b in List.indexed file.Blocks -> jobsOf find threads device $"blocks[{i}]" b ] |> Check.all)
        |> Result.map (List.concat >> List.distinctBy Job.identity)
        |> Result.bind (fun jobs ->
            match ambiguous jobs with
            | [] -> Ok jobs
            | faults -> Error faults)

    /// The same as a folder lists them.
    let cells (threads: Cmcl.Stream -> int) (out: string) (file: SweepFile) : Result<SweepCell list, Fault list> =
        jobs threads file |> Result.map (List.choose (SweepCell.ofJob out))
