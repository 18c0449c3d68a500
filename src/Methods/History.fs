namespace Cmcl

open TorchSharp

/// What DNS keeps of old data: second moments, by modality and by ordered pair, in a method's memory (theory.md, section 5).
[<RequireQualifiedAccess>]
module History =
    let private inputName (m: Modality) (partner: Modality) = $"input/{m}|{partner}"
    let private outputName (m: Modality) = $"output/{m}"

    /// Every (m, p) such that m was trained with p.
    let edges (memory: Memory) : (Modality * Modality) list =
        [ for name in memory.Keys do
              if name.StartsWith "input/" && not (name.EndsWith "#") then
                  match name.Substring("input/".Length).Split '|' with
                  | [| m; p |] -> Modality.named m, Modality.named p
                  | _ -> () ]

    let private partners (m: Modality) (memory: Memory) = edges memory |> List.filter (fst >> (=) m) |> List.map snd

    /// The moment of all old inputs of a modality; `None` before its first step.
    let inputs (m: Modality) (memory: Memory) : Moment option =
        partners m memory |> List.choose (fun p -> Memory.moment (inputName m p) memory) |> Moment.mergeAll

    /// The moment of the old outputs of all its partners: Σ_p W_p C_{p|m} W_pᵀ under the given heads, or what was stored
    /// when they were learnt.
    let partnerOutputs (which: PartnerOutputs) (m: Modality) (heads: Heads) (memory: Memory) : Moment option =
        match which with
        | PartnerOutputs.AtLearning -> Memory.moment (outputName m) memory
        | PartnerOutputs.Current ->
            partners m memory
            |> List.choose (fun p -> Memory.moment (inputName p m) memory |> Option.map (Moment.through (Heads.weight p heads)))
            |> Moment.mergeAll

    /// The memory with a step's data added; `heads` are those at its end.
    let add (which: PartnerOutputs) (heads: Heads) (tasks: Task list) (memory: Memory) : Memory =
        let addSide (task: Task) (memory: Memory) (m: Modality) =
            let p = Pair.partner m task.Pair
            let memory = Memory.addMoment (inputName m p) (Task.moment m task) memory

            match which with
            | PartnerOutputs.Current -> memory
            | PartnerOutputs.AtLearning ->
                let outputs = Task.moment p task |> Moment.through (Heads.weight p heads)
                Memory.addMoment (outputName m) outputs memory

        let addTask memory (task: Task) = List.fold (addSide task) memory (Pair.members task.Pair)
        List.fold addTask memory tasks
