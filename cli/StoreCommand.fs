/// What `cmcl store` does. A result is an exit code: 0, 1 if a cell could not be taken over, 2 for a mistake in the request.
module Cmcl.Cli.StoreCommand

open System.Globalization
open System.IO
open Argu
open Cmcl
open Cmcl.Cli.StoreArguments
open Cmcl.Cli.Commands

/// The folder, if it is one.
let private there (folder: string) : Result<string, Fault list> =
    if Directory.Exists folder then Ok folder else Error [ Fault.Missing(folder, "cmcl store") ]

let private code (c: FoundCell) : string =
    match Map.ofList (Identity.fields c.Identity) |> Map.tryFind "code" with
    | Some code when c.IsPresent || code.Length < 8 -> if c.IsPresent then "this" else code
    | Some code -> code.Substring(0, 8)
    | None -> "older"

let private list (folder: string) : int =
    match there folder |> Result.bind Adoption.find with
    | Error faults -> refuse faults
    | Ok(found, damaged) ->
        let found = found |> List.sortBy (fun c -> c.Cell.Stream, c.Cell.Method, c.Cell.Order, c.Cell.Seed)

        let row (c: FoundCell) =
            let seconds =
                match c.State with
                | CellState.Finished record -> record.Seconds.ToString("F1", CultureInfo.InvariantCulture)
                | _ -> "–"

            // A checkpoint under this code is one's that runs, where a process has it.
            let state =
                match c.State with
                | CellState.Interrupted _ when c.IsPresent -> CellState.word (Store.state (Store.Folder folder) c.Identity)
                | state -> CellState.word state

            Some(
                List.map
                    Layout.plain
                    [ c.Cell.Method; state; string c.Cell.Seed; string c.Cell.Order; c.Cell.Stream; seconds; code c ]
            )

        if found.IsEmpty then
            Terminal.say $"'{folder}' holds no cells."
        else
            Terminal.show
                { Columns =
                    [ Layout.words 0 "method"
                      Layout.words 0 "state"
                      Layout.figures 0 "seed"
                      Layout.figures 3 "order"
                      Layout.words 1 "stream"
                      Layout.figures 2 "seconds"
                      Layout.words 1 "code" ]
                  Rows = List.map row found
                  Elsewhere = "A wider terminal shows them." }

            let finished =
                found
                |> List.filter (fun c ->
                    match c.State with
                    | CellState.Finished _ -> true
                    | _ -> false)

            let others = found |> List.filter (fun c -> not c.IsPresent)
            let advice = if others.IsEmpty then "" else $" cmcl store adopt {folder} takes over those of other code."
            let cells = if found.Length = 1 then "one cell" else $"{found.Length} cells"

            Terminal.say
                $"{cells}, {finished.Length} finished, {others.Length} of other code than {Identity.code.Substring(0, 8)}.{advice}"

        for path, why in damaged do
            eprintfn "cmcl: %s" (Fault.Unreadable(path, why)).Message

        0

let private adopt (folder: string) (threads: int option) : int =
    let all _ : Result<int * (string * string) list, Fault list> =
        Adoption.adopt folder threads
        |> Result.bind (fun taken ->
            if SweepFolder.is folder then
                SweepFolder.takeOver folder threads |> Result.map (fun () -> taken)
            else
                Ok taken)

    match
        there folder
        |> Result.bind (fun folder ->
            match threads with
            | Some n when n < 1 || n > Protocol.MostThreads ->
                Error [ Fault.BadValue("--threads", $"a whole number from 1 to {Protocol.MostThreads}", string n) ]
            | _ -> FolderLock.Holding folder all)
    with
    | Error faults -> refuse faults
    | Ok(count, refused) ->
        for path, why in refused do
            eprintfn "cmcl: '%s' was not taken over: %s." path (why.TrimEnd '.')

        let cells = if count = 1 then "One cell" else $"{count} cells"
        Terminal.say $"{cells} taken over, {refused.Length} not."
        if refused.IsEmpty then 0 else 1

let store (arguments: ParseResults<StoreArgument>) : int =
    match arguments.GetSubCommand() with
    | StoreArgument.List own -> list (own.GetResult StoreListArgument.Folder)
    | StoreArgument.Adopt own -> adopt (own.GetResult StoreAdoptArgument.Folder) (own.TryGetResult StoreAdoptArgument.Threads)
