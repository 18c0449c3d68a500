using System.Globalization;
using System.Text.RegularExpressions;

namespace Cmcl.CSharp;

/// <summary>Where DNS projects.</summary>
public enum Place
{
    /// <summary>The gradient, before the optimizer: the paper's form.</summary>
    Gradient,

    /// <summary>The optimizer's update.</summary>
    Update,

    /// <summary>Nowhere: training happens in the eigenbasis of old data, where the projection is a mask.</summary>
    Eigenbasis,
}

/// <summary>What of the old steps is protected.</summary>
public enum Sides
{
    /// <summary>Alignment scores: against old inputs and old partner outputs.</summary>
    Dual,

    /// <summary>All outputs on old inputs.</summary>
    Input,
}

/// <summary>Which entries of a change are protected.</summary>
public enum Protect
{
    /// <summary>
    /// Everything above a threshold on both sides: the paper's. Takes <c>threshold</c> and <c>partnerThreshold</c>.
    /// </summary>
    Block,

    /// <summary>Entries whose product of energies is above τ. Takes <c>tau</c>.</summary>
    Product,

    /// <summary>Each entry is damped by what it does to old scores. Takes <c>tau</c>.</summary>
    Soft,

    /// <summary>The change of old scores is kept within a budget. Takes <c>budget</c> or <c>totalBudget</c>.</summary>
    Trust,

    /// <summary>None: the eigenbasis without a mask.</summary>
    Nothing,
}

/// <summary>The weights that old partner outputs are taken under.</summary>
public enum Partner
{
    /// <summary>Those at the start of the step.</summary>
    Current,

    /// <summary>Those of the time when they were learned: the paper's.</summary>
    AtLearning,
}

/// <summary>Which moments of old data are protected.</summary>
public enum Moments
{
    /// <summary>Second moments: the paper's.</summary>
    Uncentred,

    /// <summary>Without the mean, which is then not protected: an ablation.</summary>
    Centred,
}

/// <summary>The basis of the output directions that nothing protects.</summary>
public enum FreeBasis
{
    /// <summary>Of each modality its own.</summary>
    Own,

    /// <summary>One for all modalities that move.</summary>
    Shared,
}

/// <summary>What stands for the cross moment of two modalities that no step has together.</summary>
public enum UnseenPairs
{
    /// <summary>0: nothing is known.</summary>
    Zero,

    /// <summary>What a third modality that was seen with both tells.</summary>
    Composed,
}

/// <summary>What counts the same in sums of moments.</summary>
public enum Weights
{
    /// <summary>Every step.</summary>
    Steps,

    /// <summary>Every row.</summary>
    Rows,
}

/// <summary>A loss of old steps that their moments determine.</summary>
public enum MomentLoss
{
    /// <summary>The spectral contrastive loss, exactly.</summary>
    Spectral,

    /// <summary>InfoNCE to its second cumulant.</summary>
    Cumulant,
}

/// <summary>How scores are made of outputs.</summary>
public enum Scoring
{
    /// <summary>Inner products as they are.</summary>
    Raw,

    /// <summary>Inner products of unit vectors.</summary>
    Cosine,
}

/// <summary>How heads before a step and heads after it become one.</summary>
public enum MergeRule
{
    /// <summary>Between before and after.</summary>
    Wise,

    /// <summary>The exponential moving average over the updates of the step.</summary>
    Ema,

    /// <summary>The sum of the changes of training that starts anew at every step.</summary>
    Tasks,

    /// <summary>The mean of all steps' heads by what they do to scores.</summary>
    Dual,

    /// <summary>The mean of all steps' heads by what they do to outputs.</summary>
    Regmean,
}

/// <summary>What trains in the eigenbasis of data.</summary>
public enum Rotated
{
    /// <summary>Inputs alone.</summary>
    Inputs,

    /// <summary>Inputs, and the outputs of a head by its partners' outputs.</summary>
    Both,
}

/// <summary>How gradients become updates.</summary>
public enum Optimiser
{
    /// <summary>AdamW with 0.9, 0.999, 1e-8.</summary>
    AdamW,

    /// <summary>Plain gradient descent.</summary>
    Sgd,
}

/// <summary>How the rate falls over a step.</summary>
public enum Schedule
{
    /// <summary>To 0 over the step, without warm-up.</summary>
    Linear,

    /// <summary>Half a cosine to 0.</summary>
    Cosine,

    /// <summary>Not at all.</summary>
    Constant,
}

/// <summary>What weights and features are kept in.</summary>
public enum Dtype
{
    /// <summary>32 bits.</summary>
    Float32,

    /// <summary>64 bits.</summary>
    Float64,
}

/// <summary>What the columns are that stand beside features.</summary>
public enum LiftKind
{
    /// <summary>Rectified random directions, relu(xR − b‖x‖)/√D.</summary>
    Relu,

    /// <summary>Random Fourier features of a row's direction.</summary>
    Cos,
}

/// <summary>Values as the table of options, presets and the command line write them.</summary>
internal static partial class Words
{
    /// <summary><c>Place.Eigenbasis</c> is <c>eigenbasis</c>, <c>Partner.AtLearning</c> is <c>at-learning</c>.</summary>
    public static string Of<T>(T choice)
        where T : struct, Enum => Seam().Replace(choice.ToString(), "-$0").ToLowerInvariant();

    public static string Of(bool value) => value ? "on" : "off";

    public static string Of(int value) => value.ToString(CultureInfo.InvariantCulture);

    public static string Of(double value) => value.ToString("R", CultureInfo.InvariantCulture).Replace('E', 'e');

    /// <summary>An infinite limit is none.</summary>
    public static string OfLimit(double value) => double.IsPositiveInfinity(value) ? "off" : Of(value);

    [GeneratedRegex("(?<=[a-z])[A-Z](?=[a-z])")]
    private static partial Regex Seam();
}
