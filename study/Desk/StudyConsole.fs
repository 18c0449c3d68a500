namespace Cmcl

open System
open System.Diagnostics

/// How a study of a script looks where somebody may be looking.
[<RequireQualifiedAccess>]
module internal StudyConsole =
    /// Where nobody watches a line change, so much time passes from one line to the next.
    let private apart = TimeSpan.FromSeconds 10.0

    /// Writes to standard error how far a study of these cells is and what goes wrong: in a terminal one line that changes, elsewhere a line now and
    /// then, so that a short study says nothing.
    let listener (cells: (Cell * int64) list) : StudyEvent -> unit =
        let clock = Stopwatch.StartNew()
        let still = Console.IsErrorRedirected
        let mutable progress = Progress.start cells
        let mutable sideBySide = 1
        let mutable width = 0
        let mutable written = TimeSpan.Zero

        let show () =
            let line = Progress.sentence sideBySide clock.Elapsed progress

            if not still then
                eprintf "\r%s" (line.PadRight width)
                width <- line.Length
            elif clock.Elapsed - written >= apart then
                eprintfn "%s" line
                written <- clock.Elapsed

        fun event ->
            progress <- Progress.after event progress

            match event with
            | StudyEvent.Began(_, n) -> sideBySide <- n
            | _ -> ()

            match Progress.said progress event with
            | Some text when Progress.isBad event ->
                if not still then
                    eprintf "\r%s\r" ("".PadRight width)

                eprintfn "%s" text
            | _ -> ()

            match event with
            | StudyEvent.Cell(_, CellEvent.Ended(CellEnd.Finished(_, true)))
            | StudyEvent.Cell(_, CellEvent.Ended(CellEnd.Failed(_, true))) when not progress.Waiting.IsEmpty -> ()
            | StudyEvent.Cell(_, CellEvent.Ended _)
            | StudyEvent.Stopped _ ->
                show ()

                if not still && progress.Waiting.IsEmpty && progress.Running.IsEmpty then
                    eprintfn ""
            | _ -> ()
