namespace Cmcl

/// How a method learns, whatever the method. As in `Dns.defaults |> Learn.rate 1e-3 |> Learn.epochs 10`.
[<RequireQualifiedAccess>]
module Learn =
    /// Learning rate, 0 or more.
    let rate<'m when 'm :> TakesTrainingOptions> (value: float) (config: Config<'m>) : Config<'m> =
        Config.setTo Settings.rate value config

    /// Passes over a step's training rows, 1 or more.
    let epochs<'m when 'm :> TakesTrainingOptions> (count: int) (config: Config<'m>) : Config<'m> =
        Config.setTo Settings.epochs count config

    /// Pairs in a batch, 2 or more.
    let batch<'m when 'm :> TakesTrainingOptions> (rows: int) (config: Config<'m>) : Config<'m> =
        Config.setTo Settings.batch (BatchSize.Rows rows) config

    /// Every step as one batch.
    let wholeSteps<'m when 'm :> TakesTrainingOptions> (config: Config<'m>) : Config<'m> =
        Config.setTo Settings.batch BatchSize.All config

    /// Temperature of InfoNCE, more than 0.
    let temperature<'m when 'm :> TakesTrainingOptions> (value: float) (config: Config<'m>) : Config<'m> =
        Config.setTo Settings.temperature value config

    /// Inner products as they are, or of unit vectors.
    let scores<'m when 'm :> TakesTrainingOptions> (value: Scoring) (config: Config<'m>) : Config<'m> =
        Config.setTo Settings.scores value config

    /// InfoNCE both ways, as CLIP has it, or from a to b only.
    let symmetric<'m when 'm :> TakesTrainingOptions> (value: bool) (config: Config<'m>) : Config<'m> =
        Config.setTo Settings.symmetric value config

    /// AdamW (0.9, 0.999, 1e-8) or plain gradient descent.
    let optimiser<'m when 'm :> TakesTrainingOptions> (value: Optimiser) (config: Config<'m>) : Config<'m> =
        Config.setTo Settings.optimiser value config

    /// Decoupled weight decay, 0 or more; biases are exempt.
    let weightDecay<'m when 'm :> TakesTrainingOptions> (value: float) (config: Config<'m>) : Config<'m> =
        Config.setTo Settings.weightDecay value config

    /// How the rate falls over a step.
    let schedule<'m when 'm :> TakesTrainingOptions> (value: Schedule) (config: Config<'m>) : Config<'m> =
        Config.setTo Settings.schedule value config

    /// Largest norm of the gradients of both heads together; None does not clip.
    let clip<'m when 'm :> TakesTrainingOptions> (norm: float option) (config: Config<'m>) : Config<'m> =
        Config.setTo Settings.clip norm config

    /// A new order of rows each epoch, or their own.
    let shuffle<'m when 'm :> TakesTrainingOptions> (value: bool) (config: Config<'m>) : Config<'m> =
        Config.setTo Settings.shuffle value config

    /// Columns beside the features, drawn by the run's seed; None for the features as they came. As in `Learn.features (Some(Lift.relu 512))`.
    let features<'m when 'm :> TakesFeatures> (value: Lift option) (config: Config<'m>) : Config<'m> =
        Config.setTo Settings.features value config

    /// What weights and features are kept in.
    let dtype<'m when 'm :> TakesTrainingOptions> (value: Dtype) (config: Config<'m>) : Config<'m> =
        Config.setTo Settings.dtype value config

/// Dual-sided null space, and what it is made of. As in `Dns.defaults |> Dns.place Place.Update |> Dns.exact true`.
[<RequireQualifiedAccess>]
module Dns =
    /// DNS with all its options: in the eigenbasis of old data, where the projection is a mask, unless `place` says otherwise.
    let defaults: Config<DnsOptions> = Config.ofName "dns"

    /// Each entry damped by what it does to old scores (theory.md, section 7a), with the stream's settings for that.
    let soft: Config<DnsSoftOptions> = Config.ofName "dns-soft"

    /// Old scores kept within a budget (theory.md, section 7a), with the stream's settings for that.
    let trust: Config<DnsTrustOptions> = Config.ofName "dns-trust"

    /// The eigenbasis without a mask: tells what the basis does from what the mask does.
    let eigenbasisOnly: Config<EigenbasisOptions> = Config.ofName "eigenbasis-only"

    /// One-sided null space: the update is kept out of the span of old inputs (Adam-NSCL).
    let oneSided: Config<OneSidedOptions> = Config.ofName "nsp"

    /// What the published code does.
    let published: Config<OneSidedOptions> = Config.ofName "reference"

    /// Project the gradient (the paper), the optimizer's update, or train in the eigenbasis.
    let place<'m when 'm :> TakesPlace> (value: Place) (config: Config<'m>) : Config<'m> =
        Config.setTo NullSpaceOptions.place value config

    /// Protect scores (dual), or all outputs on old inputs (input).
    let sides<'m when 'm :> TakesSides> (value: Sides) (config: Config<'m>) : Config<'m> =
        Config.setTo NullSpaceOptions.sides value config

    /// Protect one side of every old pair fully, so that no second-order change is left.
    let exact<'m when 'm :> TakesExact> (value: bool) (config: Config<'m>) : Config<'m> =
        Config.setTo NullSpaceOptions.exact value config

    /// The weights that old partner outputs are taken under: those now, or those at learning time (the paper).
    let partner<'m when 'm :> TakesPartner> (value: PartnerOutputs) (config: Config<'m>) : Config<'m> =
        Config.setTo NullSpaceOptions.partner value config

    /// Spectra of old data's second moments, or, as an ablation, without the mean, which is then not protected.
    let moments<'m when 'm :> TakesMoments> (value: Centring) (config: Config<'m>) : Config<'m> =
        Config.setTo NullSpaceOptions.moments value config

    /// The basis of the output directions that nothing protects.
    let freeBasis<'m when 'm :> TakesFreeBasis> (value: FreeBasis) (config: Config<'m>) : Config<'m> =
        Config.setTo NullSpaceOptions.freeBasis value config

    /// The cut of the input spectrum.
    let threshold<'m when 'm :> TakesThreshold> (value: Threshold) (config: Config<'m>) : Config<'m> =
        Config.setTo NullSpaceOptions.threshold value config

    /// The scale of soft and product protection, in shares of the traces.
    let tau<'m when 'm :> TakesTau> (value: float) (config: Config<'m>) : Config<'m> =
        Config.setTo NullSpaceOptions.tau value config

    /// The relative change of old scores that trust allows a step.
    let budget<'m when 'm :> TakesBudget> (value: float) (config: Config<'m>) : Config<'m> =
        Config.setTo NullSpaceOptions.budget value config

    /// The relative change of every old step's scores that trust allows over the whole stream.
    let totalBudget<'m when 'm :> TakesBudget> (value: float) (config: Config<'m>) : Config<'m> =
        Config.setTo NullSpaceOptions.totalBudget (Some value) config

    /// Which entries of a change are protected, with the numbers that belong to it, so that no other can be set beside them.
    /// Example: `Dns.defaults |> Dns.protect (Protection.Soft 3e-5)`.
    let protect<'m when 'm :> TakesProtection> (value: Protection) (config: Config<'m>) : Config<'m> =
        let kind protect = Config.setTo NullSpaceOptions.protect protect

        match value with
        | Protection.Nothing -> kind Protect.Nothing config
        | Protection.Block(inputs, partners) ->
            kind Protect.Block config
            |> Config.setTo NullSpaceOptions.threshold inputs
            |> Config.setTo NullSpaceOptions.partnerThreshold partners
        | Protection.Product tau -> kind Protect.Product config |> Config.setTo NullSpaceOptions.tau tau
        | Protection.Soft tau -> kind Protect.Soft config |> Config.setTo NullSpaceOptions.tau tau
        | Protection.Trust epsilon -> kind Protect.Trust config |> Config.setTo NullSpaceOptions.budget epsilon

    /// The block of one cut on both sides: everything above the threshold is protected.
    /// Example: `Dns.defaults |> Dns.block (Threshold.trace 3e-3 |> Check.get)`.
    let block<'m when 'm :> TakesProtection> (cut: Threshold) (config: Config<'m>) : Config<'m> =
        protect (Protection.Block(cut, cut)) config

/// What DNS is held against: bounds, fine-tuning, the paper's rivals. Options of their own by `Config.setTo`, as in
/// `Baseline.gem |> Config.setTo Gem.margin 0.2`, or by `Config.set`.
[<RequireQualifiedAccess>]
module Baseline =
    /// The encoders as they came.
    let zeroShot: Config<NoOptions> = Config.ofName "zero-shot"

    /// Fine-tuning, step after step, with nothing against forgetting.
    let vanilla: Config<OnlyTrainingOptions> = Config.ofName "vanilla"

    /// Starts again at every step: what each step alone can learn.
    let individual: Config<OnlyTrainingOptions> = Config.ofName "individual"

    /// All steps' data at once.
    let joint: Config<OnlyTrainingOptions> = Config.ofName "joint"

    let gem: Config<OnlyTrainingOptions> = Config.ofName "gem"
    let der: Config<OnlyTrainingOptions> = Config.ofName "der"
    let derpp: Config<OnlyTrainingOptions> = Config.ofName "derpp"
    let ewc: Config<OnlyTrainingOptions> = Config.ofName "ewc"
    let co2l: Config<OnlyTrainingOptions> = Config.ofName "co2l"
    let cFlat: Config<OnlyTrainingOptions> = Config.ofName "c-flat"
    let cila: Config<OnlyTrainingOptions> = Config.ofName "cila"
    let momentReplay: Config<OnlyTrainingOptions> = Config.ofName "moment-replay"

    /// Heads after each step merged from those of a host, as in `Baseline.merge |> Config.setTo Merge.rule MergeRule.Dual`.
    let merge: Config<OnlyTrainingOptions> = Config.ofName "merge"

    /// A host that begins every step at the closed form's heads, as in `Baseline.polish |> Config.setTo Polish.host "joint"`.
    let polish: Config<OnlyTrainingOptions> = Config.ofName "polish"

    /// A plain host that trains in the eigenbasis of data.
    let eigen: Config<OnlyTrainingOptions> = Config.ofName "eigen"

/// Heads from moments, in one solve; nothing is trained, so none of `Learn` applies. Options by `Config.setTo`, as in
/// `Closed.cca |> Config.setTo ClosedForm.ridge 0.2`.
[<RequireQualifiedAccess>]
module Closed =
    /// Multiset canonical correlations of all that was seen.
    let cca: Config<SolvedOptions> = Config.ofName "cca"

    /// DNS in one solve.
    let dns: Config<SolvedOptions> = Config.ofName "dns-closed"
