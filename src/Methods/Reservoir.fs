namespace Cmcl

open System.Collections.Generic
open TorchSharp

/// Some of a reservoir's items, of one step and pair of modalities: the rows that are in it, in their order, of tensors that may have others.
[<ReferenceEquality>]
type private Shelf =
    {
        Step: int
        Pair: Pair
        /// Of as many rows each, by name: items, others, and room.
        Parts: Map<string, torch.Tensor>
        /// Which rows of them are items.
        Rows: int64[]
        /// How many rows this shelf has seen taken, and how many are, by whatever shelf.
        Used: int64
        Taken: int64 ref
    }

    member s.Room: int64 = s.Parts["a"].shape[0]

/// A buffer that is offered batch after batch, at a cost that grows with the batch and not with the capacity: what is replaced stays where
/// it lies, what enters is written behind it, and where there is no room for that, the items are copied into twice the room that they take.
/// Pure as seen from outside: a row that is an item of any reservoir is never written again.
type Reservoir = private { Seen: int64; Shelves: Shelf list }

[<RequireQualifiedAccess>]
module Reservoir =
    let private few (rows: int64[]) (t: torch.Tensor) : torch.Tensor =
        use places = torch.tensor rows
        use places = places.``to`` t.device
        t.index_select (0L, places)

    /// Rows without some of them, whose places are given in ascending order.
    let private without (gone: int list) (rows: int64[]) : int64[] =
        let left = Array.zeroCreate (rows.Length - gone.Length)
        let mutable first, into = 0, 0

        for place in gone @ [ rows.Length ] do
            Array.blit rows first left into (place - first)
            into <- into + place - first
            first <- place + 1

        left

    let private shelf (g: Group) : Shelf =
        let parts = Map.remove Buffer.counting g.Parts
        let there = parts["a"].shape[0]

        { Step = g.Step
          Pair = g.Pair
          Parts = parts
          Rows =
            match Map.tryFind Buffer.counting g.Parts with
            | Some rows ->
                use onCpu = rows.cpu ()
                onCpu.data<int64>().ToArray()
            | None -> [| 0L .. there - 1L |]
          Used = there
          Taken = ref there }

    /// The reservoir in a method's memory, also as `toMemory` left it there; empty where there is none.
    let ofMemory (memory: Memory) : Reservoir =
        let groups, seen = Buffer.parts memory

        { Seen = seen; Shelves = List.map shelf groups }

    /// Nothing but items, and no room.
    let private isWhole (s: Shelf) = s.Rows.LongLength = s.Room

    /// The memory that had `before` with what differs from it in `reservoir`. `Buffer.ofMemory` reads it.
    let toMemory (before: Reservoir) (reservoir: Reservoir) (memory: Memory) : Memory =
        let among (shelves: Shelf list) (s: Shelf) = List.exists (fun (other: Shelf) -> obj.ReferenceEquals(other, s)) shelves

        let remove memory (s: Shelf) =
            Seq.fold
                (fun memory part -> Map.remove (Buffer.name s.Step s.Pair part) memory)
                memory
                [ Buffer.counting; yield! s.Parts.Keys ]

        let add memory (s: Shelf) =
            let parts = s.Parts |> Map.fold (fun memory part t -> Map.add (Buffer.name s.Step s.Pair part) t memory) memory

            if isWhole s then
                parts
            else
                use rows = torch.tensor s.Rows
                Map.add (Buffer.name s.Step s.Pair Buffer.counting) (rows.``to`` (Seq.head s.Parts.Values).device) parts

        let gone = before.Shelves |> List.filter (among reservoir.Shelves >> not)
        let fresh = reservoir.Shelves |> List.filter (among before.Shelves >> not)

        List.fold add (List.fold remove memory gone) fresh |> Map.add Buffer.offered (torch.tensor reservoir.Seen)

    /// A shelf with some rows of a batch behind its own.
    let private append (batch: Group) (rows: int64[]) (s: Shelf) : Shelf =
        let there, added = s.Rows.LongLength, rows.LongLength

        let write (first: int64) (name: string) (whole: torch.Tensor) =
            whole.narrow(0L, first, added).copy_(few rows batch.Parts[name]) |> ignore

        if s.Used + added <= s.Room && s.Taken.Value = s.Used then
            Map.iter (write s.Used) s.Parts
            s.Taken.Value <- s.Used + added

            { s with
                Rows = Array.append s.Rows [| s.Used .. s.Used + added - 1L |]
                Used = s.Used + added }
        else
            let count = there + added

            let copy name (t: torch.Tensor) =
                let whole = torch.zeros ([| 2L * count; yield! t.shape[1..] |], dtype = t.dtype, device = t.device)
                whole.narrow(0L, 0L, there).copy_(few s.Rows t) |> ignore
                write there name whole
                whole

            { s with
                Parts = Map.map copy s.Parts
                Rows = [| 0L .. count - 1L |]
                Used = count
                Taken = ref count }

    /// Offers a batch, item by item, to a reservoir of so many items: item number s (1 for the first ever) enters with probability
    /// min(1, capacity/s) and takes the place of one that is drawn from all (Vitter's algorithm R), so that at any time every item offered
    /// is as likely to be there. Shelves are ordered by step.
    let offer (capacity: int) (seed: Seed) (batch: Group) (reservoir: Reservoir) : Reservoir =
        let random = System.Random(int (seed.Value &&& 0x7FFFFFFFUL))
        let here = reservoir.Shelves |> List.sumBy _.Rows.Length
        // Rows of the batch that enter: in place of an item, and beside all.
        let instead, beside = SortedDictionary<int, int64>(), ResizeArray<int64>()

        for row in 0L .. batch.Count - 1L do
            let number = reservoir.Seen + row + 1L

            if here + beside.Count < capacity then
                beside.Add row
            else
                let slot = random.NextInt64 number

                if slot < int64 here then
                    instead[int slot] <- row
                elif slot < int64 capacity then
                    beside[int slot - here] <- row

        let kept (first: int) (s: Shelf) =
            let last = first + s.Rows.Length - 1

            match
                [ for slot in instead.Keys do
                      if slot >= first && slot <= last then
                          slot - first ]
            with
            | [] -> s
            | gone -> { s with Rows = without gone s.Rows }

        let firsts =
            reservoir.Shelves |> List.scan (fun first s -> first + s.Rows.Length) 0 |> List.truncate reservoir.Shelves.Length

        let left = List.map2 kept firsts reservoir.Shelves |> List.filter (fun s -> s.Rows.Length > 0)

        let shelves () =
            match [| yield! instead.Values; yield! beside |] with
            | [||] -> left
            | rows ->
                let own, others = left |> List.partition (fun s -> s.Step = batch.Step && s.Pair = batch.Pair)

                let empty () =
                    { Step = batch.Step
                      Pair = batch.Pair
                      Parts = batch.Parts |> Map.map (fun _ t -> t.narrow (0L, 0L, 0L))
                      Rows = [||]
                      Used = 0L
                      Taken = ref 0L }

                append batch rows (own |> List.tryHead |> Option.defaultWith empty) :: others
                |> List.sortBy (fun s -> s.Step, s.Pair)

        { Seen = reservoir.Seen + batch.Count
          Shelves = Tensors.scopedWith (Seq.collect (fun s -> s.Parts.Values)) shelves }

    /// As `Buffer.draw` draws from the same items.
    let draw (seed: Seed) (count: int64) (reservoir: Reservoir) : Group option =
        let all = reservoir.Shelves |> List.sumBy _.Rows.LongLength

        if all = 0L then
            None
        else
            let rec find left shelves =
                match shelves with
                | [ last ] -> last
                | (first: Shelf) :: rest ->
                    if left < first.Rows.LongLength then first else find (left - first.Rows.LongLength) rest
                | [] -> invalidOp "a reservoir of no shelves"

            let shelf = find (Buffer.place seed all) reservoir.Shelves

            let rows =
                if count >= shelf.Rows.LongLength then
                    shelf.Rows
                else
                    use order = Seed.permutation shelf.Rows.LongLength (Seed.split "rows" seed)
                    use first = order.narrow (0L, 0L, count)
                    first.data<int64>().ToArray() |> Array.map (fun place -> shelf.Rows[int place])

            Some
                { Step = shelf.Step
                  Pair = shelf.Pair
                  Parts =
                    if isWhole shelf && rows.LongLength = shelf.Rows.LongLength then
                        shelf.Parts
                    else
                        Map.map (fun _ t -> few rows t) shelf.Parts }
