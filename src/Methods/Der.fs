namespace Cmcl

open TorchSharp

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
    /// D of n pairs and ∂D/∂Y of both sides, from outputs now and then (n × d each).
    ///
    /// `distill=outputs`: h = (y_a, y_b), as they are, also where scores are of unit rows. `mean`: ‖h − h'‖²/(2nd), `sum`: ‖h − h'‖²/n.
    /// `distill=scores`: S = Y_a Y_bᵀ/τ among the pairs, of unit rows where the loss's are. `mean`: ‖S − S'‖²/n², `sum`: ‖S − S'‖²/n.
    let distance
        (settings: Settings)
        (oldA: torch.Tensor, oldB: torch.Tensor)
        (ya: torch.Tensor)
        (yb: torch.Tensor)
        : ContrastGradients =
        Tensors.scopedWith (fun g -> [ g.Loss; g.A; g.B ]) (fun () ->
            let pairs, dimensions = ya.shape[0], ya.shape[1]

            let per entries =
                match settings.Reduction with
                | Reduction.Mean -> 1.0 / float (pairs * entries)
                | Reduction.Sum -> 1.0 / float pairs

            match settings.Distill with
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
    let private direction (settings: Settings) (beta: float) (heads: Heads) (tasks: Task list) : Direction =
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

            let held = replayed "held" settings.Alpha (fun g -> distance settings (g.Parts["za"], g.Parts["zb"]))

            let again = replayed "trained again" beta (fun _ -> Contrastive.gradients contrast)

            let plus factor part (pass: Pass) =
                match part with
                | Some struct (_, other) -> Replay.add factor other pass
                | None -> pass

            let pass = plain |> plus settings.Alpha held |> plus beta again
            let offered = Buffer.group tasks[batch.Task].Index batch.Pair batch.A batch.B [ "za", ya; "zb", yb ]

            let tally kept =
                let pairs =
                    List.sumBy
                        (function
                        | Some struct (n, _) -> n
                        | None -> 0L)
                        [ held; again ]

                let kept = kept |> Tally.count "replayed" pairs |> Tally.add "loss" pass.Loss

                match held with
                | Some struct (_, d) -> Tally.add "penalty" (d.Loss * settings.Alpha.AsScalar()) kept
                | None -> kept

            let after = Reservoir.offer settings.Buffer (Seed.split "offered" batch.Seed) offered before
            let next = Reservoir.toMemory before after kept |> tally
            last.Value <- ValueSome(struct (next, after))
            struct (pass, next)

        Direction.Running(fun kept weights batch ->
            Tensors.scopedWith
                (fun struct (pass: Pass, next: Memory) ->
                    Seq.concat [ [ pass.Loss ] :> seq<_>; pass.Gradients.Values; next.Values ])
                (fun () -> step kept weights batch))

    let private tells (memory: Memory) : (string * float) list =
        [ match Tally.sum "replayed" memory with
          | Some pairs -> "replayed", pairs
          | None -> ()
          match Tally.sum "penalty" memory, Tally.sum "loss" memory with
          | Some penalty, Some loss when loss > 0.0 -> "penalty_share", penalty / loss
          | _ -> () ]

    let private make name summary fields (beta: Settings -> float) : Method =
        { Training.method name summary with
            Fields = Field.training @ fields
            Begin =
                fun context memory heads tasks ->
                    { Training.plainSession context memory heads tasks with
                        Direction = direction context.Settings (beta context.Settings) heads tasks }
            // Between steps nothing is kept but the items.
            End = fun _ memory _ _ -> Buffer.toMemory (Buffer.ofMemory memory) memory
            Tells = tells }

    /// DER. Published: α 0.1 to 1 and buffers of 200, 500 and 5120, for classifiers; nothing for InfoNCE. It tells how many replayed pairs went
    /// through the heads, and the share of α D in the step's loss, of all updates together.
    let der: Method =
        make "der" "dark experience replay: outputs of replayed pairs are held to what they were" Field.der (fun _ -> 0.0)

    /// DER++. Published: β 0.5 or 1.
    let derpp: Method =
        make "derpp" "DER++: dark experience replay that also trains on replayed pairs" (Field.der @ [ Field.beta ]) _.Beta
