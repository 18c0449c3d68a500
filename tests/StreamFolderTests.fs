module Cmcl.Tests.StreamFolderTests

open System
open System.IO
open System.Text.Json
open System.Text.Json.Nodes
open Expecto
open TorchSharp
open Cmcl
open Cmcl.Tests.Checks

let private docs = Path.Combine(__SOURCE_DIRECTORY__, "..", "docs")

/// The complete example of docs/stream-format.md.
let private example =
    let text = File.ReadAllText(Path.Combine(docs, "stream-format.md"))
    let start = text.IndexOf "```json" + 7
    text.Substring(start, text.IndexOf("```", start) - start)

let private write (folder: string) (file: string) (t: torch.Tensor) =
    let path = Path.Combine(folder, file)
    Directory.CreateDirectory $"{Path.GetDirectoryName path}" |> ignore
    Check.get (Npy.write path t)

let private features (file: string) (rows: int64) (d: int64) (folder: string) =
    use t = Seed.normal [ rows; d ] (Seed.ofInt 1 |> Seed.split file)
    write folder file t

/// The files of the example, with the shapes that its NumPy recipe gives them.
let private writeExample (folder: string) =
    features "features/vision-photo.npy" 40L 64L folder
    features "features/text-en.npy" 40L 64L folder
    features "features/audio-song.npy" 40L 32L folder
    features "prototypes/text-family.npy" 2L 64L folder
    use test = Tensors.range torch.CPU 32L 40L
    write folder "rows/test.npy" test
    use family = (Tensors.range torch.CPU 0L 40L).remainder(torch.tensor 2L)
    write folder "labels/family.npy" family

/// Makes the example's folder, lets `change` spoil its description and `spoil` its files, and gives the path to `act`.
let private inFolder (change: JsonNode -> unit) (spoil: string -> unit) (act: string -> unit) =
    let folder = Directory.CreateTempSubdirectory "cmcl-stream"
    use scope = torch.NewDisposeScope()

    try
        writeExample folder.FullName
        let json = JsonNode.Parse example |> Option.ofObj |> Option.get
        change json
        File.WriteAllText(Path.Combine(folder.FullName, StreamFolder.DefaultFile), json.ToJsonString())
        spoil folder.FullName
        act folder.FullName
    finally
        folder.Delete true

let private messages (path: string) : string list =
    match StreamFolder.load path with
    | Ok _ -> []
    | Error faults -> faults |> List.map _.Message

/// A value in the description by its path: keys and positions.
let rec private at (path: obj list) (node: JsonNode) : JsonNode =
    match path with
    | [] -> node
    | (:? int as index) :: rest -> at rest (Option.get (Option.ofObj node[index]))
    | key :: rest -> at rest (Option.get (Option.ofObj node[string key]))

let private set (path: obj list) (key: string) (value: string) (node: JsonNode) = (at path node)[key] <- JsonNode.Parse value

let private drop (path: obj list) (key: string) (node: JsonNode) = (at path node).AsObject().Remove key |> ignore

let private asIs (_: 'a) = ()

/// One fault, and all these words in it.
let private told (words: string list) (path: string) =
    match messages path with
    | [ message ] ->
        for word in words do
            Expect.stringContains message word "the sentence"

        Expect.isFalse (message.Contains '\n') "one line"
        Expect.isFalse (message.Contains "  at ") "no stack trace"
    | other -> failtest $"%A{other}"

let private badJson title change words = testCase title (fun () -> inFolder change asIs (told words))

let private badFiles title spoil words = testCase title (fun () -> inFolder asIs spoil (told words))

let private badText (title: string) (change: string -> string) (words: string list) =
    badFiles
        title
        (fun folder ->
            let file = Path.Combine(folder, StreamFolder.DefaultFile)
            File.WriteAllText(file, change (File.ReadAllText file)))
        words

/// Features with one value replaced.
let private spoilt (file: string) (row: int64) (value: float) (folder: string) =
    let path = Path.Combine(folder, file)
    use t = Check.get (Npy.read path)
    use place = t[row]
    place[2L] <- torch.tensor value
    Check.get (Npy.write path t)

let private vision, text, audio = "features/vision-photo.npy", "features/text-en.npy", "features/audio-song.npy"

let private first: obj list = [ "steps"; 0 ]

let private valid =
    testList
        "valid"
        [ testCase "the example of the documentation" (fun () ->
              inFolder asIs asIs (fun folder ->
                  let stream = Check.get (StreamFolder.load folder)
                  Expect.equal stream.Name "birds" "name"

                  Expect.equal
                      (stream.Steps |> List.map (fun s -> s.Index, s.Name))
                      [ 1, "photo–caption"; 2, "song–caption" ]
                      "steps"

                  let step = stream.Steps.Head
                  Expect.equal (string step.Pair) "vision–text" "pair"
                  Expect.equal step.Train [| 0L .. 27L |] "a range"
                  Expect.equal step.Validation [| 28L .. 31L |] "a list"
                  Expect.equal step.Test [| 32L .. 39L |] "a file"
                  let accuracy = Option.get step.Accuracy
                  Expect.equal accuracy.Items "vision:photo" "items"
                  Expect.equal accuracy.Modality (Modality.named "text") "modality"
                  Expect.equal accuracy.Prototypes.shape [| 2L; 64L |] "prototypes"
                  Expect.equal accuracy.Labels[..3] [| 0L; 1L; 0L; 1L |] "labels"
                  Expect.equal (stream.Banks["audio:song"].Features.shape) [| 40L; 32L |] "another d"
                  Expect.equal stream.Preset.Common["temperature"] "0.07" "preset"
                  Expect.equal stream.Preset.Run [ "zero-shot"; "vanilla"; "dns" ] "run"))
          testCase "tensors outlive the scope of the loader, and with the caller's own there is none" (fun () ->
              let folder = Directory.CreateTempSubdirectory "cmcl-stream"

              try
                  writeExample folder.FullName
                  File.WriteAllText(Path.Combine(folder.FullName, StreamFolder.DefaultFile), example)
                  let stream = Check.get (StreamFolder.load folder.FullName)

                  for bank in Map.values stream.Banks do
                      Expect.isFalse bank.Features.IsInvalid bank.Name
                      bank.Features.Dispose()
              finally
                  folder.Delete true)
          testCase "another file of the folder, without what may be left out" (fun () ->
              inFolder
                  (fun json ->
                      for key in [ "description"; "classes"; "prototypes"; "preset" ] do
                          drop [] key json

                      drop first "accuracy" json)
                  (fun folder -> File.Move(Path.Combine(folder, "stream.json"), Path.Combine(folder, "dense.json")))
                  (fun folder ->
                      let stream = Check.get (StreamFolder.load (Path.Combine(folder, "dense.json")))
                      Expect.isNone stream.Steps.Head.Accuracy "accuracy"
                      Expect.isEmpty stream.Preset.Common "preset"))
          testCase "settings may be numbers, kept as written" (fun () ->
              inFolder (set [ "preset"; "common" ] "lr" "1e-3") asIs (fun folder ->
                  let stream = Check.get (StreamFolder.load folder)
                  Expect.equal stream.Preset.Common["lr"] "1e-3" "lr"))
          testCase "the digest is of the content" (fun () ->
              let digest change spoil =
                  let mutable digest = ""
                  inFolder change spoil (fun folder -> digest <- (Check.get (StreamFolder.load folder)).Digest)
                  digest

              let same = digest asIs asIs
              Expect.equal (digest asIs asIs) same "the same in another folder"
              Expect.equal same.Length 64 "hex of 256 bits"
              Expect.notEqual (digest (set [] "name" "\"other\"") asIs) same "another description"
              Expect.notEqual (digest asIs (spoilt audio 3L 0.25)) same "another feature"
              Expect.equal (digest asIs (features "features/unused.npy" 3L 4L)) same "a file that nothing names") ]

let private memory =
    testList
        "memory"
        [ testCase "a bank of 128 MiB is loaded without a copy, and none is made on the way" (fun () ->
              inFolder asIs (fun folder -> zeros (Path.Combine(folder, vision)) 40L 1677721L) (fun folder ->
                  let load () = StreamFolder.load folder |> Check.get |> ignore
                  Expect.isLessThan (taken load) (16L <<< 20) "bytes"))
          testCase "a copy on the way would be seen" (fun () ->
              inFolder asIs (fun folder -> zeros (Path.Combine(folder, vision)) 40L 1677721L) (fun folder ->
                  let pass () =
                      let features = Check.get (Npy.map (Path.Combine(folder, vision)))
                      (features.isfinite ()).Dispose()

                  Expect.isGreaterThan (taken pass) (48L <<< 20) "bytes")) ]

let private files =
    testList
        "files"
        [ testCase "no such folder" (fun () ->
              Expect.stringContains (List.exactlyOne (messages "/no/such/folder")) "/no/such/folder" "path")
          testCase "a folder without a stream file" (fun () ->
              inFolder
                  asIs
                  (fun folder -> File.Delete(Path.Combine(folder, "stream.json")))
                  (told [ "stream.json"; "does not exist" ]))
          badFiles
              "a missing feature file"
              (fun folder -> File.Delete(Path.Combine(folder, vision)))
              [ vision; "does not exist"; "bank 'vision:photo'" ]
          badFiles
              "a missing row file"
              (fun folder -> File.Delete(Path.Combine(folder, "rows/test.npy")))
              [ "rows/test.npy"; "row set 'test'" ]
          badJson
              "a path that leaves the folder"
              (set [ "banks"; "text:en" ] "file" "\"../text.npy\"")
              [ "bank 'text:en'"; "inside the stream's folder"; "../text.npy" ]
          badJson "an absolute path" (set [ "banks"; "text:en" ] "file" "\"/etc/passwd\"") [ "bank 'text:en'"; "/etc/passwd" ]
          badJson "a path with a zero byte" (set [ "banks"; "text:en" ] "file" "\"a\\u0000b\"") [ "bank 'text:en'" ]
          badFiles
              "a torn file"
              (fun folder ->
                  let path = Path.Combine(folder, text)
                  File.WriteAllBytes(path, (File.ReadAllBytes path)[..999]))
              [ text; "bank 'text:en'"; "promises 20480 bytes" ]
          badFiles
              "not a .npy file"
              (fun folder -> File.WriteAllText(Path.Combine(folder, text), "1, 2, 3 and so on"))
              [ text; "not a .npy file" ]
          badFiles
              "a bank that is a vector"
              (fun folder ->
                  use t = torch.zeros 40L
                  write folder vision t)
              [ "bank 'vision:photo'"; "rows × d"; "[40]" ]
          badFiles "a bank without rows" (features vision 0L 64L) [ "bank 'vision:photo'"; "[0 × 64]" ]
          badFiles
              "a bank of integers"
              (fun folder ->
                  use t = torch.zeros (40L, 64L, dtype = Nullable torch.int64)
                  write folder vision t)
              [ "bank 'vision:photo'"; "float16, float32 or float64"; "int64" ]
          badFiles
              "row numbers that are not integers"
              (fun folder ->
                  use t = torch.zeros 8L
                  write folder "rows/test.npy" t)
              [ "row set 'test'"; "int32 or int64" ]
          badFiles
              "row numbers in a matrix"
              (fun folder ->
                  use t = torch.zeros (8L, 1L, dtype = Nullable torch.int64)
                  write folder "rows/test.npy" t)
              [ "row set 'test'"; "a vector"; "[8 × 1]" ]
          for name, value in [ "NaN", nan; "infinity", infinity; "negative infinity", -infinity ] do
              badFiles $"a {name}" (spoilt text 17L value) [ "bank 'text:en'"; "row 17"; "NaN or infinite" ]
          badFiles
              "a NaN in half precision"
              (fun folder ->
                  use t = torch.ones (40L, 64L, dtype = Nullable torch.float16)
                  use row = t[31L]
                  row.fill_ (nan.AsScalar()) |> ignore
                  write folder text t)
              [ "bank 'text:en'"; "row 31" ]
          badFiles "a NaN in a prototype" (spoilt "prototypes/text-family.npy" 1L nan) [ "prototype set 'text:family'"; "row 1" ] ]

let private json =
    testList
        "description"
        [ badText "not JSON" (fun text -> text.Substring(0, 200)) [ "stream.json"; "not valid JSON" ]
          badText
              "a key twice"
              (fun text -> text.Replace("\"description\"", "\"name\""))
              [ "stream.json"; "not valid JSON"; "name" ]
          badText "text that is not Unicode" (fun text -> text.Replace("birds", "\\ud800")) [ "stream.json"; "Unicode" ]
          badText "a list instead" (fun _ -> "[]") [ "stream.json"; "an object" ]
          badJson "another format" (set [] "format" "\"cmcl-stream/2\"") [ "'format'"; "cmcl-stream/1"; "cmcl-stream/2" ]
          badJson "no name" (drop [] "name") [ "stream.json"; "no 'name'" ]
          badJson "no steps" (set [] "steps" "[]") [ "stream.json"; "at least one step" ]
          badJson "an unknown key" (set [] "stepz" "1") [ "stream.json"; "'stepz'"; "did you mean 'steps'" ]
          badJson "an unknown key of a bank" (set [ "banks"; "text:en" ] "fil" "1") [ "bank 'text:en'"; "'fil'"; "'file'" ]
          badJson "an unknown key of a step" (set first "tset" "\"test\"") [ "step 'photo–caption'"; "'tset'" ]
          badJson
              "an unknown key of an accuracy"
              (set (first @ [ "accuracy" ]) "k" "1")
              [ "'accuracy' of step 'photo–caption'"; "'k'" ]
          badJson "an unknown key of a range" (set [ "rows"; "train" ] "step" "2") [ "row set 'train'"; "'step'" ]
          badJson "an unknown key of classes" (set [ "classes"; "family" ] "label" "[]") [ "class set 'family'"; "'labels'" ]
          badJson
              "an unknown key of prototypes"
              (set [ "prototypes"; "text:family" ] "bank" "1")
              [ "prototype set 'text:family'"; "'bank'" ]
          badJson "an unknown key of a preset" (set [ "preset" ] "comon" "{}") [ "'preset'"; "'comon'"; "'common'" ]
          badJson "a step without a bank" (drop first "b") [ "step 'photo–caption'"; "no 'b'" ]
          badJson "a step without a name" (drop first "name") [ "'steps'"; "item 1"; "no 'name'" ]
          badJson
              "accuracy without prototypes"
              (drop (first @ [ "accuracy" ]) "prototypes")
              [ "step 'photo–caption'"; "no 'prototypes'" ]
          badJson "a number for a name" (set first "a" "3") [ "'a' of step 'photo–caption'"; "text"; "3" ]
          badJson
              "a modality that cannot name a file"
              (set [ "banks"; "text:en" ] "modality" "\"te/xt\"")
              [ "bank 'text:en'"; "te/xt" ]
          badJson
              "a row that is not an integer"
              (set [ "rows" ] "validation" "[28, 29.5]")
              [ "row set 'validation'"; "item 2"; "29.5" ]
          badJson "rows in words" (set [ "rows" ] "validation" "\"all\"") [ "row set 'validation'"; "all" ]
          testCase "all that is wrong is told at once" (fun () ->
              inFolder
                  (fun json ->
                      set [] "stepz" "1" json
                      drop first "b" json
                      set [ "banks"; "text:en" ] "modality" "\"\"" json)
                  asIs
                  (fun folder -> Expect.hasLength (messages folder) 3 "faults")) ]

let private content =
    testList
        "content"
        [ badJson
              "an unknown bank"
              (set [ "steps"; 1 ] "a" "\"audio:sogn\"")
              [ "step 'song–caption'"; "'audio:sogn'"; "did you mean 'audio:song'" ]
          badJson "an unknown row set" (set first "test" "\"tests\"") [ "row set"; "step 'photo–caption'"; "'tests'" ]
          badJson
              "unknown prototypes"
              (set (first @ [ "accuracy" ]) "prototypes" "\"text:genus\"")
              [ "prototype set"; "step 'photo–caption'"; "'text:genus'" ]
          badJson
              "items that are not in the step"
              (set (first @ [ "accuracy" ]) "items" "\"audio:song\"")
              [ "step 'photo–caption'"; "'vision:photo' or 'text:en'"; "audio:song" ]
          testCase "classes without prototypes" (fun () ->
              inFolder
                  (fun json ->
                      drop [] "prototypes" json
                      drop first "accuracy" json)
                  asIs
                  (told [ "class set 'family'"; "no prototypes" ]))
          testCase "an empty split" (fun () ->
              for split in [ "train"; "validation"; "test" ] do
                  inFolder
                      (fun json ->
                          set [ "rows" ] "none" "[]" json
                          set [ "steps"; 1 ] split "\"none\"" json)
                      asIs
                      (told [ "step 'song–caption'"; $"no {split} rows" ]))
          badJson
              "a range that ends before it begins"
              (set [ "rows"; "train" ] "from" "30")
              [ "row set 'train'"; "from 30 to 28" ]
          testCase "rows that banks do not have" (fun () ->
              for wrong, row in [ "[28, 40]", 40; "[28, -1]", -1; "{ \"from\": 28, \"to\": 9000000000000000000 }", 40 ] do
                  inFolder
                      (fun json ->
                          set [ "rows" ] "wrong" wrong json
                          set first "validation" "\"wrong\"" json)
                      asIs
                      (told [ "row set 'wrong'"; "step 'photo–caption'"; $"row {row}"; "only 40 rows" ]))
          badJson "a row twice" (set [ "rows" ] "validation" "[28, 29, 28]") [ "row set 'validation'"; "row 28 twice" ]
          testCase "rows of two splits" (fun () ->
              inFolder
                  (fun json ->
                      set [ "rows" ] "both" "[27, 28, 29]" json
                      set [ "steps"; 1 ] "validation" "\"both\"" json)
                  asIs
                  (told [ "step 'song–caption'"; "row 27"; "train"; "validation" ]))
          badFiles
              "banks of different lengths"
              (features audio 41L 32L)
              [ "step 'song–caption'"; "'audio:song'"; "'text:en'"; "41 and 40" ]
          testCase "a step within one modality" (fun () ->
              inFolder
                  (set [ "banks"; "audio:song" ] "modality" "\"text\"")
                  (features audio 40L 64L)
                  (told [ "step 'song–caption'"; "'audio:song'"; "'text:en'"; "modality 'text'" ]))
          testCase "one modality with two dimensions" (fun () ->
              inFolder
                  (set [ "banks" ] "text:de" $"{{ \"modality\": \"text\", \"file\": \"{audio}\" }}")
                  asIs
                  (told [ "'text:de'"; "d = 32"; "'text:en'"; "d = 64" ]))
          testCase "two steps of one name" (fun () ->
              inFolder (set [ "steps"; 1 ] "name" "\"photo–caption\"") asIs (told [ "2 steps"; "'photo–caption'" ]))
          badFiles
              "prototypes of another dimension"
              (features "prototypes/text-family.npy" 2L 63L)
              [ "prototype set 'text:family'"; "d = 64"; "63" ]
          badFiles
              "prototypes that are not one a class"
              (features "prototypes/text-family.npy" 3L 64L)
              [ "prototype set 'text:family'"; "2 rows"; "'family'"; "3" ]
          badJson
              "prototypes of a modality that no bank has"
              (set [ "prototypes"; "text:family" ] "modality" "\"depth\"")
              [ "prototype set 'text:family'"; "'depth'" ]
          testCase "prototypes of unknown classes" (fun () ->
              inFolder
                  (fun json ->
                      let more = (at [ "prototypes"; "text:family" ] json).DeepClone()
                      more["classes"] <- JsonValue.Create "genus"
                      (at [ "prototypes" ] json)["more"] <- more)
                  asIs
                  (told [ "prototype set 'more'"; "'genus'" ]))
          badJson
              "labels that are not one a row"
              (set [ "classes"; "family" ] "labels" "[0, 1]")
              [ "class set 'family'"; "step 'photo–caption'"; "40"; "2" ]
          testCase "a label out of range" (fun () ->
              inFolder
                  asIs
                  (fun folder ->
                      use t = torch.zeros (40L, dtype = Nullable torch.int32)
                      use place = t[9L]
                      place.fill_ ((2).AsScalar()) |> ignore
                      write folder "labels/family.npy" t)
                  (told [ "row 9"; "class set 'family'"; "-1 (no class) to 1"; "2" ]))
          testCase "a split in which nothing has a class" (fun () ->
              inFolder
                  asIs
                  (fun folder ->
                      use t = torch.zeros (40L, dtype = Nullable torch.int32)
                      use part = t.narrow (0L, 32L, 8L)
                      part.fill_ ((-1).AsScalar()) |> ignore
                      write folder "labels/family.npy" t)
                  (told [ "test rows"; "step 'photo–caption'"; "'family'" ]))
          testCase "all that is wrong is told at once, and each once" (fun () ->
              inFolder
                  (fun json ->
                      set [ "steps"; 1 ] "a" "\"audio:sogn\"" json
                      set [ "rows" ] "validation" "[]" json)
                  (fun folder ->
                      spoilt vision 5L nan folder
                      File.Delete(Path.Combine(folder, "labels/family.npy")))
                  (fun folder ->
                      let all = String.Join("\n", messages folder)

                      for word in [ "audio:sogn"; "row 5"; "labels/family.npy"; "step 'song–caption' has no validation" ] do
                          Expect.stringContains all word "told"

                      Expect.hasLength (messages folder) 5 "faults: the empty set is used by both steps")) ]

/// A description with some bytes changed, or bitten off, is read or refused in sentences; nothing is thrown.
let private damage =
    testPropertyWithConfig
        { FsCheckConfig.defaultConfig with maxTest = 20 }
        "a damaged description is read or refused, nothing else"
        (fun (changes: (uint16 * byte) list list) ->
            inFolder asIs asIs (fun folder ->
                let file = Path.Combine(folder, StreamFolder.DefaultFile)
                let whole = File.ReadAllBytes file

                for change in changes do
                    let bytes = Array.copy whole

                    for place, value in change do
                        bytes[int place % bytes.Length] <- if value % 2uy = 0uy then value else 48uy + value % 10uy

                    File.WriteAllBytes(file, bytes)

                    match StreamFolder.load folder with
                    | Ok _ -> ()
                    | Error faults ->
                        Expect.isNonEmpty faults "a reason"
                        Expect.all faults (fun fault -> not (String.IsNullOrWhiteSpace fault.Message)) "in words"))

/// The schema says what the reader accepts: the same kinds, the same keys, the same of them needed.
let private schema =
    testCase "the schema has the reader's keys" (fun () ->
        use document = JsonDocument.Parse(File.ReadAllText(Path.Combine(docs, "stream.schema.json")))
        let kinds = document.RootElement.GetProperty "$defs"
        let keysOf (json: JsonElement) = [ for entry in json.EnumerateObject() -> entry.Name ]

        let closed =
            [ for kind in kinds.EnumerateObject() do
                  match kind.Value.TryGetProperty "additionalProperties" with
                  | true, rest when rest.ValueKind = JsonValueKind.False -> kind.Name
                  | _ -> () ]

        Expect.equal (List.sort closed) (List.ofSeq (Map.keys StreamFile.keys)) "kinds"

        for KeyValue(kind, (needed, others)) in StreamFile.keys do
            let json = kinds.GetProperty kind
            Expect.equal (List.sort (keysOf (json.GetProperty "properties"))) (List.sort (needed @ others)) kind

            let required =
                match json.TryGetProperty "required" with
                | true, list -> [ for key in list.EnumerateArray() -> string (key.GetString()) ]
                | _ -> []

            Expect.equal (List.sort required) (List.sort needed) $"needed by {kind}")

let tests = testList "StreamFolder" [ valid; memory; files; json; content; damage; schema ]
