/// Tables of files of arrays: HDF5 as h5py writes it, PyTorch's files, safetensors.
module Cmcl.Tests.ImportArrayTests

open System
open System.IO
open Expecto
open TorchSharp
open Cmcl
open Cmcl.Tests.Checks
open Cmcl.Tests.ImportFiles
open Cmcl.Tests.ImportInteropTests

/// All rows of some columns.
let private rowsOf' (table: Table) (names: string list) : torch.Tensor =
    let read = ResizeArray()

    table.Numbers names (fun first block ->
        Expect.equal first (read |> Seq.sumBy (fun (t: torch.Tensor) -> t.shape[0])) "blocks follow each other"
        read.Add(block.MoveToOuterDisposeScope()))
    |> Check.get

    torch.cat (read.ToArray())

let private holds (table: Table) (name: string) = (table.Columns |> List.find (fun c -> c.Name = name)).Holds

let private other (table: Table) (name: string) (words: string list) =
    match holds table name with
    | Holds.Other what ->
        for word in words do
            Expect.stringContains what word "what it is"

        Expect.isError (table.Numbers [ name ] (fun _ _ -> failtest "a row")) "no features"
        Expect.isError (table.Words name) "no words"
    | other -> failtest $"%A{other}"

// ---- HDF5 --------------------------------------------------------------------------------------------------------

let private storages =
    [ "contiguous", "{}"
      "in chunks of h5py's choice", "dict(chunks=True)"
      "in odd chunks", "dict(chunks=(7, 3))"
      "that can grow", "dict(maxshape=(None, None))"
      "that can grow in one way", "dict(maxshape=(None, 257), chunks=(100, 257))"
      "gzip", "dict(compression='gzip')"
      "gzip, shuffled, with checksums", "dict(compression='gzip', shuffle=True, fletcher32=True, chunks=(64, 100))"
      "LZF", "dict(compression='lzf')"
      "LZF, shuffled", "dict(compression='lzf', shuffle=True, chunks=(50, 257))"
      "LZF, shuffled, with checksums", "dict(compression='lzf', shuffle=True, fletcher32=True)" ]

/// Arrays of random numbers, which do not pack, and of small whole ones, which do; longer than a block.
let private writeStored =
    """
import h5py, numpy as np, sys
folder, libver, dtype = sys.argv[1], eval(sys.argv[2]), sys.argv[3]
rng = np.random.default_rng(0)
arrays = [("random", rng.standard_normal((4200, 257)).astype(dtype)), ("small", rng.integers(0, 5, (4200, 257)).astype(dtype))]
for name, a in arrays: np.save(f"{folder}/{name}.npy", a.astype(dtype.replace(">", "<")))
for i, options in enumerate(sys.argv[4:]):
    with h5py.File(f"{folder}/{i}.h5", "w", libver=libver) as f:
        for name, a in arrays: f.create_dataset(name, data=a, **eval(options))
with h5py.File(f"{folder}/part.h5", "w", libver=libver) as f:
    f.create_dataset("group/within/empty", shape=(0, 4), dtype=dtype)
    part = f.create_dataset("part", shape=(50, 3), dtype=dtype, chunks=(4, 3), fillvalue=1.5)
    part[8:10] = 2
"""

let private stored =
    [ for libver, dtype in [ "None", "<f4"; "'latest'", "<f2"; "None", ">f8"; "'latest'", ">f4" ] do
          testCase $"HDF5: {dtype}, libver {libver}, in every storage" (fun () ->
              inFolder (fun folder ->
                  python "h5py, numpy" writeStored (folder :: libver :: dtype :: List.map snd storages)

                  let expected =
                      [ for name in [ "random"; "small" ] -> name, Npy.read (Path.Combine(folder, name + ".npy")) |> Check.get ]

                  for i, (title, _) in List.indexed storages do
                      let table = Hdf5Table.read (Path.Combine(folder, $"{i}.h5")) |> Check.get

                      for name, values in expected do
                          Expect.equal (holds table name) (Holds.Vector(values.dtype, 257L)) "head"
                          identical $"{title}: {name}" (rowsOf' table [ name ]) values

                      if i = 2 then
                          identical
                              "side by side"
                              (rowsOf' table [ "small"; "random" ])
                              (torch.cat ([| snd expected[1]; snd expected[0] |], 1L))

                  let table = Hdf5Table.read (Path.Combine(folder, "part.h5")) |> Check.get
                  let read = rowsOf' table [ "part" ]
                  let part = torch.full ([| 50L; 3L |], 1.5.AsScalar(), dtype = Nullable read.dtype)
                  part.narrow(0L, 8L, 2L).fill_(2.0.AsScalar()) |> ignore
                  identical "what was never written" read part
                  let empty = table.Columns |> List.find (fun c -> c.Name = "group/within/empty")
                  Expect.equal empty.Rows 0L "no rows, in a group")) ]

let private writeWords =
    """
import h5py, numpy as np, sys
for libver, name in [(None, "x"), ("latest", "y")]:
    with h5py.File(f"{sys.argv[1]}/{name}.h5", "w", libver=libver) as f:
        f["fixed"] = np.char.encode(["a", "\u00fc", "", "longer one"], "utf-8").astype(h5py.string_dtype("utf-8", 12))
        f["bytes"] = np.array([b"a", b"bc", b"", b"longer one"])
        f["varying"] = ["a", "\u00fc", "", "longer one"]
        f["packed"] = f.create_dataset("p", data=["a", "\u00fc", "", "longer one"], dtype=h5py.string_dtype(), compression="gzip", chunks=(3,))
        f.create_dataset("column", data=np.array([["a"], ["\u00fc"], [""], ["longer one"]], object), dtype=h5py.string_dtype())
        for t in ["i1", "i2", "<i4", ">i4", "<i8", ">i8"]: f["int " + t] = np.array([1, -2, 3, 100], t)
        for t in ["u1", "<u2", ">u4", "<u8"]: f["uint " + t] = np.array([1, 2, 3, np.iinfo(t).max], t)
        f["bool"] = np.array([True, False, True, True])
        f["float"] = np.array([1, 2.5, np.nan, -3e10])
        f["float32"] = np.array([1, 0.1, np.nan, 16777216], "f4")
        f["features"] = np.arange(12, dtype="f4").reshape(4, 1, 3)
        f["features"].attrs["none"] = h5py.Empty("f4")
        f["matrix"] = np.arange(12).reshape(4, 3)
        f["scalar"], f["nothing"] = 1.0, h5py.Empty("f4")
        f["compound"] = np.zeros(4, [("a", "i4"), ("b", "f4")])
        f["refs"] = np.array([f["bool"].ref] * 4, h5py.ref_dtype)
        f.create_dataset("lists", (4,), h5py.vlen_dtype("f4"))
        f.create_dataset("elsewhere", (4, 3), "f4", external=[("nowhere.bin", 0, 48)])
        f["soft"], f["hard"] = h5py.SoftLink("/features"), f["features"]
        f["dangling"], f["outside"] = h5py.SoftLink("/gone"), h5py.ExternalLink("z.h5", "/features")
        f["circle/back"] = f["/"]
        layout = h5py.VirtualLayout((4, 3), "f4"); layout[:] = h5py.VirtualSource("z.h5", "features", (4, 3))
        f.create_virtual_dataset("virtual", layout)
        plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE); plist.set_chunk((4, 3)); plist.set_filter(32001, h5py.h5z.FLAG_OPTIONAL, (1, 2))
        h5py.h5d.create(f.id, b"blosc", h5py.h5t.IEEE_F32LE, h5py.h5s.create_simple((4, 3)), plist).write(h5py.h5s.ALL, h5py.h5s.ALL, np.ones((4, 3), "f4"))
        f.create_dataset("scaled", data=np.arange(12, dtype="i4").reshape(4, 3), scaleoffset=0)
with h5py.File(f"{sys.argv[1]}/z.h5", "w") as f: f["features"] = np.ones((4, 3), "f4")
"""

let private words =
    testCase "HDF5: texts, whole numbers, links, and what is not read" (fun () ->
        inFolder (fun folder ->
            python "h5py, numpy" writeWords [ folder ]

            for file in [ "x.h5"; "y.h5" ] do
                let table = Hdf5Table.read (Path.Combine(folder, file)) |> Check.get
                let texts = [| "a"; "\u00fc"; ""; "longer one" |]
                let words name = table.Words name |> Check.get

                for name in [ "fixed"; "varying"; "packed"; "column" ] do
                    Expect.equal (holds table name) Holds.Word name
                    Expect.equal (words name) texts name

                Expect.equal (words "bytes") [| "a"; "bc"; ""; "longer one" |] "bytes"

                for t in [ "i1"; "i2"; "<i4"; ">i4"; "<i8"; ">i8" ] do
                    Expect.equal (words ("int " + t)) [| "1"; "-2"; "3"; "100" |] t

                for t, most in [ "u1", "255"; "<u2", "65535"; ">u4", "4294967295"; "<u8", "18446744073709551615" ] do
                    Expect.equal (words ("uint " + t)) [| "1"; "2"; "3"; most |] t

                Expect.equal (words "bool") [| "1"; "0"; "1"; "1" |] "bool"
                Expect.equal (words "float") [| "1"; "2.5"; ""; "-30000000000" |] "float"
                Expect.equal (words "float32") [| "1"; "0.1"; ""; "16777216" |] "float32"
                Expect.equal (holds table "float") (Holds.Number torch.ScalarType.Float64) "one number a row"
                let features = matrix (Array2D.init 4 3 (fun i j -> float32 (3 * i + j)))

                for name in [ "features"; "soft"; "hard" ] do
                    identical name (rowsOf' table [ name ]) features

                other table "matrix" [ "4 × 3" ]
                other table "scalar" []
                other table "nothing" [ "nothing" ]
                other table "compound" [ "compound" ]
                other table "refs" [ "reference" ]
                other table "lists" [ "variablelength" ]
                other table "elsewhere" [ "in other files"; "h5py" ]
                other table "virtual" [ "in other files" ]
                other table "dangling" [ "a link to another file or to nothing" ]
                other table "circle/back" [ "another path leads to" ]
                other table "blosc" [ "32001 (blosc)"; "h5py" ]
                other table "scaled" []

                Expect.isTrue
                    (table.Columns
                     |> List.exists (fun c ->
                         c.Name <> "dangling" && c.Holds.IsOther && $"{c.Holds}".Contains "a link to another"))
                    "a link to another file"

                Expect.isError (table.Words "gone") "no such column"
                Expect.isError (table.Numbers [ "fixed" ] (fun _ _ -> ())) "texts are no features"))

let private writeById =
    """
import h5py, numpy as np, sys
def write(name, **arrays):
    with h5py.File(f"{sys.argv[1]}/{name}.h5", "w") as f:
        for k, v in arrays.items(): f[k.replace("__", "/")] = v
v = lambda i, n=4, t="f4": np.arange(n).astype(t) + i
write("flat", clip2=v(2), clip1=v(1), clip3=v(3))
write("group", features__clip2=v(2)[None], features__clip1=v(1)[None], version=1)
write("matrix", clip1=v(1), clip2=v(2), features=np.ones((4, 3), "f4"))
write("labels", clip1=v(1), labels=v(2))
write("lengths", clip1=v(1), clip2=v(2, 5))
write("types", clip1=v(1), clip2=v(2, 4, "f8"))
write("ints", clip1=v(1), clip2=v(2, 4, "i8"))
write("one", clip1=v(1))
"""

let private byId =
    testCase "HDF5: vectors under ids are a column of ids and one of features, where nothing else can be meant" (fun () ->
        inFolder (fun folder ->
            python "h5py, numpy" writeById [ folder ]
            let read name = Hdf5Table.read (Path.Combine(folder, name + ".h5")) |> Check.get

            for name, prefix, ids in [ "flat", "", [ 1; 2; 3 ]; "group", "features/", [ 1; 2 ] ] do
                let table = read name
                Expect.equal (table.Words(prefix + "id") |> Check.get) [| for i in ids -> $"clip{i}" |] "ids"

                identical
                    "features"
                    (rowsOf' table [ prefix + "features" ])
                    (matrix (array2D [ for i in ids -> [ for j in 0..3 -> float32 (i + j) ] ]))

            for name in [ "matrix"; "labels"; "lengths"; "types"; "ints"; "one" ] do
                let table = read name
                Expect.isFalse (table.Columns |> List.exists (fun c -> c.Name = "id")) name))

// ---- PyTorch -----------------------------------------------------------------------------------------------------

/// Writes what torch.save writes, without PyTorch: classes of its names stand in for it.
let private standIns =
    """
import collections, io, json, pickle, struct, sys, types, zipfile, numpy as np
folder = sys.argv[1]
torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
sys.modules.update({"torch": torch, "torch._utils": utils})
def stand(module, name, thing):
    thing.__module__, thing.__qualname__, thing.__name__ = module, name, name
    setattr(sys.modules[module], name, thing)
    return thing
rebuild = stand("torch._utils", "_rebuild_tensor_v2", lambda *a: None)
parameter = stand("torch._utils", "_rebuild_parameter", lambda *a: None)
kinds = {t: stand("torch", n + "Storage", type(n, (), {})) for n, t in [("Float", "f4"), ("Half", "f2"), ("Double", "f8"), ("Long", "i8"), ("Int", "i4"), ("Short", "i2"), ("Char", "i1"), ("Byte", "u1"), ("Bool", "b1"), ("BFloat16", "u2"), ("ComplexFloat", "c8")]}
class Storage:
    def __init__(self, array): self.array = array
class Tensor:
    def __init__(self, view, base=None):
        self.base = base or Storage(view)
        if base is None: self.base.array = np.ascontiguousarray(view).reshape(view.shape)
        at = self.base.array
        view = self.base.array if base is None else view
        self.args = (self.base, (view.__array_interface__["data"][0] - at.__array_interface__["data"][0]) // view.itemsize, view.shape, tuple(s // view.itemsize for s in view.strides), False, collections.OrderedDict())
    def __reduce__(self): return rebuild, self.args
class Parameter:
    def __init__(self, tensor): self.tensor = tensor
    def __reduce__(self): return parameter, (self.tensor, True, collections.OrderedDict())
def save(name, value, protocol=2, packed=False, drop=(), raw=None, order="little"):
    keys, out = {}, io.BytesIO()
    class Pickler(pickle.Pickler):
        def persistent_id(self, o):
            if isinstance(o, Storage):
                key = keys.setdefault(id(o), (str(len(keys)), o))[0]
                return ("storage", kinds[o.array.dtype.str[1:]], key, "cpu", o.array.size)
    Pickler(out, protocol).dump(value)
    with zipfile.ZipFile(f"{folder}/{name}.pt", "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as z:
        z.writestr("archive/data.pkl", raw or out.getvalue())
        z.writestr("archive/byteorder", order)
        for key, o in keys.values():
            if key not in drop: z.writestr(f"archive/data/{key}", o.array.tobytes())
        z.writestr("archive/version", "3\n")
"""

let private writeTorch =
    standIns
    + """
rng = np.random.default_rng(0)
a = rng.standard_normal((4200, 257)).astype("f4")
b = rng.standard_normal((60, 8))
np.save(f"{folder}/a.npy", a)
np.save(f"{folder}/b.npy", b)
for protocol in [2, 3, 4, 5]:
    base = Storage(b)
    value = collections.OrderedDict(
        whole=Tensor(b, base), cut=Tensor(b[:, 2:5], base), step=Tensor(b[1::2], base), turned=Tensor(b.T, base), deep=Tensor(b.reshape(60, 4, 2)[:, 1:2], base),
        half=Tensor(b.astype("f2")), bfloat=Tensor((b.astype("f4").view("u4") >> 16).astype("u2")), vector=Tensor(b[:, 0], base),
        labels=Tensor(np.arange(60)), small=Tensor((np.arange(60) - 5).astype("i1")), flags=Tensor(np.arange(60) % 2 == 0),
        ids=[f"id {i}" for i in range(60)], counts=list(range(60)), big=[2 ** 70, -(2 ** 70), True], scores=[0.5 * i for i in range(60)],
        rows=[Tensor(r, base) for r in b], batches=tuple(Tensor(r[None], base) for r in b), uneven=[Tensor(b[0], base), Tensor(b[0, :3], base)],
        inner={"x": Parameter(Tensor(b, base)), 7: {"y": Tensor(b)}}, numpy=b.astype("f4"), turnedNumpy=np.asfortranarray(b), number=np.float32(3), none=None, kinds={1, 2}, raw=b"x", epoch=3, named={"a": "x"}, scalar=Tensor(np.array(3.0)), empty=[])
    save(f"dict{protocol}", value, protocol)
    save(f"packed{protocol}", value, protocol, packed=True)
    save(f"bare{protocol}", Tensor(a), protocol)
    save(f"list{protocol}", [Tensor(r, base) for r in b], protocol)
    save(f"byid{protocol}", {f"clip.{i}": Tensor(b[59 - i], base) for i in range(60)}, protocol)
    save(f"below{protocol}", {"features": {f"clip.{i}": Tensor(b[59 - i], base) for i in range(60)}}, protocol)
    save(f"records{protocol}", [{"id": f"clip.{i}", "features": Tensor(b[i], base), "label": i % 3} for i in range(60)], protocol)
"""

let private torchFiles =
    testCase "PyTorch: tensors, views, lists and dicts of every protocol" (fun () ->
        inFolder (fun folder ->
            python "numpy" writeTorch [ folder ]
            let npy name = Npy.read (Path.Combine(folder, name + ".npy")) |> Check.get
            let a, b = npy "a", npy "b"
            let read name = TorchFile.read (Path.Combine(folder, name + ".pt")) |> Check.get

            for protocol in 2..5 do
                identical "a bare tensor" (rowsOf' (read $"bare{protocol}") [ "features" ]) a
                identical "a list" (rowsOf' (read $"list{protocol}") [ "features" ]) b

                for name in [ "byid"; "below" ] do
                    let table = read $"{name}{protocol}"
                    Expect.equal (table.Words "id" |> Check.get) [| for i in 0..59 -> $"clip.{i}" |] "ids"
                    identical "by ids" (rowsOf' table [ "features" ]) (b.flip 0L)

                let records = read $"records{protocol}"
                Expect.equal (records.Words "id" |> Check.get) [| for i in 0..59 -> $"clip.{i}" |] "ids of records"
                Expect.equal (records.Words "label" |> Check.get) [| for i in 0..59 -> string (i % 3) |] "labels of records"
                identical "features of records" (rowsOf' records [ "features" ]) b

                for table in [ read $"dict{protocol}"; read $"packed{protocol}" ] do
                    let is name (expected: torch.Tensor) = identical name (rowsOf' table [ name ]) expected
                    let words name = table.Words name |> Check.get

                    for name in [ "whole"; "rows"; "batches"; "inner.x"; "inner.7.y"; "turnedNumpy" ] do
                        is name b

                    is "cut" (b.narrow (1L, 2L, 3L))
                    is "step" (b.narrow(0L, 1L, 59L).as_strided([| 30L; 8L |], [| 16L; 1L |], 8L))
                    is "turned" (b.t ())
                    is "deep" (b.narrow (1L, 2L, 2L))
                    is "half" (b.``to`` torch.float16)
                    is "numpy" (b.``to`` torch.float32)
                    is "vector" (b.narrow (1L, 0L, 1L))
                    is "scores" (torch.tensor(Array.init 60 (fun i -> 0.5 * float i)).reshape(60L, 1L))
                    // bfloat16 is the upper half of float32.
                    let upper =
                        b.``to``(torch.float32).data<float32>().ToArray()
                        |> Array.map (fun x -> BitConverter.Int32BitsToSingle(BitConverter.SingleToInt32Bits x &&& ~~~0xFFFF))

                    is "bfloat" (torch.tensor(upper).reshape(60L, 8L))
                    identical "side by side" (rowsOf' table [ "cut"; "whole" ]) (torch.cat ([| b.narrow (1L, 2L, 3L); b |], 1L))

                    for name in [ "labels"; "counts" ] do
                        Expect.equal (holds table name) Holds.Word name
                        Expect.equal (words name) [| for i in 0..59 -> string i |] name

                    Expect.equal (words "small") [| for i in 0..59 -> string (i - 5) |] "small"
                    Expect.equal (words "flags") [| for i in 0..59 -> string ((i + 1) % 2) |] "flags"
                    Expect.equal (words "ids") [| for i in 0..59 -> $"id {i}" |] "ids"
                    Expect.equal (words "big") [| "1180591620717411303424"; "-1180591620717411303424"; "1" |] "big"

                    for name in [ "uneven"; "number"; "none"; "raw"; "epoch"; "named.a"; "scalar"; "empty" ] do
                        other table name []))

/// Pickles by hand, and what is told of each.
let private hostile =
    [ "system", "b'cos\\nsystem\\n(Vecho\\ntR.'", "'os.system'"
      "stacked", "b'\\x80\\x04\\x8c\\x02os\\x8c\\x06system\\x93\\x8c\\x04echo\\x85R.'", "'os.system'"
      "eval", "b'\\x80\\x02c__builtin__\\neval\\nX\\x01\\x00\\x00\\x001\\x85R.'", "'builtins.eval'"
      "within",
      "b'\\x80\\x04\\x8c\\x05torch\\x8c\\x1cserialization.os.system.call\\x93)R.'",
      "'torch.serialization.os.system.call'"
      "object", "b'\\x80\\x02ccopy_reg\\n_reconstructor\\n)R.'", "'copy_reg._reconstructor'"
      "instance", "b'(ios\\nsystem\\n.'", "instruction 105"
      "extension", "b'\\x80\\x02\\x82\\x01.'", "instruction 130"
      "called twice", "b'\\x80\\x02ccollections\\nOrderedDict\\n)R)R.'", "calls what is no name"
      "filled", "b'\\x80\\x02ccollections\\nOrderedDict\\n}b.'", "fills an object"
      "arguments", "b'\\x80\\x02ctorch._utils\\n_rebuild_tensor_v2\\n)R.'", "other arguments"
      "reference", "b'\\x80\\x02X\\x01\\x00\\x00\\x00xX\\x01\\x00\\x00\\x00x\\x86Q.'", "something else than a tensor's storage"
      "memo", "b'\\x80\\x02h\\x05.'", "never put there"
      "memo of a mark", "b'\\x80\\x02(q\\x00h\\x00h\\x00ttt.'", ""
      "nothing", "b'\\x80\\x02.'", "never put there"
      "short", "b'\\x80\\x02X\\xff\\xff\\xff\\x7fabc'", "cut short"
      "long", "b'\\x80\\x04\\x8d\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xffabc'", "cut short"
      "itself", "b'\\x80\\x02}q\\x00(K\\x01K\\x02X\\x01\\x00\\x00\\x00sh\\x00u.'", "hold themselves"
      "itself alone", "b'\\x80\\x02}q\\x00X\\x01\\x00\\x00\\x00sh\\x00s.'", "hold themselves"
      "list of itself", "b'\\x80\\x02]q\\x00h\\x00a.'", "" ]

let private writeHostile =
    standIns
    + """
for line in sys.argv[2:]:
    name, raw = line.split("=", 1)
    save(name, None, raw=eval(raw))
class Run:
    def __reduce__(self): return eval, ("1",)
for protocol in [2, 3, 4, 5]: save(f"run{protocol}", {"x": Run()}, protocol)
b = np.ones((6, 4), "f4")
save("missing", {"x": Tensor(b)}, drop=["0"])
beyond = Tensor(b); beyond.args = (beyond.base, 1, (6, 4), (4, 1), False, {})
save("beyond", {"x": beyond})
negative = Tensor(b); negative.args = (negative.base, 8, (2, 4), (-4, 1), False, {})
save("negative", {"x": negative})
save("complex", {"x": Tensor(b.astype("c8"))})
save("big-endian", {"x": Tensor(b)}, order="big")
with open(f"{folder}/legacy.pt", "wb") as f: pickle.dump(0x1950a86a20f9469cfc6c, f, 2)
with open(f"{folder}/text.pt", "w") as f: f.write("no archive")
with zipfile.ZipFile(f"{folder}/zip.pt", "w") as z: z.writestr("x", "y")
"""

let private refusals =
    testCase "PyTorch: what could run code, and what is damaged, is refused by name" (fun () ->
        inFolder (fun folder ->
            python "numpy" writeHostile (folder :: [ for name, raw, _ in hostile -> $"{name}={raw}" ])

            let told name word =
                match TorchFile.read (Path.Combine(folder, name + ".pt")) with
                | Error [ Fault.Unreadable(_, reason) ] -> Expect.stringContains reason word name
                | Ok table when word = "" -> Expect.isTrue (table.Columns |> List.forall _.Holds.IsOther) name
                | other -> failtest $"{name}: %A{other}"

            for name, _, word in hostile do
                told name word

            for protocol in 2..5 do
                told $"run{protocol}" "'builtins.eval'"

            told "missing" "storage of the tensor 'x' is missing"
            told "beyond" "'x' reaches beyond its storage"
            told "negative" "sizes of a tensor"
            told "complex" "'torch.ComplexFloatStorage'"
            told "big-endian" "big-endian"
            told "legacy" "before 1.6"
            told "text" "no file of torch.save"
            told "zip" "data.pkl"))

// ---- safetensors -------------------------------------------------------------------------------------------------

let private writeSafetensors =
    """
import json, struct, sys, numpy as np
folder = sys.argv[1]
def save(name, tensors):
    head, body = {}, b""
    for key, (kind, a) in tensors.items():
        head[key] = dict(dtype=kind, shape=list(a.shape), data_offsets=[len(body), len(body) + a.nbytes])
        body += a.tobytes()
    text = json.dumps(head).encode()
    with open(f"{folder}/{name}.safetensors", "wb") as f: f.write(struct.pack("<Q", len(text)) + text + body)
b = np.random.default_rng(0).standard_normal((4200, 257)).astype("f4")
np.save(f"{folder}/b.npy", b)
save("many", {"features": ("F32", b), "half": ("F16", b.astype("f2")), "double": ("F64", b[:60].astype("f8")), "bfloat": ("BF16", (b.view("u4") >> 16).astype("u2")), "labels": ("I64", np.arange(60)), "flags": ("BOOL", np.arange(60) % 2 == 0), "scalar": ("F32", np.array(1, "f4")), "cube": ("F32", b[:60, :8].reshape(60, 4, 2).copy())})
save("byid", {f"clip.{i}": ("F32", b[i]) for i in range(60)})
"""

let private safetensors =
    testCase "safetensors: tensors by their names, and vectors by ids" (fun () ->
        inFolder (fun folder ->
            python "numpy" writeSafetensors [ folder ]
            let b = Npy.read (Path.Combine(folder, "b.npy")) |> Check.get
            let read name = SafetensorsTable.read (Path.Combine(folder, name + ".safetensors")) |> Check.get
            let table = read "many"
            identical "features" (rowsOf' table [ "features" ]) b
            identical "half" (rowsOf' table [ "half" ]) (b.``to`` torch.float16)
            identical "double" (rowsOf' table [ "double" ]) (b.narrow(0L, 0L, 60L).``to`` torch.float64)
            Expect.equal (holds table "bfloat") (Holds.Vector(torch.ScalarType.Float32, 257L)) "bfloat16 is read as float32"
            same "bfloat16" 1e-2 (rowsOf' table [ "bfloat" ]) b
            Expect.equal (table.Words "labels" |> Check.get) [| for i in 0..59 -> string i |] "labels"
            Expect.equal (table.Words "flags" |> Check.get) [| for i in 0..59 -> string ((i + 1) % 2) |] "flags"
            other table "scalar" []
            other table "cube" [ "60 × 4 × 2" ]
            let table = read "byid"
            Expect.equal (table.Words "id" |> Check.get) [| for i in 0..59 -> $"clip.{i}" |] "ids"
            identical "by ids" (rowsOf' table [ "features" ]) (b.narrow (0L, 0L, 60L))
            Expect.isError (SafetensorsTable.read (Path.Combine(folder, "b.npy"))) "no safetensors file"))

let tests = testList "import arrays" [ yield! stored; words; byId; torchFiles; refusals; safetensors ]
