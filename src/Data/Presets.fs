namespace Cmcl

/// Settings of published experiments by name, for `cmcl run --preset NAME` and for imported streams.
[<RequireQualifiedAccess>]
module Presets =

    /// The paper's training (arXiv 2503.14963, section 5 and appendix): AdamW with weight decay 1e-3, 5 epochs a step of batches
    /// of 64, InfoNCE of raw scores at temperature 1, a rate that falls linearly to 0, gradients clipped to norm 1. Its λ_min is an
    /// absolute cut and belongs to `reference`, the published code's behaviour; `dns` keeps its share of the trace.
    let private paper (rate: string) (cut: string) : Preset =
        { Common =
            Map
                [ "lr", rate
                  "epochs", "5"
                  "batch", "64"
                  "temperature", "1"
                  "scores", "raw"
                  "optimizer", "adamw"
                  "weight-decay", "1e-3"
                  "decay", "linear"
                  "clip", "1"
                  "dtype", "float32" ]
          Methods = Map [ "reference", Map [ "threshold", $"absolute:{cut}" ] ]
          Run =
            [ "zero-shot"
              "vanilla"
              $"dns[place=gradient;threshold=absolute:{cut};partner-threshold=absolute:{cut}]"
              "dns"
              "reference" ] }

    let private all =
        [ "paper-imagebind", paper "1e-4" "0.01"
          "paper-unibind", paper "1e-4" "0.01"
          "paper-languagebind", paper "1e-3" "0.0001" ]

    let names: string list = List.map fst all

    /// A preset by its name, or the names that there are. Example: `Presets.find "paper-imagebind"`.
    let find (name: string) : Result<Preset, Fault list> =
        match List.tryFind (fst >> (=) name) all with
        | Some(_, preset) -> Ok preset
        | None -> Error [ Fault.Unknown("preset", name, names) ]
