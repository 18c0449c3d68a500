namespace Cmcl

open System.Collections.Generic

/// Sets of numbers 0, 1, … that grow together. Every number points to an earlier one of its set, the first of a set to itself.
type internal Sets() =
    let parent = List<int>()

    /// A set of one more number, and that number.
    member _.Add() : int =
        parent.Add parent.Count
        parent.Count - 1

    /// The first number of a number's set.
    member s.First(i: int) : int =
        if parent[i] = i then
            i
        else
            parent[i] <- parent[parent[i]]
            s.First parent[i]

    member s.Join (a: int) (b: int) : unit =
        let a, b = s.First a, s.First b
        parent[max a b] <- min a b
