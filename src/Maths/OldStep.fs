namespace Cmcl

open TorchSharp

/// How far all scores of an old step have moved, known without its rows.
[<Struct>]
type Drift =
    {
        /// ‖A_now − A_then‖_F over all n × n scores.
        Frobenius: float
        /// Root mean square of A_now − A_then.
        Rms: float
        /// ‖A_now − A_then‖_F / ‖A_then‖_F.
        Relative: float
    }

/// What is kept of a step when its data are gone (theory.md, section 8): for each side rows that have the second moment of the
/// step's own and are no samples, and their scores at its end. Everything a Frobenius norm says of all n × n scores follows.
type OldStep =
    {
        /// 1 for the first step.
        Index: int
        Pair: Pair
        /// n, the matched rows there were.
        Count: int64
        /// r_a × columns of W_a and r_b × columns of W_b, float64; a bias column is among them.
        A: torch.Tensor
        B: torch.Tensor
        /// r_a × r_b: the scores of those rows at the step's end.
        Scores: torch.Tensor
        /// ‖A_then‖_F over all n × n scores.
        Size: float
    }

/// Where an old step's scores stand under the heads of some time. All of it follows from the old step and those heads; who holds
/// it has the next reading for the price of what moved since.
type Standing =
    {
        Old: OldStep
        /// The outputs of the kept rows, r_a × d and r_b × d, float64.
        A: torch.Tensor
        B: torch.Tensor
        /// r_a × r_b: what the scores of those rows have changed by since the step's end.
        Moved: torch.Tensor
        Drift: Drift
    }

/// An upper bound on how far one step of training moved an old step's scores, from what is kept of it: ‖A_after − A_before‖_F is at
/// most the sum of its parts (Theorem 5 with what truncation lets through; theory.md, section 8).
[<Struct>]
type Certificate =
    {
        /// ‖X_a D_aᵀ Y_bᵀ‖_F: the first order of a's change, zero for an exact null space.
        FirstA: float
        /// ‖Y_a D_b X_bᵀ‖_F, that of b's.
        FirstB: float
        /// ‖X_a D_aᵀ D_b X_bᵀ‖_F: the second order, only where both heads moved.
        Second: float
    }

    member c.First: float = c.FirstA + c.FirstB
    member c.Bound: float = c.First + c.Second

/// Stability known without the old data.
[<RequireQualifiedAccess>]
module OldStep =
    let private outputs (m: Modality) (heads: Heads) (rows: torch.Tensor) =
        Tensors.product rows ((Heads.weight m heads).``to``(torch.float64).t())

    let private scores (ya: torch.Tensor) (yb: torch.Tensor) = Tensors.product ya (yb.t ())

    /// Whether no singular value of a triangle R is zero to rounding, σ > √(d ε) ‖R‖ (the sense of `Spectrum.NumericalRank`), by two
    /// steps of inverse iteration on its leading square. An estimate: where it misses, more rows are kept than the rank, and all holds.
    let private fullRank (r: torch.Tensor) : bool =
        use scope = torch.NewDisposeScope()
        let square = r.narrow (1L, 0L, r.shape[0])

        let step (x: torch.Tensor) =
            torch.linalg.solve_triangular (square, torch.linalg.solve_triangular (square.t (), x, false), true)

        let once = step (torch.ones (r.shape[0], 1L, dtype = torch.float64, device = r.device))
        let twice = step (once / once.norm ())

        let inverse = Tensors.toFloat (twice.norm () * r.norm().squared())
        inverse * float r.shape[1] * Tolerance.epsilon Dtype.Float64 < 1.0

    /// Rows for each column from which on a moment, in bounded memory, is cheaper than a QR.
    let private longest = 8L

    /// Rows that have a given second moment, as many as its rank, and are no samples; float64. Example: `OldStep.ofMoment ma`.
    let ofMoment (m: Moment) : torch.Tensor = Tensors.scoped (fun () -> Spectrum.rows m.Count (Spectrum.decompose m.Matrix))

    /// Rows that have the second moment of a head's inputs X (n × d_m, a column of ones with them for a bias) and are no samples: R of
    /// X = QR (min(n, d_m) × d_m), or, where X may lack rank or is long, as many rows as its rank by `Spectrum.rows`; float64.
    /// Example: `OldStep.rows heads[pair.A] xa`.
    let rows (w: torch.Tensor) (x: torch.Tensor) : torch.Tensor =
        Tensors.scoped (fun () ->
            let x = Heads.inputs w x

            let bySpectrum () = ofMoment (Moment.ofRows x)

            if x.shape[0] > longest * x.shape[1] then
                bySpectrum ()
            else
                let struct (_, r) = torch.linalg.qr (x.``to`` torch.float64, torch.linalg.QRMode.R)
                // It comes by columns, and products with it would take half as long again.
                if fullRank r then r.contiguous () else bySpectrum ())

    /// The tensors of what is kept, for scopes and byte counts. Example: `OldStep.tensors old |> List.sumBy Tensors.bytes`.
    let tensors (s: OldStep) : torch.Tensor list = [ s.A; s.B; s.Scores ]

    /// Those of a standing, the old step's not among them. Example: `OldStep.held (OldStep.under heads old)`.
    let held (s: Standing) : torch.Tensor list = [ s.A; s.B; s.Moved ]

    /// An old step of n matched rows at its end, from what `rows` made of them (theory.md, section 8).
    /// Example: `OldStep.atEnd 1 pair ma.Count heads (OldStep.rows heads[pair.A] xa) (OldStep.rows heads[pair.B] xb)`.
    let atEnd (index: int) (pair: Pair) (n: int64) (heads: Heads) (a: torch.Tensor) (b: torch.Tensor) : Standing =
        Tensors.scopedWith (fun s -> tensors s.Old @ held s) (fun () ->
            let ya, yb = outputs pair.A heads a, outputs pair.B heads b
            let then' = scores ya yb

            { Old =
                { Index = index
                  Pair = pair
                  Count = n
                  A = a
                  B = b
                  Scores = then'
                  Size = Tensors.norm then' }
              A = ya
              B = yb
              Moved = torch.zeros_like then'
              Drift = { Frobenius = 0.0; Rms = 0.0; Relative = 0.0 } })

    /// What to keep of a step of matched rows X_a (n × d_a), X_b (n × d_b), with the heads at its end (theory.md, section 8).
    /// Example: `OldStep.ofRows 1 pair heads xa xb`.
    let ofRows (index: int) (pair: Pair) (heads: Heads) (xa: torch.Tensor) (xb: torch.Tensor) : OldStep =
        Tensors.scopedWith (fun s -> tensors s) (fun () ->
            let rows m x = rows (Heads.weight m heads) x
            (atEnd index pair xa.shape[0] heads (rows pair.A xa) (rows pair.B xb)).Old)

    /// A Frobenius size relative to ‖A_then‖, where the step had scores at all.
    /// Example: `OldStep.relative old (OldStep.certificate heads after old).Bound`.
    let relative (s: OldStep) (size: float) : float = if s.Size = 0.0 then size else size / s.Size

    let private driftOf (s: OldStep) (moved: float) : Drift =
        { Frobenius = moved
          Rms = moved / float (max 1L s.Count)
          Relative = relative s moved }

    /// Where the scores of an old step stand under the given heads. Example: `(OldStep.under after old).Drift.Relative`.
    let under (heads: Heads) (s: OldStep) : Standing =
        Tensors.scopedWith (fun s -> held s) (fun () ->
            let ya, yb = outputs s.Pair.A heads s.A, outputs s.Pair.B heads s.B
            let moved = (scores ya yb).sub_ s.Scores

            { Old = s
              A = ya
              B = yb
              Moved = moved
              Drift = driftOf s (Tensors.norm moved) })

    /// ‖A_now − A_then‖ over all scores of the step under the given heads, exactly: n² tr(C_a M C_b Mᵀ) with
    /// M = W_aᵀ W_b now − then, without one of its rows (this project's, theory.md, section 8).
    /// Example: `(OldStep.drift after old).Relative`.
    let drift (heads: Heads) (s: OldStep) : Drift =
        use scope = torch.NewDisposeScope()
        (under heads s).Drift

    /// D = after − before (float64) of the heads that moved, for `follow`. Example: `OldStep.changes heads after`.
    let changes (before: Heads) (after: Heads) : Heads =
        Tensors.scopedWith _.Values (fun () ->
            let wide m heads = (Heads.weight m heads).``to`` torch.float64
            Map [ for m in Heads.moved before after -> m, wide m after - wide m before ])

    /// X Dᵀ of kept rows, where their head moved. Example: `OldStep.shift (OldStep.changes heads after) pair.A old.A`.
    let shift (changes: Heads) (m: Modality) (rows: torch.Tensor) : torch.Tensor option =
        Map.tryFind m changes |> Option.map (fun d -> Tensors.scoped (fun () -> Tensors.product rows (d.t ())))

    /// The terms of a change of scores in the certificate's order, none where a head did not move; the outputs before it are asked for
    /// only where they are needed.
    let private terms (ya: unit -> torch.Tensor) (yb: unit -> torch.Tensor) (da: torch.Tensor option) (db: torch.Tensor option) =
        [ da |> Option.map (fun da -> scores da (yb ()))
          db |> Option.map (fun db -> scores (ya ()) db)
          Option.map2 scores da db ]

    let private sizes (s: OldStep) (matrices: torch.Tensor option list) : float list =
        use scope = torch.NewDisposeScope()
        let none = torch.zeros ([||], dtype = torch.float64, device = s.Scores.device)
        Tensors.toFloats [ for t in matrices -> t |> Option.map _.norm() |> Option.defaultValue none ]

    let private certificateOf (sizes: float list) : Certificate = { FirstA = sizes[0]; FirstB = sizes[1]; Second = sizes[2] }

    let private plus (sum: torch.Tensor) (term: torch.Tensor option) : torch.Tensor =
        match term with
        | Some t -> sum .+ t
        | None -> sum

    /// The standing after a change of the heads, given by what it shifts the outputs of the kept rows by, and its certificate:
    /// A_after − A_before = X_a D_aᵀ Y_bᵀ + Y_a D_b X_bᵀ + X_a D_aᵀ D_b X_bᵀ with the changes D and the outputs Y before it.
    /// Example: `let struct (now, certificate) = OldStep.follow None None (OldStep.under heads old) in certificate.Bound = 0.0`.
    let follow (da: torch.Tensor option) (db: torch.Tensor option) (before: Standing) : struct (Standing * Certificate) =
        if da.IsNone && db.IsNone then
            struct (before, certificateOf [ 0.0; 0.0; 0.0 ])
        else
            Tensors.scopedWith (fun struct (now, _) -> held now) (fun () ->
                let terms = terms (fun () -> before.A) (fun () -> before.B) da db
                let moved = List.fold plus before.Moved terms
                let found = sizes before.Old (Some moved :: terms)

                struct ({ Old = before.Old
                          A = plus before.A da
                          B = plus before.B db
                          Moved = moved
                          Drift = driftOf before.Old found.Head },
                        certificateOf found.Tail))

    /// What a change of the heads shifts the outputs of an old step's kept rows by.
    let private shifts (before: Heads) (after: Heads) (s: OldStep) =
        let ofPair heads = Map [ for m in Pair.members s.Pair -> m, Heads.weight m heads ]
        let changes = changes (ofPair before) (ofPair after)
        struct (shift changes s.Pair.A s.A, shift changes s.Pair.B s.B)

    /// What a change of the heads did to the step's scores: the drift before it, the drift after it, and the certificate of the change.
    /// Example: `let struct (earlier, now, certificate) = OldStep.across heads after old in now.Frobenius <= certificate.Bound`.
    let across (before: Heads) (after: Heads) (s: OldStep) : struct (Drift * Drift * Certificate) =
        use scope = torch.NewDisposeScope()
        let standing = under before s
        let struct (da, db) = shifts before after s
        let struct (now, certificate) = follow da db standing
        struct (standing.Drift, now.Drift, certificate)

    /// The certificate of a change of the heads (Theorem 5 with truncation; theory.md, section 8).
    /// Example: `(OldStep.certificate heads after old).Bound`.
    let certificate (before: Heads) (after: Heads) (s: OldStep) : Certificate =
        use scope = torch.NewDisposeScope()
        let struct (da, db) = shifts before after s

        terms (fun () -> outputs s.Pair.A before s.A) (fun () -> outputs s.Pair.B before s.B) da db |> sizes s |> certificateOf

    /// What rounding may add to a relative change of scores whose outputs are kept in this type: √d_a ε.
    /// Example: `OldStep.rounding Dtype.Float32 old`.
    let rounding (dtype: Dtype) (s: OldStep) : float = sqrt (float s.A.shape[1]) * Tolerance.epsilon dtype
