/// Random columns beside features: what they are, and that all that holds for linear heads holds for heads of them.
module Cmcl.Tests.LiftTests

open System
open System.IO
open Cmcl
open Expecto
open Cmcl.Tests.Checks
open Cmcl.Tests.CliTests
open TorchSharp

/// The command by its words, and what it left: exit code, output, errors.
let private told (line: string) : int * string =
    let told = cmcl (List.ofArray (line.Split(' ', StringSplitOptions.RemoveEmptyEntries)))
    told.Code, told.Error

let private relu = { Lift.relu 6 with Scale = 0.5 }
let private cos = { Lift.cos 6 with Scale = 0.7 }

let private directions (c: Case) (lift: Lift) : LiftDirections = Lift.drawn { Lift = lift; Seed = c.Seed } pair.A c.Da

let private numbers (t: torch.Tensor) : float[] = t.contiguous().data<float>().ToArray()

/// The columns one by one, by their definition.
let private byHand (d: LiftDirections) (x: torch.Tensor) : float[] =
    let r, p = numbers d.Normal, numbers d.Phases
    let n, columns, added = int x.shape[0], int x.shape[1], d.Lift.Columns
    let x = numbers x

    [| for i in 0 .. n - 1 do
           let row = x[i * columns .. (i + 1) * columns - 1]
           let norm = sqrt (Array.sumBy (fun v -> v * v) row)

           for j in 0 .. added - 1 do
               let along = Seq.sum (Seq.mapi (fun k v -> v * r[k * added + j]) row)

               let made =
                   match d.Lift.Kind with
                   | LiftKind.Relu -> max 0.0 (along - d.Lift.Scale * norm)
                   | LiftKind.Cos -> sqrt 2.0 * norm * Math.Cos(d.Lift.Scale * along / norm + p[j])

               made / sqrt (float added) |]

let private functions =
    testList
        "functions"
        [ property "features as they are, and beside them the columns of the definition" (fun c ->
              let x = normal c "x" c.N c.Da

              for lift in [ relu; cos ] do
                  let d = directions c lift
                  let y = Lift.rows d x
                  identical "the features" (y.narrow (1L, 0L, c.Da)) x
                  let added = y.narrow (1L, c.Da, int64 lift.Columns)
                  same "the columns" tight added (torch.tensor(byHand d x).reshape(added.shape))
                  untouched "rows" [ x; d.Normal; d.Phases ] (fun () -> Lift.rows d x))

          property "of the first degree, and each row for itself" (fun c ->
              let x = normal c "x" c.N c.Da

              for lift in [ relu; cos ] do
                  let d = directions c lift
                  let y = Lift.rows d x
                  same "three times the row" tight (Lift.rows d (x * 3.0.AsScalar())) (y * 3.0.AsScalar())
                  same "one row" tight (Lift.rows d (x.narrow (0L, 0L, 1L))) (y.narrow (0L, 0L, 1L))
                  same "nothing of nothing" tight (Lift.rows d (torch.zeros_like x)) (torch.zeros_like y))

          property "a bounded size: no row grows by more than its directions have" (fun c ->
              let x = normal c "x" c.N c.Da
              let d = directions c cos
              let added = (Lift.rows d x).narrow(1L, c.Da, 6L).norm 1
              let limit = x.norm 1 * (sqrt 2.0 + 1e-12).AsScalar()
              Expect.isTrue (added.le(limit).all().item<bool>()) "√2 ‖x‖")

          property "drawn by seed and modality alone" (fun c ->
              let draw seed m = (Lift.drawn { Lift = relu; Seed = seed } (modality m) c.Da).Normal
              identical "again" (draw c.Seed vision) (draw c.Seed vision)
              Expect.isFalse ((draw c.Seed vision).Equals(draw (c.Seed + 1) vision)) "another seed"
              Expect.isFalse ((draw c.Seed vision).Equals(draw c.Seed text)) "another modality"
              let single = (draw c.Seed vision).``to``(torch.float32).``to`` torch.float64
              identical "numbers of float32" single (draw c.Seed vision))

          property "heads that know nothing of the columns give the outputs that they gave" (fun c ->
              let w, x = heads c "w", normal c "x" c.N c.Da
              let lifted = Lift.heads (Some relu) w
              let y = Heads.outputs lifted[pair.A] (Lift.rows (directions c relu) x)
              same "outputs" tight y (Heads.outputs w[pair.A] x)
              untouched "heads" (Heads.tensors w) (fun () -> Lift.heads (Some relu) w |> Heads.tensors |> List.head))

          test "texts of every lift are read as they are written" (fun () ->
              for lift in [ None; Some relu; Some cos; Some(Lift.relu 512); Some(Lift.cos 1) ] do
                  Expect.equal (Lift.parse (Lift.show lift)) (Some lift) (Lift.show lift)

              Expect.equal (Lift.show (Some(Lift.relu 512))) "relu:512" "the usual scale is not written"

              for l in [ None; Some { Lift = relu; Seed = -3 } ] do
                  Expect.equal (Lift.ofTexts "x" (Map(Lift.texts l)) |> Check.get) l (Lift.describe l))

          test "features that cannot be drawn again are refused" (fun () ->
              let refused texts (part: string) =
                  match Lift.ofTexts "the file" (Map texts) with
                  | Error [ fault ] -> Expect.stringContains fault.Message part part
                  | other -> failtest $"{other}"

              refused [ "features", "relu:4" ] "by which seed"
              refused [ "features", "tanh:4"; "seed", "1" ] "relu:D"
              let d = Lift.draw (Seed.ofInt 0) pair.A 5L relu

              match faultOf (fun () -> Lift.rows d (torch.ones (2L, 4L))) with
              | Fault.Shape _ -> ()
              | other -> failtest other.Message) ]

// ---- runs --------------------------------------------------------------------------------------------------------

/// Rows of rank 3 in 6 columns: lifted by four columns there are 10, and a null space is left.
let private stream: Lazy<Stream> =
    lazy
        (let rows name n =
            let seed = Seed.ofInt 11 |> Seed.split name
            let inside = Seed.normal [ n; 3L ] (Seed.split "rows" seed)
            let basis = Seed.normal [ 3L; 6L ] (Seed.split "basis" seed)
            inside.mm(basis).DetachFromDisposeScope()

         let shared name (of': torch.Tensor) =
             (of'.mm (Seed.normal [ 6L; 6L ] (Seed.ofInt 12 |> Seed.split name))).DetachFromDisposeScope()

         let first, second = rows "first" 40L, rows "second" 40L

         streamOf
             [ vision, text, first, shared "text" first
               vision, depth, second, shared "depth" second
               text, depth, shared "text" second, shared "depth" second ])

let private settings = "epochs=2;batch=8;lr=1e-2;features=relu:4:0.5"

let private last (heads: Map<int, Heads>) : Heads = heads[Seq.max heads.Keys]

/// Scores of a step's training rows under heads, lifted as the run with seed 0 lifts them.
let private scores (heads: Heads) (step: Step) : torch.Tensor =
    let outputs m (bank: Bank) =
        let d = Lift.drawn { Lift = { Lift.relu 4 with Scale = 0.5 }; Seed = 0 } m bank.Features.shape[1]
        Heads.outputs (Heads.weight m heads) (Lift.rows d bank.Features)

    (outputs step.Pair.A step.A).mm((outputs step.Pair.B step.B).t())

let private runs =
    testList
        "runs"
        [ test "a method that learns nothing has no use for them" (fun () ->
              match Plan.resolve stream.Value.Preset [] [ "zero-shot[features=relu:4]" ] with
              | Error [ fault ] -> Expect.stringContains fault.Message "'features' is not an option of zero-shot" "the sentence"
              | other -> failtest $"{other}"

              let all = Plan.resolve stream.Value.Preset [ "features", "relu:4" ] [ "zero-shot"; "cca" ] |> Check.get
              Expect.equal [ for p in all -> p.Settings.Features ] [ None; Some(Lift.relu 4) ] "set for all")

          test "every method that trains or solves takes them, from heads that do not see them yet" (fun () ->
              for entry in Registry.entries |> List.filter (fun e -> Method.learns e.Method) do
                  let options =
                      if Method.trains entry.Method then "epochs=1;batch=8;lr=1e-2;features=relu:4" else "features=relu:4"

                  let _, heads = run stream.Value 0 $"{entry.Method.Name}[{options}]"
                  let own = if entry.Method.Bias then 1L else 0L

                  // One that starts again at every step has the heads of the last one alone.
                  for m in Pair.members (List.last stream.Value.Steps).Pair do
                      let w = Heads.weight m (last heads)
                      Expect.equal w.shape [| 6L; 10L + own |] $"{entry.Method.Name}: {m}"
                      Expect.isGreaterThan (Tensors.norm (w.narrow (1L, 6L, 4L))) 0.0 $"{entry.Method.Name}: columns are used")

          test "old scores stand where the method promises that, on the lifted features" (fun () ->
              let deviation written =
                  let _, heads = run stream.Value 0 written
                  let first = stream.Value.Steps.Head
                  Tensors.relativeDifference (scores (last heads) first) (scores heads[1] first)

              Expect.isLessThan
                  (deviation $"dns[exact=on;threshold=relative:1e-10;partner-threshold=relative:1e-10;{settings}]")
                  1e-9
                  "dns"

              Expect.isGreaterThan (deviation $"vanilla[{settings}]") 1e-3 "and must fail: vanilla")

          test "what is measured of old scores is what rows say, and the certificate is not below it" (fun () ->
              for written in [ $"vanilla[{settings}]"; $"dns-trust[budget=0.05;{settings}]"; $"dns-soft[{settings}]" ] do
                  let outcome, heads = run stream.Value 0 written

                  let value metric =
                      measurements metric outcome
                      |> List.find (fun (step, task, _) -> (step, task) = (3, 1))
                      |> fun (_, _, v) -> v

                  let first = stream.Value.Steps.Head
                  let truth = Tensors.relativeDifference (scores heads[3] first) (scores heads[1] first)
                  near $"{written}: deviation" 1e-9 (value "deviation_rel") truth
                  near $"{written}: without rows" 1e-9 (value "monitor_rel") truth
                  Expect.isGreaterThanOrEqual (value "bound_rel" * (1.0 + 1e-9)) truth $"{written}: bound")

          test "rows that are read batch by batch give the run of rows that are held" (fun () ->
              let p = plan stream.Value $"vanilla[{settings}]"
              let held = Train.run stream.Value torch.CPU Split.Test 0 Observer.silent p |> Check.get

              let read =
                  Train.runWithin { Limits.usual with Rows = 0L } stream.Value torch.CPU Split.Test 0 Observer.silent p
                  |> Check.get

              for (_, _, a), (_, _, b) in List.zip (measurements "loss_after" held) (measurements "loss_after" read) do
                  near "loss_after" 1e-9 b a)

          test "closed forms of them do not depend on the order of steps, and take no prior" (fun () ->
              let products (h: Heads) = h[modality vision].t().mm h[modality text]
              let of' order = run (Order.apply order stream.Value) 0 "cca[features=cos:4;ridge=0.1]" |> snd |> last |> products
              Expect.isLessThan (Tensors.relativeDifference (of' 2) (of' 0)) 1e-8 "scores"

              let prior = plan stream.Value "cca[features=cos:4;prior=1]"

              match Train.run stream.Value torch.CPU Split.Test 0 Observer.silent prior with
              | Error [ fault ] -> Expect.stringContains fault.Message "leave the prior at 0" "the sentence"
              | other -> failtest $"{other}")

          test "the seed of a run draws them, and the identity knows of them" (fun () ->
              let heads seed = run stream.Value seed "cca[features=relu:4]" |> snd |> last
              identical "again" (heads 0).[modality vision] (heads 0).[modality vision]
              Expect.isFalse ((heads 0).[modality vision].Equals (heads 1).[modality vision]) "another seed"

              let identity written =
                  Identity.of'
                      { Split = Split.Test
                        Device = torch.CPU
                        Threads = 1
                        Monitor = None }
                      stream.Value
                      (plan stream.Value written)
                      0

              let all = [ for f in [ ""; "[features=relu:4]"; "[features=relu:5]"; "[features=cos:4]" ] -> identity $"cca{f}" ]
              Expect.equal (List.distinct all).Length 4 "each its own"
              Expect.equal (identity "cca[features=raw]") all.Head "raw is no part of it"
              Expect.isFalse (all.Head.Contains "features") "so that earlier results stand") ]

// ---- files -------------------------------------------------------------------------------------------------------

let private save (folder: string) (name: string) (x: torch.Tensor) : string =
    let path = Path.Combine(folder, name)
    Npy.write path x |> Check.get
    path

let private files =
    testList
        "files"
        [ test "a file of heads carries its lift, and apply draws it again" (fun () ->
              inFolder (fun folder ->
                  let c = { Seed = 5; N = 9L; D = 4L; Da = 5L; Db = 5L; Rank = 0L }
                  let w = normal c "w" 4L 11L
                  let x = normal c "x" 9L 5L
                  let lift = { Lift = relu; Seed = 7 }
                  let path = Path.Combine(folder, "heads.safetensors")

                  SavedHeads.write
                      path
                      { Heads = Map [ pair.A, w ]
                        About = Map(("bias", "no") :: Lift.texts (Some lift)) }
                  |> Check.get

                  let saved = SavedHeads.read path |> Check.get
                  let into = Path.Combine(folder, "y.npy")
                  Projected.file Scoring.Raw saved pair.A (save folder "x.npy" x) into |> Check.get |> ignore
                  let expected = Heads.outputs w (Lift.rows (Lift.drawn lift pair.A 5L) x)
                  same "outputs" tight (Npy.read into |> Check.get) expected

                  match Projected.head saved pair.A 6L with
                  | Error [ fault ] -> Expect.stringContains fault.Message "6 of features=relu:6:0.5" "what stands beside"
                  | other -> failtest $"{other}"))

          test "a run's heads, exported, give the run's outputs" (fun () ->
              inFolder (fun folder ->
                  let out, heads = Path.Combine(folder, "run"), Path.Combine(folder, "heads.safetensors")

                  let code, error =
                      told
                          $"run --stream synthetic --methods cca --features relu:8 --seeds 3 --save-weights --out {out} --quiet"

                  Expect.equal (code, error) (0, "") "run"
                  let code, error = told $"export {out} --method cca --seed 3 --out {heads} --quiet"
                  Expect.equal (code, error) (0, "") "export"
                  let saved = SavedHeads.read heads |> Check.get
                  Expect.equal (Map.tryFind "features" saved.About) (Some "relu:8") "features"
                  Expect.equal (Map.tryFind "seed" saved.About) (Some "3") "seed"
                  let columns = synthetic.Value.Steps.Head.A.Features.shape[1]
                  Expect.isTrue (Projected.head saved (modality "vision") columns).IsOk "it takes what the encoders give"))

          test "moments of shards are of one lift, and solve makes heads that carry it" (fun () ->
              inFolder (fun folder ->
                  let c = { Seed = 1; N = 30L; D = 4L; Da = 5L; Db = 5L; Rank = 0L }
                  let xa, xb = normal c "a" 30L 5L, normal c "b" 30L 5L
                  let a, b = save folder "a.npy" xa, save folder "b.npy" xb
                  let place name = Path.Combine(folder, name)

                  let pairs name options =
                      let code, error = told $"moments pair vision={a} text={b} -o {place name} --quiet {options}"
                      Expect.equal (code, error) (0, "") name

                  pairs "lifted.safetensors" "--features relu:6:0.5 --seed 2"
                  pairs "raw.safetensors" ""
                  let lift = { Lift = relu; Seed = 2 }
                  let made = JointMomentFile.read (place "lifted.safetensors") |> Check.get
                  Expect.equal made.Lift (Some lift) "the lift"
                  let phi = Lift.rows (Lift.drawn lift (modality vision) 5L) xa
                  same "its moment" tight made.Moments.Second.[modality vision].Sum (phi.t().mm phi)

                  let code, error =
                      told
                          $"""moments merge {place "lifted.safetensors"} {place "raw.safetensors"} -o {place "x.safetensors"}"""

                  Expect.equal code 2 "refused"
                  Expect.stringContains error "of features relu:6:0.5, seed 2" "what they are of"

                  let code, error = told $"""solve {place "lifted.safetensors"} -o {place "h.safetensors"} --quiet"""

                  Expect.equal (code, error) (0, "") "solve"
                  let saved = SavedHeads.read (place "h.safetensors") |> Check.get
                  Expect.equal saved.Heads.[modality vision].shape [| 5L; 11L |] "rows by the features, columns by the lift"
                  Expect.isTrue (Projected.head saved (modality vision) 5L).IsOk "and takes features as they came"

                  let code, error = told $"""solve {place "lifted.safetensors"} -o {place "h2.safetensors"} --prior 1"""

                  Expect.equal code 2 "no prior"
                  Expect.stringContains error "leave the prior at 0" "the sentence")) ]

let tests = testList "Lift" [ functions; runs; files ]
