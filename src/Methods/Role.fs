namespace Cmcl

/// What a method's figures are to be read as.
[<RequireQualifiedAccess>]
type Role =
    /// Fine-tuning without protection: what others are to improve on.
    | Baseline
    /// It learns step after step, and is compared with the others.
    | Competitor
    /// A competitor that this toolkit is about.
    | Subject
    /// A bound: it does not train.
    | Floor
    /// A bound: it trains on all steps' data at once.
    | Ceiling
    /// A bound: it starts again at every step, so that what it learned counts, and not what it kept.
    | Restart

/// What a method promises of what was learned before.
[<RequireQualifiedAccess>]
type Promise =
    /// That old scores stand: an index that is in use stays valid. Read deviation, certificates, budgets.
    | Scores
    /// That old pairs are found as well as before, wherever their scores go. Read recall and BWT.
    | Performance
    /// Neither, or by a penalty or replay whose strength decides.
    | Nothing

[<RequireQualifiedAccess>]
module Role =
    let private names =
        [ Role.Baseline, "baseline"
          Role.Competitor, "competitor"
          Role.Subject, "subject"
          Role.Floor, "floor"
          Role.Ceiling, "ceiling"
          Role.Restart, "restart" ]

    /// As files write it.
    let name (role: Role) : string = List.find (fst >> (=) role) names |> snd

    /// None for a text that names none.
    let parse (text: string) : Role option = names |> List.tryFind (snd >> (=) text) |> Option.map fst

    /// Is it shown for comparison only?
    let isBound (role: Role) : bool = List.contains role [ Role.Floor; Role.Ceiling; Role.Restart ]

    /// That of a method which changes how another trains: a bound stays one, any other competes.
    let around (host: Role) : Role = if isBound host then host else Role.Competitor
