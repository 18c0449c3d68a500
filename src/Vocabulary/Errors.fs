namespace Cmcl

open System
open System.Collections.Generic
open System.Reflection
open System.Text.RegularExpressions

/// Options inside a sentence, marked so that each can be written as the user wrote it: `--place gradient`, or `place=gradient` in
/// brackets, in F# and in a file.
[<RequireQualifiedAccess>]
module internal Mention =
    // Of the private use area: no file name and no value has them by accident.
    let private first, last = '\uE000', '\uE001'
    let private marked = Regex $"{first}([^{first}{last}]*){last}"

    /// An option by its name.
    let option (name: string) : string = $"{first}{name}{last}"

    /// An option with a value.
    let setting (name: string) (value: string) : string = $"{first}{name}={value}{last}"

    /// The options that a text mentions, each with its value where it has one.
    let all (text: string) : (string * string option) list =
        [ for m in marked.Matches text ->
              match m.Groups[1].Value.Split('=', 2) with
              | [| name; value |] -> name, Some value
              | parts -> parts[0], None ]

    /// The text with every option as `write` has it.
    let rewrite (write: string -> string option -> string) (text: string) : string =
        marked.Replace(text, (fun (m: Match) -> all m.Value |> List.map (fun (name, value) -> write name value) |> String.Concat))

    /// The text with every option as `name` or `name=value`.
    let plain (text: string) : string = marked.Replace(text, "$1")

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
    /// An option that is another's or nobody's: whose it was taken for, its name, the options that there are.
    | NotAnOption of owner: string * given: string * known: string list
    /// A word that is none of those that an option takes: its name, what came, the words that it takes.
    | NotOneOf of name: string * given: string * known: string list
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
    /// What another process tells, which is a sentence already.
    | Told of sentence: string
    /// No libtorch to compute with, and what the loader said.
    | NoLibtorch of reason: string

    /// One sentence or two: what was expected, what came, what to do.
    member fault.Message: string = Mention.plain fault.Sentence

    member private fault.Sentence: string =
        match fault with
        | Missing(path, neededBy) -> $"'{path}' does not exist; {neededBy} needs it."
        | Unreadable(path, reason) -> $"'{path}' cannot be read: {reason.TrimEnd '.'}."
        | Unwritable(path, reason) -> $"'{path}' cannot be written: {reason.TrimEnd '.'}."
        | Occupied path ->
            $"'{path}' already holds results; choose another folder with --out, replace them with --force, or resume an interrupted run with cmcl resume."
        | Shape(what, expected, actual) -> $"{what}: expected {expected}, got {actual}."
        | NonFinite(what, row) -> $"{what} has a NaN or infinite value in row {row}; every feature must be finite."
        | Unknown(kind, given, known) -> $"there is no {kind} '{given}'{Fault.Suggestion(given, known)}"
        | NotAnOption(owner, given, []) -> $"'{given}' is not an option of {owner}, which takes none; leave it out."
        | NotAnOption(owner, given, known) -> $"'{given}' is not an option of {owner}{Fault.Suggestion(given, known)}"
        | BadValue(name, expected, given) -> $"{name} takes {expected}, not '{given}'."
        | NotOneOf(name, given, known) ->
            match Fault.Nearest given known with
            | Some meant -> $"{name} takes {Fault.Choice known}, not '{given}'; did you mean '{meant}'?"
            | None -> $"{name} takes {Fault.Choice known}, not '{given}'."
        | EmptySplit(step, split) -> $"step '{step}' has no {split} rows; every step needs at least one."
        | BatchTooLarge(step, batch, rows) ->
            $"a batch of {batch} is larger than the {rows} training rows of step '{step}'; set batch to {rows} or less, or to all."
        | RowOutOfRange(where, row, rows) -> $"{where} names row {row}, but there are only {rows} rows (0 to {rows - 1L})."
        | Contradiction(what, instead) -> $"{what}; {instead}."
        | Diverged(method, seed, step, epoch) ->
            $"{method} (seed {seed}) diverged in step {step}, epoch {epoch}: its loss or its weights are not finite. Try a lower learning rate (lr), or a bound on gradients (clip)."
        | Broke(what, reason) -> $"{what} broke off: {reason.TrimEnd '.'}."
        | Held(path, holder) ->
            $"'{path}' is being written to by {holder}; wait until that is done or end it, or choose another folder with --out."
        | UnknownKey(where, key, known) -> $"{where} has an unknown key '{key}'{Fault.Suggestion(key, known)}"
        | MissingKey(where, key) -> $"{where} has no '{key}', which it needs."
        | At(place, fault) -> $"{place}: {fault.Message}"
        | Several faults -> String.Join("\n", faults |> List.map _.Message)
        | Told sentence -> sentence
        | NoLibtorch reason ->
            $"libtorch cannot be loaded: {reason}. Set {Native.FolderVariable} to the folder of a libtorch 2.10, such as Python's torch/lib, or build with -p:Torch=cpu."

    /// `a, b or c`.
    static member internal Choice(words: string list) : string =
        match List.rev words with
        | last :: (_ :: _ as before) -> String.Join(", ", List.rev before) + " or " + last
        | _ -> String.Join(", ", words)

    /// How a sentence about a name that there is not ends.
    static member private Suggestion(given: string, known: string list) : string =
        let names = String.Join(", ", known)

        match Fault.Nearest given known with
        | Some name when known.Length > 12 -> $"; did you mean '{name}'?"
        | Some name -> $"; did you mean '{name}'? Known: {names}."
        | None -> $". Known: {names}."

    /// How many slips of the keyboard lead from one word to another: a letter too many, too few, wrong, or two that changed places.
    static member private Slips (a: string) (b: string) : int =
        let next (before: int[], last: int[]) (i: int) =
            let row = Array.zeroCreate (b.Length + 1)
            row[0] <- i

            for j in 1 .. b.Length do
                let change = if a[i - 1] = b[j - 1] then 0 else 1
                row[j] <- min (min (row[j - 1] + 1) (last[j] + 1)) (last[j - 1] + change)

                if i > 1 && j > 1 && a[i - 1] = b[j - 2] && a[i - 2] = b[j - 1] then
                    row[j] <- min row[j] (before[j - 2] + 1)

            last, row

        Seq.fold next ([||], [| 0 .. b.Length |]) [ 1 .. a.Length ] |> snd |> Array.last

    /// The known name that was likely meant: one that a slip or two lead to, else the only one that contains what came.
    static member private Nearest (given: string) (known: string list) : string option =
        let given = given.Trim().ToLowerInvariant()
        let words = known |> List.filter (fun name -> not (name.Contains ' '))

        let near =
            words
            |> List.map (fun name -> name, Fault.Slips given (name.ToLowerInvariant()))
            |> List.filter (fun (name, slips) -> slips <= (name.Length + 2) / 3)
            |> List.sortBy snd

        match near, words |> List.filter (fun name -> given.Length > 2 && name.ToLowerInvariant().Contains given) with
        | (name, _) :: _, _
        | [], [ name ] -> Some name
        | _ -> None

    /// The same with the options that it speaks of written by `write`, which is given an option's name and, where it is known, its value.
    member fault.WithOptions(write: string -> string option -> string) : Fault =
        let reword = Mention.rewrite write

        match fault with
        | BadValue(name, expected, given) -> BadValue(reword name, reword expected, given)
        | NotOneOf(name, given, known) -> NotOneOf(reword name, given, known)
        | Contradiction(what, instead) -> Contradiction(reword what, reword instead)
        | At(place, inner) -> At(place, inner.WithOptions write)
        | Several faults -> Several(faults |> List.map _.WithOptions(write))
        | other -> other

    /// The message of each fault where there are several, else the one message.
    member fault.Sentences: IReadOnlyList<string> =
        match fault with
        | Several faults -> faults |> List.collect (fun f -> List.ofSeq f.Sentences) |> ResizeArray :> IReadOnlyList<string>
        | one -> [| one.Message |]

/// A fault as an exception: a programmer's mistake in a pure function, or the end of a run.
exception CmclException of Fault with
    override e.Message = e.Data0.Message

    /// In F# Interactive the message with the line of the script that it came from, which is all that its user has to know; elsewhere what any
    /// exception says of itself.
    override e.ToString() =
        let stack = Option.ofObj e.StackTrace |> Option.defaultValue ""

        match Regex.Match(stack, @" in (.*\.fsx):line (\d+)") with
        | place when place.Success && stack.Contains "FSI_" ->
            $"{IO.Path.GetFileName place.Groups[1].Value}, line {place.Groups[2].Value}: {e.Message}"
        | _ when stack.Contains "FSI_" -> e.Message
        | _ -> $"{typeof<Fault>.Namespace}.CmclException: {e.Message}\n{stack}".TrimEnd()

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

    /// The exception that another was made of by a task, a type's initialiser or a call by reflection.
    let rec cause (e: exn) : exn =
        match e, Option.ofObj e.InnerException with
        | (:? AggregateException | :? TypeInitializationException | :? TargetInvocationException), Some inner -> cause inner
        | _ -> e

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
