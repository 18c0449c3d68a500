namespace Cmcl

open TorchSharp

/// The statements of theory.md, section 11, on a stream's training rows: what heads from moments are, and what they do not depend on.
[<RequireQualifiedAccess>]
module ClosedFormChecks =
    /// Agreement that is asked of two ways of one number.
    let private tolerance = 1e-8

    /// Singular values of Q_aᵀQ_b over the n matched rows, where Q_m R_m = [X_m; √(nγs_m) I]: the canonical correlations of the rows with a ridge
    /// γ, by way of no moment. Example: `ClosedFormChecks.ofRows 0.1 xa xb`.
    let ofRows (ridge: float) (xa: torch.Tensor) (xb: torch.Tensor) : float[] =
        use scope = torch.NewDisposeScope()
        let n = xa.shape[0]

        let basis (x: torch.Tensor) =
            let d = x.shape[1]
            let size = Tensors.norm x ** 2.0 / float d
            let below = torch.eye (d, dtype = torch.float64, device = x.device) * (sqrt (ridge * size)).AsScalar()
            let struct (q, _) = torch.linalg.qr (torch.cat ([| x; below |], 0L))
            q.narrow (0L, 0L, n)

        torch.linalg.svdvals((basis xa).t().mm(basis xb)).cpu().contiguous().data<float>().ToArray()

    /// Features of a step's training rows as the plan's heads see them, float64.
    let private rows (device: torch.Device) (lift: SeededLift option) (step: Step) : torch.Tensor * torch.Tensor =
        let struct (xa, xb) = Stream.features Dtype.Float64 device Split.Train step

        let seen m (x: torch.Tensor) =
            match lift with
            | Some l -> Lift.rows (Lift.drawn l m x.shape[1]) x
            | None -> x

        seen step.Pair.A xa, seen step.Pair.B xb

    let private largest (values: float seq) : float = Seq.fold max 0.0 values

    /// How far sums of the same products are apart, of the largest part.
    let private differ (one: JointMoments) (other: JointMoments) : float =
        largest
            [ for a, b in List.zip one.Tensors other.Tensors ->
                  let size = Tensors.norm a
                  if size = 0.0 then Tensors.norm b else Tensors.norm (a - b) / size ]

    /// How far the scores between all heads of two solutions are apart, by the products W_aᵀW_b.
    let private apart (one: Heads) (other: Heads) : float =
        largest
            [ for a in one.Keys do
                  for b in one.Keys do
                      if a < b then
                          let product (h: Heads) = h[a].t().mm h[b]
                          Tensors.relativeDifference (product other) (product one) ]

    /// Each of a stream's steps, and their sum, under the options of a closed form. Faults: those of `Cca.solve`.
    /// As in `ClosedFormChecks.conditions torch.CPU None ClosedForm.cca.Defaults stream`.
    let conditions
        (device: torch.Device)
        (lift: SeededLift option)
        (o: ClosedForm.Options)
        (stream: Stream)
        : Result<Condition list, Fault list> =
        use whole = torch.NewDisposeScope()
        let plain = { o.Cca with Prior = 0.0 }
        let ofLift = lift |> Option.map (fun (l: SeededLift) -> l.Lift)
        let initial = Stream.heads Dtype.Float64 device stream

        let ofStep (step: Step) =
            let outer = torch.NewDisposeScope()

            try
                let xa, xb = rows device lift step
                let all = JointMoments.ofRows step.Pair xa xb
                let half = xa.shape[0] / 2L

                let part (first: int64) count =
                    JointMoments.ofRows step.Pair (xa.narrow (0L, first, count)) (xb.narrow (0L, first, count))

                let merged = JointMoments.merge (part 0L half) (part half (xa.shape[0] - half))

                let expected = ofRows plain.Ridge xa xb

                let found =
                    Cca.correlations plain expected.Length all
                    |> Result.map (fun c ->
                        let value i = if i < c.Values.Length then c.Values[i] else 0.0
                        largest [ for i in 0 .. expected.Length - 1 -> abs (value i - expected[i]) ])

                for t in all.Tensors do
                    outer.MoveToOuter t |> ignore

                found
                |> Result.map (fun correlations ->
                    all,
                    [ Condition.zero
                          "closed form: correlations are those of the rows"
                          $"step {step.Index}"
                          tolerance
                          correlations
                      Condition.zero "closed form: shards add up" $"step {step.Index}" 1e-12 (differ all merged) ])
            finally
                outer.Dispose()

        let solved steps = ClosedForm.fitFrom initial o.Cca ofLift (JointMoments.mergeAll steps) |> Result.map fst

        stream.Steps
        |> List.map ofStep
        |> Check.all
        |> Result.bind (fun steps ->
            let each, own = List.unzip steps
            let each = each |> List.map (ClosedForm.weighted o.Weights)
            let sum = JointMoments.mergeAll each

            validated {
                let! heads = solved each
                and! reversed = solved (List.rev each)
                and! c = Cca.correlationsFrom initial o.Cca (int (Stream.joint stream)) sum
                return heads, reversed, c
            }
            |> Result.bind (fun (heads, reversed, c) ->
                let metric =
                    [ for KeyValue(m, v) in c.Directions ->
                          let s = sum.Second[m].Sum
                          let size = Tensors.toFloat (s.trace ()) / float s.shape[0]
                          v.t().mm(s).mm(v) .+ v.t().mm(v) * ((o.Cca.Ridge + o.Cca.Prior) * size).AsScalar() ]
                    |> List.reduce (.+)

                let withdrawn =
                    match List.truncate (each.Length - 1) each with
                    | [] -> Ok []
                    | rest ->
                        let left = JointMoments.subtract (List.last each) sum

                        validated {
                            let! without = solved rest
                            and! with' = solved [ left ]

                            return
                                [ Condition.zero
                                      "closed form: a step withdrawn was never seen"
                                      "all steps"
                                      1e-10
                                      (differ (JointMoments.mergeAll rest) left)
                                  Condition.zero "closed form: scores after it" "all steps" tolerance (apart without with')
                                  |> Condition.reported ]
                        }

                withdrawn
                |> Result.map (fun withdrawn ->
                    List.concat own
                    @ [ Condition.zero
                            "closed form: steps in any order, sums"
                            "all steps"
                            1e-12
                            (differ sum (JointMoments.mergeAll (List.rev each)))
                        // An eigenvalue next to the last one that is kept makes scores of rounding.
                        Condition.zero "closed form: steps in any order, scores" "all steps" tolerance (apart heads reversed)
                        |> Condition.reported
                        Condition.zero
                            "closed form: directions are orthonormal in D + γI"
                            "all steps"
                            tolerance
                            (Tensors.norm (metric - torch.eye (metric.shape[0], dtype = torch.float64, device = metric.device))) ]
                    @ withdrawn)))
