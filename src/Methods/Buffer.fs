namespace Cmcl

open TorchSharp

/// Kept pairs of one old step: tensors of as many rows each, by name; `a` and `b` are the features.
type Group =
    { Step: int
      Pair: Pair
      Parts: Map<string, torch.Tensor> }

    member g.Count: int64 = g.Parts["a"].shape[0]

/// Pairs of old steps kept for replay, an item being a pair. Pure: what is drawn depends on the seed alone, and no tensor is changed.
type Buffer =
    {
        /// Items offered so far.
        Seen: int64
        Groups: Group list
    }

    /// Items in it.
    member b.Count: int64 = b.Groups |> List.sumBy _.Count

[<RequireQualifiedAccess>]
module Buffer =
    let empty: Buffer = { Seen = 0L; Groups = [] }

    /// Pairs of a step as a group, with whatever is kept beside the features.
    let group (step: int) (pair: Pair) (a: torch.Tensor) (b: torch.Tensor) (beside: (string * torch.Tensor) list) : Group =
        { Step = step
          Pair = pair
          Parts = Map([ "a", a; "b", b ] @ beside) }

    /// A step's pairs as a group of row numbers in place of features, to keep some of them without reading all.
    let ofTask (task: Task) : Group =
        let numbers () = Tensors.range task.Device 0L task.Count
        group task.Index task.Pair (numbers ()) (numbers ()) []

    /// The buffer with the features of those numbers of `ofTask` that are in it.
    let fetched (task: Task) (buffer: Buffer) : Buffer =
        let features (g: Group) =
            if g.Parts["a"].dim() = 1L then
                group g.Step g.Pair (task.Take(g.Pair.A, g.Parts["a"])) (task.Take(g.Pair.B, g.Parts["b"])) []
            else
                g

        { buffer with Groups = List.map features buffer.Groups }

    let private tensors (groups: Group list) : torch.Tensor seq = groups |> Seq.collect _.Parts.Values

    /// Some of a group's items, by row number (int64).
    let rows (rows: torch.Tensor) (g: Group) : Group =
        { g with
            Parts = g.Parts |> Map.map (fun _ t -> t.index_select (0L, rows.``to`` t.device)) }

    /// So many items of a group, each once, all being as likely; all of it where it has no more.
    let sample (seed: Seed) (count: int64) (g: Group) : Group =
        if count >= g.Count then
            g
        else
            Tensors.scopedWith _.Parts.Values (fun () -> rows ((Seed.permutation g.Count seed).narrow(0L, 0L, count)) g)

    /// A replay batch: one old step, as likely as it has items here, and so many of its items. None from an empty buffer.
    let draw (seed: Seed) (count: int64) (buffer: Buffer) : Group option =
        if buffer.Count = 0L then
            None
        else
            use scope = torch.NewDisposeScope()
            use g = Seed.generator (Seed.split "group" seed)
            let place = torch.randint(buffer.Count, [| 1L |], generator = g).item<int64>()

            let rec find left groups =
                match groups with
                | [ last ] -> last
                | (first: Group) :: rest -> if left < first.Count then first else find (left - first.Count) rest
                | [] -> invalidOp "a buffer of no groups"

            let drawn = find place buffer.Groups |> sample (Seed.split "rows" seed) count

            for t in drawn.Parts.Values do
                scope.MoveToOuter t |> ignore

            Some drawn

    /// Where items come from while a batch is offered: rows of a group that is there, or of the batch.
    [<Struct>]
    type private Item = { Group: int; Row: int64 }

    /// Offers a batch, item by item, to a reservoir of so many items: item number s (1 for the first ever) enters with probability
    /// min(1, capacity/s) and takes the place of one that is drawn from all (Vitter's algorithm R), so that at any time every item offered
    /// is as likely to be there. Groups are ordered by step.
    let offer (capacity: int) (seed: Seed) (batch: Group) (buffer: Buffer) : Buffer =
        let random = System.Random(int (seed.Value &&& 0x7FFFFFFFUL))
        let incoming = buffer.Groups.Length
        let items = ResizeArray()

        for place, g in List.indexed buffer.Groups do
            for row in 0L .. g.Count - 1L do
                items.Add { Group = place; Row = row }

        for row in 0L .. batch.Count - 1L do
            let number = buffer.Seen + row + 1L

            if items.Count < capacity then
                items.Add { Group = incoming; Row = row }
            else
                let slot = random.NextInt64 number

                if slot < int64 capacity then
                    items[int slot] <- { Group = incoming; Row = row }

        let chosen place =
            [| for item in items do
                   if item.Group = place then
                       item.Row |]

        let groups () =
            let left =
                [ for place, g in List.indexed buffer.Groups do
                      match chosen place with
                      | [||] -> ()
                      | few when few.LongLength = g.Count -> g
                      | few -> rows (torch.tensor few) g ]

            match chosen incoming with
            | [||] -> left
            | few ->
                let added = rows (torch.tensor few) batch
                let own, others = left |> List.partition (fun g -> g.Step = batch.Step && g.Pair = batch.Pair)

                let join (g: Group) =
                    { g with
                        Parts = g.Parts |> Map.map (fun name t -> torch.cat ([| t; added.Parts[name] |], 0L)) }

                (own |> List.tryHead |> Option.map join |> Option.defaultValue added) :: others
                |> List.sortBy (fun g -> g.Step, g.Pair)

        { Seen = buffer.Seen + batch.Count
          Groups = Tensors.scopedWith tensors groups }

    /// The buffer with so many items of a step that has ended, drawn from all of them, in tensors of its own.
    let keep (perStep: int64) (seed: Seed) (step: Group) (buffer: Buffer) : Buffer =
        let kept =
            Tensors.scopedWith _.Parts.Values (fun () ->
                let kept = sample seed perStep step

                { kept with
                    Parts = kept.Parts |> Map.map (fun _ t -> t.alias ()) })

        { Seen = buffer.Seen + step.Count
          Groups = buffer.Groups @ [ kept ] }

    /// The same for a buffer of so many items in all, an equal part for each step: those before give up some of theirs, drawn. More steps
    /// than items leave the last ones without.
    let share (capacity: int64) (seed: Seed) (step: Group) (buffer: Buffer) : Buffer =
        let each = max 1L (capacity / int64 (buffer.Groups.Length + 1))

        let fewer =
            { buffer with
                Groups = [ for g in buffer.Groups -> sample (Seed.split $"step {g.Step}" seed) each g ] }

        if int64 buffer.Groups.Length >= capacity then
            { fewer with Seen = buffer.Seen + step.Count }
        else
            keep each (Seed.split "new" seed) step fewer

    let private prefix = "buffer/"

    /// The buffer in a method's memory; empty where there is none.
    let ofMemory (memory: Memory) : Buffer =
        let groups =
            [ for KeyValue(name, t) in memory do
                  if name.StartsWith prefix then
                      match name.Substring(prefix.Length).Split '/' with
                      | [| step; a; b; part |] -> (int step, a, b), (part, t)
                      | _ -> () ]
            |> List.groupBy fst
            |> List.sortBy fst
            |> List.map (fun ((step, a, b), parts) ->
                { Step = step
                  Pair = Pair.named a b
                  Parts = parts |> List.map snd |> Map })

        { Seen =
            match Map.tryFind "offered" memory with
            | Some n ->
                use onCpu = n.cpu ()
                onCpu.item<int64>()
            | None -> 0L
          Groups = groups }

    /// A method's memory with this buffer for the one in it.
    let toMemory (buffer: Buffer) (memory: Memory) : Memory =
        let others = memory |> Map.filter (fun name _ -> not (name.StartsWith prefix))

        buffer.Groups
        |> List.collect (fun g -> [ for KeyValue(part, t) in g.Parts -> $"{prefix}{g.Step:D4}/{g.Pair.A}/{g.Pair.B}/{part}", t ])
        |> List.fold (fun memory (name, t) -> Map.add name t memory) others
        |> Map.add "offered" (torch.tensor buffer.Seen)
