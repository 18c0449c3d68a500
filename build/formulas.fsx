// TeX formulas as MathML, which browsers draw without a script or a network: as much of TeX as docs/theory.md uses. A formula with
// anything else raises.
open System
open System.Net

let private identifiers =
    Map
        [ "Delta", "Δ"
          "Lambda", "Λ"
          "Sigma", "Σ"
          "alpha", "α"
          "beta", "β"
          "epsilon", "ϵ"
          "eta", "η"
          "gamma", "γ"
          "infty", "∞"
          "kappa", "κ"
          "lambda", "λ"
          "mu", "μ"
          "nu", "ν"
          "pi", "π"
          "rho", "ρ"
          "tau", "τ"
          "theta", "θ"
          "varepsilon", "ε"
          "varphi", "φ"
          "partial", "∂" ]

let private operators =
    Map
        [ "ast", "∗"
          "cdot", "·"
          "dots", "…"
          "ge", "≥"
          "gt", ">"
          "langle", "⟨"
          "le", "≤"
          "leftarrow", "←"
          "lt", "<"
          "lVert", "‖"
          "mapsto", "↦"
          "pm", "±"
          "rangle", "⟩"
          "rVert", "‖"
          "sum", "∑"
          "times", "×"
          "otimes", "⊗"
          "sim", "∼"
          "to", "→"
          "top", "⊤"
          "{", "{"
          "}", "}" ]

let private accents = Map [ "hat", "ˆ"; "tilde", "˜" ]
let private spaces = Map [ ",", "0.17em"; ";", "0.28em"; "quad", "1em"; "qquad", "2em" ]
let private functions = set [ "cos"; "exp"; "log"; "max"; "min" ]
let private larger = Map [ "bigl", "1.2em"; "bigr", "1.2em"; "Bigl", "1.8em"; "Bigr", "1.8em" ]

let private element name attributes (content: string) = $"<{name}{attributes}>{content}</{name}>"
let private text name (content: string) = element name "" (WebUtility.HtmlEncode content)

/// A function's name, with a little room before it.
let private named (name: string) = element "mrow" "" ("<mspace width=\"0.17em\"/>" + text "mi" name)

let private operator (symbol: string) =
    let fence = "()[]{}‖⟨⟩|".Contains symbol
    // A bar or a bracket is no larger than what is written, and a lone ⊤ keeps no distance.
    let attributes =
        if symbol = "⊤" then " lspace=\"0\" rspace=\"0\""
        elif symbol = "‖" then " stretchy=\"false\" lspace=\"0.08em\" rspace=\"0.08em\""
        elif fence then " stretchy=\"false\""
        else ""

    element "mo" attributes (WebUtility.HtmlEncode symbol)

/// A command with its backslash, or one character.
let rec private tokens (s: string) (i: int) : string list =
    if i >= s.Length then
        []
    elif s[i] = '\\' then
        let letters = s |> Seq.skip (i + 1) |> Seq.takeWhile Char.IsAsciiLetter |> Seq.length
        let length = 1 + max 1 letters
        s.Substring(i, length) :: tokens s (i + length)
    else
        string s[i] :: tokens s (i + 1)

let rec private skip rest =
    match rest with
    | token :: rest when String.IsNullOrWhiteSpace token -> skip rest
    | rest -> rest

/// The characters of a braced text, and what follows it.
let rec private words collected rest =
    match rest with
    | "{" :: rest when collected = "" -> words collected rest
    | "}" :: rest -> collected, rest
    | token :: rest -> words (collected + token) rest
    | [] -> failwith "a brace is not closed"

/// One atom without its scripts, and what follows it.
let rec private atom (rest: string list) : string * string list =
    match skip rest with
    | "{" :: rest ->
        match row rest with
        | content, "}" :: rest -> content, rest
        | _ -> failwith "a brace is not closed"
    | token :: rest when token.Length > 1 -> command (token.Substring 1) rest
    | token :: rest when Char.IsAsciiDigit token[0] || token = "." ->
        let digits = rest |> List.takeWhile (fun t -> Char.IsAsciiDigit t[0])
        (if token = "." then operator "." else text "mn" (String.Concat(token :: digits))), List.skip digits.Length rest
    | token :: rest when Char.IsAsciiLetter token[0] -> text "mi" token, rest
    | "-" :: rest -> operator "−", rest
    | token :: rest when "+=()[],;:/|".Contains token -> operator token, rest
    | token :: _ -> failwith $"'{token}' is not understood"
    | [] -> failwith "something is missing at the end"

and private command (name: string) (rest: string list) : string * string list =
    match name with
    | _ when identifiers.ContainsKey name ->
        let variant = if Char.IsUpper(identifiers[name], 0) then " mathvariant=\"normal\"" else ""
        element "mi" variant identifiers[name], rest
    | _ when operators.ContainsKey name -> operator operators[name], rest
    | _ when functions.Contains name -> named name, rest
    | _ when spaces.ContainsKey name -> $"<mspace width=\"{spaces[name]}\"/>", rest
    | _ when larger.ContainsKey name ->
        $"<mo minsize=\"{larger[name]}\" maxsize=\"{larger[name]}\">{List.head rest}</mo>", List.tail rest
    | _ when accents.ContainsKey name ->
        let body, rest = atom rest
        element "mover" " accent=\"true\"" (body + element "mo" " stretchy=\"false\"" accents[name]), rest
    | "text" -> let content, rest = words "" rest in text "mtext" (content.Replace(' ', '\u00a0')), rest
    | "operatorname" -> let content, rest = words "" rest in named content, rest
    | "sqrt" -> let body, rest = atom rest in element "msqrt" "" body, rest
    | "frac" ->
        let above, rest = atom rest
        let below, rest = atom rest
        element "mfrac" "" (above + below), rest
    | "underbrace" ->
        let body, rest = atom rest
        element "munder" "" (body + "<mo stretchy=\"true\">⏟</mo>"), rest
    | _ -> failwith $"\\{name} is not understood"

/// An atom with primes, subscript and superscript.
and private scripted (rest: string list) : string * string list =
    let rest = skip rest
    let under = [ "\\sum"; "\\underbrace" ] |> List.contains (List.head rest)
    let body, rest = atom rest

    let rec scripts (below: string) (above: string) rest =
        match skip rest with
        | "'" :: rest -> scripts below (above + "<mo lspace=\"0\" rspace=\"0\">′</mo>") rest
        | "_" :: rest -> let script, rest = atom rest in scripts (below + script) above rest
        | "^" :: rest -> let script, rest = atom rest in scripts below (above + script) rest
        | rest -> below, above, rest

    let below, above, rest = scripts "" "" rest
    let grouped = List.map (element "mrow" "") >> String.Concat

    let whole =
        match below, above with
        | "", "" -> body
        | _, "" -> element (if under then "munder" else "msub") "" (grouped [ body; below ])
        | "", _ -> element "msup" "" (grouped [ body; above ])
        | _ -> element "msubsup" "" (grouped [ body; below; above ])

    whole, rest

and private row (rest: string list) : string * string list =
    match skip rest with
    | []
    | "}" :: _ as rest -> "<mrow></mrow>", rest
    | rest ->
        let rec collect parts rest =
            match skip rest with
            | []
            | "}" :: _ as rest -> element "mrow" "" (parts |> List.rev |> String.Concat), rest
            | rest -> let part, rest = scripted rest in collect (part :: parts) rest

        collect [] rest

/// A formula as MathML, in the line or on a line of its own.
let mathml (onItsOwn: bool) (tex: string) : string =
    match row (tokens tex 0) with
    | content, [] -> element "math" (if onItsOwn then " display=\"block\" style=\"margin: 1em 0\"" else "") content
    | _ -> failwith $"a brace too many in {tex}"
