namespace Cmcl

open TorchSharp

/// What counts the same in sums of moments over steps.
[<RequireQualifiedAccess>]
type StepWeight =
    /// Every step, however many rows it has.
    | Steps
    /// Every row.
    | Rows

/// Methods that are solved from moments: no rate, no epoch, no seed and no old row, and steps in any order.
[<RequireQualifiedAccess>]
module ClosedForm =
    type Options = { Cca: CcaOptions; Weights: StepWeight }

    let private cca' (option: Opt<CcaOptions, 'v>) : Opt<Options, 'v> =
        Opt.within (fun (o: Options) -> o.Cca) (fun cca o -> { o with Cca = cca }) option

    let ridge: Opt<Options, float> =
        Shared.ridge (fun (o: CcaOptions) -> o.Ridge) (fun v o -> { o with Ridge = v })
        |> Opt.tried [ "0.003"; "0.01"; "0.03"; "0.1"; "0.3" ]
        |> cca'

    let exponent: Opt<Options, float> =
        Opt.make
            "exponent"
            "q: a direction counts with its correlation to this power"
            Codec.notNegative
            (fun (o: CcaOptions) -> o.Exponent)
            (fun v o -> { o with Exponent = v })
        |> Opt.tried [ "0.5"; "0.75"; "1"; "1.5" ]
        |> cca'

    let private rankCodec: Codec<int option> =
        let whole = Codec.whole 1

        Codec.make "a whole number ≥ 1, or all" (Option.map whole.Show >> Option.defaultValue "all") (fun given ->
            match given, whole.Read "rank" given with
            | "all", _ -> Some None
            | _, Ok n -> Some(Some n)
            | _, Error _ -> None)

    let rank: Opt<Options, int option> =
        Opt.make "rank" "how many directions are kept" rankCodec (fun (o: CcaOptions) -> o.Rank) (fun v o -> { o with Rank = v })
        |> cca'

    let prior: Opt<Options, float> =
        Opt.make
            "prior"
            "ν: how much it counts that heads before any step align encoders, in shares of each moment's mean diagonal"
            Codec.notNegative
            (fun (o: CcaOptions) -> o.Prior)
            (fun v o -> { o with Prior = v })
        |> cca'

    let unseen: Opt<Options, Unseen> =
        Opt.make
            "unseen"
            "pairs that no step has: nothing is known of them (zero), or they are composed by way of a third modality (composed)"
            (Codec.choice [ "zero", Unseen.Zero; "composed", Unseen.Composed ])
            (fun (o: CcaOptions) -> o.Unseen)
            (fun v o -> { o with Unseen = v })
        |> cca'

    let weights: Opt<Options, StepWeight> =
        Opt.make
            "weights"
            "what counts the same: every step, or every row"
            (Codec.choice [ "steps", StepWeight.Steps; "rows", StepWeight.Rows ])
            _.Weights
            (fun v o -> { o with Weights = v })

    /// A step's moments, of a weight of 1 a row, by what counts the same: of weight 1, or as they are. Example:
    /// `ClosedForm.weighted StepWeight.Steps joint`.
    let weighted (weights: StepWeight) (step: JointMoments) : JointMoments =
        match weights with
        | StepWeight.Rows -> step
        | StepWeight.Steps -> JointMoments.scale (1.0 / JointMoments.weight step) step

    /// The moments of a step's rows, a weight of 1 a row. Example: `ClosedForm.moments (Task.ofPair 1 "first" pair xa xb)`.
    let moments (task: Task) : JointMoments =
        if task.IsHeld then
            JointMoments.accumulate task.Terms [ Map [ for m in task.Modalities -> m, (task.All m).alias() ] ]
        else
            JointMoments.accumulate task.Terms (Task.jointBlocks task)

    /// Refuses a prior, which says that encoders are aligned, with columns beside their features that are not.
    let private fitting (o: CcaOptions) (lift: Lift option) : Result<unit, Fault list> =
        if lift.IsSome && o.Prior > 0.0 then
            Error
                [ Fault.Contradiction(
                      $"a prior takes features of all modalities for comparable, column by column, and those of features={Lift.show lift} are not",
                      "leave the prior at 0, or the features as they came (features=raw)"
                  ) ]
        else
            Ok()

    /// Heads of d rows by `Cca.solve`, from moments of features with this lift. Faults: those of `Cca.solve`; `Contradiction` for a prior
    /// with a lift. Example: `ClosedForm.fit Cca.defaults None 8L (JointMoments.ofRows pair xa xb)`.
    let fit (o: CcaOptions) (lift: Lift option) (d: int64) (all: JointMoments) : Result<Heads * int, Fault list> =
        fitting o lift |> Result.bind (fun () -> Cca.solve o d all)

    /// The same by `Cca.solveFrom`, with as many rows as the heads before any step have.
    /// Example: `ClosedForm.fitFrom heads Cca.defaults None (JointMoments.ofRows pair xa xb)`.
    let fitFrom (initial: Heads) (o: CcaOptions) (lift: Lift option) (all: JointMoments) : Result<Heads * int, Fault list> =
        fitting o lift |> Result.bind (fun () -> Cca.solveFrom initial o (Seq.head initial.Values).shape[0] all)

    /// The moments of all steps that are kept and of these. Example: `ClosedForm.seen StepWeight.Steps Map.empty [ Task.ofPair 1 "first" pair xa xb ]`.
    let seen (weights: StepWeight) (kept: Memory) (tasks: Task list) : JointMoments =
        JointMoments.ofNamed kept :: List.map (moments >> weighted weights) tasks |> JointMoments.mergeAll

    /// Heads after moments, turned nearest to those before any step; a modality without moments keeps the head that it has. And sentences
    /// for the user. Faults as of `fitFrom`.
    let headsOf
        (o: CcaOptions)
        (lift: Lift option)
        (initial: Heads)
        (heads: Heads)
        (all: JointMoments)
        : Result<struct (Heads * string list), Fault list> =
        let d = (Seq.head heads.Values).shape[0]

        fitFrom initial o lift all
        |> Result.map (fun (found, directions) ->
            let found = Cca.towards initial all found |> Map.map (fun m w -> w.``to`` (Heads.weight m heads).dtype)

            struct (Heads.replace found heads,
                    [ if directions < min (int d) (o.Rank |> Option.defaultValue System.Int32.MaxValue) then
                          $"there are {directions} directions of positive correlation, fewer than the {d} rows of the heads; the other rows are 0" ]))

    let private solve
        (o: Options)
        (context: Context)
        (memory: Memory)
        (heads: Heads)
        (tasks: Task list)
        : Result<Solution, Fault list> =
        let kept (found: Result<Solution, Fault list>) : seq<torch.Tensor> =
            match found with
            | Ok s -> Seq.append s.Heads.Values s.Memory.Values
            | Error _ -> []

        Tensors.scopedWith kept (fun () ->
            let all = seen o.Weights memory tasks

            headsOf o.Cca context.Settings.Features context.Initial heads all
            |> Result.map (fun struct (found, remarks) ->
                { Heads = found
                  Memory = JointMoments.toNamed all
                  Remarks = remarks }))

    /// Multiset canonical correlations of all modalities that were seen, from second and cross moments alone.
    let cca: Spec<Options> =
        Spec.make
            { Cca = Cca.defaults; Weights = StepWeight.Steps }
            [ Opt.any ridge; Opt.any exponent; Opt.any rank; Opt.any prior; Opt.any unseen; Opt.any weights ]
            (fun o ->
                { Method.solving "cca" "canonical correlations of all that was seen, from moments, in one solve" (solve o) with
                    Promise = Promise.Performance })
