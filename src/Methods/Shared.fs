namespace Cmcl

/// Where a projection is made: on the gradient before the optimizer (the paper's), on the optimizer's update, or nowhere, because training
/// happens in the eigenbasis, where the projection is a mask.
[<RequireQualifiedAccess>]
type Place =
    | Gradient
    | Update
    | Eigenbasis

/// Options that methods share, for a place in each one's own record.
[<RequireQualifiedAccess>]
module internal Shared =
    let place (get: 'o -> Place) (set: Place -> 'o -> 'o) : Opt<'o, Place> =
        Opt.make
            "place"
            "project the gradient, the update, or train in the eigenbasis"
            (Codec.choice [ "gradient", Place.Gradient; "update", Place.Update; "eigenbasis", Place.Eigenbasis ])
            get
            set

    /// Which method a method is put around.
    let host (get: 'o -> string) (set: string -> 'o -> 'o) : Opt<'o, string> =
        Opt.make
            "host"
            "the method whose training is changed"
            (Codec.make "a method that trains" id (fun given -> if given = "" then None else Some given))
            get
            set

    let ridge (get: 'o -> float) (set: float -> 'o -> 'o) : Opt<'o, float> =
        Opt.make "ridge" "γ, added to each modality's moment in shares of its mean diagonal" Codec.notNegative get set

    let threshold (get: 'o -> Threshold) (set: Threshold -> 'o -> 'o) : Opt<'o, Threshold> =
        Opt.make "threshold" "cut of the input spectrum" Codec.threshold get set

    let buffer (get: 'o -> int) (set: int -> 'o -> 'o) : Opt<'o, int> =
        Opt.make "buffer" "pairs of old steps that are kept in all" (Codec.whole 2) get set

    let lambda (get: 'o -> float) (set: float -> 'o -> 'o) : Opt<'o, float> =
        Opt.make "lambda" "strength of what is added to InfoNCE" Codec.notNegative get set

    let budget (get: 'o -> float) (set: float -> 'o -> 'o) : Opt<'o, float> =
        Opt.make "budget" "relative change of old scores that a step may make" Codec.notNegative get set

    let totalBudget (get: 'o -> float option) (set: float option -> 'o -> 'o) : Opt<'o, float option> =
        Opt.make
            "total-budget"
            "relative change of every old step's scores over the whole stream, spread over its steps"
            Codec.positiveOrOff
            get
            set
