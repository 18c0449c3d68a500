// What does protection cost, and how does it grow? An iteration of each form of training against one without projection in the same rounds, at several
// widths d (--values), batches of 64, a quarter of the directions protected, one thread; cmcl bench measures more (docs/benchmarks.md):
//
//     dotnet fsi scripts/cost.fsx
#load "options.fsx"

open Cmcl
open Options
open TorchSharp

let forms = [ "none"; "block"; "soft"; "trust"; "update"; "published" ]

let table (found: Iteration list) : TextTable =
    let widths = found |> List.map _.Extent.Width |> List.distinct
    let laws = Map [ for form, _, law in Scaling.byWidth found -> form, law ]

    [ for form in forms do
          let own = found |> List.filter (fun i -> i.Form = form)
          let exponent = laws[form] |> Option.map (fun law -> law.Exponent.ToString "0.00") |> Option.defaultValue "–"
          [ form; yield! [ for i in own -> (defaultArg i.OverNone nan).ToString "0.00" ]; exponent ] ]
    |> TextTable.make
        "times as long as an iteration without projection"
        [ "form"; yield! [ for d in widths -> $"d = {d}" ]; "exponent" ]
    |> TextTable.note "Medians of ratios within rounds. Exponent: of milliseconds against d, least squares over these widths."

Script.run [ "values"; "out"; "small" ] (fun asked ->
    let width (text: string) =
        match System.Int64.TryParse text with
        | true, d when d >= 2L -> d
        | _ -> Check.fail (Fault.BadValue("--values", "widths, whole numbers ≥ 2", text))

    let widths = asked.Values |> Option.defaultValue (if asked.Small then [ "16"; "32" ] else [ "128"; "256"; "512"; "1024" ])

    let tell event =
        match event with
        | BenchEvent.Began(what, share) -> eprintfn "%3.0f %% %s" (100.0 * share) what
        | _ -> ()

    let found =
        (Benchmark.run
            tell
            { Forms = forms |> List.map (Form.find >> Check.get)
              Widths = List.map width widths
              Batches = [ (if asked.Small then 8L else 64L) ]
              Shares = [ 0.25 ]
              ThreadCounts = [ 1 ]
              Dtypes = [ Dtype.Float32 ]
              Device = torch.CPU
              Rounds = (if asked.Small then 1 else 30)
              Limit = 30.0
              StepRows = []
              StepRounds = 1 })
            .Iterations

    [ for i in found do
          for round, seconds in Array.indexed i.Timing.Samples do
              [ i.Form
                string i.Extent.Width
                string i.Extent.Pairs
                string i.Extent.Rank
                string round
                TextTable.number seconds ] ]
    |> TextTable.make "" [ "form"; "d"; "batch"; "rank"; "round"; "seconds" ]
    |> TextTable.save (System.IO.Path.Combine(asked.Out, "results.csv"))
    |> Check.getAll

    let ratios =
        [ for form in forms ->
              form,
              [ for i in found do
                    if i.Form = form then
                        float i.Extent.Width, defaultArg i.OverNone nan ] ]

    Sheet.make "Cost against d" "Iterations of forms of training, one thread, on this machine."
    |> Sheet.command asked.Command
    |> Sheet.chart
        "Times as long as without projection"
        "Medians of ratios within rounds."
        (Plot.lines ("d", true) ("times as long", true) ratios)
    |> Sheet.chart "Milliseconds an iteration" "Medians." (BenchCharts.byWidth (BenchCharts.styles forms) found)
    |> fun sheet -> Script.leave [ table found ] sheet asked)
