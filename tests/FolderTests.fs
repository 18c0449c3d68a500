module Cmcl.Tests.FolderTests

open System
open System.IO
open Cmcl
open Expecto
open Cmcl.Tests.Checks
open Cmcl.Tests.Processes
open TorchSharp

let private stream =
    lazy
        (let rows purpose =
            // It outlives every scope.
            (Seed.normal [ 12L; 5L ] (Seed.ofInt 1 |> Seed.split purpose) |> Alignment.normalise).DetachFromDisposeScope()

         streamOf [ vision, text, rows "1a", rows "1b"; audio, text, rows "2a", rows "2b" ])

/// Vanilla under another name that does something when a step begins.
let private own (name: string) (act: int -> unit) : Method =
    { Plain.vanilla with Name = name }
    |> Method.beginning (fun context memory heads tasks ->
        act (List.head tasks).Index
        (Method.trainer Plain.vanilla).Begin context memory heads tasks)

let private request (folder: string) (methods: Method list) : Request =
    let find name =
        match methods |> List.tryFind (fun m -> m.Name = name) with
        | Some m -> Ok(Entry.ofMethod m)
        | None -> Registry.find name

    { Stream = stream.Value
      Source = "made"
      Plans =
        Plan.resolveWith find stream.Value.Preset [ "epochs", "1"; "batch", "4" ] [ for m in methods -> m.Name ] |> Check.get
      Seeds = [ 3; 4 ]
      Device = torch.CPU
      Split = Split.Test
      SaveWeights = false
      Monitor = None
      Jobs = 1
      Out = folder
      Command = "cmcl run"
      Arguments = [] }

let private run = experiment

let private kept: Checkpointing = { Checkpointing.none with Cadence = Cadence.Steps }

let private safely tell (request: Request) =
    FolderLock.Holding request.Out (fun folder ->
        Experiment.run folder kept (fun () -> false) DateTimeOffset.UnixEpoch tell request)

let private methods (rows: Row list) = rows |> List.map (fun r -> r.Method, r.Seed) |> List.distinct
let private hidden (folder: string) = Directory.GetFiles(folder, ".*", SearchOption.AllDirectories)

/// The number of cells that `config.json` says are to be run.
let private left (folder: string) : int =
    let json = Text.Json.Nodes.JsonNode.Parse(File.ReadAllText(Path.Combine(folder, "config.json"))) |> nonNull
    (nonNull json["left"]).GetValue<int>()

let private native () = torch.ones([| 2L; 2L |]).mm(torch.ones [| 3L; 3L |]) |> ignore

let private exceptions: (string * (int -> unit)) list =
    [ "raises",
      (fun step ->
          if step = 2 then
              raise (NotSupportedException "mine"))
      "libtorch", (fun _ -> native ()) ]

let private cells =
    testList
        "cells"
        [ for jobs in [ 1; 3 ] do
              testCase $"what breaks off ends alone and is told by name, {jobs} side by side"
              <| inFolder (fun folder ->
                  let all = Plain.zeroShot :: [ for name, act in exceptions -> own name act ] @ [ Plain.vanilla ]
                  let told = ResizeArray()

                  let tell =
                      function
                      | StudyEvent.Cell(cell, CellEvent.Ended how) ->
                          for fault in CellEnd.faults how do
                              told.Add(cell.Method, cell.Seed, fault.Message)
                      | _ -> ()

                  let found = run tell { request folder all with Jobs = jobs } |> Check.get
                  let whole = [ "zero-shot", 3; "zero-shot", 4; "vanilla", 3; "vanilla", 4 ]
                  Expect.equal (methods found.Rows) whole "the others"
                  Expect.equal (methods (Results.read folder |> Check.get)) whole "in the tables, too"

                  let broken =
                      [ for name, _ in exceptions do
                            for seed in [ 3; 4 ] -> name, seed ]

                  Expect.equal [ for label, seed, _ in found.Failures -> label, seed ] broken "failures"
                  Expect.equal (set told) (set found.Failures) "told"
                  Expect.equal (found.Broken, found.Left, left folder) (4, 0, 4) "to be run again"

                  for label, seed, why in found.Failures do
                      Expect.stringStarts why $"{label} (seed {seed}) broke off: " "by name"
                      Expect.isFalse (why.Contains '\n') "one line"

                  Expect.stringContains (Report.build folder |> Check.get) "mine (NotSupportedException" "why")

          testCase "files of a cell that cannot be written end it alone, and resumed it is run again"
          <| inFolder (fun folder ->
              let r =
                  { request folder [ Plain.vanilla; own "other" ignore ] with
                      SaveWeights = true }

              let inTheWay = ResultsFolder.weightsOf folder "other" 3
              Directory.CreateDirectory(nonNull (Path.GetDirectoryName inTheWay)) |> ignore
              File.WriteAllText(inTheWay, "")
              let found = safely ignore r |> Check.get
              Expect.equal (methods found.Rows) [ "vanilla", 3; "vanilla", 4; "other", 4 ] "the others"
              Expect.equal (found.Broken, left folder) (1, 1) "broken"
              let why = found.Failures |> List.map (fun (_, _, why) -> why) |> List.exactlyOne
              Expect.stringContains why "cannot be written" why
              File.Delete inTheWay
              let again = safely ignore r |> Check.get
              Expect.equal (again.Rows.Length, again.Broken, left folder) (4 * found.Rows.Length / 3, 0, 0) "all"
              Expect.isEmpty (Directory.GetDirectories(CellFile.folder folder)) "checkpoints go when all is done")

          testCase "weights lie under a short name whatever the label, and are found by it, by an older version's name, too"
          <| inFolder (fun folder ->
              let long = String('m', 300)
              let names = [ long; long + "x"; "a/b"; "a_b"; ".." ]

              let r =
                  { request folder [ for name in names -> own name ignore ] with
                      SaveWeights = true
                      Seeds = [ 3 ] }

              let found = run ignore r |> Check.get
              Expect.isEmpty found.Failures "all"

              for name in names do
                  let saved = RunHeads.read folder name 3 None |> Check.get
                  Expect.equal saved.Heads.Count 3 name
                  let place = nonNull (Path.GetDirectoryName(ResultsFolder.weightsOf folder name 3))
                  Expect.equal (Path.GetDirectoryName place) (ResultsFolder.weights folder) "within"

                  if Path.GetFileName place <> name then
                      Expect.equal (File.ReadAllText(Path.Combine(place, "label.txt"))) name "beside it"

              let places = names |> List.map (fun name -> ResultsFolder.weightsOf folder name 3)
              Expect.equal (List.distinct places) places "one each"
              let last = nonNull (Path.GetDirectoryName(ResultsFolder.weightsOf folder "a/b" 3))
              Directory.Delete(Path.Combine(ResultsFolder.weights folder, "a_b"), true)
              Directory.Move(last, Path.Combine(ResultsFolder.weights folder, "a_b"))
              Expect.isOk (RunHeads.read folder "a/b" 3 None) "as an older version named it")

          testCase "a name of weights that is a file is refused before anything is trained"
          <| inFolder (fun folder ->
              File.WriteAllText(ResultsFolder.weights folder, "")

              match run (fun _ -> failtest "told") { request folder [ Plain.vanilla ] with SaveWeights = true } with
              | Error [ Fault.Unwritable(path, _) ] -> Expect.equal path (ResultsFolder.weights folder) "which"
              | other -> failtest $"{other}")

          testCase "what a listener raises is no cell's fault: it is raised when what is over is written"
          <| inFolder (fun folder ->
              let tell =
                  function
                  | StudyEvent.Cell(_, CellEvent.Ended _) -> failwith "listener"
                  | _ -> ()

              Expect.throwsC (fun () -> run tell (request folder [ Plain.zeroShot; Plain.vanilla ]) |> ignore) (fun e ->
                  Expect.equal e.Message "listener" "raised")

              Expect.equal (methods (Results.read folder |> Check.get)) [ "zero-shot", 3 ] "what was over"
              Expect.equal (left folder) 3 "what is left")

          testCase "tables that cannot be written are told of, and what is over is given"
          <| inFolder (fun folder ->
              let tell =
                  function
                  | StudyEvent.Cell({ Seed = 3; Method = "m1" }, CellEvent.Ended _) ->
                      File.Delete(Path.Combine(folder, "losses.csv"))
                      Directory.CreateDirectory(Path.Combine(folder, "losses.csv")) |> ignore
                  | _ -> ()

              let all = [ for i in 1..8 -> own $"m{i}" ignore ]
              let found = run tell (request folder all) |> Check.get
              Expect.isNonEmpty found.Unwritten "told"
              Expect.equal (found.Left + (methods found.Rows).Length) 16 "the rest is there"

              match found.Unwritten with
              | [ Fault.Unwritable(path, _) ] -> Expect.stringEnds path "losses.csv" "which"
              | other -> failtest $"{other}") ]

let private locks =
    testList
        "locks"
        [ testCase "a folder has one writer, and nothing is left of the lock"
          <| inFolder (fun folder ->
              let out = Path.Combine(folder, "out")

              let inner () =
                  match FolderLock.Holding out (fun _ -> Ok()) with
                  | Error [ Fault.Held(path, holder) ] ->
                      Expect.equal path out "which"
                      Expect.stringContains holder $"process {Environment.ProcessId} on " "who"
                  | other -> failtest $"{other}"

              FolderLock.Holding out (fun _ -> Ok(inner ())) |> Check.get
              FolderLock.Holding out (fun _ -> Ok()) |> Check.get
              Expect.isEmpty (Directory.GetFileSystemEntries out) "nothing"

              Expect.throws (fun () -> FolderLock.Holding out (fun _ -> failwith "x") |> ignore<Result<unit, _>>) "raised"
              Expect.isEmpty (Directory.GetFileSystemEntries out) "freed"
              File.WriteAllText(Path.Combine(folder, "file"), "")

              match FolderLock.Holding (Path.Combine(folder, "file", "in")) (fun _ -> Ok()) with
              | Error [ Fault.Unwritable _ ] -> ()
              | other -> failtest $"{other}")

          testCase "of many at once one writes at any time"
          <| inFolder (fun folder ->
              let gate = obj ()
              let inside, most, entered = ref 0, ref 0, ref 0

              let work (_: FolderLock) =
                  lock gate (fun () ->
                      inside.Value <- inside.Value + 1
                      most.Value <- max most.Value inside.Value
                      entered.Value <- entered.Value + 1)

                  Threading.Thread.Sleep 1
                  lock gate (fun () -> inside.Value <- inside.Value - 1)
                  Ok()

              let out = Path.Combine(folder, "out")
              Threading.Tasks.Parallel.For(0, 100, (fun _ -> FolderLock.Holding out work |> ignore)) |> ignore
              Expect.equal most.Value 1 "one"
              Expect.isGreaterThan entered.Value 0 "some")

          testCase "what killed processes left half written goes, and what is not ours stays"
          <| inFolder (fun folder ->
              let guid = Guid.NewGuid().ToString "N"
              let ours = [ $".{guid}"; $".results.csv.{guid}"; $".config.json.{guid}" ]
              let others = [ ".git"; $".{guid}x"; $"results.{guid}"; ".notes.txt" ]

              for name in ours @ others do
                  File.WriteAllText(Path.Combine(folder, name), "half")

              FolderLock.Holding folder (fun _ -> Ok()) |> Check.get
              let there = Directory.GetFiles folder |> Array.map (Path.GetFileName >> nonNull) |> List.ofArray
              Expect.equal (List.sort there) (List.sort others) "names")

          testCase "a folder that is removed while a run writes is an error, and what is over is there again"
          <| inFolder (fun folder ->
              let out = Path.Combine(folder, "out")

              let tell =
                  function
                  | StudyEvent.Cell({ Seed = 3; Method = "zero-shot" }, CellEvent.Ended _) -> Directory.Delete(out, true)
                  | _ -> ()

              match run tell (request out [ Plain.zeroShot; Plain.vanilla ]) with
              | Error [ Fault.Unwritable(path, why) ] ->
                  Expect.equal path out "which"
                  Expect.stringContains why "removed" "why"
              | other -> failtest $"{other}"

              Expect.equal (methods (Results.read out |> Check.get)).Length 4 "all that was over")

          testCase "a folder that is another's by now is not written to"
          <| inFolder (fun folder ->
              let out = Path.Combine(folder, "out")

              let tell =
                  function
                  | StudyEvent.Cell({ Seed = 3; Method = "zero-shot" }, CellEvent.Ended _) ->
                      Directory.Delete(out, true)
                      Directory.CreateDirectory out |> ignore
                      File.WriteAllText(Path.Combine(out, ".cmcl.lock"), "")
                  | _ -> ()

              Expect.isError (run tell (request out [ Plain.zeroShot; Plain.vanilla ])) "told"
              Expect.equal (Directory.GetFiles out) [| Path.Combine(out, ".cmcl.lock") |] "nothing but the other's")

          testCase "a disk that is full in the midst: told, nothing raised, and what was over stays" (fun () ->
              onSmallDisk 2000 (fun folder _ ->
                  let filler = ref None
                  let out = Path.Combine(folder, "out")

                  let tell =
                      function
                      | StudyEvent.Cell({ Seed = 3; Method = "vanilla" }, CellEvent.Started) ->
                          filler.Value <- Some(filled (Path.Combine(folder, "filler")))
                      | _ -> ()

                  let r = request out [ Plain.zeroShot; Plain.vanilla; own "last" ignore ]

                  match safely tell r with
                  | Ok found ->
                      Expect.isNonEmpty found.Unwritten "told"
                      Expect.isTrue (List.contains ("zero-shot", 4) (methods found.Rows)) "what was over"
                  | Error faults -> failtest $"{faults}"

                  Option.iter (fun (file: FileStream) -> file.Dispose()) filler.Value
                  File.Delete(Path.Combine(folder, "filler"))
                  let there = methods (Results.read out |> Check.get)
                  Expect.isTrue (List.contains ("zero-shot", 3) there) "the tables from before"
                  let again = safely ignore r |> Check.get
                  Expect.equal ((methods again.Rows).Length, again.Unwritten, left out) (6, [], 0) "resumed")) ]

/// What `config.json` may hold when somebody has edited it: never an exception.
let private records =
    testList
        "records"
        [ testCase "a record of another shape is a fault or is read, and never raises"
          <| inFolder (fun folder ->
              let path = Path.Combine(folder, "config.json")

              let wrong =
                  [ ""; "{"; "[]"; "null"; "3"; "\"x\""; """{"methods":3}"""; """{"methods":[null]}"""; """{"methods":{}}""" ]
                  @ [ """{"stream":{"steps":[{"index":"x"}]}}"""; """{"stream":{"steps":[{"index":1.5}]}}""" ]
                  @ [ """{"stream":{"steps":[{"index":99999999999}]}}"""; """{"seeds":7}"""; """{"failures":[null]}""" ]
                  @ [ """{"command":"\ud800"}"""; """{"methods":[{"label":"a","settings":[1]}]}"""; "{\"a\":\u0000}" ]

              for text in wrong do
                  File.WriteAllText(path, text)

                  match RunInfo.read folder with
                  | Error [ Fault.Unreadable(named, _) as fault ] ->
                      Expect.equal named path text
                      Expect.isFalse (fault.Message.Contains '\n') text
                  | other -> failtest $"{text}: {other}"

              for text in [ "{}"; """{"methods":null,"stream":null,"seeds":null,"left":null,"unknown":[1,{}]}""" ] do
                  File.WriteAllText(path, text)
                  Expect.isOk (RunInfo.read folder) text

              File.Delete path
              Expect.isOk (RunInfo.read folder) "none"
              Directory.CreateDirectory path |> ignore

              match RunInfo.read folder with
              | Error [ Fault.Unreadable(_, why) ] -> Expect.stringContains why "folder" "a folder"
              | other -> failtest $"{other}") ]

let private roles =
    testList
        "roles"
        [ test "a wrapper has its host's role, and what trains in other ways has its own" (fun () ->
              let written =
                  [ for e in Registry.entries do
                        if e.Host.IsNone then
                            e.Method.Name ]

              let plans = Plan.resolve stream.Value.Preset [] written |> Check.get

              let around host = Plan.resolve stream.Value.Preset [] [ $"c-flat[host={host}]" ] |> Check.get |> List.exactlyOne

              for p in plans do
                  let role = p.Method.Role
                  let otherwise = not (Method.learns p.Method) || p.Method.Curriculum = Curriculum.AllAtOnce
                  Expect.equal (Role.isBound role) (otherwise || role = Role.Restart) p.Label
                  Expect.equal (Roles.find Map.empty p.Label) role $"{p.Label}: as its name had it"

                  if Method.trains p.Method then
                      let wrapped = (around p.Method.Name).Method.Role

                      Expect.equal
                          (Role.isBound wrapped, wrapped = Role.Restart)
                          (Role.isBound role, role = Role.Restart)
                          p.Label

              for role in [ Role.Baseline; Role.Competitor; Role.Subject; Role.Floor; Role.Ceiling; Role.Restart ] do
                  Expect.equal (Role.parse (Role.name role)) (Some role) "as files have it"

              Expect.isNone (Role.parse "dns") "no role")

          testCase "bounds by another name are no competitors: in the folder, the table, the comparison"
          <| inFolder (fun folder ->
              let mine =
                  { Plain.joint with
                      Name = "mine"
                      Summary = "the user's own" }

              let names = [ "vanilla"; "dns"; "c-flat[host=joint]"; "c-flat[host=individual]" ]

              let plans =
                  Plan.resolveWith
                      (fun name -> if name = "mine" then Ok(Entry.ofMethod mine) else Registry.find name)
                      stream.Value.Preset
                      [ "epochs", "1"; "batch", "4" ]
                      ("mine" :: names)
                  |> Check.get

              let bounds = set [ "mine"; "c-flat[host=joint]"; "c-flat[host=individual]" ]
              let r = { request folder [ Plain.vanilla ] with Plans = plans }
              run ignore r |> Check.get |> ignore
              let found = StudyResult.read folder |> Check.get

              Expect.equal
                  (set
                      [ for m in found.Info.Methods do
                            if Role.isBound m.Role then
                                m.Label ])
                  bounds
                  "read back"

              let table = CompareTable.make Metric.paper found.Stream (StudyResult.measured found)

              for row in table.Rows do
                  if bounds.Contains row.Method then
                      Expect.isFalse (row.Cells |> List.exists _.Best) row.Method

              let kept = table.Metrics |> List.findIndex (fun m -> m.Name = "bwt_r10")
              let again = table.Rows |> List.find (fun row -> row.Method = "c-flat[host=individual]")
              Expect.isNone again.Cells[kept].Spread "it starts again"

              Expect.equal (Measured.competing (StudyResult.measured found)) [ "vanilla"; "dns" ] "competing"
              let html = Report.build folder |> Check.get

              Expect.equal
                  (Text.RegularExpressions.Regex.Matches(html, "class=\"reference( first)?\"").Count)
                  3
                  "references of the page"

              // As it was before roles were written.
              let path = Path.Combine(folder, "config.json")
              let without = Text.RegularExpressions.Regex.Replace(File.ReadAllText path, "\"role\": \"[a-z]+\",", "")
              File.WriteAllText(path, without.Replace("c-flat[host=joint]", "joint"))
              let old = StudyResult.read folder |> Check.get

              Expect.equal
                  [ for m in old.Info.Methods -> Role.name m.Role ]
                  [ "competitor"; "baseline"; "subject"; "ceiling"; "competitor" ]
                  "by name") ]

let private live =
    testCase "beside a live run, resume and a forced run are refused; killed, it is resumed, and nothing hidden is left"
    <| onLinux (fun folder ->
        let out = Path.Combine(folder, "out")

        let arguments =
            [ "run"
              "--stream"
              "synthetic"
              "--methods"
              "zero-shot,vanilla"
              "--seeds"
              "0"
              "--epochs"
              "2000"
              "--quiet" ]

        let c = cmcl (arguments @ [ "--checkpoint-every"; "40"; "--out"; out ])

        try
            until "it trains" (fun () ->
                Directory.Exists(CellFile.folder out) && Directory.GetDirectories(CellFile.folder out).Length > 0)

            for other in [ [ "resume"; out ]; arguments @ [ "--force"; "--out"; out ] ] do
                let code, said = finish (cmcl other)
                Expect.equal code 2 said
                Expect.stringContains said $"is being written to by process {c.Process.Id} on " said
        finally
            signal "KILL" c

        finish c |> ignore
        Expect.isNonEmpty (hidden out) "a lock that outlives its process"
        let guid = Guid.NewGuid().ToString "N"
        File.WriteAllText(Path.Combine(out, $".results.csv.{guid}"), "half")
        // What it was killed in the midst of writing stays with its checkpoints, which nobody goes on from below.
        let killed = Directory.GetDirectories(CellFile.folder out)
        let json = File.ReadAllText(Path.Combine(out, "config.json"))
        // So that the rest is short: fewer epochs are another run, which begins anew.
        File.WriteAllText(Path.Combine(out, "config.json"), json.Replace("\"2000\"", "\"1\""))
        let code, said = finish (cmcl [ "resume"; out ])
        Expect.equal code 0 said
        let beside = hidden out |> Array.filter (fun file -> not (killed |> Array.exists file.StartsWith))
        Expect.isEmpty beside "nothing hidden"
        Expect.equal (methods (Results.read out |> Check.get)) [ "zero-shot", 0; "vanilla", 0 ] "all of it")

let tests = testList "folders" [ cells; locks; records; roles; live ]
