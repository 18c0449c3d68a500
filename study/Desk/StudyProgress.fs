namespace Cmcl

open System
open System.Diagnostics

/// How a study's progress looks where somebody may be looking.
[<RequireQualifiedAccess>]
module internal StudyProgress =
    let private minutes (seconds: float) : string =
        let t = TimeSpan.FromSeconds seconds
        if t.TotalHours >= 1.0 then t.ToString @"h\:mm\:ss" else t.ToString @"m\:ss"

    /// Where nobody watches a line change, so many seconds pass from one line to the next.
    let private apart = 10.0

    /// Writes to standard error what is over, with what is left by the time that it took: in a terminal one line that changes, elsewhere a line
    /// now and then, so that a short study says nothing. Cells that were finished before are only counted.
    let console () : StudyEvent -> unit =
        let clock = Stopwatch.StartNew()
        let mutable cells = 0
        let mutable over = 0
        let mutable trained = 0
        let mutable width = 0
        let mutable said = 0.0
        let still = Console.IsErrorRedirected

        let write (line: string) =
            if still then
                if clock.Elapsed.TotalSeconds - said >= apart then
                    eprintfn "%s" line
                    said <- clock.Elapsed.TotalSeconds
            else
                eprintf "\r%s" (line.PadRight width)
                width <- line.Length

        /// A line of its own.
        let say (text: string) =
            if not still then
                eprintf "\r%s\r" ("".PadRight width)

            eprintfn "%s" text

        let ended (job: Job) (before: bool) (fault: Fault option) =
            over <- over + 1

            if not before then
                trained <- trained + 1

            Option.iter (fun (fault: Fault) -> say fault.Message) fault

            let left =
                if trained = 0 then
                    ""
                else
                    let each = clock.Elapsed.TotalSeconds / float trained
                    $", {minutes clock.Elapsed.TotalSeconds}, {minutes (each * float (cells - over))} left"

            let place = if job.Order = 0 then "" else $" order {job.Order}"
            let state = if before then " (finished before)" else ""

            if not before || over = cells then
                write $"{over}/{cells} {job.Plan.Label}{place} seed {job.Seed}{state}{left}"

            if over = cells && not still then
                eprintfn ""

        function
        | StudyEvent.Began(count, _) -> cells <- count
        | StudyEvent.Started _
        | StudyEvent.Resumed _
        | StudyEvent.Progress _ -> ()
        | StudyEvent.Ended(job, before, fault) -> ended job before fault
        | StudyEvent.Warning(job, fault) -> say $"{job.Plan.Label} (seed {job.Seed}) goes on: {fault.Message}"
        | StudyEvent.Unwritten fault -> say $"{fault.Message} The study ends here with {over} of {cells}; they are in its result."
        | StudyEvent.Stopped count ->
            write $"stopped with {count} of {cells} unfinished"

            if not still then
                eprintfn ""
