namespace Cmcl.CSharp;

/// <summary>Where a spectrum λ₁ ≥ λ₂ ≥ … of old data is cut: the directions above the cut are protected.</summary>
public sealed record Cut
{
    private readonly string text;

    private Cut(Threshold threshold) => text = ThresholdModule.show(threshold);

    /// <summary>λ_i &gt; <paramref name="value"/>: the paper's λ_min.</summary>
    public static Cut Absolute(double value) => new(ThresholdModule.absolute(value).OrFaults());

    /// <summary>λ_i &gt; <paramref name="share"/> · λ₁.</summary>
    public static Cut Relative(double share) => new(ThresholdModule.relative(share).OrFaults());

    /// <summary>λ_i &gt; <paramref name="share"/> · Σ λ.</summary>
    public static Cut Trace(double share) => new(ThresholdModule.trace(share).OrFaults());

    /// <summary>The fewest directions that leave out at most this share of Σ λ.</summary>
    public static Cut Energy(double share) => new(ThresholdModule.energy(share).OrFaults());

    /// <summary>The first <paramref name="count"/> directions.</summary>
    public static Cut Rank(int count) => new(ThresholdModule.rank(count).OrFaults());

    /// <summary>As options write it: <c>trace:0.003</c>.</summary>
    public override string ToString() => text;
}
