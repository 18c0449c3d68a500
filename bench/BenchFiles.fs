namespace Cmcl

open System
open System.IO

/// The tables of a benchmark: `bench.csv`, a line for each form at each size, and `steps.csv`, one for each whole step; and `parity.csv`, how
/// far each form is from its pure functions.
[<RequireQualifiedAccess>]
module BenchFiles =
    /// Makes sure that a benchmark can go to the folder; see `ResultsFolder.claim`.
    let prepare (force: bool) (folder: string) : Result<unit, Fault list> =
        ResultsFolder.claim ([ "bench.csv"; "steps.csv"; "parity.csv"; "bench.html" ], []) force folder

    let private optional = Option.map Csv.number >> Option.defaultValue ""

    /// Every round's seconds in one field, separated by blanks.
    let private samples (t: Timing) = String.Join(' ', Array.map Csv.number t.Samples)

    let private placeHeader = [ "form"; "d"; "batch"; "rank"; "dtype"; "threads"; "device" ]

    let private place form (e: Extent) (threads: int) device =
        [ form; string e.Width; string e.Pairs; string e.Rank; string e.Dtype; string threads; device ]

    let private timingHeader = [ "rounds"; "median"; "minimum"; "spread"; "over_none" ]

    let private timed (t: Timing) over =
        [ string t.Samples.Length; Csv.number t.Median; Csv.number t.Minimum; Csv.number t.Spread; optional over ]

    let internal iterationsHeader =
        placeHeader
        @ timingHeader
        @ [ "operations"; "bytes"; "operations_per_second"; "bytes_per_second"; "floor"; "times_floor"; "samples" ]

    /// Writes `bench.csv` into a folder.
    let writeIterations (folder: string) (rows: Iteration list) : Result<unit, Fault list> =
        let fields (i: Iteration) =
            place i.Form i.Extent i.Threads i.Device
            @ timed i.Timing i.OverNone
            @ List.map Csv.number [ i.Work.Operations; i.Work.Bytes; i.Ceilings.Product; i.Ceilings.Copy; i.Floor; i.TimesFloor ]
            @ [ samples i.Timing ]

        Files.writeText (Path.Combine(folder, "bench.csv")) (Csv.write iterationsHeader fields rows)

    let internal stepsHeader =
        placeHeader @ [ "rows"; "epochs" ] @ timingHeader @ [ "begin"; "train"; "end"; "kept_bytes"; "samples" ]

    /// Writes `steps.csv` into a folder.
    let writeSteps (folder: string) (rows: WholeStep list) : Result<unit, Fault list> =
        let fields (s: WholeStep) =
            place s.Form s.Extent s.Threads s.Device
            @ [ string s.Rows; string s.Epochs ]
            @ timed s.Total s.OverNone
            @ List.map Csv.number [ s.Begin; s.Train; s.End; s.Kept ]
            @ [ samples s.Total ]

        Files.writeText (Path.Combine(folder, "steps.csv")) (Csv.write stepsHeader fields rows)

    /// Writes both tables.
    let write (folder: string) (b: Benchmark) : Result<unit, Fault list> =
        [ writeIterations folder b.Iterations; writeSteps folder b.Steps ] |> Check.all |> Result.map ignore

    let private parityHeader = [ "form"; "dtype"; "d"; "batch"; "rank"; "difference"; "moved"; "tolerance"; "holds" ]

    /// Writes `parity.csv` into a folder, `holds` being 1 or 0.
    let writeParity (folder: string) (rows: Parity list) : Result<unit, Fault list> =
        let fields (p: Parity) =
            let e = p.Extent

            [ p.Form; string e.Dtype; string e.Width; string e.Pairs; string e.Rank ]
            @ List.map Csv.number [ p.Difference; p.Moved; p.Tolerance ]
            @ [ (if p.Holds then "1" else "0") ]

        Files.writeText (Path.Combine(folder, "parity.csv")) (Csv.write parityHeader fields rows)
