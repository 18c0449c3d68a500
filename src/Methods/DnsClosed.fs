namespace Cmcl

open TorchSharp

/// DNS in one solve: each step's pair is learned by the second cumulant of InfoNCE, from moments alone, under a price of what it does to old scores. There is no
/// rate, no epoch, no seed and no old row (theory.md, section 11).
[<RequireQualifiedAccess>]
module DnsClosed =
    type Options =
        {
            /// Relative change of every old step's scores that a step may make.
            Budget: float
            /// The same over the whole stream, in the place of that for each step.
            TotalBudget: float option
            /// κ, in the place of a budget.
            Price: float option
            Damping: float
            Rounds: int
        }

    let defaults: Options =
        { Budget = 0.1
          TotalBudget = None
          Price = None
          Damping = 5.0
          Rounds = 2 }

    let price: Opt<Options, float option> =
        Opt.make
            "price"
            "κ: what a relative change of old scores by 1 costs, in nats, in the place of a budget"
            Codec.positiveOrOff
            _.Price
            (fun v o -> { o with Price = v })

    let totalBudget: Opt<Options, float option> =
        Shared.totalBudget _.TotalBudget (fun v o -> { o with TotalBudget = v }) |> Opt.onlyWith price [ None ]

    let budget: Opt<Options, float> =
        Shared.budget _.Budget (fun v o -> { o with Budget = v })
        |> Opt.tried [ "0.03"; "0.1"; "0.2"; "0.4" ]
        |> Opt.onlyWith price [ None ]
        |> Opt.onlyWith totalBudget [ None ]

    let damping: Opt<Options, float> =
        Opt.make
            "damping"
            "added to the new pair's moments in shares of their mean diagonals: how much it takes to move a head"
            Codec.positive
            _.Damping
            (fun v o -> { o with Damping = v })
        |> Opt.tried [ "1"; "2"; "5"; "10" ]

    let rounds: Opt<Options, int> =
        Opt.make "rounds" "how often both heads are solved, each in turn" (Codec.whole 1) _.Rounds (fun v o ->
            { o with Rounds = v })

    /// A moment with a share of its mean diagonal added.
    let private raised (share: float) (c: torch.Tensor) : torch.Tensor =
        let d = c.shape[0]
        let identity = torch.eye (d, dtype = torch.float64, device = c.device)
        c .+ identity * (share / float d * max (Tensors.toFloat (c.trace ())) System.Double.Epsilon).AsScalar()

    /// What keeps the pencils of old moments definite, a share of their mean diagonals.
    let private floor = 0.01

    /// τ at which the heads as they are, times any number, have the least loss: what is learned turns scores, and does not scale them. Where the heads
    /// align the pair the wrong way, that at which scores vary by 1.
    let temperature (wa: torch.Tensor) (wb: torch.Tensor) (p: PairMoments) : float =
        use scope = torch.NewDisposeScope()
        let square = PairMoments.spread 1.0 wa wb p
        let matched = Tensors.toFloat ((wa.mm p.Cross * wb).sum())

        if matched > 0.0 && square > 0.0 then square / matched
        elif square > 0.0 then sqrt square
        else 1.0

    /// Of a head that moves: C₁ and C₀ as a pencil, and H₀, such that tr(H₀ D C₀ Dᵀ) is the square of a relative change of old scores. Without old
    /// steps there is nothing to pay for.
    type private Side = { Inputs: Pencil; Outputs: torch.Tensor; Paid: bool }

    let private side (o: Options) (memory: Memory) (heads: Heads) (m: Modality) (inputs: torch.Tensor) : Side =
        let w = heads[m]
        let unit (d: int64) = torch.eye (d, dtype = torch.float64, device = w.device)
        let inputs = raised o.Damping inputs

        match History.inputs m memory, History.partnerOutputs PartnerOutputs.Current m heads memory with
        | Some old, Some partners ->
            let size = Tensors.toFloat ((w.mm(old.Matrix).mm(w.t ()) * partners.Matrix).sum())
            let outputs = if size > 0.0 then partners.Matrix * (1.0 / size).AsScalar() else partners.Matrix

            { Inputs = TwoSided.pencil inputs (raised floor old.Matrix)
              Outputs = raised floor outputs
              Paid = true }
        | _ ->
            { Inputs = TwoSided.pencil inputs (unit inputs.shape[0])
              Outputs = unit w.shape[0]
              Paid = false }

    /// Both heads of the pair (float64) for every price κ, from the heads before: each in turn, the other one as it is by then.
    let private solver (o: Options) (memory: Memory) (before: Heads) (pair: Pair) (p: PairMoments) : float -> Heads =
        let tau = temperature before[pair.A] before[pair.B] p
        let sides = Map [ pair.A, side o memory before pair.A p.A; pair.B, side o memory before pair.B p.B ]

        fun kappa ->
            let solve (heads: Heads) (m: Modality) : Heads =
                let partner = Pair.partner m pair
                let now = Map.add m before[m] heads
                let gradients = PairMoments.gradients MomentLoss.Cumulant tau now[pair.A] now[pair.B] p
                let gradient, others = if m = pair.A then gradients.A, p.B else gradients.B, p.A
                let outputs = now[partner].mm(others).mm(now[partner].t()) * (1.0 / (tau * tau)).AsScalar()
                let left = TwoSided.pencil (raised o.Damping outputs) sides[m].Outputs

                let change =
                    TwoSided.make left sides[m].Inputs (gradient.neg ()) |> TwoSided.solve (if sides[m].Paid then kappa else 0.0)

                Map.add m (before[m] .+ change) heads

            Tensors.scopedWith (fun (h: Heads) -> [ h[pair.A]; h[pair.B] ]) (fun () ->
                let turns = List.replicate o.Rounds [ pair.A; pair.B ] |> List.concat
                List.fold solve before turns)

    /// The heads at the least price that keeps within, to a fifth of it, found by bisection; those before where no price does.
    let private cheapest (before: Heads) (within: Heads -> bool) (at: float -> Heads) : Heads =
        let attempt kappa =
            let found = at kappa

            if within found then
                Some found
            else
                for w in found.Values do
                    w.Dispose()

                None

        let rec between low high best =
            if high / low <= 1.2 then
                best
            else
                let middle = sqrt (low * high)

                match attempt middle with
                | Some found -> between low middle found
                | None -> between middle high best

        let rec down kappa best =
            let lower = if kappa < 1e-2 then 0.0 else kappa / 10.0

            match attempt lower with
            | Some found when lower = 0.0 -> found
            | Some found -> down lower found
            | None when lower = 0.0 -> best
            | None -> between lower kappa best

        let rec up kappa =
            match attempt kappa with
            | Some found -> between (kappa / 10.0) kappa found
            | None when kappa > 1e12 -> before
            | None -> up (kappa * 10.0)

        match attempt 100.0 with
        | Some found -> down 100.0 found
        | None -> up 1000.0

    /// What a step of this pair may move the scores of each old step with one of its heads by, in shares of their size.
    let private allowances (o: Options) (context: Context) (pair: Pair) (heads: Heads) : (OldStep * float) list =
        let moves m = List.contains m (Pair.members pair)
        let old = context.Old |> List.filter (fun s -> Pair.members s.Pair |> List.exists moves)

        match o.TotalBudget with
        | Some total -> Budget.allowances total context.Remaining heads old
        | None -> [ for s in old -> s, o.Budget ]

    let private solve
        (o: Options)
        (context: Context)
        (memory: Memory)
        (heads: Heads)
        (tasks: Task list)
        : Result<Solution, Fault list> =
        let step (heads: Heads, memory: Memory) (task: Task) =
            let pair = task.Pair
            let p = PairMoments.ofSums MomentLoss.Cumulant pair (ClosedForm.moments task) (fun m -> Task.mean m task)
            let before = Training.select (Pair.members pair) heads |> Heads.map (fun w -> w.``to`` torch.float64)
            let wide = heads |> Heads.map (fun w -> w.``to`` torch.float64)
            let narrowed (found: Heads) = found |> Map.map (fun m w -> w.``to``(heads[m].dtype).clone())
            let at = solver o memory wide pair p >> Training.select (Pair.members pair) >> narrowed

            let found =
                match o.Price, allowances o context pair heads with
                | Some kappa, _ -> at kappa
                | None, [] -> at 0.0
                | None, allowances ->
                    let within (found: Heads) =
                        let after = Heads.replace found heads

                        allowances
                        |> List.forall (fun (s, allowed) -> (OldStep.certificate heads after s).Bound <= allowed * s.Size)

                    cheapest (narrowed before) within at

            let after = Heads.replace found heads
            let tau = temperature before[pair.A] before[pair.B] p
            let wideAfter m = after[m].``to`` torch.float64
            let spread = PairMoments.spread tau (wideAfter pair.A) (wideAfter pair.B) p

            let kept =
                RunningSum.clear memory
                |> RunningSum.add "spread" (torch.tensor (spread, dtype = torch.float64))
                |> History.add PartnerOutputs.Current Centring.Uncentred after [ task ]

            after, kept

        Tensors.scopedWith (fun (s: Solution) -> Seq.append s.Heads.Values s.Memory.Values) (fun () ->
            let after, kept = List.fold step (heads, memory) tasks

            { Heads = after; Memory = kept; Remarks = [] })
        |> Ok

    let private diagnostics (memory: Memory) : (string * float) list =
        match RunningSum.sum "spread" memory with
        | Some spread -> [ "score_spread", spread ]
        | None -> []

    /// DNS in one solve. Kept: the moments that `dns` keeps. It tells `score_spread`, tr(M Σ_b Mᵀ C_a)/τ² of the new pair after the step (`PairMoments.spread`).
    let dnsClosed: Spec<Options> =
        let make o =
            { Method.solving "dns-closed" "DNS in one solve: a price on the change of old scores, or a budget for it" (solve o) with
                Role = Role.Subject
                Promise = if o.Price.IsSome then Promise.Nothing else Promise.Scores
                Diagnostics = diagnostics }

        Spec.make defaults [ Opt.any budget; Opt.any totalBudget; Opt.any price; Opt.any damping; Opt.any rounds ] make
