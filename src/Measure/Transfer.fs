namespace Cmcl

open System

/// One column of a result matrix: the metric of one task after every step.
type TaskColumn =
    {
        Task: string
        /// s(j): the step that trains this task, 1 for the first.
        LearnedAt: int
        /// T + 1 values, row 0 before any training; None (or NaN) where nothing was measured.
        Values: float option[]
    }

/// R: rows 0..T (after that many steps) by columns (tasks). Made by `Transfer.matrix`, which checks the sizes.
type ResultMatrix =
    private
        { Last: int
          Tasks: TaskColumn list }

    /// T: the number of the last row.
    member m.Steps = m.Last
    member m.Columns = m.Tasks

/// A mean, and over how many terms it was taken.
[<Struct>]
type Average = { Value: float; Terms: int }

/// A mean over seeds. `Sd` is the sample standard deviation (divisor n − 1), None for a single value.
type Spread = { Mean: float; Sd: float option; Count: int }

/// What a result matrix says about learning and forgetting. Columns weigh the same, values keep their unit (rates stay
/// fractions), and every function tells how many terms it averaged. None means that there is nothing to average *or that
/// an entry that the formula needs was not measured*: a mean over whatever happens to be there would not be comparable.
///
/// R[i, j] is the metric of task j after step i, T the last step, s(j) the step that trains j. Where sources differ, the
/// name says which convention it is.
[<RequireQualifiedAccess>]
module Transfer =
    /// A result matrix of rows 0..`steps`. Faults: a column of another length, or one trained before step 1.
    let matrix (steps: int) (columns: TaskColumn list) : Result<ResultMatrix, Fault list> =
        let faults =
            [ for c in columns do
                  if c.Values.Length <> steps + 1 then
                      Fault.Shape($"column '{c.Task}'", $"{steps + 1} values (rows 0 to {steps})", $"{c.Values.Length}")

                  if c.LearnedAt < 1 then
                      Fault.BadValue($"the step that trains '{c.Task}'", "1 or more", $"{c.LearnedAt}") ]

        let measured = Option.filter Double.IsFinite

        if faults.IsEmpty then
            Ok
                { Last = steps
                  Tasks = columns |> List.map (fun c -> { c with Values = Array.map measured c.Values }) }
        else
            Error faults

    /// The matrix as it stood after an earlier step (rows 0..`step`), so that every figure below has a course over the steps.
    let upTo (step: int) (m: ResultMatrix) : ResultMatrix =
        let last = max 0 (min step m.Last)

        { Last = last
          Tasks = m.Tasks |> List.map (fun c -> { c with Values = Array.take (last + 1) c.Values }) }

    let private mean (terms: float option list) : Average option =
        if terms.IsEmpty || List.exists Option.isNone terms then
            None
        else
            Some
                { Value = List.averageBy Option.get terms
                  Terms = terms.Length }

    let private minus = Option.map2 (fun (x: float) y -> x - y)

    let private last (m: ResultMatrix) (c: TaskColumn) = c.Values[m.Last]

    let private over (which: TaskColumn -> bool) (term: TaskColumn -> float option) (m: ResultMatrix) =
        m.Tasks |> List.filter which |> List.map term |> mean

    let private largest (first: int) (final: int) (c: TaskColumn) : float option =
        [ for i in first..final -> c.Values[i] ] |> List.reduce (Option.map2 max)

    /// mean_j R[T, j]: what the model is worth in the end (GEM's ACC; the paper's Acc and R@k).
    let final (m: ResultMatrix) : Average option = over (fun _ -> true) (last m) m

    /// mean_j R[s(j), j] over the tasks trained: how well each was learned when its turn came (plasticity).
    let learned (m: ResultMatrix) : Average option = over (fun c -> c.LearnedAt <= m.Last) (fun c -> c.Values[c.LearnedAt]) m

    let private sinceLearned m (c: TaskColumn) = minus (last m c) c.Values[c.LearnedAt]

    /// Backward transfer, mean over {j : s(j) < T} of R[T, j] − R[s(j), j], as GEM's paper (arXiv 1706.08840) defines it:
    /// negative is forgetting. The last task, whose term is zero by construction, is not counted.
    let bwt (m: ResultMatrix) : Average option = over (fun c -> c.LearnedAt < m.Last) (sinceLearned m) m

    /// The same over all trained tasks, the last one's zero included, as GEM's code has it. `final` = `learned` + this,
    /// when every column is trained within the T steps.
    let bwtAllColumns (m: ResultMatrix) : Average option = over (fun c -> c.LearnedAt <= m.Last) (sinceLearned m) m

    /// mean over {j : s(j) < T} of max_{s(j) ≤ i < T} R[i, j] − R[T, j] (Chaudhry et al., arXiv 1801.10112): the fall from the
    /// best earlier value; negative where the last step improved on all before. Never less than −`bwt`.
    let forgetting (m: ResultMatrix) : Average option =
        over (fun c -> c.LearnedAt < m.Last) (fun c -> minus (largest c.LearnedAt (m.Last - 1) c) (last m c)) m

    /// `forgetting` with the last row among those that the maximum is taken over, so never negative (Mammoth, PyCIL).
    let forgettingClipped (m: ResultMatrix) : Average option =
        over (fun c -> c.LearnedAt < m.Last) (fun c -> minus (largest c.LearnedAt m.Last c) (last m c)) m

    /// Forward transfer, mean over {j : 1 < s(j) ≤ T} of R[s(j)−1, j] − R[0, j]: GEM's formula with the untrained model as
    /// baseline, which here is a pretrained and aligned one, not a random one.
    let fwt (m: ResultMatrix) : Average option =
        over (fun c -> c.LearnedAt > 1 && c.LearnedAt <= m.Last) (fun c -> minus c.Values[c.LearnedAt - 1] c.Values[0]) m

    /// mean_j R[T, j] − R[0, j]: what all the training changed against zero-shot.
    let zeroShotShift (m: ResultMatrix) : Average option = over (fun _ -> m.Last > 0) (fun c -> minus (last m c) c.Values[0]) m

    /// mean over steps i ≥ 1 of the mean over {j : s(j) ≤ i} of R[i, j] (PyCIL's "average accuracy"). Its terms are the steps
    /// after which at least one task of this metric was learned.
    let stepAverage (m: ResultMatrix) : Average option =
        [ for i in 1 .. m.Last do
              match m.Tasks |> List.filter (fun c -> c.LearnedAt <= i) with
              | [] -> ()
              | seen -> seen |> List.map (fun c -> c.Values[i]) |> mean |> Option.map _.Value ]
        |> mean

    /// Mean, sample standard deviation (n − 1) and n of one figure over seeds; None for no seeds.
    /// Example: `Transfer.meanSd [ 1.0; 3.0 ]` has mean 2 and standard deviation √2.
    let meanSd (values: float list) : Spread option =
        match values with
        | [] -> None
        | [ x ] -> Some { Mean = x; Sd = None; Count = 1 }
        | x :: others when others |> List.forall ((=) x) -> Some { Mean = x; Sd = Some 0.0; Count = values.Length }
        | _ ->
            let average = List.average values
            let squares = values |> List.sumBy (fun x -> (x - average) ** 2.0)

            Some
                { Mean = average
                  Sd = Some(sqrt (squares / float (values.Length - 1)))
                  Count = values.Length }
