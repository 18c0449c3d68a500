namespace Cmcl

open System.Globalization
open System.IO
open Giraffe.ViewEngine

/// The page of a benchmark: one HTML file that needs no network.
[<RequireQualifiedAccess>]
module BenchPage =
    let private threads (n: int) = if n = 1 then "1 thread" else $"{n} threads"
    let private number (format: string) (x: float) = x.ToString(format, CultureInfo.InvariantCulture)
    let private optional = Option.map (number "0.00") >> Option.defaultValue "–"
    let private heads (titles: string list) = titles |> List.map (fun title -> [ str title ])
    let private cells (texts: string list) = "", texts |> List.map (fun text -> [ str text ])

    let private opening (command: string) (r: BenchRequest) (b: Benchmark) : XmlNode =
        header
            [ _class "top" ]
            [ h1 [] [ str "What protection costs" ]
              p [ _class "meta" ] [ str $"cmcl {Record.cmclVersion} · {r.Device} · {command}" ]
              p
                  []
                  [ str
                        "Forms of training were timed in one process, taking turns in short rounds, so that noise falls on all alike. Times are \
                         medians over rounds; a ratio is the median of the rounds' ratios. The floor is the least time that a form's matrix products \
                         and its traffic with memory need at the rates measured in the same run. Below 1 times the floor caches hold what it counts \
                         as traffic." ]
              Page.terms false (Machine.terms ())
              Page.table
                  2
                  (heads [ "dtype"; "threads"; "product, GFLOP/s"; "copy, GB/s" ])
                  [ for (dtype, n), own in b.Iterations |> List.groupBy (fun i -> i.Extent.Dtype, i.Threads) ->
                        let c = own.Head.Ceilings
                        cells [ string dtype; string n; number "0.0" (c.Product / 1e9); number "0.0" (c.Copy / 1e9) ] ] ]

    /// One chart for each group, to choose from.
    let private chooser title id (what: string) legend (groups: (string * (unit -> Plotly.NET.GenericChart)) list) : Section =
        match [ for i, (name, chart) in List.indexed groups -> name, Drawing.figure $"{id}-{i}" chart ] with
        | [] -> ReportText.nothing
        | (_, first) :: _ as choices ->
            [ HtmlElements.figure [] [ h3 [] [ str title ]; Page.chooser legend $"plot-{id}" what first [ what, choices ] ] ],
            List.map snd choices

    let private place (i: Iteration) = $"{i.Extent.Dtype}, {threads i.Threads}"

    /// Every form where the ratios are told that the method is judged by.
    let private table (r: BenchRequest) (found: Iteration list) : XmlNode =
        let shown =
            found
            |> List.filter (fun i -> i.Extent.Width = Benchmark.stepWidth r && i.Extent.Pairs = r.Batches.Head)
            |> List.sortBy (fun i -> List.findIndex ((=) i.Extent.Dtype) r.Dtypes, List.findIndex ((=) i.Threads) r.ThreadCounts)

        Page.table
            2
            (heads
                [ "form"
                  $"d = {Benchmark.stepWidth r}, batch {r.Batches.Head}"
                  "milliseconds"
                  "minimum"
                  "spread"
                  "over none"
                  "GFLOP"
                  "MB"
                  "floor"
                  "times floor" ])
            [ for i in shown ->
                  cells (
                      [ i.Form; place i ]
                      @ List.map
                          (fun seconds -> number "0.00" (1e3 * seconds))
                          [ i.Timing.Median; i.Timing.Minimum; i.Timing.Spread ]
                      @ [ optional i.OverNone; number "0.00" (i.Work.Operations / 1e9); number "0" (i.Work.Bytes / 1e6) ]
                      @ [ number "0.00" (1e3 * i.Floor); number "0.00" i.TimesFloor ]
                  ) ]

    let private iterations (styles: Map<string, MethodStyle>) (r: BenchRequest) (found: Iteration list) : Section =
        let atFirst = found |> List.filter (fun i -> i.Extent.Rank = Benchmark.rank r.Shares.Head i.Extent.Width)

        let widths, widthFigures =
            if r.Widths.Length < 2 then
                ReportText.nothing
            else
                atFirst
                |> List.groupBy (fun i -> $"{place i}, batch {i.Extent.Pairs}")
                |> List.map (fun (name, own) -> name, (fun () -> BenchCharts.byWidth styles own))
                |> chooser "Cost of an iteration against d, with fitted exponents" "width" "size" true

        let bars, barFigures =
            atFirst
            |> List.groupBy (fun i -> $"{place i}, d = {i.Extent.Width}, batch {i.Extent.Pairs}")
            |> List.map (fun (name, own) -> name, (fun () -> BenchCharts.timesFloor styles own))
            |> chooser "Times the floor" "floor" "size" false

        [ yield!
              ReportText.heading
                  "Iterations"
                  "An iteration gathers a batch and makes one update of both heads. Look for lines that run together: what a form adds then costs little beside what training costs anyway."
          div [ _class "figures" ] (widths @ bars)
          table r atFirst ],
        widthFigures @ barFigures

    let private ratios (r: BenchRequest) (found: Iteration list) : Section =
        let ranks (width: int64) = r.Shares |> List.map (fun share -> Benchmark.rank share width)

        let row ((pairs, width, dtype, n), (own: Ratio list)) =
            let at rank = own |> List.tryFind (fun x -> x.Extent.Rank = rank)

            cells
                [ $"{dtype}, {threads n}"
                  string width
                  string pairs
                  for rank in ranks width do
                      optional (at rank |> Option.bind _.DnsOverNone)
                  optional (at (ranks width).Head |> Option.bind _.PublishedOverDns) ]

        let name (share: float) = if round (1.0 / share) = 1.0 / share then $"d/{1.0 / share}" else $"{share:G3} d"

        [ yield! ReportText.heading "Ratios" "dns is the block in the eigenbasis, with k protected directions on either side."
          Page.table
              1
              (heads
                  [ "place"
                    "d"
                    "batch"
                    yield! r.Shares |> List.map (fun share -> $"dns/none, k = {name share}")
                    $"published/dns, k = {name r.Shares.Head}" ])
              [ for group in
                    Scaling.ratios found |> List.groupBy (fun x -> x.Extent.Pairs, x.Extent.Width, x.Extent.Dtype, x.Threads) ->
                    row group ] ],
        []

    let private steps (styles: Map<string, MethodStyle>) (found: WholeStep list) : Section =
        match found with
        | [] -> ReportText.nothing
        | first :: _ ->
            let charts, figures =
                found
                |> List.groupBy (fun s -> threads s.Threads)
                |> List.map (fun (name, own) -> name, (fun () -> BenchCharts.byRows styles own))
                |> chooser "Cost of a step against its rows N, with fitted exponents" "rows" "threads" true

            let e = first.Extent

            [ yield!
                  ReportText.heading
                      "Whole steps"
                      $"Everything that a step does: spectra of the old moments, rotation in and out, training over {first.Epochs} epochs, the step's own moments. d = {e.Width}, batch {e.Pairs}, rank {e.Rank}, {e.Dtype}. Kept is what the method keeps of a step for each of its modalities, in megabytes; it does not grow with the rows."
              div [ _class "figures" ] charts
              Page.table
                  1
                  (heads [ "form"; "rows"; "threads"; "seconds"; "spread"; "over none"; "begin"; "train"; "end"; "kept" ])
                  [ for s in found ->
                        cells
                            [ s.Form
                              string s.Rows
                              string s.Threads
                              number "0.00" s.Total.Median
                              number "0.00" s.Total.Spread
                              optional s.OverNone
                              number "0.00" s.Begin
                              number "0.00" s.Train
                              number "0.00" s.End
                              number "0.0" (s.Kept / 1e6) ] ] ],
            figures

    let private render (command: string) (r: BenchRequest) (b: Benchmark) : Rendered =
        let forms = r.Forms |> List.map _.Name
        let styles = BenchCharts.styles (forms @ [ for i in b.Iterations -> i.Form ] @ [ for s in b.Steps -> s.Form ])

        Page.ofSections
            "Cmcl benchmark"
            [ Drawing.node "What protection costs" (fun () -> opening command r b)
              Drawing.node "Forms" (fun () -> ReportText.legend styles forms) ]
            ""
            [ Drawing.section "Iterations" (fun () -> iterations styles r b.Iterations)
              Drawing.section "Ratios" (fun () -> ratios r b.Iterations)
              Drawing.section "Whole steps" (fun () -> steps styles b.Steps)
              Drawing.section "The forms" (fun () ->
                  [ yield! ReportText.heading "The forms" "What each does in an iteration."
                    Page.terms false [ for f in r.Forms -> f.Name, f.Summary ] ],
                  []) ]

    /// The page as HTML text. What cannot be drawn is said in its place.
    let build (command: string) (r: BenchRequest) (b: Benchmark) : string = Page.html (render command r b)

    /// Writes the page as `bench.html` into a folder and gives its path. What of it could not be drawn is said on standard error, too.
    let write (folder: string) (command: string) (r: BenchRequest) (b: Benchmark) : Result<string, Fault list> =
        Page.write (Path.Combine(folder, "bench.html")) (render command r b)
