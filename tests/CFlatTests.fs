module Cmcl.Tests.CFlatTests

open Cmcl
open Expecto
open Cmcl.Tests.Checks
open TorchSharp

let private batch (c: Case) : Batch =
    Task.ofPair 1 "step" pair (normal c "xa" c.N c.Da) (normal c "xb" c.N c.Db)
    |> Task.batch 0 (Tensors.range torch.CPU 0L c.N) 1 (Seed.ofInt 0)

/// Both heads as one column.
let private flat (h: Heads) : torch.Tensor = torch.cat [| for w in h.Values -> w.reshape (-1L, 1L) |]

/// Heads of these shapes from one column.
let private unflat (like: Heads) (column: torch.Tensor) : Heads =
    let folder (first, h: Heads) m (w: torch.Tensor) =
        let count = w.NumberOfElements
        first + count, Map.add m (column.narrow(0L, first, count).reshape w.shape) h

    Map.fold folder (0L, Map.empty) like |> snd

let private unit (v: torch.Tensor) = v / v.norm().plus(1e-12)

/// ½ θᵀHθ − bᵀθ with a symmetric H, over both heads.
let private quadratic (c: Case) : torch.Tensor * (Heads -> torch.Tensor) * Direction =
    let size = c.D * (c.Da + c.Db)
    let root = normal c "H" size size
    let h, b = root .+ root.t (), normal c "b" size 1L
    let gradient (w: Heads) = h.mm (flat w) - b

    let pass (w: Heads) (_: Batch) =
        let theta = flat w

        { Loss = (theta * h.mm theta).sum() * number 0.5 - (b * theta).sum()
          Gradients = unflat w (gradient w) }

    h, gradient, Direction.Of pass

let private radii (c: Case) = 0.01 + fraction c "rho", 0.1 + fraction c "flatness"

/// Gradients of InfoNCE by autograd, as one column.
let private byAutograd (k: Contrast) (batch: Batch) (like: Heads) (theta: torch.Tensor) : torch.Tensor =
    let w = unflat like theta |> Heads.map (fun t -> t.detach().clone().requires_grad_ true)
    let loss = Contrastive.loss k (Heads.outputs w[pair.A] batch.A) (Heads.outputs w[pair.B] batch.B)
    let g = torch.autograd.grad (ResizeArray [ loss ], ResizeArray(Heads.tensors w)) |> Array.ofSeq
    torch.cat [| for t in g -> t.reshape (-1L, 1L) |]

/// At a temperature of the size of the scores: where softmax is saturated, gradients are rounding, and a unit vector along one is noise.
let private settings (c: Case) =
    { Settings.initial with
        Dtype = Dtype.Float64
        Temperature = 10.0
        Scoring = if fraction c "scoring" < 0.5 then Scoring.Raw else Scoring.Cosine
        Symmetric = fraction c "symmetric" < 0.5 }

let private pass direction weights batch = Direction.pass direction Map.empty weights batch

let private none: Preset = { Common = Map.empty; Methods = Map.empty; Run = [] }

let private resolve text = Plan.resolve none [] [ text ]

let private refusal text = resolve text |> faultsOf |> List.map _.Message |> String.concat "\n"

let tests =
    testList
        "CFlat"
        [ property "on a quadratic g₁ = g₀ + ρHĝ₀ and g₃ − g₂ = ρHĝ₂" (fun c ->
              let h, gradient, direction = quadratic c
              let rho, lambda = radii c
              let w = heads c "w"
              let g0 = gradient w
              let g1 = g0 .+ h.mm (unit g0) * number rho
              same "λ = 0" close (flat (pass (CFlat.direction rho 0.0 direction) w (batch c)).Gradients) g1
              let g2 = g0 .+ h.mm (unit (g1 - g0)) * number rho
              let expected = g1 .+ h.mm (unit g2) * number (rho * lambda)
              same "λ > 0" close (flat (pass (CFlat.direction rho lambda direction) w (batch c)).Gradients) expected)

          property "λ = 0 is SAM, written again with autograd" (fun c ->
              let k, (rho, _), b, w = settings c, radii c, batch c, heads c "w"
              let gradient = byAutograd (Settings.contrast k) b w
              let expected = gradient (flat w .+ unit (gradient (flat w)) * number rho)
              use _ = torch.no_grad ()
              same "SAM" close (flat (pass (CFlat.direction rho 0.0 (Training.plain k)) w b).Gradients) expected)

          property "and with λ it is the published procedure, written again" (fun c ->
              let k, (rho, lambda), b, w = settings c, radii c, batch c, heads c "w"
              let gradient = byAutograd (Settings.contrast k) b w
              let theta = flat w
              let g0 = gradient theta
              let g1 = gradient (theta .+ unit g0 * number rho)
              let probe = theta .+ unit (g1 - g0) * number rho
              let g2 = gradient probe
              let g3 = gradient (probe .+ unit g2 * number rho)
              use _ = torch.no_grad ()

              untouched "a pass" (b.A :: b.B :: Heads.tensors w) (fun () ->
                  let pass = pass (CFlat.direction rho lambda (Training.plain k)) w b
                  same "C-Flat" close (flat pass.Gradients) (g1 .+ (g3 - g2) * number lambda)
                  identical "the loss is that at the weights" pass.Loss (Direction.pass (Training.plain k) Map.empty w b).Loss))

          mustFail "SAM alone is not C-Flat" (fun c ->
              let _, _, direction = quadratic c
              let rho, lambda = radii c
              let g flatness = flat (pass (CFlat.direction rho flatness direction) (heads c "w") (batch c)).Gradients
              same "g" close (g 0.0) (g lambda))

          property "four passes of one batch with one memory, of which the first is kept" (fun c ->
              let seen = ResizeArray()
              let third = modality audio
              let weights = heads c "w" |> Map.add third (normal c "audio" 2L 2L)

              let host =
                  Direction.Running(fun kept weights b ->
                      seen.Add(kept, weights, b)
                      let p = Direction.pass (Training.plain (settings c)) kept weights b
                      struct (p, Map.add "count" (torch.tensor (float seen.Count)) kept))

              let kept: Memory = Map [ "old", normal c "old" 2L 2L ]
              let rho, lambda = radii c
              let b = batch c
              let struct (p, next) = Direction.step (CFlat.direction rho lambda host) kept weights b
              Expect.equal seen.Count 4 "passes"
              Expect.equal (item next["count"]) 1.0 "kept of the first"
              Expect.isTrue (obj.ReferenceEquals(next["old"], kept["old"])) "what stays is the same"
              Expect.equal (List.ofSeq p.Gradients.Keys) (List.ofSeq (heads c "w").Keys) "gradients of the pair"

              for memory, w, given in seen do
                  Expect.isTrue (obj.ReferenceEquals(memory, kept)) "one memory"
                  Expect.equal given.Seed b.Seed "one batch"
                  Expect.isTrue (obj.ReferenceEquals(w[third], weights[third])) "a head without a gradient stays")

          property "without a gradient nothing moves, and nothing is lost" (fun c ->
              let zero =
                  Direction.Of(fun w _ ->
                      { Loss = torch.tensor 1.0
                        Gradients = Heads.map torch.zeros_like w })

              let g = flat (pass (CFlat.direction 0.2 0.2 zero) (heads c "w") (batch c)).Gradients
              Expect.equal (Tensors.norm g) 0.0 "gradient")

          property "nothing is left but a pass" (fun c ->
              let direction = CFlat.direction 0.2 0.2 (Training.plain (settings c))
              let w, b = heads c "w", batch c
              let plain = leaked (fun () -> pass (Training.plain (settings c)) w b |> ignore)
              Expect.isLessThanOrEqual (leaked (fun () -> pass direction w b |> ignore)) (plain + 2L) "tensors")

          test "ρ = 0 is the host, bit for bit" (fun () ->
              for host, options in
                  [ "vanilla", ""; "dns", ""; "dns", ";place=gradient"; "dns-soft", ""; "ewc", ";lambda=5"; "reference", "" ] do
                  EwcTests.identicalRuns
                      $"c-flat[rho=0;host={host};epochs=1;batch=64{options}]"
                      $"{host}[epochs=1;batch=64{options}]")

          test "and ρ > 0 is another, whatever the host" (fun () ->
              let stream =
                  { synthetic.Value with
                      Steps = synthetic.Value.Steps |> List.take 3 }

              let last written = run stream 0 written |> snd |> Map.toList |> List.last |> snd

              for host in [ "vanilla"; "individual"; "joint"; "dns"; "dns-trust"; "nsp"; "ewc"; "reference" ] do
                  let flat, plain = last $"c-flat[host={host};epochs=1]", last $"{host}[epochs=1]"
                  let apart = plain.Keys |> Seq.map (fun m -> Tensors.relativeDifference flat[m] plain[m]) |> Seq.max
                  Expect.isGreaterThan apart 1e-8 host)

          test "what the host protects stays protected" (fun () ->
              let stream =
                  { synthetic.Value with
                      Steps = synthetic.Value.Steps |> List.take 3 }

              let drift written =
                  run stream 0 written |> fst |> measurements "deviation_rel" |> List.map (fun (_, _, v) -> v) |> List.max

              let cuts = "epochs=2;sides=input;threshold=relative:1e-9"
              Expect.isLessThan (drift $"c-flat[host=dns;{cuts}]") 1e-6 "in the eigenbasis"
              Expect.isGreaterThan (drift "c-flat[epochs=2]") 1e-4 "without a host that protects")

          test "hosts by name: options, presets, refusals" (fun () ->
              let only text = resolve text |> Check.get |> List.exactlyOne
              let p = only "c-flat[host=dns;place=update;rho=0.1;lr=1e-3]"
              Expect.equal p.Method.Name "c-flat" "name"
              let value name (p: Plan) = Map.find name (Map p.Entry.Values)
              Expect.equal (value "place" p, value "rho" p, value "host" p) ("update", "0.1", "dns") "the host's, its own"
              Expect.equal (value "host" (only "c-flat")) "vanilla" "by itself around fine-tuning"
              Expect.contains (only "c-flat[host=dns-soft]").Entry.Fixed ("protect", "soft") "what the host holds"
              Expect.equal (only "c-flat[host=joint]").Method.Curriculum Curriculum.AllAtOnce "the host's curriculum"

              let preset =
                  { none with
                      Methods = Map [ "c-flat", Map [ "host", "dns"; "rho", "0.1" ]; "ewc", Map [ "lambda", "5" ] ] }

              let named = Plan.resolve preset [ "host", "ewc" ] [ "c-flat" ] |> Check.get |> List.exactlyOne

              Expect.equal
                  (value "host" named, value "lambda" named, value "rho" named)
                  ("ewc", "5", "0.1")
                  "of a host that is named over another"

              Expect.equal (value "lambda" (only "c-flat[host=ewc;lambda=3;fisher=sampled]")) "3" "ewc's option"

              let recorded = Plan.effective (only "c-flat[host=ewc]") |> List.map fst
              Expect.containsAll recorded [ "host"; "rho"; "flatness"; "lambda"; "lr" ] "recorded"

              Expect.stringContains (refusal "c-flat[tau=1]") "'tau' is not an option of c-flat" "no option of the host"
              Expect.stringContains (refusal "c-flat[host=ewc;place=update]") "'place' is not an option of c-flat" "of another"
              Expect.stringContains (refusal "c-flat[rho=-1]") "rho takes a number ≥ 0" "a negative radius"
              Expect.stringContains (refusal "c-flat[host=dns;place=gradient;exact=on]") "cannot hold" "what the host refuses"

              for host in [ "zero-shot"; "c-flat"; "dsn" ] do
                  match resolve $"c-flat[host={host}]" with
                  | Error [ Fault.Unknown("host of c-flat", given, known) ] ->
                      Expect.equal given host "given"
                      Expect.containsAll known [ "vanilla"; "dns"; "ewc"; "reference" ] "hosts"
                      Expect.isFalse (List.contains "c-flat" known || List.contains "zero-shot" known) "and no others"
                  | other -> failtest $"{host}: {other}")

          test "in place it is the pure functions" (fun () ->
              InPlaceTests.wholeRun Dtype.Float64 "epochs=1;batch=64" "c-flat"
              InPlaceTests.wholeRun Dtype.Float64 "epochs=1;batch=64" "c-flat[host=dns]"
              InPlaceTests.wholeRun Dtype.Float64 "epochs=1;batch=64" "c-flat[host=ewc;lambda=5]") ]
