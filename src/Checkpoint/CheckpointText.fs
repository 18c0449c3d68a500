namespace Cmcl

open System.Collections.Generic
open System.Text.Json
open TorchSharp

/// A run in its midst.
type Checkpoint =
    {
        State: RunState
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
        let s = checkpoint.State

        [ for i, heads in List.indexed s.Heads do
              yield! ofHeads $"heads/{i}" heads
          yield! ofMemory "memory" s.Memory
          match s.Within with
          | Some w -> yield! fst (ofKept s w)
          | None -> () ]

    /// Those that training writes over.
    let moving (checkpoint: Checkpoint) : (string * torch.Tensor) list =
        match checkpoint.State.Within with
        | Some w ->
            ofHeads "weights" w.Training.Descent.Weights
            @ ofState "state" w.Training.Descent.State
            @ snd (ofKept checkpoint.State w)
        | None -> []

    // ---- writing -------------------------------------------------------------------------------------------------

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
        let s = checkpoint.State

        list json "heads" s.Heads (fun heads ->
            row json (fun () -> Seq.iter (fun (m: Modality) -> json.WriteStringValue m.Name) heads.Keys))

        names json "memory" s.Memory.Keys
        OutcomeText.write json s.Outcome checkpoint.Monitor
        Option.iter (within json) s.Within

    // ---- reading -------------------------------------------------------------------------------------------------

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
        let outcome, monitor = OutcomeText.read json

        { State =
            { Heads =
                items "heads" json
                |> List.mapi (fun i names -> toHeads tensor $"heads/{i}" [ for m in names.EnumerateArray() -> toText m ])
              Memory = Map [ for name in texts "memory" json -> name, tensor $"memory/{name}" ]
              Outcome = outcome
              Within =
                match json.TryGetProperty "within" with
                | true, within -> Some(toWithin tensor within)
                | _ -> None }
          Monitor = monitor }
