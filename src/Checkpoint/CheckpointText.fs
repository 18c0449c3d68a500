namespace Cmcl

open System
open System.Collections.Generic
open System.Globalization
open System.IO
open System.Text.Json
open TorchSharp

/// How far a run has come.
[<RequireQualifiedAccess>]
type Reached =
    | Midst of RunState
    | End of Outcome

/// All that is kept of a run.
type Checkpoint =
    {
        Reached: Reached
        /// What its monitor has read so far.
        Monitor: MonitorMeasurement list
    }

/// A checkpoint as JSON, and the tensors that the JSON names.
[<RequireQualifiedAccess>]
module internal CheckpointText =
    // ---- tensors by name -----------------------------------------------------------------------------------------

    let private ofHeads (prefix: string) (heads: Heads) : (string * torch.Tensor) list =
        [ for KeyValue(m, w) in heads -> $"{prefix}/{m.Name}", w ]

    let private ofMemory (prefix: string) (memory: Memory) : (string * torch.Tensor) list =
        [ for KeyValue(name, t) in memory -> $"{prefix}/{name}", t ]

    let rec private ofState (prefix: string) (s: TransformState) : (string * torch.Tensor) list =
        [ for KeyValue(slot, heads) in s.Slots do
              yield! ofHeads $"{prefix}/{slot}" heads
          for i, part in List.indexed s.Parts do
              yield! ofState $"{prefix}/{i}" part ]

    /// What the direction keeps in the midst of a step: what the memory has, too, and what training may write over, as a reservoir does with
    /// the room behind its items.
    let private ofKept (s: RunState) (w: Within) : (string * torch.Tensor) list * (string * torch.Tensor) list =
        let remembered = HashSet<torch.Tensor>(s.Memory.Values, HashIdentity.Reference)
        ofMemory "kept" w.Training.Kept |> List.partition (fun (_, t) -> remembered.Contains t)

    /// Those that stay as they are as long as anyone has them: what is the same tensor later need not be written again.
    let still (checkpoint: Checkpoint) : (string * torch.Tensor) list =
        match checkpoint.Reached with
        | Reached.End _ -> []
        | Reached.Midst s ->
            [ for i, heads in List.indexed s.Heads do
                  yield! ofHeads $"heads/{i}" heads
              yield! ofMemory "memory" s.Memory
              match s.Within with
              | Some w -> yield! fst (ofKept s w)
              | None -> () ]

    /// Those that training writes over.
    let moving (checkpoint: Checkpoint) : (string * torch.Tensor) list =
        match checkpoint.Reached with
        | Reached.Midst({ Within = Some w } as s) ->
            ofHeads "weights" w.Training.Descent.Weights @ ofState "state" w.Training.Descent.State @ snd (ofKept s w)
        | _ -> []

    // ---- writing -------------------------------------------------------------------------------------------------

    let private list (json: Utf8JsonWriter) (name: string) (items: 'a seq) (write: 'a -> unit) : unit =
        json.WriteStartArray name
        Seq.iter write items
        json.WriteEndArray()

    let private real (json: Utf8JsonWriter) (x: float) : unit =
        if Double.IsFinite x then
            json.WriteNumberValue x
        else
            json.WriteStringValue(x.ToString CultureInfo.InvariantCulture)

    /// An item of a list that is a list itself.
    let private row (json: Utf8JsonWriter) (write: unit -> unit) : unit =
        json.WriteStartArray()
        write ()
        json.WriteEndArray()

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

    let private names (json: Utf8JsonWriter) (name: string) (names: string seq) : unit =
        list json name names json.WriteStringValue

    let rec private state (json: Utf8JsonWriter) (s: TransformState) : unit =
        json.WriteStartObject()
        json.WriteNumber("step", s.Step)
        json.WriteStartObject "counts"

        for KeyValue(m, count) in s.Counts do
            json.WriteNumber(m.Name, count)

        json.WriteEndObject()
        json.WriteStartObject "slots"

        for KeyValue(slot, heads) in s.Slots do
            names json slot [ for m in heads.Keys -> m.Name ]

        json.WriteEndObject()
        list json "parts" s.Parts (state json)
        json.WriteEndObject()

    let private modalities (json: Utf8JsonWriter) (name: string) (heads: Heads) : unit =
        names json name [ for m in heads.Keys -> m.Name ]

    let private within (json: Utf8JsonWriter) (w: Within) : unit =
        let t = w.Training
        json.WriteStartObject "within"
        json.WriteNumber("updates", t.Updates)
        list json "epochs" t.Epochs (real json)
        json.WritePropertyName "sum"
        real json t.Sum
        json.WriteNumber("seconds", w.Seconds)
        modalities json "weights" t.Descent.Weights
        json.WritePropertyName "state"
        state json t.Descent.State
        names json "kept" t.Kept.Keys
        json.WriteEndObject()

    /// Writes the members of an object: all but the tensors themselves.
    let write (json: Utf8JsonWriter) (checkpoint: Checkpoint) : unit =
        match checkpoint.Reached with
        | Reached.End o ->
            json.WriteString("reached", "end")
            outcome json o
        | Reached.Midst s ->
            json.WriteString("reached", "midst")

            list json "heads" s.Heads (fun heads ->
                row json (fun () -> Seq.iter (fun (m: Modality) -> json.WriteStringValue m.Name) heads.Keys))

            names json "memory" s.Memory.Keys
            outcome json s.Outcome
            Option.iter (within json) s.Within

        list json "monitor" checkpoint.Monitor (fun r ->
            row json (fun () ->
                json.WriteNumberValue r.Step
                json.WriteNumberValue r.Update
                json.WriteNumberValue r.Task
                real json r.Drift.Frobenius
                real json r.Drift.Rms
                real json r.Drift.Relative))

    // ---- reading -------------------------------------------------------------------------------------------------

    /// What a checkpoint says that cannot be.
    let private refuse (reason: string) = raise (InvalidDataException reason)

    let private member' (name: string) (json: JsonElement) : JsonElement =
        match json.TryGetProperty name with
        | true, value -> value
        | _ -> refuse $"it has no '{name}'"

    let private items (name: string) (json: JsonElement) : JsonElement list =
        [ for item in (member' name json).EnumerateArray() -> item ]

    let private toReal (json: JsonElement) : float =
        if json.ValueKind = JsonValueKind.String then
            Double.Parse(string (json.GetString()), CultureInfo.InvariantCulture)
        else
            json.GetDouble()

    let private toText (json: JsonElement) : string =
        json.GetString() |> Option.ofObj |> Option.defaultWith (fun () -> refuse "a text is missing")

    let private texts (name: string) (json: JsonElement) : string list = items name json |> List.map toText

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

    let private toHeads (tensor: string -> torch.Tensor) (prefix: string) (names: string list) : Heads =
        Map [ for name in names -> Modality.named name, tensor $"{prefix}/{name}" ]

    let rec private toState (tensor: string -> torch.Tensor) (prefix: string) (json: JsonElement) : TransformState =
        { Step = (member' "step" json).GetInt64()
          Counts = Map [ for p in (member' "counts" json).EnumerateObject() -> Modality.named p.Name, p.Value.GetInt64() ]
          Slots =
            Map
                [ for p in (member' "slots" json).EnumerateObject() ->
                      p.Name, toHeads tensor $"{prefix}/{p.Name}" [ for m in p.Value.EnumerateArray() -> toText m ] ]
          Parts = items "parts" json |> List.mapi (fun i part -> toState tensor $"{prefix}/{i}" part) }

    let private toWithin (tensor: string -> torch.Tensor) (json: JsonElement) : Within =
        { Training =
            { Updates = (member' "updates" json).GetInt64()
              Epochs = items "epochs" json |> List.map toReal
              Sum = toReal (member' "sum" json)
              Descent =
                { Weights = toHeads tensor "weights" (texts "weights" json)
                  State = toState tensor "state" (member' "state" json) }
              Kept = Map [ for name in texts "kept" json -> name, tensor $"kept/{name}" ] }
          Seconds = (member' "seconds" json).GetDouble() }

    /// Reads what `write` wrote; `tensor` gives a tensor by its name. Raises `InvalidDataException` and what reading JSON raises.
    let read (tensor: string -> torch.Tensor) (json: JsonElement) : Checkpoint =
        { Reached =
            match toText (member' "reached" json) with
            | "end" -> Reached.End(toOutcome json)
            | "midst" ->
                Reached.Midst
                    { Heads =
                        items "heads" json
                        |> List.mapi (fun i names -> toHeads tensor $"heads/{i}" [ for m in names.EnumerateArray() -> toText m ])
                      Memory = Map [ for name in texts "memory" json -> name, tensor $"memory/{name}" ]
                      Outcome = toOutcome json
                      Within =
                        match json.TryGetProperty "within" with
                        | true, within -> Some(toWithin tensor within)
                        | _ -> None }
            | other -> refuse $"it has reached '{other}'"
          Monitor =
            [ for r in items "monitor" json ->
                  { Step = r[0].GetInt32()
                    Update = r[1].GetInt64()
                    Task = r[2].GetInt32()
                    Drift =
                      { Frobenius = toReal r[3]
                        Rms = toReal r[4]
                        Relative = toReal r[5] } } ] }
