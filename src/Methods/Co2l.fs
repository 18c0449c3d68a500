namespace Cmcl

open TorchSharp

/// Whose embeddings in the buffer are candidates beside the batch's partners.
[<RequireQualifiedAccess>]
type Candidates =
    /// Those of the partner's modality where the replayed pair has it, else of both sides.
    | Matching
    | Both
    | Nobody

/// Loss and gradients of a batch and of the pairs replayed for it, by parts.
type RelationPass =
    {
        /// The asymmetric contrastive loss and relation distillation, not weighted: 0-d tensors.
        Contrast: torch.Tensor
        Distillation: torch.Tensor
        /// Their sum, distillation weighted.
        Pass: Pass
    }

    /// All of its tensors.
    member p.Tensors: seq<torch.Tensor> = [ p.Contrast; p.Distillation; p.Pass.Loss ] @ Heads.tensors p.Pass.Gradients

/// Contrastive continual learning (Cha, Lee and Shin 2021) between modalities: L_asym + λ L_IRD. The batch's rows are the anchors, their partners the
/// positives; embeddings of replayed pairs are candidates beside the partners, and the relations of batch and replayed pairs are held to
/// what they were under the heads at the step's start.
///
/// Published: both losses, κ = 0.2 now and 0.01 then, λ = 1, distillation over new samples too, a buffer that is redrawn at a step's end.
/// Decided here: a positive is the partner, there being no classes; old and new pairs do not mix in a batch, since a batch has one pair of
/// modalities: as many pairs as it has are replayed, of one old step; the mean is over the anchors (the published code divides by old samples
/// too); which replayed embeddings are candidates (`candidates`); relations across modalities, both ways; 512 pairs in the buffer (200 or
/// 500 published, of images); scores and temperature of InfoNCE as for every method here (published: unit vectors at 0.5).
[<RequireQualifiedAccess>]
module Co2l =
    type Options =
        { Lambda: float
          Buffer: int
          Kappa: float
          KappaPast: float
          Candidates: Candidates }

    let defaults: Options =
        { Lambda = 1.0
          Buffer = 512
          Kappa = 0.2
          KappaPast = 0.01
          Candidates = Candidates.Matching }

    let lambda: Opt<Options, float> =
        Shared.lambda (fun (o: Options) -> o.Lambda) (fun v o -> { o with Lambda = v })
        |> Opt.tried [ "0.3"; "1"; "3"; "10" ]
        |> Opt.ownDefault

    let buffer: Opt<Options, int> =
        Shared.buffer (fun (o: Options) -> o.Buffer) (fun v o -> { o with Buffer = v }) |> Opt.ownDefault

    let kappa: Opt<Options, float> =
        Opt.make "kappa" "temperature of the relations that are learned" Codec.positive _.Kappa (fun v o -> { o with Kappa = v })
        |> Opt.ownDefault

    let kappaPast: Opt<Options, float> =
        Opt.make "kappa-past" "temperature of the relations that they are held to" Codec.positive _.KappaPast (fun v o ->
            { o with KappaPast = v })
        |> Opt.ownDefault

    let candidates: Opt<Options, Candidates> =
        Opt.make
            "candidates"
            "replayed embeddings beside the batch's partners: of the partner's modality (else both), both sides, or none"
            (Codec.choice [ "matching", Candidates.Matching; "both", Candidates.Both; "none", Candidates.Nobody ])
            _.Candidates
            (fun v o -> { o with Candidates = v })

    /// One side of some pairs: features, outputs now, outputs under the heads before the step.
    type private Side =
        { Modality: Modality
          X: torch.Tensor
          Now: torch.Tensor
          Before: torch.Tensor }

    let private sides (before: Heads) (now: Heads) (g: Group) : Side * Side =
        let side m x =
            let y = Heads.outputs (Heads.weight m now) x

            { Modality = m
              X = x
              Now = y
              Before =
                match Map.tryFind m before with
                | Some w -> Heads.outputs w x
                | None -> y }

        side g.Pair.A g.Parts["a"], side g.Pair.B g.Parts["b"]

    /// The sides of a replayed pair that are candidates beside partners of a modality: that modality's where the pair has it, and otherwise both,
    /// as the joint space admits; always both; none.
    let candidateSides (kind: Candidates) (partner: Modality) (replayed: Pair) : Modality list =
        match kind with
        | Candidates.Nobody -> []
        | Candidates.Both -> Pair.members replayed
        | Candidates.Matching ->
            match Pair.members replayed |> List.filter ((=) partner) with
            | [] -> Pair.members replayed
            | own -> own

    /// L_asym + λ L_IRD of a batch and of replayed pairs, with gradients for the heads in `before`, those that the step moves as they were at its
    /// start; `now` holds all heads. L_IRD is the mean over all anchors: batch and replayed pairs count as many as they are.
    let pass (o: Options) (settings: Settings) (before: Heads) (now: Heads) (batch: Group) (replayed: Group) : RelationPass =
        Tensors.scopedWith (fun (p: RelationPass) -> p.Tensors) (fun () ->
            let a, b = sides before now batch
            let oldA, oldB = sides before now replayed

            let chosen partner =
                let members = candidateSides o.Candidates partner replayed.Pair
                [ oldA; oldB ] |> List.filter (fun s -> List.contains s.Modality members)

            let forA = chosen batch.Pair.B
            let forB = if settings.Symmetric then chosen batch.Pair.A else []

            let contrast =
                Relations.contrast
                    (Settings.contrast settings)
                    a.Now
                    b.Now
                    { ForA = forA |> List.map _.Now
                      ForB = forB |> List.map _.Now }

            let distil (a: Side) (b: Side) =
                Relations.distil o.Kappa (Relations.between o.KappaPast a.Before b.Before) a.Now b.Now

            let own, old = distil a b, distil oldA oldB
            let share = float batch.Count / float (batch.Count + replayed.Count)
            let distillation = own.Loss * share.AsScalar() .+ old.Loss * (1.0 - share).AsScalar()

            let ownPart (g: torch.Tensor) = g * (o.Lambda * share).AsScalar()
            let oldPart (g: torch.Tensor) = g * (o.Lambda * (1.0 - share)).AsScalar()

            let ofOld (s: Side) (g: torch.Tensor) =
                [ for c, beside in List.zip forA contrast.ForA @ List.zip forB contrast.ForB do
                      if c.Modality = s.Modality then
                          beside ]
                |> List.fold (fun sum beside -> sum .+ beside) (oldPart g)

            let gradient (m: Modality, sides: (Side * torch.Tensor) list) =
                let all ts = torch.cat (Array.ofList ts, 0L)
                let x = sides |> List.map (fun (s, _) -> s.X) |> all
                m, Contrastive.weightGradient (sides |> List.map snd |> all) x

            { Contrast = contrast.Matched.Loss
              Distillation = distillation
              Pass =
                { Loss = contrast.Matched.Loss .+ distillation * o.Lambda.AsScalar()
                  Gradients =
                    [ a, contrast.Matched.A .+ ownPart own.A
                      b, contrast.Matched.B .+ ownPart own.B
                      oldA, ofOld oldA old.A
                      oldB, ofOld oldB old.B ]
                    |> List.filter (fun (s, _) -> before.ContainsKey s.Modality)
                    |> List.groupBy (fun (s, _) -> s.Modality)
                    |> List.map gradient
                    |> Map } })

    let private prefix = "previous/"

    /// A step's training with distillation weighted by λ; `note` keeps what else is wanted of a batch. Without old pairs it is plain training, and
    /// likewise where neither part of the loss is to differ. Copies of the heads that move are kept as the previous model; the others
    /// do not change during the step.
    let train
        (o: Options)
        (note: Batch -> RelationPass -> Memory -> Memory)
        (context: Context)
        (memory: Memory)
        (heads: Heads)
        (tasks: Task list)
        : Session =
        let settings = context.Settings
        let session = Training.plainSession context memory heads tasks
        let buffer = Buffer.ofMemory memory

        if buffer.Groups.IsEmpty || (o.Lambda = 0.0 && o.Candidates = Candidates.Nobody) then
            session
        else
            let before = session.Start |> Heads.map (fun w -> w.clone ())

            let forget = Map.filter (fun (name: string) _ -> not (name.StartsWith prefix))
            let kept = Map.fold (fun kept (m: Modality) w -> Map.add $"{prefix}{m}" w kept) (forget session.Kept) before

            let step (kept: Memory) (weights: Heads) (batch: Batch) : struct (Pass * Memory) =
                let replayed, parts =
                    Tensors.scopedWith (fun (_, p: RelationPass) -> p.Tensors) (fun () ->
                        let rows = Buffer.group 0 batch.Pair batch.A batch.B []
                        let replayed = Buffer.draw (Seed.split "replay" batch.Seed) rows.Count buffer |> Option.get
                        replayed.Count, pass o settings before (Heads.replace weights heads) rows replayed)

                let kept =
                    kept
                    |> RunningSum.count "replayed" replayed
                    |> RunningSum.add "distillation" (parts.Distillation * o.Lambda.AsScalar())
                    |> RunningSum.add "loss" parts.Pass.Loss
                    |> note batch parts

                struct (parts.Pass, kept)

            { session with
                Direction = Direction.Running step
                Kept = kept }

    /// The memory with the step's pairs in the buffer: an equal part of it for each step so far, drawn uniformly.
    let remember (o: Options) (context: Context) (memory: Memory) (_: Heads) (tasks: Task list) : Memory =
        let share (buffer: Buffer) (task: Task) =
            let seed = Seed.split $"buffer, step {task.Index}" context.Seed
            Buffer.share (int64 o.Buffer) seed (Buffer.ofTask task) buffer |> Buffer.fetched task

        Buffer.toMemory (List.fold share (Buffer.ofMemory memory) tasks) memory

    /// In steps with old pairs: how many went through the heads once more, and the share of weighted distillation in the step's loss, of all
    /// updates together.
    let diagnostics (memory: Memory) : (string * float) list =
        [ match RunningSum.sum "replayed" memory with
          | Some pairs -> "replayed", pairs
          | None -> ()
          match RunningSum.sum "distillation" memory, RunningSum.sum "loss" memory with
          | Some distillation, Some loss when loss > 0.0 -> "distillation_share", distillation / loss
          | _ -> () ]

    /// Co2L with all its options. Kept: the buffer, and copies of the step's two heads.
    let co2l: Spec<Options> =
        let make o =
            { Training.method "co2l" "contrastive continual learning: replayed candidates, and relations held to what they were" with
                Diagnostics = diagnostics }
            |> Method.beginning (train o (fun _ _ kept -> kept))
            |> Method.ending (remember o)

        { Spec.make defaults [ Opt.any lambda; Opt.any buffer; Opt.any kappa; Opt.any kappaPast; Opt.any candidates ] make with
            Rates = Spec.weighing }
