namespace Cmcl

open System
open System.Collections.Concurrent
open System.Runtime.ExceptionServices
open System.Threading.Tasks

/// The engine that runs jobs in this process, on threads of its own. It takes every job.
[<RequireQualifiedAccess>]
module InProcess =
    /// Does the work on every item in order, so many at a time; with one, on this thread.
    let private inTurn (sideBySide: int) (work: 'a -> unit) (items: 'a list) : unit =
        if sideBySide <= 1 then
            List.iter work items
        else
            let items = Partitioner.Create(items, EnumerablePartitionerOptions.NoBuffering)

            try
                Parallel.ForEach(items, ParallelOptions(MaxDegreeOfParallelism = sideBySide), work) |> ignore
            with :? AggregateException as e ->
                ExceptionDispatchInfo.Capture(e.Flatten().InnerExceptions[0]).Throw()

    /// With so many jobs side by side. What a job gives does not depend on those beside it. A job that is asked to stop does so after an update.
    let engine (sideBySide: int) : Engine =
        { Name = "in process"
          Accepts = fun _ _ -> []
          Run =
            fun settings calls jobs ->
                let settings =
                    { settings with
                        Jobs = sideBySide
                        IsAlone = sideBySide <= 1 }

                let work (place: int, job: Job) : unit =
                    if not (calls.Leave()) then
                        calls.Ended place (Job.run settings calls.Stop (calls.Tell place) job)

                inTurn sideBySide work jobs
                Ok() }
