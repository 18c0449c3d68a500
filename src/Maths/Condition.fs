namespace Cmcl

/// A statement of the theory, checked at one place: a number, and the bound that the theory gives it.
type Condition =
    {
        /// What is stated: "Theorem 4", "stability".
        Name: string
        /// Where it was checked: a step, a pair, a modality.
        Where: string
        Value: float
        Bound: float
        /// What rounding may add to the bound.
        Tolerance: float
        /// True for what a theorem promises; false for what is only hoped for or reported.
        Must: bool
    }

    /// Value ≤ Bound + Tolerance. A NaN never holds.
    member c.Holds: bool = c.Value <= c.Bound + c.Tolerance

[<RequireQualifiedAccess>]
module Condition =
    /// `value` ≤ `bound` to rounding (this project's, theory.md section 4: a bound is never below the truth).
    /// Example: `Condition.atMost "Theorem 5" "a–b" 0.0 (Bounds.wholeStep xa da db xb) (Tensors.norm (Bounds.secondOrder xa da db xb))`.
    let atMost (name: string) (where: string) (tolerance: float) (bound: float) (value: float) : Condition =
        { Name = name
          Where = where
          Value = value
          Bound = bound
          Tolerance = tolerance
          Must = true }

    /// |`value`| = 0 to rounding (this project's, theory.md section 4: a residual).
    /// Example: `Condition.zero "Theorem 4" "vision" 1e-10 (Conditions.localResidual pyb pa ga xa yb)`.
    let zero (name: string) (where: string) (tolerance: float) (value: float) : Condition =
        atMost name where tolerance 0.0 (abs value)

    /// `value` = `expected` to rounding: their distance against 0 (this project's, theory.md section 4).
    /// Example: `Condition.equal "⟨G, Δ⟩ = ‖Δ‖²" "step 2" 1e-10 (Plasticity.squared deltas) (Plasticity.inner gradients deltas)`.
    let equal (name: string) (where: string) (tolerance: float) (expected: float) (value: float) : Condition =
        zero name where tolerance (value - expected)

    /// `low` ≤ `value` ≤ `high`: the distance from the middle against half the width, no tolerance (this project's).
    /// Example: `Condition.between "slope of o(η)" "step 2" 1.9 2.1 2.0`.
    let between (name: string) (where: string) (low: float) (high: float) (value: float) : Condition =
        atMost name where 0.0 ((high - low) / 2.0) (abs (value - (low + high) / 2.0))

    /// The same as something hoped for, not promised (this project's).
    /// Example: `Condition.zero "stability" "step 1" 1e-10 0.2 |> Condition.reported`.
    let reported (condition: Condition) : Condition = { condition with Must = false }

    /// Those that must hold and do not (this project's).
    /// Example: `Condition.broken [ Condition.zero "P = Pᵀ" "a" 1e-12 (Conditions.asymmetry pa) ]`.
    let broken (conditions: Condition list) : Condition list = conditions |> List.filter (fun c -> c.Must && not c.Holds)
