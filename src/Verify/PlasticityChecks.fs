namespace Cmcl

/// Theorem 6 and the Definition of plasticity.
[<RequireQualifiedAccess>]
module PlasticityChecks =
    /// o(η) of steps −ηΔ from a step's start: small ones, of which the order is taken, and large ones, where descending ends.
    type Descents = { Small: Descent list; Large: Descent list }

    /// Nothing is left of the gradient: a head that has no free direction does not learn, and o(η) is all rounding.
    let private still (s: Stage) = Plasticity.squared s.Deltas <= 1e-20 * Plasticity.squared s.Gradients

    /// For a plan that protects a block; none where the gradient has no free part.
    let descents (s: Stage) : Descents option =
        if still s then
            None
        else
            // Where the softmax is steep, less of a change is small.
            let small = Plasticity.rates s.Traced.Before s.Deltas |> List.map (fun eta -> eta / max 1.0 s.Steepness)
            let along rates = Plasticity.overRates s.Loss s.Gradients s.Deltas rates s.Traced.Before

            Some
                { Small = along small
                  Large = along [ for i in 1..8 -> List.last small * 10.0 ** (0.5 * float i) ] }

    /// Theorem 6 at a step's start.
    let conditions (s: Stage) (descents: Descents option) : Condition list =
        let speed = Plasticity.squared s.Deltas
        let relative x = if speed = 0.0 then x else x / speed

        [ Condition.equal
              "Theorem 6: ⟨G, Δ⟩ = ‖Δ‖²"
              s.Where
              Slack.Algebra
              (relative speed)
              (relative (Plasticity.inner s.Gradients s.Deltas))

          match descents with
          | None -> ()
          | Some d ->
              // What is not far above the rounding of the loss says nothing of an order.
              let resolved = 100.0 * Tolerance.epsilon Dtype.Float64 * abs (s.Loss s.Traced.Before)
              let clear = d.Small |> List.filter (fun x -> abs x.Remainder > resolved)

              if clear.Length >= 3 then
                  let slope = Plasticity.slope [ for x in clear -> x.Rate, x.Remainder ]
                  Condition.between "Theorem 6: o(η) is of order 2" s.Where 1.9 2.1 slope

              let smallest = d.Small |> List.minBy _.Rate
              let per, speed = Plasticity.criterion s.Deltas smallest
              Condition.atMost "Theorem 6: o(η)/η < ‖Δ‖² for small η" s.Where 0.0 speed per
              let wrong = d.Small @ d.Large |> List.filter (fun x -> Plasticity.descends s.Deltas x <> (x.Change < 0.0))
              Condition.zero "Theorem 6: descends iff o(η)/η < ‖Δ‖²" s.Where 0.0 (float wrong.Length) ]

    /// The Definition of plasticity: L_t(W_t)/L_t(W_{t−1}), below 1 where the step learned. Hoped for, not promised.
    let learned (s: Stage) : Condition =
        Condition.atMost "plasticity: the step's loss falls" s.Where 0.0 1.0 (s.Traced.LossAfter / s.Traced.LossBefore)
        |> Condition.reported
