// Streams over the banks: rows in four parts, by item and by family, ten steps or those that have their sources.
#load "features.fsx"
#load "../streams/json.fsx"
#r "../../cli/bin/Release/net10.0/Cmcl.dll"
#r "../../cli/bin/Release/net10.0/TorchSharp.dll"

open System
open System.IO
open System.Text
open System.Text.Json.Nodes
open Cmcl
open TorchSharp
open Packages
open Sources
open Features
open Json

Native.init ()

/// Rows of base items fit initial heads and are in no step.
type Part =
    | Base
    | Validation
    | Test
    | Train

/// Shares of the items; the rest is trained on.
let private shares = [ Base, 0.2; Validation, 0.08; Test, 0.2 ]

let private shuffled (seed: string) (n: int) : int[] =
    use order = Seed.permutation (int64 n) (Seed.ofInt 0 |> Seed.split seed)
    order.data<int64>().ToArray() |> Array.map int

/// Parts of groups of items in a shuffled order: each part takes groups until it has its share.
let private parted (seed: string) (groups: int[][]) (n: int) : Part[] =
    let parts = Array.create n Train
    let order = shuffled seed groups.Length |> Array.map (fun g -> groups[g]) |> List.ofArray

    let rec take shares taken (left: int[] list) =
        match shares, left with
        | (part, share) :: others, group :: rest when float taken < Math.Floor(share * float n) ->
            for row in group do
                parts[row] <- part

            take shares (taken + group.Length) rest
        | _ :: others, left -> take others 0 left
        | [], _ -> ()

    take shares 0 order
    parts

let byItem (source: string) (items: Item[]) =
    parted $"real/{source}/items" [| for row in 0 .. items.Length - 1 -> [| row |] |] items.Length

let private byFamily (source: string) (items: Item[]) =
    let families = items |> Array.indexed |> Array.groupBy (fun (_, i) -> i.Family) |> Array.map (snd >> Array.map fst)
    parted $"real/{source}/families" families items.Length

/// Source, a, b: fixed before any of them was run.
let private steps =
    [ "stamps", "vision", "text:en"
      "prompts", "text:en", "speech:en"
      "emoji", "vision:noto", "text:en"
      "stamps", "vision", "speech:fr"
      "clipart", "vision", "text:en"
      "prompts", "text:ru", "speech:ru"
      "emoji", "line:hc", "text:de"
      "stamps", "text:en", "speech:ru"
      "emoji", "vision:noto", "speech:en"
      "emoji", "line:hc", "text:fr" ]

/// Steps over base items that initial heads are fitted to: the first form of each modality.
let private baseSteps =
    [ "stamps", "vision", "text:en"
      "emoji", "vision:noto", "text:en"
      "prompts", "text:en", "speech:en"
      "emoji", "line:hc", "text:en" ]

/// One stream file over the sources that are there.
let private stream
    (name: string)
    (description: string)
    (presetName: string)
    (heads: string option)
    (groups: string option)
    (rows: (string * (string * int[]) list) list)
    (chosen: (string * string * string) list)
    : string =
    let chosen = chosen |> List.filter (fun (source, _, _) -> rows |> List.exists (fst >> (=) source))

    let banks = chosen |> List.collect (fun (source, a, b) -> [ source, a; source, b ]) |> List.distinct

    let step i (source: string, a: string, b: string) : JsonNode =
        object'
            [ "name", text $"{i + 1} {source} {a.Replace(':', ' ')}–{b.Replace(':', ' ')}"
              "a", text (bankName source a)
              "b", text (bankName source b)
              for part in [ "train"; "validation"; "test" ] do
                  part, text $"{source}-{part}" ]

    object' (
        [ "format", text "cmcl-stream/1"
          "name", text name
          "description", text description
          "banks",
          object'
              [ for source, bank in banks ->
                    let file = $"features/{bankName source bank}.npy"
                    bankName source bank, object' [ "modality", text (modality bank); "file", text file ] ] ]
        @ [ match groups with
            | Some folder ->
                "groups",
                object' [ for source, bank in banks -> bankName source bank, object' [ "file", text $"{folder}/{source}.npy" ] ]
            | None -> ()
            match heads with
            | Some folder ->
                let modalities = banks |> List.map (snd >> modality) |> List.distinct
                "heads", object' [ for m in modalities -> m, text $"{folder}/{m}.npy" ]
            | None -> () ]
        @ [ "rows",
            object'
                [ for source, own in rows do
                      if chosen |> List.exists (fun (s, _, _) -> s = source) then
                          for part, rows in own do
                              $"{source}-{part}", numbers rows ]
            "steps", JsonArray(chosen |> List.mapi step |> Array.ofList) ]
        @ [ "preset", preset __SOURCE_DIRECTORY__ presetName ]
    )
    |> written

let rowsOf (parts: Part[]) part =
    [| for row in 0 .. parts.Length - 1 do
           if parts[row] = part then
               row |]

/// Rows of the steps.
let private stepRows (parts: (string * Part[]) list) =
    [ for source, parts in parts ->
          source, [ "train", rowsOf parts Train; "validation", rowsOf parts Validation; "test", rowsOf parts Test ] ]

/// Base rows, four of five to fit and the rest to choose by.
let private baseRows (parts: (string * Part[]) list) =
    [ for source, parts in parts ->
          let rows = rowsOf parts Base
          let kept i = i % 10
          let part which = rows |> Array.indexed |> Array.filter (fst >> kept >> which) |> Array.map snd
          source, [ "train", part (fun k -> k < 8); "validation", part ((=) 8); "test", part ((=) 9) ] ]

let private copied (target: string) (source: string) (items: Item[]) (bank: string) : unit =
    use whole = torch.NewDisposeScope()
    let features = Npy.read (bankFile source bank) |> Check.get
    let ids = File.ReadAllLines(Path.ChangeExtension(bankFile source bank, "ids.txt"))
    let place = dict [ for i, id in Array.indexed ids -> id, int64 i ]
    let rows = features.index_select (0L, torch.tensor [| for i in items -> place[i.Id] |])
    // At unit length: half precision has room for it, and heads see rows of one scale.
    let unit = Alignment.normalise (rows.``to`` torch.float64)
    Npy.write (Path.Combine(target, "features", bankName source bank + ".npy")) (unit.``to`` torch.float16) |> Check.get

/// What each row of a bank was made from, as `cmcl gallery` reads it: its text in the bank's language, else in English, and with the file where
/// that is to be named.
let private listed (target: string) (withFiles: bool) (source: string) (items: Item[]) (bank: string) : unit =
    let folder = Path.Combine(target, "items")
    Directory.CreateDirectory folder |> ignore

    let rows =
        [ for i in items ->
              let form = i.Forms[bank]
              let language = $"text:{bank.Substring(1 + bank.IndexOf ':')}"
              let said = i.Forms |> Map.tryFind language |> Option.defaultValue i.Forms["text:en"]

              if modality bank = "text" then [ i.Id; form ]
              elif withFiles then [ i.Id; said; Path.GetRelativePath(folder, form) ]
              else [ i.Id; said ] ]

    let header = if withFiles && modality bank <> "text" then "id,text,path" else "id,text"
    File.WriteAllText(Path.Combine(folder, bankName source bank + ".csv"), csv header rows, UTF8Encoding false)

/// The number of the family of every item of a source.
let private families (target: string) (source: string) (items: Item[]) : unit =
    let folder = Path.Combine(target, "families")
    Directory.CreateDirectory folder |> ignore
    let number = items |> Array.map _.Family |> Array.distinct |> Array.indexed |> Array.map (fun (i, f) -> f, int64 i) |> dict
    use groups = torch.tensor [| for i in items -> number[i.Family] |]
    Npy.write (Path.Combine(folder, $"{source}.npy")) groups |> Check.get

/// Writes features, lists of items (with their files where those stay) and stream files of some sources into a folder; without initial heads
/// where none were fitted yet.
let write
    (target: string)
    (named: string)
    (withFiles: bool)
    (found: (string * string list * Item list) list)
    (withHeads: bool)
    : unit =
    Directory.CreateDirectory(Path.Combine(target, "features")) |> ignore

    let all = [ for source, own, items in found -> source, own, Array.ofList items ]

    for source, own, items in all do
        for bank in own do
            copied target source items bank
            listed target withFiles source items bank

    for source, _, items in all do
        families target source items

    let splits =
        [ "", "items are held out", [ for source, _, items in all -> source, byItem source items ]
          "family", "whole families are held out", [ for source, _, items in all -> source, byFamily source items ] ]

    let about =
        "Pictures (ResNet18), texts (all-MiniLM-L6-v2) and recordings (Google's speech_embedding): telephone prompts, emoji, clip art"
        + (if all |> List.exists (fun (s, _, _) -> s = "stamps") then ", stamps" else "")

    let writeText (name: string) (content: string) = File.WriteAllText(Path.Combine(target, name), content, UTF8Encoding false)

    for split, words, parts in splits do
        let suffix = if split = "" then "" else "-" + split
        let file = if split = "" then "stream" else split
        // A source's rows of one family, where families are held out whole.
        let groups = if split = "" then None else Some "families"

        writeText
            $"{file}.json"
            (stream
                $"{named}{suffix}"
                $"{about}; features as the encoders give them; {words}."
                "steps"
                None
                groups
                (stepRows parts)
                steps)

        writeText
            $"base{suffix}.json"
            (stream $"{named}-base{suffix}" $"{about}: base items, for initial heads." "base" None None (baseRows parts) baseSteps)

        if withHeads then
            writeText
                $"bound{suffix}.json"
                (stream
                    $"{named}-bound{suffix}"
                    $"{about}; heads begin where base items of other rows bound them; {words}."
                    "steps"
                    (Some $"heads{suffix}")
                    groups
                    (stepRows parts)
                    steps)

    let table =
        [ line [ "source"; "row"; "id"; "family"; "part"; "part by family"; "text" ]
          for source, _, items in all do
              let item = snd (splits |> List.head |> (fun (_, _, p) -> List.find (fst >> (=) source) p))
              let family = snd (splits |> List.last |> (fun (_, _, p) -> List.find (fst >> (=) source) p))

              for row, i in Array.indexed items do
                  let clean (s: string) = RegularExpressions.Regex.Replace(s, @"\s+", " ")

                  line
                      [ source
                        string row
                        i.Id
                        i.Family
                        (string item[row]).ToLowerInvariant()
                        (string family[row]).ToLowerInvariant()
                        clean i.Forms["text:en"] ] ]

    writeText "items.tsv" (String.Join("", table))
