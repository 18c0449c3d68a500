module Cmcl.Tests.TransferTests

open Expecto
open FsCheck
open FsCheck.FSharp
open Cmcl

/// A whole matrix of T steps, one task each.
type Square = { Values: float[][] }

type Generators =
    static member Square() : Arbitrary<Square> =
        gen {
            let! steps = Gen.choose (1, 6)
            let entry = Gen.choose (0, 100) |> Gen.map (fun i -> float i / 100.0)
            let! rows = Gen.arrayOfLength (steps + 1) (Gen.arrayOfLength steps entry)
            return { Values = rows }
        }
        |> Arb.fromGen

let private config =
    { FsCheckConfig.defaultConfig with
        arbitrary = [ typeof<Generators> ]
        maxTest = 200 }

let private columns (square: Square) : TaskColumn list =
    [ for j in 1 .. square.Values.Length - 1 ->
          { Task = string j
            LearnedAt = j
            Values = square.Values |> Array.map (fun row -> Some row[j - 1]) } ]

let private build (columns: TaskColumn list) : ResultMatrix =
    Transfer.matrix (columns.Head.Values.Length - 1) columns |> Check.get

let private figures: (string * (ResultMatrix -> Average option)) list =
    [ "final", Transfer.final
      "learned", Transfer.learned
      "bwt", Transfer.bwt
      "bwtAllColumns", Transfer.bwtAllColumns
      "forgetting", Transfer.forgetting
      "forgettingClipped", Transfer.forgettingClipped
      "fwt", Transfer.fwt
      "zeroShotShift", Transfer.zeroShotShift
      "stepAverage", Transfer.stepAverage ]

let private close (a: Average option) (b: Average option) : bool =
    match a, b with
    | Some a, Some b -> a.Terms = b.Terms && abs (a.Value - b.Value) < 1e-12
    | None, None -> true
    | _ -> false

let private value (average: Average option) = (Option.get average).Value

let private same (a: ResultMatrix) (b: ResultMatrix) = figures |> List.forall (fun (_, figure) -> close (figure a) (figure b))

/// Worked by hand: row 0 is before training, column j is learned by step j.
let private example =
    build (
        columns { Values = [| [| 0.10; 0.20; 0.30 |]; [| 0.50; 0.25; 0.20 |]; [| 0.60; 0.70; 0.40 |]; [| 0.40; 0.60; 0.90 |] |] }
    )

let private byHand =
    [ "final", (0.40 + 0.60 + 0.90) / 3.0, 3
      "learned", (0.50 + 0.70 + 0.90) / 3.0, 3
      "bwt", (-0.10 - 0.10) / 2.0, 2
      "bwtAllColumns", (-0.10 - 0.10 + 0.0) / 3.0, 3
      "forgetting", (0.20 + 0.10) / 2.0, 2
      "forgettingClipped", (0.20 + 0.10) / 2.0, 2
      "fwt", (0.05 + 0.10) / 2.0, 2
      "zeroShotShift", (0.30 + 0.40 + 0.60) / 3.0, 3
      "stepAverage", (0.50 + 0.65 + 1.90 / 3.0) / 3.0, 3 ]

let private without (step: int) (task: int) (m: ResultMatrix) =
    m.Columns
    |> List.map (fun c ->
        if c.LearnedAt = task then
            { c with
                Values = c.Values |> Array.mapi (fun i v -> if i = step then Some nan else v) }
        else
            c)
    |> build

let private property name (test: Square -> bool) = testPropertyWithConfig config name test

let tests =
    testList
        "Transfer"
        [ testList
              "a 3 × 3 matrix by hand"
              [ for name, expected, terms in byHand ->
                    testCase name (fun () ->
                        let figure = (Map.ofList figures)[name] example |> Option.get
                        Expect.floatClose Accuracy.high figure.Value expected "value"
                        Expect.equal figure.Terms terms "terms") ]

          testList
              "what is missing"
              [ testCase "a figure that needs the entry does not exist" (fun () ->
                    let holed = without 1 1 example
                    Expect.isNone (Transfer.learned holed) "learned"
                    Expect.isNone (Transfer.bwt holed) "bwt"
                    Expect.isNone (Transfer.stepAverage holed) "stepAverage")
                testCase "a figure that does not need it stays" (fun () ->
                    let holed = without 1 1 example
                    Expect.isTrue (close (Transfer.final holed) (Transfer.final example)) "final"
                    Expect.isTrue (close (Transfer.fwt holed) (Transfer.fwt example)) "fwt")
                testCase "one step has nothing to forget" (fun () ->
                    let one = Transfer.upTo 1 example
                    Expect.isNone (Transfer.bwt one) "bwt"
                    Expect.isNone (Transfer.forgetting one) "forgetting"
                    Expect.isNone (Transfer.fwt one) "fwt")
                testCase "before training there is only a final value" (fun () ->
                    let zero = Transfer.upTo 0 example

                    Expect.equal
                        [ for name, figure in figures do
                              if (figure zero).IsSome then
                                  name ]
                        [ "final" ]
                        "figures")
                testCase "no columns, no figures" (fun () ->
                    let empty = Transfer.matrix 2 [] |> Check.get
                    Expect.all figures (fun (_, figure) -> (figure empty).IsNone) "none")
                testCase "every fault of a matrix is told" (fun () ->
                    let wrong =
                        [ { Task = "a"; LearnedAt = 1; Values = [| Some 1.0 |] }
                          { Task = "b"; LearnedAt = 0; Values = [| Some 1.0; None |] } ]

                    match Transfer.matrix 1 wrong with
                    | Error [ Fault.Shape _; Fault.BadValue _ ] -> ()
                    | other -> failtest $"{other}") ]

          testList
              "properties"
              [ property "final = learned + bwt over all columns" (fun s ->
                    let m = build (columns s)

                    abs (value (Transfer.final m) - value (Transfer.learned m) - value (Transfer.bwtAllColumns m)) < 1e-12)
                property "the order of the columns does not matter" (fun s ->
                    same (build (columns s)) (build (List.rev (columns s))))
                property "a constant on a column changes final, learned and stepAverage only" (fun s ->
                    let lifted =
                        columns s
                        |> List.map (fun c ->
                            if c.LearnedAt = 1 then
                                { c with
                                    Values = c.Values |> Array.map (Option.map ((+) 0.5)) }
                            else
                                c)

                    let before, after = build (columns s), build lifted

                    [ for name, figure in figures do
                          if not (close (figure before) (figure after)) then
                              name ]
                        =
                        [ "final"; "learned"; "stepAverage" ])
                property "constant columns: nothing is transferred or forgotten" (fun s ->
                    let flat =
                        columns s
                        |> List.map (fun c ->
                            { c with
                                Values = c.Values |> Array.map (fun _ -> c.Values[0]) })
                        |> build

                    [ Transfer.bwt; Transfer.forgetting; Transfer.fwt; Transfer.zeroShotShift ]
                    |> List.forall (fun figure ->
                        match figure flat with
                        | Some figure -> abs figure.Value < 1e-12
                        | None -> flat.Steps = 1))
                property "forgetting is never less than −bwt, and clipped never less than it or zero" (fun s ->
                    let m = build (columns s)

                    match Transfer.forgetting m, Transfer.bwt m, Transfer.forgettingClipped m with
                    | Some f, Some b, Some c -> f.Value >= -b.Value - 1e-12 && c.Value >= f.Value - 1e-12 && c.Value >= 0.0
                    | None, None, None -> m.Steps = 1
                    | _ -> false)
                property "forgetting is −bwt where every column falls" (fun s ->
                    let falling = columns s |> List.map (fun c -> { c with Values = Array.sortDescending c.Values }) |> build

                    close
                        (Transfer.forgetting falling)
                        (Transfer.bwt falling |> Option.map (fun b -> { b with Value = -b.Value })))
                property "the course of a figure ends in the figure" (fun s ->
                    let m = build (columns s)
                    same m (Transfer.upTo m.Steps m)) ]

          testList
              "meanSd"
              [ testCase "of none" (fun () -> Expect.isNone (Transfer.meanSd []) "none")
                testCase "of one there is no deviation" (fun () ->
                    Expect.equal (Transfer.meanSd [ 2.0 ]) (Some { Mean = 2.0; Sd = None; Count = 1 }) "one")
                testCase "divides by n − 1" (fun () ->
                    let spread = Transfer.meanSd [ 1.0; 2.0; 3.0; 6.0 ] |> Option.get
                    Expect.equal spread.Mean 3.0 "mean"
                    Expect.floatClose Accuracy.high spread.Sd.Value (sqrt (14.0 / 3.0)) "sd"
                    Expect.equal spread.Count 4 "n") ] ]
