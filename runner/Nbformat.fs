/// Notebook files, nbformat 4, as JSON: what is not understood is kept as it is.
module Cmcl.Runner.Nbformat

open System
open System.IO
open System.Text
open System.Text.Encodings.Web
open System.Text.Json
open System.Text.Json.Nodes
open Cmcl

let private field (name: string) (node: JsonNode | null) : JsonNode option =
    match node with
    | :? JsonObject as o -> Option.ofObj o[name]
    | _ -> None

let private text (node: JsonNode option) : string option =
    match node with
    | Some(:? JsonValue as v) when v.GetValueKind() = JsonValueKind.String -> Some(v.GetValue<string>())
    | _ -> None

let private path (names: string list) (node: JsonNode) : string option =
    (Some node, names) ||> List.fold (fun node name -> node |> Option.bind (field name)) |> text

/// The source of a cell: a string, or a list of lines.
let source (cell: JsonObject) : string =
    match Option.ofObj cell["source"] with
    | Some(:? JsonArray as lines) -> lines |> Seq.choose (Option.ofObj >> text) |> String.Concat
    | node -> text node |> Option.defaultValue ""

let private node (value: string) : JsonNode | null = JsonValue.Create value

/// Text as nbformat stores it: a list of lines that keep their ends.
let private lines (text: string) : JsonArray =
    let parts = text.Split '\n'

    [| for i, part in Array.indexed parts do
           let line = if i < parts.Length - 1 then part + "\n" else part

           if line <> "" then
               node line |]
    |> JsonArray

/// What a cell printed, on `stdout` or `stderr`.
let stream (name: string) (text: string) : JsonObject =
    JsonObject(dict [ "name", node name; "output_type", node "stream"; "text", (lines text :> JsonNode | null) ])

/// A value in several forms, by media type; the result of a cell has the cell's number.
let shown (result: int option) (forms: (string * string) list) : JsonObject =
    let data = JsonObject(dict [ for mime, text in forms -> mime, (lines text :> JsonNode | null) ])

    JsonObject(
        dict
            [ "data", (data :> JsonNode | null)
              match result with
              | Some n -> "execution_count", JsonValue.Create n
              | None -> ()
              "metadata", JsonObject()
              "output_type", node (if result.IsSome then "execute_result" else "display_data") ]
    )

/// What went wrong: the kind of error, the message, what is printed of it.
let error (name: string) (message: string) (trace: string list) : JsonObject =
    let trace = JsonArray [| for line in trace -> node line |]

    JsonObject(
        dict
            [ "ename", node name
              "evalue", node message
              "output_type", node "error"
              "traceback", (trace :> JsonNode | null) ]
    )

/// Outputs in order, what was printed in pieces put together.
let joined (outputs: JsonObject list) : JsonArray =
    let isStream (o: JsonObject) = path [ "output_type" ] o = Some "stream"
    let printed (o: JsonObject) = Option.defaultValue "" (path [ "name" ] o)

    let said (o: JsonObject) =
        match Option.ofObj o["text"] with
        | Some(:? JsonArray as lines) -> lines |> Seq.choose (Option.ofObj >> text) |> String.Concat
        | _ -> ""

    let add (before: JsonObject list) (o: JsonObject) =
        match before with
        | last :: rest when isStream last && isStream o && printed last = printed o ->
            stream (printed o) (said last + said o) :: rest
        | _ -> o :: before

    outputs |> List.fold add [] |> List.rev |> List.map (fun o -> o :> JsonNode | null) |> Array.ofList |> JsonArray

let cells (notebook: JsonObject) : JsonObject list =
    match notebook["cells"] with
    | :? JsonArray as cells ->
        cells
        |> Seq.choose (fun c ->
            match c with
            | :? JsonObject as o -> Some o
            | _ -> None)
        |> List.ofSeq
    | _ -> []

let codeCells (notebook: JsonObject) : JsonObject list =
    cells notebook |> List.filter (fun c -> path [ "cell_type" ] c = Some "code")

/// Takes the outputs and the numbers off every code cell.
let strip (notebook: JsonObject) : unit =
    for cell in codeCells notebook do
        cell["execution_count"] <- null
        cell["outputs"] <- JsonArray()

let private isFSharp (name: string) : bool = List.contains (name.ToLowerInvariant()) [ "f#"; "fsharp"; ".net-fsharp" ]

/// Why a notebook cannot be run, if it cannot.
let private complaint (root: JsonNode | null) : string option =
    match root with
    | :? JsonObject as o ->
        let format = field "nbformat" o |> Option.map _.ToJsonString()

        let bad (cell: JsonNode | null) =
            match cell with
            | :? JsonObject as c -> (path [ "cell_type" ] c).IsNone
            | _ -> true

        match format, Option.ofObj o["cells"] with
        | None, _ -> Some "it is JSON, but not a notebook: it has no nbformat"
        | Some "4", Some(:? JsonArray as cells) ->
            match cells |> Seq.tryFindIndex bad with
            | Some i -> Some $"cell {i + 1} has no cell_type"
            | None -> None
        | Some "4", _ -> Some "it is JSON, but not a notebook: it has no cells"
        | Some other, _ -> Some $"its nbformat is {other}, and only 4 is read (jupyter nbconvert --to notebook makes it that)"
    | _ -> Some "it is JSON, but not a notebook"

/// Faults: `Missing`, or `Unreadable` with the reason.
let read (file: string) : Result<JsonObject, Fault list> =
    let unreadable reason = Error [ Fault.Unreadable(file, reason) ]

    InputFile.text "cmcl notebook" file
    |> Result.bind (fun text ->
        try
            // A name that stands twice would be found out only when it is asked for.
            let root = JsonNode.Parse(text, documentOptions = JsonDocumentOptions(AllowDuplicateProperties = false))

            match complaint root, root with
            | None, (:? JsonObject as notebook) ->
                // Halves of characters would be found out only when they are written.
                notebook.ToJsonString() |> ignore
                Ok notebook
            | complaint, _ -> unreadable (Option.defaultValue "it is not a notebook" complaint)
        with
        | :? JsonException as e -> unreadable $"it is not a notebook, which is JSON: {e.Message}"
        | :? InvalidOperationException -> unreadable "it holds text that is not valid Unicode")

/// The language of a notebook, and of each of its code cells that says one, must be F#. Fault: `Unreadable` with what it is.
let inFSharp (file: string) (notebook: JsonObject) : Result<unit, Fault list> =
    let whole =
        [ [ "kernelspec"; "language" ]; [ "kernelspec"; "name" ]; [ "language_info"; "name" ] ]
        |> List.tryPick (fun p -> path ("metadata" :: p) notebook)

    let own (cell: JsonObject) =
        [ [ "polyglot_notebook"; "kernelName" ]; [ "dotnet_interactive"; "language" ] ]
        |> List.tryPick (fun p -> path ("metadata" :: p) cell)

    let refuse what = Error [ Fault.Unreadable(file, $"{what}, and only F# can be run") ]

    match
        whole,
        codeCells notebook
        |> List.indexed
        |> List.tryPick (fun (i, c) -> own c |> Option.map (fun l -> i + 1, l) |> Option.filter (snd >> isFSharp >> not))
    with
    | _, Some(i, language) -> refuse $"code cell {i} is in {language}"
    | Some language, None when not (isFSharp language) && language.ToLowerInvariant() <> "polyglot-notebook" ->
        refuse $"it is in {language}"
    | _ -> Ok()

let private options =
    JsonSerializerOptions(
        WriteIndented = true,
        IndentSize = 1,
        NewLine = "\n",
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping
    )

/// Writes a notebook whole, as Jupyter lays it out. Fault: `Unwritable`.
let write (file: string) (notebook: JsonObject) : Result<unit, Fault list> =
    Files.writeText file (fun text -> text.Write(notebook.ToJsonString options + "\n"))
