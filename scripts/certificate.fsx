// Are certificates kept, and how close are they? The largest deviation of old scores after every step as measured on old rows, as known without
// them, and the bound that was given beforehand, for each way to protect:
//
//     dotnet fsi scripts/certificate.fsx
#load "options.fsx"

open Cmcl
open Options

let methods =
    [ Config.any Dns.defaults
      Config.any Dns.soft
      Config.any Dns.trust
      Config.any (Dns.trust |> Dns.totalBudget 0.2) ]

/// A metric of every old task after every later step, all seeds.
let places (metric: string) (label: string) (result: StudyResult) =
    Map
        [ for r in result.Rows do
              if r.Method = label && r.Metric = metric && r.When <> When.Final then
                  (r.Seed, r.Step, r.Task), r.Value ]

let table (result: StudyResult) : TextTable =
    [ for label in result.Methods do
          let measured, known, bounds =
              places "deviation_rel" label result, places "monitor_rel" label result, places "bound_rel" label result

          let ratios =
              List.sort
                  [ for KeyValue(place, x) in measured do
                        if x > 1e-6 then
                            bounds[place] / x ]

          let broken = measured |> Map.filter (fun place x -> not (x <= bounds[place])) |> Map.count
          let apart = [ for KeyValue(place, x) in measured -> abs (known[place] - x) ] |> List.max
          let largest = measured.Values |> Seq.max

          [ label
            string measured.Count
            $"{broken}"
            Verification.number largest
            Verification.number (Seq.max bounds.Values)
            (if ratios.IsEmpty then "–" else ratios[ratios.Length / 2].ToString "0.00")
            (if ratios.IsEmpty then "–" else (List.last ratios).ToString "0.00")
            Verification.number apart ] ]
    |> TextTable.make
        result.Stream
        [ "method"; "places"; "broken"; "largest"; "largest bound"; "bound/truth"; "at most"; "without rows: off by" ]
    |> TextTable.note
        "Places: old task, later step and seed. Broken: places with a bound below what was measured. Bound/truth: median. Off by: the largest difference between a deviation measured on rows and known without them."

Script.run Script.studies (fun asked ->
    let result = Script.study (Script.stream "emoji" asked) methods asked |> Run.go

    (Script.sheet "Certificates" "Whether bounds on deviation are kept." [ result ] asked, result.Methods)
    ||> List.fold (fun sheet label ->
        sheet
        |> Sheet.chart
            label
            "Largest over the tasks learned before; the second lies on the first."
            (Plot.certificate label result))
    |> fun sheet -> Script.finish [ result ] [ table result ] sheet asked)
