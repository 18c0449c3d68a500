module Cmcl.Tests.SweepFolderTests

open System
open System.Diagnostics
open System.IO
open System.Threading
open System.Threading.Tasks
open Cmcl
open Expecto
open Parquet
open Cmcl.Tests.Checks
open Cmcl.Tests.Processes
open TorchSharp

// ---- locks -------------------------------------------------------------------------------------------------------

let private hash = "0123456789abcdef0123"
let private beside folder kind = Path.Combine(folder, "cells", $"{hash}.{kind}")

let private locks =
    testList
        "locks"
        [ testCase "one holder at a time, and who it is"
          <| inFolder (fun folder ->
              let inside () =
                  Expect.isTrue (CellLock.isTaken folder hash) "taken"
                  Expect.equal (CellLock.holding folder hash (fun () -> Ok 2)) (Ok None) "nobody else"
                  let holder = (CellLock.last folder hash).Value
                  Expect.equal (holder.Pid, holder.Host) (Environment.ProcessId, Environment.MachineName) "who"
                  Expect.isLessThan (DateTimeOffset.Now - holder.Since) (TimeSpan.FromMinutes 5.0) "since when"
                  Ok 1

              Expect.isFalse (CellLock.isTaken folder hash) "free"
              Expect.equal (CellLock.holding folder hash inside) (Ok(Some(Ok 1))) "the first"
              Expect.isFalse (CellLock.isTaken folder hash) "free again"
              Expect.isEmpty (Directory.GetFileSystemEntries(Path.Combine(folder, "cells"))) "nothing is left")

          testCase "what went wrong stays to be read, half files do not"
          <| inFolder (fun folder ->
              Directory.CreateDirectory(Path.Combine(folder, "cells")) |> ignore
              File.WriteAllText(Path.Combine(folder, "cells", $".{hash}.json.abc"), "half")
              let why: Result<int, Fault list> = Error [ Fault.Missing("x", "y") ]
              Expect.equal (CellLock.holding folder hash (fun () -> why)) (Ok(Some why)) "told"
              Expect.equal (CellLock.last folder hash).Value.Reason "'x' does not exist; y needs it." "kept"
              let raising () : Result<int, Fault list> = failwith "worse"

              match CellLock.holding folder hash raising with
              | Ok(Some(Error [ Fault.Broke(_, reason) ])) -> Expect.stringStarts reason "worse" "an exception"
              | other -> failtest $"{other}"

              Expect.isFalse (CellLock.isTaken folder hash) "free"
              Expect.isEmpty (Directory.GetFiles(Path.Combine(folder, "cells"), ".*")) "half files go"
              CellLock.holding folder hash (fun () -> Ok()) |> ignore
              Expect.isNone (CellLock.last folder hash) "finished")

          testCase "this file system keeps locks" <| inFolder (fun folder -> Expect.isTrue (CellLock.keeps folder) "it does")

          testCase "of many at once one is inside at any time, and who only looks stops nobody"
          <| inFolder (fun folder ->
              let gate = obj ()
              let counts = Collections.Generic.Dictionary(dict [ "inside", 0; "most", 0; "entered", 0 ])
              use over = new CancellationTokenSource()

              let look =
                  Task.Run(fun () ->
                      while not over.IsCancellationRequested do
                          CellLock.isTaken folder hash |> ignore)

              let work () : Result<unit, Fault list> =
                  lock gate (fun () ->
                      counts["inside"] <- counts["inside"] + 1
                      counts["most"] <- max counts["most"] counts["inside"]
                      counts["entered"] <- counts["entered"] + 1)

                  Thread.Sleep 1
                  lock gate (fun () -> counts["inside"] <- counts["inside"] - 1)
                  Error []

              Parallel.For(0, 200, (fun _ -> CellLock.holding folder hash work |> ignore)) |> ignore
              over.Cancel()
              look.Wait()
              Expect.equal counts["most"] 1 "one"
              Expect.isGreaterThan counts["entered"] 0 "some") ]

// ---- folders -----------------------------------------------------------------------------------------------------

let private block = SweepFile.block [ "synthetic" ] [ "vanilla"; "zero-shot" ] |> SweepFile.set [ "epochs", "1" ]
let private file = SweepFile.ofBlocks [ block |> SweepFile.seeds [ 0; 1 ] ]
let private cellsIn folder (file: SweepFile) = SweepFile.cells (fun _ -> 1) folder file |> Check.get

let private measured step task metric value : Measurement = { Step = step; Task = task; Metric = metric; Value = value }

let private put (c: SweepCell) result =
    let outcome rows : Outcome = { Measurements = rows; Losses = []; Spectra = [] }

    let record =
        { Result = result |> Result.map (fun rows -> { Outcome = outcome rows; Monitor = [] })
          Seconds = 1.0
          Memory = 1000_000_000L }

    CellFile.write
        c.Job.Out
        { Identity = c.Identity
          Cell = c.Cell
          Machine = "{}"
          Record = record }
    |> Check.get

/// A Parquet file as texts, column by column.
let private parquet (path: string) : (string * string list) list =
    let read () =
        task {
            use stream = File.OpenRead path
            use! reader = ParquetReader.CreateAsync stream
            use group = reader.OpenRowGroupReader 0
            let result = ResizeArray()
            let count = int group.RowCount

            for field in reader.Schema.GetDataFields() do
                let real (x: float) = x.ToString("R", Globalization.CultureInfo.InvariantCulture)

                if field.ClrType = typeof<int> then
                    let values: int[] = Array.zeroCreate count
                    do! group.ReadAsync<int>(field, System.Memory<_>(values))
                    result.Add(field.Name, [ for v in values -> string v ])
                elif field.ClrType = typeof<float> && field.IsNullable then
                    let values: Nullable<float>[] = Array.zeroCreate count
                    do! group.ReadAsync<float>(field, System.Memory<_>(values))
                    result.Add(field.Name, [ for v in values -> if v.HasValue then real v.Value else "" ])
                elif field.ClrType = typeof<float> then
                    let values: float[] = Array.zeroCreate count
                    do! group.ReadAsync<float>(field, System.Memory<_>(values))
                    result.Add(field.Name, [ for v in values -> real v ])
                else
                    let values: (string | null)[] = Array.zeroCreate count
                    do! group.ReadAsync(field, System.Memory<_>(values))
                    result.Add(field.Name, [ for v in values -> v |> Option.ofObj |> Option.defaultValue "" ])

            return List.ofSeq result
        }

    read().GetAwaiter().GetResult()

let private folders =
    testList
        "folders"
        [ testCase "a folder knows its sweep and its cells, wherever it is moved"
          <| inFolder (fun folder ->
              let before, after = Path.Combine(folder, "a"), Path.Combine(folder, "b")
              let cells = cellsIn before file
              Expect.isError (SweepFolder.cells before) "no folder yet"
              SweepFolder.adopt before file cells |> Check.get
              Expect.isTrue (SweepFolder.is before) "a folder of a sweep"
              Expect.equal (SweepFile.read (SweepFolder.sweepFile before) |> Check.get) file "the sweep"
              Expect.equal (SweepFolder.cells before |> Check.get) cells "the cells"
              Directory.Move(before, after)

              for c in SweepFolder.cells after |> Check.get do
                  Expect.equal c.Job.Out after "where it is now")

          testCase "a larger sweep extends a folder, another one is refused with the difference"
          <| inFolder (fun folder ->
              SweepFolder.adopt folder file (cellsIn folder file) |> Check.get
              let larger = SweepFile.ofBlocks [ block |> SweepFile.seeds [ 0..3 ] ]
              SweepFolder.adopt folder larger (cellsIn folder larger) |> Check.get
              Expect.hasLength (SweepFolder.cells folder |> Check.get) 8 "extended"
              let text = SweepFolder.adopt folder file (cellsIn folder file) |> faultsOf |> List.head
              Expect.stringContains text.Message "4 of its 8 cells are not in this one" "how many"
              Expect.stringContains text.Message "seed 2" "which"

              let other =
                  SweepFile.ofBlocks
                      [ SweepFile.block [ "synthetic" ] [ "vanilla"; "zero-shot" ]
                        |> SweepFile.set [ "epochs", "2" ]
                        |> SweepFile.seeds [ 0..3 ] ]

              let text = SweepFolder.adopt folder other (cellsIn folder other) |> faultsOf |> List.head
              Expect.stringContains text.Message "settings.epochs 1 there, 2 now" "in what"
              Expect.hasLength (SweepFolder.cells folder |> Check.get) 8 "nothing changed")

          testCase "finished, failed, broken off, running, missing"
          <| inFolder (fun folder ->
              let larger = SweepFile.ofBlocks [ block |> SweepFile.seeds [ 0..2 ] ]
              let cells = cellsIn folder larger |> Array.ofList
              put cells[0] (Ok [])
              put cells[1] (Error "it diverged")

              CellLock.holding folder cells[2].Job.Hash (fun () ->
                  Error [ Fault.Broke("it", "no memory") ]: Result<unit, Fault list>)
              |> ignore

              let look () =
                  let states = SweepFolder.states (List.ofArray cells)
                  Ok [ for c, s in states -> CellState.reason s |> Option.defaultValue "finished" ]

              match CellLock.holding folder cells[3].Job.Hash look with
              | Ok(Some(Ok [ a; b; c; d; e; f ])) ->
                  Expect.equal (a, b, e, f) ("finished", "it diverged", "not run", "not run") "as they are"
                  Expect.stringContains c "no memory" "why"
                  Expect.stringContains d $"running: process {Environment.ProcessId} on {Environment.MachineName}" "who"
              | other -> failtest $"{other}"

              let states = SweepFolder.states (List.ofArray cells)
              Expect.equal (SweepFolder.memory states cells[5]) 1_100_000_000L "what was measured, and a tenth"
              Expect.equal (SweepFolder.memory [] cells[5]) cells[5].Memory "what the size tells")

          testCase "the tables: the same in CSV and Parquet, every option a column, failures with their reason"
          <| inFolder (fun folder ->
              let cells = cellsIn folder file

              for i, c in List.indexed cells do
                  if i = 0 then
                      put c (Error "it \"diverged\", twice")
                  elif i < 3 then
                      put c (Ok [ measured 0 1 "r10" 0.1; measured 0 1 "seconds" nan; measured 1 1 "r10" (0.1 + 0.2) ])

              SweepTables.write folder (SweepFolder.states cells) |> Check.get
              let lines = File.ReadAllLines(Path.Combine(folder, "results.csv")) |> Array.map _.Split(',')
              let columns = parquet (Path.Combine(folder, "results.parquet"))
              Expect.equal (List.map fst columns) (List.ofArray lines[0]) "names"

              Expect.equal
                  (List.truncate 7 (List.map fst columns))
                  [ "stream"; "method"; "seed"; "step"; "task"; "metric"; "value" ]
                  "first"

              Expect.contains (List.map fst columns) "option.lr" "options"

              for i, (name, values) in List.indexed columns do
                  Expect.equal values [ for line in lines[1..] -> line[i] ] name

              let values = columns |> List.find (fst >> (=) "value") |> snd
              Expect.contains values "0.30000000000000004" "to the bit"
              let failures = File.ReadAllText(Path.Combine(folder, "failures.csv"))
              Expect.stringContains failures "failed,\"it \"\"diverged\"\", twice\"" "failed"
              Expect.stringContains failures "missing,not run" "missing"
              Expect.equal (failures.Split('\n').Length) 4 "two, a header and the end") ]

// ---- processes ---------------------------------------------------------------------------------------------------

/// Six cells, long enough to be interrupted.
let private longer =
    SweepFile.ofBlocks
        [ SweepFile.block [ "synthetic" ] [ "vanilla"; "dns"; "joint" ]
          |> SweepFile.set [ "epochs", "10" ]
          |> SweepFile.seeds [ 0; 1 ] ]

let private written (folder: string) : string =
    let path = Path.Combine(folder, "s.json")
    SweepFile.write path longer |> Check.get
    path

/// The same without any interruption, by one process.
let private uninterrupted: Lazy<Map<string, string list>> =
    lazy
        (let folder = Directory.CreateTempSubdirectory "cmcl-whole"

         try
             let out = Path.Combine(folder.FullName, "out")
             let code, said = finish (cmcl [ "sweep"; "run"; written folder.FullName; "--out"; out ])
             Expect.equal code 0 said
             results out
         finally
             folder.Delete true)

let private whole what out = Expect.equal (results out) uninterrupted.Value what

let private processes =
    testList
        "processes"
        [ testCase "two at once on one folder: every cell once, and both end well"
          <| onLinux (fun folder ->
              let out, path = Path.Combine(folder, "out"), written folder
              let run () = cmcl [ "sweep"; "run"; path; "--out"; out; "--jobs"; "1"; "--threads"; "1" ]
              let first, second = run (), run ()
              let ends = [ finish first; finish second ]

              for code, said in ends do
                  Expect.equal code 0 said
                  Expect.stringContains said "6 of 6 cells finished" "both see all"

              whole "two at once" out
              Expect.hasLength (Directory.GetFiles(CellFile.folder out)) 6 "no lock is left"
              let written = [ for p in cellFiles out -> p, File.GetLastWriteTimeUtc p ]
              let code, said = finish (cmcl [ "sweep"; "run"; out; "--quiet" ])
              Expect.equal (code, said) (0, "") "nothing to do"

              for p, time in written do
                  Expect.equal (File.GetLastWriteTimeUtc p) time "finished cells are not run again")

          testCase "a worker killed in the midst: the cell is free at once, and another process that waits for it runs it"
          <| onLinux (fun folder ->
              let out, path = Path.Combine(folder, "out"), written folder
              let run () = cmcl [ "sweep"; "run"; path; "--out"; out; "--jobs"; "1"; "--threads"; "1" ]
              let first, second = run (), run ()
              let worker (c: Command) = List.tryHead (children c.Process.Id)

              /// Pids of those who hold a cell.
              let holders () =
                  if Directory.Exists(CellFile.folder out) then
                      [ for path in Directory.GetFiles(CellFile.folder out, "*.worker") do
                            match CellLock.last out (string (Path.GetFileNameWithoutExtension path)) with
                            | Some holder -> holder.Pid
                            | None -> () ]
                  else
                      []

              until "both are in the midst of a cell, or the first was too quick" (fun () ->
                  let both = [ first; second ] |> List.choose worker
                  first.Process.HasExited || both.Length = 2 && List.forall (fun w -> List.contains w (holders ())) both)

              worker first |> Option.iter kill
              let code, said = finish first
              Expect.isTrue (code = 0 || said.Contains "exit code 137") $"the first ends well, or tells of its worker: {said}"
              let code, said = finish second
              Expect.equal code 0 said
              whole "a worker killed" out)

          testCase "killed with all its workers, it goes on; status and collect say what is missing"
          <| onLinux (fun folder ->
              let out = Path.Combine(folder, "out")
              let first = cmcl [ "sweep"; "run"; written folder; "--out"; out; "--jobs"; "2"; "--threads"; "1" ]
              until "two cells are finished" (fun () -> (cellFiles out).Length >= 2)
              let workers = children first.Process.Id
              first.Process.Kill()
              finish first |> ignore
              until "its workers have ended" (fun () -> not (List.exists alive workers))
              let done' = (cellFiles out).Length
              let code, said = finish (cmcl [ "sweep"; "status"; out ])
              Expect.equal code 0 said
              Expect.stringContains said $"6 cells: {done'} finished, 0 running" "counted"
              let code, said = finish (cmcl [ "sweep"; "collect"; out ])
              Expect.equal code (if done' = 6 then 0 else 1) said
              let code, said = finish (cmcl [ "sweep"; "run"; out; "--memory"; "1G" ])
              Expect.equal code 0 said
              whole "killed" out
              let code, said = finish (cmcl [ "sweep"; "collect"; out ])
              Expect.equal code 0 said)

          testCase "one cell by its hash, for schedulers; a worker that asks for it is run again"
          <| onLinux (fun folder ->
              let cells = cellsIn folder file
              SweepFolder.adopt folder file cells |> Check.get
              let one = cells.Head.Job.Hash
              Expect.equal (finish (cmcl [ "cell"; folder; one ])) (0, "") "run"
              Expect.equal (cellFiles folder).Length 1 "its file"
              Expect.equal (fst (finish (cmcl [ "cell"; folder; "nope" ]))) 2 "no such cell"
              Expect.equal (fst (finish (cmcl [ "sweep"; "submit"; folder; "--engine"; "parallel" ]))) 0 "a job list"
              let jobs = File.ReadAllLines(Path.Combine(folder, "jobs.txt"))
              Expect.hasLength jobs 3 "what is not finished"
              Expect.all jobs (fun j -> j.Contains $"'cell' '{folder}'") "one a line"

              // A worker that asks twice, then ends the cell.
              let count = Path.Combine(folder, "count")

              let script =
                  $"read line; echo x >> '{count}'; [ $(wc -l < '{count}') -ge 3 ] || exit {Pool.Again}; echo '[\"finished\",\"1\",\"False\"]'; read line"

              let events = ResizeArray()

              Pool.run
                  (fun () -> ProcessStartInfo("sh", [ "-c"; script ]))
                  1
                  CancellationToken.None
                  (fun place event -> events.Add(place, event))
                  [ cells.Head.Job ]

              Expect.equal (List.ofSeq events) [ 0, CellEvent.Started; 0, CellEvent.Ended(CellEnd.Finished(1.0, false)) ] "done"

              Expect.hasLength (File.ReadAllLines count) 3 "three times"
              let always () = ProcessStartInfo("sh", [ "-c"; $"read line; exit {Pool.Again}" ])
              events.Clear()
              Pool.run always 1 CancellationToken.None (fun place event -> events.Add(place, event)) [ cells.Head.Job ]

              match Seq.last events with
              | 0, CellEvent.Ended(CellEnd.Broken [ Fault.Told message ]) ->
                  Expect.stringContains message "20 times" "not for ever"
              | other -> failtest $"{other}") ]

let tests = testSequenced (testList "SweepFolder" [ locks; folders; processes ])
