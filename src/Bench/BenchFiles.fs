namespace Cmcl

open System
open System.Globalization
open System.IO

/// The tables of a benchmark: `bench.csv`, a line for each form at each size, and `steps.csv`, one for each whole step.
[<RequireQualifiedAccess>]
module BenchFiles =
    /// Makes sure that a benchmark can go to the folder; see `ResultsFolder.claim`.
    let prepare (force: bool) (folder: string) : Result<unit, Fault list> =
        ResultsFolder.claim ([ "bench.csv"; "steps.csv"; "bench.html" ], []) force folder

    let private optional = Option.map Csv.number >> Option.defaultValue ""
    let private maybe name (text: string) = if text = "" then None else Some(Csv.real name text)

    /// Every round's seconds in one field, separated by blanks.
    let private samples (t: Timing) = String.Join(' ', Array.map Csv.number t.Samples)

    let private timing (text: string) : Timing =
        { Samples = text.Split(' ', StringSplitOptions.RemoveEmptyEntries) |> Array.map (Csv.real "samples") }

    let private long name =
        Csv.field name "a whole number" (fun text -> Int64.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture))

    let private dtype =
        Csv.field "dtype" "float32 or float64" (function
            | "float32" -> true, Dtype.Float32
            | "float64" -> true, Dtype.Float64
            | _ -> false, Dtype.Float32)

    let private placeHeader = [ "form"; "d"; "batch"; "rank"; "dtype"; "threads"; "device" ]

    let private place form (e: Extent) (threads: int) device =
        [ form; string e.Width; string e.Pairs; string e.Rank; string e.Dtype; string threads; device ]

    let private extent (f: string[]) : Extent =
        { Width = long "d" f[1]
          Pairs = long "batch" f[2]
          Rank = long "rank" f[3]
          Dtype = dtype f[4] }

    let private timingHeader = [ "rounds"; "median"; "minimum"; "spread"; "over_none" ]

    let private timed (t: Timing) over =
        [ string t.Samples.Length; Csv.number t.Median; Csv.number t.Minimum; Csv.number t.Spread; optional over ]

    let private iterationsHeader =
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

        Results.writeWhole (Path.Combine(folder, "bench.csv")) (Csv.write iterationsHeader fields rows)

    /// Reads `bench.csv` of a folder. Faults: `Missing`, or `Unreadable` with the line.
    let readIterations (folder: string) : Result<Iteration list, Fault list> =
        Csv.read (Path.Combine(folder, "bench.csv")) iterationsHeader (fun f ->
            { Form = f[0]
              Extent = extent f
              Threads = Csv.whole "threads" f[5]
              Device = f[6]
              Timing = timing f[18]
              OverNone = maybe "over_none" f[11]
              Work =
                { Operations = Csv.real "operations" f[12]
                  Bytes = Csv.real "bytes" f[13] }
              Ceilings =
                { Product = Csv.real "operations_per_second" f[14]
                  Copy = Csv.real "bytes_per_second" f[15] } })

    let private stepsHeader =
        placeHeader @ [ "rows"; "epochs" ] @ timingHeader @ [ "begin"; "train"; "end"; "kept_bytes"; "samples" ]

    /// Writes `steps.csv` into a folder.
    let writeSteps (folder: string) (rows: WholeStep list) : Result<unit, Fault list> =
        let fields (s: WholeStep) =
            place s.Form s.Extent s.Threads s.Device
            @ [ string s.Rows; string s.Epochs ]
            @ timed s.Total s.OverNone
            @ List.map Csv.number [ s.Begin; s.Train; s.End; s.Kept ]
            @ [ samples s.Total ]

        Results.writeWhole (Path.Combine(folder, "steps.csv")) (Csv.write stepsHeader fields rows)

    /// Reads `steps.csv` of a folder; faults as `readIterations`.
    let readSteps (folder: string) : Result<WholeStep list, Fault list> =
        Csv.read (Path.Combine(folder, "steps.csv")) stepsHeader (fun f ->
            { Form = f[0]
              Extent = extent f
              Threads = Csv.whole "threads" f[5]
              Device = f[6]
              Rows = long "rows" f[7]
              Epochs = Csv.whole "epochs" f[8]
              Total = timing f[18]
              OverNone = maybe "over_none" f[13]
              Begin = Csv.real "begin" f[14]
              Train = Csv.real "train" f[15]
              End = Csv.real "end" f[16]
              Kept = Csv.real "kept_bytes" f[17] })

    /// Writes both tables.
    let write (folder: string) (b: Benchmark) : Result<unit, Fault list> =
        [ writeIterations folder b.Iterations; writeSteps folder b.Steps ] |> Check.all |> Result.map ignore
