namespace Cmcl

/// Protect alignment scores (against old inputs and old partner outputs), or all outputs on old inputs.
[<RequireQualifiedAccess>]
type Sides =
    | Dual
    | Input

/// The family of `Protection`, without its numbers.
[<RequireQualifiedAccess>]
type Protect =
    | Nothing
    | Block
    | Product
    | Soft
    | Trust

/// The basis of the output directions that protection leaves alone: of each modality its own, or one for all that move.
[<RequireQualifiedAccess>]
type FreeBasis =
    | Own
    | Shared

/// Which weights old partner outputs are taken under: those of the time (the paper's), or those at the start of the step.
[<RequireQualifiedAccess>]
type PartnerOutputs =
    | AtLearning
    | Current

/// Whether spectra are of second moments, or, as an ablation, of covariances: then nothing protects the mean direction.
[<RequireQualifiedAccess>]
type Centring =
    | Uncentred
    | Centred

/// What the null-space methods are made of: `dns` takes all of it, the others take a part and hold the rest.
type NullSpaceOptions =
    { Place: Place
      Sides: Sides
      Protect: Protect
      Exact: bool
      Partner: PartnerOutputs
      Centring: Centring
      FreeBasis: FreeBasis
      Threshold: Threshold
      PartnerThreshold: Threshold
      Tau: float
      Budget: float
      TotalBudget: float option }

/// The defaults of `dns`, and each option.
[<RequireQualifiedAccess>]
module NullSpaceOptions =
    /// In the eigenbasis, with a share of the trace for a threshold.
    let defaults: NullSpaceOptions =
        { Place = Place.Eigenbasis
          Sides = Sides.Dual
          Protect = Protect.Block
          Exact = false
          Partner = PartnerOutputs.Current
          Centring = Centring.Uncentred
          FreeBasis = FreeBasis.Shared
          Threshold = Threshold.trace 3e-3 |> Check.get
          PartnerThreshold = Threshold.trace 3e-3 |> Check.get
          Tau = 3e-5
          Budget = 0.1
          TotalBudget = None }

    /// What is protected, with its numbers. Example: `NullSpaceOptions.protection NullSpaceOptions.defaults`.
    let protection (o: NullSpaceOptions) : Protection =
        match o.Protect with
        | Protect.Nothing -> Protection.Nothing
        | Protect.Block -> Protection.Block(o.Threshold, o.PartnerThreshold)
        | Protect.Product -> Protection.Product o.Tau
        | Protect.Soft -> Protection.Soft o.Tau
        | Protect.Trust -> Protection.Trust o.Budget

    /// What a method is made of; the defaults for one that is no null-space method.
    let of' (e: Entry) : NullSpaceOptions = Entry.own<NullSpaceOptions> e |> Option.defaultValue defaults

    let place: Opt<NullSpaceOptions, Place> =
        Shared.place (fun (o: NullSpaceOptions) -> o.Place) (fun v o -> { o with Place = v })

    let sides: Opt<NullSpaceOptions, Sides> =
        Opt.make
            "sides"
            "protect scores (dual), or all outputs on old inputs (input)"
            (Codec.choice [ "dual", Sides.Dual; "input", Sides.Input ])
            _.Sides
            (fun v o -> { o with Sides = v })

    let protect: Opt<NullSpaceOptions, Protect> =
        Opt.make
            "protect"
            "which entries of a change are protected"
            (Codec.choice
                [ "block", Protect.Block
                  "product", Protect.Product
                  "soft", Protect.Soft
                  "trust", Protect.Trust
                  "nothing", Protect.Nothing ])
            _.Protect
            (fun v o -> { o with Protect = v })

    let exact: Opt<NullSpaceOptions, bool> =
        Opt.make
            "exact"
            "protect one side of every old pair fully, so that no second-order change is left"
            Codec.switch
            _.Exact
            (fun v o -> { o with Exact = v })

    let partner: Opt<NullSpaceOptions, PartnerOutputs> =
        Opt.make
            "partner"
            "weights that old partner outputs are taken under"
            (Codec.choice [ "current", PartnerOutputs.Current; "at-learning", PartnerOutputs.AtLearning ])
            _.Partner
            (fun v o -> { o with Partner = v })
        |> Opt.onlyWith sides [ Sides.Dual ]

    let moments: Opt<NullSpaceOptions, Centring> =
        Opt.make
            "moments"
            "spectra of old data's second moments, or, as an ablation, without the mean, which is then not protected"
            (Codec.choice [ "uncentred", Centring.Uncentred; "centred", Centring.Centred ])
            _.Centring
            (fun v o -> { o with Centring = v })

    /// Whole output directions are free where both sides are protected by a mask in the eigenbasis.
    let freeBasis: Opt<NullSpaceOptions, FreeBasis> =
        Opt.make
            "free-basis"
            "basis of the output directions that nothing protects: each modality's own, or one shared by all that move"
            (Codec.choice [ "own", FreeBasis.Own; "shared", FreeBasis.Shared ])
            _.FreeBasis
            (fun v o -> { o with FreeBasis = v })
        |> Opt.onlyWith place [ Place.Eigenbasis ]
        |> Opt.onlyWith sides [ Sides.Dual ]
        |> Opt.onlyWith protect [ Protect.Block; Protect.Product ]

    let private shares = [ "trace:3e-4"; "trace:1e-3"; "trace:3e-3"; "trace:1e-2" ]

    let threshold: Opt<NullSpaceOptions, Threshold> =
        Shared.threshold (fun (o: NullSpaceOptions) -> o.Threshold) (fun v o -> { o with Threshold = v })
        |> Opt.onlyWith protect [ Protect.Block ]
        |> Opt.tried shares

    let partnerThreshold: Opt<NullSpaceOptions, Threshold> =
        Opt.make "partner-threshold" "cut of the partner-output spectrum" Codec.threshold _.PartnerThreshold (fun v o ->
            { o with PartnerThreshold = v })
        |> Opt.onlyWith protect [ Protect.Block ]
        |> Opt.onlyWith sides [ Sides.Dual ]
        |> Opt.triedWith threshold

    let tau: Opt<NullSpaceOptions, float> =
        Opt.make "tau" "scale of product and soft protection, in shares of the traces" Codec.positive _.Tau (fun v o ->
            { o with Tau = v })
        |> Opt.onlyWith protect [ Protect.Product; Protect.Soft ]

    let totalBudget: Opt<NullSpaceOptions, float option> =
        Shared.totalBudget (fun (o: NullSpaceOptions) -> o.TotalBudget) (fun v o -> { o with TotalBudget = v })
        |> Opt.onlyWith protect [ Protect.Trust ]

    /// A total budget takes the place of that for each step.
    let budget: Opt<NullSpaceOptions, float> =
        Shared.budget (fun (o: NullSpaceOptions) -> o.Budget) (fun v o -> { o with Budget = v })
        |> Opt.onlyWith protect [ Protect.Trust ]
        |> Opt.onlyWith totalBudget [ None ]

    /// In the order of help and of records.
    let all: AnyOpt<NullSpaceOptions> list =
        [ Opt.any place
          Opt.any sides
          Opt.any protect
          Opt.any exact
          Opt.any partner
          Opt.any moments
          Opt.any freeBasis
          Opt.any threshold
          Opt.any partnerThreshold
          Opt.any tau
          Opt.any budget
          Opt.any totalBudget ]
