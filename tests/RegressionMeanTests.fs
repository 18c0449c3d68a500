module Cmcl.Tests.RegressionMeanTests

open Cmcl
open Expecto
open Cmcl.Tests.Checks
open TorchSharp

/// The second moment of n rows of d numbers, and a ridge of a tenth.
let private moment (c: Case) (purpose: string) (d: int64) : torch.Tensor =
    let x = normal c purpose c.N d
    x.t().mm(x) / number (float c.N) .+ torch.eye (d, dtype = torch.float64) * number 0.1

let private terms (c: Case) (count: int) : RegressionTerm list =
    [ for t in 1..count ->
          { Inputs = moment c $"inputs {t}" c.Da
            Partners = moment c $"partners {t}" c.D } ]

let private ofStep (c: Case) (t: int) : torch.Tensor = normal c $"w {t}" c.D c.Da

/// Σ_t H_t W_t C_t.
let private right (c: Case) (terms: RegressionTerm list) : torch.Tensor =
    terms |> List.mapi (fun i t -> RegressionMean.apply [ t ] (ofStep c (i + 1))) |> List.reduce (.+)

let private solve (c: Case) (terms: RegressionTerm list) (from: torch.Tensor) : torch.Tensor =
    RegressionMean.solve terms (right c terms) from |> Check.getAll

let private residual (c: Case) (terms: RegressionTerm list) (w: torch.Tensor) : float =
    Tensors.relativeDifference (RegressionMean.apply terms w) (right c terms)

let tests =
    testList
        "RegressionMean"
        [ property "the residual is at most 1e-10, from wherever it starts" (fun c ->
              let all = terms c 3

              for from in [ ofStep c 3; torch.zeros_like (ofStep c 1) ] do
                  untouched "the arguments" (from :: [ for t in all -> t.Inputs ]) (fun () ->
                      Expect.isLessThanOrEqual (residual c all (solve c all from)) 1.01e-10 "residual"))

          mustFail "the plain mean of the heads does not solve it" (fun c ->
              let plain = [ for t in 1..3 -> ofStep c t ] |> List.reduce (.+)
              Expect.isLessThan (residual c (terms c 3) (plain / number 3.0)) 1e-8 "residual")

          property "it is the solution of the system of all entries" (fun c ->
              let all = terms c 3
              // Of row-major entries: (H W C)_ij = Σ_kl H_ik C_lj W_kl.
              let matrix = [ for t in all -> torch.kron (t.Partners, t.Inputs.t().contiguous()) ] |> List.reduce (.+)
              let expected = torch.linalg.solve(matrix, (right c all).reshape(-1L, 1L)).reshape(c.D, c.Da)
              same "W" 1e-5 (solve c all (ofStep c 1)) expected
              Expect.isLessThan (residual c all expected) 1e-9 "which has the residual of a solution, too")

          property "one step gives its head, bit for bit, and equal heads give that head" (fun c ->
              let w = ofStep c 1
              identical "one" (solve c (terms c 1) w) w

              let all = terms c 3
              let right = RegressionMean.apply all w
              same "equal" 1e-6 (RegressionMean.solve all right (ofStep c 2) |> Check.getAll) w)

          property "without partners it is RegMean" (fun c ->
              let all = terms c 3 |> List.map (fun t -> { t with Partners = torch.eye (c.D, dtype = torch.float64) })
              let inputs = all |> List.map _.Inputs |> List.reduce (.+)
              let closed = RegressionMean.oneSided inputs (right c all)
              same "RegMean" 1e-7 (solve c all (ofStep c 1)) closed
              same "and its formula" close (closed.mm inputs) (right c all))

          test "what has no solution is told" (fun () ->
              use scope = torch.NewDisposeScope()

              let plane =
                  { Inputs = Tensors.ofRows [ [ 1.0; 0.0 ]; [ 0.0; 0.0 ] ]
                    Partners = torch.eye (1L, dtype = torch.float64) }

              match RegressionMean.solve [ plane ] (Tensors.ofRows [ [ 1.0; 1.0 ] ]) (Tensors.ofRows [ [ 0.0; 0.0 ] ]) with
              | Error [ Fault.Contradiction(what, advice) ] ->
                  Expect.stringContains what "a regression mean of 1 steps" "what"
                  Expect.stringContains advice "larger ridge" "advice"
              | other -> failtest $"{other}") ]
