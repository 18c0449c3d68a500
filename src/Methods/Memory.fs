namespace Cmcl

open TorchSharp

/// What a method keeps between steps: named tensors, so that it can be counted, written and taken up again.
type Memory = Map<string, torch.Tensor>

[<RequireQualifiedAccess>]
module Memory =
    /// Bytes of all its tensors, tallies left out.
    let bytes (memory: Memory) : int64 =
        memory |> Seq.sumBy (fun (KeyValue(name, t)) -> if name.StartsWith "tally/" then 0L else Tensors.bytes t)

    /// A moment kept under a name (and its count under `NAME#`).
    let moment (name: string) (memory: Memory) : Moment option =
        Map.tryFind name memory
        |> Option.map (fun matrix ->
            { Count = memory[name + "#"].cpu().item<int64>()
              Matrix = matrix })

    let setMoment (name: string) (m: Moment) (memory: Memory) : Memory =
        memory |> Map.add name m.Matrix |> Map.add (name + "#") (torch.tensor m.Count)

    /// The moment kept under a name, merged with a new one.
    let addMoment (name: string) (m: Moment) (memory: Memory) : Memory =
        let all = moment name memory |> Option.map (fun old -> Moment.merge old m) |> Option.defaultValue m
        setMoment name all memory

    /// What is kept under a prefix, by its names without it, and all else. Example: `Memory.split "mine/" (JointMoments.toNamed joint)`.
    let split (prefix: string) (memory: Memory) : struct (Memory * Memory) =
        let own, others = memory |> Map.partition (fun name _ -> name.StartsWith prefix)
        struct (Map [ for KeyValue(name, t) in own -> name.Substring prefix.Length, t ], others)

    /// The memory with tensors added under a prefix: what `split` undoes. Example: `Memory.join "mine/" (JointMoments.toNamed joint) Map.empty`.
    let join (prefix: string) (own: Memory) (others: Memory) : Memory =
        Map.fold (fun all name t -> Map.add (prefix + name) t all) others own

    let private meanName (name: string) = "mean/" + name

    /// The mean beside the moment kept under a name, where there is one.
    let mean (name: string) (memory: Memory) : Mean option =
        match Map.tryFind (meanName name) memory, moment name memory with
        | Some vector, Some m -> Some { Rows = m.Count; Vector = vector }
        | _ -> None

    /// A moment with the mean of the same rows, both merged with what is kept under the name.
    let addCentred (name: string) (m: Moment) (own: Mean) (memory: Memory) : Memory =
        let all = mean name memory |> Option.map (fun old -> Mean.merge old own) |> Option.defaultValue own
        addMoment name m memory |> Map.add (meanName name) all.Vector

/// Sums over the updates of a step that a method tells of at its end, kept in its memory.
[<RequireQualifiedAccess>]
module RunningSum =
    let private slot (name: string) = "tally/" + name

    /// Adds a number, a 0-d tensor, to the sum of that name; a new sum begins with it.
    let add (name: string) (value: torch.Tensor) (memory: Memory) : Memory =
        let value = value.detach().``to`` torch.float64

        match Map.tryFind (slot name) memory with
        | Some sum -> Map.add (slot name) (sum .+ value) memory
        | None -> Map.add (slot name) value memory

    /// The same of a number that is known.
    let count (name: string) (value: int64) (memory: Memory) : Memory =
        add name (torch.tensor (float value, dtype = torch.float64)) memory

    /// The sum of that name, if anything was added.
    let sum (name: string) (memory: Memory) : float option = Map.tryFind (slot name) memory |> Option.map Tensors.toFloat

    /// The memory without sums: how a step begins.
    let clear (memory: Memory) : Memory = memory |> Map.filter (fun name _ -> not (name.StartsWith "tally/"))
