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

    /// The moment of all rows, centred where their means were kept.
    let private merged (moments: Moment list) (means: Mean list) : Moment option =
        match Moment.mergeAll moments, Mean.mergeAll means with
        | Some all, Some mean -> Some(Moment.centred mean all)
        | all, _ -> all

    /// The moment of all old inputs of a modality, centred where the memory has means; `None` before its first step.
    let inputs (m: Modality) (memory: Memory) : Moment option =
        let names = partners m memory |> List.map (inputName m)
        let find f = names |> List.choose (fun name -> f name memory)
        merged (find Memory.moment) (find Memory.mean)

    /// The moment of the old outputs of all its partners: Σ_p W_p C_{p|m} W_pᵀ under the given heads, or what was stored
    /// when they were learnt; centred, about the mean of all those outputs, where the memory has means.
    let partnerOutputs (which: PartnerOutputs) (m: Modality) (heads: Heads) (memory: Memory) : Moment option =
        match which with
        | PartnerOutputs.AtLearning ->
            let name = outputName m
            merged (Option.toList (Memory.moment name memory)) (Option.toList (Memory.mean name memory))
        | PartnerOutputs.Current ->
            let partners = partners m memory

            let find f through =
                partners |> List.choose (fun p -> f (inputName p m) memory |> Option.map (through (Heads.weight p heads)))

            merged (find Memory.moment Moment.through) (find Memory.mean Mean.through)

    /// The memory with a step's data added, means only where moments are to be centred; `heads` are those at its end.
    let add (which: PartnerOutputs) (centring: Centring) (heads: Heads) (tasks: Task list) (memory: Memory) : Memory =
        let addSide (task: Task) (memory: Memory) (m: Modality, p: Modality) =

            let keep name moment (mean: unit -> Mean) memory =
                match centring with
                | Centring.Uncentred -> Memory.addMoment name moment memory
                | Centring.Centred -> Memory.addCentred name moment (mean ()) memory

            let memory = keep (inputName m p) (Task.moment m task) (fun () -> Task.mean m task) memory

            match which with
            | PartnerOutputs.Current -> memory
            | PartnerOutputs.AtLearning ->
                let w = Heads.weight p heads
                let outputs = Task.moment p task |> Moment.through w
                keep (outputName m) outputs (fun () -> Task.mean p task |> Mean.through w) memory

        let addTask memory (task: Task) =
            [ for pair, _ in task.Terms do
                  for m in Pair.members pair -> m, Pair.partner m pair ]
            |> List.fold (addSide task) memory

        List.fold addTask memory tasks
