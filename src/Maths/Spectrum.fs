namespace Cmcl

open System
open System.Globalization
open TorchSharp

/// Where a spectrum is cut: how many leading eigenvectors count as old data's span. Whatever the rule, eigenvalues that
/// are zero to rounding (λ ≤ d ε λ_max) are never inside.
[<RequireQualifiedAccess; Struct>]
type Threshold =
    private
    | AbsoluteCut of absolute: float
    | RelativeCut of relative: float
    | TraceCut of share: float
    | EnergyCut of discarded: float
    | RankCut of rank: int

[<RequireQualifiedAccess>]
module Threshold =
    let private number (x: float) = x.ToString("R", CultureInfo.InvariantCulture).Replace('E', 'e')

    /// As options write it: `trace:0.003`. Example: `Threshold.parse "energy:0.01" |> Check.get |> Threshold.show`.
    let show (t: Threshold) : string =
        match t with
        | Threshold.AbsoluteCut x -> "absolute:" + number x
        | Threshold.RelativeCut x -> "relative:" + number x
        | Threshold.TraceCut x -> "trace:" + number x
        | Threshold.EnergyCut x -> "energy:" + number x
        | Threshold.RankCut k -> "rank:" + string k

    let private kinds = [ "absolute"; "relative"; "trace"; "energy"; "rank" ]

    let private expected = "KIND:VALUE with absolute:λ (λ ≥ 0), relative:r, trace:r or energy:r (0 ≤ r < 1), or rank:k (k ≥ 0)"

    /// λ_i > `value` (the paper's λ_min). Example: `Threshold.absolute 0.01`.
    let absolute (value: float) : Result<Threshold, Fault list> =
        if value >= 0.0 && Double.IsFinite value then
            Ok(Threshold.AbsoluteCut value)
        else
            Error [ Fault.BadValue("a threshold", expected, "absolute:" + number value) ]

    let private share name make (value: float) : Result<Threshold, Fault list> =
        if value >= 0.0 && value < 1.0 then
            Ok(make value)
        else
            Error [ Fault.BadValue("a threshold", expected, $"{name}:{number value}") ]

    /// λ_i > `value` · λ_1. Example: `Threshold.relative 1e-3`.
    let relative (value: float) = share "relative" Threshold.RelativeCut value
    /// λ_i > `value` · Σ λ. Example: `Threshold.trace 3e-3`.
    let trace (value: float) = share "trace" Threshold.TraceCut value
    /// The fewest i with Σ_{j>i} λ_j ≤ `value` · Σ λ. Example: `Threshold.energy 0.01`.
    let energy (value: float) = share "energy" Threshold.EnergyCut value

    /// The first k. Example: `Threshold.rank 4`.
    let rank (k: int) : Result<Threshold, Fault list> =
        if k >= 0 then
            Ok(Threshold.RankCut k)
        else
            Error [ Fault.BadValue("a threshold", expected, $"rank:{k}") ]

    /// From `KIND:VALUE`. Example: `Threshold.parse "trace:3e-3"`.
    let parse (text: string) : Result<Threshold, Fault list> =
        let bad = Error [ Fault.BadValue("a threshold", expected, text) ]

        let value (s: string) =
            match Double.TryParse(s, NumberStyles.Float, CultureInfo.InvariantCulture) with
            | true, x -> Some x
            | _ -> None

        match text.Split ':' with
        | [| "rank"; k |] ->
            match Int32.TryParse k with
            | true, k -> rank k
            | _ -> bad
        | [| kind; text |] ->
            match kind, value text with
            | "absolute", Some x -> absolute x
            | "relative", Some x -> relative x
            | "trace", Some x -> trace x
            | "energy", Some x -> energy x
            | kind, _ when not (List.contains kind kinds) -> Error [ Fault.NotOneOf("the kind of a threshold", kind, kinds) ]
            | _ -> bad
        | _ -> bad

/// Eigenvalues, largest first and none negative, with an orthonormal basis of the whole space in that order; float64.
type Spectrum =
    {
        Values: float[]
        /// d × d, a column per eigenvalue.
        Vectors: torch.Tensor
    }

    /// Σ λ, the trace.
    member s.Total = Array.sum s.Values

    /// How many eigenvalues are above zero to rounding: λ > d ε λ_max.
    member s.NumericalRank: int =
        let floor = float s.Values.Length * Tolerance.epsilon Dtype.Float64 * (if s.Values.Length = 0 then 0.0 else s.Values[0])

        s.Values |> Array.filter (fun v -> v > floor) |> Array.length

    /// Eigenvalues as shares of the trace; zeros where the trace is zero.
    member s.Shares: float[] =
        let total = s.Total
        if total > 0.0 then Array.map (fun v -> v / total) s.Values else Array.map (fun _ -> 0.0) s.Values

[<RequireQualifiedAccess>]
module Spectrum =
    /// The flat spectrum on the standard basis (each share 1/d): every direction counts, and none more than another.
    /// Example: `Spectrum.flat torch.CPU 8L`.
    let flat (device: torch.Device) (d: int64) : Spectrum =
        { Values = Array.create (int d) (1.0 / float d)
          Vectors = torch.eye (d, dtype = torch.float64, device = device) }

    /// No history: the standard basis with nothing in it. Example: `Spectrum.empty torch.CPU 8L`.
    let empty (device: torch.Device) (d: int64) : Spectrum = { flat device d with Values = Array.zeroCreate (int d) }

    /// The orthonormal columns U (d × k) and d − k more that complete them, from a Householder QR: inside an exact null
    /// space an eigensolver's basis is arbitrary, this one depends on U alone (theory.md, section 10).
    /// Example: `Spectrum.complete (Spectrum.leading 4 frameA.Inputs)`.
    let complete (u: torch.Tensor) : torch.Tensor =
        Tensors.scoped (fun () ->
            let d, k = u.shape[0], u.shape[1]

            if k = d then
                u.clone ()
            else
                let struct (q, _) = torch.linalg.qr (u, torch.linalg.QRMode.Complete)
                torch.cat ([| u; q.narrow (1L, k, d - k) |], 1L))

    /// C = U Λ Uᵀ of a symmetric positive semi-definite matrix: symmetrised, decomposed in float64, largest first, negative
    /// rounding set to 0, the numerically empty part of the basis completed by `complete`. Raises `Fault.NonFinite` for a
    /// matrix with a NaN or an infinity, whose eigenvalues would be any numbers. Example: `Spectrum.decompose ma.Matrix`.
    let decompose (matrix: torch.Tensor) : Spectrum =
        Tensors.requireMatrix "second moment" matrix.shape[0] matrix.shape[0] matrix
        Tensors.requireFinite "second moment" matrix

        Tensors.scopedWith (fun s -> [ s.Vectors ]) (fun () ->
            let c = matrix.``to`` torch.float64
            let struct (values, vectors) = torch.linalg.eigh ((c .+ c.t ()) * 0.5.AsScalar())
            let descending = vectors.flip 1L
            let values = values.flip(0L).clamp_min(0.0.AsScalar()).cpu().data<float>().ToArray()
            let spectrum = { Values = values; Vectors = descending }
            let rank = spectrum.NumericalRank

            { spectrum with
                Values = values |> Array.mapi (fun i v -> if i < rank then v else 0.0)
                Vectors = complete (descending.narrow (1L, 0L, int64 rank)) })

    /// How many leading directions the threshold takes in.
    /// Example: `Spectrum.rank (Threshold.energy 0.01 |> Check.get) frameA.Inputs`.
    let rank (threshold: Threshold) (s: Spectrum) : int =
        let above floor = s.Values |> Array.filter (fun v -> v > floor) |> Array.length

        let wanted =
            match threshold with
            | Threshold.AbsoluteCut floor -> above floor
            | Threshold.RelativeCut r -> above (r * (if s.Values.Length = 0 then 0.0 else s.Values[0]))
            | Threshold.TraceCut r -> above (r * s.Total)
            | Threshold.RankCut k -> k
            | Threshold.EnergyCut discarded ->
                let allowed = discarded * s.Total
                // From the small end, so that small eigenvalues are added before large ones.
                let tails = Array.scanBack (+) s.Values 0.0
                tails |> Array.findIndex (fun tail -> tail <= allowed)

        min wanted s.NumericalRank

    /// The first k basis vectors, d × k. Example: `Spectrum.leading 4 frameA.Inputs`.
    let leading (k: int) (s: Spectrum) : torch.Tensor = s.Vectors.narrow (1L, 0L, int64 k)

    /// P = U_k U_kᵀ (d × d), the projector onto the span of the first k. Example: `Spectrum.projector 4 frameA.Inputs`.
    let projector (k: int) (s: Spectrum) : torch.Tensor =
        Tensors.scoped (fun () ->
            let u = leading k s
            u.mm (u.t ()))

    /// √n Λ^½ Uᵀ (r × d, r the numerical rank): rows that have the second moment of the n rows behind the spectrum and so every
    /// Frobenius norm ‖X B‖ in common with them, and that are not samples (theory.md, section 8).
    /// Example: `Spectrum.rows ma.Count frameA.Inputs`.
    let rows (count: int64) (s: Spectrum) : torch.Tensor =
        Tensors.scoped (fun () ->
            let k = s.NumericalRank
            let lengths = s.Values |> Array.take k |> Array.map (fun v -> sqrt (float count * v))
            let column = torch.tensor(lengths, dtype = torch.float64).reshape(-1L, 1L).``to`` s.Vectors.device
            column * (leading k s).t())
