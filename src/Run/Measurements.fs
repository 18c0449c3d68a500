namespace Cmcl

open System
open System.Collections.Generic
open TorchSharp

/// One figure that a run measured: after which step (0 is before training), of which step's data, what.
type Measurement = { Step: int; Task: int; Metric: string; Value: float }

/// What a run measures after every step.
[<RequireQualifiedAccess>]
module internal Measurements =
    let private outputs (heads: Heads) (m: Modality) (x: torch.Tensor) = Heads.outputs (Heads.weight m heads) x

    /// Rows that are read at once where nothing but what is made of them stays.
    let private atOnce = 8192

    let private outputsOf (run: RunContext) (heads: Heads) (rows: Rows) : torch.Tensor =
        Tensors.scoped (fun () ->
            let bank = Round.bank run rows

            let of' numbers =
                Stream.gather run.Settings.Dtype run.Device bank numbers
                |> run.Inputs rows.Modality
                |> outputs heads rows.Modality

            if rows.Numbers.Length <= atOnce then
                of' rows.Numbers
            else
                let d = (Heads.weight rows.Modality heads).shape[0]

                let all =
                    torch.empty (rows.Numbers.LongLength, d, dtype = Nullable run.Settings.Dtype.Torch, device = run.Device)

                for place, numbers in Array.chunkBySize atOnce rows.Numbers |> Array.indexed do
                    use scope = torch.NewDisposeScope()
                    all.narrow(0L, int64 (place * atOnce), numbers.LongLength).copy_(of' numbers) |> ignore

                all)

    /// Outputs of both sides of a step's rows: those that the round holds, or made for the caller.
    let private pairOutputs (run: RunContext) (round: Round) (split: Split) (step: Step) : struct (torch.Tensor * torch.Tensor) =
        let of' rows = Map.tryFind rows round.Outputs |> Option.defaultWith (fun () -> outputsOf run round.Heads rows)

        let a, b = Round.rows split step
        struct (of' a, of' b)

    /// The next round, with outputs of whatever it holds; those of heads that did not move are the same tensors.
    let private next (run: RunContext) (previous: Round) (heads: Heads) (over: Step list) : Round =
        let moved = Heads.moved previous.Heads heads

        let wanted =
            [ for split, steps in [ run.Split, run.Stream.Steps; Split.Train, over ] do
                  for step in steps do
                      if previous.Holds.Contains step.Index then
                          let a, b = Round.rows split step
                          yield! [ a; b ] ]
            |> List.distinct

        let outputs rows =
            match Map.tryFind rows previous.Outputs with
            | Some y when not (moved.Contains rows.Modality) -> y
            | _ -> outputsOf run heads rows

        { previous with
            Heads = heads
            Moved = moved
            Outputs = Map [ for rows in wanted -> rows, outputs rows ] }

    let private measurements (after: int) (step: Step) (found: (string * float) list) : Measurement list =
        [ for metric, value in found do
              { Step = after
                Task = step.Index
                Metric = metric
                Value = value } ]

    /// Outputs of all classes' prototypes, as scores want them, once for all steps that share them.
    let private classes (run: RunContext) (heads: Heads) : Accuracy -> torch.Tensor =
        let same (a: Accuracy) (b: Accuracy) = obj.ReferenceEquals(a.Prototypes, b.Prototypes) && a.Modality = b.Modality
        let scoring = run.Settings.Scoring

        let prepare (a: Accuracy) =
            Tensors.scoped (fun () ->
                a.Prototypes.``to``(run.Settings.Dtype.Torch).``to`` run.Device
                |> run.Inputs a.Modality
                |> outputs heads a.Modality
                |> Alignment.prepare scoring)

        let add known (a: Accuracy) = if List.exists (fst >> same a) known then known else (a, prepare a) :: known
        let known = run.Stream.Steps |> List.choose _.Accuracy |> List.fold add []
        fun a -> known |> List.find (fst >> same a) |> snd

    /// Recall, accuracy and loss of a step's measured rows.
    let private figures
        (run: RunContext)
        (round: Round)
        (classes: Accuracy -> torch.Tensor)
        (step: Step)
        : (string * float) list =
        use scope = torch.NewDisposeScope()
        let scoring = run.Settings.Scoring
        let struct (ya, yb) = pairOutputs run round run.Split step
        let a, b = Alignment.prepare scoring ya, Alignment.prepare scoring yb
        let numbers = Stream.rows run.Split step
        let struct (ofA, ofB) = Stream.matched step numbers

        let accuracy =
            match step.Accuracy with
            | None -> []
            | Some accuracy ->
                let items, rows = if accuracy.Items = step.A.Name then a, ofA else b, ofB
                let labels (rows: int64[]) = rows |> Array.map (fun row -> accuracy.Labels[int row])

                match step.Pairs with
                | None -> [ "acc", Retrieval.accuracy items (classes accuracy) (labels rows) ]
                | Some _ ->
                    let struct (places, _) = Matches.distinct rows
                    let once = items.index_select (0L, torch.tensor(places).``to`` run.Device)
                    let rows = places |> Array.map (fun place -> rows[int place])
                    [ "acc", Retrieval.accuracy once (classes accuracy) (labels rows) ]

        let prepared =
            { Settings.contrast run.Settings with
                Scoring = Scoring.Raw }

        let retrieval =
            match Stream.items numbers step with
            | None -> Retrieval.figures prepared a b
            | Some items ->
                let pick (rows: int64[]) (y: torch.Tensor) = y.index_select (0L, torch.tensor(rows).``to`` run.Device)
                let firsts = Array.map Array.head items
                let struct (placesA, queries), struct (placesB, keys) = Matches.distinct ofA, Matches.distinct ofB

                Retrieval.figuresOf { A = queries; B = keys } (pick placesA a) (pick placesB b)
                @ [ "loss", Retrieval.loss prepared (pick firsts a) (pick firsts b) ]

        accuracy @ retrieval |> List.filter (snd >> Double.IsFinite)

    /// The modalities that a step's figures depend on.
    let private seenBy (step: Step) : Modality list =
        Pair.members step.Pair @ (step.Accuracy |> Option.map _.Modality |> Option.toList)

    /// Retrieval, accuracy and loss of every step's data under the round's heads, steps to come included.
    let private evaluated (run: RunContext) (round: Round) : Round =
        use scope = torch.NewDisposeScope()
        let classes = classes run round.Heads

        let found (step: Step) =
            match Map.tryFind step.Index round.Figures with
            | Some found when not (Round.moved round (seenBy step)) -> found
            | _ -> figures run round classes step

        { round with
            Figures = Map [ for step in run.Stream.Steps -> step.Index, found step ] }

    let private evaluation (run: RunContext) (round: Round) (after: int) : Measurement list =
        run.Stream.Steps |> List.collect (fun step -> measurements after step round.Figures[step.Index])

    /// A round without steps that are over.
    let evaluate (run: RunContext) (previous: Round) (heads: Heads) (after: int) : struct (Measurement list * Round) =
        Tensors.scopedWith (fun struct (_, round) -> Round.tensors round) (fun () ->
            let round = next run previous heads [] |> evaluated run
            struct (evaluation run round after, round))

    /// A step's scores at its end: held, or to be made of the outputs then.
    let private earlier (run: RunContext) (p: OldTask) (split: Split) (held: OldScores -> torch.Tensor) : EarlierScores =
        match p.Held with
        | Some h -> EarlierScores.Whole(held h)
        | None ->
            let a, b = Round.rows split p.Step
            EarlierScores.Outputs(outputsOf run p.AtEnd a, outputsOf run p.AtEnd b)

    /// How far the scores of a step that is over moved since its end: of its training rows, and of the measured rows.
    let private deviated (run: RunContext) (round: Round) (p: OldTask) : OldTask =
        let since split held =
            use scope = torch.NewDisposeScope()
            let p = { p with Step = Round.compared round p.Step }
            let struct (ya, yb) = pairOutputs run round split p.Step
            Stability.since (earlier run p split held) ya yb

        if p.Deviations.IsSome && not (Round.moved round (Pair.members p.Step.Pair)) then
            p
        else
            let trained, measured = since Split.Train _.TrainedThen, since run.Split _.MeasuredThen

            { p with
                Deviations =
                    Some
                        [ "deviation_mean", trained.Mean
                          "deviation_rms", trained.Rms
                          "deviation_max", trained.Max
                          "deviation_rel", trained.Relative
                          "deviation_test_rel", measured.Relative ] }

    /// What a change of heads makes of every kept row, once for all steps that share them.
    let private shifts (changes: Heads) (past: OldTask list) : Sketch -> Sketch option =
        let made = Dictionary<Sketch, Sketch option>(HashIdentity.Reference)

        for p in past do
            if p.Held.IsSome then
                for m, rows in [ p.Step.Pair.A, p.Kept.A; p.Step.Pair.B, p.Kept.B ] do
                    if not (made.ContainsKey rows) then
                        made[rows] <- OldStep.shift changes m rows

        fun rows -> made[rows]

    /// Of a step that is over, without its rows: how far all its training scores have moved since its end, and the bounds that its
    /// certificate gives on the last step's part in that and on the whole.
    let private certified
        (run: RunContext)
        (before: Heads)
        (heads: Heads)
        (shift: Sketch -> Sketch option)
        (p: OldTask)
        : OldTask * (string * float) list =
        let p, struct (earlier, now, certificate) =
            match p.Held with
            | Some h ->
                let struct (standing, certificate) = OldStep.follow (shift p.Kept.A) (shift p.Kept.B) h.State
                { p with Held = Some { h with State = standing } }, struct (h.State.Drift, standing.Drift, certificate)
            | None -> p, OldStep.across before heads p.Kept

        let step = OldStep.relative p.Kept certificate.Bound + OldStep.rounding run.Settings.Dtype p.Kept

        { p with Beyond = p.Beyond + certificate.Beyond },
        [ "monitor_rms", now.Rms
          "monitor_rel", now.Relative
          "bound_step_rel", step
          // The drift is of the kept rows; what they may miss of it adds up from step to step.
          "bound_rel", earlier.Relative + OldStep.relative p.Kept p.Beyond + step ]

    /// The rows to keep of some training rows: those of a step that had the same ones, or made of them.
    let private keptRows (run: RunContext) (round: Round) (step: Step) (wanted: Rows) : Sketch =
        let blocks () =
            seq {
                for numbers in Array.chunkBySize (int Moment.blockRows) wanted.Numbers do
                    Tensors.scoped (fun () ->
                        Stream.gather Dtype.Float64 run.Device (Round.bank run wanted) numbers |> run.Inputs wanted.Modality)
            }

        let ofPast (p: OldTask) =
            let a, b = Round.rows Split.Train p.Step

            if a = wanted then Some p.Kept.A
            elif b = wanted then Some p.Kept.B
            else None

        round.Old
        |> List.tryPick ofPast
        |> Option.defaultWith (fun () ->
            Tensors.scopedWith (fun s -> [ s.Rows ]) (fun () ->
                if round.Streams.Contains step.Index then
                    Sketch.ofMoment (Moment.accumulate (blocks ()))
                else
                    Stream.gather Dtype.Float64 run.Device (Round.bank run wanted) wanted.Numbers
                    |> run.Inputs wanted.Modality
                    |> Sketch.ofRows))

    /// All n × n scores of a step's rows, float64.
    let private scores (run: RunContext) (round: Round) (split: Split) (step: Step) : torch.Tensor =
        Tensors.scoped (fun () ->
            let struct (ya, yb) = pairOutputs run round split step
            Tensors.product (ya.``to`` torch.float64) (yb.``to``(torch.float64).t()))

    /// What is kept of a step that is over, and what is held of it where the budget has room.
    let private finish (run: RunContext) (round: Round) (step: Step) : OldTask =
        let a, b = Round.rows Split.Train step

        let standing =
            let kept = keptRows run round step
            OldStep.atEnd step.Index step.Pair step.Train.LongLength round.Heads (kept a) (kept b)

        { Step = step
          AtEnd = round.Heads
          Kept = standing.Old
          Held =
            if round.Holds.Contains step.Index then
                Some
                    { TrainedThen = scores run round Split.Train step
                      MeasuredThen = scores run round run.Split step
                      State = standing }
            else
                None
          Beyond = 0.0
          Deviations = None }

    /// All that is measured when a step is over, and what the next round goes on from.
    let after (run: RunContext) (previous: Round) (heads: Heads) (step: Step) : struct (Measurement list * Round) =
        Tensors.scopedWith (fun struct (_, round) -> Round.tensors round) (fun () ->
            let over = [ for p in previous.Old -> p.Step ] @ [ step ]
            let round = next run previous heads over |> evaluated run
            let past = round.Old |> List.map (deviated run round)
            let shift = shifts (OldStep.changes previous.Heads heads) past
            let certified = past |> List.map (certified run previous.Heads heads shift)
            let ofPast (p: OldTask, found) = measurements step.Index p.Step found

            let round =
                { round with
                    Old = List.map fst certified @ [ finish run round step ] }

            let kept = Round.kept round |> List.collect OldStep.tensors |> List.sumBy Tensors.bytes

            struct (evaluation run round step.Index
                    @ (past |> List.collect (fun p -> ofPast (p, Option.defaultValue [] p.Deviations)))
                    @ List.collect ofPast certified
                    @ measurements step.Index step [ "bytes_monitor", float kept ],
                    round))

    /// The round after `after` without its figures, for a run that goes on from its midst: they are made again where they are asked for.
    let retrace (run: RunContext) (previous: Round) (heads: Heads) (step: Step) : Round =
        Tensors.scopedWith (fun round -> Round.tensors round) (fun () ->
            let over = [ for p in previous.Old -> p.Step ] @ [ step ]
            let round = next run previous heads over
            let shift = shifts (OldStep.changes previous.Heads heads) round.Old

            { round with
                Old = [ for p in round.Old -> fst (certified run previous.Heads heads shift p) ] @ [ finish run round step ] })
