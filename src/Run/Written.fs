namespace Cmcl

open System

/// A method as users write it: `dns` or `dns[protect=product;tau=3e-5]`.
type internal Written =
    { Name: string
      Options: (string * string) list }

    /// As it is written.
    member w.Label: string =
        if w.Options.IsEmpty then
            w.Name
        else
            w.Name + "[" + String.Join(";", w.Options |> List.map (fun (k, v) -> $"{k}={v}")) + "]"

[<RequireQualifiedAccess>]
module internal Written =
    let private form = "NAME or NAME[OPTION=VALUE;OPTION=VALUE]"

    /// Fault: `BadValue` for what is not of this form.
    let parse (text: string) : Result<Written, Fault list> =
        let bad = Error [ Fault.BadValue(Mention.option "methods", form, text) ]

        match text.IndexOf '[' with
        | -1 -> Ok { Name = text; Options = [] }
        | i when text.EndsWith ']' ->
            let inside = text.Substring(i + 1, text.Length - i - 2)
            let parts = inside.Split([| ';'; ',' |], StringSplitOptions.RemoveEmptyEntries ||| StringSplitOptions.TrimEntries)
            let pairs = parts |> Array.map (fun p -> p.Split('=', 2)) |> List.ofArray

            if pairs |> List.forall (fun p -> p.Length = 2) then
                Ok
                    { Name = text.Substring(0, i)
                      Options = pairs |> List.map (fun p -> p[0].Trim(), p[1].Trim()) }
            else
                bad
        | _ -> bad

    /// Splits at commas outside brackets.
    let split (text: string) : string list =
        let folder (depth, current, parts) (c: char) =
            match c with
            | ',' when depth = 0 -> depth, "", current :: parts
            | '[' -> depth + 1, current + string c, parts
            | ']' -> depth - 1, current + string c, parts
            | _ -> depth, current + string c, parts

        let _, last, parts = Seq.fold folder (0, "", []) text
        List.rev (last :: parts) |> List.map _.Trim() |> List.filter ((<>) "")
