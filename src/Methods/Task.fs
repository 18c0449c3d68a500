namespace Cmcl

open TorchSharp

/// Matched rows of one modality in a step.
[<RequireQualifiedAccess>]
type RowSource =
    /// All of them, n × d_m.
    | Held of torch.Tensor
    /// Too many to hold: how many there are, where they are trained on, and what reads some by their numbers (int64), as a new tensor on
    /// that device in the type that is trained in.
    | Read of count: int64 * device: torch.Device * take: (torch.Tensor -> torch.Tensor)

/// The pairs whose losses are summed, each with its weight.
type Terms = (Pair * float) list

[<RequireQualifiedAccess>]
module Terms =
    /// One pair with weight 1. Example: `Terms.one pair`.
    let one (pair: Pair) : Terms = [ pair, 1.0 ]

    /// Every modality of the pairs, each once, in their order. Example: `Terms.modalities (Terms.one pair)`.
    let modalities (terms: Terms) : Modality list = terms |> List.collect (fst >> Pair.members) |> List.distinct

    /// The pair of a single term, for methods that know only one. Fault: `Contradiction`, as a `CmclException`, for several.
    /// Example: `Terms.pair (Terms.one pair)`.
    let pair (terms: Terms) : Pair =
        match terms with
        | [ pair, 1.0 ] -> pair
        | _ ->
            let number (x: float) = x.ToString("R", System.Globalization.CultureInfo.InvariantCulture)
            let written = System.String.Join(", ", [ for pair, weight in terms -> $"{number weight} × {pair}" ])

            Check.fail (
                Fault.Contradiction(
                    $"one pair of weight 1 was expected, and there is {written}",
                    "take a method that knows steps of several pairs (vanilla, joint, dns)"
                )
            )

/// The training data of one step, in the coordinates that a method trains in.
type Task =
    {
        Index: int
        Name: string
        /// The rows of each modality: as many, row i of one being a match of row i of another.
        Rows: Map<Modality, RowSource>
        Terms: Terms
        /// Which rows are matches of one item, such as five captions of a picture. None where every row is an item of its own.
        Items: int64[][] option
    }

    /// Matched rows in it.
    member t.Count: int64 =
        match Seq.head t.Rows.Values with
        | RowSource.Held x -> x.shape[0]
        | RowSource.Read(count, _, _) -> count

    /// Items in it: as many rows as an epoch takes, one of each.
    member t.Visits: int64 =
        match t.Items with
        | None -> t.Count
        | Some items -> items.LongLength

    member t.Device: torch.Device =
        match Seq.head t.Rows.Values with
        | RowSource.Held x -> x.device
        | RowSource.Read(_, device, _) -> device

    /// The modalities of its terms.
    member t.Modalities: Modality list = Terms.modalities t.Terms

    /// Its rows of a modality where they are held.
    member t.Held(m: Modality) : torch.Tensor option =
        match t.Rows[m] with
        | RowSource.Held x -> Some x
        | RowSource.Read _ -> None

    /// Whether all its rows are held.
    member t.IsHeld: bool = t.Rows.Values |> Seq.forall _.IsHeld

    /// All its rows of a modality. Fault: `Contradiction`, as a `CmclException`, where they are too many to hold.
    member t.All(m: Modality) : torch.Tensor =
        match t.Rows[m] with
        | RowSource.Held x -> x
        | RowSource.Read _ ->
            Check.fail (
                Fault.Contradiction(
                    $"the rows of step '{t.Name}' are read as they are needed, and all of them were asked for at once",
                    "let the method take them by number (Task.Take)"
                )
            )

    /// Some rows of a modality by their numbers (int64, on its device): a new tensor.
    member t.Take(m: Modality, numbers: torch.Tensor) : torch.Tensor =
        match t.Rows[m] with
        | RowSource.Held x -> x.index_select (0L, numbers)
        | RowSource.Read(_, _, take) -> take numbers

    /// Its one pair; faults as of `Terms.pair`.
    member t.Pair: Pair = Terms.pair t.Terms

    /// All rows of its one pair's first modality; faults as of `Pair` and `All`.
    member t.A: torch.Tensor = t.All t.Pair.A

    /// All rows of its one pair's second modality; faults as of `Pair` and `All`.
    member t.B: torch.Tensor = t.All t.Pair.B

/// Some rows of one of a session's tasks.
type Batch =
    {
        /// The place of the task in the session's data.
        Task: int
        /// Row numbers, int64.
        Numbers: torch.Tensor
        /// 1 for the first pass over the rows.
        Epoch: int
        /// For what is drawn while this batch is trained on: no two batches share it.
        Seed: Seed
        /// The rows of each modality, in the order of their numbers.
        Rows: Map<Modality, torch.Tensor>
        Terms: Terms
    }

    /// The modalities of its terms.
    member b.Modalities: Modality list = Terms.modalities b.Terms

    /// Its one pair; faults as of `Terms.pair`.
    member b.Pair: Pair = Terms.pair b.Terms

    /// The rows of its one pair's first modality; faults as of `Pair`.
    member b.A: torch.Tensor = b.Rows[b.Pair.A]

    /// The rows of its one pair's second modality; faults as of `Pair`.
    member b.B: torch.Tensor = b.Rows[b.Pair.B]

[<RequireQualifiedAccess>]
module Task =
    /// A step of one pair whose rows are held: n × d_a and n × d_b. Example: `Task.ofPair 1 "first" pair xa xb`.
    let ofPair (index: int) (name: string) (pair: Pair) (a: torch.Tensor) (b: torch.Tensor) : Task =
        { Index = index
          Name = name
          Rows = Map [ pair.A, RowSource.Held a; pair.B, RowSource.Held b ]
          Terms = Terms.one pair
          Items = None }

    /// Some of its rows by their numbers (int64, on its device), as the batch of a session whose data have it in this place.
    /// Example: `Task.ofPair 1 "first" pair xa xb |> Task.batch 0 (Tensors.range torch.CPU 0L 4L) 1 seed`.
    let batch (place: int) (numbers: torch.Tensor) (epoch: int) (seed: Seed) (t: Task) : Batch =
        { Task = place
          Numbers = numbers
          Epoch = epoch
          Seed = seed
          Rows = t.Rows |> Map.map (fun m _ -> t.Take(m, numbers))
          Terms = t.Terms }

    /// The same rows after a function of each that keeps their length: at once, or as they are read.
    let map (f: Modality -> torch.Tensor -> torch.Tensor) (t: Task) : Task =
        let mapped m rows =
            match rows with
            | RowSource.Held x -> RowSource.Held(f m x)
            | RowSource.Read(count, device, take) ->
                RowSource.Read(count, device, (fun numbers -> Tensors.scoped (fun () -> f m (take numbers))))

        { t with Rows = Map.map mapped t.Rows }

    /// One pair of each item by its number (int64 on the CPU): items in a drawn order or, unless shuffled, in their own, and of several pairs
    /// of an item one that is drawn. Of a task without items, all pairs.
    let visit (shuffle: bool) (seed: Seed) (t: Task) : torch.Tensor =
        Tensors.scoped (fun () ->
            let order = if shuffle then Seed.permutation t.Visits seed else Tensors.range torch.CPU 0L t.Visits

            match t.Items with
            | None -> order
            | Some items ->
                use generator = Seed.generator (Seed.split "pairs" seed)

                let draws =
                    torch.rand(t.Visits, dtype = System.Nullable torch.float64, generator = generator).data<float>().ToArray()

                let drawn (draw: float) (pairs: int64[]) = pairs[min (pairs.Length - 1) (int (draw * float pairs.Length))]
                torch.tensor(Array.map2 drawn draws items).index_select(0L, order))

    /// The first pair of every item, in their order; None where every pair is an item of its own.
    let firsts (t: Task) : torch.Tensor option =
        t.Items |> Option.map (fun items -> torch.tensor(Array.map Array.head items).``to`` t.Device)

    /// The rows of one modality in order, in blocks for one pass; whoever takes a block frees it.
    let blocks (m: Modality) (t: Task) : seq<torch.Tensor> =
        seq {
            for first in 0L .. Moment.blockRows .. t.Count - 1L do
                Tensors.scoped (fun () -> t.Take(m, Tensors.range t.Device first (min t.Count (first + Moment.blockRows))))
        }

    /// The matched rows of all its modalities in order, in blocks for one pass; whoever takes a block frees it.
    let jointBlocks (t: Task) : seq<Map<Modality, torch.Tensor>> =
        seq {
            for first in 0L .. Moment.blockRows .. t.Count - 1L do
                use numbers = Tensors.range t.Device first (min t.Count (first + Moment.blockRows))
                Map [ for m in t.Modalities -> m, t.Take(m, numbers) ]
        }

    /// The second moment of its rows of one modality.
    let moment (m: Modality) (t: Task) : Moment =
        match t.Held m with
        | Some x -> Moment.ofRows x
        | None -> Moment.accumulate (blocks m t)

    /// The mean of its rows of one modality.
    let mean (m: Modality) (t: Task) : Mean =
        match t.Held m with
        | Some x -> Mean.ofRows x
        | None ->
            let ofBlock (block: torch.Tensor) =
                use block = block
                Mean.ofRows block

            Tensors.scopedWith (fun (mean: Mean) -> [ mean.Vector ]) (fun () ->
                blocks m t |> Seq.map ofBlock |> Seq.reduce Mean.merge)
