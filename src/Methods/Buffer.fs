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

    /// A step's pairs (of several of an item the first, so that no two of a batch are matches of one) as a group of row numbers in place of
    /// features, to keep some of them without reading all.
    let ofTask (task: Task) : Group =
        let numbers () = Task.firsts task |> Option.defaultWith (fun () -> Tensors.range task.Device 0L task.Count)
        group task.Index task.Pair (numbers ()) (numbers ()) []

    /// The buffer with the features of those numbers of `ofTask` that are in it.
    let fetched (task: Task) (buffer: Buffer) : Buffer =
        let features (g: Group) =
            if g.Parts["a"].dim() = 1L then
                group g.Step g.Pair (task.Take(g.Pair.A, g.Parts["a"])) (task.Take(g.Pair.B, g.Parts["b"])) []
            else
                g

        { buffer with Groups = List.map features buffer.Groups }

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

    /// Which of so many items a replay batch is drawn around.
    let internal place (seed: Seed) (items: int64) : int64 =
        use g = Seed.generator (Seed.split "group" seed)
        use place = torch.randint (items, [| 1L |], generator = g)
        place.item<int64>()

    /// A replay batch: one old step, as likely as it has items here, and so many of its items. None from an empty buffer.
    let draw (seed: Seed) (count: int64) (buffer: Buffer) : Group option =
        if buffer.Count = 0L then
            None
        else
            use scope = torch.NewDisposeScope()

            let rec find left groups =
                match groups with
                | [ last ] -> last
                | (first: Group) :: rest -> if left < first.Count then first else find (left - first.Count) rest
                | [] -> invalidOp "a buffer of no groups"

            let drawn = find (place seed buffer.Count) buffer.Groups |> sample (Seed.split "rows" seed) count

            for t in drawn.Parts.Values do
                scope.MoveToOuter t |> ignore

            Some drawn

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

    /// The names in a method's memory of what is kept of a step and pair.
    let internal name (step: int) (pair: Pair) (part: string) : string = $"{prefix}{step:D4}/{pair.A}/{pair.B}/{part}"

    /// How many items were offered.
    let internal offered = "offered"

    /// The part that says which rows of the others count, and in what order, where not all do (`Reservoir`).
    let internal counting = "rows"

    /// Everything that is kept of each step and pair, and how many items were offered.
    let internal parts (memory: Memory) : Group list * int64 =
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

        let seen =
            match Map.tryFind offered memory with
            | Some n ->
                use onCpu = n.cpu ()
                onCpu.item<int64>()
            | None -> 0L

        groups, seen

    /// The buffer in a method's memory; empty where there is none.
    let ofMemory (memory: Memory) : Buffer =
        let groups, seen = parts memory

        let alone (g: Group) =
            match Map.tryFind counting g.Parts with
            | Some places -> rows places { g with Parts = Map.remove counting g.Parts }
            | None -> g

        { Seen = seen; Groups = List.map alone groups }

    /// A method's memory with this buffer for the one in it.
    let toMemory (buffer: Buffer) (memory: Memory) : Memory =
        let others = memory |> Map.filter (fun name _ -> not (name.StartsWith prefix))

        buffer.Groups
        |> List.collect (fun g -> [ for KeyValue(part, t) in g.Parts -> name g.Step g.Pair part, t ])
        |> List.fold (fun memory (name, t) -> Map.add name t memory) others
        |> Map.add offered (torch.tensor buffer.Seen)
