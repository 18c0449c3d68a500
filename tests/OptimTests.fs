module Cmcl.Tests.OptimTests

open System
open Cmcl
open Expecto
open Cmcl.Tests.Checks
open TorchSharp

let private a, b = modality "a", modality "b"

let private start (c: Case) : Heads = Map [ a, normal c "wa" c.D c.Da; b, normal c "wb" c.D c.Db ]

/// The i-th gradient: random, and none of the weights' business.
let private gradient (c: Case) (i: int) (m: Modality) (w: torch.Tensor) = normal c $"g {i} {m}" w.shape[0] w.shape[1]

let private ours (transform: Transform) (c: Case) (steps: int) : Heads =
    let folder (weights: Heads, state) i =
        let struct (updates, state) = transform.Update state (weights |> Map.map (gradient c i)) weights
        updates |> Map.map (fun m u -> weights.[m] .+ u), state

    List.fold folder (start c, transform.Init(start c)) [ 1..steps ] |> fst

/// The same with an optimizer of torch, its rate set before every step.
let private theirs (make: Modules.Parameter list -> torch.optim.Optimizer) (lr: int -> float) (c: Case) (steps: int) : Heads =
    let parameters = start c |> Map.map (fun _ w -> torch.nn.Parameter(w, true))
    let optimizer = make (List.ofSeq parameters.Values)

    for i in 1..steps do
        for group in optimizer.ParamGroups do
            group.LearningRate <- lr i

        for KeyValue(m, p) in parameters do
            p.grad <- gradient c i m p

        optimizer.step () |> ignore

    parameters |> Map.map (fun _ p -> p.detach ())

let private agree (mine: Heads) (other: Heads) =
    for m in [ a; b ] do
        same $"weights of {m}" tight mine.[m] other.[m]

let private apply (t: Transform) (updates: Heads) (w: Heads) =
    let struct (u, _) = t.Update (t.Init w) updates w
    u

/// Heavy-ball momentum b ← βb + g, as in torch's SGD: a transform whose state says much; β = 0 is plain SGD.
let momentum (beta: float) : Transform =
    { Init =
        fun parameters ->
            { TransformState.empty with
                Slots = Map [ "b", Heads.map torch.zeros_like parameters ] }
      Update =
        fun state updates _ ->
            let running = updates |> Map.map (fun m g -> Heads.weight m state.Slots["b"] * beta.AsScalar() .+ g)

            struct (running,
                    { state with
                        Step = state.Step + 1L
                        Slots = Map [ "b", Heads.replace running state.Slots["b"] ] }) }

let tests =
    testList
        "Optim"
        [ property "AdamW is torch's, under a falling rate" (fun c ->
              let lr, decay, steps = 1e-2, 0.05, 50

              let mine = Transform.chain [ Optim.adam; Optim.decay decay 0L; Optim.rate lr Schedule.Linear (int64 steps) ]

              let make (parameters: Modules.Parameter list) : torch.optim.Optimizer =
                  torch.optim.AdamW(parameters, lr, 0.9, 0.999, 1e-8, decay)

              agree (ours mine c steps) (theirs make (fun i -> lr * float (steps - i + 1) / float steps) c steps))

          property "gradient descent is torch's, with and without momentum" (fun c ->
              for beta in [ 0.0; 0.9 ] do
                  let mine = Transform.chain [ momentum beta; Optim.rate 1e-2 Schedule.Constant 50L ]

                  let make (parameters: Modules.Parameter list) : torch.optim.Optimizer = torch.optim.SGD(parameters, 1e-2, beta)

                  agree (ours mine c 50) (theirs make (fun _ -> 1e-2) c 50))

          property "clipping is torch's clip_grad_norm_" (fun c ->
              for limit in [ 0.1; 1.0; 1e6 ] do
                  let g = start c
                  let parameters = g |> Map.map (fun _ w -> torch.nn.Parameter(torch.zeros_like w, true))

                  for KeyValue(m, p) in parameters do
                      p.grad <- g.[m].clone()

                  let norm = torch.nn.utils.clip_grad_norm_ (parameters.Values, limit)
                  near "norm" tight (Optim.globalNorm g) norm
                  let clipped = apply (Optim.clip limit) g g

                  for m in [ a; b ] do
                      same "clipped" tight clipped.[m] (nonNull parameters.[m].grad)

                  Expect.isTrue (Optim.globalNorm clipped <= limit) "within the limit")

          property "decay is on weights and not on biases" (fun c ->
              let u, w = start c, start { c with Seed = c.Seed + 1 }
              let decayed = apply (Optim.decay 0.5 1L) u w
              let columns = c.Da - 1L
              same "weights" tight (decayed.[a].narrow(1L, 0L, columns)) ((u.[a] .+ w.[a] * number 0.5).narrow(1L, 0L, columns))
              identical "bias" (decayed.[a].narrow(1L, columns, 1L)) (u.[a].narrow(1L, columns, 1L))
              identical "no decay" (apply (Optim.decay 0.0 0L) u w).[a] u.[a]
              same "all" tight (apply (Optim.decay 0.5 0L) u w).[a] (u.[a] .+ w.[a] * number 0.5))

          test "schedules by their values" (fun () ->
              for i in 0L .. 9L do
                  near "constant" 0.0 (Schedule.factor Schedule.Constant 10L i) 1.0
                  near "linear" tight (Schedule.factor Schedule.Linear 10L i) (float (10L - i) / 10.0)
                  near "cosine" tight (Schedule.factor Schedule.Cosine 10L i) (0.5 * (1.0 + Math.Cos(Math.PI * float i / 10.0)))

              Expect.equal (Schedule.factor Schedule.Linear 10L 12L) 0.0 "past the end"
              near "past the end" tight (Schedule.factor Schedule.Cosine 10L 12L) 0.0)

          property "the i-th update is minus the rate times the i-th factor" (fun c ->
              let t = Optim.rate 0.1 Schedule.Linear 4L
              let g = start c

              let folder state i =
                  let struct (u, state) = t.Update state g g
                  same $"update {i}" tight u.[a] (g.[a] * number (-0.1 * (1.0 - float i / 4.0)))
                  state

              List.fold folder (t.Init g) [ 0..3 ] |> ignore)

          property "within keeps the whole change in its ellipsoid, and others free" (fun c ->
              let w0 = start c
              let p = (normal c "p" c.D c.Da).abs()
              let budget = 1e-3
              let t = Transform.chain [ Optim.rate 0.1 Schedule.Constant 9L; Optim.within w0 (Map [ a, (p, budget) ]) ]

              let folder (w: Heads, state) i =
                  let struct (u, state) = t.Update state (w |> Map.map (gradient c i)) w
                  let w = w |> Map.map (fun m w -> w .+ u.[m])
                  let change = w.[a] - w0.[a]
                  Expect.isTrue (item ((p * change * change).sum()) <= budget * (1.0 + 1e-9)) "inside"
                  w, state

              let last, _ = List.fold folder (w0, t.Init w0) [ 1..8 ]
              let free = ours (Optim.rate 0.1 Schedule.Constant 9L) c 8
              same "the other" tight last.[b] free.[b]) ]
