namespace Cmcl

open System
open System.Globalization
open TorchSharp

/// All that was verified on a stream.
type Verification =
    {
        Findings: Finding list
        Points: Point list
        /// What the numbers say, in sentences.
        Remarks: string list
    }

    /// What must hold and does not.
    member v.Broken: Finding list = v.Findings |> List.filter (fun f -> f.Condition.Must && not f.Condition.Holds)

    /// In one sentence.
    member v.Result: string =
        match v.Broken with
        | [] -> "Everything that must hold does."
        | broken ->
            let names = broken |> List.map _.Condition.Name |> List.distinct
            let words = String.Join("; ", names)
            $"{broken.Length} places break what must hold: {words}."

/// Runs plans and holds what they did against the theory.
[<RequireQualifiedAccess>]
module Verification =
    /// The plans that are verified, as users write them.
    let runs =
        [ "dns"
          "dns[exact=on]"
          "dns[place=update]"
          "dns[place=gradient]"
          "dns-trust"
          "dns-trust[total-budget=0.2]" ]

    /// The plans of `runs` on a stream, in float64 unless the options given say otherwise.
    let plans (stream: Stream) (given: (string * string) list) : Result<Plan list, Fault list> =
        let dtype = if List.exists (fst >> (=) "dtype") given then [] else [ "dtype", "float64" ]

        Plan.resolve stream.Preset (given @ dtype) runs
        |> Result.bind (fun plans ->
            match plans |> List.collect (Plan.check stream) |> List.distinct with
            | [] -> Ok plans
            | faults -> Error faults)

    /// A number as tables and sentences show it: 3.2e-16, 0.18, 0.
    let number (x: float) : string =
        let text (format: string) = x.ToString(format, CultureInfo.InvariantCulture).Replace("-", "−")

        if not (Double.IsFinite x) then text "G"
        elif x = 0.0 then "0"
        elif abs x >= 0.01 && abs x < 1000.0 then text "G3"
        else text "0.0e+0"

    let private isBlock (trace: Trace) = trace.Options.Protect = Protect.Block

    let private median (values: float list) : float = (List.sort values)[values.Length / 2]

    /// What became of the scores under one plan, and why.
    let private stability (trace: Trace) (places: OldPlace list) : string list =
        let label = trace.Plan.Label
        let rounding = Tolerance.agreement trace.Plan.Settings.Dtype

        if places.IsEmpty then
            [ $"{label}: one step, so there are no old scores to keep." ]
        else
            let worst = places |> List.maxBy _.Deviation
            let most = places |> List.choose _.Discarded |> List.fold max 0.0
            let moved = $"old scores moved by up to {number worst.Deviation} of their size (bound: {number worst.Bound})"

            [ if worst.Deviation <= rounding then
                  $"{label}: stability is exact; {moved}."
              elif not (isBlock trace) then
                  $"{label}: stability is approximate by design; {moved}."
              elif trace.Options.Place = Place.Gradient then
                  $"{label}: stability is not kept, since the optimizer bends projected gradients out of the constraint set; {moved}."
              elif StabilityChecks.exactNullSpace trace.Plan.Settings places then
                  $"{label}: the null space is exact, and what is left is the second order of Theorem 5; {moved}."
              else
                  $"{label}: truncation makes stability approximate here, since the thresholds leave up to {number most} of the energy outside; {moved}." ]

    /// The places where a run that keeps to its constraint sets moved old scores beyond rounding.
    let private moved (trace: Trace) (places: OldPlace list) : OldPlace list =
        if isBlock trace && trace.Options.Place <> Place.Gradient then
            places |> List.filter (fun p -> p.Change > (p.Slack + 1e-12) * p.Before)
        else
            []

    /// How far the bounds on a step's change of old scores, and on their whole deviation, are above the truth.
    let private tightness (moved: OldPlace list) : string =
        if moved.IsEmpty then
            "No step moved old scores beyond rounding, so that there is nothing to compare bounds with."
        else
            let ratios (ratio: OldPlace -> float) =
                let all = moved |> List.map ratio
                $"{number (median all)} (at most {number (List.max all)})"

            let certificate = ratios (fun p -> p.Certificate * p.Size / p.Change)
            let norms = ratios (fun p -> (p.SecondOrder + p.Truncation) / p.Change)
            let whole = ratios (fun p -> p.Bound / p.Deviation)

            $"Bound over truth, median of the {moved.Length} places where a step moved old scores: {certificate} for the step's certificate, {norms} for the product of norms of Theorem 5 with truncation, {whole} for the bound on the whole deviation."

    /// Every condition at every place of one run, with its points; and the places themselves.
    let private ofTrace (trace: Trace) : Finding list * Point list * OldPlace list =
        let places = StabilityChecks.places trace

        let steps =
            Stage.each trace (fun s ->
                let descents = if isBlock trace then PlasticityChecks.descents s else None

                ProjectionChecks.conditions s,
                [ if isBlock trace then
                      yield! PlasticityChecks.conditions s descents
                  PlasticityChecks.learned s ],
                Points.ofStep trace.Plan.Label s descents)

        let conditions =
            [ for projection, _, _ in steps do
                  yield! projection
              yield! StabilityChecks.conditions trace places
              for _, plasticity, _ in steps do
                  yield! plasticity ]

        Finding.ofRun trace conditions @ StabilityChecks.stability trace places,
        Points.ofPlaces trace.Plan.Label places @ List.collect (fun (_, _, points) -> points) steps,
        places

    /// The closed form's statements, under the stream's settings for `cca` and the features of the plans; or why there are none.
    let private closedForm (request: Request) : Finding list * string list =
        let features = [ for p in request.Plans -> p.Settings.Features ] |> List.distinct |> List.tryExactlyOne |> Option.flatten

        let lift = features |> Option.map (fun lift -> { Lift = lift; Seed = request.Seeds.Head })

        let found =
            Plan.resolve request.Stream.Preset [] [ "cca" ]
            |> Result.bind (fun plans ->
                let o = Entry.own<ClosedForm.Options> plans.Head.Entry |> Option.defaultValue ClosedForm.cca.Defaults
                ClosedFormChecks.conditions request.Device lift o request.Stream)

        match found with
        | Ok conditions -> [ for c in conditions -> { Run = "cca"; Condition = c; ExactTo = None } ], []
        | Error faults -> [], [ "cca: its statements were not checked. " + String.Join(" ", [ for f in faults -> f.Message ]) ]

    /// Runs each plan of a request with its first seed and checks everything; results go nowhere. Faults: a plan that diverged.
    /// As in `Verification.run ignore request`.
    let run (tell: StudyEvent -> unit) (request: Request) : Result<Verification, Fault list> =
        let jobs = Experiment.jobs { request with Seeds = [ request.Seeds.Head ] }

        let one (index: int) (job: Job) =
            let say event = tell (StudyEvent.Cell(job.Cell, event))
            say CellEvent.Started

            // Checking takes about as long as training.
            let within event =
                match Job.ofRun job event with
                | CellEvent.Progress p -> say (CellEvent.Progress { p with Share = 0.5 * p.Share })
                | other -> say other

            let clock = Diagnostics.Stopwatch.StartNew()

            Trace.run job.Stream request.Device job.Seed within job.Plan
            |> Result.map (fun trace ->
                use trace = trace
                let findings, points, places = ofTrace trace
                let map = if index = 0 then Points.map trace else []
                let found = findings, points @ map, stability trace places, moved trace places
                say (CellEvent.Ended(CellEnd.Finished(clock.Elapsed.TotalSeconds, false)))
                found)

        let folder sofar (index, job) =
            sofar |> Result.bind (fun sofar -> one index job |> Result.map (fun next -> sofar @ [ next ]))

        Seq.fold folder (Ok []) (Seq.indexed jobs)
        |> Result.map (fun runs ->
            let closed, unchecked = closedForm request

            { Findings = (runs |> List.collect (fun (findings, _, _, _) -> findings)) @ closed
              Points = runs |> List.collect (fun (_, points, _, _) -> points)
              Remarks =
                [ yield! runs |> List.collect (fun (_, _, words, _) -> words)
                  yield! unchecked
                  runs |> List.collect (fun (_, _, _, moved) -> moved) |> tightness ] })
