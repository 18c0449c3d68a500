/// Scripts as processes of their own: what their options refuse and what they leave.
module Cmcl.Tests.ScriptTests

open System
open System.IO
open Cmcl.Tests.Checks
open Cmcl.Tests.Processes
open Expecto

/// Scripts load the command's release build.
let private script (name: string) (arguments: string list) =
    if not (File.Exists(Path.Combine(root, "cli", "bin", "Release", "net10.0", "Cmcl.dll"))) then
        skiptest "dotnet build cli -c Release has not been run"

    start "dotnet" ([ "fsi"; Path.Combine(root, "scripts", name + ".fsx") ] @ arguments)

/// What each is refused with names these words. They start side by side, since starting takes longest.
let private refused =
    [ "template", [ "--sets"; "tau=1" ], [ "template.fsx: "; "--sets"; "--help" ]
      "cost", [ "--seeds"; "0" ], [ "cost.fsx has no use for --seeds" ]
      "template", [ "--small"; "--set"; "tau=1e-4" ], [ "'tau=1e-4'"; "sets its own" ] ]

let tests =
    testList
        "scripts"
        [ testCase "mistakes end with a sentence and exit code 2"
          <| fun () ->
              for command, words in [ for name, arguments, words in refused -> script name arguments, words ] do
                  let code, said = finish command
                  Expect.equal code 2 said
                  Expect.isFalse (said.Contains "   at ") "no stack trace"

                  for word in words do
                      Expect.stringContains said word "names it"

          testCase
              "a mistake in a script of one's own ends with the script's line and a sentence, without what is inside the library"
          <| inFolder (fun folder ->
              let file = Path.Combine(folder, "mine.fsx")
              let load = Path.Combine(root, "scripts", "load.fsx")

              File.WriteAllLines(
                  file,
                  [ $"#load @\"{load}\""
                    "open Cmcl"
                    "let stream = Stream.load \"synthetic\""
                    "let found ="
                    "    stream |> Run.on |> Run.method (Dns.soft |> Learn.epochs 0) |> Run.go" ]
              )

              let code, said = finish (start "dotnet" [ "fsi"; file ])
              Expect.equal code 1 said
              Expect.stringContains said "mine.fsx, line 5: epochs takes a whole number ≥ 1, not '0'." "the sentence"
              Expect.isFalse (said.Contains "   at ") $"no trace: {said}")

          testCase "a tree that is not built says what builds it"
          <| inFolder (fun folder ->
              let scripts = Directory.CreateDirectory(Path.Combine(folder, "scripts")).FullName

              for name in [ "core.fsx"; "load.fsx" ] do
                  File.Copy(Path.Combine(root, "scripts", name), Path.Combine(scripts, name))

              let file = Path.Combine(folder, "mine.fsx")
              File.WriteAllText(file, "#load \"scripts/load.fsx\"")
              let code, said = finish (start "dotnet" [ "fsi"; file ])
              Expect.equal code 1 said
              Expect.stringContains said "not built. In its root run   dotnet build cli -c Release" "the command")

          testCase "help tells the question, the command and only the options that there are"
          <| fun () ->
              let code, said = finish (script "cost" [ "--"; "--help" ])
              Expect.equal code 0 said
              Expect.stringContains said "dotnet fsi scripts/cost.fsx" "command"
              Expect.stringContains said "--values" "has"
              Expect.isFalse (said.Contains "--seeds") "has not"

          testCase "cmcl new writes scripts that run, and replaces none"
          <| inFolder (fun folder ->
              let written kind =
                  let file = Path.Combine(folder, $"my-{kind}.fsx")
                  let code, said = finish (cmcl [ "new"; file; "--kind"; kind ])
                  Expect.equal code 0 said
                  let text = File.ReadAllText file
                  Expect.isFalse (text.Contains "../../scripts") "it loads what is there"
                  Expect.stringContains text $"dotnet fsi my-{kind}.fsx" "its own name"

                  // On less data and with fewer seeds.
                  File.WriteAllText(
                      file,
                      text
                          .Replace("\"emoji\" //", "\"synthetic\" //")
                          .Replace("\"emoji\")", "\"synthetic\")")
                          .Replace("[ 0..2 ]", "[ 0 ]")
                          .Replace("\"results/", $"@\"{folder}/")
                  )

                  start "dotnet" [ "fsi"; file ]

              for kind, running in [ for kind in [ "ablation"; "method" ] -> kind, written kind ] do
                  let code, said = finish running
                  Expect.equal code 0 said
                  Expect.stringContains said "vanilla" kind

              Expect.isTrue (File.Exists(Path.Combine(folder, "my-ablation", "page.html"))) "its page"

              for arguments, words in
                  [ [ Path.Combine(folder, "my-method.fsx") ], "exists already"
                    [ Path.Combine(folder, "mine.txt") ], "mine.fsx"
                    [ Path.Combine(folder, "other.fsx"); "--kind"; "plot" ], "ablation" ] do
                  let code, said = finish (cmcl ("new" :: arguments))
                  Expect.equal code 2 said
                  Expect.stringContains said words "says why")

          testCase "arguments after -- are refused where nobody takes them"
          <| fun () ->
              let code, said = finish (cmcl [ "info"; "synthetic"; "--"; "--force" ])
              Expect.equal code 2 said
              Expect.stringContains said "leave out '--'" "what to do"

          testCase "a second run reads what the first one trained"
          <| inFolder (fun folder ->
              let figures () =
                  let code, said = finish (script "template" [ "--small"; "--out"; folder ])
                  Expect.equal code 0 said
                  Expect.isTrue (File.Exists(Path.Combine(folder, "page.html"))) "page"
                  let table = File.ReadAllText(Path.Combine(folder, "results.csv"))
                  File.Delete(Path.Combine(folder, "results.csv"))
                  table

              let first = figures ()
              Expect.stringContains first "seconds_train" "times are among the figures"
              Expect.equal (figures ()) first "the same, so that nothing was trained") ]
