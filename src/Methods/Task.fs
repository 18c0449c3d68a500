namespace Cmcl

open TorchSharp

/// Rows of a step that are too many to hold: read when they are asked for.
type Source =
    {
        /// Where they are trained on.
        Device: torch.Device
        /// Rows of one modality by their numbers (int64), in the type that is trained in: a new tensor on the device.
        Read: Modality -> torch.Tensor -> torch.Tensor
    }

/// The training data of one step, in the coordinates that a method trains in.
type Task =
    {
        Index: int
        Name: string
        Pair: Pair
        /// Matched rows, n × d_a and n × d_b. Where there is a source, tensors of that shape and type without numbers (on torch's device
        /// `meta`): `Take`, `Task.moment` and batches have the rows whether or not.
        A: torch.Tensor
        B: torch.Tensor
        /// None where all rows are held.
        Source: Source option
        /// Which rows are matches of one item, such as five captions of a picture. None where every row is an item of its own.
        Items: int64[][] option
    }

    /// Matched pairs in it.
    member t.Count: int64 = t.A.shape[0]

    /// Items in it: as many pairs as an epoch takes, one of each.
    member t.Visits: int64 =
        match t.Items with
        | None -> t.Count
        | Some items -> items.LongLength

    member t.Device: torch.Device =
        match t.Source with
        | Some source -> source.Device
        | None -> t.A.device

    member private t.Side(m: Modality) : torch.Tensor = if m = t.Pair.A then t.A else t.B

    /// Its rows of one of its two modalities, all of them; raises `Fault.Contradiction` where they are too many to hold.
    member t.Rows(m: Modality) : torch.Tensor =
        if t.Source.IsSome then
            Check.fail (
                Fault.Contradiction(
                    $"the rows of step '{t.Name}' are read as they are needed, and all of them were asked for at once",
                    "let the method take them by number (Task.Take)"
                )
            )

        t.Side m

    /// Some rows of one of its two modalities by their numbers (int64, on its device): a new tensor.
    member t.Take(m: Modality, rows: torch.Tensor) : torch.Tensor =
        match t.Source with
        | Some source -> source.Read m rows
        | None -> (t.Side m).index_select(0L, rows)

[<RequireQualifiedAccess>]
module Task =
    /// A step whose rows are read when they are asked for, given how many there are and their type.
    let reading
        (index: int)
        (name: string)
        (pair: Pair)
        (count: int64)
        (widths: Modality -> int64)
        (dtype: torch.ScalarType)
        (source: Source)
        : Task =
        let empty m = torch.empty (count, widths m, dtype = System.Nullable dtype, device = torch.device "meta")

        { Index = index
          Name = name
          Pair = pair
          A = empty pair.A
          B = empty pair.B
          Source = Some source
          Items = None }

    /// The same rows after a function of each that keeps their length: at once, or as they are read.
    let map (f: Modality -> torch.Tensor -> torch.Tensor) (t: Task) : Task =
        match t.Source with
        | None -> { t with A = f t.Pair.A t.A; B = f t.Pair.B t.B }
        | Some source ->
            { t with
                Source =
                    Some
                        { source with
                            Read = fun m rows -> Tensors.scoped (fun () -> f m (source.Read m rows)) } }

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

    /// The second moment of its rows of one modality.
    let moment (m: Modality) (t: Task) : Moment =
        match t.Source with
        | None -> Moment.ofRows (t.Rows m)
        | Some _ -> Moment.accumulate (blocks m t)

    /// The mean of its rows of one modality.
    let mean (m: Modality) (t: Task) : Mean =
        match t.Source with
        | None -> Mean.ofRows (t.Rows m)
        | Some _ ->
            let ofBlock (block: torch.Tensor) =
                use block = block
                Mean.ofRows block

            Tensors.scopedWith (fun (mean: Mean) -> [ mean.Vector ]) (fun () ->
                blocks m t |> Seq.map ofBlock |> Seq.reduce Mean.merge)

/// Some rows of one of a session's tasks.
type Batch =
    {
        /// The place of the task in the session's data.
        Task: int
        Pair: Pair
        /// Row numbers, int64.
        Rows: torch.Tensor
        /// 1 for the first pass over the rows.
        Epoch: int
        /// For what is drawn while this batch is trained on: no two batches share it.
        Seed: Seed
        A: torch.Tensor
        B: torch.Tensor
    }
