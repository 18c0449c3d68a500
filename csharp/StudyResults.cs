using System.Diagnostics.CodeAnalysis;
using System.Globalization;
using Microsoft.FSharp.Core;

namespace Cmcl.CSharp;

/// <summary>What a study found, or what a results folder holds.</summary>
public sealed class StudyResults
{
    private readonly Lazy<Measured> measured;

    internal StudyResults(StudyResult value)
    {
        Value = value;
        measured = new(() => StudyResultModule.measured(value));
        Methods = [.. value.Methods];
        Seeds = [.. value.Seeds];
        Figures =
        [
            .. from order in value.Orders.Select(other => (Number: other.Key, Rows: other.Value)).Prepend((Number: 0, value.Rows))
               from r in order.Rows
               select new Figure(r.Method, r.Seed, order.Number, Number(r.Step), Number(r.Task), r.Metric, r.Value),
        ];
        Losses = [.. value.Losses.Select(r => new EpochLoss(r.Method, r.Seed, r.Step, r.Epoch, r.Loss))];
        Failures =
        [
            .. value.Info.Failures.Select(f => new Failure(f.Item1, int.Parse(f.Item2, CultureInfo.InvariantCulture), f.Item3)),
        ];
    }

    /// <summary>The same as the F# library has it.</summary>
    public StudyResult Value { get; }

    /// <summary>The stream's name.</summary>
    public string Stream => Value.Stream;

    /// <summary>The labels of the methods, in the order of the study.</summary>
    public IReadOnlyList<string> Methods { get; }

    /// <summary>The seeds that have figures.</summary>
    public IReadOnlyList<int> Seeds { get; }

    /// <summary>Every figure after every step, and the aggregates over them.</summary>
    public IReadOnlyList<Figure> Figures { get; }

    /// <summary>The training loss of every epoch, in the stream's own order of steps.</summary>
    public IReadOnlyList<EpochLoss> Losses { get; }

    /// <summary>What ended early, and why.</summary>
    public IReadOnlyList<Failure> Failures { get; }

    /// <summary>The charts of these results.</summary>
    public StudyCharts Charts => new(Value);

    /// <summary>Reads what <see cref="Save"/>, <see cref="Study"/> or <c>cmcl run</c> left in a folder.</summary>
    /// <exception cref="CmclException">It is not there, or cannot be read.</exception>
    public static StudyResults Read(string folder) => new(Desk.Report.read(folder));

    /// <summary>Results of one stream together. Figures that stand in both are taken once.</summary>
    /// <exception cref="CmclException">They are of different streams, or there are none.</exception>
    public static StudyResults Join(params IEnumerable<StudyResults> results) =>
        new(Desk.Report.join(results.Select(r => r.Value).ToFSharpList()));

    /// <summary>
    /// A metric of the registry (<c>cmcl metrics</c>) of a method over its seeds, in the stream's own order of steps.
    /// </summary>
    /// <exception cref="CmclException">There is no such method or metric, or the method does not have it.</exception>
    public Spread Mean(string method, string metric) =>
        TryMean(method, metric, out var spread)
            ? spread
            : throw new CmclException(
                Fault.NewContradiction($"{method} has no {metric} in these results", "ask with TryMean where that may be"));

    /// <summary>
    /// The same where a method may not have the metric: methods that do not train have no deviation, for instance.
    /// </summary>
    /// <exception cref="CmclException">There is no such method or metric.</exception>
    public bool TryMean(string method, string metric, [NotNullWhen(true)] out Spread? spread)
    {
        var found = MeasuredModule.spread(Stream, Known(method), MetricModule.find(metric).OrFaults(), measured.Value)?.Value;
        spread = found is null ? null : new(found.Mean, found.Sd.ToNullable(), found.Count);
        return spread is not null;
    }

    /// <summary>A metric of a method by seed, in one order of the steps; empty where the method does not have it.</summary>
    /// <exception cref="CmclException">There is no such method or metric.</exception>
    public IReadOnlyDictionary<int, double> BySeed(string method, string metric, int order = 0) =>
        MeasuredModule.replicates(Stream, order, Known(method), MetricModule.find(metric).OrFaults(), measured.Value)
            .ToDictionary(figure => figure.Item1.Seed, figure => figure.Item2);

    /// <summary>
    /// Methods by metrics, mean ± sd over seeds, as text, Markdown or HTML; accuracy, recall and deviation if none are named.
    /// </summary>
    /// <exception cref="CmclException">There is no such metric.</exception>
    public TextTable Table(params IEnumerable<string> metrics)
    {
        var names = metrics.ToFSharpList();
        return names.IsEmpty ? Desk.Report.table(Value) : Desk.Report.tableOf(names, Value);
    }

    /// <summary>Mean differences to one method over the seeds that both have, with 95 % intervals.</summary>
    /// <exception cref="CmclException">There is no such method or metric.</exception>
    public TextTable Differences(string against, params IEnumerable<string> metrics) =>
        Desk.Report.differences(against, metrics.ToFSharpList(), Value);

    /// <summary>
    /// Writes a results folder (tidy CSV, <c>config.json</c>, <c>report.html</c>) and gives the full path of the report.
    /// </summary>
    /// <exception cref="CmclException">The place cannot be written to.</exception>
    public string Save(string folder) => Desk.Report.save(folder, Value);

    /// <summary>In a line: what was run, and what of it ended early.</summary>
    public override string ToString() => Value.Text;

    private string Known(string method) =>
        Methods.Contains(method)
            ? method
            : throw new CmclException(Fault.NewUnknown("method in these results", method, Methods.ToFSharpList()));

    private static int? Number(FSharpOption<int>? value) => value?.Value;
}
