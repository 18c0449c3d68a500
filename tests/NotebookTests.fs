module Cmcl.Tests.NotebookTests

open System
open System.IO
open System.Text.Json.Nodes
open Cmcl
open Cmcl.Runner
open Cmcl.Tests.Processes
open Expecto
open Plotly.NET

/// A notebook of these code cells, with metadata that nothing here knows.
let private notebookOf (cells: string list) : string =
    let cell (i: int) (source: string) =
        JsonObject(
            dict
                [ "cell_type", (JsonValue.Create "code" :> JsonNode | null)
                  "execution_count", null
                  "id", JsonValue.Create $"cell-{i}"
                  "metadata", JsonObject(dict [ "of somebody", (JsonValue.Create i :> JsonNode | null) ])
                  "outputs", JsonArray()
                  "source", JsonValue.Create source ]
        )

    let metadata =
        JsonNode.Parse
            """{"kernelspec":{"display_name":".NET (F#)","language":"F#","name":".net-fsharp"},"else":{"a":[1,2.50]}}"""

    JsonObject(
        dict
            [ "cells", (JsonArray [| for i, c in List.indexed cells -> cell i c :> JsonNode | null |] :> JsonNode | null)
              "metadata", metadata
              "nbformat", JsonValue.Create 4
              "nbformat_minor", JsonValue.Create 5 ]
    )
        .ToJsonString()

let private save (folder: string) (name: string) (cells: string list) : string =
    let path = Path.Combine(folder, name)
    File.WriteAllText(path, notebookOf cells)
    path

let private read (path: string) : JsonObject = Nbformat.read path |> Check.get

/// The outputs of every code cell, each as one text of JSON.
let private outputs (path: string) : string list =
    [ for cell in Nbformat.codeCells (read path) ->
          match cell["outputs"] with
          | null -> ""
          | o -> o.ToJsonString() ]

let private run (path: string) (more: string list) = cmcl ([ "notebook"; "run"; path ] @ more)

let private contains (what: string) (text: string) = Expect.stringContains text what "what is there"

let private good =
    [ "#load \"load.fsx\"\nprintfn \"small is %b\" small"
      "open TorchSharp\nopen Plotly.NET\ntorch.zeros(2L, 3L)"
      "type Page() = member _.ToHtml() = \"<b>of its own</b>\"\nfsi.AddPrinter(fun (_: Page) -> \"a page\")\n"
      + "display (Chart.Line [ 1, 2; 3, 4 ])\nprintfn \"between\"\ndisplay (Page())\nChart.Point [ 1, 2 ]"
      "eprintfn \"to standard error\"\n(None: int option)" ]

/// All commands run side by side, since most of their time is the compiler's.
let private whole =
    onLinux (fun folder ->
        let file = save folder "good.ipynb" good
        let failing = save folder "failing.ipynb" [ "printfn \"before\""; "(failwith \"boom\": int)"; "printfn \"after\"" ]
        let wrong = save folder "wrong.ipynb" [ "let x: int = \"a\"" ]
        let leaving = save folder "leaving.ipynb" [ "printfn \"before\""; "printfn \"last words\"\nexit 3"; "1" ]
        let slow = save folder "slow.ipynb" [ "1 + 1"; "System.Threading.Thread.Sleep 100000" ]
        let again = Path.Combine(folder, "again.ipynb")
        let first = run file [ "--small"; "--out"; Path.Combine(folder, "first.ipynb") ]
        let commands = [ run failing []; run wrong []; run leaving []; run slow [ "--timeout"; "10" ] ]
        let firstCode, firstSaid = finish first
        let second = run file [ "--small"; "--quiet"; "--out"; again ]
        let ends = commands |> List.map finish
        let secondCode, secondSaid = finish second

        // What ran well.
        Expect.equal (firstCode, secondCode, secondSaid) (0, 0, "") firstSaid
        contains "cell 4 of 4: ok" firstSaid
        Expect.equal (File.ReadAllText file) (notebookOf good) "with --out the notebook itself stays"

        Expect.equal
            (File.ReadAllBytes again)
            (File.ReadAllBytes(Path.Combine(folder, "first.ipynb")))
            "the same cells give the same bytes"

        let text = File.ReadAllText again
        contains "2.50" text
        contains "\"of somebody\": 3" text
        Expect.isFalse (text.Contains "http://" || text.Contains "https://") "nothing is fetched from anywhere"

        match outputs again with
        | [ printed; value; shown; error ] ->
            contains "small is true" printed
            // By the library's printer, not the interactive window's own.
            contains "mean 0, norm 0" value
            contains "execute_result" value
            let third = Nbformat.codeCells (read again) |> List.item 2
            let parts = third["outputs"] |> nonNull |> _.AsArray()
            Expect.equal parts.Count 4 "two charts, a line, a page"
            contains "chart-3-1" shown
            contains "chart-3-2" shown
            Expect.equal (shown.Split("DecompressionStream(").Length - 1) 1 "plotly.js comes once"
            contains "of its own" shown
            contains "a page" shown
            contains "to standard error" error
            contains "stderr" error
            contains "\"None\"" error
        | other -> failtest $"{other.Length} cells"

        // What did not.
        match ends with
        | [ failed, failedSaid; wrongCode, wrongSaid; left, leftSaid; late, lateSaid ] ->
            Expect.equal [ failed; wrongCode; left; late ] [ 1; 1; 1; 1 ] $"{failedSaid}\n{wrongSaid}\n{leftSaid}\n{lateSaid}"
            contains "failing.ipynb, cell 2 of 3: System.Exception: boom" failedSaid
            contains "cell 1 (1,14): error FS0001" wrongSaid
            contains "leaving.ipynb, cell 2 of 3: the cell ended its process (exit code 3)" leftSaid
            contains "slow.ipynb, cell 2 of 2: the cell took longer than 10 s" lateSaid
        | other -> failtest $"{other.Length} ends"

        match outputs failing, outputs leaving, outputs slow with
        | [ a; b; "[]" ], [ c; d; "[]" ], [ e; f ] ->
            contains "before" a
            contains "\"ename\":\"Exception\",\"evalue\":\"boom\"" b
            contains "before" c
            contains "last words" d
            contains "ProcessEnded" d
            contains "\"2\"" e
            contains "Timeout" f
        | other -> failtest $"{other}")

let private interrupted =
    onLinux (fun folder ->
        needsInterrupts ()
        let file = save folder "long.ipynb" [ "printfn \"before\""; "System.Threading.Thread.Sleep 100000" ]
        let command = run file []
        until "the first cell ran" (fun () -> command.Said |> Seq.exists (fun line -> line.StartsWith "cell 1 of 2: ok"))
        let own = children command.Process.Id
        signal "INT" command
        let code, said = finish command
        Expect.equal code 130 said
        contains "stopped on request in cell 2 of 2" said
        Expect.isFalse (List.exists alive own) "the process of the cells is gone"
        contains "before" (List.head (outputs file)))

/// What the command said to a file with this text.
let private refused (folder: string) (text: string) : string =
    let path = Path.Combine(folder, "other.ipynb")
    File.WriteAllText(path, text)

    match Nbformat.read path |> Result.bind (fun n -> Nbformat.inFSharp path n |> Result.map (fun () -> n)) with
    | Ok _ -> failtest $"taken: {text}"
    | Error faults -> String.Join("\n", faults |> List.map _.Message)

let tests =
    testList
        "Notebook"
        [ testCase "a notebook runs, shows and fails as it should" whole
          testCase "Ctrl-C ends the cells and keeps what ran" interrupted
          testCase "what is no notebook is refused in a sentence"
          <| inFolder (fun folder ->
              let code, said = finish (run (Path.Combine(folder, "none.ipynb")) [])
              Expect.equal code 2 "a user's mistake"
              contains "none.ipynb' does not exist" said
              let code, said = finish (run (save folder "a.ipynb" []) [ "--timeout"; "0" ])
              Expect.equal code 2 "a user's mistake"
              contains "--timeout takes a number of seconds above 0" said
              contains "it is not a notebook, which is JSON" (refused folder "# Title")
              contains "it has no nbformat" (refused folder "{}")
              contains "its nbformat is 3" (refused folder """{"nbformat":3,"cells":[]}""")
              contains "it has no cells" (refused folder """{"nbformat":4}""")
              contains "cell 1 has no cell_type" (refused folder """{"nbformat":4,"cells":[{}]}""")

              contains
                  "it is in python, and only F# can be run"
                  (refused folder """{"nbformat":4,"cells":[],"metadata":{"kernelspec":{"language":"python"}}}""")

              let other = """{"cell_type":"code","source":"","metadata":{"polyglot_notebook":{"kernelName":"csharp"}}}"""
              contains "code cell 1 is in csharp" (refused folder $$"""{"nbformat":4,"cells":[{{other}}]}"""))
          testCase "strip takes the outputs off and nothing else"
          <| inFolder (fun folder ->
              let path = save folder "a.ipynb" [ "1" ]
              let notebook = read path
              let cell = List.head (Nbformat.codeCells notebook)
              cell["outputs"] <- Nbformat.joined [ Nbformat.stream "stdout" "a"; Nbformat.stream "stdout" "b\nc" ]
              cell["execution_count"] <- JsonValue.Create 7
              Nbformat.write path notebook |> Check.get
              Expect.equal (outputs path) [ """[{"name":"stdout","output_type":"stream","text":["ab\n","c"]}]""" ] "joined"
              Expect.equal (finish (cmcl [ "notebook"; "strip"; path ])) (0, "") "no output"
              Expect.isTrue (JsonNode.DeepEquals(read path, JsonNode.Parse(notebookOf [ "1" ]))) "as it was")
          testCase "a chart cannot end the script that it stands in"
          <| fun () ->
              let chart = Chart.Point [ 1, 2 ] |> Chart.withTitle "</script><b>"
              let html = Inline.chart "here" chart
              Expect.equal (html.Split("</script>").Length - 1) 1 "only its own end"
              contains "<div id=\"here\">" html ]
