/// Files that h5py and NumPy wrote; skipped where no Python with them is found.
module Cmcl.Tests.ImportInteropTests

open System
open System.IO
open Expecto
open TorchSharp
open Cmcl
open Cmcl.Tests.Checks
open Cmcl.Tests.ImportFiles

/// The numbers that the program below writes: of a row, a modality, a column.
let private made (offset: int) (i: int) (m: int) (j: int) = float32 (offset + 100 * i + 10 * m + j) / 8f

let private writeByH5py =
    """
import h5py, numpy as np, sys
folder, options = sys.argv[1], eval(sys.argv[2])
libver = options.pop("libver", None)
for split, n, offset in [("train", 300, 0), ("test", 20, 7)]:
    with h5py.File(f"{folder}/ESC50_{split}_imagebind.h5", "w", libver=libver) as f:
        for i in range(n):
            v = (offset + 100 * i + 10 * np.arange(2)[:, None] + np.arange(6)[None, :] + 0.0) / 8
            f.create_dataset(f"tensor({i})__class {i % 3}__{i % 3}", data=v.astype("f4"), **options)
with h5py.File(f"{folder}/ESC50_class_imagebind.h5", "w") as f:
    for c in range(3): f.create_dataset(f"class {c}", data=np.arange(6, dtype="f4") + c)
"""

/// One array, written in a way that is not read, in the place of the training file.
let private odd (how: string) =
    $"""
with h5py.File(f"{{folder}}/other.h5", "w") as f: f["0__class 0__0"] = np.ones((2, 6), "f4")
with h5py.File(f"{{folder}}/ESC50_train_imagebind.h5", "w") as f: {how}
"""

let private expectWritten (source: string) (out: string) =
    run' "cmcl-h5" second source out |> Check.get |> ignore
    let stream = loaded out
    let order n = [ 0 .. n - 1 ] |> List.sortWith (fun a b -> String.CompareOrdinal($"tensor({a})__", $"tensor({b})__"))

    let expected =
        array2D
            [ for n, offset in [ 300, 0; 20, 7 ] do
                  for i in order n -> [ for j in 0..5 -> made offset i 1 j ] ]

    identical "audio" stream.Banks["audio:ESC50"].Features (matrix expected)

    identical
        "prototypes"
        stream.Steps.Head.Accuracy.Value.Prototypes
        (matrix (array2D [ for c in 0..2 -> [ for j in 0..5 -> float32 (c + j) ] ]))

let private others =
    [ inFolders "files written by h5py are imported to equal arrays" (fun source out ->
          python "h5py, numpy" writeByH5py [ source; "{}" ]
          expectWritten source out)

      for title, options in
          [ "compressed", "dict(compression='gzip', shuffle=True, fletcher32=True)"
            "packed by LZF", "dict(compression='lzf')"
            "in chunks", "dict(chunks=(1, 4))"
            "of the latest version", "dict(libver='latest')" ] do
          inFolders $"files written by h5py {title} are imported to equal arrays" (fun source out ->
              python "h5py, numpy" writeByH5py [ source; options ]
              expectWritten source out)

      inFolders "files written by h5py big-endian are imported to equal arrays" (fun source out ->
          python "h5py, numpy" (writeByH5py.Replace("f4", ">f4")) [ source; "{}" ]
          expectWritten source out)

      for title, how, word in
          [ "of integers", "f.create_dataset('0__class 0__0', data=np.ones((2, 6), 'i4'))", "integers"
            "linked from another file",
            "f['0__class 0__0'] = h5py.ExternalLink(f'{folder}/other.h5', '/0__class 0__0')",
            "a link to another file"
            "stored in another file",
            "f.create_dataset('0__class 0__0', shape=(2, 6), dtype='f4', external=[(f'{folder}/other.h5', 0, 48)])",
            "in other files"
            "in groups that lead in circles", "f['0__class 0__0'] = f['/']", "a group that another path leads to" ] do
          inFolders $"an array {title} is refused with the reason" (fun source out ->
              python "h5py, numpy" (writeByH5py + odd how) [ source; "{}" ]
              run' "cmcl-h5" second source out |> refused [ "ESC50_train_imagebind.h5"; word ] out)

      inFolders "files written by NumPy are imported to equal arrays" (fun source out ->
          let program =
              "import numpy as np, sys\nfor s, n in [('train', 30), ('test', 5)]:\n  for m, d, t in [('text', 4, '<f2'), ('audio', 3, '<f8')]:\n    a = (np.arange(n * d).reshape(n, d) + 1).astype(t)\n    np.save(f'{sys.argv[1]}/1.{m}.{s}.npy', np.asfortranarray(a) if m == 'audio' else a)\n  np.savez_compressed(f'{sys.argv[1]}/1.{s}.npz', text=(np.arange(n * 4).reshape(n, 4) + 1).astype('<f2'), audio=(np.arange(n * 3).reshape(n, 3) + 1).astype('<f8'))"

          python "numpy" program [ source ]

          let expected rows columns =
              array2D
                  [ for n in rows do
                        for i in 0 .. n - 1 -> [ for j in 0 .. columns - 1 -> float (i * columns + j + 1) ] ]

          for format in [ "npy"; "npz" ] do
              let out = out + format
              run format source out |> Check.get |> ignore
              let step = (loaded out).Steps.Head

              Expect.equal
                  (step.A.Features.dtype, step.B.Features.dtype)
                  (torch.ScalarType.Float16, torch.ScalarType.Float64)
                  "types as stored"

              same "text" tight step.A.Features (torch.tensor (expected [ 30; 5 ] 4))
              same "audio" tight step.B.Features (torch.tensor (expected [ 30; 5 ] 3)))

      inFolders "the documentation's lines in NumPy write a stream" (fun source _ ->
          let page = File.ReadAllText(Path.Combine(__SOURCE_DIRECTORY__, "..", "docs", "import.md"))
          let from = page.IndexOf("```python\nimport json", StringComparison.Ordinal) + "```python\n".Length
          let code = page.Substring(from, page.IndexOf("```", from, StringComparison.Ordinal) - from)
          python "numpy" ("import os, sys\nos.chdir(sys.argv[1])\n" + code) [ source ]
          let step = (loaded (Path.Combine(source, "mine"))).Steps.Head

          Expect.equal
              (string step.Pair, step.Train.Length, step.Test.Length, step.A.Features.shape[1])
              ("text–audio", 70, 20, 16L)
              "the step") ]

let tests = testList "import other programs" others
