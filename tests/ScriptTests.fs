/// Scripts as processes of their own: what their options refuse and what they leave.
module Cmcl.Tests.ScriptTests

open System
open System.IO
open Cmcl.Tests.Processes
open Expecto

let private root =
    let rec up (folder: string) =
        if File.Exists(Path.Combine(folder, "build.fsx")) then
            folder
        else
            match Path.GetDirectoryName folder with
            | null -> failwith "the scripts are not above the tests"
            | parent -> up parent

    up AppContext.BaseDirectory

/// Scripts load the command's release build.
let private script (name: string) (arguments: string list) =
    if not (File.Exists(Path.Combine(root, "cli", "bin", "Release", "net10.0", "Cmcl.dll"))) then
        skiptest "dotnet build cli -c Release has not been run"

    start "dotnet" ([ "fsi"; Path.Combine(root, "scripts", name + ".fsx") ] @ arguments)

let private refuses (name: string) (arguments: string list) (words: string list) =
    testCase (String.Join(' ', name :: arguments)) (fun () ->
        let code, said = finish (script name arguments)
        Expect.equal code 2 said
        Expect.isFalse (said.Contains "   at ") "no stack trace"

        for word in words do
            Expect.stringContains said word "names it")

let tests =
    testList
        "scripts"
        [ refuses "template" [ "--sets"; "tau=1" ] [ "template.fsx: "; "--sets"; "--help" ]
          refuses "cost" [ "--seeds"; "0" ] [ "cost.fsx has no use for --seeds" ]
          refuses "template" [ "--small"; "--set"; "tau=1e-4" ] [ "'tau=1e-4'"; "sets its own" ]

          testCase "help tells the question, the command and only the options that there are"
          <| fun () ->
              let code, said = finish (script "cost" [ "--"; "--help" ])
              Expect.equal code 0 said
              Expect.stringContains said "dotnet fsi scripts/cost.fsx" "command"
              Expect.stringContains said "--values" "has"
              Expect.isFalse (said.Contains "--seeds") "has not"

          testCase "a second run trains nothing and leaves the same table"
          <| inFolder (fun folder ->
              let twice () = script "template" [ "--small"; "--out"; folder ] |> finish
              let figures () = File.ReadAllText(Path.Combine(folder, "results.csv"))
              let code, said = twice ()
              Expect.equal code 0 said
              let before = figures ()
              File.Delete(Path.Combine(folder, "results.csv"))
              let code, said = twice ()
              Expect.equal code 0 said
              Expect.stringContains said "(finished before)" "read, not trained"
              Expect.equal (figures ()) before "figures, times too"
              Expect.isTrue (File.Exists(Path.Combine(folder, "page.html"))) "page") ]
