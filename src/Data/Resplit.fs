namespace Cmcl

open System
open System.Collections.Generic
open System.Security.Cryptography
open System.Text
open System.Text.RegularExpressions
open TorchSharp

/// Other splits of a stream's items into training, validation and test rows, to see how much of a figure is the luck of one split. An item
/// is all that belongs together, over all steps: rows that match, rows of one group, and whatever shares a row with them. Banks of as many rows
/// that are matched row by row are taken to be of the same items, also where no step matches them with each other. An item is in one part of
/// every step that it is in. Features, prototypes and the heads before any step stay as they are, so they must not have been fitted to rows of
/// the steps.
[<RequireQualifiedAccess>]
module Resplit =
    /// How a stream with another split is called, and named on a command line; 0 is the split that it came with.
    /// Example: `Resplit.name "emoji" 2 = "emoji[split=2]"`.
    let name (stream: string) (number: int) : string = if number = 0 then stream else $"{stream}[split={number}]"

    /// The stream and the number in such a name. Example: `Resplit.parse "emoji[split=2]" = ("emoji", 2)`.
    let parse (name: string) : string * int =
        match Regex.Match(name, @"^(.+)\[split=(0|[1-9]\d{0,8})\]$", RegexOptions.Singleline) with
        | m when m.Success -> m.Groups[1].Value, int m.Groups[2].Value
        | _ -> name, 0

    let private parts = [ Split.Train; Split.Validation; Split.Test ]

    /// The item of each number of a step, for every step.
    let private items (stream: Stream) : Dictionary<int64, int>[] =
        let sets = Sets()
        let numbers = Dictionary<struct (string * int64), int>()

        /// The number of a row among all rows of all banks.
        let number (bank: string) (row: int64) : int =
            match numbers.TryGetValue(struct (bank, row)) with
            | true, i -> i
            | _ ->
                let i = sets.Add()
                numbers[struct (bank, row)] <- i
                i

        let each (f: int -> int64 -> int64 -> int64 -> unit) =
            for s, step in List.indexed stream.Steps do
                for part in parts do
                    let numbers = Stream.rows part step
                    let struct (a, b) = Stream.matched step numbers
                    Array.iteri (fun i number -> f s number a[i] b[i]) numbers

        let steps = Array.ofList stream.Steps

        each (fun s _ a b ->
            let step = steps[s]
            let item = number step.A.Name a
            sets.Join item (number step.B.Name b)

            if step.Pairs.IsNone then
                // In the place of a bank: the items of so many rows.
                sets.Join item (number $"\000{step.A.Features.shape[0]}" a))

        for KeyValue(bank, groups) in stream.Groups do
            let first = Dictionary<int64, int>()

            for row in 0L .. groups.LongLength - 1L do
                match numbers.TryGetValue(struct (bank, row)) with
                | true, i ->
                    match first.TryGetValue groups[int row] with
                    | true, other -> sets.Join other i
                    | _ -> first[groups[int row]] <- i
                | _ -> ()

        let found = [| for _ in steps -> Dictionary<int64, int>() |]
        each (fun s place a _ -> found[s][place] <- sets.First(number steps[s].A.Name a))
        found

    /// What an item is in: for each of its steps the part.
    let private patterns (stream: Stream) (items: Dictionary<int64, int>[]) =
        let found = SortedDictionary<int, Map<int, Split>>()
        let weight = Dictionary<int, int>()

        let faults =
            [ for s, step in List.indexed stream.Steps do
                  for part in parts do
                      for number in Stream.rows part step do
                          let item = items[s][number]
                          let own = found.GetValueOrDefault(item, Map.empty)
                          weight[item] <- 1 + weight.GetValueOrDefault(item, 0)

                          match Map.tryFind s own with
                          | Some other when other <> part ->
                              $"step '{step.Name}' has row {number}, among its {part} rows, and others of the same item among its {other} rows"
                          | _ -> found[item] <- Map.add s part own ]

        match faults with
        | [] -> Ok(found, weight)
        | first :: _ ->
            Error
                [ Fault.Contradiction(
                      first,
                      "for other splits, rows that match, that share a row with such or that are of one group have to be in one part of a step"
                  ) ]

    /// Items that are in the same steps change places: each kind of part gets items, in a drawn order, until it has as many rows as it had.
    let private drawn (number: int) (found: SortedDictionary<int, Map<int, Split>>) (weight: Dictionary<int, int>) =
        use _ = torch.NewDisposeScope()
        let seed = Seed.ofInt number |> Seed.split "split of items"
        let given = Dictionary<int, Map<int, Split>>()
        let steps (pattern: Map<int, Split>) = String.Join(",", pattern.Keys)

        for together, items in found |> Seq.map (|KeyValue|) |> List.ofSeq |> List.groupBy (snd >> steps) do
            let order = (Seed.permutation (int64 items.Length) (Seed.split together seed)).data<int64>().ToArray()
            let mutable next = 0

            let kinds =
                [ for pattern, own in List.groupBy snd items -> pattern, own |> List.sumBy (fun (item, _) -> weight[item]) ]
                |> List.sortBy (fun (pattern, rows) -> rows, pattern)

            let place = Array.ofList items

            for i, (pattern, rows) in List.indexed kinds do
                let isLast = i = kinds.Length - 1
                let mutable taken = 0

                while next < place.Length && (isLast || taken < rows) do
                    let item = fst place[int order[next]]
                    given[item] <- pattern
                    taken <- taken + weight[item]
                    next <- next + 1

        given

    let private lacks (step: Step) : Fault list =
        [ for part in parts do
              let numbers = Stream.rows part step

              if numbers.Length = 0 then
                  Fault.BadValue($"another split of step '{step.Name}'", $"at least one item for its {part} rows", "none")

              match step.Accuracy with
              | Some accuracy when part <> Split.Train ->
                  let struct (a, b) = Stream.matched step numbers
                  let rows = if accuracy.Items = step.A.Name then a else b

                  if rows |> Array.forall (fun row -> accuracy.Labels[int row] < 0L) then
                      Fault.BadValue($"another split of step '{step.Name}'", $"a {part} row with a class", "none")
              | _ -> () ]

    /// The stream with its items in other parts, drawn from the number alone; 0 is its own. Every part keeps as many items as it had, and among
    /// groups of several sizes about as many rows. No tensor is copied; name and digest tell the split. Faults: `BadValue` for a number below 0
    /// and where a part would have nothing to measure, `Contradiction` where what belongs together is in several parts already.
    /// Example: `Catalogue.find "synthetic" |> Result.bind (Resplit.apply 1)`.
    let apply (number: int) (stream: Stream) : Result<Stream, Fault list> =
        if number < 0 then
            Error [ Fault.BadValue("the number of a split", "a whole number ≥ 0", string number) ]
        elif number = 0 then
            Ok stream
        else
            let items = items stream

            patterns stream items
            |> Result.bind (fun (found, weight) ->
                let given = drawn number found weight

                let steps =
                    [ for s, step in List.indexed stream.Steps ->
                          let rows (part: Split) =
                              [| for KeyValue(number, item) in items[s] do
                                     if given[item][s] = part then
                                         number |]
                              |> Array.sort

                          { step with
                              Train = rows Split.Train
                              Validation = rows Split.Validation
                              Test = rows Split.Test } ]

                match List.collect lacks steps with
                | [] ->
                    let told = Encoding.UTF8.GetBytes $"{stream.Digest}\000split {number}"

                    Ok
                        { stream with
                            Name = name stream.Name number
                            Digest = Convert.ToHexStringLower(SHA256.HashData told)
                            Steps = steps }
                | faults -> Error faults)
