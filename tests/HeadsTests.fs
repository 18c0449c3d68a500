module Cmcl.Tests.HeadsTests

open Cmcl
open Expecto
open Cmcl.Tests.Checks
open TorchSharp

let private pair = Pair.named vision text

let private heads (c: Case) : Heads = Map [ pair.A, normal c "wa" c.D c.Da; pair.B, normal c "wb" c.D c.Db ]

let tests =
    testList
        "Heads"
        [ property "identity heads leave square features as they are" (fun c ->
              let w = Heads.identity Dtype.Float64 torch.CPU c.D [ pair.A, c.D; pair.B, c.Db ]
              let x = normal c "x" c.N c.D
              identical "outputs" (Heads.outputs (w[pair.A]) x) x
              same "rectangular" 0.0 (w[pair.B]) (torch.eye (c.D, c.Db, dtype = torch.float64)))

          property "outputs are the row by row dot products" (fun c ->
              let w, x = normal c "w" c.D c.Da, normal c "x" c.N c.Da
              let y, w', x' = values (Heads.outputs w x), values w, values x

              for i in 0 .. int c.N - 1 do
                  for k in 0 .. int c.D - 1 do
                      near "entry" tight (y[i][k]) (Array.fold2 (fun sum a b -> sum + a * b) 0.0 w'[k] x'[i]))

          property "a bias is a column of ones in the features, and nothing else makes one" (fun c ->
              let w, b, x = normal c "w" c.D c.Da, normal c "b" c.D 1L, normal c "x" c.N c.Da
              let biased = torch.cat ([| w; b |], 1L)
              same "outputs" tight (Heads.outputs biased (Heads.withBias x)) (Heads.outputs w x .+ b.t ())
              let h: Heads = Map [ pair.A, biased; pair.B, normal c "wb" c.D c.Da ]

              for f in
                  [ fun () -> Heads.outputs biased x |> ignore
                    fun () -> Alignment.between pair h x x |> ignore
                    fun () -> Stability.deviation pair h h x x |> ignore
                    fun () -> Bounds.change pair h h x x |> ignore
                    fun () -> Conditions.firstOrder biased x x |> ignore
                    fun () -> Conditions.oneSidedResidual biased x |> ignore
                    fun () -> OldStep.ofRows 1 pair h x x |> ignore ] do
                  match faultOf f with
                  | Fault.Shape _ -> ()
                  | other -> failtest other.Message

              let message = (faultOf (fun () -> Heads.outputs biased x)).Message
              Expect.stringContains message "withBias" "what to do")

          test "a method whose heads have a bias says so, and one that says so has it" (fun () ->
              let s = synthetic.Value
              let published = plan s "reference"
              let with' bias (p: Plan) = { p with Method = { p.Method with Bias = bias } }
              let refused p = Train.run s torch.CPU Split.Test 0 Observer.silent p |> faultsOf |> List.map _.Message
              Expect.isTrue published.Method.Bias "reference has one"
              let unsaid = refused (with' false published)
              Expect.hasLength unsaid (Stream.modalities s).Length "every head"

              Expect.stringContains
                  unsaid.Head
                  "64 columns for 64 features and no bias (Method.Bias says which), got 65"
                  "unsaid"

              let unmade = refused (with' true (plan s "vanilla"))
              Expect.stringContains unmade.Head "65 columns for 64 features and a bias (Method.Bias says which), got 64" "unmade"
              Expect.equal (refused (with' true (plan s "zero-shot"))).Length unmade.Length "what does not train, too")

          property "the global parameter gives the scores" (fun c ->
              let h, xa, xb = heads c, normal c "xa" c.N c.Da, normal c "xb" c.N c.Db
              same "scores" tight (xa.mm(Heads.globalParameter pair h).mm(xb.t ())) (Alignment.between pair h xa xb))

          property "replace keeps the others, and everything leaves its inputs alone" (fun c ->
              let h, x = heads c, normal c "x" c.N c.Da
              let other = normal c "other" c.D c.Da

              untouched "Heads" (x :: other :: Heads.tensors h) (fun () ->
                  let replaced = Heads.replace (Map [ pair.A, other ]) h
                  identical "replaced" (replaced[pair.A]) other
                  identical "kept" (replaced[pair.B]) (h[pair.B])
                  Heads.outputs (h[pair.A]) x |> ignore
                  Heads.withBias x |> ignore
                  Heads.globalParameter pair h |> ignore
                  Heads.map (fun w -> w * number 2.0) h))

          test "an unknown head, and features that do not fit, are faults" (fun () ->
              let h: Heads = Map [ pair.A, torch.eye (3L, dtype = torch.float64) ]

              match faultOf (fun () -> Heads.weight pair.B h) with
              | Fault.Unknown("head", "text", [ "vision" ]) -> ()
              | other -> failtest other.Message

              match faultOf (fun () -> Heads.outputs (h[pair.A]) (torch.ones (2L, 5L, dtype = torch.float64))) with
              | Fault.Shape _ -> ()
              | other -> failtest other.Message) ]
