module Cmcl.Tests.ApplyTests

open System
open System.IO
open Expecto
open TorchSharp
open Cmcl
open Cmcl.Tests.Checks
open Cmcl.Tests.CliTests

let private place (folder: string) (name: string) = Path.Combine(folder, name)

let private save (folder: string) (name: string) (t: torch.Tensor) : string =
    let path = place folder name
    Npy.write path t |> Check.get
    path

let private known (bias: string option) (c: Case) : SavedHeads =
    { Heads = heads c "heads"
      About = bias |> Option.map (fun b -> "bias", b) |> Option.toList |> Map }

let private joined (blocks: seq<torch.Tensor>) : torch.Tensor = torch.cat (Array.ofSeq blocks)

// ---- projecting --------------------------------------------------------------------------------------------------

let private projecting =
    testList
        "projecting"
        [ property "block by block it is X Wᵀ, at unit length if wanted" (fun c ->
              let w, x = (heads c "w")[pair.A], normal c "x" c.N c.Da
              same "raw" tight (joined (Projected.blocks Scoring.Raw "x" (Projected.plain w) x)) (x.mm (w.t ()))
              let y = joined (Projected.blocks Scoring.Cosine "x" (Projected.plain w) x)
              same "lengths" close (y.norm 1) (torch.ones (c.N, dtype = torch.float64))
              same "directions" close (y * (x.mm (w.t ())).norm(1, true)) (x.mm (w.t ())))
          property "a head with a bias adds its last column, and one without it is refused" (fun c ->
              let w, x = normal c "w" c.D (c.Da + 1L), normal c "x" c.N c.Da
              let plain = x.mm (w.narrow(1L, 0L, c.Da).t())

              same
                  "outputs"
                  tight
                  (joined (Projected.blocks Scoring.Raw "x" { Projected.plain w with Bias = true } x))
                  (plain .+ w.narrow(1L, c.Da, 1L).t())

              match faultOf (fun () -> joined (Projected.blocks Scoring.Raw "x" (Projected.plain w) x)) with
              | Fault.Shape _ -> ()
              | other -> failtest other.Message)
          property "features and head stay as they are" (fun c ->
              let w, x = (heads c "w")[pair.A], normal c "x" c.N c.Da
              untouched "blocks" [ w; x ] (fun () -> joined (Projected.blocks Scoring.Raw "x" (Projected.plain w) x)))
          test "many blocks, float16 from a file, as from memory" (fun () ->
              inFolder (fun folder ->
                  let rows = 3L * (1L <<< 20) / 64L + 5L
                  let x = (Seed.normal [ rows; 64L ] (Seed.ofInt 1)).``to`` torch.float16
                  let w = (Seed.normal [ 8L; 64L ] (Seed.ofInt 2)).``to`` torch.float32
                  let from, into = save folder "x.npy" x, place folder "deeper/y.npy"
                  let saved = { Heads = Map [ pair.A, w ]; About = Map.empty }

                  Expect.equal (Projected.file Scoring.Raw saved pair.A from into |> Check.get) [| rows; 8L |] "the shape"

                  same "outputs" single (Npy.read into |> Check.get) ((x.``to`` torch.float32).mm(w.t ()))))
          test "what is known of the bias says how many columns features have, and nothing is guessed" (fun () ->
              let c = { Seed = 0; N = 3L; D = 4L; Da = 5L; Db = 5L; Rank = 0L }
              let fits bias columns = (Projected.head (known bias c) pair.A columns).IsOk
              Expect.equal [ for n in [ 3L; 4L; 5L; 6L ] -> fits None n ] [ false; false; true; false ] "nothing known"
              Expect.equal [ for n in [ 3L; 4L; 5L; 6L ] -> fits (Some "yes") n ] [ false; true; false; false ] "with a bias"
              Expect.equal [ for n in [ 3L; 4L; 5L; 6L ] -> fits (Some "no") n ] [ false; false; true; false ] "without")
          test "a NaN is named with its row, counted from the first of the file, and nothing is written" (fun () ->
              inFolder (fun folder ->
                  let x = torch.zeros (40000L, 64L)
                  x.narrow(0L, 33333L, 1L).fill_(number nan) |> ignore

                  let saved =
                      { Heads = Map [ pair.A, torch.ones (2L, 64L) ]
                        About = Map.empty }

                  let from = save folder "x.npy" x

                  match faultOf (fun () -> Projected.file Scoring.Raw saved pair.A from (place folder "y.npy")) with
                  | Fault.NonFinite(what, row) ->
                      Expect.stringContains what "x.npy" "the file"
                      Expect.equal row 33333L "the row"
                  | other -> failtest $"%A{other}"

                  Expect.equal (Directory.GetFiles folder) [| from |] "nothing written"))
          test "a file that is mapped takes little memory on its way through" (fun () ->
              inFolder (fun folder ->
                  let from, into = place folder "x.npy", place folder "y.npy"
                  zeros from 65536L 1024L

                  let saved =
                      { Heads = Map [ pair.A, torch.eye (64L, 1024L) ]
                        About = Map.empty }

                  let work () = Projected.file Scoring.Raw saved pair.A from into |> Check.get |> ignore
                  // 128 MiB of features, 256 in float32, 16 of outputs.
                  Expect.isLessThan (taken work) (64L <<< 20) "memory")) ]

// ---- nearest -----------------------------------------------------------------------------------------------------

let private nearest =
    testList
        "nearest"
        [ property "tile by tile it is a full sort of all scores" (fun c ->
              for scoring in [ Scoring.Raw; Scoring.Cosine ] do
                  let a, b = normal c "a" c.N c.D, normal c "b" (c.N + 3L) c.D
                  let k = 1 + c.Seed % int (c.N + 3L)
                  let scores = values (Alignment.scores scoring a b)
                  let tile = 1L + int64 c.Rank

                  for row, found in Seq.indexed (Nearest.searchWithin tile scoring k a b) do
                      let expected = scores[row] |> Array.indexed |> Array.sortBy (snd >> (~-)) |> Array.truncate k
                      Expect.equal [| for n in found -> int n.Row |] (Array.map fst expected) "rows"

                      for n, (_, score) in Array.zip found expected do
                          near "score" close n.Score score)
          property "given rows stay as they are" (fun c ->
              let a, b = normal c "a" c.N c.D, normal c "b" c.N c.D
              untouched "search" [ a; b ] (fun () -> Seq.toList (Nearest.search Scoring.Cosine 1 a b)))
          test "equal scores stand in the order of their rows" (fun () ->
              let found = Nearest.searchWithin 2L Scoring.Raw 5 (torch.ones (1L, 2L)) (torch.ones (5L, 2L)) |> Seq.exactlyOne
              Expect.equal [ for n in found -> n.Row ] [ 0L .. 4L ] "rows")
          test "float16 is scored in float32" (fun () ->
              let a = torch.full (1L, 4096L, number 2.0, dtype = torch.float16)
              let found = Nearest.search Scoring.Raw 1 a a |> Seq.exactlyOne
              Expect.equal found[0].Score 16384.0 "the sum")
          test "more than there are, another width, a NaN" (fun () ->
              let a, b = torch.ones (3L, 2L), torch.ones (3L, 4L)

              match
                  faultOf (fun () -> Nearest.search Scoring.Raw 4 a a |> Seq.length),
                  faultOf (fun () -> Nearest.search Scoring.Raw 1 a b)
              with
              | Fault.BadValue("k", _, "4"), Fault.Shape _ -> ()
              | other -> failtest $"%A{other}"

              let bad = torch.ones (5L, 2L)
              bad.narrow(0L, 3L, 1L).fill_(number infinity) |> ignore

              match faultOf (fun () -> Nearest.searchWithin 2L Scoring.Raw 1 a bad |> Seq.length) with
              | Fault.NonFinite("rows to be found", 3L) -> ()
              | other -> failtest $"%A{other}")
          test "20,000 × 20,000 scores, 1.5 GB, take little memory" (fun () ->
              let x = Seed.normal [ 20000L; 2L ] (Seed.ofInt 3) |> _.``to``(torch.float32)

              Expect.isLessThan
                  (taken (fun () -> Nearest.search Scoring.Raw 2 x x |> Seq.length |> ignore))
                  (512L <<< 20)
                  "memory") ]

// ---- heads on disk -----------------------------------------------------------------------------------------------

let private onDisk =
    let refused title (make: string -> unit) (words: string list) =
        test title (fun () ->
            inFolder (fun folder ->
                make folder

                match SavedHeads.read folder with
                | Error [ fault ] ->
                    for word in words do
                        Expect.stringContains fault.Message word "the sentence"
                | other -> failtest $"%A{other}"))

    let file name (t: unit -> torch.Tensor) folder = save folder name (t ()) |> ignore

    testList
        "heads on disk"
        [ property "what is written is read, as one file and as a folder" (fun c ->
              inFolder (fun folder ->
                  let saved = known (Some "no") c

                  for name, about in [ "h.safetensors", saved.About; "h", Map.empty ] do
                      let path = place folder name
                      SavedHeads.write path saved |> Check.get

                      for file in SavedHeads.files path saved do
                          Expect.isTrue (File.Exists file) file

                      let back = SavedHeads.read path |> Check.get
                      Expect.equal back.About about "about"
                      Expect.sequenceEqual back.Heads.Keys saved.Heads.Keys "modalities"

                      for KeyValue(m, w) in saved.Heads do
                          identical m.Name back.Heads[m] w))
          refused "an empty folder" ignore [ "no head" ]
          refused "a vector" (file "text.npy" (fun () -> torch.ones 3L)) [ "'text'"; "matrix"; "[3]" ]
          refused
              "integers"
              (file "text.npy" (fun () -> torch.ones (3L, 3L, dtype = torch.int64)))
              [ "'text'"; "float32"; "Int64" ]
          refused "a NaN" (file "text.npy" (fun () -> torch.full (3L, 3L, number nan))) [ "'text'"; "row 0" ]
          refused "a name that is no modality's" (file "a b.npy" (fun () -> torch.ones (3L, 3L))) [ "'a b'" ]
          refused
              "two joint dimensions"
              (fun folder ->
                  file "a.npy" (fun () -> torch.ones (3L, 3L)) folder
                  file "b.npy" (fun () -> torch.ones (4L, 3L)) folder)
              [ "'b'"; "3 rows, as 'a'"; "got 4" ]
          test "pickles are refused unread, with the reason" (fun () ->
              inFolder (fun folder ->
                  let path = place folder "heads.pt"
                  File.WriteAllText(path, "PK")

                  match SavedHeads.read path with
                  | Error [ Fault.Unreadable(_, reason) ] -> Expect.stringContains reason "pickled" "the reason"
                  | other -> failtest $"%A{other}")) ]

// ---- the commands ------------------------------------------------------------------------------------------------

let private trained (folder: string) : string =
    let out = place folder "out"

    let told =
        cmcl
            [ "run"
              "--stream"
              "synthetic"
              "-m"
              "vanilla,reference"
              "--seeds"
              "0"
              "--epochs"
              "1"
              "--save-weights"
              "--quiet"
              "--out"
              out ]

    Expect.equal told { Code = 0; Out = ""; Error = "" } "the run"
    out

let private commands =
    testList
        "commands"
        [ test "export, apply and retrieve after a run are the run's own outputs" (fun () ->
              inFolder (fun folder ->
                  let out = trained folder
                  let stream = synthetic.Value
                  let step = List.last stream.Steps

                  for method, bias in [ "vanilla", "no"; "reference", "yes" ] do
                      let heads = place folder $"{method}.safetensors"
                      let told = cmcl [ "export"; out; "--method"; method; "--seed"; "0"; "-o"; heads ]
                      Expect.equal (told.Code, told.Error) (0, "") "export"
                      Expect.stringContains told.Out $"method {method}" "what is known"
                      let saved = SavedHeads.read heads |> Check.get

                      for name, value in [ "method", method; "seed", "0"; "step", string stream.Steps.Length; "bias", bias ] do
                          Expect.equal saved.About[name] value name

                      Expect.equal saved.About["cmcl"] Record.cmclVersion "version"
                      Expect.isNotEmpty saved.About["digest"] "digest"

                      for side, x in [ step.Pair.A, step.A.Features; step.Pair.B, step.B.Features ] do
                          let from, into = save folder $"{side}.npy" x, place folder $"{side}-out.npy"

                          let told =
                              cmcl [ "apply"; heads; from; "--modality"; side.Name; "-o"; into; "--normalise"; "--force" ]

                          Expect.equal (told.Code, told.Error) (0, "") "apply"
                          let w = saved.Heads[side]
                          let x = x.``to`` w.dtype
                          let y = (if bias = "yes" then Heads.withBias x else x) |> Heads.outputs w |> Alignment.normalise
                          same "outputs" single (Npy.read into |> Check.get) y

                      // A folder of arrays does not say, so the user has to; a file that says otherwise is believed.
                      let bare, from = place folder $"{method}-bare", place folder $"{step.Pair.A}.npy"
                      SavedHeads.write bare saved |> Check.get
                      let again = place folder "again.npy"

                      let apply more =
                          cmcl ([ "apply"; bare; from; "--modality"; step.Pair.A.Name; "-o"; again; "--normalise" ] @ more)

                      if bias = "yes" then
                          apply [] |> expectRefused [ "--bias" ]
                          Expect.equal (apply [ "--bias"; "-q" ]) { Code = 0; Out = ""; Error = "" } "said"
                      else
                          apply [ "--bias" ] |> expectRefused [ "the last a bias" ]
                          Expect.equal (apply [ "-q" ]) { Code = 0; Out = ""; Error = "" } "none"

                          cmcl [ "apply"; heads; from; "--modality"; step.Pair.A.Name; "-o"; place folder "no.npy"; "--bias" ]
                          |> expectRefused [ "says that its heads have none" ]

                      Expect.equal
                          (File.ReadAllBytes again)
                          (File.ReadAllBytes(place folder $"{step.Pair.A}-out.npy"))
                          "as from the file that says"

                      File.Delete again
                      let a, b = place folder $"{step.Pair.A}-out.npy", place folder $"{step.Pair.B}-out.npy"
                      let told = cmcl [ "retrieve"; a; b; "-k"; "3" ]
                      Expect.equal (told.Code, told.Error) (0, "") "retrieve"
                      let lines = told.Out.TrimEnd().Split '\n'
                      Expect.equal lines[0] "query,rank,match,score" "header"
                      Expect.equal (lines.Length - 1) (3 * int step.A.Features.shape[0]) "three for each row"))
          test "one step of a run, as a folder; not twice without --force" (fun () ->
              inFolder (fun folder ->
                  let out, into = trained folder, place folder "heads"
                  let export more = cmcl ([ "export"; out; "-m"; "vanilla"; "--step"; "1"; "-o"; into; "-q" ] @ more)
                  Expect.equal (export []) { Code = 0; Out = ""; Error = "" } "first"
                  export [] |> expectRefused [ "exists already"; "--force" ]
                  Expect.equal (export [ "--force" ]) { Code = 0; Out = ""; Error = "" } "again"

                  for file in Directory.GetFiles into do
                      let own = place out $"weights/vanilla/seed-0/step-01/{Path.GetFileName file}"
                      Expect.equal (File.ReadAllBytes file) (File.ReadAllBytes own) "the run's own bytes"

                  let refusedWith words arguments = cmcl ([ "export"; out ] @ arguments) |> expectRefused words
                  refusedWith [ "no method in these results 'vanila'"; "did you mean 'vanilla'" ] [ "-m"; "vanila" ]
                  refusedWith [ "no seed with weights of 'vanilla' '7'"; "Known: 0" ] [ "-m"; "vanilla"; "--seed"; "7" ]
                  refusedWith [ "no step"; "'99'"; "Known: 1, 2" ] [ "-m"; "vanilla"; "--step"; "99" ]
                  Directory.Delete(place out "weights", true)
                  refusedWith [ "no heads of vanilla"; "only of methods that learn"; "--save-weights" ] [ "-m"; "vanilla" ]
                  cmcl [ "export"; place folder "nothing"; "-m"; "dns" ] |> expectRefused [ "does not exist" ]))
          test "retrieve by ids, into a file" (fun () ->
              inFolder (fun folder ->
                  let a = save folder "a.npy" (Tensors.ofRows [ [ 1.0; 0.0 ]; [ 0.0; 2.0 ] ])
                  let b = save folder "b.npy" (Tensors.ofRows [ [ 0.0; 3.0 ]; [ 5.0; 0.0 ]; [ 1.0; 1.0 ] ])
                  let retrieve more = cmcl ([ "retrieve"; a; b ] @ more)

                  retrieve [ "--ids"; "-k"; "2" ]
                  |> expectRefused [ "a.ids.txt"; "b.ids.txt"; "an id a line"; "leave out --ids" ]

                  File.WriteAllText(Ids.beside a, "one\ntwo, too\n")
                  File.WriteAllText(Ids.beside b, "x\ny\n")
                  retrieve [ "--ids"; "-k"; "2" ] |> expectRefused [ "b.ids.txt"; "expected 3"; "got 2" ]
                  File.WriteAllText(Ids.beside b, "x\ny\nz\n")
                  let out = place folder "found.csv"
                  Expect.equal (retrieve [ "--ids"; "-k"; "2"; "-o"; out ]) { Code = 0; Out = ""; Error = "" } "retrieve"

                  Expect.equal
                      (File.ReadAllText out)
                      "query,rank,match,score\none,1,y,5\none,2,z,1\n\"two, too\",1,x,6\n\"two, too\",2,z,2\n"
                      "the table"

                  Expect.equal
                      (retrieve [ "-k"; "1"; "--cosine" ]).Out
                      "query,rank,match,score\n0,1,1,1\n1,1,0,1\n"
                      "cosines, rows by number"

                  retrieve [ "-k"; "4" ] |> expectRefused [ "-k takes a whole number from 1 to 3"; "'4'" ]
                  retrieve [ "-k"; "0" ] |> expectRefused [ "-k takes" ]
                  let narrow = save folder "narrow.npy" (torch.ones (2L, 3L))
                  cmcl [ "retrieve"; a; narrow ] |> expectRefused [ "expected 2 columns"; "got 3" ]))
          test "apply refuses what does not fit" (fun () ->
              inFolder (fun folder ->
                  let heads = Directory.CreateDirectory(place folder "heads").FullName
                  save heads "text.npy" (torch.ones (2L, 3L)) |> ignore
                  let x = save folder "x.npy" (torch.ones (4L, 3L))

                  let apply (features: string) (name: string) more =
                      cmcl ([ "apply"; heads; features; "--modality"; name; "-o"; place folder "y.npy" ] @ more)

                  apply x "texts" [] |> expectRefused [ "no head 'texts'"; "did you mean 'text'" ]
                  apply (save folder "wide.npy" (torch.ones (4L, 5L))) "text" [] |> expectRefused [ "d = 3"; "got 5" ]
                  apply (save folder "row.npy" (torch.ones 3L)) "text" [] |> expectRefused [ "matrix"; "[3]" ]

                  apply (save folder "whole.npy" (torch.ones (2L, 3L, dtype = torch.int64))) "text" []
                  |> expectRefused [ "float16, float32 or float64" ]

                  apply (place folder "nothing.npy") "text" [] |> expectRefused [ "nothing.npy"; "does not exist" ]

                  apply (save folder "nan.npy" (torch.full (4L, 3L, number nan))) "text" []
                  |> expectRefused [ "nan.npy"; "row 0" ]

                  Expect.isFalse (File.Exists(place folder "y.npy")) "nothing written"
                  Expect.equal (apply x "text" [ "-q" ]) { Code = 0; Out = ""; Error = "" } "what fits"
                  apply x "text" [] |> expectRefused [ "y.npy"; "exists already" ])) ]

let tests = testSequenced (testList "Apply" [ projecting; nearest; onDisk; commands ])
