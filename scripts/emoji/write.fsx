// The folder data/emoji: features, prototypes, two streams, what each row is.
#load "bind.fsx"
#load "../streams/json.fsx"

open System
open System.IO
open System.Text
open System.Text.Json.Nodes
open Cmcl
open TorchSharp
open Inventory
open Axes
open Encode
open Bind
open Json

let private target = Path.Combine(root, "data", "emoji")
let private fileName (bank: string) = bank.Replace(':', '-') + ".npy"

let private writeText (name: string) (text: string) = File.WriteAllText(Path.Combine(target, name), text, UTF8Encoding false)

let private writeNpy (folder: string) (bank: string) (x: torch.Tensor) =
    Npy.write (Path.Combine(target, folder, fileName bank)) (x.``to`` torch.float16) |> Check.get

/// Subgroups with a base item: those that have a prototype.
let private classes = subgroups |> Array.filter (fun s -> baseRows |> Array.exists (fun row -> items[row].Subgroup = s))

/// The class of every row, −1 where its subgroup has no base item.
let private labels = items |> Array.map (fun e -> Array.IndexOf(classes, e.Subgroup))

/// The mean of a subgroup's base items, at unit length.
let private prototypes (features: torch.Tensor) =
    let ofClass c =
        let rows = baseRows |> Array.filter (fun row -> labels[row] = c) |> Array.map int64
        features.index_select(0L, torch.tensor rows).mean([| 0L |], true)

    Alignment.normalise (torch.cat ([| for c in 0 .. classes.Length - 1 -> ofClass c |], 0L))

// ---- the streams

/// a, b, half of the concepts.
let private steps =
    [ "vision:noto", "text:en", "A"
      "vision:noto", "speech:en-us", "B"
      "line:hc", "text:de", "A"
      "vision:twemoji", "text:ja", "B"
      "text:fr", "speech:fr", "A"
      "line:hc", "vision:twemoji", "B"
      "vision:twemoji", "speech:de", "A"
      "line:hc", "text:ja", "B"
      "vision:fluent", "text:fr", "A"
      "line:hc", "speech:en-gb", "B"
      "text:de", "speech:de", "A" ]

let private step (dense: bool) (a: string, b: string, half: string) =
    let domain (bank: string) = bank.Split(':')[1]
    let rows = if dense then "all" else half.ToLowerInvariant()
    let name = if dense then $"{domain a}–{domain b}" else $"{domain a}–{domain b} {half}"

    // Text classifies the other side; two sides without text have no classes.
    let accuracy =
        match modality a = "text", modality b = "text" with
        | true, _ -> [ ("accuracy", object' [ "items", text b; "prototypes", text a ]) ]
        | _, true -> [ ("accuracy", object' [ "items", text a; "prototypes", text b ]) ]
        | _ -> []

    object' (
        [ "name", text name
          "a", text a
          "b", text b
          "train", text $"{rows}-train"
          "validation", text $"{rows}-validation"
          "test", text $"{rows}-test" ]
        @ accuracy
    )

let private rowSets (dense: bool) =
    let set name keep =
        [ for part, word in [ Train, "train"; Validation, "validation"; Test, "test" ] ->
              $"{name}-{word}", numbers (rowsWhere (fun row -> parts[row] = part && keep row)) ]

    if dense then set "all" (fun _ -> true) else set "a" isHalfA @ set "b" (isHalfA >> not)

let private stream (dense: bool) (name: string) (description: string) (banks: string list) =
    let languagesUsed = [ for language in languages -> $"text:{language}" ]

    object'
        [ "format", text "cmcl-stream/1"
          "name", text name
          "description", text description
          "banks",
          object' [ for b in banks -> (b, object' [ "modality", text (modality b); "file", text ("features/" + fileName b) ]) ]
          "rows", object' (rowSets dense)
          "classes", object' [ "subgroup", object' [ "names", texts classes; "labels", numbers labels ] ]
          "prototypes",
          object'
              [ for l in languagesUsed ->
                    l, object' [ "modality", text "text"; "classes", text "subgroup"; "file", text ("prototypes/" + fileName l) ] ]
          "steps", JsonArray([| for s in steps -> step dense s |])
          "preset", preset __SOURCE_DIRECTORY__ name ]
    |> written

let private partName part = (string part).ToLowerInvariant()

let private table () =
    String.Join(
        "",
        [ line [ "row"; "codes"; "emoji"; "name"; "group"; "subgroup"; "half"; "part" ]
          for row, e in Array.indexed items do
              line
                  [ string row
                    e.Codes
                    e.Character
                    e.Names["en"]
                    e.Group
                    e.Subgroup
                    (if isHalfA row then "A" else "B")
                    partName parts[row] ] ]
    )

/// Recall@10 of unseen items before any training, both directions' mean: what the binding alone can do.
let private zeroShot (features: Map<string, torch.Tensor>) =
    let unseen = torch.tensor (Array.map int64 unseenRows)

    for a, b in
        [ "vision:noto", "vision:twemoji"
          "vision:noto", "vision:fluent"
          "vision:noto", "line:hc"
          "vision:noto", "text:en"
          "text:en", "speech:en-us"
          "text:en", "speech:en-gb"
          "vision:noto", "speech:en-us"
          "vision:noto", "text:de"
          "vision:noto", "text:fr"
          "vision:noto", "text:ja"
          "text:de", "speech:de"
          "text:fr", "speech:fr" ] do
        let x, y = features[a].index_select(0L, unseen), features[b].index_select(0L, unseen)
        let recall = 0.5 * ((Retrieval.recall [ 10 ] x y).Head + (Retrieval.recall [ 10 ] y x).Head)
        printfn "  | %s | %s | %.3f |" a b recall

let write (encoded: Encoded list) (weights: Heads) =
    let features = Map [ for e in encoded -> e.Name, bound weights e ]

    for folder in [ "features"; "prototypes" ] do
        Directory.CreateDirectory(Path.Combine(target, folder)) |> ignore

    for KeyValue(bank, x) in features do
        writeNpy "features" bank x

        if modality bank = "text" then
            writeNpy "prototypes" bank (prototypes x)

    let banks = [ for e in encoded -> e.Name ]

    let about =
        "Emoji as vision (three vendors' pictures), line art, text (names and keywords in four languages) and speech (spoken names, four voices), from frozen hand-made encoders."

    writeText "stream.json" (stream false "emoji" (about + " Steps alternate between two halves of the concepts.") banks)
    writeText "dense.json" (stream true "emoji-dense" (about + " Every step has all concepts.") banks)
    writeText "items.tsv" (table ())
    printfn "  zero-shot recall@10 on %d unseen items (chance %.3f)" unseenRows.Length (10.0 / float unseenRows.Length)
    zeroShot features
