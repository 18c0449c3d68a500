using Microsoft.FSharp.Core;

namespace Cmcl.CSharp;

/// <summary>
/// A method with what is set of its options; all else comes from the stream's preset and from defaults. A value: setting an
/// option gives another one. <see cref="Methods"/> makes them.
/// </summary>
public sealed class Configuration
{
    internal Configuration(Config<AnyOptions> value) => Value = value;

    /// <summary>The same as the F# library has it.</summary>
    public Config<AnyOptions> Value { get; }

    /// <summary>As results call it: <c>dns[place=update]</c>.</summary>
    public string Label => Value.Label;

    /// <summary>
    /// Whether the method takes these settings together: products of options have some that exclude each other.
    /// </summary>
    public bool IsPossible => Config.isPossible(Value);

    /// <summary>
    /// Sets an option by its name, as the command line writes it; <c>cmcl methods NAME</c> lists those of a method.
    /// </summary>
    /// <exception cref="CmclException">No option has this name, or it does not take this value.</exception>
    public Configuration With(string option, string value) => new(Config.set(option, value, Value));

    /// <summary>Sets how the method learns; what is left out stays as it is.</summary>
    /// <param name="rate">Learning rate, 0 or more.</param>
    /// <param name="epochs">Passes over a step's training rows, 1 or more.</param>
    /// <param name="batch">Pairs in a batch, 2 or more.</param>
    /// <param name="wholeSteps">True for every step as one batch, in place of <paramref name="batch"/>.</param>
    /// <param name="weightDecay">Decoupled weight decay, 0 or more; biases are exempt.</param>
    /// <param name="temperature">Temperature of InfoNCE, more than 0.</param>
    /// <param name="scores">Inner products as they are, or of unit vectors.</param>
    /// <param name="symmetric">InfoNCE both ways, as CLIP has it, or from a to b only.</param>
    /// <param name="optimiser">AdamW or plain gradient descent.</param>
    /// <param name="schedule">How the rate falls over a step.</param>
    /// <param name="clip">Largest norm of both heads' gradients together; <see cref="double.PositiveInfinity"/> does not clip.</param>
    /// <param name="shuffle">A new order of rows each epoch.</param>
    /// <param name="dtype">What weights and features are kept in.</param>
    /// <exception cref="CmclException">An option does not take its value.</exception>
    public Configuration Learn(
        double? rate = null,
        int? epochs = null,
        int? batch = null,
        bool wholeSteps = false,
        double? weightDecay = null,
        double? temperature = null,
        Scoring? scores = null,
        bool? symmetric = null,
        Optimiser? optimiser = null,
        Schedule? schedule = null,
        double? clip = null,
        bool? shuffle = null,
        Dtype? dtype = null)
    {
        if (wholeSteps && batch is not null)
        {
            throw new CmclException(Fault.NewContradiction("'batch' and 'wholeSteps' are both given", "give one of them"));
        }

        return Set("lr", rate)
            .Set("epochs", epochs)
            .Set("batch", wholeSteps ? "all" : batch is { } rows ? Words.Of(rows) : null)
            .Set("weight-decay", weightDecay)
            .Set("temperature", temperature)
            .Set("scores", scores)
            .Set("symmetric", symmetric)
            .Set("optimizer", optimiser)
            .Set("decay", schedule)
            .SetLimit("clip", clip)
            .Set("shuffle", shuffle)
            .Set("dtype", dtype);
    }

    /// <summary>
    /// Puts random columns beside the features, drawn by the run's seed and never trained: heads are then not linear in what the encoders
    /// gave. Every method that learns takes it.
    /// </summary>
    /// <param name="columns">How many, 1 to 65,536 for each modality.</param>
    /// <param name="kind">What they are.</param>
    /// <param name="scale">The offset of <see cref="LiftKind.Relu"/>, the bandwidth of <see cref="LiftKind.Cos"/>; 1 unless given.</param>
    /// <exception cref="CmclException">A number is not in its range.</exception>
    public Configuration Lift(int columns, LiftKind kind = LiftKind.Relu, double? scale = null) =>
        With("features", $"{Words.Of(kind)}:{Words.Of(columns)}" + (scale is { } b ? $":{Words.Of(b)}" : ""));

    /// <summary>The label.</summary>
    public override string ToString() => Label;

    internal Configuration Set(string option, string? value) => value is null ? this : With(option, value);

    internal Configuration Set<T>(string option, T? choice)
        where T : struct, Enum => choice is { } value ? With(option, Words.Of(value)) : this;

    internal Configuration Set(string option, bool? value) => value is { } given ? With(option, Words.Of(given)) : this;

    internal Configuration Set(string option, int? value) => value is { } given ? With(option, Words.Of(given)) : this;

    internal Configuration Set(string option, double? value) => value is { } given ? With(option, Words.Of(given)) : this;

    internal Configuration SetLimit(string option, double? value) =>
        value is { } given ? With(option, Words.OfLimit(given)) : this;

    internal static FSharpFunc<Config<AnyOptions>, Config<AnyOptions>> Change(Func<Configuration, Configuration> set) =>
        FuncConvert.FromFunc((Config<AnyOptions> config) => set(new Configuration(config)).Value);
}
