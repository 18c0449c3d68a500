/// Tables that the toolkit writes and nothing of it reads, read back.
module Cmcl.Tests.Tables

open System
open System.Globalization
open System.IO
open Cmcl

let private maybe name (text: string) = if text = "" then None else Some(Csv.real name text)

let private long name =
    Csv.field name "a whole number" (fun text -> Int64.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture))

let private dtype =
    Csv.field "dtype" "float32 or float64" (function
        | "float32" -> true, Dtype.Float32
        | "float64" -> true, Dtype.Float64
        | _ -> false, Dtype.Float32)

let private extent (f: string[]) : Extent =
    { Width = long "d" f[1]
      Pairs = long "batch" f[2]
      Rank = long "rank" f[3]
      Dtype = dtype f[4] }

let private timing (text: string) : Timing =
    { Samples = text.Split(' ', StringSplitOptions.RemoveEmptyEntries) |> Array.map (Csv.real "samples") }

/// `bench.csv` of a folder.
let iterations (folder: string) : Result<Iteration list, Fault list> =
    Csv.read (Path.Combine(folder, "bench.csv")) BenchFiles.iterationsHeader (fun f ->
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

/// `steps.csv` of a folder.
let steps (folder: string) : Result<WholeStep list, Fault list> =
    Csv.read (Path.Combine(folder, "steps.csv")) BenchFiles.stepsHeader (fun f ->
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

/// `verify.csv` of a folder.
let findings (folder: string) : Result<Finding list, Fault list> =
    Csv.read (Path.Combine(folder, "verify.csv")) VerificationFiles.findingsHeader (fun f ->
        { Run = f[0]
          Condition =
            { Name = f[1]
              Where = f[2]
              Value = Csv.real "value" f[3]
              Bound = Csv.real "bound" f[4]
              Tolerance = Csv.real "tolerance" f[5]
              Must = f[7] = "1" }
          ExactTo = maybe "exact_to" f[6] })

/// `curves.csv` of a folder.
let points (folder: string) : Result<Point list, Fault list> =
    Csv.read (Path.Combine(folder, "curves.csv")) VerificationFiles.pointsHeader (fun f ->
        { Figure = f[0]
          Run = f[1]
          Series = f[2]
          Where = f[3]
          X = Csv.real "x" f[4]
          Y = Csv.real "y" f[5]
          Cell = maybe "cell" f[6] })
