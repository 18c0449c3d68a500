namespace Cmcl

open System
open System.Globalization
open System.IO
open System.Text.Json

/// Parts of JSON that results and checkpoints have in common.
[<AutoOpen>]
module internal JsonParts =
    let list (json: Utf8JsonWriter) (name: string) (items: 'a seq) (write: 'a -> unit) : unit =
        json.WriteStartArray name
        Seq.iter write items
        json.WriteEndArray()

    let real (json: Utf8JsonWriter) (x: float) : unit =
        if Double.IsFinite x then
            json.WriteNumberValue x
        else
            json.WriteStringValue(x.ToString CultureInfo.InvariantCulture)

    /// An item of a list that is a list itself.
    let row (json: Utf8JsonWriter) (write: unit -> unit) : unit =
        json.WriteStartArray()
        write ()
        json.WriteEndArray()

    /// What a file says that cannot be.
    let refuse (reason: string) = raise (InvalidDataException reason)

    let member' (name: string) (json: JsonElement) : JsonElement =
        match json.TryGetProperty name with
        | true, value -> value
        | _ -> refuse $"it has no '{name}'"

    let items (name: string) (json: JsonElement) : JsonElement list = [ for item in (member' name json).EnumerateArray() -> item ]

    let toReal (json: JsonElement) : float =
        if json.ValueKind = JsonValueKind.String then
            Double.Parse(string (json.GetString()), CultureInfo.InvariantCulture)
        else
            json.GetDouble()

    let toText (json: JsonElement) : string =
        json.GetString() |> Option.ofObj |> Option.defaultWith (fun () -> refuse "a text is missing")

    let texts (name: string) (json: JsonElement) : string list = items name json |> List.map toText

/// What a run leaves as members of a JSON object: figures, curves, spectra, what its monitor has read.
[<RequireQualifiedAccess>]
module OutcomeText =
    // ---- writing -------------------------------------------------------------------------------------------------

    let private outcome (json: Utf8JsonWriter) (o: Outcome) : unit =
        list json "readings" o.Measurements (fun r ->
            row json (fun () ->
                json.WriteNumberValue r.Step
                json.WriteNumberValue r.Task
                json.WriteStringValue r.Metric
                real json r.Value))

        list json "losses" o.Losses (fun (step, epoch, loss) ->
            row json (fun () ->
                json.WriteNumberValue step
                json.WriteNumberValue epoch
                real json loss))

        list json "spectra" o.Spectra (fun (step, s) ->
            json.WriteStartObject()
            json.WriteNumber("step", step)
            json.WriteString("modality", s.Modality.Name)
            json.WriteString("side", s.Side)

            match s.Protected with
            | Some count -> json.WriteNumber("protected", count)
            | None -> ()

            list json "shares" s.Shares (real json)
            json.WriteEndObject())

    /// Writes the members of an object.
    let write (json: Utf8JsonWriter) (o: Outcome) (monitor: MonitorMeasurement list) : unit =
        outcome json o

        list json "monitor" monitor (fun r ->
            row json (fun () ->
                json.WriteNumberValue r.Step
                json.WriteNumberValue r.Update
                json.WriteNumberValue r.Task
                real json r.Drift.Frobenius
                real json r.Drift.Rms
                real json r.Drift.Relative))

    // ---- reading -------------------------------------------------------------------------------------------------

    let private toOutcome (json: JsonElement) : Outcome =
        { Measurements =
            [ for r in items "readings" json ->
                  { Step = r[0].GetInt32()
                    Task = r[1].GetInt32()
                    Metric = toText r[2]
                    Value = toReal r[3] } ]
          Losses = [ for l in items "losses" json -> l[0].GetInt32(), l[1].GetInt32(), toReal l[2] ]
          Spectra =
            [ for s in items "spectra" json ->
                  (member' "step" s).GetInt32(),
                  { Modality = Modality.named (toText (member' "modality" s))
                    Side = toText (member' "side" s)
                    Shares = [| for share in items "shares" s -> toReal share |]
                    Protected =
                      match s.TryGetProperty "protected" with
                      | true, count -> Some(count.GetInt32())
                      | _ -> None } ] }

    /// Reads what `write` wrote. Raises `InvalidDataException` and what reading JSON raises.
    let read (json: JsonElement) : Outcome * MonitorMeasurement list =
        toOutcome json,
        [ for r in items "monitor" json ->
              { Step = r[0].GetInt32()
                Update = r[1].GetInt64()
                Task = r[2].GetInt32()
                Drift =
                  { Frobenius = toReal r[3]
                    Rms = toReal r[4]
                    Relative = toReal r[5] } } ]
