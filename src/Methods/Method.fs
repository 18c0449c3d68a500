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

/// A loss and the direction that a method gives the optimizer for it.
[<Struct>]
type Pass = { Loss: torch.Tensor; Gradients: Heads }

/// A spectrum that a method used in a step, for reports.
type SpectrumNote =
    {
        Modality: Modality
        /// `input` or `partner`.
        Side: string
        /// Shares of the trace, largest first.
        Shares: float[]
        /// How many of them are inside the cut, where there is a cut.
        Protected: int option
    }

/// InfoNCE under bridges between joint spaces, S = (X_a W_aᵀ) Q (X_b W_bᵀ)ᵀ/τ, as data, so that a loop may compute it in place.
type Closed =
    {
        Contrast: Contrast
        /// Q by pair (`Bridge`); a pair without one has one joint space.
        Bridges: Map<Pair, torch.Tensor>
    }

/// What a method keeps between steps: named tensors, so that it can be counted, written and taken up again.
type Memory = Map<string, torch.Tensor>

[<RequireQualifiedAccess>]
module Memory =
    /// Bytes of all its tensors, tallies left out.
    let bytes (memory: Memory) : int64 =
        memory |> Seq.sumBy (fun (KeyValue(name, t)) -> if name.StartsWith "tally/" then 0L else Tensors.bytes t)

    /// A moment kept under a name (and its count under `NAME#`).
    let moment (name: string) (memory: Memory) : Moment option =
        Map.tryFind name memory
        |> Option.map (fun matrix ->
            { Count = memory[name + "#"].cpu().item<int64>()
              Matrix = matrix })

    let setMoment (name: string) (m: Moment) (memory: Memory) : Memory =
        memory |> Map.add name m.Matrix |> Map.add (name + "#") (torch.tensor m.Count)

    /// The moment kept under a name, merged with a new one.
    let addMoment (name: string) (m: Moment) (memory: Memory) : Memory =
        let all = moment name memory |> Option.map (fun old -> Moment.merge old m) |> Option.defaultValue m
        setMoment name all memory

    let private meanName (name: string) = "mean/" + name

    /// The mean beside the moment kept under a name, where there is one.
    let mean (name: string) (memory: Memory) : Mean option =
        match Map.tryFind (meanName name) memory, moment name memory with
        | Some vector, Some m -> Some { Rows = m.Count; Vector = vector }
        | _ -> None

    /// A moment with the mean of the same rows, both merged with what is kept under the name.
    let addCentred (name: string) (m: Moment) (own: Mean) (memory: Memory) : Memory =
        let all = mean name memory |> Option.map (fun old -> Mean.merge old own) |> Option.defaultValue own
        addMoment name m memory |> Map.add (meanName name) all.Vector

/// Where a batch's loss and gradients come from.
[<RequireQualifiedAccess>]
type Direction =
    | Closed of Closed
    /// A pure function of weights and batch.
    | Of of (Heads -> Batch -> Pass)
    /// A pure function of what is kept, too, which tells what to keep next: what it keeps as it is must be the same tensor.
    | Running of (Memory -> Heads -> Batch -> struct (Pass * Memory))

[<RequireQualifiedAccess>]
module Direction =
    /// The loss of a batch, ∂L/∂Y_a = ∂L/∂Z Qᵀ and ∂L/∂Y_b, from its outputs, Z = Y_a Q (theory.md, sections 2 and 7).
    let outputGradients
        (c: Closed)
        (pair: Pair)
        (ya: torch.Tensor)
        (yb: torch.Tensor)
        : struct (torch.Tensor * torch.Tensor * torch.Tensor) =
        match Map.tryFind pair c.Bridges with
        | None ->
            let g = Contrastive.gradients c.Contrast ya yb
            struct (g.Loss, g.A, g.B)
        | Some q ->
            let g = Contrastive.gradients c.Contrast (Bridge.cross q ya) yb
            struct (g.Loss, Bridge.cross (q.t ()) g.A, g.B)

    let private closed (c: Closed) (weights: Heads) (batch: Batch) : Pass =
        let wa, wb = Heads.weight batch.Pair.A weights, Heads.weight batch.Pair.B weights

        let struct (loss, a, b) = outputGradients c batch.Pair (Heads.outputs wa batch.A) (Heads.outputs wb batch.B)

        { Loss = loss
          Gradients =
            Map [ batch.Pair.A, Contrastive.weightGradient a batch.A; batch.Pair.B, Contrastive.weightGradient b batch.B ] }

    /// Loss and gradients of a batch under these weights, and what is kept after it: pure, whatever the direction is made of.
    let step (direction: Direction) (kept: Memory) (weights: Heads) (batch: Batch) : struct (Pass * Memory) =
        match direction with
        | Direction.Closed c -> struct (closed c weights batch, kept)
        | Direction.Of f -> struct (f weights batch, kept)
        | Direction.Running f -> f kept weights batch

    /// Loss and gradients alone.
    let pass (direction: Direction) (kept: Memory) (weights: Heads) (batch: Batch) : Pass =
        let struct (pass, _) = step direction kept weights batch
        pass

/// Sums over the updates of a step that a method tells of at its end, kept in its memory.
[<RequireQualifiedAccess>]
module RunningSum =
    let private slot (name: string) = "tally/" + name

    /// Adds a number, a 0-d tensor, to the sum of that name; a new sum begins with it.
    let add (name: string) (value: torch.Tensor) (memory: Memory) : Memory =
        let value = value.detach().``to`` torch.float64

        match Map.tryFind (slot name) memory with
        | Some sum -> Map.add (slot name) (sum .+ value) memory
        | None -> Map.add (slot name) value memory

    /// The same of a number that is known.
    let count (name: string) (value: int64) (memory: Memory) : Memory =
        add name (torch.tensor (float value, dtype = torch.float64)) memory

    /// The sum of that name, if anything was added.
    let sum (name: string) (memory: Memory) : float option = Map.tryFind (slot name) memory |> Option.map Tensors.toFloat

    /// The memory without sums: how a step begins.
    let clear (memory: Memory) : Memory = memory |> Map.filter (fun name _ -> not (name.StartsWith "tally/"))

/// What a step of training needs beside its data.
type Context =
    {
        Settings: Settings
        Device: torch.Device
        /// For what a method draws when it begins or ends this step.
        Seed: Seed
        /// The heads before any step.
        Initial: Heads
        /// Updates that this step will take.
        Updates: int64
        /// What is kept of the steps before this one, under every method.
        Old: OldStep list
        /// Steps that are still to be trained, this one among them.
        Remaining: int
    }

/// One step of training as a method wants it: values and functions for the loop that runs it.
type Session =
    {
        /// The parameters that are trained, in the method's coordinates; the loop owns copies.
        Start: Heads
        Data: Task list
        Direction: Direction
        /// What a running direction starts with; `End` gets what it has become.
        Kept: Memory
        Rule: Rule
        /// All heads after the step, from the trained parameters.
        Finish: Heads -> Heads
        Spectra: SpectrumNote list
        /// Sentences for the user about this step.
        Remarks: string list
    }

/// When a method trains.
[<RequireQualifiedAccess>]
type Curriculum =
    | Never
    | StepByStep
    /// On the data of all steps together, once.
    | AllAtOnce

/// What a method's figures are to be read as.
[<RequireQualifiedAccess>]
type Role =
    /// Fine-tuning without protection: what others are to improve on.
    | Baseline
    /// It learns step after step, and is compared with the others.
    | Competitor
    /// A competitor that this toolkit is about.
    | Subject
    /// A bound: it does not train.
    | Floor
    /// A bound: it trains on all steps' data at once.
    | Ceiling
    /// A bound: it starts again at every step, so that what it learned counts, and not what it kept.
    | Restart

[<RequireQualifiedAccess>]
module Role =
    let private names =
        [ Role.Baseline, "baseline"
          Role.Competitor, "competitor"
          Role.Subject, "subject"
          Role.Floor, "floor"
          Role.Ceiling, "ceiling"
          Role.Restart, "restart" ]

    /// As files write it.
    let name (role: Role) : string = List.find (fst >> (=) role) names |> snd

    /// None for a text that names none.
    let parse (text: string) : Role option = names |> List.tryFind (snd >> (=) text) |> Option.map fst

    /// Is it shown for comparison only?
    let isBound (role: Role) : bool = List.contains role [ Role.Floor; Role.Ceiling; Role.Restart ]

    /// That of a method which changes how another trains: a bound stays one, any other competes.
    let around (host: Role) : Role = if isBound host then host else Role.Competitor

/// A method is a value: how it begins a step and what it keeps at its end, whatever options it was made of (`Spec`). Neither changes a tensor
/// that it is given.
type Method =
    {
        Name: string
        Summary: string
        Curriculum: Curriculum
        /// What its figures are to be read as.
        Role: Role
        /// Its heads before any step, from identity heads.
        Initial: Heads -> Heads
        Begin: Context -> Memory -> Heads -> Task list -> Session
        /// The memory after a step, from what training left of it and the heads after it.
        End: Context -> Memory -> Heads -> Task list -> Memory
        /// Figures about a step from the memory at its end, by name.
        Diagnostics: Memory -> (string * float) list
    }

[<RequireQualifiedAccess>]
module Method =
    /// Whether a method's heads have a bias in a last column of their own, by what it makes of a head of one number.
    let hasBias (m: Method) : bool =
        use scope = torch.NewDisposeScope()
        let probe = Modality.named "probe"
        let head = Heads.identity Dtype.Float32 torch.CPU 1L [ probe, 1L ] |> m.Initial |> Heads.weight probe
        head.shape[1] = 2L

/// Parts that methods share.
[<RequireQualifiedAccess>]
module Training =
    /// Every modality of the tasks, each once.
    let moving (tasks: Task list) : Modality list = tasks |> List.collect (fun t -> Pair.members t.Pair) |> List.distinct

    /// The weights of some modalities.
    let select (modalities: Modality list) (heads: Heads) : Heads = Map [ for m in modalities -> m, Heads.weight m heads ]

    /// The optimizer that the settings name, between clipping and decay, then the rate, then what the shapes ask of an update.
    let recipe (context: Context) (shapes: Map<Modality, Shape>) : Recipe =
        let s = context.Settings

        { Clip = s.Clip
          Optimiser = s.Optimiser
          WeightDecay = s.WeightDecay
          Exempt = 0L
          LearningRate = s.LearningRate
          Schedule = s.Decay
          Updates = context.Updates
          Shapes = shapes }

    /// Projected gradients scaled as clipping would have scaled the raw ones: clipped before projected, as published.
    let clippedAs (raw: Heads) (settings: Settings) (projected: Heads) : Heads =
        match settings.Clip with
        | None -> projected
        | Some limit ->
            let factor = Optim.clipFactor limit (Optim.globalNorm raw)
            Heads.map (fun g -> g * factor.AsScalar()) projected

    /// InfoNCE of the outputs as they are.
    let plain (settings: Settings) : Direction =
        Direction.Closed
            { Contrast = Settings.contrast settings
              Bridges = Map.empty }

    /// Training with nothing beside the loss, from the given heads.
    let plainSession (context: Context) (memory: Memory) (heads: Heads) (tasks: Task list) : Session =
        { Start = select (moving tasks) heads
          Data = tasks
          Direction = plain context.Settings
          Kept = RunningSum.clear memory
          Rule = Rule.Recipe(recipe context Map.empty)
          Finish = fun trained -> Heads.replace trained heads
          Spectra = []
          Remarks = [] }

    /// A method that trains like fine-tuning, to be changed where another differs: a step at a time, nothing kept.
    let method (name: string) (summary: string) : Method =
        { Name = name
          Summary = summary
          Curriculum = Curriculum.StepByStep
          Role = Role.Competitor
          Initial = id
          Begin = plainSession
          End = fun _ memory _ _ -> memory
          Diagnostics = fun _ -> [] }
