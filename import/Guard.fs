namespace Cmcl

open System
open System.ComponentModel
open System.Diagnostics
open System.Globalization
open System.IO
open System.Threading

/// What is said of an import that was ended or broke off.
module private Epitaph =
    let private way = "write it anew with NumPy (docs/import.md, ten lines)"

    let private size (bytes: int64) : string =
        let number (x: float) = x.ToString("0.#", CultureInfo.InvariantCulture)
        let mib = float bytes / float (1L <<< 20)
        if mib < 1024.0 then $"{number mib} MiB" else $"{number (mib / 1024.0)} GiB"

    let tooLarge (limits: ImportLimits) (file: string) : Fault =
        let more = 2L * limits.Memory / (1L <<< 30) + 1L

        Fault.Unreadable(
            file,
            $"its reader asks for more memory than the limit of {size limits.Memory}; allow more with --memory {more}G, or {way}"
        )

    let tooLong (limits: ImportLimits) (file: string) : Fault =
        Fault.Unreadable(
            file,
            $"its reader was not done after {limits.Time.TotalSeconds:F0} s, the limit for a source of this size, and was ended; {way}"
        )

    let private signal (code: int) : string =
        match code with
        | 134 -> ", an abort"
        | 137 -> ", killed, perhaps by a system short of memory"
        | 139
        | -1073741819 -> ", a touch of memory that was not its own"
        | _ -> ""

    let brokeOff (limits: ImportLimits) (file: string) (code: int, said: string) : Fault =
        let unreadable (reason: string) = Fault.Unreadable(file, $"{reason}; {way}")

        if said.Contains "Stack overflow" || code = -1073741571 then
            unreadable $"its parts are nested so deeply that its reader's stack overflowed (exit code {code})"
        elif said.Contains "Out of memory" || said.Contains "OutOfMemoryException" || said.Contains "std::bad_alloc" then
            tooLarge limits file
        else
            let words = if said = "" then "" else $" and said: {ImportWorker.cut 250 said}"
            unreadable $"its reader broke off (exit code {code}{signal code}){words}"

/// Workers that run imports one after another, each within limits; one that broke off or was ended is replaced. `start` says how one is
/// started.
type ImportGuard(start: unit -> ProcessStartInfo, limits: ImportLimits) =
    let mutable child: ImportProcess option = None
    let mutable peak = 0L

    /// The most memory that a worker was seen to hold, in bytes.
    member _.Peak: int64 = peak

    /// `Importer.run` in the worker. `tell` is called by this thread. Whatever becomes of the worker, nothing is left of a stream that is not
    /// whole. Faults: those of `Importer.run`; a file that takes more than its limits or breaks its reader; a stop by `cancel`.
    member _.Run(cancel: CancellationToken, tell: ImportEvent -> unit, request: ImportRequest) : Result<string list, Fault list> =
        let clock = Stopwatch.StartNew()

        let leave (h: ImportProcess) (fault: Fault) =
            ImportProcess.stop h
            child <- None
            Error [ Fault.Told(ImportWorker.cut ImportWorker.MostOfSentence fault.Message) ]

        let rec follow (h: ImportProcess) (file: string) =
            match ImportProcess.hear h limits cancel clock (fun held -> peak <- max peak held) with
            | Heard.Answer(ImportAnswer.Event event) ->
                tell event

                match event with
                | ImportEvent.Reading now
                | ImportEvent.Rows(now, _, _) -> follow h now
            | Heard.Answer(ImportAnswer.Done notes) -> Ok notes
            | Heard.Answer(ImportAnswer.Refused sentences) -> Error(List.map Fault.Told sentences)
            | Heard.Answer(ImportAnswer.NoMemory file) -> leave h (Epitaph.tooLarge limits file)
            | Heard.TooLarge -> leave h (Epitaph.tooLarge limits file)
            | Heard.TooLong -> leave h (Epitaph.tooLong limits file)
            | Heard.Stopped -> leave h (Fault.Broke("the import", "it was stopped"))
            | Heard.Ended -> ImportProcess.death h |> Epitaph.brokeOff limits file |> leave h

        try
            let h = child |> Option.defaultWith (fun () -> ImportProcess.launch start limits)
            child <- Some h
            ImportProcess.ask h request
            follow h request.Source
        with
        | :? Win32Exception as e -> Error [ Fault.Broke("the import", $"no process for it can be started: {e.Message}") ]
        | _ ->
            // `tell` raised it, and the worker's answer is nobody's.
            Option.iter ImportProcess.stop child
            child <- None
            reraise ()

    interface IDisposable with
        member _.Dispose() = child |> Option.iter (ImportProcess.stop)

/// An import in a process of its own, which ends with one sentence or a stream, whatever a file does to its reader.
[<RequireQualifiedAccess>]
module Guard =
    /// `ImportGuard.Run` of a worker for this one import.
    let run
        (start: unit -> ProcessStartInfo)
        (limits: ImportLimits)
        (cancel: CancellationToken)
        (tell: ImportEvent -> unit)
        (request: ImportRequest)
        : Result<string list, Fault list> =
        use guard = new ImportGuard(start, limits)
        guard.Run(cancel, tell, request)
