module Cmcl.Tests.CheckpointTests

open System
open System.IO
open Expecto
open TorchSharp
open Cmcl
open Cmcl.Tests.Checks
open Cmcl.Tests.Processes

let private inFolder (act: string -> unit) =
    let folder = Directory.CreateTempSubdirectory "cmcl-checkpoint"

    try
        use scope = torch.NewDisposeScope()
        act folder.FullName
    finally
        folder.Delete true

/// Three steps of the synthetic stream.
let short: Lazy<Stream> =
    lazy
        { synthetic.Value with
            Steps = List.take 3 synthetic.Value.Steps }

/// Every method, and what a method's state looks like under other options.
let private written =
    Registry.names
    @ [ "dns[place=update]"
        "dns[place=gradient]"
        "dns[protect=product]"
        "dns[moments=centred]"
        "dns-trust[total-budget=0.2]"
        "ewc[accumulate=online]"
        "gem[place=update]"
        "c-flat[host=derpp]"
        "merge[host=derpp;rule=ema]"
        "merge[host=ewc;rule=dual]"
        "polish[host=dns]"
        "eigen[host=joint;rotate=both]"
        "vanilla[optimizer=sgd]"
        "vanilla[batch=all]"
        "vanilla[symmetric=on;scores=cosine]" ]

let private resolve (stream: Stream) (text: string) : Plan =
    let plan = Plan.resolve stream.Preset [] [ text ] |> Check.get |> List.exactlyOne

    { plan with Settings = { plan.Settings with Epochs = 2 } }

/// What has to be the same: all but times.
let figures (o: Cmcl.Outcome) =
    [ for r in o.Measurements do
          if not (r.Metric.StartsWith "seconds") then
              r.Step, r.Task, r.Metric, BitConverter.DoubleToInt64Bits r.Value ],
    [ for step, epoch, loss in o.Losses -> step, epoch, BitConverter.DoubleToInt64Bits loss ],
    o.Spectra

let protocol () : Protocol =
    { Split = Split.Test
      Device = torch.CPU
      Threads = 1
      Monitor = None }

let whole (stream: Stream) (seed: int) (plan: Plan) : Cmcl.Outcome =
    Train.run stream torch.CPU Split.Test seed Observer.silent plan |> Check.get

/// A run left after every so many updates and steps, each time written, some times over, forgotten and read back.
let inPieces (folder: string) (stream: Stream) (seed: int) (every: int) (plan: Plan) : Cmcl.Outcome * int =
    let rec go pieces =
        if pieces > 500 then
            failtest "it does not come to an end"

        let checkpoints = CheckpointFolder.Of(folder, Identity.of' (protocol ()) stream plan seed, torch.CPU, 2)

        let from =
            match checkpoints.Latest() with
            | Some { State = state }, [] -> Some state
            | None, [] -> None
            | _, faults -> failtest $"{faults}"

        let mutable rests = 0

        let checkpointer rest (state: unit -> RunState) =
            rests <- rests + 1

            // Also shortly before: what is not written again has to be what it was.
            if rests + 2 >= every then
                checkpoints.Write { State = state (); Monitor = [] } |> Check.get

            rests = every

        let ending =
            use scope = torch.NewDisposeScope()
            Train.resume stream torch.CPU Split.Test seed Observer.silent checkpointer from plan

        match Check.get ending with
        | Ending.Finished outcome -> outcome, pieces
        | Ending.Stopped -> go (pieces + 1)

    go 0

// ---- damaged files -----------------------------------------------------------------------------------------------

let private replay: Lazy<Plan> = lazy resolve short.Value "derpp"
let private folderOf folder = CheckpointFolder.Of(folder, Identity.of' (protocol ()) short.Value replay.Value 1, torch.CPU, 2)

/// Checkpoints of a run at the given rests.
let private keepAt (folder: string) (at: int list) : unit =
    let checkpoints = folderOf folder
    let mutable rests = 0

    let checkpointer _ (state: unit -> RunState) =
        rests <- rests + 1

        if List.contains rests at then
            checkpoints.Write { State = state (); Monitor = [] } |> Check.get

        rests = List.last at

    use scope = torch.NewDisposeScope()
    Train.resume short.Value torch.CPU Split.Test 1 Observer.silent checkpointer None replay.Value |> Check.get |> ignore

let private updatesOf (checkpoint: Checkpoint) : int64 =
    match checkpoint.State.Within with
    | Some w -> w.Training.Updates
    | None -> 0L

let private latest (folder: string) = (folderOf folder).Latest()

let private newest (folder: string) : string = Directory.GetFiles(folder, "*.json", SearchOption.AllDirectories) |> Array.max

let private older (folder: string) : string = Directory.GetFiles(folder, "*.json", SearchOption.AllDirectories) |> Array.min

/// The numbers of a state, to tell whether it is one that was written.
let private fingerprint (checkpoint: Checkpoint) : string =
    let s = checkpoint.State
    let sum (t: torch.Tensor) = (t.``to``(torch.float64).sum()).item<float>()

    let heads =
        [ for h in s.Heads do
              for w in h.Values -> sum w ]

    let memory = [ for t in s.Memory.Values -> sum t ]

    let within =
        s.Within
        |> Option.map (fun w -> w.Training.Updates, w.Training.Sum, [ for w in w.Training.Descent.Weights.Values -> sum w ])

    $"{heads} {memory} {within} {s.Outcome.Measurements.Length}"

let private copy (from: string) (target: string) : unit =
    for file in Directory.GetFiles(from, "*", SearchOption.AllDirectories) do
        let path = Path.Combine(target, Path.GetRelativePath(from, file))
        Directory.CreateDirectory(nonNull (Path.GetDirectoryName path)) |> ignore
        File.Copy(file, path, true)

/// The file with its checksum made to hold again.
let private resealed (text: string) : string =
    match text.IndexOf "\"body\":" with
    | -1 -> text
    | at ->
        let body = text.Substring(at + 7, text.Length - at - 8)
        let sum = Convert.ToHexStringLower(Security.Cryptography.SHA256.HashData(Text.Encoding.UTF8.GetBytes body))
        Text.RegularExpressions.Regex.Replace(text, "\"sha256\":\"[0-9a-f]*\"", $"\"sha256\":\"{sum}\"")

/// One change to one of the files.
let private damage (random: Random) (folder: string) : unit =
    let files = Directory.GetFiles(folder, "*", SearchOption.AllDirectories) |> Array.sort
    let file = files[random.Next files.Length]
    let bytes = File.ReadAllBytes file
    let at () = random.Next bytes.Length

    match random.Next 6 with
    | 0 -> File.WriteAllBytes(file, Array.truncate (at ()) bytes)
    | 1 ->
        for _ in 0 .. random.Next 4 do
            let i = at ()
            bytes[i] <- bytes[i] ^^^ byte (1 <<< random.Next 8)

        File.WriteAllBytes(file, bytes)
    | 2 -> File.Delete file
    | 3 -> File.WriteAllBytes(file, Array.append bytes (Array.zeroCreate (1 + random.Next 9)))
    | 4 ->
        let from = at ()
        File.WriteAllBytes(file, Array.append bytes[.. from - 1] bytes[min (bytes.Length - 1) (from + 1 + random.Next 40) ..])
    | _ ->
        // What no disk does: another text with a checksum that holds.
        let file = files |> Array.filter _.EndsWith(".json") |> Array.max
        let text = File.ReadAllText file
        let numbers = Text.RegularExpressions.Regex.Matches(text, "-?[0-9]+|\"[a-z/0-9]+\"")
        let m = numbers[random.Next numbers.Count]
        let other = [| "-1"; "1e300"; "null"; "[]"; "\"x\""; "99999999999999"; "{}" |][random.Next 7]
        File.WriteAllText(file, resealed (text.Remove(m.Index, m.Length).Insert(m.Index, other)))

let private mutations =
    match Environment.GetEnvironmentVariable "CMCL_FUZZ" with
    | null -> 300
    | count -> int count

let private damaged =
    testList
        "damaged"
        [ testCase "the last one that is whole is taken, and told why those after it are not" (fun () ->
              inFolder (fun folder ->
                  keepAt folder [ 5; 9 ]
                  let text = File.ReadAllText(newest folder)
                  Expect.equal (latest folder |> fst |> Option.map updatesOf) (Some 9L) "whole"

                  for what, spoilt, words in
                      [ "truncated", text.Substring(0, text.Length / 2), "not valid JSON"
                        "a digit", text.Replace("\"updates\":9", "\"updates\":8"), "checksum"
                        "another format",
                        text.Replace("cmcl-checkpoint/2", "cmcl-checkpoint/0"),
                        "'cmcl-checkpoint/0'; this version reads 'cmcl-checkpoint/2'"
                        "not ours", "[]", "not a JSON object" ] do
                      File.WriteAllText(newest folder, spoilt)

                      match latest folder with
                      | Some checkpoint, [ fault ] ->
                          Expect.equal (updatesOf checkpoint) 5L what
                          Expect.stringContains fault.Message words what
                      | other -> failtest $"{what}: {other}"

                  File.WriteAllText(older folder, "")

                  match latest folder with
                  | None, [ _; _ ] -> ()
                  | other -> failtest $"none is left, and both are told of: {other}"))

          testCase "a part that is cut, changed or gone makes only those useless that name it" (fun () ->
              inFolder (fun folder ->
                  for spoil in
                      [ fun (part: string) -> File.Delete part
                        fun part -> File.WriteAllBytes(part, Array.truncate 20 (File.ReadAllBytes part))
                        fun part ->
                            let bytes = File.ReadAllBytes part
                            bytes[bytes.Length - 3] <- bytes[bytes.Length - 3] ^^^ 1uy
                            File.WriteAllBytes(part, bytes) ] do
                      let within = Path.Combine(folder, Guid.NewGuid().ToString "N")
                      keepAt within [ 5; 9 ]

                      let named (file: string) =
                          Text.RegularExpressions.Regex.Matches(File.ReadAllText file, "[0-9a-f]{64}[.]safetensors")
                          |> Seq.map _.Value
                          |> set

                      let own = named (newest within) - named (older within)
                      spoil (Path.Combine(nonNull (Path.GetDirectoryName(newest within)), own.MinimumElement))

                      match latest within with
                      | Some checkpoint, [ _ ] -> Expect.equal (updatesOf checkpoint) 5L "the older one"
                      | other -> failtest $"{other}"))

          testCase "any change to any file: a state that was written, or a fault" (fun () ->
              inFolder (fun folder ->
                  let whole = Path.Combine(folder, "whole")
                  keepAt whole [ 5; 9 ]
                  let known = ResizeArray()

                  for keep in [ newest whole; older whole ] do
                      let alone = Path.Combine(folder, Path.GetFileName keep |> nonNull)
                      copy whole alone

                      for file in Directory.GetFiles(alone, "*.json", SearchOption.AllDirectories) do
                          if Path.GetFileName file <> Path.GetFileName keep then
                              File.Delete file

                      known.Add(fingerprint (latest alone |> fst |> Option.get))

                  let random = Random 1
                  let mutable good, faults = 0, 0

                  for i in 1..mutations do
                      use scope = torch.NewDisposeScope()
                      let at = Path.Combine(folder, "case")
                      copy whole at
                      let before = Directory.GetFiles(at, "*.json", SearchOption.AllDirectories) |> Array.map File.ReadAllText
                      damage random at

                      let resealed =
                          Directory.GetFiles(at, "*.json", SearchOption.AllDirectories)
                          |> Array.exists (fun f ->
                              let t = File.ReadAllText f in not (Array.contains t before) && resealed t = t)

                      match latest at with
                      | Some checkpoint, _ ->
                          good <- good + 1

                          if not resealed then
                              Expect.isTrue (known.Contains(fingerprint checkpoint)) $"case {i}: a state that nobody wrote"
                      | None, found ->
                          faults <- faults + 1
                          Expect.isNonEmpty found $"case {i}: something was there"

                      Directory.Delete(at, true)

                  if mutations > 300 then
                      printfn "%d mutations: %d read as one of the two that were written, %d refused" mutations good faults))

          testCase "another run's is told of, and not taken" (fun () ->
              inFolder (fun folder ->
                  keepAt folder [ 5 ]

                  let other =
                      { replay.Value with
                          Settings = { replay.Value.Settings with LearningRate = 0.5 } }

                  let identity = Identity.of' (protocol ()) short.Value other 1
                  let own = nonNull (Path.GetDirectoryName(newest folder))
                  Directory.Move(own, Path.Combine(folder, Identity.hash identity))

                  match CheckpointFolder.Of(folder, identity, torch.CPU, 2).Latest() with
                  | None, [ fault ] -> Expect.stringContains fault.Message "of another run" fault.Message
                  | other -> failtest $"{other}"))

          testCase "a disk that is full, or may not be written to: a fault, and those before stay" (fun () ->
              onSmallDisk 4000 (fun folder remount ->
                  keepAt folder [ 5 ]
                  let filler = Path.Combine(folder, "filler")
                  use full = filled filler

                  let write () =
                      let checkpoint = latest folder |> fst |> Option.get
                      (folderOf folder).Write checkpoint

                  let refused what =
                      match write () with
                      | Error [ Fault.Unwritable _ ] -> ()
                      | other -> failtest $"{what}: {other}"

                      Expect.equal (latest folder |> fst |> Option.map updatesOf) (Some 5L) what

                  refused "full"
                  full.Dispose()
                  File.Delete filler
                  remount "ro"
                  refused "read-only"
                  remount "rw"
                  write () |> Check.get)) ]

let tests =
    testList
        "checkpoints"
        [ testList
              "a run in pieces is the run in one, bit for bit"
              [ for text in written ->
                    testCase text (fun () ->
                        inFolder (fun folder ->
                            let plan = resolve short.Value text
                            let outcome, pieces = inPieces folder short.Value 1 7 plan

                            if Method.trains plan.Method then
                                Expect.isGreaterThan pieces 0 "pieces"

                            Expect.equal (figures outcome) (figures (whole short.Value 1 plan)) "figures")) ]
          damaged ]
