// What the scripts here share: options, the study they ask for, what a script leaves. `dotnet fsi scripts/NAME.fsx -- --help` lists the options
// that NAME takes (without the -- F# Interactive takes --help for its own). A script begins with #load "options.fsx" and ends with Script.run.
#load "load.fsx"

open System
open System.IO
open Argu
open Cmcl

type Argument =
    | Stream of NAME: string
    | Seeds of LIST: string
    | Values of LIST: string
    | Set of NAME_VALUE: string
    | Split of ROWS: string
    | Jobs of N: int
    | Out of FOLDER: string
    | Fresh
    | Small

    interface IArgParserTemplate with
        member a.Usage =
            match a with
            | Stream _ -> "a shipped stream, a folder or a file (default: emoji, where the question does not ask for another)"
            | Seeds _ -> "such as 0-4 or 0,3,5 (default: 0-2)"
            | Values _ -> "what is swept, separated by commas, in place of the script's own list"
            | Set _ ->
                "a hyperparameter for all methods that take it, such as epochs=5 or tau=1e-4 (cmcl methods lists them); may be repeated"
            | Split _ -> "rows that figures are of: test, or validation for choosing by them"
            | Jobs _ -> "runs side by side (default: one a core)"
            | Out _ -> "folder for results (default: output/scripts and the script's name)"
            | Fresh -> "run again what is finished"
            | Small -> "settings to see that it runs: few of them, one seed, one epoch; so does CMCL_SMALL=1"

/// What a script was asked for.
type Asked =
    { Name: string
      Command: string
      Stream: string option
      Seeds: int list
      Values: string list option
      Set: (string * string) list
      Split: Split option
      Jobs: int option
      Out: string
      Fresh: bool
      Small: bool }

module Script =
    /// The options of a script that trains; `values` where it sweeps one list.
    let studies = [ "stream"; "seeds"; "set"; "split"; "jobs"; "out"; "fresh"; "small" ]

    let private bad name expected given = Check.fail (Fault.BadValue(name, expected, given))

    let private seeds (text: string) : int list =
        let number (s: string) =
            match Int32.TryParse s with
            | true, n when n >= 0 -> n
            | _ -> bad "--seeds" "whole numbers ≥ 0, such as 0-4 or 0,3,5" text

        [ for part in text.Split ',' do
              match part.Split '-' with
              | [| first; last |] -> yield! [ number first .. number last ]
              | _ -> number part ]

    let private setting (text: string) : string * string =
        match text.Split('=', 2) with
        | [| name; value |] ->
            Config.named "dns" |> Config.set name value |> ignore
            name, value
        | _ -> bad "--set" "NAME=VALUE" text

    let private split (text: string) : Split =
        match text with
        | "test" -> Split.Test
        | "validation" -> Split.Validation
        | _ -> bad "--split" "test or validation" text

    /// The comment that a script begins with.
    let private comment (path: string) : string =
        File.ReadLines path
        |> Seq.takeWhile _.StartsWith("//")
        |> Seq.map (fun line ->
            line.Substring(2).TrimEnd() |> fun text -> if text.StartsWith "  " then text else text.TrimStart())
        |> String.concat "\n"

    let private ask (uses: string list) (path: string) (words: string list) : Asked option =
        let name = Path.GetFileNameWithoutExtension path
        let parser = ArgumentParser.Create<Argument>(programName = name + ".fsx", errorHandler = ExceptionExiter())

        let used, refused =
            parser.GetArgumentCases() |> List.ofSeq |> List.partition (fun c -> List.contains (c.Name.Value.TrimStart '-') uses)

        if words |> List.exists (fun w -> w = "--help" || w = "help") then
            printfn "%s\n" (comment path)

            for c in used do
                let value = if List.contains c.Name.Value [ "--fresh"; "--small" ] then "" else " VALUE"

                printfn
                    "%s"
                    (String.Join("\n" + String(' ', 20), Layout.wrap 80 c.Description.Value)
                     |> sprintf "  %-18s%s" (c.Name.Value + value))

            None
        else
            let given = parser.ParseCommandLine(Array.ofList words, raiseOnUsage = false)

            for c in refused do
                if words |> List.exists (fun w -> w = c.Name.Value || w.StartsWith(c.Name.Value + "=")) then
                    Check.fail (Fault.Contradiction($"{name}.fsx has no use for {c.Name.Value}", "-- --help lists what it takes"))

            let small = given.Contains Small || small

            Some
                { Name = name
                  Command = String.Join(' ', "dotnet fsi" :: $"scripts/{name}.fsx" :: words)
                  Stream = given.TryGetResult Stream
                  Seeds = given.GetResult(Seeds, (if small then "0" else "0-2")) |> seeds
                  Values = given.TryGetResult Values |> Option.map (_.Split(',') >> List.ofArray)
                  Set = given.GetResults Set |> List.map setting
                  Split = given.TryGetResult Split |> Option.map split
                  Jobs = given.TryGetResult Jobs
                  Out =
                    given.GetResult(Out, Path.Combine(__SOURCE_DIRECTORY__, "..", "output", "scripts", name)) |> Path.GetFullPath
                  Fresh = given.Contains Fresh
                  Small = small }

    /// Runs a script's body with what it was asked for. A mistake ends it with one sentence and exit code 2.
    let run (uses: string list) (body: Asked -> unit) : unit =
        let path, words = fsi.CommandLineArgs[0], List.tail (List.ofArray fsi.CommandLineArgs)

        try
            ask uses path words |> Option.iter body
        with
        | CmclException _ as e ->
            eprintfn "%s: %s" (Path.GetFileName path) e.Message
            exit 2
        | :? ArguParseException as e ->
            let sentence = e.Message.Split('\n')[0]
            eprintfn $"{Path.GetFileName path}: {sentence.TrimEnd '.'}; -- --help lists what there is."
            exit 2

    /// The stream that was asked for, or another: `synthetic` for small settings.
    let stream (otherwise: string) (asked: Asked) : Stream =
        asked.Stream |> Option.defaultValue (if asked.Small then "synthetic" else otherwise) |> Stream.load

    /// What is swept: the values given, or the script's own, of which small settings take two.
    let values (own: string list) (asked: Asked) : string list =
        asked.Values |> Option.defaultValue (if asked.Small then List.truncate 2 own else own)

    /// The same without values of one's own.
    let few (own: 'a list) (asked: Asked) : 'a list = if asked.Small then List.truncate 2 own else own

    /// The study of some methods as it was asked for. What is finished is kept below the folder, by the build of the library that made it.
    let study (stream: Stream) (configs: Config<'takes> list) (asked: Asked) : StudyBuilder =
        let build = typeof<Study>.Module.ModuleVersionId.ToString "N"
        let kept = Path.Combine(asked.Out, "runs", build.Substring(0, 8))

        if asked.Fresh && Directory.Exists kept then
            Directory.Delete(kept, true)

        let own name = asked.Set |> List.exists (fst >> (=) name) || configs |> List.exists _.Label.Contains(name + "=")
        let each = (if asked.Small && not (own "epochs") then [ ("epochs", "1") ] else []) @ asked.Set

        Run.on stream
        |> Run.methods configs
        |> Run.each (fun config -> (config, each) ||> List.fold (fun config (name, value) -> Config.set name value config))
        |> Run.seeds asked.Seeds
        |> Run.into kept
        |> Run.command asked.Command
        |> (asked.Jobs |> Option.map Run.jobs |> Option.defaultValue id)
        |> (if asked.Split = Some Split.Validation then Run.onValidation else id)

    /// A page that says which streams, which rows and how many seeds.
    let sheet (title: string) (question: string) (results: StudyResult list) (asked: Asked) : Sheet =
        let seeds = if asked.Seeds.Length = 1 then "one seed" else $"mean ± sd over {asked.Seeds.Length} seeds"
        let streams = results |> List.map _.Stream |> String.concat " and "

        let sheet =
            Sheet.make title $"{question} On {streams}, {results.Head.Info.Split} rows, {seeds}." |> Sheet.command asked.Command

        (sheet, results |> List.collect _.Info.Failures)
        ||> List.fold (fun sheet (label, seed, why) -> Sheet.text $"{label}, seed {seed}, ended early: {why}" sheet)

    /// The same with the rows that its figures are of in its title.
    let titled (result: StudyResult) (table: TextTable) : TextTable =
        { table with
            Title = $"{table.Title}, {result.Info.Split} rows" }

    /// Prints tables, and where a page and the other files are.
    let leave (tables: TextTable list) (sheet: Sheet) (asked: Asked) : unit =
        for table in tables do
            printfn "%s\n" table.Text

        let page = (sheet, tables) ||> List.fold (fun sheet table -> Sheet.table table sheet)
        printfn "%s" (Sheet.save (Path.Combine(asked.Out, "page.html")) page)

    /// The same, with every figure of some results as results.csv (a line a figure) and cells.csv (a line a run).
    let finish (results: StudyResult list) (tables: TextTable list) (sheet: Sheet) (asked: Asked) : unit =
        let save name (frame: StudyResult -> Deedle.Frame<int, string>) =
            let parts = results |> List.map (frame >> Report.ofFrame "")
            let head = parts |> List.collect _.Head |> List.distinct

            let row (t: TextTable) (cells: string list) =
                let own = Map.ofList (List.zip t.Head cells)
                [ for name in head -> Map.tryFind name own |> Option.defaultValue "" ]

            [ for t in parts do
                  yield! List.map (row t) t.Rows ]
            |> TextTable.make "" head
            |> TextTable.save (Path.Combine(asked.Out, name))
            |> Check.getAll

        save "results.csv" Report.longFrame
        save "cells.csv" Report.frame
        leave tables sheet asked
