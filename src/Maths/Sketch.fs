namespace Cmcl

open TorchSharp

/// A few rows X̂ in the place of many, X, and no samples of them: X = Q X̂ + E where the columns of Q are orthonormal. So for any M all
/// sizes ‖X M‖ are known to ‖E‖ ‖M‖ (theory.md, section 8).
type Sketch =
    {
        /// X̂, r × d, float64.
        Rows: torch.Tensor
        /// An upper bound on ‖E‖_F: what lies beyond the precision with which the rows were taken in.
        Beyond: float
    }

[<RequireQualifiedAccess>]
module Sketch =
    let private epsilon = Tolerance.epsilon Dtype.Float64

    /// The rounding of a decomposition of d columns of this size: p(d) ε with LAPACK's usual p, and something for short ones.
    let private rounding (d: int64) (size: float) : float = float (d + 10L) * epsilon * size

    /// Rows for each column that are decomposed at once.
    [<Literal>]
    let private Tall = 8L

    let private upper (x: torch.Tensor) : torch.Tensor =
        let struct (_, r) = torch.linalg.qr (x.``to`` torch.float64, torch.linalg.QRMode.R)
        r

    /// R of X = QR, tall matrices block by block, and how many rounds of blocks that took.
    let rec private triangle (rounds: int) (x: torch.Tensor) : struct (torch.Tensor * int) =
        let n, block = x.shape[0], Tall * max 1L x.shape[1]

        if n <= block then
            struct (upper x, rounds)
        else
            let parts =
                [| for first in 0L .. block .. n - 1L ->
                       Tensors.scoped (fun () -> upper (x.narrow (0L, first, min block (n - first)))) |]

            triangle (rounds + 1) (torch.cat (parts, 0L))

    /// Uᵀ R of R = U Σ Vᵀ without singular values up to a limit, and the size of what that leaves of R: R − U Uᵀ R as it is, so that it holds what
    /// the decomposition is off by, too. A column of zeros stays one.
    let private ranked (limit: float) (r: torch.Tensor) : struct (torch.Tensor * float) =
        let struct (u, s, _) = torch.linalg.svd (r, false)
        let k = s.cpu().data<float>().ToArray() |> Array.filter (fun v -> v > limit) |> Array.length
        let kept = u.narrow (1L, 0L, int64 k)
        let rows = kept.t().mm r
        struct (rows, Tensors.norm (r - kept.mm rows))

    /// Rows in the place of a head's inputs X (n × d_m, a column of ones among them for a bias), at most min(n, d_m): R of X = QR, or as
    /// many rows as the rank of R where that is less. Nothing is squared, so ‖E‖ is about (d_m + 10) ε ‖X‖.
    /// Example: `(Sketch.ofRows xa).Rows.shape[0] = 4L`.
    let ofRows (x: torch.Tensor) : Sketch =
        Tensors.requireMatrix "rows of a sketch" -1L -1L x

        Tensors.scopedWith (fun s -> [ s.Rows ]) (fun () ->
            let struct (r, rounds) = triangle 1 x
            let size = Tensors.norm r
            // Each round's QR, and a singular value decomposition after them.
            let rounding = rounding r.shape[1] size
            let least = if r.shape[0] = 0L then 0.0 else Tensors.toFloat (r.diagonal().abs().min())

            if least > sqrt epsilon * size then
                // It comes by columns, and products with it would take half as long again.
                { Rows = r.contiguous (); Beyond = float rounds * rounding }
            else
                let struct (rows, left) = ranked rounding r

                { Rows = rows.contiguous ()
                  Beyond = float (rounds + 1) * rounding + left })

    /// Rows that have a given second moment C of n rows, as many as its rank. Where C squares sizes, rounding hides whatever is smaller
    /// than about the root of it: ‖E‖² ≤ ‖XᵀX − X̂ᵀX̂‖_* (Powers and Størmer 1970) ≤ n (√d (d + √n) ε tr C + (d − r) d ε λ₁), of which
    /// the first is the rounding of sum and eigensolver and the second what counts as zero. Example: `Sketch.ofMoment ma`.
    let ofMoment (m: Moment) : Sketch =
        Tensors.scopedWith (fun s -> [ s.Rows ]) (fun () ->
            let spectrum = Spectrum.decompose m.Matrix
            let n, d = float m.Count, float spectrum.Values.Length
            let largest = if spectrum.Values.Length = 0 then 0.0 else spectrum.Values[0]
            let rounding = sqrt d * (d + sqrt n) * spectrum.Total
            let zeros = (d - float spectrum.NumericalRank) * d * largest

            { Rows = Spectrum.rows m.Count spectrum
              Beyond = sqrt (n * epsilon * (rounding + zeros)) })

    /// The same rows through a weight W (d × d_m): X̂ Wᵀ in the place of X Wᵀ. Example: `Sketch.through heads[pair.A] old.A`.
    let through (w: torch.Tensor) (s: Sketch) : Sketch =
        let w = w.``to`` torch.float64

        { Rows = Tensors.product s.Rows (w.t ())
          Beyond = s.Beyond * Tensors.norm w }

    /// Two of the same Q, added. Example: `Sketch.add old.A old.A`.
    let add (a: Sketch) (b: Sketch) : Sketch = { Rows = a.Rows .+ b.Rows; Beyond = a.Beyond + b.Beyond }

    /// How far the size of a product of all rows, ‖A Bᵀ‖, may be from that of the few, ‖Â B̂ᵀ‖: ‖E_a‖ (‖B̂‖ + ‖E_b‖) + ‖Â‖ ‖E_b‖, given
    /// the sizes of Â and of B̂. Example: `Sketch.beyond (old.A, Tensors.norm old.A.Rows) (old.B, Tensors.norm old.B.Rows)`.
    let beyond (a: Sketch, sizeA: float) (b: Sketch, sizeB: float) : float = a.Beyond * (sizeB + b.Beyond) + sizeA * b.Beyond
