using Plotly.NET;

namespace Cmcl.CSharp;

/// <summary>One page of text, tables and charts that needs no network. A value: every call gives another one.</summary>
public sealed class Page
{
    private readonly Sheet sheet;

    private Page(Sheet sheet) => this.sheet = sheet;

    /// <summary>A page with its title and a sentence below it.</summary>
    public Page(string title, string note = "")
        : this(SheetModule.make(title, note))
    {
    }

    /// <summary>Adds a sentence.</summary>
    public Page Text(string sentence) => new(SheetModule.text(sentence, sheet));

    /// <summary>Adds a table.</summary>
    public Page Table(TextTable table) => new(SheetModule.table(table, sheet));

    /// <summary>Adds a chart with its heading and a sentence that says what to look for.</summary>
    public Page Chart(string heading, GenericChart chart, string note = "") =>
        new(SheetModule.chart(heading, note, chart, sheet));

    /// <summary>The command that makes it again, to stand below everything.</summary>
    public Page Command(string text) => new(SheetModule.command(text, sheet));

    /// <summary>The whole page.</summary>
    public string ToHtml() => SheetModule.page(sheet);

    /// <summary>Writes it and gives its full path; makes the folder if there is none.</summary>
    /// <exception cref="CmclException">The place cannot be written to.</exception>
    public string Save(string path) => SheetModule.save(path, sheet);
}

/// <summary>Charts as pages.</summary>
public static class ChartPages
{
    /// <summary>A page with this chart alone, below its title and a sentence; it needs no network.</summary>
    public static string ToHtml(this GenericChart chart, string title, string note = "") => Alone(chart, title, note).ToHtml();

    /// <summary>Writes such a page and gives its full path; makes the folder if there is none.</summary>
    /// <exception cref="CmclException">The place cannot be written to.</exception>
    public static string SaveHtml(this GenericChart chart, string path, string title, string note = "") =>
        Alone(chart, title, note).Save(path);

    /// <summary>
    /// Writes the chart as a picture of its own size by the ending of the name, .svg, .png or .pdf, and gives its full path; makes the
    /// folder if there is none. It is drawn by Chromium, Chrome or Edge, which has to be installed; CMCL_BROWSER names another place.
    /// </summary>
    /// <exception cref="CmclException">Another ending, no browser, or a place that cannot be written to.</exception>
    public static string SavePicture(this GenericChart chart, string path) => Plot.save(path, chart);

    private static Page Alone(GenericChart chart, string title, string note) => new Page(title, note).Chart("", chart);
}
