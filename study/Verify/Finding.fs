namespace Cmcl

/// A condition as one run met it at one place.
type Finding =
    {
        /// The plan's label.
        Run: string
        Condition: Condition
        /// For what is only approximate in general: the value up to which it counts as exact.
        ExactTo: float option
    }

    /// `yes` or `no`; for what is approximate in general and within its bound, `exact` or `approximate`.
    member f.Verdict: string =
        match f.ExactTo with
        | _ when not f.Condition.Holds -> "no"
        | None -> "yes"
        | Some limit when f.Condition.Value <= limit -> "exact"
        | Some _ -> "approximate"

    /// Value over what it may be, or for what is approximate over what would be exact; infinite where it may be nothing and is
    /// something, or is no number.
    member f.Share: float =
        let c = f.Condition

        let limit =
            match f.ExactTo with
            | Some exact when c.Holds -> exact
            | _ -> c.Bound + c.Tolerance

        if System.Double.IsNaN c.Value || System.Double.IsNaN limit then infinity
        elif limit > 0.0 then c.Value / limit
        elif c.Value <= limit then 0.0
        else infinity

[<RequireQualifiedAccess>]
module Finding =
    /// What a run found of a list of conditions.
    let ofRun (trace: Trace) (conditions: Condition list) : Finding list =
        [ for c in conditions -> { Run = trace.Plan.Label; Condition = c; ExactTo = None } ]

/// All places of one condition: a line of the printed table.
type Verdict =
    {
        Name: string
        Must: bool
        /// The place with the largest share.
        Worst: Finding
        Places: int
        Held: int
    }

[<RequireQualifiedAccess>]
module Verdict =
    /// A line for each name in the order of first appearance: first what must hold, then what is reported.
    let ofFindings (findings: Finding list) : Verdict list =
        [ for (name, must), all in findings |> List.groupBy (fun f -> f.Condition.Name, f.Condition.Must) ->
              { Name = name
                Must = must
                Worst = all |> List.maxBy _.Share
                Places = all.Length
                Held = all |> List.filter _.Condition.Holds |> List.length } ]
        |> List.sortBy (fun v -> not v.Must)

    /// How it ends: `holds` or `broken` for what must hold, else `exact`, `approximate`, `yes` or `no`.
    let word (v: Verdict) : string =
        match v.Must with
        | true when v.Held = v.Places -> "holds"
        | true -> "broken"
        | false -> v.Worst.Verdict
