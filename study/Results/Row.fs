namespace Cmcl

open System
open System.Globalization

/// When a figure was taken, and of whose data.
[<RequireQualifiedAccess>]
type When =
    /// One task's data after one step. Step 0 is before training; a task has the number of the step that trains it.
    | After of step: int * task: int
    /// All tasks after the last step.
    | Final

[<RequireQualifiedAccess>]
module When =
    /// No stream has as many steps; a table is read that somebody may have mangled, and matrices are as long as their last step.
    [<Literal>]
    let private MostSteps = 1_000_000

    /// The columns `step` and `task` of a table: two numbers, or `final` and `all`. Example: `When.texts When.Final = ("final", "all")`.
    let texts (w: When) : string * string =
        match w with
        | When.After(step, task) -> string step, string task
        | When.Final -> "final", "all"

    /// What two columns say; None for anything else. Example: `When.parse "2" "1" = Some(When.After(2, 1))`.
    let parse (step: string) (task: string) : When option =
        let index (text: string) =
            match Int32.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture) with
            | true, i when i <= MostSteps -> Some i
            | _ -> None

        match step, task with
        | "final", "all" -> Some When.Final
        | _ -> Option.map2 (fun step task -> When.After(step, task)) (index step) (index task)

/// One figure of a run, a line of `results.csv`.
type Row =
    {
        Stream: string
        /// The method's label, such as `dns` or `vanilla[lr=1e-3]`.
        Method: string
        Seed: int
        When: When
        /// Such as `r10`, `acc`, `deviation_rel`; rates are fractions.
        Metric: string
        Value: float
    }

    /// After which step it was taken; None for a final figure.
    member r.Step: int option =
        match r.When with
        | When.After(step, _) -> Some step
        | When.Final -> None

    /// Whose data it is of; None for a final figure.
    member r.Task: int option =
        match r.When with
        | When.After(_, task) -> Some task
        | When.Final -> None

/// What a method's label says.
[<RequireQualifiedAccess>]
module Label =
    /// The name of the method behind a label: `vanilla` of `vanilla[lr=1e-3]`.
    let family (label: string) : string = label.Split('[')[0]

/// The roles of a result's methods, by label.
type Roles = Map<string, Role>

[<RequireQualifiedAccess>]
module Roles =
    /// In results that were written before roles were: what the method of that name is here.
    let private before (label: string) : Role =
        match Registry.find (Label.family label) with
        | Ok e -> e.Method.Role
        | Error _ -> Role.Competitor

    let ofPlans (plans: Plan list) : Roles = Map [ for p in plans -> p.Label, p.Method.Role ]

    let find (roles: Roles) (label: string) : Role = Map.tryFind label roles |> Option.defaultWith (fun () -> before label)

    /// Is it shown for comparison only?
    let isBound (roles: Roles) (label: string) : bool = Role.isBound (find roles label)

    /// Is only what it learned to be read, and not what it kept?
    let startsAgain (roles: Roles) (label: string) : bool = find roles label = Role.Restart

    /// Of labels with a role the first without options, or else the first.
    let first (roles: Roles) (role: Role) (labels: string list) : string option =
        let own = labels |> List.filter (fun label -> find roles label = role)
        own |> List.tryFind (fun label -> label = Label.family label) |> Option.orElse (List.tryHead own)

[<RequireQualifiedAccess>]
module Row =
    /// The methods of a run in the order of their rows. As in `rows |> Row.methods |> List.length`.
    let methods (rows: Row list) : string list = rows |> List.map _.Method |> List.distinct

    /// The result matrix of a metric from the rows of one method and one seed: a column for every task that has the metric,
    /// trained by the step of its own number; its last row is the last step that was measured. None without such rows.
    let matrix (metric: string) (rows: Row list) : ResultMatrix option =
        let entries =
            rows
            |> List.filter (fun r -> r.Metric = metric)
            |> List.choose (fun r ->
                match r.When with
                | When.After(step, task) -> Some((step, task), r.Value)
                | When.Final -> None)

        if entries.IsEmpty then
            None
        else
            let values = Map.ofList entries
            let last = entries |> List.map (fst >> fst) |> List.max

            entries
            |> List.map (fst >> snd)
            |> List.distinct
            |> List.sort
            |> List.map (fun task ->
                { Task = string task
                  LearnedAt = task
                  Values = Array.init (last + 1) (fun step -> Map.tryFind (step, task) values) })
            |> Transfer.matrix last
            |> Result.toOption
