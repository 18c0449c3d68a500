module Cmcl.Tests.SafetensorsTests

open System
open System.Diagnostics
open System.IO
open System.Text
open Expecto
open FsCheck
open FsCheck.FSharp
open TorchSharp
open Cmcl
open Cmcl.Tests.Checks

let private withFile (act: string -> 'a) : 'a =
    let folder = Directory.CreateTempSubdirectory "cmcl-safetensors"

    try
        act (Path.Combine(folder.FullName, "x.safetensors"))
    finally
        folder.Delete true

let private readBytes (bytes: byte[]) : Result<NamedTensors, Fault list> =
    withFile (fun path ->
        File.WriteAllBytes(path, bytes)
        Safetensors.read path)

let private written (content: NamedTensors) : byte[] =
    withFile (fun path ->
        Safetensors.write path content |> Check.get
        File.ReadAllBytes path)

let private file (header: string) (body: byte[]) : byte[] =
    let header = Encoding.UTF8.GetBytes header
    Array.concat [ BitConverter.GetBytes(int64 header.Length); header; body ]

/// What the format's own writer gives for the numbers 0 to 5 (float32) in a tensor `attn.0` of shape [1, 2, 3], byte for byte:
/// `test_serialization` of huggingface/safetensors, safetensors/src/tensor.rs.
let private golden: byte[] =
    [| [| 64
          0
          0
          0
          0
          0
          0
          0
          123
          34
          97
          116
          116
          110
          46
          48
          34
          58
          123
          34
          100
          116
          121
          112
          101
          34
          58
          34 |]
       [| 70
          51
          50
          34
          44
          34
          115
          104
          97
          112
          101
          34
          58
          91
          49
          44
          50
          44
          51
          93
          44
          34
          100
          97
          116
          97
          95 |]
       [| 111
          102
          102
          115
          101
          116
          115
          34
          58
          91
          48
          44
          50
          52
          93
          125
          125
          0
          0
          0
          0
          0
          0
          128
          63
          0
          0
          0
          64 |]
       [| 0; 0; 64; 64; 0; 0; 128; 64; 0; 0; 160; 64 |] |]
    |> Array.concat
    |> Array.map byte

/// Two tensors of different widths, as the format's own writer lays them down: the wider first whatever its name, spaces to
/// a multiple of 8.
let private two =
    file
        ("""{"__metadata__":{"method":"dns"},"text":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},"audio":{"dtype":"F16","shape":[2],"data_offsets":[8,12]}}"""
         + String(' ', 3))
        [| 0uy; 0uy; 128uy; 63uy; 0uy; 0uy; 0uy; 64uy; 0uy; 60uy; 0uy; 64uy |]

let private sixNumbers () = ((Tensors.range torch.CPU 0L 6L).``to`` torch.float32).reshape(1L, 2L, 3L)

let private reading =
    testList
        "reading"
        [ test "the bytes of the format's own writer" (fun () ->
              let read = readBytes golden |> Check.get
              Expect.sequenceEqual read.Tensors.Keys [ "attn.0" ] "names"
              identical "attn.0" read.Tensors["attn.0"] (sixNumbers ())
              Expect.isEmpty read.Metadata "nothing about it")
          test "types, texts and the order of the numbers" (fun () ->
              let read = readBytes two |> Check.get
              Expect.equal read.Metadata (Map [ "method", "dns" ]) "texts"
              identical "text" read.Tensors["text"] (torch.tensor([| 1f; 2f |]).reshape(1L, 2L))
              identical "audio" read.Tensors["audio"] (torch.tensor([| 1f; 2f |]).``to`` torch.float16))
          test "a number alone, and no numbers" (fun () ->
              let header =
                  """{"a":{"dtype":"I64","shape":[],"data_offsets":[0,8]},"b":{"dtype":"F64","shape":[0,3],"data_offsets":[8,8]}}"""

              let read = readBytes (file header (BitConverter.GetBytes 7L)) |> Check.get
              Expect.equal (read.Tensors["a"].item<int64>()) 7L "a"
              Expect.equal read.Tensors["b"].shape [| 0L; 3L |] "b")
          testCase "a file that is not there" (fun () ->
              match withFile Safetensors.read with
              | Error [ Fault.Missing _ ] -> ()
              | other -> failtest $"%A{other}")
          testCase "only the tensors are the caller's" (fun () ->
              let mutable read = Unchecked.defaultof<NamedTensors>
              Expect.equal (leaked (fun () -> read <- readBytes two |> Check.get)) 2L "tensors"

              for t in read.Tensors.Values do
                  t.Dispose()) ]

let private refusals =
    let refused title (words: string) (bytes: byte[]) =
        testCase title (fun () ->
            match readBytes bytes with
            | Error [ Fault.Unreadable(path, reason) ] ->
                Expect.stringEnds path "x.safetensors" "the file is named"
                Expect.stringContains reason words "the reason"
            | other -> failtest $"%A{other}")

    let entry = """{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"""
    let withOne title words (one: string) = refused title words (file ("{\"a\":" + one + "}") (Array.zeroCreate 8))

    let two' (name: string) (other: string) (size: int) =
        file ("{\"a\":" + entry + ",\"" + name + "\":" + other + "}") (Array.zeroCreate size)

    testList
        "refused"
        [ refused "an empty file" "it is empty" [||]
          refused
              "a header of 4 GB"
              "4294967296 bytes; 100000000 are the most"
              (Array.append (BitConverter.GetBytes(1L <<< 32)) golden)
          refused
              "a header of 2⁶⁴ bytes"
              "18446744073709551615 bytes"
              (Array.append (BitConverter.GetBytes UInt64.MaxValue) golden)
          refused
              "a header longer than the file"
              "only 80 follow"
              (Array.append (BitConverter.GetBytes 99L) (Array.skip 16 golden))
          refused "torn numbers" "promises 24 bytes of numbers, but 23 follow" (Array.take 95 golden)
          refused "numbers that nothing names" "promises 24 bytes of numbers, but 25 follow" (Array.append golden [| 0uy |])
          refused "no JSON" "does not begin with '{'" (file "[]" [||])
          refused "spaces before the JSON" "does not begin with '{'" (file " {}" [||])
          refused "broken JSON" "not valid JSON" (file "{\"a\":" [||])
          refused
              "bytes that are no text"
              "not valid JSON"
              (Array.concat [ BitConverter.GetBytes 4L; [| byte '{'; byte '"'; 255uy; 254uy |] ])
          refused "a name twice" "names 'a' twice" (two' "a" entry 8)
          refused
              "a hole"
              "'b' leaves a hole before it: it begins at byte 12, expected 8"
              (two' "b" """{"dtype":"F32","shape":[1],"data_offsets":[12,16]}""" 16)
          refused
              "an overlap"
              "'b' overlaps another tensor: it begins at byte 4, expected 8"
              (two' "b" """{"dtype":"F32","shape":[1],"data_offsets":[4,8]}""" 8)
          refused "metadata that are no texts" "'x', which is not a text" (file """{"__metadata__":{"x":1}}""" [||])
          refused "metadata that are no object" "__metadata__ is not a JSON object" (file """{"__metadata__":[]}""" [||])
          withOne "a type of 8-bit floats" "'F8_E4M3'" """{"dtype":"F8_E4M3","shape":[8],"data_offsets":[0,8]}"""
          withOne "a type that is no text" "type '4'" """{"dtype":4,"shape":[2],"data_offsets":[0,8]}"""
          withOne "no shape" "no 'shape'" """{"dtype":"F32","data_offsets":[0,8]}"""
          withOne "another key" "unknown key 'stride'" """{"dtype":"F32","shape":[2],"stride":1,"data_offsets":[0,8]}"""
          withOne "a key twice" "names 'shape' twice" """{"dtype":"F32","shape":[2],"shape":[2],"data_offsets":[0,8]}"""
          withOne
              "a shape that asks for more"
              "asks for 12 bytes, but its data_offsets span 8"
              """{"dtype":"F32","shape":[3],"data_offsets":[0,8]}"""
          withOne "a negative size" "-2 where a whole number" """{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}"""
          withOne "a fraction for a size" "2.5 where a whole number" """{"dtype":"F32","shape":[2.5],"data_offsets":[0,8]}"""
          withOne "offsets the wrong way round" "not two numbers in order" """{"dtype":"F32","shape":[2],"data_offsets":[8,0]}"""
          withOne "one offset" "not two numbers in order" """{"dtype":"F32","shape":[2],"data_offsets":[8]}"""
          withOne
              "sizes whose product overflows"
              "more memory than there can be"
              """{"dtype":"F32","shape":[4611686018427387904,4611686018427387904],"data_offsets":[0,0]}"""
          withOne
              "sizes whose product wraps to what there is"
              "more memory than there can be"
              """{"dtype":"F32","shape":[2305843009213693953,8],"data_offsets":[0,8]}"""
          withOne
              "an empty side does not hide the other"
              "more memory than there can be"
              """{"dtype":"F32","shape":[0,9223372036854775807],"data_offsets":[0,0]}"""
          withOne
              "very many dimensions"
              "40 dimensions"
              ("""{"dtype":"F32","shape":[1""" + String.replicate 39 ",1" + """],"data_offsets":[0,4]}""") ]

let private writing =
    let content (tensors: (string * torch.Tensor) list) = { Tensors = Map tensors; Metadata = Map.empty }

    testList
        "writing"
        [ test "gives the bytes of the format's own writer" (fun () ->
              Expect.equal (written (content [ "attn.0", sixNumbers () ])) golden "one tensor"
              // `test_empty` of the same file.
              Expect.equal (written (content [])) [| 8uy; 0uy; 0uy; 0uy; 0uy; 0uy; 0uy; 0uy; yield! "{}      "B |] "none"

              let both =
                  content
                      [ "audio", torch.tensor([| 1f; 2f |]).``to`` torch.float16
                        "text", torch.tensor([| 1f; 2f |]).reshape(1L, 2L) ]

              Expect.equal (written { both with Metadata = Map [ "method", "dns" ] }) two "two, and a text")
          test "a transposed view is written in its own order" (fun () ->
              let t = (sixNumbers ()).reshape(2L, 3L).t()
              identical "t" (readBytes (written (content [ "t", t ])) |> Check.get).Tensors["t"] (t.contiguous ()))
          test "another type, and a tensor named as the texts are, are a programmer's mistake" (fun () ->
              for name, t in [ "z", torch.zeros (2L, dtype = torch.complex64); "__metadata__", torch.zeros 2L ] do
                  match faultOf (fun () -> written (content [ name, t ])) with
                  | Fault.BadValue _ -> ()
                  | other -> failtest $"%A{other}")
          test "a place that cannot be written is a fault, and leaves nothing" (fun () ->
              withFile (fun path ->
                  Directory.CreateDirectory path |> ignore

                  match Safetensors.write path (content [ "a", torch.zeros 2L ]) with
                  | Error [ Fault.Unwritable(named, _) ] -> Expect.equal named path "path"
                  | other -> failtest $"%A{other}"

                  Expect.isEmpty (Directory.GetFiles(string (Path.GetDirectoryName path))) "no temporary file")) ]

/// Some tensors: a type, sizes and a seed for each, and texts.
type Sample =
    { Tensors: (int * int64 list * int) list
      Texts: Map<string, string> }

type Generators =
    static member Sample() : Arbitrary<Sample> =
        let tensor =
            gen {
                let! dtype = Gen.choose (0, 9)
                let! rank = Gen.choose (0, 4)
                let! sizes = Gen.choose (0, 5) |> Gen.map int64 |> Gen.listOfLength rank
                let! seed = Gen.choose (0, 1000000)
                return dtype, sizes, seed
            }

        let text =
            Gen.elements [ "a"; "ä"; "\""; "\\"; "\n"; "語"; "😀"; " " ]
            |> Gen.listOf
            |> Gen.map (fun parts -> String.Join("", List.truncate 9 parts))

        gen {
            let! tensors = Gen.listOf tensor
            let! texts = Gen.listOf (Gen.zip text text)

            return
                { Tensors = List.truncate 5 tensors
                  Texts = Map(List.truncate 4 texts) }
        }
        |> Arb.fromGen

let private sampleOf (sample: Sample) : NamedTensors =
    let types =
        [ torch.float64; torch.float32; torch.float16; torch.bfloat16; torch.int64 ]
        @ [ torch.int32; torch.int16; torch.int8; torch.uint8; torch.bool ]

    { Tensors =
        Map
            [ for i, (dtype, shape, seed) in List.indexed sample.Tensors do
                  $"tensor \"{i}\"", (Seed.normal shape (Seed.ofInt seed) * 20.0.AsScalar()).``to``(types[dtype]).clone() ]
      Metadata = sample.Texts }

let private config =
    { FsCheckConfig.defaultConfig with
        arbitrary = [ typeof<Generators> ]
        maxTest = 300 }

/// How many damaged files; `CMCL_FUZZ=10000` looks longer.
let private fuzz =
    Environment.GetEnvironmentVariable "CMCL_FUZZ" |> Option.ofObj |> Option.map int |> Option.defaultValue 3000

let private properties =
    testList
        "properties"
        [ testPropertyWithConfig config "what is written is read back, bit for bit" (fun (sample: Sample) ->
              use scope = torch.NewDisposeScope()
              let content = sampleOf sample
              let back = readBytes (written content) |> Check.get
              Expect.equal back.Metadata content.Metadata "texts"
              Expect.sequenceEqual back.Tensors.Keys content.Tensors.Keys "names"

              for KeyValue(name, t) in content.Tensors do
                  Expect.equal back.Tensors[name].dtype t.dtype "type"
                  identical name back.Tensors[name] t)
          testPropertyWithConfig
              { config with maxTest = fuzz }
              "damaged bytes are read or refused, nothing else"
              (fun (changes: (uint16 * byte) list) (cut: int) ->
                  let bytes = Array.copy two

                  for at, value in changes do
                      // Most of the damage goes to the header, where it matters; half of it is digits and signs.
                      let place = if value % 4uy = 0uy then int at % bytes.Length else int at % 150
                      bytes[place] <- if value % 2uy = 0uy then "0123456789[]{},:\"-."B[int value % 19] else value

                  let bytes =
                      match cut % 3 with
                      | 0 -> bytes
                      | 1 -> Array.take (abs cut % bytes.Length) bytes
                      | _ -> Array.append bytes (Array.zeroCreate (abs cut % 20))

                  use scope = torch.NewDisposeScope()

                  match readBytes bytes with
                  | Ok read ->
                      Expect.isLessThanOrEqual
                          (Seq.sumBy Tensors.bytes read.Tensors.Values)
                          (int64 bytes.Length)
                          "no more than the file holds"
                  | Error [ Fault.Unreadable(_, reason) ] -> Expect.isFalse (reason.Contains '\n') "one sentence"
                  | Error other -> failtest $"%A{other}") ]

/// Runs Python with the real library, or says why not.
let private python (code: string) (arguments: string list) : string =
    let run (arguments: string list) =
        try
            let info = ProcessStartInfo("python3", arguments, RedirectStandardOutput = true, RedirectStandardError = true)

            match Process.Start info with
            | null -> None
            | p ->
                use p = p
                let out = p.StandardOutput.ReadToEnd()
                p.WaitForExit()
                if p.ExitCode = 0 then Some out else None
        with :? ComponentModel.Win32Exception ->
            None

    if (run [ "-c"; "import safetensors.numpy" ]).IsNone then
        skiptest "Python's safetensors is not here"

    run ([ "-c"; code ] @ arguments) |> Option.defaultWith (fun () -> failtest "Python failed")

let private withPython =
    testList
        "the real library"
        [ test "reads what is written here" (fun () ->
              withFile (fun path ->
                  let content =
                      { Tensors = Map [ "text", torch.tensor([| 1f; 2f |]).reshape(1L, 2L) ]
                        Metadata = Map [ "method", "dns" ] }

                  Safetensors.write path content |> Check.get

                  let out =
                      python
                          "import sys, safetensors; f = safetensors.safe_open(sys.argv[1], 'np'); print(f.metadata(), f.get_tensor('text').tolist())"
                          [ path ]

                  Expect.equal (out.Trim()) "{'method': 'dns'} [[1.0, 2.0]]" "what it read"))
          test "writes what is read here" (fun () ->
              withFile (fun path ->
                  python
                      "import sys, numpy as n; from safetensors.numpy import save_file as s; s({'b': n.arange(6, dtype='<f2').reshape(2, 3), 'a': n.ones(2, dtype='<i8')}, sys.argv[1], {'k': 'v'})"
                      [ path ]
                  |> ignore

                  let read = Safetensors.read path |> Check.get
                  identical "b" read.Tensors["b"] ((Tensors.range torch.CPU 0L 6L).reshape(2L, 3L).``to`` torch.float16)
                  identical "a" read.Tensors["a"] (torch.ones (2L, dtype = torch.int64))
                  Expect.equal read.Metadata (Map [ "k", "v" ]) "texts")) ]

let tests = testList "Safetensors" [ reading; refusals; writing; properties; withPython ]
