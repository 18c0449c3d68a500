// Commands that the documentation shows: cmcl's are read by its own parser, of others the first word is known and files of the
// tree that they name are there.
#load "../markdown.fsx"
#r "../../cli/bin/Release/net10.0/Argu.dll"
#r "../../cli/bin/Release/net10.0/TorchSharp.dll"
#r "../../cli/bin/Release/net10.0/Cmcl.dll"
#r "../../cli/bin/Release/net10.0/Cmcl.Cli.dll"

open System
open System.IO
open System.Text.RegularExpressions
open Argu
open Cmcl
open Cmcl.Cli
open Cmcl.Cli.Arguments
open Markdown

let private parser = ArgumentParser.Create<Command> "cmcl"

let private known =
    set
        [ "cd"
          "mkdir"
          "cp"
          "ls"
          "export"
          "git"
          "bash"
          "python3"
          "node"
          "npm"
          "apt-get"
          "nvidia-smi"
          "nohup"
          "jupyter" ]

let private targets =
    set
        [ for m in Regex.Matches(File.ReadAllText(full "build.fsx"), "(?m)^    (?:let targets.*)?\\[? *\"(\\w[\\w-]*)\",") ->
              m.Groups[1].Value ]

let private folders =
    [ for d in Directory.GetDirectories root -> Path.GetFileName d ]
    |> List.except [ "output"; "results"; ".git"; "obj"; "bin" ]

/// The words of a line as a shell takes them, command by command: quotes are taken off, comments and what | > && ; do are left out.
let words (line: string) : string list list =
    let tokens =
        [ for m in Regex.Matches(line, """(?:^|(?<=\s))#.*$|(?:"[^"]*"|'[^']*'|[^\s"'|>;&])+|&&|\|\|?|>>?|;|&""") do
              if not (m.Value.StartsWith '#') then
                  m.Value ]

    let rec split current rest =
        match rest with
        | [] -> [ List.rev current ]
        | (">" | ">>") :: _ :: rest -> split current rest
        | ("&&" | "||" | "|" | ";" | "&") :: rest -> List.rev current :: split [] rest
        | (word: string) :: rest -> split (Regex.Replace(word, "\"([^\"]*)\"|'([^']*)'", "$1$2") :: current) rest

    split [] tokens |> List.filter (List.isEmpty >> not)

/// A word of capitals stands for a value, maybe a number, … for what does not matter.
let private parsed (arguments: string list) : string list =
    let arguments =
        [| for word in arguments |> List.takeWhile ((<>) "--") |> List.filter ((<>) "…") ->
               if Regex.IsMatch(word, "^[A-Z]+$") then "1" else word |]

    let taken = OptionArguments.take (OptionArguments.table (OptionArguments.entries arguments)) (List.ofArray arguments)

    try
        parser.ParseCommandLine(Array.ofList taken.Rest, raiseOnUsage = true) |> ignore
        taken.Faults |> List.map _.Message
    with
    | :? ArguParseException as e when e.ErrorCode = ErrorCode.HelpText -> []
    | :? ArguParseException as e -> [ (Array.head (e.Message.Split '\n')).Replace("ERROR: ", "") ]

let private afterDashes words = words |> List.skipWhile ((<>) "--") |> List.skip 1

let private missing (words: string list) =
    [ for word in words do
          if folders |> List.exists (fun f -> word = f || word.StartsWith(f + "/")) && not (Path.Exists(full word)) then
              $"{word} is not there" ]

let private dotnet (words: string list) =
    let has = List.contains "--" words

    match words with
    | "run" :: rest when List.contains "--project" rest ->
        match rest[List.findIndex ((=) "--project") rest + 1] with
        | "cli" when has -> parsed (afterDashes words)
        | "cli" -> []
        | project when Directory.Exists(full project) -> []
        | project -> [ $"there is no project {project}" ]
    | "fsi" :: "build.fsx" :: _ when has ->
        [ for name in afterDashes words do
              if Char.IsLower name[0] && not (targets.Contains name) then
                  $"build.fsx has no target {name}" ]
    | _ -> missing words

/// What is wrong with one command.
let rec check (command: string list) : string list =
    match command with
    | [] -> []
    | word :: rest when Regex.IsMatch(word, "^[A-Z_]+=") -> check rest
    | "/usr/bin/time" :: rest -> check (List.skipWhile (fun (w: string) -> w.StartsWith '-') rest)
    | "cmcl" :: arguments -> parsed arguments
    | "dotnet" :: rest -> dotnet rest
    | word :: rest when known.Contains word || File.Exists(full word) -> missing rest
    | word :: _ -> [ $"'{word}' is no command that the documentation may use (build/examples/commands.fsx lists them)" ]

/// The commands of a block: every line of `sh`, of `console` those after "> ". A line that ends in \ goes on.
let commandsOf (block: Block) : (int * string) list =
    let numbered = block.Lines |> List.mapi (fun i line -> block.Line + i, line)

    let rec joined rest =
        match rest with
        | (number, line: string) :: (_, next: string) :: rest when line.EndsWith '\\' ->
            joined ((number, line.TrimEnd '\\' + next) :: rest)
        | line :: rest -> line :: joined rest
        | [] -> []

    match block.Language with
    | "sh" -> joined numbered
    | "console" ->
        numbered |> List.filter (fun (_, line) -> line.StartsWith "> ") |> List.map (fun (n, line) -> n, line.Substring 2)
    | _ -> []

let faults (page: string) : string list =
    [ for block in blocks page do
          for number, line in commandsOf block do
              for command in words line do
                  for fault in check command do
                      $"{page}({number}): {fault}"
      for number, line in prose page do
          for m in Regex.Matches(line, "`((?:cmcl|dotnet) [^`]+)`") do
              for command in words m.Groups[1].Value do
                  for fault in check command do
                      $"{page}({number}): `{m.Groups[1].Value}`: {fault}" ]
