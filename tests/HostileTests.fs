/// What a stranger may give the command and have around it: every time a sentence.
module Cmcl.Tests.HostileTests

open System
open System.Diagnostics
open System.IO
open System.IO.Compression
open System.Net.Sockets
open System.Text
open System.Text.Json
open Expecto
open FsCheck
open FsCheck.FSharp
open Cmcl
open Cmcl.Cli
open Cmcl.Tests.CliTests

let private posix (body: string -> unit) () =
    if OperatingSystem.IsWindows() then
        skiptest "pipes and devices as files are POSIX's"

    inFolder body

/// A program to its end: exit code, output, error. `environment` is set, or with null taken away.
let private ran
    (environment: (string * (string | null)) list)
    (program: string)
    (arguments: string list)
    : int * string * string =
    let info =
        ProcessStartInfo(
            program,
            arguments,
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true
        )

    for name, value in environment do
        match value with
        | null -> info.Environment.Remove name |> ignore
        | value -> info.Environment[name] <- value

    use p = Process.Start info |> Option.ofObj |> Option.get
    let error = p.StandardError.ReadToEndAsync()
    let said = p.StandardOutput.ReadToEnd()
    p.WaitForExit()
    p.ExitCode, said, error.Result

let private dll = Path.Combine(AppContext.BaseDirectory, "Cmcl.Cli.dll")

/// A line of the shell in which `$CMCL` is the command.
let private shell environment (line: string) = ran (("CMCL", $"dotnet {dll}") :: environment) "sh" [ "-c"; line ]

// ---- things in a file's place ------------------------------------------------------------------------------------

/// Whatever stands where a file is asked for: its path.
let private things (folder: string) : string list =
    let path name = Path.Combine(folder, name)

    let text (name: string) (content: string) =
        File.WriteAllText(path name, content)
        path name

    let link (name: string) (target: string) =
        File.CreateSymbolicLink(path name, target) |> ignore
        path name

    ran [] "mkfifo" [ path "fifo" ] |> ignore
    use socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified)
    socket.Bind(UnixDomainSocketEndPoint(path "sock"))
    File.WriteAllBytes(path "bytes", [| for i in 0..4000 -> byte (i * 7) |])

    [ path "fifo"
      path "sock"
      path "bytes"
      "/dev/zero"
      "/dev/null"
      Directory.CreateDirectory(path "folder").FullName
      link "loop" "loop"
      link "dangling" "nowhere"
      link "to-fifo" "fifo"
      link "to-zero" "/dev/zero"
      path "not there"
      path "not/there"
      path (String('x', 300))
      text "empty" ""
      text "words" "words\n"
      text "object" "{}"
      text "list" "[]"
      text "null" "null"
      text "number" "3"
      text "deep" (String('[', 100000) + String(']', 100000))
      text "twice" """{"format":1,"format":2,"nbformat":4,"nbformat":4,"cells":[],"cells":[]}"""
      text "half" """{"format":"cmcl-stream/1","name":"\ud800","banks":{},"rows":{},"steps":[],"nbformat":4,"cells":[]}"""
      text
          "nul"
          """{"format":"cmcl-stream/1","name":"a\u0000b","banks":{"\u001b":{"modality":"m","file":"\u0000"}},"rows":{},"steps":[]}""" ]

/// Commands that take a path, each with what it would write into a folder.
let private commands (out: string) (path: string) : string list list =
    let file name = Path.Combine(out, name)

    [ [ "info"; path ]
      [ "run"; "--stream"; path; "--out"; file "run" ]
      [ "resume"; path ]
      [ "verify"; "--stream"; path; "--out"; file "verify" ]
      [ "sweep"; "plan"; path ]
      [ "sweep"; "status"; path ]
      [ "sweep"; "collect"; path ]
      [ "cell"; path; "00" ]
      [ "notebook"; "strip"; path; "--out"; file "strip.ipynb" ]
      [ "apply"; path; path; "--modality"; "text"; "-o"; file "apply.npy" ]
      [ "retrieve"; path; path; "-k"; "1" ]
      [ "moments"; "accumulate"; path; "-o"; file "sum.safetensors" ]
      [ "moments"; "merge"; path; "-o"; file "merged.safetensors" ]
      [ "extract"; path; path; "-o"; file "bank.npy" ]
      [ "export"; path; "-m"; "dns"; "-o"; file "heads.safetensors" ]
      [ "import"; "npy"; path; "--out"; file "imported" ]
      [ "import"; "cmcl-h5"; path; "--backbone"; "imagebind"; "--out"; file "imported" ] ]

let private notReplaced =
    posix (fun folder ->
        let fifo = Path.Combine(folder, "fifo")
        ran [] "mkfifo" [ fifo ] |> ignore
        File.CreateSymbolicLink(Path.Combine(folder, "link"), fifo) |> ignore
        let empty = Path.Combine(folder, "empty")
        File.WriteAllText(empty, "")

        do
            use scope = TorchSharp.torch.NewDisposeScope()
            ImportFiles.save folder "x.npy" (ImportFiles.matrix (ImportFiles.numbers "x" 4 3))

        let sum out = cmcl [ "moments"; "accumulate"; Path.Combine(folder, "x.npy"); "-o"; out; "--force"; "-q" ]

        for path in [ fifo; Path.Combine(folder, "link") ] do
            sum path |> expectRefused [ path; "it is no file, but a pipe" ]
            Expect.isFalse (InputFile.isRegular path) "still a pipe"

        Expect.equal (sum empty).Code 0 "a file with nothing in it"
        Expect.isGreaterThan (FileInfo(empty).Length) 0L "replaced")

let private inPlaceOfFiles =
    posix (fun folder ->
        let out = Path.Combine(folder, "out")

        for path in things folder do
            for arguments in commands out path do
                let line = String.Join(" ", arguments)
                // Nobody waits for a pipe that nobody writes to.
                let work = Threading.Tasks.Task.Run(fun () -> cmcl arguments)

                if not (work.Wait(TimeSpan.FromMinutes 2.0)) then
                    failtest $"hangs: {line}"

                let told = work.Result
                Expect.equal told.Code 2 $"exit code of {line}: {told.Error}"
                expectRefused [] told

                for sentence in told.Error.TrimEnd().Split '\n' do
                    Expect.isFalse (Seq.exists Char.IsControl sentence) $"a line of plain text from {line}"

        Expect.isFalse (Directory.Exists out) "nothing is written")

// ---- sizes -------------------------------------------------------------------------------------------------------

let private manyNames =
    posix (fun folder ->
        let path = Path.Combine(folder, "many.safetensors")
        let entry i = $"\"t{i}\":{{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}"
        let header = Encoding.ASCII.GetBytes("{" + String.Join(",", Seq.init 100_001 entry) + "}")
        File.WriteAllBytes(path, Array.append (BitConverter.GetBytes header.LongLength) header)

        cmcl [ "apply"; path; path; "--modality"; "text"; "-o"; Path.Combine(folder, "o.npy") ]
        |> expectRefused [ "has 100001 names; 100000 are the most" ])

/// Arrays without a block on the disk that are said to hold more than it.
let private tooLarge =
    posix (fun folder ->
        let source = Directory.CreateDirectory(Path.Combine(folder, "in")).FullName
        let rows = DriveInfo(folder).AvailableFreeSpace / 2048L + 1000L

        for m in [ "text"; "audio" ] do
            Checks.zeros (Path.Combine(source, $"{m}.npy")) rows 1024L

        cmcl [ "import"; "npy"; source; "--out"; Path.Combine(folder, "out") ]
        |> expectRefused [ "the features take"; "are free where the stream is to be"; "--out" ])

// ---- the top of the command --------------------------------------------------------------------------------------

let private traceOf (error: string) : string =
    let start = error.IndexOf "its trace is in '" + 17
    File.ReadAllText(error.Substring(start, error.IndexOf('\'', start) - start))

let private top =
    testList
        "the top"
        [ testCase "an exception of another thread: a sentence, exit code 70, and a file with the trace"
          <| posix (fun folder ->
              let code, said, error =
                  ran
                      [ "DOTNET_STARTUP_HOOKS", Path.Combine(AppContext.BaseDirectory, "Tests.dll")
                        "CMCL_TEST_RAISE", "boo"
                        "TMPDIR", folder ]
                      "dotnet"
                      [ dll; "worker" ]

              Expect.equal (code, said) (70, "") error
              Expect.equal (error.TrimEnd().Split('\n').Length) 1 "one sentence"
              Expect.stringContains error "boo (InvalidOperationException)" "what"
              Expect.stringContains (traceOf error) "StartupHook" "the trace, with where it was raised")

          testCase "whatever a command raises: a fault is told as one, anything else has its trace kept"
          <| fun () ->
              let ended (e: exn) =
                  let console = Console.Error
                  use caught = new StringWriter()

                  try
                      Console.SetError caught
                      Top.ended e, caught.ToString()
                  finally
                      Console.SetError console

              Expect.equal (ended (CmclException(Fault.Occupied "x")) |> fst) 2 "a fault"
              Expect.equal (ended (AggregateException(CmclException(Fault.Occupied "x"))) |> fst) 2 "a fault in a task"

              let code, told = ended (AggregateException(TypeInitializationException("T", InvalidOperationException "in\nside")))

              Expect.equal code 70 told
              Expect.stringContains told "in (InvalidOperationException)" "the first line of what it was made of"
              Expect.stringContains (traceOf told) "TypeInitializationException" "the whole trace"

          testCase "standard output that is full or closed"
          <| posix (fun _ ->
              if File.Exists "/dev/full" then
                  for line in [ "$CMCL methods > /dev/full"; "$CMCL info synthetic > /dev/full"; "$CMCL --help > /dev/full" ] do
                      let code, _, error = shell [] line
                      Expect.equal code 2 error
                      Expect.stringContains error "'standard output' cannot be written" line
                      Expect.equal (error.TrimEnd().Split('\n').Length) 1 line

              let code, _, error = shell [] "$CMCL methods >&-"
              Expect.equal code 2 error
              let code, said, error = shell [] "$CMCL methods | head -n 1"
              Expect.equal (code, error) (0, "") "a reader that has enough"
              Expect.equal (said.Split('\n').Length) 2 "one line")

          testCase "nowhere to write a cache or a temporary file"
          <| posix (fun folder ->
              let gone = Path.Combine(folder, "gone")

              let code, _, error =
                  ran [ "HOME", null; "XDG_CACHE_HOME", null; "TMPDIR", gone ] "dotnet" [ dll; "info"; "synthetic" ]
              // Where libtorch loads as it is nothing has to be written.
              Expect.isTrue (code = 0 || code = 2 && error.Contains "XDG_CACHE_HOME") error
              Expect.isFalse (error.Contains "   at ") "no trace")

          testCase "arguments that are no text"
          <| fun () ->
              cmcl [ "info"; "a\000b" ] |> expectRefused [ "text without NUL" ]
              cmcl [ "info"; String(char 0xD800, 1) ] |> expectRefused [ "of whole characters" ] ]

// ---- names -------------------------------------------------------------------------------------------------------

let private escaping =
    testCase "a stream's name chooses no folder"
    <| posix (fun folder ->
        for name in [ "../../escape"; "/escape"; ".."; "."; "a/b" ] do
            let out = Names.within "results" name
            Expect.equal (Path.GetDirectoryName out) "results" name
            Expect.equal (Path.GetDirectoryName(Path.GetFullPath out)) (Path.GetFullPath "results") name

        // The whole command, from a folder of its own.
        let data = Directory.CreateDirectory(Path.Combine(folder, "data")).FullName
        makeStream (fun text -> text.Replace("\"small\"", "\"../../escape\"")) ignore data
        let inner = Directory.CreateDirectory(Path.Combine(folder, "a", "b")).FullName
        let info = $"cd '{inner}' && $CMCL run --stream '{data}' -m vanilla --seeds 0 --epochs 1 --batch 4 -q"
        let code, _, error = shell [] info
        Expect.equal code 0 error

        Expect.equal
            (Directory.GetFileSystemEntries folder |> Array.map Path.GetFileName |> Array.sort)
            [| "a"; "data" |]
            "nothing above"

        Expect.hasLength (Directory.GetFileSystemEntries inner) 1 "results alone"
        let results = Directory.GetDirectories(Path.Combine(inner, "results"))
        Expect.equal (results |> Array.map Path.GetFileName) [| Names.folder "../../escape" |] "within results")

// ---- our own files, spoilt ---------------------------------------------------------------------------------------

let private sweepIn (folder: string) =
    let path, out = Path.Combine(folder, "s.json"), Path.Combine(folder, "out")
    SweepFile.write path (SweepFile.ofBlocks [ SweepFile.block [ "synthetic" ] [ "vanilla" ] ]) |> Check.get
    let submit = [ "sweep"; "submit"; path; "--out"; out; "--engine"; "slurm"; "--dry-run" ]
    Expect.equal (cmcl submit).Code 0 "written"
    out, submit

let private spoilt =
    testList
        "our own files"
        [ testCase "cells.jsonl with JSON of another shape"
          <| posix (fun folder ->
              let out, _ = sweepIn folder
              let cells = Path.Combine(out, "cells.jsonl")
              let good = File.ReadAllLines cells |> Array.head

              let without (part: string) =
                  let json = Nodes.JsonNode.Parse good |> Option.ofObj |> Option.get

                  match json["Errand"] with
                  | :? Nodes.JsonObject as job -> job.Remove part |> ignore
                  | _ -> failtest "a line has a job"

                  json.ToJsonString()

              for line in
                  [ "{}"; "[]"; "null"; "3"; "\"x\""; "{"; ""; good.Substring(0, good.Length / 2) ]
                  @ [ good.Replace("\"Identity\":\"", "\"Identity\":\"x") ]
                  @ [ for part in [ "Source"; "Given"; "Hash"; "Device" ] -> without part ]
                  @ [ good.Replace("\"Cell\":{", "\"Cell\":null,\"Sell\":{") ] do
                  File.WriteAllText(cells, good + "\n" + line + "\n")

                  for command in [ "status"; "collect" ] do
                      cmcl [ "sweep"; command; out ] |> expectRefused [ "cells.jsonl" ])

          testCase "tasks of another name than a number"
          <| posix (fun folder ->
              let out, submit = sweepIn folder

              for name in [ "x.tasks"; "-1.tasks"; "99999999999.tasks"; "٣٣٣.tasks" ] do
                  File.WriteAllText(Path.Combine(out, "slurm", name), "aa\n")

              Expect.equal (cmcl submit).Code 0 "they are not ours"
              Expect.isTrue (File.Exists(Path.Combine(out, "slurm", "002.sbatch"))) "numbered on")

          testCase "a sweep for a device that there cannot be"
          <| posix (fun folder ->
              let path = Path.Combine(folder, "s.json")

              let forDevice (device: string) =
                  File.WriteAllText(
                      path,
                      $$"""{"format":"{{SweepFile.Format}}","device":"{{device}}","blocks":[{"streams":["synthetic"],"methods":["vanilla"]}]}"""
                  )

              for device in [ "cuda:300"; "cuda:-1"; "cuda:x"; "tpu"; "cuda:99999" ] do
                  forDevice device
                  cmcl [ "sweep"; "plan"; path ] |> expectRefused [ "device"; "cpu, cuda or cuda:N"; device ]

              // There can be one, but there is none here.
              for device in [ "cuda"; "cuda:127" ] do
                  forDevice device
                  Expect.equal (cmcl [ "sweep"; "plan"; path ]).Code 0 "planned for another machine"

              cmcl [ "sweep"; "run"; path; "--out"; Path.Combine(folder, "out") ] |> expectRefused [ "cuda:127" ]) ]

// ---- what --force may delete -------------------------------------------------------------------------------------

let private forced =
    testList
        "--force"
        [ testCase "takes what is cmcl's, and refuses what is not"
          <| posix (fun folder ->
              let out = Path.Combine(folder, "out")

              let run =
                  [ "run"; "--stream"; "synthetic"; "-m"; "zero-shot"; "--seeds"; "0"; "--out"; out; "--save-weights"; "-q" ]

              Expect.equal (cmcl run).Code 0 "the first"
              let mine = Path.Combine(out, "weights", "mine", "precious.bin")
              Directory.CreateDirectory(Path.GetDirectoryName mine |> string) |> ignore
              File.WriteAllText(mine, "x")
              Expect.equal (cmcl (run @ [ "--force" ])).Code 0 "its own results"
              Expect.isTrue (File.Exists mine) "another's file stays"

              for name in [ "results.csv"; "config.json"; "report.html"; "monitor.csv" ] do
                  let other = Directory.CreateDirectory(Path.Combine(folder, name + ".d")).FullName
                  File.WriteAllText(Path.Combine(other, name), "my own")

                  cmcl (List.map (fun a -> if a = out then other else a) run @ [ "--force" ])
                  |> expectRefused [ name; "was not written by cmcl" ]

                  Expect.equal (File.ReadAllText(Path.Combine(other, name))) "my own" name)

          testCase "an imported stream takes the place of a stream, and of no other file"
          <| posix (fun folder ->
              let source = Directory.CreateDirectory(Path.Combine(folder, "in")).FullName
              let out = Path.Combine(folder, "out")

              do
                  use scope = TorchSharp.torch.NewDisposeScope()
                  ImportFiles.writeNpy source

              let import = [ "import"; "npy"; source; "--out"; out ]
              Expect.equal (cmcl import).Code 0 "the first"
              let mine = Path.Combine(out, "features", "notes.txt")
              File.WriteAllText(mine, "mine")
              Expect.equal (cmcl (import @ [ "--force" ])).Code 0 "once more"
              Expect.equal (File.ReadAllText mine) "mine" "stays"
              Expect.equal (cmcl [ "info"; out ]).Code 0 "whole"
              let left = Directory.GetFileSystemEntries folder |> Array.map Path.GetFileName |> Array.sort
              Expect.equal left [| "in"; "out" |] "nothing beside it"

              File.WriteAllText(Path.Combine(out, StreamFolder.DefaultFile), "{}")
              Expect.equal (cmcl (import @ [ "--force" ])).Code 2 "a stream.json that is none"
              Expect.isTrue (File.Exists mine) "untouched") ]

// ---- scripts -----------------------------------------------------------------------------------------------------

let private wishes (options: string list) : SlurmWishes =
    { ArrayLimit = None
      CellsPerTask = 1
      Options = options
      Program = [ "echo"; "it's $(touch escaped) `touch escaped`" ] }

let private scripts =
    testList
        "scripts"
        [ testCase "paths stay in one piece, whatever they are called"
          <| posix (fun folder ->
              for name in [ "a b"; "it's"; "$(touch escaped)"; "`touch escaped`"; "100%"; "#x"; "é語"; "a;b&c|d"; "*?"; "-rf" ] do
                  let odd = Path.Combine(folder, name)
                  let array, collect = Slurm.write odd (wishes [ "--comment=two words" ]) [ "aa" ] |> Check.get

                  for script in [ array; collect ] do
                      let lines = File.ReadAllLines script
                      let begun = lines |> Array.filter _.StartsWith("#SBATCH")
                      Expect.all begun (fun line -> line.StartsWith "#SBATCH --") $"options alone: {name}"

                      Expect.equal
                          (Array.IndexOf(lines, Array.last begun) - Array.IndexOf(lines, begun[0]))
                          (begun.Length - 1)
                          "together"

                  Expect.stringContains (File.ReadAllText array) "\n#SBATCH --comment=\"two words\"\n" "quoted"

                  let environment = [ "SLURM_ARRAY_TASK_ID", "0"; "SLURM_CPUS_PER_TASK", "1" ]
                  let code, said, error = ran environment "bash" [ array ]
                  Expect.equal (code, error) (0, "") name
                  Expect.stringContains said $"$(touch escaped) `touch escaped` cell {odd} aa" name
                  Expect.isFalse (File.Exists "escaped") name)

          testCase "a line break is refused, in folders and in options"
          <| posix (fun folder ->
              for name in [ "a\nb"; "a\n#SBATCH --wrap=x"; "a\rb"; "\027[31m"; "a\"b"; "a\\b" ] do
                  match Slurm.write (Path.Combine(folder, name)) (wishes []) [ "aa" ] with
                  | Error [ Fault.BadValue(what, _, _) ] -> Expect.equal what "the sweep's folder" name
                  | other -> failtest $"{name}: %A{other}"

              match Slurm.write folder (wishes [ "--comment=a\n#SBATCH --uid=root" ]) [ "aa" ] with
              | Error [ Fault.BadValue(what, _, _) ] -> Expect.equal what "an option of sbatch" "told"
              | other -> failtest $"%A{other}"

              Expect.isEmpty (Directory.GetFileSystemEntries folder) "nothing is written"
              let path = Path.Combine(folder, "s.json")
              SweepFile.write path (SweepFile.ofBlocks [ SweepFile.block [ "synthetic" ] [ "vanilla" ] ]) |> Check.get

              for engine in [ "slurm"; "parallel" ] do
                  let out = Path.Combine(folder, "x\n#SBATCH --wrap=evil")
                  let told = cmcl [ "sweep"; "submit"; path; "--out"; out; "--engine"; engine; "--dry-run" ]
                  Expect.equal told.Code 2 engine
                  Expect.equal (told.Error.TrimEnd().Split('\n').Length) 1 "one line") ]

// ---- tables ------------------------------------------------------------------------------------------------------

/// Fields as they are in tables: numbers, and texts of what has a meaning there.
let private field: Gen<string> =
    let text = Gen.elements (List.ofSeq "=+-@\t\r\n'\",;ab1 ＝") |> Gen.listOf |> Gen.map (Array.ofList >> String)
    let number = ArbMap.defaults |> ArbMap.generate<float> |> Gen.map Csv.number
    Gen.oneof [ text; number ]

let private csv =
    testCase "tables hold no formula, numbers stay numbers, and everything reads back"
    <| posix (fun folder ->
        let path = Path.Combine(folder, "t.csv")

        let holds (rows: (string * string) list) =
            // A line of nothing but line breaks or nothing at all is the reader's to skip.
            let rows = [ for a, b in rows -> "x" + a, b ]
            let table = [ for a, b in rows -> [ b; a; b ] ]
            Files.writeText path (Csv.write [ "a"; "b"; "c" ] id table) |> Check.get
            let read = Csv.read path [ "a"; "b"; "c" ] List.ofArray |> Check.get
            Expect.equal read table "read back"

        Check.One(Config.QuickThrowOnFailure.WithMaxTest 300, Prop.forAll (Arb.fromGen (Gen.listOf (Gen.zip field field))) holds)

        let written (field: string) =
            use writer = new StringWriter()
            Csv.write [ "h" ] (fun f -> [ f ]) [ field ] writer
            let line = (string writer).Split('\n', 2)[1]
            line.TrimEnd('\n').Trim('"')

        for formula in [ "=1+1"; "+cmd|' /C calc'!A0"; "-2+3"; "@SUM(A1)"; "=HYPERLINK(1)"; "-"; "+"; "＝1" ] do
            Expect.equal (written formula) ("'" + formula) formula

        for number in [ "-1"; "-0.5"; "1E-05"; "-1.7976931348623157E+308"; "+3"; "-Infinity"; "NaN" ] do
            Expect.equal (written number) number number)

let tests =
    testSequenced (
        testList
            "Hostile"
            [ testCase "things in the place of files" inPlaceOfFiles
              testCase "pipes and devices are not replaced by files" notReplaced
              testCase "a safetensors header of very many names" manyNames
              testCase "arrays that would fill the disk" tooLarge
              top
              escaping
              spoilt
              forced
              scripts
              csv ]
    )
