namespace Cmcl

open System
open System.Collections.Generic
open TorchSharp

/// One figure that a run measured: after which step (0 is before training), of which step's data, what.
type Reading = { Step: int; Task: int; Metric: string; Value: float }

/// What a run measures after every step.
[<RequireQualifiedAccess>]
module internal Readings =
    /// Features as heads take them.
    let private inputs (bench: Bench) (x: torch.Tensor) : torch.Tensor = if bench.Bias then Heads.withBias x else x

    /// A step's training rows, in the type and where it is trained.
    let task (bench: Bench) (step: Step) : Task =
        let struct (a, b) = Stream.features bench.Settings.Dtype bench.Device Split.Train step
        let a, b = inputs bench a, inputs bench b

        { Index = step.Index
          Name = step.Name
          Pair = step.Pair
          A = a
          B = b
          Source = None
          Items = Stream.items step.Train step }

    /// Bytes of batches after which freed memory is given back: 64 MiB.
    let private betweenTrims = 64L <<< 20

    /// The same rows, read when they are asked for. Their numbers alone are held.
    let streamed (bench: Bench) (step: Step) : Task =
        let struct (ofA, ofB) = Stream.bankRows Split.Train step
        let ofA, ofB = torch.tensor ofA, torch.tensor ofB
        let numbers m = if m = step.Pair.A then ofA else ofB
        let bank m = if m = step.Pair.A then step.A else step.B
        let mutable sinceTrim = 0L

        let read m (rows: torch.Tensor) =
            let taken =
                Tensors.scoped (fun () ->
                    Stream.take bench.Settings.Dtype bench.Device (bank m) ((numbers m).index_select(0L, rows.cpu ()))
                    |> inputs bench)

            sinceTrim <- sinceTrim + Tensors.bytes taken

            if sinceTrim > betweenTrims then
                sinceTrim <- 0L
                Native.trim ()

            taken

        { Task.reading
              step.Index
              step.Name
              step.Pair
              step.Train.LongLength
              (fun m -> (bank m).Features.shape[1] + (if bench.Bias then 1L else 0L))
              bench.Settings.Dtype.Torch
              { Device = bench.Device; Read = read } with
            Items = Stream.items step.Train step }

    /// The training rows of steps that are trained together, held if they are not too many.
    let tasks (limits: Limits) (bench: Bench) (steps: Step list) : Task list =
        if List.sumBy (Round.rowBytes bench) steps <= limits.Rows then
            List.map (task bench) steps
        else
            List.map (streamed bench) steps

    let private outputs (heads: Heads) (m: Modality) (x: torch.Tensor) = Heads.outputs (Heads.weight m heads) x

    /// Rows that are read at once where nothing but what is made of them stays.
    let private atOnce = 8192

    let private outputsOf (bench: Bench) (heads: Heads) (rows: Rows) : torch.Tensor =
        Tensors.scoped (fun () ->
            let bank = Round.bank bench rows

            let of' numbers =
                Stream.gather bench.Settings.Dtype bench.Device bank numbers |> inputs bench |> outputs heads rows.Modality

            if rows.Numbers.Length <= atOnce then
                of' rows.Numbers
            else
                let d = (Heads.weight rows.Modality heads).shape[0]

                let all =
                    torch.empty (rows.Numbers.LongLength, d, dtype = Nullable bench.Settings.Dtype.Torch, device = bench.Device)

                for place, numbers in Array.chunkBySize atOnce rows.Numbers |> Array.indexed do
                    use scope = torch.NewDisposeScope()
                    all.narrow(0L, int64 (place * atOnce), numbers.LongLength).copy_(of' numbers) |> ignore

                all)

    /// Outputs of both sides of a step's rows: those that the round holds, or made for the caller.
    let private pairOutputs (bench: Bench) (round: Round) (split: Split) (step: Step) : struct (torch.Tensor * torch.Tensor) =
        let of' rows = Map.tryFind rows round.Outputs |> Option.defaultWith (fun () -> outputsOf bench round.Heads rows)

        let a, b = Round.rows split step
        struct (of' a, of' b)

    /// The next round, with outputs of whatever it holds; those of heads that did not move are the same tensors.
    let private next (bench: Bench) (previous: Round) (heads: Heads) (over: Step list) : Round =
        let moved = Heads.moved previous.Heads heads

        let wanted =
            [ for split, steps in [ bench.Split, bench.Stream.Steps; Split.Train, over ] do
                  for step in steps do
                      if previous.Holds.Contains step.Index then
                          let a, b = Round.rows split step
                          yield! [ a; b ] ]
            |> List.distinct

        let outputs rows =
            match Map.tryFind rows previous.Outputs with
            | Some y when not (moved.Contains rows.Modality) -> y
            | _ -> outputsOf bench heads rows

        { previous with
            Heads = heads
            Moved = moved
            Outputs = Map [ for rows in wanted -> rows, outputs rows ] }

    let private readings (after: int) (step: Step) (found: (string * float) list) : Reading list =
        [ for metric, value in found do
              { Step = after
                Task = step.Index
                Metric = metric
                Value = value } ]

    /// Outputs of all classes' prototypes, as scores want them, once for all steps that share them.
    let private classes (bench: Bench) (heads: Heads) : Accuracy -> torch.Tensor =
        let same (a: Accuracy) (b: Accuracy) = obj.ReferenceEquals(a.Prototypes, b.Prototypes) && a.Modality = b.Modality
        let scoring = bench.Settings.Scoring

        let prepare (a: Accuracy) =
            Tensors.scoped (fun () ->
                a.Prototypes.``to``(bench.Settings.Dtype.Torch).``to`` bench.Device
                |> inputs bench
                |> outputs heads a.Modality
                |> Alignment.prepare scoring)

        let add known (a: Accuracy) = if List.exists (fst >> same a) known then known else (a, prepare a) :: known
        let known = bench.Stream.Steps |> List.choose _.Accuracy |> List.fold add []
        fun a -> known |> List.find (fst >> same a) |> snd

    /// Recall, accuracy and loss of a step's measured rows.
    let private figures (bench: Bench) (round: Round) (classes: Accuracy -> torch.Tensor) (step: Step) : (string * float) list =
        use scope = torch.NewDisposeScope()
        let scoring = bench.Settings.Scoring
        let struct (ya, yb) = pairOutputs bench round bench.Split step
        let a, b = Alignment.prepare scoring ya, Alignment.prepare scoring yb
        let numbers = Stream.rows bench.Split step
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
                    let once = items.index_select (0L, torch.tensor(places).``to`` bench.Device)
                    let rows = places |> Array.map (fun place -> rows[int place])
                    [ "acc", Retrieval.accuracy once (classes accuracy) (labels rows) ]

        let prepared =
            { Settings.contrast bench.Settings with
                Scoring = Scoring.Raw }

        let retrieval =
            match Stream.items numbers step with
            | None -> Retrieval.figures prepared a b
            | Some items ->
                let pick (rows: int64[]) (y: torch.Tensor) = y.index_select (0L, torch.tensor(rows).``to`` bench.Device)
                let firsts = Array.map Array.head items
                let struct (placesA, queries), struct (placesB, keys) = Matches.distinct ofA, Matches.distinct ofB

                Retrieval.figuresOf { A = queries; B = keys } (pick placesA a) (pick placesB b)
                @ [ "loss", Retrieval.loss prepared (pick firsts a) (pick firsts b) ]

        accuracy @ retrieval |> List.filter (snd >> Double.IsFinite)

    /// The modalities that a step's figures depend on.
    let private seenBy (step: Step) : Modality list =
        Pair.members step.Pair @ (step.Accuracy |> Option.map _.Modality |> Option.toList)

    /// Retrieval, accuracy and loss of every step's data under the round's heads, steps to come included.
    let private evaluated (bench: Bench) (round: Round) : Round =
        use scope = torch.NewDisposeScope()
        let classes = classes bench round.Heads

        let found (step: Step) =
            match Map.tryFind step.Index round.Figures with
            | Some found when not (Round.moved round (seenBy step)) -> found
            | _ -> figures bench round classes step

        { round with
            Figures = Map [ for step in bench.Stream.Steps -> step.Index, found step ] }

    let private evaluation (bench: Bench) (round: Round) (after: int) : Reading list =
        bench.Stream.Steps |> List.collect (fun step -> readings after step round.Figures[step.Index])

    /// A round without steps that are over.
    let evaluate (bench: Bench) (previous: Round) (heads: Heads) (after: int) : struct (Reading list * Round) =
        Tensors.scopedWith (fun struct (_, round) -> Round.tensors round) (fun () ->
            let round = next bench previous heads [] |> evaluated bench
            struct (evaluation bench round after, round))

    /// A step's scores at its end: held, or to be made of the outputs then.
    let private earlier (bench: Bench) (p: Past) (split: Split) (held: Held -> torch.Tensor) : EarlierScores =
        match p.Held with
        | Some h -> EarlierScores.Whole(held h)
        | None ->
            let a, b = Round.rows split p.Step
            EarlierScores.Outputs(outputsOf bench p.AtEnd a, outputsOf bench p.AtEnd b)

    /// How far the scores of a step that is over moved since its end: of its training rows, and of the measured rows.
    let private deviated (bench: Bench) (round: Round) (p: Past) : Past =
        let since split held =
            use scope = torch.NewDisposeScope()
            let p = { p with Step = Round.compared round p.Step }
            let struct (ya, yb) = pairOutputs bench round split p.Step
            Stability.since (earlier bench p split held) ya yb

        if p.Deviations.IsSome && not (Round.moved round (Pair.members p.Step.Pair)) then
            p
        else
            let trained, measured = since Split.Train _.TrainedThen, since bench.Split _.MeasuredThen

            { p with
                Deviations =
                    Some
                        [ "deviation_mean", trained.Mean
                          "deviation_rms", trained.Rms
                          "deviation_max", trained.Max
                          "deviation_rel", trained.Relative
                          "deviation_test_rel", measured.Relative ] }

    /// What a change of heads makes of every kept row, once for all steps that share them.
    let private shifts (changes: Heads) (past: Past list) : Sketch -> Sketch option =
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
        (bench: Bench)
        (before: Heads)
        (heads: Heads)
        (shift: Sketch -> Sketch option)
        (p: Past)
        : Past * (string * float) list =
        let p, struct (earlier, now, certificate) =
            match p.Held with
            | Some h ->
                let struct (standing, certificate) = OldStep.follow (shift p.Kept.A) (shift p.Kept.B) h.Standing
                { p with Held = Some { h with Standing = standing } }, struct (h.Standing.Drift, standing.Drift, certificate)
            | None -> p, OldStep.across before heads p.Kept

        let step = OldStep.relative p.Kept certificate.Bound + OldStep.rounding bench.Settings.Dtype p.Kept

        { p with Beyond = p.Beyond + certificate.Beyond },
        [ "monitor_rms", now.Rms
          "monitor_rel", now.Relative
          "bound_step_rel", step
          // The drift is of the kept rows; what they may miss of it adds up from step to step.
          "bound_rel", earlier.Relative + OldStep.relative p.Kept p.Beyond + step ]

    /// The rows to keep of some training rows: those of a step that had the same ones, or made of them.
    let private keptRows (bench: Bench) (round: Round) (step: Step) (wanted: Rows) : Sketch =
        let blocks () =
            seq {
                for numbers in Array.chunkBySize (int Moment.blockRows) wanted.Numbers do
                    Tensors.scoped (fun () ->
                        Stream.gather Dtype.Float64 bench.Device (Round.bank bench wanted) numbers |> inputs bench)
            }

        let ofPast (p: Past) =
            let a, b = Round.rows Split.Train p.Step

            if a = wanted then Some p.Kept.A
            elif b = wanted then Some p.Kept.B
            else None

        round.Past
        |> List.tryPick ofPast
        |> Option.defaultWith (fun () ->
            Tensors.scopedWith (fun s -> [ s.Rows ]) (fun () ->
                if round.Streams.Contains step.Index then
                    Sketch.ofMoment (Moment.accumulate (blocks ()))
                else
                    Stream.gather Dtype.Float64 bench.Device (Round.bank bench wanted) wanted.Numbers
                    |> inputs bench
                    |> Sketch.ofRows))

    /// All n × n scores of a step's rows, float64.
    let private scores (bench: Bench) (round: Round) (split: Split) (step: Step) : torch.Tensor =
        Tensors.scoped (fun () ->
            let struct (ya, yb) = pairOutputs bench round split step
            Tensors.product (ya.``to`` torch.float64) (yb.``to``(torch.float64).t()))

    /// What is kept of a step that is over, and what is held of it where the budget has room.
    let private finish (bench: Bench) (round: Round) (step: Step) : Past =
        let a, b = Round.rows Split.Train step

        let standing =
            let kept = keptRows bench round step
            OldStep.atEnd step.Index step.Pair step.Train.LongLength round.Heads (kept a) (kept b)

        { Step = step
          AtEnd = round.Heads
          Kept = standing.Old
          Held =
            if round.Holds.Contains step.Index then
                Some
                    { TrainedThen = scores bench round Split.Train step
                      MeasuredThen = scores bench round bench.Split step
                      Standing = standing }
            else
                None
          Beyond = 0.0
          Deviations = None }

    /// All that is measured when a step is over, and what the next round goes on from.
    let after (bench: Bench) (previous: Round) (heads: Heads) (step: Step) : struct (Reading list * Round) =
        Tensors.scopedWith (fun struct (_, round) -> Round.tensors round) (fun () ->
            let over = [ for p in previous.Past -> p.Step ] @ [ step ]
            let round = next bench previous heads over |> evaluated bench
            let past = round.Past |> List.map (deviated bench round)
            let shift = shifts (OldStep.changes previous.Heads heads) past
            let certified = past |> List.map (certified bench previous.Heads heads shift)
            let ofPast (p: Past, found) = readings step.Index p.Step found

            let round =
                { round with
                    Past = List.map fst certified @ [ finish bench round step ] }

            let kept = Round.kept round |> List.collect OldStep.tensors |> List.sumBy Tensors.bytes

            struct (evaluation bench round step.Index
                    @ (past |> List.collect (fun p -> ofPast (p, Option.defaultValue [] p.Deviations)))
                    @ List.collect ofPast certified
                    @ readings step.Index step [ "bytes_monitor", float kept ],
                    round))

    /// The round after `after` without its figures, for a run that goes on from its midst: they are made again where they are asked for.
    let retrace (bench: Bench) (previous: Round) (heads: Heads) (step: Step) : Round =
        Tensors.scopedWith (fun round -> Round.tensors round) (fun () ->
            let over = [ for p in previous.Past -> p.Step ] @ [ step ]
            let round = next bench previous heads over
            let shift = shifts (OldStep.changes previous.Heads heads) round.Past

            { round with
                Past =
                    [ for p in round.Past -> fst (certified bench previous.Heads heads shift p) ] @ [ finish bench round step ] })

    /// InfoNCE on a step's training rows (of several pairs of an item the first), in batches of the training size in the stored order, so that before and after
    /// are the same rows against the same candidates.
    let trainingLoss (bench: Bench) (heads: Heads) (task: Task) : float =
        let size = Loop.batchRows bench.Settings.Batch task.Visits

        let lossOf (rows: Modality -> torch.Tensor) =
            use scope = torch.NewDisposeScope()
            let ya, yb = outputs heads task.Pair.A (rows task.Pair.A), outputs heads task.Pair.B (rows task.Pair.B)
            Retrieval.lossInBatches size (Settings.contrast bench.Settings) ya yb

        use scope = torch.NewDisposeScope()
        let firsts = Task.firsts task

        match task.Source, firsts with
        | None, None -> lossOf task.Rows
        | _ ->
            let full = task.Visits / size * size
            let some = max 1L (int64 atOnce / size) * size

            let sum =
                [ for first in 0L .. some .. full - 1L do
                      use scope = torch.NewDisposeScope()
                      let count = min some (full - first)

                      let numbers =
                          match firsts with
                          | Some firsts -> firsts.narrow (0L, first, count)
                          | None -> Tensors.range task.Device first (first + count)

                      float count * lossOf (fun m -> task.Take(m, numbers)) ]
                |> List.sum

            sum / float full
