"""Canonical correlations by NumPy's SVD, and of three sets by its eigensolver: what tests/CcaTests.fs compares with.

python3 tests/cases/cca.py > tests/cases/cca.json
"""
import json
import numpy as np

rng = np.random.default_rng(20261128)


def root(c, ridge):
    w, u = np.linalg.eigh(c)
    return (u * (w + ridge * w.mean()) ** -0.5) @ u.T


def two(x, y, ridge, q):
    """Textbook: the SVD of C_a^-1/2 C_ab C_b^-1/2; M = A S^2q B^T up to one factor."""
    n = len(x)
    wa, wb = root(x.T @ x / n, ridge), root(y.T @ y / n, ridge)
    u, s, vt = np.linalg.svd(wa @ (x.T @ y / n) @ wb, full_matrices=False)
    return s, (wa @ u * s ** (2 * q)) @ (vt @ wb)


def many(sets, pairs, ridge, q, r):
    """The blocks of K and D summed over pairs of row sets, each pair's rows averaged."""
    names, d = list(sets), {m: w for m, w in sets.items()}
    second = {m: np.zeros((d[m], d[m])) for m in names}
    cross = {(a, b): np.zeros((d[a], d[b])) for a in names for b in names}
    for a, b, x, y in pairs:
        n = len(x)
        second[a] += x.T @ x / n
        second[b] += y.T @ y / n
        cross[a, b] += x.T @ y / n
        cross[b, a] += y.T @ x / n
    k = np.block([[cross[a, b] for b in names] for a in names])
    roots = [root(second[m], ridge) for m in names]
    size = sum(d.values())
    b = np.zeros((size, size))
    at = 0
    for m, w in zip(names, roots):
        b[at:at + d[m], at:at + d[m]] = w
        at += d[m]
    w, v = np.linalg.eigh(b @ k @ b)
    w, v = w[::-1][:r], (b @ v)[:, ::-1][:, :r]
    out, at = {}, 0
    for m in names:
        out[m] = v[at:at + d[m]] * w ** q
        at += d[m]
    return w, {f"{a}|{b}": out[a] @ out[b].T for a in names for b in names if a < b}


x, y = rng.normal(size=(30, 4)), rng.normal(size=(30, 3))
y[:, :2] += x[:, :2] @ rng.normal(size=(2, 2))
s, m = two(x, y, 0.1, 0.75)
z = rng.normal(size=(40, 5))
noisy = lambda d: z @ rng.normal(size=(5, d)) + 0.5 * rng.normal(size=(40, d))
sets = {"audio": 4, "text": 6, "vision": 5}
pairs = [(a, b, noisy(sets[a])[:n], noisy(sets[b])[:n])
         for a, b, n in [("vision", "text", 40), ("text", "audio", 25), ("vision", "audio", 31), ("vision", "text", 17)]]
w, ms = many(sets, pairs, 0.3, 1.0, 5)
print(json.dumps({
    "two": {"x": x.tolist(), "y": y.tolist(), "ridge": 0.1, "exponent": 0.75, "values": s.tolist(), "product": m.tolist()},
    "many": {"pairs": [{"a": a, "b": b, "x": x.tolist(), "y": y.tolist()} for a, b, x, y in pairs], "ridge": 0.3, "rank": 5,
             "values": w.tolist(), "products": {k: v.tolist() for k, v in ms.items()}}}))
