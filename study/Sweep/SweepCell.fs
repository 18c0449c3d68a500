namespace Cmcl

open System.Text.Json.Serialization

/// A cell of a sweep as its folder lists it, so that it is known without any data: what decides its figures, and what a worker has to know.
type SweepCell =
    {
        Cell: Cell
        /// What its method's figures are to be read as (`Role.name`).
        Role: string
        Identity: string
        /// `cells.jsonl` calls it so.
        [<JsonPropertyName "Errand">]
        Job: WorkerJob
        /// Updates of training, all steps together.
        Updates: int64
        /// The most memory that its process will hold, in bytes, as far as its stream's size tells.
        Memory: int64
    }

[<RequireQualifiedAccess>]
module SweepCell =
    /// What a process holds without data; and how often a stream's features stand in memory as float32: as stored, and what of
    /// them is gathered, projected and compared at one time.
    let private own, often = 350L <<< 20, 3L

    let private memory (stream: Cmcl.Stream) : int64 =
        let banks = stream.Steps |> List.collect (fun s -> [ s.A; s.B ]) |> List.distinctBy _.Name
        own + often * 4L * (banks |> List.sumBy _.Features.numel())

    /// A cell with results in a folder. None where another process cannot make its job.
    let ofJob (out: string) (job: Job) : SweepCell option =
        job.AsWritten
        |> Option.map (fun written ->
            { Cell = job.Cell
              Role = Role.name job.Plan.Method.Role
              Identity = Job.identity job
              Job = WorkerJob.ofJob out 1 written job
              Updates = Job.work job
              Memory = memory job.Stream })

    /// The measurements of a finished cell, as rows of `results.csv` without aggregates.
    let rows (c: SweepCell) (record: CellRecord) : Row list = Lines.ofCell c.Cell record
