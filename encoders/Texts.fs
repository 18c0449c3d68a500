namespace Cmcl.Encoders

open System
open System.IO
open System.Text.Json
open System.Text.RegularExpressions
open Microsoft.ML.Tokenizers
open TorchSharp
open Cmcl

/// Token numbers of one text, its begin and its end among them, and whether it was longer than the encoder takes.
type Tokens = { Ids: int64[]; Cut: bool }

/// What makes tokens of a text, and the number that fills up.
type TextReader = { Pad: int; Read: string -> Tokens }

/// Texts as encoders take them.
[<RequireQualifiedAccess>]
module Texts =
    /// How CLIP splits a text into words before it looks for pieces.
    let private words =
        Regex(
            @"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+",
            RegexOptions.IgnoreCase ||| RegexOptions.CultureInvariant
        )

    let private spaces = Regex(@"\s+", RegexOptions.CultureInvariant)

    /// Begins, cuts and ends.
    let private frame (context: int) (first: int) (last: int) (pieces: seq<int>) : Tokens =
        let pieces = Array.ofSeq pieces

        { Ids = [| int64 first; yield! pieces |> Array.truncate (context - 2) |> Array.map int64; int64 last |]
          Cut = pieces.Length > context - 2 }

    let private clip (input: TextInput) : TextReader =
        use document = JsonDocument.Parse(File.ReadAllText input.Vocab)
        let vocab = dict [ for e in document.RootElement.EnumerateObject() -> e.Name, e.Value.GetInt32() ]

        let special (name: string) =
            match vocab.TryGetValue name with
            | true, id -> id
            | _ -> Check.fail (Fault.Unreadable(input.Vocab, $"it has no '{name}', as CLIP's vocabulary does"))

        let first, last = special "<|startoftext|>", special "<|endoftext|>"

        let merges =
            [ for line in File.ReadLines input.Merges do
                  // The first line tells the version.
                  if line.Trim() <> "" && not (line.StartsWith "#version") then
                      line ]

        let tokenizer =
            BpeTokenizer.Create(
                BpeOptions(
                    vocab,
                    Merges = merges,
                    ByteLevel = true,
                    EndOfWordSuffix = "</w>",
                    UnknownToken = "<|endoftext|>",
                    PreTokenizer = RegexPreTokenizer(words, null)
                )
            )

        { Pad = Option.defaultValue last input.Pad
          Read =
            fun text ->
                let text = spaces.Replace(text.Normalize Text.NormalizationForm.FormC, " ").Trim()
                let text = if input.Lower then text.ToLowerInvariant() else text
                tokenizer.EncodeToIds text |> frame input.Context first last }

    let private wordPiece (input: TextInput) : TextReader =
        let tokenizer =
            BertTokenizer.Create(
                input.Vocab,
                BertOptions(LowerCaseBeforeTokenization = input.Lower, RemoveNonSpacingMarks = input.Lower)
            )

        let first, last = tokenizer.ClassificationTokenId, tokenizer.SeparatorTokenId

        { Pad = Option.defaultValue tokenizer.PaddingTokenId input.Pad
          Read = fun text -> tokenizer.EncodeToIds(text, false, true, true) |> frame input.Context first last }

    /// Texts' tokens side by side (int64), filled up to so many, and 1 where there is a token, 0 where there is padding.
    let together (pad: int) (length: int) (texts: Tokens list) : torch.Tensor * torch.Tensor =
        let rows (row: Tokens -> int64[]) (fill: int64) =
            let filled t =
                let own = row t
                Array.append own (Array.create (length - own.Length) fill)

            torch.stack [ for t in texts -> torch.tensor (filled t) ]

        rows _.Ids (int64 pad), rows (fun t -> Array.create t.Ids.Length 1L) 0L

    /// The tokenizer of a description. Fault: `Unreadable` for files that are none.
    let reader (input: TextInput) : Result<TextReader, Fault list> =
        let files =
            match input.Tokenizer with
            | TokenizerKind.Clip -> [ input.Vocab; input.Merges ]
            | TokenizerKind.WordPiece -> [ input.Vocab ]

        try
            files
            |> List.map (fun file -> InputFile.readingText "the tokenizer" file Ok)
            |> Check.all
            |> Result.map (fun _ ->
                match input.Tokenizer with
                | TokenizerKind.Clip -> clip input
                | TokenizerKind.WordPiece -> wordPiece input)
        with
        | CmclException fault -> Error [ fault ]
        | :? JsonException
        | :? FormatException
        | :? InvalidOperationException
        | :? ArgumentException
        | :? InvalidDataException
        | :? IOException as e -> Error [ Fault.Unreadable(input.Vocab, $"it does not make a tokenizer ({Reason.ofException e})") ]
