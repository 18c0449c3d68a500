/// Small encoders as files, made byte by byte.
module Cmcl.Tests.Models

open System
open System.IO
open System.IO.Compression
open System.Text

// ---- ONNX (Protocol Buffers, onnx.proto3) ------------------------------------------------------------------------

let rec private varint (n: uint64) : byte list =
    if n < 128UL then [ byte n ] else byte (n &&& 127UL ||| 128UL) :: varint (n >>> 7)

let private number (field: int) (n: int64) : byte list = varint (uint64 (field <<< 3)) @ varint (uint64 n)

let private bytes (field: int) (content: byte list) : byte list =
    varint (uint64 (field <<< 3 ||| 2)) @ varint (uint64 content.Length) @ content

let private text (field: int) (s: string) : byte list = bytes field (List.ofArray (Encoding.UTF8.GetBytes s))

/// An operation: its kind, what goes in, what comes out, a whole number that it takes (by name).
let private node (kind: string) (inputs: string list) (output: string) (attribute: (string * int64) option) : byte list =
    let attribute =
        match attribute with
        | Some(name, n) -> bytes 5 (text 1 name @ number 3 n @ number 20 2L)
        | None -> []

    bytes 1 (List.collect (text 1) inputs @ text 2 output @ text 4 kind @ attribute)

let private weights (name: string) (sides: int64 list) (values: float32 list) : byte list =
    let raw = values |> List.collect (BitConverter.GetBytes >> List.ofArray)
    bytes 5 (List.collect (number 1) sides @ number 2 1L @ text 8 name @ bytes 9 raw)

/// Float is 1, int64 is 7; a side of −1 may be of any size.
let private value (field: int) (kind: int64) (name: string) (sides: int64 list) : byte list =
    let side n = bytes 1 (if n < 0L then text 2 "n" else number 1 n)
    bytes field (text 1 name @ bytes 2 (bytes 1 (number 1 kind @ bytes 2 (List.collect side sides))))

let private model (graph: byte list) : byte[] =
    Array.ofList (number 1 8L @ bytes 8 (text 1 "" @ number 2 13L) @ bytes 7 (graph @ text 2 "made"))

/// Items of the given sides (the first how many there are) → one row each → x W + b, W of (all numbers of an item) × d.
let linear (sides: int64 list) (d: int) (w: float32 list) (b: float32 list) : byte[] =
    model (
        node "Flatten" [ "x" ] "rows" (Some("axis", 1L))
        @ node "MatMul" [ "rows"; "w" ] "product" None
        @ node "Add" [ "product"; "b" ] "y" None
        @ weights "w" [ int64 (w.Length / d); int64 d ] w
        @ weights "b" [ int64 d ] b
        @ value 11 1L "x" sides
        @ value 12 1L "y" [ -1L; int64 d ]
    )

/// Token numbers and their mask (int64, n × length) → their products as floats, n × length.
let tokens (length: int64) : byte[] =
    model (
        node "Mul" [ "ids"; "mask" ] "kept" None
        @ node "Cast" [ "kept" ] "y" (Some("to", 1L))
        @ value 11 7L "ids" [ -1L; length ]
        @ value 11 7L "mask" [ -1L; length ]
        @ value 12 1L "y" [ -1L; length ]
    )

/// Token numbers and their mask → what encoders of texts give: `last_hidden_state`, n × length × 2, each number and its square; and `first`, n × 1, the
/// place of the largest number.
let states (length: int64) : byte[] =
    model (
        node "Mul" [ "ids"; "mask" ] "kept" None
        @ node "Cast" [ "ids" ] "numbers" (Some("to", 1L))
        @ node "Mul" [ "numbers"; "numbers" ] "squares" None
        @ node "Unsqueeze" [ "numbers"; "two" ] "a" None
        @ node "Unsqueeze" [ "squares"; "two" ] "b" None
        @ node "Concat" [ "a"; "b" ] "last_hidden_state" (Some("axis", 2L))
        @ node "Cast" [ "kept" ] "masked" (Some("to", 1L))
        @ node "ArgMax" [ "masked" ] "place" (Some("axis", 1L))
        @ node "Cast" [ "place" ] "first" (Some("to", 1L))
        @ bytes 5 (number 1 1L @ number 2 7L @ text 8 "two" @ bytes 9 (List.ofArray (BitConverter.GetBytes 2L)))
        @ value 11 7L "ids" [ -1L; length ]
        @ value 11 7L "mask" [ -1L; length ]
        @ value 12 1L "last_hidden_state" [ -1L; length; 2L ]
        @ value 12 1L "first" [ -1L; 1L ]
    )

/// `linear` of images of 4 × 4 that also takes token numbers, n × 2, and adds their sum to nothing.
let withTokens (d: int) (w: float32 list) (b: float32 list) : byte[] =
    model (
        node "Flatten" [ "x" ] "rows" (Some("axis", 1L))
        @ node "MatMul" [ "rows"; "w" ] "product" None
        @ node "Add" [ "product"; "b" ] "plain" None
        @ node "Cast" [ "ids" ] "numbers" (Some("to", 1L))
        @ node "MatMul" [ "numbers"; "ones" ] "sum" None
        @ node "Add" [ "plain"; "sum" ] "y" None
        @ weights "w" [ int64 (w.Length / d); int64 d ] w
        @ weights "b" [ int64 d ] b
        @ weights "ones" [ 2L; 1L ] [ 1f; 1f ]
        @ value 11 1L "x" [ -1L; 3L; 4L; 4L ]
        @ value 11 7L "ids" [ -1L; 2L ]
        @ value 12 1L "y" [ -1L; int64 d ]
    )

/// Images as they are, in float16 in and out, all numbers of an item in a row.
let half (sides: int64 list) : byte[] =
    model (
        node "Flatten" [ "x" ] "y" (Some("axis", 1L))
        @ value 11 10L "x" sides
        @ value 12 10L "y" [ -1L; List.reduce (*) sides.Tail ]
    )

// ---- TorchScript -------------------------------------------------------------------------------------------------

let private archive (path: string) (entries: (string * byte[]) list) : unit =
    use zip = ZipFile.Open(path, ZipArchiveMode.Create)

    for name, content in entries do
        use stream = zip.CreateEntry("made/" + name, CompressionLevel.NoCompression).Open()
        stream.Write(ReadOnlySpan content)

/// A module without weights whose `forward` has these arguments and this body.
let script (path: string) (arguments: string) (result: string) (body: string list) : unit =
    let head =
        [ "class M(Module):"
          "  __parameters__ = []"
          "  __buffers__ = []"
          "  training : bool"
          $"  def forward(self: __torch__.M, {arguments}) -> {result}:" ]

    let code = head @ [ for line in body -> "    " + line ]

    // An object of the class M whose `training` is false, in the format that libtorch keeps modules in.
    let data =
        [| yield! [| 0x80uy; 2uy |]
           yield! "c__torch__\nM\n)"B
           0x81uy
           yield! "}(X\x08\x00\x00\x00training"B
           0x89uy
           yield! "ub."B |]

    archive
        path
        [ "data.pkl", data
          "code/__torch__.py", Encoding.UTF8.GetBytes(String.Join("\n", code) + "\n")
          "constants.pkl", [| 0x80uy; 2uy; byte ')'; byte '.' |]
          "version", "3\n"B ]

/// What `torch.save` writes of weights: an archive without a program.
let pickled (path: string) : unit =
    archive path [ "data.pkl", [| 0x80uy; 2uy; byte '}'; byte '.' |]; "version", "3\n"B; "data/0", [| 0uy; 0uy; 0uy; 0uy |] ]
