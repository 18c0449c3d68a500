/// A run told to a machine: one line of JSON an event, on standard output.
module Cmcl.Cli.JsonLog

open System
open System.Globalization
open System.IO
open System.Text
open System.Text.Encodings.Web
open System.Text.Json
open Cmcl

let private options = JsonWriterOptions(Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping)

let private real (json: Utf8JsonWriter) (name: string) (x: float) : unit =
    if Double.IsFinite x then
        json.WriteNumber(name, x)
    else
        json.WriteString(name, x.ToString CultureInfo.InvariantCulture)

/// `{"time":…,"event":…` and what `write` adds.
let private line (event: string) (write: Utf8JsonWriter -> unit) : unit =
    use memory = new MemoryStream()

    do
        use json = new Utf8JsonWriter(memory, options)
        json.WriteStartObject()
        json.WriteString("time", DateTimeOffset.UtcNow.ToString("yyyy-MM-ddTHH:mm:ss.fffZ", CultureInfo.InvariantCulture))
        json.WriteString("event", event)
        write json
        json.WriteEndObject()

    Console.Out.WriteLine(Encoding.UTF8.GetString(memory.ToArray()))
    Console.Out.Flush()

let private named (cell: Cell) (json: Utf8JsonWriter) : unit =
    json.WriteString("method", cell.Method)
    json.WriteNumber("seed", cell.Seed)

let private message (fault: Fault) (json: Utf8JsonWriter) : unit = json.WriteString("message", fault.Message)

/// The first line: what is run.
let started (r: Request) : unit =
    line "started" (fun json ->
        json.WriteString("cmcl", Record.cmclVersion)
        json.WriteString("command", r.Command)
        json.WriteString("stream", r.Stream.Name)
        json.WriteString("digest", r.Stream.Digest)
        json.WriteNumber("cells", r.Plans.Length * r.Seeds.Length)
        json.WriteNumber("jobs", r.Jobs)
        json.WriteString("out", r.Out))

/// Tells what happens in a study of which nothing has begun.
let listener (start: Progress) : StudyEvent -> unit =
    let mutable progress = start

    let tell (cell: Cell) (event: string) (write: Utf8JsonWriter -> unit) =
        line event (fun json ->
            named cell json
            write json)

    let share (json: Utf8JsonWriter) = real json "share" (Progress.share progress)

    fun event ->
        progress <- Progress.after event progress

        match event with
        | StudyEvent.Began _
        | StudyEvent.Unwritten _
        | StudyEvent.Stopped _
        | StudyEvent.Cell(_, CellEvent.Ended CellEnd.Stopped)
        | StudyEvent.Cell(_, CellEvent.Ended CellEnd.Elsewhere) -> ()
        | StudyEvent.Cell(cell, CellEvent.Started) -> tell cell "began" share
        | StudyEvent.Cell(cell, CellEvent.Progress p) ->
            tell cell (if p.Epoch.IsSome then "epoch" else "solved") (fun json ->
                json.WriteNumber("step", p.Step)
                json.WriteString("name", p.Name)

                for e in Option.toList p.Epoch do
                    json.WriteNumber("epoch", e.Number)
                    real json "loss" e.Loss

                share json)
        | StudyEvent.Cell(cell, CellEvent.Remark(step, _, text)) ->
            tell cell "remark" (fun json ->
                json.WriteNumber("step", step)
                json.WriteString("message", text))
        | StudyEvent.Cell(cell, CellEvent.Resumed steps) -> tell cell "resumed" (fun json -> json.WriteNumber("steps", steps))
        | StudyEvent.Cell(cell, CellEvent.Warning fault) -> tell cell "warning" (message fault)
        | StudyEvent.Cell(cell, CellEvent.Ended ended) ->
            tell cell "ended" (fun json ->
                for fault in List.truncate 1 (CellEnd.faults ended) do
                    message fault json)

/// The last line: how it ended.
let finished (result: Result<Finished, Fault list>) : unit =
    line "finished" (fun json ->
        match result with
        | Ok finished ->
            json.WriteNumber("left", finished.Left)
            json.WriteNumber("failures", finished.Failures.Length)
            json.WriteNumber("broken", finished.Broken)

            for fault in List.truncate 1 finished.Unwritten do
                json.WriteString("message", fault.Message)
        | Error faults -> json.WriteString("message", String.Join(" ", [ for f in faults -> f.Message ])))
