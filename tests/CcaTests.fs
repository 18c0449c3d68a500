/// Multiset canonical correlations from moments: against NumPy, against what must leave them alone, and at their limits.
module Cmcl.Tests.CcaTests

open System
open System.IO
open System.Text.Json
open Cmcl
open Expecto
open Cmcl.Tests.Checks
open TorchSharp

let private va, vb, third = modality vision, modality text, modality audio

/// Matched rows of three modalities in three steps, with something in common.
let private steps (c: Case) : (Pair * torch.Tensor * torch.Tensor) list =
    let width m =
        if m = vision then c.Da
        elif m = text then c.Db
        else c.D

    let common = normal c "common" (c.N + 9L) 4L

    let rows name n m = common.narrow(0L, 0L, n).mm(normal c $"view {m}" 4L (width m)) .+ normal c $"noise {name} {m}" n (width m)

    [ for name, a, b, n in [ "1", vision, text, c.N + 9L; "2", audio, text, c.N + 2L; "3", vision, audio, c.N + 5L ] ->
          Pair.named a b, rows name n a, rows name n b ]

/// A step's moments of weight 1.
let private mean (p, xa: torch.Tensor, xb: torch.Tensor) =
    JointMoments.ofRows p xa xb |> JointMoments.scale (1.0 / float xa.shape[0])

let private jointOf (c: Case) = steps c |> List.map mean |> JointMoments.mergeAll

let private options (c: Case) =
    { Cca.defaults with
        Ridge = 0.05 + fraction c "ridge"
        Exponent = [ 0.5; 1.0; 2.0 ][c.Seed % 3] }

let private most (m: JointMoments) = m.Second.Values |> Seq.sumBy _.Sum.shape[0]

let private solved (o: CcaOptions) (m: JointMoments) : Heads = Cca.solve o (most m) m |> Check.getAll |> fst

/// W_aᵀ W_b of every two modalities: all that scores know.
let private products (h: Heads) : Map<string, torch.Tensor> =
    Map
        [ for KeyValue(a, wa) in h do
              for KeyValue(b, wb) in h do
                  if a < b then
                      $"{a}|{b}", wa.t().mm wb ]

let private sameProducts what tolerance (actual: Heads) (expected: Heads) =
    let expected = products expected

    for KeyValue(name, m) in products actual do
        same $"{what}: {name}" tolerance m expected[name]

let private sameMoments what tolerance (a: JointMoments) (b: JointMoments) =
    let sums (m: JointMoments) = JointMoments.toNamed m
    let expected = sums b
    Expect.sequenceEqual (sums a).Keys expected.Keys $"{what}: names"

    for KeyValue(name, t) in sums a do
        same $"{what}: {name}" tolerance t expected[name]

let private fixture =
    lazy (JsonDocument.Parse(File.ReadAllText(Path.Combine(__SOURCE_DIRECTORY__, "cases", "cca.json"))).RootElement)

let private matrix (e: JsonElement) =
    Tensors.ofRows [ for row in e.EnumerateArray() -> [ for x in row.EnumerateArray() -> x.GetDouble() ] ]

let private numbers (e: JsonElement) = [ for x in e.EnumerateArray() -> x.GetDouble() ]

/// ‖a/‖a‖ − b/‖b‖‖: products are known up to one factor.
let private sameDirection what (a: torch.Tensor) (b: torch.Tensor) =
    same what close (a / number (Tensors.norm a)) (b / number (Tensors.norm b))

let private references =
    testList
        "against NumPy"
        [ test "two modalities: singular values and directions of the whitened cross moment" (fun () ->
              let f = fixture.Value.GetProperty "two"
              let x, y = matrix (f.GetProperty "x"), matrix (f.GetProperty "y")

              let o =
                  { Cca.defaults with
                      Ridge = f.GetProperty("ridge").GetDouble()
                      Exponent = f.GetProperty("exponent").GetDouble() }

              let joint = mean (pair, x, y)
              let found = Cca.correlations o 3 joint |> Check.getAll

              for i, value in List.indexed (numbers (f.GetProperty "values")) do
                  near $"correlation {i}" close found.Values[i] value

              let heads = Cca.heads o.Exponent 5L joint found
              sameDirection "scores" (heads[va].t().mm heads[vb]) (matrix (f.GetProperty "product")))

          test "three modalities in four steps: eigenvalues and products of heads" (fun () ->
              let f = fixture.Value.GetProperty "many"

              let joint =
                  [ for s in f.GetProperty("pairs").EnumerateArray() ->
                        let name (key: string) = string (s.GetProperty(key).GetString())
                        mean (Pair.named (name "a") (name "b"), matrix (s.GetProperty "x"), matrix (s.GetProperty "y")) ]
                  |> JointMoments.mergeAll

              let o =
                  { Cca.defaults with
                      Ridge = f.GetProperty("ridge").GetDouble() }

              let found = Cca.correlations o (f.GetProperty("rank").GetInt32()) joint |> Check.getAll

              for i, value in List.indexed (numbers (f.GetProperty "values")) do
                  near $"eigenvalue {i}" close found.Values[i] value

              let heads = products (Cca.heads 1.0 6L joint found)

              for p in f.GetProperty("products").EnumerateObject() do
                  sameDirection p.Name heads[p.Name] (matrix p.Value)) ]

let private sums =
    testList
        "moments"
        [ property "what is kept is the mean of the products of matched rows" (fun c ->
              let p, xa, xb = (steps c).Head
              let m = mean (p, xa, xb)
              same "second" tight m.Second[va].Sum (Moment.ofRows xa).Matrix
              same "cross" tight m.Cross[JointMoments.both va vb].Sum (xb.t().mm(xa) / number (float xa.shape[0]))
              near "weight" tight m.Second[va].Weight 1.0)

          property "shards that are merged are the whole, in any order" (fun c ->
              let p, xa, xb = (steps c).Head
              let at = 1L + int64 (fraction c "at" * float (xa.shape[0] - 2L))
              let part first n = JointMoments.ofRows p (xa.narrow (0L, first, n)) (xb.narrow (0L, first, n))
              let one, two = part 0L at, part at (xa.shape[0] - at)
              let whole = JointMoments.ofRows p xa xb
              sameMoments "one, two" tight (JointMoments.merge one two) whole
              sameMoments "two, one" tight (JointMoments.merge two one) whole)

          property "what is taken off was never there" (fun c ->
              let parts = steps c |> List.map mean
              let all = JointMoments.mergeAll parts

              for i, part in List.indexed parts do
                  let rest = parts |> List.indexed |> List.filter (fst >> (<>) i) |> List.map snd |> JointMoments.mergeAll
                  let left = JointMoments.subtract part all
                  sameMoments $"without step {i + 1}" close left rest
                  sameProducts $"heads without step {i + 1}" 1e-7 (solved (options c) left) (solved (options c) rest)

              let none = JointMoments.subtract all all
              Expect.isTrue (none.Second.IsEmpty && none.Cross.IsEmpty) "all of it")

          property "as named tensors they are the same" (fun c ->
              let m = jointOf c
              let named = JointMoments.toNamed m |> Map.add "other" (torch.tensor 1L)
              sameMoments "read" 0.0 (JointMoments.ofNamed named) m)

          property "no tensor that is given is changed, and nothing is left" (fun c ->
              let rows = steps c
              let m = jointOf c
              let given = m.Tensors @ List.collect (fun (_, a, b) -> [ a; b ]) rows

              untouched "moments" given (fun () ->
                  (jointOf c).Tensors, (JointMoments.subtract (mean rows.Head) m).Tensors, solved (options c) m)

              Expect.equal
                  (leaked (fun () ->
                      use scope = torch.NewDisposeScope()
                      solved (options c) (JointMoments.merge m m) |> ignore))
                  0L
                  "left")

          test "what cannot be added or taken off is refused with a sentence" (fun () ->
              let rows (n: int64) d = Seed.normal [ n; d ] (Seed.ofInt (int d))
              let narrow, wide = mean (pair, rows 9L 3L, rows 9L 4L), mean (pair, rows 9L 5L, rows 9L 4L)
              let message f = (faultOf f).Message
              Expect.stringContains (message (fun () -> JointMoments.merge narrow wide)) "moments of vision to merge" "widths"

              Expect.stringContains
                  (message (fun () -> JointMoments.subtract (JointMoments.merge narrow narrow) narrow))
                  "take off what was added before"
                  "more than there is"

              Expect.stringContains
                  (message (fun () -> JointMoments.ofRows pair (rows 9L 3L) (rows 8L 4L)))
                  "rows of text"
                  "rows that do not match"

              Expect.stringContains (message (fun () -> JointMoments.accumulate [ pair, 1.0 ] [])) "at least one" "no block") ]

let private invariance =
    testList
        "what scores do not depend on"
        [ property "the order of steps" (fun c ->
              let parts = steps c |> List.map mean
              let o = options c
              let before = solved o (JointMoments.mergeAll parts)
              sameProducts "backwards" 1e-8 (solved o (JointMoments.mergeAll (List.rev parts))) before)

          property "duplicated rows" (fun c ->
              let twice (p, a: torch.Tensor, b: torch.Tensor) = p, torch.cat ([| a; a |], 0L), torch.cat ([| b; b |], 0L)
              let o = options c

              sameProducts
                  "twice"
                  1e-8
                  (solved o (steps c |> List.map (twice >> mean) |> JointMoments.mergeAll))
                  (solved o (jointOf c)))

          property "an orthogonal change of a modality's features" (fun c ->
              let struct (q, _) = torch.linalg.qr (normal c "turn" c.Db c.Db)

              let turned (p: Pair, a: torch.Tensor, b: torch.Tensor) =
                  let turn m (x: torch.Tensor) = if m = vb then x.mm q else x
                  p, turn p.A a, turn p.B b

              let o = options c
              let before = solved o (jointOf c)
              let after = solved o (steps c |> List.map (turned >> mean) |> JointMoments.mergeAll)
              let back = after |> Map.add vb (after[vb].mm(q.t ()))
              sameProducts "turned" 1e-8 back before)

          test "rows, order or scale of a step change them where they should: a check that must fail" (fun () ->
              let c = { Seed = 5; N = 9L; D = 4L; Da = 5L; Db = 3L; Rank = 2L }
              let parts = steps c |> List.map mean
              let before = products (solved Cca.defaults (JointMoments.mergeAll parts))
              let heavy = JointMoments.scale 3.0 parts.Head :: parts.Tail |> JointMoments.mergeAll
              let after = products (solved Cca.defaults heavy)
              Expect.isGreaterThan (Tensors.relativeDifference after["text|vision"] before["text|vision"]) 1e-3 "a heavier step") ]

let private limits =
    testList
        "limits"
        [ property "correlations of two modalities are in (0, 1], 1 for the same rows without a ridge" (fun c ->
              let p, xa, xb = (steps c).Head
              let found = Cca.correlations { Cca.defaults with Ridge = 1e-6 } 99 (mean (p, xa, xb)) |> Check.getAll
              Expect.all found.Values (fun v -> v > 0.0 && v <= 1.0 + 1e-12) "in (0, 1]"
              let x = normal c "own" (c.Da + 20L) c.Da
              let own = Cca.correlations { Cca.defaults with Ridge = 0.0 } 99 (mean (pair, x, x)) |> Check.getAll
              Expect.all own.Values (fun v -> abs (v - 1.0) < 1e-9) "the same rows"
              Expect.hasLength own.Values (int c.Da) "as many as columns")

          property "planted correlations are found, whatever the bases" (fun c ->
              let d = 5L
              let n = c.N + 2L * d

              // Latents whose columns are orthonormal, of both sides together: correlations are what they are made to be, not about that.
              let struct (q, _) = torch.linalg.qr (normal c "latents" n (2L * d))
              let za, rest = q.narrow (1L, 0L, d), q.narrow (1L, d, d)
              let planted = [| for i in 1..5 -> (float i - 0.5 * fraction c $"ρ {i}") / 5.0 |] |> Array.sortDescending
              let columns (values: float[]) = torch.tensor (values, dtype = torch.float64)
              let zb = za * columns planted .+ rest * columns [| for p in planted -> sqrt (1.0 - p * p) |]

              let basis name =
                  let struct (turn, _) = torch.linalg.qr (normal c name d d)
                  turn * columns [| for i in 1..5 -> 0.5 + fraction c $"{name} {i}" |]

              let xa, xb = za.mm (basis "a"), zb.mm (basis "b")

              let found =
                  (Cca.correlations { Cca.defaults with Ridge = 1e-13 } 5 (JointMoments.ofRows (Pair.named vision text) xa xb)
                   |> Check.getAll)
                      .Values

              for f, p in Array.zip found planted do
                  near "correlation" 1e-8 f p)
          property "directions are orthonormal in D + γI, and outputs have the energy of features" (fun c ->
              let o = options c
              let m = jointOf c
              let found = Cca.correlations o 99 m |> Check.getAll

              let gram =
                  [ for KeyValue(a, v) in found.Directions ->
                        let d = m.Second[a].Sum

                        let ridge =
                            torch.eye (d.shape[0], dtype = torch.float64)
                            * number (o.Ridge * item (d.trace ()) / float d.shape[0])

                        v.t().mm(d .+ ridge).mm v ]
                  |> List.reduce (.+)

              same "Gram" 1e-8 gram (torch.eye (int64 found.Values.Length, dtype = torch.float64))
              let heads = Cca.heads o.Exponent 30L m found
              let energy = Seq.sum [ for KeyValue(a, w) in heads -> item ((w.mm m.Second[a].Sum * w).sum()) ]
              near "energy" 1e-9 energy (Seq.sum [ for s in m.Second.Values -> item (s.Sum.trace ()) ]))

          property "at full rank without a ridge and q = ½ they minimise the spectral contrastive loss" (fun c ->
              let n = c.Da + c.Db + 20L
              let common = normal c "common" n (min c.Da c.Db)
              let xa = common.mm (normal c "a" common.shape[1] c.Da) .+ normal c "noise a" n c.Da
              let xb = common.mm (normal c "b" common.shape[1] c.Db) .+ normal c "noise b" n c.Db
              let m = mean (pair, xa, xb)
              let o = { Cca.defaults with Ridge = 0.0; Exponent = 0.5 }
              let found = Cca.correlations o 99 m |> Check.getAll
              let heads = Cca.heads o.Exponent 30L m found
              let cross = xa.t().mm(xb) / number (float n)

              let optimum = torch.linalg.solve((Moment.ofRows xa).Matrix, cross).mm(torch.linalg.inv (Moment.ofRows xb).Matrix)

              // The one factor of all heads is free here; its ratio is the same for every entry.
              let found = heads[va].t().mm heads[vb]
              same "M*" 1e-6 (found / number (Tensors.norm found)) (optimum / number (Tensors.norm optimum)))

          property "a prior without end is zero-shot" (fun c ->
              let x m = normal c $"x {m}" (c.N + 5L) c.D
              let m = mean (pair, x vision, x text)
              let heads = solved { Cca.defaults with Prior = 1e9 } m
              let product = heads[va].t().mm heads[vb]
              let size = item (product.diagonal().mean())
              same "the identity" 1e-6 (product / number size) (torch.eye (c.D, dtype = torch.float64)))

          property "a prior without end towards heads has their scores where q is ½, whatever the widths and d" (fun c ->
              let n = c.N + 5L
              let m = mean (pair, normal c "x a" n c.Da, normal c "x b" n c.Db)
              let d = 1L + int64 (c.Seed % 9)
              let initial = Map [ va, normal c "head a" d c.Da; vb, normal c "head b" d c.Db ]
              let o = { Cca.defaults with Prior = 1e10; Exponent = 0.5 }
              let heads, count = Cca.solveFrom initial o d m |> Check.getAll
              Expect.isLessThanOrEqual (int64 count) d "directions"
              let unit (h: Heads) = let product = h[va].t().mm h[vb] in product / number (Tensors.norm product)
              same "W_aᵀ W_b" 1e-5 (unit heads) (unit initial)
              // The size of a head is nothing to it.
              let larger = initial |> Map.add va (initial[va] * number 7.0)
              let again, _ = Cca.solveFrom larger o d m |> Check.getAll
              sameProducts "scaled" 1e-9 again heads)

          property "a prior towards identities is that of features of one width" (fun c ->
              let x m = normal c $"x {m}" (c.N + 5L) c.D
              let m = mean (pair, x vision, x text)
              let o = { options c with Prior = 0.3 }
              let initial = Heads.identity Dtype.Float32 torch.CPU (c.D + 2L) [ va, c.D; vb, c.D ]
              let from, _ = Cca.solveFrom initial o c.D m |> Check.getAll
              let plain, _ = Cca.solve o c.D m |> Check.getAll
              identical "vision, bit for bit" from[va] plain[va]
              identical "text, bit for bit" from[vb] plain[vb])

          property "turned towards other heads, scores stay, and no turn before it matters" (fun c ->
              let m = jointOf c
              let d = most m
              let heads = solved (options c) m
              let others = heads |> Map.map (fun a w -> normal c $"other {a}" d w.shape[1])
              let struct (q, _) = torch.linalg.qr (normal c "turn" d d)
              let there = Cca.towards others m heads
              sameProducts "scores" close there heads
              let again = Cca.towards others m (heads |> Heads.map (fun w -> q.mm w))

              let apart (h: Heads) =
                  Seq.sum
                      [ for KeyValue(a, w) in h do
                            let left = w - others[a]
                            item ((left.mm m.Second[a].Sum * left).sum()) ]

              near "whatever turn before" 1e-9 (apart again) (apart there)
              Expect.isLessThanOrEqual (apart there) (apart heads + 1e-9) "nearer"
              Expect.isLessThanOrEqual (apart there) (apart (heads |> Heads.map (fun w -> q.mm w)) + 1e-9) "nearest")

          property "a rank keeps the leading directions" (fun c ->
              let o, m = options c, jointOf c
              let all = Cca.correlations o 99 m |> Check.getAll
              let heads, count = Cca.solve { o with Rank = Some 1 } 9L m |> Check.getAll
              Expect.equal count 1 "one"
              same "its own" close (heads[va].narrow(0L, 1L, 8L)) (torch.zeros (8L, c.Da, dtype = torch.float64))
              let direction = all.Directions[va].narrow(1L, 0L, 1L)
              let row = heads[va].narrow(0L, 0L, 1L).t()
              let cosine = item ((row * direction).sum()) / (Tensors.norm row * Tensors.norm direction)
              near "the first" 1e-9 (abs cosine) 1.0)

          test "a pair that no step has is composed where it is asked for" (fun () ->
              let c = { Seed = 11; N = 14L; D = 4L; Da = 4L; Db = 4L; Rank = 2L }
              let joint = steps c |> List.truncate 2 |> List.map mean |> JointMoments.mergeAll
              let of' unseen = products (solved { Cca.defaults with Unseen = unseen } joint)
              let zero, composed = of' Unseen.Zero, of' Unseen.Composed
              Expect.isGreaterThan (Tensors.relativeDifference composed["audio|vision"] zero["audio|vision"]) 1e-3 "they differ"
              // With every pair seen nothing is composed.
              let full = jointOf c

              sameProducts
                  "all seen"
                  tight
                  (solved { Cca.defaults with Unseen = Unseen.Composed } full)
                  (solved Cca.defaults full)) ]

let private refusals =
    testList
        "bad input"
        [ test "each with a sentence, none with a NaN" (fun () ->
              let rows (n: int64) (d: int64) name = Seed.normal [ n; d ] (Seed.ofInt 3 |> Seed.split name)
              let few = mean (pair, rows 3L 6L "a", rows 3L 5L "b")
              let refused o d m = Cca.solve o d m |> faultsOf |> List.map _.Message |> String.concat " | "
              let singular = refused { Cca.defaults with Ridge = 0.0 } 6L few
              Expect.stringContains singular "the moment of vision has rank 3 of 6 columns and the ridge is 0" "singular"
              Expect.stringContains singular "the moment of text has rank 3 of 5 columns" "both are told"
              let widths = refused { Cca.defaults with Prior = 1.0 } 6L few
              Expect.stringContains widths "text has 5, vision has 6" "widths"
              Expect.stringContains (refused { Cca.defaults with Rank = Some 7 } 6L few) "at most the 6 rows" "rank"
              Expect.stringContains (refused Cca.defaults 6L JointMoments.empty) "no moments" "nothing"
              let nothing = mean (pair, rows 3L 6L "a" * number 0.0, rows 3L 5L "b")
              Expect.stringContains (refused Cca.defaults 6L nothing) "every feature of vision is 0" "no features"
              let broken = mean (pair, rows 3L 6L "a" * number nan, rows 3L 5L "b")
              Expect.stringContains (faultOf (fun () -> Cca.solve Cca.defaults 6L broken)).Message "the moment of vision" "NaN"
              // Fewer rows than columns are no fault.
              let heads, count = Cca.solve Cca.defaults 6L few |> Check.getAll
              Expect.isLessThanOrEqual count 3 "no more directions than rows"
              Expect.all heads.Values Tensors.isFinite "finite") ]

let tests = testList "Cca" [ references; sums; invariance; limits; refusals ]
