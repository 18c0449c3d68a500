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

/// Elastic weight consolidation (Kirkpatrick et al. 2017): InfoNCE + (λ/2) Σ_k Σ F_k∘(W − W*_k)∘² over the past steps k that trained a
/// head, F_k being the step's Fisher information at its end and W*_k the head then. The ½ is the paper's; libraries that leave it out
/// pull twice as hard at the same λ. The penalty's gradient λ F∘(W − W*) is part of the gradient, before clipping and the optimizer.
[<RequireQualifiedAccess>]
module Ewc =
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
    let fisher (settings: Settings) (seed: Seed) (heads: Heads) (task: Task) : Heads =
        let contrast = Settings.contrast settings
        let batches = batches settings.Batch task.Visits
        let anchors = batches |> List.sumBy snd

        let ofBatch (i: int) (a: torch.Tensor) (b: torch.Tensor) : Heads =
            match settings.Fisher with
            | Fisher.PerAnchor -> FisherInformation.perAnchor contrast task.Pair heads a b
            | Fisher.PerBatch -> FisherInformation.perBatch contrast task.Pair heads a b
            | Fisher.Sampled ->
                FisherInformation.sampled (seed |> Seed.split "targets" |> Seed.split $"batch {i}") contrast task.Pair heads a b

        let weight (count: int64) : float =
            match settings.Fisher with
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
    let private direction (settings: Settings) : Direction =
        let plain = Training.plain settings
        let lambda = settings.Lambda

        Direction.Running(fun kept weights batch ->
            let pass = Direction.pass plain kept weights batch

            let pulled m (g: torch.Tensor) =
                match pull m kept with
                | Some p -> Pull.add lambda (Heads.weight m weights) p g
                | None -> g

            let penalty =
                Tensors.scoped (fun () ->
                    Pair.members batch.Pair
                    |> List.choose (fun m -> pull m kept |> Option.map (Pull.value (Heads.weight m weights)))
                    |> List.fold
                        (fun (sum: torch.Tensor) value -> sum .+ value * lambda.AsScalar())
                        (torch.zeros ([||], dtype = torch.float64, device = pass.Loss.device)))

            let loss = pass.Loss .+ penalty.``to`` pass.Loss.dtype

            struct ({ Loss = loss; Gradients = Map.map pulled pass.Gradients },
                    kept |> Tally.add "penalty" penalty |> Tally.add "loss" loss))

    /// Without anything that pulls it is plain training, bit for bit.
    let private begin' (context: Context) (memory: Memory) (heads: Heads) (tasks: Task list) : Session =
        let session = Training.plainSession context memory heads tasks

        if context.Settings.Lambda = 0.0 || Training.moving tasks |> List.forall (fun m -> (pull m memory).IsNone) then
            session
        else
            { session with Direction = direction context.Settings }

    /// Separate: the sum of the pulls of all steps. Online: F ← γF + F_step around the heads as they are now.
    let private end' (context: Context) (memory: Memory) (heads: Heads) (tasks: Task list) : Memory =
        let settings = context.Settings

        let addTask (memory: Memory) (i: int, task: Task) =
            let add (memory: Memory) m (f: torch.Tensor) =
                let next =
                    match pull m memory, settings.Accumulate with
                    | None, _ -> Pull.at (Heads.weight m heads) f
                    | Some before, Accumulate.Separate -> Pull.join before (Pull.at (Heads.weight m heads) f)
                    | Some before, Accumulate.Online ->
                        Pull.at (Heads.weight m heads) (f.add (before.Importance, settings.Gamma.AsScalar()))

                setPull m next memory

            fisher settings (Seed.split $"fisher {i}" context.Seed) heads task |> Map.fold add memory

        List.indexed tasks |> List.fold addTask memory

    let private tells (memory: Memory) : (string * float) list =
        match Tally.sum "penalty" memory, Tally.sum "loss" memory with
        | Some penalty, Some loss when loss > 0.0 -> [ "penalty_share", penalty / loss ]
        | _ -> []

    /// EWC with all its options. Kept for each head that was trained: F, W* and a number, however many steps there were (in the separate form
    /// too, see `Pull.join`). It tells the penalty's share of the step's loss, of all updates together, in steps that have a penalty.
    let ewc: Method =
        { Training.method
              "ewc"
              "elastic weight consolidation: a pull to earlier heads, by what the Fisher information says of each entry" with
            Fields = Field.training @ Field.ewc
            Begin = begin'
            End = end'
            Tells = tells }
