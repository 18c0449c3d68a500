namespace Cmcl.CSharp;

/// <summary>
/// Every method, with its options as named arguments; what is left out comes from the stream's preset and from defaults.
/// </summary>
public static class Methods
{
    /// <summary>
    /// Dual-sided null space with all its options; in the eigenbasis of old data unless <paramref name="place"/> says otherwise.
    /// </summary>
    /// <param name="place">Project the gradient, the update, or train in the eigenbasis.</param>
    /// <param name="sides">Protect scores, or all outputs on old inputs.</param>
    /// <param name="protect">Which entries of a change are protected.</param>
    /// <param name="exact">Protect one side of every old pair fully, so that no second-order change is left.</param>
    /// <param name="partner">The weights that old partner outputs are taken under.</param>
    /// <param name="moments">Second moments, or, as an ablation, without the mean, which is then not protected.</param>
    /// <param name="freeBasis">The basis of the output directions that nothing protects.</param>
    /// <param name="threshold">Cut of the input spectrum, with <see cref="Protect.Block"/>.</param>
    /// <param name="partnerThreshold">Cut of the partner-output spectrum, with <see cref="Protect.Block"/>.</param>
    /// <param name="tau">Scale of <see cref="Protect.Product"/> and <see cref="Protect.Soft"/>, in shares of the traces.</param>
    /// <param name="budget">Relative change of old scores that <see cref="Protect.Trust"/> allows a step.</param>
    /// <param name="totalBudget">The same over the whole stream; <see cref="double.PositiveInfinity"/> for none.</param>
    /// <exception cref="CmclException">An option does not take its value.</exception>
    public static Configuration Dns(
        Place? place = null,
        Sides? sides = null,
        Protect? protect = null,
        bool? exact = null,
        Partner? partner = null,
        Moments? moments = null,
        FreeBasis? freeBasis = null,
        Cut? threshold = null,
        Cut? partnerThreshold = null,
        double? tau = null,
        double? budget = null,
        double? totalBudget = null) =>
        Named("dns")
            .Set("place", place)
            .Set("sides", sides)
            .Set("protect", protect)
            .Set("exact", exact)
            .Set("partner", partner)
            .Set("moments", moments)
            .Set("free-basis", freeBasis)
            .Set("threshold", threshold?.ToString())
            .Set("partner-threshold", partnerThreshold?.ToString())
            .Set("tau", tau)
            .Set("budget", budget)
            .SetLimit("total-budget", totalBudget);

    /// <summary>DNS that damps each entry by what it does to old scores, with the stream's settings for that.</summary>
    /// <param name="sides">Protect scores, or all outputs on old inputs.</param>
    /// <param name="partner">The weights that old partner outputs are taken under.</param>
    /// <param name="moments">Second moments, or, as an ablation, without the mean, which is then not protected.</param>
    /// <param name="tau">Scale of the damping, in shares of the traces.</param>
    /// <exception cref="CmclException">An option does not take its value.</exception>
    public static Configuration DnsSoft(
        Sides? sides = null, Partner? partner = null, Moments? moments = null, double? tau = null) =>
        Named("dns-soft").Set("sides", sides).Set("partner", partner).Set("moments", moments).Set("tau", tau);

    /// <summary>DNS that keeps old scores within a budget, with the stream's settings for that.</summary>
    /// <param name="sides">Protect scores, or all outputs on old inputs.</param>
    /// <param name="partner">The weights that old partner outputs are taken under.</param>
    /// <param name="budget">Relative change of old scores that is allowed a step.</param>
    /// <param name="totalBudget">The same over the whole stream; <see cref="double.PositiveInfinity"/> for none.</param>
    /// <exception cref="CmclException">An option does not take its value.</exception>
    public static Configuration DnsTrust(
        Sides? sides = null, Partner? partner = null, double? budget = null, double? totalBudget = null) =>
        Named("dns-trust")
            .Set("sides", sides)
            .Set("partner", partner)
            .Set("budget", budget)
            .SetLimit("total-budget", totalBudget);

    /// <summary>DNS in one solve, under a budget for the change of old scores or a price on it. Nothing is trained.</summary>
    /// <param name="budget">Relative change of old scores that is allowed a step.</param>
    /// <param name="totalBudget">The same over the whole stream; <see cref="double.PositiveInfinity"/> for none.</param>
    /// <param name="price">What a relative change of old scores by 1 costs, in the place of a budget;
    /// <see cref="double.PositiveInfinity"/> for a budget.</param>
    /// <param name="damping">Added to the new pair's moments, in shares of their mean diagonals; above 0.</param>
    /// <param name="rounds">How often both heads are solved, each in turn; 1 or more.</param>
    /// <exception cref="CmclException">An option does not take its value.</exception>
    public static Configuration DnsClosed(
        double? budget = null, double? totalBudget = null, double? price = null, double? damping = null, int? rounds = null) =>
        Named("dns-closed")
            .Set("budget", budget)
            .SetLimit("total-budget", totalBudget)
            .SetLimit("price", price)
            .Set("damping", damping)
            .Set("rounds", rounds);

    /// <summary>The eigenbasis without a mask: tells what the basis does from what the mask does.</summary>
    /// <param name="partner">The weights that old partner outputs are taken under.</param>
    /// <param name="moments">Second moments, or, as an ablation, without the mean.</param>
    /// <exception cref="CmclException">An option does not take its value.</exception>
    public static Configuration EigenbasisOnly(Partner? partner = null, Moments? moments = null) =>
        Named("eigenbasis-only").Set("partner", partner).Set("moments", moments);

    /// <summary>One-sided null space: the update is kept out of the span of old inputs (Adam-NSCL).</summary>
    /// <param name="threshold">Cut of the input spectrum.</param>
    public static Configuration Nsp(Cut? threshold = null) => Named("nsp").Set("threshold", threshold?.ToString());

    /// <summary>What the published code does.</summary>
    /// <param name="threshold">Cut of the input spectrum.</param>
    public static Configuration Reference(Cut? threshold = null) => Named("reference").Set("threshold", threshold?.ToString());

    /// <summary>Replay without rows: a loss of old steps from their moments, beside InfoNCE.</summary>
    /// <param name="lambda">Strength of the loss of old rows; at 1 they count as much as new ones.</param>
    /// <param name="loss">Which loss.</param>
    /// <exception cref="CmclException">An option does not take its value.</exception>
    public static Configuration MomentReplay(double? lambda = null, MomentLoss? loss = null) =>
        Named("moment-replay").Set("lambda", lambda).Set("loss", loss);

    /// <summary>Heads from moments in one solve: multiset canonical correlations of all that was seen. Nothing is trained.</summary>
    /// <param name="ridge">γ, added to each modality's moment in shares of its mean diagonal; 0 or more.</param>
    /// <param name="exponent">A direction counts with its correlation to this power; 0 or more.</param>
    /// <param name="rank">How many directions are kept, 1 or more; as many as the heads have rows unless given.</param>
    /// <param name="prior">How much it counts that encoders are aligned already; 0 or more.</param>
    /// <param name="unseen">What stands for pairs that no step has.</param>
    /// <param name="weights">What counts the same: every step, or every row.</param>
    /// <exception cref="CmclException">An option does not take its value.</exception>
    public static Configuration Cca(
        double? ridge = null,
        double? exponent = null,
        int? rank = null,
        double? prior = null,
        UnseenPairs? unseen = null,
        Weights? weights = null) =>
        Named("cca")
            .Set("ridge", ridge)
            .Set("exponent", exponent)
            .Set("rank", rank)
            .Set("prior", prior)
            .Set("unseen", unseen)
            .Set("weights", weights);

    /// <summary>Heads after each step merged from those that another method trains and those before.</summary>
    /// <param name="host">The method whose heads are merged, which trains step after step; its options by <see cref="Configuration.With"/>.</param>
    /// <param name="rule">How heads become one.</param>
    /// <param name="share">How much of what a step changed is kept, with <see cref="MergeRule.Wise"/> and <see cref="MergeRule.Tasks"/>.</param>
    /// <param name="emaDecay">What an update leaves of the average, with <see cref="MergeRule.Ema"/>; 0 or more and below 1.</param>
    /// <param name="ridge">γ, added to each moment in shares of its mean diagonal, with <see cref="MergeRule.Dual"/> and
    /// <see cref="MergeRule.Regmean"/>.</param>
    /// <exception cref="CmclException">An option does not take its value.</exception>
    public static Configuration Merge(
        string? host = null,
        MergeRule? rule = null,
        double? share = null,
        double? emaDecay = null,
        double? ridge = null) =>
        Named("merge")
            .Set("host", host)
            .Set("rule", rule)
            .Set("share", share)
            .Set("ema-decay", emaDecay)
            .Set("ridge", ridge);

    /// <summary>Another method that begins every step at the closed form's heads (<see cref="Cca"/>).</summary>
    /// <param name="host">The method that trains on; its options by <see cref="Configuration.With"/>.</param>
    /// <param name="ridge">γ, added to each modality's moment in shares of its mean diagonal; 0 or more.</param>
    /// <param name="exponent">A direction counts with its correlation to this power; 0 or more.</param>
    /// <param name="rank">How many directions are kept, 1 or more; as many as the heads have rows unless given.</param>
    /// <param name="prior">How much it counts that encoders are aligned already; 0 or more.</param>
    /// <param name="unseen">What stands for pairs that no step has.</param>
    /// <param name="weights">What counts the same: every step, or every row.</param>
    /// <exception cref="CmclException">An option does not take its value.</exception>
    public static Configuration Polish(
        string? host = null,
        double? ridge = null,
        double? exponent = null,
        int? rank = null,
        double? prior = null,
        UnseenPairs? unseen = null,
        Weights? weights = null) =>
        Named("polish")
            .Set("host", host)
            .Set("ridge", ridge)
            .Set("exponent", exponent)
            .Set("rank", rank)
            .Set("prior", prior)
            .Set("unseen", unseen)
            .Set("weights", weights);

    /// <summary>Plain training in the eigenbasis of all data so far: what the basis does to AdamW.</summary>
    /// <param name="host">vanilla, joint or individual.</param>
    /// <param name="rotate">What is rotated.</param>
    /// <exception cref="CmclException">An option does not take its value.</exception>
    public static Configuration Eigen(string? host = null, Rotated? rotate = null) =>
        Named("eigen").Set("host", host).Set("rotate", rotate);

    /// <summary>Fine-tuning, step after step, with nothing against forgetting.</summary>
    public static Configuration Vanilla() => Named("vanilla");

    /// <summary>The encoders as they came: no training.</summary>
    public static Configuration ZeroShot() => Named("zero-shot");

    /// <summary>Starts again at every step: what each step alone can learn.</summary>
    public static Configuration Individual() => Named("individual");

    /// <summary>All steps' data at once.</summary>
    public static Configuration Joint() => Named("joint");

    /// <summary>
    /// A method as the command line writes it: <c>dns[place=update]</c>, <c>gem[margin=0.2]</c>. Every one of the registry is
    /// there.
    /// </summary>
    /// <exception cref="CmclException">There is no such method or option, or it does not take this value.</exception>
    public static Configuration Named(string text) => new(Config.named(text));

    /// <summary>A method of one's own, a value of the F# library, which need not be in its registry.</summary>
    /// <exception cref="CmclException">It has the name of one that is.</exception>
    public static Configuration Own(Method method) => new(Config.ofMethod(method));

    /// <summary>A method of one's own with options of its own, which <see cref="Configuration.With"/> sets.</summary>
    /// <exception cref="CmclException">It has the name of one of the registry.</exception>
    public static Configuration Own<TOptions>(Spec<TOptions> spec) => new(Config.ofSpec(spec));
}
