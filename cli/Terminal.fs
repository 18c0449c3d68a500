/// What stands on standard output and standard error, within the width of the terminal.
module Cmcl.Cli.Terminal

open System
open Spectre.Console
open Cmcl

/// COLUMNS, where somebody has said how wide it is to be.
let private wanted () : int option =
    match Int32.TryParse(Environment.GetEnvironmentVariable "COLUMNS") with
    | true, n when n >= 20 && n <= 10000 -> Some n
    | _ -> None

let private ofWindow () =
    try
        max 20 Console.WindowWidth
    with :? IO.IOException ->
        80

/// Characters of a line: those of COLUMNS or of the terminal; 120 for a pipe or a file.
let width () : int =
    match wanted () with
    | Some n -> n
    | None when Console.IsOutputRedirected -> 120
    | None -> ofWindow ()

let private paint () : Emphasis -> string -> string =
    if Console.IsOutputRedirected || not AnsiConsole.Profile.Capabilities.Ansi then
        fun _ text -> text
    else
        fun emphasis text ->
            match emphasis with
            | Emphasis.Plain -> text
            | Emphasis.Strong -> $"\u001b[1m{text}\u001b[0m"
            | Emphasis.Faint -> $"\u001b[2m{text}\u001b[0m"
            | Emphasis.Good -> $"\u001b[32m{text}\u001b[0m"
            | Emphasis.Bad -> $"\u001b[31m{text}\u001b[0m"

let private lines (width: int) (text: string) : string list =
    [ for paragraph in text.Split '\n' do
          match Layout.wrap width paragraph with
          | [] -> ""
          | lines -> yield! lines ]

/// Sentences on standard output, broken between words in a terminal; in a pipe each is one line.
let say (text: string) : unit =
    if Console.IsOutputRedirected && (wanted ()).IsNone then
        printfn "%s" (text.Replace('\u00A0', ' '))
    else
        for line in lines (width ()) text do
            printfn "%s" line

/// Likewise on standard error.
let complain (text: string) : unit =
    if Console.IsErrorRedirected then
        eprintfn "%s" text
    else
        for line in lines (ofWindow ()) text do
            eprintfn "%s" line

/// A path that is to stay in one piece, in full.
let path (file: string) : string = Layout.whole (IO.Path.GetFullPath file)

/// A table between two empty lines.
let show (table: LayoutTable) : unit =
    printfn ""

    for line in Layout.table (paint ()) (width ()) table do
        printfn "%s" line

    printfn ""
