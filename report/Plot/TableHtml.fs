namespace Cmcl

open System.Text.RegularExpressions
open Giraffe.ViewEngine

/// Tables of methods on a page.
[<RequireQualifiedAccess>]
module internal TableHtml =
    /// A method's colour; hollow where a second method has the same and its lines are dashed.
    let chip (styles: Map<string, MethodStyle>) (method: string) =
        let style = styles[method]

        span
            [ _class (if style.Dash = Plotly.NET.StyleParam.DrawingStyle.Solid then "chip" else "chip hollow")
              _style $"color:{style.Colour}" ]
            []

    /// A name that is broken between its settings, if at all.
    let label (name: string) : XmlNode list =
        [ for part in Regex.Split(name, @"(?<=[\[;])") do
              if part.Length > 20 then str part else span [ _class "part" ] [ str part ]
              wbr [] ]

    /// A metric's heading.
    let title (metric: Metric) =
        [ match CompareText.heading metric with
          | word, Some index ->
              str word
              sub [] [ str index ]
          | word, None -> str word ]

    /// A table with its notes.
    let table (styles: Map<string, MethodStyle>) (t: CompareTable) : XmlNode list =
        let cell (metric: Metric) (c: TableCell) =
            match c.Spread with
            | None -> [ str "–" ]
            | Some s ->
                let mean, sd = Metric.spread metric s

                [ if c.Best then strong [] [ str mean ] else str mean
                  match sd with
                  | Some sd -> span [ _class "sd" ] [ str $" ± {sd}" ]
                  | None -> ()
                  str (CompareTable.mark t c) ]

        let unit (metric: Metric) = $"{Metric.unit metric} {Metric.arrow metric}".Trim()
        let firstBound = t.Rows |> List.tryFind _.Bound |> Option.map _.Method

        [ Page.table
              1
              ([ str "method" ]
               :: [ for metric in t.Metrics ->
                        [ span [ attr "title" metric.Convention ] (title metric); span [ _class "unit" ] [ str (unit metric) ] ] ])
              [ for r in t.Rows ->
                    (match r.Bound, firstBound = Some r.Method with
                     | true, true -> "reference first"
                     | true, false -> "reference"
                     | _ -> ""),
                    (chip styles r.Method :: label (CompareTable.name t r)) :: List.map2 cell t.Metrics r.Cells ]
          ul [ _class "meta" ] [ for sentence in t.Notes -> li [] [ str sentence ] ] ]
