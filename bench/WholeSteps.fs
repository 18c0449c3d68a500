namespace Cmcl

open TorchSharp

/// How long one whole step of one form takes, everything counted: from the heads and what was kept of old data to new heads and what is
/// kept then.
type WholeStep =
    {
        Form: string
        Extent: Extent
        Threads: int
        Device: string
        /// Matched rows of the step, and how often each is trained on.
        Rows: int64
        Epochs: int
        /// Medians of its parts in seconds: `Begin` (spectra of the kept moments, rotation), training, `Finish` (rotation back) and
        /// `End` (the step's own moments).
        Begin: float
        Train: float
        End: float
        /// Seconds in all.
        Total: Timing
        /// Times as long as `none` in the same rounds.
        OverNone: float option
        /// Bytes that the method keeps for each modality and step.
        Kept: float
    }

/// Times whole steps in rounds.
[<RequireQualifiedAccess>]
module WholeSteps =
    /// What the issue of cost is stated for: the paper's batches and epochs.
    let pairs, epochs = 64L, 5

    /// The forms that are timed on whole steps.
    let forms: string list = [ "none"; "block"; "soft" ]

    /// Seconds of a step's beginning, training and end.
    let private once (form: Form) (extent: Extent) (w: Workload) : struct (float * float * float) =
        use scope = torch.NewDisposeScope()
        let device = w.New.Device
        let context = Workload.contextOf extent epochs w
        let memory = Workload.memoryOf form w
        let mutable session = Unchecked.defaultof<Session>
        let mutable heads = w.Heads
        let trainer = form.Method extent |> Method.trainer
        let beginning = Clock.seconds device (fun () -> session <- trainer.Begin context memory w.Heads [ w.New ])

        let training = Clock.seconds device (fun () -> heads <- Workload.train Loop.train form context session)

        let ending =
            Clock.seconds device (fun () ->
                let finished = session.Finish { Weights = heads; Kept = session.Kept }
                trainer.End context memory finished.Weights [ w.New ] |> ignore)

        struct (beginning, training, ending)

    /// Every form on a step of these rows, as often as said, under libtorch's threads as they are. `extent` holds the width, the batch and
    /// the rank.
    let contest (device: torch.Device) (rounds: int) (extent: Extent) (rows: int64) (forms: Form list) : WholeStep list =
        use scope = torch.NewDisposeScope()
        let w = Workload.make device extent.Dtype extent.Width (max (2L * extent.Width) rows) rows
        let forms = Array.ofList forms

        let seconds =
            [| for round in 1..rounds do
                   let own = Array.zeroCreate forms.Length

                   for turn in 0 .. forms.Length - 1 do
                       let place = (round + turn) % forms.Length
                       own[place] <- once forms[place] extent w

                   own |]

        let timing (place: int) (part: struct (float * float * float) -> float) : Timing =
            { Samples = seconds |> Array.map (fun round -> part round[place]) }

        let total place = timing place (fun struct (a, b, c) -> a + b + c)
        let none = forms |> Array.tryFindIndex (fun f -> f.Name = "none") |> Option.map total

        [ for place, form in Array.indexed forms ->
              { Form = form.Name
                Extent = extent
                Threads = torch.get_num_threads ()
                Device = string device
                Rows = rows
                Epochs = epochs
                Begin = (timing place (fun struct (a, _, _) -> a)).Median
                Train = (timing place (fun struct (_, b, _) -> b)).Median
                End = (timing place (fun struct (_, _, c) -> c)).Median
                Total = total place
                OverNone = none |> Option.map (fun reference -> Timing.over reference (total place))
                Kept = float (Memory.bytes (Workload.memoryOf form w)) / 2.0 } ]
