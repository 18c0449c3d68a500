// What the encoders share: rows at unit length, principal axes that are fitted on base rows, projection onto them.
#load "../load.fsx"
#load "render.fsx"

open Cmcl
open TorchSharp
open Inventory

let dimension = 256L

/// Rows at unit length.
let unit (x: torch.Tensor) = Alignment.normalise x

/// Where base rows vary most, and how to project onto it: x ↦ unit((x − mean) V).
type Axes = { Mean: torch.Tensor; Vectors: torch.Tensor }

/// Principal axes of the given rows, at most `dimension` of them, each divided by the square root of its standard deviation: the
/// order of importance stays, less steep. From the Gram matrix of the rows, there being far more n-grams than base texts.
let axes (centred: bool) (rows: torch.Tensor) : Axes =
    let x = rows.``to`` torch.float64
    let mean = if centred then x.mean ([| 0L |], true) else torch.zeros (1L, x.shape[1], dtype = torch.float64)
    let centredRows = x - mean
    let struct (values, left) = torch.linalg.eigh (centredRows.mm (centredRows.t ()))
    let k = min dimension (min x.shape[0] x.shape[1])
    let values = values.flip(0L).narrow(0L, 0L, k)
    let left = left.flip(1L).narrow(1L, 0L, k)
    // The axes are Xᵀ U/σ with σ² the eigenvalues; over σ^½ once more.
    { Mean = mean
      Vectors = centredRows.t().mm(left) / values.clamp_min(1e-12.AsScalar()).pow(0.75.AsScalar()) }

let project (a: Axes) (rows: torch.Tensor) : torch.Tensor =
    let y = unit ((rows.``to`` torch.float64 - a.Mean).mm a.Vectors)

    if y.shape[1] = dimension then
        y
    else
        torch.cat ([| y; torch.zeros (y.shape[0], dimension - y.shape[1], dtype = torch.float64) |], 1L)

/// Feature groups side by side, each at unit length times its weight.
let groups (parts: (float * torch.Tensor) list) =
    torch.cat ([| for weight, x in parts -> unit (x.reshape (x.shape[0], -1L)) * weight.AsScalar() |], 1L)

/// Some rows, in the order given.
let rowsOf (x: torch.Tensor) (rows: int[]) = x.index_select (0L, torch.tensor (Array.map int64 rows))

/// Features of one domain: all items, and base items in other views (none for domains that the binding does not see).
type Encoded =
    { Name: string
      Modality: string
      Items: torch.Tensor
      Views: torch.Tensor list }

let ofViews (x: torch.Tensor) =
    let n = int64 baseRows.Length
    [ for v in 0L .. x.shape[0] / n - 1L -> x.narrow (0L, v * n, n) ]
