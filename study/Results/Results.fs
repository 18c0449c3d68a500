namespace Cmcl

open System
open System.IO
open System.Text

/// The mean training loss of one epoch, a line of `losses.csv`.
type LossRow =
    {
        Method: string
        Seed: int
        Step: int
        /// 1 for the first.
        Epoch: int
        Loss: float
    }

/// One direction of a second moment that a step protects against, a line of `spectra.csv`.
type SpectrumRow =
    {
        Method: string
        Seed: int
        Step: int
        Modality: string
        /// `input` or `partner`.
        Side: string
        /// 1 for the direction of largest energy.
        Index: int
        /// Share of the trace.
        Energy: float
        /// Inside the cut; None for ways to protect that have no cut.
        Protected: bool option
    }

/// How far an old step's scores have moved in the midst of a later step, a line of `monitor.csv`.
type MonitorRow =
    {
        Method: string
        Seed: int
        /// The step in training.
        Step: int
        /// Updates of that step so far.
        Update: int64
        /// The old step.
        Task: int
        /// Root mean square of A_now − A_then.
        Rms: float
        /// ‖A_now − A_then‖/‖A_then‖.
        Relative: float
    }

/// The result tables of a run: tidy CSV (RFC 4180), invariant culture, floats in their shortest form that reads back the
/// same, and the aggregates over them.
[<RequireQualifiedAccess>]
module Results =
    let private resultsHeader = [ "stream"; "method"; "seed"; "step"; "task"; "metric"; "value" ]

    /// Writes `results.csv` into a folder.
    let write (folder: string) (rows: Row seq) : Result<unit, Fault list> =
        let fields (r: Row) =
            let step, task = When.texts r.When
            [ r.Stream; r.Method; string r.Seed; step; task; r.Metric; Csv.number r.Value ]

        Files.writeText (Path.Combine(folder, "results.csv")) (Csv.write resultsHeader fields rows)

    /// Reads `results.csv` of a folder. Faults: `Missing`, or `Unreadable` with the line (the first ten of them).
    let read (folder: string) : Result<Row list, Fault list> =
        let place (step: string) (task: string) =
            match When.parse step task with
            | Some place -> place
            | None ->
                raise (
                    FormatException $"step and task take two numbers of steps, or 'final' and 'all', not '{step}' and '{task}'"
                )

        Csv.read (Path.Combine(folder, "results.csv")) resultsHeader (fun f ->
            { Stream = f[0]
              Method = f[1]
              Seed = Csv.whole "seed" f[2]
              When = place f[3] f[4]
              Metric = f[5]
              Value = Csv.real "value" f[6] })

    let private lossesHeader = [ "method"; "seed"; "step"; "epoch"; "loss" ]

    /// Writes `losses.csv` into a folder.
    let writeLosses (folder: string) (rows: LossRow seq) : Result<unit, Fault list> =
        let fields (r: LossRow) = [ r.Method; string r.Seed; string r.Step; string r.Epoch; Csv.number r.Loss ]

        Files.writeText (Path.Combine(folder, "losses.csv")) (Csv.write lossesHeader fields rows)

    /// Reads `losses.csv` of a folder; faults as `read`.
    let readLosses (folder: string) : Result<LossRow list, Fault list> =
        Csv.read (Path.Combine(folder, "losses.csv")) lossesHeader (fun f ->
            { Method = f[0]
              Seed = Csv.whole "seed" f[1]
              Step = Csv.whole "step" f[2]
              Epoch = Csv.whole "epoch" f[3]
              Loss = Csv.real "loss" f[4] })

    let private spectraHeader = [ "method"; "seed"; "step"; "modality"; "side"; "index"; "energy"; "protected" ]

    /// Writes `spectra.csv` into a folder.
    let writeSpectra (folder: string) (rows: SpectrumRow seq) : Result<unit, Fault list> =
        let cut =
            function
            | Some true -> "1"
            | Some false -> "0"
            | None -> ""

        let fields (r: SpectrumRow) =
            [ r.Method
              string r.Seed
              string r.Step
              r.Modality
              r.Side
              string r.Index
              Csv.number r.Energy
              cut r.Protected ]

        Files.writeText (Path.Combine(folder, "spectra.csv")) (Csv.write spectraHeader fields rows)

    /// Reads `spectra.csv` of a folder; faults as `read`.
    let readSpectra (folder: string) : Result<SpectrumRow list, Fault list> =
        let cut =
            Csv.field "protected" "1, 0 or nothing" (function
                | "1" -> true, Some true
                | "0" -> true, Some false
                | "" -> true, None
                | _ -> false, None)

        Csv.read (Path.Combine(folder, "spectra.csv")) spectraHeader (fun f ->
            { Method = f[0]
              Seed = Csv.whole "seed" f[1]
              Step = Csv.whole "step" f[2]
              Modality = f[3]
              Side = f[4]
              Index = Csv.whole "index" f[5]
              Energy = Csv.real "energy" f[6]
              Protected = cut f[7] })

    let private monitorHeader = [ "method"; "seed"; "step"; "update"; "task"; "rms"; "relative" ]

    /// Writes `monitor.csv` into a folder.
    let writeMonitor (folder: string) (rows: MonitorRow seq) : Result<unit, Fault list> =
        let fields (r: MonitorRow) =
            [ r.Method
              string r.Seed
              string r.Step
              string r.Update
              string r.Task
              Csv.number r.Rms
              Csv.number r.Relative ]

        Files.writeText (Path.Combine(folder, "monitor.csv")) (Csv.write monitorHeader fields rows)

    /// Reads `monitor.csv` of a folder; faults as `read`.
    let readMonitor (folder: string) : Result<MonitorRow list, Fault list> =
        Csv.read (Path.Combine(folder, "monitor.csv")) monitorHeader (fun f ->
            { Method = f[0]
              Seed = Csv.whole "seed" f[1]
              Step = Csv.whole "step" f[2]
              Update = int64 (Csv.whole "update" f[3])
              Task = Csv.whole "task" f[4]
              Rms = Csv.real "rms" f[5]
              Relative = Csv.real "relative" f[6] })

    /// The result matrix of one method, seed and metric; None if there are no such rows.
    /// Example: `Results.matrix "dns" 0 "r10" [] |> Option.bind Transfer.bwt`.
    let matrix (method: string) (seed: int) (metric: string) (rows: Row list) : ResultMatrix option =
        rows |> List.filter (fun r -> r.Method = method && r.Seed = seed) |> Row.matrix metric

    /// The metrics that have `final` rows; the others of the registry follow from the rows per step.
    let private finals =
        [ "acc"
          "bwt_acc"
          "r1"
          "r5"
          "r10"
          "map"
          "bwt_r10"
          "deviation_rel"
          "deviation_test_rel"
          "monitor_rel"
          "bound_rel"
          "learned_acc"
          "learned_r10" ]
        |> List.map (Metric.find >> Check.get)

    /// The `final`/`all` rows of every stream, method and seed, from their rows per step. A figure that does not exist has
    /// no row: backward transfer of a method that was measured before and after only, deviation of one that never trained.
    let aggregates (rows: Row list) : Row list =
        rows
        |> List.groupBy (fun r -> r.Stream, r.Method, r.Seed)
        |> List.collect (fun ((stream, method, seed), own) ->
            [ for metric in finals do
                  match metric.Of own with
                  | Some value ->
                      { Stream = stream
                        Method = method
                        Seed = seed
                        When = When.Final
                        Metric = metric.Name
                        Value = value }
                  | None -> () ])
