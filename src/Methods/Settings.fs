namespace Cmcl

/// Where DNS projects: the gradient before the optimizer (the paper's), the optimizer's update, or nowhere, because
/// training happens in the eigenbasis, where the projection is a mask.
[<RequireQualifiedAccess>]
type Place =
    | Gradient
    | Update
    | Eigenbasis

/// Protect alignment scores (against old inputs and old partner outputs), or all outputs on old inputs.
[<RequireQualifiedAccess>]
type Sides =
    | Dual
    | Input

/// The family of `Protection`, without its numbers.
[<RequireQualifiedAccess>]
type Protect =
    | Nothing
    | Block
    | Product
    | Soft
    | Trust

/// The basis of the output directions that protection leaves alone: of each modality its own, or one for all that move.
[<RequireQualifiedAccess>]
type FreeBasis =
    | Own
    | Shared

/// Which weights old partner outputs are taken under: those of the time (the paper's), or those at the start of the step.
[<RequireQualifiedAccess>]
type PartnerOutputs =
    | AtLearning
    | Current

/// Whether spectra are of second moments, or, as an ablation, of covariances: then nothing protects the mean direction.
[<RequireQualifiedAccess>]
type Centring =
    | Uncentred
    | Centred

/// Rows in a batch. `All` is the whole step.
[<RequireQualifiedAccess>]
type BatchSize =
    | All
    | Rows of int

/// What DER holds to what it was: embeddings of both sides, or scores among the replayed pairs.
[<RequireQualifiedAccess>]
type Distill =
    | Outputs
    | Scores

/// A squared distance as its mean over all entries, or summed over dimensions and averaged over pairs.
[<RequireQualifiedAccess>]
type Reduction =
    | Mean
    | Sum

/// Which squared gradients EWC takes for the Fisher information.
[<RequireQualifiedAccess>]
type Fisher =
    /// Of each anchor given its batch, with its true partner.
    | PerAnchor
    /// Of each batch's mean.
    | PerBatch
    /// Of each anchor, with a partner drawn from the model.
    | Sampled

/// Whether EWC keeps a penalty for each step, or one running one.
[<RequireQualifiedAccess>]
type Accumulate =
    | Separate
    | Online

/// Whose embeddings in the buffer are candidates beside the batch's partners.
[<RequireQualifiedAccess>]
type Candidates =
    /// Those of the partner's modality where the replayed pair has it, else of both sides.
    | Matching
    | Both
    | Nobody

/// Which training losses CILA averages over.
[<RequireQualifiedAccess>]
type Averages =
    | LastEpoch
    | AllEpochs

/// Every hyperparameter of one method on one stream, in one block.
type Settings =
    { LearningRate: float
      Epochs: int
      Batch: BatchSize
      WeightDecay: float
      Temperature: float
      Scoring: Scoring
      Symmetric: bool
      Optimiser: Optimiser
      Decay: Schedule
      Clip: float option
      Shuffle: bool
      Dtype: Dtype
      Place: Place
      Sides: Sides
      Protect: Protect
      Exact: bool
      Partner: PartnerOutputs
      Centring: Centring
      FreeBasis: FreeBasis
      Threshold: Threshold
      PartnerThreshold: Threshold
      Tau: float
      Budget: float
      TotalBudget: float option
      Buffer: int
      PerStep: int
      Margin: float
      Alpha: float
      Beta: float
      Distill: Distill
      Reduction: Reduction
      Lambda: float
      Fisher: Fisher
      Accumulate: Accumulate
      Gamma: float
      Kappa: float
      KappaPast: float
      Candidates: Candidates
      Ratio: float
      Averages: Averages
      Host: string
      Rho: float
      Flatness: float }

[<RequireQualifiedAccess>]
module Settings =
    /// What the paper trains with, and DNS in the eigenbasis with a share of the trace for a threshold.
    let initial: Settings =
        { LearningRate = 1e-4
          Epochs = 5
          Batch = BatchSize.Rows 64
          WeightDecay = 1e-3
          Temperature = 1.0
          Scoring = Scoring.Raw
          Symmetric = false
          Optimiser = Optimiser.AdamW
          Decay = Schedule.Linear
          Clip = Some 1.0
          Shuffle = true
          Dtype = Dtype.Float32
          Place = Place.Eigenbasis
          Sides = Sides.Dual
          Protect = Protect.Block
          Exact = false
          Partner = PartnerOutputs.Current
          Centring = Centring.Uncentred
          FreeBasis = FreeBasis.Shared
          Threshold = Threshold.trace 3e-3 |> Check.get
          PartnerThreshold = Threshold.trace 3e-3 |> Check.get
          Tau = 3e-5
          Budget = 0.1
          TotalBudget = None
          Buffer = 512
          PerStep = 256
          Margin = 0.5
          Alpha = 0.5
          Beta = 0.5
          Distill = Distill.Outputs
          Reduction = Reduction.Mean
          Lambda = 1.0
          Fisher = Fisher.PerAnchor
          Accumulate = Accumulate.Separate
          Gamma = 1.0
          Kappa = 0.2
          KappaPast = 0.01
          Candidates = Candidates.Matching
          Ratio = 1.0
          Averages = Averages.LastEpoch
          Host = "vanilla"
          Rho = 0.2
          Flatness = 0.2 }

    /// The InfoNCE that these settings train with.
    let contrast (s: Settings) : Contrast =
        { Temperature = s.Temperature
          Scoring = s.Scoring
          Symmetric = s.Symmetric }

    /// What DNS protects under these settings.
    let protection (s: Settings) : Protection =
        match s.Protect with
        | Protect.Nothing -> Protection.Nothing
        | Protect.Block -> Protection.Block(s.Threshold, s.PartnerThreshold)
        | Protect.Product -> Protection.Product s.Tau
        | Protect.Soft -> Protection.Soft s.Tau
        | Protect.Trust -> Protection.Trust s.Budget
