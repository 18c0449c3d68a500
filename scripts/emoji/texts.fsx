// What is read in names and keywords: character n-grams, weighed by how rare they are.
#load "axes.fsx"

open System
open System.Collections.Generic
open Cmcl
open TorchSharp
open Inventory
open Axes

/// Character n-grams of 1 to 5 within words, the ends of a word marked.
let private grams (text: string) =
    [ for word in
          text
              .ToLowerInvariant()
              .Split(
                  [| ' '; '-'; ','; ':'; '’'; '\''; '“'; '”'; '('; ')'; '!'; '?'; '.' |],
                  StringSplitOptions.RemoveEmptyEntries
              ) do
          let marked = $" {word} "

          for n in 1..5 do
              for at in 0 .. marked.Length - n do
                  let gram = marked.Substring(at, n)

                  if gram <> " " then
                      gram ]

/// How often each n-gram comes in an emoji's name (counted twice) and keywords.
let private counts (language: string) (keywords: string list) (e: Emoji) =
    let name = grams e.Names[language]
    List.countBy id (name @ name @ List.collect grams keywords)

/// n-grams that at least two base texts have, with their inverse document frequency.
let private vocabulary =
    let documents =
        [ for language in languages do
              for row in baseRows -> counts language items[row].Keywords[language] items[row] |> List.map fst ]

    let present =
        documents
        |> Seq.collect id
        |> Seq.countBy id
        |> Seq.filter (fun (_, n) -> n >= 2)
        |> Seq.sortWith (fun (a, _) (b, _) -> String.CompareOrdinal(a, b))
        |> Array.ofSeq

    let weight n = 1.0 + log (float (documents.Length + 1) / float (n + 1))
    Dictionary(present |> Seq.mapi (fun i (gram, n) -> KeyValuePair(gram, struct (i, weight n))))

/// TF-IDF with logarithmic counts, a row a text.
let private tfIdf (texts: (string * int) list list) =
    let values = Array.zeroCreate<float>(texts.Length * vocabulary.Count)

    for row, text in List.indexed texts do
        for gram, n in text do
            match vocabulary.TryGetValue gram with
            | true, struct (column, weight) -> values[row * vocabulary.Count + column] <- (1.0 + log (float n)) * weight
            | _ -> ()

    unit (torch.tensor(values).reshape [| int64 texts.Length; int64 vocabulary.Count |])

let private read (language: string) (rows: int[]) =
    tfIdf [ for row in rows -> counts language items[row].Keywords[language] items[row] ]

/// The base items' English texts with some keywords left out: other views of them.
let private reread (view: int) =
    tfIdf
        [ for row in baseRows ->
              let keep i = (i + view) % 3 <> 0
              let keywords = items[row].Keywords["en"] |> List.indexed |> List.filter (fst >> keep) |> List.map snd
              counts "en" (if view % 2 = 0 then keywords else []) items[row] ]

/// A text without a known n-gram reads like the average base text of its language.
let private orAverage (texts: torch.Tensor) =
    let unknown = texts.norm(1, true).eq(0.0.AsScalar())
    torch.where (unknown, unit ((rowsOf texts baseRows).mean([| 0L |], true)), texts)

/// The four languages.
let encodeTexts () =
    let fitted = axes false (torch.cat ([| for language in languages -> read language baseRows |], 0L))
    let everyone = [| 0 .. items.Length - 1 |]

    [ for language in languages ->
          { Name = $"text:{language}"
            Modality = "text"
            Items = project fitted (orAverage (read language everyone))
            Views = if language = "en" then [ for view in 0..4 -> project fitted (reread view) ] else [] } ]
