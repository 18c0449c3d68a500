module Cmcl.Tests.RelationsTests

open Cmcl
open Expecto
open Cmcl.Tests.Checks
open TorchSharp

/// τ from 0.1 to 3; one way or symmetric, raw or cosine, as asked for.
let private contrasts (c: Case) : Contrast list =
    [ for scoring in [ Scoring.Raw; Scoring.Cosine ] do
          for symmetric in [ false; true ] do
              { Temperature = 0.1 * 30.0 ** fraction c "temperature"
                Scoring = scoring
                Symmetric = symmetric } ]

/// No candidates beside the partners, some, some of two kinds.
let private besides (c: Case) : Beside list =
    let some purpose rows = normal c purpose rows c.D
    let few, more = 1L + c.Rank % 3L, 2L + c.Rank

    [ { ForA = []; ForB = [] }
      { ForA = [ some "fa" few ]; ForB = [] }
      { ForA = []; ForB = [ some "fb" more ] }
      { ForA = [ some "fa" more; some "fa'" few ]
        ForB = [ some "fb" few; some "fb'" more ] } ]

/// −log softmax of the match among all candidates, written with torch's cross entropy.
let private reference (k: Contrast) (ya: torch.Tensor) (yb: torch.Tensor) (beside: Beside) : torch.Tensor =
    let unit (y: torch.Tensor) = if k.Scoring = Scoring.Cosine then torch.nn.functional.normalize (y, 2.0, 1L) else y

    let oneWay (anchors: torch.Tensor) (all: torch.Tensor list) =
        let scores = (unit anchors).mm((unit (torch.cat (Array.ofList all, 0L))).t()) / number k.Temperature
        torch.nn.functional.cross_entropy (scores, Tensors.range torch.CPU 0L anchors.shape[0])

    let forth = oneWay ya (yb :: beside.ForA)
    if k.Symmetric then (forth .+ oneWay yb (ya :: beside.ForB)) / number 2.0 else forth

let private leaf (t: torch.Tensor) = t.detach().clone().requires_grad_ true

/// Gradients of everything given; zero where the loss does not depend on it.
let private autograd (loss: torch.Tensor) (wrt: torch.Tensor list) : torch.Tensor list =
    let reached = wrt |> List.fold (fun (sum: torch.Tensor) t -> sum .+ t.sum () * number 0.0) loss
    torch.autograd.grad (ResizeArray [ reached ], ResizeArray wrt) |> List.ofSeq

let private agree (k: Contrast) (ya: torch.Tensor) (yb: torch.Tensor) (beside: Beside) : unit =
    let g = Relations.contrast k ya yb beside
    let a, b = leaf ya, leaf yb

    let leaves =
        { ForA = List.map leaf beside.ForA
          ForB = List.map leaf beside.ForB }

    let loss = reference k a b leaves
    near "loss" close (item g.Matched.Loss) (item loss)

    for ours, theirs in
        List.zip ([ g.Matched.A; g.Matched.B ] @ g.ForA @ g.ForB) (autograd loss ([ a; b ] @ leaves.ForA @ leaves.ForB)) do
        same $"gradient, {k.Scoring}, symmetric {k.Symmetric}" close ours theirs

/// The distillation loss by its definition: q and p by torch's softmax of unit rows, gradient through p.
let private distilled kappa kappaPast (pa: torch.Tensor) (pb: torch.Tensor) (ya: torch.Tensor) (yb: torch.Tensor) =
    let scores (a: torch.Tensor) (b: torch.Tensor) (kappa: float) =
        torch.nn.functional.normalize(a, 2.0, 1L).mm(torch.nn.functional.normalize(b, 2.0, 1L).t()) / number kappa

    let oneWay (past: torch.Tensor) (now: torch.Tensor) = -(past.softmax(1L).detach() * now.softmax(1L).log()).sum(1L).mean()

    let past, now = scores pa pb kappaPast, scores ya yb kappa
    (oneWay past now .+ oneWay (past.t ()) (now.t ())) / number 2.0

/// ½ (mean entropy of the rows' distributions + the same of the columns').
let private entropy (r: Relations) : float =
    let of' (q: torch.Tensor) = item ((q * q.log().nan_to_num(0.0, 0.0, 0.0)).sum()) / float q.shape[0]
    -0.5 * (of' r.Rows + of' r.Columns)

let private pairOf c purpose = normal c (purpose + " a") c.N c.D, normal c (purpose + " b") c.N c.D

let private kappas c = 0.1 + fraction c "kappa", 0.05 + fraction c "past"

let tests =
    testList
        "Relations"
        [ property "contrast: loss and gradients of rows and of candidates are autograd's" (fun c ->
              let ya, yb = pairOf c "y"

              for k in contrasts c do
                  for beside in besides c do
                      agree k ya yb beside)

          property "contrast: without candidates beside it is InfoNCE, bit for bit" (fun c ->
              let ya, yb = pairOf c "y"

              for k in contrasts c do
                  let expected = Contrastive.gradients k ya yb
                  let g = Relations.contrast k ya yb { ForA = []; ForB = [] }
                  identical "loss" g.Matched.Loss expected.Loss
                  identical "A" g.Matched.A expected.A
                  identical "B" g.Matched.B expected.B)

          property "contrast: a candidate more never makes it easier; one way, those for B do not enter" (fun c ->
              let ya, yb = pairOf c "y"
              let of' k forA forB = item (Relations.contrast k ya yb { ForA = forA; ForB = forB }).Matched.Loss
              let one, two = normal c "one" 2L c.D, normal c "two" 1L c.D

              // A candidate far behind adds less than rounding.
              let harder what more fewer = Expect.isGreaterThan more (fewer - tight * max 1.0 fewer) what

              for k in contrasts c do
                  harder "some" (of' k [ one ] []) (of' k [] [])
                  harder "more" (of' k [ one; two ] []) (of' k [ one ] [])

                  if k.Symmetric then
                      harder "both ways" (of' k [ one ] [ two ]) (of' k [ one ] [])
                  else
                      Expect.equal (of' k [ one ] [ two ]) (of' k [ one ] []) "one way")

          property "relations: rows and columns sum to one, whatever the lengths of outputs" (fun c ->
              let ya, yb = pairOf c "y"
              let r = Relations.between (fst (kappas c)) ya yb
              let ones = torch.ones ([| c.N |], dtype = torch.float64)
              same "rows" tight (r.Rows.sum 1L) ones
              same "columns" tight (r.Columns.sum 0L) ones
              let scaled = Relations.between (fst (kappas c)) (ya * number 3.0) (yb * number 0.1)
              same "lengths, rows" tight scaled.Rows r.Rows
              same "lengths, columns" tight scaled.Columns r.Columns)

          property "distillation: loss and gradients are autograd's, through the current relations alone" (fun c ->
              let (pa, pb), (ya, yb) = pairOf c "past", pairOf c "now"
              let kappa, kappaPast = kappas c
              let g = Relations.distil kappa (Relations.between kappaPast pa pb) ya yb
              let a, b, pa, pb = leaf ya, leaf yb, leaf pa, leaf pb
              let loss = distilled kappa kappaPast pa pb a b
              near "loss" close (item g.Loss) (item loss)
              let expected = autograd loss [ a; b; pa; pb ]
              same "A" close g.A expected[0]
              same "B" close g.B expected[1]
              vanishes "not through the past" tight (Tensors.norm expected[2] + Tensors.norm expected[3]) 1.0)

          property "distillation: the entropy of the past is its least value, with no gradient there" (fun c ->
              let pa, pb = pairOf c "past"
              let kappa, _ = kappas c
              let past = Relations.between kappa pa pb
              let at = Relations.distil kappa past pa pb
              near "entropy" close (item at.Loss) (entropy past)
              vanishes "gradient" tight (Tensors.norm at.A + Tensors.norm at.B) 1.0
              let elsewhere = pairOf c "now" ||> Relations.distil kappa past
              Expect.isGreaterThan (item elsewhere.Loss) (item at.Loss) "more elsewhere"
              Expect.isGreaterThan (Tensors.norm elsewhere.A) 1e-10 "a gradient elsewhere")

          mustFail "at the published temperatures there is no gradient at the heads of before" (fun c ->
              let pa, pb = pairOf c "past"
              let at = Relations.distil 0.2 (Relations.between 0.01 pa pb) pa pb
              vanishes "gradient" 1e-6 (Tensors.norm at.A + Tensors.norm at.B) 1.0)

          property "nothing given is changed, and no temporaries are left" (fun c ->
              let ya, yb = pairOf c "y"
              let past = Relations.between 0.5 (normal c "pa" c.N c.D) (normal c "pb" c.N c.D)
              let given = [ ya; yb; past.Rows; past.Columns ]

              untouched "distillation" given (fun () ->
                  Expect.equal (leaked (fun () -> Relations.distil 0.2 past ya yb |> ignore)) 3L "loss and two gradients")

              for k in contrasts c do
                  for beside in besides c do
                      let candidates = beside.ForA @ beside.ForB

                      untouched "contrast" ([ ya; yb ] @ candidates) (fun () ->
                          let kept = leaked (fun () -> Relations.contrast k ya yb beside |> ignore)
                          Expect.equal kept (3L + int64 candidates.Length) "loss and gradients"))

          test "shapes that do not fit are told" (fun () ->
              let ones (rows: int64) (columns: int64) = torch.ones (rows, columns, dtype = torch.float64)
              let beside = { ForA = [ ones 2L 5L ]; ForB = [] }

              match faultOf (fun () -> Relations.contrast Contrastive.paper (ones 3L 4L) (ones 3L 4L) beside) with
              | Fault.Shape(what, _, actual) ->
                  Expect.equal what "outputs of candidates" "what"
                  Expect.equal actual "[2 × 5]" "which"
              | fault -> failtest fault.Message

              let past = Relations.between 1.0 (ones 2L 4L) (ones 2L 4L)

              match faultOf (fun () -> Relations.distil 1.0 past (ones 3L 4L) (ones 3L 4L)) with
              | Fault.Shape(what, _, _) -> Expect.equal what "relations over rows" "what"
              | fault -> failtest fault.Message) ]
