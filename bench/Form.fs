namespace Cmcl

open TorchSharp

/// A way of training that is timed.
type Form =
    {
        Name: string
        Summary: string
        /// At a size.
        Method: Extent -> Method
        /// Whether it needs what is kept of the old step.
        Keeps: bool
        /// Whether its cost depends on the rank.
        Ranked: bool
        /// Trained by pure functions alone (`Loop.trainPurely`).
        Purely: bool
        /// What one iteration has to do at least.
        Work: Extent -> Work
    }

/// The forms by name.
[<RequireQualifiedAccess>]
module Form =
    /// The published form: P and P̃ are made before the first update, and every gradient becomes G − P̃ G P by two d × d × d
    /// products. All else is as fast as in the other forms: the optimizer in place, clipping within it.
    let private publishedSession
        (o: NullSpaceOptions)
        (context: Context)
        (memory: Memory)
        (heads: Heads)
        (tasks: Task list)
        : Session =
        let settings = context.Settings
        let frames = NullSpaceStep.frames o context memory heads (Training.moving tasks)

        let projectors =
            frames
            |> Map.map (fun _ f ->
                let struct (k, kPartner) = Frame.ranks o.Threshold o.PartnerThreshold f
                let projector k s = Tensors.scoped (fun () -> (Spectrum.projector k s).``to`` settings.Dtype.Torch)
                struct (projector kPartner f.Partners, projector k f.Inputs))

        let project m (g: torch.Tensor) =
            let struct (partner, input) = projectors[m]
            Projection.localUpdate partner input g

        let plain = Training.plainSession context memory heads tasks

        { plain with
            Direction =
                Direction.Of(fun weights batch ->
                    let raw = Direction.pass plain.Direction plain.Kept weights batch

                    { raw with Gradients = Map.map project raw.Gradients }) }

    let private published (o: NullSpaceOptions) : Method =
        { NullSpace.dns.Make o with Name = "published" } |> Method.beginning (publishedSession o)

    let private cut (e: Extent) : NullSpaceOptions =
        let rank = Threshold.rank (int e.Rank) |> Check.get

        { NullSpaceOptions.defaults with
            Threshold = rank
            PartnerThreshold = rank }

    let private placed place (e: Extent) = { cut e with Place = place }

    let private protecting protect (e: Extent) =
        let entries = float e.Width * float e.Width

        { cut e with
            Protect = protect
            // About half of the entries of `Workload`'s data are on either side.
            Tau = 0.1 / entries
            // So little that the first update already is too long for it.
            Budget = 1e-3 }

    let private form name summary (options: Extent -> NullSpaceOptions) work : Form =
        { Name = name
          Summary = summary
          Method = options >> NullSpace.dns.Make
          Keeps = true
          Ranked = false
          Purely = false
          Work = work }

    let private d (e: Extent) = float e.Width
    let private b (e: Extent) = float e.Pairs
    let private k (e: Extent) = float e.Rank

    /// Training in the eigenbasis, the bridge's leading c × c part crossed once there and once back.
    let private bridged (c: float) (operations: float) (numbers: float) (e: Extent) : Work =
        Floor.beside e (2.0 * b e * c * c + operations) (c * c / 2.0 + numbers)

    let private rotated (numbers: float) (e: Extent) : Work = bridged (d e) 0.0 (numbers * d e * d e) e

    /// What a block spares: its outputs, which are worked out once for all rows, its gradient and its moments; what remains is its part in
    /// the gradient's norm.
    let private block (rows: Extent -> float) (c: Extent -> float) (e: Extent) : Work =
        let rows = rows e
        let norm = 2.0 * b e * b e * (rows + k e)
        bridged (c e) (norm - 4.0 * b e * rows * k e) (b e * rows - 8.0 * rows * k e) e

    let private none =
        { form "none" "no projection: fine-tuning" cut Floor.plain with
            Method = fun _ -> Plain.vanilla
            Keeps = false }

    let private dual =
        { form "block" "eigenbasis, a block is protected (dns)" cut (block k (fun e -> min (d e) (2.0 * k e))) with
            Ranked = true }

    let private own =
        { form
              "block-own"
              "the same where each head has a free basis of its own (dns[free-basis=own])"
              (fun e -> { cut e with FreeBasis = FreeBasis.Own })
              (block k d) with
            Ranked = true }

    let private purely (f: Form) : Form =
        { f with
            Name = $"{f.Name}-pure"
            Summary = $"{f.Name} by pure functions, which every fast form is held against"
            Purely = true }

    /// Every form, in the order in which tables show them. What each has to do beside the plain iteration (`Floor.plain`), for each head:
    /// published 4d³ operations and 6d² numbers (both projectors, P̃G and the result in and out); gradient 4Bdk + 2Bd², dk + Bd
    /// numbers; update 4d²k + 4dk², 2d² + 2dk numbers; the eigenbasis 2Bc² and ½c² numbers for the bridge, c = d unless whole
    /// directions are free (block: at most 2k; one-sided: 0), d² more for factors and 2d² more for an ellipsoid; a block of k̃ × k entries
    /// spares 4Bk̃k operations and 8k̃k numbers and adds 2B²(k̃ + k) and Bk̃.
    let all: Form list =
        [ none
          { form "published" "gradient projected with two d × d projectors, then the optimizer" (placed Place.Gradient) (fun e ->
                Floor.beside e (4.0 * d e ** 3.0) (6.0 * d e * d e)) with
              Method = placed Place.Gradient >> published }
          { form "gradient" "gradient projected through its low rank, then the optimizer" (placed Place.Gradient) (fun e ->
                Floor.beside e (4.0 * b e * d e * k e + 2.0 * b e * d e * d e) (d e * k e + b e * d e)) with
              Ranked = true }
          { form "update" "the optimizer's update projected from bases of rank k" (placed Place.Update) (fun e ->
                Floor.beside e (4.0 * d e * d e * k e + 4.0 * d e * k e * k e) (2.0 * d e * d e + 2.0 * d e * k e)) with
              Ranked = true }
          dual
          own
          form "product" "eigenbasis, entries masked by importance" (protecting Protect.Product) (rotated 1.0)
          form "soft" "eigenbasis, entries damped by importance" (protecting Protect.Soft) (rotated 1.0)
          form "trust" "eigenbasis, the change kept within an ellipsoid that binds" (protecting Protect.Trust) (rotated 2.0)
          form
              "nothing"
              "eigenbasis, no entry protected"
              (fun _ -> { NullSpaceOptions.defaults with Protect = Protect.Nothing })
              (rotated 0.0)
          { form
                "one-sided"
                "eigenbasis, all outputs on old inputs are protected"
                (fun e -> { cut e with Sides = Sides.Input })
                (block d (fun _ -> 0.0)) with
              Ranked = true }
          purely none
          purely dual ]

    let names: string list = all |> List.map _.Name

    /// The form of a name. Example: `Form.find "soft" |> Check.get`.
    let find (name: string) : Result<Form, Fault list> =
        match all |> List.tryFind (fun f -> f.Name = name) with
        | Some f -> Ok f
        | None -> Error [ Fault.Unknown("form", name, names) ]
