namespace Cmcl

open TorchSharp

/// The weight, the gradient and the running moments of one modality: buffers that are made once and written over at each update.
type internal Buffers =
    {
        Weight: torch.Tensor
        /// Where a loop may put its gradient.
        Gradient: torch.Tensor
        First: torch.Tensor
        Second: torch.Tensor
        Shape: Shape
        /// The weight at the start, where the shape is one that looks at the whole change.
        Start: torch.Tensor option
        /// Updates so far.
        mutable Count: int64
    }

/// A descent in place: what `Rule.transform` does with fresh tensors, done to buffers that belong to the scope in which this was made.
/// On the CPU in one pass over memory, elsewhere (and where `fused` is false) by libtorch's operations in place.
type internal InPlace(recipe: Recipe, start: Heads, fused: bool, from: DescentState option) =
    let own (w: torch.Tensor) = w.contiguous().clone()

    /// A matrix as the kernels read it: of the weight's shape and type, its rows one after another.
    let fitting (what: string) (m: Modality) (t: torch.Tensor) : torch.Tensor =
        let w = Heads.weight m start
        Tensors.requireMatrix $"{what} of {m}" w.shape[0] w.shape[1] t
        t.``to``(w.dtype).contiguous()

    let buffers =
        start
        |> Map.map (fun m w ->
            let shape =
                match recipe.Shape m with
                | Shape.Factor f -> Shape.Factor(fitting "factor" m f)
                | Shape.Ellipsoid(importance, budget) -> Shape.Ellipsoid(fitting "importance" m importance, budget)
                | other -> other

            { Weight = own w
              Gradient = torch.zeros_like w
              First = torch.zeros_like w
              Second = torch.zeros_like w
              Shape = shape
              Start =
                match shape with
                | Shape.Ellipsoid _ -> Some(own w)
                | _ -> None
              Count = 0L })

    let taken (b: Buffers) (descent: DescentState) (m: Modality) : unit =
        let fill (name: string) (buffer: torch.Tensor) (kept: Heads) =
            buffer.copy_ (fitting name m (Heads.weight m kept)) |> ignore

        fill "weight" b.Weight descent.Weights
        fill "first moment" b.First descent.State.Slots["m"]
        fill "second moment" b.Second descent.State.Slots["v"]
        b.Count <- descent.State.Counts[m]

    do
        match from with
        | Some descent ->
            use scope = torch.NewDisposeScope()
            Map.iter (fun m b -> taken b descent m) buffers
        | None -> ()

    let kernels = if fused && not start.IsEmpty then Kernels.forTensor (Seq.head start.Values) else ValueNone

    let mutable updates =
        match from with
        | Some descent -> descent.State.Step
        | None -> 0L

    let area (b: Buffers) : Area =
        let rows, columns =
            match b.Shape with
            | Shape.Block(rows, columns) -> rows, columns
            | _ -> 0L, 0L

        { Rows = b.Weight.shape[0]
          Columns = b.Weight.shape[1]
          BlockRows = rows
          BlockColumns = columns
          Exempt = recipe.Exempt }

    let corrections (b: Buffers) =
        match recipe.Optimiser with
        | Optimiser.Sgd -> ValueNone
        | Optimiser.AdamW -> ValueSome(struct (1.0 - 0.9 ** float b.Count, 1.0 - 0.999 ** float b.Count))

    let inOnePass (kernels: IKernels) (b: Buffers) (g: torch.Tensor) (clip: float) (rate: float) : unit =
        let stroke =
            { Clip = clip
              Rate = rate
              Decay = recipe.WeightDecay
              Corrections = corrections b }

        let factor =
            match b.Shape with
            | Shape.Factor f -> Some f
            | _ -> None

        let area = area b
        kernels.Update(stroke, area, b.Weight, g, b.First, b.Second, factor)

        match b.Shape, b.Start with
        | Shape.Ellipsoid(importance, budget), Some start ->
            match Frame.multiplier budget (fun nu -> kernels.Ellipsoid(area, importance, b.Weight, start, nu)) with
            | ValueNone -> ()
            | ValueSome(struct (nu, shrink)) -> kernels.Shrink(area, importance, b.Weight, start, nu, shrink)
        | _ -> ()

    let byTensors (b: Buffers) (g: torch.Tensor) (clip: torch.Tensor option) (rate: float) : unit =
        use scope = torch.NewDisposeScope()
        let number (x: float) = x.AsScalar()

        let g =
            match clip with
            | Some factor -> g * factor
            | None -> g

        let step =
            match corrections b with
            | ValueNone -> g.clone ()
            | ValueSome(struct (c1, c2)) ->
                b.First.mul_(number 0.9).add_(g, number (1.0 - 0.9)) |> ignore
                b.Second.mul_(number 0.999).addcmul_(g, g, number (1.0 - 0.999)) |> ignore
                b.First / b.Second.sqrt().mul_(number (c1 / sqrt c2)).plus_(c1 * 1e-8)

        if recipe.WeightDecay <> 0.0 then
            let decayed (t: torch.Tensor) = t.narrow (1L, 0L, t.shape[1] - recipe.Exempt)
            (decayed step).add_(decayed b.Weight, number recipe.WeightDecay) |> ignore

        step.mul_ (number -rate) |> ignore

        match b.Shape, b.Start with
        | Shape.Block(rows, columns), _ -> step.narrow(0L, 0L, rows).narrow(1L, 0L, columns).zero_() |> ignore
        | Shape.Factor f, _ -> step.mul_ f |> ignore
        | Shape.Ellipsoid(importance, budget), Some start ->
            let sofar = b.Weight - start
            step.copy_ (Frame.intoEllipsoid importance budget (sofar .+ step) - sofar) |> ignore
        | _ -> ()

        b.Weight.plus_ step |> ignore

    /// The weights as they are now: the buffers themselves.
    member _.Weights: Heads = buffers |> Map.map (fun _ b -> b.Weight)

    /// Where it stands: the buffers themselves. What it is made of is enough to go on from.
    member _.Descent: DescentState =
        { Weights = Map.map (fun _ b -> b.Weight) buffers
          State =
            { Step = updates
              Counts = Map.map (fun _ b -> b.Count) buffers
              Slots = Map [ "m", Map.map (fun _ b -> b.First) buffers; "v", Map.map (fun _ b -> b.Second) buffers ]
              Parts = [] } }

    /// A buffer of the weight's shape for its gradient.
    member _.Gradient(m: Modality) : torch.Tensor = buffers[m].Gradient

    /// The next update, of the modalities that have a gradient. `rest` is the square of what was left out of the gradients because no
    /// weight moves by it, but the clipping counts.
    member _.Apply(gradients: Heads, rest: float) : unit =
        use scope = torch.NewDisposeScope()
        let rate = recipe.Rate updates
        let gradients = [ for KeyValue(m, g) in gradients -> buffers[m], fitting "gradient" m g ]
        updates <- updates + 1L

        for b, _ in gradients do
            b.Count <- b.Count + 1L

        match kernels with
        | ValueSome kernels ->
            let clip =
                match recipe.Clip with
                | None -> 1.0
                | Some limit ->
                    let squares = gradients |> List.sumBy (fun (b, g) -> kernels.Squares(area b, g))
                    Optim.clipFactor limit (sqrt (rest + squares))

            for b, g in gradients do
                inOnePass kernels b g clip rate
        | ValueNone ->
            // The factor stays on the device, so that nothing waits for it.
            let clip =
                recipe.Clip
                |> Option.map (fun limit ->
                    let norms = torch.stack [| for _, g in gradients -> g.norm () |]
                    let norm = norms.squared().sum().plus_(rest).sqrt()
                    ((norm.plus 1e-6).reciprocal() * limit.AsScalar()).clamp_max((1.0).AsScalar()))

            for b, g in gradients do
                byTensors b g clip rate
