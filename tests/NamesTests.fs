module Cmcl.Tests.NamesTests

open System
open System.IO
open System.Text
open Cmcl
open Expecto
open FsCheck
open FsCheck.FSharp

/// Text of any characters, halves of surrogate pairs and control characters among them, and of those that paths have a meaning for.
let private hostile: Gen<string> =
    let one =
        Gen.frequency
            [ 3, Gen.elements (List.ofSeq "../\\~ -_:*?\"'$`%\n\r\t\000")
              2, Gen.elements (List.ofSeq "abXY09[]=;")
              1, Gen.choose (0, 0xFFFF) |> Gen.map char ]

    Gen.sized (fun size -> Gen.listOfLength (size * 3) one) |> Gen.map (Array.ofList >> String)

let private safe (label: string) =
    let name = Names.folder label
    let file = Path.GetFileName name
    Expect.equal file name $"one part of a path, of '{label}'"
    Expect.isTrue (name <> "" && not (name.StartsWith '.') && not (name.StartsWith '-') && not (name.EndsWith '.')) name
    Expect.isFalse (name |> Seq.exists (fun c -> Char.IsControl c || " /\\:*?\"'$`%".Contains c)) name
    Expect.isLessThanOrEqual (UTF8Encoding(false, true).GetByteCount name) 80 "bytes, all of them text"
    Expect.equal (Names.folder name = name) (name = label) "only a label that stays has its own name"

let tests =
    testList
        "Names"
        [ testCase "what is readable stays" (fun () ->
              for label in [ "emoji-dense"; "vanilla"; "table_2"; "v1.5"; "表情"; "Füße" ] do
                  Expect.equal (Names.folder label) label label

              for label, start in
                  [ "dns[tau=1e-5]", "dns_tau_1e-5~"; "../../escape", "escape~"; "a b", "a_b~"; "con.txt", "con.txt~"; "", "~" ] do
                  Expect.stringStarts (Names.folder label) start label)

          testCase "any name is safe" (fun () ->
              for label in
                  [ ""
                    "."
                    ".."
                    "/"
                    "/etc"
                    "NUL"
                    "\000"
                    String(char 0xD800, 1)
                    String('x', 400)
                    String('語', 90)
                    "-rf"
                    "a." ] do
                  safe label

              Check.One(Config.QuickThrowOnFailure.WithMaxTest 2000, Prop.forAll (Arb.fromGen hostile) safe))

          testCase "two labels have two folders" (fun () ->
              let labels =
                  [ "a/b"; "a_b"; "a b"; "a:b"; String(char 0xD800, 1); String(char 0xD801, 1); "é"; "e\u0301"; ""; "."; ".." ]
                  @ [ for n in 0..9 -> String('x', 300) + string n ]

              let own = labels |> List.map Names.folder |> List.distinct
              Expect.equal own.Length labels.Length "all different") ]
