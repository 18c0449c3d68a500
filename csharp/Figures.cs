namespace Cmcl.CSharp;

/// <summary>One figure of a run, a line of <c>results.csv</c>.</summary>
/// <param name="Method">The method's label, such as <c>dns</c> or <c>vanilla[lr=1e-3]</c>.</param>
/// <param name="Seed">The seed.</param>
/// <param name="Order">The order of the steps; 0 is the stream's own.</param>
/// <param name="Step">After which step, 0 being before training; none for a figure after the last step over all tasks.</param>
/// <param name="Task">Whose data: the number of the step that trains it; none for a figure over all tasks.</param>
/// <param name="Metric">Such as <c>r10</c>, <c>acc</c>, <c>deviation_rel</c>.</param>
/// <param name="Value">Its value; rates are fractions.</param>
public sealed record Figure(string Method, int Seed, int Order, int? Step, int? Task, string Metric, double Value);

/// <summary>The mean training loss of an epoch.</summary>
/// <param name="Method">The method's label.</param>
/// <param name="Seed">The seed.</param>
/// <param name="Step">The step, from 1.</param>
/// <param name="Epoch">The epoch, from 1.</param>
/// <param name="Value">Mean loss over its batches, in nats.</param>
public sealed record EpochLoss(string Method, int Seed, int Step, int Epoch, double Value);

/// <summary>What ended early.</summary>
/// <param name="Method">The method's label.</param>
/// <param name="Seed">The seed.</param>
/// <param name="Reason">Why.</param>
public sealed record Failure(string Method, int Seed, string Reason);

/// <summary>A figure over seeds.</summary>
/// <param name="Mean">The mean.</param>
/// <param name="Sd">The sample standard deviation; null for a single seed.</param>
/// <param name="Count">How many seeds.</param>
public sealed record Spread(double Mean, double? Sd, int Count);
