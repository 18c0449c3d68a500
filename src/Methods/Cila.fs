namespace Cmcl

open TorchSharp

/// Which training losses CILA averages over.
[<RequireQualifiedAccess>]
type Averages =
    | LastEpoch
    | AllEpochs

/// Co2L with a weight of distillation that adapts from step to step (Wen et al. 2024): L_asym + λ_t L_IRD, λ_2 = 1,
/// λ_t = max(1, κ Σ_{j=2}^{t−1} L̂_IRD(j) / Σ_{j=2}^{t−1} L̂_asym(j)), L̂(j) being a step's mean training losses. Step 1 has nothing to distil.
///
/// There is no public code: the formula is of two summaries that agree. Decided here: κ = 1 (`ratio`; 0 is Co2L with λ = 1), means over the
/// updates of the last epoch (`averages`). While κ times the ratio stays below 1, it is Co2L; a remark says so.
[<RequireQualifiedAccess>]
module Cila =
    type Options =
        {
            /// Its λ is not read.
            Relations: Co2l.Options
            Ratio: float
            Averages: Averages
        }

    let defaults: Options =
        { Relations = Co2l.defaults
          Ratio = 1.0
          Averages = Averages.LastEpoch }

    let private relation (option: Opt<Co2l.Options, 'v>) : Opt<Options, 'v> =
        Opt.within _.Relations (fun r o -> { o with Relations = r }) option

    let buffer: Opt<Options, int> = relation Co2l.buffer
    let kappa: Opt<Options, float> = relation Co2l.kappa
    let kappaPast: Opt<Options, float> = relation Co2l.kappaPast
    let candidates: Opt<Options, Candidates> = relation Co2l.candidates

    let ratio: Opt<Options, float> =
        Opt.make
            "ratio"
            "factor of the ratio of earlier losses that weighs distillation (κ of CILA)"
            Codec.notNegative
            _.Ratio
            (fun v o -> { o with Ratio = v })
        |> Opt.tried [ "1"; "3"; "10"; "30" ]
        |> Opt.ownDefault

    let averages: Opt<Options, Averages> =
        Opt.make
            "averages"
            "training losses that the ratio is taken of"
            (Codec.choice [ "last-epoch", Averages.LastEpoch; "all-epochs", Averages.AllEpochs ])
            _.Averages
            (fun v o -> { o with Averages = v })
        |> Opt.ownDefault

    let private contrastName, distillationName = "losses/contrast", "losses/distillation"

    /// λ_t from the sums of earlier steps' mean losses; 1 where the contrastive ones were nothing.
    let weight (ratio: float) (contrast: float) (distillation: float) : float =
        if contrast > 0.0 then max 1.0 (ratio * distillation / contrast) else 1.0

    /// Sums of mean losses over the steps before, if one of them distilled: contrastive, of distillation.
    let private earlier (memory: Memory) : (float * float) option =
        match Map.tryFind contrastName memory, Map.tryFind distillationName memory with
        | Some contrast, Some distillation -> Some(Tensors.toFloat contrast, Tensors.toFloat distillation)
        | _ -> None

    let private begin' (o: Options) (context: Context) (memory: Memory) (heads: Heads) (tasks: Task list) : Session =
        /// Nothing is added in an epoch that does not count, so that as much is kept in every epoch.
        let note (batch: Batch) (parts: RelationPass) (kept: Memory) : Memory =
            let counted = if o.Averages = Averages.AllEpochs || batch.Epoch = context.Settings.Epochs then 1L else 0L
            let add name (loss: torch.Tensor) = RunningSum.add name (loss * counted.AsScalar())

            kept
            |> add "mean/contrast" parts.Contrast
            |> add "mean/distillation" parts.Distillation
            |> RunningSum.count "mean/updates" counted

        let lambda, remarks =
            match earlier memory with
            | None -> 1.0, []
            | Some(contrast, distillation) ->
                match weight o.Ratio contrast distillation with
                | 1.0 ->
                    1.0,
                    [ $"distillation weighs 1, as in co2l: its losses in the steps before were {distillation / contrast:G3} of the contrastive ones, and ratio is {o.Ratio:G3}" ]
                | lambda -> lambda, []

        let session = Co2l.train { o.Relations with Lambda = lambda } note context memory heads tasks

        { session with
            Kept = RunningSum.add "weight" (torch.tensor (lambda, dtype = torch.float64)) session.Kept
            Remarks = session.Remarks @ remarks }

    let private end' (o: Options) (context: Context) (memory: Memory) (heads: Heads) (tasks: Task list) : Memory =
        let add name (mean: float) (memory: Memory) =
            let before = Map.tryFind name memory |> Option.map Tensors.toFloat |> Option.defaultValue 0.0
            Map.add name (torch.tensor (before + mean, dtype = torch.float64)) memory

        let memory = Co2l.remember o.Relations context memory heads tasks
        let sum name = RunningSum.sum $"mean/{name}" memory

        match sum "contrast", sum "distillation", sum "updates" with
        | Some contrast, Some distillation, Some updates ->
            memory |> add contrastName (contrast / updates) |> add distillationName (distillation / updates)
        | _ -> memory

    /// What Co2L tells, and λ_t in steps that distil.
    let private diagnostics (memory: Memory) : (string * float) list =
        [ yield! Co2l.diagnostics memory
          match RunningSum.sum "weight" memory, RunningSum.sum "loss" memory with
          | Some weight, Some _ -> "distillation_weight", weight
          | _ -> () ]

    /// CILA with all its options. Kept: what Co2L keeps, and two numbers.
    let cila: Spec<Options> =
        let make o =
            { Training.method "cila" "co2l with distillation weighted by how earlier steps' losses compare" with
                Diagnostics = diagnostics }
            |> Method.beginning (begin' o)
            |> Method.ending (end' o)

        { Spec.make
              defaults
              [ Opt.any buffer; Opt.any kappa; Opt.any kappaPast; Opt.any candidates; Opt.any ratio; Opt.any averages ]
              make with
            Rates = Spec.weighing }
