namespace Cmcl

open TorchSharp

/// The trainable part: one weight W_m (d × d_m) per modality, an immutable map. A weight may carry a bias in a last column of its own;
/// its inputs then have a constant 1 there, which whoever gives the inputs has to append (`Heads.withBias`).
type Heads = Map<Modality, torch.Tensor>

[<RequireQualifiedAccess>]
module Heads =
    /// W_m = I (d × d_m, a rectangular identity where d_m ≠ d) for every modality: the model as the encoders left it.
    /// Example: `Heads.identity Dtype.Float64 torch.CPU 256L [ Modality.named "text", 256L ]`.
    let identity (dtype: Dtype) (device: torch.Device) (d: int64) (modalities: (Modality * int64) list) : Heads =
        Map [ for modality, columns in modalities -> modality, torch.eye (d, columns, dtype = dtype.Torch, device = device) ]

    /// The weight of a modality; raises `Fault.Unknown` where there is none. Example: `Heads.weight pair.A heads`.
    let weight (modality: Modality) (heads: Heads) : torch.Tensor =
        match Map.tryFind modality heads with
        | Some w -> w
        | None -> Check.fail (Fault.Unknown("head", modality.Name, [ for m in heads.Keys -> m.Name ]))

    /// Features X (n × d_m) with a column of ones behind them, n × (d_m + 1): what a weight with a bias in its last column is applied to
    /// (theory.md, section 9). Example: `Heads.withBias xa`.
    let withBias (x: torch.Tensor) : torch.Tensor =
        Tensors.requireMatrix "features" -1L -1L x
        Tensors.scoped (fun () -> torch.cat ([| x; torch.ones (x.shape[0], 1L, dtype = x.dtype, device = x.device) |], 1L))

    /// Y = X Wᵀ (n × d) of inputs X, n × the columns of W: features, or those with a column of ones for a weight with a bias
    /// (`withBias`), which makes Y = X Wᵀ + 1 bᵀ. Fault: `Shape` for any other width. Example: `Heads.outputs heads[pair.A] xa`.
    let outputs (w: torch.Tensor) (x: torch.Tensor) : torch.Tensor =
        if x.dim () = 2L && x.shape[1] + 1L = w.shape[1] then
            let expected =
                $"[any × {w.shape[1]}], or if the head's last column is a bias, these with a column of ones (Heads.withBias)"

            Check.fail (Fault.Shape("features", expected, Tensors.shapeText x))

        Tensors.requireMatrix "features" -1L w.shape[1] x
        Tensors.scoped (fun () -> Tensors.product x (w.t ()))

    /// The same heads with new weights for some modalities. Example: `heads |> Heads.replace (Map [ pair.A, after[pair.A] ])`.
    let replace (changed: Heads) (heads: Heads) : Heads = Map.fold (fun all m w -> Map.add m w all) heads changed

    /// M_ab = W_aᵀ W_b (d_a × d_b), all that alignment scores know of the heads (theory.md, section 1; the paper's Theorem 3).
    /// Example: `Heads.globalParameter pair heads`.
    let globalParameter (pair: Pair) (heads: Heads) : torch.Tensor =
        Tensors.scoped (fun () -> Tensors.product ((weight pair.A heads).t()) (weight pair.B heads))

    /// The modalities whose weight is another than before, or was not there before. Example: `Heads.moved heads after`.
    let moved (before: Heads) (after: Heads) : Set<Modality> =
        let stayed m (w: torch.Tensor) =
            match Map.tryFind m before with
            | Some v -> obj.ReferenceEquals(v, w) || v.Equals w
            | None -> false

        set
            [ for KeyValue(m, w) in after do
                  if not (stayed m w) then
                      m ]

    /// Every weight by a function of it, in a map of the same modalities. Example: `heads |> Heads.map (fun w -> w.neg ())`.
    let map (f: torch.Tensor -> torch.Tensor) (heads: Heads) : Heads = Map.map (fun _ w -> f w) heads

    /// The weights themselves, for scopes and byte counts. Example: `Heads.tensors heads |> List.sumBy Tensors.bytes`.
    let tensors (heads: Heads) : torch.Tensor list = List.ofSeq heads.Values
