namespace Cmcl

open System

/// What items are for, by their numbers in ascending order: one split for all steps of a stream.
type ItemSplit = { Train: int64[]; Validation: int64[]; Test: int64[] }

/// Splits drawn over items rather than over the rows of a step, so that nothing is tested on what another step has learned from.
[<RequireQualifiedAccess>]
module ItemSplit =

    /// The least that a split is made of: two items to learn from, one for validation, one for the test.
    [<Literal>]
    let Least = 4L

    /// Groups, in their order, until they have so many items: one that is too large for what is left is passed over. Where all are, the
    /// smallest alone. Gives these and the others.
    let private take (count: int64) (groups: int64[][]) : int64[][] * int64[][] =
        let mutable left = count

        let fits =
            groups
            |> Array.map (fun group ->
                if group.LongLength <= left then
                    left <- left - group.LongLength
                    true
                else
                    false)

        if Array.contains true fits then
            let taken, others = Array.zip groups fits |> Array.partition snd
            Array.map fst taken, Array.map fst others
        else
            let smallest = groups |> Array.indexed |> Array.minBy (snd >> Array.length) |> fst
            [| groups[smallest] |], Array.removeAt smallest groups

    /// Shares of all items for the test and for validation, at least one item of each, drawn by a seed. `families`, a name for each item,
    /// keeps items of one name together. Faults: too few items or families; less than two items to learn from.
    let draw
        (test: float)
        (validation: float)
        (seed: Seed)
        (families: string[] option)
        (items: int64)
        : Result<ItemSplit, Fault list> =
        let groups =
            match families with
            | None -> [| for i in 0L .. items - 1L -> [| i |] |]
            | Some names ->
                Array.indexed names |> Array.groupBy snd |> Array.map (fun (_, group) -> [| for i, _ in group -> int64 i |])

        let count (share: float) = max 1L (int64 (Math.Round(share * float items)))

        let tooFew tested held =
            Error
                [ Fault.Contradiction(
                      $"{tested} of {items} items for the test and {held} for validation leave {items - tested - held} to learn from",
                      "give smaller shares, so that at least two are left"
                  ) ]

        if items < Least then
            Error [ Fault.Shape("items of a stream", $"at least {Least}", string items) ]
        elif count test + count validation + 2L > items then
            tooFew (count test) (count validation)
        elif groups.Length < 3 then
            Error
                [ Fault.Shape(
                      "families of items",
                      "at least three, of which one is for validation and one for the test",
                      string groups.Length
                  ) ]
        else
            use order = Seed.permutation groups.LongLength (Seed.split "items of a stream" seed)
            let drawn = order.data<int64>().ToArray() |> Array.map (fun i -> groups[int i])
            let tested, rest = take (count test) drawn
            let held, rest = take (count validation) rest
            let all (groups: int64[][]) = groups |> Array.concat |> Array.sort

            let split =
                { Train = all rest
                  Validation = all held
                  Test = all tested }

            // Families are never parted, so that more may be held out than asked for.
            if split.Train.Length < 2 then
                tooFew split.Test.LongLength split.Validation.LongLength
            else
                Ok split

    /// The training items dealt out to so many steps, each its own share, drawn by a seed. Fault: less than two for each.
    let deal (steps: int) (seed: Seed) (split: ItemSplit) : Result<int64[] list, Fault list> =
        let n = split.Train.Length

        if n < 2 * steps then
            Error
                [ Fault.Contradiction(
                      $"{n} training items do not give each of {steps} steps two of its own",
                      "leave out --disjoint, so that every step has all of them"
                  ) ]
        else
            use order = Seed.permutation (int64 n) (Seed.split "items of each step" seed)
            let drawn = order.data<int64>().ToArray() |> Array.map (fun i -> split.Train[int i])
            Ok [ for step in 0 .. steps - 1 -> Array.sort drawn[step * n / steps .. (step + 1) * n / steps - 1] ]
