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

let private cell (plan: Plan) (seed: int) (json: Utf8JsonWriter) : unit =
    json.WriteString("method", plan.Label)
    json.WriteNumber("seed", seed)

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

/// What is told while it goes on.
let tell (progress: Progress) : unit =
    match progress with
    | Progress.Began(plan, seed, share) ->
        line "began" (fun json ->
            cell plan seed json
            real json "share" share)
    | Progress.Within(plan, seed, Event.Epoch(step, epoch, loss, _, _), share) ->
        line "epoch" (fun json ->
            cell plan seed json
            json.WriteNumber("step", step.Index)
            json.WriteString("name", step.Name)
            json.WriteNumber("epoch", epoch)
            real json "loss" loss
            real json "share" share)
    | Progress.Within(plan, seed, Event.Remark(step, text), _) ->
        line "remark" (fun json ->
            cell plan seed json
            json.WriteNumber("step", step.Index)
            json.WriteString("message", text))
    | Progress.Resumed(plan, seed, steps) ->
        line "resumed" (fun json ->
            cell plan seed json
            json.WriteNumber("steps", steps))
    | Progress.Unkept(plan, seed, fault) ->
        line "unkept" (fun json ->
            cell plan seed json
            message fault json)
    | Progress.Ended(plan, seed, fault) ->
        line "ended" (fun json ->
            cell plan seed json
            Option.iter (fun fault -> message fault json) fault)

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
