// What the examples in the comments of the source and in docs/theory.md may name: one old pair, a step that was projected away
// from it, and the step's loss. `dotnet fsi build.fsx -- examples` runs them.
#load "../scripts/load.fsx"

open Cmcl
open TorchSharp

torch.set_num_threads 1

/// Prints a condition, and ends the script where it does not hold.
let check (c: Condition) : unit =
    let text = $"{c.Where}, {c.Name}: {c.Value:``0.0e-0``} ≤ {c.Bound:``0.0e-0``} + {c.Tolerance:``0.0e-0``}"
    if c.Holds then printfn "%s" text else failwith $"does not hold: {text}"

let seed = Seed.ofInt 0
let pair = Pair.named "vision" "text"
let private normal purpose shape = Seed.normal shape (Seed.split purpose seed)

/// Rows of rank 4: n × columns, float64.
let private lowRank purpose rows columns =
    Tensors.product (normal $"{purpose} latent" [ rows; 4L ]) (normal $"{purpose} basis" [ 4L; columns ] / 4.0.AsScalar())

let private projector x =
    let spectrum = Spectrum.decompose (Moment.ofRows x).Matrix
    Spectrum.projector spectrum.NumericalRank spectrum

/// Old rows.
let xa, xb = lowRank "old a" 12L 10L, lowRank "old b" 12L 9L
/// Heads before the step: 8 × 10 and 8 × 9.
let heads: Heads = Map [ pair.A, normal "wa" [ 8L; 10L ]; pair.B, normal "wb" [ 8L; 9L ] ]
/// Old outputs.
let ya, yb = Heads.outputs heads[pair.A] xa, Heads.outputs heads[pair.B] xb
/// Projectors onto the spans of old inputs and of old outputs (so P̃_a = pyb, P̃_b = pya).
let pa, pb, pya, pyb = projector xa, projector xb, projector ya, projector yb
let ma, mb = Moment.ofRows xa, Moment.ofRows xb
let frameA = Frame.ofMoments false ma (Moment.ofRows yb)

let private newA, newB = normal "new a" [ 16L; 10L ], normal "new b" [ 16L; 9L ]
let private newOutputs (heads: Heads) = Heads.outputs heads[pair.A] newA, Heads.outputs heads[pair.B] newB
let private contrast = { Contrastive.paper with Temperature = 30.0 }
let private atNew = newOutputs heads ||> Contrastive.gradients contrast
/// InfoNCE on new rows.
let loss (heads: Heads) : float = Tensors.toFloat (newOutputs heads ||> Contrastive.loss contrast)
/// Its gradients.
let ga, gb = Contrastive.weightGradient atNew.A newA, Contrastive.weightGradient atNew.B newB
let gradients: Heads = Map [ pair.A, ga; pair.B, gb ]
/// The same projected (Theorem 4).
let deltas: Heads = Map [ pair.A, Projection.localUpdate pyb pa ga; pair.B, Projection.localUpdate pya pb gb ]
/// The changes of one step, and the heads after it.
let da, db = deltas[pair.A] * (-0.1).AsScalar(), deltas[pair.B] * (-0.1).AsScalar()
let after: Heads = Map [ pair.A, heads[pair.A] + da; pair.B, heads[pair.B] + db ]
/// What is kept of the old rows.
let old = OldStep.ofRows 1 pair heads xa xb
/// The moments of other matched rows, of weight 16.
let joint = JointMoments.ofRows pair newA newB
