namespace Cmcl

open TorchSharp

/// What DER holds to what it was: embeddings of both sides, or scores among the replayed pairs.
[<RequireQualifiedAccess>]
type Distill =
    | Outputs
    | Scores

/// A squared distance as its mean over all entries, or summed over dimensions and averaged over pairs.
[<RequireQualifiedAccess>]
type Reduction =
    | Mean
    | Sum

/// Dark experience replay (Buzzega et al. 2020, arXiv 2004.07211): outputs of replayed pairs are held to what they were when the pairs
/// entered a reservoir; DER++ also trains on replayed pairs.
///
///     DER     L = L(batch) + α D(x'),    D = mean ‖h(x') − h'‖²
///     DER++   L = L(batch) + α D(x') + β L(x''),   x', x'' two independent draws
///
/// A draw is one old step, as likely as it has pairs in the reservoir, and as many of its pairs as the batch has, or all: InfoNCE needs one
/// pair of modalities. Every batch, in every epoch, is offered to the reservoir after it was trained on, with the outputs that it had before the
/// update, which are never refreshed; so pairs of the present step are replayed too. All of this is as in the published code. What that has of
/// labels is here the partner, and what it has of logits the outputs of both heads.
///
/// Only the heads that the step trains get gradients, also from pairs of other modalities; where a replayed pair shares none, its loss counts
/// and moves nothing.
[<RequireQualifiedAccess>]
module Der =
    type Options =
        {
            Buffer: int
            Alpha: float
            /// 0 for DER.
            Beta: float
            Distill: Distill
            Reduction: Reduction
        }

    let defaults: Options =
        { Buffer = 512
          Alpha = 0.5
          Beta = 0.5
          Distill = Distill.Outputs
          Reduction = Reduction.Mean }

    let buffer: Opt<Options, int> = Shared.buffer _.Buffer (fun v o -> { o with Buffer = v })

    let alpha: Opt<Options, float> =
        Opt.make "alpha" "strength of the pull to earlier outputs" Codec.notNegative _.Alpha (fun v o -> { o with Alpha = v })

    let beta: Opt<Options, float> =
        Opt.make "beta" "strength of InfoNCE on replayed pairs" Codec.notNegative _.Beta (fun v o -> { o with Beta = v })
        |> Opt.tried [ "0.5"; "1" ]

    let distill: Opt<Options, Distill> =
        Opt.make
            "distill"
            "what is held to what it was: outputs of both sides, or scores among the replayed pairs"
            (Codec.choice [ "outputs", Distill.Outputs; "scores", Distill.Scores ])
            _.Distill
            (fun v o -> { o with Distill = v })

    let reduction: Opt<Options, Reduction> =
        Opt.make
            "reduction"
            "squared distance as the mean over all entries, or summed over dimensions and averaged over pairs"
            (Codec.choice [ "mean", Reduction.Mean; "sum", Reduction.Sum ])
            _.Reduction
            (fun v o -> { o with Reduction = v })

    /// D of n pairs and ∂D/∂Y of both sides, from outputs now and then (n × d each).
    ///
    /// `distill=outputs`: h = (y_a, y_b), as they are, also where scores are of unit rows. `mean`: ‖h − h'‖²/(2nd), `sum`: ‖h − h'‖²/n.
    /// `distill=scores`: S = Y_a Y_bᵀ/τ among the pairs, of unit rows where the loss's are. `mean`: ‖S − S'‖²/n², `sum`: ‖S − S'‖²/n.
    let distance
        (o: Options)
        (settings: Settings)
        (oldA: torch.Tensor, oldB: torch.Tensor)
        (ya: torch.Tensor)
        (yb: torch.Tensor)
        : ContrastGradients =
        Tensors.scopedWith (fun g -> [ g.Loss; g.A; g.B ]) (fun () ->
            let pairs, dimensions = ya.shape[0], ya.shape[1]

            let per entries =
                match o.Reduction with
                | Reduction.Mean -> 1.0 / float (pairs * entries)
                | Reduction.Sum -> 1.0 / float pairs

            match o.Distill with
            | Distill.Outputs ->
                let a, b = ya - oldA, yb - oldB
                let weight = per (2L * dimensions)

                { Loss = (a.squared().sum() .+ b.squared().sum()) * weight.AsScalar()
                  A = a * (2.0 * weight).AsScalar()
                  B = b * (2.0 * weight).AsScalar() }
            | Distill.Scores ->
                let prepare = Alignment.prepare settings.Scoring
                let ua, ub = prepare ya, prepare yb
                let weight, tau = per pairs, settings.Temperature
                let change = (ua.mm (ub.t ()) - (prepare oldA).mm((prepare oldB).t())) / tau.AsScalar()
                let g = change * (2.0 * weight / tau).AsScalar()

                { Loss = change.squared().sum() * weight.AsScalar()
                  A = Contrastive.throughNorm settings.Scoring ya ua (g.mm ub)
                  B = Contrastive.throughNorm settings.Scoring yb ub (g.t().mm ua) })

    /// Of InfoNCE and both terms of replay, each left out where its factor is zero, and the batch offered after it.
    let private direction (o: Options) (settings: Settings) (heads: Heads) (tasks: Task list) : Direction =
        let contrast = Settings.contrast settings
        // What the last memory holds need not be read from it again.
        let last: struct (Memory * Reservoir) voption ref = ref ValueNone

        let reservoir (kept: Memory) : Reservoir =
            match last.Value with
            | ValueSome(struct (memory, reservoir)) when obj.ReferenceEquals(memory, kept) -> reservoir
            | _ -> Reservoir.ofMemory kept

        let step (kept: Memory) (weights: Heads) (batch: Batch) =
            let before = reservoir kept
            let moves m = Map.containsKey m weights
            let all = Heads.replace weights heads
            let output m x = Heads.outputs (Heads.weight m weights) x
            let ya, yb = output batch.Pair.A batch.A, output batch.Pair.B batch.B
            let own = Contrastive.gradients contrast ya yb

            let plain: Pass =
                { Loss = own.Loss
                  Gradients =
                    Map
                        [ batch.Pair.A, Contrastive.weightGradient own.A batch.A
                          batch.Pair.B, Contrastive.weightGradient own.B batch.B ] }

            let replayed purpose factor loss =
                if factor = 0.0 then
                    None
                else
                    Reservoir.draw (Seed.split purpose batch.Seed) batch.A.shape[0] before
                    |> Option.map (fun group -> struct (group.Count, Replay.pass moves all (loss group) group))

            let held = replayed "held" o.Alpha (fun g -> distance o settings (g.Parts["za"], g.Parts["zb"]))

            let again = replayed "trained again" o.Beta (fun _ -> Contrastive.gradients contrast)

            let plus factor part (pass: Pass) =
                match part with
                | Some struct (_, other) -> Replay.add factor other pass
                | None -> pass

            let pass = plain |> plus o.Alpha held |> plus o.Beta again
            let offered = Buffer.group tasks[batch.Task].Index batch.Pair batch.A batch.B [ "za", ya; "zb", yb ]

            let tally kept =
                let pairs =
                    List.sumBy
                        (function
                        | Some struct (n, _) -> n
                        | None -> 0L)
                        [ held; again ]

                let kept = kept |> RunningSum.count "replayed" pairs |> RunningSum.add "loss" pass.Loss

                match held with
                | Some struct (_, d) -> RunningSum.add "penalty" (d.Loss * o.Alpha.AsScalar()) kept
                | None -> kept

            let after = Reservoir.offer o.Buffer (Seed.split "offered" batch.Seed) offered before
            let next = Reservoir.toMemory before after kept |> tally
            last.Value <- ValueSome(struct (next, after))
            struct (pass, next)

        Direction.Running(fun kept weights batch ->
            Tensors.scopedWith
                (fun struct (pass: Pass, next: Memory) ->
                    Seq.concat [ [ pass.Loss ] :> seq<_>; pass.Gradients.Values; next.Values ])
                (fun () -> step kept weights batch))

    let private diagnostics (memory: Memory) : (string * float) list =
        [ match RunningSum.sum "replayed" memory with
          | Some pairs -> "replayed", pairs
          | None -> ()
          match RunningSum.sum "penalty" memory, RunningSum.sum "loss" memory with
          | Some penalty, Some loss when loss > 0.0 -> "penalty_share", penalty / loss
          | _ -> () ]

    let private make (name: string) (summary: string) (o: Options) : Method =
        { Training.method name summary with
            Diagnostics = diagnostics }
        |> Method.beginning (fun context memory heads tasks ->
            { Training.plainSession context memory heads tasks with
                Direction = direction o context.Settings heads tasks })
        // Between steps nothing is kept but the items.
        |> Method.ending (fun _ memory _ _ -> Buffer.toMemory (Buffer.ofMemory memory) memory)

    /// DER. Published: α 0.1 to 1 and buffers of 200, 500 and 5120, for classifiers; nothing for InfoNCE. It tells how many replayed pairs went
    /// through the heads, and the share of α D in the step's loss, of all updates together.
    let der: Spec<Options> =
        { Spec.make
              { defaults with Beta = 0.0 }
              [ Opt.any buffer
                Opt.any (alpha |> Opt.tried [ "1"; "10"; "100"; "1000" ])
                Opt.any distill
                Opt.any reduction ]
              (make "der" "dark experience replay: outputs of replayed pairs are held to what they were") with
            Rates = Spec.weighing }

    /// DER++. Published: β 0.5 or 1.
    let derpp: Spec<Options> =
        { Spec.make
              defaults
              [ Opt.any buffer
                Opt.any (alpha |> Opt.tried [ "10"; "100" ])
                Opt.any distill
                Opt.any reduction
                Opt.any beta ]
              (make "derpp" "DER++: dark experience replay that also trains on replayed pairs") with
            Rates = Spec.weighing }
