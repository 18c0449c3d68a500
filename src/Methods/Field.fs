namespace Cmcl

open System
open System.Globalization

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
                | None -> Error [ Fault.BadValue(Mention.option name, takes, given) ] }

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
        let words = List.map fst values

        { Name = name
          Takes = Fault.Choice words
          Help = help
          Show = get >> show
          Read =
            fun given settings ->
                match List.tryFind (fst >> (=) given) values with
                | Some(_, v) -> Ok(set v settings)
                | None -> Error [ Fault.NotOneOf(Mention.option name, given, words) ] }

    let private onOff = [ "on", true; "off", false ]

    let private threshold name help get set : Field =
        { Name = name
          Takes = "KIND:VALUE, KIND being absolute, relative, trace, energy or rank"
          Help = help
          Show = get >> Threshold.show
          Read =
            fun s settings ->
                Threshold.parse s
                |> Result.map (fun t -> set t settings)
                |> Result.mapError (
                    List.map (function
                        | Fault.BadValue(_, expected, given) -> Fault.BadValue(Mention.option name, expected, given)
                        | Fault.NotOneOf(_, given, kinds) -> Fault.NotOneOf($"the kind of {Mention.option name}", given, kinds)
                        | other -> other)
                ) }

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
              "moments"
              "spectra of old data's second moments, or, as an ablation, without the mean, which is then not protected"
              [ "uncentred", Centring.Uncentred; "centred", Centring.Centred ]
              _.Centring
              (fun v s -> { s with Centring = v })
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

    let private atLeast least name takes help get set = number name takes help (fun x -> x >= least) get set

    let private positive name help get set = number name "a number > 0" help (fun x -> x > 0.0) get set

    let private pairs name help (get: Settings -> int) (set: int -> Settings -> Settings) =
        field name "a whole number ≥ 2" help (get >> string) (wholeNumber >> Option.filter (fun n -> n >= 2) >> Option.map set)

    /// Pairs that are kept in all, drawn anew from all that was seen.
    let buffer: Field = pairs "buffer" "pairs of old steps that are kept in all" _.Buffer (fun v s -> { s with Buffer = v })

    let place: Field = dns |> List.find (fun f -> f.Name = "place")

    let cut: Field = dns |> List.find (fun f -> f.Name = "threshold")

    let lambda: Field =
        atLeast 0.0 "lambda" "a number ≥ 0" "strength of what is added to InfoNCE" _.Lambda (fun v s -> { s with Lambda = v })

    let gem: Field list =
        [ pairs "per-step" "pairs that are kept of each step" _.PerStep (fun v s -> { s with PerStep = v })
          atLeast
              0.0
              "margin"
              "a number ≥ 0"
              "least weight of every old gradient once one is violated (memory strength γ)"
              _.Margin
              (fun v s -> { s with Margin = v }) ]

    let der: Field list =
        [ buffer
          atLeast 0.0 "alpha" "a number ≥ 0" "strength of the pull to earlier outputs" _.Alpha (fun v s -> { s with Alpha = v })
          choice
              "distill"
              "what is held to what it was: outputs of both sides, or scores among the replayed pairs"
              [ "outputs", Distill.Outputs; "scores", Distill.Scores ]
              _.Distill
              (fun v s -> { s with Distill = v })
          choice
              "reduction"
              "squared distance as the mean over all entries, or summed over dimensions and averaged over pairs"
              [ "mean", Reduction.Mean; "sum", Reduction.Sum ]
              _.Reduction
              (fun v s -> { s with Reduction = v }) ]

    let beta: Field =
        atLeast 0.0 "beta" "a number ≥ 0" "strength of InfoNCE on replayed pairs" _.Beta (fun v s -> { s with Beta = v })

    let ewc: Field list =
        [ lambda
          choice
              "fisher"
              "squared gradients: of each anchor given its batch, of the batch's mean, or of each anchor with a sampled partner"
              [ "per-anchor", Fisher.PerAnchor; "per-batch", Fisher.PerBatch; "sampled", Fisher.Sampled ]
              _.Fisher
              (fun v s -> { s with Fisher = v })
          choice
              "accumulate"
              "a penalty for each step, or one running one"
              [ "separate", Accumulate.Separate; "online", Accumulate.Online ]
              _.Accumulate
              (fun v s -> { s with Accumulate = v })
          number
              "gamma"
              "a number > 0 and ≤ 1"
              "what the running penalty keeps of the one before"
              (fun x -> x > 0.0 && x <= 1.0)
              _.Gamma
              (fun v s -> { s with Gamma = v }) ]

    let private relations: Field list =
        [ buffer
          positive "kappa" "temperature of the relations that are learned" _.Kappa (fun v s -> { s with Kappa = v })
          positive "kappa-past" "temperature of the relations that they are held to" _.KappaPast (fun v s ->
              { s with KappaPast = v })
          choice
              "candidates"
              "replayed embeddings beside the batch's partners: of the partner's modality (else both), both sides, or none"
              [ "matching", Candidates.Matching; "both", Candidates.Both; "none", Candidates.Nobody ]
              _.Candidates
              (fun v s -> { s with Candidates = v }) ]

    let co2l: Field list = lambda :: relations

    let cila: Field list =
        relations
        @ [ atLeast
                0.0
                "ratio"
                "a number ≥ 0"
                "factor of the ratio of earlier losses that weighs distillation (κ of CILA)"
                _.Ratio
                (fun v s -> { s with Ratio = v })
            choice
                "averages"
                "training losses that the ratio is taken of"
                [ "last-epoch", Averages.LastEpoch; "all-epochs", Averages.AllEpochs ]
                _.Averages
                (fun v s -> { s with Averages = v }) ]

    /// C-FLAT's own, beside those of its host.
    let flat: Field list =
        [ field "host" "a method that trains" "the method whose losses are made flat" _.Host (fun given ->
              if given = "" then None else Some(fun s -> { s with Host = given }))
          atLeast 0.0 "rho" "a number ≥ 0" "radius of the perturbation" _.Rho (fun v s -> { s with Rho = v })
          atLeast 0.0 "flatness" "a number ≥ 0" "strength of the first-order flatness (λ of C-Flat)" _.Flatness (fun v s ->
              { s with Flatness = v }) ]

    let all: Field list = training @ dns @ gem @ der @ [ beta ] @ ewc @ cila @ flat |> List.distinctBy _.Name

    let names (fields: Field list) : string list = fields |> List.map _.Name

    /// Whether a hyperparameter says how figures are taken too: those hold for every method, also one that does not train.
    let measures (name: string) : bool = List.contains name [ "temperature"; "scores"; "symmetric"; "dtype" ]

    /// Sets one hyperparameter by name.
    let read (name: string) (value: string) (settings: Settings) : Result<Settings, Fault list> =
        match all |> List.tryFind (fun f -> f.Name = name) with
        | Some f -> f.Read value settings
        | None -> Error [ Fault.Unknown("hyperparameter", name, names all) ]

    /// What has to hold for a hyperparameter to change anything: other hyperparameters, each with the values under which it does. A threshold
    /// belongs to `block`, τ to `product` and `soft`, a budget to `trust` (a total one takes the place of that for each step), partner outputs
    /// to `dual`, a free basis to where whole output directions are free in the eigenbasis.
    let belongsTo (name: string) : (string * string list) list =
        let protect (values: string list) = "protect", values

        match name with
        | "threshold" -> [ protect [ "block" ] ]
        | "partner-threshold" -> [ protect [ "block" ]; "sides", [ "dual" ] ]
        | "tau" -> [ protect [ "product"; "soft" ] ]
        | "budget" -> [ protect [ "trust" ]; "total-budget", [ "off" ] ]
        | "total-budget" -> [ protect [ "trust" ] ]
        | "gamma" -> [ "accumulate", [ "online" ] ]
        | "partner" -> [ "sides", [ "dual" ] ]
        | "free-basis" -> [ "place", [ "eigenbasis" ]; "sides", [ "dual" ]; protect [ "block"; "product" ] ]
        | _ -> []

    /// What of `belongsTo` these settings have not.
    let wanting (settings: Settings) (name: string) : (string * string list) list =
        let value (other: string) = (all |> List.find (fun f -> f.Name = other)).Show settings
        belongsTo name |> List.filter (fun (other, values) -> not (List.contains (value other) values))

    /// Whether a hyperparameter changes anything under these settings.
    let matters (settings: Settings) (name: string) : bool = (wanting settings name).IsEmpty
