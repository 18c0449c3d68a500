namespace Cmcl

open System
open System.IO
open TorchSharp

/// Plans × seeds over a stream in this process, with the results in a folder: what `cmcl run` does.
[<RequireQualifiedAccess>]
module Experiment =
    /// A request as a study, with as many threads as libtorch has now.
    let private study (request: Request) : Study =
        { Streams =
            [ { Source = None
                Stream = request.Stream
                Threads = torch.get_num_threads () } ]
          Configurations = Configurations.Planned request.Plans
          Orders = [ 0 ]
          Seeds = request.Seeds
          Split = request.Split
          Device = request.Device
          Monitor = request.Monitor }

    /// Each plan with every seed.
    let internal jobs (request: Request) : Job[] = study request |> Study.cells |> Check.getAll |> Array.ofList

    /// The cells of a request, each with its updates.
    let cells (request: Request) : (Cell * int64) list = [ for job in jobs request -> job.Cell, Job.work job ]

    /// Whether every head that a job saves with its weights is there.
    let private hasWeights (request: Request) (job: Job) : bool =
        not (Method.learns job.Plan.Method)
        || ResultsFolder.hasWeights request.Out job.Plan.Label job.Seed request.Stream (List.last request.Stream.Steps)

    let private identities (request: Request) : string list = [ for job in jobs request -> Job.identity job ]

    /// Whether a request goes on with what the results in its folder are of: all that is in its tables is finished in its store and would be in the
    /// tables again, and more would.
    let private extends (request: Request) : bool =
        let store = Store.Folder request.Out
        let jobs = jobs request

        let finished = jobs |> Array.filter (fun job -> Store.find store (Job.identity job) |> Result.exists Option.isSome)

        let cells = set [ for job in finished -> request.Stream.Name, job.Plan.Label, job.Seed ]

        match Results.read request.Out with
        | Ok(_ :: _ as rows) ->
            File.Exists(Path.Combine(request.Out, "config.json"))
            && finished.Length < jobs.Length
            && rows |> List.forall (fun r -> cells.Contains(r.Stream, r.Method, r.Seed))
        | Ok []
        | Error _ -> false

    /// Makes sure that a request's results can go to its folder. With `force` what the folder has of them is deleted, also finished cells, and nothing
    /// of the user's own. Without, a folder with results is taken if the request goes on with them: all that is in its tables is finished in
    /// its store, would be in them again, and more would. Faults: `Occupied`, `Unwritable`, `Held`.
    let prepare (force: bool) (request: Request) : Result<unit, Fault list> =
        if not force && extends request then
            Ok()
        else
            ResultsFolder.prepare force request.Out
            |> Result.bind (fun () -> if force then Store.forget (Store.Folder request.Out) (identities request) else Ok())

    /// Whether a request that was left can be gone on with. Fault: `Contradiction` where an earlier version or other code has what it would begin anew.
    let resumable (request: Request) : Result<unit, Fault list> =
        match Adoption.others request.Out (identities request) with
        | 0 -> Ok()
        | count -> Error [ Adoption.fault request.Out count "cmcl run with --force begins anew" ]

    /// Runs every plan with every seed, `Jobs` of them side by side, and writes `results.csv`, `losses.csv`, `spectra.csv`, `config.json` and with
    /// a monitor `monitor.csv` now and then and at the end, so that what is finished can be read. What is finished is a file of the folder's `cells`,
    /// and is not run again; one that was stopped resumes from its checkpoint. A run that diverges or breaks off by whatever
    /// exception is recorded, and the others go on. What a run gives does not depend on those beside it. `tell` is called by one
    /// thread at a time, `stop` by every thread that trains; what either raises is raised when all that is finished is written. When results or
    /// tables cannot be written, no more runs begin. Faults: the folder cannot be written to at the beginning.
    let run
        (folder: FolderLock)
        (checkpointing: Checkpointing)
        (stop: unit -> bool)
        (created: DateTimeOffset)
        (tell: StudyEvent -> unit)
        (request: Request)
        : Result<Finished, Fault list> =
        let jobs = jobs request
        let ledger = Ledger(folder, created, request, jobs.Length)
        let outside = Callbacks(tell, stop)

        let save (job: Job) (step: Step) (heads: Heads) =
            if request.SaveWeights then
                ResultsFolder.saveWeights request.Out job.Plan.Label job.Seed step heads

        let settings =
            { JobSettings.on (Store.Folder request.Out) with
                Checkpointing = checkpointing
                Gone = fun () -> if folder.IsAnothers then [ folder.Gone ] else []
                IsComplete = fun job -> not request.SaveWeights || hasWeights request job
                Save = save }

        let ended place (how: CellEnd) (record: CellRecord option) : Fault list =
            let cell = jobs[place].Cell
            let lines = record |> Option.map (Lines.ofRecord request cell)

            match how, lines with
            | (CellEnd.Finished(_, true) | CellEnd.Failed(_, true)), Some lines -> ledger.Take(place, lines)
            | _, Some lines -> ledger.Finish(place, lines)
            | CellEnd.Broken faults, None -> ledger.Finish(place, Lines.broken cell faults)
            | _, None -> ()

            match how with
            | CellEnd.Unwritten faults -> ledger.Refuse faults
            | _ -> ()

            ledger.Unwritten

        let begun = if request.SaveWeights then ResultsFolder.makeWeights request.Out else Ok()

        begun
        |> Result.bind (fun () -> Lines.writeRecord created jobs.Length request [])
        |> Result.bind (fun () -> Engine.run (InProcess.engine request.Jobs) settings outside.Stop outside.Tell ended jobs)
        |> Result.map (fun () ->
            ledger.Write()
            outside.Rethrow()
            ledger.Finished)
