/// What the tests share: random cases, tolerances by name, purity, small streams and runs.
module Cmcl.Tests.Checks

open System
open System.IO
open System.Text
open System.Threading
open System.Threading.Tasks
open Cmcl
open Expecto
open FsCheck
open FsCheck.FSharp
open TorchSharp

/// The root of the tree.
let root: string = Path.GetFullPath(Path.Combine(__SOURCE_DIRECTORY__, ".."))

/// Two computations of one quantity in float64.
let tight = 1e-12
/// The same after some hundred operations, or through an eigensolver.
let close = 1e-10
/// The same in float32.
let single = 1e-5

/// A random case: a seed, how many rows, the joint dimension, two feature dimensions, the rank of planted data.
type Case =
    { Seed: int
      N: int64
      D: int64
      Da: int64
      Db: int64
      Rank: int64 }

type Generators =
    static member Case() : Arbitrary<Case> =
        gen {
            let! seed = Gen.choose (0, 1_000_000)
            let! n = Gen.choose (2, 14)
            let! d = Gen.choose (2, 9)
            let! da = Gen.choose (2, 9)
            let! db = Gen.choose (2, 9)
            let! rank = Gen.choose (0, 6)

            return
                { Seed = seed
                  N = int64 n
                  D = int64 d
                  Da = int64 da
                  Db = int64 db
                  Rank = int64 rank }
        }
        |> Arb.fromGen

/// Random cases of a property; `CMCL_CASES=600` looks longer, for what fails one time in thousands.
let config =
    { FsCheckConfig.defaultConfig with
        arbitrary = [ typeof<Generators> ]
        maxTest =
            match Environment.GetEnvironmentVariable "CMCL_CASES" with
            | null -> 60
            | count -> int count }

/// A test in a scope of its own.
let test name (body: unit -> unit) =
    testCase name (fun () ->
        use scope = torch.NewDisposeScope()
        body ())

/// A property of random cases, each in a scope of its own; it fails by raising.
let property name (body: Case -> unit) =
    testPropertyWithConfig config name (fun (case: Case) ->
        use scope = torch.NewDisposeScope()
        body case)

/// Runs a property and expects that FsCheck finds a case against it.
let mustFail name (body: Case -> unit) =
    testCase name (fun () ->
        let quiet = Config.QuickThrowOnFailure.WithArbitrary([ typeof<Generators> ]).WithMaxTest 60

        let holds (case: Case) =
            use scope = torch.NewDisposeScope()
            body case

        Expect.throws (fun () -> Check.One(quiet, holds)) "the property should not hold")

/// The random numbers of a case for one purpose.
let draw (case: Case) (purpose: string) : Seed = Seed.ofInt case.Seed |> Seed.split purpose

/// A standard normal matrix (float64).
let normal (case: Case) (purpose: string) (rows: int64) (columns: int64) : torch.Tensor =
    Seed.normal [ rows; columns ] (draw case purpose)

/// A number in [0, 1).
let fraction (case: Case) (purpose: string) : float = float (draw case purpose).Value / 18446744073709551616.0

/// Data of a rank below the dimension: n × columns, rows in a subspace of at most `rank` dimensions.
let planted (case: Case) (purpose: string) (rank: int64) (rows: int64) (columns: int64) : torch.Tensor =
    (normal case (purpose + " latent") rows rank).mm(normal case (purpose + " basis") rank columns)

let number (x: float) = x.AsScalar()
let item (t: torch.Tensor) : float = Tensors.toFloat t
let entry (t: torch.Tensor) (i: int) (j: int) : float = item (t[int64 i, int64 j])

/// As nested arrays, for references that know nothing of tensors.
let values (t: torch.Tensor) : float[][] =
    [| for i in 0 .. int t.shape[0] - 1 -> [| for j in 0 .. int t.shape[1] - 1 -> entry t i j |] |]

/// ‖actual − expected‖ ≤ tolerance · max(1, ‖expected‖), and the same shape.
let same (what: string) (tolerance: float) (actual: torch.Tensor) (expected: torch.Tensor) : unit =
    Expect.sequenceEqual actual.shape expected.shape $"{what}: shape"
    let difference = Tensors.norm (actual.``to`` torch.float64 - expected.``to`` torch.float64)
    let allowed = tolerance * max 1.0 (Tensors.norm expected)
    Expect.isTrue (difference <= allowed) $"{what}: differs by {difference:E2}, allowed {allowed:E2}"

/// |actual − expected| ≤ tolerance · max(1, |expected|).
let near (what: string) (tolerance: float) (actual: float) (expected: float) : unit =
    Expect.isTrue (abs (actual - expected) <= tolerance * max 1.0 (abs expected)) $"{what}: {actual:R} is not {expected:R}"

/// A size that should be zero, against the size of what it is made of.
let vanishes (what: string) (tolerance: float) (size: float) (scale: float) : unit =
    Expect.isTrue (size <= tolerance * max 1e-300 scale) $"{what}: {size:E2} against {scale:E2} is not zero"

/// Every bit the same.
let identical (what: string) (actual: torch.Tensor) (expected: torch.Tensor) : unit =
    Expect.sequenceEqual actual.shape expected.shape $"{what}: shape"
    Expect.isTrue ((actual.contiguous().bytes).SequenceEqual(expected.contiguous().bytes)) $"{what}: bits differ"

/// Runs `f` and checks that every given tensor is alive and bit for bit what it was, and that no result shares its handle.
let untouched (what: string) (given: torch.Tensor list) (f: unit -> 'a) : unit =
    let before = given |> List.map (fun t -> t.contiguous().bytes.ToArray())
    f () |> ignore

    for t, bytes in List.zip given before do
        Expect.isFalse t.IsInvalid $"{what} freed what it was given"
        Expect.isTrue (t.contiguous().bytes.SequenceEqual(ReadOnlySpan bytes)) $"{what} changed what it was given"

/// Tensors that this thread made and still holds, while and after `f`.
let leaked (f: unit -> unit) : int64 =
    let live () = DisposeScopeManager.Statistics.TensorStatistics.ThreadTotalLiveCount
    let before = live ()
    f ()
    live () - before

/// Memory of this process that is no file's, in bytes.
let private anonymous () : int64 =
    let line = File.ReadLines "/proc/self/status" |> Seq.find _.StartsWith("RssAnon:")
    1024L * int64 (line.Replace("RssAnon:", "").Replace("kB", ""))

/// The most memory, in bytes, that `f` adds to what is this process's and no file's, until its tensors are freed; watched
/// every few milliseconds. Skips the test where the system does not tell it.
let taken (f: unit -> unit) : int64 =
    if not (OperatingSystem.IsLinux()) then
        skiptest "only Linux tells a process's memory apart from that of its files"

    use scope = torch.NewDisposeScope()
    use over = new ManualResetEventSlim()
    // What tests before this one left lying would be room for it.
    GC.Collect()
    GC.WaitForPendingFinalizers()
    Native.trim ()
    let before = anonymous ()

    let rec watch (most: int64) : int64 =
        let ended = over.Wait 5
        let most = max most (anonymous ())
        if ended then most else watch most

    let watching = Task.Run(fun () -> watch before)

    try
        f ()
    finally
        over.Set()

    watching.Result - before

/// Writes a float16 matrix of zeros as a `.npy` file that takes hardly any room: a header, and a length.
let zeros (path: string) (rows: int64) (columns: int64) : unit =
    let header = $"{{'descr': '<f2', 'fortran_order': False, 'shape': ({rows}, {columns}), }}"
    use stream = File.Create path

    stream.Write(
        ReadOnlySpan [| 0x93uy; yield! "NUMPY\x01\x00v\x00"B; yield! Encoding.ASCII.GetBytes(header.PadRight 117 + "\n") |]
    )

    stream.SetLength(128L + 2L * rows * columns)

/// The fault that a call raises.
let faultOf (f: unit -> 'a) : Fault =
    try
        f () |> ignore
        failtest "expected a fault"
    with CmclException fault ->
        fault

/// The faults of a result that should be one.
let faultsOf (result: Result<'a, Fault list>) : Fault list =
    match result with
    | Ok _ -> failtest "expected faults"
    | Error faults -> faults

let vision, text, audio, depth = "vision", "text", "audio", "depth"

let modality = Modality.named

/// The pair of most cases.
let pair = Pair.named vision text

/// Random heads of both its modalities, d × d_a and d × d_b.
let heads (c: Case) (purpose: string) : Heads =
    Map [ pair.A, normal c (purpose + " a") c.D c.Da; pair.B, normal c (purpose + " b") c.D c.Db ]

/// A stream over given matched rows, all of them for training and for the test.
let streamOf (steps: (string * string * torch.Tensor * torch.Tensor) list) : Stream =
    let bank i name x =
        { Name = $"{name}:{i}"
          Modality = modality name
          Features = x }

    let step i (a, b, xa: torch.Tensor, xb) =
        let rows = [| 0L .. xa.shape[0] - 1L |]

        { Index = i + 1
          Name = $"step-{i + 1}"
          A = bank i a xa
          B = bank i b xb
          Pair = Pair.named a b
          Pairs = None
          Train = rows
          Validation = rows
          Test = rows
          Accuracy = None }

    let steps = List.mapi step steps

    { Name = "made"
      Description = ""
      Digest = ""
      Banks =
        Map
            [ for s in steps do
                  s.A.Name, s.A
                  s.B.Name, s.B ]
      Steps = steps
      Groups = Map.empty
      Heads = None
      Preset = { Common = Map.empty; Methods = Map.empty; Run = [] } }

/// The synthetic stream of the project's measurements; it outlives every scope.
let synthetic: Lazy<Stream> =
    lazy
        (let stream = Synthetic.make Synthetic.defaults (Seed.ofInt 7)

         for bank in stream.Banks.Values do
             bank.Features.DetachFromDisposeScope() |> ignore

         for step in stream.Steps do
             step.Accuracy |> Option.iter (fun a -> a.Prototypes.DetachFromDisposeScope() |> ignore)

         stream)

let firstSteps (count: int) (stream: Stream) : Stream = { stream with Steps = List.take count stream.Steps }

/// The first three steps of that.
let short: Lazy<Stream> = lazy (firstSteps 3 synthetic.Value)

/// Why what users write is refused on a stream, a fault a line.
let refusedAs (stream: Stream) (text: string) : string =
    Plan.resolve stream.Preset [] [ text ] |> faultsOf |> List.map _.Message |> String.concat "\n"

/// A step's context without heads or old steps, for methods by themselves.
let context (settings: Settings) : Context =
    { Settings = settings
      Device = torch.CPU
      Seed = Seed.ofInt 1
      Initial = Map.empty
      Updates = 10L
      Old = []
      Remaining = 1 }

/// One plan in float64 under a stream's preset. Example: `plan stream "dns[exact=on]"`.
let plan (stream: Stream) (written: string) : Plan =
    let plan = Plan.resolve stream.Preset [] [ written ] |> Check.get |> List.exactlyOne

    { plan with
        Settings = { plan.Settings with Dtype = Dtype.Float64 } }

/// What a plan leaves, and the heads after each step that trained.
let runPlan (stream: Stream) (seed: int) (plan: Plan) : Cmcl.Outcome * Map<int, Heads> =
    let mutable saved = Map.empty

    let save (step: Step) (heads: Heads) =
        saved <- Map.add step.Index (Heads.map (fun w -> w.clone().DetachFromDisposeScope()) heads) saved

    let outcome = Train.run stream torch.CPU Split.Test seed { Observer.silent with Save = save } plan |> Check.get
    outcome, saved

/// The same by what users write.
let run (stream: Stream) (seed: int) (written: string) : Cmcl.Outcome * Map<int, Heads> =
    runPlan stream seed (plan stream written)

/// All values of a metric: (after which step, of which step's data, value).
let measurements (metric: string) (outcome: Cmcl.Outcome) : (int * int * float) list =
    [ for r in outcome.Measurements do
          if r.Metric = metric then
              r.Step, r.Task, r.Value ]

/// A request run without checkpoints, in a folder that is locked for it.
let experiment (tell: StudyEvent -> unit) (request: Request) : Result<Finished, Fault list> =
    FolderLock.Holding request.Out (fun folder ->
        Experiment.run folder Checkpointing.none (fun () -> false) DateTimeOffset.UnixEpoch tell request)
