namespace Cmcl

open System
open System.Diagnostics

/// What an experiment found, and what its folder holds of it.
type Finished =
    {
        Rows: Row list
        /// Cells, a method with a seed each, that ended early: label, seed, why.
        Failures: (string * int * string) list
        /// How many of those failed for a reason that may not recur: they run again when resumed.
        Broken: int
        /// Cells that were left before their end.
        Left: int
        /// Why the folder does not hold all of this, if so.
        Unwritten: Fault list
    }

/// What has become of the runs of a request, and the tables of that. To be used by one thread at a time.
type internal Ledger(folder: FolderLock, created: DateTimeOffset, request: Request, count: int) =
    /// The tables are written again when writing them took so small a share of the time since: soon after every cell while there are few, and
    /// never much of the time however many there are.
    static let writingShare = 0.05

    let over: Lines option[] = Array.create count None
    let clock = Stopwatch.StartNew()
    let mutable writing = TimeSpan.Zero
    let mutable unwritten: Fault list = []
    let mutable refused: Fault list = []

    let ended () = over |> Seq.choose id |> List.ofSeq
    let left () = over |> Seq.filter _.IsNone |> Seq.length
    let broken () = ended () |> List.filter _.Again |> List.length

    let write () =
        let begun = clock.Elapsed

        unwritten <-
            if folder.IsAnothers then
                [ folder.Gone ]
            else
                match Lines.write created (left () + broken ()) request (ended ()) with
                | Ok() -> []
                | Error faults -> faults

        writing <- clock.Elapsed - begun
        clock.Restart()

    /// A run had ended before: the tables may have it already.
    member _.Take(place: int, lines: Lines) : unit = over[place] <- Some lines

    /// A run has ended.
    member _.Finish(place: int, lines: Lines) : unit =
        over[place] <- Some lines

        if writing <= writingShare * clock.Elapsed then
            write ()

    member _.Write() : unit = write ()

    /// Results of single runs cannot be written.
    member _.Refuse(faults: Fault list) : unit = refused <- faults

    /// Why results or, the last time, the tables could not be written.
    member _.Unwritten: Fault list = List.distinct (refused @ unwritten)

    member this.Finished: Finished =
        let ended = ended ()

        { Rows = (ended |> List.collect _.Figures) @ (ended |> List.collect _.Finals)
          Failures = ended |> List.collect _.Failures
          Broken = broken ()
          Left = left ()
          Unwritten = this.Unwritten }
