namespace Cmcl

open System
open System.Globalization

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

/// Rows in a batch. `All` is the whole step.
[<RequireQualifiedAccess>]
type BatchSize =
    | All
    | Rows of int

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
      FreeBasis: FreeBasis
      Threshold: Threshold
      PartnerThreshold: Threshold
      Tau: float
      Budget: float
      TotalBudget: float option }

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
          FreeBasis = FreeBasis.Shared
          Threshold = Threshold.trace 3e-3 |> Check.get
          PartnerThreshold = Threshold.trace 3e-3 |> Check.get
          Tau = 3e-5
          Budget = 0.1
          TotalBudget = None }

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

/// One hyperparameter as users write it: `--NAME VALUE`, `method[NAME=VALUE]`, a key of a stream's preset.
type Field =
    {
        Name: string
        /// What it takes, for help and for refusals.
        Takes: string
        Help: string
        Show: Settings -> string
        Read: string -> Settings -> Result<Settings, Fault list>
    }

/// The table of hyperparameters, from which options, presets and records are read and written.
[<RequireQualifiedAccess>]
module Field =
    let private text (x: float) = x.ToString("R", CultureInfo.InvariantCulture).Replace('E', 'e')

    let private field name takes help show (parse: string -> (Settings -> Settings) option) : Field =
        { Name = name
          Takes = takes
          Help = help
          Show = show
          Read =
            fun given settings ->
                match parse given with
                | Some set -> Ok(set settings)
                | None -> Error [ Fault.BadValue($"--{name}", takes, given) ] }

    let private parseFloat (s: string) =
        match Double.TryParse(s, NumberStyles.Float, CultureInfo.InvariantCulture) with
        | true, x when Double.IsFinite x -> Some x
        | _ -> None

    let private number name takes help (fits: float -> bool) get set =
        field name takes help (get >> text) (fun s -> parseFloat s |> Option.filter fits |> Option.map set)

    let private numberOrOff name help (get: Settings -> float option) (set: float option -> Settings -> Settings) =
        field name "a number > 0, or off" help (get >> Option.map text >> Option.defaultValue "off") (function
            | "off" -> Some(set None)
            | given -> parseFloat given |> Option.filter (fun x -> x > 0.0) |> Option.map (Some >> set))

    let private choice name help (values: (string * 'v) list) (get: Settings -> 'v) (set: 'v -> Settings -> Settings) =
        let show v = values |> List.find (fun (_, x) -> x = v) |> fst

        field name (String.Join(" or ", List.map fst values)) help (get >> show) (fun s ->
            values |> List.tryFind (fun (n, _) -> n = s) |> Option.map (snd >> set))

    let private onOff = [ "on", true; "off", false ]

    let private threshold name help get set : Field =
        { Name = name
          Takes = "KIND:VALUE, KIND being absolute, relative, trace, energy or rank"
          Help = help
          Show = get >> Threshold.show
          Read = fun s settings -> Threshold.parse s |> Result.map (fun t -> set t settings) }

    let private wholeNumber (s: string) =
        match Int32.TryParse(s, NumberStyles.None, CultureInfo.InvariantCulture) with
        | true, n when n >= 1 -> Some n
        | _ -> None

    /// How a method learns, whatever the method.
    let training: Field list =
        [ number "lr" "a number ≥ 0" "learning rate" (fun x -> x >= 0.0) _.LearningRate (fun v s -> { s with LearningRate = v })
          field
              "epochs"
              "a whole number ≥ 1"
              "passes over a step's training rows"
              (fun s -> string s.Epochs)
              (wholeNumber >> Option.map (fun n s -> { s with Epochs = n }))
          field
              "batch"
              "a whole number ≥ 2, or all"
              "pairs in a batch; a last batch that is smaller is used too, unless it is a single pair"
              (fun s ->
                  match s.Batch with
                  | BatchSize.All -> "all"
                  | BatchSize.Rows n -> string n)
              (function
               | "all" -> Some(fun s -> { s with Batch = BatchSize.All })
               | given ->
                   wholeNumber given
                   |> Option.filter (fun n -> n >= 2)
                   |> Option.map (fun n s -> { s with Batch = BatchSize.Rows n }))
          number
              "weight-decay"
              "a number ≥ 0"
              "decoupled weight decay, not on biases"
              (fun x -> x >= 0.0)
              _.WeightDecay
              (fun v s -> { s with WeightDecay = v })
          number "temperature" "a number > 0" "temperature of InfoNCE" (fun x -> x > 0.0) _.Temperature (fun v s ->
              { s with Temperature = v })
          choice
              "scores"
              "inner products as they are, or of unit vectors"
              [ "raw", Scoring.Raw; "cosine", Scoring.Cosine ]
              _.Scoring
              (fun v s -> { s with Scoring = v })
          choice "symmetric" "InfoNCE both ways (CLIP), not only a to b" onOff _.Symmetric (fun v s -> { s with Symmetric = v })
          choice
              "optimizer"
              "AdamW (0.9, 0.999, 1e-8) or plain gradient descent"
              [ "adamw", Optimiser.AdamW; "sgd", Optimiser.Sgd ]
              _.Optimiser
              (fun v s -> { s with Optimiser = v })
          choice
              "decay"
              "how the rate falls over a step"
              [ "linear", Schedule.Linear; "cosine", Schedule.Cosine; "constant", Schedule.Constant ]
              _.Decay
              (fun v s -> { s with Decay = v })
          numberOrOff "clip" "largest gradient norm, both heads together" _.Clip (fun v s -> { s with Clip = v })
          choice "shuffle" "a new order of rows each epoch" onOff _.Shuffle (fun v s -> { s with Shuffle = v })
          choice
              "dtype"
              "what weights and features are kept in"
              [ "float32", Dtype.Float32; "float64", Dtype.Float64 ]
              _.Dtype
              (fun v s -> { s with Dtype = v }) ]

    /// What DNS takes beside it.
    let dns: Field list =
        [ choice
              "place"
              "project the gradient, the update, or train in the eigenbasis"
              [ "gradient", Place.Gradient; "update", Place.Update; "eigenbasis", Place.Eigenbasis ]
              _.Place
              (fun v s -> { s with Place = v })
          choice
              "sides"
              "protect scores (dual), or all outputs on old inputs (input)"
              [ "dual", Sides.Dual; "input", Sides.Input ]
              _.Sides
              (fun v s -> { s with Sides = v })
          choice
              "protect"
              "which entries of a change are protected"
              [ "block", Protect.Block
                "product", Protect.Product
                "soft", Protect.Soft
                "trust", Protect.Trust
                "nothing", Protect.Nothing ]
              _.Protect
              (fun v s -> { s with Protect = v })
          choice
              "exact"
              "protect one side of every old pair fully, so that no second-order change is left"
              onOff
              _.Exact
              (fun v s -> { s with Exact = v })
          choice
              "partner"
              "weights that old partner outputs are taken under"
              [ "current", PartnerOutputs.Current; "at-learning", PartnerOutputs.AtLearning ]
              _.Partner
              (fun v s -> { s with Partner = v })
          choice
              "free-basis"
              "basis of the output directions that nothing protects: each modality's own, or one shared by all that move"
              [ "own", FreeBasis.Own; "shared", FreeBasis.Shared ]
              _.FreeBasis
              (fun v s -> { s with FreeBasis = v })
          threshold "threshold" "cut of the input spectrum" _.Threshold (fun v s -> { s with Threshold = v })
          threshold "partner-threshold" "cut of the partner-output spectrum" _.PartnerThreshold (fun v s ->
              { s with PartnerThreshold = v })
          number
              "tau"
              "a number > 0"
              "scale of product and soft protection, in shares of the traces"
              (fun x -> x > 0.0)
              _.Tau
              (fun v s -> { s with Tau = v })
          number
              "budget"
              "a number ≥ 0"
              "relative change of old scores that trust allows a step"
              (fun x -> x >= 0.0)
              _.Budget
              (fun v s -> { s with Budget = v })
          numberOrOff
              "total-budget"
              "relative change of every old step's scores that trust allows over the whole stream, spread over its steps"
              _.TotalBudget
              (fun v s -> { s with TotalBudget = v }) ]

    let all: Field list = training @ dns

    let names (fields: Field list) : string list = fields |> List.map _.Name

    /// Whether a hyperparameter says how figures are taken too: those hold for every method, also one that does not train.
    let measures (name: string) : bool = List.contains name [ "temperature"; "scores"; "symmetric"; "dtype" ]

    /// Sets one hyperparameter by name.
    let read (name: string) (value: string) (settings: Settings) : Result<Settings, Fault list> =
        match all |> List.tryFind (fun f -> f.Name = name) with
        | Some f -> f.Read value settings
        | None -> Error [ Fault.Unknown("hyperparameter", name, names all) ]

    /// Whether a hyperparameter changes anything under these settings: a threshold does for `block`, τ for `product` and
    /// `soft`, a budget for `trust` (a total one takes the place of that for each step), partner outputs for `dual`, a free basis
    /// where whole output directions are free in the eigenbasis.
    let matters (settings: Settings) (name: string) : bool =
        match name with
        | "threshold" -> settings.Protect = Protect.Block
        | "partner-threshold" -> settings.Protect = Protect.Block && settings.Sides = Sides.Dual
        | "tau" -> settings.Protect = Protect.Product || settings.Protect = Protect.Soft
        | "budget" -> settings.Protect = Protect.Trust && settings.TotalBudget.IsNone
        | "total-budget" -> settings.Protect = Protect.Trust
        | "partner" -> settings.Sides = Sides.Dual
        | "free-basis" ->
            settings.Place = Place.Eigenbasis
            && settings.Sides = Sides.Dual
            && (settings.Protect = Protect.Block || settings.Protect = Protect.Product)
        | _ -> true
