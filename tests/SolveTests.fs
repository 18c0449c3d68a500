/// Methods that are solved: no rate, no epochs, no updates.
module Cmcl.Tests.SolveTests

open System
open System.Collections.Concurrent
open System.IO
open Cmcl
open Expecto
open Cmcl.Tests.Checks
open Cmcl.Tests.CheckpointTests
open TorchSharp

// ---- a closed form: regularised canonical correlations of all modalities seen so far, from moments alone ------------

type private Options = { Ridge: float }

let private ridge: Opt<Options, float> =
    Opt.make "ridge" "added to every eigenvalue, in shares of their mean" Codec.positive _.Ridge (fun v _ -> { Ridge = v })
    |> Opt.tried [ "1e-3"; "1e-2"; "1e-1" ]

let private second (m: Modality) = $"second/{m}"
let private cross (a: Modality) (b: Modality) = $"cross/{a}|{b}"

/// The memory with a step's second moments and its cross moment.
let private remember (memory: Memory) (task: Task) : Memory =
    let a, b = task.Pair.A, task.Pair.B

    let crossed =
        Tensors.scoped (fun () ->
            let wide (x: torch.Tensor) = x.``to`` torch.float64
            (wide (task.All a)).t().mm(wide (task.All b)) / (float task.Count).AsScalar())

    let add m = Memory.addMoment (second m) (Task.moment m task)
    memory |> add a |> add b |> Memory.addMoment (cross a b) { Count = task.Count; Matrix = crossed }

/// C^(−1/2), regularised.
let private whitening (o: Options) (c: torch.Tensor) : torch.Tensor =
    let struct (values, vectors) = torch.linalg.eigh c
    let scale = (values.clamp (min = (0.0).AsScalar()) .+ values.mean () * o.Ridge.AsScalar()).rsqrt()
    (vectors * scale).mm(vectors.t ())

let private solve (o: Options) (_: Context) (memory: Memory) (heads: Heads) (tasks: Task list) : Result<Solution, Fault list> =
    let memory = List.fold remember memory tasks
    let seen = [ for KeyValue(m, w) in heads |> Map.filter (fun m _ -> memory.ContainsKey(second m)) -> m, w ]

    let found =
        Tensors.scopedWith (fun (h: Heads) -> h.Values) (fun () ->
            let moment name = (Memory.moment name memory).Value.Matrix
            let white = Map [ for m, _ in seen -> m, whitening o (moment (second m)) ]

            let block (a, wa: torch.Tensor) (b, wb: torch.Tensor) =
                match Map.containsKey (cross a b) memory, Map.containsKey (cross b a) memory with
                | true, _ -> white[a].mm(moment (cross a b)).mm white[b]
                | _, true -> white[a].mm(moment(cross b a).t()).mm white[b]
                | _ -> torch.zeros (wa.shape[1], wb.shape[1], dtype = torch.float64)

            let rows = [| for a in seen -> torch.cat ([| for b in seen -> block a b |], 1L) |]
            let struct (values, vectors) = torch.linalg.eigh (torch.cat (rows, 0L))
            let d, all = (snd seen.Head).shape[0], values.shape[0]
            let weights = values.narrow(0L, all - d, d).clamp(min = (0.0).AsScalar()).sqrt()
            let directions = vectors.narrow (1L, all - d, d) * weights

            (0L, seen)
            ||> List.mapFold (fun first (m, w) ->
                let own = directions.narrow(0L, first, w.shape[1]).t().mm white[m]
                (m, own.``to`` w.dtype), first + w.shape[1])
            |> fst
            |> Map)

    Ok
        { Heads = Heads.replace found heads
          Memory = memory
          Remarks = [ $"solved over {seen.Length} modalities" ] }

let private make (o: Options) : Method = Method.solving "closed" "canonical correlations of all that was seen" (solve o)

let private closed: Spec<Options> = Spec.make { Ridge = 1e-2 } [ Opt.any ridge ] make

/// All steps at once.
let private jointly: Method =
    { make { Ridge = 1e-2 } with
        Name = "closed-joint"
        Curriculum = Curriculum.AllAtOnce
        Role = Role.Ceiling }

/// A method that trains, started from what another solves of its first step.
let private startedBy (solved: Method) (host: Method) : Method =
    match solved.Learner with
    | Learner.Solve solve ->
        let started = "started"

        { host with Name = $"{solved.Name}-{host.Name}" }
        |> Method.mapTrainer (fun trainer ->
            { Begin =
                fun context memory heads tasks ->
                    let heads =
                        if memory.ContainsKey started then
                            heads
                        else
                            (solve context Map.empty heads tasks |> Check.get).Heads

                    trainer.Begin context memory heads tasks
              End = fun context memory heads tasks -> trainer.End context memory heads tasks |> Map.add started (torch.tensor 1L) })
    | _ -> failtest "it is not solved"

// ---- runs ------------------------------------------------------------------------------------------------------------

let private entry = Spec.entry closed
let private find name = if name = "closed" then Ok entry else Registry.find name
let private resolve preset given methods = Plan.resolveWith find preset given methods
let private planOf (stream: Stream) text = resolve stream.Preset [] [ text ] |> Check.get |> List.exactlyOne

let private of' (stream: Stream) (m: Method) : Plan =
    Plan.resolve stream.Preset [] [ "vanilla[epochs=1]" ] |> Check.get |> List.exactlyOne |> Plan.withMethod m

let private told (stream: Stream) (plan: Plan) =
    let events = ResizeArray()
    let outcome = Train.run stream torch.CPU Split.Test 0 { Observer.silent with Tell = events.Add } plan |> Check.get
    List.ofSeq events, outcome

let private recall (after: int) (o: Cmcl.Outcome) : float =
    [ for r in o.Measurements do
          if r.Metric = "r10" && r.Step = after then
              r.Value ]
    |> List.average

/// Three small steps, each smaller than the usual batch.
let private small =
    lazy
        (let rows purpose =
            (Seed.normal [ 24L; 6L ] (Seed.ofInt 5 |> Seed.split purpose) |> Alignment.normalise).DetachFromDisposeScope()

         streamOf [ vision, text, rows "1a", rows "1b"; audio, text, rows "2a", rows "2b"; vision, audio, rows "3a", rows "3b" ])

let private refusal given text =
    resolve small.Value.Preset given [ text ] |> faultsOf |> List.map _.Message |> String.concat " | "

let private failing (name: string) (solve: unit -> Result<Solution, Fault list>) =
    Method.solving name "" (fun _ _ _ _ -> solve ())

let private inFolder (act: string -> unit) =
    let folder = Directory.CreateTempSubdirectory "cmcl-solve"

    try
        use scope = torch.NewDisposeScope()
        act folder.FullName
    finally
        folder.Delete true

let private running =
    testList
        "run"
        [ test "its heads find more than those before any step, step by step and all at once" (fun () ->
              let s = synthetic.Value
              let _, outcome = told s (planOf s "closed")
              let before, after = recall 0 outcome, recall s.Steps.Length outcome
              Expect.isGreaterThan after (before + 0.1) "step by step"
              let _, outcome = told s (of' s jointly)
              Expect.isGreaterThan (recall s.Steps.Length outcome) (before + 0.1) "all at once")

          test "a step that is solved is a unit of progress, and has no losses" (fun () ->
              let s = synthetic.Value

              for plan, solved in [ planOf s "closed", 6L; of' s jointly, 1L ] do
                  let events, outcome = told s plan
                  Expect.equal (Train.work s plan) solved plan.Label

                  let counts =
                      events
                      |> List.choose (function
                          | Event.Solved(_, sofar, total) -> Some(sofar, total)
                          | Event.Epoch _ -> failtest "an epoch"
                          | Event.Remark _ -> None)

                  Expect.equal counts [ for i in 1L .. solved -> i, solved ] $"{plan.Label}: counts"
                  Expect.isEmpty outcome.Losses $"{plan.Label}: losses"
                  let measured metric = outcome.Measurements |> List.filter (fun r -> r.Metric = metric)

                  for metric in [ "loss_before"; "loss_after"; "seconds_train"; "bytes_state" ] do
                      Expect.hasLength (measured metric) (int solved) $"{plan.Label}: {metric}"

                  Expect.isEmpty (measured "pairs_per_second") $"{plan.Label}: there is no rate"
                  Expect.hasLength (events |> List.filter _.IsRemark) (int solved) $"{plan.Label}: remarks"

              Expect.equal (Train.work s (planOf s "zero-shot")) 0L "nothing to do")

          test "it changes nothing that it is given, and leaves nothing" (fun () ->
              let s = small.Value
              let plan = planOf s "closed"
              Expect.equal (leaked (fun () -> told s plan |> ignore)) 0L "left"

              let task =
                  Task.ofPair
                      1
                      "one"
                      (Pair.named vision text)
                      (Seed.normal [ 9L; 6L ] (Seed.ofInt 1))
                      (Seed.normal [ 9L; 6L ] (Seed.ofInt 2))

              let heads = Heads.identity Dtype.Float64 torch.CPU 6L [ for m in Pair.members task.Pair -> m, 6L ]
              let memory = remember Map.empty task

              untouched "solving" (task.A :: task.B :: Heads.tensors heads @ List.ofSeq memory.Values) (fun () ->
                  solve closed.Defaults Unchecked.defaultof<Context> memory heads [ task ]))

          test "a run in pieces is the run, bit for bit" (fun () ->
              inFolder (fun folder ->
                  for every in [ 1; 2 ] do
                      let s = short.Value
                      let plan = planOf s "closed"
                      let outcome, pieces = inPieces (Path.Combine(folder, string every)) s 1 every plan
                      Expect.equal (figures outcome) (figures (whole s 1 plan)) $"left after {every}"
                      Expect.equal pieces (2 / every) $"pieces of {every}"))

          test "a job stops when it is asked to, and resumes after the steps that are over" (fun () ->
              inFolder (fun folder ->
                  let s = short.Value

                  let job =
                      { Stream = s
                        Order = 0
                        Plan = planOf s "closed"
                        Seed = 0
                        Protocol = protocol ()
                        AsWritten = None }

                  let settings =
                      { JobSettings.on (Store.Folder folder) with
                          Store = fun _ -> Store.Folder folder
                          Checkpointing = Checkpointing.auto }

                  let mutable asked = 0

                  let stop () =
                      asked <- asked + 1
                      asked = 2

                  Expect.equal (Job.run settings stop ignore job |> fst) CellEnd.Stopped "left"
                  let events = ResizeArray()

                  match Job.run settings (fun () -> false) events.Add job with
                  | CellEnd.Finished _, Some { Result = Ok result } ->
                      Expect.equal (figures result.Outcome) (figures (whole s 0 job.Plan)) "the same figures"
                      Expect.contains events (CellEvent.Resumed 2) "after two steps"
                      Expect.equal asked 2 "asked after every step"
                  | other -> failtest $"{other}")) ]

let private options =
    testList
        "options"
        [ test "it takes none of training, in brackets, for all, or from a preset" (fun () ->
              Expect.equal [ for o in Entry.takes entry -> o.Name ] [ "features"; "ridge" ] "takes"

              for o in Settings.options |> List.filter (fun o -> o.Info.Name <> Settings.features.Name) do
                  let name, value = o.Info.Name, o.Show Settings.initial
                  Expect.stringContains (refusal [] $"closed[{name}={value}]") $"'{name}' is not an option of closed" name

                  if not (Settings.measures name) then
                      Expect.stringContains (refusal [ name, value ] "closed") "changes nothing for closed" $"{name} for all"

              let preset =
                  { Common = Map [ "lr", "7"; "epochs", "9"; "batch", "3"; "dtype", "float64" ]
                    Methods = Map [ "closed", Map [ "ridge", "0.5" ] ]
                    Run = [] }

              let plan = resolve preset [] [ "closed" ] |> Check.get |> List.exactlyOne
              Expect.equal (Plan.effective plan) [ "features", "raw"; "ridge", "0.5" ] "in effect"
              let s = plan.Settings
              let first = Settings.initial
              Expect.equal (s.LearningRate, s.Epochs, s.Batch) (first.LearningRate, first.Epochs, first.Batch) "untouched"
              Expect.equal s.Dtype Dtype.Float64 "how figures are taken holds for all"

              let wrong =
                  { preset with
                      Methods = Map [ "closed", Map [ "lr", "1" ] ] }

              let message = resolve wrong [] [ "closed" ] |> faultsOf |> List.map _.Message |> String.concat " | "
              Expect.stringContains message "'lr' is not an option of closed" "a preset that says otherwise")

          test "neither its identity nor its record has them" (fun () ->
              let s = small.Value
              let plan = planOf s "closed"
              let identity = Identity.of' (protocol ()) s plan 0
              let result = Run.on s |> Run.method (Config.ofSpec closed) |> Run.seeds [ 0 ] |> Run.quietly |> Run.go
              let settings = (List.exactlyOne result.Info.Methods).Settings
              Expect.equal (List.ofSeq settings) [ "features", "raw"; "ridge", "0.01" ] "the record"

              for name in [ "lr"; "epochs"; "batch"; "optimizer"; "clip"; "shuffle" ] do
                  Expect.isFalse (identity.Contains $"\"{name}\"") $"{name} in {identity}")

          test "a batch larger than a step is no fault of it" (fun () ->
              let s = small.Value
              Expect.isEmpty (Plan.check s (planOf s "closed")) "closed"
              Expect.isNonEmpty (Plan.check s (planOf s "vanilla")) "vanilla")

          test "what is tuned of it is its own" (fun () ->
              Expect.equal (Grid.declared entry |> List.map _.Options) [ [ "ridge" ] ] "its axis"
              Expect.isEmpty (Grid.declared (Entry.ofMethod jointly)) "nothing")

          test "memory is asked for its rows" (fun () ->
              let s = synthetic.Value
              Expect.isGreaterThan (Estimate.cell s (of' s jointly)) (Estimate.cell s (planOf s "closed")) "all rows at once"
              Expect.isGreaterThan (Estimate.cell s (planOf s "closed")) (Estimate.cell s (planOf s "zero-shot")) "a step's rows")

          test "what it is not is refused" (fun () ->
              for f in
                  [ fun () -> Method.trainer (make closed.Defaults) |> ignore
                    fun () -> make closed.Defaults |> Method.beginning Training.plainSession |> ignore
                    fun () -> Plain.zeroShot |> Method.ending (fun _ memory _ _ -> memory) |> ignore ] do
                  Expect.stringContains (faultOf f).Message "does not train" "trainer"

              let solves = Method.trains (make closed.Defaults), Method.learns (make closed.Defaults)
              Expect.equal solves (false, true) "it learns"
              let traced = Trace.run small.Value torch.CPU 0 ignore (planOf small.Value "closed")

              match traced with
              | Error [ fault ] -> Expect.stringContains fault.Message "does not train" "verified"
              | _ -> failtest "it was verified"

              Expect.equal (Method.trains Plain.zeroShot, Method.learns Plain.zeroShot) (false, false) "it does not") ]

let private faults =
    testList
        "faults"
        [ test "what it returns ends the run, as does what it raises" (fun () ->
              let s = small.Value
              let fault = Fault.Contradiction("no solution", "have more rows")
              let ended solve = Train.run s torch.CPU Split.Test 0 Observer.silent (of' s (failing "mine" solve)) |> faultsOf
              Expect.equal (ended (fun () -> Error [ fault ])) [ fault ] "returned"
              Expect.equal (ended (fun () -> Check.fail fault)) [ fault ] "raised"
              let raised = Fault.NonFinite("moments", 3L)
              Expect.equal (ended (fun () -> Check.fail raised)) [ raised ] "not taken for divergence")

          test "heads that are not finite are no solution, and no divergence" (fun () ->
              let s = small.Value

              let infinite =
                  Method.solving "infinite" "" (fun _ memory heads _ ->
                      let far (w: torch.Tensor) = w * infinity.AsScalar()

                      Ok
                          { Heads = Heads.map far heads
                            Memory = memory
                            Remarks = [] })

              match Train.run s torch.CPU Split.Test 0 Observer.silent (of' s infinite) |> faultsOf with
              | [ Fault.Contradiction(what, _) ] -> Expect.stringContains what "solution of step 'step-1' is not finite" "what"
              | other -> failtest $"{other}")

          test "in a study the others go on" (fun () ->
              let result =
                  Run.on small.Value
                  |> Run.method (
                      Config.ofMethod (failing "mine" (fun () -> Error [ Fault.Contradiction("no solution", "have more rows") ]))
                  )
                  |> Run.method (Config.ofSpec closed)
                  |> Run.seeds [ 0 ]
                  |> Run.quietly
                  |> Run.go

              Expect.equal (result.Rows |> List.map _.Method |> List.distinct) [ "closed" ] "what is left"
              let _, _, why = List.exactlyOne result.Info.Failures
              Expect.stringContains why "no solution; have more rows" "why") ]

let private studies =
    testList
        "in a study"
        [ test "it has orders and seeds, beside methods that train, and its share grows to one" (fun () ->
              let shares = ConcurrentQueue()

              let see event =
                  match event with
                  | StudyEvent.Cell(cell, CellEvent.Progress p) -> shares.Enqueue(cell, p)
                  | _ -> ()

              let study =
                  Run.on small.Value
                  |> Run.method (Config.ofSpec closed |> Config.setTo ridge 0.1)
                  |> Run.method (Baseline.vanilla |> Learn.epochs 2 |> Learn.batch 6)
                  |> Run.seeds [ 0; 1 ]
                  |> Run.orders [ 0; 1 ]

              let result = study |> Run.tell see |> Run.go
              Expect.isEmpty result.Info.Failures "failures"

              for cell, own in shares |> Seq.groupBy fst do
                  let own = own |> Seq.map snd |> List.ofSeq
                  Expect.isTrue (own |> List.map _.Share |> List.pairwise |> List.forall (fun (a, b) -> a < b)) "it grows"
                  Expect.equal (List.last own).Share 1.0 "to one"
                  let solved = cell.Method.StartsWith "closed"
                  Expect.isTrue (own |> List.forall (fun p -> p.Epoch.IsNone = solved)) "epochs of what trains"

              for order in [ 0; 1 ] do
                  let stream = Order.apply order small.Value
                  let rows = if order = 0 then result.Rows else result.Orders[1]
                  let alone = whole stream 1 (planOf stream "closed[ridge=0.1]")

                  for r in alone.Measurements do
                      if r.Metric = "r10" then
                          Expect.exists
                              rows
                              (fun row ->
                                  row.Method = "closed[ridge=0.1]"
                                  && row.Seed = 1
                                  && row.Metric = "r10"
                                  && row.When = When.After(r.Step, r.Task)
                                  && row.Value = r.Value)
                              $"order {order}: step {r.Step}, task {r.Task}")

          test "alone its share is of its steps" (fun () ->
              let shares = ConcurrentQueue()

              let see event =
                  match event with
                  | StudyEvent.Cell(_, CellEvent.Progress p) -> shares.Enqueue p.Share
                  | _ -> ()

              Run.on small.Value |> Run.method (Config.ofSpec closed) |> Run.seeds [ 0 ] |> Run.tell see |> Run.go |> ignore
              Expect.equal (List.ofSeq shares) [ 1.0 / 3.0; 2.0 / 3.0; 1.0 ] "thirds")

          test "its heads can be asked for" (fun () ->
              let study = Run.on small.Value |> Run.method (Config.ofSpec closed) |> Run.seeds [ 0 ] |> Run.quietly
              let heads = Run.heads study
              let saved = ResizeArray()

              let observer =
                  { Observer.silent with
                      Save = fun _ h -> saved.Add(Heads.map (fun w -> w.clone().DetachFromDisposeScope()) h) }

              Train.run small.Value torch.CPU Split.Test 0 observer (planOf small.Value "closed") |> Check.get |> ignore
              Expect.hasLength saved 3 "saved after every step"

              for KeyValue(m, w) in heads.Heads do
                  identical $"{m}" w (Seq.last saved).[m]) ]

let private wrapped =
    testList
        "a method started by one that is solved"
        [ test "begins where that ends, trains on, and is the same in pieces" (fun () ->
              let s = short.Value
              let host = startedBy (make closed.Defaults) Plain.vanilla
              let starts = ResizeArray()

              let observer =
                  { Observer.silent with
                      Begin =
                          fun scene ->
                              starts.Add(scene.Session.Start |> Heads.map (fun w -> w.clone().DetachFromDisposeScope()))
                              None }

              let plan = of' s host
              Train.run s torch.CPU Split.Test 0 observer plan |> Check.get |> ignore
              let saved = ResizeArray()

              let solving =
                  { Observer.silent with
                      Save = fun _ h -> saved.Add(Heads.map (fun w -> w.clone().DetachFromDisposeScope()) h) }

              Train.run s torch.CPU Split.Test 0 solving (planOf s "closed") |> Check.get |> ignore

              for KeyValue(m, w) in starts[0] do
                  identical $"{m}" w saved.[0].[m]

              Expect.equal (Train.work s plan) (Train.work s (of' s Plain.vanilla)) "it trains"

              inFolder (fun folder ->
                  let outcome, _ = inPieces folder s 1 3 plan
                  Expect.equal (figures outcome) (figures (whole s 1 plan)) "in pieces")) ]

let tests = testList "Methods that are solved" [ running; options; faults; studies; wrapped ]
