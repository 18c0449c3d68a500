/// What `cmcl notebook run` and the process that runs the cells say to each other: a line of JSON each.
module internal Cmcl.Runner.Wire

open System.IO
open System.Text
open System.Text.Json
open System.Text.Json.Nodes
open System.Threading

/// A cell to run, by its number from 1.
type Request = { Number: int; Source: string }

/// How a cell ended: well, or with a message.
type Answer =
    | Output of JsonObject
    | Done of failure: string option

/// Begins every line that is an answer, wherever in a line of others it is: native code writes to standard output, too.
let private mark = '\u0002'

let request (r: Request) : string =
    JsonObject(dict [ "number", (JsonValue.Create r.Number :> JsonNode | null); "source", JsonValue.Create r.Source ])
        .ToJsonString()

let readRequest (line: string) : Request =
    match JsonNode.Parse line with
    | :? JsonObject as o ->
        match o["number"], o["source"] with
        | NonNull number, NonNull source ->
            { Number = number.GetValue<int>()
              Source = source.GetValue<string>() }
        | _ -> invalidArg (nameof line) "not a request"
    | _ -> invalidArg (nameof line) "not a request"

let answer (a: Answer) : string =
    match a with
    | Output o -> $"{mark}o{o.ToJsonString()}"
    | Done None -> $"{mark}d"
    | Done(Some why) -> $"{mark}f{JsonSerializer.Serialize why}"

/// What of a line is no answer, and the answer in it.
let readAnswer (line: string) : string * Answer option =
    match line.IndexOf mark with
    | i when i < 0 || i + 1 >= line.Length -> line, None
    | i ->
        let rest = line.Substring(i + 2)

        line.Substring(0, i),
        match line[i + 1], (if rest = "" then null else JsonNode.Parse rest) with
        | 'o', (:? JsonObject as o) -> Some(Output o)
        | 'f', NonNull why -> Some(Done(Some(why.GetValue<string>())))
        | _ -> Some(Done None)

/// Text that is handed on a line at a time, or where `Flush` is called.
type Lines(send: string -> unit) =
    inherit TextWriter()
    let held = StringBuilder()
    let gate = Lock()
    override _.Encoding = Encoding.UTF8

    override this.Write(c: char) =
        lock gate (fun () ->
            held.Append c |> ignore

            if c = '\n' then
                this.Flush())

    override this.Write(text: string | null) =
        match text with
        | null -> ()
        | text ->
            lock gate (fun () ->
                held.Append text |> ignore

                if text.Contains '\n' then
                    this.Flush())

    override this.WriteLine(text: string | null) =
        this.Write(
            (match text with
             | null -> ""
             | t -> t)
            + "\n"
        )

    override _.Flush() =
        lock gate (fun () ->
            if held.Length > 0 then
                send (held.ToString())
                held.Clear() |> ignore)
