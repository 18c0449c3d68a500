namespace Cmcl

open System.Collections.Generic
open TorchSharp

/// Other orders of a stream's steps, to see whether a comparison depends on the one that it came with.
[<RequireQualifiedAccess>]
module Order =
    /// How many orders so many steps have, as far as an int can count.
    let count (steps: int) : int =
        Seq.fold (fun n k -> if n > System.Int32.MaxValue / k then System.Int32.MaxValue else n * k) 1 (seq { 1..steps })

    let private drawn (n: int) (number: int) (attempt: int) : int list =
        use scope = torch.NewDisposeScope()
        let seed = Seed.ofInt number |> Seed.split "order of steps" |> Seed.split $"attempt {attempt}"
        (Seed.permutation (int64 n) seed).data<int64>().ToArray() |> Array.map int |> List.ofArray

    /// All permutations of 0 … n−1 by their numbers. 0 is the order as it is; each other one is drawn from its number alone, and drawn
    /// again while it is one of those before it. So the first so many take as many draws, made as they are asked for.
    /// Example: `Order.permutations 3 |> Seq.length = 6`.
    let permutations (n: int) : seq<int list> =
        seq {
            let taken = HashSet [ [ 0 .. n - 1 ] ]
            [ 0 .. n - 1 ]

            for number in 1 .. count n - 1 do
                Seq.initInfinite (drawn n number) |> Seq.find taken.Add
        }

    /// The one that has this number. Fault: `BadValue` for a number that n things do not have.
    let permutation (n: int) (order: int) : int list =
        if order < 0 || order >= count n then
            Check.fail (
                Fault.BadValue("the order of the steps", $"a whole number from 0 to {count n - 1} for {n} steps", string order)
            )

        Seq.item order (permutations n)

    let private arranged (stream: Stream) (places: int list) : Stream =
        let steps = Array.ofList stream.Steps

        { stream with
            Steps = places |> List.mapi (fun i place -> { steps[place] with Index = i + 1 }) }

    /// The stream with its steps in the order of that number (`permutation`), numbered anew; 0 is its own. Their names and data stay
    /// theirs, and no tensor is copied.
    let apply (order: int) (stream: Stream) : Stream = permutation stream.Steps.Length order |> arranged stream

    /// The same of its first so many orders, each drawn once; fewer where the steps have no more.
    let first (orders: int) (stream: Stream) : Stream list =
        permutations stream.Steps.Length |> Seq.truncate orders |> Seq.map (arranged stream) |> List.ofSeq
