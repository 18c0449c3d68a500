namespace Cmcl

open System
open System.Globalization
open TorchSharp

/// The training that suits rows as they are, where nobody has said another.
[<RequireQualifiedAccess>]
module Advice =

    /// Three digits of a norm, about.
    let size (x: float) : string =
        let text (format: string) = x.ToString(format, CultureInfo.InvariantCulture)

        if x = 0.0 || x >= 99.5 && x < 1e6 then text "N0"
        elif x >= 9.95 && x < 99.5 then text "0.0"
        elif x >= 0.01 && x < 9.95 then text "0.00"
        else text "0.0e+0"

    /// Whether rows of these lengths, the least and the largest, are of length 1, as far as float16 can tell.
    let isUnit (least: float) (most: float) : bool = least > 0.99 && most < 1.01

    /// Rows of a batch where a step has so few items: the largest power of two that leaves two batches.
    let private batch (items: int64) : int64 =
        Seq.initInfinite (fun i -> 64L >>> i) |> Seq.find (fun b -> b <= max 2L (items / 2L))

    /// Training that suits rows of any length: cosine scores at temperature 0.07, CLIP's, for which Adam's steps do not depend on the
    /// features' scale; the rate and the epochs of the shipped streams.
    let private settings = [ "scores", "cosine"; "temperature", "0.07"; "lr", "1e-3"; "epochs", "20"; "decay", "linear" ]

    /// The preset of a stream whose smallest step has so many training items.
    let preset (fewest: int64) : Preset =
        { Common = Map(("batch", string (batch fewest)) :: settings)
          Methods = Map.empty
          Run = [ "zero-shot"; "vanilla"; "dns" ] }

    /// Lengths of some hundred rows of a bank, spread over it: the least, the mean, the largest.
    let private lengths (features: torch.Tensor) : float * float * float =
        use scope = torch.NewDisposeScope()
        let step = max 1L (features.shape[0] / 512L)
        let norms = (features.slice(0L, 0L, features.shape[0], step).``to`` torch.float64).norm(1)
        Tensors.toFloat (norms.min ()), Tensors.toFloat (norms.mean ()), Tensors.toFloat (norms.max ())

    /// Why raw scores do not suit rows: the bank, and the mean length of its rows.
    let why (bank: string) (length: float) : string =
        $"Rows are not of length 1 ({bank}: {size length}), so inner products would mostly compare lengths"

    /// What is said where the preset and the options named beside it say nothing of scores, so that raw ones at temperature 1 would be
    /// taken, and rows are not of length 1. None where that is not so.
    let unsaid (named: string seq) (stream: Stream) : string option =
        let ofPreset =
            [ yield! Map.keys stream.Preset.Common
              for options in Map.values stream.Preset.Methods do
                  yield! Map.keys options ]

        if Seq.append ofPreset named |> Seq.exists (fun name -> name = "scores" || name = "temperature") then
            None
        else
            stream.Banks
            |> Map.toSeq
            |> Seq.map (fun (name, bank) -> name, lengths bank.Features)
            |> Seq.tryFind (fun (_, (least, _, most)) -> not (isUnit least most))
            |> Option.map (fun (name, (_, mean, _)) ->
                let options = String.Join(" ", [ for name, value in settings -> $"--{name} {value}" ])

                $"{why name mean}; nothing says how to score, and the defaults are raw scores at temperature 1: give {options}, or write that into the preset of stream.json.")
