module Cmcl.Tests.DnsTests

open Cmcl
open Expecto
open Cmcl.Tests.Checks
open TorchSharp

/// An independent DNS for full batches: it keeps all old rows, builds d × d projectors from their singular vectors, takes
/// gradients from autograd and has an AdamW of its own. `cut` is relative to the largest eigenvalue.
let private naive (stream: Stream) (d: int64) (lr: float) (epochs: int) (wd: float) (limit: float) (cut: float) (onUpdate: bool) =
    let mutable heads: Heads =
        Map [ for m, columns in Stream.modalities stream -> m, torch.eye (d, columns, dtype = torch.float64) ]

    let mutable old: (Modality * torch.Tensor * Modality * torch.Tensor) list = []

    /// The projector onto the leading right singular vectors of some rows.
    let span (blocks: torch.Tensor list) (columns: int64) =
        if blocks.IsEmpty then
            torch.zeros (columns, columns, dtype = torch.float64)
        else
            let struct (_, s, vt) = torch.linalg.svd (torch.cat (Array.ofList blocks, 0L), fullMatrices = false)
            let energies = s.squared ()
            let inside = energies.gt(energies.max () * number cut).``to`` torch.float64
            let kept = (torch.diag inside).mm vt
            kept.t().mm kept

    for step in stream.Steps do
        let xa, xb = step.A.Features, step.B.Features
        let a, b = step.Pair.A, step.Pair.B

        let inputs m =
            [ for p, x, q, y in old do
                  if p = m then
                      x
                  elif q = m then
                      y ]

        let outputs m =
            [ for p, x, q, y in old do
                  if p = m then
                      y.mm (heads.[q].t())
                  elif q = m then
                      x.mm (heads.[p].t()) ]

        let project m (g: torch.Tensor) = g - (span (outputs m) d).mm(g).mm(span (inputs m) g.shape[1])

        let projectA, projectB = project a, project b
        let mutable p = [| heads.[a]; heads.[b] |]
        let mutable m1, m2 = Array.map torch.zeros_like p, Array.map torch.zeros_like p

        for i in 1..epochs do
            let leaves = p |> Array.map (fun t -> t.clone().requires_grad_ true)
            let scores = xa.mm(leaves.[0].t()).mm(leaves.[1].mm(xb.t ()))
            let loss = torch.nn.functional.cross_entropy (scores, Tensors.range torch.CPU 0L xa.shape[0])
            let raw = torch.autograd.grad (ResizeArray [ loss ], ResizeArray leaves) |> Array.ofSeq
            let norm = raw |> Array.sumBy (fun g -> item (g.squared().sum())) |> sqrt
            let clipped = raw |> Array.map (fun g -> g * number (min 1.0 (limit / (norm + 1e-6))))
            let project = [| projectA; projectB |]
            let g = if onUpdate then clipped else Array.map2 (fun f g -> f g) project clipped
            m1 <- Array.map2 (fun (m: torch.Tensor) g -> m * number 0.9 .+ g * number 0.1) m1 g
            m2 <- Array.map2 (fun (v: torch.Tensor) (g: torch.Tensor) -> v * number 0.999 .+ g * g * number 0.001) m2 g
            let rate = lr * float (epochs - i + 1) / float epochs

            p <-
                Array.init 2 (fun j ->
                    let mean = m1.[j] / number (1.0 - 0.9 ** float i)
                    let root = (m2.[j] / number (1.0 - 0.999 ** float i)).sqrt()
                    let update = (mean / (root.plus (1e-8)) .+ p.[j] * number wd) * number rate
                    p.[j] - (if onUpdate then project.[j]update else update))

        heads <- heads.Add(a, p.[0]).Add(b, p.[1])
        old <- (a, xa, b, xb) :: old

    heads

let private d = 7L

/// Modalities of different dimensions, banks of rank 2 to 3, four steps, the last over a pair with joint history.
let private stream () : Stream =
    let rows purpose n columns =
        let draw purpose rows columns = Seed.normal [ rows; columns ] (Seed.ofInt 5 |> Seed.split purpose)
        let x = (draw purpose n 2L).mm(draw (purpose + " basis") 2L columns)
        x / x.norm (1, true)

    streamOf
        [ vision, text, rows "1a" 24L d, rows "1b" 24L 6L
          audio, text, rows "2a" 17L 5L, rows "2b" 17L 6L
          vision, audio, rows "3a" 20L d, rows "3b" 20L 5L
          vision, text, rows "4a" 15L d, rows "4b" 15L 6L ]

let private common = "batch=all;shuffle=off;epochs=4;lr=1e-2;scores=raw;temperature=1"
let private cuts = "threshold=relative:1e-9;partner-threshold=relative:1e-9"
let private after written = (run (stream ()) 0 written |> snd)[4]

let private agree (tolerance: float) (first: Heads) (second: Heads) =
    for m in first.Keys do
        same $"weights of {m}" tolerance first.[m] second.[m]

let private differ (first: Heads) (second: Heads) =
    let apart = first.Keys |> Seq.map (fun m -> Tensors.relativeDifference first.[m] second.[m]) |> Seq.max
    Expect.isGreaterThan apart 1e-6 "they should differ"

/// Two steps of low rank whose rows have the given mean times a random direction; the second moves one head of the first's pair.
let private withMean (size: float) =
    let rows purpose n columns =
        let draw purpose rows columns = Seed.normal [ rows; columns ] (Seed.ofInt 8 |> Seed.split purpose)
        let spread = (draw purpose n 2L).mm(draw (purpose + " basis") 2L columns)
        let direction = draw (purpose + " mean") 1L columns
        spread - spread.mean ([| 0L |], true) .+ direction * number (size / item (direction.norm ()))

    streamOf [ vision, text, rows "1a" 24L d, rows "1b" 24L 6L; vision, audio, rows "2a" 17L d, rows "2b" 17L 5L ]

let tests =
    testList
        "Dns"
        [ test "the projected gradient is an independent implementation's" (fun () ->
              let ours = after $"dns[place=gradient;sides=dual;{common};{cuts};weight-decay=0.1;clip=0.3]"
              agree close ours (naive (stream ()) d 1e-2 4 0.1 0.3 1e-9 false))

          test "the projected update is an independent implementation's" (fun () ->
              let ours = after $"dns[place=update;sides=dual;{common};{cuts};weight-decay=0.1;clip=0.3]"
              agree close ours (naive (stream ()) d 1e-2 4 0.1 0.3 1e-9 true))

          test "cut spectra too" (fun () ->
              let cuts = "threshold=relative:0.6;partner-threshold=relative:0.4"

              let ours =
                  after
                      $"dns[place=gradient;sides=dual;{common};threshold=relative:0.5;partner-threshold=relative:0.5;weight-decay=0;clip=off]"

              agree close ours (naive (stream ()) d 1e-2 4 0.0 1e99 0.5 false)
              differ ours (after $"dns[place=gradient;sides=dual;{common};{cuts};weight-decay=0;clip=off]"))

          test "gradient descent does not know its basis: frames without a mask are plain training" (fun () ->
              agree close (after $"eigenbasis-only[{common};optimizer=sgd]") (after $"vanilla[{common};optimizer=sgd]")
              differ (after $"eigenbasis-only[{common}]") (after $"vanilla[{common}]"))

          test "for gradient descent the three places are one method" (fun () ->
              let at place = after $"dns[place={place};{common};{cuts};optimizer=sgd;weight-decay=0;clip=0.3]"
              agree close (at "eigenbasis") (at "update")
              agree close (at "eigenbasis") (at "gradient")
              differ (at "eigenbasis") (after $"vanilla[{common};optimizer=sgd;weight-decay=0;clip=0.3]"))

          test "with decay the update and the eigenbasis still are" (fun () ->
              let at place = after $"dns[place={place};{common};{cuts};optimizer=sgd;weight-decay=0.5]"
              agree close (at "eigenbasis") (at "update")
              differ (at "eigenbasis") (at "gradient"))

          test "one-sided, exact and stale variants differ from the plain one, in every place that takes them" (fun () ->
              let wide = "threshold=relative:1e-9;partner-threshold=relative:0.3"

              for place in [ "gradient"; "update"; "eigenbasis" ] do
                  let plain = after $"dns[place={place};{common};{wide}]"
                  differ plain (after $"dns[place={place};sides=input;{common};threshold=relative:1e-9]")
                  differ plain (after $"dns[place={place};partner=at-learning;{common};{wide}]")

                  if place <> "gradient" then
                      differ plain (after $"dns[place={place};exact=on;{common};{wide}]"))

          test "the mean is protected, and must fail: with centred moments it is not" (fun () ->
              let off written =
                  measurements "deviation_rel" (fst (run (withMean 3.0) 0 written))
                  |> List.pick (fun (step, task, value) -> if (step, task) = (2, 1) then Some value else None)

              // One head of the old pair moves, so that the first-order change is the whole change.
              let still written = Expect.isLessThan (off written) tight written

              for options in
                  [ "place=update"; "place=eigenbasis"; "place=eigenbasis;partner=at-learning"; "place=update;sides=input" ] do
                  let cuts = if options.Contains "input" then "threshold=relative:1e-9" else cuts
                  still $"dns[{options};{common};{cuts}]"
                  let centred = $"dns[{options};moments=centred;{common};{cuts}]"
                  Expect.throwsT<AssertException> (fun () -> still centred) $"{centred} should not be stable"
                  Expect.isGreaterThan (off centred) 1e-3 "and by far")

          test "on rows of mean zero centred moments are the same method" (fun () ->
              let heads written = (run (withMean 0.0) 0 written |> snd)[2]

              for written in
                  [ $"place=update;{cuts}"
                    $"place=eigenbasis;{cuts}"
                    $"place=eigenbasis;partner=at-learning;{cuts}"
                    "sides=input;threshold=relative:1e-9"
                    "protect=soft;tau=1e-3" ] do
                  agree close (heads $"dns[{written};moments=centred;{common}]") (heads $"dns[{written};{common}]"))

          test "every method that takes them is another with centred moments where rows have a mean" (fun () ->
              for e in Registry.entries do
                  let m = e.Method

                  if e.Options |> List.exists (fun o -> o.Name = "moments") && e.Host.IsNone then
                      let at value = after $"{m.Name}[moments={value};{common}]"
                      agree 0.0 (at "uncentred") (after $"{m.Name}[{common}]")
                      differ (at "centred") (at "uncentred"))

          test "what is kept of several steps and partners is the covariance of all their rows" (fun () ->
              let s = stream ()

              let tasks = [ for t in s.Steps -> Task.ofPair t.Index t.Name t.Pair t.A.Features t.B.Features ]

              let heads: Heads =
                  Map
                      [ for m, columns in Stream.modalities s ->
                            m, Seed.normal [ d; columns ] (Seed.ofInt 3 |> Seed.split m.Name) ]

              let covariance (rows: torch.Tensor list) =
                  let x = torch.cat (Array.ofList rows, 0L)
                  let left = x - x.mean ([| 0L |], true)
                  left.t().mm left / number (float x.shape[0])

              for which in [ PartnerOutputs.Current; PartnerOutputs.AtLearning ] do
                  let memory =
                      (Map.empty, tasks) ||> List.fold (fun memory t -> History.add which Centring.Centred heads [ t ] memory)

                  for m in heads.Keys do
                      let own = tasks |> List.filter (fun t -> List.contains m (Pair.members t.Pair))
                      let outputs (t: Task) = let p = Pair.partner m t.Pair in Heads.outputs heads[p] (t.All p)
                      let inputs = History.inputs m memory |> Option.get
                      let partners = History.partnerOutputs which m heads memory |> Option.get
                      same $"{which}: inputs of {m}" tight inputs.Matrix (covariance [ for t in own -> t.All m ])
                      same $"{which}: outputs beside {m}" tight partners.Matrix (covariance (List.map outputs own)))

          test "the first step of a modality is free" (fun () ->
              let first written = (run (stream ()) 0 written |> snd)[1]
              agree tight (first $"dns[{common}]") (first $"vanilla[{common}]"))

          test "protection in the limit of none is none" (fun () ->
              let nothing = after $"dns[protect=nothing;{common}]"
              agree tight (after $"dns[protect=product;tau=1;free-basis=own;{common}]") nothing
              agree 1e-6 (after $"dns[protect=soft;tau=1e12;{common}]") nothing
              agree tight (after $"dns[protect=trust;budget=1e9;{common}]") nothing
              agree 0.0 (after $"eigenbasis-only[{common}]") nothing)

          test "what is kept does not grow with the samples" (fun () ->
              let bytes (rows: int64) written =
                  let x purpose = Seed.normal [ rows; 5L ] (Seed.ofInt 2 |> Seed.split purpose)
                  let s = streamOf [ vision, text, x "1a", x "1b"; audio, text, x "2a", x "2b"; vision, text, x "3a", x "3b" ]
                  run s 0 written |> fst |> measurements "bytes_state" |> List.map (fun (_, _, v) -> v)

              for written in
                  [ "dns[epochs=1;batch=8]"
                    "dns[epochs=1;batch=8;moments=centred]"
                    "dns[epochs=1;batch=8;partner=at-learning]"
                    "reference[epochs=1;batch=8]" ] do
                  Expect.equal (bytes 80L written) (bytes 16L written) written

              // Two moments of 5 × 5 and their counts a pair, a third step over a pair that was there already.
              Expect.equal (bytes 16L "dns[epochs=1;batch=8]") [ 416.0; 832.0; 832.0 ] "bytes"
              // And two means of 5 where they are taken off.
              Expect.equal (bytes 16L "dns[epochs=1;batch=8;moments=centred]") [ 496.0; 992.0; 992.0 ] "bytes with means"
              Expect.equal (bytes 16L "vanilla[epochs=1;batch=8]") [ 0.0; 0.0; 0.0 ] "nothing for vanilla")

          test "the named variants are dns with settings" (fun () ->
              agree 0.0 (after $"dns-soft[{common};tau=1e-3]") (after $"dns[protect=soft;tau=1e-3;{common}]")
              agree 0.0 (after $"dns-trust[{common};budget=0.01]") (after $"dns[protect=trust;budget=0.01;{common}]"))

          test "the spectra are told with their cuts, and a step that cannot move says so" (fun () ->
              let spectra = (run (stream ()) 0 $"dns[{common};{cuts}]" |> fst).Spectra
              Expect.isFalse (spectra |> List.exists (fun (step, _) -> step = 1)) "no history, no spectrum"

              let cut step name side =
                  spectra
                  |> List.pick (fun (t, s) ->
                      if t = step && s.Modality.Name = name && s.Side = side then Some s.Protected else None)

              Expect.equal (cut 2 text "input") (Some 2) "rank 2 after one step"
              Expect.equal (cut 4 text "input") (Some 4) "rank 4 after two"
              Expect.equal (cut 4 vision "partner") (Some 4) "two partners of rank 2"
              let soft = (run (stream ()) 0 $"dns-soft[{common}]" |> fst).Spectra
              Expect.isTrue (soft |> List.forall (fun (_, s) -> s.Protected.IsNone)) "soft has no cut"

              let full n = Seed.normal [ 30L; 4L ] (Seed.ofInt n)
              let square = streamOf [ vision, text, full 1, full 2; vision, text, full 3, full 4 ]
              let remarks = ResizeArray()

              let tell event =
                  match event with
                  | Event.Remark(step, words) -> remarks.Add(step.Index, words)
                  | Event.Solved _
                  | Event.Epoch _ -> ()

              let p = plan square $"dns[{common};{cuts}]"
              let mutable heads: Map<int, Heads> = Map.empty

              let save (step: Step) (h: Heads) =
                  heads <- Map.add step.Index (Heads.map (fun w -> w.clone().DetachFromDisposeScope()) h) heads

              Train.run square torch.CPU Split.Test 0 { Observer.silent with Tell = tell; Save = save } p |> Check.get |> ignore
              Expect.sequenceEqual (remarks |> Seq.map fst) [ 2; 2 ] "both modalities of step 2"
              Expect.stringContains (snd remarks.[0]) "no free direction left" "words"
              agree 0.0 heads.[2] heads.[1])

          test "beginning and ending a step leave heads, memory and data as they are" (fun () ->
              let s = stream ()
              let initial = Heads.identity Dtype.Float64 torch.CPU d (Stream.modalities s)

              for text in
                  [ "vanilla"
                    "reference"
                    "dns"
                    "dns[place=gradient]"
                    "dns[place=update]"
                    "dns[partner=at-learning]"
                    "dns[moments=centred;partner=at-learning]"
                    "dns-soft"
                    "dns-trust" ] do
                  let p = plan s text
                  let heads = p.Method.Initial initial
                  let inputs = if p.Method.Bias then Heads.withBias else id

                  let tasks =
                      s.Steps
                      |> List.map (fun t -> Task.ofPair t.Index t.Name t.Pair (inputs t.A.Features) (inputs t.B.Features))

                  let context =
                      { Settings = p.Settings
                        Device = torch.CPU
                        Seed = Seed.ofInt 0
                        Initial = heads
                        Updates = 5L
                        Old = []
                        Remaining = 1 }

                  let memory = (Method.trainer p.Method).End context Map.empty heads [ tasks.[0]; tasks.[1] ]

                  let given =
                      [ yield! heads.Values
                        yield! memory.Values
                        for t in tasks do
                            t.A
                            t.B ]

                  untouched text given (fun () ->
                      let session = (Method.trainer p.Method).Begin context memory heads [ tasks.[3] ]
                      let task = session.Data[0]
                      let rows = Tensors.range torch.CPU 0L 10L

                      let batch = task |> Task.batch 0 rows 1 (Seed.ofInt 0)

                      let inside = [ yield! session.Start.Values; task.A; task.B; rows; batch.A; batch.B ]

                      untouched $"{text}: a pass" inside (fun () ->
                          let pass = Direction.pass session.Direction session.Kept session.Start batch
                          let transform = Rule.transform session.Start session.Rule
                          transform.Update (transform.Init session.Start) pass.Gradients session.Start)

                      session.Finish { Weights = session.Start; Kept = session.Kept } |> ignore

                      (Method.trainer p.Method).End context memory heads [ tasks.[3] ])) ]
