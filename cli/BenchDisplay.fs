/// How a benchmark looks in a terminal, and in a log.
module Cmcl.Cli.BenchDisplay

open System
open System.Globalization
open Cmcl

let private fixedPoint (digits: int) (x: float) = x.ToString($"F{digits}", CultureInfo.InvariantCulture)

/// Three digits that count.
let private digits (x: float) =
    if x = 0.0 then "0"
    elif x < 0.000995 then x.ToString("0.0e0", CultureInfo.InvariantCulture)
    else fixedPoint (max 0 (2 - int (floor (log10 (1.005 * x))))) x

let private milliseconds (seconds: float) = digits (1e3 * seconds)
let private optional (show: 'a -> string) = Option.map show >> Option.defaultValue "–"

let private threads (n: int) = if n = 1 then "1 thread" else $"{n} threads"

/// A table of which the first column always stays; of the others the last go first, but for those that `kept` names.
let private table (file: string) (kept: string list) (titles: string list) (rows: string list list) : LayoutTable =
    { Columns =
        [ for i, title in List.indexed titles do
              if i = 0 then
                  Layout.words 0 title
              else
                  Layout.figures (if List.contains title kept then 0 else 1) title ]
      Rows = [ for row in rows -> Some(List.map Layout.plain row) ]
      Elsewhere = $"With --out FOLDER they are in {file}." }

/// Where a contest of iterations was held, and the ceilings there.
let heading (found: Iteration list) : string =
    let first = found.Head
    let e, c = first.Extent, first.Ceilings

    $"{e.Dtype}, {threads first.Threads}, d = {e.Width}, batch {e.Pairs}, rank {e.Rank}, {first.Device}; product {digits (c.Product / 1e9)} GFLOP/s, copy {digits (c.Copy / 1e9)} GB/s"

/// A contest of iterations, a line a form.
let iterations (found: Iteration list) : LayoutTable =
    table
        "bench.csv"
        [ "median ms"; "over none" ]
        [ "form"
          "median ms"
          "minimum ms"
          "spread ms"
          "over none"
          "rounds"
          "GFLOP"
          "MB"
          "floor ms"
          "times floor" ]
        [ for i in found ->
              [ i.Form
                milliseconds i.Timing.Median
                milliseconds i.Timing.Minimum
                milliseconds i.Timing.Spread
                optional digits i.OverNone
                string i.Timing.Samples.Length
                digits (i.Work.Operations / 1e9)
                digits (i.Work.Bytes / 1e6)
                milliseconds i.Floor
                digits i.TimesFloor ] ]

/// Whole steps, a line a form and a number of rows.
let steps (found: WholeStep list) : LayoutTable =
    table
        "steps.csv"
        [ "rows"; "threads"; "median s"; "over none" ]
        [ "form"
          "rows"
          "threads"
          "median s"
          "minimum"
          "spread"
          "over none"
          "begin"
          "train"
          "end"
          "kept MB" ]
        [ for s in found ->
              [ s.Form
                string s.Rows
                string s.Threads
                digits s.Total.Median
                digits s.Total.Minimum
                digits s.Total.Spread
                optional digits s.OverNone
                digits s.Begin
                digits s.Train
                digits s.End
                digits (s.Kept / 1e6) ] ]

/// The ratios that the method is judged by, for each number of threads at the first rank, then in a line at the others.
let ratios (r: BenchRequest) (found: Iteration list) : string list =
    let all = Scaling.ratios found
    let width = Benchmark.stepWidth r

    let here =
        all |> List.filter (fun x -> (x.Extent.Width, x.Extent.Pairs, x.Extent.Dtype) = (width, r.Batches.Head, r.Dtypes.Head))

    let main, others = here |> List.partition (fun x -> x.Extent.Rank = Benchmark.rank r.Shares.Head width)

    let lines (x: Ratio) =
        [ "dns_over_none", x.DnsOverNone; "published_over_dns", x.PublishedOverDns ]
        |> List.choose (fun (name, v) -> Option.map (fun v -> name, v) v)

    [ for x in main do
          if not (lines x).IsEmpty then
              $"{threads x.Threads}, {x.Extent.Dtype}, d = {width}, batch {x.Extent.Pairs}, rank {x.Extent.Rank}:"

              for name, value in lines x do
                  $"{name}: {digits value}"

              for other in others |> List.filter (fun o -> o.Threads = x.Threads) do
                  let words = String.Join(", ", [ for name, value in lines other -> $"{name} {digits value}" ])
                  $"  at rank {other.Extent.Rank}: {words}"

              "" ]

/// The same of whole steps, at the most rows.
let stepRatios (found: WholeStep list) : string list =
    let most = found |> List.map _.Rows |> List.fold max 0L

    [ for s in found do
          match s.OverNone with
          | Some ratio when s.Form = "block" && s.Rows = most ->
              $"a step of {s.Rows} rows, {s.Epochs} epochs, d = {s.Extent.Width}, {threads s.Threads}:"
              $"dns_step_over_none: {digits ratio}"
              ""
          | _ -> () ]

/// How cost grows, a line for each kind of contest that was held at several sizes.
let growth (r: BenchRequest) (b: Benchmark) : string list =
    let exponents (series: (string * (float * float) list * PowerLaw option) list) =
        String.Join(
            ", ",
            [ for form, _, law in series do
                  match law with
                  | Some law -> $"{form} {fixedPoint 2 law.Exponent}"
                  | None -> () ]
        )

    let atFirstRank = b.Iterations |> List.filter (fun i -> i.Extent.Rank = Benchmark.rank r.Shares.Head i.Extent.Width)

    [ for (pairs, dtype, n), own in atFirstRank |> List.groupBy (fun i -> i.Extent.Pairs, i.Extent.Dtype, i.Threads) do
          match exponents (Scaling.byWidth own) with
          | "" -> ()
          | words -> $"exponent of d, batch {pairs}, {dtype}, {threads n}: {words}"

      for n, own in b.Steps |> List.groupBy _.Threads do
          match exponents (Scaling.byRows own) with
          | "" -> ()
          | words -> $"exponent of a step's rows, {threads n}: {words}" ]

let parity (found: Parity list) : LayoutTable =
    let number (x: float) = x.ToString("0.0e0", CultureInfo.InvariantCulture)

    let columns: (LayoutColumn * (Parity -> string)) list =
        [ Layout.words 0 "form", _.Form
          Layout.figures 3 "dtype", (fun p -> string p.Extent.Dtype)
          Layout.figures 2 "d", (fun p -> string p.Extent.Width)
          Layout.figures 2 "batch", (fun p -> string p.Extent.Pairs)
          Layout.figures 2 "rank", (fun p -> string p.Extent.Rank)
          Layout.figures 0 "differs by", (fun p -> number p.Difference)
          Layout.figures 1 "moved by", (fun p -> number p.Moved)
          Layout.figures 0 "tolerance", (fun p -> number p.Tolerance)
          Layout.figures 0 "holds", (fun p -> if p.Holds then "✓" else "✗") ]

    { Columns = List.map fst columns
      Rows = [ for p in found -> Some [ for _, text in columns -> Layout.plain (text p) ] ]
      Elsewhere = "A wider terminal shows them." }
