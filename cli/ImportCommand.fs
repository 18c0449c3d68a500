/// `cmcl import`: its arguments, and what it does. A result is an exit code: 0, or 2 for a user's mistake.
module Cmcl.Cli.ImportCommand

open System
open System.Globalization
open System.IO
open System.Diagnostics
open System.Runtime.InteropServices
open System.Text
open System.Threading
open Argu
open Cmcl
open Cmcl.Cli.Arguments
open Cmcl.Cli.Commands

let private list () : int =
    for importer in Importer.all do
        entry 11 importer.Name importer.Reads
        entry 11 "" importer.Example
        printfn ""

    Terminal.say "Options: cmcl import --help. Formats in full: docs/import.md."
    0

/// An option's value from its text. Fault: `BadValue` for one that is none, or does not fit.
let number
    (name: string)
    (takes: string)
    (parse: string -> bool * 'a)
    (fits: 'a -> bool)
    (text: string)
    : Result<'a, Fault list> =
    match parse text with
    | true, value when fits value -> Ok value
    | _ -> Error [ Fault.BadValue(name, takes, text) ]

let private steps (text: string) : Result<int list, Fault list> =
    let parse (part: string) = Int32.TryParse(part.Trim(), NumberStyles.None, CultureInfo.InvariantCulture)
    let parts = text.Split ',' |> Array.map parse |> List.ofArray
    let numbers = List.map snd parts

    if
        List.forall fst parts
        && List.distinct numbers = numbers
        && numbers |> List.forall (fun n -> n >= 1 && n <= Published.stepCount)
    then
        Ok numbers
    else
        Error [ Fault.BadValue("--steps", $"numbers from 1 to {Published.stepCount}, separated by commas, each once", text) ]

/// What `read` makes of an option where it is given.
let optional (read: 'a -> Result<'b, Fault list>) (given: 'a option) : Result<'b option, Fault list> =
    match given with
    | Some value -> read value |> Result.map Some
    | None -> Ok None

/// Options given that mean nothing to the importer.
let private foreign (importer: Importer) (arguments: ParseResults<ImportArgument>) : Fault list =
    let given =
        [ for argument in arguments.GetAllResults() do
              match argument with
              | ImportArgument.Backbone _ -> "backbone"
              | ImportArgument.Steps _ -> "steps"
              | ImportArgument.Order _ -> "order"
              | ImportArgument.Name _ -> "name"
              | ImportArgument.Drop_Unmatched -> "drop-unmatched"
              | ImportArgument.Test _ -> "test"
              | _ -> () ]

    [ for name in List.except importer.Options given ->
          Fault.Contradiction($"--{name} changes nothing for {importer.Name}", "leave it out") ]

let private options (importer: Importer) (arguments: ParseResults<ImportArgument>) : Result<ImportOptions, Fault list> =
    let real (text: string) = Double.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture)
    let whole (text: string) = Int32.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture)
    let defaults = Importer.defaults

    validated {
        let! share =
            arguments.TryGetResult ImportArgument.Validation
            |> optional (
                number "--validation" "a share of the training rows, above 0 and below 1" real (fun x -> x > 0.0 && x < 1.0)
            )

        and! test =
            arguments.TryGetResult ImportArgument.Test
            |> optional (number "--test" "a share of all rows, above 0 and below 1" real (fun x -> x > 0.0 && x < 1.0))

        and! seed =
            arguments.TryGetResult ImportArgument.Seed |> optional (number "--seed" "a whole number ≥ 0" whole (fun _ -> true))

        and! steps = arguments.TryGetResult ImportArgument.Steps |> optional steps

        and! () =
            match foreign importer arguments with
            | [] -> Ok()
            | faults -> Error faults

        and! () =
            if arguments.Contains ImportArgument.Normalise && arguments.Contains ImportArgument.Allow_Zero_Rows then
                Error
                    [ Fault.Contradiction(
                          "--normalise cannot scale the rows of zeros that --allow-zero-rows keeps",
                          "leave one of them out"
                      ) ]
            else
                Ok()

        and! () = checkGiven arguments (arguments.TryGetResult ImportArgument.Out) None None None

        return
            { Backbone = arguments.TryGetResult ImportArgument.Backbone
              Validation = Option.defaultValue defaults.Validation share
              Test = Option.defaultValue defaults.Test test
              Seed = Option.defaultValue defaults.Seed seed
              Steps = steps
              Order =
                match arguments.TryGetResult ImportArgument.Order with
                | Some text ->
                    text.Split(',', StringSplitOptions.TrimEntries ||| StringSplitOptions.RemoveEmptyEntries) |> List.ofArray
                | None -> defaults.Order
              DropUnmatched = arguments.Contains ImportArgument.Drop_Unmatched
              Name = arguments.TryGetResult ImportArgument.Name
              Room = defaults.Room }
    }

/// The command of the worker that imports run in, which is not for people: it takes no arguments, and requests as lines of JSON.
[<Literal>]
let Worker = "import-worker"

/// `cmcl import-worker`: imports for the process that started it, and ends with it. What Ctrl-C means is that process's to say.
let work () : int =
    let mine = [ PosixSignal.SIGINT; PosixSignal.SIGHUP ]
    let ignored = [ for signal in mine -> PosixSignalRegistration.Create(signal, (fun context -> context.Cancel <- true)) ]
    use input = new StreamReader(Console.OpenStandardInput(), UTF8Encoding false)
    use output = new StreamWriter(Console.OpenStandardOutput(), UTF8Encoding false)
    // Standard output is for answers.
    Console.SetOut Console.Error

    match Native.libtorch () with
    | Ok() -> ImportWorker.serve input output (fun () -> Process.GetCurrentProcess().Kill())
    | Error reason -> output.WriteLine(ImportWorker.ofAnswer (ImportAnswer.Refused [ (Fault.NoLibtorch reason).Message ]))

    GC.KeepAlive ignored
    0

/// The least memory that a worker gets along with, in bytes.
let private leastMemory = 256L <<< 20

let private memory (text: string) : Result<int64, Fault list> =
    SweepFolderCommand.parseSize text
    |> Result.bind (fun size ->
        if size >= leastMemory then
            Ok size
        else
            Error [ Fault.BadValue("--memory", "at least 256M, which a reader of small files needs as well", text) ])

let private import
    (cancel: CancellationToken)
    (format: string)
    (source: string)
    (arguments: ParseResults<ImportArgument>)
    : Result<string * Importer * string list, Fault list> =
    match arguments.TryGetResult ImportArgument.Out with
    | None when (Importer.find format).IsOk -> Error [ Fault.MissingKey("cmcl import", "--out FOLDER") ]
    | out ->
        let out = Option.defaultValue "" out

        Importer.find format
        |> Result.bind (fun importer ->
            validated {
                let! options = options importer arguments
                and! memory = arguments.TryGetResult ImportArgument.Memory |> optional memory
                return options, memory
            }
            |> Result.bind (fun (options, memory) ->
                let request: ImportRequest =
                    { Format = format
                      Source = source
                      Out = out
                      Options = options
                      Treatment =
                        { Normalise = arguments.Contains ImportArgument.Normalise
                          ZeroRows = arguments.Contains ImportArgument.Allow_Zero_Rows }
                      Force = arguments.Contains ImportArgument.Force }

                let limits = ImportLimits.defaults source

                let limits =
                    { limits with
                        ImportLimits.Memory = Option.defaultValue limits.Memory memory }

                ImportDisplay.progress (arguments.Contains ImportArgument.Quiet) (fun tell ->
                    Guard.run (fun () -> SweepCommand.again Worker) limits cancel tell request)
                |> Result.map (fun notes -> out, importer, notes)))

let run (arguments: ParseResults<ImportArgument>) : int =
    match arguments.GetResult(ImportArgument.From, []) with
    | [] when arguments.GetAllResults().IsEmpty -> list ()
    | [ format; source ] ->
        use cancel = new CancellationTokenSource()

        let stop (context: PosixSignalContext) =
            context.Cancel <- true
            cancel.Cancel()

        use _ = PosixSignalRegistration.Create(PosixSignal.SIGINT, stop)
        use _ = PosixSignalRegistration.Create(PosixSignal.SIGTERM, stop)

        match import cancel.Token format source arguments with
        | Error _ when cancel.IsCancellationRequested ->
            Terminal.complain "cmcl: the import was stopped; nothing of it is left."
            Signals.Stopped
        | Error faults -> refuse faults
        | Ok(out, importer, notes) ->
            if not (arguments.Contains ImportArgument.Quiet) then
                for note in notes do
                    Terminal.say note

                let preset =
                    match arguments.TryGetResult ImportArgument.Backbone with
                    | Some backbone -> $" --preset paper-{backbone}"
                    | None -> ""

                let rows = if arguments.Contains ImportArgument.Normalise then "scaled to length 1" else "as stored"
                Terminal.say $"\nRows {rows}. Written to {Terminal.path out}; next: cmcl run --stream {out}{preset}"

            0
    | given ->
        refuse [ Fault.BadValue("cmcl import", "a format and a folder (cmcl import lists the formats)", String.Join(" ", given)) ]
