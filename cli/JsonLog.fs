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

let private named (job: Job) (json: Utf8JsonWriter) : unit =
    json.WriteString("method", job.Plan.Label)
    json.WriteNumber("seed", job.Seed)

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
let tell (event: StudyEvent) : unit =
    match event with
    | StudyEvent.Began _
    | StudyEvent.Unwritten _
    | StudyEvent.Stopped _ -> ()
    | StudyEvent.Started(job, share) ->
        line "began" (fun json ->
            named job json
            real json "share" share)
    | StudyEvent.Progress(job, Event.Epoch(step, epoch, loss, _, _), share) ->
        line "epoch" (fun json ->
            named job json
            json.WriteNumber("step", step.Index)
            json.WriteString("name", step.Name)
            json.WriteNumber("epoch", epoch)
            real json "loss" loss
            real json "share" share)
    | StudyEvent.Progress(job, Event.Solved(step, _, _), share) ->
        line "solved" (fun json ->
            named job json
            json.WriteNumber("step", step.Index)
            json.WriteString("name", step.Name)
            real json "share" share)
    | StudyEvent.Progress(job, Event.Remark(step, text), _) ->
        line "remark" (fun json ->
            named job json
            json.WriteNumber("step", step.Index)
            json.WriteString("message", text))
    | StudyEvent.Resumed(job, steps) ->
        line "resumed" (fun json ->
            named job json
            json.WriteNumber("steps", steps))
    | StudyEvent.Warning(job, fault) ->
        line "warning" (fun json ->
            named job json
            message fault json)
    | StudyEvent.Ended(job, _, fault) ->
        line "ended" (fun json ->
            named job json
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
