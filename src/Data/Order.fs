namespace Cmcl

open TorchSharp

/// Other orders of a stream's steps, to see whether a comparison depends on the one that it came with.
[<RequireQualifiedAccess>]
module Order =
    /// How many orders so many steps have, as far as an int can count.
    let count (steps: int) : int =
        Seq.fold (fun n k -> if n > System.Int32.MaxValue / k then System.Int32.MaxValue else n * k) 1 (seq { 1..steps })

    /// The permutation of 0 … n−1 that has this number. 0 is the order as it is; each other one is drawn from its number alone, and
    /// drawn again while it is one of those before it. Fault: `BadValue` for a number that n things do not have.
    let permutation (n: int) (order: int) : int list =
        if order < 0 || order >= count n then
            Check.fail (
                Fault.BadValue("the order of the steps", $"a whole number from 0 to {count n - 1} for {n} steps", string order)
            )

        let drawn (number: int) (attempt: int) : int list =
            use scope = torch.NewDisposeScope()
            let seed = Seed.ofInt number |> Seed.split "order of steps" |> Seed.split $"attempt {attempt}"
            (Seed.permutation (int64 n) seed).data<int64>().ToArray() |> Array.map int |> List.ofArray

        let next (taken: int list list) (number: int) =
            Seq.initInfinite (drawn number) |> Seq.find (fun p -> not (List.contains p taken)) |> fun p -> p :: taken

        Seq.fold next [ [ 0 .. n - 1 ] ] (seq { 1..order }) |> List.head

    /// The stream with its steps in the order of that number (`permutation`), numbered anew; 0 is its own. Their names and data stay
    /// theirs, and no tensor is copied.
    let apply (order: int) (stream: Stream) : Stream =
        let steps = Array.ofList stream.Steps

        { stream with
            Steps = permutation steps.Length order |> List.mapi (fun i place -> { steps[place] with Index = i + 1 }) }
