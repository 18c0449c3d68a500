using Microsoft.FSharp.Core;
using TorchSharp;

namespace Cmcl.CSharp;

/// <summary>Methods × seeds × orders over a stream, and how they are to be run. A value: every call gives another one.</summary>
/// <example><code>
/// var found = Study.On(Streams.Load("emoji")).Method(Methods.Vanilla(), Methods.Dns(exact: true)).Seeds(0, 1, 2).Run();
/// </code></example>
public sealed class Study
{
    private readonly Cmcl.StudyBuilder value;

    private Study(Cmcl.StudyBuilder value) => this.value = value;

    /// <summary>A study on a stream, with nothing to run yet: seed 0, test rows, the CPU.</summary>
    public static Study On(Stream stream)
    {
        Libtorch.Ready();
        return new(Cmcl.Run.command("Study.Run (C#)", Cmcl.Run.quietly(Cmcl.Run.on(stream))));
    }

    /// <summary>Adds methods.</summary>
    public Study Method(params IEnumerable<Configuration> methods) =>
        methods.Aggregate(this, (study, method) => new(Cmcl.Run.method(method.Value, study.value)));

    /// <summary>Adds methods as the command line writes them: <c>vanilla,dns[exact=on]</c>.</summary>
    /// <exception cref="CmclException">There is no such method or option, or it does not take this value.</exception>
    public Study Named(string methods) => new(Cmcl.Run.named(methods, value));

    /// <summary>
    /// Sets options of every method that takes them, over the stream's preset and below what a method sets itself:
    /// <c>study.Each(m => m.Learn(epochs: 2, dtype: Dtype.Float64))</c>.
    /// </summary>
    public Study Each(Func<Configuration, Configuration> set) => new(Cmcl.Run.each(Configuration.Change(set), value));

    /// <summary>Passes over a step's training rows, for every method that trains.</summary>
    public Study Epochs(int count) => Each(method => method.Learn(epochs: count));

    /// <summary>The seeds; every method runs with each.</summary>
    /// <exception cref="CmclException">None, one below 0, or one twice.</exception>
    public Study Seeds(params IEnumerable<int> values) => new(Cmcl.Run.seeds(values.ToFSharpList(), value));

    /// <summary>Orders of the steps by number, among them 0, the stream's own.</summary>
    /// <exception cref="CmclException">No 0, one twice, or one that the stream's steps do not have.</exception>
    public Study Orders(params IEnumerable<int> values) => new(Cmcl.Run.orders(values.ToFSharpList(), value));

    /// <summary>Takes figures of validation rows: what settings are to be chosen on.</summary>
    public Study OnValidation() => new(Cmcl.Run.onValidation(value));

    /// <summary>Trains and measures on a device, such as <c>torch.CUDA</c>.</summary>
    public Study Device(torch.Device device) => new(Cmcl.Run.device(device, value));

    /// <summary>
    /// How many cells, a method with a seed in an order each, run side by side. What a cell gives does not depend on it.
    /// </summary>
    /// <exception cref="CmclException">Less than 1.</exception>
    public Study Jobs(int count) => new(Cmcl.Run.jobs(count, value));

    /// <summary>Threads of libtorch in each cell.</summary>
    /// <exception cref="CmclException">Less than 1.</exception>
    public Study Threads(int count) => new(Cmcl.Run.threads(count, value));

    /// <summary>
    /// Keeps what is finished, and what is half done every half minute and when the study is cancelled, below a folder: the same
    /// study, or a larger one, goes on from there. Methods of one's own are run again.
    /// </summary>
    public Study Into(string folder) => new(Cmcl.Run.into(folder, value));

    /// <summary>What results say that they were made by.</summary>
    public Study Command(string text) => new(Cmcl.Run.command(text, value));

    /// <summary>The methods with every setting that they would run with.</summary>
    /// <exception cref="CmclException">The study cannot run; one sentence for each reason.</exception>
    public IReadOnlyList<PlannedMethod> Plans() =>
        [.. from plan in Cmcl.Run.plans(value).OrFaults()
            select new PlannedMethod(plan.Label, PlanModule.effective(plan).ToDictionary(s => s.Item1, s => s.Item2))];

    /// <summary>
    /// Runs the study on this thread. A method that diverges is among the failures of the results, and the others go on.
    /// </summary>
    /// <param name="progress">Hears of every method with a seed that is over.</param>
    /// <param name="cancellation">Asked after every update.</param>
    /// <exception cref="CmclException">The study cannot run; one sentence for each reason.</exception>
    /// <exception cref="OperationCanceledException">Cancelled before all was over. What is kept in a folder stays there.</exception>
    public StudyResults Run(IProgress<StudyProgress>? progress = null, CancellationToken cancellation = default)
    {
        int cells = 0, over = 0, left = 0;

        void Hear(StudyEvent happened)
        {
            switch (happened)
            {
                case StudyEvent.Began began:
                    cells = began.cells;
                    break;
                case StudyEvent.Cell { @event: CellEvent.Ended { how: { IsStopped: false, IsElsewhere: false } end }, cell: var cell }:
                    var before = end is CellEnd.Finished { before: true } or CellEnd.Failed { before: true };
                    var faults = CellEndModule.faults(end);
                    var why = faults.IsEmpty ? null : faults.Head.Message;
                    progress?.Report(new(++over, cells, cell.Method, cell.Order, cell.Seed, before, why));
                    break;
                case StudyEvent.Stopped s:
                    left = s.unfinished;
                    break;
            }
        }

        var told = Cmcl.Run.tell(FuncConvert.FromAction<StudyEvent>(Hear), value);
        var found = Cmcl.Run.go(Cmcl.Run.until(FuncConvert.FromFunc(() => cancellation.IsCancellationRequested), told));

        return left == 0
            ? new(found)
            : throw new OperationCanceledException($"cancelled with {left} of the study's {cells} runs unfinished", cancellation);
    }

    /// <summary>Runs the study on a thread of its own; see <see cref="Run"/>.</summary>
    /// <param name="progress">Hears of every method with a seed that is over.</param>
    /// <param name="cancellation">Asked after every update; the task is then cancelled.</param>
    public Task<StudyResults> RunAsync(IProgress<StudyProgress>? progress = null, CancellationToken cancellation = default) =>
        System.Threading.Tasks.Task.Factory.StartNew(
            () => Run(progress, cancellation), cancellation, TaskCreationOptions.LongRunning, TaskScheduler.Default);

    /// <summary>
    /// Trains a study of one method, one seed and one order, and gives the heads after its last step. Nothing is kept in a
    /// folder.
    /// </summary>
    /// <exception cref="CmclException">The study has more, cannot run, does not train, or diverges.</exception>
    public Heads TrainHeads() => new(Cmcl.Run.heads(value));

    /// <summary>
    /// Of all its methods with all their settings the one with the best recall@10 on validation rows, mean over its seeds. Runs
    /// the study on validation rows, whatever rows it says.
    /// </summary>
    /// <exception cref="CmclException">The study cannot run, or no method has figures for every seed.</exception>
    public Configuration Winner() => new(Cmcl.Run.winner(value));

    /// <summary>The study of its <see cref="Winner"/> alone, on test rows.</summary>
    /// <exception cref="CmclException">As of <see cref="Winner"/>.</exception>
    public Study Best() => new(Cmcl.Run.best(value));

    /// <summary>What it will run, in a line.</summary>
    public override string ToString() => value.Text;
}
