namespace Cmcl

open System
open TorchSharp

/// The projectors of Theorem 4 for one modality at the start of a step.
type Cut =
    {
        /// P (d_m × d_m), onto what the threshold takes in of its old inputs.
        Input: torch.Tensor
        /// P̃ (d × d), of its partners' old outputs; the identity where the modality is protected one-sidedly.
        Partner: torch.Tensor
        /// The shares of energy that the spectra say are left out, of the inputs and of the partners' outputs.
        LeftOut: float
        PartnerLeftOut: float
    }

[<RequireQualifiedAccess>]
module Cut =
    /// Of a frame with history under a plan that protects a block; none otherwise.
    let private ofFrame (o: NullSpaceOptions) (frame: Frame) : Cut option =
        match NullSpaceOptions.protection o with
        | Protection.Block(inputs, partners) when frame.Inputs.Total > 0.0 ->
            let struct (k, kPartner) = Frame.ranks inputs partners frame
            let tail k (s: Spectrum) = s.Shares |> Array.skip k |> Array.sum

            Some
                { Input = Spectrum.projector k frame.Inputs
                  Partner = Spectrum.projector kPartner frame.Partners
                  LeftOut = tail k frame.Inputs
                  PartnerLeftOut = tail kPartner frame.Partners }
        | _ -> None

    /// Of all frames of a step that have one.
    let ofFrames (o: NullSpaceOptions) (frames: Map<Modality, Frame>) : Map<Modality, Cut> =
        Map
            [ for KeyValue(m, frame) in frames do
                  match ofFrame o frame with
                  | Some cut -> m, cut
                  | None -> () ]

    /// Δ = G − P̃ G P for the modalities that have a cut, G for the others.
    let project (cuts: Map<Modality, Cut>) (gradients: Heads) : Heads =
        gradients
        |> Map.map (fun m g ->
            match Map.tryFind m cuts with
            | Some cut -> Projection.localUpdate cut.Partner cut.Input g
            | None -> g.alias ())

/// What one update did to the loss of its batch, against what Theorem 6 says; in float64.
type UpdateFigures =
    {
        /// 1 for the first of its step.
        Count: int64
        /// How many updates its step has.
        Of: int64
        /// Σ ‖Δ‖², which o(η)/η has to stay below.
        Speed: float
        /// The paper's plotted figure: (L_t − L_{t−1} + η Σ ⟨G, Δ⟩)/η, L_t after whatever the optimizer made of the gradient.
        AsPlotted: float
        /// o(η)/η of the change that was made: its ⟨G, D⟩ in place of −η Σ ⟨G, Δ⟩.
        AsMade: float
        /// o(η)/η of a gradient step −ηΔ from the same weights.
        OfGradientStep: float
    }

/// A step of a run as it was seen; all tensors are float64 and the trace's own.
type TracedStep =
    {
        Step: Step
        /// The rows that were trained on, n × d_a and n × d_b, as the run's type rounded them.
        A: torch.Tensor
        B: torch.Tensor
        /// At most d_a and d_b rows that have every norm ‖X M‖ in common with those, so that nothing of n × n need be made.
        FewA: torch.Tensor
        FewB: torch.Tensor
        /// The heads before and after the step.
        Before: Heads
        After: Heads
        /// Of the modalities that move, as the method made them at the step's start.
        Frames: Map<Modality, Frame>
        Updates: int64
        Figures: UpdateFigures list
        /// L_t(W_{t−1}) and L_t(W_t), the training losses before and after.
        LossBefore: float
        LossAfter: float
    }

    /// Its rows of one of its two modalities.
    member s.Rows(m: Modality) : torch.Tensor = if m = s.Step.Pair.A then s.A else s.B

    /// The few rows of one of them.
    member s.Few(m: Modality) : torch.Tensor = if m = s.Step.Pair.A then s.FewA else s.FewB

/// A whole run of one plan with one seed. It owns its tensors.
type Trace(plan: Plan, steps: TracedStep list, owned: torch.Tensor list) =
    member _.Plan = plan

    member _.Options: NullSpaceOptions = NullSpaceOptions.of' plan.Entry

    member _.Steps = steps

    interface IDisposable with
        member _.Dispose() =
            for t in owned do
                t.Dispose()

[<RequireQualifiedAccess>]
module Trace =
    /// Updates of a step that are looked at closely: at most so many, evenly spaced.
    [<Literal>]
    let private MostUpdates = 40L

    let private wide (t: torch.Tensor) : torch.Tensor = t.``to`` torch.float64

    /// R of X = QR where X has more rows than columns, X itself elsewhere.
    let private few (x: torch.Tensor) : torch.Tensor =
        Tensors.scoped (fun () ->
            if x.shape[0] <= x.shape[1] then
                x.alias ()
            else
                let struct (_, r) = torch.linalg.qr (x, torch.linalg.QRMode.R)
                r)

    /// The loss of a batch under float64 heads, and its weight gradients.
    let pass (settings: Settings) (pair: Pair) (xa: torch.Tensor) (xb: torch.Tensor) (heads: Heads) : Pass =
        Direction.pass
            (Training.plain settings)
            Map.empty
            heads
            { Task = 0
              Numbers = Tensors.range xa.device 0L xa.shape[0]
              Epoch = 1
              Seed = Seed.ofInt 0
              Rows = Map [ pair.A, xa; pair.B, xb ]
              Terms = Terms.one pair }

    /// A change in the method's coordinates as a change of heads.
    let private standard (place: Place) (frames: Map<Modality, Frame>) (change: Heads) : Heads =
        match place with
        | Place.Gradient
        | Place.Update -> change
        | Place.Eigenbasis ->
            change
            |> Map.map (fun m d -> Tensors.product (Tensors.product frames[m].Partners.Vectors d) (frames[m].Inputs.Vectors.t()))

    let private figures
        (place: Place)
        (scene: Scene)
        (frames: Map<Modality, Frame>)
        (cuts: Map<Modality, Cut>)
        (update: Update)
        : UpdateFigures =
        use scope = torch.NewDisposeScope()
        let settings, eta = scene.Context.Settings, update.Rate
        let task = scene.Tasks[update.Batch.Task]
        let rows (x: torch.Tensor) = wide (x.index_select (0L, update.Batch.Numbers))
        let pass = pass settings task.Pair (rows task.A) (rows task.B)
        let difference (later: Heads) (earlier: Heads) = later |> Map.map (fun m w -> wide w - wide (Heads.weight m earlier))

        let weights =
            difference update.Before scene.Session.Start
            |> standard place frames
            |> Map.map (fun m d -> wide (Heads.weight m scene.Heads) .+ d)

        let change = difference update.After update.Before |> standard place frames
        let plus (d: Heads) = weights |> Map.map (fun m w -> w .+ Heads.weight m d)
        let before = pass weights
        let deltas = Cut.project cuts before.Gradients
        let loss heads = Tensors.toFloat (pass heads).Loss
        let start, speed = Tensors.toFloat before.Loss, Plasticity.squared deltas
        let made = loss (plus change)
        let stepped = loss (plus (Heads.map (fun d -> d * (-eta).AsScalar()) deltas))

        { Count = update.Count
          Of = scene.Context.Updates
          Speed = speed
          AsPlotted = (made - start + eta * Plasticity.inner before.Gradients deltas) / eta
          AsMade = (Plasticity.observed eta start made before.Gradients change).RemainderPerRate
          OfGradientStep =
            (Plasticity.observed eta start stepped before.Gradients (Heads.map (fun d -> d * (-eta).AsScalar()) deltas))
                .RemainderPerRate }

    /// Runs a plan and keeps what its theorems speak of. As in `use trace = Trace.run stream torch.CPU 0 ignore plan |> Check.get`.
    let run (stream: Stream) (device: torch.Device) (seed: int) (tell: Event -> unit) (plan: Plan) : Result<Trace, Fault list> =
        let owned = ResizeArray<torch.Tensor>()

        let keep (t: torch.Tensor) =
            let own = (Tensors.scoped (fun () -> (wide t).clone())).DetachFromDisposeScope()
            owned.Add own
            own

        let keepFrame (f: Frame) =
            let spectrum (s: Spectrum) = { s with Vectors = keep s.Vectors }

            { f with
                Inputs = spectrum f.Inputs
                Partners = spectrum f.Partners }

        let begun, ended = ResizeArray<TracedStep>(), ResizeArray<Heads>()
        let closely = Collections.Generic.Dictionary<int, ResizeArray<UpdateFigures>>()

        let options = NullSpaceOptions.of' plan.Entry

        let begin' (scene: Scene) =
            let moving = Training.moving scene.Tasks

            let frames =
                NullSpaceStep.frames options scene.Context scene.Memory scene.Heads moving |> Map.map (fun _ f -> keepFrame f)

            let seen = ResizeArray()
            closely[scene.Step.Index] <- seen

            let a, b = keep scene.Tasks.Head.A, keep scene.Tasks.Head.B

            begun.Add
                { Step = scene.Step
                  A = a
                  B = b
                  FewA = keep (few a)
                  FewB = keep (few b)
                  Before = Heads.map keep scene.Heads
                  After = Map.empty
                  Frames = frames
                  Updates = scene.Context.Updates
                  Figures = []
                  LossBefore = nan
                  LossAfter = nan }

            let cuts = Cut.ofFrames options frames
            let every = (scene.Context.Updates + MostUpdates - 1L) / MostUpdates |> max 1L

            // Without a block to project on there is no Δ.
            if options.Protect <> Protect.Block then
                None
            else
                Some(fun (update: Update) ->
                    if (update.Count - 1L) % every = 0L && update.Rate > 0.0 then
                        seen.Add(figures options.Place scene frames cuts update))

        let observer =
            { Observer.silent with
                Tell = tell
                Begin = begin'
                Save = fun _ heads -> ended.Add(Heads.map keep heads) }

        let limits = { Limits.usual with Rows = System.Int64.MaxValue }

        let trained =
            if Method.trains plan.Method then
                Train.runWithin limits stream device Split.Validation seed observer plan
            else
                Error
                    [ Fault.Contradiction(
                          $"{plan.Label} does not train, so there is no update to check",
                          "take a method that trains"
                      ) ]

        match trained with
        | Error faults ->
            for t in owned do
                t.Dispose()

            Error faults
        | Ok outcome ->
            let reading metric (step: Step) =
                outcome.Measurements |> List.find (fun r -> r.Metric = metric && r.Step = step.Index) |> _.Value

            let steps =
                [ for step, after in Seq.zip begun ended ->
                      { step with
                          After = after
                          Figures = List.ofSeq closely[step.Step.Index]
                          LossBefore = reading "loss_before" step.Step
                          LossAfter = reading "loss_after" step.Step } ]

            Ok(new Trace(plan, steps, List.ofSeq owned))
