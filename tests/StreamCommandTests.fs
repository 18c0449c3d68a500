module Cmcl.Tests.StreamCommandTests

open System
open System.Collections.Generic
open System.IO
open System.Text.Json
open Expecto
open TorchSharp
open Cmcl
open Cmcl.Encoders
open Cmcl.Tests.Checks
open Cmcl.Tests.CliTests

let private place (folder: string) (name: string) = Path.Combine(folder, name)

// ---- splits ------------------------------------------------------------------------------------------------------

/// A number of items, shares of them, and a family for each, of a random case.
let private request (c: Case) : int64 * float * float * string[] =
    let items = 4L + int64 (60.0 * fraction c "items")
    let families = 3 + int (10.0 * fraction c "families")
    use drawn = Seed.permutation items (draw c "family of")
    let order = drawn.data<int64>().ToArray()
    items, 0.4 * fraction c "test", 0.3 * fraction c "validation", [| for i in order -> $"family {int i % families}" |]

let private sets (split: ItemSplit) = [ split.Train; split.Validation; split.Test ]

let private splits =
    testList
        "splits"
        [ property "every item is in one set, as many in each as its share says, the same for the same seed" (fun c ->
              let items, test, validation, _ = request c
              let draw () = ItemSplit.draw test validation (draw c "split") None items
              let count share = max 1L (int64 (Math.Round(share * float items)))

              match draw () with
              | Error _ -> Expect.isGreaterThan (count test + count validation + 2L) items "nothing left to learn from"
              | Ok split ->
                  Expect.equal (sets split |> Array.concat |> Array.sort) [| 0L .. items - 1L |] "every item once"
                  Expect.equal (sets split |> List.map Array.sort) (sets split) "in ascending order"
                  Expect.equal split.Test.LongLength (count test) "test"
                  Expect.equal split.Validation.LongLength (count validation) "validation"
                  Expect.equal (draw ()) (Ok split) "the same again")
          property "a family is in one set" (fun c ->
              let items, test, validation, families = request c

              match ItemSplit.draw test validation (draw c "split") (Some families) items with
              | Error faults ->
                  Expect.exists faults (fun f -> f.Message.Contains "learn from" || f.Message.Contains "families") "few"
              | Ok split ->
                  Expect.equal (sets split |> Array.concat |> Array.sort) [| 0L .. items - 1L |] "every item once"

                  for family in Array.distinct families do
                      let in' = sets split |> List.filter (Array.exists (fun i -> families[int i] = family))
                      Expect.hasLength in' 1 family)
          mustFail "without families a family is in one set" (fun c ->
              let items, _, _, families = request c
              let split = ItemSplit.draw 0.3 0.2 (draw c "split") None (max 8L items) |> Check.get
              let families = Array.append families (Array.create (int (max 0L (8L - items))) "one more")

              for family in Array.distinct families do
                  let in' = sets split |> List.filter (Array.exists (fun i -> families[int i] = family))
                  Expect.hasLength in' 1 family)
          property "dealt out, every training item belongs to one step" (fun c ->
              let items, _, _, _ = request c
              let split = ItemSplit.draw 0.2 0.1 (draw c "split") None (items + 2L) |> Check.get
              let steps = 1 + int (3.0 * fraction c "steps")

              match ItemSplit.deal steps (draw c "split") split with
              | Error _ -> Expect.isLessThan split.Train.Length (2 * steps) "too few"
              | Ok own ->
                  Expect.equal (Array.concat own |> Array.sort) split.Train "all of them, each once"
                  let sizes = own |> List.map _.Length
                  Expect.isGreaterThanOrEqual (List.min sizes) 2 "two at least"
                  Expect.isLessThanOrEqual (List.max sizes - List.min sizes) 1 "shares alike")
          test "too few items, shares too large" (fun () ->
              let said test validation items = (faultsOf (ItemSplit.draw test validation (Seed.ofInt 0) None items)).Head.Message

              Expect.stringContains (said 0.2 0.1 3L) "at least 4" "items"
              Expect.stringContains (said 0.9 0.09 10L) "9 of 10" "shares") ]

// ---- banks -------------------------------------------------------------------------------------------------------

/// Rows that say by their numbers which item of which bank they are.
let private save
    (folder: string)
    (bank: string)
    (dtype: torch.ScalarType)
    (columns: int64)
    (ids: string list option)
    (items: int list)
    =
    use scope = torch.NewDisposeScope()
    let all = (Seed.normal [ 100L; columns ] (Seed.ofInt 0 |> Seed.split bank)).``to`` dtype
    let rows = all.index_select (0L, torch.tensor [| for i in items -> int64 i |])
    Npy.write (place folder $"{bank}.npy") rows |> Check.get

    match ids with
    | Some ids -> File.WriteAllLines(place folder $"{bank}.ids.txt", ids)
    | None -> ()

let private named (items: int list) = Some [ for i in items -> $"item {i}" ]

/// Items of both banks in different orders; vision lacks item 3, text has the odd ones up to 29 and the even ones up to 40.
let private ofVision = [ for i in 0..29 -> (i * 7) % 30 ] |> List.except [ 3 ]

let private ofText =
    [ for i in 40..-1..0 do
          if i % 2 = 0 || i < 30 then
              i ]

let private ofBoth = ofVision

let private banks (folder: string) =
    save folder "vision" torch.ScalarType.Float16 5L (named ofVision) ofVision
    save folder "text" torch.ScalarType.Float32 4L (named ofText) ofText

let private options (folder: string) =
    [ "--bank"; $"""vision={place folder "vision.npy"}"""; "--bank"; $"""text={place folder "text.npy"}""" ]

let private made (folder: string) (more: string list) : Told = cmcl ([ "stream"; place folder "out" ] @ options folder @ more)

let private ok (told: Told) : Told =
    Expect.equal told.Code 0 told.Error
    told

let private loaded (folder: string) : Cmcl.Stream = StreamFolder.load (place folder "out") |> Check.get

let private inFolder name (act: string -> unit) =
    testCase name (fun () ->
        CliTests.inFolder (fun folder ->
            use scope = torch.NewDisposeScope()
            act folder))

let private originals (folder: string) (bank: string) (had: int list) (items: int list) : torch.Tensor =
    let rows = Npy.read (place folder $"{bank}.npy") |> Check.get
    rows.index_select (0L, torch.tensor [| for i in items -> int64 (List.findIndex ((=) i) had) |])

let private streams =
    testList
        "streams"
        [ inFolder "rows are matched by ids, in the order of the first bank, and keep their type" (fun folder ->
              banks folder
              let told = made folder [ "--steps"; "vision-text" ] |> ok
              let step = (loaded folder).Steps.Head
              identical "vision" step.A.Features (originals folder "vision" ofVision ofBoth)
              identical "text" step.B.Features (originals folder "text" ofText ofBoth)
              Expect.equal step.A.Features.dtype torch.float16 "as given"
              Expect.stringContains told.Out "29 items, matched by id" "how many"
              Expect.stringContains told.Out "7 of text" "what is left out"
              Expect.stringContains told.Out "Rows are not of length 1" "what the rows are like"
              Expect.stringContains told.Out "next: cmcl run --stream" "what to type next"
              Expect.stringContains told.Out "--save-weights" "with heads for the gallery"

              // By place, other rows would be together: that they are not is what ids are for.
              let byPlace = (originals folder "text" ofText ofText).narrow(0L, 0L, 29L)
              Expect.throws (fun () -> identical "by place" step.B.Features byPlace) "not by place")
          inFolder "no item is in the test of one step and learned from in another" (fun folder ->
              banks folder
              save folder "audio" torch.ScalarType.Float32 3L (named ofText) ofText

              let steps = [ "--steps"; "vision-text,audio-text,vision-audio"; "--bank"; $"""audio={place folder "audio.npy"}""" ]

              for more in [ []; [ "--disjoint" ] ] do
                  made folder (steps @ [ "--force" ] @ more) |> ok |> ignore
                  let steps = (loaded folder).Steps
                  let learned = HashSet(steps |> Seq.collect _.Train)

                  for step in steps do
                      Expect.isFalse (learned.Overlaps step.Test) "test"
                      Expect.isFalse (learned.Overlaps step.Validation) "validation"

                  let own = steps |> List.sumBy _.Train.Length
                  Expect.equal own (if more.IsEmpty then 3 * learned.Count else learned.Count) "shared, or each its own")
          inFolder "without ids rows match by place" (fun folder ->
              save folder "vision" torch.ScalarType.Float32 5L None [ 0..9 ]
              save folder "text" torch.ScalarType.Float64 4L None [ 10..19 ]
              let told = made folder [ "--steps"; "vision-text" ] |> ok
              Expect.stringContains told.Out "by place" "told"
              let step = (loaded folder).Steps.Head
              identical "vision" step.A.Features (Npy.read (place folder "vision.npy") |> Check.get)
              identical "text" step.B.Features (Npy.read (place folder "text.npy") |> Check.get)
              save folder "text" torch.ScalarType.Float32 4L None [ 10..18 ]
              made folder [ "--steps"; "vision-text"; "--force" ] |> expectRefused [ "'text'"; "no ids"; "10"; "got 9" ])
          inFolder "the preset is that of cmcl import, and a run takes it" (fun folder ->
              banks folder
              made folder [ "--steps"; "text-vision"; "--name"; "pets"; "--quiet" ] |> ok |> ignore
              let stream = loaded folder
              Expect.equal stream.Name "pets" "its name"
              Expect.equal stream.Preset (Advice.preset (int64 stream.Steps.Head.Train.Length)) "the preset"
              let plan = Plan.resolve stream.Preset [] [ "vanilla" ] |> Check.get |> List.head
              Expect.equal (plan.Settings.Scoring, plan.Settings.Temperature) (Scoring.Cosine, 0.07) "cosine scores")
          inFolder "families of a table are whole" (fun folder ->
              banks folder

              File.WriteAllLines(place folder "families.csv", "id,family" :: [ for i in 0..40 -> $"item {i},family {i % 4}" ])

              let families = [ "--families"; place folder "families.csv"; "--steps"; "vision-text" ]
              made folder families |> ok |> ignore
              let step = (loaded folder).Steps.Head
              let of' (rows: int64[]) = set [ for row in rows -> ofBoth[int row] % 4 ]
              Expect.isEmpty (Set.intersect (of' step.Test) (of' step.Train)) "test"
              Expect.isEmpty (Set.intersect (of' step.Validation) (of' step.Train)) "validation"
              File.WriteAllText(place folder "families.csv", "id,family\nitem 1,cats\n")
              made folder (families @ [ "--force" ]) |> expectRefused [ "without a family"; "item 0" ])
          inFolder "lists of items go along, in the stream's order, and are replaced with the stream" (fun folder ->
              banks folder

              BankItems.write
                  (place folder "vision.items.csv")
                  [ for i in ofVision ->
                        { Id = $"item {i}"
                          Path = Some(place folder $"photos/{i}.png")
                          Text = None } ]
              |> Check.get

              let told = made folder [ "--steps"; "vision-text" ] |> ok
              Expect.stringContains told.Out "cmcl gallery shows the items of vision" "told"
              let items = place folder "out/items"
              let found = BankItems.read items "vision" 29L |> Check.get |> Option.get
              Expect.equal [ for item in found -> item.Path ] [ for i in ofBoth -> Some(place folder $"photos/{i}.png") ] "paths"
              Expect.isFalse (Path.IsPathRooted((File.ReadAllLines(place items "vision.csv")[1]).Split(',')[1])) "relative"
              File.Delete(place folder "vision.items.csv")
              made folder [ "--steps"; "vision-text"; "--force" ] |> ok |> ignore
              Expect.isFalse (File.Exists(place items "vision.csv")) "a list of other rows is not left")
          inFolder "a list that names other items than the ids is refused" (fun folder ->
              banks folder
              let lines = "id,text" :: [ for i in List.rev ofText -> $"item {i},a text" ]
              File.WriteAllLines(place folder "text.items.csv", lines)
              made folder [ "--steps"; "vision-text" ] |> expectRefused [ "'text'"; "item 40"; "item 0"; "text.items.csv" ]) ]

// ---- mistakes ----------------------------------------------------------------------------------------------------

let private mistakes =
    let refused name (change: string -> unit) (more: string list) (words: string list) =
        inFolder name (fun folder ->
            banks folder
            change folder
            made folder more |> expectRefused words
            Expect.isFalse (Directory.Exists(place folder "out")) "nothing is written"
            Expect.isEmpty (Directory.GetDirectories folder) "nothing is left")

    let both = [ "--steps"; "vision-text" ]

    testList
        "mistakes"
        [ refused "an unknown bank" ignore [ "--steps"; "vision-txt" ] [ "'txt'"; "did you mean 'text'" ]
          refused "no pair" ignore [ "--steps"; "vision" ] [ "--steps"; "A-B"; "'vision'" ]
          refused
              "a bank in no step"
              (fun f -> save f "audio" torch.ScalarType.Float32 3L (named ofText) ofText)
              (both @ [ "--bank"; "audio=audio.npy" ])
              [ "'audio' is in no step" ]
          refused
              "one modality twice"
              ignore
              [ "--steps"; "vision-vision:b"; "--bank"; "vision:b=b.npy" ]
              [ "modality 'vision'"; "two different" ]
          refused "a step twice" ignore [ "--steps"; "vision-text,vision-text" ] [ "'vision-text' twice"; "--disjoint" ]
          refused "a name twice" ignore (both @ [ "--bank"; "text=b.npy" ]) [ "'text' is given twice" ]
          refused "no name" ignore (both @ [ "--bank"; "b.npy" ]) [ "--bank"; "NAME=FILE.npy"; "'b.npy'" ]
          refused "no modality" ignore (both @ [ "--bank"; "a b=b.npy" ]) [ "'a b'"; "letters" ]
          refused "no file" (fun f -> File.Delete(place f "text.npy")) both [ "text.npy"; "does not exist" ]
          refused
              "another kind of file"
              (fun f -> File.WriteAllText(place f "text.npy", "id,x\na,1\n"))
              both
              [ "text.npy"; "not a .npy file" ]
          refused
              "ids of one bank only"
              (fun f -> File.Delete(place f "text.ids.txt"))
              both
              [ "'vision' has ids"; "'text' has none"; "text.ids.txt" ]
          refused
              "an id twice"
              (fun f -> save f "text" torch.ScalarType.Float32 4L (Some [ "a"; "b"; "c"; "d"; "a" ]) [ 0..4 ])
              both
              [ "'a' twice"; "lines 1 and 5" ]
          refused
              "no item in common"
              (fun f -> save f "text" torch.ScalarType.Float32 4L (Some [ "a"; "b"; "c"; "d"; "e" ]) [ 0..4 ])
              both
              [ "no id is in all banks"; "text has 'a'" ]
          refused
              "few items"
              (fun f -> save f "text" torch.ScalarType.Float32 4L (named [ 0; 1; 2 ]) [ 0; 1; 2 ])
              both
              [ "at least 4"; "got 3" ]
          refused "shares" ignore (both @ [ "--test"; "1.5" ]) [ "--test"; "below 1" ]
          refused "shares that leave nothing" ignore (both @ [ "--test"; "0.9"; "--validation"; "0.1" ]) [ "to learn from" ]
          refused
              "more steps than items"
              ignore
              ([ "--steps"; String.Join(",", Array.create 12 "vision-text"); "--disjoint" ])
              [ "12 steps"; "--disjoint" ]
          refused
              "a NaN"
              (fun f ->
                  let rows = Npy.read (place f "text.npy") |> Check.get
                  rows[2L, 1L] <- torch.tensor Single.NaN
                  Npy.write (place f "text.npy") rows |> Check.get)
              both
              [ "NaN"; "text.npy"; "item 36" ]
          inFolder "what is there is replaced only when asked, other things never" (fun folder ->
              banks folder
              made folder both |> ok |> ignore
              made folder both |> expectRefused [ "holds a stream already"; "--force" ]
              made folder (both @ [ "--force" ]) |> ok |> ignore
              cmcl ([ "stream"; folder ] @ options folder @ both) |> expectRefused [ "would take the place" ]) ]

// ---- lists beside banks ------------------------------------------------------------------------------------------

let private lists =
    testList
        "lists of items"
        [ property "what is written is read again" (fun c ->
              CliTests.inFolder (fun folder ->
                  let words = [| "a"; "\"b\""; "c, d"; "e\nf"; "é ✓"; " g "; "=h"; "'i'" |]
                  let word purpose = words[int (fraction c purpose * float words.Length)]

                  let items =
                      [| for i in 0..5 ->
                             { Id = string i + word $"id {i}"
                               Path = if fraction c $"path {i}" < 0.5 then Some(place folder $"x/{i}.png") else None
                               Text = if fraction c $"text {i}" < 0.5 then Some(word $"word {i}") else None } |]

                  let path = place folder "bank.items.csv"
                  BankItems.write path items |> Check.get
                  Expect.equal (BankItems.ofFile "a test" "a bank" 6L path |> Check.get) items "the same")) ]

// ---- what is said of raw scores ------------------------------------------------------------------------------------

let private advice =
    let sentence = "Rows are not of length 1"

    /// A stream of these rows without the preset that `cmcl stream` gives it.
    let bare (folder: string) =
        made folder [ "--steps"; "vision-text" ] |> ok |> ignore
        let file = place folder "out/stream.json"
        let json = nonNull (Nodes.JsonNode.Parse(File.ReadAllText file))
        json.AsObject().Remove "preset" |> ignore
        File.WriteAllText(file, json.ToJsonString())

    let short = [ "--epochs"; "1"; "--batch"; "4"; "--seeds"; "0"; "--lr"; "1e-3" ]

    let trained (folder: string) (more: string list) : string =
        let results = place folder (Guid.NewGuid().ToString "N")
        (cmcl ([ "run"; "--stream"; place folder "out"; "--out"; results ] @ short @ more) |> ok).Error

    testList
        "raw scores that nobody asked for"
        [ inFolder "info and run say so, with the options to give" (fun folder ->
              banks folder
              bare folder

              for said in [ (cmcl [ "info"; place folder "out" ] |> ok).Out; trained folder [ "-m"; "vanilla" ] ] do
                  Expect.stringContains said sentence "why"
                  Expect.stringContains (said.Replace("\n ", "")) "--scores cosine --temperature 0.07" "what to do"

              for asked in
                  [ [ "-m"; "vanilla"; "--scores"; "raw" ]
                    [ "-m"; "vanilla"; "--set"; "temperature=1" ]
                    [ "-m"; "vanilla[scores=cosine]" ]
                    [ "-m"; "vanilla"; "--quiet" ] ] do
                  Expect.isFalse ((trained folder asked).Contains sentence) $"%A{asked}")
          inFolder "not of a stream with a preset, and not of rows of length 1" (fun folder ->
              banks folder
              made folder [ "--steps"; "vision-text" ] |> ok |> ignore
              Expect.isFalse ((cmcl [ "info"; place folder "out" ]).Out.Contains sentence) "a preset"
              Directory.Delete(place folder "out", true)

              for bank in [ "vision"; "text" ] do
                  let rows = (Npy.read (place folder $"{bank}.npy") |> Check.get).``to`` torch.float32
                  Npy.write (place folder $"{bank}.npy") (rows / rows.norm (1, true)) |> Check.get

              bare folder
              Expect.isFalse ((cmcl [ "info"; place folder "out" ]).Out.Contains sentence) "rows of length 1") ]

// ---- the whole way -----------------------------------------------------------------------------------------------

let private way =
    testList
        "the whole way"
        [ inFolder "banks, a stream, a run, heads, outputs with ids, the nearest by id" (fun folder ->
              banks folder

              BankItems.write
                  (place folder "vision.items.csv")
                  [ for i in ofVision ->
                        { Id = $"item {i}"
                          Path = Some(place folder $"photos/{i}.png")
                          Text = None } ]
              |> Check.get

              made folder [ "--steps"; "vision-text" ] |> ok |> ignore
              let results, heads = place folder "results", place folder "heads.safetensors"

              let ran =
                  cmcl
                      [ "run"
                        "--stream"
                        place folder "out"
                        "-m"
                        "zero-shot,vanilla,cca"
                        "--seeds"
                        "0,1"
                        "--epochs"
                        "1"
                        "--batch"
                        "4"
                        "--save-weights"
                        "--out"
                        results ]
                  |> ok

              let remarks = ran.Out.Split '\n' |> Array.filter _.Contains("directions of positive correlation")
              Expect.hasLength remarks 1 "once for both seeds"

              cmcl [ "export"; results; "-m"; "zero-shot"; "-o"; heads ]
              |> expectRefused [ "no heads of zero-shot"; "only of methods that learn"; "--save-weights" ]

              cmcl [ "export"; results; "-m"; "vanilla"; "-o"; heads ] |> ok |> ignore
              Directory.CreateDirectory(place folder "outputs") |> ignore

              for bank in [ "vision"; "text" ] do
                  let apply more =
                      cmcl (
                          [ "apply"
                            heads
                            place folder $"{bank}.npy"
                            "--modality"
                            bank
                            "-o"
                            place folder $"outputs/{bank}.npy" ]
                          @ more
                      )

                  apply [] |> ok |> ignore

                  Expect.equal
                      (File.ReadAllLines(place folder $"outputs/{bank}.ids.txt"))
                      (File.ReadAllLines(place folder $"{bank}.ids.txt"))
                      "the ids go along"

                  File.Delete(place folder $"outputs/{bank}.npy")
                  apply [] |> expectRefused [ $"{bank}.ids.txt"; "--force" ]
                  apply [ "--force" ] |> ok |> ignore

              let items = BankItems.ofFile "a test" "a bank" 29L (place folder "outputs/vision.items.csv") |> Check.get

              Expect.equal
                  [ for item in items -> item.Path ]
                  [ for i in ofVision -> Some(place folder $"photos/{i}.png") ]
                  "and the list"

              Expect.isFalse (File.Exists(place folder "outputs/text.items.csv")) "where there is one"

              let retrieve () =
                  cmcl [ "retrieve"; place folder "outputs/vision.npy"; place folder "outputs/text.npy"; "-k"; "2"; "--ids" ]

              Expect.stringContains (retrieve () |> ok).Out "item 0,1,item " "by id"
              File.Delete(place folder "outputs/text.ids.txt")
              retrieve () |> expectRefused [ "text.ids.txt"; "an id a line"; "leave out --ids" ]

              File.Copy(place folder "out/items/vision.csv", place folder "out/items/photo.csv")
              let gallery = cmcl [ "gallery"; results; "--out"; place folder "gallery.html" ]

              Expect.stringContains
                  gallery.Error
                  "belong to no bank: photo.csv; the stream's are text.csv, vision.csv"
                  "misspelt")
          test "an encoder of another name" (fun () ->
              cmcl [ "extract"; "resnet81"; "photos.csv"; "-o"; "photos.npy" ]
              |> expectRefused [ "no encoder 'resnet81'"; "did you mean 'resnet18'" ]

              cmcl [ "extract"; "mine.json"; "photos.csv"; "-o"; "photos.npy" ] |> expectRefused [ "'mine.json' does not exist" ]) ]

let tests = testSequenced (testList "stream command" [ splits; streams; mistakes; lists; advice; way ])
