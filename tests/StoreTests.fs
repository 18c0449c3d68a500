module Cmcl.Tests.StoreTests

open System
open System.Diagnostics
open System.IO
open System.Text.Json
open System.Text.Json.Nodes
open System.Text.RegularExpressions
open Cmcl
open Expecto
open Cmcl.Tests.Checks
open Cmcl.Tests.Processes
open TorchSharp

let private given = [ "epochs", "1" ]
let private methods = [ "vanilla"; "dns" ]

/// As every process finds it.
let private stream () : Stream = Catalogue.find "synthetic" |> Check.get

// ---- the doors ---------------------------------------------------------------------------------------------------

let private request (out: string) : Request =
    { Stream = stream ()
      Source = "synthetic"
      Plans = Plan.resolve (stream ()).Preset given methods |> Check.get
      Seeds = [ 0; 1 ]
      Device = torch.CPU
      Split = Split.Test
      SaveWeights = false
      Monitor = None
      Jobs = 1
      Out = out
      Command = "cmcl run"
      Arguments = [ "--stream"; "synthetic" ] }

let private cells (out: string) : (Job * SweepCell) list =
    let jobs =
        Study.cells
            { Streams =
                [ { Source = Some "synthetic"
                    Stream = stream ()
                    Threads = Protocol.threads (stream ()) None } ]
              Configurations = Configurations.Written(methods, given, [])
              Orders = [ 0 ]
              Seeds = [ 0; 1 ]
              Split = Split.Test
              Device = torch.CPU
              Monitor = None }
        |> Check.get

    List.zip jobs (List.choose (SweepCell.ofJob out) jobs)

let private study (out: string) : StudyBuilder =
    Run.on (stream ())
    |> Run.method Baseline.vanilla
    |> Run.method Dns.defaults
    |> Run.each (Learn.epochs 1)
    |> Run.seeds [ 0; 1 ]
    |> Run.jobs 1
    |> Run.into out

/// What a door gives: its rows, and how many cells it trained.
type private Door = string -> Row list * int

/// A listener that counts the cells that are trained.
let private counting () : int ref * (StudyEvent -> unit) =
    let trained = ref 0

    trained,
    function
    | StudyEvent.Cell(_, CellEvent.Started) -> trained.Value <- trained.Value + 1
    | _ -> ()

let private byRun: Door =
    fun out ->
        let trained, tell = counting ()
        let found = experiment tell (request out) |> Check.get
        found.Rows, trained.Value

let private byWorker: Door =
    fun out ->
        let cells = cells out
        let before = [ for _, c in cells -> File.Exists(CellFile.path out c.Identity) ]
        use input = new StringReader(String.Join("\n", [ for _, c in cells -> Line.ofJob c.Job ]))
        use output = new StringWriter()
        Expect.isTrue (Worker.serve input output (fun () -> false) ignore) "to the end"

        let found =
            [ for line in output.ToString().Split '\n' do
                  match Line.event line with
                  | Some(CellEvent.Ended(CellEnd.Finished(_, found))) -> found
                  | Some(CellEvent.Ended other) -> failtest $"{other}"
                  | _ -> () ]

        Expect.equal found before "it says so"

        let rows =
            [ for job, record in StudyFolder.records out (List.map fst cells) do
                  yield! Lines.ofCell job.Cell record.Value ]

        rows @ Results.aggregates rows, found |> List.filter not |> List.length

let private byDesk: Door =
    fun out ->
        let trained, tell = counting ()
        let found = study out |> Run.tell tell |> Run.go
        found.Rows, trained.Value

let private doors = [ "cmcl run", byRun; "a worker", byWorker; "the desk", byDesk ]

let private across =
    testList
        "doors"
        [ for first, finish in doors do
              testCase $"what {first} has finished every other door takes, to the bit, times too"
              <| inFolder (fun out ->
                  let rows, trained = finish out
                  Expect.equal trained 4 "at first"
                  let files = cellFiles out |> Array.map File.ReadAllText
                  Expect.hasLength files 4 "a file each"

                  for name, door in doors do
                      let again, trained = door out
                      Expect.equal trained 0 $"{name} trains nothing"

                      let bits (rows: Row list) =
                          rows |> List.map (fun r -> { r with Value = 0.0 }, BitConverter.DoubleToInt64Bits r.Value) |> List.sort

                      Expect.equal (bits again) (bits rows) name

                  Expect.equal (cellFiles out |> Array.map File.ReadAllText) files "untouched")

          testCase "a run goes on with what is finished where it asks for more, and --force begins anew"
          <| inFolder (fun out ->
              let larger = { request out with Seeds = [ 0; 1; 2 ] }
              let prepared force (r: Request) = Experiment.prepare force r
              prepared false (request out) |> Check.get
              byRun out |> ignore
              Expect.equal (prepared false (request out)) (Error [ Fault.Occupied out ]) "there is nothing left to do"
              prepared false larger |> Check.get
              Expect.isTrue (File.Exists(Path.Combine(out, "results.csv"))) "its tables stay until there are larger ones"

              let other =
                  { larger with
                      Plans = Plan.resolve (stream ()).Preset [ "epochs", "2" ] methods |> Check.get }

              Expect.equal (prepared false other) (Error [ Fault.Occupied out ]) "other runs under these labels"
              Expect.equal (prepared false { larger with Seeds = [ 1; 2 ] }) (Error [ Fault.Occupied out ]) "it would lose some"
              prepared true (request out) |> Check.get
              Expect.isEmpty (cellFiles out) "forced"
              Expect.equal (byRun out |> snd) 4 "trained again")

          testCase "a cell whose weights are wanted and not there is run again, and another cell is not"
          <| inFolder (fun out ->
              byRun out |> ignore
              let weighed = { request out with SaveWeights = true }
              let started = ref 0

              let tell =
                  function
                  | StudyEvent.Cell(_, CellEvent.Started) -> started.Value <- started.Value + 1
                  | _ -> ()

              experiment tell weighed |> Check.get |> ignore
              Expect.equal started.Value 4 "without weights"
              Directory.Delete(ResultsFolder.weightsOf out "dns" 1, true)
              started.Value <- 0
              experiment tell weighed |> Check.get |> ignore
              Expect.equal started.Value 1 "the one that is gone"
              Expect.isTrue (Directory.Exists(ResultsFolder.weightsOf out "dns" 1)) "there again")

          testCase "a damaged result is told of, and its cell is run again, to the same figures"
          <| inFolder (fun out ->
              byRun out |> ignore
              let before = results out
              let spoilt = cellFiles out |> Array.item 2
              File.WriteAllText(spoilt, (File.ReadAllText spoilt).Replace("\"done\"", "\"gone\""))
              let told = ResizeArray()

              let tell =
                  function
                  | StudyEvent.Cell(_, CellEvent.Warning fault) -> told.Add fault.Message
                  | _ -> ()

              experiment tell (request out) |> Check.get |> ignore
              Expect.hasLength told 1 "a warning"
              Expect.stringContains told[0] "checksum" "why"
              Expect.equal (results out) before "the same") ]

// ---- other code --------------------------------------------------------------------------------------------------

/// The cells of a folder as other code would have left them.
let private age (out: string) : unit =
    for path in cellFiles out do
        let stored = CellFile.load path |> Check.get
        File.Delete path
        let other = JsonNode.Parse stored.Identity |> nonNull
        other["code"] <- JsonValue.Create "0123456789abcdef0123"
        CellFile.write out { stored with Identity = other.ToJsonString() } |> Check.get

/// A cell as format 2 had it.
let private older (out: string) (c: StoredCell) : unit =
    let identity = JsonNode.Parse c.Identity |> nonNull |> _.AsObject()
    identity.Remove "code" |> ignore
    identity.Remove "threads" |> ignore

    let whole = JsonObject()
    whole["format"] <- JsonValue.Create "cmcl-cell/2"
    whole["cmcl"] <- JsonValue.Create "0.1.0"

    for pair in List.ofSeq identity do
        identity.Remove pair.Key |> ignore
        whole[pair.Key] <- pair.Value

    let rows =
        match c.Record.Result with
        | Ok left ->
            [ for r in left.Outcome.Measurements ->
                  let value = r.Value.ToString("R", Globalization.CultureInfo.InvariantCulture)
                  let value = if Double.IsFinite r.Value then value else $"\"{value}\""
                  $"    {{\"step\":\"{r.Step}\",\"task\":\"{r.Task}\",\"metric\":\"{r.Metric}\",\"value\":{value}}}" ]
        | Error message -> failtest message

    let rows = String.Join(",\n", rows)
    let text = whole.ToJsonString()

    let body =
        $"  \"cell\": {text},\n  \"stream\": \"{c.Cell.Stream}\",\n  \"label\": \"{c.Cell.Method}\",\n  \"order\": 0,\n  \"machine\": {{\"threads\":1}},\n  \"seconds\": 1.5,\n  \"memory\": 7,\n  \"state\": \"done\",\n  \"rows\": [\n{rows}\n  ]"

    let sha = Convert.ToHexStringLower(Security.Cryptography.SHA256.HashData(Text.Encoding.UTF8.GetBytes body))

    File.WriteAllText(CellFile.path out text, "{\n" + body + $",\n  \"sha256\": \"{sha}\"\n}}\n")

/// A checkpoint as format 1 had it, in a folder of its own below `checkpoints`.
let private checkpoint (out: string) (c: StoredCell) : unit =
    let identity = JsonNode.Parse c.Identity |> nonNull |> _.AsObject()
    identity.Remove "code" |> ignore
    identity.Remove "threads" |> ignore
    identity["format"] <- JsonValue.Create "cmcl-checkpoint/1"
    let text = identity.ToJsonString()

    let whole =
        ChecksummedJson.bytes "cmcl-checkpoint/1" (fun json ->
            json.WritePropertyName "identity"
            json.WriteRawValue text
            json.WriteString("reached", "end")

            match c.Record.Result with
            | Ok left -> OutcomeText.write json left.Outcome left.Monitor
            | Error message -> failtest message)

    let folder = Path.Combine(out, "checkpoints", Identity.hash text)
    Directory.CreateDirectory folder |> ignore
    File.WriteAllBytes(Path.Combine(folder, "00000007.json"), whole)

let private adopting =
    testList
        "adopt"
        [ testCase "cells of other code are found, taken over when that is asked, and then are finished, to the bit"
          <| inFolder (fun out ->
              let rows, _ = byRun out
              let wanted = [ for job, _ in cells out -> Job.identity job ]
              Expect.equal (Adoption.others out wanted) 0 "of this code"
              age out
              Expect.equal (Adoption.others out wanted) 4 "of other code"
              let why = (Experiment.resumable (request out) |> faultsOf |> List.exactlyOne).Message
              Expect.stringContains why "4 cells" why
              Expect.stringContains why $"cmcl store adopt {out}" "what to do"
              Expect.equal (Adoption.adopt out None) (Ok(4, [])) "taken"
              Expect.isOk (Experiment.resumable (request out)) "resumable"
              let again, trained = byDesk out
              Expect.equal (List.sort again, trained) (List.sort rows, 0) "the same"
              Expect.equal (Adoption.adopt out None) (Ok(0, [])) "nothing more")

          testCase "so are cells of format 2, and finished checkpoints of format 1 with their curves"
          <| inFolder (fun out ->
              let rows, _ = byRun out
              let losses = File.ReadAllText(Path.Combine(out, "losses.csv"))

              for write in [ older; checkpoint ] do
                  for path in cellFiles out do
                      let stored = CellFile.load path |> Check.get
                      File.Delete path
                      write out stored

                  Expect.equal (Adoption.adopt out None) (Ok(4, [])) "taken"
                  Expect.isFalse (Directory.Exists(Path.Combine(out, "checkpoints"))) "nothing is left of the old"
                  let again, trained = byRun out
                  Expect.equal (List.sort again, trained) (List.sort rows, 0) "the same"

              // Format 2 had no curves, and so has nothing that came of it.
              Expect.notEqual (File.ReadAllText(Path.Combine(out, "losses.csv"))) losses "curves")

          testCase "an unfinished one goes on where it was, to the same figures"
          <| inFolder (fun out ->
              let whole = Path.Combine(out, "whole")
              byRun whole |> ignore
              let checkpointing = { Cadence = Cadence.Updates 3L; Keep = 1 }
              let part = Path.Combine(out, "part")
              let updates = ref 0

              let stop () =
                  updates.Value <- updates.Value + 1
                  updates.Value > 20

              FolderLock.Holding part (fun folder ->
                  Experiment.run folder checkpointing stop DateTimeOffset.UnixEpoch ignore (request part))
              |> Check.get
              |> ignore

              let folder = Directory.GetDirectories(CellFile.folder part) |> Array.exactlyOne

              // As other code would have left it.
              let file = Directory.GetFiles(folder, "*.json") |> Array.exactlyOne
              let node = (File.ReadAllText file |> JsonNode.Parse |> nonNull)["body"] |> nonNull
              let identity = node["identity"] |> nonNull
              identity["code"] <- JsonValue.Create "0123456789abcdef0123"
              let text = identity.ToJsonString()
              use document = JsonDocument.Parse(node.ToJsonString())
              let moved = Store.checkpointFolder part text
              Directory.Move(folder, moved)

              ChecksummedJson.bytes "cmcl-checkpoint/2" (fun json ->
                  for p in document.RootElement.EnumerateObject() do
                      p.WriteTo json)
              |> fun bytes -> File.WriteAllBytes(Path.Combine(moved, string (Path.GetFileName file)), bytes)

              Expect.equal (Adoption.adopt part None) (Ok(1, [])) "taken"
              let resumed = ref 0

              let tell =
                  function
                  | StudyEvent.Cell(_, CellEvent.Resumed _) -> resumed.Value <- resumed.Value + 1
                  | _ -> ()

              experiment tell (request part) |> Check.get |> ignore
              Expect.equal resumed.Value 1 "resumed"
              Expect.equal (results part) (results whole) "the same")

          testCase "a sweep's folder is refused with the command that takes it over, and then is finished"
          <| inFolder (fun out ->
              let file =
                  SweepFile.ofBlocks
                      [ SweepFile.block [ "synthetic" ] methods |> SweepFile.set given |> SweepFile.seeds [ 0; 1 ] ]

              let cells = SweepFile.cells (fun _ -> 1) out file |> Check.get
              SweepFolder.adopt out file cells |> Check.get
              byWorker out |> ignore
              age out
              let listed = Path.Combine(out, "cells.jsonl")

              let other (line: string) =
                  let node = JsonNode.Parse line |> nonNull
                  let identity = (nonNull node["Identity"]).GetValue<string>().Replace(Identity.code, "0123456789abcdef0123")
                  node["Identity"] <- JsonValue.Create identity
                  (nonNull node["Errand"])["Hash"] <- JsonValue.Create(Identity.hash identity)
                  node.ToJsonString()

              File.WriteAllLines(listed, File.ReadAllLines listed |> Array.map other)
              let why = (SweepFolder.adopt out file cells |> faultsOf |> List.exactlyOne).Message
              Expect.stringContains why $"cmcl store adopt {out}" why
              let code, said = finish (cmcl [ "store"; "adopt"; out ])
              Expect.equal code 0 said
              SweepFolder.adopt out file cells |> Check.get

              let states = SweepFolder.cells out |> Check.get |> SweepFolder.states
              Expect.equal (states |> List.map (snd >> CellState.word)) (List.replicate 4 "finished") "all")

          testCase "what cannot be taken over is told with its reason, and stays"
          <| inFolder (fun out ->
              byRun out |> ignore
              let mine = CellFile.load (Array.head (cellFiles out)) |> Check.get
              checkpoint out mine
              let damaged = Path.Combine(CellFile.folder out, String('a', 20) + ".json")
              File.WriteAllText(damaged, "{")

              match Adoption.adopt out (Some 1) with
              | Ok(0, [ path, why; other, _ ]) ->
                  Expect.stringContains path "checkpoints" "which"
                  Expect.stringContains why "this code has finished the same" "why"
                  Expect.equal other damaged "one that cannot be read"
              | other -> failtest $"{other}"

              Expect.isTrue (File.Exists damaged) "it stays")

          testCase "cmcl store list and adopt say what there is, in 80 columns"
          <| inFolder (fun out ->
              byRun out |> ignore
              let store arguments = finish (cmcl ([ "store" ] @ arguments))
              let code, said = store [ "list"; out ]
              Expect.equal code 0 said
              Expect.stringContains said "4 cells, 4 finished, 0 of other code" said
              age out
              let code, said = store [ "list"; out ]
              Expect.equal code 0 said
              Expect.stringContains said "01234567" "whose"
              Expect.stringContains said "4 of other code" said
              let code, said = store [ "adopt"; out ]
              Expect.equal code 0 said
              Expect.stringContains said "4 cells taken over, 0 not." said
              let code, said = store [ "list"; Path.Combine(out, "nowhere") ]
              Expect.equal code 2 said
              let code, said = store [ "adopt"; out; "--threads"; "0" ]
              Expect.equal code 2 said) ]

// ---- the code's hash ---------------------------------------------------------------------------------------------

let private hashOf (folder: string) : string =
    let targets = Path.Combine(root, "build", "SourceHash.targets")

    let project =
        $"<Project><ItemGroup><Compile Include=\"A.fs;In/B.fs\" /></ItemGroup><Import Project=\"{targets}\" /></Project>"

    File.WriteAllText(Path.Combine(folder, "x.proj"), project)

    let info =
        ProcessStartInfo(
            "dotnet",
            [ "msbuild"; "x.proj"; "-t:HashSources"; "-getProperty:SourceHash" ],
            WorkingDirectory = folder,
            RedirectStandardOutput = true
        )

    info.Environment["MSBUILDDISABLENODEREUSE"] <- "1"
    use p = Process.Start info |> nonNull
    let said = p.StandardOutput.ReadToEnd().Trim()
    p.WaitForExit()
    Expect.isTrue (Regex.IsMatch(said, "^[0-9a-f]{64}$")) said
    said

let private sources =
    testCase "the hash of sources changes with one character and one path, not with the folder or line endings"
    <| inFolder (fun folder ->
        let make (name: string) (a: string) (b: string) =
            let at = Path.Combine(folder, name)
            Directory.CreateDirectory(Path.Combine(at, "In")) |> ignore
            File.WriteAllText(Path.Combine(at, "A.fs"), a)
            File.WriteAllText(Path.Combine(at, "In", "B.fs"), b)
            hashOf at

        let a, b = "let x = $\"{1}%d %20 ; @(A) $(B) ü 'c'\"\nlet y = 2\n", "module B\n"
        let own = make "one" a b
        Expect.equal (make "an other" (a.Replace("\n", "\r\n")) b) own "another folder, other line endings"
        Expect.notEqual (make "two" (a.Replace('1', '2')) b) own "a character"
        Expect.notEqual (make "three" b a) own "which file has what"
        Expect.isTrue (Regex.IsMatch(Identity.code, "^[0-9a-f]{20}$")) "this library's own")

// ---- two processes -----------------------------------------------------------------------------------------------

let private together =
    testList
        "processes"
        [ testCase "cmcl run and cmcl compare in one folder at one time share its cells"
          <| onLinux (fun folder ->
              let out, alone = Path.Combine(folder, "out"), Path.Combine(folder, "alone")

              let own out =
                  [ "--stream"
                    "synthetic"
                    "-m"
                    "vanilla,dns,gem"
                    "--seeds"
                    "0-2"
                    "--epochs"
                    "2"
                    "--jobs"
                    "1"
                    "--out"
                    out ]

              let code, said = finish (cmcl ([ "run" ] @ own alone))
              Expect.equal code 0 said
              let run = cmcl ([ "run" ] @ own out)
              until "it has begun" (fun () -> Directory.Exists(CellFile.folder out))
              let compare = cmcl ([ "compare" ] @ own out)
              let code, said = finish compare
              Expect.equal code 0 said
              let code, said = finish run
              Expect.equal code 0 said
              Expect.equal (results out) (results alone) "the same cells"
              Expect.hasLength (cellFiles out) 9 "each once"

              let table (folder: string) =
                  File.ReadAllLines(Path.Combine(folder, "results.csv"))
                  |> Array.filter (fun line -> not (line.Contains ",seconds_"))

              Expect.equal (table out) (table alone) "the same table")

          testCase "a script's study that is killed goes on to what one leaves that was never killed"
          <| onLinux (fun folder ->
              let out, whole = Path.Combine(folder, "out"), Path.Combine(folder, "whole")
              let script = Path.Combine(folder, "study.fsx")
              let load = Path.Combine(root, "scripts", "load.fsx")

              File.WriteAllLines(
                  script,
                  [ $"#load @\"{load}\""
                    "open Cmcl"
                    "Run.on (Stream.load \"synthetic\") |> Run.method Baseline.vanilla |> Run.method Dns.defaults |> Run.each (Learn.epochs 4)"
                    $"|> Run.seeds [ 0..3 ] |> Run.jobs 1 |> Run.into @\"{out}\" |> Run.quietly |> Run.go |> ignore" ]
              )

              let c = start "dotnet" [ "fsi"; script ]

              while (cellFiles out).Length < 2 && not c.Process.HasExited do
                  Threading.Thread.Sleep 20

              // The script runs in a process of dotnet fsi's own.
              List.iter kill (children c.Process.Id)
              let code, said = finish c
              Expect.isGreaterThanOrEqual (cellFiles out).Length 2 $"{code} {said}"

              let into (folder: string) =
                  Run.on (stream ())
                  |> Run.method Baseline.vanilla
                  |> Run.method Dns.defaults
                  |> Run.each (Learn.epochs 4)
                  |> Run.seeds [ 0..3 ]
                  |> Run.jobs 1
                  |> Run.into folder
                  |> Run.quietly
                  |> Run.go
                  |> ignore

              into out
              into whole
              Expect.equal (results out) (results whole) "the same cells"
              Expect.hasLength (cellFiles out) 8 "all")

          testCase "a resume that is stopped at once leaves the tables as they were"
          <| onLinux (fun folder ->
              let out = Path.Combine(folder, "out")

              let arguments =
                  [ "run"; "--stream"; "synthetic"; "-m"; "vanilla,gem"; "--seeds"; "0-5"; "--epochs"; "4"; "--jobs"; "1" ]
                  @ [ "--checkpoint-every"; "50"; "--out"; out ]

              let c = cmcl arguments
              until "three cells are finished" (fun () -> (cellFiles out).Length >= 3)
              signal "TERM" c
              let code, said = finish c
              Expect.equal code 75 said
              let before = File.ReadAllLines(Path.Combine(out, "results.csv"))
              Expect.isGreaterThan before.Length 100 "some"

              let c = cmcl [ "resume"; out ]
              signal "TERM" c
              finish c |> ignore
              let after = File.ReadAllLines(Path.Combine(out, "results.csv"))
              Expect.isGreaterThanOrEqual after.Length before.Length "nothing is lost"
              let code, said = finish (cmcl [ "resume"; out ])
              Expect.equal code 0 said) ]

let tests = testList "store" [ across; adopting; sources; together ]
