using Plotly.NET;

namespace Cmcl.CSharp;

/// <summary>
/// The charts of a study's results: means over seeds with the sample standard deviation as error bar, rates in per cent. What a
/// method does not have is left out.
/// </summary>
public sealed class StudyCharts
{
    private readonly StudyResult results;

    internal StudyCharts(StudyResult results) => this.results = results;

    /// <summary>Relative deviation of old alignment scores after every step.</summary>
    public GenericChart Deviation() => Plot.deviation(results);

    /// <summary>A metric of the registry (<c>cmcl metrics</c>), a line a method.</summary>
    public GenericChart Metric(string metric) => Plot.metric(metric, results);

    /// <summary>A rate of one task over the steps, a line a method.</summary>
    public GenericChart Forgetting(string rate, int task) => Plot.forgetting(rate, task, results);

    /// <summary>Backward transfer of a rate as it stood after every step.</summary>
    public GenericChart Backward(string rate) => Plot.backward(rate, results);

    /// <summary>A rate of every task (columns) after every step (rows) of one method.</summary>
    public GenericChart Matrix(string rate, string method) => Plot.matrix(rate, method, results);

    /// <summary>Deviation of old scores against a final rate such as <c>r10</c>, a point a method.</summary>
    public GenericChart TradeOff(string rate) => Plot.tradeOff(rate, results);

    /// <summary>Recall@10 against deviation of every method, the frontier as a line.</summary>
    public GenericChart Frontier() => Plot.frontier(results);

    /// <summary>A metric against an option that was varied, a line for each combination of what else was.</summary>
    public GenericChart Against(string option, string metric) => Plot.against(option, metric, results);

    /// <summary>Deviation against recall@10 along an option that was varied.</summary>
    public GenericChart Path(string option) => Plot.path(option, results);

    /// <summary>For one method the deviation of old scores: measured, known without the rows, and the bound on it.</summary>
    public GenericChart Certificate(string method) => Plot.certificate(method, results);

    /// <summary>Energies of the old directions of a modality that a method protected in a step.</summary>
    public GenericChart Spectrum(string method, int step, string modality) => Plot.spectrum(method, step, modality, results);

    /// <summary>Mean training loss of every epoch.</summary>
    public GenericChart Losses() => Plot.losses(results);
}
