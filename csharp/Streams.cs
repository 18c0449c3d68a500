using Microsoft.FSharp.Collections;
using Microsoft.FSharp.Core;
using TorchSharp;

namespace Cmcl.CSharp;

/// <summary>Streams: shipped, synthetic, from a folder, from arrays. Their tensors belong to the caller.</summary>
public static class Streams
{
    /// <summary>
    /// A stream by the name of a shipped one (<c>emoji</c>, <c>emoji-dense</c>, <c>real</c>, <c>real-bound</c>, <c>synthetic</c>) or by the path of a folder or a
    /// file.
    /// </summary>
    /// <exception cref="CmclException">There is none, or it cannot be used: a sentence for each reason.</exception>
    public static Stream Load(string name)
    {
        Libtorch.Ready();
        return Desk.Stream.load(name);
    }

    /// <summary>
    /// A stream with planted subspaces, so that the null space of old features is exact: six steps over four modalities.
    /// </summary>
    /// <param name="dimension">d, the same for every modality; 64 if left out.</param>
    /// <param name="rank">Rank of every bank; 20 if left out.</param>
    /// <param name="samples">Rows of every bank; 600 if left out.</param>
    /// <param name="classes">Classes that the rows gather around; 12 if left out.</param>
    /// <param name="noise">Size of what the two sides of a pair do not share, against what they do; 0.5 if left out.</param>
    /// <param name="seed">What it is drawn from.</param>
    /// <exception cref="CmclException">A value is outside its range.</exception>
    public static Stream Synthetic(
        long? dimension = null, long? rank = null, long? samples = null, int? classes = null, double? noise = null, int seed = 0)
    {
        Libtorch.Ready();
        var usual = Cmcl.Synthetic.defaults;

        return Cmcl.Synthetic.make(
            new SyntheticOptions(
                dimension ?? usual.Dimension,
                rank ?? usual.Rank,
                samples ?? usual.Samples,
                classes ?? usual.Classes,
                noise ?? usual.Noise),
            SeedModule.ofInt(seed));
    }

    /// <summary>A bank of features of a modality, a row an item, by the name that results and messages have for it.</summary>
    public static Bank Bank(string name, string modality, float[,] features) => Bank(name, modality, Features.Of(features));

    /// <summary>The same of a tensor (n × d; float16, float32 or float64), which stays the caller's.</summary>
    public static Bank Bank(string name, string modality, torch.Tensor features) => InMemory.bank(name, modality, features);

    /// <summary>
    /// A step of two banks that are matched row by row. Its rows are drawn by the seed: two tenths for the test, one for
    /// validation, the others to learn from.
    /// </summary>
    /// <exception cref="CmclException">The banks do not fit each other, or hold what no one can learn from.</exception>
    public static Step Step(Bank a, Bank b, int seed = 0)
    {
        Libtorch.Ready();
        var (train, validation, test) = InMemory.split(SeedModule.ofInt(seed), a.Features.shape[0]);
        return InMemory.step(a, b, train, validation, test).OrFaults();
    }

    /// <summary>The same with its rows named by number, from 0.</summary>
    /// <exception cref="CmclException">As above; or rows that are not there, named twice, or in two of the three.</exception>
    public static Step Step(
        Bank a, Bank b, IEnumerable<long> train, IEnumerable<long> validation, IEnumerable<long> test)
    {
        Libtorch.Ready();
        return InMemory.step(a, b, train.ToArray(), validation.ToArray(), test.ToArray()).OrFaults();
    }

    /// <summary>
    /// A step of two banks whose rows may have several matches, such as five captions a picture: pair i is row ofA[i] of a with
    /// row ofB[i] of b. Items are drawn by the seed as rows are in <c>Step</c>, each with all its pairs.
    /// </summary>
    /// <exception cref="CmclException">As above; or a pair twice, or rows that are not there.</exception>
    public static Step Pairs(Bank a, Bank b, IEnumerable<long> ofA, IEnumerable<long> ofB, int seed = 0)
    {
        Libtorch.Ready();
        long[] rowsOfA = ofA.ToArray(), rowsOfB = ofB.ToArray();
        var (train, validation, test) = InMemory.splitPairs(SeedModule.ofInt(seed), rowsOfA, rowsOfB);
        return InMemory.pairs(a, b, rowsOfA, rowsOfB, train, validation, test).OrFaults();
    }

    /// <summary>
    /// A stream of such steps, in their order. It has no preset: options are the library's defaults where none are given.
    /// </summary>
    /// <exception cref="CmclException">No step, one twice, a modality with two d, or two banks of one name.</exception>
    public static Stream FromArrays(string name, params IEnumerable<Step> steps) =>
        InMemory.stream(name, steps.Select(FSharpResult<Step, FSharpList<Fault>>.NewOk).ToFSharpList()).OrFaults();

    /// <summary>
    /// Any stream, to begin with these heads instead of identities: one for every modality of its banks, d × d_m, of any d, the same
    /// for all. They are a part of its digest, and must not be disposed of before the stream is done with.
    /// </summary>
    /// <exception cref="CmclException">Heads with a bias or for other features, a modality without one, or one too many.</exception>
    public static Stream WithHeads(Stream stream, Heads heads) => InMemory.withHeads(heads.Value, stream).OrFaults();

    /// <summary>The same of weights by modality, which stay the caller's.</summary>
    /// <exception cref="CmclException">As above.</exception>
    public static Stream WithHeads(Stream stream, IReadOnlyDictionary<string, torch.Tensor> weights)
    {
        var heads = weights.Select(head => Tuple.Create(ModalityModule.named(head.Key), head.Value));
        return InMemory.withHeads(new(MapModule.OfSeq(heads), MapModule.Empty<string, string>()), stream).OrFaults();
    }
}
