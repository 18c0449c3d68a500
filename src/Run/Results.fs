namespace Cmcl

open System
open System.Globalization
open System.IO
open System.Text

/// One figure of a run, a line of `results.csv`.
type Row =
    {
        Stream: string
        /// The method's label, such as `dns` or `vanilla[lr=1e-3]`.
        Method: string
        Seed: int
        /// After which step: `0` (before training) … `T`, or `final`.
        Step: string
        /// Whose data: the number of the step that trains it, or `all`.
        Task: string
        /// Such as `r10`, `acc`, `deviation_rel`; rates are fractions.
        Metric: string
        Value: float
    }

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
    let private invariant = CultureInfo.InvariantCulture

    /// Writes a text file (UTF-8) whole, as `Files.writeWhole` does; makes the folder if there is none.
    let writeWhole (path: string) (write: TextWriter -> unit) : Result<unit, Fault list> =
        Files.makeFolderOf path
        |> Result.bind (fun () ->
            Files.writeWhole path (fun stream ->
                use text = new StreamWriter(stream, UTF8Encoding false, NewLine = "\n")
                write text))

    let private resultsHeader = [ "stream"; "method"; "seed"; "step"; "task"; "metric"; "value" ]

    /// Writes `results.csv` into a folder.
    let write (folder: string) (rows: Row seq) : Result<unit, Fault list> =
        let fields (r: Row) = [ r.Stream; r.Method; string r.Seed; r.Step; r.Task; r.Metric; Csv.number r.Value ]

        writeWhole (Path.Combine(folder, "results.csv")) (Csv.write resultsHeader fields rows)

    /// Reads `results.csv` of a folder. Faults: `Missing`, or `Unreadable` with the line (the first ten of them).
    let read (folder: string) : Result<Row list, Fault list> =
        Csv.read (Path.Combine(folder, "results.csv")) resultsHeader (fun f ->
            { Stream = f[0]
              Method = f[1]
              Seed = Csv.whole "seed" f[2]
              Step = f[3]
              Task = f[4]
              Metric = f[5]
              Value = Csv.real "value" f[6] })

    let private lossesHeader = [ "method"; "seed"; "step"; "epoch"; "loss" ]

    /// Writes `losses.csv` into a folder.
    let writeLosses (folder: string) (rows: LossRow seq) : Result<unit, Fault list> =
        let fields (r: LossRow) = [ r.Method; string r.Seed; string r.Step; string r.Epoch; Csv.number r.Loss ]

        writeWhole (Path.Combine(folder, "losses.csv")) (Csv.write lossesHeader fields rows)

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

        writeWhole (Path.Combine(folder, "spectra.csv")) (Csv.write spectraHeader fields rows)

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

        writeWhole (Path.Combine(folder, "monitor.csv")) (Csv.write monitorHeader fields rows)

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

    /// The number of a step or task as a row writes it; None for `final` and `all`.
    let index (text: string) : int option =
        match Int32.TryParse(text, NumberStyles.None, invariant) with
        | true, i -> Some i
        | _ -> None

    /// The result matrix of a metric from the rows of one method and one seed: a column for every task that has the metric,
    /// trained by the step of its own number; its last row is the last step that was measured. None without such rows.
    let private matrixOf (metric: string) (rows: Row list) : ResultMatrix option =
        let entries =
            rows
            |> List.filter (fun r -> r.Metric = metric)
            |> List.choose (fun r ->
                match index r.Step, index r.Task with
                | Some step, Some task -> Some((step, task), r.Value)
                | _ -> None)

        if entries.IsEmpty then
            None
        else
            let values = Map.ofList entries
            let last = entries |> List.map (fst >> fst) |> List.max

            entries
            |> List.map (fst >> snd)
            |> List.distinct
            |> List.sort
            |> List.map (fun task ->
                { Task = string task
                  LearnedAt = task
                  Values = Array.init (last + 1) (fun step -> Map.tryFind (step, task) values) })
            |> Transfer.matrix last
            |> Result.toOption

    /// The result matrix of one method, seed and metric; None if there are no such rows.
    /// Example: `Results.matrix "dns" 0 "r10" [] |> Option.bind Transfer.bwt`.
    let matrix (method: string) (seed: int) (metric: string) (rows: Row list) : ResultMatrix option =
        rows |> List.filter (fun r -> r.Method = method && r.Seed = seed) |> matrixOf metric

    /// After the last step, the mean of a deviation over the tasks learned before it.
    let private lastDeviation (metric: string) (rows: Row list) : float option =
        match rows |> List.filter (fun r -> r.Metric = metric && (index r.Step).IsSome) with
        | [] -> None
        | deviations ->
            let last = deviations |> List.choose (fun r -> index r.Step) |> List.max

            deviations |> List.filter (fun r -> r.Step = string last) |> List.averageBy _.Value |> Some

    let private figures: (string * (Row list -> float option)) list =
        let of' (aggregate: ResultMatrix -> Average option) metric rows =
            matrixOf metric rows |> Option.bind aggregate |> Option.map _.Value

        [ "acc", of' Transfer.final "acc"
          "bwt_acc", of' Transfer.bwt "acc"
          "r1", of' Transfer.final "r1"
          "r5", of' Transfer.final "r5"
          "r10", of' Transfer.final "r10"
          "bwt_r10", of' Transfer.bwt "r10"
          "deviation_rel", lastDeviation "deviation_rel"
          "deviation_test_rel", lastDeviation "deviation_test_rel"
          "monitor_rel", lastDeviation "monitor_rel"
          "bound_rel", lastDeviation "bound_rel"
          "learned_acc", of' Transfer.learned "acc"
          "learned_r10", of' Transfer.learned "r10" ]

    /// The `final`/`all` rows of every stream, method and seed, from their rows per step. A figure that does not exist has
    /// no row: backward transfer of a method that was measured before and after only, deviation of one that never trained.
    let aggregates (rows: Row list) : Row list =
        rows
        |> List.groupBy (fun r -> r.Stream, r.Method, r.Seed)
        |> List.collect (fun ((stream, method, seed), own) ->
            [ for metric, figure in figures do
                  match figure own with
                  | Some value ->
                      { Stream = stream
                        Method = method
                        Seed = seed
                        Step = "final"
                        Task = "all"
                        Metric = metric
                        Value = value }
                  | None -> () ])
