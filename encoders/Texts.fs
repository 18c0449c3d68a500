namespace Cmcl.Encoders

open System
open System.IO
open System.Text.Json
open System.Text.RegularExpressions
open Microsoft.ML.Tokenizers
open Cmcl

/// Token numbers of one text, all of one length; 1 where there is a token, 0 where there is padding.
type Tokens = { Ids: int64[]; Mask: int64[] }

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

    /// Begins, cuts, ends and pads.
    let private frame (context: int) (first: int) (last: int) (pad: int) (pieces: seq<int>) : Tokens =
        let ids = [| first; yield! Seq.truncate (context - 2) pieces; last |]
        let fill (value: int) = Array.create (context - ids.Length) (int64 value)

        { Ids = Array.append (Array.map int64 ids) (fill pad)
          Mask = Array.append (Array.create ids.Length 1L) (fill 0) }

    let private clip (input: TextInput) : string -> Tokens =
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

        fun text ->
            let text = spaces.Replace(text.Normalize Text.NormalizationForm.FormC, " ").Trim()
            let text = if input.Lower then text.ToLowerInvariant() else text
            tokenizer.EncodeToIds text |> frame input.Context first last (Option.defaultValue last input.Pad)

    let private wordPiece (input: TextInput) : string -> Tokens =
        let tokenizer =
            BertTokenizer.Create(
                input.Vocab,
                BertOptions(LowerCaseBeforeTokenization = input.Lower, RemoveNonSpacingMarks = input.Lower)
            )

        let first, last = tokenizer.ClassificationTokenId, tokenizer.SeparatorTokenId

        fun text ->
            tokenizer.EncodeToIds(text, false, true, true)
            |> frame input.Context first last (Option.defaultValue tokenizer.PaddingTokenId input.Pad)

    /// The tokenizer of a description. Fault: `Unreadable` for files that are none.
    let tokenizer (input: TextInput) : Result<string -> Tokens, Fault list> =
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
        | :? IOException as e ->
            let line = e.Message.Split('\n')[0]
            Error [ Fault.Unreadable(input.Vocab, $"it does not make a tokenizer ({line.TrimEnd '.'})") ]
