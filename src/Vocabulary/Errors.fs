namespace Cmcl

open System
open System.Collections.Generic

/// Everything that can be wrong with what a user gives: options, files, data. A value, so that several can be gathered
/// and told at once; this file is the one place that words them.
[<RequireQualifiedAccess>]
type Fault =
    /// A file or folder that is not there: its path, and what asked for it.
    | Missing of path: string * neededBy: string
    /// A file that is there but cannot be understood: its path, what is wrong with it.
    | Unreadable of path: string * reason: string
    /// A place that cannot be written to.
    | Unwritable of path: string * reason: string
    /// A folder that already holds results.
    | Occupied of path: string
    /// Sizes that do not fit: what, what was expected, what came.
    | Shape of what: string * expected: string * actual: string
    /// A NaN or an infinity: in what, in which row (0-based).
    | NonFinite of what: string * row: int64
    /// A name that nothing has: the kind of thing, the name given, the names there are.
    | Unknown of kind: string * given: string * known: string list
    /// A value that an option or a field does not take: its name, what it takes, what came.
    | BadValue of name: string * expected: string * given: string
    /// A list of rows with nothing in it: the step and the split.
    | EmptySplit of step: string * split: string
    /// A batch that the step cannot fill: the step, the batch, the rows it has.
    | BatchTooLarge of step: string * batch: int * rows: int
    /// A row that a bank does not have: where it is named, the row, how many rows there are.
    | RowOutOfRange of where: string * row: int64 * rows: int64
    /// Two wishes that exclude each other, and what would work.
    | Contradiction of what: string * instead: string
    /// Training that left the finite numbers: the method, the seed, the step, the epoch.
    | Diverged of method: string * seed: int * step: string * epoch: int
    /// What ended by an exception, as a cell of a run, and what the exception says.
    | Broke of what: string * reason: string
    /// A folder that another process writes to, and who that is.
    | Held of path: string * holder: string
    /// A key of a description that nothing reads: where it stands, the key, the keys that are read there.
    | UnknownKey of where: string * key: string * known: string list
    /// A key of a description that has to be there: where, the key.
    | MissingKey of where: string * key: string
    /// Several at once, for an exception that tells all of them.
    | Several of Fault list
    /// A fault with the place in a file that it comes from.
    | At of place: string * fault: Fault
    /// No libtorch to compute with, and what the loader said.
    | NoLibtorch of reason: string

    /// One sentence or two: what was expected, what came, what to do.
    member fault.Message: string =
        match fault with
        | Missing(path, neededBy) -> $"'{path}' does not exist; {neededBy} needs it."
        | Unreadable(path, reason) -> $"'{path}' cannot be read: {reason.TrimEnd '.'}."
        | Unwritable(path, reason) -> $"'{path}' cannot be written: {reason.TrimEnd '.'}."
        | Occupied path ->
            $"'{path}' already holds results; choose another folder with --out, replace them with --force, or go on with an interrupted run by cmcl resume."
        | Shape(what, expected, actual) -> $"{what}: expected {expected}, got {actual}."
        | NonFinite(what, row) -> $"{what} has a NaN or infinite value in row {row}; every feature must be finite."
        | Unknown(kind, given, known) ->
            let names = String.Join(", ", known)

            match Fault.Nearest given known with
            | Some name when known.Length > 12 -> $"there is no {kind} '{given}'; did you mean '{name}'?"
            | Some name -> $"there is no {kind} '{given}'; did you mean '{name}'? Known: {names}."
            | None -> $"there is no {kind} '{given}'. Known: {names}."
        | BadValue(name, expected, given) -> $"{name} takes {expected}, not '{given}'."
        | EmptySplit(step, split) -> $"step '{step}' has no {split} rows; every step needs at least one."
        | BatchTooLarge(step, batch, rows) ->
            $"a batch of {batch} is larger than the {rows} training rows of step '{step}'; use --batch {rows} or less, or --batch all."
        | RowOutOfRange(where, row, rows) -> $"{where} names row {row}, but there are only {rows} rows (0 to {rows - 1L})."
        | Contradiction(what, instead) -> $"{what}; {instead}."
        | Diverged(method, seed, step, epoch) ->
            $"{method} (seed {seed}) diverged in step {step}, epoch {epoch}: its loss or its weights are not finite. Try a lower --lr, or --clip."
        | Broke(what, reason) -> $"{what} broke off: {reason.TrimEnd '.'}."
        | Held(path, holder) ->
            $"'{path}' is being written to by {holder}; wait until that is done or end it, or choose another folder with --out."
        | UnknownKey(where, key, known) ->
            let names = String.Join(", ", known)

            match Fault.Nearest key known with
            | Some name -> $"{where} has an unknown key '{key}'; did you mean '{name}'? Known: {names}."
            | None -> $"{where} has an unknown key '{key}'. Known: {names}."
        | MissingKey(where, key) -> $"{where} has no '{key}', which it needs."
        | At(place, fault) -> $"{place}: {fault.Message}"
        | Several faults -> String.Join("\n", faults |> List.map _.Message)
        | NoLibtorch reason ->
            $"libtorch cannot be loaded: {reason}. Set {Native.FolderVariable} to the folder of a libtorch 2.10, such as Python's torch/lib, or build with -p:Torch=cpu."

    /// The known name that is close enough to be a slip of the keyboard.
    static member private Nearest (given: string) (known: string list) : string option =
        let distance (a: string) (b: string) =
            let next (previous: int[]) (i: int) =
                let row = Array.zeroCreate (b.Length + 1)
                row[0] <- i

                for j in 1 .. b.Length do
                    let change = if a[i - 1] = b[j - 1] then 0 else 1
                    row[j] <- min (min (row[j - 1] + 1) (previous[j] + 1)) (previous[j - 1] + change)

                row

            Array.last (Seq.fold next [| 0 .. b.Length |] [ 1 .. a.Length ])

        known
        |> List.map (fun name -> name, distance (given.ToLowerInvariant()) (name.ToLowerInvariant()))
        |> List.filter (fun (name, d) -> d <= (name.Length + 2) / 3)
        |> List.sortBy snd
        |> List.tryHead
        |> Option.map fst

    /// The message of each fault where there are several, else the one message.
    member fault.Sentences: IReadOnlyList<string> =
        match fault with
        | Several faults -> faults |> List.collect (fun f -> List.ofSeq f.Sentences) |> ResizeArray :> IReadOnlyList<string>
        | one -> [| one.Message |]

/// A fault as an exception: a programmer's mistake in a pure function, or the end of a run.
exception CmclException of Fault with
    override e.Message = e.Data0.Message
    /// What is wrong, a sentence or two for each fault; the message has them as lines.
    member e.Sentences: IReadOnlyList<string> = e.Data0.Sentences

/// Checks that gather every fault instead of stopping at the first.
[<RequireQualifiedAccess>]
module Check =
    /// Raises the fault as a `CmclException`.
    let fail (fault: Fault) : 'a = raise (CmclException fault)

    /// The value, or the first fault as an exception: for scripts, where nobody asks.
    let get (result: Result<'a, Fault list>) : 'a =
        match result with
        | Ok value -> value
        | Error(fault :: _) -> fail fault
        | Error [] -> invalidOp "an error without a fault"

    /// The value, or all faults as one exception.
    let getAll (result: Result<'a, Fault list>) : 'a =
        match result with
        | Error(_ :: _ :: _ as faults) -> fail (Fault.Several faults)
        | other -> get other

    /// Where in a program an exception comes from that is neither .NET's nor TorchSharp's own.
    let private origin (e: exn) : string option =
        let isForeign (line: string) =
            [ "at System."; "at Microsoft."; "at TorchSharp." ]
            |> List.exists (fun start -> line.StartsWith(start, StringComparison.Ordinal))

        (string e.StackTrace).Split('\n', StringSplitOptions.TrimEntries ||| StringSplitOptions.RemoveEmptyEntries)
        |> Array.tryFind (fun line -> line.StartsWith "at " && not (isForeign line))

    /// What an exception says, in a line: libtorch's go on with its own stack. Faults speak for themselves; others with their kind and where they
    /// come from.
    let reason (e: exn) : string =
        match e with
        | CmclException fault -> fault.Message
        | e ->
            let line = e.Message.Split '\n' |> Array.map _.Trim() |> Array.tryFind ((<>) "") |> Option.defaultValue "no message"
            let place = origin e |> Option.map (fun place -> $", {place}") |> Option.defaultValue ""
            $"{line.TrimEnd '.'} ({e.GetType().Name}{place})"

    /// The result of `work`; whatever exception it raises is `Broke`, told by the name of what was done.
    let guarded (what: string) (work: unit -> Result<'a, Fault list>) : Result<'a, Fault list> =
        try
            work ()
        with e ->
            Error [ Fault.Broke(what, reason e) ]

    /// Every value, or every fault.
    let all (results: Result<'a, Fault list> list) : Result<'a list, Fault list> =
        let faults =
            results
            |> List.collect (function
                | Error f -> f
                | Ok _ -> [])

        if List.isEmpty faults then
            Ok(
                results
                |> List.choose (function
                    | Ok v -> Some v
                    | Error _ -> None)
            )
        else
            Error faults
