namespace Cmcl

open TorchSharp

/// What is to be timed: every combination of these.
type BenchRequest =
    {
        Forms: Form list
        Widths: int64 list
        Batches: int64 list
        /// Protected directions as shares of d; the first is the one at which forms are compared that have no rank.
        Shares: float list
        ThreadCounts: int list
        Dtypes: Dtype list
        Device: torch.Device
        Rounds: int
        /// Seconds that the rounds of one contest may take.
        Limit: float
        /// Rows of the whole steps; none for iterations only.
        StepRows: int64 list
        StepRounds: int
    }

/// What has been timed.
type Benchmark = { Iterations: Iteration list; Steps: WholeStep list }

/// What a benchmark tells while it goes on.
[<RequireQualifiedAccess>]
type BenchEvent =
    /// Forms are being set up, or a contest begins: what, and the share of all contests that are over.
    | Began of what: string * share: float
    /// A contest of iterations is over.
    | Iterated of Iteration list
    /// A contest of whole steps is over.
    | Stepped of WholeStep list

[<RequireQualifiedAccess>]
module Benchmark =
    /// k for a share of d: at least one direction.
    let rank (share: float) (width: int64) : int64 = max 1L (int64 (round (share * float width)))

    /// The width that whole steps are timed at: 1024 if it is among those asked for, otherwise the largest.
    let stepWidth (r: BenchRequest) : int64 = if List.contains 1024L r.Widths then 1024L else List.max r.Widths

    let private contests (r: BenchRequest) : int =
        r.Dtypes.Length * r.Widths.Length * r.Shares.Length * r.Batches.Length * r.ThreadCounts.Length
        + r.StepRows.Length * r.ThreadCounts.Length

    let private plural (n: int) = if n = 1 then "1 thread" else $"{n} threads"

    /// The forms that are timed at a rank: all at the first, at the others those that depend on it and what they are compared with.
    let entrants (r: BenchRequest) (share: float) : Form list =
        r.Forms |> List.filter (fun f -> share = r.Shares.Head || f.Ranked || f.Name = "none" || f.Name = "published")

    /// Times everything. Threads are those of libtorch, which are as before when it is over.
    let run (tell: BenchEvent -> unit) (r: BenchRequest) : Benchmark =
        let threads = torch.get_num_threads ()
        let total = float (contests r)
        let mutable over = 0.0

        let began what = tell (BenchEvent.Began(what, over / total))

        let finished event =
            over <- over + 1.0
            tell event

        let onThreads n act =
            torch.set_num_threads n

            try
                act ()
            finally
                torch.set_num_threads threads

        let ceilings =
            Map
                [ for dtype in r.Dtypes do
                      for n in r.ThreadCounts do
                          began $"{dtype}, {plural n}: ceilings"
                          (dtype, n), onThreads n (fun () -> Ceilings.measure r.Device dtype) ]

        let iterations =
            [ for dtype in r.Dtypes do
                  for width in r.Widths do
                      use scope = torch.NewDisposeScope()
                      let rows = max 1024L (2L * List.max r.Batches)
                      let w = Workload.make r.Device dtype width (2L * width) rows

                      let extent share pairs =
                          { Width = width
                            Pairs = pairs
                            Rank = rank share width
                            Dtype = dtype }

                      let begin' share (form: Form) = Workload.session form (extent share r.Batches.Head) w
                      began $"{dtype}, d = {width}: setting up"

                      let lasting =
                          r.Forms
                          |> List.filter (fun f -> not f.Ranked)
                          |> List.map (fun f -> f.Name, begin' r.Shares.Head f)
                          |> Map

                      for share in r.Shares |> List.distinctBy (fun share -> rank share width) do
                          use scope = torch.NewDisposeScope()

                          let sessions =
                              [ for form in entrants r share ->
                                    form, Map.tryFind form.Name lasting |> Option.defaultWith (fun () -> begin' share form) ]

                          for pairs in r.Batches do
                              for n in r.ThreadCounts do
                                  began $"{dtype}, d = {width}, B = {pairs}, rank {rank share width}, {plural n}"

                                  let entries =
                                      [ for form, session in sessions ->
                                            form,
                                            extent share pairs,
                                            (Workload.contextOf (extent share pairs) 1 w).Settings,
                                            session ]

                                  let found =
                                      onThreads n (fun () ->
                                          Iterations.contest r.Device r.Rounds r.Limit ceilings[(dtype, n)] entries)

                                  finished (BenchEvent.Iterated found)
                                  yield! found ]

        let steps =
            [ for rows in r.StepRows do
                  for n in r.ThreadCounts do
                      let extent =
                          { Width = stepWidth r
                            Pairs = WholeSteps.pairs
                            Rank = rank r.Shares.Head (stepWidth r)
                            Dtype = r.Dtypes.Head }

                      began $"a step of {rows} rows, d = {extent.Width}, {plural n}"
                      let forms = r.Forms |> List.filter (fun f -> List.contains f.Name WholeSteps.forms)
                      let found = onThreads n (fun () -> WholeSteps.contest r.Device r.StepRounds extent rows forms)
                      finished (BenchEvent.Stepped found)
                      yield! found ]

        { Iterations = iterations; Steps = steps }
