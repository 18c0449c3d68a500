// Which emoji there are: their names, their pictures, their place in Unicode's groups, and what each is for.
open System
open System.IO
open System.Security.Cryptography
open System.Text
open System.Text.Json

let root = Path.GetFullPath(Path.Combine(__SOURCE_DIRECTORY__, "..", ".."))
/// Packages and everything rendered: ignored by git.
let work = Path.Combine(root, "output", "emoji")

let languages = [ "en"; "de"; "fr"; "ja" ]

/// Our name of a picture set, and its npm package.
let pictureSets =
    [ "noto", "noto"; "twemoji", "twemoji"; "fluent", "fluent-emoji-flat"; "hc", "fluent-emoji-high-contrast" ]

/// `Base` rows fit the encoders and the binding and never enter the stream.
type Part =
    | Base
    | Train
    | Validation
    | Test

type Emoji =
    {
        /// Code points in lower-case hexadecimal, joined by '-', without the variation selector fe0f.
        Codes: string
        Character: string
        /// By language.
        Names: Map<string, string>
        Keywords: Map<string, string list>
        Group: string
        Subgroup: string
        /// The icon's name in every picture set.
        Icons: Map<string, string>
    }

let private json (path: string list) =
    let file = Path.Combine(Array.ofList (work :: "node_modules" :: path))

    if not (File.Exists file) then
        failwith $"'{file}' does not exist; run scripts/emoji/install.sh first."

    JsonDocument.Parse(File.ReadAllBytes file).RootElement

let private text (name: string) (e: JsonElement) =
    match e.GetProperty(name).GetString() with
    | null -> failwith $"'{name}' is null"
    | value -> value

let private property (name: string) (e: JsonElement) =
    match e.TryGetProperty name with
    | true, value -> Some value
    | _ -> None

let private codes (hexcode: string) = hexcode.ToLowerInvariant().Replace("-fe0f", "")

/// Versions of another emoji that differ by gender or direction only (and the right arrow, which is the sign of direction).
let private nearDuplicate (codes: string) =
    List.exists (fun (part: string) -> codes.Contains part) [ "200d-2640"; "200d-2642"; "27a1" ]
    || List.exists (fun (start: string) -> codes.StartsWith start) [ "1f468-200d"; "1f469-200d" ]

let private load () : Emoji[] =
    let meta = json [ "emojibase-data"; "meta"; "groups.json" ]

    let kind (name: string) (e: JsonElement) = meta.GetProperty(name + "s") |> text (string (e.GetProperty(name).GetInt32()))

    let entries language =
        Map.ofSeq (
            seq {
                for e in (json [ "emojibase-data"; language; "data.json" ]).EnumerateArray() do
                    text "hexcode" e, e
            }
        )

    let texts = Map.ofList [ for language in languages -> language, entries language ]

    let icons = [ for set, package in pictureSets -> set, json [ "@iconify-json"; package; "chars.json" ] ]

    [| for KeyValue(hexcode, e) in texts["en"] do
           let key = codes hexcode
           let found = [ for set, names in icons -> set, property key names ]
           let translations = [ for language in languages -> language, texts[language].TryFind hexcode ]

           match property "group" e with
           | Some _ when
               List.forall (fun (_, icon: JsonElement option) -> icon.IsSome) found
               && List.forall (fun (_, e: JsonElement option) -> e.IsSome) translations
               && not (List.contains (kind "group" e) [ "component"; "flags" ])
               ->
               let inAll pick = Map.ofList [ for language, e in translations -> language, pick (Option.get e) ]

               e.GetProperty("order").GetInt32(),
               { Codes = key
                 Character = text "emoji" e
                 Names = inAll (text "label")
                 Keywords = inAll (fun e -> [ for tag in e.GetProperty("tags").EnumerateArray() -> string tag ])
                 Group = kind "group" e
                 Subgroup = kind "subgroup" e
                 Icons = Map.ofList [ for set, icon in found -> set, string icon.Value ] }
           | _ -> () |]
    |> Array.sortBy fst
    |> Array.map snd

let private everything = load ()

/// The rows of every bank, in Unicode's order.
let items = everything |> Array.filter (fun e -> not (nearDuplicate e.Codes))

/// Subgroups in Unicode's order.
let subgroups = items |> Array.map _.Subgroup |> Array.distinct

/// A number that depends on nothing but the seed in it and the emoji: the same on every machine.
let private lot (e: Emoji) = Convert.ToHexString(SHA256.HashData(Encoding.UTF8.GetBytes $"emoji split 1/{e.Codes}"))

/// What each row is for. A fifth of every subgroup is base, at least one item where there are two. The others, subgroup
/// by subgroup, are dealt in rounds of fifteen: five test, two validation, eight train.
let parts: Part[] =
    let drawn =
        [ for subgroup in subgroups do
              let rows =
                  [ 0 .. items.Length - 1 ]
                  |> List.filter (fun row -> items[row].Subgroup = subgroup)
                  |> List.sortBy (fun row -> lot items[row])

              let share = int (Math.Round(0.2 * float rows.Length))
              (if rows.Length > 1 then max 1 share else 0), rows ]

    let parts = Array.create items.Length Base

    drawn
    |> List.collect (fun (share, rows) -> List.skip share rows)
    |> List.iteri (fun i row ->
        parts[row] <-
            if i % 3 = 1 then Test
            elif i % 15 = 6 || i % 15 = 14 then Validation
            else Train)

    parts

let rowsWhere (keep: int -> bool) = [| 0 .. items.Length - 1 |] |> Array.filter keep

let baseRows = rowsWhere (fun row -> parts[row] = Base)
let unseenRows = rowsWhere (fun row -> parts[row] <> Base)

/// Half A: smileys, people, animals, food. Half B: travel, activities, objects, symbols.
let isHalfA (row: int) = List.contains items[row].Group [ "smileys-emotion"; "people-body"; "animals-nature"; "food-drink" ]

let describe () =
    let count part = parts |> Array.filter ((=) part) |> Array.length

    printfn "%d emoji in all sets and languages, %d without near-duplicates" everything.Length items.Length

    printfn
        "%d subgroups; base %d, train %d, validation %d, test %d"
        subgroups.Length
        (count Base)
        (count Train)
        (count Validation)
        (count Test)
