using Microsoft.FSharp.Core;
using TorchSharp;

namespace Cmcl.CSharp;

/// <summary>
/// Trained heads, one weight (d × d_m) a modality, and what is known of where they come from. Disposing frees the weights.
/// </summary>
public sealed class Heads : IDisposable
{
    internal Heads(SavedHeads value)
    {
        Value = value;
        Weights = value.Heads.ToDictionary(head => head.Key.Name, head => head.Value);
    }

    /// <summary>The same as the F# library has it.</summary>
    public SavedHeads Value { get; }

    /// <summary>
    /// The weight of every modality. The last column is a bias where <see cref="About"/> has <c>yes</c> for <c>bias</c>.
    /// </summary>
    public IReadOnlyDictionary<string, torch.Tensor> Weights { get; }

    /// <summary>
    /// Texts such as <c>method</c>, <c>seed</c>, <c>step</c>, <c>stream</c>; empty for heads read from a folder of arrays.
    /// </summary>
    public IReadOnlyDictionary<string, string> About => Value.About;

    /// <summary>Heads from a <c>.safetensors</c> file, or from a folder with one <c>.npy</c> file for each modality.</summary>
    /// <exception cref="CmclException">They cannot be read, or are no heads.</exception>
    public static Heads Read(string path)
    {
        Libtorch.Ready();
        return new(SavedHeadsModule.read(path).OrFaults());
    }

    /// <summary>
    /// The heads that <c>cmcl run --save-weights</c> left in a results folder, after its last step unless another is named.
    /// </summary>
    /// <exception cref="CmclException">The run has none, or not of this method, seed or step.</exception>
    public static Heads OfRun(string results, string method, int seed, int? step = null)
    {
        Libtorch.Ready();
        return new(RunHeads.read(results, method, seed, step.ToOption()).OrFaults());
    }

    /// <summary>
    /// Writes them as one file if the path ends in <c>.safetensors</c>, else as a folder with an <c>.npy</c> file for each
    /// modality.
    /// </summary>
    /// <exception cref="CmclException">The place cannot be written to.</exception>
    public void Save(string path) => SavedHeadsModule.write(path, Value).OrFaults();

    /// <summary>
    /// Features (n × d_m) through the head of their modality: Y = X Wᵀ (n × d), at unit length with <see cref="Scoring.Cosine"/>.
    /// </summary>
    /// <exception cref="CmclException">There is no such head, its d_m is another, or a value is not finite.</exception>
    public torch.Tensor Apply(string modality, torch.Tensor features, Scoring scoring = Scoring.Raw)
    {
        var what = $"features of modality '{modality}'";
        Tensors.requireMatrix(what, -1, -1, features);
        using var scope = torch.NewDisposeScope();
        var head = Projected.head(Value, ModalityModule.named(modality), features.shape[1]).OrFaults();
        return scope.MoveToOuter(torch.cat([.. Projected.blocks(scoring.ToUnion(), what, head, features)]));
    }

    /// <summary>The same from and to an array.</summary>
    /// <exception cref="CmclException">As above.</exception>
    public float[,] Apply(string modality, float[,] features, Scoring scoring = Scoring.Raw)
    {
        using var scope = torch.NewDisposeScope();
        return Features.ToArray(Apply(modality, Features.Of(features), scoring));
    }

    /// <summary>Frees the weights.</summary>
    public void Dispose()
    {
        foreach (var weight in Weights.Values)
        {
            weight.Dispose();
        }
    }
}

/// <summary>The best rows of one matrix for each row of another.</summary>
public static class Nearest
{
    /// <summary>
    /// For each row of <paramref name="a"/> in order the <paramref name="k"/> rows of <paramref name="b"/> with the highest
    /// scores, best first. Computed tile by tile as the sequence is read.
    /// </summary>
    /// <exception cref="CmclException">The matrices do not fit, k is out of range, or a value is not finite.</exception>
    public static IEnumerable<IReadOnlyList<Neighbour>> Search(
        torch.Tensor a, torch.Tensor b, int k = 10, Scoring scoring = Scoring.Raw) =>
        Cmcl.Nearest.search(scoring.ToUnion(), k, a, b);

    internal static Cmcl.Scoring ToUnion(this Scoring scoring) =>
        scoring == Scoring.Cosine ? Cmcl.Scoring.Cosine : Cmcl.Scoring.Raw;
}
