/// Files that h5py and NumPy wrote; skipped where no Python with them is found.
module Cmcl.Tests.ImportInteropTests

open System
open System.Diagnostics
open System.IO
open System.Text.RegularExpressions
open Expecto
open TorchSharp
open Cmcl
open Cmcl.Tests.Checks
open Cmcl.Tests.ImportFiles

/// A Python that has these modules, or a test skipped.
let private python (modules: string) (program: string) (arguments: string list) =
    let start (path: string) (code: string) arguments =
        try
            let info = ProcessStartInfo(path, RedirectStandardError = true, RedirectStandardOutput = true)

            for argument in [ "-c"; code ] @ arguments do
                info.ArgumentList.Add argument

            match Process.Start info with
            | null -> None
            | child ->
                use child = child
                let error = child.StandardError.ReadToEnd()
                child.WaitForExit()
                Some(child.ExitCode, error)
        with :? ComponentModel.Win32Exception ->
            None

    match
        [ "python3"; "/usr/bin/python3" ]
        |> List.tryFind (fun path -> start path $"import {modules}" [] |> Option.map fst = Some 0)
    with
    | None -> skiptest $"no python3 with {modules} here (Debian: python3-h5py, python3-numpy)"
    | Some path ->
        match start path program arguments with
        | Some(0, _) -> ()
        | other -> failtest $"%A{other}"

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

/// The line of Python that a refusal tells, run on each of these files.
let private rewrite (told: Fault list) (files: string list) =
    let line = Regex.Match(told.Head.Message, "python3 -c \"(.*)\"").Groups[1].Value

    for file in files do
        File.Move(file, file + ".old")
        python "h5py" (line.Replace("OLD.h5", file + ".old").Replace("NEW.h5", file)) []

let private others =
    [ inFolders "files written by h5py are imported to equal arrays" (fun source out ->
          python "h5py, numpy" writeByH5py [ source; "{}" ]
          expectWritten source out)

      for title, options, word in
          [ "compressed", "dict(compression='gzip', shuffle=True)", "chunked or compressed"
            "in chunks", "dict(chunks=(1, 4))", "chunked or compressed"
            "of the latest version", "dict(libver='latest')", "fractal heap" ] do
          inFolders $"files written by h5py {title} are imported after the line that their refusal tells" (fun source out ->
              python "h5py, numpy" writeByH5py [ source; options ]
              let result = run' "cmcl-h5" second source out
              refused [ "ESC50_train_imagebind.h5"; word ] out result

              match result with
              | Ok _ -> failtest "imported"
              | Error faults ->
                  rewrite faults [ for split in [ "train"; "test" ] -> Path.Combine(source, $"ESC50_{split}_imagebind.h5") ]

              expectWritten source out)

      for title, how, word in
          [ "big-endian", "f.create_dataset('0__class 0__0', data=np.ones((2, 6), '>f4'))", "astype('<f4')"
            "of integers", "f.create_dataset('0__class 0__0', data=np.ones((2, 6), 'i4'))", "integers of 4 bytes"
            "linked from another file",
            "f['0__class 0__0'] = h5py.ExternalLink(f'{folder}/other.h5', '/0__class 0__0')",
            "a link to another place"
            "stored in another file",
            "f.create_dataset('0__class 0__0', shape=(2, 6), dtype='f4', external=[(f'{folder}/other.h5', 0, 48)])",
            "in other files"
            "linked to itself", "f['0__class 0__0'] = h5py.SoftLink('/0__class 0__0')", "a link to another place"
            "in groups that lead in circles", "f['0__class 0__0'] = f['/']", "that another key names too" ] do
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
