module Cmcl.Tests.TransformTests

open Cmcl
open Expecto
open Cmcl.Tests.Checks
open TorchSharp

let private a, b = modality "a", modality "b"

let private heads (c: Case) (purpose: string) : Heads =
    Map [ a, normal c (purpose + " a") c.D c.Da; b, normal c (purpose + " b") c.D c.Db ]

/// Gradients that depend on the weights and on nothing hidden: some pull towards a fixed point.
let private pull (c: Case) (weights: Heads) : Heads =
    let aim = heads c "aim"
    weights |> Map.map (fun m w -> (w - aim.[m]) * number 0.3 .+ w.squared () * number 0.05)

/// Weights after some updates.
let private descend (steps: int) (transform: Transform) (gradients: Heads -> Heads) (start: Heads) : Heads =
    let folder (weights: Heads, state) _ =
        let struct (updates, state) = transform.Update state (gradients weights) weights
        Heads.replace (updates |> Map.map (fun m u -> weights.[m] .+ u)) weights, state

    List.fold folder (start, transform.Init start) [ 1..steps ] |> fst

let private rate = Optim.rate 1e-2 Schedule.Constant 100L

let tests =
    testList
        "Transform"
        [ property "identity leaves updates, and a factor multiplies those that have one" (fun c ->
              let u, w = heads c "u", heads c "w"
              let apply (t: Transform) = let struct (u, _) = t.Update (t.Init w) u w in u
              identical "identity" (apply Transform.identity).[a] u.[a]
              let f = normal c "f" c.D c.Da
              let multiplied = apply (Transform.factor (Map [ a, f ]))
              same "factor" 0.0 multiplied.[a] (u.[a] * f)
              identical "no factor" multiplied.[b] u.[b])

          property "a chain is its parts, one after another" (fun c ->
              let start = heads c "w"
              let chained = descend 5 (Transform.chain [ Optim.clip 0.5; Optim.adam; rate ]) (pull c) start

              let byHand =
                  let folder (w: Heads, (s1, s2, s3)) _ =
                      let struct (u, s1) = (Optim.clip 0.5).Update s1 (pull c w) w
                      let struct (u, s2) = Optim.adam.Update s2 u w
                      let struct (u, s3) = rate.Update s3 u w
                      u |> Map.map (fun m u -> w.[m] .+ u), (s1, s2, s3)

                  List.fold folder (start, ((Optim.clip 0.5).Init start, Optim.adam.Init start, rate.Init start)) [ 1..5 ] |> fst

              for m in [ a; b ] do
                  identical "chain" chained.[m] byHand.[m])

          property "the order counts: projecting before Adam is not projecting after it" (fun c ->
              let start = heads c "w"
              let v, u = normal c "v" c.D 1L, normal c "basis" c.Da 1L
              let v, u = v / v.norm (), u / u.norm ()

              let project = Transform.stateless (fun m g _ -> if m = a then Projection.localUpdateFrom v u g else g)

              let before = descend 3 (Transform.chain [ project; Optim.adam; rate ]) (pull c) start
              let after = descend 3 (Transform.chain [ Optim.adam; project; rate ]) (pull c) start
              let along (w: Heads) = Tensors.norm (v.t().mm(w.[a] - start.[a]).mm u)
              vanishes "after: the change is inside" 1e-13 (along after) 1.0
              Expect.isGreaterThan (along before) 1e-6 "before: it is not"
              same "a modality that is not projected" tight before.[b] after.[b])

          property "an absent modality keeps its weights, its momentum and its count" (fun c ->
              let start = heads c "w"
              let chain = Transform.chain [ Optim.adam; Optim.decay 0.1 0L; rate ]
              let only m (w: Heads) : Heads = Map [ m, (pull c w).[m] ]

              // b alone for three updates, then both: as if a had begun only then.
              let folder (w: Heads, state) (gradients: Heads -> Heads) =
                  let struct (u, state) = chain.Update state (gradients w) w
                  Heads.replace (u |> Map.map (fun m u -> w.[m] .+ u)) w, state

              let quiet, state = List.fold folder (start, chain.Init start) (List.replicate 3 (only b))
              identical "weights" quiet.[a] start.[a]
              identical "momentum" (state.Parts[0].Slots["m"][a]) (torch.zeros (c.D, c.Da, dtype = torch.float64))
              Expect.equal (Map.tryFind a state.Parts[0].Counts) None "count"
              Expect.equal state.Parts[0].Counts.[b] 3L "count of the other"
              let later, _ = List.fold folder (quiet, state) [ pull c; pull c ]
              identical "a as if fresh" later.[a] (descend 2 chain (only a) start).[a])

          property "every transform leaves updates, parameters and state as they are" (fun c ->
              let w, u = heads c "w", heads c "u"

              let ellipsoid: Map<Modality, torch.Tensor * float> = Map [ a, ((normal c "p" c.D c.Da).abs(), 1e-3) ]

              for name, t in
                  [ "clip", Optim.clip 0.1
                    "adam", Optim.adam
                    "momentum", OptimTests.momentum 0.9
                    "decay", Optim.decay 0.1 1L
                    "rate", rate
                    "within", Optim.within w ellipsoid
                    "factor", Transform.factor (Map [ a, u.[a] ])
                    "chain", Transform.chain [ Optim.clip 0.1; Optim.adam; Optim.decay 0.1 0L; rate ] ] do
                  let struct (_, state) = t.Update (t.Init w) u w
                  let given = Heads.tensors w @ Heads.tensors u @ TransformState.tensors state

                  untouched name given (fun () ->
                      let struct (first, next) = t.Update state u w
                      let struct (again, _) = t.Update state u w

                      for m in [ a; b ] do
                          identical $"{name}, twice from one state" again.[m] first.[m]

                      t.Update next u w)) ]
