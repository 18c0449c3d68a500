namespace Cmcl

/// Theorem 6 and the Definition of plasticity.
[<RequireQualifiedAccess>]
module PlasticityChecks =
    /// o(η) of steps −ηΔ from a step's start: small ones, of which the order is taken, and large ones, where descending ends.
    type Descents = { Small: Descent list; Large: Descent list }

    /// Nothing is left of the gradient but what rounding hides: a head that has no free direction does not learn, and o(η) is all rounding.
    let private still (s: Stage) = Plasticity.squared s.Deltas <= 1e-10 * Plasticity.squared s.Gradients

    /// What is not far above the rounding of the loss says nothing of an order.
    let private resolved (s: Stage) = 100.0 * Tolerance.epsilon Dtype.Float64 * abs (s.Loss s.Traced.Before)

    /// The slope of log|o(η)| at the three smallest rates that are resolved; none where there are fewer, or where o(η) changes its sign less
    /// than a decade above them, which bends the curve.
    let private order (resolved: float) (d: Descents) : float option =
        let all = d.Small @ d.Large |> List.sortBy _.Rate
        let clear = all |> List.filter (fun x -> abs x.Remainder > resolved)

        match clear with
        | a :: b :: c :: rest when rest |> List.forall (fun x -> x.Rate > 10.0 * c.Rate || sign x.Remainder = sign a.Remainder) ->
            if sign b.Remainder = sign a.Remainder && sign c.Remainder = sign a.Remainder then
                Some(Plasticity.slope [ for x in [ a; b; c ] -> x.Rate, x.Remainder ])
            else
                None
        | _ -> None

    /// For a plan that protects a block; none where the gradient has no free part.
    let descents (s: Stage) : Descents option =
        if still s then
            None
        else
            // Where the softmax is steep, less of a change is small.
            let small = Plasticity.rates s.Traced.Before s.Deltas |> List.map (fun eta -> eta / max 1.0 s.Steepness)
            let along rates = Plasticity.overRates s.Loss s.Gradients s.Deltas rates s.Traced.Before
            let resolved = resolved s

            /// A decade more of smaller rates for as long as the order does not show and rounding leaves room.
            let rec lower (d: Descents) =
                let smallest = d.Small |> List.minBy _.Rate

                match order resolved d with
                | Some slope when slope < 1.95 && abs smallest.Remainder > 1e3 * resolved ->
                    lower
                        { d with
                            Small = along [ for i in -4 .. -1 -> smallest.Rate * 10.0 ** (0.25 * float i) ] @ d.Small }
                | _ -> d

            lower
                { Small = along small
                  Large = along [ for i in 1..8 -> List.last small * 10.0 ** (0.5 * float i) ] }
            |> Some

    /// Theorem 6 at a step's start.
    let conditions (s: Stage) (descents: Descents option) : Condition list =
        let speed, along = Plasticity.squared s.Deltas, Plasticity.inner s.Gradients s.Deltas
        let relative x = if speed = 0.0 then x else x / speed
        // Δ is what is left of G after a subtraction, whose rounding is G's.
        let rounding = Tolerance.epsilon Dtype.Float64 * float s.Dimension * Plasticity.squared s.Gradients

        [ Condition.equal "Theorem 6: ⟨G, Δ⟩ = ‖Δ‖²" s.Where (Slack.Algebra + relative rounding) (relative speed) (relative along)

          match descents with
          | None -> ()
          | Some d ->
              match order (resolved s) d with
              | Some slope -> Condition.atMost "Theorem 6: o(η) is of order 2" s.Where 0.0 0.1 (max 0.0 (2.0 - slope))
              | None -> ()

              let smallest = d.Small |> List.minBy _.Rate
              let per, speed = Plasticity.criterion s.Deltas smallest
              Condition.atMost "Theorem 6: o(η)/η < ‖Δ‖² for small η" s.Where 0.0 speed per

              let wrong =
                  d.Small @ d.Large
                  |> List.filter (fun x ->
                      abs x.Change > x.Rate * abs (along - speed) && Plasticity.descends s.Deltas x <> (x.Change < 0.0))

              Condition.zero "Theorem 6: descends iff o(η)/η < ‖Δ‖²" s.Where 0.0 (float wrong.Length) ]

    /// The Definition of plasticity: L_t(W_t)/L_t(W_{t−1}), below 1 where the step learned. Hoped for, not promised.
    let learned (s: Stage) : Condition =
        Condition.atMost "plasticity: the step's loss falls" s.Where 0.0 1.0 (s.Traced.LossAfter / s.Traced.LossBefore)
        |> Condition.reported
