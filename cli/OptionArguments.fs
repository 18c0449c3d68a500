/// Options of training and of methods on the command line: `--NAME VALUE`, and `--NAME` or `--no-NAME` for what is on or off. They are taken out
/// before the other arguments are read, so that an option which a method declares is one here.
module Cmcl.Cli.OptionArguments

open System
open Cmcl

/// Commands that take all of them.
let commands: string list = [ "run"; "compare"; "tune"; "verify" ]

/// The methods whose options the command that these arguments begin with takes.
let entries (argv: string[]) : Entry list =
    match Array.tryHead argv with
    | Some "solve" -> [ Spec.entry ClosedForm.cca ]
    | Some command when List.contains command commands -> Registry.entries
    | _ -> []

/// What these methods take: options of training where one of them trains, and their own.
let table (entries: Entry list) : OptionInfo list =
    if entries |> List.exists (fun e -> Method.trains e.Method) then
        Registry.optionsOf entries
    else
        Registry.owned entries |> List.map fst

/// What was found among the arguments of a command.
type Taken =
    {
        /// Each option with its value.
        Options: (string * string) list
        /// All other arguments, in their order.
        Rest: string list
        Faults: Fault list
    }

/// How options are written: names with their dashes.
let names (options: OptionInfo list) : string list =
    [ for o in options do
          $"--{o.Name}"

          if o.IsSwitch then
              $"--no-{o.Name}" ]

/// Takes the options of a table out of arguments. Faults: an option without a value, `BadValue`; one that is given twice.
/// Example: `take Registry.options [ "--lr"; "1e-3"; "--no-shuffle"; "--force" ]`.
let take (table: OptionInfo list) (argv: string list) : Taken =
    let isArgument (text: string) = text.StartsWith "--" || text.Length = 2 && text[0] = '-' && Char.IsLetter text[1]
    let find (text: string) = table |> List.tryFind (fun o -> text = $"--{o.Name}")
    let findOff (text: string) = table |> List.tryFind (fun o -> o.IsSwitch && text = $"--no-{o.Name}")

    let rec read (taken: Taken) (argv: string list) : Taken =
        let set (o: OptionInfo) value = { taken with Options = (o.Name, value) :: taken.Options }

        let lacks (fault: Fault) = { taken with Faults = fault :: taken.Faults }

        match argv with
        | [] -> taken
        | first :: rest ->
            match find first, findOff first, rest with
            | Some o, _, value :: rest when List.contains value o.Words || not o.IsSwitch && not (isArgument value) ->
                read (set o value) rest
            | Some o, _, _ when o.IsSwitch -> read (set o "on") rest
            | Some o, _, [] -> lacks (Fault.Contradiction($"nothing follows {first}", $"give it {o.Takes}"))
            | Some o, _, next :: _ -> read (lacks (Fault.BadValue(first, o.Takes, next))) rest
            | None, Some o, _ -> read (set o "off") rest
            | None, None, _ -> read { taken with Rest = first :: taken.Rest } rest

    let all = read { Options = []; Rest = []; Faults = [] } argv

    let repeated =
        [ for name, times in all.Options |> List.countBy fst do
              if times > 1 then
                  Fault.Contradiction($"--{name} is given twice", "give it once") ]

    { Options = List.rev all.Options
      Rest = List.rev all.Rest
      Faults = List.rev all.Faults @ repeated }

let private line (width: int) (o: OptionInfo) (text: string) : string list =
    let title = if o.IsSwitch then $"    --{o.Name}, --no-{o.Name}" else $"    --{o.Name} <VALUE>"
    Layout.titled width 26 title text

/// What these options are, for the help of a command: those of training, then those of methods, each once with all methods that take it.
let help (width: int) (entries: Entry list) : string list =
    let text (o: OptionInfo) = if o.IsSwitch then o.Help else $"{o.Help}: {o.Takes}"

    let also (others: string list) =
        match others with
        | [] -> ""
        | others -> $""" (also {String.Join(", ", others)})"""

    [ if entries |> List.exists (fun e -> Method.trains e.Method) then
          ""
          "OPTIONS OF TRAINING, for every method that trains:"
          ""

          for o in Settings.options do
              yield! line width o.Info (text o.Info)
      if not entries.IsEmpty then
          ""
          "OPTIONS OF METHODS, for every method here that takes them:"

      for first, options in Registry.owned entries |> List.groupBy (snd >> List.head) do
          ""
          $"  {first}"

          for o, takers in options do
              yield! line width o (text o + also takers.Tail) ]
