/// DNS in one solve: what it promises of old scores, and its limits.
module Cmcl.Tests.DnsClosedTests

open Cmcl
open Expecto
open Cmcl.Tests.Checks
open TorchSharp

let private other = modality audio

let private context (old: OldStep list) : Context =
    { Settings = Settings.initial
      Device = torch.CPU
      Seed = Seed.ofInt 1
      Initial = Map.empty
      Updates = 0L
      Old = old
      Remaining = 2 }

let private width (c: Case) (m: string) = if m = text then c.Db else c.Da

/// Heads of three modalities, and three old steps: of the pair itself, and of each of its modalities with a third.
let private old (c: Case) : Heads * (Pair * torch.Tensor * torch.Tensor) list =
    heads c "w" |> Map.add other (normal c "w other" c.D c.Da),
    [ for i, (a, b) in List.indexed [ vision, text; vision, audio; audio, text ] ->
          let n = c.N + int64 i
          Pair.named a b, normal c $"{i} a" n (width c a), normal c $"{i} b" n (width c b) ]

/// The solution of a new step of the pair after the old ones.
let private solved (o: DnsClosed.Options) (c: Case) : Heads * Heads * (Pair * torch.Tensor * torch.Tensor) list =
    let before, steps = old c
    let tasks = [ for i, (p, xa, xb) in List.indexed steps -> Task.ofPair (i + 1) "old" p xa xb ]
    let memory = History.add PartnerOutputs.Current Centring.Uncentred before tasks Map.empty
    let kept = [ for i, (p, xa, xb) in List.indexed steps -> OldStep.ofRows (i + 1) p before xa xb ]
    let t = Task.ofPair 4 "new" pair (normal c "xa" (c.N + 3L) c.Da) (normal c "xb" (c.N + 3L) c.Db)

    match (DnsClosed.dnsClosed.Make o).Learner with
    | Learner.Solve solve ->
        let given = Heads.tensors before @ List.ofSeq memory.Values @ [ t.A; t.B ]
        let mutable after = before

        untouched "a step" given (fun () ->
            let s = solve (context kept) memory before [ t ] |> Check.getAll

            Expect.isFalse
                (Seq.exists
                    (fun (w: torch.Tensor) -> s.Memory.Values |> Seq.exists (fun m -> obj.ReferenceEquals(m, w)))
                    s.Heads.Values)
                "no tensor is both"

            after <- s.Heads)

        before, after, steps
    | _ -> failtest "a solved method was expected"

/// The relative change of each old step's scores, by its rows.
let private changes (before: Heads, after: Heads, steps) : float list =
    [ for p, xa, xb in steps ->
          Tensors.norm (Bounds.change p before after xa xb) / Tensors.norm (Alignment.between p before xa xb) ]

let private options (c: Case) : DnsClosed.Options =
    { DnsClosed.defaults with
        Damping = 0.01 + 2.0 * fraction c "damping"
        Rounds = 1 + c.Seed % 3 }

let private largest metric outcome = measurements metric outcome |> List.map (fun (_, _, v) -> v) |> List.max

let private solutions =
    testList
        "solutions"
        [ property "no old step's scores move by more than the budget" (fun c ->
              for budget in [ 0.0; 0.03; 0.5 ] do
                  let found = solved { options c with Budget = budget } c

                  for change in changes found do
                      Expect.isLessThanOrEqual change (budget * (1.0 + 1e-9) + 1e-14) $"budget {budget}")

          property "nor than what a total budget allows the step" (fun c ->
              let found = solved { options c with TotalBudget = Some 0.1 } c

              for change in changes found do
                  Expect.isLessThanOrEqual change (0.1 / sqrt 2.0 * (1.0 + 1e-9)) "one of two steps")

          test "and must fail: without regard to the budget they do" (fun () ->
              let c = { Seed = 3; N = 8L; D = 6L; Da = 5L; Db = 7L; Rank = 3L }
              let free = { options c with Price = Some 1e-9; Budget = 0.03 }
              Expect.isGreaterThan (changes (solved free c) |> List.max) 0.03 "a price of next to nothing"
              let kept = solved { free with Price = None } c |> changes |> List.max
              Expect.isLessThanOrEqual kept 0.03 "a budget"
              Expect.isGreaterThan kept 0.015 "which is made use of")

          property "at a price without end heads do not move" (fun c ->
              let before, after, _ = solved { options c with Price = Some 1e15 } c

              for KeyValue(m, w) in before do
                  same $"{m}" 1e-6 after[m] w)

          test "without an old step and damping it is the optimum of the second cumulant" (fun () ->
              let c = { Seed = 5; N = 8L; D = 7L; Da = 5L; Db = 6L; Rank = 3L }
              let xa = normal c "xa" 60L c.Da
              let xb = xa.mm (normal c "mix" c.Da c.Db) .+ normal c "noise" 60L c.Db
              let before = heads c "w"
              let t = Task.ofPair 1 "new" pair xa xb
              let p = PairMoments.ofRows MomentLoss.Cumulant pair xa xb
              let tau = DnsClosed.temperature before[pair.A] before[pair.B] p

              match (DnsClosed.dnsClosed.Make { DnsClosed.defaults with Damping = 1e-12 }).Learner with
              | Learner.Solve solve ->
                  let after = (solve (context []) Map.empty before [ t ] |> Check.getAll).Heads
                  let best = torch.linalg.solve(p.A, p.Cross).mm(torch.linalg.inv p.B) * number tau
                  same "M" 1e-5 (Heads.globalParameter pair after) best
                  let g = PairMoments.gradients MomentLoss.Cumulant tau after[pair.A] after[pair.B] p
                  vanishes "gradient" 1e-5 (Tensors.norm g.A) (Tensors.norm p.Cross / tau)
              | _ -> failtest "a solved method was expected") ]

let private runs =
    testList
        "runs"
        [ test "the total budget holds over a whole stream, in either type" (fun () ->
              for dtype in [ Dtype.Float64; Dtype.Float32 ] do
                  let p = plan synthetic.Value "dns-closed[total-budget=0.1]"
                  let p = { p with Settings = { p.Settings with Dtype = dtype } }
                  let outcome, _ = runPlan synthetic.Value 0 p
                  Expect.isLessThanOrEqual (largest "deviation_rel" outcome) (0.1 + 10.0 * Tolerance.epsilon dtype) $"{dtype}"
                  Expect.isGreaterThan (largest "bound_rel" outcome) 0.03 "and is made use of")

          test "old scores move less at a higher price, and the steps learn" (fun () ->
              let at price = run synthetic.Value 0 $"dns-closed[price={price}]" |> fst
              let outcomes = [ for price in [ 10; 1000; 100000 ] -> at price ]
              let moved = outcomes |> List.map (fun o -> measurements "deviation_rel" o |> List.averageBy (fun (_, _, v) -> v))
              Expect.sequenceEqual (List.sortDescending moved) moved "deviation"
              let told = measurements "score_spread" outcomes.Head
              Expect.equal told.Length synthetic.Value.Steps.Length "a diagnostic for each step"
              Expect.all told (fun (_, _, v) -> v > 0.0 && System.Double.IsFinite v) "of a positive number"
              let ofTask metric = measurements metric outcomes[1] |> List.averageBy (fun (_, _, v) -> v)
              Expect.isLessThan (ofTask "loss_after") (ofTask "loss_before") "the loss of a step falls")

          test "no seed matters, and a budget does nothing beside a price" (fun () ->
              let last seed = (run synthetic.Value seed "dns-closed[price=100]" |> snd)[2]

              for KeyValue(m, w) in last 0 do
                  identical $"{m}" (last 1).[m] w

              let refusal = Plan.resolve synthetic.Value.Preset [] [ "dns-closed[price=100;budget=0.1]" ] |> faultsOf
              Expect.stringContains refusal.Head.Message "changes nothing" "the budget") ]

let tests = testList "DNS closed" [ solutions; runs ]
