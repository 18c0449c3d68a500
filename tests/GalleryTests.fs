module Cmcl.Tests.GalleryTests

open System
open System.IO
open Expecto
open SkiaSharp
open TorchSharp
open Cmcl
open Cmcl.Cli
open Cmcl.Encoders
open Cmcl.Tests.Checks
open Cmcl.Tests.CliTests

let private place (folder: string) (name: string) = Path.Combine(folder, name)

// ---- ranks and rows ----------------------------------------------------------------------------------------------

/// Numbers of which many are equal.
let private few (c: Case) : float[] =
    let random = Random c.Seed
    [| for _ in 1L .. c.N + 3L -> float (random.Next 4) |]

/// Places by score, of equal ones the earlier first, one after another.
let private sorted (scores: float[]) : int list =
    let rec next (left: int list) =
        match left with
        | [] -> []
        | first :: _ ->
            let best = left |> List.fold (fun best i -> if scores[i] > scores[best] then i else best) first
            best :: next (List.except [ best ] left)

    next [ 0 .. scores.Length - 1 ]

let private ranks =
    testList
        "ranks"
        [ property "the best and the rank are those of a loop over all scores" (fun c ->
              let scores = few c
              let order = sorted scores
              Expect.equal (Gallery.best 5 scores) (List.truncate 5 order) "the best"

              for i in 0 .. scores.Length - 1 do
                  Expect.equal (Gallery.rank scores i) (1 + List.findIndex ((=) i) order) "the rank")
          test "without a rule for equal scores, a row could be shown at another place than its rank" (fun () ->
              let scores = [| 1.0; 2.0; 1.0 |]
              let careless i = 1 + (scores |> Array.filter (fun s -> s > scores[i]) |> Array.length)
              let shown = 1 + List.findIndex ((=) 2) (Gallery.best 3 scores)
              Expect.equal (Gallery.rank scores 2) shown "as it is shown"
              Expect.notEqual (careless 2) shown "not so without")
          property "rows are drawn once, in order, and always the same" (fun c ->
              let count = 1 + int c.Rank
              let rows = Gallery.draw "a" count c.N
              Expect.equal rows (rows |> Array.distinct |> Array.sort) "once, in order"
              Expect.hasLength rows (min count (int c.N)) "as many"
              Expect.all rows (fun row -> row >= 0L && row < c.N) "there are such"
              Expect.equal (Gallery.draw "a" count c.N) rows "again")
          test "another task has other rows" (fun () ->
              Expect.notEqual (Gallery.draw "a" 6 1000L) (Gallery.draw "b" 6 1000L) "drawn by the name") ]

// ---- a run by hand -----------------------------------------------------------------------------------------------

let private label = "mine"

/// A results folder with heads of one method after each step.
let private saved (folder: string) (scores: string) (stream: Stream) (heads: Heads list) : unit =
    let info =
        { RunInfo.parse "{}" with
            StreamName = stream.Name
            Digest = stream.Digest
            Methods =
                [ { Label = label
                    Method = label
                    Role = Role.Competitor
                    Settings = [ "scores", scores ] } ] }

    File.WriteAllText(place folder "config.json", RunInfo.toJson info)
    File.WriteAllText(place folder "results.csv", "stream,method,seed,step,task,metric,value\n")

    for step, heads in List.zip stream.Steps heads do
        ResultsFolder.saveWeights folder label 0 step heads

let private request (folder: string) (stream: Stream) : GalleryRequest =
    { Results = folder
      Stream = stream
      Split = Split.Test
      Seed = 0
      Step = stream.Steps.Length
      Methods = [ label ]
      Tasks = [ for step in stream.Steps -> step.Index ]
      Count = 1000
      Reverse = false }

let private splits n = InMemory.split (Seed.ofInt 0) n

/// Two steps of the same two banks, and others of pairs: several rows of the one match a row of the other.
let private streams (c: Case) : Stream list =
    let n = c.N + 20L
    let a = InMemory.bank "a" "vision" (normal c "a" n c.Da)
    let b = InMemory.bank "b" "text" (normal c "b" n c.Db)
    let many = InMemory.bank "many" "text" (normal c "many" (2L * n) c.Db)
    let ofA, ofB = [| for i in 0L .. 2L * n - 1L -> i / 2L |], [| 0L .. 2L * n - 1L |]

    [ InMemory.stream "rows" [ InMemory.step a b (splits n) ]
      InMemory.stream "pairs" [ InMemory.pairs a many (ofA, ofB) (InMemory.splitPairs (Seed.ofInt 1) (ofA, ofB)) ] ]
    |> List.map Check.get

/// The same by loops: for each query the rows of the other side, best first, and the place of the first match.
let private naive (scoring: Scoring) (heads: Heads) (reverse: bool) (step: Step) (row: int64) : (int64 * bool) list * int =
    let struct (ofA, ofB) = Stream.bankRows Split.Test step
    let looking, other = if reverse then ofB, ofA else ofA, ofB
    let query, partner = if reverse then step.B, step.A else step.A, step.B

    let output (bank: Bank) (row: int64) =
        Alignment.prepare scoring (Heads.outputs heads[bank.Modality] (bank.Features.narrow (0L, row, 1L)))

    let own = output query row
    let candidates = Array.distinct other
    let scores = candidates |> Array.map (fun other -> Tensors.toFloat (own.mm ((output partner other).t())))
    let isMatch (candidate: int64) = Array.zip looking other |> Array.contains (row, candidate)
    let order = [ for i in sorted scores -> candidates[i], isMatch candidates[i] ]
    order, 1 + List.findIndex snd order

let private retrieval =
    testList
        "retrieval"
        [ property "what is found are the rows of a loop over all, both ways, with one match and with several" (fun c ->
              for stream in streams c do
                  for scores, scoring in [ "raw", Scoring.Raw; "cosine", Scoring.Cosine ] do
                      inFolder (fun folder ->
                          let heads = heads c "heads"
                          saved folder scores stream [ heads ]

                          for reverse in [ false; true ] do
                              let tasks = Gallery.make { request folder stream with Reverse = reverse } |> Check.get

                              for t in tasks do
                                  Expect.equal t.Query.Name (if reverse then t.Step.B.Name else t.Step.A.Name) "who looks"

                                  for q in t.Queries do
                                      let order, rank = naive scoring heads reverse t.Step q.Row
                                      let found = snd q.Found.Head
                                      Expect.equal found.Rank rank "rank"
                                      Expect.equal found.Learned None "there is no later step"

                                      Expect.equal
                                          [ for p in found.Best -> p.Row, p.IsMatch ]
                                          (List.truncate 5 order)
                                          "the best five"

                                      Expect.equal
                                          (List.sort q.Matches)
                                          (order |> List.filter snd |> List.map fst |> List.sort)
                                          "its matches"))
          property "an old task has the rank that its own step left, too; the newest has none" (fun c ->
              inFolder (fun folder ->
                  let n = c.N + 20L
                  let a = InMemory.bank "a" "vision" (normal c "a" n c.Da)

                  let stream =
                      InMemory.stream
                          "two"
                          [ InMemory.step a (InMemory.bank "b" "text" (normal c "b" n c.Db)) (splits n)
                            InMemory.step a (InMemory.bank "c" "text" (normal c "c" n c.Db)) (splits n) ]
                      |> Check.get

                  let first, second = heads c "first", heads c "second"
                  saved folder "raw" stream [ first; second ]
                  let tasks = Gallery.make (request folder stream) |> Check.get

                  for q in tasks[0].Queries do
                      let _, then' = naive Scoring.Raw first false stream.Steps[0] q.Row
                      let _, now = naive Scoring.Raw second false stream.Steps[0] q.Row
                      let found = snd q.Found.Head
                      Expect.equal (found.Rank, found.Learned) (now, Some then') "now and then"

                  for q in tasks[1].Queries do
                      Expect.equal (snd q.Found.Head).Learned None "just learned"))
          property "features stay as they are" (fun c ->
              inFolder (fun folder ->
                  let stream = List.head (streams c)
                  saved folder "cosine" stream [ heads c "heads" ]
                  let features = [ for bank in stream.Banks.Values -> bank.Features ]
                  untouched "make" features (fun () -> Gallery.make (request folder stream) |> Check.get))) ]

// ---- items -------------------------------------------------------------------------------------------------------

let private items =
    let read (text: string) (rows: int64) (act: string -> Result<BankItem[] option, Fault list> -> unit) =
        inFolder (fun folder ->
            File.WriteAllText(place folder "vision-a.csv", text)
            act folder (BankItems.read folder "vision:a" rows))

    let refused title (text: string) (words: string list) =
        testCase title (fun () ->
            read text 2L (fun _ result ->
                match result with
                | Error [ fault ] ->
                    for word in words do
                        Expect.stringContains fault.Message word "the sentence"
                | other -> failtest $"%A{other}"))

    testList
        "items"
        [ testCase "files and texts, relative to the list; a byte order mark and more columns" (fun () ->
              read "\uFEFFid,path,text,label\nx,p/x.png,\"a, b\",\ny,,only,l\n" 2L (fun folder result ->
                  match Check.get result with
                  | Some [| x; y |] ->
                      Expect.equal x.Path (Some(Path.GetFullPath(Path.Combine(folder, "p/x.png")))) "a path"
                      Expect.equal (x.Id, x.Text) ("x", Some "a, b") "its text"
                      Expect.equal (y.Path, y.Text) (None, Some "only") "a text alone"
                  | other -> failtest $"%A{other}"))
          testCase "a bank without a list has none" (fun () ->
              inFolder (fun folder -> Expect.equal (BankItems.read folder "vision:a" 2L) (Ok None) "none"))
          refused "too few" "id,text\nx,one\n" [ "vision-a.csv"; "2 lines"; "'vision:a'"; "got 1" ]
          refused "too many" "id,text\nx,1\ny,2\nz,3\n" [ "2 lines"; "got 3" ]
          refused "another header" "id,picture\nx,1\ny,2\n" [ "line 1"; "'picture'"; "id, path, text" ]
          refused "neither path nor text" "id,label\nx,1\ny,2\n" [ "line 1"; "path or text" ]
          refused "a name twice" "id,text,text\nx,1,1\ny,2,2\n" [ "twice" ]
          refused "fields missing" "id,text\nx\ny,2\n" [ "line 2"; "1 fields instead of 2" ]
          refused "quotes" "id,text\nx,\"1\ny,2\n" [ "quotes" ]
          refused "nothing" "" [ "empty" ] ]

// ---- pictures and recordings -------------------------------------------------------------------------------------

let private bytesOf (kind: string) (uri: string) : byte[] =
    let start = $"data:{kind};base64,"
    Expect.stringStarts uri start "the kind"
    Convert.FromBase64String(uri.Substring start.Length)

/// A picture of one colour.
let private paint (path: string) (width: int) (height: int) (colour: SKColor) : unit =
    use bitmap = new SKBitmap(width, height)
    bitmap.Erase colour
    use data = bitmap.Encode(SKEncodedImageFormat.Png, 100)
    File.WriteAllBytes(path, data.ToArray())

/// A tone of so many seconds.
let private tone (rate: int) (seconds: float) : float32[] =
    [| for i in 0 .. int (seconds * float rate) - 1 -> float32 (0.5 * sin (2.0 * Math.PI * 440.0 * float i / float rate)) |]

/// A recording of 16 bits a sample.
let private record (path: string) (rate: int) (samples: float32[]) : unit =
    let bytes = samples |> Array.collect (fun x -> BitConverter.GetBytes(int16 (32767f * x)))
    File.WriteAllBytes(path, SoundInputTests.wave 1 16 rate 1 bytes)

/// Samples a second and samples of a RIFF WAVE file of µ-law, by the rule of G.711.
let private played (file: byte[]) : int * float[] =
    let whole (at: int) = BitConverter.ToInt32(file, at)
    Expect.equal (Text.Encoding.ASCII.GetString(file, 0, 4), whole 4) ("RIFF", file.Length - 8) "a RIFF file"
    Expect.equal (BitConverter.ToInt16(file, 20), BitConverter.ToInt16(file, 34)) (7s, 8s) "of µ-law"

    whole 24,
    [| for b in Array.sub file 46 (whole 42) ->
           let b = ~~~b
           let magnitude = (((int (b &&& 15uy)) <<< 3) + 132) <<< int ((b >>> 4) &&& 7uy)
           float (if b >= 128uy then 132 - magnitude else magnitude - 132) / 32767.0 |]

let private media =
    testList
        "media"
        [ test "a picture is a small square, over white" (fun () ->
              inFolder (fun folder ->
                  let path = place folder "p.png"
                  paint path 300 150 (SKColor(255uy, 0uy, 0uy, 128uy))

                  match GalleryMedia.form path with
                  | ItemForm.Picture uri ->
                      use image = SKBitmap.Decode(bytesOf "image/webp" uri)
                      Expect.equal (image.Width, image.Height) (112, 112) "size"
                      let middle, edge = image.GetPixel(56, 56), image.GetPixel(56, 5)
                      let near (a: byte) (b: int) = abs (int a - b) < 8
                      Expect.isTrue (near middle.Red 255 && near middle.Green 127) $"half of it: {middle}"
                      Expect.isTrue (near edge.Green 255) $"white beside it: {edge}"
                  | other -> failtest $"%A{other}"))
          test "an SVG is drawn" (fun () ->
              inFolder (fun folder ->
                  let path = place folder "p.svg"

                  File.WriteAllText(
                      path,
                      """<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 10 10"><rect width="10" height="10" fill="#00f"/></svg>"""
                  )

                  match GalleryMedia.form path with
                  | ItemForm.Picture uri ->
                      use image = SKBitmap.Decode(bytesOf "image/webp" uri)
                      Expect.isGreaterThan (image.GetPixel(56, 56).Blue) 240uy "blue"
                  | other -> failtest $"%A{other}"))
          test "a recording is its first four seconds, with 11,025 samples a second at most" (fun () ->
              inFolder (fun folder ->
                  for rate, into in [ 8000, 8000; 44100, 11025; 48000, 11025 ] do
                      let path = place folder $"{rate}.wav"
                      record path rate (tone rate 5.0)

                      match GalleryMedia.form path with
                      | ItemForm.Recording uri ->
                          let rate, samples = bytesOf "audio/wav" uri |> played
                          Expect.equal (rate, samples.Length) (into, 4 * into) "as many samples"

                          let wanted = tone into 4.0

                          for i in into .. into + 200 do
                              Expect.isLessThan (abs (samples[i] - float wanted[i])) 0.03 "the same tone"
                      | other -> failtest $"%A{other}"))
          testCase "eight bits of a sample are within a thirtieth of it, and 128 bytes are told apart" (fun () ->
              let samples = [| for i in -1000 .. 1000 -> float32 i / 1000f |]
              let _, back = GalleryMedia.wave 8000 samples |> played

              for before, after in Array.zip samples back do
                  Expect.isLessThan (abs (float before - after)) (0.0005 + 0.033 * abs (float before)) $"{before}"

              Expect.isGreaterThan (Array.distinct back).Length 128 "levels")
          test "what cannot be read says why" (fun () ->
              inFolder (fun folder ->
                  let junk = place folder "junk.png"
                  File.WriteAllText(junk, "junk that is no picture")

                  for path, word in [ junk, "not an image"; place folder "none.png", "does not exist" ] do
                      match GalleryMedia.form path with
                      | ItemForm.Unreadable reason -> Expect.stringContains reason word "why"
                      | other -> failtest $"%A{other}")) ]

// ---- the page ----------------------------------------------------------------------------------------------------

let private evil = "</script><b>evil"

let private page =
    let content (folder: string) (item: Bank -> int64 -> ShownItem) : GalleryContent =
        let c = { Seed = 3; N = 10L; D = 4L; Da = 5L; Db = 6L; Rank = 0L }
        let stream = List.head (streams c)
        saved folder "raw" stream [ heads c "heads" ]
        let request = { request folder stream with Count = 3 }

        { Info = RunInfo.read folder |> Check.get
          Request = request
          Tasks = Gallery.make request |> Check.get
          Item = item
          Remarks = [ "joint is left out." ] }

    let count (part: string) (text: string) = (text.Split part).Length - 1

    let pictured (bank: Bank) (row: int64) : ShownItem =
        { Name = $"{bank.Name} {row} {evil}"
          Caption = $"{row}"
          Form =
            if bank.Name = "a" then
                ItemForm.Picture "data:image/webp;base64,AA=="
            else
                ItemForm.Recording $"data:audio/wav;base64,{row}" }

    testList
        "page"
        [ test "it has the rows that are found, with the matches marked, and their ranks" (fun () ->
              inFolder (fun folder ->
                  let c =
                      content folder (fun bank row ->
                          { Name = $"{bank.Name}-{row}"
                            Caption = ""
                            Form = ItemForm.Text })

                  let html = GalleryPage.build c

                  let found =
                      [ for t in c.Tasks do
                            yield! [ for q in t.Queries -> q, snd q.Found.Head ] ]

                  Expect.hasLength found 3 "three rows"

                  for q, f in found do
                      Expect.stringContains html $">a-{q.Row}<" "the query"
                      Expect.stringContains html $"rank {f.Rank} of 6" "its rank"

                      for p in f.Best do
                          Expect.stringContains html $">b-{p.Row}<" "a partner"

                  let matches = found |> List.sumBy (fun (_, f) -> f.Best |> List.filter _.IsMatch |> List.length)
                  Expect.equal (count "<li class=\"match\">" html) matches "framed"
                  Expect.equal (count "✓ match" html) matches "marked in words"
                  Expect.stringContains html "joint is left out." "the remark"

                  let without =
                      { c with
                          Tasks =
                              [ for t in c.Tasks ->
                                    { t with
                                        Queries =
                                            [ for q in t.Queries ->
                                                  { q with
                                                      Found =
                                                          [ for l, f in q.Found ->
                                                                l,
                                                                { f with
                                                                    Best = [ for p in f.Best -> { p with IsMatch = false } ] } ] } ] } ] }

                  Expect.equal (count "✓ match" (GalleryPage.build without)) 0 "no match, no mark"))
          test "pictures have an alternative, recordings a name, and each is in the page once" (fun () ->
              inFolder (fun folder ->
                  let html = GalleryPage.build (content folder pictured)
                  Expect.equal (count "data:image/webp;base64,AA==" html) 1 "one picture"
                  Expect.isGreaterThan (count "<img" html) 1 "in several places"
                  Expect.equal (count "<img" html) (count " alt=\"a " html) "alternatives"
                  Expect.equal (count "class=\"play\"" html) (count "aria-label=\"Play b " html) "names"
                  Expect.equal (count "<script" html) (count "</script>" html) "nothing gets out of names"
                  Expect.equal (count "<b>evil" html) 0 "nor is markup"
                  Expect.isFalse (html.Contains "http://" || html.Contains "https://") "nothing from elsewhere"))
          test "the same content gives the same bytes" (fun () ->
              inFolder (fun folder ->
                  let c = content folder pictured
                  Expect.equal (GalleryPage.build c) (GalleryPage.build c) "twice")) ]

// ---- the command -------------------------------------------------------------------------------------------------

let private trained (folder: string) (stream: string) (methods: string) (more: string list) : string =
    let out = place folder "out"

    let arguments =
        [ "run"
          "--stream"
          stream
          "-m"
          methods
          "--seeds"
          "1"
          "--epochs"
          "1"
          "--batch"
          "4"
          "--quiet"
          "--out"
          out ]

    Expect.equal (cmcl (arguments @ more)) { Code = 0; Out = ""; Error = "" } "the run"
    out

let private command =
    testList
        "command"
        [ test "the shares of a gallery of all rows are the recalls of the run, lifted features and a bias too" (fun () ->
              inFolder (fun folder ->
                  let out =
                      trained folder "synthetic" "vanilla,reference,zero-shot" [ "--save-weights"; "--features"; "relu:8" ]

                  let told = cmcl [ "gallery"; out; "--count"; "2" ]
                  Expect.equal (told.Code, told.Error) (0, "") "done"
                  Expect.stringContains told.Out "gallery.html" "where"
                  let html = File.ReadAllText(place out "gallery.html")
                  Expect.stringContains html "zero-shot has no heads after step" "who is left out"
                  let stream = Catalogue.find "synthetic" |> Check.get

                  for reverse in [ false; true ] do
                      let tasks =
                          Gallery.make
                              { request out stream with
                                  Seed = 1
                                  Methods = [ "vanilla"; "reference" ]
                                  Reverse = reverse }
                          |> Check.get

                      for t in tasks do
                          for label in [ "vanilla"; "reference" ] do
                              let one, five = t.Recall[label]
                              let share k = float (t.Within k label) / float t.Candidates
                              // A rounding may part two scores that tie in another order of sums.
                              Expect.isLessThan (abs (share 1 - one)) (1.5 / float t.Candidates) "R@1"
                              Expect.isLessThan (abs (share 5 - five)) (1.5 / float t.Candidates) "R@5"))
          test "pictures, recordings and texts from beside the stream; one that cannot be read costs its place" (fun () ->
              inFolder (fun folder ->
                  let data = Directory.CreateDirectory(place folder "data").FullName
                  makeStream id ignore data
                  let out = trained folder data "vanilla" [ "--save-weights" ]
                  let plain = cmcl [ "gallery"; out; "-q" ]
                  Expect.equal plain { Code = 0; Out = ""; Error = "" } "without items"
                  Expect.stringContains (File.ReadAllText(place out "gallery.html")) "row 17" "rows by number"

                  let items = Directory.CreateDirectory(place data BankItems.Folder).FullName
                  paint (place items "p.png") 20 30 SKColors.Red
                  record (place items "r.wav") 8000 (tone 8000 0.1)

                  let list (path: string) (first: int) (file: int -> string) =
                      File.WriteAllLines(place items path, "id,path" :: [ for i in 0..19 -> $"item {i},{file (i + first)}" ])

                  list "vision-a.csv" 0 (fun i -> if i = 17 then "none.png" else "p.png")
                  list "text-a.csv" 0 (fun _ -> "r.wav")
                  let told = cmcl [ "gallery"; out ]
                  Expect.equal told.Code 1 "a part is missing"
                  Expect.stringContains told.Error "none.png' does not exist" "which"
                  Expect.stringContains told.Error "one file could not be read" "how many"
                  let html = File.ReadAllText(place out "gallery.html")
                  Expect.stringContains html "cannot be read" "in its place"
                  Expect.stringContains html "aria-label=\"Play item 17\"" "a recording"
                  Expect.stringContains html "alt=\"item 18\"" "a picture"

                  let texts = Directory.CreateDirectory(place folder "texts").FullName
                  File.WriteAllLines(place texts "text-a.csv", "id,text" :: [ for i in 0..19 -> $"{i},text of {i}" ])
                  let told = cmcl [ "gallery"; out; "--items"; texts; "--reverse"; "-q"; "-o"; place folder "g.html" ]
                  Expect.equal told { Code = 0; Out = ""; Error = "" } "elsewhere"
                  let html = File.ReadAllText(place folder "g.html")
                  Expect.stringContains html ">text of 17<" "a text looks"
                  Expect.stringContains html "row 17" "in rows without a list"

                  let refused words more = cmcl ([ "gallery"; out ] @ more) |> expectRefused words
                  refused [ "g.html' exists already"; "--force" ] [ "-o"; place folder "g.html" ]
                  refused [ "nowhere"; "does not exist" ] [ "--items"; place folder "nowhere" ]
                  refused [ "no list of the items"; "vision-a.csv" ] [ "--items"; folder ]
                  File.WriteAllLines(place texts "text-a.csv", [ "id,text"; "0,one" ])
                  refused [ "20 lines"; "'text:a'"; "got 1" ] [ "--items"; texts ]

                  makeStream (fun text -> text.Replace("\"small\"", "\"changed\"")) ignore data
                  refused [ "is not what the run was on"; "--stream" ] []
                  Directory.Delete(data, true)
                  refused [ "does not exist"; "the run was on"; "--stream" ] []))
          test "what there is not is refused, with what there is" (fun () ->
              inFolder (fun folder ->
                  let out = trained folder "synthetic" "vanilla,joint" [ "--save-weights" ]
                  let refused words more = cmcl ([ "gallery"; out ] @ more) |> expectRefused words
                  refused [ "no step with heads '99'"; "Known: 1, 2" ] [ "--step"; "99" ]
                  refused [ "no step with heads of 'joint' '1'" ] [ "--step"; "1"; "--methods"; "joint,vanilla" ]
                  refused [ "no method in these results 'vanila'"; "did you mean 'vanilla'" ] [ "-m"; "vanila" ]
                  refused [ "no seed in these results '7'"; "Known: 1" ] [ "--seed"; "7" ]
                  refused [ "--tasks takes numbers of steps from 1 to 2"; "'3'" ] [ "--step"; "2"; "--tasks"; "3" ]
                  refused [ "--tasks takes"; "'x'" ] [ "--tasks"; "x" ]
                  refused [ "--count takes"; "'0'" ] [ "--count"; "0" ]
                  refused [ "another-stream" ] [ "--stream"; "another-stream" ]
                  cmcl [ "gallery"; place folder "nothing" ] |> expectRefused [ "nothing' does not exist" ]
                  cmcl [ "gallery"; folder ] |> expectRefused [ "config.json' does not exist"; "gallery of a run" ]
                  let told = cmcl [ "gallery"; out; "--step"; "1"; "--tasks"; "1"; "-q" ]
                  Expect.equal told { Code = 0; Out = ""; Error = "" } "one step"
                  let html = File.ReadAllText(place out "gallery.html")
                  Expect.stringContains html "joint has no heads after step 1" "who is left out"
                  Directory.Delete(place out "weights", true)
                  refused [ "no heads of vanilla, joint with seed 1"; "--save-weights" ] [])) ]

let tests = testSequenced (testList "Gallery" [ ranks; retrieval; items; media; page; command ])
