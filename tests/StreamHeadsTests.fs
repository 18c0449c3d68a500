/// Heads that a stream begins with: every method from them, their file formats, and what is refused.
module Cmcl.Tests.StreamHeadsTests

open System
open System.IO
open System.Text.Json.Nodes
open Expecto
open Cmcl
open Cmcl.Tests.Checks
open Cmcl.Tests.CliTests
open TorchSharp

/// Widths of the modalities, which differ.
let private widths = Map [ vision, 6L; text, 5L; audio, 6L; depth, 4L ]

/// Rows of what several modalities have in common, as one of them sees it.
let private view (step: string) (m: string) (n: int64) (columns: int64) : torch.Tensor =
    let draw purpose rows columns = Seed.normal [ rows; columns ] (Seed.ofInt 5 |> Seed.split purpose)
    (draw $"common {step}" n 3L).mm(draw $"view {m}" 3L columns) .+ draw $"noise {step} {m}" n columns * number 0.3

/// Three steps; depth comes only in the last.
let private streamOfWidths (width: string -> int64) : Stream =
    streamOf
        [ for step, a, b, n in [ "1", vision, text, 24L; "2", audio, text, 20L; "3", vision, depth, 16L ] ->
              a, b, view step a n (width a), view step b n (width b) ]

let private mixed () = streamOfWidths (fun m -> widths[m])

/// A head of d rows for every modality.
let private drawn (d: int64) (stream: Stream) : SavedHeads =
    { Heads =
        Map
            [ for m, columns in Stream.modalities stream ->
                  m, Seed.normal [ d; columns ] (Seed.ofInt 3 |> Seed.split $"head {m}") * number 0.5 ]
      About = Map.empty }

let private withHeads (saved: SavedHeads) (stream: Stream) : Stream = InMemory.withHeads saved stream |> Check.getAll

let private trained name = (Registry.find name |> Check.get).Method |> Method.trains

/// A method with little training, where it trains.
let private written (name: string) (more: string) =
    let options =
        [ if trained name then
              "epochs=2"
              "batch=8"
              "lr=1e-2"
          if more <> "" then
              more ]

    if options.IsEmpty then name else $"""{name}[{String.Join(";", options)}]"""

/// Every method, and forms of some that are other code.
let private all =
    [ for name in Registry.names do
          written name ""
      for more in [ "place=update"; "place=gradient"; "protect=product"; "free-basis=shared" ] do
          written "dns" more
      for rule in [ "ema"; "tasks"; "dual"; "regmean" ] do
          written "merge" $"rule={rule}"
      written "eigen" "rotate=both"
      written "vanilla" "features=relu:7"
      written "reference" "features=cos:7"
      "cca[prior=0.5]"
      "cca[rank=2]"
      written "polish" "prior=0.5" ]

/// What a run measured, but for times.
let private figures (outcome: Cmcl.Outcome) =
    [ for m in outcome.Measurements do
          if not (m.Metric.StartsWith("seconds_", StringComparison.Ordinal) || m.Metric = "pairs_per_second") then
              m.Step, m.Task, m.Metric, BitConverter.DoubleToInt64Bits m.Value ]

/// Why a run is refused, a fault a line.
let private refusedIn (s: Stream) (method: string) : string =
    Train.run s torch.CPU Split.Test 0 Observer.silent (plan s method)
    |> faultsOf
    |> List.map _.Message
    |> String.concat "\n"

let private methods =
    testList
        "methods"
        [ for d in [ 3L; 9L ] do
              test $"every method begins with them, {d} rows" (fun () ->
                  let s = mixed ()
                  let saved = drawn d s
                  let s = withHeads saved s
                  Expect.equal (Stream.joint s) d "d"
                  let atStart = figures (fst (run s 0 "zero-shot")) |> List.filter (fun (step, _, _, _) -> step = 0)

                  for method in all do
                      let outcome, heads = run s 0 method

                      if not (method.Contains "features=" || method.StartsWith("reference", StringComparison.Ordinal)) then
                          let before = figures outcome |> List.filter (fun (step, _, _, _) -> step = 0)
                          Expect.equal before atStart $"{method}: measured before any step"

                      for KeyValue(step, after) in heads do
                          for KeyValue(m, w) in after do
                              Expect.equal w.shape[0] d $"{method}: {m}'s rows after step {step}"
                              Expect.isTrue (Tensors.isFinite w) $"{method}: {m} after step {step}"

                      // Depth has no step before the third.
                      match Map.tryFind 2 heads with
                      | Some after when not (method.StartsWith("polish", StringComparison.Ordinal)) ->
                          let w = Heads.weight (modality depth) after
                          identical $"{method}: depth before its step" (w.narrow (1L, 0L, 4L)) saved.Heads[modality depth]
                          let beside = w.narrow (1L, 4L, w.shape[1] - 4L)
                          Expect.equal (item (beside.abs().sum())) 0.0 $"{method}: what a lift or a bias adds begins at 0"
                      | _ -> ()

                  same
                      "individual starts there again"
                      0.0
                      (run s 0 (written "individual" "") |> snd).[3].[modality text]
                      saved.Heads[modality text])

          test "the identity as heads is the run without them, bit for bit" (fun () ->
              let s = streamOfWidths (fun _ -> 6L)
              let modalities = Stream.modalities s

              let given =
                  { Heads = Heads.identity Dtype.Float32 torch.CPU 6L modalities
                    About = Map.empty }

              let same' = withHeads given s
              Expect.notEqual same'.Digest s.Digest "they are a part of the data"

              for method in all do
                  let one, ofOne = run s 0 method
                  let other, ofOther = run same' 0 method
                  Expect.equal (figures other) (figures one) method

                  for KeyValue(step, after) in ofOne do
                      for KeyValue(m, w) in after do
                          identical $"{method}: {m} after step {step}" ofOther[step].[m] w)

          test "and must fail: with other heads it is another run" (fun () ->
              let s = streamOfWidths (fun _ -> 6L)
              let one, _ = run s 0 (written "vanilla" "")
              let other, _ = run (withHeads (drawn 6L s) s) 0 (written "vanilla" "")
              Expect.notEqual (figures other) (figures one) "vanilla")

          test "a rank above their rows is refused" (fun () ->
              let s = mixed ()
              Expect.stringContains (refusedIn (withHeads (drawn 3L s) s) "cca[rank=4]") "at most the 3 rows" "rank"

              Expect.isOk
                  (Train.run (withHeads (drawn 9L s) s) torch.CPU Split.Test 0 Observer.silent (plan s "cca[rank=4]"))
                  "there are 9")

          test "a prior towards identities of several widths is refused, and towards heads is not" (fun () ->
              let s = mixed ()
              let told = refusedIn s "cca[prior=1]"
              Expect.stringContains told "widths differ" "widths"
              Expect.stringContains told "heads to begin with" "the way out"
              run (withHeads (drawn 4L s) s) 0 "cca[prior=1]" |> ignore)

          test "a run that is left and continued is the whole one, bit for bit" (fun () ->
              let s = withHeads (drawn 4L (mixed ())) (mixed ())

              for method in [ "vanilla"; "dns"; "reference"; "der"; "cca"; "merge"; "polish" ] do
                  let plan = plan s (written method "")

                  inFolder (fun folder ->
                      let pieces, count = CheckpointTests.inPieces folder s 0 1 plan
                      Expect.isGreaterThan count 1 $"{method}: it was left"
                      let whole = CheckpointTests.whole s 0 plan
                      Expect.equal (CheckpointTests.figures pieces) (CheckpointTests.figures whole) method)) ]

// ---- on disk ---------------------------------------------------------------------------------------------------------

/// Two steps of three modalities as a stream file, before heads are named.
let private description =
    """{ "format": "cmcl-stream/1", "name": "small",
         "banks": { "pictures": { "modality": "vision", "file": "pictures.npy" },
                    "names": { "modality": "text", "file": "names.npy" },
                    "sounds": { "modality": "audio", "file": "sounds.npy" } },
         "rows": { "train": { "from": 0, "to": 16 }, "validation": { "from": 16, "to": 18 }, "test": { "from": 18, "to": 24 } },
         "steps": [ { "name": "first", "a": "pictures", "b": "names", "train": "train", "validation": "validation", "test": "test" },
                    { "name": "second", "a": "sounds", "b": "names", "train": "train", "validation": "validation", "test": "test" } ] }"""

let private modalitiesOnDisk = [ "vision", "pictures", 6L; "text", "names", 5L; "audio", "sounds", 4L ]

let private save (folder: string) (file: string) (t: torch.Tensor) : unit =
    let path = Path.Combine(folder, file)
    Directory.CreateDirectory(string (Path.GetDirectoryName path)) |> ignore
    use t = t.contiguous ()
    Check.get (Npy.write path t)

/// A head of 3 rows for every modality.
let private small () : Map<string, torch.Tensor> =
    Map [ for m, _, columns in modalitiesOnDisk -> m, Seed.normal [ 3L; columns ] (Seed.ofInt 8 |> Seed.split m) ]

let private each = """{ "vision": "heads/vision.npy", "text": "heads/text.npy", "audio": "heads/audio.npy" }"""

/// A stream folder with these heads, and files beside it.
let private inStream (heads: string option) (files: string -> unit) (act: string -> unit) : unit =
    let folder = Directory.CreateTempSubdirectory "cmcl-heads"
    use scope = torch.NewDisposeScope()

    try
        for m, name, columns in modalitiesOnDisk do
            save folder.FullName $"{name}.npy" (view "disk" m 24L columns)

        for KeyValue(m, w) in small () do
            save folder.FullName $"heads/{m}.npy" w

        let json = JsonNode.Parse description |> Option.ofObj |> Option.get
        heads |> Option.iter (fun heads -> json["heads"] <- JsonNode.Parse heads)
        File.WriteAllText(Path.Combine(folder.FullName, StreamFolder.DefaultFile), json.ToJsonString())
        files folder.FullName
        act folder.FullName
    finally
        folder.Delete true

let private load (folder: string) : Stream = StreamFolder.load folder |> Check.getAll

let private written' (folder: string) (about: (string * string) list) (weights: Map<string, torch.Tensor>) : unit =
    SavedHeads.write
        (Path.Combine(folder, "heads.safetensors"))
        { Heads = Map [ for KeyValue(m, w) in weights -> modality m, w ]
          About = Map about }
    |> Check.getAll

let private onDisk =
    testList
        "on disk"
        [ test "a file a modality, and one file of all, are the same heads, of every type" (fun () ->
              for dtype in [ torch.ScalarType.Float16; torch.ScalarType.Float32; torch.ScalarType.Float64 ] do
                  let weights = small () |> Map.map (fun _ w -> w.``to`` dtype)

                  let expect (s: Stream) =
                      Expect.equal (Stream.joint s) 3L "d"
                      let used = Stream.heads Dtype.Float64 torch.CPU s

                      for KeyValue(m, w) in weights do
                          identical $"{m}, as stored" s.Heads.Value[modality m] w
                          identical $"{m}, in a run" used[modality m] (w.``to`` torch.float64)

                  inStream
                      (Some each)
                      (fun folder ->
                          for KeyValue(m, w) in weights do
                              save folder $"heads/{m}.npy" w)
                      (load >> expect)

                  inStream (Some "\"heads.safetensors\"") (fun folder -> written' folder [] weights) (load >> expect))

          test "what is read is written, and read again" (fun () ->
              for heads in [ Some each; Some "\"heads.safetensors\""; None ] do
                  inStream heads ignore (fun folder ->
                      let path = Path.Combine(folder, StreamFolder.DefaultFile)
                      let description = StreamFile.read path |> Check.getAll
                      Expect.equal description.Heads.IsSome heads.IsSome "there"
                      File.WriteAllText(path, StreamFile.json description)
                      Expect.equal (StreamFile.read path |> Check.getAll) description "the same"))

          test "their numbers are a part of the digest, and without them it is as it was" (fun () ->
              let digest heads files =
                  let mutable found = ""
                  inStream heads files (fun folder -> found <- (load folder).Digest)
                  found

              let given = digest (Some each) ignore
              Expect.equal (digest (Some each) ignore) given "again"
              Expect.notEqual (digest None ignore) given "none"

              let other folder = save folder "heads/text.npy" ((small ()).["text"] * number 2.0)

              Expect.notEqual (digest (Some each) other) given "another head"
              Expect.equal (digest None other) (digest None ignore) "a file that nothing names")

          test "tensors outlive the loader's scope, and are freed with the caller's" (fun () ->
              inStream (Some each) ignore (fun folder ->
                  let count =
                      leaked (fun () ->
                          use scope = torch.NewDisposeScope()
                          let s = load folder

                          for w in s.Heads.Value.Values do
                              Expect.isFalse w.IsInvalid "a head")

                  Expect.equal count 0L "nothing is left")) ]

let private refusals =
    let refused title heads files words =
        test title (fun () ->
            inStream (Some heads) files (fun folder ->
                match StreamFolder.load folder with
                | Error [ fault ] ->
                    for word in words do
                        Expect.stringContains fault.Message word "the sentence"

                    Expect.isFalse (fault.Message.Contains '\n') "one line"
                | other -> failtest $"%A{other}"))

    let npy name (t: unit -> torch.Tensor) folder = save folder $"heads/{name}.npy" (t ())
    let st about weights folder = written' folder about (weights (small ()))
    let one = "\"heads.safetensors\""

    testList
        "refused"
        [ refused
              "a modality without a head"
              """{ "vision": "heads/vision.npy", "text": "heads/text.npy" }"""
              ignore
              [ "'audio'"; "bank 'sounds'" ]
          refused
              "a head of a modality that no bank is of"
              (each.Replace("\"vision\":", "\"depth\": \"heads/vision.npy\", \"vision\":"))
              ignore
              [ "'depth'"; "no bank" ]
          refused
              "two joint dimensions"
              each
              (npy "text" (fun () -> torch.ones (4L, 5L)))
              [ "'text'"; "heads/text.npy"; "3 rows"; "got 4" ]
          refused
              "another width"
              each
              (npy "text" (fun () -> torch.ones (3L, 7L)))
              [ "'text'"; "5 columns"; "bank 'names'"; "got 7" ]
          refused "a bias" each (npy "text" (fun () -> torch.ones (3L, 6L))) [ "'text'"; "none for a bias" ]
          refused "a bias that is told of" one (st [ "bias", "yes" ] id) [ "heads.safetensors"; "bias in their last column" ]
          refused "a lift" one (st [ "features", "relu:16"; "seed", "0" ] id) [ "features=relu:16"; "features=raw" ]
          refused "a NaN" each (npy "text" (fun () -> torch.full (3L, 5L, number nan))) [ "'text'"; "row 0" ]
          refused "a vector" each (npy "text" (fun () -> torch.ones 5L)) [ "'text'"; "a matrix"; "[5]" ]
          refused "integers" each (npy "text" (fun () -> torch.ones (3L, 5L, dtype = torch.int64))) [ "'text'"; "float32" ]
          refused "a path out of the folder" (each.Replace("heads/text.npy", "../text.npy")) ignore [ "../text.npy"; "inside" ]
          refused "one out of the folder" "\"../heads.safetensors\"" ignore [ "../heads.safetensors"; "inside" ]
          refused "a file that is not there" (each.Replace("heads/text.npy", "heads/t.npy")) ignore [ "heads/t.npy"; "not exist" ]
          refused
              "a pickle"
              "\"heads.pt\""
              (fun folder -> File.WriteAllText(Path.Combine(folder, "heads.pt"), "PK"))
              [ "pickled" ]
          refused
              "a pickle among arrays"
              (each.Replace("heads/text.npy", "heads/text.pt"))
              (fun folder -> File.WriteAllText(Path.Combine(folder, "heads/text.pt"), "PK"))
              [ "pickled"; "text.pt" ]
          refused "a folder" "\"heads\"" ignore [ "a .safetensors file"; "'heads'" ]
          refused "a file that is none" one (fun folder -> File.WriteAllText(Path.Combine(folder, "heads.safetensors"), "no")) []
          refused "a number" "3" ignore [ "'heads'"; ".safetensors"; "3" ]
          refused "no head" "{}" ignore [ "'heads'"; "every modality" ]
          refused "a name that is no modality's" (each.Replace("\"text\":", "\"te xt\":")) ignore [ "te xt" ]

          test "in memory by the same sentences" (fun () ->
              let s = mixed ()
              let told saved = InMemory.withHeads saved s |> faultsOf |> List.map _.Message |> String.concat " | "
              let saved = drawn 3L s
              Expect.stringContains (told { saved with About = Map [ "bias", "yes" ] }) "bias in their last column" "a bias"

              Expect.stringContains
                  (told
                      { saved with
                          Heads = Map.remove (modality depth) saved.Heads })
                  "'depth'"
                  "none"

              let wide = saved.Heads |> Map.add (modality text) (torch.ones (3L, 9L))
              Expect.stringContains (told { saved with Heads = wide }) "5 columns" "another width"
              let high = saved.Heads |> Map.add (modality text) (torch.ones (4L, 5L))
              Expect.stringContains (told { saved with Heads = high }) "3 rows" "another d"
              Expect.stringContains (told { saved with Heads = Map.empty }) "no head" "nothing") ]

// ---- the command -----------------------------------------------------------------------------------------------------

let private commands =
    testList
        "commands"
        [ test "heads of a run begin another, whose first figures are the run's last" (fun () ->
              inStream (Some each) ignore (fun folder ->
                  let at name = Path.Combine(folder, name)
                  let succeed arguments = Expect.equal (cmcl arguments).Code 0 (String.Join(" ", (arguments: string list)))
                  let more = [ "--seeds"; "0"; "--threads"; "1"; "--quiet" ]
                  let brief = [ "-m"; "vanilla[epochs=2;batch=8]"; "--save-weights" ]
                  succeed ([ "run"; "--stream"; folder; "--out"; at "base" ] @ brief @ more)
                  succeed [ "export"; at "base"; "-m"; "vanilla[epochs=2;batch=8]"; "-o"; at "heads.safetensors"; "-q" ]
                  let json = JsonNode.Parse description |> Option.ofObj |> Option.get
                  json["heads"] <- JsonNode.Parse "\"heads.safetensors\""
                  File.WriteAllText(at "next.json", json.ToJsonString())
                  succeed ([ "run"; "--stream"; at "next.json"; "-m"; "zero-shot,cca"; "--out"; at "next" ] @ more)

                  let recalls (out: string) (label: string) (step: string) =
                      [ for line in File.ReadLines(Path.Combine(out, "results.csv")) do
                            match line.Split ',' with
                            | fields when Array.contains label fields && Array.contains "r10" fields && fields[3] = step ->
                                Array.last fields
                            | _ -> () ]

                  let last = recalls (at "base") "vanilla[epochs=2;batch=8]" "2"
                  Expect.isNonEmpty last "figures"
                  Expect.equal (recalls (at "next") "zero-shot" "0") last "the same heads, the same rows"

                  let info = cmcl [ "info"; at "next.json" ]
                  Expect.stringContains info.Out "heads before any step" "they are told of"
                  Expect.stringContains info.Out "vision 3 × 6" "their shape"
                  succeed [ "verify"; "--stream"; at "next.json"; "--out"; at "verified"; "--quiet"; "--set"; "batch=8" ])) ]

let tests = testList "heads of a stream" [ methods; onDisk; refusals; commands ]
