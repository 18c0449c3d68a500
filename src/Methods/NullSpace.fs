namespace Cmcl

/// Dual-sided null space: each modality's change leaves old alignment scores alone (arXiv 2503.14963, Theorem 4), by
/// projecting the gradient (as published), the update, or by training in the eigenbasis (theory.md, section 7).
[<RequireQualifiedAccess>]
module NullSpace =
    /// Values that exclude each other. Each option that the advice mentions ends the contradiction by itself.
    let private contradictions (o: NullSpaceOptions) : Fault list =
        let place = NullSpaceOptions.place.Codec.Show o.Place
        let protect = NullSpaceOptions.protect.Codec.Show o.Protect
        let set = Mention.setting

        [ if o.Place <> Place.Eigenbasis && o.Protect <> Protect.Block then
              Fault.Contradiction(
                  $"""{set "protect" protect} needs the eigenbasis, not {set "place" place}""",
                  $"""use {set "place" "eigenbasis"}, or {set "protect" "block"}"""
              )
          if o.Exact then
              let exact, inexact = set "exact" "on", set "exact" "off"

              if o.Place = Place.Gradient then
                  Fault.Contradiction(
                      $"""{exact} cannot hold with {set "place" "gradient"}, since the optimizer bends what was projected""",
                      $"""use {set "place" "eigenbasis"}, {set "place" "update"} or {inexact}"""
                  )

              if o.Partner = PartnerOutputs.AtLearning then
                  Fault.Contradiction(
                      $"""{exact} needs partner outputs as they are now, not {set "partner" "at-learning"}""",
                      $"""use {set "partner" "current"} or {inexact}"""
                  )

              if o.Sides = Sides.Input then
                  Fault.Contradiction(
                      $"""{set "sides" "input"} is exact already""",
                      $"""use {inexact}, or {set "sides" "dual"}"""
                  )

              if o.Protect <> Protect.Block then
                  Fault.Contradiction(
                      $"""{exact} needs a side that is protected as a whole, not {set "protect" protect}""",
                      $"""use {set "protect" "block"} or {inexact}"""
                  )

              if o.Centring = Centring.Centred then
                  Fault.Contradiction(
                      $"""{exact} protects all old outputs of a side, and {set "moments" "centred"} leaves their mean out""",
                      $"""use {set "moments" "uncentred"} or {inexact}"""
                  )
          if o.Centring = Centring.Centred && o.Protect = Protect.Trust then
              Fault.Contradiction(
                  $"""{set "protect" "trust"} bounds the change of whole scores, and {set "moments" "centred"} leaves the mean's part out""",
                  $"""use {set "moments" "uncentred"}, or {set "protect" "block"}"""
              ) ]

    let private make role name summary (o: NullSpaceOptions) : Method =
        let promise = if o.Protect = Protect.Nothing || o.Place = Place.Gradient then Promise.Nothing else Promise.Scores

        { Training.method name summary with
            Role = role
            Promise = promise }
        |> Method.beginning (NullSpaceStep.begin' o)
        |> Method.ending (fun _ memory heads tasks -> History.add o.Partner o.Centring heads tasks memory)

    /// A method that takes these options, and holds the others as they are.
    let private taking role name summary (options: AnyOpt<NullSpaceOptions> list) (o: NullSpaceOptions) : Spec<NullSpaceOptions> =
        { Spec.make o options (make role name summary) with
            Refuses = contradictions }

    /// DNS with all its options.
    let dns: Spec<NullSpaceOptions> =
        { taking
              Role.Subject
              "dns"
              "dual-sided null space; in the eigenbasis of old data unless place says otherwise"
              NullSpaceOptions.all
              NullSpaceOptions.defaults with
            Rates = Spec.protecting }

    let private place, sides, protect, partner, moments =
        Opt.any NullSpaceOptions.place,
        Opt.any NullSpaceOptions.sides,
        Opt.any NullSpaceOptions.protect,
        Opt.any NullSpaceOptions.partner,
        Opt.any NullSpaceOptions.moments

    /// DNS with soft protection (theory.md, section 7a).
    let soft: Spec<NullSpaceOptions> =
        { taking
              Role.Subject
              "dns-soft"
              "DNS that damps each entry by what it does to old scores (tau)"
              [ sides; partner; moments; Opt.any (NullSpaceOptions.tau |> Opt.tried [ "3e-6"; "1e-5"; "3e-5"; "1e-4" ]) ]
              { NullSpaceOptions.defaults with Protect = Protect.Soft } with
            Fixed = [ place; protect ]
            Rates = Spec.protecting }

    /// DNS with a stability budget (theory.md, section 7a).
    let trust: Spec<NullSpaceOptions> =
        { taking
              Role.Subject
              "dns-trust"
              "DNS that keeps the change of old scores within a budget a step, or a total-budget over all"
              [ sides
                partner
                Opt.any (NullSpaceOptions.budget |> Opt.tried [ "0.03"; "0.1"; "0.2"; "0.4" ])
                Opt.any NullSpaceOptions.totalBudget ]
              { NullSpaceOptions.defaults with Protect = Protect.Trust } with
            Fixed = [ place; protect ]
            Rates = Spec.protecting }

    /// The frames without a mask: what the basis alone does.
    let eigenbasisOnly: Spec<NullSpaceOptions> =
        { taking
              Role.Competitor
              "eigenbasis-only"
              "Adam in DNS's frames with nothing protected: tells the basis from the mask"
              [ partner; moments ]
              { NullSpaceOptions.defaults with Protect = Protect.Nothing } with
            Fixed = [ place; protect ] }

    /// Null-space training (Adam-NSCL, Wang et al. 2021): the optimizer's update, decay included, is kept out of the span of old inputs, so that
    /// no output on them moves: DNS with `place=update` and `sides=input`. The published cut, a factor times the smallest eigenvalue,
    /// is none of `Threshold`'s kinds; the default is DNS's.
    let nsp: Spec<NullSpaceOptions> =
        { taking
              Role.Competitor
              "nsp"
              "one-sided null space: the update is kept out of the span of old inputs (Adam-NSCL)"
              [ Opt.any NullSpaceOptions.threshold ]
              { NullSpaceOptions.defaults with
                  Place = Place.Update
                  Sides = Sides.Input } with
            Fixed = [ place; sides; protect ]
            Rates = Spec.weighing }
