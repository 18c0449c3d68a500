# Folders as the field's tools leave them, and several captions an image.
from common import *

# clip-retrieval inference: shards in numeric order, ids in the metadata where pandas can write Parquet (it is not needed)
f = fresh("clip_retrieval")
image, text = rows(110, 8, 1).astype("f2"), rows(110, 8, 2).astype("f2")
for sub in ["img_emb", "text_emb", "metadata"]: os.makedirs(f + "/" + sub)
for k in range(11):
    np.save(f + "/img_emb/img_emb_%d.npy" % k, image[10 * k:10 * k + 10])
    np.save(f + "/text_emb/text_emb_%d.npy" % k, text[10 * k:10 * k + 10])
expect(f, "clip-retrieval", {"vision": image, "text": text}, notes=["test (drawn)"])

f = fresh("safetensors_bank")
for part, n, seed in PARTS:
    safetensors(f + "/s.%s.safetensors" % part, text=("F32", rows(n, 4, seed)), audio=("F32", rows(n, 3, seed + 1)))
expect(f, "safetensors", BANKS)

f = fresh("safetensors_single")
for part, n, seed in PARTS:
    for m, d, s in [("text", 4, seed), ("audio", 3, seed + 1)]:
        safetensors(f + "/s.%s.%s.safetensors" % (m, part), features=("F32", rows(n, d, s)), ids=("I64", np.arange(n)))
expect(f, "safetensors", BANKS)

f = fresh("pt_damaged")
for m in ["text", "audio"]: open(f + "/s.%s.train.pt" % m, "wb").write(b"PK\x03\x04aaaa")
expect(f, "pt", words=["s.text.train.pt"])

try:
    import h5py
    f = fresh("hdf5_generic")
    for part, n, seed in PARTS:
        for m, d, s in [("text", 4, seed), ("audio", 3, seed + 1)]:
            o = np.random.default_rng(7).permutation(n) if m == "audio" else np.arange(n)
            with h5py.File(f + "/s.%s.%s.h5" % (m, part), "w") as h:
                h.create_dataset("features", data=rows(n, d, s)[o], chunks=(7, d), compression="gzip")
                h["ids"] = ["a%d" % i for i in o]
                h["labels"] = o % 5
    expect(f, "hdf5", BANKS)
except ImportError:
    pass

# 40 pictures with five captions each, by ids, by repeated rows, and the pictures' rows alone
z, caption = rows(60, 16, 11), rows(300, 16, 12)
f = fresh("captions_by_id")
write_csv(f + "/s.vision.csv", ["img%d" % i for i in range(60)], z)
write_csv(f + "/s.text.csv", ["img%d" % (i // 5) for i in range(300)], caption)
expect(f, "csv", {"vision": z, "text": caption}, pairs=[[i // 5, i] for i in range(300)], notes=["60 items"])

f = fresh("captions_by_place")
np.save(f + "/s.vision.npy", np.repeat(z, 5, 0))
np.save(f + "/s.text.npy", caption)
expect(f, "npy", {"vision": z, "text": caption}, pairs=[[i // 5, i] for i in range(300)], notes=["60 different rows, 5 times each"])

# a text for each class, the same for all of its 100 rows: no item
f = fresh("class_texts")
text = np.repeat(rows(3, 16, 13), 100, 0)
np.save(f + "/s.vision.npy", caption)
np.save(f + "/s.text.npy", text)
expect(f, "npy", {"vision": caption, "text": text}, notes=["as texts of classes have"])
