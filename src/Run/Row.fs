namespace Cmcl

open System
open System.Globalization

/// One figure of a run, a line of `results.csv`.
type Row =
    {
        Stream: string
        /// The method's label, such as `dns` or `vanilla[lr=1e-3]`.
        Method: string
        Seed: int
        /// After which step: `0` (before training) … `T`, or `final`.
        Step: string
        /// Whose data: the number of the step that trains it, or `all`.
        Task: string
        /// Such as `r10`, `acc`, `deviation_rel`; rates are fractions.
        Metric: string
        Value: float
    }

/// What a method's label says.
[<RequireQualifiedAccess>]
module Label =
    /// The name of the method behind a label: `vanilla` of `vanilla[lr=1e-3]`.
    let family (label: string) : string = label.Split('[')[0]

    /// Is it shown for comparison only? `zero-shot` never trains, `joint` and `individual` are not continual.
    let isReference (label: string) : bool = List.contains (family label) [ "zero-shot"; "joint"; "individual" ]

    /// Does it start again at every step, so that only what it learned is to be read, and not what it kept?
    let startsAgain (label: string) : bool = family label = "individual"

[<RequireQualifiedAccess>]
module Row =
    /// The number of a step or task as a row writes it; None for `final` and `all`.
    let index (text: string) : int option =
        match Int32.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture) with
        | true, i -> Some i
        | _ -> None

    /// The result matrix of a metric from the rows of one method and one seed: a column for every task that has the metric,
    /// trained by the step of its own number; its last row is the last step that was measured. None without such rows.
    let matrix (metric: string) (rows: Row list) : ResultMatrix option =
        let entries =
            rows
            |> List.filter (fun r -> r.Metric = metric)
            |> List.choose (fun r ->
                match index r.Step, index r.Task with
                | Some step, Some task -> Some((step, task), r.Value)
                | _ -> None)

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
