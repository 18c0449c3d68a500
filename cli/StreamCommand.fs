/// `cmcl stream`: a stream folder of banks. A result is an exit code: 0, or 2 for a user's mistake.
module Cmcl.Cli.StreamCommand

open System
open System.Globalization
open System.IO
open System.Runtime.InteropServices
open System.Threading
open Argu
open TorchSharp
open Cmcl
open Cmcl.Encoders
open Cmcl.Cli.StreamArguments
open Cmcl.Cli.Commands

let private share (option: string) (given: string option) (otherwise: float) : Result<float, Fault list> =
    let real (text: string) = Double.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture)

    given
    |> ImportCommand.optional (
        ImportCommand.number option "a share of the items, above 0 and below 1" real (fun x -> x > 0.0 && x < 1.0)
    )
    |> Result.map (Option.defaultValue otherwise)

let private request (arguments: ParseResults<StreamArgument>) : Result<BankFile list * BankStreamOptions, Fault list> =
    let out = arguments.GetResult StreamArgument.Out
    let whole (text: string) = Int32.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture)

    validated {
        let! () = checkGiven arguments (Some out) None None None
        and! banks = BankStream.files (arguments.GetResults StreamArgument.Bank)
        and! test = share "--test" (arguments.TryGetResult StreamArgument.Test) Importer.defaults.Test
        and! validation = share "--validation" (arguments.TryGetResult StreamArgument.Validation) Importer.defaults.Validation

        and! seed =
            arguments.TryGetResult StreamArgument.Seed
            |> ImportCommand.optional (ImportCommand.number "--seed" "a whole number ≥ 0" whole (fun _ -> true))

        and! families = arguments.TryGetResult StreamArgument.Families |> ImportCommand.optional BankStream.families
        return banks, test, validation, seed, families
    }
    |> Result.bind (fun (banks, test, validation, seed, families) ->
        validated {
            let! steps = BankStream.steps banks (arguments.GetResult StreamArgument.Steps)

            and! () =
                banks
                |> List.map (fun bank -> StreamWriter.prepare (arguments.Contains StreamArgument.Force) bank.Path out)
                |> Check.all
                |> Result.map ignore
                |> Result.mapError List.distinct

            let called = string (Path.GetFileName(Path.TrimEndingDirectorySeparator(Path.GetFullPath out)))

            return
                banks,
                { Name = arguments.GetResult(StreamArgument.Name, called)
                  Steps = steps
                  Test = test
                  Validation = validation
                  Seed = Seed.ofInt (Option.defaultValue Importer.defaults.Seed seed)
                  Disjoint = arguments.Contains StreamArgument.Disjoint
                  Families = families }
        })

/// What the rows of a bank were made from, by the list beside its file. Fault: it names other items than the ids do.
let private itemsOf (bank: BankFile, table: FeatureTable) : Result<BankItem[] option, Fault list> =
    match ItemLists.beside bank.Path with
    | list when File.Exists list ->
        BankItems.ofFile "the stream" $"bank '{bank.Name}'" table.Rows list
        |> Result.bind (fun items ->
            let ids = table.Ids |> Option.defaultValue (items |> Array.map _.Id)

            match Array.zip ids items |> Array.tryFindIndex (fun (id, item) -> id <> item.Id) with
            | None -> Ok(Some items)
            | Some row ->
                Error
                    [ Fault.Contradiction(
                          $"row {row} of bank '{bank.Name}' is '{ids[row]}' by its ids, and '{items[row].Id}' by '{list}'",
                          "extract the bank anew, or remove the list"
                      ) ])
    | _ -> Ok None

/// Lists of the items in the stream's order, for `cmcl gallery`, of the banks that have one.
let private withLists
    (out: string)
    (banks: (BankFile * FeatureTable) list)
    (plan: BankStreamPlan)
    : Result<StreamDraft, Fault list> =
    let folder = Path.Combine(Path.GetFullPath out, ItemLists.Folder)

    banks
    |> List.map itemsOf
    |> Check.all
    |> Result.map (fun lists ->
        let lists =
            [ for (bank, _), items in List.zip banks lists do
                  match items with
                  | Some items -> bank.Name, BankItems.text folder [ for row in plan.Rows[bank.Name] -> items[int row] ]
                  | None -> () ]

        let names = String.Join(", ", List.map fst lists)

        { plan.Draft with
            Lists = Some(Map lists)
            Notes =
                [ yield! plan.Draft.Notes
                  if not lists.IsEmpty then
                      $"cmcl gallery shows the items of {names}" ] })

let private make (cancel: CancellationToken) (arguments: ParseResults<StreamArgument>) : Result<string list, Fault list> =
    let out = arguments.GetResult StreamArgument.Out

    let treatment =
        { Normalise = false
          ZeroRows = arguments.Contains StreamArgument.Allow_Zero_Rows }

    request arguments
    |> Result.bind (fun (files, options) ->
        files
        |> List.map (fun file -> BankStream.read file |> Result.map (fun table -> file, table))
        |> Check.all
        |> Result.bind (fun banks -> BankStream.plan options banks |> Result.bind (withLists out banks))
        |> Result.bind (fun draft ->
            ImportDisplay.progress (arguments.Contains StreamArgument.Quiet) (fun tell ->
                let told event =
                    // What is written so far goes with the exception.
                    cancel.ThrowIfCancellationRequested()
                    tell event

                StreamWriter.write told treatment out draft)))

let stream (arguments: ParseResults<StreamArgument>) : int =
    use scope = torch.NewDisposeScope()
    use cancel = new CancellationTokenSource()

    let stop (context: PosixSignalContext) =
        context.Cancel <- true
        cancel.Cancel()

    use _ = PosixSignalRegistration.Create(PosixSignal.SIGINT, stop)
    use _ = PosixSignalRegistration.Create(PosixSignal.SIGTERM, stop)

    try
        match make cancel.Token arguments with
        | Error faults -> refuse faults
        | Ok notes ->
            if not (arguments.Contains StreamArgument.Quiet) then
                for note in notes do
                    Terminal.say note

                let out = arguments.GetResult StreamArgument.Out
                let typed = if out.Contains ' ' then $"\"{out}\"" else out
                Terminal.say $"\nWritten to {Terminal.path out}; next: cmcl run --stream {typed} --save-weights"

            0
    with :? OperationCanceledException ->
        Terminal.complain "cmcl: stopped; nothing of the stream is left."
        Signals.Stopped
