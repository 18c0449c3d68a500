namespace Cmcl

open TorchSharp

/// A point of a figure: where it stands (x, y), in what series of which run, and its number where it is a cell of a map.
type Point =
    {
        /// `deviation`, `plasticity`, `order`, `energy`, `leakage` or `map`.
        Figure: string
        Run: string
        Series: string
        /// The place in words: a step, an old step, a modality.
        Where: string
        X: float
        Y: float
        /// Of a map: the cell's number; otherwise none.
        Cell: float option
    }

/// The points behind every figure of a verification.
[<RequireQualifiedAccess>]
module Points =
    /// Cells along each side of a map, at most.
    [<Literal>]
    let private MostCells = 64L

    let private point figure run series where x y : Point =
        { Figure = figure
          Run = run
          Series = series
          Where = where
          X = x
          Y = y
          Cell = None }

    /// Of one step: the figures of its updates against their place in training, |o(η)| against η, and how far its change is out of
    /// the constraint set.
    let ofStep (run: string) (s: Stage) (descents: PlasticityChecks.Descents option) : Point list =
        let step = s.Traced.Step.Index

        [ for f in s.Traced.Figures do
              let at = float (step - 1) + float f.Count / float f.Of

              for series, value in
                  [ "as the paper plots it", f.AsPlotted
                    "of the change made", f.AsMade
                    "of a gradient step", f.OfGradientStep
                    "‖Δ‖²", f.Speed ] do
                  point "plasticity" run series s.Where at value

          match descents with
          | Some d ->
              for x in d.Small @ d.Large do
                  point "order" run s.Where s.Where x.Rate (abs x.Remainder)
          | None -> ()

          for m, value in ProjectionChecks.leakage s do
              point "leakage" run m.Name s.Where (float step) value ]

    /// Of every old step at every later one: its deviation with the bound on it, and what one step changed against the energy that
    /// the cuts left out.
    let ofPlaces (run: string) (places: OldPlace list) : Point list =
        [ for p in places do
              let where = $"old step {p.Task}"
              point "deviation" run "measured" where (float p.After) p.Deviation
              point "deviation" run "bound" where (float p.After) p.Bound

              match p.Discarded with
              | Some share when p.Before > 0.0 ->
                  point "energy" run where $"step {p.After}, old step {p.Task}" share (p.Change / p.Before)
              | _ -> () ]

    /// A matrix as at most 64 × 64 cells, each the mean of what falls into it, with the first row and column of it,
    /// counted from 1.
    let private cells (matrix: torch.Tensor) : (float * float * float) list =
        use scope = torch.NewDisposeScope()
        let rows, columns = min MostCells matrix.shape[0], min MostCells matrix.shape[1]
        let image = matrix.reshape (1L, 1L, matrix.shape[0], matrix.shape[1])
        let small = torch.nn.functional.adaptive_avg_pool2d (image, struct (rows, columns))
        let values = small.cpu().contiguous().data<float>().ToArray()

        let first (size: int64) (cells: int64) (cell: int) = float (1L + int64 cell * size / cells)

        [ for i in 0 .. int rows - 1 do
              for j in 0 .. int columns - 1 ->
                  first matrix.shape[0] rows i, first matrix.shape[1] columns j, values[i * int columns + j] ]

    /// What each way of protecting keeps of an update's entry, 0 to 1, beside μ_i λ_j: for the first modality with history of the last
    /// step, in its frame. Trust acts on a change as large as the weight, spread evenly over the entries.
    let map (trace: Trace) : Point list =
        use scope = torch.NewDisposeScope()
        let o, step = trace.Options, List.last trace.Steps

        match step.Frames |> Map.toList |> List.tryFind (fun (_, f) -> f.Inputs.Total > 0.0) with
        | None -> []
        | Some(m, frame) ->
            let start = Frame.enter frame (Heads.weight m step.Before)
            let even = torch.ones_like start * (Tensors.norm start / sqrt (float start.NumberOfElements)).AsScalar()

            let kept protection =
                match Frame.shape protection frame start with
                | Shape.Free -> torch.ones_like start
                | Shape.Block(rows, columns) -> Shape.mask rows columns start
                | Shape.Factor f -> f
                | Shape.Ellipsoid(importance, budget) -> Frame.intoEllipsoid importance budget even / even

            [ for series, matrix in
                  [ "energy", Frame.importance frame
                    "block", kept (Protection.Block(o.Threshold, o.PartnerThreshold))
                    "product", kept (Protection.Product o.Tau)
                    "soft", kept (Protection.Soft o.Tau)
                    "trust", kept (Protection.Trust o.Budget) ] do
                  for i, j, value in cells matrix ->
                      { point "map" trace.Plan.Label series $"step {step.Step.Index}, {m}" j i with
                          Cell = Some value } ]
