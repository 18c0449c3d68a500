namespace Cmcl

open TorchSharp

/// How heads before a step and heads after it become one.
[<RequireQualifiedAccess>]
type MergeRule =
    /// (1 − α) W_before + α W_after (WiSE-FT).
    | Wise
    /// The exponential moving average of the weights over the updates of the step.
    | Ema
    /// W₀ + α Σ_t Δ_t, every Δ_t of training that starts at W₀ (task arithmetic).
    | Tasks
    /// Σ_t H_t (W − W_t) C_t = 0: the mean of the heads of all steps by what they do to scores.
    | Dual
    /// The same by what they do to outputs, H_t = I (RegMean).
    | RegMean

/// Heads after a step merged from those that another method has trained, and from those before it.
[<RequireQualifiedAccess>]
module Merge =
    type Options =
        {
            Host: string
            Rule: MergeRule
            /// α of `Wise` and `Tasks`.
            Share: float
            /// β of `Ema`: a_u = β a_{u−1} + (1 − β) W_u, from a_0 = W_0.
            EmaDecay: float
            /// In shares of the mean diagonal of each moment, for `Dual` and `RegMean`.
            Ridge: float
        }

    /// Halfway between before and after, around fine-tuning.
    let defaults: Options =
        { Host = "vanilla"
          Rule = MergeRule.Wise
          Share = 0.5
          EmaDecay = 0.9
          Ridge = 0.1 }

    let host: Opt<Options, string> = Shared.host _.Host (fun v o -> { o with Host = v })

    let rule: Opt<Options, MergeRule> =
        Opt.make
            "rule"
            "between before and after (wise), average over updates (ema), sum of changes (tasks), mean by scores (dual) or by outputs (regmean)"
            (Codec.choice
                [ "wise", MergeRule.Wise
                  "ema", MergeRule.Ema
                  "tasks", MergeRule.Tasks
                  "dual", MergeRule.Dual
                  "regmean", MergeRule.RegMean ])
            _.Rule
            (fun v o -> { o with Rule = v })

    let share: Opt<Options, float> =
        Opt.make "share" "how much of what a step changed is kept (α)" Codec.notNegative _.Share (fun v o -> { o with Share = v })
        |> Opt.onlyWith rule [ MergeRule.Wise; MergeRule.Tasks ]
        |> Opt.tried [ "0.25"; "0.5"; "0.75"; "1" ]

    let emaDecay: Opt<Options, float> =
        Opt.make
            "ema-decay"
            "what an update leaves of the average (β)"
            (Codec.number "a number ≥ 0 and < 1" (fun x -> x >= 0.0 && x < 1.0))
            _.EmaDecay
            (fun v o -> { o with EmaDecay = v })
        |> Opt.onlyWith rule [ MergeRule.Ema ]

    let ridge: Opt<Options, float> =
        Shared.ridge (fun (o: Options) -> o.Ridge) (fun v o -> { o with Ridge = v })
        |> Opt.onlyWith rule [ MergeRule.Dual; MergeRule.RegMean ]

    /// What this keeps in a memory, out of the host's sight.
    let private prefix = "merge/"

    // ---- over updates ------------------------------------------------------------------------------------------------

    let private average (beta: float) (weights: Heads) (kept: Memory) : Memory =
        let next (m: Modality) (w: torch.Tensor) =
            match Map.tryFind m.Name kept with
            | None -> w.clone ()
            | Some a -> Tensors.scoped (fun () -> a * beta.AsScalar() .+ w * (1.0 - beta).AsScalar())

        Map [ for KeyValue(m, w) in weights -> m.Name, next m w ]

    /// A host's direction, with the average of the weights before each update kept beside what the host keeps.
    let private averaging (beta: float) (host: Direction) : Direction =
        Direction.Running(fun kept weights batch ->
            let struct (own, hosts) = Memory.split prefix kept
            let struct (pass, next) = Direction.step host hosts weights batch
            struct (pass, Memory.join prefix (average beta weights own) next))

    // ---- over steps --------------------------------------------------------------------------------------------------

    let private ridged (ridge: float) (moment: torch.Tensor) : torch.Tensor =
        Tensors.scoped (fun () ->
            let size = Tensors.toFloat (moment.trace ()) / float moment.shape[0]
            moment .+ torch.eye (moment.shape[0], dtype = moment.dtype, device = moment.device) * (ridge * size).AsScalar())

    /// C_t of a modality.
    let private inputs (o: Options) (m: Modality) (task: Task) : torch.Tensor = ridged o.Ridge (Task.moment m task).Matrix

    /// H_t of a modality: the partners' outputs under the heads that the host left.
    let private partners (o: Options) (heads: Heads) (m: Modality) (task: Task) : torch.Tensor =
        Tensors.scoped (fun () ->
            [ for pair, weight in task.Terms do
                  if List.contains m (Pair.members pair) then
                      let p = Pair.partner m pair
                      (Task.moment p task |> Moment.through (Heads.weight p heads)).Matrix * weight.AsScalar() ]
            |> List.reduce (.+)
            |> ridged o.Ridge)

    let private added (name: string) (t: torch.Tensor) (kept: Memory) : torch.Tensor =
        match Map.tryFind name kept with
        | Some sum -> sum .+ t
        | None -> t

    let private inputName, private partnerName, private sumName = "inputs/", "partners/", "sum/"

    /// The mean of a modality's heads with that of one more step, and what is kept for the next.
    let private oneSided (o: Options) (task: Task) (after: Heads) (kept: Memory) (m: Modality) : struct (torch.Tensor * Memory) =
        let c = inputs o m task
        let w = after[m].``to`` torch.float64
        let all = added (inputName + m.Name) c kept
        let sum = added (sumName + m.Name) (w.mm c) kept
        struct (RegressionMean.oneSided all sum, kept |> Map.add (inputName + m.Name) all |> Map.add (sumName + m.Name) sum)

    let private dual (o: Options) (task: Task) (after: Heads) (kept: Memory) (m: Modality) : struct (torch.Tensor * Memory) =
        let name side = $"{side}{m.Name}|"

        let own =
            { Inputs = inputs o m task
              Partners = partners o after m task }

        let w = after[m].``to`` torch.float64
        let sum = added (sumName + m.Name) (RegressionMean.apply [ own ] w) kept

        let before =
            [ for KeyValue(key, c) in kept do
                  if key.StartsWith(name inputName) then
                      let step = key.Substring (name inputName).Length
                      { Inputs = c; Partners = kept[name partnerName + step] } ]

        let merged = RegressionMean.solve (before @ [ own ]) sum w |> Check.getAll
        let step = string task.Index

        struct (merged,
                kept
                |> Map.add (name inputName + step) own.Inputs
                |> Map.add (name partnerName + step) own.Partners
                |> Map.add (sumName + m.Name) sum)

    /// The same of every modality of some steps.
    let private means merged (o: Options) (tasks: Task list) (after: Heads) (kept: Memory) : struct (Heads * Memory) =
        let one (struct (heads: Heads, kept: Memory)) (task: Task, m: Modality) =
            let struct (w: torch.Tensor, kept) = merged o task after kept m
            struct (Map.add m (w.``to`` after[m].dtype) heads, kept)

        List.fold
            one
            (struct (Map.empty, kept))
            [ for task in tasks do
                  for m in task.Modalities -> task, m ]

    // ---- the method --------------------------------------------------------------------------------------------------

    let private between (a: float) (x: torch.Tensor) (y: torch.Tensor) : torch.Tensor =
        Tensors.scoped (fun () -> x * (1.0 - a).AsScalar() .+ y * a.AsScalar())

    /// Another method with the heads after each step merged. The host learns from the merged heads on, but under `Tasks`, where each
    /// step starts from the heads before any. What it promises of a change inside a step holds for the part of it that is kept.
    let around (o: Options) (host: Method) : Method =
        let begin' (trainer: Trainer) (context: Context) (memory: Memory) (heads: Heads) (tasks: Task list) : Session =
            let struct (own, hosts) = Memory.split prefix memory
            let from = if o.Rule = MergeRule.Tasks then context.Initial else heads
            let session = trainer.Begin context hosts from tasks

            let averages = o.Rule = MergeRule.Ema && o.EmaDecay > 0.0

            let finish (trained: Trained) : Trained =
                let struct (averaged, left) = Memory.split prefix trained.Kept

                let weights =
                    if averages then
                        let last = average o.EmaDecay trained.Weights averaged
                        trained.Weights |> Map.map (fun m _ -> last[m.Name])
                    else
                        trained.Weights

                let finished = session.Finish { Weights = weights; Kept = left }
                let after = Training.select (Training.moving tasks) finished.Weights

                let struct (merged: Heads, own) =
                    match o.Rule with
                    | MergeRule.Wise -> struct (after |> Map.map (fun m w -> between o.Share (Heads.weight m heads) w), own)
                    | MergeRule.Ema -> struct (after, own)
                    | MergeRule.Tasks ->
                        let sum m (w: torch.Tensor) =
                            Tensors.scoped (fun () ->
                                Heads.weight m heads .+ (w - Heads.weight m context.Initial) * o.Share.AsScalar())

                        struct (Map.map sum after, own)
                    | MergeRule.Dual -> means dual o tasks after own
                    | MergeRule.RegMean -> means oneSided o tasks after own

                { Weights = Heads.replace merged heads
                  Kept = Memory.join prefix own finished.Kept }

            { session with
                Direction = if averages then averaging o.EmaDecay session.Direction else session.Direction
                Finish = finish }

        { host with
            Name = "merge"
            Role = Role.around host.Role
            Promise = Promise.Nothing
            Summary = "merges the heads that another method (host) trains with those before, by a rule" }
        |> Method.mapTrainer (fun trainer ->
            { Begin = begin' trainer
              End = Wrapper.ending prefix trainer })

    /// Merging around fine-tuning, or around the host that is named.
    let merge: Wrapper<Options> =
        { Options = [ Opt.any host; Opt.any rule; Opt.any share; Opt.any emaDecay; Opt.any ridge ]
          Host = host
          Unfit =
            fun host ->
                match host.Curriculum with
                | Curriculum.AllAtOnce -> Some "it has one step, and nothing to merge it with"
                | Curriculum.StepByStep -> None
          Defaults = defaults
          Rates = [ "1e-4"; "2e-4"; "4e-4"; "7e-4"; "1e-3"; "2e-3" ]
          Make = around }
