# Text tables: pandas' row numbers, columns in another order, separators, decimal commas, encodings, vectors in a field, gaps.
from common import *
import pandas as pd

# pandas DataFrame.to_csv() without index=False: the row number is the first, nameless column; and the audio was shuffled
f = fresh("pandas_index")
for part, n, seed in PARTS:
    for m, d, s in [("text", 4, seed), ("audio", 3, seed + 1)]:
        df = pd.DataFrame(rows(n, d, s), columns=["f%d" % i for i in range(d)])
        df.insert(0, "id", ["%s%d" % (part, i) for i in range(n)])
        (df.sample(frac=1, random_state=0) if m == "audio" else df).to_csv(f + "/s.%s.%s.csv" % (m, part))
expect(f, "csv", BANKS)

# rows numbered by pandas alone: the nameless column is what rows are matched by
f = fresh("pandas_index_only")
for part, n, seed in PARTS:
    for m, d, s in [("text", 4, seed), ("audio", 3, seed + 1)]:
        df = pd.DataFrame(rows(n, d, s))
        (df.sample(frac=1, random_state=0) if m == "audio" else df).to_csv(f + "/s.%s.%s.csv" % (m, part))
expect(f, "csv", BANKS, notes=["nameless column"])

# columns in another order in the test files, as R and pandas sort them
f = fresh("column_order")
d = 12
for part, n, seed in PARTS:
    for m, s in [("text", seed), ("audio", seed + 1)]:
        x, names = rows(n, d, s), ["f%d" % i for i in range(d)]
        if part == "test":
            o = sorted(range(d), key=lambda i: names[i])
            x, names = x[:, o], [names[i] for i in o]
        write_csv(f + "/s.%s.%s.csv" % (m, part), ["%s%d" % (part, i) for i in range(n)], x, header=["id"] + names)
expect(f, "csv", {"text": np.concatenate([rows(60, d, 1), rows(20, d, 5)]), "audio": np.concatenate([rows(60, d, 2), rows(20, d, 6)])})

f = fresh("column_missing")
for part, n, seed in PARTS:
    for m, s in [("text", seed), ("audio", seed + 1)]:
        names = ["f0", "f1", "f2", "f3" if part == "train" else "f9"]
        write_csv(f + "/s.%s.%s.csv" % (m, part), ["%s%d" % (part, i) for i in range(n)], rows(n, 4, s), header=["id"] + names)
expect(f, "csv", words=["'f3'", "'f9'", "matched by name", "s.text.test.csv"])

def dialect(name, change, encoding="utf-8", words=None, notes=[]):
    f = fresh("dialect_" + name)
    for part, n, seed in PARTS:
        for m, d, s in [("text", 4, seed), ("audio", 3, seed + 1)]:
            p = f + "/s.%s.%s.csv" % (m, part)
            write_csv(p, ["%s%d" % (part, i) for i in range(n)], rows(n, d, s))
            t = change(open(p, newline="").read())
            open(p, "wb").write(t.encode(encoding))
    expect(f, "csv", BANKS if words is None else None, words, notes=notes)

def of_row_7(text, change):
    return "\r\n".join(change(l) if l.startswith("train7,") else l for l in text.split("\r\n"))

dialect("bom", lambda t: t, "utf-8-sig")
dialect("utf16", lambda t: t, "utf-16")
dialect("semicolon", lambda t: t.replace(",", ";"), notes=["semicolons"])
dialect("decimal_comma", lambda t: t.replace(",", ";").replace(".", ","), notes=["semicolons, with decimal commas"])
dialect("tab", lambda t: t.replace(",", "\t"), notes=["tabs"])
dialect("bar", lambda t: t.replace(",", "|"), notes=["bars"])
dialect("excel_sep", lambda t: "sep=;\r\n" + t.replace(",", ";"), notes=["semicolons"])
dialect("blank_last", lambda t: t + "\r\n\r\n")
dialect("blank_mid", lambda t: t.replace("\r\n", "\r\n\r\n", 3))
dialect("mac", lambda t: t.replace("\r\n", "\r"))
dialect("comment", lambda t: "# made by extract.py\r\n" + t)
dialect("spaces", lambda t: t.replace(",", ", "))
dialect("Id", lambda t: t.replace("id,", "Id,", 1), notes=["'Id'"])
dialect("image_id", lambda t: t.replace("id,", "image_id,", 1), notes=["'image_id'"])
dialect("empty_cell", lambda t: of_row_7(t, lambda l: l.rsplit(",", 1)[0] + ","), words=["row 7", "line 9", "'f3' is empty"])
dialect("nan", lambda t: of_row_7(t, lambda l: l.rsplit(",", 1)[0] + ",NaN"), words=["row 7", "train7"])
dialect("overflow", lambda t: of_row_7(t, lambda l: l.rsplit(",", 1)[0] + ",1e39"), words=["row 7", "infinite"])

# columns that are ids by what they are called at the end, and by being unique, in another order in either table
for column in ["name", "youtube_id", "ytid", "img_path", "fname", "caption_id", "index"]:
    f = fresh("like_id_" + column)
    for m, seed in [("text", 3), ("audio", 4)]:
        o = np.random.default_rng(seed).permutation(80) if m == "audio" else np.arange(80)
        write_csv(f + "/%s.csv" % m, ["k%d" % i for i in o], BANKS[m][o], header=[column] + ["f%d" % i for i in range(BANKS[m].shape[1])])
    expect(f, "csv", BANKS, notes=["ids are column '%s'" % column])

# what is not used is told
f = fresh("left_out_words")
for m in BANKS: write_csv(f + "/%s.csv" % m, ["train"] * 60 + ["test"] * 20, BANKS[m], header=["split"] + ["f%d" % i for i in range(BANKS[m].shape[1])])
expect(f, "csv", BANKS, notes=["left out: 'split'"])

# no header
f = fresh("no_header")
for m in BANKS: np.savetxt(f + "/%s.csv" % m, BANKS[m], delimiter=",")
expect(f, "csv", words=["numbers where names of columns are expected"])

# the names of classes in a column called as the labels are
f = fresh("classes_by_label")
for m in BANKS: write_csv(f + "/%s.csv" % m, range(80), BANKS[m], label=[i % 3 for i in range(80)])
write_csv(f + "/text.classes.csv", [2, 0, 1], rows(3, 4, 8), header=["label"] + ["f%d" % i for i in range(4)])
expect(f, "csv", BANKS, classes=["2", "0", "1"], labels=[[1, 2, 0][i % 3] for i in range(80)])

# pandas df.to_csv with a column of lists, and of arrays
for kind in ["list", "ndarray"]:
    f = fresh("vectors_" + kind)
    for part, n, seed in PARTS:
        for m, d, s in [("text", 4, seed), ("audio", 3, seed + 1)]:
            x = rows(n, d, s)
            pd.DataFrame({"id": ["%s%d" % (part, i) for i in range(n)], "embedding": [v.tolist() if kind == "list" else v for v in x]}).to_csv(f + "/s.%s.%s.csv" % (m, part), index=False)
    # NumPy prints eight digits of an array
    expect(f, "csv", BANKS, near={} if kind == "list" else {"text": 1e-7, "audio": 1e-7})

f = fresh("vectors_cut")
for part, n, seed in PARTS:
    for m, s in [("text", seed), ("audio", seed + 1)]:
        x = rows(n, 1200, s)
        pd.DataFrame({"id": range(n), "embedding": [v for v in x]}).to_csv(f + "/s.%s.%s.csv" % (m, part), index=False)
expect(f, "csv", words=["'...'", "tolist"])
