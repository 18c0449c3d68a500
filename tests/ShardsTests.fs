module Cmcl.Tests.ShardsTests

open System
open System.IO
open Expecto
open TorchSharp
open Cmcl
open Cmcl.Tests.Checks
open Cmcl.Tests.CliTests

let private d = 5L

/// Files with these rows, in the folder, named after their place.
let private shards (folder: string) (parts: torch.Tensor list) : string list =
    [ for i, t in List.indexed parts do
          let path = Path.Combine(folder, $"shard-{i}.npy")
          Npy.write path t |> Check.get
          path ]

let private rows (purpose: string) (n: int64) (width: int64) : torch.Tensor =
    Seed.normal [ n; width ] (Seed.ofInt 4 |> Seed.split purpose)

let private within (act: string -> unit) () =
    use scope = torch.NewDisposeScope()
    inFolder act

let private sameMoment what (a: Moment) (b: Moment) =
    Expect.equal a.Count b.Count $"{what}: count"
    same what tight a.Matrix b.Matrix

let private accumulation =
    testList
        "accumulate"
        [ property "the moment of blocks, in any order, is that of all rows" (fun c ->
              let x = normal c "x" (3L * c.N) c.Da
              let blocks = [ x.narrow (0L, 0L, c.N); x.narrow (0L, c.N, 1L); x.narrow (0L, c.N + 1L, 2L * c.N - 1L) ]
              let all = Moment.ofRows x
              let copies order = order |> Seq.map (fun (b: torch.Tensor) -> b.clone ())
              sameMoment "in order" (Moment.accumulate (copies blocks)) all
              sameMoment "the other way" (Moment.accumulate (copies (List.rev blocks))) all
              untouched "accumulate" [ x ] (fun () -> Moment.accumulate (copies blocks)))

          mustFail "a block that is left out" (fun c ->
              let x = normal c "x" (2L * c.N) c.Da
              sameMoment "half" (Moment.accumulate [ x.narrow(0L, 0L, c.N).clone() ]) (Moment.ofRows x))

          test "wide rows in full blocks have the same bits, in float16 too" (fun () ->
              let x = (rows "wide" (2L * Moment.blockRows + 100L) 513L).``to`` torch.float16

              let blocks =
                  seq {
                      for first in 0L .. Moment.blockRows .. x.shape[0] - 1L do
                          x.narrow(0L, first, min Moment.blockRows (x.shape[0] - first)).clone()
                  }

              identical "moment" (Moment.accumulate blocks).Matrix (Moment.ofRows x).Matrix)

          test "each block is freed before the next, and nothing else is kept" (fun () ->
              let mutable alive = 0
              let mutable last: torch.Tensor option = None

              let blocks =
                  seq {
                      for i in 1..5 do
                          if last |> Option.exists (fun t -> not t.IsInvalid) then
                              alive <- alive + 1

                          let block = rows $"{i}" 3L d
                          last <- Some block
                          block
                  }

              Expect.equal (leaked (fun () -> (Moment.accumulate blocks).Matrix.Dispose())) 0L "tensors"
              Expect.equal alive 0 "blocks")

          test "no block, and a block of another width, are faults" (fun () ->
              match faultOf (fun () -> Moment.accumulate []) with
              | Fault.Shape _ -> ()
              | other -> failtest $"{other}"

              match faultOf (fun () -> Moment.accumulate [ rows "a" 3L 4L; rows "b" 3L 5L ]) with
              | Fault.Shape(_, expected, actual) -> Expect.equal (expected, actual) ("[any × 4]", "[3 × 5]") "sizes"
              | other -> failtest $"{other}") ]

let private ofFiles =
    testList
        "files"
        [ testCase
              "shards in any order give the moment of their rows"
              (within (fun folder ->
                  let x = rows "x" 9000L d
                  let single = (x.narrow (0L, 2000L, 3000L)).``to`` torch.float32
                  let half = (x.narrow (0L, 5000L, 4000L)).``to`` torch.float16
                  let paths = shards folder [ x.narrow (0L, 0L, 2000L); single; half ]

                  let all =
                      Moment.ofRows (
                          torch.cat [| x.narrow (0L, 0L, 2000L); single.``to`` torch.float64; half.``to`` torch.float64 |]
                      )

                  sameMoment "in order" (Shards.moments paths |> Check.get) all
                  sameMoment "the other way" (Shards.moments (List.rev paths) |> Check.get) all
                  Expect.equal (leaked (fun () -> (Shards.moments paths |> Check.get).Matrix.Dispose())) 0L "tensors"))

          testCase
              "bad shards are named, all of them"
              (within (fun folder ->
                  let good = rows "x" 5000L d
                  let spoilt = good.clone ()
                  use entry = spoilt[4321L]
                  entry[2L] <- torch.tensor nan

                  let paths =
                      shards
                          folder
                          [ good
                            spoilt
                            rows "y" 3L (d + 1L)
                            Tensors.range torch.CPU 0L 7L
                            torch.zeros (0L, d)
                            rows "z" 3L d ]

                  File.WriteAllBytes(paths[5], Array.truncate 200 (File.ReadAllBytes paths[5]))
                  let told given = faultsOf (Shards.moments given) |> List.map _.Message
                  let of' indices = [ for i in indices -> paths[i] ]

                  let expect (i: int) (words: string list) (messages: string list) =
                      let own = messages |> List.filter _.Contains($"shard-{i}.npy'")
                      Expect.equal own.Length 1 $"%A{messages}"

                      for word in words do
                          Expect.stringContains own.Head word "words"

                  let several = told (of' [ 1; 0; 3; 4; 5 ])
                  Expect.equal several.Length 4 "every fault"
                  expect 1 [ "row 4321" ] several
                  expect 3 [ "int64" ] several
                  expect 4 [ "at least one" ] several
                  expect 5 [ "promises 120 bytes"; "72 follow" ] several
                  expect 2 [ "d = 5"; "shard-0.npy"; "d = 6" ] (told (of' [ 0; 2 ]))
                  Expect.stringContains (told (of' [ 0; 0 ])).Head "twice" "twice"
                  Expect.stringContains (told [ Path.Combine(folder, "none.npy") ]).Head "does not exist" "missing"
                  Expect.equal (told []).Length 1 "nothing"))

          testCase
              "a pass over a file of any length holds little of it"
              (within (fun folder ->
                  if not (OperatingSystem.IsLinux()) then
                      skiptest "only Linux tells how much of a process's memory are files"

                  let path = Path.Combine(folder, "zeros.npy")
                  zeros path (1L <<< 20) 128L
                  use t = Npy.map path |> Check.get

                  let ofFiles () =
                      let line = File.ReadLines "/proc/self/status" |> Seq.find _.StartsWith("RssFile:")
                      1024L * int64 (line.Replace("RssFile:", "").Replace("kB", ""))

                  let before = ofFiles ()
                  Expect.equal (Tensors.nonFiniteRow t) None "finite"
                  Expect.isLessThan (ofFiles () - before) (Mapped.allowance + (32L <<< 20)) "of 256 MiB"
                  use sum = t.sum ()
                  Expect.isGreaterThan (ofFiles () - before) (200L <<< 20) "what is read and not given back stays"
                  Mapped.release t
                  Expect.isLessThan (ofFiles () - before) (16L <<< 20) "given back"))

          testCase
              "what is given back comes again, and other tensors are left alone"
              (within (fun folder ->
                  let x = rows "x" 3000L 64L
                  let path = (shards folder [ x ]).Head
                  use t = Npy.map path |> Check.get
                  identical "at first" t x
                  Mapped.release t
                  identical "again" t x
                  Mapped.release x
                  identical "no file's" x t
                  use part = t.narrow (0L, 5L, 7L)
                  Mapped.release part
                  identical "a part" part (x.narrow (0L, 5L, 7L))
                  t.Dispose()
                  Mapped.release t)) ]

let private momentFiles =
    let some () = Moment.ofRows (rows "m" 40L d)

    let refuses (title: string) (content: Moment -> NamedTensors) (words: string list) =
        testCase
            title
            (within (fun folder ->
                let path = Path.Combine(folder, "m.safetensors")
                Safetensors.write path (content (some ())) |> Check.get
                let message = (faultsOf (MomentFile.read path) |> List.exactlyOne).Message

                for word in "m.safetensors" :: words do
                    Expect.stringContains message word "words"))

    let content (m: torch.Tensor) count =
        { Tensors = Map [ "moment", m ]
          Metadata = Map [ "format", "cmcl-moment/1"; "count", count ] }

    testList
        "moment files"
        [ testCase
              "what is written is read, bit for bit"
              (within (fun folder ->
                  let path = Path.Combine(folder, "m.safetensors")
                  let m = some ()
                  MomentFile.write path m |> Check.get
                  let back = MomentFile.read path |> Check.get
                  Expect.equal back.Count 40L "count"
                  identical "matrix" back.Matrix m.Matrix
                  Expect.equal (leaked (fun () -> (MomentFile.read path |> Check.get).Matrix.Dispose())) 0L "tensors"))

          testCase
              "cut short it is refused"
              (within (fun folder ->
                  let path = Path.Combine(folder, "m.safetensors")
                  MomentFile.write path (some ()) |> Check.get
                  let bytes = File.ReadAllBytes path

                  for length in [ 0; 5; 60; bytes.Length - 1 ] do
                      File.WriteAllBytes(path, Array.truncate length bytes)
                      Expect.isNonEmpty (faultsOf (MomentFile.read path)) $"{length} bytes"))

          refuses
              "another format"
              (fun m -> { content m.Matrix "40" with Metadata = Map.empty })
              [ "no moment"; "nothing"; "cmcl-moment/1" ]
          refuses "no count" (fun m -> content m.Matrix "0") [ "'count' says 0" ]
          refuses "a count in words" (fun m -> content m.Matrix "forty") [ "'count' says forty" ]
          refuses
              "a matrix that is not symmetric"
              (fun m ->
                  let t = m.Matrix.clone ()
                  t.narrow(0L, 0L, 1L).narrow(1L, 3L, 1L).plus_(1e-3) |> ignore
                  content t "40")
              [ "not symmetric" ]
          refuses
              "a negative mean square"
              (fun m -> content (m.Matrix - torch.eye (d, dtype = torch.float64) * number 10.0) "40")
              [ "below zero" ]
          refuses
              "a NaN"
              (fun m ->
                  let t = m.Matrix.clone ()
                  t.narrow(0L, 2L, 1L).fill_(number nan) |> ignore
                  content t "40")
              [ "row 2" ]
          refuses
              "no square"
              (fun m -> content (m.Matrix.narrow(0L, 0L, 3L).contiguous()) "40")
              [ "[3 × 5]"; "square and Float64" ]
          refuses "float32" (fun m -> content (m.Matrix.``to`` torch.float32) "40") [ "Float32" ]
          refuses
              "another tensor"
              (fun m ->
                  { content m.Matrix "40" with
                      Tensors = Map [ "weights", m.Matrix ] })
              [ "weights"; "one tensor, 'moment'" ] ]

/// A file with up to four changes: bytes of the header or anywhere put at random, cut, doubled, or a digit made another.
let private mutated (random: Random) (bytes: byte[]) : byte[] =
    let changed (bytes: byte[]) =
        let near = min bytes.Length 200

        match random.Next 5 with
        | _ when bytes.Length = 0 -> bytes
        | 0 -> Array.updateAt (random.Next bytes.Length) (byte (random.Next 256)) bytes
        | 1 -> Array.updateAt (random.Next near) (byte (random.Next 256)) bytes
        | 2 -> Array.truncate (random.Next bytes.Length) bytes
        | 3 ->
            let first = random.Next bytes.Length
            Array.append (Array.truncate (min bytes.Length (first + random.Next 40)) bytes) bytes[first..]
        | _ ->
            let digits =
                [| for i in 0 .. near - 1 do
                       if Char.IsDigit(char bytes[i]) then
                           i |]

            if digits.Length = 0 then
                bytes
            else
                Array.updateAt digits[random.Next digits.Length] (byte (48 + random.Next 10)) bytes

    (bytes, [ 0 .. random.Next 4 ]) ||> List.fold (fun b _ -> changed b)

/// A moment file of any bytes is refused with words that name it, or is read as what a moment is.
let private anyBytes =
    testPropertyWithConfig { config with maxTest = 10 * config.maxTest } "any bytes" (fun (seed: int) ->
        within
            (fun folder ->
                let path = Path.Combine(folder, "m.safetensors")
                MomentFile.write path (Moment.ofRows (rows "m" 40L d)) |> Check.get
                File.WriteAllBytes(path, mutated (Random seed) (File.ReadAllBytes path))

                match MomentFile.read path with
                | Error faults ->
                    Expect.isNonEmpty faults "faults"
                    Expect.all faults _.Message.Contains("m.safetensors") "each names the file"
                | Ok m ->
                    Expect.isGreaterThan m.Count 0L "count"
                    Expect.equal (Tensors.nonFiniteRow m.Matrix) None "finite"
                    same "symmetric" 1e-9 m.Matrix (m.Matrix.t ()))
            ())

let private command =
    testList
        "cmcl moments"
        [ testCase
              "accumulated, merged and accumulated whole are the same"
              (within (fun folder ->
                  let paths = shards folder [ rows "a" 300L d; rows "b" 200L d; rows "c" 100L d ]
                  let file name = Path.Combine(folder, name + ".safetensors")
                  let ok told = Expect.equal (told.Code, told.Error) (0, "") "exit code"
                  let read name = MomentFile.read (file name) |> Check.get
                  let told = cmcl ([ "moments"; "accumulate" ] @ paths @ [ "-o"; file "all" ])
                  ok told

                  for word in [ "shard-1.npy: 200 rows × 5"; "3 files, 600 rows × 5"; "rows/s"; "all.safetensors" ] do
                      Expect.stringContains told.Out word "told"

                  ok (cmcl [ "moments"; "accumulate"; "-q"; "-o"; file "ab"; paths[1]; paths[0] ])
                  ok (cmcl [ "moments"; "accumulate"; paths[2]; "-o"; file "c"; "-q" ])
                  ok (cmcl [ "moments"; "merge"; file "c"; file "ab"; "-o"; file "merged" ])
                  sameMoment "merged" (read "merged") (read "all")
                  cmcl [ "moments"; "merge"; file "c"; "-o"; file "merged" ] |> expectRefused [ "exists already"; "--force" ]
                  ok (cmcl [ "moments"; "merge"; file "c"; "-o"; file "merged"; "--force"; "-q" ])
                  Expect.equal (File.ReadAllBytes(file "merged")) (File.ReadAllBytes(file "c")) "one merged is itself"))

          testCase
              "mistakes"
              (within (fun folder ->
                  let out = [ "-o"; Path.Combine(folder, "m.safetensors") ]
                  let paths = shards folder [ rows "a" 30L d; rows "b" 20L (d + 1L) ]

                  for arguments, words in
                      [ [ "accumulate"; paths[0]; paths[1] ], [ "shard-1.npy"; "d = 5" ]
                        [ "accumulate"; Path.Combine(folder, "no.npy") ], [ "no.npy"; "does not exist" ]
                        [ "accumulate"; paths[0]; "--threads"; "0" ], [ "--threads" ]
                        [ "merge"; paths[0] ], [ "shard-0.npy" ] ] do
                      // What was read before the mistake was found is told.
                      { cmcl ("moments" :: arguments @ out @ [ "-q" ]) with
                          Out = "" }
                      |> expectRefused words

                  Expect.isFalse (File.Exists out[1]) "nothing written")) ]

let tests = testSequenced (testList "Shards" [ accumulation; ofFiles; momentFiles; anyBytes; command ])
