namespace Cmcl

open System
open System.IO
open System.Runtime.InteropServices
open System.Security.Cryptography
open System.Text

/// Names that users give, and what is made of them. A name is a label, never a place.
[<RequireQualifiedAccess>]
module Names =
    /// Has a text no control characters (line breaks among them) and no halves of surrogate pairs?
    let isClean (text: string) : bool =
        Seq.forall (fun c -> c >= ' ' && c < '\u007F') text
        || not (Seq.exists Char.IsControl text) && String.Join("", text.EnumerateRunes()) = text

    /// A text for one line of a terminal: control characters as `\u001B`.
    let visible (text: string) : string =
        if isClean text then
            text
        else
            text |> Seq.map (fun c -> if Char.IsControl c then $"\\u{int c:X4}" else string c) |> String.concat ""

    /// Bytes of UTF-8 that a folder's name has at most; file systems take 255, and endings are added to it.
    [<Literal>]
    let private MostBytes = 80

    /// Windows keeps these for devices, with any ending.
    let private reserved =
        set
            [ "con"
              "prn"
              "aux"
              "nul"
              for n in 0..9 do
                  $"com{n}"
                  $"lpt{n}" ]

    let private bytes (text: string) : int = Encoding.UTF8.GetByteCount text

    let private plain (rune: Rune) : bool = Rune.IsLetterOrDigit rune || rune.Value < 128 && "-_.".Contains(char rune.Value)

    /// Can it stand as it is?
    let private fits (name: string) : bool =
        name <> ""
        && bytes name <= MostBytes
        && Seq.forall plain (name.EnumerateRunes())
        && name[0] <> '.'
        && name[0] <> '-'
        && not (name.EndsWith '.')
        && name.IsNormalized()
        && not (reserved.Contains(name.ToLowerInvariant().Split('.')[0]))

    /// The longest beginning of so many bytes.
    let private shortened (most: int) (name: string) : string =
        let kept = StringBuilder()
        let mutable room = most

        for rune in name.EnumerateRunes() do
            room <- room - rune.Utf8SequenceLength

            if room >= 0 then
                kept.Append(string rune) |> ignore

        string kept

    /// The name of a folder, or of a file before its ending, for any label: letters, digits, `-`, `_` and `.` stay, and a label of
    /// nothing else stays as it is. What is left of another is readable, at most 80 bytes, and ends in `~` and eight digits of the label's
    /// hash, so that two labels have two names; it is never empty, `.`, `..`, hidden, or a name of Windows' devices.
    /// Example: `Names.folder "../escape"`.
    let folder (label: string) : string =
        if fits label then
            label
        else
            // Of the UTF-16 as it is: half a surrogate pair has no UTF-8.
            let hash = Convert.ToHexStringLower(SHA256.HashData(MemoryMarshal.AsBytes(label.AsSpan()))).Substring(0, 8)

            let readable =
                label.EnumerateRunes()
                |> Seq.map (fun rune -> if plain rune then string rune else "_")
                |> String.concat ""
                |> _.Trim('.', '-', '_')

            $"{shortened (MostBytes - 9) readable}~{hash}"

    /// The folder of that label within another.
    let within (parent: string) (label: string) : string = Path.Combine(parent, folder label)
