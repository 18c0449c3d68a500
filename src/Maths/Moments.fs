namespace Cmcl

open TorchSharp

/// The second moment C = XᵀX/n of n rows (uncentred: the mean direction has to be inside what is protected), in float64.
/// All that is kept of old data.
type Moment =
    {
        Count: int64
        /// d × d, float64.
        Matrix: torch.Tensor
    }

/// The mean μ of the rows behind a moment: kept beside it only where it is to be taken off (`Moment.centred`).
type Mean =
    {
        Rows: int64
        /// d, float64.
        Vector: torch.Tensor
    }

[<RequireQualifiedAccess>]
module Mean =
    /// μ of the rows of X (n × d), accumulated in float64. Example: `Mean.ofRows xa`.
    let ofRows (x: torch.Tensor) : Mean =
        Tensors.requireMatrix "rows of a mean" -1L -1L x

        { Rows = x.shape[0]
          Vector = Tensors.scoped (fun () -> x.sum ([| 0L |], ``type`` = torch.float64) / (float (max 1L x.shape[0])).AsScalar()) }

    /// The mean of both sets of rows: (n_a μ_a + n_b μ_b)/(n_a + n_b). Example: `Mean.merge (Mean.ofRows xa) (Mean.ofRows xa)`.
    let merge (a: Mean) (b: Mean) : Mean =
        let rows = a.Rows + b.Rows
        let share part = (float part / float (max 1L rows)).AsScalar()

        { Rows = rows
          Vector = Tensors.scoped (fun () -> a.Vector * share a.Rows .+ b.Vector * share b.Rows) }

    /// The mean of the outputs X Wᵀ: W μ. Example: `Mean.through heads[pair.A] (Mean.ofRows xa)`.
    let through (w: torch.Tensor) (m: Mean) : Mean =
        { m with
            Vector = Tensors.scoped (fun () -> (w.``to`` torch.float64).mv m.Vector) }

    /// The mean of all rows behind means in one space; `None` of none. Example: `Mean.mergeAll [ Mean.ofRows xa ]`.
    let mergeAll (means: Mean list) : Mean option =
        match means with
        | [] -> None
        | first :: rest -> Some(List.fold merge first rest)

[<RequireQualifiedAccess>]
module Moment =
    /// Columns that are multiplied with those to their right at once, and rows that are held in float64 at once.
    let private panel, private chunk = 256L, 4096L

    /// Adds XᵀX of some rows to a sum, of which only what is on and above the diagonal counts.
    let internal addRows (sum: torch.Tensor) (x: torch.Tensor) : unit =
        let n, d = x.shape[0], x.shape[1]

        for start in 0L .. chunk .. n - 1L do
            use scope = torch.NewDisposeScope()
            let rows = x.narrow(0L, start, min chunk (n - start)).``to`` torch.float64

            for first in 0L .. panel .. d - 1L do
                let own = rows.narrow (1L, first, min panel (d - first))
                let right = rows.narrow (1L, first, d - first)

                sum.narrow(0L, first, own.shape[1]).narrow(1L, first, d - first).addmm_(own.t (), right, 1.0f, 1.0f) |> ignore

    let private square (d: int64) (like: torch.Tensor) : torch.Tensor =
        torch.zeros (d, d, dtype = torch.float64, device = like.device)

    /// A sum as a whole: what is below the diagonal is the same numbers.
    let internal whole (sum: torch.Tensor) : torch.Tensor = sum.triu () .+ sum.triu(1L).t()

    /// XᵀX of wide rows.
    let private halfProduct (x: torch.Tensor) : torch.Tensor =
        Tensors.scoped (fun () ->
            let sum = square x.shape[1] x
            addRows sum x
            whole sum)

    /// XᵀX/n of the rows of X (n × d), accumulated in float64 whatever X is stored as (theory.md, section 1).
    /// Example: `Moment.ofRows xa`.
    let ofRows (x: torch.Tensor) : Moment =
        Tensors.requireMatrix "rows of a moment" -1L -1L x

        { Count = x.shape[0]
          Matrix =
            Tensors.scoped (fun () ->
                let sum =
                    if x.shape[1] < 2L * panel then
                        let x64 = x.``to`` torch.float64
                        x64.t().mm x64
                    else
                        halfProduct x

                sum.div_ ((float (max 1L x.shape[0])).AsScalar())) }

    /// Rows to hand to `accumulate` at once.
    let blockRows: int64 = chunk

    /// The moment of all rows of some blocks, however many there are: each is asked for, added and freed before the next. Blocks of
    /// `blockRows` rows and 512 columns or more give the bits of `ofRows`; others, and blocks in another order, the same to rounding.
    /// Raises `Fault.Shape` for a block of another width, or for no block. Example: `Moment.accumulate [ xa.alias (); xa.alias () ]`.
    let accumulate (blocks: seq<torch.Tensor>) : Moment =
        use scope = torch.NewDisposeScope()
        let mutable sum: torch.Tensor option = None
        let mutable count = 0L

        for block in blocks do
            use block = block
            Tensors.requireMatrix "a block of rows" -1L (sum |> Option.map _.shape[0] |> Option.defaultValue -1L) block

            if sum.IsNone then
                sum <- Some(square block.shape[1] block)

            addRows sum.Value block
            count <- count + block.shape[0]

        match sum with
        | None -> Check.fail (Fault.Shape("blocks of rows for a moment", "at least one", "none"))
        | Some sum ->
            { Count = count
              Matrix = scope.MoveToOuter((whole sum).div_((float (max 1L count)).AsScalar())) }

    /// The moment of both sets of rows: (n_a C_a + n_b C_b)/(n_a + n_b) (theory.md, section 5). Commutative and
    /// associative to rounding, so that shards may be accumulated apart. Example: `Moment.merge ma ma`.
    let merge (a: Moment) (b: Moment) : Moment =
        Tensors.requireMatrix "moment to merge" a.Matrix.shape[0] a.Matrix.shape[1] b.Matrix
        let count = a.Count + b.Count
        let share part = (float part / float (max 1L count)).AsScalar()

        { Count = count
          Matrix = Tensors.scoped (fun () -> a.Matrix * share a.Count .+ b.Matrix * share b.Count) }

    /// The moment of the outputs X Wᵀ: W C Wᵀ (d × d), without the rows (theory.md, section 5).
    /// Example: `Moment.through heads[pair.A] ma`.
    let through (w: torch.Tensor) (m: Moment) : Moment =
        Tensors.requireMatrix "weight" -1L m.Matrix.shape[0] w

        { m with
            Matrix =
                Tensors.scoped (fun () ->
                    let w64 = w.``to`` torch.float64
                    w64.mm(m.Matrix).mm(w64.t ())) }

    /// The moment of all rows behind moments in one space; `None` of none. Example: `Moment.mergeAll [ ma; ma ]`.
    let mergeAll (moments: Moment list) : Moment option =
        match moments with
        | [] -> None
        | first :: rest -> Some(List.fold merge first rest)

    /// The covariance C − μ μᵀ (d × d) of the rows behind a moment, μ their mean: merge first, centre last, since covariances of
    /// parts do not add up to that of the whole. What is left has the rounding of C. Raises `Fault.Shape` where the mean is of other
    /// rows. Example: `Moment.centred (Mean.ofRows xa) ma`.
    let centred (mean: Mean) (m: Moment) : Moment =
        let expected = struct (m.Count, m.Matrix.shape[0])
        let given = struct (mean.Rows, mean.Vector.shape[0])

        if given <> expected then
            let words (struct (rows, d): struct (int64 * int64)) = $"of {rows} rows, {d} numbers"
            Check.fail (Fault.Shape("the mean of a moment's rows", words expected, words given))

        { m with
            Matrix = Tensors.scoped (fun () -> m.Matrix - torch.outer (mean.Vector, mean.Vector)) }
