namespace Cmcl

open System

/// A kind of data with an encoder and a head of its own: vision, text, audio, depth, ….
[<Struct>]
type Modality =
    private
    | Modality of string

    /// The name, as the stream writes it.
    member m.Name = let (Modality name) = m in name
    override m.ToString() = m.Name

[<RequireQualifiedAccess>]
module Modality =
    /// What a modality may be called, in words.
    let rule: string = "1 to 64 letters, digits, '-' and '_'"

    /// A modality from its name, by the rule, so that it can name a file.
    let create (name: string) : Result<Modality, Fault list> =
        let fits c = Char.IsAsciiLetterOrDigit c || c = '-' || c = '_'

        if name <> "" && name.Length <= 64 && Seq.forall fits name then
            Ok(Modality name)
        else
            Error [ Fault.BadValue("a modality's name", rule, name) ]

    /// The same for scripts and tests: raises `CmclException` on a bad name. Example: `Modality.named "vision"`.
    let named (name: string) : Modality = create name |> Check.get

/// Two different modalities whose items are matched row by row. `A` is the anchor of the one-way loss.
[<Struct>]
type Pair =
    private
        { First: Modality
          Second: Modality }

    /// The anchor's modality.
    member p.A = p.First
    /// The partner's modality.
    member p.B = p.Second
    override p.ToString() = $"{p.First}–{p.Second}"

[<RequireQualifiedAccess>]
module Pair =
    /// A pair of two different modalities: one head cannot be aligned with itself.
    let create (a: Modality) (b: Modality) : Result<Pair, Fault list> =
        if a = b then
            Error
                [ Fault.Contradiction($"a pair of '{a}' with itself has only one head", "give the two banks different modalities") ]
        else
            Ok { First = a; Second = b }

    /// The same from names, for scripts and tests. Example: `Pair.named "vision" "text"`.
    let named (a: string) (b: string) : Pair = create (Modality.named a) (Modality.named b) |> Check.get

    /// Both modalities, anchor first.
    let members (p: Pair) : Modality list = [ p.A; p.B ]

    /// The other modality of the pair.
    let partner (m: Modality) (p: Pair) : Modality = if m = p.A then p.B else p.A
