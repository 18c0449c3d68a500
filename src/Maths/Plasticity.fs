namespace Cmcl

open TorchSharp

/// A step from W to W − ηΔ, or to W + D by any optimizer, and what it made of the loss L.
type Descent =
    {
        /// η.
        Rate: float
        /// L after the step − L before it.
        Change: float
        /// What the gradient G promises of it: −η⟨G, Δ⟩, or ⟨G, D⟩.
        FirstOrder: float
        /// o(η) = Change − FirstOrder.
        Remainder: float
        /// o(η)/η, as the paper plots it.
        RemainderPerRate: float
    }

/// Whether a projected step still learns: Theorem 6. Everything is computed in float64, whatever comes in; a modality that one of
/// two maps lacks counts as zero there.
[<RequireQualifiedAccess>]
module Plasticity =
    let private wide = Conditions.wide

    /// Theorem 6: Σ_m ⟨G_m, Δ_m⟩ of gradients G and projected gradients Δ (d × d_m each). It equals `squared` of Δ.
    /// Example: `Plasticity.inner gradients deltas`.
    let inner (g: Heads) (delta: Heads) : float =
        use scope = torch.NewDisposeScope()

        [ for KeyValue(m, d) in delta do
              match Map.tryFind m g with
              | Some g -> Tensors.toFloat ((wide g * wide d).sum())
              | None -> () ]
        |> List.sum

    /// Theorem 6: Σ_m ‖Δ_m‖² (d × d_m each), the speed at which a projected step descends.
    /// Example: `Plasticity.squared deltas`.
    let squared (delta: Heads) : float = inner delta delta

    let private descentOf (rate: float) (change: float) (firstOrder: float) : Descent =
        let remainder = change - firstOrder

        { Rate = rate
          Change = change
          FirstOrder = firstOrder
          Remainder = remainder
          RemainderPerRate = remainder / rate }

    /// W − ηΔ, new tensors for what moves.
    let private stepped (deltas: Heads) (eta: float) (heads: Heads) : Heads =
        Heads.replace (deltas |> Map.map (fun m d -> Heads.weight m heads - d * eta.AsScalar())) heads

    /// `descent` over several rates: with o(η) of second order, `slope` of (Rate, Remainder) is 2 (Theorem 6).
    /// Example: `Plasticity.overRates loss gradients deltas (Plasticity.rates heads deltas) heads`.
    let overRates (loss: Heads -> float) (gradients: Heads) (deltas: Heads) (rates: float list) (heads: Heads) : Descent list =
        use scope = torch.NewDisposeScope()
        let heads, deltas = Heads.map wide heads, Heads.map wide deltas
        let before, slope = loss heads, inner gradients deltas

        [ for eta in rates do
              use scope = torch.NewDisposeScope()
              descentOf eta (loss (stepped deltas eta heads) - before) (-eta * slope) ]

    /// Theorem 6: L(W − ηΔ) − L(W) = −η⟨G, Δ⟩ + o(η) for a loss of float64 heads W, its gradients G there and a direction Δ
    /// (d × d_m each).
    /// Example: `Plasticity.descent loss gradients deltas 1e-3 heads`.
    let descent (loss: Heads -> float) (gradients: Heads) (deltas: Heads) (eta: float) (heads: Heads) : Descent =
        overRates loss gradients deltas [ eta ] heads |> List.exactlyOne

    /// The order of o(η) (Theorem 6; this project's way to measure it): the least-squares slope of log|o(η)| against log η from
    /// (η, o(η)); points that have no finite logarithm are left out, NaN for fewer than two rates.
    /// Example: `Plasticity.slope [ 1e-4, 2e-8; 1e-3, 2e-6; 1e-2, 2e-4 ]`.
    let slope (remainders: (float * float) list) : float =
        let points =
            [ for eta, remainder in remainders do
                  let x, y = log eta, log (abs remainder)

                  if System.Double.IsFinite x && System.Double.IsFinite y then
                      x, y ]

        if points.Length < 2 then
            nan
        else
            let mean f = List.averageBy f points
            let x, y = mean fst, mean snd
            mean (fun (a, b) -> (a - x) * (b - y)) / mean (fun (a, _) -> (a - x) ** 2.0)

    /// Rates at which float64 resolves o(η) and its second order leads (this project's, for Theorem 6): nine that move the
    /// weights by 1e-5 to 1e-3 of their size, η = r ‖W‖/‖Δ‖ over the modalities of Δ; η = r where either is 0.
    /// Example: `Plasticity.rates heads deltas`.
    let rates (heads: Heads) (deltas: Heads) : float list =
        let ratio = sqrt (squared (Map.map (fun m _ -> Heads.weight m heads) deltas) / squared deltas)
        let unit = if ratio > 0.0 && System.Double.IsFinite ratio then ratio else 1.0
        [ for i in 0..8 -> unit * 10.0 ** (-5.0 + 0.25 * float i) ]

    /// Theorem 6 of an update that was made, by any optimizer: o = L_t − L_{t−1} − ⟨G, D⟩ for the whole changes D = W_t − W_{t−1}
    /// and the gradients G at W_{t−1} (d × d_m each), and o/η. For D = −ηΔ it is the paper's plotted (L_t − L_{t−1} + η⟨G, Δ⟩)/η.
    /// Example: `Plasticity.observed 0.1 (loss heads) (loss after) gradients (Map [ pair.A, da; pair.B, db ])`.
    let observed (rate: float) (lossBefore: float) (lossAfter: float) (gradients: Heads) (changes: Heads) : Descent =
        descentOf rate (lossAfter - lossBefore) (inner gradients changes)

    /// The two sides of Theorem 6's criterion for a projected gradient Δ: o(η)/η, and Σ_m ‖Δ_m‖² that it has to stay below.
    /// Example: `Plasticity.criterion deltas (Plasticity.descent loss gradients deltas 1e-3 heads)`.
    let criterion (deltas: Heads) (descent: Descent) : float * float = descent.RemainderPerRate, squared deltas

    /// Theorem 6 (and the Definition of plasticity): a step along a projected gradient Δ descends exactly when
    /// o(η)/η < Σ_m ‖Δ_m‖².
    /// Example: `Plasticity.descends deltas (Plasticity.descent loss gradients deltas 1e-3 heads)`.
    let descends (deltas: Heads) (descent: Descent) : bool = criterion deltas descent ||> (<)
