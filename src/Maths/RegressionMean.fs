namespace Cmcl

open TorchSharp

/// What a change of a head away from W_t counts at one step: tr (W − W_t) C (W − W_t)ᵀ H, the mean square by which scores of all
/// combinations of the step's inputs and partner outputs move. Both are symmetric and positive semidefinite, float64.
type RegressionTerm =
    {
        /// C_t, the second moment of the head's inputs, d_m × d_m.
        Inputs: torch.Tensor
        /// H_t, the second moment of the partner's outputs, d × d.
        Partners: torch.Tensor
    }

/// One head for the heads of several steps, by what they do to scores: Σ_t H_t (W − W_t) C_t = 0 (theory.md, section 11). With H_t = I this
/// is RegMean (Jin et al. 2023).
[<RequireQualifiedAccess>]
module RegressionMean =
    /// ‖Σ_t H_t (W − W_t) C_t‖ / ‖Σ_t H_t W_t C_t‖ at which it counts as solved.
    let tolerance: float = 1e-10

    /// Rounds of conjugate gradients before it is given up.
    let rounds: int = 2000

    /// Σ_t H_t W C_t (d × d_m): what is kept of heads W_t, term by term, and what W has to meet. Example:
    /// `RegressionMean.apply [ { Inputs = ma.Matrix; Partners = (Moment.ofRows yb).Matrix } ] heads[pair.A]`.
    let apply (terms: RegressionTerm list) (w: torch.Tensor) : torch.Tensor =
        Tensors.scoped (fun () -> terms |> List.map (fun t -> t.Partners.mm(w).mm t.Inputs) |> List.reduce (.+))

    /// W of W Σ C_t = Σ W_t C_t, from both sums (d_m × d_m of full rank, and d × d_m). Example:
    /// `RegressionMean.oneSided joint.Second[pair.A].Sum (heads[pair.A].mm joint.Second[pair.A].Sum)`.
    let oneSided (inputs: torch.Tensor) (right: torch.Tensor) : torch.Tensor =
        Tensors.scoped (fun () -> torch.linalg.solve(inputs, right.t ()).t().contiguous())

    /// The inverse of the mean of some matrices, made definite where it is not.
    let private inverse (all: torch.Tensor list) : torch.Tensor =
        let sum = List.reduce (.+) all
        let size = Tensors.toFloat (sum.trace ()) / float sum.shape[0]
        let floor = torch.eye (sum.shape[0], dtype = sum.dtype, device = sum.device) * (1e-9 * size).AsScalar()
        torch.linalg.inv ((sum .+ floor) * (1.0 / float all.Length).AsScalar())

    /// W of Σ_t H_t W C_t = `right`, by conjugate gradients from `start` (d × d_m, float64), preconditioned by the mean H and the mean C: the
    /// operator is symmetric and positive semidefinite, a sum of such. A start that meets it already is the answer. Fault: `Contradiction`
    /// where `rounds` do not reach the `tolerance`.
    /// Example: `RegressionMean.solve [ { Inputs = joint.Second[pair.A].Sum; Partners = torch.eye (8L, dtype = torch.float64) } ] (heads[pair.A].mm joint.Second[pair.A].Sum) heads[pair.A] |> Check.getAll`.
    let solve (terms: RegressionTerm list) (right: torch.Tensor) (start: torch.Tensor) : Result<torch.Tensor, Fault list> =
        use scope = torch.NewDisposeScope()
        let left, beside = inverse (terms |> List.map _.Partners), inverse (terms |> List.map _.Inputs)
        let precondition (r: torch.Tensor) = left.mm(r).mm beside
        let inner (a: torch.Tensor) (b: torch.Tensor) = Tensors.toFloat ((a * b).sum())
        let size = Tensors.norm right

        let next (w: torch.Tensor) (r: torch.Tensor) (p: torch.Tensor) (product: float) =
            use inside = torch.NewDisposeScope()
            let q = apply terms p
            let step = (product / inner p q).AsScalar()
            let w, r = w .+ p * step, r - q * step
            let z = precondition r
            let after = inner r z
            let p = z .+ p * (after / product).AsScalar()
            struct (inside.MoveToOuter w, inside.MoveToOuter r, inside.MoveToOuter p, after)

        let rec go (round: int) struct (w: torch.Tensor, r: torch.Tensor, p: torch.Tensor, product: float) =
            let off = Tensors.norm r

            if off <= tolerance * size then
                Ok(scope.MoveToOuter w)
            elif round = rounds then
                Error
                    [ Fault.Contradiction(
                          $"a regression mean of {terms.Length} steps is off by {off / size:E1} after {rounds} rounds, and {tolerance:E0} was to be reached",
                          "give a larger ridge (1e-2 is a usual one)"
                      ) ]
            else
                let after = next w r p product

                for t in [ w; r; p ] do
                    t.Dispose()

                go (round + 1) after

        let r = right - apply terms start
        let z = precondition r
        go 0 (struct (start.clone (), r, z, inner r z))
