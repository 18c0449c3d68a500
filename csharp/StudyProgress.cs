namespace Cmcl.CSharp;

/// <summary>A method with a seed in an order of the steps is over.</summary>
/// <param name="Over">How many of these are over.</param>
/// <param name="Cells">How many there are in all.</param>
/// <param name="Method">The method's label.</param>
/// <param name="Order">The order of the steps; 0 is the stream's own.</param>
/// <param name="Seed">The seed.</param>
/// <param name="FinishedBefore">Whether it was only read from the folder.</param>
/// <param name="Fault">Why it ended early, if it did.</param>
public sealed record StudyProgress(
    int Over, int Cells, string Method, int Order, int Seed, bool FinishedBefore, string? Fault)
{
    /// <summary>The share that is over, from 0 to 1.</summary>
    public double Share => (double)Over / Cells;
}

/// <summary>A method as a study would run it.</summary>
/// <param name="Label">As results call it.</param>
/// <param name="Settings">Every option that has an effect, with its value, as text.</param>
public sealed record PlannedMethod(string Label, IReadOnlyDictionary<string, string> Settings);
