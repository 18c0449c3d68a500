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

/// What is kept of a step when its data are gone (theory.md, section 8): for each side a few rows that are no samples in the place of
/// the step's own, and their scores at its end. Everything a Frobenius norm says of all n × n scores follows.
type OldStep =
    {
        /// 1 for the first step.
        Index: int
        Pair: Pair
        /// n, the matched rows there were.
        Count: int64
        /// r_a × columns of W_a and r_b × columns of W_b, float64; a bias column is among them.
        A: Sketch
        B: Sketch
        /// r_a × r_b: the scores of those rows at the step's end.
        Scores: torch.Tensor
        /// ‖A_then‖_F over all n × n scores.
        Size: float
    }

/// Where an old step's scores stand under the heads of some time. All of it follows from the old step and those heads; who holds
/// it has the next reading for the price of what moved since.
type OldStepState =
    {
        Old: OldStep
        /// The outputs of the kept rows, r_a × d and r_b × d, float64.
        A: Sketch
        B: Sketch
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
        /// What the kept rows may miss of these three.
        Beyond: float
    }

    member c.First: float = c.FirstA + c.FirstB
    member c.Bound: float = c.First + c.Second + c.Beyond

/// Stability known without the old data.
[<RequireQualifiedAccess>]
module OldStep =
    let private outputs (m: Modality) (heads: Heads) (rows: Sketch) : Sketch = Sketch.through (Heads.weight m heads) rows

    let private scores (a: Sketch) (b: Sketch) : torch.Tensor = Tensors.product a.Rows (b.Rows.t ())

    /// The tensors of what is kept, for scopes and byte counts. Example: `OldStep.tensors old |> List.sumBy Tensors.bytes`.
    let tensors (s: OldStep) : torch.Tensor list = [ s.A.Rows; s.B.Rows; s.Scores ]

    /// Those of a standing, the old step's not among them. Example: `OldStep.held (OldStep.under heads old)`.
    let held (s: OldStepState) : torch.Tensor list = [ s.A.Rows; s.B.Rows; s.Moved ]

    /// An old step of n matched rows at its end, from sketches of its two sides (theory.md, section 8).
    /// Example: `OldStep.atEnd 1 pair ma.Count heads (Sketch.ofRows xa) (Sketch.ofRows xb)`.
    let atEnd (index: int) (pair: Pair) (n: int64) (heads: Heads) (a: Sketch) (b: Sketch) : OldStepState =
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
            (atEnd index pair xa.shape[0] heads (Sketch.ofRows xa) (Sketch.ofRows xb)).Old)

    /// A Frobenius size relative to ‖A_then‖, where the step had scores at all.
    /// Example: `OldStep.relative old (OldStep.certificate heads after old).Bound`.
    let relative (s: OldStep) (size: float) : float = if s.Size = 0.0 then size else size / s.Size

    let private driftOf (s: OldStep) (moved: float) : Drift =
        { Frobenius = moved
          Rms = moved / float (max 1L s.Count)
          Relative = relative s moved }

    /// Where the scores of an old step stand under the given heads. Example: `(OldStep.under after old).Drift.Relative`.
    let under (heads: Heads) (s: OldStep) : OldStepState =
        Tensors.scopedWith (fun s -> held s) (fun () ->
            let ya, yb = outputs s.Pair.A heads s.A, outputs s.Pair.B heads s.B
            let moved = (scores ya yb).sub_ s.Scores

            { Old = s
              A = ya
              B = yb
              Moved = moved
              Drift = driftOf s (Tensors.norm moved) })

    /// ‖A_now − A_then‖ over all scores of the step under the given heads: n² tr(C_a M C_b Mᵀ) with M = W_aᵀ W_b now − then, without one of
    /// its rows, to what their sketches miss (this project's, theory.md, section 8). Example: `(OldStep.drift after old).Relative`.
    let drift (heads: Heads) (s: OldStep) : Drift =
        use scope = torch.NewDisposeScope()
        (under heads s).Drift

    /// D = after − before (float64) of the heads that moved, for `follow`. Example: `OldStep.changes heads after`.
    let changes (before: Heads) (after: Heads) : Heads =
        Tensors.scopedWith _.Values (fun () ->
            let wide m heads = (Heads.weight m heads).``to`` torch.float64
            Map [ for m in Heads.moved before after -> m, wide m after - wide m before ])

    /// X Dᵀ by the kept rows, where their head moved. Example: `OldStep.shift (OldStep.changes heads after) pair.A old.A`.
    let shift (changes: Heads) (m: Modality) (rows: Sketch) : Sketch option =
        Map.tryFind m changes
        |> Option.map (fun d -> Tensors.scopedWith (fun s -> [ s.Rows ]) (fun () -> Sketch.through d rows))

    /// The two factors of each term of a change of scores, in the certificate's order, none where a head did not move; the outputs
    /// before it are asked for only where they are needed.
    let private terms (ya: unit -> Sketch) (yb: unit -> Sketch) (da: Sketch option) (db: Sketch option) =
        [ da |> Option.map (fun da -> struct (da, yb ()))
          db |> Option.map (fun db -> struct (ya (), db))
          Option.map2 (fun da db -> struct (da, db)) da db ]

    let private matrix (struct (a, b): struct (Sketch * Sketch)) : torch.Tensor = scores a b

    /// The size of a term, and what the kept rows may miss of it.
    let private measured (term: struct (Sketch * Sketch) option) (matrix: torch.Tensor option) : struct (float * float) =
        match term, matrix with
        | Some(struct (a, b)), Some ab ->
            use scope = torch.NewDisposeScope()
            let sizes = Tensors.toFloats [ ab.norm (); a.Rows.norm (); b.Rows.norm () ]
            struct (sizes[0], Sketch.beyond (a, sizes[1]) (b, sizes[2]))
        | _ -> struct (0.0, 0.0)

    let private certificateOf (terms: struct (Sketch * Sketch) option list) (matrices: torch.Tensor option list) : Certificate =
        let found = List.map2 measured terms matrices
        let size term = let struct (size, _) = List.item term found in size

        { FirstA = size 0
          FirstB = size 1
          Second = size 2
          Beyond = found |> List.sumBy (fun struct (_, missed) -> missed) }

    /// The standing after a change of the heads, given by what it shifts the outputs of the kept rows by, and its certificate:
    /// A_after − A_before = X_a D_aᵀ Y_bᵀ + Y_a D_b X_bᵀ + X_a D_aᵀ D_b X_bᵀ with the changes D and the outputs Y before it.
    /// Example: `let struct (now, certificate) = OldStep.follow None None (OldStep.under heads old) in certificate.Bound = 0.0`.
    let follow (da: Sketch option) (db: Sketch option) (before: OldStepState) : struct (OldStepState * Certificate) =
        if da.IsNone && db.IsNone then
            struct (before, { FirstA = 0.0; FirstB = 0.0; Second = 0.0; Beyond = 0.0 })
        else
            Tensors.scopedWith (fun struct (now, _) -> held now) (fun () ->
                let terms = terms (fun () -> before.A) (fun () -> before.B) da db
                let matrices = terms |> List.map (Option.map matrix)
                let moved = matrices |> List.choose id |> List.fold (.+) before.Moved
                let plus outputs shift = shift |> Option.map (Sketch.add outputs) |> Option.defaultValue outputs

                struct ({ Old = before.Old
                          A = plus before.A da
                          B = plus before.B db
                          Moved = moved
                          Drift = driftOf before.Old (Tensors.norm moved) },
                        certificateOf terms matrices))

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
        let terms = terms (fun () -> outputs s.Pair.A before s.A) (fun () -> outputs s.Pair.B before s.B) da db
        certificateOf terms (terms |> List.map (Option.map matrix))

    /// What rounding may add to a relative change of scores whose outputs are kept in this type: √d_a ε.
    /// Example: `OldStep.rounding Dtype.Float32 old`.
    let rounding (dtype: Dtype) (s: OldStep) : float = sqrt (float s.A.Rows.shape[1]) * Tolerance.epsilon dtype

    /// What rounding in float64 may add to a size of scores under some heads, relative to ‖A_then‖:
    /// √d ε (‖X_a‖ ‖W_a‖ ‖Y_b‖ + ‖Y_a‖ ‖W_b‖ ‖X_b‖ + ‖Y_a‖ ‖Y_b‖)/‖A_then‖, d the largest dimension (theory.md, section 8).
    /// Example: `OldStep.arithmetic after old`.
    let arithmetic (heads: Heads) (s: OldStep) : float =
        use scope = torch.NewDisposeScope()

        let side m (rows: Sketch) =
            let w = Heads.weight m heads
            struct (Tensors.norm rows.Rows, Tensors.norm w, Tensors.norm (outputs m heads rows).Rows, max w.shape[0] w.shape[1])

        let struct (xa, wa, ya, da) = side s.Pair.A s.A
        let struct (xb, wb, yb, db) = side s.Pair.B s.B
        let size = xa * wa * yb + ya * wb * xb + ya * yb
        sqrt (float (max da db)) * Tolerance.epsilon Dtype.Float64 * size |> relative s
