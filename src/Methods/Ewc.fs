namespace Cmcl

open TorchSharp

/// A quadratic pull on one head: ½ Σ F∘(W − W*)∘² + rest.
type Pull =
    {
        /// F, not negative, and W*: of the head's shape.
        Importance: torch.Tensor
        Anchor: torch.Tensor
        /// What it costs at W*, a 0-d tensor (float64).
        Rest: torch.Tensor
    }

/// Sums of such pulls, which are again such: what EWC keeps does not grow with steps.
[<RequireQualifiedAccess>]
module Pull =
    /// Nothing at W*. The weight is copied.
    let at (anchor: torch.Tensor) (fisher: torch.Tensor) : Pull =
        { Importance = fisher
          Anchor = anchor.clone ()
          Rest = torch.zeros ([||], dtype = torch.float64, device = anchor.device) }

    /// Both pulls together: F₁(W − W₁)² + F₂(W − W₂)² = (F₁ + F₂)(W − W̄)² + F₁F₂/(F₁ + F₂) (W₂ − W₁)² with W̄ the mean of W₁ and W₂ weighted
    /// by F₁ and F₂, entry by entry. Unlike ΣF, ΣFW* and ΣFW*∘² this subtracts no large numbers.
    let join (one: Pull) (two: Pull) : Pull =
        Tensors.scopedWith (fun p -> [ p.Importance; p.Anchor; p.Rest ]) (fun () ->
            let fisher = one.Importance .+ two.Importance
            let none = torch.zeros_like fisher
            let share = torch.where (fisher.gt none, two.Importance / fisher, none)
            let apart = two.Anchor - one.Anchor
            let cost = (one.Importance * share * apart * apart).sum().``to`` torch.float64

            { Importance = fisher
              Anchor = one.Anchor .+ share * apart
              Rest = one.Rest .+ two.Rest .+ cost * 0.5.AsScalar() })

    /// ½ Σ F∘(W − W*)∘² + rest, a 0-d tensor (float64).
    let value (w: torch.Tensor) (p: Pull) : torch.Tensor =
        Tensors.scoped (fun () ->
            let apart = w - p.Anchor
            p.Rest .+ (p.Importance * apart * apart).sum().``to`` torch.float64 * 0.5.AsScalar())

    /// A gradient with that of so many times the pull added: G + λ F∘(W − W*).
    let add (lambda: float) (w: torch.Tensor) (p: Pull) (gradient: torch.Tensor) : torch.Tensor =
        Tensors.scoped (fun () -> gradient.addcmul (p.Importance, w - p.Anchor, lambda.AsScalar()))

/// Which squared gradients EWC takes for the Fisher information.
[<RequireQualifiedAccess>]
type Fisher =
    /// Of each anchor given its batch, with its true partner.
    | PerAnchor
    /// Of each batch's mean.
    | PerBatch
    /// Of each anchor, with a partner drawn from the model.
    | Sampled

/// Whether EWC keeps a penalty for each step, or one running one.
[<RequireQualifiedAccess>]
type Accumulate =
    | Separate
    | Online

/// Elastic weight consolidation (Kirkpatrick et al. 2017): InfoNCE + (λ/2) Σ_k Σ F_k∘(W − W*_k)∘² over the past steps k that trained a
/// head, F_k being the step's Fisher information at its end and W*_k the head then. The ½ is the paper's; libraries that leave it out
/// pull twice as hard at the same λ. The penalty's gradient λ F∘(W − W*) is part of the gradient, before clipping and the optimizer.
[<RequireQualifiedAccess>]
module Ewc =
    type Options =
        { Lambda: float
          Fisher: Fisher
          Accumulate: Accumulate
          Gamma: float }

    let defaults: Options =
        { Lambda = 1.0
          Fisher = Fisher.PerAnchor
          Accumulate = Accumulate.Separate
          Gamma = 1.0 }

    let lambda: Opt<Options, float> =
        Shared.lambda _.Lambda (fun v o -> { o with Lambda = v }) |> Opt.tried [ "3"; "30"; "300"; "3000" ]

    let fisher: Opt<Options, Fisher> =
        Opt.make
            "fisher"
            "squared gradients: of each anchor given its batch, of the batch's mean, or of each anchor with a sampled partner"
            (Codec.choice [ "per-anchor", Fisher.PerAnchor; "per-batch", Fisher.PerBatch; "sampled", Fisher.Sampled ])
            _.Fisher
            (fun v o -> { o with Fisher = v })

    let accumulate: Opt<Options, Accumulate> =
        Opt.make
            "accumulate"
            "a penalty for each step, or one running one"
            (Codec.choice [ "separate", Accumulate.Separate; "online", Accumulate.Online ])
            _.Accumulate
            (fun v o -> { o with Accumulate = v })

    let gamma: Opt<Options, float> =
        Opt.make
            "gamma"
            "what the running penalty keeps of the one before"
            (Codec.number "a number > 0 and ≤ 1" (fun x -> x > 0.0 && x <= 1.0))
            _.Gamma
            (fun v o -> { o with Gamma = v })
        |> Opt.onlyWith accumulate [ Accumulate.Online ]

    let private fisherName (m: Modality) = $"fisher/{m}"
    let private anchorName (m: Modality) = $"anchor/{m}"
    let private restName (m: Modality) = $"rest/{m}"

    /// What pulls at a head, if a step before trained it.
    let pull (m: Modality) (memory: Memory) : Pull option =
        Map.tryFind (fisherName m) memory
        |> Option.map (fun fisher ->
            { Importance = fisher
              Anchor = memory[anchorName m]
              Rest = memory[restName m] })

    let private setPull (m: Modality) (p: Pull) (memory: Memory) : Memory =
        memory |> Map.add (fisherName m) p.Importance |> Map.add (anchorName m) p.Anchor |> Map.add (restName m) p.Rest

    /// Batches as training makes them: the first row of each and how many it has, without a last single pair.
    let private batches (size: BatchSize) (n: int64) : (int64 * int64) list =
        match size with
        | BatchSize.All -> [ 0L, n ]
        | BatchSize.Rows b ->
            [ for first in 0L .. int64 b .. n - 1L do
                  let count = min (int64 b) (n - first)

                  if count >= 2L then
                      first, count ]

    /// The Fisher information of a step's two heads under the given ones, over its rows in batches of the size that training has: the mean
    /// over anchors, or for `per-batch` over batches. The rows come in an order drawn from the seed, unless shuffling is off.
    let information (kind: Fisher) (settings: Settings) (seed: Seed) (heads: Heads) (task: Task) : Heads =
        let contrast = Settings.contrast settings
        let batches = batches settings.Batch task.Visits
        let anchors = batches |> List.sumBy snd

        let ofBatch (i: int) (a: torch.Tensor) (b: torch.Tensor) : Heads =
            match kind with
            | Fisher.PerAnchor -> FisherInformation.perAnchor contrast task.Pair heads a b
            | Fisher.PerBatch -> FisherInformation.perBatch contrast task.Pair heads a b
            | Fisher.Sampled ->
                FisherInformation.sampled (seed |> Seed.split "targets" |> Seed.split $"batch {i}") contrast task.Pair heads a b

        let weight (count: int64) : float =
            match kind with
            | Fisher.PerBatch -> 1.0 / float batches.Length
            | Fisher.PerAnchor
            | Fisher.Sampled -> float count / float anchors

        let sums = Training.select (Pair.members task.Pair) heads |> Heads.map torch.zeros_like
        use scope = torch.NewDisposeScope()

        let order = (Task.visit settings.Shuffle (Seed.split "order" seed) task).``to`` task.Device

        for i, (first, count) in List.indexed batches do
            use scope = torch.NewDisposeScope()
            let rows = order.narrow (0L, first, count)

            for KeyValue(m, f) in ofBatch i (task.Take(task.Pair.A, rows)) (task.Take(task.Pair.B, rows)) do
                sums[m].add_(f, (weight count).AsScalar()) |> ignore

        sums

    /// Loss and gradients with the penalty in both. Adds up both parts of the loss, to tell their ratio.
    let private direction (settings: Settings) (lambda: float) : Direction =
        let plain = Training.plain settings

        Direction.Running(fun kept weights batch ->
            let pass = Direction.pass plain kept weights batch

            let pulled m (g: torch.Tensor) =
                match pull m kept with
                | Some p -> Pull.add lambda (Heads.weight m weights) p g
                | None -> g

            let penalty =
                Tensors.scoped (fun () ->
                    batch.Modalities
                    |> List.choose (fun m -> pull m kept |> Option.map (Pull.value (Heads.weight m weights)))
                    |> List.fold
                        (fun (sum: torch.Tensor) value -> sum .+ value * lambda.AsScalar())
                        (torch.zeros ([||], dtype = torch.float64, device = pass.Loss.device)))

            let loss = pass.Loss .+ penalty.``to`` pass.Loss.dtype

            struct ({ Loss = loss; Gradients = Map.map pulled pass.Gradients },
                    kept |> RunningSum.add "penalty" penalty |> RunningSum.add "loss" loss))

    /// Without anything that pulls it is plain training, bit for bit.
    let private begin' (o: Options) (context: Context) (memory: Memory) (heads: Heads) (tasks: Task list) : Session =
        let session = Training.plainSession context memory heads tasks

        if o.Lambda = 0.0 || Training.moving tasks |> List.forall (fun m -> (pull m memory).IsNone) then
            session
        else
            { session with
                Direction = direction context.Settings o.Lambda }

    /// Separate: the sum of the pulls of all steps. Online: F ← γF + F_step around the heads as they are now.
    let private end' (o: Options) (context: Context) (memory: Memory) (heads: Heads) (tasks: Task list) : Memory =
        let addTask (memory: Memory) (i: int, task: Task) =
            let add (memory: Memory) m (f: torch.Tensor) =
                let next =
                    match pull m memory, o.Accumulate with
                    | None, _ -> Pull.at (Heads.weight m heads) f
                    | Some before, Accumulate.Separate -> Pull.join before (Pull.at (Heads.weight m heads) f)
                    | Some before, Accumulate.Online ->
                        Pull.at (Heads.weight m heads) (f.add (before.Importance, o.Gamma.AsScalar()))

                setPull m next memory

            information o.Fisher context.Settings (Seed.split $"fisher {i}" context.Seed) heads task |> Map.fold add memory

        List.indexed tasks |> List.fold addTask memory

    let private diagnostics (memory: Memory) : (string * float) list =
        match RunningSum.sum "penalty" memory, RunningSum.sum "loss" memory with
        | Some penalty, Some loss when loss > 0.0 -> [ "penalty_share", penalty / loss ]
        | _ -> []

    /// EWC with all its options. Kept for each head that was trained: F, W* and a number, however many steps there were (in the separate form
    /// too, see `Pull.join`). It tells the penalty's share of the step's loss, of all updates together, in steps that have a penalty.
    let ewc: Spec<Options> =
        let make o =
            { Training.method
                  "ewc"
                  "elastic weight consolidation: a pull to earlier heads, by what the Fisher information says of each entry" with
                Diagnostics = diagnostics }
            |> Method.beginning (begin' o)
            |> Method.ending (end' o)

        { Spec.make defaults [ Opt.any lambda; Opt.any fisher; Opt.any accumulate; Opt.any gamma ] make with
            Rates = Spec.weighing }
