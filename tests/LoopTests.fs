module Cmcl.Tests.LoopTests

open Cmcl
open Expecto
open Cmcl.Tests.Checks
open TorchSharp

let private pair = Pair.named vision text

let private settings batch epochs shuffle : Settings =
    { Settings.initial with
        Batch = batch
        Epochs = epochs
        Shuffle = shuffle
        Dtype = Dtype.Float64
        Optimiser = Optimiser.Sgd
        WeightDecay = 0.0
        Clip = None }

let private task index (rows: int64) : Task =
    let numbers () = ((Tensors.range torch.CPU 0L rows).``to`` torch.float64).unsqueeze 1L
    Task.ofPair index $"task {index}" pair (numbers ()) (numbers ())

let private start () : Heads = Map [ for m in Pair.members pair -> m, torch.eye (1L, dtype = torch.float64) ]

/// A session that learns nothing and writes down which rows it is given. `loss` is the i-th batch's.
let private recording (seen: ResizeArray<int * int64[]>) (loss: int -> float) (tasks: Task list) : Session =
    { Start = start ()
      Data = tasks
      Direction =
        Direction.Of(fun weights batch ->
            Expect.equal
                (batch.A.data<float>().ToArray())
                (batch.Numbers.data<int64>().ToArray() |> Array.map float)
                "the rows it says"

            seen.Add(batch.Task, batch.Numbers.data<int64>().ToArray())

            { Loss = torch.tensor (loss (seen.Count - 1))
              Gradients = Heads.map torch.zeros_like weights })
      Kept = Map.empty
      Rule = Rule.Chain Transform.identity
      Finish = id
      Spectra = []
      Remarks = [] }

/// The (task, rows) of all batches in order, and the epochs' losses.
let private watch settings seed (counts: int64 list) =
    let seen, epochs = ResizeArray(), ResizeArray()
    let session = recording seen float (counts |> List.mapi task)

    let result =
        Loop.train
            settings
            (Seed.ofInt seed)
            { Watch.silent with
                Epoch = (fun e loss n -> epochs.Add(e, loss, n)) }
            session

    Expect.isOk result "trained"
    List.ofSeq seen, List.ofSeq epochs

let tests =
    testList
        "Loop"
        [ test "batches are full, a smaller last one counts, a single last row does not" (fun () ->
              for size, n, expected in [ 4, 12L, 3L; 4, 14L, 4L; 4, 13L, 3L; 4, 4L, 1L; 4, 3L, 1L; 2, 3L, 1L; 4, 1L, 0L ] do
                  Expect.equal (Loop.batches (BatchSize.Rows size) n) expected $"{n} rows by {size}"

              Expect.equal (Loop.batches BatchSize.All 13L) 1L "all"
              Expect.equal (Loop.updates (settings (BatchSize.Rows 4) 5 true) [ 12L; 14L ]) 35L "updates")

          property "the count of batches is what the loop makes" (fun c ->
              let size = BatchSize.Rows(2 + int (5.0 * fraction c "size"))
              let counts = [ c.N; c.D + 1L; c.Da ]
              let s = settings size 2 (fraction c "shuffle" < 0.5)
              let seen, epochs = watch s c.Seed counts
              Expect.equal (int64 seen.Length) (Loop.updates s counts) "updates"

              Expect.equal
                  (epochs |> List.map (fun (_, _, n) -> n))
                  [ Loop.updates { s with Epochs = 1 } counts; Loop.updates s counts ]
                  "told")

          property "every row once an epoch, but for a single last one" (fun c ->
              let seen, _ = watch (settings (BatchSize.Rows 3) 1 true) c.Seed [ c.N; c.D ]

              for position, n in [ 0, c.N; 1, c.D ] do
                  let rows = seen |> List.filter (fst >> (=) position) |> List.map snd |> Array.concat
                  Expect.equal (Array.distinct rows).Length rows.Length "no row twice"
                  Expect.equal (int64 rows.Length) (if n % 3L = 1L then n - 1L else n) "as many as there are"
                  Expect.isTrue (rows |> Array.forall (fun r -> r >= 0L && r < n)) "of the task")

          test "unshuffled rows come in their order, shuffled ones anew each epoch" (fun () ->
              let seen, _ = watch (settings (BatchSize.Rows 4) 2 false) 1 [ 10L ]
              Expect.equal (seen |> List.map snd |> Array.concat) (Array.append [| 0L .. 9L |] [| 0L .. 9L |]) "in order"
              let seen, _ = watch (settings (BatchSize.Rows 20) 2 true) 1 [ 20L ]
              let first, second = snd seen[0], snd seen[1]
              Expect.notEqual first [| 0L .. 19L |] "shuffled"
              Expect.notEqual first second "anew"
              Expect.equal (Array.sort first) (Array.sort second) "the same rows")

          test "several tasks are mixed when shuffled, and one after another when not" (fun () ->
              let order shuffle = watch (settings (BatchSize.Rows 2) 1 shuffle) 3 [ 20L; 20L ] |> fst |> List.map fst
              Expect.equal (order false) (List.replicate 10 0 @ List.replicate 10 1) "in order"
              Expect.notEqual (order true) (order false) "mixed"
              Expect.equal (List.sort (order true)) (order false) "all of them")

          test "an epoch's loss is the mean of its batches" (fun () ->
              let _, epochs = watch (settings (BatchSize.Rows 2) 2 false) 1 [ 6L ]
              Expect.equal epochs [ 1, 1.0, 3L; 2, 4.0, 6L ] "losses 0 1 2, then 3 4 5")

          test "a loss that is not finite ends it in its epoch" (fun () ->
              for bad in [ nan; infinity ] do
                  let seen = ResizeArray()
                  let session = recording seen (fun i -> if i = 4 then bad else 1.0) [ task 0 6L ]
                  let result = Loop.train (settings (BatchSize.Rows 2) 3 false) (Seed.ofInt 0) Watch.silent session
                  Expect.equal (Result.map ignore result) (Error(Unfinished.Diverged 2)) "epoch 2"
                  Expect.equal seen.Count 5 "and no batch more")

          test "weights that are not finite after the last update end it too" (fun () ->
              let session =
                  { recording (ResizeArray()) (fun _ -> 1.0) [ task 0 6L ] with
                      Rule = Rule.Chain(Transform.stateless (fun _ u _ -> u.plus (infinity))) }

              let result = Loop.train (settings BatchSize.All 1 false) (Seed.ofInt 0) Watch.silent session
              Expect.equal (Result.map ignore result) (Error(Unfinished.Diverged 1)) "epoch 1")

          test "the start is copied, the result is the caller's, and nothing else is left" (fun () ->
              let given = start ()

              let plain =
                  { recording (ResizeArray()) (fun _ -> 1.0) [ task 0 12L ] with
                      Start = given }

              for name, transform in [ "adam", Optim.adam; "chain", Transform.chain [ Optim.adam; Optim.decay 0.1 0L ] ] do
                  let session = { plain with Rule = Rule.Chain transform }
                  let counts = ResizeArray()
                  let live () = DisposeScopeManager.Statistics.TensorStatistics.ThreadTotalLiveCount

                  untouched name (Heads.tensors given) (fun () ->
                      use scope = torch.NewDisposeScope()
                      let before = live ()

                      let trained =
                          Loop.train
                              (settings (BatchSize.Rows 4) 6 true)
                              (Seed.ofInt 0)
                              { Watch.silent with
                                  Epoch = fun _ _ _ -> counts.Add(live ()) }
                              session

                      Expect.equal (live () - before) 2L $"{name}: the two weights are left"

                      for w in (trained |> Result.map _.Weights |> Result.defaultValue Map.empty).Values do
                          Expect.isFalse w.IsInvalid "alive")

                  Expect.hasLength (Seq.distinct (Seq.skip 1 counts)) 1 $"{name}: as many tensors after every epoch") ]
