namespace Cmcl

open System

/// Plans × seeds over a stream in this process, with the results in a folder: what `cmcl run` does.
[<RequireQualifiedAccess>]
module Experiment =
    /// Runs every plan with every seed, `Jobs` of them side by side, and writes `results.csv`, `losses.csv`, `spectra.csv`, `config.json` and with
    /// a monitor `monitor.csv` now and then and at the end, so that what is finished can be read. A run that diverges or breaks off by whatever
    /// exception is recorded, and the others go on. What a run gives does not depend on those beside it. `tell` is called by one
    /// thread at a time, `stop` by every thread that trains; what either raises is raised when all that is finished is written. With checkpoints, under `checkpoints` in the folder
    /// until all is done, a finished run is not repeated, and one that was stopped resumes. When tables cannot be written, no more runs
    /// begin. Faults: the folder cannot be written to at the beginning.
    let run
        (folder: FolderLock)
        (checkpointing: Checkpointing)
        (stop: unit -> bool)
        (created: DateTimeOffset)
        (tell: StudyEvent -> unit)
        (request: Request)
        : Result<Finished, Fault list> =
        let jobs =
            [| for plan in request.Plans do
                   for seed in request.Seeds ->
                       { Stream = request.Stream
                         Order = 0
                         Plan = plan
                         Seed = seed } |]

        let ledger = Ledger(folder, created, request, jobs.Length)
        let outside = Callbacks(tell, stop)
        let warn job faults = List.iter (fun fault -> outside.Tell(StudyEvent.Warning(job, fault))) faults

        let save (job: Job) (step: Step) (heads: Heads) =
            if request.SaveWeights then
                ResultsFolder.saveWeights request.Out job.Plan.Label job.Seed step heads

        let settings =
            { JobSettings.on request.Device request.Split with
                Checkpointing = checkpointing
                Folder = fun _ -> Some(ResultsFolder.checkpoints request.Out)
                Owned = fun () -> not folder.IsAnothers
                KeepsResult = true
                Monitor = request.Monitor
                Save = save }

        let ended place (result: Result<JobResult, Fault list>) : Fault list =
            let job = jobs[place]

            match result with
            | Ok r ->
                warn job r.Unwritten
                ledger.Finish(place, Lines.ofOutcome request job.Plan job.Seed r.Monitor r.Outcome)
            | Error faults -> ledger.Finish(place, Lines.failed job.Plan job.Seed faults)

            []

        let begun = if request.SaveWeights then ResultsFolder.makeWeights request.Out else Ok()

        begun
        |> Result.bind (fun () -> Lines.writeRecord created jobs.Length request [])
        |> Result.map (fun () ->
            let refuse () = not ledger.Unwritten.IsEmpty
            InProcess.run settings request.Jobs None refuse outside.Stop outside.Tell ended jobs
            ledger.Write()
            let finished = ledger.Finished

            if finished.Left + finished.Broken = 0 && finished.Unwritten.IsEmpty then
                ResultsFolder.forget request.Out |> Result.defaultWith (warn (Array.last jobs))

            outside.Rethrow()
            finished)
