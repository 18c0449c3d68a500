module Cmcl.Tests.NpyTests

open System
open System.IO
open System.Text
open Expecto
open FsCheck
open FsCheck.FSharp
open TorchSharp
open Cmcl
open Cmcl.Tests.Checks

/// Runs `act` with the path of a file in a folder of its own, which is gone afterwards.
let private withFile (act: string -> 'a) : 'a =
    let folder = Directory.CreateTempSubdirectory "cmcl-npy"

    try
        act (Path.Combine(folder.FullName, "x.npy"))
    finally
        folder.Delete true

let private same (a: torch.Tensor) (b: torch.Tensor) : bool =
    use scope = torch.NewDisposeScope()
    a.contiguous().bytes.ToArray() = b.contiguous().bytes.ToArray()

/// What `Npy.read` makes of a file's bytes, after `Npy.map` made the same of them.
let private readBytes (bytes: byte[]) : Result<torch.Tensor, Fault list> =
    withFile (fun path ->
        File.WriteAllBytes(path, bytes)
        let read = Npy.read path

        match read, Npy.map path with
        | Ok t, Ok mapped ->
            use mapped = mapped
            Expect.equal (mapped.dtype, List.ofArray mapped.shape) (t.dtype, List.ofArray t.shape) "type and shape when mapped"
            Expect.isTrue (same mapped t) "values when mapped"
        | Error faults, Error others -> Expect.equal others faults "faults when mapped"
        | _, other -> failtest $"when mapped: %A{other}"

        read)

/// A file of the given version whose header is padded as the format asks, and by some bytes more.
let private spacious (spare: int) (version: int) (header: string) (body: byte[]) : byte[] =
    let width = if version = 1 then 2 else 4
    let room = 64 - (8 + width + Encoding.UTF8.GetByteCount header + 1) % 64 + spare
    let header = Encoding.UTF8.GetBytes(header + String(' ', room) + "\n")

    Array.concat
        [ [| 0x93uy |]
          "NUMPY"B
          [| byte version; 0uy |]
          Array.take width (BitConverter.GetBytes header.Length)
          header
          body ]

let private file = spacious 0

let private floats (values: float32 list) : byte[] = values |> List.map BitConverter.GetBytes |> Array.concat

let private sixFloats = floats [ 0f; 1f; 2f; 3f; 4f; 5f ]

let private header (descr: string) (fortran: string) (shape: string) =
    $"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}"

let private plain = header "'<f4'" "False" "(2, 3)"

/// What `numpy.save` writes for `numpy.arange(6, dtype='<f4').reshape(2, 3)`, by the format's description (NumPy 1.23 and
/// later): the header takes 118 bytes ('v'), so that the numbers begin at byte 128.
let private golden =
    Array.concat
        [ [| 0x93uy |]
          Encoding.ASCII.GetBytes(
              "NUMPY\x01\x00v\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }" + String(' ', 58) + "\n"
          )
          sixFloats ]

let private refused (words: string) (bytes: byte[]) () =
    match readBytes bytes with
    | Ok t -> failtest $"read as {Tensors.shapeText t}"
    | Error [ Fault.Unreadable(path, reason) ] ->
        Expect.stringEnds path "x.npy" "the file is named"
        Expect.stringContains reason words "the reason"
    | Error other -> failtest $"%A{other}"

let private isMatrix (bytes: byte[]) () =
    use scope = torch.NewDisposeScope()
    let t = Check.get (readBytes bytes)
    Expect.equal t.shape [| 2L; 3L |] "shape"
    Expect.equal (t.data<float32>().ToArray()) [| 0f; 1f; 2f; 3f; 4f; 5f |] "values"
    Expect.isTrue (t.is_contiguous ()) "rows lie one after another"

let private reading =
    testList
        "reading"
        [ testCase "NumPy's own bytes" (isMatrix golden)
          for version in 1..3 do
              testCase $"version {version}" (isMatrix (file version plain sixFloats))
          testCase "Fortran order" (isMatrix (file 1 (header "'<f4'" "True" "(2, 3)") (floats [ 0f; 3f; 1f; 4f; 2f; 5f ])))
          testCase
              "keys in another order and no last comma"
              (isMatrix (file 1 "{'shape': (2, 3), 'fortran_order': False, \"descr\": \"<f4\"}" sixFloats))
          testCase "no rows" (fun () ->
              use t = Check.get (readBytes (file 1 (header "'<f8'" "False" "(0, 3)") [||]))
              Expect.equal t.shape [| 0L; 3L |] "shape")
          testCase "a file that is not there" (fun () ->
              for read in [ Npy.read; Npy.map ] do
                  match withFile read with
                  | Error [ Fault.Missing _ ] -> ()
                  | other -> failtest $"%A{other}") ]

let private refusals =
    let withHeader descr shape = file 1 (header descr "False" shape) sixFloats

    testList
        "refused"
        [ testCase "big-endian" (refused "big-endian" (withHeader "'>f4'" "(2, 3)"))
          testCase "objects" (refused "Python objects" (withHeader "'|O'" "(2, 3)"))
          testCase "records" (refused "fields" (withHeader "[('x', '<f4'), ('y', '<f4')]" "(3,)"))
          testCase "bytes" (refused "'|u1'" (withHeader "'|u1'" "(24,)"))
          testCase "complex" (refused "'<c8'" (withHeader "'<c8'" "(3,)"))
          testCase "no dimension" (refused "0 dimensions" (withHeader "'<f4'" "()"))
          testCase "three dimensions" (refused "3 dimensions" (withHeader "'<f4'" "(1, 2, 3)"))
          testCase "negative size" (refused "dictionary" (withHeader "'<f4'" "(-2, 3)"))
          testCase "size beyond 64 bits" (refused "shape" (withHeader "'<f4'" "(99999999999999999999,)"))
          testCase "too few numbers" (refused "promises 32 bytes" (withHeader "'<f4'" "(2, 4)"))
          testCase "too many numbers" (refused "promises 16 bytes" (withHeader "'<f4'" "(2, 2)"))
          testCase "terabytes promised" (refused "promises 4398046511104 bytes" (withHeader "'<f4'" "(1048576, 1048576)"))
          testCase
              "sizes whose product overflows"
              (refused "more memory" (withHeader "'<f4'" "(4611686018427387904, 4611686018427387904)"))
          testCase
              "sizes whose product wraps to what the file holds"
              (refused "more memory" (withHeader "'<f4'" "(2305843009213693953, 8)"))
          testCase "an empty side does not hide the other" (refused "more memory" (withHeader "'<f4'" "(0, 9223372036854775807)"))
          testCase "a key twice" (refused "dictionary" (file 1 "{'descr': '<f4', 'descr': '<f4', 'shape': (2, 3)}" sixFloats))
          testCase "another key" (refused "dictionary" (file 1 (plain.Replace("shape", "size")) sixFloats))
          testCase "version 4" (refused "version 4.0" (file 4 plain sixFloats))
          testCase "another format" (refused "not a .npy" (Encoding.ASCII.GetBytes "PK\x03\x04 and so on"))
          testCase "an empty file" (refused "it is empty" [||])
          testCase "a torn header" (refused "ends in the middle" (Array.take 60 golden))
          testCase "torn numbers" (refused "only 23 follow" (Array.take 151 golden))
          testCase
              "a header of 4 GB"
              (refused "4294967295 bytes" (Array.concat [ [| 0x93uy |]; "NUMPY"B; [| 2uy; 0uy |]; Array.create 4 255uy ])) ]

/// A type, sizes and a seed for the values.
type Sample = { Type: int; Shape: int64 list; Seed: int }

type Generators =
    static member Sample() : Arbitrary<Sample> =
        gen {
            let! dtype = Gen.choose (0, 4)
            let! sizes = Gen.choose (0, 9) |> Gen.listOfLength 2
            let! rank = Gen.choose (1, 2)
            let! seed = Gen.choose (0, 1000000)

            return
                { Type = dtype
                  Shape = sizes |> List.take rank |> List.map int64
                  Seed = seed }
        }
        |> Arb.fromGen

let private config =
    { FsCheckConfig.defaultConfig with
        arbitrary = [ typeof<Generators> ]
        maxTest = 500 }

let private types =
    [ torch.ScalarType.Float16
      torch.ScalarType.Float32
      torch.ScalarType.Float64
      torch.ScalarType.Int32
      torch.ScalarType.Int64 ]

let private tensor (sample: Sample) : torch.Tensor =
    Tensors.scoped (fun () ->
        (Seed.normal sample.Shape (Seed.ofInt sample.Seed) * 100.0.AsScalar()).``to``(types[sample.Type]).clone())

/// Bytes after some damage: single bytes changed, the end cut off or added to.
let private damaged (bytes: byte[]) (changes: (uint16 * byte) list) (cut: int) : byte[] =
    let copy = Array.copy bytes

    for at, value in changes do
        // Most of the damage goes to the header, where it matters.
        let place = if value % 4uy = 0uy then int at % copy.Length else int at % 90
        copy[place] <- if value % 3uy = 0uy then byte (48 + int value % 10) else value

    match cut % 3 with
    | 0 -> copy
    | 1 -> Array.take (abs cut % copy.Length) copy
    | _ -> Array.append copy (Array.create (abs cut % 20) 0uy)

let private properties =
    testList
        "properties"
        [ testPropertyWithConfig config "what is written is read back, bit for bit" (fun (sample: Sample) ->
              use scope = torch.NewDisposeScope()
              let t = tensor sample

              let back =
                  withFile (fun path ->
                      Check.get (Npy.write path t)
                      Check.get (Npy.read path))

              Expect.equal back.dtype t.dtype "type"
              Expect.equal back.shape t.shape "shape"
              Expect.isTrue (same back t) "values")
          testPropertyWithConfig config "a transposed view is written in its own order" (fun (sample: Sample) ->
              use scope = torch.NewDisposeScope()
              let t = (tensor { sample with Shape = [ 3L; 5L ] }).t()

              let back =
                  withFile (fun path ->
                      Check.get (Npy.write path t)
                      Check.get (Npy.read path))

              Expect.isTrue (same back t) "values")
          testPropertyWithConfig
              config
              "damaged bytes are read or refused, nothing else"
              (fun (changes: (uint16 * byte) list) (cut: int) ->
                  let bytes = damaged golden changes cut

                  match readBytes bytes with
                  | Ok t ->
                      use t = t
                      Expect.isLessThanOrEqual (Tensors.bytes t) (int64 bytes.Length) "no more than the file holds"
                  | Error faults ->
                      Expect.hasLength faults 1 "one fault"

                      match faults[0] with
                      | Fault.Unreadable(_, reason) -> Expect.isFalse (reason.Contains '\n') "one sentence"
                      | other -> failtest $"%A{other}") ]

let private writing =
    testList
        "writing"
        [ testCase "gives NumPy's bytes" (fun () ->
              withFile (fun path ->
                  use t = ((Tensors.range torch.CPU 0L 6L).``to`` torch.float32).reshape(2L, 3L)
                  Check.get (Npy.write path t)
                  Expect.equal (File.ReadAllBytes path) golden "bytes"))
          testCase "replaces a file and leaves nothing beside it" (fun () ->
              withFile (fun path ->
                  File.WriteAllText(path, "something older")
                  use t = Tensors.range torch.CPU 0L 5L
                  Check.get (Npy.write path t)
                  use back = Check.get (Npy.read path)
                  Expect.isTrue (same back t) "values"
                  let folder = string (Path.GetDirectoryName path)
                  Expect.equal (Directory.GetFiles(folder)) [| path |] "one file"))
          testCase "a folder that is not there is a fault" (fun () ->
              withFile (fun path ->
                  use t = Tensors.range torch.CPU 0L 5L
                  let target = Path.Combine(path, "deeper", "y.npy")

                  match Npy.write target t with
                  | Error [ Fault.Unwritable(named, _) ] -> Expect.equal named target "path"
                  | other -> failtest $"%A{other}"))
          testCase "a place that cannot be replaced keeps what it has, and nothing half-written" (fun () ->
              withFile (fun path ->
                  Directory.CreateDirectory path |> ignore
                  use t = Tensors.range torch.CPU 0L 5L

                  match Npy.write path t with
                  | Error [ Fault.Unwritable _ ] ->
                      let folder = string (Path.GetDirectoryName path)
                      Expect.isEmpty (Directory.GetFiles folder) "no temporary file"
                  | other -> failtest $"%A{other}"))
          testCase "another type or rank is a programmer's mistake" (fun () ->
              withFile (fun path ->
                  use bytes = torch.zeros (3L, dtype = Nullable torch.uint8)
                  use cube = torch.zeros (1L, 2L, 3L)
                  Expect.throwsT<CmclException> (fun () -> Npy.write path bytes |> ignore) "type"
                  Expect.throwsT<CmclException> (fun () -> Npy.write path cube |> ignore) "rank"
                  Expect.isFalse (File.Exists path) "nothing written")) ]

/// How often this process has a file mapped, by Linux's account.
let private mappings (path: string) : int = File.ReadLines "/proc/self/maps" |> Seq.filter _.EndsWith(path) |> Seq.length

let private onLinux name (body: string -> unit) =
    testCase name (fun () ->
        if OperatingSystem.IsLinux() then
            withFile body
        else
            skiptest "only Linux tells what a process has mapped")

/// A file of any bytes as numbers, its header longer by `spare` bytes than it need be.
let private anyNumbers (sample: Sample) (spare: int) (fortran: bool) : byte[] =
    let descr = [ "'<f2'"; "'<f4'"; "'<f8'"; "'<i4'"; "'<i8'" ][sample.Type]
    let body = Array.zeroCreate<byte>(types[sample.Type].ElementSize() * int (List.reduce (*) sample.Shape))
    Random(sample.Seed).NextBytes body
    spacious spare 1 (header descr (string fortran) $"""({String.Join(", ", sample.Shape)},)""") body

let private mapping =
    let writeSome (path: string) =
        use t = Tensors.range torch.CPU 0L 1000L
        Check.get (Npy.write path t)

    testList
        "mapping"
        [ testPropertyWithConfig
              config
              "any type, shape, order and place of the numbers gives the tensor that is read"
              (fun (sample: Sample) (spare: byte) (fortran: bool) ->
                  use read = Check.get (readBytes (anyNumbers sample (int spare) fortran))
                  Expect.equal read.dtype types[sample.Type] "type"
                  Expect.equal read.shape (Array.ofList sample.Shape) "shape"
                  Expect.isTrue (read.is_contiguous ()) "rows lie one after another")
          onLinux "what lies as a tensor lies is mapped, the rest is copied" (fun path ->
              let expectMapped (expected: bool) (what: string) (bytes: byte[]) =
                  File.WriteAllBytes(path, bytes)
                  use t = Check.get (Npy.map path)
                  Expect.equal (mappings path) (if expected then 1 else 0) what

              for dtype in 0 .. types.Length - 1 do
                  let matrix = { Type = dtype; Shape = [ 3L; 5L ]; Seed = 1 }
                  expectMapped true "a matrix" (anyNumbers matrix 0 false)
                  expectMapped true "a vector in either order" (anyNumbers { matrix with Shape = [ 7L ] } 0 true)

                  expectMapped
                      true
                      "a header that is longer by one number"
                      (anyNumbers matrix (types[dtype].ElementSize()) false)

                  expectMapped false "a header that is longer by a byte" (anyNumbers matrix 1 false)
                  expectMapped false "a matrix in Fortran order" (anyNumbers matrix 0 true)
                  expectMapped false "no numbers" (anyNumbers { matrix with Shape = [ 0L; 5L ] } 0 false))
          onLinux "the mapping ends with the last view of the tensor" (fun path ->
              writeSome path
              let t = Check.get (Npy.map path)
              let view = t.narrow (0L, 990L, 10L)
              t.Dispose()
              Expect.equal (mappings path) 1 "a view is left"
              Expect.equal (view.data<int64>().ToArray()) [| 990L .. 999L |] "which is as it was"
              view.Dispose()
              Expect.equal (mappings path) 0 "nothing is left")
          testCase "one tensor is the caller's, mapped or copied" (fun () ->
              for fortran in [ false; true ] do
                  withFile (fun path ->
                      File.WriteAllBytes(path, anyNumbers { Type = 1; Shape = [ 3L; 5L ]; Seed = 1 } 0 fortran)
                      let mutable kept = Unchecked.defaultof<torch.Tensor>
                      Expect.equal (leaked (fun () -> kept <- Check.get (Npy.map path))) 1L "tensors"
                      kept.Dispose()))
          testCase "a change in place stays with the tensor" (fun () ->
              withFile (fun path ->
                  writeSome path
                  let before = File.ReadAllBytes path
                  use t = Check.get (Npy.map path)
                  use other = Check.get (Npy.map path)
                  t.zero_().Dispose()
                  Expect.equal (t.data<int64>().ToArray()) (Array.zeroCreate 1000) "the tensor"
                  Expect.equal (other.data<int64>().ToArray()) [| 0L .. 999L |] "another tensor of the file"
                  Expect.equal (File.ReadAllBytes path) before "the file"))
          onLinux "a file that is replaced or deleted leaves the tensor as it is" (fun path ->
              writeSome path
              use t = Check.get (Npy.map path)
              use shorter = torch.zeros 3L
              Check.get (Npy.write path shorter)
              Expect.equal (t.data<int64>().ToArray()) [| 0L .. 999L |] "replaced"
              File.Delete path
              Expect.equal (t.data<int64>().ToArray()) [| 0L .. 999L |] "deleted")
          onLinux "128 MiB that are mapped take no memory, and are seen to when they are read" (fun path ->
              zeros path 65536L 1024L

              let passed (read: string -> Result<torch.Tensor, Fault list>) () =
                  let t = Check.get (read path)
                  Expect.isNone (Tensors.nonFiniteRow t) "zeros"

              Expect.isLessThan (taken (passed Npy.map)) (16L <<< 20) "mapped"
              Expect.isGreaterThan (taken (passed Npy.read)) (112L <<< 20) "read") ]

let tests = testList "Npy" [ reading; refusals; properties; writing; mapping ]
