/// An import's worker that hangs, eats memory, breaks off or says what it likes: one sentence, and nothing left behind.
module Cmcl.Tests.ImportGuardTests

open System
open System.Diagnostics
open System.IO
open System.Threading
open Expecto
open FsCheck
open Cmcl
open Cmcl.Tests.Checks
open Cmcl.Tests.ImportFiles
open Cmcl.Tests.Processes

let private request (format: string) (folder: string) : ImportRequest =
    { Format = format
      Source = Path.Combine(folder, "in")
      Out = Path.Combine(folder, "out")
      Options = Importer.defaults
      Treatment = treatment
      Force = false }

/// Time enough for whatever ends by itself.
let private wide: ImportLimits = { Memory = 1L <<< 30; Time = TimeSpan.FromSeconds 60.0 }

let private short = { wide with ImportLimits.Time = TimeSpan.FromSeconds 1.0 }

let private inFolder (act: string -> unit) =
    ImportFiles.inFolder (fun folder ->
        Directory.CreateDirectory(Path.Combine(folder, "in")) |> ignore
        act folder)

let private left (folder: string) = Directory.GetFileSystemEntries folder |> Array.map Path.GetFileName |> Array.sort

/// What a worker tells that is a script of a shell, in a folder, within limits.
let private scripted (limits: ImportLimits) (cancel: CancellationToken) tell (folder: string) (script: string) =
    if OperatingSystem.IsWindows() then
        skiptest "a worker of this test is a script of bash"

    Guard.run (fun () -> ProcessStartInfo("bash", [ "-c"; script ])) limits cancel tell (request "npy" folder)

/// It ends with one sentence that has these words; nothing is left beside the source, and what the script called `pid` lives no more.
let private endsWith (limits: ImportLimits) (words: string list) (script: string) =
    inFolder (fun folder ->
        let script = script.Replace("FOLDER", folder)

        match scripted limits CancellationToken.None ignore folder script with
        | Ok notes -> failtest $"done: %A{notes}"
        | Error faults ->
            let sentence = (List.exactlyOne faults).Message

            for word in words do
                Expect.stringContains sentence word "what is told"

            Expect.isLessThanOrEqual sentence.Length 600 "one sentence of a length to be read"

            if File.Exists(Path.Combine(folder, "in", "pid")) then
                let pid = int (File.ReadAllText(Path.Combine(folder, "in", "pid")))
                until "its child is gone" (fun () -> not (alive pid))

            Expect.equal (left folder) [| "in" |] "nothing is left")

/// What a worker leaves that is ended in the midst of its work.
let private half = "mkdir -p FOLDER/.out.$$-abc/features; echo x > FOLDER/.out.$$-abc/features/x.npy;"

let private reading = """echo '["reading","in/x.npy"]';"""

let private scripts =
    [ "hangs", short, [ "'in/x.npy' cannot be read"; "after 1 s"; "docs/import.md" ], $"{reading} {half} exec sleep 300"
      "hangs, and its child with it", short, [ "after 1 s" ], "sleep 300 & echo $! > FOLDER/in/pid; wait"
      "hangs and says what nobody asked for", short, [ "after 1 s" ], "while :; do echo junk; done"
      "hangs without an output", short, [ "after 1 s" ], "exec >&-; exec sleep 300"
      "ends, and its child keeps its output", wide, [ "(exit code 3)" ], "sleep 20 & echo $! > FOLDER/in/pid.txt; exit 3"
      "ends on a segmentation fault",
      wide,
      [ "'in/x.npy' cannot be read: its reader broke off (exit code 139"; "write it anew with NumPy" ],
      $"{reading} {half} kill -SEGV $$"
      "says last words",
      wide,
      [ "(exit code 1)"; "said: terminate called" ],
      "echo 'terminate called' >&2; echo '   at a.b()' >&2; exit 1"
      "overflows its stack",
      wide,
      [ "nested so deeply"; "(exit code 134)" ],
      "echo 'Stack overflow.' >&2; for i in 1 2 3 4 5; do echo '   at a.b(Int32)' >&2; done; exit 134"
      "runs out of memory", wide, [ "more memory than the limit of 1 GiB"; "--memory 3G" ], "echo 'Out of memory.' >&2; exit 134"
      "says that .NET refused it memory", wide, [ "'a.h5' cannot be read"; "--memory" ], """echo '["memory","a.h5"]'; sleep 300"""
      "has long last words", wide, [ "(exit code 1)"; " … "; "NumPy" ], "printf 'x%.0s' {1..100000} >&2; exit 1"
      "refuses at length",
      wide,
      [ "'a.h5' is long"; " … "; "the way out" ],
      """read line; printf '["refused","'"'"'a.h5'"'"' is long'; printf ' x%.0s' {1..9999}; printf ' the way out"]\n'; sleep 300"""
      "is no worker", wide, [ "(exit code 0)" ], "true" ]

let private eating =
    testCase "a worker that eats memory is ended at the limit" (fun () ->
        if not (OperatingSystem.IsLinux()) then
            skiptest "memory is looked up in /proc"

        let grow = "x=xxxxxxxxxxxxxxxx; while [ ${#x} -lt 200000000 ]; do x=$x$x; sleep 0.02; done; sleep 300"

        endsWith
            { wide with ImportLimits.Memory = 64L <<< 20 }
            [ "'in/x.npy' cannot be read"; "the limit of 64 MiB"; "--memory 1G" ]
            $"{reading} {half} {grow}")

/// FsCheck's texts are null at times.
let private given (text: string | null) : string = Option.ofObj text |> Option.defaultValue ""

let private answers =
    [ testCase "what is no answer is not heard, and events are" (fun () ->
          inFolder (fun folder ->
              let events = ResizeArray()

              let script =
                  """echo junk; printf 'no line'; echo; echo '["rows","no","number","x"]'; echo '["reading","a b"]'; echo '["rows","1","2","a b"]'
                     echo '{}'; echo '[1]'; echo 'null'; echo '["refused"]'; echo '["done","a note"]'; sleep 300"""

              let result = scripted wide CancellationToken.None events.Add folder script
              Expect.equal result (Ok [ "a note" ]) "done"
              Expect.sequenceEqual events [ ImportEvent.Reading "a b"; ImportEvent.Rows("a b", 1L, 2L) ] "told"))

      testCase "a stop ends the worker, and nothing is left" (fun () ->
          inFolder (fun folder ->
              use cancel = new CancellationTokenSource()
              let stop _ = cancel.Cancel()
              let script = ($"{half} sleep 300 & echo $! > FOLDER/in/pid; {reading} wait").Replace("FOLDER", folder)
              let result = scripted wide cancel.Token stop folder script
              Expect.isError result "stopped"
              let pid = int (File.ReadAllText(Path.Combine(folder, "in", "pid")))
              until "its child is gone" (fun () -> not (alive pid))
              Expect.equal (left folder) [| "in" |] "nothing is left"))

      testCase "what another process writes stays" (fun () ->
          inFolder (fun folder ->
              let others = Directory.CreateDirectory(Path.Combine(folder, ".out.1-abc")).FullName
              scripted wide CancellationToken.None ignore folder "exit 1" |> ignore
              Expect.isTrue (Directory.Exists others) "it is there"))

      testCase "what a listener raises ends the worker, and nothing is left" (fun () ->
          inFolder (fun folder ->
              use guard =
                  new ImportGuard(
                      (fun () -> ProcessStartInfo("bash", [ "-c"; ($"{half} {reading} sleep 300").Replace("FOLDER", folder) ])),
                      wide
                  )

              let run () = guard.Run(CancellationToken.None, (fun _ -> failwith "mine"), request "npy" folder)
              Expect.throwsT<Exception> (run >> ignore) "as it was raised"
              Expect.equal (left folder) [| "in" |] "nothing is left"))

      testCase "no worker is no import" (fun () ->
          inFolder (fun folder ->
              let start () = ProcessStartInfo(Path.Combine(folder, "nothing"))

              match Guard.run start wide CancellationToken.None ignore (request "npy" folder) with
              | Error [ fault ] -> Expect.stringContains fault.Message "no process for it can be started" "told"
              | other -> failtest $"%A{other}"))

      testProperty "an answer is what its line says, and of a length to be read" (fun (texts: (string | null) list) (n: int64) ->
          let texts = List.map given texts
          let file = String.Join("", texts)

          let all =
              [ ImportAnswer.Event(ImportEvent.Reading file)
                ImportAnswer.Event(ImportEvent.Rows(file, n, n + 1L))
                ImportAnswer.Done(List.map Names.visible texts)
                ImportAnswer.Refused("x" :: List.map Names.visible texts)
                ImportAnswer.NoMemory file ]

          for answer in all do
              let line = ImportWorker.ofAnswer answer
              Expect.isFalse (line.Contains '\n') "a line"

              if Names.isClean file then
                  Expect.equal (ImportWorker.answer line) (Some answer) "the same")

      testProperty "a sentence is cut in its middle" (fun (text: string | null) (PositiveInt n) ->
          let text = String.replicate (1 + n % 50) (given text)
          let cut = ImportWorker.cut 600 text
          Expect.isLessThanOrEqual cut.Length 600 "short"

          if (Names.visible text).Length <= 600 then
              Expect.equal cut (Names.visible text) "whole"
          elif Names.isClean text && Seq.forall (Char.IsSurrogate >> not) text then
              Expect.isTrue (text.StartsWith(cut.Split(" … ")[0])) "its beginning"
              Expect.isTrue (cut.EndsWith(text.Substring(text.Length - 150))) "its end")

      testProperty "a request is read as it was written" (fun (name: string | null) (seed: int) (steps: int list option) force ->
          let name = given name

          let request: ImportRequest =
              { request "npy" name with
                  Options =
                      { Importer.defaults with
                          Seed = seed
                          Steps = steps
                          Name = Some name }
                  Force = force }

          // Halves of characters, which no file's name has, do not get through.
          if Names.isClean name then
              let line = ImportWorker.ofRequest request
              Expect.isFalse (line.Contains '\n') "a line"
              Expect.equal (Text.Json.JsonSerializer.Deserialize<ImportRequest> line) request "the same")

      testCase "a minute, and a second for each MB" (fun () ->
          inFolder (fun folder ->
              use file = File.Create(Path.Combine(folder, "in", "x"))
              file.SetLength 7_000_000L
              file.Flush()
              let linked = Path.Combine(folder, "linked")
              Directory.CreateDirectory linked |> ignore
              File.CreateSymbolicLink(Path.Combine(linked, "x"), Path.Combine(folder, "in", "x")) |> ignore
              Expect.equal (ImportLimits.defaults (Path.Combine(folder, "in"))).Time.TotalSeconds 67.0 "a folder"
              Expect.equal (ImportLimits.defaults (Path.Combine(folder, "in", "x"))).Time.TotalSeconds 67.0 "a file"
              Expect.equal (ImportLimits.defaults linked).Time.TotalSeconds 67.0 "a link"
              Expect.equal (ImportLimits.defaults (Path.Combine(folder, "none"))).Time.TotalSeconds 60.0 "nothing")) ]

// ---- the worker itself -------------------------------------------------------------------------------------------

/// Files that take some seconds to be read.
let private writeLong (source: string) =
    let write (part: string) rows =
        for m in [ "text"; "audio" ] do
            use file = new StreamWriter(Path.Combine(source, $"1.{m}.{part}.csv"))
            file.Write("id," + String.Join(",", [ for j in 0..99 -> $"f{j}" ]) + "\n")
            let numbers = String.Join(",", [ for j in 1..100 -> $"0.{j}234567" ])

            for i in 1..rows do
                file.Write $"{i},{numbers}\n"

    write "train" 60_000
    write "test" 5

let private writing (folder: string) () =
    Directory.GetDirectories(folder, ".out.*") |> Array.exists (fun f -> Directory.Exists(Path.Combine(f, "features")))

let private send (name: string) (pid: int) =
    use p = Process.Start("kill", [ "-" + name; string pid ])
    p.WaitForExit()

/// The command in the midst of an import, given with the folder and its worker.
let private midway (act: string -> Command -> int -> unit) =
    onLinux
        (fun folder ->
            let source = Directory.CreateDirectory(Path.Combine(folder, "in")).FullName
            writeLong source
            let c = cmcl [ "import"; "csv"; source; "--out"; Path.Combine(folder, "out") ]
            until "rows are written" (fun () -> c.Process.HasExited || writing folder ())
            Expect.isFalse c.Process.HasExited "in the midst of it"
            let worker = children c.Process.Id |> List.exactlyOne
            // It is not done before it is looked at.
            send "STOP" worker
            act folder c worker
            Expect.equal (left folder) [| "in" |] "nothing is left")
        ()

let private worker =
    [ testCase "an import by a worker is the import" (fun () ->
          inFolder (fun folder ->
              let events = ResizeArray()
              let again = ResizeArray()
              use guard = new ImportGuard(importWorker, wide)

              for format, write in writers do
                  let source = Directory.CreateDirectory(Path.Combine(folder, format, "in")).FullName
                  write source
                  let request = request format (Path.Combine(folder, format))
                  let here = Path.Combine(folder, format, "here", string (Path.GetFileName request.Out))
                  let importer = Importer.find format |> Check.get

                  let expected = Importer.run importer request.Options treatment false again.Add source here |> Check.get

                  let notes = guard.Run(CancellationToken.None, events.Add, request) |> Check.get
                  Expect.equal notes expected "notes"
                  expectStep request.Out

                  for file in Directory.GetFiles(here, "*", SearchOption.AllDirectories) do
                      let other = Path.Combine(request.Out, Path.GetRelativePath(here, file))
                      Expect.isTrue (File.ReadAllBytes(file).AsSpan().SequenceEqual(File.ReadAllBytes other)) file

                  Expect.equal
                      (guard.Run(CancellationToken.None, ignore, request))
                      (Error [ Fault.Told(occupied request.Out) ])
                      "its faults"

              Expect.sequenceEqual events again "the same is told"

              let last =
                  events
                  |> Seq.choose (function
                      | ImportEvent.Rows(file, sofar, all) -> Some(file, (sofar, all))
                      | _ -> None)

              for KeyValue(file, (sofar, all)) in Map.ofSeq last do
                  Expect.equal sofar all $"all rows of {file}"))

      testCase "a worker that was ended is replaced" (fun () ->
          inFolder (fun folder ->
              writeNpy (Path.Combine(folder, "in"))
              let mutable starts = 0

              let start () =
                  starts <- starts + 1
                  if starts = 1 then ProcessStartInfo("bash", [ "-c"; "exit 7" ]) else importWorker ()

              use guard = new ImportGuard(start, wide)
              let run () = guard.Run(CancellationToken.None, ignore, request "npy" folder)
              Expect.isError (run ()) "broke off"
              Expect.isOk (run ()) "imported"
              Expect.isError (run ()) "occupied, says the same worker"
              Expect.equal starts 2 "workers"))

      testCase "memory that .NET refuses is told as the limit, and the next import is run" (fun () ->
          inFolder (fun folder ->
              let source = Path.Combine(folder, "in")
              writeNpy source
              let names = Path.Combine(source, "01-esc.classes.txt")
              use guard = new ImportGuard(importWorker, { wide with ImportLimits.Memory = 256L <<< 20 })

              do
                  use file = File.Create names
                  file.SetLength(120L <<< 20)

              match guard.Run(CancellationToken.None, ignore, request "npy" folder) with
              | Error [ fault ] ->
                  Expect.stringContains fault.Message "01-esc." "the file"
                  Expect.stringContains fault.Message "the limit of 256 MiB; allow more with --memory 1G" "the way out"
              | other -> failtest $"%A{other}"

              File.WriteAllText(names, "cat\ndog\nbird\n")
              Expect.isOk (guard.Run(CancellationToken.None, ignore, request "npy" folder)) "the next"))

      testCase "Ctrl-C ends the command and its worker" (fun () ->
          needsInterrupts ()

          midway (fun _ c worker ->
              signal "INT" c
              let code, said = finish c
              Expect.equal code 130 said
              Expect.stringContains said "stopped" "told"
              Expect.isFalse (alive worker) "its worker is gone"))

      testCase "a worker ends with the command" (fun () ->
          midway (fun folder c worker ->
              signal "KILL" c
              finish c |> ignore
              send "CONT" worker
              until "its worker is gone" (fun () -> not (alive worker))
              until "nothing is left" (fun () -> not (writing folder ()))))

      testCase "a worker that is killed is one sentence, and exit code 2" (fun () ->
          midway (fun _ c worker ->
              kill worker
              let code, said = finish c
              Expect.equal code 2 said
              Expect.stringContains said ".csv' cannot be read: its reader broke off (exit code 137" "told"))

      testCase "less memory than a reader can live with is refused" (fun () ->
          let code, said = cmcl [ "import"; "npy"; "nothing"; "--out"; "none"; "--memory"; "1M" ] |> finish
          Expect.equal code 2 said
          Expect.stringContains said "--memory takes at least 256M" "told")

      testCase "a link of an HDF5 file that names itself is one sentence" (fun () ->
          onLinux
              (fun folder ->
                  let source = Directory.CreateDirectory(Path.Combine(folder, "in")).FullName

                  python
                      "h5py"
                      """
import h5py, sys
for part in ["train", "test", "class"]:
    with h5py.File(f"{sys.argv[1]}/ESC50_{part}_imagebind.h5", "w") as f:
        f["tensor(0)__a__0"] = h5py.SoftLink("/tensor(0)__a__0")
        f["group/b"] = h5py.SoftLink("/group")
"""
                      [ source ]

                  let out = Path.Combine(folder, "out")

                  let code, said =
                      cmcl [ "import"; "cmcl-h5"; source; "--backbone"; "imagebind"; "--steps"; "2"; "--out"; out ] |> finish

                  Expect.equal code 2 said

                  for line in said.Split '\n' do
                      Expect.stringContains line "_imagebind.h5' cannot be read: " "a sentence a file"
                      Expect.isLessThanOrEqual line.Length 610 "short"

                  Expect.equal (left folder) [| "in" |] "nothing is left")
              ()) ]

let tests =
    testList
        "import guard"
        [ testList
              "workers"
              [ for name, limits, words, script in scripts ->
                    testCase $"a worker that {name}" (fun () -> endsWith limits words script) ]
          eating
          testList "answers" answers
          testList "the worker" worker ]
