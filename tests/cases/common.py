# What the generators share: folders of features as people have them, each with a case.json that says what an import of it has to give.
import csv, json, os, shutil, sys
import numpy as np

OUT = sys.argv[1]

def rows(n, d, seed, dtype="f4"):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(dtype)

def fresh(name):
    path = os.path.join(OUT, name)
    shutil.rmtree(path, ignore_errors=True)
    os.makedirs(path)
    return path

# The usual case: a step 's' of 60 training and 20 test rows, text (d = 4) and audio (d = 3).
PARTS = [("train", 60, 1), ("test", 20, 5)]
BANKS = {"text": np.concatenate([rows(60, 4, 1), rows(20, 4, 5)]), "audio": np.concatenate([rows(60, 3, 2), rows(20, 3, 6)])}

def expect(folder, format, banks=None, words=None, **more):
    """Read, with these banks bit for bit (and steps, classes, labels, notes); or refused with these words."""
    case = dict(more, format=format, read=words is None, words=words or [])
    case["banks"] = {}
    for name, x in (banks or {}).items():
        file = os.path.join(folder, "..", os.path.basename(folder) + "." + name + ".expected.npy")
        np.save(file, x)
        case["banks"][name] = os.path.abspath(file)
    with open(folder + ".case.json", "w") as f:
        json.dump(case, f)

def write_csv(path, ids, x, label=None, header=None):
    with open(path, "w", newline="") as f:
        w = csv.writer(f)
        w.writerow(header or (["id"] + (["label"] if label is not None else []) + ["f%d" % i for i in range(x.shape[1])]))
        for i in range(len(x)):
            w.writerow([ids[i]] + ([label[i]] if label is not None else []) + [repr(float(v)) for v in x[i]])

def safetensors(path, **tensors):
    import struct
    head, offset, body = {}, 0, b""
    for name, (dtype, a) in tensors.items():
        b = a.tobytes()
        head[name] = {"dtype": dtype, "shape": list(a.shape), "data_offsets": [offset, offset + len(b)]}
        offset += len(b)
        body += b
    text = json.dumps(head).encode()
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text + body)
