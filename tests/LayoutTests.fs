module Cmcl.Tests.LayoutTests

open System
open System.IO
open System.Text.RegularExpressions
open Cmcl
open Expecto
open FsCheck
open FsCheck.FSharp
open Cmcl.Tests.CliTests

let private label = "dns[protect=product;tau=3e-5;partner=at-learning;moments=centred;lr=1e-3;weight-decay=1e-4]"

/// A command in this process, as wide as is said.
let private at (width: int) (arguments: string list) : string =
    let before = Environment.GetEnvironmentVariable "COLUMNS"

    try
        Environment.SetEnvironmentVariable("COLUMNS", string width)
        let told = cmcl arguments
        Expect.equal (told.Code, told.Error) (0, "") (String.Join(" ", arguments))
        told.Out
    finally
        Environment.SetEnvironmentVariable("COLUMNS", before)

let private words (text: string) : Set<string> =
    text.Split([| ' '; '\n' |], StringSplitOptions.RemoveEmptyEntries)
    |> Array.filter (fun w -> w.Trim('─') <> "")
    |> Set.ofArray

/// What a label may be broken into.
let private pieces (label: string) : string list = label.Replace("[", "[ ").Replace(";", "; ").Split ' ' |> List.ofArray

/// Whether a word stands in a text, whole, or as settings of a label there.
let private stands (wide: Set<string>) (word: string) : bool =
    let within (label: string) =
        let at = label.IndexOf(word, StringComparison.Ordinal)
        let before, after = at = 0 || (at > 0 && "[;".Contains label[at - 1]), at + word.Length

        label.Contains '=' && before && (after = label.Length || "[;".Contains label[after - 1])

    wide.Contains word || Set.exists within wide

/// No line is wider, no word is broken, and what is not there is told.
let private fits (width: int) (steady: string -> bool) (wide: string) (text: string) =
    // A log of what takes longer than half a minute has lines of where its cells are.
    let progress (line: string) = Regex.IsMatch(line, "seed \\d+ · step")
    let without (text: string) = String.Join("\n", text.Split '\n' |> Array.filter (progress >> not))
    let wide, text = without wide, without text

    for line in text.Split '\n' do
        // A path, or another word that is longer than a line.
        if (line.Trim()).Contains ' ' then
            Expect.isLessThanOrEqual line.Length width line

    let known = words wide
    let sentence = Regex @"Left\s+out\s+at\s+\d+\s+columns:[^.]*\."
    let own = words (sentence.Replace(text, "")) |> Set.filter steady
    let strange = own |> Set.filter (stands known >> not)

    let said =
        words
            "A wider terminal shows them. The report has them, and results.csv beside it. The page has them, and table.csv beside it. verify.csv has them, and the page of figures. trials.csv has them."

    Expect.equal (Set.difference strange said) Set.empty $"words at {width} columns that are none"
    let joined = Regex.Replace(text, @"\s+", "")
    let lost = words wide |> Set.filter (fun w -> steady w && not (joined.Contains w || own.Contains w))
    Expect.isTrue (lost.IsEmpty || sentence.IsMatch text) $"lost at {width} columns without a word: {lost}"

let private every = [ 60; 80; 100; 120 ]

let private always (_: string) = true

/// Numbers may be times, which differ from run to run.
let private noNumber (word: string) = not (Seq.exists Char.IsDigit word)

let private heldAt (widths: int list) (steady: string -> bool) (arguments: string list) =
    let wide = at 2000 arguments

    for width in widths do
        fits width steady wide (at width arguments)

let private held = heldAt every

let private commands =
    testList
        "commands"
        [ testCase "texts of what there is" (fun () ->
              for arguments in
                  [ [ "methods" ]
                    [ "methods"; "dns" ]
                    [ "methods"; "c-flat" ]
                    [ "metrics" ]
                    [ "info"; "synthetic" ]
                    [ "info"; "emoji" ]
                    [ "import" ] ] do
                  held always arguments)

          testCase "a run, its settings and its table" (fun () ->
              inFolder (fun folder ->
                  let out = Path.Combine(folder, "out")

                  [ "run"; "--stream"; "synthetic"; "--epochs"; "1"; "--seeds"; "0-1"; "--force"; "-o"; out ]
                  @ [ "--methods"; $"zero-shot,vanilla,{label}"; "--jobs"; "1" ]
                  |> held noNumber))

          testCase "a search" (fun () ->
              inFolder (fun folder ->
                  let tune =
                      [ "tune"; "--stream"; "synthetic"; "--method"; label; "--set"; "epochs=1"; "--jobs"; "1" ]
                      @ [ "--grid"; "temperature=0.05"; "-o"; Path.Combine(folder, "t") ]

                  let wide = at 2000 tune
                  fits 60 noNumber wide (at 60 tune)))

          testCase "a verification" (fun () ->
              inFolder (fun folder ->
                  // Each width verifies anew.
                  [ "verify"; "--stream"; "synthetic"; "--epochs"; "1"; "--force"; "-o"; Path.Combine(folder, "v") ]
                  |> heldAt [ 60; 100 ] noNumber))

          testCase "a benchmark's parity" (fun () ->
              [ "bench"; "--parity"; "--sizes"; "8"; "--batches"; "4"; "--dtype"; "float64"; "--threads"; "1" ]
              |> fun arguments ->
                  let wide = cmcl arguments

                  for width in every do
                      let before = Environment.GetEnvironmentVariable "COLUMNS"
                      Environment.SetEnvironmentVariable("COLUMNS", string width)
                      let told = cmcl arguments
                      Environment.SetEnvironmentVariable("COLUMNS", before)
                      fits width noNumber wide.Out told.Out)

          testCase "help of every command" (fun () ->
              for name in
                  [ "run"; "compare"; "tune"; "verify"; "bench"; "import"; "sweep"; "export"; "apply"; "extract"; "notebook" ]
                  @ [ "new"; "store"; "stream" ] do
                  for line in (cmcl [ name; "--help" ]).Out.Split '\n' do
                      Expect.isLessThanOrEqual line.Length 80 $"{name}: {line}") ]

/// Cells of words and numbers, some of them labels.
let private cells =
    gen {
        let! rows = Gen.choose (1, 5)
        let! columns = Gen.choose (1, 9)
        let word = Gen.elements [ "a"; "deviation"; "12.5±0.3"; "two words"; label; "–"; "a longer sentence of some words" ]
        let! texts = Gen.arrayOfLength (rows * columns) word
        let! ranks = Gen.arrayOfLength columns (Gen.choose (0, 3))
        let! width = Gen.choose (20, 160)
        return rows, columns, texts, ranks, width
    }

let private tables =
    testList
        "tables"
        [ testCase
              "no line is wider, no word is broken, every column that is left out is named, columns that stay are whole"
              (fun () ->
                  let holds (rows, columns, texts: string[], ranks: int[], width) =
                      let t =
                          { Columns =
                              [ for i in 0 .. columns - 1 ->
                                    { Title = $"c{i}"
                                      IsText = i % 2 = 0
                                      Rank = (if i = 0 then 0 else ranks[i]) } ]
                            Rows =
                              [ for r in 0 .. rows - 1 ->
                                    Some [ for c in 0 .. columns - 1 -> Layout.plain texts[r * columns + c] ] ]
                            Elsewhere = "Elsewhere." }

                      let lines = Layout.table (fun _ text -> text) width t
                      let text = String.Join("\n", lines)
                      let gone = Regex.Match(text, @"Left\s+out\s+at\s+\d+\s+columns:\s+([^.]*)\.").Groups[1].Value

                      let shown =
                          [ for i, c in List.indexed t.Columns do
                                if not (List.contains c.Title (Array.toList (Regex.Split(gone, ",\\s+")))) then
                                    i ]

                      let joined = Regex.Replace(text, @"\s", "")

                      // What stays whatever the width may be wider than that.
                      if shown |> List.exists (fun i -> t.Columns[i].Rank > 0) then
                          for line in lines do
                              Expect.isLessThanOrEqual line.Length width line

                      for i in shown do
                          Expect.stringContains text $"c{i}" "a title"

                          for r in 0 .. rows - 1 do
                              for word in texts[r * columns + i].Split ' ' do
                                  for piece in (if word = label then pieces word else [ word ]) do
                                      Expect.stringContains joined piece "a word"

                  Check.One(Config.QuickThrowOnFailure.WithMaxTest 300, Prop.forAll (Arb.fromGen cells) holds))

          testCase "numbers stand right, texts left, and the least important column goes first" (fun () ->
              let t =
                  { Columns = [ Layout.words 0 "method"; Layout.figures 2 "cost"; Layout.figures 1 "recall" ]
                    Rows = [ Some [ Layout.plain "a"; Layout.plain "1"; Layout.plain "0.5" ]; None ]
                    Elsewhere = "The file has them." }

              let lines width = Layout.table (fun _ text -> text) width t
              Expect.equal (lines 60) [ "  method  cost  recall"; "  ────────────────────"; "  a          1     0.5"; "" ] "all"

              Expect.equal
                  (lines 21)
                  [ "  method  recall"
                    "  ──────────────"
                    "  a          0.5"
                    ""
                    "  Left out at 21"
                    "  columns: cost. The"
                    "  file has them." ]
                  "the cost goes")

          testCase "text is broken between words, and a label only where it is longer than a line" (fun () ->
              Expect.equal (Layout.wrap 12 "one two three four") [ "one two"; "three four" ] "words"
              Expect.equal (Layout.wrap 20 "a dns[lr=1;tau=2] b") [ "a dns[lr=1;tau=2] b" ] "it fits"
              Expect.equal (Layout.wrap 10 "dns[lr=1;tau=2]") [ "dns[lr=1;"; "tau=2]" ] "a label"
              Expect.equal (Layout.wrap 4 "dispatch it") [ "dispatch"; "it" ] "a word stays whole"
              Expect.equal (Layout.wrap 9 ("in " + Layout.whole "a b/c d" + " x")) [ "in"; "a b/c d x" ] "a path stays whole") ]

let tests = testSequenced (testList "Layout" [ tables; commands ])
