// The binding: one linear map a modality into one space, fitted on base items and the first domain of each modality, then
// frozen. A star through vision, symmetric InfoNCE, six views of each item.
#load "encode.fsx"

open Cmcl
open TorchSharp
open Inventory
open Axes
open Encode

let private epochs, temperature, rate, decay = 150, 0.07, 1e-3, 0.05

/// The domains that the binding sees.
let private firsts = [ "vision:noto"; "line:hc"; "text:en"; "speech:en-us" ]

let private contrast =
    { Temperature = temperature
      Scoring = Scoring.Cosine
      Symmetric = true }

/// The base rows of a domain as encoded and in its other views.
let private viewsOf (e: Encoded) = e.Items.index_select (0L, torch.tensor (Array.map int64 baseRows)) :: e.Views

/// Gradients of the mean loss over the spokes of the star, view v of one side with view w of the other.
let private gradients (views: Map<Modality, torch.Tensor list>) (weights: Heads) (pick: Modality -> int) : Heads =
    let hub = Modality.named "vision"
    let x m = List.item (pick m) views[m]

    let spoke m =
        let g = Contrastive.gradients contrast (Heads.outputs weights[hub] (x hub)) (Heads.outputs weights[m] (x m))
        [ hub, Contrastive.weightGradient g.A (x hub); m, Contrastive.weightGradient g.B (x m) ]

    [ for m in weights.Keys do
          if m <> hub then
              yield! spoke m ]
    |> List.groupBy fst
    |> List.map (fun (m, parts) -> m, parts |> List.map snd |> List.reduce (fun a b -> a + b))
    |> Map

/// The maps W (256 × 256) by modality.
let bind (encoded: Encoded list) : Heads =
    let chosen = encoded |> List.filter (fun e -> List.contains e.Name firsts)
    let views = Map [ for e in chosen -> Modality.named e.Modality, viewsOf e ]
    let count = views |> Map.toSeq |> Seq.map (fun (_, v) -> v.Length) |> Seq.min
    let updates = int64 (epochs * count)
    let pipeline = Transform.chain [ Optim.adam; Optim.decay decay 0L; Optim.rate rate Schedule.Cosine updates ]

    let start: Heads =
        Map
            [ for m in views.Keys ->
                  m,
                  Seed.normal [ dimension; dimension ] (Seed.ofInt 1 |> Seed.split $"binding {m}")
                  / (sqrt (float dimension)).AsScalar() ]

    let step (weights: Heads, state) update =
        use scope = torch.NewDisposeScope()
        // Every modality in a view of its own, each of them as often as the others.
        let order m =
            (Seed.permutation (int64 count) (Seed.ofInt 1 |> Seed.split $"{m} epoch {update / count}")).data<int64>().ToArray()

        let g = gradients views weights (fun m -> int (order m).[update % count])
        let struct (changes, next) = pipeline.Update state g weights
        let moved = changes |> Map.map (fun m change -> weights[m] + change)

        for t in Heads.tensors moved @ TransformState.tensors next do
            scope.MoveToOuter t |> ignore

        for t in Heads.tensors weights @ TransformState.tensors state do
            t.Dispose()

        moved, next

    let weights, _ = List.fold step (start, pipeline.Init start) [ 0 .. int updates - 1 ]
    printfn "  bound %d base items in %d views, %d updates" baseRows.Length count updates
    weights

/// Bound features of a domain: unit rows.
let bound (weights: Heads) (e: Encoded) : torch.Tensor =
    Alignment.normalise (Heads.outputs weights[Modality.named e.Modality] e.Items)
