# NumPy's arrays and archives: odd shapes and types, ids and labels beside features, names of steps with numbers.
from common import *
from numpy.lib import format as F

def npy(name, save, words=None):
    f = fresh("npy_" + name)
    for part, n, seed in PARTS:
        save(f + "/s.text.%s.npy" % part, rows(n, 4, seed))
        np.save(f + "/s.audio.%s.npy" % part, rows(n, 3, seed + 1))
    expect(f, "npy", BANKS if words is None else None, words)

def version(v):
    def write(p, x):
        with open(p, "wb") as h: F.write_array(h, x, version=v)
    return write

def appended(p, x):
    with open(p, "wb") as h:
        np.save(h, x[:10])
        np.save(h, x[10:])

def zipped(p, x):
    with open(p, "wb") as h: np.savez(h, x)

def infinite(p, x):
    x = x.copy()
    x[5, 1] = np.inf
    np.save(p, x.astype("f2"))

npy("unsqueezed", lambda p, x: np.save(p, x[:, None, :]))
npy("big_endian", lambda p, x: np.save(p, x.astype(">f4")))
npy("fortran", lambda p, x: np.save(p, np.asfortranarray(x)))
npy("not_contiguous", lambda p, x: np.save(p, np.repeat(x, 2, axis=1)[:, ::2]))
npy("version_2", version((2, 0)))
npy("version_3", version((3, 0)))
npy("bfloat16", lambda p, x: np.save(p, (x.view("u4") >> 16).astype("u2").view("V2")), ["bfloat16", "astype('f4')"])
npy("longdouble", lambda p, x: np.save(p, x.astype("longdouble")), ["float16, float32 or float64"])
npy("int8", lambda p, x: np.save(p, (x * 40).astype("i1")), ["int8, 60 × 4", "float16, float32 or float64"])
npy("uint16", lambda p, x: np.save(p, x.astype("f2").view("u2")), ["uint16, 60 × 4"])
npy("objects", lambda p, x: np.save(p, np.array(list(x) + [None], dtype=object)[:-1]), ["Python objects"])
npy("appended", appended, ["promises 160 bytes", "follow"])
npy("raw", lambda p, x: x.tofile(p), ["not a .npy file"])
npy("zip", zipped, ["zip file", ".npz"])
npy("records", lambda p, x: np.save(p, np.core.records.fromarrays(list(x.T), names="a,b,c,d")), ["records with fields"])
npy("infinite", infinite, ["row 5", "infinite"])

# eleven steps called 1-…, 2-…, …, 11-…
f = fresh("step_order")
for k in range(1, 12):
    for part, n in [("train", 40), ("test", 12)]:
        np.save(f + "/%d-task.text.%s.npy" % (k, part), rows(n, 4, k))
        np.save(f + "/%d-task.audio.%s.npy" % (k, part), rows(n, 3, k + 50))
expect(f, "npy", steps=["%d-task" % k for k in range(1, 12)])

# shards in numeric order
f = fresh("shards")
for m in ["text", "audio"]:
    for part, first, last in [("train", 0, 60), ("test", 60, 80)]:
        for k, at in enumerate(range(first, last, 5)):
            np.save(f + "/s.%s.%s-%d.npy" % (m, part, k), BANKS[m][at:at + 5])
expect(f, "npy", BANKS)

# two arrays of matched rows and nothing else
f = fresh("two_arrays")
for m in ["text", "audio"]: np.save(f + "/%s.npy" % m, BANKS[m])
expect(f, "npy", BANKS, steps=["text–audio"], notes=["test (drawn)"])

# the same as archives, each with an array that is called as arrays are; the file says the modality, whatever it is called
for plain in ["features", "embeddings", "arr_0"]:
    f = fresh("two_archives_" + plain)
    for m, name in [("text", "caption"), ("audio", "sound")]:
        np.savez(f + "/%s.npz" % name, **{plain: BANKS[m], "ids": np.arange(80), "attention": rows(80, 2, 7)})
    expect(f, "npz", {"caption": BANKS["text"], "sound": BANKS["audio"]}, steps=["caption–sound"], notes=["left out: 'attention'"])

# one archive for everything: the part before or behind the modality, as a group or as a word of the name
PART_ROWS = [("train", slice(0, 60)), ("test", slice(60, 80))]
for name in ["%(part)s/%(m)s", "%(m)s/%(part)s", "%(part)s_%(m)s", "%(m)s_%(part)s", "%(m)s-%(part)s", "%(part)s/%(m)s/features", "%(m)s/%(part)s/features"]:
    f = fresh("one_archive_" + name.replace("%", "").replace("/", "+"))
    np.savez(f + "/all.npz", **{name % dict(part=part, m=m): BANKS[m][at] for part, at in PART_ROWS for m in BANKS})
    expect(f, "npz", BANKS, steps=["all"])

f = fresh("one_archive_test_apart")
np.savez(f + "/all.npz", **{m + suffix: BANKS[m][at] for suffix, (_, at) in zip(["", "_test"], PART_ROWS) for m in BANKS})
expect(f, "npz", BANKS, steps=["all"])

# a group for each modality, with features and ids in it, in another order
o = np.random.default_rng(3).permutation(80)
f = fresh("groups_with_ids")
np.savez(f + "/all.npz", **{"text/features": BANKS["text"], "text/ids": np.arange(80), "audio/features": BANKS["audio"][o], "audio/ids": np.arange(80)[o]})
expect(f, "npz", BANKS)

# ids of each modality beside its features, in another order; and such as have none in common, whose rows are one item each
f = fresh("ids_of_each")
np.savez(f + "/all.npz", text=BANKS["text"], text_ids=np.arange(80), audio=BANKS["audio"][o], audio_ids=np.arange(80)[o])
expect(f, "npz", BANKS, notes=["'text_ids', 'audio_ids'"])
f = fresh("ids_of_each_apart")
np.savez(f + "/all.npz", text=BANKS["text"], text_ids=np.arange(80), audio=BANKS["audio"], audio_ids=np.arange(80) + 500)
expect(f, "npz", BANKS, notes=["no id in common"])

# two arrays of one name are never put one behind the other
f = fresh("one_name_twice")
np.savez(f + "/all.npz", **{"coco/text": BANKS["text"], "flickr/text": BANKS["text"], "coco/audio": BANKS["audio"], "flickr/audio": BANKS["audio"]})
expect(f, "npz", words=["several matrices of one name", "'coco/text'"])

# ids that cannot be read are no reason to match rows by their places
f = fresh("object_ids_apart")
for m in BANKS: np.savez(f + "/%s.npz" % m, features=BANKS[m], ids=np.array(["a%d" % i for i in range(80)], dtype=object))
expect(f, "npz", words=["ids that cannot be read", "astype(str)"])
f = fresh("object_ids_file")
for m in BANKS: np.save(f + "/%s.npy" % m, BANKS[m])
np.save(f + "/ids.npy", np.array(["a%d" % i for i in range(80)], dtype=object))
expect(f, "npy", words=["ids.npy", "Python objects"])

# parts in names of files as people write them
for name in ["%(part)s_%(m)s", "%(m)s_%(part)s", "%(m)s-%(part)s", "%(part)s.%(m)s", "%(m)s_%(part)s-0"]:
    f = fresh("part_in_" + name.replace("%", ""))
    for part, at in PART_ROWS:
        for m in BANKS: np.save(f + "/" + name % dict(part=part, m=m) + ".npy", BANKS[m][at])
    open(f + "/._text.npy", "wb").write(b"what macOS leaves")
    expect(f, "npy", BANKS, steps=["text–audio"])

# many steps with the same fault are told in a few lines
f = fresh("many_faults")
for k in range(40):
    np.save(f + "/%d.text.npy" % k, rows(6, 4, k))
    np.save(f + "/%d.audio.npy" % k, rows(5, 3, k))
expect(f, "npy", words=["expected 6 rows", "35 more faults"])

# the same with classes: a feature for each, their names, the class of every row
f = fresh("two_arrays_classes")
for m in ["text", "audio"]: np.save(f + "/%s.npy" % m, BANKS[m])
np.save(f + "/labels.npy", np.arange(80) % 5)
np.save(f + "/text.classes.npy", rows(5, 4, 9))
open(f + "/classes.txt", "w").write("a\nb\nc\nd\ne\n")
expect(f, "npy", BANKS, classes=list("abcde"), labels=[i % 5 for i in range(80)])

f = fresh("two_arrays_classes_without_labels")
for m in ["text", "audio"]: np.save(f + "/%s.npy" % m, BANKS[m])
np.save(f + "/text.classes.npy", rows(5, 4, 9))
expect(f, "npy", words=["a class for each row"])

def npz(name, notes, **extra):
    f = fresh("npz_" + name)
    for part, n, seed in PARTS:
        np.savez(f + "/s.%s.npz" % part, text=rows(n, 4, seed), audio=rows(n, 3, seed + 1), **{k: v(n) for k, v in extra.items()})
    expect(f, "npz", BANKS, notes=notes)

npz("unicode_ids", ["'ids'"], ids=lambda n: np.array(["a%d" % i for i in range(n)]))
npz("bytes_ids", ["'ids'"], ids=lambda n: np.array([b"a%d" % i for i in range(n)]))
npz("object_ids", ["left out: 'ids'", "Python objects"], ids=lambda n: np.array(["a%d" % i for i in range(n)], dtype=object))
npz("paths", ["'paths'"], paths=lambda n: np.array(["a%d.jpg" % i for i in range(n)]))
npz("int_ids", ["'ids'"], ids=lambda n: np.arange(n))
for name, make in [("i8", lambda n: np.arange(n) % 5), ("u1", lambda n: (np.arange(n) % 5).astype("u1")), ("i2", lambda n: (np.arange(n) % 5).astype("i2")),
                   ("text", lambda n: np.array(list("abcde"))[np.arange(n) % 5]), ("f4", lambda n: (np.arange(n) % 5).astype("f4")),
                   ("column", lambda n: (np.arange(n) % 5)[:, None])]:
    for column in (["labels"] if name != "i8" else ["labels", "Label", "class", "targets"]):
        f = fresh("npz_labels_%s_%s" % (name, column))
        for part, n, seed in PARTS:
            np.savez(f + "/s.%s.npz" % part, text=rows(n, 4, seed), audio=rows(n, 3, seed + 1), **{column: make(n)})
        np.savez(f + "/s.classes.npz", text=rows(5, 4, 9))
        open(f + "/s.classes.txt", "w").write("a\nb\nc\nd\ne\n")
        expect(f, "npz", BANKS, classes=list("abcde"), labels=[i % 5 for n in (60, 20) for i in range(n)], notes=["'%s'" % column])
