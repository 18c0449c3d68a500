namespace Cmcl

open System.Globalization

/// Rows in a batch. `All` is the whole step.
[<RequireQualifiedAccess>]
type BatchSize =
    | All
    | Rows of int

/// How a run trains and how it is measured, whatever the method. What a method takes beside it is declared in the method's own file.
type Settings =
    {
        LearningRate: float
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
        /// Columns beside the features; None for the features as they came.
        Features: Lift option
    }

/// What the paper trains with, and the options, each declared once.
[<RequireQualifiedAccess>]
module Settings =
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
          Features = None }

    /// The InfoNCE that these settings train with.
    let contrast (s: Settings) : Contrast =
        { Temperature = s.Temperature
          Scoring = s.Scoring
          Symmetric = s.Symmetric }

    let rate: Opt<Settings, float> =
        Opt.make "lr" "learning rate" Codec.notNegative _.LearningRate (fun v s -> { s with LearningRate = v })
        |> Opt.tried [ "2e-5"; "5e-5"; "1e-4"; "1.5e-4"; "2e-4"; "3e-4"; "4e-4"; "5e-4"; "7e-4"; "1e-3"; "2e-3"; "3e-3" ]

    let epochs: Opt<Settings, int> =
        Opt.make "epochs" "passes over a step's training rows" (Codec.whole 1) _.Epochs (fun v s -> { s with Epochs = v })

    let batch: Opt<Settings, BatchSize> =
        let show size =
            match size with
            | BatchSize.All -> "all"
            | BatchSize.Rows n -> string n

        let parse (given: string) =
            match given, System.Int32.TryParse(given, NumberStyles.None, CultureInfo.InvariantCulture) with
            | "all", _ -> Some BatchSize.All
            | _, (true, n) when n >= 2 -> Some(BatchSize.Rows n)
            | _ -> None

        Opt.make
            "batch"
            "pairs in a batch; a last batch that is smaller is used too, unless it is a single pair"
            (Codec.make "a whole number ≥ 2, or all" show parse)
            _.Batch
            (fun v s -> { s with Batch = v })

    let weightDecay: Opt<Settings, float> =
        Opt.make
            "weight-decay"
            "decoupled weight decay, not on biases"
            Codec.notNegative
            (fun (s: Settings) -> s.WeightDecay)
            (fun v s -> { s with WeightDecay = v })

    let temperature: Opt<Settings, float> =
        Opt.make "temperature" "temperature of InfoNCE" Codec.positive (fun (s: Settings) -> s.Temperature) (fun v s ->
            { s with Temperature = v })

    let scores: Opt<Settings, Scoring> =
        Opt.make
            "scores"
            "inner products as they are, or of unit vectors"
            (Codec.choice [ "raw", Scoring.Raw; "cosine", Scoring.Cosine ])
            (fun (s: Settings) -> s.Scoring)
            (fun v s -> { s with Scoring = v })

    let symmetric: Opt<Settings, bool> =
        Opt.make
            "symmetric"
            "InfoNCE both ways (CLIP), not only a to b"
            Codec.switch
            (fun (s: Settings) -> s.Symmetric)
            (fun v s -> { s with Symmetric = v })

    let optimiser: Opt<Settings, Optimiser> =
        Opt.make
            "optimizer"
            "AdamW (0.9, 0.999, 1e-8) or plain gradient descent"
            (Codec.choice [ "adamw", Optimiser.AdamW; "sgd", Optimiser.Sgd ])
            (fun (s: Settings) -> s.Optimiser)
            (fun v s -> { s with Optimiser = v })

    let schedule: Opt<Settings, Schedule> =
        Opt.make
            "decay"
            "how the rate falls over a step"
            (Codec.choice [ "linear", Schedule.Linear; "cosine", Schedule.Cosine; "constant", Schedule.Constant ])
            _.Decay
            (fun v s -> { s with Decay = v })

    let clip: Opt<Settings, float option> =
        Opt.make "clip" "largest gradient norm, both heads together" Codec.positiveOrOff (fun (s: Settings) -> s.Clip) (fun v s ->
            { s with Clip = v })

    let shuffle: Opt<Settings, bool> =
        Opt.make "shuffle" "a new order of rows each epoch" Codec.switch _.Shuffle (fun v s -> { s with Shuffle = v })

    let dtype: Opt<Settings, Dtype> =
        Opt.make
            "dtype"
            "what weights and features are kept in"
            (Codec.choice [ "float32", Dtype.Float32; "float64", Dtype.Float64 ])
            (fun (s: Settings) -> s.Dtype)
            (fun v s -> { s with Dtype = v })

    let features: Opt<Settings, Lift option> =
        Opt.make
            "features"
            "what heads see: the features as they came (raw), or with D random columns beside them, drawn by the seed of the run"
            (Codec.make Lift.form Lift.show Lift.parse)
            _.Features
            (fun v s -> { s with Features = v })

    /// What every method takes that learns, by training or by solving.
    let learning: AnyOpt<Settings> list = [ Opt.any features ]

    /// What every method takes that trains.
    let options: AnyOpt<Settings> list =
        [ Opt.any rate
          Opt.any epochs
          Opt.any batch
          Opt.any weightDecay
          Opt.any temperature
          Opt.any scores
          Opt.any symmetric
          Opt.any optimiser
          Opt.any schedule
          Opt.any clip
          Opt.any shuffle
          Opt.any dtype
          Opt.any features ]

    /// Those that say how figures are taken too: they hold for every method, also one that does not train.
    let measuring: AnyOpt<Settings> list = [ Opt.any temperature; Opt.any scores; Opt.any symmetric; Opt.any dtype ]

    /// Whether an option says how figures are taken too. Example: `Settings.measures "scores"`.
    let measures (name: string) : bool = measuring |> List.exists (fun o -> o.Info.Name = name)
