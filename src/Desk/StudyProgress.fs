namespace Cmcl

open System
open System.Diagnostics

/// How a study's progress looks where somebody may be looking.
[<RequireQualifiedAccess>]
module internal StudyProgress =
    let private minutes (seconds: float) : string =
        let t = TimeSpan.FromSeconds seconds
        if t.TotalHours >= 1.0 then t.ToString @"h\:mm\:ss" else t.ToString @"m\:ss"

    /// Writes a line to standard error for every cell that is over, with what is left by the time that the others took; in a terminal one line
    /// that changes. Cells that were finished before are only counted.
    let console () : StudyEvent -> unit =
        let clock = Stopwatch.StartNew()
        let mutable cells = 0
        let mutable over = 0
        let mutable trained = 0
        let mutable width = 0
        let still = Console.IsErrorRedirected

        let write (line: string) =
            if still then
                eprintfn "%s" line
            else
                eprintf "\r%s" (line.PadRight width)
                width <- line.Length

        let ended (label: string) (order: int) (seed: int) (before: bool) (fault: Fault option) =
            over <- over + 1

            if not before then
                trained <- trained + 1

            match fault with
            | Some fault ->
                write ""
                eprintf "\r"
                eprintfn "%s" fault.Message
            | None -> ()

            let left =
                if trained = 0 then
                    ""
                else
                    let each = clock.Elapsed.TotalSeconds / float trained
                    $", {minutes clock.Elapsed.TotalSeconds}, {minutes (each * float (cells - over))} left"

            let place = if order = 0 then "" else $" order {order}"
            let state = if before then " (finished before)" else ""

            if not before || over = cells then
                write $"{over}/{cells} {label}{place} seed {seed}{state}{left}"

            if over = cells && not still then
                eprintfn ""

        function
        | StudyEvent.Began(count, _) -> cells <- count
        | StudyEvent.Ended(label, order, seed, before, fault) -> ended label order seed before fault
