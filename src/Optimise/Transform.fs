namespace Cmcl

open TorchSharp

/// What a transform remembers between updates: a value, so that it can be kept, compared, written and taken up again.
type TransformState =
    {
        /// How often it was updated.
        Step: int64
        /// Per modality, for those that come and go between updates.
        Counts: Map<Modality, int64>
        /// Running tensors by name and modality.
        Slots: Map<string, Heads>
        /// The states of its parts, where it has parts.
        Parts: TransformState list
    }

/// Where a descent stands: the weights, and what the way to the next ones remembers.
type DescentState = { Weights: Heads; State: TransformState }

/// A step in the pipeline from gradients to updates: a pair of pure functions. `Update` takes the state, the updates so far
/// and the parameters that they are for, and returns new updates and a new state. A loop adds the last updates to the
/// parameters. Only modalities in the updates are touched: an absent one keeps its weights, its momentum and its count.
type Transform =
    { Init: Heads -> TransformState
      Update: TransformState -> Heads -> Heads -> struct (Heads * TransformState) }

[<RequireQualifiedAccess>]
module TransformState =
    let empty: TransformState =
        { Step = 0L
          Counts = Map.empty
          Slots = Map.empty
          Parts = [] }

    /// Every tensor in it, for scopes.
    let rec tensors (s: TransformState) : torch.Tensor list =
        [ for slot in s.Slots.Values do
              yield! Heads.tensors slot
          for part in s.Parts do
              yield! tensors part ]

    /// Every tensor by a function of it.
    let rec map (f: torch.Tensor -> torch.Tensor) (s: TransformState) : TransformState =
        { s with
            Slots = Map.map (fun _ slot -> Heads.map f slot) s.Slots
            Parts = List.map (map f) s.Parts }

[<RequireQualifiedAccess>]
module Transform =
    /// A transform without memory from a function of (updates, parameters) of one modality.
    let stateless (f: Modality -> torch.Tensor -> torch.Tensor -> torch.Tensor) : Transform =
        { Init = fun _ -> TransformState.empty
          Update =
            fun state updates parameters ->
                struct (updates |> Map.map (fun m u -> f m u (Heads.weight m parameters)), { state with Step = state.Step + 1L }) }

    /// Leaves updates as they are.
    let identity: Transform = stateless (fun _ u _ -> u)

    /// One after another, the first one first. Example: `Transform.chain [ Optim.clip 1.0; Optim.adam; Optim.decay 1e-3 0L ]`.
    let chain (transforms: Transform list) : Transform =
        { Init =
            fun parameters ->
                { TransformState.empty with
                    Parts = transforms |> List.map (fun t -> t.Init parameters) }
          Update =
            fun state updates parameters ->
                let folder struct (updates, done') (transform: Transform, part) =
                    let struct (updates, part) = transform.Update part updates parameters
                    struct (updates, part :: done')

                let struct (updates, parts) = List.fold folder (struct (updates, [])) (List.zip transforms state.Parts)

                struct (updates,
                        { state with
                            Step = state.Step + 1L
                            Parts = List.rev parts }) }

    /// Multiplies entry by entry; a modality without a factor stays as it is.
    let factor (factors: Map<Modality, torch.Tensor>) : Transform =
        stateless (fun m u _ ->
            match Map.tryFind m factors with
            | Some f -> u * f
            | None -> u)
