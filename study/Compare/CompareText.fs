namespace Cmcl

open System
open System.IO

/// A table as text: Markdown, LaTeX, CSV. Nothing in a name can break out of its cell.
[<RequireQualifiedAccess>]
module CompareText =
    /// A heading's word and its index: `BWT_R10` is BWT with R10 below.
    let heading (metric: Metric) : string * string option =
        match metric.Title.Split('_', 2) with
        | [| word; index |] -> word, Some index
        | _ -> metric.Title, None

    let private join (separator: string) (parts: string list) = String.Join(separator, parts)

    let private escaped (special: Map<char, string>) (text: string) =
        text |> String.collect (fun c -> Map.tryFind c special |> Option.defaultValue (string c))

    let private markdownName = escaped (Map [ for c in "\\`*_{}[]<>#|~" -> c, $"\\{c}" ] |> Map.add '\n' " " |> Map.add '\r' "")

    let private latexName =
        escaped (
            Map
                [ '\\', @"\textbackslash{}"
                  '{', @"\{"
                  '}', @"\}"
                  '$', @"\$"
                  '&', @"\&"
                  '#', @"\#"
                  '_', @"\_"
                  '%', @"\%"
                  '~', @"\textasciitilde{}"
                  '^', @"\textasciicircum{}"
                  '[', "{[}"
                  ']', "{]}"
                  '<', @"\textless{}"
                  '>', @"\textgreater{}"
                  '|', @"\textbar{}"
                  '"', @"\textquotedbl{}"
                  '\n', " "
                  '\r', "" ]
        )

    /// A Markdown table with its notes.
    let markdown (t: CompareTable) : string =
        let row (cells: string list) = "| " + join " | " cells + " |"

        let head (metric: Metric) =
            [ (match heading metric with
               | word, Some index -> $"{word}<sub>{index}</sub>"
               | word, None -> word)
              Metric.unit metric
              Metric.arrow metric ]
            |> List.filter ((<>) "")
            |> join " "

        let cell (metric: Metric) (c: TableCell) =
            match c.Spread with
            | None -> "–"
            | Some s ->
                let mean, sd = Metric.spread metric s
                let mean = if c.Best then $"**{mean}**" else mean
                mean + (sd |> Option.map (fun sd -> $" ± {sd}") |> Option.defaultValue "") + CompareTable.mark t c

        let line (r: TableRow) =
            let name = markdownName (CompareTable.name t r)
            row ((if r.Bound then $"*{name}*" else name) :: List.map2 cell t.Metrics r.Cells)

        [ row ("method" :: List.map head t.Metrics)
          row ("---" :: List.replicate t.Metrics.Length "---:")
          yield! List.map line t.Rows
          ""
          yield! t.Notes |> List.map (fun note -> $"* {markdownName note}") ]
        |> List.map (fun line -> line + "\n")
        |> String.concat ""

    /// A figure in LaTeX; a minus is a minus.
    let private mathematics (text: string) = text.Replace("−", "-")

    let private latexCell (t: CompareTable) (metric: Metric) (c: TableCell) : string =
        match c.Spread with
        | None -> "--"
        | Some s ->
            let mean, sd = Metric.spread metric s

            let number, unit =
                match mean.Split(' ', 2) with
                | [| number; unit |] -> number, @"\," + unit
                | _ -> mean, ""

            let number = mathematics number
            let number = if c.Best then $@"\mathbf{{{number}}}" else number

            let deviation = sd |> Option.map (fun sd -> @" \pm " + mathematics (sd.Split(' ')[0])) |> Option.defaultValue ""

            $"${number}{deviation}${unit}" + (CompareTable.mark t c).Replace("†", @"\textsuperscript{\textdagger}")

    /// A LaTeX table (booktabs), with its notes as comments.
    let latex (t: CompareTable) : string =
        let head (metric: Metric) =
            let word, index = heading metric

            let arrow =
                match metric.Better with
                | Better.Higher -> @" $\uparrow$"
                | Better.Lower -> @" $\downarrow$"
                | Better.Neither -> ""

            let index = index |> Option.map (fun i -> $@"\textsubscript{{{latexName i}}}") |> Option.defaultValue ""
            latexName word + index + arrow

        let line (r: TableRow) =
            join " & " (latexName (CompareTable.name t r) :: List.map2 (latexCell t) t.Metrics r.Cells) + @" \\"

        let competing, bounds = t.Rows |> List.partition (fun r -> not r.Bound)
        let columns = String.replicate t.Metrics.Length "r"

        [ yield! t.Notes |> List.map (fun note -> "% " + note)
          @"% Needs \usepackage{booktabs} and \usepackage[T1]{fontenc}."
          $@"\begin{{tabular}}{{l{columns}}}"
          @"\toprule"
          join " & " ("Method" :: List.map head t.Metrics) + @" \\"
          @"\midrule"
          yield! List.map line competing
          if not competing.IsEmpty && not bounds.IsEmpty then
              @"\midrule"
          yield! List.map line bounds
          @"\bottomrule"
          @"\end{tabular}" ]
        |> List.map (fun line -> line + "\n")
        |> String.concat ""

    let private csvHeader = [ "stream"; "method"; "metric"; "mean"; "sd"; "n"; "best" ]

    /// A line for each figure that exists, in full: `stream,method,metric,mean,sd,n,best`.
    let csv (t: CompareTable) (writer: TextWriter) : unit =
        let figures =
            [ for r in t.Rows do
                  for metric, cell in List.zip t.Metrics r.Cells do
                      match cell.Spread with
                      | Some spread ->
                          let name = if cell.Learned then "learned_" + metric.Name else metric.Name

                          [ t.Stream
                            r.Method
                            name
                            Csv.number spread.Mean
                            spread.Sd |> Option.map Csv.number |> Option.defaultValue ""
                            string spread.Count
                            (if cell.Best then "1" else "0") ]
                      | None -> () ]

        Csv.write csvHeader id figures writer
