namespace Cmcl

open TorchSharp

/// Replay without rows: InfoNCE of the new rows + λ Σ_p (n_p/n) L_p over the steps p before, n_p and n being rows, where L_p is a loss that the moments of
/// step p determine (theory.md, section 11). With λ = 1 old rows count as much as new ones, as they would in joint training.
[<RequireQualifiedAccess>]
module MomentReplay =
    type Options = { Lambda: float; Loss: MomentLoss }

    let defaults: Options = { Lambda = 0.1; Loss = MomentLoss.Spectral }

    let lambda: Opt<Options, float> =
        Shared.lambda _.Lambda (fun v o -> { o with Lambda = v }) |> Opt.tried [ "0.03"; "0.1"; "0.2"; "0.5" ]

    let loss: Opt<Options, MomentLoss> =
        Opt.make
            "loss"
            "loss of old steps, from their moments: spectral contrastive (exact), or InfoNCE's second cumulant"
            (Codec.choice [ "spectral", MomentLoss.Spectral; "cumulant", MomentLoss.Cumulant ])
            _.Loss
            (fun v o -> { o with Loss = v })
        |> Opt.tried [ "spectral"; "cumulant" ]

    let private name (step: int) (pair: Pair) (part: string) = $"replayed/{step:D4}/{pair.A}/{pair.B}/{part}"

    /// The moments of every step before, with its pair.
    let kept (memory: Memory) : (Pair * PairMoments) list =
        [ for key in memory.Keys do
              match key.Split '/' with
              | [| "replayed"; step; a; b; "rows" |] ->
                  let pair = Pair.named a b
                  let part which = memory[name (int step) pair which]
                  use rows = (part "rows").cpu()

                  pair,
                  { Count = rows.item<int64>()
                    A = part "a"
                    B = part "b"
                    Cross = part "cross" }
              | _ -> () ]

    /// What training adds to the gradient of one head.
    [<RequireQualifiedAccess>]
    type private Replayed =
        /// Both heads of the pair move.
        | Both of weight: float * Pair * PairMoments
        /// The partners of this head stay.
        | One of Modality * HeadLoss

    let private replayed
        (o: Options)
        (s: Settings)
        (n: int64)
        (heads: Heads)
        (moving: Modality list)
        (old: (Pair * PairMoments) list)
        =
        let weighted = [ for pair, p in old -> o.Lambda * float p.Count / float n, pair, PairMoments.cast s.Dtype.Torch p ]

        let moves m = List.contains m moving

        [ for weight, pair, p in weighted do
              if moves pair.A && moves pair.B then
                  Replayed.Both(weight, pair, p)
          for m in moving do
              let pairs =
                  [ for weight, pair, p in weighted do
                        if List.contains m (Pair.members pair) then
                            let partner = Pair.partner m pair

                            if not (moves partner) then
                                weight, Heads.weight partner heads, pair.A = m, p ]

              if not pairs.IsEmpty then
                  Replayed.One(m, PairMoments.ofHead o.Loss s.Temperature pairs) ]

    /// Loss and gradients of a batch with those of old steps added.
    let private direction (o: Options) (s: Settings) (parts: Replayed list) : Direction =
        let plain = Training.plain s

        Direction.Of(fun weights batch ->
            let add m (g: torch.Tensor) (pass: Pass) : Pass =
                { pass with
                    Gradients = Map.add m (pass.Gradients[m] .+ g) pass.Gradients }

            let replay (pass: Pass) (part: Replayed) : Pass =
                match part with
                | Replayed.One(m, l) ->
                    let struct (loss, g) = HeadLoss.gradient (Heads.weight m weights) l
                    { add m g pass with Loss = pass.Loss .+ loss }
                | Replayed.Both(weight, pair, p) ->
                    let g =
                        PairMoments.gradients o.Loss s.Temperature (Heads.weight pair.A weights) (Heads.weight pair.B weights) p

                    let times (t: torch.Tensor) = t * weight.AsScalar()

                    { (pass |> add pair.A (times g.A) |> add pair.B (times g.B)) with
                        Loss = pass.Loss .+ times g.Loss }

            Tensors.scopedWith (fun (p: Pass) -> p.Loss :: Heads.tensors p.Gradients) (fun () ->
                List.fold replay (Direction.pass plain Map.empty weights batch) parts))

    /// Without λ, or without an old step of a head that moves, it is plain training, bit for bit.
    let private begin' (o: Options) (context: Context) (memory: Memory) (heads: Heads) (tasks: Task list) : Session =
        let session = Training.plainSession context memory heads tasks
        let moving = Training.moving tasks
        let n = tasks |> List.sumBy _.Count

        match (if o.Lambda = 0.0 then [] else replayed o context.Settings n heads moving (kept memory)) with
        | [] -> session
        | parts ->
            { session with
                Direction = direction o context.Settings parts }

    let private end' (o: Options) (_: Context) (memory: Memory) (_: Heads) (tasks: Task list) : Memory =
        let add (memory: Memory) (task: Task, pair: Pair, weight: float) =
            let p =
                PairMoments.ofSums o.Loss pair (ClosedForm.moments { task with Terms = Terms.one pair }) (fun m ->
                    Task.mean m task)

            let count = int64 (weight * float p.Count)

            [ "a", p.A; "b", p.B; "cross", p.Cross; "rows", torch.tensor count ]
            |> List.fold (fun memory (part, t) -> Map.add (name task.Index pair part) t memory) memory

        [ for task in tasks do
              for pair, weight in task.Terms -> task, pair, weight ]
        |> List.fold add memory

    /// Moment replay with both options. Kept of each step: three matrices, d_a × d_a, d_b × d_b and d_a × d_b, in float64.
    let momentReplay: Spec<Options> =
        let make o =
            Training.method "moment-replay" "replay without rows: a loss of old steps from their moments beside InfoNCE"
            |> Method.beginning (begin' o)
            |> Method.ending (end' o)

        { Spec.make defaults [ Opt.any lambda; Opt.any loss ] make with
            Rates = Spec.weighing }
