// What fine-tuning forgets and DNS keeps, from C#:
//
//     dotnet run -c Release --project samples/CSharp             # eleven steps over emoji, three seeds
//     dotnet run -c Release --project samples/CSharp -- --small  # six synthetic steps, one seed, one epoch
//
// Results go to output/csharp, or to the folder that --out names. A study that was stopped goes on from there.
using Cmcl.CSharp;

var small = args.Contains("--small");
var named = Array.IndexOf(args, "--out");
var folder = named >= 0 && named + 1 < args.Length ? args[named + 1] : $"output/csharp{(small ? "-small" : "")}";

// Ctrl-C leaves the study after the update that it is at; what is finished, and half finished, is kept in the folder.
using var cancelled = new CancellationTokenSource();
Console.CancelKeyPress += (_, press) => { press.Cancel = true; cancelled.Cancel(); };

try
{
    // A stream is a list of steps, each two modalities whose rows are matched: frozen features, as encoders gave them.
    var stream = Streams.Load(small ? "synthetic" : "emoji");
    Console.WriteLine($"{stream.Name}: {stream.Description}");

    foreach (var step in stream.Steps)
    {
        Console.WriteLine($"  {step.Index,2}  {step.Name}, {step.Train.Length} pairs to learn from");
    }

    // A study is a value: every call gives another one, and nothing happens before Run or RunAsync. What no argument sets (the
    // rate, the thresholds, the temperature) comes from the stream's preset.
    var study = Study.On(stream)
        .Method(Methods.Vanilla())
        .Method(Methods.Dns())
        .Method(Methods.Dns(place: Place.Gradient))
        .Seeds(small ? [0] : [0, 1, 2])
        .Into(folder);

    if (small)
    {
        study = study.Epochs(1);
    }

    var progress = new Progress<StudyProgress>(p => Console.Error.WriteLine($"{p.Over}/{p.Cells} {p.Method}, seed {p.Seed}"));
    var results = await study.RunAsync(progress, cancelled.Token);

    // Metrics by name (cmcl metrics lists them), rates as fractions: recall@10 at the end, backward transfer of it (negative is
    // forgetting), and how far alignment scores of old training data moved, relative to their size.
    Console.WriteLine();
    Console.WriteLine($"{"method",-22}{"R@10",16}{"BWT",16}{"deviation",18}");

    foreach (var method in results.Methods)
    {
        string Shown(string metric, string format)
        {
            var (mean, sd, _) = results.Mean(method, metric);
            return mean.ToString(format) + (sd is { } s ? $" ± {s.ToString(format)}" : "");
        }

        Console.WriteLine($"{method,-22}{Shown("r10", "P1"),16}{Shown("bwt_r10", "P1"),16}{Shown("deviation_rel", "F4"),18}");
    }

    // Every figure after every step is there as well: which task stands worst at the end?
    var end = stream.Steps.Length;
    var worst = results.Figures.Where(f => f is { Method: "dns", Metric: "r10" } && f.Step == end).MinBy(f => f.Value)!;
    Console.WriteLine($"dns is worst at step {worst.Task}, {stream.Steps[worst.Task!.Value - 1].Name}: {worst.Value:P1}");

    Console.WriteLine(results.Charts.Deviation().SaveHtml(Path.Combine(folder, "deviation.html"), "How far old scores moved"));
    return 0;
}
catch (OperationCanceledException e)
{
    Console.Error.WriteLine($"{e.Message}; the same command goes on");
    return 130;
}
catch (Cmcl.CmclException e)
{
    // Whatever is wrong with options, files or data comes as this one type, all of it at once.
    foreach (var sentence in e.Sentences)
    {
        Console.Error.WriteLine(sentence);
    }

    return 1;
}
