module Cmcl.Tests.SpectrumTests

open Cmcl
open Expecto
open Cmcl.Tests.Checks
open TorchSharp

let private moment (c: Case) = (Moment.ofRows (planted c "x" c.Rank c.N c.Da)).Matrix

/// A spectrum with given eigenvalues on the standard basis.
let private given (shares: float list) : Spectrum =
    { Values = Array.ofList shares
      Vectors = torch.eye (int64 shares.Length, dtype = torch.float64) }

let private parsed text = Threshold.parse text |> Check.get

let tests =
    testList
        "Spectrum"
        [ property "the decomposition gives the matrix back" (fun c ->
              let m = moment c
              let s = Spectrum.decompose m
              same "U Λ Uᵀ" close (s.Vectors.mm(torch.diag (torch.tensor s.Values)).mm(s.Vectors.t ())) m
              Expect.equal s.Values (Array.sortDescending s.Values) "largest first"
              Expect.isTrue (s.Values |> Array.forall (fun v -> v >= 0.0)) "none negative"
              near "trace" close s.Total (item (m.trace ())))

          property "the frame is orthonormal, whatever the rank" (fun c ->
              let s = Spectrum.decompose (moment c)
              same "UᵀU" tight (s.Vectors.t().mm s.Vectors) (torch.eye (c.Da, dtype = torch.float64))
              Expect.equal (int64 s.NumericalRank) (min c.Rank (min c.N c.Da)) "rank")

          property "completing a basis keeps it and depends on it alone" (fun c ->
              let k = min c.Rank c.Da
              let struct (q, _) = torch.linalg.qr (normal c "basis" c.Da k)
              let full = Spectrum.complete q
              identical "the first k" (full.narrow (1L, 0L, k)) q
              identical "again" (Spectrum.complete (q.clone ())) full
              same "orthonormal" tight (full.t().mm full) (torch.eye (c.Da, dtype = torch.float64)))

          test "each rule of cutting, counted by hand" (fun () ->
              let s = given [ 4.0; 3.0; 2.0; 1.0; 0.0 ]

              for text, count in
                  [ "absolute:2", 2
                    "absolute:1.999", 3
                    "absolute:0", 4
                    "relative:0.5", 2
                    "relative:0.2", 4
                    "trace:0.2", 2
                    "trace:0.05", 4
                    "energy:0", 4
                    "energy:0.1", 3
                    "energy:0.29", 3
                    "energy:0.3", 2
                    "energy:0.99", 1
                    "rank:0", 0
                    "rank:3", 3
                    "rank:9", 4 ] do
                  Expect.equal (Spectrum.rank (parsed text) s) count text)

          property "what is zero to rounding is never protected" (fun c ->
              let s = Spectrum.decompose (moment c)
              let rank = int (min c.Rank (min c.N c.Da))

              for text in [ "absolute:0"; "relative:0"; "trace:0"; "energy:0"; "rank:100" ] do
                  Expect.equal (Spectrum.rank (parsed text) s) rank text

              let noise = given [ 1.0; 1e-17; 0.0 ]
              Expect.equal (Spectrum.rank (parsed "rank:3") noise) 1 "noise")

          property "the energy cut discards no more than it may, and the fewest do" (fun c ->
              let s = Spectrum.decompose (moment c)
              let share = fraction c "share"
              let k = Spectrum.rank (Threshold.energy share |> Check.get) s
              let left k = Array.sum s.Values[k..]
              Expect.isTrue (left k <= share * s.Total + 1e-12) "at most the share"
              Expect.isTrue (k = 0 || left (k - 1) > share * s.Total - 1e-12) "one less would discard more")

          property "projectors are symmetric, idempotent, of the rank, and take in the data" (fun c ->
              let x = planted c "x" c.Rank c.N c.Da
              let s = Spectrum.decompose (Moment.ofRows x).Matrix
              let p = Spectrum.projector s.NumericalRank s
              same "symmetric" tight p (p.t ())
              same "idempotent" tight (p.mm p) p
              near "trace" close (item (p.trace ())) (float s.NumericalRank)
              vanishes "X (I − P)" 1e-7 (Tensors.norm (x - x.mm p)) (1.0 + Tensors.norm x))

          test "thresholds are shown as they are read" (fun () ->
              for text in [ "absolute:0.01"; "relative:1e-10"; "trace:0.003"; "energy:0.5"; "rank:7"; "absolute:0" ] do
                  Expect.equal (Threshold.show (parsed text)) text "round trip"

              Expect.equal (parsed "trace:3e-3") (parsed "trace:0.003") "one value")

          test "what is no threshold is refused" (fun () ->
              for text in
                  [ ""
                    "3e-3"
                    "trace"
                    "trace:"
                    "trace:x"
                    "trace:1"
                    "relative:-0.1"
                    "energy:1.5"
                    "absolute:-1"
                    "absolute:nan"
                    "absolute:infinity"
                    "relative:nan"
                    "rank:-1"
                    "rank:1.5"
                    "rank:1:2"
                    "share:0.1"
                    "trace:0,003" ] do
                  match Threshold.parse text with
                  | Error [ Fault.BadValue("a threshold", _, _) ] when not (text.StartsWith "share") -> ()
                  | Error [ Fault.NotOneOf _ ] when text.StartsWith "share" -> ()
                  | other -> failtest $"'{text}' gave {other}")

          test "a flat spectrum counts every direction, an empty one none" (fun () ->
              let flat, empty = Spectrum.flat torch.CPU 4L, Spectrum.empty torch.CPU 4L
              Expect.equal flat.Shares (Array.create 4 0.25) "flat"
              Expect.equal flat.NumericalRank 4 "full rank"
              Expect.equal empty.Shares (Array.zeroCreate 4) "empty"
              Expect.equal empty.NumericalRank 0 "no rank")

          test "a moment that is not finite is a fault" (fun () ->
              match faultOf (fun () -> Spectrum.decompose (Tensors.ofRows [ [ 1.0; 0.0 ]; [ 0.0; nan ] ])) with
              | Fault.NonFinite("second moment", 1L) -> ()
              | other -> failtest other.Message)

          property "leaves its inputs as they are" (fun c ->
              let m = moment c
              let s = Spectrum.decompose m

              untouched "Spectrum" [ m; s.Vectors ] (fun () ->
                  Spectrum.decompose m |> ignore
                  Spectrum.complete (Spectrum.leading s.NumericalRank s) |> ignore
                  Spectrum.projector 1 s)) ]
