namespace Cmcl.Bench

open BenchmarkDotNet.Attributes
open Cmcl
open TorchSharp

[<AutoOpen>]
module private Made =
    let pair = Pair.named "a" "b"

    let normal (rows: int) (columns: int) (purpose: string) : torch.Tensor =
        Tensors.scoped (fun () ->
            (Seed.normal [ int64 rows; int64 columns ] (Seed.ofInt 0 |> Seed.split purpose)).``to`` torch.float32)

    /// An act that frees what it makes.
    let freeing (act: unit -> 'a) () : unit =
        use scope = torch.NewDisposeScope()
        act () |> ignore

/// Acts upon tensors that live as long as a benchmark's parameters.
[<AbstractClass>]
type Prepared() =
    let mutable scope: DisposeScope option = None

    [<Params(1, 2)>]
    member val Threads = 1 with get, set

    /// Makes the tensors, and the acts that are timed; the scope is what owns them.
    abstract Prepare: DisposeScope -> unit

    [<GlobalSetup>]
    member p.Setup() =
        torch.set_num_threads p.Threads
        let own = torch.NewDisposeScope()
        scope <- Some own
        p.Prepare own

    [<GlobalCleanup>]
    member _.Cleanup() = scope |> Option.iter _.Dispose()

/// One update of two d × d heads from gradients that are there: in place in one pass, and as a chain of transforms.
type Updates() =
    inherit Prepared()

    let mutable inPlace, chain = ignore, ignore

    [<Params(256, 1024)>]
    member val D = 0 with get, set

    [<Params("adamw", "sgd")>]
    member val Optimizer = "" with get, set

    override u.Prepare scope =
        let rows = normal 2 u.D "rows"

        let optimiser = Settings.optimiser.Codec.Read "optimizer" u.Optimizer |> Check.get

        let settings =
            { Settings.initial with
                Decay = Schedule.Constant
                Optimiser = optimiser }

        let heads = Heads.identity Dtype.Float32 torch.CPU (int64 u.D) [ for m in Pair.members pair -> m, int64 u.D ]
        let gradients = heads |> Map.map (fun m _ -> normal u.D u.D $"gradient {m}")

        let context =
            { Settings = settings
              Device = torch.CPU
              Seed = Seed.ofInt 0
              Initial = heads
              Updates = 1L
              Old = []
              Remaining = 1 }

        let task = Task.ofPair 1 "made" pair rows rows

        let session =
            { Training.plainSession context Map.empty heads [ task ] with
                Direction = Direction.Of(fun _ _ -> { Loss = torch.zeros 1L; Gradients = gradients }) }

        let advance purely = Loop.advance purely settings (Seed.ofInt 0) scope session
        let fast, pure' = advance false, advance true
        inPlace <- fun () -> fast 1 |> ignore
        chain <- fun () -> pure' 1 |> ignore

    [<Benchmark(Baseline = true)>]
    member _.InPlace() = inPlace ()

    [<Benchmark>]
    member _.Chain() = chain ()

/// InfoNCE of a batch with its gradients, d = 1024: closed form, and by autograd.
type InfoNce() =
    inherit Prepared()

    let mutable closedForm, autograd = ignore, ignore

    [<Params(64, 256, 1024)>]
    member val B = 0 with get, set

    override i.Prepare _ =
        let outputs purpose = (normal i.B 1024 purpose).div_(32.0.AsScalar())
        let ya, yb = outputs "a", outputs "b"
        closedForm <- freeing (fun () -> Contrastive.gradients Contrastive.paper ya yb)

        autograd <-
            freeing (fun () ->
                (Contrastive.loss Contrastive.paper (ya.detach().requires_grad_()) (yb.detach().requires_grad_())).backward())

    [<Benchmark(Baseline = true)>]
    member _.ClosedForm() = closedForm ()

    [<Benchmark>]
    member _.Autograd() = autograd ()

/// The gradient of a d × d head from a batch of 64: into a buffer, and as a new matrix.
type WeightGradients() =
    inherit Prepared()

    let mutable inPlace, fresh = ignore, ignore

    [<Params(256, 1024)>]
    member val D = 0 with get, set

    override w.Prepare _ =
        let g, x = normal 64 w.D "g", normal 64 w.D "x"
        let buffer = torch.zeros (int64 w.D, int64 w.D)
        inPlace <- freeing (fun () -> buffer.addmm_ (g.t (), x, 0.0f, 1.0f))
        fresh <- freeing (fun () -> Contrastive.weightGradient g x)

    [<Benchmark(Baseline = true)>]
    member _.InPlace() = inPlace ()

    [<Benchmark>]
    member _.New() = fresh ()

/// G − P̃ G P of the gradient G of a batch of 64, a quarter of the directions protected: through its low rank (making G is in it), from
/// bases of the spans, and with d × d projectors.
type Projections() =
    inherit Prepared()

    let mutable lowRank, bases, projectors = ignore, ignore, ignore

    [<Params(256, 1024)>]
    member val D = 0 with get, set

    override p.Prepare _ =
        let basis purpose =
            let struct (q, _) = torch.linalg.qr (normal p.D (p.D / 4) purpose)
            q

        let g, x, v, u = normal 64 p.D "g", normal 64 p.D "x", basis "v", basis "u"
        let full, partner, input = Contrastive.weightGradient g x, v.mm (v.t ()), u.mm (u.t ())
        let projected = x.mm input
        lowRank <- freeing (fun () -> Projection.lowRank v g x projected)
        bases <- freeing (fun () -> Projection.localUpdateFrom v u full)
        projectors <- freeing (fun () -> Projection.localUpdate partner input full)

    [<Benchmark(Baseline = true)>]
    member _.LowRank() = lowRank ()

    [<Benchmark>]
    member _.Bases() = bases ()

    [<Benchmark>]
    member _.Projectors() = projectors ()

/// What a step does once for each modality, with 10,000 rows: their moment, its spectrum, rotation of rows and head, and back.
type OnceAStep() =
    inherit Prepared()

    let mutable moment, spectrum, rotate, enter, leave = ignore, ignore, ignore, ignore, ignore

    [<Params(256, 1024)>]
    member val D = 0 with get, set

    override o.Prepare _ =
        let rows, weight = normal 10000 o.D "rows", torch.eye (int64 o.D)
        let made = Moment.ofRows rows
        let frame = Frame.ofMoments false made made
        let inside = Frame.enter frame weight
        let vectors = frame.Inputs.Vectors.``to`` torch.float32
        moment <- freeing (fun () -> Moment.ofRows rows)
        spectrum <- freeing (fun () -> Spectrum.decompose made.Matrix)
        rotate <- freeing (fun () -> Tensors.product rows vectors)
        enter <- freeing (fun () -> Frame.enter frame weight)
        leave <- freeing (fun () -> Frame.leave frame weight inside inside)

    [<Benchmark>]
    member _.Moment() = moment ()

    [<Benchmark>]
    member _.Spectrum() = spectrum ()

    [<Benchmark>]
    member _.RotateRows() = rotate ()

    [<Benchmark>]
    member _.EnterFrame() = enter ()

    [<Benchmark>]
    member _.LeaveFrame() = leave ()

/// Recall@10 of N matched rows of 512 numbers, by blocks of scores.
type Recall() =
    inherit Prepared()

    let mutable recall = ignore

    [<Params(1000, 10000)>]
    member val N = 0 with get, set

    override r.Prepare _ =
        let queries, keys = normal r.N 512 "queries", normal r.N 512 "keys"
        recall <- freeing (fun () -> Retrieval.recall [ 10 ] queries keys)

    [<Benchmark>]
    member _.Recall10() = recall ()
